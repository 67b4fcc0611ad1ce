package item

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/item/itemtest"
	"carnet/keys"
	"carnet/ledger"
)

var (
	alice, bob = carnet.AvatarID{1}, carnet.AvatarID{2} // avatars of one owner
	carol      = carnet.AvatarID{4}                     // of the same owner
	stranger   = carnet.AvatarID{3}                     // of another
)

// stage is two worlds and a registrar, by whose word items move between them.
type stage struct {
	t      *testing.T
	ledger *itemtest.Ledger
	stores map[string]*itemtest.Memory
	tables map[string]*keys.Table
	books  map[string]*Book
	away   error // of the registrar

	elsewhere error // what the registrar says to a claim
	ended     int   // how often it was said that items end
	coming    int   // items on their way to an avatar
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, ledger: itemtest.NewLedger(t, "vault"), stores: map[string]*itemtest.Memory{}, tables: map[string]*keys.Table{}, books: map[string]*Book{}}
	for _, world := range []string{"arena", "citadel"} {
		s.stores[world] = itemtest.NewMemory()
		s.tables[world] = s.stores[world].Table(t)
		s.start(world)
	}
	return s
}

// start is the next start of a world's process.
func (s *stage) start(world string) *Book {
	s.t.Helper()
	b, err := New(s.t.Context(), Config{
		Party: carnet.PartyID(world), Key: itemtest.Key(world), Store: s.stores[world], Keys: s.tables[world], Homes: homes{s, world},
		Ledger: func(string) (ledger.Key, error) { return s.ledger.Key(), nil },
		State:  func(ledger.Statement) (ledger.Item, error) { return ledger.Item{}, nil }, Recorded: func() {},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.books[world] = b
	return b
}

// homes enrols for a world.
type homes struct {
	*stage
	world string
}

func (h homes) EnrolItem(ctx context.Context, avatar carnet.AvatarID) (Enrolled, error) {
	owner, err := h.OwnerOf(ctx, avatar)
	if err != nil {
		return Enrolled{}, err
	}
	e := Enrolled{Home: carnet.NewHomeID(), Registrar: itemtest.DID("vault"), Owner: owner}
	e.Answer, err = identity.SignHome(itemtest.Key("vault"), identity.HomeAnswer{
		Registrar: e.Registrar, Home: e.Home, Version: 1, World: itemtest.DID(h.world), Owner: owner, Incarnation: 1, Asked: identity.NewNonce(),
	})
	e.Proof = h.ledger.State(ledger.HomeEnrolled, e.Answer)
	return e, err
}

func (h homes) OwnerOf(_ context.Context, avatar carnet.AvatarID) (string, error) {
	switch {
	case h.away != nil:
		return "", h.away
	case avatar == stranger:
		return itemtest.DID("another owner"), nil
	case avatar == alice, avatar == bob, avatar == carol:
		return itemtest.DID("owner"), nil
	}
	return "", carnet.Errorf(carnet.NotFound, "there is no avatar %s", avatar)
}

func (h homes) Coming(carnet.AvatarID) int { return h.coming }

func (h homes) ItemsEnd() { h.ended++ }

func (h homes) ChangeItem(_ context.Context, _ string, _ carnet.HomeID, change func() error) error {
	if h.elsewhere != nil {
		return h.elsewhere
	}
	return change()
}

func (s *stage) issue(kind string, attributes identity.Attributes) Info {
	s.t.Helper()
	i, err := s.books["arena"].Issue(s.t.Context(), Draft{Avatar: alice, Kind: kind, Title: "Oathkeeper", Attributes: attributes})
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

func (s *stage) proof(world string, id carnet.ItemID) identity.ItemProof {
	s.t.Helper()
	p, err := s.books[world].Proof(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *stage) gift(i Info, to carnet.AvatarID, by string) string {
	s.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	token, err := identity.SignGift(itemtest.Key(by), identity.Gift{
		Item: i.ID, Owner: itemtest.DID(by), World: itemtest.DID("arena"), From: i.Avatar, To: to, After: i.Last, Made: now, Until: now.Add(time.Hour),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// ordered makes an order of the owner's for items, with the registrar's commit.
func (s *stage) ordered(from, to string, version uint64, items, retired []Info) (l Leaving, d Committed) {
	s.t.Helper()
	l = Leaving{Crossing: carnet.NewCrossingID(), Avatar: alice}
	for _, i := range items {
		l.Items = append(l.Items, identity.MovingItem{Item: i.ID, Home: i.Home, Credential: carnet.FingerprintOf([]byte(i.Credential)), Kind: i.Kind, Title: i.Title, As: "blade"})
		d.Homes = append(d.Homes, identity.HomeAt{Home: i.Home, Version: version, World: itemtest.DID(to)})
	}
	for _, i := range retired {
		l.Retired = append(l.Retired, identity.MovingItem{Item: i.ID, Home: i.Home, Credential: carnet.FingerprintOf([]byte(i.Credential)), Kind: i.Kind, Title: i.Title})
	}
	home := carnet.HomeID{9}
	terms := identity.MoveTerms{Avatar: alice, Home: home, To: bob, Owner: itemtest.DID("owner there"), Items: l.Items, Retired: l.Retired}
	text, err := terms.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	order := identity.Order{
		Crossing: l.Crossing, Registrar: itemtest.DID("vault"), Owner: itemtest.DID("owner"), Source: itemtest.DID(from), Target: itemtest.DID(to),
		Homes: terms.Homes(), Terms: carnet.FingerprintOf(text), Made: now, Until: now.Add(time.Hour),
	}
	d.Terms = text
	if d.Order, err = identity.SignOrder(itemtest.Key("owner"), order); err != nil {
		s.t.Fatal(err)
	}
	manifest := carnet.Fingerprint{1}
	d.Homes = append(d.Homes, identity.HomeAt{Home: home, Version: version, World: itemtest.DID(to)})
	d.Decision, err = identity.SignDecision(itemtest.Key("vault"), identity.Decision{
		Registrar: order.Registrar, Crossing: l.Crossing, Order: carnet.FingerprintOf([]byte(d.Order)), Outcome: identity.Commit, Manifest: &manifest, Homes: d.Homes, Time: now,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	d.Proof = s.ledger.State(ledger.CrossingDecided, d.Decision)
	return l, d
}

// moves has items move from arena to citadel.
func (s *stage) moves(items, retired []Info) (landing Landing) {
	s.t.Helper()
	ctx := s.t.Context()
	l, d := s.ordered("arena", "citadel", 2, items, retired)
	proofs, err := s.books["arena"].Freeze(ctx, l, itemtest.DID("owner"))
	if err != nil {
		s.t.Fatal(err)
	}
	checked, err := s.books["citadel"].Check(Coming{Source: itemtest.DID("arena"), Avatar: alice, Owner: itemtest.DID("owner"), Items: l.Items}, proofs)
	if err != nil {
		s.t.Fatal(err)
	}
	var looks []Looks
	for _, c := range checked {
		looks = append(looks, c.Looks)
	}
	landing = Landing{From: "arena", Avatar: bob, Proofs: proofs, Looks: looks, Committed: d}
	for range 2 { // done again, it stays done
		if err := s.books["citadel"].Land(ctx, landing); err != nil {
			s.t.Fatal(err)
		}
		if err := s.books["arena"].Depart(ctx, l, "citadel", d); err != nil {
			s.t.Fatal(err)
		}
	}
	return landing
}

// accepts has citadel take arena's swords.
func (s *stage) accepts() {
	s.t.Helper()
	most := 50.0
	err := s.books["citadel"].Accept(s.t.Context(), Acceptance{Issuer: itemtest.DID("arena"), Kind: "sword", As: "blade", Attributes: map[string]Attribute{"damage": {As: "power", Max: &most}}})
	if err != nil {
		s.t.Fatal(err)
	}
}

// An item that was issued, given and moved is proved by its chain, offline; whichever
// bit of it is another, that is found, and the error says where.
func TestAnItemIsProvedFromItsIssuerOn(t *testing.T) {
	s := newStage(t)
	s.accepts()
	i := s.issue("sword", identity.Attributes{"damage": 12.0, "rune": "ash"})
	gift := s.gift(i, bob, "owner")
	for range 2 { // handed in again it is answered the same
		if given, err := s.books["arena"].Give(t.Context(), gift); err != nil || given.Avatar != bob || given.Entries != 2 {
			t.Fatalf("given: %+v, %v", given, err)
		}
	}
	given, _ := s.books["arena"].Item(i.ID)
	if _, err := s.books["arena"].Give(t.Context(), s.gift(given, alice, "owner")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.books["arena"].Give(t.Context(), gift); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a gift was taken twice: %v", err)
	}
	again, _ := s.books["arena"].Item(i.ID)
	landing := s.moves([]Info{again}, nil)
	if _, err := s.books["citadel"].Equip(t.Context(), i.ID, "hand"); err != nil {
		t.Error(err)
	}
	if err := s.books["citadel"].Land(t.Context(), landing); err != nil {
		t.Error(err)
	}
	if is, err := s.books["citadel"].Item(i.ID); err != nil || is.Slot != "hand" {
		t.Errorf("landed again, it is %+v, %v", is, err)
	}
	p := s.proof("citadel", i.ID)
	key := s.ledger.Key()
	h, err := Read(p, &key)
	if err != nil || len(h.Entries) != 4 || h.World != itemtest.DID("citadel") || h.Avatar != bob || h.Owner != itemtest.DID("owner") || h.Version != 2 || h.Issuer != itemtest.DID("arena") {
		t.Fatalf("read %+v, %v", h, err)
	}
	flipped := func(token string, at int) string { return token[:at] + string(token[at]^1) + token[at+1:] }
	for at := 0; at < len(p.Credential); at += 7 {
		if _, err := Read(identity.ItemProof{Credential: flipped(p.Credential, at), Entries: p.Entries}, &key); err == nil {
			t.Fatalf("the credential's character %d is another, and it was read", at)
		}
	}
	for n := range p.Entries {
		for at := 0; at < len(p.Entries[n]); at += 23 {
			forged := identity.ItemProof{Credential: p.Credential, Entries: slices.Clone(p.Entries)}
			forged.Entries[n] = flipped(p.Entries[n], at)
			if _, err := Read(forged, &key); err == nil || !strings.Contains(err.Error(), "entry "+string('1'+rune(n))) {
				t.Fatalf("entry %d's character %d is another: %v", n+1, at, err)
			}
		}
	}
	for name, entries := range map[string][]string{
		"none":            {},
		"one left out":    {p.Entries[0], p.Entries[2], p.Entries[3]},
		"two exchanged":   {p.Entries[0], p.Entries[2], p.Entries[1], p.Entries[3]},
		"one twice":       {p.Entries[0], p.Entries[1], p.Entries[1]},
		"without a start": p.Entries[1:],
	} {
		if _, err := Read(identity.ItemProof{Credential: p.Credential, Entries: entries}, &key); err == nil {
			t.Errorf("a chain with %s was read", name)
		}
	}
	other := itemtest.NewLedger(t, "mallory").Key()
	if _, err := Read(p, &other); err == nil {
		t.Error("receipts of another ledger were taken")
	}
	// It is arena's no more, and back home it would be itself again.
	if gone, err := s.books["arena"].Item(i.ID); err != nil || gone.State != Gone || gone.World != "citadel" {
		t.Errorf("arena has %+v, %v", gone, err)
	}
	if _, err := s.books["arena"].Give(t.Context(), gift); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("what has gone was given: %v", err)
	}
	if here, err := s.books["citadel"].Item(i.ID); err != nil || here.Looks == nil || here.Looks.Kind != "blade" || here.Looks.Attributes["power"] != 12.0 || len(here.Looks.Attributes) != 1 {
		t.Errorf("citadel has %+v, %v", here, err)
	}
}

// A source that makes up what proves an item: each lie is refused, and named.
func TestWhatASourceMakesUpOfItems(t *testing.T) {
	s := newStage(t)
	s.accepts()
	i := s.issue("sword", identity.Attributes{"damage": 12.0})
	much := s.issue("sword", identity.Attributes{"damage": 80.0})
	cap := s.issue("cap", nil)
	genuine := s.proof("arena", i.ID)
	first, err := identity.OpenItemEntry(genuine.Entries[0])
	if err != nil {
		t.Fatal(err)
	}
	moving := func(i Info) identity.MovingItem {
		return identity.MovingItem{Item: i.ID, Home: i.Home, Credential: carnet.FingerprintOf([]byte(i.Credential)), Kind: i.Kind, Title: i.Title, As: "blade"}
	}
	base := Coming{Source: itemtest.DID("arena"), Avatar: alice, Owner: itemtest.DID("owner"), Items: []identity.MovingItem{moving(i)}}
	if _, err := s.books["citadel"].Check(base, []identity.ItemProof{genuine}); err != nil {
		t.Fatal(err)
	}
	entry := func(by string, change func(*identity.ItemEntry)) string {
		e := first
		e.World = itemtest.DID(by)
		change(&e)
		token, err := identity.SignItemEntry(itemtest.Key(by), e)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	with := func(entries ...string) identity.ItemProof {
		return identity.ItemProof{Credential: genuine.Credential, Entries: entries}
	}
	next := func(e *identity.ItemEntry) {
		e.Number, e.Before, e.Home, e.Proof = 2, carnet.FingerprintOf([]byte(genuine.Entries[0])), "", nil
	}
	forgedGift := s.gift(i, bob, "mallory")
	for name, c := range map[string]struct {
		change func(*Coming)
		proof  identity.ItemProof
		says   string
	}{
		"another's issue": {nil, with(entry("mallory", func(*identity.ItemEntry) {})), "issuer"},
		"another owner":   {nil, with(entry("arena", func(e *identity.ItemEntry) { e.Owner = itemtest.DID("mallory") })), "enrolled by the issuer for that owner"},
		"a home of something else": {nil, with(entry("arena", func(e *identity.ItemEntry) {
			o, _ := identity.OpenItemEntry(s.proof("arena", cap.ID).Entries[0])
			e.Home, e.Proof = o.Home, o.Proof
		})), "another home"},
		"a gift by a thief": {func(c *Coming) { c.Avatar = bob }, with(genuine.Entries[0], entry("arena", func(e *identity.ItemEntry) {
			next(e)
			e.What, e.Gift, e.Avatar = identity.ItemGiven, forgedGift, bob
		})), "who isn't the item's owner"},
		"an end of another chain": {nil, with(genuine.Entries[0], entry("arena", func(e *identity.ItemEntry) {
			next(e)
			e.What, e.Before = identity.ItemRetired, carnet.Fingerprint{7}
		})), "doesn't follow what is before it"},
		"one that is retired": {nil, with(genuine.Entries[0], entry("arena", func(e *identity.ItemEntry) {
			next(e)
			e.What = identity.ItemRetired
		})), "it is retired"},
		"no receipt": {nil, with(entry("arena", func(e *identity.ItemEntry) {
			e.Proof = &identity.OnLedger{Statement: e.Proof.Statement, Salt: e.Proof.Salt, Receipt: []byte{1}}
		})), "receipt"},
		"an item that is elsewhere":   {func(c *Coming) { c.Source = itemtest.DID("clinic") }, genuine, "its chain ends at"},
		"another avatar's":            {func(c *Coming) { c.Avatar = bob }, genuine, "by its chain the avatar"},
		"another owner's order":       {func(c *Coming) { c.Owner = itemtest.DID("mallory") }, genuine, "by its chain its owner"},
		"another than was ordered":    {func(c *Coming) { c.Items = []identity.MovingItem{moving(much)} }, genuine, "isn't what the order's terms say"},
		"beyond the bounds":           {func(c *Coming) { c.Items = []identity.MovingItem{moving(much)} }, s.proof("arena", much.ID), "the most that is taken here is 50"},
		"of a kind that isn't taken":  {func(c *Coming) { c.Items = []identity.MovingItem{moving(cap)} }, s.proof("arena", cap.ID), "accepts no cap"},
		"of one, and a long chain":    {func(c *Coming) { c.Items = []identity.MovingItem{moving(cap)} }, identity.ItemProof{Credential: cap.Credential, Entries: slices.Repeat([]string{"entry"}, maxEntries)}, "accepts no cap"},
		"as something else than said": {func(c *Coming) { c.Items[0].As = "crown" }, genuine, "counts as blade"},
	} {
		coming := base
		coming.Items = slices.Clone(base.Items)
		if c.change != nil {
			c.change(&coming)
		}
		_, err := s.books["citadel"].Check(coming, []identity.ItemProof{c.proof})
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), coming.Items[0].Item.String()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.books["citadel"].Check(base, nil); err == nil {
		t.Error("an order's item is missing, and nobody minds")
	}
	// An item by who isn't the issuer that it names can't even be written: it is the
	// signer's. So a forger's sword is of another kind.
	forged, err := identity.IssueItem(itemtest.Key("mallory"), identity.Item{ID: i.ID, World: "arena", Home: i.Home, Registrar: i.Registrar, Kind: "sword", Title: i.Title, Serial: 1, Attributes: i.Attributes, Issued: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.books["citadel"].Fit(forged); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a forger's sword is taken as arena's: %v", err)
	}
}

// What is asked of a world that can't be is refused, with its reason.
func TestWhatIsRefusedOfItems(t *testing.T) {
	s := newStage(t)
	ctx, b := t.Context(), s.books["arena"]
	i := s.issue("sword", nil)
	second := s.issue("sword", nil)
	code := func(what string, err error, want carnet.Code) {
		t.Helper()
		if carnet.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	s.away = carnet.Errorf(carnet.Unavailable, "nobody answers")
	_, err := b.Issue(ctx, Draft{Avatar: alice, Kind: "sword", Title: "x"})
	code("the register is away", err, carnet.Unavailable)
	s.away = nil
	_, err = b.Issue(ctx, Draft{Avatar: carnet.AvatarID{7}, Kind: "sword", Title: "x"})
	code("no such avatar", err, carnet.NotFound)
	_, err = b.Issue(ctx, Draft{Avatar: alice, Kind: "Sword of", Title: "x"})
	code("no word", err, carnet.Malformed)
	if third := s.issue("sword", nil); third.Serial != 3 {
		t.Errorf("after refusals the serial is %d", third.Serial)
	}
	_, err = b.Equip(ctx, i.ID, "hand")
	code("put on", err, "")
	_, err = b.Equip(ctx, second.ID, "hand")
	code("the slot is taken", err, carnet.Conflict)
	_, err = b.Equip(ctx, i.ID, "")
	code("put off", err, "")
	_, err = b.Equip(ctx, second.ID, "hand")
	code("the slot is free", err, "")
	_, err = b.Give(ctx, s.gift(i, bob, "mallory"))
	code("a gift by a thief", err, carnet.Forbidden)
	_, err = b.Give(ctx, s.gift(i, stranger, "owner"))
	code("to another owner's", err, carnet.Forbidden)
	l, _ := s.ordered("arena", "citadel", 2, []Info{i}, nil)
	l.Alone = true
	_, err = b.Freeze(ctx, l, itemtest.DID("mallory"))
	code("by another's order", err, carnet.Forbidden)
	if _, err = b.Freeze(ctx, l, itemtest.DID("owner")); err != nil {
		t.Fatal(err)
	}
	_, err = b.Give(ctx, s.gift(i, bob, "owner"))
	code("frozen, given", err, carnet.Conflict)
	_, err = b.Equip(ctx, i.ID, "head")
	code("frozen, put on", err, carnet.Conflict)
	_, err = b.Retire(ctx, i.ID)
	code("frozen, retired", err, carnet.Conflict)
	other := l
	other.Crossing = carnet.NewCrossingID()
	_, err = b.Freeze(ctx, other, itemtest.DID("owner"))
	code("frozen, offered elsewhere", err, carnet.Unavailable)
	b = s.start("arena") // it stays frozen
	_, err = b.Retire(ctx, i.ID)
	code("frozen, after a start", err, carnet.Conflict)
	if err := b.Thaw(ctx, l.Crossing); err != nil {
		t.Fatal(err)
	}
	whole, _ := s.ordered("arena", "citadel", 2, []Info{i}, nil)
	_, err = b.Freeze(ctx, whole, itemtest.DID("owner"))
	code("the avatar leaves one behind", err, carnet.Conflict)
	s.elsewhere = carnet.Errorf(carnet.Conflict, "it is elsewhere")
	_, err = b.Give(ctx, s.gift(i, bob, "owner"))
	code("given by an older copy", err, carnet.Conflict)
	_, err = b.Retire(ctx, second.ID)
	code("retired by an older copy", err, carnet.Conflict)
	s.elsewhere = nil
	gone, err := b.Retire(ctx, second.ID)
	if err != nil || gone.State != Retired {
		t.Errorf("retired: %+v, %v", gone, err)
	}
	if h, err := Read(s.proof("arena", second.ID), nil); err != nil || !h.Retired {
		t.Errorf("the chain says %+v, %v", h, err)
	}
	_, err = b.Equip(ctx, second.ID, "hand")
	code("retired, put on", err, carnet.Conflict)
	all := b.Of(alice)
	full, d := s.ordered("arena", "citadel", 2, all[:1], all[1:])
	if _, err = b.Freeze(ctx, full, itemtest.DID("owner")); err != nil {
		t.Fatal(err)
	}
	_, err = b.Issue(ctx, Draft{Avatar: alice, Kind: "sword", Title: "x"})
	code("the avatar keeps still", err, carnet.Conflict)
	if err := b.Depart(ctx, full, "citadel", d); err != nil {
		t.Fatal(err)
	}
	for _, left := range all[1:] {
		if h, err := Read(s.proof("arena", left.ID), nil); err != nil || !h.Retired {
			t.Errorf("what was left isn't retired: %+v, %v", h, err)
		}
	}
	if here := b.Of(alice); len(here) != 0 {
		t.Errorf("the avatar that has gone has %+v", here)
	}
}

// A process that dies before or after any of its writes: all of a change is there or
// nothing, with its statement, and the next start goes on.
func TestAWorldDiesWhileItChangesItems(t *testing.T) {
	died := errors.New("the process died here")
	for name, c := range map[string]struct {
		do   func(*stage, Info) error
		done func(Info) bool // as it is afterwards
	}{
		"issue": {func(s *stage, _ Info) error {
			_, err := s.books["arena"].Issue(s.t.Context(), Draft{Avatar: alice, Kind: "cap", Title: "x"})
			return err
		}, nil},
		"equip": {func(s *stage, i Info) error {
			_, err := s.books["arena"].Equip(s.t.Context(), i.ID, "hand")
			return err
		}, func(i Info) bool { return i.Slot == "hand" }},
		"give": {func(s *stage, i Info) error {
			_, err := s.books["arena"].Give(s.t.Context(), s.gift(i, bob, "owner"))
			return err
		}, func(i Info) bool { return i.Avatar == bob && i.Entries == 2 }},
		"retire": {func(s *stage, i Info) error { _, err := s.books["arena"].Retire(s.t.Context(), i.ID); return err }, func(i Info) bool { return i.State == Retired && i.Entries == 2 }},
	} {
		for _, stored := range []bool{false, true} {
			s := newStage(t)
			i := s.issue("sword", nil)
			stated := s.stores["arena"].Stated()
			if stored {
				s.stores["arena"].Lose(died)
			} else {
				s.stores["arena"].Fail(died)
			}
			if err := c.do(s, i); !errors.Is(err, died) {
				t.Fatalf("%s: %v", name, err)
			}
			s.stores["arena"].Lose(nil)
			s.stores["arena"].Fail(nil)
			b := s.start("arena")
			is, err := b.Item(i.ID)
			if err != nil {
				t.Fatal(err)
			}
			done := len(b.Items()) == 2
			if c.done != nil {
				done = c.done(is)
			}
			if more := s.stores["arena"].Stated() - stated; done != stored || (more == 1) != stored {
				t.Errorf("%s, stored %t: done %t, with %d statements: %+v", name, stored, done, more, is)
			}
			for _, one := range b.Items() {
				if _, err := Read(s.proof("arena", one.ID), nil); err != nil {
					t.Errorf("%s, stored %t: %v", name, stored, err)
				}
			}
			if !stored { // done again, it is
				if err := c.do(s, i); err != nil {
					t.Errorf("%s again: %v", name, err)
				}
			}
			if next := s.issue("cap", nil); name == "issue" && next.Serial != 2 {
				t.Errorf("the next serial is %d", next.Serial)
			}
		}
	}
}

// A key table of another store is refused rather than begun anew.
func TestItemsWithoutTheirKey(t *testing.T) {
	s := newStage(t)
	s.issue("sword", nil)
	s.tables["arena"] = itemtest.NewMemory().Table(t)
	_, err := New(t.Context(), Config{
		Party: "arena", Key: itemtest.Key("arena"), Store: s.stores["arena"], Keys: s.tables["arena"], Homes: homes{s, "arena"},
		Ledger: func(string) (ledger.Key, error) { return s.ledger.Key(), nil },
		State:  func(ledger.Statement) (ledger.Item, error) { return ledger.Item{}, nil }, Recorded: func() {},
	})
	if carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("opened: %v", err)
	}
}

// Where as many kinds are accepted as may be, one of them can still be changed.
func TestAnAcceptanceIsReplacedWhereAllAreTaken(t *testing.T) {
	s := newStage(t)
	b := s.books["citadel"]
	one := Acceptance{Issuer: itemtest.DID("arena"), Kind: "sword", As: "blade"}
	if err := b.Accept(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	for i := len(b.accepted); i < maxAccepted; i++ {
		b.accepted[fmt.Sprint(i)] = accepted{}
	}
	one.As = "knife"
	if err := b.Accept(t.Context(), one); err != nil {
		t.Errorf("it can't be changed: %v", err)
	}
	one.Kind = "shield"
	if err := b.Accept(t.Context(), one); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("one more is accepted: %v", err)
	}
}
