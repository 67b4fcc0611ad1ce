// Package dpm owns external data processing and management: a party that computes
// for worlds. It takes jobs in capsules, keeps their keys and sealed content for as
// long as they need them, leases jobs to workers, and signs how each ended.
//
// A job is waiting, ready, leased or ended; Next says what follows from what, and is
// pure. docs/design/capsule.md has the messages, the states, and the recovery rule for
// a crash at each point. An Agent keeps jobs and never opens a batch; a Worker runs
// programs, in a process of its own, and keeps nothing.
//
// The package must not know how an engine runs a program, what an avatar is, or by
// what peering a world calls.
package dpm

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/keys"
	"carnet/ledger"
	"carnet/seal"
)

// Peer is a world that may order jobs, as a peering in force has it.
type Peer struct {
	Name    carnet.PartyID    // as this DPM calls it
	OwnName carnet.PartyID    // as it calls itself
	Key     ed25519.PublicKey // signs its orders
	Terms   carnet.Fingerprint
	// Given is what this DPM may be given by it, Holds what it may hold itself.
	Given, Holds carnet.Clearance
}

// Config says what an agent is made of. Every field without a stated default is
// required.
type Config struct {
	Party   carnet.PartyID
	Key     ed25519.PrivateKey // signs what it says to worlds
	Store   Store
	Keys    *keys.Table
	Sealer  *keys.Sealer // seals documents
	Dir     string       // of jobs' content and parts
	Engines []capsule.EngineOffer
	Most    capsule.Limits // of a job
	// Peer finds a world that may order now.
	Peer func(name carnet.PartyID) (Peer, error)
	// State makes the outbox item of a statement; Recorded is told that there are new.
	State    func(ledger.Statement) (ledger.Item, error)
	Recorded func()
	// Ledger proves what this DPM has stated; nil: it shows nobody that it has.
	Ledger Ledger
	// Backups is how long copies of the key table are kept; default 30 days.
	Backups time.Duration
	Now     func() time.Time // default time.Now
	Log     *slog.Logger     // default slog.Default()
}

// Bounds of what one world may have here.
const (
	mostJobs    = 64      // that haven't ended
	mostKnown   = 4096    // with those that have
	mostContent = 4 << 30 // bytes, of jobs that haven't ended
	mostOutput  = 4 << 30 // bytes, of what came out of jobs, or may, until it is taken
)

const kindJobDocument = "job"

// Agent is a DPM's side of R6. Its methods may be called concurrently.
type Agent struct {
	cfg        Config
	files      files
	receptions *receptions
	process    string

	mu      sync.Mutex       // guards what follows
	jobs    map[string]*held // by ref
	workers map[string]int   // connected, by name
	ready   chan struct{}    // closed when a job has become ready
	leased  map[*held]*lease
	revoked map[revoker]revocation // of modules that run no more

	revoking sync.Mutex // held while a revocation is stored
}

// held is a job with what this process knows of it.
type held struct {
	ref      string
	order    *capsule.Order  // nil of a job that was withdrawn before it came
	module   *capsule.Module // nil where the order names none
	accepted time.Time

	changing sync.Mutex // held while the job changes
	version  uint64     // of its document; owner: changing

	// Guarded by the agent's mu.
	job     Job
	lacks   map[carnet.Fingerprint]int64 // content that isn't there, with its size
	coming  map[carnet.Fingerprint]bool  // content that is being brought
	parts   []carnet.Fingerprint         // of the attempt, sealed
	done    Progress
	serial  uint64 // grows with each change
	changed chan struct{}
	// Whose lease ended, other than by its own word, and until when it may go on with the keys.
	worker   string
	stopping time.Time
	stated   bool // that it is erased, by this process
}

// lease is a worker's right to a job.
type lease struct {
	worker string
	until  time.Time
}

// Progress is how far an attempt is.
type Progress struct {
	Permille     int    `json:"permille"`
	Measurements uint64 `json:"measurements"`
}

// leaseFor is how long a lease holds without being renewed.
const leaseFor = 4 * time.Second

// refOf is what a job is called here: a peer can't name another peer's.
func refOf(peer carnet.PartyID, id carnet.JobID) string { return string(peer) + "." + id.String() }

// idOf is the id in a ref.
func idOf(ref string) string { return ref[len(ref)-2*len(carnet.JobID{}):] }

