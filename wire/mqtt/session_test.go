package mqtt

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/wire/mqtt/packet"
)

// raw is a device that sends what a test wants it to.
type raw struct {
	t       testing.TB
	conn    net.Conn
	version packet.Version
	buf     []byte
}

func dialRaw(t testing.TB, addr string, v packet.Version) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &raw{t: t, conn: conn, version: v}
}

// open connects as user, and asks for what change asks for.
func (r *raw) open(user string, change func(*packet.Connect)) *raw {
	r.t.Helper()
	p := packet.Connect{
		Version: r.version, CleanStart: true, ClientID: []byte("c"),
		HasUser: true, User: []byte(user), HasPassword: true, Password: []byte(backwards(user)),
	}
	if change != nil {
		change(&p)
	}
	r.send(packet.AppendConnect(nil, &p))
	if ack := r.connack(); ack.Reason != packet.Success {
		r.t.Fatalf("CONNACK %v", ack.Reason)
	}
	return r
}

func (r *raw) send(packets ...[]byte) {
	r.t.Helper()
	if _, err := r.conn.Write(bytes.Join(packets, nil)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) next() (packet.Header, []byte, error) {
	r.conn.SetReadDeadline(time.Now().Add(30 * time.Second)) // a hung test fails
	chunk := make([]byte, 4096)
	for {
		h, err := packet.ParseHeader(r.buf)
		if err != nil {
			return h, nil, err
		}
		if h.Len > 0 && len(r.buf) >= h.Len+h.Size {
			body := r.buf[h.Len : h.Len+h.Size]
			r.buf = r.buf[h.Len+h.Size:]
			return h, body, nil
		}
		n, err := r.conn.Read(chunk)
		if err != nil {
			return h, nil, err
		}
		r.buf = append(r.buf, chunk[:n]...)
	}
}

func (r *raw) expect(want packet.Type) []byte {
	r.t.Helper()
	h, body, err := r.next()
	if err != nil || h.Type != want {
		r.t.Fatalf("got %v %x, %v; want %v", h.Type, body, err, want)
	}
	return body
}

func (r *raw) connack() packet.Connack {
	r.t.Helper()
	ack, err := packet.ParseConnack(r.expect(packet.CONNACK), r.version)
	must(r.t, err)
	return ack
}

// acks expects PUBACKs with these identifiers, in order.
func (r *raw) acks(ids ...uint16) {
	r.t.Helper()
	for _, id := range ids {
		if p := r.ack(); p.ID != id || p.Reason != packet.Success {
			r.t.Fatalf("PUBACK %+v, want %d", p, id)
		}
	}
}

func (r *raw) ack() (p packet.Ack) {
	r.t.Helper()
	must(r.t, p.Parse(r.expect(packet.PUBACK), r.version))
	return p
}

// bye expects DISCONNECT with a reason, and the end.
func (r *raw) bye(want packet.Reason) string {
	r.t.Helper()
	text := ""
	if r.version == packet.V5 {
		d, err := packet.ParseDisconnect(r.expect(packet.DISCONNECT), r.version)
		must(r.t, err)
		if d.Reason != want {
			r.t.Fatalf("DISCONNECT %v, want %v", d.Reason, want)
		}
		text = string(d.Properties.Bytes(packet.ReasonString))
	}
	r.closed()
	return text
}

func (r *raw) closed() {
	r.t.Helper()
	if h, body, err := r.next(); err == nil {
		r.t.Fatalf("got %v %x, want the end", h.Type, body)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		r.t.Fatal("the connection stays open")
	}
}

func (r *raw) publish(id uint16, payload string) []byte {
	p := packet.Publish{Topic: []byte("things/w/measurements"), Payload: []byte(payload), ID: id}
	if id > 0 {
		p.QoS = 1
	}
	return p.Append(nil, r.version)
}

// awaitPending waits until n messages are held.
func (h *hub) awaitPending(t testing.TB, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		h.mu.Lock()
		got := len(h.pending)
		h.mu.Unlock()
		if got == n {
			return
		}
		if got > n || time.Now().After(deadline) {
			t.Fatalf("%d messages held, want %d", got, n)
		}
		<-h.tick
	}
}

var versions = []packet.Version{packet.V311, packet.V5}

func eachVersion(t *testing.T, test func(t *testing.T, v packet.Version)) {
	for _, v := range versions {
		t.Run(map[packet.Version]string{packet.V311: "3.1.1", packet.V5: "5"}[v], func(t *testing.T) { test(t, v) })
	}
}

