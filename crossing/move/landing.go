package move

import (
	"cmp"
	"context"
	"slices"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/register"
)

// decide asks the registrar, and does what it decided.
func (a *Agent) decide(ctx context.Context, t atTarget, p register.Petition) error {
	d, err := a.ask(ctx, t.ID, p)
	if err != nil || d == nil {
		return err
	}
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	next, ok := Target(t.State, event(d.Outcome))
	if !ok || next == t.State {
		return nil
	}
	t.Decision = d.Reply.Decision
	a.Log.Info("a move was decided", "crossing", t.ID, "avatar", t.To, "from", t.From, "outcome", d.Outcome, "why", d.Decision.Why)
	if next == Dropped && slices.ContainsFunc(d.Decision.Homes, func(h identity.HomeAt) bool { return h.World == a.did }) {
		err := cameAlready(t.ID) // by another order, which an older copy of this store has lost
		return carnet.Errorf(carnet.Unavailable, "%v", err)
	}
	if next == Dropped {
		t.Why = cmp.Or(t.Why, d.Decision.Why, "the registrar decided abort")
		return a.drop(ctx, t)
	}
	return a.arrive(ctx, t, d)
}

// arrive makes what came this world's, with what the manifest names that the registrar
// has decided. What isn't here, since this store is an older copy, is fetched
// again: the source has it until it hears that the avatar is here. The caller has its
// turn.
func (a *Agent) arrive(ctx context.Context, t atTarget, d *register.Decided) error {
	manifest := *d.Decision.Manifest
	if t.Manifest == manifest {
		err := a.land(ctx, t, d)
		if code := carnet.CodeOf(err); code != carnet.NotFound && code != carnet.Tampered {
			return err
		}
	}
	t, err := a.fetchAgain(ctx, t, manifest)
	if err == nil {
		err = a.land(ctx, t, d)
	}
	if final(err) {
		return carnet.Errorf(carnet.Unavailable, "the avatar's home is here, and what it had isn't: %v", err).
			WithFix("put back a newer copy of this world's store, if there is one")
	}
	return err
}

// fetchAgain fetches what is released once more, and notes that it is here.
func (a *Agent) fetchAgain(ctx context.Context, t atTarget, manifest carnet.Fingerprint) (atTarget, error) {
	a.Log.Warn("an avatar's home is here, and not all of it is: it is fetched again", "crossing", t.ID, "avatar", t.To, "from", t.From)
	all, err := a.fetchAll(ctx, t, true)
	if err != nil {
		return t, err
	}
	if t.Manifest = carnet.FingerprintOf(all.document); t.Manifest != manifest {
		return t, carnet.Errorf(carnet.Tampered, "%s has another manifest than was decided", t.From)
	}
	t.Release, t.Amount, t.Looks = all.release, all.amount, all.looks
	version, err := a.World.OneKept(ctx, kindManifest, t.ID.String(), new([]byte))
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return t, err
	}
	if err := a.keepTarget(ctx, t, avatar.Kept{Kind: kindManifest, ID: t.ID.String(), Version: version + 1, Body: all.document}); err != nil {
		return t, err
	}
	t = a.came(t.ID)
	return t, nil
}

// land makes what came this world's, of which everything is here. The caller has its
// turn.
func (a *Agent) land(ctx context.Context, t atTarget, d *register.Decided) error {
	document, err := a.manifest(ctx, t.ID)
	if err != nil {
		return err
	}
	m, err := avatar.ParseManifest(document)
	if err != nil {
		return err
	}
	order, err := identity.OpenWish(t.Order)
	if err != nil {
		return err
	}
	terms, err := identity.ParseMoveTerms(t.Terms, order)
	if err != nil {
		return err
	}
	if !terms.Alone {
		if err := a.arriveAvatar(ctx, t, m, terms, d); err != nil {
			return err
		}
	}
	proofs := m.Items
	if t.recovers() { // a passport has those that don't come, too
		if proofs, err = proofsOf(m, terms.Items); err != nil {
			return err
		}
		if len(t.Looks) != len(proofs) { // it was decided, and this store is from before it was checked
			t.Looks = a.looksOf(terms.Items, proofs)
		}
	}
	err = a.Items.Land(ctx, item.Landing{
		From: t.From, Avatar: t.To, Proofs: proofs, Looks: t.Looks, Recovered: t.recovers(),
		Committed: item.Committed{Order: t.Order, Terms: t.Terms, Decision: d.Reply.Decision, Proof: identity.OnLedger(d.Reply.Proof), Homes: d.Decision.Homes},
	})
	if err != nil {
		return err
	}
	a.unclaim(d.Decision.Homes)
	t.State, t.Ended, t.Surveyed = Home, a.Now().UTC(), terms.Alone
	return a.keepTarget(ctx, t)
}

