package move

import (
	"context"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/seal"
)

// fewLeft is how many bytes are left to fetch when the source is asked to keep still.
const fewLeft = 8 << 20

// copy fetches what there is at the source, again and again until little is left;
// then has the source keep still, fetches that, checks everything and accepts it.
func (a *Agent) copy(ctx context.Context, t atTarget) error {
	all, err := a.fetchAll(ctx, t)
	if err != nil {
		return err
	}
	return a.accept(ctx, t, all)
}

// fetched is what a source has released: all of it is here, and checked.
type fetched struct {
	release  string
	document []byte // the manifest
	amount   Amount
	looks    []item.Looks
}

// fetchAll fetches what there is at the source until nothing lacks of what it releases.
func (a *Agent) fetchAll(ctx context.Context, t atTarget) (all fetched, err error) {
	none, gone := fetched{}, false
	for {
		standing, err := a.Far.Offer(ctx, t.visit(), t.SignedOrder)
		if err != nil {
			return none, err
		}
		gone = standing.State == Gone
		if t.alone() {
			break
		}
		if err := a.World.TakeStreams(ctx, t.To, standing.Streams); err != nil {
			return none, err
		}
		fetched, err := a.copyListed(ctx, t, standing.Streams)
		if err != nil {
			return none, err
		}
		if fetched <= fewLeft {
			break
		}
	}
	announcement, err := a.Announce()
	if err != nil {
		return none, err
	}
	given, err := a.Far.Freeze(ctx, t.visit(), announcement)
	if err != nil {
		return none, err
	}
	if given.Size <= 0 || given.Size > avatar.MaxManifest {
		return none, carnet.Errorf(carnet.Malformed, "%s has a manifest of %d bytes", t.From, given.Size)
	}
	document, err := a.Far.Manifest(ctx, t.visit())
	if err != nil {
		return none, err
	}
	m, err := a.released(t, given.Release, document)
	if err != nil {
		return none, err
	}
	peer, err := a.Peers.Named(t.From)
	if err != nil {
		return none, err
	}
	if err := a.copyAvatar(ctx, t, peer, m, given.Bags); err != nil {
		return none, err
	}
	if !gone && !t.alone() { // else the registrar says what was decided
		if err := a.checkHome(ctx, t.Home, peer.DID()); err != nil {
			return none, err
		}
	}
	looks, err := a.checkItems(ctx, t, peer, m, gone)
	return fetched{given.Release, document, amountOf(m), looks}, err
}

// copyAvatar fetches the rest of an avatar, takes its keys and checks everything.
func (a *Agent) copyAvatar(ctx context.Context, t atTarget, peer Peer, m *avatar.Manifest, bags [][]byte) error {
	if t.alone() {
		if len(m.Streams) > 0 {
			return carnet.Errorf(carnet.Forbidden, "%s gives the streams of an avatar with an item that moves alone", t.From)
		}
		return nil
	}
	if err := a.World.TakeStreams(ctx, t.To, m.Streams); err != nil {
		return err
	}
	if _, err := a.fetch(ctx, t, m.Stretches); err != nil {
		return err
	}
	for _, bag := range bags {
		err := a.World.TakeKeys(ctx, t.To, bag, seal.Expected{Granter: peer.OwnName, Signer: peer.Key, Reader: a.Party})
		if err != nil {
			return err
		}
	}
	return a.World.Check(ctx, t.To, m)
}

// copyListed fetches the stretches that the source lists now.
func (a *Agent) copyListed(ctx context.Context, t atTarget, streams []avatar.MovedStream) (fetched int64, err error) {
	a.note(t.ID, func(p *Progress) { *p = Progress{Since: p.Since, Fetched: p.Fetched} })
	for i := range streams {
		for from := uint64(0); ; {
			page, err := a.Far.Stretches(ctx, t.visit(), streams[i].Stream, from)
			if err != nil {
				return fetched, err
			}
			if len(page) == 0 {
				break
			}
			n, err := a.fetch(ctx, t, page)
			if fetched += n; err != nil {
				return fetched, err
			}
			last := page[len(page)-1].First
			if last < from {
				return fetched, carnet.Errorf(carnet.Malformed, "%s lists stretches in no order", t.From)
			}
			from = last + 1
		}
	}
	return fetched, nil
}

