package policy

import (
	"math"
	"testing"
	"time"

	"carnet"
)

// watch is what the demo's watch says about itself.
var watch = []Property{
	{"heart_rate", "beat/min", carnet.Number, carnet.Label{Sensitivity: carnet.Health}, carnet.Month},
	{"steps", "1", carnet.Number, carnet.Label{}, carnet.Year},
	{"position/lat", "lat", carnet.Number, carnet.Label{Sensitivity: carnet.Location}, carnet.Day},
	{"position/lon", "lon", carnet.Number, carnet.Label{Sensitivity: carnet.Location}, carnet.Day},
	{"note", "", carnet.Text, carnet.Label{}, carnet.Month},
	{"accel/x", "m/s2", carnet.Number, carnet.Label{}, carnet.Month},
	{"accel/y", "m/s2", carnet.Number, carnet.Label{}, carnet.Month},
	{"accel/z", "m/s2", carnet.Number, carnet.Label{}, carnet.Month},
}

const (
	heartRate = iota
	steps
	lat
	lon
	note
	accelX
	accelY
	accelZ
)

var clinic = Reader{"clinic", carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: "care", Residency: "eu"}}

// openDoor permits everything, so that the view alone decides.
const openDoor = `@id("all") permit (principal, action, resource);`

func compile(t testing.TB, cedarText, view string, r Reader) *Table {
	t.Helper()
	table, err := tryCompile(t, cedarText, view, r)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func tryCompile(t testing.TB, cedarText, view string, r Reader) (*Table, error) {
	t.Helper()
	files := map[string][]byte{"test.cedar": []byte(cedarText)}
	if cedarText == "" {
		files = nil
	}
	j, err := NewJudge(files)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseView([]byte(view))
	if err != nil {
		t.Fatal(err)
	}
	return Compile(j, watch, v, r, 1)
}

// seen is one measurement and what must become of it.
type seen struct {
	prop    int
	at      time.Duration // measured, after the epoch
	value   float64
	verdict Verdict
	shown   float64 // when admitted
}

// What is measured as -0 is shown as 0, whatever the view says of it.
func TestMinusZeroIsNeverShown(t *testing.T) {
	minus := math.Copysign(0, -1)
	for _, c := range []struct {
		view string
		prop int
	}{
		{`{"properties":{"heart_rate":{}}}`, heartRate}, {`{"properties":{"heart_rate":{"deadband":1}}}`, heartRate}, {`{"properties":{"heart_rate":{"round":5}}}`, heartRate},
		{`{"properties":{"heart_rate":{"rate":"1s"}}}`, heartRate}, {`{"properties":{"accel":{}}}`, accelX}, {`{"properties":{"accel":{"rate":"1s"}}}`, accelX},
		{`{"properties":{"position":{"precision_m":1}}}`, lat},
	} {
		var state State
		m := carnet.Measurement{Value: carnet.Float(minus)}
		if v := compile(t, openDoor, c.view, clinic).Apply(&state, c.prop, &m); v != Admitted || math.Signbit(m.Value.Num) {
			t.Errorf("%s: %v, shows %v", c.view, v, m.Value.Num)
		}
	}
}

func TestApply(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name, view string
		in         []seen
	}{
		{"exact", `{"properties":{"heart_rate":{}}}`, []seen{
			{heartRate, 0, 71.5, Admitted, 71.5}, {heartRate, 0, 71.5, Admitted, 71.5}, {steps, 0, 1, NotInView, 0}, {99, 0, 1, NotInView, 0}, {-1, 0, 1, NotInView, 0}}},
		{"round to 5", `{"properties":{"heart_rate":{"round":5}}}`, []seen{
			{heartRate, 0, 148, Admitted, 150}, {heartRate, 0, 147.5, Admitted, 150}, {heartRate, 0, -147.5, Admitted, -150}, {heartRate, 0, 147.4, Admitted, 145}, {heartRate, 0, -1, Admitted, 0}}},
		{"round to 0.1", `{"properties":{"heart_rate":{"round":0.1}}}`, []seen{
			{heartRate, 0, 0.15, Admitted, 0.2}, {heartRate, 0, 0.349, Admitted, 0.3}, {heartRate, 0, 12345.67, Admitted, 12345.7}, {heartRate, 0, 1e300, NotExact, 0}}},
		{"one a second", `{"properties":{"heart_rate":{"rate":"1s"}}}`, []seen{
			{heartRate, 100 * s, 1, Admitted, 1}, {heartRate, 100*s + 999*time.Millisecond, 2, RateExceeded, 0}, {heartRate, 101 * s, 3, Admitted, 3},
			{heartRate, 100*s + 1, 4, RateExceeded, 0}, {heartRate, 99 * s, 5, RateExceeded, 0}, {heartRate, 103 * s, 6, Admitted, 6}, {heartRate, 102 * s, 7, RateExceeded, 0}}},
		{"rate before 1970", `{"properties":{"heart_rate":{"rate":"10s"}}}`, []seen{
			{heartRate, -11 * s, 1, Admitted, 1}, {heartRate, -10*s - 1, 2, RateExceeded, 0}, {heartRate, -10 * s, 3, Admitted, 3}, {heartRate, -1, 4, RateExceeded, 0}, {heartRate, 0, 5, Admitted, 5}}},
		{"deadband", `{"properties":{"heart_rate":{"deadband":2}}}`, []seen{
			{heartRate, 0, 70, Admitted, 70}, {heartRate, 1, 71.9, WithinDeadband, 0}, {heartRate, 2, 72, Admitted, 72}, {heartRate, 3, 70.1, WithinDeadband, 0}, {heartRate, 4, 70, Admitted, 70}}},
		{"deadband after rounding, rate not used up by it", `{"properties":{"heart_rate":{"deadband":5,"round":5,"rate":"10s"}}}`, []seen{
			{heartRate, 0, 70, Admitted, 70}, {heartRate, 10 * s, 72, WithinDeadband, 0}, {heartRate, 11 * s, 73, Admitted, 75}, {heartRate, 12 * s, 90, RateExceeded, 0}}},
		{"window", `{"properties":{"heart_rate":{"windows":{"UTC":["thu 08:00-09:00"]}}}}`, []seen{ // 1 January 1970 was a Thursday
			{heartRate, 8*time.Hour - 1, 1, OutsideWindow, 0}, {heartRate, 8 * time.Hour, 2, Admitted, 2}, {heartRate, 9*time.Hour - 1, 3, Admitted, 3}, {heartRate, 9 * time.Hour, 4, OutsideWindow, 0}, {heartRate, (24 + 8) * time.Hour, 5, OutsideWindow, 0}, {heartRate, (7*24 + 8) * time.Hour, 5, Admitted, 5}}},
		{"object at a rate", `{"properties":{"accel":{"rate":"1s","round":0.5}}}`, []seen{
			{accelX, s, 1.2, Admitted, 1}, {accelY, s, 2.3, Admitted, 2.5}, {accelZ, s, 3, Admitted, 3},
			{accelX, s, 1, RateExceeded, 0}, {accelY, s, 1, RateExceeded, 0},
			{accelX, s + 1, 1, RateExceeded, 0}, {accelY, s + 1, 1, RateExceeded, 0}, {accelZ, s + 1, 1, RateExceeded, 0},
			{accelY, 2 * s, 1, Admitted, 1}, {accelZ, 2 * s, 1, Admitted, 1}, {accelX, 2 * s, 1, Admitted, 1}, {accelX, 2 * s, 1, RateExceeded, 0},
			{accelX, 3 * s, 1, Admitted, 1}, {accelX, 3 * s, 1, RateExceeded, 0}, {accelY, 3 * s, 1, Admitted, 1}}},
		{"position", `{"properties":{"position":{"precision_m":1000}}}`, []seen{
			{lon, 0, 10, Incomplete, 0},
			{lat, 0, 59.9139, Admitted, 59.9156}, {lon, 0, 10.7522, Admitted, 10.7543}, {lon, 0, 10.7522, Incomplete, 0},
			{lat, 1, 59.9139, Admitted, 59.9156}, {lon, 2, 10.7522, Incomplete, 0}, {lat, 3, 91, NotExact, 0}, {lon, 3, 10, Incomplete, 0}}},
		{"position at a rate", `{"properties":{"position":{"precision_m":1000,"rate":"1m"}}}`, []seen{
			{lat, 60 * s, 59.9139, Admitted, 59.9156}, {lon, 60 * s, 10.7522, Admitted, 10.7543}, {lat, 61 * s, 59, RateExceeded, 0}, {lon, 61 * s, 10, RateExceeded, 0},
			{lat, 120 * s, 59.9139, Admitted, 59.9156}, {lat, 120 * s, 59.9139, RateExceeded, 0}, {lon, 120 * s, 10.7522, RateExceeded, 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := compile(t, openDoor, tt.view, clinic)
			var state State
			for i, in := range tt.in {
				m := carnet.Measurement{Time: int64(in.at), Value: carnet.Float(in.value)}
				got := table.Apply(&state, in.prop, &m)
				if got != in.verdict {
					t.Fatalf("measurement %d: %v, want %v", i, got, in.verdict)
				}
				want := in.value
				if got == Admitted {
					want = in.shown
				}
				if m.Value.Num != want {
					t.Fatalf("measurement %d: shows %v, want %v", i, m.Value.Num, want)
				}
			}
		})
	}
}
