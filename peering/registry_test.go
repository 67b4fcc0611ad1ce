package peering

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/revocation"
)

// disk is a party's store and key table, which outlives its processes.
type disk struct {
	mu         sync.Mutex
	docs       map[string]carnet.Document
	statements []ledger.Item
	fail       error
	rows       []keys.Row
}

func (d *disk) Put(_ context.Context, docs []carnet.Document, items []ledger.Item) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	for _, doc := range docs {
		if d.docs[doc.Kind+" "+doc.ID].Version+1 != doc.Version {
			return carnet.Errorf(carnet.Conflict, "%s %q has another version", doc.Kind, doc.ID)
		}
	}
	for _, doc := range docs {
		if d.docs[doc.Kind+" "+doc.ID] = doc; doc.Body == nil {
			delete(d.docs, doc.Kind+" "+doc.ID)
		}
	}
	d.statements = append(d.statements, items...)
	return nil
}

func (d *disk) Document(_ context.Context, kind, id string) (carnet.Document, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if doc, ok := d.docs[kind+" "+id]; ok {
		return doc, nil
	}
	return carnet.Document{}, carnet.Errorf(carnet.NotFound, "there is no %s %q", kind, id)
}

func (d *disk) Documents(_ context.Context, kind string) (all []carnet.Document, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(d.docs)) {
		if doc := d.docs[key]; doc.Kind == kind {
			all = append(all, doc)
		}
	}
	return all, nil
}

// keyRows is the disk as a keys.Store.
type keyRows struct{ *disk }

func (d keyRows) Get(_ context.Context, id keys.ID) (keys.Row, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.rows {
		if r.ID == id {
			return r, nil
		}
	}
	return keys.Row{}, carnet.Errorf(carnet.NotFound, "no key %s", id)
}

func (d keyRows) Page(_ context.Context, after keys.ID, limit int) (out []keys.Row, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	order := func(p, q keys.ID) int { return cmp.Or(cmp.Compare(p.Kind, q.Kind), cmp.Compare(p.Name, q.Name)) }
	slices.SortFunc(d.rows, func(p, q keys.Row) int { return order(p.ID, q.ID) })
	for _, r := range d.rows {
		if len(out) < limit && order(r.ID, after) > 0 {
			out = append(out, r)
		}
	}
	return out, nil
}

func (d keyRows) Replace(context.Context, keys.ID, []keys.Row, []keys.Row) error {
	return errors.ErrUnsupported
}

func (d keyRows) Put(_ context.Context, _ keys.ID, rows []keys.Row) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range rows {
		d.rows = slices.DeleteFunc(d.rows, func(old keys.Row) bool { return old.ID == r.ID })
		d.rows = append(d.rows, r)
	}
	return nil
}

func (d keyRows) Delete(_ context.Context, _ keys.ID, ids []keys.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows = slices.DeleteFunc(d.rows, func(r keys.Row) bool { return slices.Contains(ids, r.ID) })
	return nil
}

// party is a party with its disk; start begins a process on it.
type party struct {
	t       *testing.T
	name    carnet.PartyID
	role    identity.Role
	disk    *disk
	table   *keys.Table
	now     time.Time
	courier Courier
	replyTo *ReplyTo

	*Registry
	watch *revocation.Watcher
	told  []Peering
}

func newParty(t *testing.T, name carnet.PartyID, role identity.Role) *party {
	t.Helper()
	p := &party{t: t, name: name, role: role, disk: &disk{docs: make(map[string]carnet.Document)}, now: time.Now().Truncate(time.Second)}
	kek, err := keys.CreateFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	if p.table, err = keys.Create(t.Context(), keys.Config{KEK: kek, Store: keyRows{p.disk}}); err != nil {
		t.Fatal(err)
	}
	if role != identity.Things {
		p.replyTo = &ReplyTo{URL: "https://" + string(name) + ":8443", Pin: carnet.FingerprintOf([]byte(name))}
	}
	p.start()
	return p
}

