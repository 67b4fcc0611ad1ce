package link

import (
	"context"
	"fmt"
	"sync"
	"time"

	"carnet"
)

// outgoing is one registered connection of a Sender.
type outgoing struct {
	sender *Sender
	conn   *conn
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when the connection has failed
	slots  chan struct{} // one for each frame in flight
	places chan struct{} // one for each call or trace without an answer

	asking  sync.Mutex // keeps calls and traces in the order of their ids
	mu      sync.Mutex
	sent    uint64                 // owned by mu: greatest number sent
	acked   uint64                 // owned by mu
	asked   uint64                 // owned by mu: greatest id of a call or trace
	answers uint64                 // owned by mu: greatest id answered; answers come in order
	waiting map[uint64]chan answer // owned by mu
	failed  error                  // owned by mu: why ended is closed

	noticing  sync.Mutex // held while the source is told; before mu
	resumed   bool       // owned by noticing
	early     []notify   // owned by noticing: what came before that
	earlySize int        // of their bodies
}

// maxCalls is how many calls and traces of a connection may be without an answer,
// those that nobody waits for any more included.
const maxCalls = 32

// answer is what a call or a trace brought.
type answer struct {
	err      error
	body     []byte
	kept     bool
	position Position
}

func newOutgoing(s *Sender, c *conn, w welcome, cancel context.CancelCauseFunc) *outgoing {
	return &outgoing{
		sender: s, conn: c, cancel: cancel,
		ended:   make(chan struct{}),
		slots:   make(chan struct{}, min(s.Window, w.Window)),
		places:  make(chan struct{}, maxCalls),
		sent:    w.Number,
		acked:   w.Number,
		waiting: make(map[uint64]chan answer),
	}
}

// fail ends the connection with its first error.
func (o *outgoing) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed != nil {
		return
	}
	o.failed = err
	close(o.ended)
	o.cancel(err)
	o.conn.sock.Close()
}

func (o *outgoing) gone() error {
	return carnet.Errorf(carnet.Unavailable, "the connection to peer %s ended: %v", o.sender.Peer.Party, o.cause())
}

func (o *outgoing) cause() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// exchange runs the connection: this goroutine drives the source, a second one
// reads, a third one keeps an idle connection alive.
func (o *outgoing) exchange(ctx context.Context, w welcome) error {
	stop := context.AfterFunc(ctx, func() { o.fail(context.Cause(ctx)) })
	defer stop()
	var others sync.WaitGroup
	others.Go(func() { o.fail(o.receive()) })
	others.Go(func() { o.keepAlive() })
	o.fail(o.pump(ctx, w))
	others.Wait()
	return o.cause()
}

// pump moves the source to what the receiver has, then sends its frames.
func (o *outgoing) pump(ctx context.Context, w welcome) error {
	source := o.sender.Source
	late := time.AfterFunc(o.sender.ResumeTimeout, func() {
		o.fail(carnet.Errorf(carnet.Unavailable, "peer %s made resuming at frame %d take more than %s", o.sender.Peer.Party, w.Number, o.sender.ResumeTimeout))
	})
	defer late.Stop()
	if err := source.Resume(ctx, Resume{
		Incarnation:  w.Incarnation,
		Last:         Position{w.Number, w.Hash, w.Covers},
		MaxFrame:     w.MaxFrame,
		Announcement: w.Announcement,
	}); err != nil {
		return sourceError{fmt.Errorf("resume source at frame %d: %w", w.Number, err)}
	}
	late.Stop()
	o.noticeEarly()
	for want := w.Number + 1; ; want++ {
		select {
		case o.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		f, err := source.Next(ctx)
		if err != nil {
			return sourceError{fmt.Errorf("get frame %d from source: %w", want, err)}
		}
		if f.Number != want || len(f.Bytes) > w.MaxFrame {
			return sourceError{fmt.Errorf("source gave frame %d of %d bytes, want frame %d of at most %d", f.Number, len(f.Bytes), want, w.MaxFrame)}
		}
		o.mu.Lock()
		o.sent = f.Number
		o.mu.Unlock()
		if err := o.conn.writeFrame(f.Bytes); err != nil {
			return err
		}
	}
}

// keepAlive pings, so that both sides notice a connection that died silently.
func (o *outgoing) keepAlive() {
	tick := time.NewTicker(o.sender.IdleTimeout / 3)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-o.ended:
			return
		case <-tick.C:
		}
		if err := o.conn.write(kindPing, &ping{N: n}); err != nil {
			o.fail(err)
			return
		}
	}
}

// receive handles what the receiver says until it fails.
func (o *outgoing) receive() error {
	for {
		k, body, err := o.conn.read()
		if err != nil {
			return err
		}
		if err := o.handle(k, body); err != nil {
			return err
		}
	}
}

