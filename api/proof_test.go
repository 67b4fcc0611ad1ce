package api_test

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/avatar"
	"carnet/identity"
)

// proofs gives a bundle of one file, and real documents and credentials.
type proofs struct {
	world *avatar.Agent
	local identity.Local
}

func (p proofs) Evidence(_ context.Context, id carnet.AvatarID, q avatar.Query) (func(io.Writer) error, error) {
	if _, err := p.world.Avatar(id); err != nil {
		return nil, err
	}
	if q.Property == "stress" {
		return nil, carnet.Errorf(carnet.NotFound, "the avatar has no such measurement")
	}
	if q != (avatar.Query{}) && q != (avatar.Query{From: 1e18, To: 1e18 + 1e9, Property: "heart_rate"}) && q != theExample {
		return nil, fmt.Errorf("asked for %+v", q)
	}
	return func(w io.Writer) error {
		archive := tar.NewWriter(w)
		if err := archive.WriteHeader(&tar.Header{Name: "bundle/manifest", Mode: 0o600, Size: 5}); err != nil {
			return err
		}
		if _, err := io.WriteString(archive, "proof"); err != nil {
			return err
		}
		return archive.Close()
	}, nil
}

// theExample is what the document asks for.
var theExample = avatar.Query{
	From: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), To: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), Property: "heart_rate",
}

func (p proofs) Document(id carnet.AvatarID) (identity.Document, error) {
	info, err := p.world.Avatar(id)
	return identity.DocumentFor(info.Key), err
}

func (p proofs) Credential(_ context.Context, id carnet.AvatarID) (string, error) {
	info, err := p.world.Avatar(id)
	if err != nil {
		return "", err
	}
	now := time.Now().Truncate(time.Second)
	return identity.IssueCredential(p.local.Key, identity.Credential{
		World: "arena", Avatar: id, Subject: info.Key, Owner: info.OwnerKey, Issued: now, NotBefore: now, Expires: now.Add(time.Hour),
	})
}

var _ api.Proofs = proofs{}

func TestAnAvatarProvesItself(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	base := s.arenaURL + "/v1/avatars/" + m.Avatar.String()
	a := ask(t, http.MethodGet, base+"/evidence", "operator-token", "")
	r := tar.NewReader(strings.NewReader(a.body))
	h, err := r.Next()
	if err != nil || a.status != 200 || h.Name != "bundle/manifest" {
		t.Fatalf("evidence is %d, %v: %v", a.status, h, err)
	}
	if content, err := io.ReadAll(r); err != nil || string(content) != "proof" {
		t.Errorf("the bundle holds %q: %v", content, err)
	}
	for query, want := range map[string]int{
		"from=1000000000&to=2001-09-09T01:46:41Z&property=heart_rate": 200,
		"property=stress": 404, "from=2&to=1": 400, "from=yesterday": 400,
	} {
		if a := ask(t, http.MethodGet, base+"/evidence?"+query, "operator-token", ""); a.status != want {
			t.Errorf("evidence with %s is %d %s, want %d", query, a.status, a.body, want)
		}
	}
	if a := ask(t, http.MethodGet, base+"/evidence", "reader-token", ""); a.status != 403 {
		t.Errorf("a reader gets evidence, which holds keys: %d", a.status)
	}
	if a := ask(t, http.MethodGet, base+"/did", "reader-token", ""); a.status != 200 || !strings.Contains(a.body, "did:key:z") {
		t.Errorf("the document is %d %s", a.status, a.body)
	}
	a = ask(t, http.MethodGet, base+"/credential", "reader-token", "")
	_, err = identity.VerifyCredential(a.body, identity.Expectation{Issuer: public(s.ids.arena.Key), World: "arena", Now: time.Now()})
	if a.status != 200 || err != nil {
		t.Errorf("the credential is %d %s: %v", a.status, a.body, err)
	}
	for _, what := range []string{"/evidence", "/did", "/credential"} {
		if a := ask(t, http.MethodGet, s.arenaURL+"/v1/avatars/"+carnet.NewAvatarID().String()+what, "operator-token", ""); a.status != 404 {
			t.Errorf("%s of no avatar is %d", what, a.status)
		}
	}
}
