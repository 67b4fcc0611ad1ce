package world_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/link"
	"carnet/seal"
	"carnet/test/wait"
)

// History finds late data wherever it lies, in order of measured time.
func TestHistory(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		start := time.Now().Add(-24 * time.Hour).Truncate(time.Hour)
		at := func(minute int) time.Time { return start.Add(time.Duration(minute) * time.Minute) }
		// Numbers 0–2 at 10:00, 3–5 at 30:00, 6–8 late at 20:00, 9–11 later still at 00:00.
		h.send(s.run(carnet.Day, at(10), 3))
		w.compact()
		h.send(s.run(carnet.Month, at(30), 3), s.run(carnet.Day, at(20), 3))
		h.send(s.seal(carnet.Day, nil, carnet.Measurement{Name: "position/lat", Time: at(0).UnixNano(), Value: carnet.Float(9)},
			carnet.Measurement{Name: "position/lon", Time: at(0).UnixNano(), Value: carnet.Float(10)}))
		h.heads()
		ns := func(minute, second int) int64 { return at(minute).Add(time.Duration(second) * time.Second).UnixNano() }
		check := func() {
			t.Helper()
			for _, c := range []struct {
				q    avatar.Query
				want []float64
				more bool
			}{
				{avatar.Query{}, []float64{9, 10, 0, 1, 2, 6, 7, 8, 3, 4, 5}, false},
				{avatar.Query{From: ns(10, 1), To: ns(20, 2)}, []float64{1, 2, 6, 7}, false},
				{avatar.Query{From: ns(20, 2), To: ns(30, 0)}, []float64{8}, false},
				{avatar.Query{From: ns(30, 2)}, []float64{5}, false},
				{avatar.Query{To: ns(0, 0)}, nil, false},
				{avatar.Query{Property: "position"}, []float64{9, 10}, false},
				{avatar.Query{Property: "pos"}, nil, false},
				{avatar.Query{Property: "steps", Limit: 4}, []float64{0, 1, 2, 6}, true},
				{avatar.Query{Limit: 11}, []float64{9, 10, 0, 1, 2, 6, 7, 8, 3, 4, 5}, false},
			} {
				ms, more, err := w.agent.History(w.ctx, s.avatar, c.q)
				if err != nil || more != c.more || !slices.Equal(values(ms), c.want) {
					t.Errorf("%+v: %v, more %v, %v; want %v", c.q, values(ms), more, err, c.want)
				}
			}
		}
		check()
		w.restart()
		check()
		w.compact()
		check()
	})
}

// What moves into stretches while it is read is read once, whenever it moves.
func TestReadingWhileCompacting(t *testing.T) {
	for name, compactAt := range map[string]func(*faulty, func()){
		"before the stretches are listed": func(f *faulty, compact func()) { f.listing.Store(&compact) },
		"after":                           func(f *faulty, compact func()) { f.listed.Store(&compact) },
		"between two frames": func(f *faulty, compact func()) {
			f.reading.Store(&compact)
			f.reads.Store(3)
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, w *world) { readWhileCompacting(t, w, compactAt) })
		})
	}
}

func readWhileCompacting(t *testing.T, w *world, compactAt func(*faulty, func())) {
	h := w.hubs[0]
	s := h.open(nil)
	n := 0
	more := func() {
		for range 4 {
			at := time.Now().Add(time.Duration(n-1000) * time.Second)
			h.send(s.run(carnet.Day, at, 3), s.run(carnet.Keep, at.Add(3*time.Second), 3))
			n += 6
		}
		h.heads()
	}
	more()
	w.compact()
	more()
	compactAt(w.store, w.compact)
	if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(n)) {
		t.Errorf("history %v", got)
	}
	more()
	compactAt(w.store, w.compact)
	sub, err := w.agent.Subscribe(s.avatar, &avatar.Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	var got []float64
	for len(got) < n {
		e, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		got = append(got, values(e.Measurements)...)
	}
	if !slices.Equal(got, upTo(n)) {
		t.Errorf("replayed %v", got)
	}
}

