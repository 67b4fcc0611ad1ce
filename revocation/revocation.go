// Package revocation owns a party's revocation number: one number that grows
// with whatever ends somebody's access (a peering that is suspended or removed,
// a grant that is revoked, a mandate that is withdrawn), written in the same
// transaction as the end itself.
//
// The number is the version of one document in the party's own store. Who ends
// something asks a Watcher for the document's next version and stores it beside
// the change. In the process that made the change it counts at once; a process
// beside it on the same store sees it at the next reading, a tenth of a second
// later. A Watcher is fresh while its last successful reading is at most a
// second old; when it isn't, nobody can tell what was ended, and what lives by a
// peering, grant or mandate is to be closed.
//
// The package must not know what is ended, or how it is closed.
package revocation

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"carnet"
)

// Kind and ID name the document. Its version is the number; its body says
// nothing.
const (
	Kind = "revocation"
	ID   = "number"
)

// Store is where the number lies: each role's store is one.
type Store interface {
	// Document returns what is durable; carnet.NotFound while nothing was ever
	// ended.
	Document(ctx context.Context, kind, id string) (carnet.Document, error)
}

// Config makes a Watcher. Only Store is required.
type Config struct {
	Store Store
	Every time.Duration // between readings; default 100 ms
	Stale time.Duration // how old the last successful reading may be; default 1 s
	Log   *slog.Logger  // default slog.Default()
}

// State is what a Watcher knows.
type State struct {
	Number uint64
	Fresh  bool // false: the number may have grown unseen
}

// Watcher knows the number, and tells when it grows or can't be read.
type Watcher struct {
	store        Store
	every, stale time.Duration
	log          *slog.Logger

	// ending is held from the reading of the number to the storing of the next
	// one, so that changes of this process don't conflict with each other.
	ending sync.Mutex

	telling sync.Mutex // held while subscribers are told, so that they hear in order

	mu          sync.Mutex // guards what follows
	number      uint64
	read        time.Time // of the last success
	told        State
	subscribers []func(State)
}

// New reads the number for the first time.
func New(ctx context.Context, cfg Config) (*Watcher, error) {
	if cfg.Store == nil || cfg.Every < 0 || cfg.Stale < 0 {
		return nil, carnet.Errorf(carnet.Malformed, "a watcher of revocations needs a store, and times above zero")
	}
	w := &Watcher{store: cfg.Store, every: cfg.Every, stale: cfg.Stale, log: cfg.Log}
	if w.every == 0 {
		w.every = 100 * time.Millisecond
	}
	if w.stale == 0 {
		w.stale = time.Second
	}
	if w.log == nil {
		w.log = slog.Default()
	}
	asked := time.Now()
	number, err := w.stored(ctx)
	if err != nil {
		return nil, err
	}
	w.number, w.read, w.told = number, asked, State{number, true}
	return w, nil
}

// stored reads the number.
func (w *Watcher) stored(ctx context.Context) (uint64, error) {
	d, err := w.store.Document(ctx, Kind, ID)
	if carnet.CodeOf(err) == carnet.NotFound {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the revocation number: %w", err)
	}
	return d.Version, nil
}

// Subscribe has f called whenever the number has grown, or freshness was lost or
// came back: from now on, one call at a time, in order. f must not block, nor
// call End; it looks up itself what has ended.
func (w *Watcher) Subscribe(f func(State)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subscribers = append(w.subscribers, f)
}

// Number is the greatest number known.
func (w *Watcher) Number() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.number
}

// Fresh reports whether the number was read within the last second. What it
// doesn't hold for must refuse.
func (w *Watcher) Fresh() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fresh()
}

func (w *Watcher) fresh() bool { return time.Since(w.read) <= w.stale }

