package packet

import (
	"encoding/binary"
	"math/bits"
)

// Property is a property's identifier (§2.2.2.2).
type Property byte

// The properties.
const (
	PayloadFormat            Property = 1
	MessageExpiry            Property = 2
	ContentType              Property = 3
	ResponseTopic            Property = 8
	CorrelationData          Property = 9
	SubscriptionID           Property = 11
	SessionExpiry            Property = 17
	AssignedClientID         Property = 18
	ServerKeepAlive          Property = 19
	AuthenticationMethod     Property = 21
	AuthenticationData       Property = 22
	RequestProblem           Property = 23
	WillDelay                Property = 24
	RequestResponse          Property = 25
	ResponseInformation      Property = 26
	ServerReference          Property = 28
	ReasonString             Property = 31
	ReceiveMaximum           Property = 33
	TopicAliasMaximum        Property = 34
	TopicAlias               Property = 35
	MaximumQoS               Property = 36
	RetainAvailable          Property = 37
	UserProperty             Property = 38
	MaximumPacketSize        Property = 39
	WildcardAvailable        Property = 40
	SubscriptionIDsAvailable Property = 41
	SharedAvailable          Property = 42
)

// form is how a property's value is written.
type form byte

const (
	flag    form = iota + 1 // one byte, 0 or 1
	short                   // two bytes
	long                    // four bytes
	integer                 // variable byte integer
	text                    // UTF-8 string
	octets                  // bytes
	pair                    // two UTF-8 strings
)

// where is a set of packets that a property may be in; the will has its own.
type where uint16

const will where = 1 // the bit of packet type 0, which does not exist

func in(types ...Type) (w where) {
	for _, t := range types {
		w |= 1 << t
	}
	return w
}

type rule struct {
	form    form
	slot    byte // where Properties keeps it
	where   where
	nonzero bool // 0 is a protocol error
	many    bool // may be repeated
}

// rules is the table of §2.2.2.2. Slots number the strings and the other
// values separately.
var rules = [43]rule{
	PayloadFormat:            {form: flag, slot: 0, where: in(PUBLISH) | will},
	MessageExpiry:            {form: long, slot: 1, where: in(PUBLISH) | will},
	ContentType:              {form: text, slot: 0, where: in(PUBLISH) | will},
	ResponseTopic:            {form: text, slot: 1, where: in(PUBLISH) | will},
	CorrelationData:          {form: octets, slot: 2, where: in(PUBLISH) | will},
	SubscriptionID:           {form: integer, slot: 2, where: in(PUBLISH, SUBSCRIBE), nonzero: true},
	SessionExpiry:            {form: long, slot: 3, where: in(CONNECT, CONNACK, DISCONNECT)},
	AssignedClientID:         {form: text, slot: 3, where: in(CONNACK)},
	ServerKeepAlive:          {form: short, slot: 4, where: in(CONNACK)},
	AuthenticationMethod:     {form: text, slot: 4, where: in(CONNECT, CONNACK, AUTH)},
	AuthenticationData:       {form: octets, slot: 5, where: in(CONNECT, CONNACK, AUTH)},
	RequestProblem:           {form: flag, slot: 5, where: in(CONNECT)},
	WillDelay:                {form: long, slot: 6, where: will},
	RequestResponse:          {form: flag, slot: 7, where: in(CONNECT)},
	ResponseInformation:      {form: text, slot: 6, where: in(CONNACK)},
	ServerReference:          {form: text, slot: 7, where: in(CONNACK, DISCONNECT)},
	ReasonString:             {form: text, slot: 8, where: in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)},
	ReceiveMaximum:           {form: short, slot: 8, where: in(CONNECT, CONNACK), nonzero: true},
	TopicAliasMaximum:        {form: short, slot: 9, where: in(CONNECT, CONNACK)},
	TopicAlias:               {form: short, slot: 10, where: in(PUBLISH)},
	MaximumQoS:               {form: flag, slot: 11, where: in(CONNACK)},
	RetainAvailable:          {form: flag, slot: 12, where: in(CONNACK)},
	UserProperty:             {form: pair, where: ^in(0, PINGREQ, PINGRESP) | will, many: true},
	MaximumPacketSize:        {form: long, slot: 13, where: in(CONNECT, CONNACK), nonzero: true},
	WildcardAvailable:        {form: flag, slot: 14, where: in(CONNACK)},
	SubscriptionIDsAvailable: {form: flag, slot: 15, where: in(CONNACK)},
	SharedAvailable:          {form: flag, slot: 16, where: in(CONNACK)},
}

