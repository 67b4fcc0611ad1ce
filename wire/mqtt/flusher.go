package mqtt

import "sync"

// flusher writes what sessions have due, from a few goroutines for all of them:
// since an outlet never waits, no session holds up another, and a commit group
// wakes one goroutine instead of one per connection.
type flusher struct {
	mu    sync.Mutex
	work  sync.Cond
	queue []*session // each at most once: session.queued
	next  int        // what of queue has been taken
	idle  int
	done  bool
}

// width is how many goroutines flush.
const width = 2

func newFlusher() *flusher {
	f := &flusher{}
	f.work.L = &f.mu
	return f
}

// add queues s. It is called once per session and group.
func (f *flusher) add(s *session) {
	f.mu.Lock()
	f.queue = append(f.queue, s)
	// One goroutine is enough for a few sessions; a second shares a long queue.
	if f.idle == width || f.idle > 0 && len(f.queue)-f.next > 8 {
		f.work.Signal()
	}
	f.mu.Unlock()
}

// run flushes until stop and until the queue is empty.
func (f *flusher) run() {
	var scratch []byte
	var batch [4]*session
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for f.next == len(f.queue) {
			if f.done {
				return
			}
			f.idle++
			f.work.Wait()
			f.idle--
		}
		n := copy(batch[:], f.queue[f.next:])
		clear(f.queue[f.next : f.next+n])
		if f.next += n; f.next == len(f.queue) {
			f.queue, f.next = f.queue[:0], 0
		}
		f.mu.Unlock()
		for _, s := range batch[:n] {
			scratch = s.flush(scratch)
		}
		clear(batch[:])
		f.mu.Lock()
	}
}

func (f *flusher) stop() {
	f.mu.Lock()
	f.done = true
	f.mu.Unlock()
	f.work.Broadcast()
}
