package owner

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/identity"
)

// held is a mandate that was signed.
type held struct {
	Mandate string `json:"mandate"` // the JWS
	Text    string `json:"text"`    // of the request
}

// withdrawn is a withdrawal that was signed.
type withdrawn struct {
	Withdrawal   string          `json:"withdrawal"` // the JWS
	ID           string          `json:"id"`         // of the mandate
	World        carnet.PartyID  `json:"world"`
	Avatar       carnet.AvatarID `json:"avatar"`
	Ends         time.Time       `json:"ends"` // from then on it means nothing
	Acknowledged bool            `json:"acknowledged"`
}

// keepEnded is how long a mandate that has ended is kept, to be renewed.
const keepEnded = 30 * 24 * time.Hour

// Mandate is a mandate of the keystore's.
type Mandate struct {
	identity.Mandate
	Text  string // of its request
	Token string // the signed mandate
	// Withdrawn says that the owner took it back, Acknowledged that the world
	// which checks it knows.
	Withdrawn, Acknowledged bool
}

// Live reports whether what is done by the mandate at a time may be: by itself,
// or until the world hears of its withdrawal.
func (m Mandate) Live(now time.Time) bool { return !m.Withdrawn && now.Before(m.Expires) }

// Mandates lists the mandates, the newest last.
func (k *Keystore) Mandates() ([]Mandate, error) {
	all := []Mandate{}
	for _, h := range k.inside.Mandates {
		m, _, err := identity.ReadMandate(h.Mandate)
		if err != nil {
			return nil, fmt.Errorf("read a mandate of the keystore: %w", err)
		}
		one := Mandate{Mandate: m, Text: h.Text, Token: h.Mandate}
		if w := k.withdrawnAs(m.ID); w != nil {
			one.Withdrawn, one.Acknowledged = true, w.Acknowledged
		}
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(a, b Mandate) int { return a.Issued.Compare(b.Issued) })
	return all, nil
}

