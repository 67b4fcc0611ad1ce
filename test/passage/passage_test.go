package passage_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/identity"
	"carnet/keys"
	"carnet/passport"
	"carnet/seal"
)

// passage is the moving of one avatar: what those who drive it keep durably, and the
// steps, each of which may be done again.
type passage struct {
	t        *testing.T
	from, to *world
	source   carnet.AvatarID
	crossing carnet.CrossingID
	target   carnet.AvatarID   // zero: none is expected yet
	manifest []byte            // nil: not fixed yet
	redact   *avatar.Redaction // nil: everything moves
	same     []carnet.AvatarID // that were at the target under the avatar's home
}

// gives is what moves of the avatar.
func (p *passage) gives() avatar.Leaver {
	if p.redact == nil {
		return p.from.agent
	}
	return p.from.agent.Redacted(*p.redact)
}

func newPassage(t *testing.T, from, to *world, id carnet.AvatarID) *passage {
	return &passage{t: t, from: from, to: to, source: id, crossing: carnet.NewCrossingID()}
}

func (p *passage) expect() error {
	if p.target != (carnet.AvatarID{}) {
		return nil
	}
	for id := range p.to.agent.Arriving() { // of before a crash
		if err := p.to.agent.Drop(context.Background(), id); err != nil {
			return err
		}
	}
	info, err := p.to.agent.Expect(context.Background(), p.crossing, "a watch")
	p.target = info.ID
	return err
}

// copy fetches what there is at the source.
func (p *passage) copy() error {
	ctx := context.Background()
	streams, err := p.gives().MovedStreams(ctx, p.source)
	if err != nil {
		return err
	}
	if err := p.to.agent.TakeStreams(ctx, p.target, streams, p.same); err != nil {
		return err
	}
	for from := (avatar.Place{}); ; {
		page, err := p.gives().MovedStretches(ctx, p.source, from, 3)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := p.fetch(page); err != nil {
			return err
		}
		from = page[len(page)-1].After()
	}
}

// copyAtOnce is copy of everything there is in one step.
func (p *passage) copyAtOnce() error {
	ctx := context.Background()
	streams, err := p.gives().MovedStreams(ctx, p.source)
	if err != nil {
		return err
	}
	if err := p.to.agent.TakeStreams(ctx, p.target, streams, p.same); err != nil {
		return err
	}
	all, err := p.gives().MovedStretches(ctx, p.source, avatar.Place{}, 512)
	if err != nil {
		return err
	}
	return p.fetch(all)
}

func (p *passage) fetch(listed []avatar.MovedStretch) error {
	ctx := context.Background()
	missing, err := p.to.agent.Missing(ctx, p.target, listed)
	if err != nil {
		return err
	}
	var proven []avatar.Proven
	for _, m := range missing {
		body, err := p.gives().StretchBytes(ctx, p.source, m)
		if err != nil {
			return err
		}
		p.from.book.receipt(p.from.store)
		proof, err := p.gives().ProofOf(ctx, p.source, m)
		if err != nil {
			return err
		}
		one, err := p.to.agent.ProveStretch(ctx, p.target, m, body, proof)
		if err != nil {
			return err
		}
		proven = append(proven, one)
	}
	return p.to.agent.TakeStretches(ctx, p.target, proven)
}

// freeze fixes the manifest.
func (p *passage) freeze() error {
	ctx := context.Background()
	if err := p.from.agent.Freeze(ctx, p.source, p.crossing); err != nil || p.manifest != nil {
		return err
	}
	m, err := p.gives().Manifest(ctx, p.source, p.crossing, p.from.vouch)
	if err != nil {
		return err
	}
	p.manifest, err = m.Marshal()
	return err
}

