package identity

import (
	"math"
	"strings"
	"testing"
	"time"

	"carnet"
)

func newItem(t testing.TB) Item {
	return Item{
		ID: carnet.ItemID{1}, World: "arena", Home: carnet.HomeID{2}, Registrar: did(testKey(t, strings.Repeat("44", 32))), Kind: "sword", Title: "Oathkeeper", Serial: 7,
		Attributes: Attributes{"damage": 12.5, "rune": "ash <&>", "cursed": false}, Issued: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC),
	}
}

func TestAnItemsCredentialComesBackAsItWas(t *testing.T) {
	key := testKey(t, strings.Repeat("22", 32))
	made := newItem(t)
	token, err := IssueItem(key, made)
	if err != nil {
		t.Fatal(err)
	}
	made.Issuer = did(key)
	read, err := OpenItem(token)
	if err != nil || asJSON(t, read) != asJSON(t, made) || read.FullKind() != did(key)+"/sword" {
		t.Errorf("read %s, %v", asJSON(t, read), err)
	}
	for i := range token {
		if flipped := token[:i] + string(token[i]^1) + token[i+1:]; flipped != token {
			if _, err := OpenItem(flipped); err == nil {
				t.Fatalf("a credential with character %d changed was read", i)
			}
		}
	}
	// Another's word for it.
	if _, err := signAs(testKey(t, strings.Repeat("33", 32)), credentialJWT, did(key), itemClaims{}, nil); err == nil {
		t.Error("another key signed for the issuer")
	}
	for name, change := range map[string]func(*Item){
		"no id":           func(i *Item) { i.ID = carnet.ItemID{} },
		"no home":         func(i *Item) { i.Home = carnet.HomeID{} },
		"no registrar":    func(i *Item) { i.Registrar = "vault" },
		"no serial":       func(i *Item) { i.Serial = 0 },
		"a foreign kind":  func(i *Item) { i.Kind = "did:key:z/sword" },
		"a long title":    func(i *Item) { i.Title = strings.Repeat("x", MaxItemTitle+1) },
		"a terminal's":    func(i *Item) { i.Title = "\x1b[2J" },
		"a list in it":    func(i *Item) { i.Attributes = Attributes{"damage": []any{1.0}} },
		"not a number":    func(i *Item) { i.Attributes = Attributes{"damage": math.Inf(1)} },
		"a long text":     func(i *Item) { i.Attributes = Attributes{"rune": strings.Repeat("x", maxAttributeText+1)} },
		"a name of signs": func(i *Item) { i.Attributes = Attributes{"damage ": 1.0} },
		"at no time":      func(i *Item) { i.Issued = time.Unix(0, 0) },
		"too many attributes": func(i *Item) {
			i.Attributes = Attributes{}
			for n := range maxAttributes + 1 {
				i.Attributes["a"+strings.Repeat("b", n%31)+string('a'+rune(n/31))] = true
			}
		},
	} {
		i := newItem(t)
		change(&i)
		if _, err := IssueItem(key, i); err == nil {
			t.Errorf("an item with %s was issued", name)
		}
	}
}

