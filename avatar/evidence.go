package avatar

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"math"
	"slices"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/seal"
	"carnet/senml"
)

// ProvenFrame is a frame that holds batches of an avatar, with what proves
// them. evidence.Frame has the same fields, so that one converts to the other.
type ProvenFrame struct {
	Sender    carnet.PartyID
	Sign1     []byte               // the signed header
	Leaves    []carnet.Fingerprint // of all batches of the frame
	Own       []int                // which of them are the avatar's, ascending
	Batches   [][]byte             // those, byte for byte
	Keys      []seal.Key           // theirs, of batch level; zero: not at hand any more
	Statement []byte               // the received root
	Salt      ledger.Salt
	Receipt   []byte // empty: pending
	// Path is the joint path of Own, where the other leaves aren't known: of a frame
	// that a former world received. Leaves is empty then.
	Path []carnet.Fingerprint
}

// PathOf returns the path of one of a frame's own batches alone, where their joint
// path is given.
func (f *ProvenFrame) PathOf(i int) ([]carnet.Fingerprint, error) {
	h, _, err := seal.ParseSign1(f.Sign1)
	if err != nil {
		return nil, err
	}
	leaves := make([]carnet.Fingerprint, len(f.Batches))
	for j := range f.Batches {
		leaves[j] = carnet.FingerprintOf(f.Batches[j])
	}
	path, ok := seal.ReducePath(int(h.Count), f.Own, leaves, f.Path, f.Own[i:i+1])
	if !ok {
		return nil, carnet.Errorf(carnet.Tampered, "the proof of frame %d of %s doesn't hold", h.Number, f.Sender)
	}
	return path, nil
}

// EvidenceSigner returns the key that this world signs evidence with, and makes
// it at the first time.
func (a *Agent) EvidenceSigner(ctx context.Context) (ed25519.PrivateKey, error) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	return EvidenceKey(ctx, a.keys, a.party)
}

// EvidenceKey returns the key that a world signs evidence with, and makes it at
// the first time.
func EvidenceKey(ctx context.Context, table *keys.Table, world carnet.PartyID) (ed25519.PrivateKey, error) {
	id := keys.ID{Kind: "evidence", Name: string(world)}
	key, err := table.Signer(ctx, id)
	if carnet.CodeOf(err) == carnet.NotFound {
		return table.MakeSigner(ctx, id)
	}
	return key, err
}