func (o *outgoing) handle(k kind, body []byte) error {
	codec := o.conn.codec
	switch k {
	case kindAck:
		var m ack
		if err := codec.decode(k, body, &m); err != nil {
			return err
		}
		return o.acknowledge(m.Number)
	case kindRefuse:
		var m refuse
		if err := codec.decode(k, body, &m); err != nil {
			return err
		}
		return fmt.Errorf("peer %s refused frame %d: %w", o.sender.Peer.Party, m.Number, heard(m.Code, m.Reason, m.Fix))
	case kindReply:
		var m reply
		if err := codec.decode(k, body, &m); err != nil {
			return err
		}
		a := answer{body: m.Body}
		if m.Code != "" {
			a = answer{err: heard(m.Code, m.Reason, m.Fix)}
		}
		return o.answered(m.ID, a)
	case kindTraced:
		var m traced
		if err := codec.decode(k, body, &m); err != nil {
			return err
		}
		return o.answered(m.ID, answer{kept: m.Kept, position: Position{m.Number, m.Hash, m.Covers}})
	case kindNotify:
		var m notify
		if err := codec.decode(k, body, &m); err != nil {
			return err
		}
		return o.notice(m)
	case kindPong:
		return codec.decode(k, body, new(ping))
	}
	return carnet.Errorf(carnet.Malformed, "peer sent a message of type %d out of place", k)
}

// What a receiver may tell a source before that is resumed.
const (
	maxEarly     = 1 << 16
	maxEarlySize = 1 << 20 // bytes
)

// notice tells the source what the receiver said, once it is resumed.
func (o *outgoing) notice(m notify) error {
	o.noticing.Lock()
	defer o.noticing.Unlock()
	switch {
	case o.resumed:
		o.sender.Source.Notice(m.Kind, m.Body)
	case len(o.early) >= maxEarly || o.earlySize+len(m.Body) > maxEarlySize:
		return carnet.Errorf(carnet.TooLarge, "peer told more than %d things or %d bytes at the beginning of the connection", maxEarly, maxEarlySize)
	default:
		o.early, o.earlySize = append(o.early, m), o.earlySize+len(m.Body)
	}
	return nil
}

// noticeEarly tells the source what came before it was resumed.
func (o *outgoing) noticeEarly() {
	o.noticing.Lock()
	defer o.noticing.Unlock()
	o.resumed = true
	for _, m := range o.early {
		o.sender.Source.Notice(m.Kind, m.Body)
	}
	o.early = nil
}

func (o *outgoing) acknowledge(number uint64) error {
	o.mu.Lock()
	if number <= o.acked || number > o.sent {
		defer o.mu.Unlock()
		return carnet.Errorf(carnet.Malformed, "peer acknowledged frame %d; %d is sent and %d acknowledged", number, o.sent, o.acked)
	}
	free := number - o.acked
	o.acked = number
	o.mu.Unlock()

	o.sender.mu.Lock()
	o.sender.status.Acked = number
	o.sender.mu.Unlock()
	o.sender.Source.Acked(number)
	for range free {
		<-o.slots
	}
	return nil
}

func (o *outgoing) ask(ctx context.Context, message func(id uint64) (kind, any)) (answer, error) {
	select {
	case o.places <- struct{}{}:
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-o.ended:
		return answer{}, o.gone()
	}
	ch := make(chan answer, 1)
	id, err := o.say(ch, message)
	defer func() {
		o.mu.Lock()
		delete(o.waiting, id)
		o.mu.Unlock()
	}()
	if err != nil {
		o.fail(err)
		return answer{}, o.gone()
	}
	select {
	case a := <-ch:
		return a, a.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-o.ended:
		return answer{}, o.gone()
	}
}

// say writes a call or trace under the next id, in the order of ids.
func (o *outgoing) say(ch chan answer, message func(id uint64) (kind, any)) (id uint64, err error) {
	o.asking.Lock()
	defer o.asking.Unlock()
	o.mu.Lock()
	o.asked++
	id = o.asked
	o.waiting[id] = ch
	o.mu.Unlock()
	k, m := message(id)
	return id, o.conn.write(k, m)
}

// answered hands an answer to who waits for it; who gave up waiting misses it.
func (o *outgoing) answered(id uint64, a answer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if id != o.answers+1 || id > o.asked {
		return carnet.Errorf(carnet.Malformed, "peer answered call %d; %d are answered of %d", id, o.answers, o.asked)
	}
	o.answers = id
	<-o.places
	if ch, ok := o.waiting[id]; ok {
		ch <- a
	}
	return nil
}