func TestMessagesWaitForTheirGroupAndShareOneWrite(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		h := newHub()
		s, addr := serve(t, Config{Backend: h})
		r := dialRaw(t, addr, v).open("watch-1", nil)
		var all [][]byte
		var ids []uint16
		for id := uint16(1); id <= 16; id++ {
			all, ids = append(all, r.publish(id, fmt.Sprint(id))), append(ids, id)
		}
		r.send(all...)
		h.awaitPending(t, 16) // all are handed over while none is acknowledged
		if st := s.Stats(); st.Acknowledged != 0 || st.Writes != 0 {
			t.Fatalf("before the commit: %+v", st)
		}
		h.commit(Stored())
		r.acks(ids...)
		r.send(packet.AppendEmpty(nil, packet.PINGREQ))
		r.expect(packet.PINGRESP)
		if st := s.Stats(); st.Acknowledged != 16 || st.Writes != 1 || st.Received != 16 {
			t.Errorf("after the commit: %+v, want 16 acknowledgements in 1 write", st)
		}
	})
}

func TestLargeMessages(t *testing.T) {
	h := newHub()
	_, addr := serve(t, Config{Backend: h})
	r := dialRaw(t, addr, packet.V5).open("watch-1", nil)
	var want []string
	for id, size := range []int{10, 200_000, 1000, 1024, 16 << 10, 100_000, 1} {
		want = append(want, strings.Repeat(string(rune('a'+id)), size))
		r.send(r.publish(uint16(id+1), want[id]))
	}
	h.awaitPending(t, len(want))
	if !reflect.DeepEqual(h.messages, want) {
		t.Error("messages arrive changed")
	}
}

func TestAcknowledgementsKeepTheOrderOfMessages(t *testing.T) {
	h := newHub()
	_, addr := serve(t, Config{Backend: h})
	r := dialRaw(t, addr, packet.V311).open("watch-1", nil)
	r.send(r.publish(7, "a"), r.publish(3, "b"), r.publish(5, "c"), packet.AppendEmpty(nil, packet.PINGREQ))
	r.expect(packet.PINGRESP)
	h.awaitPending(t, 3)
	settle(h.pending[1:2], Stored())
	settle(h.pending[2:3], Stored())
	r.send(packet.AppendEmpty(nil, packet.PINGREQ))
	r.expect(packet.PINGRESP) // and no PUBACK before it
	settle(h.pending[0:1], Stored())
	r.acks(7, 3, 5)
}

func TestRefused(t *testing.T) {
	refusal := Refused(carnet.Errorf(carnet.OutOfRange, "heart_rate is 900").WithFix("send 0 to 300"))
	for _, c := range []struct {
		name    string
		version packet.Version
		connect func(*packet.Connect)
		reason  packet.Reason
		text    string
	}{
		{"3.1.1", packet.V311, nil, packet.Success, ""},
		{"5", packet.V5, nil, packet.ImplementationSpecificError, "heart_rate is 900; send 0 to 300"},
		{"5 without problem information", packet.V5, func(p *packet.Connect) { p.Properties.SetUint(packet.RequestProblem, 0) }, packet.ImplementationSpecificError, ""},
		{"5 with small packets", packet.V5, func(p *packet.Connect) { p.Properties.SetUint(packet.MaximumPacketSize, 30) }, packet.ImplementationSpecificError, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub()
			h.publish = func(_ *watch, m Message, sink Sink, token uint64) { sink.Done(token, refusal) } // without Flush
			s, addr := serve(t, Config{Backend: h})
			r := dialRaw(t, addr, c.version)
			r.open("watch-1", c.connect)
			r.send(r.publish(0, "x"), r.publish(9, "x"))
			if p := r.ack(); p.ID != 9 || p.Reason != c.reason || string(p.Text) != c.text {
				t.Errorf("PUBACK %d %v %q, want %v %q", p.ID, p.Reason, p.Text, c.reason, c.text)
			}
			if st := s.Stats(); st.Refused != 2 {
				t.Errorf("%d refused, want 2", st.Refused)
			}
		})
	}
}

func TestRetryAcknowledgesWhatCameBeforeAndEndsTheSession(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		h := newHub()
		s, addr := serve(t, Config{Backend: h})
		r := dialRaw(t, addr, v).open("watch-1", nil)
		r.send(r.publish(1, "a"), r.publish(2, "b"), r.publish(3, "c"))
		h.awaitPending(t, 3)
		settle(h.pending[1:2], Retry(carnet.Errorf(carnet.NoSpace, "the disk is full")))
		settle(h.pending[2:3], Stored())
		settle(h.pending[0:1], Stored())
		r.acks(1)
		if text := r.bye(packet.QuotaExceeded); v == packet.V5 && text != "the disk is full" {
			t.Errorf("reason string %q", text)
		}
		if st := s.Stats(); st.Retried != 1 || st.Acknowledged != 1 {
			t.Errorf("%+v", st)
		}
	})
}

