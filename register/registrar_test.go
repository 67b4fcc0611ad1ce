package register

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

func TestAHomeMovesByItsOwnersOrder(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	homes := s.enrolled(arena, 2)
	before, reply, err := s.by(clinic).Home(ctx, homes[0])
	if err != nil || before.World != did(arena) || before.Version != 1 || before.Incarnation != 1 || before.Owner != did(alice) {
		t.Fatalf("enrolled as %+v, %v", before, err)
	}
	if _, err := reply.Verify(did(theRegistrar), s.ledger.Key()); err != nil {
		t.Fatalf("the answer doesn't hold offline: %v", err)
	}
	o := order(homes...)
	p := petition(t, o)
	if d, err := s.by(citadel).Decide(ctx, o.Crossing, Petition{Want: Ask, Order: p.Order}); d != nil || err != nil {
		t.Fatalf("an open crossing is %+v, %v", d, err)
	}
	if d, err := s.by(citadel).Decide(ctx, o.Crossing, Petition{Want: Ask}); d != nil || err != nil {
		t.Fatalf("an open crossing, asked for by its id, is %+v, %v", d, err)
	}
	d, err := s.by(citadel).Decide(ctx, o.Crossing, p)
	if err != nil || d.Outcome != identity.Commit {
		t.Fatalf("decided %+v, %v", d, err)
	}
	for want, q := range map[string]Petition{"arena asks": {Want: Ask, Order: p.Order}, "without the order": {Want: Ask}, "arena wants an end": {Want: Abort, Order: p.Order}, "again": p} {
		if again, err := s.by(arena).Decide(ctx, o.Crossing, q); err != nil || !reflect.DeepEqual(again, d) {
			t.Errorf("%s: %+v, %v; want the same as before", want, again, err)
		}
	}
	if _, err := d.Reply.Verify(did(theRegistrar), s.ledger.Key()); err != nil {
		t.Errorf("the decision doesn't hold offline: %v", err)
	}
	for _, id := range homes {
		h, reply, err := s.by(arena).Home(ctx, id)
		if err != nil || h.World != did(citadel) || h.Version != 2 || h.Incarnation != 2 || h.Owner != did(alice) || reply.Record != d.Reply.Decision {
			t.Errorf("after the move: %+v by %q, %v", h, reply.Record, err)
		}
	}
	// The new home claims it, the old one can't any more.
	if h, _, err := s.by(citadel).Claim(ctx, homes[0]); err != nil || h.Incarnation != 3 || h.Version != 2 {
		t.Errorf("claimed as %+v, %v", h, err)
	}
	if h, _, err := s.by(arena).Claim(ctx, homes[0]); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("the former home claimed it as %+v, %v", h, err)
	}
	// Who was away meanwhile still learns by which decision it is elsewhere.
	s.namesCommit(homes[0], d.Reply.Decision)
	s.namesCommit(homes[1], d.Reply.Decision)
	s.restart()
	s.namesCommit(homes[0], d.Reply.Decision)
	if again, err := s.by(arena).Decide(ctx, o.Crossing, Petition{Want: Ask, Order: p.Order}); err != nil || !reflect.DeepEqual(again, d) {
		t.Errorf("after a restart: %+v, %v; want the same as before", again, err)
	}
	if h, _, err := s.by(clinic).Home(ctx, homes[0]); err != nil || h.Incarnation != 3 {
		t.Errorf("after a restart: %+v, %v", h, err)
	}
}

