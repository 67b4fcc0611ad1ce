// Package depot is a party of its own that keeps what others must not lose and
// must not be able to deny: sealed objects, and the ledger of statements. It
// holds no data key, so it can read nothing of what it stores.
//
// The Agent (the framework's storage agent) owns a directory: object bodies as
// files, and the ledger. An object is staged (a temporary file, synced), placed
// (under its fingerprint, directory synced), then owned (a row); only then is
// it acknowledged. Deleting goes the other way: the row first, then the bytes.
// A body that no row names is what a failure left between, and is erased at once,
// when it is to be deleted, or at the next start. A fingerprint that another party
// stored looks exactly like one that nobody did.
//
// The package must not know what is inside an object, what an entry stands for,
// or how a caller was authenticated: its server gets the caller's name from
// the node, which ends mutual TLS.
package depot

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"carnet"
	"carnet/bodies"
	"carnet/ledger"
	"carnet/ledger/tlog"

	"golang.org/x/sync/errgroup"
)

// Config configures an Agent.
type Config struct {
	Dir    string         // holds objects/ and ledger/; made if absent
	Signer *ledger.Signer // names the ledger and signs its checkpoints
	Store  Store

	MaxObject          int64         // bytes of an object; default 64 MiB
	CheckpointInterval time.Duration // of the ledger; default tlog's
	MaxOutstanding     int           // entries of one party that wait for receipts; default tlog's

	// Key signs deletions, and is the one that peers know the depot by; nil: it signs
	// none. State states one before it is answered; nil: nobody does.
	Key   ed25519.PrivateKey
	State func(context.Context, ledger.Statement) error
	// Backups is how long copies of objects are kept elsewhere; default 30 days.
	Backups time.Duration

	Logger *slog.Logger // default slog.Default()
}

// Agent is the storage agent. Its methods may be called concurrently, from New
// until Run returns.
type Agent struct {
	cfg    Config
	bodies bodies.Dir
	log    *tlog.Log
	failed chan error // the first failure that ends the process

	// shards order what happens to one fingerprint, by its first byte: naming
	// or erasing the body together with its row.
	shards [256]sync.Mutex

	shelving sync.Mutex // held while a shelf changes
}

// New opens the depot in cfg.Dir, or makes it. The caller must call Run.
func New(ctx context.Context, cfg Config) (*Agent, error) { return open(ctx, cfg, bodies.Disk{}) }

func open(ctx context.Context, cfg Config, files bodies.Files) (*Agent, error) {
	if cfg.Dir == "" || cfg.Signer == nil || cfg.Store == nil {
		return nil, errors.New("open depot: Dir, Signer and Store are needed")
	}
	if cfg.MaxObject < 0 {
		return nil, errors.New("open depot: MaxObject is below zero")
	}
	if cfg.MaxObject == 0 {
		cfg.MaxObject = 64 << 20
	}
	if cfg.Backups == 0 {
		cfg.Backups = 30 * 24 * time.Hour
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := tlog.MakeDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open depot: %w", err)
	}
	a := &Agent{cfg: cfg, failed: make(chan error, 1)}
	a.bodies = bodies.Dir{Path: filepath.Join(cfg.Dir, "objects"), Files: files}
	if err := a.bodies.Make(); err != nil {
		return nil, fmt.Errorf("open depot: %w", err)
	}
	var err error
	a.log, err = tlog.New(ctx, tlog.Config{
		Dir: filepath.Join(cfg.Dir, "ledger"), Signer: cfg.Signer, Index: cfg.Store,
		CheckpointInterval: cfg.CheckpointInterval, MaxOutstanding: cfg.MaxOutstanding, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("open depot: %w", err)
	}
	return a, nil
}

// Run keeps the ledger and erases what crashes left, until ctx ends. An error
// with ErrFsync in its chain means that the process must exit with code 74.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.log.Run(ctx) })
	g.Go(func() error { return a.sweep(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-a.failed:
			return err
		}
	})
	if err := g.Wait(); err != nil {
		return err
	}
	select {
	case err := <-a.failed: // at the very end
		return err
	default:
		return nil
	}
}

