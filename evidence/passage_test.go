package evidence

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
	"carnet/seal"
)

// movedScene is an avatar that was at arena and has moved to citadel: its home has
// the frames of both, those of arena without the other avatars' leaves.
func movedScene(t testing.TB, rounds int) (home *stage, former *stage, o Options) {
	former = newStage(t)
	watch, other, bike := former.course(former.hub, true), former.course(former.hub, false), former.course(former.bike, true)
	for range rounds {
		former.send(watch, other)
		former.send(bike)
		former.send(other, watch, other, watch)
	}
	former.receipts()
	home = newStage(t)
	home.name, home.world, home.hub, home.bike = "citadel", seed(2), &agent{party: "hub", key: seed(12)}, &agent{party: "bike", key: seed(13)}
	var err error
	if home.depot, err = ledger.NewSigner("vault.citadel/ledger", seed(4)); err != nil {
		t.Fatal(err)
	}
	own := home.course(home.hub, true)
	for range rounds {
		home.send(own)
	}
	home.receipts()
	var joint seal.Joint
	frames := home.frames
	home.frames = nil
	for _, f := range former.frames {
		if len(f.Own) > 0 {
			f.Path, f.Leaves = joint.Prove(f.Leaves, f.Own), nil
			if f.Path == nil {
				f.Path = []carnet.Fingerprint{}
			}
			home.frames = append(home.frames, f)
		}
	}
	home.frames = append(home.frames, frames...)
	o = home.options()
	o.Passages, o.Commits = make(map[carnet.StreamID][]byte), make(map[carnet.StreamID][]byte)
	trust := former.trust()
	for i, c := range []*course{watch, bike} {
		p := Passage{Version: 2, World: trust.Worlds[0], Ledger: trust.Ledgers[0], Sender: trust.Senders[i], Stream: c.id, Next: c.batch, End: c.first, Crossing: carnet.CrossingID{1}, Made: made}
		o.Commits[c.id] = committed(t, registrar, carnet.CrossingID{1}, carnet.HomeID{1})
		if o.Passages[c.id], err = p.Sign(former.world); err != nil {
			t.Fatal(err)
		}
	}
	return home, former, o
}

// registrar is the key of who decides moves.
var registrar = seed(20)

// committed shows that a registrar committed a crossing of a home.
func committed(t testing.TB, by ed25519.PrivateKey, x carnet.CrossingID, home carnet.HomeID) []byte {
	t.Helper()
	did := func(k ed25519.PrivateKey) string { return identity.DID(k.Public().(ed25519.PublicKey)) }
	token, err := identity.SignDecision(by, identity.Decision{
		Registrar: did(by), Crossing: x, Order: carnet.Fingerprint{3}, Outcome: identity.Commit, Manifest: &carnet.Fingerprint{4},
		Homes: []identity.HomeAt{{Home: home, Version: 2, World: did(seed(30))}}, Time: made,
	})
	if err != nil {
		t.Fatal(err)
	}
	proof, err := identity.MoveProof{Decision: token}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// decided is what a world's operator trusts of a registrar beside its own.
func decided(t Trust) *Trust {
	t.Registrars = []string{identity.DID(registrar.Public().(ed25519.PublicKey))}
	return &t
}

// A passage counts as far as the registrar's commit says that the stream left by it: one of
// a move that was called off is signed as well, and has an earlier end.
func TestAPassageOfAMoveThatTookPlace(t *testing.T) {
	for what, c := range map[string]struct {
		spoil   func(t *testing.T, o *Options, p *Passage)
		verdict Verdict
		says    string
	}{
		"as it was":                     {func(*testing.T, *Options, *Passage) {}, True, ""},
		"of a move that was called off": {func(_ *testing.T, _ *Options, p *Passage) { p.Crossing = carnet.CrossingID{9} }, False, "and the stream left by"},
		"of a move that was called off, and no commit": {func(_ *testing.T, o *Options, p *Passage) {
			p.Crossing = carnet.CrossingID{9}
			delete(o.Commits, p.Stream)
		}, Unknown, "no registrar's commit"},
		"of an older program": {func(_ *testing.T, o *Options, p *Passage) {
			p.Version, p.Crossing, p.Made = 1, carnet.CrossingID{}, time.Time{}
			delete(o.Commits, p.Stream)
		}, Unknown, "no registrar's commit"},
		"by a registrar that nobody trusts": {func(t *testing.T, o *Options, p *Passage) {
			o.Commits[p.Stream] = committed(t, seed(21), p.Crossing, carnet.HomeID{1})
		}, Unknown, "no registrar"},
		"of another avatar": {func(t *testing.T, o *Options, p *Passage) {
			o.Commits[p.Stream] = committed(t, registrar, p.Crossing, carnet.HomeID{2})
		}, False, "of several avatars"},
	} {
		t.Run(what, func(t *testing.T) {
			home, former, o := movedScene(t, 2)
			id := former.courses[0].id
			p, err := OpenPassage(o.Passages[id])
			if err != nil {
				t.Fatal(err)
			}
			c.spoil(t, &o, p)
			if o.Passages[id], err = p.Sign(former.world); err != nil {
				t.Fatal(err)
			}
			pinned := home.trust()
			pinned.Join(decided(former.trust()))
			want(t, verify(t, home.write(o), &pinned), c.verdict, c.says)
		})
	}
}

// A bundle of an avatar that has moved proves what each of its worlds received
// under that one's name, and every bit of it counts.
func TestMovedAvatar(t *testing.T) {
	home, former, o := movedScene(t, 2)
	r := verify(t, home.write(o), nil)
	want(t, r, True)
	if len(r.Trust.Worlds) != 2 || len(r.Trust.Ledgers) != 2 || len(r.Trust.Senders) != 3 {
		t.Errorf("the bundle's parties are %+v", r.Trust)
	}
	trust := home.trust()
	want(t, verify(t, home.write(o), &trust), Unknown, "no key of the world arena")
	trust.Join(decided(former.trust()))
	want(t, verify(t, home.write(o), &trust), True)
}

// What the home says of a former world that this one didn't is found out.
func TestDishonestHome(t *testing.T) {
	publicKey := func(b byte) PublicKey { return PublicKey(seed(b).Public().(ed25519.PublicKey)) }
	for what, c := range map[string]struct {
		spoil func(home *stage, o *Options, p *Passage) // p: of the first stream; signed anew by arena's key if it changed
		by    byte                                      // who signs it anew; 0: arena
		says  string
	}{
		"another ledger":         {func(home *stage, _ *Options, p *Passage) { p.Ledger.Key = home.depot.Key().String() }, 1, ""},
		"a passage of its own":   {func(_ *stage, _ *Options, p *Passage) { p.World.Key = publicKey(2) }, 2, ""},
		"an end that is missing": {func(_ *stage, _ *Options, p *Passage) { p.Next++ }, 1, "says that it received these"},
		"another sender's key":   {func(_ *stage, _ *Options, p *Passage) { p.Sender.Key = publicKey(7) }, 1, "not signed by the key of hub"},
	} {
		home, former, o := movedScene(t, 1)
		id := former.courses[0].id
		p, err := OpenPassage(o.Passages[id])
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(home, &o, p)
		if o.Passages[id], err = p.Sign(seed(c.by)); err != nil {
			t.Fatal(err)
		}
		pinned := home.trust()
		pinned.Join(decided(former.trust()))
		t.Run(what, func(t *testing.T) { want(t, verify(t, home.write(o), &pinned), False, c.says) })
	}
}

// The home can't call a former world's things agent a world that shares, to leave out
// batches in the middle of what moved.
func TestAHomeDoesNotSayWhatAFormerSenderWas(t *testing.T) {
	home, _, o := movedScene(t, 4)
	home.frames = slices.Delete(home.frames, 2, 5)
	dir := home.write(o)
	own, err := ReadTrust(filepath.Join(dir, FileTrust))
	if err != nil {
		t.Fatal(err)
	}
	for i := range own.Senders {
		own.Senders[i].Shares = own.Senders[i].Audience == "arena"
	}
	text, err := own.marshal()
	if err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, dir, nil), False, "missing")
	forge(t, home, dir, FileTrust, func([]byte) []byte { return text }, nil)
	want(t, verify(t, dir, nil), False, "calls its sender something else")
}

