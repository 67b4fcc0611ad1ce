// Package thinglog owns how a thing's log is read again for its owner's jobs: as it is, or
// as the views of one of its mappings showed it (docs/design/own-jobs.md).
//
// It keeps nothing: what a job reads is pinned in positions of the log, and read again for
// each run. A view is applied by package audit, from the recorded history of the mapping's
// views and the facts recorded with them; so what is read is what the world was sent,
// whatever view is in force now.
//
// The package must not know what is computed, where documents rest, or how views are
// decided when something is sent.
package thinglog

import (
	"context"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/audit"
	"carnet/capsule"
	"carnet/job"
	"carnet/thing"
)

// Agent is a things agent with the logs of its things. It implements job.Owned.
type Agent struct{ *thing.Agent }

var _ job.Owned = Agent{}

// own finds a thing of an owner; another's isn't there.
func (a Agent) own(ctx context.Context, owner string, id carnet.ThingID) (thing.Info, error) {
	info, err := a.Thing(ctx, id)
	if err == nil && (owner == "" || info.Owner != owner) {
		err = carnet.Errorf(carnet.NotFound, "there is no thing %q", id).WithFix("list the things, or add it with a description")
	}
	return info, err
}

// Worlds implements job.Owned.
func (a Agent) Worlds(id carnet.ThingID) (worlds []carnet.PartyID) {
	info, err := a.Thing(context.Background(), id)
	if err != nil {
		return nil
	}
	for _, m := range info.Mappings {
		if !m.Stopped {
			worlds = append(worlds, m.World)
		}
	}
	slices.Sort(worlds)
	return slices.Compact(worlds)
}

// Pin implements job.Owned.
func (a Agent) Pin(ctx context.Context, r job.Reading) (job.Log, error) {
	l := job.Log{Thing: r.Thing, Labels: make(map[string]capsule.Label)}
	info, err := a.own(ctx, r.Owner, r.Thing)
	if err != nil {
		return l, err
	}
	labels, err := a.Labels(r.Thing)
	if err != nil {
		return l, err
	}
	if r.ViewOf == "" && r.Mapping == nil {
		part, err := a.Kept(ctx, 0)
		for name, label := range labels {
			l.Labels[name] = capsule.LabelOf(label)
		}
		l.From, l.End = part.First, part.End
		return l, err
	}
	m, err := meant(&info, &r)
	if err != nil {
		return l, err
	}
	views, err := a.Views(m.ID)
	if err != nil {
		return l, err
	}
	if l.Upto, err = a.Reached(ctx, m.ID); err != nil {
		return l, err
	}
	part, err := a.Kept(ctx, m.From)
	if err != nil {
		return l, err
	}
	l.Mapping, l.World, l.From = &m.ID, m.World, part.First
	for _, at := range l.Upto {
		l.End = max(l.End, at)
	}
	shown := carnet.Label{}
	for _, v := range views {
		shown = shown.Join(carnet.Label{Purposes: v.View.Purposes, Residency: v.View.Residency})
	}
	for name, label := range labels {
		l.Labels[name] = capsule.LabelOf(label.Join(shown))
	}
	if part.First > m.From || m.Follows != nil { // what was remembered there isn't known
		err = remembered(views, &r, part.Received.Add(a.MaxAhead()))
	}
	return l, err
}

