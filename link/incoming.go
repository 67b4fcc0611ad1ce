package link

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
)

// incoming is one registered connection at a Server. Three goroutines run it:
// the reader parses messages and starts the verification of frames, the
// committer takes frames and calls to the Sink in the order they came, the
// writer says what is to be said.
type incoming struct {
	server *Server
	conn   *conn
	peer   Peer
	state  State // as registered
	out    *outbox
	items  chan *item
	ended  chan struct{} // closed when the connection has failed
	left   chan struct{} // closed when the Sink isn't used by it any more
	silent chan struct{} // closed when the reader has ended
	broke  error         // why reading ended; read once items is closed

	welcomed atomic.Bool // what it is told comes after the welcome

	frames, calls atomic.Int32 // that came and have no answer yet; traces are calls

	mu     sync.Mutex
	failed error // owned by mu: why ended is closed
}

// item is a message on its way to the Sink.
type item struct {
	kind    kind
	call    call
	trace   trace
	arrival *Arrival      // of a frame
	ready   chan struct{} // of a frame: closed when it is verified
	err     error         // of a frame: what verification said; read once ready
}

const (
	maxRun      = 1 << 20     // bytes after which no further frame goes into one Accept: a Sink may have senders take turns by what they bring at once
	lingerLimit = time.Second // from the failure of a connection to its end, so that the sender can read why
)

func newIncoming(s *Server, c *conn, peer Peer) *incoming {
	return &incoming{
		server: s, conn: c, peer: peer,
		out:   newOutbox(s.codec),
		items: make(chan *item, s.Window+maxCalls),
		ended: make(chan struct{}),
		left:  make(chan struct{}), silent: make(chan struct{}),
	}
}

func (in *incoming) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.failed == nil {
		in.failed = err
		close(in.ended)
		time.AfterFunc(lingerLimit, func() { in.conn.sock.Close() })
	}
}

func (in *incoming) cause() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.failed
}

// exchange runs the connection until it fails and has left the Sink.
func (in *incoming) exchange(ctx context.Context, w welcome) error {
	stop := context.AfterFunc(ctx, func() { in.fail(ctx.Err()) })
	defer stop()
	if err := in.out.message(kindWelcome, &w); err != nil {
		in.fail(err)
	}
	in.welcomed.Store(true)
	in.server.Sink.Welcomed(in.peer.Party)
	var both sync.WaitGroup
	both.Go(func() { in.write() })
	both.Go(func() { in.receive() })
	// Only the end of the Server interrupts the Sink: if the connection breaks, what
	// is with the Sink is finished before the sender may register anew.
	in.commit(ctx)
	in.server.retire(in)
	in.out.close()
	both.Wait()
	return in.cause()
}

// write empties the outbox. After the last message it gives the sender time to
// read it, then closes.
func (in *incoming) write() {
	defer in.conn.sock.Close()
	for {
		data, more := in.out.take()
		if !more {
			break
		}
		if err := in.conn.writeRaw(data); err != nil {
			in.fail(err)
			return
		}
	}
	in.conn.tls.CloseWrite()
	<-in.silent
}

// receive reads until the connection fails. What came before that still goes to
// the Sink. Then it reads on without looking: closing a socket that has unread
// bytes would take the refusal away from the sender.
func (in *incoming) receive() {
	defer close(in.silent)
	in.broke = in.read()
	close(in.items)
	io.Copy(io.Discard, in.conn.sock)
}

// read parses messages until the connection fails.
func (in *incoming) read() error {
	for {
		k, n, err := readHeader(in.conn.tls, in.server.MaxFrame)
		if err != nil {
			return err
		}
		var it *item
		switch k {
		case kindFrame:
			it, err = in.readFrame(n)
		case kindCall, kindTrace, kindPing:
			it, err = in.readControl(k, n)
		default:
			return carnet.Errorf(carnet.Malformed, "sender sent a message of type %d out of place", k)
		}
		if err != nil {
			return err
		}
		if it == nil {
			continue
		}
		select {
		case <-in.ended:
			return in.cause()
		case in.items <- it: // there is room, since each kind is counted
		}
	}
}