// ErrFsync is in the chain of errors after which nothing that the process
// believes to be on disk can be believed: it must exit (code 74) and recover at
// the next start.
var ErrFsync = tlog.ErrFsync

// classed classes what happened to a body.
func classed(err error) error {
	if d, ok := errors.AsType[*bodies.DiskError](err); ok {
		return tlog.DiskError(d.What, d.Err)
	}
	return err
}

// fatal passes err on, classed, and, when it ends the process, lets Run return it.
func (a *Agent) fatal(err error) error {
	err = classed(err)
	if errors.Is(err, ErrFsync) {
		select {
		case a.failed <- err:
		default:
		}
	}
	return err
}

// sweep erases the bodies that no row names.
func (a *Agent) sweep(ctx context.Context) error {
	for shard := range 256 {
		if ctx.Err() != nil {
			return nil
		}
		n, err := a.sweepShard(ctx, byte(shard))
		if err != nil && ctx.Err() == nil {
			a.cfg.Logger.Warn("objects without owner are left until the next start", "error", err)
			return a.onlyFatal(err)
		}
		if n > 0 {
			a.cfg.Logger.Info("erased objects without owner", "objects", n)
		}
	}
	return nil
}

func (a *Agent) sweepShard(ctx context.Context, shard byte) (int, error) {
	a.shards[shard].Lock()
	defer a.shards[shard].Unlock()
	found, err := a.bodies.List(shard)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	unowned, err := a.cfg.Store.Unowned(ctx, found)
	if err != nil {
		return 0, fmt.Errorf("find objects without owner: %w", err)
	}
	for _, f := range unowned {
		if err := a.bodies.Erase(f); err != nil {
			return 0, classed(err)
		}
	}
	return len(unowned), nil
}

func (a *Agent) onlyFatal(err error) error {
	if errors.Is(err, ErrFsync) {
		return err
	}
	return nil
}

// Put stores an object for owner; on return it is durable. The body must have
// the fingerprint that is announced.
func (a *Agent) Put(ctx context.Context, owner carnet.PartyID, f carnet.Fingerprint, retention carnet.Retention, body io.Reader) error {
	limited := &limitedReader{r: body, left: a.cfg.MaxObject, limit: a.cfg.MaxObject}
	name, size, err := a.bodies.Stage(f, limited)
	if err != nil {
		return a.fatal(err)
	}
	a.shards[f[0]].Lock()
	defer a.shards[f[0]].Unlock()
	if err := a.bodies.Place(name, f); err != nil {
		return a.fatal(err)
	}
	o := Object{Fingerprint: f, Owner: owner, Size: size, Time: time.Now().Truncate(time.Microsecond), Retention: retention}
	if err := a.cfg.Store.PutObject(ctx, o); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearPatience)
		defer cancel()
		if err := a.clear(ctx, f); err != nil {
			a.cfg.Logger.Warn("an object without owner is left until it is deleted, or the next start", "fingerprint", f, "error", err)
		}
		return fmt.Errorf("store object's row: %w", err)
	}
	return nil
}

// clearPatience is how long an object that could not be stored may take to go again.
const clearPatience = 10 * time.Second

// clear erases a body that no row names: a failure left it. The caller holds its shard.
func (a *Agent) clear(ctx context.Context, f carnet.Fingerprint) error {
	unowned, err := a.cfg.Store.Unowned(ctx, []carnet.Fingerprint{f})
	if err != nil {
		return fmt.Errorf("find object without owner: %w", err)
	}
	if len(unowned) == 0 {
		return nil
	}
	body, err := a.bodies.Open(f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not erased, which would take longer than where another has it
	}
	if err != nil {
		return fmt.Errorf("open object without owner: %w", err)
	}
	_ = body.Close() // nothing was written
	return a.fatal(a.bodies.Erase(f))
}

// limitedReader refuses a body that is too large.
type limitedReader struct {
	r           io.Reader
	left, limit int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, carnet.Errorf(carnet.TooLarge, "the object is larger than %d bytes", l.limit)
	}
	return n, err
}