func (p *passage) parsed() *avatar.Manifest {
	p.t.Helper()
	m, err := avatar.ParseManifest(p.manifest)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// prepare fetches the rest with the keys, and checks everything.
func (p *passage) prepare() error {
	ctx := context.Background()
	m := p.parsed()
	if err := p.to.agent.TakeStreams(ctx, p.target, m.Streams, p.same); err != nil {
		return err
	}
	if err := p.fetch(m.Stretches); err != nil {
		return err
	}
	bags, err := p.bags(m)
	if err != nil {
		return err
	}
	for _, bag := range bags {
		if err := p.to.agent.TakeKeys(ctx, p.target, bag, seal.Expected{Granter: p.from.name, Signer: public(p.from.self), Reader: p.to.name}); err != nil {
			return err
		}
	}
	return p.to.agent.Check(ctx, p.target, m)
}

func (p *passage) bags(m *avatar.Manifest) ([][]byte, error) {
	announced, err := p.to.agent.AnnounceTo(p.to.self, p.to.name)
	if err != nil {
		return nil, err
	}
	reception, err := seal.ParseReception(announced, public(p.to.self), time.Now())
	if err != nil {
		return nil, err
	}
	return p.gives().KeyBags(context.Background(), m, avatar.KeyTerms{Granter: p.from.name, Signer: p.from.self, Reception: reception, Clearance: p.to.clearance, Purpose: "fitness"})
}

func (p *passage) arrive() error {
	hash := carnet.FingerprintOf(p.manifest)
	token, err := identity.SignDecision(registrar, identity.Decision{
		Registrar: identity.DID(public(registrar)), Crossing: p.crossing, Order: carnet.Fingerprint{3}, Outcome: identity.Commit, Manifest: &hash,
		Homes: []identity.HomeAt{{Home: carnet.HomeID{1}, Version: 2, World: identity.DID(public(p.to.self))}}, Time: time.Now().UTC().Truncate(time.Second),
	})
	if err != nil {
		return err
	}
	commit, err := identity.MoveProof{Decision: token}.Marshal()
	if err != nil {
		return err
	}
	return p.to.agent.Arrive(context.Background(), p.target, avatar.Landing{From: p.from.name, Manifest: p.parsed(), Hash: hash, Commit: commit})
}

// registrar is the key of who decides moves.
var registrar = draw()

func (p *passage) depart() error {
	ctx := context.Background()
	if err := p.from.agent.Depart(ctx, p.source, p.crossing, p.to.name, carnet.Fingerprint{1}); err != nil {
		return err
	}
	return p.from.agent.Clear(ctx, p.source)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// life has an avatar receive two streams in several classes and epochs, in frames
// that hold several of its batches and another avatar's, some compacted and some not.
func life(w *world, rounds int) (id carnet.AvatarID, streams [2]*source) {
	w.t.Helper()
	first := w.hub.stream(nil)
	second := w.hub.stream(&first.avatar)
	other := w.hub.stream(nil)
	for i := range rounds {
		w.hub.send(first.seal(carnet.Keep, "heart_rate", 3), other.seal(carnet.Keep, "heart_rate", 2), first.seal(carnet.Day, "steps", 2), second.seal(carnet.Keep, "stress", 1))
		w.hub.send(first.seal(carnet.Hour, "position", 1), second.seal(carnet.Month, "energy", 2))
		if i%3 == 2 && i < rounds-2 {
			w.hub.settle()
			must(w.t, w.agent.Compact(w.t.Context(), 1))
		}
		if i%4 == 1 {
			first.turn()
		}
	}
	w.hub.settle()
	return first.avatar, [2]*source{first, second}
}

func latest(t *testing.T, w *world, id carnet.AvatarID) []carnet.Measurement {
	t.Helper()
	ms, err := w.agent.Latest(id)
	must(t, err)
	return ms
}

// nothingLeft fails if a world has anything of streams, by their names in its store,
// or keys of them.
func nothingLeft(t *testing.T, w *world, ids ...carnet.StreamID) {
	t.Helper()
	ctx := context.Background()
	for _, id := range ids {
		if rows, err := w.store.StretchPage(ctx, id, 0, 9); err != nil || len(rows) > 0 {
			t.Errorf("%s has %d stretches of stream %s, %v", w.name, len(rows), id, err)
		}
		if left, err := w.table.List(ctx, "epoch", id.String()+"/"); err != nil || len(left) > 0 {
			t.Errorf("%s has the keys %v, %v", w.name, left, err)
		}
		for _, kind := range []string{"epoch", "over", "proof"} {
			docs, err := w.store.DocumentPage(ctx, kind, "", 10_000)
			must(t, err)
			for _, d := range docs {
				if strings.HasPrefix(d.ID, id.String()) {
					t.Errorf("%s has the document %s %s", w.name, kind, d.ID)
				}
			}
		}
	}
	if left, err := w.table.List(ctx, "arriving", ""); err != nil || len(left) > 0 {
		t.Errorf("%s has the arriving keys %v, %v", w.name, left, err)
	}
	for _, kind := range []string{"arriving", "coming"} {
		if docs, err := w.store.DocumentPage(ctx, kind, "", 9); err != nil || len(docs) > 0 {
			t.Errorf("%s has %d documents %s, %v", w.name, len(docs), kind, err)
		}
	}
}

// An avatar of several streams, classes and epochs moves with history and state,
// while its senders go on; nothing is left of it at its former world, and evidence
// proves the moved batches under that one's name.
func TestPassage(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, streams := life(arena, 200)
	p := newPassage(t, arena, citadel, id)
	must(t, p.expect())
	if _, err := citadel.agent.Avatar(p.target); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("an avatar that is to come is shown: %v", err)
	}
	if holder, err := citadel.agent.Holder(p.target); err != nil || len(holder.Key) != 32 || len(citadel.agent.Avatars()) != 0 {
		t.Errorf("the holder is %+v, %v", holder, err)
	}
	arena.book.receipt(arena.store)
	must(t, p.copy())
	arena.ahead.Store(int64(2 * time.Hour)) // of the classes, hour is over
	citadel.ahead.Store(int64(2 * time.Hour))
	must(t, arena.agent.DropOver(t.Context()))
	arena.hub.send(streams[0].seal(carnet.Keep, "heart_rate", 4))
	must(t, p.freeze())
	if err := arena.agent.Changeable(id); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a frozen avatar can be changed: %v", err)
	}
	if err := arena.hub.call(carnet.CallMap, carnet.MapRequest{Stream: carnet.NewStreamID(), Avatar: &id}, nil); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a frozen avatar gets a stream: %v", err)
	}
	must(t, arena.agent.DropOver(t.Context()))
	before, state := arena.history(id), latest(t, arena, id)
	arena.hub.send(streams[0].seal(carnet.Keep, "heart_rate", 5)) // after the manifest: it isn't moved
	arena.hub.settle()
	must(t, p.prepare())
	if _, err := citadel.table.Get(t.Context(), epochKey(streams[0])); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a key can be used before the avatar is here: %v", err)
	}
	must(t, p.arrive())
	must(t, p.arrive())
	same := func(when string) {
		t.Helper()
		if got := citadel.history(p.target); !slices.Equal(got, before) {
			t.Fatalf("%s, the history has %d measurements, want %d", when, len(got), len(before))
		}
		if got := latest(t, citadel, p.target); !slices.Equal(got, state) {
			t.Errorf("%s, the state is %v, want %v", when, got, state)
		}
	}
	same("arrived")
	must(t, citadel.agent.Survey(t.Context(), p.target, func(u avatar.Unfit) { t.Errorf("batch %d of %s is unfit: %v", u.Batch, u.Stream, u.Why) }))
	must(t, p.depart())
	must(t, p.depart())
	if _, err := arena.agent.Avatar(id); carnet.CodeOf(err) != carnet.NotFound || !strings.Contains(err.Error(), "citadel") {
		t.Errorf("the avatar that has moved: %v", err)
	}
	arena.hub.send(streams[0].seal(carnet.Keep, "heart_rate", 5)) // it hasn't been told yet
	arena.hub.settle()
	if n := arena.agent.Defects(); n != 0 {
		t.Errorf("%d batches are refused", n)
	}
	must(t, arena.agent.Compact(t.Context(), 1))
	nothingLeft(t, arena, streams[0].id, streams[1].id)
	arena.restart()
	citadel.restart()
	same("started again")
	nothingLeft(t, arena, streams[0].id, streams[1].id)
	if to, err := arena.agent.Departed(id); err != nil || to.World != "citadel" || to.Cleared.IsZero() {
		t.Errorf("the avatar went to %+v, %v", to, err)
	}
	// It can still ask its home of before, until it has nothing more to ask.
	if holder, err := arena.agent.Holder(id); err != nil || len(holder.Key) != 32 {
		t.Errorf("the holder that has moved is %+v, %v", holder, err)
	}
	key := keys.ID{Kind: "avatar", Name: id.String()}
	if _, err := arena.table.Signer(t.Context(), key); err != nil {
		t.Errorf("the key of the avatar that has moved: %v", err)
	}
	must(t, arena.agent.Silence(t.Context(), id))
	must(t, arena.agent.Silence(t.Context(), id))
	if _, err := arena.table.Signer(t.Context(), key); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("the key of the avatar that has nothing to ask: %v", err)
	}
	if err := citadel.agent.Silence(t.Context(), p.target); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("an avatar that is here is silenced: %v", err)
	}
	// Its own stream at the new home, and evidence of both.
	citadel.ahead.Store(int64(2 * time.Hour))
	if err := citadel.hub.call(carnet.CallMap, carnet.MapRequest{Stream: carnet.NewStreamID(), Avatar: &p.target}, nil); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a stranger maps a stream to an avatar that has come: %v", err)
	}
	own := citadel.hub.follow(p.target)
	citadel.hub.send(own.seal(carnet.Keep, "heart_rate", 6))
	citadel.hub.settle()
	citadel.book.receipt(citadel.store)
	dir := citadel.bundle(p.target)
	r, err := evidence.Verify(t.Context(), dir, nil, evidence.VerifyOptions{})
	must(t, err)
	if r.Verdict != evidence.Unknown || len(r.Trust.Worlds) != 2 || len(r.Findings) == 0 || r.Counts.Measurements != uint64(len(before)+6) {
		t.Errorf("the evidence of %d measurements of %d is %s:\n%s", r.Counts.Measurements, len(before)+6, r.Verdict, r.Summary())
	}
	for _, f := range r.Findings {
		if !strings.Contains(f.Text, "retention has ended") {
			t.Errorf("finding %s", f)
		}
	}
	dir = t.TempDir()
	q0 := avatar.Query{From: begun.UnixNano(), To: begun.Add(5 * time.Second).UnixNano()}
	must(t, citadel.prover().WriteBatches(t.Context(), p.target, q0, dir))
	bundles, err := os.ReadDir(dir)
	must(t, err)
	for _, b := range bundles {
		if r, err = evidence.Verify(t.Context(), filepath.Join(dir, b.Name()), nil, evidence.VerifyOptions{}); err != nil || r.Verdict != evidence.True || len(r.Trust.Senders) != 1 {
			t.Errorf("the evidence of a batch alone: %v\n%s", err, r.Summary())
		}
	}
	if len(bundles) < 2 {
		t.Errorf("%d batches are proved by themselves", len(bundles))
	}
	// And back again.
	q := newPassage(t, citadel, arena, p.target)
	arena.ahead.Store(int64(2 * time.Hour))
	before = citadel.history(p.target)
	for _, step := range []func() error{q.expect, q.copy, q.freeze, q.prepare, q.arrive, q.depart} {
		must(t, step())
	}
	if got := arena.history(q.target); !slices.Equal(got, before) {
		t.Errorf("back again, the history has %d measurements, want %d", len(got), len(before))
	}
	arena.book.receipt(arena.store)
	if r, err = evidence.Verify(t.Context(), arena.bundle(q.target), nil, evidence.VerifyOptions{}); err != nil || r.Verdict == evidence.False || r.Counts.Measurements != uint64(len(before)) {
		t.Errorf("the evidence is %s, %v:\n%s", r.Verdict, err, r.Summary())
	}
}

