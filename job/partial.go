package job

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/keys"
	"carnet/ledger"
	"carnet/seal"
)

// Partial is what is here of the output of a job that runs at a DPM. Nothing proves it: the
// result does, over the whole. It is stored as a document of its own.
type Partial struct {
	Said    string               `json:"said"` // the DPM's word of it
	Attempt int                  `json:"attempt"`
	Bag     carnet.Fingerprint   `json:"bag"`  // that gave the key; each attempt has another
	Path    string               `json:"path"` // of that key
	Run     int                  `json:"run"`  // counts the attempts of which something came
	Sealed  []carnet.Fingerprint `json:"sealed"`
	Size    uint64               `json:"size"` // of the contents
	Heard   time.Time            `json:"heard"`
	// Before has what attempts had put out that were lost, and whose parts these replaced.
	Before []Earlier `json:"before,omitempty"`
}

// Earlier is what an attempt had put out that was lost.
type Earlier struct {
	Said        string             `json:"said"`
	Attempt     int                `json:"attempt"`
	Size        uint64             `json:"size"`
	Fingerprint carnet.Fingerprint `json:"fingerprint"` // of the contents
}

// Contradiction is what a DPM put out while a job ran, and then not.
type Contradiction struct {
	Why     string `json:"why"`
	Partial string `json:"partial"` // the DPM's word while the job ran
	// Sealed has the fingerprints of the parts that the result is of, where both are of one
	// attempt: the two words' roots are over lists of which one doesn't begin as the other.
	Sealed []carnet.Fingerprint `json:"sealed,omitempty"`
}

// The kinds of what is kept of partial outputs: not those of outputs.
const (
	kindPartial     = "job-partial"
	kindPartialPart = "job-partial-part" // sealed under its attempt's key; not JSON
	kindPartialKey  = "job-partial"      // in the key table
)

func partialKey(id carnet.JobID, bag carnet.Fingerprint) keys.ID {
	return keys.ID{Kind: kindPartialKey, Name: id.String() + "/" + bag.String()}
}

func partialPart(id carnet.JobID, run, n int) string { return fmt.Sprintf("%s/%d/%06d", id, run, n) }

// glances says when a job's DPM is to be asked for parts.
type glances struct {
	last   time.Time
	parts  int // that were asked for last
	of     int // of which attempt
	failed int
	behind bool
}

// mostFailed is how often what a DPM gives of a partial output may be no good, until it is
// asked for none any more.
const mostFailed = 10

// due reports whether there is something to ask for now; if it is only later, the next
// status is waited for no longer than until then.
func (g *glances) due(s *dpm.Status) bool {
	g.behind = g.failed < mostFailed && s.Result == "" && s.State == dpm.Leased && s.Parts > 0 && (s.Parts != g.parts || s.Attempt != g.of)
	if !g.behind || time.Since(g.last) < againAfter {
		return false
	}
	g.last, g.parts, g.of, g.behind = time.Now(), s.Parts, s.Attempt, false
	return true
}

// glance fetches what a job has put out so far.
func (a *Agent) glance(ctx context.Context, h *held, j *Job, p *Peer) error {
	said, err := p.DPM.Partial(ctx, j.ID)
	if err != nil {
		return err
	}
	w, err := capsule.OpenPartial(said.Partial, p.Key)
	if err != nil {
		return err
	}
	if w.Job != j.ID || w.Order != capsule.Fingerprint(j.Order) || w.Bag != carnet.FingerprintOf(said.Bag) || w.Parts > j.Task.Limits.Parts {
		return carnet.Errorf(carnet.Tampered, "%s says of another order, of another bag or of more parts than the order's what the job has put out", j.At)
	}
	key, err := a.outputKey(j, p, said.Bag)
	if err != nil {
		return err
	}
	a.mu.Lock()
	had := h.partial
	a.mu.Unlock()
	next := Partial{Said: said.Partial, Attempt: w.Attempt, Bag: w.Bag, Path: key.Path.String(), Run: 1, Heard: a.cfg.Now().UTC()}
	switch {
	case had == nil:
	case had.Bag == w.Bag:
		next.Run, next.Before, next.Sealed, next.Size = had.Run, had.Before, slices.Clone(had.Sealed), had.Size
	case had.Run >= dpm.MostAttempts:
		return carnet.Errorf(carnet.Unavailable, "%s has begun %d times to put something out: no more of it is fetched", j.At, had.Run+1)
	default:
		next.Run, next.Before = had.Run+1, a.earlier(ctx, h, j, had)
	}
	if len(next.Sealed) >= w.Parts {
		return nil
	}
	var parts [][]byte
	for n := len(next.Sealed); n < w.Parts; n++ {
		sealed, err := p.DPM.Part(ctx, j.ID, w.Attempt, n)
		if err != nil {
			return err
		}
		a.went(j.At, 0, 1)
		content, err := openPart(key, j, n, sealed)
		if err != nil {
			return carnet.Errorf(carnet.Unavailable, "part %d of what it has put out so far doesn't open: %v", n, err)
		}
		if next.Size += uint64(len(content)); len(content) > engine.MostPart || next.Size > j.Task.Limits.Output {
			return carnet.Errorf(carnet.TooLarge, "part %d of what it has put out so far is larger than a part, or with it the order's limit", n)
		}
		next.Sealed, parts = append(next.Sealed, carnet.FingerprintOf(sealed)), append(parts, sealed)
	}
	if seal.Root(next.Sealed) != w.Sealed {
		return carnet.Errorf(carnet.Unavailable, "what %s gives of the output so far isn't what it signed", j.At)
	}
	return a.keepPartial(ctx, h, had, &next, key, parts)
}