// meant finds the mapping under whose views a thing is to be read.
func meant(t *thing.Info, r *job.Reading) (m thing.MappingInfo, err error) {
	var found []thing.MappingInfo
	for _, m := range t.Mappings {
		if r.Mapping != nil && m.ID == *r.Mapping || r.Mapping == nil && m.World == r.ViewOf && !m.Stopped {
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case r.Mapping != nil:
		return m, carnet.Errorf(carnet.NotFound, "%s has no mapping %s", t.ID, r.Mapping).WithFix("see: carnet thing show %s", t.ID)
	case len(found) == 0:
		return m, carnet.Errorf(carnet.NotFound, "%s has no mapping in force to %s", t.ID, r.ViewOf).WithFix("see: carnet thing show %s; one that has ended is named by its id", t.ID)
	}
	return m, carnet.Errorf(carnet.Conflict, "%s has %d mappings to %s", t.ID, len(found), r.ViewOf).WithFix("name one of them: carnet thing show %s, --mapping ID", t.ID)
}

// remembered refuses a reading for which one would have to know what a view remembered
// when the part of the log began that there is. What was received before was measured
// before latest.
func remembered(views []thing.ViewRecord, r *job.Reading, latest time.Time) error {
	var since time.Time
	for _, v := range views {
		for name, p := range v.View.Properties {
			if !asked(r.Properties, name) {
				continue
			}
			if p.Deadband != 0 {
				return carnet.Errorf(carnet.TooOld, "the log doesn't reach back to where the mapping begins, so what was last shown of %s, which has a deadband, isn't known", name).
					WithFix("leave the property out, or have it computed in the world")
			}
			if p.Rate > 0 {
				since = later(since, nextInterval(latest, p.Rate))
			}
		}
	}
	if r.From.Before(since) {
		return carnet.Errorf(carnet.TooOld, "the log doesn't reach back to where the mapping begins, so what a rate let through before %s isn't known", since.Format(time.RFC3339)).
			WithFix("ask for what was measured from then on: --from %s", since.Format(time.RFC3339))
	}
	return nil
}

// nextInterval is when the interval of a rate ends that a time is in, in whole seconds.
func nextInterval(at time.Time, rate time.Duration) time.Time {
	ns, r := at.UnixNano(), int64(rate)
	end := ns - (ns%r+r)%r + r
	return time.Unix(0, end).UTC().Add(time.Second - 1).Truncate(time.Second)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// asked reports whether a job that is about some properties is about one that a view
// names: itself, its object or a field of it.
func asked(properties []string, name string) bool {
	return len(properties) == 0 || slices.ContainsFunc(properties, func(p string) bool {
		return p == name || strings.HasPrefix(p, name+"/") || strings.HasPrefix(name, p+"/")
	})
}

// EachOf implements job.Owned. What was trimmed since the log was pinned is missing: who
// needs the same as then compares.
func (a Agent) EachOf(ctx context.Context, l *job.Log, do func([]carnet.Measurement) error) error {
	if l.Mapping == nil {
		return a.Agent.EachOf(ctx, l.Thing, l.From, l.End, func(_ uint64, ms []carnet.Measurement) error { return do(ms) })
	}
	config, err := Recorded(ctx, a.Agent, *l.Mapping)
	if err != nil {
		return err
	}
	config.From, config.Upto = l.From, l.Upto
	oracle, err := audit.New(config)
	if err != nil {
		return err
	}
	var ms []carnet.Measurement // of one message
	at := uint64(0)
	hand := func(next uint64) error {
		was := ms
		at, ms = next, ms[:0]
		if len(was) == 0 {
			return nil
		}
		return do(was)
	}
	err = oracle.Recompute(ctx, func(ctx context.Context, from uint64, do func(audit.Message) error) error {
		return a.Agent.EachOf(ctx, l.Thing, from, l.End, func(position uint64, ms []carnet.Measurement) error {
			return do(audit.Message{Position: position, Measurements: ms})
		})
	}, func(shown audit.Admitted) error {
		if shown.Position != at {
			if err := hand(shown.Position); err != nil {
				return err
			}
		}
		if shown.Due {
			m := shown.Measurement
			m.Value.Str = strings.Clone(m.Value.Str) // its message is over when it is handed on
			ms = append(ms, m)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return hand(0)
}

// Recorded is the history of a mapping's views, as an audit takes it.
func Recorded(ctx context.Context, hub *thing.Agent, id carnet.MappingID) (config audit.Config, err error) {
	m, err := hub.Mapping(id)
	if err != nil {
		return config, err
	}
	info, err := hub.Thing(ctx, m.Thing)
	if err != nil {
		return config, err
	}
	lingers, err := hub.Lingers(m.Thing)
	if err != nil {
		return config, err
	}
	records, err := hub.Views(id)
	if err != nil {
		return config, err
	}
	config.From = m.From
	for _, v := range records {
		view, err := v.View.MarshalJSON()
		if err != nil {
			return config, err
		}
		version := audit.ViewVersion{Version: v.Version, View: view, Stopped: v.Stopped, Since: v.Since}
		for _, p := range info.Properties {
			kind, err := kindOf(p.Kind)
			if err != nil {
				return config, err
			}
			version.Properties = append(version.Properties, audit.Property{
				Name: p.Name, Unit: p.Unit, Kind: kind, Linger: lingers[p.Name], Admit: !slices.Contains(v.Denied, p.Name),
			})
		}
		config.Views = append(config.Views, version)
	}
	return config, nil
}

func kindOf(name string) (carnet.Kind, error) {
	for _, k := range []carnet.Kind{carnet.Number, carnet.Boolean, carnet.Text, carnet.Data} {
		if k.String() == name {
			return k, nil
		}
	}
	return 0, carnet.Errorf(carnet.Malformed, "%q is no kind of value", name)
}
