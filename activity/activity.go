// Package activity owns what a party remembers of who asked it for what: the
// activity log, and the guard, through which every way in asks before it does
// anything. docs/design/access.md has both for people.
//
// A call is decided (policy.Authorizer), then recorded, and only then answered:
// whoever calls waits until its record is on disk. Records that come while a
// commit runs share the next one. When they can't be made durable the call is
// refused; nothing is served unrecorded. The log's states are those of its rows:
// appended, and after the time to keep them deleted.
//
// The package must not know what an action does, how a caller is authenticated,
// or where rows lie.
package activity

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/policy"
)

// Via is the way in that a call came.
type Via string

// The ways in.
const (
	HTTP Via = "http"
	Live Via = "live" // a subscription as it goes on
	MQTT Via = "mqtt"
	R2   Via = "r2"
	R5   Via = "r5"
	R6   Via = "r6"

	Machine Via = "machine" // as the user that the party runs as, at its machine
)

// Record says who asked for what, and what was decided.
type Record struct {
	ID        uint64           `json:"id" doc:"Its number; later records have larger ones."`
	Time      time.Time        `json:"time"`
	Who       policy.Principal `json:"who"`
	Action    policy.Action    `json:"action" doc:"The operation's id." example:"get-state"`
	Resource  policy.Resource  `json:"resource"`
	Via       Via              `json:"via" doc:"The way in." enum:"http,live,mqtt,r2,r5,r6,machine"`
	Purpose   string           `json:"purpose,omitempty"`
	Permitted bool             `json:"permitted"`
	Rule      string           `json:"rule,omitempty" doc:"The policy that decided; none where no policy permitted it." example:"user-own"`
	Why       string           `json:"why" doc:"The decision, for people."`
	Grant     string           `json:"grant,omitempty" doc:"The grant that it went by."`
	Policy    string           `json:"policy" doc:"The version of the policies."`
}

// Row is a record as it rests: number and time are clear.
type Row struct {
	ID   uint64 // given by Append
	Time int64  // ns since 1970
	Body []byte // sealed
}

// Store keeps a party's activity. Methods may be called concurrently. A store
// that has no room answers carnet.NoSpace and works again once it has.
type Store interface {
	// Append stores rows, in order, under numbers that grow and are never given
	// twice, in one transaction that is durable on return.
	Append(ctx context.Context, rows []Row) error
	// After returns rows with number > after, lowest first, at most limit. None
	// appears later below one that was returned.
	After(ctx context.Context, after uint64, limit int) ([]Row, error)
	// Before returns rows with number < before, highest first, at most limit.
	Before(ctx context.Context, before uint64, limit int) ([]Row, error)
	// Trim deletes at most limit rows of the time before the given one, and says
	// how many it deleted.
	Trim(ctx context.Context, before int64, limit int) (int, error)
}

// Config makes a Log. Fields without a stated default are required.
type Config struct {
	Store Store
	Keys  *keys.Table
	Keep  time.Duration    // default 366 days
	Now   func() time.Time // default time.Now
	Log   *slog.Logger     // default slog.Default()
}

// Log is a party's activity log.
type Log struct {
	store   Store
	rest    *keys.Sealer
	keep    time.Duration
	now     func() time.Time
	log     *slog.Logger
	queue   chan *waiting
	stopped chan struct{} // closed when Run has ended
	most    int           // read for one answer
}

// waiting is a record whose caller waits for it.
type waiting struct {
	row  Row
	done chan error // takes one
}

// How many records wait, and how many one commit takes.
const (
	maxWaiting = 4096
	maxGroup   = 512
)

var restKey = keys.ID{Kind: "rest", Name: "activity"}