// New loads the agent's state from its store.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Sealer == nil || cfg.Peer == nil || cfg.State == nil || cfg.Recorded == nil || cfg.Dir == "" || cfg.Key == nil {
		return nil, carnet.Errorf(carnet.Malformed, "a DPM needs a key, a store, a key table, a sealer, a directory, peers and a call for statements")
	}
	if _, err := carnet.ParsePartyID(string(cfg.Party)); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Backups == 0 {
		cfg.Backups = 30 * 24 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	a := &Agent{
		cfg: cfg, files: files{cfg.Dir}, process: carnet.NewJobID().String(), jobs: make(map[string]*held), workers: make(map[string]int), ready: make(chan struct{}),
		leased: make(map[*held]*lease), revoked: make(map[revoker]revocation),
	}
	var err error
	if a.receptions, err = openReceptions(ctx, cfg.Keys, cfg.Now); err != nil {
		return nil, err
	}
	return a, a.load(ctx)
}

// load reads the revocations and the jobs, and does what a crash left undone of each.
func (a *Agent) load(ctx context.Context) error {
	if err := a.loadRevocations(ctx); err != nil {
		return err
	}
	needed := make(map[string]bool)
	for after := ""; ; {
		page, err := a.cfg.Store.DocumentPage(ctx, kindJobDocument, after, 256)
		if err != nil {
			return err
		}
		for _, d := range page {
			after = d.ID
			h, err := a.read(d)
			if err != nil {
				return err
			}
			a.jobs[h.ref] = h
			if h.job.HasKeys() {
				needed[jobKeys(h.ref)] = true
			}
		}
		if len(page) == 0 {
			break
		}
	}
	if err := destroyStrayKeys(ctx, a.cfg.Keys, needed); err != nil {
		return err
	}
	refs, err := a.files.jobs()
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if h := a.jobs[ref]; h == nil || h.job.State == Ended && h.job.Cleared && !h.job.HasParts() {
			if err := a.files.clear(ref, 0); err != nil {
				return err
			}
		}
	}
	for _, h := range a.jobs {
		if err := a.resume(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) read(d carnet.Document) (*held, error) {
	plain, err := a.cfg.Sealer.Open(nil, []byte("job "+d.ID), d.Body)
	if err != nil {
		return nil, err
	}
	h := &held{ref: d.ID, version: d.Version, coming: make(map[carnet.Fingerprint]bool), changed: make(chan struct{}), serial: 1}
	if err := json.Unmarshal(plain, &h.job); err != nil {
		return nil, err
	}
	if h.job.Order == "" {
		return h, nil
	}
	order, err := readOrder(h.job.Order)
	if err != nil {
		return nil, err
	}
	h.order = &order
	if h.job.Record != "" {
		m, err := capsule.OpenModule(h.job.Record)
		if err != nil {
			return nil, err
		}
		h.module = &m
	}
	acceptance, err := capsule.OpenAcceptance(h.job.Acceptance, a.cfg.Key.Public().(ed25519.PublicKey))
	h.accepted = acceptance.Accepted
	return h, err
}

// resume goes on with a job after a start.
func (a *Agent) resume(ctx context.Context, h *held) error {
	if h.job.State == Ended {
		return a.clear(ctx, h)
	}
	if err := errors.Join(a.files.sweep(h.ref), a.files.check(h.ref)); err != nil {
		return err
	}
	a.look(h)
	switch {
	case h.job.State == Leased:
		// Its worker may live: it has as long as any to say so.
		a.leased[h] = &lease{h.job.Worker, a.cfg.Now().Add(leaseFor)}
		for n := 0; ; n++ {
			sealed, err := a.files.read(a.files.part(h.ref, h.job.Attempt, n))
			if err != nil {
				return nil
			}
			h.parts = append(h.parts, carnet.FingerprintOf(sealed))
		}
	case len(h.lacks) == 0:
		return a.change(ctx, h, Event{Kind: Whole})
	}
	return a.change(ctx, h, Event{Kind: Lacking})
}

// look finds what content a job lacks. The caller holds mu, or is alone.
func (a *Agent) look(h *held) {
	h.lacks = make(map[carnet.Fingerprint]int64)
	for _, c := range h.order.Task.Contents() {
		if !a.files.has(h.ref, c.Fingerprint, c.Size) {
			h.lacks[c.Fingerprint] = c.Size
		}
	}
}

// change has an event happen to a job, durably, and does what follows at once.
func (a *Agent) change(ctx context.Context, h *held, e Event) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	return a.changeHeld(ctx, h, e)
}

