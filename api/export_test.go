package api

import (
	"net/http"
	"time"

	"carnet"
	"carnet/policy"
)

// Patterns are the routes of a handler that New made, with what each is for.
func Patterns(h http.Handler) map[string]policy.Action { return h.(*gate).mux.actions }

// AddRoute adds a route to a handler that New made.
func AddRoute(h http.Handler, pattern string, do http.HandlerFunc) {
	h.(*gate).mux.HandleFunc(pattern, do)
}

// TakeQueries takes all places that a caller of a handler that New made has for history.
func TakeQueries(h http.Handler, p Principal) (giveBack func()) {
	var all []func()
	for {
		leave, err := h.(*gate).queries.enter(platformOf(p))
		if err != nil {
			return func() {
				for _, leave := range all {
					leave()
				}
			}
		}
		all = append(all, leave)
	}
}

// Open are the paths that need no token.
func Open() []string { return open }

// NewHasty is New with times that a test can wait for.
func NewHasty(cfg Config, ping, frame time.Duration) (http.Handler, error) {
	s := newServer(cfg)
	s.limits.ping, s.limits.frame = ping, frame
	return s.handler()
}

// ShelfGiver is the party that gives in the example of a shelf.
func ShelfGiver() string { return exampleGiver() }

// ShelfTaker is the party that takes in it.
func ShelfTaker() string { return exampleTaker() }

// ExampleNonce is what examples ask with.
const ExampleNonce = exampleNonce

// ModuleOfExamples is the module of which examples are.
const ModuleOfExamples = exampleModule

// AvatarOfExamples is the avatar that examples name.
func AvatarOfExamples() carnet.AvatarID { return exampleAvatar }
