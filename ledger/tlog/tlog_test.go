package tlog

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/ledger"
)

// memoryIndex is an Index that lasts as long as the test.
type memoryIndex struct {
	mu      sync.Mutex
	at      map[ledger.Entry]uint64
	indexed uint64
	before  func() error // called by Record
	after   func()       // called by Record when it has recorded
	lookup  error        // by Lookup
}

func newIndex() *memoryIndex { return &memoryIndex{at: make(map[ledger.Entry]uint64)} }

func (m *memoryIndex) Lookup(_ context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lookup != nil {
		return nil, m.lookup
	}
	found := make(map[ledger.Entry]uint64)
	for _, e := range entries {
		if i, ok := m.at[e]; ok {
			found[e] = i
		}
	}
	return found, nil
}

func (m *memoryIndex) Record(_ context.Context, first uint64, entries []ledger.Entry) error {
	if m.before != nil {
		if err := m.before(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range entries {
		if _, ok := m.at[e]; !ok {
			m.at[e] = first + uint64(i)
		}
	}
	m.indexed = first + uint64(len(entries))
	if m.after != nil {
		m.after()
	}
	return nil
}

func (m *memoryIndex) Indexed(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.indexed, nil
}

func testSigner(t testing.TB, seed byte) *ledger.Signer {
	t.Helper()
	s, err := ledger.NewSigner("vault.example/ledger", ed25519.NewKeyFromSeed(append(make([]byte, 31), seed)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func config(t testing.TB, dir string, index Index) Config {
	return Config{Dir: dir, Signer: testSigner(t, 1), Index: index, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// start opens a ledger and runs it until the test or the returned stop ends it.
func start(t testing.TB, cfg Config) (l *Log, stop func() error) {
	t.Helper()
	l, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return l, stop
}

// scratch is a directory whose end waits for the engine's: that has no call which does,
// and still writes for a moment after its log was closed.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tlog")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 100 {
			if err = os.RemoveAll(dir); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Error(err)
	})
	return dir
}

func entry(n int) (e ledger.Entry) {
	binary.BigEndian.PutUint64(e[:], uint64(n))
	return e
}

func entries(from, to int) (out []ledger.Entry) {
	for n := from; n < to; n++ {
		out = append(out, entry(n))
	}
	return out
}

func mustAppend(t testing.TB, l *Log, es []ledger.Entry) []ledger.Receipt {
	t.Helper()
	receipts, err := l.Append(t.Context(), "hub", es)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, l.Key(), es, receipts)
	return receipts
}

func verify(t testing.TB, key ledger.Key, es []ledger.Entry, receipts []ledger.Receipt) {
	t.Helper()
	if len(receipts) != len(es) {
		t.Fatalf("%d receipts for %d entries", len(receipts), len(es))
	}
	v := ledger.NewVerifier(key)
	for i := range es {
		if _, err := v.Verify(es[i], receipts[i]); err != nil {
			t.Fatalf("receipt of entry %d: %v", i, err)
		}
	}
}

func TestConcurrentAppendsAllGetVerifiedReceiptsOfTheirOwn(t *testing.T) {
	l, _ := start(t, config(t, scratch(t), newIndex()))
	const n = 5000
	leaves := make([]uint64, n)
	var wg sync.WaitGroup
	v := ledger.NewVerifier(l.Key())
	for i := range n {
		wg.Go(func() {
			receipts, err := l.Append(t.Context(), "hub", entries(i, i+1))
			if err != nil {
				t.Errorf("append %d: %v", i, err)
				return
			}
			if _, err := v.Verify(entry(i), receipts[0]); err != nil {
				t.Errorf("receipt %d: %v", i, err)
			}
			leaves[i] = receipts[0].Index
		})
	}
	wg.Wait()
	seen := make(map[uint64]bool)
	for _, leaf := range leaves {
		seen[leaf] = true
	}
	if len(seen) != n {
		t.Errorf("%d leaves for %d entries", len(seen), n)
	}
	if cp, _ := l.Checkpoint(); cp.Size != n {
		t.Errorf("the ledger has %d leaves, want %d", cp.Size, n)
	}
}

func TestAnEntryHasOneLeafHoweverOftenItIsAppended(t *testing.T) {
	l, _ := start(t, config(t, scratch(t), newIndex()))
	first := mustAppend(t, l, entries(0, 3))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			receipts, err := l.Append(t.Context(), "hub", []ledger.Entry{entry(2), entry(7), entry(2), entry(0)})
			if err != nil {
				t.Error(err)
				return
			}
			if receipts[0].Index != first[2].Index || receipts[2].Index != first[2].Index || receipts[3].Index != first[0].Index {
				t.Errorf("leaves %d, %d, %d, want %d, %d, %d", receipts[0].Index, receipts[2].Index, receipts[3].Index,
					first[2].Index, first[2].Index, first[0].Index)
			}
		})
	}
	wg.Wait()
	if cp, _ := l.Checkpoint(); cp.Size != 4 {
		t.Errorf("the ledger has %d leaves, want 4", cp.Size)
	}
}

