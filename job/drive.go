package job

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/ledger"
)

func publicOf(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// waits between two tries, and for a DPM's news.
const (
	againAfter = time.Second
	atLeast    = 20 * time.Millisecond // between two answers of a DPM that has news all the time
	newsWait   = 10 * time.Second
)

// drive sees to a job until nothing is to be done about it.
func (a *Agent) drive(ctx context.Context, h *held) error {
	for ctx.Err() == nil {
		a.mu.Lock()
		j := h.job
		a.mu.Unlock()
		if a.over(&j) {
			return nil
		}
		step, cancel := a.within(ctx, &j)
		stop := make(chan struct{})
		go func() { // a change ends what is under way
			defer close(stop)
			select {
			case <-h.wake:
				cancel()
			case <-step.Done():
			}
		}()
		err := a.step(step, h, &j)
		woken := step.Err() != nil
		cancel()
		<-stop
		if err == nil || woken || ctx.Err() != nil {
			continue
		}
		if carnet.CodeOf(err) == "" {
			a.cfg.Log.Warn("a job doesn't go on; it is tried again", "job", j.ID, "err", err)
		}
		a.trouble(h, err.Error())
		select {
		case <-time.After(againAfter):
		case <-h.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// within bounds a step by the job's time: a DPM that answers slowly doesn't hold it beyond
// that. What ends the job then isn't bounded.
func (a *Agent) within(ctx context.Context, j *Job) (context.Context, context.CancelFunc) {
	if left := j.Until.Sub(a.cfg.Now()); j.Stand.State != Ended && left > 0 {
		return context.WithTimeout(ctx, left)
	}
	return context.WithCancel(ctx)
}

// step does what is next about a job.
func (a *Agent) step(ctx context.Context, h *held, j *Job) error {
	if j.Stand.State != Ended && !a.cfg.Now().Before(j.Until) {
		return a.change(ctx, h, Event{Kind: Overdue, Why: a.overdue(h, j)}, nil)
	}
	if j.Stand.Sends() {
		if err := a.still(j); err != nil {
			return a.withdraw(ctx, h, carnet.Shorten(err.Error(), capsule.MaxReason))
		}
		if why := a.forbids(j.Module); why != "" {
			return a.refuse(ctx, h, j, why)
		}
	}
	switch {
	case uncompared(j):
		return a.compared(ctx, h)
	case j.Stand.State == Ended && j.Stand.Told && j.Output != nil && j.Stored == carnet.Fingerprint{} && a.mayStore(j):
		return a.store(ctx, h, j)
	case j.Stand.State == Ended && j.Stand.Told:
		return a.askRecord(ctx, h, j)
	case j.At == "" && j.Stand.State == Ended: // this party ended before it noted that nobody is to be told
		return a.change(ctx, h, Event{Kind: Tell}, nil)
	case j.At == "":
		return a.runHere(ctx, h, j)
	}
	p, err := a.cfg.Peer(j.At)
	if code := carnet.CodeOf(err); code == carnet.Forbidden || code == carnet.NotFound {
		if j.Stand.State == Ended {
			return a.change(ctx, h, Event{Kind: Tell}, nil)
		}
		return a.change(ctx, h, Event{Kind: Refuse, Code: code, Why: err.Error()}, nil)
	}
	if err != nil {
		return err
	}
	switch j.Stand.State {
	case Ordered:
		return a.submit(ctx, h, j, &p)
	case Accepted:
		return a.follow(ctx, h, j, &p)
	case Withdrawing:
		return a.tellWithdrawn(ctx, h, j, &p)
	}
	return a.tellTaken(ctx, h, j, &p)
}

// overdue says what a DPM didn't do.
func (a *Agent) overdue(h *held, j *Job) string {
	a.mu.Lock()
	trouble := h.progress.Trouble
	a.mu.Unlock()
	switch {
	case j.At == "" && trouble != "":
		return "it didn't finish in its time: " + trouble
	case j.At == "":
		return "it didn't finish in its time"
	case j.Stand.State == Ordered && trouble != "":
		return fmt.Sprintf("%s never accepted it: %s", j.At, trouble)
	case j.Stand.State == Ordered:
		return fmt.Sprintf("%s never answered", j.At)
	case trouble != "":
		return fmt.Sprintf("%s accepted it and gave no result in its time: %s", j.At, trouble)
	}
	return fmt.Sprintf("%s accepted it and gave no result in its time", j.At)
}

// final reports whether a DPM's refusal would be the same again.
func final(err error) bool {
	switch carnet.CodeOf(err) {
	case "", carnet.Unavailable, carnet.NoSpace:
		return false
	}
	return true
}

// submit brings the capsule.
func (a *Agent) submit(ctx context.Context, h *held, j *Job, p *Peer) error {
	said, err := p.DPM.Submit(ctx, j.ID, a.submission(j))
	if final(err) && ctx.Err() == nil {
		return a.change(ctx, h, Event{Kind: Refuse, Code: carnet.CodeOf(err), Why: fmt.Sprintf("%s doesn't take it: %v", j.At, err)}, nil)
	}
	if err != nil {
		return err
	}
	a.went(j.At, 1, 0)
	acceptance, err := capsule.OpenAcceptance(said, p.Key)
	if err == nil && (acceptance.Job != j.ID || acceptance.Order != capsule.Fingerprint(j.Order)) {
		err = carnet.Errorf(carnet.Tampered, "%s accepts another order than it was brought", j.At)
	}
	if err != nil {
		return err
	}
	return a.change(ctx, h, Event{Kind: Accept, Acceptance: said}, nil)
}

// follow asks where the job stands, gives what lacks, and takes the result.
func (a *Agent) follow(ctx context.Context, h *held, j *Job, p *Peer) error {
	given := make(map[carnet.Fingerprint]bool)
	var last string
	var g glances
	for seen := uint64(0); ; {
		asked := time.Now()
		wait := min(newsWait, max(time.Second, j.Until.Sub(a.cfg.Now())))
		if g.behind {
			wait = time.Second
		}
		s, err := p.DPM.Status(ctx, j.ID, seen, wait)
		if carnet.CodeOf(err) == carnet.NotFound { // it was restored from an older copy
			_, err = p.DPM.Submit(ctx, j.ID, a.submission(j))
			if final(err) {
				return a.change(ctx, h, Event{Kind: Refuse, Code: carnet.CodeOf(err), Why: fmt.Sprintf("%s has lost it, and doesn't take it again: %v", j.At, err)}, nil)
			}
			if err == nil {
				a.went(j.At, 1, 0)
				err = carnet.Errorf(carnet.Unavailable, "%s had lost it, and has it again", j.At)
			}
		}
		if err != nil {
			return err
		}
		seen = s.Serial
		slices.SortFunc(s.Lacks, func(a, b carnet.Fingerprint) int { return slices.Compare(a[:], b[:]) })
		s.Lacks = slices.Compact(s.Lacks) // nothing is given twice for one answer
		a.heard(h, Progress{State: string(s.State), Attempt: s.Attempt, Permille: s.Progress.Permille, Measurements: s.Progress.Measurements, Parts: s.Parts})
		if s.Result != "" {
			return a.take(ctx, h, j, p, &s)
		}
		if g.due(&s) {
			if err := a.glance(ctx, h, j, p); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil && carnet.CodeOf(err) != carnet.NotFound { // it may have ended, or be of before partial outputs
				g.failed++
				a.trouble(h, "what it has put out so far: "+err.Error())
			}
		}
		// One that answers at once with nothing new, or asks for the same again, has this world
		// work no more than once in a while.
		news := newsOf(&s)
		pause := atLeast - time.Since(asked)
		if news == last && time.Since(asked) < againAfter || slices.ContainsFunc(s.Lacks, func(f carnet.Fingerprint) bool { return given[f] }) {
			pause = againAfter
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		last = news
		for _, name := range s.Lacks {
			if !slices.ContainsFunc(j.Task.Contents(), func(c capsule.Content) bool { return c.Fingerprint == name }) {
				return a.withdraw(ctx, h, fmt.Sprintf("%s asks for content that its order doesn't name: %s", j.At, name))
			}
			given[name] = true
			content, err := a.content(ctx, j, name)
			if code := carnet.CodeOf(err); code == carnet.NotFound || code == carnet.TooOld {
				return a.withdraw(ctx, h, "its inputs are gone: "+err.Error())
			}
			if err != nil {
				return err
			}
			// What was withdrawn meanwhile doesn't leave: the change has ended ctx.
			if err := p.DPM.PutContent(ctx, j.ID, content); err != nil {
				return err
			}
			a.went(j.At, 1, 0)
		}
		if !a.cfg.Now().Before(j.Until) {
			return nil
		}
	}
}

// newsOf is what a status says but how often it changed.
func newsOf(s *dpm.Status) string {
	return fmt.Sprint(s.State, s.Process, s.Lacks, s.Attempt, s.Progress, s.Parts)
}

// sleep waits, unless ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tellWithdrawn tells the DPM that a job is withdrawn, and takes its word that it has
// destroyed the keys.
func (a *Agent) tellWithdrawn(ctx context.Context, h *held, j *Job, p *Peer) error {
	said, err := p.DPM.Withdraw(ctx, j.ID, j.Stand.Withdrawal)
	if err != nil {
		return err
	}
	r, err := a.resultBy(said, j, p)
	if err != nil {
		return err
	}
	if r.Outcome == capsule.Done {
		return carnet.Errorf(carnet.Unavailable, "%s is told that it is withdrawn, and answers that it is done", j.At)
	}
	e := Event{Kind: Resulted, Outcome: r.Outcome, Code: r.Code, Why: j.Stand.Why, Result: said}
	if why, err := a.unfounded(j, &r); err != nil {
		return err
	} else if why != "" {
		e = lieOf(j, e, why)
	}
	return a.change(ctx, h, e, nil)
}

// tellTaken tells the DPM that the result is here.
func (a *Agent) tellTaken(ctx context.Context, h *held, j *Job, p *Peer) error {
	message, err := capsule.Taken{Job: j.ID, Order: capsule.Fingerprint(j.Order), Result: capsule.Fingerprint(j.Stand.Result)}.Sign(a.cfg.Key)
	if err != nil {
		return err
	}
	err = p.DPM.Taken(ctx, j.ID, message)
	late := !a.cfg.Now().Before(j.Until.Add(24 * time.Hour))
	if err != nil && !final(err) && !late {
		return err
	}
	return a.change(ctx, h, Event{Kind: Tell}, nil)
}

// store puts a job's output into the depot.
func (a *Agent) store(ctx context.Context, h *held, j *Job) error {
	if a.cfg.Depot.Party() == "" {
		return carnet.Errorf(carnet.Unavailable, "there is no depot yet")
	}
	h.taking.Lock()
	defer h.taking.Unlock()
	if err := ctx.Err(); err != nil { // something ended it meanwhile
		return err
	}
	a.mu.Lock()
	gone := h.job.Output == nil
	a.mu.Unlock()
	if gone { // it was destroyed meanwhile
		return nil
	}
	object, err := a.sealed(ctx, j)
	if err != nil {
		return err
	}
	h.home = false
	f, err := a.cfg.Depot.PutObject(ctx, object, carnet.Year)
	if err != nil {
		return err
	}
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	now := h.job
	a.mu.Unlock()
	if now.Output == nil { // it was destroyed meanwhile, and nobody knew of this copy
		if err := a.cfg.Depot.DeleteObject(ctx, f); carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
		return nil
	}
	now.Stored = f
	return a.changed(ctx, h, now, []ledger.Statement{{
		Kind: ledger.StoredObject, Time: a.cfg.Now().UnixNano(), Peer: a.cfg.Depot.Party(), Object: f, Size: uint64(len(object)),
	}})
}

var _ DPM = (*dpm.Client)(nil)
