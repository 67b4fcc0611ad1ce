package mandate_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/mandate"
	"carnet/revocation"
)

// memory is a world's store: what is put in it stays when a book goes.
type memory struct {
	mu     sync.Mutex
	docs   map[string]carnet.Document
	stated int
	fail   error // of the next puts
	lost   bool  // the next put is stored, and its answer lost
	page   int   // so many of the next pages fail
	keys   map[keys.ID]keys.Row
}

func newMemory() *memory {
	return &memory{docs: make(map[string]carnet.Document), keys: make(map[keys.ID]keys.Row)}
}

func (r rows) Replace(context.Context, keys.ID, []keys.Row, []keys.Row) error {
	return errors.ErrUnsupported
}

func (m *memory) Put(_ context.Context, docs []carnet.Document, items []ledger.Item) error {
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
		if d.Body == nil {
			delete(m.docs, d.Kind+" "+d.ID)
		} else {
			m.docs[d.Kind+" "+d.ID] = d
		}
	}
	m.stated += len(items)
	if m.lost {
		m.lost = false
		return errors.New("the process died here")
	}
	return nil
}

func (m *memory) Document(_ context.Context, kind, id string) (carnet.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, ok := m.docs[kind+" "+id]; ok {
		return d, nil
	}
	return carnet.Document{}, carnet.Errorf(carnet.NotFound, "there is no %s %q", kind, id)
}

func (m *memory) DocumentPage(_ context.Context, kind, after string, limit int) (page []carnet.Document, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.page > 0 {
		m.page--
		return nil, carnet.Errorf(carnet.Unavailable, "the connection broke")
	}
	for _, d := range m.docs {
		if d.Kind == kind && d.ID > after {
			page = append(page, d)
		}
	}
	slices.SortFunc(page, func(a, b carnet.Document) int { return cmp.Compare(a.ID, b.ID) })
	return page[:min(limit, len(page))], nil
}

func (m *memory) count(kind string) (n int) {
	page, _ := m.DocumentPage(context.Background(), kind, "", 1<<20)
	return len(page)
}

// rows is the store of the key table.
type rows struct{ *memory }

func (r rows) Get(_ context.Context, id keys.ID) (keys.Row, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if row, ok := r.keys[id]; ok {
		return row, nil
	}
	return keys.Row{}, carnet.Errorf(carnet.NotFound, "there is no key %s", id)
}

func (r rows) Page(_ context.Context, after keys.ID, limit int) (page []keys.Row, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	order := func(a, b keys.ID) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) }
	for _, id := range slices.SortedFunc(maps.Keys(r.keys), order) {
		if order(id, after) > 0 && len(page) < limit {
			page = append(page, r.keys[id])
		}
	}
	return page, nil
}

func (r rows) Put(_ context.Context, _ keys.ID, all []keys.Row) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range all {
		r.keys[row.ID] = row
	}
	return nil
}

func (r rows) Delete(_ context.Context, _ keys.ID, ids []keys.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		delete(r.keys, id)
	}
	return nil
}

func key(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return ed25519.NewKeyFromSeed(seed)
}

func public(n byte) ed25519.PublicKey { return key(n).Public().(ed25519.PublicKey) }

// The avatars of the world under test.
var (
	owned   = carnet.AvatarID{1} // its owner's key is key(1), its own key(11)
	others  = carnet.AvatarID{2} // key(2), key(12)
	unowned = carnet.AvatarID{3} // none, key(13)
)

type avatars struct{}

func (avatars) Owner(id carnet.AvatarID) (ed25519.PublicKey, error) {
	if id == owned || id == others {
		return public(id[0]), nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "no owner's key is pinned with %s", id)
}

func (avatars) PublicKey(id carnet.AvatarID) (ed25519.PublicKey, error) {
	if id[0] >= 1 && id[0] <= 3 {
		return public(10 + id[0]), nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id)
}

// world is one process on a store.
type world struct {
	*mandate.Book
	t        *testing.T
	store    *memory
	watch    *revocation.Watcher
	now      time.Time
	recorded int
	table    *keys.Table
}

