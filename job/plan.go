package job

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"carnet"
	"carnet/capsule"
)

// Plan says where a job could run, where it is to, and what would leave this world for
// that.
type Plan struct {
	Batches      int               `json:"batches" doc:"That would leave, as they are."`
	Bytes        int64             `json:"bytes"`
	Keys         int               `json:"keys" doc:"Of slots, that a DPM would be given."`
	Measurements uint64            `json:"measurements" doc:"That the program would be given."`
	Along        uint64            `json:"along" doc:"Others, that are in the same batches: a DPM could read them."`
	Properties   map[string]uint64 `json:"properties" doc:"How many measurements of each the program would be given."`
	Label        capsule.Label     `json:"label" doc:"Of all of it joined, and of what comes out."`
	Places       []Place           `json:"places"`
	// Choice is the place that is best; empty with Here false: none can.
	Choice carnet.PartyID `json:"choice,omitempty"`
	Here   bool           `json:"here" doc:"Whether the choice is this world itself."`
	Why    string         `json:"why" doc:"Of the choice."`
}

// Place is where a job could run.
type Place struct {
	At      carnet.PartyID `json:"at" doc:"This world itself, or a DPM as it calls it."`
	Here    bool           `json:"here"`
	Can     bool           `json:"can"`
	Why     string         `json:"why" doc:"Why it can't; or what speaks for and against it."`
	Workers int            `json:"workers,omitempty"`
	Waiting int            `json:"waiting,omitempty" doc:"Jobs that wait there."`
}

// hereAtMost is how many measurements this world computes over itself, if a DPM may
// have them as well: its processors have avatars to see to.
const hereAtMost = 1_000_000

// Plan says where a job would run.
func (a *Agent) Plan(ctx context.Context, s Spec) (Plan, error) {
	s.At = ""
	j, c, err := a.draft(ctx, &s, nil)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Bytes: c.bytes, Keys: len(c.slots), Label: j.Label, Properties: c.properties}
	for i := range c.inputs {
		p.Batches += c.inputs[i].Batches
		p.Measurements += c.pins[i].Measurements
		p.Along += c.pins[i].Along
	}
	here := Place{At: a.cfg.Party, Here: true, Can: a.hasEngine(s.Engine)}
	here.Why = "nothing leaves"
	if !here.Can {
		here.Why = fmt.Sprintf("it has no engine %q", s.Engine)
	}
	if err := a.bounded(&j); err != nil { // so it is everywhere
		here.Can, here.Why = false, err.Error()
	}
	p.Places = append(p.Places, here)
	for _, name := range a.cfg.DPMs() {
		p.Places = append(p.Places, a.place(ctx, name, &j, c))
	}
	p.choose()
	return p, nil
}

func (a *Agent) hasEngine(name string) bool {
	for _, e := range a.cfg.Engines {
		if e.Name() == name {
			return true
		}
	}
	return false
}

// place says whether a DPM can do a job, and may.
func (a *Agent) place(ctx context.Context, name carnet.PartyID, j *Job, c *chosen) Place {
	no := func(why error) Place { return Place{At: name, Why: why.Error()} }
	peer, err := a.cfg.Peer(name)
	if err != nil {
		return no(err)
	}
	if err := a.bounded(j); err != nil {
		return no(err)
	}
	if err := a.boundedAt(j, &peer); err != nil {
		return no(err)
	}
	if err := peer.mayHave(c.label, a.cfg.Purpose); err != nil {
		return no(err)
	}
	if c.inward {
		return no(carnet.Errorf(carnet.Forbidden, "some of the data came by a share, and isn't to be passed on"))
	}
	offer, _, err := a.offer(ctx, &peer)
	if err != nil {
		return no(err)
	}
	if err := lacks(&offer, j); err != nil {
		return no(err)
	}
	p := Place{At: name, Can: true, Workers: offer.Workers, Waiting: offer.Waiting}
	p.Why = fmt.Sprintf("it may have the data; workers: %d, jobs that wait: %d", p.Workers, p.Waiting)
	if p.Workers == 0 {
		p.Can, p.Why = false, "no worker of it runs"
	}
	return p
}

// mayHave refuses a DPM what is above its clearance, or for a purpose that the terms aren't
// for.
func (p *Peer) mayHave(label carnet.Label, purpose string) error {
	clearance := p.Clearance
	if !clearance.Purposes.Has(purpose) {
		return carnet.Errorf(carnet.Forbidden, "the terms with %s aren't for the purpose %q", p.Name, purpose)
	}
	clearance.Purposes = carnet.NewSet(purpose)
	if why := label.Exceeds(clearance); why != "" {
		return carnet.Errorf(carnet.Forbidden, "%s may not have the data: %s", p.Name, why).WithFix("see where it may be computed: carnet job plan")
	}
	return nil
}

// choose chooses the place: this world for little, else the DPM where the fewest wait.
func (p *Plan) choose() {
	var best *Place
	for i := range p.Places {
		q := &p.Places[i]
		if !q.Can {
			continue
		}
		if q.Here && p.Measurements <= hereAtMost {
			p.Here, p.Choice = true, q.At
			p.Why = fmt.Sprintf("%d measurements are few enough for this world itself, and nothing leaves", p.Measurements)
			return
		}
		if best == nil || best.Here || !q.Here && (q.Waiting-q.Workers < best.Waiting-best.Workers) {
			best = q
		}
	}
	switch {
	case best == nil:
		p.Why = "no place can do it"
	case best.Here:
		p.Here, p.Choice, p.Why = true, best.At, "no DPM can do it, or may have the data"
	default:
		p.Choice, p.Why = best.At, fmt.Sprintf("%d measurements are many for this world, and there the fewest jobs wait", p.Measurements)
	}
}

// Names lists the properties of a plan, in order.
func (p *Plan) Names() []string { return slices.Sorted(maps.Keys(p.Properties)) }
