package sqlite_test

import (
	"path/filepath"
	"testing"

	"carnet/avatar"
	"carnet/bodies"
	"carnet/store/sqlite"
	"carnet/store/storetest"
)

func TestBodies(t *testing.T) {
	storetest.Bodies(t, func(t *testing.T, dir string) storetest.On {
		path := filepath.Join(dir, "store.db")
		return func(dir string, files bodies.Files) (avatar.Store, func(), error) {
			db, err := sqlite.Open(t.Context(), path, sqlite.Options{Bodies: dir, Files: files})
			if err != nil {
				return nil, nil, err
			}
			s, err := db.Worlds(t.Context())
			if err != nil {
				db.Close()
			}
			return s, func() { db.Close() }, err
		}
	}, sqlite.ErrDurability, 1)
}
