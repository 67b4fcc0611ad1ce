package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/peering"
	"carnet/register"
)

// running makes two parties peers and runs them until the test ends.
func running(t *testing.T, vault, arena Config) (*Node, *Node) {
	t.Helper()
	ctx, quiet := t.Context(), slog.New(slog.DiscardHandler)
	if err := Introduce(ctx, Introduction{Inviter: arena, Accepter: vault, Calls: vault.Party, Offer: peering.Offer{Scope: []peering.Scope{peering.R2}}}, quiet); err != nil {
		t.Fatal(err)
	}
	var nodes []*Node
	for _, c := range []Config{vault, arena} {
		n, err := New(ctx, c, quiet)
		if err != nil {
			t.Fatal(err)
		}
		run, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(run) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", c.Party, err)
			}
		})
		nodes = append(nodes, n)
	}
	return nodes[0], nodes[1]
}

// made is a new party.
func made(t testing.TB, c Config) Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "carnet.toml")
	c.Data, c.KeyFile, c.Store.Kind = "data", "kek", "sqlite"
	for _, address := range []*string{&c.Listen.HTTP, &c.Listen.R2, &c.Listen.Link, &c.Listen.R5, &c.Listen.R6} {
		var err error
		if *address == "free" {
			if *address, err = FreeAddress(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Init(t.Context(), file, c); err != nil {
		t.Fatal(err)
	}
	c, err := ReadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	aDepot = Config{Party: "vault", Role: identity.Depot, Listen: Listen{HTTP: "free", R2: "free"}}
	aWorld = Config{Party: "arena", Role: identity.World, Listen: Listen{HTTP: "free", Link: "free"}, World: WorldConfig{Purpose: "play", Sensitivity: "personal"}}
)

// A world asks the register of its depot, over its own connection, and shows the
// newest checkpoint that it has.
func TestAWorldAsksTheRegisterOfItsDepot(t *testing.T) {
	vault, arena := running(t, made(t, aDepot), made(t, aWorld))
	var client *register.Client
	for client == nil || client.Newest() == nil { // the peering itself is stated
		var err error
		if client, err = arena.depot.register(); err != nil && carnet.CodeOf(err) != carnet.Unavailable {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if client.Registrar != vault.registrar.DID() {
		t.Errorf("the peer file names the registrar %s, which is %s", client.Registrar, vault.registrar.DID())
	}
	self, err := identity.Load(t.Context(), arena.table, "self")
	if err != nil {
		t.Fatal(err)
	}
	id, owner := carnet.NewHomeID(), identity.DID(self.Show(identity.World).Key) // any key
	h, _, err := client.Enrol(t.Context(), id, owner)
	if err != nil || h.World != owner || h.Version != 1 {
		t.Fatalf("enrolled as %+v, %v", h, err)
	}
	if h, _, err = client.Claim(t.Context(), id); err != nil || h.Incarnation != 2 {
		t.Errorf("claimed as %+v, %v", h, err)
	}
	if h, _, err = client.Home(t.Context(), id); err != nil || h.Incarnation != 2 {
		t.Errorf("the home stands as %+v, %v", h, err)
	}
	if d, err := client.Decide(t.Context(), carnet.NewCrossingID(), register.Petition{Want: register.Ask}); d != nil || err != nil {
		t.Errorf("an open crossing is %+v, %v", d, err)
	}
}

// A depot from before registers goes on without one.
func TestADepotWithoutARegister(t *testing.T) {
	c := made(t, aDepot)
	if err := withTable(t.Context(), c, func(table *keys.Table) error { return table.Destroy(t.Context(), registerID, marksID) }); err != nil {
		t.Fatal(err)
	}
	_, arena := running(t, c, made(t, aWorld))
	for {
		_, err := arena.depot.register()
		if err == nil {
			t.Fatal("a depot without the keys of a register keeps one")
		}
		if _, ok := arena.depot.now(); ok == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
}
