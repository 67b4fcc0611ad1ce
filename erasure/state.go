package erasure

// State is where an erasure stands at a party.
type State string

// The states of docs/design/erasure.md.
const (
	None      State = ""
	Ordered   State = "ordered"   // the order is stored; nothing has changed yet
	Hiding    State = "hiding"    // nothing is readable; it is deleted here, and the others are told
	Erased    State = "erased"    // here nothing is left, and that is signed; some of the others haven't answered
	Over      State = "over"      // all have answered
	Elsewhere State = "elsewhere" // the avatar has moved away before
)

// Event is something that happens to an erasure.
type Event uint8

const (
	Order   Event = iota // the owner's order came, from the owner or from another party
	Hidden               // a tombstone is stored: nobody reads anything of it any more
	Left                 // the avatar lives elsewhere
	Cleared              // every key and byte here is gone, and that is signed
	All                  // everybody who had something has answered
	Another              // somebody is found who had something, or hasn't deleted it after all
	Wider                // more streams of the share are to be erased
)

// Next is the one table of an erasure's changes: the state after an event, and false
// where it is refused and changes nothing. Every event may come twice.
//
// Nothing leads back from Hiding: what isn't readable never is again. Only what is
// Ordered can turn out to be elsewhere.
func Next(s State, e Event) (State, bool) {
	switch {
	case e == Order && s == None:
		return Ordered, true
	case e == Order:
		return s, true
	case s == None:
		return s, false
	case e == Hidden && s == Ordered:
		return Hiding, true
	case e == Hidden:
		return s, s != Elsewhere
	case e == Left && s == Ordered:
		return Elsewhere, true
	case e == Left:
		return s, s == Elsewhere
	case e == Cleared && s == Hiding:
		return Erased, true
	case e == Cleared:
		return s, s == Erased || s == Over
	case e == All && s == Erased:
		return Over, true
	case e == All:
		return s, s == Over
	case e == Another && s == Over:
		return Erased, true
	case e == Another:
		return s, s == Hiding || s == Erased
	case e == Wider && (s == Erased || s == Over):
		return Hiding, true
	case e == Wider:
		return s, s == Ordered || s == Hiding
	}
	return s, false
}

// Ended reports whether nothing more happens to an erasure by itself.
func (s State) Ended() bool { return s == Over || s == Elsewhere }

// Readable reports whether anybody may still be shown what is to be erased.
func (s State) Readable() bool { return s == None || s == Ordered || s == Elsewhere }
