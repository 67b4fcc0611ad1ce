// Package r5 is reference point R5: calls between worlds, each verified twice. It
// owns the way from a call to a proven caller, on both sides.
//
// A world proves the platform by mutual TLS with the key that its peer has pinned,
// and the avatar by an assertion of the avatar's own key that carries the owner's
// mandate; for these it gets an access token, with which each call is made under a
// fresh proof of the token's key (docs/design/r5.md has the messages and the order
// of the checks). A Server gives tokens and guards what is mounted behind it; a
// Client gets, keeps and renews tokens and makes the proofs.
//
// A call is refused, or it is live until its handler returns. What it lives by —
// peering, mandate, grant, and that revocations are known — is asked when it begins
// and ten times a second; the first that fails ends it. Every decision is recorded
// before it is answered, and whatever was wrong is told inside only: outside all
// refusals are the same bytes.
//
// The package must not know what a call does, nor where peers, owners, grants and
// records are kept.
package r5

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/identity"
	"carnet/porter"
)

// Peer is a world that may call.
type Peer struct {
	Name      carnet.PartyID    // as this party calls it
	OwnName   carnet.PartyID    // as it calls itself, and signs
	Key       ed25519.PublicKey // its signing key
	Clearance carnet.Clearance  // what it says it may hold, for which purpose, and where
	Terms     carnet.Clearance  // the most that the peering lets flow
	Until     time.Time         // when the peering ends
}

// Peers knows who may call. Its methods may be called concurrently and answer from
// memory.
type Peers interface {
	// ByPin returns the peer that shows a TLS key, if the peering is in force and
	// has the scope r5; otherwise why not.
	ByPin(pin carnet.Fingerprint) (Peer, error)
}

// Avatars knows this world's avatars. It may be called concurrently.
type Avatars interface {
	// Owner returns the key of an avatar's owner, as it was pinned;
	// carnet.NotFound if there is no such avatar, or it has no owner.
	Owner(carnet.AvatarID) (ed25519.PublicKey, error)
}

// Mandates knows what owners took back. It may be called concurrently, and answers
// from memory.
type Mandates interface {
	// Stands says why a mandate that an owner signed isn't one to go by: they withdrew
	// it (carnet.Unauthenticated), or nobody can tell now (carnet.Unavailable).
	Stands(owner ed25519.PublicKey, id string) error
}

// Ask is who wants to do what.
type Ask struct {
	Platform carnet.PartyID // as this world calls it
	Subject  ed25519.PublicKey
	Avatar   carnet.AvatarID
	Action   identity.Action
	Purpose  string
}

// Grant is what permits an Ask.
type Grant struct {
	ID      string
	Version uint64
	Until   time.Time
	Label   carnet.Label // of what flows by it
}

// Grants decides about asks: whether there is a grant, and whether the policies
// permit it. It may be called concurrently.
type Grants interface {
	// Find returns the grant by which an ask is permitted; carnet.Forbidden with the
	// rule if there is none.
	Find(ctx context.Context, ask Ask) (Grant, error)
	// Still returns the grant if it has this version, isn't over, and the ask is
	// still permitted. It is asked of all open calls, again and again, by the one
	// goroutine that ends them: it answers from memory where it can, and what it can't
	// tell before ctx ends is carnet.Unavailable.
	Still(ctx context.Context, ask Ask, id string, version uint64) (Grant, error)
}

// Revocations knows whether all that was ended is known. It may be called
// concurrently.
type Revocations interface {
	Fresh() bool
}

// Decision is what is recorded of a call, or of a question for a token.
type Decision struct {
	Time      time.Time
	Exchange  bool           // a token was asked for
	Peer      carnet.PartyID // empty: not known
	Subject   string         // the calling avatar's did; empty: not known
	Avatar    *carnet.AvatarID
	Action    identity.Action
	Purpose   string
	Grant     string
	Mandate   string
	Permitted bool
	Rule      Rule   // the check that refused
	Reason    string // for people; with what to do about it
	More      uint64 // so many more were refused to this peer since the record before
}

// Activity keeps decisions. It may be called concurrently.
type Activity interface {
	// Record makes a decision durable. What can't be recorded isn't served.
	Record(context.Context, Decision) error
}

// Horizon keeps one time: an upper bound of the times in proofs and assertions that
// were taken though they lay ahead of this world's clock. What an earlier process
// has seen can't be shown to the next one again.
type Horizon interface {
	// Newest returns what was last raised; the zero time if nothing was.
	Newest(context.Context) (time.Time, error)
	// Raise makes a time durable. It is called by one at a time.
	Raise(context.Context, time.Time) error
}

// Config makes a Server. Fields without a stated default are required.
type Config struct {
	Party       carnet.PartyID // this world, as it calls itself
	Base        string         // the URL under which peers reach the listener: https://host:port
	Key         ed25519.PrivateKey
	Peers       Peers
	Avatars     Avatars
	Mandates    Mandates
	Grants      Grants
	Revocations Revocations
	Activity    Activity
	Horizon     Horizon
	Limits      Limits
	Now         func() time.Time // default time.Now
	Log         *slog.Logger     // default slog.Default()
}

// Limits bound what one peer can take. Zero values take their defaults.
type Limits struct {
	Connections int // open at once; default 64
	Calls       int // under way at once, streams included; default 1024
	Remembered  int // assertions and proofs that are remembered; default 65,536
	Refusals    int // recorded one by one in a minute; default 600
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		value *int
		or    int
	}{{&l.Connections, 64}, {&l.Calls, 1024}, {&l.Remembered, 65536}, {&l.Refusals, 600}} {
		if *f.value == 0 {
			*f.value = f.or
		}
	}
	return l
}

// Skew is how far the clocks of two worlds may differ.
const Skew = 30 * time.Second