// NewLog opens a party's activity log.
func NewLog(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.Store == nil || cfg.Keys == nil {
		return nil, carnet.Errorf(carnet.Malformed, "an activity log needs a store and a key table")
	}
	if cfg.Keep < 0 {
		return nil, carnet.Errorf(carnet.Malformed, "activity can't be kept for %s", cfg.Keep)
	}
	l := &Log{store: cfg.Store, keep: cfg.Keep, now: cfg.Now, log: cfg.Log, queue: make(chan *waiting, maxWaiting), stopped: make(chan struct{}), most: maxRead}
	if l.keep == 0 {
		l.keep = 366 * 24 * time.Hour
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.log == nil {
		l.log = slog.Default()
	}
	return l, l.openKey(ctx, cfg.Keys)
}

// openKey opens what the rows are sealed under, and makes it for a log that has
// none yet.
func (l *Log) openKey(ctx context.Context, table *keys.Table) (err error) {
	if l.rest, err = table.Sealer(ctx, restKey); carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	rows, err := l.store.Before(ctx, 1<<63-1, 1)
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		return carnet.Errorf(carnet.NotFound, "the key table has no key %s, under which the activity log is sealed", restKey).
			WithFix("restore the key table that belongs to this store")
	}
	if _, err := table.Make(ctx, restKey); err != nil {
		return err
	}
	l.rest, err = table.Sealer(ctx, restKey)
	return err
}

// Run commits records and lets old ones go, until ctx ends; it is called once.
// A record that waits then is refused.
func (l *Log) Run(ctx context.Context) error {
	defer close(l.stopped)
	trim := time.NewTicker(time.Hour)
	defer trim.Stop()
	ready := make(chan struct{})
	close(ready)
	var more <-chan struct{} // ready while there are more old ones
	var group []*waiting
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-trim.C:
			more = ready
		case <-more: // some at a time: a record that waits has its turn between
			if !l.trim(ctx) {
				more = nil
			}
		case first := <-l.queue:
			group = l.gather(append(group[:0], first))
			l.commit(ctx, group)
			clear(group)
		}
	}
}

// gather takes in what waits already.
func (l *Log) gather(group []*waiting) []*waiting {
	for len(group) < maxGroup {
		select {
		case w := <-l.queue:
			group = append(group, w)
		default:
			return group
		}
	}
	return group
}

func (l *Log) commit(ctx context.Context, group []*waiting) {
	rows := make([]Row, len(group))
	for i, w := range group {
		rows[i] = w.row
	}
	err := l.store.Append(ctx, rows)
	for _, w := range group {
		w.done <- err
	}
}

const trimRows = 1000

// trim lets some old records go, and reports whether there are more.
func (l *Log) trim(ctx context.Context) (more bool) {
	n, err := l.store.Trim(ctx, l.now().Add(-l.keep).UnixNano(), trimRows)
	if err != nil {
		l.log.Error("old activity can't be deleted; it is tried again", "err", err)
	}
	return err == nil && n == trimRows
}

// Add makes a record durable. Its number is the store's, and its time is now.
func (l *Log) Add(ctx context.Context, r Record) error {
	now := l.now()
	r.ID, r.Time = 0, now.UTC()
	plain, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record activity: %w", err)
	}
	w := &waiting{row: Row{Time: now.UnixNano()}, done: make(chan error, 1)}
	if w.row.Body, err = l.rest.Seal(nil, aad(w.row.Time), plain); err != nil {
		return fmt.Errorf("record activity: %w", err)
	}
	select {
	case l.queue <- w:
	case <-l.stopped:
		return errStopping
	case <-ctx.Done():
		return busy(ctx)
	}
	select {
	case err = <-w.done:
	case <-l.stopped:
		select {
		case err = <-w.done: // it was the last
		default:
			return errStopping
		}
	case <-ctx.Done():
		return busy(ctx)
	}
	if err != nil {
		return fmt.Errorf("record activity: %w", err)
	}
	return nil
}

var errStopping = carnet.Errorf(carnet.Unavailable, "the party is stopping").WithFix("try again")

