// Package job owns what a world has computed: it chooses the batches that a job needs,
// signs the order, brings the capsule to a DPM, gives it what it lacks, and believes of
// the result what it has checked. A job may also run in the world itself; and at a things
// agent, over what things' logs hold, for their owner.
//
// A job is ordered, accepted, withdrawing or ended; Next says what follows from what,
// and is pure. docs/design/capsule.md has the messages, the states, and the recovery
// rule for a crash at each point, docs/design/own-jobs.md those of a things agent.
// Documents rest in the party's own store.
//
// The package must not know how a DPM keeps or runs jobs, how measurements are stored,
// how a view is applied, or who may order what.
package job

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/keys"
	"carnet/ledger"
	"carnet/policy"
	"carnet/seal"

	"golang.org/x/sync/errgroup"
)

// Records is where the agent's documents rest, with what is stated of their changes.
type Records interface {
	Keep(ctx context.Context, kept []carnet.Kept, statements []ledger.Statement, plain ...carnet.Document) error
	EachKept(ctx context.Context, kind string, do func(id string, version uint64, open func(any) error) error) error
	OneKept(ctx context.Context, kind, id string, body any) (version uint64, err error)
	Plain(ctx context.Context, kind, id string) (carnet.Document, error)
}

// World is what the agent needs of its world: an *avatar.Agent.
type World interface {
	Records
	EachBatch(ctx context.Context, id carnet.AvatarID, q avatar.BatchQuery, do func(id carnet.StreamID, b *avatar.Batch, ms []carnet.Measurement) error) error
	SlotKey(context.Context, seal.Header) (seal.Key, error)
	AnnounceTo(signer crypto.Signer, self carnet.PartyID) ([]byte, error)
	OpenBag(sealed []byte, want seal.Expected) (*seal.Bag, error)
	Avatar(carnet.AvatarID) (avatar.Info, error)
	// Readable refuses whoever wants to read of an avatar that isn't here, or of which nobody
	// can tell yet whether it is erased.
	Readable(carnet.AvatarID) error
	// Bounds are what an avatar's owner lets be done with it.
	Bounds(carnet.AvatarID) policy.Bounds
	Dooming(ctx context.Context, objects []carnet.Fingerprint, by carnet.ErasureID) ([]carnet.Document, error)
	// SendersOf lists the things agents that speak about an avatar.
	SendersOf(carnet.AvatarID) []carnet.PartyID
}

// source is what jobs are computed over: a world's avatars, or things' logs.
type source interface {
	// choose finds what a job needs. away: it is to leave this party.
	choose(ctx context.Context, s *Spec, away bool) (*chosen, error)
	// rechoose finds a job's inputs again, for a repetition.
	rechoose(ctx context.Context, j *Job, away bool) (*chosen, error)
	// each hands over the measurements of a job, and tells opened how far it is, in
	// thousandths, and how many there were. An input that can't be made again, or is
	// another than the order says, ends it with carnet.NotFound or carnet.Tampered.
	each(ctx context.Context, j *Job, opened func(permille int, measurements uint64), do func(avatar string, ms []carnet.Measurement) error) error
}

// Depot keeps sealed objects: the world's way to its depot.
type Depot interface {
	Party() carnet.PartyID
	PutObject(ctx context.Context, body []byte, class carnet.Retention) (carnet.Fingerprint, error)
	GetObject(ctx context.Context, f carnet.Fingerprint) ([]byte, error)
	DeleteObject(ctx context.Context, f carnet.Fingerprint) error
}

