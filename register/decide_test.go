package register

import (
	"reflect"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// crossing is an order of two homes from arena to citadel with all that commits it;
// the tests change one thing of it at a time. Names stand for keys: Decide compares them.
func crossing() (Known, Question) {
	order := identity.Order{
		Crossing: carnet.CrossingID{1}, Registrar: "vault", Owner: "alice", Source: "arena", Target: "citadel",
		Homes: []carnet.HomeID{{2}, {3}}, Made: noon, Until: noon.Add(time.Hour),
	}
	hash, manifest := carnet.Fingerprint{4}, carnet.Fingerprint{5}
	return Known{Registrar: "vault", Homes: map[carnet.HomeID]Home{
			{2}: {carnet.HomeID{2}, 1, "arena", "alice", 4, 0, identity.Petitioned{}, "", 0},
			{3}: {carnet.HomeID{3}, 7, "arena", "alice", 1, 0, identity.Petitioned{}, "", 0},
		}}, Question{
			By: "stranger", Crossing: order.Crossing, Want: Commit, Order: &order, Hash: hash,
			Release:    &identity.Release{Crossing: order.Crossing, Source: "arena", Order: hash, Manifest: manifest, Incarnations: []uint64{4, 1}},
			Acceptance: &identity.Acceptance{Crossing: order.Crossing, Target: "citadel", Order: hash, Manifest: manifest},
		}
}

func TestACommitMovesAllHomesOfItsOrder(t *testing.T) {
	k, q := crossing()
	d, moved, err := Decide(k, q, noon.Add(time.Minute+time.Millisecond))
	manifest := carnet.Fingerprint{5}
	want := &identity.Decision{
		Registrar: "vault", Crossing: q.Crossing, Order: q.Hash, Outcome: identity.Commit, Manifest: &manifest, Time: noon.Add(time.Minute),
		Homes: []identity.HomeAt{{Home: carnet.HomeID{2}, Version: 2, World: "citadel"}, {Home: carnet.HomeID{3}, Version: 8, World: "citadel"}},
	}
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Fatalf("decided %+v, %v; want %+v", d, err, want)
	}
	if want := []Home{{carnet.HomeID{2}, 2, "citadel", "alice", 5, 0, identity.Petitioned{}, "", 0}, {carnet.HomeID{3}, 8, "citadel", "alice", 2, 0, identity.Petitioned{}, "", 0}}; !reflect.DeepEqual(moved, want) {
		t.Fatalf("moved %+v, want %+v", moved, want)
	}
}

