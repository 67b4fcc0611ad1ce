package depot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/bodies"
	"carnet/ledger"
	"carnet/problem"
)

// callerHeader stands for mutual TLS in these tests.
const callerHeader = "Test-Caller"

func testCaller(r *http.Request) (carnet.PartyID, error) {
	if who := r.Header.Get(callerHeader); who != "" {
		return carnet.PartyID(who), nil
	}
	return "", carnet.Errorf(carnet.Unauthenticated, "no certificate")
}

// as makes requests for a party.
type as struct {
	who carnet.PartyID
	via http.RoundTripper
}

func (a as) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(callerHeader, string(a.who))
	return a.via.RoundTrip(r)
}

// serve starts a depot behind HTTP/2 and returns how a party reaches it.
func serve(t testing.TB, files bodies.Files) (a *Agent, client func(carnet.PartyID) *Client) {
	t.Helper()
	a, _ = start(t, testConfig(t, t.TempDir(), newStore()), files)
	s := httptest.NewUnstartedServer(a.Handler(testCaller))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return a, func(who carnet.PartyID) *Client {
		return &Client{Base: s.URL, HTTP: &http.Client{Transport: as{who, s.Client().Transport}}}
	}
}

func TestPartiesReachTheDepotOverR2(t *testing.T) {
	ctx := t.Context()
	a, client := serve(t, bodies.Disk{})
	arena, clinic := client("arena"), client("clinic")

	f, err := arena.PutObject(ctx, []byte("sealed bytes"), carnet.Year)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := arena.GetObject(ctx, f); string(got) != "sealed bytes" || err != nil {
		t.Errorf("get: %q, %v", got, err)
	}
	_, hidden := clinic.GetObject(ctx, f)
	_, absent := clinic.GetObject(ctx, carnet.Fingerprint{1})
	if carnet.CodeOf(hidden) != carnet.NotFound || carnet.CodeOf(absent) != carnet.NotFound {
		t.Errorf("hidden %v, absent %v", hidden, absent)
	}

	entries := []ledger.Entry{ledger.NewSalt(), ledger.NewSalt()}
	receipts, err := clinic.Submit(ctx, entries)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range receipts {
		if err := ledger.VerifyReceipt(a.Key(), entries[i], r); err != nil {
			t.Error(err)
		}
	}
	signed, err := arena.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if cp, err := ledger.ParseCheckpoint(a.Key(), signed); err != nil || cp.Size != 2 {
		t.Errorf("checkpoint %+v, %v", cp, err)
	}
	if total, err := arena.Totals(ctx); total != (TotalsAnswer{Objects: 1, Bytes: 12, Statements: 2}) || err != nil {
		t.Errorf("arena's totals %+v, %v", total, err)
	}
	if total, err := clinic.Totals(ctx); total != (TotalsAnswer{Statements: 2}) || err != nil {
		t.Errorf("clinic's totals %+v, %v", total, err)
	}
	if err := arena.DeleteObject(ctx, f); err != nil {
		t.Error(err)
	}
	if _, err := arena.GetObject(ctx, f); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("after deleting: %v", err)
	}
}

