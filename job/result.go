package job

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/keys"
	"carnet/seal"
)

// lie is what a DPM signed and isn't so.
type lie struct{ why string }

func (l lie) Error() string { return l.why }

func lied(format string, args ...any) error { return lie{fmt.Sprintf(format, args...)} }

// resultBy reads what a DPM signed about a job.
func (a *Agent) resultBy(said string, j *Job, p *Peer) (capsule.Result, error) {
	r, err := capsule.OpenResult(said, p.Key)
	if err == nil && (r.Job != j.ID || r.Order != capsule.Fingerprint(j.Order)) {
		err = carnet.Errorf(carnet.Tampered, "%s answers with the result of another order", j.At)
	}
	return r, err
}

// take takes a result: what isn't so ends the job as a lie.
func (a *Agent) take(ctx context.Context, h *held, j *Job, p *Peer, s *dpm.Status) error {
	r, err := a.resultBy(s.Result, j, p)
	if err != nil {
		return err
	}
	e := Event{Kind: Resulted, Outcome: r.Outcome, Code: r.Code, Why: r.Why, Result: s.Result}
	if r.Outcome == capsule.Expired {
		e.Why = fmt.Sprintf("%s didn't finish it in its time", j.At)
	}
	if w, ours := a.withdrew(s.Withdrawal, j); ours && r.Outcome == capsule.Withdrawn {
		e.Withdrawal, e.Why = s.Withdrawal, w.Why
	}
	if r.Outcome == capsule.Withdrawn && j.Stand.Withdrawal == "" && e.Withdrawal == "" {
		return a.change(ctx, h, lieOf(j, e, "it was withdrawn, and this world has never withdrawn it"), nil)
	}
	if why, err := a.unfounded(j, &r); err != nil {
		return err
	} else if why != "" {
		return a.change(ctx, h, lieOf(j, e, why), nil)
	}
	if r.Outcome != capsule.Done {
		return a.change(ctx, h, e, nil)
	}
	if why := a.forbids(j.Module); why != "" { // it was done before the DPM heard
		e.Outcome, e.Code, e.Why = Refused, carnet.Forbidden, why
		return a.change(ctx, h, e, nil)
	}
	if s.Taken != "" { // this world was restored from a copy of before, or the DPM lies
		if !a.hadTaken(s.Taken, j, s.Result) {
			return a.change(ctx, h, lieOf(j, e, "this world has taken its output before, by a word that isn't this world's"), nil)
		}
		e.Outcome, e.Code, e.Why = Silent, carnet.NotFound, fmt.Sprintf("%s has deleted the output, since this world had taken it before: order it anew", j.At)
		return a.change(ctx, h, e, nil)
	}
	key, parts, err := a.fetch(ctx, j, p, s, &r)
	var other *Contradiction
	if err == nil {
		var isLie bool
		if other, isLie, err = a.contradicts(ctx, h, j, &r, key, parts); isLie {
			return a.change(ctx, h, lieOf(j, e, other.Why), func(j *Job) { j.Contradiction = other })
		}
	}
	if l, isLie := errors.AsType[lie](err); isLie {
		return a.change(ctx, h, lieOf(j, e, l.why), nil)
	}
	if err != nil {
		return err
	}
	return a.takeOutput(ctx, h, e, r.Output, key, parts, other)
}

// lieOf is the end of a job whose DPM signed what isn't so.
func lieOf(j *Job, e Event, why string) Event {
	e.Outcome, e.Code, e.Why = Lied, carnet.Tampered, fmt.Sprintf("%s signed a result that isn't so: %s", j.At, why)
	return e
}

// ahead is how far a DPM's clock may be ahead of this world's.
const ahead = 5 * time.Minute

// unfounded says why a result can't be of the job; empty: it can.
func (a *Agent) unfounded(j *Job, r *capsule.Result) (why string, err error) {
	o, err := capsule.OpenOrder(j.Order, publicOf(a.cfg.Key))
	if err != nil {
		return "", err
	}
	if r.Outcome == capsule.Expired && a.cfg.Now().Before(o.Until.Add(-ahead)) {
		return fmt.Sprintf("its time was over at %s, which is to come", r.Ended.Format(time.RFC3339)), nil
	}
	return r.Unfounded(&o), nil
}

// withdrew reports whether a withdrawal is this world's, of this job.
func (a *Agent) withdrew(message string, j *Job) (w capsule.Withdrawal, ours bool) {
	w, err := capsule.OpenWithdrawal(message, publicOf(a.cfg.Key))
	return w, err == nil && w.Job == j.ID && w.Order == capsule.Fingerprint(j.Order)
}

// hadTaken reports whether a word is this world's that it has a result.
func (a *Agent) hadTaken(word string, j *Job, result string) bool {
	t, err := capsule.OpenTaken(word, publicOf(a.cfg.Key))
	return err == nil && t == capsule.Taken{Job: j.ID, Order: capsule.Fingerprint(j.Order), Result: capsule.Fingerprint(result)}
}

