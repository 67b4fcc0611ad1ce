package share_test

import (
	"context"
	"testing"
	"time"

	"carnet/crossing"
	"carnet/policy"
)

// A taker that renews a share with one view after the other, without end, doesn't keep it
// from ending: an end that falls into the storing of a renewal holds.
func TestAShareThatIsRenewedMeanwhileEnds(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	wide, err := policy.ParseView([]byte(`{"properties": {"heart_rate": {}, "steps": {}}}`))
	if err != nil {
		t.Fatal(err)
	}
	narrow := p.ask().(*asker).view
	for range 20 {
		taken, err := p.citadel.shares.Take(t.Context(), "arena", p.theirs, p.ours, "fitness")
		if err != nil || taken.State != crossing.Taking {
			t.Fatalf("the share is %s, %v", taken.State, err)
		}
		ctx, stop := context.WithCancel(t.Context())
		renewed, over := make(chan bool, 1), make(chan struct{})
		go func() {
			defer close(over)
			for n := 0; ctx.Err() == nil; n++ {
				view := narrow
				if n%2 == 0 {
					view = wide
				}
				_, err := p.arena.shares.Give(ctx, taken.Question, crossing.Permit{
					Taker: "citadel", Grant: "g", GrantVersion: 1, View: view, Mandate: "m", Most: p.ask().(*asker).most, Until: time.Now().Add(time.Hour),
				})
				if err != nil {
					break
				}
				select {
				case renewed <- true:
				default:
				}
			}
		}()
		<-renewed
		err = p.arena.shares.StopGiving(t.Context(), taken.ID, "operator", "enough")
		stop()
		<-over
		if err != nil {
			t.Fatalf("the share can't be ended: %v", err)
		}
		for _, g := range p.arena.shares.Given() {
			if g.ID == taken.ID && (g.End == nil || time.Since(g.End.Time) > time.Minute) {
				t.Fatalf("the share is %+v", g)
			}
		}
	}
}
