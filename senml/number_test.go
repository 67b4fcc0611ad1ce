package senml_test

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"carnet"
	"carnet/senml"

	"pgregory.net/rapid"
)

// numberText draws numbers and what is nearly one.
func numberText() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`-?[0-9]{1,24}(\.[0-9]{0,24})?([eE][+-]?[0-9]{0,3})?`),
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,9})(\.[0-9]{1,12})?`),
		rapid.StringMatching(`-?0\.0{0,22}[0-9]{1,22}(e[0-9])?`),
		rapid.StringMatching(`[-+.0-9eE]{1,8}`),
	)
}

// TestNumbers holds v to strconv and encoding/json, bit for bit.
func TestNumbers(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	rapid.Check(t, func(t *rapid.T) {
		text := numberText().Draw(t, "text")
		got, err := d.Decode(nil, senml.JSON, []byte(`[{"n":"a","v":`+text+`}]`), now)
		want, wantErr := strconv.ParseFloat(text, 64)
		if good := json.Valid([]byte(text)) && wantErr == nil; good != (err == nil) {
			t.Fatalf("%s: %v, want success: %v", text, err, good)
		} else if good && math.Float64bits(got[0].Value.Num) != math.Float64bits(want) {
			t.Fatalf("%s is %v, want %v", text, got[0].Value.Num, want)
		}
	})
}

// TestTimes holds t to exact arithmetic: the nearest nanosecond, half away from
// zero, in JSON and in XML.
func TestTimes(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	rapid.Check(t, func(t *rapid.T) {
		text := numberText().Draw(t, "text")
		got, err := d.Decode(nil, senml.JSON, []byte(`[{"n":"a","v":1,"t":`+text+`}]`), 0)
		want, ok := exactNanos(text)
		if ok = ok && json.Valid([]byte(text)); ok != (err == nil) {
			t.Fatalf("%s: %v, want success: %v", text, err, ok)
		}
		if ok && got[0].Time != want {
			t.Fatalf("%s s is %d ns, want %d", text, got[0].Time, want)
		}
		pack := `<sensml xmlns="urn:ietf:params:xml:ns:senml"><senml n="a" v="1" t="+` + text + `"/></sensml>`
		if text[0] == '-' || !ok {
			return
		}
		if got, err = d.Decode(nil, senml.XML, []byte(pack), 0); err != nil || got[0].Time != want {
			t.Fatalf("+%s s in XML is %v (%v), want %d ns", text, got, err, want)
		}
	})
}

func exactNanos(text string) (int64, bool) {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, false
	}
	r.Mul(r, big.NewRat(1e9, 1))
	half := big.NewRat(int64(r.Sign()), 2)
	r.Add(r, half)
	q := new(big.Int).Quo(r.Num(), r.Denom()) // towards zero
	return q.Int64(), q.IsInt64() && q.Int64() != math.MinInt64
}

// TestTimesRounded: digits finer than a nanosecond.
func TestTimesRounded(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	for text, want := range map[string]int64{
		"0.0000000005":                   1,
		"0.00000000049999":               0,
		"-0.0000000005":                  -1,
		"0.0000000015":                   2,
		"1767225600.1234567895":          1767225600123456790,
		"1767225600.12345678949999999":   1767225600123456789,
		"1767225600123456789.5e-9":       1767225600123456790,
		"17672256001234567895000.0e-13":  1767225600123456790,
		"-0.30000000000000004":           -3e8,
		"9223372036.8547758070000000001": 9223372036854775807,
	} {
		got, err := d.Decode(nil, senml.JSON, []byte(`[{"n":"a","v":1,"t":`+text+`}]`), 0)
		if err != nil || got[0].Time != want {
			t.Errorf("%s s: got %v (%v), want %d ns", text, got, err, want)
		}
	}
}

// TestNumbersInCBOR: each number is written in its shortest form.
func TestNumbersInCBOR(t *testing.T) {
	for v, want := range map[float64]string{
		0: "00", -1: "20", 500: "1901f4", 1<<53 - 1: "1b001fffffffffffff", 1 << 53: "fa5a000000",
		1.5: "f93e00", 0x1p-24: "f90001", 0x1p-14: "f90400", -0x3ffp-24: "f983ff", 0x1p-25: "fa33000000",
		0.25 + 0x1p-12: "f93401", 1e10 + 0.5: "fb4202a05f20040000", 1.1: "fb3ff199999999999a",
	} {
		pack, err := senml.Append(nil, senml.CBOR, []carnet.Measurement{num("a", "", now, v)})
		if got := hex.EncodeToString(pack); err != nil || !strings.HasSuffix(got, "02"+want) {
			t.Errorf("%v is written %s (%v), want %s at the end", v, got, err, want)
		}
	}
	pack, _ := senml.Append(nil, senml.CBOR, []carnet.Measurement{num("a", "", now, math.Copysign(0, -1))})
	if got := hex.EncodeToString(pack); !strings.HasSuffix(got, "02f98000") {
		t.Errorf("negative zero is written %s", got)
	}
}

// TestTimesInCBOR: integers, floats of every size and decimal fractions.
func TestTimesInCBOR(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	for _, c := range []struct {
		item string
		want int64
	}{
		{"\x1a\x69\x55\xb9\x00", now},
		{"\x20", now - 1e9},
		{"\xf9\xb8\x00", now - 5e8},
		{"\xfa\x3e\x80\x00\x00", now + 25e7},
		{"\xfb\x41\xda\x55\x6e\x40\x07\xdf\x3b", now + 123e6}, // the float64 nearest to ….123
		{"\xc4\x82\x28\x1b\x18\x86\x72\x51\xed\xfa\x00\x01", now + 1},
		{"\xc4\x82\x01\x38\x63", now - 1000e9}, // -100 × 10
	} {
		pack := "\x81\xa3\x00\x61a\x02\x01\x06" + c.item
		if got, err := d.Decode(nil, senml.CBOR, []byte(pack), now); err != nil || got[0].Time != c.want {
			t.Errorf("%x: got %v (%v), want %d", c.item, got, err, c.want)
		}
	}
}
