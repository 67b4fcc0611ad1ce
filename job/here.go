package job

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/seal"
)

// runHere runs a job in this party, and ends it.
func (a *Agent) runHere(ctx context.Context, h *held, j *Job) (err error) {
	select {
	case a.local <- struct{}{}:
		defer func() { <-a.local }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.Stand.Attempts >= dpm.MostAttempts {
		r := capsule.Result{
			Job: j.ID, Order: capsule.Fingerprint(j.Order), Outcome: capsule.Parked, Code: carnet.Unavailable, Why: string(a.cfg.Party) + " ended three times while it ran",
			Attempt: j.Stand.Attempts, Began: j.Made, Ended: a.cfg.Now().UTC().Truncate(time.Second),
		}
		return a.endHere(ctx, h, r, func(e Event) error { return a.change(ctx, h, e, nil) })
	}
	// Counted before it begins: a job that ends the process isn't tried for ever.
	if err := a.change(ctx, h, Event{Kind: Attempt}, nil); err != nil {
		return err
	}
	defer func() { // whatever came of it, this process goes on
		if back := a.change(context.WithoutCancel(ctx), h, Event{Kind: Back}, nil); err == nil {
			err = back
		}
	}()
	began := a.cfg.Now().UTC().Truncate(time.Millisecond)
	o, key, parts, err := a.compute(ctx, h, j)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if why := a.forbids(j.Module); why != "" { // revoked as it ended
		return a.refuse(ctx, h, j, why)
	}
	r := capsule.Result{Job: j.ID, Order: capsule.Fingerprint(j.Order), Outcome: capsule.Done, Attempt: j.Stand.Attempts + 1, Began: began, Ended: a.cfg.Now().UTC().Truncate(time.Second), Output: o}
	switch {
	case endsSo(err):
		r.Outcome, r.Code, r.Why, r.Output = capsule.Failed, carnet.CodeOf(err), carnet.Shorten(err.Error(), capsule.MaxReason), nil
	case err != nil:
		return err
	}
	return a.endHere(ctx, h, r, func(e Event) error {
		if r.Outcome != capsule.Done {
			return a.change(ctx, h, e, nil)
		}
		return a.takeOutput(ctx, h, e, o, key, parts, nil)
	})
}

// endsSo reports whether a run would end as it did once more: by its program, or since
// what it needs is gone.
func endsSo(err error) bool {
	switch carnet.CodeOf(err) {
	case carnet.Tampered, carnet.NotFound, carnet.TooOld:
		return true
	}
	return engine.Final(err)
}

// endHere signs how a run in this party ended, and has it take place.
func (a *Agent) endHere(ctx context.Context, h *held, r capsule.Result, take func(Event) error) error {
	said, err := r.Sign(a.cfg.Key)
	if err != nil {
		return err
	}
	if err := take(Event{Kind: Resulted, Outcome: r.Outcome, Code: r.Code, Why: r.Why, Result: said}); err != nil {
		return err
	}
	return a.change(context.WithoutCancel(ctx), h, Event{Kind: Tell}, nil) // nobody is to be told
}

// running is the state of a job that runs here, in its progress.
const running = "running"

// compute runs a job's program over its inputs.
func (a *Agent) compute(ctx context.Context, h *held, j *Job) (*capsule.Output, seal.Key, [][]byte, error) {
	i := slices.IndexFunc(a.cfg.Engines, func(e engine.Engine) bool { return e.Name() == j.Task.Engine })
	if i < 0 {
		return nil, seal.Key{}, nil, carnet.Errorf(carnet.Malformed, "%s has no engine %q", a.cfg.Party, j.Task.Engine)
	}
	program, err := a.program(ctx, j.Task.Program.Fingerprint)
	if err != nil {
		return nil, seal.Key{}, nil, err
	}
	slot, err := seal.NewEpoch(carnet.NewStreamID()).Slot(0)
	if err != nil {
		return nil, seal.Key{}, nil, err
	}
	o := &capsule.Output{Program: j.Task.Program.Fingerprint, Inputs: j.Task.Root()}
	so := &sofar{attempt: j.Stand.Attempts + 1}
	a.setSofar(h, so)
	defer a.setSofar(h, nil)
	sum, parts := sha256.New(), [][]byte{}
	var leaves []carnet.Fingerprint
	opened := func(permille int, measurements uint64) {
		o.Measurements = measurements
		a.mu.Lock()
		h.progress = Progress{State: running, Attempt: j.Stand.Attempts + 1, Permille: permille, Measurements: measurements, Parts: so.parts, Heard: a.cfg.Now().UTC()}
		a.mu.Unlock()
	}
	err = a.cfg.Engines[i].Run(ctx, engine.Run{
		Program: program, Parameters: j.Task.Parameters, Limits: j.Task.Limits.Engine(),
		Each: func(do func(string, []carnet.Measurement) error) error { return a.source.each(ctx, j, opened, do) },
		Part: func(part []byte) error {
			sealed, err := dpm.SealPart(slot, j.Label, len(parts), part)
			if err != nil {
				return err
			}
			sum.Write(part)
			a.mu.Lock()
			so.parts++
			so.content.Write(part)
			h.progress.Parts, h.progress.Heard = so.parts, a.cfg.Now().UTC()
			a.mu.Unlock()
			o.Size += uint64(len(part))
			leaves, parts = append(leaves, carnet.FingerprintOf(sealed)), append(parts, sealed)
			return nil
		},
	})
	o.Parts, o.Sealed, o.Fingerprint = len(parts), seal.Root(leaves), carnet.Fingerprint(sum.Sum(nil))
	return o, slot.Key(), parts, err
}

// setSofar notes what a run in this party is about to put out; nil: none runs.
func (a *Agent) setSofar(h *held, s *sofar) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h.sofar = s
}
