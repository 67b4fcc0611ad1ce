package policy

import "math"

// The shortest lengths on WGS 84 that a degree has: of latitude at the
// equator, of longitude at the equator (elsewhere at least this times the
// cosine of the latitude). So a cell is at least as wide as was asked.
const (
	latitudeM  = 110_574
	longitudeM = 111_319
)

// grid cuts the globe into rows of equal height, and each row into cells of
// equal width, at least so many metres each way where the row is narrowest; a
// row at a pole is one cell.
type grid struct {
	metres float64
	rows   float64
	scale  float64 // power of ten of the decimals that are shown
}

func newGrid(metres int) grid {
	g := grid{metres: float64(metres), rows: float64(180 * latitudeM / metres), scale: 1}
	for g.scale*g.metres < 10*longitudeM && g.scale < 1e7 {
		g.scale *= 10
	}
	return g
}

// latitude returns the middle of lat's row.
func (g grid) latitude(lat float64) (middle float64, ok bool) {
	if !(lat >= -90 && lat <= 90) {
		return 0, false
	}
	return g.show((g.row(lat)+0.5)*180/g.rows - 90), true
}

func (g grid) row(lat float64) float64 {
	return min(math.Floor((lat+90)*g.rows/180), g.rows-1)
}

// longitude returns the middle of lon's cell in the row of middle, a latitude
// that latitude returned.
func (g grid) longitude(lon, middle float64) (_ float64, ok bool) {
	if !(lon >= -180 && lon <= 180) {
		return 0, false
	}
	cells := g.cells(g.row(middle))
	cell := math.Floor((lon + 180) * cells / 360)
	if cell >= cells {
		cell = 0 // 180° east is 180° west
	}
	return g.show((cell+0.5)*360/cells - 180), true
}

// cells counts the cells of a row, by its edge nearer to a pole.
func (g grid) cells(row float64) float64 {
	edge := max(math.Abs(row*180/g.rows-90), math.Abs((row+1)*180/g.rows-90))
	return max(1, math.Floor(360*longitudeM*math.Cos(edge*math.Pi/180)/g.metres))
}

// show rounds degrees to the decimals that a cell's size gives sense to.
func (g grid) show(degrees float64) float64 {
	return math.Round(degrees*g.scale)/g.scale + 0
}
