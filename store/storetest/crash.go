package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/bodies"
)

// On opens one database, whose large bodies are in dir, with them on a file system.
type On func(dir string, files bodies.Files) (store avatar.Store, close func(), err error)

// Bodies is the suite for the large bodies of an avatar.Store that are files.
// fresh makes a new, empty database, in a directory if it is files; durability is the adapter's error of a disk that
// fails; of the points at which the disk stops every so-manieth is tried.
func Bodies(t *testing.T, fresh func(t *testing.T, dir string) On, durability error, every int) {
	t.Run("Crash", func(t *testing.T) { testCrashes(t, fresh, every) })
	t.Run("FullDisk", func(t *testing.T) { testFullDisk(t, fresh) })
	t.Run("BrokenDisk", func(t *testing.T) { testBrokenDisk(t, fresh, durability) })
	t.Run("Lost", func(t *testing.T) { testLostBody(t, fresh) })
	t.Run("AnotherDatabase", func(t *testing.T) { testAnotherDatabase(t, fresh) })
}

// on opens a database that can be opened.
func (db On) on(t *testing.T, dir string, files bodies.Files) (avatar.Store, func()) {
	t.Helper()
	s, close, err := db(dir, files)
	must(t, err)
	return s, close
}

// wreck is a disk that stops: from one operation on nothing of what is asked is
// done, as when the process is killed there. In an operation that stops, half of a
// write is done.
type wreck struct {
	bodies.Disk
	mu   sync.Mutex
	left int   // operations until it stops; less than 0: it has
	done bool  // the operation that stops is done, and nobody is told
	fail error // what stopped operations say
	only string

	written map[string]bool    // files with bytes that weren't synced
	named   map[string]renamed // by new name, until its directory is synced
	touched []string           // names of what was removed without having been overwritten
}

// renamed is where a file was, and what was under its new name.
type renamed struct {
	from string
	over []byte
}

const always = 1 << 30

func newWreck() *wreck {
	return &wreck{left: always, fail: syscall.EIO, written: make(map[string]bool), named: make(map[string]renamed)}
}

// stop sets how many operations go on, and whether the next is done.
func (w *wreck) stop(after int, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.done = after, done
}

// refuse has each operation of a kind fail; the empty kind: none.
func (w *wreck) refuse(op string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.only, w.fail = op, err
}

func (w *wreck) do(op, name string, do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.only != "" {
		if w.only == op {
			return &os.PathError{Op: op, Path: name, Err: w.fail}
		}
		return do()
	}
	w.left--
	if w.left >= 0 {
		return do()
	}
	if w.left == -1 && w.done {
		if err := do(); err != nil {
			return err
		}
	}
	return &os.PathError{Op: op, Path: name, Err: w.fail}
}

