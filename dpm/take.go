package dpm

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/ledger"
	"carnet/seal"
)

// Submission is a capsule, as a world brings it.
type Submission struct {
	Order     string   `json:"order"`
	Bags      [][]byte `json:"bags"`
	Reception []byte   `json:"reception"`        // the world's announcement
	Record    string   `json:"record,omitempty"` // of the module that the order names
}

// ahead is how far a world's clock may be ahead of this one's.
const ahead = 5 * time.Minute

// Submit takes a capsule: when it returns, order and keys are durable. The same order
// again is answered the same.
func (a *Agent) Submit(ctx context.Context, from carnet.PartyID, id carnet.JobID, s Submission) (acceptance string, err error) {
	peer, err := a.cfg.Peer(from)
	if err != nil {
		return "", err
	}
	if h, err := a.find(from, id); err == nil {
		return a.again(h, s.Order)
	}
	order, err := capsule.OpenOrder(s.Order, peer.Key)
	if err != nil {
		return "", err
	}
	if err := a.admit(peer, id, &order); err != nil {
		return "", err
	}
	module, err := a.moduleOf(from, &order, s.Record)
	if err != nil {
		return "", err
	}
	bags, err := a.openBags(peer, &order, s.Bags)
	if err != nil {
		return "", err
	}
	to, err := seal.ParseReception(s.Reception, peer.Key, a.cfg.Now())
	if err == nil && to.ID != order.Reception {
		err = carnet.Errorf(carnet.Malformed, "the order is for the reception key %s, and another came with it", order.Reception)
	}
	if err != nil {
		return "", err
	}
	h := &held{
		ref: refOf(from, id), order: &order, module: module, accepted: a.cfg.Now().UTC().Truncate(time.Second), coming: make(map[carnet.Fingerprint]bool), changed: make(chan struct{}), serial: 1,
	}
	h.job = Job{Peer: from, Order: s.Order, Named: capsule.Fingerprint(s.Order), Reception: s.Reception, Until: order.Until, Record: s.Record, State: Waiting}
	if h.job.Acceptance, err = (capsule.Acceptance{Job: id, Order: h.job.Named, Accepted: h.accepted}).Sign(a.cfg.Key); err != nil {
		return "", err
	}
	return a.accept(ctx, h, bags)
}

// again answers for a job that is there, once it is durably.
func (a *Agent) again(h *held, order string) (string, error) {
	h.changing.Lock() // who brought it first has stored it, or hasn't
	defer h.changing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.jobs[h.ref] != h:
		return "", carnet.Errorf(carnet.Unavailable, "the job could not be stored").WithFix("bring it again")
	case h.job.erased():
		return "", carnet.Errorf(carnet.Conflict, "what the job was over is erased")
	case h.job.Named != capsule.Fingerprint(order):
		return "", carnet.Errorf(carnet.Conflict, "there is another job of that id")
	case h.job.Acceptance == "":
		return "", carnet.Errorf(carnet.Conflict, "the job was withdrawn before it came")
	}
	return h.job.Acceptance, nil
}

// accept stores keys and job. Of two that come at once one is first.
func (a *Agent) accept(ctx context.Context, h *held, bags []*seal.Bag) (string, error) {
	item, err := a.cfg.State(ledger.Statement{Kind: ledger.JobAccepted, Time: a.cfg.Now().UnixNano(), Peer: h.job.Peer, Object: h.job.Named})
	if err != nil {
		return "", err
	}
	h.changing.Lock()
	defer h.changing.Unlock()
	a.look(h)
	a.mu.Lock()
	if other := a.jobs[h.ref]; other != nil {
		a.mu.Unlock()
		return a.again(other, h.job.Order)
	}
	if h.module != nil { // a revocation that comes from here on finds the job
		if why := a.why(h.job.Peer, h.order.Module, h.module); why != "" {
			a.mu.Unlock()
			return "", carnet.Errorf(carnet.Forbidden, "%s", why)
		}
	}
	if err := a.crowded(h.job.Peer, h.order); err != nil { // others of its peer may have come since it was admitted
		a.mu.Unlock()
		return "", err
	}
	a.jobs[h.ref] = h
	a.mu.Unlock()
	err = putKeys(ctx, a.cfg.Keys, h.ref, bags)
	if err == nil {
		err = a.files.make(h.ref)
	}
	if err == nil {
		err = a.put(ctx, h, &h.job, []ledger.Item{item})
	}
	if err != nil {
		a.mu.Lock()
		delete(a.jobs, h.ref)
		a.mu.Unlock()
		return "", err // keys that were stored are destroyed at the next start, if it doesn't come again
	}
	return h.job.Acceptance, nil
}

