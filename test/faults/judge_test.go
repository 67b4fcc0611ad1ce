package faults_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"carnet"
	"carnet/audit"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/identity"
	"carnet/node"
	"carnet/thing"
)

// counts is what a judge found that a good town has, too.
type counts struct {
	logged int // measurements in hub's log
	held   map[carnet.PartyID]int
	frames map[carnet.PartyID]uint64
}

// judge waits until everything is passed on, ends the parties and reads their
// stores: what was acknowledged is in hub's log once, what hub's log and the
// views admit is in the worlds once and nothing else is, and the evidence proves.
func (v *town) judge(watches ...*watch) counts {
	v.t.Helper()
	v.settle()
	for _, p := range v.parties() {
		if code := p.end(v.t); code != 0 {
			v.t.Errorf("%s ended with %d", p.name, code)
		}
	}
	return v.judgeStores(watches...)
}

func (v *town) judgeStores(watches ...*watch) counts {
	v.t.Helper()
	ctx := v.t.Context()
	c := counts{held: make(map[carnet.PartyID]int), frames: make(map[carnet.PartyID]uint64)}
	hub := v.inspect(v.hub)
	defer hub.Close()
	for _, w := range watches {
		c.logged += v.judgeLog(ctx, hub.Things, w)
	}
	for _, p := range v.worlds() {
		world := v.inspect(p)
		for _, w := range watches {
			c.held[p.name] += v.judgeWorld(ctx, hub.Things, world, p, w)
		}
		totals, err := world.World.Totals(ctx)
		if err != nil {
			v.t.Fatal(err)
		}
		c.frames[p.name] = totals.Frames
		if n := world.World.Defects(); n != 0 {
			v.t.Errorf("%s has %d defects", p.name, n)
		}
		if err := world.Close(); err != nil {
			v.t.Error(err)
		}
	}
	v.t.Logf("judged: %+v", c)
	return c
}

func (v *town) inspect(p *party) *node.Inspection {
	v.t.Helper()
	i, err := node.Inspect(v.t.Context(), p.config, slog.New(slog.DiscardHandler))
	if err != nil {
		v.t.Fatalf("inspect %s: %v", p.name, err)
	}
	return i
}

// judgeLog holds what the watch knows to be acknowledged against hub's log.
func (v *town) judgeLog(ctx context.Context, hub *thing.Agent, w *watch) (logged int) {
	v.t.Helper()
	type identity struct {
		name string
		time int64
	}
	have := make(map[identity]carnet.Value)
	doubled := 0
	err := hub.EachMessage(ctx, 1, func(m thing.Message) error {
		if m.Thing != w.id {
			return nil
		}
		for _, x := range m.Measurements {
			if _, twice := have[identity{x.Name, x.Time}]; twice {
				doubled++
			}
			have[identity{x.Name, x.Time}] = x.Value
			logged++
		}
		return nil
	})
	if err != nil {
		v.t.Fatalf("read hub's log: %v", err)
	}
	lost := 0
	for i, pack := range w.packs {
		for _, m := range pack {
			if got, ok := have[identity{m.Name, m.Time}]; w.acked[i] && (!ok || got != m.Value) {
				lost++
			}
		}
	}
	if lost > 0 || doubled > 0 {
		v.t.Errorf("of what %s had acknowledged, %d measurements are not in hub's log, and %d are there twice", w.id, lost, doubled)
	}
	return logged
}

func (v *town) judgeWorld(ctx context.Context, hub *thing.Agent, world *node.Inspection, p *party, w *watch) (held int) {
	v.t.Helper()
	m := w.mappings[p.name]
	result, err := audited(ctx, hub, world.World, m)
	if err != nil {
		v.t.Fatalf("audit %s: %v", p.name, err)
	}
	if result.Faults() != 0 || result.Held == 0 {
		v.t.Errorf("%s: %+v", p.name, result)
	}
	report, err := v.prove(ctx, world, p, m)
	if err != nil {
		v.t.Fatalf("prove %s: %v", p.name, err)
	}
	if report.Verdict != evidence.True || int(report.Counts.Measurements) != result.Held {
		v.t.Errorf("the evidence of %s, which holds %d: %s", p.name, result.Held, report.Summary())
	}
	return result.Held
}

