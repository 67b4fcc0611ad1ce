package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"carnet"
)

// RecoveryRequest is what a world asks an owner to order: that an avatar comes to
// live there by a passport, since its home is gone for good.
type RecoveryRequest struct {
	Recovery carnet.CrossingID `json:"recovery"` // the crossing
	Passport string            `json:"passport"` // its word (OpenPassport)
	Target   carnet.PartyID    `json:"target"`   // as it calls itself
	// TargetKey is its did:key, To the avatar that it will be there.
	TargetKey   string          `json:"target_key"`
	To          carnet.AvatarID `json:"to"`
	Incarnation uint64          `json:"incarnation"` // of the home, as the registrar says now
	Items       []ComingItem    `json:"items,omitempty"`
	// Policy is the avatar's policy as it was signed for its former world; absent: it had
	// none.
	Policy string          `json:"policy,omitempty"`
	View   json.RawMessage `json:"view,omitempty"`
	Heads  []Head          `json:"heads"` // of the passport's manifest
	// Reception is the target's announcement, to which the passport's keys are sealed
	// anew. It is good for a day.
	Reception   []byte   `json:"reception"`
	Purpose     string   `json:"purpose"` // what the target uses data for
	Sensitivity string   `json:"sensitivity"`
	Residency   []string `json:"residency,omitempty"`
	Report      []string `json:"report"`
}

// ComingItem is an item that comes along, with the incarnation of its home and how many
// entries its chain has, as the registrar says now.
type ComingItem struct {
	MovingItem
	Incarnation uint64 `json:"incarnation"`
	Chain       uint64 `json:"chain"`
}

// Moving are the items as an order's terms name them.
func (r RecoveryRequest) Moving() (all []MovingItem) {
	for _, i := range r.Items {
		all = append(all, i.MovingItem)
	}
	return all
}

// Recovered is what an owner signed for a RecoveryRequest, with the passport's keys,
// sealed to the target.
type Recovered struct {
	Recovery string          `json:"recovery"`
	Terms    json.RawMessage `json:"terms"`
	Bags     [][]byte        `json:"bags"`
}

