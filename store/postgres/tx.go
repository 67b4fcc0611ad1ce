package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"

	"carnet"
	"carnet/bodies"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrDurability marks a failure after which the store can't say what is on disk:
// the answer to a commit was lost, or the server reported that it can't write or
// that data is damaged. Every later change fails with it, too. The process must
// end (exit 74) and recover at the next start; whether the change that met it
// stays is open until then.
var ErrDurability = errors.New("the store can't make changes durable")

// tx is a change under way. Its methods keep the first error; what follows an
// error does nothing.
type tx struct {
	ctx context.Context
	tx  pgx.Tx
	err error
}

// change runs fn as one transaction. It stops waiting for a connection when ctx
// ends; once begun, a change isn't interrupted by its caller, so that an error
// always means that nothing of it stays.
func (db *DB) change(ctx context.Context, what string, fn func(*tx) error) error {
	err := db.changed(ctx, fn)
	if err == nil {
		return nil
	}
	return db.fatal(fmt.Errorf("%s: %w", what, err))
}

// fatal remembers err if it says that changes can't be made durable any more.
func (db *DB) fatal(err error) error {
	if errors.Is(err, ErrDurability) && db.failed.CompareAndSwap(nil, &err) {
		close(db.broken)
	}
	return err
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

func (db *DB) changed(ctx context.Context, fn func(*tx) error) error {
	if failed := db.failed.Load(); failed != nil {
		return *failed
	}
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return classify(err)
	}
	defer conn.Release()
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.patience)
	defer cancel()
	begun, err := conn.Begin(ctx)
	if err != nil {
		return classify(err)
	}
	defer begun.Rollback(ctx) // does nothing after a commit
	t := &tx{ctx: ctx, tx: begun}
	err = fn(t)
	if t.err != nil {
		err = t.err
	}
	if err != nil {
		return classify(err)
	}
	if err := begun.Commit(ctx); err != nil {
		return commitFailed(err)
	}
	return nil
}

// commitFailed tells a commit that the server refused from one whose answer
// was lost.
func commitFailed(err error) error {
	e, answered := errors.AsType[*pgconn.PgError](err)
	if answered && e.SeverityUnlocalized == "ERROR" || errors.Is(err, pgx.ErrTxCommitRollback) {
		return classify(err)
	}
	return fmt.Errorf("%w: the answer to a commit was lost: %w", ErrDurability, err)
}

// exec runs a statement and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) int64 {
	if t.err != nil {
		return 0
	}
	tag, err := t.tx.Exec(t.ctx, query, args...)
	t.err = err
	return tag.RowsAffected()
}

// row reads one row into dst and reports whether there is one.
func (t *tx) row(query string, args []any, dst ...any) bool {
	if t.err != nil {
		return false
	}
	err := t.tx.QueryRow(t.ctx, query, args...).Scan(dst...)
	if errors.Is(err, pgx.ErrNoRows) {
		return false
	}
	t.err = err
	return err == nil
}

// each calls scan for every row of a query.
func (t *tx) each(query string, args []any, scan func(pgx.Rows) error) {
	if t.err != nil {
		return
	}
	rows, err := t.tx.Query(t.ctx, query, args...)
	if err != nil {
		t.err = err
		return
	}
	t.err = scanAll(rows, scan)
}

// send runs the statements of a batch in one round trip.
func (t *tx) send(b *pgx.Batch) {
	if t.err == nil && b.Len() > 0 {
		t.err = t.tx.SendBatch(t.ctx, b).Close()
	}
}

// copy streams rows into a table.
func (t *tx) copy(table string, columns string, n int, row func(i int) ([]any, error)) {
	if t.err == nil && n > 0 {
		_, t.err = t.tx.CopyFrom(t.ctx, pgx.Identifier{table}, strings.Fields(columns), pgx.CopyFromSlice(n, row))
	}
}

// read runs a query outside of a change and calls scan for every row until it
// returns errEnough.
func (db *DB) read(ctx context.Context, query string, args []any, scan func(pgx.Rows) error) error {
	rows, err := db.pool.Query(ctx, query, args...)
	if err != nil {
		return classify(err)
	}
	return classify(scanAll(rows, scan))
}

