package link

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"carnet"
)

const (
	headerSize = 5        // length and type
	socketRead = 64 << 10 // bytes asked of the socket at once
	socketOut  = 64 << 10 // bytes given to the socket at once
)

// socket is the TCP connection below TLS. crypto/tls reads and writes record by
// record; socket turns what is at hand into one system call each way, and gives
// up when nothing moves for the idle time.
type socket struct {
	net.Conn
	idle time.Duration
	in   *bufio.Reader

	mu     sync.Mutex // crypto/tls also writes from reads: key updates, alerts
	corked bool       // owned by mu
	out    []byte     // owned by mu: what is collected while corked
}

func newSocket(c net.Conn, idle time.Duration) *socket {
	s := &socket{Conn: c, idle: idle}
	s.in = bufio.NewReaderSize(idleReader{s}, socketRead)
	return s
}

type idleReader struct{ s *socket }

func (r idleReader) Read(p []byte) (int, error) {
	if r.s.idle > 0 {
		if err := r.s.Conn.SetReadDeadline(time.Now().Add(r.s.idle)); err != nil {
			return 0, err
		}
	}
	return r.s.Conn.Read(p)
}

func (s *socket) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.corked {
		return s.push(p)
	}
	if len(s.out)+len(p) > socketOut {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

// cork collects what is written until uncork.
func (s *socket) cork() {
	s.mu.Lock()
	s.corked = true
	s.mu.Unlock()
}

func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	return s.flush()
}

func (s *socket) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.push(s.out)
	s.out = s.out[:0]
	return err
}

func (s *socket) push(p []byte) (int, error) {
	if s.idle > 0 {
		if err := s.Conn.SetWriteDeadline(time.Now().Add(s.idle)); err != nil {
			return 0, err
		}
	}
	return s.Conn.Write(p)
}

// conn carries messages over TLS: any goroutine writes, one reads.
type conn struct {
	codec codec
	sock  *socket
	tls   *tls.Conn

	writing sync.Mutex // keeps messages whole

	body []byte // owned by the reader: memory of the last message read
}

// writeRaw writes messages that are already encoded.
func (c *conn) writeRaw(parts ...[]byte) (err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.sock.cork()
	for _, p := range parts {
		if _, err = c.tls.Write(p); err != nil {
			break
		}
	}
	if flushed := c.sock.uncork(); err == nil {
		err = flushed
	}
	if err != nil {
		return fmt.Errorf("write to peer: %w", err)
	}
	return nil
}

// writeFrame writes a frame without copying it.
func (c *conn) writeFrame(frame []byte) error {
	var head [headerSize]byte
	putHeader(head[:], kindFrame, len(frame))
	return c.writeRaw(head[:], frame)
}

// write encodes one control message and writes it.
func (c *conn) write(k kind, m any) error {
	msg, err := c.codec.message(nil, k, m)
	if err != nil {
		return err
	}
	return c.writeRaw(msg)
}

// message appends an encoded control message with its header to dst.
func (c codec) message(dst []byte, k kind, m any) ([]byte, error) {
	body, err := c.enc.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message of type %d: %w", k, err)
	}
	if len(body) > k.limit(0) {
		return nil, carnet.Errorf(carnet.TooLarge, "message of type %d has %d bytes, the limit is %d", k, len(body), k.limit(0))
	}
	var head [headerSize]byte
	putHeader(head[:], k, len(body))
	return append(append(dst, head[:]...), body...), nil
}

func putHeader(head []byte, k kind, body int) {
	binary.BigEndian.PutUint32(head, uint32(body)+1)
	head[4] = byte(k)
}

// readHeader reads the next message's type and the length of its body, and
// refuses what is over the type's limit before any memory is taken for it.
func readHeader(r io.Reader, maxFrame int) (kind, int, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, fmt.Errorf("read from peer: %w", err)
	}
	n, k := binary.BigEndian.Uint32(head[:]), kind(head[4])
	limit := k.limit(maxFrame)
	if limit == 0 {
		return 0, 0, carnet.Errorf(carnet.Malformed, "message of unknown type %d", k)
	}
	if n < 1 || n-1 > uint32(limit) {
		return 0, 0, carnet.Errorf(carnet.TooLarge, "message of type %d says it has %d bytes, the limit is %d", k, n, limit)
	}
	return k, int(n) - 1, nil
}

// read returns the next message; the body is valid until the next read.
func (c *conn) read() (kind, []byte, error) {
	k, n, err := readHeader(c.tls, 0)
	if err != nil {
		return 0, nil, err
	}
	body, err := c.readBody(n)
	return k, body, err
}

func (c *conn) readBody(n int) ([]byte, error) {
	if cap(c.body) < n {
		c.body = make([]byte, n)
	}
	if _, err := io.ReadFull(c.tls, c.body[:n]); err != nil {
		return nil, fmt.Errorf("read from peer: %w", err)
	}
	return c.body[:n], nil
}

// expect reads the next message and decodes it into m; a Refuse in its place is
// returned as the error that it carries.
func (c *conn) expect(want kind, m any) error {
	k, body, err := c.read()
	switch {
	case err != nil:
		return err
	case k == kindRefuse:
		var r refuse
		if err := c.codec.decode(k, body, &r); err != nil {
			return err
		}
		return heard(r.Code, r.Reason, r.Fix)
	case k != want:
		return carnet.Errorf(carnet.Malformed, "peer sent a message of type %d where %d belongs", k, want)
	}
	return c.codec.decode(k, body, m)
}

func clip(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}
