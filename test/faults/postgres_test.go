package faults_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"

	"carnet"
	"carnet/node"

	"github.com/jackc/pgx/v5"
)

// cluster is the connection string of a PostgreSQL server (test/postgres.sh).
func cluster(t *testing.T) string {
	t.Helper()
	dsn := os.Getenv("CARNET_PG")
	switch {
	case dsn != "":
	case os.Getenv("CARNET_REQUIRE_TOOLS") == "1":
		t.Fatal("CARNET_PG is not set and CARNET_REQUIRE_TOOLS is 1: run test/postgres.sh -- go test ./test/faults")
	default:
		t.Skip("CARNET_PG is not set: run test/postgres.sh -- go test ./test/faults")
	}
	return dsn
}

// database is where a party has its stores on PostgreSQL: a database of its own,
// behind a gate.
type database struct {
	cluster string // of the server, as its superuser
	name    string
	direct  string // past the gate
	gate    *gate
	copies  int // made of it

	mu    sync.Mutex
	asked *pgx.Conn // by number; nil: not yet
}

// onPostgres gives a party's stores to PostgreSQL.
func onPostgres(t *testing.T, p *party) {
	t.Helper()
	d := &database{cluster: cluster(t), name: fmt.Sprintf("faults_%s_%s", p.name, carnet.NewStreamID())}
	d.command(t, `CREATE DATABASE `+d.name)
	t.Cleanup(func() {
		if d.asked != nil {
			d.asked.Close(context.Background())
		}
		d.command(t, `DROP DATABASE IF EXISTS `+d.name+` WITH (FORCE)`)
	})
	at, err := url.Parse(d.cluster)
	if err != nil {
		t.Fatal(err)
	}
	at.Path = d.name
	d.direct = at.String()
	var address string
	d.gate, address = newGate(t, at.Host)
	at.Host = address
	p.database, p.config.Store = d, node.Store{Kind: "postgres", DSN: at.String(), Schema: string(p.name)}
}

func (d *database) command(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), d.cluster) // also when the test has ended
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

// copied keeps a copy of a database whose party has ended, and returns what puts it back.
func (d *database) copied(t *testing.T) (restore func()) {
	t.Helper()
	d.copies++
	kept := fmt.Sprintf("%s_copy_%d", d.name, d.copies)
	d.command(t, `SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE datname = '`+d.name+`'`)
	d.command(t, `CREATE DATABASE `+kept+` TEMPLATE `+d.name)
	t.Cleanup(func() { d.command(t, `DROP DATABASE IF EXISTS `+kept) })
	return func() {
		t.Helper()
		d.command(t, `DROP DATABASE `+d.name+` WITH (FORCE)`)
		d.command(t, `CREATE DATABASE `+d.name+` TEMPLATE `+kept)
	}
}

// number asks the party's database, past the gate and whether the party runs or not.
func (p *party) number(t *testing.T, sql string) (n int64) {
	t.Helper()
	d := p.database
	d.mu.Lock()
	defer d.mu.Unlock()
	for again := d.asked != nil; ; again = false { // a connection that was kept may have ended with a database that was put back
		err := d.connected(p.config.Store.Schema)
		if err == nil {
			err = d.asked.QueryRow(context.Background(), sql).Scan(&n)
		}
		if err == nil {
			return n
		}
		if !again || !d.asked.IsClosed() {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// connected sees to it that there is a connection that finds the tables of a party by
// their names alone.
func (d *database) connected(schema string) error {
	if d.asked != nil && !d.asked.IsClosed() {
		return nil
	}
	c, err := pgx.ParseConfig(d.direct)
	if err != nil {
		return err
	}
	c.RuntimeParams["search_path"] = schema + ", " + schema + "_keys"
	d.asked, err = pgx.ConnectConfig(context.Background(), c)
	return err
}

// rows are all values of bytes in a database, by table and column.
func (d *database) rows(t *testing.T) store {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	query := func(sql string) (all [][]string) {
		rows, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		defer rows.Close()
		for rows.Next() {
			one := make([]string, len(rows.FieldDescriptions()))
			to := make([]any, len(one))
			for i := range one {
				to[i] = &one[i]
			}
			if err := rows.Scan(to...); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			all = append(all, one)
		}
		return all
	}
	s := make(store)
	for _, c := range query(`SELECT table_schema, table_name, column_name FROM information_schema.columns
		WHERE data_type = 'bytea' AND table_schema NOT IN ('pg_catalog', 'information_schema')`) {
		of := pgx.Identifier{c[0], c[1]}
		rows, err := conn.Query(t.Context(), `SELECT `+pgx.Identifier{c[2]}.Sanitize()+` FROM `+of.Sanitize())
		if err != nil {
			t.Fatal(err)
		}
		var all []byte
		for rows.Next() {
			var value []byte
			if err := rows.Scan(&value); err != nil {
				t.Fatal(err)
			}
			all = append(append(all, value...), "the end of a value"...)
		}
		if rows.Close(); rows.Err() != nil {
			t.Fatal(rows.Err())
		}
		s[c[0]+"."+c[1]+"."+c[2]] = all
	}
	return s
}
