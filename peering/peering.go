// Package peering owns whom a party trusts, for what, and until when: the terms
// that two parties both accept, the three messages by which they do, and the
// states that a peering goes through. docs/design/peering.md has the messages,
// the states, and the recovery rule for a crash at each point.
//
// A peering is invited or accepted, answered, active, suspended, over, removed.
// Next says what follows from what, and is pure; a Registry keeps a party's
// peerings in its own store, each change in one transaction with a statement and,
// if it ends access, with the next revocation number, and tells who lives by them.
//
// The package must not know how messages travel (a Courier does that), what
// peers exchange once they are peers, or how a connection is closed.
package peering

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/identity"
)

// Scope is a reference point that two peers use with each other.
type Scope string

// The scopes.
const (
	R1 Scope = "r1" // frames from a things agent to a world
	R2 Scope = "r2" // a depot keeps objects and statements
	R5 Scope = "r5" // calls between worlds
	R6 Scope = "r6" // a DPM computes for a world
)

// State is where a peering stands.
type State string

// The states; the zero State is that of a peering that isn't there.
const (
	Gone      State = ""
	Invited   State = "invited"   // an invitation is out
	Answered  State = "answered"  // its acceptance came; the operator is to compare the words
	Accepted  State = "accepted"  // this party's acceptance is out
	Active    State = "active"    // what the scope says may be done
	Suspended State = "suspended" // this party lets nothing be done until it resumes
	Over      State = "over"      // the terms have ended
	Removed   State = "removed"   // for good; the name is kept, so that nobody else gets it
)

// InvitationID names an invitation, and what comes of it: random, 128 bits.
type InvitationID [16]byte

