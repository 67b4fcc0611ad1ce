package job

import (
	"context"
	"fmt"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
)

// bounded refuses a job that the policy of one of its avatars forbids: for its purpose,
// or by its program, wherever it runs.
func (a *Agent) bounded(j *Job) error {
	for _, id := range j.Avatars {
		b := a.cfg.World.Bounds(id)
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
func (a *Agent) boundedAt(j *Job, p *Peer) error {
	for _, id := range j.Avatars {
		if err := a.cfg.World.Bounds(id).MayComputeAt(identity.DID(p.Key), j.Label.Label()); err != nil {
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
	if err := a.bounded(j); err != nil || j.At == "" {
		return err
	}
	p, err := a.cfg.Peer(j.At)
	if err != nil {
		return nil
	}
	return a.boundedAt(j, &p)
}

// mayStore reports whether the depot may keep what came out of a job.
func (a *Agent) mayStore(j *Job) bool {
	depot := ""
	if a.cfg.DepotDID != nil {
		depot = a.cfg.DepotDID()
	}
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

// hold ends what a job's avatars' policies don't let go on.
func (a *Agent) hold(ctx context.Context, id carnet.JobID) error {
	h, err := a.find(id)
	if err != nil {
		return err
	}
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if j.Stand.State != Ended && j.Stand.State != Withdrawing {
		if err := a.still(&j); err != nil {
			return a.withdraw(ctx, h, carnet.Shorten(err.Error(), capsule.MaxReason))
		}
	}
	if j.Stored != (carnet.Fingerprint{}) && !a.mayStore(&j) {
		return a.unstore(ctx, h)
	}
	return nil
}

// unstore deletes a job's output at the depot. Its parts stay here.
func (a *Agent) unstore(ctx context.Context, h *held) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if err := a.cfg.Depot.DeleteObject(ctx, j.Stored); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	j.Stored = carnet.Fingerprint{}
	return a.changed(ctx, h, j, nil)
}
