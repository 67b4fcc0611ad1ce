package avatar

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

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
