package move

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/policy"
	"carnet/register"
	"carnet/seal"
)

// Brought is a passport that somebody brings, since the avatar's home is gone for good.
type Brought struct {
	Word     string // identity.Passport
	Manifest []byte
	Farewell string          // identity.Farewell; empty: there is none
	Policy   string          // the avatar's, as it was signed for its former world; empty: it had none
	View     json.RawMessage // of what its things send from then on; nil: as before
}

// recovers reports whether an avatar comes by a passport, not from a world.
func (t *AtTarget) recovers() bool { return t.Passport != "" }

// BeginRecovery makes room for an avatar by its passport, and says what its owner is
// asked to order. The passport must be of the home that the register knows, as it
// stands.
func (a *Agent) BeginRecovery(ctx context.Context, by string, b Brought) (AtTarget, error) {
	word, m, err := opened(b)
	if err != nil {
		return AtTarget{}, err
	}
	if word.Source == a.did {
		return AtTarget{}, carnet.Errorf(carnet.Conflict, "the passport is of an avatar of this world")
	}
	bounds, err := a.bounding(word, b.Policy)
	if err != nil {
		return AtTarget{}, err
	}
	is, err := a.standing(ctx, word)
	if err != nil {
		return AtTarget{}, err
	}
	if err := a.bears(b.View, valuesOf(m)); err != nil {
		return AtTarget{}, err
	}
	t := atTarget{AtTarget: AtTarget{
		ID: carnet.NewCrossingID(), From: word.World, Avatar: word.Avatar, State: Asked, By: by, Begun: a.Now().UTC(), Passport: b.Word, Farewell: b.Farewell,
		Home:     Registered{Avatar: word.Avatar, Home: word.Home, Registrar: word.Registrar, Owner: word.Owner},
		Manifest: word.Manifest, Incarnation: is.Incarnation, Amount: amountOf(m),
	}}
	if p, known := a.peerBy(word.Source); known {
		t.From = p.Party
	}
	room, err := a.World.ExpectBy(ctx, t.ID, word.Passport, m.Title)
	if err != nil {
		return AtTarget{}, err
	}
	t.To = room.ID
	err = a.World.TakeStreams(ctx, t.To, m.Streams, a.alike(t.Home.Home))
	if err == nil {
		t.Request, err = a.askToRecover(ctx, &t.AtTarget, m, b.View, b.Policy, bounds)
	}
	if err == nil {
		defer a.changing.of(t.To)()
		err = a.keepTarget(ctx, t, avatar.Kept{Kind: kindManifest, ID: t.ID.String(), Version: 1, Body: b.Manifest})
	}
	if err != nil {
		if failed := a.World.Drop(ctx, t.To); failed != nil {
			a.Log.Warn("room for an avatar that doesn't come is left; it is deleted at the next start", "avatar", t.To, "err", failed)
		}
		return AtTarget{}, err
	}
	return t.AtTarget, nil
}

// opened reads what is brought, and holds it together.
func opened(b Brought) (word identity.Passport, m *avatar.Manifest, err error) {
	if word, err = identity.OpenPassport(b.Word); err != nil {
		return word, nil, err
	}
	if carnet.FingerprintOf(b.Manifest) != word.Manifest {
		return word, nil, carnet.Errorf(carnet.Tampered, "the manifest is not the one of the passport")
	}
	if m, err = avatar.ParseManifest(b.Manifest); err != nil {
		return word, nil, err
	}
	if m.Crossing != word.Passport || m.Avatar != word.Avatar {
		return word, nil, carnet.Errorf(carnet.Tampered, "the manifest is of another passport or avatar than its world says")
	}
	_, err = farewellOf(word, b.Farewell)
	return word, m, err
}

// farewellOf reads the farewell of a passport; nil: there is none.
func farewellOf(word identity.Passport, farewell string) (*identity.Farewell, error) {
	if farewell == "" {
		return nil, nil
	}
	f, err := identity.OpenFarewell(farewell)
	if err == nil && (f.Source != word.Source || f.Home != word.Home || f.Registrar != word.Registrar || f.Manifest != word.Manifest) {
		err = carnet.Errorf(carnet.Tampered, "the farewell is not of this passport")
	}
	return &f, err
}

