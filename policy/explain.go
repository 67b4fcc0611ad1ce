package policy

import (
	"fmt"
	"strings"
	"time"
)

// Exact is said of what is shown as it was measured.
const Exact = "exact"

// Explain says for people what the reader receives of props, which are those
// that Compile was given: a line for each property with its result, the fields of
// an object in one where they share it; then for what, where and how long.
func (t *Table) Explain(props []Property) (lines []string) {
	done := make(map[uint16]bool)
	for i := range t.results {
		slot := t.entries[i].slot
		if done[slot] {
			continue
		}
		done[slot] = true
		fields := t.sharing(slot)
		if !t.together(fields) || !whole(t.slots[slot], fields, props) {
			for _, k := range fields {
				lines = append(lines, props[k].Name+": "+t.result(props[k], k))
			}
			continue
		}
		of := fields[0]
		for _, k := range fields {
			if t.results[of].Reason == Incomplete { // say what it is withheld for, not with
				of = k
			}
		}
		lines = append(lines, t.slots[slot]+": "+t.result(props[of], of))
	}
	return append(lines, t.view.explainRest()...)
}

// sharing lists the properties that share a slot.
func (t *Table) sharing(slot uint16) (fields []int) {
	for k := range t.entries {
		if t.entries[k].slot == slot {
			fields = append(fields, k)
		}
	}
	return fields
}

// together reports whether all fields are received, or none.
func (t *Table) together(fields []int) bool {
	for _, k := range fields {
		if t.results[k].Admit != t.results[fields[0]].Admit {
			return false
		}
	}
	return true
}

// whole reports whether the fields are all that props have of an object, or one
// leaf.
func whole(name string, fields []int, props []Property) bool {
	n := 0
	for _, p := range props {
		if object, _, _ := strings.Cut(p.Name, "/"); object == name || p.Name == name {
			n++
		}
	}
	return n == len(fields)
}

// How says how exactly a property is shown of those that Compile was given: nothing where
// it is withheld.
func (t *Table) How(props []Property, i int) string {
	if !t.results[i].Admit {
		return ""
	}
	return t.result(props[i], i)
}

// result says what becomes of one property.
func (t *Table) result(p Property, i int) string {
	if r := t.results[i]; !r.Admit {
		return "withheld: " + strings.TrimPrefix(r.Decision.Sentence, p.Name+" is withheld: ")
	}
	pv, _, _ := t.view.property(p.Name)
	return pv.Explain(p.Unit)
}

// Explain says for people how exactly a property is shown that has the unit.
func (pv PropertyView) Explain(unit string) string {
	switch unit { // RFC 8428 §12.1
	case "1":
		unit = "" // SenML's "no unit"
	case "lat", "lon":
		unit = "°"
	}
	if unit != "" && unit != "°" {
		unit = " " + unit
	}
	var parts []string
	if pv.Round != 0 {
		parts = append(parts, "nearest "+pv.Round.String()+unit)
	}
	if pv.PrecisionM != 0 {
		parts = append(parts, "to "+metres(pv.PrecisionM))
	}
	if pv.Rate != 0 {
		parts = append(parts, "at most one "+every(pv.Rate))
	}
	if pv.Deadband != 0 {
		parts = append(parts, "only changes of "+pv.Deadband.String()+unit+" or more")
	}
	if !pv.Windows.Always() {
		parts = append(parts, "measured "+pv.Windows.String())
	}
	if len(parts) == 0 {
		return Exact
	}
	return strings.Join(parts, ", ")
}

func (v View) explainRest() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	list := func(words []string) string {
		if len(words) == 0 {
			return "none at all"
		}
		return strings.Join(words, ", ")
	}
	if v.Purposes != "" {
		add("purposes: %s", list(words(v.Purposes)))
	}
	if v.Residency != "" {
		add("kept in: %s", list(words(v.Residency)))
	}
	if v.Store != "" {
		add("stored at: %s", list(words(v.Store)))
	}
	if v.Retention != 0 {
		add("retention: %s", v.Retention)
	}
	if !v.Send.Always() {
		add("sent: %s", v.Send)
	}
	return lines
}

func metres(m int) string {
	if m%1000 == 0 {
		return fmt.Sprintf("%d km", m/1000)
	}
	return fmt.Sprintf("%d m", m)
}

func every(d time.Duration) string {
	switch d {
	case time.Second:
		return "a second"
	case time.Minute:
		return "a minute"
	case time.Hour:
		return "an hour"
	case 24 * time.Hour:
		return "a day"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return "each " + text
}
