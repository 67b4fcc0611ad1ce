package move

import (
	"slices"
	"time"

	"carnet/avatar"
)

// Amount is how much moves, as the manifest lists it.
type Amount struct {
	Streams      int    `json:"streams"`
	Stretches    int    `json:"stretches"`
	Batches      uint64 `json:"batches"`
	Measurements uint64 `json:"measurements"`
	Bytes        int64  `json:"bytes"`      // of the stretches, as they are stored
	Keys         int    `json:"keys"`       // of epochs
	Properties   int    `json:"properties"` // with a newest value

	// Left behind by the owner's order. Measurements of LeftClosed of the batches, which
	// couldn't be opened any more, aren't counted.
	LeftBatches      uint64 `json:"left_batches,omitempty"`
	LeftMeasurements uint64 `json:"left_measurements,omitempty"`
	LeftClosed       uint64 `json:"left_closed,omitempty"`
}

func amountOf(m *avatar.Manifest) Amount {
	all := Amount{Streams: len(m.Streams), Stretches: len(m.Stretches), Keys: len(m.Keys), Properties: len(m.State)}
	for i := range m.Stretches {
		s := &m.Stretches[i]
		all.Batches += uint64(s.Batches)
		all.Measurements += s.Measurements
		all.Bytes += int64(s.Size)
	}
	for i := range m.Streams {
		for _, l := range m.Streams[i].Left {
			if l.Crossing != m.Crossing {
				continue // of a move before
			}
			for _, r := range l.Runs {
				all.LeftBatches, all.LeftMeasurements, all.LeftClosed = all.LeftBatches+r.Batches, all.LeftMeasurements+r.Measurements, all.LeftClosed+r.Closed
			}
		}
	}
	return all
}

// Step is since when a move is, or was, in a state.
type Step struct {
	State State     `json:"state"`
	Time  time.Time `json:"time"`
}

// stepped notes a state, if it is another than the last one noted. What was noted is
// left as it is, for it may be read meanwhile.
func stepped(steps []Step, s State, now time.Time) []Step {
	if n := len(steps); n > 0 && steps[n-1].State == s {
		return steps
	}
	return append(slices.Clip(steps), Step{s, now.UTC()})
}
