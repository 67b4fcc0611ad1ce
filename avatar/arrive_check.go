package avatar

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unique"

	"carnet"
	"carnet/policy"
	"carnet/seal"
)

// Check holds what has come of an arriving avatar against a manifest: every stretch
// that it names is here, unless its retention has ended, and no other (one that has
// ended at the source meanwhile is deleted); numbers follow one another and none
// comes twice; every epoch's key is here; and the state's values are in the batches
// that it names. The error says what isn't so.
func (a *Agent) Check(ctx context.Context, id carnet.AvatarID, m *Manifest) error {
	r, done, err := a.comes(id)
	if err != nil {
		return err
	}
	defer done()
	_, err = a.checkArrival(ctx, r, m)
	return err
}

// checkArrival is Check; it returns the state.
func (a *Agent) checkArrival(ctx context.Context, r *arrival, m *Manifest) ([]latest, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if want := r.doc.names(); m.Crossing != want {
		return nil, carnet.Errorf(carnet.Conflict, "the manifest is of crossing %s, and the avatar comes by %s", m.Crossing, want)
	}
	rest := m.Stretches
	rows := make(map[carnet.StreamID][]StretchRow) // by their streams' names
	for i := range m.Streams {
		s := &m.Streams[i]
		had := r.stream(s.Stream)
		if had == nil || !had.Origin.same(&s.Origin) {
			return nil, carnet.Errorf(carnet.Conflict, "the manifest has another stream %s than the one that came", s.Stream)
		}
		if a.vouched == nil {
			return nil, carnet.Errorf(carnet.Unavailable, "this world can't read what %s says of its streams", s.Origin.World)
		}
		s.Crossing = m.Crossing
		if err := a.vouched(*s); err != nil {
			return nil, err
		}
		n := 0
		for n < len(rest) && rest[n].Stream == s.Stream {
			n++
		}
		here, err := a.checkStretches(ctx, had, rest[:n])
		if err != nil {
			return nil, err
		}
		if err := checkNumbers(here); err != nil {
			return nil, err
		}
		if err := s.checkGaps(here, s.ended(rest[:n], a.now())); err != nil {
			return nil, err
		}
		rows[s.Stream], rest = here, rest[n:]
	}
	if err := a.checkKeys(ctx, r, m, rows); err != nil {
		return nil, err
	}
	return a.arrivedState(ctx, r, m, rows)
}

// checkStretches compares the stretches of a stream that are here with those that a
// manifest lists, and returns them.
func (a *Agent) checkStretches(ctx context.Context, s *arrivingStream, listed []MovedStretch) (here []StretchRow, err error) {
	now := a.now()
	for from := uint64(0); ; {
		rows, err := a.store.StretchPage(ctx, s.ID, from, listAtOnce)
		if err != nil {
			return nil, err
		}
		var surplus []StretchRow
		for i := range rows {
			row := &rows[i]
			for len(listed) > 0 && listed[0].First < row.FirstBatch && listed[0].over(now) {
				listed = listed[1:]
			}
			is, err := movedStretch(row, s.Name)
			if err != nil {
				return nil, err
			}
			switch {
			case len(listed) > 0 && listed[0] == is:
				here, listed = append(here, *row), listed[1:]
			default:
				surplus = append(surplus, *row)
			}
		}
		if len(surplus) > 0 {
			if err := a.drop(ctx, surplus, "it is not in the manifest of its move", carnet.ErasureID{}, nil); err != nil {
				return nil, err
			}
		}
		if len(rows) < listAtOnce {
			break
		}
		from = rows[len(rows)-1].FirstBatch + 1
	}
	for i := range listed {
		if !listed[i].over(now) {
			return nil, carnet.Errorf(carnet.NotFound, "stretch %s of stream %s isn't here", listed[i].Fingerprint, s.Name)
		}
	}
	return here, nil
}

// checkNumbers refuses a batch number that is in two stretches. Few of these
// overlap: those of one class follow one another.
func checkNumbers(rows []StretchRow) error {
	for len(rows) > 0 {
		n, last := 1, rows[0].LastBatch
		for ; n < len(rows) && rows[n].FirstBatch <= last; n++ {
			last = max(last, rows[n].LastBatch)
		}
		var numbers []uint64
		for i := range rows[:n] {
			if n == 1 {
				break
			}
			or, err := parseOrigins(rows[i].Origins)
			if err != nil {
				return err
			}
			for _, o := range or.batches {
				numbers = append(numbers, o.number)
			}
		}
		slices.Sort(numbers)
		for i := 1; i < len(numbers); i++ {
			if numbers[i] == numbers[i-1] {
				return carnet.Errorf(carnet.Tampered, "batch %d comes twice", numbers[i])
			}
		}
		rows = rows[n:]
	}
	return nil
}

