package avatar

import (
	"bytes"
	"context"
	"maps"
	"time"

	"carnet"
	"carnet/seal"
)

// Proven is a stretch of an arriving avatar whose bytes were verified.
type Proven struct {
	MovedStretch
	row     StretchRow
	headers []seal.Header
	proof   carnet.Document
}

// ProveStretch verifies a stretch of an arriving avatar by its proof: the bytes by
// their fingerprint; that every batch is of the stream and in order; that it is in a
// frame that the sender signed, and that the stream's world stated to have received,
// on its ledger. What is inside of the batches isn't looked at, and nothing is stored;
// other stretches may be proved and taken at the same time.
func (a *Agent) ProveStretch(_ context.Context, id carnet.AvatarID, m MovedStretch, body, proof []byte) (p Proven, err error) {
	if err := m.check(); err != nil {
		return p, err
	}
	r, done, err := a.comes(id)
	if err != nil {
		return p, err
	}
	s := r.stream(m.Stream)
	if s == nil {
		err = carnet.Errorf(carnet.NotFound, "the arriving avatar has no stream %s", m.Stream)
		done()
		return p, err
	}
	stream, from := s.ID, s.Origin
	done()
	verified, err := r.verifier.Verify(&m, &from, body, proof)
	if err != nil {
		return p, err
	}
	p = Proven{m, StretchRow{
		Stream: stream, Class: m.Class, FirstBatch: m.First, LastBatch: m.Last, Batches: m.Batches, Measurements: m.Measurements,
		FromMinute: m.FromMinute, ToMinute: m.ToMinute, Received: m.Received, Fingerprint: m.Fingerprint, Body: body,
		Origins: verified.origins.append(nil),
	}, verified.Headers, carnet.Document{}}
	p.proof, err = a.proofDocument(stream, m.Fingerprint, proof)
	return p, err
}

// TakeStretches stores stretches of an arriving avatar that were proved, with their
// proofs: several in one commit. It is durable on return; one that is here already is left
// alone; one in whose place another is takes it.
func (a *Agent) TakeStretches(ctx context.Context, id carnet.AvatarID, all []Proven) error {
	for len(all) > 0 {
		n := distinct(all)
		if err := a.takeDistinct(ctx, id, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// distinct returns how many of the first stretches have a place of their own.
func distinct(all []Proven) (n int) {
	type place struct {
		stream carnet.StreamID
		first  uint64
	}
	taken := make(map[place]bool, len(all))
	for ; n < len(all); n++ {
		at := place{all[n].Stream, all[n].First}
		if taken[at] {
			break
		}
		taken[at] = true
	}
	return n
}

func (a *Agent) takeDistinct(ctx context.Context, id carnet.AvatarID, all []Proven) error {
	r, done, err := a.comes(id)
	if err != nil {
		return err
	}
	defer done()
	var rows []StretchRow
	var documents []carnet.Document
	changed := make(map[seal.Path]*coming)
	for i := range all {
		p := &all[i]
		if row, err := a.arrived(ctx, r, &p.MovedStretch); err != nil {
			return err
		} else if row != nil || p.over(a.now()) {
			continue
		}
		if err := a.replace(ctx, p.row.Stream, &p.MovedStretch); err != nil {
			return err
		}
		r.needs(r.stream(p.Stream), &p.row, p.headers, changed)
		rows, documents = append(rows, p.row), append(documents, p.proof)
	}
	if len(rows) == 0 {
		return nil
	}
	for at, c := range changed {
		d, err := a.document(kindComing, comingID(r.id, at), c.version, c.doc)
		if err != nil {
			return err
		}
		documents = append(documents, d)
	}
	if err := a.takeRows(ctx, rows, documents); err != nil {
		return err
	}
	maps.Copy(r.coming, changed)
	return nil
}

// TakeStretch proves and takes one stretch.
func (a *Agent) TakeStretch(ctx context.Context, id carnet.AvatarID, m MovedStretch, body, proof []byte) error {
	r, done, err := a.comes(id)
	if err != nil {
		return err
	}
	row, err := a.arrived(ctx, r, &m)
	done()
	if err != nil || row != nil || m.over(a.now()) {
		return err
	}
	p, err := a.ProveStretch(ctx, id, m, body, proof)
	if err != nil {
		return err
	}
	return a.TakeStretches(ctx, id, []Proven{p})
}

// takeRows stores stretches that have come.
func (a *Agent) takeRows(ctx context.Context, rows []StretchRow, documents []carnet.Document) error {
	for tries := 0; ; tries++ {
		c := Compaction{Stretches: rows, Documents: documents[:len(documents):len(documents)]}
		for i := range rows {
			// It went before, and comes again: the depot is to have it after all.
			doomed, err := a.store.Document(ctx, kindDoomed, rows[i].Fingerprint.String())
			if err == nil {
				c.Documents = append(c.Documents, carnet.Document{Kind: kindDoomed, ID: doomed.ID, Version: doomed.Version + 1})
			} else if carnet.CodeOf(err) != carnet.NotFound {
				return err
			}
		}
		// The depot may say meanwhile of one after the other that it is gone.
		if err := a.store.Compact(ctx, c); carnet.CodeOf(err) != carnet.Conflict || tries > len(rows) {
			return err
		}
	}
}

// keyOf is the key that opens a batch: its epoch's, or its slot's where a part of the
// stream was left out.
func (s *arrivingStream) keyOf(h seal.Header) seal.Path {
	if s.Slots {
		return slotOf(h)
	}
	return epochOf(h)
}

// needs notes among what changed which keys a stretch needs, and until when.
func (r *arrival) needs(s *arrivingStream, row *StretchRow, headers []seal.Header, changed map[seal.Path]*coming) {
	until := keptUntil(row)
	var last seal.Path
	for i, h := range headers {
		at := s.keyOf(h)
		if i > 0 && at == last {
			continue
		}
		last = at
		c := coming{doc: comingDocument{Slot: h.Slot, Number: h.Number, Salt: bytes.Clone(h.Salt[:]), Commitment: h.Commitment}}
		had := changed[at]
		if had == nil {
			had = r.coming[at]
		}
		if had != nil {
			if c = *had; c.doc.Keep || until != keptForEver && until <= c.doc.Until.UnixNano() {
				continue
			}
		}
		if c.doc.Keep = until == keptForEver; !c.doc.Keep {
			c.doc.Until = time.Unix(0, until).UTC()
		}
		if changed[at] == nil {
			c.version++
		}
		changed[at] = &c
	}
}
