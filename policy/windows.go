package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a view's zones also work on a machine without zone files

	"carnet"
)

const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
)

var days = [7]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// Windows says when: for each time zone, the stretches of a week that are
// open. A time is open when it is open in every zone named; the zero Windows
// is always open. Windows are canonical: equal meaning per zone, equal form.
type Windows struct{ zones []zoneWeek } // sorted by name; none of them all week

// zoneWeek is one zone's stretches: sorted, not touching each other.
type zoneWeek struct {
	name  string
	loc   *time.Location
	spans []span
}

// span is [from, to) in minutes since Monday 00:00, within one week.
type span struct{ from, to int }

// never is the canonical form of windows that are never open.
func never() Windows { return Windows{[]zoneWeek{{"UTC", time.UTC, nil}}} }

// ParseWindows reads zones (IANA names) with their stretches: "DAYS
// HH:MM-HH:MM" with DAYS "daily", a day "mon", or days "mon-fri"; an end at or
// before the start is on the day after.
func ParseWindows(zones map[string][]string) (Windows, error) {
	var w Windows
	for _, name := range slices.Sorted(maps.Keys(zones)) {
		if name == "" || name == "Local" {
			return Windows{}, carnet.Errorf(carnet.Malformed, "time zone %q: want an IANA name such as \"Europe/Oslo\" or \"UTC\"", name)
		}
		loc, err := time.LoadLocation(name)
		if err != nil {
			return Windows{}, carnet.Errorf(carnet.Malformed, "time zone %q is not known: want an IANA name such as \"Europe/Oslo\" or \"UTC\"", name)
		}
		var week [weekMinutes]bool
		for _, text := range zones[name] {
			if err := openStretch(&week, text); err != nil {
				return Windows{}, err
			}
		}
		w.zones = append(w.zones, zoneWeek{name, loc, spansOf(&week)})
	}
	return w.canonical(), nil
}

// canonical drops zones that are open all week, and makes windows with a zone
// that is never open the one form of never.
func (w Windows) canonical() Windows {
	w.zones = slices.DeleteFunc(w.zones, func(z zoneWeek) bool { return len(z.spans) == 1 && z.spans[0] == span{0, weekMinutes} })
	if slices.ContainsFunc(w.zones, func(z zoneWeek) bool { return len(z.spans) == 0 }) {
		return never()
	}
	if len(w.zones) == 0 {
		return Windows{}
	}
	return w
}

func openStretch(week *[weekMinutes]bool, text string) error {
	malformed := carnet.Errorf(carnet.Malformed, "window %q: want days and times such as \"daily 22:00-06:00\", \"mon 08:00-18:00\" or \"mon-fri 08:00-24:00\"", text)
	dayText, timeText, ok := strings.Cut(text, " ")
	fromText, toText, dashed := strings.Cut(timeText, "-")
	from, fromOK := parseClock(fromText)
	to, toOK := parseClock(toText)
	if !ok || !dashed || !fromOK || !toOK || from == dayMinutes || from == to {
		return malformed
	}
	if to < from {
		to += dayMinutes
	}
	first, last := 0, 6
	if dayText != "daily" {
		firstText, lastText, ranged := strings.Cut(dayText, "-")
		if !ranged {
			lastText = firstText
		}
		first, last = slices.Index(days[:], firstText), slices.Index(days[:], lastText)
		if first < 0 || last < 0 {
			return malformed
		}
		if last < first {
			last += 7
		}
	}
	for day := first; day <= last; day++ {
		for minute := from; minute < to; minute++ {
			week[(day*dayMinutes+minute)%weekMinutes] = true
		}
	}
	return nil
}

// parseClock reads HH:MM from 00:00 to 24:00.
func parseClock(s string) (minutes int, ok bool) {
	if len(s) != 5 || s[2] != ':' || strings.Trim(s[:2]+s[3:], "0123456789") != "" {
		return 0, false
	}
	hour, minute := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	minutes = hour*60 + minute
	return minutes, minute < 60 && minutes <= dayMinutes
}

func spansOf(week *[weekMinutes]bool) (spans []span) {
	for i := 0; i < weekMinutes; i++ {
		if !week[i] {
			continue
		}
		from := i
		for i < weekMinutes && week[i] {
			i++
		}
		spans = append(spans, span{from, i})
	}
	return spans
}

// meet returns the windows that are open when both are.
func (w Windows) meet(o Windows) Windows {
	zones := slices.Clone(w.zones)
	for _, z := range o.zones {
		i := slices.IndexFunc(zones, func(have zoneWeek) bool { return have.name == z.name })
		if i < 0 {
			zones = append(zones, z)
		} else {
			zones[i].spans = meetSpans(zones[i].spans, z.spans)
		}
	}
	slices.SortFunc(zones, func(a, b zoneWeek) int { return strings.Compare(a.name, b.name) })
	return Windows{zones}.canonical()
}

