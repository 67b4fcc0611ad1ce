package move

import (
	"context"
	"testing"
	"time"

	"carnet"
)

// While as many avatars keep still as may, another one is copied, and doesn't keep still
// before there is a place; and what ends its move ends its waiting.
func TestFewKeepStillAtOnce(t *testing.T) {
	s := newStage(t)
	full := func() {
		for range maxStill {
			if has, _ := s.citadel.still.take(t.Context(), carnet.NewCrossingID(), nil); !has {
				t.Fatal("there is no place")
			}
		}
	}
	full()
	s.ask()
	s.order(time.Hour)
	drive := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() { done <- s.citadel.goOnAtTarget(ctx, s.crossing.ID) }()
		return done
	}
	done := drive(t.Context())
	select {
	case err := <-done:
		t.Fatalf("it doesn't wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if source, target := s.states(); source != Offered || target != Copying || len(s.stores["arena"].frozen) > 0 {
		t.Errorf("it waits at %s and %s, frozen %v", source, target, s.stores["arena"].frozen)
	}
	<-s.citadel.still.free // one of the others is home
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, target := s.states(); target != Prepared || len(s.citadel.still.free) != maxStill {
		t.Errorf("then it is %s, and %d keep still", target, len(s.citadel.still.free))
	}
	s.goOn()
	s.want("in the end", Gone, Home, "citadel")
	if n := len(s.citadel.still.free); n != maxStill-1 {
		t.Errorf("in the end %d keep still", n)
	}

	s = newStage(t)
	full()
	s.ask()
	s.order(time.Hour)
	done = drive(t.Context())
	for source, _ := s.states(); source != Offered; source, _ = s.states() {
		time.Sleep(time.Millisecond)
	}
	if err := s.citadel.Cancel(t.Context(), s.crossing.ID, "operator"); err != nil {
		t.Fatal(err)
	}
	<-done
	s.goOn()
	s.want("called off", Kept, Dropped, "arena")
}
