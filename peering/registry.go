package peering

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/revocation"
)

// Store keeps the peerings: each role's store is one. Every method is one
// transaction, durable on return.
type Store interface {
	// Put stores documents (nil Body: delete) and statements, all or nothing; a
	// document whose stored version isn't Version-1 fails the whole with
	// carnet.Conflict.
	Put(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error
	// Documents returns all documents of a kind.
	Documents(ctx context.Context, kind string) ([]carnet.Document, error)
}

// Shown gives what this party shows its peers. A things agent shows each peer
// another name and other keys.
type Shown interface {
	// Show returns what the peer of this name is shown, and makes the keys behind it
	// where there are none, or not all.
	Show(ctx context.Context, peer carnet.PartyID) (identity.Peer, ed25519.PrivateKey, error)
	// Forget destroys the keys that only this peer was shown. It may be asked again.
	Forget(ctx context.Context, peer carnet.PartyID) error
}

// Courier carries an acceptance to the inviter, and brings the confirmation: ""
// while there is none yet. An error with one of the codes conflict, forbidden,
// not_found or malformed is the inviter's refusal.
type Courier interface {
	Carry(ctx context.Context, to ReplyTo, invitation InvitationID, secret, acceptance string) (confirmation string, err error)
}

// Config makes a Registry. Every field without a stated default is required.
type Config struct {
	Party       carnet.PartyID
	Store       Store
	Keys        *keys.Table // has the key under which peerings rest
	Revocations *revocation.Watcher
	Shown       Shown
	// State makes the outbox item of a statement by this party. It may be nil for a
	// Registry that is only read.
	State func(ledger.Statement) (ledger.Item, error)
	// Recorded is called after a change that left a statement. It must not block.
	Recorded func()

	Courier Courier  // default: messages are carried by hand
	ReplyTo *ReplyTo // of this party's invitations; nil: answers are carried by hand

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Registry keeps a party's peerings. It can be asked from many goroutines.
type Registry struct {
	cfg      Config
	sealer   *keys.Sealer
	wake     chan struct{}        // something is to be carried, or ends sooner
	follower *revocation.Follower // what another process may have ended is read anew

	changing sync.Mutex // held while a peering changes and who lives by it is told

	mu          sync.RWMutex // guards what follows
	peerings    map[carnet.PartyID]kept
	byPin       map[carnet.Fingerprint]carnet.PartyID // of those that are active
	subscribers []func(Peering)
	trouble     map[carnet.PartyID]string // why an acceptance isn't confirmed
}

type kept struct {
	Peering
	version uint64
}

const kind = "peering"

var restKey = keys.ID{Kind: "rest", Name: "peering"}

// New loads the peerings, and destroys keys that a removal left behind.
func New(ctx context.Context, cfg Config) (*Registry, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Revocations == nil || cfg.Shown == nil {
		return nil, carnet.Errorf(carnet.Malformed, "a registry of peerings needs a store, a key table, revocations and what the party shows")
	}
	if _, err := carnet.ParsePartyID(string(cfg.Party)); err != nil {
		return nil, err
	}
	r := &Registry{cfg: cfg, wake: make(chan struct{}, 1), follower: revocation.Follow(cfg.Revocations), trouble: make(map[carnet.PartyID]string)}
	if r.cfg.Now == nil {
		r.cfg.Now = time.Now
	}
	if r.cfg.Log == nil {
		r.cfg.Log = slog.Default()
	}
	if r.cfg.Recorded == nil {
		r.cfg.Recorded = func() {}
	}
	var err error
	if r.sealer, err = sealer(ctx, cfg.Keys); err != nil {
		return nil, err
	}
	all, err := r.stored(ctx)
	if err != nil {
		return nil, err
	}
	for name, p := range all {
		if p.State == Removed {
			if err := cfg.Shown.Forget(ctx, name); err != nil {
				return nil, fmt.Errorf("destroy the keys for %s: %w", name, err)
			}
		}
	}
	r.take(all)
	return r, nil
}

func sealer(ctx context.Context, table *keys.Table) (*keys.Sealer, error) {
	s, err := table.Sealer(ctx, restKey)
	if carnet.CodeOf(err) != carnet.NotFound {
		return s, err
	}
	if _, err := table.Make(ctx, restKey); err != nil {
		return nil, err
	}
	return table.Sealer(ctx, restKey)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func aad(name carnet.PartyID) []byte { return []byte("document " + kind + " " + string(name)) }

// stored reads what the store has.
func (r *Registry) stored(ctx context.Context) (map[carnet.PartyID]kept, error) {
	docs, err := r.cfg.Store.Documents(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("read peerings: %w", err)
	}
	all := make(map[carnet.PartyID]kept)
	for _, d := range docs {
		name := carnet.PartyID(d.ID)
		plain, err := r.sealer.Open(nil, aad(name), d.Body)
		if err != nil {
			return nil, fmt.Errorf("open the peering with %s: %w", name, err)
		}
		k := kept{version: d.Version}
		if err := json.Unmarshal(plain, &k.Peering); err != nil {
			return nil, fmt.Errorf("read the peering with %s: %w", name, err)
		}
		all[name] = k
	}
	return all, nil
}

// take puts peerings in force.
func (r *Registry) take(all map[carnet.PartyID]kept) {
	byPin := make(map[carnet.Fingerprint]carnet.PartyID)
	for name, p := range all {
		if peer, ok := p.Peer(); ok && p.State == Active {
			byPin[peer.Pin] = name
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peerings, r.byPin = all, byPin
}

// Subscribe has f called with each peering that has changed, from now on, in
// order and before the call that changed it returns: what lives by one that isn't
// active any more is to be closed then. f must not block, nor change peerings.
func (r *Registry) Subscribe(f func(Peering)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subscribers = append(r.subscribers, f)
}

// ByPin finds the peer that shows a TLS key, if its peering is active and has the
// scope. It is asked at every handshake and every call: there is no other check.
// While the revocation number isn't fresh it knows nobody who calls between
// worlds.
func (r *Registry) ByPin(pin carnet.Fingerprint, s Scope) (Peering, bool) {
	r.mu.RLock()
	p := r.peerings[r.byPin[pin]]
	r.mu.RUnlock()
	return p.Peering, p.Allows(s, r.cfg.Now()) && (s != R5 || r.cfg.Revocations.Fresh() && !r.follower.Behind())
}

// Named returns a peering by what this party calls the peer, in whatever state;
// carnet.NotFound if there is none.
func (r *Registry) Named(name carnet.PartyID) (Peering, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if p, ok := r.peerings[name]; ok {
		return p.Peering, nil
	}
	return Peering{}, carnet.Errorf(carnet.NotFound, "%s has no peer %q", r.cfg.Party, name).WithFix("see 'carnet peer list'")
}

// Trouble says why an acceptance that is out isn't confirmed; "" for no reason.
func (r *Registry) Trouble(name carnet.PartyID) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.trouble[name]
}

// All returns the peerings in order of their names, in whatever state.
func (r *Registry) All() []Peering {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]Peering, 0, len(r.peerings))
	for _, p := range r.peerings {
		all = append(all, p.Peering)
	}
	slices.SortFunc(all, func(p, q Peering) int { return cmp.Compare(p.Name, q.Name) })
	return all
}

// With returns the peerings that are active and have a scope.
func (r *Registry) With(s Scope) []Peering {
	now := r.cfg.Now()
	return slices.DeleteFunc(r.All(), func(p Peering) bool { return !p.Allows(s, now) })
}

// change has a peering go on to what next makes of it. The caller holds changing.
func (r *Registry) change(ctx context.Context, name carnet.PartyID, next func(Peering) (Peering, error)) (Peering, error) {
	r.mu.RLock()
	was := r.peerings[name]
	r.mu.RUnlock()
	p, err := next(was.Peering)
	if err != nil || p.same(was.Peering) {
		return was.Peering, err
	}
	doc := carnet.Document{Kind: kind, ID: string(name), Version: was.version + 1}
	if p.State != Gone {
		plain, err := json.Marshal(p)
		if err != nil {
			return was.Peering, fmt.Errorf("write the peering with %s: %w", name, err)
		}
		if doc.Body, err = r.sealer.Seal(nil, aad(name), plain); err != nil {
			return was.Peering, err
		}
	}
	items, err := r.statements(was.Peering, p)
	if err != nil {
		return was.Peering, err
	}
	put := func(documents ...carnet.Document) error {
		if err := r.cfg.Store.Put(ctx, documents, items); err != nil {
			return err
		}
		r.enter(name, kept{p, doc.Version})
		return nil
	}
	if was.State == Active && p.State != Active {
		err = r.cfg.Revocations.End(ctx, func(d carnet.Document) error { return put(doc, d) })
	} else {
		err = put(doc)
	}
	if err != nil {
		return was.Peering, fmt.Errorf("store the peering with %s: %w", name, err)
	}
	r.cfg.Log.Info("a peering has changed", "peer", name, "was", was.State, "is", p.State)
	r.tell(p)
	if len(items) > 0 {
		r.cfg.Recorded()
	}
	poke(r.wake)
	if p.State == Removed || p.State == Gone {
		if err := r.cfg.Shown.Forget(ctx, name); err != nil { // else at the next start
			r.cfg.Log.Warn("the keys for a peer that was removed are not destroyed yet", "peer", name, "err", err)
		}
	}
	return p, nil
}

// enter puts one peering in force.
func (r *Registry) enter(name carnet.PartyID, k kept) {
	r.mu.RLock()
	all := maps.Clone(r.peerings)
	r.mu.RUnlock()
	if all[name] = k; k.State == Gone {
		delete(all, name)
	}
	r.take(all)
}

func (r *Registry) tell(p Peering) {
	r.mu.RLock()
	subscribers := r.subscribers
	r.mu.RUnlock()
	for _, f := range subscribers {
		f(p)
	}
}

// statements say what a change was.
func (r *Registry) statements(was, is Peering) ([]ledger.Item, error) {
	if was.State == is.State {
		return nil, nil
	}
	s := ledger.Statement{Time: r.cfg.Now().UnixNano(), Peer: is.Name, Object: is.Terms.Fingerprint()}
	switch is.State {
	case Invited:
		s.Kind = ledger.PeerInvited
	case Answered, Accepted:
		s.Kind = ledger.PeerAccepted
	case Active:
		s.Kind = ledger.PeerActive
	case Suspended:
		s.Kind = ledger.PeerSuspended
	default:
		s.Kind, s.Object, s.Reason = ledger.PeerEnded, was.Terms.Fingerprint(), string(is.State)
		if is.State == Gone {
			s.Reason = "given up"
		}
	}
	if r.cfg.State == nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the peerings of %s can only be read here", r.cfg.Party)
	}
	item, err := r.cfg.State(s)
	return []ledger.Item{item}, err
}

// Offer is what an operator offers a peer: terms without the parties.
type Offer struct {
	Scope       []Scope
	Purposes    []string
	Sensitivity *carnet.Sensitivity
	Residency   []string
	NotAfter    time.Time // default in a year
	Until       time.Time // of the invitation; default in a day
}

// Invite makes an invitation for whom this party will call name.
func (r *Registry) Invite(ctx context.Context, name carnet.PartyID, o Offer) (Peering, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	begin, err := r.begin(name)
	if err != nil {
		return begin, err
	}
	shown, key, err := r.cfg.Shown.Show(ctx, name)
	if err != nil {
		return begin, err
	}
	now := r.cfg.Now()
	if o.NotAfter.IsZero() {
		o.NotAfter = now.Add(365 * 24 * time.Hour)
	}
	if o.Until.IsZero() {
		o.Until = now.Add(24 * time.Hour)
	}
	p := begin
	p.State, p.Inviter, p.Since = Invited, true, now.UTC().Truncate(time.Second)
	p.Until, p.Secret, p.ReplyTo = o.Until.UTC().Truncate(time.Second), newSecret(), r.cfg.ReplyTo
	p.Terms = Terms{
		Inviter: shown, Scope: sorted(o.Scope), Purposes: sorted(o.Purposes), Sensitivity: o.Sensitivity, Residency: sorted(o.Residency),
		NotAfter: o.NotAfter.UTC().Truncate(time.Second),
	}
	rand.Read(p.Terms.Invitation[:])
	message, err := identity.SignMessage(key, typInvitation, invitation{p.Terms, p.ReplyTo, p.Secret, p.Until})
	if err != nil {
		return begin, err
	}
	if _, err := openInvitation(message, now); err != nil {
		return begin, err
	}
	if err := r.oneDepot(p); err != nil {
		return begin, err
	}
	p.Invitation = message
	return r.change(ctx, name, func(Peering) (Peering, error) { return p, nil })
}

// Accept takes an invitation by whom this party will call name: its acceptance is
// out from then on.
func (r *Registry) Accept(ctx context.Context, name carnet.PartyID, message string) (Peering, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	now := r.cfg.Now()
	v, err := openInvitation(message, now)
	if err != nil {
		return Peering{}, err
	}
	if p, err := r.Named(name); err == nil && p.Terms.Invitation == v.Terms.Invitation {
		return p, nil
	}
	begin, err := r.begin(name)
	if err != nil {
		return begin, err
	}
	shown, key, err := r.cfg.Shown.Show(ctx, name)
	if err != nil {
		return begin, err
	}
	p := begin
	p.State, p.Inviter, p.Since = Accepted, false, now.UTC().Truncate(time.Second)
	p.Terms, p.Until, p.Secret, p.ReplyTo = v.Terms, v.Until, v.Secret, v.ReplyTo
	p.Terms.Accepter = &shown
	if err := p.Terms.check(now.Add(maxSkew)); err != nil {
		return begin, err
	}
	if err := r.admits(p, v.Terms.Inviter); err != nil {
		return begin, err
	}
	if p.Acceptance, err = identity.SignMessage(key, typAcceptance, p.Terms); err != nil {
		return begin, err
	}
	return r.change(ctx, name, func(Peering) (Peering, error) { return p, nil })
}

// begin is what an exchange for a name begins with. A name that a peer has is for
// that one again, about new terms; one that a peer had who was removed is nobody's.
func (r *Registry) begin(name carnet.PartyID) (Peering, error) {
	if _, err := carnet.ParsePartyID(string(name)); err != nil {
		return Peering{}, err
	}
	p, err := r.Named(name)
	switch {
	case err != nil:
		return Peering{Name: name}, nil
	case p.State == Over || p.State == Suspended || p.State == Active:
		past := p.Terms
		return Peering{Name: name, Past: &past, PastInviter: p.Inviter}, nil
	case p.State == Removed:
		return p, carnet.Errorf(carnet.Conflict, "%s was another peer's name, and what was kept under it is that one's", name).WithFix("take another name")
	}
	return p, carnet.Errorf(carnet.Conflict, "%s has a peer %s already: %s", r.cfg.Party, name, p.State).
		WithFix("take another name, or end that one: carnet peer remove %s", name)
}

// admits refuses a peer that this party has under another name, another peer under
// the name of one that was, and a second depot.
func (r *Registry) admits(p Peering, peer identity.Peer) error {
	for _, q := range r.All() {
		if q.Name != p.Name && q.State != Removed && q.with(peer) {
			return carnet.Errorf(carnet.Conflict, "%s has this peer already, as %s", r.cfg.Party, q.Name).WithFix("end that one first: carnet peer remove %s", q.Name)
		}
	}
	if err := p.again(peer); err != nil {
		return err
	}
	return r.oneDepot(p)
}

// oneDepot refuses a second depot: a party's statements go to one.
func (r *Registry) oneDepot(p Peering) error {
	if !slices.Contains(p.Terms.Scope, R2) || p.Own().Role == identity.Depot {
		return nil
	}
	for _, q := range r.All() {
		if q.Name != p.Name && q.State != Removed && q.State != Over && slices.Contains(q.Terms.Scope, R2) {
			return carnet.Errorf(carnet.Conflict, "%s has a depot already, %s", r.cfg.Party, q.Name).WithFix("end that one first: carnet peer remove %s", q.Name)
		}
	}
	return nil
}

// byInvitation finds who an invitation is for. It takes as long for a secret that
// is wrong as for one that is right.
func (r *Registry) byInvitation(id InvitationID, secret string) (Peering, error) {
	for _, p := range r.All() {
		if p.Inviter && p.Terms.Invitation == id && subtle.ConstantTimeCompare([]byte(p.Secret), []byte(secret)) == 1 && secret != "" {
			return p, nil
		}
	}
	return Peering{}, carnet.Errorf(carnet.Unauthenticated, "there is no such invitation, or this isn't its secret").
		WithFix("ask the other side's operator for a new one")
}

// Invited refuses who has no invitation's secret.
func (r *Registry) Invited(id InvitationID, secret string) error {
	_, err := r.byInvitation(id, secret)
	return err
}

// Answer takes an acceptance that came from outside with the invitation's secret,
// and returns the confirmation; "" while the operator hasn't compared the words.
func (r *Registry) Answer(ctx context.Context, id InvitationID, secret, acceptance string) (string, error) {
	p, err := r.byInvitation(id, secret)
	if err != nil {
		return "", err
	}
	p, err = r.TakeAcceptance(ctx, p.Name, acceptance)
	return p.Confirmation, err
}

// Confirmed returns the confirmation to whom the invitation was for; "" while
// there is none.
func (r *Registry) Confirmed(id InvitationID, secret string) (string, error) {
	p, err := r.byInvitation(id, secret)
	return p.Confirmation, err
}

// TakeAcceptance takes the acceptance of an invitation for name.
func (r *Registry) TakeAcceptance(ctx context.Context, name carnet.PartyID, message string) (Peering, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	terms, err := openAcceptance(message, r.cfg.Now())
	if err != nil {
		return Peering{}, err
	}
	p, err := r.change(ctx, name, func(p Peering) (Peering, error) {
		next, err := p.Next(Event{Kind: AcceptanceCame, Now: r.cfg.Now(), Message: message, Terms: terms})
		if err == nil && next.State == Answered && p.State == Invited {
			err = r.admits(next, *terms.Accepter)
		}
		return next, err
	})
	if err == nil && p.Acceptance != message {
		return p, carnet.Errorf(carnet.Conflict, "the invitation was accepted before, by other terms or keys").
			WithFix("ask the other side's operator, who sees the words of both")
	}
	return p, err
}

// TakeConfirmation takes the confirmation of this party's acceptance.
func (r *Registry) TakeConfirmation(ctx context.Context, name carnet.PartyID, message string) (Peering, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	return r.change(ctx, name, func(p Peering) (Peering, error) {
		if err := openConfirmation(message, p.Terms); err != nil {
			return p, err
		}
		return p.Next(Event{Kind: ConfirmationCame, Now: r.cfg.Now(), Message: message, Terms: p.Terms})
	})
}

// Compare takes the words that the other side's operator read out.
func (r *Registry) Compare(ctx context.Context, name carnet.PartyID, words string) (Peering, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	p, err := r.Named(name)
	if err != nil {
		return p, err
	}
	if p.Terms.Accepter != nil && !sameWords(words, p.Terms.Words()) {
		return p, carnet.Errorf(carnet.Forbidden, "the words are not those of %s: the two sides don't have the same terms and keys", name).
			WithFix("have the other side's operator read them out again; if they differ, somebody is between you: carnet peer remove %s", name)
	}
	e := Event{Kind: Compared, Now: r.cfg.Now()}
	if p.Inviter && p.State == Answered {
		_, key, err := r.cfg.Shown.Show(ctx, name)
		if err != nil {
			return p, err
		}
		if e.Confirmation, err = identity.SignMessage(key, typConfirmation, confirmation{p.Terms.Fingerprint()}); err != nil {
			return p, err
		}
	}
	return r.change(ctx, name, func(p Peering) (Peering, error) { return p.Next(e) })
}

// Suspend, Resume and Remove are the operator's.
func (r *Registry) Suspend(ctx context.Context, name carnet.PartyID) (Peering, error) {
	return r.operate(ctx, name, Suspend)
}

// Resume takes a suspension back.
func (r *Registry) Resume(ctx context.Context, name carnet.PartyID) (Peering, error) {
	return r.operate(ctx, name, Resume)
}

// Remove ends a peering for good, or gives an exchange up.
func (r *Registry) Remove(ctx context.Context, name carnet.PartyID) (Peering, error) {
	return r.operate(ctx, name, Remove)
}

func (r *Registry) operate(ctx context.Context, name carnet.PartyID, k Kind) (Peering, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if _, err := r.Named(name); err != nil {
		return Peering{}, err
	}
	return r.change(ctx, name, func(p Peering) (Peering, error) {
		next, err := p.Next(Event{Kind: k, Now: r.cfg.Now()})
		if peer, ok := next.Peer(); err == nil && k == Resume && ok {
			err = r.admits(next, peer)
		}
		return next, err
	})
}

func sorted[S ~string](words []S) []S {
	words = slices.Clone(words)
	slices.Sort(words)
	return slices.Compact(words)
}
