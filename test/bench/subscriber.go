package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"carnet"

	"golang.org/x/sync/errgroup"
)

// subscribers hold many WebSockets (RFC 6455) open, as cheaply as they can be held,
// and note when each is closed. They answer a close frame once all have one, so that
// the answers, which would come from other machines, don't take the processors of what
// is measured.
type subscribers struct {
	address, path, token string
	tls                  *tls.Config
	over                 chan struct{} // closed once all have a close frame, or the measuring ends
	once                 sync.Once

	reading sync.WaitGroup
	mu      sync.Mutex // guards what follows
	open    map[*subscriber]bool
	closed  []time.Time
	broken  int // that ended without a close frame
}

// subscribe opens n subscriptions to an avatar with a token, and returns once each
// has begun.
func (p *party) subscribe(ctx context.Context, n int, id carnet.AvatarID, token string) (*subscribers, error) {
	config := p.trust.Clone()
	config.NextProtos, config.ClientSessionCache = []string{"http/1.1"}, tls.NewLRUClientSessionCache(64)
	s := &subscribers{
		address: p.config.Listen.HTTP, path: "/v1/avatars/" + id.String() + "/live", token: token, tls: config, over: make(chan struct{}),
		open: make(map[*subscriber]bool),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for range n {
		group.Go(func() error { return s.begin(ctx) })
	}
	if err := group.Wait(); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// begin opens a subscription and waits for its first event, which says where it
// begins.
func (s *subscribers) begin(ctx context.Context) error {
	conn, err := (&tls.Dialer{Config: s.tls}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	c := &subscriber{conn: conn, in: bufio.NewReaderSize(conn, 1024)}
	if err := c.shake(s.path, s.token); err != nil {
		return errors.Join(fmt.Errorf("subscribe: %w", err), conn.Close())
	}
	if kind, err := c.frame(); err != nil || kind != textFrame {
		return errors.Join(fmt.Errorf("subscribe: the first frame is of kind %d, %v", kind, err), conn.Close())
	}
	s.mu.Lock()
	s.open[c] = true
	s.mu.Unlock()
	s.reading.Go(func() { s.read(c) })
	return nil
}

// read reads until the party closes.
func (s *subscribers) read(c *subscriber) {
	for {
		kind, err := c.frame()
		if err == nil && kind != closeFrame {
			continue
		}
		now := time.Now()
		s.mu.Lock()
		s.closed = append(s.closed, now)
		delete(s.open, c)
		if err != nil {
			s.broken++
		}
		s.mu.Unlock()
		if <-s.over; err == nil {
			_ = c.answer(closeFrame, nil) // the party may be gone already
		}
		c.conn.Close()
		return
	}
}

// end closes what is open.
func (s *subscribers) end() {
	s.once.Do(func() { close(s.over) })
	s.mu.Lock()
	for c := range s.open {
		c.conn.Close()
	}
	s.mu.Unlock()
	s.reading.Wait()
}

// wait waits until the party has closed every subscription.
func (s *subscribers) wait(ctx context.Context, limit time.Duration) error {
	for end := time.Now().Add(limit); ; {
		s.mu.Lock()
		left := len(s.open)
		s.mu.Unlock()
		switch {
		case left == 0:
			s.once.Do(func() { close(s.over) })
			s.reading.Wait()
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%d subscriptions are still open after %s", left, limit)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// subscriber is one WebSocket.
type subscriber struct {
	conn net.Conn
	in   *bufio.Reader
}

// shake is the handshake (RFC 6455 §4.1). The key says nothing of anybody.
func (c *subscriber) shake(path, token string) error {
	_, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n", path, token)
	if err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		text, err := io.ReadAll(io.LimitReader(answer.Body, 1000))
		return errors.Join(fmt.Errorf("%s: %s", answer.Status, text), err)
	}
	return nil
}

// Kinds of frames (RFC 6455 §5.2), and the bit that says that one is whole.
const (
	textFrame, closeFrame, pingFrame, pongFrame = 1, 8, 9, 10

	whole = 0x80
)

// frame reads the next frame, answers a ping, and passes over what it holds.
func (c *subscriber) frame() (kind byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, err
	}
	size, more := int64(head[1]&0x7f), 0
	switch size {
	case 126:
		more = 2
	case 127:
		more = 8
	}
	if more > 0 {
		var long [8]byte
		if _, err := io.ReadFull(c.in, long[8-more:]); err != nil {
			return 0, err
		}
		size = int64(binary.BigEndian.Uint64(long[:]))
	}
	if kind = head[0] & 0x0f; kind == pingFrame && size < 126 {
		body := make([]byte, size)
		if _, err := io.ReadFull(c.in, body); err != nil {
			return kind, err
		}
		return kind, c.answer(pongFrame, body)
	}
	_, err = io.CopyN(io.Discard, c.in, size)
	return kind, err
}

// answer writes a frame, masked with zeros.
func (c *subscriber) answer(kind byte, body []byte) error {
	_, err := c.conn.Write(append([]byte{whole | kind, whole | byte(len(body)), 0, 0, 0, 0}, body...))
	return err
}
