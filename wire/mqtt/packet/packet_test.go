package packet

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// body checks the fixed header of b and returns what follows it.
func body(t testing.TB, b []byte) (Header, []byte) {
	t.Helper()
	h, err := ParseHeader(b)
	if err != nil || h.Len == 0 || len(b) != h.Len+h.Size {
		t.Fatalf("ParseHeader(%x) = %+v, %v", b, h, err)
	}
	return h, b[h.Len:]
}

func TestConnectOfTheSpecification(t *testing.T) {
	// The variable header of Figure 3-6 (§3.1.2.12): user name, password, will
	// of QoS 1, clean start, keep alive 10, session expiry 10.
	b := unhex(t, "10 2b 0004 4d515454 05 ce 000a 05 11 0000000a 0002 6964 00 0004 77696c6c 0003 6f6666 0002 7573 0003 707764")
	b[1] = byte(len(b) - 2)
	_, data := body(t, b)
	p, err := ParseConnect(data)
	if err != nil {
		t.Fatal(err)
	}
	if expiry, _ := p.Properties.Uint(SessionExpiry); expiry != 10 {
		t.Errorf("session expiry %d, want 10", expiry)
	}
	if p.Version != V5 || !p.CleanStart || p.KeepAlive != 10 || string(p.ClientID) != "id" || string(p.User) != "us" || string(p.Password) != "pwd" {
		t.Errorf("got %+v", p)
	}
	if w := p.Will; w == nil || w.QoS != 1 || w.Retain || string(w.Topic) != "will" || string(w.Payload) != "off" {
		t.Errorf("will %+v", p.Will)
	}
	if again := AppendConnect(nil, &p); !reflect.DeepEqual(again, b) {
		t.Errorf("appended %x, want %x", again, b)
	}
}

func TestPublishOfTheSpecification(t *testing.T) {
	// Figure 3-9 (§3.3.2.4): topic a/b, packet identifier 10, no properties.
	p := Publish{QoS: 1, ID: 10, Topic: []byte("a/b")}
	if got, want := p.Append(nil, V5), unhex(t, "32 08 0003 612f62 000a 00"); !reflect.DeepEqual(got, want) {
		t.Errorf("appended %x, want %x", got, want)
	}
	p.Payload = []byte("23")
	p.Properties.SetBytes(ContentType, []byte("application/senml+json"))
	for _, v := range []Version{V311, V5} {
		var got Publish
		h, data := body(t, p.Append(nil, v))
		if err := got.Parse(h.Flags, data, v); err != nil {
			t.Fatal(err)
		}
		if got.ID != 10 || got.QoS != 1 || string(got.Topic) != "a/b" || string(got.Payload) != "23" {
			t.Errorf("version %d: got %+v", v, got)
		}
		if got := string(got.Properties.Bytes(ContentType)); (got != "") != (v == V5) {
			t.Errorf("version %d: content type %q", v, got)
		}
	}
}

