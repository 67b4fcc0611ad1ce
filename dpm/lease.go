package dpm

import (
	"bytes"
	"context"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/seal"
)

// Ticket names an attempt.
type Ticket struct {
	Peer    carnet.PartyID `json:"peer"`
	Job     carnet.JobID   `json:"job"`
	Attempt int            `json:"attempt"`
}

// Assignment is what a worker gets with a lease.
type Assignment struct {
	Ticket
	Task  capsule.Task  `json:"task"`
	Label capsule.Label `json:"label"`
	Keys  []Key         `json:"keys"`
	Out   Key           `json:"out"`
}

// Key is a key with its place, as it goes to a worker.
type Key struct {
	Path   string `json:"path"`
	Secret []byte `json:"secret"`
}

func keyOf(k seal.Key) Key { return Key{k.Path.String(), k.Secret[:]} }

func (k Key) key() (out seal.Key, err error) {
	if out.Path, err = seal.ParsePath(k.Path); err == nil && len(k.Secret) != 32 {
		err = carnet.Errorf(carnet.Malformed, "the key of %s has %d bytes", k.Path, len(k.Secret))
	}
	if err == nil {
		out.Secret = [32]byte(k.Secret)
	}
	return out, err
}

// Ran is how an attempt ended.
type Ran struct {
	Outcome      capsule.Outcome    `json:"outcome"` // done or failed
	Code         carnet.Code        `json:"code,omitempty"`
	Why          string             `json:"why,omitempty"`
	Measurements uint64             `json:"measurements"`
	Fingerprint  carnet.Fingerprint `json:"fingerprint"`
	Size         uint64             `json:"size"`
	Parts        int                `json:"parts"`
}

// Board is where workers find jobs: an Agent, or the way to one.
type Board interface {
	// Lease waits for a job; nil when ctx ends before there is one.
	Lease(ctx context.Context, worker string) (*Assignment, error)
	// Renew says that the attempt goes on; carnet.Conflict: it isn't the job's any more.
	Renew(ctx context.Context, t Ticket, p Progress) error
	// Content returns content of the job.
	Content(ctx context.Context, t Ticket, name carnet.Fingerprint) ([]byte, error)
	// PutPart stores the next sealed part.
	PutPart(ctx context.Context, t Ticket, n int, sealed []byte) error
	// End says how the attempt ended; without an outcome it gives the job back.
	End(ctx context.Context, t Ticket, r Ran) error
}

var _ Board = (*Agent)(nil)

// Enter counts a worker that is there; leave says that it isn't any more, and ends its
// leases at once.
func (a *Agent) Enter(worker string) (leave func()) {
	a.mu.Lock()
	a.workers[worker]++
	a.mu.Unlock()
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.workers[worker]--; a.workers[worker] > 0 {
			return
		}
		delete(a.workers, worker)
		for _, l := range a.leased {
			if l.worker == worker {
				l.until = time.Time{} // the next round sees it
			}
		}
	}
}

