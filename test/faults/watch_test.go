package faults_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"carnet"
	"carnet/senml"
	"carnet/thing"
	"carnet/wire/mqtt/client"
	"carnet/wire/mqtt/packet"
)

// watch is a device: what it sent, and what it knows to be acknowledged.
type watch struct {
	town     *town
	id       carnet.ThingID
	password string
	mappings map[carnet.PartyID]thing.MappingInfo
	prompt   bool // leaves out what may wait for 10 s

	mu       sync.Mutex
	steps    bool                   // whether it counts them
	packs    [][]carnet.Measurement // everything it ever published
	acked    []bool
	refusals []string
	resent   int
}

// base is the time of a watch's first measurement.
var base = time.Now().Add(-24 * time.Hour).Truncate(time.Second).UnixNano()

// measured is the i-th message: four a second of measured time, so that rate
// limits have something to limit.
func measured(i int, prompt bool) []carnet.Measurement {
	at := base + int64(i)*int64(250*time.Millisecond)
	ms := []carnet.Measurement{
		{Name: "heart_rate", Unit: "beat/min", Time: at, Value: carnet.Float(float64(60 + i*7%120))},
		{Name: "speed", Unit: "m/s", Time: at, Value: carnet.Float(float64(i%40) / 4)},
		{Name: "position/lat", Unit: "lat", Time: at, Value: carnet.Float(52 + float64(i%1000)/10000)},
		{Name: "position/lon", Unit: "lon", Time: at, Value: carnet.Float(13 + float64(i%999)/10000)},
	}
	if i%20 == 0 && !prompt {
		ms = append(ms, carnet.Measurement{Name: "stress", Time: at, Value: carnet.Float(float64(i % 100))})
	}
	return ms
}

// next makes another message and returns its number.
func (w *watch) next() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	ms := measured(len(w.packs), w.prompt)
	if w.steps {
		ms = append(ms, carnet.Measurement{Name: "steps", Unit: "count", Time: ms[0].Time, Value: carnet.Float(float64(len(w.packs)))})
	}
	w.packs = append(w.packs, ms)
	w.acked = append(w.acked, false)
	return len(w.packs) - 1
}

// walks has the watch count steps from now on.
func (w *watch) walks() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = true
}

func (w *watch) count() (published, acknowledged int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, yes := range w.acked {
		if yes {
			acknowledged++
		}
	}
	return len(w.packs), acknowledged
}

func (w *watch) unacknowledged() (numbers []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, yes := range w.acked {
		if !yes {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

func (w *watch) hear(a client.Ack) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.Reason.Failed() {
		w.refusals = append(w.refusals, fmt.Sprintf("%s: %s", a.Reason, a.Text))
		return
	}
	w.acked[a.Tag] = true
}

// dial connects as the watch. acknowledged may be nil.
func (w *watch) dial(ctx context.Context, acknowledged func(client.Ack)) (*client.Client, error) {
	return client.Dial(ctx, client.Config{
		Address: w.town.hub.config.Listen.MQTT, TLS: w.town.hub.tls(), Version: packet.V5, User: string(w.id),
		Password: []byte(w.password), InFlight: 64, Acknowledged: acknowledged,
	})
}

func (w *watch) publish(c *client.Client, i int) error {
	w.mu.Lock()
	pack := w.packs[i]
	w.mu.Unlock()
	payload, err := senml.Append(nil, senml.CBOR, pack)
	if err != nil {
		return err
	}
	return c.Publish(client.Message{
		Topic: thing.MeasurementsTopic(w.id), ContentType: senml.CBOR.ContentType(), Payload: payload, QoS: 1, Tag: uint64(i),
	})
}

// run publishes a message every now and then until ctx ends, connecting again
// and publishing again what wasn't acknowledged, as a good device does. Then it
// goes on until everything is acknowledged, at most a minute.
func (w *watch) run(ctx context.Context, every time.Duration) error {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(time.Minute, cancel) })()
	for {
		err := w.connection(ctx, last, every)
		if err == nil {
			return nil
		}
		if refusal, ok := errors.AsType[*client.Refusal](err); ok && refusal.Packet == packet.CONNACK &&
			refusal.Reason != packet.ServerUnavailable && refusal.Reason != packet.QuotaExceeded { // which pass
			return err
		}
		select {
		case <-last.Done():
			return fmt.Errorf("not everything is acknowledged after a minute: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// connection publishes over one connection.
func (w *watch) connection(ctx, last context.Context, every time.Duration) error {
	c, err := w.dial(last, w.hear)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, i := range w.unacknowledged() {
		w.resent++
		if err := w.publish(c, i); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		if err := w.publish(c, w.next()); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
		select {
		case <-c.Done():
			return c.Err()
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
	return c.Drain(last)
}

// send publishes n messages and waits until they are acknowledged.
func (w *watch) send(n int) {
	w.town.t.Helper()
	c, err := w.dial(w.town.t.Context(), w.hear)
	if err != nil {
		w.town.t.Fatal(err)
	}
	defer c.Close()
	for _, i := range w.unacknowledged() {
		if err := w.publish(c, i); err != nil {
			w.town.t.Fatal(err)
		}
	}
	for range n {
		if err := w.publish(c, w.next()); err != nil {
			w.town.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(w.town.t.Context(), time.Minute)
	defer cancel()
	if err := c.Drain(ctx); err != nil {
		w.town.t.Fatalf("not everything is acknowledged: %v", err)
	}
}
