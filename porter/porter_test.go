package porter

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

func from(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }

func TestPlaces(t *testing.T) {
	p := New(5, 2)
	enter := func(addr net.Addr, want bool) (leave func()) {
		t.Helper()
		leave, ok := p.Enter(addr)
		if ok != want {
			t.Errorf("%v is let in: %t", addr, ok)
		}
		return leave
	}
	first := enter(from("192.0.2.1"), true)
	enter(from("::ffff:192.0.2.1"), true) // the same address
	enter(from("192.0.2.1"), false)
	enter(from("2001:db8:1:1::1"), true)
	enter(from("2001:db8:1:1:ffff::1"), true) // the same subscriber
	enter(from("2001:db8:1:1::2"), false)
	last := enter(from("2001:db8:1:2::1"), true)
	enter(from("192.0.2.2"), false) // there is no place at all
	first()
	first() // gives one place back, not two
	enter(from("192.0.2.1"), true)
	enter(from("192.0.2.1"), false)
	last()
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	enter(pipe.RemoteAddr(), true)
	if p.inside != 5 || len(p.from) != 3 {
		t.Errorf("%d are inside, from %v", p.inside, p.from)
	}
}

// Who waits at addresses that have many places keeps out nobody of another.
func TestWhoWaitsLongestMakesRoom(t *testing.T) {
	p := New(4, 2)
	var out []string
	enter := func(name, ip string, want bool) (leave func()) {
		t.Helper()
		leave, ok := p.EnterWaiting(from(ip), func() { out = append(out, name) })
		if ok != want {
			t.Errorf("%s is let in: %t", name, ok)
		}
		return leave
	}
	gone := func(want ...string) {
		t.Helper()
		if !slices.Equal(out, want) {
			t.Errorf("put out are %q, want %q", out, want)
		}
	}
	first := enter("first", "192.0.2.1", true)
	enter("second", "192.0.2.2", true)
	enter("third", "192.0.2.2", true)
	last := enter("fourth", "192.0.2.1", true)
	enter("too many of one address", "192.0.2.1", false)
	gone()
	enter("fifth", "192.0.2.3", true)
	gone("first")
	enter("sixth", "192.0.2.4", true)
	gone("first", "second")
	first() // has left long since
	enter("of an address that has as many as any", "192.0.2.4", false)
	enter("seventh", "192.0.2.5", true)
	gone("first", "second", "third")
	last()
	last()
	enter("eighth", "192.0.2.6", true)
	gone("first", "second", "third")
	if p.inside != 4 || len(p.from) != 4 {
		t.Errorf("%d are inside, from %v", p.inside, p.from)
	}
}

// One address that keeps its places open keeps no other out.
func TestListener(t *testing.T) {
	plain, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := New(3, 2).Listen(plain)
	defer l.Close()
	accepted := make(chan net.Conn, 9)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func(ip string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		conn, err := d.Dial("tcp", plain.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	refused := func(conn net.Conn) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a connection too many reads %v", err)
		}
	}
	dial("127.0.0.1")
	inside := <-accepted
	dial("127.0.0.1")
	<-accepted
	refused(dial("127.0.0.1"))
	dial("127.0.0.2")
	<-accepted
	refused(dial("127.0.0.3"))
	inside.Close()
	dial("127.0.0.3")
	<-accepted
}
