package depot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"carnet"
	"carnet/bodies"
	"carnet/ledger"
)

func testConfig(t testing.TB, dir string, store Store) Config {
	t.Helper()
	signer, err := ledger.NewSigner("vault.example/ledger", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return Config{Dir: dir, Signer: signer, Store: store, MaxObject: 1 << 20, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// start opens a depot and runs it until the test or the returned stop ends it.
func start(t testing.TB, cfg Config, files bodies.Files) (a *Agent, stop func() error) {
	t.Helper()
	a, err := open(t.Context(), cfg, files)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return a, stop
}

// objectsOnly opens a depot without its ledger, which costs no fsync.
func objectsOnly(t testing.TB, dir string, store Store, files bodies.Files) *Agent {
	t.Helper()
	a := &Agent{cfg: testConfig(t, dir, store), failed: make(chan error, 1)}
	a.bodies = bodies.Dir{Path: filepath.Join(dir, "objects"), Files: files}
	if err := a.bodies.Make(); err != nil {
		t.Fatal(err)
	}
	return a
}

func put(t testing.TB, a *Agent, owner carnet.PartyID, body string) carnet.Fingerprint {
	t.Helper()
	f := carnet.FingerprintOf([]byte(body))
	if err := a.Put(t.Context(), owner, f, carnet.Month, strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t testing.TB, a *Agent, owner carnet.PartyID, f carnet.Fingerprint) (string, error) {
	t.Helper()
	body, o, err := a.Get(t.Context(), owner, f)
	if err != nil {
		return "", err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != o.Size {
		t.Errorf("object of %d bytes, row says %d", len(b), o.Size)
	}
	return string(b), nil
}

func TestObjectsAreTheirOwnersOnly(t *testing.T) {
	a := objectsOnly(t, t.TempDir(), newStore(), bodies.Disk{})
	f := put(t, a, "arena", "sealed bytes")
	if got, err := read(t, a, "arena", f); got != "sealed bytes" || err != nil {
		t.Errorf("owner reads %q, %v", got, err)
	}
	_, hidden := read(t, a, "clinic", f)
	_, absent := read(t, a, "clinic", carnet.FingerprintOf([]byte("never stored")))
	same := func(err error, f carnet.Fingerprint) string { return strings.ReplaceAll(err.Error(), f.String(), "F") }
	if carnet.CodeOf(hidden) != carnet.NotFound || same(hidden, f) != same(absent, carnet.FingerprintOf([]byte("never stored"))) {
		t.Errorf("hidden %v, absent %v: they differ", hidden, absent)
	}
	if err := a.Delete(t.Context(), "clinic", f); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("another party deletes: %v", err)
	}
	if list, err := a.List(t.Context(), "clinic", carnet.Fingerprint{}, 10); len(list) != 0 || err != nil {
		t.Errorf("another party lists %v, %v", list, err)
	}
	list, err := a.List(t.Context(), "arena", carnet.Fingerprint{}, 10)
	if err != nil || len(list) != 1 || list[0].Fingerprint != f || list[0].Retention != carnet.Month {
		t.Errorf("owner lists %+v, %v", list, err)
	}
}

func TestBytesOfTwoOwnersLiveUntilBothDelete(t *testing.T) {
	a := objectsOnly(t, t.TempDir(), newStore(), bodies.Disk{})
	f := put(t, a, "arena", "the same")
	put(t, a, "clinic", "the same")
	if total, err := a.Totals(t.Context(), ""); total != (Totals{2, 16}) || err != nil {
		t.Errorf("totals %+v, %v", total, err)
	}
	if err := a.Delete(t.Context(), "arena", f); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, a, "arena", f); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("after deleting: %v", err)
	}
	if got, err := read(t, a, "clinic", f); got != "the same" || err != nil {
		t.Errorf("the other owner reads %q, %v", got, err)
	}
	if err := a.Delete(t.Context(), "clinic", f); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.bodies.File(f)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bytes are still there: %v", err)
	}
}

func TestAcknowledgedMeansSyncedAndNamedAndSynced(t *testing.T) {
	files := &faultyDisk{}
	a := objectsOnly(t, t.TempDir(), newStore(), files)
	n := files.count()
	f := put(t, a, "arena", "sealed bytes")
	shard := f.String()[:2]
	want := []string{"create tmp", "write tmp", "sync tmp", "close tmp", "rename " + f.String(), "syncdir " + shard}
	if got := files.since(n); !slices.Equal(got, want) {
		t.Errorf("put did %q, want %q", got, want)
	}
	n = files.count()
	if err := a.Delete(t.Context(), "arena", f); err != nil {
		t.Fatal(err)
	}
	want = []string{"overwrite " + f.String(), "write " + f.String(), "sync " + f.String(), "close " + f.String(), "remove " + f.String(), "syncdir " + shard}
	if got := files.since(n); !slices.Equal(got, want) {
		t.Errorf("delete did %q, want %q", got, want)
	}
}

func TestAFullDiskRefusesAndTakesLater(t *testing.T) {
	files, dir := &faultyDisk{short: 3}, t.TempDir()
	a := objectsOnly(t, dir, newStore(), files)
	for _, op := range []string{"create", "write", "sync", "close", "rename"} {
		for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
			body := "sealed while " + op + " fails with " + full.Error()
			f := carnet.FingerprintOf([]byte(body))
			files.set(op, full)
			err := a.Put(t.Context(), "arena", f, carnet.Month, strings.NewReader(body))
			if carnet.CodeOf(err) != carnet.NoSpace {
				t.Errorf("%s: put says %v", body, err)
			}
			if _, err := read(t, a, "arena", f); carnet.CodeOf(err) != carnet.NotFound {
				t.Errorf("%s: the object is there, %v", body, err)
			}
			files.set("", nil)
			put(t, a, "arena", body)
			if got, err := read(t, a, "arena", f); got != body || err != nil {
				t.Errorf("%s: later reads %q, %v", body, got, err)
			}
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "objects", "tmp")); err != nil || len(left) != 0 {
		t.Errorf("temporary files %v, %v", left, err)
	}
	if len(a.failed) != 0 {
		t.Errorf("the process would end with %v", <-a.failed)
	}
}

