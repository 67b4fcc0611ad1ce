//go:build !race

package r5

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"carnet"
)

// The work is the same down to what is allocated on the way: an avatar that isn't
// here has its mandate checked as another owner's has.
func TestHiddenAndAbsentAllocateTheSame(t *testing.T) {
	s := newStage(t)
	allocated := func(about carnet.AvatarID) float64 {
		a := s.attempt()
		a.mandate = func(x *text) { x.payload, x.key = replaced(x.payload, s.about.String(), about.String()), newKey() }
		a.form = func(f string) string { return replaced(f, s.about.String(), about.String()) }
		const runs = 20
		var requests []*http.Request
		for range runs + 1 {
			r := a.request()
			r.TLS = &tls.ConnectionState{PeerCertificates: certificates(s)}
			requests = append(requests, r)
		}
		return testing.AllocsPerRun(runs, func() {
			w := httptest.NewRecorder()
			s.server.ServeHTTP(w, requests[0])
			if requests = requests[1:]; w.Code != 401 {
				t.Fatal(w.Code)
			}
		})
	}
	hidden, absent := allocated(s.about), allocated(carnet.NewAvatarID())
	for range 4 { // what else runs allocates, too, at times
		hidden, absent = min(hidden, allocated(s.about)), min(absent, allocated(carnet.NewAvatarID()))
	}
	// The record's reason names the avatar that isn't there.
	if more := absent - hidden; more < 0 || more > 4 {
		t.Errorf("hidden allocates %v times, absent %v", hidden, absent)
	}
}
