package policy

import (
	"math"
	"testing"

	"carnet"

	"pgregory.net/rapid"
)

// ellipsoid returns the radii of WGS 84 at a latitude, along the meridian and
// along the parallel.
func ellipsoid(degrees float64) (meridian, parallel float64) {
	const a, f = 6378137.0, 1 / 298.257223563
	const e2 = f * (2 - f)
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	w := 1 - e2*sin*sin
	return a * (1 - e2) / math.Pow(w, 1.5), a / math.Sqrt(w) * cos
}

func anyPosition(t *rapid.T) (g grid, metres int, lat, lon float64) {
	metres = rapid.OneOf(rapid.IntRange(1, 100), rapid.SampledFrom([]int{250, 1000, 5000, 50_000}), rapid.IntRange(1, maxPrecisionM)).Draw(t, "metres")
	lat = rapid.OneOf(rapid.Float64Range(-90, 90), rapid.SampledFrom([]float64{-90, -89.9999, 0, 89.9999, 90})).Draw(t, "lat")
	lon = rapid.OneOf(rapid.Float64Range(-180, 180), rapid.SampledFrom([]float64{-180, -179.9999, 0, 179.9999, 180})).Draw(t, "lon")
	return newGrid(metres), metres, lat, lon
}

func TestGridIsNeverFiner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, metres, lat, lon := anyPosition(t)
		south, ok := g.latitude(lat)
		west, ok2 := g.longitude(lon, south)
		if !ok || !ok2 {
			t.Fatal("a position on the globe is refused")
		}
		row := g.row(lat)
		low, high := row*180/g.rows-90, (row+1)*180/g.rows-90
		if lat < low-1e-9 || lat > high+1e-9 || south < low || south > high {
			t.Fatalf("latitude %v is shown as %v, in the row %v to %v", lat, south, low, high)
		}
		for _, at := range []float64{low, (low + high) / 2, high} {
			meridian, parallel := ellipsoid(at)
			if height := (high - low) * math.Pi / 180 * meridian; height < float64(metres)*(1-1e-9) {
				t.Fatalf("row of %v is %v m high at %v", lat, height, at)
			}
			if cells := g.cells(row); cells > 1 && 2*math.Pi*parallel/cells < float64(metres)*(1-1e-9) {
				t.Fatalf("cell of %v, %v is %v m wide at %v", lat, lon, 2*math.Pi*parallel/cells, at)
			}
		}
		width := 360 / g.cells(row)
		if d := math.Abs(lon - west); min(d, 360-d) > width/2*1.11 {
			t.Fatalf("longitude %v is shown as %v, in a cell %v wide", lon, west, width)
		}
		if again, _ := g.latitude(south); again != south {
			t.Fatalf("latitude %v is shown as %v", south, again)
		}
		if again, _ := g.longitude(west, south); again != west {
			t.Fatalf("longitude %v is shown as %v", west, again)
		}
	})
}

// TestGridVectors has values computed apart from this program, from the
// formulas of docs/design/policy.md.
func TestGridVectors(t *testing.T) {
	tests := []struct {
		metres           int
		lat, lon         float64
		showLat, showLon float64
	}{
		{1000, 59.9139, 10.7522, 59.9156, 10.7543},
		{1000, -33.8568, 151.2153, -33.8602, 151.2171},
		{1000, 0, 0, 0, 0.0045},
		{1000, 10, 180, 10.0025, -179.9954},
		{1000, 10, -180, 10.0025, -179.9954},
		{1000, 90, 77, 89.9955, 0},
		{1000, -90, -77, -89.9955, 0},
		{1, 59.9139, 10.7522, 59.9138993, 10.7521911},
		{100_000, 59.9139, 10.7522, 59.7, 10.85},
		{1_000_000, 59.9139, 10.7522, 56.8, 18.9},
	}
	for _, tt := range tests {
		g := newGrid(tt.metres)
		south, _ := g.latitude(tt.lat)
		west, _ := g.longitude(tt.lon, south)
		if south != tt.showLat || west != tt.showLon {
			t.Errorf("%v, %v to %d m is %v, %v, want %v, %v", tt.lat, tt.lon, tt.metres, south, west, tt.showLat, tt.showLon)
		}
	}
	for _, off := range []float64{math.NaN(), math.Inf(1), -180.001, 180.001} {
		if _, ok := newGrid(1000).latitude(off); ok {
			t.Errorf("latitude %v is shown", off)
		}
		if _, ok := newGrid(1000).longitude(off, 0); ok {
			t.Errorf("longitude %v is shown", off)
		}
	}
}

func TestPositionWithRound(t *testing.T) {
	table := compile(t, openDoor, `{"properties":{"position":{"precision_m":1000,"round":0.5}}}`, clinic)
	var s State
	m := carnet.Measurement{Value: carnet.Float(59.9139)}
	if v := table.Apply(&s, lat, &m); v != Admitted || m.Value.Num != 60 {
		t.Errorf("latitude %v, %v", v, m.Value.Num)
	}
	m = carnet.Measurement{Value: carnet.Float(10.7522)}
	if v := table.Apply(&s, lon, &m); v != Admitted || m.Value.Num != 11 {
		t.Errorf("longitude %v, %v", v, m.Value.Num)
	}
}
