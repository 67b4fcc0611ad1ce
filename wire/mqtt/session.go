package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"carnet/porter"
	"carnet/wire/mqtt/packet"
)

// session is one connection. Its goroutine (run) reads; flushers and its own
// goroutine write.
type session struct {
	srv     *Server
	flusher *flusher
	place   *porter.Place
	conn    net.Conn // TLS over out, or out itself
	out     *outlet

	// Set while connecting, read-only when open.
	version    packet.Version
	user       string // as given; cut, and for the log only
	device     Device // nil until the session is open
	key        sessionKey
	keepAlive  time.Duration // 0: none
	maxPacket  uint32        // the largest packet the device takes; 0: any
	receiveMax int           // messages of QoS 1 to the device at once
	quiet      bool          // the device wants no reason strings (§3.1.2.11.7)
	will       *Message

	// Of the session's goroutine.
	buf      []byte // read buffer: buf[from:to] is not yet parsed
	from, to int
	armed    time.Time // when the read deadline was last set
	publish  packet.Publish
	received int64  // messages since the last read
	scratch  []byte // for flush

	ending atomic.Pointer[ending]

	// Who writes packets holds wmu, so that they leave in the order in which
	// they were taken. Locked before mu.
	wmu   sync.Mutex
	ended bool // nothing more may be written; guarded by wmu

	mu       sync.Mutex
	space    sync.Cond // the session's goroutine waits for acknowledgements to leave
	waiting  bool
	queued   bool // is in the flusher's queue
	inflight inflight
	outgoing outgoing
	subs     []subscription
}

type subscription struct {
	filter string
	qos    byte
}

// run serves the connection to its end.
func (s *session) run(ctx context.Context) {
	err := s.connect(ctx)
	if err == nil {
		s.device.Attach(s)
		for err == nil {
			err = s.turn()
		}
	}
	e := endingFor(err)
	if s.device != nil && e.broken() {
		s.srv.counts.malformed.Add(1)
		s.device.Broke(e.refusal())
		s.scratch = s.flush(s.scratch) // before the end, after which nothing more leaves
	}
	e = s.close(e)
	log, counts := s.srv.cfg.Log, &s.srv.counts
	switch {
	case s.device == nil:
		counts.rejected.Add(1)
		level := slog.LevelInfo
		if s.user != "" { // a device of somebody's, and not just a stranger
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "mqtt: connection refused", "remote", s.out.RemoteAddr(), "user", s.user, "why", e.text)
	case e.broken():
		log.Warn("mqtt: session ended for what the device sent", "device", s.key.device, "client", s.key.client, "reason", e.reason, "why", e.text)
	case e.reason.Failed() && !e.silent:
		log.Info("mqtt: session ended", "device", s.key.device, "client", s.key.client, "reason", e.reason, "why", e.text)
	default:
		log.Debug("mqtt: session closed", "device", s.key.device, "client", s.key.client, "why", e.text)
	}
}

