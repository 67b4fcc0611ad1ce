package move

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/item"
	"carnet/register"
)

// all issues as many items as an avatar may have.
func (s *stage) all(kind string, n int) (ids []carnet.ItemID) {
	s.t.Helper()
	for range n {
		ids = append(ids, s.issue(kind).ID)
	}
	return ids
}

// As many items as an avatar may have go along with it, or end with it, whichever way it
// goes: none of their entries is too large. It gets no more.
func TestAllItemsOfAnAvatarGoAlong(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	ids := s.all("sword", item.MaxOf)
	if _, err := s.items["arena"].Issue(t.Context(), item.Draft{Avatar: s.avatar, Kind: "sword", Title: "Oathkeeper"}); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("one item more: %v", err)
	}
	s.recoverAll(s.export(false))
	for _, id := range ids {
		s.recovered(id)
	}
	s.backAgain()
	if at := s.is(ids[0]); at != "citadel" {
		t.Errorf("the first is in %q", at)
	}

	s, _ = recovering(t)
	s.takes()
	ids = s.all("sword", item.MaxOf)
	s.takeRecovery(s.bring(s.export(true)))
	s.drive(s.citadel)
	for _, id := range ids {
		s.recovered(id)
	}

	s = newStage(t)
	s.takes()
	along, end := s.all("sword", item.MaxOf-20), s.all("cap", 20)
	s.asks(s.wanted(along, end))
	s.order(time.Hour)
	s.goOn()
	s.want("moved", Gone, Home, "citadel")
	for _, id := range along {
		s.moved(id)
	}
	for _, id := range end {
		s.endedHere(id)
	}
}

// What is on its way to an avatar counts as had: it gets no other in its place, by which
// one of them would be left out of its passport and of its next move.
func TestAnItemOnItsWayCounts(t *testing.T) {
	s, _ := recovering(t)
	spare, ids := s.issue("cap"), s.all("sword", item.MaxOf-2)
	s.gives(spare) // to another avatar
	x := carnet.NewCrossingID()
	s.arena.targets[x] = &atTarget{AtTarget: AtTarget{ID: x, To: s.avatar, State: Prepared, SignedOrder: SignedOrder{Terms: []byte(`{"alone":true}`)}}}
	if i := s.issue("cap"); len(ids) != item.MaxOf-2 || len(s.items["arena"].Of(i.Avatar)) != item.MaxOf-1 {
		t.Fatalf("it has %d items", len(s.items["arena"].Of(i.Avatar)))
	}
	if _, err := s.items["arena"].Issue(t.Context(), item.Draft{Avatar: s.avatar, Kind: "sword", Title: "Oathkeeper"}); carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), "1 are on their way") {
		t.Errorf("one item more: %v", err)
	}
	delete(s.arena.targets, x)
	s.issue("sword")
}

