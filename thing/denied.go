package thing

import (
	"net/netip"
	"time"

	"carnet"
)

// Denied tells of attempts to be a thing with a wrong password, since the agent's
// start. However many there are, a thing has one of these.
type Denied struct {
	Count uint64    `json:"count"`
	Since time.Time `json:"since"` // of the first
	Last  time.Time `json:"last"`
	From  string    `json:"from,omitempty"` // the address that the last came from
}

// Deny notes an attempt that failed as a user. What is no thing's id leaves nothing.
func (a *Agent) Deny(user string, from netip.AddrPort) {
	a.registryMu.RLock()
	t := a.registry.things[carnet.ThingID(user)]
	a.registryMu.RUnlock()
	if t == nil {
		return
	}
	now := a.now().UTC()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.denied == nil {
		t.denied = &Denied{Since: now}
	}
	t.denied.Count++
	t.denied.Last = now
	t.denied.From = ""
	if from.IsValid() {
		t.denied.From = from.Addr().Unmap().String()
	}
}
