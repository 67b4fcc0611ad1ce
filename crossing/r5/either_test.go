package r5

import (
	"io"
	"net/http"
	"testing"

	"carnet"
	"carnet/identity"
)

// What a peer may also ask without a token it gets by its TLS key alone, and its handler
// sees that; a token that is shown and doesn't hold isn't passed over.
func TestAPeerWithoutAToken(t *testing.T) {
	s := newStage(t)
	var calls []Call
	s.server.HandleEither("GET /r5/avatars/{id}/either", identity.ActionMove, func(w http.ResponseWriter, _ *http.Request, c Call) {
		calls = append(calls, c)
		_, _ = io.WriteString(w, "served")
	})
	ask := func(c *http.Client, id string, headers http.Header) said {
		t.Helper()
		r, err := http.NewRequest("GET", s.base+"/r5/avatars/"+id+"/either", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = headers
		got, err := do(c, r)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := ask(s.http, s.about.String(), http.Header{}); got.status != http.StatusOK || len(calls) != 1 {
		t.Fatalf("answered %+v", got)
	}
	if c := calls[0]; c.Platform != "citadel" || c.Avatar != s.about || c.Action != identity.ActionMove || c.Mandate != "" || c.Grant.ID != "" {
		t.Errorf("called as %+v", c)
	}
	for name, headers := range map[string]http.Header{
		"a token that isn't one": {"Authorization": {"DPoP e30.e30.AA"}},
		"another scheme":         {"Authorization": {"Bearer x"}},
		"nothing as a token":     {"Authorization": {""}},
		"a token twice":          {"Authorization": {"DPoP x", "DPoP x"}},
	} {
		if got := ask(s.http, s.about.String(), headers); got.status == http.StatusOK {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := ask(s.http, "nobody", http.Header{}); got.status == http.StatusOK {
		t.Errorf("about nobody: %+v", got)
	}
	s.world.change(func() { s.world.peers = map[carnet.Fingerprint]Peer{} })
	if got := ask(s.http, s.about.String(), http.Header{}); got.status == http.StatusOK {
		t.Errorf("once it is no peer: %+v", got)
	}
	if len(calls) != 1 {
		t.Errorf("%d calls were served", len(calls))
	}
}
