package crossing

import (
	"context"
	"encoding/json"
	"testing"

	"carnet"
)

// heads answers each question with a page of one stream, which says much about it.
type heads int

func (h *heads) Call(context.Context, string, []byte) ([]byte, error) {
	*h++
	return json.Marshal(carnet.HeadsPage{More: *h < 10, Heads: []carnet.StreamHead{{
		Stream: carnet.StreamID{byte(*h)}, NextFirst: uint64(*h), Latest: make([]carnet.SeenMeasurement, 1000),
	}}})
}

// Of what a taker tells of its streams nothing is kept but where they stand.
func TestHeadsKeepNoMeasurements(t *testing.T) {
	s := &Source{call: new(heads)}
	got, err := s.ask(t.Context())
	if err != nil || len(got) != 10 {
		t.Fatalf("%d streams, %v", len(got), err)
	}
	for id, h := range got {
		if h.Latest != nil || h.NextFirst != uint64(id[0]) {
			t.Errorf("stream %s has %d measurements, and stands at %d", id, len(h.Latest), h.NextFirst)
		}
	}
}
