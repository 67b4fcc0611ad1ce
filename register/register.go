// Package register is who is home where: for each avatar and item one home, for
// each crossing one decision, at a registrar that both worlds and the owner chose
// (docs/design/crossing.md, "The register").
//
// Decide, Enrol and Claim are its rules, pure; a Registrar carries them out. A
// crossing is *open* until it is decided, as commit or abort, and the first
// decision stands for ever. A change is *stored* (in the store, with its statement
// in the outbox), then *filed* (in the file of changes, synced), then *marked* (its
// statement and its mark have receipts from the ledger), and only then told to
// anybody. A Registrar is *catching up* after a start, then *answering*; it is
// *older*, and answers nothing, once something shows that what it knows isn't the
// newest.
//
// The package must not know what a home is the home of: it sees random numbers,
// keys and hashes. How a caller was authenticated is the node's affair.
package register

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// Ledger is the ledger that a register's statements go to, which its own depot keeps.
type Ledger interface {
	ledger.Submitter
	// Find returns the leaves of those entries that the ledger has. One that was ever
	// receipted is found; carnet.Unavailable while that can't be said.
	Find(ctx context.Context, entries []ledger.Entry) (map[ledger.Entry]uint64, error)
	// Checkpoint returns the newest checkpoint and its signed form.
	Checkpoint() (ledger.Checkpoint, []byte)
	// Consistency returns the path that proves the ledger at size newer to continue
	// the one at size older, which is above 0.
	Consistency(ctx context.Context, older, newer uint64) ([][32]byte, error)
	Key() ledger.Key
}

// Sealer seals what changes say (keys.Sealer).
type Sealer interface {
	Seal(dst, aad, plaintext []byte) ([]byte, error)
	Open(dst, aad, sealed []byte) ([]byte, error)
}

// Config configures a Registrar.
type Config struct {
	Dir   string         // holds the file of changes; made if absent
	Party carnet.PartyID // the depot, which states the changes
	Key   ed25519.PrivateKey
	// Secret makes the marks: 32 bytes that nobody else has.
	Secret []byte
	Sealer Sealer
	// Item makes the outbox item of a statement with its salt.
	Item   func(statement []byte, salt ledger.Salt) (ledger.Item, error)
	Store  Store
	Ledger Ledger
	// RecoveryWait is how long a source is given to show itself before a recovery is
	// carried out. What was petitioned for keeps the time that it was given.
	RecoveryWait time.Duration // default 7 days

	Logger *slog.Logger // default slog.Default()
}

// Registrar keeps a register. Its methods may be called concurrently; until Run has
// caught up they answer carnet.Unavailable.
type Registrar struct {
	cfg      Config
	did      string
	verifier *ledger.Verifier
	wanted   chan struct{} // there may be changes to mark

	deciding sync.Mutex // one change after the other

	mu     sync.Mutex    // guards what follows
	why    *carnet.Error // why nothing is answered; nil: it is
	older  bool          // why is for good
	marked uint64        // changes up to this one are marked
	more   chan struct{} // closed and replaced when one of the others changes
}

// New checks cfg and makes a Registrar. The caller must call Run.
func New(cfg Config) (*Registrar, error) {
	if cfg.Dir == "" || cfg.Party == "" || cfg.Sealer == nil || cfg.Item == nil || cfg.Store == nil || cfg.Ledger == nil {
		return nil, errors.New("make registrar: Dir, Party, Sealer, Item, Store and Ledger are needed")
	}
	if len(cfg.Key) != ed25519.PrivateKeySize || len(cfg.Secret) != sha256.Size {
		return nil, errors.New("make registrar: Key and a Secret of 32 bytes are needed")
	}
	if cfg.RecoveryWait < 0 {
		return nil, errors.New("make registrar: RecoveryWait is less than nothing")
	}
	if cfg.RecoveryWait == 0 {
		cfg.RecoveryWait = 7 * 24 * time.Hour
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Registrar{
		cfg: cfg, did: identity.DID(cfg.Key.Public().(ed25519.PublicKey)), verifier: ledger.NewVerifier(cfg.Ledger.Key()),
		wanted: make(chan struct{}, 1), more: make(chan struct{}),
		why: carnet.Errorf(carnet.Unavailable, "the register is looking whether it is the newest").WithFix("try again in a second"),
	}, nil
}

// DID names the registrar in orders and decisions.
func (r *Registrar) DID() string { return r.did }

// answering returns why nothing is answered; nil: it is.
func (r *Registrar) answering() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.why != nil {
		return r.why
	}
	return nil
}

// change changes the state and wakes who waits for it.
func (r *Registrar) change(to func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	to()
	close(r.more)
	r.more = make(chan struct{})
}