// Properties holds the properties of one packet. Reused, it allocates nothing.
// User properties are checked and passed over.
type Properties struct {
	set     uint64
	numbers [17]uint32
	strings [9][]byte
}

// Uint returns a number or flag, and whether it was there.
func (p *Properties) Uint(id Property) (uint32, bool) {
	if p.set&(1<<id) == 0 {
		return 0, false
	}
	return p.numbers[rules[id].slot], true
}

// UintOr returns a number or flag, and otherwise its value when absent.
func (p *Properties) UintOr(id Property, absent uint32) uint32 {
	if v, ok := p.Uint(id); ok {
		return v
	}
	return absent
}

// Bytes returns a string or binary value, nil when absent.
func (p *Properties) Bytes(id Property) []byte {
	if p.set&(1<<id) == 0 {
		return nil
	}
	return p.strings[rules[id].slot]
}

// properties reads a property length and the properties (§2.2.2).
func (c *cursor) properties(p *Properties, place where) {
	p.set = 0
	props := cursor{b: c.take(c.varint())}
	for len(props.b) > 0 && props.err == nil {
		props.property(p, place)
	}
	if c.err == nil {
		c.err = props.err
	}
}

func (c *cursor) property(p *Properties, place where) {
	id := Property(c.varint())
	if c.err != nil {
		return
	}
	if int(id) >= len(rules) || rules[id].form == 0 {
		c.err = malformed("property %d does not exist", id)
		return
	}
	r := &rules[id]
	if r.where&place == 0 {
		c.err = violation("property %d is not one of this packet", id)
		return
	}
	repeated := p.set&(1<<id) != 0
	if repeated && !r.many && !(id == SubscriptionID && place == in(PUBLISH)) {
		c.err = violation("property %d is there twice", id)
		return
	}
	p.set |= 1 << id
	switch r.form {
	case flag:
		p.numbers[r.slot] = uint32(c.byte())
		if p.numbers[r.slot] > 1 {
			c.fail(violation("property %d is %d, want 0 or 1", id, p.numbers[r.slot]))
		}
	case short:
		p.numbers[r.slot] = uint32(c.uint16())
	case long:
		p.numbers[r.slot] = c.uint32()
	case integer:
		p.numbers[r.slot] = uint32(c.varint())
	case text:
		p.strings[r.slot] = c.text()
	case octets:
		p.strings[r.slot] = c.binary()
	case pair:
		c.text()
		c.text()
		return
	}
	if r.nonzero && p.numbers[r.slot] == 0 {
		c.fail(violation("property %d is 0", id))
	}
}

// appendUint appends a number or flag property.
func appendUint(dst []byte, id Property, v uint32) []byte {
	dst = append(dst, byte(id))
	switch rules[id].form {
	case flag:
		return append(dst, byte(v))
	case short:
		return binary.BigEndian.AppendUint16(dst, uint16(v))
	case integer:
		return appendVarint(dst, int(v))
	}
	return binary.BigEndian.AppendUint32(dst, v)
}

// appendBytes appends a string or binary property.
func appendBytes[T string | []byte](dst []byte, id Property, v T) []byte {
	return appendString(append(dst, byte(id)), v)
}

// SetUint adds a number or flag to a packet that is to be written.
func (p *Properties) SetUint(id Property, v uint32) {
	p.set |= 1 << id
	p.numbers[rules[id].slot] = v
}

// SetBytes adds a string or binary value.
func (p *Properties) SetBytes(id Property, v []byte) {
	p.set |= 1 << id
	p.strings[rules[id].slot] = v
}

// appendProperties appends the property length and the properties.
func appendProperties(dst []byte, p *Properties) []byte {
	start := len(dst)
	for set := p.set; set != 0; set &= set - 1 {
		id := bits.TrailingZeros64(set)
		switch r := &rules[id]; r.form {
		case text, octets:
			dst = appendBytes(dst, Property(id), p.strings[r.slot])
		case flag, short, long, integer:
			dst = appendUint(dst, Property(id), p.numbers[r.slot])
		}
	}
	return insertLength(dst, start)
}
