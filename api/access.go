package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"carnet"
	"carnet/activity"
	"carnet/entity"
	"carnet/policy"
	"carnet/thing"
)

// Principal is who calls.
type Principal = policy.Principal

// Authenticator says who a bearer token is. It takes as long for a token that
// is wrong as for one that is right, and may be called concurrently.
type Authenticator func(token string) (Principal, bool)

// open are the paths that need no token: the health, the documents, and the files of
// the page that shows them. They say nothing of what the party has, and are neither
// decided nor recorded.
var open = append([]string{"/healthz", "/openapi.json", "/openapi.yaml", "/asyncapi.json", docsPath}, pagePaths()...)

// callFor is what the guard is asked about a request to a route that is for an
// action. It fails where the request names what can't be: the call is to be recorded then,
// and not decided.
func (s *server) callFor(r *http.Request, p Principal, pattern string, action policy.Action) (activity.Call, error) {
	use, _ := policy.UseOf(action)
	c := activity.Call{Who: p, Action: action, Resource: policy.Resource{Kind: use.Resource, ID: policy.Any}, Via: activity.HTTP}
	switch {
	case use.Param != "":
		if c.Resource.ID = parameter(pattern, use.Param, r); len(c.Resource.ID) > maxID {
			c.Resource.ID = c.Resource.ID[:maxID]
			return c, carnet.Errorf(carnet.NotFound, "there is no %s whose name has more than %d bytes", strings.ToLower(string(use.Resource)), maxID)
		}
		c.Look, c.Absent = s.look(p, action, c.Resource)
	case use.Resource == policy.PartyResource:
		c.Resource.ID = string(s.party)
	}
	if isLive(pattern) {
		c.Via = activity.Live
	}
	if proof, ok := provenIn(r.Context()); ok {
		c.Via, c.Proven = activity.R5, proof.How
		c.Look = s.lookByGrant(proof, action, c.Resource.ID)
	}
	return c, nil
}

// parameter finds what a request has in the place of a route's {name}.
func parameter(pattern, name string, r *http.Request) string {
	_, path, _ := strings.Cut(pattern, " ")
	have := strings.Split(r.URL.EscapedPath(), "/")
	for i, part := range strings.Split(path, "/") {
		if part == "{"+name+"}" && i < len(have) {
			if text, err := url.PathUnescape(have[i]); err == nil {
				return text
			}
		}
	}
	return ""
}

// maxID bounds an id, which is looked up and recorded.
const maxID = 256

// look says how to find out about a resource, and what is said of one that isn't
// there.
func (s *server) look(p Principal, action policy.Action, r policy.Resource) (func(context.Context) (activity.Known, error), error) {
	if !s.has(r.Kind) {
		return unknown, carnet.Errorf(carnet.NotFound, "%s has no %s", s.party, r)
	}
	switch r.Kind {
	case policy.ThingResource:
		return s.lookAtOwn(p, func(t thing.Info) bool { return string(t.ID) == r.ID }), noThing(r.ID)
	case policy.MappingResource:
		return s.lookAtOwn(p, func(t thing.Info) bool {
			return slices.ContainsFunc(slices.Concat(t.Mappings, t.Waiting), func(m thing.MappingInfo) bool { return m.ID.String() == r.ID })
		}), noMapping(r.ID)
	case policy.OwnerResource:
		return func(context.Context) (activity.Known, error) {
			return activity.Known{Facts: policy.Facts{Own: r.ID == p.Name}}, nil
		}, noOwner(r.ID)
	case policy.JobResource:
		if s.things != nil {
			return s.lookAtJob(p, r.ID), carnet.Errorf(carnet.NotFound, "there is no job %.64s", r.ID).WithFix("see: carnet job list")
		}
	case policy.ModuleResource:
		if s.things != nil { // what may be run there is for all of its owners
			return func(context.Context) (activity.Known, error) {
				return activity.Known{Facts: policy.Facts{Own: true}}, nil
			}, nil
		}
	case policy.PeerResource:
		return unknown, carnet.Errorf(carnet.NotFound, "%s has no peer %q", s.party, r.ID)
	case policy.AvatarResource:
		return s.lookAtAvatar(p, action, r.ID), carnet.Errorf(carnet.NotFound, "there is no avatar %s", r.ID).WithFix("list the avatars; POST /v1/check says which rule decides what you may of one")
	case policy.GrantResource:
		return s.lookAtGrant(p, action, r.ID), carnet.Errorf(carnet.NotFound, "there is no grant %.64q", r.ID).WithFix("list the grants")
	}
	return unknown, carnet.Errorf(carnet.NotFound, "there is no %s", r)
}

// has reports whether the party may have resources of a kind at all. Of what it can't have,
// nothing may be looked up: anybody may ask about it.
func (s *server) has(k policy.ResourceKind) bool {
	switch k {
	case policy.ThingResource, policy.MappingResource, policy.OwnerResource:
		return s.things != nil
	case policy.AvatarResource, policy.GrantResource:
		return s.entities != nil
	case policy.JobResource:
		return s.jobs != nil
	case policy.PeerResource:
		return s.peers != nil
	}
	return true
}

