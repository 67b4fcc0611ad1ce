package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing/move"
	"carnet/entity"
	"carnet/identity"
	"carnet/policy"

	"golang.org/x/sync/errgroup"
)

// moves is row 13: a large history that goes from arena to citadel and back, beside a
// program that copies as many bytes; one of a megabyte; and many small avatars at
// once.
func moves(ctx context.Context, b *bench) (all []Figure, err error) {
	large, many := int64(1_000_000_000), 1000
	if b.short {
		large, many = 30_000_000, 100
	}
	s, err := b.start(ctx, "row13", "arena", "citadel")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	n, err := s.neighbours(ctx, b, "row13")
	if err != nil {
		return nil, err
	}
	r := &moveRow{neighbours: n, dir: filepath.Join(b.dir, "row13")}
	if all, err = r.histories(ctx, large); err != nil {
		return all, err
	}
	small, err := r.together(ctx, many)
	return append(all, small...), err
}

// moveRow is row 13 under way.
type moveRow struct {
	*neighbours
	dir string
}

// moved is what a move took.
type moved struct {
	move.Amount
	took   time.Duration // from the order until it is home
	frozen time.Duration // it kept still
}

func (m moved) rate() float64 { return float64(m.Bytes) / 1e6 / m.took.Seconds() }

// histories moves a history of a megabyte, and a large one, there and back, with the
// peer's copies in between.
func (r *moveRow) histories(ctx context.Context, size int64) ([]Figure, error) {
	little, err := r.history(ctx, 1, 1_000_000)
	if err != nil {
		return nil, err
	}
	big, err := r.history(ctx, 16, size)
	if err != nil {
		return nil, err
	}
	fmt.Println("  the histories are made: compaction")
	r.compacted(ctx, 10*time.Minute)
	fmt.Println("  the moves begin")
	first, _, err := r.move(ctx, r.arena, r.citadel, little)
	if err != nil {
		return nil, fmt.Errorf("a megabyte: %w", err)
	}
	there, at, err := r.move(ctx, r.arena, r.citadel, big)
	if err != nil {
		return nil, fmt.Errorf("there: %w", err)
	}
	peer, err := r.copies(there.Bytes)
	if err != nil {
		return nil, err
	}
	back, _, err := r.move(ctx, r.citadel, r.arena, at)
	if err != nil {
		return nil, fmt.Errorf("back: %w", err)
	}
	again, err := r.copies(there.Bytes)
	if err != nil {
		return nil, err
	}
	if there.Measurements != back.Measurements || there.Bytes != back.Bytes {
		return nil, fmt.Errorf("there went %d measurements in %d bytes, and back %d in %d", there.Measurements, there.Bytes, back.Measurements, back.Bytes)
	}
	f := Figure{
		Row: 13, Name: "move of a large history", Value: (there.rate() + back.rate()) / 2, Unit: "MB/s", Peer: (peer + again) / 2, Goal: 0.8,
		Raw: map[string]float64{
			"MB": float64(there.Bytes) / 1e6, "measurements": float64(there.Measurements), "batches": float64(there.Batches), "stretches": float64(there.Stretches),
			"there, s": there.took.Seconds(), "back, s": back.took.Seconds(), "peer, first, MB/s": peer, "peer, second, MB/s": again,
		},
		Note: "from the owner's order until the avatar is at home: listed, fetched, every byte hashed, each frame's signature and receipt checked, stored with fsync, decided. Not in it: what follows, opening every batch once and deleting it at the source. The peer: the same number of bytes over TLS, SHA-256 at both ends, one fsync.",
	}
	f.Ratio = f.Value / f.Peer
	freeze := func(name string, m moved) Figure {
		return Figure{Row: 13, Name: "freeze, " + name, Value: m.frozen.Seconds(), Unit: "s", Goal: 2, AtMost: true, Raw: map[string]float64{"MB": float64(m.Bytes) / 1e6, "the whole move, s": m.took.Seconds()},
			Note: "from the release at the source until the avatar is at home at the target."}
	}
	return []Figure{f, freeze("a megabyte", first), freeze("the large one", there), freeze("the large one, back", back)}, nil
}

