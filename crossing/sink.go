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
	before, err := s.State(ctx, party)
	if err != nil {
		return before, err
	}
	tells := above > before.Incarnation // the party knows of a connection that this store doesn't
	if tells {
		if err := s.Shares.restored(ctx, party); err != nil {
			return before, err
		}
	}
	st, err := s.Sink.Register(ctx, party, n, above)
	if err == nil {
		if tells {
			s.Shares.believe(party)
		}
		s.Shares.begun(party, n.Process())
	}
	return st, err
}

// Call implements link.Sink.
func (s Sink) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	if answer, handled, err := s.Shares.Call(ctx, party, kind, body); handled {
		return answer, err
	}
	return s.Sink.Call(ctx, party, kind, body)
}
