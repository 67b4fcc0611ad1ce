package file

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/td"
)

// A generated game is what the descriptions of headset and band admit, and the same
// each time.
func TestGenerateGame(t *testing.T) {
	end := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		make        func(uint64, time.Duration, time.Time) *Recording
		description []byte
		measure     int // in a minute
	}{"headset": {GenerateHeadset, td.Headset(), 600 * 7}, "band": {GenerateBand, td.Band(), 60 * 2}} {
		r := c.make(7, time.Minute, end)
		if len(r.Measurements) != c.measure || r.End != end.UnixNano() {
			t.Errorf("%s: %d measurements until %d", name, len(r.Measurements), r.End)
		}
		if again := c.make(7, time.Minute, end); !slices.Equal(r.Measurements, again.Measurements) {
			t.Errorf("%s: another recording the second time", name)
		}
		d, err := td.Parse(c.description)
		if err != nil {
			t.Fatal(err)
		}
		if n, incomplete := d.Arrange(slices.Clone(r.Measurements)); incomplete != nil {
			t.Errorf("%s: from %d on: %v", name, n, incomplete)
		}
		for _, m := range r.Measurements {
			p, ok := d.Lookup(m.Name)
			if !ok || m.Unit != p.Unit || p.Minimum != nil && m.Value.Num < *p.Minimum || p.Maximum != nil && m.Value.Num > *p.Maximum {
				t.Fatalf("%s isn't as described: %+v", name, m)
			}
		}
	}
}

// The gaze is a direction: a unit quaternion, and mostly ahead.
func TestGenerateHeadsetLooks(t *testing.T) {
	of := func(ms []carnet.Measurement, name string) float64 {
		return ms[slices.IndexFunc(ms, func(m carnet.Measurement) bool { return m.Name == name })].Value.Num
	}
	ahead, all := 0, 0
	for moment := range slices.Chunk(GenerateHeadset(3, 10*time.Minute, time.Unix(1_800_000_000, 0)).Measurements, 7) {
		w, x, y, z := of(moment, "gaze/w"), of(moment, "gaze/x"), of(moment, "gaze/y"), of(moment, "gaze/z")
		if n := math.Sqrt(w*w + x*x + y*y + z*z); math.Abs(n-1) > 1e-5 {
			t.Fatalf("the gaze has the length %f", n)
		}
		if all++; 1-2*(x*x+y*y) > 0.5 { // -z turned by it, towards -z: within 60 degrees
			ahead++
		}
	}
	if ahead*10 < all*6 || ahead == all {
		t.Errorf("it looks ahead in %d of %d moments", ahead, all)
	}
}

// A headset's movements are known by their headers.
func TestHeadsetColumns(t *testing.T) {
	r, err := ReadCSV(strings.NewReader("TouchButtons,HeadPosX,HeadPosY,HeadPosZ,HeadOrientationW,HeadOrientationX,HeadOrientationY,HeadOrientationZ,time\n0,0.0516882,0.022581,0.22003,0.997151,-0.0745753,-0.00635856,0.00941263,0.0169733\n"), "quest.csv")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Measurements) != 7 || r.Measurements[0].Name != "head/x" || r.Measurements[3].Name != "gaze/w" || r.Measurements[3].Value.Num != 0.997151 || r.Start != 16973300 {
		t.Errorf("%+v", r)
	}
}
