package avatar

import (
	"slices"
	"time"

	"carnet"
)

// tail indexes the batches of the frames that are not compacted yet. It is
// rebuilt from the frames at the start. Owner: Agent.mu.
type tail struct {
	streams []*stream // those that aren't idle
	frames  []tailFrame
	bytes   int
	outcast stream               // refused batches: its id is nobody
	refused map[batchAt]struct{} // which they are, for the saved state
}

// nobody is the stream under which refused batches are kept: no avatar has it.
var nobody carnet.StreamID

// batchRef is where a batch lies in an uncompacted frame, and what it holds.
type batchRef struct {
	batchAt
	from, to             uint32 // in the frame's body
	class                carnet.Retention
	count                uint32
	number, first        uint64
	epoch                carnet.EpochID
	fromMinute, toMinute int64
}

// batchAt names a batch by its frame's id and its place there.
type batchAt struct {
	frame uint64
	leaf  uint32
}

type tailFrame struct {
	id       uint64
	received int64
	bytes    int
	damaged  bool // its body isn't what was received: it stays where it is
}

const (
	// tailBytes is how much may wait to be compacted before it is done at once.
	tailBytes = 64 << 20
	// maxWait is how long a frame waits for others to be compacted with.
	maxWait = 5 * time.Minute
)

func newTail() tail { return tail{refused: make(map[batchAt]struct{})} }

// add notes where a batch of a stream lies.
func (t *tail) add(s *stream, ref batchRef) {
	if s.tail == nil {
		t.streams = append(t.streams, s)
		s.tail = &streamTail{refs: make([]batchRef, 0, 4)}
	}
	s.tail.refs = append(s.tail.refs, ref)
}

// streamTail is what of a stream lies in frames that aren't compacted, in their
// order.
type streamTail struct{ refs []batchRef }

// waiting returns a stream's batches that aren't compacted. The caller holds
// Agent.mu.
func (s *stream) waiting() []batchRef {
	if s.tail == nil {
		return nil
	}
	return s.tail.refs
}

// drop takes compacted frames out of the index.
func (t *tail) drop(gone map[uint64]frameBody) {
	t.streams = slices.DeleteFunc(t.streams, func(s *stream) bool {
		s.tail.refs = slices.DeleteFunc(s.tail.refs, func(ref batchRef) bool { _, ok := gone[ref.frame]; return ok })
		if len(s.tail.refs) == 0 {
			s.tail = nil
		}
		return s.tail == nil
	})
	for at := range t.refused {
		if _, ok := gone[at.frame]; ok {
			delete(t.refused, at)
		}
	}
	var kept []tailFrame
	for _, f := range t.frames {
		if _, ok := gone[f.id]; ok {
			t.bytes -= f.bytes
		} else {
			kept = append(kept, f)
		}
	}
	t.frames = kept
}

// compactable returns the oldest sound frames up to one, unless there are fewer
// than least and none waits too long.
func (t *tail) compactable(least int, upTo uint64, now int64) (frames []tailFrame) {
	for _, f := range t.frames {
		if !f.damaged && f.id <= upTo {
			frames = append(frames, f)
		}
	}
	if len(frames) == 0 {
		return nil
	}
	// One that comes from the future was there before the clock was set back.
	if waits := now - frames[0].received; len(frames) < least && waits >= 0 && waits < int64(maxWait) {
		return nil
	}
	bytes := 0
	for i, f := range frames {
		if bytes += f.bytes; bytes > compactBytes && i > 0 {
			return frames[:i]
		}
	}
	return frames
}

// damage marks frames whose bodies are lost or changed.
func (t *tail) damage(ids map[uint64]bool) {
	for i := range t.frames {
		if f := &t.frames[i]; ids[f.id] {
			f.damaged = true
		}
	}
}