func (id InvitationID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText and UnmarshalText use 32 hexadecimal digits.
func (id InvitationID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }
func (id *InvitationID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseInvitationID(string(text))
	return err
}

// Terms are what both sides accept. Their JSON form, as encoding/json writes it
// in this order, is what is signed and fingerprinted.
type Terms struct {
	Invitation InvitationID   `json:"invitation"`
	Inviter    identity.Peer  `json:"inviter"`
	Accepter   *identity.Peer `json:"accepter,omitempty"` // nil in an invitation
	Scope      []Scope        `json:"scope"`              // in order, each once
	// Purposes, Sensitivity and Residency bound what either may ever give the other,
	// below every view and grant. A peering with a depot, which reads nothing, has
	// none of them.
	Purposes    []string            `json:"purposes,omitempty"`
	Sensitivity *carnet.Sensitivity `json:"sensitivity,omitempty"`
	Residency   []string            `json:"residency,omitempty"` // empty: not restricted
	NotAfter    time.Time           `json:"not_after"`           // whole seconds, UTC
}

// Longest is how long terms may last, and an invitation be open.
const (
	LongestTerms      = 2 * 366 * 24 * time.Hour
	LongestInvitation = 7 * 24 * time.Hour
)

// check holds terms against themselves. Without an accepter they are an
// invitation's.
func (t Terms) check(now time.Time) error {
	bad := func(format string, args ...any) error { return carnet.Errorf(carnet.Malformed, format, args...) }
	if err := t.Inviter.Check(); err != nil {
		return err
	}
	if len(t.Scope) == 0 || !slices.IsSorted(t.Scope) || len(slices.Compact(slices.Clone(t.Scope))) != len(t.Scope) {
		return bad("the scope is %v: want r1, r2, r5 or r6, in order, each once", t.Scope)
	}
	reads := false
	for _, s := range t.Scope {
		if s != R1 && s != R2 && s != R5 && s != R6 {
			return bad("the scope has %.20q: want r1, r2, r5 or r6", s)
		}
		if !s.fits(t.Inviter.Role, t.Accepter) {
			return carnet.Errorf(carnet.Malformed, "the scope %s is not between what the two parties are", s).
				WithFix("r1 is between a things agent and a world, r2 between a depot and another party, r5 between two worlds that both listen for it, r6 between a world and a DPM")
		}
		reads = reads || s != R2
	}
	switch {
	case reads && (len(t.Purposes) == 0 || t.Sensitivity == nil):
		return carnet.Errorf(carnet.Malformed, "the terms say no purposes or no sensitivity, which bound what may be given").
			WithFix("say both: carnet peer invite NAME --scope … --purpose WORD --sensitivity WORD")
	case !reads && (len(t.Purposes) > 0 || t.Sensitivity != nil || len(t.Residency) > 0):
		return bad("a depot reads nothing: terms of scope r2 alone have no purposes, sensitivity or residency")
	case !listed(t.Purposes) || !listed(t.Residency):
		return bad("purposes and residency are words of a-z, 0-9 and '-', in order, each once")
	case !t.NotAfter.Equal(t.NotAfter.Truncate(time.Second).UTC()) || t.NotAfter.Location() != time.UTC:
		return bad("the terms end at %s: want whole seconds in UTC", t.NotAfter)
	case t.NotAfter.After(now.Add(LongestTerms)):
		return bad("the terms end at %s, and at most two years are taken", t.NotAfter.Format(time.RFC3339))
	}
	for _, p := range t.peers() {
		if slices.Contains(t.Scope, R5) && p.R5 == "" {
			return carnet.Errorf(carnet.Forbidden, "%s takes no calls of other worlds", p.Party).WithFix("set listen.r5 in its carnet.toml and start it again")
		}
		if err := t.bears(p); err != nil {
			return err
		}
	}
	return t.apart()
}

func (t Terms) peers() []identity.Peer {
	if t.Accepter == nil {
		return []identity.Peer{t.Inviter}
	}
	return []identity.Peer{t.Inviter, *t.Accepter}
}

// bears refuses terms under which a world or a DPM could be given nothing.
func (t Terms) bears(p identity.Peer) error {
	if p.Role != identity.World && p.Role != identity.DPM || len(t.Purposes) == 0 {
		return nil
	}
	if p.Role == identity.World && !slices.Contains(t.Purposes, p.Purpose) {
		return carnet.Errorf(carnet.Forbidden, "%s uses data for %q, and the terms are for %s only", p.Party, p.Purpose, strings.Join(t.Purposes, ", ")).
			WithFix("agree on terms with that purpose")
	}
	for _, place := range p.Residency {
		if len(t.Residency) > 0 && !slices.Contains(t.Residency, place) {
			return carnet.Errorf(carnet.Forbidden, "%s keeps data in %q, and the terms are for %s only", p.Party, place, strings.Join(t.Residency, ", ")).
				WithFix("agree on terms with that place")
		}
	}
	if len(t.Residency) > 0 && len(p.Residency) == 0 {
		return carnet.Errorf(carnet.Forbidden, "%s doesn't say where it keeps data, and the terms are for %s only", p.Party, strings.Join(t.Residency, ", "))
	}
	return nil
}

// apart refuses a party as its own peer.
func (t Terms) apart() error {
	if t.Accepter == nil {
		return nil
	}
	if err := t.Accepter.Check(); err != nil {
		return err
	}
	if t.Accepter.Pin == t.Inviter.Pin || t.Accepter.Key.Equal(t.Inviter.Key) {
		return carnet.Errorf(carnet.Forbidden, "the invitation is this party's own")
	}
	return nil
}

func listed(words []string) bool {
	return identity.Words(words) && slices.IsSorted(words) && len(slices.Compact(slices.Clone(words))) == len(words)
}

// fits says whether a scope can be between two parties; with one known only,
// whether it could be.
func (s Scope) fits(inviter identity.Role, accepter *identity.Peer) bool {
	one := map[Scope]map[identity.Role][]identity.Role{
		R1: {identity.Things: {identity.World}, identity.World: {identity.Things}},
		R2: {
			identity.Depot: {identity.Things, identity.World, identity.DPM}, identity.Things: {identity.Depot}, identity.World: {identity.Depot}, identity.DPM: {identity.Depot},
		},
		R5: {identity.World: {identity.World}},
		R6: {identity.World: {identity.DPM}, identity.DPM: {identity.World}},
	}[s][inviter]
	return len(one) > 0 && (accepter == nil || slices.Contains(one, accepter.Role))
}

// Fingerprint names the terms.
func (t Terms) Fingerprint() carnet.Fingerprint {
	data, err := json.Marshal(t)
	if err != nil {
		panic("peering: terms can't be written: " + err.Error()) // they were checked
	}
	return sha256.Sum256(data)
}

// Words are a short fingerprint for two people to compare: 24 of A-Z and 2-7 in
// groups of four.
func (t Terms) Words() string {
	sum := t.Fingerprint()
	text := base32.StdEncoding.EncodeToString(sum[:15])
	var groups []string
	for i := 0; i < len(text); i += 4 {
		groups = append(groups, text[i:i+4])
	}
	return strings.Join(groups, " ")
}

// sameWords compares words as people write them.
func sameWords(a, b string) bool {
	plain := func(s string) string {
		return strings.ToUpper(strings.NewReplacer(" ", "", "-", "", "\n", "", "\t", "").Replace(s))
	}
	return plain(a) == plain(b)
}

// Peering is what a party knows of one peer. It is stored sealed, as it is.
type Peering struct {
	Name    carnet.PartyID `json:"name"` // what this party calls the peer
	State   State          `json:"state"`
	Inviter bool           `json:"inviter,omitempty"` // this party invited
	Terms   Terms          `json:"terms"`
	Since   time.Time      `json:"since"` // of the state

	// Of an exchange under way.
	Until        time.Time `json:"until,omitzero"`         // until when the invitation may be accepted
	ReplyTo      *ReplyTo  `json:"reply_to,omitempty"`     // where the accepter posts to
	Secret       string    `json:"secret,omitempty"`       // of the invitation
	Invitation   string    `json:"invitation,omitempty"`   // the inviter's message
	Acceptance   string    `json:"acceptance,omitempty"`   // the accepter's
	Confirmation string    `json:"confirmation,omitempty"` // the inviter's
	Compared     bool      `json:"compared,omitempty"`     // the operator has compared the words

	// Second are the words of another acceptance of the same invitation, which was
	// refused: somebody has the invitation who shouldn't.
	Second string `json:"second,omitempty"`
	// Past are the terms that held before this exchange began, which is with the same
	// peer: about new terms, or since it has moved. PastInviter says whose invitation
	// they were of. If the exchange comes to nothing the peering is suspended.
	Past        *Terms `json:"past,omitempty"`
	PastInviter bool   `json:"past_inviter,omitempty"`
}

// Own is what this party shows the peer.
func (p Peering) Own() identity.Peer {
	if p.Inviter || p.Terms.Accepter == nil {
		return p.Terms.Inviter
	}
	return *p.Terms.Accepter
}

// Peer is what the other party shows; false while it isn't known.
func (p Peering) Peer() (identity.Peer, bool) {
	if !p.Inviter {
		return p.Terms.Inviter, p.State != Gone
	}
	if p.Terms.Accepter != nil {
		return *p.Terms.Accepter, true
	}
	return identity.Peer{}, false
}

// Made is the peering as it last was one; false where it never was. An exchange
// under way doesn't change what was.
func (p Peering) Made() (Peering, bool) {
	switch {
	case p.Past != nil:
		return Peering{Name: p.Name, State: Suspended, Inviter: p.PastInviter, Terms: *p.Past}, true
	case p.State == Active || p.State == Suspended || p.State == Over || p.State == Removed:
		return p, true
	}
	return Peering{}, false
}

// with reports whether the peering is with a peer, or was before an exchange under way.
func (p Peering) with(peer identity.Peer) bool {
	is := func(other identity.Peer, ok bool) bool {
		return ok && (other.Pin == peer.Pin || other.Key.Equal(peer.Key))
	}
	made, _ := p.Made()
	return is(p.Peer()) || is(made.Peer())
}

// Allows reports whether the peering stands and has a scope, at a time.
func (p Peering) Allows(s Scope, now time.Time) bool {
	return p.State == Active && slices.Contains(p.Terms.Scope, s) && now.Before(p.Terms.NotAfter)
}

// Clearance is the most that may ever be given to the peer, a world or a DPM: what
// it says of itself, within the terms. A DPM has the purposes of the terms.
func (p Peering) Clearance() carnet.Clearance {
	peer, ok := p.Peer()
	if !ok || p.Terms.Sensitivity == nil {
		return carnet.Clearance{}
	}
	switch peer.Role {
	case identity.World:
		return Within(p.Terms, peer.Clearance())
	case identity.DPM:
		c := Within(p.Terms, peer.Clearance())
		c.Purposes = carnet.NewSet(p.Terms.Purposes...)
		return c
	}
	return carnet.Clearance{}
}

// Within bounds a world's clearance by terms: what it is given under them, and
// what it may take. Purpose and residency were held against the terms when both
// accepted them.
func Within(t Terms, c carnet.Clearance) carnet.Clearance {
	if t.Sensitivity == nil {
		return carnet.Clearance{}
	}
	c.Sensitivity &= *t.Sensitivity
	return c
}
