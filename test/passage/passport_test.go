package passage_test

import (
	"crypto/ed25519"
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
	"carnet/passport"
	"carnet/seal"
)

// passported is an avatar's passport, with keys for its owner's reception key.
type passported struct {
	dir       string
	world     *world
	options   passport.Options
	reception *seal.ReceptionKey
}

// newPassported makes the passport of an avatar that goes on living.
func newPassported(t *testing.T, w *world, id carnet.AvatarID) *passported {
	t.Helper()
	ctx := t.Context()
	p := &passported{dir: filepath.Join(t.TempDir(), "passport"), world: w}
	w.book.receipt(w.store)
	m, err := w.agent.PassportManifest(ctx, id, carnet.NewCrossingID(), w.vouch)
	must(t, err)
	w.book.receipt(w.store)
	p.options.Manifest, err = m.Marshal()
	must(t, err)
	p.reception, err = seal.NewReceptionKey()
	must(t, err)
	owner := ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", 32)))
	announced, err := p.reception.Announce(owner, "owner", time.Now().Add(time.Hour))
	must(t, err)
	reception, err := seal.ParseReception(announced, public(owner), time.Now())
	must(t, err)
	p.options.Bags, err = w.agent.KeyBags(ctx, m, avatar.KeyTerms{Granter: w.name, Signer: w.self, Reception: reception, Owner: true})
	must(t, err)
	p.options.Readers = []passport.Reader{{Reader: "owner", Reception: reception.ID}}
	signer, err := w.agent.EvidenceSigner(ctx)
	must(t, err)
	p.options.Signer, p.options.World = signer, evidence.World{Party: w.name, Key: evidence.PublicKey(public(signer))}
	p.options.Word = p.word(t, func(*identity.Passport) {})
	must(t, passport.Write(ctx, p.dir, w.agent, p.options))
	return p
}

// word is what the home's key says, once something of it is changed.
func (p *passported) word(t *testing.T, change func(*identity.Passport)) string {
	t.Helper()
	m, err := avatar.ParseManifest(p.options.Manifest)
	must(t, err)
	did := identity.DID(public(p.world.self))
	w := identity.Passport{
		Passport: m.Crossing, Source: did, World: p.world.name, Signer: identity.DID(ed25519.PublicKey(p.options.World.Key)), Registrar: did, Home: carnet.HomeID{1}, Version: 1,
		Owner: did, Pinned: did, Avatar: m.Avatar, Key: did, Manifest: carnet.FingerprintOf(p.options.Manifest), Made: time.Now().UTC().Truncate(time.Second),
	}
	change(&w)
	word, err := identity.SignPassport(p.world.self, w)
	must(t, err)
	return word
}

// aHistory is a world with an avatar of several streams, classes and epochs.
func aHistory(t *testing.T) (*world, carnet.AvatarID) {
	w := newWorld(t, "arena")
	id, _ := life(w, 6)
	return w, id
}

func verifyPassport(t *testing.T, dir string) *evidence.Report {
	t.Helper()
	r, err := passport.Verify(t.Context(), dir, nil)
	must(t, err)
	return r
}

