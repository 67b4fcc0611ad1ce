package thing

import (
	"slices"
	"testing"
	"time"

	"carnet"
)

// A world is told what each mapping gives: when it connects, when a view changes, and that
// one has ended; again at each connection, and only what it wasn't told on it.
func TestAWorldIsToldWhatItIsGiven(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{},"speed":{},"position":{}}}`)
	is := func(what string, m MappingInfo, want ...string) {
		t.Helper()
		h.world.until(what, func() bool { got, told := h.world.gives[m.Stream]; return told && slices.Equal(got, want) })
	}
	set := func(m MappingInfo, text string) {
		t.Helper()
		if _, err := h.agent.SetView(t.Context(), "ann", m.ID, view(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	h.connect()
	is("what it gives at first: what the policy denies isn't among it", m, "heart_rate", "speed")
	set(m, `{"properties":{"heart_rate":{"round":10}}}`)
	is("what the new view gives", m, "heart_rate")
	other := h.mapTo(d, `{"properties":{"steps":{}}}`)
	is("what another mapping gives", other, "steps")
	h.world.mu.Lock()
	calls := h.world.calls[carnet.CallGives]
	h.world.mu.Unlock()
	set(m, `{"properties":{"heart_rate":{"round":20}}}`)
	time.Sleep(2 * givesEvery)
	h.world.mu.Lock()
	if n := h.world.calls[carnet.CallGives]; n != calls {
		t.Errorf("it is told %d times that nothing else is given", n-calls)
	}
	h.world.mu.Unlock()
	// While the world is away one view changes, and a mapping ends.
	h.world.disconnect()
	set(other, `{"properties":{"steps":{},"stress":{}}}`)
	if _, err := h.agent.Unmap(t.Context(), "ann", m.ID); err != nil {
		t.Fatal(err)
	}
	h.world.gives = nil // it is an older copy
	h.connect()
	is("that one has ended", m)
	is("what the other gives now", other, "steps", "stress")
	h.restart()
	h.world.gives = nil
	h.connect()
	is("what an agent that began anew gives", other, "steps", "stress")
	// A world of before is told once on each connection.
	h.world.disconnect()
	h.world.old, h.world.calls[carnet.CallGives] = true, 0
	h.connect()
	h.world.until("a call", func() bool { return h.world.calls[carnet.CallGives] > 0 })
	time.Sleep(2 * givesEvery)
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	if n := h.world.calls[carnet.CallGives]; n != 1 {
		t.Errorf("a world that doesn't know the call is told %d times", n)
	}
}