func TestReceiveMaximum(t *testing.T) {
	limits := Limits{ReceiveMaximum: 4}
	t.Run("3.1.1 is read no further", func(t *testing.T) {
		h := newHub()
		_, addr := serve(t, Config{Backend: h, Limits: limits})
		r := dialRaw(t, addr, packet.V311).open("watch-1", nil)
		for id := uint16(1); id <= 10; id++ {
			r.send(r.publish(id, "x"))
		}
		h.awaitPending(t, 4)
		h.commit(Stored())
		r.acks(1, 2, 3, 4)
		h.awaitPending(t, 4)
		h.commit(Stored())
		r.acks(5, 6, 7, 8)
		h.awaitPending(t, 2)
		h.commit(Stored())
		r.acks(9, 10)
	})
	t.Run("5 must keep to it", func(t *testing.T) {
		h := newHub()
		_, addr := serve(t, Config{Backend: h, Limits: limits})
		r := dialRaw(t, addr, packet.V5).open("watch-1", nil)
		for id := uint16(1); id <= 4; id++ {
			r.send(r.publish(id, "x"))
		}
		h.awaitPending(t, 4)
		h.commit(Stored())
		r.acks(1, 2, 3, 4)
		for id := uint16(5); id <= 9; id++ {
			r.send(r.publish(id, "x"))
		}
		r.bye(packet.ReceiveMaximumExceeded)
	})
}

func TestConnect(t *testing.T) {
	user := func(name, password string) func(*packet.Connect) {
		return func(p *packet.Connect) { p.User, p.Password = []byte(name), []byte(password) }
	}
	for _, c := range []struct {
		name   string
		change func(*packet.Connect)
		code   byte          // of 3.1.1; 0xff: closed without an answer
		reason packet.Reason // of 5
		text   string
	}{
		{"right password", func(*packet.Connect) {}, 0, packet.Success, ""},
		{"wrong password", user("watch-1", "x"), 4, packet.BadUserNameOrPassword, "user name or password is wrong"},
		{"unknown user", user("nobody", "x"), 4, packet.BadUserNameOrPassword, "user name or password is wrong"},
		{"no user", func(p *packet.Connect) { p.HasUser, p.HasPassword = false, false }, 4, packet.BadUserNameOrPassword, "user name or password is wrong"},
		{"suspended", user("watch-banned", ""), 5, packet.NotAuthorized, "the thing is suspended; ask its owner"},
		{"backend broken, shown to nobody", user("watch-broken", ""), 3, packet.UnspecifiedError, ""},
		{"client id empty", func(p *packet.Connect) { p.ClientID = nil }, 0, packet.Success, ""},
		{"client id of 257 bytes", func(p *packet.Connect) { p.ClientID = bytes.Repeat([]byte("x"), 257) }, 2, packet.ClientIDNotValid, "the client identifier is longer than 256 bytes"},
		{"client id with U+0000", func(p *packet.Connect) { p.ClientID = []byte{0} }, 0xff, packet.MalformedPacket, "a string is not UTF-8, or has U+0000 in it"},
	} {
		eachVersion(t, func(t *testing.T, v packet.Version) {
			s, addr := serve(t, Config{Backend: newHub()})
			r := dialRaw(t, addr, v)
			p := packet.Connect{Version: v, CleanStart: true, ClientID: []byte("c"), HasUser: true, User: []byte("watch-1"), HasPassword: true, Password: []byte("1-hctaw")}
			c.change(&p)
			r.send(packet.AppendConnect(nil, &p))
			if v == packet.V311 && c.code == 0xff {
				r.closed()
				return
			}
			ack := r.connack()
			want := c.reason
			if v == packet.V311 {
				want = packet.Reason(c.code)
			}
			if text := string(ack.Properties.Bytes(packet.ReasonString)); ack.Reason != want || ack.SessionPresent || v == packet.V5 && text != c.text {
				t.Errorf("%s: CONNACK %v %q, want %v %q", c.name, ack.Reason, text, want, c.text)
			}
			if want != 0 {
				r.closed()
				if st := s.Stats(); st.Connected != 0 {
					t.Errorf("%s: %+v", c.name, st)
				}
			}
		})
	}
}