// A target that begins anew once the manifest is fixed lists what the source received
// meanwhile, too, under an epoch that the manifest doesn't name: it comes without.
func TestPassageListedAnew(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, streams := life(arena, 5)
	p := newPassage(t, arena, citadel, id)
	must(t, p.expect())
	must(t, p.freeze())
	before := arena.history(id)
	streams[0].turn()
	arena.hub.send(streams[0].seal(carnet.Keep, "heart_rate", 5))
	arena.hub.settle()
	must(t, arena.agent.Compact(t.Context(), 1))
	must(t, p.copy())
	must(t, p.prepare())
	must(t, p.arrive())
	if got := citadel.history(p.target); !slices.Equal(got, before) {
		t.Errorf("the history has %d measurements, want %d", len(got), len(before))
	}
	if docs, err := citadel.store.DocumentPage(t.Context(), "epoch", "", 9); err != nil || len(docs) != len(p.parsed().Keys) {
		t.Errorf("citadel notes %d epochs of %d, %v", len(docs), len(p.parsed().Keys), err)
	}
	must(t, p.depart())
	nothingLeft(t, arena, streams[0].id, streams[1].id)
}

// An avatar comes back while its former home still asks the depot to delete what it had,
// and hears that it is deleted while the same comes again.
func TestPassageBack(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, _ := life(arena, 9)
	owner := draw()
	word, err := identity.SignOwnership(owner, identity.Ownership{Audience: "arena", Avatar: id, Issued: time.Now()})
	must(t, err)
	must(t, arena.hub.call(carnet.CallOwn, carnet.Own{Ownership: word}, nil))
	before := arena.history(id)
	there := newPassage(t, arena, citadel, id)
	for _, step := range []func() error{there.expect, there.copy, there.freeze, there.prepare, there.arrive, there.depart} {
		must(t, step())
	}
	for range 2 { // its new home may ask again for the departure
		if key, err := arena.agent.Owner(id); err != nil || !key.Equal(owner.Public()) {
			t.Errorf("the owner of who has left is %v, %v", key, err)
		}
		arena.restart()
	}
	back := newPassage(t, citadel, arena, there.target)
	must(t, back.expect())
	ctx := t.Context()
	heard := 0
	var hears func()
	hears = func() { // of one object after the other, each while what comes again is being stored
		all, err := arena.store.DocumentPage(ctx, "doomed", "", 100)
		must(t, err)
		if len(all) == 0 {
			return
		}
		heard++
		must(t, arena.store.Put(ctx, []carnet.Document{{Kind: all[0].Kind, ID: all[0].ID, Version: all[0].Version + 1}}, nil))
		arena.meanwhile = hears
	}
	arena.meanwhile = hears
	for _, step := range []func() error{back.copyAtOnce, back.freeze, back.prepare, back.arrive, back.depart} {
		must(t, step())
	}
	if heard < 3 {
		t.Errorf("the depot deleted %d objects: the test tests little", heard)
	}
	if got := arena.history(back.target); !slices.Equal(got, before) {
		t.Errorf("the history has %d measurements, want %d", len(got), len(before))
	}
}

