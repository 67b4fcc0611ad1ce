package activity

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/policy"
)

// rows is an activity store in memory.
type rows struct {
	mu     sync.Mutex
	all    []Row
	groups []int // how many rows each Append had
	last   uint64
	fail   error
	gate   chan struct{} // nil: open; else each Append takes one
	slow   time.Duration // what a Trim takes
}

func (s *rows) Append(_ context.Context, more []Row) error {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.groups = append(s.groups, len(more))
	for _, r := range more {
		s.last++
		r.ID = s.last
		s.all = append(s.all, r)
	}
	return nil
}

func (s *rows) After(_ context.Context, after uint64, limit int) (page []Row, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.ID > after && len(page) < limit {
			page = append(page, r)
		}
	}
	return page, nil
}

func (s *rows) Before(_ context.Context, before uint64, limit int) (page []Row, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range slices.Backward(s.all) {
		if r.ID < before && len(page) < limit {
			page = append(page, r)
		}
	}
	return page, nil
}

// count is how many rows there are.
func (s *rows) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

func (s *rows) Trim(_ context.Context, before int64, limit int) (n int, _ error) {
	time.Sleep(s.slow)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(r Row) bool {
		gone := r.Time < before && n < limit
		if gone {
			n++
		}
		return gone
	})
	return n, nil
}

// wrapped keeps a key table in memory.
type wrapped struct {
	mu  sync.Mutex
	all map[keys.ID]keys.Row
}

func (s *wrapped) Get(_ context.Context, id keys.ID) (keys.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.all[id]; ok {
		return r, nil
	}
	return keys.Row{}, carnet.Errorf(carnet.NotFound, "there is no key %s", id)
}

func (s *wrapped) Page(_ context.Context, after keys.ID, limit int) (page []keys.Row, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.ID.Kind > after.Kind || r.ID.Kind == after.Kind && r.ID.Name > after.Name {
			page = append(page, r)
		}
	}
	slices.SortFunc(page, func(a, b keys.Row) int {
		return strings.Compare(a.ID.Kind+"\x00"+a.ID.Name, b.ID.Kind+"\x00"+b.ID.Name)
	})
	return page[:min(limit, len(page))], nil
}

func (s *wrapped) Replace(context.Context, keys.ID, []keys.Row, []keys.Row) error {
	return errors.ErrUnsupported
}

func (s *wrapped) Put(_ context.Context, _ keys.ID, more []keys.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range more {
		s.all[r.ID] = r
	}
	return nil
}

func (s *wrapped) Delete(_ context.Context, _ keys.ID, ids []keys.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.all, id)
	}
	return nil
}

func table(t *testing.T) *keys.Table {
	t.Helper()
	kek, err := keys.CreateFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := keys.Create(t.Context(), keys.Config{KEK: kek, Store: &wrapped{all: map[keys.ID]keys.Row{}}})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func newLog(t *testing.T, store Store) *Log {
	t.Helper()
	l, err := NewLog(t.Context(), Config{Store: store, Keys: table(t), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// record makes a record that n tells apart.
func record(n int) Record {
	return Record{Who: policy.Bearer(fmt.Sprint("user", n%3), policy.User), Action: "get-thing", Resource: policy.Resource{Kind: policy.ThingResource, ID: fmt.Sprint("t", n)},
		Via: HTTP, Permitted: n%2 == 0, Rule: "user-own", Why: "because", Policy: "v"}
}

// While one commit runs, whoever comes waits for the next, together; and nobody
// goes on before its record is stored.
func TestRecordsShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &rows{gate: make(chan struct{})}
		l := newLog(t, store)
		ctx, stop := context.WithCancel(t.Context())
		go l.Run(ctx)
		done := make(chan error, 200)
		add := func(n int) { go func() { done <- l.Add(t.Context(), record(n)) }() }
		add(0)
		synctest.Wait() // the first commit runs
		for n := 1; n <= 100; n++ {
			add(n)
		}
		synctest.Wait()
		if len(done) != 0 {
			t.Fatalf("%d went on before anything was stored", len(done))
		}
		store.gate <- struct{}{}
		synctest.Wait()
		if len(done) != 1 {
			t.Fatalf("after the first commit %d went on, want 1", len(done))
		}
		store.gate <- struct{}{}
		synctest.Wait()
		if len(done) != 101 || !slices.Equal(store.groups, []int{1, 100}) {
			t.Errorf("after the second %d went on, in commits of %v", len(done), store.groups)
		}
		stop()
	})
}

func TestWhatIsntStoredIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &rows{fail: carnet.Errorf(carnet.NoSpace, "the disk is full")}
		l := newLog(t, store)
		ctx, stop := context.WithCancel(t.Context())
		go l.Run(ctx)
		if err := l.Add(t.Context(), record(0)); carnet.CodeOf(err) != carnet.NoSpace {
			t.Errorf("on a full disk: %v", err)
		}
		store.mu.Lock()
		store.fail = nil
		store.mu.Unlock()
		if err := l.Add(t.Context(), record(1)); err != nil || len(store.all) != 1 {
			t.Errorf("once there is space: %v, %d rows", err, len(store.all))
		}
		stop()
		synctest.Wait()
		if err := l.Add(t.Context(), record(2)); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("when the log has ended: %v", err)
		}
	})
}

