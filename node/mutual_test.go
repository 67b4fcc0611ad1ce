package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carnet"
)

// A peer has so many calls under way, and its bodies come in time: then its places are
// free again.
func TestAPeerDoesNotHoldCallsWithoutEnd(t *testing.T) {
	entered := make(chan struct{})
	c := &courteous{most: 2, within: 100 * time.Millisecond, open: make(map[carnet.Fingerprint]int), handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("half a body is read")
		}
	})}
	as := func(peer string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{RawSubjectPublicKeyInfo: []byte(peer)}}}
			c.ServeHTTP(w, r)
		}
	}
	s := httptest.NewServer(as("arena"))
	defer s.Close()
	for round := range 2 { // again, once the first two have been cut off
		for range 2 {
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: vault\r\nContent-Length: 100\r\n\r\nhalf"); err != nil {
				t.Fatal(err)
			}
			<-entered
		}
		if round == 0 {
			w := httptest.NewRecorder()
			as("arena")(w, httptest.NewRequest("POST", "/", strings.NewReader("whole")))
			if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "under way") {
				t.Errorf("the third call is answered with %d %s", w.Code, w.Body)
			}
		}
		for c.count() > 0 {
			if t.Context().Err() != nil {
				t.Fatal("they are never cut off")
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// Silent connections from as many addresses as have all places keep no other out of a
// node's HTTP listener; a call of a peer's that is under way stays.
func TestSilentConnectionsKeepNobodyOutOfHTTP(t *testing.T) {
	address, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{config: Config{Limits: Limits{HTTPConnections: 4}}, log: slog.New(slog.DiscardHandler), inbound: inbound{conns: make(map[net.Conn]carnet.PartyID)}}
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	c := &courteous{most: 2, within: time.Minute, open: make(map[carnet.Fingerprint]int), handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-leave
		}
	})}
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	if err := n.serveHTTP(address, &tls.Config{Certificates: cert.TLS.Certificates, ClientAuth: tls.RequestClientCert}, c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.work[0](ctx) }()
	defer func() { cancel(); <-ended }()
	from := func(ip string) *net.Dialer { return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}} }
	get := func(ip, path string) error {
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true, DialContext: from(ip).DialContext,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: cert.TLS.Certificates},
		}}
		answer, err := client.Get("https://" + address + path)
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	slow := make(chan error, 1)
	go func() { slow <- get("127.0.0.1", "/slow") }()
	<-entered
	for _, ip := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"} {
		silent, err := from(ip).Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	if err := get("127.0.0.6", "/"); err != nil {
		t.Errorf("who comes from another address: %v", err)
	}
	close(leave)
	if err := <-slow; err != nil {
		t.Errorf("the call under way: %v", err)
	}
}

func (b *courteous) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}
