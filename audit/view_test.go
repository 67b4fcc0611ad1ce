package audit_test

import (
	"context"
	"math"
	"testing"
	"time"

	"carnet"
	"carnet/audit"
	"carnet/policy"

	"pgregory.net/rapid"
)

// FuzzViews holds the oracle's reading of views against the engine's: both take
// a document or neither does, and what both take shows the same.
func FuzzViews(f *testing.F) {
	for _, view := range []string{
		`{"properties":{}}`,
		`{}`,
		`{"properties":{"heart_rate":{"round":5,"rate":"1s"},"steps":{"deadband":10,"windows":{"Europe/Oslo":["mon-fri 08:00-18:00"]}},"position":{"precision_m":1000,"rate":"10s"}},` +
			`"purposes":["care"],"residency":["eu"],"retention":"day","store":["world","depot"],"send":{"UTC":["daily 22:00-06:00"]}}`,
		`{"properties":{"heart_rate":{"round":0.000000001,"deadband":9223372036.854775807}}}`,
		`{"properties":{"heart_rate":{"round":9223372036.854775808}}}`,
		`{"properties":{"heart_rate":{"round":1.0}}}`,
		`{"properties":{"heart_rate":{"round":1e3}}}`,
		`{"properties":{"heart_rate":{"round":-1}}}`,
		`{"properties":{"heart_rate":{"round":"1"}}}`,
		`{"properties":{"heart_rate":{"round":null}}}`,
		`{"properties":{"heart_rate":{"rate":"+1s"}}}`,
		`{"properties":{"heart_rate":{"rate":"8784h0m0.000000001s"}}}`,
		`{"properties":{"heart_rate":{"rate":"1s","rate":"2s"}}}`,
		`{"properties":{"heart_rate":{"Rate":"1s"}}}`,
		`{"properties":{"position":{},"position/lat":{}}}`,
		`{"properties":{"position":{"precision_m":1.0}}}`,
		`{"properties":{"position":{"precision_m":1000001}}}`,
		`{"properties":{"position":{"deadband":1}}}`,
		`{"properties":{"position/":{}}}`,
		`{"properties":{"/lat":{}}}`,
		`{"properties":{"a/b/c":{}}}`,
		`{"properties":{"-a":{}}}`,
		`{"properties":{"heart_rate":{}},"purposes":["b","a","b"]}`,
		`{"properties":{"heart_rate":{}},"purposes":[],"store":["depot","moon"]}`,
		`{"properties":{"heart_rate":{}},"retention":""}`,
		`{"properties":{"heart_rate":{"windows":{}}}}`,
		`{"properties":{"heart_rate":{"windows":{"UTC":[]}}}}`,
		`{"properties":{"heart_rate":{"windows":{"Local":["daily 00:00-24:00"]}}}}`,
		`{"properties":{"heart_rate":{"windows":{"UTC":["daily 24:00-01:00"]}}}}`,
		`{"properties":{"heart_rate":{"windows":{"UTC":["sun-mon 23:00-00:00","tue-tue 10:00-09:59"]}}}}`,
		`{"properties":{"heart_rate":{"windows":{"UTC":["daily  08:00-09:00"]}}}}`,
		`{"properties":{"heart_rate":{"windows":{"../UTC":["daily 08:00-09:00"]}}}}`,
		`{"properties":{}} x`,
		`{"properties":{"heart_rate":{"round":{"a":[[[[[[[[[[1]]]]]]]]]]}}}}`,
	} {
		f.Add([]byte(view))
	}
	d := []policy.Property{
		property("heart_rate", carnet.Number, carnet.Health), property("steps", carnet.Number, 0),
		property("position/lat", carnet.Number, 0), property("position/lon", carnet.Number, 0),
	}
	f.Fuzz(func(t *testing.T, view []byte) {
		s := newSender(t, d, make([]time.Duration, len(d)), openDoor, everything)
		if _, err := policy.ParseView(view); err != nil {
			if _, mine := audit.New(audit.Config{Views: []audit.ViewVersion{s.record(view, nil, false, true)}}); mine == nil {
				t.Fatalf("the oracle takes %s; the engine: %v", view, err)
			}
			return
		}
		if !s.setView(t, view, false, true) {
			return
		}
		for i := range 300 {
			at := int64(i) * 1801e9 * 7
			s.receive([]carnet.Measurement{
				{Name: "heart_rate", Time: at, Value: carnet.Float(float64(i) * 1.05)}, {Name: "steps", Time: at, Value: carnet.Float(float64(i * i))},
				{Name: "position/lat", Time: at, Value: carnet.Float(float64(i)/2 - 60)}, {Name: "position/lon", Time: at, Value: carnet.Float(float64(i) - 120)},
			})
		}
		s.decide(t, 0)
		requireSame(t, s.oracle(t, 1, nil), s.messages, s.now.sent)
	})
}

