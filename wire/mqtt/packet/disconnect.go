package packet

// Disconnect is a DISCONNECT packet (§3.14).
type Disconnect struct {
	Reason     Reason
	Properties Properties
}

// ParseDisconnect reads a DISCONNECT packet's body.
func ParseDisconnect(body []byte, v Version) (Disconnect, error) {
	c := cursor{b: body}
	var p Disconnect
	if v == V5 && len(c.b) > 0 {
		p.Reason = Reason(c.byte())
		if len(c.b) > 0 {
			c.properties(&p.Properties, in(DISCONNECT))
		}
	}
	return p, c.finish(DISCONNECT)
}

// AppendDisconnect appends a DISCONNECT packet. 3.1.1 has neither reason nor
// text.
func AppendDisconnect(dst []byte, r Reason, text string, v Version) []byte {
	dst = append(dst, byte(DISCONNECT)<<4)
	if v == V311 || r == Success && text == "" {
		return append(dst, 0)
	}
	start := len(dst)
	dst = append(dst, byte(r))
	if text != "" {
		dst = appendReasonString(dst, text)
	}
	return insertLength(dst, start)
}

// AppendEmpty appends a packet that is only its fixed header: PINGREQ or
// PINGRESP.
func AppendEmpty(dst []byte, t Type) []byte { return append(dst, byte(t)<<4, 0) }
