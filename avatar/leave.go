package avatar

import (
	"cmp"
	"context"
	"crypto"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// passing is what an avatar's document says of its move. Guarded by Agent.mu.
type passing struct {
	frozen carnet.CrossingID // for which it keeps still; zero: none
	gone   *goneDocument     // where it went
}

// Changeable refuses what a user wants to change of an avatar, or by it, while it
// keeps still for a move (carnet.Conflict), or when it isn't here any more.
func (a *Agent) Changeable(id carnet.AvatarID) error {
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	return a.changeable(v)
}

func (a *Agent) changeable(v *Avatar) error {
	if x, frozen := a.frozenFor(v); frozen {
		return carnet.Errorf(carnet.Conflict, "the avatar keeps still: it moves to another world by crossing %s", x).
			WithFix("see 'carnet avatar status'; when the move is over, or cancelled, try again")
	}
	return nil
}

// Frozen says for which crossing an avatar keeps still, if it does.
func (a *Agent) Frozen(id carnet.AvatarID) (carnet.CrossingID, bool, error) {
	v, err := a.avatar(id)
	if err != nil {
		return carnet.CrossingID{}, false, err
	}
	x, frozen := a.frozenFor(v)
	return x, frozen, nil
}

func (a *Agent) frozenFor(v *Avatar) (carnet.CrossingID, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if v.passing == nil || v.passing.frozen == (carnet.CrossingID{}) {
		return carnet.CrossingID{}, false
	}
	return v.passing.frozen, true
}

// Freeze has an avatar keep still for a crossing, durably: from now on no user
// changes it. What its senders send goes on being taken and shown. Frozen again
// for the same crossing it stays so; for another, carnet.Conflict.
func (a *Agent) Freeze(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID) error {
	if x == (carnet.CrossingID{}) {
		return carnet.Errorf(carnet.Malformed, "a move has no crossing")
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	if had, frozen := a.frozenFor(v); frozen && had == x {
		return nil
	} else if frozen {
		return a.changeable(v)
	}
	return a.setFrozen(ctx, v, x)
}

// Thaw ends what Freeze began, if it was for this crossing. It is durable on
// return.
func (a *Agent) Thaw(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	if had, frozen := a.frozenFor(v); !frozen || had != x {
		return nil
	}
	return a.setFrozen(ctx, v, carnet.CrossingID{})
}

// setFrozen notes durably for which crossing an avatar keeps still. The caller
// holds changeMu.
func (a *Agent) setFrozen(ctx context.Context, v *Avatar, x carnet.CrossingID) error {
	a.mu.Lock()
	before := v.passing
	v.passing = &passing{frozen: x}
	if x == (carnet.CrossingID{}) {
		v.passing = nil
	}
	a.mu.Unlock()
	err := a.saveAvatar(ctx, v, v.streams, nil)
	if err != nil {
		a.mu.Lock()
		v.passing = before
		a.mu.Unlock()
	}
	return err
}

// Pack moves what was folded so far into stretches, which alone can leave. It is
// done once before a freeze, so that little is left to do then.
func (a *Agent) Pack(ctx context.Context) error { return a.Compact(ctx, 1) }

// moving are the streams of an avatar that move with it: what came by shares
// doesn't, since others gave it to this world.
func (a *Agent) moving(v *Avatar) (streams []*stream) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range v.streams {
		if _, shared := a.shared[s.id]; !shared {
			streams = append(streams, s)
		}
	}
	return streams
}

// leaves finds an avatar that may move, or has moved and isn't deleted yet: its next
// home may need of it again what it lost.
func (a *Agent) leaves(id carnet.AvatarID) (*Avatar, error) {
	v, err := a.avatar(id)
	if err == nil {
		return v, nil
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	if gone := a.departed[id]; gone != nil && gone.passing.gone.Cleared.IsZero() {
		return gone, nil
	}
	return nil, err
}

// MovedStreams lists the streams that move with an avatar, as they stand. What
// came by shares doesn't move, and neither do batches that were refused.
func (a *Agent) MovedStreams(ctx context.Context, id carnet.AvatarID) ([]MovedStream, error) {
	v, err := a.leaves(id)
	if err != nil {
		return nil, err
	}
	a.foldMu.Lock()
	moved := headsOf(a.moving(v))
	a.foldMu.Unlock()
	return moved, a.describe(ctx, v, moved)
}

// headsOf says where streams stand. The caller holds foldMu.
func headsOf(streams []*stream) []MovedStream {
	moved := make([]MovedStream, len(streams))
	for i, s := range streams {
		moved[i] = MovedStream{Stream: s.id, NextBatch: s.nextBatch, NextFirst: s.nextFirst, Measurements: s.measurements, Batches: s.batches}
	}
	return moved
}

// describe fills in, of streams that are named as the store has them, what there
// is to know beside their numbers.
func (a *Agent) describe(ctx context.Context, v *Avatar, moved []MovedStream) error {
	for i := range moved {
		m := &moved[i]
		over, _, err := loadOne[overDocument](ctx, a, kindOver, m.Stream.String())
		if err != nil {
			return err
		}
		m.Over = over.list()
		if f := a.formerOf(m.Stream); f != nil {
			m.Stream, m.Origin, m.Passage, m.Slots = f.Name, f.Origin, f.Passage, m.Slots || f.Slots
			m.Left = slices.Concat(f.Left, m.Left)
			continue
		}
		if m.Here = true; a.origin == nil {
			return carnet.Errorf(carnet.Unavailable, "this world can't say where it proves what it received")
		}
		if m.Origin, err = a.origin(a.stream(m.Stream).sender); err != nil {
			return err
		}
	}
	return nil
}

// movingStream finds one of the streams that move with an avatar by its name.
func (a *Agent) movingStream(id carnet.AvatarID, name carnet.StreamID) (*stream, error) {
	v, err := a.leaves(id)
	if err != nil {
		return nil, err
	}
	for _, s := range a.moving(v) {
		if a.nameOf(s.id) == name {
			return s, nil
		}
	}
	return nil, carnet.Errorf(carnet.NotFound, "the avatar has no stream %s that can move", name)
}

// MovedStretches lists the stretches of a stream that moves with an avatar, those
// whose first batch is at least from, at most limit: the next page begins after
// the first batch of the last.
func (a *Agent) MovedStretches(ctx context.Context, id carnet.AvatarID, name carnet.StreamID, from uint64, limit int) ([]MovedStretch, error) {
	s, err := a.movingStream(id, name)
	if err != nil {
		return nil, err
	}
	// What a compaction has added is undone if that ends in its midst.
	a.moveMu.RLock()
	defer a.moveMu.RUnlock()
	if len(a.moved.adding) > 0 {
		return nil, carnet.Errorf(carnet.Unavailable, "a compaction that ended in its midst is to be undone first")
	}
	rows, err := a.store.StretchPage(ctx, s.id, from, limit)
	if err != nil {
		return nil, err
	}
	listed := make([]MovedStretch, len(rows))
	for i := range rows {
		if listed[i], err = movedStretch(&rows[i], name); err != nil {
			return nil, err
		}
	}
	return listed, nil
}

func movedStretch(row *StretchRow, name carnet.StreamID) (MovedStretch, error) {
	or, err := parseOrigins(row.Origins)
	return MovedStretch{
		Fingerprint: row.Fingerprint, Size: row.Size, Stream: name, Class: row.Class, First: row.FirstBatch, Last: row.LastBatch, Batches: row.Batches,
		FirstNumber: or.first, NextNumber: or.next, Measurements: row.Measurements, FromMinute: row.FromMinute, ToMinute: row.ToMinute, Received: row.Received,
	}, err
}

// movedRow finds a stretch that was listed; carnet.NotFound if its retention has
// ended since.
func (a *Agent) movedRow(ctx context.Context, id carnet.AvatarID, m *MovedStretch) (row StretchRow, err error) {
	s, err := a.movingStream(id, m.Stream)
	if err != nil {
		return row, err
	}
	rows, err := a.store.StretchPage(ctx, s.id, m.First, 1)
	if err != nil {
		return row, err
	}
	if len(rows) == 0 || rows[0].FirstBatch != m.First || rows[0].Fingerprint != m.Fingerprint {
		return row, carnet.Errorf(carnet.NotFound, "there is no stretch %s of stream %s", m.Fingerprint, m.Stream)
	}
	return rows[0], nil
}

// StretchBytes returns the bytes of a stretch that was listed.
func (a *Agent) StretchBytes(ctx context.Context, id carnet.AvatarID, m MovedStretch) ([]byte, error) {
	row, err := a.movedRow(ctx, id, &m)
	if err != nil {
		return nil, err
	}
	body, err := a.stretchBody(ctx, row)
	if errors.Is(err, errMoved) {
		return nil, carnet.Errorf(carnet.NotFound, "the retention of stretch %s has ended", m.Fingerprint)
	}
	return body, err
}

// StoredBytes returns the bytes of a stretch that was listed as they are in the store,
// for who looks at them; what is lost there is StretchBytes' to find.
func (a *Agent) StoredBytes(ctx context.Context, id carnet.AvatarID, m MovedStretch) ([]byte, error) {
	row, err := a.movedRow(ctx, id, &m)
	if err != nil {
		return nil, err
	}
	body, err := a.store.StretchBody(ctx, row.ID)
	if carnet.CodeOf(err) == carnet.NotFound {
		return a.StretchBytes(ctx, id, m)
	}
	return body, err
}

// proofWait is how long a proof waits for receipts that haven't come.
const proofWait = 10 * time.Second

// ProofOf returns what proves a stretch that was listed (docs/design/crossing.md).
// It is always the same, but for receipts that were renewed. Where receipts
// haven't come it waits for them, and answers carnet.Unavailable if they don't come.
func (a *Agent) ProofOf(ctx context.Context, id carnet.AvatarID, m MovedStretch) ([]byte, error) {
	row, err := a.movedRow(ctx, id, &m)
	if err != nil {
		return nil, err
	}
	return a.proofOf(ctx, &row)
}

// proofOf is ProofOf for the batches that a stretch's origins name.
func (a *Agent) proofOf(ctx context.Context, row *StretchRow) ([]byte, error) {
	if a.formerOf(row.Stream) != nil {
		return a.keptProof(ctx, row.Fingerprint, row.Stream)
	}
	ctx, cancel := context.WithTimeout(ctx, proofWait)
	defer cancel()
	for {
		proof, pending, err := a.makeProof(ctx, row)
		if err != nil || pending == 0 {
			return proof, err
		}
		select {
		case <-ctx.Done():
			return nil, carnet.Errorf(carnet.Unavailable, "%d frames of the stretch have no receipt yet", pending).
				WithFix("try again when 'carnet status' shows the depot as there")
		case <-time.After(settleEvery):
		}
	}
}

// settleEvery is how often it is looked whether receipts have come.
const settleEvery = 50 * time.Millisecond

// makeProof makes the proof of a stretch, unless receipts are missing.
func (a *Agent) makeProof(ctx context.Context, row *StretchRow) (proof []byte, pending int, err error) {
	or, err := parseOrigins(row.Origins)
	if err != nil {
		return nil, 0, err
	}
	own := make(map[uint64][]int) // leaves, by frame
	for _, o := range or.batches {
		own[o.frame] = append(own[o.frame], int(o.leaf))
	}
	ids := make([]uint64, 0, len(own))
	for id, leaves := range own {
		slices.Sort(leaves)
		ids = append(ids, id)
	}
	slices.Sort(ids)
	w := proofWriter{place: make(map[uint64]int, len(ids))}
	// Leaf lists come with the end of the compaction that made the stretch.
	a.moveMu.RLock()
	defer a.moveMu.RUnlock()
	var rows []FrameRow
	for _, id := range ids {
		if len(rows) > 0 {
			rows = rows[1:]
		}
		if len(rows) == 0 || rows[0].ID != id {
			if rows, err = a.store.FrameHeaders(ctx, id-1, 64); err != nil {
				return nil, 0, err
			}
		}
		if len(rows) == 0 || rows[0].ID != id {
			return nil, 0, carnet.Errorf(carnet.Tampered, "frame with id %d, of which batches are kept, is not in the store", id)
		}
		f := &rows[0]
		if len(f.Statement.Receipt) == 0 {
			pending++
			continue
		}
		leaves, err := a.keptLeaves(f)
		if err != nil {
			return nil, 0, err
		}
		if err := w.frame(a, f, leaves, own[id]); err != nil {
			return nil, 0, err
		}
	}
	if pending > 0 {
		return nil, pending, nil
	}
	return w.proof(or.batches), 0, nil
}

// keptLeaves returns the fingerprints of a compacted frame's batches, whether its
// body is already off or not. The caller holds moveMu, shared or not.
func (a *Agent) keptLeaves(f *FrameRow) (leaves []carnet.Fingerprint, err error) {
	list := f.Leaves
	if i, found := slices.BinarySearchFunc(a.moved.strips, f.ID, func(s Strip, id uint64) int { return cmp.Compare(s.Frame, id) }); found {
		list = a.moved.strips[i].Leaves
	}
	if len(list) == 0 || len(list)%len(carnet.Fingerprint{}) != 0 {
		return nil, carnet.Errorf(carnet.Tampered, "the list of batches of frame %d of %s is damaged", f.Number, f.Sender)
	}
	for one := range slices.Chunk(list, len(carnet.Fingerprint{})) {
		leaves = append(leaves, carnet.Fingerprint(one))
	}
	return leaves, nil
}

// proofWriter makes the proof of a stretch.
type proofWriter struct {
	joint  seal.Joint
	place  map[uint64]int // of a frame, by its id
	frames []byte
}

func (w *proofWriter) frame(a *Agent, f *FrameRow, leaves []carnet.Fingerprint, own []int) (err error) {
	p := ledger.FrameProof{Sign1: f.Header, Receipt: f.Statement.Receipt}
	if p.Statement, err = a.rest.Open(nil, statementAAD, f.Statement.Statement); err != nil {
		return err
	}
	salt, err := a.rest.Open(nil, saltAAD, f.Statement.Salt)
	if err != nil || len(salt) != len(p.Salt) {
		return carnet.Errorf(carnet.Tampered, "the salt of frame %d of %s is damaged", f.Number, f.Sender)
	}
	copy(p.Salt[:], salt)
	if own[len(own)-1] >= len(leaves) {
		return carnet.Errorf(carnet.Tampered, "frame %d of %s has %d batches, and one after them is kept", f.Number, f.Sender, len(leaves))
	}
	p.Path = w.joint.Prove(leaves, own)
	w.add(f.ID, &p)
	return nil
}

// add adds the proof of a frame, by its id.
func (w *proofWriter) add(id uint64, p *ledger.FrameProof) {
	w.place[id] = len(w.place)
	at := len(w.frames)
	w.frames = p.Append(append(w.frames, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(w.frames[at:], uint32(len(w.frames)-at-4))
}

func (w *proofWriter) proof(batches []origin) []byte {
	b := make([]byte, 0, proofHead+proofBatch*len(batches)+len(w.frames))
	b = append(b, proofOpen...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(batches)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(w.place)))
	for _, o := range batches {
		b = binary.BigEndian.AppendUint32(b, uint32(w.place[o.frame]))
		b = binary.BigEndian.AppendUint16(b, uint16(o.leaf))
	}
	return append(b, w.frames...)
}

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
		if s := &m.Streams[i]; len(s.Passage) == 0 {
			if s.Passage, err = vouch(id, *s); err != nil {
				return nil, err
			}
		}
	}
	if r == nil {
		if err := a.movedKeys(ctx, m); err != nil {
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
// that were redacted, the slots.
func (a *Agent) movedKeys(ctx context.Context, m *Manifest) error {
	for i := range m.Streams {
		level := seal.EpochLevel
		if m.Streams[i].Slots {
			level = seal.SlotLevel
		}
		err := a.eachEpoch(ctx, m.Streams[i].Stream, func(k keyDocument) error {
			if k.id.Level == level && (k.doc.Keep || !k.doc.Until.IsZero()) {
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
			if int32(l.place) == s.place && !l.over(now) {
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

// KeyTerms are what keys are given under to another world.
type KeyTerms struct {
	Granter   carnet.PartyID // this world, as it calls itself to the other
	Signer    crypto.Signer
	Reception *seal.Reception  // the other's
	Clearance carnet.Clearance // the other's
	Purpose   string
	// Owner: the reader is the avatar's owner, who may have all of it: the clearance is
	// that of each key's label, for what that lets it be used for.
	Owner bool
}

// ownPurpose is what owners are given keys for that are bound to no purpose.
const ownPurpose = "own"

// of are the terms for keys with a label.
func (t KeyTerms) of(label carnet.Label) KeyTerms {
	if !t.Owner {
		return t
	}
	t.Clearance, t.Purpose = carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: label.Purposes, Residency: label.Residency}, ownPurpose
	if words := label.Purposes.Words(); len(words) > 0 {
		t.Purpose = words[0]
	}
	t.Clearance.Purposes = carnet.NewSet(t.Purpose)
	return t
}

// keysAtOnce is how many keys a bag has at most.
const keysAtOnce = 2048

// KeyBags gives the keys that a manifest names to another world: as many bags as it
// takes, anew with each call. A key under which more may be than the other is
// cleared for fails the whole with carnet.Forbidden.
func (a *Agent) KeyBags(ctx context.Context, m *Manifest, t KeyTerms) (bags [][]byte, err error) {
	return a.keyBags(ctx, m, t, nil)
}

// keyBags is KeyBags where it is known of slots what is under them.
func (a *Agent) keyBags(ctx context.Context, m *Manifest, t KeyTerms, slots map[seal.Path]carnet.Label) (bags [][]byte, err error) {
	now := a.now()
	var entries []seal.Entry
	var until time.Time
	for i := range m.Keys {
		k := &m.Keys[i]
		if !k.Ended.IsZero() || !now.Before(k.NotAfter) {
			continue
		}
		entry, err := a.keyEntry(ctx, k.path(), slots)
		if carnet.CodeOf(err) == carnet.NotFound {
			continue // nothing is kept under it any more
		} else if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
		if k.NotAfter.After(until) {
			until = k.NotAfter
		}
	}
	alike := map[carnet.Label][]seal.Entry{}
	var labels []carnet.Label
	for _, e := range entries {
		label := carnet.Label{}
		if t.Owner {
			label = e.Ceiling
		}
		if alike[label] == nil {
			labels = append(labels, label)
		}
		alike[label] = append(alike[label], e)
	}
	for _, label := range labels {
		t := t.of(label)
		for some := range slices.Chunk(alike[label], keysAtOnce) {
			bag, err := seal.Grant(t.Signer, t.Reception, seal.Terms{
				Granter: t.Granter, Grant: m.Crossing, Purpose: t.Purpose, Clearance: t.Clearance, Time: now, NotAfter: until,
			}, some)
			if err != nil {
				return nil, err
			}
			bags = append(bags, bag)
		}
	}
	return bags, nil
}

// keyEntry is a key to be given, with what everything under it that moves stays within.
func (a *Agent) keyEntry(ctx context.Context, at seal.Path, slots map[seal.Path]carnet.Label) (e seal.Entry, err error) {
	key, err := a.epochs.get(ctx, at)
	if at.Level == seal.SlotLevel && carnet.CodeOf(err) == carnet.NotFound {
		key, err = a.epochs.get(ctx, seal.Path{Level: seal.EpochLevel, Stream: at.Stream, Epoch: at.Epoch})
		if err == nil {
			var slot *seal.Slot
			if slot, err = key.Slot(at.Slot); err == nil {
				key = slot.Key()
			}
		}
	}
	if err != nil {
		return e, err
	}
	if ceiling, known := slots[at]; known {
		return seal.Entry{Key: key, Ceiling: ceiling}, nil
	}
	doc, _, err := loadOne[epochDocument](ctx, a, kindEpoch, keyID(at).Name)
	return seal.Entry{Key: key, Ceiling: doc.ceiling()}, err
}

// MovedCeiling is the label that everything of an avatar that moves stays within,
// as far as its senders said: what a target must be cleared for.
func (a *Agent) MovedCeiling(ctx context.Context, id carnet.AvatarID) (label carnet.Label, err error) {
	v, err := a.avatar(id)
	if err != nil {
		return label, err
	}
	for _, s := range a.moving(v) {
		f := a.formerOf(s.id)
		err := a.eachEpoch(ctx, a.nameOf(s.id), func(k keyDocument) error {
			if (k.id.Level == seal.SlotLevel) == (f != nil && f.Slots) && k.doc.Ended.IsZero() {
				label = label.Join(k.doc.ceiling())
			}
			return nil
		})
		if err != nil {
			return label, err
		}
	}
	return label, nil
}
