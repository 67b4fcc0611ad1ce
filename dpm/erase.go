package dpm

import (
	"context"
	"crypto/ed25519"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/ledger"
)

// Erasing is what a world asks a DPM to erase, since something that jobs were computed
// over is erased by its owner's order (docs/design/erasure.md).
type Erasing struct {
	Order string       `json:"order"` // the owner's
	Jobs  []ErasingJob `json:"jobs"`
}

// ErasingJob names a job, and until when its order could be brought.
type ErasingJob struct {
	ID    carnet.JobID `json:"id"`
	Until time.Time    `json:"until"`
}

// MaxErasing is how many jobs are erased by one request.
const MaxErasing = 4096

// ErasingAnswer has the DPM's deletion, a compact JWS.
type ErasingAnswer struct {
	Deletion string `json:"deletion"`
}

// Erase deletes all that is here of a world's jobs, and signs that nothing of them is left:
// no key, no content, no part of an output, no order and no result. What stays is that there
// was a job of that id, so that its capsule isn't taken again; one that isn't known here is
// as good as deleted, so it may be asked again: what is erased and stated is signed anew, and
// nothing else is done. The world's word is enough, since it is what the world gave. A worker
// that has a job's keys is waited for: carnet.Unavailable meanwhile.
func (a *Agent) Erase(ctx context.Context, from carnet.PartyID, q Erasing) (deletion string, err error) {
	order, err := identity.OpenErasure(q.Order)
	if err != nil {
		return "", err
	}
	if len(q.Jobs) == 0 || len(q.Jobs) > MaxErasing {
		return "", carnet.Errorf(carnet.TooLarge, "%d jobs are to be erased at once, want 1 to %d", len(q.Jobs), MaxErasing)
	}
	if _, err := a.cfg.Peer(from); err != nil {
		return "", err
	}
	busy := false
	var erased []*held
	for _, j := range q.Jobs {
		h, stopping, err := a.eraseJob(ctx, from, j, order.Erasure)
		if err != nil {
			return "", err
		}
		if busy = busy || stopping; h != nil {
			erased = append(erased, h)
		}
	}
	if busy {
		return "", carnet.Errorf(carnet.Unavailable, "a worker that has keys of a job is being stopped").WithFix("ask again in a few seconds")
	}
	if len(erased) > 0 {
		if err := a.cfg.Store.Overwrite(ctx); err != nil {
			return "", err
		}
	}
	now := a.cfg.Now().UTC().Truncate(time.Second)
	deletion, err = identity.SignDeletion(a.cfg.Key, identity.Deletion{
		Erasure: order.Erasure, Order: carnet.FingerprintOf([]byte(q.Order)), By: identity.DID(a.Public()), Role: identity.DeletedAtDPM,
		Jobs: uint64(len(q.Jobs)), Unreadable: now, Unrecoverable: now.Add(a.cfg.Backups),
	})
	if err != nil || len(erased) == 0 {
		return deletion, err
	}
	item, err := a.cfg.State(ledger.Statement{Kind: ledger.Erased, Time: a.cfg.Now().UnixNano(), Peer: from, Object: carnet.FingerprintOf([]byte(deletion))})
	if err != nil {
		return "", err
	}
	if err := a.cfg.Store.Put(ctx, nil, []ledger.Item{item}); err != nil {
		return "", err
	}
	a.cfg.Recorded()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range erased {
		h.stated = true
	}
	return deletion, nil
}

// eraseJob erases one job, and returns it if that isn't stated yet by this process; stopping:
// a worker may have its keys still.
func (a *Agent) eraseJob(ctx context.Context, from carnet.PartyID, q ErasingJob, by carnet.ErasureID) (unstated *held, stopping bool, err error) {
	e := Event{Kind: Erase, Erasure: by}
	h, err := a.find(from, q.ID)
	if carnet.CodeOf(err) == carnet.NotFound {
		now := a.cfg.Now()
		if !now.Before(q.Until) { // nobody can bring it any more
			return nil, false, nil
		}
		until := now.Add(capsule.Longest + ahead)
		if q.Until.Before(until) {
			until = q.Until
		}
		h, err = a.bury(ctx, from, q.ID, Job{Peer: from, Until: until, State: Waiting}, e)
	}
	if err != nil {
		return nil, false, err
	}
	if err := a.change(ctx, h, e); err != nil {
		return nil, false, err
	}
	if err := a.clear(ctx, h); err != nil {
		return nil, false, err
	}
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.order != nil && a.jobs[h.ref] == h { // who reads the order still has the old one
		a.tell(h)
		h = &held{
			ref: h.ref, version: h.version, job: h.job, accepted: h.accepted, serial: h.serial, changed: make(chan struct{}), worker: h.worker, stopping: h.stopping,
		}
		a.jobs[h.ref] = h
	}
	if !h.stated {
		unstated = h
	}
	return unstated, a.workers[h.worker] > 0 && a.cfg.Now().Before(h.stopping), nil
}

// erased is what stays of a job of which nothing is to be left: that there was one.
func erased(j Job, at time.Time, by carnet.ErasureID) Job {
	if j.State != Ended {
		j = end(j, at, capsule.Withdrawn, "", "")
	}
	return Job{Peer: j.Peer, Named: j.Named, Until: j.Until, State: Ended, Outcome: j.Outcome, Ended: j.Ended, Erasure: by}
}

// Public is the key by which worlds know this DPM's words.
func (a *Agent) Public() ed25519.PublicKey { return a.cfg.Key.Public().(ed25519.PublicKey) }