// turn handles every packet that has been read, writes what is due, and reads
// more when the device has taken what was written.
func (s *session) turn() error {
	err := s.packets()
	counts := &s.srv.counts
	counts.received.Add(s.received)
	s.received = 0
	s.mu.Lock()
	due := s.due()
	s.mu.Unlock()
	if due {
		s.scratch = s.flush(s.scratch)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	for s.out.blocked() && !s.endingSet() {
		s.wait()
	}
	s.mu.Unlock()
	return s.fill()
}

// packets handles the whole packets in the read buffer.
func (s *session) packets() error {
	for {
		h, err := packet.ParseHeader(s.buf[s.from:s.to])
		if err != nil {
			return err
		}
		if h.Len+h.Size > s.srv.cfg.Limits.PacketSize {
			return &packet.Error{Reason: packet.PacketTooLarge, Text: fmt.Sprintf("a packet has %d bytes, and at most %d are taken", h.Len+h.Size, s.srv.cfg.Limits.PacketSize)}
		}
		if h.Len == 0 || s.to-s.from < h.Len+h.Size {
			return nil
		}
		body := s.buf[s.from+h.Len : s.from+h.Len+h.Size]
		s.from += h.Len + h.Size
		if err := s.handle(h, body); err != nil {
			return err
		}
		if s.endingSet() {
			return s.ending.Load()
		}
	}
}

// next returns the next packet; it is how the first one is read.
func (s *session) next() (packet.Header, []byte, error) {
	for {
		h, err := packet.ParseHeader(s.buf[s.from:s.to])
		if err != nil {
			return h, nil, &ending{text: err.Error(), silent: true}
		}
		if h.Len+h.Size > s.srv.cfg.Limits.PacketSize {
			return h, nil, &ending{text: "the first packet is too large", silent: true}
		}
		if h.Len > 0 && s.to-s.from >= h.Len+h.Size {
			s.from += h.Len + h.Size
			return h, s.buf[s.from-h.Size : s.from], nil
		}
		if err := s.fill(); err != nil {
			return h, nil, err
		}
	}
}

// The read buffer starts small, since most devices send little, and grows when
// a read fills it. A packet larger than that doubles it as its bytes arrive,
// not on the word of its header; with nothing in it, it shrinks back.
const (
	smallBuffer = 1 << 10
	largeBuffer = 16 << 10
)

// fill reads more into the buffer.
func (s *session) fill() error {
	s.room()
	for {
		s.arm()
		if s.endingSet() {
			return s.ending.Load()
		}
		n, err := s.conn.Read(s.buf[s.to:])
		if n > 0 {
			s.to += n
			s.srv.counts.receivedBytes.Add(int64(n))
			return nil
		}
		switch {
		case s.endingSet():
			return s.ending.Load()
		case errors.Is(err, os.ErrDeadlineExceeded) && s.device == nil:
			return &ending{text: "no CONNECT within the time to connect", silent: true}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &ending{reason: packet.KeepAliveTimeout, text: "nothing heard for one and a half times the keep alive"}
		case err != nil:
			return &ending{text: "connection: " + err.Error(), silent: true}
		}
	}
}

// room makes room in the buffer to read into.
func (s *session) room() {
	held := s.buf[s.from:s.to]
	size := max(len(s.buf), smallBuffer)
	switch {
	case len(held) == 0 && len(s.buf) > largeBuffer:
		size = largeBuffer
	case s.to == len(s.buf) && len(s.buf) > 0:
		size = max(size, min(2*len(s.buf), largeBuffer)) // the last read filled it
	}
	if len(held) >= size {
		size = 2 * len(held)
	}
	if size != len(s.buf) {
		old := held
		s.buf = make([]byte, size)
		held = s.buf
		s.to = copy(held, old)
	} else {
		s.to = copy(s.buf, held)
	}
	s.from = 0
}

// arm sets the read deadline to one and a half times the keep alive from now
// (§3.1.2.10), but not at every read: the deadline is late by up to an eighth
// of the keep alive.
func (s *session) arm() {
	if s.device == nil {
		return // the time to connect holds
	}
	now := time.Now()
	if s.keepAlive == 0 {
		if s.armed.IsZero() {
			s.conn.SetReadDeadline(time.Time{})
			s.armed = now
		}
		return
	}
	if now.Sub(s.armed) >= s.keepAlive/8 {
		s.conn.SetReadDeadline(now.Add(s.keepAlive*3/2 + s.keepAlive/8))
		s.armed = now
	}
}

// end makes the session's goroutine end it, for this reason unless another came
// first.
func (s *session) end(e *ending) {
	if s.ending.CompareAndSwap(nil, e) {
		s.out.SetReadDeadline(time.Unix(1, 0))
		s.mu.Lock()
		s.space.Broadcast()
		s.mu.Unlock()
	}
}

// Cut implements Outbox.
func (s *session) Cut(why string) { s.end(&ending{reason: packet.NotAuthorized, text: why}) }

func (s *session) endingSet() bool { return s.ending.Load() != nil }

// close ends the session and says why it did: the first reason there was. The
// will goes last, since the domain may take its time over it.
func (s *session) close(e *ending) *ending {
	if !s.ending.CompareAndSwap(nil, e) {
		e = s.ending.Load()
	}
	if s.device == nil {
		s.linger()
		s.conn.Close()
		return e
	}
	if e.orderly {
		s.settle()
	}
	s.device.Detach(s)
	s.sayWhy(e)
	if !e.clean {
		s.linger()
	}
	s.conn.Close()
	if s.will != nil && !e.clean {
		s.device.Publish(*s.will, willSink{}, 0)
	}
	return e
}

// sayWhy sends DISCONNECT, which only MQTT 5 has from this side, and stops
// flushing: nothing may follow it (§3.14.4).
func (s *session) sayWhy(e *ending) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.ended = true
	if s.version != packet.V5 || e.silent {
		return
	}
	b := packet.AppendDisconnect(nil, e.reason, e.text, s.version)
	if !s.fits(len(b)) {
		b = packet.AppendDisconnect(nil, e.reason, "", s.version)
	}
	s.conn.Write(b)
}

// settle waits until what was handed over is acknowledged, or the device does
// not read, or it takes too long.
func (s *session) settle() {
	late := false
	timer := time.AfterFunc(s.srv.cfg.Limits.ShutdownTimeout, func() {
		s.mu.Lock()
		late = true
		s.space.Broadcast()
		s.mu.Unlock()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.inflight.len > 0 && !late && !s.out.broken() {
		s.wait()
	}
}

// linger lets the device read what it was told before the connection closes:
// closing with something unread would reset it.
func (s *session) linger() {
	if t, ok := s.conn.(*tls.Conn); ok {
		t.CloseWrite()
	}
	c, ok := s.out.Conn.(interface{ CloseWrite() error })
	if !ok || s.out.blocked() || c.CloseWrite() != nil {
		return
	}
	s.out.Conn.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, s.out.Conn, lingerBytes)
}

const (
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// willSink takes the outcome of a will, which nobody hears.
type willSink struct{}

func (willSink) Done(uint64, Outcome) {}
func (willSink) Flush()               {}
