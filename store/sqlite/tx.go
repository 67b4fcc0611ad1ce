package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"carnet"
	"carnet/bodies"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// ErrDurability marks a failure after which the store can't say what is on disk,
// or knows that it can't write: a failed write or fsync, a read-only or damaged
// file. Every later change fails with it, too. The process must end (exit 74)
// and recover at the next start; whether the change that met it is on disk is
// open until then.
var ErrDurability = errors.New("the store can't make changes durable")

// tx is a change under way on the writing connection. Its methods keep the
// first error; what follows an error does nothing.
type tx struct {
	db  *DB
	err error
}

// change runs fn as one transaction. It stops waiting for its turn when ctx
// ends; once begun, a change isn't interrupted, so that an error always means
// that nothing of it stays.
func (db *DB) change(ctx context.Context, what string, fn func(*tx) error) error {
	if err := db.acquire(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { <-db.slot }()
	t := &tx{db: db}
	t.exec("BEGIN IMMEDIATE")
	if t.err != nil {
		return fmt.Errorf("%s: %w", what, db.fatal(classify(t.err)))
	}
	err := fn(t)
	if t.err != nil {
		err = t.err
	}
	if err == nil {
		t.exec("COMMIT")
		err = t.err
	}
	if err == nil {
		db.changed()
		return nil
	}
	// A failed COMMIT may have rolled back by itself; then this one fails, too.
	undo := &tx{db: db}
	undo.exec("ROLLBACK")
	return fmt.Errorf("%s: %w", what, db.fatal(classify(err)))
}

func (db *DB) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case db.slot <- struct{}{}:
	case <-db.quit:
		return carnet.Errorf(carnet.Unavailable, "the store is closed")
	case <-ctx.Done():
		return ctx.Err()
	}
	if failed := db.failed.Load(); failed != nil {
		<-db.slot
		return *failed
	}
	return nil
}

// Failed is closed when a change failed with ErrDurability: the process must then
// end, whoever asked for the change. Failure says why.
func (db *DB) Failed() <-chan struct{} { return db.broken }

// Failure is why Failed is closed, and nil before.
func (db *DB) Failure() error {
	if failed := db.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}

// fatal remembers err if it says that changes can't be made durable any more.
func (db *DB) fatal(err error) error {
	if errors.Is(err, ErrDurability) && db.failed.CompareAndSwap(nil, &err) {
		close(db.broken)
	}
	return err
}

// statement prepares a statement of the writing connection once.
func (t *tx) statement(query string) *sql.Stmt {
	if s := t.db.prepared[query]; s != nil {
		return s
	}
	s, err := t.db.conn.PrepareContext(context.Background(), query)
	if err != nil {
		t.err = err
		return nil
	}
	t.db.prepared[query] = s
	return s
}

// exec runs a statement and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) int64 {
	if t.err != nil {
		return 0
	}
	s := t.statement(query)
	if t.err != nil {
		return 0
	}
	result, err := s.Exec(args...)
	if err != nil {
		t.err = err
		return 0
	}
	n, err := result.RowsAffected()
	t.err = err
	return n
}

// row reads one row into dst and reports whether there is one.
func (t *tx) row(query string, args []any, dst ...any) bool {
	if t.err != nil {
		return false
	}
	s := t.statement(query)
	if t.err != nil {
		return false
	}
	err := s.QueryRow(args...).Scan(dst...)
	if errors.Is(err, sql.ErrNoRows) {
		return false
	}
	t.err = err
	return err == nil
}

// each calls scan for every row of a query.
func (t *tx) each(query string, args []any, scan func(*sql.Rows) error) {
	if t.err != nil {
		return
	}
	s := t.statement(query)
	if t.err != nil {
		return
	}
	rows, err := s.Query(args...)
	if err == nil {
		err = scanAll(rows, scan)
	}
	t.err = err
}

// read runs a query on a reading connection and calls scan for every row until
// it returns errEnough.
func (db *DB) read(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	s, err := db.query(query)
	if err != nil {
		return classify(err)
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return classify(err)
	}
	return classify(scanAll(rows, scan))
}

// errEnough ends a reading early without an error.
var errEnough = errors.New("enough")

func scanAll(rows *sql.Rows, scan func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return rows.Err()
}

func (db *DB) query(query string) (*sql.Stmt, error) {
	if s, ok := db.queries.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.reads.Prepare(query)
	if err != nil {
		return nil, err
	}
	if kept, loaded := db.queries.LoadOrStore(query, s); loaded {
		s.Close()
		return kept.(*sql.Stmt), nil
	}
	return s, nil
}

// classify turns what SQLite says, or the disk of large bodies, into what the caller
// must react to. Other errors stay as they are.
func classify(err error) error {
	if d, ok := errors.AsType[*bodies.DiskError](err); ok {
		return ofDisk(d)
	}
	e, ok := errors.AsType[*driver.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_FULL:
		return full()
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return carnet.Errorf(carnet.Unavailable, "another process is writing to the store").WithFix("try again")
	case lib.SQLITE_IOERR, lib.SQLITE_READONLY, lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: %w", ErrDurability, err)
	case lib.SQLITE_TOOBIG:
		return carnet.Errorf(carnet.TooLarge, "a row is larger than the store takes (1 GB)")
	}
	return err
}

func full() error {
	return carnet.Errorf(carnet.NoSpace, "the disk of the store is full").WithFix("free some space; nothing is lost")
}

// ofDisk classes a failure to write a file.
func ofDisk(err *bodies.DiskError) error {
	switch {
	case err.Full():
		return full()
	case err.Short():
		return carnet.Errorf(carnet.Unavailable, "the store is short of means: %v", err)
	}
	return fmt.Errorf("%w: %w", ErrDurability, err)
}

// inRange checks that numbers fit into SQLite's integers: positions, numbers
// and versions stay below 2^63.
func inRange(numbers ...uint64) error {
	for _, n := range numbers {
		if n > math.MaxInt64 {
			return carnet.Errorf(carnet.TooLarge, "number %d is not below 2^63", n)
		}
	}
	return nil
}

// cursor is n as the bound of a query: nothing lies above 2^63.
func cursor(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// blob is b as a value that is never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// fixed scans a column of exactly as many bytes as its destination has.
type fixed []byte

// Scan implements sql.Scanner.
func (f fixed) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok || len(b) != len(f) {
		return fmt.Errorf("column holds %d bytes, want %d", len(b), len(f))
	}
	copy(f, b)
	return nil
}
