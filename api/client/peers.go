package client

import (
	"context"
	"net/http"
	"net/url"

	"carnet"
	"carnet/api"
)

func peerPath(name carnet.PartyID) string { return "/v1/peers/" + url.PathEscape(string(name)) }

// Peers lists the party's peerings, without messages.
func (c *Client) Peers(ctx context.Context) ([]api.Peer, error) {
	list, err := get[api.PeerList](ctx, c, "/v1/peers")
	return list.Peers, err
}

// Peer returns one peering.
func (c *Client) Peer(ctx context.Context, name carnet.PartyID) (api.Peer, error) {
	return get[api.Peer](ctx, c, peerPath(name))
}

// Invite makes an invitation.
func (c *Client) Invite(ctx context.Context, n api.NewPeer) (api.Peer, error) {
	return send[api.Peer](ctx, c, http.MethodPost, "/v1/peers", n)
}

// AcceptInvitation accepts the invitation of whom the party is to call name.
func (c *Client) AcceptInvitation(ctx context.Context, name carnet.PartyID, invitation string) (api.Peer, error) {
	return send[api.Peer](ctx, c, http.MethodPut, peerPath(name)+"/invitation", api.Invitation{Invitation: invitation})
}

// TakeAcceptance brings an acceptance that was carried by hand.
func (c *Client) TakeAcceptance(ctx context.Context, name carnet.PartyID, acceptance string) (api.Peer, error) {
	return send[api.Peer](ctx, c, http.MethodPut, peerPath(name)+"/acceptance", api.Acceptance{Acceptance: acceptance})
}

// TakeConfirmation brings a confirmation that was carried by hand.
func (c *Client) TakeConfirmation(ctx context.Context, name carnet.PartyID, confirmation string) (api.Peer, error) {
	return send[api.Peer](ctx, c, http.MethodPut, peerPath(name)+"/confirmation", api.Confirmation{Confirmation: confirmation})
}

// CompareWords says which words the other side's operator read out.
func (c *Client) CompareWords(ctx context.Context, name carnet.PartyID, words string) (api.Peer, error) {
	return send[api.Peer](ctx, c, http.MethodPut, peerPath(name)+"/words", api.Words{Words: words})
}

// SuspendPeer, ResumePeer and RemovePeer end a peering for now, take that back, and
// end it for good.
func (c *Client) SuspendPeer(ctx context.Context, name carnet.PartyID) (api.Peer, error) {
	return send[api.Peer](ctx, c, http.MethodPost, peerPath(name)+"/suspend", nil)
}

// ResumePeer takes a suspension back.
func (c *Client) ResumePeer(ctx context.Context, name carnet.PartyID) (api.Peer, error) {
	return send[api.Peer](ctx, c, http.MethodPost, peerPath(name)+"/resume", nil)
}

// RemovePeer ends a peering for good.
func (c *Client) RemovePeer(ctx context.Context, name carnet.PartyID) (api.Peer, error) {
	return send[api.Peer](ctx, c, http.MethodDelete, peerPath(name), nil)
}
