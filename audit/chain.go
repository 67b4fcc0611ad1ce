package audit

import (
	"context"

	"carnet"
)

// Part is one of several mappings of a thing that follow one another, because the
// avatar that it is of moved from world to world.
type Part struct {
	Config Config
	Held   Holdings // what the avatar's world holds now of this part's stream
	// Moved is how many measurements of the stream moved to the next part's world;
	// of the last part it means nothing.
	Moved uint64
}

// Chain makes one mapping of parts, oldest first: each goes on where the one before
// ends, with its memory. What a part's views decided from where the next one begins
// is void, for the next one's decide there; what is held of a part beyond what moved
// has numbers that are the next one's, and so is doubled.
func Chain(parts ...Part) (cfg Config, held Holdings, err error) {
	if len(parts) == 0 {
		return cfg, nil, carnet.Errorf(carnet.Malformed, "there is no mapping to audit")
	}
	cfg.From, cfg.Upto = parts[0].Config.From, parts[len(parts)-1].Config.Upto
	for _, p := range parts {
		for _, v := range p.Config.Views {
			v.Version = uint64(len(cfg.Views) + 1) // each world has a count of its own
			cfg.Views = append(cfg.Views, v)
		}
	}
	return cfg, func(ctx context.Context, do func(Held) error) error {
		first := uint64(0)
		for _, p := range parts {
			err := p.Held(ctx, func(h Held) error {
				h.Number += first
				return do(h)
			})
			if err != nil {
				return err
			}
			first += p.Moved
		}
		return nil
	}, nil
}
