package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"carnet"
)

// MoveRequest is what a target asks an owner to order: that an avatar comes to
// live there, and the mandate by which the target may fetch it.
type MoveRequest struct {
	Crossing  carnet.CrossingID `json:"crossing"`
	Registrar string            `json:"registrar"`
	Home      carnet.HomeID     `json:"home"`
	Owner     string            `json:"owner"`  // the key that is registered for the home
	Source    string            `json:"source"` // did:key of the world where it lives
	Target    carnet.PartyID    `json:"target"` // as it calls itself
	TargetKey string            `json:"target_key"`
	To        carnet.AvatarID   `json:"to"` // the avatar that it will be
	// View is what the things agents may send there; absent: what they send now.
	View json.RawMessage `json:"view,omitempty"`
	// Redact: what is labelled above it is left behind; absent: nothing is.
	Redact *Redaction `json:"redact,omitempty"`
	// Policy is the avatar's policy as it is signed for the source; absent: it has none.
	Policy string `json:"policy,omitempty"`
	// Items go along, Retired end with the move; Alone: the one item goes without the
	// avatar, to To, which is at the target already, and Home is its own.
	Items   []MovingItem `json:"items,omitempty"`
	Retired []MovingItem `json:"retired,omitempty"`
	Alone   bool         `json:"alone,omitempty"`
	// Report is what the target found: what fits, and what would be lost.
	Report []string `json:"report"`
	// Mandate is the request for the mandate (MandateRequest.Marshal).
	Mandate json.RawMessage `json:"mandate"`
}

// Ordered is what an owner signed for a MoveRequest.
type Ordered struct {
	Order   string          `json:"order"`
	Terms   json.RawMessage `json:"terms"`
	Mandate string          `json:"mandate"`
}

// Bounds of a move request, and of its report.
const (
	maxMoveRequest = 256 << 10
	maxReport      = 64
)

