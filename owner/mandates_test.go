package owner

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

func request() identity.MandateRequest {
	return identity.MandateRequest{
		MandateTerms: identity.MandateTerms{
			Audience: "arena", Subject: public(4), Platform: public(5), Avatar: runner,
			Actions: []identity.Action{identity.ActionRead}, Purpose: "care", Clearance: carnet.Clearance{Sensitivity: carnet.Health},
		},
		Text: "Citadel shows it to your team.",
	}
}

// pinned is a keystore of which arena and clinic have pinned a key.
func pinned(t *testing.T) (path string, k *Keystore) {
	t.Helper()
	path, k = made(t)
	key(t, k, arena())
	key(t, k, clinic())
	if err := k.Pinned(arena(), runner); err != nil {
		t.Fatal(err)
	}
	if err := k.Pinned(clinic(), patient); err != nil {
		t.Fatal(err)
	}
	return path, k
}

func approve(t *testing.T, k *Keystore) Mandate {
	t.Helper()
	m, err := k.Approve(request(), at, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAMandateIsByTheKeyThatIsPinnedWithItsAvatar(t *testing.T) {
	path, k := pinned(t)
	namesake := World{"arena", public(9)} // another world of that name
	key(t, k, namesake)
	m := approve(t, k)
	r := request()
	want := identity.MandateExpectation{
		Owner: key(t, k, arena()).Public().(ed25519.PublicKey), Audience: "arena", Subject: r.Subject, Platform: r.Platform, Avatar: r.Avatar,
		Actions: r.Actions, Now: at.Add(time.Minute),
	}
	if _, err := identity.VerifyMandate(m.Token, want); err != nil {
		t.Error(err)
	}
	k = again(t, path, k)
	all, err := k.Mandates()
	if err != nil || len(all) != 1 || all[0].Token != m.Token || all[0].Text != r.Text || !all[0].Live(at) || all[0].Live(at.Add(time.Hour)) {
		t.Errorf("the keystore has %+v, %v", all, err)
	}
}

func TestARequestAboutAnAvatarThatIsNobodysHereIsRefused(t *testing.T) {
	_, k := pinned(t)
	for name, change := range map[string]func(*identity.MandateRequest){
		"another avatar":           func(r *identity.MandateRequest) { r.Avatar = carnet.AvatarID{7} },
		"an avatar of the clinic":  func(r *identity.MandateRequest) { r.Avatar = patient },
		"a world without a key":    func(r *identity.MandateRequest) { r.Audience = "citadel" },
		"the avatar, at the other": func(r *identity.MandateRequest) { r.Audience = "clinic" },
	} {
		r := request()
		change(&r)
		if err := k.Knows(r.MandateTerms); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := k.Approve(r, at, time.Hour); carnet.CodeOf(err) != carnet.NotFound || !strings.Contains(err.Error(), "owner claim") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, life := range []time.Duration{0, -time.Hour, 24*time.Hour + time.Second, time.Millisecond} {
		if _, err := k.Approve(request(), at, life); err == nil {
			t.Errorf("a mandate of %v is signed", life)
		}
	}
	if all, err := k.Mandates(); err != nil || len(all) != 0 {
		t.Errorf("the keystore has %v, %v", all, err)
	}
}

func TestAWithdrawalIsKeptUntilItIsAcknowledged(t *testing.T) {
	path, k := pinned(t)
	m := approve(t, k)
	w, err := k.Withdraw(m.ID, at.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	want := identity.WithdrawalExpectation{Owner: key(t, k, arena()).Public().(ed25519.PublicKey), Audience: "arena", Now: at.Add(time.Minute)}
	got, err := identity.VerifyWithdrawal(w.Token, want)
	if err != nil || got.Mandate != m.ID || w.World != "arena" || w.Avatar != runner {
		t.Errorf("%+v, %+v, %v", w, got, err)
	}
	k = again(t, path, k)
	if same, err := k.Withdraw(m.ID, at.Add(time.Hour)); err != nil || same != w {
		t.Errorf("withdrawn again: %+v, %v", same, err)
	}
	if open := k.Unacknowledged(at.Add(time.Hour)); len(open) != 1 || open[0] != w {
		t.Errorf("to be told: %+v", open)
	}
	if open := k.Unacknowledged(got.Ends()); len(open) != 0 {
		t.Errorf("told for ever: %+v", open)
	}
	all, err := k.Mandates()
	if err != nil || !all[0].Withdrawn || all[0].Acknowledged || all[0].Live(at) {
		t.Errorf("%+v, %v", all, err)
	}
	for range 2 {
		if err := k.Acknowledge(m.ID); err != nil {
			t.Fatal(err)
		}
	}
	k = again(t, path, k)
	if open := k.Unacknowledged(at.Add(time.Hour)); len(open) != 0 {
		t.Errorf("told although acknowledged: %+v", open)
	}
	if all, err = k.Mandates(); err != nil || !all[0].Acknowledged {
		t.Errorf("%+v, %v", all, err)
	}
	if err := k.Acknowledge("urn:uuid:none"); err == nil {
		t.Error("what was never withdrawn is acknowledged")
	}
}

func TestAClockThatWasSetBackDoesNotEndAWithdrawalEarly(t *testing.T) {
	_, k := pinned(t)
	m, err := k.Approve(request(), at, identity.MandateLife)
	if err != nil {
		t.Fatal(err)
	}
	w, err := k.Withdraw(m.ID, at.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	got, err := identity.VerifyWithdrawal(w.Token, identity.WithdrawalExpectation{Owner: key(t, k, arena()).Public().(ed25519.PublicKey), Audience: "arena", Now: at})
	if err != nil || got.Ends().Before(m.Expires) {
		t.Errorf("it means nothing from %v on, and the mandate holds until %v, %v", got.Ends(), m.Expires, err)
	}
}

func TestMandatesAreFoundByAFewDigits(t *testing.T) {
	_, k := pinned(t)
	m := approve(t, k)
	uuid := strings.TrimPrefix(m.ID, "urn:uuid:")
	for _, id := range []string{m.ID, uuid, uuid[:4], uuid[:13]} {
		if got, err := k.Mandate(id); err != nil || got.ID != m.ID {
			t.Errorf("%s: %v, %v", id, got.ID, err)
		}
	}
	for _, id := range []string{"", uuid[:3], "urn:uuid:", "zzzz", uuid + "0"} {
		if _, err := k.Mandate(id); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := k.Withdraw(uuid[:6], m.Expires); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("withdrawn after its end: %v", err)
	}
}

func TestWhatEndedLongAgoIsForgotten(t *testing.T) {
	_, k := pinned(t)
	m := approve(t, k)
	if _, err := k.Withdraw(m.ID, at); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := k.Approve(request(), at.Add(29*24*time.Hour), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := k.Mandates(); err != nil || len(all) != 3 {
		t.Errorf("after 29 days there are %d, %v", len(all), err)
	}
	if _, err := k.Approve(request(), at.Add(32*24*time.Hour), time.Hour); err != nil {
		t.Fatal(err)
	}
	all, err := k.Mandates()
	if err != nil || len(all) != 3 || len(k.inside.Withdrawn) != 0 {
		t.Errorf("after 32 days there are %d, and %d withdrawals, %v", len(all), len(k.inside.Withdrawn), err)
	}
}

func moveRequest(t *testing.T, k *Keystore) identity.MoveRequest {
	t.Helper()
	asked := request()
	asked.Actions = []identity.Action{identity.ActionMove}
	document, err := asked.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return identity.MoveRequest{
		Crossing: carnet.CrossingID{1}, Registrar: identity.DID(public(6)), Home: carnet.HomeID{2}, Owner: identity.DID(key(t, k, arena()).Public().(ed25519.PublicKey)),
		Source: identity.DID(arena().Key), Target: "citadel", TargetKey: identity.DID(asked.Platform), To: carnet.AvatarID{3}, Report: []string{}, Mandate: document,
	}
}

// An order is by the key that is registered for the home; the key for the target is
// made with it, and kept.
func TestAnOrderIsByTheKeyOfTheHome(t *testing.T) {
	path, k := pinned(t)
	r := moveRequest(t, k)
	signed, err := k.Order(r, at, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	k = again(t, path, k)
	o, err := identity.OpenOrder(signed.Order)
	if err != nil || o.Owner != r.Owner || o.Target != r.TargetKey || !o.Until.Equal(at.Add(time.Hour)) {
		t.Errorf("ordered %+v, %v", o, err)
	}
	there := World{"citadel", public(5)}
	terms, err := identity.ParseMoveTerms(signed.Terms, o)
	if err != nil || terms.To != r.To || terms.Owner != identity.DID(key(t, k, there).Public().(ed25519.PublicKey)) {
		t.Errorf("terms %+v, %v", terms, err)
	}
	if m, by, err := identity.ReadMandate(signed.Mandate); err != nil || identity.DID(by) != r.Owner || m.Avatar != runner {
		t.Errorf("mandate %+v by %s, %v", m, identity.DID(by), err)
	}
	later := request()
	later.Audience, later.Avatar = "citadel", r.To
	if err := k.Knows(later.MandateTerms); err != nil {
		t.Errorf("the keystore doesn't know the avatar where it lives then: %v", err)
	}
	r.Owner = identity.DID(public(9))
	if _, err := k.Order(r, at, time.Hour); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("ordered with another key than the home's: %v", err)
	}
}

// An item that moves alone leaves the avatar's policy where it is.
func TestAnItemAloneNeedsNoPolicy(t *testing.T) {
	_, k := pinned(t)
	if _, err := k.SignPolicy(runner, []byte(`{"store":{"depots":[]}}`), 0, at); err != nil {
		t.Fatal(err)
	}
	r := moveRequest(t, k)
	if _, err := k.Order(r, at, time.Hour); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the avatar would move without the policy: %v", err)
	}
	r.Alone, r.Items = true, []identity.MovingItem{{Item: carnet.ItemID{6}, Home: r.Home, Kind: "sword", Title: "Oathkeeper", As: "blade"}}
	if _, err := k.Order(r, at, time.Hour); err != nil {
		t.Error(err)
	}
}

// Who approves a move twice signs one policy: the keystore has what either order takes
// along.
func TestAMoveThatIsApprovedTwiceTakesOnePolicy(t *testing.T) {
	_, k := pinned(t)
	p, err := k.SignPolicy(runner, []byte(`{"store":{"depots":[]}}`), 0, at)
	if err != nil {
		t.Fatal(err)
	}
	r := moveRequest(t, k)
	r.Policy = p.Signed
	for i := range 2 {
		signed, err := k.Order(r, at.Add(time.Duration(i)*time.Minute), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		o, err := identity.OpenOrder(signed.Order)
		if err != nil {
			t.Fatal(err)
		}
		terms, err := identity.ParseMoveTerms(signed.Terms, o)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			p.Signed = terms.Policy
		}
		if kept, err := k.Policy(r.To); err != nil || terms.Policy != p.Signed || kept.Signed != p.Signed {
			t.Errorf("approval %d takes another policy along than the first, or than is kept: %v", i+1, err)
		}
	}
}
