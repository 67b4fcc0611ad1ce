package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Figure is one figure beside what it should be.
type Figure struct {
	Row   int     `json:"row"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Peer is what the peer reached in the same minute, and Ratio what the goal is
	// about where there is one: Value / Peer.
	Peer  float64 `json:"peer,omitempty"`
	Ratio float64 `json:"ratio,omitempty"`
	// Goal is what is to be reached: at least Goal, or at most with AtMost. 0: none.
	Goal   float64 `json:"goal,omitempty"`
	AtMost bool    `json:"at_most,omitempty"`
	// Raw is every number measured, and Note what must be known to read them.
	Raw  map[string]float64 `json:"raw,omitempty"`
	Note string             `json:"note,omitempty"`

	Surroundings Surroundings `json:"surroundings"`
}

// met says whether the goal is reached.
func (f *Figure) met() string {
	v := f.Value
	if f.Peer > 0 {
		v = f.Ratio
	}
	switch {
	case f.Goal == 0:
		return ""
	case f.AtMost && v <= f.Goal, !f.AtMost && v >= f.Goal:
		return "yes"
	}
	return "NO"
}

func (f *Figure) goal() string {
	sign, times := "≥", ""
	if f.AtMost {
		sign = "≤"
	}
	if f.Peer > 0 {
		times = " ×"
	}
	if f.Goal == 0 {
		return ""
	}
	return sign + " " + number(f.Goal) + times
}

// print writes the figure with its raw numbers.
func (f *Figure) print(w io.Writer) {
	fmt.Fprintf(w, "  %s: %s %s", f.Name, number(f.Value), f.Unit)
	if f.Peer > 0 {
		fmt.Fprintf(w, ", peer %s, ratio %s", number(f.Peer), number(f.Ratio))
	}
	fmt.Fprintln(w)
	for _, k := range slices.Sorted(maps.Keys(f.Raw)) {
		fmt.Fprintf(w, "    %-34s %s\n", k, number(f.Raw[k]))
	}
	if f.Note != "" {
		fmt.Fprintf(w, "    %s\n", f.Note)
	}
}

// table writes all figures, one a line.
func table(w io.Writer, figures []Figure) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\tfigure\tvalue\tpeer\tratio\tgoal\tmet\tload\tfsync/s")
	for _, f := range figures {
		peer, ratio := "", ""
		if f.Peer > 0 {
			peer, ratio = number(f.Peer), number(f.Ratio)
		}
		fmt.Fprintf(t, "%d\t%s\t%s %s\t%s\t%s\t%s\t%s\t%.1f\t%.0f\n", f.Row, f.Name, number(f.Value), f.Unit, peer, ratio, f.goal(), f.met(),
			f.Surroundings.Load, f.Surroundings.Fsync)
	}
	t.Flush()
}

// number writes three or four digits that matter, thousands apart.
func number(v float64) string {
	switch {
	case v != v:
		return "?"
	case v >= 1000:
		s := fmt.Sprintf("%.0f", v)
		var parts []string
		for len(s) > 3 {
			parts, s = append(parts, s[len(s)-3:]), s[:len(s)-3]
		}
		slices.Reverse(parts)
		return strings.Join(append([]string{s}, parts...), ",")
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// middle is the median.
func middle(vs []float64) float64 {
	vs = slices.Sorted(slices.Values(vs))
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

// quantile of sorted values.
func quantile[T any](sorted []T, q float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