// What a former world signed of a stream for one move isn't taken for another's.
func TestAPassageOfAnotherMoveIsRefused(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, _ := life(arena, 9)
	p := newPassage(t, arena, citadel, id)
	for _, step := range []func() error{p.expect, p.copy, p.freeze} {
		must(t, step())
	}
	m := p.parsed()
	for _, s := range m.Streams {
		s.Crossing = m.Crossing
		must(t, passport.Vouched(s))
		s.Crossing[0]++
		if err := passport.Vouched(s); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("a passage of another move is taken: %v", err)
		}
	}
	if len(m.Streams) == 0 {
		t.Error("nothing moves")
	}
}

// A world whose store is an older copy asks back what it has put at the depot since, of
// an avatar that has left it, and nothing else.
func TestReclaim(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, streams := life(arena, 9)
	other := arena.hub.stream(nil)
	p := newPassage(t, arena, citadel, id)
	for _, step := range []func() error{p.expect, p.copy, p.freeze, p.prepare, p.arrive} {
		must(t, step())
	}
	ctx := t.Context()
	stretch := func(batches ...[]byte) (body []byte) {
		for _, b := range batches {
			body = append(binary.BigEndian.AppendUint32(body, uint32(len(b))), b...)
		}
		return body
	}
	var stay []carnet.Fingerprint
	for _, body := range [][]byte{stretch(other.seal(carnet.Keep, "heart_rate", 2)), []byte("the output of a job")} {
		f, err := arena.vault.PutObject(ctx, body, carnet.Keep)
		must(t, err)
		stay = append(stay, f)
	}
	_, err := arena.vault.PutObject(ctx, stretch(streams[0].seal(carnet.Keep, "heart_rate", 2), streams[0].seal(carnet.Keep, "heart_rate", 1)), carnet.Keep)
	must(t, err)
	if err := arena.agent.Reclaim(ctx, id); err == nil {
		t.Error("what an avatar has that is here is asked back")
	}
	must(t, arena.agent.Depart(ctx, id, p.crossing, "citadel", carnet.Fingerprint{1}))
	for range 2 {
		must(t, arena.agent.Reclaim(ctx, id))
	}
	must(t, arena.agent.Clear(ctx, id))
	must(t, arena.agent.Reclaim(ctx, id))
	must(t, arena.agent.DropOver(ctx))
	left, err := arena.vault.Objects(ctx, carnet.Fingerprint{})
	must(t, err)
	if slices.SortFunc(stay, func(p, q carnet.Fingerprint) int { return bytes.Compare(p[:], q[:]) }); !slices.Equal(left, stay) {
		t.Errorf("the depot keeps %d objects, want the %d of others", len(left), len(stay))
	}
}

