package api_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/policy"
)

// concrete makes a path of a route, with ids that nobody has.
func concrete(path string) string {
	id := "00112233445566778899aabbccddeeff"
	return strings.NewReplacer("{id}", id, "{name}", id, "{peer}", "p-hub", "{invitation}", id).Replace(path)
}

// Every route that there is, by whatever means it was added: who has no token is
// not let in, everybody else is decided by what the route is for and recorded,
// and nobody comes to a handler whose call could not be recorded.
func TestNoRouteWithoutADecisionAndARecord(t *testing.T) {
	s := newServed(t)
	vault, _ := newVault(t)
	vault.Tokens, vault.Guard = tokens, nil // as the others are served
	s.serve(vault)
	roles := guard(t, s.records)
	found := 0
	for base, h := range s.handlers {
		for pattern, action := range api.Patterns(h) {
			method, path, _ := strings.Cut(pattern, " ")
			// An invitation's secret stands for a token: who shows one is nobody.
			invited, body := strings.HasPrefix(path, "/v1/peerings/"), ""
			if invited && method == "POST" {
				body = `{"acceptance":"x"}`
			}
			call := func(token string) answered { return ask(t, method, base+concrete(path), token, body) }
			if slices.Contains(api.Open(), path) {
				if a := call(""); a.status != 200 {
					t.Errorf("%s without a token is %d", path, a.status)
				}
				continue
			}
			use, known := policy.UseOf(action)
			if found++; !known {
				t.Errorf("%s is for %q, which is not in the table of actions", pattern, action)
				continue
			}
			for _, token := range []string{"", "guess", strings.Repeat("x", 10_000)} {
				if a := call(token); a.status != 401 || problemIn(t, a).Code != carnet.Unauthenticated || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s with token %.10q is %d %s", pattern, token, a.status, a.body)
				}
			}
			s.records.take()
			for token, p := range principals {
				a := call(token)
				all := s.records.take()
				if invited {
					p = policy.Principal{}
				}
				if len(all) != 1 || all[0].Who != p || all[0].Action != action || all[0].Resource.Kind != use.Resource || all[0].Policy != roles.Authorizer.Version() || all[0].Why == "" {
					t.Errorf("%s by %s left %+v", pattern, p, all)
					continue
				}
				if may := roles.Best(p, action, use.Resource, "").Allow; may == (a.status == 403) || !may && all[0].Permitted {
					t.Errorf("%s by %s is %d %s, and recorded as %+v", pattern, p, a.status, a.body, all[0])
				}
			}
			s.records.failWith(carnet.Errorf(carnet.NoSpace, "the disk is full"))
			shown := "operator-token"
			if invited {
				shown = secret
			}
			if a := call(shown); a.status != http.StatusInsufficientStorage {
				t.Errorf("%s, which could not be recorded, is answered with %d %s", pattern, a.status, a.body)
			}
			s.records.failWith(nil)
		}
	}
	if found < 20 {
		t.Errorf("there are %d routes only", found)
	}
}

// Whatever may be done somewhere may be asked about at each party, by everybody.
func TestEveryQuestionIsAnswered(t *testing.T) {
	s := newServed(t)
	vault, _ := newVault(t)
	vault.Tokens, vault.Guard = tokens, nil
	s.serve(vault)
	kinds := map[policy.ResourceKind]bool{}
	for _, use := range policy.Actions() {
		kinds[use.Resource] = true
	}
	id := "00112233445566778899aabbccddeeff"
	others := []policy.Principal{{Kind: policy.AvatarSelf, Name: id}, {Kind: policy.Application, Name: id}, {Kind: policy.Foreign, Name: "citadel did:key:z6Mk"}}
	for _, role := range policy.Roles() {
		others = append(others, policy.Bearer("alice", role))
	}
	for base, h := range s.handlers {
		ask := func(token string, c api.Check) {
			t.Helper()
			r := httptest.NewRequest("POST", "/v1/check", strings.NewReader(marshal(t, c)))
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			defer func() {
				if why := recover(); why != nil {
					t.Errorf("%s panics when %s asks for %v about %s %s: %v", base, token, c.Principal, c.Action, c.Resource, why)
				}
			}()
			want := 200
			if p := c.Principal; base == s.arenaURL && p != nil && (p.Kind == policy.Application || p.Kind == policy.AvatarSelf) {
				want = 404 // nobody is that
			}
			if h.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s answers %s, about %v, %s and %s, %d %s", base, token, c.Principal, c.Action, c.Resource, w.Code, w.Body)
			}
		}
		for action, use := range policy.Actions() {
			for token, p := range principals {
				if p.Role != "admin" {
					ask(token, api.Check{Action: action, Resource: policy.Resource{Kind: use.Resource, ID: id}})
				}
			}
			for _, p := range others {
				ask("operator-token", api.Check{Principal: &p, Action: action, Resource: policy.Resource{Kind: use.Resource, ID: id}})
			}
			for kind := range kinds {
				ask("alice-token", api.Check{Action: action, Resource: policy.Resource{Kind: kind, ID: id}})
			}
		}
		s.records.take()
	}
}

