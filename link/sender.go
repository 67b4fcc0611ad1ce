package link

import (
	"crypto/tls"
	"log/slog"
	"time"

	"carnet"
)

// SenderConfig makes a Sender. Zero durations and sizes take the defaults
// stated; the other fields are required, but for Dial and Log.
type SenderConfig struct {
	Self        carnet.PartyID
	Peer        Peer // Party, Address and Pin; Key isn't used
	Certificate tls.Certificate
	Source      Source

	Window      int           // frames sent and not acknowledged; default 16, at most 1024
	DialTimeout time.Duration // until Welcome; default 10 s
	IdleTimeout time.Duration // silence until the connection is given up; default 30 s
	MinBackoff  time.Duration // default 100 ms
	MaxBackoff  time.Duration // default 15 s

	Log *slog.Logger // default: none
}

// Status is a sender's state for status pages.
type Status struct {
	Connected   bool
	Incarnation uint64
	Acked       uint64 // greatest acknowledged number
	InFlight    int    // frames sent and not acknowledged
	Connections uint64 // begun since the start
	LastError   string // why the last connection ended or could not be made
}
