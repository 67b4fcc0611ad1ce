package job

import (
	"fmt"
	"time"

	"carnet/capsule"
	"carnet/dpm"
)

// The search visits all orders of events of one job at a world and at a DPM with its
// workers: messages that are lost, late or come twice, crashes of either between each two
// durable steps, workers that are killed or go on after their lease, the job's
// withdrawal, the end of its time, and each side restored from an older copy once. Both
// sides' states change by the production functions alone, job.Next and dpm.Next; rules
// holds these and what is decided around them, so that a mistake can be planted in each.

// scene is everything: what is on both disks, what was sent, and what is in memory.
type scene struct {
	// The world's disk and memory.
	Stand  Stand
	Output bool
	Heard  heard
	Whole  bool // it has fetched and verified an output
	// What it ever sent: each may come, late, twice or never.
	Order, Content, Withdrawal, Taken bool

	DPM     office
	Pending bool   // an order's keys are stored, and the order isn't yet
	Workers [2]int // which attempts workers have; 0: none

	Clock int // 0; 1: the job's time is over; 2: and it may be forgotten

	// What was left of the bounds, and copies.
	Crashes     int
	Copied      bool
	Copy        office
	Restored    bool // the DPM was
	WorldCopied bool
	WorldCopy   Stand
	CopyOutput  bool
	WorldBack   bool // the world was
	Takes       int
	Wrong       string // of the step that led here
}

// heard is what a DPM answered, as far as the world's process has it.
type heard struct {
	Accepted, Refused, Told bool
	Result                  result // the last, by status
	Answer                  result // to a withdrawal
	Gone                    bool   // the result was taken before
	Withdrawal              bool   // shown with the result
}

// result is what a DPM signs.
type result struct {
	Outcome capsule.Outcome
	Attempt int
}

func (r result) text() string {
	if r.Outcome == "" {
		return ""
	}
	return fmt.Sprintf("%s/%d", r.Outcome, r.Attempt)
}

// office is what a DPM has on disk.
type office struct {
	There, Buried bool
	State         dpm.State
	Attempt       int
	Outcome       capsule.Outcome
	Taken         bool
	Cleared       bool
	Withdrawn     bool
	Keys          bool
	Content       bool
	Parts         int // the attempt whose parts are there
}

func (o *office) job() dpm.Job {
	j := dpm.Job{State: o.State, Attempt: o.Attempt, Outcome: o.Outcome, Taken: o.Taken, Cleared: o.Cleared, Until: until}
	if o.Withdrawn {
		j.Withdrawal = "w"
	}
	return j
}

func (o *office) result() result {
	if !o.There || o.State != dpm.Ended {
		return result{}
	}
	return result{o.Outcome, o.Attempt}
}

var until = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func (s *scene) now() time.Time {
	return []time.Time{until.Add(-time.Minute), until, until.Add(25 * time.Hour)}[s.Clock]
}

// rules are how the two sides decide.
type rules struct {
	world func(Stand, Event) (Stand, error)
	dpm   func(dpm.Job, dpm.Event) (dpm.Job, error)
	sends func(*Stand) bool
	// Around them: what the code does in an order that matters.
	keysFirst         bool // keys are stored before the order
	destroyStray      bool // a start destroys keys of jobs that need none
	answerWhenCleared bool // a withdrawal is answered when its keys are gone
	bury              bool // a withdrawal of what never came is remembered
	takeWhenStored    bool // the DPM is told that a result is taken when it is stored
	remindAgain       bool // another process of the DPM is told of withdrawals again
	rememberUntil     bool // what has ended is known until nothing can come of it
	sayTaken          bool // the DPM says of a result that it was taken
	sayWithdrawn      bool // the DPM shows the withdrawal by which a job ended
	forgets           func(*dpm.Job, time.Time) bool
}