// End ends somebody's access: put stores, in one transaction, the change and the
// document, which is the number's next version. When End returns nil, both are
// durable and every subscriber was told. put is called again after another
// process has taken the number (put said carnet.Conflict and the number has
// grown), so it must read its own documents anew each time.
func (w *Watcher) End(ctx context.Context, put func(carnet.Document) error) error {
	w.ending.Lock()
	defer w.ending.Unlock()
	for {
		asked := time.Now()
		number, err := w.stored(ctx)
		if err != nil {
			return err
		}
		err = put(carnet.Document{Kind: Kind, ID: ID, Version: number + 1, Body: []byte{}})
		if err == nil {
			w.learn(number+1, asked)
			return nil
		}
		if carnet.CodeOf(err) != carnet.Conflict {
			return err
		}
		if now, rerr := w.stored(ctx); rerr != nil || now == number {
			return err // the conflict was about something else
		}
	}
}

// learn takes in what was read at a time, or stored since, and calls the
// subscribers if something has changed since they were last called; also if the
// number had grown old unnoticed, as while the whole process was stopped: who was
// refused meanwhile hears so that it is known again, and nothing ends for that.
func (w *Watcher) learn(number uint64, at time.Time) {
	w.telling.Lock()
	defer w.telling.Unlock()
	w.mu.Lock()
	unnoticed := w.told.Fresh && !w.fresh()
	w.number = max(w.number, number)
	if at.After(w.read) {
		w.read = at
	}
	now := State{w.number, w.fresh()}
	changed := unnoticed || now != w.told
	w.told = now
	subscribers := w.subscribers[:len(w.subscribers):len(w.subscribers)]
	w.mu.Unlock()
	if !changed {
		return
	}
	for _, f := range subscribers {
		f(now)
	}
}

// answer is what one reading gave.
type answer struct {
	number uint64
	asked  time.Time
	err    error
}

// Run reads the number until ctx ends. A store that doesn't answer, or fails,
// makes the Watcher stale and is asked on.
func (w *Watcher) Run(ctx context.Context) error {
	answers := make(chan answer, 1) // so that a reading that nobody waits for any more can end
	timer := time.NewTimer(w.every)
	defer timer.Stop()
	for failing, late := false, false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		go func() {
			asked := time.Now()
			number, err := w.stored(ctx)
			answers <- answer{number, asked, err}
		}()
		got, ok := w.await(ctx, answers, timer)
		if !ok {
			return nil
		}
		if late = !late && got.err == nil && time.Since(got.asked) > w.stale; late {
			timer.Reset(0) // the process was stopped meanwhile: it looks again before it gives up
			continue
		}
		if got.err == nil {
			w.learn(got.number, got.asked)
		} else {
			w.learn(0, time.Time{}) // nothing; but time has passed
		}
		if failing != (got.err != nil) {
			failing = !failing
			if failing {
				w.log.Warn("the revocation number can't be read", "err", got.err)
			} else {
				w.log.Info("the revocation number can be read again")
			}
		}
		timer.Reset(w.every)
	}
}

// await waits for a reading, and tells of it when that takes so long that what is
// known doesn't count any more: at least a tenth of a second, so that a process
// that was stopped for a while looks before it gives up. It reports false when ctx
// has ended.
func (w *Watcher) await(ctx context.Context, answers <-chan answer, timer *time.Timer) (answer, bool) {
	w.mu.Lock()
	due := time.Now().Add(max(w.every, time.Until(w.read.Add(w.stale))) + time.Millisecond)
	w.mu.Unlock()
	timer.Reset(time.Until(due))
	for {
		select {
		case got := <-answers:
			return got, ctx.Err() == nil
		case <-ctx.Done():
			return answer{}, false
		case <-timer.C:
		}
		if time.Since(due) > w.every { // the process was stopped: the reading had no time
			due = time.Now().Add(w.every)
			timer.Reset(w.every)
			continue
		}
		select {
		case got := <-answers: // both are there
			return got, ctx.Err() == nil
		default:
			w.learn(0, time.Time{})
		}
	}
}
