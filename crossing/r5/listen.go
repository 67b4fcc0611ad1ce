package r5

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"carnet"
)

// pinOf returns the pin of a certificate: the SHA-256 of its SubjectPublicKeyInfo
// (RFC 5280 §4.1). Names, issuers and dates in it mean nothing.
func pinOf(cert *x509.Certificate) carnet.Fingerprint {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// What a caller may take before it is known who calls.
const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	maxHeaders = 32 << 10
)

// Serve takes connections until ctx ends. Each proves by mutual TLS that it is a
// peer's (RFC 8705 section 2); any other is cut off in the handshake.
func (s *Server) Serve(ctx context.Context, l net.Listener, cert tls.Certificate) error {
	server := &http.Server{
		Handler: s, TLSConfig: s.tlsConfig(cert), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		ending, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if server.Shutdown(ending) != nil {
			server.Close()
		}
	})
	defer stop()
	if err := server.ServeTLS(&listener{l}, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve calls between worlds: %w", err)
	}
	return nil
}

// tlsConfig is TLS 1.3 with this party's certificate. There are no session
// tickets, so both keys are proved on every connection.
func (s *Server) tlsConfig(cert tls.Certificate) *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert,
		NextProtos: []string{"h2", "http/1.1"}, SessionTicketsDisabled: true,
	}
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own := base.Clone()
		own.VerifyConnection = func(state tls.ConnectionState) error {
			err := s.admit(hello.Conn, state)
			if err != nil {
				s.note(hello.Context(), Decision{Time: s.cfg.Now(), Rule: PlatformRule, Reason: err.Error()})
			}
			return err
		}
		return own, nil
	}
	return config
}

// admit judges a peer in the handshake, and enters its connection.
func (s *Server) admit(raw net.Conn, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return carnet.Errorf(carnet.Unauthenticated, "no TLS key is shown")
	}
	pin := pinOf(state.PeerCertificates[0])
	peer, err := s.cfg.Peers.ByPin(pin)
	if err != nil {
		return err
	}
	if err := s.known(); err != nil {
		return err
	}
	c, ok := raw.(*conn)
	if !ok {
		return carnet.Errorf(carnet.Unavailable, "the connection of %s came by another listener", peer.Name)
	}
	if !s.live.connect(pin, c) {
		return carnet.Errorf(carnet.Unavailable, "%s has as many connections open as it may have", peer.Name)
	}
	c.entered(func() { s.live.disconnect(pin, c) })
	return nil
}

// listener gives connections that know whether they are entered.
type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

// conn is a peer's connection.
type conn struct {
	net.Conn

	mu     sync.Mutex // guards what follows
	leave  func()
	closed bool
}

func (c *conn) entered(leave func()) {
	c.mu.Lock()
	c.leave = leave
	closed := c.closed
	c.mu.Unlock()
	if closed {
		leave()
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	leave := c.leave
	c.closed = true
	c.mu.Unlock()
	if leave != nil {
		leave()
	}
	return c.Conn.Close()
}
