// Package sql runs queries over measurements: SQL on an in-memory SQLite that has one
// table and nothing else. docs/design/modules.md has the table, the output and the
// limits.
//
// A query is one statement that reads. SQLite's authorizer is asked for each thing
// that a statement would do when it is compiled, and permits what is listed here: so
// what a query can't do it can't even begin. An engine for larger volumes (DuckDB)
// would be another package with the same interface.
//
// The package must not know who orders a query or what becomes of its rows.
package sql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/engine"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Engine implements engine.Engine. It has no state.
type Engine struct{}

var _ engine.Engine = Engine{}

// Name implements engine.Engine.
func (Engine) Name() string { return "sql" }

// Version implements engine.Engine.
func (Engine) Version() string { return "SQLite " + sqlite3.SQLITE_VERSION }

// MostQuery is how long a query may be.
const MostQuery = 64 << 10

// Check implements engine.Engine: the query is compiled against the empty table.
func (e Engine) Check(ctx context.Context, program []byte) error {
	db, conn, err := open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	q, err := e.prepare(ctx, conn, program)
	if err != nil {
		return err
	}
	return q.close()
}

// open makes an empty database with the table.
func open(ctx context.Context) (*sql.DB, *sql.Conn, error) {
	db, err := sql.Open("sqlite", ":memory:?_pragma=journal_mode(off)&_pragma=synchronous(off)&_pragma=temp_store(memory)&_pragma=cell_size_check(off)")
	if err != nil {
		return nil, nil, fmt.Errorf("open a database in memory: %w", err)
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err == nil {
		_, err = conn.ExecContext(ctx, `CREATE TABLE measurements (avatar TEXT NOT NULL, time INTEGER NOT NULL, property TEXT NOT NULL, value ANY, unit TEXT NOT NULL) STRICT`)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make the table: %w", err), db.Close())
	}
	return db, conn, nil
}

// query is a compiled query.
type query struct {
	stmt  *sql.Stmt
	guard *guard
}

func (q *query) close() error { return q.stmt.Close() }

// prepare shuts the database in and compiles the query. Nothing else is run on the
// connection from then on.
func (e Engine) prepare(ctx context.Context, conn *sql.Conn, program []byte) (*query, error) {
	if len(program) > MostQuery {
		return nil, carnet.Errorf(carnet.TooLarge, "the query has %d bytes, at most %d are taken", len(program), MostQuery)
	}
	text := string(program)
	if strings.ContainsRune(text, 0) {
		return nil, carnet.Errorf(carnet.Malformed, "the query has a zero byte")
	}
	g := &guard{}
	err := conn.Raw(func(c any) error {
		r, ok := c.(sqlite.AuthorizerRegisterer)
		if !ok {
			return errors.New("the driver has no authorizer")
		}
		return r.RegisterAuthorizer(g.permit)
	})
	if err != nil {
		return nil, fmt.Errorf("shut the database in: %w", err)
	}
	for id, most := range limits {
		if _, err := sqlite.Limit(conn, id, most); err != nil {
			return nil, fmt.Errorf("set the database's limits: %w", err)
		}
	}
	if more := strings.TrimSpace(afterStatement(text)); more != "" {
		return nil, carnet.Errorf(carnet.Malformed, "a query is one statement, and more comes after its ';'")
	}
	stmt, err := conn.PrepareContext(ctx, text)
	if err == nil && g.refused == "" {
		err = g.unnamed(ctx, conn)
	}
	if g.refused != "" {
		err = carnet.Errorf(carnet.Forbidden, "the query wants %s, which no query may", g.refused).WithFix("docs/design/modules.md says what one may")
	} else if err != nil {
		err = carnet.Errorf(carnet.Malformed, "the query doesn't compile: %s", short(err))
	}
	if err != nil {
		if stmt != nil {
			err = errors.Join(err, stmt.Close())
		}
		return nil, err
	}
	if !g.selects || strings.EqualFold(firstWord(text), "explain") {
		return nil, errors.Join(carnet.Errorf(carnet.Malformed, "a query begins with SELECT, WITH or VALUES"), stmt.Close())
	}
	return &query{stmt, g}, nil
}

// limits are those of SQLite (https://www.sqlite.org/c3ref/c_limit_attached.html).
var limits = map[int]int{
	// SQLite looks for an interruption between its own steps, and a function of two texts
	// is one step that takes as long as both are, multiplied.
	sqlite3.SQLITE_LIMIT_LENGTH: 64 << 10, sqlite3.SQLITE_LIMIT_SQL_LENGTH: MostQuery, sqlite3.SQLITE_LIMIT_COLUMN: 256,
	sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100, sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 32, sqlite3.SQLITE_LIMIT_ATTACHED: 0,
	sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 32, sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1024, sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
	sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 64, sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0, sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,
}

// Run implements engine.Engine.
func (e Engine) Run(ctx context.Context, r engine.Run) error {
	if err := r.Limits.Check(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, r.Limits.Time, carnet.Errorf(carnet.TooLarge, "the query ran longer than its limit of %s", r.Limits.Time))
	defer cancel()
	limited, over := context.WithCancelCause(limited)
	defer over(nil)
	watched := watchMemory(limited, r.Limits.Memory, over)
	defer watched()
	err := e.all(limited, &r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cause := context.Cause(limited); err != nil && cause != nil && carnet.CodeOf(cause) == carnet.TooLarge {
		return cause
	}
	return err
}

func (e Engine) all(ctx context.Context, r *engine.Run) error {
	db, conn, err := open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := fill(ctx, conn, r); err != nil {
		return err
	}
	q, err := e.prepare(ctx, conn, r.Program)
	if err != nil {
		return err
	}
	defer q.close()
	args, err := arguments(r.Parameters)
	if err != nil {
		return err
	}
	stop, err := interrupts(ctx, conn)
	if err != nil {
		return err
	}
	defer stop()
	rows, err := q.stmt.QueryContext(ctx, args...)
	if err != nil {
		return failed(err)
	}
	defer rows.Close()
	return write(rows, engine.NewOutput(r))
}

// rowsAtOnce is how many measurements one statement adds.
const rowsAtOnce = 64

// fill puts the measurements into the table.
func fill(ctx context.Context, conn *sql.Conn, r *engine.Run) error {
	one := "(?,?,?,?,?)"
	many, err := conn.PrepareContext(ctx, "INSERT INTO measurements VALUES "+one+strings.Repeat(","+one, rowsAtOnce-1))
	if err != nil {
		return err
	}
	defer many.Close()
	single, err := conn.PrepareContext(ctx, "INSERT INTO measurements VALUES "+one)
	if err != nil {
		return err
	}
	defer single.Close()
	args := make([]any, 0, 5*rowsAtOnce)
	err = r.Each(func(avatar string, ms []carnet.Measurement) error {
		for i := range ms {
			m := &ms[i]
			args = append(args, avatar, m.Time, m.Name, valueOf(m.Value), m.Unit)
			if len(args) == cap(args) {
				if _, err := many.ExecContext(ctx, args...); err != nil {
					return err
				}
				args = args[:0]
			}
		}
		return nil
	})
	for ; err == nil && len(args) > 0; args = args[5:] {
		_, err = single.ExecContext(ctx, args[:5]...)
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "CREATE INDEX measurements_of ON measurements (property, avatar, time)")
	}
	return err
}

func valueOf(v carnet.Value) any {
	switch v.Kind {
	case carnet.Boolean:
		return int64(v.Num)
	case carnet.Text:
		return v.Str
	case carnet.Data:
		return []byte(v.Str)
	}
	return v.Num
}

// arguments are a run's parameters, by name.
func arguments(parameters []byte) (args []any, err error) {
	if len(parameters) == 0 {
		return nil, nil
	}
	var named map[string]any
	if err := json.Unmarshal(parameters, &named); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "the parameters are no JSON object")
	}
	for name, v := range named {
		switch v.(type) {
		case float64, string, bool, nil:
		default:
			return nil, carnet.Errorf(carnet.Malformed, "the parameter %q is neither a number, a text, true, false nor null", name)
		}
		args = append(args, sql.Named(name, v))
	}
	return args, nil
}

