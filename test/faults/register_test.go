package faults_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
	"carnet/register"
	"carnet/test/wait"
)

// office is a town of which only the depot runs: the test asks its register, as the
// worlds would.
type office struct {
	*town
	owner         ed25519.PrivateKey
	arena, clinic *asker
}

// asker is a world at the register: what it shows there, and what it has of it.
type asker struct {
	self   identity.Local
	client *register.Client
	newest []byte // the newest checkpoint that it has
}

func newOffice(t *testing.T) *office {
	v := makeTown(t, t.TempDir())
	_, owner, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{town: v, owner: owner}
	o.arena, o.clinic = o.asker(v.arena), o.asker(v.clinic)
	v.vault.start(t)
	v.await(v.vault)
	return o
}

// asker makes a world's client from what the world has been given by the depot.
func (v *town) asker(p *party) *asker {
	v.t.Helper()
	world := v.inspect(p)
	defer world.Close()
	vault := world.Peers["vault"]
	key, err := ledger.ParseKey(vault.Ledger)
	if err != nil {
		v.t.Fatal(err)
	}
	a := &asker{self: world.Self}
	secure := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{world.Self.Certificate}, InsecureSkipVerify: true} // answers are signed
	a.client = &register.Client{
		Base: vault.R2, HTTP: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}},
		Registrar: vault.Registrar, Ledger: key, Newest: func() []byte { return a.newest },
	}
	return a
}

func didOf(key ed25519.PrivateKey) string { return identity.DID(key.Public().(ed25519.PublicKey)) }

// persist asks until the register answers one way or the other.
func persist[T any](t *testing.T, ask func() (T, error)) (v T) {
	t.Helper()
	wait.Until(t, "the register answers", func() bool {
		var err error
		v, err = ask()
		if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
			t.Fatalf("the register answers %v", err)
		}
		return err == nil
	})
	return v
}

// enrol enrols a new home of arena.
func (o *office) enrol() carnet.HomeID {
	o.t.Helper()
	id := carnet.NewHomeID()
	persist(o.t, func() (identity.HomeAnswer, error) {
		h, _, err := o.arena.client.Enrol(o.t.Context(), id, didOf(o.owner))
		return h, err
	})
	return id
}

// petition is all that moves a home from arena to clinic.
func (o *office) petition(home carnet.HomeID) (carnet.CrossingID, register.Petition) {
	o.t.Helper()
	made := time.Now().UTC().Truncate(time.Second)
	order := identity.Order{
		Crossing: carnet.NewCrossingID(), Registrar: o.arena.client.Registrar, Owner: didOf(o.owner), Source: didOf(o.arena.self.Key), Target: didOf(o.clinic.self.Key),
		Homes: []carnet.HomeID{home}, Terms: carnet.Fingerprint{1}, Made: made, Until: made.Add(time.Hour),
	}
	p := register.Petition{Want: register.Commit}
	var err error
	if p.Order, err = identity.SignOrder(o.owner, order); err != nil {
		o.t.Fatal(err)
	}
	hash := carnet.FingerprintOf([]byte(p.Order))
	if p.Release, err = identity.SignRelease(o.arena.self.Key, identity.Release{Crossing: order.Crossing, Source: order.Source, Order: hash, Incarnations: []uint64{1}}); err != nil {
		o.t.Fatal(err)
	}
	if p.Acceptance, err = identity.SignAcceptance(o.clinic.self.Key, identity.Acceptance{Crossing: order.Crossing, Target: order.Target, Order: hash}); err != nil {
		o.t.Fatal(err)
	}
	return order.Crossing, p
}

// wantTold checks that a crossing is answered with these very bytes, and by the home.
func (o *office) wantTold(id carnet.CrossingID, home carnet.HomeID, told string) {
	o.t.Helper()
	d := persist(o.t, func() (*register.Decided, error) {
		return o.arena.client.Decide(o.t.Context(), id, register.Petition{Want: register.Ask})
	})
	if d == nil || d.Reply.Decision != told {
		o.t.Fatalf("what was told as %s is told as %+v", told, d)
	}
	h := persist(o.t, func() (identity.HomeAnswer, error) {
		h, _, err := o.arena.client.Home(o.t.Context(), home)
		return h, err
	})
	want := didOf(o.arena.self.Key)
	if d.Outcome == identity.Commit {
		want = didOf(o.clinic.self.Key)
	}
	if h.World != want {
		o.t.Fatalf("after a %s the home stands as %+v", d.Outcome, h)
	}
}

