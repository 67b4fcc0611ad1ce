// Package capsule_test has worlds order from DPMs, in one process: each DPM with its
// store and key table on disk, each world with its batches in memory. What it takes to
// open a capsule is taken away piece by piece; DPMs lie, fall silent and are restored.
package capsule_test

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/engine/sql"
	"carnet/keys"
	"carnet/ledger"
	"carnet/store/sqlite"
)

// clock is the time of everybody: the real one, moved on at will.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time        { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) move(by time.Duration) { c.ahead.Add(int64(by)) }

func quiet() *slog.Logger {
	if os.Getenv("CARNET_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

func newKey() ed25519.PrivateKey {
	_, key, _ := ed25519.GenerateKey(nil)
	return key
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// office is a DPM: it can be stopped, started again and restored from a copy.
type office struct {
	t      *testing.T
	clock  *clock
	name   carnet.PartyID
	key    ed25519.PrivateKey
	dir    string
	peers  map[carnet.PartyID]dpm.Peer
	most   capsule.Limits
	signed bool // scripts must be modules, from its next start on

	db      *sqlite.DB
	table   *keys.Table
	agent   *dpm.Agent
	server  *httptest.Server
	stop    func()
	workers int // from its next start on
	disk    brittle
	unkept  atomic.Int64 // so many of the next parts can't be stored

	outs   sync.Map // of carnet.JobID: the dpm.Key of the output
	forged sync.Map // of carnet.JobID: a sealed part that it says was the output

	mu     sync.Mutex
	stated []ledger.Statement // guarded by mu
}

var roomy = capsule.Limits{Memory: 64 << 20, Milliseconds: 20_000, Output: 1 << 20, Parts: 64}

// newOffice makes a DPM and starts it.
func newOffice(t *testing.T, c *clock, name carnet.PartyID) *office {
	o := &office{t: t, clock: c, name: name, key: newKey(), dir: t.TempDir(), peers: make(map[carnet.PartyID]dpm.Peer), most: roomy}
	_, err := keys.CreateFile(filepath.Join(o.dir, "kek"))
	must(t, err)
	o.start()
	t.Cleanup(func() { o.stop() })
	return o
}

// start opens it on what is in its directory.
func (o *office) start() {
	t := o.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	kek, err := keys.OpenFile(filepath.Join(o.dir, "kek"))
	must(t, err)
	o.db, err = sqlite.Open(ctx, filepath.Join(o.dir, "state.db"), sqlite.Options{})
	must(t, err)
	kept, err := o.db.Keys(ctx)
	must(t, err)
	rows := brittleKeys{kept, &o.disk}
	store, err := o.db.DPM(ctx)
	must(t, err)
	rest := keys.ID{Kind: "rest", Name: "own"}
	if o.table, err = keys.Open(ctx, keys.Config{KEK: kek, Store: rows}); carnet.CodeOf(err) == carnet.NotFound {
		o.table, err = keys.Create(ctx, keys.Config{KEK: kek, Store: rows})
		must(t, err)
		_, err = o.table.Make(ctx, rest)
	}
	must(t, err)
	sealer, err := o.table.Sealer(ctx, rest)
	must(t, err)
	o.agent, err = dpm.New(ctx, dpm.Config{
		Party: o.name, Key: o.key, Store: brittleStore{store, &o.disk}, Keys: o.table, Sealer: sealer, Dir: filepath.Join(o.dir, "jobs"), Most: o.most,
		Engines: []capsule.EngineOffer{{Name: "sql", Version: "1"}, {Name: "script", Version: "1", Signed: o.signed}}, Now: o.clock.now, Log: quiet(), Recorded: func() {},
		Peer: func(name carnet.PartyID) (dpm.Peer, error) {
			p, ok := o.peers[name]
			if !ok {
				return p, carnet.Errorf(carnet.Forbidden, "%s is no peer", name)
			}
			return p, nil
		},
		State: func(s ledger.Statement) (ledger.Item, error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.stated = append(o.stated, s)
			salt := ledger.NewSalt()
			return ledger.Item{Entry: ledger.NewSalt(), Statement: []byte{byte(s.Kind)}, Salt: salt[:]}, nil
		},
	})
	must(t, err)
	o.server = httptest.NewServer(o.agent.Handler(func(r *http.Request) (carnet.PartyID, error) {
		return carnet.PartyID(r.Header.Get("Caller")), nil
	}))
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := o.agent.Run(ctx); err != nil && ctx.Err() == nil && !o.disk.lost.Load() { // one that is lost ends
			t.Errorf("%s: %v", o.name, err)
		}
	})
	for range o.workers {
		parts.Go(func() { o.work(ctx, "w-"+carnet.NewJobID().String()[:6]) })
	}
	o.stop = sync.OnceFunc(func() {
		cancel()
		o.server.Listener.Close() // nobody comes any more
		o.server.CloseClientConnections()
		o.server.Close()
		parts.Wait()
		must(t, o.db.Close())
	})
}

// work is a worker in this process.
func (o *office) work(ctx context.Context, name string) {
	leave := o.agent.Enter(name)
	defer leave()
	w := &dpm.Worker{Name: name, Board: board{o.agent, o}, Engines: []engine.Engine{sql.Engine{}, script{}}, Log: quiet()}
	_ = w.Run(ctx)
}

// board notes the keys of outputs as they are given to workers: a DPM that lies has them.
type board struct {
	*dpm.Agent
	o *office
}

func (b board) Lease(ctx context.Context, worker string) (*dpm.Assignment, error) {
	got, err := b.Agent.Lease(ctx, worker)
	if got != nil {
		b.o.outs.Store(got.Job, got.Out)
	}
	return got, err
}

func (b board) PutPart(ctx context.Context, t dpm.Ticket, n int, sealed []byte) error {
	if b.o.unkept.Load() > 0 && b.o.unkept.Add(-1) >= 0 {
		return carnet.Errorf(carnet.NoSpace, "the disk is full")
	}
	return b.Agent.PutPart(ctx, t, n, sealed)
}

// withWorkers has it run workers, from a new start on.
func (o *office) withWorkers(n int) *office {
	o.workers = n
	o.restart()
	return o
}

func (o *office) restart() {
	o.stop()
	o.start()
}

// opens is a peer that may order here, as it calls itself.
func (o *office) opens(name carnet.PartyID, key ed25519.PrivateKey) {
	c := carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: "fitness"}
	o.peers[name] = dpm.Peer{Name: name, OwnName: name, Key: public(key), Terms: terms, Given: c, Holds: c}
}

