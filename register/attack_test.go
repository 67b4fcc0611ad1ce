package register

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/problem"
)

// send sends a request as it stands, as who has a key.
func (s *stage) send(who byte, method, path, body string) (status int, code carnet.Code, answer string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.server.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := as{did(who)}.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var p problem.Problem
	if resp.Header.Get("Content-Type") == problem.Type {
		if err := json.Unmarshal(text, &p); err != nil || p.Status != resp.StatusCode || p.Detail == "" {
			s.t.Fatalf("the refusal is %s, %v", text, err)
		}
	}
	return resp.StatusCode, p.Code, string(text)
}

// Who isn't the owner, the source or the target gets nothing by asking for it, and
// what is asked for leaves the crossing open to those who are.
func TestAttacksDecideNothing(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	homes := s.enrolled(arena, 2)
	bobs := carnet.NewHomeID()
	if _, _, err := s.by(arena).Enrol(ctx, bobs, did(mallory)); err != nil {
		t.Fatal(err)
	}
	good := order(homes...)
	p := petition(t, good)
	change := func(do func(*identity.Order)) Petition {
		o := good
		do(&o)
		q := petition(t, o)
		q.Release, q.Acceptance = p.Release, p.Acceptance
		return q
	}
	sign := func(key ed25519.PrivateKey, typ string, m any) string {
		token, err := identity.SignMessage(key, typ, m)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	release, err := identity.OpenRelease(p.Release)
	if err != nil {
		t.Fatal(err)
	}
	acceptance, err := identity.OpenAcceptance(p.Acceptance)
	if err != nil {
		t.Fatal(err)
	}
	with := func(do func(*Petition)) Petition { q := p; do(&q); return q }
	parts := strings.Split(p.Order, ".")
	for name, c := range map[string]struct {
		who byte
		p   Petition
	}{
		"an order of another owner": {citadel, change(func(o *identity.Order) { o.Owner = did(mallory) })},
		"an order of another owner, to end it": {arena, with(func(q *Petition) {
			q.Order, q.Want = change(func(o *identity.Order) { o.Owner = did(mallory) }).Order, Abort
		})},
		"an order of another owner, long over": {clinic, change(func(o *identity.Order) {
			o.Owner = did(mallory)
			o.Made = o.Made.Add(-9 * time.Hour)
			o.Until = o.Made.Add(time.Hour)
		})},
		"an order signed by the target":  {citadel, with(func(q *Petition) { q.Order = sign(key(citadel), "carnet-order+jwt", good) })},
		"an order for another registrar": {citadel, change(func(o *identity.Order) { o.Registrar = did(clinic) })},
		"an order for another crossing":  {citadel, change(func(o *identity.Order) { o.Crossing = carnet.NewCrossingID() })},
		"one home of somebody else":      {citadel, change(func(o *identity.Order) { o.Homes = ascending(homes[0], bobs) })},
		"one home that isn't enrolled":   {citadel, change(func(o *identity.Order) { o.Homes = ascending(homes[0], carnet.NewHomeID()) })},
		"a release by another world": {citadel, with(func(q *Petition) {
			r := release
			r.Source = did(clinic)
			q.Release = sign(key(clinic), "carnet-release+jwt", r)
		})},
		"a release by the target": {citadel, with(func(q *Petition) {
			r := release
			r.Source = did(citadel)
			q.Release = sign(key(citadel), "carnet-release+jwt", r)
		})},
		"a release signed by the target": {citadel, with(func(q *Petition) { q.Release = sign(key(citadel), "carnet-release+jwt", release) })},
		"a release for another order":    {citadel, with(func(q *Petition) { r := release; r.Order[0]++; q.Release = sign(key(arena), "carnet-release+jwt", r) })},
		"a release of no home": {citadel, with(func(q *Petition) {
			r := release
			r.Incarnations = nil
			q.Release = sign(key(arena), "carnet-release+jwt", r)
		})},
		"a release of one home": {citadel, with(func(q *Petition) {
			r := release
			r.Incarnations = []uint64{1}
			q.Release = sign(key(arena), "carnet-release+jwt", r)
		})},
		"an acceptance by another world": {arena, with(func(q *Petition) {
			a := acceptance
			a.Target = did(clinic)
			q.Acceptance = sign(key(clinic), "carnet-acceptance+jwt", a)
		})},
		"an acceptance signed by the source": {arena, with(func(q *Petition) { q.Acceptance = sign(key(arena), "carnet-acceptance+jwt", acceptance) })},
		"an acceptance for another order": {arena, with(func(q *Petition) {
			a := acceptance
			a.Order[0]++
			q.Acceptance = sign(key(citadel), "carnet-acceptance+jwt", a)
		})},
		"release and acceptance exchanged": {arena, with(func(q *Petition) { q.Release, q.Acceptance = q.Acceptance, q.Release })},
		"no release":                       {citadel, with(func(q *Petition) { q.Release = "" })},
		"no acceptance":                    {arena, with(func(q *Petition) { q.Acceptance = "" })},
		"no order":                         {arena, with(func(q *Petition) { q.Order = "" })},
		"somebody else wants an end":       {clinic, with(func(q *Petition) { q.Want = Abort })},
		"the owner wants an end":           {alice, with(func(q *Petition) { q.Want = Abort })},
		"an end without an order":          {arena, Petition{Want: Abort}},
		"something that no registrar does": {arena, with(func(q *Petition) { q.Want = "merge" })},
		"nothing":                          {arena, Petition{}},
		"an order that is no JWS":          {arena, with(func(q *Petition) { q.Order = "order" })},
		"an order with another signature":  {arena, with(func(q *Petition) { q.Order = parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])) })},
		"an order without a signature":     {arena, with(func(q *Petition) { q.Order = parts[0] + "." + parts[1] + "." })},
		"an order in another spelling":     {arena, with(func(q *Petition) { q.Order += "=" })},
		"a huge order":                     {arena, with(func(q *Petition) { q.Order = strings.Repeat("A", identity.MaxMessage+1) })},
		"a release that is no JWS, to ask": {arena, Petition{Want: Ask, Release: "..."}},
	} {
		d, err := s.by(c.who).Decide(ctx, good.Crossing, c.p)
		if code := carnet.CodeOf(err); d != nil || code != carnet.Malformed && code != carnet.Forbidden && code != carnet.Unauthenticated && code != carnet.TooLarge && code != carnet.Tampered {
			t.Errorf("%s: decided %+v, %v", name, d, err)
		}
	}
	for _, id := range append(homes, bobs) {
		if h, _, err := s.by(arena).Home(ctx, id); err != nil || h.World != did(arena) || h.Version != 1 || h.Incarnation != 1 {
			t.Errorf("after the attacks the home stands as %+v, %v", h, err)
		}
	}
	if d, err := s.by(citadel).Decide(ctx, good.Crossing, p); err != nil || d.Outcome != identity.Commit {
		t.Fatalf("after the attacks: %+v, %v", d, err)
	}

	// What was decided stays, whatever comes: the same order anew, another by the
	// owner, an end.
	first, err := s.by(arena).Decide(ctx, good.Crossing, Petition{Want: Ask})
	if err != nil {
		t.Fatal(err)
	}
	back := good
	back.Source, back.Target = good.Target, good.Source
	replayed := petition(t, back)
	replayed.Release, replayed.Acceptance = "", ""
	for name, q := range map[string]Petition{"replayed": p, "ended": {Want: Abort, Order: p.Order}, "another order of the same crossing": replayed} {
		d, err := s.by(arena).Decide(ctx, good.Crossing, q)
		if err != nil || d.Reply.Decision != first.Reply.Decision {
			t.Errorf("%s: %+v, %v", name, d, err)
		} else if want := d.Decision.Of(carnet.FingerprintOf([]byte(q.Order))); d.Outcome != want || name == "another order of the same crossing" && want != identity.Abort {
			t.Errorf("%s: the outcome is %s, want %s", name, d.Outcome, want)
		}
	}
	again := good
	again.Crossing = carnet.NewCrossingID()
	if d, err := s.by(arena).Decide(ctx, again.Crossing, petition(t, again)); err != nil || d.Outcome != identity.Abort {
		t.Errorf("a second order from the former home: %+v, %v", d, err)
	}
}

