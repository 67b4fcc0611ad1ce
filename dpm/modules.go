package dpm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/ledger"
)

// Modules: a DPM runs no version that is revoked. A revocation by the module's
// publisher counts for every world's jobs, one by a world for its own. Which of the two
// it is shows when a job names the module: a revocation may come before it.

const kindRevocation = "revocation"

// mostRevocations is how many revocations are taken of one peer.
const mostRevocations = 4096

// revoker is who revoked a module: a did:key, or a peer for itself.
type revoker struct {
	module carnet.Fingerprint // of its record
	did    string
	peer   carnet.PartyID
}

// revocation is a word that counts.
type revocation struct {
	message, why string
}

// revocationDocument is stored sealed, as it is.
type revocationDocument struct {
	Revocation string         `json:"revocation"`
	From       carnet.PartyID `json:"from"`          // who told of it
	Own        bool           `json:"own,omitempty"` // and signed it, too
}

func (a *Agent) loadRevocations(ctx context.Context) error {
	for after := ""; ; {
		page, err := a.cfg.Store.DocumentPage(ctx, kindRevocation, after, 256)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, d := range page {
			after = d.ID
			plain, err := a.cfg.Sealer.Open(nil, []byte("revocation "+d.ID), d.Body)
			if err != nil {
				return err
			}
			var doc revocationDocument
			if err := json.Unmarshal(plain, &doc); err != nil {
				return err
			}
			r, err := capsule.OpenRevocation(doc.Revocation)
			if err != nil {
				return err
			}
			a.note(&r, &doc)
		}
	}
}

// note has a revocation count. The caller holds mu, or is alone.
func (a *Agent) note(r *capsule.Revocation, doc *revocationDocument) {
	word := revocation{doc.Revocation, r.Why}
	a.revoked[revoker{module: r.Module, did: r.By}] = word
	if doc.Own {
		a.revoked[revoker{module: r.Module, peer: doc.From}] = word
	}
}

// why says why a peer's jobs may not run a module; empty: they may. The caller holds mu.
func (a *Agent) why(peer carnet.PartyID, record carnet.Fingerprint, m *capsule.Module) string {
	for _, r := range []revoker{{module: record, did: m.By}, {module: record, peer: peer}} {
		if word, ok := a.revoked[r]; ok {
			return fmt.Sprintf("the module %s is revoked: %s", m.ID(), word.why)
		}
	}
	return ""
}

// revokedOf says why a job's module may not run any more; empty: it may, or there is none.
func (a *Agent) revokedOf(h *held) string {
	if h.module == nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.why(h.job.Peer, h.order.Module, h.module)
}

// moduleOf is the module that an order names, if it may run here; nil if it names none,
// and need not.
func (a *Agent) moduleOf(from carnet.PartyID, o *capsule.Order, record string) (*capsule.Module, error) {
	if o.Module == (carnet.Fingerprint{}) {
		switch {
		case record != "":
			return nil, carnet.Errorf(carnet.Malformed, "a module's record came, and the order names none")
		case slices.ContainsFunc(a.cfg.Engines, func(e capsule.EngineOffer) bool { return e.Name == o.Task.Engine && e.Signed }):
			return nil, carnet.Errorf(carnet.Forbidden, "the program is no signed module, and this DPM runs no others").
				WithFix("order a module, as carnet job run --module NAME@VERSION; or have the DPM's operator set unsigned_programs")
		}
		return nil, nil
	}
	if capsule.Fingerprint(record) != o.Module {
		return nil, carnet.Errorf(carnet.Tampered, "the order names the module's record %s, and another came with it", o.Module)
	}
	m, err := capsule.OpenModule(record)
	if err != nil {
		return nil, err
	}
	if err := m.Fits(o.Task.Engine, o.Task.Program); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if why := a.why(from, o.Module, &m); why != "" {
		return nil, carnet.Errorf(carnet.Forbidden, "%s", why).WithFix("order another version")
	}
	return &m, nil
}