// admit refuses an order that this DPM doesn't take.
func (a *Agent) admit(peer Peer, id carnet.JobID, o *capsule.Order) error {
	now := a.cfg.Now()
	refuse := func(format string, args ...any) error { return carnet.Errorf(carnet.Forbidden, format, args...) }
	most, l := a.cfg.Most, o.Task.Limits
	switch {
	case o.Job != id || o.By != peer.OwnName || o.For != a.cfg.Party:
		return refuse("the order is of job %s by %s for %s, not of %s by %s for %s", o.Job, o.By, o.For, id, peer.OwnName, a.cfg.Party)
	case o.Terms != peer.Terms:
		return refuse("the order is by other terms than those in force")
	case !now.Before(o.Until):
		return carnet.Errorf(carnet.TooOld, "the order was good until %s", o.Until.Format(time.RFC3339)).WithFix("order anew")
	case o.Made.After(now.Add(ahead)):
		return carnet.Errorf(carnet.TooNew, "the order was made at %s, which is to come", o.Made.Format(time.RFC3339)).WithFix("set the clocks")
	case !peer.Given.Purposes.Has(o.Purpose):
		return refuse("the order is for the purpose %q, and the terms are for %s", o.Purpose, peer.Given.Purposes)
	case !slices.ContainsFunc(a.cfg.Engines, func(e capsule.EngineOffer) bool { return e.Name == o.Task.Engine }):
		return refuse("this DPM has no engine %q", o.Task.Engine)
	case l.Memory > most.Memory || l.Milliseconds > most.Milliseconds || l.Output > most.Output || l.Parts > most.Parts:
		return carnet.Errorf(carnet.TooLarge, "the order's limits are %+v, and this DPM gives at most %+v", l, most)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.crowded(peer.Name, o)
}

// crowded refuses an order for which its peer has too much here. The caller holds mu.
func (a *Agent) crowded(peer carnet.PartyID, o *capsule.Order) error {
	size := int64(0)
	for _, c := range o.Task.Contents() {
		size += c.Size
	}
	known, open, output := 0, 0, room(o.Task.Limits.Output, o.Task.Limits.Parts)
	var untaken []*held
	for _, h := range a.jobs {
		if h.job.Peer != peer {
			continue
		}
		known++
		switch {
		case h.order == nil: // it is being withdrawn, and never came
		case h.job.State != Ended:
			open++
			for _, c := range h.order.Task.Contents() {
				size += c.Size
			}
			output += room(h.order.Task.Limits.Output, h.order.Task.Limits.Parts)
		case h.job.HasParts():
			untaken = append(untaken, h)
			output += room(h.job.Output.Size, h.job.Output.Parts)
		}
	}
	if output > mostOutput {
		return carnet.Errorf(carnet.TooLarge, "what came out of jobs of %s, or may, takes %d bytes here with this one, and %d results of them aren't taken", peer, output, len(untaken)).
			WithFix("take them, or withdraw their jobs%s; at most %d GiB are kept", oldestOf(untaken), mostOutput>>30)
	}
	if open >= mostJobs || known >= mostKnown || size > mostContent {
		return carnet.Errorf(carnet.TooLarge, "%s has %d jobs here that haven't ended, and their content is %d bytes with this one", peer, open, size).
			WithFix("wait until some have ended; at most %d and %d GiB are taken", mostJobs, mostContent>>30)
	}
	return nil
}

// room is what an output takes on disk: each part is a file, and at least a block.
func room(bytes uint64, parts int) uint64 { return bytes + uint64(parts)<<12 }

// oldestOf names those of some jobs that ran first. The caller holds mu.
func oldestOf(jobs []*held) (names string) {
	slices.SortFunc(jobs, func(x, y *held) int { return cmp.Or(x.job.Began.Compare(y.job.Began), cmp.Compare(x.ref, y.ref)) })
	for i, h := range jobs[:min(len(jobs), 3)] {
		names += []string{": ", ", ", ", "}[i] + idOf(h.ref)
	}
	return names
}

// openBags opens an order's key bags, which must be those that it names, for this job
// and nothing else.
func (a *Agent) openBags(peer Peer, o *capsule.Order, sealed [][]byte) (bags []*seal.Bag, err error) {
	if len(sealed) != len(o.Bags) {
		return nil, carnet.Errorf(carnet.Malformed, "the order names %d key bags, and %d came", len(o.Bags), len(sealed))
	}
	given := peer.Given
	given.Purposes = carnet.NewSet(o.Purpose)
	for i, s := range sealed {
		if carnet.FingerprintOf(s) != o.Bags[i] {
			return nil, carnet.Errorf(carnet.Tampered, "key bag %d isn't the one that the order names", i)
		}
		b, err := a.receptions.open(s, seal.Expected{Granter: o.By, Signer: peer.Key, Reader: o.For})
		if err != nil {
			return nil, err
		}
		if carnet.JobID(b.Grant) != o.Job || b.Purpose != o.Purpose || b.NotAfter.After(o.Until) {
			return nil, carnet.Errorf(carnet.Forbidden, "key bag %d is of another job, for another purpose or time than the order", i)
		}
		for _, e := range b.Entries {
			if e.Key.Level != seal.SlotLevel {
				return nil, carnet.Errorf(carnet.Malformed, "a job is given keys of slots, not of %s", e.Key.Path)
			}
			if why := e.Ceiling.Exceeds(given); why != "" {
				return nil, carnet.Errorf(carnet.Forbidden, "the key of %s is more than this DPM may have: %s", e.Key.Path, why)
			}
		}
		bags = append(bags, b)
	}
	return bags, nil
}

// readOrder reads an order that was verified when it came.
func readOrder(message string) (o capsule.Order, err error) {
	parts := strings.Split(message, ".")
	if len(parts) != 3 {
		return o, carnet.Errorf(carnet.Tampered, "a stored order isn't one")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &o)
	}
	return o, err
}

