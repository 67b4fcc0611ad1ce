package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"carnet"
)

// moving is what the tests below change one thing of at a time.
type moving struct {
	owner, source, target, registrar ed25519.PrivateKey
	terms                            MoveTerms
	order                            Order
}

func did(key ed25519.PrivateKey) string { return DID(key.Public().(ed25519.PublicKey)) }

func newMoving(t testing.TB) moving {
	m := moving{
		owner: testKey(t, strings.Repeat("11", 32)), source: testKey(t, strings.Repeat("22", 32)),
		target: testKey(t, strings.Repeat("33", 32)), registrar: testKey(t, strings.Repeat("44", 32)),
	}
	m.terms = MoveTerms{Avatar: carnet.AvatarID{1}, Home: carnet.HomeID{2}, To: carnet.AvatarID{3}, Items: []MovingItem{{Item: carnet.ItemID{6}, Home: carnet.HomeID{5}, Kind: "sword", Title: "Oathkeeper", As: "blade"}}, Owner: did(testKey(t, strings.Repeat("55", 32)))}
	text, err := m.terms.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	made := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	m.order = Order{
		Crossing: carnet.CrossingID{4}, Registrar: did(m.registrar), Owner: did(m.owner), Source: did(m.source), Target: did(m.target),
		Homes: []carnet.HomeID{{2}, {5}}, Terms: carnet.FingerprintOf(text), Made: made, Until: made.Add(time.Hour),
	}
	return m
}

func TestMessagesOfAMoveComeBackAsTheyWere(t *testing.T) {
	m := newMoving(t)
	hash, noon := carnet.Fingerprint{7}, m.order.Made
	for name, roundTrip := range map[string]func(key ed25519.PrivateKey) (made, read any, err error){
		"home":       trip(m.registrar, HomeAnswer{did(m.registrar), carnet.HomeID{2}, 3, did(m.source), did(m.owner), 1, NewNonce(), 2, Petitioned{}, ""}, SignHome, OpenHome),
		"homes":      trip(m.registrar, HomesAnswer{did(m.registrar), did(m.source), NewNonce(), HomesHash([]carnet.HomeID{{2}, {3}}), []carnet.HomeID{{3}}}, SignHomes, OpenHomes),
		"order":      trip(m.owner, m.order, SignOrder, OpenOrder),
		"release":    trip(m.source, Release{m.order.Crossing, did(m.source), hash, hash, []uint64{1, 4}}, SignRelease, OpenRelease),
		"acceptance": trip(m.target, Acceptance{m.order.Crossing, did(m.target), hash, hash}, SignAcceptance, OpenAcceptance),
		"commit": trip(m.registrar, Decision{
			Registrar: did(m.registrar), Crossing: m.order.Crossing, Order: hash, Outcome: Commit, Manifest: &hash,
			Homes: []HomeAt{{carnet.HomeID{2}, 4, did(m.target)}}, Time: noon,
		}, SignDecision, OpenDecision),
		"abort": trip(m.registrar, Decision{
			Registrar: did(m.registrar), Crossing: m.order.Crossing, Order: hash, Outcome: Abort, Why: "its time is over", Homes: []HomeAt{}, Time: noon,
		}, SignDecision, OpenDecision),
		"departure": trip(m.source, Departure{m.order.Crossing, did(m.source), hash, noon, noon.Add(time.Hour), 7}, SignDeparture, OpenDeparture),
	} {
		made, read, err := roundTrip(nil)
		if err != nil || asJSON(t, made) != asJSON(t, read) {
			t.Errorf("%s: made %s, read %s, %v", name, asJSON(t, made), asJSON(t, read), err)
		}
		if _, _, err := roundTrip(testKey(t, strings.Repeat("66", 32))); err == nil {
			t.Errorf("%s: somebody else's key signed it", name)
		}
	}
}

