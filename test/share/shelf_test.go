package share_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/crossing"
	"carnet/identity"
	"carnet/link"
	"carnet/shelf"
)

// vault keeps arena's shelf for citadel. It can be away, and lie.
type vault struct {
	away    atomic.Bool
	unknown atomic.Bool                                       // which depot it is
	deaf    atomic.Bool                                       // it takes objects, and its answers are lost
	lie     atomic.Pointer[func(*vault, *shelf.Signed) error] // changes what citadel reads
	gone    atomic.Pointer[carnet.Fingerprint]                // an object that it says it hasn't

	mu      sync.Mutex // guards what follows
	objects map[carnet.Fingerprint][]byte
	now     *shelf.Signed
	all     []shelf.Signed // that it ever had
}

// vaultDID is what policies call it.
var vaultDID = identity.DID(public(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))))

// at says where it is, unless that isn't known.
func (v *vault) at() *crossing.ShelfAt {
	if v.unknown.Load() {
		return nil
	}
	return &crossing.ShelfAt{DID: vaultDID}
}

func (v *vault) reached() error {
	if v.away.Load() {
		return carnet.Errorf(carnet.Unavailable, "the depot is away")
	}
	v.mu.Lock()
	return nil
}

func (v *vault) PutObject(_ context.Context, body []byte, _ carnet.Retention) (f carnet.Fingerprint, err error) {
	if err := v.reached(); err != nil {
		return f, err
	}
	defer v.mu.Unlock()
	f = carnet.FingerprintOf(body)
	v.objects[f] = slices.Clone(body)
	if v.deaf.Load() {
		return f, carnet.Errorf(carnet.Unavailable, "the answer was lost")
	}
	return f, nil
}

func (v *vault) DeleteObject(_ context.Context, f carnet.Fingerprint) error {
	if err := v.reached(); err != nil {
		return err
	}
	defer v.mu.Unlock()
	delete(v.objects, f)
	return nil
}

func (v *vault) PutShelf(_ context.Context, _ string, s shelf.Signed) error {
	if err := v.reached(); err != nil {
		return err
	}
	defer v.mu.Unlock()
	v.now = &s
	v.all = append(v.all, s)
	return nil
}

func (v *vault) OwnShelf(context.Context, string) (shelf.Signed, error) {
	if err := v.reached(); err != nil {
		return shelf.Signed{}, err
	}
	defer v.mu.Unlock()
	if v.now == nil {
		return shelf.Signed{}, carnet.Errorf(carnet.NotFound, "there is no such shelf")
	}
	return *v.now, nil
}

func (v *vault) DeleteShelf(context.Context, string) error {
	if err := v.reached(); err != nil {
		return err
	}
	defer v.mu.Unlock()
	v.now = nil
	return nil
}

func (v *vault) Shelf(ctx context.Context, taker string) (shelf.Signed, error) {
	s, err := v.OwnShelf(ctx, taker)
	if lie := v.lie.Load(); lie != nil && err == nil {
		err = (*lie)(v, &s)
	}
	return s, err
}

func (v *vault) Shelved(_ context.Context, _ string, f carnet.Fingerprint) ([]byte, error) {
	if err := v.reached(); err != nil {
		return nil, err
	}
	defer v.mu.Unlock()
	if gone := v.gone.Load(); gone != nil && *gone == f || v.objects[f] == nil {
		return nil, carnet.Errorf(carnet.NotFound, "no object %s is stored for you", f)
	}
	return v.objects[f], nil
}

// holds says what the depot has.
func (v *vault) holds() (index, objects int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.now != nil {
		index = len(v.now.Objects)
	}
	return index, len(v.objects)
}

// shelved waits until arena has put what it has for citadel.
func (p *pair) shelved() {
	p.t.Helper()
	var last uint64
	p.eventually("arena shelves", func() bool {
		before := last
		_, s := p.arena.shares.Reach("citadel", true)
		if s == nil || s.Frame == 0 {
			return false
		}
		last = s.Frame
		time.Sleep(500 * time.Millisecond)
		return last == before
	})
}

// reading waits until citadel says something of reading that has a word.
func (p *pair) reading(word string) {
	p.t.Helper()
	said := ""
	defer func() {
		if p.t.Failed() {
			p.t.Logf("citadel says %q", said)
		}
	}()
	p.eventually("citadel says "+word, func() bool {
		_, s := p.citadel.shares.Reach("arena", false)
		if s != nil {
			said = s.Why
		}
		return s != nil && strings.Contains(s.Why, word)
	})
}

