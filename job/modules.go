package job

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/ledger"
)

// Modules: versions that this world may have run. The record rests in its store, the
// bytes at its depot; docs/design/modules.md says who checks what, and when.

const kindModule = "module"

// NewModule is a version of a module that is to be added.
type NewModule struct {
	Program []byte
	// Record is its publisher's, signed; empty: this world is the publisher, and signs what
	// follows.
	Record        string
	Name, Version string
	Engine        string
	Reads         []string
}

// Module is a module that this world knows.
type Module struct {
	capsule.Module
	Fingerprint carnet.Fingerprint // of the record
	Record      string
	Added       time.Time
	Revoked     *capsule.Revocation // the first that counts here; nil: it may run
	Revocations []string
}

// moduleDocument is stored sealed, as it is.
type moduleDocument struct {
	Record      string    `json:"record"`
	Added       time.Time `json:"added"`
	Revocations []string  `json:"revocations,omitempty"`
}

// modules are the world's modules, by their ids.
type modules struct {
	changing sync.Mutex // held while one changes
	mu       sync.Mutex // guards what follows
	all      map[string]*heldModule
}

type heldModule struct {
	version uint64 // of its document; owner: changing
	Module
}

// loadModules reads the modules.
func (a *Agent) loadModules(ctx context.Context) error {
	a.modules.all = make(map[string]*heldModule)
	return a.records.EachKept(ctx, kindModule, func(id string, version uint64, open func(any) error) error {
		var doc moduleDocument
		if err := open(&doc); err != nil {
			return err
		}
		m, err := moduleOf(&doc) // sealed for its id
		if err != nil {
			return err
		}
		a.modules.all[id] = &heldModule{version, m}
		return nil
	})
}

// moduleOf reads a document.
func moduleOf(doc *moduleDocument) (m Module, err error) {
	m = Module{Fingerprint: capsule.Fingerprint(doc.Record), Record: doc.Record, Added: doc.Added, Revocations: doc.Revocations}
	if m.Module, err = capsule.OpenModule(doc.Record); err != nil || len(doc.Revocations) == 0 {
		return m, err
	}
	r, err := capsule.OpenRevocation(doc.Revocations[0])
	m.Revoked = &r
	return m, err
}

// Modules lists the modules, by name and when they were added.
func (a *Agent) Modules() []Module {
	a.modules.mu.Lock()
	defer a.modules.mu.Unlock()
	all := make([]Module, 0, len(a.modules.all))
	for _, m := range a.modules.all {
		all = append(all, m.Module)
	}
	slices.SortFunc(all, func(x, y Module) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), x.Added.Compare(y.Added), cmp.Compare(x.Version, y.Version))
	})
	return all
}

// Module returns one by its id, NAME@VERSION; carnet.NotFound without one.
func (a *Agent) Module(id string) (Module, error) {
	a.modules.mu.Lock()
	defer a.modules.mu.Unlock()
	if m := a.modules.all[id]; m != nil {
		return m.Module, nil
	}
	return Module{}, carnet.Errorf(carnet.NotFound, "there is no module %.140q", id).WithFix("see: carnet module list")
}