// stream is read for rows that are large and may be many: it fetches a few at a
// time, where read would take in all of them even when scan has had enough. The
// cursor's name stands for the query's columns in the cache of statements, so
// that each query needs its own.
func (db *DB) stream(ctx context.Context, cursor, query string, scan func(pgx.Rows) error) error {
	const few = 8
	t, err := db.pool.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return classify(err)
	}
	defer t.Rollback(context.WithoutCancel(ctx))
	if _, err := t.Exec(ctx, "DECLARE "+cursor+" NO SCROLL CURSOR FOR "+query, pgx.QueryExecModeExec); err != nil {
		return classify(err)
	}
	for n := few; n == few; {
		rows, err := t.Query(ctx, fmt.Sprintf("FETCH %d FROM %s", few, cursor))
		if err != nil {
			return classify(err)
		}
		n = 0
		err = scanAll(rows, func(r pgx.Rows) error {
			n++
			err := scan(r)
			if errors.Is(err, errEnough) {
				n = few + 1 // ends the loop
			}
			return err
		})
		if err != nil {
			return classify(err)
		}
	}
	return nil
}

// errEnough ends a reading early without an error.
var errEnough = errors.New("enough")

func scanAll(rows pgx.Rows, scan func(pgx.Rows) error) error {
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

// classify turns what the server says (by its class of SQLSTATE, appendix A of
// its manual), or its silence, or the disk of large bodies, into what the caller must
// react to. Other errors stay as they are.
func classify(err error) error {
	if d, ok := errors.AsType[*bodies.DiskError](err); ok {
		return ofDisk(d)
	}
	e, answered := errors.AsType[*pgconn.PgError](err)
	if !answered {
		_, network := errors.AsType[net.Error](err)
		_, connecting := errors.AsType[*pgconn.ConnectError](err)
		if network || connecting || pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return carnet.Errorf(carnet.Unavailable, "the PostgreSQL server doesn't answer: %v", err).WithFix("see that it runs; then try again")
		}
		return err
	}
	switch {
	case e.Code == "53100": // disk_full
		return carnet.Errorf(carnet.NoSpace, "the disk of the PostgreSQL server is full").WithFix("free some space; nothing is lost")
	case e.Code == "25006", // read_only_sql_transaction
		strings.HasPrefix(e.Code, "58"), strings.HasPrefix(e.Code, "XX"): // system error, internal error and corruption
		return fmt.Errorf("%w: %w", ErrDurability, err)
	case e.Code == "57014", // query_canceled, by patience
		strings.HasPrefix(e.Code, "08"), strings.HasPrefix(e.Code, "40"), strings.HasPrefix(e.Code, "53"),
		strings.HasPrefix(e.Code, "55"), strings.HasPrefix(e.Code, "57P"):
		return carnet.Errorf(carnet.Unavailable, "the PostgreSQL server can't do it now: %s (%s)", e.Message, e.Code).WithFix("try again")
	}
	return err
}

// ofDisk classes a failure to write a file.
func ofDisk(err *bodies.DiskError) error {
	switch {
	case err.Full():
		return carnet.Errorf(carnet.NoSpace, "the disk with the data directory is full").WithFix("free some space; nothing is lost")
	case err.Short():
		return carnet.Errorf(carnet.Unavailable, "the store is short of means: %v", err)
	}
	return fmt.Errorf("%w: %w", ErrDurability, err)
}

// inRange checks that numbers fit into bigint: positions, numbers and versions
// stay below 2^63.
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

// bytesOf are ids as an array of bytea.
func bytesOf[ID ~[32]byte](ids []ID) [][]byte {
	list := make([][]byte, len(ids))
	for i := range ids {
		list[i] = ids[i][:]
	}
	return list
}

// vacuum removes what was deleted from the tables' files; it can't be part of a
// change.
func (db *DB) vacuum(ctx context.Context, command string) error {
	if _, err := db.pool.Exec(ctx, command); err != nil {
		return fmt.Errorf("vacuum: %w", classify(err))
	}
	return nil
}