var honest = rules{
	world: Next, dpm: dpm.Next, sends: (*Stand).Sends, forgets: (*dpm.Job).Forgettable,
	keysFirst: true, destroyStray: true, answerWhenCleared: true, bury: true, takeWhenStored: true, remindAgain: true, rememberUntil: true, sayTaken: true, sayWithdrawn: true,
}

// desk has an event happen to the DPM's job.
func (s *scene) desk(r rules, e dpm.Event) bool {
	if !s.DPM.There {
		return false
	}
	e.At = s.now()
	before := s.DPM
	j, err := r.dpm(s.DPM.job(), e)
	if err != nil {
		return false
	}
	s.DPM.State, s.DPM.Attempt, s.DPM.Outcome, s.DPM.Taken, s.DPM.Cleared, s.DPM.Withdrawn = j.State, j.Attempt, j.Outcome, j.Taken, j.Cleared, j.Withdrawal != ""
	return s.DPM != before
}

// stand has an event happen to the world's job.
func (s *scene) stand(r rules, e Event) bool {
	e.At = until
	was := s.Stand
	next, err := r.world(was, e)
	if err != nil || next == was {
		return false
	}
	s.Stand = next
	if was.State == Ended && (next.State != Ended || next.Result != was.Result || next.Outcome != was.Outcome) {
		s.Wrong = "a job that has ended ends again"
	}
	if was.State == Withdrawing && next.Outcome == capsule.Done {
		s.Wrong = "an output is taken after the withdrawal"
	}
	if next.State == Ended && next.Outcome == capsule.Done && was.State != Ended {
		s.Takes++
		s.Output = true
	}
	return true
}

// step is one thing that may happen. wanted are those that happen by themselves when
// nothing is in the way.
type step struct {
	name   string
	wanted bool
	do     func(*scene) bool
}