func TestAnErasedHomeNeverMovesAgain(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	homes := s.enrolled(arena, 3)
	erasure := func(home carnet.HomeID, owner byte) string { return erasureOf(t, home, owner) }
	for who, order := range map[string]string{"another's order": erasure(homes[0], mallory), "nonsense": "a.b.c", "another home's": erasure(homes[1], alice)} {
		if _, _, err := s.by(arena).Erase(ctx, homes[0], order); err == nil {
			t.Errorf("%s erased the home", who)
		}
	}
	if _, _, err := s.by(citadel).Erase(ctx, homes[0], erasure(homes[0], alice)); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("another world erased the home: %v", err)
	}
	if erased, err := s.by(arena).Erased(ctx, homes); err != nil || len(erased) != 0 {
		t.Fatalf("erased before any order: %v, %v", erased, err)
	}
	signed := erasure(homes[0], alice)
	h, reply, err := s.by(arena).Erase(ctx, homes[0], signed)
	if err != nil || h.Erased != signed {
		t.Fatalf("erased as %+v, %v", h, err)
	}
	if _, err := reply.Verify(did(theRegistrar), s.ledger.Key()); err != nil {
		t.Errorf("the answer doesn't hold offline: %v", err)
	}
	s.restart()
	o := order(homes...)
	if d, err := s.by(citadel).Decide(ctx, o.Crossing, petition(t, o)); err != nil || d.Outcome != identity.Abort {
		t.Errorf("a move of an erased home was decided %+v, %v", d, err)
	}
	if h, _, err := s.by(arena).Claim(ctx, homes[0]); err != nil || h.Erased != signed || h.Incarnation != 1 {
		t.Errorf("claimed as %+v, %v", h, err)
	}
	if h, _, err := s.by(clinic).Home(ctx, homes[0]); err != nil || h.Erased != signed {
		t.Errorf("another world is told %+v, %v", h, err)
	}
	if erased, err := s.by(arena).Erased(ctx, append(homes, carnet.NewHomeID())); err != nil || len(erased) != 1 || erased[0] != homes[0] {
		t.Errorf("erased are %v, %v; want the first", erased, err)
	}
}

// erasureOf is an owner's order to erase what is at a home of arena's.
func erasureOf(t *testing.T, home carnet.HomeID, owner byte) string {
	t.Helper()
	made := time.Now().UTC().Truncate(time.Second)
	order, err := identity.SignErasure(key(owner), identity.ErasureOrder{
		Erasure: carnet.ErasureID{7}, Registrar: did(theRegistrar), Owner: did(owner), World: did(arena), Home: home,
		Avatar: identity.ErasedMark(carnet.ErasureID{7}, carnet.AvatarID{9}), Made: made, Until: made.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return order
}

// recoveryOf is alice's order to recover a home of arena's at citadel, as it is asked for.
func recoveryOf(t *testing.T, home carnet.HomeID) (carnet.CrossingID, Petition) {
	t.Helper()
	o := order(home)
	o.Recovers = &identity.Recovers{Manifest: carnet.Fingerprint{5}, Incarnations: []uint64{1}, Chains: []uint64{0}}
	signed, err := identity.SignRecovery(key(alice), o)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := identity.SignAcceptance(key(citadel), identity.Acceptance{Crossing: o.Crossing, Target: did(citadel), Order: carnet.FingerprintOf([]byte(signed)), Manifest: carnet.Fingerprint{5}})
	if err != nil {
		t.Fatal(err)
	}
	return o.Crossing, Petition{Want: Commit, Order: signed, Acceptance: accepted}
}

// replayed answers every question as the first one was.
type replayed struct {
	as
	answer []byte
}

func (r *replayed) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := r.as.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	if r.answer == nil {
		if r.answer, err = io.ReadAll(resp.Body); err != nil {
			return nil, err
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(r.answer))
	return resp, nil
}

// ofOthers answers what it is asked about many homes, signed, about no homes.
type ofOthers struct{}

func (ofOthers) RoundTrip(q *http.Request) (*http.Response, error) {
	var asked homesRequest
	if err := json.NewDecoder(q.Body).Decode(&asked); err != nil {
		return nil, err
	}
	answer, err := identity.SignHomes(key(theRegistrar), identity.HomesAnswer{Registrar: did(theRegistrar), World: did(arena), Asked: asked.Asked, Homes: identity.HomesHash(nil), Not: []carnet.HomeID{}})
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(homesReply{answer})
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(text))}, err
}

