package avatar

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"carnet"
	"carnet/seal"
)

// Redaction is what an owner ordered to leave out of a move: what is labelled above a
// clearance.
type Redaction struct {
	Clearance carnet.Clearance
	Order     carnet.Fingerprint
	Ordered   time.Time
	// Sign signs what this world left out of a stream (evidence.Redaction).
	Sign func(MovedStream, LeftOut) ([]byte, error)
}

// Leaver gives of an avatar what moves: an Agent all of it, and what Redacted returns
// what is left of it. The methods are those of an Agent.
type Leaver interface {
	MovedStreams(context.Context, carnet.AvatarID) ([]MovedStream, error)
	MovedStretches(ctx context.Context, id carnet.AvatarID, from Place, limit int) ([]MovedStretch, error)
	// StretchBytes returns a stretch's bytes, looked at and whole; StoredBytes as they
	// are in the store.
	StretchBytes(context.Context, carnet.AvatarID, MovedStretch) ([]byte, error)
	StoredBytes(context.Context, carnet.AvatarID, MovedStretch) ([]byte, error)
	ProofOf(context.Context, carnet.AvatarID, MovedStretch) ([]byte, error)
	Manifest(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID, vouch func(carnet.AvatarID, MovedStream) ([]byte, error)) (*Manifest, error)
	KeyBags(context.Context, *Manifest, KeyTerms) ([][]byte, error)
}

// Redacted gives of avatars what remains of them. Batches keep their bytes, frames and
// receipts; stretches are made of those that remain, and keys go by slots, so that none
// opens what is left out. Nothing is stored for it: done again it comes out the same.
func (a *Agent) Redacted(r Redaction) Leaver { return redacted{a, r} }

type redacted struct {
	agent *Agent
	r     Redaction
}

// LeftBehind is what of a label would be left out of a move.
type LeftBehind struct {
	Label        carnet.Label
	Properties   []string // in order
	Batches      uint64
	Measurements uint64
	Closed       uint64    // batches that can't be opened any more: not known what they hold
	From, To     time.Time // measured; zero where nothing is known of it
}

