package dpm

import (
	"context"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/ledger"
)

// Ledger finds what proves that a DPM has stated something.
type Ledger interface {
	// Name is whose ledger its statements are on now, and that ledger's key.
	Name() (depot carnet.PartyID, key string, err error)
	// Proof finds a statement of a kind about an object, with a receipt of that ledger:
	// carnet.Unavailable while there is none.
	Proof(ctx context.Context, kind ledger.Kind, object carnet.Fingerprint) (identity.OnLedger, error)
}

// Record signs what this DPM has stated of a job that has ended: carnet.Unavailable while
// a receipt lacks.
func (a *Agent) Record(ctx context.Context, from carnet.PartyID, id carnet.JobID) (string, error) {
	h, err := a.find(from, id)
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	switch {
	case a.cfg.Ledger == nil:
		return "", carnet.Errorf(carnet.NotFound, "this DPM shows nobody what it has stated")
	case j.State != Ended:
		return "", carnet.Errorf(carnet.Conflict, "the job hasn't ended")
	case j.erased():
		return "", carnet.Errorf(carnet.NotFound, "what the job was over is erased")
	case j.Acceptance == "":
		return "", carnet.Errorf(carnet.Conflict, "the job was withdrawn before it came")
	}
	r := capsule.Record{Job: id, Order: j.Named}
	if r.Depot, r.Ledger, err = a.cfg.Ledger.Name(); err != nil {
		return "", err
	}
	if r.Accepted, err = a.cfg.Ledger.Proof(ctx, ledger.JobAccepted, j.Named); err != nil {
		return "", err
	}
	if r.Ended, err = a.cfg.Ledger.Proof(ctx, ledger.JobEnded, capsule.Fingerprint(j.Result)); err != nil {
		return "", err
	}
	return r.Sign(a.cfg.Key)
}
