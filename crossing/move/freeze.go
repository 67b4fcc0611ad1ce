package move

import (
	"context"
	"errors"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/seal"
)

// Freeze fixes what moves, for the target, and gives the release with the keys. Asked
// again it gives the same release, and the keys sealed anew.
func (a *Agent) Freeze(ctx context.Context, by Asking, about carnet.AvatarID, x carnet.CrossingID, announcement []byte) (Freezing, error) {
	peer, err := a.Peers.Named(by.Party)
	if err != nil {
		return Freezing{}, err
	}
	reception, err := seal.ParseReception(announcement, peer.Key, a.Now())
	if err != nil {
		return Freezing{}, err
	}
	if reception.Reader != peer.OwnName {
		return Freezing{}, carnet.Errorf(carnet.Forbidden, "%s announces a reception key of %s", by.Party, reception.Reader)
	}
	l, m, err := a.freeze(ctx, by, about, x)
	if err != nil {
		return Freezing{}, err
	}
	parsed, err := avatar.ParseManifest(m)
	if err != nil {
		return Freezing{}, err
	}
	moves, err := a.leaver(l.SignedOrder)
	if err != nil {
		return Freezing{}, err
	}
	bags, err := moves.KeyBags(ctx, parsed, avatar.KeyTerms{
		Granter: a.Party, Signer: a.Key, Reception: reception, Clearance: by.Most, Purpose: by.Most.Purposes.Words()[0],
	})
	return Freezing{l.Release, len(m), bags}, err
}

func (a *Agent) freeze(ctx context.Context, by Asking, about carnet.AvatarID, x carnet.CrossingID) (atSource, []byte, error) {
	defer a.changing.of(about)()
	l, err := a.readable(by.Party, about, x)
	if err != nil {
		return l, nil, err
	}
	next, ok := Source(l.State, Freeze)
	if !ok && !l.gives() {
		return l, nil, carnet.Errorf(carnet.Conflict, "the crossing %s is %s here", x, l.State)
	}
	if l.State != Offered {
		m, err := a.manifest(ctx, x)
		return l, m, err
	}
	order, err := identity.OpenOrder(l.Order)
	if err != nil {
		return l, nil, err
	}
	if err := a.free(l.AtSource); err != nil {
		return l, nil, err
	}
	if err := a.Items.Leaves(l.leaving(), order.Owner); err != nil {
		return l, nil, err
	}
	for _, home := range order.Homes { // before anything keeps still
		if _, err = a.claim(ctx, order.Registrar, home); err != nil {
			return l, nil, err
		}
	}
	made, err := a.fix(ctx, by, l, order)
	if err == nil { // what keeps still keeps its policy
		err = a.stillBounded(ctx, by.Party, l)
	}
	incarnations := make([]uint64, len(order.Homes))
	for i, home := range order.Homes { // those that hold from now on
		if err == nil {
			incarnations[i], err = a.settled(ctx, order.Registrar, home)
		}
	}
	if err != nil { // nothing was signed, so others needn't wait
		return l, nil, errors.Join(err, a.thaw(context.WithoutCancel(ctx), l))
	}
	m, err := made.Marshal()
	if err != nil {
		return l, nil, err
	}
	l.State, l.Manifest, l.Amount = next, carnet.FingerprintOf(m), amountOf(made)
	l.Release, err = identity.SignRelease(a.Key, identity.Release{
		Crossing: x, Source: a.did, Order: carnet.FingerprintOf([]byte(l.Order)), Manifest: l.Manifest, Incarnations: incarnations,
	})
	if err != nil {
		return l, nil, err
	}
	for i := range made.Streams {
		s := &made.Streams[i]
		if !s.Here {
			continue // whoever sent it was told when it left that world
		}
		l.Heads = append(l.Heads, carnet.Moved{Stream: s.Stream, Order: l.Order, Terms: l.Terms, NextBatch: s.NextBatch, NextFirst: s.NextFirst})
	}
	return l, m, a.keepSource(ctx, l, a.manifestDocument(x, m))
}