// start begins a process, as after a crash of the one before.
func (p *party) start() {
	p.t.Helper()
	w, err := revocation.New(p.t.Context(), revocation.Config{Store: p.disk, Stale: time.Hour})
	if err != nil {
		p.t.Fatal(err)
	}
	p.told, p.watch = nil, w
	p.Registry, err = New(p.t.Context(), Config{
		Party: p.name, Store: p.disk, Keys: p.table, Revocations: w, Shown: p, Courier: p.courier, ReplyTo: p.replyTo,
		State: func(s ledger.Statement) (ledger.Item, error) {
			s.Who = p.name
			text, err := s.Marshal()
			return ledger.Item{Statement: text}, err
		},
		Now: func() time.Time { return p.now }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.Subscribe(func(q Peering) { p.told = append(p.told, q) })
}

func (p *party) keyName(peer carnet.PartyID) carnet.PartyID {
	if p.role == identity.Things {
		return peer
	}
	return "self"
}

// Show implements Shown.
func (p *party) Show(ctx context.Context, peer carnet.PartyID) (identity.Peer, ed25519.PrivateKey, error) {
	name := map[bool]carnet.PartyID{true: "", false: p.name}[p.role == identity.Things]
	l, err := identity.Load(ctx, p.table, p.keyName(peer))
	if carnet.CodeOf(err) == carnet.NotFound {
		if err := identity.Destroy(ctx, p.table, p.keyName(peer)); err != nil {
			return identity.Peer{}, nil, err
		}
		l, err = identity.Make(ctx, p.table, p.keyName(peer), name, time.Now())
	}
	if err != nil {
		return identity.Peer{}, nil, err
	}
	shown := l.Show(p.role)
	switch p.role {
	case identity.World:
		health := carnet.Personal | carnet.Health
		shown.Link, shown.Purpose, shown.Sensitivity = "localhost:7443", "play", &health
		if p.name != "closed" {
			shown.R5 = "localhost:6443"
		}
	case identity.Depot:
		shown.R2, shown.Ledger = "https://localhost:9443", "vault+1+key"
	}
	return shown, l.Key, nil
}

// Forget implements Shown.
func (p *party) Forget(ctx context.Context, peer carnet.PartyID) error {
	if p.role != identity.Things {
		return nil
	}
	return identity.Destroy(ctx, p.table, peer)
}

func (p *party) state(name carnet.PartyID) State {
	q, err := p.Named(name)
	if err != nil {
		return Gone
	}
	return q.State
}

func (p *party) must(q Peering, err error) Peering {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return q
}

func (p *party) refuses(code carnet.Code, says string) func(Peering, error) {
	p.t.Helper()
	return func(q Peering, err error) {
		p.t.Helper()
		if carnet.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
			p.t.Errorf("%s: got %+v, %v, want %s and %q", p.name, q.State, err, code, says)
		}
	}
}

func playOffer() Offer {
	all := carnet.AllSensitive
	return Offer{Scope: []Scope{R1}, Purposes: []string{"play"}, Sensitivity: &all}
}

// meet makes two parties peers by hand, and returns the inviter's side.
func meet(inviter *party, calls carnet.PartyID, accepter *party, called carnet.PartyID, o Offer) Peering {
	inviter.t.Helper()
	ctx := inviter.t.Context()
	p := inviter.must(inviter.Invite(ctx, calls, o))
	q := accepter.must(accepter.Accept(ctx, called, p.Invitation))
	p = inviter.must(inviter.TakeAcceptance(ctx, calls, q.Acceptance))
	accepter.must(accepter.Compare(ctx, called, p.Terms.Words()))
	p = inviter.must(inviter.Compare(ctx, calls, q.Terms.Words()))
	accepter.must(accepter.TakeConfirmation(ctx, called, p.Confirmation))
	return p
}

// post carries acceptances to a party in this process.
type post struct{ to *party }

func (c post) Carry(ctx context.Context, to ReplyTo, id InvitationID, secret, acceptance string) (string, error) {
	if c.to.replyTo == nil || to != *c.to.replyTo {
		return "", errors.New("nobody is there")
	}
	return c.to.Answer(ctx, id, secret, acceptance)
}

// Every step is made by a process of its own, which ends right after it: rows P1
// and P3 to P6 of the design.
func TestPeersBecomeWhatTheyAreAcrossRestarts(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	hub.courier = post{arena}
	arena.must(arena.Invite(ctx, "watches", playOffer()))
	arena.start()
	p, err := arena.Named("watches")
	if err != nil || p.State != Invited || p.Invitation == "" {
		t.Fatalf("after a restart the inviter has %+v, %v", p, err)
	}
	hub.start()
	hub.must(hub.Accept(ctx, "gym", p.Invitation))
	hub.start()
	q, err := hub.Named("gym")
	if err != nil || q.State != Accepted {
		t.Fatalf("after a restart the accepter has %+v, %v", q, err)
	}
	if again := hub.must(hub.Accept(ctx, "gym", p.Invitation)); again.Acceptance != q.Acceptance {
		t.Error("accepting again makes another acceptance")
	}
	hub.tick(ctx) // the acceptance is posted, and the answer lost
	arena.start()
	hub.start()
	hub.tick(ctx)
	if arena.state("watches") != Answered || hub.state("gym") != Accepted {
		t.Fatalf("arena %s, hub %s", arena.state("watches"), hub.state("gym"))
	}
	a, _ := arena.Named("watches")
	arena.must(arena.Compare(ctx, "watches", strings.ToLower(q.Terms.Words())))
	arena.start()
	hub.tick(ctx)
	if arena.state("watches") != Active || hub.state("gym") != Accepted {
		t.Fatalf("without the accepter's words: arena %s, hub %s", arena.state("watches"), hub.state("gym"))
	}
	hub.start()
	hub.must(hub.Compare(ctx, "gym", a.Terms.Words()))
	if hub.state("gym") != Active {
		t.Fatalf("hub %s", hub.state("gym"))
	}
	hub.start()
	arena.start()
	peer, ok := arena.ByPin(q.Own().Pin, R1)
	if !ok || peer.Name != "watches" {
		t.Errorf("arena doesn't know its peer: %+v", peer)
	}
	if _, ok := arena.ByPin(q.Own().Pin, R5); ok {
		t.Error("the peer may do what isn't in its scope")
	}
	if _, ok := hub.ByPin(p.Terms.Inviter.Pin, R1); !ok {
		t.Error("hub doesn't know its peer")
	}
	if strings.Contains(string(arena.disk.docs["peering watches"].Body), "watches") {
		t.Error("the peering rests in the clear")
	}
	var kinds []ledger.Kind
	for _, item := range arena.disk.statements {
		s, err := ledger.ParseStatement(item.Statement)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, s.Kind)
	}
	if want := []ledger.Kind{ledger.PeerInvited, ledger.PeerAccepted, ledger.PeerActive}; !slices.Equal(kinds, want) {
		t.Errorf("arena stated %v, want %v", kinds, want)
	}
}

