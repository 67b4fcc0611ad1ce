package share_test

import (
	"context"
	"crypto/ed25519"
	"net"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/keys"
	"carnet/link"
)

// ends counts what a taker is told of ends.
type ends struct {
	crossing.Sink
	told *atomic.Int32
}

func (e ends) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	if kind == crossing.CallEnd {
		e.told.Add(1)
	}
	return e.Sink.Call(ctx, party, kind, body)
}

// A peer that is removed can't be told anything: what is shared with it, in either
// direction, ends where it was removed, counts as told, also after a restart, and ends at
// the other side once that has removed the peering, too.
func TestAPeerThatIsRemovedEndsShares(t *testing.T) {
	for _, first := range []string{"giver", "taker"} {
		t.Run("by the "+first, func(t *testing.T) {
			var told atomic.Int32
			p := newPair(t, `{"properties": {"heart_rate": {}}}`)
			p.instead = func(s crossing.Sink) link.Sink { return ends{s, &told} }
			p.restart(p.citadel)
			s := p.hub.open(p.arena, &p.theirs)
			stopped, err := p.citadel.shares.Take(t.Context(), "arena", p.theirs, p.avatarAt(p.citadel), "fitness")
			if err != nil {
				t.Fatal(err)
			}
			p.take()
			all := p.beats(s, 0, 3)
			p.has("at first", all)
			p.proxy.cut.Store(true) // as the removal does
			p.proxy.drop()
			// This end finds nobody to be told.
			if err := p.arena.shares.StopGiving(t.Context(), stopped.ID, "operator", "enough"); err != nil {
				t.Fatal(err)
			}
			givenEnds := func() {
				t.Helper()
				if err := p.arena.shares.EndPeer(t.Context(), "citadel"); err != nil {
					t.Fatal(err)
				}
				given := p.arena.shares.Given()
				if len(given) != 2 || given[0].End == nil || given[1].End == nil || given[0].End.Why != "enough" || given[1].End.Why != "the peering with citadel was removed" {
					t.Fatalf("arena gives %+v", given)
				}
				var e carnet.Examination
				p.arena.shares.Examine(&e)
				if len(e.Findings) != 0 {
					t.Errorf("found %+v", e.Findings)
				}
				if err := p.arena.shares.EndPeer(t.Context(), "citadel"); err != nil || !reflect.DeepEqual(p.arena.shares.Given(), given) {
					t.Errorf("ended again: %+v, %v", p.arena.shares.Given(), err)
				}
			}
			takenEnds := func() {
				t.Helper()
				if err := p.citadel.shares.EndPeer(t.Context(), "arena"); err != nil {
					t.Fatal(err)
				}
				for _, taken := range p.citadel.shares.Taken() {
					if taken.State != crossing.Ended || taken.End == nil {
						t.Fatalf("citadel takes %+v", taken)
					}
					// A taker that asks again before it removes the peering is refused, and
					// ends by that.
					refused := first == "giver" && taken.End.By == "arena" && strings.Contains(taken.End.Why, "has ended")
					if !refused && taken.End.Why != "the peering with arena was removed" {
						t.Fatalf("citadel ended %s as %+v", taken.ID, *taken.End)
					}
				}
			}
			if first == "giver" {
				givenEnds()
			} else {
				takenEnds()
				givenEnds()
			}
			p.beats(s, 3, 6)
			// A peering under the same name can't be, but a lie could: nothing is told, and
			// nothing comes.
			p.proxy.cut.Store(false)
			p.restart(p.arena)
			p.eventually("they are connected", func() bool { return p.sender.Status().Connected })
			p.beats(s, 6, 9)
			time.Sleep(50 * time.Millisecond)
			p.has("after the removal", all)
			if first == "giver" {
				takenEnds()
			}
			if told.Load() != 0 {
				t.Errorf("citadel was told %d times", told.Load())
			}
		})
	}
}

// stalled is a taker that takes no frame until it is opened.
type stalled struct {
	crossing.Sink
	open  chan struct{}
	waits *atomic.Int32
}

