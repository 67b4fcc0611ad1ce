package move

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/item/itemtest"
	"carnet/keys"
	"carnet/ledger"
	"carnet/mandate"
	"carnet/register"
	"carnet/seal"
)

// store is a world's store and the part of the world that moves use: avatars that are
// here, come, or have left. It outlives its agent.
type store struct {
	mu        sync.Mutex
	documents map[[2]string][]byte
	versions  map[[2]string]uint64
	avatars   map[carnet.AvatarID]avatar.Info
	frozen    map[carnet.AvatarID]carnet.CrossingID
	arriving  map[carnet.AvatarID]bool
	rooms     map[carnet.AvatarID]carnet.CrossingID // of those
	gone      map[carnet.AvatarID]avatar.Destination
	silent    map[carnet.AvatarID]bool // their keys are destroyed
	policies  map[carnet.AvatarID]avatar.Policy
	title     string // of what it would release
	streams   []avatar.MovedStream
	ceiling   carnet.Label
	secret    carnet.Label // of the first batch of each stream; zero: as any
	failKeep  error
	failCheck error
	onCheck   func() // once, while what came is checked
	failFix   error  // the next manifest, once
	failThaw  error
	// onPassport is called once, while a passport's manifest is made.
	onPassport func()
	keys       int // bags taken
	unfit      int // batches that a survey finds
	items      *itemtest.Memory
	table      *keys.Table // of items
}

func newStore() *store {
	return &store{
		documents: make(map[[2]string][]byte), versions: make(map[[2]string]uint64), avatars: make(map[carnet.AvatarID]avatar.Info),
		frozen: make(map[carnet.AvatarID]carnet.CrossingID), arriving: make(map[carnet.AvatarID]bool), rooms: make(map[carnet.AvatarID]carnet.CrossingID), gone: make(map[carnet.AvatarID]avatar.Destination), silent: make(map[carnet.AvatarID]bool),
		policies: make(map[carnet.AvatarID]avatar.Policy), items: itemtest.NewMemory(),
	}
}

// copied is the store as it is now, to be restored later.
func (s *store) copied() *store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &store{
		documents: maps.Clone(s.documents), versions: maps.Clone(s.versions), avatars: maps.Clone(s.avatars), frozen: maps.Clone(s.frozen),
		arriving: maps.Clone(s.arriving), rooms: maps.Clone(s.rooms), gone: maps.Clone(s.gone), silent: maps.Clone(s.silent), policies: maps.Clone(s.policies), title: s.title, ceiling: s.ceiling, secret: s.secret, streams: s.streams,
		items: s.items.Copied(), table: s.table,
	}
}

func (s *store) lock() func() { s.mu.Lock(); return s.mu.Unlock }

func (s *store) Avatar(id carnet.AvatarID) (avatar.Info, error) {
	defer s.lock()()
	if v, ok := s.avatars[id]; ok {
		return v, nil
	}
	return avatar.Info{}, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id)
}

func (s *store) Policy(id carnet.AvatarID) (avatar.Policy, error) {
	defer s.lock()()
	if _, moved := s.gone[id]; moved {
		return avatar.Policy{}, carnet.Errorf(carnet.NotFound, "the avatar %s has moved", id)
	}
	return s.policies[id], nil
}

func (s *store) Avatars() []avatar.Info {
	defer s.lock()()
	return slices.Collect(maps.Values(s.avatars))
}

func (s *store) Frozen(id carnet.AvatarID) (carnet.CrossingID, bool, error) {
	defer s.lock()()
	if _, here := s.avatars[id]; !here {
		return carnet.CrossingID{}, false, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id)
	}
	x, frozen := s.frozen[id]
	return x, frozen, nil
}

func (s *store) Freeze(_ context.Context, id carnet.AvatarID, x carnet.CrossingID) error {
	defer s.lock()()
	if _, here := s.avatars[id]; !here {
		return carnet.Errorf(carnet.NotFound, "there is no avatar %s", id)
	}
	if had, ok := s.frozen[id]; ok && had != x {
		return carnet.Errorf(carnet.Conflict, "it moves already")
	}
	s.frozen[id] = x
	return nil
}

