package api

import (
	"context"
	"sync/atomic"

	"carnet/policy"
)

// given counts what a world gave of its avatars since the start, by the reference point
// that it went over. What went to avatars of other worlds (R5) isn't among it.
type given struct {
	reads, events atomic.Uint64 // R4: answers, and events of live subscriptions
	exchanged     atomic.Uint64 // R3: both, to avatars of this world
}

// read counts an answer to the call that ctx is of.
func (g *given) read(ctx context.Context) { g.count(ctx, &g.reads) }

// event counts an event of a live subscription.
func (g *given) event(ctx context.Context) { g.count(ctx, &g.events) }

func (g *given) count(ctx context.Context, entities *atomic.Uint64) {
	switch a := admittedIn(ctx); {
	case a.who.Kind == policy.Foreign:
	case a.who.Kind == policy.AvatarSelf && a.Known.Grant != "":
		g.exchanged.Add(1)
	default:
		entities.Add(1)
	}
}
