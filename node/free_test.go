package node

import (
	"errors"
	"net"
	"strings"
	"testing"

	"carnet"
)

// Each address is given once and can be listened on.
func TestFreeAddress(t *testing.T) {
	for range 50 {
		address, err := FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
}

// Who starts a party where another listens is told so, and what to do.
func TestListenWhereAnotherDoes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = listen(l.Addr().String())
	if e, ok := errors.AsType[*carnet.Error](err); !ok || e.Code != carnet.Conflict || !strings.Contains(e.Error(), l.Addr().String()) || !strings.Contains(e.Fix, "--port-base") {
		t.Errorf("listened twice: %v", err)
	}
}
