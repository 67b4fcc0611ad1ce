package policy

import (
	"os"
	"strings"
	"testing"

	"carnet"
)

func TestParseViewCanonical(t *testing.T) {
	const in = `{
		"send": {"Europe/Oslo": ["mon 08:00-12:00", "mon-fri 12:00-18:00", "tue-fri 08:00-12:00"], "UTC": ["daily 00:00-24:00"]},
		"store": ["world", "depot"], "retention": "day", "residency": [], "purposes": ["care", "billing"],
		"properties": {"position": {"rate": "90s", "precision_m": 1000},
			"heart_rate": {"windows": {"UTC": ["sat-sun 22:00-06:00"]}, "deadband": 0.50, "round": 5.0}, "accel/x": {}}}`
	const want = `{"properties":{"accel/x":{},"heart_rate":{"round":5,"deadband":0.5,"windows":{"UTC":["mon 00:00-06:00","sat-sun 22:00-24:00","sun 00:00-06:00"]}},` +
		`"position":{"precision_m":1000,"rate":"1m30s"}},"purposes":["billing","care"],"residency":[],"retention":"day","store":["depot","world"],"send":{"Europe/Oslo":["mon-fri 08:00-18:00"]}}`
	v, err := ParseView([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("canonical form\n%s, want\n%s", got, want)
	}
	again, err := ParseView(got)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := hash(t, v), hash(t, again); a != b {
		t.Errorf("hash %s of the canonical form, %s of the view", b, a)
	}
	if !v.MayStore("depot") || v.MayStore("thing") || !(View{}).MayStore("thing") {
		t.Error("MayStore is not what store says")
	}
}

func hash(t *testing.T, v View) carnet.Fingerprint {
	t.Helper()
	f, err := v.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParseViewRefuses(t *testing.T) {
	property := func(s string) string { return `{"properties":{"heart_rate":` + s + `}}` }
	tests := []struct{ name, view, want string }{
		{"not JSON", `{"properties":{}`, "not JSON"},
		{"text after the end", `{"properties":{}} {}`, "not JSON"},
		{"not UTF-8", "{\"properties\":{\"a\xff\":{}}}", "UTF-8"},
		{"not an object", `[]`, `the view: want an object`},
		{"too deep", strings.Repeat("[", 20) + strings.Repeat("]", 20), "too deep"},
		{"too large", `{"properties":{}}` + strings.Repeat(" ", maxViewBytes), "bytes"},
		{"no properties", `{}`, `the view: the field properties is missing; "properties": {} shows nothing`},
		{"unknown field", `{"properties":{},"propertys":{}}`, `at "/propertys": unknown field: want properties`},
		{"duplicate key", `{"properties":{"a":{},"a":{}}}`, `at "/properties/a": the key stands twice`},
		{"duplicate key, escaped", `{"properties":{"a":{},"\u0061":{}}}`, `at "/properties/a": the key stands twice`},
		{"letter case", `{"Properties":{}}`, `at "/Properties": unknown field`},
		{"bad name", `{"properties":{"a b":{}}}`, `at "/properties/a b"`},
		{"pointer is escaped", `{"properties":{"a/b/c":{}}}`, `at "/properties/a~1b~1c"`},
		{"object and its field", `{"properties":{"position":{},"position/lat":{}}}`, "both position and its field position/lat"},
		{"property null", property(`null`), `at "/properties/heart_rate": want an object`},
		{"unknown property field", property(`{"precision":1}`), `at "/properties/heart_rate/precision": unknown field: want round`},
		{"round as text", property(`{"round":"5"}`), `/round": want a number`},
		{"round null", property(`{"round":null}`), `/round": want a number`},
		{"round 0", property(`{"round":0}`), "want more than 0"},
		{"round negative", property(`{"round":-5}`), "without sign"},
		{"round with exponent", property(`{"round":1e3}`), "exponent"},
		{"round too fine", property(`{"round":0.0000000001}`), "nine decimals"},
		{"round too large", property(`{"round":9223372037}`), "at most 9223372036"},
		{"precision in parts", property(`{"precision_m":0.5}`), "whole metres"},
		{"precision 0", property(`{"precision_m":0}`), "whole metres"},
		{"precision too coarse", property(`{"precision_m":1000001}`), "1 to 1000000"},
		{"rate as number", property(`{"rate":1}`), "want a duration"},
		{"rate 0", property(`{"rate":"0s"}`), "want a duration"},
		{"rate negative", property(`{"rate":"-1s"}`), "want a duration"},
		{"rate too long", property(`{"rate":"9000h"}`), "at most 8784h"},
		{"no zones", property(`{"windows":{}}`), "1 to 8 time zones"},
		{"unknown zone", property(`{"windows":{"Europe/Atlantis":[]}}`), `"Europe/Atlantis" is not known`},
		{"local zone", property(`{"windows":{"Local":[]}}`), `"Local"`},
		{"window without days", property(`{"windows":{"UTC":["08:00-09:00"]}}`), "want days and times"},
		{"window of nothing", property(`{"windows":{"UTC":["mon 08:00-08:00"]}}`), "want days and times"},
		{"window past 24:00", property(`{"windows":{"UTC":["mon 08:00-24:01"]}}`), "want days and times"},
		{"window's unknown day", property(`{"windows":{"UTC":["monday 08:00-09:00"]}}`), "want days and times"},
		{"window not a string", property(`{"windows":{"UTC":[1]}}`), "want strings only"},
		{"purposes as text", `{"properties":{},"purposes":"care"}`, `at "/purposes": want an array`},
		{"purpose -", `{"properties":{},"purposes":["-"]}`, "starting with a letter"},
		{"purpose with comma", `{"properties":{},"purposes":["a,b"]}`, "starting with a letter"},
		{"purpose twice", `{"properties":{},"purposes":["a","a"]}`, "twice"},
		{"unknown retention", `{"properties":{},"retention":"week"}`, `"hour", "day"`},
		{"unknown place", `{"properties":{},"store":["cloud"]}`, "want depot, thing, world"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := ParseView([]byte(tt.view))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if code := carnet.CodeOf(err); code != carnet.Malformed && code != carnet.TooLarge {
				t.Errorf("code %q", code)
			}
			if v.Properties != nil {
				t.Error("a refused view comes with properties")
			}
		})
	}
}

// TestDocumentedView keeps the example of the design page true.
func TestDocumentedView(t *testing.T) {
	page, err := os.ReadFile("../docs/design/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	example, _, _ := strings.Cut(rest, "```")
	v, err := ParseView([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	judge, err := NewJudge(nil)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Compile(judge, watch, v, clinic, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Verdict{Admitted, Admitted, Admitted, Admitted, NotInView, Admitted, NotInView, NotInView} {
		if got := table.Result(i).Reason; got != want {
			t.Errorf("%s: %v, want %v", watch[i].Name, got, want)
		}
	}
}

func FuzzParseView(f *testing.F) {
	f.Add([]byte(`{"properties":{"heart_rate":{"round":5,"rate":"1s","deadband":0.5,"windows":{"Europe/Oslo":["mon-fri 22:00-06:00"]}},"position":{"precision_m":1000}},"purposes":["care"],"residency":[],"retention":"day","store":["depot"],"send":{"UTC":["daily 00:00-24:00"]}}`))
	f.Add([]byte(`{"properties":{}}`))
	f.Add([]byte(`{"properties":{"a":{},"a":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseView(b)
		if err != nil {
			return
		}
		canonical, err := v.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseView(canonical)
		if err != nil {
			t.Fatalf("canonical form %s: %v", canonical, err)
		}
		if hash(t, v) != hash(t, again) {
			t.Fatalf("canonical form %s is not stable", canonical)
		}
	})
}
