package mqtt

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet/wire/mqtt/packet"
)

func subscribe(v packet.Version, id uint16, qos byte, filters ...string) []byte {
	p := packet.Subscribe{ID: id}
	for _, f := range filters {
		p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: []byte(f), QoS: qos})
	}
	return packet.AppendSubscribe(nil, &p, v)
}

// Of many filters that are refused, each is answered and a few are told why.
func TestManyRefusedFilters(t *testing.T) {
	_, addr := serve(t, Config{Backend: newHub()})
	r := dialRaw(t, addr, packet.V5).open("watch-1", nil)
	r.send(subscribe(packet.V5, 10, 1, slices.Repeat([]string{"x"}, 10_000)...))
	ack, err := packet.ParseSuback(packet.SUBACK, r.expect(packet.SUBACK), packet.V5)
	must(t, err)
	if n := strings.Count(string(ack.Text), "not a topic"); len(ack.Reasons) != 10_000 || n != toldTexts {
		t.Errorf("%d reasons, %d told why: %.200q", len(ack.Reasons), n, ack.Text)
	}
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

// Who is cut off hears why, and nothing that it sends afterwards is handed over.
func TestCut(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		h := newHub()
		h.outboxes = make(chan Outbox, 1)
		_, addr := serve(t, Config{Backend: h})
		r := dialRaw(t, addr, v).open("watch-1", nil)
		out := <-h.outboxes
		out.Cut("another password")
		out.Cut("again")
		if text := r.bye(packet.NotAuthorized); v == packet.V5 && text != "another password" {
			t.Errorf("it is told %q", text)
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