// What is dropped while it is read is passed over.
func TestReadingWhileDropping(t *testing.T) {
	for name, read := range map[string]func(w *world, id carnet.AvatarID) (n int, err error){
		"history": func(w *world, id carnet.AvatarID) (int, error) {
			ms, _, err := w.agent.History(w.ctx, id, avatar.Query{})
			return len(ms), err
		},
		"evidence": func(w *world, id carnet.AvatarID) (n int, err error) {
			err = w.agent.Proven(w.ctx, id, avatar.AllFolded, func(f *avatar.ProvenFrame) error { n += len(f.Own); return nil })
			return n, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, w *world) {
				w.every = 5 * time.Millisecond
				w.restart()
				h := w.hubs[0]
				s := h.open(nil)
				h.send(s.run(carnet.Hour, time.Now(), 1))
				h.send(s.run(carnet.Keep, time.Now(), 1))
				h.heads()
				w.compact()
				drop := func() {
					w.ahead.Store(int64(2 * time.Hour))
					wait.Until(t, "a stretch is dropped, and deleted at the depot", func() bool {
						return w.totals().Stretches == 1 && len(w.depot.held()) == 1
					})
				}
				wait.Until(t, "the depot holds both", func() bool { return len(w.depot.held()) == 2 })
				w.store.listed.Store(&drop)
				if n, err := read(w, s.avatar); err != nil || n != 1 {
					t.Errorf("read %d, %v; want what is kept", n, err)
				}
			})
		})
	}
}

// A limit is kept, with the oldest, however much there is.
func TestHistoryKeepsTheOldest(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		start := time.Now().Add(-48 * time.Hour)
		const n = 5000
		for i := 7; i >= 0; i-- { // the newest first
			h.send(s.run(carnet.Day, start.Add(time.Duration(i*n)*time.Second), n))
			if i == 4 {
				w.compact()
			}
		}
		h.heads()
		ms, more, err := w.agent.History(w.ctx, s.avatar, avatar.Query{Limit: 10})
		if err != nil || !more || len(ms) != 10 {
			t.Fatalf("%d measurements, more %v, %v", len(ms), more, err)
		}
		for i, m := range ms {
			if m.Value.Num != float64(7*n+i) {
				t.Errorf("measurement %d is number %v", i, m.Value.Num)
			}
		}
	})
}

// A subscriber gets everything once and in the order in which it was received, that of
// several streams, too, whatever it and the compaction do meanwhile.
func TestReplayThenLive(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { eachStore(t, func(t *testing.T, w *world) { replayThenLive(t, w, seed) }) })
	}
}

