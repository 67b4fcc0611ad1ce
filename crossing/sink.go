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

// Register implements link.Sink.
func (s Sink) Register(ctx context.Context, party carnet.PartyID, n link.Nonce, above uint64) (link.State, error) {
	st, err := s.Sink.Register(ctx, party, n, above)
	if err == nil {
		s.Shares.begun(party, n.Process())
	}
	return st, err
}

// Call implements link.Sink.
func (s Sink) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	if handled, err := s.Shares.Call(ctx, party, kind, body); handled {
		return nil, err
	}
	return s.Sink.Call(ctx, party, kind, body)
}
