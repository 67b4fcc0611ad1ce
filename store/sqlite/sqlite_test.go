package sqlite_test

import (
	"path/filepath"
	"testing"

	"carnet/activity"
	"carnet/avatar"
	"carnet/depot"
	"carnet/keys"
	"carnet/register"
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
func TestWorlds(t *testing.T) { storetest.Worlds(t, fresh(worlds)) }
func TestDepot(t *testing.T)  { storetest.Depot(t, fresh(depots)) }
func TestKeys(t *testing.T)   { storetest.Keys(t, fresh(keyTables)) }

func TestRegister(t *testing.T) {
	storetest.Register(t, fresh(func(t *testing.T, db *sqlite.DB) register.Store {
		t.Helper()
		s, err := db.Register(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}))
}

func TestRecordsOfEachRole(t *testing.T) {
	for role, open := range map[string]func(*testing.T, *sqlite.DB) (storetest.Records, error){
		"things": func(t *testing.T, db *sqlite.DB) (storetest.Records, error) { return db.Things(t.Context()) },
		"world":  func(t *testing.T, db *sqlite.DB) (storetest.Records, error) { return db.Worlds(t.Context()) },
		"depot":  func(t *testing.T, db *sqlite.DB) (storetest.Records, error) { return db.Depot(t.Context()) },
		"dpm":    func(t *testing.T, db *sqlite.DB) (storetest.Records, error) { return db.DPM(t.Context()) },
	} {
		t.Run(role, func(t *testing.T) {
			storetest.AnyRole(t, fresh(func(t *testing.T, db *sqlite.DB) storetest.Records {
				t.Helper()
				s, err := open(t, db)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}))
		})
	}
}

func TestActivity(t *testing.T) { storetest.Activity(t, fresh(activities)) }

func activities(t *testing.T, db *sqlite.DB) activity.Store {
	t.Helper()
	s, err := db.Activity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

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

func depots(t *testing.T, db *sqlite.DB) depot.Store {
	t.Helper()
	s, err := db.Depot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyTables(t *testing.T, db *sqlite.DB) keys.Store {
	t.Helper()
	s, err := db.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
