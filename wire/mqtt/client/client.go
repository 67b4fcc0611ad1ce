// Package client is a device's side of MQTT 3.1.1 and 5: it publishes with QoS
// 0 and 1, many messages in flight, and hears the topics it subscribes to. The
// demo's watch and the load generator are made of it.
//
// It owns one connection: connecting (Dial), open, closed for good (Done, Err);
// who wants another dials again. A message is in flight from Publish to its
// PUBACK, and nothing is sent twice. What is published is buffered until Flush,
// until the window of messages in flight is full, or, from within a callback,
// until the callback's batch is through, so that many messages share a write.
//
// It must not know what messages mean.
package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"carnet/wire/mqtt/packet"
)

// Config says where and as whom to connect.
type Config struct {
	Address  string         // host:port
	TLS      *tls.Config    // nil: plain TCP
	Version  packet.Version // default packet.V311
	ClientID string         // empty: the server's choice
	User     string
	Password []byte

	// KeepAlive is how often the client makes itself heard. Default 60 s.
	KeepAlive time.Duration
	// InFlight is how many messages of QoS 1 may await their acknowledgement,
	// unless the server's receive maximum is smaller. Default 16.
	InFlight int

	// Acknowledged hears of every PUBACK, and Received of every message, on the
	// connection's reading goroutine. Acknowledged may call Publish once, which
	// then does not wait; neither may wait for anything. Both are optional.
	Acknowledged func(Ack)
	Received     func(Message)
}

// Message is one message. What Received gets is valid during the call only.
type Message struct {
	Topic       string
	ContentType string // MQTT 5
	Payload     []byte
	QoS         byte // 0 or 1
	Tag         uint64
}

// Ack is what became of a message of QoS 1.
type Ack struct {
	Tag    uint64        // the message's
	Reason packet.Reason // always Success in 3.1.1
	Text   string        // the server's explanation, in MQTT 5
}

// Refusal is the server's no, to a CONNECT, a SUBSCRIBE or a whole session.
type Refusal struct {
	Packet packet.Type // CONNACK, SUBACK or DISCONNECT
	Reason packet.Reason
	Text   string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s: %s", r.Packet, cmp.Or(r.Text, r.Reason.String()))
}

// Client is one connection. Its methods are used concurrently.
type Client struct {
	cfg  Config
	conn net.Conn
	done chan struct{} // closed when the connection has ended
	ping *time.Timer

	wmu sync.Mutex // held while writing; locked before mu

	mu       sync.Mutex
	room     sync.Cond
	out      []byte   // not yet written
	spare    []byte   // the other buffer
	free     []uint16 // packet identifiers not in flight
	flights  []flight // by packet identifier
	inFlight int
	closing  bool  // Close has said goodbye
	err      error // why the connection ended
	suback   chan packet.Suback
	stats    Stats

	subscribing sync.Mutex // one SUBSCRIBE at a time
}

// flight is one message that awaits its PUBACK.
type flight struct {
	tag     uint64
	pending bool
}

// Stats counts messages.
type Stats struct {
	Published    int64 // handed to Publish
	Acknowledged int64 // accepted by the server
	Refused      map[packet.Reason]int64
	Received     int64
}

// subscribeID is the packet identifier of SUBSCRIBE, out of the window's range.
const subscribeID = 65_535

// Dial connects. A *Refusal says that the server did not want the device.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	cfg.Version = cmp.Or(cfg.Version, packet.V311)
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, time.Minute)
	cfg.InFlight = cmp.Or(cfg.InFlight, 16)
	if cfg.InFlight < 1 || cfg.InFlight >= subscribeID {
		return nil, fmt.Errorf("mqtt client: %d in flight, want 1 to %d", cfg.InFlight, subscribeID-1)
	}
	if cfg.KeepAlive < time.Second || cfg.KeepAlive > 65_535*time.Second {
		return nil, fmt.Errorf("mqtt client: keep alive %s, want 1 s to 65,535 s", cfg.KeepAlive)
	}
	conn, err := dial(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Address, err)
	}
	c, err := open(ctx, cfg, conn)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Address, err)
	}
	return c, nil
}

