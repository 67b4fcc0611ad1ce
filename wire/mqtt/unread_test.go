package mqtt

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"carnet/wire/mqtt/packet"
)

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
