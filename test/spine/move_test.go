package spine_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/audit"
	"carnet/avatar"
	"carnet/identity"
	"carnet/keys"
	"carnet/link"
	"carnet/node"
	"carnet/policy"
	"carnet/td"
	"carnet/thing"
)

// home is a world that an avatar lives in, or moves to.
type home struct {
	*party
	address string
	id      identity.Local // its own
	hub     identity.Local // the things agent's for it
	agent   *avatar.Agent
	server  *link.Server
	expects *expected // who comes by a move; nil: nobody
}

// movers is a things agent with two worlds, and the owner of its things.
type movers struct {
	t              *testing.T
	hub            *party
	arena, citadel *home
	agent          *thing.Agent
	owner          ed25519.PrivateKey
}

func newMovers(t *testing.T) *movers {
	p := &movers{t: t, hub: newParty(t, "hub")}
	_, p.owner, _ = ed25519.GenerateKey(nil)
	for _, name := range []carnet.PartyID{"arena", "citadel"} {
		h := &home{party: newParty(t, name)}
		var err error
		if h.id, err = identity.Make(t.Context(), h.table, "self", name, time.Now()); err != nil {
			t.Fatal(err)
		}
		if h.hub, err = identity.Make(t.Context(), p.hub.table, name, "", time.Now()); err != nil {
			t.Fatal(err)
		}
		if h.address, err = node.FreeAddress(); err != nil {
			t.Fatal(err)
		}
		h.start()
		t.Cleanup(h.close)
		if name == "arena" {
			p.arena = h
		} else {
			p.citadel = h
		}
	}
	p.start()
	t.Cleanup(func() { p.hub.close() })
	return p
}

