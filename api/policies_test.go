package api_test

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/policy"
)

// bounds is an avatar's policy at arena, signed.
func (s *served) bounds(avatar carnet.AvatarID, key ed25519.PrivateKey, version uint64, document string) string {
	s.t.Helper()
	return s.boundsFor(public(s.ids.arena.Key), avatar, key, version, document)
}

func (s *served) boundsFor(world ed25519.PublicKey, avatar carnet.AvatarID, key ed25519.PrivateKey, version uint64, document string) string {
	s.t.Helper()
	if b, err := policy.ParseBounds([]byte(document)); err == nil {
		canonical, err := b.Document()
		if err != nil {
			s.t.Fatal(err)
		}
		document = string(canonical)
	}
	signed, err := identity.SignAvatarPolicy(key, identity.AvatarPolicy{
		Owner: identity.DID(public(key)), World: identity.DID(world), Avatar: avatar, Version: version,
		Made: time.Now().UTC().Truncate(time.Second), Policy: json.RawMessage(document),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

// statements counts what arena has stated; nothing has a receipt.
func (s *served) statements() int {
	s.t.Helper()
	store, err := s.pair.arena.db.Worlds(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := store.Pending(s.t.Context(), 0, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(all)
}

// An avatar's policy is taken from its owner alone, for this avatar here, in ever newer
// versions; it is told and stated, with the next revocation number, and survives a restart.
func TestAnAvatarsPolicyIsItsOwners(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	ops, reader, key := s.arena("operator-token"), s.arena("reader-token"), ownerKey(1)
	const document = `{"cross":{"worlds":[]}}`
	if p, err := ops.AvatarPolicy(t.Context(), m.Avatar); err != nil || p.Version != 0 || p.Policy != nil {
		t.Errorf("before: %+v, %v", p, err)
	}
	if _, err := reader.SetAvatarPolicy(t.Context(), m.Avatar, s.bounds(m.Avatar, key, 1, document)); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "owner claim") {
		t.Errorf("where no key is pinned: %v", err)
	}
	s.pinned(m)
	good := s.bounds(m.Avatar, key, 2, document)
	for name, c := range map[string]struct {
		signed string
		want   carnet.Code
	}{
		"another key":        {s.bounds(m.Avatar, ownerKey(2), 2, document), carnet.Unauthenticated},
		"another avatar":     {s.bounds(carnet.NewAvatarID(), key, 2, document), carnet.Unauthenticated},
		"another world":      {s.boundsFor(public(ownerKey(9)), m.Avatar, key, 2, document), carnet.Unauthenticated},
		"changed on its way": {good[:len(good)-6] + "AAAAAA", carnet.Unauthenticated},
		"an unknown member":  {s.bounds(m.Avatar, key, 2, `{"cross":{"world":[]}}`), carnet.Malformed},
		"no policy":          {"e30.e30.AA", carnet.Malformed},
	} {
		if _, err := reader.SetAvatarPolicy(t.Context(), m.Avatar, c.signed); carnet.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if b := s.world.Bounds(m.Avatar); b.Version != 0 {
		t.Fatalf("something of that is in force: %+v", b)
	}
	before, stated := s.revocations.Number(), s.statements()
	for range 2 { // the answer was lost: handed in again, it is the same
		p, err := reader.SetAvatarPolicy(t.Context(), m.Avatar, good)
		if err != nil || p.Version != 2 || string(p.Policy) != document || len(p.Means) != 1 || p.Signed != good {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if n := s.revocations.Number(); n != before+1 {
		t.Errorf("the revocation number grew by %d", n-before)
	}
	for name, signed := range map[string]string{
		"an older version":         s.bounds(m.Avatar, key, 1, `{}`),
		"the version, said again":  s.bounds(m.Avatar, key, 2, `{}`),
		"an older version, as bad": s.bounds(m.Avatar, key, 1, document),
	} {
		if _, err := reader.SetAvatarPolicy(t.Context(), m.Avatar, signed); carnet.CodeOf(err) != carnet.Conflict || !strings.Contains(err.Error(), "--version 3") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := s.statements(); n != stated+1 {
		t.Errorf("%d statements", n-stated)
	}
	s.pair.arena.stop()
	s.pair.arena.stop = nil
	s.startWorld()
	if b := s.world.Bounds(m.Avatar); b.Version != 2 || b.MayCross("did:key:z", "citadel", time.Now()) == nil {
		t.Errorf("after a restart: %+v", b)
	}
	if _, err := s.world.SetPolicy(t.Context(), m.Avatar, s.bounds(m.Avatar, key, 1, `{}`)); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("an older version after a restart: %v", err)
	}
	if p, err := s.world.SetPolicy(t.Context(), m.Avatar, s.bounds(m.Avatar, key, 3, `{}`)); err != nil || p.Said.Version != 3 {
		t.Errorf("a newer one after a restart: %v", err)
	}
}
