package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/entity"
	"carnet/identity"
	"carnet/node"

	"golang.org/x/sync/errgroup"
)

// Row 10's load: that of row 6.
const shareThings, shareRate = 50, 5000

// share is row 10: the load of row 6, with nobody subscribed, with a subscriber of
// each avatar in arena, and with one of each avatar in citadel, which gets it by a
// share: once copied, once derived.
func share(ctx context.Context, b *bench) (figures []Figure, err error) {
	s, err := b.start(ctx, "row10", "arena", "citadel")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	views := plain.views()
	views["citadel"] = citadelView
	devices, err := s.add(ctx, shareThings, plain.description(), views)
	if err != nil {
		return nil, err
	}
	n, err := s.neighbours(ctx, b, "row10")
	if err != nil {
		return nil, err
	}
	r := &shareRow{neighbours: n, bench: b, devices: devices}
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	if err := s.stop(); err != nil {
		return nil, err
	}
	if err := r.stored(ctx); err != nil {
		return nil, err
	}
	return r.figures(), nil
}

// shareRow is row 10 under way.
type shareRow struct {
	*neighbours
	bench   *bench
	devices []device
	dids    []string // of citadel's avatars

	none, local, copied, derived shareStage
}

// shareStage is what one stage reached.
type shareStage struct {
	sent          int
	took          []time.Duration
	cpu           map[carnet.PartyID]time.Duration
	cpuOfLoad     time.Duration
	ended         time.Time
	subscriptions int
}

func (r *shareRow) run(ctx context.Context) (err error) {
	for _, d := range r.devices {
		did, err := r.permit(ctx, d)
		if err != nil {
			return err
		}
		r.dids = append(r.dids, did)
	}
	if r.none, err = r.stage(ctx, nil, 0); err != nil {
		return fmt.Errorf("nobody subscribed: %w", err)
	}
	if r.local, err = r.stage(ctx, r.arena.client, 0); err != nil {
		return fmt.Errorf("subscribed in arena: %w", err)
	}
	if r.copied, err = r.shared(ctx, `{"properties": {"a": {}}}`); err != nil {
		return fmt.Errorf("copied: %w", err)
	}
	if r.derived, err = r.shared(ctx, `{"properties": {"a": {"round": 10}}}`); err != nil {
		return fmt.Errorf("derived: %w", err)
	}
	return nil
}

// shared is a stage with a share of each avatar, under a view.
func (r *shareRow) shared(ctx context.Context, view string) (st shareStage, err error) {
	var grants []string
	for i, d := range r.devices {
		grant, err := r.arena.give(ctx, d.mappings[0].Avatar, entity.To{Platform: "citadel", DID: r.dids[i]}, view, identity.ActionSubscribe)
		if err != nil {
			return st, err
		}
		if _, err := r.take(ctx, d); err != nil {
			return st, err
		}
		grants = append(grants, grant.ID)
	}
	if st, err = r.stage(ctx, r.citadel.client, 1); err != nil {
		return st, err
	}
	for _, id := range grants {
		if _, err := r.arena.client.Revoke(ctx, id); err != nil { // ends its share, too
			return st, fmt.Errorf("revoke a grant: %w", err)
		}
	}
	return st, nil
}

// stage sends the load, with a subscriber of each avatar at a party: that of the
// devices' first or second mapping. Every measurement must come, once.
func (r *shareRow) stage(ctx context.Context, at *client.Client, mapping int) (st shareStage, err error) {
	length := 15 * time.Second
	if r.bench.short {
		length = 4 * time.Second
	}
	const warm = 2 * time.Second
	w := &watchers{from: time.Now().Add(time.Hour).UnixNano(), begun: make(chan struct{}, len(r.devices))}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	group, watching := errgroup.WithContext(watching)
	if at != nil {
		for _, d := range r.devices {
			group.Go(func() error { return w.watch(watching, at, d.mappings[mapping].Avatar) })
		}
		for range r.devices {
			select {
			case <-w.begun:
			case <-watching.Done():
				return st, group.Wait()
			}
		}
		st.subscriptions = len(r.devices)
	}
	before, own, begun := r.used(), ownCPU(), time.Now()
	atomic.StoreInt64(&w.from, begun.Add(warm).UnixNano())
	sending, sendingCtx := errgroup.WithContext(ctx)
	var sent sync.Map
	for i, d := range r.devices {
		sending.Go(func() error {
			n, err := r.tick(sendingCtx, d, i, len(r.devices), shareRate/len(r.devices), begun, warm+length)
			sent.Store(i, n)
			return err
		})
	}
	if err := sending.Wait(); err != nil {
		return st, err
	}
	sent.Range(func(_, n any) bool { st.sent += n.(int); return true })
	if err := r.settle(ctx, time.Minute); err != nil {
		return st, err
	}
	for end := time.Now().Add(20 * time.Second); at != nil && w.received() < st.sent && time.Now().Before(end); {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return st, err
		}
	}
	st.cpu, st.cpuOfLoad, st.ended = r.used(), ownCPU()-own, time.Now()
	for name := range st.cpu {
		st.cpu[name] -= before[name]
	}
	if err := sleep(ctx, 200*time.Millisecond); err != nil { // what comes twice would come now
		return st, err
	}
	stop()
	if err := group.Wait(); err != nil {
		return st, err
	}
	if at != nil && (w.received() != st.sent || w.again > 0) {
		return st, fmt.Errorf("the subscribers got %d measurements of %d, and %d again or out of order", w.received(), st.sent, w.again)
	}
	slices.Sort(w.took)
	st.took = w.took
	return st, nil
}

