package passage_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/keys"
	"carnet/seal"
)

var (
	open     = carnet.Label{}
	personal = carnet.Label{Sensitivity: carnet.Personal}

	forAll    = carnet.Clearance{Purposes: "fitness"}
	forPerson = carnet.Clearance{Sensitivity: carnet.Personal, Purposes: "fitness"}
)

// mixedLife has an avatar receive streams with batches of three labels: public steps,
// personal pace, and what is of health; of some streams all is, or nothing. One epoch
// has nothing above personal.
func mixedLife(w *world, rounds int) (id carnet.AvatarID, streams []*source) {
	w.t.Helper()
	mixed := w.hub.stream(nil)
	health := w.hub.stream(&mixed.avatar)
	public := w.hub.stream(&mixed.avatar)
	other := w.hub.stream(nil)
	public.ceiling = open
	public.turn()
	for i := range rounds {
		// Of the class keep the first batch is left out, so that what remains begins after
		// what remains of the class month.
		w.hub.send(mixed.labelled(carnet.Keep, healthy, "heart_rate", 3), mixed.labelled(carnet.Month, personal, "pace", 2), other.seal(carnet.Keep, "heart_rate", 2),
			mixed.labelled(carnet.Keep, open, "steps", 2), health.seal(carnet.Keep, "stress", 4))
		w.hub.send(mixed.labelled(carnet.Month, healthy, "glucose", 1), public.labelled(carnet.Keep, open, "energy", 2))
		if i%5 == 1 {
			w.hub.send(health.seal(carnet.Keep, "stress", 1), health.seal(carnet.Keep, "stress", 1)) // nothing of it remains
		}
		if i%3 == 2 && i < rounds-2 {
			w.hub.settle()
			must(w.t, w.agent.Compact(w.t.Context(), 1))
		}
		switch i % 4 {
		case 1:
			mixed.ceiling = healthy
			mixed.turn()
		case 3:
			mixed.turn()
		}
	}
	mixed.ceiling = personal // of this epoch nothing needs to be opened
	mixed.turn()
	w.hub.send(mixed.labelled(carnet.Keep, open, "steps", 2), mixed.labelled(carnet.Month, personal, "pace", 5))
	w.hub.settle()
	return mixed.avatar, []*source{mixed, health, public}
}

// of are the measurements of properties.
func of(ms []carnet.Measurement, names ...string) []carnet.Measurement {
	return slices.DeleteFunc(slices.Clone(ms), func(m carnet.Measurement) bool { return !slices.Contains(names, m.Name) })
}

// counted is how many measurements a report says were left out.
func counted(r *evidence.Report) (n uint64) {
	for _, l := range r.LeftOut {
		n += l.Measurements
	}
	return n
}

// proves verifies a bundle in which everything is proved or left out.
func proves(t *testing.T, w *world, id carnet.AvatarID, here, left int) {
	t.Helper()
	w.book.receipt(w.store)
	r, err := evidence.Verify(t.Context(), w.bundle(id), nil, evidence.VerifyOptions{})
	must(t, err)
	if r.Verdict != evidence.True || r.Counts.Measurements != uint64(here) || counted(r) != uint64(left) {
		t.Errorf("evidence of %d measurements, %d left out (want %d and %d):\n%s", r.Counts.Measurements, counted(r), here, left, r.Summary())
	}
}

