package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"carnet"
)

// Role says what a principal may do.
type Role string

// The roles.
const (
	Operator Role = "operator" // everything
	Owner    Role = "owner"    // the things whose owner has the principal's name
	Reader   Role = "reader"   // avatars, read only
)

// Principal is who calls.
type Principal struct {
	Name string
	Role Role
}

// Authenticator says who a bearer token is. It takes as long for a token that
// is wrong as for one that is right, and may be called concurrently.
type Authenticator func(token string) (Principal, bool)

// allowed is the one place that says who may do what: the roles that may call
// an operation, by its id. An operation that isn't here is refused to all.
var allowed = map[string][]Role{
	"list-things":     {Operator, Owner},
	"add-thing":       {Operator},
	"get-thing":       {Operator, Owner},
	"get-description": {Operator, Owner},
	"list-refusals":   {Operator, Owner},
	"add-mapping":     {Operator, Owner},
	"get-mapping":     {Operator, Owner},
	"set-view":        {Operator, Owner},
	"explain-mapping": {Operator, Owner},
	"list-views":      {Operator, Owner},
	"stop-mapping":    {Operator, Owner},
	"own-mapping":     {Operator, Owner},
	"get-owner":       {Operator, Owner},

	"list-avatars": {Operator, Reader},
	"get-avatar":   {Operator, Reader},
	"get-state":    {Operator, Reader},
	"get-history":  {Operator, Reader},
	"watch-avatar": {Operator, Reader},

	"get-evidence":   {Operator},
	"get-did":        {Operator, Reader},
	"get-credential": {Operator, Reader},

	"ask-mandate":      {Operator},
	"list-mandates":    {Operator, Reader},
	"remove-mandate":   {Operator},
	"give-mandate":     {Operator, Reader}, // what an owner signed proves itself
	"withdraw-mandate": {Operator, Reader},

	"get-status": {Operator},
}

// open are the paths that need no token. They say nothing of what the party has.
var open = []string{"/healthz", "/openapi.json", "/openapi.yaml", "/docs"}

// mayCall refuses an operation that the principal's role isn't allowed.
func mayCall(operation string, p Principal) error {
	if slices.Contains(allowed[operation], p.Role) {
		return nil
	}
	return carnet.Errorf(carnet.Forbidden, "the role %q may not call %s", p.Role, operation).
		WithFix("use a token of another role")
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
	token := tokenOf(r)
	if token != "" && len(token) <= maxToken {
		if p, ok := s.tokens(token); ok {
			return p, nil
		}
	}
	return Principal{}, carnet.Errorf(carnet.Unauthenticated, "the call has no valid token").
		WithFix("send the header \"Authorization: Bearer TOKEN\" with the token that the party's operator gave you")
}

type principalKey struct{}

func withPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// caller is who calls. Without one it is nobody, who may do nothing.
func caller(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