func ascending(a, b carnet.HomeID) []carnet.HomeID {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return []carnet.HomeID{a, b}
}

// What source and target may do, and what time does.
func TestCrossingsEnd(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	homes := s.enrolled(arena, 1)
	for name, c := range map[string]struct {
		who    byte
		change func(*identity.Order)
		want   Want
	}{
		"the source ends it":          {arena, func(*identity.Order) {}, Abort},
		"the target ends it":          {citadel, func(*identity.Order) {}, Abort},
		"a commit too late":           {citadel, func(o *identity.Order) { o.Made, o.Until = o.Made.Add(-time.Hour), o.Made }, Commit},
		"anybody asks too late":       {clinic, func(o *identity.Order) { o.Made, o.Until = o.Made.Add(-time.Hour), o.Made }, Ask},
		"anybody ends it too late":    {clinic, func(o *identity.Order) { o.Made, o.Until = o.Made.Add(-time.Hour), o.Made }, Abort},
		"from where it isn't at home": {citadel, func(o *identity.Order) { o.Source = did(clinic) }, Commit},
	} {
		o := order(homes...)
		c.change(&o)
		p := petition(t, o)
		p.Want = c.want
		d, err := s.by(c.who).Decide(ctx, o.Crossing, p)
		if err != nil || d.Outcome != identity.Abort || d.Decision.Why == "" {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		p.Want = Commit
		if again, err := s.by(citadel).Decide(ctx, o.Crossing, p); err != nil || again.Reply.Decision != d.Reply.Decision {
			t.Errorf("%s, then a commit: %+v, %v", name, again, err)
		}
	}
	// A claim makes a release worthless that was given before.
	o := order(homes...)
	p := petition(t, o)
	if h, _, err := s.by(arena).Claim(ctx, homes[0]); err != nil || h.Incarnation != 2 {
		t.Fatalf("claimed as %+v, %v", h, err)
	}
	if d, err := s.by(citadel).Decide(ctx, o.Crossing, p); err != nil || d.Outcome != identity.Abort {
		t.Errorf("a release from before the claim: %+v, %v", d, err)
	}
}

// Two orders of one home are handed in at once, each by both of its worlds: one
// commits, and the home is where that says.
func TestTwoOrdersOfOneHomeAtOnce(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	homes := s.enrolled(arena, 2)
	for range 3 {
		shared, other := homes[0], s.enrolled(arena, 1)[0]
		orders := []identity.Order{order(shared), order(ascending(shared, other)...)}
		orders[1].Target = did(clinic)
		var group sync.WaitGroup
		decided := make([]*Decided, 4)
		for i := range decided {
			o := orders[i%2]
			p := petition(t, o)
			by := s.by(citadel)
			group.Go(func() {
				var err error
				if decided[i], err = by.Decide(ctx, o.Crossing, p); err != nil {
					t.Errorf("decide: %v", err)
				}
			})
		}
		group.Wait()
		if t.Failed() {
			return
		}
		if decided[0].Reply.Decision != decided[2].Reply.Decision || decided[1].Reply.Decision != decided[3].Reply.Decision {
			t.Fatal("a crossing was decided twice")
		}
		if (decided[0].Outcome == identity.Commit) == (decided[1].Outcome == identity.Commit) {
			t.Fatalf("two orders of one home: %s and %s", decided[0].Outcome, decided[1].Outcome)
		}
		h, _, err := s.by(arena).Home(ctx, shared)
		want := did(citadel)
		if decided[1].Outcome == identity.Commit {
			want = did(clinic)
		}
		if err != nil || h.World != want || h.Version != 2 {
			t.Fatalf("the home stands as %+v, %v", h, err)
		}
		homes = s.enrolled(arena, 1)
	}
}

func TestEnrolmentsThatAreRefused(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	home := s.enrolled(arena, 1)[0]
	for name, c := range map[string]struct {
		who   byte
		id    carnet.HomeID
		owner string
		code  carnet.Code
	}{
		"somebody else's home":              {clinic, home, did(alice), carnet.Conflict},
		"somebody else's home, another key": {clinic, home, did(mallory), carnet.Conflict},
		"its own home, another key":         {arena, home, did(mallory), carnet.Conflict},
		"by one that isn't a world":         {alice, carnet.NewHomeID(), did(alice), carnet.Forbidden},
		"for nobody":                        {arena, carnet.NewHomeID(), "", carnet.Malformed},
		"for what isn't a key":              {arena, carnet.NewHomeID(), "alice", carnet.Malformed},
	} {
		if a, _, err := s.by(c.who).Enrol(ctx, c.id, c.owner); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if a, _, err := s.by(arena).Enrol(ctx, home, did(alice)); err != nil || a.Version != 1 || a.Incarnation != 1 {
		t.Errorf("enrolled again: %+v, %v", a, err)
	}
	for _, who := range []byte{clinic, alice} {
		if _, _, err := s.by(who).Claim(ctx, home); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("claimed by another: %v", err)
		}
	}
	unknown := carnet.NewHomeID()
	_, _, elsewhere := s.by(clinic).Claim(ctx, home)
	_, _, absent := s.by(clinic).Claim(ctx, unknown)
	if strings.ReplaceAll(elsewhere.Error(), home.String(), unknown.String()) != absent.Error() {
		t.Errorf("a home elsewhere and none are told apart: %v, %v", elsewhere, absent)
	}
	if _, _, err := s.by(clinic).Home(ctx, carnet.NewHomeID()); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a home that isn't enrolled: %v", err)
	}
}

