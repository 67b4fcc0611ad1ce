package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"carnet"
	"carnet/activity"
	"carnet/avatar"
	"carnet/claim"
	"carnet/depot"
	"carnet/dpm"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/peering"
	"carnet/register"
	"carnet/revocation"
	"carnet/store/postgres"
	"carnet/store/sqlite"
	"carnet/thing"

	"golang.org/x/sync/errgroup"
)

// stores are a party's databases: the state, and apart from it the key table.
type stores struct {
	things func(context.Context) (thing.Store, error)
	worlds func(context.Context) (avatar.Store, error)
	depots func(context.Context) (depot.Store, error)
	dpms   func(context.Context) (dpm.Store, error)
	keys   func(context.Context) (keys.Store, error)
	// A register is in the depot's own store, with the outbox of its statements.
	registers func(context.Context) (register.Store, error)
	// Apart from the state where that costs nothing: no acknowledgement is to wait
	// for a reader's record.
	activity func(context.Context) (activity.Store, error)

	// alone has no other process open the key table until it is released, and is refused
	// while another has.
	alone func(context.Context) (release func(), err error)

	close func() error
	dbs   []database

	// records are what every role's store keeps.
	records func(context.Context) (records, error)
}

// records are a party's documents and statements, whatever its role is.
type records interface {
	peering.Store
	revocation.Store
	ledger.OutboxStore
	// LastReceipt returns the receipt of the newest statement that has one; nil
	// without one.
	LastReceipt(ctx context.Context) ([]byte, error)
}

// database says when its changes can't be made durable any more.
type database interface {
	Failed() <-chan struct{}
	Failure() error
}

// watch ends with the first failure of a database, whoever's change it was: what
// is on disk is in doubt, and only a restart recovers it.
func (s *stores) watch(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	for _, db := range s.dbs {
		work.Go(func() error {
			select {
			case <-ctx.Done():
				return nil
			case <-db.Failed():
				return db.Failure()
			}
		})
	}
	return work.Wait()
}

// openAlone opens the stores of a party for its agents, which write that they have
// started: no other process may be at work on them.
func openAlone(ctx context.Context, c Config) (*stores, error) {
	alone, err := claimData(c.path(c.Data))
	if err != nil {
		return nil, err
	}
	s, err := openStores(ctx, c)
	if err != nil {
		return nil, errors.Join(err, alone.Release())
	}
	end := s.close
	s.close = func() error { return errors.Join(end(), alone.Release()) }
	return s, nil
}

// claimData claims a party's data directory for this process.
func claimData(dir string) (*claim.Claim, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	c, err := claim.Alone(dir)
	if errors.Is(err, claim.ErrTaken) {
		return nil, carnet.Errorf(carnet.Conflict, "another process runs this party: it has %s", dir).WithFix("stop it first")
	}
	if err != nil {
		return nil, fmt.Errorf("claim data directory: %w", err)
	}
	return c, nil
}

