package job

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/policy"
)

// boundsOf returns what bounds each of a job's avatars now. A decision is made on one
// look, so that what it is held against can be named.
func (a *Agent) boundsOf(j *Job) []policy.Bounds {
	all := make([]policy.Bounds, len(j.Avatars))
	for i, id := range j.Avatars {
		all[i] = a.cfg.World.Bounds(id)
	}
	return all
}

// policiesOf names the versions of what a job is held against, of the avatars that it has
// an input of.
func policiesOf(j *Job, bounds []policy.Bounds) (named []capsule.Policy) {
	for i, b := range bounds {
		name := nameOf(i)
		if b.Version > 0 && slices.ContainsFunc(j.Task.Inputs, func(in capsule.Input) bool { return in.Avatar == name }) {
			named = append(named, capsule.Policy{Avatar: name, Version: b.Version})
		}
	}
	return named
}

// bounded refuses a job that the policy of one of its avatars forbids: for its purpose,
// or by its program, wherever it runs.
func bounded(j *Job, bounds []policy.Bounds) error {
	for i, id := range j.Avatars {
		b := &bounds[i]
		err := b.MayUseFor(j.Purpose)
		if err == nil {
			err = b.MayRun(j.Task.Engine, j.Module)
		}
		if err != nil {
			return ofAvatar(id, err)
		}
	}
	return nil
}

// boundedAt refuses a DPM that may not compute over one of a job's avatars, or may not
// have what it would be given.
func boundedAt(j *Job, bounds []policy.Bounds, p *Peer) error {
	for i, id := range j.Avatars {
		if err := bounds[i].MayComputeAt(identity.DID(p.Key), j.Label.Label()); err != nil {
			return ofAvatar(id, err)
		}
	}
	return nil
}

// ofAvatar says of which of a job's avatars something is.
func ofAvatar(id carnet.AvatarID, err error) error { return fmt.Errorf("avatar %s: %w", id, err) }

// still refuses a job that was ordered and may not go on. Who can't be asked for now is
// no reason.
func (a *Agent) still(j *Job) error {
	bounds := a.boundsOf(j)
	if err := bounded(j, bounds); err != nil || j.At == "" {
		return err
	}
	p, err := a.cfg.Peer(j.At)
	if err != nil {
		return nil
	}
	return boundedAt(j, bounds, &p)
}

// depotDID is what policies call the depot; nothing while it isn't known.
func (a *Agent) depotDID() string {
	if a.cfg.DepotDID == nil {
		return ""
	}
	return a.cfg.DepotDID()
}

// mayStore reports whether the depot may keep what came out of a job.
func (a *Agent) mayStore(j *Job) bool {
	depot := a.depotDID()
	for _, id := range j.Avatars {
		if a.cfg.World.Bounds(id).MayStore(depot) != nil {
			return false
		}
	}
	return true
}

// Recheck has it looked at once whether what was ordered may go on. It doesn't wait.
func (a *Agent) Recheck() {
	select {
	case a.recheck <- struct{}{}:
	default:
	}
}

// hold withdraws a job that may not go on: an avatar of it is gone, or its policy forbids it.
func (a *Agent) hold(ctx context.Context, h *held) error {
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if j.Stand.State == Ended || j.Stand.State == Withdrawing {
		return nil
	}
	if a.gone(&j) {
		return a.withdraw(ctx, h, "its avatar isn't here any more")
	}
	if err := a.still(&j); err != nil {
		return a.withdraw(ctx, h, carnet.Shorten(err.Error(), capsule.MaxReason))
	}
	return nil
}

// unstore deletes a job's output at the depot, once for each start also one that may have
// come there without an answer. Its parts stay here: those that are lost are put back
// first.
func (a *Agent) unstore(ctx context.Context, h *held) error {
	if !h.taking.TryLock() { // it is being put there, or taken: in the next round
		return nil
	}
	defer h.taking.Unlock()
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	stored := j.Stored != (carnet.Fingerprint{})
	if j.Output == nil || !stored && h.home {
		return nil
	}
	object, err := a.sealed(ctx, &j)
	if stored && carnet.CodeOf(err) == carnet.NotFound { // neither here nor there
		object, err = nil, nil
	}
	if err != nil {
		return err
	}
	f := j.Stored
	switch {
	case !stored:
		f = carnet.FingerprintOf(object)
	case object != nil:
		if err := a.restore(ctx, &j, object); err != nil {
			return err
		}
	}
	if err := a.cfg.Depot.DeleteObject(ctx, f); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	if h.home = true; !stored {
		return nil
	}
	j.Stored = carnet.Fingerprint{}
	return a.changed(ctx, h, j, nil)
}

// restore puts back which parts of an output are lost or damaged here, from the object
// that they make.
func (a *Agent) restore(ctx context.Context, j *Job, object []byte) error {
	if carnet.FingerprintOf(object) != j.Stored {
		return carnet.Errorf(carnet.Tampered, "what the depot has isn't the output of the job %s", j.ID)
	}
	for n := range j.Output.Parts {
		if len(object) < 4 || uint64(len(object)-4) < uint64(binary.BigEndian.Uint32(object)) {
			return carnet.Errorf(carnet.Tampered, "the output of the job %s isn't of %d parts", j.ID, j.Output.Parts)
		}
		size := binary.BigEndian.Uint32(object)
		part := object[4 : 4+size]
		object = object[4+size:]
		d, err := a.records.Plain(ctx, kindPart, partID(j.ID, n))
		if err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
		if err == nil && bytes.Equal(d.Body, part) {
			continue
		}
		if err := a.records.Keep(ctx, nil, nil, carnet.Document{Kind: kindPart, ID: partID(j.ID, n), Version: d.Version + 1, Body: part}); err != nil {
			return err
		}
	}
	return nil
}
