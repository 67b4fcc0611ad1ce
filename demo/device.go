package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/senml"
	"carnet/thing"
	"carnet/wire/file"
	"carnet/wire/mqtt/client"
	"carnet/wire/mqtt/packet"

	"golang.org/x/sync/errgroup"
)

// Device counts what the devices sent, as their MQTT clients do.
type Device struct {
	Published    int64 `json:"published"` // messages
	Acknowledged int64 `json:"acknowledged"`
	Refused      int64 `json:"refused"`
	Measurements int64 `json:"measurements"` // in acknowledged messages
}

// played is what the sensors did.
type played struct {
	device       Device
	files        int
	measurements int
	leftOut      []LeftOut
	duplicates   uint64 // measurements, as the agent counts
	begun, ended time.Time
	waits        []string // what hadn't been passed on at the end, and to whom
}

// pack is one message: the measurements of one moment.
type pack struct {
	at           int64
	measurements []carnet.Measurement
}

// packs puts the recordings one after the other on the time axis that the
// watch will claim, and cuts them into messages.
func packs(recordings []*file.Recording, o Options, begin time.Time) []pack {
	recordings = slices.Clone(recordings)
	recordings = slices.DeleteFunc(recordings, func(r *file.Recording) bool { return len(r.Measurements) == 0 })
	slices.SortStableFunc(recordings, func(p, q *file.Recording) int { return cmp.Compare(p.Start, q.Start) })
	var all []carnet.Measurement
	var last, moved int64
	for i, r := range recordings {
		if i > 0 && o.Times != "keep" && r.Start-moved-last > longGap {
			moved = r.Start - last - shortGap
		}
		for _, m := range r.Measurements {
			m.Time -= moved
			all = append(all, m)
			last = max(last, m.Time)
		}
	}
	slices.SortStableFunc(all, func(p, q carnet.Measurement) int { return cmp.Compare(p.Time, q.Time) })
	if o.For > 0 && o.Speed > 0 && len(all) > 0 {
		from := last - int64(float64(o.For)*o.Speed)
		all = slices.DeleteFunc(all, func(m carnet.Measurement) bool { return m.Time < from })
	}
	var ps []pack
	for _, m := range all {
		if n := len(ps); n == 0 || ps[n-1].at != m.Time {
			ps = append(ps, pack{at: m.Time})
		}
		p := &ps[len(ps)-1]
		p.measurements = append(p.measurements, m)
	}
	if o.Times == "keep" || len(ps) == 0 {
		return ps
	}
	end := begin.UnixNano()
	if o.Speed > 0 {
		end += int64(float64(last-ps[0].at) / o.Speed)
	}
	for i := range ps {
		ps[i].at += end - last
		for j := range ps[i].measurements {
			ps[i].measurements[j].Time = ps[i].at
		}
	}
	return ps
}

// Between recordings that lie further apart than longGap only shortGap is left,
// so that old ones still end now.
const (
	longGap  = int64(24 * time.Hour)
	shortGap = int64(time.Hour)
)

// play has the sensors send their recordings, then waits until everything they
// sent has reached the worlds and the ledger.
func (s *setup) play(running, playing context.Context, o Options) (*played, error) {
	p := &played{begun: time.Now()}
	for _, w := range s.sensors {
		d := &device{sensor: w, options: o, begun: p.begun, packs: packs(w.recordings, o, p.begun)}
		if s.tale != nil {
			d.hold, d.goOn = max(1, len(d.packs)/2), s.tale.goOn
		}
		d.done = make([]atomic.Bool, len(d.packs))
		s.devices = append(s.devices, d)
		p.files += len(w.recordings)
		p.leftOut = append(p.leftOut, leftOut(w.recordings)...)
		for _, r := range w.recordings {
			p.measurements += len(r.Measurements)
		}
	}
	var screen sync.WaitGroup
	watching, stopWatching := context.WithCancel(running)
	s.screen.begin(s, o)
	screen.Go(func() { s.screen.follow(watching, s) })
	defer screen.Wait()
	defer stopWatching()
	ending := sync.OnceFunc(func() {
		stopWatching()
		screen.Wait()
		again := ""
		if playing.Err() != nil {
			again = "; Ctrl-C again ends at once, and checks nothing"
		}
		s.screen.say("ending: what was sent is passed on, then what each world holds is checked%s", again)
	})
	defer context.AfterFunc(playing, ending)()
	var work errgroup.Group
	for _, d := range s.devices {
		work.Go(func() error { return d.send(playing) })
	}
	if s.tale != nil {
		work.Go(func() error { s.tale.tell(playing); return nil })
	}
	err := work.Wait()
	if err != nil {
		return nil, err
	}
	ended := time.Now()
	if o.Stay && playing.Err() == nil {
		s.screen.say("the recordings have ended; Ctrl-C ends the demo")
		<-playing.Done()
	}
	ending()
	p.device, p.ended = s.sent(), ended
	p.waits = s.settle(running)
	if s.tale != nil {
		s.examine(running)
	}
	p.duplicates, err = s.duplicates(running)
	return p, err
}

