// Command summary reads what "go test -json" writes and shows it as "go test"
// does: one line for each package, the output of tests that fail. It then says
// which tests took longest, which were skipped, which failed and why, and appends
// "PASSED FAILED" to the file of the -totals flag: tests of the top level, and
// packages that end without a verdict of a test (they don't compile, crash, or run
// out of time). Which failed and why is appended to the file of -failures, too.
//
// With -skips FILE, a skip whose output matches no line of the file (regular
// expressions, # comments) counts as failed: a machine that lacks something must
// not look as if it had been tested there.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// event is a line of go doc test2json, and of "go help buildjson".
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// run collects what is known of the packages that haven't ended.
type run struct {
	out            io.Writer
	allowed        []*regexp.Regexp
	output         map[string]map[string]string // package → test ("" its own) → output, of tests not ended
	verdict        map[string]bool              // packages with a failed test
	skips          []string
	ended          []event         // tests of the top level
	reasons        strings.Builder // of tests that failed, without what their programs logged
	passed, failed int
}

func main() {
	totals := flag.String("totals", "", "file to append the counts to")
	failures := flag.String("failures", "", "file to append to what failed and why")
	skips := flag.String("skips", "", "file of regular expressions: skips that are no failure")
	flag.Parse()
	r := newRun(os.Stdout)
	if err := r.main(os.Stdin, *skips, *totals, *failures); err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(2)
	}
	if r.failed > 0 {
		os.Exit(1)
	}
}

func newRun(out io.Writer) *run {
	return &run{out: out, output: map[string]map[string]string{}, verdict: map[string]bool{}}
}

func (r *run) main(in io.Reader, skips, totals, failures string) (err error) {
	strict := skips != ""
	if strict {
		if r.allowed, err = expressions(skips); err != nil {
			return err
		}
	}
	if err := r.read(in, strict); err != nil {
		return err
	}
	r.slowest()
	if len(r.skips) > 0 {
		fmt.Fprintf(r.out, "skipped:\n%s", strings.Join(r.skips, ""))
	}
	if r.reasons.Len() > 0 {
		fmt.Fprintf(r.out, "failed:\n%s", r.reasons.String())
	}
	return errors.Join(
		appendTo(failures, r.reasons.String()),
		appendTo(totals, fmt.Sprintln(r.passed, r.failed)),
	)
}

// appendTo appends to a file that is asked for.
func appendTo(name, text string) error {
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// slowest says which tests took longest, of those that took a while: beside
// others, which may have had the processors.
func (r *run) slowest() {
	slices.SortStableFunc(r.ended, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	for i, e := range r.ended[:min(20, len(r.ended))] {
		if e.Elapsed < 10 {
			break
		}
		if i == 0 {
			fmt.Fprintln(r.out, "slowest:")
		}
		fmt.Fprintf(r.out, "  %6.0f s  %s %s\n", e.Elapsed, e.Package, e.Test)
	}
}

func expressions(file string) (list []*regexp.Regexp, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := regexp.Compile(line)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		list = append(list, e)
	}
	return list, nil
}

func (r *run) read(in io.Reader, strict bool) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		var e event
		if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
			r.take(e, strict)
		} else {
			io.WriteString(r.out, line)
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
	for p := range r.output { // go test itself was killed
		r.failed++
		fmt.Fprintf(r.out, "FAIL\t%s [no end]\n", p)
		fmt.Fprintf(&r.reasons, "  %s: no end\n", p)
		r.unfinished(p)
	}
	return nil
}

func (r *run) take(e event, strict bool) {
	switch {
	case e.Action == "build-output":
		io.WriteString(r.out, e.Output)
		return
	case e.Package == "":
		return
	case r.output[e.Package] == nil:
		r.output[e.Package] = map[string]string{}
	}
	tests := r.output[e.Package]
	switch e.Action {
	case "output":
		tests[e.Test] += e.Output
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.end(e)
			return
		}
		r.test(e, tests[e.Test], strict)
		delete(tests, e.Test)
	}
}

// test counts a test that ends; subtests count with the test they belong to.
func (r *run) test(e event, output string, strict bool) {
	top := !strings.Contains(e.Test, "/")
	if top {
		r.ended = append(r.ended, e)
	}
	switch e.Action {
	case "fail":
		r.verdict[e.Package] = true
		io.WriteString(r.out, output)
		fmt.Fprintf(&r.reasons, "  %s %s\n", e.Package, e.Test)
		for line := range strings.Lines(output) {
			if reason.MatchString(line) {
				r.reasons.WriteString("  " + line)
			}
		}
		if top {
			r.failed++
		}
	case "pass":
		if top {
			r.passed++
		}
	case "skip":
		reason := strings.TrimSpace(strings.Join(strings.FieldsFunc(said(output), func(c rune) bool { return c == '\n' }), " "))
		r.skips = append(r.skips, fmt.Sprintf("  %s %s: %s\n", e.Package, e.Test, reason))
		if strict && !r.allows(output) {
			r.verdict[e.Package] = true
			r.failed++
			fmt.Fprintf(r.out, "--- FAIL: %s %s was skipped: %s\n", e.Package, e.Test, reason)
			fmt.Fprintf(&r.reasons, "  %s %s was skipped: %s\n", e.Package, e.Test, reason)
		}
	}
}

// reason is how a test says why it fails; what follows on lines of their own is detail.
var reason = regexp.MustCompile(`^ +[a-z0-9_]+\.go:[0-9]+: `)

// said is a test's output without the lines that every test has.
func said(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if t := strings.TrimSpace(line); !strings.HasPrefix(t, "=== ") && !strings.HasPrefix(t, "--- ") {
			b.WriteString(t + "\n")
		}
	}
	return b.String()
}

func (r *run) allows(output string) bool {
	for _, e := range r.allowed {
		if e.MatchString(output) {
			return true
		}
	}
	return false
}

// end shows a package: its closing line, or everything when it fails otherwise
// than by a test.
func (r *run) end(e event) {
	own := r.output[e.Package][""]
	if e.Action == "fail" {
		if !r.verdict[e.Package] {
			r.failed++
			fmt.Fprintf(&r.reasons, "  %s\n", e.Package)
		}
		io.WriteString(r.out, own)
		r.unfinished(e.Package)
	} else {
		for line := range strings.Lines(own) {
			if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") {
				io.WriteString(r.out, line)
			}
		}
	}
	delete(r.output, e.Package)
}

func (r *run) unfinished(p string) {
	for test, output := range r.output[p] {
		if test != "" {
			io.WriteString(r.out, output)
		}
	}
}
