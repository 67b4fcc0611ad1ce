package share_test

import (
	"testing"
	"time"

	"carnet"
	"carnet/crossing"
	"carnet/link"
)

// TestAHelloBeginsSharesAnewOnceAtMost: a sender that says again and again that it
// knows of an incarnation above the world's has the shares of what it sends begin
// anew once, and is then refused; a sender of something else has none begin anew.
func TestAHelloBeginsSharesAnewOnceAtMost(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	share := p.take()
	await := func(n int) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); len(p.here(p.citadel, p.ours)["steps"]) != n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("citadel has %d of %d", len(p.here(p.citadel, p.ours)["steps"]), n)
			}
		}
	}
	p.hub.send(s.seal(health, steps(1, 11)))
	await(1)
	derived := func() (first carnet.StreamID) {
		_, all := p.arena.shares.Streams(share.ID)
		for _, d := range all {
			first = d
		}
		return first
	}
	was := derived()
	sink := crossing.Sink{Sink: p.arena.agent, Shares: p.arena.shares}
	for n, want := range []carnet.Code{"", carnet.Conflict, carnet.Conflict} {
		p.hub.nonce++
		st, err := sink.Register(t.Context(), "hub", link.Nonce{p.hub.nonce}, p.hub.incarnation+1)
		if carnet.CodeOf(err) != want {
			t.Fatalf("hello %d: %v, want %q", n, err, want)
		}
		if err == nil {
			p.hub.incarnation, p.hub.last = st.Incarnation, st.Last
		}
		p.proxy.drop()
	}
	p.hub.send(s.seal(health, steps(2, 21)))
	await(2)
	if derived() == was {
		t.Error("the share didn't begin anew when the sender was believed")
	}
}