func TestARouteForNothingIsRefused(t *testing.T) {
	s := newServed(t)
	h := s.handlers[s.hubURL]
	reached := false
	api.AddRoute(h, "GET /v1/new", func(http.ResponseWriter, *http.Request) { reached = true })
	r := httptest.NewRequest("GET", "/v1/new", nil)
	r.Header.Set("Authorization", "Bearer operator-token")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	all := s.records.take()
	if reached || w.Code != 403 || len(all) != 1 || all[0].Permitted {
		t.Errorf("reached %v, answered %d %s, recorded %+v", reached, w.Code, w.Body, all)
	}
}

// What isn't recorded isn't done.
func TestNothingIsDoneUnrecorded(t *testing.T) {
	s := newServed(t)
	s.records.failWith(carnet.Errorf(carnet.NoSpace, "the disk is full"))
	a := ask(t, "POST", s.hubURL+"/v1/things", "operator-token", `{"owner":"alice","description":`+watchDescription+`}`)
	if things, err := s.agent.Things(t.Context(), ""); a.status != 507 || err != nil || len(things) != 0 {
		t.Errorf("answered %d %s, and there are %+v, %v", a.status, a.body, things, err)
	}
	// A refusal stays one.
	if a := ask(t, "GET", s.hubURL+"/v1/status", "alice-token", ""); a.status != 403 {
		t.Errorf("a refusal that isn't recorded is %d %s", a.status, a.body)
	}
}

func TestACreatorAddsThingsOfItsOwn(t *testing.T) {
	s := newServed(t)
	add := func(token, owner string) int {
		return ask(t, "POST", s.hubURL+"/v1/things", token, `{"owner":"`+owner+`","description":`+watchDescription+`}`).status
	}
	if got := []int{add("maker-token", "maker"), add("maker-token", "alice"), add("alice-token", "alice")}; !slices.Equal(got, []int{201, 403, 403}) {
		t.Errorf("a creator's own, another's, and a user's own: %v", got)
	}
	all, err := s.hub("maker-token").Things(t.Context())
	if err != nil || len(all) != 1 || all[0].Owner != "maker" {
		t.Errorf("the creator sees %+v, %v", all, err)
	}
}

func TestAnAuditorSeesNoMeasurement(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	avatar := s.arenaURL + "/v1/avatars/" + m.Avatar.String()
	for path, want := range map[string]int{
		s.hubURL + "/v1/things/watch-7": 200, s.hubURL + "/v1/mappings/" + m.ID.String() + "/views": 200, s.hubURL + "/v1/things/watch-7/refusals": 403,
		avatar: 200, avatar + "/state": 403, avatar + "/history": 403, avatar + "/live": 403, avatar + "/evidence": 403, s.arenaURL + "/v1/status": 200,
	} {
		if a := ask(t, "GET", path, "auditor-token", ""); a.status != want {
			t.Errorf("%s is %d %s, want %d", path, a.status, a.body, want)
		}
	}
}

// A name that is longer than what is decided and recorded is nobody's: it would be decided
// as the name that it begins with.
func TestALongNameIsNoOtherThatItBeginsWith(t *testing.T) {
	s := newServed(t)
	name := strings.Repeat("ä", 128)
	longer := name + "x"
	for _, owner := range []string{name, longer} {
		if _, _, err := s.agent.AddThing(t.Context(), "", owner, []byte(watchDescription)); err != nil {
			t.Fatal(err)
		}
	}
	principals["long-token"] = policy.Bearer(name, policy.User)
	defer delete(principals, "long-token")
	s.records.take()
	for _, c := range []struct {
		token, owner string
		want         int
	}{{"long-token", name, 200}, {"long-token", longer, 404}, {"operator-token", name, 200}, {"operator-token", longer, 404}} {
		if a := ask(t, "GET", s.hubURL+"/v1/owners/"+url.PathEscape(c.owner), c.token, ""); a.status != c.want {
			t.Errorf("%s gets %d %s of an owner of %d bytes", c.token, a.status, a.body, len(c.owner))
		}
		if all := s.records.take(); len(all) != 1 || all[0].Permitted != (c.want == 200) || all[0].Action != "get-owner" {
			t.Errorf("%s left %+v", c.token, all)
		}
	}
	if a := ask(t, "POST", s.hubURL+"/v1/things", "operator-token", `{"owner":"`+longer+`","description":`+watchDescription+`}`); a.status != 400 {
		t.Errorf("a thing of such an owner is answered %d %s", a.status, a.body)
	}
}
