package avatar

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// formerFrame is a frame that another world received, with batches in one stretch.
type formerFrame struct {
	origin  int // of its stream, among those that there are
	number  uint64
	stretch int // among the stretches
	place   int // in that one's proof
}

// former hands over the frames that hold batches of streams which came with moves:
// by the world and sender that they are of, and then by their number. Their proofs
// came with the stretches; where a frame has batches in several, these are joined.
func (p *proving) former(ctx context.Context, streams []*stream) error {
	f := formerProving{proving: p, proofs: make(map[int]*openProof)}
	var frames []formerFrame
	var origins []Origin
	for _, s := range streams {
		of := p.agent.formerOf(s.id)
		if of == nil {
			continue // its avatar has moved on
		}
		at := slices.IndexFunc(origins, func(o Origin) bool { return o.same(&of.Origin) })
		if at < 0 {
			at, origins = len(origins), append(origins, of.Origin)
		}
		rows, err := p.agent.store.Stretches(ctx, s.id, p.minutes.from, p.minutes.to)
		if err != nil {
			return err
		}
		for _, row := range rows {
			f.rows = append(f.rows, row)
			proof, err := f.open(ctx, len(f.rows)-1)
			if errors.Is(err, errMoved) {
				continue
			} else if err != nil {
				return err
			}
			for place, number := range proof.numbers {
				frames = append(frames, formerFrame{at, number, len(f.rows) - 1, place})
			}
		}
	}
	slices.SortFunc(frames, func(x, y formerFrame) int {
		return cmp.Or(cmp.Compare(x.origin, y.origin), cmp.Compare(x.number, y.number), cmp.Compare(x.stretch, y.stretch))
	})
	for len(frames) > 0 {
		n := 1
		for n < len(frames) && frames[n].origin == frames[0].origin && frames[n].number == frames[0].number {
			n++
		}
		frame, err := f.join(ctx, origins[frames[0].origin].Sender, frames[:n])
		if err != nil {
			return err
		}
		if len(frame.Own) > 0 {
			if err := p.do(frame); err != nil {
				return err
			}
		}
		frames = frames[n:]
	}
	return nil
}

// formerProving reads stretches with their proofs, some at a time.
type formerProving struct {
	*proving
	rows   []StretchRow
	proofs map[int]*openProof // bounded
}

// openProof is a stretch with its proof.
type openProof struct {
	body    []byte
	bounds  [][2]int
	proof   stretchProof
	of      [][]int // batches, by frame
	numbers []uint64
}

// maxProofs is how many proofs are held at once.
const maxProofs = 8

// open returns a stretch with its proof; errMoved: its retention has ended since it
// was listed.
func (f *formerProving) open(ctx context.Context, at int) (*openProof, error) {
	if p := f.proofs[at]; p != nil {
		return p, nil
	}
	row := &f.rows[at]
	body, err := f.agent.stretchBody(ctx, *row)
	if err != nil {
		return nil, err
	}
	kept, err := f.agent.keptProof(ctx, row.Fingerprint, row.Stream)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, errMoved
	} else if err != nil {
		return nil, err
	}
	p := &openProof{body: body}
	if p.proof, err = parseProof(kept); err != nil {
		return nil, err
	}
	if err := eachBatch(body, func(_, from, to int) error {
		p.bounds = append(p.bounds, [2]int{from, to})
		return nil
	}); err != nil {
		return nil, err
	}
	if len(p.proof.batches) != proofBatch*len(p.bounds) {
		return nil, carnet.Errorf(carnet.Tampered, "the proof of stretch %s is of other batches", row.Fingerprint)
	}
	p.of = make([][]int, len(p.proof.frames))
	for i := range p.bounds {
		frame, _ := p.proof.at(i)
		p.of[frame] = append(p.of[frame], i)
	}
	var one ledger.FrameProof
	for _, raw := range p.proof.frames {
		if !one.Parse(raw) {
			return nil, carnet.Errorf(carnet.Tampered, "the proof of stretch %s is damaged", row.Fingerprint)
		}
		h, _, err := seal.ParseSign1(one.Sign1)
		if err != nil {
			return nil, err
		}
		p.numbers = append(p.numbers, h.Number)
	}
	for old := range f.proofs {
		if len(f.proofs) < maxProofs {
			break
		}
		delete(f.proofs, old)
	}
	f.proofs[at] = p
	return p, nil
}

// join makes the proof of one frame of those in stretches.
func (f *formerProving) join(ctx context.Context, sender carnet.PartyID, parts []formerFrame) (*ProvenFrame, error) {
	out := &ProvenFrame{Sender: sender}
	type own struct {
		leaf  int
		batch []byte
		key   seal.Key
	}
	var batches []own
	var paths []seal.JointPart
	width := 0
	var keep []int
	for i := range parts {
		p, err := f.open(ctx, parts[i].stretch)
		if errors.Is(err, errMoved) {
			continue
		} else if err != nil {
			return nil, err
		}
		var one ledger.FrameProof
		if !one.Parse(p.proof.frames[parts[i].place]) {
			return nil, carnet.Errorf(carnet.Tampered, "the proof of frame %d of %s is damaged", parts[i].number, sender)
		}
		h, _, err := seal.ParseSign1(one.Sign1)
		if err != nil {
			return nil, err
		}
		width = int(h.Count)
		out.Sign1, out.Statement, out.Salt, out.Receipt = one.Sign1, one.Statement, one.Salt, one.Receipt
		path := seal.JointPart{Path: one.Path}
		for _, b := range p.of[parts[i].place] {
			_, leaf := p.proof.at(b)
			batch := p.body[p.bounds[b][0]:p.bounds[b][1]]
			key, err := f.agent.batchKey(batch)
			if err != nil {
				return nil, err
			}
			if f.wanted(batch, &key) {
				keep = append(keep, leaf)
			}
			batches, path.Own = append(batches, own{leaf, batch, key}), append(path.Own, leaf)
		}
		paths = append(paths, path)
	}
	if len(keep) == 0 {
		return out, nil
	}
	all, path, ok := seal.JoinPaths(width, paths)
	if !ok {
		return nil, carnet.Errorf(carnet.Tampered, "the proofs of frame %d of %s don't join", parts[0].number, sender)
	}
	slices.SortFunc(batches, func(x, y own) int { return cmp.Compare(x.leaf, y.leaf) })
	slices.Sort(keep)
	if len(keep) < len(all) {
		leaves := make([]carnet.Fingerprint, 0, len(all))
		for _, b := range batches {
			leaves = append(leaves, carnet.FingerprintOf(b.batch))
		}
		if path, ok = seal.ReducePath(width, all, leaves, path, keep); !ok {
			return nil, carnet.Errorf(carnet.Tampered, "the proof of frame %d of %s doesn't hold", parts[0].number, sender)
		}
	}
	out.Own, out.Path = keep, path
	for _, b := range batches {
		if _, kept := slices.BinarySearch(keep, b.leaf); kept {
			out.Batches, out.Keys = append(out.Batches, b.batch), append(out.Keys, b.key)
		}
	}
	return out, nil
}
