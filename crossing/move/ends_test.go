package move

import (
	"context"
	"testing"
	"time"

	"carnet"
)

// The register hears at once that an item has ended, also once it answers again, and not
// only when it is asked about homes: until then an older chain would bring it back.
func TestTheRegisterHearsOfAnEndAtOnce(t *testing.T) {
	for name, end := range map[string]func(*stage, carnet.ItemID){
		"left behind by a move": func(s *stage, id carnet.ItemID) {
			s.asks(s.wanted(nil, []carnet.ItemID{id}))
			s.order(time.Hour)
			s.goOn()
			s.want("moved", Gone, Home, "citadel")
		},
		"erased": func(s *stage, _ carnet.ItemID) {
			if _, err := s.items["arena"].Erase(s.t.Context(), s.avatar, carnet.ErasureID{1}); err != nil {
				s.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := recovering(t)
			sword := s.issue("sword")
			s.backAgain()
			heard := make(chan struct{})
			claims := 0
			s.registrar.mu.Lock()
			s.registrar.waiting = map[carnet.HomeID]func(){sword.Home: func() { // it answers the second time
				s.registrar.mu.Lock()
				defer s.registrar.mu.Unlock()
				claims++
				s.registrar.away = claims == 1
				if claims == 2 {
					close(heard)
				}
			}}
			s.registrar.mu.Unlock()
			ctx, cancel := context.WithCancel(t.Context())
			watched := make(chan struct{})
			go func() {
				defer close(watched)
				s.arena.watchHomes(ctx)
			}()
			end(s, sword.ID)
			select {
			case <-heard:
			case <-time.After(time.Minute):
				t.Error("the register doesn't hear of it")
			}
			cancel()
			<-watched
			if all := s.arena.Items.Ending(); len(all) > 0 {
				t.Errorf("it is to be told of %+v", all)
			}
			if h := s.registrar.homes[sword.Home]; h.Chain != 2 {
				t.Errorf("the register says that the chain has %d entries", h.Chain)
			}
		})
	}
}

// A registrar that refuses, whatever for, hasn't heard that an item has ended: it is told
// again, and what is to be erased isn't over.
func TestAnEndThatIsRefusedIsToldAgain(t *testing.T) {
	s, _ := recovering(t)
	sword := s.issue("sword")
	s.backAgain()
	if _, err := s.items["arena"].Erase(t.Context(), s.avatar, carnet.ErasureID{1}); err != nil {
		t.Fatal(err)
	}
	s.registrar.refuses = map[string]error{"claim": carnet.Errorf(carnet.Forbidden, "no rule permits claim-home")}
	if left := s.arena.tellEnds(t.Context()); left != 1 || len(s.arena.Items.Ending()) != 1 {
		t.Errorf("refused, %d are left to tell, and %d items' ends", left, len(s.arena.Items.Ending()))
	}
	delete(s.registrar.refuses, "claim")
	if left := s.arena.tellEnds(t.Context()); left != 0 || len(s.arena.Items.Ending()) != 0 || s.registrar.homes[sword.Home].Chain != 2 {
		t.Errorf("permitted, %d are left to tell; the register says %+v", left, s.registrar.homes[sword.Home])
	}
}