// DPM is a DPM's side of R6: a *dpm.Client.
type DPM interface {
	Offer(context.Context) (dpm.Offer, error)
	Submit(context.Context, carnet.JobID, dpm.Submission) (string, error)
	Status(ctx context.Context, id carnet.JobID, seen uint64, wait time.Duration) (dpm.Status, error)
	PutContent(context.Context, carnet.JobID, []byte) error
	Part(ctx context.Context, id carnet.JobID, attempt, n int) ([]byte, error)
	Partial(context.Context, carnet.JobID) (dpm.PartialAnswer, error)
	Withdraw(ctx context.Context, id carnet.JobID, message string) (string, error)
	Taken(ctx context.Context, id carnet.JobID, message string) error
	Revoke(ctx context.Context, message string) error
	Revoked(ctx context.Context, records []string) ([]string, error)
	Record(context.Context, carnet.JobID) (string, error)
	Erase(context.Context, dpm.Erasing) (string, error)
}

// Peer is a DPM that may be given jobs now, as a peering in force has it.
type Peer struct {
	Name      carnet.PartyID    // as this world calls it
	OwnName   carnet.PartyID    // as it calls itself
	Key       ed25519.PublicKey // signs its words
	Terms     carnet.Fingerprint
	Clearance carnet.Clearance // what it may be given
	DPM       DPM
}

// Config says what an agent is made of. Every field without a stated default is
// required.
type Config struct {
	Party   carnet.PartyID
	Key     ed25519.PrivateKey // signs what this party says of jobs
	Purpose string             // what this party uses data for
	// What jobs are computed over: a World, or what things' owners own. One of the two.
	World World
	Owned Owned
	Keys  *keys.Table
	Depot Depot
	// DepotDID is the did:key of the depot; nil, or nothing: it is unknown, so no policy
	// names it.
	DepotDID func() string
	// Peer finds a DPM that may be given jobs now: carnet.Forbidden when its peering has
	// ended for good, carnet.Unavailable while it is suspended. With World.
	Peer func(name carnet.PartyID) (Peer, error)
	// DPMs lists those that may be given jobs now. With World.
	DPMs    func() []carnet.PartyID
	Engines []engine.Engine // for jobs in this party
	// Most bounds a job in this party; zero fields: as engines do.
	Most capsule.Limits
	// AtOnce is how many jobs run in this party at once; default 1.
	AtOnce int
	// OfOwner is how many jobs that haven't ended one owner has, with Owned; default 16.
	OfOwner int
	// Signed names the engines whose programs must be modules that this world knows,
	// wherever they run; none: any program may.
	Signed []string
	// Publishers are the did:keys, beside this world's own, whose modules may be added.
	Publishers []string
	Now        func() time.Time // default time.Now
	Log        *slog.Logger     // default slog.Default()
}

// Kinds of the agent's documents.
const (
	kindJob     = "job"
	kindProgram = "program"
	kindPart    = "job-part" // of an output, sealed under its key; not JSON
)

const kindKey = "job" // of outputs' keys in the key table

// Agent is a world's jobs. Its methods may be called concurrently.
type Agent struct {
	cfg     Config
	records Records
	source  source
	modules modules

	putting sync.Mutex // held while a job is added; before mu
	erased  []Erased   // since the start; guarded by putting

	mu    sync.Mutex // guards what follows
	jobs  map[carnet.JobID]*held
	start func(*held) // nil before Run
	local chan struct{}

	recheck chan struct{} // policies may have changed

	traffic map[carnet.PartyID]AtDPM // what went to DPMs since the start; guarded by mu
}

// held is a job with what this process knows of it.
type held struct {
	taking   sync.Mutex    // held while its output is taken, or put into the depot; before changing
	changing sync.Mutex    // held while it changes
	version  uint64        // of its document; owner: changing
	wake     chan struct{} // ends what is under way
	home     bool          // the depot was asked to delete what may have come there; owner: taking

	partialVersion uint64 // of the partial output's document; owner: changing

	// Guarded by the agent's mu; job and partial change under changing only.
	job      Job
	partial  *Partial // what came of it so far; it isn't changed, but replaced
	sofar    *sofar   // what a run here has put out
	progress Progress
	changed  chan struct{}
}

