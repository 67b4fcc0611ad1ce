package sqlite

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"carnet"
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
	path := filepath.Join(t.TempDir(), "store.db")
	script, err := os.ReadFile("testdata/first.sql")
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
	if _, err := raw.ExecContext(ctx, string(script)); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
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
