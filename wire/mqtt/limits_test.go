package mqtt

import (
	"testing"
	"time"

	"carnet/wire/mqtt/packet"
)

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

// Connections that say nothing keep out nobody: not from another address, not from their
// own, and not if they come from several and have all places. Sessions stay.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	s, addr := serve(t, Config{Backend: newHub(), Limits: Limits{Connections: 8, Connecting: 2}})
	device := func(client string) func(*packet.Connect) {
		return func(p *packet.Connect) { p.ClientID = []byte(client) }
	}
	first := dialRaw(t, addr, packet.V5).open("watch-1", device("a"))
	dialRaw(t, addr, packet.V5).open("watch-1", device("b"))
	silent := dialRaw(t, addr, packet.V5)
	dialRaw(t, addr, packet.V5)
	dialRaw(t, addr, packet.V5)
	silent.closed()
	dialRaw(t, addr, packet.V5).open("watch-1", device("c"))
	for range 2 {
		dialFrom(t, "127.0.0.2", addr, packet.V5)
		dialFrom(t, "127.0.0.3", addr, packet.V5)
	}
	dialFrom(t, "127.0.0.4", addr, packet.V5).open("watch-2", nil)
	first.send(packet.AppendEmpty(nil, packet.PINGREQ))
	first.expect(packet.PINGRESP)
	for s.Stats().Open != 8 {
		time.Sleep(time.Millisecond)
	}
	if st := s.Stats(); st.Crowded != 3 || st.Connected != 4 {
		t.Errorf("%+v", st)
	}
}

// A device has so many sessions; the newest is refused, but for one that takes
// another's place.
func TestTooManySessionsOfADevice(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		s, addr := serve(t, Config{Backend: newHub(), Limits: Limits{DeviceSessions: 2}})
		connect := func(user, client string) *raw {
			r := dialRaw(t, addr, v)
			p := packet.Connect{Version: v, CleanStart: true, ClientID: []byte(client), HasUser: true, User: []byte(user), HasPassword: true, Password: []byte(backwards(user))}
			r.send(packet.AppendConnect(nil, &p))
			return r
		}
		taken := func(user, client string) *raw {
			t.Helper()
			r := connect(user, client)
			if ack := r.connack(); ack.Reason != packet.Success {
				t.Fatalf("%s %s is answered %v", user, client, ack.Reason)
			}
			return r
		}
		refused := func(user, client string) {
			t.Helper()
			want := packet.QuotaExceeded
			if v == packet.V311 {
				want = 3
			}
			r := connect(user, client)
			ack := r.connack()
			if text := string(ack.Properties.Bytes(packet.ReasonString)); ack.Reason != want || v == packet.V5 && text != "the device has 2 sessions open, which is all it may have; end one" {
				t.Errorf("%s %s is answered %v %q", user, client, ack.Reason, text)
			}
			r.closed()
		}
		first := taken("watch-1", "a")
		second := taken("watch-1", "b")
		refused("watch-1", "c")
		taken("watch-2", "c")
		again := taken("watch-1", "b")
		second.bye(packet.SessionTakenOver)
		refused("watch-1", "c")
		for _, r := range []*raw{first, again} {
			r.send(packet.AppendEmpty(nil, packet.PINGREQ))
			r.expect(packet.PINGRESP)
		}
		first.conn.Close()
		for open := 0; open != 2; {
			s.mu.Lock()
			open = len(s.sessions)
			s.mu.Unlock()
		}
		taken("watch-1", "c")
	})
}
