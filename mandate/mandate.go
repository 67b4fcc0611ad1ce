// Package mandate owns what a world keeps of owners' mandates. As the world that
// checks mandates it keeps the withdrawals that owners hand in, each until its
// mandate would have ended by itself, stored with the next revocation number. As a
// world whose avatars act elsewhere it keeps the requests that it makes of owners,
// and the mandates that they gave.
//
// A request is asked, then given (again and again, each mandate for a day); a
// mandate is in force, then withdrawn or over. docs/design/mandate.md has the
// durable states and the recovery rule for a crash at each point.
//
// The package must not know avatars beyond their keys, transports, what is done by
// a mandate or how that is ended, and no key that signs a mandate.
package mandate

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/revocation"
)

// Store keeps requests, mandates and withdrawals: a world's store is one. Every
// method is one transaction, durable on return.
type Store interface {
	// Put stores documents (nil Body: delete) and statements, all or nothing; a
	// document whose stored version isn't Version-1 fails the whole with
	// carnet.Conflict.
	Put(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error
	// DocumentPage returns documents of a kind with id > after, in the byte order
	// of their ids, at most limit.
	DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error)
}

// Avatars knows the keys of this world's avatars. It may be called concurrently.
type Avatars interface {
	// Owner returns the owner's key that is pinned with an avatar; carnet.NotFound
	// where there is no such avatar, or none is pinned.
	Owner(id carnet.AvatarID) (ed25519.PublicKey, error)
	// PublicKey returns an avatar's own key; carnet.NotFound where there is no such
	// avatar.
	PublicKey(id carnet.AvatarID) (ed25519.PublicKey, error)
}

// Config makes a Book. Every field without a stated default is required.
type Config struct {
	Party       carnet.PartyID // the world, as it calls itself
	Store       Store
	Keys        *keys.Table // has the key under which all of it rests; it is made at the first start
	Avatars     Avatars
	Revocations *revocation.Watcher
	// Platform is the key by which this world's peer of a name (as the peer calls
	// itself) knows it.
	Platform func(audience carnet.PartyID) (ed25519.PublicKey, error)
	// State makes the outbox item of a statement by this world.
	State func(ledger.Statement) (ledger.Item, error)
	// Recorded is called after a change that left a statement. It must not block.
	Recorded func()

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Book is what a world knows of mandates. It may be used by many goroutines.
type Book struct {
	cfg      Config
	sealer   *keys.Sealer
	follower *revocation.Follower // what another process may have stored is read anew

	changing sync.Mutex // held while something is stored

	mu        sync.RWMutex // guards what follows
	withdrawn map[mandateOf]withdrawal
	requests  map[string]request
}

const (
	kindWithdrawal = "withdrawal"
	kindRequest    = "mandate-request"

	skew     = 30 * time.Second // how far clocks may differ
	pageSize = 512
)

var restKey = keys.ID{Kind: "rest", Name: "mandates"}

// New loads what is stored.
func New(ctx context.Context, cfg Config) (*Book, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Avatars == nil || cfg.Revocations == nil || cfg.Platform == nil || cfg.State == nil || cfg.Recorded == nil {
		return nil, carnet.Errorf(carnet.Malformed, "a book of mandates needs a store, keys, avatars, revocations, this world's keys and a way to state")
	}
	if _, err := carnet.ParsePartyID(string(cfg.Party)); err != nil {
		return nil, err
	}
	b := &Book{cfg: cfg, follower: revocation.Follow(cfg.Revocations)}
	if b.cfg.Now == nil {
		b.cfg.Now = time.Now
	}
	if b.cfg.Log == nil {
		b.cfg.Log = slog.Default()
	}
	if err := b.unseal(ctx); err != nil {
		return nil, err
	}
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// unseal takes the key under which documents rest. It is made at the first start
// only: a store that was used with another key table is refused.
func (b *Book) unseal(ctx context.Context) (err error) {
	if b.sealer, err = b.cfg.Keys.Sealer(ctx, restKey); carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	for _, kind := range []string{kindWithdrawal, kindRequest} {
		if some, err := b.cfg.Store.DocumentPage(ctx, kind, "", 1); err != nil {
			return err
		} else if len(some) > 0 {
			return carnet.Errorf(carnet.Tampered, "the key table doesn't have the key that this world's mandates are sealed under").
				WithFix("give the key table that belongs to the store")
		}
	}
	if _, err = b.cfg.Keys.Make(ctx, restKey); err != nil {
		return err
	}
	b.sealer, err = b.cfg.Keys.Sealer(ctx, restKey)
	return err
}

// Run takes in what other processes on the same store have stored, until ctx
// ends.
func (b *Book) Run(ctx context.Context) error {
	return b.follower.Run(ctx, func(ctx context.Context) error {
		b.changing.Lock()
		err := b.load(ctx)
		b.changing.Unlock()
		if err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("withdrawn mandates can't be read, so every mandate is refused; it is tried again", "err", err)
		}
		return err
	})
}

func (b *Book) load(ctx context.Context) error {
	withdrawn, requests := make(map[mandateOf]withdrawal), make(map[string]request)
	err := each(ctx, b, kindWithdrawal, func(d carnet.Document, w withdrawal) {
		w.document, w.version = d.ID, d.Version
		withdrawn[w.of(d.ID)] = w
	})
	if err != nil {
		return err
	}
	var damaged error
	err = each(ctx, b, kindRequest, func(d carnet.Document, r request) {
		r.id, r.version = d.ID, d.Version
		if err := r.read(); err != nil {
			damaged = fmt.Errorf("read mandate request %s: %w", d.ID, err)
		}
		requests[d.ID] = r
	})
	if err := errors.Join(err, damaged); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.withdrawn, b.requests = withdrawn, requests
	return nil
}

// each hands over the documents of a kind, opened.
func each[T any](ctx context.Context, b *Book, kind string, do func(carnet.Document, T)) error {
	for after := ""; ; {
		page, err := b.cfg.Store.DocumentPage(ctx, kind, after, pageSize)
		if err != nil {
			return err
		}
		for _, d := range page {
			var v T
			plain, err := b.sealer.Open(nil, aad(d.Kind, d.ID), d.Body)
			if err != nil {
				return err
			}
			if err := json.NewDecoder(bytes.NewReader(plain)).Decode(&v); err != nil {
				return carnet.Errorf(carnet.Tampered, "the %s %s can't be read: %v", d.Kind, d.ID, err)
			}
			do(d, v)
			after = d.ID
		}
		if len(page) < pageSize {
			return nil
		}
	}
}

func aad(kind, id string) []byte { return []byte("document " + kind + " " + id) }

func (b *Book) document(kind, id string, version uint64, v any) (carnet.Document, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return carnet.Document{}, err
	}
	body, err := b.sealer.Seal(nil, aad(kind, id), plain)
	return carnet.Document{Kind: kind, ID: id, Version: version, Body: body}, err
}

