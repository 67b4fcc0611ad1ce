package job

import (
	"context"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/capsule"
	"carnet/identity"
	"carnet/ledger"
)

// unrecorded reports whether a job's DPM is to be asked for what it has stated of it.
func unrecorded(j *Job) bool {
	return j.At != "" && j.Stand.Acceptance != "" && j.Stand.Result != "" && j.Record == "" && j.NoRecord == ""
}

// askRecord fetches what the DPM has stated of a job, and keeps it: nobody else has what
// proves it. It is asked for until a day after the job's time, as long as the DPM
// remembers the job.
func (a *Agent) askRecord(ctx context.Context, h *held, j *Job) error {
	p, err := a.cfg.Peer(j.At)
	if code := carnet.CodeOf(err); code == carnet.Forbidden || code == carnet.NotFound {
		return a.keepRecord(ctx, h, "", err.Error())
	}
	said := ""
	if err == nil {
		said, err = p.DPM.Record(ctx, j.ID)
	}
	late := !a.cfg.Now().Before(j.Until.Add(24 * time.Hour))
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil && (final(err) || late):
		return a.keepRecord(ctx, h, "", err.Error())
	case err != nil:
		return err
	}
	if err := recordOf(said, j, &p); err != nil {
		return a.keepRecord(ctx, h, "", err.Error())
	}
	return a.keepRecord(ctx, h, said, "")
}

// recordOf checks that a record is the DPM's of this job, and proves by the ledger that
// it names what it has to: who verifies evidence finds the same. Whether that ledger is
// one to trust is theirs to say.
func recordOf(said string, j *Job, p *Peer) error {
	r, err := capsule.OpenRecord(said, p.Key)
	if err != nil {
		return err
	}
	states := func(b []byte, kind ledger.Kind, object carnet.Fingerprint) bool {
		s, err := ledger.ParseStatement(b)
		return err == nil && s.Kind == kind && s.Who == p.OwnName && s.Object == object
	}
	named := capsule.Fingerprint(j.Order)
	if r.Job != j.ID || r.Order != named || !states(r.Accepted.Statement, ledger.JobAccepted, named) || !states(r.Ended.Statement, ledger.JobEnded, capsule.Fingerprint(j.Stand.Result)) {
		return carnet.Errorf(carnet.Tampered, "%s shows statements of something else", j.At)
	}
	if _, err := carnet.ParsePartyID(string(r.Depot)); err != nil {
		return err
	}
	key, err := ledger.ParseKey(r.Ledger)
	if err != nil {
		return err
	}
	v := ledger.NewVerifier(key)
	for _, p := range []*identity.OnLedger{&r.Accepted, &r.Ended} {
		if len(p.Salt) != len(ledger.Salt{}) {
			return carnet.Errorf(carnet.Malformed, "%s shows a statement with a salt of %d bytes", j.At, len(p.Salt))
		}
		receipt, err := ledger.ParseReceipt(p.Receipt)
		if err == nil {
			_, err = v.Verify(ledger.EntryOf(ledger.Salt(p.Salt), p.Statement), receipt)
		}
		if err != nil {
			return carnet.Errorf(carnet.Tampered, "%s shows a statement that isn't proved: %v", j.At, err)
		}
	}
	return nil
}

func (a *Agent) keepRecord(ctx context.Context, h *held, said, why string) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	a.mu.Lock()
	j := h.job
	a.mu.Unlock()
	if !unrecorded(&j) {
		return nil
	}
	j.Record, j.NoRecord = said, why
	return a.changed(ctx, h, j, nil)
}

// Proof is what there is to prove a job over what an avatar said.
type Proof struct {
	Job
	Inputs []InputOf // those made of the avatar's batches, as far as they can be made again
}

// InputOf says of which batches an input was made.
type InputOf struct {
	Place   int
	Stream  carnet.StreamID // as batches name it
	Batches [][2]uint64     // runs of numbers, both ends included
}

// Proofs lists the jobs over what an avatar said that have ended, oldest first.
func (a *Agent) Proofs(ctx context.Context, id carnet.AvatarID) (all []Proof, err error) {
	for _, i := range a.Jobs() {
		if i.Stand.State != Ended || !slices.Contains(i.Avatars, id) {
			continue
		}
		p := Proof{Job: i.Job}
		for place, pin := range i.Pins {
			if pin.Avatar != id {
				continue
			}
			in, err := a.batchesOf(ctx, &i.Job, place)
			if err != nil {
				return nil, err
			}
			if in != nil {
				p.Inputs = append(p.Inputs, *in)
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// batchesOf finds the batches of an input again; nil: they aren't here any more.
func (a *Agent) batchesOf(ctx context.Context, j *Job, place int) (*InputOf, error) {
	p, b, in := j.Pins[place], &building{}, &InputOf{Place: place}
	q := avatar.BatchQuery{From: j.Task.From, To: j.Task.To, Properties: j.Task.Properties, Onward: j.At != "", Stream: p.Stream, First: p.First, Last: p.Last}
	err := a.cfg.World.EachBatch(ctx, p.Avatar, q, func(_ carnet.StreamID, batch *avatar.Batch, ms []carnet.Measurement) error {
		b.add(batch, ms)
		in.Stream = batch.Header.Stream
		n := batch.Header.Number
		if last := len(in.Batches) - 1; last >= 0 && in.Batches[last][1]+1 == n {
			in.Batches[last][1] = n
		} else {
			in.Batches = append(in.Batches, [2]uint64{n, n})
		}
		return nil
	})
	if code := carnet.CodeOf(err); code == carnet.NotFound || code == carnet.TooOld {
		return nil, nil
	}
	if err != nil || carnet.FingerprintOf(b.data) != j.Task.Inputs[place].Fingerprint {
		return nil, err
	}
	return in, nil
}
