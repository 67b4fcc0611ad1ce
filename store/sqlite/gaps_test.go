package sqlite_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/store/sqlite"
)

// Of what was deleted nothing is left in the file, wherever SQLite moved its rows
// before, and what is live is unharmed.
func TestNothingIsLeftInPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	table := keyTables(t, db)
	stop, busy := make(chan struct{}), sync.WaitGroup{}
	busy.Go(func() { // others write meanwhile, and SQLite moves rows for them
		r := rand.New(rand.NewPCG(3, 4))
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			row := keys.Row{ID: keys.ID{Kind: "other", Name: fmt.Sprint(r.Uint64())}, Wrapped: make([]byte, 40+r.IntN(1800))}
			if err := table.Put(t.Context(), keys.ID{}, []keys.Row{row}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	ended := sync.OnceFunc(func() {
		close(stop)
		busy.Wait()
	})
	defer ended()
	r := rand.New(rand.NewPCG(1, 2))
	live, gone := make(map[string][]byte), [][]byte{}
	for i := range 150 {
		var rows []keys.Row
		for range 20 {
			wrapped := make([]byte, 40+r.IntN(1800))
			for k := range wrapped {
				wrapped[k] = byte(r.Uint32())
			}
			name := fmt.Sprintf("%02d-%d", r.IntN(20), r.Uint64())
			live[name] = wrapped
			rows = append(rows, keys.Row{ID: keys.ID{Kind: "slot", Name: name}, Wrapped: wrapped})
		}
		if err := table.Put(t.Context(), keys.ID{}, rows); err != nil {
			t.Fatal(err)
		}
		if i%10 != 9 {
			continue
		}
		of, ids := fmt.Sprintf("%02d-", r.IntN(20)), []keys.ID{}
		for name, wrapped := range live {
			if name[:3] == of {
				ids, gone = append(ids, keys.ID{Kind: "slot", Name: name}), append(gone, wrapped)
				delete(live, name)
			}
		}
		if err := table.Delete(t.Context(), keys.ID{}, ids); err != nil {
			t.Fatal(err)
		}
		holdsNone(t, path, gone)
	}
	for name, wrapped := range live {
		row, err := table.Get(t.Context(), keys.ID{Kind: "slot", Name: name})
		if err != nil || !bytes.Equal(row.Wrapped, wrapped) {
			t.Fatalf("%s: %x, %v", name, row.Wrapped, err)
		}
	}
	ended()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	sound(t, path)
	if len(gone) < 900 {
		t.Errorf("only %d rows were deleted: the test tests little", len(gone))
	}
}

// Who reads for long keeps what was deleted in the log: that is said, and mended by the
// next deletion.
func TestAReaderHoldsUpOverwriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := sqlite.Open(t.Context(), path, sqlite.Options{BusyTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	table := keyTables(t, db)
	id, secret := keys.ID{Kind: "slot", Name: "a"}, bytes.Repeat([]byte("secret! "), 5)
	if err := table.Put(t.Context(), keys.ID{}, []keys.Row{{ID: id, Wrapped: secret}}); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	reading, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Rollback()
	var n int
	if err := reading.QueryRow(`SELECT count(*) FROM key_row`).Scan(&n); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if err := table.Delete(t.Context(), keys.ID{}, []keys.ID{id}); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("deleted while somebody reads: %v", err)
	}
	if err := reading.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := table.Delete(t.Context(), keys.ID{}, []keys.ID{id}); err != nil {
		t.Fatal(err)
	}
	holdsNone(t, path, [][]byte{secret})
}

// holdsNone searches a store's file and its log for the ends of what was deleted.
func holdsNone(t *testing.T, path string, gone [][]byte) {
	t.Helper()
	ends := make(map[[16]byte]bool)
	for _, g := range gone {
		ends[[16]byte(g)], ends[[16]byte(g[len(g)-16:])] = true, true
	}
	for _, of := range []string{path, path + "-wal"} {
		all, err := os.ReadFile(of)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for i := 0; i+16 <= len(all); i++ {
			if ends[[16]byte(all[i:])] {
				found++
			}
		}
		if found > 0 {
			t.Fatalf("%s has something of deleted rows at %d places", filepath.Base(of), found)
		}
	}
}

// sound has SQLite check a store's file that nobody has open.
func sound(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var says string
	if err := db.QueryRowContext(t.Context(), `PRAGMA integrity_check`).Scan(&says); err != nil || says != "ok" {
		t.Errorf("integrity_check says %q, %v", says, err)
	}
}
