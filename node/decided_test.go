package node

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/keys"
	"carnet/policy"
)

// decided is a world that is asked about an item which went to its peer by the
// registrar's decision, though its store is from before that.
type decided struct {
	*asked
	clinic           identity.Local // another peer
	owner, registrar ed25519.PrivateKey
	order            identity.Order
	terms            identity.MoveTerms
	decision         identity.Decision
}

func newDecided(t *testing.T) *decided {
	vault, clinic := made(t, aDepot), made(t, Config{Party: "clinic", Role: identity.World, Listen: aCaller.Listen, World: aCaller.World})
	d := &decided{owner: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), clinic: selfOf(t, clinic)}
	d.asked = newAsked(t, aListener, aCaller, func(c Config) string { return c.Listen.R5 }, ofR5,
		func(party Config) { introduce(t, party, vault, ofR2) }, func(party Config) { introduce(t, clinic, party, ofR5) })
	err := withTable(t.Context(), vault, func(table *keys.Table) (err error) {
		d.registrar, err = table.Signer(t.Context(), registerID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for { // until the peering with the depot lives
		if _, _, err := d.node.register(); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	did := func(key ed25519.PrivateKey) string { return identity.DID(key.Public().(ed25519.PublicKey)) }
	home, x, now := carnet.NewHomeID(), carnet.NewCrossingID(), time.Now().UTC().Truncate(time.Second)
	d.terms = identity.MoveTerms{
		Avatar: carnet.AvatarID{1}, Home: home, To: carnet.AvatarID{2}, Owner: did(d.owner), Alone: true,
		Items: []identity.MovingItem{{Item: carnet.ItemID{3}, Home: home, Kind: "sword", Title: "Oathkeeper", As: "blade"}},
	}
	d.order = identity.Order{
		Crossing: x, Registrar: did(d.registrar), Owner: did(d.owner), Source: did(d.self.Key), Target: did(d.peer.Key), Homes: d.terms.Homes(),
		Made: now, Until: now.Add(time.Hour),
	}
	d.decision = identity.Decision{
		Registrar: did(d.registrar), Crossing: x, Outcome: identity.Commit, Manifest: &carnet.Fingerprint{7},
		Homes: []identity.HomeAt{{Home: home, Version: 2, World: did(d.peer.Key)}}, Time: now,
	}
	return d
}

// said is what the peer says: how changes it, and then it is signed by these.
func (d *decided) said(owner, registrar ed25519.PrivateKey, how func(*identity.Order, *identity.MoveTerms, *identity.Decision)) string {
	d.t.Helper()
	o, m, c := d.order, d.terms, d.decision
	if how != nil {
		how(&o, &m, &c)
	}
	terms, err := m.Marshal()
	if err != nil {
		d.t.Fatal(err)
	}
	if o.Terms == (carnet.Fingerprint{}) {
		o.Terms = carnet.FingerprintOf(terms)
	}
	order, err := identity.SignOrder(owner, o)
	if err != nil {
		d.t.Fatal(err)
	}
	if c.Order == (carnet.Fingerprint{}) {
		c.Order = carnet.FingerprintOf([]byte(order))
	}
	decision, err := identity.SignDecision(registrar, c)
	if err != nil {
		d.t.Fatal(err)
	}
	body, err := json.Marshal(move.Decided{SignedOrder: move.SignedOrder{Order: order, Terms: terms}, Decision: decision})
	if err != nil {
		d.t.Fatal(err)
	}
	return string(body)
}

// signedBy is what is said, its order with the signature of somebody else.
func signedBy(t *testing.T, said string, key ed25519.PrivateKey) string {
	t.Helper()
	var d move.Decided
	if err := json.Unmarshal([]byte(said), &d); err != nil {
		t.Fatal(err)
	}
	signed := d.Order[:strings.LastIndex(d.Order, ".")]
	d.Order = signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed)))
	body, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// tell calls without a token.
func (d *decided) tell(method, path, body string, headers ...string) (int, string) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.base+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	answer := d.reach(r, body)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// What a peer says without any avatar's token it must prove by what it brings. Each of
// these differs in one thing from the call at the end, which is served; each is refused,
// changes nothing, and leaves a record of its peer with the reason.
func TestWhatIsToldWithoutATokenProvesItself(t *testing.T) {
	d := newDecided(t)
	at := "/r5/avatars/" + d.terms.Avatar.String() + "/moves/" + d.order.Crossing.String()
	right := d.said(d.owner, d.registrar, nil)
	mallory := ed25519.NewKeyFromSeed([]byte(strings.Repeat("m", ed25519.SeedSize)))
	nobody := identity.DID(mallory.Public().(ed25519.PublicKey))
	type orders = func(*identity.Order, *identity.MoveTerms, *identity.Decision)
	of := func(how orders) string { return d.said(d.owner, d.registrar, how) }
	other := func(id string) string { return strings.Repeat("5", len(id)) }
	type way struct {
		name, method, path, body, because string
		cert                              bool // the other peer's
		token                             bool // one that isn't one is shown
		twice                             bool // let in by what it brings, and refused by what was decided
	}
	ways := []way{
		{name: "another peer brings it", method: "POST", path: at + "/decision", body: right, cert: true, because: "between other worlds"},
		{name: "about another avatar", method: "POST", path: strings.Replace(at, d.terms.Avatar.String(), other(d.terms.Avatar.String()), 1) + "/decision", body: right, because: "about another avatar"},
		{name: "about another crossing", method: "POST", path: strings.Replace(at, d.order.Crossing.String(), other(d.order.Crossing.String()), 1) + "/decision", body: right, because: "for another crossing"},
		{name: "about no crossing", method: "POST", path: strings.Replace(at, d.order.Crossing.String(), "x", 1) + "/decision", body: right, because: "hexadecimal"},
		{name: "an order to another world", method: "POST", path: at + "/decision", because: "between other worlds", body: of(func(o *identity.Order, _ *identity.MoveTerms, _ *identity.Decision) { o.Target = nobody })},
		{name: "an order from another world", method: "POST", path: at + "/decision", because: "between other worlds", body: of(func(o *identity.Order, _ *identity.MoveTerms, _ *identity.Decision) { o.Source = nobody })},
		{name: "an order that somebody else signed", method: "POST", path: at + "/decision", because: "signature", body: signedBy(t, right, mallory)},
		{name: "an order with other terms", method: "POST", path: at + "/decision", because: "terms", body: of(func(o *identity.Order, _ *identity.MoveTerms, _ *identity.Decision) { o.Terms[0]++ })},
		{name: "an order by a register that isn't known", method: "POST", path: at + "/decision", because: "not the register that this world asks", body: d.said(d.owner, mallory, func(o *identity.Order, _ *identity.MoveTerms, c *identity.Decision) {
			o.Registrar, c.Registrar = nobody, nobody
		})},
		{name: "a decision by somebody else", method: "POST", path: at + "/decision", because: "isn't the registrar's", body: d.said(d.owner, mallory, func(_ *identity.Order, _ *identity.MoveTerms, c *identity.Decision) { c.Registrar = nobody })},
		{name: "a decision about another crossing", method: "POST", path: at + "/decision", because: "isn't the registrar's about this crossing", body: of(func(_ *identity.Order, _ *identity.MoveTerms, c *identity.Decision) { c.Crossing[0]++ })},
		{name: "a decision that isn't one", method: "POST", path: at + "/decision", because: "", body: strings.Replace(right, `"decision":"`, `"decision":"e30.e30.AA`, 1)},
		{name: "a decision on another order", method: "POST", path: at + "/decision", because: "decided otherwise", twice: true, body: of(func(_ *identity.Order, _ *identity.MoveTerms, c *identity.Decision) { c.Order[0]++ })},
		{name: "a commit that moves it elsewhere", method: "POST", path: at + "/decision", because: "isn't of what was ordered", twice: true, body: of(func(_ *identity.Order, _ *identity.MoveTerms, c *identity.Decision) {
			c.Homes = []identity.HomeAt{{Home: d.terms.Home, Version: 2, World: nobody}}
		})},
		{name: "more than is known", method: "POST", path: at + "/decision", because: "unknown field", body: strings.Replace(right, "{", `{"more":1,`, 1)},
		{name: "a token that isn't one", method: "POST", path: at + "/decision", body: right, token: true, because: ""},
		{name: "as an offer, by another peer", method: "PUT", path: at, body: right, cert: true, because: "between other worlds"},
		{name: "as an offer, without a decision", method: "PUT", path: at, body: strings.Replace(right, `"decision":`, `"streams":[],"decision":"","more":`, 1), because: ""},
		{name: "what isn't decided: its order", method: "GET", path: at + "/order", because: "nothing has gone"},
		{name: "what isn't decided: its manifest", method: "GET", path: at + "/manifest", because: "nothing has gone"},
		{name: "what isn't decided: its stretches", method: "GET", path: at + "/stretches", because: "nothing has gone"},
		{name: "what isn't decided: a stretch", method: "POST", path: at + "/stretches", body: "{}", because: "nothing has gone"},
		{name: "what isn't decided: to freeze it", method: "POST", path: at + "/freeze", because: "nothing has gone"},
		{name: "recovered, by an order to move", method: "POST", path: recoveredPath, body: right, because: ""},
		{name: "recovered, in no form", method: "POST", path: recoveredPath, body: "[]", because: "can't be read"},
	}
	check := func(w way) {
		t.Helper()
		d.cert = d.peer.Certificate
		name := "arena"
		if w.cert {
			d.cert, name = d.clinic.Certificate, "clinic"
		}
		d.connect()
		var headers []string
		want, who := http.StatusUnprocessableEntity, policy.Principal{Kind: policy.Neighbour, Name: name}
		if w.token {
			headers, want, who.Kind = []string{"Authorization: DPoP e30.e30.AA"}, http.StatusUnauthorized, policy.Foreign
		}
		d.records.take()
		status, text := d.tell(w.method, w.path, w.body, headers...)
		all := d.records.take()
		if status != want && !(status == http.StatusServiceUnavailable && strings.Contains(w.name, "isn't known")) {
			t.Errorf("%s is answered with %d %s", w.name, status, text)
		}
		records := 1
		if w.twice {
			records = 2
		}
		if len(all) != records {
			t.Errorf("%s left %+v", w.name, all)
			return
		}
		if w.twice && !all[0].Permitted {
			t.Errorf("%s was refused at once: %+v", w.name, all[0])
		}
		last := all[len(all)-1]
		if last.Permitted || last.Who != who || last.Via != activity.R5 || last.Why == "" || !strings.Contains(last.Why, w.because) {
			t.Errorf("%s left %+v", w.name, last)
		}
		if here := d.node.api.Moves.AtSource(); len(here) != 0 {
			t.Fatalf("%s changed something: %+v", w.name, here)
		}
	}
	for _, w := range ways {
		check(w)
	}

	// What can't be recorded isn't done.
	d.cert = d.peer.Certificate
	d.connect()
	d.records.failWith(carnet.Errorf(carnet.NoSpace, "the disk is full"))
	for _, call := range []struct{ method, path string }{{"POST", at + "/decision"}, {"PUT", at}} {
		if status, text := d.tell(call.method, call.path, right); status != http.StatusServiceUnavailable || len(d.node.api.Moves.AtSource()) != 0 {
			t.Errorf("%s unrecorded is %d %s, and left %+v", call.method, status, text, d.node.api.Moves.AtSource())
		}
	}
	d.records.failWith(nil)

	d.records.take()
	status, text := d.tell("POST", at+"/decision", right)
	all := d.records.take()
	if status != http.StatusOK || len(d.node.api.Moves.AtSource()) != 1 || len(all) != 1 || !all[0].Permitted || all[0].Action != followDecided ||
		all[0].Who != (policy.Principal{Kind: policy.Neighbour, Name: "arena"}) || all[0].Resource.ID != d.terms.Avatar.String() {
		t.Fatalf("the decision is answered with %d %s, and left %+v and %+v", status, text, all, d.node.api.Moves.AtSource())
	}
	// Decided now, and another peer's still not.
	if status, text := d.tell("GET", at+"/order", ""); status != http.StatusOK {
		t.Errorf("the order is %d %s", status, text)
	}
	d.cert = d.clinic.Certificate
	d.connect()
	d.records.take()
	status, text = d.tell("GET", at+"/order", "")
	if all := d.records.take(); status != http.StatusUnprocessableEntity || len(all) != 1 || all[0].Permitted || all[0].Who.Name != "clinic" {
		t.Errorf("another peer reads it: %d %s, and left %+v", status, text, all)
	}
}