// TokenPath is where a token is asked for.
const TokenPath = "/r5/token"

// Call is a proven caller and what it may do.
type Call struct {
	Ask
	Pin     carnet.Fingerprint // of the TLS key
	Grant   Grant
	Mandate string
	// Most is the most that may flow to the caller, whatever the grant says: the least
	// of what its world is cleared for, the peering's terms and the mandate, for the
	// call's one purpose.
	Most carnet.Clearance
	// mandated is what the mandate alone lets flow.
	mandated carnet.Clearance
	// TokenEnd is when the call ends by itself; Until when the first of what it lives
	// by does, which goes for what is begun with the call and outlasts it.
	TokenEnd, Until time.Time
}

// Handler serves a proven caller. The request's context ends with what the call
// lives by.
type Handler func(http.ResponseWriter, *http.Request, Call)

// Server gives tokens and guards handlers.
type Server struct {
	cfg    Config
	mux    *http.ServeMux
	tokens *tokens
	seen   *memory
	live   *registry
	told   *activity.Budget[carnet.PartyID]
	decoy  ed25519.PublicKey // nobody has the private key

	recheck chan struct{}
}

// New makes a Server. Handlers are added before it serves.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := cfg.Limits
	decoy, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	seen, err := newMemory(ctx, l.Remembered, cfg.Now(), cfg.Horizon)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, mux: http.NewServeMux(), decoy: decoy, recheck: make(chan struct{}, 1),
		tokens: newTokens(cfg.Key.Public().(ed25519.PublicKey), cfg.Party), seen: seen, live: newRegistry(l.Connections, l.Calls), told: activity.NewBudget[carnet.PartyID](l.Refusals),
	}
	s.mux.HandleFunc("POST "+TokenPath, s.exchange)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, Decision{}, refusal(NoRoute, carnet.Errorf(carnet.NotFound, "there is no %s %.200q", r.Method, r.URL.Path)))
	})
	return s, nil
}

func (c *Config) check() error {
	if _, err := carnet.ParsePartyID(string(c.Party)); err != nil {
		return err
	}
	if err := checkBase(c.Base); err != nil {
		return err
	}
	c.Limits = c.Limits.withDefaults()
	if l := c.Limits; min(l.Connections, l.Calls, l.Remembered, l.Refusals) < 0 {
		return carnet.Errorf(carnet.Malformed, "limits of calls between worlds are below zero")
	}
	if len(c.Key) != ed25519.PrivateKeySize || c.Peers == nil || c.Avatars == nil || c.Mandates == nil || c.Grants == nil ||
		c.Revocations == nil || c.Activity == nil || c.Horizon == nil {
		return carnet.Errorf(carnet.Malformed, "calls between worlds need a key, peers, avatars, mandates, grants, revocations, a record and a horizon")
	}
	return nil
}

func checkBase(base string) error {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || base != "https://"+u.Host {
		return carnet.Errorf(carnet.Malformed, "%.200q is not where a world takes calls", base).WithFix("write it as https://HOST:PORT")
	}
	return nil
}

// Handle adds what callers with a token for an action may ask for. The pattern is
// net/http's, with a method, and with {id} for the avatar that the call is about.
func (s *Server) Handle(pattern string, action identity.Action, h Handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.guard(w, r, action, s.cfg.Activity.Record, h) })
}

// HandleRecorded is Handle for a handler that decides once more, and records what it
// lets in before it answers: with what the Call proves, so that a call is one record.
func (s *Server) HandleRecorded(pattern string, action identity.Action, h Handler) {
	later := func(context.Context, Decision) error { return nil }
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.guard(w, r, action, later, h) })
}

// HandlePeer adds what a peer may tell this world without any avatar's token, proved by
// its TLS key alone: what is told must prove itself. An answer is recorded as a refusal
// is; what was told is for the handler to record.
func (s *Server) HandlePeer(pattern string, h func(http.ResponseWriter, *http.Request, Peer)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		peer, pin, err := s.platform(r)
		var leave func()
		if err == nil {
			leave, err = s.live.begin(pin)
		}
		if err != nil {
			s.refuse(w, r, Decision{Peer: peer.Name}, err)
			return
		}
		defer leave()
		porter.BodyWithin(w, r, bodyTime)
		h(w, r, peer)
	})
}

// HandleEither is Handle for what a peer may also ask without any avatar's token, since
// what it is about has proved itself to this world. The Call has no Mandate then, but the
// platform and the avatar that it is about; that this may be served, and the record of
// it, are the handler's.
func (s *Server) HandleEither(pattern string, action identity.Action, h Handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header.Values("Authorization")) > 0 {
			s.guard(w, r, action, s.cfg.Activity.Record, h)
			return
		}
		peer, pin, err := s.platform(r)
		var about carnet.AvatarID
		if err == nil {
			if about, err = carnet.ParseAvatarID(r.PathValue("id")); err != nil {
				err = refusal(ResourceRule, err)
			}
		}
		var leave func()
		if err == nil {
			leave, err = s.live.begin(pin)
		}
		if err != nil {
			s.refuse(w, r, Decision{Peer: peer.Name, Action: action}, err)
			return
		}
		defer leave()
		porter.BodyWithin(w, r, bodyTime)
		h(w, r, Call{Ask: Ask{Platform: peer.Name, Avatar: about, Action: action}, Pin: pin})
	})
}

// ServeHTTP implements http.Handler, behind the mutual TLS of Serve.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer porter.Known(r.Context())()         // no stranger's connection gets here
	if r.URL.Path != path.Clean(r.URL.Path) { // the mux would answer with a redirection
		r = r.Clone(r.Context())
		r.URL.Path = "/"
	}
	s.mux.ServeHTTP(w, r)
}