// gone waits until nothing of a shelf is left at the depot.
func (p *pair) gone() {
	p.t.Helper()
	p.eventually("the shelf is gone", func() bool {
		index, objects := p.vault.holds()
		return index == 0 && objects == 0
	})
}

// beats has hub send heart rates, and returns them.
func (p *pair) beats(s *stream, from, to int) (all []carnet.Measurement) {
	p.t.Helper()
	for i := from; i < to; i++ {
		all = append(all, beat(i, float64(60+i)))
		p.hub.send(s.seal(health, all[len(all)-1]))
	}
	return all
}

// has waits until citadel has these heart rates, rounded as the view says.
func (p *pair) has(when string, want []carnet.Measurement) {
	p.t.Helper()
	p.eventually(fmt.Sprintf("citadel has %d heart rates %s", len(want), when), func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) >= len(want) })
	if got := p.here(p.citadel, p.ours)["heart_rate"]; !slices.Equal(got, want) {
		p.t.Fatalf("%s citadel has %v, want %v", when, got, want)
	}
}

// hasSteps waits until citadel has these steps, as the view lets them through.
func (p *pair) hasSteps(when string, want []carnet.Measurement) {
	p.t.Helper()
	p.eventually(fmt.Sprintf("citadel has %d steps %s", len(want), when), func() bool { return len(p.here(p.citadel, p.ours)["steps"]) >= len(want) })
	if got := p.here(p.citadel, p.ours)["steps"]; len(want) == 0 || !slices.Equal(got, want) {
		p.t.Errorf("%s citadel has %d steps, want %d: from the first difference on %v, want %v", when, len(got), len(want), differ(got, want), differ(want, got))
	}
}

// While citadel is stopped arena shelves; once arena is gone citadel reads. Then arena
// goes on behind what was read.
func TestThroughStorage(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	all := p.beats(s, 0, 3)
	p.has("at first", all)
	p.citadel.stop()
	all = append(all, p.beats(s, 3, 8)...)
	p.shelved()
	p.arena.stop()
	p.start(p.citadel)
	p.has("from the depot", all)
	p.start(p.arena)
	all = append(all, p.beats(s, 8, 12)...)
	p.has("over the link", all)
	p.gone()
	if n := p.citadel.agent.Defects(); n != 0 {
		t.Errorf("%d batches are refused", n)
	}
}

// lossy is an end of links that cuts the connection at the next frame: before it is
// stored, or before it is acknowledged.
type lossy struct {
	crossing.Sink
	p      *pair
	lose   *atomic.Bool
	stored bool
	last   *atomic.Uint64 // the number of the frame that was in flight
}

func (l lossy) Accept(ctx context.Context, party carnet.PartyID, run []*link.Arrival) (verdicts []link.Verdict, err error) {
	cut := l.lose.Load() && l.last.CompareAndSwap(0, run[0].Frame.Header.Number)
	if cut && !l.stored {
		err = carnet.Errorf(carnet.Unavailable, "the frame is lost")
	} else {
		verdicts, err = l.Sink.Accept(ctx, party, run)
	}
	if cut {
		l.p.proxy.cut.Store(true)
		l.p.proxy.drop()
	}
	return verdicts, err
}

// What wasn't acknowledged comes first on the shelf, byte for byte, whether citadel has
// stored it or not: it goes on behind it.
func TestWhatWasInFlightComesFirst(t *testing.T) {
	for name, stored := range map[string]bool{"stored": true, "lost": false} {
		t.Run(name, func(t *testing.T) {
			var lose atomic.Bool
			var last atomic.Uint64
			p := newPair(t, `{"properties": {"heart_rate": {}}}`)
			p.instead = func(s crossing.Sink) link.Sink { return lossy{s, p, &lose, stored, &last} }
			p.restart(p.citadel)
			s := p.hub.open(p.arena, &p.theirs)
			p.take()
			all := p.beats(s, 0, 2)
			p.has("at first", all)
			lose.Store(true)
			all = append(all, p.beats(s, 2, 3)...)
			p.eventually("citadel is cut off", p.proxy.cut.Load)
			all = append(all, p.beats(s, 3, 6)...)
			p.has("from the depot", all)
			p.vault.mu.Lock()
			first := p.vault.now
			p.vault.mu.Unlock()
			if first == nil {
				t.Fatal("nothing is on the shelf")
			}
			if i, err := first.Open(shelf.Name(public(p.arena.id.Key)), shelf.Name(public(p.citadel.id.Key))); err != nil || i.First != last.Load() {
				t.Errorf("the shelf begins with frame %d, %v: frame %d wasn't acknowledged", i.First, err, last.Load())
			}
			p.proxy.cut.Store(false)
			all = append(all, p.beats(s, 6, 9)...)
			p.has("over the link", all)
			p.gone()
		})
	}
}