// stored counts what arena's and citadel's stores hold: of each avatar the same
// measurements, each once, copied in the one stage and derived in the other.
func (r *shareRow) stored(ctx context.Context) (err error) {
	arena, err := node.Inspect(ctx, r.arena.config, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	citadel, err := node.Inspect(ctx, r.citadel.config, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, citadel.Close()) }()
	copied, derived := 0, 0
	for _, d := range r.devices {
		had := make(map[int64]bool)
		streams := make(map[carnet.StreamID]bool)
		err := arena.World.EachHeld(ctx, d.mappings[0].Avatar, func(h avatar.Held) error {
			had[h.Measurement.Time], streams[h.Stream] = true, true
			return nil
		})
		if err != nil {
			return err
		}
		err = citadel.World.EachHeld(ctx, d.mappings[1].Avatar, func(h avatar.Held) error {
			if !had[h.Measurement.Time] {
				return fmt.Errorf("citadel holds a measurement twice, or one that arena doesn't hold")
			}
			delete(had, h.Measurement.Time)
			if streams[h.Stream] {
				copied++
			} else {
				derived++
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if copied != r.copied.sent || derived != r.derived.sent {
		return fmt.Errorf("citadel holds %d measurements copied and %d derived: want %d and %d", copied, derived, r.copied.sent, r.derived.sent)
	}
	return nil
}

// figures are the four stages side by side.
func (r *shareRow) figures() (all []Figure) {
	ms := func(st shareStage, q float64) float64 { return float64(quantile(st.took, q).Microseconds()) / 1000 }
	// What a stage cost the worlds beyond what it costs when nobody subscribes, by
	// measurement.
	micros := func(st shareStage, party carnet.PartyID) float64 {
		return float64(st.cpu[party].Nanoseconds())/1000/float64(st.sent) - float64(r.none.cpu[party].Nanoseconds())/1000/float64(r.none.sent)
	}
	raw := make(map[string]float64)
	for name, st := range map[string]shareStage{"nobody": r.none, "arena": r.local, "copied": r.copied, "derived": r.derived} {
		raw[name+": measurements"], raw[name+": subscribers"], raw[name+": CPU of the load, s"] = float64(st.sent), float64(st.subscriptions), st.cpuOfLoad.Seconds()
		for party, used := range st.cpu {
			raw[fmt.Sprintf("%s: CPU of %s, s", name, party)] = used.Seconds()
		}
		if st.subscriptions > 0 {
			raw[name+": p90 ms"], raw[name+": max ms"] = ms(st, 0.9), ms(st, 1)
		}
	}
	local := micros(r.local, "arena")
	for _, of := range []struct {
		name string
		shareStage
	}{{"copied", r.copied}, {"derived", r.derived}} {
		all = append(all,
			Figure{Row: 10, Name: "share, " + of.name + ": device to subscriber, p50", Value: ms(of.shareStage, 0.5), Unit: "ms", Peer: ms(r.local, 0.5)},
			Figure{Row: 10, Name: "share, " + of.name + ": device to subscriber, p99", Value: ms(of.shareStage, 0.99), Unit: "ms", Peer: ms(r.local, 0.99)},
			Figure{Row: 10, Name: "share, " + of.name + ": CPU of the giver", Value: micros(of.shareStage, "arena"), Unit: "µs/measurement", Peer: local},
			Figure{Row: 10, Name: "share, " + of.name + ": CPU of the taker", Value: micros(of.shareStage, "citadel"), Unit: "µs/measurement", Peer: local})
	}
	for i := range all {
		all[i].Ratio = all[i].Value / all[i].Peer
	}
	all[0].Raw = raw
	all[0].Note = fmt.Sprintf("%d/s of %d things over MQTT with TLS, linger 0, one stage after the other: nobody subscribed, a WebSocket subscriber of each avatar in arena (the peer), then of each in citadel. CPU is what a stage costs beyond the first. Every measurement came once, and is held once.", shareRate, shareThings)
	return all
}
