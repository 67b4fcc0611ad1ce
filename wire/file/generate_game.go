package file

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"carnet"
)

// headsetEvery is how often a generated headset tells where its wearer looks.
const headsetEvery = 100 * time.Millisecond

// GenerateHeadset makes the recording of a game that ends at end, as a headset tells
// it: where the head is and where it looks, ten times a second. The player stands, looks
// from one thing to the next, most of them in front, and ducks now and then. The same
// arguments give the same recording. d is cut to MaxGenerated.
func GenerateHeadset(seed uint64, d time.Duration, end time.Time) *Recording {
	n := int(min(d, MaxGenerated) / headsetEvery)
	r := newRecorder(fmt.Sprintf("game-%d.csv", seed), Line)
	p := newPlayer(seed)
	r.rec.Measurements = make([]carnet.Measurement, 0, 7*max(n, 0))
	for i := range n {
		p.moment()
		r.rec.Measurements = p.measure(r.rec.Measurements, end.UnixNano()-int64(n-1-i)*int64(headsetEvery))
	}
	return r.finish()
}

// player is somebody with a headset.
type player struct {
	rand       *rand.Rand
	yaw, pitch float64 // radians: to the left, and up
	to         [2]float64
	stays      int // moments until it looks elsewhere
	sway       [2]float64
	ducks      int // moments for which it still ducks
	height     float64
}

func newPlayer(seed uint64) *player {
	return &player{rand: rand.New(rand.NewPCG(seed, 0x67616d65))} // "game"
}

// moment lets a tenth of a second pass.
func (p *player) moment() {
	if p.stays--; p.stays < 0 {
		p.stays = 3 + p.rand.IntN(25)
		p.to = [2]float64{p.rand.NormFloat64() * 0.7, p.rand.NormFloat64()*0.25 - 0.1}
		if p.rand.IntN(12) == 0 { // somebody is behind it
			p.to[0] += math.Pi
		}
	}
	p.yaw += (p.to[0]-p.yaw)*0.35 + p.rand.NormFloat64()*0.006
	p.pitch = max(-1.4, min(1.4, p.pitch+(p.to[1]-p.pitch)*0.35+p.rand.NormFloat64()*0.004))
	for i := range p.sway {
		p.sway[i] += -0.02*p.sway[i] + p.rand.NormFloat64()*0.006
	}
	if p.ducks--; p.ducks < 0 && p.rand.IntN(150) == 0 {
		p.ducks = 8 + p.rand.IntN(12)
	}
	down := 0.0
	if p.ducks > 0 {
		down = -0.45
	}
	p.height += (down - p.height) * 0.3
}

// measure appends what the headset tells.
func (p *player) measure(ms []carnet.Measurement, at int64) []carnet.Measurement {
	// A turn about y, and then one about the x that this made.
	cy, sy, cx, sx := math.Cos(p.yaw/2), math.Sin(p.yaw/2), math.Cos(p.pitch/2), math.Sin(p.pitch/2)
	for _, x := range [...]struct {
		name, unit string
		v          float64
	}{
		{"head/x", "m", p.sway[0]}, {"head/y", "m", p.height}, {"head/z", "m", p.sway[1]},
		{"gaze/w", "", cy * cx}, {"gaze/x", "", cy * sx}, {"gaze/y", "", sy * cx}, {"gaze/z", "", -sy * sx},
	} {
		ms = append(ms, carnet.Measurement{Name: x.name, Unit: x.unit, Time: at, Value: carnet.Float(math.Round(x.v*1e6) / 1e6)})
	}
	return ms
}

// GenerateBand makes the recording of a band on the arm of somebody who plays: its body
// warms up slowly, and the room a little. One of each a second.
func GenerateBand(seed uint64, d time.Duration, end time.Time) *Recording {
	n := int(min(d, MaxGenerated) / time.Second)
	r := newRecorder(fmt.Sprintf("band-%d.csv", seed), Line)
	rng := rand.New(rand.NewPCG(seed, 0x62616e64)) // "band"
	body, room := 36.4+rng.Float64()*0.4, 20+rng.Float64()*3
	for i := range n {
		at := end.UnixNano() - int64(n-1-i)*int64(time.Second)
		body += (37.6-body)*0.0015 + rng.NormFloat64()*0.01
		room += (24.5-room)*0.0004 + rng.NormFloat64()*0.004
		r.rec.Measurements = append(r.rec.Measurements,
			carnet.Measurement{Name: "body_temperature", Unit: "Cel", Time: at, Value: carnet.Float(math.Round(body*100) / 100)},
			carnet.Measurement{Name: "temperature", Unit: "Cel", Time: at, Value: carnet.Float(math.Round(room*100) / 100)})
	}
	return r.finish()
}
