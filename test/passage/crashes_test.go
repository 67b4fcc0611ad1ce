package passage_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"carnet"
	"carnet/avatar"
)

// At whichever durable step either world is lost, the same steps done again end in
// one home with everything.
func TestPassageThroughCrashes(t *testing.T) {
	for _, side := range []string{"source", "target"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", side, after), func(t *testing.T) {
				n := int64(1)
				for crashAt(t, side, after, n, true) {
					n++
				}
				t.Logf("%d durable steps", n-1)
				if n < 6 {
					t.Errorf("the %s has %d durable steps only", side, n-1)
				}
			})
		}
	}
}

// The same where the crossing is aborted: the target has nothing of it.
func TestAbortThroughCrashes(t *testing.T) {
	n := int64(1)
	for crashAt(t, "target", n%2 == 0, n, false) {
		n++
	}
	t.Logf("%d durable steps", n-1)
	if n < 5 {
		t.Errorf("the target has %d durable steps only", n-1)
	}
}

// crashAt loses a world at its n-th durable step; false: there are less.
func crashAt(t *testing.T, side string, after bool, n int64, commit bool) bool {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, streams := life(arena, 4)
	return crashIn(t, newPassage(t, arena, citadel, id), arena.history(id), latest(t, arena, id), streams[:], side, after, n, commit)
}

// crashIn loses a world of a passage at its n-th durable step; false: there are less.
// What moves is history and state; an abort leaves all that there was.
func crashIn(t *testing.T, p *passage, before, state []carnet.Measurement, streams []*source, side string, after bool, n int64, commit bool) bool {
	arena, citadel, id, whole := p.from, p.to, p.source, p.from.history(p.source)
	lost := map[string]*world{"source": arena, "target": citadel}[side]
	lost.disk.after.Store(after)
	lost.disk.at.Store(n)
	crashed := false
	steps := []func() error{p.expect, p.copy, p.freeze, p.prepare, p.arrive, p.depart}
	if !commit {
		steps = append(steps[:4], func() error { return citadel.agent.Drop(context.Background(), p.target) },
			func() error { return arena.agent.Thaw(context.Background(), id, p.crossing) })
	}
	for i := 0; i < len(steps); {
		err := steps[i]()
		if err == nil && !lost.disk.gone.Load() {
			i++
			continue
		}
		if !lost.disk.gone.Load() {
			t.Fatalf("%s lost at step %d: %v", side, n, err)
		}
		crashed = true
		lost.restart()
		if i > 1 && !commit && i < 4 {
			i = 4 // what has been begun is dropped
		}
	}
	if commit {
		if got := citadel.history(p.target); !slices.Equal(got, before) {
			t.Fatalf("%s lost at step %d: the history has %d measurements, want %d", side, n, len(got), len(before))
		}
		if got := latest(t, citadel, p.target); !slices.Equal(got, state) {
			t.Errorf("%s lost at step %d: the state is %v, want %v", side, n, got, state)
		}
		for _, s := range streams {
			nothingLeft(t, arena, s.id)
		}
		if len(citadel.agent.Arriving()) > 0 || len(arena.agent.Avatars()) != 1 {
			t.Errorf("%s lost at step %d: %v is still to come, %d are left", side, n, citadel.agent.Arriving(), len(arena.agent.Avatars()))
		}
	} else {
		for _, s := range streams {
			nothingLeft(t, citadel, s.id)
		}
		if totals, err := citadel.agent.Totals(t.Context()); err != nil || totals.Stretches != 0 {
			t.Errorf("%s lost at step %d: %d stretches are left, %v", side, n, totals.Stretches, err)
		}
		if got := arena.history(id); !slices.Equal(got, whole) || arena.agent.Changeable(id) != nil {
			t.Errorf("%s lost at step %d: the history of the source has changed, or it is still frozen", side, n)
		}
	}
	arena.stop()
	citadel.stop()
	return crashed
}

// What has come is known by its fingerprint, over a restart, and isn't fetched again; what
// is listed otherwise is.
func TestWhatCameIsntFetchedAgain(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, _ := life(arena, 5)
	p := newPassage(t, arena, citadel, id)
	must(t, p.expect())
	must(t, p.freeze())
	m := p.parsed()
	if len(m.Stretches) < 4 {
		t.Fatalf("%d stretches", len(m.Stretches))
	}
	must(t, citadel.agent.TakeStreams(t.Context(), p.target, m.Streams, nil))
	half := len(m.Stretches) / 2
	must(t, p.fetch(m.Stretches[:half]))
	for range 2 {
		missing, err := citadel.agent.Missing(t.Context(), p.target, m.Stretches)
		if err != nil || !slices.Equal(missing, m.Stretches[half:]) {
			t.Errorf("of %d stretches, %d of which came, %d are missing, %v", len(m.Stretches), half, len(missing), err)
		}
		citadel.restart()
	}
	other := m.Stretches[0]
	other.Fingerprint[0] ^= 1
	if missing, err := citadel.agent.Missing(t.Context(), p.target, []avatar.MovedStretch{other}); err == nil && len(missing) == 0 {
		t.Error("a stretch with other bytes counts as one that came")
	}
}