// TestRegister kills the depot around decisions (rows X9 and X10 of
// docs/design/crossing.md) while one world wants a commit and the other an end: one
// of the two is decided, and whoever is told anything is told the same for ever.
func TestRegister(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	r := random(t)
	answered := 0
	for round := range *rounds {
		home := o.enrol()
		id, p := o.petition(home)
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan *register.Decided, 2)
		for _, ask := range []struct {
			by   *asker
			want register.Want
		}{{o.clinic, register.Commit}, {o.arena, register.Abort}} {
			q := p
			q.Want = ask.want
			go func() {
				d, err := ask.by.client.Decide(ctx, id, q)
				if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
					t.Errorf("decide: %v", err)
				}
				told <- d
			}()
		}
		var first *register.Decided
		if round%3 == 0 {
			first = <-told // before the kill, whenever that is
		} else {
			time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond))))
		}
		o.vault.kill(t)
		cancel()
		if first == nil {
			first = <-told
		}
		second := <-told
		o.restart(o.vault)
		d := persist(t, func() (*register.Decided, error) { return o.clinic.client.Decide(t.Context(), id, p) })
		for _, before := range []*register.Decided{first, second} {
			if before != nil {
				answered++
			}
			if before != nil && before.Reply.Decision != d.Reply.Decision {
				t.Fatalf("%s was told before the kill, and %s after it", before.Reply.Decision, d.Reply.Decision)
			}
		}
		o.wantTold(id, home, d.Reply.Decision)
	}
	t.Logf("%d answers before a kill in %d rounds", answered, *rounds)
	if answered == 0 {
		t.Error("nobody was told anything before a kill")
	}
	if code := o.vault.end(t); code != 0 {
		t.Errorf("vault ended with %d", code)
	}
}

// TestRegisterRestored gives the depot older copies (row X17): of its store alone, of
// store and file, of everything.
func TestRegisterRestored(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	vault := o.vault
	type move struct {
		home carnet.HomeID
		id   carnet.CrossingID
		told string
	}
	commit := func() move {
		home := o.enrol()
		id, p := o.petition(home)
		d := persist(t, func() (*register.Decided, error) { return o.clinic.client.Decide(t.Context(), id, p) })
		receipt, err := ledger.ParseReceipt(d.Reply.Proof.Receipt)
		if err != nil || d.Outcome != identity.Commit {
			t.Fatalf("decided %+v, %v", d, err)
		}
		o.clinic.newest = receipt.Checkpoint
		return move{home, id, d.Reply.Decision}
	}
	end := func() {
		if code := vault.end(t); code != 0 {
			t.Fatalf("vault ended with %d", code)
		}
	}
	refused := func(by *asker, m move) {
		t.Helper()
		var refusal *carnet.Error
		wait.Until(t, "the register says what to do", func() bool {
			_, err := by.client.Decide(t.Context(), m.id, register.Petition{Want: register.Ask})
			return errors.As(err, &refusal) && refusal.Code == carnet.Unavailable && strings.Contains(refusal.Fix, "put back")
		})
		if _, _, err := by.client.Home(t.Context(), m.home); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("of a home it answers %v", err)
		}
	}
	first := commit()
	end()
	everything := o.copyData(vault)
	files, err := os.ReadFile(filepath.Join(vault.data(), "register", "changes"))
	if err != nil {
		t.Fatal(err)
	}
	older, err := filepath.Glob(filepath.Join(vault.data(), "state.db*"))
	if err != nil {
		t.Fatal(err)
	}
	store := make(map[string][]byte)
	for _, name := range older {
		if store[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	o.restart(vault)
	second := commit()
	end()
	newest := o.copyData(vault)

	putStore := func() {
		now, err := filepath.Glob(filepath.Join(vault.data(), "state.db*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range now {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		for name, b := range store {
			write(t, name, b)
		}
		private(t, vault.data())
	}
	putStore()
	o.restart(vault)
	o.wantTold(first.id, first.home, first.told)
	o.wantTold(second.id, second.home, second.told)
	third := commit()
	o.wantTold(third.id, third.home, third.told)
	end()

	putStore()
	write(t, filepath.Join(vault.data(), "register", "changes"), files)
	private(t, vault.data())
	o.restart(vault)
	refused(o.arena, first)
	refused(o.clinic, second)
	end()

	everything()
	o.restart(vault)
	o.wantTold(first.id, first.home, first.told) // nobody who asked knows better
	refused(o.clinic, first)
	refused(o.arena, first)
	end()
	o.restart(vault)
	refused(o.arena, first)
	end()

	newest()
	o.clinic.newest = nil // third's, which this copy never had
	o.restart(vault)
	o.wantTold(second.id, second.home, second.told)
}
