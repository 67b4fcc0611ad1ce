package packet

import (
	"encoding/binary"
)

// Connect is a CONNECT packet (§3.1). Will is nil without a will.
type Connect struct {
	Version     Version
	CleanStart  bool
	KeepAlive   uint16 // seconds; 0: none
	ClientID    []byte
	Will        *Publish
	HasUser     bool
	User        []byte
	HasPassword bool
	Password    []byte
	Properties  Properties
}

// ParseConnect reads the CONNECT packet whose variable header and payload are
// body. With an UnsupportedProtocolVersion error the rest was not read.
func ParseConnect(body []byte) (Connect, error) {
	c := cursor{b: body}
	var p Connect
	name, level := c.text(), c.byte()
	if c.err == nil && (string(name) != "MQTT" || Version(level) != V311 && Version(level) != V5) {
		return p, &Error{UnsupportedProtocolVersion, "the protocol is not MQTT 3.1.1 (level 4) or 5"}
	}
	p.Version = Version(level)
	flags := c.byte()
	if c.err == nil && flags&1 != 0 {
		c.fail(malformed("the reserved flag of CONNECT is set"))
	}
	p.CleanStart = flags&0x02 != 0
	p.KeepAlive = c.uint16()
	if p.Version == V5 {
		c.properties(&p.Properties, in(CONNECT))
		if p.Properties.Bytes(AuthenticationData) != nil && p.Properties.Bytes(AuthenticationMethod) == nil {
			c.fail(violation("authentication data without a method"))
		}
	}
	p.ClientID = c.text()
	p.Will = c.will(flags, p.Version)
	if p.HasUser = flags&0x80 != 0; p.HasUser {
		p.User = c.text()
	}
	if p.HasPassword = flags&0x40 != 0; p.HasPassword {
		p.Password = c.binary()
	}
	if p.Version == V311 && p.HasPassword && !p.HasUser {
		c.fail(malformed("a password without a user name")) // MQTT-3.1.2-22 of 3.1.1
	}
	return p, c.finish(CONNECT)
}

// will reads the will that the connect flags announce (§3.1.2.5, §3.1.3.2).
func (c *cursor) will(flags byte, v Version) *Publish {
	qos := flags >> 3 & 3
	if flags&0x04 == 0 {
		if flags&0x38 != 0 {
			c.fail(malformed("flags of a will without a will"))
		}
		return nil
	}
	if qos == 3 {
		c.fail(malformed("the will has QoS 3"))
	}
	w := &Publish{QoS: qos, Retain: flags&0x20 != 0}
	if v == V5 {
		c.properties(&w.Properties, will)
	}
	w.Topic = c.topicName()
	w.Payload = c.binary()
	return w
}

// AppendConnect appends p.
func AppendConnect(dst []byte, p *Connect) []byte {
	dst = append(dst, byte(CONNECT)<<4)
	start := len(dst)
	flags := byte(0)
	for _, f := range []struct {
		set bool
		bit byte
	}{{p.CleanStart, 0x02}, {p.Will != nil, 0x04}, {p.HasPassword, 0x40}, {p.HasUser, 0x80}} {
		if f.set {
			flags |= f.bit
		}
	}
	if p.Will != nil {
		flags |= p.Will.QoS << 3
		if p.Will.Retain {
			flags |= 0x20
		}
	}
	dst = appendString(dst, "MQTT")
	dst = append(dst, byte(p.Version), flags)
	dst = binary.BigEndian.AppendUint16(dst, p.KeepAlive)
	if p.Version == V5 {
		dst = appendProperties(dst, &p.Properties)
	}
	dst = appendString(dst, p.ClientID)
	if p.Will != nil {
		if p.Version == V5 {
			dst = appendProperties(dst, &p.Will.Properties)
		}
		dst = appendString(dst, p.Will.Topic)
		dst = appendString(dst, p.Will.Payload)
	}
	if p.HasUser {
		dst = appendString(dst, p.User)
	}
	if p.HasPassword {
		dst = appendString(dst, p.Password)
	}
	return insertLength(dst, start)
}

// Connack is a CONNACK packet (§3.2). In 3.1.1 Reason holds its return code.
type Connack struct {
	SessionPresent bool
	Reason         Reason
	Properties     Properties
}

// ParseConnack reads a CONNACK packet's body.
func ParseConnack(body []byte, v Version) (Connack, error) {
	c := cursor{b: body}
	var p Connack
	flags := c.byte()
	p.SessionPresent = flags&1 != 0
	if flags > 1 {
		c.fail(malformed("reserved flags of CONNACK are set"))
	}
	p.Reason = Reason(c.byte())
	if v == V5 {
		c.properties(&p.Properties, in(CONNACK))
	}
	return p, c.finish(CONNACK)
}

// AppendConnack appends p.
func AppendConnack(dst []byte, p *Connack, v Version) []byte {
	dst = append(dst, byte(CONNACK)<<4)
	start := len(dst)
	present := byte(0)
	if p.SessionPresent {
		present = 1
	}
	dst = append(dst, present, byte(p.Reason))
	if v == V5 {
		dst = appendProperties(dst, &p.Properties)
	}
	return insertLength(dst, start)
}