func TestConnectOfVersion5Only(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*packet.Connect)
		want   packet.Reason
	}{
		{"enhanced authentication", func(p *packet.Connect) {
			p.Properties.SetBytes(packet.AuthenticationMethod, []byte("SCRAM-SHA-256"))
		}, packet.BadAuthenticationMethod},
		{"will of QoS 2", func(p *packet.Connect) { p.Will = &packet.Publish{Topic: []byte("t"), QoS: 2} }, packet.QoSNotSupported},
		{"retained will", func(p *packet.Connect) { p.Will = &packet.Publish{Topic: []byte("t"), Retain: true} }, packet.RetainNotSupported},
	} {
		_, addr := serve(t, Config{Backend: newHub()})
		r := dialRaw(t, addr, packet.V5)
		p := packet.Connect{Version: packet.V5, HasUser: true, User: []byte("watch-1"), HasPassword: true, Password: []byte("1-hctaw")}
		c.change(&p)
		r.send(packet.AppendConnect(nil, &p))
		if ack := r.connack(); ack.Reason != c.want {
			t.Errorf("%s: CONNACK %v, want %v", c.name, ack.Reason, c.want)
		}
		r.closed()
	}
}

func TestConnectOfOtherProtocols(t *testing.T) {
	for _, c := range []struct{ name, sent, want string }{
		{"MQTT 3.1", "10 12 0006 4d5149736470 03 02 003c 0004 61626364", "20 02 00 01"},
		{"MQTT 6", "10 0c 0004 4d515454 06 02 003c 0000", "20"},
		{"3.1.1, empty client id, no clean session", "10 0c 0004 4d515454 04 00 003c 0000", "20 02 00 02"},
		{"HTTP", hex.EncodeToString([]byte("GET / HTTP/1.1\r\nHost: hub\r\n\r\n")), ""},
		{"PINGREQ first", "c0 00", ""},
		{"first packet of 200 MB", "10 ff ff ff 5f", ""},
	} {
		_, addr := serve(t, Config{Backend: newHub()})
		r := dialRaw(t, addr, packet.V311)
		sent, err := hex.DecodeString(strings.ReplaceAll(c.sent, " ", ""))
		must(t, err)
		r.send(sent)
		got, err := io.ReadAll(r.conn)
		must(t, err)
		want := strings.ReplaceAll(c.want, " ", "")
		if !strings.HasPrefix(hex.EncodeToString(got), want) || want == "" && len(got) > 0 {
			t.Errorf("%s: answered %x, want %s", c.name, got, c.want)
		}
	}
}

func TestConnackSaysWhatIsSupported(t *testing.T) {
	_, addr := serve(t, Config{Backend: newHub(), Limits: Limits{ReceiveMaximum: 20, PacketSize: 5000, KeepAlive: time.Minute}})
	r := dialRaw(t, addr, packet.V5)
	p := packet.Connect{Version: packet.V5, HasUser: true, User: []byte("watch-1"), HasPassword: true, Password: []byte("1-hctaw"), KeepAlive: 600}
	p.Properties.SetUint(packet.SessionExpiry, 3600)
	r.send(packet.AppendConnect(nil, &p))
	props := r.connack().Properties
	for id, want := range map[packet.Property]uint32{
		packet.ReceiveMaximum: 20, packet.MaximumPacketSize: 5000, packet.MaximumQoS: 1, packet.RetainAvailable: 0,
		packet.SharedAvailable: 0, packet.SubscriptionIDsAvailable: 0, packet.SessionExpiry: 0, packet.ServerKeepAlive: 60,
	} {
		if got, ok := props.Uint(id); !ok || got != want {
			t.Errorf("property %d is %d, %v; want %d", id, got, ok, want)
		}
	}
	if _, found := props.Uint(packet.TopicAliasMaximum); found {
		t.Error("topic aliases announced")
	}
	if id := props.Bytes(packet.AssignedClientID); len(id) == 0 {
		t.Error("no client identifier assigned")
	}
}

