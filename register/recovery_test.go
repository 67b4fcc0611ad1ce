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
		Recovers: &identity.Recovers{Manifest: manifest, Incarnations: []uint64{4}},
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