func (s *store) Thaw(_ context.Context, id carnet.AvatarID, x carnet.CrossingID) error {
	defer s.lock()()
	if s.failThaw != nil {
		return s.failThaw
	}
	if s.frozen[id] == x {
		delete(s.frozen, id)
	}
	return nil
}

func (s *store) Pack(context.Context) error { return nil }

func (s *store) MovedCeiling(context.Context, carnet.AvatarID) (carnet.Label, error) {
	return s.ceiling, nil
}

func (s *store) MovedStreams(context.Context, carnet.AvatarID) ([]avatar.MovedStream, error) {
	return append([]avatar.MovedStream{}, s.streams...), nil
}

func (s *store) MovedStretches(context.Context, carnet.AvatarID, avatar.Place, int) ([]avatar.MovedStretch, error) {
	return nil, nil
}

func (s *store) StretchBytes(context.Context, carnet.AvatarID, avatar.MovedStretch) ([]byte, error) {
	return nil, carnet.Errorf(carnet.NotFound, "there is no stretch")
}

func (s *store) ProofOf(context.Context, carnet.AvatarID, avatar.MovedStretch) ([]byte, error) {
	return nil, carnet.Errorf(carnet.NotFound, "there is no stretch")
}

func (s *store) Manifest(_ context.Context, id carnet.AvatarID, x carnet.CrossingID, _ func(carnet.AvatarID, avatar.MovedStream) ([]byte, error)) (*avatar.Manifest, error) {
	defer s.lock()()
	if s.frozen[id] != x {
		return nil, carnet.Errorf(carnet.Conflict, "it doesn't keep still")
	}
	if err := s.failFix; err != nil {
		s.failFix = nil
		return nil, err
	}
	return &avatar.Manifest{
		Version: 1, Crossing: x, Avatar: id, Title: s.title, Created: noon,
		Streams: append([]avatar.MovedStream{}, s.streams...), Stretches: []avatar.MovedStretch{}, Keys: []avatar.MovedKey{}, State: []avatar.MovedValue{},
	}, nil
}

func (s *store) PassportManifest(ctx context.Context, id carnet.AvatarID, p carnet.CrossingID, _ func(carnet.AvatarID, avatar.MovedStream) ([]byte, error)) (*avatar.Manifest, error) {
	if _, err := s.Avatar(id); err != nil {
		return nil, err
	}
	if do := s.onPassport; do != nil {
		s.onPassport = nil
		do()
	}
	return &avatar.Manifest{
		Version: 1, Crossing: p, Avatar: id, Title: s.title, Created: noon,
		Streams: []avatar.MovedStream{}, Stretches: []avatar.MovedStretch{}, Keys: []avatar.MovedKey{}, State: []avatar.MovedValue{},
	}, nil
}

// redactedStore is what remains of a store's avatars.
type redactedStore struct {
	*store
	r avatar.Redaction
}

func (s *store) Redacted(r avatar.Redaction) avatar.Leaver { return redactedStore{s, r} }

func (s *store) WouldLeave(_ context.Context, _ carnet.AvatarID, c carnet.Clearance) (all []avatar.LeftBehind, err error) {
	if s.secret.Exceeds(c) != "" {
		all = append(all, avatar.LeftBehind{Label: s.secret, Properties: []string{"position"}, Batches: uint64(len(s.streams)), Measurements: 2 * uint64(len(s.streams)), From: noon, To: noon.Add(time.Hour)})
	}
	return all, nil
}

func (s redactedStore) Manifest(ctx context.Context, id carnet.AvatarID, x carnet.CrossingID, vouch func(carnet.AvatarID, avatar.MovedStream) ([]byte, error)) (*avatar.Manifest, error) {
	m, err := s.store.Manifest(ctx, id, x, vouch)
	if err != nil {
		return nil, err
	}
	for i := range m.Streams {
		out := &m.Streams[i]
		out.Slots = true
		if s.secret.Exceeds(s.r.Clearance) == "" {
			continue
		}
		l := avatar.LeftOut{
			Crossing: x, World: "arena", Order: s.r.Order, Ordered: s.r.Ordered,
			Runs: []avatar.LeftRun{{Class: carnet.Keep, Sensitivity: s.secret.Sensitivity, Batches: 1, Measurements: 2}},
		}
		if l.Word, err = s.r.Sign(*out, l); err != nil {
			return nil, err
		}
		out.Left = []avatar.LeftOut{l}
	}
	return m, nil
}

