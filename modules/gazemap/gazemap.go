// Command gazemap is a module: for how long somebody looked where. It owns the map and
// how a direction follows from what a headset says, and must not know whose gaze it is.
//
// Its parameters are {"property": "gaze", "columns": 36, "rows": 18}: the property that is
// read, and into how many cells the sphere around the head is cut: columns of equal
// yaw, from -180° (behind, on the left) to 180°, and rows of equal pitch, from 90° (up)
// to -90°. Each is that if it isn't given.
//
// The property has either the fields yaw and pitch, in degrees, or in radians where their
// unit is rad; or those of an orientation, as a unit quaternion: w, x, y and z. There the
// eyes look along -z, y is up and x is on the right, as in OpenXR. Fields of one time
// belong together; what lacks one doesn't count.
//
// It puts out one line of JSON for each avatar: the seconds in each cell, row by row; how
// long it looked in all; and the cell with the most. A direction counts until the next,
// at most for one second.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"

	"carnet/modules/guest"
)

func init() { guest.Serve(&gaze{}) }

func main() {}

const (
	longest   = 1e9    // ns: how long a direction counts where no other follows
	mostCells = 10_000 // so that a line fits into a part
)

type parameters struct {
	Property string `json:"property"`
	Columns  int    `json:"columns"`
	Rows     int    `json:"rows"`
}

// The fields, by their places in a look.
var fields = []string{"yaw", "pitch", "w", "x", "y", "z"}

// look is what was said at a time.
type look struct {
	time  int64
	value [6]float64
	has   byte // a bit for each field
}

const (
	hasAngles     = 1<<0 | 1<<1
	hasQuaternion = 1<<2 | 1<<3 | 1<<4 | 1<<5
)

type gaze struct {
	parameters
	avatars []string
	looks   map[string][]look
}

// Open implements guest.Program.
func (g *gaze) Open(text []byte) error {
	*g = gaze{parameters: parameters{Property: "gaze", Columns: 36, Rows: 18}, looks: make(map[string][]look)}
	if err := json.Unmarshal(text, &g.parameters); err != nil {
		return err
	}
	if g.Columns < 1 || g.Rows < 1 || g.Columns > mostCells || g.Rows > mostCells || g.Columns*g.Rows > mostCells {
		return errors.New("columns and rows are at least 1, and at most 10000 cells together")
	}
	return nil
}

// Take implements guest.Program.
func (g *gaze) Take(avatar string, ms []guest.Measurement) error {
	looks, known := g.looks[avatar]
	if !known {
		g.avatars = append(g.avatars, avatar)
	}
	for i := range ms {
		m := &ms[i]
		name, ok := strings.CutPrefix(m.Name, g.Property+"/")
		field := slices.Index(fields, name)
		if !ok || field < 0 || m.Kind != guest.Number {
			continue
		}
		if n := len(looks); n == 0 || looks[n-1].time != m.Time {
			looks = append(looks, look{time: m.Time})
		}
		l := &looks[len(looks)-1]
		l.value[field], l.has = m.Number, l.has|1<<field
		if field < 2 && m.Unit == "rad" {
			l.value[field] *= 180 / math.Pi
		}
	}
	g.looks[avatar] = looks
	return nil
}

// cell is one of the map's, by the direction of its middle.
type cell struct {
	Yaw     float64 `json:"yaw"`
	Pitch   float64 `json:"pitch"`
	Seconds float64 `json:"seconds"`
}

// heat is what is put out of one avatar.
type heat struct {
	Avatar     string      `json:"avatar"`
	Directions int         `json:"directions"` // that count
	Seconds    float64     `json:"seconds"`
	Most       *cell       `json:"most,omitempty"`
	Cells      [][]float64 `json:"cells"` // seconds: rows from up to down, of columns from left to right
}

// Close implements guest.Program.
func (g *gaze) Close() error {
	var lines guest.Lines
	for _, avatar := range g.avatars {
		if err := lines.Put(g.heatOf(avatar)); err != nil {
			return err
		}
	}
	return lines.Flush()
}

func (g *gaze) heatOf(avatar string) heat {
	h := heat{Avatar: avatar, Cells: make([][]float64, g.Rows)}
	for i := range h.Cells {
		h.Cells[i] = make([]float64, g.Columns)
	}
	looks := whole(g.looks[avatar])
	h.Directions = len(looks)
	for i := range looks {
		lasts := float64(longest)
		if i+1 < len(looks) {
			lasts = min(lasts, float64(looks[i+1].time-looks[i].time))
		}
		yaw, pitch := looks[i].direction()
		column := min(int((yaw+180)/360*float64(g.Columns)), g.Columns-1)
		row := min(int((90-pitch)/180*float64(g.Rows)), g.Rows-1)
		h.Cells[row][column] += lasts / 1e9
		h.Seconds += lasts / 1e9
	}
	for row := range h.Cells {
		for column, seconds := range h.Cells[row] {
			if seconds > 0 && (h.Most == nil || seconds > h.Most.Seconds) {
				h.Most = &cell{(float64(column)+0.5)*360/float64(g.Columns) - 180, 90 - (float64(row)+0.5)*180/float64(g.Rows), seconds}
			}
		}
	}
	return h
}

// whole brings looks in order, joins those of one time, and leaves out those that tell
// no direction.
func whole(looks []look) []look {
	slices.SortStableFunc(looks, func(a, b look) int { return cmp.Compare(a.time, b.time) })
	joined := looks[:0]
	for _, l := range looks {
		if n := len(joined); n > 0 && joined[n-1].time == l.time {
			for i := range l.value {
				if l.has&(1<<i) != 0 {
					joined[n-1].value[i] = l.value[i]
				}
			}
			joined[n-1].has |= l.has
			continue
		}
		joined = append(joined, l)
	}
	return slices.DeleteFunc(joined, func(l look) bool {
		if l.has&hasAngles == hasAngles {
			return false
		}
		norm := 0.0
		for _, v := range l.value[2:] {
			norm += v * v
		}
		return l.has&hasQuaternion != hasQuaternion || norm < 0.5 || norm > 2
	})
}

// direction is where somebody looks, in degrees: yaw from -180 to 180, growing to the
// right, pitch from -90 to 90, growing upwards.
func (l *look) direction() (yaw, pitch float64) {
	if l.has&hasAngles == hasAngles {
		yaw, pitch = math.Mod(l.value[0], 360), max(-90, min(90, l.value[1]))
	} else {
		w, x, y, z := l.value[2], l.value[3], l.value[4], l.value[5]
		norm := w*w + x*x + y*y + z*z
		// The quaternion turns -z; what comes out is a unit vector.
		right, up, ahead := -2*(x*z+w*y)/norm, -2*(y*z-w*x)/norm, (w*w-x*x-y*y+z*z)/norm
		yaw, pitch = math.Atan2(right, ahead)*180/math.Pi, math.Asin(max(-1, min(1, up)))*180/math.Pi
	}
	switch {
	case yaw >= 180:
		yaw -= 360
	case yaw < -180:
		yaw += 360
	}
	return yaw, pitch
}
