package identity

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"carnet"
)

func TestAnOnwardIsByItsSenderAlone(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	_, other, _ := ed25519.GenerateKey(nil)
	o := Onward{
		Crossing: carnet.CrossingID{1}, Sender: DID(key.Public().(ed25519.PublicKey)), Target: DID(other.Public().(ed25519.PublicKey)),
		Former: carnet.StreamID{2}, Stream: carnet.StreamID{3},
	}
	token, err := SignOnward(key, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenOnward(token); err != nil || got != o {
		t.Errorf("it is read as %+v, %v", got, err)
	}
	if _, err := SignOnward(other, o); err == nil {
		t.Error("another key signs it")
	}
	parts := strings.Split(token, ".")
	for i := range parts {
		changed := strings.Split(token, ".")
		changed[i] = "e" + parts[i]
		if _, err := OpenOnward(strings.Join(changed, ".")); err == nil {
			t.Errorf("it is read with another part %d", i)
		}
	}
	o.Target = "citadel"
	if _, err := SignOnward(key, o); err == nil {
		t.Error("it is signed for no key")
	}
}
