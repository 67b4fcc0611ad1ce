// Command heartzones is a module: how long a heart was in which zone. It owns the
// zones and what counts as time in one, and must not know whose heart it is.
//
// Its parameters are {"property": "heart_rate", "max": 190, "zones": [0.5, 0.6, 0.7, 0.8, 0.9]}:
// the property that is read, the greatest heart rate, and where zones 1 to 5 begin, as
// parts of it; zone 0 is below them. Each is that if it isn't given.
//
// It puts out one line of JSON for each avatar: the seconds in each zone, the least,
// mean and greatest heart rate, and of how many measurements. A measurement counts until
// the next, at most for ten seconds.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"slices"

	"carnet/modules/guest"
)

func init() { guest.Serve(&heart{}) }

func main() {}

// longest is how long a measurement counts where no other follows.
const longest = 10e9 // ns

type parameters struct {
	Property string    `json:"property"`
	Max      float64   `json:"max"`
	Zones    []float64 `json:"zones"`
}

type beat struct {
	time int64
	rate float64
}

type heart struct {
	parameters
	avatars []string
	beats   map[string][]beat
}

// Open implements guest.Program.
func (h *heart) Open(text []byte) error {
	*h = heart{parameters: parameters{Property: "heart_rate", Max: 190, Zones: []float64{0.5, 0.6, 0.7, 0.8, 0.9}}, beats: make(map[string][]beat)}
	if err := json.Unmarshal(text, &h.parameters); err != nil {
		return err
	}
	if h.Max <= 0 || len(h.Zones) == 0 || len(h.Zones) > 16 || !slices.IsSorted(h.Zones) || h.Zones[0] <= 0 {
		return errors.New("max is above 0, and zones are 1 to 16 parts of it, in order")
	}
	return nil
}

// Take implements guest.Program.
func (h *heart) Take(avatar string, ms []guest.Measurement) error {
	if _, ok := h.beats[avatar]; !ok {
		h.avatars, h.beats[avatar] = append(h.avatars, avatar), nil
	}
	for i := range ms {
		if m := &ms[i]; m.Name == h.Property && m.Kind == guest.Number {
			h.beats[avatar] = append(h.beats[avatar], beat{m.Time, m.Number})
		}
	}
	return nil
}

// zones is what is put out of one avatar.
type zones struct {
	Avatar       string    `json:"avatar"`
	Measurements int       `json:"measurements"`
	Least        float64   `json:"least"`
	Mean         float64   `json:"mean"`
	Greatest     float64   `json:"greatest"`
	Seconds      []float64 `json:"seconds"` // in zone 0, 1 and so on
}

// Close implements guest.Program.
func (h *heart) Close() error {
	var lines guest.Lines
	for _, avatar := range h.avatars {
		if err := lines.Put(h.zonesOf(avatar)); err != nil {
			return err
		}
	}
	return lines.Flush()
}

func (h *heart) zonesOf(avatar string) zones {
	beats := h.beats[avatar]
	slices.SortStableFunc(beats, func(a, b beat) int { return cmp.Compare(a.time, b.time) })
	z := zones{Avatar: avatar, Measurements: len(beats), Seconds: make([]float64, len(h.Zones)+1)}
	if len(beats) == 0 {
		return z
	}
	z.Least, z.Greatest = math.Inf(1), math.Inf(-1)
	sum := 0.0
	for i, b := range beats {
		lasts := float64(longest)
		if i+1 < len(beats) {
			lasts = min(lasts, float64(beats[i+1].time-b.time))
		}
		zone := 0
		for zone < len(h.Zones) && b.rate >= h.Zones[zone]*h.Max {
			zone++
		}
		z.Seconds[zone] += lasts / 1e9
		z.Least, z.Greatest = min(z.Least, b.rate), max(z.Greatest, b.rate)
		sum += b.rate
	}
	z.Mean = sum / float64(len(beats))
	return z
}
