package move

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/seal"

	"golang.org/x/sync/errgroup"
)

// fewLeft is how many bytes are left to fetch when the source is asked to keep still.
const fewLeft = 8 << 20

// copy fetches what there is at the source, again and again until little is left;
// then has the source keep still, fetches that, checks everything and accepts it.
func (a *Agent) copy(ctx context.Context, t atTarget) error {
	all, err := a.fetchAll(ctx, t, false)
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
// gone: the registrar has decided that it moved, which the source may not have heard.
func (a *Agent) fetchAll(ctx context.Context, t atTarget, gone bool) (all fetched, err error) {
	none := fetched{}
	for {
		standing, err := a.Far.Offer(ctx, t.visit(), t.SignedOrder)
		if err != nil {
			return none, err
		}
		gone = gone || standing.State == Gone
		if t.alone() {
			break
		}
		if err := a.World.TakeStreams(ctx, t.To, standing.Streams, a.alike(t.Home.Home)); err != nil {
			return none, err
		}
		fetched, err := a.copyListed(ctx, t, standing.Streams, gone)
		if err != nil {
			return none, err
		}
		if fetched > fewLeft {
			continue
		}
		if gone {
			break
		}
		has, waited := a.still.take(ctx, t.ID, func() bool { return a.came(t.ID).State == t.State && a.Now().Before(t.Until) })
		if !has {
			return none, carnet.Errorf(carnet.Unavailable, "%d other avatars that come here keep still", maxStill).WithFix("wait")
		}
		if !waited { // else there may be much again
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
	if err := a.World.TakeStreams(ctx, t.To, m.Streams, a.alike(t.Home.Home)); err != nil {
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
func (a *Agent) copyListed(ctx context.Context, t atTarget, streams []avatar.MovedStream, gone bool) (fetched int64, err error) {
	a.note(t.ID, func(p *Progress) { *p = Progress{Since: p.Since, Fetched: p.Fetched} })
	place := make(map[carnet.StreamID]int, len(streams))
	for i := range streams {
		place[streams[i].Stream] = i
	}
	for from := (avatar.Place{}); len(streams) > 0; {
		page, err := a.Far.Stretches(ctx, t.visit(), from)
		if err != nil {
			return fetched, err
		}
		if len(page) > pageOfStretches {
			return fetched, carnet.Errorf(carnet.Malformed, "%s lists %d stretches at once", t.From, len(page))
		}
		if state := a.came(t.ID).State; state != t.State { // of what it lists nothing may be missing, for ever
			return fetched, carnet.Errorf(carnet.Unavailable, "the crossing is %s by now", state)
		}
		if !gone && !a.Now().Before(t.Until) {
			return fetched, carnet.Errorf(carnet.Unavailable, "the order's time is over")
		}
		known := page
		if i := slices.IndexFunc(page, func(m avatar.MovedStretch) bool { _, is := place[m.Stream]; return !is }); i >= 0 {
			known = page[:i] // a stream that has begun since: the manifest has it
		}
		for i := range known {
			if at, was := place[known[i].Stream], place[from.Stream]; at < was || known[i].Stream == from.Stream && known[i].First < from.Batch {
				return fetched, carnet.Errorf(carnet.Malformed, "%s lists stretches in no order", t.From)
			}
			from = known[i].After()
		}
		n, err := a.fetch(ctx, t, known)
		if fetched += n; err != nil || len(known) == 0 || len(known) < len(page) {
			return fetched, err
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
	err = a.bring(ctx, t, missing, func(some []avatar.Proven) error {
		if err := a.World.TakeStretches(ctx, t.To, some); err != nil {
			return err
		}
		came := int64(0)
		for i := range some {
			came += int64(some[i].Size)
		}
		fetched += came
		a.note(t.ID, func(p *Progress) {
			p.Stretches, p.Bytes, p.Fetched = p.Stretches+len(some), p.Bytes+came, p.Fetched+came
		})
		if state := a.came(t.ID).State; state != t.State {
			return carnet.Errorf(carnet.Unavailable, "the crossing is %s by now", state)
		}
		return nil
	})
	return fetched, err
}

// How much is under way at once: calls for stretches, which are verified on all
// processors, and then as many stretches as are taken in one commit, beyond which
// nothing of another call is added.
const (
	fetchAtOnce = 6
	takeAtOnce  = 64
	takeBytes   = 16 << 20
)

// MaxSeveral is how many stretches are asked for in one call.
const MaxSeveral = 64

// How many bytes several stretches have that are asked for in one call, and how many
// they have in its answer, with their proofs; one may have more.
const (
	askBytes    = 1 << 20
	answerBytes = 4 << 20
)

// askable is how many of the first stretches are asked for in one call.
func askable(all []avatar.MovedStretch) (n int) {
	size := all[0].Size
	for n = 1; n < min(len(all), MaxSeveral) && size+all[n].Size <= askBytes; n++ {
		size += all[n].Size
	}
	return n
}

// bring fetches stretches and verifies them, several at once, and hands them over as
// they come: those that are ready together.
func (a *Agent) bring(ctx context.Context, t atTarget, all []avatar.MovedStretch, take func([]avatar.Proven) error) error {
	work, ctx := errgroup.WithContext(ctx)
	asked, ready := make(chan []avatar.MovedStretch), make(chan []avatar.Proven)
	work.Go(func() error {
		defer close(asked)
		for len(all) > 0 {
			n := askable(all)
			select {
			case asked <- all[:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
			all = all[n:]
		}
		return nil
	})
	from := &giver{Agent: a, move: t}
	var bringing sync.WaitGroup
	for range fetchAtOnce {
		bringing.Add(1)
		work.Go(func() error {
			defer bringing.Done()
			for some := range asked {
				for len(some) > 0 {
					came, n, err := from.bring(ctx, some)
					if err != nil {
						return err
					}
					if some = some[n:]; len(came) == 0 {
						continue
					}
					select {
					case ready <- came:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
			return nil
		})
	}
	go func() {
		bringing.Wait()
		close(ready)
	}()
	work.Go(func() error {
		for some := range ready {
			if err := take(together(some, ready)); err != nil {
				return err
			}
		}
		return nil
	})
	return work.Wait()
}

// together returns stretches with those that are ready besides.
func together(some []avatar.Proven, ready <-chan []avatar.Proven) []avatar.Proven {
	size := 0
	for more, ok := some, true; ok; {
		for i := range more {
			size += more[i].Size
		}
		if len(some) >= takeAtOnce || size >= takeBytes {
			return some
		}
		select {
		case more, ok = <-ready:
			some = append(some, more...)
		default:
			return some
		}
	}
	return some
}

// giver is a source, as stretches are fetched from it.
type giver struct {
	*Agent
	move atTarget
	one  atomic.Bool // it is asked for one stretch a call: an older program may run it
}

// bring fetches the first of some stretches in one call and verifies them; n is how many
// it came to. What the source hasn't any more, since its retention has ended, isn't among
// those that came.
func (g *giver) bring(ctx context.Context, some []avatar.MovedStretch) (came []avatar.Proven, n int, err error) {
	pieces := []Piece{{}}
	if len(some) > 1 && !g.one.Load() {
		pieces, err = g.Far.Several(ctx, g.move.visit(), some)
		if err == nil && (len(pieces) == 0 || len(pieces) > len(some)) {
			err = carnet.Errorf(carnet.Malformed, "%s gave %d stretches of %d", g.move.From, len(pieces), len(some))
		}
		if code := carnet.CodeOf(err); code == carnet.Malformed || code == carnet.NotFound {
			g.one.Store(true) // each by itself is answered by itself
			return nil, 0, nil
		}
	} else if pieces[0].Body, pieces[0].Proof, err = g.Far.Stretch(ctx, g.move.visit(), some[0], false); carnet.CodeOf(err) == carnet.NotFound {
		err = nil
	}
	if err != nil {
		return nil, 0, err
	}
	for i := range pieces {
		if pieces[i].gone() {
			continue
		}
		p, err := g.prove(ctx, &some[i], pieces[i])
		if carnet.CodeOf(err) == carnet.NotFound {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		came = append(came, p)
	}
	return came, len(pieces), nil
}

// prove verifies a stretch. The source has sent it as it is there; if that isn't what it
// should be, it is asked to look at it first, since it may have lost it and can have it
// again.
func (g *giver) prove(ctx context.Context, m *avatar.MovedStretch, is Piece) (p avatar.Proven, err error) {
	p, err = g.World.ProveStretch(ctx, g.move.To, *m, is.Body, is.Proof)
	if code := carnet.CodeOf(err); code != carnet.Tampered && code != carnet.Malformed {
		return p, err
	}
	if is.Body, is.Proof, err = g.Far.Stretch(ctx, g.move.visit(), *m, true); err != nil {
		return p, err
	}
	return g.World.ProveStretch(ctx, g.move.To, *m, is.Body, is.Proof)
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
	return m, checkLeft(t, order, m)
}
