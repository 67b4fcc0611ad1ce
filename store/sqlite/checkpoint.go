package sqlite

import (
	"context"
	"database/sql"
	"fmt"
)

// A checkpoint copies the write-ahead log into the file, 16 MB and two fsyncs
// at a time. Done by the connection that commits, as SQLite does by itself, it
// would hold up one commit in a hundred for ten milliseconds and more. So a
// goroutine of its own copies beside the writer, and only for what was committed
// meanwhile, a few pages, holds the writer up: then the log is empty and the
// next commit begins it anew.
//
// A checkpoint that fails loses nothing: the log keeps all, and the next one
// copies the same pages again.

const (
	walPages       = 2000 // a checkpoint is due when the log has this many pages
	changesPerLook = 8    // how often the length of the log is looked up
)

// changed counts a change and wakes the checkpointer now and then. The caller
// holds slot.
func (db *DB) changed() {
	if db.changes++; db.changes%changesPerLook == 0 {
		select {
		case db.look <- struct{}{}:
		default: // it is awake
		}
	}
}

// checkpoints runs until quit is closed.
func (db *DB) checkpoints() {
	defer close(db.done)
	for {
		select {
		case <-db.look:
		case <-db.quit:
			return
		}
		if pages, err := moveLog(db.mover, "NOOP"); err != nil || pages < walPages {
			continue
		}
		if _, err := moveLog(db.mover, "PASSIVE"); err != nil {
			db.fatal(classify(err))
			continue
		}
		select {
		case db.slot <- struct{}{}:
		case <-db.quit:
			return
		}
		_, err := moveLog(db.mover, "PASSIVE")
		<-db.slot
		db.fatal(classify(err))
	}
}

// moveLog runs a checkpoint of a kind and returns how many pages the log has.
func moveLog(conn *sql.Conn, kind string) (pages int, err error) {
	var busy, moved int
	err = conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+kind+")").Scan(&busy, &pages, &moved)
	return pages, err
}

// scrub empties the write-ahead log into the file, so that what was deleted is
// overwritten in both. A reader that is in its way makes that wait for the next
// checkpoint.
func (db *DB) scrub(ctx context.Context) error {
	if err := db.acquire(ctx); err != nil {
		return fmt.Errorf("empty write-ahead log: %w", err)
	}
	defer func() { <-db.slot }()
	if _, err := moveLog(db.conn, "TRUNCATE"); err != nil {
		return fmt.Errorf("empty write-ahead log: %w", db.fatal(classify(err)))
	}
	return nil
}