func TestAnEndIsToldBeforeTheCallReturns(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	p := meet(arena, "watches", hub, "gym", playOffer())
	pin := p.Terms.Accepter.Pin
	arena.told = nil
	for i, step := range []struct {
		do     func(context.Context, carnet.PartyID) (Peering, error)
		is     State
		known  bool
		number uint64
	}{
		{arena.Suspend, Suspended, false, 1},
		{arena.Suspend, Suspended, false, 1},
		{arena.Resume, Active, true, 1},
		{arena.Remove, Removed, false, 2},
		{arena.Remove, Removed, false, 2},
	} {
		arena.must(step.do(ctx, "watches"))
		_, known := arena.ByPin(pin, R1)
		if last := arena.told[len(arena.told)-1]; last.State != step.is || known != step.known || arena.cfg.Revocations.Number() != step.number {
			t.Errorf("step %d: told %s, known %v, number %d", i, last.State, known, arena.cfg.Revocations.Number())
		}
	}
	if len(arena.told) != 3 {
		t.Errorf("told %d times of 3 changes", len(arena.told))
	}
	arena.refuses(carnet.Conflict, "removed")(arena.Resume(ctx, "watches"))
	arena.refuses(carnet.Conflict, "take another name")(arena.Invite(ctx, "watches", playOffer()))
}