func (r rules) steps() []step {
	return []step{
		// The world.
		{"the order leaves", true, func(s *scene) bool {
			lost := s.Stand.State == Accepted && !s.DPM.There
			if s.Order && !lost || s.Stand.State != Ordered && !lost {
				return false
			}
			s.Order = true
			return true
		}},
		{"the acceptance is heard", true, func(s *scene) bool {
			return s.Heard.Accepted && s.stand(r, Event{Kind: Accept, Acceptance: "a"})
		}},
		{"a refusal is heard", true, func(s *scene) bool {
			return s.Heard.Refused && s.Stand.State != Withdrawing && s.stand(r, Event{Kind: Refuse})
		}},
		{"content leaves", true, func(s *scene) bool {
			if s.Content || !s.DPM.There || s.DPM.State == dpm.Ended || !r.sends(&s.Stand) || s.Stand.State == Ordered {
				return false
			}
			s.Content = true
			if s.Stand.State != Accepted {
				s.Wrong = "content leaves after the withdrawal"
			}
			return true
		}},
		{"the output is fetched", true, func(s *scene) bool {
			h := s.Heard.Result
			if s.Whole || s.Stand.State != Accepted || h.Outcome != capsule.Done {
				return false
			}
			if s.DPM.Parts != h.Attempt || s.DPM.result() != h {
				if s.DPM.result() == h && r.sayTaken && s.DPM.Taken {
					return s.stand(r, Event{Kind: Resulted, Outcome: Silent, Result: h.text()})
				}
				if s.DPM.result() == h { // it signed it, and it isn't there
					s.Wrong = "an honest DPM is said to lie"
				}
				return s.Wrong != ""
			}
			s.Whole = true
			return true
		}},
		{"a result is taken", true, func(s *scene) bool {
			h := s.Heard.Result
			if h.Outcome == "" || h.Outcome == capsule.Done && !s.Whole {
				return false
			}
			e := Event{Kind: Resulted, Outcome: h.Outcome, Result: h.text()}
			if s.Heard.Withdrawal {
				e.Withdrawal = "w"
			}
			moved := s.stand(r, e)
			if s.Stand.Outcome == Lied {
				s.Wrong = "an honest DPM is said to lie"
			}
			return moved
		}},
		{"the answer to the withdrawal is heard", true, func(s *scene) bool {
			return s.Heard.Answer.Outcome != "" && s.stand(r, Event{Kind: Resulted, Outcome: s.Heard.Answer.Outcome, Result: s.Heard.Answer.text()})
		}},
		{"it is cancelled", false, func(s *scene) bool {
			return s.Stand.Withdrawal == "" && s.stand(r, Event{Kind: Withdraw, Withdrawal: "w"})
		}},
		{"the withdrawal leaves", true, func(s *scene) bool {
			again := r.remindAgain && s.Stand.Reminds(s.now(), until) && !s.Withdrawal
			if s.Withdrawal || s.Stand.State != Withdrawing && !again {
				return false
			}
			s.Withdrawal = true
			return true
		}},
		{"its time is over", true, func(s *scene) bool { return s.Clock > 0 && s.stand(r, Event{Kind: Overdue}) }},
		{"that it is taken leaves", true, func(s *scene) bool {
			early := !r.takeWhenStored && s.Whole
			if s.Taken || !early && (s.Stand.State != Ended || s.Stand.Told || s.Stand.Result == "") {
				return false
			}
			s.Taken = true
			return true
		}},
		{"that it is taken was heard", true, func(s *scene) bool {
			return s.Stand.State == Ended && (s.Heard.Told || s.Clock == 2) && s.stand(r, Event{Kind: Tell})
		}},

		// The DPM: what comes.
		{"the order comes", true, func(s *scene) bool {
			switch {
			case !s.Order || s.Pending:
				return false
			case s.DPM.There && s.DPM.Buried:
				if s.Heard.Refused {
					return false
				}
				s.Heard.Refused = true
				return true
			case s.DPM.There:
				if s.Heard.Accepted {
					return false
				}
				s.Heard.Accepted = true
				return true
			case s.Clock > 0:
				if s.Heard.Refused {
					return false
				}
				s.Heard.Refused = true
				return true
			}
			if r.keysFirst {
				s.DPM.Keys, s.Pending = true, true
				return true
			}
			s.DPM.There, s.DPM.State, s.Pending, s.Heard.Accepted = true, dpm.Waiting, true, true
			return true
		}},
		{"the order is stored", true, func(s *scene) bool {
			if !s.Pending {
				return false
			}
			s.Pending = false
			if !r.keysFirst {
				s.DPM.Keys = true
				return true
			}
			s.DPM.There, s.DPM.State, s.Heard.Accepted = true, dpm.Waiting, true
			return true
		}},
		{"content comes", true, func(s *scene) bool {
			if !s.Content || !s.DPM.There || s.DPM.Buried || s.DPM.State == dpm.Ended || s.DPM.Content || s.Pending {
				return false
			}
			s.DPM.Content = true
			return true
		}},
		{"content is whole", true, func(s *scene) bool {
			return s.DPM.Content && !s.Pending && s.desk(r, dpm.Event{Kind: dpm.Whole})
		}},
		{"the withdrawal comes", true, func(s *scene) bool {
			if !s.Withdrawal || s.Pending || s.Clock == 2 {
				return false
			}
			if !s.DPM.There {
				if !r.bury {
					if s.Heard.Answer.Outcome != "" {
						return false
					}
					s.Heard.Answer = result{capsule.Withdrawn, 0}
					return true
				}
				s.DPM.There, s.DPM.Buried, s.DPM.State = true, true, dpm.Waiting
			}
			return s.desk(r, dpm.Event{Kind: dpm.Withdraw, Withdrawal: "w"})
		}},
		{"the withdrawal is answered", true, func(s *scene) bool {
			if !s.Withdrawal || !s.DPM.There || s.DPM.State != dpm.Ended || !s.DPM.Withdrawn || r.answerWhenCleared && !s.DPM.Cleared || s.Heard.Answer == s.DPM.result() {
				return false
			}
			s.Heard.Answer = s.DPM.result()
			return true
		}},
		{"where it stands is answered", true, func(s *scene) bool {
			h := s.DPM.result()
			if h.Outcome == "" || s.Stand.State != Accepted || s.Heard.Result == h {
				return false
			}
			s.Heard.Result, s.Whole, s.Heard.Withdrawal = h, false, s.DPM.Withdrawn && r.sayWithdrawn
			return true
		}},
		{"that it is taken comes", true, func(s *scene) bool {
			if !s.Taken || !s.DPM.There || s.DPM.State != dpm.Ended {
				if s.Taken && !s.DPM.There && !s.Heard.Told { // it knows of no job: that is final
					s.Heard.Told = true
					return true
				}
				return false
			}
			told := !s.Heard.Told
			s.Heard.Told = true
			if s.Stand.Result != s.DPM.result().text() && r.takeWhenStored {
				return told // another result
			}
			return s.desk(r, dpm.Event{Kind: dpm.Take}) || told
		}},

		// The DPM: what it does.
		{"a worker is given it", true, func(s *scene) bool {
			if s.DPM.State != dpm.Ready || s.Pending || s.DPM.Attempt > dpm.MostAttempts {
				return false
			}
			if !s.DPM.Content {
				return s.desk(r, dpm.Event{Kind: dpm.Lacking})
			}
			i := 0
			if s.Workers[0] != 0 {
				i = 1
			}
			if s.Workers[i] != 0 || !s.desk(r, dpm.Event{Kind: dpm.Given}) {
				return false
			}
			s.Workers[i] = s.DPM.Attempt
			switch {
			case s.DPM.Withdrawn:
				s.Wrong = "it is opened after the withdrawal"
			case !s.DPM.Keys:
				s.Wrong = "a worker is given a job without its keys"
			case s.Clock > 0:
				s.Wrong = "it is opened after its time"
			}
			return true
		}},
		{"a part is stored", true, func(s *scene) bool { return s.part(0) || s.part(1) }},
		{"the first worker is done", true, func(s *scene) bool { return s.end(r, 0, capsule.Done) }},
		{"the second worker is done", true, func(s *scene) bool { return s.end(r, 1, capsule.Done) }},
		{"the program fails", false, func(s *scene) bool { return s.end(r, 0, capsule.Failed) }},
		{"a worker stops, whose attempt is over", true, func(s *scene) bool { return s.drop(0) || s.drop(1) }},
		{"the lease runs out", false, func(s *scene) bool {
			return s.DPM.State == dpm.Leased && s.desk(r, dpm.Event{Kind: dpm.Lost, Attempt: s.DPM.Attempt})
		}},
		{"the lease of a dead worker runs out", true, func(s *scene) bool {
			return s.DPM.State == dpm.Leased && s.Workers[0] != s.DPM.Attempt && s.Workers[1] != s.DPM.Attempt && s.desk(r, dpm.Event{Kind: dpm.Lost, Attempt: s.DPM.Attempt})
		}},
		{"a worker is killed", false, func(s *scene) bool {
			for i := range s.Workers {
				if s.Workers[i] != 0 {
					s.Workers[i] = 0
					return true
				}
			}
			return false
		}},
		{"the DPM ends it by its time", true, func(s *scene) bool {
			return s.Clock > 0 && !s.Pending && s.desk(r, dpm.Event{Kind: dpm.Late})
		}},
		{"keys are destroyed", true, func(s *scene) bool {
			if s.DPM.State != dpm.Ended || s.DPM.Cleared || !s.DPM.Keys {
				return false
			}
			s.DPM.Keys = false
			return true
		}},
		{"content is deleted", true, func(s *scene) bool {
			if s.DPM.State != dpm.Ended || s.DPM.Cleared || s.DPM.Keys {
				return false
			}
			j := s.DPM.job()
			s.DPM.Content = false
			if !j.HasParts() {
				s.DPM.Parts = 0
			}
			return s.desk(r, dpm.Event{Kind: dpm.Clear})
		}},
		{"it is forgotten", true, func(s *scene) bool {
			if j := s.DPM.job(); !s.DPM.There || !r.forgets(&j, s.now()) && (r.rememberUntil || s.DPM.State != dpm.Ended || !s.DPM.Cleared) {
				return false
			}
			s.DPM = office{Keys: s.DPM.Keys} // its document and its files go
			return true
		}},

		// What goes wrong.
		{"the world's process ends", false, func(s *scene) bool {
			if s.Crashes == 0 {
				return false
			}
			s.Crashes--
			s.Heard, s.Whole = heard{}, false
			return true
		}},
		{"the DPM's process ends", false, func(s *scene) bool {
			if s.Crashes == 0 {
				return false
			}
			s.Crashes--
			s.begin(r)
			return true
		}},
		{"a copy of the DPM is made", false, func(s *scene) bool {
			if s.Copied || s.Pending {
				return false
			}
			s.Copied, s.Copy = true, s.DPM
			return true
		}},
		{"the DPM is restored", false, func(s *scene) bool {
			if !s.Copied || s.Restored || s.Copy == s.DPM {
				return false
			}
			s.DPM, s.Restored, s.Workers = s.Copy, true, [2]int{}
			s.begin(r)
			// Calls to the process of before have ended with it.
			s.Heard, s.Whole, s.Order, s.Content, s.Withdrawal = heard{}, false, false, false, false
			return true
		}},
		{"a copy of the world is made", false, func(s *scene) bool {
			if s.WorldCopied {
				return false
			}
			s.WorldCopied, s.WorldCopy, s.CopyOutput = true, s.Stand, s.Output
			return true
		}},
		{"the world is restored", false, func(s *scene) bool {
			if !s.WorldCopied || s.WorldBack || s.WorldCopy == s.Stand {
				return false
			}
			s.Stand, s.Output, s.WorldBack, s.Heard, s.Whole = s.WorldCopy, s.CopyOutput, true, heard{}, false
			return true
		}},
		{"time goes on", false, func(s *scene) bool {
			if s.Clock == 2 {
				return false
			}
			s.Clock++
			return true
		}},
	}
}