// More than may wait wait for room; whose time is over is refused.
func TestTooManyWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t, &rows{}) // it doesn't run yet
		for n := range maxWaiting {
			go l.Add(t.Context(), record(n))
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Add(ctx, record(0)); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("one too many: %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		go l.Run(ctx)
		synctest.Wait()
		if found, err := l.Page(t.Context(), Query{After: new(uint64), Limit: 1000}); err != nil || len(found.Records) != 1000 {
			t.Errorf("%d records, %v", len(found.Records), err)
		}
		stop()
	})
}

func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &rows{}
		l := newLog(t, store)
		ctx, stop := context.WithCancel(t.Context())
		go l.Run(ctx)
		for n := range 1200 {
			if err := l.Add(t.Context(), record(n)); err != nil {
				t.Fatal(err)
			}
		}
		l.most = 1000
		ids := func(q Query) (got []uint64, next, stopped uint64) {
			t.Helper()
			found, err := l.Page(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range found.Records {
				want := record(int(r.ID) - 1)
				if r.Who != want.Who || r.Resource != want.Resource || r.Permitted != want.Permitted || r.Rule != want.Rule || r.Time.IsZero() {
					t.Fatalf("record %d came back as %+v", r.ID, r)
				}
				got = append(got, r.ID)
			}
			return got, found.Next, found.Stopped
		}
		after := func(n uint64) *uint64 { return &n }
		for _, c := range []struct {
			q             Query
			want          []uint64
			next, stopped uint64
		}{
			{Query{Limit: 3}, []uint64{1198, 1199, 1200}, 1200, 0},
			{Query{Before: after(1199), Limit: 2}, []uint64{1197, 1198}, 1198, 0},
			{Query{After: after(0), Limit: 2}, []uint64{1, 2}, 2, 0},
			{Query{After: after(4), Before: after(7)}, []uint64{5, 6}, 6, 0},
			{Query{After: after(1199)}, []uint64{1200}, 1200, 0},
			{Query{After: after(1200)}, nil, 1200, 0},
			{Query{After: after(700), About: "t700"}, []uint64{701}, 1200, 0},
			{Query{About: "t7", Limit: 1}, nil, 1200, 201}, // there is one, beyond what one answer looks through
			{Query{About: "t7", Before: after(201)}, []uint64{8}, 200, 0},
			{Query{About: "t1100", After: after(0)}, nil, 1000, 1000},
			{Query{About: "t1100", After: after(1000)}, []uint64{1101}, 1200, 0},
			{Query{After: after(0), Who: "user1", Refused: true, Limit: 2}, []uint64{2, 8}, 8, 0},
		} {
			if got, next, stopped := ids(c.q); !slices.Equal(got, c.want) || next != c.next || stopped != c.stopped {
				t.Errorf("%+v: %v and then %d, stopped at %d, want %v, %d and %d", c.q, got, next, stopped, c.want, c.next, c.stopped)
			}
		}
		// Rows hold nothing in the clear, and belong where they are.
		for i := range store.all {
			if bytes.Contains(store.all[i].Body, []byte("user")) {
				t.Fatal("a row shows who it is about")
			}
		}
		store.all[3].Time++
		if _, err := l.Page(t.Context(), Query{After: after(2)}); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("a row that was moved: %v", err)
		}
		stop()
	})
}

func TestOldRecordsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &rows{}
		l := newLog(t, store)
		ctx, stop := context.WithCancel(t.Context())
		go l.Run(ctx)
		for n := range 3 {
			if err := l.Add(t.Context(), record(n)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(l.keep - time.Hour)
		synctest.Wait()
		if n := store.count(); n != 3 {
			t.Errorf("%d records before their time is over", n)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if n := store.count(); n != 0 {
			t.Errorf("%d records after it", n)
		}
		stop()
	})
}

// Old records go beside new ones: none waits until all of them have gone.
func TestNoRecordWaitsForOldOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const old, slow = 50 * trimRows, time.Second
		store := &rows{slow: slow}
		l := newLog(t, store)
		store.all = make([]Row, old)
		ctx, stop := context.WithCancel(t.Context())
		go l.Run(ctx)
		time.Sleep(time.Hour + slow/2)
		asked := time.Now()
		for n := range 5 {
			if err := l.Add(t.Context(), record(n)); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(asked); took > 25*slow {
			t.Errorf("five records wait %s for %d old ones", took, old)
		}
		time.Sleep(time.Hour / 2)
		if n := store.count(); n != 5 {
			t.Errorf("in the end there are %d records", n)
		}
		stop()
	})
}