// powerFails undoes what wasn't synced.
func (w *wreck) powerFails(t *testing.T) {
	t.Helper()
	for to, was := range w.named {
		if err := os.Rename(to, was.from); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if w.written[to] {
			w.written[was.from] = true
		}
		if was.over != nil {
			must(t, os.WriteFile(to, was.over, 0o600))
		}
	}
	for name := range w.written {
		if err := os.Truncate(name, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func (w *wreck) Mkdir(name string) error {
	if _, err := os.Stat(name); err == nil {
		return nil // nothing to do
	}
	return w.do("mkdir", name, func() error { return w.Disk.Mkdir(name) })
}

func (w *wreck) Create(name string) (f bodies.File, err error) {
	err = w.do("create", name, func() error {
		f, err = w.Disk.Create(name)
		w.written[name] = true
		return err
	})
	return w.wrap(f, name, err)
}

func (w *wreck) OpenWrite(name string) (f bodies.File, err error) {
	err = w.do("overwrite", name, func() error { f, err = w.Disk.OpenWrite(name); return err })
	return w.wrap(f, name, err)
}

func (w *wreck) wrap(f bodies.File, name string, err error) (bodies.File, error) {
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return &wreckFile{f, w, name}, nil
}

func (w *wreck) Rename(from, to string) error {
	return w.do("rename", to, func() error {
		over, _ := os.ReadFile(to)
		if err := w.Disk.Rename(from, to); err != nil {
			return err
		}
		w.named[to] = renamed{from, over}
		if w.written[from] {
			delete(w.written, from)
			w.written[to] = true
		}
		return nil
	})
}

func (w *wreck) Remove(name string) error {
	return w.do("remove", name, func() error {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if len(bytes.Trim(b, "\x00")) > 0 {
			w.touched = append(w.touched, name)
		}
		delete(w.written, name)
		return w.Disk.Remove(name)
	})
}

func (w *wreck) SyncDir(name string) error {
	return w.do("syncdir", name, func() error {
		for to := range w.named {
			if filepath.Dir(to) == name {
				delete(w.named, to)
			}
		}
		return w.Disk.SyncDir(name)
	})
}

type wreckFile struct {
	bodies.File
	w    *wreck
	name string
}

func (f *wreckFile) Write(p []byte) (n int, err error) {
	err = f.w.do("write", f.name, func() error {
		f.w.written[f.name] = true
		n, err = f.File.Write(p)
		return err
	})
	if err != nil {
		n, _ = f.File.Write(p[:len(p)/2])
	}
	return n, err
}

func (f *wreckFile) Sync() error {
	return f.w.do("sync", f.name, func() error {
		delete(f.w.written, f.name)
		return f.File.Sync()
	})
}

func (f *wreckFile) Close() error {
	return errors.Join(f.File.Close(), f.w.do("close", f.name, func() error { return nil }))
}

// story is what is done to a store whose disk stops: what each step leaves, if it
// is done.
type story struct {
	s    avatar.Store
	have map[carnet.Fingerprint]avatar.StretchRow // acknowledged
	open []avatar.StretchRow                      // a step under way is about these: there or not
}

func (y *story) tell(ctx context.Context) error {
	a, b, c := large(1, 1), large(2, 1), large(3, 1)
	for _, step := range []func() error{
		func() error { return y.add(ctx, a, b) },
		func() error { return y.drop(ctx, a) },
		func() error { return y.add(ctx, a, c) }, // the same bytes again
		func() error { return y.restore(ctx, b) },
		func() error { return y.fails(ctx, large(4, 1), a) },
		func() error { return y.drop(ctx, a, b) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (y *story) add(ctx context.Context, rows ...avatar.StretchRow) error {
	y.open = rows
	if err := y.s.Compact(ctx, avatar.Compaction{Stretches: rows}); err != nil {
		return err
	}
	for _, row := range rows {
		y.have[row.Fingerprint] = row
	}
	y.open = nil
	return nil
}

func (y *story) ids(ctx context.Context, rows []avatar.StretchRow) (ids []uint64, err error) {
	all, err := y.s.Unstored(ctx, 0, 99)
	for _, have := range all {
		for _, row := range rows {
			if have.Fingerprint == row.Fingerprint {
				ids = append(ids, have.ID)
			}
		}
	}
	return ids, err
}

func (y *story) drop(ctx context.Context, rows ...avatar.StretchRow) error {
	ids, err := y.ids(ctx, rows)
	if err != nil {
		return err
	}
	y.open = rows
	if err := y.s.DropStretches(ctx, ids, nil, nil); err != nil {
		return err
	}
	for _, row := range rows {
		delete(y.have, row.Fingerprint)
	}
	y.open = nil
	return nil
}

func (y *story) restore(ctx context.Context, row avatar.StretchRow) error {
	ids, err := y.ids(ctx, []avatar.StretchRow{row})
	if err != nil {
		return err
	}
	return y.s.RestoreStretch(ctx, ids[0], row.Body)
}

// fails adds what can't be added: nothing of it stays.
func (y *story) fails(ctx context.Context, rows ...avatar.StretchRow) error {
	note := carnet.Document{Kind: "k", ID: "a", Version: 2, Body: []byte("x")}
	err := y.s.Compact(ctx, avatar.Compaction{Stretches: rows, Documents: []carnet.Document{note}})
	if carnet.CodeOf(err) == carnet.Conflict {
		return nil
	}
	return err
}

// testCrashes stops the disk at each operation of the story, before it is done and
// after, with the power on and off, and the start after it likewise; and looks what
// another start finds.
func testCrashes(t *testing.T, fresh func(t *testing.T, dir string) On, every int) {
	at := memory(t)
	db, dir, w := fresh(t, at), filepath.Join(at, "bodies"), newWreck()
	y := &story{}
	must(t, y.run(t.Context(), db, dir, w))
	onlyThese(t, dir, map[string]bool{large(3, 1).Fingerprint.String(): true}) // without another start
	y.judge(t, db, dir)
	operations := always - w.left
	for stop := 0; stop < operations; stop += every {
		for mode := range 4 {
			done, power := mode&1 > 0, mode&2 > 0
			at := memory(t)
			db, dir := fresh(t, at), filepath.Join(at, "bodies")
			y := &story{}
			crash := func(what string, at int, run func(w *wreck) error) {
				w := newWreck()
				w.stop(at, done)
				if err := run(w); err == nil && w.left < -1 {
					t.Fatalf("%s stopped at operation %d, done %v: nobody has noticed", what, at, done)
				}
				if !power {
					w.powerFails(t)
				}
				for _, gone := range w.touched {
					if filepath.Dir(gone) != filepath.Join(dir, "tmp") {
						t.Fatalf("%s stopped at operation %d, done %v: %s was removed as it was", what, at, done, gone)
					}
				}
			}
			crash("the story", stop, func(w *wreck) error { return y.run(t.Context(), db, dir, w) })
			crash("the start", stop%9, func(w *wreck) error {
				_, close, err := db(dir, w)
				if err == nil {
					close()
				}
				return err
			})
			if !t.Run(fmt.Sprintf("%d of %d, done %v, power %v", stop, operations, done, power), func(t *testing.T) { y.judge(t, db, dir) }) {
				return
			}
		}
	}
	t.Logf("stopped at each of %d operations", operations)
}

// run opens a database and tells the story.
func (y *story) run(ctx context.Context, db On, dir string, w *wreck) error {
	y.have = make(map[carnet.Fingerprint]avatar.StretchRow)
	s, close, err := db(dir, w)
	if err != nil {
		return err
	}
	defer close()
	y.s = s
	return y.tell(ctx)
}

// judge opens the store anew: what was acknowledged is there, what was under way is
// there whole or not at all, and no file is there that no row names.
func (y *story) judge(t *testing.T, db On, dir string) {
	t.Helper()
	ctx := t.Context()
	s, close := db.on(t, dir, bodies.Disk{})
	defer close()
	named := make(map[string]bool)
	rows := get(s.Unstored(ctx, 0, 99))(t)
	for _, row := range rows {
		want, there := y.have[row.Fingerprint]
		for i := range y.open {
			if y.open[i].Fingerprint == row.Fingerprint {
				want, there = y.open[i], true
			}
		}
		if !there {
			t.Fatalf("a row is there of what nobody added, or what was dropped: %s", row.Fingerprint)
		}
		same(t, "body", get(s.StretchBody(ctx, row.ID))(t), want.Body)
		named[row.Fingerprint.String()] = true
	}
	for f := range y.have {
		under := false // what is being dropped may be gone
		for i := range y.open {
			under = under || y.open[i].Fingerprint == f
		}
		if !named[f.String()] && !under {
			t.Fatalf("%s was acknowledged and isn't there", f)
		}
	}
	onlyThese(t, dir, named)
}

// memory is a directory for databases that are made by the hundred: what isn't synced
// is the wreck's to know.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "carnet")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// onlyThese checks which files there are.
func onlyThese(t *testing.T, dir string, named map[string]bool) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path != filepath.Join(dir, "id") && !named[d.Name()] {
			err = fmt.Errorf("the file %s is there, which no row names", path)
		}
		return err
	}))
}

func testFullDisk(t *testing.T, fresh func(t *testing.T, dir string) On) {
	ctx := t.Context()
	at := memory(t)
	db, dir, w := fresh(t, at), filepath.Join(at, "bodies"), newWreck()
	s, close := db.on(t, dir, w)
	kept := large(1, 1)
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{kept}}))
	for i, op := range []string{"create", "write", "sync", "close", "rename"} {
		for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
			row := large(10+i, 2)
			w.refuse(op, full)
			wantCode(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{stretch(2, 9, carnet.Day), row, large(30+i, 2)}}), carnet.NoSpace)
			w.refuse("", nil)
			same(t, op+" fails: stretches", len(get(s.Unstored(ctx, 0, 99))(t)), 1)
			onlyThese(t, dir, map[string]bool{kept.Fingerprint.String(): true})
			must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{row}}))
			rows := get(s.Unstored(ctx, 0, 99))(t)
			same(t, op+" failed: body", get(s.StretchBody(ctx, rows[1].ID))(t), row.Body)
			w.refuse("write", full) // as a file system that copies may say
			must(t, s.DropStretches(ctx, []uint64{rows[1].ID}, nil, nil))
			w.refuse("", nil)
		}
	}
	close()
	(&story{have: map[carnet.Fingerprint]avatar.StretchRow{kept.Fingerprint: kept}}).judge(t, db, dir)
}

