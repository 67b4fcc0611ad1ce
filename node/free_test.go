package node

import (
	"net"
	"testing"
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
