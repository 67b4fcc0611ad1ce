package policy

import (
	"math"
	"testing"
	"time"

	"carnet"

	"pgregory.net/rapid"
)

// anyView draws views that overlap: few names, objects whole or by field.
func anyView(t *rapid.T, name string) View {
	set := rapid.SampledFrom([]carnet.Set{"", "", "a", "a,b", "b,c", nothing})
	v := View{
		Properties: map[string]PropertyView{},
		Purposes:   set.Draw(t, name+" purposes"),
		Residency:  set.Draw(t, name+" residency"),
		Retention:  carnet.Retention(rapid.IntRange(0, 5).Draw(t, name+" retention")),
		Store:      rapid.SampledFrom([]carnet.Set{"", "depot", "depot,world", "thing,world"}).Draw(t, name+" store"),
		Send:       anyWindows(t, name+" send"),
	}
	names := []string{"heart_rate", "steps", "accel"}
	if rapid.Bool().Draw(t, name+" by field") {
		names = []string{"heart_rate", "steps", "accel/x", "accel/y"}
	}
	for _, p := range names {
		if rapid.IntRange(0, 3).Draw(t, name+" has "+p) > 0 {
			v.Properties[p] = anyPropertyView(t, name+" "+p)
		}
	}
	return v
}

func anyPropertyView(t *rapid.T, name string) PropertyView {
	return PropertyView{
		Round:      rapid.SampledFrom([]Decimal{0, 1, One / 10, One / 4, 5 * One, 6 * One, 2147483647 * One, 2147483646 * One}).Draw(t, name+" round"),
		PrecisionM: rapid.SampledFrom([]int{0, 100, 1000, 1500}).Draw(t, name+" precision"),
		Rate:       rapid.SampledFrom([]time.Duration{0, time.Second, 2 * time.Second, 10 * time.Second, time.Minute}).Draw(t, name+" rate"),
		Deadband:   rapid.SampledFrom([]Decimal{0, One / 2, One}).Draw(t, name+" deadband"),
		Windows:    anyWindows(t, name+" windows"),
	}
}

func anyWindows(t *rapid.T, name string) Windows {
	zones := map[string][]string{}
	for _, zone := range []string{"UTC", "Europe/Oslo"} {
		if rapid.IntRange(0, 2).Draw(t, name+" has "+zone) == 0 {
			zones[zone] = rapid.SliceOfN(rapid.SampledFrom([]string{"daily 08:00-20:00", "mon-fri 06:30-09:00", "fri 22:00-06:00", "sun 12:00-24:00", "daily 00:00-24:00"}), 0, 3).Draw(t, name+" "+zone)
		}
	}
	w, err := ParseWindows(zones)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func text(t *rapid.T, v View) string {
	b, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStrictestIsAMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anyView(t, "a"), anyView(t, "b"), anyView(t, "c")
		same := func(law string, x, y View) {
			if text(t, x) != text(t, y) {
				t.Fatalf("not %s:\n%s\n%s", law, text(t, x), text(t, y))
			}
		}
		same("idempotent", Strictest(a, a), a)
		same("commutative", Strictest(a, b), Strictest(b, a))
		same("associative", Strictest(a, Strictest(b, c)), Strictest(Strictest(a, b), c))
		same("the same at once", Strictest(a, b, c), Strictest(Strictest(a, b), c))
		same("absorbing", Strictest(a, b, a), Strictest(a, b))
		if err := Strictest(a, b, c).validate(); err != nil {
			t.Fatal(err)
		}
	})
	if got := Strictest(); len(got.Properties) != 0 {
		t.Error("the strictest of no views shows something")
	}
}