// New loads the agent's jobs.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.Keys == nil || cfg.Depot == nil || cfg.Key == nil || cfg.Purpose == "" {
		return nil, carnet.Errorf(carnet.Malformed, "jobs need a key and a purpose, a key table and a depot")
	}
	if (cfg.World == nil) == (cfg.Owned == nil) || cfg.World != nil && (cfg.Peer == nil || cfg.DPMs == nil) {
		return nil, carnet.Errorf(carnet.Malformed, "jobs are over a world's avatars, with DPMs, or over what owners own")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.AtOnce, cfg.OfOwner = cmp.Or(cfg.AtOnce, 1), cmp.Or(cfg.OfOwner, 16)
	a := &Agent{cfg: cfg, jobs: make(map[carnet.JobID]*held), local: make(chan struct{}, cfg.AtOnce), recheck: make(chan struct{}, 1)}
	if cfg.World != nil {
		a.records, a.source = cfg.World, avatars{a}
	} else {
		a.records, a.source = cfg.Owned, logs{a, make(chan struct{}, choosingAtOnce)}
		a.cfg.DPMs = func() []carnet.PartyID { return nil }
		a.cfg.Peer = func(carnet.PartyID) (Peer, error) {
			return Peer{}, carnet.Errorf(carnet.Forbidden, "what things' logs hold is computed over at %s, and nowhere else", cfg.Party).
				WithFix("leave out the place; a world that has the data orders from DPMs")
		}
	}
	if err := a.loadModules(ctx); err != nil {
		return nil, err
	}
	err := a.records.EachKept(ctx, kindJob, func(_ string, version uint64, open func(any) error) error {
		h := &held{version: version, wake: make(chan struct{}, 1), changed: make(chan struct{})}
		if err := open(&h.job); err != nil {
			return err
		}
		a.jobs[h.job.ID] = h
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := a.loadPartials(ctx); err != nil {
		return nil, err
	}
	return a, a.destroyStray(ctx, true)
}

// Run sees to the jobs that aren't over until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	a.mu.Lock()
	a.start = func(h *held) { work.Go(func() error { return a.drive(ctx, h) }) }
	for _, h := range a.jobs {
		if !a.over(&h.job) {
			a.start(h)
		}
	}
	a.mu.Unlock()
	if a.cfg.World != nil {
		work.Go(func() error { return a.watch(ctx) })
		work.Go(func() error { return a.tidy(ctx) })
		work.Go(func() error { return a.remind(ctx) })
		work.Go(func() error { return a.tellRevoked(ctx) })
		work.Go(func() error { return a.hearRevoked(ctx) })
	}
	<-ctx.Done()
	a.mu.Lock()
	a.start = nil
	a.mu.Unlock()
	return work.Wait()
}

// over reports whether nothing is to be done about a job any more.
func (a *Agent) over(j *Job) bool {
	return j.erased() || j.Stand.State == Ended && j.Stand.Told && (j.Output == nil || j.Stored != carnet.Fingerprint{} || !a.mayStore(j)) && !unrecorded(j) && !uncompared(j)
}

// watch withdraws the jobs of avatars that are gone, or whose policies forbid them.
func (a *Agent) watch(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-a.recheck:
		}
		a.each(ctx, "what may not go on could not be ended; it is tried again", a.hold)
	}
}

// tidy destroys what came out of jobs of avatars that are gone, and has depots delete what
// they may not keep. A depot that hangs holds it up, and doesn't hold up watch.
func (a *Agent) tidy(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		a.each(ctx, "what came out of a job could not be destroyed; it is tried again", a.bury)
	}
}

// lookEvery is how often jobs are looked at.
const lookEvery = 2 * time.Second

// each does something for each job that isn't erased: an erasure sees to those.
func (a *Agent) each(ctx context.Context, failed string, do func(context.Context, *held) error) {
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.jobs))
	a.mu.Unlock()
	for _, h := range all {
		a.mu.Lock()
		id, erased := h.job.ID, h.job.erased()
		a.mu.Unlock()
		if erased {
			continue
		}
		if err := do(ctx, h); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn(failed, "job", id, "err", err)
		}
	}
}

