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

// Refusals are the messages of this run that the agent refused for one thing and
// one reason. Reasons that differ only in the times and values that they name are
// one.
type Refusals struct {
	Thing    string      `json:"thing"` // watch or room
	Code     carnet.Code `json:"code"`
	Messages uint64      `json:"messages"`
	Reason   string      `json:"reason"` // the newest one's
	Fix      string      `json:"fix,omitempty"`
}

// refused is how many messages of each sensor the agent ever refused.
func (s *setup) refused(ctx context.Context) (map[string]map[carnet.Code]uint64, error) {
	all := make(map[string]map[carnet.Code]uint64)
	for _, w := range s.sensors {
		info, err := s.party("hub").looks.Thing(ctx, w.id)
		if err != nil {
			return nil, err
		}
		all[w.name] = info.Refused
	}
	return all, nil
}

// refusedOthers says how many messages the agent has refused in this run that the devices
// didn't send, and as which thing somebody did; nothing where there are none.
func (s *setup) refusedOthers(ctx context.Context) []string {
	now, err := s.refused(ctx)
	if err != nil {
		return nil // it is shown with the next lines
	}
	d := s.sent()
	all, as := uint64(0), ""
	for _, w := range s.sensors {
		for code, n := range now[w.name] {
			if n -= s.refusedBefore[w.name][code]; n > 0 {
				all, as = all+n, string(w.id)
			}
		}
	}
	theirs := uint64(d.Published - d.Acknowledged) // what they don't know about yet may have been refused
	if all <= theirs {
		return nil
	}
	return []string{fmt.Sprintf("         hub refused %s that the devices didn't send: carnet thing refusals %s", number(int(all-theirs), "message"), as)}
}

// mostRefusals is how many of a thing's refusals are looked at for an example.
const mostRefusals = 1000

// refusals reads from the agent's store what was refused in this run.
func (s *setup) refusals(ctx context.Context, hub *thing.Agent, o Options) (all []Refusals, err error) {
	for _, w := range s.sensors {
		info, err := hub.Thing(ctx, w.id)
		if err != nil {
			return nil, err
		}
		newest, err := hub.Refusals(ctx, w.id, mostRefusals)
		if err != nil {
			return nil, err
		}
		for _, code := range slices.Sorted(maps.Keys(info.Refused)) {
			r := Refusals{Thing: w.name, Code: code, Messages: info.Refused[code] - s.refusedBefore[w.name][code]}
			if r.Messages == 0 {
				continue
			}
			if i := slices.IndexFunc(newest, func(n thing.Refusal) bool { return n.Code == code }); i >= 0 {
				r.Reason, r.Fix = newest[i].Reason, newest[i].Fix
			}
			if code == carnet.TooOld && o.Times == "keep" {
				r.Fix = "play it with --times now, which moves it to today; or " + r.Fix
			}
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(p, q Refusals) int { return cmp.Compare(q.Messages, p.Messages) })
	return all, nil
}

func writeRefusals(w io.Writer, all []Refusals) {
	for _, r := range all {
		fmt.Fprintf(w, "             refused of the %s: %d × %s, such as: %s\n", r.Thing, r.Messages, r.Code, (&carnet.Error{Reason: r.Reason, Fix: r.Fix}).Error())
	}
}