func (s stalled) Accept(ctx context.Context, party carnet.PartyID, run []*link.Arrival) ([]link.Verdict, error) {
	if party == "arena" {
		s.waits.Add(1)
		select {
		case <-s.open:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Sink.Accept(ctx, party, run)
}

// A taker that takes nothing holds up nobody else: its giver stores what comes and gives
// it to another taker, keeps no more under way than a link's window, and once the taker
// goes on it gets all, once.
func TestATakerThatTakesNothing(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	open, waits := make(chan struct{}), new(atomic.Int32)
	p.instead = func(s crossing.Sink) link.Sink { return stalled{s, open, waits} }
	p.restart(p.citadel)
	clinic, theirs := p.another("clinic")
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	if taken, err := clinic.shares.Take(t.Context(), "arena", p.theirs, theirs, "fitness"); err != nil || taken.State != crossing.Taking {
		t.Fatalf("another share is %s, %v", taken.State, err)
	}
	all := p.beats(s, 0, 1)
	p.eventually("citadel has a frame, and doesn't take it", func() bool { return waits.Load() > 0 })
	most, begun := 0, p.sender.Status().Connections
	for i := 1; i < 400; i++ {
		all = append(all, p.beats(s, i, i+1)...)
		most = max(most, p.sender.Status().InFlight)
	}
	p.eventually("arena has stored everything", func() bool { return len(p.here(p.arena, p.theirs)["heart_rate"]) == len(all) })
	p.eventually("the clinic has everything", func() bool { return len(p.here(clinic, theirs)["heart_rate"]) >= len(all) })
	if got := p.here(clinic, theirs)["heart_rate"]; !reflect.DeepEqual(got, all) {
		t.Errorf("the clinic has %d, want %d", len(got), len(all))
	}
	if n := len(p.here(p.citadel, p.ours)["heart_rate"]); n != 0 {
		t.Errorf("citadel has %d", n)
	}
	if now := p.sender.Status(); max(most, now.InFlight) > 16 || now.InFlight == 0 || now.Connections != begun {
		t.Errorf("%d frames were under way, %+v", most, now)
	}
	close(open)
	p.has("once it takes them", all)
}

// another starts one more world that takes of arena, and has an avatar there.
func (p *pair) another(name carnet.PartyID) (*world, carnet.AvatarID) {
	t := p.t
	t.Helper()
	ours := p.ask().(*asker)
	w := newWorld(t, name, p.citadel.clearance)
	ends := w.begin(asks{ours, name}, &p.permits, p.vault,
		avatar.Sender{Party: "arena", Key: public(p.arena.id.Key), Self: name, Own: w.id.Key, Shares: true},
		avatar.Sender{Party: "hub", Key: public(p.hub.key), Self: name, Own: w.id.Key})
	arena := link.Peer{Party: "arena", Pin: keys.Pin(p.arena.id.Certificate.Leaf), Key: public(p.arena.id.Key)}
	server, err := link.NewServer(link.ServerConfig{
		Self: name, Certificate: w.id.Certificate, Sink: crossing.Sink{Sink: w.agent, Shares: w.shares}, Log: quiet(),
		Peer: func(pin [32]byte) (link.Peer, bool) { return arena, pin == arena.Pin },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.agent.Connect(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.run(w.agent.Run, w.shares.Run, ends.Run, func(ctx context.Context) error { return server.Serve(ctx, l) })
	source, err := p.arena.shares.Source(t.Context(), crossing.Neighbour{
		Party: name, OwnName: name, Self: "arena", Key: p.arena.id.Key, WorldKey: w.id.Key.Public().(ed25519.PublicKey), Clearance: w.clearance,
	})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := link.NewSender(link.SenderConfig{
		Self: "arena", Certificate: p.arena.id.Certificate, Source: source, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Log: quiet(),
		Peer: link.Peer{Party: name, Address: l.Addr().String(), Pin: keys.Pin(w.id.Certificate.Leaf)},
	})
	if err != nil {
		t.Fatal(err)
	}
	source.Connect(sender)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- source.Run(ctx) }()
	go func() { ended <- sender.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
		w.stop()
		w.tableDB.Close()
	})
	return w, p.avatarAt(w)
}

// A taker whose peering was removed hears nothing any more, also while its link is still
// up: not that its share has ended either.
func TestARemovedPeerIsToldNothing(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	p.hub.send(s.seal(health, beat(1, 61)))
	p.eventually("citadel has the first", func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) == 1 })
	p.permits.removed.Store(true)
	p.permits.set(carnet.Forbidden)
	p.arena.shares.Recheck()
	p.eventually("arena has ended it", func() bool { return p.arena.shares.Given()[0].End != nil })
	p.hub.send(s.seal(health, beat(2, 62)))
	time.Sleep(100 * time.Millisecond) // many times as long as telling takes
	if share := p.citadel.shares.Taken()[0]; share.State != crossing.Taking || len(p.here(p.citadel, p.ours)["heart_rate"]) != 1 || !p.sender.Status().Connected {
		t.Errorf("citadel has the share %+v", share)
	}
	// A peer again, it is told.
	p.permits.removed.Store(false)
	p.restart(p.arena)
	p.eventually("citadel has heard of it", func() bool { return p.citadel.shares.Taken()[0].State == crossing.Ended })
}

// asks puts questions for another taker than citadel.
type asks struct {
	*asker
	taker carnet.PartyID
}

func (a asks) Ask(ctx context.Context, _ carnet.PartyID, q crossing.Question) (crossing.Answer, error) {
	return a.p.arena.shares.Give(ctx, q, crossing.Permit{
		Taker: a.taker, Grant: "g", GrantVersion: 1, View: a.view, Mandate: "m", Most: a.most, Until: time.Now().Add(time.Hour),
	})
}
