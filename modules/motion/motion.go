// Command motion is a module: what somebody was doing, told from what their watch
// measured (activity recognition). It owns the rules by which that is told, and must not
// know who it is.
//
// Its parameters are {"heart_rate": "heart_rate", "speed": "speed", "cadence": "cadence",
// "steps": "steps", "per": 2, "rest": 60, "max": 190, "window": 30}: the properties that
// are read; how many steps one stride of the cadence has; the heart rates at rest and at
// most; and how many seconds are judged together. Each is that if it isn't given.
//
// It puts out, for each avatar, one line of JSON with the seconds of each kind, and then
// one for each stretch of one kind, with the means of what was measured in it. Windows in
// which nothing was measured belong to no stretch. The kinds:
//
//	running  130 steps a minute and more
//	walking  40 steps a minute and more
//	cycling  2.5 m/s and more, no steps, and a heart that works (40 % of its reserve)
//	riding   2.5 m/s and more, no steps: carried by something
//	working  no steps, no speed, and a heart that works
//	still    nothing of these
//
// A cadence beyond 4 m/s with fewer than 130 steps a minute is of pedals, not of steps.
package main

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"carnet/modules/guest"
)

func init() { guest.Serve(&motion{}) }

func main() {}

type parameters struct {
	HeartRate string  `json:"heart_rate"`
	Speed     string  `json:"speed"`
	Cadence   string  `json:"cadence"`
	Steps     string  `json:"steps"`
	Per       float64 `json:"per"`
	Rest      float64 `json:"rest"`
	Max       float64 `json:"max"`
	Window    int64   `json:"window"`
}

// mean is a mean in the making.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(v float64) { m.sum, m.n = m.sum+v, m.n+1 }

func (m *mean) join(o mean) { m.sum, m.n = m.sum+o.sum, m.n+o.n }

// value is the mean, 0 of nothing.
func (m *mean) value() float64 {
	if m.n == 0 {
		return 0
	}
	return m.sum / float64(m.n)
}

// shown is the mean as it is put out: with three digits, and nothing of nothing.
func (m *mean) shown() *float64 {
	if m.n == 0 {
		return nil
	}
	v := math.Round(m.value()*1000) / 1000
	return &v
}

// count is what a counter of steps said at a time, if it did.
type count struct {
	at    int64
	steps float64
	is    bool
}

// window is what was measured within one.
type window struct {
	heart, speed, cadence mean
	// The first and the last count of steps.
	first, last count
}

type motion struct {
	parameters
	names   []string
	windows map[string]map[int64]*window // of avatars, by their number since 1970
}

// Open implements guest.Program.
func (p *motion) Open(text []byte) error {
	*p = motion{
		parameters: parameters{HeartRate: "heart_rate", Speed: "speed", Cadence: "cadence", Steps: "steps", Per: 2, Rest: 60, Max: 190, Window: 30},
		windows:    make(map[string]map[int64]*window),
	}
	if err := json.Unmarshal(text, &p.parameters); err != nil {
		return err
	}
	if p.Per <= 0 || p.Rest <= 0 || p.Max <= p.Rest || p.Window < 1 || p.Window > 3600 {
		return errors.New("per and rest are above 0, max is above rest, and a window has 1 to 3600 seconds")
	}
	return nil
}

// Take implements guest.Program.
func (p *motion) Take(name string, ms []guest.Measurement) error {
	all := p.windows[name]
	if all == nil {
		all = make(map[int64]*window)
		p.names, p.windows[name] = append(p.names, name), all
	}
	for i := range ms {
		m := &ms[i]
		if m.Kind != guest.Number || !slices.Contains([]string{p.HeartRate, p.Speed, p.Cadence, p.Steps}, m.Name) {
			continue
		}
		number := m.Time / (p.Window * 1e9)
		w := all[number]
		if w == nil {
			w = new(window)
			all[number] = w
		}
		switch m.Name {
		case p.HeartRate:
			w.heart.add(m.Number)
		case p.Speed:
			w.speed.add(m.Number)
		case p.Cadence:
			w.cadence.add(m.Number * p.Per)
		case p.Steps:
			w.counted(count{m.Time, m.Number, true})
		}
	}
	return nil
}

