package senml_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"carnet"
	"carnet/senml"
)

var formats = []senml.Format{senml.JSON, senml.CBOR, senml.XML, senml.Columns}

// now is the time of receipt in tests: 2026-01-01T00:00:00Z.
const now = 1767225600 * int64(1e9)

func num(name, unit string, t int64, v float64) carnet.Measurement {
	return carnet.Measurement{Name: name, Unit: unit, Time: t, Value: carnet.Float(v)}
}

// shared is a file of the real data that tests may use when it's there.
func shared(t testing.TB, elem ...string) string {
	t.Helper()
	root := os.Getenv("CARNET_DATA")
	if root == "" {
		root = filepath.Join("..", "..", "shared", "data")
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skip("shared data not present")
	}
	return path
}

// watch is n measurements as a watch sends them: four properties in turn, each
// second.
func watch(n int) []carnet.Measurement {
	ms := make([]carnet.Measurement, n)
	for i := range ms {
		s := i / 4
		t := now + int64(s)*1e9
		switch i % 4 {
		case 0:
			ms[i] = num("heart_rate", "beat/min", t, float64(61+s*7%5))
		case 1:
			ms[i] = num("speed", "m/s", t, float64(1185+s*37%211)/1000)
		case 2:
			ms[i] = num("position/lat", "lat", t, float64(55477931+s*13)/1e6)
		case 3:
			ms[i] = num("position/lon", "lon", t, float64(8482856-s*17)/1e6)
		}
	}
	return ms
}

// recorded reads the measurements of a real run.
func recorded(t testing.TB) []carnet.Measurement {
	f, err := os.Open(shared(t, "garmin_csv", "activity_3537714464.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	columns := []struct {
		at         int
		name, unit string
	}{{1, "heart_rate", "beat/min"}, {2, "speed", "m/s"}, {6, "position/lat", "lat"}, {7, "position/lon", "lon"}}
	var ms []carnet.Measurement
	for _, row := range rows[1:] {
		s, err := strconv.ParseInt(row[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range columns {
			if v, err := strconv.ParseFloat(row[c.at], 64); err == nil {
				ms = append(ms, num(c.name, c.unit, s*1e9, v))
			}
		}
	}
	return ms
}

// grouped is what the column form makes of the order of ms.
func grouped(ms []carnet.Measurement) []carnet.Measurement {
	type key struct {
		name, unit string
		kind       carnet.Kind
	}
	var order []key
	by := map[key][]carnet.Measurement{}
	for _, m := range ms {
		k := key{m.Name, m.Unit, m.Value.Kind}
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], m)
	}
	var out []carnet.Measurement
	for _, k := range order {
		out = append(out, by[k]...)
	}
	return out
}
