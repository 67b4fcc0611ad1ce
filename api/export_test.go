package api

import (
	"net/http"
	"time"
)

// Operations are the ids of the table of roles.
func Operations() map[string][]Role { return allowed }

// Open are the paths that need no token.
func Open() []string { return open }

// NewHasty is New with times that a test can wait for.
func NewHasty(cfg Config, ping, frame time.Duration) (http.Handler, error) {
	s := newServer(cfg)
	s.limits.ping, s.limits.frame = ping, frame
	return s.handler()
}
