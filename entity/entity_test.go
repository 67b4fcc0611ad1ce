package entity

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/policy"
	"carnet/revocation"
)

// memory is a world's store, for several processes.
type memory struct {
	mu   sync.Mutex
	docs map[string]carnet.Document
	fail error
	page error // of the next page alone
	said []ledger.Item
	put  func() // called after a Put
}

func (s *rows) Replace(context.Context, keys.ID, []keys.Row, []keys.Row) error {
	return errors.ErrUnsupported
}

func (m *memory) Put(_ context.Context, docs []carnet.Document, said []ledger.Item) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, d := range docs {
		if m.docs[d.Kind+" "+d.ID].Version+1 != d.Version {
			return carnet.Errorf(carnet.Conflict, "%s %q has another version", d.Kind, d.ID)
		}
	}
	for _, d := range docs {
		if m.docs[d.Kind+" "+d.ID] = d; d.Body == nil {
			delete(m.docs, d.Kind+" "+d.ID)
		}
	}
	m.said = append(m.said, said...)
	if m.put != nil {
		m.put()
	}
	return nil
}

func (m *memory) Document(_ context.Context, kind, id string) (carnet.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.docs[kind+" "+id]
	if m.fail != nil {
		return d, m.fail
	}
	if !ok {
		return d, carnet.Errorf(carnet.NotFound, "there is no %s %q", kind, id)
	}
	return d, nil
}

func (m *memory) DocumentPage(ctx context.Context, kind, after string, limit int) (page []carnet.Document, _ error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.docs {
		if d.Kind == kind && d.ID > after {
			page = append(page, d)
		}
	}
	slices.SortFunc(page, func(a, b carnet.Document) int { return strings.Compare(a.ID, b.ID) })
	err := cmp.Or(m.page, m.fail)
	m.page = nil
	return page[:min(limit, len(page))], err
}

func (m *memory) pageFails() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.page != nil
}

func (m *memory) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// rows keeps a key table in memory.
type rows struct {
	mu  sync.Mutex
	all map[keys.ID]keys.Row
}

func (s *rows) Get(_ context.Context, id keys.ID) (keys.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.all[id]; ok {
		return r, nil
	}
	return keys.Row{}, carnet.Errorf(carnet.NotFound, "there is no key %s", id)
}

func (s *rows) Page(context.Context, keys.ID, int) (page []keys.Row, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.ID.Kind == "table" {
			page = append(page, r)
		}
	}
	return page, nil
}

func (s *rows) Put(_ context.Context, _ keys.ID, more []keys.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range more {
		s.all[r.ID] = r
	}
	return nil
}

func (s *rows) Delete(context.Context, keys.ID, []keys.ID) error { return nil }

// watch is what the one avatar has shown.
type watch struct {
	some, all bool            // of it may be passed on
	inward    map[string]bool // these properties may not
	bounds    *atomic.Pointer[policy.Bounds]
}

func (w watch) Bounds(carnet.AvatarID) policy.Bounds {
	if w.bounds == nil || w.bounds.Load() == nil {
		return policy.Bounds{}
	}
	return *w.bounds.Load()
}

var avatarID = carnet.AvatarID{7}

func (w watch) Onward(carnet.AvatarID) (some, all bool) { return w.some, w.all }

func (w watch) OnwardOf(_ context.Context, _ carnet.AvatarID, property string) (bool, error) {
	return w.some && !w.inward[property], nil
}

func (watch) Reaches(cursor, other string) bool { return cursor >= other }

func (watch) Properties(id carnet.AvatarID) ([]policy.Property, error) {
	if id != avatarID {
		return nil, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id)
	}
	p := func(name, unit string, s carnet.Sensitivity) policy.Property {
		return policy.Property{Name: name, Unit: unit, Kind: carnet.Number, Label: carnet.Label{Sensitivity: s}, Retention: carnet.Day}
	}
	return []policy.Property{p("heart_rate", "beat/min", carnet.Personal), p("stress", "", carnet.Personal|carnet.Health), p("temperature", "Cel", carnet.Public)}, nil
}

// process is one process on a store.
type process struct {
	*Agent
	revocations *revocation.Watcher
	bounds      *atomic.Pointer[policy.Bounds] // of the one avatar
	run         func(context.Context)
}

// worldKey is the key of another world.
func worldKey(name carnet.PartyID) string {
	return identity.DID(ed25519.NewKeyFromSeed([]byte((string(name) + strings.Repeat(".", 32))[:32])).Public().(ed25519.PublicKey))
}