// counted notes a count of steps.
func (w *window) counted(c count) {
	if !w.first.is || c.at < w.first.at {
		w.first = c
	}
	if !w.last.is || c.at >= w.last.at {
		w.last = c
	}
}

// rate is the steps a minute of a window: as the watch told it, or by its counts from
// the window before on. It is unknown without either.
func (w *window) rate(before *window) (rate float64, known bool) {
	if w.cadence.n > 0 {
		return w.cadence.value(), true
	}
	from := w.first
	if before != nil && before.last.is {
		from = before.last
	}
	if !w.last.is || w.last.at <= from.at || w.last.steps < from.steps {
		return 0, false
	}
	return (w.last.steps - from.steps) / float64(w.last.at-from.at) * 60e9, true
}

// kindOf tells what somebody did in a window.
func (p *motion) kindOf(w *window, rate float64) string {
	moves, works := w.speed.value() >= 2.5, (w.heart.value()-p.Rest)/(p.Max-p.Rest) >= 0.4
	pedals := w.speed.value() >= 4 && rate < 130
	switch {
	case rate >= 130:
		return "running"
	case rate >= 40 && !pedals:
		return "walking"
	case moves && (works || rate >= 40):
		return "cycling"
	case moves:
		return "riding"
	case works:
		return "working"
	}
	return "still"
}

// stretch is put out of a time in which somebody did one thing.
type stretch struct {
	Avatar    string   `json:"avatar"`
	Kind      string   `json:"kind"`
	From      string   `json:"from"`
	To        string   `json:"to"`
	HeartRate *float64 `json:"heart_rate,omitempty"`
	Speed     *float64 `json:"speed,omitempty"`
	Steps     *float64 `json:"steps,omitempty"` // a minute
}

// totals are put out of one avatar.
type totals struct {
	Avatar    string           `json:"avatar"`
	Seconds   map[string]int64 `json:"seconds"`
	Stretches int              `json:"stretches"`
}

// spell is a stretch in the making: windows from first to last.
type spell struct {
	kind               string
	first, last        int64
	heart, speed, rate mean
}

// spells joins an avatar's windows to stretches.
func (p *motion) spells(name string) (all []spell) {
	windows := p.windows[name]
	for _, number := range slices.Sorted(maps.Keys(windows)) {
		w := windows[number]
		rate, known := w.rate(windows[number-1])
		kind := p.kindOf(w, rate)
		if n := len(all); n == 0 || all[n-1].kind != kind || all[n-1].last+1 != number {
			all = append(all, spell{kind: kind, first: number})
		}
		s := &all[len(all)-1]
		s.last = number
		s.heart.join(w.heart)
		s.speed.join(w.speed)
		if known {
			s.rate.add(rate)
		}
	}
	return all
}

// Close implements guest.Program.
func (p *motion) Close() error {
	var lines guest.Lines
	for _, name := range p.names {
		all := p.spells(name)
		t := totals{name, make(map[string]int64), len(all)}
		for i := range all {
			t.Seconds[all[i].kind] += (all[i].last + 1 - all[i].first) * p.Window
		}
		if err := lines.Put(t); err != nil {
			return err
		}
		for i := range all {
			s := &all[i]
			at := func(window int64) string { return time.Unix(window*p.Window, 0).UTC().Format(time.RFC3339) }
			if err := lines.Put(stretch{name, s.kind, at(s.first), at(s.last + 1), s.heart.shown(), s.speed.shown(), s.rate.shown()}); err != nil {
				return err
			}
		}
	}
	return lines.Flush()
}
