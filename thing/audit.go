package thing

import (
	"context"
	"slices"
	"time"

	"carnet"
)

// EachMessage opens the log's messages from a position on, in order, until the
// end of what is committed at the call. What it hands over is valid during the
// call of do only.
func (a *Agent) EachMessage(ctx context.Context, from uint64, do func(Message) error) error {
	d := logDecoder()
	end := a.feed.end()
	for at := max(from, 1); at < end; {
		rows, err := a.store.Log(ctx, at, readBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			err := a.eachMessage(ctx, row, d, nil, func(position uint64, t *Thing, ms []carnet.Measurement) error {
				if position < at || position >= end {
					return nil
				}
				return do(Message{position, t.id, row.Received, ms})
			})
			if err != nil {
				return err
			}
			at = row.First + uint64(row.Count)
		}
	}
	return nil
}

// Views returns every view that was in force for a mapping, oldest first: what
// an auditor recomputes from.
func (a *Agent) Views(id carnet.MappingID) ([]ViewRecord, error) {
	if a.pendingByID(id) != nil {
		return []ViewRecord{}, nil
	}
	m, err := a.mapping(id)
	if err != nil {
		return nil, err
	}
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return slices.Clone(a.registry.views[m.Number]), nil
}

// Lingers says how long each property of a thing may wait for more.
func (a *Agent) Lingers(id carnet.ThingID) (map[string]time.Duration, error) {
	t, err := a.thing(id)
	if err != nil {
		return nil, err
	}
	lingers := make(map[string]time.Duration)
	for i := range t.description.Properties {
		lingers[t.description.Properties[i].Name] = t.description.Properties[i].Linger
	}
	return lingers, nil
}
