package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carnet/activity"
	"carnet/avatar"
	"carnet/bodies"
	"carnet/depot"
	"carnet/keys"
	"carnet/register"
	"carnet/store/postgres"
	"carnet/store/storetest"
	"carnet/thing"

	"github.com/jackc/pgx/v5"
)

func TestThings(t *testing.T) {
	storetest.Things(t, fresh(func(t *testing.T, db *postgres.DB) (thing.Store, error) { return db.Things(t.Context()) }))
}

func TestWorlds(t *testing.T) {
	storetest.Worlds(t, fresh(func(t *testing.T, db *postgres.DB) (avatar.Store, error) { return db.Worlds(t.Context()) }))
}

func TestBodies(t *testing.T) {
	dsn := server(t)
	storetest.Bodies(t, func(t *testing.T, _ string) storetest.On {
		schema := newSchema(t, dsn)
		return func(dir string, files bodies.Files) (avatar.Store, func(), error) {
			db, err := postgres.Open(t.Context(), dsn, postgres.Options{Schema: schema, Connections: 2, Bodies: dir, Files: files})
			if err != nil {
				return nil, nil, err
			}
			s, err := db.Worlds(t.Context())
			if err != nil {
				db.Close()
			}
			return s, func() { db.Close() }, err
		}
	}, postgres.ErrDurability, 17)
}

func TestDepot(t *testing.T) {
	storetest.Depot(t, fresh(func(t *testing.T, db *postgres.DB) (depot.Store, error) { return db.Depot(t.Context()) }))
}

func TestRegister(t *testing.T) {
	storetest.Register(t, fresh(func(t *testing.T, db *postgres.DB) (register.Store, error) { return db.Register(t.Context()) }))
}

func TestRecordsOfEachRole(t *testing.T) {
	for role, open := range map[string]func(*testing.T, *postgres.DB) (storetest.Records, error){
		"things": func(t *testing.T, db *postgres.DB) (storetest.Records, error) { return db.Things(t.Context()) },
		"world":  func(t *testing.T, db *postgres.DB) (storetest.Records, error) { return db.Worlds(t.Context()) },
		"depot":  func(t *testing.T, db *postgres.DB) (storetest.Records, error) { return db.Depot(t.Context()) },
		"dpm":    func(t *testing.T, db *postgres.DB) (storetest.Records, error) { return db.DPM(t.Context()) },
	} {
		t.Run(role, func(t *testing.T) { storetest.AnyRole(t, fresh(open)) })
	}
}

func TestKeys(t *testing.T) {
	storetest.Keys(t, fresh(func(t *testing.T, db *postgres.DB) (keys.Store, error) { return db.Keys(t.Context()) }))
}

func TestActivity(t *testing.T) {
	storetest.Activity(t, fresh(func(t *testing.T, db *postgres.DB) (activity.Store, error) { return db.Activity(t.Context()) }))
}

// server returns the connection string of the cluster that test/postgres.sh
// makes.
func server(t testing.TB) string {
	t.Helper()
	dsn := os.Getenv("CARNET_PG")
	if dsn == "" {
		if os.Getenv("CARNET_REQUIRE_TOOLS") == "1" {
			t.Fatal("CARNET_PG is not set and CARNET_REQUIRE_TOOLS is 1: run test/postgres.sh -- go test ./store/postgres")
		}
		t.Skip("CARNET_PG is not set: run test/postgres.sh -- go test ./store/postgres")
	}
	return dsn
}

// newSchema names a schema of the test's own, dropped at its end.
func newSchema(t testing.TB, dsn string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var id string
	if err := conn.QueryRow(t.Context(), `SELECT gen_random_uuid()`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	schema := "party-" + strings.ReplaceAll(id, "-", "")
	t.Cleanup(func() {
		ctx := context.Background() // that of the test has ended
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			_, err = conn.Exec(ctx, `DROP SCHEMA IF EXISTS `+pgx.Identifier{schema}.Sanitize()+` CASCADE`)
			conn.Close(ctx)
		}
		if err != nil {
			t.Logf("schema %s stays: %v", schema, err)
		}
	})
	return schema
}

// fresh makes databases for the suite, each a schema of its own.
func fresh[S any](domain func(*testing.T, *postgres.DB) (S, error)) storetest.Fresh[S] {
	return func(t *testing.T) storetest.Database[S] {
		dsn := server(t)
		schema, dir := newSchema(t, dsn), filepath.Join(t.TempDir(), "bodies")
		return func(t *testing.T) (S, func()) {
			t.Helper()
			db, err := postgres.Open(t.Context(), dsn, postgres.Options{Schema: schema, Connections: 4, Bodies: dir})
			if err != nil {
				t.Fatal(err)
			}
			s, err := domain(t, db)
			if err != nil {
				t.Fatal(err)
			}
			return s, func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
