package avatar

import (
	"carnet"
)

// tail indexes the batches of the frames that are not compacted yet. It is
// rebuilt from the frames at the start. Owner: Agent.mu.
type tail struct {
	batches map[carnet.StreamID][]batchRef // in the order of their frames
	frames  []tailFrame
	bytes   int
}

// batchRef is where a batch lies in an uncompacted frame, and what it holds.
type batchRef struct {
	frame                uint64
	from, to             uint32 // in the frame's body
	leaf                 uint32
	class                carnet.Retention
	count                uint32
	number, first        uint64
	fromMinute, toMinute int64
}

type tailFrame struct {
	id       uint64
	received int64
	bytes    int
	batches  int
}

// tailBytes is how much may wait to be compacted before it is done at once.
const tailBytes = 64 << 20

func (a *Agent) note(id carnet.StreamID, ref batchRef) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tail.batches == nil {
		a.tail.batches = make(map[carnet.StreamID][]batchRef)
	}
	a.tail.batches[id] = append(a.tail.batches[id], ref)
}

// drop takes compacted frames out of the index.
func (t *tail) drop(upTo uint64) {
	for id, refs := range t.batches {
		n := 0
		for n < len(refs) && refs[n].frame <= upTo {
			n++
		}
		if n == len(refs) {
			delete(t.batches, id)
		} else if n > 0 {
			t.batches[id] = append([]batchRef(nil), refs[n:]...)
		}
	}
	n := 0
	for n < len(t.frames) && t.frames[n].id <= upTo {
		t.bytes -= t.frames[n].bytes
		n++
	}
	t.frames = append([]tailFrame(nil), t.frames[n:]...)
}
