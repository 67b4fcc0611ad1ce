package job

import (
	"context"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/policy"
	"carnet/seal"
)

// Order has something computed: when it returns, the job is stored, and it is seen to.
func (a *Agent) Order(ctx context.Context, s Spec) (Info, error) {
	return a.order(ctx, s, nil)
}

func (a *Agent) order(ctx context.Context, s Spec, repeats *Job) (Info, error) {
	j, c, err := a.draft(ctx, &s, repeats)
	if err != nil {
		return Info{}, err
	}
	bounds := a.boundsOf(&j)
	if err := bounded(&j, bounds); err != nil {
		return Info{}, err
	}
	j.Policies = policiesOf(&j, bounds)
	if s.At == "" {
		err = a.signHere(&j)
	} else {
		err = a.signFor(ctx, &j, c, bounds)
	}
	if err != nil {
		return Info{}, err
	}
	if err := a.put(ctx, j, s.Program); err != nil {
		return Info{}, err
	}
	return a.Job(ctx, j.ID, false)
}

// draft is a job that isn't signed yet. A repetition has the task of the job that it
// repeats.
func (a *Agent) draft(ctx context.Context, s *Spec, repeats *Job) (j Job, c *chosen, err error) {
	now := a.cfg.Now()
	if err := a.about(s); err != nil {
		return j, nil, err
	}
	if err := a.resolve(ctx, s); err != nil {
		return j, nil, err
	}
	if *s, err = s.complete(now); err != nil {
		return j, nil, err
	}
	if s.At == "" {
		if err := a.allows(s.Limits); err != nil {
			return j, nil, err
		}
	}
	if err := a.check(ctx, s); err != nil {
		return j, nil, err
	}
	if s.At != "" && a.cfg.Owned != nil {
		_, err := a.cfg.Peer(s.At)
		return j, nil, err
	}
	if repeats != nil {
		c, err = a.source.rechoose(ctx, repeats, s.At != "")
	} else {
		c, err = a.source.choose(ctx, s, s.At != "")
	}
	if err != nil {
		return j, nil, err
	}
	made := now.UTC().Truncate(time.Second)
	j = Job{
		ID: carnet.NewJobID(), At: s.At, Module: s.Module, Purpose: a.cfg.Purpose, Made: made, Until: made.Add(s.Within.Truncate(time.Second)), Label: capsule.LabelOf(c.label),
		Avatars: s.Avatars, Owner: s.Owner, Things: s.Things, Logs: c.logs, Pins: c.pins, Stand: Stand{State: Ordered}, Repeats: idOf(repeats),
		Task: capsule.Task{
			Engine: s.Engine, Program: capsule.Content{Fingerprint: carnet.FingerprintOf(s.Program), Size: int64(len(s.Program))}, Parameters: s.Parameters,
			From: s.From.UnixNano(), To: s.To.UnixNano(), Properties: s.Properties, Inputs: c.inputs, Limits: s.Limits,
		},
	}
	return j, c, j.Task.Check()
}

func idOf(j *Job) *carnet.JobID {
	if j == nil {
		return nil
	}
	return &j.ID
}

// allows refuses limits that are beyond what a job in this party may have.
func (a *Agent) allows(l capsule.Limits) error {
	m := a.cfg.Most
	if m.Memory > 0 && l.Memory > m.Memory || m.Milliseconds > 0 && l.Milliseconds > m.Milliseconds || m.Output > 0 && l.Output > m.Output || m.Parts > 0 && l.Parts > m.Parts {
		return carnet.Errorf(carnet.TooLarge, "%s gives a job %s", a.cfg.Party, mostOf(m)).WithFix("lower the limits")
	}
	return nil
}

// mostOf says what a job may have at most.
func mostOf(m capsule.Limits) string {
	return fmt.Sprintf("at most %d MiB of memory, %s, and %d bytes of output in %d parts", m.Memory>>20, time.Duration(m.Milliseconds)*time.Millisecond, m.Output, m.Parts)
}

// check refuses a program that the engine can't run, where this party has the engine.
func (a *Agent) check(ctx context.Context, s *Spec) error {
	for _, e := range a.cfg.Engines {
		if e.Name() == s.Engine {
			return e.Check(ctx, s.Program)
		}
	}
	if s.At == "" {
		return carnet.Errorf(carnet.Malformed, "%s has no engine %q", a.cfg.Party, s.Engine)
	}
	return nil
}

// signHere signs the order of a job that runs in this world.
func (a *Agent) signHere(j *Job) (err error) {
	j.Order, err = a.orderOf(j, a.cfg.Party).Sign(a.cfg.Key)
	return err
}

func (a *Agent) orderOf(j *Job, at carnet.PartyID) capsule.Order {
	return capsule.Order{
		Job: j.ID, By: a.cfg.Party, For: at, Purpose: j.Purpose, Task: j.Task, Module: a.record(j).Fingerprint, Policies: j.Policies, Label: j.Label, Made: j.Made, Until: j.Until,
	}
}

