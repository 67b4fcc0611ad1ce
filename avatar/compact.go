package avatar

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"iter"
	"slices"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// compactBytes is how many bytes of frames one compaction reads.
const compactBytes = 32 << 20

// pieceBytes is how much of it one reading takes, and one transaction adds: others
// have the processors, the disk and the store in between.
const pieceBytes = 512 << 10

// stretchBytes is how large a stretch grows.
const stretchBytes = 4 << 20

// minFrames is how few frames are left alone by the regular compaction: a
// stretch of one batch costs more than it saves.
const minFrames = 16

func (a *Agent) compactSoon() {
	select {
	case a.compact <- struct{}{}:
	default:
	}
}

// compactLoop compacts, drops, destroys keys and stores stretches at the depot.
// While storing rests, the others go on.
func (a *Agent) compactLoop(ctx context.Context) error {
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	rest := time.NewTimer(a.every)
	defer rest.Stop()
	rest.Stop()
	var last uint64 // the stretch after which storing goes on when it has rested; 0: it doesn't rest
	for {
		var err error
		rested := false
		select {
		case <-ctx.Done():
			return nil
		case <-a.compact:
			err = a.tidy(ctx, 1)
		case <-tick.C:
			err = a.tidy(ctx, minFrames)
		case <-rest.C:
			rested = true
		}
		if err != nil {
			return err
		}
		if last != 0 && !rested {
			continue
		}
		var pause time.Duration
		if last, pause, err = a.storeSome(ctx, last); err != nil && ctx.Err() == nil {
			a.log.Warn("stretches were not stored at the depot; it is tried again", "err", err)
		}
		if last != 0 {
			rest.Reset(pause)
		}
	}
}

// tidy compacts, forgets and drops what its retention class has ended, and
// destroys keys that are over. Its error is one after which the process must end.
func (a *Agent) tidy(ctx context.Context, least int) error {
	a.endValues()
	if err := a.Compact(ctx, least); err != nil && ctx.Err() == nil {
		if code := carnet.CodeOf(err); code == "" || code == carnet.Conflict {
			return err
		}
		a.log.Error("compaction failed; frames stay as they are", "err", err)
	}
	if err := a.bringHome(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("what the depot may not keep isn't all brought home; it is tried again", "err", err)
	}
	if err := a.DropOver(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("what its retention has ended was not dropped; it is tried again", "err", err)
	}
	if err := a.endEpochs(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("keys that are over were not destroyed; it is tried again", "err", err)
	}
	return nil
}

// Compact moves the batches of folded frames into stretches, unless there are
// fewer frames than least and none waits too long. States are saved first: what
// a stretch holds is never folded again. It takes its time; frames that come
// meanwhile are the next one's.
func (a *Agent) Compact(ctx context.Context, least int) error {
	a.moveMu.Lock()
	defer a.moveMu.Unlock()
	a.mu.RLock()
	upTo := a.folded
	a.mu.RUnlock()
	return a.compactHeld(ctx, least, upTo, a.newPace())
}

// compactHeld is Compact for frames up to one, at a pace. The caller holds moveMu.
func (a *Agent) compactHeld(ctx context.Context, least int, upTo uint64, p *pace) error {
	for {
		if err := a.undo(ctx); err != nil {
			return err
		}
		if err := a.strip(ctx, p); err != nil {
			return err
		}
		a.mu.RLock()
		frames := a.tail.compactable(least, upTo, a.now().UnixNano())
		a.mu.RUnlock()
		if len(frames) == 0 {
			return a.saveRest(ctx)
		}
		if err := a.saveStates(ctx); err != nil {
			return err
		}
		bodies, strips, damaged, err := a.frameBodies(ctx, frames, p)
		if err != nil {
			return err
		}
		if len(damaged) > 0 {
			a.mu.Lock()
			a.tail.damage(damaged)
			a.mu.Unlock()
		}
		if len(bodies) == 0 {
			continue
		}
		if err := a.move(ctx, bodies, strips, p); err != nil {
			return err
		}
		a.mu.Lock()
		a.tail.drop(bodies)
		a.mu.Unlock()
	}
}

// streamRefs are batches of one stream.
type streamRefs struct {
	id   carnet.StreamID
	refs []batchRef
}

// refsOf returns the batches of frames by stream, in the order of the streams' ids.
func (a *Agent) refsOf(frames map[uint64]frameBody, strips []Strip) (of []streamRefs) {
	n := 0
	for i := range strips {
		n += len(strips[i].Leaves) / len(carnet.Fingerprint{})
	}
	all := make([]batchRef, 0, n)
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.tail.streams {
		if s.gone { // what came of it goes with its frames
			continue
		}
		from := len(all)
		for i := range s.tail.refs {
			if _, ok := frames[s.tail.refs[i].frame]; ok {
				all = append(all, s.tail.refs[i])
			}
		}
		if len(all) > from {
			of = append(of, streamRefs{s.id, all[from:len(all):len(all)]})
		}
	}
	slices.SortFunc(of, func(p, q streamRefs) int { return slices.Compare(p.id[:], q.id[:]) })
	return of
}

type frameBody struct {
	received int64
	body     []byte
}

