package sqlite_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/keys"
	"carnet/ledger"
	"carnet/store/sqlite"
	"carnet/thing"

	"golang.org/x/sync/errgroup"
)

// A test that needs a process to kill, or a disk to fill, runs itself again as a
// child; the child finds in this variable the file that it works on.
const childFile = "CARNET_TEST_STORE"

// child is the command that runs one test function of this program, possibly by
// way of other commands (strace, unshare).
func child(t *testing.T, test, file string, by ...string) *exec.Cmd {
	t.Helper()
	args := append(by, os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childFile+"="+file)
	return cmd
}

// tool skips a test whose tool is missing or can't be used here.
func tool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	switch {
	case err == nil:
	case os.Getenv("CARNET_REQUIRE_TOOLS") == "1":
		t.Fatalf("%s can't be used: %v: %s", args[0], err, out)
	default:
		t.Skipf("%s can't be used: %v: %s", args[0], err, out)
	}
}

// group is the commit that begins at a position, which decides all of it.
func group(position uint64) *thing.Group {
	r := rand.New(rand.NewPCG(position, 7))
	body := make([]byte, 1+r.IntN(150_000))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	number := position/3 + 1
	hash := carnet.FingerprintOf(body)
	return &thing.Group{
		Log: &thing.LogRow{First: position, Count: 3, Body: body, Index: hash[:]},
		Sent: []thing.SentRow{
			{Link: "arena", Number: number, Hash: hash, Batches: 2, Statement: ledger.Item{Entry: hash, Statement: hash[:]}},
			{Link: "clinic", Number: number, Hash: hash, Batches: 1},
		},
		Documents: []carnet.Document{{Kind: "mark", ID: "one", Version: number, Body: hash[:]}},
	}
}

// frame is a world's frame, decided by its number.
func frame(number uint64) avatar.FrameRow {
	f := avatar.FrameRow{Sender: "hub", Incarnation: 1, Number: number, Hash: carnet.FingerprintOf(fmt.Append(nil, number)), Batches: 1,
		Body: bytes.Repeat([]byte{byte(number)}, 60_000)}
	if number > 1 {
		f.Parent = carnet.FingerprintOf(fmt.Append(nil, number-1))
	}
	return f
}

