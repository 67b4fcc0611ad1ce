package senml_test

import (
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"carnet"
	"carnet/senml"
)

// TestRefusedJSON: each pack is refused with a reason that has these words, and
// what was decoded before it is left as it was.
func TestRefusedJSON(t *testing.T) {
	deep := strings.Repeat("[", 17) + strings.Repeat("]", 17)
	var many strings.Builder
	for i := range 17 {
		many.WriteString(`,"x` + strings.Repeat("y", i) + `":0`)
	}
	for _, c := range []struct{ pack, want string }{
		{``, "record 1, character 1: want '[' at the start of the pack, found the end; send SenML: a list of measurements, such as [{\"n\":\"heart_rate\",\"v\":72}]"},
		{`{"n":"a","v":1}`, "want '['"},
		{`[{"n":"a","v":1}`, "',' or ']' after a record, found the end"},
		{`[{"n":"a","v":1},]`, "record 2, character 18: want '{'"},
		{"[{\"n\":\"a\",\"v\":1},\n {\"n\":\"a\" \"v\":1}]", "record 2, line 2, character 11: want ',' or '}'"},
		{`[{“n”:"a","v":1}]`, "record 1, character 3: want a string, found '“'"},
		{`[{"é":1,}]`, "record 1, character 9: want a string, found '}'"},
		{"[\xe4", "character 2: want '{' at the start of a record, found the byte 0xe4"},
		{`[{"n":"a","v":1}] x`, "nothing after the pack"},
		{`[{"n":"a","v":1,}]`, "want a string"},
		{`[{"n":"a" "v":1}]`, "',' or '}'"},
		{`[{"n":"a","v":1,"n":"b"}]`, "once"},
		{`[{"n":"a","v":1,"x":1,"x":2}]`, "once"},
		{`[{"n":"a","v":1,"\u0076":1}]`, "once"},
		{`[{"n":"a","v":1,"new_":1}]`, "must be understood"},
		{`[{"n":"a","v":1,"x":` + deep + `}]`, "16 levels"},
		{`[{"n":"a","v":1` + many.String() + `}]`, "16 unknown labels"},
		{`[{"n":"a","v":1,"x":{"y":1,}}]`, "want a string"},
		{`[{"n":"a","v":1,"x":nul}]`, "want a value"},
		{`[{"n":"a","v":01}]`, "want a number"},
		{`[{"n":"a","v":1e400}]`, "range of a float64"},
		{`[{"n":"a","v":"1"}]`, "want a number, found '\"'; a text goes in vs, and a number in v stands without quotation marks"},
		{`[{"n":"a","v":true}]`, "want a number, found 't'; true and false go in vb"},
		{`[{"n":"a","v":NaN}]`, "want a number"},
		{`[{"n":"a","vb":1}]`, "true or false"},
		{`[{"n":"a","vb":null}]`, "true or false"},
		{`[{"n":"a","vs":1}]`, "want a string, found '1'; a number goes in v"},
		{`[{"n":"a","vb":"yes"}]`, "true or false, found '\"'; a text goes in vs"},
		{`[{"n":"a","vd":"aGkgCg=="}]`, "base64url"},
		{`[{"n":"a","vd":"a+kg"}]`, "base64url"},
		{`[{"n":"a","vd":"aGkgCh"}]`, "base64url"}, // bits after the last byte
		{`[{"n":"a","vd":"aGkg\nCg"}]`, "base64url"},
		{"[{\"n\":\"a\",\"vs\":\"\x01\"}]", "no control character"},
		{"[{\"n\":\"a\",\"vs\":\"\xff\"}]", "valid UTF-8"},
		{`[{"n":"a","vs":"\ud800"}]`, "escape"},
		{`[{"n":"a","vs":"\udc00\ud800"}]`, "escape"},
		{`[{"n":"a","vs":"\x"}]`, "escape"},
		{`[{"n":"a"}]`, "no value"},
		{`[{"n":"a","v":1},{}]`, "record 2, character 18: no value"},
		{`[{"bn":"a"}]`, "without a record after"},
		{`[{"n":"a","s":1}]`, "sums are not taken"},
		{`[{"bs":1,"n":"a"}]`, "sums are not taken"},
		{`[{"n":"a","v":1,"vs":"x"}]`, "more than one of"},
		{`[{"v":1}]`, "no name"},
		{`[{"n":"-a","v":1}]`, "starting with a letter"},
		{`[{"n":"a b","v":1}]`, "§4.5.1"},
		{`[{"n":"é","v":1}]`, "§4.5.1"},
		{`[{"bn":"_","n":"a","v":1}]`, "§4.5.1"},
		{`[{"n":"a","u":"a\u0000","v":1}]`, "control character"},
		{`[{"n":"a","v":1,"t":1e10}]`, "1678 to 2262"},
		{`[{"n":"a","v":1,"t":9223372036.854775808}]`, "1678 to 2262"},
		{`[{"bt":9e9,"t":9e9,"n":"a","v":1}]`, "out of range"},
		{`[{"bv":1.7e308,"v":1.7e308,"n":"a"}]`, "out of range"},
		{`[{"bver":11,"n":"a","v":1}]`, "bver is 11"},
		{`[{"bver":0,"n":"a","v":1}]`, "bver is 0"},
		{`[{"bver":9.5,"n":"a","v":1}]`, "bver is 9.5"},
		{`[{"n":"a","v":1},{"bver":5,"n":"a","v":1}]`, "all must be equal"},
	} {
		expectRefusal(t, senml.JSON, []byte(c.pack), carnet.Malformed, c.want)
	}
}