// history makes an avatar in arena of so many things, whose history has at least so
// many bytes.
func (r *moveRow) history(ctx context.Context, things int, size int64) (id carnet.AvatarID, err error) {
	view, err := policy.ParseView([]byte(plain.views()["arena"]))
	if err != nil {
		return id, err
	}
	devices := make([]device, things)
	for i := range devices {
		added, err := r.hub.client.AddThing(ctx, api.NewThing{Owner: "owner", Description: api.Description(plain.description())})
		if err != nil {
			return id, fmt.Errorf("add a thing: %w", err)
		}
		mapping := api.NewMapping{World: "arena", View: view}
		if i > 0 { // all of them are one avatar's
			mapping.Avatar = &id
		}
		m, err := r.mapTo(ctx, added.ID, mapping)
		if err != nil {
			return id, fmt.Errorf("map a thing: %w", err)
		}
		if id = m.Avatar; i == 0 {
			err = r.own(ctx, m)
		}
		if err != nil {
			return id, err
		}
		devices[i] = device{id: added.ID, password: added.Password}
	}
	l := &load{
		address: r.hub.config.Listen.MQTT, tls: r.hub.trust, devices: devices, window: 4, message: wide1000(time.Now()), from: make([]int64, things),
		measure: 300 * time.Millisecond,
	}
	for {
		p, err := l.run(ctx)
		if err != nil {
			return id, err
		}
		if err := r.settle(ctx, 3*time.Minute); err != nil {
			return id, err
		}
		had, err := r.arena.client.Avatar(ctx, id)
		if err != nil {
			return id, err
		}
		if had.Measurements == 0 {
			return id, fmt.Errorf("nothing of %d messages has come", p.sent)
		}
		// 12 bytes a measurement are less than what it takes.
		left := size - int64(had.Measurements)*12
		if left <= 0 {
			return id, nil
		}
		l.measure = time.Duration(min(10, float64(left)/12/1000/max(1, p.rate)) * float64(time.Second))
	}
}

// wide1000 makes messages of 1,000 measurements whose values and times need all their bits.
func wide1000(now time.Time) func([]byte, int64) []byte {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	var texts [64]string
	for i := range texts {
		var b strings.Builder
		for n := range 1000 {
			fmt.Fprintf(&b, `,"n":%q,"u":"V","t":%d.%06d,"v":%v},{`, plain.name(n%4), n/4, random.IntN(1_000_000), random.NormFloat64())
		}
		texts[i] = strings.ReplaceAll(strings.TrimSuffix(b.String(), ",{"), "{,", "{") + "]"
	}
	from := now.Add(-29 * 24 * time.Hour).Unix()
	return func(dst []byte, i int64) []byte {
		dst = append(dst, `[{"bt":`...)
		dst = strconv.AppendInt(dst, from+i*250, 10)
		return append(dst, texts[i%64]...)
	}
}

// move moves an avatar, and returns what that took and which avatar it is there.
func (r *moveRow) move(ctx context.Context, from, to *party, id carnet.AvatarID) (m moved, there carnet.AvatarID, err error) {
	x, ordered, err := r.ask(ctx, from, to, id)
	if err != nil {
		return m, there, err
	}
	begun := time.Now()
	if _, err := to.client.OrderCrossing(ctx, x.ID, ordered); err != nil {
		return m, there, fmt.Errorf("order a move: %w", err)
	}
	m, err = r.await(ctx, from, to, x.ID, begun)
	return m, x.Ours, err
}

// ask begins a move, by the calls of carnet avatar move, and has the owner sign it.
func (r *moveRow) ask(ctx context.Context, from, to *party, id carnet.AvatarID) (x api.Crossing, o identity.Ordered, err error) {
	traveller, err := from.client.Enrol(ctx, id)
	if err != nil {
		return x, o, fmt.Errorf("enrol an avatar: %w", err)
	}
	if x, err = to.client.BeginCrossing(ctx, api.NewMove{World: from.name, Traveller: traveller}); err != nil {
		return x, o, fmt.Errorf("begin a move: %w", err)
	}
	request, mandate, err := identity.ParseMoveRequest(x.Request)
	if err != nil {
		return x, o, err
	}
	if _, err := from.give(ctx, id, entity.To{Platform: to.name, DID: identity.DID(mandate.Subject)}, `{"properties": {"a": {}, "b": {}, "c": {}, "d": {}}}`, identity.ActionMove); err != nil {
		return x, o, err
	}
	o, err = r.keystore.Order(request, time.Now(), time.Hour)
	return x, o, err
}