// Settle waits until every statement made before has its receipt, or ctx ends. It
// returns the last frame folded before, whose statement is among them.
func (a *Agent) Settle(ctx context.Context) (upTo uint64, err error) {
	a.mu.RLock()
	upTo = a.folded
	a.mu.RUnlock()
	var last uint64 // the newest of the statements that wait
	for {
		waiting, err := a.store.Pending(ctx, last, settlePage)
		if err != nil {
			return 0, err
		}
		if len(waiting) > 0 {
			last = waiting[len(waiting)-1].ID
		}
		if len(waiting) < settlePage {
			break
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		oldest, err := a.store.Pending(ctx, 0, 1)
		if err != nil || len(oldest) == 0 || oldest[0].ID > last {
			return upTo, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
}

// settlePage is how many waiting statements are listed at once.
const settlePage = 1000

// AllFolded stands for the last frame folded.
const AllFolded = math.MaxUint64

// Proven hands over the frames up to one, as Settle returns it, that hold batches
// of an avatar, in the order received. What is handed over is good until do
// returns.
func (a *Agent) Proven(ctx context.Context, id carnet.AvatarID, upTo uint64, do func(*ProvenFrame) error) error {
	return a.ProvenOf(ctx, id, upTo, Query{}, do)
}

// Past is what evidence of an avatar says beside its frames, by stream.
type Past struct {
	Passages map[carnet.StreamID][]byte    // of those that came with moves: what the worlds that received them signed
	Commits  map[carnet.StreamID][]byte    // of these: what shows that those moves took place
	Over     map[carnet.StreamID][]Over    // what retention has ended
	Left     map[carnet.StreamID][]LeftOut // what worlds left out when they moved, by their owners' orders
}

// Former tells what evidence of an avatar says beside its frames.
func (a *Agent) Former(ctx context.Context, id carnet.AvatarID) (past Past, err error) {
	v, err := a.readable(id)
	if err != nil {
		return past, err
	}
	past = Past{make(map[carnet.StreamID][]byte), make(map[carnet.StreamID][]byte), make(map[carnet.StreamID][]Over), make(map[carnet.StreamID][]LeftOut)}
	for _, s := range a.streamsOf(v) {
		doc, _, err := loadOne[overDocument](ctx, a, kindOver, s.id.String())
		if err != nil {
			return past, err
		}
		name := s.id
		if f := a.formerOf(s.id); f != nil {
			name, past.Passages[f.Name] = f.Name, f.Passage
			if len(f.Commit) > 0 {
				past.Commits[f.Name] = f.Commit
			}
			if len(f.Left) > 0 {
				past.Left[f.Name] = f.Left
			}
		}
		if all := doc.list(); len(all) > 0 {
			past.Over[name] = all
		}
	}
	return past, nil
}

// ProvenOf is Proven for those batches alone that hold a measurement which fits
// the query, whose limit isn't looked at.
func (a *Agent) ProvenOf(ctx context.Context, id carnet.AvatarID, upTo uint64, q Query, do func(*ProvenFrame) error) error {
	v, err := a.readable(id)
	if err != nil {
		return err
	}
	p := proving{agent: a, query: q, minutes: ever, opening: newOpening(), do: do}
	if q.From != 0 {
		p.minutes.from = minuteOf(q.From)
	}
	if q.To != 0 {
		p.minutes.to = minuteOf(q.To - 1)
	}
	var former []*stream
	a.mu.RLock()
	for _, s := range v.streams {
		if a.former[s.id] == nil {
			p.streams = append(p.streams, s)
		} else {
			former = append(former, s)
		}
	}
	p.upTo = min(upTo, a.folded)
	a.mu.RUnlock()
	if err := p.former(ctx, former); err != nil {
		return err
	}
	for {
		whole, err := p.pass(ctx)
		if err != nil || whole {
			return err
		}
		// A frame was compacted meanwhile: the next plan finds it in a stretch.
	}
}

// proving is one run of Proven.
type proving struct {
	agent   *Agent
	query   Query // zero: everything
	minutes span  // of the query
	opening opening
	streams []*stream
	upTo    uint64 // the last frame to hand over
	done    uint64 // the last frame handed over
	lost    uint64 // the frame that wasn't where the plan said
	do      func(*ProvenFrame) error

	stretches []StretchRow
	bodies    map[int]stretchParts // of stretches; bounded
	rows      []FrameRow           // read ahead, without bodies
	tail      FrameRow             // the last frame read with its body
}

// place is where a batch lies: in a stretch, or in an uncompacted frame.
type place struct {
	frame    uint64
	leaf     uint32
	stretch  int    // -1: in its frame
	from, to uint32 // in the frame's body; in a stretch, from counts its batches
}

// stretchParts is a stretch's body, with where each of its batches lies.
type stretchParts struct {
	body   []byte
	bounds [][2]int
}

// maxBodies is how many stretches are held at once.
const maxBodies = 32

// pass plans and hands over; false: the plan has become old.
func (p *proving) pass(ctx context.Context) (bool, error) {
	places, err := p.plan(ctx)
	if err != nil {
		return false, err
	}
	p.bodies, p.rows = make(map[int]stretchParts), nil
	for len(places) > 0 {
		n := 1
		for n < len(places) && places[n].frame == places[0].frame {
			n++
		}
		f, err := p.frame(ctx, places[:n])
		if err != nil || f == nil {
			return false, err
		}
		if len(f.Own) > 0 {
			if err := p.do(f); err != nil {
				return false, err
			}
		}
		p.done, places = places[0].frame, places[n:]
	}
	return true, nil
}

// plan lists where the batches lie that are still to hand over, by frame and
// leaf. The tail is taken first: what is compacted meanwhile is in both then.
func (p *proving) plan(ctx context.Context) (places []place, err error) {
	due := func(frame uint64) bool { return frame > p.done && frame <= p.upTo }
	p.agent.mu.RLock()
	for _, s := range p.streams {
		for _, ref := range s.waiting() {
			if due(ref.frame) {
				places = append(places, place{ref.frame, ref.leaf, -1, ref.from, ref.to})
			}
		}
	}
	p.agent.mu.RUnlock()
	p.stretches = p.stretches[:0]
	for _, s := range p.streams {
		rows, err := p.agent.store.Stretches(ctx, s.id, p.minutes.from, p.minutes.to)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			or, err := parseOrigins(row.Origins)
			if err != nil {
				return nil, err
			}
			for i, o := range or.batches {
				if due(o.frame) {
					places = append(places, place{o.frame, o.leaf, len(p.stretches), uint32(i), 0})
				}
			}
			p.stretches = append(p.stretches, row)
		}
	}
	slices.SortFunc(places, func(x, y place) int {
		return cmp.Or(cmp.Compare(x.frame, y.frame), cmp.Compare(x.leaf, y.leaf), cmp.Compare(y.stretch, x.stretch))
	})
	return slices.CompactFunc(places, func(x, y place) bool { return x.frame == y.frame && x.leaf == y.leaf }), nil
}

// frame makes the proof of a frame with batches at the places; nil: it was
// compacted since the plan.
func (p *proving) frame(ctx context.Context, places []place) (*ProvenFrame, error) {
	row, err := p.row(ctx, places[0].frame)
	if err != nil || row == nil {
		return nil, err
	}
	f := &ProvenFrame{Sender: row.Sender, Sign1: row.Header, Receipt: row.Statement.Receipt}
	if f.Statement, err = p.agent.rest.Open(nil, statementAAD, row.Statement.Statement); err != nil {
		return nil, err
	}
	salt, err := p.agent.rest.Open(nil, saltAAD, row.Statement.Salt)
	if err != nil || len(salt) != len(f.Salt) {
		return nil, carnet.Errorf(carnet.Tampered, "the salt of frame %d of %s is damaged", row.Number, row.Sender)
	}
	copy(f.Salt[:], salt)
	if f.Leaves, err = p.leaves(ctx, row); err != nil || f.Leaves == nil {
		return nil, err
	}
	for _, at := range places {
		batch, err := p.batch(ctx, at)
		if err != nil || batch == nil {
			return nil, err
		}
		key, err := p.agent.batchKey(batch)
		if err != nil {
			return nil, err
		}
		if !p.wanted(batch, &key) {
			continue
		}
		f.Own, f.Batches, f.Keys = append(f.Own, int(at.leaf)), append(f.Batches, batch), append(f.Keys, key)
	}
	return f, nil
}

// wanted reports whether a batch holds what the query asks for. One that doesn't
// open holds nothing.
func (p *proving) wanted(batch []byte, key *seal.Key) bool {
	if p.query == (Query{}) {
		return true
	}
	o := &p.opening
	var err error
	if _, o.body, err = seal.OpenBatch(&key.Secret, o.body[:0], batch); err != nil {
		return false
	}
	b, err := seal.ParseBody(o.body)
	if err != nil {
		return false
	}
	if o.measurements, err = o.decoder.Decode(o.measurements[:0], senml.Columns, b.Content, 0); err != nil {
		return false
	}
	return slices.ContainsFunc(o.measurements, func(m carnet.Measurement) bool {
		return m.Time >= p.query.From && (p.query.To == 0 || m.Time < p.query.To) && covers(p.query.Property, m.Name)
	})
}

// row returns a frame without its body, reading some ahead.
func (p *proving) row(ctx context.Context, id uint64) (*FrameRow, error) {
	for len(p.rows) > 0 && p.rows[0].ID < id {
		p.rows = p.rows[1:]
	}
	if len(p.rows) == 0 || p.rows[0].ID != id {
		rows, err := p.agent.store.FrameHeaders(ctx, id-1, 64)
		if err != nil {
			return nil, err
		}
		if p.rows = rows; len(rows) == 0 || rows[0].ID != id {
			return nil, carnet.Errorf(carnet.Tampered, "frame %d, of which batches are kept, is not in the store", id)
		}
	}
	return &p.rows[0], nil
}

// leaves returns the fingerprints of a frame's batches: kept with the row once
// it is compacted, and those of its body before. nil: it was compacted between
// the reading of the two.
func (p *proving) leaves(ctx context.Context, row *FrameRow) (leaves []carnet.Fingerprint, err error) {
	if len(row.Leaves) != 0 {
		for kept := range slices.Chunk(row.Leaves, len(carnet.Fingerprint{})) {
			if len(kept) != len(carnet.Fingerprint{}) {
				return nil, carnet.Errorf(carnet.Tampered, "the list of batches of frame %d of %s is damaged", row.Number, row.Sender)
			}
			leaves = append(leaves, carnet.Fingerprint(kept))
		}
		return leaves, nil
	}
	if whole, err := p.whole(ctx, row.ID); err != nil || !whole {
		return nil, err
	}
	err = eachBatch(p.tail.Body, func(_, from, to int) error {
		leaves = append(leaves, carnet.FingerprintOf(p.tail.Body[from:to]))
		return nil
	})
	return leaves, err
}

// whole reads an uncompacted frame into p.tail; false: it is compacted. One that
// isn't there in the next plan either is lost.
func (p *proving) whole(ctx context.Context, id uint64) (bool, error) {
	if p.tail.ID == id {
		return true, nil
	}
	rows, err := p.agent.store.Frames(ctx, id-1, 1)
	if err != nil {
		return false, err
	}
	if len(rows) == 0 || rows[0].ID != id {
		if p.lost == id {
			return false, carnet.Errorf(carnet.Tampered, "frame with id %d, of which batches are kept, is not in the store", id)
		}
		p.lost = id
		return false, nil
	}
	p.tail = rows[0]
	return true, nil
}

// batch returns the bytes of a batch; nil: it was compacted, or its retention has
// ended, since the plan.
func (p *proving) batch(ctx context.Context, at place) ([]byte, error) {
	if at.stretch < 0 {
		if whole, err := p.whole(ctx, at.frame); err != nil || !whole {
			return nil, err
		}
		if int(at.to) > len(p.tail.Body) {
			return nil, carnet.Errorf(carnet.Tampered, "frame %d is shorter than its index says", at.frame)
		}
		return p.tail.Body[at.from:at.to:at.to], nil
	}
	parts, ok := p.bodies[at.stretch]
	if !ok {
		body, err := p.agent.stretchBody(ctx, p.stretches[at.stretch])
		if errors.Is(err, errMoved) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		parts.body = body
		err = eachBatch(body, func(_, from, to int) error {
			parts.bounds = append(parts.bounds, [2]int{from, to})
			return nil
		})
		if err != nil {
			return nil, err
		}
		for old := range p.bodies {
			if len(p.bodies) < maxBodies {
				break
			}
			delete(p.bodies, old)
		}
		p.bodies[at.stretch] = parts
	}
	if int(at.from) >= len(parts.bounds) {
		return nil, carnet.Errorf(carnet.Tampered, "a stretch has less batches than its origins say")
	}
	bounds := parts.bounds[at.from]
	return parts.body[bounds[0]:bounds[1]:bounds[1]], nil
}

// batchKey returns the key of one batch, which opens no other; a zero one when
// its epoch's is destroyed.
func (a *Agent) batchKey(batch []byte) (seal.Key, error) {
	h, _, err := seal.ParseHeader(batch)
	if err != nil {
		return seal.Key{}, err
	}
	epoch, ok := a.epochs.lookup(h)
	if !ok {
		return seal.Key{}, nil
	}
	slot, err := epoch.Slot(h.Slot)
	if err != nil {
		return seal.Key{}, err
	}
	return slot.BatchKey(h), nil
}
