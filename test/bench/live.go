package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/thing"
	mqtt "carnet/wire/mqtt/client"

	"golang.org/x/sync/errgroup"
)

// live is row 6: 50 things send 100 measurements a second each, whose time is
// the moment of sending, and a subscriber of each avatar compares it with its
// clock when it has the event.
func live(ctx context.Context, b *bench) (figures []Figure, err error) {
	const things, rate = 50, 5000
	length := 30 * time.Second
	if b.short {
		length = 8 * time.Second
	}
	s, err := b.start(ctx, "row6", "arena")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	devices, err := s.add(ctx, things, plain.description(), plain.views())
	if err != nil {
		return nil, err
	}
	w := &watchers{from: time.Now().Add(time.Hour).UnixNano()}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var group errgroup.Group
	for _, d := range devices {
		group.Go(func() error { return w.watch(watching, s.worlds[0].client, d.mappings[0].Avatar) })
	}
	before, own, begun := s.used(), ownCPU(), time.Now()
	// The first two seconds make keys, open subscriptions and tell the hub of them.
	atomic.StoreInt64(&w.from, begun.Add(2*time.Second).UnixNano())
	sending := new(errgroup.Group)
	for i, d := range devices {
		sending.Go(func() error {
			_, err := s.tick(ctx, d, i, things, rate/things, begun, 2*time.Second+length)
			return err
		})
	}
	if err := sending.Wait(); err != nil {
		return nil, err
	}
	want := int64(rate * length.Seconds())
	for end := time.Now().Add(10 * time.Second); w.count() < want && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	used := s.used()
	stop()
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(w.took)
	ms := func(q float64) float64 { return float64(quantile(w.took, q).Microseconds()) / 1000 }
	raw := map[string]float64{"p50 ms": ms(0.5), "p90 ms": ms(0.9), "p99 ms": ms(0.99), "max ms": ms(1), "measurements": float64(len(w.took)),
		"of": float64(want), "subscribers": things, "CPU of the load, s": (ownCPU() - own).Seconds()}
	for name := range used {
		raw["CPU of "+string(name)+", s"] = (used[name] - before[name]).Seconds()
	}
	// A measurement right at the beginning of the time measured may be in or out.
	if len(w.took) < int(want)-things {
		return nil, fmt.Errorf("the subscribers got %d measurements of %d", len(w.took), want)
	}
	note := fmt.Sprintf("%d/s of %d things over MQTT with TLS, linger 0; a WebSocket subscriber of each avatar; devices, parties and subscribers share the machine.", rate, things)
	return []Figure{
		{Row: 6, Name: "device to subscriber, p50", Value: ms(0.5), Unit: "ms", Goal: 5, AtMost: true, Raw: raw, Note: note},
		{Row: 6, Name: "device to subscriber, p99", Value: ms(0.99), Unit: "ms", Goal: 15, AtMost: true},
	}, nil
}

// watchers gather how long measurements took.
type watchers struct {
	from  int64         // measured before: not timed; atomic
	begun chan struct{} // told of each subscription that has begun; nil: nobody waits for it

	mu    sync.Mutex
	took  []time.Duration
	all   int // measurements
	again int // that were not newer than the one before
}

// received is how many measurements came.
func (w *watchers) received() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}

func (w *watchers) count() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(len(w.took))
}

func (w *watchers) watch(ctx context.Context, c *client.Client, id carnet.AvatarID) error {
	newest := int64(-1)
	for e, err := range c.Watch(ctx, id, nil) {
		now := time.Now().UnixNano()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if newest < 0 && w.begun != nil {
			w.begun <- struct{}{} // the first event says where the subscription begins
		}
		w.mu.Lock()
		w.all += len(e.Measurements)
		newest = max(newest, 0)
		for i := range e.Measurements {
			at := e.Measurements[i].Time
			if at >= atomic.LoadInt64(&w.from) {
				w.took = append(w.took, time.Duration(now-at))
			}
			if at <= newest {
				w.again++
			}
			newest = max(newest, at)
		}
		w.mu.Unlock()
	}
	return nil
}

// tick sends a measurement rate times a second, at moments of the thing's own, and
// returns how many were acknowledged.
func (s *system) tick(ctx context.Context, d device, i, of, rate int, begun time.Time, length time.Duration) (n int, err error) {
	c, err := mqtt.Dial(ctx, mqtt.Config{
		Address: s.hub.config.Listen.MQTT, TLS: s.hub.trust, ClientID: string(d.id), User: string(d.id), Password: []byte(d.password), InFlight: 1024,
	})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	step := time.Second / time.Duration(rate)
	begun = begun.Add(step * time.Duration(i) / time.Duration(of))
	m := mqtt.Message{Topic: thing.MeasurementsTopic(d.id), QoS: 1}
	for at := begun; at.Before(begun.Add(length)); at = at.Add(step) {
		if err := sleep(ctx, time.Until(at)); err != nil {
			return n, err
		}
		now := time.Now()
		m.Payload = fmt.Appendf(m.Payload[:0], `[{"n":"a","u":"V","v":%d.5,"t":%d.%09d}]`, now.Nanosecond()%1000, now.Unix(), now.Nanosecond())
		if err := errors.Join(c.Publish(m), c.Flush()); err != nil {
			return n, err
		}
		n++
	}
	if err := c.Drain(ctx); err != nil {
		return n, err
	}
	if refused := int64(n) - c.Stats().Acknowledged; refused != 0 {
		return n, fmt.Errorf("%d messages were not accepted", refused)
	}
	return n, nil
}
