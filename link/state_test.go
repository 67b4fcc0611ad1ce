package link

import "testing"

// What a sender says of incarnations is bounded before anything is done with it: a store
// can't go beyond, so such a hello could be said again and again.
func TestIncarnationsBeyondAllAreNotAdmitted(t *testing.T) {
	at := State{Incarnation: 3}
	for _, h := range []Hello{{Seen: 3, Known: 1<<63 - 1}, {Seen: 3, Known: 1<<64 - 1}, {Seen: 3, Own: 1<<62 + 1}} {
		if answer, _ := at.Admit(h); answer == Admitted {
			t.Errorf("%+v is admitted", h)
		}
	}
	if answer, above := at.Admit(Hello{Seen: 3, Known: 9}); answer != Admitted || above != 9 {
		t.Errorf("an honest hello: %v above %d", answer, above)
	}
}