// PutContent takes content that a job lacks. It is whole and as its order says, or it
// isn't taken.
func (a *Agent) PutContent(ctx context.Context, from carnet.PartyID, id carnet.JobID, name carnet.Fingerprint, body io.Reader) error {
	h, err := a.find(from, id)
	if err != nil {
		return err
	}
	a.mu.Lock()
	size, lacks := h.lacks[name]
	state, comes := h.job.State, h.coming[name]
	if lacks && !comes {
		h.coming[name] = true
		defer a.came(h, name)
	}
	a.mu.Unlock()
	switch {
	case state == Ended:
		return carnet.Errorf(carnet.Conflict, "the job has ended")
	case !lacks:
		return nil // it came already, or no one asked for it
	case comes: // so that a job takes no more room than its order says
		return carnet.Errorf(carnet.Unavailable, "this content of the job is being brought").WithFix("wait until it is there, or broke off")
	}
	if err := a.files.put(a.files.content(h.ref, name), body, size, name); err != nil {
		return err
	}
	a.mu.Lock()
	delete(h.lacks, name)
	whole := len(h.lacks) == 0
	a.tell(h)
	a.mu.Unlock()
	if whole { // if it fails the next round does it
		return a.change(ctx, h, Event{Kind: Whole})
	}
	return nil
}

// came notes that content is no longer being brought.
func (a *Agent) came(h *held, name carnet.Fingerprint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(h.coming, name)
}