func meetSpans(a, b []span) (both []span) {
	for len(a) > 0 && len(b) > 0 {
		if from, to := max(a[0].from, b[0].from), min(a[0].to, b[0].to); from < to {
			both = append(both, span{from, to})
		}
		if a[0].to < b[0].to {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}

// Always reports whether w restricts nothing.
func (w Windows) Always() bool { return len(w.zones) == 0 }

// At reports whether w is open at t, and the stretch around t, [from, until),
// in which the answer holds; all in nanoseconds since the Unix epoch.
func (w Windows) At(t int64) (open bool, from, until int64) {
	open, from, until = true, math.MinInt64, math.MaxInt64
	for _, z := range w.zones {
		o, f, u := z.at(t)
		open, from, until = open && o, max(from, f), min(until, u)
	}
	return open, from, until
}

// at works in seconds of the zone's wall clock, whose offset to UTC is the
// same between two transitions of the zone.
func (z zoneWeek) at(t int64) (open bool, from, until int64) {
	const weekSeconds = weekMinutes * 60
	local := time.Unix(0, t).In(z.loc)
	_, offset := local.Zone()
	wall := local.Unix() + int64(offset) + 3*86400 // 1970-01-01 was a Thursday
	week := wall - floorMod(wall, weekSeconds)
	minute := int(floorMod(wall, weekSeconds) / 60)

	near, far := 0, weekMinutes // of the closed stretch, unless a span holds minute
	for _, s := range z.spans {
		if s.to <= minute {
			near = s.to
		} else if s.from <= minute {
			open, near, far = true, s.from, s.to
			break
		} else {
			far = s.from
			break
		}
	}
	toUTC := func(minute int) int64 { return nanos(week + int64(minute)*60 - 3*86400 - int64(offset)) }
	from, until = toUTC(near), toUTC(far)
	start, end := local.ZoneBounds()
	if !start.IsZero() {
		from = max(from, nanos(start.Unix()))
	}
	if !end.IsZero() {
		until = min(until, nanos(end.Unix()))
	}
	return open, from, until
}

// nanos turns seconds into nanoseconds, as far as an int64 goes.
func nanos(seconds int64) int64 {
	const limit = math.MaxInt64 / int64(time.Second)
	if seconds > limit {
		return math.MaxInt64
	}
	if seconds < -limit {
		return math.MinInt64
	}
	return seconds * int64(time.Second)
}

func floorMod(a, b int64) int64 { return ((a % b) + b) % b }

// stretches writes spans in the form that ParseWindows reads: cut at midnight,
// days with the same times joined.
func (z zoneWeek) stretches() []string {
	type times struct{ from, to int }
	on := map[times]*[8]bool{} // by weekday; the eighth stays false
	for _, s := range z.spans {
		for day := s.from / dayMinutes; day*dayMinutes < s.to; day++ {
			t := times{max(s.from-day*dayMinutes, 0), min(s.to-day*dayMinutes, dayMinutes)}
			if on[t] == nil {
				on[t] = new([8]bool)
			}
			on[t][day] = true
		}
	}
	type line struct {
		first int
		times
		text string
	}
	var lines []line
	for t, set := range on {
		for first := 0; first < 7; first++ {
			if !set[first] {
				continue
			}
			last := first
			for set[last+1] {
				last++
			}
			clock := fmt.Sprintf("%02d:%02d-%02d:%02d", t.from/60, t.from%60, t.to/60, t.to%60)
			lines = append(lines, line{first, t, dayRange(first, last) + " " + clock})
			first = last
		}
	}
	slices.SortFunc(lines, func(a, b line) int {
		return (a.first-b.first)*weekMinutes*2 + (a.from-b.from)*2 + strings.Compare(a.text, b.text)
	})
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.text
	}
	return texts
}

func dayRange(first, last int) string {
	switch {
	case first == 0 && last == 6:
		return "daily"
	case first == last:
		return days[first]
	}
	return days[first] + "-" + days[last]
}

// MarshalJSON writes the map that ParseWindows reads; always is {}.
func (w Windows) MarshalJSON() ([]byte, error) {
	zones := make(map[string][]string, len(w.zones))
	for _, z := range w.zones {
		zones[z.name] = z.stretches()
	}
	return json.Marshal(zones)
}

// IsZero makes an always open window absent from JSON.
func (w Windows) IsZero() bool { return w.Always() }

// String says w for people.
func (w Windows) String() string {
	if w.Always() {
		return "always"
	}
	var zones []string
	for _, z := range w.zones {
		if len(z.spans) == 0 {
			return "never"
		}
		zones = append(zones, strings.Join(z.stretches(), ", ")+" ("+z.name+")")
	}
	return strings.Join(zones, " and ")
}