func TestMinusZeroAgrees(t *testing.T) {
	d := []policy.Property{property("heart_rate", carnet.Number, 0), property("accel/x", carnet.Number, 0), property("accel/y", carnet.Number, 0)}
	minus := carnet.Float(math.Copysign(0, -1))
	for _, settings := range []string{`{}`, `{"rate":"1s"}`, `{"round":5}`} {
		s := newSender(t, d, make([]time.Duration, len(d)), openDoor, everything)
		if !s.setView(t, []byte(`{"properties":{"heart_rate":`+settings+`,"accel":`+settings+`}}`), false, true) {
			t.Fatalf("the engine refuses %s", settings)
		}
		for i := range 3 {
			at := int64(i) * 1e9
			s.receive([]carnet.Measurement{{Name: "heart_rate", Time: at, Value: minus}, {Name: "accel/x", Time: at, Value: minus}, {Name: "accel/y", Time: at, Value: minus}})
		}
		s.decide(t, 0)
		if len(s.now.sent) != 9 {
			t.Errorf("%s: %d are sent, want 9", settings, len(s.now.sent))
		}
		requireSame(t, s.oracle(t, 1, nil), s.messages, s.now.sent)
	}
}

// TestNumbersAgreeBitByBit holds rounding and the grid against the engine over
// all of float64.
func TestNumbersAgreeBitByBit(t *testing.T) {
	d := []policy.Property{
		property("heart_rate", carnet.Number, 0), property("position/lat", carnet.Number, 0), property("position/lon", carnet.Number, 0),
	}
	rapid.Check(t, func(t *rapid.T) {
		s := newSender(t, d, make([]time.Duration, len(d)), openDoor, everything)
		step := rapid.Custom(func(t *rapid.T) string {
			return policy.Decimal(rapid.OneOf(rapid.Int64Range(1, 1e12), rapid.Int64Range(1, math.MaxInt64),
				rapid.SampledFrom([]int64{1, 10, 1e8, 1e9, 5e9, 25e8, 100e9, 5e17})).Draw(t, "billionths")).String()
		})
		view := `{"properties":{"heart_rate":{"round":` + step.Draw(t, "step") + `},"position":{"precision_m":` +
			policy.Decimal(rapid.Int64Range(1, 1e6).Draw(t, "metres")*1e9).String() + `}}}`
		if !s.setView(t, []byte(view), false, true) {
			t.Fatalf("the engine refuses %s", view)
		}
		for i := range 100 {
			s.receive([]carnet.Measurement{
				{Name: "heart_rate", Time: int64(i), Value: carnet.Float(rapid.OneOf(rapid.Float64(), rapid.Float64Range(-1e6, 1e6)).Draw(t, "value"))},
				{Name: "position/lat", Time: int64(i), Value: carnet.Float(rapid.Float64Range(-90, 90).Draw(t, "lat"))},
				{Name: "position/lon", Time: int64(i), Value: carnet.Float(rapid.Float64Range(-180, 180).Draw(t, "lon"))},
			})
		}
		s.decide(t, 0)
		requireSame(t, s.oracle(t, 1, nil), s.messages, s.now.sent)
	})
}

// TestPositionsOfThePage checks the table of docs/design/policy.md section 4.
func TestPositionsOfThePage(t *testing.T) {
	for _, row := range []struct {
		p            string
		lat, lon     float64
		latIs, lonIs float64
	}{
		{"1000", 59.9139, 10.7522, 59.9156, 10.7543},
		{"1000", -33.8568, 151.2153, -33.8602, 151.2171},
		{"1000", 0, 0, 0, 0.0045},
		{"1000", 10, 180, 10.0025, -179.9954},
		{"1000", 10, -180, 10.0025, -179.9954},
		{"1000", 90, 77, 89.9955, 0},
		{"1", 59.9139, 10.7522, 59.9138993, 10.7521911},
		{"100000", 59.9139, 10.7522, 59.7, 10.85},
	} {
		properties := []audit.Property{{Name: "p/lat", Kind: carnet.Number, Admit: true}, {Name: "p/lon", Kind: carnet.Number, Admit: true}}
		o, err := audit.New(audit.Config{Views: []audit.ViewVersion{{
			View: []byte(`{"properties":{"p":{"precision_m":` + row.p + `}}}`), Properties: properties, Since: map[int64]uint64{0: 0},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		log := func(_ context.Context, _ uint64, do func(audit.Message) error) error {
			return do(audit.Message{Position: 1, Measurements: []carnet.Measurement{
				{Name: "p/lat", Value: carnet.Float(row.lat)}, {Name: "p/lon", Value: carnet.Float(row.lon)}}})
		}
		var got []float64
		if err := o.Recompute(context.Background(), log, func(a audit.Admitted) error {
			got = append(got, a.Measurement.Value.Num)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || got[0] != row.latIs || got[1] != row.lonIs {
			t.Errorf("%v, %v to %s m is %v, want %v, %v", row.lat, row.lon, row.p, got, row.latIs, row.lonIs)
		}
	}
}
