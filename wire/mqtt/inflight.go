package mqtt

import (
	"carnet"
	"carnet/wire/mqtt/packet"
)

// inflight holds the messages of QoS 1 of one connection that are not yet
// acknowledged, in order: a ring that starts small and grows to the receive
// maximum. Acknowledgements leave from its head only (§4.6).
type inflight struct {
	ring []slot // its length is a power of two
	head uint32 // sequence number of the oldest
	len  uint32
}

type slot struct {
	err     *carnet.Error
	id      uint16
	verdict verdict
}

// A token is the sequence number, the packet identifier and the QoS of a
// message, so that an outcome finds its slot without a search.
func token(seq uint32, id uint16, qos byte) uint64 {
	return uint64(seq)<<32 | uint64(id)<<8 | uint64(qos)
}

// add takes in a message and returns its token.
func (q *inflight) add(id uint16) uint64 {
	if q.len == uint32(len(q.ring)) {
		q.grow()
	}
	seq := q.head + q.len
	q.len++
	q.slot(seq).id = id
	return token(seq, id, 1)
}

func (q *inflight) grow() {
	old := *q
	q.ring = make([]slot, max(4, 2*len(old.ring)))
	for seq := old.head; seq != old.head+old.len; seq++ {
		*q.slot(seq) = *old.slot(seq)
	}
}

func (q *inflight) slot(seq uint32) *slot { return &q.ring[seq&uint32(len(q.ring)-1)] }

// done notes an outcome. Acknowledging what was not stored would be worse than
// to stop, so an outcome that the contract does not allow panics.
func (q *inflight) done(token uint64, o Outcome) {
	seq := uint32(token >> 32)
	if seq-q.head >= q.len || q.slot(seq).verdict != pending || o.verdict == pending {
		panic("mqtt: Sink.Done called twice for one message, or with the zero Outcome")
	}
	s := q.slot(seq)
	s.verdict, s.err = o.verdict, o.err
}

// due reports whether the oldest message has an outcome.
func (q *inflight) due() bool { return q.len > 0 && q.slot(q.head).verdict != pending }

// drop takes out the oldest message.
func (q *inflight) drop() {
	*q.slot(q.head) = slot{}
	q.head++
	q.len--
}

// outgoing holds the messages on their way to the device.
type outgoing struct {
	queue []outMessage
	sent  []uint16 // packet identifiers not yet acknowledged
	next  uint16
}

type outMessage struct {
	packet []byte // whole, with 0 for a packet identifier
	idAt   int    // where the identifier belongs; 0 with QoS 0
}

// identify gives m the next free packet identifier.
func (q *outgoing) identify(m outMessage) {
	for taken := true; taken; {
		q.next++
		taken = q.next == 0
		for _, id := range q.sent {
			taken = taken || id == q.next
		}
	}
	q.sent = append(q.sent, q.next)
	m.packet[m.idAt], m.packet[m.idAt+1] = byte(q.next>>8), byte(q.next)
}

// acknowledged frees a packet identifier, and reports whether it was in use.
func (q *outgoing) acknowledged(id uint16) bool {
	for i := range q.sent {
		if q.sent[i] == id {
			q.sent = append(q.sent[:i], q.sent[i+1:]...)
			return true
		}
	}
	return false
}

// encode makes the packet that carries a message to the device.
func encode(topic, contentType string, payload []byte, qos byte, v packet.Version) outMessage {
	p := packet.Publish{QoS: qos, Topic: []byte(topic), Payload: payload}
	if contentType != "" {
		p.Properties.SetBytes(packet.ContentType, []byte(contentType))
	}
	m := outMessage{packet: p.Append(nil, v)}
	if h, err := packet.ParseHeader(m.packet); err == nil && qos > 0 {
		m.idAt = h.Len + 2 + len(topic)
	}
	return m
}