// request makes one request as a party and returns status, header and body.
func request(t *testing.T, h http.Handler, who, method, path string, header map[string]string, body io.Reader) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, body)
	r.Header.Set(callerHeader, who)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRefusalsAreProblemsWithCodeAndReason(t *testing.T) {
	a, _ := start(t, testConfig(t, t.TempDir(), newStore()), bodies.Disk{})
	h := a.Handler(testCaller)
	month := map[string]string{retentionHeader: "month"}
	name := carnet.FingerprintOf([]byte("x")).String()
	big := strings.NewReader(strings.Repeat("x", 1<<20+1))
	unsized := struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 1<<20+1))}
	for what, c := range map[string]struct {
		who, method, path string
		header            map[string]string
		body              io.Reader
		status            int
		code              carnet.Code
	}{
		"no certificate":        {"", "GET", "/r2/totals", nil, nil, 401, carnet.Unauthenticated},
		"no CBOR":               {"hub", "POST", "/r2/statements", nil, strings.NewReader("[]"), 400, carnet.Malformed},
		"no statements":         {"hub", "POST", "/r2/statements", nil, nil, 400, carnet.Malformed},
		"short entry":           {"hub", "POST", "/r2/statements", nil, bytes.NewReader([]byte{0x81, 0x41, 1}), 400, carnet.Malformed},
		"too many entries":      {"hub", "POST", "/r2/statements", nil, bytes.NewReader(ledger.MarshalEntries(make([]ledger.Entry, ledger.MaxEntries+1))), 413, carnet.TooLarge},
		"too much of a list":    {"hub", "POST", "/r2/statements", nil, strings.NewReader(strings.Repeat("x", maxStatements+1)), 413, carnet.TooLarge},
		"not a fingerprint":     {"hub", "GET", "/r2/objects/xyz", nil, nil, 400, carnet.Malformed},
		"absent":                {"hub", "GET", "/r2/objects/" + name, nil, nil, 404, carnet.NotFound},
		"delete absent":         {"hub", "DELETE", "/r2/objects/" + name, nil, nil, 404, carnet.NotFound},
		"no retention":          {"hub", "PUT", "/r2/objects/" + name, nil, strings.NewReader("x"), 400, carnet.Malformed},
		"unknown retention":     {"hub", "PUT", "/r2/objects/" + name, map[string]string{retentionHeader: "ever"}, strings.NewReader("x"), 400, carnet.Malformed},
		"other bytes":           {"hub", "PUT", "/r2/objects/" + name, month, strings.NewReader("y"), 422, carnet.Tampered},
		"too large":             {"hub", "PUT", "/r2/objects/" + name, month, big, 413, carnet.TooLarge},
		"too large, not saying": {"hub", "PUT", "/r2/objects/" + name, month, unsized, 413, carnet.TooLarge},
		"limit 0":               {"hub", "GET", "/r2/objects?limit=0", nil, nil, 400, carnet.Malformed},
		"limit too large":       {"hub", "GET", "/r2/objects?limit=1001", nil, nil, 400, carnet.Malformed},
		"after not a hash":      {"hub", "GET", "/r2/objects?after=1", nil, nil, 400, carnet.Malformed},
	} {
		w := request(t, h, c.who, c.method, c.path, c.header, c.body)
		var p problem.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("%s: status %d: %v: %s", what, w.Code, err, w.Body)
			continue
		}
		if w.Code != c.status || p.Status != c.status || p.Code != c.code || p.Detail == "" || w.Header().Get("Content-Type") != problem.Type {
			t.Errorf("%s: status %d, %+v, want %d and %s", what, w.Code, p, c.status, c.code)
		}
	}
	if total, err := a.Totals(t.Context(), ""); err != nil || total != (Totals{}) {
		t.Errorf("refused and stored: %+v, %v", total, err)
	}
}

