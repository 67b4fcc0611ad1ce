package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/api"
	"carnet/avatar"
	"carnet/crossing/r5"
	"carnet/entity"
	"carnet/identity"
	"carnet/keys"
	"carnet/peering"
	"carnet/policy"
	"carnet/revocation"
)

// tokenID is the key that a world signs its access tokens with. It is made at the
// first start, and kept: tokens hold on over a restart.
var tokenID = keys.ID{Kind: "sign", Name: "access-tokens"}

// listenR5 takes the calls of other worlds, if the world listens for them.
func (n *Node) listenR5(ctx context.Context, handler http.Handler) error {
	c := n.config
	if c.Listen.R5 == "" {
		return nil
	}
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	key, err := n.table.Signer(ctx, tokenID)
	if carnet.CodeOf(err) == carnet.NotFound {
		key, err = n.table.MakeSigner(ctx, tokenID)
	}
	if err != nil {
		return err
	}
	grants := &granted{agent: n.api.Entities, world: n.api.World, guard: n.guard, wake: make(chan struct{}, 1)}
	server, err := r5.New(ctx, r5.Config{
		Party: c.Party, Base: "https://" + c.Reached().R5, Key: key, Peers: callers{n.peers}, Avatars: n.api.World, Mandates: n.api.Mandates,
		Grants: grants, Revocations: n.revocations,
		Activity: calls{n.guard}, Horizon: horizon{n.records}, Log: n.log,
	})
	if err != nil {
		return err
	}
	for pattern, route := range n.callRoutes(handler) {
		handle := server.Handle
		switch route.records {
		case recordsAll:
			handle = server.HandleRecorded
		case recordsMoves:
			handle = server.HandleEither
		}
		handle(pattern, route.action, route.handler)
	}
	server.HandlePeer("POST "+recoveredPath, n.hearRecovered)
	n.peers.Subscribe(func(p peering.Peering) {
		if p.State != peering.Active {
			server.Disconnect(peerFile(p).Pin)
		}
		server.Recheck()
	})
	n.revocations.Subscribe(func(revocation.State) { server.Recheck() })
	listener, err := listen(c.Listen.R5)
	if err != nil {
		return fmt.Errorf("listen for calls of other worlds: %w", err)
	}
	listener = c.Limits.http().Listen(listener)
	n.work = append(n.work, server.Run, grants.read, func(ctx context.Context) error { return server.Serve(ctx, listener, local.Certificate) })
	return nil
}

// callRoute is what a proven caller with a token for an action may ask for.
type callRoute struct {
	action  identity.Action
	handler r5.Handler
	records records5
}

// records5 is who records a call.
type records5 int

const (
	recordsNone  records5 = iota // the server
	recordsAll                   // the interface's guard
	recordsMoves                 // the server, or letPeer if the caller has no token
)

// callRoutes are all of them, by net/http's patterns. What is added here is
// described in package api.
func (n *Node) callRoutes(handler http.Handler) map[string]callRoute {
	const avatar, share = " /r5/avatars/{id}", " /r5/avatars/{id}/shares/{share}"
	routes := map[string]callRoute{
		"GET" + avatar:              {identity.ActionRead, asForeign(handler, "/state"), recordsAll},
		"GET" + avatar + "/history": {identity.ActionRead, asForeign(handler, "/history"), recordsAll},
		"GET" + avatar + "/live":    {identity.ActionSubscribe, asForeign(handler, "/live"), recordsAll},
		"PUT" + share:               {identity.ActionSubscribe, n.giveShare, recordsNone},
		"DELETE" + share:            {identity.ActionSubscribe, n.endShare, recordsNone},
	}
	maps.Copy(routes, n.moveRoutes())
	return routes
}

// asForeign serves a proven caller by the operation of the HTTP interface: there is
// one way to read an avatar, and one guard.
func asForeign(handler http.Handler, operation string) r5.Handler {
	return func(w http.ResponseWriter, r *http.Request, c r5.Call) {
		own := r.Clone(api.Proven(r.Context(), api.Proof{
			Who: entity.ForeignPrincipal(c.Platform, c.DID()), How: proved(c.Mandate), Grant: c.Grant.ID, GrantVersion: c.Grant.Version, Most: c.Most,
		}))
		own.URL.Path, own.URL.RawPath = "/v1/avatars/"+c.Avatar.String()+operation, ""
		own.Header.Del("Authorization")
		handler.ServeHTTP(w, own)
	}
}

// proved is what a call has proved that gets as far as a handler.
func proved(mandate string) string {
	return fmt.Sprintf("platform, avatar and the owner's mandate %s are proved", mandate)
}

// callers are the worlds that may call.
type callers struct{ registry *peering.Registry }