// write puts the rows out: each a line of JSON, gathered into parts.
func write(rows *sql.Rows, out *engine.Output) error {
	columns, err := rows.Columns()
	if err != nil {
		return failed(err)
	}
	line, err := json.Marshal(columns)
	if err != nil {
		return err
	}
	part := append(line, '\n')
	values := make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return failed(err)
		}
		row, err := rowOf(values)
		if err != nil {
			return err
		}
		if len(part) > 0 && len(part)+len(row) > partBytes {
			if err := out.Put(part); err != nil {
				return err
			}
			part = part[:0]
		}
		part = append(part, row...)
	}
	if err := rows.Err(); err != nil {
		return failed(err)
	}
	return out.Put(part)
}

// partBytes is how large a part becomes before another begins.
const partBytes = 256 << 10

// rowOf writes a row as a line of JSON.
func rowOf(values []any) ([]byte, error) {
	row := make([]any, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case []byte:
			row[i] = map[string][]byte{"base64": v}
		case float64:
			if row[i] = v; math.IsInf(v, 0) || math.IsNaN(v) {
				row[i] = nil // JSON has no such number
			}
		case time.Time: // what the driver makes of some columns
			row[i] = v.UnixNano()
		default:
			row[i] = v
		}
	}
	line, err := json.Marshal(row)
	if err != nil {
		return nil, carnet.Errorf(carnet.Conflict, "a row can't be written: %s", short(err))
	}
	return append(line, '\n'), nil
}

// failed is why a query ended by itself. Where the context has ended Run says more.
func failed(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return carnet.Errorf(carnet.Conflict, "the query fails: %s", short(err))
}

// short is the first line of an error, of a length that can be shown.
func short(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return carnet.Shorten(text, 200)
}

