package demo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"carnet"
	"carnet/thing"
)

// Refusals are the messages of this run that the agent refused for one reason.
// Reasons that differ only in the times and values that they name are one.
type Refusals struct {
	Code     carnet.Code `json:"code"`
	Messages uint64      `json:"messages"`
	Reason   string      `json:"reason"` // the newest one's
	Fix      string      `json:"fix,omitempty"`
}

// refused is how many messages of the sensors the agent ever refused.
func (s *setup) refused(ctx context.Context) (map[carnet.Code]uint64, error) {
	all := make(map[carnet.Code]uint64)
	for _, w := range s.sensors {
		info, err := s.party("hub").client.Thing(ctx, w.id)
		if err != nil {
			return nil, err
		}
		for code, n := range info.Refused {
			all[code] += n
		}
	}
	return all, nil
}

// mostRefusals is how many of a thing's refusals are looked at for an example.
const mostRefusals = 1000

// refusals reads from the agent's store what was refused in this run.
func (s *setup) refusals(ctx context.Context, hub *thing.Agent) ([]Refusals, error) {
	found := make(map[carnet.Code]*Refusals)
	for _, w := range s.sensors {
		info, err := hub.Thing(ctx, w.id)
		if err != nil {
			return nil, err
		}
		newest, err := hub.Refusals(ctx, w.id, mostRefusals)
		if err != nil {
			return nil, err
		}
		for code, n := range info.Refused {
			r := found[code]
			if r == nil {
				r = &Refusals{Code: code}
				found[code] = r
			}
			r.Messages += n
			if i := slices.IndexFunc(newest, func(n thing.Refusal) bool { return n.Code == code }); i >= 0 && r.Reason == "" {
				r.Reason, r.Fix = newest[i].Reason, newest[i].Fix
			}
		}
	}
	var all []Refusals
	for _, code := range slices.Sorted(maps.Keys(found)) {
		r := *found[code]
		if r.Messages -= s.refusedBefore[code]; r.Messages > 0 {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(p, q Refusals) int { return cmp.Compare(q.Messages, p.Messages) })
	return all, nil
}

func writeRefusals(w io.Writer, all []Refusals) {
	for _, r := range all {
		fmt.Fprintf(w, "             %d × %s, such as: %s\n", r.Messages, r.Code, (&carnet.Error{Reason: r.Reason, Fix: r.Fix}).Error())
	}
}
