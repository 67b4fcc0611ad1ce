package api

import (
	"net/http"
	"time"
)

// Operations are the ids of the table of roles.
func Operations() map[string][]Role { return allowed }

// Open are the paths that need no token.
func Open() []string { return open }

// NewLimited is New with limits that a test can reach.
func NewLimited(cfg Config, ping, frame time.Duration, live, liveOfOne int) (http.Handler, error) {
	s := newServer(cfg)
	s.limits.ping, s.limits.frame, s.limits.live, s.limits.liveOfOne = ping, frame, live, liveOfOne
	return s.handler()
}
