package avatar

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/seal"
)

// Manifest says exactly what moves of an avatar that keeps still for a crossing:
// what was folded until now, all of it in stretches on return, the state as it was
// then, and the epochs whose keys the target needs. vouch signs what this world
// says of a stream that it received itself.
func (a *Agent) Manifest(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID, vouch func(carnet.AvatarID, MovedStream) ([]byte, error)) (*Manifest, error) {
	return a.frozenManifest(ctx, id, x, vouch, nil)
}

func (a *Agent) frozenManifest(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID, vouch func(carnet.AvatarID, MovedStream) ([]byte, error), r *Redaction) (*Manifest, error) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, err
	}
	if had, frozen := a.frozenFor(v); !frozen || had != x {
		return nil, carnet.Errorf(carnet.Conflict, "the avatar doesn't keep still for crossing %s", x)
	}
	return a.manifest(ctx, v, x, vouch, r)
}

// PassportManifest is Manifest for a passport, of an avatar that goes on living: what
// was folded until now, and nothing that came since.
func (a *Agent) PassportManifest(ctx context.Context, id carnet.AvatarID, passport carnet.CrossingID, vouch func(carnet.AvatarID, MovedStream) ([]byte, error)) (*Manifest, error) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, err
	}
	return a.manifest(ctx, v, passport, vouch, nil)
}

// manifest says what moves of an avatar, but for what a redaction leaves out; nil: none.
func (a *Agent) manifest(ctx context.Context, v *Avatar, x carnet.CrossingID, vouch func(carnet.AvatarID, MovedStream) ([]byte, error), r *Redaction) (*Manifest, error) {
	id := v.id
	if err := a.settled(ctx); err != nil {
		return nil, err
	}
	m := &Manifest{Version: 1, Crossing: x, Avatar: id, Title: v.title, Created: time.Unix(0, v.created).UTC(), Stretches: []MovedStretch{}, Keys: []MovedKey{}, State: []MovedValue{}}
	streams := a.moving(v)
	state, err := a.packed(ctx, v, streams, m)
	if err != nil {
		return nil, err
	}
	if r != nil {
		if err := a.leaveOut(ctx, m, streams, r); err != nil {
			return nil, err
		}
		state = a.within(state, r.Clearance)
	}
	if err := a.describe(ctx, v, m.Streams); err != nil {
		return nil, err
	}
	for i := range m.Streams {
		s := &m.Streams[i]
		if s.Crossing = x; len(s.Passage) == 0 {
			if s.Passage, err = vouch(id, *s); err != nil {
				return nil, err
			}
		}
	}
	if r == nil {
		if err := a.movedKeys(ctx, m, streams); err != nil {
			return nil, err
		}
	}
	if err := a.movedState(ctx, streams, state, m); err != nil {
		return nil, err
	}
	return m, m.check()
}

// packed takes an avatar's streams and state as they are, moves all that they hold
// into stretches, and lists these.
func (a *Agent) packed(ctx context.Context, v *Avatar, streams []*stream, m *Manifest) (state []latest, err error) {
	a.hurry.Add(1)
	defer a.hurry.Add(-1)
	a.moveMu.Lock()
	defer a.moveMu.Unlock()
	a.foldMu.Lock()
	m.Streams = headsOf(streams)
	v.mu.Lock()
	state = slices.Clone(v.latest)
	v.mu.Unlock()
	a.mu.RLock()
	upTo := a.folded
	a.mu.RUnlock()
	a.foldMu.Unlock()
	if err := a.compactHeld(ctx, 1, upTo, nil); err != nil {
		return nil, err
	}
	a.mu.RLock()
	for _, s := range streams {
		if slices.ContainsFunc(s.waiting(), func(ref batchRef) bool { return ref.frame <= upTo }) {
			err = carnet.Errorf(carnet.Tampered, "a frame with batches of the avatar is damaged, and is nowhere else").WithFix("put a sound copy of its row back, and start the world again")
		}
	}
	a.mu.RUnlock()
	for i, s := range streams {
		for from := uint64(0); err == nil; {
			var rows []StretchRow
			if rows, err = a.store.StretchPage(ctx, s.id, from, listAtOnce); len(rows) == 0 {
				break
			}
			for j := range rows {
				if rows[j].FirstBatch >= m.Streams[i].NextBatch {
					continue
				}
				listed, failed := movedStretch(&rows[j], a.nameOf(s.id))
				m.Stretches, err = append(m.Stretches, listed), errors.Join(err, failed)
			}
			from = rows[len(rows)-1].FirstBatch + 1
		}
	}
	return state, err
}

