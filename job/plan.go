package job

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
)

// Plan says where a job could run, where it is to, and what would leave this party for
// that.
type Plan struct {
	Batches      int               `json:"batches" doc:"That would leave for a DPM, as they are; 0 at a things agent, from which nothing leaves."`
	Bytes        int64             `json:"bytes"`
	Keys         int               `json:"keys" doc:"Of slots, that a DPM would be given."`
	Measurements uint64            `json:"measurements" doc:"That the program would be given."`
	Along        uint64            `json:"along" doc:"Others, that are in the same batches: a DPM could read them."`
	Properties   map[string]uint64 `json:"properties" doc:"How many measurements of each the program would be given."`
	Label        capsule.Label     `json:"label" doc:"Of all of it joined, and of what comes out."`
	Places       []Place           `json:"places"`
	// Choice is the place that is best; empty with Here false: none can.
	Choice carnet.PartyID `json:"choice,omitempty"`
	Here   bool           `json:"here" doc:"Whether the choice is this party itself."`
	Why    string         `json:"why" doc:"Of the choice."`
}

// Place is where a job could run.
type Place struct {
	At      carnet.PartyID `json:"at" doc:"This party itself, or another as it calls it."`
	Role    identity.Role  `json:"role" doc:"What it is: things, world or dpm." enum:"things,world,dpm"`
	Here    bool           `json:"here"`
	Can     bool           `json:"can"`
	Why     string         `json:"why" doc:"Why it can't; or what speaks for and against it."`
	Workers int            `json:"workers,omitempty"`
	Waiting int            `json:"waiting,omitempty" doc:"Jobs of this party's that wait there."`
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
	p := Plan{Label: j.Label, Properties: c.properties}
	for i := range c.pins {
		p.Measurements += c.pins[i].Measurements
	}
	here := Place{At: a.cfg.Party, Role: identity.World, Here: true, Can: a.hasEngine(s.Engine)}
	here.Why = "nothing leaves"
	if !here.Can {
		here.Why = fmt.Sprintf("it has no engine %q", s.Engine)
	}
	if err := bounded(&j, a.boundsOf(&j)); err != nil { // so it is everywhere
		here.Can, here.Why = false, err.Error()
	}
	if a.cfg.Owned != nil {
		here.Role = identity.Things
		p.Places = append([]Place{here}, a.seeing(&j)...)
		p.Here, p.Choice, p.Why = here.Can, here.At, "what a thing's log holds is computed over where it is, and nothing leaves"
		if !here.Can {
			p.Choice, p.Why = "", "no place can do it"
		}
		return p, nil
	}
	p.Bytes, p.Keys = c.bytes, len(c.slots)
	for i := range c.inputs {
		p.Batches += c.inputs[i].Batches
		p.Along += c.pins[i].Along
	}
	p.Places = append(p.Places, here)
	for _, name := range a.cfg.DPMs() {
		p.Places = append(p.Places, a.place(ctx, name, &j, c))
	}
	p.Places = append(p.Places, a.agents(&j)...)
	p.choose()
	return p, nil
}

// agents are the things agents that have the logs of a job's avatars: places at which a
// world orders nothing.
func (a *Agent) agents(j *Job) (all []Place) {
	var names []carnet.PartyID
	for _, id := range j.Avatars {
		names = append(names, a.cfg.World.SendersOf(id)...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		all = append(all, Place{At: name, Role: identity.Things, Why: "a thing's log is its owner's to compute over: the owner may run the same there, under this world's view, and nothing leaves"})
	}
	return all
}

// seeing are the worlds that are shown something of a job's things: places at which an
// owner orders nothing.
func (a *Agent) seeing(j *Job) (all []Place) {
	var names []carnet.PartyID
	for _, id := range j.Things {
		names = append(names, a.cfg.Owned.Worlds(id)...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		all = append(all, Place{At: name, Role: identity.World, Why: "its operator orders there, over what its view has shown it already, and may have a DPM compute; nothing more would leave here"})
	}
	return all
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
	no := func(why error) Place { return Place{At: name, Role: identity.DPM, Why: why.Error()} }
	peer, err := a.cfg.Peer(name)
	if err != nil {
		return no(err)
	}
	bounds := a.boundsOf(j)
	if err := bounded(j, bounds); err != nil {
		return no(err)
	}
	if err := boundedAt(j, bounds, &peer); err != nil {
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
	p := Place{At: name, Role: identity.DPM, Can: true, Workers: offer.Workers, Waiting: offer.Waiting}
	p.Why = fmt.Sprintf("it may have the data; workers: %d, jobs of this world's that wait: %d", p.Workers, p.Waiting)
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

// choose chooses the place: this world for little, else the DPM where the fewest of its own
// wait.
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