// What retention has ended, as the world says, can't be told; what else is missing
// is false.
func TestRetentionEnded(t *testing.T) {
	s := newStage(t)
	watch := s.course(s.hub, true)
	for range 9 {
		s.send(watch)
	}
	s.receipts()
	for i := range s.frames { // 1, 3, 5 are gone
		if i == 1 || i == 3 || i == 5 {
			s.frames[i].Own, s.frames[i].Batches, s.frames[i].Keys = nil, nil, nil
		}
	}
	o := s.options()
	want(t, verify(t, s.write(o), nil), False, "missing: the sender numbered these")
	o.Over = map[carnet.StreamID][]Over{watch.id: {{carnet.Day, 1, 5}}}
	r := verify(t, s.write(o), nil)
	want(t, r, Unknown, "3 batches of these is here no more")
	if len(r.Findings) != 1 {
		t.Errorf("%d findings", len(r.Findings))
	}
	o.Over = map[carnet.StreamID][]Over{watch.id: {{carnet.Day, 1, 3}}}
	want(t, verify(t, s.write(o), nil), False, "batch 5")
}

// Bundles of the first version verify for ever.
func TestVersion1(t *testing.T) {
	r, err := Verify(context.Background(), filepath.Join("testdata", "version1"), nil, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, True)
	if r.Counts.Batches != 4 || r.Counts.Frames != 3 {
		t.Errorf("the bundle has %+v", r.Counts)
	}
}

func TestEveryBitOfAMovedAvatarCounts(t *testing.T) {
	home, _, o := movedScene(t, 1)
	flipAllOf(t, home, home.write(o), 3)
}

// A range is taken apart at the ends of what retention has ended, whose ranges may
// overlap.
func TestParts(t *testing.T) {
	over := []Over{{carnet.Hour, 2, 593}, {carnet.Day, 10, 700}, {carnet.Month, 900, 900}}
	for _, c := range []struct {
		in   Range
		over []Over
		want string
	}{
		{Range{2, 2}, over, "2 true, "},
		{Range{5, 5}, nil, "5 false, "},
		{Range{0, 5}, over, "0 to 1 false, 2 to 5 true, "},
		{Range{0, 1000}, over, "0 to 1 false, 2 to 593 true, 594 to 700 true, 701 to 899 false, 900 true, 901 to 1000 false, "},
		{Range{594, 594}, over, "594 true, "},
		{Range{1 << 62, 1<<64 - 1}, over, fmt.Sprintf("%d to %d false, ", uint64(1<<62), uint64(1<<64-1))},
	} {
		got := ""
		for _, p := range parts(c.in, c.over) {
			got += fmt.Sprintf("%s %v, ", p.Range, p.over)
		}
		if got != c.want {
			t.Errorf("%v is %s, want %s", c.in, got, c.want)
		}
	}
}
