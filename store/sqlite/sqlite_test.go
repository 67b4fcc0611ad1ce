package sqlite_test

import (
	"path/filepath"
	"testing"

	"carnet/avatar"
	"carnet/store/sqlite"
	"carnet/store/storetest"
	"carnet/thing"
)

// fresh makes databases for the suite, each in a file with an awkward name.
func fresh[S any](domain func(*testing.T, *sqlite.DB) S) storetest.Fresh[S] {
	return func(t *testing.T) storetest.Database[S] {
		path := filepath.Join(t.TempDir(), "store 100%?#.db")
		return func(t *testing.T) (S, func()) {
			t.Helper()
			db, err := sqlite.Open(t.Context(), path, sqlite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return domain(t, db), func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestThings(t *testing.T) { storetest.Things(t, fresh(things)) }

func things(t *testing.T, db *sqlite.DB) thing.Store {
	t.Helper()
	s, err := db.Things(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func worlds(t *testing.T, db *sqlite.DB) avatar.Store {
	t.Helper()
	s, err := db.Worlds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
