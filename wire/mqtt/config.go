package mqtt

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"carnet/porter"
)

// Config makes a Server.
type Config struct {
	// TLS holds the listener's certificate. Nil serves plain TCP, for tests.
	TLS *tls.Config
	// Backend knows the devices. Required.
	Backend Backend
	// Limits bound what a device can use; zero fields take their defaults.
	Limits Limits
	// Log hears of refused and broken connections. Required.
	Log *slog.Logger
}

// Limits bound what devices can use. A zero field takes its default.
type Limits struct {
	// Connections at once. For one more, the one that has waited longest without a
	// session is closed unanswered, at the address where most do; where all have one,
	// it is itself. Default 10,000.
	Connections int
	// Connecting is how many connections of one address (of IPv6, one /64) may be
	// without a session at once; for one more, that of them which has waited longest is
	// closed. Default a quarter of Connections, at least 1.
	Connecting int
	// DeviceSessions is how many sessions one device may have open, each with a
	// client id of its own; one more is refused. Default 16.
	DeviceSessions int
	// PacketSize is the largest packet accepted, in bytes, and announced to MQTT
	// 5. Default 256 KiB, at most 16 MiB.
	PacketSize int
	// ReceiveMaximum is how many messages of QoS 1 a connection may have
	// unacknowledged: announced to and demanded of MQTT 5; of 3.1.1 no more are
	// read. Default 64.
	ReceiveMaximum int
	// KeepAlive is the longest keep alive that MQTT 5 devices may choose
	// (announced as Server Keep Alive). Default 20 min.
	KeepAlive time.Duration
	// ConnectTimeout is the time for TLS, CONNECT and authentication. Default 10 s.
	ConnectTimeout time.Duration
	// WriteTimeout is how long a device may leave unread what is sent to it.
	// Default 10 s.
	WriteTimeout time.Duration
	// ShutdownTimeout is how long an orderly end waits for messages that were
	// handed over. Default 5 s.
	ShutdownTimeout time.Duration
	// Outgoing is how many messages to one device may wait. Default 64.
	Outgoing int
	// Subscriptions a connection may hold. Default 16.
	Subscriptions int
}

func (l Limits) withDefaults() (Limits, error) {
	for _, f := range []struct {
		name       string
		field      *int
		value, max int
	}{
		{"Connections", &l.Connections, 10_000, 1 << 20},
		{"DeviceSessions", &l.DeviceSessions, 16, 1 << 20},
		{"PacketSize", &l.PacketSize, 256 << 10, 16 << 20},
		{"ReceiveMaximum", &l.ReceiveMaximum, 64, 65_535},
		{"Outgoing", &l.Outgoing, 64, 65_535},
		{"Subscriptions", &l.Subscriptions, 16, 1024},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
		if *f.field < 1 || *f.field > f.max {
			return l, fmt.Errorf("mqtt limit %s is %d: want 1 to %d", f.name, *f.field, f.max)
		}
	}
	if l.Connecting == 0 {
		l.Connecting = max(1, l.Connections/4)
	}
	if l.Connecting < 1 || l.Connecting > l.Connections {
		return l, fmt.Errorf("mqtt limit Connecting is %d: want 1 to %d", l.Connecting, l.Connections)
	}
	for _, f := range []struct {
		name  string
		field *time.Duration
		value time.Duration
	}{
		{"KeepAlive", &l.KeepAlive, 20 * time.Minute},
		{"ConnectTimeout", &l.ConnectTimeout, 10 * time.Second},
		{"WriteTimeout", &l.WriteTimeout, 10 * time.Second},
		{"ShutdownTimeout", &l.ShutdownTimeout, 5 * time.Second},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
		if *f.field < 0 || *f.field > 18*time.Hour {
			return l, fmt.Errorf("mqtt limit %s is %s: want more than 0, at most 18h", f.name, *f.field)
		}
	}
	return l, nil
}

// New checks cfg and makes a Server of it.
func New(cfg Config) (*Server, error) {
	if cfg.Backend == nil || cfg.Log == nil {
		return nil, errors.New("mqtt: Backend and Log are required")
	}
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.Limits = limits
	return &Server{
		cfg: cfg, door: porter.New(limits.Connections, limits.Connecting),
		sessions: map[sessionKey]*session{}, devices: map[string]int{}, conns: map[*session]struct{}{},
	}, nil
}