func start(t *testing.T, m *memory, table *keys.Table) process {
	t.Helper()
	w, err := revocation.New(t.Context(), revocation.Config{Store: m, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	judge, err := policy.NewJudge(nil)
	if err != nil {
		t.Fatal(err)
	}
	bounds := new(atomic.Pointer[policy.Bounds])
	a, err := New(t.Context(), Config{
		Party: "arena", Store: m, Keys: table, Avatars: watch{some: true, all: true, bounds: bounds}, World: worldKey, Judge: judge, Revocations: w, Recorded: func() {}, Log: slog.New(slog.DiscardHandler),
		State: func(s ledger.Statement) (ledger.Item, error) {
			s.Who = "arena"
			b, err := s.Marshal()
			return ledger.Item{Statement: b}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return process{a, w, bounds, func(ctx context.Context) { go w.Run(ctx); go a.Run(ctx) }}
}

func fresh(t *testing.T) (*memory, *keys.Table) {
	t.Helper()
	kek, err := keys.CreateFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := keys.Create(t.Context(), keys.Config{KEK: kek, Store: &rows{all: map[keys.ID]keys.Row{}}})
	if err != nil {
		t.Fatal(err)
	}
	return &memory{docs: make(map[string]carnet.Document)}, table
}

func coach(t *testing.T, a process) Principal {
	t.Helper()
	p, token, err := a.AddPrincipal(t.Context(), "ops", NewPrincipal{Kind: KindApplication, Name: "Coach", Purpose: "coaching", Clearance: Clearance{Sensitivity: carnet.Personal}})
	if err != nil {
		t.Fatal(err)
	}
	if who, ok := a.Authenticate(token); !ok || who != (policy.Principal{Kind: policy.Application, Name: p.ID}) {
		t.Fatalf("its token is %+v, %v", who, ok)
	}
	if _, ok := a.Authenticate(token[:len(token)-1]); ok {
		t.Fatal("a shorter token is taken")
	}
	return p
}

func offer(t *testing.T, p Principal, text string) Terms {
	t.Helper()
	v, err := policy.ParseView([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Terms{Avatar: avatarID, To: To{Application: p.ID}, Actions: []identity.Action{identity.ActionSubscribe}, View: v, Purpose: "coaching", Expires: time.Now().Add(time.Hour)}
}

func give(t *testing.T, a process, terms Terms) Grant {
	t.Helper()
	r, err := a.Assess(t.Context(), terms)
	if err != nil {
		t.Fatal(err)
	}
	g, err := a.Give(t.Context(), "ops", terms, r.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Who leaves once a change is stored doesn't undo it: it is in force, and answered so.
func TestAChangeThatIsStoredStands(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	terms := offer(t, coach(t, a), `{"properties":{"heart_rate":{}}}`)
	r, err := a.Assess(t.Context(), terms)
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	m.put = leave
	g, err := a.Give(ctx, "ops", terms, r.Fingerprint)
	if err != nil {
		t.Fatalf("a grant that is stored: %v", err)
	}
	if g, err := a.Grant(g.ID); err != nil || !g.holds(time.Now()) {
		t.Errorf("the grant: %+v, %v", g, err)
	}
	ctx, m.put = context.WithCancel(t.Context())
	defer m.put()
	if _, err := a.Revoke(ctx, "ops", g.ID); err != nil {
		t.Errorf("a revocation that is stored: %v", err)
	}
	if g, err := a.Grant(g.ID); err != nil || g.Revoked == nil {
		t.Errorf("the revoked grant: %+v, %v", g, err)
	}
}

// A revocation ends what lives by the grant: in its own process before it
// returns, and within 250 ms in another on the same store. 10,000 at once.
func TestARevocationEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, table := fresh(t)
		one, two := start(t, m, table), start(t, m, table)
		ctx, stop := context.WithCancel(t.Context())
		one.run(ctx)
		two.run(ctx)
		g := give(t, one, offer(t, coach(t, one), `{"properties":{"heart_rate":{}}}`))
		time.Sleep(200 * time.Millisecond)
		var here, there int
		var mu sync.Mutex
		count := func(n *int) func() { return func() { mu.Lock(); *n++; mu.Unlock() } }
		for range 10_000 {
			for a, n := range map[*Agent]*int{one.Agent: &here, two.Agent: &there} {
				if _, err := a.Hold(g.ID, count(n)); err != nil {
					t.Fatal(err)
				}
			}
		}
		release, err := one.Hold(g.ID, func() { t.Error("what was released is ended") })
		if err != nil {
			t.Fatal(err)
		}
		release()
		if _, err := one.Revoke(t.Context(), "ops", g.ID); err != nil || here != 10_000 {
			t.Errorf("revoked: %v, %d ended here", err, here)
		}
		time.Sleep(250 * time.Millisecond)
		mu.Lock()
		if there != 10_000 {
			t.Errorf("%d ended in the other process", there)
		}
		mu.Unlock()
		for _, a := range []process{one, two} {
			if _, err := a.Hold(g.ID, func() {}); carnet.CodeOf(err) != carnet.Forbidden {
				t.Errorf("it is held anew: %v", err)
			}
			if _, err := a.Holds(g.ID, 1); carnet.CodeOf(err) != carnet.Forbidden {
				t.Errorf("it holds: %v", err)
			}
		}
		if again, err := two.Revoke(t.Context(), "ops", g.ID); err != nil || again.Version != 2 {
			t.Errorf("revoked again: %+v, %v", again, err)
		}
		stop()
	})
}

func TestAGrantEndsByItselfAndWithItsReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, table := fresh(t)
		a := start(t, m, table)
		ctx, stop := context.WithCancel(t.Context())
		a.run(ctx)
		p := coach(t, a)
		var ended atomic.Int32
		g := give(t, a, offer(t, p, `{"properties":{"heart_rate":{}}}`))
		if _, err := a.Hold(g.ID, func() { ended.Add(1) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		if synctest.Wait(); ended.Load() != 0 {
			t.Error("ended before its time")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); ended.Load() != 1 {
			t.Error("not ended at its time")
		}
		g = give(t, a, offer(t, p, `{"properties":{"heart_rate":{}}}`))
		if _, err := a.Hold(g.ID, func() { ended.Add(1) }); err != nil {
			t.Fatal(err)
		}
		if _, err := a.RemovePrincipal(t.Context(), p.ID); err != nil || ended.Load() != 2 {
			t.Errorf("its receiver is removed: %v, %d ended", err, ended.Load())
		}
		stop()
	})
}

// A process that couldn't read what another has revoked refuses, and reads again: the
// number doesn't change for it a second time.
func TestARevocationThatCouldNotBeReadIsHeardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, table := fresh(t)
		one := start(t, m, table)
		g := give(t, one, offer(t, coach(t, one), `{"properties":{"heart_rate":{}}}`))
		two := start(t, m, table)
		ctx, stop := context.WithCancel(t.Context())
		two.run(ctx)
		synctest.Wait()
		if _, err := one.Revoke(t.Context(), "ops", g.ID); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.page = carnet.Errorf(carnet.Unavailable, "the connection broke")
		m.mu.Unlock()
		for m.pageFails() {
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if _, err := two.Holds(g.ID, 1); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("while it can't be read the grant is answered with %v", err)
		}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if _, err := two.Holds(g.ID, 1); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("after that: %v", err)
		}
		stop()
	})
}

// When the store doesn't answer nobody can tell what was revoked.
func TestASilentStoreEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, table := fresh(t)
		a := start(t, m, table)
		ctx, stop := context.WithCancel(t.Context())
		a.run(ctx)
		g := give(t, a, offer(t, coach(t, a), `{"properties":{"heart_rate":{}}}`))
		ended := false
		if _, err := a.Hold(g.ID, func() { ended = true }); err != nil {
			t.Fatal(err)
		}
		m.set(carnet.Errorf(carnet.Unavailable, "away"))
		time.Sleep(1300 * time.Millisecond)
		synctest.Wait()
		if !ended {
			t.Error("the subscription goes on")
		}
		if _, err := a.Know(policy.Principal{Kind: policy.Application, Name: g.To.Application}, "watch-avatar", avatarID); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("it is known: %v", err)
		}
		m.set(nil)
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if _, err := a.Hold(g.ID, func() {}); err != nil {
			t.Errorf("once the store answers: %v", err)
		}
		stop()
	})
}

