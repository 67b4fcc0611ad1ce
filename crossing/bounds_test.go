package crossing

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/policy"
)

// A share that has more than the avatar's policy lets others have ends within 250 ms of
// the policy; one that is given then has no more than that.
func TestAPolicyEndsSharesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, m := gives(t, 0)
		a.SharesOfGrant = 2
		give := func() Given {
			t.Helper()
			q := Question{ID: carnet.NewShareID(), Avatar: carnet.AvatarID{1}, For: carnet.AvatarID{2}, Purpose: "fitness"}
			most := carnet.Clearance{Sensitivity: carnet.AllSensitive}
			if _, err := a.Give(t.Context(), q, Permit{Taker: "citadel", Grant: "g", Most: most, Until: time.Now().Add(time.Hour)}); err != nil {
				t.Fatal(err)
			}
			return a.given[q.ID].Given
		}
		first := give()
		ctx, stop := context.WithCancel(t.Context())
		go a.Run(ctx)
		time.Sleep(10 * time.Second)
		if a.flowing() != 1 {
			t.Fatal("nothing flows before")
		}
		b, err := policy.ParseBounds([]byte(`{"transmit":{"sensitivity":"personal"}}`))
		if err != nil {
			t.Fatal(err)
		}
		m.bounds.Store(&b)
		a.Recheck()
		time.Sleep(250 * time.Millisecond)
		if end := a.Given()[0].End; end == nil || !strings.Contains(end.Why, "transmit.sensitivity") || a.Given()[0].ID != first.ID {
			t.Errorf("after 250 ms it has ended as %+v", end)
		}
		if g := give(); g.Most.Sensitivity != carnet.Personal {
			t.Errorf("given anew it has %s", g.Most.Sensitivity)
		}
		time.Sleep(5 * time.Second)
		if a.flowing() != 1 {
			t.Error("what was given within the policy doesn't flow")
		}
		stop()
		synctest.Wait()
	})
}
