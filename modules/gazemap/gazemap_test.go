package main

import (
	"encoding/json"
	"math"
	"strconv"
	"testing"
	"time"

	"carnet/modules/guest"
	"carnet/modules/moduletest"
)

func angles(at time.Duration, yaw, pitch float64) []guest.Measurement {
	return []guest.Measurement{moduletest.Number("gaze/yaw", at, yaw, "deg"), moduletest.Number("gaze/pitch", at, pitch, "deg")}
}

// turned is an orientation: so many degrees about an axis (x, y or z).
func turned(at time.Duration, axis string, degrees float64) (ms []guest.Measurement) {
	half := degrees / 2 * math.Pi / 180
	for _, f := range []string{"w", "x", "y", "z"} {
		v := 0.0
		switch f {
		case "w":
			v = math.Cos(half)
		case axis:
			v = math.Sin(half)
		}
		ms = append(ms, moduletest.Number("gaze/"+f, at, v, ""))
	}
	return ms
}

func heated(t *testing.T, parameters string, said ...moduletest.Said) (h heat) {
	t.Helper()
	out, err := moduletest.Run(t, &gaze{}, parameters, said...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &h)
	}
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return h
}

// Each way of saying a direction comes to the cell in which it lies.
func TestDirections(t *testing.T) {
	const right, left, up, down, behind = 7, 4, 1, 4, 0 // of 12 columns and 6 rows: each has 30°
	for name, c := range map[string]struct {
		ms          []guest.Measurement
		row, column int
	}{
		"ahead":                       {angles(0, 1, -1), 3, 6},
		"on the right":                {angles(0, 45, -1), 3, right},
		"on the left":                 {angles(0, -45, -1), 3, left},
		"up":                          {angles(0, 1, 45), up, 6},
		"down":                        {angles(0, 1, -45), down, 6},
		"straight up":                 {angles(0, 1, 90), 0, 6},
		"further up than there is":    {angles(0, 1, 500), 0, 6},
		"straight down":               {angles(0, 1, -90), 5, 6},
		"behind":                      {angles(0, 180, -1), 3, behind},
		"once around":                 {angles(0, 405, -1), 3, right},
		"radians":                     {[]guest.Measurement{moduletest.Number("gaze/yaw", 0, math.Pi/4, "rad"), moduletest.Number("gaze/pitch", 0, -0.01, "rad")}, 3, right},
		"turned about y, to the left": {turned(0, "y", 45), 3, left},
		"turned to the right":         {turned(0, "y", -45), 3, right},
		"turned up":                   {turned(0, "x", 45), up, 6},
		"turned down":                 {turned(0, "x", -45), down, 6},
	} {
		h := heated(t, `{"columns":12,"rows":6}`, moduletest.Said{Avatar: "a1", Measurements: c.ms})
		if h.Cells[c.row][c.column] != 1 || h.Seconds != 1 || h.Directions != 1 {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func TestGazeMap(t *testing.T) {
	// The fields of one time come in two halves, and late.
	var ms []guest.Measurement
	ms = append(ms, angles(2500*time.Millisecond, 100, 45)...)
	ms = append(ms, angles(0, -100, -45)[0], angles(500*time.Millisecond, 100, 45)[1])
	more := []guest.Measurement{angles(0, -100, -45)[1], angles(500*time.Millisecond, 100, 45)[0], moduletest.Number("gaze/yaw", 3*time.Second, 5, "deg"), moduletest.Number("gaze", 1, 5, ""),
		{Name: "gaze/pitch", Time: int64(3 * time.Second), Kind: guest.Text, Text: "5"}}
	said := []moduletest.Said{{Avatar: "a1", Measurements: ms}, {Avatar: "a1", Measurements: more}}
	got, err := moduletest.Run(t, &gaze{}, `{"columns":2,"rows":2}`, said...)
	if want := `{"avatar":"a1","directions":3,"seconds":2.5,"most":{"yaw":90,"pitch":45,"seconds":2},"cells":[[0,2],[0.5,0]]}`; err != nil || got != want+"\n" {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	for _, wrong := range []string{`{"columns":0}`, `{"rows":-1}`, `{"columns":101,"rows":100}`, `{"columns":4000000000,"rows":4000000000}`, `""`} {
		if _, err := moduletest.Run(t, &gaze{}, wrong); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
	// No direction follows from a quaternion that is none, or lacks a part.
	none := turned(0, "y", 30)
	for i := range none {
		none[i].Number = 0
	}
	h := heated(t, "", moduletest.Said{Avatar: "a1", Measurements: append(none, turned(time.Second, "y", 30)[:3]...)})
	if h.Directions != 0 || h.Most != nil {
		t.Errorf("%+v", h)
	}
}

// The largest map fits into a part of the output.
func TestLargestMap(t *testing.T) {
	var ms []guest.Measurement
	for i := range mostCells {
		ms = append(ms, angles(time.Duration(i)*333333333, -180+float64(i%100)*3.6+1, 90-float64(i/100)*1.8-0.5)...)
	}
	h := heated(t, `{"columns":100,"rows":`+strconv.Itoa(mostCells/100)+`}`, moduletest.Said{Avatar: "a1", Measurements: ms})
	line, err := json.Marshal(h)
	if err != nil || len(line) > 512<<10 || h.Directions != mostCells {
		t.Errorf("%d directions in %d bytes, %v", h.Directions, len(line), err)
	}
}