// withdrawal is a mandate that its owner took back.
type withdrawal struct {
	Owner  []byte          `json:"owner"` // the key that signed
	Avatar carnet.AvatarID `json:"avatar"`
	Until  time.Time       `json:"until"` // the mandate has ended by itself then

	document string // its id
	version  uint64
}

// mandateOf names a mandate: its signer chose the id, so it means something with
// the signer's key alone.
type mandateOf struct {
	owner [ed25519.PublicKeySize]byte
	id    string
}

func nameOf(owner ed25519.PublicKey, id string) (m mandateOf) {
	copy(m.owner[:], owner)
	m.id = id
	return m
}

// document is where a withdrawal of the mandate is stored.
func (m mandateOf) document() string { return hex.EncodeToString(m.owner[:8]) + " " + m.id }

// of names what a stored withdrawal is of. Documents of before have the mandate's id
// alone.
func (w *withdrawal) of(document string) mandateOf {
	if _, id, with := strings.Cut(document, " "); with {
		document = id
	}
	return nameOf(w.Owner, document)
}

// maxWithdrawn bounds the withdrawals of one owner that matter at once: of
// mandates that never were, too.
const maxWithdrawn = 1000

// Withdraw takes a withdrawal by the owner of an avatar. When it returns kept, the
// withdrawal is on disk, with the next revocation number, and whoever lives by the
// mandate was told; handed in again it is answered the same. Not kept is one that
// was signed so long ago that every mandate that it could be of is over by itself.
func (b *Book) Withdraw(ctx context.Context, avatar carnet.AvatarID, token string) (kept bool, err error) {
	owner, err := b.cfg.Avatars.Owner(avatar)
	if err != nil {
		return false, err
	}
	now := b.cfg.Now()
	w, err := identity.VerifyWithdrawal(token, identity.WithdrawalExpectation{Owner: owner, Audience: b.cfg.Party, Now: now, Skew: skew})
	if err != nil {
		return false, err
	}
	of, until := nameOf(owner, w.Mandate), w.Ends().Add(skew)
	if b.has(of, until) {
		return true, nil
	}
	if !now.Before(until) {
		return false, nil
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	if b.has(of, until) {
		return true, nil
	}
	over, living := b.over(now, owner, of)
	if living >= maxWithdrawn {
		return false, carnet.Errorf(carnet.TooLarge, "the owner has %d withdrawals here that still matter, and more aren't kept", living).
			WithFix("wait a day, or stop the mapping")
	}
	b.mu.RLock()
	was := b.withdrawn[of] // an earlier one, which ends before
	b.mu.RUnlock()
	next := withdrawal{Owner: owner, Avatar: avatar, Until: until, document: cmp.Or(was.document, of.document()), version: was.version + 1}
	d, err := b.document(kindWithdrawal, next.document, next.version, next)
	if err != nil {
		return false, err
	}
	item, err := b.cfg.State(ledger.Statement{
		Kind: ledger.MandateWithdrawn, Time: now.UnixNano(), Avatar: avatar, Object: carnet.FingerprintOf([]byte(token)),
	})
	if err != nil {
		return false, err
	}
	err = b.cfg.Revocations.End(ctx, func(number carnet.Document) error {
		if err := b.cfg.Store.Put(ctx, append([]carnet.Document{d, number}, over...), []ledger.Item{item}); err != nil {
			return err
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		gone := make(map[string]bool)
		for _, o := range over {
			gone[o.ID] = true
		}
		maps.DeleteFunc(b.withdrawn, func(_ mandateOf, w withdrawal) bool { return gone[w.document] })
		b.withdrawn[of] = next
		return nil
	})
	if carnet.CodeOf(err) == carnet.Conflict { // another process was first with something of it
		if err := b.load(ctx); err != nil {
			return false, err
		}
		if b.has(of, until) {
			return true, nil
		}
	}
	if err == nil {
		b.cfg.Recorded()
	}
	return err == nil, err
}

// has reports whether a withdrawal of a mandate is kept that holds as long.
func (b *Book) has(of mandateOf, until time.Time) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	w, is := b.withdrawn[of]
	return is && !w.Until.Before(until)
}

// over makes the deletions of what matters no more, some at a time, and counts
// what of an owner still does, but for one.
func (b *Book) over(now time.Time, owner ed25519.PublicKey, but mandateOf) (over []carnet.Document, living int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for of, w := range b.withdrawn {
		switch {
		case of == but:
		case now.After(w.Until) && len(over) < pageSize:
			over = append(over, carnet.Document{Kind: kindWithdrawal, ID: w.document, Version: w.version + 1})
		case now.Before(w.Until) && owner.Equal(ed25519.PublicKey(w.Owner)):
			living++
		}
	}
	return over, living
}

// Stands says why a mandate that an owner signed isn't one to go by: they withdrew it
// (carnet.Unauthenticated), or nobody can tell whether they did until it can be read
// again (carnet.Unavailable). It answers from memory.
func (b *Book) Stands(owner ed25519.PublicKey, id string) error {
	b.mu.RLock()
	_, withdrawn := b.withdrawn[nameOf(owner, id)]
	b.mu.RUnlock()
	switch {
	case withdrawn:
		return carnet.Errorf(carnet.Unauthenticated, "the owner has withdrawn the mandate %s", id)
	case b.follower.Behind():
		return carnet.Errorf(carnet.Unavailable, "the store doesn't answer, so nobody can tell whether the owner has withdrawn the mandate %s", id).WithFix("try again")
	}
	return nil
}

// request is what this world asks an owner for, and what it was given.
type request struct {
	Avatar  carnet.AvatarID `json:"avatar"` // of this world, that is to act
	Request json.RawMessage `json:"request"`
	By      string          `json:"by"`
	Made    time.Time       `json:"made"`
	Mandate string          `json:"mandate,omitempty"` // the last

	id      string
	version uint64
	terms   identity.MandateTerms // that Request has
	last    identity.Mandate      // what Mandate says, if there is one
	signer  ed25519.PublicKey     // of that
}

// read reads what a request's documents say.
func (r *request) read() error {
	asked, err := identity.ParseMandateRequest(r.Request)
	if err != nil {
		return err
	}
	if r.terms = asked.MandateTerms; r.Mandate != "" {
		r.last, r.signer, err = identity.ReadMandate(r.Mandate)
	}
	return err
}

// Request is a request as it stands.
type Request struct {
	ID      string          `json:"id"`
	Avatar  carnet.AvatarID `json:"avatar"`
	Request json.RawMessage `json:"request"` // identity.MandateRequest, for carnet owner approve
	By      string          `json:"by"`
	Made    time.Time       `json:"made"`
	// Mandate is the mandate last given, Expires its end; empty and nil before.
	Mandate string     `json:"-"`
	Expires *time.Time `json:"expires,omitempty"`
}

// Wanted is what an avatar of this world is to be permitted.
type Wanted struct {
	Audience  carnet.PartyID  // the world that checks, as it calls itself
	About     carnet.AvatarID // there
	Actions   []identity.Action
	Purpose   string
	Clearance carnet.Clearance
	Text      string // for the owner
}

// maxRequests bounds the requests of one avatar.
const maxRequests = 100

// Ask makes the request of an avatar's owner to permit something, and returns it
// once it is on disk. Asked for the same, the request that is there is returned.
func (b *Book) Ask(ctx context.Context, by string, avatar carnet.AvatarID, want Wanted) (Request, error) {
	subject, err := b.cfg.Avatars.PublicKey(avatar)
	if err != nil {
		return Request{}, err
	}
	platform, err := b.cfg.Platform(want.Audience)
	if err != nil {
		return Request{}, err
	}
	actions := slices.Sorted(slices.Values(want.Actions))
	asked := identity.MandateRequest{Text: want.Text, MandateTerms: identity.MandateTerms{
		Audience: want.Audience, Subject: subject, Platform: platform, Avatar: want.About,
		Actions: slices.Compact(actions), Purpose: want.Purpose, Clearance: want.Clearance,
	}}
	text, err := asked.Marshal()
	if err != nil {
		return Request{}, err
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	have := b.ofAvatar(avatar)
	for _, r := range have {
		if bytes.Equal(r.Request, text) {
			return r.shown(), nil
		}
	}
	if len(have) >= maxRequests {
		return Request{}, carnet.Errorf(carnet.TooLarge, "the avatar has %d requests, and at most so many are kept", len(have)).WithFix("remove some")
	}
	r := request{Avatar: avatar, Request: text, By: by, Made: b.cfg.Now().UTC(), id: carnet.NewMappingID().String()}
	return b.put(ctx, r, ledger.MandateAsked, text)
}

// put stores a request's next version with a statement about what.
func (b *Book) put(ctx context.Context, r request, kind ledger.Kind, what []byte) (Request, error) {
	r.version++
	if err := r.read(); err != nil {
		return Request{}, err
	}
	d, err := b.document(kindRequest, r.id, r.version, r)
	if err != nil {
		return Request{}, err
	}
	item, err := b.cfg.State(ledger.Statement{Kind: kind, Time: b.cfg.Now().UnixNano(), Avatar: r.Avatar, Object: carnet.FingerprintOf(what)})
	if err != nil {
		return Request{}, err
	}
	if err := b.cfg.Store.Put(ctx, []carnet.Document{d}, []ledger.Item{item}); err != nil {
		return Request{}, err
	}
	b.mu.Lock()
	b.requests[r.id] = r
	b.mu.Unlock()
	b.cfg.Recorded()
	return r.shown(), nil
}

// ofAvatar lists an avatar's requests, oldest first.
func (b *Book) ofAvatar(avatar carnet.AvatarID) (all []request) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, r := range b.requests {
		if r.Avatar == avatar {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(p, q request) int { return p.Made.Compare(q.Made) })
	return all
}

func (r request) shown() Request {
	s := Request{ID: r.id, Avatar: r.Avatar, Request: r.Request, By: r.By, Made: r.Made, Mandate: r.Mandate}
	if r.Mandate != "" {
		s.Expires = &r.last.Expires
	}
	return s
}

// Requests lists what was asked of an avatar's owner, oldest first.
func (b *Book) Requests(avatar carnet.AvatarID) ([]Request, error) {
	if _, err := b.cfg.Avatars.PublicKey(avatar); err != nil {
		return nil, err
	}
	all := []Request{}
	for _, r := range b.ofAvatar(avatar) {
		all = append(all, r.shown())
	}
	return all, nil
}

// Give takes the mandate that answers a request, and returns the request once the
// mandate is on disk. Whether who signed is the owner, only the audience knows;
// so whoever gave the first goes on to give: another signer is refused. A mandate
// that ends no later than the last changes nothing.
func (b *Book) Give(ctx context.Context, token string) (Request, error) {
	m, by, err := identity.ReadMandate(token)
	if err != nil {
		return Request{}, err
	}
	now := b.cfg.Now()
	switch {
	case now.Add(skew).Before(m.Issued):
		return Request{}, carnet.Errorf(carnet.Unauthenticated, "the mandate was signed in the future, at %v", m.Issued).WithFix("set the clock of the machine on which it is signed")
	case now.Add(skew).Before(m.NotBefore):
		return Request{}, carnet.Errorf(carnet.Unauthenticated, "the mandate holds from %v on, and the last one would be forgotten for it now", m.NotBefore).WithFix("hand it in then, or sign one that holds from now on")
	case !now.Before(m.Expires):
		return Request{}, carnet.Errorf(carnet.Unauthenticated, "the mandate ended at %v", m.Expires).WithFix("sign another: carnet owner approve --renew")
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	r, ok := b.askedFor(m.MandateTerms)
	if !ok {
		return Request{}, carnet.Errorf(carnet.NotFound, "nobody here asked for this mandate").WithFix("approve a request of %s as it was written", b.cfg.Party)
	}
	switch {
	case r.Mandate == "":
	case !r.signer.Equal(by):
		return Request{}, carnet.Errorf(carnet.Conflict, "another key than %s signed the mandates for this request", identity.DID(by)).
			WithFix("remove the request and ask again, if the one before wasn't the owner")
	case !m.Expires.After(r.last.Expires):
		return r.shown(), nil
	}
	r.Mandate = token
	return b.put(ctx, r, ledger.MandateTaken, []byte(token))
}

// askedFor finds the request for exactly these terms.
func (b *Book) askedFor(t identity.MandateTerms) (request, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, r := range b.requests {
		if r.terms.Equal(t) {
			return r, true
		}
	}
	return request{}, false
}

// Remove forgets a request, and the mandates given for it.
func (b *Book) Remove(ctx context.Context, id string) (Request, error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	b.mu.RLock()
	r, ok := b.requests[id]
	b.mu.RUnlock()
	if !ok {
		return Request{}, carnet.Errorf(carnet.NotFound, "there is no request %.40q", id).WithFix("list those of the avatar")
	}
	if err := b.cfg.Store.Put(ctx, []carnet.Document{{Kind: kindRequest, ID: id, Version: r.version + 1}}, nil); err != nil {
		return Request{}, err
	}
	b.mu.Lock()
	delete(b.requests, id)
	b.mu.Unlock()
	return r.shown(), nil
}

// Use is what an avatar of this world is about to do elsewhere.
type Use struct {
	Audience carnet.PartyID // the world there, as it calls itself
	About    carnet.AvatarID
	Action   identity.Action
	Purpose  string // empty: any
}

// Mandate returns the mandate by which an avatar may do something now, the one
// that ends last; carnet.NotFound if there is none in force.
func (b *Book) Mandate(avatar carnet.AvatarID, use Use) (string, error) {
	now, best := b.cfg.Now(), request{}
	for _, r := range b.ofAvatar(avatar) {
		if m := r.last; r.Mandate != "" && m.Audience == use.Audience && m.Avatar == use.About && slices.Contains(m.Actions, use.Action) &&
			(use.Purpose == "" || m.Purpose == use.Purpose) && now.Before(m.Expires) && m.Expires.After(best.last.Expires) {
			best = r
		}
	}
	if best.Mandate == "" {
		return "", carnet.Errorf(carnet.NotFound, "no mandate in force lets the avatar %s %s the avatar %s of %s", avatar, use.Action, use.About, use.Audience).
			WithFix("ask its owner for one: they approve the request with carnet owner approve")
	}
	return best.Mandate, nil
}