// earlier is what stays of what attempts had put out, with the last. What is damaged here is
// held against nobody.
func (a *Agent) earlier(ctx context.Context, h *held, j *Job, p *Partial) []Earlier {
	content, err := a.partialOf(ctx, h, j, p)
	if err != nil {
		a.cfg.Log.Warn("what a job has put out so far can't be read", "job", j.ID, "err", err)
		return p.Before
	}
	return append(slices.Clone(p.Before), Earlier{p.Said, p.Attempt, uint64(len(content)), carnet.Fingerprint(sha256.Sum256(content))})
}

// keepPartial stores what came: added to what was there, or in its place.
func (a *Agent) keepPartial(ctx context.Context, h *held, had, next *Partial, key seal.Key, parts [][]byte) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	if h.job.Stand.State != Accepted || h.job.erased() { // it changes under changing alone
		return nil
	}
	id := h.job.ID
	if err := a.cfg.Keys.Put(ctx, keys.Entry{ID: partialKey(id, next.Bag), Secret: key.Secret[:]}); err != nil {
		return err
	}
	var plain []carnet.Document
	for i, sealed := range parts {
		plain = append(plain, carnet.Document{Kind: kindPartialPart, ID: partialPart(id, next.Run, len(next.Sealed)-len(parts)+i), Version: 1, Body: sealed})
	}
	replaced := had != nil && had.Run != next.Run
	if replaced {
		plain = append(plain, noParts(id, had)...)
	}
	if err := a.records.Keep(ctx, []carnet.Kept{{Kind: kindPartial, ID: id.String(), Version: h.partialVersion + 1, Body: next}}, nil, plain...); err != nil {
		return err
	}
	h.partialVersion++
	a.mu.Lock()
	h.partial = next
	a.tell(h)
	a.mu.Unlock()
	if replaced {
		return a.cfg.Keys.Destroy(ctx, partialKey(id, had.Bag))
	}
	return nil
}

// noParts deletes the parts of a partial output.
func noParts(id carnet.JobID, p *Partial) (all []carnet.Document) {
	for n := range p.Sealed {
		all = append(all, carnet.Document{Kind: kindPartialPart, ID: partialPart(id, p.Run, n), Version: 2})
	}
	return all
}

// dropPartial destroys the key of a job's partial output, and is what deletes the rest with
// the change that ends it. The caller holds h.changing, and forgets it when that is stored.
func (a *Agent) dropPartial(ctx context.Context, h *held) ([]carnet.Document, error) {
	if h.partial == nil {
		return nil, nil
	}
	if err := a.cfg.Keys.Destroy(ctx, partialKey(h.job.ID, h.partial.Bag)); err != nil {
		return nil, err
	}
	return append(noParts(h.job.ID, h.partial), carnet.Document{Kind: kindPartial, ID: h.job.ID.String(), Version: h.partialVersion + 1}), nil
}

// loadPartials reads what is kept of partial outputs.
func (a *Agent) loadPartials(ctx context.Context) error {
	return a.records.EachKept(ctx, kindPartial, func(name string, version uint64, open func(any) error) error {
		var id carnet.JobID
		var p Partial
		err := id.UnmarshalText([]byte(name))
		if err == nil {
			err = open(&p)
		}
		if err != nil {
			return err
		}
		if h := a.jobs[id]; h != nil {
			h.partial, h.partialVersion = &p, version
		}
		return nil
	})
}

// partialOf opens what is kept of a partial output: nothing, where its key is destroyed.
func (a *Agent) partialOf(ctx context.Context, h *held, j *Job, p *Partial) (content []byte, err error) {
	h.changing.Lock() // what replaces it waits
	defer h.changing.Unlock()
	if h.partial != p {
		return nil, carnet.Errorf(carnet.Unavailable, "what there was of the output is being replaced").WithFix("ask again")
	}
	secret, err := a.cfg.Keys.Get(ctx, partialKey(j.ID, p.Bag))
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	key := seal.Key{}
	if key.Path, err = seal.ParsePath(p.Path); err == nil && len(secret) != len(key.Secret) {
		err = carnet.Errorf(carnet.Tampered, "the key of a partial output has %d bytes", len(secret))
	}
	if err != nil {
		return nil, err
	}
	copy(key.Secret[:], secret)
	for n := range p.Sealed {
		d, err := a.records.Plain(ctx, kindPartialPart, partialPart(j.ID, p.Run, n))
		if err != nil {
			return nil, err
		}
		part, err := openPart(key, j, n, d.Body)
		if err != nil {
			return nil, err
		}
		content = append(content, part...)
	}
	return content, nil
}

