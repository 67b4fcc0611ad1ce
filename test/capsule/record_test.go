package capsule_test

import (
	"context"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/job"
	"carnet/ledger"
	"carnet/seal"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

// Record is the liar's word of what it stated. These offices have no ledger: one is made
// here, of what was stated.
func (l *liar) Record(ctx context.Context, id carnet.JobID) (string, error) {
	if l.tell.record == nil || l.honor.Load() {
		return l.DPM.Record(ctx, id)
	}
	if err := l.quiet("record"); err != nil {
		return "", err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", err
	}
	signer, err := ledger.NewSigner("vault.carnet.ledger", key)
	if err != nil {
		return "", err
	}
	r := capsule.Record{Job: id, Depot: "vault", Ledger: signer.Key().String()}
	var proofs []*identity.OnLedger
	for _, s := range l.o.told() {
		s.Who = l.o.name // as node has it
		text, err := s.Marshal()
		if err != nil {
			return "", err
		}
		salt := ledger.NewSalt()
		proof := identity.OnLedger{Statement: text, Salt: salt[:]}
		switch s.Kind {
		case ledger.JobAccepted:
			r.Order, r.Accepted = s.Object, proof
			proofs = append(proofs, &r.Accepted)
		case ledger.JobEnded:
			r.Ended = proof
			proofs = append(proofs, &r.Ended)
		}
	}
	if err := enter(signer, proofs); err != nil {
		return "", err
	}
	l.tell.record(&r)
	key = l.o.key
	if l.tell.recorder != nil {
		key = l.tell.recorder
	}
	return r.Sign(key)
}

// enter puts statements on a ledger that has nothing else, and gives them their receipts.
func enter(signer *ledger.Signer, all []*identity.OnLedger) error {
	var entries []carnet.Fingerprint
	for _, p := range all {
		entries = append(entries, carnet.Fingerprint(ledger.EntryOf(ledger.Salt(p.Salt), p.Statement)))
	}
	root := seal.Root(entries)
	text := log.Checkpoint{Origin: signer.Name(), Size: uint64(len(entries)), Hash: root[:]}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, signer)
	if err != nil {
		return err
	}
	signature, err := signer.SignRoot(root)
	for i, p := range all {
		r := ledger.Receipt{Index: uint64(i), Checkpoint: signed, Signature: signature}
		for _, step := range seal.Proof(entries, i) {
			r.Path = append(r.Path, step)
		}
		p.Receipt = r.Marshal()
	}
	return err
}

// told is what it has stated.
func (o *office) told() []ledger.Statement {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]ledger.Statement(nil), o.stated...)
}

// restated changes what a proof states.
func restated(t *testing.T, p *identity.OnLedger, change func(*ledger.Statement)) {
	s, err := ledger.ParseStatement(p.Statement)
	if err == nil {
		change(&s)
		p.Statement, err = s.Marshal()
	}
	if err != nil {
		t.Error(err)
	}
}

