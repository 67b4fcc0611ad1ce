package storetest

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"carnet"
	"carnet/ledger"
	"carnet/register"
)

// Register is the suite for register.Store.
func Register(t *testing.T, fresh Fresh[register.Store]) {
	t.Run("Changes", func(t *testing.T) { testChanges(t, fresh) })
	t.Run("Conflicts", func(t *testing.T) { testRegisterConflicts(t, fresh) })
	t.Run("Contention", func(t *testing.T) { testRegisterContention(t, fresh) })
}

// registerChange makes a change that n tells apart from others, of homes by one byte each.
func registerChange(n uint64, crossing byte, homes ...byte) register.Change {
	c := register.Change{Number: n, Body: append(awkward(), fmt.Sprint(n)...), Item: statement(int(n))}
	if crossing > 0 {
		c.Crossing = carnet.CrossingID{crossing, 0, 0xff}
	}
	for _, h := range homes {
		c.Homes = append(c.Homes, homeID(h))
	}
	return c
}

func homeID(b byte) carnet.HomeID { return carnet.HomeID{b, 0, '\'', 0xff} }

// kept is a change as a store gives it back: with the number of its statement, and
// without those it is about.
func kept(c register.Change, statement uint64) register.Change {
	c.Item.ID, c.Homes, c.Crossing = statement, nil, carnet.CrossingID{}
	return c
}

func testChanges(t *testing.T, fresh Fresh[register.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	same(t, "last of none", get(s.Last(ctx))(t), register.Change{})
	all := []register.Change{registerChange(1, 0, 1), registerChange(2, 0, 0x80), registerChange(3, 7, 1, 0x80, 2), registerChange(4, 8), registerChange(5, 0, 0x80)}
	for _, c := range all[:4] {
		must(t, s.Append(ctx, c))
	}
	if s.Append(cancelled(), all[4]) == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
	close()
	s = open(t, db)
	must(t, s.Append(ctx, all[4]))
	for i := range all {
		all[i] = kept(all[i], uint64(i+1))
	}
	same(t, "last", get(s.Last(ctx))(t), all[4])
	same(t, "changes", get(s.Changes(ctx, 0, 99))(t), all)
	same(t, "two changes after the first", get(s.Changes(ctx, 1, 2))(t), all[1:3])
	same(t, "no change", get(s.Changes(ctx, math.MaxUint64, 9))(t), all[5:])
	same(t, "at most no change", get(s.Changes(ctx, 0, 0))(t), all[5:])
	same(t, "homes", get(s.Homes(ctx, []carnet.HomeID{homeID(0x80), homeID(3), homeID(1), {}}))(t),
		map[carnet.HomeID]register.Change{homeID(0x80): all[4], homeID(1): all[2]})
	same(t, "homes of none", get(s.Homes(ctx, nil))(t), map[carnet.HomeID]register.Change{})
	same(t, "decision", get(s.Decided(ctx, registerChange(0, 7).Crossing))(t), all[2])
	for _, id := range []carnet.CrossingID{{}, {7}, registerChange(0, 9).Crossing} {
		_, err := s.Decided(ctx, id)
		wantCode(t, err, carnet.NotFound)
	}

	// The statements are the depot's own, and the first receipt of one stays.
	must(t, s.Receipted(ctx, []ledger.Item{{ID: 3, Receipt: awkward()}}))
	must(t, s.Receipted(ctx, []ledger.Item{{ID: 3, Receipt: []byte("again")}}))
	all[2].Item.Receipt = awkward()
	same(t, "decision with its receipt", get(s.Decided(ctx, registerChange(0, 7).Crossing))(t), all[2])
}

func testRegisterConflicts(t *testing.T, fresh Fresh[register.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	must(t, s.Append(ctx, registerChange(1, 0, 1)))
	must(t, s.Append(ctx, registerChange(2, 7, 1)))
	for name, c := range map[string]struct {
		change register.Change
		code   carnet.Code
	}{
		"the same number":             {registerChange(2, 8, 1), carnet.Conflict},
		"a number left out":           {registerChange(4, 8, 1), carnet.Conflict},
		"number 0":                    {registerChange(0, 8, 1), carnet.Conflict},
		"a number out of range":       {registerChange(outside, 8, 1), carnet.TooLarge},
		"a crossing that was decided": {registerChange(3, 7, 1), carnet.Conflict},
		"the same change again":       {registerChange(2, 7, 1), carnet.Conflict},
	} {
		if got := carnet.CodeOf(s.Append(ctx, c.change)); got != c.code {
			t.Errorf("%s: code %q, want %q", name, got, c.code)
		}
	}
	want := []register.Change{kept(registerChange(1, 0, 1), 1), kept(registerChange(2, 7, 1), 2)}
	same(t, "changes", get(s.Changes(ctx, 0, 99))(t), want)
	same(t, "homes", get(s.Homes(ctx, []carnet.HomeID{homeID(1)}))(t), map[carnet.HomeID]register.Change{homeID(1): want[1]})
	must(t, s.Append(ctx, registerChange(3, 8))) // nothing of what was refused took a number
	same(t, "last", get(s.Last(ctx))(t), kept(registerChange(3, 8), 3))
}

// testRegisterContention lets two processes decide the same crossings: each is
// decided once, and the changes are in one order.
func testRegisterContention(t *testing.T, fresh Fresh[register.Store]) {
	const workers, crossings = 4, 12
	ctx := t.Context()
	db := fresh(t)
	stores := []register.Store{open(t, db), open(t, db)}
	var decided [crossings + 1]atomic.Int32
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			s := stores[w%2]
			for x := byte(1); x <= crossings; x++ {
				for {
					last, err := s.Last(ctx)
					if err != nil {
						t.Errorf("last: %v", err)
						return
					}
					if _, err = s.Decided(ctx, registerChange(0, x).Crossing); err == nil {
						break
					}
					err = s.Append(ctx, registerChange(last.Number+1, x, x, 200))
					if err == nil {
						decided[x].Add(1)
						break
					}
					if code := carnet.CodeOf(err); code != carnet.Conflict && code != carnet.Unavailable {
						t.Errorf("append: %v", err)
						return
					}
				}
			}
		})
	}
	group.Wait()
	for x := 1; x <= crossings; x++ {
		if n := decided[x].Load(); n != 1 {
			t.Errorf("crossing %d was decided %d times", x, n)
		}
	}
	all := get(stores[1].Changes(ctx, 0, 99))(t)
	for i, c := range all {
		if c.Number != uint64(i+1) || c.Item.ID != uint64(i+1) || c.Item.Entry != statement(i+1).Entry {
			t.Fatalf("change %d is number %d with statement %d", i+1, c.Number, c.Item.ID)
		}
	}
	same(t, "number of changes", len(all), crossings)
	same(t, "home of all", get(stores[0].Homes(ctx, []carnet.HomeID{homeID(200)}))(t)[homeID(200)].Number, uint64(crossings))
}
