package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"carnet"
)

// A checkpoint copies the write-ahead log into the file, 8 MB and two fsyncs
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
		db.checkpoint()
	}
}

// checkpoint copies the log into the file if it is due.
func (db *DB) checkpoint() {
	db.copying.Lock()
	defer db.copying.Unlock()
	if pages, err := moveLog(db.mover, "NOOP"); err != nil || pages < walPages {
		return
	}
	if all, err := db.copyBeside(); err != nil || all {
		db.fatal(classify(err))
		return
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

// cutLog empties the log and reports whether that could be done: no reader was in the
// way. It waits for none: who wants to write would wait, too.
func (db *DB) cutLog() (done bool, err error) {
	if _, err := db.conn.ExecContext(context.Background(), "PRAGMA busy_timeout(1)"); err != nil {
		return false, err
	}
	defer func() {
		_, failed := db.conn.ExecContext(context.Background(), "PRAGMA busy_timeout("+strconv.FormatInt(db.patience.Milliseconds(), 10)+")")
		err = errors.Join(err, failed)
	}()
	var busy, pages, moved int
	err = db.conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	return busy == 0, err
}

// moveLog runs a checkpoint of a kind and returns how many pages the log has.
func moveLog(conn *sql.Conn, kind string) (pages int, err error) {
	var busy, moved int
	err = conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+kind+")").Scan(&busy, &pages, &moved)
	return pages, err
}

// scrub leaves nothing in the file and its log of what was deleted before: the log is
// emptied into the file, and then gaps of pages are zeroed. Who comes while others wait
// shares what is done for them.
func (db *DB) scrub(ctx context.Context) error {
	turn := db.asked.Add(1)
	db.scrubbing.Lock()
	defer db.scrubbing.Unlock()
	if db.scrubbed >= turn {
		return nil
	}
	all := db.asked.Load()
	if err := db.sweep(ctx); err != nil {
		return err
	}
	db.scrubbed = all
	return nil
}

// sweep empties the log, and zeroes the gaps of pages before it is moved again:
// meanwhile changes gather in it.
func (db *DB) sweep(ctx context.Context) error {
	db.copying.Lock()
	defer db.copying.Unlock()
	if err := db.emptyLog(ctx); err != nil {
		return err
	}
	stale, err := db.stale()
	if err != nil || len(stale) == 0 {
		return err
	}
	if err := db.overwrite(ctx, stale); err != nil {
		return err
	}
	return db.emptyLog(ctx)
}

// cut empties the log.
func (db *DB) cut(ctx context.Context) error {
	db.copying.Lock()
	defer db.copying.Unlock()
	return db.emptyLog(ctx)
}

// emptyLog moves the log into the file and cuts it to nothing. The caller holds copying.
func (db *DB) emptyLog(ctx context.Context) error {
	for begun := time.Now(); ; {
		if err := db.acquire(ctx); err != nil {
			return fmt.Errorf("empty write-ahead log: %w", err)
		}
		done, err := db.cutLog()
		<-db.slot
		switch {
		case err != nil:
			return fmt.Errorf("empty write-ahead log: %w", db.fatal(classify(err)))
		case done:
			return nil
		case time.Since(begun) > 2*db.patience:
			return carnet.Errorf(carnet.Unavailable, "somebody reads the store for so long that what was deleted can't be overwritten").WithFix("try it again later")
		}
		select {
		case <-time.After(10 * time.Millisecond): // another process copies the log
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
