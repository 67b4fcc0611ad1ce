package packet

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Subscription is one topic filter of a SUBSCRIBE packet and its options
// (§3.8.3.1).
type Subscription struct {
	Filter            []byte
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
}

// Subscribe is a SUBSCRIBE packet (§3.8).
type Subscribe struct {
	ID            uint16
	Properties    Properties
	Subscriptions []Subscription
}

// ParseSubscribe reads a SUBSCRIBE packet's body.
func ParseSubscribe(body []byte, v Version) (Subscribe, error) {
	c := cursor{b: body}
	p := Subscribe{ID: c.packetID()}
	if v == V5 {
		c.properties(&p.Properties, in(SUBSCRIBE))
	}
	for first := true; c.err == nil && (first || len(c.b) > 0); first = false {
		if len(c.b) == 0 {
			c.fail(violation("SUBSCRIBE without a topic filter"))
			break
		}
		s := Subscription{Filter: c.text()}
		options := c.byte()
		reserved := byte(0xc0)
		if v == V311 {
			reserved = 0xfc
		}
		s.QoS = options & 3
		if options&reserved != 0 || s.QoS == 3 || options&0x30 == 0x30 {
			c.fail(malformed("subscription options %08b", options))
		}
		s.NoLocal, s.RetainAsPublished, s.RetainHandling = options&4 != 0, options&8 != 0, options>>4&3
		if s.NoLocal && strings.HasPrefix(string(s.Filter), "$share/") {
			c.fail(violation("no local on a shared subscription"))
		}
		p.Subscriptions = append(p.Subscriptions, s)
	}
	return p, c.finish(SUBSCRIBE)
}

// AppendSubscribe appends p.
func AppendSubscribe(dst []byte, p *Subscribe, v Version) []byte {
	dst = append(dst, byte(SUBSCRIBE)<<4|2)
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, p.ID)
	if v == V5 {
		dst = appendProperties(dst, &p.Properties)
	}
	for _, s := range p.Subscriptions {
		options := s.QoS | s.RetainHandling<<4
		if s.NoLocal {
			options |= 4
		}
		if s.RetainAsPublished {
			options |= 8
		}
		dst = append(appendString(dst, s.Filter), options)
	}
	return insertLength(dst, start)
}

// Unsubscribe is an UNSUBSCRIBE packet (§3.10).
type Unsubscribe struct {
	ID      uint16
	Filters [][]byte
}

// ParseUnsubscribe reads an UNSUBSCRIBE packet's body.
func ParseUnsubscribe(body []byte, v Version) (Unsubscribe, error) {
	c := cursor{b: body}
	p := Unsubscribe{ID: c.packetID()}
	if v == V5 {
		var props Properties
		c.properties(&props, in(UNSUBSCRIBE))
	}
	if c.err == nil && len(c.b) == 0 {
		c.fail(violation("UNSUBSCRIBE without a topic filter"))
	}
	for c.err == nil && len(c.b) > 0 {
		p.Filters = append(p.Filters, c.text())
	}
	return p, c.finish(UNSUBSCRIBE)
}

// AppendUnsubscribe appends p.
func AppendUnsubscribe(dst []byte, p *Unsubscribe, v Version) []byte {
	dst = append(dst, byte(UNSUBSCRIBE)<<4|2)
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, p.ID)
	if v == V5 {
		dst = append(dst, 0)
	}
	for _, f := range p.Filters {
		dst = appendString(dst, f)
	}
	return insertLength(dst, start)
}

// Suback is a SUBACK or UNSUBACK packet (§3.9, §3.11): one reason for each
// filter, in order. UNSUBACK of 3.1.1 has none.
type Suback struct {
	ID      uint16
	Text    []byte
	Reasons []Reason
}

// ParseSuback reads the body of a SUBACK or UNSUBACK packet.
func ParseSuback(t Type, body []byte, v Version) (Suback, error) {
	c := cursor{b: body}
	p := Suback{ID: c.packetID()}
	if v == V5 {
		var props Properties
		c.properties(&props, in(t))
		p.Text = props.Bytes(ReasonString)
	}
	if t == SUBACK || v == V5 {
		for _, r := range c.take(len(c.b)) {
			p.Reasons = append(p.Reasons, Reason(r))
		}
	}
	return p, c.finish(t)
}

// AppendSuback appends a SUBACK or UNSUBACK packet.
func AppendSuback(dst []byte, t Type, id uint16, reasons []Reason, text string, v Version) []byte {
	dst = append(dst, byte(t)<<4)
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, id)
	if v == V5 {
		dst = appendReasonString(dst, text)
	}
	if t == SUBACK || v == V5 {
		for _, r := range reasons {
			dst = append(dst, byte(r))
		}
	}
	return insertLength(dst, start)
}

// ValidFilter reports whether f is a topic filter (§4.7.1): not empty, '#' only
// as the whole last level, '+' only as a whole level.
func ValidFilter(f []byte) bool {
	for level := range bytes.SplitSeq(f, []byte("/")) {
		if len(level) > 1 && bytes.ContainsAny(level, "+#") {
			return false
		}
	}
	i := bytes.IndexByte(f, '#')
	return len(f) > 0 && (i < 0 || i == len(f)-1)
}

// Match reports whether a valid filter admits topic (§4.7). A filter that
// begins with a wildcard does not admit a topic that begins with '$'.
func Match(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		return false
	}
	for {
		level, restOfFilter, moreFilter := strings.Cut(filter, "/")
		if level == "#" {
			return true
		}
		name, restOfTopic, moreTopic := strings.Cut(topic, "/")
		if level != "+" && level != name {
			return false
		}
		if !moreTopic {
			return !moreFilter || restOfFilter == "#" // "a/#" admits "a"
		}
		if !moreFilter {
			return false
		}
		filter, topic = restOfFilter, restOfTopic
	}
}
