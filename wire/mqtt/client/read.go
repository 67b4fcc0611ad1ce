package client

import (
	"fmt"
	"net"

	"carnet/wire/mqtt/packet"
)

// reader takes packets off a connection. Its buffer grows to the largest packet
// met.
type reader struct {
	conn     net.Conn
	buf      []byte
	from, to int
}

// largest bounds the packets that a client takes.
const largest = 1 << 20

// buffered returns the next packet that is already here; Type 0 when none is.
func (r *reader) buffered() (packet.Header, []byte, error) {
	h, err := packet.ParseHeader(r.buf[r.from:r.to])
	if err != nil {
		return h, nil, err
	}
	if h.Size > largest {
		return h, nil, fmt.Errorf("the server sends a packet of %d bytes", h.Size)
	}
	if h.Len == 0 || r.to-r.from < h.Len+h.Size {
		return packet.Header{}, nil, nil
	}
	r.from += h.Len + h.Size
	return h, r.buf[r.from-h.Size : r.from], nil
}

// next waits for the next packet.
func (r *reader) next() (packet.Header, []byte, error) {
	for {
		if h, body, err := r.buffered(); err != nil || h.Type != 0 {
			return h, body, err
		}
		if err := r.fill(); err != nil {
			return packet.Header{}, nil, err
		}
	}
}

func (r *reader) fill() error {
	held := r.buf[r.from:r.to]
	if len(held) == len(r.buf) {
		r.buf = make([]byte, max(1024, 2*len(r.buf)))
	}
	r.from, r.to = 0, copy(r.buf, held)
	n, err := r.conn.Read(r.buf[r.to:])
	r.to += n
	if n > 0 {
		return nil
	}
	return err
}

// read handles what the server sends until the connection ends.
func (c *Client) read(r *reader) {
	defer close(c.done)
	defer c.ping.Stop()
	for {
		h, body, err := r.buffered()
		if err == nil && h.Type != 0 {
			err = c.handle(h, body)
		} else if err == nil {
			if err = c.flushAnswers(); err == nil {
				err = r.fill()
			}
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

// flushAnswers writes what the callbacks of this batch have published, and the
// acknowledgements of what was received.
func (c *Client) flushAnswers() error {
	c.mu.Lock()
	some := len(c.out) > 0
	c.mu.Unlock()
	if !some {
		return nil
	}
	return c.Flush()
}

func (c *Client) handle(h packet.Header, body []byte) error {
	switch h.Type {
	case packet.PUBACK:
		return c.handleAck(body)
	case packet.PUBLISH:
		return c.handlePublish(h.Flags, body)
	case packet.SUBACK:
		ack, err := packet.ParseSuback(h.Type, body, c.cfg.Version)
		if err != nil || ack.ID != subscribeID {
			return fmt.Errorf("SUBACK for %d: %v", ack.ID, err)
		}
		ack.Text = append([]byte(nil), ack.Text...)
		select {
		case c.suback <- ack:
			return nil
		default:
			return fmt.Errorf("SUBACK that nobody waits for")
		}
	case packet.PINGRESP:
		return nil
	case packet.DISCONNECT:
		d, err := packet.ParseDisconnect(body, c.cfg.Version)
		if err != nil {
			return err
		}
		return &Refusal{packet.DISCONNECT, d.Reason, string(d.Properties.Bytes(packet.ReasonString))}
	}
	return fmt.Errorf("the server sends %s", h.Type)
}

func (c *Client) handleAck(body []byte) error {
	var p packet.Ack
	if err := p.Parse(body, c.cfg.Version); err != nil {
		return err
	}
	c.mu.Lock()
	if int(p.ID) >= len(c.flights) || !c.flights[p.ID].pending {
		c.mu.Unlock()
		return fmt.Errorf("PUBACK for %d, which is not in flight", p.ID)
	}
	ack := Ack{Tag: c.flights[p.ID].tag, Reason: p.Reason}
	c.flights[p.ID].pending = false
	c.free = append(c.free, p.ID)
	c.inFlight--
	if p.Reason.Failed() {
		ack.Text = string(p.Text)
		if c.stats.Refused == nil {
			c.stats.Refused = map[packet.Reason]int64{}
		}
		c.stats.Refused[p.Reason]++
	} else {
		c.stats.Acknowledged++
	}
	if c.cfg.Acknowledged == nil {
		c.room.Broadcast() // Publish or Drain may wait
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	c.cfg.Acknowledged(ack)
	c.mu.Lock()
	if len(c.free) > 0 {
		c.room.Broadcast()
	}
	c.mu.Unlock()
	return nil
}

func (c *Client) handlePublish(flags byte, body []byte) error {
	var p packet.Publish
	if err := p.Parse(flags, body, c.cfg.Version); err != nil {
		return err
	}
	c.mu.Lock()
	c.stats.Received++
	c.mu.Unlock()
	if c.cfg.Received != nil {
		c.cfg.Received(Message{
			Topic: string(p.Topic), ContentType: string(p.Properties.Bytes(packet.ContentType)),
			Payload: p.Payload, QoS: p.QoS,
		})
	}
	if p.QoS == 1 {
		c.mu.Lock()
		c.out = packet.AppendAck(c.out, p.ID, packet.Success, "", c.cfg.Version)
		c.mu.Unlock()
	}
	return nil
}