// checkKeys refuses a manifest without a key for an epoch that has come; one that
// the manifest says is destroyed isn't needed.
func (a *Agent) checkKeys(ctx context.Context, r *arrival, m *Manifest, rows map[carnet.StreamID][]StretchRow) error {
	named := make(map[seal.Path]*MovedKey, len(m.Keys))
	for i := range m.Keys {
		named[m.Keys[i].path()] = &m.Keys[i]
	}
	now := a.now()
	for at, c := range r.coming {
		if k := named[at]; k != nil && (!k.Ended.IsZero() || !now.Before(k.NotAfter)) {
			continue
		}
		if len(rows[at.Stream]) == 0 || !c.doc.Keep && !now.Before(c.doc.Until) {
			continue // nothing is left under it
		}
		secret, err := a.keys.Get(ctx, arrivingKey(r.id, at))
		if carnet.CodeOf(err) == carnet.NotFound {
			if under, err := a.anyUnder(ctx, rows[at.Stream], at); err != nil {
				return err
			} else if !under {
				continue // it came after the manifest was fixed, with what isn't in it
			}
			return carnet.Errorf(carnet.NotFound, "the key of %s hasn't come", at)
		} else if err != nil {
			return err
		}
		ok := len(secret) == 32 && seal.Key{Path: at, Secret: [32]byte(secret)}.Commits(c.header(at))
		if clear(secret); !ok {
			return carnet.Errorf(carnet.Tampered, "the key of %s doesn't open batch %d, which is under it", at, c.doc.Number)
		}
	}
	return nil
}

// anyUnder reports whether a batch of stretches is under an epoch.
func (a *Agent) anyUnder(ctx context.Context, rows []StretchRow, at seal.Path) (under bool, err error) {
	for i := range rows {
		body, err := a.stretchBody(ctx, rows[i])
		if errors.Is(err, errMoved) {
			continue // its retention has ended
		} else if err != nil {
			return false, err
		}
		err = eachBatch(body, func(_, from, to int) error {
			h, _, err := seal.ParseHeader(body[from:to])
			under = under || err == nil && at.Covers(h)
			return err
		})
		if err != nil || under {
			return under, err
		}
	}
	return false, nil
}

// arrivedState makes the state of the values that a manifest names, of the batches
// that these are in.
func (a *Agent) arrivedState(ctx context.Context, r *arrival, m *Manifest, rows map[carnet.StreamID][]StretchRow) (state []latest, err error) {
	place := make(map[carnet.StreamID]uint16)
	for i := range m.Streams {
		place[m.Streams[i].Stream] = uint16(i)
	}
	o := newOpening()
	now := a.now().UnixNano()
	bodies := make(map[uint64][]byte, 1) // the last, by its row's id
	for i := range m.State {
		v := &m.State[i]
		row, batch, err := a.batchOf(ctx, rows[v.Stream], v.Batch, bodies)
		if err != nil {
			return nil, err
		}
		if batch == nil {
			continue // its retention has ended
		}
		h, b, err := a.openArriving(ctx, &o, r, batch)
		if err != nil {
			return nil, err
		}
		found, ok := newest(o.measurements, v.Name)
		if !ok || found.Time != v.Time {
			return nil, carnet.Errorf(carnet.Tampered, "the newest %.80q of the state is not in batch %d of stream %s", v.Name, v.Batch, v.Stream)
		}
		l := latest{
			property: unique.Make(property{found.Name, found.Unit}), time: found.Time, kind: found.Value.Kind, num: found.Value.Num, str: strings.Clone(found.Value.Str),
			class: a.classOf(policy.Class{Label: b.Label, Retention: b.Retention}), ends: valueEnds(b.Retention, row.Received),
			epoch: h.Epoch, slot: h.Slot, place: place[v.Stream],
		}
		if !l.over(now) {
			state = append(state, l)
		}
	}
	return state, nil
}

// batchOf finds a batch by its number; nil: it isn't here any more.
func (a *Agent) batchOf(ctx context.Context, rows []StretchRow, number uint64, bodies map[uint64][]byte) (*StretchRow, []byte, error) {
	for i := range rows {
		row := &rows[i]
		if number < row.FirstBatch || number > row.LastBatch {
			continue
		}
		or, err := parseOrigins(row.Origins)
		if err != nil {
			return nil, nil, err
		}
		at := slices.IndexFunc(or.batches, func(o origin) bool { return o.number == number })
		if at < 0 {
			continue
		}
		body := bodies[row.ID]
		if body == nil {
			if body, err = a.stretchBody(ctx, *row); errors.Is(err, errMoved) {
				return nil, nil, nil
			} else if err != nil {
				return nil, nil, err
			}
			clear(bodies)
			bodies[row.ID] = body
		}
		var batch []byte
		err = eachBatch(body, func(leaf, from, to int) error {
			if leaf == at {
				batch = body[from:to]
			}
			return nil
		})
		return row, batch, err
	}
	return nil, nil, nil
}

// openArriving opens a batch with a key of an arriving avatar.
func (a *Agent) openArriving(ctx context.Context, o *opening, r *arrival, batch []byte) (h seal.Header, b seal.Body, err error) {
	if h, _, err = seal.ParseHeader(batch); err != nil {
		return h, b, err
	}
	at := r.stream(h.Stream).keyOf(h)
	secret, err := a.keys.Get(ctx, arrivingKey(r.id, at))
	if err != nil {
		return h, b, err
	}
	defer clear(secret)
	if len(secret) != 32 {
		return h, b, carnet.Errorf(carnet.Tampered, "the key of %s has %d bytes", at, len(secret))
	}
	if o.body, err = seal.OpenWith(seal.Key{Path: at, Secret: [32]byte(secret)}, o.body[:0], batch); err != nil {
		return h, b, err
	}
	b, err = o.read(0)
	return h, b, err
}