// await waits until an avatar is at home, and its source has deleted it.
func (r *moveRow) await(ctx context.Context, from, to *party, id carnet.CrossingID, begun time.Time) (m moved, err error) {
	for end := begun.Add(10 * time.Minute); ; {
		at, err := to.client.Crossing(ctx, id)
		if err != nil {
			return m, err
		}
		if at.State == move.Dropped || at.State == move.Leaving || time.Now().After(end) {
			waits := ""
			if at.Progress != nil {
				waits = at.Progress.Waits
			}
			return m, fmt.Errorf("the move %s is %s: %s %s", id, at.State, at.Why, waits)
		}
		if at.State == move.Home && at.Departure != "" && at.Surveyed {
			left, err := from.client.Crossing(ctx, id)
			if err != nil {
				return m, err
			}
			home, frozen := since(at, move.Home), since(left, move.Frozen)
			return moved{*at.Amount, home.Sub(begun), home.Sub(frozen)}, nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return m, err
		}
	}
}

// since says when a move came into a state.
func since(x api.Crossing, s move.State) time.Time {
	i := slices.IndexFunc(x.Steps, func(step move.Step) bool { return step.State == s })
	if i < 0 {
		return time.Time{}
	}
	return x.Steps[i].Time
}

// copies has the peer copy so many bytes.
func (r *moveRow) copies(size int64) (rate float64, err error) {
	from := filepath.Join(r.dir, "peer")
	defer os.Remove(from)
	file, err := os.Create(from)
	if err == nil {
		_, err = io.CopyN(file, mathrand.NewChaCha8([32]byte{}), size)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return 0, err
	}
	certificate, err := selfSigned()
	if err != nil {
		return 0, err
	}
	return copied(&tls.Config{Certificates: []tls.Certificate{certificate}}, from, from+".copy")
}

func selfSigned() (c tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// together moves many small avatars at once.
func (r *moveRow) together(ctx context.Context, many int) ([]Figure, error) {
	arena := *r.system
	arena.worlds = arena.worlds[:1]
	devices, err := arena.add(ctx, many, plain.description(), plain.views())
	if err != nil {
		return nil, err
	}
	l := &load{
		address: r.hub.config.Listen.MQTT, tls: r.hub.trust, devices: devices, window: 1, message: plain.messages(time.Now(), 100), from: make([]int64, many),
		measure: 50 * time.Millisecond, // one message each, or a few
	}
	if _, err := l.run(ctx); err != nil {
		return nil, err
	}
	if err := r.settle(ctx, time.Minute); err != nil {
		return nil, err
	}
	type asked struct {
		id carnet.CrossingID
		identity.Ordered
	}
	all := make([]asked, many)
	for i, d := range devices {
		if err := r.own(ctx, d.mappings[0]); err != nil {
			return nil, err
		}
		x, o, err := r.ask(ctx, r.arena, r.citadel, d.mappings[0].Avatar)
		if err != nil {
			return nil, err
		}
		all[i] = asked{x.ID, o}
	}
	took, frozen := make([]time.Duration, many), make([]time.Duration, many)
	begun := time.Now()
	group, ordering := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, a := range all {
		group.Go(func() error {
			_, err := r.citadel.client.OrderCrossing(ordering, a.id, a.Ordered)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("order a move: %w", err)
	}
	for i, a := range all {
		m, err := r.await(ctx, r.arena, r.citadel, a.id, begun)
		if err != nil {
			return nil, err
		}
		took[i], frozen[i] = m.took, m.frozen
	}
	slices.Sort(took)
	slices.Sort(frozen)
	last := took[many-1]
	return []Figure{{
		Row: 13, Name: fmt.Sprintf("%d small avatars at once", many), Value: float64(many) / last.Seconds(), Unit: "moves/s",
		Raw: map[string]float64{
			"until the last is home, s": last.Seconds(), "of one, p50, s": quantile(took, 0.5).Seconds(), "freeze, p50, s": quantile(frozen, 0.5).Seconds(),
			"freeze, p99, s": quantile(frozen, 0.99).Seconds(), "freeze, longest, s": frozen[many-1].Seconds(),
		},
		Note: "some hundred measurements each, all ordered at once; from the first order until the last is at home.",
	}}, nil
}