// What a DPM shows of its statements is kept if it is about this job and signed by it.
// What isn't is not, and the world keeps why; that changes nothing of the result.
func TestRecordsAreOfTheJob(t *testing.T) {
	for _, v := range []struct {
		name   string
		record func(*testing.T, *capsule.Record)
		signer ed25519.PrivateKey
		why    string // empty: it is kept
	}{
		{name: "as it is", record: func(*testing.T, *capsule.Record) {}},
		{name: "by another key", record: func(*testing.T, *capsule.Record) {}, signer: newKey(), why: "carnet-record-job+jwt"},
		{name: "of another job", record: func(_ *testing.T, r *capsule.Record) { r.Job = carnet.NewJobID() }, why: "something else"},
		{name: "of another order", record: func(_ *testing.T, r *capsule.Record) { r.Order[0]++ }, why: "something else"},
		{name: "that accepts another order", record: func(t *testing.T, r *capsule.Record) {
			restated(t, &r.Accepted, func(s *ledger.Statement) { s.Object[0]++ })
		}, why: "something else"},
		{name: "with another result", record: func(t *testing.T, r *capsule.Record) {
			restated(t, &r.Ended, func(s *ledger.Statement) { s.Object[0]++ })
		}, why: "something else"},
		{name: "by somebody else", record: func(t *testing.T, r *capsule.Record) {
			restated(t, &r.Accepted, func(s *ledger.Statement) { s.Who = "lab" })
		}, why: "something else"},
		{name: "of the same twice", record: func(_ *testing.T, r *capsule.Record) { r.Ended = r.Accepted }, why: "something else"},
		{name: "on no ledger", record: func(_ *testing.T, r *capsule.Record) { r.Ledger = "vault.example/ledger" }, why: "key"},
		{name: "at no depot", record: func(_ *testing.T, r *capsule.Record) { r.Depot = "V!" }, why: "party"},
		{name: "with a short salt", record: func(_ *testing.T, r *capsule.Record) { r.Ended.Salt = r.Ended.Salt[:31] }, why: "salt"},
		{name: "with another salt", record: func(_ *testing.T, r *capsule.Record) { r.Ended.Salt[0]++ }, why: "isn't proved"},
		{name: "with another's receipt", record: func(_ *testing.T, r *capsule.Record) { r.Ended.Receipt = r.Accepted.Receipt }, why: "isn't proved"},
		{name: "without a receipt", record: func(_ *testing.T, r *capsule.Record) { r.Accepted.Receipt = nil }, why: "isn't proved"},
		{name: "of no statement", record: func(_ *testing.T, r *capsule.Record) { r.Accepted.Statement = []byte{0} }, why: "something else"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4)
			l := &liar{o: forge}
			arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
			l.tell.record = func(r *capsule.Record) { v.record(t, r) }
			l.tell.recorder = v.signer
			id := arena.order(arena.spec("forge", "script", "count")).ID
			arena.done(id, arena.counts())
			j := arena.is(id, "a record, or why there is none", func(i job.Info) bool { return i.Record != "" || i.NoRecord != "" })
			if (v.why == "") != (j.Record != "") || !strings.Contains(j.NoRecord, v.why) {
				t.Errorf("it is kept: %t, and none because of %q; want %q", j.Record != "", j.NoRecord, v.why)
			}
			arena.done(id, arena.counts())
		})
	}
}

// A DPM whose receipts lack is asked again, and no longer than it remembers the job.
func TestRecordsAreAskedForAgain(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 4)
	l := &liar{o: forge, tell: lie{record: func(*capsule.Record) {}}}
	asked := make(chan struct{}, 100)
	lacks := true // guarded by forge.mu
	l.tell.silent = func(call string) bool {
		if call != "record" {
			return false
		}
		asked <- struct{}{}
		forge.mu.Lock()
		defer forge.mu.Unlock()
		return lacks
	}
	arena.ordersFrom(forge, func(d job.DPM) job.DPM { l.DPM = d; return l })
	twice := func() {
		for range 2 {
			select {
			case <-asked:
			case <-time.After(20 * time.Second):
				t.Fatal("it isn't asked again")
			}
		}
	}
	one := arena.order(arena.spec("forge", "script", "count")).ID
	arena.done(one, arena.counts())
	twice()
	if j := arena.ended(one); j.Record != "" || j.NoRecord != "" {
		t.Errorf("it has the record %q, and none because of %q, while a receipt lacks", j.Record, j.NoRecord)
	}
	forge.mu.Lock()
	lacks = false
	forge.mu.Unlock()
	arena.is(one, "a record", func(i job.Info) bool { return i.Record != "" })
	forge.mu.Lock()
	lacks = true
	forge.mu.Unlock()
	two := arena.order(arena.spec("forge", "script", "count")).ID
	arena.done(two, arena.counts())
	twice()
	c.move(25 * time.Hour)
	if j := arena.is(two, "no record", func(i job.Info) bool { return i.Record != "" || i.NoRecord != "" }); !strings.Contains(j.NoRecord, "nobody answers") {
		t.Errorf("it has the record %q, and none because of %q", j.Record, j.NoRecord)
	}
}