// isOlder ends all answering, for good.
func (r *Registrar) isOlder(why *carnet.Error) {
	r.change(func() {
		if !r.older {
			r.why, r.older = why, true
			r.cfg.Logger.Error("the register answers nothing", "why", why.Reason, "fix", why.Fix)
		}
	})
}

// settled waits until change n may be told.
func (r *Registrar) settled(ctx context.Context, n uint64) error {
	for {
		r.mu.Lock()
		why, marked, more := r.why, r.marked, r.more
		r.mu.Unlock()
		if why != nil {
			return why
		}
		if marked >= n {
			return nil
		}
		select {
		case r.wanted <- struct{}{}:
		default:
		}
		select {
		case <-more:
		case <-ctx.Done():
			return carnet.Errorf(carnet.Unavailable, "the ledger has no receipt yet for what the register would answer").WithFix("ask the same again")
		}
	}
}

// mark is the entry which says that change n was filed. It says so to nobody else.
func (r *Registrar) mark(n uint64) ledger.Entry {
	h := hmac.New(sha256.New, r.cfg.Secret)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	h.Write(b[:])
	return ledger.Entry(h.Sum(nil))
}

// Petition is what somebody asks about a crossing, with the messages as they were
// signed; empty where there is none.
type Petition struct {
	Want       Want   `json:"want"`
	Order      string `json:"order,omitempty"`
	Release    string `json:"release,omitempty"`
	Acceptance string `json:"acceptance,omitempty"`
	Farewell   string `json:"farewell,omitempty"` // of a recovery
}

// open reads the messages of a petition by who asks about a crossing.
func (p Petition) open(by string, id carnet.CrossingID) (Question, error) {
	q := Question{By: by, Crossing: id, Want: p.Want}
	if id == (carnet.CrossingID{}) {
		return q, carnet.Errorf(carnet.Malformed, "a crossing isn't called zero")
	}
	if p.Want != Commit && p.Want != Abort && p.Want != Ask {
		return q, carnet.Errorf(carnet.Malformed, "a registrar can't be asked to %.20q", p.Want)
	}
	if p.Order != "" {
		o, err := identity.OpenWish(p.Order)
		if err != nil {
			return q, err
		}
		q.Order, q.Hash = &o, carnet.FingerprintOf([]byte(p.Order))
	}
	if p.Release != "" {
		m, err := identity.OpenRelease(p.Release)
		if err != nil {
			return q, err
		}
		q.Release = &m
	}
	if p.Acceptance != "" {
		m, err := identity.OpenAcceptance(p.Acceptance)
		if err != nil {
			return q, err
		}
		q.Acceptance = &m
	}
	if p.Farewell != "" {
		m, err := identity.OpenFarewell(p.Farewell)
		if err != nil {
			return q, err
		}
		q.Farewell = &m
	}
	return q, nil
}

// Decide answers what was decided about a crossing, or decides it; nil while it is
// open. by is the did:key of who asks. A recovery's petition is recorded with each of its
// homes, one change after the other.
func (r *Registrar) Decide(ctx context.Context, by string, id carnet.CrossingID, p Petition) (*DecisionReply, error) {
	if err := r.answering(); err != nil {
		return nil, err
	}
	q, err := p.open(by, id)
	if err != nil {
		return nil, err
	}
	for last := uint64(0); ; {
		n, open, err := r.decide(ctx, q)
		switch {
		case err != nil:
			return nil, err
		case open && n > 0:
			last = n
			continue
		case open && last > 0:
			return nil, r.settled(ctx, last)
		case open:
			return nil, nil
		}
		if err := r.settled(ctx, n); err != nil {
			return nil, err
		}
		rec, proof, err := r.told(ctx, n)
		if err != nil {
			return nil, err
		}
		return &DecisionReply{Decision: rec.Signed, Proof: proof}, nil
	}
}

// decide takes one step about a crossing: the change that it stored or found, 0 if
// none; open if that isn't the decision.
func (r *Registrar) decide(ctx context.Context, q Question) (n uint64, open bool, err error) {
	n, err = r.next(ctx, func(last Change) (*record, uint64, error) {
		open = false
		k, known, err := r.known(ctx, q)
		if err != nil || known > 0 {
			return nil, known, err
		}
		d, moved, err := Decide(k, q, time.Now())
		if open = d == nil; err != nil || open && len(moved) == 0 {
			return nil, 0, err
		}
		if open {
			signed, err := identity.SignHome(r.cfg.Key, moved[0].answer(r.did, identity.NewNonce()))
			return &record{Signed: signed, Homes: moved}, 0, err
		}
		signed, err := identity.SignDecision(r.cfg.Key, *d)
		return &record{Signed: signed, Homes: moved, Crossing: q.Crossing}, 0, err
	})
	return n, open, err
}

