package api_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/api"
	"carnet/api/client"
	"carnet/peering"
)

// registry has a peering with whoever is named but nobody, which is as the last call left it, and
// answers whom it told the secret.
type registry struct{}

func (registry) peering(name carnet.PartyID, s peering.State) (peering.Peering, error) {
	if name == "nobody" {
		return peering.Peering{}, carnet.Errorf(carnet.NotFound, "arena has no peer %q", name)
	}
	return peering.Peering{Name: name, State: s, Inviter: true, Terms: peering.Terms{Scope: []peering.Scope{peering.R1}, Purposes: []string{"play"}}, Invitation: "signed"}, nil
}

func (r registry) All() []peering.Peering {
	p, _ := r.peering("gym", peering.Active)
	invited, _ := r.peering("pool", peering.Invited)
	return []peering.Peering{p, invited}
}
func (r registry) Named(name carnet.PartyID) (peering.Peering, error) {
	return r.peering(name, peering.Active)
}
func (registry) Trouble(carnet.PartyID) string { return "" }
func (r registry) Invite(_ context.Context, name carnet.PartyID, _ peering.Offer) (peering.Peering, error) {
	return r.peering(name, peering.Invited)
}
func (r registry) Accept(_ context.Context, name carnet.PartyID, _ string) (peering.Peering, error) {
	return r.peering(name, peering.Accepted)
}
func (r registry) TakeAcceptance(_ context.Context, name carnet.PartyID, _ string) (peering.Peering, error) {
	return r.peering(name, peering.Answered)
}
func (r registry) TakeConfirmation(_ context.Context, name carnet.PartyID, _ string) (peering.Peering, error) {
	return r.peering(name, peering.Active)
}
func (r registry) Compare(_ context.Context, name carnet.PartyID, _ string) (peering.Peering, error) {
	return r.peering(name, peering.Active)
}
func (r registry) Suspend(_ context.Context, name carnet.PartyID) (peering.Peering, error) {
	return r.peering(name, peering.Suspended)
}
func (r registry) Resume(_ context.Context, name carnet.PartyID) (peering.Peering, error) {
	return r.peering(name, peering.Active)
}
func (r registry) Remove(_ context.Context, name carnet.PartyID) (peering.Peering, error) {
	return r.peering(name, peering.Removed)
}

const invitation = "00112233445566778899aabbccddeeff"

const secret = "abcdefghijklmnopqrstuvwxyz234567"

func (registry) Answer(_ context.Context, id peering.InvitationID, shown, acceptance string) (string, error) {
	if shown != secret || id == (peering.InvitationID{}) {
		return "", carnet.Errorf(carnet.Unauthenticated, "there is no such invitation")
	}
	return "confirmed " + acceptance, nil
}
func (r registry) Confirmed(id peering.InvitationID, shown string) (string, error) {
	return r.Answer(context.Background(), id, shown, "")
}

func (r registry) Invited(id peering.InvitationID, shown string) error {
	_, err := r.Confirmed(id, shown)
	return err
}

