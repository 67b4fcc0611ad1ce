package packet

import (
	"bytes"
	"encoding/binary"
)

// Publish is a PUBLISH packet (§3.3), or a will.
type Publish struct {
	Dup, Retain bool
	QoS         byte
	ID          uint16 // 0 with QoS 0
	Topic       []byte
	Properties  Properties
	Payload     []byte
}

// Parse reads the PUBLISH packet with these flags and body. It sets every field
// of p and allocates nothing but an error.
func (p *Publish) Parse(flags byte, body []byte, v Version) error {
	c := cursor{b: body}
	p.Dup, p.QoS, p.Retain = flags&8 != 0, flags>>1&3, flags&1 != 0
	p.Properties.set, p.ID = 0, 0
	if p.QoS == 3 || p.QoS == 0 && p.Dup {
		return malformed("PUBLISH with flags %04b", flags)
	}
	if v == V5 {
		p.Topic = c.text() // empty stands for an alias: refused as such by who reads it
	} else {
		p.Topic = c.topicName()
	}
	if wild(p.Topic) {
		return malformed("the topic name has a wildcard in it")
	}
	if p.QoS > 0 {
		p.ID = c.packetID()
	}
	if v == V5 {
		c.properties(&p.Properties, in(PUBLISH))
	}
	if c.err != nil {
		return c.err
	}
	p.Payload = c.b
	return nil
}

// topicName reads a topic name (§4.7): not empty, without wildcards.
func (c *cursor) topicName() []byte {
	name := c.text()
	if c.err == nil && (len(name) == 0 || wild(name)) {
		c.fail(malformed("the topic name is empty or has a wildcard in it"))
	}
	return name
}

func wild(name []byte) bool {
	return bytes.IndexByte(name, '+') >= 0 || bytes.IndexByte(name, '#') >= 0
}

// Append appends p.
func (p *Publish) Append(dst []byte, v Version) []byte {
	flags := p.QoS << 1
	if p.Dup {
		flags |= 8
	}
	if p.Retain {
		flags |= 1
	}
	var scratch [128]byte
	props := scratch[:0]
	if v == V5 {
		props = appendProperties(props, &p.Properties)
	}
	size := 2 + len(p.Topic) + len(props) + len(p.Payload)
	if p.QoS > 0 {
		size += 2
	}
	dst = append(dst, byte(PUBLISH)<<4|flags)
	dst = appendVarint(dst, size)
	dst = appendString(dst, p.Topic)
	if p.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.ID)
	}
	dst = append(dst, props...)
	return append(dst, p.Payload...)
}

// Ack is a PUBACK packet (§3.4); Text is its reason string.
type Ack struct {
	ID     uint16
	Reason Reason
	Text   []byte
}

// Parse reads the PUBACK packet with this body.
func (p *Ack) Parse(body []byte, v Version) error {
	c := cursor{b: body}
	p.ID, p.Reason, p.Text = c.packetID(), Success, nil
	if v == V5 && len(c.b) > 0 {
		p.Reason = Reason(c.byte())
		if len(c.b) > 0 {
			var props Properties
			c.properties(&props, in(PUBACK))
			p.Text = props.Bytes(ReasonString)
		}
	}
	return c.finish(PUBACK)
}

// AppendAck appends a PUBACK packet. 3.1.1 has neither reason nor text.
func AppendAck(dst []byte, id uint16, r Reason, text string, v Version) []byte {
	if v == V311 || r == Success {
		return append(dst, byte(PUBACK)<<4, 2, byte(id>>8), byte(id))
	}
	if text == "" {
		return append(dst, byte(PUBACK)<<4, 3, byte(id>>8), byte(id), byte(r))
	}
	dst = append(dst, byte(PUBACK)<<4)
	start := len(dst)
	dst = append(dst, byte(id>>8), byte(id), byte(r))
	dst = appendReasonString(dst, text)
	return insertLength(dst, start)
}

// appendReasonString appends a property length and a reason string.
func appendReasonString(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, 0)
	}
	start := len(dst)
	return insertLength(appendBytes(dst, ReasonString, text), start)
}