// readFrame reads a frame into memory of its own and starts its verification. What is
// beyond the window is refused before any memory is taken for it.
func (in *incoming) readFrame(n int) (*item, error) {
	if int(in.frames.Add(1)) > in.server.Window {
		return nil, carnet.Errorf(carnet.TooLarge, "sender sent more than its window of %d frames", in.server.Window)
	}
	a := in.server.arrivals.Get().(*Arrival)
	a.home = &in.server.arrivals
	if cap(a.Bytes) < n {
		a.Bytes = make([]byte, n, n+n/4)
	}
	a.Bytes = a.Bytes[:n]
	if _, err := io.ReadFull(in.conn.tls, a.Bytes); err != nil {
		return nil, fmt.Errorf("read frame from sender: %w", err)
	}
	it := &item{kind: kindFrame, arrival: a, ready: make(chan struct{})}
	go func() {
		in.server.checking <- struct{}{}
		it.err = in.check(a)
		<-in.server.checking
		close(it.ready)
	}()
	return it, nil
}

func (in *incoming) check(a *Arrival) error {
	if err := a.Frame.Parse(a.Bytes); err != nil {
		return err
	}
	if err := a.Frame.Verify(in.peer.Key, in.server.Self); err != nil {
		return err
	}
	a.Hash = a.Frame.Hash()
	return nil
}

func (in *incoming) readControl(k kind, n int) (*item, error) {
	body, err := in.conn.readBody(n)
	if err != nil {
		return nil, err
	}
	it := &item{kind: k}
	if k != kindPing && in.calls.Add(1) > maxCalls {
		return nil, carnet.Errorf(carnet.TooLarge, "sender sent more than %d calls and traces without waiting for an answer", maxCalls)
	}
	switch k {
	case kindCall:
		if err := in.conn.codec.decode(k, body, &it.call); err != nil {
			return nil, err
		}
		if len(it.call.Kind) > maxKind {
			return nil, carnet.Errorf(carnet.Malformed, "the kind of a call has %d bytes, the limit is %d", len(it.call.Kind), maxKind)
		}
	case kindTrace:
		if err := in.conn.codec.decode(k, body, &it.trace); err != nil {
			return nil, err
		}
	case kindPing:
		var m ping
		if err := in.conn.codec.decode(k, body, &m); err != nil {
			return nil, err
		}
		return nil, in.out.message(kindPong, &m)
	}
	return it, nil
}

// commit takes items to the Sink in order until the connection fails.
func (in *incoming) commit(ctx context.Context) {
	var held *item // taken off the queue and not yet handled
	for {
		it := held
		held = nil
		if it == nil {
			var ok bool
			select {
			case it, ok = <-in.items:
				if !ok {
					in.fail(in.broke)
					return
				}
			case <-in.ended:
				return
			}
		}
		var err error
		switch it.kind {
		case kindFrame:
			held, err = in.accept(ctx, it)
		case kindCall:
			err = in.answer(ctx, &it.call)
		case kindTrace:
			err = in.traced(ctx, &it.trace)
		}
		if err != nil {
			in.fail(err)
			return
		}
		select {
		case <-in.ended:
			return
		default:
		}
	}
}

// accept takes a frame and those that have arrived and been verified since to
// the Sink in one commit. It returns the item that it took off the queue beyond
// them, if any, and an error when the connection must end.
func (in *incoming) accept(ctx context.Context, first *item) (held *item, err error) {
	<-first.ready
	run, bad := []*Arrival(nil), (*item)(nil)
	for it, size := first, 0; ; {
		if it.err != nil {
			bad = it
			break
		}
		run = append(run, it.arrival)
		if size += len(it.arrival.Bytes); size >= maxRun || len(run) >= in.server.Window {
			break
		}
		if it = in.verified(); it == nil {
			break
		}
		if it.kind != kindFrame || !it.isReady() {
			held = it
			break
		}
	}
	if len(run) > 0 {
		if err := in.store(ctx, run); err != nil {
			return nil, err
		}
	}
	if bad != nil {
		told := outside(bad.err)
		in.server.alarm(in.peer.Party, told)
		return nil, in.refuse(bad.arrival.Frame.Header.Number, told, bad.err)
	}
	return held, nil
}

