package carnet_test

import (
	"testing"
	"time"

	"carnet"
)

// What is told was found twice, what is wrong first, and then the oldest of each sort.
func TestOnlyWhatLastsIsTold(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	of := func(kind, about string, wrong bool, since time.Time) carnet.Finding {
		return carnet.Finding{Kind: kind, About: about, Wrong: wrong, Since: since}
	}
	var first, again carnet.Examination
	first.Found(of("move", "passes", false, at))
	first.Found(of("move", "becomes wrong", false, at))
	for _, e := range []*carnet.Examination{&first, &again} {
		e.Found(of("move", "young", false, at.Add(time.Hour)))
		e.Found(of("move", "old", false, at))
		e.Found(of("item", "sword", false, at.Add(time.Hour)))
		e.Found(of("avatar", "lost", true, at))
	}
	again.Found(of("move", "new", false, at))
	again.Found(of("move", "becomes wrong", true, at))
	var got []string
	for _, f := range first.Lasting(again) {
		got = append(got, f.About)
	}
	if want := []string{"lost", "sword", "old", "young"}; len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("told of %q, want %q", got, want)
	}
	if none := first.Lasting(carnet.Examination{}); none == nil || len(none) > 0 {
		t.Errorf("nothing is told as %v", none)
	}
}
