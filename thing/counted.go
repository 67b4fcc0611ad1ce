package thing

import (
	"context"
	"math"
	"slices"
	"time"

	"carnet"
	"carnet/link"
)

// rested holds what the store knows of a link's counts, for as long as no run of it
// counts: until its world is connected for the first time since the start, and of a
// world whose peering is over, for good.
type rested struct {
	known  bool
	counts map[uint32]counts // by the mapping's number
}

// restingFor bounds reading a link's counts.
const restingFor = 10 * time.Second

// Counted says what became of each property's measurements on the mapping's way,
// as of the last frame recorded: for when no link runs.
func (a *Agent) Counted(ctx context.Context, id carnet.MappingID) ([]PropertyCount, error) {
	if p := a.pendingByID(id); p != nil {
		return a.pendingInfo(p).Got, nil
	}
	m, err := a.mapping(id)
	if err != nil {
		return nil, err
	}
	all, err := a.sender(m.World).stored(ctx)
	if err != nil {
		return nil, err
	}
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	return propertyCounts(m, all.of(m)), nil
}

// counted returns what the link counts for the mapping: its run, or else what the
// store knows of it.
func (a *Agent) counted(m *Mapping) (counts, error) {
	s := a.sender(m.World)
	if r := s.current(); r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if c := r.courses[m.Number]; c != nil {
			return slices.Clone(c.counts), nil
		}
		return rested{}.of(m), nil
	}
	ctx, cancel := context.WithTimeout(a.life, restingFor)
	defer cancel()
	all, err := s.resting(ctx)
	return all.of(m), err
}

// of are a mapping's counts; zero counts for one that no frame was ever about.
func (r rested) of(m *Mapping) counts {
	if c := r.counts[m.Number]; c != nil {
		return c
	}
	return make(counts, len(m.thing.description.Properties))
}

// resting reads the link's counts once: nothing changes them before it runs.
func (s *sender) resting(ctx context.Context) (rested, error) {
	s.restMu.Lock()
	defer s.restMu.Unlock()
	if s.rest.known {
		return s.rest, nil
	}
	all, err := s.stored(ctx)
	if err == nil {
		s.rest = all
	}
	return all, err
}

// stored reads what the last frame recorded says of the link's counts.
func (s *sender) stored(ctx context.Context) (rested, error) {
	r := newRun(context.WithoutCancel(ctx), s, link.Resume{})
	defer r.cancel(nil)
	if _, err := s.merge(ctx, r, math.MaxInt64); err != nil {
		return rested{}, err
	}
	all := rested{known: true, counts: make(map[uint32]counts, len(r.courses))}
	for number, c := range r.courses {
		all.counts[number] = c.counts
	}
	return all, nil
}