// gone reports whether an avatar of a job isn't here any more.
func (a *Agent) gone(j *Job) bool {
	return slices.ContainsFunc(j.Avatars, func(id carnet.AvatarID) bool {
		_, err := a.cfg.World.Avatar(id)
		return carnet.CodeOf(err) == carnet.NotFound
	})
}

// bury destroys a job's output if an avatar of it is gone, and has it leave a depot that may
// not keep it.
func (a *Agent) bury(ctx context.Context, h *held) error {
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	switch {
	case j.Output == nil:
		return nil
	case a.gone(&j):
		return a.destroy(ctx, h)
	case a.depotDID() != "" && !a.mayStore(&j):
		return a.unstore(ctx, h)
	}
	return nil
}

// find returns a job; carnet.NotFound without one.
func (a *Agent) find(id carnet.JobID) (*held, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.jobs[id]; h != nil {
		return h, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no job %s", id).WithFix("see: carnet job list")
}

// Jobs lists the jobs, oldest first.
func (a *Agent) Jobs() []Info {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]Info, 0, len(a.jobs))
	for h := range maps.Values(a.jobs) {
		all = append(all, Info{h.job, h.progress})
	}
	slices.SortFunc(all, func(x, y Info) int {
		return cmp.Or(x.Made.Compare(y.Made), slices.Compare(x.ID[:], y.ID[:]))
	})
	return all
}

// Job returns one, once it isn't as it was seen (0: at once) or ctx ends. The second
// value is what it was seen as.
func (a *Agent) Job(ctx context.Context, id carnet.JobID, wait bool) (Info, error) {
	h, err := a.find(id)
	if err != nil {
		return Info{}, err
	}
	a.mu.Lock()
	info, changed := Info{h.job, h.progress}, h.changed
	a.mu.Unlock()
	if !wait || info.Stand.State == Ended {
		return info, nil
	}
	select {
	case <-changed:
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return Info{h.job, h.progress}, nil
}

// change has an event happen to a job, durably, with what it brings.
func (a *Agent) change(ctx context.Context, h *held, e Event, with func(*Job), plain ...carnet.Document) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	if e.At.IsZero() {
		e.At = a.cfg.Now()
	}
	a.mu.Lock()
	was := h.job
	a.mu.Unlock()
	if was.erased() {
		return nil
	}
	stand, err := Next(was.Stand, e)
	if err != nil || stand == was.Stand && e.Kind != Erase {
		return err
	}
	j := was
	j.Stand = stand
	if with != nil {
		with(&j)
	}
	if j.Stand.State == Ended {
		j.Bags, j.Received = nil, nil // nobody is given them again
	}
	if j.Stand.State == Ended && was.Stand.State != Ended && j.Output == nil {
		// One that was being taken, and isn't any more.
		if err := a.cfg.Keys.Destroy(ctx, keyID(j.ID)); err != nil {
			return err
		}
	}
	if j.Stand.State != Accepted {
		gone, err := a.dropPartial(ctx, h)
		if err != nil {
			return err
		}
		plain = append(plain, gone...)
	}
	return a.changed(ctx, h, j, a.statements(&was, &j), plain...)
}

// changed stores how a job is now, with what is stated of that, and tells of it. The
// caller holds h.changing.
func (a *Agent) changed(ctx context.Context, h *held, j Job, said []ledger.Statement, plain ...carnet.Document) error {
	err := a.records.Keep(ctx, []carnet.Kept{{Kind: kindJob, ID: j.ID.String(), Version: h.version + 1, Body: j}}, said, plain...)
	if err != nil {
		return err
	}
	h.version++
	a.mu.Lock()
	defer a.mu.Unlock()
	h.job = j
	if j.Stand.State != Accepted {
		h.partial, h.partialVersion = nil, 0
	}
	a.tell(h)
	return nil
}

