package postgres_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"carnet"
	"carnet/store/postgres"
	"carnet/thing"

	"github.com/jackc/pgx/v5"
)

// TestDisconnected has the server end a party's connections: what fails is
// answered with unavailable, nothing is half there, and the store works again.
func TestDisconnected(t *testing.T) {
	ctx := t.Context()
	dsn := server(t)
	schema := newSchema(t, dsn)
	db, err := postgres.Open(ctx, dsn, postgres.Options{Schema: schema, Connections: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := db.Things(ctx)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	next, failures := uint64(0), 0
	for round := range 20 {
		if round%2 == 0 {
			if _, err := admin.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1`, "carnet "+schema); err != nil {
				t.Fatal(err)
			}
		}
		err := s.Commit(ctx, &thing.Group{Log: &thing.LogRow{First: next, Count: 1}})
		switch {
		case err == nil:
			next++
		case carnet.CodeOf(err) != carnet.Unavailable || errors.Is(err, postgres.ErrDurability):
			t.Fatalf("got %v, want code unavailable", err)
		default:
			failures++
		}
	}
	n, err := s.Totals(ctx)
	if err != nil || n.LogNext != next {
		t.Fatalf("%d rows are there, error %v; acknowledged were %d (%d refused)", n.LogNext, err, next, failures)
	}
	if next < 10 {
		t.Fatalf("only %d of 20 commits were made", next)
	}
}

// TestOpen checks what is refused at the start.
func TestOpen(t *testing.T) {
	dsn := server(t)
	for _, schema := range []string{"", "Party", "1party", "party\"; DROP", strings.Repeat("p", 64)} {
		if _, err := postgres.Open(t.Context(), dsn, postgres.Options{Schema: schema}); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("schema %q got %v, want code malformed", schema, err)
		}
	}
	if _, err := postgres.Open(t.Context(), "postgres://127.0.0.1:1/x?connect_timeout=1", postgres.Options{Schema: "party"}); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("no server got %v, want code unavailable", err)
	}
}

// TestTwoStarts opens one new schema from several processes at once.
func TestTwoStarts(t *testing.T) {
	ctx := t.Context()
	dsn := server(t)
	schema, dir := newSchema(t, dsn), filepath.Join(t.TempDir(), "bodies")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			db, err := postgres.Open(ctx, dsn, postgres.Options{Schema: schema, Connections: 2, Bodies: dir})
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			if _, err := db.Worlds(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// TestNewerSchema refuses tables that a newer program made.
func TestNewerSchema(t *testing.T) {
	ctx := t.Context()
	dsn := server(t)
	schema := newSchema(t, dsn)
	db, err := postgres.Open(ctx, dsn, postgres.Options{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Keys(ctx); err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, `UPDATE `+pgx.Identifier{schema, "schema_version"}.Sanitize()+` SET version = version + 1 WHERE domain = 'keys'`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Keys(ctx); carnet.CodeOf(err) != carnet.Conflict {
		t.Fatalf("tables of a newer program got %v, want code conflict", err)
	}
}