// guard is SQLite's authorizer.
type guard struct {
	refused string // the first thing that was
	selects bool
	from    []string // names of which no column is read; a table's, or the query's own
}

// permit permits to read the table, to select, to recurse, and the functions that
// give the same for the same.
func (g *guard) permit(action sqlite.AuthorizerActionCode, arg1, arg2, _, _ string) sqlite.AuthorizerReturnCode {
	switch action {
	case sqlite.AuthSelect:
		g.selects = true
		return sqlite.AuthorizerOK
	case sqlite.AuthRecursive:
		return sqlite.AuthorizerOK
	case sqlite.AuthRead:
		if arg1 == "measurements" || arg1 == "" {
			return sqlite.AuthorizerOK
		}
		if arg2 == "" {
			g.from = append(g.from, arg1)
			return sqlite.AuthorizerOK // unnamed looks closer
		}
		return g.refuse("to read " + arg1)
	case sqlite.AuthFunction:
		if slices.Contains(functions, strings.ToLower(arg2)) {
			return sqlite.AuthorizerOK
		}
		return g.refuse("the function " + arg2)
	}
	if name, ok := actions[action]; ok {
		return g.refuse(name)
	}
	return g.refuse(fmt.Sprintf("to do what SQLite calls action %d", action))
}

// unnamed refuses to count a table's rows. What a query names itself (WITH n AS …) is
// reported in the same way when no column of it is read, so each such name is compiled by
// itself: one that is somebody else's is there without the query, too.
func (g *guard) unnamed(ctx context.Context, conn *sql.Conn) error {
	names := g.from
	for _, name := range names {
		stmt, err := conn.PrepareContext(ctx, `SELECT 1 FROM "`+strings.ReplaceAll(name, `"`, `""`)+`"`)
		if err == nil {
			g.refuse("to read " + name)
			return stmt.Close()
		}
		if !strings.Contains(err.Error(), "no such table") {
			return err
		}
	}
	return nil
}

func (g *guard) refuse(what string) sqlite.AuthorizerReturnCode {
	if g.refused == "" {
		g.refused = what[:min(len(what), 100)]
	}
	return sqlite.AuthorizerDeny
}

// actions names what is refused mostly.
var actions = map[sqlite.AuthorizerActionCode]string{
	sqlite.AuthAttach: "to attach a database", sqlite.AuthDetach: "to detach a database", sqlite.AuthPragma: "a pragma",
	sqlite.AuthInsert: "to insert", sqlite.AuthUpdate: "to update", sqlite.AuthDelete: "to delete",
	sqlite.AuthCreateTable: "to create a table", sqlite.AuthCreateTempTable: "to create a table", sqlite.AuthDropTable: "to drop a table",
	sqlite.AuthTransaction: "a transaction",
}

// functions are those that a query may call.
var functions = []string{
	"abs", "acos", "asin", "atan", "atan2", "avg", "ceil", "ceiling", "char", "coalesce", "concat", "concat_ws", "cos", "count", "cume_dist", "degrees",
	"dense_rank", "exp", "first_value", "floor", "format", "glob", "group_concat", "hex", "if", "ifnull", "iif", "instr", "json", "json_array", "json_group_array",
	"json_group_object", "json_object", "lag", "last_value", "lead", "length", "like", "ln", "log", "log10", "log2", "lower", "ltrim", "max", "median", "min",
	"mod", "nth_value", "ntile", "nullif", "octet_length", "percent_rank", "percentile", "percentile_cont", "percentile_disc", "pi", "pow", "power", "printf", "quote",
	"radians", "rank", "replace", "round", "row_number", "rtrim", "sign", "sin", "sqrt", "string_agg", "substr", "substring", "sum", "tan", "total", "trim", "trunc",
	"typeof", "unhex", "unicode", "upper",
}

// afterStatement is what comes after the end of the first statement, but for comments
// and white space at its end.
func afterStatement(text string) string {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\'' || c == '"' || c == '`':
			end := strings.IndexByte(text[i+1:], c)
			if end < 0 {
				return ""
			}
			i += end + 1
		case c == '[':
			end := strings.IndexByte(text[i+1:], ']')
			if end < 0 {
				return ""
			}
			i += end + 1
		case strings.HasPrefix(text[i:], "--"):
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				return ""
			}
			i += end
		case strings.HasPrefix(text[i:], "/*"):
			end := strings.Index(text[i+2:], "*/")
			if end < 0 {
				return ""
			}
			i += end + 3
		case c == ';':
			return text[i+1:]
		}
	}
	return ""
}

// firstWord is the word that a statement begins with, behind white space and comments.
func firstWord(text string) string {
	for {
		text = strings.TrimLeft(text, " \t\r\n\f;")
		switch {
		case strings.HasPrefix(text, "--"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			_, text, _ = strings.Cut(text[2:], "*/")
		default:
			end := strings.IndexFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
			if end < 0 {
				end = len(text)
			}
			return text[:end]
		}
	}
}