func TestSubscribeOfTheSpecification(t *testing.T) {
	// Figure 3-20 of 3.1.1: a/b with QoS 1, c/d with QoS 2.
	b := unhex(t, "82 0e 000a 0003 612f62 01 0003 632f64 02")
	_, data := body(t, b)
	p, err := ParseSubscribe(data, V311)
	if err != nil || p.ID != 10 || len(p.Subscriptions) != 2 || string(p.Subscriptions[1].Filter) != "c/d" || p.Subscriptions[1].QoS != 2 {
		t.Fatalf("got %+v, %v", p, err)
	}
	if again := AppendSubscribe(nil, &p, V311); !reflect.DeepEqual(again, b) {
		t.Errorf("appended %x, want %x", again, b)
	}
	// Figure 3-26 of 3.1.1: granted 0, 2, failure.
	_, data = body(t, AppendSuback(nil, SUBACK, 10, []Reason{0, 2, 0x80}, "", V311))
	if a, err := ParseSuback(SUBACK, data, V311); err != nil || !reflect.DeepEqual(a.Reasons, []Reason{0, 2, 0x80}) {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestAcknowledgements(t *testing.T) {
	for _, c := range []struct {
		name    string
		reason  Reason
		text    string
		version Version
		want    string
	}{
		{"3.1.1 has no reason", NotAuthorized, "why", V311, "40 02 1234"},
		{"success is two bytes", Success, "", V5, "40 02 1234"},
		{"reason alone", NotAuthorized, "", V5, "40 03 1234 87"},
		{"reason and text", NotAuthorized, "no", V5, "40 09 1234 87 05 1f 0002 6e6f"},
	} {
		got := AppendAck(nil, 0x1234, c.reason, c.text, c.version)
		if want := unhex(t, c.want); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: appended %x, want %x", c.name, got, want)
		}
		var p Ack
		_, data := body(t, got)
		if err := p.Parse(data, c.version); err != nil || p.ID != 0x1234 {
			t.Errorf("%s: parsed %+v, %v", c.name, p, err)
		}
		if c.version == V5 && (p.Reason != c.reason || string(p.Text) != c.text) {
			t.Errorf("%s: parsed %+v", c.name, p)
		}
	}
}

func TestRefusesWhatIsMalformed(t *testing.T) {
	connect := func(s string) func([]byte) error {
		return func([]byte) error { _, err := ParseConnect(unhex(t, s)); return err }
	}
	publish := func(flags byte, v Version, s string) func([]byte) error {
		return func([]byte) error { var p Publish; return p.Parse(flags, unhex(t, s), v) }
	}
	subscribe := func(v Version, s string) func([]byte) error {
		return func([]byte) error { _, err := ParseSubscribe(unhex(t, s), v); return err }
	}
	header := func(s string) func([]byte) error {
		return func([]byte) error { _, err := ParseHeader(unhex(t, s)); return err }
	}
	for _, c := range []struct {
		name  string
		parse func([]byte) error
		want  Reason
	}{
		{"packet type 0", header("00 00"), MalformedPacket},
		{"reserved flags of SUBSCRIBE", header("80 00"), MalformedPacket},
		{"reserved flags of PINGREQ", header("c1 00"), MalformedPacket},
		{"length of five bytes", header("30 80 80 80 80 01"), MalformedPacket},
		{"length longer than needed", header("30 81 00"), MalformedPacket},
		{"protocol of another name", connect("0004 4d515458 04 02 0000 0000"), UnsupportedProtocolVersion},
		{"MQTT 3.1", connect("0006 4d5149736470 03 02 0000 0000"), UnsupportedProtocolVersion},
		{"reserved connect flag", connect("0004 4d515454 04 03 0000 0000"), MalformedPacket},
		{"will flags without a will", connect("0004 4d515454 04 22 0000 0000"), MalformedPacket},
		{"will of QoS 3", connect("0004 4d515454 04 1e 0000 0000 0001 61 0000"), MalformedPacket},
		{"3.1.1 password without user", connect("0004 4d515454 04 42 0000 0000 0001 61"), MalformedPacket},
		{"connect with a tail", connect("0004 4d515454 04 02 0000 0000 00"), MalformedPacket},
		{"connect cut short", connect("0004 4d515454 04 02 00"), MalformedPacket},
		{"property twice", connect("0004 4d515454 05 02 0000 0a 11 00000001 11 00000001 0000"), ProtocolError},
		{"receive maximum 0", connect("0004 4d515454 05 02 0000 03 21 0000 0000"), ProtocolError},
		{"request problem 2", connect("0004 4d515454 05 02 0000 02 17 02 0000"), ProtocolError},
		{"property of another packet", connect("0004 4d515454 05 02 0000 03 23 0001 0000"), ProtocolError},
		{"property that does not exist", connect("0004 4d515454 05 02 0000 02 7f 00 0000"), MalformedPacket},
		{"authentication data alone", connect("0004 4d515454 05 02 0000 04 16 0001 61 0000"), ProtocolError},
		{"QoS 3", publish(6, V311, "0001 61 0001"), MalformedPacket},
		{"QoS 0 and dup", publish(8, V311, "0001 61"), MalformedPacket},
		{"packet identifier 0", publish(2, V311, "0001 61 0000"), ProtocolError},
		{"wildcard in a topic", publish(0, V5, "0003 612f23 00"), MalformedPacket},
		{"empty topic in 3.1.1", publish(0, V311, "0000"), MalformedPacket},
		{"topic not UTF-8", publish(0, V311, "0001 ff"), MalformedPacket},
		{"topic with a surrogate", publish(0, V311, "0003 eda080"), MalformedPacket},
		{"topic with U+0000", publish(0, V311, "0001 00"), MalformedPacket},
		{"properties longer than the packet", publish(0, V5, "0001 61 05 01"), MalformedPacket},
		{"no topic filter", subscribe(V5, "0001 00"), ProtocolError},
		{"reserved option bits", subscribe(V5, "0001 00 0001 61 c0"), MalformedPacket},
		{"retain handling 3", subscribe(V5, "0001 00 0001 61 30"), MalformedPacket},
		{"3.1.1 with options of 5", subscribe(V311, "0001 0001 61 04"), MalformedPacket},
		{"no local and shared", subscribe(V5, "0001 00 000a 2473686172652f612f62 04"), ProtocolError},
	} {
		err := c.parse(nil)
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason != c.want {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestHeaderWaitsForMore(t *testing.T) {
	for _, s := range []string{"", "30", "30 80", "30 ff ff ff"} {
		if h, err := ParseHeader(unhex(t, s)); err != nil || h.Len != 0 {
			t.Errorf("ParseHeader(%s) = %+v, %v; want to wait", s, h, err)
		}
	}
	if h, err := ParseHeader(unhex(t, "30 ff ff ff 7f")); err != nil || h.Size != MaxSize {
		t.Errorf("largest length: %+v, %v", h, err)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{ // the examples of §4.7.1
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/x", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/x", true},
		{"ACCOUNTS", "Accounts", false},
	} {
		if got := Match(c.filter, c.topic); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.filter, c.topic, got)
		}
	}
	for filter, want := range map[string]bool{"#": true, "a/#": true, "a/+/b": true, "": false, "a#": false, "a/#/b": false, "a+": false, "a/b+/c": false, "/": true} {
		if ValidFilter([]byte(filter)) != want {
			t.Errorf("ValidFilter(%q) = %v", filter, !want)
		}
	}
}
