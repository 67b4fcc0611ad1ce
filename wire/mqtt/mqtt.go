// Package mqtt ends device sessions of MQTT 3.1.1 and 5. It is an endpoint, not
// a broker: a device publishes to the agent and hears from it, and no device
// hears another.
//
// It owns connections: it parses packets, asks its Backend who is there, hands
// every message to that Device, and writes an acknowledgement when the Device
// says what became of the message, which is usually when a group of many
// messages has reached the disk. Later messages of a connection are handed over
// meanwhile; acknowledgements leave in the order of their messages (MQTT 5
// §4.6), all that are due in one write.
//
// A session is connecting (TLS, then CONNECT, within Limits.ConnectTimeout),
// open, or ending: nothing more is read, messages handed over are waited for
// when the end is orderly, DISCONNECT says why (MQTT 5), the connection closes.
// A session ends with its connection: Session Present is always 0.
//
// It must not know measurements, things, policies or stores. It keeps nothing
// across a restart.
package mqtt

import (
	"context"
	"crypto/tls"
	"net/netip"

	"carnet"
	"carnet/wire/mqtt/packet"
)

// Backend says who a connection is. It is used concurrently.
type Backend interface {
	// Authenticate returns the device behind c, or a *carnet.Error whose code
	// chooses the CONNACK (Unauthenticated, Forbidden, Unavailable, …) and whose
	// text a device of MQTT 5 reads. The context ends with the time to connect.
	Authenticate(ctx context.Context, c Connect) (Device, error)
}

// Connect is what a connection says about itself. Password is valid during the
// call only.
type Connect struct {
	ClientID string // as given; empty when the device leaves the choice to us
	User     string
	Password []byte
	Remote   netip.AddrPort       // zero when the transport has no such address
	TLS      *tls.ConnectionState // nil on a plain connection
	Version  packet.Version
}

// Device is an authenticated device, for one connection. Its methods are called
// by that connection's goroutine, one at a time.
type Device interface {
	// ID names the device: equal for all of its connections, and for no other
	// device's. A connection takes over the one with equal ID and client id.
	ID() string

	// Publish hands over one message. Exactly one sink.Done(token, …) follows,
	// from any goroutine, possibly before Publish returns. What m points to is
	// valid during the call only. Publish may block: that slows this connection
	// and no other.
	Publish(m Message, sink Sink, token uint64)

	// Broke says that the device sent what ends its session, and that nothing else
	// answers: a packet that is too large, QoS 2, what isn't MQTT. It comes at
	// most once, before Detach; what it sends to the session's Outbox leaves
	// before the end if the device reads.
	Broke(why *carnet.Error)

	// Subscribe says with which quality of service (0 or 1) the device may hear
	// a topic filter, or why not (a *carnet.Error).
	Subscribe(filter string) (maxQoS byte, err error)

	// Attach gives the device a way out to this session, after CONNACK; Detach
	// takes it back. Between a takeover's two connections the new one may be
	// attached before the old one is detached.
	Attach(Outbox)
	Detach(Outbox)
}

// Message is one published message; what it points to belongs to the
// connection's read buffer.
type Message struct {
	Topic       []byte
	ContentType []byte // MQTT 5; else empty
	Payload     []byte
	QoS         byte
	Retain      bool // 3.1.1 only, and without effect: nothing is retained
	Dup         bool
}

// Sink takes the outcomes of one connection's messages.
type Sink interface {
	// Done says what became of the message handed over with token. It only
	// takes note: no system call, no waiting, no allocation.
	Done(token uint64, o Outcome)

	// Flush has all acknowledgements that are due written soon, by another
	// goroutine. It never waits for the device. Call it once after the Done
	// calls of a group; after a Done inside Publish it is not needed.
	Flush()
}

// Outcome is what became of a message.
type Outcome struct {
	verdict verdict
	err     *carnet.Error
}

type verdict uint8

const (
	pending verdict = iota
	stored
	refused
	retry
)

// Stored is the outcome of a message that is on disk.
func Stored() Outcome { return Outcome{verdict: stored} }

// Refused is the outcome of a message that can never be accepted: acknowledged,
// in MQTT 5 with err's reason code and text.
func Refused(err *carnet.Error) Outcome { return Outcome{refused, err} }

// Retry is the outcome of a message that fails for the moment: it is not
// acknowledged. When everything before it has been, the connection is closed,
// in MQTT 5 with err's reason; the device then publishes it again.
func Retry(err *carnet.Error) Outcome { return Outcome{retry, err} }

// Outbox is the way to one connected device. It is used concurrently.
type Outbox interface {
	// Send queues a message when the session subscribes to topic, and says
	// whether it did. It keeps no reference to payload and never waits; a full
	// queue drops the message, counted in Stats. Queued is not delivered: what
	// the device has not acknowledged when its connection ends is not sent again.
	Send(topic, contentType string, payload []byte) bool

	// Cut ends the session, since who has it may not have it any more. It doesn't
	// wait; what is handed over afterwards is the domain's to refuse.
	Cut(why string)
}
