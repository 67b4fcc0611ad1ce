package porter

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"carnet"
)

// One address that keeps its connections open keeps no other out, and not even itself;
// a connection whose caller is known stays.
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
	ended := func(which string, conn net.Conn) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s reads %v", which, err)
		}
	}
	dial("127.0.0.1")
	known := <-accepted
	done := Known(WithConn(context.Background(), tls.Server(known, nil)))
	again := Known(WithConn(context.Background(), known))
	again()
	silent := dial("127.0.0.1")
	<-accepted
	second := dial("127.0.0.1")
	<-accepted
	ended("who waited longest at an address that has all it may have", silent)
	dial("127.0.0.2")
	<-accepted
	third := dial("127.0.0.3")
	<-accepted
	ended("who waited longest of those who wait", second)
	done()
	done()
	fourth := dial("127.0.0.3")
	<-accepted
	dial("127.0.0.4")
	<-accepted
	ended("who waited longest where most wait", third)
	known.Close()
	known.Close()
	dial("127.0.0.5")
	<-accepted
	fourth.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := fourth.Read(make([]byte, 1)); err == io.EOF {
		t.Error("somebody is put out where a place had become free")
	}
}

// What isn't a connection of a porter's has no place to keep.
func TestKnownWithoutAPlace(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	Known(WithConn(context.Background(), here))()
	Known(context.Background())()
}

// Who listens where another does is told so, and what to do.
func TestListenWhereAnotherDoes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Open(l.Addr().String(), "take another")
	if e, ok := errors.AsType[*carnet.Error](err); !ok || e.Code != carnet.Conflict || !strings.Contains(e.Error(), l.Addr().String()) || e.Fix != "take another" {
		t.Errorf("listened twice: %v", err)
	}
}
