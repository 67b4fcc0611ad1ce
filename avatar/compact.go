package avatar

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"carnet"
	"carnet/ledger"
)

// compactBytes is how many bytes of frames one compaction reads.
const compactBytes = 32 << 20

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

// compactLoop compacts, stores stretches at the depot, and drops what its
// retention class has ended.
func (a *Agent) compactLoop(ctx context.Context) error {
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for {
		least := 1
		select {
		case <-ctx.Done():
			return nil
		case <-a.compact:
		case <-tick.C:
			least = minFrames
		}
		if err := a.Compact(ctx, least); err != nil && ctx.Err() == nil {
			if code := carnet.CodeOf(err); code != carnet.NoSpace && code != carnet.Tampered && code != carnet.Unavailable {
				return err
			}
			a.log.Error("compaction failed; frames stay as they are", "err", err)
		}
		if err := a.storeStretches(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("stretches were not stored at the depot; it is tried again", "err", err)
		}
		if err := a.dropOver(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("what its retention has ended was not dropped; it is tried again", "err", err)
		}
	}
}

// Compact moves the batches of folded frames into stretches, unless there are
// fewer frames than least. States are saved first: what a stretch holds is never
// folded again.
func (a *Agent) Compact(ctx context.Context, least int) error {
	for {
		frames, refs := a.compactable(least)
		if len(frames) == 0 {
			return nil
		}
		upTo := frames[len(frames)-1].id
		if err := a.saveStates(ctx); err != nil {
			return err
		}
		bodies, strips, err := a.frameBodies(ctx, frames)
		if err != nil {
			return err
		}
		c := Compaction{Strip: strips}
		for id, of := range refs {
			c.Stretches = append(c.Stretches, stretches(id, of, bodies)...)
		}
		slices.SortFunc(c.Stretches, func(p, q StretchRow) int {
			return cmp.Or(slices.Compare(p.Stream[:], q.Stream[:]), cmp.Compare(p.FirstBatch, q.FirstBatch))
		})
		if err := a.store.Compact(ctx, c); err != nil {
			return err
		}
		a.mu.Lock()
		a.tail.drop(upTo)
		a.mu.Unlock()
	}
}

// compactable returns the oldest frames of the tail, and their batches by stream.
func (a *Agent) compactable(least int) (frames []tailFrame, refs map[carnet.StreamID][]batchRef) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if len(a.tail.frames) < least {
		return nil, nil
	}
	bytes := 0
	for _, f := range a.tail.frames {
		if bytes += f.bytes; bytes > compactBytes && len(frames) > 0 {
			break
		}
		frames = append(frames, f)
	}
	if len(frames) == 0 {
		return nil, nil
	}
	upTo := frames[len(frames)-1].id
	refs = make(map[carnet.StreamID][]batchRef)
	for id, of := range a.tail.batches {
		for _, ref := range of {
			if ref.frame <= upTo {
				refs[id] = append(refs[id], ref)
			}
		}
	}
	return frames, refs
}

type frameBody struct {
	received int64
	body     []byte
}

// frameBodies reads the frames' bodies and computes the leaf lists that they
// keep.
func (a *Agent) frameBodies(ctx context.Context, frames []tailFrame) (map[uint64]frameBody, []Strip, error) {
	bodies := make(map[uint64]frameBody, len(frames))
	var strips []Strip
	last := frames[len(frames)-1].id
	for at := frames[0].id - 1; at < last; {
		rows, err := a.store.Frames(ctx, at, compactBytes)
		if err != nil {
			return nil, nil, err
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if at = row.ID; row.ID > last {
				break
			}
			leaves := make([]byte, 0, 32*row.Batches)
			err := eachBatch(row.Body, func(_, from, to int) error {
				f := carnet.FingerprintOf(row.Body[from:to])
				leaves = append(leaves, f[:]...)
				return nil
			})
			if err != nil {
				return nil, nil, err
			}
			bodies[row.ID] = frameBody{row.Received, row.Body}
			strips = append(strips, Strip{Frame: row.ID, Leaves: leaves})
		}
	}
	if len(bodies) != len(frames) {
		return nil, nil, carnet.Errorf(carnet.Tampered, "the store has %d of %d frames that are to be compacted", len(bodies), len(frames))
	}
	return bodies, strips, nil
}