func TestEntriesAndGiftsSayWhatTheirKindDoes(t *testing.T) {
	world, owner := testKey(t, strings.Repeat("22", 32)), testKey(t, strings.Repeat("11", 32))
	noon := newItem(t).Issued
	base := ItemEntry{Item: carnet.ItemID{1}, Number: 2, Before: carnet.Fingerprint{3}, World: did(world), Avatar: carnet.AvatarID{4}, Owner: did(owner), Time: noon}
	right := map[string]ItemEntry{}
	for name, change := range map[string]func(*ItemEntry){
		"issued":  func(e *ItemEntry) { e.What, e.Number, e.Home, e.Proof = ItemIssued, 1, "h", &OnLedger{} },
		"given":   func(e *ItemEntry) { e.What, e.Gift = ItemGiven, "g" },
		"moved":   func(e *ItemEntry) { e.What, e.Order, e.Decision, e.Proof = ItemMoved, "o", "d", &OnLedger{} },
		"retired": func(e *ItemEntry) { e.What = ItemRetired },
		"ordered": func(e *ItemEntry) { e.What, e.Order, e.Terms, e.Decision = ItemRetired, "o", []byte("t"), "d" },
	} {
		e := base
		change(&e)
		right[name] = e
		token, err := SignItemEntry(world, e)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if read, err := OpenItemEntry(token); err != nil || asJSON(t, read) != asJSON(t, e) {
			t.Errorf("%s: read %s, %v", name, asJSON(t, read), err)
		}
		if _, err := SignItemEntry(owner, e); err == nil {
			t.Errorf("another key signed that it was %s", name)
		}
	}
	for name, e := range map[string]ItemEntry{
		"a gift without one":          {What: ItemGiven},
		"a move without a decision":   {What: ItemMoved, Order: "o", Proof: &OnLedger{}},
		"a second issue":              {What: ItemIssued, Home: "h", Proof: &OnLedger{}},
		"an order without a decision": {What: ItemRetired, Order: "o", Terms: []byte("t")},
		"something else":              {What: "sold"},
	} {
		wrong := base
		wrong.What, wrong.Home, wrong.Gift, wrong.Order, wrong.Terms, wrong.Decision, wrong.Proof = e.What, e.Home, e.Gift, e.Order, e.Terms, e.Decision, e.Proof
		if _, err := SignItemEntry(world, wrong); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	g := Gift{Item: carnet.ItemID{1}, Owner: did(owner), World: did(world), From: carnet.AvatarID{4}, To: carnet.AvatarID{5}, After: carnet.Fingerprint{6}, Made: noon, Until: noon.Add(time.Hour)}
	token, err := SignGift(owner, g)
	if read, failed := OpenGift(token); err != nil || failed != nil || read != g {
		t.Errorf("read %+v, %v, %v", read, err, failed)
	}
	if _, err := SignGift(world, g); err == nil {
		t.Error("another key signed the owner's gift")
	}
	long, nobody := g, g
	long.Until, nobody.To = noon.Add(OrderLife+time.Second), g.From
	for _, g := range []Gift{long, nobody} {
		if _, err := SignGift(owner, g); err == nil {
			t.Errorf("the gift %+v was signed", g)
		}
	}
}

// What moves by an order is named in it, and in its terms, by one form only.
func TestItemsOfAnOrder(t *testing.T) {
	m := newMoving(t)
	one := MovingItem{Item: carnet.ItemID{6}, Home: carnet.HomeID{1}, Kind: "sword", Title: "Oathkeeper", As: "blade"}
	end := MovingItem{Item: carnet.ItemID{7}, Home: carnet.HomeID{9}, Kind: "cap", Title: "Cap"}
	r := newMoveRequest(t, m)
	r.Items, r.Retired = []MovingItem{one}, []MovingItem{end}
	token, terms, err := r.Sign(m.owner, m.owner, m.order.Made, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o, err := OpenOrder(token)
	if err != nil || len(o.Homes) != 2 || o.Homes[0] != one.Home || o.Homes[1] != r.Home {
		t.Errorf("ordered %s, %v", asJSON(t, o), err)
	}
	if read, err := ParseMoveTerms(terms, o); err != nil || len(read.Items) != 1 || read.Items[0] != one || read.Retired[0] != end {
		t.Errorf("read %+v, %v", read, err)
	}
	_, mandate, err := ParseMoveRequest(mustMarshal(t, r))
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(r.Explain(mandate), "\n")
	for _, part := range []string{"Oathkeeper", "counts as blade", "Cap", "ends for ever"} {
		if !strings.Contains(said, part) {
			t.Errorf("the owner isn't told %q:\n%s", part, said)
		}
	}
	alone := r
	alone.Alone, alone.Home, alone.Retired = true, one.Home, nil
	if token, _, err = alone.Sign(m.owner, m.owner, m.order.Made, time.Hour); err != nil {
		t.Fatal(err)
	}
	if o, err = OpenOrder(token); err != nil || len(o.Homes) != 1 || o.Homes[0] != one.Home {
		t.Errorf("ordered %s, %v", asJSON(t, o), err)
	}
	for name, change := range map[string]func(*MoveRequest){
		"an item twice":              func(r *MoveRequest) { r.Items = []MovingItem{one, one} },
		"one that goes and ends":     func(r *MoveRequest) { r.Retired[0].Item = one.Item },
		"as nothing":                 func(r *MoveRequest) { r.Items[0].As = "" },
		"one that ends as something": func(r *MoveRequest) { r.Retired[0].As = "blade" },
		"a title of signs":           func(r *MoveRequest) { r.Items[0].Title = "\x1b[2J" },
		"two alone":                  func(r *MoveRequest) { r.Alone, r.Home = true, one.Home },
		"another's home alone":       func(r *MoveRequest) { r.Alone, r.Retired = true, nil },
	} {
		r := r
		r.Items, r.Retired = []MovingItem{one}, []MovingItem{end}
		change(&r)
		if _, err := r.Marshal(); err == nil {
			t.Errorf("a request with %s was written", name)
		}
	}
}

func mustMarshal(t testing.TB, r MoveRequest) []byte {
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