func TestRequestsThatAreNotOnes(t *testing.T) {
	s := newStage(t)
	home, crossing := "/r2/homes/"+carnet.NewHomeID().String(), "/r2/crossings/"+carnet.NewCrossingID().String()
	nonce := identity.NewNonce()
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               carnet.Code
	}{
		"no body":                        {"PUT", home, "", 400, carnet.Malformed},
		"not JSON":                       {"PUT", home, "owner", 400, carnet.Malformed},
		"an array":                       {"POST", crossing, "[]", 400, carnet.Malformed},
		"an unknown member":              {"PUT", home, `{"owner":"` + did(alice) + `","asked":"` + nonce + `","world":"` + did(clinic) + `"}`, 400, carnet.Malformed},
		"more after it":                  {"POST", crossing, `{"want":"ask"}{}`, 400, carnet.Malformed},
		"huge":                           {"POST", crossing, `{"want":"` + strings.Repeat("a", maxRequest) + `"}`, 413, carnet.TooLarge},
		"deep":                           {"POST", crossing, strings.Repeat("[", 20000), 400, carnet.Malformed},
		"no nonce":                       {"PUT", home, `{"owner":"` + did(alice) + `"}`, 400, carnet.Malformed},
		"a nonce that says something":    {"PUT", home, `{"owner":"` + did(alice) + `","asked":"alice's watch"}`, 400, carnet.Malformed},
		"a home that isn't one":          {"PUT", "/r2/homes/watch", `{"owner":"` + did(alice) + `","asked":"` + nonce + `"}`, 400, carnet.Malformed},
		"a crossing that isn't one":      {"POST", "/r2/crossings/1", `{"want":"ask"}`, 400, carnet.Malformed},
		"crossing zero":                  {"POST", "/r2/crossings/" + strings.Repeat("0", 32), `{"want":"ask"}`, 400, carnet.Malformed},
		"a claim that names an owner":    {"POST", home + "/claims", `{"owner":"` + did(alice) + `","asked":"` + nonce + `"}`, 400, carnet.Malformed},
		"a way that isn't there":         {"GET", "/r2/home", "", 404, ""},
		"many homes without a nonce":     {"POST", "/r2/homes", `{"homes":[]}`, 400, carnet.Malformed},
		"a method that isn't there":      {"DELETE", home, "", 405, ""},
		"an open crossing has no answer": {"POST", crossing, `{"want":"ask"}`, 202, ""},
	} {
		if status, code, answer := s.send(arena, c.method, c.path, c.body); status != c.status || code != c.code || c.status == 202 && answer != "{}" {
			t.Errorf("%s: %d %q %s, want %d %q", name, status, code, answer, c.status, c.code)
		}
	}
	if last, err := s.store.Last(t.Context()); err != nil || last.Number != 0 {
		t.Errorf("the register has %d changes, %v", last.Number, err)
	}
	req, err := http.NewRequest("GET", s.server.URL+home+"?asked="+nonce, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("nobody was answered %s", resp.Status)
	}
}

