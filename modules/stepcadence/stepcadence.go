// Command stepcadence is a module: how many steps a minute somebody made. It owns the
// bands of cadence and how a rate follows from what a watch says, and must not know
// whose steps they are.
//
// Its parameters are {"cadence": "cadence", "per": 2, "steps": "steps", "bands": [1, 100, 130]}:
// the property that tells strides a minute, and how many steps one has; the property
// that counts the day's steps; and where bands 1, 2 and so on begin, in steps a minute;
// band 0 is below them. From 100 on walking is moderate exercise, from 130 on vigorous.
// Each is that if it isn't given.
//
// It puts out one line of JSON for each avatar: the seconds in each band, the steps, the
// mean cadence of the time in which there were steps, and the greatest. An avatar whose
// watch tells the cadence is judged by that alone, one whose watch only counts steps by
// the differences of its counts; "from" says which. A cadence counts until the next, at
// most for ten seconds; two counts tell a cadence if they are at most ten minutes apart.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"

	"carnet/modules/guest"
)

func init() { guest.Serve(&steps{}) }

func main() {}

const (
	longest  = 10e9  // ns: how long a cadence counts where no other follows
	farthest = 600e9 // ns: how far two counts may be from each other
)

type parameters struct {
	Cadence string    `json:"cadence"`
	Per     float64   `json:"per"`
	Steps   string    `json:"steps"`
	Bands   []float64 `json:"bands"`
}

// said is what a watch said at a time.
type said struct {
	time  int64
	value float64
}

// avatar is what was said of one.
type avatar struct{ cadences, counts []said }

type steps struct {
	parameters
	names   []string
	avatars map[string]*avatar
}

// Open implements guest.Program.
func (s *steps) Open(text []byte) error {
	*s = steps{parameters: parameters{Cadence: "cadence", Per: 2, Steps: "steps", Bands: []float64{1, 100, 130}}, avatars: make(map[string]*avatar)}
	if err := json.Unmarshal(text, &s.parameters); err != nil {
		return err
	}
	if s.Per <= 0 || len(s.Bands) == 0 || len(s.Bands) > 16 || !slices.IsSorted(s.Bands) || s.Bands[0] <= 0 {
		return errors.New("per is above 0, and bands are 1 to 16 rates above 0, in order")
	}
	return nil
}

// Take implements guest.Program.
func (s *steps) Take(name string, ms []guest.Measurement) error {
	a := s.avatars[name]
	if a == nil {
		a = new(avatar)
		s.names, s.avatars[name] = append(s.names, name), a
	}
	for i := range ms {
		switch m := &ms[i]; {
		case m.Kind != guest.Number || m.Number < 0:
		case m.Name == s.Cadence:
			a.cadences = append(a.cadences, said{m.Time, m.Number * s.Per})
		case m.Name == s.Steps:
			a.counts = append(a.counts, said{m.Time, m.Number})
		}
	}
	return nil
}

// cadence is what is put out of one avatar.
type cadence struct {
	Avatar       string    `json:"avatar"`
	From         string    `json:"from"` // which property told it
	Measurements int       `json:"measurements"`
	Steps        float64   `json:"steps"`
	Mean         float64   `json:"mean"` // steps a minute, while there were any
	Greatest     float64   `json:"greatest"`
	Seconds      []float64 `json:"seconds"` // in band 0, 1 and so on
}

// Close implements guest.Program.
func (s *steps) Close() error {
	var lines guest.Lines
	for _, name := range s.names {
		a := s.avatars[name]
		c := cadence{Avatar: name, From: s.Cadence, Measurements: len(a.cadences), Seconds: make([]float64, len(s.Bands)+1)}
		if len(a.cadences) > 0 {
			s.told(&c, a.cadences)
		} else {
			c.From, c.Measurements = s.Steps, len(a.counts)
			s.counted(&c, a.counts)
		}
		if active := sum(c.Seconds[1:]); active > 0 {
			c.Mean = c.Steps / active * 60
		}
		if err := lines.Put(c); err != nil {
			return err
		}
	}
	return lines.Flush()
}

func inOrder(all []said) {
	slices.SortStableFunc(all, func(a, b said) int { return cmp.Compare(a.time, b.time) })
}

func sum(all []float64) (n float64) {
	for _, one := range all {
		n += one
	}
	return n
}

// told goes by what the watch says is the cadence.
func (s *steps) told(c *cadence, all []said) {
	inOrder(all)
	for i, one := range all {
		lasts := float64(longest)
		if i+1 < len(all) {
			lasts = min(lasts, float64(all[i+1].time-one.time))
		}
		s.add(c, one.value, lasts/1e9)
	}
}

// counted goes by the differences of counts. A count that is less than the one before
// began anew in between: it is itself what was added at least.
func (s *steps) counted(c *cadence, all []said) {
	inOrder(all)
	for i := 1; i < len(all); i++ {
		lasts, more := float64(all[i].time-all[i-1].time), all[i].value-all[i-1].value
		if more < 0 {
			more = all[i].value
		}
		if lasts > 0 && lasts <= farthest {
			s.add(c, more/lasts*60e9, lasts/1e9)
		}
	}
}

// add counts a rate for so many seconds. Below the first band nobody is said to step.
func (s *steps) add(c *cadence, rate, seconds float64) {
	band := 0
	for band < len(s.Bands) && rate >= s.Bands[band] {
		band++
	}
	c.Seconds[band] += seconds
	if band > 0 {
		c.Steps += rate * seconds / 60
		c.Greatest = max(c.Greatest, rate)
	}
}