func expectRefusal(t *testing.T, f senml.Format, pack []byte, code carnet.Code, words string) {
	t.Helper()
	before := []carnet.Measurement{num("kept", "", 1, 1)}
	got, err := senml.NewDecoder(senml.Limits{}).Decode(before, f, pack, now)
	if carnet.CodeOf(err) != code || !strings.Contains(err.Error(), words) {
		t.Errorf("%s %q: got error %v, want %s with %q", f, pack, err, code, words)
	}
	if !same(got, before) {
		t.Errorf("%s %q: refused, but gave %v", f, pack, got)
	}
}

func TestRefusedCBOR(t *testing.T) {
	for _, c := range []struct{ pack, want string }{
		{"", "found the end"},
		{"a0", "an array of records, found major type 5"},
		{"81", "1 items, found the end"},
		{"9bffffffffffffffff", "items, found the end"},
		{"81a2006161020100", "nothing after the pack"},
		{"81a20061610201", ""}, // the smallest good pack, for the cases below
		{"9fa20061610201", "found the end"},
		{"81a300616102010201", "each label once"},
		{"81a30061610201637831", "found the end"},
		{"81a3006161020164781f5f5f00", "must be understood"},
		{"81a30061610201617600", "the integer label for"},
		{"81a30061610201181900", ""}, // an unknown label by number is ignored
		{"81a4006161020118190018190f", "each label once"},
		{"81a200616102f97e00", "found NaN"},
		{"81a200616102fa7f800000", "found +Inf"},
		{"81a200616102", "found the end"},
		{"81a2006161026131", "a number, found major type 3"},
		{"81a200616102c249010000000000000000", "a number"}, // a bignum
		{"81a200616104f6", "true or false"},
		{"81a2007f6161ff0201", "definite length"},
		{"81a20061ff0201", "valid UTF-8"},
		{"81a2006161034161", "a text of definite length"},
		{"81a2006161086161", "bytes of definite length"},
		{"81a3006161020106c482190400", "found the end"},
		{"81a3006161020106c4820300", ""},
		{"81a3006161020106c48201", "items, found the end"},
		{"81a300616102010601c0", "nothing after"},
		{"81a3006161020106fb7ff0000000000000", "+Inf"},
		{"81a30061610201061bffffffffffffffff", "1678 to 2262"},
		{"81a300616102012021", "an unsigned integer as bver"},
		{"81a30061610201200b", "bver is 11"},
		{"81a30061610201617881818181818181818181818181818181818100", "16 levels"},
		{"81a3006161020161781c", "RFC 8949"},
		{"81a300616102016178f81f", "simple value"},
		{"81a3006161020161785f6161ff", "a piece of the same type"},
		{"81a3006161020161785f4161ff", ""},
	} {
		pack, err := hex.DecodeString(c.pack)
		if err != nil {
			t.Fatal(c.pack, err)
		}
		if c.want != "" {
			expectRefusal(t, senml.CBOR, pack, carnet.Malformed, c.want)
		} else if ms, err := senml.NewDecoder(senml.Limits{}).Decode(nil, senml.CBOR, pack, now); err != nil || len(ms) != 1 {
			t.Errorf("%s: got %v (%v), want one measurement", c.pack, ms, err)
		}
	}
}

func TestRefusedXML(t *testing.T) {
	const open, end = `<sensml xmlns="urn:ietf:params:xml:ns:senml">`, `</sensml>`
	for _, c := range []struct{ pack, want string }{
		{``, "want XML"},
		{`<sensml/>`, "namespace"},
		{open, "want XML"},
		{open + end + open + end, "want <sensml>"},
		{open + `text` + end, "no text"},
		{open + `<other/>` + end, "want <sensml> with <senml>"},
		{open + `<senml n="a" v="1"><senml n="a" v="1"/></senml>` + end, "want <sensml> with"},
		{`<!DOCTYPE x [<!ENTITY e "x">]>` + open + end, "document type"},
		{open + `<senml n="a" v="1" x_="1"/>` + end, "must be understood"},
		{open + `<senml n="a" n="b" v="1"/>` + end, "once"},
		{open + `<senml n="a" v="INF"/>` + end, "has no value of its type"},
		{open + `<senml n="a" v=" "/>` + end, "has no value of its type"},
		{open + `<senml n="a" vb="yes"/>` + end, "has no value of its type"},
		{open + `<senml n="a" vs="\q"/>` + end, "has no value of its type"},
		{open + `<senml n="a" vd="="/>` + end, "has no value of its type"},
		{open + `<senml bn="a"/>` + end, "without a record after"},
		{"<?xml version=\"1.0\" encoding=\"latin1\"?>" + open + end, "want XML in UTF-8"},
	} {
		expectRefusal(t, senml.XML, []byte(c.pack), carnet.Malformed, c.want)
	}
}

