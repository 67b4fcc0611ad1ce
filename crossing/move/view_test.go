package move

import (
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/policy"
)

// A target whose view shows less than the history has doesn't get it: by its own view, by
// the one that is asked for, and, whatever the target says, at the source.
func TestATargetThatMaySeeLess(t *testing.T) {
	parse := func(text string) *policy.View {
		v, err := policy.ParseView([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return &v
	}
	for name, view := range map[string]string{
		"rounded":      `{"properties":{"heart_rate":{"round":5}}}`,
		"more rarely":  `{"properties":{"heart_rate":{"rate":"1s"}}}`,
		"changes":      `{"properties":{"heart_rate":{"deadband":2}}}`,
		"at some time": `{"properties":{"heart_rate":{"windows":{"UTC":["mon 08:00-12:00"]}}}}`,
		"not at all":   `{"properties":{"speed":{}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			want := func(err error, says string) {
				t.Helper()
				if carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "heart_rate") {
					t.Errorf("refused with %v, want %q", err, says)
				}
			}
			d, err := s.arena.Enrol(t.Context(), s.avatar, "citadel")
			if err != nil {
				t.Fatal(err)
			}
			w := Wanted{From: "arena", Home: d.Registered, Properties: d.Properties}
			s.citadel.Bears = parse(view)
			_, err = s.citadel.Ask(t.Context(), "operator", w)
			want(err, "the view that citadel has")
			s.citadel.Bears = nil
			w.View = []byte(view)
			_, err = s.citadel.Ask(t.Context(), "operator", w)
			want(err, "the view shows less")
			if n := len(s.stores["citadel"].arriving); n > 0 {
				t.Errorf("there is room for %d", n)
			}
			// A target that says nothing of what there is.
			w.Properties = nil
			if s.crossing, err = s.citadel.Ask(t.Context(), "operator", w); err != nil {
				t.Fatal(err)
			}
			s.order(time.Hour)
			s.goOn()
			s.want("by the source", None, Dropped, "arena")
			if why := s.citadel.came(s.crossing.ID).Why; !strings.Contains(why, "shows less") {
				t.Errorf("citadel says %q", why)
			}
		})
	}
	// What shows all of it, and more, doesn't matter.
	s := newStage(t)
	s.citadel.Bears = parse(`{"properties":{"heart_rate":{},"position":{"precision_m":1000}}}`)
	s.ask()
	if r, _, err := identity.ParseMoveRequest(s.crossing.Request); err != nil || len(r.Report) == 0 {
		t.Errorf("asked %+v, %v", r, err)
	}
}