// contradicts holds an output against what came while the job ran; nil: it is the same, as
// far as that went. A lie is what is signed twice of one attempt.
func (a *Agent) contradicts(ctx context.Context, h *held, j *Job, r *capsule.Result, key seal.Key, parts [][]byte) (c *Contradiction, isLie bool, err error) {
	a.mu.Lock()
	had := h.partial
	a.mu.Unlock()
	if had == nil {
		return nil, false, nil
	}
	sealed := make([]carnet.Fingerprint, len(parts))
	for i := range parts {
		sealed[i] = carnet.FingerprintOf(parts[i])
	}
	before := had.Before
	if had.Bag == r.Output.Bag {
		if len(sealed) < len(had.Sealed) || !slices.Equal(sealed[:len(had.Sealed)], had.Sealed) {
			why := fmt.Sprintf("while attempt %d ran it signed other parts than it then did", had.Attempt)
			return &Contradiction{Why: why, Partial: had.Said, Sealed: sealed}, true, nil
		}
	} else {
		before = a.earlier(ctx, h, j, had)
	}
	if len(before) == 0 {
		return nil, false, nil
	}
	var out []byte
	for n := range parts {
		content, err := openPart(key, j, n, parts[n])
		if err != nil {
			return nil, false, err
		}
		out = append(out, content...)
	}
	for _, e := range before {
		if uint64(len(out)) < e.Size || carnet.Fingerprint(sha256.Sum256(out[:e.Size])) != e.Fingerprint {
			why := fmt.Sprintf("%s put out something else in attempt %d, which it says was lost, than in attempt %d: repeat it to know which is so", j.At, e.Attempt, r.Attempt)
			return &Contradiction{Why: why, Partial: e.Said}, false, nil
		}
	}
	return nil, false, nil
}

// contradicted states that a DPM put out two things.
func contradicted(at time.Time, was, j *Job) []ledger.Statement {
	if j.Contradiction == nil || was.Contradiction != nil || j.Stand.Outcome != capsule.Done {
		return nil
	}
	return []ledger.Statement{{Kind: ledger.JobCompared, Time: at.UnixNano(), Peer: j.At, Object: capsule.Fingerprint(j.Stand.Result), Reason: carnet.Shorten(j.Contradiction.Why, capsule.MaxReason)}}
}

// PartialOutput is what there is so far of the output of a job that hasn't ended.
type PartialOutput struct {
	Attempt int
	Parts   int
	Heard   time.Time // zero: it is of a run in this party, and as of now
	Content []byte
}

// sofar is what a run in this party has put out: in memory only.
type sofar struct {
	attempt int
	parts   int
	content bytes.Buffer
}

// PartialOutput returns what a job has put out so far: unproved. carnet.Conflict, once it
// has ended.
func (a *Agent) PartialOutput(ctx context.Context, id carnet.JobID) (PartialOutput, error) {
	h, err := a.find(id)
	if err != nil {
		return PartialOutput{}, err
	}
	a.mu.Lock()
	j, had := h.job, h.partial
	var out PartialOutput
	if s := h.sofar; s != nil {
		out = PartialOutput{Attempt: s.attempt, Parts: s.parts, Content: bytes.Clone(s.content.Bytes())}
	}
	a.mu.Unlock()
	switch {
	case j.Stand.State == Ended && j.Output != nil:
		return out, carnet.Errorf(carnet.Conflict, "the job has ended, and its whole output is proved").WithFix("read that: carnet job show %s --output", id)
	case j.Stand.State == Ended:
		return out, carnet.Errorf(carnet.Conflict, "the job has ended: it is %s, and nothing is kept of what it had put out", j.Stand.Outcome)
	}
	if err := a.readable(&j); err != nil {
		return PartialOutput{}, err
	}
	if had == nil {
		return out, nil
	}
	content, err := a.partialOf(ctx, h, &j, had)
	if err != nil || len(content) == 0 && len(had.Sealed) > 0 { // its key is destroyed: it is about to end
		return PartialOutput{}, err
	}
	return PartialOutput{Attempt: had.Attempt, Parts: len(had.Sealed), Heard: had.Heard, Content: content}, nil
}

// strayPartial reports whether a key of a partial output is of none. The caller holds mu.
func (a *Agent) strayPartial(name string, atStart bool) bool {
	var id carnet.JobID
	job, bag, _ := strings.Cut(name, "/")
	if id.UnmarshalText([]byte(job)) != nil {
		return true
	}
	h := a.jobs[id]
	if h != nil && h.job.Stand.State == Accepted && !atStart {
		return false
	}
	return h == nil || h.partial == nil || h.partial.Bag.String() != bag
}
