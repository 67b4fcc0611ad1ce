package td

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"carnet"
)

// kinds is a description with a property of each kind and constraint.
const kinds = `{"@context": "https://www.w3.org/2022/wot/td/v1.1", "title": "Kinds", "security": "n", "securityDefinitions": {"n": {"scheme": "nosec"}},
"properties": {
  "whole": {"type": "integer", "unit": "beats/min", "minimum": 0, "maximum": 200, "forms": [{"href": "x"}]},
  "open": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "forms": [{"href": "x"}]},
  "step": {"type": "number", "unit": "°C", "multipleOf": 0.1, "forms": [{"href": "x"}]},
  "grade": {"type": "number", "enum": [1, 2.5], "forms": [{"href": "x"}]},
  "fixed": {"type": "boolean", "const": true, "forms": [{"href": "x"}]},
  "word": {"type": "string", "minLength": 2, "maxLength": 3, "forms": [{"href": "x"}]},
  "mode": {"type": "string", "enum": ["day", "night"], "forms": [{"href": "x"}]},
  "blob": {"type": "string", "contentEncoding": "base64", "maxLength": 2, "forms": [{"href": "x"}]},
  "place": {"type": "object", "forms": [{"href": "x"}], "properties": {"lat": {"type": "number", "unit": "lat"}, "lon": {"type": "number", "unit": "lon"}}},
  "odd": {"type": "number", "unit": "furlong", "forms": [{"href": "x"}]}
}}`

func TestCheck(t *testing.T) {
	d := parse(t, []byte(kinds))
	f := carnet.Float
	for _, test := range []struct {
		name  string
		value carnet.Value
		unit  string
		code  carnet.Code // empty: accepted
		says  string      // in the reason, or the unit that it has then
	}{
		{"whole", f(60), "", "", "beat/min"},
		{"whole", f(60), "beat/min", "", "beat/min"},
		{"whole", f(60), "bpm", "", "beat/min"},
		{"whole", f(60), "unit:BEAT-PER-MIN", "", "beat/min"},
		{"whole", f(60), "1/min", carnet.WrongUnit, `whole has the unit "1/min", want "beat/min"`},
		{"whole", f(0), "", "", "beat/min"},
		{"whole", f(200), "", "", "beat/min"},
		{"whole", f(201), "", carnet.OutOfRange, "whole is 201 beat/min, want at least 0 beat/min and at most 200 beat/min"},
		{"whole", f(-1), "", carnet.OutOfRange, "whole is -1 beat/min"},
		{"whole", f(60.5), "", carnet.WrongType, "whole is 60.5 beat/min, want a whole number"},
		{"whole", f(math.NaN()), "", carnet.OutOfRange, "want a finite number"},
		{"whole", f(math.Inf(1)), "", carnet.OutOfRange, "want a finite number"},
		{"whole", carnet.String("60"), "", carnet.WrongType, "whole is a text, want a number; send it as v, a number without quotes (RFC 8428)"},
		{"whole", carnet.Bool(true), "", carnet.WrongType, "whole is a boolean, want a number"},
		{"open", f(0.5), "1", "", ""},
		{"open", f(0.5), "%", carnet.WrongUnit, `open has the unit "%", want none`},
		{"open", f(0), "", carnet.OutOfRange, "open is 0, want above 0 and below 1"},
		{"open", f(1), "", carnet.OutOfRange, "open is 1, want above 0 and below 1"},
		{"step", f(0.3), "Cel", "", "Cel"},
		{"step", f(-12.7), "degC", "", "Cel"},
		{"step", f(1234567.8), "", "", "Cel"},
		{"step", f(0.35), "", carnet.OutOfRange, "step is 0.35 Cel, want a multiple of 0.1"},
		{"step", f(1), "K", carnet.WrongUnit, "convert the value"},
		{"grade", f(2.5), "", "", ""},
		{"grade", f(2), "", carnet.OutOfRange, "grade is 2, want one of 1, 2.5"},
		{"fixed", carnet.Bool(true), "", "", ""},
		{"fixed", carnet.Bool(false), "", carnet.OutOfRange, "fixed is false, want one of true"},
		{"fixed", f(1), "", carnet.WrongType, "fixed is a number, want a boolean"},
		{"word", carnet.String("äöü"), "", "", ""},
		{"word", carnet.String("a"), "", carnet.OutOfRange, "word has 1 characters, want 2 to 3"},
		{"word", carnet.String("abcd"), "", carnet.OutOfRange, "word has 4 characters, want 2 to 3"},
		{"mode", carnet.String("night"), "", "", ""},
		{"mode", carnet.String("noon"), "", carnet.OutOfRange, `mode is "noon", want one of "day", "night"`},
		{"blob", carnet.Bytes([]byte{1, 2}), "", "", ""},
		{"blob", carnet.Bytes([]byte{1, 2, 3}), "", carnet.OutOfRange, "blob has 3 bytes, want 0 to 2"},
		{"blob", carnet.String("a"), "", carnet.WrongType, "blob is a text, want a data"},
		{"place/lat", f(1), "deg", "", "lat"},
		{"place/lon", f(1), "°", "", "lon"},
		{"place/lat", f(1), "lon", carnet.WrongUnit, `want "lat"`},
		{"odd", f(1), "furlong", "", "furlong"},
		{"odd", f(1), "m", carnet.WrongUnit, `want "furlong"`},
	} {
		p, ok := d.Lookup(test.name)
		if !ok {
			t.Fatalf("%s is not there", test.name)
		}
		m := carnet.Measurement{Name: test.name, Unit: test.unit, Value: test.value}
		err := d.Check(p, &m)
		switch {
		case err == nil && test.code == "":
			if m.Unit != test.says {
				t.Errorf("%s in %q has then the unit %q, want %q", test.name, test.unit, m.Unit, test.says)
			}
		case err == nil || err.Code != test.code || !strings.Contains(err.Error(), test.says):
			t.Errorf("%s = %v %s: %v", test.name, test.value, test.unit, err)
		case m.Unit != test.unit:
			t.Errorf("%s: a refused measurement was changed", test.name)
		}
	}
}

