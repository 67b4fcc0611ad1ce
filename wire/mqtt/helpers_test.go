package mqtt

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
)

// hub is a backend with one device for each user "watch-…", whose password is
// the user name backwards. What is published waits for commit.
type hub struct {
	mu       sync.Mutex
	pending  []handed
	messages []string // payloads, in order of arrival
	tick     chan struct{}
	attached map[Outbox]string
	broke    []*carnet.Error
	outboxes chan Outbox // each one attached, when not nil
	publish  func(d *watch, m Message, sink Sink, token uint64)
}

type handed struct {
	sink  Sink
	token uint64
}

func newHub() *hub {
	return &hub{tick: make(chan struct{}, 1), attached: map[Outbox]string{}}
}

type watch struct {
	hub *hub
	id  string
}

func backwards(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

func (h *hub) Authenticate(_ context.Context, c Connect) (Device, error) {
	switch {
	case c.User == "watch-banned":
		return nil, carnet.Errorf(carnet.Forbidden, "the thing is suspended").WithFix("ask its owner")
	case c.User == "watch-broken":
		return nil, os.ErrClosed
	case !strings.HasPrefix(c.User, "watch-") || string(c.Password) != backwards(c.User):
		return nil, carnet.Errorf(carnet.Unauthenticated, "user name or password is wrong")
	}
	return &watch{h, c.User}, nil
}

func (d *watch) ID() string { return d.id }

func (d *watch) Publish(m Message, sink Sink, token uint64) {
	if d.hub.publish != nil {
		d.hub.publish(d, m, sink, token)
		return
	}
	d.hub.hold(m, sink, token)
}

// hold keeps a message for the next commit.
func (h *hub) hold(m Message, sink Sink, token uint64) {
	h.mu.Lock()
	h.pending = append(h.pending, handed{sink, token})
	if len(h.messages) < 1000 {
		h.messages = append(h.messages, string(m.Payload))
	}
	h.mu.Unlock()
	select {
	case h.tick <- struct{}{}:
	default:
	}
}

func (d *watch) Subscribe(filter string) (byte, error) {
	if !strings.HasPrefix(filter, "things/"+d.id+"/") {
		return 0, carnet.Errorf(carnet.Forbidden, "%s is not a topic of this thing", filter)
	}
	return 1, nil
}

func (d *watch) Broke(why *carnet.Error) {
	d.hub.mu.Lock()
	d.hub.broke = append(d.hub.broke, why)
	var to []Outbox
	for o, id := range d.hub.attached {
		if id == d.id {
			to = append(to, o)
		}
	}
	d.hub.mu.Unlock()
	for _, o := range to {
		o.Send("things/"+d.id+"/refusals", "application/json", []byte(why.Error()))
	}
}

func (d *watch) Attach(o Outbox) {
	d.hub.mu.Lock()
	d.hub.attached[o] = d.id
	outboxes := d.hub.outboxes
	d.hub.mu.Unlock()
	if outboxes != nil {
		outboxes <- o
	}
}

func (d *watch) Detach(o Outbox) {
	d.hub.mu.Lock()
	delete(d.hub.attached, o)
	d.hub.mu.Unlock()
}

// commit stores everything that is pending, as one group.
func (h *hub) commit(o Outcome) int {
	h.mu.Lock()
	group := h.pending
	h.pending = nil
	h.mu.Unlock()
	settle(group, o)
	return len(group)
}

func settle(group []handed, o Outcome) {
	sinks := map[Sink]struct{}{}
	for _, m := range group {
		m.sink.Done(m.token, o)
		sinks[m.sink] = struct{}{}
	}
	for s := range sinks {
		s.Flush()
	}
}

// commits commits whenever something is pending, each time after pause, which
// stands for an fsync.
func (h *hub) commits(ctx context.Context, pause time.Duration) {
	var group []handed
	dirty := map[Sink]struct{}{}
	for {
		select {
		case <-h.tick:
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		group, h.pending = h.pending, group[:0]
		h.mu.Unlock()
		if pause > 0 {
			time.Sleep(pause)
		}
		for _, m := range group {
			m.sink.Done(m.token, Stored())
			dirty[m.sink] = struct{}{}
		}
		for s := range dirty {
			s.Flush()
		}
		clear(dirty)
	}
}

// certificate makes a server's certificate for 127.0.0.1, and writes it and its
// key to files, for programs that want them there.
type certificate struct {
	server, client *tls.Config
	cert, key      string
}

func newCertificate(t testing.TB) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	dir := t.TempDir()
	c := certificate{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	must(t, os.WriteFile(c.cert, certPEM, 0o644))
	must(t, os.WriteFile(c.key, keyPEM, 0o644))
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	c.server = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	c.client = &tls.Config{RootCAs: roots, ServerName: "localhost"}
	return c
}

// serve runs a server on a random port until the test ends.
func serve(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, ln.Addr().String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logbook is a log that a test can read.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
