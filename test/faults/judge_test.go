package faults_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"path/filepath"

	"carnet"
	"carnet/avatar"
	"carnet/demo"
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
	result, err := demo.Audit(ctx, hub, world.World, m)
	if err != nil {
		v.t.Fatalf("audit %s: %v", p.name, err)
	}
	if result.Faults() != 0 || result.Held == 0 {
		v.t.Errorf("%s: %+v", p.name, result)
	}
	report, err := v.prove(ctx, world, p, m.Avatar)
	if err != nil {
		v.t.Fatalf("prove %s: %v", p.name, err)
	}
	if report.Verdict != evidence.True || int(report.Counts.Measurements) != result.Held {
		v.t.Errorf("the evidence of %s, which holds %d: %s", p.name, result.Held, report.Summary())
	}
	return result.Held
}

// prove writes the avatar's bundle and verifies it against the keys that the
// operators of its world, and of those where it lived before, have pinned.
func (v *town) prove(ctx context.Context, world *node.Inspection, p *party, id carnet.AvatarID, former ...*evidence.Trust) (*evidence.Report, error) {
	v.t.Helper()
	trust, err := pinned(ctx, world, p)
	if err != nil {
		return nil, err
	}
	for _, t := range former {
		trust.Join(t)
	}
	dir := filepath.Join(v.t.TempDir(), node.BundleName(p.name, id))
	prover := node.Prover{World: world.World, Party: p.name, Peers: world.Peers, UpTo: avatar.AllFolded}
	if err := prover.Write(ctx, id, dir); err != nil {
		return nil, err
	}
	return evidence.Verify(ctx, dir, trust, evidence.VerifyOptions{})
}

// pinned is what a world's operator trusts.
func pinned(ctx context.Context, world *node.Inspection, p *party) (*evidence.Trust, error) {
	signer, err := world.World.EvidenceSigner(ctx)
	if err != nil {
		return nil, err
	}
	public, err := publicOf(signer.Public())
	if err != nil {
		return nil, err
	}
	trust := &evidence.Trust{Version: 1, Worlds: []evidence.World{{Party: p.name, Key: public}}}
	for name, peer := range world.Peers {
		switch peer.Role {
		case identity.Things, identity.World: // whose shares are here
			trust.Senders = append(trust.Senders, evidence.Sender{
				Party: name, Audience: p.name, Key: evidence.PublicKey(peer.Key), Shares: peer.Role == identity.World,
			})
		case identity.Depot:
			trust.Ledgers = append(trust.Ledgers, evidence.Ledger{Party: name, Key: peer.Ledger})
			if peer.Registrar != "" {
				trust.Registrars = append(trust.Registrars, peer.Registrar)
			}
		}
	}
	return trust, nil
}

func publicOf(key any) (evidence.PublicKey, error) {
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a world signs with %T", key)
	}
	return evidence.PublicKey(public), nil
}
