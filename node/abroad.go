package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing/r5"
	"carnet/identity"
	"carnet/keys"
	"carnet/mandate"
	"carnet/peering"
	"carnet/senml"
)

// abroad calls other worlds for avatars of this one.
type abroad struct {
	node *Node

	mu      sync.Mutex // guards what follows
	clients map[carnet.PartyID]abroadClient
}

type abroadClient struct {
	*r5.Client
	to          identity.Peer
	connections *outbound
}

// cut closes the connections to a peer.
func (a *abroad) cut(at carnet.PartyID) {
	a.mu.Lock()
	c, ok := a.clients[at]
	delete(a.clients, at)
	a.mu.Unlock()
	if ok {
		c.connections.cut()
	}
}

// State implements api.Abroad.
func (a *abroad) State(ctx context.Context, as carnet.AvatarID, at carnet.PartyID, about carnet.AvatarID) (*http.Response, error) {
	client, err := a.client(ctx, at)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/r5/avatars/"+about.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", senml.CBOR.ContentType())
	return client.Do(ctx, actor{a.node, as, client.to.Party}, r5.Use{Avatar: about, Action: identity.ActionRead}, r)
}

// closed is why there is no way to a peer as things stand at this side: its peering is
// suspended, say.
type closed struct{ error }

func (c closed) Unwrap() error { return c.error }

// client returns the way to a peer; another one once the peer shows something else.
func (a *abroad) client(ctx context.Context, at carnet.PartyID) (abroadClient, error) {
	p, err := a.node.peers.Named(at)
	if err != nil {
		return abroadClient{}, closed{err}
	}
	if !p.Allows(peering.R5, time.Now()) {
		return abroadClient{}, closed{carnet.Errorf(carnet.Forbidden, "the peering with %s isn't in force for calls", at).WithFix("see 'carnet peer show %s'", at)}
	}
	to := peerFile(p)
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.clients[at]; ok && c.to.Pin == to.Pin && c.to.R5 == to.R5 {
		return c, nil
	}
	local, err := identity.Load(ctx, a.node.table, self)
	if err != nil {
		return abroadClient{}, err
	}
	if old, ok := a.clients[at]; ok {
		old.connections.cut()
	}
	connections := &outbound{conns: make(map[net.Conn]struct{})}
	made, err := r5.NewClient(r5.ClientConfig{
		Dial: connections.dial,
		Self: a.node.config.Party, Peer: to.Party, Base: "https://" + to.R5, Pin: to.Pin, Certificate: local.Certificate,
	})
	if err != nil {
		return abroadClient{}, err
	}
	a.clients[at] = abroadClient{made, to, connections}
	return a.clients[at], nil
}

// actor is an avatar of this world that calls.
type actor struct {
	node *Node
	id   carnet.AvatarID
	at   carnet.PartyID
}

// Key implements r5.Actor.
func (a actor) Key(ctx context.Context) (ed25519.PrivateKey, error) {
	return a.node.table.Signer(ctx, keys.ID{Kind: "avatar", Name: a.id.String()})
}

// Credential implements r5.Actor.
func (a actor) Credential(ctx context.Context) (string, error) {
	return a.node.api.Proofs.Credential(ctx, a.id)
}

// Mandate implements r5.Actor.
func (a actor) Mandate(_ context.Context, use r5.Use) (string, error) {
	return a.node.api.Mandates.Mandate(a.id, mandate.Use{Audience: a.at, About: use.Avatar, Action: use.Action, Purpose: use.Purpose})
}

// unheard is why a call wasn't heard: nobody answered, or this world wasn't let in.
type unheard struct{ error }

func (u unheard) Unwrap() error { return u.error }

// callAbroad asks another world something as an avatar of this one, and returns its
// answer of at most so many bytes. What it refuses for good has a code other than
// carnet.Unavailable.
func (n *Node) callAbroad(ctx context.Context, at carnet.PartyID, as carnet.AvatarID, use r5.Use, method, path string, body []byte, most int64) ([]byte, error) {
	client, err := n.abroad.client(ctx, at)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	got, err := client.Do(ctx, actor{n, as, client.to.Party}, use, r)
	if err != nil {
		return nil, unheard{err}
	}
	return answered(at, got, most)
}

// tellAbroad asks another world something that proves itself, without any avatar's token,
// and returns its answer of at most so many bytes.
func (n *Node) tellAbroad(ctx context.Context, at carnet.PartyID, method, path string, body []byte, most int64) ([]byte, error) {
	client, err := n.abroad.client(ctx, at)
	if err != nil {
		return nil, err
	}
	got, err := client.Tell(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	return answered(at, got, most)
}

// What is taken of a refusal: its words go into logs, documents and lists.
const (
	maxRefusal = 64 << 10
	maxTold    = 512 // bytes of what is wrong, and of what to do
)

// answered takes another world's answer of at most so many bytes, and closes it.
func answered(at carnet.PartyID, got *http.Response, most int64) ([]byte, error) {
	defer got.Body.Close()
	if got.StatusCode/100 != 2 {
		return nil, refusedBy(at, got)
	}
	answer, err := wholeBody(got.Body, got.ContentLength, most)
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the answer of %s can't be taken: %v", at, err)
	}
	return answer, nil
}

// refusedBy is why another world refuses, in its own words.
func refusedBy(at carnet.PartyID, got *http.Response) error {
	answer, err := wholeBody(got.Body, got.ContentLength, maxRefusal)
	var told api.ForeignRefusal
	if err != nil || json.Unmarshal(answer, &told) != nil || told.Code == "" {
		told = api.ForeignRefusal{Code: carnet.Unavailable, Detail: got.Status}
	}
	e := carnet.Errorf(heard(told.Code), "%s refuses: %s", at, carnet.Shorten(told.Detail, maxTold))
	return e.WithFix("%s", cmp.Or(carnet.Shorten(told.Fix, maxTold), "ask the other world's operator"))
}

// heard is what another world's code is here. One that would say something of this party or
// of who calls it (that it isn't proved, that something here is tampered with), and one that
// nobody knows, is that it may not be: for good, like any that isn't for the moment.
func heard(code carnet.Code) carnet.Code {
	switch code {
	case carnet.Malformed, carnet.TooLarge, carnet.NotFound, carnet.Conflict, carnet.Unavailable:
		return code
	case carnet.NoSpace: // it is the other's that has none
		return carnet.Unavailable
	}
	return carnet.Forbidden
}

// refuseAbroad says to a proven caller why it isn't served.
func refuseAbroad(w http.ResponseWriter, err error) {
	status, told := http.StatusServiceUnavailable, api.ForeignRefusal{Code: carnet.Unavailable, Detail: "it can't be done at the moment"}
	if e, ok := errors.AsType[*carnet.Error](err); ok && e.Code != carnet.Unavailable && e.Code != carnet.NoSpace {
		status, told = http.StatusUnprocessableEntity, api.ForeignRefusal{Code: e.Code, Detail: e.Reason, Fix: e.Fix}
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(told)
}
