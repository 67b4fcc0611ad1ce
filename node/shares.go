package node

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/crossing/r5"
	"carnet/entity"
	"carnet/identity"
	"carnet/link"
	"carnet/peering"
	"carnet/policy"
	"carnet/revocation"

	"golang.org/x/sync/errgroup"
)

// openShares opens what the world shares with other worlds, and takes of them.
func (n *Node) openShares(ctx context.Context, agent *avatar.Agent, own *policy.View) error {
	judge, err := policy.NewJudge(nil)
	if err != nil {
		return err
	}
	n.api.Shares, err = crossing.New(ctx, crossing.Config{
		Party: n.config.Party, World: agent, Permits: permits{n}, Revocations: n.revocations, Asker: sharing{n}, Judge: judge, Own: own, Log: n.log, SharesOfGrant: n.config.Limits.SharesOfGrant,
		Depot: n.shelves, ShelfAt: n.shelfAt, ShelveAfter: time.Duration(n.config.World.ShelveAfter),
		Connected: func(world carnet.PartyID) {
			if n.api.Erasures != nil {
				n.api.Erasures.Connected(world)
			}
		},
	})
	if err != nil {
		return err
	}
	n.peers.Subscribe(func(peering.Peering) { n.api.Shares.Recheck() })
	n.revocations.Subscribe(func(revocation.State) { n.api.Shares.Recheck() })
	n.work = append(n.work, n.api.Shares.Run)
	return nil
}

// permits says whether what shares live by holds.
type permits struct{ node *Node }

// Still implements crossing.Permits.
func (p permits) Still(g crossing.Given) error {
	n := p.node
	if !n.revocations.Fresh() {
		return carnet.Errorf(carnet.Unavailable, "the store doesn't answer, so nobody can tell what was ended")
	}
	peer, err := n.peers.Named(g.Taker)
	if err != nil {
		return err
	}
	if !peer.Allows(peering.R5, time.Now()) {
		if peer.State == peering.Suspended {
			return carnet.Errorf(carnet.Unavailable, "the peering with %s is suspended", g.Taker) // it may be resumed
		}
		return carnet.Errorf(carnet.Forbidden, "the peering with %s isn't in force", g.Taker)
	}
	owner, err := n.api.World.Owner(g.Avatar)
	if err != nil {
		return err
	}
	if err := n.api.Mandates.Stands(owner, g.Mandate); err != nil {
		return err
	}
	_, err = n.api.Entities.Holds(g.Grant, g.GrantVersion)
	return err
}

// Tells implements crossing.Permits.
func (p permits) Tells(taker carnet.PartyID) bool {
	peer, err := p.node.peers.Named(taker)
	return err == nil && peer.Allows(peering.R5, time.Now())
}

// maxQuestion bounds a question for a share: its view has at most 64 KiB.
const maxQuestion = 128 << 10