// frameBodies reads the frames' bodies and the leaf lists that they keep. A
// frame that is lost or not what was received is left out and named.
func (a *Agent) frameBodies(ctx context.Context, frames []tailFrame, p *pace) (bodies map[uint64]frameBody, strips []Strip, damaged map[uint64]bool, err error) {
	bodies, damaged = make(map[uint64]frameBody, len(frames)), make(map[uint64]bool)
	for _, f := range frames {
		damaged[f.id] = true // until it is seen to be sound
	}
	last := frames[len(frames)-1].id
	for at := frames[0].id - 1; at < last; {
		rows, err := a.store.Frames(ctx, at, pieceBytes)
		if err != nil {
			return nil, nil, nil, err
		}
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			row := &rows[i]
			if at = row.ID; !damaged[at] {
				continue // not asked for
			}
			leaves, err := a.leavesOf(row)
			if err != nil {
				a.log.Error("a stored frame is damaged and stays where it is", "sender", row.Sender, "frame", row.Number, "err", err)
				continue
			}
			delete(damaged, at)
			bodies[at] = frameBody{row.Received, row.Body}
			strips = append(strips, Strip{Frame: at, Leaves: leaves})
		}
		if err := p.rest(ctx); err != nil {
			return nil, nil, nil, err
		}
	}
	return bodies, strips, damaged, nil
}

// leavesOf returns the fingerprints of a frame's batches, one after the other.
// It fails unless they are those that this world has stated to have received.
func (a *Agent) leavesOf(row *FrameRow) (list []byte, err error) {
	leaves := make([]carnet.Fingerprint, 0, row.Batches)
	list = make([]byte, 0, cap(leaves)*len(carnet.Fingerprint{}))
	if err := eachBatch(row.Body, func(_, from, to int) error {
		leaves = append(leaves, carnet.FingerprintOf(row.Body[from:to]))
		list = append(list, leaves[len(leaves)-1][:]...)
		return nil
	}); err != nil {
		return nil, err
	}
	plain, err := a.rest.Open(nil, statementAAD, row.Statement.Statement)
	if err != nil {
		return nil, err
	}
	said, err := ledger.ParseStatement(plain)
	if err != nil {
		return nil, err
	}
	if said.Root != seal.Root(leaves) || said.Peer != row.Sender || said.Frame != row.Number {
		return nil, carnet.Errorf(carnet.Tampered, "the batches of frame %d of %s are not those that were received", row.Number, row.Sender)
	}
	return list, nil
}

// stretches packs streams' batches, one run of rows per retention class. Each row
// is made when it is asked for.
func stretches(of []streamRefs, bodies map[uint64]frameBody) iter.Seq[StretchRow] {
	return func(yield func(StretchRow) bool) {
		for _, s := range of {
			refs := s.refs
			slices.SortStableFunc(refs, func(p, q batchRef) int { return cmp.Compare(p.class, q.class) })
			for len(refs) > 0 {
				n, size := 1, refs[0].size()
				for n < len(refs) && refs[n].class == refs[0].class && size+refs[n].size() <= stretchBytes {
					size += refs[n].size()
					n++
				}
				if !yield(stretchOf(s.id, refs[:n], size, bodies)) {
					return
				}
				refs = refs[n:]
			}
		}
	}
}

// stretchOf makes one row of batches that take size bytes.
func stretchOf(id carnet.StreamID, refs []batchRef, size int, bodies map[uint64]frameBody) StretchRow {
	head := &refs[0]
	row := StretchRow{Stream: id, Class: head.class, FirstBatch: head.number, FromMinute: head.fromMinute, ToMinute: head.toMinute}
	from := origins{first: head.first, batches: make([]origin, 0, len(refs))}
	if id == nobody {
		mark := refusedMark()
		row.Body = appendPart(make([]byte, 0, partHead+len(mark)+size), mark)
	} else {
		row.Body = make([]byte, 0, size)
	}
	for i := range refs {
		ref := &refs[i]
		f := bodies[ref.frame]
		row.LastBatch = max(row.LastBatch, ref.number)
		row.FirstBatch = min(row.FirstBatch, ref.number)
		row.Batches++
		row.Measurements += uint64(ref.count)
		row.FromMinute, row.ToMinute = min(row.FromMinute, ref.fromMinute), max(row.ToMinute, ref.toMinute)
		row.Received = max(row.Received, f.received)
		row.Body = appendPart(row.Body, f.body[ref.from:ref.to])
		from.first, from.next = min(from.first, ref.first), max(from.next, ref.first+uint64(ref.count))
		from.batches = append(from.batches, origin{ref.number, ref.frame, ref.leaf})
	}
	row.Origins = from.append(nil)
	row.Fingerprint = carnet.FingerprintOf(row.Body)
	return row
}

// partHead is how many bytes stand before each part of a body.
const partHead = 4

// size is how many bytes a batch takes in a body.
func (r *batchRef) size() int { return partHead + int(r.to-r.from) }

func appendPart(body, part []byte) []byte {
	return append(binary.BigEndian.AppendUint32(body, uint32(len(part))), part...)
}

// refusedMark begins a stretch of refused batches: no sender can make one that
// has the fingerprint of another stretch.
func refusedMark() []byte {
	mark := make([]byte, 16)
	rand.Read(mark)
	return mark
}
