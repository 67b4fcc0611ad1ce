package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const ok = `{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestX"}
{"Action":"output","Package":"a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"pass","Package":"a","Test":"TestX/sub"}
{"Action":"pass","Package":"a","Test":"TestX"}
{"Action":"output","Package":"a","Output":"PASS\n"}
{"Action":"output","Package":"a","Output":"ok  \ta\t0.1s\n"}
{"Action":"pass","Package":"a"}
`
	skip := func(reason string) string {
		return `{"Action":"output","Package":"a","Test":"TestS","Output":"    s_test.go:1: ` + reason + `\n"}
{"Action":"skip","Package":"a","Test":"TestS"}
`
	}
	for _, c := range []struct {
		name, in string
		strict   bool
		totals   string
		shows    []string
		hides    string
	}{
		{"passed", ok, true, "1 0", []string{"ok  \ta\t0.1s\n"}, "RUN"},
		{"slow", `{"Action":"pass","Package":"a","Test":"TestX/sub","Elapsed":12}
{"Action":"pass","Package":"a","Test":"TestX","Elapsed":12.3}
{"Action":"pass","Package":"a","Test":"TestY","Elapsed":9}
{"Action":"pass","Package":"a","Test":"TestZ","Elapsed":99}
{"Action":"pass","Package":"a"}
`, true, "3 0", []string{"slowest:\n      99 s  a TestZ\n      12 s  a TestX\n"}, "TestY"},
		{"failed test", `{"Action":"output","Package":"a","Test":"TestX","Output":"    x_test.go:3: wrong\n"}
{"Action":"fail","Package":"a","Test":"TestX"}
{"Action":"output","Package":"a","Output":"FAIL\ta\t0.1s\n"}
{"Action":"fail","Package":"a"}
`, true, "0 1", []string{"wrong", "FAIL\ta", "failed:\n  a TestX\n      x_test.go:3: wrong\n"}, ""},
		{"failed subtest counts once", `{"Action":"fail","Package":"a","Test":"TestX/sub"}
{"Action":"fail","Package":"a","Test":"TestX"}
{"Action":"fail","Package":"a"}
`, true, "0 1", nil, ""},
		{"does not compile", `{"ImportPath":"a","Action":"build-output","Output":"a.go:1: undefined: x\n"}
{"ImportPath":"a","Action":"build-fail"}
{"Action":"output","Package":"a","Output":"FAIL\ta [build failed]\n"}
{"Action":"fail","Package":"a","FailedBuild":"a"}
`, true, "0 1", []string{"undefined: x", "[build failed]"}, ""},
		{"crashed in a test", `{"Action":"output","Package":"a","Test":"TestX","Output":"panic: broken\n"}
{"Action":"output","Package":"a","Output":"FAIL\ta\t0.1s\n"}
{"Action":"fail","Package":"a"}
`, true, "0 1", []string{"panic: broken"}, ""},
		{"killed", `{"Action":"output","Package":"a","Test":"TestX","Output":"half\n"}` + "\n", true, "0 1", []string{"half", "no end"}, ""},
		{"allowed skip", skip("shared data not present") + ok, true, "1 0", []string{"skipped:\n  a TestS: s_test.go:1: shared data not present"}, "FAIL"},
		{"other skip", skip("strace not found") + ok, true, "1 1", []string{"FAIL: a TestS was skipped: s_test.go:1: strace not found"}, ""},
		{"other skip, not strict", skip("strace not found") + ok, false, "1 0", []string{"strace not found"}, "FAIL"},
		{"what is no event", "go: cannot find main module\n", true, "0 0", []string{"cannot find main module"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, out, skips := t.TempDir(), &strings.Builder{}, ""
			if c.strict {
				skips = filepath.Join(dir, "skips")
				if err := os.WriteFile(skips, []byte("# data\nshared data\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			totals, failures := filepath.Join(dir, "totals"), filepath.Join(dir, "failures")
			if err := newRun(out).main(strings.NewReader(c.in), skips, totals, failures); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(totals)
			if err != nil || strings.TrimSpace(string(got)) != c.totals {
				t.Errorf("totals %q, want %q (%v)", got, c.totals, err)
			}
			// What counts as failed is named.
			if told, err := os.ReadFile(failures); err != nil || strings.HasSuffix(c.totals, " 0") != (len(told) == 0) {
				t.Errorf("of totals %q it tells %q (%v)", c.totals, told, err)
			}
			for _, s := range c.shows {
				if !strings.Contains(out.String(), s) {
					t.Errorf("doesn't show %q:\n%s", s, out)
				}
			}
			if c.hides != "" && strings.Contains(out.String(), c.hides) {
				t.Errorf("shows %q:\n%s", c.hides, out)
			}
		})
	}
}
