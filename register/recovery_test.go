package register

import (
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

// recovering is a recovery of a home from arena to citadel with all that its petition
// needs; wait is the registrar's.
func recovering(wait time.Duration) (Known, Question) {
	manifest := carnet.Fingerprint{5}
	order := identity.Order{
		Crossing: carnet.CrossingID{1}, Registrar: "vault", Owner: "alice", Source: "arena", Target: "citadel",
		Homes: []carnet.HomeID{{2}}, Made: noon, Until: noon.Add(30 * 24 * time.Hour),
		Recovers: &identity.Recovers{Manifest: manifest, Incarnations: []uint64{4}, Chains: []uint64{0}},
	}
	hash := carnet.Fingerprint{4}
	return Known{Registrar: "vault", Wait: wait, Homes: map[carnet.HomeID]Home{{2}: {ID: carnet.HomeID{2}, Version: 1, World: "arena", Owner: "alice", Incarnation: 4}}},
		Question{
			By: "citadel", Crossing: order.Crossing, Want: Commit, Order: &order, Hash: hash,
			Acceptance: &identity.Acceptance{Crossing: order.Crossing, Target: "citadel", Order: hash, Manifest: manifest},
		}
}

// petition has a recovery's petition recorded.
func (k *Known) petition(t *testing.T, q Question, now time.Time) {
	t.Helper()
	d, homes, err := Decide(*k, q, now)
	if d != nil || err != nil || len(homes) != 1 || homes[0].Recovery.Crossing != q.Crossing {
		t.Fatalf("the petition comes to %+v, %+v, %v", d, homes, err)
	}
	k.Homes[homes[0].ID] = homes[0]
}

func TestARecoveryIsCarriedOutOnceItsTimeHasCome(t *testing.T) {
	const wait = 7*24*time.Hour + 2*time.Millisecond
	k, q := recovering(wait)
	asked := noon.Add(time.Minute + 999*time.Millisecond)
	k.petition(t, q, asked)
	stands := k.Homes[carnet.HomeID{2}]
	if r := stands.Recovery; r.Target != "citadel" || !r.Signed.Equal(noon) || r.Until.Sub(asked) < wait || r.Until.Sub(asked) > wait+time.Second || stands.Incarnation != 4 {
		t.Errorf("recorded as %+v", stands)
	}
	k.Wait = 0 // another setting changes nothing of a petition that there is
	for _, early := range []time.Time{asked, stands.Recovery.Until.Add(-1)} {
		if d, homes, err := Decide(k, q, early); d != nil || len(homes) > 0 || err != nil {
			t.Errorf("at %v: %+v, %+v, %v", early, d, homes, err)
		}
	}
	d, homes, err := Decide(k, q, stands.Recovery.Until)
	if err != nil || d == nil || d.Outcome != identity.Commit || *d.Manifest != q.Order.Recovers.Manifest || len(homes) != 1 {
		t.Fatalf("in time: %+v, %+v, %v", d, homes, err)
	}
	if want := (Home{ID: carnet.HomeID{2}, Version: 2, World: "citadel", Owner: "alice", Incarnation: 5}); homes[0] != want {
		t.Errorf("moved as %+v, want %+v", homes[0], want)
	}
}

// What follows once the petition is recorded and its time has come, with one thing
// changed.
func TestWhatEndsARecovery(t *testing.T) {
	const open, recorded, commits, aborts = "", "recorded", "commit", "abort"
	claimed := func(k *Known, _ *Question) {
		h := k.Homes[carnet.HomeID{2}]
		h, err := Claim(&h, h.ID, h.World)
		if err != nil {
			t.Fatal(err)
		}
		if h.Recovery != (identity.Petitioned{}) {
			t.Errorf("after a claim there is %+v", h.Recovery)
		}
		k.Homes[h.ID] = h
	}
	moved := func(k *Known, _ *Question) {
		h := k.Homes[carnet.HomeID{2}]
		h.World, h.Version, h.Incarnation, h.Recovery = "clinic", h.Version+1, h.Incarnation+1, identity.Petitioned{}
		k.Homes[h.ID] = h
	}
	farewell := func(change func(*identity.Farewell)) func(*Known, *Question) {
		return func(k *Known, q *Question) {
			h := k.Homes[carnet.HomeID{2}]
			h.Recovery = identity.Petitioned{}
			k.Homes[h.ID] = h
			q.Farewell = &identity.Farewell{Registrar: "vault", Source: "arena", Home: h.ID, Incarnation: 4, Manifest: carnet.Fingerprint{5}}
			change(q.Farewell)
		}
	}
	for name, c := range map[string]struct {
		change func(*Known, *Question)
		want   string
		code   carnet.Code
	}{
		"nothing":                  {func(*Known, *Question) {}, commits, ""},
		"a stranger brings it all": {func(_ *Known, q *Question) { q.By = "mallory" }, commits, ""},
		"it is erased":             {func(k *Known, _ *Question) { h := k.Homes[carnet.HomeID{2}]; h.Erased = "order"; k.Homes[h.ID] = h }, aborts, ""},
		"the source claims":        {claimed, aborts, ""},
		"the source claims, twice": {func(k *Known, q *Question) { claimed(k, q); claimed(k, q) }, aborts, ""},
		"it has moved":             {moved, aborts, ""},
		"it has moved there": {func(k *Known, q *Question) {
			moved(k, q)
			h := k.Homes[carnet.HomeID{2}]
			h.World = "citadel"
			k.Homes[h.ID] = h
		}, aborts, ""},
		"the source asks for an end": {func(_ *Known, q *Question) { q.Want, q.By = Abort, "arena" }, aborts, ""},
		"the target asks for an end": {func(_ *Known, q *Question) { q.Want, q.By = Abort, "citadel" }, aborts, ""},
		"a stranger asks for an end": {func(_ *Known, q *Question) { q.Want, q.By = Abort, "mallory" }, open, carnet.Forbidden},
		"somebody asks":              {func(_ *Known, q *Question) { q.Want = Ask }, open, ""},
		"its own time is over":       {func(_ *Known, q *Question) { q.Order.Until = noon.Add(time.Hour) }, aborts, ""},
		"by another owner":           {func(_ *Known, q *Question) { q.Order.Owner = "mallory" }, open, carnet.Forbidden},
		"for another registrar":      {func(_ *Known, q *Question) { q.Order.Registrar = "shed" }, open, carnet.Forbidden},
		"of another home":            {func(_ *Known, q *Question) { q.Order.Homes = []carnet.HomeID{{3}} }, open, carnet.Forbidden},
		"of two homes": {func(k *Known, q *Question) {
			k.Homes[carnet.HomeID{3}] = k.Homes[carnet.HomeID{2}]
			q.Order.Homes = []carnet.HomeID{{2}, {3}}
		}, open, carnet.Malformed},
		"of two homes, and one chain": {func(k *Known, q *Question) {
			k.Homes[carnet.HomeID{3}] = k.Homes[carnet.HomeID{2}]
			q.Order.Homes, q.Order.Recovers.Incarnations = []carnet.HomeID{{2}, {3}}, []uint64{4, 4}
		}, open, carnet.Malformed},
		"without an acceptance":        {func(_ *Known, q *Question) { q.Acceptance = nil }, open, carnet.Malformed},
		"accepted by another":          {func(_ *Known, q *Question) { q.Acceptance.Target = "clinic" }, open, carnet.Forbidden},
		"accepted by another order":    {func(_ *Known, q *Question) { q.Acceptance.Order[0]++ }, open, carnet.Forbidden},
		"accepted another manifest":    {func(_ *Known, q *Question) { q.Acceptance.Manifest[0]++ }, open, carnet.Forbidden},
		"with a release":               {func(_ *Known, q *Question) { q.Release = &identity.Release{} }, open, carnet.Malformed},
		"signed again":                 {func(_ *Known, q *Question) { q.Order.Made = noon.Add(time.Second) }, recorded, ""},
		"signed earlier":               {func(_ *Known, q *Question) { q.Order.Made = noon.Add(-time.Second) }, aborts, ""},
		"of a smaller crossing":        {func(_ *Known, q *Question) { smaller(q) }, aborts, ""},
		"of a greater crossing":        {func(_ *Known, q *Question) { greater(q) }, recorded, ""},
		"to another world, at once":    {func(_ *Known, q *Question) { q.Order.Target, q.Acceptance.Target = "clinic", "clinic" }, aborts, ""},
		"a farewell":                   {farewell(func(*identity.Farewell) {}), commits, ""},
		"a farewell by another":        {farewell(func(f *identity.Farewell) { f.Source = "citadel" }), open, carnet.Forbidden},
		"a farewell of another home":   {farewell(func(f *identity.Farewell) { f.Home[0]++ }), open, carnet.Forbidden},
		"a farewell of another time":   {farewell(func(f *identity.Farewell) { f.Incarnation-- }), open, carnet.Forbidden},
		"a farewell of something else": {farewell(func(f *identity.Farewell) { f.Manifest[0]++ }), open, carnet.Forbidden},
		"a farewell to another":        {farewell(func(f *identity.Farewell) { f.Registrar = "shed" }), open, carnet.Forbidden},
		"a farewell, and then a claim": {func(k *Known, q *Question) { farewell(func(*identity.Farewell) {})(k, q); claimed(k, q) }, aborts, ""},
		"it isn't asked for yet": {func(k *Known, _ *Question) {
			h := k.Homes[carnet.HomeID{2}]
			h.Recovery = identity.Petitioned{}
			k.Homes[h.ID] = h
		}, recorded, ""},
		"the crossing is decided":        {func(k *Known, _ *Question) { k.Decision = &identity.Decision{Outcome: identity.Abort, Why: "over"} }, aborts, ""},
		"a move's order in its crossing": {func(_ *Known, q *Question) { q.Order.Recovers = nil }, open, carnet.Malformed},
	} {
		k, q := recovering(time.Hour)
		k.petition(t, q, noon)
		c.change(&k, &q)
		d, homes, err := Decide(k, q, noon.Add(2*time.Hour))
		is := open
		switch {
		case d != nil:
			is = string(d.Outcome)
		case len(homes) > 0:
			is = recorded
		}
		if is != c.want || carnet.CodeOf(err) != c.code || (is == commits) != (len(homes) == 1 && homes[0].World == "citadel") {
			t.Errorf("%s: %q, %+v, %v; want %q and %q", name, is, homes, err, c.want, c.code)
		}
		if is == aborts && (d.Why == "" || len(homes) > 0) {
			t.Errorf("%s: the abort is %+v, %+v", name, d, homes)
		}
	}
}

func smaller(q *Question) { other(q, carnet.CrossingID{0, 1}) }
func greater(q *Question) { other(q, carnet.CrossingID{2}) }

func other(q *Question, x carnet.CrossingID) {
	q.Crossing, q.Order.Crossing, q.Acceptance.Crossing = x, x, x
}

// recoveringTwo is a recovery of two homes.
func recoveringTwo() (Known, Question) {
	k, q := recovering(time.Hour)
	k.Homes[carnet.HomeID{3}] = Home{ID: carnet.HomeID{3}, Version: 2, World: "arena", Owner: "alice", Incarnation: 7, Chain: 2}
	q.Order.Homes, q.Order.Recovers.Incarnations, q.Order.Recovers.Chains = []carnet.HomeID{{2}, {3}}, []uint64{4, 7}, []uint64{0, 2}
	return k, q
}

// An avatar and its item are recovered together or not at all: the petition is recorded
// with both homes, and the last time counts.
func TestARecoveryOfTwoHomes(t *testing.T) {
	k, q := recoveringTwo()
	k.petition(t, q, noon)
	k.petition(t, q, noon.Add(time.Minute)) // as after a crash between
	if a, b := k.Homes[carnet.HomeID{2}].Recovery, k.Homes[carnet.HomeID{3}].Recovery; a.Crossing != b.Crossing || !a.Until.Equal(noon.Add(time.Hour)) || !b.Until.Equal(noon.Add(time.Hour+time.Minute)) {
		t.Fatalf("recorded as %+v and %+v", a, b)
	}
	if d, homes, err := Decide(k, q, noon.Add(time.Hour)); d != nil || homes != nil || err != nil {
		t.Errorf("before the later one's time: %+v, %+v, %v", d, homes, err)
	}
	for name, change := range map[string]func(Home) Home{
		"nothing": func(h Home) Home { return h },
		"the avatar's home is claimed": func(h Home) Home {
			if h.ID == (carnet.HomeID{2}) {
				h, _ = Claim(&h, h.ID, "arena")
			}
			return h
		},
		"the item's home is claimed": func(h Home) Home {
			if h.ID == (carnet.HomeID{3}) {
				h, _ = ClaimItem(&h, h.ID, "arena", 3)
			}
			return h
		},
		"the item has moved": func(h Home) Home {
			if h.ID == (carnet.HomeID{3}) {
				h.World, h.Version, h.Incarnation, h.Recovery = "clinic", 3, 8, identity.Petitioned{}
			}
			return h
		},
		"the item's chain has grown": func(h Home) Home {
			if h.ID == (carnet.HomeID{3}) {
				h.Chain++
			}
			return h
		},
		"the item's chain is shorter": func(h Home) Home {
			if h.ID == (carnet.HomeID{3}) {
				h.Chain--
			}
			return h
		},
		"another recovery of the item was signed since": func(h Home) Home {
			if h.ID == (carnet.HomeID{3}) {
				h.Recovery.Crossing, h.Recovery.Signed = carnet.CrossingID{9}, noon.Add(time.Minute)
			}
			return h
		},
	} {
		now := Known{Registrar: k.Registrar, Wait: k.Wait, Homes: map[carnet.HomeID]Home{}}
		for id, h := range k.Homes {
			now.Homes[id] = change(h)
		}
		d, homes, err := Decide(now, q, noon.Add(2*time.Hour))
		if err != nil || d == nil {
			t.Errorf("%s: %+v, %v", name, d, err)
			continue
		}
		if commits := name == "nothing"; commits != (d.Outcome == identity.Commit) || commits != (len(homes) == 2) {
			t.Errorf("%s: %+v, %+v", name, d, homes)
		}
	}
	// A petition of one that was signed earlier gives way, wherever it is.
	earlier := k.Homes[carnet.HomeID{3}]
	earlier.Recovery.Crossing, earlier.Recovery.Signed = carnet.CrossingID{0, 9}, noon.Add(-time.Minute)
	k.Homes[earlier.ID] = earlier
	k.petition(t, q, noon.Add(2*time.Hour))
	if is := k.Homes[carnet.HomeID{3}].Recovery; is.Crossing != q.Crossing || !is.Until.Equal(noon.Add(3*time.Hour)) {
		t.Errorf("recorded as %+v", is)
	}
}

// A farewell is of every home that is recovered by it.
func TestAFarewellOfTwoHomes(t *testing.T) {
	for name, c := range map[string]struct {
		items []identity.Incarnate
		code  carnet.Code
	}{
		"both":                {[]identity.Incarnate{{Home: carnet.HomeID{3}, Incarnation: 7}}, ""},
		"the avatar's alone":  {nil, carnet.Forbidden},
		"another incarnation": {[]identity.Incarnate{{Home: carnet.HomeID{3}, Incarnation: 6}}, carnet.Forbidden},
	} {
		k, q := recoveringTwo()
		q.Farewell = &identity.Farewell{Registrar: "vault", Source: "arena", Home: carnet.HomeID{2}, Incarnation: 4, Items: c.items, Manifest: carnet.Fingerprint{5}}
		d, homes, err := Decide(k, q, noon)
		if carnet.CodeOf(err) != c.code || (c.code == "") != (d != nil && d.Outcome == identity.Commit && len(homes) == 2) {
			t.Errorf("%s: %+v, %+v, %v", name, d, homes, err)
		}
	}
}

// A world says with a claim how many entries an item's chain has; a claim that says
// nothing, and a move, leave it.
func TestAClaimSaysHowLongAChainIs(t *testing.T) {
	h := Home{ID: carnet.HomeID{3}, World: "arena", Owner: "alice", Version: 1, Incarnation: 1}
	for _, c := range []struct{ says, want uint64 }{{0, 0}, {2, 2}, {0, 2}, {1, 1}} {
		var err error
		if h, err = ClaimItem(&h, h.ID, "arena", c.says); err != nil || h.Chain != c.want {
			t.Errorf("after %d: %+v, %v", c.says, h, err)
		}
	}
	if h.Incarnation != 5 {
		t.Errorf("claimed four times, it is %+v", h)
	}
}
