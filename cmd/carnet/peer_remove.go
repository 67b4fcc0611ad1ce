package main

import (
	"context"
	"fmt"

	"carnet"
	"carnet/api/client"
	"carnet/identity"
	"carnet/peering"
)

type peerRemove struct {
	named
	Yes bool `help:"Remove it without being asked, once it is shown what stops."`
}

// Run shows what goes with a peering, and ends it once somebody has said yes.
func (c peerRemove) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx, c.Name)
	if err != nil {
		return err
	}
	cl, party, p := h.cl, h.at, h.is
	stops, err := stopsWith(ctx, cl, party.Role, c.Name)
	if err != nil {
		return err
	}
	switch p.State {
	case peering.Active, peering.Suspended, peering.Over:
		fmt.Fprintf(s.err, "The peering of %s with %s, which is %s, ends for good, and nobody else gets the name.\n", party.Name, plain(string(p.Name)), p.State)
	default:
		fmt.Fprintf(s.err, "The exchange of %s with %s, which is %s, is given up.\n", party.Name, plain(string(p.Name)), p.State)
	}
	for _, what := range stops {
		fmt.Fprintln(s.err, " ", plain(what))
	}
	if yes, err := saysYes(s, c.Yes, "Remove it"); err != nil {
		return err
	} else if !yes {
		return carnet.Errorf(carnet.Forbidden, "the peering is not removed").WithFix("type yes, or add --yes; to let nothing be done for now: carnet peer suspend %s", c.Name)
	}
	if p, err = cl.RemovePeer(ctx, c.Name); err != nil {
		return err
	}
	return showPeer(s, p, c.JSON)
}

// stopsWith says which mappings and shares stop when a peering ends.
func stopsWith(ctx context.Context, cl *client.Client, role identity.Role, peer carnet.PartyID) (all []string, err error) {
	switch role {
	case identity.Things:
		things, err := cl.Things(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range things {
			for _, m := range t.Mappings {
				if m.World == peer && !m.Stopped {
					all = append(all, fmt.Sprintf("mapping %s stops: %s gets nothing more of %s, as avatar %s", m.ID, peer, t.ID, m.Avatar))
				}
			}
		}
	case identity.World:
		shares, err := cl.Shares(ctx)
		if err != nil {
			return nil, err
		}
		for _, h := range shares {
			if h.World == peer && h.Ended == nil {
				all = append(all, fmt.Sprintf("share %s stops (%s): nothing more passes between avatar %s here and avatar %s at %s", h.ID, h.Direction, h.Ours, h.Theirs, peer))
			}
		}
	}
	return all, nil
}
