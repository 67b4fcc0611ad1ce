// Package api serves the management and data interface of a party over HTTP:
// things, mappings and owners at a things agent, avatars with their state,
// history and live events at a world, and the status of any party.
//
// It owns how a call is let in (each route's action, asked of the guard, before
// anything else is done with the request), how errors are told outside (RFC 9457 problem documents with a code and a fix), content
// negotiation, and the limits of requests. It keeps no state: a request goes
// through the checks in order (token, route, guard, body, accepted types, form),
// then to an agent, then out. What is hidden from a caller looks like what is
// absent. The OpenAPI 3.1 document at /openapi.json is made from the same Go
// types that answer.
//
// The package must not know how tokens are kept (node), where rows lie (store),
// how a listener is made, or any rule about data that an agent has.
// docs/design/api.md has the surface for people.
package api

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/crossing/move"
	"carnet/depot"
	"carnet/dpm"
	"carnet/entity"
	"carnet/erasure"
	"carnet/item"
	"carnet/job"
	"carnet/ledger"
	"carnet/mandate"
	"carnet/policy"
	"carnet/thing"
)

// Config says what a handler serves. Fields without a stated default are
// required, but for the agents: those that the party has.
type Config struct {
	Party  carnet.PartyID
	Things *thing.Agent
	World  *avatar.Agent
	Depot  *depot.Agent
	Peers  Peers  // nil: the party's peerings aren't served
	Proofs Proofs // with World

	// Mandates is what the world keeps of owners' mandates; nil: the interface has
	// nothing of them.
	Mandates *mandate.Book

	// Shares are the world's shares with other worlds; nil: the interface has
	// nothing of them.
	Shares *crossing.Agent
	// Items are what the world's avatars have; nil: the interface has no routes for them.
	Items *item.Book
	// Moves are the avatars that come from and go to other worlds; nil: the interface
	// has nothing of them.
	Moves *move.Agent
	// Erasures are what is erased by its owner's order; nil: the interface has nothing of
	// them. ErasureKey is the did:key by which a party is known; "": none.
	Erasures   *erasure.Agent
	ErasureKey func(carnet.PartyID) string
	// ErasureSigner is the key of this world's evidence.
	ErasureSigner func(context.Context) (ed25519.PrivateKey, error)
	// Recoveries: a things agent is told here of avatars that have a new home.
	Recoveries bool
	// Passports makes passports of avatars, and with Moves takes those of others; nil: the
	// interface has nothing of them.
	Passports Passports
	// Abroad calls other worlds; nil: the interface has nothing of them.
	Abroad Abroad

	// Jobs are what a world, or owners at a things agent, have computed; nil: the interface
	// has nothing of them.
	Jobs *job.Agent
	// DPM computes for worlds.
	DPM *dpm.Agent

	// R2, R5 and R6 are the URLs of the party's listeners for other parties, which the
	// documents tell; empty: it has none.
	R2, R5, R6 string
	// MQTT is host:port of a things agent's endpoint for devices, likewise.
	MQTT string

	// Outbox is the party's way to its depot; nil: its statements go nowhere.
	Outbox *Outbox

	// Examine has the party look for what is half done or not as it should be; nil: the
	// interface has no route for it.
	Examine func(context.Context) (carnet.Examination, error)

	// Tokens says who a bearer token is. Live subscriptions ask it again from
	// time to time, so that a token that is taken away ends them.
	Tokens Authenticator

	// Entities has principals and grants: with World.
	Entities *entity.Agent
	// Activity is the log that Guard records in.
	Activity *activity.Log

	// Guard decides and records every call.
	Guard *activity.Guard

	// How many live subscriptions are open at once: of all callers (default 4,096),
	// and of those with one token (default 64, or Live if that is less). One more
	// is answered with 429.
	Live, LiveOfToken int

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Outbox is a way to a depot.
type Outbox struct {
	To   func() carnet.PartyID // empty: there is none yet
	Away func() *ledger.Away   // nil: the depot takes statements. Both are called concurrently
}

// things is what the handler needs of a things agent: a *thing.Agent.
type things interface {
	Things(ctx context.Context, owner string) ([]thing.Info, error)
	Thing(ctx context.Context, id carnet.ThingID) (thing.Info, error)
	Description(ctx context.Context, id carnet.ThingID) ([]byte, error)
	AddThing(ctx context.Context, id carnet.ThingID, owner string, description []byte) (carnet.ThingID, string, error)
	RenewPassword(ctx context.Context, id carnet.ThingID) (string, error)
	Refusals(ctx context.Context, id carnet.ThingID, limit int) ([]thing.Refusal, error)
	Map(ctx context.Context, by string, id carnet.ThingID, world carnet.PartyID, avatar *carnet.AvatarID, title string, view policy.View) (thing.MappingInfo, error)
	Mapping(id carnet.MappingID) (thing.MappingInfo, error)
	SetView(ctx context.Context, by string, id carnet.MappingID, view policy.View) (thing.MappingInfo, error)
	Unmap(ctx context.Context, by string, id carnet.MappingID) (thing.MappingInfo, error)
	Own(ctx context.Context, id carnet.MappingID, ownership string) (thing.MappingInfo, error)
	Recovered(ctx context.Context, recovery string, terms []byte, decision string) ([]thing.MappingInfo, error)
	Explain(id carnet.MappingID) ([]string, error)
	Views(id carnet.MappingID) ([]thing.ViewRecord, error)
	Status(ctx context.Context) (thing.Status, error)
}

// world is what the handler needs of a world: a *avatar.Agent.
type world interface {
	Avatars() []avatar.Info
	Avatar(id carnet.AvatarID) (avatar.Info, error)
	Policy(id carnet.AvatarID) (avatar.Policy, error)
	SetPolicy(ctx context.Context, id carnet.AvatarID, signed string) (avatar.Policy, error)
	Latest(id carnet.AvatarID) ([]carnet.Measurement, error)
	History(ctx context.Context, id carnet.AvatarID, q avatar.Query) (ms []carnet.Measurement, more bool, err error)
	Subscribe(id carnet.AvatarID, after *avatar.Cursor) (*avatar.Subscription, error)
	Totals(ctx context.Context) (avatar.Totals, error)
	Defects() uint64
	// Gives and ShareGave name what avatars are given now, and false where it isn't known.
	Gives(id carnet.AvatarID, of policy.View) (names []string, known bool)
	ShareGave(to carnet.AvatarID, share carnet.ShareID) (names []string, known bool)
}

// store is what the handler needs of a depot: a *depot.Agent.
type store interface {
	Totals(ctx context.Context, owner carnet.PartyID) (depot.Totals, error)
	Checkpoint() (ledger.Checkpoint, []byte)
}

// records is what the handler needs of an activity log: an *activity.Log.
type records interface {
	Page(ctx context.Context, q activity.Query) (activity.Found, error)
}

// entities is what the handler needs of an entity agent: an *entity.Agent.
type entities interface {
	Know(who policy.Principal, action policy.Action, avatar carnet.AvatarID) (activity.Known, error)
	Visible(who policy.Principal) map[carnet.AvatarID]bool
	KnowBy(grant string, version uint64, action policy.Action, avatar carnet.AvatarID) (activity.Known, error)
	Lens(grant string, most *carnet.Clearance) (*entity.Lens, error)
	Hold(grant string, end func()) (release func(), err error)
	Principals() []entity.Principal
	AddPrincipal(ctx context.Context, by string, n entity.NewPrincipal) (entity.Principal, string, error)
	RemovePrincipal(ctx context.Context, id string) (entity.Principal, error)
	Removed() <-chan struct{}
	Assess(ctx context.Context, t entity.Terms) (entity.Assessment, error)
	Give(ctx context.Context, by string, t entity.Terms, fingerprint string) (entity.Grant, error)
	Revoke(ctx context.Context, by, id string) (entity.Grant, error)
	Grant(id string) (entity.Grant, error)
	Holds(id string, version uint64) (entity.Grant, error)
	Grants(of *policy.Principal) []entity.Grant
}

// server answers requests. Its fields don't change after New.
type server struct {
	party         carnet.PartyID
	things        things  // nil unless the party is a things agent
	world         world   // nil unless it is a world
	depot         store   // nil unless it is a depot
	outbox        *Outbox // nil for a depot
	examine       func(context.Context) (carnet.Examination, error)
	examining     chan struct{} // has room for the one that examines
	r2, r5, r6    string        // empty: there is no such listener
	mqtt          string        // likewise
	proofs        Proofs        // with world
	peers         Peers         // nil: not served
	mandates      mandates      // nil, or with world
	shares        shares        // nil, or with world
	moves         moves         // nil, or with world
	items         items         // nil, or with world
	erasures      erasures      // nil, or with world
	jobs          jobs          // nil, or with world or things
	dpm           computing     // nil unless it is a DPM
	erasureKey    func(carnet.PartyID) string
	erasureSigner func(context.Context) (ed25519.PrivateKey, error)
	abroad        Abroad     // nil, or with world
	passports     Passports  // nil, or with world
	recoveries    recoveries // with passports
	recovered     bool       // a things agent is told of them
	tokens        Authenticator
	guard         *activity.Guard
	activity      records  // nil: it isn't shown
	entities      entities // nil, or with world
	now           func() time.Time
	log           *slog.Logger
	limits        limits

	queries, bundles, live places // of history, of evidence, and live subscriptions
	bodies, largeBodies    bodies // on their way
	went                   given
}

// newServer takes what the party has.
func newServer(cfg Config) *server {
	s := &server{party: cfg.Party, examine: cfg.Examine, examining: make(chan struct{}, 1), outbox: cfg.Outbox, r2: cfg.R2, r5: cfg.R5, r6: cfg.R6, mqtt: cfg.MQTT, proofs: cfg.Proofs, abroad: cfg.Abroad, peers: cfg.Peers, tokens: cfg.Tokens, guard: cfg.Guard, now: cfg.Now, log: cfg.Log, limits: usual}
	if cfg.Live != 0 {
		s.limits.live, s.limits.liveOfOne = cfg.Live, min(s.limits.liveOfOne, cfg.Live)
	}
	if cfg.LiveOfToken != 0 {
		s.limits.liveOfOne = cfg.LiveOfToken
	}
	if cfg.Things != nil {
		s.things, s.recovered = cfg.Things, cfg.Recoveries
	}
	if cfg.World != nil {
		s.world = cfg.World
	}
	if cfg.Mandates != nil {
		s.mandates = cfg.Mandates
	}
	if cfg.Shares != nil {
		s.shares = cfg.Shares
	}
	if cfg.Items != nil {
		s.items = cfg.Items
	}
	if cfg.Moves != nil {
		s.moves = cfg.Moves
		if cfg.Passports != nil {
			s.passports, s.recoveries = cfg.Passports, cfg.Moves
		}
	}
	if cfg.Erasures != nil {
		s.erasures, s.erasureKey, s.erasureSigner = cfg.Erasures, cfg.ErasureKey, cfg.ErasureSigner
	}
	if cfg.Depot != nil {
		s.depot = cfg.Depot
	}
	if cfg.Jobs != nil {
		s.jobs = cfg.Jobs
	}
	if cfg.DPM != nil {
		s.dpm = cfg.DPM
	}
	if cfg.Entities != nil {
		s.entities = cfg.Entities
	}
	if cfg.Activity != nil {
		s.activity = cfg.Activity
	}
	return s
}

// New makes the handler. It expects to be served over TLS (or on localhost),
// by an http.Server whose BaseContext ends with the process: live subscriptions
// end with it.
func New(cfg Config) (http.Handler, error) { return newServer(cfg).handler() }

func (s *server) handler() (http.Handler, error) {
	if _, err := carnet.ParsePartyID(string(s.party)); err != nil {
		return nil, err
	}
	if s.things == nil && s.world == nil && s.depot == nil && s.dpm == nil {
		return nil, carnet.Errorf(carnet.Malformed, "an API needs an agent: things, world, depot or dpm")
	}
	if s.tokens == nil {
		return nil, carnet.Errorf(carnet.Malformed, "an API needs a way to check tokens")
	}
	if s.guard == nil {
		return nil, carnet.Errorf(carnet.Malformed, "an API needs a guard")
	}
	if s.limits.live < 1 || s.limits.liveOfOne < 1 || s.limits.liveOfOne > s.limits.live {
		return nil, carnet.Errorf(carnet.Malformed, "%d live subscriptions, and %d with one token: want at least 1, and no more with one token than at all",
			s.limits.live, s.limits.liveOfOne)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.queries = places{what: "history queries", all: s.limits.queries, ofOne: s.limits.queriesOfOne}
	s.bundles = places{what: "evidence bundles", all: s.limits.bundles, ofOne: s.limits.bundlesOfOne}
	s.bodies = bodies{all: s.limits.bodies, ofOne: s.limits.bodiesOfOne}
	s.largeBodies = bodies{all: s.limits.largeBodies, ofOne: s.limits.largeBodiesOfOne}
	s.live = places{
		what: "live subscriptions", all: s.limits.live, ofOne: s.limits.liveOfOne,
		ofWorld: max(1, s.limits.live/8), ofWorlds: max(1, s.limits.live/2),
	}
	return s.routes()
}
