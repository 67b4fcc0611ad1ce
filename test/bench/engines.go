package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"carnet"
	"carnet/engine"
	sqlengine "carnet/engine/sql"
	"carnet/engine/wasm"
)

// engines is row 16: what a call of a module costs, and a query beside the same query
// on plain SQLite.
func engines(ctx context.Context, b *bench) (all []Figure, err error) {
	calls, rows := 1_000_000, 1_000_000
	if b.short {
		calls, rows = 100_000, 100_000
	}
	if all, err = called(ctx, b, calls); err != nil {
		return all, fmt.Errorf("WebAssembly: %w", err)
	}
	figures, err := queried(ctx, rows)
	return append(all, figures...), err
}

// beats are n heart rates, one a second.
func beats(n int) []carnet.Measurement {
	all := make([]carnet.Measurement, n)
	from := time.Now().Add(-30 * 24 * time.Hour).Unix()
	for i := range all {
		all[i] = carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: time.Unix(from+int64(i), 0).UnixNano(), Value: carnet.Float(float64(60 + i*7%90))}
	}
	return all
}

// called runs a module over measurements one a call, and 4,096 a call; what compiling
// and the module itself take is taken off by running it over none.
func called(ctx context.Context, b *bench, n int) (all []Figure, err error) {
	program, err := module(ctx, b.dir, "heartzones")
	if err != nil {
		return nil, err
	}
	e, err := wasm.New(filepath.Join(b.dir, "compiled"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	ms := beats(n)
	over := func(atOnce, n int) (time.Duration, error) {
		begun := time.Now()
		err := e.Run(ctx, engine.Run{
			Program: program, Limits: engine.Limits{Memory: engine.MostMemory, Time: 10 * time.Minute, Output: 1 << 20, Parts: 16},
			Part: func([]byte) error { return nil },
			Each: func(do func(string, []carnet.Measurement) error) error {
				for rest := ms[:n]; len(rest) > 0; {
					some := rest[:min(atOnce, len(rest))]
					if err := do("a1", some); err != nil {
						return err
					}
					rest = rest[len(some):]
				}
				return nil
			},
		})
		return time.Since(begun), err
	}
	compiling, err := over(1, 0)
	if err != nil {
		return nil, err
	}
	empty, err := over(1, 0) // it is compiled by now
	if err != nil {
		return nil, err
	}
	ones, err := over(1, n)
	if err != nil {
		return nil, err
	}
	many, err := over(4096, n)
	if err != nil {
		return nil, err
	}
	raw := map[string]float64{"compiling, s": (compiling - empty).Seconds(), "beginning and ending, ms": empty.Seconds() * 1e3, "calls": float64(n)}
	each := func(d time.Duration) float64 { return float64((d - empty).Nanoseconds()) / float64(n) }
	return []Figure{
		{Row: 16, Name: "WebAssembly, a call with one measurement", Value: each(ones), Unit: "ns", Raw: raw,
			Note: "encoded, given to the module's memory, decoded and kept by it: two calls of wazero each, from Go and back."},
		{Row: 16, Name: "WebAssembly, a measurement, 4,096 a call", Value: each(many), Unit: "ns", Note: "as jobs give them, so nearly all of it is the module's own work."},
	}, nil
}

// query has what the engine is for: a window over each property's values.
const query = `WITH smooth AS (SELECT time, value, avg(value) OVER (ORDER BY time ROWS BETWEEN 29 PRECEDING AND CURRENT ROW) AS mean FROM measurements WHERE property = 'heart_rate')
	SELECT count(*), max(mean), sum(value > mean) FROM smooth`

// queried runs the query over n measurements in the engine, and on an SQLite of the same
// driver, in memory, that is filled row by row in one transaction.
func queried(ctx context.Context, n int) ([]Figure, error) {
	ms := beats(n)
	var out []byte
	ours := func() (time.Duration, error) {
		out = out[:0]
		begun := time.Now()
		err := sqlengine.Engine{}.Run(ctx, engine.Run{
			Program: []byte(query), Limits: engine.Limits{Memory: engine.MostMemory, Time: 10 * time.Minute, Output: 1 << 20, Parts: 16},
			Part: func(part []byte) error { out = append(out, part...); return nil },
			Each: func(do func(string, []carnet.Measurement) error) error {
				for rest := ms; len(rest) > 0; {
					some := rest[:min(1000, len(rest))]
					if err := do("a1", some); err != nil {
						return err
					}
					rest = rest[len(some):]
				}
				return nil
			},
		})
		return time.Since(begun), err
	}
	var took, plain, only []float64
	for range 3 { // A B A B
		a, err := ours()
		if err != nil {
			return nil, err
		}
		filled, asked, row, err := plainly(ctx, ms)
		if err != nil {
			return nil, fmt.Errorf("plain SQLite: %w", err)
		}
		if want, _ := json.Marshal(row); !bytes.Contains(out, want) {
			return nil, fmt.Errorf("the engine says %s, and plain SQLite %s", out, want)
		}
		took, plain, only = append(took, a.Seconds()), append(plain, (filled+asked).Seconds()), append(only, asked.Seconds())
	}
	f := Figure{
		Row: 16, Name: "SQL, a window over measurements", Value: float64(n) / middle(took), Unit: "measurements/s", Peer: float64(n) / middle(plain),
		Raw:  map[string]float64{"measurements": float64(n), "s": middle(took), "plain SQLite, filling and query, s": middle(plain), "plain SQLite, the query alone, s": middle(only)},
		Note: "filling the table, its index, the authorizer and the rows as JSON are inside. Plain: the same driver and table, a prepared INSERT a row in one transaction, the same index and query, nothing limited.",
	}
	f.Ratio = f.Value / f.Peer
	return []Figure{f}, nil
}

// plainly does the same on a plain SQLite.
func plainly(ctx context.Context, ms []carnet.Measurement) (filled, asked time.Duration, row []any, err error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return 0, 0, nil, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	begun := time.Now()
	if _, err := db.ExecContext(ctx, `CREATE TABLE measurements (avatar TEXT NOT NULL, time INTEGER NOT NULL, property TEXT NOT NULL, value ANY, unit TEXT NOT NULL) STRICT`); err != nil {
		return 0, 0, nil, err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, nil, err
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO measurements VALUES (?,?,?,?,?)`)
	if err != nil {
		return 0, 0, nil, err
	}
	for i := range ms {
		if _, err := insert.ExecContext(ctx, "a1", ms[i].Time, ms[i].Name, ms[i].Value.Num, ms[i].Unit); err != nil {
			return 0, 0, nil, err
		}
	}
	if err := tx.Commit(); err != nil {
		return 0, 0, nil, err
	}
	if _, err := db.ExecContext(ctx, `CREATE INDEX measurements_of ON measurements (property, avatar, time)`); err != nil {
		return 0, 0, nil, err
	}
	filled = time.Since(begun)
	begun = time.Now()
	row = make([]any, 3)
	err = db.QueryRowContext(ctx, query).Scan(&row[0], &row[1], &row[2])
	return filled, time.Since(begun), row, err
}