func TestViolations(t *testing.T) {
	topic := []byte("things/watch-1/measurements")
	pub := func(change func(*packet.Publish)) func(packet.Version) []byte {
		return func(v packet.Version) []byte {
			p := packet.Publish{Topic: topic, QoS: 1, ID: 1}
			change(&p)
			return p.Append(nil, v)
		}
	}
	fixed := func(s string) func(packet.Version) []byte {
		return func(packet.Version) []byte {
			b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
			must(t, err)
			return b
		}
	}
	both, only5 := versions, versions[1:]
	for _, c := range []struct {
		name     string
		versions []packet.Version
		send     func(packet.Version) []byte
		want     packet.Reason
	}{
		{"QoS 2", both, pub(func(p *packet.Publish) { p.QoS = 2 }), packet.QoSNotSupported},
		{"retain", only5, pub(func(p *packet.Publish) { p.Retain = true }), packet.RetainNotSupported},
		{"topic alias", only5, pub(func(p *packet.Publish) { p.Properties.SetUint(packet.TopicAlias, 1) }), packet.TopicAliasInvalid},
		{"empty topic", only5, pub(func(p *packet.Publish) { p.Topic = nil }), packet.ProtocolError},
		{"subscription identifier", only5, pub(func(p *packet.Publish) { p.Properties.SetUint(packet.SubscriptionID, 1) }), packet.ProtocolError},
		{"wildcard topic", both, pub(func(p *packet.Publish) { p.Topic = []byte("a/#") }), packet.MalformedPacket},
		{"oversize", both, pub(func(p *packet.Publish) { p.Payload = make([]byte, 1001) }), packet.PacketTooLarge},
		{"oversize by its header alone", both, fixed("32 ff ff ff 7f"), packet.PacketTooLarge},
		{"QoS 3", both, fixed("36 05 0001 61 0001"), packet.MalformedPacket},
		{"length of five bytes", both, fixed("32 80 80 80 80 01"), packet.MalformedPacket},
		{"reserved flags", both, fixed("80 00"), packet.MalformedPacket},
		{"packet type 0", both, fixed("00 00"), packet.MalformedPacket},
		{"PUBREL", both, fixed("62 02 0001"), packet.ProtocolError},
		{"AUTH", only5, fixed("f0 00"), packet.ProtocolError},
		{"CONNACK from a device", both, fixed("20 02 0000"), packet.ProtocolError},
		{"PINGREQ with a payload", both, fixed("c0 01 00"), packet.MalformedPacket},
		{"PUBACK of nothing", only5, fixed("40 02 0001"), packet.ProtocolError},
		{"PUBACK of identifier 0", both, fixed("40 02 0000"), packet.ProtocolError},
		{"UNSUBSCRIBE of nothing", both, func(v packet.Version) []byte {
			return packet.AppendUnsubscribe(nil, &packet.Unsubscribe{ID: 1}, v)
		}, packet.ProtocolError},
		{"SUBSCRIBE with an identifier", only5, func(v packet.Version) []byte {
			p := packet.Subscribe{ID: 1, Subscriptions: []packet.Subscription{{Filter: topic}}}
			p.Properties.SetUint(packet.SubscriptionID, 3)
			return packet.AppendSubscribe(nil, &p, v)
		}, packet.SubscriptionIDsNotSupported},
		{"second CONNECT", both, func(v packet.Version) []byte {
			return packet.AppendConnect(nil, &packet.Connect{Version: v})
		}, packet.ProtocolError},
	} {
		for _, v := range c.versions {
			t.Run(fmt.Sprintf("%s/%d", c.name, v), func(t *testing.T) {
				h := newHub()
				_, addr := serve(t, Config{Backend: h, Limits: Limits{PacketSize: 1000}})
				other := dialRaw(t, addr, v).open("watch-2", nil)
				r := dialRaw(t, addr, v).open("watch-1", nil)
				r.t = t
				r.send(c.send(v), make([]byte, 3000)) // with something unread behind it
				if text := r.bye(c.want); v == packet.V5 && text == "" {
					t.Error("no reason string")
				}
				other.send(packet.AppendEmpty(nil, packet.PINGREQ))
				other.expect(packet.PINGRESP)
			})
		}
	}
}

func TestTakeover(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		h := newHub()
		s, addr := serve(t, Config{Backend: h})
		first := dialRaw(t, addr, v).open("watch-1", nil)
		stranger := dialRaw(t, addr, v).open("watch-2", nil) // the same client id, another device
		second := dialRaw(t, addr, v).open("watch-1", nil)
		first.bye(packet.SessionTakenOver)
		for _, r := range []*raw{stranger, second} {
			r.send(packet.AppendEmpty(nil, packet.PINGREQ))
			r.expect(packet.PINGRESP)
		}
		if st := s.Stats(); st.TakenOver != 1 {
			t.Errorf("%d taken over, want 1", st.TakenOver)
		}
	})
}

func subscribe(v packet.Version, id uint16, qos byte, filters ...string) []byte {
	p := packet.Subscribe{ID: id}
	for _, f := range filters {
		p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: []byte(f), QoS: qos})
	}
	return packet.AppendSubscribe(nil, &p, v)
}

