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
	"time"

	"carnet"
	"carnet/porter"
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
		Handler: porter.TellPanics(s, s.cfg.Log), TLSConfig: s.tlsConfig(cert), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ConnState:   s.connState,
		ConnContext: withConn,
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
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve calls between worlds: %w", err)
	}
	return nil
}

type connKey struct{}

// withConn has calls know their connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		ctx = context.WithValue(ctx, connKey{}, t.NetConn())
	}
	return porter.WithConn(ctx, c)
}

func connOf(ctx context.Context) net.Conn {
	c, _ := ctx.Value(connKey{}).(net.Conn)
	return c
}

// tlsConfig is TLS 1.3 with this party's certificate. There are no session
// tickets, so both keys are proved on every connection.
func (s *Server) tlsConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true,
		NextProtos: []string{"h2", "http/1.1"},
		// Not required by TLS, whose alert would be another than that of VerifyConnection.
		ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := s.known(state)
			if err != nil {
				s.note(context.Background(), Decision{Time: s.cfg.Now(), Rule: ruleOf(err), Reason: err.Error()})
			}
			return err
		},
	}
}

// known says whose connection it is, if calls may come by it.
func (s *Server) known(state tls.ConnectionState) (carnet.Fingerprint, error) {
	if len(state.PeerCertificates) == 0 {
		return carnet.Fingerprint{}, refusal(PlatformRule, carnet.Errorf(carnet.Unauthenticated, "no TLS key is shown"))
	}
	pin := pinOf(state.PeerCertificates[0])
	if _, err := s.cfg.Peers.ByPin(pin); err != nil {
		return pin, refusal(PlatformRule, err)
	}
	return pin, s.fresh()
}

// connState enters connections once their keys are proved, so that they can be
// closed with their peering.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	t, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		certs := t.ConnectionState().PeerCertificates
		if len(certs) > 0 && s.live.connected(pinOf(certs[0]), t.NetConn()) {
			return // it was idle, and Run ends it if it must
		}
		pin, err := s.known(t.ConnectionState())
		if err == nil && !s.live.connect(pin, t.NetConn()) {
			err = carnet.Errorf(carnet.Unavailable, "the peer has as many connections open as it may have")
		}
		if err != nil {
			s.cfg.Log.Info("a connection for calls between worlds is closed", "remote", c.RemoteAddr(), "err", err)
			t.NetConn().Close()
		}
	case http.StateHijacked:
		if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
			s.live.take(pinOf(certs[0]), t.NetConn())
		}
	case http.StateClosed:
		if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
			s.live.disconnect(pinOf(certs[0]), t.NetConn())
		}
	}
}
