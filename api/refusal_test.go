package api_test

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/api"
)

// problemIn reads a refusal, and holds it to its form.
func problemIn(t testing.TB, a answered) api.Problem {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	var p api.Problem
	if err := d.Decode(&p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%d %s %s is no problem document: %v", a.status, a.header.Get("Content-Type"), a.body, err)
	}
	if p.Status != a.status || p.Title == "" || p.Detail == "" || p.Code == "" {
		t.Errorf("the problem %+v of status %d leaves something out", p, a.status)
	}
	return p
}

func TestBadBodiesAreRefused(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	td := watchDescription
	things, mappings, aView := "/v1/things", "/v1/things/watch-7/mappings", "/v1/mappings/"+m.ID.String()+"/view"
	for _, c := range []struct {
		what, method, path, body string
		status                   int
		says                     string
	}{
		{"no body", "POST", things, ``, 400, "body"},
		{"no JSON", "POST", things, `{`, 400, "body"},
		{"more after the JSON", "POST", things, `{"owner":"alice","description":{}} x`, 400, "body"},
		{"an array", "POST", things, `[]`, 422, "object"},
		{"an unknown field", "POST", things, `{"owner":"alice","description":{},"colour":"red"}`, 422, "colour"},
		{"no owner", "POST", things, `{"description":{}}`, 422, "owner"},
		{"an empty owner", "POST", things, `{"owner":"","description":{}}`, 422, "owner"},
		{"an owner that is no text", "POST", things, `{"owner":7,"description":{}}`, 422, "owner"},
		{"an owner twice", "POST", things, `{"owner":"alice","owner":"bob","description":` + td + `}`, 400, "twice"},
		{"an owner twice in other letters", "POST", things, `{"owner":"alice","OWNER":"bob","description":` + td + `}`, 400, "twice"},
		{"no description", "POST", things, `{"owner":"alice"}`, 422, "description"},
		{"a description that is none", "POST", things, `{"owner":"alice","description":{"title":"x"}}`, 400, "context"},
		{"a description that is text", "POST", things, `{"owner":"alice","description":"x"}`, 422, "description"},
		{"a bad id", "POST", things, `{"id":"Watch 7","owner":"alice","description":` + td + `}`, 400, "thing id"},
		{"an id that is taken", "POST", things, `{"id":"watch-7","owner":"alice","description":` + td + `}`, 409, "already"},
		{"a body too large", "POST", things, `{"owner":"alice","description":{"x":"` + strings.Repeat("x", 1<<20+64<<10) + `"}}`, 413, "bytes"},
		{"a body too deep", "POST", things, `{"owner":"alice","description":` + strings.Repeat(`{"x":`, 60) + `1` + strings.Repeat(`}`, 60) + `}`, 400, "deeper"},
		{"an unknown world", "POST", mappings, `{"world":"nowhere","view":{"properties":{}}}`, 404, "nowhere"},
		{"an avatar that the world doesn't have", "POST", mappings, `{"world":"arena","avatar":"00112233445566778899aabbccddeeff","view":{"properties":{}}}`, 404, "avatar"},
		{"an avatar that is none", "POST", mappings, `{"world":"arena","avatar":"7","view":{"properties":{}}}`, 422, "avatar"},
		{"no view", "POST", mappings, `{"world":"arena"}`, 422, "view"},
		{"a view without properties", "PUT", aView, `{}`, 422, "properties"},
		{"a view with an unknown field", "PUT", aView, `{"properties":{},"speed":1}`, 422, "speed"},
		{"a property with an unknown field", "PUT", aView, `{"properties":{"heart_rate":{"precision":5}}}`, 422, "precision"},
		{"a property twice", "PUT", aView, `{"properties":{"heart_rate":{},"heart_rate":{"round":5}}}`, 400, "twice"},
		{"a rate that is none", "PUT", aView, `{"properties":{"heart_rate":{"rate":"often"}}}`, 422, "duration"},
		{"a retention that is none", "PUT", aView, `{"properties":{},"retention":"week"}`, 422, "retention"},
		{"a number that is none", "PUT", aView, `{"properties":{"heart_rate":{"round":-1}}}`, 422, "number"},
	} {
		a := ask(t, c.method, s.hubURL+c.path, "operator-token", c.body)
		if p := problemIn(t, a); a.status != c.status || !strings.Contains(strings.ToLower(p.Detail+p.Fix), c.says) {
			t.Errorf("%s is answered with %d %+v, want %d and %q", c.what, a.status, p, c.status, c.says)
		}
	}
	if a := ask(t, "PUT", s.hubURL+aView, "operator-token", `{"properties":{}}`, "Content-Type: text/plain"); a.status != 415 {
		t.Errorf("a body of another type is answered with %d %s", a.status, a.body)
	}
	if things, err := s.agent.Things(t.Context(), ""); err != nil || len(things) != 1 || things[0].Mappings[0].PolicyVersion != m.PolicyVersion {
		t.Errorf("after refusals the things are %+v, %v", things, err)
	}
}