// An avatar moves to a world that may have less, and on to one that may have still
// less: each has exactly what it may, with the same bytes, receipts and evidence; no key
// opens what was left out; evidence and passport say how much that was.
func TestRedactedPassage(t *testing.T) {
	arena, citadel, clinic := newWorld(t, "arena"), newWorldFor(t, "citadel", forPerson), newWorldFor(t, "clinic", forAll)
	id, streams := mixedLife(arena, 40)
	before, state := arena.history(id), latest(t, arena, id)
	would, err := arena.agent.WouldLeave(t.Context(), id, forPerson)
	must(t, err)
	p := newPassage(t, arena, citadel, id)
	p.redact = arena.redaction(forPerson)
	for _, step := range []func() error{p.expect, p.copy, p.freeze, p.prepare} {
		must(t, step())
	}
	gone := of(before, "heart_rate", "glucose", "stress")
	for _, v := range p.parsed().State {
		if len(of([]carnet.Measurement{{Name: v.Name}}, "steps", "pace", "energy")) == 0 {
			t.Errorf("the manifest tells of %s", v.Name)
		}
	}
	again, err := arena.agent.WouldLeave(t.Context(), id, forPerson)
	must(t, err)
	if len(would) > 1 || len(again) != 1 || again[0].Label != healthy || again[0].Measurements != uint64(len(gone)) || !slices.Equal(again[0].Properties, []string{"glucose", "heart_rate", "stress"}) ||
		again[0].From.UnixNano() != gone[0].Time || again[0].To.UnixNano() != gone[len(gone)-1].Time {
		t.Errorf("what would be left behind: %+v", again)
	}
	must(t, p.arrive())
	kept := of(before, "steps", "pace", "energy")
	check := func(w *world, id carnet.AvatarID, want []carnet.Measurement, names ...string) {
		t.Helper()
		if got := w.history(id); !slices.Equal(got, want) {
			t.Fatalf("%s has %d measurements, want %d", w.name, len(got), len(want))
		}
		if got := latest(t, w, id); !slices.Equal(got, of(state, names...)) {
			t.Errorf("the state in %s is %v", w.name, got)
		}
		must(t, w.agent.Survey(t.Context(), id, func(u avatar.Unfit) { t.Errorf("batch %d of %s is unfit: %v", u.Batch, u.Stream, u.Why) }))
	}
	check(citadel, p.target, kept, "steps", "pace", "energy")
	// No key of what was left out.
	held, err := citadel.table.List(t.Context(), "epoch", "")
	must(t, err)
	for _, k := range held {
		at, err := seal.ParsePath(k.Name)
		must(t, err)
		if at.Level != seal.SlotLevel {
			t.Errorf("citadel has the key of %s", at)
		}
		if at.Stream == streams[1].id {
			t.Errorf("citadel has the key of %s, of which everything was left out", at)
		}
	}
	if len(held) == 0 {
		t.Error("citadel has no key")
	}
	must(t, p.depart())
	for _, s := range streams {
		nothingLeft(t, arena, s.id)
	}
	arena.restart()
	citadel.restart()
	check(citadel, p.target, kept, "steps", "pace", "energy")
	proves(t, citadel, p.target, len(kept), len(gone))

	// What its things send from then on is beside that.
	own := citadel.hub.follow(p.target)
	own.ceiling = open
	own.turn()
	citadel.hub.send(own.labelled(carnet.Keep, open, "steps", 6))
	citadel.hub.settle()
	proves(t, citadel, p.target, len(kept)+6, len(gone))

	// A passport of it.
	passported := newPassported(t, citadel, p.target)
	if r := verifyPassport(t, passported.dir); r.Verdict != evidence.True || counted(r) != uint64(len(gone)) || len(r.Trust.Worlds) != 2 {
		t.Errorf("the passport: %+v", r)
	}

	// On to a world that may have still less.
	before, state = citadel.history(p.target), latest(t, citadel, p.target)
	q := newPassage(t, citadel, clinic, p.target)
	q.redact = citadel.redaction(forAll)
	q.redact.Order[0]++
	for _, step := range []func() error{q.expect, q.copy, q.freeze, q.prepare, q.arrive, q.depart} {
		must(t, step())
	}
	kept = of(before, "steps", "energy")
	check(clinic, q.target, kept, "steps", "energy")
	proves(t, clinic, q.target, len(kept), len(gone)+len(of(before, "pace")))
	for _, s := range append(streams, own) {
		nothingLeft(t, citadel, s.id)
	}

	// And back, with nothing left out any more: the keys are those of slots still.
	back := newPassage(t, clinic, arena, q.target)
	for _, step := range []func() error{back.expect, back.copy, back.freeze, back.prepare, back.arrive, back.depart} {
		must(t, step())
	}
	check(arena, back.target, kept, "steps", "energy")
	proves(t, arena, back.target, len(kept), len(gone)+len(of(before, "pace")))
}

// At whichever durable step either world is lost, a redacted move ends as any: in one
// home with what it may have, or where it was with everything.
func TestRedactedPassageThroughCrashes(t *testing.T) {
	for _, side := range []string{"source", "target"} {
		for _, after := range []bool{false, true} {
			for _, commit := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s %v %v", side, after, commit), func(t *testing.T) {
					for n := int64(1); ; n++ {
						arena, citadel := newWorld(t, "arena"), newWorldFor(t, "citadel", forPerson)
						id, streams := mixedLife(arena, 4)
						p := newPassage(t, arena, citadel, id)
						p.redact = arena.redaction(forPerson)
						names := []string{"steps", "pace", "energy"}
						if !crashIn(t, p, of(arena.history(id), names...), of(latest(t, arena, id), names...), streams, side, after, n, commit) {
							t.Logf("%d durable steps", n-1)
							if n < 5 {
								t.Errorf("the %s has %d durable steps only", side, n-1)
							}
							return
						}
					}
				})
			}
		}
	}
}

