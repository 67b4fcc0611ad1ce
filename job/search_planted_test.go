package job

import (
	"testing"
	"time"

	"carnet/capsule"
	"carnet/dpm"
)

func TestSearchFindsNothingInTheRules(t *testing.T) {
	for name, b := range searches {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, wrong := search(honest, b)
			t.Logf("%d scenes", n)
			if wrong != "" {
				t.Error(wrong)
			}
			if n < 1000 {
				t.Errorf("%d scenes are too few to say anything", n)
			}
		})
	}
}

// A mistake in each rule is found.
func TestSearchFindsPlantedMistakes(t *testing.T) {
	for name, v := range map[string]struct {
		in    string // of searches
		plant func(*rules)
	}{
		"what is done is taken after the withdrawal": {"processes end", func(r *rules) {
			r.world = func(s Stand, e Event) (Stand, error) {
				if s.State == Withdrawing && e.Kind == Resulted {
					s.State = Accepted
				}
				return Next(s, e)
			}
		}},
		"what has ended ends again": {"the DPM is restored", func(r *rules) {
			r.world = func(s Stand, e Event) (Stand, error) {
				if s.State == Ended && e.Kind == Resulted {
					s.State = Accepted
				}
				return Next(s, e)
			}
		}},
		"the end of its time isn't seen": {"the DPM is restored", func(r *rules) {
			r.world = func(s Stand, e Event) (Stand, error) {
				if e.Kind == Overdue {
					return s, nil
				}
				return Next(s, e)
			}
		}},
		"inputs leave after the withdrawal": {"processes end", func(r *rules) { r.sends = func(s *Stand) bool { return s.State != Ended } }},
		"an attempt that is over ends the job": {"processes end", func(r *rules) {
			r.dpm = func(j dpm.Job, e dpm.Event) (dpm.Job, error) {
				if e.Kind == dpm.Finished {
					e.Attempt = j.Attempt
				}
				return dpm.Next(j, e)
			}
		}},
		"a job is tried without end": {"processes end", func(r *rules) {
			r.dpm = func(j dpm.Job, e dpm.Event) (dpm.Job, error) {
				if n, err := dpm.Next(j, e); err != nil || e.Kind != dpm.Lost || n.State != dpm.Ended {
					return n, err
				}
				j.State = dpm.Ready
				return j, nil
			}
		}},
		"what is done isn't withdrawn": {"processes end", func(r *rules) {
			r.dpm = func(j dpm.Job, e dpm.Event) (dpm.Job, error) {
				if e.Kind == dpm.Withdraw && j.Outcome == capsule.Done {
					return j, nil
				}
				return dpm.Next(j, e)
			}
		}},
		"what is withdrawn is given to a worker": {"processes end", func(r *rules) {
			r.dpm = func(j dpm.Job, e dpm.Event) (dpm.Job, error) {
				if e.Kind == dpm.Withdraw {
					j.Withdrawal = e.Withdrawal
					return j, nil
				}
				return dpm.Next(j, e)
			}
		}},
		"a job is given after its time": {"processes end", func(r *rules) {
			r.dpm = func(j dpm.Job, e dpm.Event) (dpm.Job, error) {
				if e.Kind == dpm.Given {
					e.At = time.Time{}
				}
				return dpm.Next(j, e)
			}
		}},
		"an order is stored before its keys":                {"processes end", func(r *rules) { r.keysFirst = false }},
		"keys of no job stay":                               {"processes end", func(r *rules) { r.destroyStray = false }},
		"a withdrawal is answered before the keys are gone": {"processes end", func(r *rules) { r.answerWhenCleared = false }},
		"a withdrawal of what never came is forgotten":      {"processes end", func(r *rules) { r.bury = false }},
		"a result is said to be taken before it is stored":  {"processes end", func(r *rules) { r.takeWhenStored = false }},
		"what has ended is forgotten at once":               {"processes end", func(r *rules) { r.rememberUntil = false }},
		"another process isn't told of withdrawals":         {"the DPM is restored", func(r *rules) { r.remindAgain = false }},
		"a result that was taken isn't said to be":          {"the world is restored", func(r *rules) { r.sayTaken = false }},
		"a withdrawal isn't shown":                          {"the world is restored", func(r *rules) { r.sayWithdrawn = false }},
		"a job is forgotten before its keys are destroyed": {"processes end", func(r *rules) {
			r.forgets = func(j *dpm.Job, now time.Time) bool {
				all := *j
				all.Cleared = true
				return all.Forgettable(now)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := honest
			v.plant(&r)
			n, wrong := search(r, searches[v.in])
			if wrong == "" {
				t.Errorf("nothing is found in %d scenes", n)
			}
			t.Logf("%d scenes: %s", n, wrong)
		})
	}
}