// Lease implements Board.
func (a *Agent) Lease(ctx context.Context, worker string) (*Assignment, error) {
	for {
		a.mu.Lock()
		h, ready := a.next(a.cfg.Now()), a.ready
		a.mu.Unlock()
		if h != nil {
			got, err := a.give(ctx, h, worker)
			if got != nil || err != nil {
				return got, err
			}
			continue // somebody else got it
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// give leases a job to a worker; nil if it isn't to be had any more.
func (a *Agent) give(ctx context.Context, h *held, worker string) (*Assignment, error) {
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	state, name, attempt := h.job.State, h.job.Peer, h.job.Attempt+1
	a.mu.Unlock()
	if state != Ready {
		return nil, nil
	}
	if why := a.revokedOf(h); why != "" { // the next round clears what it leaves
		return nil, a.changeHeld(ctx, h, Event{Kind: Refuse, Code: carnet.Forbidden, Why: why})
	}
	if a.lacks(h) { // a crash lost some of it, or a worker found that it is damaged
		return nil, a.changeHeld(ctx, h, Event{Kind: Lacking})
	}
	peer, err := a.cfg.Peer(name)
	var out seal.Key
	var bag []byte
	var open []seal.Key
	if err == nil {
		out, bag, err = a.outputKey(h, peer)
	}
	if err == nil {
		open, err = keysOf(ctx, a.cfg.Keys, h.ref)
	}
	if code := carnet.CodeOf(err); err != nil && (code == "" || code == carnet.Unavailable) {
		return nil, err
	}
	e := Event{Kind: Given, Worker: worker, Bag: bag}
	if err == nil {
		e.Path = out.Path.String()
	}
	if err := a.changeHeld(ctx, h, e); err != nil {
		if carnet.CodeOf(err) == carnet.Conflict { // its time is over
			return nil, a.changeHeld(ctx, h, Event{Kind: Late})
		}
		return nil, err
	}
	if err != nil { // the peering is over, or the world's reception key
		return nil, a.changeHeld(ctx, h, Event{Kind: Finished, Attempt: attempt, Outcome: capsule.Failed, Code: carnet.CodeOf(err), Why: err.Error()})
	}
	a.mu.Lock()
	a.leased[h] = &lease{worker, a.cfg.Now().Add(leaseFor)}
	a.mu.Unlock()
	got := &Assignment{Ticket: Ticket{name, h.order.Job, attempt}, Task: h.order.Task, Label: h.order.Label, Out: keyOf(out)}
	for _, k := range open {
		got.Keys = append(got.Keys, keyOf(k))
	}
	return got, nil
}

// lacks looks whether a job lacks content.
func (a *Agent) lacks(h *held) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.look(h)
	return len(h.lacks) > 0
}

// current finds the job of an attempt that is still its last.
func (a *Agent) current(t Ticket) (*held, error) {
	h, err := a.find(t.Peer, t.Job)
	if err != nil {
		return nil, carnet.Errorf(carnet.Conflict, "the job isn't there any more")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.job.State != Leased || h.job.Attempt != t.Attempt {
		return nil, carnet.Errorf(carnet.Conflict, "the attempt isn't the job's any more: it is %s", h.job.State)
	}
	return h, nil
}

// Renew implements Board.
func (a *Agent) Renew(_ context.Context, t Ticket, p Progress) error {
	h, err := a.current(t)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.leased[h]
	if l == nil || l.until.IsZero() {
		return carnet.Errorf(carnet.Conflict, "the lease has ended")
	}
	l.until = a.cfg.Now().Add(leaseFor)
	if h.done != p {
		h.done = p
		a.tell(h)
	}
	return nil
}

// Content implements Board.
func (a *Agent) Content(_ context.Context, t Ticket, name carnet.Fingerprint) ([]byte, error) {
	h, err := a.current(t)
	if err != nil {
		return nil, err
	}
	return a.files.read(a.files.content(h.ref, name))
}

// PutPart implements Board.
func (a *Agent) PutPart(_ context.Context, t Ticket, n int, sealed []byte) error {
	h, err := a.current(t)
	if err != nil {
		return err
	}
	if len(sealed) > seal.MaxBatch {
		return carnet.Errorf(carnet.TooLarge, "a part has %d bytes", len(sealed))
	}
	a.mu.Lock()
	next := len(h.parts)
	a.mu.Unlock()
	if n > next || n >= h.order.Task.Limits.Parts {
		return carnet.Errorf(carnet.Conflict, "part %d comes, and the next is %d", n, next)
	}
	if n < next {
		return nil // it came already
	}
	if err := a.files.write(a.files.part(h.ref, t.Attempt, n), bytes.NewReader(sealed), true); err != nil {
		return err
	}
	a.mu.Lock()
	if len(h.parts) == n && h.job.Attempt == t.Attempt {
		h.parts = append(h.parts, carnet.FingerprintOf(sealed))
		a.tell(h)
	}
	a.mu.Unlock()
	return nil
}

// End implements Board. What ran and what came out is compared with what is here: a
// worker's word alone is for what only it can know.
func (a *Agent) End(ctx context.Context, t Ticket, r Ran) error {
	h, err := a.current(t)
	if err != nil {
		return err
	}
	e := Event{Kind: Finished, Attempt: t.Attempt, Outcome: r.Outcome, Code: r.Code, Why: r.Why}
	switch r.Outcome {
	case capsule.Done:
		if e.Output, err = a.outputOf(h, t, r); err != nil {
			return err
		}
	case capsule.Failed:
	case "":
		e = Event{Kind: Returned, Attempt: t.Attempt}
		if err := a.files.check(h.ref); err != nil { // it may be that content is damaged
			return err
		}
	default:
		return carnet.Errorf(carnet.Malformed, "an attempt ends as done or failed, not %q", r.Outcome)
	}
	if err := a.change(ctx, h, e); err != nil {
		return err
	}
	return a.clear(ctx, h)
}

func (a *Agent) outputOf(h *held, t Ticket, r Ran) (*capsule.Output, error) {
	a.mu.Lock()
	parts, bag := len(h.parts), h.job.Bag
	a.mu.Unlock()
	if r.Parts != parts {
		return nil, carnet.Errorf(carnet.Conflict, "the worker put out %d parts, and %d are here", r.Parts, parts)
	}
	var leaves []carnet.Fingerprint
	for n := range parts {
		sealed, err := a.files.read(a.files.part(h.ref, t.Attempt, n))
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, carnet.FingerprintOf(sealed))
	}
	return &capsule.Output{
		Program: h.order.Task.Program.Fingerprint, Inputs: h.order.Task.Root(), Measurements: r.Measurements, Fingerprint: r.Fingerprint, Size: r.Size,
		Parts: parts, Sealed: seal.Root(leaves), Bag: carnet.FingerprintOf(bag),
	}, nil
}