func TestSubscribe(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		_, addr := serve(t, Config{Backend: newHub(), Limits: Limits{Subscriptions: 2}})
		r := dialRaw(t, addr, v).open("watch-1", nil)
		r.send(subscribe(v, 10, 2, "things/watch-1/refusals", "things/watch-2/refusals", "#", "a#", "$share/g/things/watch-1/x",
			"things/watch-1/actions/+", "things/watch-1/refusals", "things/watch-1/third"))
		ack, err := packet.ParseSuback(packet.SUBACK, r.expect(packet.SUBACK), v)
		must(t, err)
		want := []packet.Reason{1, packet.NotAuthorized, packet.NotAuthorized, packet.TopicFilterInvalid,
			packet.SharedSubscriptionsNotSupported, 1, 1, packet.QuotaExceeded}
		if v == packet.V311 {
			want = []packet.Reason{1, 0x80, 0x80, 0x80, 0x80, 1, 1, 0x80}
		}
		if ack.ID != 10 || !reflect.DeepEqual(ack.Reasons, want) {
			t.Errorf("SUBACK %d %v, want %v", ack.ID, ack.Reasons, want)
		}
		if v == packet.V5 && !strings.Contains(string(ack.Text), "things/watch-2/refusals is not a topic of this thing") {
			t.Errorf("reason string %q", ack.Text)
		}
		r.send(packet.AppendUnsubscribe(nil, &packet.Unsubscribe{ID: 11, Filters: [][]byte{[]byte("things/watch-1/refusals"), []byte("x")}}, v))
		ack, err = packet.ParseSuback(packet.UNSUBACK, r.expect(packet.UNSUBACK), v)
		must(t, err)
		if v == packet.V5 && !reflect.DeepEqual(ack.Reasons, []packet.Reason{packet.Success, packet.NoSubscriptionExisted}) {
			t.Errorf("UNSUBACK %v", ack.Reasons)
		}
	})
}

func TestOutbox(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		h := newHub()
		h.outboxes = make(chan Outbox, 1)
		s, addr := serve(t, Config{Backend: h, Limits: Limits{Outgoing: 2}})
		r := dialRaw(t, addr, v).open("watch-1", nil)
		out := <-h.outboxes
		const topic = "things/watch-1/actions/ring"
		if out.Send(topic, "", []byte("early")) {
			t.Error("sent before a subscription")
		}
		r.send(subscribe(v, 1, 1, "things/watch-1/actions/+"))
		r.expect(packet.SUBACK)
		get := func() (p packet.Publish) {
			t.Helper()
			hd, body, err := r.next()
			must(t, err)
			must(t, p.Parse(hd.Flags, body, v))
			return p
		}
		ack := func(p packet.Publish) { r.send(packet.AppendAck(nil, p.ID, packet.Success, "", v)) }
		for i := range 2 {
			if !out.Send(topic, "application/json", []byte{byte('a' + i)}) {
				t.Fatal("not sent")
			}
		}
		first, second := get(), get()
		if first.QoS != 1 || first.ID == 0 || first.ID == second.ID || string(first.Topic) != topic || string(first.Payload) != "a" || string(second.Payload) != "b" {
			t.Errorf("got %+v and %+v", first, second)
		}
		if ct := string(first.Properties.Bytes(packet.ContentType)); v == packet.V5 && ct != "application/json" {
			t.Errorf("content type %q", ct)
		}
		// Two are unacknowledged, two more may wait, the fifth has no room.
		for i, want := range []bool{true, true, false} {
			if got := out.Send(topic, "", []byte{byte('c' + i)}); got != want {
				t.Errorf("message %d sent: %v, want %v", 3+i, got, want)
			}
		}
		ack(second)
		third := get()
		ack(first)
		fourth := get()
		if string(third.Payload) != "c" || string(fourth.Payload) != "d" || third.ID == first.ID {
			t.Errorf("got %+v and %+v", third, fourth)
		}
		if st := s.Stats(); st.Dropped != 1 || st.Sent != 4 {
			t.Errorf("%d dropped, %d sent; want 1, 4", st.Dropped, st.Sent)
		}
	})
}

