package file

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/td"
)

// dataDir finds the shared recordings, which are no part of the repository.
func dataDir(t *testing.T, path string) string {
	t.Helper()
	dir := os.Getenv("CARNET_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, path)
	if _, err := os.Stat(dir); err != nil {
		t.Skip("shared data not present")
	}
	return dir
}

func open(t *testing.T, path string) *Recording {
	t.Helper()
	rec, err := Open(path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return rec
}

// count returns how many measurements each property has.
func count(recs ...*Recording) map[string]int {
	n := make(map[string]int)
	for _, rec := range recs {
		for i := range rec.Measurements {
			n[rec.Measurements[i].Name]++
		}
	}
	return n
}

func description(t *testing.T, text []byte) *td.Description {
	t.Helper()
	d, err := td.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// accepted holds every measurement to a description.
func accepted(t *testing.T, d *td.Description, rec *Recording) {
	t.Helper()
	for i := range rec.Measurements {
		m := &rec.Measurements[i]
		p, ok := d.Lookup(m.Name)
		if !ok {
			t.Fatalf("%s: %v", rec.Name, d.Unknown(m.Name))
		}
		if m.Unit != p.Unit {
			t.Fatalf("%s: %s has the unit %q, the description %q", rec.Name, m.Name, m.Unit, p.Unit)
		}
		if err := d.Check(p, m); err != nil {
			t.Fatalf("%s: %v", rec.Name, err)
		}
		if i > 0 && m.Time < rec.Measurements[i-1].Time {
			t.Fatalf("%s: measurement %d is earlier than the one before", rec.Name, i)
		}
	}
	if _, err := d.Arrange(rec.Measurements); err != nil {
		t.Fatalf("%s: %v", rec.Name, err)
	}
}

// TestRealWatch reads three activities and two days of what a watch uploads.
func TestRealWatch(t *testing.T) {
	dir := dataDir(t, "garmin/datasets")
	watch := description(t, td.Watch())
	for _, part := range []struct {
		folder string
		files  int
		from   string // of the folder's measurements, within so many hours
		hours  time.Duration
		want   map[string]int
	}{
		{"activities/2019", 3, "2019-04-08", 24 * 11, map[string]int{"heart_rate": 6321, "speed": 6321, "altitude": 6321, "cadence": 6321, "position/lat": 6097, "position/lon": 6097}},
		{"general/2019/01/08", 42, "2019-01-07", 48, map[string]int{"heart_rate": 975, "steps": 83, "stress": 785}},
		{"general/2019/09/24", 56, "2019-09-23", 48, map[string]int{"heart_rate": 1204, "steps": 140, "stress": 866}},
	} {
		files, err := filepath.Glob(filepath.Join(dir, part.folder, "*.fit"))
		if err != nil || len(files) == 0 {
			t.Fatal(err)
		}
		from, err := time.Parse(time.DateOnly, part.from)
		if err != nil {
			t.Fatal(err)
		}
		var recs []*Recording
		for _, file := range files {
			rec := open(t, file)
			accepted(t, watch, rec)
			if len(rec.Measurements) > 0 && (rec.Start < from.UnixNano() || rec.End > from.Add(part.hours*time.Hour).UnixNano()) {
				t.Errorf("%s has measurements from %v to %v", file, time.Unix(0, rec.Start).UTC(), time.Unix(0, rec.End).UTC())
			}
			recs = append(recs, rec)
		}
		if n := backwards(recs); n > 1 {
			t.Errorf("%s: the steps go back %d times, want at midnight only", part.folder, n)
		}
		if got := count(recs...); len(files) != part.files || !reflect.DeepEqual(got, part.want) {
			t.Errorf("%s: %d files with %v, want %d with %v", part.folder, len(files), got, part.files, part.want)
		}
	}
}

// backwards counts how often the day's steps become fewer.
func backwards(recs []*Recording) (n int) {
	last := 0.0
	for _, rec := range recs {
		for _, m := range rec.Measurements {
			if m.Name == "steps" {
				if m.Value.Num < last {
					n++
				}
				last = m.Value.Num
			}
		}
	}
	return n
}

// TestFITEqualsCSV compares the three activities with the CSV that was made from
// them by other means.
func TestFITEqualsCSV(t *testing.T) {
	fits := dataDir(t, "garmin/datasets/activities/2019")
	csvs := dataDir(t, "garmin_csv")
	for _, id := range []string{"3537714464", "3555187649", "3567129165"} {
		fit, text := open(t, filepath.Join(fits, id+".fit")), open(t, filepath.Join(csvs, "activity_"+id+".csv"))
		if len(fit.Measurements) != len(text.Measurements) {
			t.Fatalf("%s: FIT has %v, CSV %v", id, count(fit), count(text))
		}
		for i := range fit.Measurements {
			a, b := fit.Measurements[i], text.Measurements[i]
			within := 0.0
			switch a.Name {
			case "position/lat", "position/lon":
				within = 5.1e-7 // the CSV has 6 decimal places
			case "altitude":
				within = 1e-12 // the CSV has 35.60000000000002 for 35.6
			}
			if a.Name != b.Name || a.Unit != b.Unit || a.Time != b.Time || math.Abs(a.Value.Num-b.Value.Num) > within {
				t.Fatalf("%s: measurement %d is %v in FIT, %v in CSV", id, i, a, b)
			}
		}
	}
}

// golden reads one of the CSV files that python-fitparse compares itself with.
func golden(t *testing.T, path string) []map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]string
	for _, row := range rows[1:] {
		m := make(map[string]string)
		for i, h := range rows[0] {
			m[strings.TrimSpace(h)] = row[i]
		}
		list = append(list, m)
	}
	return list
}

func goldenTime(t *testing.T, row map[string]string) int64 {
	t.Helper()
	if raw, err := strconv.Atoi(row["Timestamp"]); err == nil { // seconds since it was switched on
		return (int64(raw) + fitEpoch) * int64(time.Second)
	}
	at, err := time.Parse("Mon Jan _2 15:04:05 -0700 2006", strings.Replace(row["timestamp"], "PDT", "-0700", 1))
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixNano()
}

func TestOtherDevices(t *testing.T) {
	dir := dataDir(t, "fitparse")
	semi := func(v float64) float64 { return degrees(int32(v)) }
	same := func(v float64) float64 { return v }
	for file, columns := range map[string]map[string]struct {
		name string
		of   func(float64) float64
	}{
		"garmin-fenix-5-run": {"heart_rate": {"heart_rate", same}, "cadence": {"cadence", same}, "speed": {"speed", same},
			"position_lat": {"position/lat", semi}, "position_long": {"position/lon", semi}, "altitude": {"altitude", same}, "temperature": {"temperature", same}},
		"garmin-fenix-5-walk": {"heart_rate": {"heart_rate", same}, "cadence": {"cadence", same}, "speed": {"speed", same},
			"position_lat": {"position/lat", semi}, "position_long": {"position/lon", semi}, "altitude": {"altitude", same}, "temperature": {"temperature", same}},
		"compressed-speed-distance": {"Heart Rate [bpm]": {"heart_rate", same}, "Speed [m/s]": {"speed", same}, "Cadence [rpm]": {"cadence", same}},
	} {
		rec := open(t, filepath.Join(dir, file+".fit"))
		got := make(map[string][]float64)
		for _, m := range rec.Measurements {
			got[m.Name] = append(got[m.Name], m.Value.Num)
		}
		rows := golden(t, filepath.Join(dir, file+"-records.csv"))
		if rec.Start != goldenTime(t, rows[0]) || rec.End != goldenTime(t, rows[len(rows)-1]) {
			t.Errorf("%s: from %v to %v, want %v to %v", file, rec.Start, rec.End, rows[0], rows[len(rows)-1])
		}
		for header, col := range columns {
			var want []float64
			for i, row := range rows {
				if row[header] == "null" || row[header] == "" || row[header] == "None" {
					continue
				}
				v, err := strconv.ParseFloat(row[header], 64)
				if err != nil {
					t.Fatalf("%s row %d: %v", file, i+1, err)
				}
				want = append(want, col.of(v))
			}
			if len(want) != len(got[col.name]) {
				t.Errorf("%s: %d values of %s, want %d", file, len(got[col.name]), col.name, len(want))
				continue
			}
			for i := range want {
				if math.Abs(want[i]-got[col.name][i]) > 1e-12 {
					t.Errorf("%s: %s %d is %v, want %v", file, col.name, i, got[col.name][i], want[i])
				}
			}
		}
	}
}

func TestRoom(t *testing.T) {
	rec := open(t, filepath.Join(dataDir(t, "occupancy"), "datatraining.txt"))
	accepted(t, description(t, td.Room()), rec)
	for name, n := range count(rec) {
		if n != 8143 {
			t.Errorf("%d values of %s, want 8143", n, name)
		}
	}
	first := carnet.Measurement{Name: "temperature", Unit: "Cel", Time: 1423072260e9, Value: carnet.Float(23.18)}
	if got := rec.Measurements[0]; got != first {
		t.Errorf("the first measurement is %v, want %v", got, first)
	}
}
