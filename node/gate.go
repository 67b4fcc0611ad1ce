package node

import (
	"context"
	"net/http"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/peering"
	"carnet/policy"
	"carnet/problem"
)

// peerCalls are what peers call at R2 and R6, by the patterns of depot, register and
// dpm, and what each call is. A pattern that isn't here is refused to everybody.
var peerCalls = map[string]policy.Action{
	"POST /r2/statements":              "state-entries",
	"GET /r2/totals":                   "get-totals",
	"GET /r2/checkpoint":               "get-checkpoint",
	"GET /r2/ledger/{tile...}":         "get-tile",
	"PUT /r2/objects/{fingerprint}":    "put-object",
	"GET /r2/objects/{fingerprint}":    "get-object",
	"DELETE /r2/objects/{fingerprint}": "delete-object",
	"GET /r2/objects":                  "list-objects",
	"POST /r2/deletions":               "erase-objects",

	"PUT /r2/shelves/{taker}":               "put-shelf",
	"GET /r2/shelves/{taker}":               "get-own-shelf",
	"DELETE /r2/shelves/{taker}":            "delete-shelf",
	"GET /r2/shelves":                       "read-shelf",
	"GET /r2/shelves/objects/{fingerprint}": "read-shelved",

	"PUT /r2/homes/{home}":          "enrol-home",
	"GET /r2/homes/{home}":          "get-home",
	"POST /r2/homes":                "ask-homes",
	"POST /r2/homes/{home}/claims":  "claim-home",
	"POST /r2/homes/{home}/erasure": "erase-home",
	"POST /r2/erased":               "list-erased",
	"POST /r2/crossings/{crossing}": "decide-crossing",

	"GET /r6/offer":                            "get-offer",
	"PUT /r6/jobs/{job}":                       "submit-job",
	"GET /r6/jobs/{job}":                       "get-job-status",
	"PUT /r6/jobs/{job}/content/{fingerprint}": "put-content",
	"GET /r6/jobs/{job}/partial":               "get-partial",
	"GET /r6/jobs/{job}/parts/{attempt}/{n}":   "get-part",
	"POST /r6/jobs/{job}/withdrawal":           "withdraw-job",
	"POST /r6/jobs/{job}/taken":                "tell-taken",
	"POST /r6/revocations":                     "tell-revocation",
	"POST /r6/revoked":                         "list-revoked",
	"GET /r6/jobs/{job}/record":                "get-record",
	"POST /r6/deletions":                       "erase-jobs",
}

// recordedOnce are the calls that come again and again and take nothing from anybody:
// the first of a connection in an hour is recorded, for all of them. Every other call is
// recorded by itself (docs/decisions/2026-11-29-peers-calls-recorded-by-connection.md).
var recordedOnce = map[policy.Action]bool{
	"state-entries": true, "get-totals": true, "get-checkpoint": true, "get-tile": true,
	"put-object": true, "get-object": true, "list-objects": true, "get-own-shelf": true, "read-shelf": true, "read-shelved": true,
	"get-home": true, "ask-homes": true, "list-erased": true,
	"get-offer": true, "get-job-status": true, "put-content": true, "get-partial": true, "get-part": true, "get-record": true, "list-revoked": true,
}

// recordedFor is how long such a record goes for a connection.
const recordedFor = time.Hour

// gate is the one way in at a listener for peers: it names who calls, decides, and
// records, before the handler sees the call.
type gate struct {
	guard  *activity.Guard
	party  carnet.PartyID
	via    activity.Via
	caller func(*http.Request) (carnet.PartyID, error)
	now    func() time.Time
}

// gate makes the way in for peers of a scope.
func (n *Node) gate(via activity.Via, s peering.Scope) *gate {
	return &gate{n.guard, n.config.Party, via, func(r *http.Request) (carnet.PartyID, error) {
		p, err := n.caller(r, s)
		return p.Name, err
	}, time.Now}
}