// An assessment says what matches, converts, is lost, and isn't cleared; a grant
// is given only as it was read.
func TestAssessment(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	terms := offer(t, coach(t, a), `{"properties":{"heart_rate":{"round":5,"rate":"10s"},"stress":{},"mood":{}}}`)
	terms.Units = map[string]string{"heart_rate": "Hz"}
	r, err := a.Assess(t.Context(), terms)
	if err != nil || r.Shown != 1 || r.To != "the application Coach" {
		t.Fatalf("%+v, %v", r, err)
	}
	var said []string
	for _, l := range r.Lines {
		said = append(said, l.Kind+" "+l.Text)
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{"matches heart_rate is shown in beat/min", "lost heart_rate: only the nearest multiple of 5 in beat/min", "lost heart_rate: at most one measurement in 10s",
		"converts heart_rate is in beat/min; for Hz the receiver takes v / 60", "cleared for personal", "lost temperature is withheld", "absent the avatar has shown no mood"} {
		if !strings.Contains(all, want) {
			t.Errorf("it doesn't say %q:\n%s", want, all)
		}
	}
	changed := terms
	changed.Onward = true
	if _, err := a.Give(t.Context(), "ops", changed, r.Fingerprint); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("other terms than were read: %v", err)
	}
	g, err := a.Give(t.Context(), "ops", terms, r.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	// A process that starts later has it, too.
	again, err := start(t, m, table).Grant(g.ID)
	if err != nil || again.Purpose != "coaching" || again.Version != 1 {
		t.Errorf("%+v, %v", again, err)
	}
	for _, d := range m.docs {
		if strings.Contains(string(d.Body), "coaching") {
			t.Errorf("%s %s shows what it says", d.Kind, d.ID)
		}
	}
}

// What comes by a share that doesn't let it be passed on is counted for nothing.
func TestAssessmentOfWhatIsntPassedOn(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	terms := offer(t, coach(t, a), `{"properties":{"heart_rate":{}}}`)
	for _, of := range []watch{{some: true, inward: map[string]bool{"heart_rate": true}}, {}} {
		a.cfg.Avatars = of
		r, err := a.Assess(t.Context(), terms)
		if err != nil || r.Shown != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		if !slices.ContainsFunc(r.Lines, func(l Line) bool {
			return l.Kind == Denied && l.Property == "heart_rate" && strings.Contains(l.Text, "by a share")
		}) || slices.ContainsFunc(r.Lines, func(l Line) bool { return l.Kind == Matches }) {
			t.Errorf("it says %+v", r.Lines)
		}
	}
}

func TestTermsThatCantBe(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	p := coach(t, a)
	for name, c := range map[string]struct {
		change func(*Terms)
		code   carnet.Code
	}{
		"no receiver":           {func(t *Terms) { t.To = To{} }, carnet.Malformed},
		"two receivers":         {func(t *Terms) { t.To.Avatar = avatarID.String() }, carnet.Malformed},
		"a did that is none":    {func(t *Terms) { t.To = To{Platform: "citadel", DID: "did:web:x"} }, carnet.Malformed},
		"an unknown receiver":   {func(t *Terms) { t.To.Application = "nobody" }, carnet.NotFound},
		"no action":             {func(t *Terms) { t.Actions = nil }, carnet.Malformed},
		"an action twice":       {func(t *Terms) { t.Actions = []identity.Action{"read", "read"} }, carnet.Malformed},
		"an unknown action":     {func(t *Terms) { t.Actions = []identity.Action{"write"} }, carnet.Malformed},
		"move to an app":        {func(t *Terms) { t.Actions = []identity.Action{"move"} }, carnet.Malformed},
		"an empty view":         {func(t *Terms) { t.View.Properties = nil }, carnet.Malformed},
		"where it is stored":    {func(t *Terms) { t.View.Store = "world" }, carnet.Malformed},
		"another purpose":       {func(t *Terms) { t.Purpose = "ads" }, carnet.Forbidden},
		"a purpose of two":      {func(t *Terms) { t.Purpose = "coaching and ads" }, carnet.Malformed},
		"over before it begins": {func(t *Terms) { t.Expires = time.Now().Add(-time.Second) }, carnet.Malformed},
		"for ever":              {func(t *Terms) { t.Expires = time.Now().Add(400 * 24 * time.Hour) }, carnet.Malformed},
		"an unknown avatar":     {func(t *Terms) { t.Avatar = carnet.AvatarID{1} }, carnet.NotFound},
	} {
		terms := offer(t, p, `{"properties":{"heart_rate":{}}}`)
		c.change(&terms)
		if _, err := a.Assess(t.Context(), terms); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		if _, err := a.Give(t.Context(), "ops", terms, fmt.Sprint(64)); carnet.CodeOf(err) != c.code {
			t.Errorf("%s is given: %v", name, err)
		}
	}
	if n := len(a.Grants(nil)); n != 0 {
		t.Errorf("%d grants are there", n)
	}
}

// No label above the clearance comes through, whatever the view names and the
// avatar's description says; each batch is shown by its own.
func TestLabelsAreHeldBelowTheView(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	g := give(t, a, offer(t, coach(t, a), `{"properties":{"heart_rate":{},"stress":{}}}`))
	l, err := a.Lens(g.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	one := func() []carnet.Measurement {
		return []carnet.Measurement{{Name: "heart_rate", Unit: "beat/min", Time: 1, Value: carnet.Float(70)}, {Name: "stress", Time: 1, Value: carnet.Float(3)}}
	}
	for _, c := range []struct {
		label carnet.Label
		want  int
	}{
		{carnet.Label{Sensitivity: carnet.Personal}, 2},
		{carnet.Label{Sensitivity: carnet.Personal | carnet.Health}, 0},
		{carnet.Label{Sensitivity: carnet.Personal | carnet.Location}, 0},
		{carnet.Label{Purposes: "ads"}, 0},
	} {
		if ms := l.Live(policy.Class{Label: c.label, Retention: carnet.Day}, one()); len(ms) != c.want {
			t.Errorf("labelled %+v it shows %+v", c.label, ms)
		}
	}
}

// TestGrantsThatEndedUseNoPlaces: whoever gives and revokes again and again leaves
// as many behind as are kept of one, and everybody can give on.
func TestGrantsThatEndedUseNoPlaces(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	terms := offer(t, coach(t, a), `{"properties": {"temperature": {}}}`)
	now := a.cfg.Now()
	a.mu.Lock()
	for n := range maxGrants { // as though they had been given, and revoked a moment ago
		g := &Grant{ID: fmt.Sprintf("g%06d", n), Version: 2, Terms: terms, By: "mallory", Revoked: &now}
		a.grants[g.ID] = g
	}
	a.mu.Unlock()
	if all, of, _ := a.inForce(now, "mallory", terms.To); all != 0 || of != 0 {
		t.Errorf("%d are in force, %d of mallory's", all, of)
	}
	if gone := a.ended(now, "ops"); len(gone) != 0 {
		t.Errorf("%d are deleted when somebody else gives one", len(gone))
	}
	if gone := a.ended(now, "mallory"); len(gone) != clearEnded {
		t.Errorf("%d are deleted when mallory gives one, want %d", len(gone), clearEnded)
	}
	if gone := a.ended(now.Add(keepEnded+time.Minute), "ops"); len(gone) != clearEnded {
		t.Errorf("%d are deleted after their time, want %d", len(gone), clearEnded)
	}
	give(t, a, terms)
	b := start(t, m, table)
	old := give(t, b, terms)
	if _, err := b.Revoke(t.Context(), "ops", old.ID); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	long := now.Add(-keepEnded - time.Hour)
	b.grants[old.ID].Revoked = &long
	b.mu.Unlock()
	give(t, b, terms)
	if _, err := start(t, m, table).Grant(old.ID); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the old one is still there: %v", err)
	}
}

// slowly is an avatar of which it takes long to say what it has shown.
type slowly struct {
	watch
	asked, answer chan struct{}
}

func (s slowly) Properties(id carnet.AvatarID) ([]policy.Property, error) {
	s.asked <- struct{}{}
	<-s.answer
	return s.watch.Properties(id)
}

// A grant that is being given holds no revocation up, however long its assessment takes; and
// who would receive it is looked at once more then.
func TestAGrantThatIsAssessedHoldsNothingUp(t *testing.T) {
	m, table := fresh(t)
	a := start(t, m, table)
	p := coach(t, a)
	held := give(t, a, offer(t, p, `{"properties":{"heart_rate":{}}}`))
	terms := offer(t, p, `{"properties":{"stress":{}}}`)
	report, err := a.Assess(t.Context(), terms)
	if err != nil {
		t.Fatal(err)
	}
	slow := slowly{watch{some: true, all: true}, make(chan struct{}), make(chan struct{})}
	a.cfg.Avatars = slow
	given := make(chan error)
	go func() {
		_, err := a.Give(t.Context(), "ops", terms, report.Fingerprint)
		given <- err
	}()
	<-slow.asked
	revoked := make(chan error, 1)
	go func() {
		_, err := a.Revoke(t.Context(), "ops", held.ID)
		if err == nil {
			_, err = a.RemovePrincipal(t.Context(), p.ID)
		}
		revoked <- err
	}()
	select {
	case err := <-revoked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a grant isn't revoked while another is assessed")
	}
	close(slow.answer)
	if err := <-given; carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a grant to who was removed meanwhile: %v", err)
	}
}
