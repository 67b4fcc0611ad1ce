package avatar

import (
	"cmp"
	"context"
	"slices"

	"carnet"
)

// moved is what has gone into stretches and still lies in its frames, too: taking
// the bodies off all of them in the transaction that adds the stretches would hold
// up who waits for an acknowledgement. Nobody looks at them but who takes them off.
// It becomes: nothing → adding → strips, of frames that are moved → nothing.
type moved struct {
	strips  []Strip  // by frame, ascending
	damaged []uint64 // frames whose bodies stay, since they aren't what was received; ascending
	adding  frameSet // frames of which not all batches are in stretches yet
	version uint64   // of the document; 0: there is none
}

// movedDocument says the same durably.
type movedDocument struct {
	Frames frameSet `json:"frames"`
	Adding frameSet `json:"adding,omitempty"`
}

// frameSet is a set of frames: ranges of ids, both included, ascending.
type frameSet [][2]uint64

// add adds a frame with a greater id than any.
func (s *frameSet) add(id uint64) {
	if n := len(*s); n > 0 && (*s)[n-1][1]+1 == id {
		(*s)[n-1][1] = id
	} else {
		*s = append(*s, [2]uint64{id, id})
	}
}

func (s frameSet) has(id uint64) bool {
	_, found := slices.BinarySearchFunc(s, id, func(r [2]uint64, id uint64) int {
		switch {
		case r[1] < id:
			return -1
		case r[0] > id:
			return 1
		}
		return 0
	})
	return found
}

// movedID is the one document's.
const movedID = "frames"

// has reports whether a frame's batches are in stretches, all of them.
func (m *moved) has(frame uint64) bool {
	_, found := slices.BinarySearchFunc(m.strips, frame, func(s Strip, id uint64) int { return cmp.Compare(s.Frame, id) })
	if !found {
		_, found = slices.BinarySearch(m.damaged, frame)
	}
	return found
}

// document is what is kept of m.
func (m *moved) document() (doc movedDocument) {
	frames := slices.Clone(m.damaged)
	for i := range m.strips {
		frames = append(frames, m.strips[i].Frame)
	}
	slices.Sort(frames)
	for _, id := range frames {
		doc.Frames.add(id)
	}
	doc.Adding = m.adding
	return doc
}

// become has store keep the document of what is moved then, or its deletion, and
// takes that for what is moved.
func (a *Agent) become(then moved, store func(carnet.Document) error) (err error) {
	d := carnet.Document{Kind: kindMoved, ID: movedID, Version: a.moved.version + 1}
	if doc := then.document(); len(doc.Frames)+len(doc.Adding) > 0 {
		if d, err = a.document(kindMoved, movedID, d.Version, doc); err != nil {
			return err
		}
		then.version = d.Version
	}
	if err := store(d); err != nil {
		return err
	}
	a.moved = then
	return nil
}

// move packs the frames' batches into stretches and adds these, a piece at a time.
// The first piece says that it was begun, the last that the frames are moved. The
// caller holds moveMu.
func (a *Agent) move(ctx context.Context, bodies map[uint64]frameBody, strips []Strip, p *pace) error {
	var piece []StretchRow
	size := 0
	for row := range stretches(a.refsOf(bodies, strips), bodies) {
		if size > 0 && size+len(row.Body) > pieceBytes {
			if err := a.addPiece(ctx, piece, strips, false); err != nil {
				return err
			}
			if err := p.rest(ctx); err != nil {
				return err
			}
			piece, size = piece[:0], 0
		}
		piece, size = append(piece, row), size+len(row.Body)
	}
	return a.addPiece(ctx, piece, strips, true)
}

// addPiece adds stretches, of which these are the last or not, in one transaction
// with what it says of the frames.
func (a *Agent) addPiece(ctx context.Context, piece []StretchRow, strips []Strip, last bool) error {
	if err := a.keepEpochs(ctx, piece); err != nil {
		return err
	}
	then := moved{damaged: a.moved.damaged}
	if last {
		then.strips = strips
	} else if len(a.moved.adding) > 0 { // that was said with the first
		return a.store.Compact(ctx, Compaction{Stretches: piece})
	} else {
		for i := range strips {
			then.adding.add(strips[i].Frame)
		}
	}
	return a.become(then, func(d carnet.Document) error {
		return a.store.Compact(ctx, Compaction{Stretches: piece, Documents: []carnet.Document{d}})
	})
}

