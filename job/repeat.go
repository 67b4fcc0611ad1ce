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
// world. What comes out is compared with what came out of the first: an output, or that a
// DPM signed that the program fails.
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
	if !canCompare(&j) || j.Output == nil && j.At == "" {
		return Info{}, carnet.Errorf(carnet.Conflict, "the job has no output that could be compared, and no DPM signed that its program fails")
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

// What is found of a repetition that agrees.
const (
	Same      = "the same output"
	SameFault = "it fails, too"
)

// canCompare reports whether how a job ended can be compared: with what came out, or that
// its program fails, as was signed.
func canCompare(j *Job) bool {
	return j.Output != nil || j.Stand.State == Ended && j.Stand.Outcome == capsule.Failed && j.Stand.Result != ""
}

// bySelf reports whether a failure is the program's own, which is the same wherever it runs:
// limits of time, and of a query's memory, are measured.
func bySelf(code carnet.Code) bool {
	return code == carnet.Malformed || code == carnet.Forbidden || code == carnet.Conflict || code == carnet.Tampered
}

// uncompared reports whether a repetition is still to be compared: the party ended before
// it was.
func uncompared(j *Job) bool { return j.Repeats != nil && j.Found == "" && canCompare(j) }

// compared compares a repetition with the job that it repeats, and states what was
// found.
func (a *Agent) compared(ctx context.Context, h *held) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if !uncompared(&j) {
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
	differs := "another output"
	switch { // of the two at most one failed, or what failed says so
	case f.Output == nil && j.Output != nil:
		differs = fmt.Sprintf("an output, of what was said to fail (%s)", f.Stand.Code)
	case f.Output != nil && j.Output == nil:
		differs = fmt.Sprintf("a failure (%s), of what had an output", j.Stand.Code)
	}
	failed := f.Stand.Code
	if j.Output == nil {
		failed = j.Stand.Code
	}
	switch {
	case !canCompare(&f):
		j.Found = "the first has no output any more"
	case f.Output == nil && j.Output == nil:
		j.Found = SameFault
	case f.Output != nil && j.Output != nil && f.Output.Fingerprint == j.Output.Fingerprint:
		j.Found = Same
	case (f.Output == nil || j.Output == nil) && !bySelf(failed):
		j.Found = differs + ": a limit that is measured may be reached at one place and not at another"
	case j.At == "" && f.At != "":
		j.Found = fmt.Sprintf("%s: %s lied in the job %s", differs, f.At, f.ID)
	case f.At == "" && j.At != "":
		j.Found = fmt.Sprintf("%s: %s lied in the job %s", differs, j.At, j.ID)
		peer, object = j.At, capsule.Fingerprint(j.Stand.Result)
	default:
		j.Found = fmt.Sprintf("%s: %s or %s lied; repeat it here to know which", differs, cmp.Or(f.At, a.cfg.Party), cmp.Or(j.At, a.cfg.Party))
	}
	return a.changed(ctx, h, j, []ledger.Statement{{
		Kind: ledger.JobCompared, Time: a.cfg.Now().UnixNano(), Peer: peer, Object: object, Reason: j.Found,
	}})
}