// standing asks the register whether a home is still the one of which a passport is.
func (a *Agent) standing(ctx context.Context, word identity.Passport) (identity.HomeAnswer, error) {
	registrar, err := a.registrarOf(word.Registrar)
	if err != nil {
		return identity.HomeAnswer{}, err
	}
	is, _, err := registrar.Home(ctx, word.Home)
	switch {
	case err != nil:
	case is.Erased != "":
		err = carnet.Errorf(carnet.Forbidden, "the register says that the avatar is erased, by its owner's order")
	case is.World != word.Source:
		err = carnet.Errorf(carnet.Conflict, "the register says that the avatar's home is elsewhere since the passport was made, at %s", is.World).
			WithFix("it lives there; only a passport of that world can bring it back")
	case is.Version != word.Version:
		err = carnet.Errorf(carnet.Conflict, "the avatar has left that world and come back since the passport was made: the passport is too old").WithFix("use a newer one")
	case is.Owner != word.Owner:
		err = carnet.Errorf(carnet.Forbidden, "the register says that the home is another owner's than the passport does")
	}
	return is, err
}

// askToRecover writes what the owner is asked to order.
func (a *Agent) askToRecover(ctx context.Context, t *AtTarget, m *avatar.Manifest, view json.RawMessage, signed string, bounds policy.Bounds) (json.RawMessage, error) {
	announcement, err := a.Announce()
	if err != nil {
		return nil, err
	}
	amount := fmt.Sprintf("It brings %d measurements in %d stretches of %d streams, %d bytes, and %d values of its state.", t.Amount.Measurements, t.Amount.Stretches, t.Amount.Streams, t.Amount.Bytes, t.Amount.Properties)
	when := "Its world has signed no farewell: the registrar waits whether it shows itself."
	if t.Farewell != "" {
		when = "Its world has signed that it acts as its home no more."
	}
	items, left, err := a.comingItems(ctx, t, m, bounds)
	if err != nil {
		return nil, err
	}
	report := append([]string{amount, when}, left...)
	if bounds.Version > 0 {
		report = append(report, fmt.Sprintf("Its policy, version %d, is in force here from its arrival on.", bounds.Version))
	}
	return identity.RecoveryRequest{
		Recovery: t.ID, Passport: t.Passport, Target: a.Party, TargetKey: a.did, To: t.To, Incarnation: t.Incarnation, Items: items, Policy: signed, View: view, Heads: heads(m),
		Reception: announcement, Purpose: a.purpose(), Sensitivity: a.Clearance.Sensitivity.String(), Residency: a.Clearance.Residency.Words(),
		Report: report,
	}.Marshal()
}

// heads says where the streams of a manifest stand.
func heads(m *avatar.Manifest) []identity.Head {
	all := make([]identity.Head, len(m.Streams))
	for i := range m.Streams {
		all[i] = identity.Head{Stream: m.Streams[i].Stream, NextBatch: m.Streams[i].NextBatch, NextFirst: m.Streams[i].NextFirst}
	}
	return all
}

// recovery returns a recovery, to which pieces may still be handed in.
func (a *Agent) recovery(x carnet.CrossingID) (atTarget, error) {
	t := a.came(x)
	switch {
	case t.State == None || !t.recovers():
		return t, carnet.Errorf(carnet.NotFound, "there is no recovery %s", x).WithFix("list what comes: carnet avatar status")
	case t.State != Asked:
		return t, carnet.Errorf(carnet.Conflict, "the recovery %s is %s", x, cmp.Or(t.Why, string(t.State)))
	}
	return t, nil
}

// Lacking lists stretches of a recovery that haven't been handed in, at most so many.
func (a *Agent) Lacking(ctx context.Context, x carnet.CrossingID, most int) ([]avatar.MovedStretch, error) {
	t, err := a.recovery(x)
	if err != nil {
		return nil, err
	}
	m, err := a.parsedManifest(ctx, x)
	if err != nil {
		return nil, err
	}
	lacking, err := a.World.Missing(ctx, t.To, m.Stretches)
	return lacking[:min(len(lacking), most)], err
}

// TakePiece takes a stretch of a recovery, with what proves it. It is durable on
// return; handed in again it is left alone.
func (a *Agent) TakePiece(ctx context.Context, x carnet.CrossingID, m avatar.MovedStretch, body, proof []byte) error {
	t, err := a.recovery(x)
	if err != nil {
		return err
	}
	return a.World.TakeStretch(ctx, t.To, m, body, proof)
}

// Renew writes anew what the owner of a recovery is asked: with the present reception
// key, which is good for a day.
func (a *Agent) Renew(ctx context.Context, x carnet.CrossingID) (AtTarget, error) {
	t, err := a.recovery(x)
	if err != nil {
		return AtTarget{}, err
	}
	m, err := a.parsedManifest(ctx, x)
	if err != nil {
		return AtTarget{}, err
	}
	asked, word, err := identity.ParseRecoveryRequest(t.Request)
	if err != nil {
		return AtTarget{}, err
	}
	bounds, err := a.bounding(word, asked.Policy)
	if err != nil {
		return AtTarget{}, err
	}
	defer a.changing.of(t.To)()
	if t, err = a.recovery(x); err != nil {
		return AtTarget{}, err
	}
	if t.Request, err = a.askToRecover(ctx, &t.AtTarget, m, asked.View, asked.Policy, bounds); err != nil {
		return AtTarget{}, err
	}
	return t.AtTarget, a.keepTarget(ctx, t)
}