// takeOutput stores a job's output with the end of the job.
func (a *Agent) takeOutput(ctx context.Context, h *held, e Event, o *capsule.Output, key seal.Key, parts [][]byte, other *Contradiction) error {
	h.taking.Lock()
	defer h.taking.Unlock()
	if err := ctx.Err(); err != nil { // something ended it meanwhile
		return err
	}
	id := h.job.ID // it never changes
	if err := a.putKey(ctx, h, keys.Entry{ID: keyID(id), Secret: key.Secret[:]}); err != nil {
		return err
	}
	var plain []carnet.Document
	for n, sealed := range parts {
		plain = append(plain, carnet.Document{Kind: kindPart, ID: partID(id, n), Version: 1, Body: sealed})
	}
	err := a.change(ctx, h, e, func(j *Job) {
		if j.Stand.Outcome == capsule.Done {
			j.Output, j.Path, j.Contradiction = o, key.Path.String(), other
		}
	}, plain...)
	if err != nil {
		return err
	}
	a.mu.Lock()
	has := h.job.Output != nil
	a.mu.Unlock()
	if !has { // it was withdrawn meanwhile
		return a.cfg.Keys.Destroy(context.WithoutCancel(ctx), keyID(id))
	}
	return a.compared(ctx, h)
}

// putKey keeps an output's key. One that is there of an attempt whose end wasn't stored
// is replaced: there is nothing under it. The caller holds h.taking.
func (a *Agent) putKey(ctx context.Context, h *held, e keys.Entry) error {
	err := a.cfg.Keys.Put(ctx, e)
	if carnet.CodeOf(err) != carnet.Conflict {
		return err
	}
	a.mu.Lock()
	ended := h.job.Stand.State == Ended
	a.mu.Unlock()
	if ended {
		return err
	}
	if err := a.cfg.Keys.Destroy(ctx, e.ID); err != nil {
		return err
	}
	return a.cfg.Keys.Put(ctx, e)
}

func keyID(id carnet.JobID) keys.ID { return keys.ID{Kind: kindKey, Name: id.String()} }

func partID(id carnet.JobID, n int) string { return fmt.Sprintf("%s/%06d", id, n) }

// fetch fetches an output and holds it against what was signed.
func (a *Agent) fetch(ctx context.Context, j *Job, p *Peer, s *dpm.Status, r *capsule.Result) (key seal.Key, parts [][]byte, err error) {
	o := r.Output
	switch {
	case o.Program != j.Task.Program.Fingerprint:
		return key, nil, lied("it ran the program %s", o.Program)
	case o.Inputs != j.Task.Root():
		return key, nil, lied("it ran over other inputs")
	case o.Parts > j.Task.Limits.Parts || o.Size > j.Task.Limits.Output:
		return key, nil, lied("its output is larger than the order's limits")
	case carnet.FingerprintOf(s.Bag) != o.Bag:
		return key, nil, lied("it gives another key bag than it signed")
	}
	if key, err = a.outputKey(j, p, s.Bag); err != nil {
		return key, nil, err
	}
	var leaves []carnet.Fingerprint
	sum, size := sha256.New(), uint64(0)
	for n := range o.Parts {
		if ctx.Err() != nil { // it isn't wanted any more, or its time is over
			return key, nil, ctx.Err()
		}
		sealed, err := p.DPM.Part(ctx, j.ID, r.Attempt, n)
		if carnet.CodeOf(err) == carnet.NotFound {
			return key, nil, lied("part %d of its output isn't there", n)
		}
		if err != nil {
			return key, nil, err
		}
		a.went(j.At, 0, 1)
		content, err := openPart(key, j, n, sealed)
		if err != nil {
			return key, nil, lied("part %d of its output: %v", n, err)
		}
		// At once: who signs little and sends without end would fill this world's memory.
		if size += uint64(len(content)); len(content) > engine.MostPart || size > o.Size {
			return key, nil, lied("part %d of its output has %d bytes, and with it there are more than the %d that it signed, or than a part may have", n, len(content), o.Size)
		}
		sum.Write(content)
		leaves, parts = append(leaves, carnet.FingerprintOf(sealed)), append(parts, sealed)
	}
	if seal.Root(leaves) != o.Sealed || carnet.Fingerprint(sum.Sum(nil)) != o.Fingerprint || size != o.Size {
		return key, nil, lied("its output has another fingerprint or size than it signed")
	}
	return key, parts, nil
}

// outputKey opens the bag that gives an output's key.
func (a *Agent) outputKey(j *Job, p *Peer, bag []byte) (seal.Key, error) {
	b, err := a.cfg.World.OpenBag(bag, seal.Expected{Granter: p.OwnName, Signer: p.Key, Reader: a.cfg.Party})
	switch code := carnet.CodeOf(err); {
	case code == carnet.Tampered || code == carnet.Malformed || code == carnet.Forbidden:
		return seal.Key{}, lied("its key bag doesn't open: %v", err)
	case err != nil:
		return seal.Key{}, err
	case carnet.JobID(b.Grant) != j.ID || len(b.Entries) != 1 || b.Entries[0].Key.Level != seal.SlotLevel:
		return seal.Key{}, lied("its key bag is of something else")
	}
	return b.Entries[0].Key, nil
}