// listAtOnce is how many stretches are listed at once.
const listAtOnce = 1024

// movedKeys lists the epochs that batches of the manifest's streams are under; of those
// that were redacted, the slots. Where something else here has a stream's name, what it
// has keys of isn't the avatar's: those are listed that its stretches need.
func (a *Agent) movedKeys(ctx context.Context, m *Manifest, streams []*stream) error {
	for i := range m.Streams {
		level := seal.EpochLevel
		if m.Streams[i].Slots {
			level = seal.SlotLevel
		}
		var under map[seal.Path]bool // nil: all are its own
		var err error
		if a.isNamed(m.Streams[i].Stream, streams[i]) {
			if under, err = a.keysUnder(ctx, streams[i], m.Streams[i].NextBatch, level); err != nil {
				return err
			}
		}
		err = a.eachEpoch(ctx, m.Streams[i].Stream, func(k keyDocument) error {
			if k.id.Level == level && (k.doc.Keep || !k.doc.Until.IsZero()) && (under == nil || under[k.id]) {
				moved := MovedKey{Stream: k.id.Stream, Epoch: k.id.Epoch, NotAfter: k.doc.NotAfter, Ended: k.doc.Ended}
				if level == seal.SlotLevel {
					moved.Slot = &k.id.Slot
				}
				m.Keys = append(m.Keys, moved)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isNamed reports whether another stream than this one has a name here.
func (a *Agent) isNamed(name carnet.StreamID, but *stream) bool {
	if s := a.stream(name); s != nil && s != but && !s.gone {
		return true
	}
	return slices.ContainsFunc(a.formerly(name), func(s *stream) bool { return s != but && !s.gone })
}

// keysUnder are the keys of a level that batches of a stream's stretches are under, up to
// a number.
func (a *Agent) keysUnder(ctx context.Context, s *stream, end uint64, level seal.Level) (map[seal.Path]bool, error) {
	of, under := epochOf, make(map[seal.Path]bool)
	if level == seal.SlotLevel {
		of = slotOf
	}
	for from := uint64(0); ; {
		rows, err := a.store.StretchPage(ctx, s.id, from, listAtOnce)
		if err != nil || len(rows) == 0 {
			return under, err
		}
		for i := range rows {
			if rows[i].FirstBatch >= end {
				continue
			}
			body, err := a.stretchBody(ctx, rows[i])
			if errors.Is(err, errMoved) {
				continue // its retention has ended
			} else if err != nil {
				return nil, err
			}
			if err := eachBatch(body, func(_, at, to int) error {
				h, _, err := seal.ParseHeader(body[at:to])
				under[of(h)] = true
				return err
			}); err != nil {
				return nil, err
			}
		}
		from = rows[len(rows)-1].FirstBatch + 1
	}
}

// eachEpoch hands over the documents of a stream's keys, in order of their paths.
func (a *Agent) eachEpoch(ctx context.Context, name carnet.StreamID, do func(keyDocument) error) error {
	prefix := name.String() + "/"
	for after := prefix; ; {
		page, err := a.store.DocumentPage(ctx, kindEpoch, after, documentPage)
		if err != nil {
			return err
		}
		for _, d := range page {
			if !strings.HasPrefix(d.ID, prefix) {
				return nil
			}
			k := keyDocument{version: d.Version}
			if k.id, err = seal.ParsePath(d.ID); err != nil {
				return err
			}
			if err := a.openDocument(d, &k.doc); err != nil {
				return err
			}
			if err := do(k); err != nil {
				return err
			}
			after = d.ID
		}
		if len(page) < documentPage {
			return nil
		}
	}
}

// within returns the values that are labelled within a clearance.
func (a *Agent) within(state []latest, c carnet.Clearance) []latest {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.DeleteFunc(state, func(l latest) bool { return a.classes.all[l.class].Label.Exceeds(c) != "" })
}

// movedState names, for each value of a state, the batch that it is in. One that
// can't be found doesn't move; its measurements do.
func (a *Agent) movedState(ctx context.Context, streams []*stream, state []latest, m *Manifest) error {
	o := newOpening()
	now := a.now().UnixNano()
	for i, s := range streams {
		var wanted []latest
		for _, l := range state {
			if l.place == s.place && !l.over(now) {
				wanted = append(wanted, l)
			}
		}
		slices.SortFunc(wanted, func(p, q latest) int { return cmp.Compare(q.time, p.time) })
		for len(wanted) > 0 {
			minute := minuteOf(wanted[0].time)
			rows, err := a.store.Stretches(ctx, s.id, minute, minute)
			if err != nil {
				return err
			}
			for j := len(rows) - 1; j >= 0 && len(wanted) > 0 && minuteOf(wanted[0].time) == minute; j-- {
				if wanted, err = a.findValues(ctx, &o, &rows[j], &m.Streams[i], wanted, m); err != nil {
					return err
				}
			}
			for len(wanted) > 0 && minuteOf(wanted[0].time) == minute {
				a.log.Warn("a value of a state is in no batch that is kept, and doesn't move", "avatar", m.Avatar)
				wanted = wanted[1:]
			}
		}
	}
	slices.SortFunc(m.State, func(p, q MovedValue) int { return cmp.Compare(p.Name, q.Name) })
	return nil
}

// findValues looks for values in a stretch, and returns those that it didn't find.
func (a *Agent) findValues(ctx context.Context, o *opening, row *StretchRow, s *MovedStream, wanted []latest, m *Manifest) ([]latest, error) {
	body, err := a.stretchBody(ctx, *row)
	if errors.Is(err, errMoved) {
		return wanted, nil
	} else if err != nil {
		return nil, err
	}
	found := make(map[string]MovedValue)
	err = eachBatch(body, func(_, from, to int) error {
		h, _, err := seal.ParseHeader(body[from:to])
		if err != nil || h.Number >= s.NextBatch || !slices.ContainsFunc(wanted, func(l latest) bool { return l.epoch == h.Epoch && l.slot == h.Slot }) {
			return err
		}
		if _, _, err := a.open(ctx, o, body[from:to], 0); carnet.CodeOf(err) == carnet.NotFound || carnet.CodeOf(err) == carnet.TooOld {
			return nil
		} else if err != nil {
			return err
		}
		for i := range o.measurements {
			v := &o.measurements[i]
			if had, ok := found[v.Name]; !ok || v.Time >= had.Time {
				found[v.Name] = MovedValue{v.Name, s.Stream, h.Number, v.Time}
			}
		}
		return nil
	})
	return slices.DeleteFunc(wanted, func(l latest) bool {
		v, ok := found[l.property.Value().name]
		if ok = ok && v.Time == l.time; ok {
			m.State = append(m.State, v)
		}
		return ok
	}), err
}

// newest returns the last measurement of a name with the greatest time.
func newest(ms []carnet.Measurement, name string) (found carnet.Measurement, ok bool) {
	for i := range ms {
		if m := &ms[i]; m.Name == name && (!ok || m.Time >= found.Time) {
			found, ok = *m, true
		}
	}
	return found, ok
}