// changeHeld is change; the caller holds h.changing.
func (a *Agent) changeHeld(ctx context.Context, h *held, e Event) error {
	a.mu.Lock()
	there := a.jobs[h.ref] == h
	a.mu.Unlock()
	if !there { // it could not be stored, or was forgotten meanwhile
		return carnet.Errorf(carnet.NotFound, "there is no job %s", idOf(h.ref))
	}
	if e.At.IsZero() {
		e.At = a.cfg.Now()
	}
	e.At = e.At.UTC().Truncate(time.Millisecond)
	a.mu.Lock()
	was := h.job
	a.mu.Unlock()
	next, err := Next(was, e)
	if err != nil {
		return err
	}
	var items []ledger.Item
	if next.State == Ended && next.Result == "" && (!next.erased() || was.State != Ended) {
		if next.Result, err = resultOf(&next, h).Sign(a.cfg.Key); err != nil {
			return err
		}
		item, err := a.cfg.State(ledger.Statement{
			Kind: ledger.JobEnded, Time: e.At.UnixNano(), Peer: next.Peer, Object: capsule.Fingerprint(next.Result), Reason: string(next.Outcome),
		})
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	if same(&was, &next) {
		return nil
	}
	if err := a.put(ctx, h, &next, items); err != nil {
		return err
	}
	a.mu.Lock()
	h.job = next
	if next.State != Leased {
		if l := a.leased[h]; l != nil && e.Kind != Finished { // the worker hears of it when it renews, or has it no more
			h.worker, h.stopping = l.worker, a.cfg.Now().Add(leaseFor)
		}
		delete(a.leased, h)
	}
	if next.State == Leased && was.Attempt != next.Attempt {
		h.parts, h.done = nil, Progress{}
	}
	a.tell(h)
	if next.State == Ready {
		close(a.ready)
		a.ready = make(chan struct{})
	}
	a.mu.Unlock()
	return nil
}

func same(a, b *Job) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// put stores a job's next version. The caller holds h.changing.
func (a *Agent) put(ctx context.Context, h *held, j *Job, items []ledger.Item) error {
	plain, err := json.Marshal(j)
	if err != nil {
		return err
	}
	body, err := a.cfg.Sealer.Seal(nil, []byte("job "+h.ref), plain)
	if err != nil {
		return err
	}
	if err := a.cfg.Store.Put(ctx, []carnet.Document{{Kind: kindJobDocument, ID: h.ref, Version: h.version + 1, Body: body}}, items); err != nil {
		return err
	}
	h.version++
	if len(items) > 0 {
		a.cfg.Recorded()
	}
	return nil
}

// tell wakes who waits for a change of a job. The caller holds mu.
func (a *Agent) tell(h *held) {
	h.serial++
	close(h.changed)
	h.changed = make(chan struct{})
}

// resultOf is what is signed of a job that has ended.
func resultOf(j *Job, h *held) capsule.Result {
	r := capsule.Result{
		Order: j.Named, Outcome: j.Outcome, Code: j.Code, Why: j.Why, Attempt: j.Attempt, Began: j.Began.UTC(), Ended: j.Ended, Output: j.Output,
	}
	_ = r.Job.UnmarshalText([]byte(idOf(h.ref)))
	r.Why = carnet.Shorten(r.Why, capsule.MaxReason)
	return r
}

// Run ends leases and jobs that are over, and destroys what they leave, until ctx
// ends.
func (a *Agent) Run(ctx context.Context) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := a.round(ctx); err != nil && ctx.Err() == nil {
			if code := carnet.CodeOf(err); code != carnet.NoSpace && code != carnet.Unavailable {
				return err
			}
			a.cfg.Log.Warn("what is over could not be ended; it is tried again", "err", err)
		}
	}
}

func (a *Agent) round(ctx context.Context) error {
	now := a.cfg.Now()
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.jobs))
	a.mu.Unlock()
	for _, h := range all {
		a.mu.Lock()
		j, whole := h.job, h.order != nil && len(h.lacks) == 0
		l := a.leased[h] // as it is now, of the attempt that is looked at
		lost := l != nil && !now.Before(l.until)
		a.mu.Unlock()
		var err error
		switch {
		case j.State == Ended && !j.Cleared:
			err = a.clear(ctx, h)
		case j.Forgettable(now):
			err = a.forget(ctx, h)
		case j.State == Ended:
		case !now.Before(j.Until):
			err = a.change(ctx, h, Event{Kind: Late})
		case a.revokedOf(h) != "":
			err = a.refuse(ctx, h)
		case j.State == Waiting && whole:
			err = a.change(ctx, h, Event{Kind: Whole})
		case lost:
			a.cfg.Log.Warn("a worker's lease ran out", "job", h.ref, "worker", j.Worker, "attempt", j.Attempt)
			err = a.change(ctx, h, Event{Kind: Lost, Attempt: j.Attempt})
		}
		if err != nil && carnet.CodeOf(err) != carnet.NotFound { // it isn't there any more
			return err
		}
	}
	if a.receptions.due() {
		if err := a.receptions.turn(ctx); err != nil {
			return err
		}
	}
	return a.receptions.destroyOver(ctx)
}