func TestPeersAreTheOperatorsAffair(t *testing.T) {
	s := newServed(t)
	c := &client.Client{Base: s.arenaURL, Token: "operator-token"}
	ctx := t.Context()
	all, err := c.Peers(ctx)
	if err != nil || len(all) != 2 || all[0].State != peering.Active || !all[0].Inviter || all[0].Invitation != "" {
		t.Fatalf("%+v, %v: want two, without their messages", all, err)
	}
	own, err := (&client.Client{Base: s.arenaURL, Token: "alice-token"}).Peers(ctx)
	if err != nil || len(own) != 1 || own[0].Name != "gym" || len(own[0].Purposes) == 0 || own[0].Inviter || own[0].Words != "" || own[0].Next != "" {
		t.Errorf("a user sees %+v, %v: want who is a peer, and for what", own, err)
	}
	for want, call := range map[peering.State]func() (api.Peer, error){
		peering.Invited: func() (api.Peer, error) {
			return c.Invite(ctx, api.NewPeer{Name: "gym", Scope: []peering.Scope{"r1"}})
		},
		peering.Accepted:  func() (api.Peer, error) { return c.AcceptInvitation(ctx, "gym", "signed") },
		peering.Answered:  func() (api.Peer, error) { return c.TakeAcceptance(ctx, "gym", "signed") },
		peering.Active:    func() (api.Peer, error) { return c.CompareWords(ctx, "gym", "ABCD") },
		peering.Suspended: func() (api.Peer, error) { return c.SuspendPeer(ctx, "gym") },
		peering.Removed:   func() (api.Peer, error) { return c.RemovePeer(ctx, "gym") },
	} {
		if p, err := call(); err != nil || p.State != want || p.Invitation != "signed" {
			t.Errorf("%+v, %v, want it %s", p, err, want)
		}
	}
	if p, err := c.ResumePeer(ctx, "gym"); err != nil || p.State != peering.Active {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := c.TakeConfirmation(ctx, "gym", "signed"); err != nil || p.State != peering.Active {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := c.Peer(ctx, "nobody"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a peer that isn't there: %v", err)
	}
	if _, err := c.Invite(ctx, api.NewPeer{Name: "gym", Scope: []peering.Scope{"r1"}, Sensitivity: "much"}); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a sensitivity that is none: %v", err)
	}
}

func TestAnInvitationsSecretStandsForAToken(t *testing.T) {
	s := newServed(t)
	path := s.arenaURL + "/v1/peerings/" + invitation
	if a := ask(t, "POST", path, secret, `{"acceptance":"mine"}`); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	} else if c := (api.Confirmation{}); json.Unmarshal([]byte(a.body), &c) != nil || c.Confirmation != "confirmed mine" {
		t.Errorf("answered %s", a.body)
	}
	if a := ask(t, "GET", path, secret, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for name, path := range map[string]string{
		"short": "/v1/peerings/0011", "not hexadecimal": "/v1/peerings/zz112233445566778899aabbccddeeff", "none": "/v1/peerings/00000000000000000000000000000000",
	} {
		if a := ask(t, "POST", s.arenaURL+path, secret, `{"acceptance":"mine"}`); a.status != 401 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// TestWhoGuessesFillsNoLog: what is refused for want of an invitation's secret, or
// of one token's rights, is recorded as refused, a few times a minute, and then
// counted.
func TestWhoGuessesFillsNoLog(t *testing.T) {
	s := newServed(t)
	g := guard(t, s.records)
	now := time.Now()
	g.Refusals, g.Now = 5, func() time.Time { return now }
	base := s.serve(api.Config{Party: "arena", World: s.world, Peers: registry{}, Guard: g, Tokens: s.tokens, Log: quiet()})
	for what, c := range map[string]struct {
		path, token string
		status      int
	}{
		"an invitation": {"/v1/peerings/" + invitation, "a-guess", 401},
		"a token":       {"/v1/status", "alice-token", 403},
	} {
		t.Run(what, func(t *testing.T) {
			for range 50 {
				if a := ask(t, "GET", base+c.path, c.token, ""); a.status != c.status {
					t.Fatalf("%d %s", a.status, a.body)
				}
			}
			all := s.records.take()
			if len(all) != 5 || slices.ContainsFunc(all, func(r activity.Record) bool { return r.Permitted }) {
				t.Errorf("50 refusals left %d records: %+v", len(all), all)
			}
			now = now.Add(time.Minute)
			ask(t, "GET", base+c.path, c.token, "")
			if all := s.records.take(); len(all) != 1 || !strings.Contains(all[0].Why, "45 more were refused") {
				t.Errorf("a minute later there is %+v", all)
			}
		})
	}
	for range 50 {
		if a := ask(t, "GET", base+"/v1/peerings/"+invitation, secret, ""); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if all := s.records.take(); len(all) != 50 || !all[0].Permitted {
		t.Errorf("50 calls with the secret left %d records", len(all))
	}
}
