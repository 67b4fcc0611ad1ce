package thing

import (
	"net/netip"
	"testing"

	"carnet"
)

// TestAWrongPasswordIsShown: with how often, since when and from where; once for each
// thing, however often; and of what is no thing nothing is kept.
func TestAWrongPasswordIsShown(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	if info, err := h.agent.Thing(t.Context(), d.id); err != nil || info.Denied != nil {
		t.Errorf("before: %+v, %v", info.Denied, err)
	}
	for range 3 {
		h.agent.Deny(string(d.id), netip.MustParseAddrPort("[::ffff:192.0.2.1]:1"))
	}
	h.agent.Deny(string(d.id), netip.MustParseAddrPort("192.0.2.2:1"))
	h.agent.Deny("nobody", netip.AddrPort{})
	info, err := h.agent.Thing(t.Context(), d.id)
	if err != nil || info.Denied == nil || info.Denied.Count != 4 || info.Denied.From != "192.0.2.2" || info.Denied.Last.Before(info.Denied.Since) || info.Denied.Since.IsZero() {
		t.Errorf("after: %+v, %v", info.Denied, err)
	}
	if _, err := h.agent.Thing(t.Context(), "nobody"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("what is no thing: %v", err)
	}
}
