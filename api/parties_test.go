package api_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/avatar"
	"carnet/entity"
	"carnet/identity"
	"carnet/keys"
	"carnet/link"
	"carnet/mandate"
	"carnet/policy"
	"carnet/revocation"
	"carnet/senml"
	"carnet/store/sqlite"
	"carnet/test/wait"
	"carnet/thing"
)

// party is what both kinds of parties here are made of: a directory with a store,
// a key table and its key.
type party struct {
	t    *testing.T
	dir  string
	name carnet.PartyID

	db, keysDB *sqlite.DB
	table      *keys.Table
	stop       func()
}

func newParty(t *testing.T, name carnet.PartyID) *party {
	p := &party{t: t, dir: t.TempDir(), name: name}
	if _, err := keys.CreateFile(p.path("kek")); err != nil {
		t.Fatal(err)
	}
	p.open()
	store, err := p.keysDB.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.table, err = keys.Create(t.Context(), keys.Config{KEK: p.kek(), Store: store}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *party) path(name string) string { return filepath.Join(p.dir, name) }

func (p *party) kek() keys.KEK {
	kek, err := keys.OpenFile(p.path("kek"))
	if err != nil {
		p.t.Fatal(err)
	}
	return kek
}

func (p *party) open() {
	var err error
	if p.db, err = sqlite.Open(p.t.Context(), p.path("state.db"), sqlite.Options{}); err != nil {
		p.t.Fatal(err)
	}
	if p.keysDB, err = sqlite.Open(p.t.Context(), p.path("keys.db"), sqlite.Options{}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *party) close() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
	if err := errors.Join(p.db.Close(), p.keysDB.Close()); err != nil {
		p.t.Error(err)
	}
}

// run starts parts and remembers how to end them.
func (p *party) run(parts ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, part := range parts {
		wg.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				p.t.Errorf("%s: %v", p.name, err)
			}
		})
	}
	p.stop = func() { cancel(); wg.Wait() }
}

