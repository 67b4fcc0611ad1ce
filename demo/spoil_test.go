package demo

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/node"
	"carnet/store/sqlite"
)

// spoil breaks what checks are about, in the stores and files of a copy of the parties, or
// as a party that errs or lies would.
type spoil struct {
	checks string // that fail by it; several: each by a cause of its own
	also   string // that can't but fail with them; with ? behind: that may, as ids are drawn
	by     func(*spoiled)
}

// spoiled is a copy of the parties of a story that was told, to be spoiled.
type spoiled struct {
	*setup
	t       *testing.T
	was     *seen // before
	played  *played
	options Options
}

// causes spoils a copy of the parties in each way, reads all of it anew, and wants exactly
// the checks to fail that the way says. Each check of the story has one.
func (s *setup) causes(t *testing.T, v *seen, p *played, o Options, ways ...spoil) {
	t.Helper()
	lacks := make(map[string]bool)
	for _, c := range s.script.checks {
		lacks[c.name] = true
	}
	for _, way := range append([]spoil{{by: func(*spoiled) {}}}, ways...) {
		t.Run(strings.ReplaceAll(way.checks, " ", "+"), func(t *testing.T) {
			x := s.copied(t, v, p, o)
			way.by(x)
			checks, fail := x.read(), strings.Fields(way.checks)
			for _, name := range fail {
				if !lacks[name] {
					t.Errorf("there is no check %s, or it is broken twice", name)
				}
				delete(lacks, name)
			}
			for _, c := range checks {
				switch {
				case slices.Contains(strings.Fields(way.also), c.Name+"?"):
				case c.OK == slices.Contains(append(fail, strings.Fields(way.also)...), c.Name):
					t.Errorf("%s says %v: %s", c.Name, c.OK, c.Detail)
				case !c.OK && (!strings.Contains(c.Detail, "expected ") || strings.HasSuffix(c.Detail, "expected ")):
					t.Errorf("%s doesn't say what was expected: %q", c.Name, c.Detail)
				case !c.OK:
					t.Logf("%s: %s", c.Name, c.Detail)
				}
			}
		})
	}
	for name := range lacks {
		t.Errorf("nothing breaks %s", name)
	}
}

// copied copies the parties' directories.
func (s *setup) copied(t *testing.T, v *seen, p *played, o Options) *spoiled {
	t.Helper()
	was, c := *p, *s
	x := &spoiled{setup: &c, t: t, was: v, played: &was, options: o}
	c.dir, c.parties = t.TempDir(), nil
	x.must(filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(s.dir, path)
		switch to := filepath.Join(c.dir, rel); {
		case d.IsDir() && d.Name() == "compiled": // a worker makes them anew
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(to, 0o700)
		case d.Type().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(to, text, 0o600)
		}
		return nil
	}))
	for _, p := range s.parties {
		q := *p
		q.dir = filepath.Join(c.dir, string(q.name))
		var err error
		q.config, err = node.ReadConfig(q.file())
		x.must(err)
		x.must(q.connect())
		c.parties = append(c.parties, &q)
	}
	return x
}

// read judges by what the parties have now.
func (x *spoiled) read() []Check {
	x.t.Helper()
	r, err := x.judge(x.t.Context(), x.played, x.options)
	x.must(err)
	_, err = x.check(x.t.Context(), r, x.options)
	x.must(err)
	return r.Checks
}

func (x *spoiled) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// write writes a file.
func (x *spoiled) write(text string, path ...string) {
	x.t.Helper()
	file := filepath.Join(append([]string{x.dir}, path...)...)
	x.must(os.MkdirAll(filepath.Dir(file), 0o700))
	x.must(os.WriteFile(file, []byte(text), 0o600))
}

// in opens a party's database.
func (x *spoiled) in(party carnet.PartyID, file string, do func(*sql.DB)) {
	x.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(x.dir, string(party), "data", file))
	x.must(err)
	defer db.Close()
	do(db)
}

// execute changes a party's store.
func (x *spoiled) execute(party carnet.PartyID, statement string, args ...any) {
	x.t.Helper()
	x.in(party, "state.db", func(db *sql.DB) { x.change(db, statement, args...) })
}

func (x *spoiled) change(db *sql.DB, statement string, args ...any) {
	x.t.Helper()
	r, err := db.ExecContext(x.t.Context(), statement, args...)
	x.must(err)
	if n, _ := r.RowsAffected(); n == 0 {
		x.t.Fatalf("%s changed nothing", statement)
	}
}

// inspect opens a party that doesn't run.
func (x *spoiled) inspect(party carnet.PartyID, do func(*node.Inspection)) {
	x.t.Helper()
	i, err := node.Inspect(x.t.Context(), x.party(party).config, x.options.Log)
	x.must(err)
	do(i)
	x.must(i.Close())
}

// keys opens a party's key table.
func (x *spoiled) keys(party carnet.PartyID, do func(context.Context, *keys.Table)) {
	x.t.Helper()
	ctx, dir := x.t.Context(), x.party(party).dir
	kek, err := keys.OpenFile(filepath.Join(dir, "kek"))
	x.must(err)
	own, err := sqlite.Open(ctx, filepath.Join(dir, "data", "keys.db"), sqlite.Options{})
	x.must(err)
	rows, err := own.Keys(ctx)
	x.must(err)
	table, err := keys.Open(ctx, keys.Config{KEK: kek, Store: rows})
	x.must(err)
	do(ctx, table)
	x.must(own.Close())
}

// A party's documents are sealed: who has its keys can write others, as a party that lies
// or a program that errs would.