func openStores(ctx context.Context, c Config) (*stores, error) {
	if err := os.MkdirAll(c.path(c.Data), 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if c.Store.Kind == "postgres" {
		return openPostgres(ctx, c)
	}
	return openSQLite(ctx, c)
}

// bodiesDir is where a world's large bodies are. What copies files by their names comes
// to it after the database, as it should (docs/design/store.md).
func bodiesDir(c Config) string { return filepath.Join(c.path(c.Data), "stretches") }

func openSQLite(ctx context.Context, c Config) (*stores, error) {
	state, err := sqlite.Open(ctx, filepath.Join(c.path(c.Data), "state.db"), sqlite.Options{Bodies: bodiesDir(c)})
	if err != nil {
		return nil, err
	}
	table, err := sqlite.Open(ctx, filepath.Join(c.path(c.Data), "keys.db"), sqlite.Options{})
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	log, err := sqlite.Open(ctx, filepath.Join(c.path(c.Data), "activity.db"), sqlite.Options{})
	if err != nil {
		return nil, errors.Join(err, state.Close(), table.Close())
	}
	return &stores{
		things:    func(ctx context.Context) (thing.Store, error) { return state.Things(ctx) },
		worlds:    func(ctx context.Context) (avatar.Store, error) { return state.Worlds(ctx) },
		depots:    func(ctx context.Context) (depot.Store, error) { return state.Depot(ctx) },
		dpms:      func(ctx context.Context) (dpm.Store, error) { return state.DPM(ctx) },
		registers: func(ctx context.Context) (register.Store, error) { return state.Register(ctx) },
		keys:      func(ctx context.Context) (keys.Store, error) { return table.Keys(ctx) },
		activity:  func(ctx context.Context) (activity.Store, error) { return log.Activity(ctx) },
		alone:     func(context.Context) (func(), error) { return func() {}, nil }, // as the data directory is
		close:     func() error { return errors.Join(state.Close(), table.Close(), log.Close()) },
		dbs:       []database{state, table, log},
		records: func(ctx context.Context) (records, error) {
			switch c.Role {
			case identity.Things:
				return state.Things(ctx)
			case identity.World:
				return state.Worlds(ctx)
			case identity.DPM:
				return state.DPM(ctx)
			}
			return state.Depot(ctx)
		},
	}, nil
}

func openPostgres(ctx context.Context, c Config) (*stores, error) {
	state, err := postgres.Open(ctx, c.Store.DSN, postgres.Options{Schema: c.Store.Schema, Bodies: bodiesDir(c)})
	if err != nil {
		return nil, err
	}
	table, err := postgres.Open(ctx, c.Store.DSN, postgres.Options{Schema: c.Store.Schema + "_keys"})
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	present, err := table.Enter(ctx)
	if err != nil {
		return nil, errors.Join(err, state.Close(), table.Close())
	}
	return &stores{
		things:    func(ctx context.Context) (thing.Store, error) { return state.Things(ctx) },
		worlds:    func(ctx context.Context) (avatar.Store, error) { return state.Worlds(ctx) },
		depots:    func(ctx context.Context) (depot.Store, error) { return state.Depot(ctx) },
		dpms:      func(ctx context.Context) (dpm.Store, error) { return state.DPM(ctx) },
		registers: func(ctx context.Context) (register.Store, error) { return state.Register(ctx) },
		keys:      func(ctx context.Context) (keys.Store, error) { return table.Keys(ctx) },
		activity:  func(ctx context.Context) (activity.Store, error) { return state.Activity(ctx) },
		alone:     present.Alone,
		close: func() error {
			present.Leave()
			return errors.Join(state.Close(), table.Close())
		},
		dbs: []database{state, table},
		records: func(ctx context.Context) (records, error) {
			switch c.Role {
			case identity.Things:
				return state.Things(ctx)
			case identity.World:
				return state.Worlds(ctx)
			case identity.DPM:
				return state.DPM(ctx)
			}
			return state.Depot(ctx)
		},
	}, nil
}

// Durability reports whether err says that what is on disk is in doubt: the
// process must end with exit code 74 (EX_IOERR) and recover at its next start.
func Durability(err error) bool {
	return errors.Is(err, sqlite.ErrDurability) || errors.Is(err, postgres.ErrDurability) || errors.Is(err, depot.ErrFsync)
}

// openTable opens the party's key table under its key-encryption key.
func openTable(ctx context.Context, c Config, s *stores) (*keys.Table, error) {
	kek, err := keys.OpenFile(c.path(c.KeyFile))
	if err != nil {
		return nil, err
	}
	store, err := s.keys(ctx)
	if err != nil {
		return nil, err
	}
	table, err := keys.Open(ctx, keys.Config{KEK: kek, Store: store})
	if carnet.CodeOf(err) == carnet.Forbidden {
		return nil, anotherKey(ctx, c, store, err)
	}
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, carnet.Errorf(carnet.NotFound, "%s has no key table", c.Party).WithFix("make the party with 'carnet party init'")
	}
	return table, err
}

// anotherKey says of a key table that the party's key file doesn't open which of the keys
// beside that does: it is a copy from before a rotation, or from after one.
func anotherKey(ctx context.Context, c Config, store keys.Store, err error) error {
	path := c.path(c.KeyFile)
	beside, globbed := filepath.Glob(path + ".*")
	for _, other := range beside {
		kek, opened := keys.OpenFile(other)
		if opened != nil {
			continue
		}
		if _, opened = keys.Open(ctx, keys.Config{KEK: kek, Store: store}); opened == nil {
			return carnet.Errorf(carnet.Forbidden, "the key table of %s is under the key in %s, and not under that in %s: it is a copy from another time", c.Party, other, path).
				WithFix("keep both files; to go on with this copy, put the first in the place of the second")
		}
	}
	return errors.Join(err, globbed)
}
