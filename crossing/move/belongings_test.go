package move

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
)

// report is what the owner is told of the recovery that is asked for.
func (s *stage) report() string {
	s.t.Helper()
	r, _, err := identity.ParseRecoveryRequest(s.citadel.came(s.crossing.ID).Request)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(r.Report, "\n")
}

// gives has the owner give an item to another avatar of arena's.
func (s *stage) gives(i item.Info) {
	s.t.Helper()
	if err := s.gift(i); err != nil {
		s.t.Fatal(err)
	}
}

// gift is gives, which may be refused.
func (s *stage) gift(i item.Info) error {
	s.t.Helper()
	to := carnet.AvatarID{9}
	s.stores["arena"].avatars[to] = avatar.Info{ID: to, OwnerKey: s.stores["arena"].avatars[s.avatar].OwnerKey}
	now := time.Now().UTC().Truncate(time.Second)
	gift, err := identity.SignGift(s.owner, identity.Gift{
		Item: i.ID, Owner: i.Owner, World: didOf("arena"), From: s.avatar, To: to, After: i.Last, Made: now, Until: now.Add(time.Hour),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = s.items["arena"].Give(s.t.Context(), gift)
	return err
}

// recoverAll has an avatar recovered by a passport.
func (s *stage) recoverAll(e Exported) {
	s.t.Helper()
	s.takeRecovery(s.bring(e))
	s.drive(s.citadel)
	s.later()
}

// backAgain has arena start, and claim what it has.
func (s *stage) backAgain() {
	s.t.Helper()
	s.start("arena")
	s.arena.claimAll(s.t.Context())
}

// recovered checks that an item came by a passport, proved by its chain and receipts.
func (s *stage) recovered(id carnet.ItemID) {
	s.t.Helper()
	p, err := s.items["citadel"].Proof(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	key := s.registrar.ledger.Key()
	h, err := item.Read(p, &key)
	if err != nil || h.World != didOf("citadel") || h.Avatar != s.crossing.To || h.Version != 2 || h.Entries[len(h.Entries)-1].What != identity.ItemRecovered {
		s.t.Errorf("the chain says %+v, %v", h, err)
	}
	if i, _ := s.items["citadel"].Item(id); i.Looks == nil || i.Looks.Kind != "blade" || i.State != item.Here {
		s.t.Errorf("in citadel it is %+v", i)
	}
}

// An avatar that is recovered has its items at its new home; the old home comes back, and
// shows them no more.
func TestItemsAreRecoveredWithTheirAvatar(t *testing.T) {
	for _, farewell := range []bool{false, true} {
		s, _ := recovering(t)
		s.takes()
		sword, second := s.issue("sword"), s.issue("sword")
		hat := s.issue("cap") // citadel takes none
		e := s.export(farewell)
		if farewell {
			if _, err := s.items["arena"].Equip(t.Context(), sword.ID, "hand"); carnet.CodeOf(err) != carnet.Conflict {
				t.Errorf("after the farewell it is put on: %v", err)
			}
			s.start("arena")
			if all := s.arena.unclaimed(); len(all) > 0 {
				t.Errorf("after a farewell it would claim %+v", all)
			}
			nothing(t, s.arena, "after a farewell")
		}
		s.takeRecovery(s.bring(e))
		if told := s.report(); !strings.Contains(told, hat.ID.String()) || strings.Contains(told, sword.ID.String()) {
			t.Errorf("the owner is told %s", told)
		}
		if got := s.citadel.came(s.crossing.ID).AtTarget; len(got.Moving().Items) != 2 {
			t.Errorf("asked for %+v", got.Moving())
		}
		s.drive(s.citadel)
		if !farewell {
			s.want("while the registrar waits", None, Prepared, "arena")
			if at := s.is(sword.ID); at != "arena" {
				t.Errorf("while the registrar waits the sword is in %q", at)
			}
			s.later()
		}
		s.recovered(sword.ID)
		s.recovered(second.ID)
		s.backAgain()
		for _, h := range s.arena.watched() { // what said farewell claims nothing
			if err := s.arena.look(t.Context(), h); err != nil {
				t.Error(err)
			}
		}
		s.want("once arena is back", Gone, Home, "citadel")
		for _, i := range []item.Info{sword, second} {
			if at := s.is(i.ID); at != "citadel" {
				t.Errorf("once arena is back, the item is in %q", at)
			}
		}
		if at := s.is(hat.ID); at != "arena" {
			t.Errorf("what doesn't come along is in %q", at)
		}
		delete(s.cut, "recovered")
		s.goOn()
		if l := s.arena.left(s.crossing.ID); l.Departure == "" {
			t.Errorf("arena has %+v", l.AtSource)
		}
	}
}

// What has left its avatar since the passport was made isn't taken, and is named; the rest
// comes. Also once arena has started anew, which changes no item.
func TestItemsThatHaveLeftStay(t *testing.T) {
	for name, c := range map[string]struct {
		leaves func(*stage, item.Info)
		why    string
	}{
		"given away":              {(*stage).gives, "given away, or retired"},
		"given away, and a start": {func(s *stage, i item.Info) { s.gives(i); s.backAgain() }, "given away, or retired"},
		"retired": {func(s *stage, i item.Info) {
			if _, err := s.items["arena"].Retire(s.t.Context(), i.ID); err != nil {
				s.t.Fatal(err)
			}
		}, "given away, or retired"},
		"moved alone": {func(s *stage, i item.Info) {
			h := s.registrar.homes[i.Home]
			h.World, h.Version, h.Incarnation = didOf("clinic"), 2, h.Incarnation+1
			s.registrar.homes[i.Home] = h
		}, "has left its world"},
		"moved, and come back": {func(s *stage, i item.Info) {
			h := s.registrar.homes[i.Home]
			h.Version, h.Incarnation = 3, h.Incarnation+2
			s.registrar.homes[i.Home] = h
		}, "come back"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := recovering(t)
			s.takes()
			stays, comes := s.issue("sword"), s.issue("sword")
			e := s.export(false)
			c.leaves(s, stays)
			s.recoverAll(e)
			if told := s.report(); !strings.Contains(told, stays.ID.String()) || !strings.Contains(told, c.why) || strings.Contains(told, comes.ID.String()) {
				t.Errorf("the owner is told %s", told)
			}
			s.recovered(comes.ID)
			if _, err := s.items["citadel"].Item(stays.ID); carnet.CodeOf(err) != carnet.NotFound {
				t.Errorf("citadel has it: %v", err)
			}
		})
	}
}

// A gift that isn't taken says nothing to the register: the item comes by its passport.
func TestAGiftThatIsRefusedLeavesPassportsAsTheyAre(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	sword := s.issue("sword")
	e := s.export(false)
	now := time.Now().UTC().Truncate(time.Second)
	gift, err := identity.SignGift(keyOf("mallory"), identity.Gift{
		Item: sword.ID, Owner: didOf("mallory"), World: didOf("arena"), From: s.avatar, To: carnet.AvatarID{9}, After: sword.Last, Made: now, Until: now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.stores["arena"].avatars[carnet.AvatarID{9}] = avatar.Info{ID: carnet.AvatarID{9}, OwnerKey: s.stores["arena"].avatars[s.avatar].OwnerKey}
	if _, err := s.items["arena"].Give(t.Context(), gift); carnet.CodeOf(err) != carnet.Forbidden {
		t.Fatalf("given by a stranger: %v", err)
	}
	s.recoverAll(e)
	s.recovered(sword.ID)
}

// An item that leaves after its owner was asked: the recovery isn't taken as it was signed,
// and is once it is asked for anew. One that leaves after the recovery came ends it.
func TestAnItemLeavesWhileItsAvatarIsRecovered(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	stays, comes := s.issue("sword"), s.issue("sword")
	signed := s.bring(s.export(false))
	s.gives(stays)
	if _, err := s.citadel.TakeRecovery(t.Context(), s.crossing.ID, signed); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "--resume") {
		t.Fatalf("taken: %v", err)
	}
	var err error
	if s.crossing, err = s.citadel.Renew(t.Context(), s.crossing.ID); err != nil {
		t.Fatal(err)
	}
	s.takeRecovery(s.sign(s.owner, func(*identity.RecoveryRequest) {}))
	s.drive(s.citadel)
	s.later()
	s.recovered(comes.ID)
	if _, err := s.items["citadel"].Item(stays.ID); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("citadel has what was given: %v", err)
	}

	s, _ = recovering(t)
	s.takes()
	sword := s.issue("sword")
	s.takeRecovery(s.bring(s.export(false)))
	s.drive(s.citadel)
	s.want("while the registrar waits", None, Prepared, "arena")
	s.gives(sword)
	s.later()
	s.want("once the item was given", None, Dropped, "arena")
	if at := s.is(sword.ID); at != "arena" {
		t.Errorf("the item is in %q", at)
	}
}

// Whichever store of citadel's fails, before or after its write, and wherever it is
// restarted: avatar and item end there, once; and arena has neither, wherever its store
// fails when it comes back.
func TestItemsAreRecoveredAfterAnyBreak(t *testing.T) {
	died := errors.New("the process died here")
	for name, b := range map[string][2]func(*stage, carnet.PartyID){
		"items fail":             {func(s *stage, w carnet.PartyID) { s.stores[w].items.Fail(died) }, func(s *stage, w carnet.PartyID) { s.stores[w].items.Fail(nil) }},
		"items stored, and dies": {func(s *stage, w carnet.PartyID) { s.stores[w].items.Lose(died) }, func(s *stage, w carnet.PartyID) { s.stores[w].items.Lose(nil) }},
		"documents fail":         {func(s *stage, w carnet.PartyID) { s.stores[w].failKeep = died }, func(s *stage, w carnet.PartyID) { s.stores[w].failKeep = nil }},
		"the registrar is away":  {func(s *stage, _ carnet.PartyID) { s.registrar.away = true }, func(s *stage, _ carnet.PartyID) { s.registrar.away = false }},
		"nothing":                {func(*stage, carnet.PartyID) {}, func(*stage, carnet.PartyID) {}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := recovering(t)
			s.takes()
			sword := s.issue("sword")
			s.takeRecovery(s.bring(s.export(false)))
			for range 3 {
				b[0](s, "citadel")
				for _, d := range s.citadel.dueNow() {
					_ = d.drive(t.Context())
				}
				b[1](s, "citadel")
				s.start("citadel")
			}
			s.drive(s.citadel)
			s.registrar.now = time.Now().Add(s.registrar.recoveryWait + time.Minute)
			for range 3 {
				b[0](s, "citadel")
				for _, d := range s.citadel.dueNow() {
					_ = d.drive(t.Context())
				}
				b[1](s, "citadel")
				s.start("citadel")
			}
			s.drive(s.citadel)
			s.want("recovered", None, Home, "arena", "citadel")
			s.recovered(sword.ID)
			for range 3 {
				s.start("arena")
				b[0](s, "arena")
				for _, h := range s.arena.unclaimed() {
					_, err := s.arena.claim(t.Context(), h.Registrar, h.Home)
					switch {
					case carnet.CodeOf(err) == carnet.Conflict && h.item != (carnet.ItemID{}):
						_ = s.arena.itemGone(t.Context(), h.Registered)
					case carnet.CodeOf(err) == carnet.Conflict:
						_ = s.arena.gone(t.Context(), h.Registered)
					}
				}
				b[1](s, "arena")
			}
			s.backAgain()
			s.want("in the end", Gone, Home, "citadel")
			if at := s.is(sword.ID); at != "citadel" {
				t.Errorf("in the end the item is in %q", at)
			}
			delete(s.cut, "recovered")
			s.goOn()
			nothing(t, s.arena, "in the end")
			nothing(t, s.citadel, "in the end")
		})
	}
}

// What somebody changes of the items that the owner signed for isn't taken.
func TestARecoveryOfOtherItems(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	sword := s.issue("sword")
	s.bring(s.export(false))
	for name, change := range map[string]func(*identity.RecoveryRequest){
		"without its item":        func(r *identity.RecoveryRequest) { r.Items = nil },
		"in another incarnation":  func(r *identity.RecoveryRequest) { r.Items[0].Incarnation++ },
		"of another home":         func(r *identity.RecoveryRequest) { r.Items[0].Home[0]++ },
		"of another credential":   func(r *identity.RecoveryRequest) { r.Items[0].Credential[0]++ },
		"as something else there": func(r *identity.RecoveryRequest) { r.Items[0].As = "crown" },
		"with one that isn't here": func(r *identity.RecoveryRequest) {
			i := r.Items[0]
			i.Item[0]++
			i.Home[0]++
			r.Items = append(r.Items, i)
		},
	} {
		if _, err := s.citadel.TakeRecovery(t.Context(), s.crossing.ID, s.sign(s.owner, change)); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.takeRecovery(s.sign(s.owner, func(*identity.RecoveryRequest) {}))
	s.drive(s.citadel)
	s.later()
	s.recovered(sword.ID)
}

// The policy of a recovered avatar is there with it: the passport's, or a newer one that
// its owner has signed since; none older, and not none.
func TestAPolicyIsRecovered(t *testing.T) {
	s, _ := recovering(t)
	s.bound(2, `{"use":{"purposes":["care"]}}`)
	e := s.export(false)
	s.bring(e)
	older := func(r *identity.RecoveryRequest) {
		said, err := identity.OpenAvatarPolicy(r.Policy)
		if err != nil {
			t.Fatal(err)
		}
		said.Version--
		if r.Policy, err = identity.SignAvatarPolicy(s.owner, said); err != nil {
			t.Fatal(err)
		}
	}
	other := func(r *identity.RecoveryRequest) {
		said, err := identity.OpenAvatarPolicy(r.Policy)
		if err != nil {
			t.Fatal(err)
		}
		said.Policy = []byte(`{}`)
		if r.Policy, err = identity.SignAvatarPolicy(s.owner, said); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*identity.RecoveryRequest){
		"none": func(r *identity.RecoveryRequest) { r.Policy = "" }, "an older one": older, "another of that version": other,
	} {
		if _, err := s.citadel.TakeRecovery(t.Context(), s.crossing.ID, s.sign(s.owner, change)); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, newer := range []bool{false, true} {
		s, _ := recovering(t)
		s.bound(2, `{"use":{"purposes":["care"]}}`)
		e, version := s.export(false), uint64(2)
		s.bring(e)
		if newer {
			s.bound(3, `{"use":{"purposes":["play"]}}`) // signed, and its world never had it
			version = 3
		}
		s.takeRecovery(s.sign(s.owner, func(r *identity.RecoveryRequest) { r.Policy = s.stores["arena"].policies[s.avatar].Signed }))
		s.drive(s.citadel)
		s.later()
		got := s.stores["citadel"].policies[s.crossing.To]
		if got.Said.Version != version || got.Said.Owner != identity.DID(s.ownThere.Public().(ed25519.PublicKey)) || got.Said.World != didOf("citadel") || got.Said.Avatar != s.crossing.To {
			t.Errorf("newer %t: it has %+v", newer, got.Said)
		}
	}
}

// What the policy forbids is refused when room is made, and by the policy that the owner's
// recovery has; the refusal names the member and what to do.
func TestARecoveryThatThePolicyForbids(t *testing.T) {
	past, coming := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, c := range []struct{ member, forbids string }{
		{"cross.worlds", fmt.Sprintf(`{"cross":{"worlds":[%q]}}`, didOf("clinic"))},
		{"cross.from", fmt.Sprintf(`{"cross":{"from":%q}}`, coming)},
		{"cross.until", fmt.Sprintf(`{"cross":{"until":%q}}`, past)},
		{"cross.sensitivity", `{"cross":{"sensitivity":"personal"}}`},
	} {
		s, _ := recovering(t)
		s.stores["citadel"].ceiling = carnet.Label{Sensitivity: carnet.Health}
		permitted := s.export(false)
		s.bound(3, c.forbids)
		e := s.export(false)
		is := func(what string, err error) {
			t.Helper()
			if carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), c.member) || !strings.Contains(err.Error(), "version 3") || !strings.Contains(err.Error(), "newer policy") {
				t.Errorf("%s: %s: %v", c.forbids, what, err)
			}
		}
		if c.member != "cross.sensitivity" { // the keys say how sensitive it is
			_, err := s.citadel.BeginRecovery(t.Context(), "operator", e.brought())
			is("room is made", err)
		}
		s.bring(permitted)
		_, err := s.citadel.TakeRecovery(t.Context(), s.crossing.ID, s.sign(s.owner, func(r *identity.RecoveryRequest) { r.Policy = e.Policy }))
		is("it is ordered", err)
		s.takeRecovery(s.sign(s.owner, func(r *identity.RecoveryRequest) {}))
	}
}

// An item that the policy doesn't let leave its world stays behind, and the avatar comes.
func TestAPolicyKeepsAnItemBehind(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	stays, comes := s.issue("sword"), s.issue("sword")
	s.bound(1, fmt.Sprintf(`{"cross":{"items":[%q]}}`, comes.ID))
	s.recoverAll(s.export(false))
	if told := s.report(); !strings.Contains(told, stays.ID.String()) || !strings.Contains(told, "cross.items") {
		t.Errorf("the owner is told %s", told)
	}
	s.recovered(comes.ID)
	if _, err := s.items["citadel"].Item(stays.ID); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("citadel has it: %v", err)
	}
}