// undoAtOnce is how many stretches of half a compaction are deleted at once.
const undoAtOnce = 16

// undo deletes the stretches of a compaction that ended in its midst: its batches
// are all in their frames, and packed anew. The depot has none of them. The caller
// holds moveMu, or nobody else has the agent.
func (a *Agent) undo(ctx context.Context) error {
	if len(a.moved.adding) == 0 {
		return nil
	}
	for after := uint64(0); ; {
		rows, err := a.store.Unstored(ctx, after, undoAtOnce)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		var ids []uint64
		for i := range rows {
			after = rows[i].ID
			or, err := parseOrigins(rows[i].Origins)
			if err != nil {
				return err
			}
			// All of a stretch comes from the frames of one compaction.
			// Those that came with a move name no frames of this world.
			if len(or.batches) > 0 && a.formerOf(rows[i].Stream) == nil && a.moved.adding.has(or.batches[0].frame) {
				ids = append(ids, after)
			}
		}
		if len(ids) == 0 {
			continue
		}
		if err := a.store.DropStretches(ctx, ids, nil, nil); err != nil {
			return err
		}
	}
	return a.become(moved{strips: a.moved.strips, damaged: a.moved.damaged}, func(d carnet.Document) error {
		return a.store.Put(ctx, []carnet.Document{d}, nil)
	})
}

// half reports whether a compaction ended in its midst and isn't undone yet.
func (a *Agent) half() bool {
	a.moveMu.RLock()
	defer a.moveMu.RUnlock()
	return len(a.moved.adding) > 0
}

// How much one transaction takes off: others commit in between.
const (
	stripFrames = 64
	stripLeaves = 32 << 10 // bytes of leaf lists
)

// strip takes the bodies off the frames that were moved. The caller holds moveMu,
// or nobody else has the agent.
func (a *Agent) strip(ctx context.Context, p *pace) error {
	for len(a.moved.strips) > 0 {
		all := a.moved.strips
		n, leaves := 1, len(all[0].Leaves)
		for n < len(all) && n < stripFrames && leaves+len(all[n].Leaves) <= stripLeaves {
			leaves += len(all[n].Leaves)
			n++
		}
		c := Compaction{Strip: all[:n]}
		if n < len(all) {
			if err := a.store.Compact(ctx, c); err != nil {
				return err
			}
			a.moved.strips = all[n:]
		} else if err := a.become(moved{damaged: a.moved.damaged}, func(d carnet.Document) error {
			c.Documents = []carnet.Document{d}
			return a.store.Compact(ctx, c)
		}); err != nil {
			return err
		}
		if err := p.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// loadMoved goes on where a process before ended while it took bodies off, and
// undoes what it added before all was there. Without room for that it is left for
// later.
func (a *Agent) loadMoved(ctx context.Context) error {
	doc, version, err := loadOne[movedDocument](ctx, a, kindMoved, movedID)
	if err != nil || version == 0 {
		return err
	}
	a.moved.version, a.moved.adding = version, doc.Adding
	for _, r := range doc.Frames {
		for at := r[0] - 1; at < r[1]; {
			rows, err := a.store.Frames(ctx, at, compactBytes)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			for i := range rows {
				if at = rows[i].ID; at <= r[1] {
					a.foundMoved(&rows[i])
				}
			}
		}
	}
	if err = a.undo(ctx); err == nil {
		err = a.strip(ctx, a.newPace())
	}
	if carnet.CodeOf(err) == carnet.NoSpace {
		return nil
	}
	return err
}

func (a *Agent) foundMoved(row *FrameRow) {
	leaves, err := a.leavesOf(row)
	if err != nil {
		a.log.Error("a stored frame is damaged and stays where it is; its batches are in stretches", "sender", row.Sender, "frame", row.Number, "err", err)
		a.moved.damaged = append(a.moved.damaged, row.ID)
		return
	}
	a.moved.strips = append(a.moved.strips, Strip{Frame: row.ID, Leaves: leaves})
}
