package sql

import (
	"bytes"
	"context"
	"os"
	"runtime/metrics"
	"strconv"
	"time"

	"carnet"
)

// watchMemory ends a run when what SQLite has of this process's memory has grown by
// more than the run's limit since it began; stop ends the watching.
//
// SQLite's own counting is left out of the driver's build, so that what isn't Go's of the
// memory that the process has is taken for SQLite's. Of runs beside each other in one
// process each is held against the growth of all: a DPM's workers run one at a time.
func watchMemory(ctx context.Context, most uint64, over context.CancelCauseFunc) (stop func()) {
	begin := foreignMemory()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if foreignMemory()-begin > int64(most) {
				over(carnet.Errorf(carnet.TooLarge, "the query used more than its limit of %d MiB of memory", most>>20))
				return
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// foreignMemory is what of the process's memory isn't Go's; 0 where that can't be told
// (it isn't Linux): then time and the length of values are what bounds a query.
func foreignMemory() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(statm)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	own := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(own)
	return pages*int64(os.Getpagesize()) - int64(own[0].Value.Uint64()-own[1].Value.Uint64())
}