// rest says in which table a party has documents of a kind, under which key they are
// sealed, and what they are sealed with.
func (x *spoiled) rest(party carnet.PartyID, kind string) (table string, seal *keys.Sealer, aad func(id string) []byte) {
	x.t.Helper()
	at := map[identity.Role][2]string{identity.World: {"world_document", "world"}, identity.Things: {"thing_document", "things"}, identity.DPM: {"dpm_document", "dpm"}}[x.party(party).role]
	aad = func(id string) []byte { return []byte("document " + kind + " " + id) }
	switch {
	case kind == "item" || kind == "item-chain":
		at[1] = "items"
	case at[1] == "dpm":
		aad = func(id string) []byte { return []byte(kind + " " + id) }
	}
	x.keys(party, func(ctx context.Context, t *keys.Table) {
		var err error
		seal, err = t.Sealer(ctx, keys.ID{Kind: "rest", Name: at[1]})
		x.must(err)
	})
	return at[0], seal, aad
}

// document is a party's, opened.
type document = map[string]any

// rewrite changes a party's documents of a kind, one by one; change reports whether it did.
func (x *spoiled) rewrite(party carnet.PartyID, kind string, change func(id string, d document) bool) {
	x.t.Helper()
	table, seal, aad := x.rest(party, kind)
	x.in(party, "state.db", func(db *sql.DB) {
		x.t.Helper()
		found, err := db.QueryContext(x.t.Context(), "SELECT id, body FROM "+table+" WHERE kind = ?", kind)
		x.must(err)
		changed := make(map[string][]byte)
		for found.Next() {
			var id string
			var body []byte
			x.must(found.Scan(&id, &body))
			plain, err := seal.Open(nil, aad(id), body)
			x.must(err)
			from := json.NewDecoder(bytes.NewReader(plain))
			from.UseNumber()
			var d document
			x.must(from.Decode(&d))
			if !change(id, d) {
				continue
			}
			plain, err = json.Marshal(d)
			x.must(err)
			changed[id], err = seal.Seal(nil, aad(id), plain)
			x.must(err)
		}
		x.must(found.Err())
		x.must(found.Close())
		if len(changed) == 0 {
			x.t.Fatalf("%s has no %s to rewrite", party, kind)
		}
		for id, body := range changed {
			x.change(db, "UPDATE "+table+" SET body = ? WHERE kind = ? AND id = ?", body, kind, id)
		}
	})
}

// insert gives a party a document.
func (x *spoiled) insert(party carnet.PartyID, kind, id string, d any) {
	x.t.Helper()
	table, seal, aad := x.rest(party, kind)
	plain, err := json.Marshal(d)
	x.must(err)
	body, err := seal.Seal(nil, aad(id), plain)
	x.must(err)
	x.execute(party, "INSERT OR REPLACE INTO "+table+" (kind, id, version, body) VALUES (?, ?, 1, ?)", kind, id, body)
}

// set sets a member of every document of a kind.
func (x *spoiled) set(party carnet.PartyID, kind, member string, to any) {
	x.t.Helper()
	x.rewrite(party, kind, func(_ string, d document) bool {
		d[member] = to
		return true
	})
}

// job changes what a world has of its first job for a program.
func (x *spoiled) job(world carnet.PartyID, program string, change func(document)) {
	x.t.Helper()
	x.rewrite(world, "job", func(id string, d document) bool {
		is := id == x.was.asked(world, program).ID.String()
		if is {
			change(d)
		}
		return is
	})
}

// end is how a job ended, as its world has it.
func end(outcome string) func(document) {
	return func(d document) { d["stand"].(document)["outcome"] = outcome }
}

// flip changes a fingerprint.
func flip(text any) string {
	b, _ := hex.DecodeString(text.(string))
	b[0] ^= 1
	return hex.EncodeToString(b)
}

// mixUp gives every statement of a party the receipt of its first.
func (x *spoiled) mixUp(party carnet.PartyID) {
	x.t.Helper()
	table := map[identity.Role]string{identity.World: "world_statement", identity.DPM: "dpm_statement"}[x.party(party).role]
	x.execute(party, "UPDATE "+table+" SET receipt = (SELECT receipt FROM "+table+" ORDER BY id LIMIT 1)")
}

// receipts has the vault give a world the receipts that it lacks.
func (x *spoiled) receipts(world carnet.PartyID) {
	x.t.Helper()
	x.in(world, "state.db", func(db *sql.DB) {
		x.t.Helper()
		rows, err := db.QueryContext(x.t.Context(), "SELECT id, entry FROM world_statement WHERE receipt IS NULL")
		x.must(err)
		var ids []int64
		var entries []ledger.Entry
		for rows.Next() {
			var id int64
			var entry []byte
			x.must(rows.Scan(&id, &entry))
			ids, entries = append(ids, id), append(entries, ledger.Entry(entry))
		}
		x.must(rows.Close())
		vault, err := node.Inspect(x.t.Context(), x.party("vault").config, x.options.Log)
		x.must(err)
		ctx, cancel := context.WithCancel(x.t.Context())
		ended := make(chan error, 1)
		go func() { ended <- vault.Parts().Depot.Run(ctx) }()
		given, err := vault.Parts().Depot.Submit(ctx, world, entries)
		cancel()
		x.must(errors.Join(err, <-ended))
		_ = vault.Close() // it would run the ledger, which has run
		for i, r := range given {
			x.change(db, "UPDATE world_statement SET receipt = ? WHERE id = ?", r.Marshal(), ids[i])
		}
	})
}
