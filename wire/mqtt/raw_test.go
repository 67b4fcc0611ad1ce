package mqtt

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
	return dialFrom(t, "127.0.0.1", addr, v)
}

// dialFrom connects from an address of this machine.
func dialFrom(t testing.TB, from, addr string, v packet.Version) *raw {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", addr)
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
