package audit

import "math"

// Rounding and the position grid, as policy.md sections 3 and 4 write them:
// float64, from left to right. The conversions keep a compiler from fusing a
// product with a sum.

// round makes v the nearest multiple of a step in billionths.
func round(step int64, v float64) (float64, bool) {
	c, p := step, int64(1e9)
	for c%10 == 0 && p > 1 {
		c, p = c/10, p/10
	}
	k := nearest(float64(v*float64(p)) / float64(c))
	w := k * float64(c)
	if !(math.Abs(w) <= 1<<53) {
		return 0, false
	}
	return plain(w / float64(p)), true
}

// nearest is the nearest whole number, ties away from zero.
func nearest(x float64) float64 {
	whole, rest := math.Modf(x)
	if math.Abs(rest) >= 0.5 {
		whole += math.Copysign(1, x)
	}
	return whole
}

// plain turns -0 into 0.
func plain(v float64) float64 {
	if v == 0 {
		return 0
	}
	return v
}

// Metres per degree at the least, of latitude and of longitude at the equator.
const (
	latitudeMetres  = 110574
	longitudeMetres = 111319
)

func rows(p int64) float64 { return float64(180 * latitudeMetres / p) }

// show writes degrees with as many decimals as a cell needs.
func show(p int64, d float64) float64 {
	s := int64(1)
	for s < 1e7 && s*p < 10*longitudeMetres {
		s *= 10
	}
	return plain(nearest(float64(d*float64(s))) / float64(s))
}

func row(p int64, lat float64) float64 {
	north := float64(lat + 90)
	return math.Min(math.Floor(float64(north*rows(p))/180), rows(p)-1)
}

func gridLatitude(p int64, lat float64) (float64, bool) {
	if !(lat >= -90 && lat <= 90) {
		return 0, false
	}
	middle := float64(row(p, lat) + 0.5)
	south := float64(float64(middle*180) / rows(p))
	return show(p, south-90), true
}

// gridLongitude needs the latitude as the grid shows it.
func gridLongitude(p int64, lat, lon float64) (float64, bool) {
	if !(lon >= -180 && lon <= 180) {
		return 0, false
	}
	r := row(p, lat)
	lower := float64(float64(r*180)/rows(p)) - 90
	upper := float64(float64((r+1)*180)/rows(p)) - 90
	edge := math.Max(math.Abs(lower), math.Abs(upper))
	cells := math.Max(1, math.Floor(float64(360*longitudeMetres*math.Cos(float64(edge*math.Pi)/180))/float64(p)))
	cell := math.Floor(float64(float64(lon+180)*cells) / 360)
	if cell >= cells {
		cell = 0
	}
	middle := float64(cell + 0.5)
	west := float64(float64(middle*360) / cells)
	return show(p, west-180), true
}