// fetch takes those of the stretches that aren't here.
func (a *Agent) fetch(ctx context.Context, t atTarget, listed []avatar.MovedStretch) (fetched int64, err error) {
	missing, err := a.World.Missing(ctx, t.To, listed)
	if err != nil {
		return 0, err
	}
	var all, absent int64
	for i := range listed {
		all += int64(listed[i].Size)
	}
	for i := range missing {
		absent += int64(missing[i].Size)
	}
	a.note(t.ID, func(p *Progress) {
		p.Of, p.OfBytes = p.Of+len(listed), p.OfBytes+all
		p.Stretches, p.Bytes = p.Stretches+len(listed)-len(missing), p.Bytes+all-absent
		if p.Since.IsZero() {
			p.Since = a.Now().UTC()
		}
	})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	coming := a.ahead(ctx, t.visit(), missing)
	for i := range missing {
		m := &missing[i]
		body, proof, err := coming(i)
		if carnet.CodeOf(err) == carnet.NotFound {
			continue // its retention has ended meanwhile
		}
		if err != nil {
			return fetched, err
		}
		if err := a.World.TakeStretch(ctx, t.To, *m, body, proof); err != nil {
			return fetched, err
		}
		fetched += int64(m.Size)
		a.note(t.ID, func(p *Progress) {
			p.Stretches, p.Bytes, p.Fetched = p.Stretches+1, p.Bytes+int64(m.Size), p.Fetched+int64(m.Size)
		})
		if state := a.came(t.ID).State; state != t.State {
			return fetched, carnet.Errorf(carnet.Unavailable, "the crossing is %s by now", state)
		}
	}
	return fetched, nil
}

// fetchAhead is how many stretches are under way while one is checked and stored.
const fetchAhead = 3

// ahead asks for stretches a few at a time, and returns the way to have each: in
// their order, once. What is under way ends with ctx.
func (a *Agent) ahead(ctx context.Context, to Visit, all []avatar.MovedStretch) func(i int) (body, proof []byte, err error) {
	type piece struct {
		body, proof []byte
		err         error
	}
	pieces := make([]chan piece, len(all))
	asked := 0
	return func(i int) (body, proof []byte, err error) {
		for ; asked < len(all) && asked <= i+fetchAhead; asked++ {
			m, here := all[asked], make(chan piece, 1)
			pieces[asked] = here
			go func() {
				var p piece
				p.body, p.proof, p.err = a.Far.Stretch(ctx, to, m)
				here <- p
			}()
		}
		p := <-pieces[i]
		pieces[i] = nil
		return p.body, p.proof, p.err
	}
}

func (a *Agent) note(x carnet.CrossingID, change func(*Progress)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if is := a.targets[x]; is != nil {
		noted := *is
		change(&noted.progress)
		a.targets[x] = &noted
	}
}

// released reads a manifest that the source has released.
func (a *Agent) released(t atTarget, release string, document []byte) (*avatar.Manifest, error) {
	r, err := identity.OpenRelease(release)
	if err != nil {
		return nil, err
	}
	order, err := identity.OpenOrder(t.Order)
	if err != nil {
		return nil, err
	}
	if r.Crossing != t.ID || r.Source != order.Source || r.Order != carnet.FingerprintOf([]byte(t.Order)) || r.Manifest != carnet.FingerprintOf(document) {
		return nil, carnet.Errorf(carnet.Forbidden, "%s gives a release that isn't its own for this manifest and order", t.From)
	}
	m, err := avatar.ParseManifest(document)
	if err != nil {
		return nil, err
	}
	if m.Crossing != t.ID || m.Avatar != t.Avatar {
		return nil, carnet.Errorf(carnet.Forbidden, "%s gives the manifest of something else", t.From)
	}
	return m, nil
}