func (s *store) KeyBags(context.Context, *avatar.Manifest, avatar.KeyTerms) ([][]byte, error) {
	return [][]byte{[]byte("keys")}, nil
}

func (s *store) Depart(_ context.Context, id carnet.AvatarID, x carnet.CrossingID, to carnet.PartyID, decision carnet.Fingerprint) error {
	defer s.lock()()
	if _, done := s.gone[id]; done {
		return nil
	}
	if s.frozen[id] != x {
		return carnet.Errorf(carnet.Conflict, "it doesn't keep still")
	}
	delete(s.avatars, id)
	delete(s.policies, id)
	s.gone[id] = avatar.Destination{Crossing: x, World: to, Decision: decision}
	return nil
}

func (s *store) Departed(id carnet.AvatarID) (avatar.Destination, error) {
	defer s.lock()()
	if d, ok := s.gone[id]; ok {
		return d, nil
	}
	return avatar.Destination{}, carnet.Errorf(carnet.NotFound, "it hasn't moved")
}

// Reclaim: there is no depot here.
func (s *store) Reclaim(context.Context, carnet.AvatarID) error { return nil }

func (s *store) Clear(_ context.Context, id carnet.AvatarID) error {
	defer s.lock()()
	d := s.gone[id]
	d.Cleared = noon
	s.gone[id] = d
	return nil
}

func (s *store) Silence(_ context.Context, id carnet.AvatarID) error {
	defer s.lock()()
	s.silent[id] = true
	return nil
}

func (s *store) Expect(_ context.Context, x carnet.CrossingID, title string) (avatar.Info, error) {
	defer s.lock()()
	id := carnet.NewAvatarID()
	s.arriving[id], s.rooms[id] = true, x
	return avatar.Info{ID: id, Title: title}, nil
}

func (s *store) ExpectBy(ctx context.Context, x, _ carnet.CrossingID, title string) (avatar.Info, error) {
	return s.Expect(ctx, x, title)
}

func (s *store) Arriving() map[carnet.AvatarID]carnet.CrossingID {
	defer s.lock()()
	return maps.Clone(s.rooms)
}

func (s *store) TakeStreams(context.Context, carnet.AvatarID, []avatar.MovedStream, []carnet.AvatarID) error {
	return nil
}

func (s *store) Missing(context.Context, carnet.AvatarID, []avatar.MovedStretch) ([]avatar.MovedStretch, error) {
	return nil, nil
}

func (s *store) StoredBytes(context.Context, carnet.AvatarID, avatar.MovedStretch) ([]byte, error) {
	return nil, nil
}

func (s *store) ProveStretch(context.Context, carnet.AvatarID, avatar.MovedStretch, []byte, []byte) (p avatar.Proven, err error) {
	return p, nil
}

func (s *store) TakeStretches(context.Context, carnet.AvatarID, []avatar.Proven) error { return nil }

func (s *store) TakeStretch(context.Context, carnet.AvatarID, avatar.MovedStretch, []byte, []byte) error {
	return nil
}

func (s *store) TakeKeys(_ context.Context, _ carnet.AvatarID, sealed []byte, _ seal.Expected) error {
	defer s.lock()()
	if string(sealed) != "keys" {
		return carnet.Errorf(carnet.Tampered, "these are no keys")
	}
	s.keys++
	return nil
}

func (s *store) Check(context.Context, carnet.AvatarID, *avatar.Manifest) error {
	if do := s.onCheck; do != nil {
		s.onCheck = nil
		do()
	}
	return s.failCheck
}

// ComingCeiling is as of all that a world has.
func (s *store) ComingCeiling(context.Context, carnet.AvatarID) (carnet.Label, error) {
	return s.ceiling, nil
}

func (s *store) Arrive(_ context.Context, id carnet.AvatarID, l avatar.Landing) error {
	defer s.lock()()
	if !s.arriving[id] && s.avatars[id].ID != id {
		return carnet.Errorf(carnet.NotFound, "nobody is to come")
	}
	delete(s.arriving, id)
	delete(s.rooms, id)
	s.avatars[id] = avatar.Info{ID: id, Title: l.Manifest.Title, OwnerKey: l.Owner}
	if l.Policy != "" {
		said, err := identity.OpenAvatarPolicy(l.Policy)
		if err != nil {
			return err
		}
		s.policies[id] = avatar.Policy{Signed: l.Policy, Said: said}
	}
	return nil
}