// Whatever is changed of what the source gives is refused, and leaves nothing.
func TestPassageOfLies(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, _ := life(arena, 3)
	p := newPassage(t, arena, citadel, id)
	must(t, p.expect())
	must(t, arena.agent.Pack(t.Context()))
	ctx := t.Context()
	listed, err := arena.agent.MovedStreams(ctx, id)
	must(t, err)
	must(t, citadel.agent.TakeStreams(ctx, p.target, listed, nil))
	page, err := arena.agent.MovedStretches(ctx, id, avatar.Place{}, 9)
	must(t, err)
	m := page[0]
	body, err := arena.agent.StretchBytes(ctx, id, m)
	must(t, err)
	arena.book.receipt(arena.store)
	proof, err := arena.agent.ProofOf(ctx, id, m)
	must(t, err)
	refused := func(what string, m avatar.MovedStretch, body, proof []byte) {
		t.Helper()
		switch code := carnet.CodeOf(citadel.agent.TakeStretch(ctx, p.target, m, body, proof)); code {
		case carnet.Tampered, carnet.Malformed, carnet.TooLarge, carnet.NotFound:
		default:
			t.Fatalf("%s is taken, or refused as %q", what, code)
		}
	}
	for at := range proof {
		bad := slices.Clone(proof)
		bad[at] ^= 1 << (at % 8)
		refused(fmt.Sprintf("a proof with another byte %d", at), m, body, bad)
	}
	for at := 0; at < len(body); at += 7 {
		bad := slices.Clone(body)
		bad[at] ^= 1
		refused(fmt.Sprintf("a stretch with another byte %d", at), m, bad, proof)
		changed := m
		changed.Fingerprint = carnet.FingerprintOf(bad)
		refused(fmt.Sprintf("a stretch of another fingerprint with another byte %d", at), changed, bad, proof)
	}
	for what, change := range map[string]func(*avatar.MovedStretch){
		"first": func(m *avatar.MovedStretch) { m.First++ }, "last": func(m *avatar.MovedStretch) { m.Last++ },
		"batches": func(m *avatar.MovedStretch) { m.Batches-- }, "received": func(m *avatar.MovedStretch) { m.Received++ },
		"size": func(m *avatar.MovedStretch) { m.Size-- }, "stream": func(m *avatar.MovedStretch) { m.Stream = listed[1].Stream },
		"unknown stream": func(m *avatar.MovedStretch) { m.Stream = carnet.NewStreamID() }, "class": func(m *avatar.MovedStretch) { m.Class = 9 },
	} {
		changed := m
		change(&changed)
		refused("another "+what, changed, body, proof)
	}
	for _, n := range []int{0, 1, len(proof) / 2, len(proof) - 1} {
		refused("a short proof", m, body, proof[:n])
	}
	refused("a long proof", m, body, append(slices.Clone(proof), 0))
	if n, err := citadel.agent.Totals(ctx); err != nil || n.Stretches != 0 {
		t.Errorf("%d stretches are here, %v", n.Stretches, err)
	}
	changed := listed[0]
	changed.Origin.Sender = "other"
	if err := citadel.agent.TakeStreams(ctx, p.target, []avatar.MovedStream{changed}, nil); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a stream of another origin: %v", err)
	}
	// Keys and state.
	for _, step := range []func() error{p.copy, p.freeze} {
		must(t, step())
	}
	manifest := p.parsed()
	if err := citadel.agent.Check(ctx, p.target, manifest); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("checked without keys: %v", err)
	}
	bags, err := p.bags(manifest)
	must(t, err)
	want := seal.Expected{Granter: "arena", Signer: public(arena.self), Reader: "citadel"}
	for at := 0; at < len(bags[0]); at += 5 {
		bad := slices.Clone(bags[0])
		bad[at] ^= 1
		if err := citadel.agent.TakeKeys(ctx, p.target, bad, want); err == nil {
			t.Fatalf("a bag with another byte %d is taken", at)
		}
	}
	if err := citadel.agent.TakeKeys(ctx, p.target, bags[0], seal.Expected{Granter: "arena", Signer: public(draw()), Reader: "citadel"}); err == nil {
		t.Error("another's bag is taken")
	}
	if err := p.junk(manifest, want); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("a junk key: %v", err)
	}
	must(t, p.prepare())
	for what, change := range map[string]func(*avatar.Manifest){
		"crossing":         func(m *avatar.Manifest) { m.Crossing = carnet.NewCrossingID() },
		"value's time":     func(m *avatar.Manifest) { m.State[0].Time++ },
		"value's batch":    func(m *avatar.Manifest) { m.State[0].Batch = 0; m.State[0].Name = "0" },
		"stretch":          func(m *avatar.Manifest) { m.Stretches[0].Fingerprint[0]++ },
		"stretch's number": func(m *avatar.Manifest) { m.Stretches[0].NextNumber-- },
		"origin":           func(m *avatar.Manifest) { m.Streams[0].Origin.World = "other" },
		"end of a stream":  func(m *avatar.Manifest) { m.Streams[0].NextBatch++ },
		"passage":          func(m *avatar.Manifest) { m.Streams[0].Passage = m.Streams[1].Passage },
	} {
		bad := p.parsed()
		change(bad)
		if err := citadel.agent.Check(ctx, p.target, bad); err == nil {
			t.Errorf("a manifest of another %s is taken", what)
		}
		must(t, p.prepare()) // what it threw away comes again
	}
	text := bytes.Replace(p.manifest, []byte(`"version":1`), []byte(`"version":1 `), 1)
	if _, err := avatar.ParseManifest(text); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("another form of the manifest: %v", err)
	}
	must(t, p.arrive())
}

