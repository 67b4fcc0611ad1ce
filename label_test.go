package carnet

import "testing"

// A clearance is within another exactly when every label that may flow to the one may
// flow to the other.
func TestWithinIsWhatLabelsSay(t *testing.T) {
	var clearances []Clearance
	var labels []Label
	for _, s := range []Sensitivity{Public, Health, Location, Health | Location} {
		for _, p := range []Set{"", NewSet("care"), NewSet("fitness"), NewSet("care", "fitness")} {
			for _, r := range []Set{"", NewSet("eu"), NewSet("eu", "us")} {
				clearances, labels = append(clearances, Clearance{s, p, r}), append(labels, Label{s, p, r})
			}
		}
	}
	for _, c := range clearances {
		for _, d := range clearances {
			want := true
			for _, l := range labels {
				want = want && (l.Exceeds(c) != "" || l.Exceeds(d) == "")
			}
			if got := c.Within(d); got != want {
				t.Errorf("%+v within %+v: %t, want %t", c, d, got, want)
			}
		}
	}
}