// Get opens an owner's object; the caller closes it, and should hold the bytes
// against the fingerprint. It is carnet.NotFound for everybody else.
func (a *Agent) Get(ctx context.Context, owner carnet.PartyID, f carnet.Fingerprint) (io.ReadCloser, Object, error) {
	o, err := a.cfg.Store.Object(ctx, owner, f)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, Object{}, notFound(f)
	}
	if err != nil {
		return nil, Object{}, fmt.Errorf("find object: %w", err)
	}
	body, err := a.bodies.Open(f)
	if errors.Is(err, fs.ErrNotExist) {
		a.cfg.Logger.Error("an object's body is missing", "fingerprint", f)
		return nil, Object{}, notFound(f)
	}
	if err != nil {
		return nil, Object{}, fmt.Errorf("open object: %w", err)
	}
	return body, o, nil
}

func notFound(f carnet.Fingerprint) error {
	return carnet.Errorf(carnet.NotFound, "no object %s is stored for you", f)
}

// Delete forgets an owner's object and, when nobody else has the same bytes,
// erases them; on return that is durable. carnet.NotFound says that the owner has no
// such object, and that nobody's bytes of it are left.
func (a *Agent) Delete(ctx context.Context, owner carnet.PartyID, f carnet.Fingerprint) error {
	a.shards[f[0]].Lock()
	defer a.shards[f[0]].Unlock()
	others, err := a.cfg.Store.DeleteObject(ctx, owner, f)
	if carnet.CodeOf(err) == carnet.NotFound {
		return cmp.Or(a.clear(ctx, f), notFound(f))
	}
	if err != nil {
		return fmt.Errorf("forget object: %w", err)
	}
	if others > 0 {
		return nil
	}
	return a.fatal(a.bodies.Erase(f))
}

// maxList bounds what List returns at once.
const maxList = 1000

// List returns an owner's objects by fingerprint, those after `after`; at most
// limit, and never more than 1000.
func (a *Agent) List(ctx context.Context, owner carnet.PartyID, after carnet.Fingerprint, limit int) ([]Object, error) {
	if limit < 1 || limit > maxList {
		limit = maxList
	}
	return a.cfg.Store.Objects(ctx, owner, after, limit)
}

// Totals counts an owner's objects, and everybody's for owner "".
func (a *Agent) Totals(ctx context.Context, owner carnet.PartyID) (Totals, error) {
	return a.cfg.Store.Totals(ctx, owner)
}

// Submit puts a party's entries into the ledger and returns their receipts in
// order.
func (a *Agent) Submit(ctx context.Context, by carnet.PartyID, entries []ledger.Entry) ([]ledger.Receipt, error) {
	receipts, err := a.log.Append(ctx, by, entries)
	return receipts, a.fatal(err)
}

// Find returns the leaves of those of entries that the ledger has; see tlog.Log.
func (a *Agent) Find(ctx context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error) {
	return a.log.Find(ctx, entries)
}

// Consistency returns the path that proves the ledger at one size to continue the one
// at another.
func (a *Agent) Consistency(ctx context.Context, older, newer uint64) ([][32]byte, error) {
	return a.log.Consistency(ctx, older, newer)
}

// By is the depot for a party of its own process (ledger.Submitter).
type By struct {
	Agent *Agent
	Party carnet.PartyID
}

// Submit implements ledger.Submitter.
func (b By) Submit(ctx context.Context, entries []ledger.Entry) ([]ledger.Receipt, error) {
	return b.Agent.Submit(ctx, b.Party, entries)
}

// Checkpoint returns the ledger's last checkpoint and its signed form.
func (a *Agent) Checkpoint() (ledger.Checkpoint, []byte) { return a.log.Checkpoint() }

// Key is the ledger's public identity.
func (a *Agent) Key() ledger.Key { return a.log.Key() }

// Tiles serves the ledger to auditors (C2SP tlog-tiles).
func (a *Agent) Tiles() http.Handler { return a.log.Handler() }
