package sqlite

import (
	"context"
	"database/sql"
	"fmt"
)

// A checkpoint copies the write-ahead log into the file, 16 MB and two fsyncs
// at a time. Done by the connection that commits, as SQLite does by itself, it
// would hold up one commit in a hundred for ten milliseconds and more. So a
// goroutine of its own copies beside the writer, and then, in no time, what was
// committed meanwhile, until nothing was: then the file is synced, and the next
// commit begins the log anew. Only where others commit all the time it holds the
// writer up for the rest.
//
// A checkpoint that fails loses nothing: the log keeps all, and the next one
// copies the same pages again.

const (
	walPages       = 2000 // a checkpoint is due when the log has this many pages
	changesPerLook = 8    // how often the length of the log is looked up
	copiesBeside   = 4    // how often at most is copied beside the writer
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
		if all, err := db.copyBeside(); err != nil || all {
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

// copyBeside copies the log while others commit, until nothing was committed
// during a copy: that one synced the file, and the next commit begins the log anew.
// It reports whether that came to be.
func (db *DB) copyBeside() (all bool, err error) {
	for range copiesBeside {
		copied, err := moveLog(db.mover, "PASSIVE")
		if err != nil {
			return false, err
		}
		// Fewer: it has begun anew.
		if pages, err := moveLog(db.mover, "NOOP"); err != nil || pages <= copied {
			return err == nil, err
		}
	}
	return false, nil
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
