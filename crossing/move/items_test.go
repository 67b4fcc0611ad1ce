package move

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/register"
)

// issue has arena issue an item for the avatar.
func (s *stage) issue(kind string) item.Info {
	s.t.Helper()
	i, err := s.items["arena"].Issue(s.t.Context(), item.Draft{Avatar: s.avatar, Kind: kind, Title: "Oathkeeper", Attributes: identity.Attributes{"damage": 12.0}})
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// takes has citadel take arena's swords.
func (s *stage) takes() {
	s.t.Helper()
	if err := s.items["citadel"].Accept(s.t.Context(), item.Acceptance{Issuer: didOf("arena"), Kind: "sword", As: "blade"}); err != nil {
		s.t.Fatal(err)
	}
}

// wanted is the move of the avatar with some items, while others end.
func (s *stage) wanted(along, end []carnet.ItemID) Wanted {
	s.t.Helper()
	d, err := s.arena.Enrol(s.t.Context(), s.avatar, "")
	if err != nil {
		s.t.Fatal(err)
	}
	w := Wanted{From: "arena", Home: d.Registered, Title: d.Title, Ceiling: d.Ceiling, Properties: d.Properties, Backup: d.Backup, Along: along, End: end}
	for _, i := range d.Items {
		w.Has = append(w.Has, Possession{i.Credential, i.Owner})
	}
	return w
}

// itself is the move of an item to an avatar of citadel's.
func (s *stage) itself(i item.Info) Wanted {
	there := carnet.AvatarID{0xcc}
	s.stores["citadel"].avatars[there] = avatar.Info{ID: there, OwnerKey: s.ownThere.Public().(ed25519.PublicKey)}
	return Wanted{
		From: "arena", Home: Registered{Avatar: s.avatar, Home: i.Home, Registrar: i.Registrar, Owner: i.Owner},
		Has: []Possession{{i.Credential, i.Owner}}, Along: []carnet.ItemID{i.ID}, Alone: true, To: there,
	}
}

func (s *stage) asks(w Wanted) {
	s.t.Helper()
	var err error
	if s.crossing, err = s.citadel.Ask(s.t.Context(), "operator", w); err != nil {
		s.t.Fatal(err)
	}
}

// is says where an item is: in which of the two worlds it is here.
func (s *stage) is(id carnet.ItemID) (worlds string) {
	for _, name := range []carnet.PartyID{"arena", "citadel"} {
		if i, err := s.items[name].Item(id); err == nil && i.State == item.Here {
			worlds += string(name) + " "
		}
	}
	return strings.TrimSpace(worlds)
}

// moved checks that an item is in citadel alone, proved by its chain and its receipts.
func (s *stage) moved(id carnet.ItemID) {
	s.t.Helper()
	if at := s.is(id); at != "citadel" {
		s.t.Fatalf("the item is in %q", at)
	}
	p, err := s.items["citadel"].Proof(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	key := s.registrar.ledger.Key()
	if h, err := item.Read(p, &key); err != nil || h.World != didOf("citadel") || h.Avatar != s.crossing.To || h.Version != 2 || len(h.Entries) != 2 {
		s.t.Errorf("the chain says %+v, %v", h, err)
	}
	if i, _ := s.items["citadel"].Item(id); i.Looks == nil || i.Looks.Kind != "blade" {
		s.t.Errorf("in citadel it is %+v", i)
	}
}

// Whatever is cut or lost, and whichever store fails before or after a write of items,
// once: the avatar and its item end in citadel, and what was left ends.
func TestItemsMoveAfterAnyBreak(t *testing.T) {
	gone := carnet.Errorf(carnet.Unavailable, "nobody answers")
	died := errors.New("the process died here")
	breaks := map[string][2]func(*stage){"nothing": {func(*stage) {}, func(*stage) {}}}
	for _, call := range []string{"offer", "freeze", "manifest", "decided"} {
		breaks[call+" cut"] = [2]func(*stage){func(s *stage) { s.cut[call] = gone }, func(s *stage) { delete(s.cut, call) }}
		breaks[call+"'s answer lost"] = [2]func(*stage){func(s *stage) { s.lost[call] = gone }, func(s *stage) { delete(s.lost, call) }}
	}
	for _, world := range []carnet.PartyID{"arena", "citadel"} {
		breaks[string(world)+"'s items fail"] = [2]func(*stage){func(s *stage) { s.stores[world].items.Fail(died) }, func(s *stage) { s.stores[world].items.Fail(nil) }}
		breaks[string(world)+"'s items are stored, and it dies"] = [2]func(*stage){func(s *stage) { s.stores[world].items.Lose(died) }, func(s *stage) { s.stores[world].items.Lose(nil) }}
		breaks[string(world)+"'s documents fail"] = [2]func(*stage){func(s *stage) { s.stores[world].failKeep = died }, func(s *stage) { s.stores[world].failKeep = nil }}
	}
	for name, b := range breaks {
		for _, alone := range []bool{false, true} {
			for _, restarted := range []carnet.PartyID{"arena", "citadel"} {
				if strings.Contains(name, "dies") && !strings.HasPrefix(name, string(restarted)) {
					continue
				}
				s := newStage(t)
				s.takes()
				sword, cap := s.issue("sword"), s.issue("cap")
				if alone {
					s.asks(s.itself(sword))
				} else {
					s.asks(s.wanted([]carnet.ItemID{sword.ID}, []carnet.ItemID{cap.ID}))
				}
				s.order(time.Hour)
				for range 3 {
					b[0](s)
					for _, a := range []*Agent{s.citadel, s.arena} {
						for _, d := range a.dueNow() {
							_ = d.drive(t.Context())
						}
					}
					b[1](s)
					s.start(restarted)
				}
				s.goOn()
				if src, tgt := s.states(); src != Gone || tgt != Home {
					t.Fatalf("%s, alone %t: the source is %q, the target %q: %s", name, alone, src, tgt, s.citadel.came(s.crossing.ID).progress.Waits)
				}
				s.moved(sword.ID)
				left, err := s.items["arena"].Item(cap.ID)
				if want := map[bool]item.State{false: item.Retired, true: item.Here}[alone]; err != nil || left.State != want {
					t.Errorf("%s, alone %t: what was left is %+v, %v", name, alone, left, err)
				}
				if there := s.citadel.came(s.crossing.ID); there.Departure == "" {
					t.Errorf("%s, alone %t: arena has signed no departure", name, alone)
				}
			}
		}
	}
}

// Of a move that doesn't come about, everything stays as it was, and goes on.
func TestItemsStayWhereAMoveIsCalledOff(t *testing.T) {
	s := newStage(t)
	s.takes()
	sword := s.issue("sword")
	s.asks(s.wanted([]carnet.ItemID{sword.ID}, nil))
	s.order(time.Hour)
	if err := s.citadel.copy(t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.items["arena"].Equip(t.Context(), sword.ID, "hand"); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a frozen item was put on: %v", err)
	}
	if _, err := (desk{s.registrar, didOf("arena")}).Decide(t.Context(), s.crossing.ID, register.Petition{Want: register.Abort, Order: s.ordered.Order}); err != nil {
		t.Fatal(err)
	}
	s.goOn()
	s.want("after the abort", Kept, Dropped, "arena")
	if at := s.is(sword.ID); at != "arena" {
		t.Errorf("the item is in %q", at)
	}
	if _, err := s.items["arena"].Equip(t.Context(), sword.ID, "hand"); err != nil {
		t.Errorf("afterwards it isn't put on: %v", err)
	}
}

// A source that makes up items in its manifest: the target signs nothing, says what is
// wrong, and the item stays where it is. With an item that moves alone the target gets
// nothing of the avatar.
func TestASourceThatLiesAboutItems(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(*stage, *avatar.Manifest)
		says string
	}{
		"a chain that was cut": {func(_ *stage, m *avatar.Manifest) { m.Items[0].Entries = nil }, "a chain of 0 entries"},
		"another item": {func(s *stage, m *avatar.Manifest) {
			m.Items[0], _ = s.items["arena"].Proof(s.t.Context(), s.other)
		}, "isn't what the order's terms say"},
		"an item too many":        {func(_ *stage, m *avatar.Manifest) { m.Items = append(m.Items, m.Items[0]) }, "the manifest has 2 items"},
		"the item is missing":     {func(_ *stage, m *avatar.Manifest) { m.Items = nil }, "the manifest has 0 items"},
		"a credential of its own": {func(_ *stage, m *avatar.Manifest) { m.Items[0].Credential = "e30.e30.AA" }, "the JWT is not in its one form"},
		"a home that is elsewhere": {func(s *stage, _ *avatar.Manifest) {
			for id, h := range s.registrar.homes {
				if h.ID != s.crossing.Home.Home {
					h.World, h.Version = didOf("clinic"), 2
					s.registrar.homes[id] = h
				}
			}
		}, "the register has it at"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.takes()
			sword := s.issue("sword")
			s.other = s.issue("sword").ID
			s.asks(s.wanted([]carnet.ItemID{sword.ID}, []carnet.ItemID{s.other}))
			s.order(time.Hour)
			var forged []byte
			s.mangle = func(what string, v any) {
				switch v := v.(type) {
				case *Freezing:
					document, err := s.arena.manifest(t.Context(), s.crossing.ID)
					if err != nil {
						t.Fatal(err)
					}
					m, err := avatar.ParseManifest(document)
					if err != nil {
						t.Fatal(err)
					}
					c.lie(s, m)
					if forged, err = json.Marshal(m); err != nil {
						t.Fatal(err)
					}
					r, err := identity.OpenRelease(v.Release)
					if err != nil {
						t.Fatal(err)
					}
					r.Manifest = carnet.FingerprintOf(forged)
					if v.Release, err = identity.SignRelease(keyOf("arena"), r); err != nil {
						t.Fatal(err)
					}
				case *[]byte:
					if what == "manifest" {
						*v = forged
					}
				}
			}
			s.goOn()
			if there := s.citadel.came(s.crossing.ID); there.State != Dropped || there.Acceptance != "" || !strings.Contains(there.Why, c.says) {
				t.Errorf("the target is %q, since %q", there.State, there.Why)
			}
			if at := s.is(sword.ID); at != "arena" {
				t.Errorf("the item is in %q", at)
			}
		})
	}
	s := newStage(t)
	s.takes()
	sword := s.issue("sword")
	s.asks(s.itself(sword))
	s.order(time.Hour)
	s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "nobody answers")
	s.goOn()
	visit := s.citadel.came(s.crossing.ID)
	if _, err := s.Stretches(t.Context(), visit.visit(), avatar.Place{}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("with an item's order the avatar's history is listed: %v", err)
	}
	if _, _, err := s.Stretch(t.Context(), visit.visit(), avatar.MovedStretch{}, false); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("with an item's order the avatar's history is given: %v", err)
	}
}
