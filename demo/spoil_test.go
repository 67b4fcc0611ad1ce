package demo

import (
	"bytes"
	"crypto/ed25519"
	"database/sql"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"

	"carnet/crossing/move"
	"carnet/identity"
	"carnet/item"
	"carnet/keys"
	"carnet/store/sqlite"
)

// A party's documents are sealed: who has its keys can write others, as a party that lies
// or a program that errs would.

// sealedUnder names the key under which a kind of a world's documents is sealed.
func sealedUnder(kind string) keys.ID {
	name := "world"
	if kind == "item" || kind == "item-chain" {
		name = "items"
	}
	return keys.ID{Kind: "rest", Name: name}
}

// rewrite changes a world's documents of a kind, one by one; change reports whether it did.
func (s *setup) rewrite(t *testing.T, world, kind string, change func(map[string]any) bool) {
	t.Helper()
	ctx, dir := t.Context(), filepath.Join(s.dir, world)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("rewrite %s of %s: %v", kind, world, err)
		}
	}
	kek, err := keys.OpenFile(filepath.Join(dir, "kek"))
	must(err)
	path := filepath.Join(dir, "data", "state.db")
	own, err := sqlite.Open(ctx, filepath.Join(dir, "data", "keys.db"), sqlite.Options{})
	must(err)
	rows, err := own.Keys(ctx)
	must(err)
	table, err := keys.Open(ctx, keys.Config{KEK: kek, Store: rows})
	must(err)
	sealer, err := table.Sealer(ctx, sealedUnder(kind))
	must(err)
	must(own.Close()) // the sealer has its key

	db, err := sql.Open("sqlite", path)
	must(err)
	defer db.Close()
	found, err := db.QueryContext(ctx, "SELECT id, body FROM world_document WHERE kind = ?", kind)
	must(err)
	changed := make(map[string][]byte)
	for found.Next() {
		var id string
		var body []byte
		must(found.Scan(&id, &body))
		aad := []byte("document " + kind + " " + id)
		plain, err := sealer.Open(nil, aad, body)
		must(err)
		d := json.NewDecoder(bytes.NewReader(plain))
		d.UseNumber()
		var v map[string]any
		must(d.Decode(&v))
		if !change(v) {
			continue
		}
		plain, err = json.Marshal(v)
		must(err)
		changed[id], err = sealer.Seal(nil, aad, plain)
		must(err)
	}
	must(found.Err())
	must(found.Close())
	if len(changed) == 0 {
		t.Fatalf("%s has no %s to rewrite", world, kind)
	}
	for id, body := range changed {
		_, err := db.ExecContext(ctx, "UPDATE world_document SET body = ? WHERE kind = ? AND id = ?", body, kind, id)
		must(err)
	}
}

// set sets a member of a document, where it is there.
func set(member string, to any) func(map[string]any) bool {
	return func(v map[string]any) bool {
		_, there := v[member]
		v[member] = to
		return there
	}
}

// spoiledGame spoils the stores of the game's worlds, one after the other, and reads all of
// them anew: each check holds before its cause is there, and fails by it.
func (s *setup) spoiledGame(t *testing.T, v *seen, o Options) {
	t.Helper()
	for _, spoil := range []struct {
		check string
		by    func()
	}{
		{"items-once", func() { s.rewrite(t, "arena", "item", set("state", item.Here)) }},
		{"items-proved", func() {
			s.rewrite(t, "citadel", "item-chain", func(v map[string]any) bool {
				entries := v["entries"].([]any)
				v["entries"] = entries[:len(entries)-1]
				return true
			})
		}},
		{"one-home", func() { s.rewrite(t, "arena", "move-source", set("state", move.Frozen)) }},
		{"same-manifest", func() {
			s.rewrite(t, "citadel", "move-target", func(v map[string]any) bool {
				said, err := identity.OpenAcceptance(v["acceptance"].(string))
				if err != nil {
					t.Fatal(err)
				}
				_, key, _ := ed25519.GenerateKey(nil) // the check is of what is said
				said.Manifest[0], said.Target = said.Manifest[0]^1, identity.DID(key.Public().(ed25519.PublicKey))
				v["acceptance"], err = identity.SignAcceptance(key, said)
				return err == nil
			})
		}},
		{"history-came", func() { s.loses(t, "citadel") }},
	} {
		before := make(map[string]bool)
		r := *v.report
		if _, err := s.check(t.Context(), &r, o); err != nil {
			t.Fatalf("before %s: %v", spoil.check, err)
		}
		for _, c := range r.Checks {
			before[c.Name] = c.OK
		}
		if !before[spoil.check] {
			t.Errorf("%s fails before its cause is there", spoil.check)
		}
		spoil.by()
		r = *v.report
		if _, err := s.check(t.Context(), &r, o); err != nil {
			t.Fatalf("%s: %v", spoil.check, err)
		}
		i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == spoil.check })
		if r.Checks[i].OK {
			t.Errorf("the stores are spoiled, and %s says %q", spoil.check, r.Checks[i].Detail)
		}
		for _, c := range r.Checks {
			if before[c.Name] && !c.OK && c.Name != spoil.check {
				t.Logf("by the cause of %s %s fails, too: %s", spoil.check, c.Name, c.Detail)
			}
		}
	}
}

// loses deletes the first stretch that came to a world: of what came with the move.
func (s *setup) loses(t *testing.T, world string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(s.dir, world, "data", "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r, err := db.ExecContext(t.Context(), "DELETE FROM world_stretch WHERE id = (SELECT min(id) FROM world_stretch)")
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := r.RowsAffected(); n != 1 {
		t.Fatalf("%s has no stretch of before", world)
	}
}
