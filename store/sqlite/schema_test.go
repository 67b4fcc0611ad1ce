package sqlite

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"carnet"
	"carnet/avatar"
	"carnet/keys"
)

func files(steps ...string) fstest.MapFS {
	fs := fstest.MapFS{}
	for i, step := range steps {
		fs["schema/pets_"+string(rune('1'+i))+".sql"] = &fstest.MapFile{Data: []byte(step)}
	}
	return fs
}

// TestMigrate checks forward steps: each is done once, all or none, and never
// backward.
func TestMigrate(t *testing.T) {
	ctx := t.Context()
	db, err := Open(ctx, filepath.Join(t.TempDir(), "store.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	one := `CREATE TABLE pets (name TEXT); INSERT INTO pets VALUES ('a');`
	two := `ALTER TABLE pets ADD COLUMN legs INTEGER; INSERT INTO pets VALUES ('b', 4);`
	three := `INSERT INTO pets VALUES ('c', 2);`
	names := func() (list string) {
		if err := db.read(ctx, `SELECT name FROM pets ORDER BY rowid`, nil, func(r *sql.Rows) error {
			var name string
			err := r.Scan(&name)
			list += name
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, c := range []struct {
		steps []string
		want  string
		code  carnet.Code // "-": any error without a code
	}{
		{[]string{one}, "a", ""},
		{[]string{one}, "a", ""},
		{[]string{one, `INSERT INTO pets VALUES ('x'); INSERT INTO nothing VALUES (1);`}, "a", "-"},
		{[]string{one, two, `nonsense`}, "a", "-"},
		{[]string{one, two, three}, "abc", ""},
		{[]string{one, two, three}, "abc", ""},
		{[]string{one, two}, "abc", carnet.Conflict},
	} {
		err := db.migrate(ctx, files(c.steps...), "pets")
		if (err == nil) != (c.code == "") || c.code != "-" && carnet.CodeOf(err) != c.code {
			t.Fatalf("%d steps got %v, want code %q", len(c.steps), err, c.code)
		}
		if got := names(); got != c.want {
			t.Fatalf("after %d steps the table holds %s, want %s", len(c.steps), got, c.want)
		}
	}
}

// TestFirstSchema opens a store as the first version of the program wrote it.
// testdata/first.sql is frozen: it never changes.
func TestFirstSchema(t *testing.T) {
	ctx := t.Context()
	path := frozen(t, "testdata/first.sql")
	db, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	things, err := db.Things(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := things.Log(ctx, 0, 1<<20)
	if err != nil || len(rows) != 1 || rows[0].First != 5 || rows[0].Count != 2 || string(rows[0].Body) != "body\x00" {
		t.Fatalf("the log holds %+v, error %v", rows, err)
	}
	sent, err := things.Sent(ctx, "arena", 0, 9)
	if err != nil || len(sent) != 1 || sent[0].Statement.ID != 1 || string(sent[0].Statement.Receipt) != "receipt" {
		t.Fatalf("the frames sent are %+v, error %v", sent, err)
	}
	worlds, err := db.Worlds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := worlds.Frames(ctx, 0, 1<<20)
	if err != nil || len(frames) != 1 || frames[0].Sender != "hub" || string(frames[0].Body) != "batches" {
		t.Fatalf("the frames are %+v, error %v", frames, err)
	}
	body, err := worlds.StretchBody(ctx, 1)
	if err != nil || string(body) != "stretch" {
		t.Fatalf("the stretch holds %q, error %v", body, err)
	}
	depot, err := db.Depot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	object, err := depot.Object(ctx, "arena", carnet.Fingerprint(bytes.Repeat([]byte{0xab}, 32)))
	if err != nil || object.Size != 1234 || object.Retention != carnet.Year {
		t.Fatalf("the object is %+v, error %v", object, err)
	}
	table, err := db.Keys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	row, err := table.Get(ctx, keys.ID{Kind: "epoch", Name: "a"})
	if err != nil || string(row.Wrapped) != "wrapped" {
		t.Fatalf("the key is %+v, error %v", row, err)
	}
}

// frozen makes a store as an earlier program left it.
func frozen(t *testing.T, file string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store.db")
	script, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := create(path); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.ExecContext(t.Context(), string(script)); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLargeBodiesInRows opens a store that has large bodies in rows: they are read,
// mended and dropped as they are, and what comes is a file beside them.
func TestLargeBodiesInRows(t *testing.T) {
	ctx := t.Context()
	path := frozen(t, "testdata/worlds_2.sql")
	bodyOf := func(text string) []byte { return bytes.Repeat([]byte(text), 50_000) }
	one, two, three := bodyOf("stretch "), bodyOf("another "), bodyOf("a third ")
	var s *Worlds
	var db *DB
	reopen := func() {
		t.Helper()
		var err error
		if db != nil {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if db, err = Open(ctx, path, Options{}); err != nil {
			t.Fatal(err)
		}
		if s, err = db.Worlds(ctx); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(id uint64, want []byte) {
		t.Helper()
		if body, err := s.StretchBody(ctx, id); err != nil || !bytes.Equal(body, want) {
			t.Fatalf("stretch %d has %d bytes, error %v", id, len(body), err)
		}
	}
	reopen()
	defer func() { db.Close() }()
	rows := []avatar.StretchRow{
		{FirstBatch: 3, Fingerprint: carnet.FingerprintOf(three), Body: three},
		{FirstBatch: 4, Fingerprint: carnet.FingerprintOf(one), Body: one}, // once more, as a file
	}
	if err := s.Compact(ctx, avatar.Compaction{Stretches: rows}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		holds(1, one)
		holds(2, two)
		holds(3, three)
		holds(4, one)
		reopen()
	}
	if err := s.DropStretches(ctx, []uint64{1}, nil, nil); err != nil { // the one in the row
		t.Fatal(err)
	}
	holds(4, one)
	if err := s.RestoreStretch(ctx, 2, two); err != nil { // becomes a file
		t.Fatal(err)
	}
	reopen()
	holds(2, two)
	holds(4, one)
	if n, err := s.Totals(ctx); err != nil || n.Stretches != 3 || n.StretchBytes != 1_200_000 {
		t.Fatalf("totals are %+v, error %v", n, err)
	}
	if err := s.DropStretches(ctx, []uint64{2, 3, 4}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StretchBody(ctx, 2); carnet.CodeOf(err) != carnet.NotFound {
		t.Fatalf("a dropped stretch got %v", err)
	}
}
