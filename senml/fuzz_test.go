package senml_test

import (
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"carnet"
	"carnet/senml"
)

// reread holds a decoder to this: what it accepts can be written and read
// again with the same content. (SenML has no form for times before 1978.)
func reread(t *testing.T, d *senml.Decoder, f senml.Format, ms []carnet.Measurement) []byte {
	t.Helper()
	for i := range ms {
		if err := senml.Check(&ms[i]); err != nil {
			t.Fatalf("%s gave %v: %v", f, ms[i], err)
		}
		if f != senml.Columns && ms[i].Time < 1<<28*1e9 {
			return nil
		}
	}
	pack, err := senml.Append(nil, f, ms)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Decode(nil, f, pack, now)
	if err != nil || !same(got, ms) {
		t.Fatalf("%s: %q gave %v (%v), want %v", f, pack, got, err, ms)
	}
	return pack
}

// wide takes what an Append of anything decoded may make.
func wide() *senml.Decoder { return senml.NewDecoder(senml.Limits{Bytes: 1 << 24}) }

func FuzzJSON(f *testing.F) {
	for _, ex := range rfcExamples {
		f.Add([]byte(ex.pack))
	}
	f.Add([]byte(`[{"bn":"a/","bv":-0.1e-3,"bver":10,"n":"b","v":1.7976931348623157e308,"t":-0.000000001,"x":[{"y":null}]}]`))
	f.Add([]byte(`[{"n":"a","vs":"\ud83d\ude00\u00e9\n\"é","u":"°C","t":1767225600.123456789012345678901}]`))
	f.Add([]byte(` [ { "n" : "a" , "vd" : "aGkgCg" } ] `))
	f.Add([]byte(`[{"x":1.320078429e700,"n":"a","v":0}]`))
	d := wide()
	f.Fuzz(func(t *testing.T, pack []byte) {
		got, err := d.Decode(nil, senml.JSON, pack, now)
		if err != nil {
			if carnet.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if !json.Valid(pack) || !utf8.Valid(pack) {
			t.Fatalf("%q is taken and is not JSON in UTF-8", pack)
		}
		var records []map[string]any
		if err := json.Unmarshal(pack, &records); err != nil {
			if _, big := errors.AsType[*json.UnmarshalTypeError](err); big {
				return // a number in an ignored member that no float64 holds
			}
			t.Fatalf("encoding/json refuses %q: %v", pack, err)
		}
		compare(t, records, got)
		reread(t, d, senml.JSON, got)
	})
}

// compare checks values and names against what encoding/json made of a pack.
func compare(t *testing.T, records []map[string]any, got []carnet.Measurement) {
	t.Helper()
	base, bv, i := "", 0.0, 0
	for _, r := range records {
		if s, ok := r["bn"].(string); ok {
			base = s
		}
		if v, ok := r["bv"].(float64); ok {
			bv = v
		}
		_, hasV := r["v"]
		var want carnet.Value
		switch {
		case hasV:
			want = carnet.Float(bv + r["v"].(float64))
		case r["vs"] != nil:
			want = carnet.String(r["vs"].(string))
		case r["vb"] != nil:
			want = carnet.Bool(r["vb"].(bool))
		case r["vd"] != nil:
			want = got[i].Value
		default:
			continue
		}
		n, _ := r["n"].(string)
		if m := got[i]; m.Name != base+n || m.Value != want {
			t.Fatalf("got %v, want %s %v", m, base+n, want)
		}
		i++
	}
	if i != len(got) {
		t.Fatalf("got %d measurements, want %d", len(got), i)
	}
}

func FuzzCBOR(f *testing.F) {
	for _, ex := range rfcExamples {
		pack, _ := senml.Append(nil, senml.CBOR, ex.want)
		f.Add(pack)
	}
	f.Add([]byte("\x9f\xbf\x00\x61a\x02\xc4\x82\x20\x0f\x06\xfb\x41\xd3\x03\xa1\x5b\x00\x10\x62\x61x\x5f\x41a\xff\xff\xff"))
	d := wide()
	f.Fuzz(func(t *testing.T, pack []byte) {
		if got, err := d.Decode(nil, senml.CBOR, pack, now); err == nil {
			reread(t, d, senml.CBOR, got)
		} else if carnet.CodeOf(err) == "" {
			t.Fatalf("an error without a code: %v", err)
		}
	})
}

func FuzzXML(f *testing.F) {
	for _, ex := range rfcExamples {
		pack, _ := senml.Append(nil, senml.XML, ex.want)
		f.Add(pack)
	}
	f.Add([]byte(`<?xml version="1.0"?><sensml xmlns="urn:ietf:params:xml:ns:senml"><senml n="a" v="+.5" t="1." vs_=""/></sensml>`))
	d := wide()
	f.Fuzz(func(t *testing.T, pack []byte) {
		if got, err := d.Decode(nil, senml.XML, pack, now); err == nil {
			reread(t, d, senml.XML, got)
		} else if carnet.CodeOf(err) == "" {
			t.Fatalf("an error without a code: %v", err)
		}
	})
}

// FuzzColumns: whatever is accepted is the one encoding of its content.
func FuzzColumns(f *testing.F) {
	for _, ex := range rfcExamples {
		f.Add(senml.AppendColumns(nil, ex.want))
	}
	for _, n := range []int{0, 1, 2, 9, 40} {
		f.Add(senml.AppendColumns(nil, watch(n)))
	}
	for _, ms := range columnSamples() {
		f.Add(senml.AppendColumns(nil, ms))
	}
	d := wide()
	f.Fuzz(func(t *testing.T, pack []byte) {
		got, err := d.Decode(nil, senml.Columns, pack, now)
		checked(t, d, pack, got, err)
		if err != nil {
			if carnet.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if again := reread(t, d, senml.Columns, got); string(again) != string(pack) {
			t.Fatalf("%x is taken and is written %x", pack, again)
		}
	})
}
