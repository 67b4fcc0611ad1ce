package thing

import (
	"testing"
	"time"
)

// TestALinkOfARemovedPeering: there is none any more, neither up nor down, with a mapping
// to the world and without one; and so after a start.
func TestALinkOfARemovedPeering(t *testing.T) {
	for name, mapped := range map[string]bool{"with a mapping": true, "without a mapping": false} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			d := h.add(quick())
			if mapped {
				h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
			}
			links := func(when string, want int) {
				t.Helper()
				st, err := h.agent.Status(t.Context())
				if err != nil || len(st.Links) != want || st.Links == nil {
					t.Errorf("%s: the links are %+v, %v; want %d", when, st.Links, err, want)
				}
			}
			links("before", 1)
			h.connect()
			d.send(heart(time.Now().Add(-time.Hour), 60))
			if err := h.agent.EndWorld(t.Context(), "arena"); err != nil {
				t.Fatal(err)
			}
			links("removed", 0)
			h.ended = true
			h.restart()
			links("after a start", 0)
		})
	}
}
