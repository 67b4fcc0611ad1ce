package move

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/item"
	"carnet/register"
	"carnet/seal"
)

// backUp gives out a passport of the avatar with keys for its owner.
func (s *stage) backUp() Exported {
	s.t.Helper()
	reception, err := seal.NewReceptionKey()
	if err != nil {
		s.t.Fatal(err)
	}
	announced, err := reception.Announce(s.owner, OwnerReader, time.Now().Add(time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	e, err := s.arena.Export(s.t.Context(), Wish{Avatar: s.avatar, Signer: keyOf("evidence").Public().(ed25519.PublicKey), For: [][]byte{announced}})
	if err == nil {
		err = s.arena.NoteBackup(s.t.Context(), s.avatar, *e.Backup)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// asked is what the owner is told of the move that is asked for.
func (s *stage) asked() string {
	s.t.Helper()
	r, _, err := identity.ParseMoveRequest(s.crossing.Request)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(r.Report, "\n")
}

// An avatar whose source and target are both lost in the middle of its move comes back, with
// its item, in a third world: by the passport that was given out before, its owner's key and
// the register. What the two had signed is worth nothing any more then.
func TestABackupBringsBackWhatBothWorldsLose(t *testing.T) {
	for name, lost := range map[string]func(*stage){
		"before it is offered": func(*stage) {},
		"while it is copied": func(s *stage) {
			s.cut["freeze"] = carnet.Errorf(carnet.Unavailable, "cut")
			s.goOn()
			s.want("copying", Offered, Copying, "arena")
		},
		"while it keeps still": func(s *stage) {
			if err := s.citadel.copy(s.t.Context(), s.citadel.came(s.crossing.ID)); err != nil {
				s.t.Fatal(err)
			}
			s.want("frozen", Frozen, Prepared, "arena")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.registrar.recoveryWait = 7 * 24 * time.Hour
			s.takes()
			sword := s.issue("sword")
			s.export(false) // which has no keys, and so is no backup
			s.asks(s.wanted([]carnet.ItemID{sword.ID}, nil))
			if told := s.asked(); !strings.Contains(told, "nothing brings it back") {
				t.Errorf("without a backup its owner is told %s", told)
			}
			e := s.backUp()
			s.asks(s.wanted([]carnet.ItemID{sword.ID}, nil))
			if told := s.asked(); !strings.Contains(told, "it comes back by the passport of") {
				t.Errorf("with a backup its owner is told %s", told)
			}
			s.order(time.Hour)
			lost(s)
			if all := s.arena.AtSource(); len(all) > 0 {
				if b := all[0].Backup; b == nil || b.Passport != mustOpen(t, e.Word).Passport {
					t.Errorf("at the source the backup is %+v", b)
				}
			}
			signed, was := s.citadel.came(s.crossing.ID), s.crossing.ID

			s.stores = map[carnet.PartyID]*store{"clinic": newStore()}
			s.arena, s.citadel = nil, nil
			s.cut["recovered"] = carnet.Errorf(carnet.Unavailable, "arena is gone")
			s.start("clinic") // in citadel's place
			if err := s.items["clinic"].Accept(t.Context(), item.Acceptance{Issuer: didOf("arena"), Kind: "sword", As: "blade"}); err != nil {
				t.Fatal(err)
			}
			s.takeRecovery(s.bring(e))
			s.drive(s.citadel)
			s.later()
			if at := s.citadel.came(s.crossing.ID); at.State != Home || s.registrar.homes[at.Home.Home].World != didOf("clinic") {
				t.Fatalf("it is %s: %s, %s", at.State, at.Why, at.progress.Waits)
			}
			if i, err := s.items["clinic"].Item(sword.ID); err != nil || i.State != item.Here || i.Avatar != s.crossing.To {
				t.Errorf("its item is %+v, %v", i, err)
			}
			if signed.Release == "" {
				return
			}
			d, err := desk{s.registrar, didOf("citadel")}.Decide(t.Context(), was, register.Petition{Want: register.Commit, Order: signed.Order, Release: signed.Release, Acceptance: signed.Acceptance})
			if err != nil || d.Outcome != identity.Abort {
				t.Errorf("the move is decided after all: %+v, %v", d, err)
			}
		})
	}
}

func mustOpen(t *testing.T, word string) identity.Passport {
	t.Helper()
	p, err := identity.OpenPassport(word)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Once it is decided, the backup of before brings nothing back: the register says that the
// avatar is at its target, which has all of it.
func TestABackupIsWorthNothingAfterTheDecision(t *testing.T) {
	s := newStage(t)
	e := s.backUp()
	s.ask()
	s.order(time.Hour)
	s.goOn()
	s.want("moved", Gone, Home, "citadel")
	s.stores["clinic"] = newStore()
	s.start("clinic")
	if _, err := s.citadel.BeginRecovery(t.Context(), "operator", e.brought()); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("room is made: %v", err)
	}
}

// A world that wants a backup lets no avatar go without one, or with an old one; an item
// alone needs none. What is erased leaves none behind.
func TestAWorldThatWantsABackup(t *testing.T) {
	moves := func(before func(*stage)) (s *stage, why string) {
		s = newStage(t)
		s.arena.BackupWithin = time.Hour
		before(s)
		s.ask()
		s.order(2 * time.Hour)
		s.goOn()
		return s, s.citadel.came(s.crossing.ID).Why
	}
	s, why := moves(func(s *stage) { s.export(false) })
	if s.want("without one", None, Dropped, "arena"); !strings.Contains(why, "none was given out") {
		t.Errorf("it is refused since %q", why)
	}
	s, why = moves(func(s *stage) {
		s.backUp()
		s.arena.Now = func() time.Time { return time.Now().Add(61 * time.Minute) }
	})
	if s.want("with an old one", None, Dropped, "arena"); !strings.Contains(why, "the newest was made at") {
		t.Errorf("it is refused since %q", why)
	}
	s, _ = moves(func(s *stage) { s.backUp(); s.backUp() })
	s.want("with one", Gone, Home, "citadel")

	s = newStage(t)
	s.arena.BackupWithin = time.Hour
	s.takes()
	sword := s.issue("sword")
	s.asks(s.itself(sword))
	s.order(time.Hour)
	s.goOn()
	s.moved(sword.ID)
	s.backUp()
	if err := s.arena.Forget(t.Context(), s.avatar); err != nil {
		t.Fatal(err)
	}
	if b, err := s.arena.backup(t.Context(), s.avatar); b != nil || err != nil {
		t.Errorf("of what is erased it says %+v, %v", b, err)
	}
}
