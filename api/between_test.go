package api_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing"
	"carnet/crossing/r5"
	"carnet/depot"
	"carnet/entity"
	"carnet/identity"
	"carnet/ledger"
	"carnet/register"
	"carnet/store/sqlite"
)

// newVault makes a depot that takes every caller at R2 for arena, and who calls it.
func newVault(t *testing.T) (api.Config, *http.Client) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), t.TempDir()+"/state.db", sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store, err := db.Depot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := ed25519.GenerateKey(nil)
	signer, err := ledger.NewSigner("vault.example/ledger", key)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := depot.New(t.Context(), depot.Config{Dir: t.TempDir(), Signer: signer, Store: store, Key: key, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- agent.Run(ctx) }()
	changes, err := db.Register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	registrar, err := register.New(register.Config{
		Dir: t.TempDir(), Party: "vault", Key: ownerKey(theRegistrar), Secret: make([]byte, 32), Sealer: unsealed{}, Store: changes, Ledger: ofVault{agent}, Logger: quiet(),
		Item: func(statement []byte, salt ledger.Salt) (ledger.Item, error) {
			return ledger.Item{Entry: ledger.EntryOf(salt, statement), Statement: statement, Salt: salt[:]}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- registrar.Run(ctx) }()
	served := http.NewServeMux()
	served.Handle("/", agent.Handler(func(*http.Request) (carnet.PartyID, error) { return "arena", nil }))
	for _, pattern := range register.Patterns() {
		served.Handle(pattern, registrar.Handler(func(*http.Request) (register.Caller, error) {
			return register.Caller{Party: "arena", DID: api.ShelfGiver(), World: true}, nil
		}))
	}
	for _, pattern := range depot.ShelfPatterns() {
		served.Handle(pattern, agent.ShelfHandler(shelfParties{}))
	}
	server := httptest.NewTLSServer(served)
	t.Cleanup(func() {
		server.Close()
		cancel()
		<-ended
		<-ended
		db.Close()
	})
	return api.Config{Party: "vault", Depot: agent, Tokens: tokens, R2: server.URL, Log: quiet()}, server.Client()
}

// theRegistrar is the registrar's key, and homeOwner the owner's of the homes there.
const theRegistrar, homeOwner = 9, 8

// ofVault is the vault's ledger, for its register.
type ofVault struct{ *depot.Agent }

// Submit implements ledger.Submitter.
func (l ofVault) Submit(ctx context.Context, entries []ledger.Entry) ([]ledger.Receipt, error) {
	return l.Agent.Submit(ctx, "vault", entries)
}

// asksTheRegister puts what must be signed into a question to the register: the owner's
// orders about the home of the examples, which the first question enrols.
func asksTheRegister(t *testing.T, q *question) {
	t.Helper()
	var home carnet.HomeID
	if err := home.UnmarshalText([]byte(cmp.Or(q.path["home"], exampleHome))); err != nil {
		t.Fatal(err)
	}
	did, made := func(of byte) string { return identity.DID(public(ownerKey(of))) }, time.Now().UTC().Truncate(time.Second)
	asked := api.HomeQuestion{Asked: api.ExampleNonce}
	switch q.op.id {
	case "enrol-home":
		asked.Owner = did(homeOwner)
	case "erase-home":
		id := carnet.ErasureID{7}
		order, err := identity.SignErasure(ownerKey(homeOwner), identity.ErasureOrder{
			Erasure: id, Registrar: did(theRegistrar), Owner: did(homeOwner), World: api.ShelfGiver(), Home: home, Avatar: identity.ErasedMark(id, carnet.AvatarID{9}), Made: made, Until: made.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		asked.Order = order
	case "claim-home":
	case "ask-homes":
		q.body = marshal(t, api.HomesQuestion{Homes: []carnet.HomeID{home}, Asked: api.ExampleNonce})
		return
	case "list-erased":
		q.body = marshal(t, api.HomeList{Homes: []carnet.HomeID{home}})
		return
	case "decide-crossing":
		var x carnet.CrossingID
		if err := x.UnmarshalText([]byte(q.path["crossing"])); err != nil {
			t.Fatal(err)
		}
		order, err := identity.SignOrder(ownerKey(homeOwner), identity.Order{
			Crossing: x, Registrar: did(theRegistrar), Owner: did(homeOwner), Source: api.ShelfGiver(), Target: api.ShelfTaker(), Homes: []carnet.HomeID{home},
			Terms: carnet.Fingerprint{1}, Made: made, Until: made.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		q.body = marshal(t, register.Petition{Want: register.Abort, Order: order})
		return
	default:
		return
	}
	q.body = marshal(t, asked)
}

// exampleHome is the home of the examples.
const exampleHome = "112233445566778899aabbccddeeff00"

// unsealed seals nothing.
type unsealed struct{}

func (unsealed) Seal(dst, _, plaintext []byte) ([]byte, error) { return append(dst, plaintext...), nil }
func (unsealed) Open(dst, _, sealed []byte) ([]byte, error)    { return append(dst, sealed...), nil }

// shelfParties takes who asks for a giver's shelf for the example's taker, and others
// for its giver.
type shelfParties struct{}

func (shelfParties) Caller(r *http.Request) (depot.Party, error) {
	if r.FormValue("of") != "" {
		return depot.Party{Name: "citadel", DID: api.ShelfTaker()}, nil
	}
	return depot.Party{Name: "arena", DID: api.ShelfGiver()}, nil
}

func (shelfParties) Named(did string) (carnet.PartyID, error) {
	if did != api.ShelfGiver() {
		return "", carnet.Errorf(carnet.NotFound, "no such peer")
	}
	return "arena", nil
}

// What a depot serves at R2 is what its document says, and nothing else.
func TestTheDocumentHasAllOfR2(t *testing.T) {
	s := newServed(t)
	vault, _ := newVault(t)
	described := map[string]bool{}
	for _, op := range operations(t, s.serve(vault)) {
		if strings.HasPrefix(op.path, "/r2/") {
			described[op.method+" "+op.path] = true
		}
	}
	for _, pattern := range slices.Concat(depot.Patterns(), depot.ShelfPatterns(), register.Patterns()) {
		if pattern = strings.ReplaceAll(pattern, "...", ""); !described[pattern] {
			t.Errorf("%s is served and not described", pattern)
		}
		delete(described, pattern)
	}
	for pattern := range described {
		t.Errorf("%s is described and not served", pattern)
	}
}

// caller is an avatar of citadel that calls arena, with all that it needs: a peering,
// a mandate of the owner, a grant. What arena serves it is what node mounts.
type caller struct {
	*served
	about   carnet.AvatarID
	http    *http.Client
	key     ed25519.PrivateKey // citadel's
	avatar  ed25519.PrivateKey
	proof   ed25519.PrivateKey
	pin     carnet.Fingerprint
	token   map[identity.Action]string
	mandate map[identity.Action]string
}

func newKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func newCaller(s *served, about carnet.AvatarID) *caller {
	c := &caller{served: s, about: about, key: newKey(), avatar: newKey(), proof: newKey(), token: map[identity.Action]string{}, mandate: map[identity.Action]string{}}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key)
	if err != nil {
		s.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	c.pin = carnet.FingerprintOf(leaf.RawSubjectPublicKeyInfo)
	c.http = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: c.key, Leaf: leaf}},
	}}}
	before := 2 * time.Second // what was made in the second of the start isn't taken
	server, err := r5.New(s.t.Context(), r5.Config{
		Party: "arena", Base: "https://" + s.r5.Addr().String(), Key: newKey(), Peers: c, Avatars: s.world, Mandates: s.mandates, Grants: c, Revocations: c,
		Activity: c, Horizon: c, Now: func() time.Time { return time.Now().Add(-before) }, Log: quiet(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	before = 0
	for at, is := range map[string]string{"": "/state", "/history": "/history", "/live": "/live"} {
		action := identity.ActionRead
		if at == "/live" {
			action = identity.ActionSubscribe
		}
		server.Handle("GET /r5/avatars/{id}"+at, action, func(w http.ResponseWriter, r *http.Request, call r5.Call) {
			own := r.Clone(api.Proven(r.Context(), api.Proof{
				Who: entity.ForeignPrincipal(call.Platform, call.DID()), How: "proved", Grant: call.Grant.ID, GrantVersion: call.Grant.Version, Most: call.Most,
			}))
			own.URL.Path = "/v1/avatars/" + call.Avatar.String() + is
			own.Header.Del("Authorization")
			s.handlers[s.arenaURL].ServeHTTP(w, own)
		})
	}
	server.Handle("PUT /r5/avatars/{id}/shares/{share}", identity.ActionSubscribe, func(w http.ResponseWriter, r *http.Request, call r5.Call) {
		var q crossing.Question
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			s.t.Error(err)
		}
		given, err := s.shares.Give(r.Context(), q, crossing.Permit{Taker: call.Platform, Grant: "g", GrantVersion: 1, View: view(s.t, `{"properties":{"heart_rate":{}}}`), Mandate: "m", Most: clearance, Until: call.Until})
		if err != nil {
			s.t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(given)
	})
	server.Handle("DELETE /r5/avatars/{id}/shares/{share}", identity.ActionSubscribe, func(w http.ResponseWriter, r *http.Request, call r5.Call) {
		var id carnet.ShareID
		if err := id.UnmarshalText([]byte(r.PathValue("share"))); err != nil {
			s.t.Error(err)
		}
		if err := s.shares.StopTaken(r.Context(), id, call.Platform); err != nil {
			s.t.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	own, err := x509.ParseCertificate(s.ids.arena.Certificate.Certificate[0])
	if err != nil {
		s.t.Fatal(err)
	}
	certificate := s.ids.arena.Certificate
	certificate.Leaf = own
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, s.r5, certificate) }()
	s.t.Cleanup(func() {
		c.http.CloseIdleConnections()
		cancel()
		<-ended
	})
	did := identity.DID(public(c.avatar))
	for _, action := range []identity.Action{identity.ActionRead, identity.ActionSubscribe} {
		s.give(entity.Terms{
			Avatar: about, To: entity.To{Platform: "citadel", DID: did}, Actions: []identity.Action{action}, View: view(s.t, `{"properties":{"heart_rate":{}}}`),
			Purpose: "fitness", Expires: time.Now().Add(time.Hour).Truncate(time.Second),
			Ceiling: &entity.Clearance{Sensitivity: carnet.AllSensitive},
		})
	}
	return c
}

// What r5.Server asks: citadel is a peer, and nothing was ended.
func (c *caller) ByPin(pin carnet.Fingerprint) (r5.Peer, error) {
	if pin != c.pin {
		return r5.Peer{}, carnet.Errorf(carnet.Unauthenticated, "no peer has this key")
	}
	return r5.Peer{Name: "citadel", OwnName: "citadel", Key: public(c.key), Clearance: clearance, Terms: clearance, Until: time.Now().Add(time.Hour)}, nil
}
func (c *caller) Fresh() bool                               { return true }
func (c *caller) Record(context.Context, r5.Decision) error { return nil }
func (c *caller) Newest(context.Context) (time.Time, error) { return time.Time{}, nil }
func (c *caller) Raise(context.Context, time.Time) error    { return nil }
func (c *caller) Find(_ context.Context, a r5.Ask) (r5.Grant, error) {
	g, err := c.entities.Find(a.Platform, a.DID(), a.Avatar, a.Action, a.Purpose)
	return r5.Grant{ID: g.ID, Version: g.Version, Until: g.Expires}, err
}
func (c *caller) Still(_ context.Context, a r5.Ask, _ string, _ uint64) (r5.Grant, error) {
	return c.Find(context.Background(), a)
}

// fill puts what citadel must sign into a question to arena.
func (c *caller) fill(q *question) {
	q.path["id"] = c.about.String()
	if q.op.id == "exchange-token" {
		q.body = c.form(q.body, identity.ActionRead)
	}
	if q.op.id == "give-share" {
		var share crossing.Question
		if err := json.Unmarshal([]byte(q.body), &share); err != nil {
			c.t.Fatal(err)
		}
		share.Avatar = c.about
		q.body = marshal(c.t, share)
	}
}

// form is the document's form, with what is signed.
func (c *caller) form(example string, action identity.Action) string {
	form, err := url.ParseQuery(example)
	if err != nil {
		c.t.Fatal(err)
	}
	now := time.Now()
	must := func(token string, err error) string {
		if err != nil {
			c.t.Fatal(err)
		}
		return token
	}
	credential := must(identity.IssueCredential(c.key, identity.Credential{
		World: "citadel", Avatar: carnet.AvatarID{1}, Subject: public(c.avatar), Issued: now, NotBefore: now, Expires: now.Add(time.Hour),
	}))
	mandate := must(identity.SignMandate(ownerKey(1), identity.Mandate{
		MandateTerms: identity.MandateTerms{
			Audience: "arena", Subject: public(c.avatar), Platform: public(c.key), Avatar: c.about, Actions: []identity.Action{action}, Purpose: "fitness",
			Clearance: carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: "fitness"},
		},
		Issued: now, NotBefore: now, Expires: now.Add(time.Hour),
	}))
	form.Set("subject_token", must(identity.IssueAssertion(c.avatar, identity.Assertion{
		Audience: "arena", Issued: now, Expires: now.Add(time.Minute), Credential: credential, Mandate: mandate, Thumbprint: identity.Thumbprint(public(c.proof)),
	})))
	form.Set("resource", identity.AvatarURN(c.about))
	form.Set("scope", string(action))
	return form.Encode()
}

// prove adds to a request what shows who calls.
func (c *caller) prove(r *http.Request) {
	var hash carnet.Fingerprint
	if r.URL.Path != r5.TokenPath {
		action := identity.ActionRead
		if strings.HasSuffix(r.URL.Path, "/live") || strings.Contains(r.URL.Path, "/shares/") {
			action = identity.ActionSubscribe
		}
		token := c.exchange(action)
		hash = carnet.FingerprintOf([]byte(token))
		r.Header.Set("Authorization", "DPoP "+token)
	}
	at := *r.URL
	at.RawQuery = ""
	proof, err := identity.IssueProof(c.proof, identity.Proof{Method: r.Method, URL: at.String(), Issued: time.Now(), Token: hash})
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header["Dpop"] = []string{proof}
}

// exchange gets a token for an action.
func (c *caller) exchange(action identity.Action) string {
	if c.token[action] != "" {
		return c.token[action]
	}
	form := url.Values{
		"grant_type": {r5.ExchangeGrant}, "client_id": {identity.PartyURN("citadel")}, "subject_token_type": {r5.JWTType}, "requested_token_type": {r5.AccessType},
	}
	r, err := http.NewRequestWithContext(c.t.Context(), "POST", "https://"+c.r5.Addr().String()+r5.TokenPath, strings.NewReader(c.form(form.Encode(), action)))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", r5.FormType)
	c.prove(r)
	a, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer a.Body.Close()
	var got r5.TokenAnswer
	if err := json.NewDecoder(a.Body).Decode(&got); err != nil || got.Token == "" {
		c.t.Fatalf("no token for %s: %s %v", action, a.Status, err)
	}
	c.token[action] = got.Token
	return got.Token
}
