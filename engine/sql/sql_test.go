package sql

import (
	"context"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/engine"
)

// roomy are limits that nothing here comes near but what is meant to.
var roomy = engine.Limits{Memory: 256 << 20, Time: 20 * time.Second, Output: 16 << 20, Parts: 256}

// some are measurements of two avatars.
func some(do func(string, []carnet.Measurement) error) error {
	var ms []carnet.Measurement
	for i := range 100 {
		ms = append(ms, carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: int64(i) * 1e9, Value: carnet.Float(float64(60 + i))})
	}
	if err := do("a1", ms); err != nil {
		return err
	}
	return do("a2", []carnet.Measurement{
		{Name: "note", Time: 1, Value: carnet.String("it's")}, {Name: "worn", Time: 2, Value: carnet.Bool(true)}, {Name: "raw", Time: 3, Value: carnet.Bytes([]byte{0, 255})},
	})
}

// run runs a query over some, and returns what it puts out.
func run(t *testing.T, query, parameters string, l engine.Limits) (string, error) {
	t.Helper()
	var out strings.Builder
	r := engine.Run{Program: []byte(query), Limits: l, Each: some, Part: func(p []byte) error { out.Write(p); return nil }}
	if parameters != "" {
		r.Parameters = []byte(parameters)
	}
	err := Engine{}.Run(t.Context(), r)
	return out.String(), err
}

func TestQueries(t *testing.T) {
	for _, q := range []struct{ query, parameters, want string }{
		{"SELECT avatar, count(*) AS n FROM measurements GROUP BY avatar ORDER BY avatar", "", "[\"avatar\",\"n\"]\n[\"a1\",100]\n[\"a2\",3]\n"},
		{"SELECT max(value), min(time), unit FROM measurements WHERE property = :p", `{"p":"heart_rate"}`, "[\"max(value)\",\"min(time)\",\"unit\"]\n[159,0,\"beat/min\"]\n"},
		{"SELECT property, value FROM measurements WHERE avatar = 'a2' ORDER BY time -- the end", "", "[\"property\",\"value\"]\n[\"note\",\"it's\"]\n[\"worn\",1]\n[\"raw\",{\"base64\":\"AP8=\"}]\n"},
		{"SELECT time, avg(value) OVER (ORDER BY time ROWS 1 PRECEDING) AS mean FROM measurements WHERE avatar='a1' ORDER BY time LIMIT 2;", "", "[\"time\",\"mean\"]\n[0,60]\n[1000000000,60.5]\n"},
		{"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < 3) SELECT i FROM n", "", "[\"i\"]\n[1]\n[2]\n[3]\n"},
		{"WITH n AS (SELECT * FROM measurements WHERE avatar = 'a2') SELECT count(*) AS n FROM n, (SELECT 1)", "", "[\"n\"]\n[3]\n"},
		{"SELECT 1 WHERE 0", "", "[\"1\"]\n"},
	} {
		got, err := run(t, q.query, q.parameters, roomy)
		if err != nil || got != q.want {
			t.Errorf("%s: %q, %v, want %q", q.query, got, err, q.want)
		}
		if err := (Engine{}).Check(t.Context(), []byte(q.query)); err != nil {
			t.Errorf("%s isn't taken: %v", q.query, err)
		}
	}
}

// Everything that a query may not do is refused before it begins.
func TestHostileQueries(t *testing.T) {
	for query, want := range map[string]carnet.Code{
		"ATTACH DATABASE '/tmp/x' AS x":             carnet.Forbidden,
		"DETACH DATABASE main":                      carnet.Forbidden,
		"PRAGMA table_list":                         carnet.Forbidden,
		"SELECT * FROM pragma_database_list":        carnet.Forbidden,
		"SELECT count(*) FROM sqlite_schema":        carnet.Forbidden,
		"SELECT count(*) FROM main.sqlite_schema":   carnet.Forbidden,
		"SELECT count(*) FROM pragma_database_list": carnet.Forbidden,
		"SELECT 1 FROM json_each('[1]')":            carnet.Forbidden,
		"WITH dbstat AS (SELECT 1) SELECT (SELECT count(*) FROM dbstat), (SELECT count(*) FROM main.dbstat)":          carnet.Forbidden,
		"SELECT (WITH pragma_table_list AS (SELECT 1) SELECT count(*) FROM pragma_table_list) FROM pragma_table_list": carnet.Forbidden,
		"SELECT * FROM sqlite_schema":                                       carnet.Forbidden,
		"SELECT * FROM sqlite_dbpage":                                       carnet.Forbidden,
		"INSERT INTO measurements VALUES ('a',1,'b',2,'c')":                 carnet.Forbidden,
		"DELETE FROM measurements":                                          carnet.Forbidden,
		"UPDATE measurements SET value = 1":                                 carnet.Forbidden,
		"DROP TABLE measurements":                                           carnet.Forbidden,
		"CREATE TABLE x (y)":                                                carnet.Forbidden,
		"CREATE TEMP TABLE x AS SELECT * FROM measurements":                 carnet.Forbidden,
		"CREATE VIRTUAL TABLE x USING fts5(y)":                              carnet.Forbidden,
		"CREATE TRIGGER x AFTER INSERT ON measurements BEGIN SELECT 1; END": carnet.Malformed,
		"VACUUM INTO '/tmp/x'":                                              carnet.Malformed,
		"EXPLAIN SELECT 1":                                                  carnet.Malformed,
		"/* a */ -- b\nexplain query plan SELECT 1":                         carnet.Malformed,
		"BEGIN":                            carnet.Forbidden,
		"SELECT load_extension('x')":       carnet.Forbidden,
		"SELECT random()":                  carnet.Forbidden,
		"SELECT randomblob(9)":             carnet.Forbidden,
		"SELECT datetime('now')":           carnet.Forbidden,
		"SELECT CURRENT_TIMESTAMP":         carnet.Forbidden,
		"SELECT sqlite_version()":          carnet.Forbidden,
		"SELECT readfile('/etc/passwd')":   carnet.Malformed,
		"SELECT 1; SELECT 2":               carnet.Malformed,
		"SELECT 1; ATTACH 'x' AS y":        carnet.Malformed,
		"SELECT ';' ; -- and\n PRAGMA x":   carnet.Malformed,
		"":                                 carnet.Malformed,
		"nonsense":                         carnet.Malformed,
		"SELECT nothing FROM measurements": carnet.Malformed,
		"SELECT 1\x00":                     carnet.Malformed,
		"SELECT " + strings.Repeat("abs(", 300) + "1" + strings.Repeat(")", 300): carnet.Malformed,
		"SELECT " + strings.Repeat("1,", MostQuery):                              carnet.TooLarge,
	} {
		if err := (Engine{}).Check(t.Context(), []byte(query)); carnet.CodeOf(err) != want {
			t.Errorf("%.60q is checked: %v, want %s", query, err, want)
		}
		out, err := run(t, query, "", roomy)
		if carnet.CodeOf(err) != want || out != "" {
			t.Errorf("%.60q puts out %q, %v, want %s", query, out, err, want)
		}
	}
	if got, err := run(t, "SELECT count(*) FROM measurements", "", roomy); err != nil || !strings.Contains(got, "[103]") {
		t.Errorf("the next query: %q, %v", got, err)
	}
}

