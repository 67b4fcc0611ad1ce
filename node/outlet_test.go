package node

import (
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/peering"
)

// Which depot a party has it knows from its start on, however the peering stands:
// what was put there is there.
func TestWhichDepotAPartyHad(t *testing.T) {
	begun := time.Now()
	with := func(name carnet.PartyID, role identity.Role, state peering.State, since time.Duration) peering.Peering {
		return peering.Peering{Name: name, State: state, Since: begun.Add(since), Terms: peering.Terms{Inviter: identity.Peer{Role: role}}}
	}
	again := with("vault", identity.Depot, peering.Invited, 5)
	past := again.Terms
	again.Past, again.Terms = &past, peering.Terms{}
	for _, c := range []struct {
		name string
		all  []peering.Peering
		want carnet.PartyID
	}{
		{"none", []peering.Peering{with("hub", identity.Things, peering.Active, 0)}, ""},
		{"only invited", []peering.Peering{with("vault", identity.Depot, peering.Invited, 0)}, ""},
		{"active", []peering.Peering{with("hub", identity.Things, peering.Active, 1), with("vault", identity.Depot, peering.Active, 0)}, "vault"},
		{"suspended", []peering.Peering{with("vault", identity.Depot, peering.Suspended, 0)}, "vault"},
		{"removed", []peering.Peering{with("vault", identity.Depot, peering.Removed, 0)}, "vault"},
		{"its terms are being changed", []peering.Peering{again}, "vault"},
		{"the one that stands", []peering.Peering{with("old", identity.Depot, peering.Removed, 2), with("vault", identity.Depot, peering.Suspended, 1)}, "vault"},
		{"the newest that ended", []peering.Peering{with("vault", identity.Depot, peering.Over, 2), with("old", identity.Depot, peering.Removed, 1)}, "vault"},
	} {
		if got := lastDepot(c.all); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