// unknown knows nothing of a resource.
func unknown(context.Context) (activity.Known, error) { return activity.Known{}, nil }

// lookAtAvatar finds out what a principal's grants give it of an avatar.
func (s *server) lookAtAvatar(p Principal, action policy.Action, text string) func(context.Context) (activity.Known, error) {
	id, err := carnet.ParseAvatarID(text)
	if err != nil {
		return unknown
	}
	return func(context.Context) (activity.Known, error) { return s.entities.Know(p, action, id) }
}

// lookByGrant finds out what the one grant of a proven call gives it of an avatar.
func (s *server) lookByGrant(p Proof, action policy.Action, text string) func(context.Context) (activity.Known, error) {
	id, err := carnet.ParseAvatarID(text)
	if err != nil || s.entities == nil {
		return unknown
	}
	return func(context.Context) (activity.Known, error) {
		return s.entities.KnowBy(p.Grant, p.GrantVersion, action, id)
	}
}

// lookAtGrant finds out whether a grant is a principal's own: given to it, or, for
// who acts as an avatar, about that avatar; ending it is for the latter only.
func (s *server) lookAtGrant(p Principal, action policy.Action, id string) func(context.Context) (activity.Known, error) {
	return func(context.Context) (activity.Known, error) {
		about := func(g entity.Grant) bool {
			return g.ID == id && (action == "get-grant" || p.Kind == policy.AvatarSelf && g.Avatar.String() == p.Name)
		}
		return activity.Known{Facts: policy.Facts{Own: slices.ContainsFunc(s.entities.Grants(&p), about)}}, nil
	}
}

// lookAtOwn looks among the things whose owner has the caller's name: the same
// work for a thing of somebody else as for none.
func (s *server) lookAtOwn(p Principal, is func(thing.Info) bool) func(context.Context) (activity.Known, error) {
	return func(ctx context.Context) (activity.Known, error) {
		own, err := s.thingsOf(ctx, p.Name)
		return activity.Known{Facts: policy.Facts{Own: slices.ContainsFunc(own, is)}}, err
	}
}

// maxToken bounds what is taken for a token.
const maxToken = 512

// bearer is the subprotocol prefix by which a browser, which can't set headers
// on a WebSocket, gives its token. It is never echoed.
const bearer = "bearer."

// tokenOf finds the request's token: in the Authorization header (RFC 6750
// §2.1), or among a WebSocket's subprotocols. Never in the URL, which ends up in
// logs and histories.
func tokenOf(r *http.Request) string {
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	if isWebSocket(r) {
		for _, p := range subprotocols(r) {
			if token, ok := strings.CutPrefix(p, bearer); ok {
				return token
			}
		}
	}
	return ""
}

// authenticate says who calls. Every failure looks the same.
func (s *server) authenticate(r *http.Request) (Principal, error) {
	if p, ok := provenIn(r.Context()); ok {
		return p.Who, nil
	}
	token := tokenOf(r)
	if token != "" && len(token) <= maxToken {
		if p, ok := s.tokens(token); ok {
			return p, nil
		}
	}
	fix := "send the header \"Authorization: Bearer TOKEN\" with the token that the party's operator gave you"
	if r.URL.Path == "/" { // somebody looks with a browser
		fix += "; what can be asked here is at " + docsPath
	}
	return Principal{}, carnet.Errorf(carnet.Unauthenticated, "the call has no valid token").WithFix("%s", fix)
}

type admittedKey struct{}

// admitted is a call that was let in.
type admitted struct {
	who  Principal
	call activity.Call
	activity.Answer
}

func withAdmitted(ctx context.Context, a admitted) context.Context {
	return context.WithValue(ctx, admittedKey{}, a)
}

// admittedIn is how a call was let in. Without that it is nobody's, who may do
// nothing.
func admittedIn(ctx context.Context) admitted {
	a, _ := ctx.Value(admittedKey{}).(admitted)
	return a
}

// worlds is a list of what is the world's: who may see only their own has none of it, and
// none is made for them.
func worlds[T any](ctx context.Context, list func() []T) []T {
	if !admittedIn(ctx).All {
		return []T{}
	}
	return list()
}

// showEach shows what is listed, one by one.
func showEach[T, S any](list []T, show func(T) S) []S {
	shown := make([]S, 0, len(list))
	for _, t := range list {
		shown = append(shown, show(t))
	}
	return shown
}

// seesPeerings reports whether a caller sees how each peering came about, and its trouble:
// who sees all avatars needn't.
func (s *server) seesPeerings(ctx context.Context) bool {
	a, refused, err := s.guard.Judge(ctx, activity.Call{Who: caller(ctx), Action: "list-peers", Resource: policy.Resource{Kind: policy.PeerResource, ID: policy.Any}})
	return refused == nil && err == nil && a.All
}

// caller is who calls. Without one it is nobody, who may do nothing.
func caller(ctx context.Context) Principal { return admittedIn(ctx).who }
