package job

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"carnet"
	"carnet/dpm"
	"carnet/keys"
)

// Erased says what is erased by an owner's order: of an avatar that is here, or was, all of
// it, or some of its streams only.
type Erased struct {
	By      carnet.ErasureID
	Order   string // the owner's
	Avatar  carnet.AvatarID
	Streams []carnet.StreamID // in this world's store; nil: all
}

// of reports whether something that a job was over is erased.
func (e *Erased) of(j *Job) bool {
	if e.Streams == nil {
		return slices.Contains(j.Avatars, e.Avatar)
	}
	return slices.ContainsFunc(j.Pins, func(p Pin) bool { return p.Avatar == e.Avatar && slices.Contains(e.Streams, p.Stream) })
}

// Erase ends the jobs over what is erased, in whatever state they are: on return it is
// durable that none of them goes on, that their outputs aren't here, and what the depot is
// to delete of them; and their outputs' keys are destroyed. Of jobs that are over nobody
// else, what was ordered and said isn't here any more either. It says how many there are;
// done again it stays done.
func (a *Agent) Erase(ctx context.Context, e Erased) (jobs uint64, err error) {
	a.putting.Lock()
	a.erased = slices.DeleteFunc(a.erased, func(had Erased) bool { return had.By == e.By && had.Avatar == e.Avatar && had.Streams != nil })
	if !slices.ContainsFunc(a.erased, func(had Erased) bool { return had.By == e.By && had.Avatar == e.Avatar }) {
		a.erased = append(a.erased, e)
	}
	a.putting.Unlock()
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.jobs))
	a.mu.Unlock()
	for _, h := range all {
		a.mu.Lock()
		j := h.job
		a.mu.Unlock()
		if _, is := j.erasedBy(e.By); is {
			jobs++
			continue
		}
		if !e.of(&j) {
			continue
		}
		var err error
		if j.erased() {
			err = a.eraseFurther(ctx, h, e)
		} else {
			err = a.eraseOne(ctx, h, e)
		}
		if err != nil {
			return jobs, err
		}
		jobs++
	}
	return jobs, a.destroyStray(ctx, false)
}

// eraseOne ends a job.
func (a *Agent) eraseOne(ctx context.Context, h *held, e Erased) error {
	select { // what is under way ends
	case h.wake <- struct{}{}:
	default:
	}
	h.taking.Lock()
	defer h.taking.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	var plain []carnet.Document
	if j.Output != nil {
		objects := []carnet.Fingerprint{j.Stored}
		if j.Stored == (carnet.Fingerprint{}) { // it may have come there, and the answer not here
			object, err := a.sealed(ctx, &j)
			if err != nil {
				return err
			}
			objects[0] = carnet.FingerprintOf(object)
		}
		var err error
		if plain, err = a.cfg.World.Dooming(ctx, objects, e.By); err != nil {
			return err
		}
		parts, err := a.noOutput(ctx, &j)
		if err != nil {
			return err
		}
		plain = append(plain, parts...)
	}
	only := a.only(&j, &e)
	err := a.change(ctx, h, Event{Kind: Erase, Why: fmt.Sprintf("something that it was over is erased, by the erasure %s", e.By)}, func(j *Job) {
		j.Erasure, j.Erasing, j.Output, j.Path, j.Stored = e.By, e.Order, nil, "", carnet.Fingerprint{}
		if only {
			j.strip()
		}
	}, plain...)
	if err != nil {
		return err
	}
	if err := a.cfg.Keys.Destroy(ctx, keyID(j.ID)); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	return nil
}

// only reports whether no avatar that a job was over is here but what is erased.
func (a *Agent) only(j *Job, e *Erased) bool {
	return !slices.ContainsFunc(j.Avatars, func(id carnet.AvatarID) bool {
		_, err := a.cfg.World.Avatar(id)
		return id != e.Avatar && err == nil || id == e.Avatar && e.Streams != nil
	})
}

// eraseFurther notes that a job which an erasure has ended is erased by another, too: its
// DPM may not have heard of the first, and signs for each.
func (a *Agent) eraseFurther(ctx context.Context, h *held, e Erased) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if _, is := j.erasedBy(e.By); is {
		return nil
	}
	j.Further = append(slices.Clone(j.Further), ErasedBy{e.By, e.Order})
	if a.only(&j, &e) {
		j.strip()
	}
	return a.changed(ctx, h, j, nil)
}

// destroyStray destroys keys of outputs, and of partial ones, that no job has: what a crash left, or an older copy
// of the key table brought back. Once jobs go on, a key of a partial output may be there
// before the output is.
func (a *Agent) destroyStray(ctx context.Context, atStart bool) error {
	ids, err := a.cfg.Keys.List(ctx, kindKey, "")
	if err != nil {
		return err
	}
	partials, err := a.cfg.Keys.List(ctx, kindPartialKey, "")
	if err != nil {
		return err
	}
	var stray []keys.ID
	a.mu.Lock()
	for _, id := range ids {
		var job carnet.JobID
		if err := job.UnmarshalText([]byte(id.Name)); err != nil {
			continue
		}
		if h := a.jobs[job]; h == nil || h.job.erased() || h.job.Stand.State == Ended && h.job.Output == nil {
			stray = append(stray, id)
		}
	}
	for _, id := range partials {
		if a.strayPartial(id.Name, atStart) {
			stray = append(stray, id)
		}
	}
	a.mu.Unlock()
	if len(stray) == 0 {
		return nil
	}
	return a.cfg.Keys.Destroy(ctx, stray...)
}

// Over lists the DPMs that have, or had, jobs over what an avatar said, with how many; "":
// this world.
func (a *Agent) Over(id carnet.AvatarID) map[carnet.PartyID]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[carnet.PartyID]int)
	for _, h := range a.jobs {
		if slices.Contains(h.job.Avatars, id) {
			all[h.job.At]++
		}
	}
	return all
}

// ErasedAt lists the DPMs that had jobs over what is erased, with how many.
func (a *Agent) ErasedAt(by carnet.ErasureID) map[carnet.PartyID]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[carnet.PartyID]int)
	for _, h := range a.jobs {
		if _, is := h.job.erasedBy(by); is && h.job.At != "" {
			all[h.job.At]++
		}
	}
	return all
}

// TellErased has a DPM erase what it has of jobs over what is erased, and returns what it
// signed, unverified, each with how many jobs it is of.
func (a *Agent) TellErased(ctx context.Context, at carnet.PartyID, by carnet.ErasureID) (deletions []string, of []int, err error) {
	p, err := a.cfg.Peer(at)
	if err != nil {
		return nil, nil, err
	}
	var these []dpm.ErasingJob
	var order string
	a.mu.Lock()
	for _, h := range a.jobs {
		if said, is := h.job.erasedBy(by); is && h.job.At == at {
			these, order = append(these, dpm.ErasingJob{ID: h.job.ID, Until: h.job.Until}), said
		}
	}
	a.mu.Unlock()
	slices.SortFunc(these, func(x, y dpm.ErasingJob) int { return slices.Compare(x.ID[:], y.ID[:]) })
	for some := range slices.Chunk(these, dpm.MaxErasing) {
		said, err := p.DPM.Erase(ctx, dpm.Erasing{Order: order, Jobs: some})
		if err != nil {
			return nil, nil, err
		}
		deletions, of = append(deletions, said), append(of, len(some))
	}
	return deletions, of, nil
}
