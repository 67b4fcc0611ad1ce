package mqtt

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"carnet/wire/mqtt/packet"
)

// TestOutletNeverWaits writes more than the kernel takes to a device that does
// not read, and then reads it all.
func TestOutletNeverWaits(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	device, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	defer device.Close()
	conn, err := ln.Accept()
	must(t, err)
	drained := make(chan struct{}, 1)
	o := newOutlet(conn, time.Minute, func() { drained <- struct{}{} })

	var sent bytes.Buffer
	chunk := make([]byte, 64<<10)
	for i := range 1000 { // far more than the kernel's buffers; blocks here if Write waits
		for j := range chunk {
			chunk[j] = byte(i + j)
		}
		n, err := o.Write(chunk)
		if err != nil || n != len(chunk) {
			t.Fatalf("Write = %d, %v", n, err)
		}
		sent.Write(chunk)
		if o.blocked() && i > 100 {
			break
		}
	}
	if !o.blocked() {
		t.Fatal("the kernel took everything: nothing is tested")
	}
	must(t, o.Close()) // after what is left
	got, err := io.ReadAll(device)
	must(t, err)
	if !bytes.Equal(got, sent.Bytes()) {
		t.Errorf("the device reads %d bytes, not the %d that were sent", len(got), sent.Len())
	}
	<-drained
}

// bitBucket is a connection that takes everything and yields nothing.
type bitBucket struct{ net.Conn }

func (bitBucket) Write(b []byte) (int, error)     { return len(b), nil }
func (bitBucket) Read([]byte) (int, error)        { return 0, io.EOF }
func (bitBucket) SetReadDeadline(time.Time) error { return nil }
func (bitBucket) Close() error                    { return nil }
func (bitBucket) RemoteAddr() net.Addr            { return nil }

// detached makes an open session without a connection behind it.
func detached(t testing.TB, v packet.Version, h *hub) *session {
	s, err := New(Config{Backend: h, Log: slog.New(slog.DiscardHandler), Limits: Limits{PacketSize: 1 << 16}})
	must(t, err)
	place, _ := s.door.Enter(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, func() {})
	se := &session{srv: s, flusher: newFlusher(), place: place, conn: bitBucket{}, version: v, device: &watch{h, "watch-1"}, receiveMax: 8}
	se.space.L = &se.mu
	se.out = newOutlet(bitBucket{}, time.Second, se.resume)
	return se
}

func TestNoAllocationPerMessage(t *testing.T) {
	for _, v := range versions {
		h := newHub()
		var sink Sink
		var tokens []uint64
		h.publish = func(_ *watch, _ Message, s Sink, token uint64) { sink, tokens = s, append(tokens, token) }
		s := detached(t, v, h)
		p := packet.Publish{Topic: []byte("things/watch-1/measurements"), Payload: []byte("72"), QoS: 1, ID: 9}
		if v == packet.V5 {
			p.Properties.SetBytes(packet.ContentType, []byte("application/senml+json"))
		}
		one := p.Append(nil, v)
		many := bytes.Repeat(one, 16)
		if n := testing.AllocsPerRun(1000, func() {
			s.buf, s.from, s.to = many, 0, len(many)
			if err := s.packets(); err != nil {
				t.Fatal(err)
			}
			for _, token := range tokens {
				sink.Done(token, Stored())
			}
			tokens = tokens[:0]
			s.scratch = s.flush(s.scratch)
		}); n != 0 {
			t.Errorf("version %d: %.0f allocations for 16 messages", v, n)
		}
		if st := s.srv.Stats(); st.Acknowledged != 16*1001 {
			t.Errorf("version %d: %d acknowledged", v, st.Acknowledged)
		}
	}
}

// FuzzSession feeds a connection anything, as its first packet or in an open
// session: it must take it or end, and hand over only whole messages.
func FuzzSession(f *testing.F) {
	for _, v := range versions {
		p := packet.Publish{Topic: []byte("things/watch-1/measurements"), Payload: []byte("72"), QoS: 1, ID: 9}
		f.Add(byte(v), p.Append(nil, v))
		f.Add(byte(v), subscribe(v, 1, 1, "things/watch-1/refusals"))
		f.Add(byte(v), packet.AppendUnsubscribe(nil, &packet.Unsubscribe{ID: 1, Filters: [][]byte{[]byte("a")}}, v))
		f.Add(byte(v), packet.AppendDisconnect(nil, packet.ServerBusy, "why", v))
		f.Add(byte(v), packet.AppendConnect(nil, &packet.Connect{Version: v, Will: &p}))
		f.Add(byte(v)+128, packet.AppendConnect(nil, &packet.Connect{Version: v, Will: &p, HasUser: true, User: []byte("watch-1"), HasPassword: true, Password: []byte("1-hctaw")}))
		f.Add(byte(v)+128, packet.AppendConnect(nil, &packet.Connect{Version: v + 1}))
	}
	f.Fuzz(func(t *testing.T, v byte, data []byte) {
		version := packet.V311
		if v%2 == 1 {
			version = packet.V5
		}
		h := newHub()
		h.publish = func(_ *watch, m Message, s Sink, token uint64) {
			if len(m.Topic) == 0 || m.QoS > 1 {
				t.Errorf("handed over %+v", m)
			}
			s.Done(token, Stored())
		}
		s := detached(t, version, h)
		s.buf, s.to = data, len(data)
		if v >= 128 { // a connection's first packet
			s.device = nil
			if err := s.connect(t.Context()); err == nil && s.device == nil {
				t.Error("open without a device")
			}
			return
		}
		if err := s.packets(); err == nil && s.to-s.from > s.srv.cfg.Limits.PacketSize {
			t.Errorf("waits for a packet of more than %d bytes", s.to-s.from)
		}
		s.scratch = s.flush(s.scratch)
	})
}
