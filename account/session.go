package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"time"

	"carnet"
)

// Secrets are what a session's user shows: neither counts alone. They exist nowhere
// but with the user.
type Secrets struct{ ID, Key string }

// secret is the hash of one.
type secret [sha256.Size]byte

// drawn is a new secret of 256 bits, and its hash.
func drawn() (string, secret) {
	var b [32]byte
	rand.Read(b[:])
	text := base64.RawURLEncoding.EncodeToString(b[:])
	return text, sha256.Sum256([]byte(text))
}

// Session is one signing in. Its methods may be called concurrently.
type Session struct {
	user    User
	key     secret
	ends    time.Time
	done    context.Context
	finish  context.CancelCauseFunc
	id      secret
	account *Accounts

	idles time.Time // Accounts.mu
}

// open reports whether the session's time isn't up. The caller holds the lock.
func (s *Session) open(now time.Time) bool { return now.Before(s.ends) && now.Before(s.idles) }

// Name and Role are the user's.
func (s *Session) Name() string { return s.user.Name }
func (s *Session) Role() string { return s.user.Role }

// Ends says when the session ends, and when if nothing is called until then.
func (s *Session) Ends() (ends, idles time.Time) {
	s.account.mu.Lock()
	defer s.account.mu.Unlock()
	return s.ends, s.idles
}

// Done ends with the session; its cause says why. What runs for a session ends with
// it.
func (s *Session) Done() context.Context { return s.done }

// begin opens a session, unless the user's record isn't this one any more. The
// oldest sessions of a user who has too many give way.
func (a *Accounts) begin(u User) (*Session, Secrets, bool) {
	now := time.Now()
	done, finish := context.WithCancelCause(context.Background())
	s := &Session{user: u, ends: now.Add(a.config.Lifetime), idles: now.Add(a.config.Idle), done: done, finish: finish, account: a}
	var shown Secrets
	shown.ID, s.id = drawn()
	shown.Key, s.key = drawn()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users[u.Name] != u {
		return nil, Secrets{}, false
	}
	for {
		var oldest *Session
		n := 0
		for _, other := range a.sessions {
			if other.user.Name == u.Name {
				n++
				if oldest == nil || other.ends.Before(oldest.ends) {
					oldest = other
				}
			}
		}
		if n < a.config.Sessions {
			break
		}
		a.close(oldest, "newer sessions of the user took its place")
	}
	a.sessions[s.id] = s
	return s, shown, true
}

// close ends a session. The caller holds the lock.
func (a *Accounts) close(s *Session, why string) {
	delete(a.sessions, s.id)
	s.finish(carnet.Errorf(carnet.Unauthenticated, "the session is over: %s", why))
}

// Session finds the open session that both secrets are of, and puts its idling off.
func (a *Accounts) Session(shown Secrets) (*Session, error) {
	now := time.Now()
	id, key := sha256.Sum256([]byte(shown.ID)), sha256.Sum256([]byte(shown.Key))
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sessions[id]
	if s == nil || subtle.ConstantTimeCompare(s.key[:], key[:]) != 1 {
		return nil, carnet.Errorf(carnet.Unauthenticated, "nobody is signed in").WithFix("sign in")
	}
	if !s.open(now) {
		a.close(s, "its time is up")
		return nil, carnet.Errorf(carnet.Unauthenticated, "the session is over").WithFix("sign in again")
	}
	s.idles = now.Add(a.config.Idle)
	return s, nil
}

// SignOut ends a session.
func (a *Accounts) SignOut(s *Session) {
	a.end("signed out", func(t *Session) bool { return t == s })
}

// SignOutEverywhere ends every session of a user.
func (a *Accounts) SignOutEverywhere(name string) {
	a.end("signed out everywhere", func(t *Session) bool { return t.user.Name == name })
}

// end ends the sessions that are meant.
func (a *Accounts) end(why string, meant func(*Session) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.sessions {
		if meant(s) {
			a.close(s, why)
			a.config.Log.Info("session ended", "user", s.user.Name, "why", why)
		}
	}
}
