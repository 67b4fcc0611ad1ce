package senml_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"carnet"
	"carnet/senml"
)

// TestJSONTestSuite gives the parser the corner cases as a pack, and as the
// value of a field that is ignored, where any JSON is allowed.
func TestJSONTestSuite(t *testing.T) {
	dir := shared(t, "json")
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) < 150 {
		t.Fatalf("%d files in %s (%v)", len(files), dir, err)
	}
	d := senml.NewDecoder(senml.Limits{})
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(file)
		_, packErr := d.Decode(nil, senml.JSON, text, now)
		wrapped := append(append([]byte(`[{"n":"a","v":1,"x":`), text...), `}]`...)
		_, fieldErr := d.Decode(nil, senml.JSON, wrapped, now)
		switch base[0] {
		case 'n':
			if packErr == nil {
				t.Errorf("%s is taken as a pack", base)
			}
			// A value that ends the field and goes on is good in that place.
			if fieldErr == nil && json.Valid(wrapped) == false {
				t.Errorf("%s is taken as a value", base)
			}
		case 'y':
			if fieldErr != nil {
				t.Errorf("%s is refused as a value: %v", base, fieldErr)
			}
		case 'i':
			if fieldErr == nil && !(json.Valid(wrapped) && utf8.Valid(text)) {
				t.Errorf("%s is taken as a value", base)
			}
		}
	}
}

// TestJSONTestSuiteStrings reads the strings of the suite as text values, as
// encoding/json does.
func TestJSONTestSuiteStrings(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(shared(t, "json"), "y_string*.json"))
	d := senml.NewDecoder(senml.Limits{})
	read := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		if json.Unmarshal(text, &want) != nil || len(want) != 1 {
			continue
		}
		inner := bytes.TrimSpace(text)
		pack := append(append([]byte(`[{"n":"a","vs":`), inner[1:len(inner)-1]...), `}]`...)
		got, err := d.Decode(nil, senml.JSON, pack, now)
		if err != nil || got[0].Value != carnet.String(want[0]) {
			t.Errorf("%s: got %v (%v), want %q", filepath.Base(file), got, err, want[0])
		}
		read++
	}
	if read < 20 {
		t.Errorf("%d strings were read, want 20 or more", read)
	}
}

// TestNaughtyStrings carries each string through each form.
func TestNaughtyStrings(t *testing.T) {
	text, err := os.ReadFile(shared(t, "blns", "blns.json"))
	if err != nil {
		t.Fatal(err)
	}
	var naughty []string
	if err := json.Unmarshal(text, &naughty); err != nil || len(naughty) < 400 {
		t.Fatalf("%d strings (%v)", len(naughty), err)
	}
	d := senml.NewDecoder(senml.Limits{})
	for _, s := range naughty {
		want := []carnet.Measurement{{Name: "a", Time: now, Value: carnet.String(s)}}
		for _, f := range formats {
			pack, err := senml.Append(nil, f, want)
			if err != nil {
				t.Fatalf("%s of %q: %v", f, s, err)
			}
			if got, err := d.Decode(nil, f, pack, now); err != nil || !same(got, want) {
				t.Errorf("%s of %q: got %v (%v)", f, s, got, err)
			}
		}
	}
}

// TestCBORAppendixA reads the examples of RFC 8949 as the value of a field that
// is ignored, as v, and as vs.
func TestCBORAppendixA(t *testing.T) {
	text, err := os.ReadFile(shared(t, "cbor", "appendix_a.json"))
	if err != nil {
		t.Fatal(err)
	}
	var examples []struct {
		Hex     string
		Decoded any
	}
	if err := json.Unmarshal(text, &examples); err != nil || len(examples) < 80 {
		t.Fatalf("%d examples (%v)", len(examples), err)
	}
	d := senml.NewDecoder(senml.Limits{})
	decode := func(label byte, item string) ([]carnet.Measurement, error) {
		raw, err := hex.DecodeString(item)
		if err != nil {
			t.Fatal(err)
		}
		pack := []byte{0x81, 0xa2, 0x00, 0x61, 'a', label}
		if label == 'x' {
			pack = []byte{0x81, 0xa3, 0x00, 0x61, 'a', 0x02, 0x01, 0x61, 'x'}
		}
		return d.Decode(nil, senml.CBOR, append(pack, raw...), now)
	}
	for _, ex := range examples {
		if ex.Hex == "f818" {
			continue // simple(24) in two bytes: RFC 8949 §3.3 has made it not well-formed
		}
		if _, err := decode('x', ex.Hex); err != nil {
			t.Errorf("%s is refused as a value: %v", ex.Hex, err)
		}
		var want carnet.Value
		label := byte(2)
		switch v := ex.Decoded.(type) {
		case float64:
			if strings.HasPrefix(ex.Hex, "c") {
				continue // bignums and tagged times are no SenML numbers
			}
			want = carnet.Float(v)
		case string:
			if ex.Hex[0] != '6' && ex.Hex[:2] != "78" {
				continue
			}
			want, label = carnet.String(v), 3
		default:
			continue
		}
		if got, err := decode(label, ex.Hex); err != nil || got[0].Value != want {
			t.Errorf("%s: got %v (%v), want %v", ex.Hex, got, err, want)
		}
	}
}

// TestRecordedRun writes a real run in batches of 100 and holds the column form
// to its size.
func TestRecordedRun(t *testing.T) {
	ms := recorded(t)
	d := senml.NewDecoder(senml.Limits{})
	total := map[senml.Format]int{}
	count := 0
	for len(ms) >= 100 {
		for _, f := range formats {
			pack, err := senml.Append(nil, f, ms[:100])
			if err != nil {
				t.Fatal(err)
			}
			total[f] += len(pack)
			got, err := d.Decode(nil, f, pack, now)
			want := ms[:100]
			if f == senml.Columns {
				want = grouped(want)
			}
			if err != nil || !same(got, want) {
				t.Fatalf("%s: got %v (%v), want %v", f, got, err, want)
			}
		}
		ms = ms[100:]
		count += 100
	}
	for _, f := range formats {
		t.Logf("%s: %.2f bytes a measurement, of %d", f, float64(total[f])/float64(count), count)
	}
	if total[senml.Columns] > 12*count {
		t.Errorf("columns take %d bytes for %d measurements, want at most 12 for each", total[senml.Columns], count)
	}
}