// Without a token, or with one that may not, the answer is the same whether
// there is something or not.
func TestRefusalsTellNothing(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	for _, c := range []struct{ base, there, absent string }{
		{s.hubURL, "/v1/things/watch-7", "/v1/things/watch-8"},
		{s.hubURL, "/v1/mappings/" + m.ID.String(), "/v1/mappings/" + carnet.NewMappingID().String()},
		{s.hubURL, "/v1/owners/alice", "/v1/owners/nobody"},
		{s.arenaURL, "/v1/avatars/" + m.Avatar.String(), "/v1/avatars/" + carnet.NewAvatarID().String()},
		{s.arenaURL, "/v1/avatars/" + m.Avatar.String() + "/live", "/v1/avatars/" + carnet.NewAvatarID().String() + "/live"},
	} {
		for _, token := range []string{"", "guess", "odd-token"} {
			there, absent := ask(t, "GET", c.base+c.there, token, ""), ask(t, "GET", c.base+c.absent, token, "")
			if there.status != absent.status || there.body != absent.body || there.status < 401 || there.status > 403 {
				t.Errorf("%s with %q: %d %s, and the absent one %d %s", c.there, token, there.status, there.body, absent.status, absent.body)
			}
		}
	}
	if a, b := ask(t, "GET", s.hubURL+"/v1/nothing", "", ""), ask(t, "GET", s.hubURL+"/v1/things", "", ""); a.body != b.body || a.status != b.status {
		t.Errorf("without a token a path that isn't there is %d %s, one that is %d %s", a.status, a.body, b.status, b.body)
	}
}

func TestPathsAndMethods(t *testing.T) {
	s := newServed(t)
	if a := ask(t, "GET", s.hubURL+"/v1/nothing", "operator-token", ""); a.status != 404 || problemIn(t, a).Code != carnet.NotFound {
		t.Errorf("no such path is %d %s", a.status, a.body)
	}
	if a := ask(t, "PATCH", s.hubURL+"/v1/things", "operator-token", ""); a.status != 405 || a.header.Get("Allow") == "" || problemIn(t, a).Status != 405 {
		t.Errorf("no such method is %d %v %s", a.status, a.header, a.body)
	}
	if a := ask(t, "GET", s.hubURL+"/v1/avatars", "operator-token", ""); a.status != 404 {
		t.Errorf("a world's path at a things agent is %d", a.status)
	}
	if a := ask(t, "GET", s.hubURL+"/v1/things?colour=red", "operator-token", ""); a.status != 422 || !strings.Contains(problemIn(t, a).Detail, "colour") {
		t.Errorf("an unknown parameter is %d %s", a.status, a.body)
	}
	if a := ask(t, "GET", s.hubURL+"/v1/things", "operator-token", "", "Accept: image/png"); a.status != 406 {
		t.Errorf("an unknown form is %d %s", a.status, a.body)
	}
	if a := ask(t, "GET", s.hubURL+"/v1/mappings/7", "operator-token", ""); a.status != 422 {
		t.Errorf("an id that is none is %d %s", a.status, a.body)
	}
}

func TestEveryAnswerIsGuarded(t *testing.T) {
	s := newServed(t)
	const nothing = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	for _, path := range append(api.Open(), "/v1/things", "/v1/nothing", "/docs/nothing") {
		for _, token := range []string{"", "operator-token"} {
			h := ask(t, "GET", s.hubURL+path, token, "").header
			policy := nothing
			if path == "/docs" {
				policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; " +
					"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
			}
			for name, want := range map[string]string{
				"Content-Security-Policy": policy,
				"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
				"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "", "Strict-Transport-Security": "",
			} {
				if got := h.Get(name); got != want {
					t.Errorf("%s has %s %q, want %q", path, name, got, want)
				}
			}
		}
	}
}

