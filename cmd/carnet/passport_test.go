package main

import (
	"crypto/ed25519"
	"io"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/identity"
	"carnet/passport"
)

// A passport isn't imported under an older policy than it has, nor under another of the
// same version; and an import that goes on under another than it began with is refused.
func TestThePolicyOfAnImport(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	did := identity.DID(key.Public().(ed25519.PublicKey))
	signed := func(version uint64, document string) string {
		p, err := identity.SignAvatarPolicy(key, identity.AvatarPolicy{
			Owner: did, World: did, Avatar: carnet.AvatarID{1}, Version: version, Made: time.Unix(1, 0).UTC(), Policy: []byte(document),
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for what, c := range map[string]struct {
		had, is string
		code    carnet.Code
	}{
		"none in the passport":    {"", signed(1, `{}`), ""},
		"a newer one":             {signed(2, `{}`), signed(3, `{}`), ""},
		"the same":                {signed(2, `{}`), signed(2, `{}`), ""},
		"an older one":            {signed(2, `{}`), signed(1, `{}`), carnet.Conflict},
		"another of that version": {signed(2, `{}`), signed(2, `{"cross":{"worlds":[]}}`), carnet.Conflict},
	} {
		if err := newerThan(c.had, c.is); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, c := range []avatarImport{{Policy: "policy.jws"}, {View: "view.json"}} {
		c.Resume = carnet.CrossingID{1}
		if _, err := c.begin(t.Context(), streams{out: io.Discard, err: io.Discard}, new(client.Client), new(passport.Passport)); carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), "without --resume") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
