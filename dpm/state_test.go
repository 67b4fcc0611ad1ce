package dpm

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
)

// Nothing that happens to a job which is erased brings anything of it back.
func TestNothingComesBackToAnErasedJob(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	until := at.Add(time.Hour)
	for _, was := range []Job{
		{State: Waiting}, {State: Ready}, {State: Leased, Attempt: 2, Worker: "w"}, {State: Ended, Outcome: capsule.Done, Output: &capsule.Output{}, Result: "signed"},
	} {
		was.Peer, was.Named, was.Until, was.Order, was.Acceptance, was.Reception, was.Bag, was.Path = "arena", carnet.Fingerprint{1}, until, "order", "acceptance", []byte{1}, []byte{2}, "path"
		gone, err := Next(was, Event{Kind: Erase, At: at, Erasure: carnet.ErasureID{5}})
		if err != nil || gone.State != Ended || gone.HasKeys() || gone.HasParts() || gone.Cleared {
			t.Fatalf("%s: erased it is %+v, %v", was.State, gone, err)
		}
		if kept := (Job{Peer: was.Peer, Named: was.Named, Until: until, State: Ended, Outcome: gone.Outcome, Ended: gone.Ended, Erasure: carnet.ErasureID{5}}); !same(&kept, &gone) {
			t.Errorf("%s: of an erased job stays %+v", was.State, gone)
		}
		for kind := Whole; kind <= Erase; kind++ {
			now, err := Next(gone, Event{
				Kind: kind, At: at.Add(time.Minute), Attempt: was.Attempt, Worker: "another", Bag: []byte{3}, Path: "path", Outcome: capsule.Done, Output: &capsule.Output{},
				Why: "because", Withdrawal: "withdrawal", Erasure: carnet.ErasureID{6},
			})
			if kind == Clear {
				now.Cleared = false
			}
			if err != nil || !same(&gone, &now) {
				t.Errorf("%s: after event %d of an erased job there is %+v, %v", was.State, kind, now, err)
			}
		}
	}
}

// A DPM that isn't there is told of in words.
func TestADPMThatIsAwayIsToldInWords(t *testing.T) {
	c := &Client{Base: "http://127.0.0.1:1", HTTP: http.DefaultClient} // where nothing listens
	if _, err := c.Offer(t.Context()); carnet.CodeOf(err) != carnet.Unavailable || err.Error() != "the DPM can't be reached: nothing listens there (connection refused)" {
		t.Errorf("it says %v", err)
	}
}

// What follows a request's object is refused, not passed over.
func TestNothingFollowsABody(t *testing.T) {
	for body, want := range map[string]carnet.Code{`{}`: "", "{}\n": "", `{}{}`: carnet.Malformed, `{} x`: carnet.Malformed} {
		err := readJSON(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)), 100, new(struct{}))
		if carnet.CodeOf(err) != want {
			t.Errorf("%q: %v", body, err)
		}
	}
}