func TestAnEndThatIsNotStoredIsNone(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	p := meet(arena, "watches", hub, "gym", playOffer())
	arena.disk.fail = carnet.Errorf(carnet.NoSpace, "the disk is full")
	arena.refuses(carnet.NoSpace, "full")(arena.Suspend(ctx, "watches"))
	if _, ok := arena.ByPin(p.Terms.Accepter.Pin, R1); !ok {
		t.Error("a suspension that isn't durable counts")
	}
	arena.disk.fail = nil
	arena.must(arena.Suspend(ctx, "watches"))
	arena.start()
	if _, ok := arena.ByPin(p.Terms.Accepter.Pin, R1); ok {
		t.Error("a suspension is over after a restart")
	}
}

// Another process on the same store sees an end when it reads the number.
func TestAnEndIsSeenBeside(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	p := meet(arena, "watches", hub, "gym", playOffer())
	beside := *arena
	beside.start()
	arena.must(arena.Suspend(ctx, "watches"))
	beside.takeStored(ctx)
	if _, ok := beside.ByPin(p.Terms.Accepter.Pin, R1); ok || len(beside.told) != 1 || beside.told[0].State != Suspended {
		t.Errorf("beside: known %v, told %+v", ok, beside.told)
	}
}

// tick does what is due.
func (p *party) tick(ctx context.Context) {
	p.end(ctx)
	for _, q := range p.awaiting() {
		p.carry(ctx, q)
	}
}

func TestWordsThatDifferMakeNoPeer(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	p := arena.must(arena.Invite(ctx, "watches", playOffer()))
	arena.refuses(carnet.Conflict, "nobody has accepted")(arena.Compare(ctx, "watches", "ABCD"))
	q := hub.must(hub.Accept(ctx, "gym", p.Invitation))
	arena.must(arena.TakeAcceptance(ctx, "watches", q.Acceptance))
	words := []byte(q.Terms.Words())
	words[0] ^= 'A' ^ 'B'
	arena.refuses(carnet.Forbidden, "somebody is between you")(arena.Compare(ctx, "watches", string(words)))
	hub.refuses(carnet.Forbidden, "somebody is between you")(hub.Compare(ctx, "gym", string(words)))
	hub.refuses(carnet.Forbidden, "somebody is between you")(hub.Compare(ctx, "gym", ""))
	if arena.state("watches") != Answered || hub.state("gym") != Accepted {
		t.Errorf("arena %s, hub %s", arena.state("watches"), hub.state("gym"))
	}
}

