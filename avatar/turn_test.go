package avatar

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"

	"carnet"
	"carnet/keys"
	"carnet/link"
	"carnet/seal"
)

// A sender that sends one frame after the other, each as much as a turn or more, holds up
// another's small batch for one turn, however far the opener is behind.
func TestSendersTakeTurns(t *testing.T) {
	t.Run("as much as a turn", func(t *testing.T) { takeTurns(t, 1) })
	t.Run("more than a turn", func(t *testing.T) { takeTurns(t, 2) })
}

// takeTurns has a greedy sender's frames be so many turns each.
func takeTurns(t *testing.T, each int) {
	synctest.Test(t, func(t *testing.T) {
		w := newProvenWorld(t)
		a := w.agent
		a.store = &passingStore{memoryStore: *w.store}
		if err := a.SetSender(Sender{Party: "watch", Key: w.key.Public().(ed25519.PublicKey), Self: "arena", Own: w.key}); err != nil {
			t.Fatal(err)
		}
		const frames = 10
		greedy, small := turnFrames(t, w, "hub", frames, 50, 500), turnFrames(t, w, "watch", 1, 1, 1)
		a.turns.most = len(greedy[0].Bytes) / each
		ctx, cancel := context.WithCancel(t.Context())
		committed := make(chan error, 1)
		go func() { committed <- a.commitLoop(ctx) }()
		defer func() { cancel(); <-committed }()

		accepted := make(chan error, 2)
		accept := func(sender carnet.PartyID, all []*link.Arrival) {
			var err error
			for _, one := range all {
				verdicts, failed := a.Accept(ctx, sender, []*link.Arrival{one})
				if failed == nil && verdicts[0] != link.Next {
					failed = errors.New("a frame isn't the next")
				}
				err = errors.Join(err, failed)
			}
			accepted <- err
		}
		go accept("hub", greedy)
		synctest.Wait() // the greedy one has stored as much as it is let
		go accept("watch", small)
		synctest.Wait()

		// The opener, step by step.
		o, folded := newOpening(), map[carnet.PartyID]int{}
		for folded["hub"]+folded["watch"] < frames+1 {
			opened := <-a.opened
			for _, g := range opened.groups {
				if folded[g.sender] += len(g.rows); g.sender == "watch" && folded["hub"] > 1 {
					t.Errorf("%d frames of the greedy sender were opened before the other's only one", folded["hub"])
				}
			}
			if err := a.openWork(ctx, &o, opened); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for range 2 {
			if err := <-accepted; err != nil {
				t.Error(err)
			}
		}
		if a.defects != 0 {
			t.Errorf("%d batches are refused", a.defects)
		}
		for sender, s := range a.turns.of {
			if s.unopened != 0 {
				t.Errorf("%d bytes of %s never ended their turn", s.unopened, sender)
			}
		}
	})
}

// turnFrames makes a stream of a sender's and frames of it.
func turnFrames(t *testing.T, w *provenWorld, sender carnet.PartyID, frames, batches, size int) (all []*link.Arrival) {
	t.Helper()
	id := carnet.NewStreamID()
	body, err := json.Marshal(carnet.MapRequest{Stream: id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.agent.Call(t.Context(), sender, carnet.CallMap, body); err != nil {
		t.Fatal(err)
	}
	epoch := seal.NewEpoch(id)
	if err := w.agent.keys.Put(t.Context(), keys.Entry{ID: keyID(seal.Path{Level: seal.EpochLevel, Stream: id, Epoch: epoch.Epoch}), Secret: epoch.Secret[:]}); err != nil {
		t.Fatal(err)
	}
	slot, err := epoch.Slot(1)
	if err != nil {
		t.Fatal(err)
	}
	last := link.Position{}
	for n := range frames {
		var sealed [][]byte
		for i := range batches {
			sealed = append(sealed, benchBatch(t, slot, uint64(n*batches+i), size))
		}
		arrival := arrivalOf(t, w, last, sealed)
		last = link.Position{Number: last.Number + 1, Hash: arrival.Hash}
		all = append(all, arrival)
	}
	return all
}