// Mandate finds one by its ID, or by so many of its digits that no other begins
// with them.
func (k *Keystore) Mandate(id string) (Mandate, error) {
	all, err := k.Mandates()
	if err != nil {
		return Mandate{}, err
	}
	var found []Mandate
	for _, m := range all {
		if m.ID == id || m.ID == urn+id {
			return m, nil
		}
		if len(id) >= 4 && len(id) < len(m.ID) && m.ID[len(urn):][:min(len(id), len(m.ID)-len(urn))] == id {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Mandate{}, carnet.Errorf(carnet.NotFound, "the keystore has no mandate %.60q", id).WithFix("list them: carnet owner mandates")
	}
	return Mandate{}, carnet.Errorf(carnet.Malformed, "%d mandates begin with %q", len(found), id).WithFix("give more digits")
}

const urn = "urn:uuid:"

// Approve signs what a request asks for, from now on for a time, and returns the
// mandate once it is on disk.
func (k *Keystore) Approve(r identity.MandateRequest, now time.Time, life time.Duration) (Mandate, error) {
	key, err := k.signerOf(r.MandateTerms)
	if err != nil {
		return Mandate{}, err
	}
	now = now.UTC().Truncate(time.Second)
	token, err := identity.SignMandate(key, identity.Mandate{
		MandateTerms: r.MandateTerms, Issued: now, NotBefore: now, Expires: now.Add(life.Truncate(time.Second)),
	})
	if err != nil {
		return Mandate{}, err
	}
	m, _, err := identity.ReadMandate(token)
	if err != nil {
		return Mandate{}, err
	}
	in := k.inside.without(now)
	in.Mandates = append(in.Mandates, held{token, r.Text})
	if err := k.save(in); err != nil {
		return Mandate{}, err
	}
	return Mandate{Mandate: m, Text: r.Text, Token: token}, nil
}

// signerOf is the key that the checking world has pinned with the avatar.
func (k *Keystore) signerOf(t identity.MandateTerms) (ed25519.PrivateKey, error) {
	for _, w := range k.inside.Keys {
		if w.World.Party == t.Audience && slices.Contains(w.Avatars, t.Avatar) {
			return w.private(), nil
		}
	}
	return nil, carnet.Errorf(carnet.NotFound, "the request is about the avatar %s of %s, with which no key of this keystore is pinned", t.Avatar, t.Audience).
		WithFix("if it is yours, pin one: carnet owner claim THING/WORLD --keystore FILE")
}

// Knows reports whether the keystore could sign: it has pinned a key with the
// avatar that a request is about.
func (k *Keystore) Knows(t identity.MandateTerms) error {
	_, err := k.signerOf(t)
	return err
}

// Withdraw signs the withdrawal of a mandate, and returns it once it is on disk.
// Withdrawn again, it is the same.
func (k *Keystore) Withdraw(id string, now time.Time) (Withdrawal, error) {
	m, err := k.Mandate(id)
	if err != nil {
		return Withdrawal{}, err
	}
	if w := k.withdrawnAs(m.ID); w != nil {
		return w.shown(), nil
	}
	if !now.Before(m.Expires) {
		return Withdrawal{}, carnet.Errorf(carnet.Conflict, "the mandate ended by itself at %s", m.Expires.Format(time.RFC3339)).WithFix("there is nothing to withdraw")
	}
	key, err := k.signerOf(m.MandateTerms)
	if err != nil {
		return Withdrawal{}, err
	}
	w := identity.Withdrawal{Audience: m.Audience, Mandate: m.ID, Issued: later(now.UTC().Truncate(time.Second), m.Issued)}
	token, err := identity.SignWithdrawal(key, w)
	if err != nil {
		return Withdrawal{}, err
	}
	in := k.inside.without(now)
	kept := withdrawn{Withdrawal: token, ID: m.ID, World: m.Audience, Avatar: m.Avatar, Ends: w.Ends()}
	in.Withdrawn = append(in.Withdrawn, kept)
	if err := k.save(in); err != nil {
		return Withdrawal{}, err
	}
	return kept.shown(), nil
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Withdrawal is a signed withdrawal on its way.
type Withdrawal struct {
	Mandate      string
	World        carnet.PartyID // that is to heed it
	Avatar       carnet.AvatarID
	Token        string
	Acknowledged bool
}

func (w withdrawn) shown() Withdrawal {
	return Withdrawal{Mandate: w.ID, World: w.World, Avatar: w.Avatar, Token: w.Withdrawal, Acknowledged: w.Acknowledged}
}

// Unacknowledged lists the withdrawals that a world is still to hear of.
func (k *Keystore) Unacknowledged(now time.Time) (all []Withdrawal) {
	for _, w := range k.inside.Withdrawn {
		if !w.Acknowledged && now.Before(w.Ends) {
			all = append(all, w.shown())
		}
	}
	return all
}

// Acknowledge notes that the world has stored the withdrawal of a mandate.
func (k *Keystore) Acknowledge(id string) error {
	w := k.withdrawnAs(id)
	if w == nil {
		return errors.New("acknowledge a withdrawal: there is none of the mandate " + id)
	}
	if w.Acknowledged {
		return nil
	}
	in := k.inside
	in.Withdrawn = slices.Clone(in.Withdrawn)
	in.Withdrawn[slices.IndexFunc(in.Withdrawn, func(o withdrawn) bool { return o.ID == id })].Acknowledged = true
	return k.save(in)
}

func (k *Keystore) withdrawnAs(id string) *withdrawn {
	if i := slices.IndexFunc(k.inside.Withdrawn, func(w withdrawn) bool { return w.ID == id }); i >= 0 {
		return &k.inside.Withdrawn[i]
	}
	return nil
}

// without is a copy without what ended long ago.
func (in inside) without(now time.Time) inside {
	in.Mandates = slices.DeleteFunc(slices.Clone(in.Mandates), func(h held) bool {
		m, _, err := identity.ReadMandate(h.Mandate)
		return err == nil && now.After(m.Expires.Add(keepEnded))
	})
	in.Withdrawn = slices.DeleteFunc(slices.Clone(in.Withdrawn), func(w withdrawn) bool { return now.After(w.Ends.Add(keepEnded)) })
	return in
}

// mandateLonger is how much longer than its order a move's mandate holds: the target
// tells the source what was decided by it.
const mandateLonger = time.Hour

// Order signs what a move request asks for: the order by the key that is registered
// for the avatar's home, and the mandate by the key that its world has pinned with it.
// What is returned is on disk, with the key for the target.
func (k *Keystore) Order(r identity.MoveRequest, now time.Time, life time.Duration) (identity.Ordered, error) {
	document, err := r.Marshal()
	if err != nil {
		return identity.Ordered{}, err
	}
	_, asked, err := identity.ParseMoveRequest(document)
	if err != nil {
		return identity.Ordered{}, err
	}
	if _, err := k.signerOf(asked.MandateTerms); err != nil {
		return identity.Ordered{}, err
	}
	if !slices.ContainsFunc(k.inside.Keys, func(w worldKey) bool {
		return w.World.Party == asked.Audience && w.World.Key == r.Source && slices.Contains(w.Avatars, asked.Avatar)
	}) {
		return identity.Ordered{}, carnet.Errorf(carnet.Forbidden, "the order is to leave a world with the key %s, which isn't that of %s, where the avatar lives", r.Source, asked.Audience).
			WithFix("begin the move anew: carnet avatar move")
	}
	if !r.Alone { // the avatar stays, and its policy with it
		if err := k.ownsPolicy(asked.Avatar, r.Policy); err != nil {
			return identity.Ordered{}, err
		}
	}
	life = min(life, identity.OrderLife-mandateLonger)
	i := slices.IndexFunc(k.inside.Keys, func(w worldKey) bool { return w.did() == r.Owner })
	if i < 0 {
		return identity.Ordered{}, carnet.Errorf(carnet.NotFound, "the avatar's home is registered for the key %s, which this keystore doesn't have", r.Owner).
			WithFix("use the keystore with which it was claimed first")
	}
	target, err := identity.ParseDID(r.TargetKey)
	if err != nil {
		return identity.Ordered{}, err
	}
	world := World{r.Target, target}
	there, err := k.Key(world)
	if err != nil {
		return identity.Ordered{}, err
	}
	order, terms, err := r.Sign(k.inside.Keys[i].private(), there, now, life)
	if err != nil {
		return identity.Ordered{}, err
	}
	if err := k.Pinned(world, r.To); err != nil {
		return identity.Ordered{}, err
	}
	if err := k.keepPolicyOf(terms); err != nil {
		return identity.Ordered{}, err
	}
	m, err := k.Approve(asked, now, life+mandateLonger)
	if err != nil {
		return identity.Ordered{}, err
	}
	return identity.Ordered{Order: order, Terms: terms, Mandate: m.Token}, nil
}

// KnowsErasure reports whether the keystore could order an erasure: it has the key
// that is registered for the avatar's home, and knows the world by its key.
func (k *Keystore) KnowsErasure(r identity.ErasureRequest) error {
	_, err := k.erases(r)
	return err
}

// erases is the key that is registered for the home of an avatar that is to be erased.
func (k *Keystore) erases(r identity.ErasureRequest) (ed25519.PrivateKey, error) {
	if !slices.ContainsFunc(k.inside.Keys, func(w worldKey) bool {
		return w.World.Party == r.World && w.World.Key == r.WorldKey && slices.Contains(w.Avatars, r.Avatar)
	}) {
		return nil, carnet.Errorf(carnet.NotFound, "the request is about the avatar %s of %s with the key %s, with which no key of this keystore is pinned", r.Avatar, r.World, r.WorldKey).
			WithFix("if it is yours, pin one: carnet owner claim THING/WORLD --keystore FILE")
	}
	i := slices.IndexFunc(k.inside.Keys, func(w worldKey) bool { return w.did() == r.Owner })
	if i < 0 {
		return nil, carnet.Errorf(carnet.NotFound, "the avatar's home is registered for the key %s, which this keystore doesn't have", r.Owner).
			WithFix("use the keystore with which it was claimed first")
	}
	return k.inside.Keys[i].private(), nil
}

// OrderErasure signs what a request to erase asks for. Nothing is kept of it: once the
// home has it, it can't be taken back.
func (k *Keystore) OrderErasure(r identity.ErasureRequest, now time.Time) (identity.Erasing, error) {
	key, err := k.erases(r)
	if err != nil {
		return identity.Erasing{}, err
	}
	return r.Sign(key, now)
}
