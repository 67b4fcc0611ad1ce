// Package postgres keeps the state of one party in one schema of a PostgreSQL
// database, so that several parties, or several processes of one, can share it.
//
// It owns the schema's tables, the files of a world's large bodies, and what must come one after the other: each
// domain (Things, Worlds, Depot, Register, DPM, Activity, Keys) has its own tables, made when that domain
// is first asked for, and every change of things or worlds first locks that
// domain's row of totals. So two processes can't both extend the same log or
// link, numbers are given in the order in which changes become visible, and the
// conflict rules hold without retries. A change is on the server's disk when its
// method returns nil (synchronous_commit is on; a server that runs without fsync
// is refused).
//
// States of a DB: open → refusing (a commit's answer was lost, or the server
// can't write) → closed. Whether the change whose answer was lost stays is open
// until the process starts again; see ErrDurability.
//
// It must not know what the sealed columns hold, nor any rule of a domain
// beyond those that its store's contract states.
package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/bodies"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Options tune a store.
type Options struct {
	// Schema is the party's schema: a lower-case letter, then up to 62 of a-z,
	// 0-9, '_' and '-'. It is made if there is none. Required.
	Schema string
	// Connections is the most there are at once; 8.
	Connections int
	// Patience is how long a change may take on the server, waiting for other
	// writers included; 30 s. After it the answer is carnet.Unavailable, or
	// ErrDurability where the commit had been sent.
	Patience time.Duration
	// Bodies is the directory of a world's large bodies, made when the world is opened,
	// which needs it. Files is what it is on: the disk.
	Bodies string
	Files  bodies.Files
}

// DB is an open store. Its methods may be called from many goroutines.
type DB struct {
	schema   string
	patience time.Duration
	pool     *pgxpool.Pool
	failed   atomic.Pointer[error]
	broken   chan struct{} // closed once failed is set

	bodies  string // the directory of large bodies
	files   bodies.Files
	opening sync.Mutex
	large   *bodies.Beside // once a world is opened; guarded by opening
}

// Open connects to the server that dsn names (a URL or key=value pairs).
func Open(ctx context.Context, dsn string, o Options) (*DB, error) {
	if o.Connections == 0 {
		o.Connections = 8
	}
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	if o.Files == nil {
		o.Files = bodies.Disk{}
	}
	if o.Connections < 2 || o.Connections > 1000 || o.Patience < 0 {
		return nil, fmt.Errorf("open store: want 2 to 1000 connections and a positive patience")
	}
	if len(o.Schema) < 1 || len(o.Schema) > 63 || o.Schema[0] < 'a' || o.Schema[0] > 'z' || strings.Trim(o.Schema, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return nil, carnet.Errorf(carnet.Malformed, "schema %q: want a lower-case letter, then up to 62 of a-z, 0-9, '_' and '-'", o.Schema)
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	cfg.MaxConns = int32(o.Connections)
	for name, value := range map[string]string{
		"search_path":        pgx.Identifier{o.Schema}.Sanitize(),
		"synchronous_commit": "on",
		"application_name":   "carnet " + o.Schema,
	} {
		cfg.ConnConfig.RuntimeParams[name] = value
	}
	db := &DB{schema: o.Schema, patience: o.Patience, broken: make(chan struct{}), bodies: o.Bodies, files: o.Files}
	if db.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := db.prepare(ctx); err != nil {
		db.pool.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	return db, nil
}

// prepare checks that the server keeps what it acknowledges, and makes the
// schema.
func (db *DB) prepare(ctx context.Context) error {
	for _, setting := range []string{"fsync", "full_page_writes"} {
		var value string
		if err := db.pool.QueryRow(ctx, "SHOW "+setting).Scan(&value); err != nil {
			return classify(err)
		}
		if value != "on" {
			return carnet.Errorf(carnet.Forbidden, "the PostgreSQL server runs with %s = %s and can lose what it acknowledged", setting, value).
				WithFix("set %s = on in postgresql.conf", setting)
		}
	}
	return db.change(ctx, "make schema", func(t *tx) error {
		t.exec(`SELECT pg_advisory_xact_lock(hashtext('carnet schema ' || $1))`, db.schema)
		t.exec(`CREATE SCHEMA IF NOT EXISTS ` + pgx.Identifier{db.schema}.Sanitize())
		t.exec(`CREATE TABLE IF NOT EXISTS schema_version (domain text PRIMARY KEY, version integer NOT NULL)`)
		return nil
	})
}

// Close waits until connections are given back and closes them.
func (db *DB) Close() error {
	db.pool.Close()
	db.opening.Lock()
	defer db.opening.Unlock()
	if db.large == nil {
		return nil
	}
	return db.large.Close()
}