// verified returns the next item if there is one now.
func (in *incoming) verified() *item {
	select {
	case it := <-in.items:
		return it // nil when the reader has ended
	default:
		return nil
	}
}

func (it *item) isReady() bool {
	select {
	case <-it.ready:
		return true
	default:
		return false
	}
}

// store has the Sink accept a run and acknowledges what is stored. The Sink owns
// the run from here on.
func (in *incoming) store(ctx context.Context, run []*Arrival) error {
	numbers := make([]uint64, len(run))
	for i, a := range run {
		numbers[i] = a.Frame.Header.Number
	}
	verdicts, err := in.server.Sink.Accept(ctx, in.peer.Party, run)
	if err != nil {
		return in.refuse(numbers[0], outside(err), fmt.Errorf("accept frame %d: %w", numbers[0], err))
	}
	stored := 0
	for stored < len(verdicts) && (verdicts[stored] == Next || verdicts[stored] == Again) {
		stored++
	}
	if stored > 0 {
		in.frames.Add(-int32(stored)) // before the sender hears of it
		in.out.acknowledge(numbers[stored-1])
	}
	if stored == len(run) {
		return nil
	}
	if stored == len(verdicts) {
		return fmt.Errorf("the sink judged %d frames of %d", stored, len(run))
	}
	return in.reject(ctx, numbers[stored], verdicts[stored])
}

// reject tells the sender why a frame isn't stored; a fork ends the incarnation.
func (in *incoming) reject(ctx context.Context, number uint64, v Verdict) error {
	var told *carnet.Error
	switch v {
	case Forked:
		told = carnet.Errorf(carnet.Forked, "frame %d of %s doesn't follow the frames stored before it: two frames have one number, or the chain is broken", number, in.peer.Party).
			WithFix("find out whether two copies of the sender run; starting it again makes it follow what is stored")
		in.server.alarm(in.peer.Party, told)
		var nobody Nonce
		rand.Read(nobody[:])
		if _, err := in.server.Sink.Register(ctx, in.peer.Party, nobody, 0); err != nil {
			return in.refuse(number, told, fmt.Errorf("fence %s: %w", in.peer.Party, err))
		}
	case Jumped:
		told = carnet.Errorf(carnet.Conflict, "frame %d is not the next one", number)
	default:
		told = carnet.Errorf(carnet.Conflict, "frame %d is of an incarnation that is not current", number)
	}
	return in.refuse(number, told, told)
}

// refuse queues a refusal and returns why the connection ends.
func (in *incoming) refuse(number uint64, told *carnet.Error, why error) error {
	if err := in.out.message(kindRefuse, newRefuse(number, told)); err != nil {
		return errors.Join(why, err)
	}
	return why
}

// answer handles one call.
func (in *incoming) answer(ctx context.Context, m *call) error {
	ctx, done := context.WithTimeout(ctx, in.server.CallTimeout)
	defer done()
	body, err := in.server.Sink.Call(ctx, in.peer.Party, m.Kind, m.Body)
	r := reply{ID: m.ID, Body: body}
	if err == nil && len(body) > maxBody {
		err = carnet.Errorf(carnet.TooLarge, "the answer to call %q has %d bytes, a link carries %d", m.Kind, len(body), maxBody).WithFix("ask for less at once")
	}
	if err != nil {
		in.server.Log.Info("link call refused", "peer", in.peer.Party, "kind", m.Kind, "error", err)
		told := outside(err)
		r = reply{ID: m.ID, Code: string(told.Code), Reason: clip(told.Reason, maxReason), Fix: clip(told.Fix, maxFix)}
	}
	in.calls.Add(-1)
	return in.out.message(kindReply, &r)
}

// traced answers what is stored with a frame number.
func (in *incoming) traced(ctx context.Context, m *trace) error {
	p, ok, err := in.server.Sink.Frame(ctx, in.peer.Party, m.Number)
	if err != nil {
		return in.refuse(0, outside(err), fmt.Errorf("trace frame %d: %w", m.Number, err))
	}
	r := traced{ID: m.ID, Kept: ok}
	if ok {
		r.Number, r.Hash, r.Covers = p.Number, p.Hash, p.Covers
	}
	in.calls.Add(-1)
	return in.out.message(kindTraced, &r)
}