func TestAppendRefusesWhatIsTooMuchAndTakesItLater(t *testing.T) {
	index := newIndex()
	blocked := make(chan struct{})
	index.before = func() error { <-blocked; return nil }
	cfg := config(t, scratch(t), index)
	cfg.MaxOutstanding = 10
	l, _ := start(t, cfg)

	waiters, claimed, err := l.claim("hub", entries(0, 10))
	if err != nil {
		t.Fatal(err)
	}
	l.settle(t.Context(), claimed, waiters)
	if _, err := l.Append(t.Context(), "hub", entries(10, 11)); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("the eleventh entry: %v, want %s", err, carnet.Unavailable)
	}
	if _, again, err := l.claim("hub", entries(0, 10)); err != nil || len(again) != 0 {
		t.Errorf("entries that wait already: %d claimed again, %v, want to wait with them", len(again), err)
	}
	others, claimed, err := l.claim("arena", entries(11, 21))
	if err != nil {
		t.Fatalf("another party's entries: %v, want no refusal for this one's", err)
	}
	l.settle(t.Context(), claimed, others)
	close(blocked)
	for w := range maps.Values(others) {
		<-w.done
	}
	for w := range maps.Values(waiters) {
		<-w.done
	}
	mustAppend(t, l, entries(10, 11))
	if _, err := l.Append(t.Context(), "hub", entries(20, 31)); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("more at once than may ever wait: %v, want %s", err, carnet.TooLarge)
	}
}

func TestReopenedLedgerGoesOnAndKnowsItsEntries(t *testing.T) {
	dir, index := scratch(t), newIndex()
	l, stop := start(t, config(t, dir, index))
	first := mustAppend(t, l, entries(0, 300))
	before, _ := l.Checkpoint()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), "hub", entries(300, 301)); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("append after the end: %v, want %s", err, carnet.Unavailable)
	}

	l, _ = start(t, config(t, dir, index))
	again := mustAppend(t, l, entries(0, 301))
	for i := range first {
		if again[i].Index != first[i].Index {
			t.Fatalf("entry %d is leaf %d, was %d", i, again[i].Index, first[i].Index)
		}
	}
	after, _ := l.Checkpoint()
	path, err := l.Consistency(t.Context(), before.Size, after.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.VerifyConsistency(before, after, path); err != nil {
		t.Error(err)
	}
	for _, sizes := range [][2]uint64{{2, 1}, {1, after.Size + 1}} {
		if _, err := l.Consistency(t.Context(), sizes[0], sizes[1]); carnet.CodeOf(err) != carnet.OutOfRange {
			t.Errorf("consistency from %d to %d: %v, want %s", sizes[0], sizes[1], err, carnet.OutOfRange)
		}
	}
}

func TestWhatACrashLeftUnindexedIsFoundAtTheStart(t *testing.T) {
	dir, index := scratch(t), newIndex()
	lost := carnet.Errorf(carnet.NoSpace, "no room for the index")
	l, err := New(t.Context(), config(t, dir, index))
	if err != nil {
		t.Fatal(err)
	}
	index.before = func() error { return lost }
	waiters, claimed, err := l.claim("hub", entries(0, 5))
	if err != nil {
		t.Fatal(err)
	}
	l.settle(t.Context(), claimed, waiters)
	<-l.wanted // sequenced: on disk, and neither indexed nor answered
	l.close()
	for _, w := range waiters {
		select {
		case <-w.done:
			t.Fatal("answered before it was indexed")
		default:
		}
	}

	index.before = nil
	l, _ = start(t, config(t, dir, index))
	if cp, _ := l.Checkpoint(); cp.Size != 5 || index.indexed != 5 {
		t.Fatalf("%d leaves published, %d indexed, want 5 and 5", cp.Size, index.indexed)
	}
	mustAppend(t, l, entries(0, 5))
	if cp, _ := l.Checkpoint(); cp.Size != 5 {
		t.Errorf("the ledger has %d leaves, want 5", cp.Size)
	}
}

func TestAnIndexThatFailsForTheMomentOnlyDelays(t *testing.T) {
	index := newIndex()
	failed := false
	index.before = func() error {
		if !failed {
			failed = true
			return carnet.Errorf(carnet.NoSpace, "no room")
		}
		return nil
	}
	l, _ := start(t, config(t, scratch(t), index))
	mustAppend(t, l, entries(0, 2))
	if !failed {
		t.Error("the index did not fail")
	}
}

// Who asks again while the entry is being indexed must neither get a second
// leaf nor a receipt at a checkpoint that doesn't cover it.
func TestAskingAgainWhileIndexing(t *testing.T) {
	index := newIndex()
	l, _ := start(t, config(t, scratch(t), index))
	index.after = func() { // indexed, and nobody woken yet
		receipts, err := l.receipts(t.Context(), entries(0, 1), map[ledger.Entry]*waiter{entry(0): {index: index.at[entry(0)]}})
		if err != nil {
			t.Errorf("receipt while indexing: %v", err)
			return
		}
		verify(t, l.Key(), entries(0, 1), receipts)
		if _, claimed, err := l.claim("hub", entries(0, 1)); err != nil || len(claimed) != 0 {
			t.Errorf("claimed again while indexing: %x, %v", claimed, err)
		}
	}
	mustAppend(t, l, entries(0, 1))
}

