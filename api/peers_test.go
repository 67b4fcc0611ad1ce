package api_test

import (
	"context"
	"encoding/json"
	"testing"

	"carnet"
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
	return []peering.Peering{p}
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

func TestPeersAreTheOperatorsAffair(t *testing.T) {
	s := newServed(t)
	c := &client.Client{Base: s.arenaURL, Token: "operator-token"}
	ctx := t.Context()
	all, err := c.Peers(ctx)
	if err != nil || len(all) != 1 || all[0].State != peering.Active || all[0].Invitation != "" {
		t.Fatalf("%+v, %v: want one, without its messages", all, err)
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
