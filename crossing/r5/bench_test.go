package r5

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"carnet"
	"carnet/identity"
)

// busy is a stage whose limits don't matter.
func busy(b *testing.B) *stage {
	s := newStage(b)
	s.server = s.newServer(b, Limits{Remembered: 1 << 30, Calls: 1 << 20, Connections: 1 << 10})
	s.serve(b)
	s.clock.add(2e9)
	return s
}

// BenchmarkExchange is a token from the client's word to its hands: assertion and
// proof signed, mutual TLS, everything checked, token signed. Nothing is recorded.
func BenchmarkExchange(b *testing.B) {
	s := busy(b)
	s.server.cfg.Activity = unrecorded{s.world}
	client := s.client(b)
	credential, mandate := s.newCredential(), s.newMandate()
	as := ready{s, credential, mandate}
	use := Use{Avatar: s.about, Action: identity.ActionRead}
	b.SetParallelism(8) // what one exchange waits for, others use
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.exchange(b.Context(), as, s.avatar, use); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
}

// BenchmarkCheck is what a call costs arena before its handler: without TLS, HTTP
// and the record.
func BenchmarkCheck(b *testing.B) {
	s := busy(b)
	s.server.cfg.Activity = unrecorded{s.world}
	s.server.Handle("GET /r5/avatars/{id}/nothing", identity.ActionRead, func(http.ResponseWriter, *http.Request, Call) {})
	a := s.attempt()
	_, token, err := a.exchange()
	if err != nil {
		b.Fatal(err)
	}
	requests := make([]*http.Request, b.N)
	url := s.base + "/r5/avatars/" + s.about.String() + "/nothing"
	for i := range requests {
		proof := must(identity.IssueProof(a.proofKey, identity.Proof{Method: "GET", URL: url, Issued: s.clock.Now(), Token: carnet.FingerprintOf([]byte(token))}))
		r := httptest.NewRequest("GET", strings.TrimPrefix(url, s.base), nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: certificates(s)}
		r.Header = http.Header{"Authorization": {"DPoP " + token}, "Dpop": {proof}}
		requests[i] = r
	}
	w := httptest.NewRecorder()
	b.ReportAllocs()
	b.ResetTimer()
	for _, r := range requests {
		s.server.ServeHTTP(w, r)
	}
	if w.Code != 200 {
		b.Fatal(w.Code, s.world.last())
	}
}

// ready is an avatar whose credential and mandate are there.
type ready struct {
	stage               *stage
	credential, mandate string
}

func (r ready) Key(context.Context) (ed25519.PrivateKey, error) { return r.stage.avatar, nil }
func (r ready) Credential(context.Context) (string, error)      { return r.credential, nil }
func (r ready) Mandate(context.Context, Use) (string, error)    { return r.mandate, nil }

// unrecorded keeps refusals only.
type unrecorded struct{ *world }

func (u unrecorded) Record(ctx context.Context, d Decision) error {
	if d.Permitted {
		return nil
	}
	return u.world.Record(ctx, d)
}