// A policy that somebody else than the avatar's owner has signed makes no room, and the
// refusal says what to hand in.
func TestAPolicyOfAStrangerMakesNoRoom(t *testing.T) {
	s, e := recovering(t)
	said := identity.AvatarPolicy{Owner: didOf("mallory"), World: didOf("arena"), Avatar: s.avatar, Version: 9, Made: noon, Policy: []byte(`{}`)}
	var err error
	if e.Policy, err = identity.SignAvatarPolicy(keyOf("mallory"), said); err != nil {
		t.Fatal(err)
	}
	if x, err := s.citadel.BeginRecovery(t.Context(), "operator", e.brought()); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "--policy") || !strings.Contains(err.Error(), "owner policy signed") {
		t.Errorf("room is made: %+v, %v", x, err)
	}
	if rooms := s.stores["citadel"].rooms; len(rooms) > 0 {
		t.Errorf("there is room for %v", rooms)
	}
}

// Of several homes the registrar waits for the last, and that is what is said.
func TestARecoveryWaitsForTheLastOfItsHomes(t *testing.T) {
	s, _ := recovering(t)
	s.takes()
	sword := s.issue("sword")
	s.takeRecovery(s.bring(s.export(false)))
	s.drive(s.citadel)
	h := s.registrar.homes[sword.Home]
	h.Recovery.Until = h.Recovery.Until.Add(time.Hour)
	s.registrar.homes[h.ID] = h
	s.start("citadel")
	s.drive(s.citadel)
	if p := s.citadel.came(s.crossing.ID).progress; !p.SourceUntil.Equal(h.Recovery.Until) || !strings.Contains(p.Waits, h.Recovery.Until.Format(time.RFC3339)) {
		t.Errorf("it waits until %v (%s), and the last home until %v", p.SourceUntil, p.Waits, h.Recovery.Until)
	}
}