// terms is the fingerprint of all peerings' terms here.
var terms = carnet.Fingerprint{7}

// client is how a world calls it.
func (o *office) client(who carnet.PartyID) *dpm.Client {
	return &dpm.Client{Base: o.server.URL, HTTP: &http.Client{Transport: as(who)}}
}

// as calls as a party, as though mutual TLS had shown it.
type as carnet.PartyID

func (who as) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Caller", string(who))
	return http.DefaultTransport.RoundTrip(r)
}

// jobKeys lists the keys of jobs in its table.
func (o *office) jobKeys() []keys.ID {
	ids, err := o.table.List(o.t.Context(), "job", "")
	must(o.t, err)
	return ids
}

// kept lists the files of jobs, by their last names.
func (o *office) kept() (names []string) {
	all, err := filepath.Glob(filepath.Join(o.dir, "jobs", "*", "*"))
	must(o.t, err)
	for _, path := range all {
		names = append(names, filepath.Base(path))
	}
	return names
}

// statements are those of a kind about a peer.
func (o *office) statements(kind ledger.Kind, peer carnet.PartyID) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.stated {
		if s.Kind == kind && s.Peer == peer {
			n++
		}
	}
	return n
}

// copyTo copies what a stopped DPM has on disk.
func copyTo(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.RemoveAll(to))
	must(t, os.CopyFS(to, os.DirFS(from)))
	files, err := filepath.Glob(filepath.Join(to, "*"))
	must(t, err)
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && !info.IsDir() {
			must(t, os.Chmod(f, 0o600))
		}
	}
}

var threeParts = []string{"one\n", "two\n", "three\n"}

// script is an engine whose programs are words: what a test needs of one.
//
//	count    puts out how many measurements there were, and their sum
//	parts    puts out three parts
//	die      ends its worker, as one ends that is killed: nothing more is heard of it
//	hang     puts out a part, and goes on until it is ended
//	slow     puts out three parts, each after a little while
//	fail     says that it can't
type script struct{}

func (script) Name() string    { return "script" }
func (script) Version() string { return "1" }

func (script) Check(_ context.Context, program []byte) error {
	if !slices.Contains([]string{"count", "parts", "die", "hang", "fail", "slow"}, strings.Fields(string(program))[0]) {
		return carnet.Errorf(carnet.Malformed, "no such script")
	}
	return nil
}

func (s script) Run(ctx context.Context, r engine.Run) error {
	if err := s.Check(ctx, r.Program); err != nil {
		return err
	}
	n, sum := 0, 0.0
	if err := r.Each(func(_ string, ms []carnet.Measurement) error {
		for i := range ms {
			n++
			sum += ms[i].Value.Num
		}
		return nil
	}); err != nil {
		return err
	}
	out := engine.NewOutput(&r)
	switch strings.Fields(string(r.Program))[0] {
	case "slow":
		for _, part := range threeParts {
			time.Sleep(150 * time.Millisecond)
			if err := out.Put([]byte(part)); err != nil {
				return err
			}
		}
		return nil
	case "parts":
		for _, part := range threeParts {
			if err := out.Put([]byte(part)); err != nil {
				return err
			}
		}
		return nil
	case "hang":
		if err := out.Put([]byte("begun\n")); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	case "die":
		runtime.Goexit()
	case "fail":
		return carnet.Errorf(carnet.Conflict, "the program fails: it can't")
	}
	return out.Put(fmtCount(n, sum))
}
