package demo

import (
	"testing"
	"time"

	"carnet"
	"carnet/wire/file"
)

func recording(start time.Time, seconds int) *file.Recording {
	r := &file.Recording{Name: "test", Start: start.UnixNano(), End: start.Add(time.Duration(seconds-1) * time.Second).UnixNano()}
	for i := range seconds {
		at := start.Add(time.Duration(i) * time.Second).UnixNano()
		r.Measurements = append(r.Measurements,
			carnet.Measurement{Name: "heart_rate", Time: at, Value: carnet.Float(60)},
			carnet.Measurement{Name: "speed", Time: at, Value: carnet.Float(1)})
	}
	return r
}

func TestARecordingEndsAtThePlannedEnd(t *testing.T) {
	old, begin := time.Date(2019, 1, 8, 10, 0, 0, 0, time.UTC), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name       string
		options    Options
		recordings []*file.Recording
		packs      int
		first      time.Time // of the claimed times
		last       time.Time
	}{
		{"as fast as possible it ends now", Options{}, []*file.Recording{recording(old, 100)}, 100, begin.Add(-99 * time.Second), begin},
		{"at its own speed it begins now", Options{Speed: 1}, []*file.Recording{recording(old, 100)}, 100, begin, begin.Add(99 * time.Second)},
		{"three times as fast it ends after a third", Options{Speed: 3}, []*file.Recording{recording(old, 100)}, 100, begin.Add(-66 * time.Second), begin.Add(33 * time.Second)},
		{"for a time its end is played", Options{Speed: 1, For: 10 * time.Second}, []*file.Recording{recording(old, 100)}, 11, begin, begin.Add(10 * time.Second)},
		{"kept times stay", Options{Times: "keep"}, []*file.Recording{recording(old, 100)}, 100, old, old.Add(99 * time.Second)},
		{"months between two become an hour", Options{}, []*file.Recording{recording(old.AddDate(0, 8, 0), 10), recording(old, 10)}, 20,
			begin.Add(-time.Hour - 18*time.Second), begin},
		{"what overlaps is sent together", Options{}, []*file.Recording{recording(old, 10), recording(old, 10)}, 10, begin.Add(-9 * time.Second), begin},
		{"nothing is nothing", Options{}, []*file.Recording{{}}, 0, time.Time{}, time.Time{}},
	} {
		ps := packs(row.recordings, row.options, begin)
		if len(ps) != row.packs {
			t.Errorf("%s: %d messages, want %d", row.name, len(ps), row.packs)
			continue
		}
		if row.packs == 0 {
			continue
		}
		first, last := time.Unix(0, ps[0].at), time.Unix(0, ps[len(ps)-1].at)
		if !first.Equal(row.first) || !last.Equal(row.last) {
			t.Errorf("%s: from %v to %v, want from %v to %v", row.name, first.UTC(), last.UTC(), row.first, row.last)
		}
		for _, p := range ps {
			for _, m := range p.measurements {
				if m.Time != p.at {
					t.Errorf("%s: a measurement of %d in a message of %d", row.name, m.Time, p.at)
				}
			}
		}
	}
}

func TestSpeeds(t *testing.T) {
	for text, want := range map[string]float64{"max": 0, "1": 1, "0.5": 0.5, "60": 60} {
		if got, err := ParseSpeed(text); err != nil || got != want {
			t.Errorf("speed %q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "fast", "1x", "inf", "nan"} {
		if _, err := ParseSpeed(text); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("speed %q is taken: %v", text, err)
		}
	}
}

// A room's recording is a room's, and a watch is there all the same.
func TestWhoseRecordings(t *testing.T) {
	ran := recording(time.Now(), 3)
	stood := &file.Recording{Measurements: []carnet.Measurement{{Name: "co2"}, {Name: "temperature"}}}
	both := sensors([]*file.Recording{ran, stood})
	if len(both) != 2 || both[0].name != "watch" || len(both[0].recordings) != 1 || both[1].name != "room" || len(both[1].recordings) != 1 {
		t.Errorf("of a run and a room there are %d sensors", len(both))
	}
	if alone := sensors([]*file.Recording{stood}); len(alone) != 2 || len(alone[0].recordings) != 0 {
		t.Errorf("of a room alone there are %d sensors", len(alone))
	}
	if alone := sensors(nil); len(alone) != 1 {
		t.Errorf("of nothing there are %d sensors", len(alone))
	}
}

// What isn't played of a recording is said, and nothing where all of it is.
func TestWhatIsntPlayedIsSaid(t *testing.T) {
	r := recording(time.Date(2019, 1, 8, 10, 0, 0, 0, time.UTC), 100)
	for _, row := range []struct {
		options Options
		want    string
	}{
		{Options{Speed: 1}, ""},
		{Options{For: time.Minute}, ""},
		{Options{Speed: 1, For: 10 * time.Second}, ", with 22 of the 200 measurements that were recorded, the last (--for plays longer, --speed max all)"},
	} {
		w := watch()
		w.recordings = append(w.recordings, r)
		s := &setup{devices: []*device{{sensor: w, packs: packs(w.recordings, row.options, time.Now())}}}
		if got := s.cut(); got != row.want {
			t.Errorf("%+v: %q, want %q", row.options, got, row.want)
		}
	}
}