func busy(ctx context.Context) error {
	if ctx.Err() == context.Canceled {
		return ctx.Err()
	}
	return carnet.Errorf(carnet.Unavailable, "the call can't be recorded in time, and what isn't recorded isn't done").WithFix("try again")
}

func aad(time int64) []byte { return fmt.Appendf(nil, "activity %d", time) }

// Query asks for a part of the log.
type Query struct {
	After   *uint64 // records after this one, oldest first; nil: the newest ones
	Before  *uint64 // records before this one
	Limit   int     // at most this many; 0: 100, at most 1000
	Who     string  // a principal's name
	Action  policy.Action
	About   string // a resource's id
	Refused bool   // refusals only
}

func (q *Query) matches(r *Record) bool {
	return (q.Who == "" || r.Who.Name == q.Who) && (q.Action == "" || r.Action == q.Action) &&
		(q.About == "" || r.Resource.ID == q.About) && (!q.Refused || !r.Permitted)
}

// How much is read for one answer.
const (
	pageRows = 500
	maxRead  = 50_000
)

// Found is what a search found.
type Found struct {
	Records []Record `json:"records"`
	Next    uint64   `json:"next" doc:"Go on after this one."`
	Stopped uint64   `json:"stopped,omitempty" doc:"The search looked through as many records as one may, and stopped at this one: go on after it, or, where the newest were asked for, before it. Left out: it found as many as were asked for, or looked through all."`
}

// Page returns records in the order of their numbers, the number to go on after,
// and where the search stopped before it was through.
func (l *Log) Page(ctx context.Context, q Query) (f Found, err error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	q.Limit = min(q.Limit, 1000)
	if q.After == nil {
		return l.newest(ctx, q)
	}
	f.Next = *q.After
	for read := 0; len(f.Records) < q.Limit; {
		if read >= l.most {
			f.Stopped = f.Next
			break
		}
		rows, err := l.store.After(ctx, f.Next, pageRows)
		if err != nil {
			return f, err
		}
		for i := range rows {
			r, err := l.open(&rows[i])
			if err != nil {
				return f, err
			}
			if q.Before != nil && r.ID >= *q.Before {
				return f, nil
			}
			if f.Next = r.ID; q.matches(&r) {
				if f.Records = append(f.Records, r); len(f.Records) == q.Limit {
					break
				}
			}
		}
		if read += len(rows); len(rows) < pageRows {
			break
		}
	}
	return f, nil
}

// newest finds the last records that match.
func (l *Log) newest(ctx context.Context, q Query) (f Found, err error) {
	before := uint64(1<<63 - 1)
	if q.Before != nil {
		before = *q.Before
	}
	for read := 0; len(f.Records) < q.Limit; {
		if read >= l.most {
			f.Stopped = before
			break
		}
		rows, err := l.store.Before(ctx, before, pageRows)
		if err != nil {
			return f, err
		}
		for i := range rows {
			r, err := l.open(&rows[i])
			if err != nil {
				return f, err
			}
			f.Next, before = max(f.Next, r.ID), r.ID
			if q.matches(&r) && len(f.Records) < q.Limit {
				f.Records = append(f.Records, r)
			}
		}
		if read += len(rows); len(rows) < pageRows {
			break
		}
	}
	slices.Reverse(f.Records)
	return f, nil
}

func (l *Log) open(row *Row) (r Record, err error) {
	plain, err := l.rest.Open(nil, aad(row.Time), row.Body)
	if err == nil {
		err = json.Unmarshal(plain, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read activity %d: %w", row.ID, err)
	}
	r.ID = row.ID
	return r, nil
}

// String is a record in a line.
func (r Record) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %s: %s", r.ID, r.Time.Format(time.RFC3339Nano), r.Via, r.Why)
	if r.Grant != "" {
		fmt.Fprintf(&b, " (grant %s)", r.Grant)
	}
	return b.String()
}