func TestWill(t *testing.T) {
	will := func(p *packet.Connect) {
		p.Will = &packet.Publish{Topic: []byte("things/watch-1/measurements"), Payload: []byte("gone"), QoS: 1}
	}
	for _, c := range []struct {
		name    string
		goodbye func(r *raw)
		want    bool
	}{
		{"connection broken", func(*raw) {}, true},
		{"goodbye", func(r *raw) { r.send(packet.AppendDisconnect(nil, packet.Success, "", packet.V5)) }, false},
		{"goodbye with will", func(r *raw) { r.send(packet.AppendDisconnect(nil, packet.DisconnectWithWill, "", packet.V5)) }, true},
	} {
		h := newHub()
		s, addr := serve(t, Config{Backend: h})
		r := dialRaw(t, addr, packet.V5).open("watch-1", will)
		c.goodbye(r)
		r.conn.Close()
		for s.Stats().Closed == 0 {
			time.Sleep(time.Millisecond)
		}
		if got := len(h.messages) == 1 && h.messages[0] == "gone"; got != c.want {
			t.Errorf("%s: published %q", c.name, h.messages)
		}
		if len(h.attached) != 0 {
			t.Errorf("%s: still attached", c.name)
		}
	}
}

func TestShutdownAcknowledgesWhatWasHandedOver(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			s, err := New(Config{Backend: h, Log: slog.New(slog.DiscardHandler)})
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			p, done := newPipes(), make(chan error)
			go func() { done <- s.Serve(ctx, p) }()
			stored, lost := p.dial(t, v).open("watch-1", nil), p.dial(t, v).open("watch-2", nil)
			lost.send(lost.publish(2, "x"))
			synctest.Wait()
			never := h.pending
			h.pending = nil
			stored.send(stored.publish(1, "x"))
			synctest.Wait()
			cancel()
			time.Sleep(time.Second)
			h.commit(Stored())
			stored.acks(1)
			stored.bye(packet.ServerShuttingDown)
			start := time.Now()
			lost.bye(packet.ServerShuttingDown) // its message was not waited for longer than the limit
			if took := time.Since(start); took != 4*time.Second {
				t.Errorf("waited %s more, want 4 s", took)
			}
			must(t, <-done)
			settle(never, Stored()) // too late, and without effect
		})
	})
}

func TestTooManyConnections(t *testing.T) {
	s, addr := serve(t, Config{Backend: newHub(), Limits: Limits{Connections: 1}})
	first := dialRaw(t, addr, packet.V5).open("watch-1", nil)
	dialRaw(t, addr, packet.V5).closed()
	if st := s.Stats(); st.Crowded != 1 || st.Open != 1 {
		t.Errorf("%+v", st)
	}
	first.send(packet.AppendEmpty(nil, packet.PINGREQ))
	first.expect(packet.PINGRESP)
}

func TestNoSecretInTheLog(t *testing.T) {
	var log logbook
	_, addr := serve(t, Config{Backend: newHub(), Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	r := dialRaw(t, addr, packet.V5)
	p := packet.Connect{Version: packet.V5, HasUser: true, User: []byte("watch-1"), HasPassword: true, Password: []byte("hunter2")}
	r.send(packet.AppendConnect(nil, &p))
	r.connack()
	r.conn.Close()
	for !strings.Contains(log.String(), "user name or password is wrong") {
		time.Sleep(time.Millisecond)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the password is in the log: %s", log.String())
	}
}

// pipes is a listener of in-memory connections, for fake clocks. A write to
// one waits for a read.
type pipes struct {
	conns chan net.Conn
	close func()
}

func newPipes() pipes {
	conns := make(chan net.Conn)
	return pipes{conns, sync.OnceFunc(func() { close(conns) })}
}

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { p.close(); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p pipes) dial(t testing.TB, v packet.Version) *raw {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return &raw{t: t, conn: ours, version: v}
}

// inBubble runs a server on pipes with a fake clock.
func inBubble(t *testing.T, cfg Config, test func(t *testing.T, p pipes)) {
	synctest.Test(t, func(t *testing.T) {
		cfg.Log = slog.New(slog.DiscardHandler)
		s, err := New(cfg)
		must(t, err)
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Serve(ctx, p) }()
		test(t, p)
		cancel()
		must(t, <-done)
	})
}

func TestKeepAlive(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		inBubble(t, Config{Backend: newHub()}, func(t *testing.T, p pipes) {
			r := p.dial(t, v).open("watch-1", func(c *packet.Connect) { c.KeepAlive = 8 })
			defer r.conn.Close()
			for range 3 {
				time.Sleep(11 * time.Second) // within 1.5 times
				r.send(packet.AppendEmpty(nil, packet.PINGREQ))
				r.expect(packet.PINGRESP)
			}
			start := time.Now()
			r.bye(packet.KeepAliveTimeout)
			if took := time.Since(start); took < 12*time.Second || took > 13*time.Second {
				t.Errorf("closed after %s, want 12 s to 13 s", took)
			}
		})
	})
}

func TestConnectTimeout(t *testing.T) {
	inBubble(t, Config{Backend: newHub()}, func(t *testing.T, p pipes) {
		r := p.dial(t, packet.V5)
		r.send([]byte{0x10})
		start := time.Now()
		r.closed()
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("closed after %s, want 10 s", took)
		}
	})
}

