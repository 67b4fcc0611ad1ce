package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"carnet/porter"
	"carnet/wire/mqtt/packet"
)

// Server ends the MQTT sessions of one Backend's devices.
type Server struct {
	cfg    Config
	counts counters
	door   *porter.Porter // a connection without a session may have to give up its place

	mu       sync.Mutex
	sessions map[sessionKey]*session // open ones
	devices  map[string]int          // how many of them each device has
	conns    map[*session]struct{}   // all, connecting ones too
}

// sessionKey is what a connection takes over: client ids of different devices
// do not meet.
type sessionKey struct{ device, client string }

// counters are the server's own Stats. Sessions add to them once per read or
// write, not per message.
type counters struct {
	connected, rejected, crowded, takenOver           atomic.Int64
	received, receivedBytes, acknowledged, refused    atomic.Int64
	retried, writes, sent, dropped, malformed, closed atomic.Int64
}

// Stats is a snapshot of what a Server has done since New.
type Stats struct {
	Open      int   // sessions and connections now
	Connected int64 // sessions opened
	Rejected  int64 // CONNECT answered with a refusal, or not a CONNECT
	Crowded   int64 // connections without a session that were closed for Limits.Connections or Connecting
	TakenOver int64 // sessions ended by a newer one of the same device and client id
	Closed    int64 // connections ended, for whatever reason
	Malformed int64 // sessions ended for what the device sent

	Received      int64 // messages handed to devices
	ReceivedBytes int64 // of all packets
	Acknowledged  int64 // PUBACKs written, refusals among them
	Refused       int64 // outcomes that were Refused, QoS 0 too
	Retried       int64 // outcomes that were Retry
	Writes        int64 // writes that carried acknowledgements or messages

	Sent    int64 // messages written to devices
	Dropped int64 // messages to devices that a full queue or their limits left out
}

// Stats returns the counts now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	c := &s.counts
	return Stats{
		Open: open, Connected: c.connected.Load(), Rejected: c.rejected.Load(), Crowded: c.crowded.Load(),
		TakenOver: c.takenOver.Load(), Closed: c.closed.Load(), Malformed: c.malformed.Load(),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(), Acknowledged: c.acknowledged.Load(),
		Refused: c.refused.Load(), Retried: c.retried.Load(), Writes: c.writes.Load(),
		Sent: c.sent.Load(), Dropped: c.dropped.Load(),
	}
}

// Serve accepts devices from ln until ctx ends, then ends every session in
// order: what was handed over is acknowledged first, for up to
// Limits.ShutdownTimeout. A Device whose Publish does not return holds it up.
// Serve closes ln. It may run for several listeners at once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	flusher := newFlusher()
	var flushers, sessions sync.WaitGroup
	for range width {
		flushers.Go(flusher.run)
	}
	defer flushers.Wait()
	defer flusher.stop()
	defer sessions.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the sessions when the listener fails
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()

	for {
		conn, err := accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		se, ok := s.admit(conn, flusher)
		if !ok {
			continue
		}
		sessions.Go(func() {
			defer context.AfterFunc(ctx, func() {
				se.end(&ending{reason: packet.ServerShuttingDown, text: "the server is shutting down", orderly: true})
			})()
			se.run(ctx)
			s.forget(se)
		})
	}
}

// accept tries again when the system is short of something for the moment.
func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		conn, err := ln.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return conn, err
		}
		if ne, ok := errors.AsType[net.Error](err); !ok || ne.Timeout() {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// admit makes a session of conn, or closes it when there are too many. Until it has a
// session, it is closed when others need its place.
func (s *Server) admit(conn net.Conn, f *flusher) (*session, bool) {
	se := &session{srv: s, flusher: f}
	se.space.L = &se.mu
	se.out = newOutlet(conn, s.cfg.Limits.WriteTimeout, se.resume)
	se.conn = se.out
	if s.cfg.TLS != nil {
		se.conn = tls.Server(se.out, s.cfg.TLS)
	}
	place, ok := s.door.Enter(conn.RemoteAddr(), func() {
		s.counts.crowded.Add(1)
		conn.Close()
	})
	if !ok {
		s.counts.crowded.Add(1)
		conn.Close()
		return nil, false
	}
	se.place = place
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[se] = struct{}{}
	return se, true
}

// register makes se the session of its key, and ends the one that was; false: its
// device has as many sessions as it may have.
func (s *Server) register(se *session) bool {
	s.mu.Lock()
	old := s.sessions[se.key]
	if old == nil {
		if s.devices[se.key.device] >= s.cfg.Limits.DeviceSessions {
			s.mu.Unlock()
			return false
		}
		s.devices[se.key.device]++
	}
	s.sessions[se.key] = se
	s.mu.Unlock()
	se.place.Settle()
	s.counts.connected.Add(1)
	if old != nil {
		s.counts.takenOver.Add(1)
		old.end(&ending{reason: packet.SessionTakenOver, text: "another connection of this device uses the same client id"})
	}
	return true
}

func (s *Server) forget(se *session) {
	se.place.Leave()
	s.mu.Lock()
	if s.sessions[se.key] == se {
		delete(s.sessions, se.key)
		if s.devices[se.key.device]--; s.devices[se.key.device] == 0 {
			delete(s.devices, se.key.device)
		}
	}
	delete(s.conns, se)
	s.mu.Unlock()
	s.counts.closed.Add(1)
}