// TakeRecovery takes what the owner signed for a recovery, with the passport's keys,
// and checks everything before it says that it has it. Handed in again it is answered
// again.
func (a *Agent) TakeRecovery(ctx context.Context, x carnet.CrossingID, r identity.Recovered) (AtTarget, error) {
	t := a.came(x)
	if t.State != None && t.State != Asked && t.Order == r.Recovery {
		return t.AtTarget, nil
	}
	t, err := a.recovery(x)
	if err != nil {
		return AtTarget{}, err
	}
	m, err := a.parsedManifest(ctx, x)
	if err != nil {
		return AtTarget{}, err
	}
	order, bounds, err := a.checkRecovered(&t, m, r)
	if err != nil {
		return AtTarget{}, err
	}
	if lacking, err := a.World.Missing(ctx, t.To, m.Stretches); err != nil {
		return AtTarget{}, err
	} else if len(lacking) > 0 {
		return AtTarget{}, carnet.Errorf(carnet.Conflict, "%d of the passport's stretches haven't been handed in", len(lacking)).WithFix("carnet avatar import DIR --to %s --resume %s", a.Party, x)
	}
	owner, err := identity.ParseDID(order.Owner)
	if err != nil {
		return AtTarget{}, err
	}
	if _, err := a.looksOrdered(ctx, &t.AtTarget, m, SignedOrder{r.Recovery, r.Terms}); err != nil {
		return AtTarget{}, err
	}
	for _, bag := range r.Bags {
		if err := a.World.TakeKeys(ctx, t.To, bag, seal.Expected{Granter: OwnerReader, Signer: owner, Reader: a.Party}); err != nil {
			return AtTarget{}, err
		}
	}
	if err := a.World.Check(ctx, t.To, m); err != nil {
		return AtTarget{}, err
	}
	if err := a.mayTakeHistory(ctx, t.To, bounds); err != nil {
		return AtTarget{}, err
	}
	defer a.changing.of(t.To)()
	checked := t.Request
	if t, err = a.recovery(x); err != nil {
		return AtTarget{}, err
	}
	if !bytes.Equal(t.Request, checked) {
		return AtTarget{}, carnet.Errorf(carnet.Conflict, "the request of the recovery %s was written anew while what its owner signed was checked", x).
			WithFix("approve the request as it was written last: carnet owner approve")
	}
	next, ok := Target(t.State, Order)
	if !ok {
		return AtTarget{}, tooLate(x, t.State)
	}
	t.State, t.SignedOrder, t.Until = next, SignedOrder{r.Recovery, r.Terms}, order.Until
	return t.AtTarget, a.keepTarget(ctx, t)
}

// TakeBags takes key bags of a passport that are sealed to this world itself.
func (a *Agent) TakeBags(ctx context.Context, x carnet.CrossingID, bags [][]byte) error {
	t, err := a.recovery(x)
	if err != nil {
		return err
	}
	word, err := identity.OpenPassport(t.Passport)
	if err != nil {
		return err
	}
	source, err := identity.ParseDID(word.Source)
	if err != nil {
		return err
	}
	for _, bag := range bags {
		if err := a.World.TakeKeys(ctx, t.To, bag, seal.Expected{Granter: word.World, Signer: source, Reader: a.Party}); err != nil {
			return err
		}
	}
	return nil
}

