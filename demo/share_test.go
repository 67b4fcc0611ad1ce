package demo

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet/api/client"
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
	if s.Given == 0 || s.Taken != s.Given || s.Copied == 0 || s.Derived == 0 || s.Lost+s.Doubled+s.Extra > 0 {
		t.Errorf("of the share %+v came", s)
	}
}

// What a share lost, doubled or never should have given is counted: the oracle is
// asked about a share whose view was another than the recorded one.
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
	for _, c := range []struct {
		what  string
		spoil func(*crossed)
		lost  bool
		extra bool
	}{
		{"as it is", func(*crossed) {}, false, false},
		{"without the speed", func(c *crossed) { delete(c.share.View.Properties, "speed") }, false, true},
		{"with a speed that is not rounded", func(c *crossed) { c.share.View.Properties["speed"] = c.share.View.Properties["heart_rate"] }, true, true},
	} {
		share, findings := judged(t, s, c.spoil)
		if (share.Lost > 0) != c.lost || (share.Extra > 0) != c.extra || (len(findings) > 0) != (c.lost || c.extra) || share.Doubled > 0 {
			t.Errorf("%s: %+v, %q", c.what, share, findings)
		}
	}
	// Of one that has ended, what was given last counts as given.
	ended, findings := judged(t, s, func(c *crossed) { c.share.End = new(crossing.End) })
	if ended.Given != ended.Taken || ended.Given != r.Shares[0].Given || ended.Lost+ended.Doubled+ended.Extra > 0 {
		t.Errorf("once it has ended: %+v, %q", ended, findings)
	}
	var text strings.Builder
	r.Write(&text)
	if !strings.Contains(text.String(), "citadel    from arena by a share: ") {
		t.Errorf("for people:\n%s", text.String())
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
	share, findings, err := c[0].judge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return share, findings
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