// openPart opens a sealed part of an output.
func openPart(key seal.Key, j *Job, n int, sealed []byte) ([]byte, error) {
	body, err := seal.OpenWith(key, nil, sealed)
	if err != nil {
		return nil, err
	}
	b, err := seal.ParseBody(body)
	if err != nil {
		return nil, err
	}
	if b.First != uint64(n) || b.Count != 1 || b.Label != j.Label.Label() {
		return nil, carnet.Errorf(carnet.Tampered, "it is another part, or has another label than the order's")
	}
	return b.Content, nil
}

// Output returns what came out of a job.
func (a *Agent) Output(ctx context.Context, id carnet.JobID) ([]byte, error) {
	h, err := a.find(id)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if j.Output == nil {
		if j.Stand.State != Ended {
			return nil, carnet.Errorf(carnet.Conflict, "the job is %s: it has no output yet", j.Stand.State).WithFix("wait for it: carnet job watch %s", id)
		}
		return nil, carnet.Errorf(carnet.NotFound, "the job has no output: it is %s: %s", j.Stand.Outcome, j.Stand.Why)
	}
	if err := a.readable(&j); err != nil {
		return nil, err
	}
	at, err := seal.ParsePath(j.Path)
	if err != nil {
		return nil, err
	}
	secret, err := a.cfg.Keys.Get(ctx, keyID(id))
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	if len(secret) != 32 {
		return nil, carnet.Errorf(carnet.Tampered, "the key of an output has %d bytes", len(secret))
	}
	key := seal.Key{Path: at, Secret: [32]byte(secret)}
	object, err := a.sealed(ctx, &j)
	if err != nil {
		return nil, err
	}
	var out []byte
	n := 0
	err = dpm.EachBatch(object, func(sealed []byte) error {
		content, err := openPart(key, &j, n, sealed)
		n++
		out = append(out, content...)
		return err
	})
	if err == nil && carnet.FingerprintOf(out) != j.Output.Fingerprint {
		err = carnet.Errorf(carnet.Tampered, "the output isn't what it was")
	}
	return out, err
}

// readable refuses who wants to read what was computed of avatars that aren't here.
func (a *Agent) readable(j *Job) error {
	for _, v := range j.Avatars { // none at a things agent
		if err := a.cfg.World.Readable(v); carnet.CodeOf(err) == carnet.NotFound {
			return carnet.Errorf(carnet.NotFound, "the avatar %s, of which this was computed, isn't here any more", v)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// sealed is a job's output as it is stored: each part with its length before it. What
// is lost or damaged here is fetched back from the depot.
func (a *Agent) sealed(ctx context.Context, j *Job) (object []byte, err error) {
	for n := range j.Output.Parts {
		d, err := a.records.Plain(ctx, kindPart, partID(j.ID, n))
		if err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return nil, err
		}
		object = binary.BigEndian.AppendUint32(object, uint32(len(d.Body)))
		object = append(object, d.Body...)
	}
	if j.Stored == (carnet.Fingerprint{}) || carnet.FingerprintOf(object) == j.Stored {
		return object, nil
	}
	return a.cfg.Depot.GetObject(ctx, j.Stored)
}

// noOutput deletes the parts of a job's output, those that are here: some may be lost, and
// others have been put back.
func (a *Agent) noOutput(ctx context.Context, j *Job) (all []carnet.Document, err error) {
	for n := range j.Output.Parts {
		d, err := a.records.Plain(ctx, kindPart, partID(j.ID, n))
		switch {
		case err == nil:
			all = append(all, carnet.Document{Kind: kindPart, ID: d.ID, Version: d.Version + 1})
		case carnet.CodeOf(err) != carnet.NotFound:
			return nil, err
		}
	}
	return all, nil
}

// destroy destroys a job's output: its key, what is here of it, and what is at the
// depot.
func (a *Agent) destroy(ctx context.Context, h *held) error {
	a.mu.Lock()
	stored, id := h.job.Stored, h.job.ID
	a.mu.Unlock()
	if err := a.cfg.Keys.Destroy(ctx, keyID(id)); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	if stored != (carnet.Fingerprint{}) {
		if err := a.cfg.Depot.DeleteObject(ctx, stored); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	switch {
	case j.Output == nil:
		return nil
	case j.Stored != stored:
		return carnet.Errorf(carnet.Unavailable, "the output was stored at the depot while it was destroyed")
	}
	parts, err := a.noOutput(ctx, &j)
	if err != nil {
		return err
	}
	j.Output, j.Path, j.Stored = nil, "", carnet.Fingerprint{}
	j.Stand.Why = "its output is destroyed: an avatar of it isn't here any more"
	if err := a.records.Keep(ctx, []carnet.Kept{{Kind: kindJob, ID: j.ID.String(), Version: h.version + 1, Body: j}}, nil, parts...); err != nil {
		return err
	}
	h.version++
	a.mu.Lock()
	defer a.mu.Unlock()
	h.job = j
	a.tell(h)
	return nil
}