// No bit of an answer or its proof can change.
func TestAnswersThatDoNotHold(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	homes := s.enrolled(arena, 2)
	o := order(homes[0])
	d, err := s.by(citadel).Decide(ctx, o.Crossing, petition(t, o))
	if err != nil {
		t.Fatal(err)
	}
	_, moved, err := s.by(arena).Home(ctx, homes[0])
	if err != nil {
		t.Fatal(err)
	}
	_, stayed, err := s.by(arena).Home(ctx, homes[1])
	if err != nil {
		t.Fatal(err)
	}
	ledgerKey, registrar := s.ledger.Key(), did(theRegistrar)
	flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 1; return b }
	for at := range d.Reply.Proof.Statement {
		r := d.Reply
		r.Proof.Statement = flip(r.Proof.Statement, at)
		if _, err := r.Verify(registrar, ledgerKey); err == nil {
			t.Errorf("byte %d of the statement was changed", at)
		}
	}
	for name, r := range map[string]DecisionReply{
		"another salt":             {d.Reply.Decision, Proof{d.Reply.Proof.Statement, flip(d.Reply.Proof.Salt, 0), d.Reply.Proof.Receipt}},
		"a salt cut short":         {d.Reply.Decision, Proof{d.Reply.Proof.Statement, d.Reply.Proof.Salt[1:], d.Reply.Proof.Receipt}},
		"another receipt":          {d.Reply.Decision, Proof{d.Reply.Proof.Statement, d.Reply.Proof.Salt, stayed.Proof.Receipt}},
		"another change's proof":   {d.Reply.Decision, stayed.Proof},
		"no proof":                 {d.Reply.Decision, Proof{}},
		"an answer about a home":   {stayed.Record, stayed.Proof},
		"a decision with more":     {d.Reply.Decision + "A", d.Reply.Proof},
		"nothing that was decided": {"", d.Reply.Proof},
	} {
		if _, err := r.Verify(registrar, ledgerKey); err == nil {
			t.Errorf("%s: it holds", name)
		}
	}
	if _, err := d.Reply.Verify(did(clinic), ledgerKey); err == nil {
		t.Error("a decision of another registrar holds")
	}
	for name, r := range map[string]HomeReply{
		"from before the move":      {stayed.Home, d.Reply.Decision, d.Reply.Proof, nil},
		"another home's record":     {moved.Home, stayed.Record, stayed.Proof, nil},
		"no record":                 {moved.Home, "", moved.Proof, nil},
		"another change's proof":    {stayed.Home, stayed.Record, moved.Proof, nil},
		"the record for the answer": {d.Reply.Decision, d.Reply.Decision, d.Reply.Proof, nil},
	} {
		if _, err := r.Verify(registrar, ledgerKey); err == nil {
			t.Errorf("%s: it holds", name)
		}
	}
	if _, err := moved.Verify(did(clinic), ledgerKey); err == nil {
		t.Error("an answer of another registrar holds")
	}
}

