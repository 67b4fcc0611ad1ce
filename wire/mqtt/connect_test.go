package mqtt

import (
	"bytes"
	"encoding/hex"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"carnet/wire/mqtt/packet"
)

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
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "user=watch-1 ") {
		t.Errorf("whose password was wrong isn't in the log: %s", log.String())
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the password is in the log: %s", log.String())
	}
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
