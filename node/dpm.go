package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/engine/sql"
	"carnet/engine/wasm"
	"carnet/identity"
	"carnet/peering"

	"golang.org/x/sync/errgroup"
)

// openDPM opens a DPM's jobs.
func (n *Node) openDPM(ctx context.Context) error {
	store, err := n.stores.dpms(ctx)
	if err != nil {
		return err
	}
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	sealer, err := n.ownSealer(ctx)
	if err != nil {
		return err
	}
	engines, err := engines("")
	if err != nil {
		return err
	}
	offered, only := make([]capsule.EngineOffer, len(engines)), signed(n.config.DPM.UnsignedPrograms)
	for i, e := range engines {
		offered[i] = capsule.EngineOffer{Name: e.Name(), Version: e.Version(), Signed: slices.Contains(only, e.Name())}
	}
	agent, err := dpm.New(ctx, dpm.Config{
		Party: n.config.Party, Key: local.Key, Store: store, Keys: n.table, Sealer: sealer, Dir: filepath.Join(n.config.path(n.config.Data), "jobs"),
		Engines: offered, Most: n.config.DPM.most(), Peer: n.customer, State: n.statement, Recorded: n.depot.wake, Ledger: stated{n}, Backups: n.config.Backups.keep(), Log: n.log,
	})
	if err != nil {
		return err
	}
	data := n.config.path(n.config.Data)
	n.work = append(n.work, agent.Run, func(ctx context.Context) error { return agent.ServeWorkers(ctx, data) })
	n.api.DPM = agent
	return nil
}

// signed names the engines whose programs must be signed modules. A query is what its
// world asks: nobody else could sign or revoke it.
func signed(unsigned bool) []string {
	if unsigned {
		return nil
	}
	return []string{wasm.Name}
}

// most is the most that a job may have.
func (c DPMConfig) most() capsule.Limits {
	l := capsule.Limits{Memory: uint64(c.MaxMemory) << 20, Milliseconds: time.Duration(c.MaxTime).Milliseconds(), Output: engine.MostOutput, Parts: engine.MostParts}
	if l.Memory == 0 {
		l.Memory = 256 << 20
	}
	if l.Milliseconds == 0 {
		l.Milliseconds = (10 * time.Minute).Milliseconds()
	}
	return l
}

// Processes is how many worker processes a DPM is to start.
func (c DPMConfig) Processes() int {
	switch c.Workers {
	case 0:
		return 2
	case -1:
		return 0
	}
	return c.Workers
}

// customer finds a world that may order jobs now.
func (n *Node) customer(name carnet.PartyID) (dpm.Peer, error) {
	p, err := n.peers.Named(name)
	if err != nil {
		return dpm.Peer{}, err
	}
	if !p.Allows(peering.R6, time.Now()) {
		return dpm.Peer{}, carnet.Errorf(carnet.Forbidden, "the peering with %s isn't in force", name)
	}
	world, given := peerFile(p), p.Own().Clearance()
	given = peering.Within(p.Terms, given)
	given.Purposes = carnet.NewSet(p.Terms.Purposes...)
	return dpm.Peer{
		Name: name, OwnName: world.Party, Key: world.Key, Terms: p.Terms.Fingerprint(), Given: given, Holds: peering.Within(p.Terms, world.Clearance()),
	}, nil
}

// listenR6 takes the calls of worlds.
func (n *Node) listenR6(ctx context.Context) error {
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	gate, served := n.gate(activity.R6, peering.R6), http.NewServeMux()
	gate.let(served, dpm.Patterns(), n.api.DPM.Handler(gate.caller))
	return n.serveMutual(n.config.Listen.R6, local.Certificate, peering.R6, served)
}

// engines are what programs run on. dir is where compiled modules are kept.
func engines(dir string) ([]engine.Engine, error) {
	modules, err := wasm.New(dir)
	if err != nil {
		return nil, err
	}
	return []engine.Engine{modules, sql.Engine{}}, nil
}

// RunWorker runs jobs of a DPM whose process runs on this machine, until ctx ends or the
// DPM's process does. stuck ends the process.
func RunWorker(ctx context.Context, c Config, log *slog.Logger, stuck func()) error {
	if c.Role != identity.DPM {
		return carnet.Errorf(carnet.Malformed, "workers are a DPM's, and %s is a %s", c.Party, c.Role)
	}
	data := c.path(c.Data)
	engines, err := engines(filepath.Join(data, "compiled"))
	if err != nil {
		return err
	}
	board := dpm.NewRemote(data)
	name := fmt.Sprintf("%d-%s", os.Getpid(), carnet.NewJobID().String()[:8])
	worker := &dpm.Worker{Name: name, Board: board, Engines: engines, Stuck: stuck, Log: log.With("party", c.Party)}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return board.Attend(ctx, name) })
	work.Go(func() error { return worker.Run(ctx) })
	return work.Wait()
}