func (n *Node) giveShare(w http.ResponseWriter, r *http.Request, c r5.Call) {
	answer, err := n.give(r, c)
	if err != nil {
		refuseAbroad(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // a failed write means that the caller went away
}

func (n *Node) give(r *http.Request, c r5.Call) (crossing.Answer, error) {
	var q crossing.Question
	if err := strictBody(r, &q, maxQuestion); err != nil {
		return crossing.Answer{}, err
	}
	if q.ID.String() != r.PathValue("share") || q.Avatar != c.Avatar || q.Purpose != c.Purpose {
		return crossing.Answer{}, carnet.Errorf(carnet.Malformed, "the question isn't the one that its path and token name")
	}
	most, grant, err := n.mostFor(c)
	if err != nil {
		return crossing.Answer{}, err
	}
	return n.api.Shares.Give(r.Context(), q, crossing.Permit{
		Taker: c.Platform, Grant: c.Grant.ID, GrantVersion: c.Grant.Version, View: grant.View, Onward: grant.Onward, Mandate: c.Mandate,
		Most: most, Until: c.Until,
	})
}

// mostFor is the most that a world may keep of what a call has flow to it, and the
// grant that the call is made by: the world uses it for all of its purposes.
func (n *Node) mostFor(c r5.Call) (carnet.Clearance, entity.Grant, error) {
	grant, err := n.api.Entities.Grant(c.Grant.ID)
	if err != nil {
		return carnet.Clearance{}, grant, err
	}
	peer, err := n.peers.Named(c.Platform)
	if err != nil {
		return carnet.Clearance{}, grant, err
	}
	flows, err := entity.Within(c.Most, grant)
	most := peerFile(peer).Clearance()
	most.Sensitivity &= flows.Sensitivity
	return most, grant, err
}

func (n *Node) endShare(w http.ResponseWriter, r *http.Request, c r5.Call) {
	var id carnet.ShareID
	err := id.UnmarshalText([]byte(r.PathValue("share")))
	if err == nil {
		err = n.api.Shares.StopTaken(r.Context(), id, c.Platform)
	}
	if err != nil {
		refuseAbroad(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// sharing asks other worlds for shares.
type sharing struct{ node *Node }

// Ask implements crossing.Asker.
func (s sharing) Ask(ctx context.Context, giver carnet.PartyID, q crossing.Question) (answer crossing.Answer, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return answer, err
	}
	got, err := s.call(ctx, http.MethodPut, giver, q, body)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(got, &answer); err != nil {
		return answer, carnet.Errorf(carnet.Unavailable, "%s answered with something else than a share: %v", giver, err)
	}
	return answer, nil
}

// Stop implements crossing.Asker.
func (s sharing) Stop(ctx context.Context, giver carnet.PartyID, q crossing.Question) error {
	_, err := s.call(ctx, http.MethodDelete, giver, q, nil)
	return err
}

func (s sharing) call(ctx context.Context, method string, giver carnet.PartyID, q crossing.Question, body []byte) ([]byte, error) {
	path := "/r5/avatars/" + q.Avatar.String() + "/shares/" + q.ID.String()
	use := r5.Use{Avatar: q.Avatar, Action: identity.ActionSubscribe, Purpose: q.Purpose}
	return s.node.callAbroad(ctx, giver, q.For, use, method, path, body, maxQuestion)
}

// shareWith sends a world what is shared with it, and takes what it shares, while
// they are peers.
func (n *Node) shareWith(ctx context.Context, p peering.Peering) error {
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	peer := peerFile(p)
	agreed := peering.Within(p.Terms, n.clearance)
	err = n.api.World.SetSender(avatar.Sender{
		Party: p.Name, OwnName: peer.Party, Key: peer.Key, Self: n.config.Party, Own: local.Key, Clearance: &agreed, Shares: true,
	})
	if err != nil {
		return err
	}
	defer n.api.World.DropSender(p.Name)
	if _, never := n.fenced.Load(p.Name); never {
		<-ctx.Done()
		return nil
	}
	source, err := n.api.Shares.Source(ctx, crossing.Neighbour{
		Party: p.Name, OwnName: peer.Party, Self: n.config.Party, Key: local.Key, WorldKey: peer.Key,
		Clearance: peering.Within(p.Terms, peer.Clearance()),
	})
	if err != nil {
		return err
	}
	connections, done := n.connections(ctx, p.Name)
	defer done()
	sender, err := link.NewSender(link.SenderConfig{
		Self: n.config.Party, Peer: link.Peer{Party: p.Name, OwnName: peer.Party, Address: peer.Link, Pin: peer.Pin}, Certificate: local.Certificate,
		Source: source, Dial: connections.dial, Log: n.log,
	})
	if err != nil {
		return err
	}
	source.Connect(sender)
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return n.readShelf(ctx, p, local) })
	work.Go(func() error { return source.Run(ctx) })
	work.Go(func() error { return n.keepSending(ctx, p.Name, sender) })
	return work.Wait()
}
