package postgres_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"

	"carnet/store/postgres"
	"carnet/thing"
)

// cutter stands between a store and its server. While armed, it passes a commit
// on and cuts the connection before the answer comes back.
type cutter struct {
	server string
	armed  atomic.Bool
}

func (c *cutter) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.server)
		if err != nil {
			client.Close()
			return
		}
		go func() {
			io.Copy(client, server)
			client.Close()
		}()
		go c.forward(client, server)
	}
}

func (c *cutter) forward(client, server net.Conn) {
	defer server.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if c.armed.Load() && bytes.Contains(buf[:n], []byte("commit\x00")) {
			client.Close()
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// TestLostAnswer loses the answer to a commit: the store can't say whether it
// was made, so it says that, and makes no further change.
func TestLostAnswer(t *testing.T) {
	ctx := t.Context()
	direct := server(t)
	schema := newSchema(t, direct)
	through, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cut := &cutter{server: through.Host}
	go cut.serve(l)
	through.Host = l.Addr().String()

	db, err := postgres.Open(ctx, through.String(), postgres.Options{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := db.Things(ctx)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(position uint64) error {
		return s.Commit(ctx, &thing.Group{Log: &thing.LogRow{First: position, Count: 1}})
	}
	if err := commit(0); err != nil {
		t.Fatal(err)
	}
	cut.armed.Store(true)
	if err := commit(1); !errors.Is(err, postgres.ErrDurability) {
		t.Fatalf("a lost answer got %v, want ErrDurability", err)
	}
	cut.armed.Store(false)
	for position := range uint64(3) {
		if err := commit(position); !errors.Is(err, postgres.ErrDurability) {
			t.Fatalf("a change after it got %v, want ErrDurability", err)
		}
	}
	if n, err := s.Totals(ctx); err != nil || n.LogNext < 1 || n.LogNext > 2 {
		t.Fatalf("reading got %+v, %v", n, err)
	}
}