// known reads what bears on a question; n is the change that decided the crossing,
// 0 if none did.
func (r *Registrar) known(ctx context.Context, q Question) (k Known, n uint64, err error) {
	k = Known{Registrar: r.did, Homes: make(map[carnet.HomeID]Home), Wait: r.cfg.RecoveryWait}
	c, err := r.cfg.Store.Decided(ctx, q.Crossing)
	if carnet.CodeOf(err) != carnet.NotFound || q.Order == nil {
		if carnet.CodeOf(err) == carnet.NotFound {
			err = nil
		}
		return k, c.Number, err
	}
	changes, err := r.cfg.Store.Homes(ctx, q.Order.Homes)
	if err != nil {
		return k, 0, err
	}
	for id, c := range changes {
		rec, err := r.open(c)
		if err != nil {
			return k, 0, err
		}
		if k.Homes[id], err = rec.home(id); err != nil {
			return k, 0, err
		}
	}
	return k, 0, nil
}

// Enrol registers a home for the world by, or finds it registered for it already.
// asked is the asker's nonce.
func (r *Registrar) Enrol(ctx context.Context, by string, id carnet.HomeID, owner, asked string) (HomeReply, error) {
	return r.stand(ctx, id, asked, func(known *Home) (Home, bool, error) { return Enrol(known, id, by, owner) })
}

// Claim begins a new incarnation of a home, for the world by, which must be it. chain is
// how many entries an item's chain has; 0: it isn't said.
func (r *Registrar) Claim(ctx context.Context, by string, id carnet.HomeID, chain uint64, asked string) (HomeReply, error) {
	return r.stand(ctx, id, asked, func(known *Home) (Home, bool, error) {
		h, err := ClaimItem(known, id, by, chain)
		return h, err == nil && h != *known, err
	})
}

// Erase notes, for the world by, its owner's order to erase what a home is of.
func (r *Registrar) Erase(ctx context.Context, by string, id carnet.HomeID, order, asked string) (HomeReply, error) {
	o, err := identity.OpenErasure(order)
	if err != nil {
		return HomeReply{}, err
	}
	if o.Home != id {
		return HomeReply{}, carnet.Errorf(carnet.Malformed, "the order to erase is about another home")
	}
	return r.stand(ctx, id, asked, func(known *Home) (Home, bool, error) { return Erase(known, r.did, by, o, order) })
}

// maxErased bounds how many homes are asked about at once.
const maxErased = 1024

// Erased says of which homes what they are of is erased. Who asks has each proved by
// Home.
func (r *Registrar) Erased(ctx context.Context, ids []carnet.HomeID) (erased []carnet.HomeID, err error) {
	if err := r.answering(); err != nil {
		return nil, err
	}
	if len(ids) > maxErased {
		return nil, carnet.Errorf(carnet.TooLarge, "%d homes are asked about, at most %d are answered", len(ids), maxErased)
	}
	changes, err := r.cfg.Store.Homes(ctx, ids)
	if err != nil {
		return nil, err
	}
	for id, c := range changes {
		rec, err := r.open(c)
		if err != nil {
			return nil, err
		}
		h, err := rec.home(id)
		if err != nil {
			return nil, err
		}
		if h.Erased != "" {
			erased = append(erased, id)
		}
	}
	return erased, nil
}

// NotAt says, signed, which of many homes aren't at the world by, live, and with nobody
// who asks for their recovery: each of those is to be asked about by itself, which proves
// it. asked is the asker's nonce.
func (r *Registrar) NotAt(ctx context.Context, by string, ids []carnet.HomeID, asked string) (answer string, err error) {
	if err := r.answering(); err != nil {
		return "", err
	}
	if len(ids) > identity.MostAsked {
		return "", carnet.Errorf(carnet.TooLarge, "%d homes are asked about, at most %d are answered", len(ids), identity.MostAsked)
	}
	changes, err := r.cfg.Store.Homes(ctx, ids)
	if err != nil {
		return "", err
	}
	a := identity.HomesAnswer{Registrar: r.did, World: by, Asked: asked, Homes: identity.HomesHash(ids), Not: []carnet.HomeID{}}
	newest, records := uint64(0), make(map[uint64]*record) // many may have moved by one
	for _, id := range ids {
		c, known := changes[id]
		if !known {
			a.Not = append(a.Not, id)
			continue
		}
		rec := records[c.Number]
		if rec == nil {
			if rec, err = r.open(c); err != nil {
				return "", err
			}
			records[c.Number], newest = rec, max(newest, c.Number)
		}
		h, err := rec.home(id)
		if err != nil {
			return "", err
		}
		if h.World != by || h.Recovery != (identity.Petitioned{}) || h.Erased != "" {
			a.Not = append(a.Not, id)
		}
	}
	if answer, err = identity.SignHomes(r.cfg.Key, a); err != nil {
		return "", err
	}
	return answer, r.settled(ctx, newest)
}