func TestUnknown(t *testing.T) {
	d := parse(t, Watch())
	for name, says := range map[string]string{
		"pulse":                  `"pulse" is not in the description of "Watch"; use one of heart_rate, steps`,
		"position":               "send its fields position/lat, position/lon",
		strings.Repeat("x", 500): `x…"`,
	} {
		if err := d.Unknown(name); err.Code != carnet.UnknownProperty || !strings.Contains(err.Error(), says) || len(err.Error()) > 400 {
			t.Errorf("%.20s: %v", name, err)
		}
	}
}

// records makes measurements from "name@time=value".
func records(list string) (ms []carnet.Measurement) {
	for _, s := range strings.Fields(list) {
		name, rest, _ := strings.Cut(s, "@")
		var at int64
		var v float64
		fmt.Sscanf(rest, "%d=%f", &at, &v)
		ms = append(ms, carnet.Measurement{Name: name, Time: at, Value: carnet.Float(v)})
	}
	return ms
}

func TestArrange(t *testing.T) {
	d := parse(t, []byte(strings.Replace(kinds, `{"lat"`, `{"height": {"type": "number"}, "lat"`, 1)))
	for _, test := range []struct {
		name, in, whole, rest, lacks string
	}{
		{"nothing", "", "", "", ""},
		{"no objects", "odd@1=1 open@1=1 odd@2=1", "odd@1=1 open@1=1 odd@2=1", "", ""},
		{"in order", "odd@1=1 place/height@1=1 place/lat@1=2 place/lon@1=3 open@1=1", "odd@1=1 place/height@1=1 place/lat@1=2 place/lon@1=3 open@1=1", "", ""},
		{"out of order", "place/lon@1=3 odd@1=1 place/height@1=1 open@1=1 place/lat@1=2", "place/height@1=1 place/lat@1=2 place/lon@1=3 odd@1=1 open@1=1", "", ""},
		{"times mixed", "place/lat@1=2 place/lat@2=5 place/height@2=4 place/lon@2=6 place/lon@1=3 place/height@1=1",
			"place/height@1=1 place/lat@1=2 place/lon@1=3 place/height@2=4 place/lat@2=5 place/lon@2=6", "", ""},
		{"two values at one time", "place/height@1=1 place/height@1=4 place/lat@1=2 place/lat@1=5 place/lon@1=3 place/lon@1=6",
			"place/height@1=1 place/lat@1=2 place/lon@1=3 place/height@1=4 place/lat@1=5 place/lon@1=6", "", ""},
		{"a field lacks", "odd@1=1 place/lat@1=2 open@1=1 place/lon@1=3", "odd@1=1 open@1=1", "place/lat@1=2 place/lon@1=3", "place/lat came without place/height at the same time"},
		{"a field of another time", "place/height@2=1 place/lat@1=2 place/lon@1=3", "", "place/height@2=1 place/lat@1=2 place/lon@1=3", "place/height came without place/lat at the same time"},
		{"one field too many", "place/height@1=1 place/lat@1=2 place/lon@1=3 place/lat@1=4", "place/height@1=1 place/lat@1=2 place/lon@1=3", "place/lat@1=4", "place/lat came without place/height at the same time"},
		{"unknown names", "x/y@1=1 z@1=1", "x/y@1=1 z@1=1", "", ""},
	} {
		ms := records(test.in)
		n, err := d.Arrange(ms)
		if !slices.Equal(ms[:n], records(test.whole)) || !slices.Equal(ms[n:], records(test.rest)) {
			t.Errorf("%s: whole %v, rest %v", test.name, ms[:n], ms[n:])
		}
		if (err == nil) != (test.lacks == "") || err != nil && (err.Code != carnet.Incomplete || err.Reason != test.lacks) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestArrangeAnyOrder shuffles whole values and wants them all back.
func TestArrangeAnyOrder(t *testing.T) {
	d := parse(t, Watch())
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		ms := watchPack(rng.IntN(20))
		rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		before := slices.Clone(ms)
		if n, err := d.Arrange(ms); n != len(ms) || err != nil {
			t.Fatalf("%d of %d: %v", n, len(ms), err)
		}
		for i := range ms {
			if ms[i].Name == "position/lat" && (ms[i+1].Name != "position/lon" || ms[i+1].Time != ms[i].Time) {
				t.Fatalf("%v is followed by %v", ms[i], ms[i+1])
			}
			if !slices.Contains(before, ms[i]) {
				t.Fatalf("%v was not there", ms[i])
			}
		}
	}
}

// A pack of one field of a large object, with many times, costs what the pack is large,
// not that times the object's fields.
func TestArrangingAlmostNothingOfALargeObject(t *testing.T) {
	var fields []string
	for i := range 1000 {
		fields = append(fields, fmt.Sprintf(`"f%d":{"type":"number"}`, i))
	}
	d := parse(t, []byte(strings.Replace(kinds, `"lat":`, strings.Join(fields, ",")+`,"lat":`, 1)))
	var ms []carnet.Measurement
	for i := range int64(10_000) {
		ms = append(ms, carnet.Measurement{Name: "place/f1", Time: i})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := d.Arrange(ms)
	runtime.ReadMemStats(&after)
	if n != 0 || err == nil || err.Reason != "place/f1 came without place/f0 at the same time" {
		t.Errorf("%d are whole, %v", n, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("arranging took %d bytes", took)
	}
}

// watchPack is what the watch sends in some seconds.
func watchPack(seconds int) (ms []carnet.Measurement) {
	for i := range int64(seconds) {
		for _, m := range []carnet.Measurement{
			{Name: "heart_rate", Unit: "bpm", Value: carnet.Float(120)},
			{Name: "steps", Value: carnet.Float(4000)},
			{Name: "stress", Value: carnet.Float(30)},
			{Name: "speed", Unit: "m/s", Value: carnet.Float(2.8)},
			{Name: "altitude", Unit: "m", Value: carnet.Float(35.6)},
			{Name: "cadence", Value: carnet.Float(82)},
			{Name: "position/lat", Unit: "lat", Value: carnet.Float(55.47)},
			{Name: "position/lon", Unit: "lon", Value: carnet.Float(8.48)},
			{Name: "temperature", Value: carnet.Float(24)},
		} {
			m.Time = i
			ms = append(ms, m)
		}
	}
	return ms
}

// accept is what an agent does with a pack.
func accept(tb testing.TB, d *Description, ms []carnet.Measurement) {
	for i := range ms {
		p, ok := d.Lookup(ms[i].Name)
		if !ok {
			tb.Fatal(d.Unknown(ms[i].Name))
		}
		if err := d.Check(p, &ms[i]); err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := d.Arrange(ms); err != nil {
		tb.Fatal(err)
	}
}

func TestAcceptingDoesNotAllocate(t *testing.T) {
	d, pack := parse(t, Watch()), watchPack(10)
	ms := slices.Clone(pack)
	if n := testing.AllocsPerRun(100, func() { copy(ms, pack); accept(t, d, ms) }); n != 0 {
		t.Errorf("%v allocations for %d measurements", n, len(ms))
	}
}

func BenchmarkAccept(b *testing.B) {
	d, pack := parse(b, Watch()), watchPack(10)
	ms := slices.Clone(pack)
	b.ReportAllocs()
	for b.Loop() {
		copy(ms, pack)
		accept(b, d, ms)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ms)), "ns/measurement")
}

func BenchmarkArrangeShuffled(b *testing.B) {
	d, pack := parse(b, Watch()), watchPack(100)
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(pack), func(i, j int) { pack[i], pack[j] = pack[j], pack[i] })
	ms := slices.Clone(pack)
	for b.Loop() {
		copy(ms, pack)
		if _, err := d.Arrange(ms); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ms)), "ns/measurement")
}

func BenchmarkParseWatch(b *testing.B) {
	for b.Loop() {
		if _, err := Parse(Watch()); err != nil {
			b.Fatal(err)
		}
	}
}