// AddModule has a version of a module be known here: when it returns its bytes are at
// the depot, and its record in the store. A version is added once.
func (a *Agent) AddModule(ctx context.Context, n NewModule) (Module, error) {
	program := capsule.Content{Fingerprint: carnet.FingerprintOf(n.Program), Size: int64(len(n.Program))}
	now := a.cfg.Now().UTC().Truncate(time.Second)
	doc := moduleDocument{Record: n.Record, Added: now}
	if doc.Record == "" {
		var err error
		doc.Record, err = capsule.Module{
			Name: n.Name, Version: n.Version, Engine: n.Engine, Interface: capsule.ModuleInterface, Program: program,
			Reads: slices.Compact(slices.Sorted(slices.Values(n.Reads))), By: identity.DID(publicOf(a.cfg.Key)), Made: now,
		}.Sign(a.cfg.Key)
		if err != nil {
			return Module{}, err
		}
	}
	m, err := moduleOf(&doc)
	if err != nil {
		return Module{}, err
	}
	if err := a.admits(ctx, &m, n.Program, program); err != nil {
		return Module{}, err
	}
	unsigned := func() error {
		if _, err := a.Module(m.ID()); err == nil {
			return carnet.Errorf(carnet.Conflict, "the module %s is there already, and a version is signed once", m.ID()).WithFix("give it another version")
		}
		return nil
	}
	if err := unsigned(); err != nil {
		return Module{}, err
	}
	kept := []carnet.Kept{{Kind: kindModule, ID: m.ID(), Version: 1, Body: doc}}
	stated := []ledger.Statement{{Kind: ledger.ModuleAdded, Time: a.cfg.Now().UnixNano(), Object: m.Fingerprint}}
	if a.cfg.Owned != nil && a.cfg.Depot.Party() == "" { // a things agent may have no depot
		bytes, err := a.keptProgram(ctx, n.Program)
		if err != nil {
			return Module{}, err
		}
		kept = append(kept, bytes...)
	} else {
		// Without the lock: a depot that hangs keeps nobody from revoking a module.
		if f, err := a.cfg.Depot.PutObject(ctx, n.Program, carnet.Keep); err != nil {
			return Module{}, fmt.Errorf("store the module at the depot: %w", err)
		} else if f != program.Fingerprint {
			return Module{}, carnet.Errorf(carnet.Tampered, "the depot stored the module as %s, and it is %s", f, program.Fingerprint)
		}
		stated = append(stated, ledger.Statement{Kind: ledger.StoredObject, Time: a.cfg.Now().UnixNano(), Peer: a.cfg.Depot.Party(), Object: program.Fingerprint, Size: uint64(program.Size)})
	}
	a.modules.changing.Lock()
	defer a.modules.changing.Unlock()
	if err := unsigned(); err != nil {
		return Module{}, err
	}
	if err := a.records.Keep(ctx, kept, stated); err != nil {
		return Module{}, err
	}
	a.modules.mu.Lock()
	defer a.modules.mu.Unlock()
	a.modules.all[m.ID()] = &heldModule{1, m}
	return m, nil
}

// admits refuses a module that may not be added here.
func (a *Agent) admits(ctx context.Context, m *Module, bytes []byte, program capsule.Content) error {
	if m.By != identity.DID(publicOf(a.cfg.Key)) && !slices.Contains(a.cfg.Publishers, m.By) {
		return carnet.Errorf(carnet.Forbidden, "the module %s is signed by %s, who is no publisher for %s", m.ID(), m.By, a.cfg.Party).
			WithFix("have the operator add the publisher to publishers in carnet.toml")
	}
	if m.Program != program {
		return carnet.Errorf(carnet.Malformed, "the record %s is of the program %s, and this one is %s", m.ID(), m.Program.Fingerprint, program.Fingerprint).
			WithFix("give the file that its publisher signed")
	}
	return a.check(ctx, &Spec{Engine: m.Engine, Program: bytes})
}

// RevokeModule ends a module for good: no job of it begins any more, and those under way
// end as refused. message is the revocation that its publisher signed; empty: this world
// signs one, for why.
func (a *Agent) RevokeModule(ctx context.Context, id, why, message string) (Module, error) {
	a.modules.changing.Lock()
	defer a.modules.changing.Unlock()
	m, err := a.Module(id)
	if err != nil {
		return m, err
	}
	self := identity.DID(publicOf(a.cfg.Key))
	if message == "" {
		message, err = capsule.Revocation{Module: m.Fingerprint, By: self, Why: why, Made: a.cfg.Now().UTC().Truncate(time.Second)}.Sign(a.cfg.Key)
		if err != nil {
			return m, err
		}
	}
	r, err := capsule.OpenRevocation(message)
	switch {
	case err != nil:
		return m, err
	case r.Module != m.Fingerprint:
		return m, carnet.Errorf(carnet.Forbidden, "the revocation is of another module than %s", id)
	case r.By != m.By && r.By != self:
		return m, carnet.Errorf(carnet.Forbidden, "the revocation is by %s, and %s is of %s: only its publisher, or %s for itself, revokes it", r.By, id, m.By, a.cfg.Party)
	}
	for _, have := range m.Revocations {
		old, err := capsule.OpenRevocation(have)
		if err != nil {
			return m, err
		}
		if old.By == r.By {
			return m, carnet.Errorf(carnet.Conflict, "the module %s is revoked already: %s", id, old.Why)
		}
	}
	doc := moduleDocument{Record: m.Record, Added: m.Added, Revocations: append(slices.Clone(m.Revocations), message)}
	if m, err = moduleOf(&doc); err != nil {
		return m, err
	}
	a.modules.mu.Lock()
	h := a.modules.all[id]
	a.modules.mu.Unlock()
	err = a.records.Keep(ctx, []carnet.Kept{{Kind: kindModule, ID: id, Version: h.version + 1, Body: doc}}, []ledger.Statement{
		{Kind: ledger.ModuleRevoked, Time: a.cfg.Now().UnixNano(), Object: capsule.Fingerprint(message)},
	})
	if err != nil {
		return m, err
	}
	a.modules.mu.Lock()
	a.modules.all[id] = &heldModule{h.version + 1, m}
	a.modules.mu.Unlock()
	a.wakeAll(id)
	return m, nil
}