func testBrokenDisk(t *testing.T, fresh func(t *testing.T, dir string) On, durability error) {
	ctx := t.Context()
	kept := large(1, 1)
	for _, c := range []struct {
		op string
		do func(s avatar.Store) error
	}{
		{"create", nil}, {"write", nil}, {"sync", nil}, {"close", nil}, {"rename", nil}, {"syncdir", nil},
		{"rename", dropAll}, {"overwrite", dropAll}, {"write", dropAll}, {"sync", dropAll}, {"remove", dropAll}, {"syncdir", dropAll},
	} {
		at := memory(t)
		db, dir, w := fresh(t, at), filepath.Join(at, "bodies"), newWreck()
		s, close := db.on(t, dir, w)
		must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{kept}}))
		y := &story{have: map[carnet.Fingerprint]avatar.StretchRow{kept.Fingerprint: kept}, open: []avatar.StretchRow{kept}}
		if c.do == nil {
			y.open = []avatar.StretchRow{large(2, 1)}
			c.do = func(s avatar.Store) error { return s.Compact(ctx, avatar.Compaction{Stretches: y.open}) }
		}
		w.refuse(c.op, syscall.EIO)
		if err := c.do(s); !errors.Is(err, durability) || carnet.CodeOf(err) != "" {
			t.Errorf("%s fails: got %v, want ErrDurability", c.op, err)
		}
		w.refuse("", nil)
		if err := s.Put(ctx, nil, nil); !errors.Is(err, durability) {
			t.Errorf("%s has failed: another change got %v, want ErrDurability", c.op, err)
		}
		close()
		y.judge(t, db, dir)
	}
}

