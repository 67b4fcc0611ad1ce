package node

import (
	"context"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/api"
	"carnet/avatar"
	"carnet/crossing/r5"
	"carnet/policy"
)

// What a world serves to other worlds is what its document says, and nothing else.
func TestTheDocumentHasAllOfR5(t *testing.T) {
	served := append(slices.Collect(maps.Keys((&Node{}).callRoutes(nil))), "POST "+r5.TokenPath, "POST "+recoveredPath)
	slices.Sort(served)
	if described := api.CallPatterns(); !slices.Equal(served, described) {
		t.Errorf("served is %q, described %q", served, described)
	}
}

// stored is a world whose store says what would move when it is let.
type stored struct {
	answer chan carnet.Label
}

func (s stored) Properties(carnet.AvatarID) ([]policy.Property, error) { return nil, nil }

func (s stored) Departed(carnet.AvatarID) (avatar.Destination, error) {
	return avatar.Destination{}, carnet.Errorf(carnet.NotFound, "it is here")
}

func (s stored) MovedCeiling(ctx context.Context, _ carnet.AvatarID) (carnet.Label, error) {
	select {
	case l := <-s.answer:
		return l, nil
	case <-ctx.Done():
		return carnet.Label{}, ctx.Err()
	}
}

// Whether a move's calls still stand is answered from memory, which is read anew by somebody
// else; what isn't known, or was known long ago, is so until the asker's time is over.
func TestWhatWouldMoveIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stored{make(chan carnet.Label)}
		g := &granted{world: s, wake: make(chan struct{}, 1)}
		run, stop := context.WithCancel(t.Context())
		defer stop()
		go g.read(run)
		public, health := carnet.Label{}, carnet.Label{Sensitivity: carnet.Health}
		still := func(when string, want carnet.Label, code carnet.Code) {
			t.Helper()
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			l, err := g.lately(ctx, carnet.AvatarID{1})
			if l != want || carnet.CodeOf(err) != code {
				t.Errorf("%s: %v, %v", when, l, err)
			}
			if took := time.Since(began); took > 100*time.Millisecond || code == "" && took > 0 {
				t.Errorf("%s: it took %v", when, took)
			}
		}
		still("before it is known", public, carnet.Unavailable)
		go func() { s.answer <- public }()
		synctest.Wait()
		still("once the store answers", public, "")
		time.Sleep(2 * labelTime)
		still("when it is to be read anew", public, "")
		s.answer <- health
		synctest.Wait()
		still("once it is read anew", health, "")
		time.Sleep(ceilingTime - labelTime)
		still("while the store is silent", health, "")
		time.Sleep(labelTime)
		still("when that was long ago", public, carnet.Unavailable)
	})
}