// statements are what is stated of a change.
func (a *Agent) statements(was, j *Job) (all []ledger.Statement) {
	at, peer := a.cfg.Now().UnixNano(), cmp.Or(j.At, a.cfg.Party)
	if was.Stand.State != Withdrawing && j.Stand.State == Withdrawing {
		all = append(all, ledger.Statement{Kind: ledger.JobWithdrawn, Time: at, Peer: peer, Object: capsule.Fingerprint(j.Stand.Withdrawal)})
	}
	if was.Stand.State != Ended && j.Stand.State == Ended {
		s := ledger.Statement{Kind: ledger.JobEnded, Time: at, Peer: peer, Reason: string(j.Stand.Outcome)}
		if j.Stand.Result != "" {
			s.Object = capsule.Fingerprint(j.Stand.Result)
		}
		all = append(all, s)
	}
	return append(all, contradicted(a.cfg.Now(), was, j)...)
}

// tell wakes who waits for a change of a job. The caller holds mu.
func (a *Agent) tell(h *held) {
	close(h.changed)
	h.changed = make(chan struct{})
}

// heard notes how far a job is.
func (a *Agent) heard(h *held, p Progress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.Heard = a.cfg.Now().UTC()
	h.progress = p
	close(h.changed)
	h.changed = make(chan struct{})
}

// trouble notes why a DPM can't be asked.
func (a *Agent) trouble(h *held, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h.progress.Trouble = why
}

// put adds a new job, durably.
func (a *Agent) put(ctx context.Context, j Job, program []byte) error {
	a.putting.Lock()
	defer a.putting.Unlock()
	if a.cfg.Owned != nil {
		if err := a.mayWait(j.Owner); err != nil {
			return err
		}
	}
	for i := range a.erased { // since its inputs were chosen
		if a.erased[i].of(&j) {
			return carnet.Errorf(carnet.NotFound, "something of the avatars is erased")
		}
	}
	err := a.putOnce(ctx, &j, program)
	if carnet.CodeOf(err) == carnet.Conflict { // another's first job of this program came between
		err = a.putOnce(ctx, &j, program)
	}
	if err != nil {
		return err
	}
	h := &held{job: j, version: 1, wake: make(chan struct{}, 1), changed: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.jobs[j.ID] = h
	if a.start != nil {
		a.start(h)
	}
	return nil
}

// putOnce stores a new job, with its program unless that is there: carnet.Conflict if that
// came to be there meanwhile.
func (a *Agent) putOnce(ctx context.Context, j *Job, program []byte) error {
	kept, err := a.keptProgram(ctx, program)
	if err != nil {
		return err
	}
	kept = append(kept, carnet.Kept{Kind: kindJob, ID: j.ID.String(), Version: 1, Body: *j})
	return a.records.Keep(ctx, kept, []ledger.Statement{{Kind: ledger.JobOrdered, Time: a.cfg.Now().UnixNano(), Peer: cmp.Or(j.At, a.cfg.Party), Object: capsule.Fingerprint(j.Order)}})
}

type programDocument struct {
	Program []byte `json:"program"`
}

// keptProgram is what is to be kept so that a program is: nothing if it is already.
func (a *Agent) keptProgram(ctx context.Context, program []byte) ([]carnet.Kept, error) {
	var have programDocument
	id := carnet.FingerprintOf(program).String()
	_, err := a.records.OneKept(ctx, kindProgram, id, &have)
	if carnet.CodeOf(err) == carnet.NotFound {
		return []carnet.Kept{{Kind: kindProgram, ID: id, Version: 1, Body: programDocument{program}}}, nil
	}
	return nil, err
}

// program returns a program that some job has.
func (a *Agent) program(ctx context.Context, name carnet.Fingerprint) ([]byte, error) {
	var doc programDocument
	if _, err := a.records.OneKept(ctx, kindProgram, name.String(), &doc); err != nil {
		return nil, err
	}
	if carnet.FingerprintOf(doc.Program) != name {
		return nil, carnet.Errorf(carnet.Tampered, "the program %s is damaged here", name)
	}
	return doc.Program, nil
}