func replayThenLive(t *testing.T, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	h := w.hubs[0]
	one := h.open(nil)
	sources := []*source{one, h.open(&one.avatar), h.open(&one.avatar)}
	var order []int // whose batches came
	send := func() {
		var batches [][]byte
		for range 1 + rng.IntN(4) {
			of := rng.IntN(len(sources))
			s := sources[of]
			order = append(order, of)
			class := []carnet.Retention{carnet.Day, carnet.Month, carnet.Keep}[rng.IntN(3)]
			n := 1 + rng.IntN(20)
			if rng.IntN(20) == 0 {
				n = 9000 // more than waits in memory, soon
			}
			batches = append(batches, s.run(class, time.Now().Add(-time.Hour), n))
		}
		h.send(batches...)
	}
	for range 20 {
		send()
		if rng.IntN(5) == 0 {
			w.compact()
		}
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	wanted := make(chan struct{}) // closed when all is sent
	came := make([][]int, 3)
	for reader := range 3 {
		pace := rand.New(rand.NewPCG(seed, uint64(reader)))
		wg.Go(func() { came[reader] = follow(ctx, t, w, sources, pace, wanted) })
	}
	wg.Go(func() {
		defer close(wanted)
		for range 60 {
			send()
			if rng.IntN(4) == 0 {
				w.compact()
			}
		}
	})
	wg.Wait()
	for reader := range came {
		if !slices.Equal(came[reader], order) {
			t.Errorf("reader %d gets batches of %v, received were %v", reader, came[reader], order)
		}
	}
}

// follow subscribes from the beginning, now and then anew from the last cursor,
// and reads until it has all that was sent. It returns whose batches came, in order.
func follow(ctx context.Context, t *testing.T, w *world, sources []*source, pace *rand.Rand, wanted chan struct{}) (came []int) {
	next := make([]float64, len(sources))
	cursor, err := avatar.ParseCursor("")
	if err != nil {
		t.Error(err)
		return came
	}
	done := func() bool {
		select {
		case <-wanted:
		default:
			return false
		}
		for i, s := range sources {
			if next[i] < float64(s.first) {
				return false
			}
		}
		return true
	}
	for !done() {
		sub, err := w.agent.Subscribe(sources[0].avatar, &cursor)
		if err != nil {
			t.Error(err)
			return came
		}
		for range 5 + pace.IntN(200) {
			if done() {
				break
			}
			e, err := nextSoon(ctx, sub)
			if errors.Is(err, errQuiet) {
				continue
			}
			if err != nil {
				t.Errorf("%v; at %v", err, next)
				sub.Close()
				return came
			}
			place := slices.Index(next, e.Measurements[0].Value.Num)
			if place < 0 {
				t.Errorf("measurement %v comes, want one of %v", e.Measurements[0].Value.Num, next)
				sub.Close()
				return came
			}
			// Streams that stand at the same number can't be told apart by it: the cursor can.
			place = moved(cursor, e.Cursor, place)
			came = append(came, place)
			for _, m := range e.Measurements {
				if m.Value.Num != next[place] {
					t.Errorf("stream %d: measurement %v comes, want %v", place, m.Value.Num, next[place])
				}
				next[place]++
			}
			if cursor, err = avatar.ParseCursor(e.Cursor.String()); err != nil {
				t.Error(err)
			}
			if pace.IntN(30) == 0 {
				time.Sleep(time.Duration(pace.IntN(10)) * time.Millisecond) // a slow reader
			}
		}
		sub.Close()
	}
	return came
}

var errQuiet = errors.New("nothing came")

func nextSoon(ctx context.Context, sub *avatar.Subscription) (avatar.Event, error) {
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	e, err := sub.Next(soon)
	if err != nil && ctx.Err() == nil && soon.Err() != nil {
		return e, errQuiet
	}
	return e, err
}

// moved returns the place of the stream that a cursor moved, by the cursor's
// form: its numbers are unsigned LEB128.
func moved(from, to avatar.Cursor, otherwise int) int {
	p, q := numbers(from), numbers(to)
	for i := range q {
		if i >= len(p) && q[i] > 0 || i < len(p) && q[i] != p[i] {
			return i
		}
	}
	return otherwise
}

// Frames become stretches byte for byte; the leaf lists stay, and prove them.
func TestCompactionKeepsBytes(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		a, b := h.open(nil), h.open(nil)
		now := time.Now()
		var roots []carnet.Fingerprint
		for i := range 10 {
			arrival := h.arrival(a.run(carnet.Day, now, i+1), b.run(carnet.Keep, now, 2), a.run(carnet.Month, now, 1), []byte("refused"))
			roots = append(roots, arrival.Frame.Root)
			if _, err := w.agent.Accept(w.ctx, h.name, []*link.Arrival{arrival}); err != nil {
				t.Fatal(err)
			}
		}
		h.heads()
		w.compact()
		headers, err := w.store.FrameHeaders(w.ctx, 0, 100)
		if err != nil || len(headers) != 10 {
			t.Fatalf("%d frames, %v", len(headers), err)
		}
		for i, row := range headers {
			var leaves []carnet.Fingerprint
			for leaf := range slices.Chunk(row.Leaves, 32) {
				leaves = append(leaves, carnet.Fingerprint(leaf))
			}
			if len(leaves) != 4 || seal.Root(leaves) != roots[i] {
				t.Errorf("frame %d keeps %d leaves, of another root", row.Number, len(leaves))
			}
		}
		found := 0
		for _, id := range []carnet.StreamID{a.id, b.id} {
			rows, err := w.store.Stretches(w.ctx, id, -1<<62, 1<<62)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				body, err := w.store.StretchBody(w.ctx, row.ID)
				if err != nil || carnet.FingerprintOf(body) != row.Fingerprint {
					t.Errorf("stretch %d isn't its fingerprint's: %v", row.ID, err)
				}
				for len(body) > 0 {
					n := 4 + int(binary.BigEndian.Uint32(body))
					if !h.sealed[carnet.FingerprintOf(body[4:n])] {
						t.Error("a stretch holds a batch that was never sent")
					}
					found, body = found+1, body[n:]
				}
			}
			if len(rows) != map[carnet.StreamID]int{a.id: 2, b.id: 1}[id] {
				t.Errorf("%d stretches: want one for each retention class", len(rows))
			}
		}
		if found != 30 {
			t.Errorf("%d batches of 30", found)
		}
	})
}