// TestCrash kills a process in the midst of commits, again and again, and checks
// that what it had acknowledged is there, and nothing is half there.
func TestCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for round := range 6 {
		cmd := child(t, "TestCrashChild", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		acknowledged := 0
		for kill := 5 + rand.IntN(40); lines.Scan(); {
			if lines.Text() != "ok" {
				continue
			}
			if acknowledged++; acknowledged == kill {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		t.Logf("round %d: killed after %d acknowledgements", round, acknowledged)
		checkCrashed(t, path, uint64(acknowledged))
	}
}

// checkCrashed looks at what a store has after a crash, that acknowledged so many commits.
func checkCrashed(t *testing.T, path string, acknowledged uint64) {
	t.Helper()
	ctx := t.Context()
	db := open(t, path)
	defer db.Close()
	s, w := things(t, db), worlds(t, db)
	n, err := s.Totals(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := uint64(0)
	docs, err := s.Documents(ctx, "before")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		before += uint64(d.Body[0])
	}
	// One commit may have been made and not been acknowledged any more.
	if groups := n.LogNext / 3; n.LogNext%3 != 0 || groups < before+acknowledged || groups > before+acknowledged+1 {
		t.Fatalf("%d groups are there, of which %d were acknowledged", groups, before+acknowledged)
	}
	want := thing.Totals{LogRows: n.LogNext / 3, LogNext: n.LogNext, SentFrames: 2 * n.LogRows, SentBatches: 3 * n.LogRows, Statements: n.LogRows}
	if n != want {
		t.Fatalf("totals are %+v, want %+v", n, want)
	}
	rows, err := s.Log(ctx, 0, 1<<30)
	if err != nil || uint64(len(rows)) != n.LogRows {
		t.Fatalf("the log has %d rows and error %v, want %d", len(rows), err, n.LogRows)
	}
	for i := range rows {
		if g := group(uint64(i) * 3); !bytes.Equal(rows[i].Body, g.Log.Body) || !bytes.Equal(rows[i].Index, g.Log.Index) {
			t.Fatalf("log row %d is damaged", i)
		}
	}
	for _, link := range []carnet.PartyID{"arena", "clinic"} {
		if sent, err := s.Sent(ctx, link, 0, 1<<20); err != nil || uint64(len(sent)) != n.LogRows {
			t.Fatalf("%d frames to %s, error %v, want %d", len(sent), link, err, n.LogRows)
		}
	}
	checkWorld(t, ctx, w, n.LogRows, before+acknowledged)
	grown := byte(n.LogRows - before)
	err = s.Commit(ctx, &thing.Group{Documents: []carnet.Document{{Kind: "before", ID: fmt.Sprint(n.LogNext), Version: 1, Body: []byte{grown}}}})
	if err != nil {
		t.Fatal(err)
	}
}

// checkWorld checks the frames, of which each was appended after its group was
// committed and before that was acknowledged.
func checkWorld(t *testing.T, ctx context.Context, w avatar.Store, groups, acknowledged uint64) {
	t.Helper()
	n, err := w.Totals(ctx)
	if err != nil || n.Frames < acknowledged || n.Frames > groups {
		t.Fatalf("%d frames are there, error %v; want %d to %d", n.Frames, err, acknowledged, groups)
	}
	if n.Stretches+n.FramesWithBody != n.Frames {
		t.Fatalf("totals are %+v: compactions are half there", n)
	}
	rows, err := w.Unstored(ctx, 0, 1<<20)
	if err != nil || uint64(len(rows)) != n.Stretches {
		t.Fatalf("%d stretches, error %v", len(rows), err)
	}
	for i := range rows {
		if body, err := w.StretchBody(ctx, rows[i].ID); err != nil || carnet.FingerprintOf(body) != rows[i].Fingerprint {
			t.Fatalf("the body of stretch %d has %d bytes, error %v", rows[i].ID, len(body), err)
		}
	}
	links, err := w.Links(ctx)
	if err != nil || len(links) != 1 || links[0].Number != n.Frames {
		t.Fatalf("links are %+v, error %v, with %d frames", links, err, n.Frames)
	}
}

// TestCrashChild commits until it is killed.
func TestCrashChild(t *testing.T) {
	path := os.Getenv(childFile)
	if path == "" {
		t.Skip("runs as the child of TestCrash")
	}
	ctx := t.Context()
	db := open(t, path)
	s, w := things(t, db), worlds(t, db)
	n, err := s.Totals(ctx)
	if err != nil {
		t.Fatal(err)
	}
	link, err := w.Register(ctx, "hub", [16]byte{1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for position := n.LogNext; ; position += 3 {
		if err := s.Commit(ctx, group(position)); err != nil {
			t.Fatal(err)
		}
		// A crash may have come between group and frame.
		for number := position/3 + 1; link.Number < number; link.Number++ {
			f := []avatar.FrameRow{frame(link.Number + 1)}
			if err := w.Append(ctx, f); err != nil {
				t.Fatal(err)
			}
			if f[0].Number%2 == 0 {
				row := avatar.StretchRow{Body: bytes.Repeat(f[0].Body, int(1+f[0].Number%4))} // some are files
				row.Fingerprint = carnet.FingerprintOf(row.Body)
				if err := w.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{row}, Strip: []avatar.Strip{{Frame: f[0].ID}}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		os.Stdout.WriteString("ok\n")
	}
}

func open(t testing.TB, path string) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// TestFsync lets one fsync fail, and all later ones succeed, as a kernel does
// that has dropped what it could not write. The store must not believe them.
func TestFsync(t *testing.T) {
	tool(t, "strace", "-f", "-qq", "-o", os.DevNull, "-e", "inject=fsync:error=EIO:when=1000", "true")
	for _, call := range []string{"fsync:error=EIO:when=20", "pwrite64:error=EIO:when=60"} {
		t.Run(call, func(t *testing.T) {
			out, err := child(t, "TestFsyncChild", filepath.Join(t.TempDir(), "store.db"),
				"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=fsync,pwrite64", "-e", "inject="+call).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFsyncChild")) {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// TestFsyncChild commits until that fails and checks that it stays so.
func TestFsyncChild(t *testing.T) {
	path := os.Getenv(childFile)
	if path == "" {
		t.Skip("runs as the child of TestFsync")
	}
	ctx := t.Context()
	db := open(t, path)
	s := things(t, db)
	var err error
	position := uint64(0)
	for ; err == nil; position += 3 {
		if position > 300 {
			t.Fatal("no commit failed")
		}
		err = s.Commit(ctx, group(position))
	}
	position -= 3
	for range 3 {
		if !errors.Is(err, sqlite.ErrDurability) || carnet.CodeOf(err) != "" {
			t.Fatalf("got %v, want ErrDurability", err)
		}
		err = s.Commit(ctx, group(position))
	}
	if err := s.Receipted(ctx, []ledger.Item{{ID: 1, Receipt: []byte("r")}}); !errors.Is(err, sqlite.ErrDurability) {
		t.Fatalf("another change got %v, want ErrDurability", err)
	}
	if n, err := s.Totals(ctx); err != nil || n.LogNext != position {
		t.Fatalf("reading got %+v, %v; want %d positions", n, err, position)
	}
	db.Close()
	// A restart recovers from what is on disk: all that was acknowledged, and
	// perhaps the change that failed.
	db = open(t, path)
	defer db.Close()
	n, err := things(t, db).Totals(ctx)
	if err != nil || n.LogNext != position && n.LogNext != position+3 || n.SentFrames != n.LogNext/3*2 {
		t.Fatalf("after the restart there are %+v, %v; acknowledged were %d positions", n, err, position)
	}
}

// TestNoSpace fills a small disk.
func TestNoSpace(t *testing.T) {
	namespace := []string{"unshare", "--user", "--map-root-user", "--mount"}
	dir := t.TempDir()
	tool(t, append(namespace, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir)...)
	by := append(namespace, "sh", "-c", `mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"`, dir)
	out, err := child(t, "TestNoSpaceChild", filepath.Join(dir, "store.db"), by...).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestNoSpaceChild")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestNoSpaceChild(t *testing.T) {
	path := os.Getenv(childFile)
	if path == "" {
		t.Skip("runs as the child of TestNoSpace")
	}
	ctx := t.Context()
	ballast := filepath.Join(filepath.Dir(path), "ballast")
	if err := os.WriteFile(ballast, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(t, path)
	s := things(t, db)
	position := uint64(0)
	fill := func() {
		t.Helper()
		for ; ; position += 3 {
			if err := s.Commit(ctx, group(position)); err != nil {
				if carnet.CodeOf(err) != carnet.NoSpace || errors.Is(err, sqlite.ErrDurability) {
					t.Fatalf("got %v, want code no_space", err)
				}
				return
			}
		}
	}
	fill()
	full := position
	for range 5 {
		fill() // smaller groups may still fit
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, group(position)); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	position += 3
	fill()
	if full < 6 || position <= full {
		t.Fatalf("the disk was full at position %d, then at %d", full, position)
	}
	db.Close()
	db = open(t, path)
	defer db.Close()
	s = things(t, db)
	rows, err := s.Log(ctx, 0, 1<<30)
	if err != nil || uint64(len(rows))*3 != position {
		t.Fatalf("%d rows, error %v; acknowledged were %d", len(rows), err, position/3)
	}
	for i := range rows {
		if !bytes.Equal(rows[i].Body, group(uint64(i)*3).Log.Body) {
			t.Fatalf("row %d is damaged", i)
		}
	}
}

// What is committed moves from the log into the file, however busily others commit
// and read, so that the log doesn't grow with what was ever committed.
func TestTheLogStaysShort(t *testing.T) {
	const all, each = 160 << 20, 100 << 10 // each in its row
	path := filepath.Join(t.TempDir(), "store.db")
	db := open(t, path)
	defer db.Close()
	w := worlds(t, db)
	work, ctx := errgroup.WithContext(t.Context())
	for who := range 2 {
		body := bytes.Repeat([]byte{byte(who)}, each)
		work.Go(func() error {
			for range all / each / 2 {
				if err := w.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{{Class: carnet.Day, Body: body}}}); err != nil {
					return err
				}
				if _, err := w.Unstored(ctx, 0, 1); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	log, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if log.Size() > all/2 {
		t.Errorf("after commits of %d MB the log has %d MB", all>>20, log.Size()>>20)
	}
}

// TestOverwritten searches every file of the store for what was deleted.
func TestOverwritten(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "store.db"))
	defer db.Close()
	w, k := worlds(t, db), keyTables(t, db)
	stretch, key := []byte("a stretch that is dropped"), []byte("a key that is destroyed")
	for range 8 { // enough for a log longer than what is written after it
		for _, body := range [][]byte{bytes.Repeat(stretch, 4_000), bytes.Repeat(stretch, 10_000)} { // in a row, and a file
			row := avatar.StretchRow{Class: carnet.Day, Received: 1, Fingerprint: carnet.FingerprintOf(body), Body: body}
			if err := w.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{row}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	id := keys.ID{Kind: "epoch", Name: "a"}
	if err := k.Put(ctx, keys.ID{}, []keys.Row{{ID: id, Wrapped: key}}); err != nil {
		t.Fatal(err)
	}
	if !onDisk(t, dir, stretch) || !onDisk(t, dir, key) {
		t.Fatal("the search doesn't find what is there")
	}
	rows, err := w.Expired(ctx, carnet.Day, 2, 99)
	if err != nil || len(rows) != 16 {
		t.Fatalf("%d stretches have expired: %v", len(rows), err)
	}
	var ids []uint64
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	if err := w.DropStretches(ctx, ids, nil, nil); err != nil {
		t.Fatal(err)
	}
	if onDisk(t, dir, stretch) {
		t.Fatal("a dropped stretch is still in a file")
	}
	document := bytes.Repeat([]byte("document that goes"), 500)
	if err := w.Put(ctx, []carnet.Document{{Kind: "a", ID: "a", Version: 1, Body: document}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Overwrite(ctx); err != nil { // so that it is in the file, not in the log alone
		t.Fatal(err)
	}
	if !onDisk(t, dir, document[:200]) {
		t.Fatal("the search doesn't find a document that is there")
	}
	if err := w.Put(ctx, []carnet.Document{{Kind: "a", ID: "a", Version: 2}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Overwrite(ctx); err != nil {
		t.Fatal(err)
	}
	if onDisk(t, dir, document[:200]) {
		t.Fatal("a deleted document is still in a file")
	}
	if err := k.Delete(ctx, keys.ID{}, []keys.ID{id}); err != nil {
		t.Fatal(err)
	}
	if onDisk(t, dir, key) {
		t.Fatal("a destroyed key is still in a file")
	}
}

func onDisk(t *testing.T, dir string, text []byte) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || found {
			return err
		}
		b, err := os.ReadFile(path)
		found = bytes.Contains(b, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestPrivate checks that nobody else can read the store.
func TestPrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	db := open(t, path)
	things(t, db)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("files are %v, error %v; want the store, its log and index", files, err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, error %v; want 0600", file.Name(), info.Mode(), err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path, sqlite.Options{}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Fatalf("a store that others can read got %v, want code forbidden", err)
	}
	if _, err := sqlite.Open(t.Context(), dir, sqlite.Options{}); err == nil {
		t.Fatal("a directory was opened as a store")
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), text, sqlite.Options{}); err == nil {
		t.Fatal("a text was opened as a store")
	}
}
