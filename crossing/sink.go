package crossing

import (
	"context"

	"carnet"
	"carnet/link"
)

// Sink is a world's end of links: what is about shares goes to its Agent,
// everything else to the world.
type Sink struct {
	link.Sink
	Shares *Agent
}

// Call implements link.Sink.
func (s Sink) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	if handled, err := s.Shares.Call(ctx, party, kind, body); handled {
		return nil, err
	}
	return s.Sink.Call(ctx, party, kind, body)
}