// An object that came to the depot, and is on no index since arena's process ended, is
// deleted by the next.
func TestAnObjectOnNoIndexIsDeleted(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	all := p.beats(s, 0, 2)
	p.has("at first", all)
	p.citadel.stop()
	all = append(all, p.beats(s, 2, 4)...)
	p.shelved()
	p.vault.deaf.Store(true)
	all = append(all, p.beats(s, 4, 6)...)
	p.eventually("an object is on no index", func() bool { index, objects := p.vault.holds(); return objects > index })
	p.arena.stop()
	p.vault.deaf.Store(false)
	p.start(p.arena)
	p.eventually("the shelf goes on", func() bool { index, objects := p.vault.holds(); return index > 1 && objects == index })
	p.start(p.citadel)
	p.has("in the end", all)
	p.gone()
}

// A new process of arena goes on with the shelf that there is.
func TestANewProcessGoesOnWithAShelf(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	all := p.beats(s, 0, 2)
	p.has("at first", all)
	p.citadel.stop()
	var walked []carnet.Measurement
	walk := func(second int) {
		walked = append(walked, steps(second, float64(7*second)))
		p.hub.send(s.seal(health, walked[len(walked)-1]))
	}
	for i := range 3 {
		all = append(all, p.beats(s, 2+4*i, 6+4*i)...)
		walk(6 + 4*i)
		p.shelved()
		p.restart(p.arena)
	}
	all = append(all, p.beats(s, 14, 16)...)
	walk(16)
	p.shelved()
	p.arena.stop()
	p.start(p.citadel)
	p.has("from the depot", all)
	p.hasSteps("from the depot", every(time.Nanosecond, walked))
	p.start(p.arena)
	p.gone()
}

// A share that ends takes its shelf away, at once or as soon as the depot can be
// reached, also by another process; and nothing more is shelved.
func TestAShelfEndsWithItsShare(t *testing.T) {
	for name, restart := range map[string]bool{"at once": false, "by another process": true} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, `{"properties": {"heart_rate": {}}}`)
			s := p.hub.open(p.arena, &p.theirs)
			taken := p.take()
			all := p.beats(s, 0, 2)
			p.has("at first", all)
			p.citadel.stop()
			p.beats(s, 2, 4)
			p.shelved()
			p.vault.away.Store(restart)
			if err := p.arena.shares.StopGiving(t.Context(), taken.ID, "arena", "enough"); err != nil {
				t.Fatal(err)
			}
			p.beats(s, 4, 6)
			if restart {
				p.restart(p.arena)
				p.vault.away.Store(false)
			}
			p.gone()
			time.Sleep(100 * time.Millisecond)
			if index, objects := p.vault.holds(); index+objects != 0 {
				t.Errorf("the depot has an index of %d and %d objects", index, objects)
			}
			p.arena.stop()
			p.start(p.citadel)
			p.reading("nothing")
			p.has("after the end", all)
		})
	}
}

// An arena whose store is an older copy doesn't go on with a shelf that went on.
func TestARestoredGiverWithdrawsItsShelf(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	all := p.beats(s, 0, 2)
	p.has("at first", all)
	p.citadel.stop()
	all = append(all, p.beats(s, 2, 4)...)
	p.shelved()
	back := p.copied(p.arena)
	all = append(all, p.beats(s, 4, 6)...)
	// All of it is on the index: what is at the depot and on none isn't known to an older
	// copy (docs/open.md).
	p.eventually("the shelf goes on", func() bool { index, objects := p.vault.holds(); return index > 1 && index == objects })
	p.shelved()
	back()
	p.gone()
	p.start(p.citadel)
	p.has("when both are back", all)
}

