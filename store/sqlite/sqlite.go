// Package sqlite keeps the state of one party in one SQLite file, and the large bodies
// of a world in files beside it.
//
// It owns the file, its schema and its durability: a method that changes
// something returns nil only after the change's pages are in the write-ahead log
// and the log has been fsynced (synchronous=FULL). One connection writes, a few
// read beside it. Each domain (Things, Worlds, Depot, Register, DPM, Activity, Keys) has its own tables,
// made when that domain is first asked for, and its own schema version.
//
// States of a DB: open → refusing (a change could not be made durable) → closed.
// After a failed fsync the kernel may have dropped what it could not write, and
// the next fsync says nothing about it; so from the first such failure on every
// change is refused with ErrDurability, and only a restart, which recovers from
// what is really on disk, makes the store usable again. A full disk is not such
// a failure: SQLite meets it while writing, before the commit is marked, so the
// change is undone and answered with carnet.NoSpace.
//
// It must not know what the sealed columns hold, nor any rule of a domain
// beyond those that its store's contract states.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/bodies"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Options tune a store; zero values are good defaults.
type Options struct {
	// Readers is the number of connections that read beside the writer; 4.
	Readers int
	// BusyTimeout is how long to wait for another process that writes to the
	// same file; 5 s. After it a change is answered with carnet.Unavailable.
	BusyTimeout time.Duration
	// Bodies is the directory of large bodies, made when a world is opened; the store's
	// path with "-bodies". Files is what it is on: the disk.
	Bodies string
	Files  bodies.Files
}

// How the file is laid out. Rows hold 50 KB to 1 MB, so pages are large; the
// figures behind these numbers are in docs/design/store.md.
const (
	pageSize   = 4096 // SQLite's own
	cacheKiB   = 16 << 10
	walKeep    = 64 << 20 // bytes of log file kept after a checkpoint: to cut it costs whoever commits next
	maxReaders = 64
)

// DB is an open store. Its methods may be called from many goroutines.
type DB struct {
	path   string
	writes *sql.DB // two connections: conn and the checkpointer's
	conn   *sql.Conn
	mover  *sql.Conn // the checkpointer's
	reads  *sql.DB

	patience time.Duration        // with others who use the file
	slot     chan struct{}        // holds a token while somebody writes
	prepared map[string]*sql.Stmt // of conn; owned by the holder of slot
	changes  int                  // made since the start; owned by the holder of slot
	queries  sync.Map             // SQL → *sql.Stmt of reads
	look     chan struct{}        // wakes the checkpointer
	quit     chan struct{}        // closed by Close: the checkpointer is to end
	done     chan struct{}        // closed when the checkpointer has ended
	closing  sync.Once

	file      *os.File      // to read; open as long as any connection: to close one ends SQLite's locks
	copying   sync.Mutex    // held by who copies the log into the file, and who reads it
	scrubbing sync.Mutex    // held before copying
	scrubbed  uint64        // how many of those who asked for a scrub had theirs; guarded by scrubbing
	asked     atomic.Uint64 // how many did

	bodies  string // the directory of large bodies
	files   bodies.Files
	opening sync.Mutex
	large   *bodies.Beside // once a world is opened; guarded by opening

	failed atomic.Pointer[error]
	broken chan struct{} // closed once failed is set
}

// Open opens the store at path and makes it, with mode 0600, if there is none.
func Open(ctx context.Context, path string, o Options) (*DB, error) {
	if o.Readers == 0 {
		o.Readers = 4
	}
	if o.BusyTimeout == 0 {
		o.BusyTimeout = 5 * time.Second
	}
	if o.Bodies == "" {
		o.Bodies = path + "-bodies"
	}
	if o.Files == nil {
		o.Files = bodies.Disk{}
	}
	if o.Readers < 1 || o.Readers > maxReaders || o.BusyTimeout < 0 {
		return nil, fmt.Errorf("open store: want 1 to %d readers and a positive busy timeout", maxReaders)
	}
	if err := private(path); err != nil {
		return nil, err
	}
	db := &DB{
		broken: make(chan struct{}), bodies: o.Bodies, files: o.Files,
		path: path, patience: o.BusyTimeout, slot: make(chan struct{}, 1), prepared: make(map[string]*sql.Stmt),
		look: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	if err := db.connect(ctx, o); err != nil {
		db.Close()
		return nil, fmt.Errorf("open store %s: %w", path, classify(err))
	}
	return db, nil
}

// private makes sure that nobody but the owner can read the file; SQLite gives
// its log and index the mode of the file itself.
func private(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return create(path)
	case err != nil:
		return fmt.Errorf("open store: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("open store: %s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return carnet.Errorf(carnet.Forbidden, "store %s has mode %#o: others can read it", path, info.Mode().Perm()).
			WithFix("find out who could, then chmod 600 it")
	}
	return nil
}

func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("create store: sync directory: %w", err)
	}
	return nil
}

func (db *DB) connect(ctx context.Context, o Options) (err error) {
	if db.writes, err = sql.Open("sqlite", db.dsn(o, "secure_delete(ON)")); err != nil {
		return err
	}
	db.writes.SetMaxOpenConns(2)
	if db.conn, err = db.writes.Conn(ctx); err != nil {
		return err
	}
	if _, err := db.conn.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (domain TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID`); err != nil {
		return err
	}
	if db.reads, err = sql.Open("sqlite", db.dsn(o, "query_only(ON)")); err != nil {
		return err
	}
	db.reads.SetMaxOpenConns(o.Readers)
	db.reads.SetMaxIdleConns(o.Readers)
	if db.file, err = os.Open(db.path); err != nil {
		return err
	}
	if db.mover, err = db.writes.Conn(ctx); err != nil {
		return err
	}
	go db.checkpoints()
	return nil
}

// dsn tells the driver how to set up a connection.
func (db *DB) dsn(o Options, last string) string {
	q := url.Values{"_pragma": {
		"busy_timeout(" + strconv.FormatInt(o.BusyTimeout.Milliseconds(), 10) + ")",
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"wal_autocheckpoint(0)",
		"journal_size_limit(" + strconv.Itoa(walKeep) + ")",
		"cache_size(-" + strconv.Itoa(cacheKiB) + ")",
		"temp_store(MEMORY)",
		"trusted_schema(OFF)",
		"cell_size_check(ON)",
		last,
	}}
	return "file:" + (&url.URL{Path: db.path}).EscapedPath() + "?" + q.Encode()
}

// Close waits for the change that is under way and closes the file.
func (db *DB) Close() (err error) {
	db.closing.Do(func() { err = db.close() })
	return err
}

func (db *DB) close() error {
	db.slot <- struct{}{} // never given back: no change comes after
	close(db.quit)
	var errs []error
	db.opening.Lock()
	if db.large != nil {
		errs = append(errs, db.large.Close())
	}
	db.opening.Unlock()
	if db.mover != nil {
		<-db.done
		errs = append(errs, db.mover.Close())
	}
	if db.reads != nil {
		errs = append(errs, db.reads.Close())
	}
	for _, s := range db.prepared {
		errs = append(errs, s.Close())
	}
	if db.conn != nil {
		errs = append(errs, db.conn.Close())
	}
	if db.writes != nil {
		errs = append(errs, db.writes.Close())
	}
	if db.file != nil { // after all connections
		errs = append(errs, db.file.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
