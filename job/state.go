package job

import (
	"time"

	"carnet"
	"carnet/capsule"
)

// State is where a job stands at the world that ordered it.
type State string

// The states.
const (
	Ordered     State = "ordered"     // the DPM may have it, or this world runs it itself
	Accepted    State = "accepted"    // the DPM has it
	Withdrawing State = "withdrawing" // the DPM is told that it is withdrawn
	Ended       State = "ended"
)

// The outcomes that a world finds out by itself, beside those that a DPM signs.
const (
	Refused capsule.Outcome = capsule.Refused // the DPM doesn't take it, or its module is revoked
	Silent  capsule.Outcome = "silent"        // the DPM didn't answer, or finish, in its time
	Lied    capsule.Outcome = "lied"          // what the DPM signed isn't so
)

// Stand is where a job stands: the part of it that changes.
type Stand struct {
	State      State           `json:"state"`
	Acceptance string          `json:"acceptance,omitempty"`
	Withdrawal string          `json:"withdrawal,omitempty"`
	Outcome    capsule.Outcome `json:"outcome,omitempty"`
	Code       carnet.Code     `json:"code,omitempty"`
	Why        string          `json:"why,omitempty"`
	Result     string          `json:"result,omitempty"` // what the DPM signed, or this world for itself
	Ended      time.Time       `json:"ended,omitzero"`
	Told       bool            `json:"told,omitempty"`     // the DPM knows that the result is here
	Attempts   int             `json:"attempts,omitempty"` // of a run in this world, that ended its process
}

// Event is something that happens to a job.
type Event struct {
	Kind       EventKind
	At         time.Time
	Acceptance string
	Withdrawal string // of Withdraw; of Resulted: by which the DPM ended it, as it shows
	Outcome    capsule.Outcome
	Code       carnet.Code
	Why        string
	Result     string
}

// EventKind says what happens.
type EventKind int

// What happens to a job.
const (
	Accept   EventKind = iota // the DPM has accepted it
	Resulted                  // there is a result, checked: Outcome says which, or that it is a lie
	Refuse                    // the DPM doesn't take it
	Overdue                   // its time is over, and there is no result
	Withdraw                  // it isn't wanted any more
	Tell                      // the DPM knows that the result is here
	Attempt                   // this world begins to run it
	Back                      // that run is over, and this process isn't
	Erase                     // something that it was over is erased
)

// Next is what becomes of a job by an event. It has no other effects. An event that a
// job isn't in the state for is carnet.Conflict, or changes nothing where it may come
// twice.
func Next(s Stand, e Event) (Stand, error) {
	ended := func(o capsule.Outcome, code carnet.Code, why, result string) Stand {
		s.State, s.Outcome, s.Code, s.Why, s.Result, s.Ended = Ended, o, code, why, result, e.At.UTC().Truncate(time.Second)
		s.Told = result == ""
		return s
	}
	switch e.Kind {
	case Accept:
		if s.State == Ordered {
			s.State, s.Acceptance = Accepted, e.Acceptance
		}
		return s, nil
	case Resulted:
		switch {
		case s.State == Ended:
			return s, nil
		case s.State == Withdrawing && e.Outcome == capsule.Done:
			// It was done before the DPM heard of the withdrawal: nothing of it is taken.
			return s, nil
		case e.Outcome == capsule.Withdrawn && s.Withdrawal == "" && e.Withdrawal == "":
			return ended(Lied, carnet.Tampered, e.Why, e.Result), nil
		case e.Outcome == capsule.Withdrawn && s.Withdrawal == "":
			s.Withdrawal = e.Withdrawal // this world was restored from a copy of before it
		}
		return ended(e.Outcome, e.Code, e.Why, e.Result), nil
	case Refuse:
		if s.State == Ended {
			return s, nil
		}
		if s.State == Withdrawing {
			return ended(capsule.Withdrawn, "", e.Why, ""), nil
		}
		return ended(Refused, e.Code, e.Why, ""), nil
	case Overdue:
		switch s.State {
		case Ended:
			return s, nil
		case Withdrawing:
			return ended(capsule.Withdrawn, "", "the DPM didn't say that it has destroyed the keys; it was to by now", ""), nil
		case Ordered:
			return ended(Silent, carnet.Unavailable, e.Why, ""), nil
		}
		return ended(Silent, carnet.TooOld, e.Why, ""), nil
	case Withdraw:
		switch s.State {
		case Ended:
			return s, conflict(s)
		case Withdrawing:
			return s, nil
		}
		if e.Withdrawal == "" { // nobody else has it
			return ended(capsule.Withdrawn, "", e.Why, ""), nil
		}
		s.State, s.Withdrawal, s.Why = Withdrawing, e.Withdrawal, e.Why
		return s, nil
	case Tell:
		if s.State != Ended {
			return s, conflict(s)
		}
		s.Told = true
		return s, nil
	case Attempt:
		if s.State != Ordered {
			return s, conflict(s)
		}
		s.Attempts++
		return s, nil
	case Back:
		if s.State == Ordered && s.Attempts > 0 {
			s.Attempts--
		}
		return s, nil
	case Erase:
		// The DPM is told with the erasure, which ends whatever is there.
		if s.State != Ended {
			s = ended(capsule.Withdrawn, "", e.Why, "")
		}
		s.Why, s.Told = e.Why, true
		return s, nil
	}
	return s, conflict(s)
}

func conflict(s Stand) error {
	if s.State == Ended {
		return carnet.Errorf(carnet.Conflict, "the job has ended: it is %s", s.Outcome)
	}
	return carnet.Errorf(carnet.Conflict, "the job is %s", s.State)
}

// Reminds reports whether a DPM that was restored from an older copy must be told of the
// withdrawal again: until then its copy could go on with the job.
func (s *Stand) Reminds(now, until time.Time) bool {
	return s.State == Ended && s.Withdrawal != "" && now.Before(until)
}

// Sends reports whether inputs may leave for the DPM.
func (s *Stand) Sends() bool { return s.State == Ordered || s.State == Accepted }
