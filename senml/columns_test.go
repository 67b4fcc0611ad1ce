package senml_test

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"

	"carnet"
	"carnet/senml"
)

// columnVectors are the examples of docs/design/senml.md, byte by byte.
var columnVectors = []struct {
	name, hex string
	ms        []carnet.Measurement
}{
	{"nothing", "10 00", nil},
	{"one", "10 01 80e4ad950d | 02 6872 38 09 7a",
		[]carnet.Measurement{num("hr", "beat/min", now, 61)}},
	{"fifteen places", "10 01 80e4ad950d | 01 61 00 a9 0f 02",
		[]carnet.Measurement{num("a", "", now, 1e-15)}},
	{"two with a step", "10 02 80e4ad950d 05 | 02 6872 38 09 04 00 0a 7a 05",
		[]carnet.Measurement{num("hr", "beat/min", now, 61), num("hr", "beat/min", now+5e9, 58)}},
	{"two columns at the same times", "14 04 80e4ad950d dc0b | 01 61 00 21 02 05 00 b817 02 02 | 01 62 62 c2b043 1a 01",
		[]carnet.Measurement{
			num("a", "", now, 0.1), num("a", "", now+1500e6, 0.2),
			{Name: "b", Unit: "°C", Time: now, Value: carnet.Bool(true)},
			{Name: "b", Unit: "°C", Time: now + 1500e6, Value: carnet.Bool(false)}}},
}

