package identity

import (
	"crypto/ed25519"
	"testing"

	"carnet"
)

func examplePeers(t testing.TB) map[Role]Peer {
	key := testKey(t, didVectors[3].seed).Public().(ed25519.PublicKey)
	health := carnet.Personal | carnet.Health
	pin := carnet.FingerprintOf([]byte("certificate"))
	return map[Role]Peer{
		Things: {Party: "p-aaaa", Role: Things, Pin: pin, Key: key},
		World: {Party: "arena", Role: World, Pin: pin, Key: key, Link: "127.0.0.1:7001", Purpose: "play", Sensitivity: &health,
			Residency: []string{"eu", "no"}},
		Depot: {Party: "vault", Role: Depot, Pin: pin, Key: key, R2: "https://127.0.0.1:7002", Ledger: "vault+1234+key"},
	}
}

func TestPeerFilesThatSayMoreOrLessAreRefused(t *testing.T) {
	for name, spoil := range map[string]struct {
		role Role
		do   func(*Peer)
	}{
		"no name":                {Things, func(p *Peer) { p.Party = "" }},
		"a name with a slash":    {Things, func(p *Peer) { p.Party = "a/b" }},
		"no role":                {Things, func(p *Peer) { p.Role = "" }},
		"another role":           {Things, func(p *Peer) { p.Role = "bakery" }},
		"no pin":                 {Things, func(p *Peer) { p.Pin = carnet.Fingerprint{} }},
		"no key":                 {Things, func(p *Peer) { p.Key = nil }},
		"a key cut short":        {Things, func(p *Peer) { p.Key = p.Key[:31] }},
		"a world without link":   {World, func(p *Peer) { p.Link = "" }},
		"a world without use":    {World, func(p *Peer) { p.Purpose = "" }},
		"a world without limits": {World, func(p *Peer) { p.Sensitivity = nil }},
		"a depot with R5":        {Depot, func(p *Peer) { p.R5 = "vault.example:6443" }},
		"a depot without R2":     {Depot, func(p *Peer) { p.R2 = "" }},
		"a depot without ledger": {Depot, func(p *Peer) { p.Ledger = "" }},
		"a registrar of no key":  {Depot, func(p *Peer) { p.Registrar = "vault" }},
		"a world as registrar":   {World, func(p *Peer) { p.Registrar = DID(p.Key) }},
	} {
		p := examplePeers(t)[spoil.role]
		spoil.do(&p)
		if err := p.Check(); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	for role, p := range examplePeers(t) {
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	registrar := examplePeers(t)[Depot]
	registrar.Registrar = DID(registrar.Key)
	if err := registrar.Check(); err != nil {
		t.Errorf("a depot that keeps a register: %v", err)
	}
}

func TestClearanceOfAWorld(t *testing.T) {
	got := examplePeers(t)[World].Clearance()
	if want := (carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: "play", Residency: "eu,no"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