func TestWhatFollowsFromAQuestion(t *testing.T) {
	const open, commits, aborts = "", "commit", "abort"
	for name, c := range map[string]struct {
		change func(*Known, *Question)
		after  time.Duration
		want   identity.Outcome
		code   carnet.Code
	}{
		"a stranger brings all that a commit needs": {func(*Known, *Question) {}, 0, commits, ""},
		"the last moment":                         {func(*Known, *Question) {}, time.Hour - 1, commits, ""},
		"too late":                                {func(*Known, *Question) {}, time.Hour, aborts, ""},
		"a stranger asks":                         {func(_ *Known, q *Question) { q.Want = Ask }, 0, open, ""},
		"somebody asks without an order":          {func(_ *Known, q *Question) { q.Want, q.Order = Ask, nil }, 0, open, ""},
		"somebody asks without an order, late":    {func(_ *Known, q *Question) { q.Want, q.Order = Ask, nil }, 2 * time.Hour, open, ""},
		"a stranger asks when it is too late":     {func(_ *Known, q *Question) { q.Want = Ask }, time.Hour, aborts, ""},
		"the source wants an end":                 {func(_ *Known, q *Question) { q.Want, q.By = Abort, "arena" }, 0, aborts, ""},
		"the target wants an end":                 {func(_ *Known, q *Question) { q.Want, q.By = Abort, "citadel" }, 0, aborts, ""},
		"a stranger wants an end":                 {func(_ *Known, q *Question) { q.Want = Abort }, 0, open, carnet.Forbidden},
		"the owner's name isn't a caller's":       {func(_ *Known, q *Question) { q.Want, q.By = Abort, "alice" }, 0, open, carnet.Forbidden},
		"a stranger wants an end when it is over": {func(_ *Known, q *Question) { q.Want = Abort }, time.Hour, aborts, ""},
		"an end without an order":                 {func(_ *Known, q *Question) { q.Want, q.By, q.Order = Abort, "arena", nil }, 0, open, carnet.Malformed},
		"a commit without an order":               {func(_ *Known, q *Question) { q.Order = nil }, 0, open, carnet.Malformed},
		"something else":                          {func(_ *Known, q *Question) { q.Want = "merge" }, 0, open, carnet.Malformed},
		"another registrar's order":               {func(_ *Known, q *Question) { q.Order.Registrar = "shed" }, 0, open, carnet.Forbidden},
		"another registrar's order, late":         {func(_ *Known, q *Question) { q.Order.Registrar = "shed" }, time.Hour, open, carnet.Forbidden},
		"another crossing's order":                {func(_ *Known, q *Question) { q.Order.Crossing[0]++ }, 0, open, carnet.Malformed},
		"another's order":                         {func(_ *Known, q *Question) { q.Order.Owner = "mallory" }, 0, open, carnet.Forbidden},
		"another's order, to end it":              {func(_ *Known, q *Question) { q.Order.Owner, q.Want, q.By = "mallory", Abort, "arena" }, 0, open, carnet.Forbidden},
		"another's order, late":                   {func(_ *Known, q *Question) { q.Order.Owner = "mallory" }, time.Hour, open, carnet.Forbidden},
		"one home is another's": {func(k *Known, _ *Question) {
			k.Homes[carnet.HomeID{3}] = Home{carnet.HomeID{3}, 7, "arena", "bob", 1, 0, identity.Petitioned{}, "", 0}
		}, 0, open, carnet.Forbidden},
		"one home is erased": {func(k *Known, _ *Question) {
			k.Homes[carnet.HomeID{3}] = Home{carnet.HomeID{3}, 7, "arena", "alice", 1, 0, identity.Petitioned{}, "order", 0}
		}, 0, aborts, ""},
		"one home isn't enrolled": {func(k *Known, _ *Question) { delete(k.Homes, carnet.HomeID{3}) }, 0, open, carnet.Forbidden},
		"one home is elsewhere": {func(k *Known, _ *Question) {
			k.Homes[carnet.HomeID{3}] = Home{carnet.HomeID{3}, 8, "clinic", "alice", 1, 0, identity.Petitioned{}, "", 0}
		}, 0, aborts, ""},
		"one home is there already": {func(k *Known, _ *Question) {
			k.Homes[carnet.HomeID{3}] = Home{carnet.HomeID{3}, 8, "citadel", "alice", 1, 0, identity.Petitioned{}, "", 0}
		}, 0, aborts, ""},
		"no release":                        {func(_ *Known, q *Question) { q.Release = nil }, 0, open, carnet.Malformed},
		"no acceptance":                     {func(_ *Known, q *Question) { q.Acceptance = nil }, 0, open, carnet.Malformed},
		"another world's release":           {func(_ *Known, q *Question) { q.Release.Source = "clinic" }, 0, open, carnet.Forbidden},
		"the target's release":              {func(_ *Known, q *Question) { q.Release.Source = "citadel" }, 0, open, carnet.Forbidden},
		"another world's acceptance":        {func(_ *Known, q *Question) { q.Acceptance.Target = "clinic" }, 0, open, carnet.Forbidden},
		"a release of another crossing":     {func(_ *Known, q *Question) { q.Release.Crossing[0]++ }, 0, open, carnet.Forbidden},
		"an acceptance of another crossing": {func(_ *Known, q *Question) { q.Acceptance.Crossing[0]++ }, 0, open, carnet.Forbidden},
		"a release for another order":       {func(_ *Known, q *Question) { q.Release.Order[0]++ }, 0, open, carnet.Forbidden},
		"an acceptance for another order":   {func(_ *Known, q *Question) { q.Acceptance.Order[0]++ }, 0, open, carnet.Forbidden},
		"one home was claimed again":        {func(_ *Known, q *Question) { q.Release.Incarnations[0]-- }, 0, aborts, ""},
		"one home wasn't claimed yet":       {func(_ *Known, q *Question) { q.Release.Incarnations[1]++ }, 0, aborts, ""},
		"a release of one home of two":      {func(_ *Known, q *Question) { q.Release.Incarnations = q.Release.Incarnations[:1] }, 0, open, carnet.Forbidden},
		"an acceptance of something else":   {func(_ *Known, q *Question) { q.Acceptance.Manifest[0]++ }, 0, aborts, ""},
	} {
		k, q := crossing()
		c.change(&k, &q)
		d, moved, err := Decide(k, q, noon.Add(c.after))
		outcome := identity.Outcome(open)
		if d != nil {
			outcome = d.Outcome
		}
		if outcome != c.want || carnet.CodeOf(err) != c.code || (outcome == commits) != (len(moved) == 2) || outcome != commits && len(moved) > 0 {
			t.Errorf("%s: decided %q, moved %v, %v; want %q and %q", name, outcome, moved, err, c.want, c.code)
		}
		if outcome == aborts && (d.Why == "" || d.Manifest != nil || len(d.Homes) > 0) {
			t.Errorf("%s: the abort is %+v", name, d)
		}
	}
}

