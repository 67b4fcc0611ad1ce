package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"carnet"
)

// writeJSON writes one value for programs.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table is rows for people, the first one headings. Cells come from elsewhere,
// and must not steer the terminal.
type table [][]string

func (t *table) add(cells ...string) { *t = append(*t, cells) }

func (t table) write(w io.Writer) error {
	var text bytes.Buffer
	tw := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	columns := 0
	for _, row := range t {
		columns = max(columns, len(row))
	}
	for _, row := range t {
		cells := make([]string, columns) // all of them: a column ends at a row that hasn't it
		for i, cell := range row {
			cells[i] = plain(cell)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// list writes a list, or, where nothing is in it, that in words.
func (t table) list(s streams, none string) error {
	if len(t) == 1 {
		_, err := fmt.Fprintln(s.out, none)
		return err
	}
	return t.write(s.out)
}

// plain replaces what isn't printable.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// clock writes times as one sorts them.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.999Z")
}

func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return clock(*t)
}

func nanos(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000Z") }

// counts writes numbers by reason.
func counts[K ~string](m map[K]uint64) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s: %d", k, m[k]))
	}
	return strings.Join(list, ", ")
}

// number writes a count with its noun.
func number(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatUint(n, 10) + " " + many
}

// value writes a measured value for people.
func value(v carnet.Value) string {
	switch v.Kind {
	case carnet.Boolean:
		return strconv.FormatBool(v.Num != 0)
	case carnet.Text:
		return strconv.Quote(v.Str)
	case carnet.Data:
		return fmt.Sprintf("%d bytes", len(v.Str))
	}
	return strconv.FormatFloat(v.Num, 'f', -1, 64)
}

func unit(of string) string {
	switch of { // RFC 8428 §12.1
	case "", "1":
		return ""
	case "lat", "lon":
		return "°"
	}
	return " " + of
}
