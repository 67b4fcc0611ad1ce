package thing

import (
	"errors"
	"testing"
	"time"
)

// TestCountsAreThereBeforeAnyLink: what a world got is said right after the agent's
// start, while the world is away, and once its peering is over.
func TestCountsAreThereBeforeAnyLink(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.connect()
	start := time.Now().Add(-time.Hour)
	for i := range 5 {
		d.send(heart(start.Add(time.Duration(i)*time.Second), 60), steps(start.Add(time.Duration(i)*time.Second), 1))
	}
	h.world.untilHolds(5)
	h.world.until("the steps are withheld, and recorded", func() bool {
		counted, err := h.agent.Counted(t.Context(), m.ID)
		return err == nil && of(counted, "steps").Withheld["not in view"] == 5
	})
	counts := func(when string) {
		t.Helper()
		info, err := h.agent.Mapping(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		if heart, steps := of(info.Got, "heart_rate"), of(info.Got, "steps"); heart.Sent != 5 || steps.Sent != 0 || steps.Withheld["not in view"] != 5 || info.Uncounted != "" {
			t.Errorf("%s: %+v %+v, unknown: %q; want 5 sent, 5 withheld", when, heart, steps, info.Uncounted)
		}
	}
	counts("connected")
	h.restart()
	counts("after a start")
	w := h.peer("arena", h.world)
	w.Purpose = "play"
	if err := h.agent.SetWorld(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	counts("after other terms")
	if err := h.agent.EndWorld(t.Context(), "arena"); err != nil {
		t.Fatal(err)
	}
	counts("after the peering")
	h.restart()
	counts("after the peering and a start")
}

// TestCountsThatCannotBeRead: they are said not to be known, and are once they can be read.
func TestCountsThatCannotBeRead(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.connect()
	d.send(heart(time.Now().Add(-time.Hour), 60))
	h.world.untilHolds(1)
	h.restart()
	h.store.unreadable(errors.New("the disk is gone"))
	if info, err := h.agent.Mapping(m.ID); err != nil || info.Uncounted == "" {
		t.Errorf("counts that can't be read: unknown %q, %v", info.Uncounted, err)
	}
	h.store.unreadable(nil)
	if info, err := h.agent.Mapping(m.ID); err != nil || info.Uncounted != "" || of(info.Got, "heart_rate").Sent != 1 {
		t.Errorf("read again: %+v, %v", info, err)
	}
}
