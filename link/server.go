package link

import (
	"crypto/tls"
	"log/slog"
	"time"

	"carnet"
)

// ServerConfig makes a Server. Zero durations and sizes take the defaults
// stated; the other fields are required, but for Alarm and Log.
type ServerConfig struct {
	Self        carnet.PartyID
	Certificate tls.Certificate
	// Peer finds the sender whose TLS key has the given pin. It is asked at each
	// connection, from many goroutines.
	Peer func(pin [32]byte) (Peer, bool)
	Sink Sink

	Window       int           // frames taken and not acknowledged, each connection; default 16, at most 1024
	MaxFrame     int           // bytes of a frame; default 4 MiB
	HelloTimeout time.Duration // from accept to Hello; default 10 s
	IdleTimeout  time.Duration // silence until a connection is given up; default 45 s
	CallTimeout  time.Duration // for one Sink.Call; default 10 s
	MaxPending   int           // connections that haven't said Hello; default 64

	// Alarm is told what a person must look at: forks, tampered frames, a
	// receiver that was restored from a backup. It must not block.
	Alarm func(party carnet.PartyID, err *carnet.Error)
	Log   *slog.Logger // default: none
}