// Home answers who is home.
func (r *Registrar) Home(ctx context.Context, id carnet.HomeID, asked string) (HomeReply, error) {
	return r.stand(ctx, id, asked, func(known *Home) (Home, bool, error) {
		if known == nil {
			return Home{}, false, carnet.Errorf(carnet.NotFound, "no home %s is enrolled", id)
		}
		return *known, false, nil
	})
}

// stand answers how a home stands, after a rule has looked at it and perhaps
// changed it.
func (r *Registrar) stand(ctx context.Context, id carnet.HomeID, asked string, rule func(*Home) (Home, bool, error)) (reply HomeReply, err error) {
	if err := r.answering(); err != nil {
		return reply, err
	}
	var now Home
	var moved uint64
	n, err := r.next(ctx, func(Change) (*record, uint64, error) {
		changes, err := r.cfg.Store.Homes(ctx, []carnet.HomeID{id})
		if err != nil {
			return nil, 0, err
		}
		var known *Home
		if c, ok := changes[id]; ok {
			rec, err := r.open(c)
			if err != nil {
				return nil, 0, err
			}
			h, err := rec.home(id)
			if err != nil {
				return nil, 0, err
			}
			if moved, err = r.movedBy(ctx, h, c.Number); err != nil {
				return nil, 0, err
			}
			known = &h
		}
		h, changed, err := rule(known)
		if err != nil {
			return nil, 0, err
		}
		if changed {
			h.Moved = moved
		}
		now = h
		if reply.Home, err = identity.SignHome(r.cfg.Key, h.answer(r.did, asked)); err != nil || !changed {
			return nil, changes[id].Number, err
		}
		return &record{Signed: reply.Home, Homes: []Home{h}}, 0, nil
	})
	if err != nil {
		return HomeReply{}, err
	}
	if err := r.settled(ctx, n); err != nil {
		return HomeReply{}, err
	}
	rec, proof, err := r.told(ctx, n)
	if err != nil {
		return HomeReply{}, err
	}
	if h, err := rec.home(id); err != nil || h != now {
		return HomeReply{}, fmt.Errorf("change %d says %+v of a home, and %+v was signed: %w", n, h, now, err)
	}
	reply.Record, reply.Proof = rec.Signed, proof
	if moved != 0 && moved != n {
		if rec, proof, err = r.told(ctx, moved); err != nil {
			return HomeReply{}, err
		}
		reply.Moved = &DecisionReply{Decision: rec.Signed, Proof: proof}
	}
	return reply, nil
}

// movedBy is the change that moved a home to where it is, as it stands since change n; 0
// if none did. In a register from before homes had that number it is looked for.
func (r *Registrar) movedBy(ctx context.Context, h Home, n uint64) (uint64, error) {
	for h.Moved == 0 && h.Version > 1 && n > 0 {
		from := n - min(group, n)
		changes, err := r.cfg.Store.Changes(ctx, from, int(n-from))
		if err != nil {
			return 0, err
		}
		for _, c := range slices.Backward(changes) {
			rec, err := r.open(c)
			if err != nil {
				return 0, err
			}
			if _, err := rec.home(h.ID); err == nil && rec.Crossing != (carnet.CrossingID{}) {
				return rec.Number, nil
			}
		}
		n = from
	}
	return h.Moved, nil
}

// answer is what is said of a home to who asked with a nonce.
func (h Home) answer(registrar, asked string) identity.HomeAnswer {
	return identity.HomeAnswer{Registrar: registrar, Home: h.ID, Version: h.Version, World: h.World, Owner: h.Owner, Incarnation: h.Incarnation, Asked: asked, Chain: h.Chain, Recovery: h.Recovery, Erased: h.Erased}
}

// maxTries bounds how often a change is made anew since another came first.
const maxTries = 16

// next has look see what is there, and appends what it wants recorded, if it still
// is the next change then; otherwise it returns the change that look names, which is
// there already.
func (r *Registrar) next(ctx context.Context, look func(last Change) (*record, uint64, error)) (uint64, error) {
	r.deciding.Lock()
	defer r.deciding.Unlock()
	for range maxTries {
		last, err := r.cfg.Store.Last(ctx) // before anything that bears on the change is read
		if err != nil {
			return 0, err
		}
		rec, n, err := look(last)
		if err != nil || rec == nil {
			return n, err
		}
		c, err := r.seal(last, rec)
		if err != nil {
			return 0, err
		}
		if err = r.cfg.Store.Append(ctx, c); err == nil || carnet.CodeOf(err) != carnet.Conflict {
			return c.Number, err
		}
	}
	return 0, carnet.Errorf(carnet.Unavailable, "others change the register all the time").WithFix("try again")
}
