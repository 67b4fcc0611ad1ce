package senml_test

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"testing"

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