// audited has the oracle work out what the world may hold.
func audited(ctx context.Context, hub *thing.Agent, world *avatar.Agent, m thing.MappingInfo) (audit.Result, error) {
	config, err := recorded(ctx, hub, m)
	if err != nil {
		return audit.Result{}, err
	}
	oracle, err := audit.New(config)
	if err != nil {
		return audit.Result{}, err
	}
	return oracle.Audit(ctx,
		func(ctx context.Context, from uint64, do func(audit.Message) error) error {
			return hub.EachMessage(ctx, from, func(message thing.Message) error {
				if message.Thing != m.Thing {
					return nil
				}
				return do(audit.Message{Position: message.Position, Measurements: message.Measurements})
			})
		},
		func(ctx context.Context, do func(audit.Held) error) error {
			return world.EachHeld(ctx, m.Avatar, func(h avatar.Held) error {
				return do(audit.Held{Number: h.Number, Measurement: h.Measurement})
			})
		})
}

// recorded is the history of the mapping's views.
func recorded(ctx context.Context, hub *thing.Agent, m thing.MappingInfo) (audit.Config, error) {
	config := audit.Config{From: m.From}
	info, err := hub.Thing(ctx, m.Thing)
	if err != nil {
		return config, err
	}
	lingers, err := hub.Lingers(m.Thing)
	if err != nil {
		return config, err
	}
	records, err := hub.Views(m.ID)
	if err != nil {
		return config, err
	}
	kinds := map[string]carnet.Kind{}
	for _, k := range []carnet.Kind{carnet.Number, carnet.Boolean, carnet.Text, carnet.Data} {
		kinds[k.String()] = k
	}
	for _, r := range records {
		view, err := r.View.MarshalJSON()
		if err != nil {
			return config, err
		}
		version := audit.ViewVersion{Version: r.Version, View: view, Stopped: r.Stopped, Since: r.Since}
		for _, p := range info.Properties {
			version.Properties = append(version.Properties, audit.Property{
				Name: p.Name, Unit: p.Unit, Kind: kinds[p.Kind], Linger: lingers[p.Name], Admit: !slices.Contains(r.Denied, p.Name),
			})
		}
		config.Views = append(config.Views, version)
	}
	return config, nil
}

// frames turns what an avatar agent hands over into what a bundle takes.
type frames struct {
	world  *avatar.Agent
	avatar carnet.AvatarID
}

// Frames implements evidence.Source.
func (f frames) Frames(ctx context.Context, do func(*evidence.Frame) error) error {
	return f.world.Proven(ctx, f.avatar, avatar.AllFolded, func(p *avatar.ProvenFrame) error {
		frame := evidence.Frame(*p)
		return do(&frame)
	})
}

// prove writes the avatar's bundle and verifies it against the keys that the
// world's operator has pinned.
func (v *town) prove(ctx context.Context, world *node.Inspection, p *party, m thing.MappingInfo) (*evidence.Report, error) {
	v.t.Helper()
	signer, err := world.World.EvidenceSigner(ctx)
	if err != nil {
		return nil, err
	}
	public, err := publicOf(signer.Public())
	if err != nil {
		return nil, err
	}
	trust := evidence.Trust{Version: 1, Worlds: []evidence.World{{Party: p.name, Key: public}}}
	for name, peer := range world.Peers {
		switch peer.Role {
		case identity.Things, identity.World: // whose shares are here
			trust.Senders = append(trust.Senders, evidence.Sender{
				Party: name, Audience: p.name, Key: evidence.PublicKey(peer.Key), Shares: peer.Role == identity.World,
			})
		case identity.Depot:
			trust.Ledgers = append(trust.Ledgers, evidence.Ledger{Party: name, Key: peer.Ledger})
		}
	}
	dir := filepath.Join(v.t.TempDir(), fmt.Sprintf("%s-%s", p.name, m.Avatar))
	if _, err := evidence.Write(ctx, dir, frames{world.World, m.Avatar}, evidence.Options{
		World: p.name, Avatar: m.Avatar, Trust: trust, Signer: signer,
	}); err != nil {
		return nil, err
	}
	return evidence.Verify(ctx, dir, &trust, evidence.VerifyOptions{})
}

func publicOf(key any) (evidence.PublicKey, error) {
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a world signs with %T", key)
	}
	return evidence.PublicKey(public), nil
}