// Status is where a job stands, as its world sees it.
type Status struct {
	State    State                `json:"state"`
	Serial   uint64               `json:"serial"`
	Process  string               `json:"process"`
	Lacks    []carnet.Fingerprint `json:"lacks,omitempty"`
	Attempt  int                  `json:"attempt,omitempty"`
	Progress Progress             `json:"progress"`
	// Parts of the attempt that are there, and the bag that gives their key, at Path.
	Parts  int    `json:"parts,omitempty"`
	Bag    []byte `json:"bag,omitempty"`
	Path   string `json:"path,omitempty"`
	Result string `json:"result,omitempty"`
	// Withdrawal is the world's own word by which the job ended as withdrawn, Taken the one
	// by which its parts are deleted: for a world that was restored from a copy of before it.
	Withdrawal string `json:"withdrawal,omitempty"`
	Taken      string `json:"taken,omitempty"`
}

// Status returns where a job stands, at once if that isn't what the caller has seen,
// else when it changes or ctx ends.
func (a *Agent) Status(ctx context.Context, from carnet.PartyID, id carnet.JobID, seen uint64) (Status, error) {
	h, err := a.find(from, id)
	if err != nil {
		return Status{}, err
	}
	for {
		a.mu.Lock()
		s, changed := a.statusOf(h), h.changed
		a.mu.Unlock()
		if s.Serial != seen {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, nil
		}
	}
}

// statusOf is a job's status. The caller holds mu.
func (a *Agent) statusOf(h *held) Status {
	s := Status{State: h.job.State, Serial: h.serial, Process: a.process, Attempt: h.job.Attempt, Progress: h.done, Result: h.job.Result, Taken: h.job.Took}
	if h.job.Outcome == capsule.Withdrawn {
		s.Withdrawal = h.job.Withdrawal
	}
	for f := range h.lacks {
		s.Lacks = append(s.Lacks, f)
	}
	slices.SortFunc(s.Lacks, func(a, b carnet.Fingerprint) int { return slices.Compare(a[:], b[:]) })
	if h.job.State == Ended {
		s.Lacks = nil
	}
	if h.job.HasParts() {
		s.Bag, s.Path, s.Parts = h.job.Bag, h.job.Path, len(h.parts)
		if h.job.Output != nil {
			s.Parts = h.job.Output.Parts
		}
	}
	return s
}

// PartialAnswer is what an attempt that runs has put out so far: a capsule.Partial, and the
// bag that it names.
type PartialAnswer struct {
	Partial string `json:"partial"`
	Bag     []byte `json:"bag"`
}

// Partial signs what the attempt that runs has put out so far; carnet.NotFound while that
// is nothing, or none runs.
func (a *Agent) Partial(from carnet.PartyID, id carnet.JobID) (PartialAnswer, error) {
	h, err := a.find(from, id)
	if err != nil {
		return PartialAnswer{}, err
	}
	a.mu.Lock()
	j, parts := h.job, slices.Clone(h.parts)
	a.mu.Unlock()
	if j.State != Leased || len(parts) == 0 {
		return PartialAnswer{}, carnet.Errorf(carnet.NotFound, "no attempt of the job runs that has put out something")
	}
	said, err := capsule.Partial{Job: id, Order: j.Named, Attempt: j.Attempt, Bag: carnet.FingerprintOf(j.Bag), Parts: len(parts), Sealed: seal.Root(parts)}.Sign(a.cfg.Key)
	return PartialAnswer{said, j.Bag}, err
}

// Part returns a sealed part of what an attempt has put out.
func (a *Agent) Part(from carnet.PartyID, id carnet.JobID, attempt, n int) ([]byte, error) {
	h, err := a.find(from, id)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	kept := h.job.HasParts() && h.job.Attempt == attempt && n >= 0
	a.mu.Unlock()
	if !kept {
		return nil, carnet.Errorf(carnet.NotFound, "part %d of attempt %d isn't there any more", n, attempt)
	}
	return a.files.read(a.files.part(h.ref, attempt, n))
}

