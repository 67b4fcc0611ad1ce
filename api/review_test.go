package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/api"
	"carnet/ledger"
	"carnet/policy"
	"carnet/thing"
)

// review calls the operations of the documents of four parties, and collects what
// they answer: a DPM, a depot, a things agent, and a world that others call.
type review struct {
	*served
	m        thing.MappingInfo // of a watch that has sent
	vaultURL string
	peer     *http.Client // arena, at the depot
	citadel  *caller      // at arena
	seen     map[string]api.Example
}

func newReview(t *testing.T) *review {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{}},"purposes":["fitness"],"send":{"UTC":["mon-sun 00:00-24:00"]}}`)
	d.mustSend(heart(0, 72))
	d.send(carnet.Measurement{Name: "mood", Time: heart(1, 0).Time, Value: carnet.Float(1)})
	s.arrived(m.Avatar, 1)
	s.pinned(m)
	s.asked(m)
	s.recordedOnce()
	vault, peer := newVault(t)
	return &review{served: s, m: m, vaultURL: s.serve(vault), peer: peer, citadel: newCaller(s, m.Avatar), seen: map[string]api.Example{}}
}

// recordedOnce puts a record into arena's activity.
func (s *served) recordedOnce() {
	err := s.activity.Add(s.t.Context(), activity.Record{
		Who: principals["reader-token"], Action: "get-state", Resource: policy.Resource{Kind: policy.AvatarResource, ID: carnet.NewAvatarID().String()}, Via: activity.HTTP,
		Permitted: true, Rule: "service-reads-avatars", Why: "app (service) may get-state: policy service-reads-avatars permits it", Policy: "cded2d0dc1644498",
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// tagsOf are the tags that a document declares: the six reference points, and
// management.
func (r *review) tagsOf(doc map[string]any) map[string]bool {
	known := map[string]bool{}
	for _, tag := range doc["tags"].([]any) {
		name := find(tag, "name").(string)
		if known[name] = true; len(fmt.Sprint(find(tag, "description"))) < 40 {
			r.t.Errorf("the tag %s isn't described", name)
		}
		if !regexp.MustCompile("^(R[1-6]|management: [a-z]+)$").MatchString(name) {
			r.t.Errorf("there is a tag %s", name)
		}
	}
	if len(known) < 7 {
		r.t.Errorf("the tags are %v", known)
	}
	return known
}

// question is a call, as it is on the wire.
type question struct {
	op      operation
	base    string
	path    map[string]string
	query   url.Values
	header  http.Header
	body    string
	noToken bool
}

// question makes the example of an operation's request, with the ids of what is
// there and what somebody must sign in the place of the document's.
func (r *review) question(base string, op operation) question {
	q := question{op: op, base: base, header: http.Header{}, query: url.Values{}, path: map[string]string{
		"name": "alice", "peer": "gym", "invitation": invitation, "world": "citadel", "avatar": carnet.NewAvatarID().String(),
		"id": map[string]string{r.hubURL: "watch-7", r.arenaURL: r.m.Avatar.String()}[base],
	}}
	if v, err := url.ParseQuery(strings.TrimPrefix(query(r.t, op), "?")); err == nil {
		q.query = v
	}
	parameters, _ := op.doc["parameters"].([]any)
	for _, p := range parameters {
		name, example := find(p, "name").(string), find(p, "example")
		switch in := find(p, "in"); {
		case in == "header" && example != nil:
			q.header.Set(name, fmt.Sprint(example))
		case in == "path" && example == nil:
			r.t.Errorf("%s has no example of %s", op.id, name)
		case in == "path" && (strings.HasPrefix(op.path, "/r2/") || strings.HasPrefix(op.path, "/r6/") || name == "share"):
			q.path[name] = fmt.Sprint(example)
		}
	}
	if example, media := exampleOf(op); example != nil {
		q.header.Set("Content-Type", media)
		switch media {
		case "application/json":
			q.body = marshal(r.t, example)
		case "application/x-www-form-urlencoded":
			form := url.Values{}
			for k, v := range example.(map[string]any) {
				form.Set(k, fmt.Sprint(v))
			}
			q.body = form.Encode()
		default:
			q.body = example.(string)
		}
	}
	r.fill(&q)
	return q
}

// fill puts in what the document can't have.
func (r *review) fill(q *question) {
	set := func(id, body string) {
		if id != "" {
			q.path["id"] = id
		}
		if body != "" {
			q.body = body
		}
	}
	switch op := q.op; {
	case op.id == "state-entries":
		q.header.Set("Content-Type", "application/cbor")
		q.body = string(ledger.MarshalEntries([]ledger.Entry{ledger.NewSalt()}))
	case strings.HasPrefix(op.path, "/r2/homes/"), strings.HasPrefix(op.path, "/r2/crossings/"), op.path == "/r2/erased", op.path == "/r2/homes":
		asksTheRegister(r.t, q)
	case op.id == "watch-avatar", op.id == "call-live":
		q.query.Set("after", "") // from the beginning
	case strings.HasPrefix(op.path, "/r5/"):
		r.citadel.fill(q)
	case strings.HasPrefix(op.path, "/v1/mappings/"):
		set(r.m.ID.String(), "")
		set(r.signed(op.id, r.m))
	case strings.HasPrefix(op.path, "/v1/shares"):
		set(r.sharing(op.id, r.m))
	case strings.HasPrefix(op.path, "/v1/crossings"):
		set(r.moving(op.id))
	case strings.HasPrefix(op.path, "/v1/erasures"):
		set(r.erases(op.id))
	case strings.HasPrefix(op.path, "/v1/recoveries"):
		if op.id == "begin-recovery" || op.id == "put-stretch" {
			q.header.Set("Content-Type", "application/octet-stream")
		}
		set(r.recovers(op.id))
	case strings.HasPrefix(op.path, "/r6/"):
		r.atForge(q, r.m.Avatar)
	case q.base == r.hubURL && strings.HasPrefix(op.path, "/v1/jobs"):
		set(r.ofOwnJob(op.id), "")
	case q.base == r.hubURL && strings.HasPrefix(op.path, "/v1/modules"):
		set(r.ofModule(r.own, op.id))
	case strings.HasPrefix(op.path, "/v1/jobs"):
		set(r.ofJob(op.id, r.m.Avatar, q.body))
	case strings.HasPrefix(op.path, "/v1/modules"):
		set(r.ofModule(r.jobs, op.id))
	case strings.HasPrefix(op.path, "/v1/items"):
		set(r.ofItem(op.id, r.m.Avatar))
	case slices.Contains([]string{"remove-principal", "assess-grant", "give-grant", "get-grant", "revoke-grant"}, op.id):
		set(r.granting(op.id, r.m))
	default:
		set(r.signed(op.id, r.m))
	}
}

// put puts a question to whom the document says.
func (r *review) put(q question) answered {
	path := q.op.path
	for name, value := range q.path {
		path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(value))
	}
	at, with, token := q.base, http.DefaultClient, "operator-token"
	switch {
	case strings.HasPrefix(path, "/r2/"), strings.HasPrefix(path, "/r6/"):
		at, with, token = r.server(q), r.peer, "" // who trusts one test server trusts all
	case strings.HasPrefix(path, "/r5/"):
		at, with, token = r.server(q), r.citadel.http, ""
	case strings.HasPrefix(path, "/v1/peerings/"):
		token = secret
	case q.base == r.hubURL && strings.HasPrefix(path, "/v1/jobs"):
		token = "alice-token" // whose they are
	}
	if len(q.query) > 0 {
		path += "?" + q.query.Encode()
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, q.op.method, at+path, strings.NewReader(q.body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header = q.header
	if token != "" && !q.noToken {
		request.Header.Set("Authorization", "Bearer "+token)
	} else {
		request.Header.Del("Authorization")
	}
	if strings.HasPrefix(path, "/r5/") && !q.noToken {
		r.citadel.prove(request)
	}
	a, err := with.Do(request)
	if err != nil {
		r.t.Fatalf("%s: %v", q.op.id, err)
	}
	defer a.Body.Close()
	if a.Header.Get("Content-Type") == "text/event-stream" {
		return answered{a.StatusCode, a.Header, untilAnEvent(r.t, a.Body)}
	}
	body, err := io.ReadAll(a.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answered{a.StatusCode, a.Header, string(body)}
}

// server is where a document says that a path is served.
func (r *review) server(q question) string {
	servers, _ := find(openAPI(r.t, q.base), "paths", q.op.path, "servers").([]any)
	if len(servers) != 1 {
		r.t.Fatalf("%s has the servers %v", q.op.path, servers)
	}
	return find(servers[0], "url").(string)
}

// untilAnEvent reads an event stream up to the first event with data.
func untilAnEvent(t testing.TB, body io.Reader) (text string) {
	t.Helper()
	lines, data := bufio.NewScanner(body), false
	for lines.Scan() {
		text += lines.Text() + "\n"
		data = data || strings.HasPrefix(lines.Text(), "data: ")
		if data && lines.Text() == "" {
			return text
		}
	}
	t.Fatalf("no event, but %q: %v", text, lines.Err())
	return ""
}

// answered collects what an operation answered.
func (r *review) answered(base string, op operation, a answered) {
	kind := a.header.Get("Content-Type")
	if slices.Contains([]string{"exchange-token", "give-share", "get-object", "get-own-shelf", "read-shelf", "read-shelved", "enrol-home", "get-home", "claim-home", "erase-home", "ask-homes", "list-erased", "decide-crossing"}, op.id) || !readable(kind) { // their examples stand in the code
		return
	}
	var body any = neutralise(a.body)
	if strings.HasSuffix(kind, "json") {
		body = parsed(r.t, body.(string))
	}
	e := r.seen[op.id]
	e.Answer = &api.ExampleAnswer{Status: a.status, Type: kind, Body: body}
	r.seen[op.id] = e
}

func readable(kind string) bool {
	return strings.HasSuffix(kind, "json") || strings.HasPrefix(kind, "text/") || kind == "application/vc+jwt"
}

func parsed(t testing.TB, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// What the refusals ask for: nobody has these.
const (
	nobody  = "ffffffffffffffffffffffffffffffff"
	nothing = "0000000000000000000000000000000000000000000000000000000000000000"
)

// differing is how an operation is called so that it refuses; ok is false where it
// doesn't.
func differing(op operation) (summary string, c api.Call, ok bool) {
	switch op.id {
	case "get-health", "get-totals", "get-checkpoint", "get-tile", "state-entries", "get-offer":
		return "", c, false
	case "submit-job":
		return "Under another job's id than the order's.", api.Call{Path: map[string]string{"job": nobody}}, true
	case "withdraw-job":
		return "Under another job's id than the withdrawal's.", api.Call{Path: map[string]string{"job": nobody}}, true
	case "get-history", "get-evidence":
		return "With a time that is none.", api.Call{Query: map[string]string{"from": "yesterday"}}, true
	case "list-activity":
		return "After a record that is none.", api.Call{Query: map[string]string{"after": "last"}}, true
	case "list-objects":
		return "With a limit of none.", api.Call{Query: map[string]string{"limit": "0"}}, true
	case "put-object":
		return "Under another fingerprint than the bytes have.", api.Call{Path: map[string]string{"fingerprint": nothing}}, true
	case "get-own-shelf", "delete-shelf":
		return "There is no such shelf.", api.Call{Path: map[string]string{"taker": "nobody"}}, true
	case "read-shelf":
		return "Of who has nothing for the caller.", api.Call{Query: map[string]string{"of": "nobody"}}, true
	case "get-object", "delete-object", "read-shelved":
		return "An object that isn't there, or is another party's.", api.Call{Path: map[string]string{"fingerprint": nothing}}, true
	case "get-home":
		return "There is no such home.", api.Call{Path: map[string]string{"home": nobody}}, true
	case "list-erased", "ask-homes":
		return "With a member that nobody knows.", api.Call{Body: json.RawMessage(`{"home":[]}`)}, true
	case "add-thing":
		return "Without a description.", api.Call{Body: json.RawMessage(`{"owner":"alice"}`)}, true
	case "set-view":
		return "A view that names no properties.", api.Call{Body: json.RawMessage(`{"purposes":["fitness"]}`)}, true
	case "answer-invitation", "get-confirmation":
		return "Without the invitation's secret.", api.Call{NoToken: true}, true
	}
	for name, absent := range map[string][2]string{
		"/v1/things/{id}": {"watch-9", "thing"}, "/v1/mappings/{id}": {nobody, "mapping"}, "/v1/items/{id}": {nobody, "item"}, "/v1/jobs/{id}": {nobody, "job"}, "/r6/jobs/{job}": {nobody, "job"}, "/v1/modules/{id}": {"nothing@1.0.0", "module"}, "/v1/avatars/{id}": {nobody, "avatar"}, "/v1/grants/{id}": {nobody, "grant"},
		"/v1/principals/{id}": {nobody, "principal"}, "/v1/shares/{id}": {nobody, "share"}, "/v1/crossings/{id}": {nobody, "crossing"}, "/v1/erasures/{id}": {nobody, "erasure"}, "/v1/recoveries/{id}": {nobody, "recovery"}, "/v1/mandates/{id}": {nobody, "request"},
		"/v1/peers/{peer}": {"nobody", "peer"}, "/v1/owners/{name}": {"nobody", "owner"},
	} {
		if strings.HasPrefix(op.path, name) {
			part := strings.Trim(regexp.MustCompile(`\{[a-z]+\}`).FindString(name), "{}")
			return "There is no such " + absent[1] + ", or it is hidden from the caller.", api.Call{Path: map[string]string{part: absent[0]}}, true
		}
	}
	if op.doc["requestBody"] != nil {
		return "With nothing in the body.", api.Call{Body: json.RawMessage(`{}`)}, true
	}
	return "Without a token.", api.Call{NoToken: true}, true
}

// refused has an operation refuse, and collects how.
func (r *review) refused(base string, op operation, q question, check func(name, text string)) {
	if strings.HasPrefix(op.path, "/r5/") {
		q.noToken = true
		a := r.put(q)
		for where, outside := range map[string]any{"401": find(op.doc, "responses", "401", "content", "application/problem+json", "example")} {
			if fmt.Sprint(a.status) != where || !reflect.DeepEqual(parsed(r.t, a.body), outside) {
				r.t.Errorf("%s refuses with %d %s, and the document has %v", op.id, a.status, a.body, outside)
			}
		}
		return
	}
	summary, c, ok := differing(op)
	if !ok {
		return
	}
	maps.Copy(q.path, c.Path)
	for k, v := range c.Query {
		q.query.Set(k, v)
	}
	if c.Body != nil {
		q.body = string(c.Body)
	}
	q.noToken = c.NoToken
	a := r.put(q)
	if a.status < 400 || a.status >= 500 || strings.HasPrefix(summary, "There is no such") != (a.status == http.StatusNotFound) && op.id != "get-object" && op.id != "delete-object" && op.id != "read-shelf" && op.id != "read-shelved" {
		r.t.Errorf("%s. %s is answered with %d %s", op.id, summary, a.status, a.body)
		return
	}
	check(op.id+"'s refusal", a.body)
	e := r.seen[op.id]
	e.Refusal = &api.ExampleRefusal{Summary: summary, Call: c, Problem: problemIn(r.t, answered{a.status, a.header, neutralise(a.body)})}
	r.seen[op.id] = e
}

const recording = "examples.json"

// compare holds what was answered against the examples, or records it.
func (r *review) compare() {
	if *record {
		for id, e := range r.seen {
			if e.Answer != nil {
				e.Answer.Body = shortened(e.Answer.Body)
			}
			r.seen[id] = e
		}
		b, err := json.MarshalIndent(r.seen, "", " ")
		if err == nil {
			err = os.WriteFile(recording, append(b, '\n'), 0o644)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(recording)
	if err != nil {
		r.t.Fatal(err)
	}
	var have map[string]api.Example
	if err := json.Unmarshal(text, &have); err != nil {
		r.t.Fatal(err)
	}
	for id, now := range r.seen {
		then := have[id]
		if !reflect.DeepEqual(now.Refusal, canonical(then.Refusal)) {
			r.t.Errorf("%s refuses with %s, and examples.json has %s (go test ./api -run %s -record)", id, marshal(r.t, now.Refusal), marshal(r.t, then.Refusal), r.t.Name())
		}
		if then.Answer == nil || now.Answer == nil {
			if then.Answer != now.Answer {
				r.t.Errorf("%s has an example of an answer, or none: %v, %v", id, now.Answer, then.Answer)
			}
			continue
		}
		if then.Answer.Status != now.Answer.Status || then.Answer.Type != now.Answer.Type || !within(shape("", then.Answer.Body), shape("", now.Answer.Body)) {
			r.t.Errorf("%s answers %d %s %s, and examples.json has %s (go test ./api -run %s -record)", id, now.Answer.Status, now.Answer.Type, marshal(r.t, now.Answer.Body), marshal(r.t, then.Answer), r.t.Name())
		}
	}
	for id := range have {
		if _, ok := r.seen[id]; !ok {
			r.t.Errorf("examples.json has %s, which nobody answers", id)
		}
	}
}

// canonical is a refusal with its body in one form.
func canonical(e *api.ExampleRefusal) *api.ExampleRefusal {
	if e != nil && e.Call.Body != nil {
		var v any
		if json.Unmarshal(e.Call.Body, &v) == nil {
			e.Call.Body, _ = json.Marshal(v)
		}
	}
	return e
}

// shortened is a value with no list longer than two.
func shortened(v any) any {
	switch v := v.(type) {
	case []any:
		short := []any{}
		for _, e := range v[:min(len(v), 2)] {
			short = append(short, shortened(e))
		}
		return short
	case map[string]any:
		for k := range v {
			v[k] = shortened(v[k])
		}
	}
	return v
}

// shape lists the places in a value, and what stands there.
func shape(at string, v any) map[string]bool {
	all := map[string]bool{}
	switch v := v.(type) {
	case []any:
		all[at+"[]"] = true
		for _, e := range v {
			maps.Copy(all, shape(at+"[]", e))
		}
	case map[string]any:
		all[at+"{}"] = true
		for k, e := range v {
			maps.Copy(all, shape(at+"."+k, e))
		}
	default:
		all[fmt.Sprintf("%s %T", at, v)] = true
	}
	return all
}

func within(small, large map[string]bool) bool {
	for at := range small {
		if !large[at] {
			return false
		}
	}
	return true
}

// varying is what is another each time, with what stands for it in the examples.
var varying = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{2,}`), "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiIifQ.AA"},
	{regexp.MustCompile(`z6Mk[1-9A-HJ-NP-Za-km-z]{44}`), "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), carnet.FingerprintOf([]byte("sealed bytes")).String()},
	{regexp.MustCompile(`\b[a-z2-7]{26,}\b`), "abcdefghijklmnopqrstuvwxyz234567"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "2026-11-28T12:00:00Z"},
	{regexp.MustCompile(`"(b?t)":\d[0-9.e+]*`), `"$1":1795867200`},
	{regexp.MustCompile(`(?m)^id: .*$`), "id: AQIDBA"},
	{regexp.MustCompile(`\b[A-Za-z0-9+/]{43,}=`), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
}

var hex = regexp.MustCompile(`\b[0-9a-f]{32}\b`)

// neutralise replaces what varies.
func neutralise(text string) string {
	ids := map[string]string{nobody: nobody}
	text = hex.ReplaceAllStringFunc(text, func(id string) string {
		if ids[id] == "" {
			ids[id] = fmt.Sprintf("%02x112233445566778899aabbccddeeff", len(ids)-1)
		}
		return ids[id]
	})
	for _, v := range varying {
		text = v.what.ReplaceAllStringFunc(text, func(found string) string {
			if found == nobody || found == nothing {
				return found
			}
			return v.what.ReplaceAllString(found, v.with)
		})
	}
	return text
}
