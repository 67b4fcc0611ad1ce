// Package tlog keeps a ledger: an append-only Merkle log in a directory, served
// as C2SP tlog-tiles, with a signed checkpoint a few times a second. The engine
// is Tessera on a POSIX file system.
//
// It owns the directory, the order of entries and the checkpoints. An entry is
// queued (in memory), then sequenced (tiles and tree state are on disk), then
// published (a signed checkpoint covers it), then indexed (found again by its
// bytes). Append returns when it is indexed, so a receipt is never for
// something that a crash can take away. What is sequenced and not indexed at a
// crash is indexed at the next start, from the log itself.
//
// The package must not know what an entry stands for, nor who sent it.
package tlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"carnet"
	"carnet/claim"
	"carnet/ledger"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
)

// Index finds entries again, so that none is sequenced twice. Its methods are
// called by one goroutine at a time, but for Lookup.
type Index interface {
	// Lookup returns the leaf index of each of the entries that is indexed.
	Lookup(ctx context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error)
	// Record indexes entries as the leaves first, first+1, … in one transaction
	// that is durable on return. An entry that is indexed already keeps its leaf.
	Record(ctx context.Context, first uint64, entries []ledger.Entry) error
	// Indexed returns how many leaves were recorded: the end of the last Record.
	Indexed(ctx context.Context) (uint64, error)
}

// Config configures a Log.
type Config struct {
	Dir    string         // made if absent; one process at a time
	Signer *ledger.Signer // names the ledger and signs its checkpoints
	Index  Index

	CheckpointInterval time.Duration // 100 ms (the default) to 200 ms
	BatchAge           time.Duration // an entry waits at most so long for others; default 50 ms
	BatchSize          int           // entries sequenced at once; default 1024
	MaxOutstanding     int           // entries of one party that wait for a receipt, above which Append refuses; default 16384
	CollectInterval    time.Duration // between removals of partial tiles that full ones have replaced; default 1 min

	Logger *slog.Logger // default slog.Default()
}

