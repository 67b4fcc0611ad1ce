package avatar

import (
	"context"
	"slices"
	"sync"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// choice is what remains of a stretch when what is labelled above a clearance is left
// out, and what that is. It is a function of the stretch's bytes, the keys that there
// are, and the clearance.
type choice struct {
	first uint64       // batch of the stretch as it is
	kept  MovedStretch // without a batch: nothing remains
	keep  []bool       // by batch; nil: all
	left  map[kindOfLeft]*leftPart
	slots map[seal.Path]carnet.Label // of what remains, with what their batches stay within
	cut   map[seal.Path]struct{}     // of what is left out
}

// leftPart is what of a kind is left out.
type leftPart struct {
	LeftRun
	names    map[string]struct{}
	from, to int64 // measured
}

// choices remembers what was chosen, so that nothing is to be opened while an avatar
// keeps still. The zero value is ready.
type choices struct {
	mu    sync.Mutex
	known map[choiceKey]*choice
}

type choiceKey struct {
	stream    carnet.StreamID // in the store
	stretch   carnet.Fingerprint
	clearance carnet.Clearance
}

// maxChoices is how many choices are remembered.
const maxChoices = 1 << 15

func (c *choices) get(k choiceKey) *choice {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[k]
}

func (c *choices) put(k choiceKey, is *choice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxChoices {
		c.known = make(map[choiceKey]*choice)
	}
	c.known[k] = is
}

// choose says what remains of a stretch; errMoved: its retention has ended since it
// was listed.
func (a *Agent) choose(ctx context.Context, row *StretchRow, name carnet.StreamID, c carnet.Clearance) (*choice, error) {
	key := choiceKey{row.Stream, row.Fingerprint, c}
	if known := a.choices.get(key); known != nil {
		return known, nil
	}
	body, err := a.stretchBody(ctx, *row)
	if err != nil {
		return nil, err
	}
	listed, err := movedStretch(row, name)
	if err != nil {
		return nil, err
	}
	w := choosing{
		agent: a, clearance: c, opening: newOpening(), ceilings: make(map[seal.Path]carnet.Label),
		choice: &choice{
			first: row.FirstBatch, kept: listed, left: make(map[kindOfLeft]*leftPart), slots: make(map[seal.Path]carnet.Label), cut: make(map[seal.Path]struct{}),
		},
	}
	keep := make([]bool, 0, row.Batches)
	if err := eachBatch(body, func(_, from, to int) error {
		remains, err := w.batch(ctx, body[from:to], row.Class)
		keep = append(keep, remains)
		return err
	}); err != nil {
		return nil, err
	}
	if slices.Contains(keep, false) {
		w.choice.keep = keep
		if err := w.describe(ctx, row, body); err != nil {
			return nil, err
		}
	}
	a.choices.put(key, w.choice)
	return w.choice, nil
}

// choosing is a choice being made.
type choosing struct {
	agent     *Agent
	clearance carnet.Clearance
	opening   opening
	ceilings  map[seal.Path]carnet.Label
	choice    *choice
}

// ceiling is what everything under the key that opens a batch stays within.
func (w *choosing) ceiling(ctx context.Context, h seal.Header) (carnet.Label, error) {
	at := slotOf(h)
	if label, known := w.ceilings[at]; known {
		return label, nil
	}
	doc, version, err := loadOne[epochDocument](ctx, w.agent, kindEpoch, keyID(epochOf(h)).Name)
	if err == nil && version == 0 {
		doc, _, err = loadOne[epochDocument](ctx, w.agent, kindEpoch, keyID(at).Name)
	}
	if err != nil {
		return carnet.Label{}, err
	}
	w.ceilings[at] = doc.ceiling()
	return w.ceilings[at], nil
}

// batch decides of one batch: its label does, or, where it needn't or can't be opened,
// what it stays within.
func (w *choosing) batch(ctx context.Context, batch []byte, class carnet.Retention) (remains bool, err error) {
	h, _, err := seal.ParseHeader(batch)
	if err != nil {
		return false, err
	}
	label, err := w.ceiling(ctx, h)
	if err != nil {
		return false, err
	}
	remains = label.Exceeds(w.clearance) == ""
	var body seal.Body
	closed := false
	if !remains {
		if _, body, err = w.agent.open(ctx, &w.opening, batch, 0); err != nil && carnet.CodeOf(err) == "" {
			return false, err
		}
		if closed = err != nil; !closed {
			label = body.Label
			remains = label.Exceeds(w.clearance) == ""
		}
	}
	if remains {
		w.choice.slots[slotOf(h)] = w.choice.slots[slotOf(h)].Join(label)
		return true, nil
	}
	w.choice.cut[slotOf(h)] = struct{}{}
	run := LeftRun{
		Class: class, Sensitivity: label.Sensitivity, Purposes: label.Purposes, Residency: label.Residency, From: h.Number, To: h.Number, Batches: 1,
	}
	part := w.choice.left[run.kind()]
	if run.Measurements = uint64(body.Count); closed {
		run.Measurements, run.Closed = 0, 1
	}
	if part == nil {
		part = &leftPart{LeftRun: run, names: make(map[string]struct{})}
		w.choice.left[run.kind()] = part
	} else {
		part.join(&run)
	}
	if !closed {
		part.show(w.opening.measurements)
	}
	return false, nil
}

// show notes which properties are left out, and when they were measured.
func (p *leftPart) show(ms []carnet.Measurement) {
	for i := range ms {
		if len(p.names) == 0 {
			p.from, p.to = ms[i].Time, ms[i].Time
		}
		p.names[ms[i].Name] = struct{}{}
		p.from, p.to = min(p.from, ms[i].Time), max(p.to, ms[i].Time)
	}
}

// describe says what the stretch of what remains is.
func (w *choosing) describe(ctx context.Context, row *StretchRow, body []byte) error {
	c := w.choice
	m := &c.kept
	was := *m
	*m = MovedStretch{Stream: m.Stream, Class: m.Class}
	var origins origins
	origins, err := parseOrigins(row.Origins)
	if err != nil {
		return err
	}
	if len(origins.batches) != len(c.keep) {
		return carnet.Errorf(carnet.Tampered, "stretch %s has other batches than its origins say", row.Fingerprint)
	}
	left := uint64(0)
	for _, p := range c.left {
		left += p.Measurements
	}
	m.Measurements = was.Measurements - min(left, was.Measurements)
	unknown := false // of some batch that remains it isn't known what it holds
	err = eachBatch(body, func(i, from, to int) error {
		if !c.keep[i] {
			return nil
		}
		n := origins.batches[i].number
		if m.Batches == 0 {
			m.First = n
		}
		m.Last, m.Batches = n, m.Batches+1
		_, b, err := w.agent.open(ctx, &w.opening, body[from:to], 0)
		if err != nil {
			unknown = true
			if carnet.CodeOf(err) == "" {
				return err
			}
			return nil
		}
		begins, ends := minutes(w.opening.measurements)
		if m.NextNumber == 0 {
			m.FirstNumber, m.FromMinute, m.ToMinute = b.First, begins, ends
		}
		m.FirstNumber, m.NextNumber = min(m.FirstNumber, b.First), max(m.NextNumber, b.First+uint64(b.Count))
		m.FromMinute, m.ToMinute = min(m.FromMinute, begins), max(m.ToMinute, ends)
		return nil
	})
	if err != nil || m.Batches == 0 {
		return err
	}
	if unknown {
		m.FirstNumber, m.NextNumber, m.FromMinute, m.ToMinute = was.FirstNumber, was.NextNumber, was.FromMinute, was.ToMinute
	}
	remains := c.remains(body)
	m.Size, m.Fingerprint = len(remains), carnet.FingerprintOf(remains)
	m.Received, err = w.agent.received(ctx, row, &origins, c.keep)
	return err
}

// remains is the body of what remains of a stretch.
func (c *choice) remains(body []byte) []byte {
	if c.keep == nil {
		return body
	}
	var out []byte
	_ = eachBatch(body, func(i, from, to int) error { // it went well before
		if c.keep[i] {
			out = appendPart(out, body[from:to])
		}
		return nil
	})
	return out
}

// received is when the newest of some batches of a stretch was received.
func (a *Agent) received(ctx context.Context, row *StretchRow, or *origins, keep []bool) (newest int64, err error) {
	if a.formerOf(row.Stream) != nil {
		return a.formerlyReceived(ctx, row, keep)
	}
	frames := make(map[uint64]struct{})
	for i, o := range or.batches {
		if keep[i] {
			frames[o.frame] = struct{}{}
		}
	}
	var rows []FrameRow
	ids := make([]uint64, 0, len(frames))
	for id := range frames {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		for len(rows) > 0 && rows[0].ID < id {
			rows = rows[1:]
		}
		if len(rows) == 0 {
			if rows, err = a.store.FrameHeaders(ctx, id-1, 64); err != nil {
				return 0, err
			}
		}
		if len(rows) == 0 || rows[0].ID != id {
			return 0, carnet.Errorf(carnet.Tampered, "frame with id %d, of which batches are kept, is not in the store", id)
		}
		newest = max(newest, rows[0].Received)
	}
	return newest, nil
}

// formerlyReceived is received for a stretch that came with a move.
func (a *Agent) formerlyReceived(ctx context.Context, row *StretchRow, keep []bool) (newest int64, err error) {
	proof, err := a.keptProof(ctx, row.Fingerprint, row.Stream)
	if err != nil {
		return 0, err
	}
	p, err := parseProof(proof)
	if err != nil {
		return 0, err
	}
	if len(p.batches) != proofBatch*len(keep) {
		return 0, carnet.Errorf(carnet.Tampered, "the proof of stretch %s is of other batches", row.Fingerprint)
	}
	var one ledger.FrameProof
	for i := range keep {
		if !keep[i] {
			continue
		}
		frame, _ := p.at(i)
		if !one.Parse(p.frames[frame]) {
			return 0, carnet.Errorf(carnet.Tampered, "the proof of stretch %s is damaged", row.Fingerprint)
		}
		s, err := ledger.ParseStatement(one.Statement)
		if err != nil {
			return 0, err
		}
		newest = max(newest, s.Time)
	}
	return newest, nil
}

// reduced makes of the proof of a stretch that of some of its batches.
func (p *stretchProof) reduced(prints []carnet.Fingerprint, keep []bool) ([]byte, error) {
	bad := func(why string) ([]byte, error) {
		return nil, carnet.Errorf(carnet.Tampered, "the proof of a stretch %s", why)
	}
	if len(p.batches) != proofBatch*len(keep) || len(prints) != len(keep) {
		return bad("is of other batches than the stretch has")
	}
	of := make([][]int, len(p.frames))
	for i := range keep {
		frame, _ := p.at(i)
		of[frame] = append(of[frame], i)
	}
	w := proofWriter{place: make(map[uint64]int)}
	var one ledger.FrameProof
	for i, batches := range of {
		if !slices.ContainsFunc(batches, func(b int) bool { return keep[b] }) {
			continue
		}
		slices.SortFunc(batches, func(x, y int) int { _, p1 := p.at(x); _, p2 := p.at(y); return p1 - p2 })
		if !one.Parse(p.frames[i]) {
			return bad("is damaged")
		}
		h, _, err := seal.ParseSign1(one.Sign1)
		if err != nil {
			return nil, err
		}
		var own, kept []int
		var leaves []carnet.Fingerprint
		for _, b := range batches {
			_, leaf := p.at(b)
			own, leaves = append(own, leaf), append(leaves, prints[b])
			if keep[b] {
				kept = append(kept, leaf)
			}
		}
		path, ok := seal.ReducePath(int(h.Count), own, leaves, one.Path, kept)
		if !ok {
			return bad("doesn't hold")
		}
		one.Path = path
		w.add(uint64(i), &one)
	}
	var origins []origin
	for i := range keep {
		if keep[i] {
			frame, leaf := p.at(i)
			origins = append(origins, origin{frame: uint64(frame), leaf: uint32(leaf)})
		}
	}
	return w.proof(origins), nil
}
