package packet

import (
	"bytes"
	"testing"
)

// FuzzPackets parses anything as a packet. What is accepted is written again
// and must then read the same.
func FuzzPackets(f *testing.F) {
	p := Publish{Topic: []byte("a/b"), Payload: []byte("23"), QoS: 1, ID: 10}
	p.Properties.SetBytes(ContentType, []byte("text/plain"))
	connect := Connect{Version: V5, ClientID: []byte("c"), HasUser: true, User: []byte("u"), Will: &p, CleanStart: true}
	connect.Properties.SetUint(ReceiveMaximum, 5)
	sub := Subscribe{ID: 1, Subscriptions: []Subscription{{Filter: []byte("a/#"), QoS: 1}}}
	for _, v := range []Version{V311, V5} {
		connect.Version = v
		for _, seed := range [][]byte{
			p.Append(nil, v), AppendConnect(nil, &connect), AppendAck(nil, 1, NotAuthorized, "no", v),
			AppendSubscribe(nil, &sub, v), AppendSuback(nil, SUBACK, 1, []Reason{0, 1}, "text", v),
			AppendUnsubscribe(nil, &Unsubscribe{1, [][]byte{[]byte("a")}}, v), AppendDisconnect(nil, ServerBusy, "busy", v),
			AppendConnack(nil, &Connack{Reason: ServerBusy}, v),
		} {
			f.Add(seed, v == V5)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, five bool) {
		v := V311
		if five {
			v = V5
		}
		h, err := ParseHeader(b)
		if err != nil || h.Len == 0 || len(b) < h.Len+h.Size {
			return
		}
		body := b[h.Len : h.Len+h.Size]
		once, ok := rewrite(h, body, v)
		if !ok {
			return
		}
		h2, err := ParseHeader(once)
		if err != nil || h2.Len+h2.Size != len(once) {
			t.Fatalf("%x was written as %x, with header %+v, %v", b, once, h2, err)
		}
		twice, ok := rewrite(h2, once[h2.Len:], v)
		if !ok || !bytes.Equal(once, twice) {
			t.Fatalf("%x was written as %x, that as %x", b, once, twice)
		}
	})
}

// rewrite parses a packet and writes it again; ok is false when it was refused.
func rewrite(h Header, body []byte, v Version) (b []byte, ok bool) {
	var err error
	switch h.Type {
	case CONNECT:
		var p Connect
		if p, err = ParseConnect(body); err == nil {
			b = AppendConnect(nil, &p)
		}
	case CONNACK:
		var p Connack
		if p, err = ParseConnack(body, v); err == nil {
			b = AppendConnack(nil, &p, v)
		}
	case PUBLISH:
		var p Publish
		if err = p.Parse(h.Flags, body, v); err == nil {
			b = p.Append(nil, v)
		}
	case PUBACK:
		var p Ack
		if err = p.Parse(body, v); err == nil {
			b = AppendAck(nil, p.ID, p.Reason, string(p.Text), v)
		}
	case SUBSCRIBE:
		var p Subscribe
		if p, err = ParseSubscribe(body, v); err == nil {
			b = AppendSubscribe(nil, &p, v)
		}
	case SUBACK, UNSUBACK:
		var p Suback
		if p, err = ParseSuback(h.Type, body, v); err == nil {
			b = AppendSuback(nil, h.Type, p.ID, p.Reasons, string(p.Text), v)
		}
	case UNSUBSCRIBE:
		var p Unsubscribe
		if p, err = ParseUnsubscribe(body, v); err == nil {
			b = AppendUnsubscribe(nil, &p, v)
		}
	case DISCONNECT:
		var p Disconnect
		if p, err = ParseDisconnect(body, v); err == nil {
			b = AppendDisconnect(nil, p.Reason, string(p.Properties.Bytes(ReasonString)), v)
		}
	default:
		return nil, false
	}
	return b, err == nil
}