// trip signs a message, by its author's key or another, and reads it.
func trip[T any](author ed25519.PrivateKey, m T, sign func(ed25519.PrivateKey, T) (string, error), open func(string) (T, error)) func(ed25519.PrivateKey) (any, any, error) {
	return func(key ed25519.PrivateKey) (any, any, error) {
		if key == nil {
			key = author
		}
		token, err := sign(key, m)
		if err != nil {
			return m, nil, err
		}
		read, err := open(token)
		return m, read, err
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A message that names one author and is signed by another is nobody's.
func TestAMessageOfAMoveIsByWhoItNames(t *testing.T) {
	m := newMoving(t)
	forged, err := SignMessage(m.target, orderType, m.order)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := OpenOrder(forged); err == nil {
		t.Errorf("the target's order was read as the owner's: %+v", o)
	}
	release, err := SignRelease(m.source, Release{Crossing: m.order.Crossing, Source: did(m.source), Incarnations: []uint64{1}})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := OpenAcceptance(release); err == nil {
		t.Errorf("a release was read as an acceptance: %+v", a)
	}
}

func TestOrdersThatCannotBeAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Order){
		"to itself":            func(o *Order) { o.Target = o.Source },
		"of nothing":           func(o *Order) { o.Homes = nil },
		"of a home twice":      func(o *Order) { o.Homes = []carnet.HomeID{{2}, {2}} },
		"of homes in disorder": func(o *Order) { o.Homes = []carnet.HomeID{{5}, {2}} },
		"of too many homes":    func(o *Order) { o.Homes = make([]carnet.HomeID, maxHomes+1) },
		"for too long":         func(o *Order) { o.Until = o.Made.Add(OrderLife + time.Second) },
		"over before it began": func(o *Order) { o.Until = o.Made },
		"at parts of a second": func(o *Order) { o.Made = o.Made.Add(time.Millisecond) },
		"in another zone":      func(o *Order) { o.Until = o.Until.In(time.FixedZone("", 3600)) },
		"for no registrar":     func(o *Order) { o.Registrar = "" },
		"from nobody":          func(o *Order) { o.Source = "did:web:example.org" },
	} {
		m := newMoving(t)
		change(&m.order)
		if _, err := SignOrder(m.owner, m.order); err == nil {
			t.Errorf("an order %s was signed", name)
		}
		token, err := SignMessage(m.owner, orderType, m.order)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenOrder(token); err == nil {
			t.Errorf("an order %s was read", name)
		}
	}
}

func TestDecisionsThatContradictThemselvesAreRefused(t *testing.T) {
	m := newMoving(t)
	hash := carnet.Fingerprint{7}
	commit := Decision{Registrar: did(m.registrar), Outcome: Commit, Manifest: &hash, Homes: []HomeAt{{Version: 2, World: did(m.target)}}, Time: m.order.Made}
	for name, change := range map[string]func(*Decision){
		"without an outcome":        func(d *Decision) { d.Outcome = "" },
		"commit without a manifest": func(d *Decision) { d.Manifest = nil },
		"commit without homes":      func(d *Decision) { d.Homes = []HomeAt{} },
		"commit with a reason":      func(d *Decision) { d.Why = "no" },
		"abort with homes":          func(d *Decision) { d.Outcome, d.Why, d.Manifest = Abort, "late", nil },
		"abort without a reason":    func(d *Decision) { d.Outcome, d.Manifest, d.Homes = Abort, nil, nil },
		"at no time":                func(d *Decision) { d.Time = time.Time{} },
		"to nowhere":                func(d *Decision) { d.Homes = []HomeAt{{World: "arena"}} },
	} {
		d := commit
		change(&d)
		if _, err := SignDecision(m.registrar, d); err == nil {
			t.Errorf("a decision %s was signed", name)
		}
	}
	if _, err := SignDecision(m.registrar, commit); err != nil {
		t.Error(err)
	}
}

func TestTermsAreThoseOfTheOrder(t *testing.T) {
	m := newMoving(t)
	text, err := m.terms.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if read, err := ParseMoveTerms(text, m.order); err != nil || asJSON(t, read) != asJSON(t, m.terms) {
		t.Errorf("read %+v, %v", read, err)
	}
	for name, c := range map[string]struct {
		text  string
		homes []carnet.HomeID
	}{
		"others":                     {strings.Replace(string(text), `"avatar":"01`, `"avatar":"09`, 1), m.order.Homes},
		"in another form":            {strings.Replace(string(text), ",", ", ", 1), m.order.Homes},
		"with an unknown member":     {strings.Replace(string(text), "{", `{"more":1,`, 1), m.order.Homes},
		"of a home that isn't named": {string(text), []carnet.HomeID{{5}}},
	} {
		o := m.order
		o.Homes = c.homes
		if _, err := ParseMoveTerms([]byte(c.text), m.order); name == "others" && err == nil {
			t.Errorf("terms %s were taken for the order's", name)
		}
		if name != "others" {
			o.Terms = carnet.FingerprintOf([]byte(c.text))
		}
		if _, err := ParseMoveTerms([]byte(c.text), o); err == nil {
			t.Errorf("terms %s were read", name)
		}
	}
}

func FuzzOpenOrder(f *testing.F) {
	m := newMoving(f)
	token, err := SignOrder(m.owner, m.order)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Fuzz(func(t *testing.T, token string) {
		o, err := OpenOrder(token)
		if err != nil {
			return
		}
		if err := o.Check(); err != nil {
			t.Errorf("what was read can't be an order: %v", err)
		}
	})
}

func TestADecisionByAnotherOrderEndsThisOne(t *testing.T) {
	mine, other := carnet.Fingerprint{1}, carnet.Fingerprint{2}
	for _, c := range []struct {
		d    Decision
		want Outcome
	}{
		{Decision{Order: mine, Outcome: Commit}, Commit},
		{Decision{Order: mine, Outcome: Abort}, Abort},
		{Decision{Order: other, Outcome: Commit}, Abort},
		{Decision{Order: other, Outcome: Abort}, Abort},
	} {
		if got := c.d.Of(mine); got != c.want {
			t.Errorf("%+v: %s, want %s", c.d, got, c.want)
		}
	}
}
