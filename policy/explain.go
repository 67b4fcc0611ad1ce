package policy

import (
	"fmt"
	"strings"
	"time"
)

// Explain says v for people, a line for each thing it says: first what is
// shown and withheld of props, then for what, where and how long. Without
// props it says what v names, without units.
func (v View) Explain(props []Property) []string {
	units, described := map[string]string{}, map[string]bool{}
	var lines []string
	for _, p := range props {
		units[p.Name] = p.Unit
		described[p.Name] = true
		object, _, _ := strings.Cut(p.Name, "/")
		described[object] = true
	}
	for _, name := range v.names() {
		line := name + ": " + v.Properties[name].explain(units[name])
		if len(props) > 0 && !described[name] {
			line = name + ": the thing has no such property"
		}
		lines = append(lines, line)
	}
	for _, p := range props {
		if _, _, ok := v.property(p.Name); !ok {
			lines = append(lines, p.Name+": withheld")
		}
	}
	return append(lines, v.explainRest()...)
}

func (pv PropertyView) explain(unit string) string {
	if unit == "1" { // SenML's "no unit" (RFC 8428 §12.1)
		unit = ""
	}
	if unit != "" {
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
		return "exact"
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