func (h *home) start() {
	store, err := h.db.Worlds(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	h.agent, err = avatar.New(h.t.Context(), avatar.Config{
		Party: h.name, Store: store, Keys: h.table, Clearance: clearance, Depot: noDepot{}, Recorded: func() {}, Log: quiet(),
		Senders: []avatar.Sender{{Party: h.hub.Name, Key: public(h.hub.Key), Self: h.name, Own: h.id.Key}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if h.expects != nil {
		h.agent.Receive(h.expects)
	}
	peer := link.Peer{Party: h.hub.Name, Pin: keys.Pin(h.hub.Certificate.Leaf), Key: public(h.hub.Key)}
	h.server, err = link.NewServer(link.ServerConfig{
		Self: h.name, Certificate: h.id.Certificate, Sink: h.agent, Log: quiet(),
		Peer: func(pin [32]byte) (link.Peer, bool) { return peer, pin == peer.Pin },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.agent.Connect(h.server)
	l, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	server := h.server
	h.run(h.agent.Run, func(ctx context.Context) error { return server.Serve(ctx, l) })
}

func (h *home) restart() {
	h.close()
	h.reopen()
	h.start()
}

func (p *movers) start() {
	store, err := p.hub.db.Things(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	judge, err := policy.NewJudge(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	config := thing.Config{Party: "hub", Store: store, Keys: p.hub.table, Judge: judge, Recorded: func() {}, Log: quiet()}
	for _, h := range []*home{p.arena, p.citadel} {
		config.Worlds = append(config.Worlds, thing.World{
			Party: h.name, Self: h.hub.Name, Key: h.hub.Key, WorldKey: public(h.id.Key), Purpose: "fitness", Clearance: clearance,
		})
	}
	if p.agent, err = thing.New(p.t.Context(), config); err != nil {
		p.t.Fatal(err)
	}
	parts := []func(context.Context) error{p.agent.Run}
	for _, h := range []*home{p.arena, p.citadel} {
		source, err := p.agent.Source(h.name)
		if err != nil {
			p.t.Fatal(err)
		}
		sender, err := link.NewSender(link.SenderConfig{
			Self: h.hub.Name, Certificate: h.hub.Certificate, Source: source, MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, Log: quiet(),
			Peer: link.Peer{Party: h.name, Address: h.address, Pin: keys.Pin(h.id.Certificate.Leaf)},
		})
		if err != nil {
			p.t.Fatal(err)
		}
		p.agent.Connect(h.name, sender)
		parts = append(parts, sender.Run)
	}
	p.hub.run(parts...)
}

func (p *movers) restart() {
	p.hub.close()
	p.hub.reopen()
	p.start()
}

// expected is the one move by which an avatar comes, as its target knows it.
type expected struct {
	order  string
	terms  []byte
	to     carnet.AvatarID
	former carnet.StreamID
	sender string // did:key, from the manifest
}

// Onward implements avatar.Arrivals.
func (e *expected) Onward(_ context.Context, r carnet.MapRequest) (carnet.MapAnswer, error) {
	word, err := identity.OpenOnward(r.Onward)
	if err != nil || r.Order != e.order || string(r.Terms) != string(e.terms) || word.Sender != e.sender || word.Former != e.former || word.Stream != r.Stream {
		return carnet.MapAnswer{}, carnet.Errorf(carnet.NotFound, "nobody comes by this order")
	}
	return carnet.MapAnswer{Avatar: e.to}, nil
}

func (p *movers) eventually(what string, ok func() bool) {
	p.t.Helper()
	(&pair{t: p.t}).eventually(what, ok)
}

// mapTo maps a thing to a new avatar.
func (p *movers) mapTo(id carnet.ThingID, world carnet.PartyID, text string) (m thing.MappingInfo) {
	p.t.Helper()
	v, err := policy.ParseView([]byte(text))
	if err != nil {
		p.t.Fatal(err)
	}
	p.eventually("map a thing", func() bool {
		m, err = p.agent.Map(p.t.Context(), "ann", id, world, nil, "", v)
		return err == nil
	})
	return m
}

// headOf is where a stream stands at its world.
func (h *home) headOf(stream carnet.StreamID) carnet.StreamHead {
	answer, err := h.agent.Call(h.t.Context(), h.hub.Name, carnet.CallHeads, []byte(`{}`))
	if err != nil {
		h.t.Fatal(err)
	}
	var page carnet.HeadsPage
	if err := json.Unmarshal(answer, &page); err != nil {
		h.t.Fatal(err)
	}
	i := slices.IndexFunc(page.Heads, func(s carnet.StreamHead) bool { return s.Stream == stream })
	if i < 0 {
		return carnet.StreamHead{Stream: stream}
	}
	return page.Heads[i]
}

// order has the avatar of a mapping move to one of citadel, by its owner's order and
// a registrar's commit, and returns what arena tells of it.
func (p *movers) order(m thing.MappingInfo, to carnet.AvatarID) carnet.Moved {
	p.t.Helper()
	_, registrar, _ := ed25519.GenerateKey(nil)
	_, next, _ := ed25519.GenerateKey(nil)
	name := func(k ed25519.PrivateKey) string { return identity.DID(public(k)) }
	must := func(s string, err error) string {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
		return s
	}
	head := p.arena.headOf(m.Stream)
	h, made, manifest := carnet.NewHomeID(), time.Now().UTC().Truncate(time.Second), carnet.FingerprintOf([]byte("manifest"))
	terms, err := identity.MoveTerms{Avatar: m.Avatar, Home: h, To: to, Owner: name(next)}.Marshal()
	if err != nil {
		p.t.Fatal(err)
	}
	o := identity.Order{
		Crossing: carnet.NewCrossingID(), Registrar: name(registrar), Owner: name(p.owner), Source: name(p.arena.id.Key), Target: name(p.citadel.id.Key),
		Homes: []carnet.HomeID{h}, Terms: carnet.FingerprintOf(terms), Made: made, Until: made.Add(time.Hour),
	}
	order := must(identity.SignOrder(p.owner, o))
	p.citadel.expects = &expected{order, terms, to, m.Stream, name(p.arena.hub.Key)}
	p.citadel.agent.Receive(p.citadel.expects)
	return carnet.Moved{
		Stream: m.Stream, Order: order, Terms: terms, NextBatch: head.NextBatch, NextFirst: head.NextFirst,
		Decision: must(identity.SignDecision(registrar, identity.Decision{
			Registrar: o.Registrar, Crossing: o.Crossing, Order: carnet.FingerprintOf([]byte(order)), Outcome: identity.Commit, Manifest: &manifest,
			Homes: []identity.HomeAt{{Home: h, Version: 2, World: o.Target}}, Time: made,
		})),
	}
}

// tell has arena tell of a move, if the things agent is connected.
func (p *movers) tell(m carnet.Moved) {
	body, err := json.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.arena.server.Notify(p.arena.hub.Name, carnet.NoticeMoved, body); err != nil && carnet.CodeOf(err) != carnet.Unavailable {
		p.t.Fatal(err)
	}
}

// part is a mapping as the oracle sees it, with what a world holds of it.
func (p *movers) part(id carnet.MappingID, world *home, home carnet.AvatarID, moved uint64) (part audit.Part) {
	p.t.Helper()
	m, err := p.agent.Mapping(id)
	if err != nil {
		p.t.Fatal(err)
	}
	records, err := p.agent.Views(id)
	if err != nil {
		p.t.Fatal(err)
	}
	lingers, err := p.agent.Lingers(m.Thing)
	if err != nil {
		p.t.Fatal(err)
	}
	info, err := p.agent.Thing(p.t.Context(), m.Thing)
	if err != nil {
		p.t.Fatal(err)
	}
	part.Moved, part.Config.From = moved, m.From
	for _, r := range records {
		text, err := r.View.MarshalJSON()
		if err != nil {
			p.t.Fatal(err)
		}
		v := audit.ViewVersion{Version: r.Version, View: text, Stopped: r.Stopped, Since: r.Since}
		for _, property := range info.Properties {
			kind := map[string]carnet.Kind{"number": carnet.Number, "boolean": carnet.Boolean, "text": carnet.Text, "data": carnet.Data}[property.Kind]
			v.Properties = append(v.Properties, audit.Property{
				Name: property.Name, Unit: property.Unit, Kind: kind, Linger: lingers[property.Name], Admit: !slices.Contains(r.Denied, property.Name),
			})
		}
		part.Config.Views = append(part.Config.Views, v)
	}
	part.Held = func(ctx context.Context, do func(audit.Held) error) error {
		return world.agent.EachHeld(ctx, home, func(h avatar.Held) error {
			if h.Stream != m.Stream || moved > 0 && h.Number >= moved {
				return nil // of the manifest only what it holds
			}
			return do(audit.Held{Number: h.Number, Measurement: h.Measurement})
		})
	}
	return part
}

// judge has the oracle compare what both worlds hold of a mapping and the one that
// follows it with what one mapping would have given.
func (p *movers) judge(m, then thing.MappingInfo, moved uint64) audit.Result {
	p.t.Helper()
	config, held, err := audit.Chain(p.part(m.ID, p.arena, m.Avatar, moved), p.part(then.ID, p.citadel, then.Avatar, 0))
	if err != nil {
		p.t.Fatal(err)
	}
	oracle, err := audit.New(config)
	if err != nil {
		p.t.Fatal(err)
	}
	result, err := oracle.Audit(p.t.Context(), func(ctx context.Context, from uint64, do func(audit.Message) error) error {
		return p.agent.EachMessage(ctx, from, func(message thing.Message) error {
			if message.Thing != m.Thing {
				return nil
			}
			return do(audit.Message{Position: message.Position, Measurements: message.Measurements})
		})
	}, held)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

// TestAThingFollowsItsAvatar has an avatar move while its thing sends and everybody is
// stopped, started and cut off: the oracle finds nothing lost and nothing doubled.
func TestAThingFollowsItsAvatar(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { t.Parallel(); following(t, rand.New(rand.NewPCG(seed, 5))) })
	}
}

func following(t *testing.T, r *rand.Rand) {
	p := newMovers(t)
	id, password, err := p.agent.AddThing(t.Context(), "", "ann", td.Watch())
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := p.agent.AddThing(t.Context(), "", "ann", td.Watch())
	if err != nil {
		t.Fatal(err)
	}
	m := p.mapTo(id, "arena", `{"properties":{"heart_rate":{"rate":"3s"},"steps":{"deadband":5}}}`)
	word, err := identity.SignOwnership(p.owner, identity.Ownership{Audience: "arena", Avatar: m.Avatar, Issued: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.agent.Own(t.Context(), m.ID, word); err != nil {
		t.Fatal(err)
	}
	room := p.mapTo(other, "citadel", `{"properties":{}}`) // the avatar that this one becomes
	start, n := time.Now().Add(-2*time.Hour), 0
	d := (&pair{t: t, agent: p.agent}).device(id, password)
	some := func(of int) {
		for range of {
			switch op := r.IntN(24); op {
			case 0:
				p.restart()
				d = (&pair{t: t, agent: p.agent}).device(id, password)
			case 1:
				p.arena.restart()
			case 2:
				p.citadel.restart()
			case 3:
				p.arena.server.Disconnect(p.arena.hub.Name)
			case 4:
				p.citadel.server.Disconnect(p.citadel.hub.Name)
			default:
				at := start.Add(time.Duration(n) * time.Second)
				d.mustSend(heart(at, float64(60+r.IntN(90))), carnet.Measurement{Name: "steps", Time: at.UnixNano(), Value: carnet.Float(float64(n * r.IntN(3)))})
				n++
			}
		}
	}
	some(40)
	p.eventually("something has come", func() bool { return p.arena.headOf(m.Stream).NextFirst > 0 })
	told := p.order(m, room.Avatar)
	some(30)
	var then thing.MappingInfo
	p.eventually("the mapping goes on", func() bool { // nobody is stopped meanwhile: what is told needs a link
		p.tell(told)
		info, err := p.agent.Thing(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(info.Mappings, func(o thing.MappingInfo) bool { return o.Follows != nil }); i >= 0 {
			then = info.Mappings[i]
		}
		return then.Follows != nil
	})
	some(40)
	var result audit.Result
	p.eventually("all is there", func() bool {
		time.Sleep(50 * time.Millisecond)
		result = p.judge(m, then, told.NextFirst)
		return result.Lost == 0
	})
	if result.Faults() != 0 || result.Held <= int(told.NextFirst) {
		t.Errorf("%d messages: %+v", n, result)
	}
	if then.World != "citadel" || then.Avatar != room.Avatar || len(then.OwnerKey) == 0 {
		t.Errorf("the mapping that goes on is %+v", then)
	}
}