// arriveAvatar makes the avatar one of this world's.
func (a *Agent) arriveAvatar(ctx context.Context, t atTarget, m *avatar.Manifest, terms identity.MoveTerms, d *register.Decided) error {
	owner, err := identity.ParseDID(terms.Owner)
	if err != nil {
		return err
	}
	c := identity.MoveProof{Decision: d.Reply.Decision}
	if t.recovers() {
		c.Recovery, c.Terms = t.Order, t.Terms
	}
	commit, err := c.Marshal()
	if err != nil {
		return err
	}
	if err := a.World.Arrive(ctx, t.To, avatar.Landing{From: t.From, Manifest: m, Hash: t.Manifest, Owner: owner, Policy: terms.Policy, Commit: commit}); err != nil {
		return err
	}
	here := t.Home
	here.Avatar = t.To
	if _, known := a.homeOf(t.To); known {
		return nil
	}
	return a.keepHome(ctx, knownHome{Registered: here})
}

// tellSource tells the source until it has deleted everything and signed for it.
func (a *Agent) tellSource(ctx context.Context, t atTarget) error {
	source, known := a.peerBy(t.source)
	if t.recovers() && !known {
		return nil // nobody to tell; the register does, if it comes back
	}
	document, err := a.manifest(ctx, t.ID)
	if err != nil {
		return err
	}
	m, err := avatar.ParseManifest(document)
	if err != nil {
		return err
	}
	tells := Decided{SignedOrder: t.SignedOrder, Decision: t.Decision}
	for i := range m.Streams {
		s := &m.Streams[i]
		tells.Streams = append(tells.Streams, Head{s.Stream, s.NextBatch, s.NextFirst})
	}
	var left Left
	if t.recovers() {
		left, err = a.Far.Recovered(ctx, source.Party, tells)
	} else {
		left, err = a.Far.Decided(ctx, t.visit(), tells)
	}
	if err != nil {
		return err
	}
	if left.Departure == "" {
		return carnet.Errorf(carnet.Unavailable, "%s hasn't deleted everything yet", t.From)
	}
	d, err := identity.OpenDeparture(left.Departure)
	if err != nil {
		return err
	}
	order, err := identity.OpenWish(t.Order)
	if err != nil {
		return err
	}
	if d.Crossing != t.ID || d.Source != order.Source || d.Manifest != t.Manifest {
		return carnet.Errorf(carnet.Unavailable, "%s signs for another departure", t.From)
	}
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	t.Departure = left.Departure
	if err := a.keepTarget(ctx, t); err != nil {
		return err
	}
	a.saidAll(t.To)
	return nil
}

// survey opens every batch that came, which nobody did while the source kept still for
// it, and says which can't be used: who sent it and the source stand for that.
func (a *Agent) survey(ctx context.Context, t atTarget) error {
	unfit := 0
	if _, err := a.World.Departed(t.To); err == nil {
		return a.surveyed(ctx, t, 0) // it moved on: its next home opens all of it
	}
	err := a.World.Survey(ctx, t.To, func(u avatar.Unfit) {
		unfit++
		a.Log.Error("a batch that came with a move can't be used", "crossing", t.ID, "avatar", t.To, "from", t.From, "stream", u.Stream, "batch", u.Batch, "fingerprint", u.Fingerprint, "err", u.Why)
	})
	if err != nil {
		return err
	}
	return a.surveyed(ctx, t, unfit)
}

func (a *Agent) surveyed(ctx context.Context, t atTarget, unfit int) error {
	defer a.changing.of(t.To)()
	t = a.came(t.ID)
	t.Surveyed, t.Unfit = true, unfit
	return a.keepTarget(ctx, t)
}
