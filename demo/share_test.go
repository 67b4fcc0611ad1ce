package demo

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/audit"
	"carnet/crossing"
	"carnet/identity"
	"carnet/thing"
)

// pocket is an owner's key without a keystore.
type pocket struct{ key ed25519.PrivateKey }

// openPocket makes the key of a demo's owner, or reads it.
func openPocket(dir string) (Keystore, error) {
	file := filepath.Join(dir, "owner.key")
	seed, err := os.ReadFile(file)
	if err != nil {
		_, key, kerr := ed25519.GenerateKey(nil)
		if kerr != nil {
			return nil, kerr
		}
		seed, err = key.Seed(), os.WriteFile(file, key.Seed(), 0o600)
	}
	return pocket{ed25519.NewKeyFromSeed(seed)}, err
}

func (p pocket) Claim(ctx context.Context, hub *client.Client, m thing.MappingInfo) error {
	word, err := identity.SignOwnership(p.key, identity.Ownership{Audience: m.WorldName, Avatar: m.Avatar, Issued: time.Now()})
	if err != nil {
		return err
	}
	_, err = hub.Own(ctx, m.ID, word)
	return err
}

func (p pocket) Approve(r identity.MandateRequest) (string, error) {
	now := time.Now().UTC().Truncate(time.Second)
	return identity.SignMandate(p.key, identity.Mandate{MandateTerms: r.MandateTerms, Issued: now, NotBefore: now, Expires: now.Add(time.Hour)})
}

