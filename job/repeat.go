package job

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/ledger"
)

// Repeat orders the same program over the same inputs once more: at a DPM, or in this
// world. What comes out is compared with what came out of the first.
func (a *Agent) Repeat(ctx context.Context, id carnet.JobID, at carnet.PartyID, within time.Duration) (Info, error) {
	h, err := a.find(id)
	if err != nil {
		return Info{}, err
	}
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if j.erased() {
		return Info{}, carnet.Errorf(carnet.Conflict, "something that the job was over is erased")
	}
	if j.Output == nil {
		return Info{}, carnet.Errorf(carnet.Conflict, "the job has no output that could be compared")
	}
	var program []byte
	if j.Module == "" { // a module brings its own
		if program, err = a.program(ctx, j.Task.Program.Fingerprint); err != nil {
			return Info{}, err
		}
	}
	return a.order(ctx, Spec{
		At: at, Module: j.Module, Engine: j.Task.Engine, Program: program, Parameters: j.Task.Parameters, Avatars: j.Avatars, Owner: j.Owner, Things: j.Things,
		From: time.Unix(0, j.Task.From), To: time.Unix(0, j.Task.To), Properties: j.Task.Properties, Limits: j.Task.Limits, Within: within,
	}, &j)
}

// Same is what is found of a repetition that agrees.
const Same = "the same output"

// uncompared reports whether a repetition's output is still to be compared: the party
// ended before it was.
func uncompared(j *Job) bool { return j.Repeats != nil && j.Found == "" && j.Output != nil }

// compared compares a repetition with the job that it repeats, and states what was
// found.
func (a *Agent) compared(ctx context.Context, h *held) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if j.Repeats == nil || j.Found != "" || j.Output == nil {
		return nil
	}
	first, err := a.find(*j.Repeats)
	if err != nil {
		return err
	}
	a.mu.Lock()
	f := first.job
	a.mu.Unlock()
	peer, object := cmp.Or(f.At, a.cfg.Party), capsule.Fingerprint(f.Stand.Result)
	switch {
	case f.Output == nil:
		j.Found = "the first has no output any more"
	case f.Output.Fingerprint == j.Output.Fingerprint:
		j.Found = Same
	case j.At == "" && f.At != "":
		j.Found = fmt.Sprintf("another output: %s lied in the job %s", f.At, f.ID)
	case f.At == "" && j.At != "":
		j.Found = fmt.Sprintf("another output: %s lied in the job %s", j.At, j.ID)
		peer, object = j.At, capsule.Fingerprint(j.Stand.Result)
	default:
		j.Found = fmt.Sprintf("another output: %s or %s lied; repeat it here to know which", cmp.Or(f.At, a.cfg.Party), cmp.Or(j.At, a.cfg.Party))
	}
	return a.changed(ctx, h, j, []ledger.Statement{{
		Kind: ledger.JobCompared, Time: a.cfg.Now().UnixNano(), Peer: peer, Object: object, Reason: j.Found,
	}})
}
