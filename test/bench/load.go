package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carnet/thing"
	"carnet/wire/mqtt/client"
	"carnet/wire/mqtt/packet"

	"golang.org/x/sync/errgroup"
)

// load is a load over MQTT: a connection for each device, window messages in
// flight on each, the next one sent when one is acknowledged.
type load struct {
	address string
	tls     *tls.Config
	devices []device
	window  int
	// message appends the payload of a device's n-th message.
	message func(dst []byte, n int64) []byte
	// interval is the least time between two messages of a device; 0: none. The
	// devices begin one after the other in the course of it.
	interval time.Duration
	warm     time.Duration // not counted
	measure  time.Duration
	// from is the number of each device's first message, and is moved on, so that
	// a load that goes on with the same devices has times that increase.
	from  []int64
	begin func() // when every connection stands, before the first message; nil: nothing
}

// pace is what a load reached.
type pace struct {
	rate       float64 // acknowledged messages a second while measured
	p50, p99   time.Duration
	sent       int64 // all messages, the warming up's too, all acknowledged
	begun      time.Time
	generators time.Duration // CPU time of this process, while measured
	measured   time.Duration
}

// stages of a load.
const (
	warming int32 = iota
	measuring
	over
)

// publisher is one connection.
type publisher struct {
	l      *load
	stage  *atomic.Int32
	client *client.Client

	mu      sync.Mutex // of the rest; begin fills the window while acknowledgements come
	message client.Message
	n       int64 // of its next message
	due     time.Time
	sent    int64
	counted int64
	took    []uint32 // microseconds
}

// run connects, publishes for the time wanted, and waits for every
// acknowledgement.
func (l *load) run(ctx context.Context) (p pace, err error) {
	var stage atomic.Int32
	publishers := make([]*publisher, len(l.devices))
	group, dialing := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for i := range publishers {
		group.Go(func() (err error) {
			publishers[i], err = l.dial(dialing, i, &stage)
			return err
		})
	}
	defer func() {
		for _, c := range publishers {
			if c != nil {
				c.client.Close()
			}
		}
	}()
	if err := group.Wait(); err != nil {
		return p, err
	}
	if l.begin != nil {
		l.begin()
	}
	p.begun = time.Now()
	var begin sync.WaitGroup
	for i, c := range publishers {
		c.due = p.begun.Add(l.interval * time.Duration(i) / time.Duration(len(publishers)))
		begin.Go(func() { c.begin() })
	}
	begin.Wait()
	if err := sleep(ctx, l.warm); err != nil {
		return p, err
	}
	stage.Store(measuring)
	begun, cpu := time.Now(), ownCPU()
	if err := sleep(ctx, l.measure); err != nil {
		return p, err
	}
	stage.Store(over)
	p.measured, p.generators = time.Since(begun), ownCPU()-cpu
	return p, l.gather(ctx, publishers, &p)
}

func (l *load) dial(ctx context.Context, i int, stage *atomic.Int32) (*publisher, error) {
	d := l.devices[i]
	c := &publisher{l: l, stage: stage, n: l.from[i], message: client.Message{Topic: thing.MeasurementsTopic(d.id), QoS: 1}}
	var err error
	c.client, err = client.Dial(ctx, client.Config{
		Address: l.address, TLS: l.tls, Version: packet.V311, ClientID: string(d.id), User: string(d.id), Password: []byte(d.password),
		InFlight: l.window, KeepAlive: time.Hour, Acknowledged: c.acknowledged,
	})
	return c, err
}

// begin fills the window.
func (c *publisher) begin() {
	c.mu.Lock()
	for range c.l.window {
		c.next()
	}
	c.mu.Unlock()
	c.client.Flush() // a broken connection shows when it is drained
}

// next publishes the next message when it is due. It needs mu.
func (c *publisher) next() {
	wait := time.Until(c.due)
	if c.l.interval == 0 || wait <= 0 {
		c.publish()
		return
	}
	time.AfterFunc(wait, func() {
		c.mu.Lock()
		if c.stage.Load() != over {
			c.publish()
		}
		c.mu.Unlock()
		c.client.Flush()
	})
}

// publish sends the next message. It needs mu.
func (c *publisher) publish() {
	c.message.Payload = c.l.message(c.message.Payload[:0], c.n)
	c.message.Tag = uint64(time.Now().UnixMicro())
	c.due = c.due.Add(c.l.interval)
	if c.client.Publish(c.message) == nil {
		c.n++
		c.sent++
	}
}

// acknowledged runs on the connection's own goroutine.
func (c *publisher) acknowledged(a client.Ack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.stage.Load() {
	case measuring:
		c.counted++
		c.took = append(c.took, uint32(uint64(time.Now().UnixMicro())-a.Tag))
	case over:
		return
	}
	c.next()
}

// gather waits for what is in flight and adds everything up.
func (l *load) gather(ctx context.Context, publishers []*publisher, p *pace) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var took []uint32
	var counted int64
	for i, c := range publishers {
		// Whoever still meant to publish has when the mutex is free.
		c.mu.Lock()
		l.from[i] = c.n
		sent := c.sent
		counted += c.counted
		took = append(took, c.took...)
		c.mu.Unlock()
		if err := c.client.Drain(ctx); err != nil {
			return fmt.Errorf("a connection broke: %w", err)
		}
		if refused := sent - c.client.Stats().Acknowledged; refused != 0 {
			return fmt.Errorf("%d messages were not accepted", refused)
		}
		p.sent += sent
	}
	slices.Sort(took)
	p.rate = float64(counted) / p.measured.Seconds()
	p.p50 = time.Duration(quantile(took, 0.5)) * time.Microsecond
	p.p99 = time.Duration(quantile(took, 0.99)) * time.Microsecond
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
