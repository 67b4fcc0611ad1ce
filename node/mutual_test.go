package node

import (
	"crypto/tls"
	"crypto/x509"
	"io"
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

func (b *courteous) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}