// signFor asks the DPM for its reception key, makes the bags and signs the order.
func (a *Agent) signFor(ctx context.Context, j *Job, c *chosen, bounds []policy.Bounds) error {
	p, err := a.cfg.Peer(j.At)
	if err != nil {
		return err
	}
	if err := boundedAt(j, bounds, &p); err != nil {
		return err
	}
	if err := p.mayHave(c.label, j.Purpose); err != nil {
		return err
	}
	offer, to, err := a.offer(ctx, &p)
	if err != nil {
		return err
	}
	if why := lacks(&offer, j); why != nil {
		return why
	}
	if j.Received, err = a.cfg.World.AnnounceTo(a.cfg.Key, a.cfg.Party); err != nil {
		return err
	}
	own, err := seal.ParseReception(j.Received, publicOf(a.cfg.Key), a.cfg.Now())
	if err != nil {
		return err
	}
	if j.Bags, err = a.grant(ctx, c, j, to, &p); err != nil {
		return err
	}
	o := a.orderOf(j, p.OwnName)
	o.Terms, o.Reception = p.Terms, own.ID
	for _, b := range j.Bags {
		o.Bags = append(o.Bags, carnet.FingerprintOf(b))
	}
	j.Order, err = o.Sign(a.cfg.Key)
	return err
}

// offerWait is how long a DPM may take to say what it does.
const offerWait = 10 * time.Second

// offer asks a DPM what it does, and for its reception key.
func (a *Agent) offer(ctx context.Context, p *Peer) (o capsule.Offer, to *seal.Reception, err error) {
	ctx, cancel := context.WithTimeout(ctx, offerWait)
	defer cancel()
	said, err := p.DPM.Offer(ctx)
	if err != nil {
		return o, nil, fmt.Errorf("ask %s what it does: %w", p.Name, err)
	}
	if o, err = capsule.OpenOffer(said.Offer, p.Key); err != nil {
		return o, nil, err
	}
	if o.By != p.OwnName {
		return o, nil, carnet.Errorf(carnet.Forbidden, "%s shows the offer of %s", p.Name, o.By)
	}
	to, err = seal.ParseReception(said.Reception, p.Key, a.cfg.Now())
	return o, to, err
}

// lacks says why a DPM can't do a job, by its own offer.
func lacks(o *capsule.Offer, j *Job) error {
	at := slices.IndexFunc(o.Engines, func(e capsule.EngineOffer) bool { return e.Name == j.Task.Engine })
	l := j.Task.Limits
	if c := o.Clearance; c != nil { // less than the terms, it may be
		p := Peer{Name: o.By, Clearance: carnet.Clearance(c.Label())}
		if err := p.mayHave(j.Label.Label(), j.Purpose); err != nil {
			return err
		}
	}
	switch {
	case at < 0:
		return carnet.Errorf(carnet.Forbidden, "%s has no engine %q", o.By, j.Task.Engine).WithFix("choose another: carnet job plan")
	case o.Engines[at].Signed && j.Module == "":
		return carnet.Errorf(carnet.Forbidden, "the program is no signed module, and %s runs no others", o.By).WithFix("add it, and name it: carnet module add, carnet job run --module NAME@VERSION")
	case l.Memory > o.Most.Memory || l.Milliseconds > o.Most.Milliseconds || l.Output > o.Most.Output || l.Parts > o.Most.Parts:
		return carnet.Errorf(carnet.TooLarge, "%s gives a job %s", o.By, mostOf(o.Most)).WithFix("lower the limits, or choose another: carnet job plan")
	}
	return nil
}

// submission is a job's capsule.
func (a *Agent) submission(j *Job) dpm.Submission {
	return dpm.Submission{Order: j.Order, Bags: j.Bags, Reception: j.Received, Record: a.record(j).Record}
}

// record is the module of a job; zero without one.
func (a *Agent) record(j *Job) Module {
	m, _ := a.Module(j.Module) // a job's module was there when it was drafted, and none is deleted
	return m
}

// Cancel ends a job: the DPM is told to destroy its keys.
func (a *Agent) Cancel(ctx context.Context, id carnet.JobID) (Info, error) {
	h, err := a.find(id)
	if err != nil {
		return Info{}, err
	}
	if err := a.withdraw(ctx, h, "cancelled"); err != nil {
		return Info{}, err
	}
	return a.Job(ctx, id, false)
}

// withdraw signs a job's withdrawal and stores it: it is told until the DPM answers.
func (a *Agent) withdraw(ctx context.Context, h *held, why string) error {
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if j.Stand.State == Withdrawing {
		return nil // the DPM is being told: nothing ends that
	}
	e := Event{Kind: Withdraw, Why: why}
	if j.At != "" && j.Stand.State != Ended {
		var err error
		e.Withdrawal, err = capsule.Withdrawal{Job: j.ID, Order: capsule.Fingerprint(j.Order), Why: why, Made: a.cfg.Now().UTC().Truncate(time.Second)}.Sign(a.cfg.Key)
		if err != nil {
			return err
		}
	}
	if err := a.change(ctx, h, e, nil); err != nil {
		return err
	}
	select { // what is under way ends
	case h.wake <- struct{}{}:
	default:
	}
	return nil
}