// FuzzEndpoint throws requests at a registrar: it answers each in one of its forms,
// and its register doesn't change but by what is asked properly.
func FuzzEndpoint(f *testing.F) {
	s := newStage(f)
	home := s.enrolled(arena, 1)[0]
	o := order(home)
	p := petition(f, o)
	text, err := json.Marshal(Petition{Want: Commit, Order: p.Order, Release: p.Release})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("POST", "/r2/crossings/"+o.Crossing.String(), string(text), "")
	f.Add("POST", "/r2/crossings/"+o.Crossing.String(), `{"want":"ask","order":"`+p.Order+`"}`, "AAAA")
	f.Add("PUT", "/r2/homes/"+home.String(), `{"owner":"`+did(mallory)+`","asked":"`+identity.NewNonce()+`"}`, "")
	f.Add("GET", "/r2/homes/"+home.String()+"?asked="+identity.NewNonce(), "", "bm8=")
	f.Add("POST", "/r2/homes/"+home.String()+"/claims", `{"asked":"00"}`, "")
	f.Fuzz(func(t *testing.T, method, path, body, shown string) {
		req, err := http.NewRequest(method, "http://vault/"+strings.TrimPrefix(path, "/"), strings.NewReader(body))
		if err != nil {
			return
		}
		req.Header.Set("Test-Caller", did(clinic))
		req.Header[CheckpointHeader] = []string{shown}
		var w recorder
		s.server.Config.Handler.ServeHTTP(&w, req)
		switch w.Header().Get("Content-Type") {
		case problem.Type:
			var p problem.Problem
			if err := json.Unmarshal(w.body.Bytes(), &p); err != nil || p.Status != w.status || p.Status == http.StatusInternalServerError {
				t.Errorf("%s %s is answered %d %s", method, path, w.status, w.body.String())
			}
		case typeJSON:
			if w.status != http.StatusOK && w.status != http.StatusAccepted {
				t.Errorf("%s %s is answered %d", method, path, w.status)
			}
		default: // by net/http, which knows no such way
			if w.status == http.StatusOK {
				t.Errorf("%s %s is answered %s", method, path, w.body.String())
			}
		}
		changes, err := s.store.Homes(t.Context(), []carnet.HomeID{home})
		if err != nil || changes[home].Number != 1 {
			t.Errorf("%s %s %s changed the home: %v, %v", method, path, body, changes[home].Number, err)
		}
	})
}

// recorder is an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}
func (r *recorder) WriteHeader(status int) { r.status = status }
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.body.Write(b)
}
