package sql

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"
	"time"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// The driver ends a statement with its context until the first row is there, and not
// while it looks for the next ones: a query that puts out a row and then counts for ever
// would never end. What follows interrupts it then, too.

// interruptEvery is how often a query is interrupted that doesn't end.
const interruptEvery = 20 * time.Millisecond

// interrupts ends what a connection runs when ctx is done, until stop is called. It goes
// by the driver's own field: a driver without it is refused.
func interrupts(ctx context.Context, conn *sql.Conn) (stop func(), err error) {
	var db uintptr
	err = conn.Raw(func(driver any) error {
		v := reflect.Indirect(reflect.ValueOf(driver))
		if v.Kind() != reflect.Struct {
			return fmt.Errorf("a connection is %T", driver)
		}
		f := v.FieldByName("db")
		if f.Kind() != reflect.Uintptr || f.Uint() == 0 {
			return fmt.Errorf("a connection, %T, doesn't say which database it is of", driver)
		}
		db = uintptr(f.Uint())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("have queries end with their time: %w", err)
	}
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
		again := time.NewTicker(interruptEvery)
		defer again.Stop()
		tls := libc.NewTLS()
		defer tls.Close()
		for {
			sqlite3.Xsqlite3_interrupt(tls, db)
			select {
			case <-over:
				return
			case <-again.C:
			}
		}
	}()
	return func() {
		close(over)
		<-stopped
	}, nil
}