func dropAll(s avatar.Store) error {
	rows, err := s.Unstored(context.Background(), 0, 99)
	if err != nil {
		return err
	}
	return s.DropStretches(context.Background(), []uint64{rows[0].ID}, nil, nil)
}

// testLostBody loses files: that is answered as a lost row is, and mended likewise.
func testLostBody(t *testing.T, fresh func(t *testing.T, dir string) On) {
	ctx := t.Context()
	at := memory(t)
	db, dir := fresh(t, at), filepath.Join(at, "bodies")
	s, close := db.on(t, dir, bodies.Disk{})
	a, b := large(1, 1), large(2, 1)
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{a, b}}))
	rows := get(s.Unstored(ctx, 0, 9))(t)
	file := bodies.Dir{Path: dir}.File(a.Fingerprint)
	for name, lose := range map[string]func(){
		"the file":          func() { must(t, os.Remove(file)) },
		"its shard":         func() { must(t, os.RemoveAll(filepath.Dir(file))) },
		"the whole of them": func() { must(t, os.RemoveAll(dir)) },
	} {
		close()
		lose()
		s, close = db.on(t, dir, bodies.Disk{})
		_, err := s.StretchBody(ctx, rows[0].ID)
		wantCode(t, err, carnet.NotFound)
		for _, row := range rows {
			must(t, s.RestoreStretch(ctx, row.ID, map[bool][]byte{true: a.Body, false: b.Body}[row.Fingerprint == a.Fingerprint]))
			if row.Fingerprint == a.Fingerprint {
				same(t, name+": body", get(s.StretchBody(ctx, row.ID))(t), a.Body)
			}
		}
	}
	must(t, os.WriteFile(file, []byte("rotten"), 0o600))
	same(t, "a damaged body, as it is", get(s.StretchBody(ctx, rows[0].ID))(t), []byte("rotten"))
	must(t, s.RestoreStretch(ctx, rows[0].ID, a.Body))
	same(t, "mended", get(s.StretchBody(ctx, rows[0].ID))(t), a.Body)
	must(t, os.Remove(file)) // what is lost can be dropped
	must(t, s.DropStretches(ctx, []uint64{rows[0].ID, rows[1].ID}, nil, nil))
	close()
	(&story{}).judge(t, db, dir)
}

// testAnotherDatabase opens an empty database beside the files of another: nothing of
// them is deleted.
func testAnotherDatabase(t *testing.T, fresh func(t *testing.T, dir string) On) {
	ctx := t.Context()
	at := memory(t)
	db, dir := fresh(t, at), filepath.Join(at, "bodies")
	s, close := db.on(t, dir, bodies.Disk{})
	row := large(1, 1)
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{row}}))
	close()
	mayNot := func(db On) {
		t.Helper()
		if _, _, err := db(dir, bodies.Disk{}); carnet.CodeOf(err) != carnet.Conflict {
			t.Fatalf("got %v, want code conflict", err)
		}
	}
	mayNot(fresh(t, memory(t)))
	must(t, os.Remove(filepath.Join(dir, "id"))) // a part of a copy
	mayNot(fresh(t, memory(t)))
	mayNot(db)
	if _, err := os.Stat(bodies.Dir{Path: dir}.File(row.Fingerprint)); err != nil {
		t.Fatal(err)
	}
}