func TestABrokenDiskEndsTheProcess(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "close", "rename", "syncdir"} {
		files := &faultyDisk{}
		a := objectsOnly(t, t.TempDir(), newStore(), files)
		f := carnet.FingerprintOf([]byte("sealed bytes"))
		files.set(op, syscall.EIO)
		err := a.Put(t.Context(), "arena", f, carnet.Month, strings.NewReader("sealed bytes"))
		if !errors.Is(err, ErrFsync) || !errors.Is(err, syscall.EIO) || len(a.failed) != 1 {
			t.Errorf("%s fails: put says %v, %d failures for Run", op, err, len(a.failed))
		}
		if _, err := read(t, a, "arena", f); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%s fails: the object is there, %v", op, err)
		}
	}
	for _, op := range []string{"overwrite", "write", "sync", "remove", "syncdir"} {
		files := &faultyDisk{}
		a := objectsOnly(t, t.TempDir(), newStore(), files)
		f := put(t, a, "arena", "sealed bytes")
		files.set(op, syscall.EIO)
		if err := a.Delete(t.Context(), "arena", f); !errors.Is(err, ErrFsync) || len(a.failed) != 1 {
			t.Errorf("%s fails: delete says %v, %d failures for Run", op, err, len(a.failed))
		}
	}
}

func TestRunEndsWithABrokenDisk(t *testing.T) {
	files := &faultyDisk{}
	a, err := open(t.Context(), testConfig(t, t.TempDir(), newStore()), files)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(context.Background()) }()
	files.set("sync", syscall.EIO)
	f := carnet.FingerprintOf([]byte("sealed bytes"))
	if err := a.Put(t.Context(), "arena", f, carnet.Month, strings.NewReader("sealed bytes")); err == nil {
		t.Fatal("acknowledged")
	}
	if err := <-ended; !errors.Is(err, ErrFsync) {
		t.Errorf("run ended with %v", err)
	}
}

func TestAFullDiskDoesNotKeepBytesFromBeingErased(t *testing.T) {
	files := &faultyDisk{}
	a := objectsOnly(t, t.TempDir(), newStore(), files)
	f := put(t, a, "arena", "sealed bytes")
	files.set("write", syscall.ENOSPC) // as a copying file system may say
	if err := a.Delete(t.Context(), "arena", f); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.bodies.File(f)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bytes are still there: %v", err)
	}
}

func TestWrongBodiesLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	a := objectsOnly(t, dir, newStore(), bodies.Disk{})
	f := carnet.FingerprintOf([]byte("sealed bytes"))
	broken := errors.New("connection reset")
	for name, c := range map[string]struct {
		body io.Reader
		code carnet.Code
	}{
		"other bytes": {strings.NewReader("sealed bytez"), carnet.Tampered},
		"cut short":   {strings.NewReader("sealed"), carnet.Tampered},
		"empty":       {strings.NewReader(""), carnet.Tampered},
		"too large":   {strings.NewReader(strings.Repeat("0", 1<<20+1)), carnet.TooLarge},
		"broken off":  {io.MultiReader(strings.NewReader("sealed"), failing{broken}), ""},
	} {
		err := a.Put(t.Context(), "arena", f, carnet.Month, c.body)
		if err == nil || carnet.CodeOf(err) != c.code || errors.Is(err, ErrFsync) {
			t.Errorf("%s: %v, want code %q", name, err, c.code)
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "objects", "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files %v, %v", left, err)
	}
	if _, err := os.Stat(a.bodies.File(f)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a body was named: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestWhatACrashLeftIsErasedAtTheStart(t *testing.T) {
	dir, store := t.TempDir(), newStore()
	a := objectsOnly(t, dir, store, bodies.Disk{})
	kept := put(t, a, "arena", "kept")
	store.fail = errors.New("killed") // between the body's name and its row
	unnamed := carnet.FingerprintOf([]byte("without row"))
	if err := a.Put(t.Context(), "arena", unnamed, carnet.Month, strings.NewReader("without row")); err == nil {
		t.Fatal("acknowledged without a row")
	}
	deleted := put(t, a, "arena", "deleted")
	if _, err := store.DeleteObject(t.Context(), "arena", deleted); err != nil { // killed before erasing
		t.Fatal(err)
	}
	half := filepath.Join(dir, "objects", "tmp", "half")
	if err := os.WriteFile(half, []byte("hal"), 0o600); err != nil {
		t.Fatal(err)
	}

	a = objectsOnly(t, dir, store, bodies.Disk{})
	if err := a.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{half, a.bodies.File(unnamed), a.bodies.File(deleted)} {
		if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if got, err := read(t, a, "arena", kept); got != "kept" || err != nil {
		t.Errorf("what was acknowledged reads %q, %v", got, err)
	}
}

func TestPutAgainKeepsTheLongerRetentionAndHealsTheBody(t *testing.T) {
	a := objectsOnly(t, t.TempDir(), newStore(), bodies.Disk{})
	f := put(t, a, "arena", "sealed bytes")
	if err := os.WriteFile(a.bodies.File(f), []byte("rotten bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Put(t.Context(), "arena", f, carnet.Day, strings.NewReader("sealed bytes")); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, a, "arena", f); got != "sealed bytes" || err != nil {
		t.Errorf("reads %q, %v", got, err)
	}
	if list, err := a.List(t.Context(), "arena", carnet.Fingerprint{}, 0); err != nil || len(list) != 1 || list[0].Retention != carnet.Month {
		t.Errorf("lists %+v, %v", list, err)
	}
}

func TestConcurrentPutsAndDeletesOfTheSameBytes(t *testing.T) {
	a := objectsOnly(t, t.TempDir(), newStore(), bodies.Disk{})
	body := "the same"
	f := carnet.FingerprintOf([]byte(body))
	var wg sync.WaitGroup
	for _, owner := range []carnet.PartyID{"arena", "clinic", "hub"} {
		wg.Go(func() {
			for range 50 {
				if err := a.Put(t.Context(), owner, f, carnet.Month, strings.NewReader(body)); err != nil {
					t.Error(err)
					return
				}
				if r, _, err := a.Get(t.Context(), owner, f); err != nil {
					t.Errorf("%s stored and can't read: %v", owner, err)
				} else {
					b, _ := io.ReadAll(r)
					r.Close()
					// Zeros may be seen only by who still reads what all have deleted.
					if !bytes.Equal(b, []byte(body)) {
						t.Errorf("%s reads %q", owner, b)
					}
				}
				if err := a.Delete(t.Context(), owner, f); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := os.Stat(a.bodies.File(f)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bytes are still there: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := testConfig(t, t.TempDir(), newStore())
	for name, change := range map[string]func(*Config){
		"no directory": func(c *Config) { c.Dir = "" },
		"no signer":    func(c *Config) { c.Signer = nil },
		"no store":     func(c *Config) { c.Store = nil },
		"below zero":   func(c *Config) { c.MaxObject = -1 },
		"too slow":     func(c *Config) { c.CheckpointInterval = 1e9 },
	} {
		cfg := good
		change(&cfg)
		if a, err := New(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
			a.log.Run(t.Context())
		}
	}
}
