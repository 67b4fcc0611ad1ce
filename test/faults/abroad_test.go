package faults_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/entity"
	"carnet/identity"
	"carnet/node"
	keystore "carnet/owner"
	"carnet/peering"
	"carnet/policy"
	"carnet/test/wait"
)

// post makes a call of an operator's that the client has no method for.
func post[T any](p *party, t *testing.T, method, path string, body any) (v T) {
	t.Helper()
	var data io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, p.client.Base+path, data)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+p.token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := p.client.HTTP.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
	return v
}

// neighbours are arena and the clinic, which call each other: a watch's avatars in
// both, and its owner's keystore, whose key for arena arena has pinned.
type neighbours struct {
	*town
	watch       *watch
	there, here carnet.AvatarID // in arena, in the clinic
	store       *keystore.Keystore
	signing     sync.Mutex // held while the keystore is used by several
	askers      map[*party]*asker
}

var mostAbroad = carnet.Personal | carnet.Health

// newNeighbours makes a town whose worlds call each other. view is what the clinic
// gets of the watch itself; stores says where parties have their stores.
func newNeighbours(t *testing.T, view string, stores ...func(*testing.T, *party)) *neighbours {
	t.Helper()
	v := makeTown(t, t.TempDir(), append(stores, func(t *testing.T, p *party) {
		if p.role == identity.World {
			p.config.Listen.R5 = freeAddress(t)
		}
	})...)
	ctx := t.Context()
	err := node.Introduce(ctx, node.Introduction{
		Inviter: v.arena.config, Accepter: v.clinic.config, Calls: "clinic",
		Offer: peering.Offer{Scope: []peering.Scope{peering.R5}, Purposes: []string{"care", "fitness"}, Sensitivity: &mostAbroad},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n := &neighbours{town: v, askers: make(map[*party]*asker)}
	for _, p := range v.worlds() {
		n.askers[p] = v.asker(p)
	}
	for _, p := range v.parties() {
		p.start(t)
	}
	for _, p := range v.parties() {
		v.await(p)
	}
	// What was made in the second of a world's start may have been shown to its process of
	// before: no world takes it (crossing/r5).
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	n.watch = v.addPromptFor(map[carnet.PartyID]string{"arena": travels, "clinic": view})
	n.there, n.here = n.watch.mappings["arena"].Avatar, n.watch.mappings["clinic"].Avatar
	if n.store, err = keystore.Create(filepath.Join(t.TempDir(), "keystore"), []byte("a long enough passphrase"), keystore.Params{Time: 1, MemoryKiB: 19 << 10, Lanes: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.store.Close() })
	n.own(n.watch)
	return n
}

// travels is the view of what may go to either world.
const travels = `{"properties": {"heart_rate": {}, "speed": {}}, "purposes": ["care", "fitness"]}`

// own has arena pin the owner's key with a watch's avatar.
func (n *neighbours) own(w *watch) {
	n.t.Helper()
	m := w.mappings["arena"]
	arena := keystore.World{Party: "arena", Key: n.askers[n.arena].self.Show(identity.World).Key}
	key, err := n.store.Key(arena)
	if err != nil {
		n.t.Fatal(err)
	}
	ownership, err := identity.SignOwnership(key, identity.Ownership{Audience: "arena", Avatar: m.Avatar, Issued: time.Now()})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.hub.client.Own(n.t.Context(), m.ID, ownership); err != nil {
		n.t.Fatal(err)
	}
	if err := n.store.Pinned(arena, m.Avatar); err != nil {
		n.t.Fatal(err)
	}
}

// ask has the clinic ask the owner for a mandate.
func (n *neighbours) ask(action identity.Action) identity.MandateRequest {
	n.t.Helper()
	asked, err := n.clinic.client.AskMandate(n.t.Context(), n.here, api.NewMandate{
		World: "arena", Avatar: n.there, Actions: []identity.Action{action}, Purpose: "care", Sensitivity: "personal+health",
		Text: "The clinic uses your heart rate in arena.",
	})
	if err != nil {
		n.t.Fatal(err)
	}
	request, err := identity.ParseMandateRequest(asked.Request)
	if err != nil {
		n.t.Fatal(err)
	}
	return request
}

// approve gives the clinic the owner's mandate.
func (n *neighbours) approve(request identity.MandateRequest) keystore.Mandate {
	n.t.Helper()
	mandate, err := n.store.Approve(request, time.Now(), time.Hour)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.clinic.client.GiveMandate(n.t.Context(), mandate.Token); err != nil {
		n.t.Fatal(err)
	}
	return mandate
}

// give has arena give a grant to the clinic's avatar.
func (n *neighbours) give(request identity.MandateRequest, action identity.Action, document string) entity.Grant {
	n.t.Helper()
	view, err := policy.ParseView([]byte(document))
	if err != nil {
		n.t.Fatal(err)
	}
	terms := entity.Terms{
		Avatar: n.there, To: entity.To{Platform: "clinic", DID: identity.DID(request.Subject)}, Actions: []identity.Action{action},
		View: view, Purpose: "care", Ceiling: &entity.Clearance{Sensitivity: mostAbroad}, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
	report := post[entity.Assessment](n.arena, n.t, "POST", "/v1/assessments", terms)
	return post[entity.Grant](n.arena, n.t, "POST", "/v1/grants", api.NewGrant{Terms: terms, Assessment: report.Fingerprint})
}

// Two worlds as processes: the clinic reads arena's avatar as its own, by the
// mandate of the owner's keystore and a grant of arena's; over a restart; and no
// more once any of what it lives by has ended.
func TestAbroad(t *testing.T) {
	t.Parallel()
	v := newNeighbours(t, `{"properties": {"heart_rate": {}}, "purposes": ["care"]}`)
	ctx := t.Context()
	v.watch.send(3)
	v.settle()
	there, here, store := v.there, v.here, v.store

	read := func() ([]carnet.Measurement, error) { return v.clinic.client.Abroad(ctx, here, "arena", there) }
	refused := func(when string, code carnet.Code) {
		t.Helper()
		var ms []carnet.Measurement
		var err error
		// On a busy disk the store may not have said for a second what was revoked; never
		// is anything shown meanwhile.
		wait.Until(t, when, func() bool {
			ms, err = read()
			return code == carnet.Unavailable || carnet.CodeOf(err) != carnet.Unavailable
		})
		if carnet.CodeOf(err) != code {
			t.Errorf("%s: %v %v", when, ms, err)
		}
	}
	refused("without a mandate", carnet.NotFound)
	request := v.ask(identity.ActionRead)
	approve := func() keystore.Mandate { return v.approve(request) }
	mandate := approve()
	refused("without a grant", carnet.Forbidden)

	give := func() entity.Grant {
		return v.give(request, identity.ActionRead, `{"properties": {"heart_rate": {"round": 10}}}`)
	}
	given := give()
	reads := func(when string) {
		t.Helper()
		var ms []carnet.Measurement
		var err error
		wait.Until(t, when, func() bool { ms, err = read(); return err == nil }) // as in refused
		if len(ms) != 1 || ms[0].Name != "heart_rate" || int64(ms[0].Value.Num)%10 != 0 {
			t.Fatalf("%s: %v %v", when, ms, err)
		}
	}
	reads("under the grant")

	// Over a restart of either side.
	v.arena.kill(t)
	refused("while arena is away", carnet.Unavailable)
	v.restart(v.arena)
	wait.Until(t, "arena takes what is made after its start", func() bool { _, err := read(); return err == nil })
	reads("after arena's restart")
	v.clinic.kill(t)
	v.restart(v.clinic)
	reads("after the clinic's restart")

	// Until what it lives by ends.
	post[entity.Grant](v.arena, t, "DELETE", "/v1/grants/"+given.ID, nil)
	refused("once the grant is revoked", carnet.Forbidden)
	give()
	reads("under another grant")
	withdrawal, err := store.Withdraw(mandate.ID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.arena.client.Withdraw(ctx, there, withdrawal.Token); err != nil {
		t.Fatal(err)
	}
	refused("once the mandate is withdrawn", carnet.Forbidden)
	time.Sleep(time.Second) // mandates have whole seconds, and the one that ends last is taken
	approve()
	reads("under another mandate")
	v.cutAtOnce(v.arena, "clinic", v.clinic, v.arena.config.Listen.R5) // R5, which the clinic has called
	refused("while the peering is suspended", carnet.Unavailable)
	if _, err := v.arena.client.ResumePeer(ctx, "clinic"); err != nil {
		t.Fatal(err)
	}
	reads("once it is resumed")
	v.cutAtOnce(v.clinic, "arena", v.clinic, v.arena.config.Listen.R5)
	if _, err := v.clinic.client.ResumePeer(ctx, "arena"); err != nil {
		t.Fatal(err)
	}
	reads("once the clinic has resumed it")
	records := string(post[json.RawMessage](v.arena, t, "GET", "/v1/activity?limit=1000", nil))
	if proved, once := strings.Count(records, `are proved; `), strings.Count(records, `"action":"get-state"`); proved == 0 || proved != once {
		t.Errorf("%d calls are recorded as proved and decided, %d as decided", proved, once)
	}
	for _, want := range []string{`"rule":"grant"`, `"rule":"mandate"`, "are proved", `"via":"r5"`} {
		if !strings.Contains(records, want) {
			t.Errorf("arena's activity has no %s", want)
		}
	}
}