// fix has what moves keep still, and says exactly what it is.
func (a *Agent) fix(ctx context.Context, by Asking, l atSource, order identity.Order) (m *avatar.Manifest, err error) {
	if l.alone() {
		m = &avatar.Manifest{
			Version: 1, Crossing: l.ID, Avatar: l.Avatar, Created: l.Begun,
			Streams: []avatar.MovedStream{}, Stretches: []avatar.MovedStretch{}, Keys: []avatar.MovedKey{}, State: []avatar.MovedValue{},
		}
	} else if err = a.World.Freeze(ctx, l.Avatar, l.ID); err == nil {
		if err = a.checkMay(ctx, by, l.Avatar, order, l.Moving()); err != nil { // with what came since the offer
			return nil, err
		}
		var moves avatar.Leaver
		if moves, err = a.leaver(l.SignedOrder); err == nil {
			m, err = moves.Manifest(ctx, l.Avatar, l.ID, a.Vouch)
		}
	}
	if err != nil {
		return nil, err
	}
	m.Items, err = a.Items.Freeze(ctx, l.leaving(), order.Owner)
	return m, err
}

// free refuses to freeze an avatar that keeps still for another crossing, or for which
// an item is on its way: it has it soon, or not at all.
func (a *Agent) free(l AtSource) error {
	if l.alone() {
		return a.expects(l.Avatar)
	}
	other, frozen, err := a.World.Frozen(l.Avatar)
	if err != nil {
		return err
	}
	if _, said := a.saidFarewell(l.Avatar); frozen && other != l.ID && !said { // a claim says that it was
		a.askNow(other) // it may be over, and not known here yet
		return carnet.Errorf(carnet.Unavailable, "the avatar keeps still for crossing %s, which is to be decided first", other)
	}
	return a.expects(l.Avatar)
}

// expects refuses an avatar for which an item is on its way.
func (a *Agent) expects(id carnet.AvatarID) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, t := range a.targets {
		if t.To == id && t.State == Prepared && t.alone() {
			return carnet.Errorf(carnet.Unavailable, "an item is on its way to the avatar by the crossing %s", t.ID)
		}
	}
	return nil
}

// askNow has the registrar asked of a move from here without more waiting.
func (a *Agent) askNow(x carnet.CrossingID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if is := a.sources[x]; is != nil {
		again := *is
		again.notTill = time.Time{}
		a.sources[x] = &again
		a.rouse()
	}
}

// saidAll has the key of an avatar destroyed that was kept to ask its home of before.
func (a *Agent) saidAll(id carnet.AvatarID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for x, l := range a.sources {
		if l.Avatar == id && l.State == Gone && !l.Silent {
			again := *l
			again.notTill = time.Time{}
			a.sources[x] = &again
		}
	}
	a.rouse()
}

// manifestDocument is the document of a manifest, which is stored once.
func (a *Agent) manifestDocument(x carnet.CrossingID, m []byte) avatar.Kept {
	return avatar.Kept{Kind: kindManifest, ID: x.String(), Version: 1, Body: m}
}

// manifest reads the manifest of a move.
func (a *Agent) manifest(ctx context.Context, x carnet.CrossingID) (m []byte, err error) {
	_, err = a.World.OneKept(ctx, kindManifest, x.String(), &m)
	return m, err
}

// ManifestFor gives the target the manifest that was released.
func (a *Agent) ManifestFor(ctx context.Context, by carnet.PartyID, about carnet.AvatarID, x carnet.CrossingID) ([]byte, error) {
	l, err := a.readable(by, about, x)
	if err != nil {
		return nil, err
	}
	if l.State != Frozen && !l.gives() {
		return nil, carnet.Errorf(carnet.Conflict, "the crossing %s has no manifest yet", x).WithFix("freeze it first")
	}
	return a.manifest(ctx, x)
}