func TestStrictestFields(t *testing.T) {
	parse := func(s string) View {
		v, err := ParseView([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	tests := []struct{ name, a, b, want string }{
		{"properties are intersected", `{"properties":{"x":{},"y":{}}}`, `{"properties":{"y":{},"z":{}}}`, `{"properties":{"y":{}}}`},
		{"an object meets its fields", `{"properties":{"p":{"rate":"1s"}}}`, `{"properties":{"p/x":{"round":5},"q":{}}}`, `{"properties":{"p/x":{"round":5,"rate":"1s"}}}`},
		{"round: the coarser multiple", `{"properties":{"x":{"round":5}}}`, `{"properties":{"x":{"round":0.5}}}`, `{"properties":{"x":{"round":5}}}`},
		{"round: the least common multiple", `{"properties":{"x":{"round":0.4}}}`, `{"properties":{"x":{"round":0.06}}}`, `{"properties":{"x":{"round":1.2}}}`},
		{"round: no common multiple withholds", `{"properties":{"x":{"round":9223372036}}}`, `{"properties":{"x":{"round":7}}}`, `{"properties":{}}`},
		{"precision, rate, deadband: the largest", `{"properties":{"x":{"precision_m":100,"rate":"1s","deadband":3}}}`, `{"properties":{"x":{"precision_m":1000,"deadband":2}}}`, `{"properties":{"x":{"precision_m":1000,"rate":"1s","deadband":3}}}`},
		{"windows of one zone", `{"properties":{},"send":{"UTC":["daily 08:00-12:00"]}}`, `{"properties":{},"send":{"UTC":["mon 10:00-14:00"]}}`, `{"properties":{},"send":{"UTC":["mon 10:00-12:00"]}}`},
		{"windows of two zones", `{"properties":{},"send":{"UTC":["daily 08:00-12:00"]}}`, `{"properties":{},"send":{"Asia/Tokyo":["mon 10:00-14:00"]}}`, `{"properties":{},"send":{"Asia/Tokyo":["mon 10:00-14:00"],"UTC":["daily 08:00-12:00"]}}`},
		{"windows apart", `{"properties":{},"send":{"Asia/Tokyo":["mon 08:00-12:00"]}}`, `{"properties":{},"send":{"Asia/Tokyo":["tue 10:00-14:00"]}}`, `{"properties":{},"send":{"UTC":[]}}`},
		{"purposes, residency, store, retention", `{"properties":{},"purposes":["a","b"],"residency":["eu"],"store":["world","depot"],"retention":"year"}`, `{"properties":{},"purposes":["b","c"],"residency":["us"],"retention":"day"}`, `{"properties":{},"purposes":["b"],"residency":[],"retention":"day","store":["depot","world"]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Strictest(parse(tt.a), parse(tt.b)).MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// TestStricterNeverRevealsMore plays the same measurements through two views
// and their meet. The rates drawn divide each other.
func TestStricterNeverRevealsMore(t *testing.T) {
	judge, err := NewJudge(map[string][]byte{"open.cedar": []byte(openDoor)})
	if err != nil {
		t.Fatal(err)
	}
	anybody := Reader{"anybody", carnet.Clearance{Sensitivity: carnet.AllSensitive}}
	rapid.Check(t, func(t *rapid.T) {
		views := []View{anyView(t, "a"), anyView(t, "b"), {}}
		for _, v := range views[:2] {
			v.Purposes, v.Residency = "", ""
			delete(v.Properties, "accel")
			delete(v.Properties, "accel/x")
			delete(v.Properties, "accel/y")
			for name, pv := range v.Properties {
				pv.PrecisionM, pv.Deadband = 0, 0
				v.Properties[name] = pv
			}
		}
		views[0].Purposes, views[0].Residency, views[1].Purposes, views[1].Residency = "", "", "", ""
		views[2] = Strictest(views[0], views[1])
		tables, states := make([]*Table, 3), make([]State, 3)
		for i, v := range views {
			if tables[i], err = Compile(judge, watch, v, anybody, 1); err != nil {
				t.Fatal(err)
			}
		}
		at := rapid.Int64Range(0, 7*86400).Draw(t, "start") * 1e9
		for range rapid.IntRange(1, 60).Draw(t, "count") {
			at += rapid.SampledFrom([]int64{-2e9, 0, 3e8, 1e9, 7e9, 36e11}).Draw(t, "pause")
			raw := carnet.Measurement{Time: at, Value: carnet.Float(rapid.Float64Range(-1e4, 1e4).Draw(t, "value"))}
			var got [3]Verdict
			var shown [3]float64
			for i := range views {
				m := raw
				got[i] = tables[i].Apply(&states[i], heartRate, &m)
				shown[i] = m.Value.Num
			}
			if got[2] != Admitted {
				continue
			}
			for i, v := range views[:2] {
				pv, named := v.Properties["heart_rate"]
				open, _, _ := pv.Windows.At(at)
				if !named || !open {
					t.Fatalf("the meet shows what view %d does not", i)
				}
				if pv.Windows.Always() && views[1-i].Properties["heart_rate"].Windows.Always() && got[i] != Admitted {
					t.Fatalf("the meet admits at %d what view %d withholds: %v", at, i, got[i])
				}
				if pv.Round != 0 && math.Abs(shown[2]-math.Round(shown[2]/pv.Round.Float())*pv.Round.Float()) > 1e-6 {
					t.Fatalf("the meet shows %v, no multiple of view %d's %s", shown[2], i, pv.Round)
				}
			}
		}
		for i := range watch {
			meet := tables[2].Result(i)
			for k, table := range tables[:2] {
				if r := table.Result(i); meet.Admit && (!r.Admit || meet.Retention > r.Retention || r.Label.Join(meet.Label) != meet.Label) {
					t.Fatalf("the meet lets more flow of %s than view %d: %+v, %+v", watch[i].Name, k, meet, r)
				}
			}
		}
	})
}
