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
type moved struct {
	strips  []Strip  // by frame, ascending
	damaged []uint64 // frames whose bodies stay, since they aren't what was received; ascending
	version uint64   // of the document; 0: there is none
}

// movedDocument says the same durably.
type movedDocument struct {
	Frames [][2]uint64 `json:"frames"` // ids from and to, both included
}

// movedID is the one document's.
const movedID = "frames"

func (m *moved) has(frame uint64) bool {
	_, found := slices.BinarySearchFunc(m.strips, frame, func(s Strip, id uint64) int { return cmp.Compare(s.Frame, id) })
	if !found {
		_, found = slices.BinarySearch(m.damaged, frame)
	}
	return found
}

// movedDocument makes the document that names frames, or its deletion.
func (a *Agent) movedDocument(damaged []uint64, strips []Strip) (carnet.Document, error) {
	frames := slices.Clone(damaged)
	for i := range strips {
		frames = append(frames, strips[i].Frame)
	}
	slices.Sort(frames)
	if len(frames) == 0 {
		return carnet.Document{Kind: kindMoved, ID: movedID, Version: a.moved.version + 1}, nil
	}
	var doc movedDocument
	for _, id := range frames {
		if n := len(doc.Frames); n > 0 && doc.Frames[n-1][1]+1 == id {
			doc.Frames[n-1][1] = id
		} else {
			doc.Frames = append(doc.Frames, [2]uint64{id, id})
		}
	}
	return a.document(kindMoved, movedID, a.moved.version+1, doc)
}

// move adds stretches and says in the same transaction which frames' batches they
// hold. The caller holds moveMu.
func (a *Agent) move(ctx context.Context, c Compaction, strips []Strip) error {
	d, err := a.movedDocument(a.moved.damaged, strips)
	if err != nil {
		return err
	}
	c.Documents = append(c.Documents, d)
	if err := a.store.Compact(ctx, c); err != nil {
		return err
	}
	a.moved.strips, a.moved.version = strips, d.Version
	return nil
}

// How much one transaction takes off: others commit in between.
const (
	stripFrames = 64
	stripLeaves = 32 << 10 // bytes of leaf lists
)

// strip takes the bodies off the frames that were moved. The caller holds moveMu,
// or nobody else has the agent.
func (a *Agent) strip(ctx context.Context) error {
	for len(a.moved.strips) > 0 {
		all := a.moved.strips
		n, leaves := 1, len(all[0].Leaves)
		for n < len(all) && n < stripFrames && leaves+len(all[n].Leaves) <= stripLeaves {
			leaves += len(all[n].Leaves)
			n++
		}
		c, version := Compaction{Strip: all[:n]}, a.moved.version
		if n == len(all) {
			d, err := a.movedDocument(a.moved.damaged, nil)
			if err != nil {
				return err
			}
			c.Documents = append(c.Documents, d)
			if version = d.Version; d.Body == nil {
				version = 0
			}
		}
		if err := a.store.Compact(ctx, c); err != nil {
			return err
		}
		a.moved.strips, a.moved.version = all[n:], version
	}
	return nil
}

// loadMoved goes on where a process before ended while it took bodies off. Without
// room for that it is left for later.
func (a *Agent) loadMoved(ctx context.Context) error {
	doc, version, err := loadOne[movedDocument](ctx, a, kindMoved, movedID)
	if err != nil || version == 0 {
		return err
	}
	a.moved.version = version
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
	if err := a.strip(ctx); carnet.CodeOf(err) != carnet.NoSpace {
		return err
	}
	return nil
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