// The page loads its own files, and nothing else; without its script it says all
// that it says.
func TestThePageLoadsItsOwnFilesOnly(t *testing.T) {
	s := newServed(t)
	for _, base := range []string{s.hubURL, s.arenaURL} {
		page := ask(t, "GET", base+"/docs", "", "").body
		loaded := regexp.MustCompile(`<(?:script|link|img)[^>]*? (?:src|href)="([^"]*)"`).FindAllStringSubmatch(page, -1)
		for _, l := range loaded {
			if a := ask(t, "GET", base+l[1], "", ""); a.status != 200 || !slices.Contains(api.Open(), l[1]) || a.body == "" {
				t.Errorf("the page loads %s, which is %d", l[1], a.status)
			}
		}
		if len(loaded) != 4 {
			t.Errorf("the page loads %v", loaded)
		}
		if found := regexp.MustCompile(`<script(?: [^>]*)?>[^<]|<style| style=| on[a-z]+=|javascript:|(?:src|href)="(?:https?:)?//`).FindString(page); found != "" {
			t.Errorf("the page has %q", found)
		}
		for _, name := range []string{"page.css", "try.js"} {
			if found := regexp.MustCompile(`https?://|@import|innerHTML|\beval\b|Storage|document\.cookie`).FindString(ask(t, "GET", base+"/docs/"+name, "", "").body); found != "" {
				t.Errorf("%s has %q", name, found)
			}
		}
		for _, op := range operations(t, base) {
			article := regexp.MustCompile(`(?s)<article class="op" id="` + op.id + `">.*?</article>`).FindString(page)
			text := html.UnescapeString(article)
			for _, what := range []string{op.method, op.path, op.summary, ">200<|>201<|>204<", "problem+json"} {
				if !slices.ContainsFunc(strings.Split(what, "|"), func(one string) bool { return strings.Contains(text, one) }) {
					t.Errorf("the page says of %s nothing of %s", op.id, what)
				}
			}
			if find(op.doc, "responses", "default", "content", "application/problem+json", "examples", "refused") != nil && !strings.Contains(article, "A refusal") {
				t.Errorf("the page has no refusal of %s", op.id)
			}
		}
	}
	if strings.Contains(ask(t, "GET", s.hubURL+"/docs", "", "").body, "ten lines") || !strings.Contains(ask(t, "GET", s.arenaURL+"/docs", "", "").body, "ten lines") {
		t.Error("a world's page says how an avatar is read, and no other party's does")
	}
}

// failing is a transport that answers something that is not this API's.
type failing struct {
	status int
	body   string
}

func (f failing) RoundTrip(*http.Request) (*http.Response, error) {
	if f.status == 0 {
		return nil, fmt.Errorf("connection refused")
	}
	return &http.Response{StatusCode: f.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(f.body))}, nil
}

func TestTheClientTellsWhatAnswersOddly(t *testing.T) {
	for _, c := range []struct {
		transport failing
		code      carnet.Code
	}{
		{failing{}, carnet.Unavailable},
		{failing{502, "<html>bad gateway"}, carnet.Unavailable},
		{failing{503, `{"code":"unavailable","detail":"wait"}`}, carnet.Unavailable},
		{failing{409, `{"code":"conflict","detail":"changed"}`}, carnet.Conflict},
		{failing{200, `not JSON`}, ""},
	} {
		s := &served{}
		client := s.hub("operator-token")
		client.Base, client.HTTP = "http://hub.example", &http.Client{Transport: c.transport}
		if _, err := client.Things(t.Context()); err == nil || carnet.CodeOf(err) != c.code {
			t.Errorf("%+v is %v", c.transport, err)
		}
	}
}

// Who opens a party's address in a browser is told of the page there, and nobody else is.
func TestABrowserIsToldOfThePage(t *testing.T) {
	s := newServed(t)
	if a := ask(t, "GET", s.arenaURL+"/", "", ""); a.status != http.StatusUnauthorized || !strings.Contains(string(a.body), "what can be asked here is at /docs") {
		t.Errorf("at / it is %d %s", a.status, a.body)
	}
	if a := ask(t, "GET", s.arenaURL+"/v1/avatars", "", ""); a.status != http.StatusUnauthorized || strings.Contains(string(a.body), "/docs") {
		t.Errorf("at a call it is %d %s", a.status, a.body)
	}
}