// clear destroys the keys of a job that has ended, and deletes its content. Meanwhile nothing
// else happens to it: what is taken, or erased, is cleared for what it is then.
func (a *Agent) clear(ctx context.Context, h *held) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if j.State != Ended || j.Cleared {
		return nil
	}
	if err := destroyKeys(ctx, a.cfg.Keys, h.ref); err != nil {
		return err
	}
	but := 0
	if j.HasParts() {
		but = j.Attempt
	}
	if err := a.files.clear(h.ref, but); err != nil {
		return err
	}
	return a.changeHeld(ctx, h, Event{Kind: Clear})
}

// forget deletes the document of a job of which nothing can come any more.
func (a *Agent) forget(ctx context.Context, h *held) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	if err := a.files.clear(h.ref, 0); err != nil {
		return err
	}
	if err := a.cfg.Store.Put(ctx, []carnet.Document{{Kind: kindJobDocument, ID: h.ref, Version: h.version + 1}}, nil); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.jobs, h.ref)
	return nil
}

// find returns a peer's job; carnet.NotFound also for another's.
func (a *Agent) find(peer carnet.PartyID, id carnet.JobID) (*held, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.jobs[refOf(peer, id)]; h != nil {
		return h, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no job %s", id)
}

// Counts is how many jobs are in which state, for the operator.
type Counts struct {
	Workers int `json:"workers" doc:"Connected now."`
	Waiting int `json:"waiting" doc:"Jobs whose content lacks."`
	Ready   int `json:"ready" doc:"Jobs that wait for a worker."`
	Leased  int `json:"leased" doc:"Jobs that run."`
	Ended   int `json:"ended" doc:"Jobs that have ended and are remembered."`
	Parked  int `json:"parked" doc:"Of these, those that ended workers and aren't tried again."`
}

// Counts counts all worlds' jobs.
func (a *Agent) Counts() (c Counts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.Workers = len(a.workers)
	for _, h := range a.jobs {
		switch h.job.State {
		case Waiting:
			c.Waiting++
		case Ready:
			c.Ready++
		case Leased:
			c.Leased++
		case Ended:
			c.Ended++
			if h.job.Outcome == capsule.Parked {
				c.Parked++
			}
		}
	}
	return c
}

// Known is a job that a DPM knows, with its id.
type Known struct {
	ID carnet.JobID
	Job
}

// Jobs lists the jobs that aren't forgotten, by when their orders were brought.
func (a *Agent) Jobs() []Known {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := slices.SortedFunc(maps.Values(a.jobs), func(x, y *held) int { return cmp.Or(x.accepted.Compare(y.accepted), cmp.Compare(x.ref, y.ref)) })
	all := make([]Known, len(held))
	for i, h := range held {
		all[i] = Known{ID: resultOf(&h.job, h).Job, Job: h.job}
	}
	return all
}

// next chooses the job that a worker gets: of the peer that has the fewest running, the
// oldest. The caller holds mu.
func (a *Agent) next(now time.Time) *held {
	running := make(map[carnet.PartyID]int)
	for h := range a.leased {
		running[h.job.Peer]++
	}
	var best *held
	for _, h := range a.jobs {
		if h.job.State != Ready || !now.Before(h.job.Until) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(running[h.job.Peer], running[best.job.Peer]), h.accepted.Compare(best.accepted), cmp.Compare(h.ref, best.ref)) < 0 {
			best = h
		}
	}
	return best
}

// outputKey draws the key of an attempt's output, and the bag that gives it to the
// world.
func (a *Agent) outputKey(h *held, peer Peer) (seal.Key, []byte, error) {
	slot, err := seal.NewEpoch(carnet.NewStreamID()).Slot(0)
	if err != nil {
		return seal.Key{}, nil, err
	}
	to, err := seal.ParseReception(h.job.Reception, peer.Key, a.cfg.Now())
	if err != nil {
		return seal.Key{}, nil, err
	}
	holds := peer.Holds
	holds.Purposes = carnet.NewSet(h.order.Purpose)
	bag, err := seal.Grant(a.cfg.Key, to, seal.Terms{
		Granter: a.cfg.Party, Grant: h.order.Job, Purpose: h.order.Purpose, Clearance: holds, Time: a.cfg.Now(), NotAfter: a.cfg.Now().Add(bagLife),
	}, []seal.Entry{{Key: slot.Key(), Ceiling: h.order.Label.Label()}})
	return slot.Key(), bag, err
}

// bagLife is how long a world may take to open the bag of an output.
const bagLife = 3 * 24 * time.Hour