// Revoke takes a revocation, whoever signed it: when it returns it is durable, and no
// job that it counts for is under way. The same again changes nothing.
func (a *Agent) Revoke(ctx context.Context, from carnet.PartyID, message string) error {
	peer, err := a.cfg.Peer(from)
	if err != nil {
		return err
	}
	r, err := capsule.OpenRevocation(message)
	if err != nil {
		return err
	}
	doc := revocationDocument{Revocation: message, From: from, Own: r.By == identity.DID(peer.Key)}
	if err := a.keepRevocation(ctx, &r, &doc); err != nil {
		return err
	}
	a.mu.Lock()
	var all []*held
	for _, h := range a.jobs {
		all = append(all, h)
	}
	a.mu.Unlock()
	for _, h := range all {
		if a.revokedOf(h) == "" {
			continue
		}
		if err := a.refuse(ctx, h); err != nil && carnet.CodeOf(err) != carnet.NotFound { // it isn't there any more
			return err
		}
	}
	return nil
}

// mostAsked is how many modules are asked about at once.
const mostAsked = 64

// Revoked returns the revocations of modules that count for a peer: their publishers', by
// whomever they came, and its own. Others' own words, and who told, it isn't shown.
// So modules are asked about by their records, which say who published them.
func (a *Agent) Revoked(from carnet.PartyID, records []string) ([]string, error) {
	switch {
	case len(records) == 0:
		return nil, carnet.Errorf(carnet.Malformed, "no module is asked about").WithFix("give the records of those that you have")
	case len(records) > mostAsked:
		return nil, carnet.Errorf(carnet.TooLarge, "%d modules are asked about at once, at most %d are answered", len(records), mostAsked)
	}
	publishers := make([]string, len(records))
	for i, record := range records {
		m, err := capsule.OpenModule(record)
		if err != nil {
			return nil, err
		}
		publishers[i] = m.By
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	words := []string{}
	for i, record := range records {
		module := capsule.Fingerprint(record)
		for _, r := range []revoker{{module: module, did: publishers[i]}, {module: module, peer: from}} {
			if word, ok := a.revoked[r]; ok && !slices.Contains(words, word.message) {
				words = append(words, word.message)
			}
		}
	}
	return words, nil
}

func (a *Agent) keepRevocation(ctx context.Context, r *capsule.Revocation, doc *revocationDocument) error {
	a.revoking.Lock()
	defer a.revoking.Unlock()
	id := string(doc.From) + "." + capsule.Fingerprint(doc.Revocation).String()
	if _, err := a.cfg.Store.Document(ctx, kindRevocation, id); carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	if n, err := a.revocationsOf(ctx, doc.From); err != nil {
		return err
	} else if n >= mostRevocations {
		return carnet.Errorf(carnet.TooLarge, "%s has told of %d revocations, and no more are taken", doc.From, n)
	}
	plain, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	body, err := a.cfg.Sealer.Seal(nil, []byte("revocation "+id), plain)
	if err != nil {
		return err
	}
	item, err := a.cfg.State(ledger.Statement{Kind: ledger.ModuleRevoked, Time: a.cfg.Now().UnixNano(), Peer: doc.From, Object: capsule.Fingerprint(doc.Revocation)})
	if err != nil {
		return err
	}
	if err := a.cfg.Store.Put(ctx, []carnet.Document{{Kind: kindRevocation, ID: id, Version: 1, Body: body}}, []ledger.Item{item}); err != nil {
		return err
	}
	a.cfg.Recorded()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note(r, doc)
	return nil
}

// revocationsOf counts what a peer has told of.
func (a *Agent) revocationsOf(ctx context.Context, peer carnet.PartyID) (n int, err error) {
	prefix := string(peer) + "."
	for after := prefix; ; {
		page, err := a.cfg.Store.DocumentPage(ctx, kindRevocation, after, 512)
		if err != nil || len(page) == 0 {
			return n, err
		}
		for _, d := range page {
			if len(d.ID) < len(prefix) || d.ID[:len(prefix)] != prefix {
				return n, nil
			}
			n, after = n+1, d.ID
		}
	}
}

// refuse ends a job whose module is revoked.
func (a *Agent) refuse(ctx context.Context, h *held) error {
	if err := a.change(ctx, h, Event{Kind: Refuse, Code: carnet.Forbidden, Why: a.revokedOf(h)}); err != nil {
		return err
	}
	return a.clear(ctx, h)
}