// begin is a start of the DPM: what a crash left undone is done.
func (s *scene) begin(r rules) {
	s.Pending = false
	j := s.DPM.job()
	if r.destroyStray && !(s.DPM.There && j.HasKeys()) {
		s.DPM.Keys = false
	}
	if !s.DPM.There || s.DPM.State == dpm.Ended || s.DPM.State == dpm.Leased {
		return
	}
	if s.DPM.Content {
		s.desk(r, dpm.Event{Kind: dpm.Whole})
	} else {
		s.desk(r, dpm.Event{Kind: dpm.Lacking})
	}
}

// part is a worker's part: the DPM takes it of the last attempt alone.
func (s *scene) part(i int) bool {
	if s.Workers[i] == 0 || s.DPM.State != dpm.Leased || s.Workers[i] != s.DPM.Attempt || s.DPM.Parts == s.Workers[i] {
		return false
	}
	s.DPM.Parts = s.Workers[i]
	return true
}

func (s *scene) end(r rules, i int, o capsule.Outcome) bool {
	attempt := s.Workers[i]
	if attempt == 0 || o == capsule.Done && s.DPM.State == dpm.Leased && attempt == s.DPM.Attempt && s.DPM.Parts != attempt {
		return false // its part comes first
	}
	if !s.desk(r, dpm.Event{Kind: dpm.Finished, Attempt: attempt, Outcome: o}) {
		return false
	}
	if attempt != s.DPM.Attempt {
		s.Wrong = "an attempt that isn't the job's any more ends it"
	}
	s.Workers[i] = 0
	return true
}