// What retention ends afterwards can't be told, and what was left out still is.
func TestRedactedAndOver(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorldFor(t, "citadel", forPerson)
	id, _ := mixedLife(arena, 12)
	p := newPassage(t, arena, citadel, id)
	p.redact = arena.redaction(forPerson)
	before := arena.history(id)
	for _, step := range []func() error{p.expect, p.copy, p.freeze, p.prepare, p.arrive, p.depart} {
		must(t, step())
	}
	citadel.ahead.Store(int64(32 * 24 * time.Hour)) // the class month is over
	must(t, citadel.agent.DropOver(t.Context()))
	citadel.book.receipt(citadel.store)
	r, err := evidence.Verify(t.Context(), citadel.bundle(p.target), nil, evidence.VerifyOptions{})
	must(t, err)
	if gone := of(before, "heart_rate", "glucose", "stress"); r.Verdict != evidence.Unknown || counted(r) != uint64(len(gone)) || len(r.Findings) != 1 || r.Counts.Measurements != uint64(len(of(before, "steps", "energy"))) {
		t.Errorf("%d left out of %d:\n%s", counted(r), len(gone), r.Summary())
	}
}

// A source that leaves out something else than it says, or gives keys that open what
// was to be left out, isn't believed; and a slot of two labels isn't given.
func TestRedactedPassageOfLies(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorldFor(t, "citadel", forPerson)
	id, streams := mixedLife(arena, 6)
	p := newPassage(t, arena, citadel, id)
	p.redact = arena.redaction(forPerson)
	for _, step := range []func() error{p.expect, p.copy, p.freeze, p.prepare} {
		must(t, step())
	}
	ctx := t.Context()
	at := slices.IndexFunc(p.parsed().Streams, func(s avatar.MovedStream) bool { return s.Stream == streams[0].id })
	sign := func(s *avatar.MovedStream) {
		var err error
		l := &s.Left[len(s.Left)-1]
		l.Word, err = p.redact.Sign(*s, *l)
		must(t, err)
	}
	for what, change := range map[string]func(m *avatar.Manifest, s *avatar.MovedStream){
		"a stretch more is left out": func(m *avatar.Manifest, _ *avatar.MovedStream) { m.Stretches = slices.Delete(m.Stretches, 0, 1) },
		"a batch more is said to be": func(_ *avatar.Manifest, s *avatar.MovedStream) { s.Left[0].Runs[0].Batches++; sign(s) },
		"a batch less is":            func(_ *avatar.Manifest, s *avatar.MovedStream) { s.Left[0].Runs[0].Batches--; sign(s) },
		"others are": func(_ *avatar.Manifest, s *avatar.MovedStream) {
			s.Left[0].Runs[0].From++
			s.Left[0].Runs[1].From++
			sign(s)
		},
		"nothing is said to be":         func(_ *avatar.Manifest, s *avatar.MovedStream) { s.Left = nil },
		"the word says something else":  func(_ *avatar.Manifest, s *avatar.MovedStream) { s.Left[0].Runs[0].Measurements++ },
		"the word is of another order":  func(_ *avatar.Manifest, s *avatar.MovedStream) { s.Left[0].Order[0]++ },
		"the word is of another stream": func(m *avatar.Manifest, s *avatar.MovedStream) { s.Left[0].Word = m.Streams[(at+1)%2].Left[0].Word },
		"keys are of epochs":            func(_ *avatar.Manifest, s *avatar.MovedStream) { s.Slots = false },
	} {
		bad := p.parsed()
		change(bad, &bad.Streams[at])
		if err := citadel.agent.Check(ctx, p.target, bad); err == nil {
			t.Errorf("taken though %s", what)
		}
		must(t, p.prepare())
	}
	// The key of an epoch opens what was left out: neither is it given, nor taken.
	announced, err := citadel.agent.AnnounceTo(citadel.self, "citadel")
	must(t, err)
	reception, err := seal.ParseReception(announced, public(citadel.self), time.Now())
	must(t, err)
	terms := seal.Terms{Granter: "arena", Purpose: "fitness", Clearance: clearance, Time: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	want := seal.Expected{Granter: "arena", Signer: public(arena.self), Reader: "citadel"}
	held, err := arena.table.List(ctx, "epoch", streams[0].id.String()+"/")
	must(t, err)
	for _, k := range held {
		path, err := seal.ParsePath(k.Name)
		must(t, err)
		key := seal.Key{Path: path, Secret: [32]byte(must1(arena.table.Get(ctx, keys.ID{Kind: "epoch", Name: k.Name})))}
		bag, err := seal.Grant(arena.self, reception, terms, []seal.Entry{{Key: key, Ceiling: personal}})
		must(t, err)
		if err := citadel.agent.TakeKeys(ctx, p.target, bag, want); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("the key of an epoch: %v", err)
		}
	}
	// A sender that puts two labels into one slot.
	mixed := arena.hub.stream(nil)
	both := mixed.labelled(carnet.Keep, open, "steps", 1)
	mixed.slots[slotOf{carnet.Keep, healthy}] = mixed.slots[slotOf{carnet.Keep, open}]
	arena.hub.send(both, mixed.seal(carnet.Keep, "heart_rate", 1))
	arena.hub.settle()
	q := newPassage(t, arena, citadel, mixed.avatar)
	q.redact = arena.redaction(forPerson)
	for _, step := range []func() error{q.expect, q.copy} {
		must(t, step())
	}
	if err := q.freeze(); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("a slot of two labels: %v", err)
	}
}