// open makes a client of a connection, which it closes on an error.
func open(ctx context.Context, cfg Config, conn net.Conn) (*Client, error) {
	c := &Client{cfg: cfg, conn: conn, done: make(chan struct{}), suback: make(chan packet.Suback, 1)}
	c.room.L = &c.mu
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := &reader{conn: conn}
	err := c.connect(r)
	if !stop() {
		err = cmp.Or(ctx.Err(), err)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.mu.Lock()
	c.ping = time.AfterFunc(c.cfg.KeepAlive, c.keepAlive)
	c.mu.Unlock()
	go c.read(r)
	return c, nil
}

func dial(ctx context.Context, cfg Config) (net.Conn, error) {
	if cfg.TLS != nil {
		return (&tls.Dialer{Config: cfg.TLS}).DialContext(ctx, "tcp", cfg.Address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", cfg.Address)
}

// connect sends CONNECT and reads CONNACK.
func (c *Client) connect(r *reader) error {
	p := packet.Connect{
		Version: c.cfg.Version, CleanStart: true, KeepAlive: uint16(c.cfg.KeepAlive / time.Second),
		ClientID: []byte(c.cfg.ClientID),
		HasUser:  c.cfg.User != "", User: []byte(c.cfg.User),
		HasPassword: c.cfg.Password != nil, Password: c.cfg.Password,
	}
	if _, err := c.conn.Write(packet.AppendConnect(nil, &p)); err != nil {
		return err
	}
	h, body, err := r.next()
	if err != nil {
		return err
	}
	if h.Type != packet.CONNACK {
		return fmt.Errorf("the server answers CONNECT with %s", h.Type)
	}
	ack, err := packet.ParseConnack(body, c.cfg.Version)
	if err != nil {
		return err
	}
	if ack.Reason != packet.Success {
		reason := ack.Reason
		if c.cfg.Version == packet.V311 {
			reason = reasonOf311(byte(reason))
		}
		return &Refusal{packet.CONNACK, reason, string(ack.Properties.Bytes(packet.ReasonString))}
	}
	c.adopt(&ack.Properties)
	return nil
}

// adopt takes over what the server has said of its limits.
func (c *Client) adopt(p *packet.Properties) {
	window := min(c.cfg.InFlight, int(p.UintOr(packet.ReceiveMaximum, 65_535)))
	if seconds, ok := p.Uint(packet.ServerKeepAlive); ok && seconds > 0 {
		c.cfg.KeepAlive = time.Duration(seconds) * time.Second
	}
	c.flights = make([]flight, window+1)
	for id := window; id > 0; id-- {
		c.free = append(c.free, uint16(id))
	}
}

// reasonOf311 turns a return code of 3.1.1's CONNACK (§3.2.2.3 there) into a
// reason.
func reasonOf311(code byte) packet.Reason {
	switch code {
	case 1:
		return packet.UnsupportedProtocolVersion
	case 2:
		return packet.ClientIDNotValid
	case 3:
		return packet.ServerUnavailable
	case 4:
		return packet.BadUserNameOrPassword
	case 5:
		return packet.NotAuthorized
	}
	return packet.UnspecifiedError
}

// Publish sends m, soon. With QoS 1 it waits while as many messages are in
// flight as may be. It keeps no reference to the payload.
func (c *Client) Publish(m Message) error {
	if m.QoS > 1 {
		return fmt.Errorf("publish with QoS %d: want 0 or 1", m.QoS)
	}
	c.mu.Lock()
	for m.QoS == 1 && len(c.free) == 0 && c.err == nil {
		if len(c.out) > 0 {
			c.mu.Unlock()
			c.Flush()
			c.mu.Lock()
			continue
		}
		c.room.Wait()
	}
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	p := packet.Publish{QoS: m.QoS, Topic: []byte(m.Topic), Payload: m.Payload}
	if m.QoS == 1 {
		p.ID = c.free[len(c.free)-1]
		c.free = c.free[:len(c.free)-1]
		c.flights[p.ID] = flight{m.Tag, true}
		c.inFlight++
	}
	if m.ContentType != "" && c.cfg.Version == packet.V5 {
		p.Properties.SetBytes(packet.ContentType, []byte(m.ContentType))
	}
	c.out = p.Append(c.out, c.cfg.Version)
	c.stats.Published++
	full := len(c.out) >= 32<<10
	c.mu.Unlock()
	if full {
		return c.Flush()
	}
	return nil
}

// Flush writes what is buffered.
func (c *Client) Flush() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	b, err := c.out, c.err
	c.out, c.spare = c.spare[:0], nil
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if len(b) > 0 {
		if _, err = c.conn.Write(b); err != nil {
			c.conn.Close() // its reader notices
		}
	}
	c.mu.Lock()
	c.spare = b
	c.mu.Unlock()
	return err
}

// Drain flushes and waits until nothing is in flight.
func (c *Client) Drain(ctx context.Context) error {
	if err := c.Flush(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		c.room.Broadcast()
		c.mu.Unlock()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.inFlight > 0 && c.err == nil && ctx.Err() == nil {
		c.room.Wait()
	}
	if c.inFlight == 0 {
		return nil
	}
	return cmp.Or(c.err, ctx.Err())
}

// Subscribe asks to hear topics that a filter admits, with QoS up to qos.
func (c *Client) Subscribe(ctx context.Context, filter string, qos byte) error {
	c.subscribing.Lock()
	defer c.subscribing.Unlock()
	p := packet.Subscribe{ID: subscribeID, Subscriptions: []packet.Subscription{{Filter: []byte(filter), QoS: qos}}}
	c.mu.Lock()
	c.out = packet.AppendSubscribe(c.out, &p, c.cfg.Version)
	c.mu.Unlock()
	if err := c.Flush(); err != nil {
		return err
	}
	select {
	case ack := <-c.suback:
		if len(ack.Reasons) != 1 || ack.Reasons[0].Failed() {
			r := &Refusal{Packet: packet.SUBACK, Reason: packet.ProtocolError, Text: string(ack.Text)}
			if len(ack.Reasons) == 1 {
				r.Reason = ack.Reasons[0]
			}
			return fmt.Errorf("subscribe to %s: %w", filter, r)
		}
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		c.conn.Close() // its SUBACK would answer the next SUBSCRIBE
		return ctx.Err()
	}
}

// ErrClosed is why a connection ended that Close ended.
var ErrClosed = errors.New("mqtt client: closed")

// Close says goodbye and closes the connection. What is in flight remains
// unknown: Drain first.
func (c *Client) Close() error {
	c.mu.Lock()
	c.out = packet.AppendDisconnect(c.out, packet.Success, "", c.cfg.Version)
	c.closing = true // the server's end is the answer, whoever notices it first
	c.mu.Unlock()
	err := c.Flush()
	c.end(ErrClosed)
	<-c.done
	return err
}

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended: a *Refusal when the server said, and
// nil while it is open.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Stats returns the counts now.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Refused = maps.Clone(s.Refused)
	return s
}

// InFlight returns how many messages await their acknowledgement.
func (c *Client) InFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inFlight
}

// end notes why the connection ends, unless that is known, and closes it.
func (c *Client) end(err error) {
	c.mu.Lock()
	if c.closing {
		err = ErrClosed
	}
	if c.err == nil {
		c.err = err
	}
	c.room.Broadcast()
	c.mu.Unlock()
	c.conn.Close()
}

func (c *Client) keepAlive() {
	c.mu.Lock()
	c.out = packet.AppendEmpty(c.out, packet.PINGREQ)
	c.mu.Unlock()
	if c.Flush() == nil {
		c.ping.Reset(c.cfg.KeepAlive)
	}
}
