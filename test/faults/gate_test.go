package faults_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate stands between a party and its PostgreSQL server and passes on what they
// say, until it holds the party at a named statement. There the party is killed:
// its rows are then in exactly the state that the statement ends or begins.
type gate struct {
	server string // host:port

	mu    sync.Mutex
	hold  *hold // the next one; nil: everything passes
	holds []*hold
}

// hold is a point at which a party is held, once.
type hold struct {
	gate      *gate
	statement string   // part of the SQL
	arguments []string // parts of its arguments
	after     bool     // the answer to the commit is held, not the statement
	reached   chan struct{}
	passes    chan struct{}
	pass      func()
}

// newGate opens a gate to a server; address is where the party reaches it.
func newGate(t *testing.T, server string) (g *gate, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g = &gate{server: server}
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() { g.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		for _, h := range g.holds {
			h.pass()
		}
		sessions.Wait()
	})
	return g, l.Addr().String()
}

// before has the party held when it sends the statement, with these arguments.
func (g *gate) before(statement string, arguments ...string) *hold {
	return g.next(&hold{statement: statement, arguments: arguments})
}

// after has the party held when the transaction with the statement is committed,
// before it hears so.
func (g *gate) after(statement string, arguments ...string) *hold {
	return g.next(&hold{statement: statement, arguments: arguments, after: true})
}

func (g *gate) next(h *hold) *hold {
	h.gate, h.reached, h.passes = g, make(chan struct{}), make(chan struct{})
	h.pass = sync.OnceFunc(func() { close(h.passes) })
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold, g.holds = h, append(g.holds, h)
	return h
}

// take returns the hold if a statement is the one that it names, and lets all
// others pass from then on.
func (g *gate) take(statement string, arguments []byte) *hold {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hold
	if h == nil || !strings.Contains(statement, h.statement) {
		return nil
	}
	for _, a := range h.arguments {
		if !bytes.Contains(arguments, []byte(a)) {
			return nil
		}
	}
	g.hold = nil
	return h
}

// await waits until the party is held.
func (h *hold) await(t *testing.T) {
	t.Helper()
	select {
	case <-h.reached:
	case <-time.After(time.Minute): // what isn't told is asked after longer and longer
		t.Fatalf("the party says nothing like %q %v within a minute", h.statement, h.arguments)
	}
}

// session is one connection of a party to its server.
type session struct {
	gate           *gate
	client, server stream
	prepared       map[string]string // SQL by the statement's name
	due            *hold             // of the transaction under way: at its commit

	mu       sync.Mutex
	answered *hold // at the next answer to a commit
}

// stream is one end of a session. What is written goes when there is no more to pass on.
type stream struct {
	in  *bufio.Reader
	out *bufio.Writer
}

func newStream(conn net.Conn) stream {
	return stream{bufio.NewReaderSize(conn, 1<<16), bufio.NewWriterSize(conn, 1<<16)}
}

// pass passes on a message that was read at the other end; last: there are no more of them yet.
func (to stream) pass(message []byte, last bool) error {
	_, err := to.out.Write(message)
	if err == nil && last {
		err = to.out.Flush()
	}
	return err
}

func (g *gate) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", g.server)
	if err != nil {
		return // the party sees its server gone
	}
	defer server.Close()
	s := &session{gate: g, client: newStream(client), server: newStream(server), prepared: make(map[string]string)}
	var both sync.WaitGroup
	both.Go(func() {
		defer client.Close()
		s.answers()
	})
	s.statements()
	server.Close()
	both.Wait()
}

// statements passes on what the party says (PostgreSQL's manual, "Message
// Formats": a type, a length that counts itself, and a body; the first message has
// no type).
func (s *session) statements() {
	start := make([]byte, 4)
	if _, err := io.ReadFull(s.client.in, start); err != nil {
		return
	}
	body := make([]byte, binary.BigEndian.Uint32(start)-4)
	if _, err := io.ReadFull(s.client.in, body); err != nil {
		return
	}
	if err := s.server.pass(append(start, body...), true); err != nil {
		return
	}
	for {
		kind, message, err := readMessage(s.client.in)
		if err != nil {
			return
		}
		if h := s.look(kind, message[5:]); h != nil {
			s.server.out.Flush() // what is before it
			close(h.reached)
			<-h.passes
		}
		if err := s.server.pass(message, s.client.in.Buffered() == 0); err != nil {
			return
		}
	}
}

// look returns the hold if the party is to be held before a message.
func (s *session) look(kind byte, body []byte) *hold {
	statement := ""
	switch kind {
	case 'P': // Parse: a name, and the SQL
		name, sql, _ := bytes.Cut(body, []byte{0})
		sql, _, _ = bytes.Cut(sql, []byte{0})
		s.prepared[string(name)] = string(sql)
		return nil
	case 'B': // Bind: a portal, a statement's name, arguments
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _, _ := bytes.Cut(rest, []byte{0})
		statement = s.prepared[string(name)]
	case 'Q':
		statement = string(bytes.TrimRight(body, "\x00"))
	default:
		return nil
	}
	if s.due != nil && strings.EqualFold(statement, "commit") {
		s.mu.Lock()
		s.answered, s.due = s.due, nil
		s.mu.Unlock()
		return nil
	}
	h := s.gate.take(statement, body)
	if h != nil && h.after {
		s.due = h
		return nil
	}
	return h
}

// answers passes on what the server says.
func (s *session) answers() {
	for {
		kind, message, err := readMessage(s.server.in)
		if err != nil {
			return
		}
		s.mu.Lock()
		h := s.answered
		if h != nil && kind == 'C' && bytes.HasPrefix(message[5:], []byte("COMMIT")) {
			s.answered = nil
		} else {
			h = nil
		}
		s.mu.Unlock()
		if h != nil {
			s.client.out.Flush()
			close(h.reached)
			<-h.passes
		}
		if err := s.client.pass(message, s.server.in.Buffered() == 0); err != nil {
			return
		}
	}
}

func readMessage(r io.Reader) (kind byte, message []byte, err error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	message = append(head, make([]byte, binary.BigEndian.Uint32(head[1:])-4)...)
	_, err = io.ReadFull(r, message[5:])
	return head[0], message, err
}