func quiet() *slog.Logger {
	if os.Getenv("CARNET_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// noDepot keeps nothing: what is tested here needs no depot.
type noDepot struct{}

func (noDepot) Party() carnet.PartyID { return "vault" }
func (noDepot) PutObject(context.Context, []byte, carnet.Retention) (carnet.Fingerprint, error) {
	return carnet.Fingerprint{}, carnet.Errorf(carnet.Unavailable, "there is no depot")
}
func (noDepot) GetObject(context.Context, carnet.Fingerprint) ([]byte, error) {
	return nil, carnet.Errorf(carnet.Unavailable, "there is no depot")
}
func (noDepot) DeleteObject(context.Context, carnet.Fingerprint) error {
	return carnet.Errorf(carnet.Unavailable, "there is no depot")
}
func (noDepot) Objects(context.Context, carnet.Fingerprint) ([]carnet.Fingerprint, error) {
	return nil, carnet.Errorf(carnet.Unavailable, "there is no depot")
}

// pair is a things agent and a world with a link between them.
type pair struct {
	t          *testing.T
	hub, arena *party
	agent      *thing.Agent
	world      *avatar.Agent
	mandates   *mandate.Book
	entities   *entity.Agent
	activity   *activity.Log // the world's

	revocations *revocation.Watcher // the world's
	address     string
	ids         struct{ hub, arena identity.Local }
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, hub: newParty(t, "hub"), arena: newParty(t, "arena")}
	var err error
	if p.ids.hub, err = identity.Make(t.Context(), p.hub.table, "arena", "", time.Now()); err != nil {
		t.Fatal(err)
	}
	if p.ids.arena, err = identity.Make(t.Context(), p.arena.table, "self", "arena", time.Now()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = l.Addr().String()
	l.Close()
	p.startWorld()
	p.startHub()
	t.Cleanup(func() {
		p.hub.close()
		p.arena.close()
	})
	return p
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

var clearance = carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: "fitness"}

func (p *pair) startWorld() {
	store, err := p.arena.db.Worlds(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	revocations, err := revocation.New(p.t.Context(), revocation.Config{Store: store})
	if err != nil {
		p.t.Fatal(err)
	}
	p.revocations = revocations
	p.world, err = avatar.New(p.t.Context(), avatar.Config{
		Party: "arena", Store: store, Keys: p.arena.table, Clearance: clearance, Depot: noDepot{}, Recorded: func() {}, Log: quiet(),
		DID: identity.DID(public(p.ids.arena.Key)), Revocations: revocations,
		Senders: []avatar.Sender{{Party: p.ids.hub.Name, Key: public(p.ids.hub.Key), Self: "arena", Own: p.ids.arena.Key}},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.mandates, err = mandate.New(p.t.Context(), mandate.Config{
		Party: "arena", Store: store, Keys: p.arena.table, Avatars: p.world, Revocations: revocations, State: p.world.Statement, Recorded: func() {},
		Platform: func(carnet.PartyID) (ed25519.PublicKey, error) { return public(p.ids.arena.Key), nil },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	judge, err := policy.NewJudge(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.entities, err = entity.New(p.t.Context(), entity.Config{
		Party: "arena", Store: store, Keys: p.arena.table, Avatars: p.world, Judge: judge, Revocations: revocations, State: p.world.Statement,
		Recorded: func() {}, Log: quiet(), World: func(world carnet.PartyID) string { return identity.DID(public(ownerKey(world[0]))) },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	rows, err := p.arena.db.Activity(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	if p.activity, err = activity.NewLog(p.t.Context(), activity.Config{Store: rows, Keys: p.arena.table, Log: quiet()}); err != nil {
		p.t.Fatal(err)
	}
	peer := link.Peer{Party: p.ids.hub.Name, Pin: keys.Pin(p.ids.hub.Certificate.Leaf), Key: public(p.ids.hub.Key)}
	server, err := link.NewServer(link.ServerConfig{
		Self: "arena", Certificate: p.ids.arena.Certificate, Sink: p.world, Log: quiet(),
		Peer: func(pin [32]byte) (link.Peer, bool) { return peer, pin == peer.Pin },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.world.Connect(server)
	var l net.Listener
	p.eventually("the world's port is free", func() bool { // a call of another test may have it
		l, err = net.Listen("tcp", p.address)
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			p.t.Fatal(err)
		}
		return err == nil
	})
	p.arena.run(p.world.Run, revocations.Run, p.entities.Run, p.activity.Run, func(ctx context.Context) error { return server.Serve(ctx, l) })
}

func (p *pair) startHub() {
	store, err := p.hub.db.Things(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	judge, err := policy.NewJudge(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.agent, err = thing.New(p.t.Context(), thing.Config{
		Party: "hub", Store: store, Keys: p.hub.table, Judge: judge, Recorded: func() {}, Log: quiet(),
		Worlds: []thing.World{{
			Party: "arena", Self: p.ids.hub.Name, Key: p.ids.hub.Key, WorldKey: public(p.ids.arena.Key), Purpose: "fitness", Clearance: clearance,
		}},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	source, err := p.agent.Source("arena")
	if err != nil {
		p.t.Fatal(err)
	}
	sender, err := link.NewSender(link.SenderConfig{
		Self: p.ids.hub.Name, Certificate: p.ids.hub.Certificate, Source: source, MaxBackoff: 200 * time.Millisecond, Log: quiet(),
		Peer: link.Peer{Party: "arena", Address: p.address, Pin: keys.Pin(p.ids.arena.Certificate.Leaf)},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.agent.Connect("arena", sender)
	p.hub.run(p.agent.Run, sender.Run)
}

// device sends as a watch and waits for what became of it.
type device struct {
	t       *testing.T
	session *thing.Session
	done    chan thing.Outcome
}

func (d *device) Done(_ uint64, o thing.Outcome) { d.done <- o }
func (d *device) Flush()                         {}

func (p *pair) device(id carnet.ThingID, password string) *device {
	p.t.Helper()
	s, err := p.agent.Authenticate(string(id), []byte(password))
	if err != nil {
		p.t.Fatal(err)
	}
	return &device{p.t, s, make(chan thing.Outcome, 1)}
}

func (d *device) send(ms ...carnet.Measurement) thing.Outcome {
	d.t.Helper()
	payload, err := senml.Append(nil, senml.JSON, ms)
	if err != nil {
		d.t.Fatal(err)
	}
	d.session.Submit(senml.JSON, payload, d, 0)
	select {
	case o := <-d.done:
		return o
	case <-time.After(20 * time.Second):
		d.t.Fatal("no outcome of a message")
		return thing.Outcome{}
	}
}

func (d *device) mustSend(ms ...carnet.Measurement) {
	d.t.Helper()
	if o := d.send(ms...); o.Refused != nil || o.Retry != nil {
		d.t.Fatalf("refused %v, retry %v", o.Refused, o.Retry)
	}
}

func (p *pair) eventually(what string, ok func() bool) {
	p.t.Helper()
	wait.Until(p.t, what, ok)
}