// Order signs with the one key for both worlds, which a keystore doesn't.
func (p pocket) Order(r identity.MoveRequest) (o identity.Ordered, err error) {
	document, err := r.Marshal()
	if err != nil {
		return o, err
	}
	_, asked, err := identity.ParseMoveRequest(document)
	if err != nil {
		return o, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	if o.Order, o.Terms, err = r.Sign(p.key, p.key, now, time.Hour); err != nil {
		return o, err
	}
	o.Mandate, err = identity.SignMandate(p.key, identity.Mandate{MandateTerms: asked.MandateTerms, Issued: now, NotBefore: now, Expires: now.Add(2 * time.Hour)})
	return o, err
}

func (p pocket) Close() error { return nil }

// sharesWell wants the one share of a demo to be taken whole.
func sharesWell(t *testing.T, r *Report) {
	t.Helper()
	if len(r.Shares) != 1 {
		t.Fatalf("the shares are %+v", r.Shares)
	}
	s := r.Shares[0]
	if s.Giver != "arena" || s.Taker != "citadel" || s.State != crossing.Giving || s.Taking != crossing.Taking {
		t.Errorf("the share is %+v", s)
	}
	if s.Given == 0 || s.Taken != s.Given || s.Copied == 0 || s.Derived == 0 || s.Lost+s.Doubled+s.Extra+s.Reordered > 0 {
		t.Errorf("of the share %+v came", s)
	}
}

// What a share lost, doubled, reordered or never should have given is counted: the
// oracle is asked about a share whose view was another than the recorded one, or whose
// taker holds something else.
func TestAShareIsAudited(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	r := plays(t, dir, Options{Inputs: []string{run(t, 7, begin)}})
	sharesWell(t, r)
	s, err := setUp(t.Context(), dir, plain, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// The setup has asked nobody anything: what the depot has is read from its store.
	if kept, err := s.kept(t.Context(), Options{}); err != nil || kept.Checkpoint == 0 || kept.Objects != r.Depot.Objects || kept.Bytes != r.Depot.Bytes || kept.Checkpoint != r.Depot.Checkpoint {
		t.Errorf("the depot has %+v, %v; the report %+v", kept, err, r.Depot)
	}
	for _, c := range []struct {
		what  string
		spoil func(*crossed)
		want  [4]bool // lost, doubled, extra, reordered
	}{
		{"as it is", func(*crossed) {}, [4]bool{}},
		{"without the speed", func(c *crossed) { delete(c.share.View.Properties, "speed") }, [4]bool{2: true}},
		{"with a speed that is not rounded", func(c *crossed) { c.share.View.Properties["speed"] = c.share.View.Properties["heart_rate"] }, [4]bool{0: true, 2: true}},
		{"with one less", func(c *crossed) { c.taken = spoils(func(all []audit.Held) []audit.Held { return all[1:] }) }, [4]bool{0: true}},
		{"with one twice", func(c *crossed) { c.taken = spoils(func(all []audit.Held) []audit.Held { return append(all, all[0]) }) }, [4]bool{1: true}},
		{"with two swapped", func(c *crossed) { c.taken = spoils(swapped) }, [4]bool{3: true}},
		{"with a number that goes backwards", func(c *crossed) {
			c.taken = spoils(func(all []audit.Held) []audit.Held {
				all[0], all[1] = all[1], all[0]
				return all
			})
		}, [4]bool{3: true}},
	} {
		share, findings := judged(t, s, c.spoil)
		got := [4]bool{share.Lost > 0, share.Doubled > 0, share.Extra > 0, share.Reordered > 0}
		if got != c.want || (len(findings) > 0) != (c.want != [4]bool{}) {
			t.Errorf("%s: %+v, %q", c.what, share, findings)
		}
	}
	// Of one that has ended, what was given last counts as given.
	ended, findings := judged(t, s, func(c *crossed) { c.share.End = new(crossing.End) })
	if ended.Given != ended.Taken || ended.Given != r.Shares[0].Given || len(findings) > 0 {
		t.Errorf("once it has ended: %+v, %q", ended, findings)
	}
	var text strings.Builder
	r.Write(&text)
	if !strings.Contains(text.String(), "citadel    from arena by a share: ") {
		t.Errorf("for people:\n%s", text.String())
	}
}

// spoils changes what the taker holds of the stream of which it holds most.
func spoils(change func([]audit.Held) []audit.Held) func(map[carnet.StreamID][]audit.Held) {
	return func(held map[carnet.StreamID][]audit.Held) {
		var of carnet.StreamID
		for stream, all := range held {
			if len(all) > len(held[of]) {
				of = stream
			}
		}
		held[of] = change(held[of])
	}
}

// swapped has two measurements of one property change places, each under the other's
// number.
func swapped(all []audit.Held) []audit.Held {
	p := &all[0].Measurement
	for i := range all {
		if q := &all[i].Measurement; q.Name == p.Name && q.Time != p.Time {
			*p, *q = *q, *p
			break
		}
	}
	return all
}

// What a device measured before and sent after, a share copies as it is: that is no
// other order than the giver decided in.
func TestACopyIsInTheOrderOfItsTimes(t *testing.T) {
	at := func(number uint64, name string, time int64) audit.Held {
		return audit.Held{Number: number, Measurement: carnet.Measurement{Name: name, Time: time}}
	}
	copied := []audit.Held{at(3, "speed", 20), at(4, "speed", 10), at(5, "heart_rate", 20)}
	inOrder(copied)
	if want := []audit.Held{at(3, "speed", 10), at(4, "heart_rate", 20), at(5, "speed", 20)}; !slices.Equal(copied, want) {
		t.Errorf("it is %+v, want %+v", copied, want)
	}
}

// judged judges the one share of a demo that has ended, after something is spoiled.
func judged(t *testing.T, s *setup, spoil func(*crossed)) (Share, []string) {
	t.Helper()
	c, done, err := s.openShares(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	if len(c) != 1 {
		t.Fatalf("there are %d shares", len(c))
	}
	spoil(&c[0])
	share, found, err := c[0].judge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{Verified: true, Settled: true}
	r.add("citadel by its share", found)
	if r.Good() != (found.Faults() == 0) || found.Faults() != share.Lost+share.Doubled+share.Extra+share.Reordered {
		t.Errorf("%+v is good: %t", found, r.Good())
	}
	return share, r.Findings
}

// A share that somebody ended stays so when the demo goes on; one that ran out is
// made again.
func TestWhatSomebodyEndedStaysEnded(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		until *time.Time
		goes  bool
	}{{nil, true}, {new(now.Add(time.Minute)), true}, {new(now.Add(-time.Minute)), false}} {
		if goes := stands(c.until, now); goes != c.goes {
			t.Errorf("until %v: %t", c.until, goes)
		}
	}
}