func TestColumnVectors(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	for _, v := range columnVectors {
		want := strings.NewReplacer(" ", "", "|", "").Replace(v.hex)
		if got := hex.EncodeToString(senml.AppendColumns(nil, v.ms)); got != want {
			t.Errorf("%s is written %s, want %s", v.name, got, want)
		}
		pack, err := hex.DecodeString(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := d.Decode(nil, senml.Columns, pack, 0); err != nil || !same(got, v.ms) {
			t.Errorf("%s: got %v (%v), want %v", v.name, got, err, v.ms)
		}
	}
}

// TestRefusedColumns: a second way to write the same is refused.
func TestRefusedColumns(t *testing.T) {
	for _, c := range []struct{ hex, want string }{
		{"", "found the end"},
		{"20 00", "version 1"},
		{"11 00", "nothing after a count of 0"},
		{"10 00 00", "nothing after a count of 0"},
		{"10 8100 80e4ad950d 02 6872 38 09 7a", "shortest form"},
		{"10 0a 80e4ad950d 2d 02 6872 38 09 04 00 0a fa00 02 02 02 02 02 02 02 02 02", "shortest form"},
		{"10 ff01 80e4ad950d 02 6872 38 09 7a", "as many measurements as"},
		{"14 01 80e4ad950d 02 6872 38 09 7a", "no unit of a span"},
		{"11 01 80a0d5edee66 02 6872 38 09 7a", "largest unit that divides it"},
		{"10 01 80e4ad950d 02 6872 38 09 7a 00", "nothing after the last column"},
		{"10 01 80e4ad950d 02 682d 38 09", "variable-length"},
		{"10 01 80e4ad950d 02 2d68 38 09 7a", "§4.5.1"},
		{"10 01 80e4ad950d 02 6872 5f 09 7a", "a known unit"},
		{"10 01 80e4ad950d 02 6872 60 6d 09 7a", "without a code"},
		{"10 01 80e4ad950d 02 6872 38 01 01 7a", "leaves something for the last"},
		{"10 01 80e4ad950d 02 6872 38 19 7a", "times of its own"},
		{"10 01 80e4ad950d 02 6872 38 08 7a", "a kind from 1 to 4"},
		{"10 01 80e4ad950d 02 6872 38 29 14", "fewest places"},
		{"10 01 80e4ad950d 02 6872 38 a9 04 7a", "from 5 to 15 places"},
		{"10 01 80e4ad950d 02 6872 38 c9 00007442", "shortest form that holds"},
		{"10 01 80e4ad950d 02 6872 38 e9 000000000000f87f", "neither NaN"},
		{"10 01 80e4ad950d 02 6872 38 0a 02", "zeros after the last boolean"},
		{"10 01 80e4ad950d 02 6872 38 2a 01", "a form for numbers only"},
		{"10 01 80e4ad950d 02 6872 38 0b 01ff", "text in UTF-8"},
		{"10 02 80e4ad950d 05 02 6872 38 09 00 00 0a 7a 05", "equal steps written once"},
		{"10 02 80e4ad950d 05 02 6872 38 09 05 00 904e 7a 05", "largest unit that divides all"},
		{"10 03 80e4ad950d 05 02 6872 38 09 01 00 d00f c03e 7a 05 05", "largest unit that divides all"},
		{"10 02 80e4ad950d 05 02 6872 38 09 04 00 0c 7a 05", "within the span"},
		{"10 02 80e4ad950d 05 02 6872 38 09 04 00 08 7a 05", "the first and the last time"},
		{"10 02 80e4ad950d 05 02 6872 38 09 08 00 0a 7a 05", "a time byte"},
		{"10 02 80e4ad950d 00 02 6872 38 01 01 02 02 6872 38 09 02", "each column once"},
		{"10 04 80e4ad950d 05 01 61 00 01 02 04 00 0a 02 02 01 62 00 09 04 00 0a 02 02", "by reference"},
	} {
		pack, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		if err != nil {
			t.Fatal(c.hex, err)
		}
		expectRefusal(t, senml.Columns, pack, carnet.Malformed, c.want)
	}
}

// TestColumnsCut: no prefix of a batch is a batch.
func TestColumnsCut(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	for _, ms := range columnSamples() {
		pack := senml.AppendColumns(nil, ms)
		for n := range pack {
			got, err := d.Decode(nil, senml.Columns, pack[:n], 0)
			if err == nil {
				t.Fatalf("%d of %d bytes give %v", n, len(pack), got)
			}
			checked(t, d, pack[:n], got, err)
		}
	}
}

// TestColumnsChanged: a batch with any one byte changed is refused, or is the
// one encoding of other content.
func TestColumnsChanged(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	accepted := 0
	for _, ms := range columnSamples() {
		pack := senml.AppendColumns(nil, ms)
		for i := range pack {
			was := pack[i]
			for x := 1; x < 256; x++ {
				pack[i] = was ^ byte(x)
				got, err := d.Decode(nil, senml.Columns, pack, 0)
				checked(t, d, pack, got, err)
				if err != nil {
					continue
				}
				accepted++
				if again := senml.AppendColumns(nil, got); string(again) != string(pack) {
					t.Fatalf("%x is taken and is written %x", pack, again)
				}
			}
			pack[i] = was
		}
	}
	if accepted == 0 {
		t.Error("no change was accepted: the test shows nothing")
	}
}

// columnSamples use every form of times and values.
func columnSamples() map[string][]carnet.Measurement {
	times := []int64{now, now + 1, now - 1e6, now + 5e9, math.MinInt64, math.MaxInt64, 0, -1e9}
	vals := map[string][]float64{
		"integers": {1, -2, 1e14, 0}, "places": {0.1, 55.477931, -3e-7, 12}, "fifteen": {1e-15, 0.5},
		"float32": {float64(float32(0.1)), 1e30 * 0, float64(math.MaxFloat32)}, "float64": {math.Pi, 1e300},
		"negative zero": {0, math.Copysign(0, -1)}, "too long": {1e15, 0.1},
	}
	samples := map[string][]carnet.Measurement{"watch": watch(50)}
	for name, vs := range vals {
		var ms []carnet.Measurement
		for i, v := range vs {
			ms = append(ms, num("a", "m", times[i], v), num("b", "°", times[i+4], v))
		}
		samples[name] = ms
	}
	samples["others"] = []carnet.Measurement{
		{Name: "x", Time: 5, Value: carnet.String("é")}, {Name: "x", Time: 5, Value: carnet.Bytes([]byte{0xff})},
		{Name: "x", Time: 5, Value: carnet.Bool(true)}, {Name: "x", Time: 5, Value: carnet.String("")},
	}
	return samples
}

// TestColumnsFarApart: steps that go around the range of numbers are read as they
// are written, in their own unit.
func TestColumnsFarApart(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	for _, times := range [][]int64{
		// Offsets of whole microseconds, and one that isn't.
		{math.MaxInt64 - 615, math.MinInt64 + 384, math.MinInt64, math.MaxInt64},
		{math.MaxInt64 - 615, math.MinInt64 + 385, math.MinInt64, math.MaxInt64},
	} {
		var ms []carnet.Measurement
		for i, name := range []string{"a", "a", "b", "b"} {
			ms = append(ms, num(name, "m", times[i], 1))
		}
		pack := senml.AppendColumns(nil, ms)
		if got, err := d.Decode(nil, senml.Columns, pack, 0); err != nil || !same(got, ms) {
			t.Errorf("%x is read %v (%v), want %v", pack, got, err, ms)
		}
	}
}

// TestColumnsForgotten: the times of one batch are not those of a column before
// the first of the next.
func TestColumnsForgotten(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	two := senml.AppendColumns(nil, []carnet.Measurement{num("hr", "beat/min", now, 61), num("hr", "beat/min", now+5e9, 58)})
	if _, err := d.Decode(nil, senml.Columns, two, 0); err != nil {
		t.Fatal(err)
	}
	pack, err := hex.DecodeString("100280e4ad950d05" + "02687238" + "19" + "7a05")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Decode(nil, senml.Columns, pack, 0); err == nil || !strings.Contains(err.Error(), "times of its own") {
		t.Errorf("got %v (%v), want a refusal", got, err)
	}
}

// checked holds CheckColumns to Decode: it refuses the same for the same reason,
// and answers the range of what was decoded.
func checked(t *testing.T, d *senml.Decoder, pack []byte, got []carnet.Measurement, err error) {
	t.Helper()
	n, first, last, checkErr := d.CheckColumns(pack)
	if err != nil {
		if checkErr == nil || checkErr.Error() != err.Error() {
			t.Fatalf("%x is refused by Decode (%v), and by CheckColumns %v", pack, err, checkErr)
		}
		return
	}
	var from, to int64
	for i, m := range got {
		if i == 0 {
			from, to = m.Time, m.Time
		}
		from, to = min(from, m.Time), max(to, m.Time)
	}
	if checkErr != nil || n != len(got) || first != from || last != to {
		t.Fatalf("%x: %d from %d to %d (%v), want %d from %d to %d", pack, n, first, last, checkErr, len(got), from, to)
	}
}

func TestColumnSamples(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	for name, ms := range columnSamples() {
		pack := senml.AppendColumns(nil, ms)
		got, err := d.Decode(nil, senml.Columns, pack, 0)
		if err != nil || !same(got, grouped(ms)) {
			t.Errorf("%s: got %v (%v), want %v", name, got, err, grouped(ms))
		}
		first, last := int64(math.MaxInt64), int64(math.MinInt64)
		for _, m := range ms {
			first, last = min(first, m.Time), max(last, m.Time)
		}
		if n, f, l, err := senml.ColumnsRange(pack); n != len(ms) || f != first || l != last || err != nil {
			t.Errorf("%s: range %d %d %d (%v), want %d %d %d", name, n, f, l, err, len(ms), first, last)
		}
	}
}

// TestManyColumns has more columns than are searched one by one, and more
// measurements than are grouped without memory.
func TestManyColumns(t *testing.T) {
	var ms []carnet.Measurement
	for i := range 3000 {
		ms = append(ms, num(fmt.Sprintf("p%d", i*7%501), "m", now+int64(i), float64(i)))
	}
	pack := senml.AppendColumns(nil, ms)
	got, err := senml.NewDecoder(senml.Limits{}).Decode(nil, senml.Columns, pack, 0)
	if err != nil || !same(got, grouped(ms)) {
		t.Errorf("got %d measurements (%v), want %d", len(got), err, len(ms))
	}
}