func TestALogOfAnotherKeyTableIsRefused(t *testing.T) {
	store := &rows{}
	newLog(t, store)
	store.all = []Row{{ID: 1, Body: make([]byte, 40)}}
	rand.Read(store.all[0].Body)
	if _, err := NewLog(t.Context(), Config{Store: store, Keys: table(t)}); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("it is opened: %v", err)
	}
}

// noted keeps records.
type noted struct {
	all  []Record
	fail error
}

func (n *noted) Add(_ context.Context, r Record) error {
	if n.fail == nil {
		n.all = append(n.all, r)
	}
	return n.fail
}

// What is open to all is let in without a look; what nobody of the kind may is
// refused without one, and names its rule; between the two the facts decide, and
// what is hidden looks absent.
func TestGuard(t *testing.T) {
	authorizer, err := policy.NewAuthorizer(map[string][]byte{"house.cedar": []byte(`@id("not-eve") forbid (principal == Person::"eve", action == Action::"get-thing", resource);`)}, false)
	if err != nil {
		t.Fatal(err)
	}
	absent := carnet.Errorf(carnet.NotFound, "there is no such thing")
	away := errors.New("away")
	for _, c := range []struct {
		what    string
		who     policy.Principal
		action  policy.Action
		known   *Known
		visible bool
		looks   bool
		code    carnet.Code
		all     bool
		rule    string
	}{
		{"administrator", policy.Bearer("ann", policy.Administrator), "get-thing", &Known{}, false, false, "", true, "administrator-everything"},
		{"its own", policy.Bearer("joe", policy.User), "get-thing", &Known{Facts: policy.Facts{Own: true}}, false, true, "", false, "user-own"},
		{"another's", policy.Bearer("joe", policy.User), "get-thing", &Known{}, false, true, carnet.NotFound, false, ""},
		{"another's, visible", policy.Bearer("joe", policy.User), "get-thing", &Known{Visible: true}, false, true, carnet.Forbidden, false, ""},
		{"never", policy.Bearer("sam", policy.Service), "get-thing", &Known{Facts: policy.Facts{Own: true}}, false, false, carnet.Forbidden, false, ""},
		{"forbidden by name", policy.Bearer("eve", policy.User), "get-thing", &Known{Facts: policy.Facts{Own: true}}, false, false, carnet.Forbidden, false, "not-eve"},
		{"a list", policy.Bearer("joe", policy.User), "list-things", nil, false, false, "", false, "user-own"},
		{"granted", policy.Principal{Kind: policy.Application, Name: "a"}, "get-state", &Known{Facts: policy.Facts{Granted: true}, Grant: "g1"}, false, true, "", false, "granted"},
		{"an action of no table", policy.Bearer("ann", policy.Administrator), "fly", nil, false, false, carnet.Forbidden, false, ""},
	} {
		log := &noted{}
		g := &Guard{Authorizer: authorizer, Recorder: log, Log: slog.New(slog.DiscardHandler)}
		use, _ := policy.UseOf(c.action)
		looked := false
		call := Call{Who: c.who, Action: c.action, Resource: policy.Resource{Kind: use.Resource, ID: "x"}, Via: HTTP, Absent: absent}
		if c.known != nil {
			call.Look = func(context.Context) (Known, error) { looked = true; return *c.known, nil }
		}
		a, err := g.Ask(t.Context(), call)
		if carnet.CodeOf(err) != c.code || a.All != c.all || looked != c.looks || a.Decision.Policy != c.rule {
			t.Errorf("%s: %+v, %v, looked %v", c.what, a, err, looked)
		}
		if len(log.all) != 1 || log.all[0].Permitted != (c.code == "") || log.all[0].Rule != c.rule || log.all[0].Why == "" || log.all[0].Policy != authorizer.Version() ||
			c.known != nil && looked && log.all[0].Grant != c.known.Grant {
			t.Errorf("%s is recorded as %+v", c.what, log.all)
		}
		log.fail = away
		if _, err := g.Ask(t.Context(), call); c.code == "" && !errors.Is(err, away) || c.code != "" && carnet.CodeOf(err) != c.code {
			t.Errorf("%s, unrecorded: %v", c.what, err)
		}
		if call.Look != nil && c.looks {
			log.fail = nil
			call.Look = func(context.Context) (Known, error) { return Known{}, away }
			if _, err := g.Ask(t.Context(), call); !errors.Is(err, away) {
				t.Errorf("%s, of which nothing can be found out: %v", c.what, err)
			}
		}
	}
}