// A query that never ends, grows or puts out without end is ended by its limit, and
// harms no other.
func TestLimits(t *testing.T) {
	endless := "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n) "
	cases := []struct {
		name, query string
		limits      func(*engine.Limits)
		says        string
	}{
		{"recurses for ever", endless + "SELECT max(i) FROM n", func(l *engine.Limits) { l.Time = 300 * time.Millisecond }, "longer"},
		{"recurses for ever after a row", endless + "SELECT 1 UNION ALL SELECT max(i) FROM n", func(l *engine.Limits) { l.Time = 300 * time.Millisecond }, "longer"},
		{"recurses for ever after many rows", endless + "SELECT value FROM measurements UNION ALL SELECT max(i) FROM n", func(l *engine.Limits) { l.Time = 300 * time.Millisecond }, "longer"},
		{"a billion rows", "SELECT 1 FROM measurements a, measurements b, measurements c, measurements d, measurements e", func(l *engine.Limits) { l.Output = 100_000 }, "puts out more"},
		{"a billion rows counted", "SELECT count(*) FROM measurements a, measurements b, measurements c, measurements d, measurements e", func(l *engine.Limits) { l.Time = 300 * time.Millisecond }, "longer"},
		{"many parts", "SELECT hex(a.property) || printf('%0100d', 1) FROM measurements a, measurements b, measurements c", func(l *engine.Limits) { l.Parts = 3 }, "parts"},
		{"grows by sorting", endless + "SELECT i FROM n ORDER BY i % 7", func(l *engine.Limits) { l.Memory = 32 << 20 }, "memory"},
		{"grows by concatenation", endless + "SELECT group_concat(i) FROM n", func(l *engine.Limits) { l.Time = 300 * time.Millisecond }, "longer"},
		{"a long value", "SELECT printf('%0100000000d', 1)", func(*engine.Limits) {}, ""},
		{"a function that can't be interrupted", "SELECT replace(printf('%.*c',3000000,'a'), printf('%.*c',1500000,'a')||'b', 'c')", func(*engine.Limits) {}, "too big"},
		{"again and again what takes as long as may be", endless + "SELECT max(instr(printf('%.*c',65000,'a'), printf('%.*c',32000,'a')||'b')) FROM n", func(l *engine.Limits) { l.Time = 300 * time.Millisecond }, "longer"},
	}
	for _, c := range cases {
		l := roomy
		c.limits(&l)
		begun := time.Now()
		_, err := run(t, c.query, "", l)
		if !engine.Final(err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (code %q)", c.name, err, carnet.CodeOf(err))
		}
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("%s: it took %s", c.name, took)
		}
	}
	if got, err := run(t, "SELECT count(*) FROM measurements", "", roomy); err != nil || !strings.Contains(got, "[103]") {
		t.Errorf("the next query: %q, %v", got, err)
	}
}

// Who ordered it doesn't want it any more: that is no failure of the query.
func TestCancelled(t *testing.T) {
	for _, query := range []string{"SELECT max(i) FROM n", "SELECT 1 UNION ALL SELECT max(i) FROM n"} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		err := Engine{}.Run(ctx, engine.Run{
			Program: []byte("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n) " + query), Limits: roomy, Each: some,
			Part: func([]byte) error { return nil },
		})
		if err == nil || engine.Final(err) {
			t.Errorf("a query that was cancelled, %s, ends with %v", query, err)
		}
	}
}
