package policy

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWindowsAgreeWithTheCalendar compares At with the calendar of package
// time, around changes of summer time too.
func TestWindowsAgreeWithTheCalendar(t *testing.T) {
	w, err := ParseWindows(map[string][]string{
		"Europe/Oslo":         {"mon-fri 08:00-18:00", "sat 22:00-03:30"},
		"America/Los_Angeles": {"daily 00:00-10:30"},
	})
	if err != nil {
		t.Fatal(err)
	}
	oslo, la := w.zones[1].loc, w.zones[0].loc
	want := func(at time.Time) bool {
		o, l := at.In(oslo), at.In(la)
		clock := func(t time.Time) int { return t.Hour()*100 + t.Minute() }
		weekday := o.Weekday() >= time.Monday && o.Weekday() <= time.Friday
		return clock(l) < 1030 && (weekday && clock(o) >= 800 && clock(o) < 1800 ||
			o.Weekday() == time.Saturday && clock(o) >= 2200 || o.Weekday() == time.Sunday && clock(o) < 330)
	}
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]string{"1965-07-01", "2026-03-07", "2026-03-28", "2026-10-24", "2026-10-31", "2100-01-01"}).Draw(t, "base")
		start, err := time.Parse(time.DateOnly, base)
		if err != nil {
			t.Fatal(err)
		}
		at := start.Add(time.Duration(rapid.Int64Range(0, 10*24*3600).Draw(t, "seconds")) * time.Second)
		open, from, until := w.At(at.UnixNano())
		if open != want(at) {
			t.Fatalf("%s: open is %v", at.In(oslo), open)
		}
		if at.UnixNano() < from || at.UnixNano() >= until {
			t.Fatalf("%s is outside the stretch %d to %d around it", at, from, until)
		}
		inside := from + rapid.Int64Range(0, until-from-1).Draw(t, "inside")
		if open != want(time.Unix(0, inside)) {
			t.Fatalf("%s differs from %s, in one stretch", time.Unix(0, inside).In(oslo), at.In(oslo))
		}
	})
}

func TestWindowsAtTheEndsOfTime(t *testing.T) {
	w, err := ParseWindows(map[string][]string{"Europe/Oslo": {"daily 08:00-18:00"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{math.MinInt64, math.MaxInt64} {
		if _, from, until := w.At(at); from > at || until < at {
			t.Errorf("%d is outside the stretch %d to %d around it", at, from, until)
		}
	}
}

func TestMaySend(t *testing.T) {
	at := func(s string) time.Time {
		parsed, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	nightly := compile(t, openDoor, `{"properties":{},"send":{"Europe/Oslo":["daily 22:00-06:00"]}}`, clinic)
	if open, until := nightly.MaySend(at("2026-03-28T23:00:00+01:00")); !open || !until.Equal(at("2026-03-29T02:00:00+01:00")) {
		t.Errorf("at 23:00 open is %v until %s, want until the clocks change", open, until)
	}
	if open, until := nightly.MaySend(at("2026-03-28T12:00:00+01:00")); open || !until.Equal(at("2026-03-28T22:00:00+01:00")) {
		t.Errorf("at noon open is %v until %s", open, until)
	}
	if open, until := compile(t, openDoor, `{"properties":{}}`, clinic).MaySend(at("2026-03-28T12:00:00Z")); !open || !until.IsZero() {
		t.Errorf("without send, open is %v until %s", open, until)
	}
}