// ByPin implements r5.Peers.
func (c callers) ByPin(pin carnet.Fingerprint) (r5.Peer, error) {
	p, ok := c.registry.ByPin(pin, peering.R5)
	if !ok {
		return r5.Peer{}, carnet.Errorf(carnet.Unauthenticated, "no peering in force has this TLS key and the scope r5").
			WithFix("see 'carnet peer list'")
	}
	peer := peerFile(p)
	terms := carnet.Clearance{Purposes: carnet.NewSet(p.Terms.Purposes...), Residency: carnet.NewSet(p.Terms.Residency...)}
	if p.Terms.Sensitivity != nil {
		terms.Sensitivity = *p.Terms.Sensitivity
	}
	return r5.Peer{Name: p.Name, OwnName: peer.Party, Key: peer.Key, Clearance: peer.Clearance(), Terms: terms, Until: p.Terms.NotAfter}, nil
}

// granted decides about calls of other worlds by the world's grants and policies.
type granted struct {
	agent *entity.Agent
	world interface {
		Properties(carnet.AvatarID) ([]policy.Property, error)
		Departed(carnet.AvatarID) (avatar.Destination, error)
		MovedCeiling(context.Context, carnet.AvatarID) (carnet.Label, error)
	}
	guard *activity.Guard

	wake chan struct{} // of read

	mu     sync.Mutex // guards what follows
	labels map[string]labelled
	wanted map[carnet.AvatarID]bool // of whose ceilings are to be read anew
}

// labelled is what a grant shows, at a time.
type labelled struct {
	label carnet.Label
	at    time.Time
}

// labelTime is how long a label is taken for that of what a grant shows.
const labelTime = time.Second

// Of all that would move the label is in the store. Who asks whether a call still stands is
// given one that was read so long ago, and it is read anew meanwhile, each within readTime:
// nobody who ends calls waits for that.
const (
	ceilingTime = 5 * time.Second
	readTime    = 5 * time.Second
)

// operations are what actions of mandates are called by the guard.
var operations = map[identity.Action]policy.Action{
	identity.ActionRead: "get-state", identity.ActionSubscribe: "watch-avatar", identity.ActionMove: "move-avatar",
}

// Find implements r5.Grants.
func (g *granted) Find(ctx context.Context, ask r5.Ask) (r5.Grant, error) {
	found, err := g.agent.Find(ask.Platform, ask.DID(), ask.Avatar, ask.Action, ask.Purpose)
	if err != nil {
		return r5.Grant{}, err
	}
	return g.permitted(ask, found, func(id carnet.AvatarID) (carnet.Label, error) { return g.ceiling(ctx, id) })
}

// Still implements r5.Grants.
func (g *granted) Still(ctx context.Context, ask r5.Ask, id string, version uint64) (r5.Grant, error) {
	found, err := g.agent.Holds(id, version)
	if err != nil {
		return r5.Grant{}, err
	}
	return g.permitted(ask, found, func(id carnet.AvatarID) (carnet.Label, error) { return g.lately(ctx, id) })
}

// permitted asks the policies about a grant.
func (g *granted) permitted(ask r5.Ask, found entity.Grant, ceiling func(carnet.AvatarID) (carnet.Label, error)) (r5.Grant, error) {
	action, ok := operations[ask.Action]
	if !ok {
		return r5.Grant{}, carnet.Errorf(carnet.Forbidden, "nothing here is called for %s", ask.Action)
	}
	d := g.guard.Authorizer.Decide(policy.Question{
		Principal: entity.ForeignPrincipal(ask.Platform, ask.DID()), Action: action,
		Resource: policy.Resource{Kind: policy.AvatarResource, ID: ask.Avatar.String()},
		Facts:    policy.Facts{Granted: true, Onward: found.Onward, Purpose: ask.Purpose},
	})
	if !d.Allow {
		return r5.Grant{}, carnet.Errorf(carnet.Forbidden, "%s", d.Sentence)
	}
	if ask.Action == identity.ActionMove {
		label, err := ceiling(found.Avatar)
		label = bounded(label, found)
		return r5.Grant{ID: found.ID, Version: found.Version, Until: found.Expires, Label: label}, err
	}
	label, err := g.label(found)
	return r5.Grant{ID: found.ID, Version: found.Version, Until: found.Expires, Label: label}, err
}

// bounded is what of a label flows by a grant that bounds it: a redacted move leaves the
// rest behind, and one that isn't is refused when its order is offered, with the reason.
func bounded(label carnet.Label, found entity.Grant) carnet.Label {
	if found.Ceiling == nil {
		return label
	}
	most := carnet.Clearance{Sensitivity: found.Ceiling.Sensitivity, Purposes: carnet.NewSet(found.Purpose), Residency: carnet.NewSet(found.Ceiling.Residency...)}
	if label.Exceeds(most) == "" {
		return label
	}
	return carnet.Label(most)
}

// ceiling is the label of all that would move, whatever a grant shows.
func (g *granted) ceiling(ctx context.Context, id carnet.AvatarID) (carnet.Label, error) {
	return g.remembered(ofAll(id), func() (label carnet.Label, err error) {
		if _, moved := g.world.Departed(id); moved == nil {
			return label, nil // nothing of it can be had any more
		}
		if label, err = g.world.MovedCeiling(ctx, id); err != nil && ctx.Err() != nil {
			return label, carnet.Errorf(carnet.Unavailable, "the store doesn't say in time what would move").WithFix("try again")
		}
		return label, err
	})
}