func begin(t *testing.T, store *memory) *world {
	t.Helper()
	w := &world{t: t, store: store, now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	var err error
	if w.watch, err = revocation.New(t.Context(), revocation.Config{Store: store}); err != nil {
		t.Fatal(err)
	}
	kek, err := keys.CreateFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	if w.table, err = keys.Create(t.Context(), keys.Config{KEK: kek, Store: rows{store}}); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	return w
}

// Withdrawn reports whether an owner has withdrawn a mandate, as far as can be told.
func (w *world) Withdrawn(owner ed25519.PublicKey, id string) bool {
	return carnet.CodeOf(w.Stands(owner, id)) == carnet.Unauthenticated
}

// reopen is the next start of the process.
func (w *world) reopen() {
	w.t.Helper()
	var err error
	if w.Book, err = w.open(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open() (*mandate.Book, error) {
	return mandate.New(w.t.Context(), mandate.Config{
		Party: "arena", Store: w.store, Keys: w.table, Avatars: avatars{}, Revocations: w.watch,
		Platform: func(to carnet.PartyID) (ed25519.PublicKey, error) {
			if to != "citadel" {
				return nil, carnet.Errorf(carnet.NotFound, "%s is no peer", to)
			}
			return public(20), nil
		},
		State: func(s ledger.Statement) (ledger.Item, error) {
			s.Who = "arena"
			_, err := s.Marshal()
			return ledger.Item{}, err
		},
		Recorded: func() { w.recorded++ }, Now: func() time.Time { return w.now },
	})
}

const anID = "urn:uuid:3978344f-8596-4c3a-a978-8fcaba3903c5"

func uuid(n int) string { return fmt.Sprintf("urn:uuid:00000000-0000-4000-8000-%012d", n) }

func (w *world) withdrawal(by byte, id string) string {
	w.t.Helper()
	token, err := identity.SignWithdrawal(key(by), identity.Withdrawal{Audience: "arena", Mandate: id, Issued: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func TestAWithdrawalIsStoredWithTheNextNumber(t *testing.T) {
	w := begin(t, newMemory())
	var told []revocation.State
	w.watch.Subscribe(func(s revocation.State) {
		if !w.Withdrawn(public(1), anID) {
			t.Error("whoever lives by the mandate was told before it counts as withdrawn")
		}
		told = append(told, s)
	})
	if w.Withdrawn(public(1), anID) {
		t.Fatal("withdrawn at the beginning")
	}
	token := w.withdrawal(1, anID)
	for range 2 { // the answer was lost: it is sent again
		if _, err := w.Withdraw(t.Context(), owned, token); err != nil {
			t.Fatal(err)
		}
	}
	if !w.Withdrawn(public(1), anID) || w.watch.Number() != 1 || len(told) != 1 || told[0].Number != 1 || w.store.stated != 1 || w.recorded != 1 {
		t.Errorf("withdrawn %v, number %d, told %v, stated %d", w.Withdrawn(public(1), anID), w.watch.Number(), told, w.store.stated)
	}
	w.reopen()
	if !w.Withdrawn(public(1), anID) || w.Withdrawn(public(1), uuid(1)) {
		t.Error("after a start it isn't withdrawn, or another one is")
	}
}

// M3: what isn't stored isn't acknowledged. M4: what is stored holds at the next
// start, whoever was told or not.
func TestACrashWhileWithdrawing(t *testing.T) {
	w := begin(t, newMemory())
	token := w.withdrawal(1, anID)
	w.store.fail = errors.New("no room")
	if _, err := w.Withdraw(t.Context(), owned, token); err == nil || w.Withdrawn(public(1), anID) || w.watch.Number() != 0 {
		t.Errorf("acknowledged though not stored: %v, number %d", err, w.watch.Number())
	}
	w.reopen()
	if w.Withdrawn(public(1), anID) {
		t.Error("withdrawn though not stored")
	}
	w.store.fail, w.store.lost = nil, true
	if _, err := w.Withdraw(t.Context(), owned, token); err == nil {
		t.Error("acknowledged by a process that died")
	}
	w.reopen()
	if !w.Withdrawn(public(1), anID) {
		t.Error("stored, and not withdrawn at the next start")
	}
	if _, err := w.Withdraw(t.Context(), owned, token); err != nil {
		t.Errorf("sent again: %v", err)
	}
}

func TestOnlyTheAvatarsOwnerWithdraws(t *testing.T) {
	w := begin(t, newMemory())
	good := w.withdrawal(1, anID)
	elsewhere, err := identity.SignWithdrawal(key(1), identity.Withdrawal{Audience: "clinic", Mandate: anID, Issued: w.now})
	if err != nil {
		t.Fatal(err)
	}
	future, err := identity.SignWithdrawal(key(1), identity.Withdrawal{Audience: "arena", Mandate: anID, Issued: w.now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		avatar carnet.AvatarID
		token  string
		want   carnet.Code
	}{
		"another owner":     {others, good, carnet.Unauthenticated},
		"nobody's avatar":   {unowned, good, carnet.NotFound},
		"no avatar":         {carnet.AvatarID{9}, good, carnet.NotFound},
		"for another world": {owned, elsewhere, carnet.Unauthenticated},
		"to come":           {owned, future, carnet.Unauthenticated},
		"cut short":         {owned, good[:50], carnet.Malformed},
		"nothing":           {owned, "", carnet.Malformed},
	} {
		if _, err := w.Withdraw(t.Context(), test.avatar, test.token); carnet.CodeOf(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	if w.watch.Number() != 0 || w.Withdrawn(public(1), anID) {
		t.Error("something was withdrawn")
	}
}

// TestAnOwnersWithdrawalIsTheirOwn: another owner's of the same id ends nothing of
// theirs and doesn't stand in its way, and of two of one owner the later holds.
func TestAnOwnersWithdrawalIsTheirOwn(t *testing.T) {
	w := begin(t, newMemory())
	dated := func(by byte, at time.Time) string {
		token, err := identity.SignWithdrawal(key(by), identity.Withdrawal{Audience: "arena", Mandate: anID, Issued: at})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	long := w.now.Add(time.Minute - identity.MandateLife) // matters for a minute and a half still
	if kept, err := w.Withdraw(t.Context(), others, dated(2, long)); !kept || err != nil {
		t.Fatal(kept, err)
	}
	if w.Withdrawn(public(1), anID) {
		t.Error("another owner has ended owner 1's mandate")
	}
	for _, at := range []time.Time{long, w.now, long} {
		if kept, err := w.Withdraw(t.Context(), owned, dated(1, at)); !kept || err != nil {
			t.Fatal(kept, err)
		}
	}
	w.now = w.now.Add(2 * time.Minute)
	if _, err := w.Withdraw(t.Context(), others, w.withdrawal(2, uuid(7))); err != nil { // clears up
		t.Fatal(err)
	}
	for range 2 {
		if !w.Withdrawn(public(1), anID) || w.Withdrawn(public(2), anID) {
			t.Error("owner 1's mandate is in force again, or owner 2's never ends")
		}
		w.reopen()
	}
}

func TestWithdrawalsAreKeptUntilTheMandateHasEnded(t *testing.T) {
	w := begin(t, newMemory())
	if _, err := w.Withdraw(t.Context(), owned, w.withdrawal(1, anID)); err != nil {
		t.Fatal(err)
	}
	old := w.withdrawal(1, uuid(2))
	w.now = w.now.Add(identity.MandateLife + 29*time.Second)
	if _, err := w.Withdraw(t.Context(), owned, w.withdrawal(1, uuid(1))); err != nil || !w.Withdrawn(public(1), anID) {
		t.Errorf("forgotten while a mandate could hold: %v", err)
	}
	w.now = w.now.Add(2 * time.Second)
	if _, err := w.Withdraw(t.Context(), owned, w.withdrawal(1, uuid(3))); err != nil {
		t.Fatal(err)
	}
	if w.Withdrawn(public(1), anID) || w.store.count("withdrawal") != 2 {
		t.Errorf("kept for ever: %d are stored", w.store.count("withdrawal"))
	}
	number := w.watch.Number()
	if kept, err := w.Withdraw(t.Context(), owned, old); kept || err != nil || w.watch.Number() != number || w.Withdrawn(public(1), uuid(2)) {
		t.Errorf("one that means nothing any more: %v, number %d", err, w.watch.Number())
	}
}

func TestAnOwnerCannotFillTheStore(t *testing.T) {
	w := begin(t, newMemory())
	for n := range 1000 {
		if _, err := w.Withdraw(t.Context(), owned, w.withdrawal(1, uuid(n))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Withdraw(t.Context(), owned, w.withdrawal(1, anID)); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("one more: %v", err)
	}
	if _, err := w.Withdraw(t.Context(), others, w.withdrawal(2, anID)); err != nil {
		t.Errorf("of another owner: %v", err)
	}
	w.now = w.now.Add(25 * time.Hour)
	if _, err := w.Withdraw(t.Context(), owned, w.withdrawal(1, uuid(5000))); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

func TestAProcessBesideHearsOfIt(t *testing.T) {
	store := newMemory()
	here := begin(t, store)
	beside := &world{t: t, store: store, now: here.now, table: here.table}
	var err error
	if beside.watch, err = revocation.New(t.Context(), revocation.Config{Store: store, Every: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	beside.reopen()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { beside.watch.Run(ctx) })
	work.Go(func() { beside.Run(ctx) })
	defer work.Wait()
	defer cancel()
	store.mu.Lock()
	store.page = 1 // the first reading fails: until there is another, every mandate is refused
	store.mu.Unlock()
	if _, err := here.Withdraw(t.Context(), owned, here.withdrawal(1, anID)); err != nil {
		t.Fatal(err)
	}
	becomes := func(what, id string, is carnet.Code) {
		t.Helper()
		for carnet.CodeOf(beside.Stands(public(1), id)) != is {
			if t.Context().Err() != nil {
				t.Fatal(what)
			}
			time.Sleep(time.Millisecond)
		}
	}
	// What lives by another mandate isn't over: it waits.
	becomes("while it can't be read another mandate is taken, or called withdrawn", uuid(77), carnet.Unavailable)
	becomes("it is never read again", uuid(77), "")
	becomes("it never hears", anID, carnet.Unauthenticated)
	if _, err := beside.Withdraw(t.Context(), owned, here.withdrawal(1, anID)); err != nil {
		t.Errorf("handed to both: %v", err)
	}
}

func wanted() mandate.Wanted {
	return mandate.Wanted{
		Audience: "citadel", About: carnet.AvatarID{7}, Actions: []identity.Action{identity.ActionSubscribe, identity.ActionRead, identity.ActionRead},
		Purpose: "care", Clearance: carnet.Clearance{Sensitivity: carnet.Health}, Text: "To show it to your team.",
	}
}

// signs is what an owner makes of a request.
func (w *world) signs(by byte, r mandate.Request, life time.Duration) string {
	w.t.Helper()
	asked, err := identity.ParseMandateRequest(r.Request)
	if err != nil {
		w.t.Fatal(err)
	}
	token, err := identity.SignMandate(key(by), identity.Mandate{
		MandateTerms: asked.MandateTerms, Issued: w.now, NotBefore: w.now, Expires: w.now.Add(life),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func (w *world) asks() mandate.Request {
	w.t.Helper()
	r, err := w.Ask(w.t.Context(), "ops", owned, wanted())
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func TestARequestIsAskedAndGiven(t *testing.T) {
	w := begin(t, newMemory())
	r := w.asks()
	asked, err := identity.ParseMandateRequest(r.Request)
	if err != nil || !asked.Subject.Equal(public(11)) || !asked.Platform.Equal(public(20)) || asked.Text != wanted().Text ||
		!slices.Equal(asked.Actions, []identity.Action{identity.ActionRead, identity.ActionSubscribe}) {
		t.Errorf("asked %+v, %v", asked, err)
	}
	if again := w.asks(); again.ID != r.ID || w.store.count("mandate-request") != 1 {
		t.Errorf("asked again: %+v", again)
	}
	use := mandate.Use{Audience: "citadel", About: wanted().About, Action: identity.ActionRead}
	if token, err := w.Mandate(owned, use); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("before it is given: %q, %v", token, err)
	}
	first := w.signs(1, r, time.Hour)
	got, err := w.Give(t.Context(), first)
	if err != nil || got.ID != r.ID || got.Expires == nil || !got.Expires.Equal(w.now.Add(time.Hour)) {
		t.Fatalf("given: %+v, %v", got, err)
	}
	w.reopen()
	if token, err := w.Mandate(owned, use); err != nil || token != first {
		t.Errorf("%q, %v", token, err)
	}
	later := w.signs(1, r, 2*time.Hour)
	if _, err := w.Give(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Give(t.Context(), first); err != nil { // again, and late
		t.Fatal(err)
	}
	if token, err := w.Mandate(owned, use); err != nil || token != later {
		t.Errorf("after another: %q, %v", token, err)
	}
	for name, use := range map[string]mandate.Use{
		"another world":   {Audience: "clinic", About: use.About, Action: use.Action},
		"another avatar":  {Audience: "citadel", About: owned, Action: use.Action},
		"another action":  {Audience: "citadel", About: use.About, Action: identity.ActionMove},
		"another purpose": {Audience: "citadel", About: use.About, Action: use.Action, Purpose: "play"},
	} {
		if token, err := w.Mandate(owned, use); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%s: %q, %v", name, token, err)
		}
	}
	w.now = w.now.Add(2 * time.Hour)
	if token, err := w.Mandate(owned, use); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("after its end: %q, %v", token, err)
	}
	if list, err := w.Requests(owned); err != nil || len(list) != 1 || list[0].ID != r.ID {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := w.Remove(t.Context(), uuid(1)); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("removed what isn't there: %v", err)
	}
	if gone, err := w.Remove(t.Context(), r.ID); err != nil || gone.ID != r.ID {
		t.Errorf("%+v, %v", gone, err)
	}
	w.reopen()
	if list, err := w.Requests(owned); err != nil || len(list) != 0 {
		t.Errorf("after its removal: %+v, %v", list, err)
	}
}

func TestMandatesThatNobodyAskedForAreRefused(t *testing.T) {
	w := begin(t, newMemory())
	r := w.asks()
	good := w.signs(1, r, time.Hour)
	asked, err := identity.ParseMandateRequest(r.Request)
	if err != nil {
		t.Fatal(err)
	}
	m := identity.Mandate{MandateTerms: asked.MandateTerms, Issued: w.now, NotBefore: w.now, Expires: w.now.Add(time.Hour)}
	for name, test := range map[string]struct {
		change func(*identity.Mandate)
		want   carnet.Code
	}{
		"other actions":   {func(m *identity.Mandate) { m.Actions = m.Actions[:1] }, carnet.NotFound},
		"another purpose": {func(m *identity.Mandate) { m.Purpose = "play" }, carnet.NotFound},
		"more may flow":   {func(m *identity.Mandate) { m.Clearance.Sensitivity = carnet.AllSensitive }, carnet.NotFound},
		"another avatar":  {func(m *identity.Mandate) { m.Avatar = carnet.AvatarID{8} }, carnet.NotFound},
		"signed to come":  {func(m *identity.Mandate) { m.Issued = w.now.Add(time.Minute); m.NotBefore = m.Issued }, carnet.Unauthenticated},
		"to hold later":   {func(m *identity.Mandate) { m.NotBefore = w.now.Add(time.Minute) }, carnet.Unauthenticated},
		"ended": {func(m *identity.Mandate) {
			m.Issued = w.now.Add(-2 * time.Hour)
			m.NotBefore, m.Expires = m.Issued, w.now
		}, carnet.Unauthenticated},
	} {
		bad := m
		bad.Actions = slices.Clone(m.Actions)
		test.change(&bad)
		token, err := identity.SignMandate(key(1), bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Give(t.Context(), token); carnet.CodeOf(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Give(t.Context(), good[:60]); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("cut short: %v", err)
	}
	if _, err := w.Give(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Give(t.Context(), w.signs(2, r, 2*time.Hour)); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("another signer: %v", err)
	}
}

func TestRequestsThatNoOwnerCouldReadAreNotMade(t *testing.T) {
	w := begin(t, newMemory())
	for name, test := range map[string]struct {
		avatar carnet.AvatarID
		change func(*mandate.Wanted)
		want   carnet.Code
	}{
		"no avatar":   {carnet.AvatarID{9}, func(*mandate.Wanted) {}, carnet.NotFound},
		"no peer":     {owned, func(x *mandate.Wanted) { x.Audience = "nobody" }, carnet.NotFound},
		"no text":     {owned, func(x *mandate.Wanted) { x.Text = "" }, carnet.Malformed},
		"two lines":   {owned, func(x *mandate.Wanted) { x.Text = "a\nb" }, carnet.Malformed},
		"no action":   {owned, func(x *mandate.Wanted) { x.Actions = nil }, carnet.Malformed},
		"no purpose":  {owned, func(x *mandate.Wanted) { x.Purpose = "" }, carnet.Malformed},
		"about none":  {owned, func(x *mandate.Wanted) { x.About = carnet.AvatarID{} }, carnet.Malformed},
		"odd actions": {owned, func(x *mandate.Wanted) { x.Actions = []identity.Action{"write"} }, carnet.Malformed},
	} {
		x := wanted()
		test.change(&x)
		if _, err := w.Ask(t.Context(), "ops", test.avatar, x); carnet.CodeOf(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := range 100 {
		x := wanted()
		x.Text = fmt.Sprint("request ", n)
		if _, err := w.Ask(t.Context(), "ops", owned, x); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Ask(t.Context(), "ops", owned, wanted()); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("one more: %v", err)
	}
}

func TestAStoreOfAnotherKeyTableIsRefused(t *testing.T) {
	w := begin(t, newMemory())
	w.asks()
	clear(w.store.keys)
	w.table = begin(t, newMemory()).table
	if _, err := w.open(); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("opened: %v", err)
	}
	if _, err := mandate.New(t.Context(), mandate.Config{}); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("made of nothing: %v", err)
	}
}
