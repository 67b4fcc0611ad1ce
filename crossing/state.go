package crossing

// State is where a share is, at either side.
type State string

// The states. A giver has Giving and Ended, a taker the others and Ended.
const (
	None   State = ""       // not known here
	Asked  State = "asked"  // the question is stored; nothing may have reached the giver
	Taking State = "taking" // the giver has said yes
	Giving State = "giving"
	Ended  State = "ended"
)

// heard is something that happens to a share.
type heard uint8

const (
	question heard = iota // at the giver: the taker asks, and is permitted
	yes                   // at the taker: the giver's answers
	no
	stream // at the taker: the giver says that a stream will come
	over   // either side's word, or the other's, that the share has ended
)

// next is the one table of a share's changes: the state after something was
// heard, and false where it is refused and changes nothing. Everything may be
// heard twice.
func (s State) next(h heard) (State, bool) {
	switch {
	case s == Ended:
		return Ended, h == over || h == no
	case h == over:
		return Ended, s != None
	case h == question:
		return Giving, s == None || s == Giving
	case h == yes:
		return Taking, s == Asked || s == Taking
	case h == no:
		return Ended, s == Asked || s == Taking
	case h == stream:
		return s, s == Asked || s == Taking
	}
	return s, false
}
