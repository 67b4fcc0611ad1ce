package peering

import (
	"reflect"
	"time"

	"carnet"
	"carnet/identity"
)

// Event is what happens to a peering: a message that came and was checked, what
// the operator does, or that time has passed.
type Event struct {
	Kind Kind
	Now  time.Time
	// Message is the acceptance or confirmation as it came; Terms are those that it
	// is of.
	Message string
	Terms   Terms
	// Confirmation is what the inviter says when it becomes active.
	Confirmation string
}

// Kind is what kind of event it is.
type Kind uint8

// The kinds of events.
const (
	AcceptanceCame   Kind = iota + 1 // at the inviter
	ConfirmationCame                 // at the accepter
	Compared                         // the operator has compared the words
	Suspend
	Resume
	Remove
	Tick
)

// Next is the peering after an event. It is the one place that says what follows
// from what; an event that changes nothing returns the peering as it was, and one
// that may not be is refused. Next is pure.
func (p Peering) Next(e Event) (Peering, error) {
	next, err := p.next(e)
	if err != nil {
		return p, err
	}
	if next.State != p.State {
		next.Since = e.Now.UTC().Truncate(time.Second)
	}
	if next.State != Invited && next.State != Answered && next.State != Accepted {
		next.Past, next.PastInviter = nil, false
	}
	return next, nil
}

func (p Peering) next(e Event) (Peering, error) {
	switch e.Kind {
	case AcceptanceCame:
		return p.answered(e)
	case ConfirmationCame:
		return p.confirmed(e)
	case Compared:
		return p.compared(e)
	case Suspend, Resume, Remove:
		return p.told(e)
	case Tick:
		return p.passed(e), nil
	}
	return p, carnet.Errorf(carnet.Malformed, "event %d is not known", e.Kind)
}

// answered takes an acceptance. It is good once; the same one again changes
// nothing, whenever it comes.
func (p Peering) answered(e Event) (Peering, error) {
	if !p.Inviter || p.State == Gone {
		return p, refused(p, "takes no acceptance")
	}
	if p.Acceptance == e.Message && e.Message != "" {
		return p, nil
	}
	switch p.State {
	case Invited:
	case Answered, Active, Suspended:
		if p.Second == "" {
			p.Second = e.Terms.Words() // for the operator to see; who sent it is refused
		}
		return p, nil
	default:
		return p, refused(p, "takes no acceptance")
	}
	if !e.Now.Before(p.Until) {
		return p, carnet.Errorf(carnet.Forbidden, "the invitation ended at %s", p.Until.Format(time.RFC3339)).WithFix("ask for a new one")
	}
	if err := p.follows(e.Terms); err != nil {
		return p, err
	}
	p.State, p.Terms, p.Acceptance = Answered, e.Terms, e.Message
	return p, nil
}

// follows refuses terms that aren't those of the invitation with an accepter.
func (p Peering) follows(t Terms) error {
	invited := t
	invited.Accepter = nil
	if t.Accepter == nil || invited.Fingerprint() != p.Terms.Fingerprint() {
		return carnet.Errorf(carnet.Conflict, "the acceptance is of other terms than the invitation's").WithFix("accept the invitation as it was made")
	}
	return p.again(*t.Accepter)
}

// again refuses another peer under the name of one that was.
func (p Peering) again(peer identity.Peer) error {
	if p.Past == nil {
		return nil
	}
	before, _ := p.Made()
	was, _ := before.Peer()
	if was.Party != peer.Party || was.Role != peer.Role || was.Pin != peer.Pin || !was.Key.Equal(peer.Key) {
		return carnet.Errorf(carnet.Conflict, "%s was another peer's name, and what was kept under it is that one's", p.Name).WithFix("take another name")
	}
	return nil
}

func (p Peering) confirmed(e Event) (Peering, error) {
	if p.Inviter || p.State == Gone || p.State == Removed {
		return p, refused(p, "takes no confirmation")
	}
	if e.Terms.Fingerprint() != p.Terms.Fingerprint() {
		return p, carnet.Errorf(carnet.Conflict, "the confirmation is of other terms")
	}
	if p.State != Accepted || p.Confirmation != "" {
		return p, nil
	}
	p.Confirmation = e.Message
	return p.begun(e), nil
}

func (p Peering) compared(e Event) (Peering, error) {
	switch {
	case p.Inviter && p.State == Answered:
		p.Confirmation = e.Confirmation
	case !p.Inviter && p.State == Accepted:
	case p.State == Active:
		return p, nil
	case p.State == Invited:
		return p, carnet.Errorf(carnet.Conflict, "nobody has accepted the invitation to %s yet", p.Name).WithFix("wait for the other side, then compare the words")
	default:
		return p, refused(p, "has no words to compare")
	}
	p.Compared = true
	return p.begun(e), nil
}

// begun makes a peering active that has all it needs. What only the exchange
// needed goes; the messages stay, to be given again.
func (p Peering) begun(e Event) Peering {
	if !p.Compared || p.Confirmation == "" {
		return p
	}
	p.State = Active
	if !p.Inviter {
		p.Secret, p.ReplyTo = "", nil
	}
	return p.passed(e)
}

// told does what the operator says.
func (p Peering) told(e Event) (Peering, error) {
	made := p.State == Active || p.State == Suspended || p.State == Over
	switch {
	case e.Kind == Suspend && (p.State == Active || p.State == Suspended):
		p.State = Suspended
	case e.Kind == Resume && (p.State == Active || p.State == Suspended):
		p.State = Active
		return p.passed(e), nil
	case e.Kind == Remove && (made || p.State == Removed):
		p.State = Removed
		p.Secret, p.ReplyTo = "", nil
	case e.Kind == Remove && p.State != Gone:
		return p.dropped(), nil
	default:
		return p, refused(p, map[Kind]string{Suspend: "can't be suspended", Resume: "can't be resumed", Remove: "is not there"}[e.Kind])
	}
	return p, nil
}

// passed ends what time has ended.
func (p Peering) passed(e Event) Peering {
	over := !e.Now.Before(p.Terms.NotAfter)
	switch {
	case over && (p.State == Active || p.State == Suspended):
		p.State, p.Secret, p.ReplyTo = Over, "", nil
	case over && (p.State == Answered || p.State == Accepted),
		p.State == Invited && !e.Now.Before(p.Until):
		return p.dropped()
	}
	return p
}

// dropped forgets an exchange that came to nothing: what was before is again.
func (p Peering) dropped() Peering {
	if before, ok := p.Made(); ok {
		return before
	}
	return Peering{Name: p.Name}
}

func refused(p Peering, what string) *carnet.Error {
	state := p.State
	if state == Gone {
		state = "not there"
	}
	return carnet.Errorf(carnet.Conflict, "the peering with %s is %s and %s", p.Name, state, what).WithFix("see 'carnet peer show %s'", p.Name)
}

// same reports whether an event changed nothing.
func (p Peering) same(q Peering) bool { return reflect.DeepEqual(p, q) }