func (s *store) Drop(_ context.Context, id carnet.AvatarID) error {
	defer s.lock()()
	delete(s.arriving, id)
	delete(s.rooms, id)
	return nil
}

func (s *store) Survey(_ context.Context, id carnet.AvatarID, do func(avatar.Unfit)) error {
	if _, err := s.Avatar(id); err != nil {
		return err
	}
	for range s.unfit {
		do(avatar.Unfit{})
	}
	return nil
}

func (s *store) Keep(_ context.Context, kept []avatar.Kept, _ []ledger.Statement, _ ...carnet.Document) error {
	defer s.lock()()
	if s.failKeep != nil {
		return s.failKeep
	}
	for _, k := range kept {
		if at := [2]string{k.Kind, k.ID}; s.versions[at] != k.Version-1 {
			return carnet.Errorf(carnet.Conflict, "%s %s has version %d", k.Kind, k.ID, s.versions[at])
		}
	}
	for _, k := range kept {
		if k.Body == nil {
			delete(s.documents, [2]string{k.Kind, k.ID})
			delete(s.versions, [2]string{k.Kind, k.ID})
			continue
		}
		text, err := json.Marshal(k.Body)
		if err != nil {
			return err
		}
		at := [2]string{k.Kind, k.ID}
		s.documents[at], s.versions[at] = text, k.Version
	}
	return nil
}