// Marshal writes the request as the JSON document that ParseRecoveryRequest reads.
func (r RecoveryRequest) Marshal() ([]byte, error) {
	if _, err := r.check(); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// maxRecoveryRequest bounds the request's document.
const maxRecoveryRequest = 256 << 10

// ParseRecoveryRequest reads a recovery request strictly, with the passport's word.
// Nobody signed the request: what it says is what somebody wants.
func ParseRecoveryRequest(data []byte) (r RecoveryRequest, p Passport, err error) {
	err = readRequest("recovery request", data, maxRecoveryRequest, &r, func() (err error) {
		p, err = r.check()
		return err
	})
	return r, p, err
}

// IsRecoveryRequest reports whether a document is meant as a recovery request.
func IsRecoveryRequest(data []byte) bool {
	var has struct {
		Recovery json.RawMessage `json:"recovery"`
	}
	return json.Unmarshal(data, &has) == nil && has.Recovery != nil
}

func (r RecoveryRequest) check() (p Passport, err error) {
	if err := dids(r.TargetKey); err != nil {
		return p, err
	}
	if _, err := carnet.ParsePartyID(string(r.Target)); err != nil {
		return p, err
	}
	if err := r.checkClearance(); err != nil {
		return p, err
	}
	if len(r.Report) > maxReport || len(r.Heads) > maxHeads || r.Incarnation == 0 {
		return p, carnet.Errorf(carnet.Malformed, "the recovery request has %d lines, %d streams and the incarnation %d, which can't be", len(r.Report), len(r.Heads), r.Incarnation)
	}
	for _, line := range r.Report {
		if err := checkText(line); err != nil {
			return p, err
		}
	}
	if err := checkMoving(r.Moving(), nil, false); err != nil {
		return p, err
	}
	if p, err = OpenPassport(r.Passport); err != nil {
		return p, err
	}
	homes := map[carnet.HomeID]bool{p.Home: true}
	for _, i := range r.Items {
		if homes[i.Home] || i.Incarnation == 0 || i.Chain == 0 {
			return p, carnet.Errorf(carnet.Malformed, "the recovery request names the home %s twice, in no incarnation, or with no entry of its item", i.Home)
		}
		homes[i.Home] = true
	}
	if r.Policy == "" {
		return p, nil
	}
	policy, err := OpenAvatarPolicy(r.Policy)
	if err == nil && (policy.World != p.Source || policy.Avatar != p.Avatar || policy.Owner != p.Pinned) {
		err = carnet.Errorf(carnet.Malformed, "the recovery request has a policy that isn't of the avatar that is to come, or not by its owner's key")
	}
	return p, err
}

// checkClearance takes what the target says of itself in one form only, which is shown.
func (r RecoveryRequest) checkClearance() error {
	s, err := carnet.ParseSensitivity(r.Sensitivity)
	if err != nil {
		return err
	}
	if r.Sensitivity != s.String() || !Words([]string{r.Purpose}) || !Words(r.Residency) {
		return carnet.Errorf(carnet.Malformed, "the recovery request is for the purpose %.40q, the sensitivity %.40q and the places %.80q: want words, and a sensitivity as it is written", r.Purpose, r.Sensitivity, r.Residency)
	}
	return nil
}

// Clearance is what the target says that it may hold.
func (r RecoveryRequest) Clearance() (c carnet.Clearance, err error) {
	c.Sensitivity, err = carnet.ParseSensitivity(r.Sensitivity)
	c.Purposes, c.Residency = carnet.NewSet(r.Purpose), carnet.NewSet(r.Residency...)
	return c, err
}

// Homes are the homes that are recovered, ascending, and what it brings back.
func (r RecoveryRequest) Homes(p Passport) (homes []carnet.HomeID, what Recovers) {
	of := map[carnet.HomeID]ComingItem{p.Home: {Incarnation: r.Incarnation}}
	for _, i := range r.Items {
		of[i.Home] = i
	}
	homes, what.Manifest = homesOf(p.Home, r.Moving(), false), p.Manifest
	for _, h := range homes {
		what.Incarnations, what.Chains = append(what.Incarnations, of[h].Incarnation), append(what.Chains, of[h].Chain)
	}
	return homes, what
}

// Sign makes the recovery and its terms. owner is the key that is registered for the
// home, there the owner's key for the target, which signs the avatar's policy anew.
func (r RecoveryRequest) Sign(owner, there ed25519.PrivateKey, now time.Time, life time.Duration) (recovery string, terms []byte, err error) {
	p, err := r.check()
	if err != nil {
		return "", nil, err
	}
	policy, err := signedFor(r.Policy, there, r.TargetKey, r.To)
	if err != nil {
		return "", nil, err
	}
	terms, err = MoveTerms{
		Avatar: p.Avatar, Home: p.Home, To: r.To, Owner: DID(there.Public().(ed25519.PublicKey)), View: r.View, Policy: policy, Heads: r.Heads, Items: r.Moving(),
	}.Marshal()
	if err != nil {
		return "", nil, err
	}
	homes, what := r.Homes(p)
	now = now.UTC().Truncate(time.Second)
	recovery, err = SignRecovery(owner, Order{
		Crossing: r.Recovery, Registrar: p.Registrar, Owner: p.Owner, Source: p.Source, Target: r.TargetKey,
		Homes: homes, Terms: carnet.FingerprintOf(terms), Made: now, Until: now.Add(life.Truncate(time.Second)),
		Recovers: &what,
	})
	return recovery, terms, err
}

// Explain says for people what ordering would do.
func (r RecoveryRequest) Explain(p Passport) []string {
	sent := "What your things send goes there from then on, as it went to where it lived; tell your things agent with carnet owner recovered."
	if len(r.View) > 0 {
		sent = "What your things send goes there from then on, as far as this view lets it: " + string(r.View)
	}
	kept := "doesn't say where it keeps them"
	if len(r.Residency) > 0 {
		kept = "keeps them in " + strings.Join(r.Residency, ", ")
	}
	lines := []string{
		fmt.Sprintf("Your avatar %s gets a new home, %s, whose key is %s, since the world where it lives is gone for good.", p.Avatar, r.Target, r.TargetKey),
		fmt.Sprintf("It comes as it was at %s, when its passport was made. What came to the world since then, and your things don't have any more, is lost.", p.Made.Format(time.RFC3339)),
		fmt.Sprintf("The registrar whose key is %s gives the world whose key is %s time to show itself; if it does, everything stays as it is.", p.Registrar, p.Source),
		fmt.Sprintf("The keys to its history are given to %s, which says that it uses them for %s and may hold %s; it %s.", r.Target, r.Purpose, r.Sensitivity, kept),
		sent,
	}
	for _, i := range r.Items {
		lines = append(lines, fmt.Sprintf("Its item %s (%q, a %s) comes along, and counts as %s there.", i.Item, i.Title, i.Kind, i.As))
	}
	return lines
}
