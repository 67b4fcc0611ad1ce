package file

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"carnet"
)

// MaxGenerated is the longest recording that Generate makes.
const MaxGenerated = 24 * time.Hour

// Generate makes the recording of a run that ends at end, one value of every
// property of a watch each second: warming up, running over hills at a pace that
// comes and goes, waiting at lights. The heart follows the effort with a delay,
// and the way bends back to where it began. The same arguments give the same
// recording; WriteFIT holds it exactly. d is cut to MaxGenerated.
func Generate(seed uint64, d time.Duration, end time.Time) *Recording {
	n := int(min(d, MaxGenerated) / time.Second)
	r := newRecorder(fmt.Sprintf("run-%d.fit", seed), Message)
	run := newRunner(seed)
	r.rec.Measurements = make([]carnet.Measurement, 0, 9*max(n, 0))
	for i := range n {
		at := (end.Unix() - int64(n-1-i)) * int64(time.Second)
		run.second(i)
		r.rec.Measurements = run.measure(r.rec.Measurements, at)
	}
	return r.finish()
}

// runner is somebody with a watch.
type runner struct {
	rand     *rand.Rand
	speed    float64
	goal     float64 // the speed that is wanted now
	heart    float64
	distance float64
	heading  float64 // radians from north
	north    float64 // metres from the start
	east     float64
	lat, lon float64 // of the start
	steps    float64
	strides  float64 // a minute
	stress   float64
	waiting  int // seconds left at a light
	hills    [3]float64
}

func newRunner(seed uint64) *runner {
	rng := rand.New(rand.NewPCG(seed, 0x6361726e6574)) // "carnet"
	r := &runner{rand: rng, heart: 72, goal: 1.5, stress: 28}
	r.lat, r.lon = 55.4780+rng.Float64()*0.01, 8.4500+rng.Float64()*0.03
	r.heading = rng.Float64() * 2 * math.Pi
	r.steps = 1200 + float64(rng.IntN(3000))
	for i := range r.hills {
		r.hills[i] = rng.Float64() * 2 * math.Pi
	}
	return r
}

// altitude is the land: three waves along the way.
func (r *runner) altitude(distance float64) float64 {
	return 24 + 9*math.Sin(distance/900+r.hills[0]) + 4*math.Sin(distance/310+r.hills[1]) + 1.2*math.Sin(distance/95+r.hills[2])
}

// second lets one second pass.
func (r *runner) second(i int) {
	slope := (r.altitude(r.distance+5) - r.altitude(r.distance)) / 5
	r.pace(i, slope)
	r.speed = max(0, r.speed+(r.goal-r.speed)*0.25+r.rand.NormFloat64()*0.05)
	if r.waiting > 0 && r.speed < 0.3 {
		r.speed = 0
	}
	r.distance += r.speed
	r.turn()
	effort := 70 + 28*r.speed + 240*max(slope, -0.1)*r.speed/3
	lag := 0.03
	if effort < r.heart {
		lag = 0.015 // it slows more slowly than it quickens
	}
	r.heart = min(192, r.heart+(effort-r.heart)*lag+r.rand.NormFloat64()*0.4)
	r.strides = 0
	if r.speed > 0.4 {
		r.strides = 46 + 13*r.speed + r.rand.NormFloat64()
	}
	r.steps += r.strides * 2 / 60
	r.stress = min(100, max(1, r.stress+((r.heart-60)*0.6-r.stress)*0.01+r.rand.NormFloat64()*0.3))
}

// pace decides how fast to go: warming up at first, now and then a light.
func (r *runner) pace(i int, slope float64) {
	switch {
	case r.waiting > 0:
		if r.waiting--; r.waiting == 0 {
			r.goal = 2.8
		}
	case i > 60 && r.rand.IntN(400) == 0:
		r.waiting, r.goal = 10+r.rand.IntN(30), 0
	case r.rand.IntN(45) == 0:
		warm := min(1, 0.5+float64(i)/240)
		r.goal = max(1.2, warm*(2.9+0.35*r.rand.NormFloat64())-6*slope)
	}
}

// turn bends the way; the farther from the start, the more towards it.
func (r *runner) turn() {
	home := math.Atan2(-r.east, -r.north)
	far := min(1, math.Hypot(r.north, r.east)/1500)
	r.heading += r.rand.NormFloat64()*0.02 + far*far*0.03*math.Sin(home-r.heading)
	r.north += r.speed * math.Cos(r.heading)
	r.east += r.speed * math.Sin(r.heading)
}

// measure appends what the watch sees, as a FIT file can hold it.
func (r *runner) measure(ms []carnet.Measurement, at int64) []carnet.Measurement {
	const metresPerDegree = 111_195
	lat := r.lat + r.north/metresPerDegree
	lon := r.lon + r.east/(metresPerDegree*math.Cos(r.lat*math.Pi/180))
	warmth := 31 - 6*math.Exp(-r.distance/1500) - 0.05*r.altitude(r.distance)
	for _, x := range [...]struct {
		name, unit string
		v          float64
	}{
		{"heart_rate", "beat/min", math.Round(r.heart)},
		{"speed", "m/s", math.Round(r.speed*1000) / 1000},
		{"altitude", "m", math.Round(r.altitude(r.distance)*5) / 5},
		{"cadence", "1/min", math.Round(r.strides)},
		{"position/lat", "lat", degrees(semicircles(lat))},
		{"position/lon", "lon", degrees(semicircles(lon))},
		{"temperature", "Cel", math.Round(warmth)},
		{"stress", "", math.Round(r.stress)},
		{"steps", "count", math.Floor(r.steps)},
	} {
		ms = append(ms, carnet.Measurement{Name: x.name, Unit: x.unit, Time: at, Value: carnet.Float(x.v)})
	}
	return ms
}