// checkRecovered refuses what isn't what was asked for: another order, also of a move,
// or of another passport.
func (a *Agent) checkRecovered(t *atTarget, m *avatar.Manifest, r identity.Recovered) (order identity.Order, bounds policy.Bounds, err error) {
	if order, err = identity.OpenRecovery(r.Recovery); err != nil {
		return order, bounds, err
	}
	terms, err := identity.ParseMoveTerms(r.Terms, order)
	if err != nil {
		return order, bounds, err
	}
	asked, word, err := identity.ParseRecoveryRequest(t.Request)
	if err != nil {
		return order, bounds, err
	}
	want := identity.MoveTerms{Avatar: word.Avatar, Home: word.Home, To: t.To, Owner: terms.Owner, View: asked.View, Policy: terms.Policy, Heads: heads(m), Items: asked.Moving()}
	wanted, err := want.Marshal()
	homes, what := asked.Homes(word)
	refuse := func(what string) (identity.Order, policy.Bounds, error) {
		return order, bounds, carnet.Errorf(carnet.Forbidden, "the recovery isn't what was asked for: %s", what).WithFix("approve the request as it was written: carnet owner approve")
	}
	switch {
	case err != nil:
		return order, bounds, err
	case order.Crossing != t.ID || order.Target != a.did:
		return refuse("it is of another crossing, or to another world")
	case order.Source != word.Source || order.Registrar != word.Registrar || order.Owner != word.Owner || !slices.Equal(order.Homes, homes):
		return refuse("it is of another home, or by another owner")
	case order.Recovers.Manifest != word.Manifest:
		return refuse("it is of another passport")
	case !slices.Equal(order.Recovers.Incarnations, what.Incarnations) || !slices.Equal(order.Recovers.Chains, what.Chains):
		return refuse("it names other incarnations of the homes, or other lengths of chains")
	case !followsPolicy(terms.Policy, asked.Policy):
		return refuse("it has an older policy of the avatar, another one of that version, or none")
	case !bytes.Equal(wanted, r.Terms):
		return refuse("its terms are others")
	case !a.Now().Before(order.Until):
		return order, bounds, carnet.Errorf(carnet.Forbidden, "the recovery was good until %s", order.Until.Format(time.RFC3339)).WithFix("approve it again")
	}
	bounds, err = a.boundsOf(terms)
	return order, bounds, err
}

// acceptRecovery checks once more what was brought, and signs that it is here.
func (a *Agent) acceptRecovery(ctx context.Context, t atTarget) error {
	m, err := a.parsedManifest(ctx, t.ID)
	if err != nil {
		return err
	}
	if err := a.World.Check(ctx, t.To, m); err != nil {
		return err
	}
	looks, err := a.looksOrdered(ctx, &t.AtTarget, m, t.SignedOrder)
	if err != nil {
		return err
	}
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	next, ok := Target(t.State, Checked)
	if !ok || t.State == next {
		return nil
	}
	t.State, t.Looks = next, looks
	t.Acceptance, err = identity.SignAcceptance(a.Key, identity.Acceptance{
		Crossing: t.ID, Target: a.did, Order: carnet.FingerprintOf([]byte(t.Order)), Manifest: t.Manifest,
	})
	if err != nil {
		return err
	}
	return a.keepTarget(ctx, t)
}

// awaitSource asks the registrar to carry a recovery out, and says until when it waits.
func (a *Agent) awaitSource(ctx context.Context, t atTarget) error {
	p := register.Petition{Want: register.Commit, Order: t.Order, Acceptance: t.Acceptance, Farewell: t.Farewell}
	err := a.decide(ctx, t, p)
	if err != nil || a.came(t.ID).State != Prepared {
		return err
	}
	until := t.progress.SourceUntil
	if !a.Now().Before(until) {
		if until, err = a.waitsUntil(ctx, t); err != nil {
			return err
		}
		a.note(t.ID, func(p *Progress) { p.SourceUntil = until })
	}
	return carnet.Errorf(carnet.Unavailable, "its former world has until %s to show itself", until.Format(time.RFC3339))
}

// waitsUntil is until when the registrar waits for the source of a recovery: for the last
// of its homes.
func (a *Agent) waitsUntil(ctx context.Context, t atTarget) (until time.Time, err error) {
	order, err := identity.OpenRecovery(t.Order)
	if err != nil {
		return until, err
	}
	registrar, err := a.registrarOf(order.Registrar)
	if err != nil {
		return until, err
	}
	for _, home := range order.Homes {
		is, _, err := registrar.Home(ctx, home)
		if err != nil {
			return until, err
		}
		if there := is.Recovery; there.Crossing == t.ID && there.Until.After(until) {
			until = there.Until
		}
	}
	return until, nil
}

// parsedManifest reads the manifest of a crossing.
func (a *Agent) parsedManifest(ctx context.Context, x carnet.CrossingID) (*avatar.Manifest, error) {
	document, err := a.manifest(ctx, x)
	if err != nil {
		return nil, err
	}
	return avatar.ParseManifest(document)
}

// peerBy finds a world by its key.
func (a *Agent) peerBy(did string) (Peer, bool) {
	for _, p := range a.Peers.All() {
		if p.DID() == did {
			return p, true
		}
	}
	return Peer{}, false
}

// Told is what proves to others that an avatar has a new home.
type Told struct {
	SignedOrder
	Decision string `json:"decision"`
}

// Proof is what proves that an avatar came here: the owner's order or recovery, and the
// registrar's decision.
func (a *Agent) Proof(x carnet.CrossingID) (Told, error) {
	t := a.came(x)
	if t.State != Home {
		return Told{}, carnet.Errorf(carnet.NotFound, "no avatar has come here by a crossing %s", x).WithFix("see carnet avatar status")
	}
	return Told{t.SignedOrder, t.Decision}, nil
}