func TestAnIndexThatCannotBeReadFailsTheCallOnly(t *testing.T) {
	index := newIndex()
	l, _ := start(t, config(t, scratch(t), index))
	index.lookup = carnet.Errorf(carnet.Unavailable, "locked")
	if _, err := l.Append(t.Context(), "hub", entries(0, 1)); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("append: %v, want %s", err, carnet.Unavailable)
	}
	index.lookup = nil
	mustAppend(t, l, entries(0, 1))
}

func TestAnIndexThatIsAheadOfTheLedgerIsRefused(t *testing.T) {
	index := newIndex()
	index.indexed = 7
	if _, err := New(t.Context(), config(t, scratch(t), index)); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("open: %v, want %s", err, carnet.Tampered)
	}
}

// A checkpoint that is older than index and tree is published anew.
func TestACheckpointThatIsOlderThanTheIndex(t *testing.T) {
	dir, index := scratch(t), newIndex()
	file := filepath.Join(dir, checkpointPath)
	var older []byte
	for n := range 2 {
		l, stop := start(t, config(t, dir, index))
		mustAppend(t, l, entries(3*n, 3*n+3))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			var err error
			if older, err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(file, older, 0o644); err != nil {
		t.Fatal(err)
	}
	l, _ := start(t, config(t, dir, index))
	if cp, _ := l.Checkpoint(); cp.Size != 6 {
		t.Errorf("the ledger has %d leaves, want 6", cp.Size)
	}
	mustAppend(t, l, entries(0, 7))
}

// records keeps what is logged.
type records struct {
	slog.Handler
	all chan slog.Record
}

func (r records) Handle(_ context.Context, one slog.Record) error {
	select {
	case r.all <- one:
	default:
	}
	return nil
}

// Where entries are on disk and their checkpoint can't be published, that is said.
func TestACheckpointThatIsNotPublishedIsLogged(t *testing.T) {
	dir := scratch(t)
	cfg := config(t, dir, newIndex())
	said := records{cfg.Logger.Handler(), make(chan slog.Record, 16)}
	cfg.Logger = slog.New(said)
	l, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.patience = 300 * time.Millisecond
	lock := filepath.Join(dir, ".state", "publish.lock")
	for {
		_ = os.Remove(lock)
		if err := os.Mkdir(lock, 0o700); err == nil {
			break
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	answered := make(chan error, 1)
	go func() { _, err := l.Append(ctx, "hub", entries(0, 3)); answered <- err }()
	for late, heard := time.After(20*time.Second), false; !heard; {
		select {
		case r := <-said.all: // or the engine's own
			heard = r.Level == slog.LevelError && strings.Contains(r.Message, "no checkpoint of them is published")
		case err := <-answered:
			t.Fatalf("append: %v", err)
		case <-late:
			t.Fatal("nothing is logged")
		}
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("append, with the lock back: %v", err)
	}
}

// Of what the engine says below an error, only why it doesn't publish is let through, and
// not each time.
func TestTheEngineIsQuiet(t *testing.T) {
	said := records{slog.NewTextHandler(io.Discard, nil), make(chan slog.Record, 9)}
	engine := slog.New(&errorsOnly{Handler: said})
	engine.Info("publishCheckpoint: EACCES")
	engine.Info("publishCheckpoint: EACCES")
	engine.Warn("GarbageCollect: EACCES")
	engine.Error("buildTree: EIO")
	close(said.all)
	var got []string
	for r := range said.all {
		got = append(got, r.Level.String()+" "+r.Message)
	}
	if want := []string{"WARN publishCheckpoint: EACCES", "ERROR buildTree: EIO"}; !slices.Equal(got, want) {
		t.Errorf("it says %q, want %q", got, want)
	}
}

func TestALedgerHasOneKeeperAndOneKey(t *testing.T) {
	dir := scratch(t)
	l, stop := start(t, config(t, dir, newIndex()))
	mustAppend(t, l, entries(0, 1))
	if _, err := New(t.Context(), config(t, dir, newIndex())); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("second keeper: %v, want %s", err, carnet.Conflict)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	other := config(t, dir, newIndex())
	other.Signer = testSigner(t, 2)
	if _, err := New(t.Context(), other); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("another key: %v, want %s", err, carnet.Tampered)
	}
	start(t, config(t, dir, newIndex())) // the refusals left no lock behind
}

func TestPartialTilesAreCollectedAndOldReceiptsStillBuilt(t *testing.T) {
	dir := scratch(t)
	cfg := config(t, dir, newIndex())
	cfg.CollectInterval = pollInterval
	l, _ := start(t, cfg)
	for i := range 4 {
		mustAppend(t, l, entries(i*100, i*100+100))
	}
	for _, partial := range []string{"tile/0/000.p", "tile/entries/000.p"} {
		for { // the test's own time limit ends it
			if _, err := os.Stat(filepath.Join(dir, partial)); os.IsNotExist(err) {
				break
			}
			mustAppend(t, l, entries(400, 401))
		}
	}
	mustAppend(t, l, entries(0, 401))
}