// duplicates asks the agent how many measurements came again.
func (s *setup) duplicates(ctx context.Context) (n uint64, err error) {
	for _, w := range s.sensors {
		info, err := s.party("hub").looks.Thing(ctx, w.id)
		if err != nil {
			return 0, fmt.Errorf("ask for the duplicates of the %s: %w", w.name, err)
		}
		n += info.Duplicates
	}
	return n, nil
}

// sent sums up what the devices count.
func (s *setup) sent() (all Device) {
	for _, d := range s.devices {
		c := d.counts()
		all.Published += c.Published
		all.Acknowledged += c.Acknowledged
		all.Refused += c.Refused
		all.Measurements += c.Measurements
	}
	return all
}

// total is how many messages the devices have to send.
func (s *setup) total() (n int) {
	for _, d := range s.devices {
		n += len(d.packs)
	}
	return n
}

// send publishes the messages, each at its time. A connection that breaks is
// made again, and what was not acknowledged is sent again, as a good device does.
func (d *device) send(ctx context.Context) error {
	for ctx.Err() == nil && !d.finished() {
		err := d.connection(ctx)
		if err == nil || ctx.Err() != nil {
			break
		}
		if refusal, ok := errors.AsType[*client.Refusal](err); ok && refusal.Packet == packet.CONNACK {
			return err
		}
		d.options.Log.Warn("a device's connection ended; it connects again", "device", d.sensor.name, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// device is a sensor's side of its connections.
type device struct {
	sensor  *sensor
	options Options
	begun   time.Time
	packs   []pack
	done    []atomic.Bool // acknowledged or refused
	settled atomic.Int64
	next    int // everything before was published once
	// The message before which it waits until goOn is closed; goOn is nil where it doesn't.
	hold int
	goOn <-chan struct{}

	published, acknowledged, refused, measurements atomic.Int64
}

func (d *device) finished() bool { return int(d.settled.Load()) == len(d.packs) }

func (d *device) counts() Device {
	return Device{
		Published: d.published.Load(), Acknowledged: d.acknowledged.Load(), Refused: d.refused.Load(), Measurements: d.measurements.Load(),
	}
}

func (d *device) acked(a client.Ack) {
	if d.done[a.Tag].Swap(true) {
		return
	}
	if a.Reason >= 0x80 {
		d.refused.Add(1)
	} else {
		d.acknowledged.Add(1)
		d.measurements.Add(int64(len(d.packs[a.Tag].measurements)))
	}
	d.settled.Add(1)
}

// connection publishes over one connection until everything is acknowledged.
func (d *device) connection(ctx context.Context) error {
	config, err := d.sensor.tls()
	if err != nil {
		return err
	}
	c, err := client.Dial(ctx, client.Config{
		Address: d.sensor.address, TLS: config, Version: packet.V5, User: string(d.sensor.id),
		Password: []byte(d.sensor.password), InFlight: 64, Acknowledged: d.acked,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range d.next {
		if !d.done[i].Load() {
			if err := d.publish(c, i); err != nil {
				return err
			}
		}
	}
	for ; d.next < len(d.packs); d.next++ {
		if err := d.wait(ctx, c); err != nil {
			return err
		}
		d.published.Add(1)
		if err := d.publish(c, d.next); err != nil {
			d.next++
			return err
		}
	}
	return c.Drain(ctx)
}

// wait waits for the time of the next message.
func (d *device) wait(ctx context.Context, c *client.Client) error {
	if d.goOn != nil && d.next == d.hold {
		if err := d.held(ctx, c); err != nil {
			return err
		}
	}
	if d.options.Speed == 0 || d.next == 0 {
		return ctx.Err()
	}
	due := time.Duration(float64(d.packs[d.next].at-d.packs[0].at) / d.options.Speed)
	wait := time.Until(d.begun.Add(due))
	if wait <= 0 {
		return ctx.Err()
	}
	if err := c.Flush(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.Done():
		return c.Err()
	case <-time.After(wait):
		return nil
	}
}

// held waits until the story has come to where the second half is told.
func (d *device) held(ctx context.Context, c *client.Client) error {
	if err := c.Flush(); err != nil {
		return err
	}
	select {
	case <-d.goOn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.Done():
		return c.Err()
	}
}

func (d *device) publish(c *client.Client, i int) error {
	format := senml.JSON
	if d.options.Encoding == "cbor" {
		format = senml.CBOR
	}
	payload, err := senml.Append(nil, format, d.packs[i].measurements)
	if err != nil {
		return err
	}
	return c.Publish(client.Message{
		Topic: thing.MeasurementsTopic(d.sensor.id), ContentType: format.ContentType(), Payload: payload, QoS: 1, Tag: uint64(i),
	})
}

// ParseSpeed reads --speed: recorded seconds per second, 0 for max.
func ParseSpeed(s string) (float64, error) {
	if s == "max" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v > 0) || math.IsInf(v, 0) {
		return 0, carnet.Errorf(carnet.Malformed, "speed %q: want a number above 0, or max", s)
	}
	return v, nil
}
