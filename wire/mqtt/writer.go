package mqtt

import (
	"carnet/wire/mqtt/packet"
)

// Done takes note of a message's outcome.
func (s *session) Done(token uint64, o Outcome) {
	switch o.verdict {
	case refused:
		s.srv.counts.refused.Add(1)
	case retry:
		s.srv.counts.retried.Add(1)
	}
	if token == 0 {
		return // QoS 0: nobody waits
	}
	s.mu.Lock()
	s.inflight.done(token, o)
	s.mu.Unlock()
}

// Flush queues the session for a flusher when something is due.
func (s *session) Flush() {
	s.mu.Lock()
	queue := !s.queued && s.due()
	s.queued = s.queued || queue
	s.mu.Unlock()
	if queue {
		s.flusher.add(s)
	}
}

// due reports whether flush has something to write. s.mu is held.
func (s *session) due() bool {
	return s.inflight.due() || len(s.outgoing.queue) > 0 && s.mayGo(s.outgoing.queue[0])
}

// mayGo reports whether the device's receive maximum admits m now (§4.9).
func (s *session) mayGo(m outMessage) bool {
	return m.idAt == 0 || len(s.outgoing.sent) < s.receiveMax
}

// resume goes on after the device has read what was left for it.
func (s *session) resume() {
	s.mu.Lock()
	s.space.Broadcast()
	s.mu.Unlock()
	s.Flush()
}

// wait waits for a signal that acknowledgements have left, or that the session
// ends. s.mu is held.
func (s *session) wait() {
	s.waiting = true
	s.space.Wait()
	s.waiting = false
}

// flushSize is about how much flush writes at once.
const flushSize = 8 << 10

// flush writes what is due, and returns scratch for its next use. While the
// device leaves something unread everything stays where it is.
func (s *session) flush(scratch []byte) []byte {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	for more := !s.ended; more; {
		var e *ending
		scratch = scratch[:0]
		s.mu.Lock()
		s.queued = false
		if s.out.blocked() {
			s.mu.Unlock()
			return scratch
		}
		before := s.inflight.len
		scratch, e = s.acknowledge(scratch)
		acknowledged := before - s.inflight.len
		sent := len(s.outgoing.queue)
		scratch = s.takeOutgoing(scratch)
		sent -= len(s.outgoing.queue)
		more = s.due() && e == nil
		if s.waiting {
			s.space.Signal()
		}
		s.mu.Unlock()
		if len(scratch) > 0 {
			s.srv.counts.writes.Add(1)
			s.srv.counts.acknowledged.Add(int64(acknowledged))
			s.srv.counts.sent.Add(int64(sent))
			s.conn.Write(scratch) // an error closes the connection, which its reader notices
		}
		if e != nil {
			s.end(e)
		}
	}
	return scratch
}

// acknowledge appends the acknowledgements that are due. A message to be
// retried ends the session: nothing behind it is acknowledged. s.mu is held.
func (s *session) acknowledge(b []byte) ([]byte, *ending) {
	for s.inflight.due() && len(b) < flushSize {
		m := s.inflight.slot(s.inflight.head)
		switch m.verdict {
		case stored:
			b = packet.AppendAck(b, m.id, packet.Success, "", s.version)
		case refused:
			b = s.refuse(b, m)
		case retry:
			a, text := answerTo(m.err)
			return b, &ending{reason: a.disconnect, text: text}
		}
		s.inflight.drop()
	}
	return b, nil
}

// refuse appends the PUBACK of a refused message, with its text where the
// device wants one and takes a packet of that size.
func (s *session) refuse(b []byte, m *slot) []byte {
	a, text := answerTo(m.err)
	if s.quiet {
		text = ""
	}
	if ack := packet.AppendAck(b, m.id, a.puback, text, s.version); s.fits(len(ack) - len(b)) {
		return ack
	}
	return packet.AppendAck(b, m.id, a.puback, "", s.version)
}

// fits reports whether the device takes a packet of size bytes (§3.1.2.11.4).
func (s *session) fits(size int) bool { return s.maxPacket == 0 || size <= int(s.maxPacket) }

// takeOutgoing appends the messages to the device that may go now. s.mu is
// held.
func (s *session) takeOutgoing(b []byte) []byte {
	q := &s.outgoing
	for len(q.queue) > 0 && len(b) < flushSize && s.mayGo(q.queue[0]) {
		m := q.queue[0]
		if m.idAt > 0 {
			q.identify(m)
		}
		b = append(b, m.packet...)
		q.queue[0] = outMessage{}
		q.queue = q.queue[1:]
	}
	return b
}

// write writes a packet of the session's own goroutine.
func (s *session) write(appendTo func([]byte) []byte) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.ended {
		return
	}
	s.conn.Write(appendTo(nil)) // an error closes the connection, which its reader notices
}

// Send queues a message to the device.
func (s *session) Send(topic, contentType string, payload []byte) bool {
	s.mu.Lock()
	qos, subscribed := s.grantedFor(topic)
	s.mu.Unlock()
	if !subscribed || s.endingSet() {
		return false
	}
	m := encode(topic, contentType, payload, qos, s.version)
	s.mu.Lock()
	room := len(s.outgoing.queue) < s.srv.cfg.Limits.Outgoing && s.fits(len(m.packet))
	if room {
		s.outgoing.queue = append(s.outgoing.queue, m)
	}
	s.mu.Unlock()
	if !room {
		s.srv.counts.dropped.Add(1)
		return false
	}
	s.Flush()
	return true
}

// grantedFor returns the best quality of service that a subscription gives to
// topic. s.mu is held.
func (s *session) grantedFor(topic string) (qos byte, subscribed bool) {
	for _, sub := range s.subs {
		if packet.Match(sub.filter, topic) {
			qos, subscribed = max(qos, sub.qos), true
		}
	}
	return qos, subscribed
}