// endedHere checks that an item is retired in arena, which proves it.
func (s *stage) endedHere(id carnet.ItemID) {
	s.t.Helper()
	if i, err := s.items["arena"].Item(id); err != nil || i.State != item.Retired || i.Frozen {
		s.t.Fatalf("what was to end is %+v, %v", i, err)
	}
	p, err := s.items["arena"].Proof(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	key := s.registrar.ledger.Key()
	if h, err := item.Read(p, &key); err != nil || !h.Retired {
		s.t.Errorf("its chain says %+v, %v", h, err)
	}
}

// What is to end with its avatar ends, though the source hears from the register that
// the avatar has left, and before it asks what was decided; or from the target, since its
// store is an older copy.
func TestWhatEndsByAnOrderEndsWhoeverTellsOfIt(t *testing.T) {
	for _, older := range []bool{false, true} {
		s := newStage(t)
		s.takes()
		sword, hat := s.issue("sword"), s.issue("cap")
		copied := s.stores["arena"].copied()
		s.asks(s.wanted([]carnet.ItemID{sword.ID}, []carnet.ItemID{hat.ID}))
		s.order(time.Hour)
		s.cut["decided"] = carnet.Errorf(carnet.Unavailable, "cut")
		s.drive(s.citadel)
		if is, it := s.states(); is != Frozen || it != Home {
			t.Fatalf("it is %s and %s", is, it)
		}
		if older {
			s.stores["arena"] = copied
			s.start("arena")
		}
		for _, h := range s.arena.watched() {
			if err := s.arena.look(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
		if !older {
			s.endedHere(hat.ID)
		}
		delete(s.cut, "decided")
		s.goOn()
		s.want("in the end", Gone, Home, "citadel")
		s.endedHere(hat.ID)
		s.moved(sword.ID)
		nothing(t, s.arena, "in the end")
	}
}

// A request that is written anew while what its owner signed is checked: that isn't taken,
// and what is signed then is.
func TestARequestIsWrittenAnewWhileItIsApproved(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	stays, comes := s.issue("sword"), s.issue("sword")
	signed := s.bring(s.export(false))
	s.stores["citadel"].onCheck = func() {
		s.gives(stays)
		var err error
		if s.crossing, err = s.citadel.Renew(t.Context(), s.crossing.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.citadel.TakeRecovery(t.Context(), s.crossing.ID, signed); carnet.CodeOf(err) != carnet.Conflict {
		t.Fatalf("taken: %v", err)
	}
	s.want("after that", None, Asked, "arena")
	s.takeRecovery(s.sign(s.owner, func(*identity.RecoveryRequest) {}))
	s.drive(s.citadel)
	s.later()
	s.recovered(comes.ID)
}

// A target that is restored to a time from before it signed the acceptance has the items
// that came since.
func TestItemsAreRecoveredToAnOlderStore(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	first, second := s.issue("sword"), s.issue("sword")
	s.takeRecovery(s.bring(s.export(false)))
	older := s.stores["citadel"].copied()
	s.drive(s.citadel)
	s.later()
	s.want("recovered", None, Home, "arena", "citadel")
	s.stores["citadel"] = older
	s.start("citadel")
	s.drive(s.citadel)
	s.recovered(first.ID)
	s.recovered(second.ID)
}

// A claim whose answer is lost holds up no move: what was claimed before counts no more.
func TestALostAnswerToAClaimHoldsUpNoMove(t *testing.T) {
	s := newStage(t)
	s.takes()
	sword := s.issue("sword")
	s.backAgain()
	s.registrar.lost[sword.Home] = 2 // of the gift, and of what follows
	if err := s.gift(sword); carnet.CodeOf(err) != carnet.Unavailable {
		t.Fatalf("given: %v", err)
	}
	s.asks(s.wanted([]carnet.ItemID{sword.ID}, nil))
	s.order(time.Hour)
	s.goOn()
	if is, it := s.states(); is != Gone || it != Home {
		t.Fatalf("it is %s and %s: %s", is, it, s.citadel.came(s.crossing.ID).Why)
	}
	s.moved(sword.ID)
}

// While an avatar freezes, its items may still be changed, or be about to be: what is
// released is what keeps still, in the incarnations that hold then.
func TestAnItemIsChangedWhileItsAvatarFreezes(t *testing.T) {
	s := newStage(t)
	s.takes()
	sword := s.issue("sword")
	s.asks(s.wanted([]carnet.ItemID{sword.ID}, nil))
	s.order(time.Hour)
	frozen := make(chan struct{})
	given := s.arena.ChangeItem(t.Context(), sword.Registrar, sword.Home, func() error { // as a gift that the register was told of
		go func() {
			defer close(frozen)
			for _, d := range s.citadel.dueNow() {
				_ = d.drive(t.Context())
			}
		}()
		for {
			if h, _ := s.arena.Items.At(sword.Home); h.Frozen != (carnet.CrossingID{}) {
				time.Sleep(50 * time.Millisecond) // a release that doesn't wait is signed by then
				return carnet.Errorf(carnet.Conflict, "it keeps still")
			}
			time.Sleep(time.Millisecond)
		}
	})
	<-frozen
	s.goOn()
	if carnet.CodeOf(given) != carnet.Conflict {
		t.Errorf("given: %v", given)
	}
	s.want("moved", Gone, Home, "citadel")
	s.moved(sword.ID)
}

// A gift that fails, though the process goes on, leaves the item's passports as they are:
// whether the register can be told then, or later.
func TestAGiftThatFailsLeavesPassportsAsTheyAre(t *testing.T) {
	for _, away := range []bool{false, true} {
		s, _ := recovering(t)
		s.takes()
		sword := s.issue("sword")
		s.stores["arena"].items.Fail(errors.New("the disk is gone"))
		claims := 0
		s.registrar.waiting = map[carnet.HomeID]func(){sword.Home: func() {
			if claims++; claims == 2 && away {
				s.registrar.away = true
			}
		}}
		if err := s.gift(sword); err == nil {
			t.Fatal("given, and not stored")
		}
		s.stores["arena"].items.Fail(nil)
		s.registrar.away, s.registrar.waiting = false, nil
		if away {
			select {
			case h := <-s.arena.claims:
				if err := s.arena.claimOne(t.Context(), h); err != nil {
					t.Fatal(err)
				}
			default:
				t.Error("nothing is to be claimed anew")
			}
		}
		if h := s.registrar.homes[sword.Home]; h.Chain != 1 {
			t.Errorf("away %t: the register says that its chain has %d entries", away, h.Chain)
		}
		s.recoverAll(s.export(false))
		s.recovered(sword.ID)
	}
}

// What the register was told wrongly of a chain is put right by a passport.
func TestAPassportTellsTheRegisterOfItsChains(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	sword := s.issue("sword")
	h := s.registrar.homes[sword.Home]
	h.Chain = 2
	s.registrar.homes[h.ID] = h
	s.arena.claimed[h.ID] = h.Incarnation
	s.recoverAll(s.export(false))
	s.recovered(sword.ID)
}

// What comes, goes or is given while a farewell is said: the farewell is of exactly the
// items that its passport has, and they come along.
func TestAFarewellIsOfWhatItsPassportHas(t *testing.T) {
	for name, do := range map[string]func(*stage, item.Info){
		"another is issued": func(s *stage, _ item.Info) {
			_, _ = s.items["arena"].Issue(s.t.Context(), item.Draft{Avatar: s.avatar, Kind: "sword", Title: "Late"})
		},
		"another is given away": func(s *stage, i item.Info) { _ = s.gift(i) },
		"nothing":               func(*stage, item.Info) {},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := recovering(t)
			s.takes()
			all := []item.Info{s.issue("sword"), s.issue("sword")}
			slices.SortFunc(all, func(p, q item.Info) int { return slices.Compare(p.Home[:], q.Home[:]) })
			first, second := all[0], all[1]
			s.registrar.waiting = map[carnet.HomeID]func(){second.Home: func() {
				s.registrar.waiting = nil
				do(s, first)
			}, first.Home: func() {
				s.registrar.waiting = nil
				do(s, second)
			}}
			e := s.export(true)
			_, m, err := opened(e.brought())
			if err != nil {
				t.Fatal(err)
			}
			f, err := identity.OpenFarewell(e.Farewell)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range m.Items {
				i, err := identity.OpenItem(p.Credential)
				if err != nil || !f.Of(i.Home, s.registrar.homes[i.Home].Incarnation) {
					t.Errorf("the farewell is of %+v, and the register has %+v, %v", f.Items, s.registrar.homes[i.Home], err)
				}
			}
			if len(f.Items) != len(m.Items) {
				t.Errorf("the farewell is of %d items, the passport of %d", len(f.Items), len(m.Items))
			}
			had := s.items["arena"].Of(s.avatar)
			s.takeRecovery(s.bring(e))
			s.drive(s.citadel)
			s.want("at once", None, Home, "arena", "citadel")
			for _, i := range had {
				s.recovered(i.ID)
			}
		})
	}
}

// An item that is on its way to an avatar comes before the farewell, or not at all.
func TestAnItemOnItsWayToAFarewell(t *testing.T) {
	s, _ := recovering(t)
	x := carnet.NewCrossingID()
	s.arena.targets[x] = &atTarget{AtTarget: AtTarget{ID: x, To: s.avatar, State: Prepared, SignedOrder: SignedOrder{Terms: []byte(`{"alone":true}`)}}}
	wish := Wish{Avatar: s.avatar, Signer: keyOf("evidence").Public().(ed25519.PublicKey), Farewell: true}
	if _, err := s.arena.Export(t.Context(), wish); carnet.CodeOf(err) != carnet.Unavailable || len(s.stores["arena"].frozen) > 0 {
		t.Errorf("farewell: %v; it keeps still for %v", err, s.stores["arena"].frozen)
	}
	delete(s.arena.targets, x)
	if err := s.arena.has(x, s.avatar, identity.DID(s.owner.Public().(ed25519.PublicKey))); err != nil {
		t.Errorf("before: %v", err)
	}
	s.export(true)
	if err := s.arena.has(x, s.avatar, identity.DID(s.owner.Public().(ed25519.PublicKey))); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("afterwards: %v", err)
	}
}

// A farewell that lacks items, since an older program said it, has them once it is given
// again; that one is stored before anybody has it.
func TestAFarewellGivenAgainHasItsItems(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	sword := s.issue("sword")
	f, err := identity.OpenFarewell(s.export(true).Farewell)
	if err != nil {
		t.Fatal(err)
	}
	f.Items = nil
	said, _ := s.arena.saidFarewell(s.avatar)
	if said.Farewell, err = identity.SignFarewell(keyOf("arena"), f); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	s.stores["arena"].documents[[2]string{kindFarewell, said.document()}] = text
	s.start("arena")
	s.stores["arena"].failKeep = carnet.Errorf(carnet.Unavailable, "the disk is gone")
	if _, err := s.arena.Export(t.Context(), Wish{Avatar: s.avatar, Signer: keyOf("evidence").Public().(ed25519.PublicKey), Farewell: true}); err == nil {
		t.Error("given, and not stored")
	}
	s.stores["arena"].failKeep = nil
	before, err := identity.OpenFarewell(s.export(true).Farewell)
	if err != nil {
		t.Fatal(err)
	}
	s.start("arena")
	e := s.export(true)
	again, err := identity.OpenFarewell(e.Farewell)
	if err != nil || !again.Of(sword.Home, s.registrar.homes[sword.Home].Incarnation) || !slices.Equal(again.Items, before.Items) {
		t.Errorf("given again it is of %+v, and was of %+v, %v", again.Items, before.Items, err)
	}
	s.takeRecovery(s.bring(e))
	s.drive(s.citadel)
	s.want("at once", None, Home, "arena", "citadel")
	s.recovered(sword.ID)
}

// alone is a recovery of an item's home and of no avatar's, which a target plays along
// with: it says that the item's chain has so many entries. It is asked of the registrar.
func (s *stage) alone(i item.Info, chain uint64) (recovery string, ask func() *register.Decided) {
	s.t.Helper()
	now, manifest := time.Now().UTC().Truncate(time.Second), carnet.Fingerprint{7}
	x := carnet.NewCrossingID()
	recovery, err := identity.SignRecovery(s.owner, identity.Order{
		Crossing: x, Registrar: i.Registrar, Owner: i.Owner, Source: didOf("arena"), Target: didOf("citadel"), Homes: []carnet.HomeID{i.Home}, Made: now, Until: now.Add(30 * 24 * time.Hour),
		Recovers: &identity.Recovers{Manifest: manifest, Incarnations: []uint64{s.registrar.homes[i.Home].Incarnation}, Chains: []uint64{chain}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	accepted, err := identity.SignAcceptance(keyOf("citadel"), identity.Acceptance{Crossing: x, Target: didOf("citadel"), Order: carnet.FingerprintOf([]byte(recovery)), Manifest: manifest})
	if err != nil {
		s.t.Fatal(err)
	}
	return recovery, func() *register.Decided {
		d, err := desk{s.registrar, didOf("citadel")}.Decide(s.t.Context(), x, register.Petition{Want: register.Commit, Order: recovery, Acceptance: accepted})
		if err != nil {
			s.t.Fatal(err)
		}
		return d
	}
}

// weekLater lets the registrar's waiting time pass.
func (s *stage) weekLater() {
	s.registrar.now = time.Now().Add(s.registrar.recoveryWait + time.Minute)
}

// A world that lives objects to the recovery of an item alone; one that couldn't, since it
// didn't reach the register, has the item no more once it does.
func TestAWorldWatchesItsItemsHomes(t *testing.T) {
	for name, lives := range map[string]bool{"it lives": true, "it is away": false, "it has said farewell": false} {
		s, _ := recovering(t)
		sword := s.issue("sword")
		s.backAgain()
		if name == "it has said farewell" { // so it claims the item no more, and believes that it has gone
			s.export(true)
		}
		_, ask := s.alone(sword, 1)
		if d := ask(); d != nil {
			t.Fatalf("at once: %+v", d)
		}
		looks := func() {
			for _, h := range s.arena.watched() {
				if err := s.arena.look(t.Context(), h); err != nil {
					t.Fatal(err)
				}
			}
		}
		if name != "it is away" {
			looks()
		}
		s.weekLater()
		d := ask()
		if want := map[bool]identity.Outcome{true: identity.Abort, false: identity.Commit}[lives]; d == nil || d.Outcome != want {
			t.Fatalf("%s: decided %+v", name, d)
		}
		looks()
		if at := s.is(sword.ID); (at == "arena") != lives {
			t.Errorf("%s: the item is in %q", name, at)
		}
	}
}

// What was claimed wrongly, or couldn't be, is claimed when the register is asked about
// the homes here.
func TestWhatIsntClaimedIsLater(t *testing.T) {
	s, _ := recovering(t)
	sword := s.issue("sword")
	s.arena.claimAll(t.Context())
	before := s.registrar.homes[sword.Home].Incarnation
	delete(s.arena.claimed, sword.Home)
	s.registrar.away = true
	if left := s.arena.claimRest(t.Context()); left != 1 {
		t.Errorf("%d are left", left)
	}
	s.registrar.away = false
	if left := s.arena.claimRest(t.Context()); left != 0 || s.registrar.homes[sword.Home].Incarnation != before+1 {
		t.Errorf("%d are left: %+v", left, s.registrar.homes[sword.Home])
	}
}

// An item that has ended comes back by no older chain, though its owner and another world
// agree on it, and its world watches it no more: however it ended.
func TestAnItemThatHasEndedIsNotRecovered(t *testing.T) {
	for name, end := range map[string]func(*stage, item.Info){
		"retired": func(s *stage, i item.Info) {
			if _, err := s.items["arena"].Retire(s.t.Context(), i.ID); err != nil {
				s.t.Fatal(err)
			}
		},
		"left behind by a move": func(s *stage, i item.Info) {
			s.asks(s.wanted(nil, []carnet.ItemID{i.ID}))
			s.order(time.Hour)
			s.goOn()
			s.want("moved", Gone, Home, "citadel")
			s.endedHere(i.ID)
		},
		"erased": func(s *stage, i item.Info) {
			if _, err := s.items["arena"].Erase(s.t.Context(), s.avatar, carnet.ErasureID{1}); err != nil {
				s.t.Fatal(err)
			}
		},
	} {
		for _, away := range []bool{false, true} {
			s, _ := recovering(t)
			sword := s.issue("sword")
			s.backAgain()
			p, err := s.items["arena"].Proof(t.Context(), sword.ID)
			if err != nil {
				t.Fatal(err)
			}
			end(s, sword)
			_, ask := s.alone(sword, 1)
			if name != "retired" {
				if all := s.arena.Items.Ending(); len(all) != 1 {
					t.Errorf("%s: the register is to be told of %+v", name, all)
				}
				if away {
					s.registrar.away = true
					s.arena.claimRest(t.Context())
					s.registrar.away = false
					s.start("arena")
				}
			}
			s.arena.claimRest(t.Context())
			if all := s.arena.Items.Ending(); len(all) > 0 {
				t.Errorf("%s: the register is to be told again of %+v", name, all)
			}
			_, again := s.alone(sword, 1) // as the register stands now
			s.weekLater()
			for _, ask := range []func() *register.Decided{ask, again} {
				if d := ask(); d == nil || d.Outcome != identity.Abort {
					t.Errorf("%s: decided %+v", name, d)
				}
			}
			// One that says how long the chain is indeed moves a home, and brings no item.
			s.registrar.now = time.Time{}
			recovery, ask := s.alone(sword, s.registrar.homes[sword.Home].Chain)
			ask()
			s.weekLater()
			d := ask()
			if d == nil || d.Outcome != identity.Commit {
				t.Fatalf("%s: decided %+v", name, d)
			}
			proof := identity.OnLedger(d.Reply.Proof)
			entry, err := identity.SignItemEntry(keyOf("citadel"), identity.ItemEntry{
				Item: sword.ID, Number: 2, Before: carnet.FingerprintOf([]byte(p.Entries[0])), What: identity.ItemRecovered, World: didOf("citadel"), Avatar: carnet.AvatarID{5}, Owner: sword.Owner,
				Time: time.Now().UTC().Truncate(time.Second), Order: recovery, Decision: d.Reply.Decision, Proof: &proof,
			})
			if err != nil {
				t.Fatal(err)
			}
			key := s.registrar.ledger.Key()
			if h, err := item.Read(identity.ItemProof{Credential: p.Credential, Entries: append(slices.Clone(p.Entries), entry)}, &key); carnet.CodeOf(err) != carnet.Tampered {
				t.Errorf("%s: it is read as %+v, %v", name, h, err)
			}
		}
	}
}
