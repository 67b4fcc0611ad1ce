package postgres_test

import (
	"testing"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/store/postgres"

	"github.com/jackc/pgx/v5"
)

// Who reads the key table for long, as a backup does, doesn't keep others from reading and
// storing keys while some are destroyed.
func TestKeysAreDestroyedBesideABackup(t *testing.T) {
	dsn := server(t)
	schema := newSchema(t, dsn)
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := db.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	row := func(name string) keys.Row {
		return keys.Row{ID: keys.ID{Kind: "epoch", Name: name}, Wrapped: []byte(name)}
	}
	first, second := row("1"), row("2")
	upTo := keys.ID{Kind: "table", Name: "9"}
	if err := s.Put(t.Context(), upTo, []keys.Row{first}); err != nil {
		t.Fatal(err)
	}
	backup, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Close(t.Context())
	reading, err := backup.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reading.Exec(t.Context(), `LOCK TABLE `+pgx.Identifier{schema, "key_row"}.Sanitize()+` IN ACCESS SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	deleted := make(chan error, 1)
	go func() { deleted <- s.Delete(t.Context(), upTo, []keys.ID{first.ID}) }()
	select {
	case err := <-deleted:
		if carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("beside a backup: %v, want %s", err, carnet.Unavailable)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("destroying a key waits for the backup")
	}
	if err := s.Put(t.Context(), upTo, []keys.Row{second}); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), second.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), first.ID); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the key that was deleted: %v", err)
	}
	if err := reading.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), upTo, []keys.ID{first.ID}); err != nil {
		t.Errorf("after the backup: %v", err)
	}
}
