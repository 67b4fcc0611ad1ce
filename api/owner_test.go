package api_test

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/identity"
	"carnet/thing"
)

// ownerKey is an owner's key for a world, as a keystore has it.
func ownerKey(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return ed25519.NewKeyFromSeed(seed)
}

func own(t testing.TB, key ed25519.PrivateKey, world carnet.PartyID, avatar carnet.AvatarID, at time.Time) string {
	t.Helper()
	token, err := identity.SignOwnership(key, identity.Ownership{Audience: world, Avatar: avatar, Issued: at})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// signed is the body of an operation whose example can't hold: somebody signs
// what it carries; and the id in its path where that is made first. Both are empty
// for others.
func (s *served) signed(operation string, m thing.MappingInfo) (id, body string) {
	switch operation {
	case "own-mapping":
		return "", marshal(s.t, api.NewOwnership{Ownership: own(s.t, ownerKey(1), "arena", m.Avatar, time.Now())})
	case "give-mandate":
		return "", marshal(s.t, api.SignedMandate{Mandate: approve(s.t, s.asked(m), ownerKey(5))})
	case "remove-mandate":
		return s.asked(m).ID, ""
	case "withdraw-mandate":
		return "", marshal(s.t, api.SignedWithdrawal{Withdrawal: withdraw(s.t, ownerKey(1), aMandate)})
	case "set-avatar-policy":
		return "", marshal(s.t, api.SignedPolicy{Policy: s.bounds(m.Avatar, ownerKey(1), 1, `{"cross":{"items":[]},"transmit":{"onward":false}}`)})
	}
	return "", ""
}

const aMandate = "urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5"

// asked is a request that arena makes of the avatar's owner.
func (s *served) asked(m thing.MappingInfo) api.MandateRequest {
	s.t.Helper()
	r, err := s.arena("operator-token").AskMandate(s.t.Context(), m.Avatar, api.NewMandate{
		World: "citadel", Avatar: carnet.AvatarID{1}, Actions: []identity.Action{identity.ActionRead}, Purpose: "care", Sensitivity: "public", Text: "For your team.",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func approve(t testing.TB, r api.MandateRequest, key ed25519.PrivateKey) string {
	t.Helper()
	asked, err := identity.ParseMandateRequest(r.Request)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	token, err := identity.SignMandate(key, identity.Mandate{MandateTerms: asked.MandateTerms, Issued: now, NotBefore: now, Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func withdraw(t testing.TB, key ed25519.PrivateKey, id string) string {
	t.Helper()
	token, err := identity.SignWithdrawal(key, identity.Withdrawal{Audience: "arena", Mandate: id, Issued: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// pinned pins ownerKey(1) with the mapping's avatar.
func (s *served) pinned(m thing.MappingInfo) {
	s.t.Helper()
	if _, err := s.hub("alice-token").Own(s.t.Context(), m.ID, own(s.t, ownerKey(1), "arena", m.Avatar, time.Now())); err != nil {
		s.t.Fatal(err)
	}
}

func TestMandatesAreAskedForGivenAndWithdrawnOverHTTP(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{}}`)
	ops, reader := s.arena("operator-token"), s.arena("reader-token")
	r := s.asked(m)
	if _, err := reader.AskMandate(t.Context(), m.Avatar, api.NewMandate{}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a reader asks: %v", err)
	}
	if _, err := ops.AskMandate(t.Context(), m.Avatar, api.NewMandate{World: "citadel", Avatar: m.Avatar, Actions: []identity.Action{"read"}, Purpose: "care", Sensitivity: "secret", Text: "x"}); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("an unknown sensitivity: %v", err)
	}
	given, err := reader.GiveMandate(t.Context(), approve(t, r, ownerKey(5)))
	if err != nil || given.ID != r.ID || given.Expires == nil {
		t.Errorf("given: %+v, %v", given, err)
	}
	if _, err := reader.GiveMandate(t.Context(), "e30.e30.AA"); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("no mandate: %v", err)
	}
	list, err := reader.Mandates(t.Context(), m.Avatar)
	if err != nil || len(list) != 1 || string(list[0].Request) != string(r.Request) || list[0].By != "ops" {
		t.Errorf("listed: %+v, %v", list, err)
	}
	if _, err := reader.Mandates(t.Context(), carnet.NewAvatarID()); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("of no avatar: %v", err)
	}
	word := withdraw(t, ownerKey(1), aMandate)
	if _, err := reader.Withdraw(t.Context(), m.Avatar, word); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("withdrawn where no key is pinned: %v", err)
	}
	s.pinned(m)
	if _, err := reader.Withdraw(t.Context(), m.Avatar, withdraw(t, ownerKey(2), aMandate)); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("withdrawn by somebody else: %v", err)
	}
	for range 2 {
		if _, err := reader.Withdraw(t.Context(), m.Avatar, word); err != nil {
			t.Error(err)
		}
	}
	if s.mandates.Stands(ownerKey(1).Public().(ed25519.PublicKey), aMandate) == nil {
		t.Error("it isn't withdrawn")
	}
	if _, err := ops.RemoveMandate(t.Context(), r.ID); err != nil {
		t.Error(err)
	}
	if _, err := ops.RemoveMandate(t.Context(), r.ID); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func TestAnOwnersKeyIsPinnedOnce(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	alice, key := s.hub("alice-token"), ownerKey(1)
	owner := key.Public().(ed25519.PublicKey)
	if m.WorldName != "arena" || !ed25519.PublicKey(m.WorldKey).Equal(s.ids.arena.Key.Public()) || m.OwnerKey != nil {
		t.Fatalf("before: %+v", m)
	}
	for range 2 { // the answer was lost: asked again, it is the same
		got, err := alice.Own(t.Context(), m.ID, own(t, key, "arena", m.Avatar, time.Now()))
		if err != nil || !ed25519.PublicKey(got.OwnerKey).Equal(owner) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	info, err := s.arena("reader-token").Avatar(t.Context(), m.Avatar)
	if err != nil || !ed25519.PublicKey(info.OwnerKey).Equal(owner) {
		t.Errorf("the world says %+v, %v", info, err)
	}
	_, err = alice.Own(t.Context(), m.ID, own(t, ownerKey(2), "arena", m.Avatar, time.Now()))
	if carnet.CodeOf(err) != carnet.Conflict || !strings.Contains(err.Error(), identity.DID(owner)) {
		t.Errorf("another key: %v", err)
	}
	if pinned, err := s.world.Owner(m.Avatar); err != nil || !pinned.Equal(owner) {
		t.Errorf("after the other key: %x, %v", pinned, err)
	}
	credential := ask(t, http.MethodGet, s.arenaURL+"/v1/avatars/"+m.Avatar.String()+"/credential", "reader-token", "")
	c, err := identity.VerifyCredential(credential.body, identity.Expectation{Issuer: public(s.ids.arena.Key), World: "arena", Now: time.Now()})
	if err != nil || !c.Owner.Equal(owner) {
		t.Errorf("the credential says %x, %v", c.Owner, err)
	}
}

func TestOnlyTheOwnersWordAboutTheAvatarPins(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{}}`)
	_, other := s.watch("watch-8", `{"properties":{}}`)
	now, key := time.Now(), ownerKey(1)
	good := own(t, key, "arena", m.Avatar, now)
	for name, test := range map[string]struct {
		token, word string
		want        carnet.Code
	}{
		"another world":  {"alice-token", own(t, key, "clinic", m.Avatar, now), carnet.Unauthenticated},
		"another avatar": {"alice-token", own(t, key, "arena", other.Avatar, now), carnet.Malformed},
		"no avatar":      {"alice-token", own(t, key, "arena", carnet.NewAvatarID(), now), carnet.Malformed},
		"an hour old":    {"alice-token", own(t, key, "arena", m.Avatar, now.Add(-time.Hour)), carnet.Unauthenticated},
		"to come":        {"alice-token", own(t, key, "arena", m.Avatar, now.Add(time.Hour)), carnet.Unauthenticated},
		"forged":         {"alice-token", good[:len(good)-6] + "AAAAAA", carnet.Unauthenticated},
		"cut short":      {"alice-token", good[:40], carnet.Malformed},
		"nothing":        {"alice-token", "", carnet.Malformed},
		"much":           {"alice-token", strings.Repeat("A", 5000), carnet.Malformed},
		"of others":      {"bob-token", good, carnet.NotFound},
	} {
		if _, err := s.hub(test.token).Own(t.Context(), m.ID, test.word); carnet.CodeOf(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	if key, err := s.world.Owner(m.Avatar); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("pinned: %x, %v", key, err)
	}
	if _, err := s.world.Owner(carnet.NewAvatarID()); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the owner of no avatar: %v", err)
	}
}

// A sender speaks for its own avatars only, whatever it passes on.
func TestAnotherSenderPinsNothing(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{}}`)
	word := marshal(t, carnet.Own{Ownership: own(t, ownerKey(3), "arena", m.Avatar, time.Now())})
	if _, err := s.world.Call(context.WithoutCancel(t.Context()), "nobody", carnet.CallOwn, []byte(word)); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("nobody: %v", err)
	}
	if _, err := s.hub("alice-token").Unmap(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.hub("alice-token").Own(t.Context(), m.ID, own(t, ownerKey(3), "arena", m.Avatar, time.Now())); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("for a stream that has ended: %v", err)
	}
}
