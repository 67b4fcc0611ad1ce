// Package account owns the people who may sit in front of a console: their names,
// roles and passwords (the users file), their sessions, and how often somebody may
// guess.
//
// A session is open from signing in until it is signed out, has idled, has lasted
// its time, gives way to newer ones of its user, or until the user's record changes;
// then it is over for good. It is two secrets that are kept as hashes: whoever shows
// both is the user. Nothing of it is on disk, so after a restart everybody signs in
// again. Signing in costs the same whether there is such a user or not.
//
// The package must not know HTTP, cookies, parties or tokens (console), nor what a
// role may do (the parties).
package account

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"carnet"
)

// Config says whose accounts there are. Zero values take the defaults.
type Config struct {
	// Users is the users file. It is looked at ten times a second, and who isn't in it as
	// before any more is signed out.
	Users string

	Idle     time.Duration // without a call, until a session ends; default 30 min
	Lifetime time.Duration // until a session ends whatever happens; default 12 h
	Sessions int           // open at once, of one user; default 16

	Log *slog.Logger // default slog.Default()
}

// Accounts signs people in and keeps their sessions. Its methods may be called
// concurrently.
type Accounts struct {
	config  Config
	guesses *guesses
	hashing *hashing
	dummy   Password // nobody's: what an unknown name is checked against

	mu       sync.Mutex
	users    map[string]User
	seen     stamp // of the users file
	sessions map[secret]*Session
}

// stamp tells whether a file is another one than before.
type stamp struct {
	changed time.Time
	size    int64
	mode    fs.FileMode
}

// New reads the users file.
func New(c Config) (*Accounts, error) {
	if c.Idle == 0 {
		c.Idle = 30 * time.Minute
	}
	if c.Lifetime == 0 {
		c.Lifetime = 12 * time.Hour
	}
	if c.Sessions == 0 {
		c.Sessions = 16
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Idle < 0 || c.Lifetime < c.Idle || c.Sessions < 1 {
		return nil, carnet.Errorf(carnet.Malformed, "sessions that idle %s, last %s, and %d of a user: want times above 0, the second no shorter, and at least 1",
			c.Idle, c.Lifetime, c.Sessions)
	}
	a := &Accounts{config: c, guesses: newGuesses(), hashing: newHashing(), sessions: make(map[secret]*Session)}
	var err error
	if a.dummy, err = nobodys(); err != nil {
		return nil, err
	}
	if _, err := a.reload(); err != nil {
		return nil, err
	}
	return a, nil
}

// look is how often the users file is looked at, and ended sessions are forgotten.
const look = 100 * time.Millisecond

// Run takes over changes of the users file and ends sessions whose time is up,
// until ctx ends; then all sessions end.
func (a *Accounts) Run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			a.end("the console stops", func(*Session) bool { return true })
			return ctx.Err()
		case now := <-tick.C:
			a.end("its time is up", func(s *Session) bool { return !s.open(now) })
			changed, err := a.reload()
			switch {
			case err != nil && err.Error() != failed:
				a.config.Log.Error("the users file can't be taken; users stay as they were", "err", err)
			case err == nil && changed:
				a.config.Log.Info("the users file has changed", "users", a.config.Users)
			}
			failed = ""
			if err != nil {
				failed = err.Error()
			}
		}
	}
}

// reload reads the users file if it isn't as it was, and ends the sessions of whom
// it has otherwise.
func (a *Accounts) reload() (changed bool, err error) {
	info, err := os.Stat(a.config.Users)
	if errors.Is(err, fs.ErrNotExist) {
		return false, carnet.Errorf(carnet.NotFound, "there is no users file %s", a.config.Users).
			WithFix("add a user: carnet console user NAME --role ROLE --users %s", a.config.Users)
	}
	if err != nil {
		return false, err
	}
	now := stamp{info.ModTime(), info.Size(), info.Mode()}
	a.mu.Lock()
	same := now == a.seen
	a.mu.Unlock()
	if same {
		return false, nil
	}
	list, err := ReadUsers(a.config.Users)
	if err != nil {
		return false, err
	}
	users := make(map[string]User, len(list))
	for _, u := range list {
		users[u.Name] = u
	}
	a.mu.Lock()
	a.users, a.seen = users, now
	a.mu.Unlock()
	a.end("the user's record has changed", func(s *Session) bool { return users[s.user.Name] != s.user })
	return true, nil
}

// SignIn opens a session for who knows the password. from is the address that the
// attempt comes from. Failures look the same for a wrong password and an unknown
// name; too many of them, and too many attempts at once, are Unavailable with when to
// try again (Wait).
func (a *Accounts) SignIn(ctx context.Context, name, password, from string) (*Session, Secrets, error) {
	now := time.Now()
	leave, err := a.guesses.enter(name, from, now)
	if err != nil {
		a.config.Log.Warn("sign-in refused: too many failures", "user", name, "from", from)
		return nil, Secrets{}, err
	}
	a.mu.Lock()
	user, known := a.users[name]
	a.mu.Unlock()
	against := user.Password
	if !known {
		against = a.dummy
	}
	right, err := a.hashing.check(ctx, against, password)
	if err != nil {
		leave(undecided)
		return nil, Secrets{}, err
	}
	if !right || !known {
		leave(failed)
		a.config.Log.Warn("sign-in failed", "user", name, "from", from)
		return nil, Secrets{}, carnet.Errorf(carnet.Unauthenticated, "there is no user with this name and password").
			WithFix("check both; after %d failures an attempt must wait", freeOfOne)
	}
	leave(succeeded)
	s, secrets, ok := a.begin(user)
	if !ok { // the record changed while the password was checked
		return nil, Secrets{}, carnet.Errorf(carnet.Unauthenticated, "the user's record has just changed").WithFix("sign in again")
	}
	a.config.Log.Info("signed in", "user", name, "from", from)
	return s, secrets, nil
}