// What can't be opened any more counts as the most that it can be: it is left out, and
// it is said that nobody counted it.
func TestWhatIsClosedIsLeftOut(t *testing.T) {
	arena, citadel := newWorld(t, "arena"), newWorldFor(t, "citadel", forPerson)
	id, streams := mixedLife(arena, 6)
	arena.hub.settle()
	must(t, arena.agent.Compact(t.Context(), 1))
	before := arena.history(id)
	held, err := arena.table.List(t.Context(), "epoch", streams[0].id.String()+"/")
	must(t, err)
	last := streams[0].epoch.Epoch
	for _, k := range held {
		if path, _ := seal.ParsePath(k.Name); path.Epoch != last {
			must(t, arena.table.Destroy(t.Context(), k))
		}
	}
	arena.restart()
	p := newPassage(t, arena, citadel, id)
	p.redact = arena.redaction(forPerson)
	for _, step := range []func() error{p.expect, p.copy, p.freeze, p.prepare, p.arrive} {
		must(t, step())
	}
	if got := citadel.history(p.target); len(of(got, "heart_rate")) > 0 || len(of(got, "energy")) != len(of(before, "energy")) || len(of(got, "pace")) != 5 {
		t.Errorf("citadel has %d measurements", len(got))
	}
	citadel.book.receipt(citadel.store)
	r, err := evidence.Verify(t.Context(), citadel.bundle(p.target), nil, evidence.VerifyOptions{})
	must(t, err)
	closed := uint64(0)
	for _, l := range r.LeftOut {
		closed += l.Closed
	}
	if r.Verdict != evidence.True || closed == 0 {
		t.Errorf("%d batches that can't be opened:\n%s", closed, r.Summary())
	}
}

// An avatar that came back redacted and moves on leaves no key here: neither its own, nor
// those of the slots that came back.
func TestNoKeyStaysOfWhatCameBack(t *testing.T) {
	arena, citadel, clinic := newWorld(t, "arena"), newWorldFor(t, "citadel", forPerson), newWorldFor(t, "clinic", forPerson)
	id, streams := mixedLife(arena, 12)
	there := newPassage(t, arena, citadel, id)
	there.redact = arena.redaction(forPerson)
	for _, step := range []func() error{there.expect, there.copy, there.freeze, there.prepare, there.arrive, there.depart} {
		must(t, step())
	}
	back := newPassage(t, citadel, arena, there.target)
	for _, step := range []func() error{back.expect, back.copyAtOnce, back.freeze, back.prepare, back.arrive, back.depart} {
		must(t, step())
	}
	held, err := arena.table.List(t.Context(), "epoch", "")
	must(t, err)
	if len(held) == 0 {
		t.Fatal("nothing came back: the test tests nothing")
	}
	on := newPassage(t, arena, clinic, back.target)
	for _, step := range []func() error{on.expect, on.copyAtOnce, on.freeze, on.prepare, on.arrive, on.depart} {
		must(t, step())
	}
	for _, s := range streams {
		nothingLeft(t, arena, s.id)
	}
}