// wakeAll has the jobs of a module look at it again.
func (a *Agent) wakeAll(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for h := range maps.Values(a.jobs) {
		if h.job.Module == id {
			select { // what is under way ends
			case h.wake <- struct{}{}:
			default:
			}
		}
	}
}

// forbids says why a module may not run; empty: it may.
func (a *Agent) forbids(id string) string {
	if id == "" {
		return ""
	}
	m, err := a.Module(id)
	switch {
	case err != nil:
		return err.Error()
	case m.Revoked != nil:
		return fmt.Sprintf("the module %s is revoked: %s", id, m.Revoked.Why)
	}
	return ""
}

// resolve puts a module's program into what is to be computed, or refuses a program
// that nobody signed where that is not allowed.
func (a *Agent) resolve(ctx context.Context, s *Spec) error {
	if s.Module == "" {
		if slices.Contains(a.cfg.Signed, s.Engine) {
			return carnet.Errorf(carnet.Forbidden, "the program is no signed module, and %s has no others run", a.cfg.Party).
				WithFix("add it, and name it: carnet module add, carnet job run --module NAME@VERSION; or have the operator set unsigned_programs in carnet.toml")
		}
		return nil
	}
	if len(s.Program) > 0 {
		return carnet.Errorf(carnet.Malformed, "a module and a program are given").WithFix("give one of them")
	}
	m, err := a.Module(s.Module)
	if err != nil {
		return err
	}
	if why := a.forbids(s.Module); why != "" {
		return carnet.Errorf(carnet.Forbidden, "%s", why).WithFix("take another version: carnet module list")
	}
	if s.Engine != "" && s.Engine != m.Engine {
		return carnet.Errorf(carnet.Malformed, "the module %s is for the engine %s, not %s", s.Module, m.Engine, s.Engine)
	}
	s.Engine = m.Engine
	if len(s.Properties) == 0 {
		s.Properties = m.Reads
	}
	s.Program, err = a.moduleProgram(ctx, &m)
	return err
}

// moduleProgram returns a module's bytes, from here or from the depot, if they are those
// that were signed.
func (a *Agent) moduleProgram(ctx context.Context, m *Module) ([]byte, error) {
	name := m.Program.Fingerprint
	program, err := a.program(ctx, name)
	if code := carnet.CodeOf(err); code != carnet.NotFound && code != carnet.Tampered {
		return program, err
	}
	if program, err = a.cfg.Depot.GetObject(ctx, name); err != nil {
		return nil, fmt.Errorf("fetch the module %s from the depot: %w", m.ID(), err)
	}
	return program, m.Fits(m.Engine, capsule.Content{Fingerprint: carnet.FingerprintOf(program), Size: int64(len(program))})
}

// refuse ends a job whose module is revoked. A DPM that has it, or may have it, is told
// first, and what it says then is the end.
func (a *Agent) refuse(ctx context.Context, h *held, j *Job, why string) error {
	e := Event{Kind: Refuse, Code: carnet.Forbidden, Why: why}
	if j.At == "" {
		return a.change(ctx, h, e, nil)
	}
	p, err := a.cfg.Peer(j.At)
	if code := carnet.CodeOf(err); code == carnet.Forbidden || code == carnet.NotFound {
		return a.change(ctx, h, e, nil) // it is given nothing more, and the job ends there with its time
	}
	if err != nil {
		return err
	}
	m, err := a.Module(j.Module)
	if err != nil {
		return a.change(ctx, h, e, nil)
	}
	for _, r := range m.Revocations {
		err := p.DPM.Revoke(ctx, r)
		if final(err) && ctx.Err() == nil { // it takes no such word: it takes a withdrawal
			return a.withdraw(ctx, h, why)
		}
		if err != nil {
			return err
		}
	}
	if j.Stand.State == Ordered {
		return a.change(ctx, h, e, nil) // if it had come, it has ended there; if it comes, it isn't taken
	}
	s, err := p.DPM.Status(ctx, j.ID, 0, time.Second)
	switch {
	case carnet.CodeOf(err) == carnet.NotFound:
		return a.change(ctx, h, e, nil)
	case err != nil:
		return err
	case s.Result != "":
		return a.take(ctx, h, j, &p, &s)
	}
	return a.withdraw(ctx, h, why) // it says that it has ended it, and hasn't
}

