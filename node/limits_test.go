package node

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carnet/thing"
	"carnet/wire/mqtt"
)

// one is a listener with a single connection, for fake clocks.
type one struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l one) Close() error   { close(l.closed); return nil }
func (l one) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// call talks to a node's HTTP server over a pipe, with a fake clock.
func call(t *testing.T, talk func(t *testing.T, conn net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		server := newHTTPServer(nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), slog.New(slog.DiscardHandler))
		l := one{make(chan net.Conn, 1), make(chan struct{})}
		here, there := net.Pipe()
		l.conn <- there
		done := make(chan error)
		go func() { done <- server.Serve(l) }()
		here.SetDeadline(time.Now().Add(time.Hour)) // a hung test fails
		talk(t, here)
		here.Close()
		server.Close()
		<-done
		time.Sleep(time.Second) // a refused connection is closed half a second after its answer
	})
}

// Who sends headers byte by byte is cut off when their time is over.
func TestSlowHeadersAreCutOff(t *testing.T) {
	call(t, func(t *testing.T, conn net.Conn) {
		begin := time.Now()
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: hub\r\nX: ")
		for err == nil {
			time.Sleep(time.Second)
			_, err = io.WriteString(conn, "x")
		}
		if took := time.Since(begin); took > 11*time.Second {
			t.Errorf("it took %s, and %v", took, err)
		}
	})
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	call(t, func(t *testing.T, conn net.Conn) {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: hub\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		if a, err := http.ReadResponse(r, nil); err != nil || a.StatusCode != http.StatusOK {
			t.Fatal(a, err)
		}
		begin := time.Now()
		if _, err := r.ReadByte(); err != io.EOF || time.Since(begin) != 2*time.Minute {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}

func TestHugeHeadersAreRefused(t *testing.T) {
	for size, want := range map[int]int{60 << 10: http.StatusOK, 80 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		call(t, func(t *testing.T, conn net.Conn) {
			go fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: hub\r\nX: %s\r\n\r\n", strings.Repeat("x", size))
			a, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || a.StatusCode != want {
				t.Errorf("headers of %d bytes: %v, %v", size, a, err)
			}
		})
	}
}

func TestLimitsReachTheListeners(t *testing.T) {
	l := Limits{HTTPConnections: 8, MQTTConnections: 7, MQTTConnecting: 6, MQTTSessions: 5}
	if got := l.mqtt(); got != (mqtt.Limits{Connections: 7, Connecting: 6, DeviceSessions: 5}) {
		t.Errorf("MQTT has %+v", got)
	}
	owner := Limits{ThingsOfOwner: 1, DescriptionsOfOwner: 2, MappingsOfOwner: 3, ViewsOfOwner: 4}
	if got := owner.things(); got != (thing.Bounds{Things: 1, Descriptions: 2, Mappings: 3, Views: 4}) {
		t.Errorf("an owner has %+v", got)
	}
	for _, c := range []struct {
		limits      Limits
		ofOne, more int // places of one address, and of all others
	}{
		{l, 2, 6}, {Limits{HTTPConnections: 1}, 1, 0}, {Limits{}, 2048, 6144},
	} {
		door, ofOne, more := c.limits.http(), 0, 0
		for range 10_000 {
			if place, ok := door.Enter(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, nil); ok {
				place.Keep()
				ofOne++
			}
		}
		for i := range 10_000 {
			if place, ok := door.Enter(&net.TCPAddr{IP: net.IPv4(198, 51, byte(i>>8), byte(i))}, nil); ok {
				place.Keep()
				more++
			}
		}
		if ofOne != c.ofOne || more != c.more {
			t.Errorf("%+v: %d of one address, and %d", c.limits, ofOne, more)
		}
	}
}

// Who connects and says nothing, not even a greeting of TLS, is cut off as well.
func TestSilentConnectionsAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		none := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.EOF }}
		server := newHTTPServer(none, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
		l := one{make(chan net.Conn, 1), make(chan struct{})}
		here, there := net.Pipe()
		l.conn <- there
		done := make(chan error)
		go func() { done <- server.ServeTLS(l, "", "") }()
		here.SetDeadline(time.Now().Add(time.Hour)) // a hung test fails
		begin := time.Now()
		if _, err := here.Read(make([]byte, 1)); err != io.EOF || time.Since(begin) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		server.Close()
		<-done
	})
}