// A passport proves what the world holds, and each of its bags opens with the owner's
// reception key alone; the avatar isn't frozen by it.
func TestAPassportProvesWhatItHolds(t *testing.T) {
	w, id := aHistory(t)
	p := newPassported(t, w, id)
	r := verifyPassport(t, p.dir)
	if r.Verdict != evidence.True || r.Counts.Measurements == 0 || r.Counts.Frames == 0 || r.Passport.Bags == 0 || r.Avatar != id {
		t.Fatalf("%+v", r)
	}
	if _, frozen, err := w.agent.Frozen(id); err != nil || frozen {
		t.Errorf("frozen: %t, %v", frozen, err)
	}
	opened, err := passport.Open(p.dir)
	must(t, err)
	bags, err := opened.Bags()
	must(t, err)
	keys := 0
	for _, bag := range bags {
		b, err := p.reception.OpenBag(bag, seal.Expected{Granter: w.name, Signer: public(w.self), Reader: "owner", Now: time.Now()})
		must(t, err)
		keys += len(b.Entries)
	}
	if keys != len(opened.Manifest.Keys) {
		t.Errorf("%d keys, of %d epochs", keys, len(opened.Manifest.Keys))
	}
	for _, e := range must1(os.ReadDir(p.dir)) {
		if info := must1(e.Info()); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), info.Mode().Perm())
		}
	}
	if err := passport.Write(t.Context(), p.dir, w.agent, p.options); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("written over: %v", err)
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A bit that is flipped anywhere, a file that is missing, and one that doesn't belong
// there, are found, and the file is named.
func TestADamagedPassportIsFound(t *testing.T) {
	w, id := aHistory(t)
	p := newPassported(t, w, id)
	for _, e := range must1(os.ReadDir(p.dir)) {
		path := filepath.Join(p.dir, e.Name())
		whole := must1(os.ReadFile(path))
		named := func(what string) {
			t.Helper()
			r := verifyPassport(t, p.dir)
			if r.Verdict != evidence.False || !slices.ContainsFunc(r.Findings, func(f evidence.Finding) bool { return f.File == e.Name() }) {
				t.Errorf("%s, %s: %v, %+v", e.Name(), what, r.Verdict, r.Findings)
			}
		}
		step := max(1, len(whole)/200)
		for at := 0; at < len(whole); at += step {
			damaged := slices.Clone(whole)
			damaged[at] ^= 1 << (at % 8)
			must(t, os.WriteFile(path, damaged, 0o600))
			named("a flipped bit")
		}
		must(t, os.WriteFile(path, append(slices.Clone(whole), 0), 0o600))
		named("a byte more")
		must(t, os.WriteFile(path, whole[:len(whole)-1], 0o600))
		named("a byte less")
		must(t, os.Remove(path))
		named("missing")
		must(t, os.WriteFile(path, whole, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(p.dir, "more"), nil, 0o600))
	if r := verifyPassport(t, p.dir); r.Verdict != evidence.False || r.Findings[0].File != "more" {
		t.Errorf("a file more: %+v", r)
	}
	must(t, os.Remove(filepath.Join(p.dir, "more")))
	if r := verifyPassport(t, p.dir); r.Verdict != evidence.True {
		t.Errorf("whole again: %+v", r)
	}
}

// What a world itself could make up: a passport with another's word, without the end of
// a stream, without a batch in the middle.
func TestAForgedPassportIsFound(t *testing.T) {
	w, id := aHistory(t)
	p := newPassported(t, w, id)
	write := func(o passport.Options) (*evidence.Report, error) {
		dir := filepath.Join(t.TempDir(), "passport")
		if err := passport.Write(t.Context(), dir, w.agent, o); err != nil {
			return nil, err
		}
		return verifyPassport(t, dir), nil
	}
	for name, change := range map[string]func(*identity.Passport){
		"of another manifest": func(w *identity.Passport) { w.Manifest[0]++ },
		"of another signer":   func(w *identity.Passport) { w.Signer = w.Source },
		"of another world":    func(w *identity.Passport) { w.World = "elsewhere" },
	} {
		o := p.options
		o.Word = p.word(t, change)
		if r, err := write(o); carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	whole := "nothing but the state is left out" // which evidence doesn't look at
	for name, change := range map[string]func(*avatar.Manifest){
		whole:                   func(*avatar.Manifest) {},
		"a stretch is left out": func(m *avatar.Manifest) { m.Stretches = m.Stretches[1:] },
		"the last is left out":  func(m *avatar.Manifest) { m.Stretches = m.Stretches[:len(m.Stretches)-1] },
		"a stream is said shorter": func(m *avatar.Manifest) {
			m.Stretches = m.Stretches[:len(m.Stretches)-1]
			last := m.Stretches[len(m.Stretches)-1]
			for i := range m.Streams {
				if m.Streams[i].Stream == last.Stream {
					m.Streams[i].NextBatch, m.Streams[i].NextFirst = last.Last+1, last.NextNumber
				}
			}
		},
	} {
		m, err := avatar.ParseManifest(p.options.Manifest)
		must(t, err)
		m.State = []avatar.MovedValue{}
		change(m)
		o := p.options
		o.Manifest, err = m.Marshal()
		must(t, err)
		forged := *p
		forged.options = o
		o.Word = forged.word(t, func(*identity.Passport) {})
		want := evidence.False
		if name == whole {
			want = evidence.True
		}
		if r, err := write(o); err != nil || r.Verdict != want {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