// Marshal writes the request as the JSON document that ParseMoveRequest reads.
func (r MoveRequest) Marshal() ([]byte, error) {
	if _, err := r.check(); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// ParseMoveRequest reads a move request strictly, with the mandate request in it.
// Nobody signed it: what it says is what somebody wants.
func ParseMoveRequest(data []byte) (r MoveRequest, m MandateRequest, err error) {
	err = readRequest("move request", data, maxMoveRequest, &r, func() (err error) {
		m, err = r.check()
		return err
	})
	return r, m, err
}

// IsMoveRequest reports whether a document is meant as a move request, rather than
// as a mandate request.
func IsMoveRequest(data []byte) bool {
	var has struct {
		Crossing json.RawMessage `json:"crossing"`
	}
	return json.Unmarshal(data, &has) == nil && has.Crossing != nil
}

func (r MoveRequest) check() (m MandateRequest, err error) {
	if err := dids(r.Registrar, r.Owner, r.Source, r.TargetKey); err != nil {
		return m, err
	}
	if _, err := carnet.ParsePartyID(string(r.Target)); err != nil {
		return m, err
	}
	if len(r.Report) > maxReport {
		return m, carnet.Errorf(carnet.TooLarge, "the move request's report has %d lines, at most %d are read", len(r.Report), maxReport)
	}
	for _, line := range r.Report {
		if err := checkText(line); err != nil {
			return m, err
		}
	}
	if err := checkMoving(r.Items, r.Retired, r.Alone); err != nil {
		return m, err
	}
	if err := r.Redact.check(); err != nil {
		return m, err
	}
	if m, err = ParseMandateRequest(r.Mandate); err != nil {
		return m, err
	}
	if r.Policy != "" {
		p, err := OpenAvatarPolicy(r.Policy)
		if err != nil {
			return m, err
		}
		if r.Alone || p.World != r.Source || p.Avatar != m.Avatar {
			return m, carnet.Errorf(carnet.Malformed, "the move request has a policy that isn't of the avatar that is to move")
		}
	}
	switch {
	case r.Alone && r.Redact != nil:
		return m, carnet.Errorf(carnet.Malformed, "an item that moves alone leaves nothing behind")
	case r.Alone && (r.Home != r.Items[0].Home || len(r.View) > 0):
		return m, carnet.Errorf(carnet.Malformed, "the item that moves alone has another home than the request, or a view")
	case DID(m.Platform) != r.TargetKey:
		return m, carnet.Errorf(carnet.Malformed, "the mandate is for another world than the move's target")
	case !slices.Equal(m.Actions, []Action{ActionMove}):
		return m, carnet.Errorf(carnet.Malformed, "the mandate of a move permits to move, and nothing else")
	}
	text, err := json.Marshal(r.terms(m, r.Owner, r.Policy)) // as long as those that are signed
	if err != nil {
		return m, err
	}
	return m, r.terms(m, r.Owner, "").ends(len(text))
}

// Sign makes the order and its terms. owner is the key that is registered for the
// home, there the owner's key for the target, which signs the avatar's policy anew.
func (r MoveRequest) Sign(owner, there ed25519.PrivateKey, now time.Time, life time.Duration) (order string, terms []byte, err error) {
	m, err := r.check()
	if err != nil {
		return "", nil, err
	}
	policy, err := signedFor(r.Policy, there, r.TargetKey, r.To)
	if err != nil {
		return "", nil, err
	}
	if terms, err = r.terms(m, DID(there.Public().(ed25519.PublicKey)), policy).Marshal(); err != nil {
		return "", nil, err
	}
	now = now.UTC().Truncate(time.Second)
	order, err = SignOrder(owner, Order{
		Crossing: r.Crossing, Registrar: r.Registrar, Owner: r.Owner, Source: r.Source, Target: r.TargetKey,
		Homes: r.Homes(), Terms: carnet.FingerprintOf(terms), Made: now, Until: now.Add(life.Truncate(time.Second)),
	})
	return order, terms, err
}

// terms are those of the order, with the owner's key for the target and what it signs.
func (r MoveRequest) terms(m MandateRequest, there, policy string) MoveTerms {
	return MoveTerms{
		Avatar: m.Avatar, Home: r.Home, To: r.To, Owner: there, View: r.View, Redact: r.Redact, Policy: policy, Items: r.Items, Retired: r.Retired, Alone: r.Alone,
	}
}

// Homes are the homes that move, ascending.
func (r MoveRequest) Homes() []carnet.HomeID { return homesOf(r.Home, r.Items, r.Alone) }

// Explain says for people what ordering would do.
func (r MoveRequest) Explain(m MandateRequest) []string {
	decides := fmt.Sprintf("Whether it moves is decided by the registrar whose key is %s; if it can't be done in time, everything stays as it is.", r.Registrar)
	if r.Alone {
		i := r.Items[0]
		return []string{
			fmt.Sprintf("The item %s (%q, a %s) of your avatar %s goes from %s to %s, whose key is %s. There your avatar %s has it, and it counts as %s.",
				i.Item, i.Title, i.Kind, m.Avatar, m.Audience, r.Target, r.TargetKey, r.To, i.As),
			decides,
		}
	}
	sent := "What your things send goes there from then on, as it goes to where it lives now."
	if len(r.View) > 0 {
		sent = "What your things send goes there from then on, as far as this view lets it: " + string(r.View)
	}
	lines := []string{
		fmt.Sprintf("Your avatar %s moves from %s to %s, whose key is %s, and lives there from then on: its history, its state, and the keys to both.",
			m.Avatar, m.Audience, r.Target, r.TargetKey),
		fmt.Sprintf("In %s all of it is deleted then. There it is the avatar %s.", m.Audience, r.To),
		sent,
	}
	if r.Redact != nil {
		lines = append(lines, r.Redact.explain(m.Audience, r.Target))
	}
	for _, i := range r.Items {
		lines = append(lines, fmt.Sprintf("Its item %s (%q, a %s) goes along, and counts as %s there.", i.Item, i.Title, i.Kind, i.As))
	}
	for _, i := range r.Retired {
		lines = append(lines, fmt.Sprintf("Its item %s (%q, a %s) does not go along: it ends for ever when the avatar moves.", i.Item, i.Title, i.Kind))
	}
	return append(lines, decides)
}