// drop is a worker whose renewal is refused.
func (s *scene) drop(i int) bool {
	if s.Workers[i] == 0 || s.DPM.State == dpm.Leased && s.DPM.Attempt == s.Workers[i] {
		return false
	}
	s.Workers[i] = 0
	return true
}

// wrong says what doesn't hold in a scene; "" if all does.
func (s *scene) wrong(b bounds) string {
	restored, back := s.Restored && b.copy, s.WorldBack && b.copied
	j := s.DPM.job()
	confirmed := s.Stand.State == Ended && s.Stand.Outcome == capsule.Withdrawn && s.Stand.Result != ""
	switch {
	case s.Wrong != "":
		return s.Wrong
	case s.Output && s.Stand.Outcome != capsule.Done:
		return "there is an output of a job that isn't done"
	case s.Takes > 1 && !back:
		return "a result is taken twice"
	case confirmed && s.DPM.Keys && !restored && !back:
		return "the DPM has keys, and has said that it has none"
	case s.DPM.There && s.DPM.State == dpm.Ended && s.DPM.Cleared && s.DPM.Keys:
		return "there are keys of a job that is cleared"
	case s.DPM.There && s.DPM.State != dpm.Ended && !s.DPM.Keys && !s.Pending:
		return "a job that isn't over has no keys"
	case !s.DPM.There && s.DPM.Keys && !s.Pending:
		return "there are keys of no job"
	case s.DPM.There && s.DPM.Taken && s.DPM.Outcome == capsule.Done && !s.Output && !back && s.Stand.Result == "":
		return "an output is deleted at the DPM, and isn't in the world"
	case s.DPM.There && s.DPM.State == dpm.Ended && s.DPM.Outcome == capsule.Done && j.HasParts() && s.DPM.Parts != s.DPM.Attempt:
		return "the parts of a job that is done are of another attempt"
	case s.DPM.Attempt > dpm.MostAttempts:
		return "it is tried for ever"
	case s.Stand.State == Accepted && !s.DPM.There && !restored && s.Clock < 2:
		return "the DPM accepted it and doesn't know it"
	}
	return ""
}

