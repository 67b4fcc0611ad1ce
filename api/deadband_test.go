package api_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/identity"
)

// Under a deadband the receiver sees the same, however often and whenever it begins:
// while another of its subscriptions is open, after a time in which none was, and from
// the beginning.
func TestADeadbandIsOfTheGrant(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	p, app := s.application()
	s.give(terms(s, p, m.Avatar, `{"properties":{"heart_rate":{"deadband":5}}}`, identity.ActionSubscribe))
	sent := 0
	send := func(all ...float64) {
		for _, bpm := range all {
			d.mustSend(heart(sent, bpm))
			sent++
			s.arrived(m.Avatar, uint64(sent))
		}
	}
	send(60)
	first := watching(t, app, m.Avatar, nil)
	send(63)
	second := watching(t, app, m.Avatar, nil)
	send(66, 68.5, 72.5)
	for name, w := range map[string]*watched{"first": first, "second": second} {
		if got := w.next(2); !slices.Equal(got, []float64{66, 72.5}) {
			t.Errorf("the %s subscription shows %v", name, got)
		}
		w.end()
	}
	send(75, 79)
	third := watching(t, app, m.Avatar, nil)
	send(80, 85)
	if got := third.next(1); !slices.Equal(got, []float64{85}) {
		t.Errorf("after a time without any, a subscription shows %v", got)
	}
	third.end()
	beginning := ""
	again := watching(t, app, m.Avatar, &beginning)
	if got := again.next(4); !slices.Equal(got, []float64{66, 72.5, 79, 85}) {
		t.Errorf("from the beginning it shows %v", got)
	}
	again.end()
}

// watched is a subscription of which some events are read.
type watched struct {
	t      *testing.T
	end    context.CancelFunc
	values chan float64
}

// watching opens a subscription, and returns when it is.
func watching(t *testing.T, c *client.Client, id carnet.AvatarID, after *string) *watched {
	ctx, end := context.WithTimeout(t.Context(), 20*time.Second) // what doesn't come is missed, not waited for
	w := &watched{t, end, make(chan float64, 100)}
	begun := make(chan struct{}, 100)
	go func() {
		defer close(begun)
		defer close(w.values)
		for e, err := range c.Watch(ctx, id, after) {
			if err != nil {
				return
			}
			for _, m := range e.Measurements {
				w.values <- m.Value.Num
			}
			begun <- struct{}{}
		}
	}()
	<-begun
	return w
}

// next returns the next values, as many as come of n.
func (w *watched) next(n int) (all []float64) {
	w.t.Helper()
	for v := range w.values {
		if all = append(all, v); len(all) == n {
			break
		}
	}
	return all
}