// WouldLeave counts what a redaction would leave out of an avatar, by label: the least
// sensitive first.
func (a *Agent) WouldLeave(ctx context.Context, id carnet.AvatarID, c carnet.Clearance) (all []LeftBehind, err error) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, err
	}
	sums := make(map[carnet.Label]*leftPart)
	for _, s := range a.moving(v) {
		err := a.eachChoice(ctx, s.id, c, func(is *choice) error {
			for kind, p := range is.left {
				sum := sums[kind.label]
				if sum == nil {
					sum = &leftPart{LeftRun: LeftRun{From: p.From}, names: make(map[string]struct{})}
					sums[kind.label] = sum
				}
				if len(p.names) > 0 {
					if len(sum.names) == 0 {
						sum.from, sum.to = p.from, p.to
					}
					sum.from, sum.to = min(sum.from, p.from), max(sum.to, p.to)
				}
				sum.join(&p.LeftRun)
				maps.Copy(sum.names, p.names)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	labels := slices.SortedFunc(maps.Keys(sums), func(p, q carnet.Label) int { return compareKinds(kindOfLeft{label: p}, kindOfLeft{label: q}) })
	for _, label := range labels {
		sum := sums[label]
		one := LeftBehind{Label: label, Properties: slices.Sorted(maps.Keys(sum.names)), Batches: sum.Batches, Measurements: sum.Measurements, Closed: sum.Closed}
		if len(sum.names) > 0 {
			one.From, one.To = time.Unix(0, sum.from).UTC(), time.Unix(0, sum.to).UTC()
		}
		all = append(all, one)
	}
	return all, nil
}

// eachChoice hands over what remains of each of a stream's stretches, by its id in the
// store. One whose retention ends meanwhile is passed over.
func (a *Agent) eachChoice(ctx context.Context, id carnet.StreamID, c carnet.Clearance, do func(*choice) error) error {
	for from := uint64(0); ; {
		rows, err := a.store.StretchPage(ctx, id, from, listAtOnce)
		if err != nil || len(rows) == 0 {
			return err
		}
		for i := range rows {
			is, err := a.choose(ctx, &rows[i], a.nameOf(id), c)
			if errors.Is(err, errMoved) {
				continue
			} else if err != nil {
				return err
			}
			if err := do(is); err != nil {
				return err
			}
		}
		from = rows[len(rows)-1].FirstBatch + 1
	}
}

func (l redacted) MovedStreams(ctx context.Context, id carnet.AvatarID) ([]MovedStream, error) {
	moved, err := l.agent.MovedStreams(ctx, id)
	for i := range moved {
		moved[i].Slots = true
	}
	return moved, err
}

func (l redacted) MovedStretches(ctx context.Context, id carnet.AvatarID, from Place, limit int) ([]MovedStretch, error) {
	streams, err := l.agent.movingFrom(id, from)
	if err != nil {
		return nil, err
	}
	if l.agent.half() {
		return nil, carnet.Errorf(carnet.Unavailable, "a compaction that ended in its midst is to be undone first")
	}
	listed := []MovedStretch{}
	for _, s := range streams {
		var kept []MovedStretch
		err := l.agent.eachChoice(ctx, s.id, l.r.Clearance, func(c *choice) error {
			if c.kept.Batches > 0 && c.kept.First >= from.Batch {
				kept = append(kept, c.kept)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		sortStretches(kept)
		if listed = append(listed, kept...); len(listed) >= limit {
			return listed[:limit], nil
		}
		from.Batch = 0
	}
	return listed, nil
}

func sortStretches(all []MovedStretch) {
	slices.SortFunc(all, func(p, q MovedStretch) int { return cmp.Compare(p.First, q.First) })
}

// chosen finds the stretch of which one that was listed is what remains.
func (l redacted) chosen(ctx context.Context, id carnet.AvatarID, m *MovedStretch) (row StretchRow, is *choice, err error) {
	s, err := l.agent.movingStream(id, m.Stream)
	if err != nil {
		return row, nil, err
	}
	for from := uint64(0); ; {
		rows, err := l.agent.store.StretchPage(ctx, s.id, from, listAtOnce)
		if err != nil {
			return row, nil, err
		}
		for i := range rows {
			if rows[i].FirstBatch > m.First || rows[i].LastBatch < m.Last || rows[i].Class != m.Class {
				continue
			}
			is, err := l.agent.choose(ctx, &rows[i], m.Stream, l.r.Clearance)
			if errors.Is(err, errMoved) {
				continue
			} else if err != nil {
				return row, nil, err
			}
			if is.kept == *m {
				return rows[i], is, nil
			}
		}
		if len(rows) == 0 || rows[len(rows)-1].FirstBatch >= m.First {
			return row, nil, carnet.Errorf(carnet.NotFound, "there is no stretch %s of stream %s", m.Fingerprint, m.Stream)
		}
		from = rows[len(rows)-1].FirstBatch + 1
	}
}

func (l redacted) StretchBytes(ctx context.Context, id carnet.AvatarID, m MovedStretch) ([]byte, error) {
	row, is, err := l.chosen(ctx, id, &m)
	if err != nil {
		return nil, err
	}
	body, err := l.agent.stretchBody(ctx, row)
	if errors.Is(err, errMoved) {
		return nil, carnet.Errorf(carnet.NotFound, "the retention of stretch %s has ended", m.Fingerprint)
	} else if err != nil {
		return nil, err
	}
	return is.remains(body), nil
}

// StoredBytes are as StretchBytes: what remains is made of what was looked at.
func (l redacted) StoredBytes(ctx context.Context, id carnet.AvatarID, m MovedStretch) ([]byte, error) {
	return l.StretchBytes(ctx, id, m)
}

func (l redacted) ProofOf(ctx context.Context, id carnet.AvatarID, m MovedStretch) ([]byte, error) {
	row, is, err := l.chosen(ctx, id, &m)
	if err != nil || is.keep == nil {
		if err == nil {
			return l.agent.proofOf(ctx, &row)
		}
		return nil, err
	}
	if l.agent.formerOf(row.Stream) == nil {
		or, err := parseOrigins(row.Origins)
		if err != nil {
			return nil, err
		}
		i := -1
		or.batches = slices.DeleteFunc(or.batches, func(origin) bool { i++; return !is.keep[i] })
		row.Origins = or.append(nil)
		return l.agent.proofOf(ctx, &row)
	}
	proof, err := l.agent.proofOf(ctx, &row)
	if err != nil {
		return nil, err
	}
	p, err := parseProof(proof)
	if err != nil {
		return nil, err
	}
	body, err := l.agent.stretchBody(ctx, row)
	if errors.Is(err, errMoved) {
		return nil, carnet.Errorf(carnet.NotFound, "the retention of stretch %s has ended", m.Fingerprint)
	} else if err != nil {
		return nil, err
	}
	var prints []carnet.Fingerprint
	if err := eachBatch(body, func(_, from, to int) error {
		prints = append(prints, carnet.FingerprintOf(body[from:to]))
		return nil
	}); err != nil {
		return nil, err
	}
	return p.reduced(prints, is.keep)
}

func (l redacted) Manifest(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID, vouch func(carnet.AvatarID, MovedStream) ([]byte, error)) (*Manifest, error) {
	return l.agent.frozenManifest(ctx, id, x, vouch, &l.r)
}

func (l redacted) KeyBags(ctx context.Context, m *Manifest, t KeyTerms) ([][]byte, error) {
	ceilings, err := l.agent.slotCeilings(ctx, m, l.r.Clearance)
	if err != nil {
		return nil, err
	}
	return l.agent.keyBags(ctx, m, t, ceilings)
}

// leaveOut takes out of a manifest what a redaction leaves behind, says what that is, and
// lists the slots whose keys the rest needs. Streams are named as the store has them.
func (a *Agent) leaveOut(ctx context.Context, m *Manifest, streams []*stream, r *Redaction) error {
	var remain []MovedStretch
	for i, s := range streams {
		moved := &m.Streams[i]
		left := make(map[kindOfLeft]*LeftRun)
		kept, cut := make(map[seal.Path]carnet.Label), make(map[seal.Path]struct{})
		var listed []MovedStretch
		err := a.eachChoice(ctx, s.id, r.Clearance, func(c *choice) error {
			if c.first >= moved.NextBatch {
				return nil
			}
			for kind, p := range c.left {
				if run := left[kind]; run != nil {
					run.join(&p.LeftRun)
				} else {
					run := p.LeftRun
					left[kind] = &run
				}
			}
			maps.Copy(cut, c.cut)
			for at, label := range c.slots {
				kept[at] = kept[at].Join(label)
			}
			if c.kept.Batches > 0 {
				listed = append(listed, c.kept)
			}
			return nil
		})
		if err != nil {
			return err
		}
		sortStretches(listed)
		remain = append(remain, listed...)
		for at := range cut {
			if _, both := kept[at]; both {
				return carnet.Errorf(carnet.Forbidden, "slot %d of epoch %s of stream %s holds batches of two labels, so that its key would open what is to be left behind", at.Slot, at.Epoch, at.Stream).
					WithFix("its sender broke the rule that a slot has one label: move the avatar to a world that is cleared for all of it")
			}
		}
		moved.Slots = true
		named := *moved
		named.Stream = a.nameOf(s.id)
		if err := a.slotKeys(ctx, m, named.Stream, kept); err != nil {
			return err
		}
		if len(left) == 0 {
			continue
		}
		out := LeftOut{Crossing: m.Crossing, World: a.party, Order: r.Order, Ordered: r.Ordered}
		for _, kind := range slices.SortedFunc(maps.Keys(left), compareKinds) {
			out.Runs = append(out.Runs, *left[kind])
		}
		if out.Word, err = r.Sign(named, out); err != nil {
			return err
		}
		moved.Left = append(slices.Clip(moved.Left), out)
	}
	m.Stretches = append([]MovedStretch{}, remain...)
	return nil
}

// slotKeys lists the slots of a stream whose keys what remains of it needs.
func (a *Agent) slotKeys(ctx context.Context, m *Manifest, name carnet.StreamID, slots map[seal.Path]carnet.Label) error {
	under := make(map[seal.Path]epochDocument)
	err := a.eachEpoch(ctx, name, func(k keyDocument) error {
		under[k.id] = k.doc
		return nil
	})
	if err != nil {
		return err
	}
	paths := slices.SortedFunc(maps.Keys(slots), func(p, q seal.Path) int {
		return cmp.Or(bytes.Compare(p.Epoch[:], q.Epoch[:]), cmp.Compare(p.Slot, q.Slot))
	})
	for _, at := range paths {
		epoch := at
		epoch.Level, epoch.Slot = seal.EpochLevel, 0
		doc, known := under[epoch]
		if !known {
			doc, known = under[at]
		}
		if known {
			m.Keys = append(m.Keys, MovedKey{Stream: at.Stream, Epoch: at.Epoch, Slot: &at.Slot, NotAfter: doc.NotAfter, Ended: doc.Ended})
		}
	}
	return nil
}

// slotCeilings says what the batches stay within that remain under each slot of the
// streams of a manifest.
func (a *Agent) slotCeilings(ctx context.Context, m *Manifest, c carnet.Clearance) (map[seal.Path]carnet.Label, error) {
	v, err := a.leaves(m.Avatar)
	if err != nil {
		return nil, err
	}
	ceilings := make(map[seal.Path]carnet.Label)
	for _, s := range a.moving(v) {
		i := slices.IndexFunc(m.Streams, func(o MovedStream) bool { return o.Stream == a.nameOf(s.id) })
		err := a.eachChoice(ctx, s.id, c, func(is *choice) error {
			if i < 0 || is.first >= m.Streams[i].NextBatch {
				return nil
			}
			for at, label := range is.slots {
				ceilings[at] = ceilings[at].Join(label)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return ceilings, nil
}