func TestASecondAcceptanceIsRefusedAndShown(t *testing.T) {
	ctx := t.Context()
	arena, hub, thief := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things), newParty(t, "thief", identity.Things)
	p := arena.must(arena.Invite(ctx, "watches", playOffer()))
	q := hub.must(hub.Accept(ctx, "gym", p.Invitation))
	stolen := thief.must(thief.Accept(ctx, "gym", p.Invitation))
	if _, err := arena.Answer(ctx, p.Terms.Invitation, p.Secret, q.Acceptance); err != nil {
		t.Fatal(err)
	}
	if _, err := arena.Answer(ctx, p.Terms.Invitation, p.Secret, stolen.Acceptance); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the second acceptance: %v", err)
	}
	p, _ = arena.Named("watches")
	if p.State != Answered || p.Acceptance != q.Acceptance || p.Second != stolen.Terms.Words() {
		t.Errorf("after it: %s, second %q", p.State, p.Second)
	}
	if message, err := arena.Answer(ctx, p.Terms.Invitation, p.Secret, q.Acceptance); err != nil || message != "" {
		t.Errorf("the first again: %q, %v", message, err)
	}
	for name, secret := range map[string]string{"no secret": "", "another secret": newSecret(), "half a secret": p.Secret[:16]} {
		if _, err := arena.Answer(ctx, p.Terms.Invitation, secret, q.Acceptance); carnet.CodeOf(err) != carnet.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := arena.Confirmed(p.Terms.Invitation, secret); carnet.CodeOf(err) != carnet.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMessagesThatAreWrong(t *testing.T) {
	ctx := t.Context()
	arena, hub, other := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things), newParty(t, "other", identity.World)
	p := arena.must(arena.Invite(ctx, "watches", playOffer()))
	foreign := other.must(other.Invite(ctx, "watches", playOffer()))
	q := hub.must(hub.Accept(ctx, "gym", p.Invitation))
	flipped := func(message string) string {
		b := []byte(message)
		b[len(b)/2] ^= 1
		return string(b)
	}
	payload := func(message string) string {
		text, err := base64.RawURLEncoding.DecodeString(strings.Split(message, ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if !strings.Contains(payload(p.Invitation), p.Secret) || strings.Contains(payload(q.Acceptance), p.Secret) {
		t.Error("the secret is to be in the invitation, and nowhere else")
	}
	for name, message := range map[string]string{
		"empty": "", "nonsense": "x.y.z", "truncated": p.Invitation[:len(p.Invitation)-9], "forged": flipped(p.Invitation),
		"an acceptance": q.Acceptance, "too much": p.Invitation + strings.Repeat("A", identity.MaxMessage),
	} {
		if _, err := hub.Accept(ctx, "other", message); carnet.CodeOf(err) == "" || hub.state("other") != Gone {
			t.Errorf("an invitation that is %s: %v, %s", name, err, hub.state("other"))
		}
	}
	for name, message := range map[string]string{
		"empty": "", "truncated": q.Acceptance[:len(q.Acceptance)-9], "forged": flipped(q.Acceptance), "an invitation": p.Invitation,
		"of another invitation": hub.must(hub.Accept(ctx, "mall", foreign.Invitation)).Acceptance,
	} {
		if _, err := arena.TakeAcceptance(ctx, "watches", message); carnet.CodeOf(err) == "" || arena.state("watches") != Invited {
			t.Errorf("an acceptance that is %s: %v, %s", name, err, arena.state("watches"))
		}
	}
	arena.must(arena.TakeAcceptance(ctx, "watches", q.Acceptance))
	p = arena.must(arena.Compare(ctx, "watches", q.Terms.Words()))
	hub.must(hub.Compare(ctx, "gym", q.Terms.Words()))
	foreign = other.must(other.TakeAcceptance(ctx, "watches", hub.must(hub.Named("mall")).Acceptance))
	foreign = other.must(other.Compare(ctx, "watches", foreign.Terms.Words()))
	for name, message := range map[string]string{
		"empty": "", "truncated": p.Confirmation[:len(p.Confirmation)-9], "forged": flipped(p.Confirmation), "another world's": foreign.Confirmation,
		"an acceptance": q.Acceptance,
	} {
		if _, err := hub.TakeConfirmation(ctx, "gym", message); carnet.CodeOf(err) == "" || hub.state("gym") != Accepted {
			t.Errorf("a confirmation that is %s: %v, %s", name, err, hub.state("gym"))
		}
	}
	hub.must(hub.TakeConfirmation(ctx, "gym", p.Confirmation))
	hub.must(hub.TakeConfirmation(ctx, "gym", p.Confirmation))
	if hub.state("gym") != Active {
		t.Errorf("hub is %s", hub.state("gym"))
	}
}

func TestTimeEndsWhatIsOpen(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	o := playOffer()
	o.NotAfter = arena.now.Add(48 * time.Hour)
	late := arena.must(arena.Invite(ctx, "late", o))
	p := meet(arena, "watches", hub, "gym", o)
	pin := p.Terms.Accepter.Pin
	arena.now = arena.now.Add(25 * time.Hour)
	hub.now = arena.now
	hub.refuses(carnet.Forbidden, "ask arena for a new one")(hub.Accept(ctx, "other", late.Invitation))
	arena.tick(ctx)
	if arena.state("late") != Gone || arena.state("watches") != Active {
		t.Errorf("late %s, watches %s", arena.state("late"), arena.state("watches"))
	}
	arena.now = arena.now.Add(24 * time.Hour)
	hub.now = arena.now
	if _, ok := arena.ByPin(pin, R1); ok {
		t.Error("the terms are over, and the peer is let in before anybody noticed")
	}
	arena.tick(ctx)
	hub.tick(ctx)
	if arena.state("watches") != Over || arena.told[len(arena.told)-1].State != Over || arena.cfg.Revocations.Number() != 1 {
		t.Errorf("%s, told %+v, number %d", arena.state("watches"), arena.told, arena.cfg.Revocations.Number())
	}
	// The same peer may come again under its name, another may not.
	thief := newParty(t, "thief", identity.Things)
	thief.now = arena.now
	again := arena.must(arena.Invite(ctx, "watches", playOffer()))
	stolen := thief.must(thief.Accept(ctx, "gym", again.Invitation))
	arena.refuses(carnet.Conflict, "was another peer's name")(arena.TakeAcceptance(ctx, "watches", stolen.Acceptance))
	q := hub.must(hub.Accept(ctx, "gym", again.Invitation))
	again = arena.must(arena.TakeAcceptance(ctx, "watches", q.Acceptance))
	arena.must(arena.Compare(ctx, "watches", q.Terms.Words()))
	if _, ok := arena.ByPin(pin, R1); !ok || again.Terms.Accepter.Party != p.Terms.Accepter.Party {
		t.Error("the peer isn't who it was")
	}
}

func TestANewExchangeThatComesToNothingLeavesTheOldPeer(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	p := meet(arena, "watches", hub, "gym", playOffer())
	arena.must(arena.Invite(ctx, "watches", playOffer()))
	if _, ok := arena.ByPin(p.Terms.Accepter.Pin, R1); ok || arena.cfg.Revocations.Number() != 1 {
		t.Error("the old terms hold on beside the new invitation")
	}
	if made, ok := arena.must(arena.Named("watches")).Made(); !ok || made.Terms.Fingerprint() != p.Terms.Fingerprint() {
		t.Error("what was is forgotten")
	}
	arena.start()
	arena.must(arena.Remove(ctx, "watches"))
	if arena.state("watches") != Suspended {
		t.Errorf("given up, it is %s", arena.state("watches"))
	}
	arena.must(arena.Resume(ctx, "watches"))
	if _, ok := arena.ByPin(p.Terms.Accepter.Pin, R1); !ok {
		t.Error("the old peer isn't there again")
	}
}

// Row P8: a removal whose process ended before the keys were destroyed.
func TestKeysForARemovedPeerAreDestroyedAtTheStart(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	meet(arena, "watches", hub, "gym", playOffer())
	rows := slices.Clone(hub.disk.rows)
	hub.must(hub.Remove(ctx, "gym"))
	if _, err := identity.Load(ctx, hub.table, "gym"); carnet.CodeOf(err) != carnet.NotFound {
		t.Fatalf("the keys are there: %v", err)
	}
	hub.disk.rows = rows
	hub.start()
	if _, err := identity.Load(ctx, hub.table, "gym"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("after a start the keys are there: %v", err)
	}
}

// Row P2: half of the keys were made.
func TestHalfMadeKeysAreMadeAnew(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	if err := hub.table.Put(ctx, keys.Entry{ID: keys.ID{Kind: "alias", Name: "gym"}, Secret: []byte("p-half")}); err != nil {
		t.Fatal(err)
	}
	if p := meet(arena, "watches", hub, "gym", playOffer()); p.Terms.Accepter.Party == "p-half" {
		t.Error("half an identity was shown")
	}
}

func TestTermsThatCannotBe(t *testing.T) {
	ctx := t.Context()
	arena, hub, vault, closed := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things), newParty(t, "vault", identity.Depot), newParty(t, "closed", identity.World)
	public := carnet.Public
	with := func(change func(*Offer)) Offer {
		o := playOffer()
		change(&o)
		return o
	}
	for name, c := range map[string]struct {
		by   *party
		o    Offer
		code carnet.Code
	}{
		"no scope":                {arena, with(func(o *Offer) { o.Scope = nil }), carnet.Malformed},
		"an unknown scope":        {arena, with(func(o *Offer) { o.Scope = []Scope{"r9"} }), carnet.Malformed},
		"no purpose":              {arena, with(func(o *Offer) { o.Purposes = nil }), carnet.Malformed},
		"no sensitivity":          {arena, with(func(o *Offer) { o.Sensitivity = nil }), carnet.Malformed},
		"a purpose not its own":   {arena, with(func(o *Offer) { o.Purposes = []string{"care"} }), carnet.Forbidden},
		"a purpose that is none":  {hub, with(func(o *Offer) { o.Purposes = []string{"Play!"} }), carnet.Malformed},
		"a place that isn't said": {arena, with(func(o *Offer) { o.Residency = []string{"eu"} }), carnet.Forbidden},
		"three years":             {arena, with(func(o *Offer) { o.NotAfter = arena.now.Add(3 * 365 * 24 * time.Hour) }), carnet.Malformed},
		"the past":                {arena, with(func(o *Offer) { o.NotAfter = arena.now.Add(-time.Hour) }), carnet.Forbidden},
		"open for a month":        {arena, with(func(o *Offer) { o.Until = arena.now.Add(30 * 24 * time.Hour) }), carnet.Malformed},
		"r1 of a depot":           {vault, playOffer(), carnet.Malformed},
		"r5 of a things agent":    {hub, with(func(o *Offer) { o.Scope = []Scope{R5} }), carnet.Malformed},
		"r5 without a listener":   {closed, with(func(o *Offer) { o.Scope = []Scope{R5} }), carnet.Forbidden},
		"a depot that reads":      {vault, Offer{Scope: []Scope{R2}, Sensitivity: &public}, carnet.Malformed},
	} {
		if _, err := c.by.Invite(ctx, "peer", c.o); carnet.CodeOf(err) != c.code || c.by.state("peer") != Gone {
			t.Errorf("%s: %v, %s; want %s", name, err, c.by.state("peer"), c.code)
		}
	}
	r5 := playOffer()
	r5.Scope = []Scope{R5}
	closed.refuses(carnet.Forbidden, "listen.r5")(closed.Accept(ctx, "arena", arena.must(arena.Invite(ctx, "closed", r5)).Invitation))
	other := newParty(t, "other", identity.World)
	other.refuses(carnet.Malformed, "not between what the two parties are")(other.Accept(ctx, "arena", arena.must(arena.Invite(ctx, "agent", playOffer())).Invitation))
	arena.refuses(carnet.Forbidden, "own")(arena.Accept(ctx, "me", arena.must(arena.Invite(ctx, "mirror", r5)).Invitation))
}

func TestAPeerIsHadOnce(t *testing.T) {
	ctx := t.Context()
	arena, hub, vault, crypt := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things), newParty(t, "vault", identity.Depot), newParty(t, "crypt", identity.Depot)
	meet(arena, "watches", hub, "gym", playOffer())
	hub.refuses(carnet.Conflict, "as gym")(hub.Accept(ctx, "gym2", arena.must(arena.Invite(ctx, "again", playOffer())).Invitation))
	arena.refuses(carnet.Conflict, "already: invited")(arena.Invite(ctx, "again", playOffer()))
	r2 := Offer{Scope: []Scope{R2}}
	meet(vault, "watches", hub, "vault", r2)
	hub.refuses(carnet.Conflict, "a depot already")(hub.Accept(ctx, "crypt", crypt.must(crypt.Invite(ctx, "watches", r2)).Invitation))
	hub.must(hub.Remove(ctx, "vault"))
	hub.must(hub.Accept(ctx, "crypt", crypt.must(crypt.Invite(ctx, "watches2", r2)).Invitation))
}

// A peer is had once also while an invitation under its name is open, which doesn't say
// yet who accepts it.
func TestAPeerThatIsInvitedAnewIsHadOnce(t *testing.T) {
	ctx := t.Context()
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	meet(arena, "watches", hub, "gym", playOffer())
	arena.must(arena.Invite(ctx, "watches", playOffer()))
	other := arena.must(arena.Invite(ctx, "watches2", playOffer()))
	accepted := hub.must(hub.Accept(ctx, "gym", other.Invitation))
	arena.refuses(carnet.Conflict, "as watches")(arena.TakeAcceptance(ctx, "watches2", accepted.Acceptance))

	// Where an older program had let it be, it isn't resumed beside the other.
	arena.must(arena.Remove(ctx, "watches"))
	twin := arena.peerings["watches"]
	twin.Name, twin.State = "twin", Active
	arena.peerings["twin"] = twin
	arena.refuses(carnet.Conflict, "as twin")(arena.Resume(ctx, "watches"))
}

// Two peers of one things agent compare what they were shown.
func TestTwoPeersOfAnAgentFindNothingInCommon(t *testing.T) {
	arena, clinic, hub := newParty(t, "arena", identity.World), newParty(t, "clinic", identity.World), newParty(t, "hub", identity.Things)
	p, q := meet(arena, "one", hub, "arena", playOffer()), meet(clinic, "other", hub, "clinic", playOffer())
	a, b := p.Terms.Accepter, q.Terms.Accepter
	if a.Party == b.Party || a.Pin == b.Pin || a.Key.Equal(b.Key) || p.Terms.Invitation == q.Terms.Invitation {
		t.Errorf("%+v and %+v", a, b)
	}
	if i := hub.must(hub.Invite(t.Context(), "mall", playOffer())); i.ReplyTo != nil {
		t.Error("an agent's invitation says where it listens")
	}
}

// Terms bound what a world may be given.
func TestTermsBoundClearance(t *testing.T) {
	arena, hub := newParty(t, "arena", identity.World), newParty(t, "hub", identity.Things)
	o := playOffer()
	personal := carnet.Personal | carnet.Location
	o.Sensitivity = &personal
	meet(arena, "watches", hub, "gym", o)
	got := hub.must(hub.Named("gym")).Clearance()
	if want := (carnet.Clearance{Sensitivity: carnet.Personal, Purposes: "play"}); got != want {
		t.Errorf("hub may give %+v, want %+v", got, want)
	}
	if got := arena.must(arena.Named("watches")).Clearance(); got != (carnet.Clearance{}) {
		t.Errorf("arena may give a things agent %+v", got)
	}
}

// Two people compare the words: they must stand for everything in the terms.
func TestWordsStandForTheWholeTerms(t *testing.T) {
	meant, _, _ := searchTerms()
	meant.Residency = []string{"eu"}
	seen := make(map[string]string)
	note := func(what string) {
		words := meant.Words()
		if !regexp.MustCompile(`^([A-Z2-7]{4} ){5}[A-Z2-7]{4}$`).MatchString(words) {
			t.Fatalf("%q", words)
		}
		if other, ok := seen[words]; ok {
			t.Errorf("%s has the words of %s", what, other)
		}
		seen[words] = what
	}
	note("unchanged")
	for _, of := range []any{&meant, &meant.Inviter, meant.Accepter} {
		fields := reflect.ValueOf(of).Elem()
		for i := range fields.NumField() {
			old := reflect.New(fields.Field(i).Type()).Elem()
			old.Set(fields.Field(i))
			if old.IsZero() {
				continue
			}
			fields.Field(i).SetZero()
			note(fmt.Sprintf("%T without %s", of, fields.Type().Field(i).Name))
			fields.Field(i).Set(old)
		}
	}
}