// let serves the calls of some patterns by a handler, if they may be made.
func (g *gate) let(mux *http.ServeMux, patterns []string, handler http.Handler) {
	for _, pattern := range patterns {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := g.admit(r, peerCalls[pattern]); err != nil {
				problem.Refuse(w, string(g.party), err, func(err error) {
					if r.Context().Err() == nil { // else nobody waits for the answer
						g.guard.Log.Error("a peer's call can't be let in", "method", r.Method, "path", r.URL.Path, "err", err)
					}
				})
				return
			}
			handler.ServeHTTP(w, r)
		})
	}
}

// admit decides a call and records it.
func (g *gate) admit(r *http.Request, action policy.Action) error {
	use, _ := policy.UseOf(action)
	call := activity.Call{Action: action, Resource: policy.Resource{Kind: use.Resource, ID: policy.Any}, Via: g.via}
	once := recordedOnce[action]
	switch {
	case use.Resource == policy.PartyResource:
		call.Resource.ID = string(g.party)
	case use.Param != "" && !once:
		id := r.PathValue(use.Param)
		call.Resource.ID = id[:min(len(id), maxRecordedID)]
	}
	who, err := g.caller(r)
	if err != nil {
		call.Who = policy.Principal{Kind: policy.Nobody}
		g.guard.Refuse(r.Context(), call, err)
		return err
	}
	call.Who = policy.Principal{Kind: policy.Neighbour, Name: string(who)}
	c, ok := r.Context().Value(connectionKey{}).(*peerConnection)
	if !once || !ok {
		_, err := g.guard.Ask(r.Context(), call)
		return err
	}
	call.Proven = "for this connection, an hour at most"
	return c.once(r.Context(), g.guard, call, g.now())
}

// maxRecordedID bounds what of an id is recorded.
const maxRecordedID = 256

type connectionKey struct{}

// peerConnection is what was recorded of a connection.
type peerConnection struct {
	turn chan struct{} // holds one while somebody looks or records

	recorded map[recorded]time.Time // under turn
}

type recorded struct {
	who    string
	action policy.Action
}

// withConnection gives a connection's calls what they have in common.
func withConnection(ctx context.Context) context.Context {
	return context.WithValue(ctx, connectionKey{}, &peerConnection{turn: make(chan struct{}, 1), recorded: make(map[recorded]time.Time)})
}

// once decides a call, and records it unless its like was recorded of this connection
// and within the time. Nothing is let in while its first record is being written.
func (c *peerConnection) once(ctx context.Context, guard *activity.Guard, call activity.Call, now time.Time) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return carnet.Errorf(carnet.Unavailable, "the call can't be recorded in time, and what isn't recorded isn't done").WithFix("try again")
	}
	defer func() { <-c.turn }()
	of := recorded{call.Who.Name, call.Action}
	if at, ok := c.recorded[of]; ok && now.Sub(at) < recordedFor && !now.Before(at) {
		_, refused, err := guard.Judge(ctx, call)
		if refused == nil && err == nil {
			return nil
		}
	}
	_, err := guard.Ask(ctx, call)
	if err == nil {
		c.recorded[of] = now
	}
	return err
}

// letPeer decides and records what a peer calls for at R5 without any avatar's token,
// once it has proved itself; unproven says why it hasn't.
func (n *Node) letPeer(ctx context.Context, peer carnet.PartyID, action policy.Action, about string, unproven error) error {
	call := n.peerCall(peer, action, about)
	if unproven != nil {
		n.guard.Refuse(ctx, call, unproven)
		return unproven
	}
	call.Proven = "an owner's order and the registrar's decision prove themselves"
	_, err := n.guard.Ask(ctx, call)
	return err
}

// turnedAway records that a call which was let in is refused all the same. What can't be
// done for the moment is no refusal.
func (n *Node) turnedAway(ctx context.Context, peer carnet.PartyID, action policy.Action, about string, why error) {
	if code := carnet.CodeOf(why); code != "" && code != carnet.Unavailable && code != carnet.NoSpace {
		n.guard.Refuse(ctx, n.peerCall(peer, action, about), why)
	}
}

func (n *Node) peerCall(peer carnet.PartyID, action policy.Action, about string) activity.Call {
	return activity.Call{
		Who: policy.Principal{Kind: policy.Neighbour, Name: string(peer)}, Action: action, Resource: policy.Resource{Kind: policy.AvatarResource, ID: about}, Via: activity.R5,
	}
}