func TestInnerFailuresSayNothingOutside(t *testing.T) {
	store := newStore()
	a, _ := start(t, testConfig(t, t.TempDir(), store), bodies.Disk{})
	store.fail = errors.New("secret path /var/lib")
	f := carnet.FingerprintOf([]byte("x"))
	w := request(t, a.Handler(testCaller), "hub", "PUT", "/r2/objects/"+f.String(), map[string]string{retentionHeader: "month"}, strings.NewReader("x"))
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestAFullDepotSaysWhenToComeBack(t *testing.T) {
	files := &faultyDisk{}
	a, client := serve(t, files)
	files.set("write", syscall.ENOSPC)
	if _, err := client("hub").PutObject(t.Context(), []byte("x"), carnet.Month); carnet.CodeOf(err) != carnet.NoSpace {
		t.Errorf("client: %v", err)
	}
	f := carnet.FingerprintOf([]byte("x"))
	w := request(t, a.Handler(testCaller), "hub", "PUT", "/r2/objects/"+f.String(), map[string]string{retentionHeader: "month"}, strings.NewReader("x"))
	if w.Code != http.StatusInsufficientStorage || w.Header().Get("Retry-After") != "1" {
		t.Errorf("status %d, header %v", w.Code, w.Header())
	}
}

func TestListingGoesOnAfterAFingerprint(t *testing.T) {
	a, _ := start(t, testConfig(t, t.TempDir(), newStore()), bodies.Disk{})
	for _, body := range []string{"a", "b", "c"} {
		put(t, a, "hub", body)
	}
	h := a.Handler(testCaller)
	var seen []carnet.Fingerprint
	after := ""
	for range 4 {
		var page []ObjectAnswer
		w := request(t, h, "hub", "GET", "/r2/objects?limit=2"+after, nil, nil)
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, o := range page {
			seen = append(seen, o.Fingerprint)
			after = "&after=" + o.Fingerprint.String()
		}
	}
	if len(seen) != 3 || seen[0] == seen[1] || seen[1] == seen[2] {
		t.Errorf("listed %v", seen)
	}
}

func TestAuditorsReadTheLedgerOverR2(t *testing.T) {
	a, _ := start(t, testConfig(t, t.TempDir(), newStore()), bodies.Disk{})
	if _, err := a.Submit(t.Context(), "clinic", []ledger.Entry{{1}}); err != nil {
		t.Fatal(err)
	}
	h := a.Handler(testCaller)
	w := request(t, h, "hub", "GET", "/r2/ledger/checkpoint", nil, nil)
	if cp, err := ledger.ParseCheckpoint(a.Key(), w.Body.Bytes()); err != nil || cp.Size != 1 {
		t.Errorf("checkpoint %+v, %v", cp, err)
	}
	if w := request(t, h, "hub", "GET", "/r2/ledger/tile/0/000.p/1", nil, nil); w.Code != 200 || w.Body.Len() != 32 {
		t.Errorf("tile: status %d, %d bytes", w.Code, w.Body.Len())
	}
	if w := request(t, h, "hub", "GET", "/r2/ledger/.lock", nil, nil); w.Code != 404 {
		t.Errorf("a file that is no tile: status %d", w.Code)
	}
}

// A client must not take another's word for an object, nor a proxy's for an
// error.
func TestClientHoldsAnswersAgainstTheQuestion(t *testing.T) {
	f := carnet.FingerprintOf([]byte("x"))
	for what, c := range map[string]struct {
		answer http.HandlerFunc
		code   carnet.Code
	}{
		"other bytes": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "y") }, carnet.Tampered},
		"a proxy": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"code":"not_found"}`, http.StatusBadGateway)
		}, carnet.Unavailable},
		"unknown code": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", problem.Type)
			w.WriteHeader(400)
			io.WriteString(w, `{"code":"odd","detail":"d"}`)
		}, carnet.Unavailable},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "x")
		}, carnet.Unavailable},
		"known code": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", problem.Type)
			w.WriteHeader(404)
			io.WriteString(w, `{"code":"not_found","detail":"d"}`)
		}, carnet.NotFound},
	} {
		s := httptest.NewServer(c.answer)
		client := &Client{Base: s.URL, HTTP: s.Client()}
		if _, err := client.GetObject(t.Context(), f); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", what, err, c.code)
		}
		s.Close()
		if _, err := client.GetObject(t.Context(), f); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("a depot that is away: %v", err)
		}
	}
}

func TestSubmitEndsWithItsContext(t *testing.T) {
	_, client := serve(t, bodies.Disk{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := client("hub").Submit(ctx, []ledger.Entry{{1}}); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("%v, want %s", err, carnet.Unavailable)
	}
}

// What follows a request to erase is refused, not passed over.
func TestNothingFollowsARequestToErase(t *testing.T) {
	a, client := serve(t, bodies.Disk{})
	a.cfg.Key = ed25519.NewKeyFromSeed(make([]byte, 32))
	for more, want := range map[string]carnet.Code{"": "", "{}": carnet.Malformed, "x": carnet.Malformed} {
		question, err := json.Marshal(Erasing{Erasure: carnet.ErasureID{4}, Objects: []carnet.Fingerprint{}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = client("arena").do(t.Context(), http.MethodPost, "deletions", typeJSON, "", append(question, more...), maxShort)
		if carnet.CodeOf(err) != want {
			t.Errorf("with %q behind it: %v", more, err)
		}
	}
}
