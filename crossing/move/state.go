package move

// State is where a move stands, at either world.
type State string

// The states of docs/design/crossing.md. A target has Asked, Copying, Prepared,
// Home and Dropped, a source Offered, Frozen, Gone and Kept.
const (
	None State = "" // not known here

	Asked    State = "asked"    // the avatar-to-be is stored, and what the owner is asked to order
	Copying  State = "copying"  // the order is stored; pieces come
	Leaving  State = "leaving"  // it was called off after the order came: the registrar is asked for abort
	Prepared State = "prepared" // all is here and checked, the acceptance is signed
	Home     State = "home"     // committed: the avatar lives here
	Dropped  State = "dropped"  // aborted, or called off before there was an order

	Offered State = "offered" // the order is stored; reads are answered
	Frozen  State = "frozen"  // the manifest is fixed, the release is signed
	Gone    State = "gone"    // committed: what was here is deleted
	Kept    State = "kept"    // aborted, or called off before the release
)

// Event is something that happens to a move at a world.
type Event uint8

const (
	// At the target.
	Ask     Event = iota // somebody who may asks for the avatar
	Order                // the owner's order came, and is for this
	Checked              // everything in the manifest is here, checked, and released
	// At the source.
	Offer  // the target offers the order, which is the owner's
	Freeze // the target asks for the release, and the registrar says that home is here
	// At both.
	Cancel    // a person calls it off, or its time is over
	Committed // the registrar's decisions
	Aborted
)

// Target is the one table of a target's changes: the state after an event, and
// false where it is refused and changes nothing. Every event may come twice.
//
// From Prepared on, and while it is Leaving, nothing but the registrar's decision
// changes anything: the acceptance may be anywhere. A store that was restored from
// an older copy may have less than was signed, so a commit is heeded whatever is
// known here.
func Target(s State, e Event) (State, bool) {
	switch {
	case e == Committed:
		return Home, s == Copying || s == Leaving || s == Prepared || s == Home
	case e == Aborted:
		return Dropped, s == Copying || s == Leaving || s == Prepared || s == Dropped
	case e == Ask:
		return Asked, s == None || s == Asked
	case e == Order && s == Asked:
		return Copying, true
	case e == Order:
		return s, s == Copying || s == Prepared
	case e == Checked:
		return Prepared, s == Copying || s == Prepared
	case e == Cancel && (s == Asked || s == Dropped):
		return Dropped, true
	case e == Cancel:
		return Leaving, s == Copying || s == Leaving
	}
	return s, false
}

// Source is the one table of a source's changes.
//
// Frozen, nothing but the registrar's decision changes anything: the release is
// out. A store that was restored from an older copy may not know of the release,
// or of the move, so a commit is heeded whatever is known here.
func Source(s State, e Event) (State, bool) {
	switch {
	case e == Committed:
		return Gone, true
	case e == Aborted:
		return Kept, s == Offered || s == Frozen || s == Kept
	case e == Offer && s == None:
		return Offered, true
	case e == Offer:
		return s, s == Offered || s == Frozen
	case e == Freeze:
		return Frozen, s == Offered || s == Frozen
	case e == Cancel:
		return Kept, s == Offered || s == Kept
	}
	return s, false
}

// Over reports whether nothing more happens to a move.
func (s State) Over() bool { return s == Home || s == Dropped || s == Gone || s == Kept }

// Waits reports whether only the registrar's decision goes on.
func (s State) Waits() bool { return s == Prepared || s == Frozen || s == Leaving }