// ends lets all go well from a scene, and says what doesn't hold then. Time goes on only
// when nothing else does.
func (r rules) ends(s scene, b bounds, steps []step, v *visited, good map[packed]bool) string {
	restored, back := s.Restored && b.copy, s.WorldBack && b.copied
	asked := s.Stand.Withdrawal != "" || back || restored || s.Clock > 0
	var way []packed
	for {
		p := v.pack(&s)
		if good[p] && (asked || s.Stand.State == Ended) {
			break
		}
		way = append(way, p)
		moved := false
		for _, t := range steps {
			n := s
			if t.wanted && t.do(&n) && n != s {
				if wrong := n.wrong(b); wrong != "" {
					return wrong
				}
				s, moved = n, true
				break
			}
		}
		if moved && len(way) < 400 {
			continue
		}
		switch {
		case moved:
			return "it goes on for ever"
		case s.Clock == 0 && s.DPM.Keys && s.Stand.State == Ended && s.Stand.Withdrawal != "" && !back:
			return "the DPM has the keys of what is withdrawn, while nobody is in the way"
		case s.Clock == 0 && s.Stand.State == Withdrawing:
			return "a withdrawal isn't answered, while nobody is in the way"
		case s.Clock == 0 && !asked && s.Stand.State != Ended:
			return "it doesn't end before its time, while nobody is in the way"
		case s.Clock < 2:
			s.Clock++
			continue
		case s.Stand.State != Ended || !s.Stand.Told:
			return fmt.Sprintf("at the end the job is %s at the world", s.Stand.State)
		case s.DPM != office{} || s.Workers != [2]int{}:
			return fmt.Sprintf("at the end the DPM has %+v", s.DPM)
		}
		break
	}
	for _, p := range way {
		good[p] = true
	}
	return ""
}

// bounds are how much may go wrong in one search.
type bounds struct {
	crashes      int
	copy, copied bool // the DPM, and the world, may be restored
}