// A target that is cleared for less isn't given the keys.
func TestPassageAboveClearance(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	citadel.clearance = carnet.Clearance{Sensitivity: carnet.Personal, Purposes: "fitness"}
	id, _ := life(arena, 2)
	p := newPassage(t, arena, citadel, id)
	for _, step := range []func() error{p.expect, p.copy, p.freeze} {
		must(t, step())
	}
	if err := p.prepare(); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("prepared above the clearance: %v", err)
	}
	if label, err := arena.agent.MovedCeiling(t.Context(), id); err != nil || label.Sensitivity != carnet.Health {
		t.Errorf("the ceiling is %+v, %v", label, err)
	}
}

// A subscription ends with the departure, and its reader is told where to go.
func TestSubscriptionEndsWithDeparture(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, _ := life(arena, 2)
	p := newPassage(t, arena, citadel, id)
	sub, err := arena.agent.Subscribe(id, nil)
	must(t, err)
	defer sub.Close()
	for _, step := range []func() error{p.expect, p.copy, p.freeze, p.prepare, p.arrive, p.depart} {
		must(t, step())
	}
	for {
		if _, err = sub.Next(t.Context()); err != nil {
			break
		}
	}
	if carnet.CodeOf(err) != carnet.NotFound || !strings.Contains(err.Error(), "citadel") {
		t.Errorf("the subscription ends with %v", err)
	}
	live, err := citadel.agent.Subscribe(p.target, &avatar.Cursor{})
	must(t, err)
	defer live.Close()
	n := 0
	for want := len(citadel.history(p.target)); n < want; {
		e, err := live.Next(t.Context())
		must(t, err)
		n += len(e.Measurements)
	}
}