// Senders hear once that somebody waits, and again when they connect anew.
func TestDemand(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		said := func(on bool) note {
			return note{h.name, carnet.NoticeDemand, fmt.Sprintf(`{"stream":"%s","on":%v}`, s.id, on)}
		}
		check := func(what string, want ...note) {
			t.Helper()
			if got := w.notes.take(); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		one, err := w.agent.Subscribe(s.avatar, nil)
		if err != nil {
			t.Fatal(err)
		}
		check("the first subscriber", said(true))
		two, err := w.agent.Subscribe(s.avatar, nil)
		if err != nil {
			t.Fatal(err)
		}
		one.Close()
		check("the second")
		h.register()
		h.send()
		check("connected anew", said(true))
		h.send()
		check("going on")
		two.Close()
		two.Close()
		check("nobody", said(false))
	})
}

func numbers(c avatar.Cursor) (all []uint64) {
	b := []byte(decode(c.String()))
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		all, b = append(all, v), b[n:]
	}
	return all
}

// A frame that is lost is told, whoever reads.
func TestLostFrames(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		for range 3 {
			h.send(s.run(carnet.Day, time.Now(), 2))
		}
		h.heads()
		w.store.spoil.Store(&spoiler{frame: func(row *avatar.FrameRow) {
			if row.Number == 2 {
				row.ID += 1000
			}
		}})
		if _, _, err := w.agent.History(w.ctx, s.avatar, avatar.Query{}); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("a history with a lost part: %v", err)
		}
		ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
		defer cancel()
		err := w.agent.Proven(ctx, s.avatar, avatar.AllFolded, func(*avatar.ProvenFrame) error { return nil })
		if carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("evidence with a lost part: %v", err)
		}
		w.store.spoil.Store(nil)
	})
}

// Frames damaged on disk are found, reported and left where they are; the rest
// of them, and all others, are read as before.
func TestDamagedFrames(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		h := w.hubs[0]
		s := h.open(nil)
		start := time.Now().Add(-time.Hour)
		for i := range 5 {
			h.send(s.run(carnet.Day, start.Add(time.Duration(2*i)*time.Minute), 2), s.run(carnet.Day, start.Add(time.Duration(2*i+1)*time.Minute), 2))
		}
		h.heads()
		spoil := &spoiler{frame: func(row *avatar.FrameRow) {
			if row.Number == 3 {
				row.Body = bytes.Clone(row.Body)
				row.Body[len(row.Body)-1] ^= 1 // of the second batch
			}
		}}
		w.store.spoil.Store(spoil)
		if _, _, err := w.agent.History(w.ctx, s.avatar, avatar.Query{}); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("a history with a damaged part: %v", err)
		}
		w.compact()
		if n := w.totals(); n.FramesWithBody != 1 || n.Stretches != 1 {
			t.Errorf("totals %+v, want the damaged frame alone to stay", n)
		}
		before := w.statements()
		w.restart()
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, slices.Delete(upTo(20), 10, 12)) {
			t.Errorf("after a restart: %v", got)
		}
		w.compact()
		if w.agent.Defects() != 0 || w.statements() != before {
			t.Error("the sender is blamed for a damaged disk")
		}
		w.store.spoil.Store(nil) // a sound copy is put back
		w.restart()
		if got := values(w.history(s.avatar, avatar.Query{})); !slices.Equal(got, upTo(20)) {
			t.Errorf("when it is sound again: %v", got)
		}
		w.compact()
		if n := w.totals(); n.FramesWithBody != 0 {
			t.Errorf("totals %+v", n)
		}
	})
}