func TestWhoDoesNotReadStallsNobody(t *testing.T) {
	h := newHub()
	inBubble(t, Config{Backend: h, Limits: Limits{WriteTimeout: 5 * time.Second}}, func(t *testing.T, p pipes) {
		deaf, other := p.dial(t, packet.V311).open("watch-1", nil), p.dial(t, packet.V311).open("watch-2", nil)
		defer other.conn.Close()
		for id := uint16(1); id <= 20; id++ {
			deaf.send(deaf.publish(id, "x"))
			other.send(other.publish(id, "x"))
			synctest.Wait()
			h.commit(Stored())
			other.acks(id)
			if id == 1 {
				deaf.conn = writeOnly{deaf.conn} // its acknowledgement stays unread, and nothing more is read of it
			}
		}
		time.Sleep(6 * time.Second)
		if _, err := deaf.conn.(writeOnly).Conn.Write([]byte{0}); err == nil {
			t.Error("a device that does not read stays connected")
		}
		other.send(other.publish(21, "x"))
		synctest.Wait()
		h.commit(Stored())
		other.acks(21)
	})
}

func TestMessagesToADeafDeviceAreBounded(t *testing.T) {
	h := newHub()
	h.outboxes = make(chan Outbox, 1)
	inBubble(t, Config{Backend: h, Limits: Limits{Outgoing: 5}}, func(t *testing.T, p pipes) {
		r := p.dial(t, packet.V311).open("watch-1", nil)
		defer r.conn.Close()
		r.send(subscribe(packet.V311, 1, 0, "things/watch-1/#"))
		r.expect(packet.SUBACK)
		out, queued := <-h.outboxes, 0
		for range 100 {
			if out.Send("things/watch-1/refusals", "", []byte("x")) {
				queued++
			}
			synctest.Wait()
		}
		if queued != 6 { // one is on its way
			t.Errorf("%d messages queued for a device that does not read, want 6", queued)
		}
		for range queued {
			r.expect(packet.PUBLISH)
		}
	})
}

func TestNothingIsReadOfWhoDoesNotRead(t *testing.T) {
	inBubble(t, Config{Backend: newHub()}, func(t *testing.T, p pipes) {
		r := p.dial(t, packet.V311).open("watch-1", nil)
		defer r.conn.Close()
		ping := packet.AppendEmpty(nil, packet.PINGREQ)
		r.send(ping)
		synctest.Wait()
		r.conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := r.conn.Write(ping); err == nil {
			t.Error("a second PINGREQ is read while the first PINGRESP is unread")
		}
		r.conn.SetWriteDeadline(time.Time{})
		r.expect(packet.PINGRESP)
		r.send(ping)
		r.expect(packet.PINGRESP)
	})
}

// writeOnly swallows what is sent after the server has stopped to read.
type writeOnly struct{ net.Conn }

func (writeOnly) Write(b []byte) (int, error) { return len(b), nil }

func TestUnreadAcknowledgementsStayInOrder(t *testing.T) {
	h := newHub()
	inBubble(t, Config{Backend: h}, func(t *testing.T, p pipes) {
		r := p.dial(t, packet.V311).open("watch-1", nil)
		defer r.conn.Close()
		var all [][]byte
		for id := uint16(1); id <= 30; id++ {
			all = append(all, r.publish(id, "x"))
		}
		r.send(all...)
		synctest.Wait()
		group := h.pending
		for i := range group {
			settle(group[i:i+1], Stored())
			synctest.Wait()
		}
		for id := uint16(1); id <= 30; id++ {
			r.acks(id)
		}
	})
}

func TestTokensCarryTheirMessage(t *testing.T) {
	var q inflight
	var tokens []uint64
	next := uint16(0)
	for round := range 1000 {
		for range round % 7 {
			next++
			tokens = append(tokens, q.add(next))
		}
		for range round % 5 {
			if len(tokens) == 0 {
				break
			}
			q.done(tokens[0], Stored())
			if got := q.slot(q.head).id; !q.due() || got != uint16(tokens[0]>>8) || binary.BigEndian.Uint16([]byte{byte(tokens[0] >> 16), byte(tokens[0] >> 8)}) != got {
				t.Fatalf("round %d: slot of %d for token %x", round, got, tokens[0])
			}
			q.drop()
			tokens = tokens[1:]
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an outcome given twice is taken")
		}
	}()
	q.done(tokens[0], Stored())
	q.done(tokens[0], Stored())
}
