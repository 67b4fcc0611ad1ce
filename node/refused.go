package node

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"carnet"
	"carnet/link"
	"carnet/peering"
)

// peersOf are the party's peerings, each with what stands in the way of using it.
type peersOf struct {
	*peering.Registry
	node *Node
}

// Trouble implements api.Peers.
func (p peersOf) Trouble(name carnet.PartyID) string {
	_, why := p.node.trouble(name)
	return cmp.Or(p.Registry.Trouble(name), why)
}

// justActive is how long a peering may be active here and not yet at the other side,
// which then refuses connections, without that being trouble.
const justActive = 5 * time.Second

// trouble says since when a peer can't be reached, and how that looks from here: nobody
// is told more than that by a peer that has suspended or removed the peering
// (docs/design/peering.md).
func (n *Node) trouble(name carnet.PartyID) (since time.Time, why string) {
	p, err := n.peers.Named(name)
	if err == nil && p.State == peering.Suspended {
		return p.Since, fmt.Sprintf("the peering is suspended here since %s: carnet peer resume %s", p.Since.UTC().Format(time.RFC3339), name)
	}
	if err != nil || p.State != peering.Active || time.Since(p.Since) < justActive {
		return since, ""
	}
	if s, ok := n.senders.Load(name); ok {
		if st := s.(*link.Sender).Status(); !st.Connected && !st.Down.IsZero() {
			return st.Down, unreached(name, st.Down, st.LastError)
		}
	}
	if away := n.depot.away(); away != nil && !away.Since.IsZero() && n.depot.Party() == name {
		return away.Since, unreached(name, away.Since, away.Why)
	}
	return since, ""
}

// unreached tells of a peer that doesn't let this party connect, or isn't there. What
// came from its side of TLS is a refusal of this party's key: it looks the same to
// everybody whose key it doesn't take.
func unreached(name carnet.PartyID, since time.Time, why string) string {
	at := since.UTC().Format(time.RFC3339)
	if strings.Contains(why, "remote error: tls: ") {
		return fmt.Sprintf("%s refuses this party's connections since %s: it has suspended or removed the peering, the terms have ended there, or it takes another key; ask its operator", name, at)
	}
	return fmt.Sprintf("no connection to %s since %s: %s", name, at, carnet.Unreached(why))
}