// Withdraw ends a job by its world's word; one that never came doesn't come any more.
// When it returns no key of the job is here.
func (a *Agent) Withdraw(ctx context.Context, from carnet.PartyID, id carnet.JobID, message string) (result string, err error) {
	peer, err := a.cfg.Peer(from)
	if err != nil {
		return "", err
	}
	w, err := capsule.OpenWithdrawal(message, peer.Key)
	if err != nil {
		return "", err
	}
	if w.Job != id {
		return "", carnet.Errorf(carnet.Malformed, "the withdrawal is of another job")
	}
	h, err := a.find(from, id)
	if carnet.CodeOf(err) == carnet.NotFound {
		now := Job{Peer: from, Named: w.Order, Until: a.cfg.Now().Add(capsule.Longest + ahead), State: Waiting}
		h, err = a.bury(ctx, from, w.Job, now, Event{Kind: Withdraw, Withdrawal: message})
	}
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	named := h.job.Named
	a.mu.Unlock()
	if named != w.Order {
		return "", carnet.Errorf(carnet.Conflict, "the withdrawal is of another order")
	}
	if err := a.change(ctx, h, Event{Kind: Withdraw, Withdrawal: message}); err != nil {
		return "", err
	}
	if err := a.clear(ctx, h); err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return h.job.Result, nil
}

// bury remembers of a job which never came what happened to it: that it is withdrawn, or
// erased.
func (a *Agent) bury(ctx context.Context, from carnet.PartyID, id carnet.JobID, j Job, e Event) (*held, error) {
	h := &held{ref: refOf(from, id), job: j, changed: make(chan struct{}), serial: 1}
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	if other := a.jobs[h.ref]; other != nil {
		a.mu.Unlock()
		return other, nil
	}
	known := 0
	for _, other := range a.jobs {
		if other.job.Peer == from {
			known++
		}
	}
	if known >= mostKnown {
		a.mu.Unlock()
		return nil, carnet.Errorf(carnet.TooLarge, "%s has too many jobs here", from)
	}
	a.jobs[h.ref] = h
	a.mu.Unlock()
	if err := a.changeHeld(ctx, h, e); err != nil {
		a.mu.Lock()
		delete(a.jobs, h.ref)
		a.mu.Unlock()
		return nil, err
	}
	return h, nil
}

// Take hears that the world has a job's result, durably: message is its word of that.
func (a *Agent) Take(ctx context.Context, from carnet.PartyID, id carnet.JobID, message string) error {
	h, err := a.find(from, id)
	if err != nil {
		return err
	}
	peer, err := a.cfg.Peer(from)
	if err != nil {
		return err
	}
	t, err := capsule.OpenTaken(message, peer.Key)
	if err != nil {
		return err
	}
	a.mu.Lock()
	has, named := h.job.Result, h.job.Named
	a.mu.Unlock()
	if t.Job != id || t.Order != named || t.Result != capsule.Fingerprint(has) {
		return carnet.Errorf(carnet.Conflict, "the job has another result")
	}
	if err := a.change(ctx, h, Event{Kind: Take, Took: message}); err != nil {
		return err
	}
	return a.clear(ctx, h)
}

// waitingOf counts the workers, and the jobs of one world that wait for one.
func (a *Agent) waitingOf(peer carnet.PartyID) (workers, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.jobs {
		if h.job.Peer == peer && h.job.State == Ready {
			waiting++
		}
	}
	return len(a.workers), waiting
}

// Offer is what this DPM says that it does, and its reception key's announcement.
type Offer struct {
	Offer     string `json:"offer"`
	Reception []byte `json:"reception"`
}

// Offer signs both for who asks.
func (a *Agent) Offer(from carnet.PartyID) (o Offer, err error) {
	peer, err := a.cfg.Peer(from)
	if err != nil {
		return o, err
	}
	workers, waiting := a.waitingOf(from)
	clearance := capsule.LabelOf(carnet.Label(peer.Given))
	o.Offer, err = capsule.Offer{
		By: a.cfg.Party, Engines: a.cfg.Engines, Most: a.cfg.Most, Workers: workers, Waiting: waiting, Clearance: &clearance, Made: a.cfg.Now().UTC().Truncate(time.Second), Process: a.process,
	}.Sign(a.cfg.Key)
	if err != nil {
		return o, err
	}
	r := a.receptions.present()
	o.Reception, err = r.key.Announce(a.cfg.Key, a.cfg.Party, r.notAfter)
	return o, err
}