func TestTheFirstDecisionStands(t *testing.T) {
	first := &identity.Decision{Outcome: identity.Abort, Why: "first"}
	for _, want := range []Want{Commit, Abort, Ask, "merge"} {
		k, q := crossing()
		k.Decision, q.Want = first, want
		if d, moved, err := Decide(k, q, noon); d != first || len(moved) > 0 || err != nil {
			t.Errorf("%s: decided %+v, moved %v, %v", want, d, moved, err)
		}
		q.Order.Owner = "mallory"
		if d, moved, err := Decide(k, q, noon.Add(48*time.Hour)); d != first || len(moved) > 0 || err != nil {
			t.Errorf("%s, with another's order: decided %+v, moved %v, %v", want, d, moved, err)
		}
	}
}

// Two orders of one home: once the first is carried out, the second can't be.
func TestTwoOrdersOfOneHome(t *testing.T) {
	k, q := crossing()
	_, moved, err := Decide(k, q, noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range moved {
		k.Homes[h.ID] = h
	}
	second := *q.Order
	second.Crossing, second.Target = carnet.CrossingID{9}, "clinic"
	hash := carnet.Fingerprint{9}
	d, moved, err := Decide(k, Question{
		Crossing: second.Crossing, Want: Commit, Order: &second, Hash: hash,
		Release:    &identity.Release{Crossing: second.Crossing, Source: "arena", Order: hash, Incarnations: []uint64{1, 1}},
		Acceptance: &identity.Acceptance{Crossing: second.Crossing, Target: "clinic", Order: hash},
	}, noon)
	if err != nil || d.Outcome != identity.Abort || len(moved) > 0 {
		t.Fatalf("decided %+v, moved %v, %v", d, moved, err)
	}
}

func TestEnrol(t *testing.T) {
	id := carnet.HomeID{2}
	fresh := Home{id, 1, "arena", "alice", 1, 0, identity.Petitioned{}, "", 0}
	moved := Home{id, 3, "citadel", "alice", 6, 0, identity.Petitioned{}, "", 0}
	for name, c := range map[string]struct {
		known     *Home
		by, owner string
		want      Home
		changed   bool
		code      carnet.Code
	}{
		"new":                        {nil, "arena", "alice", fresh, true, ""},
		"again":                      {&fresh, "arena", "alice", fresh, false, ""},
		"with another owner":         {&fresh, "arena", "mallory", Home{}, false, carnet.Conflict},
		"by another world":           {&fresh, "clinic", "alice", Home{}, false, carnet.Conflict},
		"by the world it has left":   {&moved, "arena", "alice", Home{}, false, carnet.Conflict},
		"by the world it is home at": {&moved, "citadel", "alice", moved, false, ""},
	} {
		h, changed, err := Enrol(c.known, id, c.by, c.owner)
		if h != c.want || changed != c.changed || carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v, %v", name, h, changed, err)
		}
	}
}