// tellRevoked tells each DPM of the revocations: one that knows an older copy's, or none
// of the last. Other worlds' jobs there end by it, too, where the publisher revoked.
func (a *Agent) tellRevoked(ctx context.Context) error {
	told := make(map[carnet.PartyID]string) // the process, and how many it knows, by DPM
	tick := time.NewTicker(remindEvery)
	defer tick.Stop()
	for {
		if all := a.revocations(); len(all) > 0 {
			for _, at := range a.cfg.DPMs() {
				knows, err := a.tellRevokedTo(ctx, at, told[at], all)
				if err == nil {
					told[at] = knows
				} else if ctx.Err() == nil {
					a.cfg.Log.Debug("a DPM can't be told of revoked modules; it is tried again", "dpm", at, "err", err)
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *Agent) tellRevokedTo(ctx context.Context, at carnet.PartyID, told string, all []string) (knows string, err error) {
	ctx, cancel := context.WithTimeout(ctx, offerWait)
	defer cancel()
	p, process, err := a.processOf(ctx, at)
	if err != nil {
		return "", err
	}
	if knows = fmt.Sprintf("%s %d", process, len(all)); knows == told {
		return knows, nil
	}
	for _, r := range all {
		if err := p.DPM.Revoke(ctx, r); err != nil {
			return "", err
		}
	}
	return knows, nil
}

// hearRevoked asks the DPMs which modules run no more: a publisher may have said so to
// another world, or this one before it lost it.
func (a *Agent) hearRevoked(ctx context.Context) error {
	tick := time.NewTicker(hearEvery)
	defer tick.Stop()
	for {
		for _, at := range a.cfg.DPMs() {
			if err := a.hearRevokedFrom(ctx, at); err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("not all is heard from a DPM of revoked modules; it is asked again", "dpm", at, "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// hearEvery is how often that is asked.
const hearEvery = 10 * time.Second

func (a *Agent) hearRevokedFrom(ctx context.Context, at carnet.PartyID) error {
	ctx, cancel := context.WithTimeout(ctx, offerWait)
	defer cancel()
	known := make(map[carnet.Fingerprint]string)
	var records []string
	for _, m := range a.Modules() {
		if m.Revoked == nil {
			known[m.Fingerprint] = m.ID()
			records = append(records, m.Record)
		}
	}
	if len(records) == 0 {
		return nil
	}
	p, err := a.cfg.Peer(at)
	if err != nil {
		return err
	}
	words, err := p.DPM.Revoked(ctx, records)
	if err != nil {
		return err
	}
	if most := 2 * len(records); len(words) > most { // of each its publisher's, and this world's
		return carnet.Errorf(carnet.TooLarge, "%s tells of %d revocations, and of %d modules there can be %d", at, len(words), len(records), most)
	}
	var failed error
	for _, word := range words {
		if err := a.hear(ctx, at, word, known); err != nil && failed == nil { // the others count all the same
			failed = err
		}
	}
	return failed
}

// hear takes a revocation that a DPM tells of a module that is known.
func (a *Agent) hear(ctx context.Context, at carnet.PartyID, word string, known map[carnet.Fingerprint]string) error {
	r, err := capsule.OpenRevocation(word)
	if err != nil {
		return err
	}
	id, is := known[r.Module]
	if !is {
		return carnet.Errorf(carnet.Forbidden, "%s tells of a revocation that it wasn't asked for", at)
	}
	_, err = a.RevokeModule(ctx, id, "", word)
	if carnet.CodeOf(err) == carnet.Conflict { // another DPM told of it
		return nil
	}
	if err == nil {
		a.cfg.Log.Info("a module is revoked, as a DPM tells", "module", id, "dpm", at, "by", r.By, "why", r.Why)
	}
	return err
}

// revocations lists all that count here.
func (a *Agent) revocations() (all []string) {
	for _, m := range a.Modules() {
		all = append(all, m.Revocations...)
	}
	return all
}