// An avatar that comes back while the world destroys the keys of its earlier stay keeps
// those that have come with it.
func TestKeysComeBackWhileTheyAreDestroyed(t *testing.T) {
	ctx := t.Context()
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, _ := life(arena, 4)
	before := arena.history(id)
	there := newPassage(t, arena, citadel, id)
	for _, step := range []func() error{there.expect, there.copy, there.freeze, there.prepare, there.arrive} {
		must(t, step())
	}
	must(t, arena.agent.Depart(ctx, id, there.crossing, citadel.name, carnet.Fingerprint{1}))
	back := newPassage(t, citadel, arena, there.target)
	back.same = []carnet.AvatarID{id}
	for _, step := range []func() error{back.expect, back.copy, back.freeze, back.prepare} {
		must(t, step())
	}
	arrived := make(chan error, 1)
	comes := func() { // when it is known which keys are to go
		go func() { arrived <- back.arrive() }()
		time.Sleep(200 * time.Millisecond) // it gets as far as it can
	}
	arena.listed.Store(&comes)
	must(t, arena.agent.Clear(ctx, id))
	select {
	case err := <-arrived:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("it doesn't arrive")
	}
	if got := arena.history(back.target); !slices.Equal(got, before) {
		t.Errorf("the history has %d measurements, want %d", len(got), len(before))
	}
}

// What comes isn't put into the depot before the avatar is here: nobody can tell until
// then which its policy lets have it, nor whether it comes at all.
func TestWhatComesIsntAtTheDepotBeforeTheAvatar(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorld(t, "citadel")
	id, _ := life(arena, 20)
	citadel.every = 5 * time.Millisecond
	citadel.restart()
	held := func() int {
		objects, err := citadel.vault.Objects(t.Context(), carnet.Fingerprint{})
		must(t, err)
		return len(objects)
	}
	p := newPassage(t, arena, citadel, id)
	must(t, p.expect())
	arena.book.receipt(arena.store)
	must(t, p.copy())
	time.Sleep(100 * time.Millisecond) // some twenty rounds
	must(t, p.freeze())
	must(t, p.prepare())
	citadel.restart()
	time.Sleep(100 * time.Millisecond)
	if n := held(); n > 0 {
		t.Errorf("before the avatar is there, the depot has %d objects", n)
	}
	must(t, p.arrive())
	for end := time.Now().Add(time.Minute); held() < len(p.parsed().Stretches); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the depot has %d objects of %d stretches", held(), len(p.parsed().Stretches))
		}
	}
}