func TestClaim(t *testing.T) {
	id := carnet.HomeID{2}
	home := Home{id, 3, "citadel", "alice", 6, 0, identity.Petitioned{}, "", 0}
	erased := Home{id, 3, "citadel", "alice", 6, 0, identity.Petitioned{}, "order", 0}
	for name, c := range map[string]struct {
		known *Home
		by    string
		want  Home
		code  carnet.Code
	}{
		"the home":                {&home, "citadel", Home{id, 3, "citadel", "alice", 7, 0, identity.Petitioned{}, "", 0}, ""},
		"the world it has left":   {&home, "arena", Home{}, carnet.Forbidden},
		"the owner isn't a world": {&home, "alice", Home{}, carnet.Forbidden},
		"not enrolled":            {nil, "arena", Home{}, carnet.Forbidden},
		"the home, erased":        {&erased, "citadel", erased, ""},
		"another, erased":         {&erased, "arena", Home{}, carnet.Forbidden},
	} {
		if h, err := Claim(c.known, id, c.by); h != c.want || carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}

func TestErase(t *testing.T) {
	id := carnet.HomeID{2}
	home, first := Home{id, 3, "citadel", "alice", 6, 0, identity.Petitioned{}, "", 0}, Home{id, 3, "citadel", "alice", 6, 0, identity.Petitioned{}, "another", 0}
	order := identity.ErasureOrder{Registrar: "vault", Owner: "alice", World: "citadel", Home: id}
	with := func(change func(*identity.ErasureOrder)) identity.ErasureOrder {
		o := order
		change(&o)
		return o
	}
	for name, c := range map[string]struct {
		known   *Home
		by      string
		order   identity.ErasureOrder
		want    Home
		changed bool
		code    carnet.Code
	}{
		"the home":                   {&home, "citadel", order, Home{id, 3, "citadel", "alice", 6, 0, identity.Petitioned{}, "token", 0}, true, ""},
		"again, by another order":    {&first, "citadel", order, first, false, ""},
		"the world it has left":      {&home, "arena", order, Home{}, false, carnet.Forbidden},
		"not enrolled":               {nil, "citadel", order, Home{}, false, carnet.Forbidden},
		"for another world":          {&home, "citadel", with(func(o *identity.ErasureOrder) { o.World = "arena" }), Home{}, false, carnet.Forbidden},
		"for another registrar":      {&home, "citadel", with(func(o *identity.ErasureOrder) { o.Registrar = "shed" }), Home{}, false, carnet.Forbidden},
		"by another than its owner":  {&home, "citadel", with(func(o *identity.ErasureOrder) { o.Owner = "mallory" }), Home{}, false, carnet.Forbidden},
		"about another home":         {&home, "citadel", with(func(o *identity.ErasureOrder) { o.Home[0]++ }), Home{}, false, carnet.Forbidden},
		"its owner isn't a world":    {&home, "alice", order, Home{}, false, carnet.Forbidden},
		"erased, by another's order": {&first, "citadel", with(func(o *identity.ErasureOrder) { o.Owner = "mallory" }), Home{}, false, carnet.Forbidden},
	} {
		h, changed, err := Erase(c.known, "vault", c.by, c.order, "token")
		if h != c.want || changed != c.changed || carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v, %v", name, h, changed, err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	k, q := crossing()
	for b.Loop() {
		if _, _, err := Decide(k, q, noon); err != nil {
			b.Fatal(err)
		}
	}
}
