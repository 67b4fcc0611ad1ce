package thing

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestAViewThatChangesAllTheTimeDisturbsNobody has one user change a view of their
// own as fast as it goes, while their thing and another one send: the link goes on
// as it was, everything of the other thing arrives, and the last view holds.
func TestAViewThatChangesAllTheTimeDisturbsNobody(t *testing.T) {
	h := newHub(t)
	watch, busy := h.add(quick()), h.add(quick())
	theirs := h.mapTo(watch, `{"properties":{"heart_rate":{}}}`)
	own := h.mapTo(busy, `{"properties":{"heart_rate":{}}}`)
	h.connect()
	start := time.Now().Add(-time.Hour)
	watch.send(heart(start, 60))
	h.world.untilHolds(1)
	r := h.agent.sender("arena").current()

	var changing sync.WaitGroup
	for range 4 {
		changing.Go(func() {
			for i := range 25 {
				if _, err := h.agent.SetView(t.Context(), "ann", own.ID, view(t, fmt.Sprintf(`{"properties":{"heart_rate":{"round":%d}}}`, 2+i%2))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	const n = 200
	for i := 1; i < n; i++ {
		at := start.Add(time.Duration(i) * time.Second)
		busy.send(heart(at, float64(60+i%100)))
		watch.send(heart(at, float64(60+i%100)))
		time.Sleep(time.Millisecond)
	}
	changing.Wait()
	h.world.untilHolds(2*n - 1)
	if got := len(h.world.values(theirs.Stream, "heart_rate")); got != n {
		t.Errorf("the world holds %d of the other thing's %d", got, n)
	}
	if h.agent.sender("arena").current() != r {
		t.Error("the link began anew")
	}
	if _, err := h.agent.SetView(t.Context(), "ann", own.ID, view(t, `{"properties":{}}`)); err != nil {
		t.Fatal(err)
	}
	busy.send(heart(start.Add(n*time.Second), 60))
	watch.send(heart(start.Add(n*time.Second), 60))
	h.world.untilHolds(2 * n)
	if got := len(h.world.values(own.Stream, "heart_rate")); got != n-1 {
		t.Errorf("%d measurements are there that the view withholds", got-n+1)
	}
}

// TestViewsThatDecideNothingAreNotKept: of changes between which nothing was
// decided the last is kept, also over a restart.
func TestViewsThatDecideNothingAreNotKept(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	set := func(round int) {
		if _, err := h.agent.SetView(t.Context(), "ann", m.ID, view(t, fmt.Sprintf(`{"properties":{"heart_rate":{"round":%d}}}`, round))); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 20 {
		set(2 + round)
	}
	d.send(heart(time.Now().Add(-time.Hour), 61))
	h.connect()
	h.world.untilHolds(1)
	for round := range 20 {
		set(22 + round)
	}
	for range 2 {
		views, err := h.agent.Views(m.ID)
		if err != nil || len(views) != 3 || views[1].Version != 21 || views[2].Version != 41 {
			t.Errorf("the views are %+v, %v: want the first, the 21st and the 41st", views, err)
		}
		h.restart()
	}
	if got := h.world.values(m.Stream, "heart_rate"); len(got) != 1 || got[0].Value.Num != 63 { // to the nearest 21
		t.Errorf("the world holds %+v", got)
	}
}