func (s *store) EachKept(_ context.Context, kind string, do func(string, uint64, func(any) error) error) error {
	defer s.lock()()
	for at, text := range s.documents {
		if at[0] == kind {
			if err := do(at[1], s.versions[at], func(v any) error { return json.Unmarshal(text, v) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *store) OneKept(_ context.Context, kind, id string, body any) (uint64, error) {
	defer s.lock()()
	at := [2]string{kind, id}
	text, ok := s.documents[at]
	if !ok {
		return 0, carnet.Errorf(carnet.NotFound, "there is no %s %s", kind, id)
	}
	return s.versions[at], json.Unmarshal(text, body)
}

// registrar is a register in memory, by the production rules.
type registrar struct {
	key    ed25519.PrivateKey
	ledger *itemtest.Ledger

	mu      sync.Mutex
	homes   map[carnet.HomeID]register.Home
	newest  map[carnet.HomeID]string // what was signed at the newest change of each
	decided map[carnet.CrossingID]*identity.Decision
	away    bool
	asked   int
	// recoveryWait is how long a source is waited for.
	recoveryWait time.Duration
	now          time.Time                // zero: as it is
	waiting      map[carnet.HomeID]func() // before a claim is answered
	lost         map[carnet.HomeID]int    // claims that are recorded, and whose answer is lost
	refuses      map[string]error         // "claim", "not-at": what it answers instead
}

// wait has the claim of a home wait until over is closed; the first one closes waits.
func (r *registrar) wait(id carnet.HomeID, over <-chan struct{}) (waits <-chan struct{}) {
	began := make(chan struct{})
	r.waiting = map[carnet.HomeID]func(){id: func() { close(began); <-over }}
	return began
}

// books take requests and mandates.
type books struct {
	given int
	over  *bool // no mandate is taken any more
}

func (b *books) Ask(_ context.Context, _ string, id carnet.AvatarID, w mandate.Wanted) (mandate.Request, error) {
	text, err := identity.MandateRequest{Text: w.Text, MandateTerms: identity.MandateTerms{
		Audience: w.Audience, Subject: keyOf("b").Public().(ed25519.PublicKey), Platform: keyOf("citadel").Public().(ed25519.PublicKey),
		Avatar: w.About, Actions: w.Actions, Purpose: w.Purpose, Clearance: w.Clearance,
	}}.Marshal()
	return mandate.Request{ID: "request", Avatar: id, Request: text}, err
}

func (b *books) Give(_ context.Context, token string) (mandate.Request, error) {
	if *b.over {
		return mandate.Request{}, carnet.Errorf(carnet.Forbidden, "the mandate has ended")
	}
	if token == anotherMandate {
		return mandate.Request{ID: "another request"}, nil
	}
	b.given++
	return mandate.Request{ID: "request"}, nil
}

// anotherMandate is one that the owner signed for another request.
const anotherMandate = "another mandate"

func (b *books) Remove(context.Context, string) (mandate.Request, error) {
	return mandate.Request{}, nil
}

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func keyOf(name string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte((name + strings.Repeat(".", 32))[:32]))
}

func didOf(name string) string { return identity.DID(keyOf(name).Public().(ed25519.PublicKey)) }

// stage is two worlds and a registrar, with an avatar of arena that is to move to
// citadel. Nothing runs by itself.
type stage struct {
	t               *testing.T
	registrar       *registrar
	arena, citadel  *Agent
	items           map[carnet.PartyID]*item.Book
	other           carnet.ItemID // one that isn't ordered
	stores          map[carnet.PartyID]*store
	avatar          carnet.AvatarID
	mangle          func(what string, v any) // changes what the source answers
	cut             map[string]error         // calls that fail, before they are heard
	lost            map[string]error         // calls whose answer is lost
	told            [][]carnet.Moved
	most            *carnet.Sensitivity // that the mandate and the grant let flow; nil: all
	crossing        AtTarget
	redact          bool // what citadel may not have is left behind
	unordered       bool // and nobody ordered that
	ordered         identity.Ordered
	strangers       bool // the worlds are no peers
	ended           bool // citadel's mandate is over
	owner, ownThere ed25519.PrivateKey
}

func newStage(t *testing.T) *stage {
	s := &stage{
		t: t, registrar: &registrar{key: keyOf("vault"), ledger: itemtest.NewLedger(t, "vault"), homes: make(map[carnet.HomeID]register.Home), lost: make(map[carnet.HomeID]int), newest: make(map[carnet.HomeID]string), decided: make(map[carnet.CrossingID]*identity.Decision)},
		stores: map[carnet.PartyID]*store{"arena": newStore(), "citadel": newStore()}, avatar: carnet.AvatarID{1},
		items: make(map[carnet.PartyID]*item.Book), cut: make(map[string]error), lost: make(map[string]error), owner: keyOf("owner"), ownThere: keyOf("owner at citadel"),
	}
	s.stores["arena"].avatars[s.avatar] = avatar.Info{ID: s.avatar, Title: "Runner", Key: keyOf("runner").Public().(ed25519.PublicKey), OwnerKey: s.owner.Public().(ed25519.PublicKey), Properties: []string{"heart_rate"}}
	s.stores["arena"].title = "Runner"
	s.start("arena")
	s.start("citadel")
	return s
}

// start begins a world's process anew, on its store.
func (s *stage) start(name carnet.PartyID) {
	s.t.Helper()
	clearance := carnet.Clearance{Sensitivity: carnet.Health, Purposes: carnet.NewSet("care")}
	reception, err := seal.NewReceptionKey()
	if err != nil {
		s.t.Fatal(err)
	}
	var a *Agent
	if s.stores[name].table == nil {
		s.stores[name].table = s.stores[name].items.Table(s.t)
	}
	s.items[name], err = item.New(s.t.Context(), item.Config{
		Party: name, Key: keyOf(string(name)), Store: s.stores[name].items, Keys: s.stores[name].table, Homes: homesOf{&a},
		Ledger: func(string) (ledger.Key, error) { return s.registrar.ledger.Key(), nil },
		State:  func(ledger.Statement) (ledger.Item, error) { return ledger.Item{}, nil }, Recorded: func() {},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	a, err = New(s.t.Context(), Config{
		Party: name, Key: keyOf(string(name)), World: s.stores[name], Items: s.items[name], Peers: s, Far: s, Mandates: &books{over: &s.ended}, Clearance: clearance,
		Registrar: func() (Registrar, string, error) {
			return desk{s.registrar, didOf(string(name))}, s.registrar.did(), nil
		},
		Vouch: func(carnet.AvatarID, avatar.MovedStream) ([]byte, error) { return nil, nil },
		Announce: func() ([]byte, error) {
			return reception.Announce(keyOf(string(name)), name, time.Now().Add(time.Hour))
		},
		VouchLeft: func(avatar.MovedStream, avatar.LeftOut) ([]byte, error) { return []byte("word"), nil },
		Moved:     func(m []carnet.Moved) { s.told = append(s.told, m) },
		Log:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if name == "arena" { // any other is in citadel's place
		s.arena = a
	} else {
		s.citadel = a
	}
}

// homesOf is an agent that is there once it is asked.
type homesOf struct{ agent **Agent }

func (h homesOf) EnrolItem(ctx context.Context, id carnet.AvatarID) (item.Enrolled, error) {
	return (*h.agent).EnrolItem(ctx, id)
}

func (h homesOf) OwnerOf(ctx context.Context, id carnet.AvatarID) (string, error) {
	return (*h.agent).OwnerOf(ctx, id)
}

func (h homesOf) ChangeItem(ctx context.Context, registrar string, home carnet.HomeID, change func() error) error {
	return (*h.agent).ChangeItem(ctx, registrar, home, change)
}

func (h homesOf) Coming(id carnet.AvatarID) int { return (*h.agent).Coming(id) }

func (h homesOf) ItemsEnd() { (*h.agent).ItemsEnd() }

// Named implements Peers.
func (s *stage) Named(name carnet.PartyID) (Peer, error) {
	return Peer{
		Party: name, OwnName: name, Key: keyOf(string(name)).Public().(ed25519.PublicKey),
		Clearance: carnet.Clearance{Sensitivity: carnet.Health, Purposes: carnet.NewSet("care")},
	}, nil
}

// asking is a target whose mandate and grant let flow whatever it is cleared for.
func (s *stage) asking(name carnet.PartyID) Asking {
	p, _ := s.Named(name)
	if s.most != nil {
		p.Clearance.Sensitivity &= *s.most
	}
	return Asking{name, p.Clearance}
}

// All implements Peers.
func (s *stage) All() (all []Peer) {
	if s.strangers {
		return nil
	}
	for _, name := range []carnet.PartyID{"arena", "citadel"} {
		p, _ := s.Named(name)
		all = append(all, p)
	}
	return all
}

// Recovered implements Far.
func (s *stage) Recovered(ctx context.Context, _ carnet.PartyID, d Decided) (Left, error) {
	return heard(s, "recovered", func() (Left, error) { return s.arena.HearRecovered(ctx, "citadel", d) })
}

// heard is one call of citadel's to arena.
func heard[T any](s *stage, what string, call func() (T, error)) (v T, err error) {
	if err := s.cut[what]; err != nil {
		return v, err
	}
	if v, err = call(); err != nil {
		return v, err
	}
	if err := s.lost[what]; err != nil {
		var none T
		return none, err
	}
	if s.mangle != nil {
		s.mangle(what, &v)
	}
	return v, nil
}

// lets refuses a call of citadel's that nothing proves: without a decision, once its
// mandate has ended; with one, if nothing has gone to it by that.
func (s *stage) lets(to Visit) error {
	if to.Decision != "" {
		return s.arena.DecidedTo("citadel", to.About, to.Crossing)
	}
	if s.ended {
		return carnet.Errorf(carnet.Unavailable, "no token: the mandate has ended")
	}
	return nil
}

// visited is one call of citadel's about a crossing to arena.
func visited[T any](s *stage, to Visit, what string, call func() (T, error)) (v T, err error) {
	if err := s.lets(to); err != nil {
		return v, err
	}
	return heard(s, what, call)
}

// Offer and the others implement Far.
func (s *stage) Offer(ctx context.Context, to Visit, o SignedOrder) (Standing, error) {
	if to.Decision != "" {
		return heard(s, "offer", func() (Standing, error) {
			return s.arena.TakeDecided(ctx, s.asking("citadel"), to.About, to.Crossing, Decided{SignedOrder: o, Decision: to.Decision})
		})
	}
	return visited(s, to, "offer", func() (Standing, error) { return s.arena.TakeOffer(ctx, s.asking("citadel"), to.About, to.Crossing, o) })
}

func (s *stage) Stretches(ctx context.Context, to Visit, from avatar.Place) ([]avatar.MovedStretch, error) {
	return visited(s, to, "stretches", func() ([]avatar.MovedStretch, error) {
		return s.arena.Stretches(ctx, s.asking("citadel"), to.About, to.Crossing, from)
	})
}

func (s *stage) Stretch(ctx context.Context, to Visit, m avatar.MovedStretch, looked bool) (body, proof []byte, err error) {
	if err := s.lets(to); err != nil {
		return nil, nil, err
	}
	return s.arena.Stretch(ctx, "citadel", to.About, to.Crossing, m, looked)
}

func (s *stage) Several(ctx context.Context, to Visit, some []avatar.MovedStretch) ([]Piece, error) {
	return visited(s, to, "several", func() ([]Piece, error) { return s.arena.Several(ctx, "citadel", to.About, to.Crossing, some) })
}

func (s *stage) Freeze(ctx context.Context, to Visit, announcement []byte) (Freezing, error) {
	return visited(s, to, "freeze", func() (Freezing, error) {
		return s.arena.Freeze(ctx, s.asking("citadel"), to.About, to.Crossing, announcement)
	})
}

func (s *stage) Manifest(ctx context.Context, to Visit) ([]byte, error) {
	return visited(s, to, "manifest", func() ([]byte, error) { return s.arena.ManifestFor(ctx, "citadel", to.About, to.Crossing) })
}

func (s *stage) Ordered(_ context.Context, to Visit) (SignedOrder, error) {
	return visited(s, to, "ordered", func() (SignedOrder, error) { return s.arena.OrderOf("citadel", to.About, to.Crossing) })
}

func (s *stage) Decided(ctx context.Context, to Visit, d Decided) (Left, error) {
	return heard(s, "decided", func() (Left, error) { return s.arena.Hear(ctx, "citadel", to.About, to.Crossing, d) })
}

// ask makes room in citadel; order has the owner sign.
func (s *stage) ask() {
	s.t.Helper()
	d, err := s.arena.Enrol(s.t.Context(), s.avatar, "citadel")
	if err != nil {
		s.t.Fatal(err)
	}
	w := Wanted{From: "arena", Home: d.Registered, Title: d.Title, Ceiling: d.Ceiling, Properties: d.Properties, Policy: d.Policy}
	if s.redact {
		redact := identity.Redaction(*d.Clearance)
		w.Redact, w.Leaves = &redact, d.Leaves
	}
	s.crossing, err = s.citadel.Ask(s.t.Context(), "operator", w)
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) order(life time.Duration) {
	s.t.Helper()
	r, _, err := identity.ParseMoveRequest(s.crossing.Request)
	if err != nil {
		s.t.Fatal(err)
	}
	order, terms, err := r.Sign(s.owner, s.ownThere, time.Now(), life)
	if err != nil {
		s.t.Fatal(err)
	}
	s.ordered = identity.Ordered{Order: order, Terms: terms, Mandate: "mandate"}
	s.take()
}

// take hands the order in.
func (s *stage) take() {
	s.t.Helper()
	if _, err := s.citadel.TakeOrder(s.t.Context(), s.crossing.ID, s.ordered); err != nil {
		s.t.Fatal(err)
	}
}

// go on has each world do what is due, until nothing changes any more.
func (s *stage) goOn() {
	s.t.Helper()
	for range 12 {
		for _, a := range []*Agent{s.citadel, s.arena} {
			for _, d := range a.dueNow() {
				_ = d.drive(s.t.Context()) // what fails is tried again
			}
		}
	}
}

// dueNow is due, without waiting.
func (a *Agent) dueNow() []driven {
	a.mu.Lock()
	for id, is := range a.sources {
		again := *is
		again.notTill = time.Time{}
		a.sources[id] = &again
	}
	for id, is := range a.targets {
		again := *is
		again.notTill = time.Time{}
		a.targets[id] = &again
	}
	a.mu.Unlock()
	return a.due()
}

func (s *stage) states() (source, target State) {
	return s.arena.left(s.crossing.ID).State, s.citadel.came(s.crossing.ID).State
}

// lives lists where the avatar lives.
func (s *stage) lives() (worlds []carnet.PartyID) {
	for name, store := range s.stores {
		if len(store.avatars) > 0 {
			worlds = append(worlds, name)
		}
	}
	slices.Sort(worlds)
	return worlds
}