// stretches packs a stream's batches, one run of rows per retention class.
func stretches(id carnet.StreamID, refs []batchRef, bodies map[uint64]frameBody) (rows []StretchRow) {
	refs = slices.Clone(refs)
	slices.SortStableFunc(refs, func(p, q batchRef) int { return cmp.Compare(p.class, q.class) })
	var row *StretchRow
	var from origins
	end := func() {
		if row != nil {
			row.Origins = from.append(nil)
			row.Fingerprint = carnet.FingerprintOf(row.Body)
		}
	}
	for _, ref := range refs {
		f := bodies[ref.frame]
		batch := f.body[ref.from:ref.to]
		if row == nil || row.Class != ref.class || len(row.Body)+len(batch) > stretchBytes {
			end()
			rows = append(rows, StretchRow{Stream: id, Class: ref.class, FirstBatch: ref.number, FromMinute: ref.fromMinute, ToMinute: ref.toMinute})
			row, from = &rows[len(rows)-1], origins{first: ref.first}
		}
		row.LastBatch = max(row.LastBatch, ref.number)
		row.FirstBatch = min(row.FirstBatch, ref.number)
		row.Batches++
		row.Measurements += uint64(ref.count)
		row.FromMinute, row.ToMinute = min(row.FromMinute, ref.fromMinute), max(row.ToMinute, ref.toMinute)
		row.Received = max(row.Received, f.received)
		row.Body = binary.BigEndian.AppendUint32(row.Body, uint32(len(batch)))
		row.Body = append(row.Body, batch...)
		from.first, from.next = min(from.first, ref.first), max(from.next, ref.first+uint64(ref.count))
		from.batches = append(from.batches, origin{ref.number, ref.frame, ref.leaf})
	}
	end()
	return rows
}

// storeStretches puts stretches into the depot that it doesn't hold yet.
func (a *Agent) storeStretches(ctx context.Context) error {
	for {
		rows, err := a.store.Unstored(ctx, 64)
		if err != nil || len(rows) == 0 {
			return err
		}
		var stored []uint64
		var items []ledger.Item
		for _, row := range rows {
			body, err := a.store.StretchBody(ctx, row.ID)
			if err != nil {
				return err
			}
			if carnet.FingerprintOf(body) != row.Fingerprint {
				return carnet.Errorf(carnet.Tampered, "stretch %d is damaged and the depot does not hold it yet", row.ID)
			}
			if _, err := a.depot.PutObject(ctx, body, row.Class); err != nil {
				return err
			}
			item, err := a.state(ledger.Statement{
				Kind: ledger.StoredObject, Time: a.now().UnixNano(), Peer: a.depot.Party(), Object: row.Fingerprint, Size: uint64(len(body)), Stream: row.Stream,
			})
			if err != nil {
				return err
			}
			stored, items = append(stored, row.ID), append(items, item)
		}
		if err := a.store.Put(ctx, nil, items); err != nil {
			return err
		}
		if err := a.store.Stored(ctx, stored); err != nil {
			return err
		}
		a.recorded()
	}
}

// lives says how long a retention class is kept after receipt.
var lives = map[carnet.Retention]time.Duration{
	carnet.Hour: time.Hour, carnet.Day: 24 * time.Hour, carnet.Month: 31 * 24 * time.Hour, carnet.Year: 366 * 24 * time.Hour,
}

// dropOver deletes stretches whose retention has ended, here and at the depot.
func (a *Agent) dropOver(ctx context.Context) error {
	for class, life := range lives {
		gone, err := a.store.DropStretches(ctx, class, a.now().Add(-life).UnixNano())
		if err != nil {
			return err
		}
		for _, f := range gone {
			item, err := a.state(ledger.Statement{
				Kind: ledger.Deleted, Time: a.now().UnixNano(), Object: f, Reason: "retention " + class.String() + " has ended",
			})
			if err != nil {
				return err
			}
			if err := a.store.Put(ctx, nil, []ledger.Item{item}); err != nil {
				return err
			}
			if err := a.depot.DeleteObject(ctx, f); err != nil && carnet.CodeOf(err) != carnet.NotFound {
				return err
			}
		}
	}
	return nil
}

// stateDocument is an avatar's state as of a frame.
type stateDocument struct {
	Folded  uint64        `json:"folded"` // the last frame that it holds
	Latest  []savedValue  `json:"latest"`
	Streams []savedStream `json:"streams"`
}

type savedValue struct {
	Name string      `json:"n"`
	Unit string      `json:"u,omitempty"`
	Time int64       `json:"t"`
	Kind carnet.Kind `json:"k"`
	Num  float64     `json:"v,omitempty"`
	Str  []byte      `json:"s,omitempty"`
}

type savedStream struct {
	Stream       carnet.StreamID `json:"stream"`
	NextBatch    uint64          `json:"next_batch"`
	NextFirst    uint64          `json:"next_first"`
	Measurements uint64          `json:"measurements"`
	Batches      uint64          `json:"batches"`
}