// ofAll is how the label of all that would move is remembered.
func ofAll(id carnet.AvatarID) string { return "all of " + id.String() }

// lately is a ceiling as it was a few seconds ago, which is then read anew; one that isn't
// known is read now.
func (g *granted) lately(ctx context.Context, id carnet.AvatarID) (carnet.Label, error) {
	g.mu.Lock()
	known, ok := g.labels[ofAll(id)]
	age := time.Since(known.at)
	ok = ok && age >= 0 && age < ceilingTime
	if ok && age >= labelTime {
		if g.wanted == nil {
			g.wanted = make(map[carnet.AvatarID]bool)
		}
		g.wanted[id] = true
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
	g.mu.Unlock()
	if ok {
		return known.label, nil
	}
	return g.ceiling(ctx, id)
}

// read reads anew what is wanted, until ctx ends.
func (g *granted) read(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		}
		g.mu.Lock()
		wanted := g.wanted
		g.wanted = nil
		g.mu.Unlock()
		for id := range wanted {
			reading, cancel := context.WithTimeout(ctx, readTime)
			_, _ = g.ceiling(reading, id) // who asks next hears why it can't be read
			cancel()
		}
	}
}

// label joins the labels of what a grant shows.
func (g *granted) label(found entity.Grant) (carnet.Label, error) {
	return g.remembered(found.ID, func() (label carnet.Label, err error) {
		lens, err := g.agent.Lens(found.ID, nil)
		if err != nil {
			return label, err
		}
		properties, err := g.world.Properties(found.Avatar)
		for _, p := range properties {
			if lens.Shows(p.Name) {
				label = label.Join(p.Label)
			}
		}
		return label, err
	})
}

// remembered is a label that was made a moment ago, or is made now.
func (g *granted) remembered(of string, work func() (carnet.Label, error)) (carnet.Label, error) {
	now := time.Now()
	g.mu.Lock()
	known, ok := g.labels[of]
	g.mu.Unlock()
	if age := now.Sub(known.at); ok && age >= 0 && age < labelTime {
		return known.label, nil
	}
	label, err := work()
	if err != nil {
		return carnet.Label{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.labels) > 4096 || g.labels == nil {
		g.labels = make(map[string]labelled)
	}
	g.labels[of] = labelled{label, now}
	return label, nil
}

// calls records what was decided about calls between worlds.
type calls struct{ guard *activity.Guard }

// Record implements r5.Activity.
func (c calls) Record(ctx context.Context, d r5.Decision) error {
	r := activity.Record{
		Action: "call-" + policy.Action(d.Action), Via: activity.R5, Purpose: d.Purpose, Permitted: d.Permitted, Rule: string(d.Rule), Why: d.Reason,
		Grant: d.Grant, Policy: c.guard.Authorizer.Version(), Resource: policy.Resource{Kind: policy.AvatarResource, ID: policy.Any},
	}
	switch {
	case d.Exchange:
		r.Action = "call-token"
	case d.Action == "":
		r.Action = "call"
	}
	if d.Avatar != nil {
		r.Resource.ID = d.Avatar.String()
	}
	r.Who = policy.Principal{Kind: policy.Nobody}
	if d.Peer != "" {
		r.Who = policy.Principal{Kind: policy.Foreign, Name: strings.TrimSpace(string(d.Peer) + " " + d.Subject)}
	}
	if d.Permitted {
		r.Why = proved(d.Mandate)
	}
	if d.More > 0 {
		r.Why += fmt.Sprintf("; %d more were refused since the record before", d.More)
	}
	return c.guard.Recorder.Add(ctx, r)
}

// horizon keeps r5's one time in the world's store.
type horizon struct{ store records }

const horizonKind, horizonID = "r5", "horizon"

// Newest implements r5.Horizon.
func (h horizon) Newest(ctx context.Context) (time.Time, error) {
	t, _, err := h.read(ctx)
	return t, err
}

func (h horizon) read(ctx context.Context) (t time.Time, version uint64, err error) {
	d, err := h.store.Document(ctx, horizonKind, horizonID)
	if carnet.CodeOf(err) == carnet.NotFound {
		return t, 0, nil
	}
	if err != nil {
		return t, 0, err
	}
	if len(d.Body) != 8 {
		return t, 0, carnet.Errorf(carnet.Tampered, "the horizon of calls has %d bytes", len(d.Body))
	}
	return time.Unix(int64(binary.BigEndian.Uint64(d.Body)), 0).UTC(), d.Version, nil
}

// Raise implements r5.Horizon.
func (h horizon) Raise(ctx context.Context, t time.Time) error {
	before, version, err := h.read(ctx)
	if err != nil || !before.Before(t) {
		return err
	}
	return h.store.Put(ctx, []carnet.Document{{
		Kind: horizonKind, ID: horizonID, Version: version + 1, Body: binary.BigEndian.AppendUint64(nil, uint64(t.Unix())),
	}}, nil)
}