// Asked about many homes at once, a register names those that have left, are erased, are
// to be recovered or aren't known, and no others; and signs that for this question alone.
func TestManyHomesAreAskedAboutAtOnce(t *testing.T) {
	s, ctx := newStage(t), t.Context()
	homes := s.enrolled(arena, 5)
	o := order(homes[1])
	if d, err := s.by(citadel).Decide(ctx, o.Crossing, petition(t, o)); err != nil || d.Outcome != identity.Commit {
		t.Fatalf("decided %+v, %v", d, err)
	}
	if _, _, err := s.by(arena).Erase(ctx, homes[2], erasureOf(t, homes[2], alice)); err != nil {
		t.Fatal(err)
	}
	recovery, p := recoveryOf(t, homes[3])
	if d, err := s.by(citadel).Decide(ctx, recovery, p); d != nil || err != nil {
		t.Fatalf("recovered at once: %+v, %v", d, err)
	}
	unknown := carnet.NewHomeID()
	asked := append(slices.Clone(homes), unknown)
	if not, err := s.by(arena).NotAt(ctx, did(arena), asked); err != nil || !slices.Equal(not, []carnet.HomeID{homes[1], homes[2], homes[3], unknown}) {
		t.Errorf("not at arena are %v, %v; of %v", not, err, asked)
	}
	if not, err := s.by(citadel).NotAt(ctx, did(citadel), homes[:2]); err != nil || !slices.Equal(not, homes[:1]) {
		t.Errorf("not at citadel are %v, %v", not, err)
	}
	many := make([]carnet.HomeID, 2*identity.MostAsked+1)
	for n := range many {
		many[n] = homes[0]
	}
	if not, err := s.by(arena).NotAt(ctx, did(arena), append(many, homes[1])); err != nil || !slices.Equal(not, homes[1:2]) {
		t.Errorf("of many, not at arena are %v, %v", not, err)
	}
	if _, err := s.registrar.NotAt(ctx, did(arena), many, identity.NewNonce()); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("too many at once: %v", err)
	}
	if _, err := s.by(arena).NotAt(ctx, did(citadel), homes); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("an answer about another world is taken: %v", err)
	}
	again := s.by(arena)
	again.HTTP = &http.Client{Transport: &replayed{as: as{did(arena)}}}
	if _, err := again.NotAt(ctx, did(arena), homes); err != nil {
		t.Fatal(err)
	}
	for _, other := range [][]carnet.HomeID{homes, homes[:1]} {
		if _, err := again.NotAt(ctx, did(arena), other); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("an older answer is taken: %v", err)
		}
	}
	lying := s.by(arena)
	lying.HTTP = &http.Client{Transport: ofOthers{}}
	if not, err := lying.NotAt(ctx, did(arena), homes); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("an answer about other homes is taken: %v, %v", not, err)
	}
	other := s.by(arena)
	other.Registrar = did(clinic)
	if _, err := other.NotAt(ctx, did(arena), homes); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("another registrar's answer is taken: %v", err)
	}
}

// namesCommit checks by which decision a home is said to be where it is.
func (s *stage) namesCommit(id carnet.HomeID, decision string) HomeReply {
	s.t.Helper()
	_, reply, err := s.by(arena).Home(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, token, err := reply.Commit(); err != nil || token != decision {
		s.t.Errorf("it is said to be there by %q, %v; want %q", token, err, decision)
	}
	return reply
}

// What is said of how a home came to where it is must be the registrar's, and so.
func TestTheCommitOfAHomeIsProved(t *testing.T) {
	s := newStage(t)
	m, other := s.move(), s.move()
	home := m.homes[0]
	if _, _, err := s.by(citadel).Claim(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	reply := s.namesCommit(home, m.decided.Reply.Decision)
	for name, moved := range map[string]*DecisionReply{
		"another home's": &other.decided.Reply,
		"unproved":       {Decision: m.decided.Reply.Decision, Proof: other.decided.Reply.Proof},
	} {
		wrong := reply
		wrong.Moved = moved
		if _, err := wrong.Verify(did(theRegistrar), s.ledger.Key()); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, reply, err := s.by(arena).Enrol(t.Context(), carnet.NewHomeID(), did(alice)); err != nil {
		t.Error(err)
	} else if _, _, err := reply.Commit(); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("one that never moved names a commit: %v", err)
	}

	// A register from before that was written down with each home finds it.
	for i := range s.store.changes {
		c := &s.store.changes[i]
		rec, err := s.registrar.open(*c)
		if err != nil {
			t.Fatal(err)
		}
		for j := range rec.Homes {
			rec.Homes[j].Moved = 0
		}
		text, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if c.Body, err = s.registrar.cfg.Sealer.Seal(nil, bodyAAD(c.Number), text); err != nil {
			t.Fatal(err)
		}
	}
	s.namesCommit(home, m.decided.Reply.Decision)
	if _, _, err := s.by(citadel).Claim(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	s.namesCommit(home, m.decided.Reply.Decision)
}

// A registrar that isn't there is told of in words.
func TestARegistrarThatIsAwayIsToldInWords(t *testing.T) {
	c := &Client{Base: "http://127.0.0.1:1", HTTP: http.DefaultClient} // where nothing listens
	if _, _, err := c.Home(t.Context(), carnet.HomeID{1}); carnet.CodeOf(err) != carnet.Unavailable || !strings.HasSuffix(err.Error(), ": the registrar can't be reached: nothing listens there (connection refused)") {
		t.Errorf("it says %v", err)
	}
}