// Whatever a depot gives instead, nothing of it is stored, and it is named; once arena
// is back citadel has all.
func TestADepotThatLies(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(*vault, *shelf.Signed) error
		word string
	}{
		"nothing":          {func(*vault, *shelf.Signed) error { return carnet.Errorf(carnet.NotFound, "no") }, "nothing"},
		"an older index":   {func(v *vault, s *shelf.Signed) error { *s = v.all[0]; return nil }, "older index"},
		"objects left out": {func(_ *vault, s *shelf.Signed) error { s.Objects = s.Objects[1:]; return nil }, "isn't the one"},
		"in another order": {func(_ *vault, s *shelf.Signed) error {
			s.Objects = slices.Clone(s.Objects)
			slices.Reverse(s.Objects)
			return nil
		}, "isn't the one"},
		"a changed index":        {func(_ *vault, s *shelf.Signed) error { s.Index = s.Index[:len(s.Index)-4] + "AAAA"; return nil }, "signature"},
		"an object that is lost": {func(v *vault, s *shelf.Signed) error { v.gone.Store(&s.Objects[0].Fingerprint); return nil }, "no object"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, `{"properties": {"heart_rate": {}}}`)
			s := p.hub.open(p.arena, &p.theirs)
			p.take()
			all := p.beats(s, 0, 2)
			p.has("at first", all)
			p.citadel.stop()
			for i := range 3 {
				all = append(all, p.beats(s, 2+2*i, 4+2*i)...)
				p.shelved()
			}
			p.arena.stop()
			honest := func(*vault, *shelf.Signed) error { return carnet.Errorf(carnet.Unavailable, "not yet") }
			lie := honest
			if name == "an older index" { // it has given a newer one before
				had := false
				lie = func(v *vault, s *shelf.Signed) error {
					if had {
						return c.lie(v, s)
					}
					had = true
					v.gone.Store(&s.Objects[0].Fingerprint)
					return nil
				}
			} else {
				lie = c.lie
			}
			p.vault.lie.Store(&lie)
			p.start(p.citadel)
			p.reading(c.word)
			p.has("of a depot that lies", all[:2])
			p.start(p.arena)
			p.has("when arena is back", all)
		})
	}
}

// What a giver signs and isn't right is refused and named, and nothing of it is stored.
func TestAGiverThatShelvesJunk(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	all := p.beats(s, 0, 2)
	p.has("at first", all)
	p.citadel.stop()
	p.beats(s, 2, 4)
	p.shelved()
	p.arena.stop()
	real := *p.vault.now
	before, err := real.Open(shelf.Name(public(p.arena.id.Key)), shelf.Name(public(p.citadel.id.Key)))
	if err != nil {
		t.Fatal(err)
	}
	forge := func(body []byte, change func(*shelf.Index)) {
		before.Serial++
		i := before
		change(&i)
		f, _ := p.vault.PutObject(t.Context(), body, carnet.Day)
		signed, err := shelf.Sign(p.arena.id.Key, i, []shelf.Object{{Fingerprint: f, Last: before.Last}})
		if err != nil {
			t.Fatal(err)
		}
		p.vault.mu.Lock()
		p.vault.now = &signed
		p.vault.mu.Unlock()
	}
	body := p.vault.objects[real.Objects[0].Fingerprint]
	same := func(*shelf.Index) {}
	forge([]byte("junk"), same)
	p.start(p.citadel)
	p.reading("isn't one")
	changed := slices.Clone(body)
	changed[len(changed)-1] ^= 1
	forge(changed, same)
	p.reading("other batches")
	forge(body, func(i *shelf.Index) { i.Incarnation++ })
	p.reading("doesn't know")
	p.has("of junk", all)
	if n := p.citadel.agent.Defects(); n != 0 {
		t.Errorf("%d batches of junk are here", n)
	}
}

// Whatever is stopped, cut or away meanwhile, the taker has what the view
// admits, once and in order, by link or by storage; and in the end the depot has
// nothing more.
func TestThroughStorageAndFaults(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 11))
			p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10, "rate": "4s"}}}`)
			s := p.hub.open(p.arena, &p.theirs)
			p.take()
			var all, walked []carnet.Measurement
			second, up := 0, true
			for range 60 {
				switch rng.IntN(10) {
				case 0, 1:
					p.restart(p.arena)
				case 2, 3:
					if up {
						p.citadel.stop()
					} else {
						p.start(p.citadel)
					}
					up = !up
				case 4:
					p.proxy.drop()
				case 5:
					p.proxy.cut.Store(!p.proxy.cut.Load())
					p.proxy.drop()
				case 6:
					p.vault.away.Store(!p.vault.away.Load())
				case 7, 8:
					time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
				}
				for range 1 + rng.IntN(3) {
					second++
					both := []carnet.Measurement{beat(second, float64(60+second%50)), steps(second, float64(second))}
					both = both[:1+rng.IntN(2)]
					all, walked = append(all, both[0]), append(walked, both[1:]...)
					p.hub.send(s.seal(health, both...))
				}
			}
			p.proxy.cut.Store(false)
			p.vault.away.Store(false)
			if !up {
				p.start(p.citadel)
			}
			p.has("in the end", all)
			p.hasSteps("in the end", every(4*time.Second, walked))
			p.gone()
			if n := p.citadel.agent.Defects(); n != 0 {
				t.Errorf("%d batches are refused", n)
			}
			t.Logf("%d indexes were put", len(p.vault.all))
		})
	}
}