func (c *Config) check() error {
	if c.Dir == "" || c.Signer == nil || c.Index == nil {
		return errors.New("a ledger needs Dir, Signer and Index")
	}
	c.CheckpointInterval = orDefault(c.CheckpointInterval, 100*time.Millisecond)
	c.BatchAge = orDefault(c.BatchAge, 50*time.Millisecond)
	c.BatchSize = orDefault(c.BatchSize, 1024)
	c.MaxOutstanding = orDefault(c.MaxOutstanding, 16384)
	c.CollectInterval = orDefault(c.CollectInterval, time.Minute)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.CheckpointInterval < 100*time.Millisecond || c.CheckpointInterval > 200*time.Millisecond {
		return fmt.Errorf("CheckpointInterval is %v, want 100 ms to 200 ms", c.CheckpointInterval)
	}
	if c.BatchAge < 0 || c.BatchSize < 1 || c.MaxOutstanding < 1 || c.CollectInterval < 0 {
		return errors.New("a limit is below zero")
	}
	return nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Log is a ledger that this process keeps. Its methods may be called
// concurrently.
type Log struct {
	cfg      Config
	key      ledger.Key
	alone    *claim.Claim
	add      tessera.AddFn
	shutdown func(context.Context) error
	stop     context.CancelFunc
	reader   tessera.LogReader
	tiles    *tileCache

	wanted chan struct{} // somebody waits for a checkpoint

	patience time.Duration // how long a checkpoint may keep those who wait before that is said
	moved    time.Time     // when it last did, or nobody waited; owned by Run

	mu          sync.Mutex
	waiting     map[ledger.Entry]*waiter // guarded by mu
	outstanding map[carnet.PartyID]int   // how many of waiting are a party's; guarded by mu
	state       published                // guarded by mu
	behind      bool                     // state has leaves that aren't indexed; guarded by mu
	err         error                    // why no more is appended; guarded by mu
}

// waiter is an entry that is on its way to its index.
type waiter struct {
	by    carnet.PartyID // who brought it first
	done  chan struct{}  // closed when index or err holds
	index uint64
	err   error
}

// published is a checkpoint with what every receipt of it needs.
type published struct {
	ledger.Checkpoint
	signed    []byte
	signature [64]byte
}

// New opens the ledger in cfg.Dir, or makes it. The caller must call Run, which
// closes it.
func New(ctx context.Context, cfg Config) (*Log, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	alone, err := claimDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Log{
		cfg: cfg, key: cfg.Signer.Key(), alone: alone,
		wanted: make(chan struct{}, 1), patience: maxUnpublished,
		waiting: make(map[ledger.Entry]*waiter), outstanding: make(map[carnet.PartyID]int),
	}
	if err := l.open(ctx); err != nil {
		l.close()
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return l, nil
}

// claimDir keeps a second process away from dir.
func claimDir(dir string) (*claim.Claim, error) {
	if err := MakeDir(dir); err != nil {
		return nil, err
	}
	c, err := claim.Alone(dir)
	if errors.Is(err, claim.ErrTaken) {
		return nil, carnet.Errorf(carnet.Conflict, "the ledger in %s is kept by another process", dir).WithFix("stop it first")
	}
	return c, err
}

// open starts the engine and checks that what is in the directory is this key's.
func (l *Log) open(ctx context.Context) error {
	quietEngine(l.cfg.Logger)
	if err := probe(l.cfg.Dir); err != nil {
		return DiskError("open for writing", err)
	}
	if err := l.checkOwner(); err != nil {
		return err
	}
	driver, err := posix.New(ctx, posix.Config{Path: l.cfg.Dir})
	if err != nil {
		return err
	}
	opts := tessera.NewAppendOptions().
		WithCheckpointSigner(l.cfg.Signer).
		WithCheckpointInterval(l.cfg.CheckpointInterval).
		WithCheckpointRepublishInterval(0).
		WithBatching(uint(l.cfg.BatchSize), l.cfg.BatchAge).
		WithGarbageCollectionInterval(l.cfg.CollectInterval)
	// The engine lives until close, not until the caller's ctx ends.
	engine, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	appender, shutdown, reader, err := tessera.NewAppender(engine, driver, opts)
	if err != nil {
		return DiskError("start the engine", err)
	}
	l.add, l.shutdown, l.reader = appender.Add, shutdown, reader
	l.tiles = newTileCache(reader.ReadTile)
	return l.catchUp(ctx)
}

// catchUp indexes what was sequenced before a crash, which the engine publishes
// first. A disk that is full doesn't keep the ledger from opening.
func (l *Log) catchUp(ctx context.Context) error {
	size, err := l.reader.IntegratedSize(ctx)
	if err != nil {
		return err
	}
	indexed, err := l.cfg.Index.Indexed(ctx)
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	if indexed > size {
		return ahead(indexed, size)
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		// The checkpoint may be older than the index and the tree: after a loss of power,
		// or in a copy that was made while the ledger ran. The engine publishes anew.
		err := l.follow(ctx)
		if err != nil && carnet.CodeOf(err) != carnet.Tampered {
			return err
		}
		if at, _ := l.Checkpoint(); at.Size >= size || tries*int(pollInterval) > int(maxCatchUp) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// checkOwner refuses a directory whose checkpoint another key has signed.
func (l *Log) checkOwner() error {
	signed, err := os.ReadFile(filepath.Join(l.cfg.Dir, checkpointPath))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := ledger.ParseCheckpoint(l.key, signed); err != nil {
		return fmt.Errorf("%s is not the ledger of %s: %w", l.cfg.Dir, l.key.Origin, err)
	}
	return nil
}

func (l *Log) close() {
	if l.stop != nil {
		l.stop()
	}
	_ = l.alone.Release()
}

// Key is the ledger's public identity.
func (l *Log) Key() ledger.Key { return l.key }

// Checkpoint returns the last checkpoint and its signed form.
func (l *Log) Checkpoint() (ledger.Checkpoint, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Checkpoint, l.state.signed
}
