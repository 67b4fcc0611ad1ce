package audit

import (
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones are also known on a machine without zone files
)

// windows says when a property is shown, zone by zone; without zones always. A
// zone that is always open is left out.
type windows []zone

// zone is the open minutes of a week, Sunday 00:00 first.
type zone struct {
	place *time.Location
	open  *[7 * dayMinutes]bool
}

const (
	dayMinutes   = 24 * 60
	maxZones     = 8
	maxStretches = 64
)

// isOpen asks the wall clock of each zone.
func (w windows) isOpen(at int64) bool {
	for _, z := range w {
		local := time.Unix(0, at).In(z.place)
		if !z.open[int(local.Weekday())*dayMinutes+local.Hour()*60+local.Minute()] {
			return false
		}
	}
	return true
}

func parseWindows(node any) (windows, error) {
	zones, err := object(node)
	if err != nil || len(zones) < 1 || len(zones) > maxZones {
		return nil, malformed("windows must be an object of 1 to %d time zones", maxZones)
	}
	var w windows
	for name, item := range zones {
		place, err := time.LoadLocation(name)
		if err != nil || name == "" || name == "Local" {
			return nil, malformed("%.80q is no time zone", name)
		}
		list, ok := item.([]any)
		if !ok || len(list) > maxStretches {
			return nil, malformed("a time zone has at most %d stretches", maxStretches)
		}
		z := zone{place, new([7 * dayMinutes]bool)}
		for _, item := range list {
			text, _ := item.(string)
			if !z.add(text) {
				return nil, malformed("%.80q must be DAYS HH:MM-HH:MM", text)
			}
		}
		if slices.Contains(z.open[:], false) {
			w = append(w, z)
		}
	}
	return w, nil
}

// add opens a stretch, and reports whether the text is one.
func (z zone) add(text string) bool {
	days, times, _ := strings.Cut(text, " ")
	first, last, ok := parseDays(days)
	if len(times) != len("HH:MM-HH:MM") || times[5] != '-' || !ok {
		return false
	}
	from, to := parseMinute(times[:5]), parseMinute(times[6:])
	if from < 0 || to < 0 || from == dayMinutes || from == to {
		return false
	}
	if to < from {
		to += dayMinutes
	}
	for day := first; ; day = (day + 1) % 7 {
		for minute := from; minute < to; minute++ {
			z.open[(day*dayMinutes+minute)%len(z.open)] = true
		}
		if day == last {
			return true
		}
	}
}

func parseDays(text string) (first, last int, ok bool) {
	if text == "daily" {
		return 0, 6, true
	}
	from, to, dash := strings.Cut(text, "-")
	if !dash {
		to = from
	}
	first, last = parseDay(from), parseDay(to)
	return first, last, first >= 0 && last >= 0
}

func parseDay(text string) int {
	at := strings.Index("sun mon tue wed thu fri sat", text)
	if len(text) != 3 || at < 0 || at%4 != 0 {
		return -1
	}
	return at / 4
}

// parseMinute reads HH:MM from 00:00 to 24:00, and returns -1 for anything else.
func parseMinute(text string) int {
	digits := text[:2] + text[3:]
	if text[2] != ':' || strings.Trim(digits, "0123456789") != "" {
		return -1
	}
	hour, minute := int(digits[0]-'0')*10+int(digits[1]-'0'), int(digits[2]-'0')*10+int(digits[3]-'0')
	if minute > 59 || hour*60+minute > dayMinutes {
		return -1
	}
	return hour*60 + minute
}
