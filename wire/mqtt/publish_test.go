package mqtt

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/wire/mqtt/packet"
)

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
				h.mu.Lock()
				defer h.mu.Unlock()
				if len(h.broke) != 1 {
					t.Errorf("the device's owner hears %v", h.broke)
				}
			})
		}
	}
}

// What ends a session has a trace: for the device's owner, who is told how much
// is too much; for the device, where it listens; in the log.
func TestWhatEndsASessionIsSaid(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(v packet.Version) []byte
		code carnet.Code
		says string
	}{
		{"oversize", func(v packet.Version) []byte {
			return (&packet.Publish{Topic: []byte("t"), QoS: 1, ID: 1, Payload: make([]byte, 1990)}).Append(nil, v)
		}, carnet.TooLarge, "bytes, and at most 1000 are taken"},
		{"QoS 2", func(v packet.Version) []byte {
			return (&packet.Publish{Topic: []byte("t"), QoS: 2, ID: 1}).Append(nil, v)
		}, carnet.Malformed, "publish with QoS 1"},
	} {
		for _, v := range versions {
			t.Run(fmt.Sprintf("%s/%d", c.name, v), func(t *testing.T) {
				h := newHub()
				var log logbook
				s, addr := serve(t, Config{Backend: h, Limits: Limits{PacketSize: 1000}, Log: slog.New(slog.NewTextHandler(&log, nil))})
				r := dialRaw(t, addr, v).open("watch-1", nil)
				r.send(subscribe(v, 1, 1, "things/watch-1/refusals"))
				r.expect(packet.SUBACK)
				r.send(c.send(v))
				if body := string(r.expect(packet.PUBLISH)); !strings.Contains(body, c.says) {
					t.Errorf("the device hears %q", body)
				}
				want := packet.QoSNotSupported
				if c.code == carnet.TooLarge {
					want = packet.PacketTooLarge
				}
				r.bye(want)
				h.mu.Lock()
				if len(h.broke) != 1 || h.broke[0].Code != c.code || !strings.Contains(h.broke[0].Error(), c.says) {
					t.Errorf("the device's owner hears %v", h.broke)
				}
				h.mu.Unlock()
				for s.Stats().Closed == 0 {
					time.Sleep(time.Millisecond)
				}
				if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "device=watch-1") || s.Stats().Malformed != 1 {
					t.Errorf("%d counted; the log says\n%s", s.Stats().Malformed, text)
				}
			})
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