func TestLimits(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{Bytes: 400, Records: 2, Name: 5, Text: 40})
	for _, c := range []struct {
		ms   []carnet.Measurement
		want string
	}{
		{[]carnet.Measurement{num("a", "", now, 1), num("a", "", now, 1), num("a", "", now, 1)}, "limit"},
		{[]carnet.Measurement{num("abcdef", "", now, 1)}, "limit"},
		{[]carnet.Measurement{num("a", "abcdef", now, 1)}, "limit"},
		{[]carnet.Measurement{{Name: "a", Time: now, Value: carnet.String(strings.Repeat("x", 41))}}, "limit"},
		{[]carnet.Measurement{{Name: "a", Time: now, Value: carnet.Bytes(make([]byte, 41))}}, "limit"},
		{[]carnet.Measurement{{Name: "a", Time: now, Value: carnet.Bytes(make([]byte, 401))}}, "bytes, the limit is 400"},
	} {
		for _, f := range formats {
			pack, err := senml.Append(nil, f, c.ms)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = d.Decode(nil, f, pack, now); carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s of %v: got %v, want %s with %q", f, c.ms, err, carnet.TooLarge, c.want)
			}
		}
	}
}

// TestAppendRefuses: what a format can't carry is refused and dst is as it was.
func TestAppendRefuses(t *testing.T) {
	good := num("a", "", now, 1)
	with := func(change func(*carnet.Measurement)) carnet.Measurement {
		m := good
		change(&m)
		return m
	}
	for _, c := range []struct {
		m       carnet.Measurement
		columns bool // refused there, too
	}{
		{with(func(m *carnet.Measurement) { m.Name = "" }), true},
		{with(func(m *carnet.Measurement) { m.Name = "a b" }), true},
		{with(func(m *carnet.Measurement) { m.Unit = "\n" }), true},
		{with(func(m *carnet.Measurement) { m.Unit = "\xff" }), true},
		{with(func(m *carnet.Measurement) { m.Value.Num = math.NaN() }), true},
		{with(func(m *carnet.Measurement) { m.Value.Num = math.Inf(-1) }), true},
		{with(func(m *carnet.Measurement) { m.Value = carnet.Value{} }), true},
		{with(func(m *carnet.Measurement) { m.Value = carnet.Value{Kind: carnet.Boolean, Num: 2} }), true},
		{with(func(m *carnet.Measurement) { m.Value = carnet.String("\xff") }), true},
		{with(func(m *carnet.Measurement) { m.Time = 1<<28*1e9 - 1 }), false},
		{with(func(m *carnet.Measurement) { m.Time = math.MinInt64 }), false},
	} {
		if got := senml.Check(&c.m) != nil; got != c.columns {
			t.Errorf("Check of %v refuses: %v, want %v", c.m, got, c.columns)
		}
		for _, f := range formats {
			out, err := senml.Append([]byte("kept"), f, []carnet.Measurement{good, c.m})
			if want := c.columns || f != senml.Columns; (err != nil) != want {
				t.Errorf("%s of %v: got error %v, want one: %v", f, c.m, err, want)
			}
			if err != nil && (string(out) != "kept" || !strings.HasPrefix(err.Error(), "measurement 1: ")) {
				t.Errorf("%s of %v: refused with %v and gave %q", f, c.m, err, out)
			}
		}
	}
}

func TestFormatOf(t *testing.T) {
	for _, c := range []struct {
		contentType string
		first       byte
		want        senml.Format // 0: refused
	}{
		{"application/senml+json", 0, senml.JSON},
		{"Application/SenML+JSON ; charset=utf-8", 0, senml.JSON},
		{"application/json", '<', senml.JSON},
		{"application/senml+cbor", 0, senml.CBOR},
		{"application/cbor", 0, senml.CBOR},
		{"application/senml+xml;v=1", 0, senml.XML},
		{"text/plain", '[', 0},
		{"application/vnd.carnet.columns", 0x10, 0},
		{"", '[', senml.JSON},
		{"", '\n', senml.JSON},
		{"", 0x80, senml.CBOR},
		{"", 0x9f, senml.CBOR},
		{"", '<', senml.XML},
		{"", '{', 0},
		{"", 0x10, 0},
		{"", 0xa0, 0},
	} {
		got, err := senml.FormatOf(c.contentType, c.first)
		if got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("FormatOf(%q, %#x) = %v, %v; want %v", c.contentType, c.first, got, err, c.want)
		}
	}
	for _, f := range formats[:3] {
		if got, err := senml.FormatOf(f.ContentType(), 0); got != f || err != nil {
			t.Errorf("FormatOf(%q) = %v, %v", f.ContentType(), got, err)
		}
	}
}