// names numbers values, so that a scene is small where it is only remembered.
type names[T comparable] struct {
	all   []T
	index map[T]uint16
}

func (n *names[T]) of(v T) uint16 {
	if i, ok := n.index[v]; ok {
		return i
	}
	if n.index == nil {
		n.index = make(map[T]uint16)
	}
	i := uint16(len(n.all))
	n.index[v], n.all = i, append(n.all, v)
	return i
}

// packed is a scene by the numbers of its parts.
type packed struct{ stand, worldCopy, heard, dpm, copy, rest uint16 }

// rest is what is left of a scene.
type rest struct {
	output, whole, order, content, withdrawal, taken, pending, copied, restored, worldCopied, copyOutput, worldBack bool
	workers                                                                                                         [2]int
	clock, crashes, takes                                                                                           int
}

// visited are the scenes of a search.
type visited struct {
	stands  names[Stand]
	heards  names[heard]
	offices names[office]
	rests   names[rest]
}

func (v *visited) pack(s *scene) packed {
	return packed{
		v.stands.of(s.Stand), v.stands.of(s.WorldCopy), v.heards.of(s.Heard), v.offices.of(s.DPM), v.offices.of(s.Copy), v.rests.of(rest{
			s.Output, s.Whole, s.Order, s.Content, s.Withdrawal, s.Taken, s.Pending, s.Copied, s.Restored, s.WorldCopied, s.CopyOutput, s.WorldBack, s.Workers, s.Clock, s.Crashes, s.Takes,
		}),
	}
}

func (v *visited) unpack(p packed) scene {
	r := v.rests.all[p.rest]
	return scene{
		Stand: v.stands.all[p.stand], WorldCopy: v.stands.all[p.worldCopy], Heard: v.heards.all[p.heard], DPM: v.offices.all[p.dpm], Copy: v.offices.all[p.copy],
		Output: r.output, Whole: r.whole, Order: r.order, Content: r.content, Withdrawal: r.withdrawal, Taken: r.taken, Pending: r.pending, Copied: r.copied, Restored: r.restored,
		WorldCopied: r.worldCopied, CopyOutput: r.copyOutput, WorldBack: r.worldBack, Workers: r.workers, Clock: r.clock, Crashes: r.crashes, Takes: r.takes,
	}
}

// search visits what can happen, and returns the first scene in which something doesn't
// hold, with how it came to be.
func search(r rules, b bounds) (scenes int, wrong string) {
	type trace struct {
		before int32
		step   int8
	}
	first := scene{Stand: Stand{State: Ordered}, Crashes: b.crashes, Copied: !b.copy, Restored: !b.copy, WorldCopied: !b.copied, WorldBack: !b.copied}
	var v visited
	all, how := []packed{v.pack(&first)}, []trace{{-1, -1}}
	seen, good := map[packed]bool{all[0]: true}, map[packed]bool{}
	steps := r.steps()
	found := func(i int32, what string) string {
		for at := i; how[at].before >= 0; at = how[at].before {
			what = steps[how[at].step].name + "; " + what
		}
		return what
	}
	for i := 0; i < len(all); i++ {
		s := v.unpack(all[i])
		if wrong := r.ends(s, b, steps, &v, good); wrong != "" {
			return len(all), found(int32(i), wrong)
		}
		for k, t := range steps {
			n := s
			if !t.do(&n) || n == s {
				continue
			}
			if wrong := n.wrong(b); wrong != "" {
				return len(all), found(int32(i), t.name+": "+wrong)
			}
			p := v.pack(&n)
			if !seen[p] {
				seen[p] = true
				all, how = append(all, p), append(how, trace{int32(i), int8(k)})
			}
		}
	}
	return len(all), ""
}

// all are the searches: what goes wrong in each is bounded, so that each is whole.
var searches = map[string]bounds{
	"processes end":         {crashes: 1},
	"the DPM is restored":   {copy: true},
	"the world is restored": {copied: true},
}
