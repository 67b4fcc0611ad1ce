package job

import (
	"context"
	"slices"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
)

// remindEvery is how often DPMs are looked at that were told of withdrawals.
const remindEvery = 5 * time.Second

// remembered is how long after its time a DPM knows of a job.
const remembered = 24 * time.Hour

// remind tells a DPM again what was withdrawn, and what is erased, when its process isn't
// the one that was told: it may have been restored from a copy of before, which has the
// keys.
func (a *Agent) remind(ctx context.Context) error {
	told := make(map[carnet.PartyID]string) // the process that knows of all, by DPM
	tick := time.NewTicker(remindEvery)
	defer tick.Stop()
	for {
		for at, jobs := range a.ended() {
			process, err := a.remindOf(ctx, at, told[at], jobs)
			if err == nil {
				told[at] = process
			} else if ctx.Err() == nil {
				a.cfg.Log.Debug("a DPM can't be reminded of withdrawals; it is tried again", "dpm", at, "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ended lists the jobs whose ends a DPM must not forget, by DPM.
func (a *Agent) ended() map[carnet.PartyID][]Job {
	now := a.cfg.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[carnet.PartyID][]Job)
	for _, h := range a.jobs {
		if j := &h.job; j.Stand.Reminds(now, j.Until) || j.erased() && j.At != "" && now.Before(j.Until.Add(remembered)) {
			all[h.job.At] = append(all[h.job.At], h.job)
		}
	}
	return all
}

// remindOf asks a DPM which process it is, and tells another than told what was
// withdrawn.
func (a *Agent) remindOf(ctx context.Context, at carnet.PartyID, told string, jobs []Job) (process string, err error) {
	ctx, cancel := context.WithTimeout(ctx, offerWait)
	defer cancel()
	p, process, err := a.processOf(ctx, at)
	if err != nil || process == told {
		return process, err
	}
	erased := make(map[string][]dpm.ErasingJob)
	for i := range jobs {
		if jobs[i].erased() {
			erased[jobs[i].Erasing] = append(erased[jobs[i].Erasing], dpm.ErasingJob{ID: jobs[i].ID, Until: jobs[i].Until})
			continue
		}
		if _, err := p.DPM.Withdraw(ctx, jobs[i].ID, jobs[i].Stand.Withdrawal); err != nil && !final(err) {
			return "", err
		}
	}
	for order, these := range erased {
		for some := range slices.Chunk(these, dpm.MaxErasing) {
			if _, err := p.DPM.Erase(ctx, dpm.Erasing{Order: order, Jobs: some}); err != nil && !final(err) {
				return "", err
			}
		}
	}
	return process, nil
}

// processOf asks a DPM which process it is.
func (a *Agent) processOf(ctx context.Context, at carnet.PartyID) (p Peer, process string, err error) {
	if p, err = a.cfg.Peer(at); err != nil {
		return p, "", err
	}
	said, err := p.DPM.Offer(ctx)
	if err != nil {
		return p, "", err
	}
	o, err := capsule.OpenOffer(said.Offer, p.Key)
	return p, o.Process, err
}
