package avatar

import (
	"encoding/json"

	"carnet"
)

// demand tells an avatar's senders whether somebody waits for it now, if that
// has changed since they were told.
func (a *Agent) demand(v *Avatar) {
	a.demandMu.Lock()
	defer a.demandMu.Unlock()
	v.mu.Lock()
	on := v.subscribers != nil && v.subscribers.live > 0
	v.mu.Unlock()
	if _, told := a.demanded[v]; told == on {
		return
	}
	if on {
		a.demanded[v] = struct{}{}
	} else {
		delete(a.demanded, v)
	}
	for _, s := range a.streamsOf(v) {
		a.notifyDemand(s, on)
	}
}

// remind tells a sender that has connected anew what is waited for, and which avatars
// have moved: it may have been another process, or away when it was told.
func (a *Agent) remind(party carnet.PartyID) {
	a.demandMu.Lock()
	defer a.demandMu.Unlock()
	for v := range a.demanded {
		for _, s := range a.streamsOf(v) {
			if s.sender == party {
				a.notifyDemand(s, true)
			}
		}
	}
	for id := range a.onwards {
		if a.hasGone(id, party) {
			a.notifyMoved(a.stream(id))
		}
	}
	for id := range a.erasures {
		if a.hasGone(id, party) {
			a.notifyErased(a.stream(id))
		}
	}
}

func (a *Agent) notifyDemand(s *stream, on bool) {
	if s.sender == "" { // it came with a move: nobody sends it
		return
	}
	body, err := json.Marshal(carnet.Demand{Stream: s.id, On: on})
	if err != nil {
		a.log.Error("encode a demand", "err", err)
		return
	}
	a.notify(s.sender, carnet.NoticeDemand, body)
}

// notify tells a sender something if it is connected. One that isn't is told
// when it is.
func (a *Agent) notify(party carnet.PartyID, kind string, body []byte) {
	a.mu.RLock()
	n := a.notifier
	a.mu.RUnlock()
	if n == nil {
		return
	}
	if err := n.Notify(party, kind, body); err != nil {
		a.log.Debug("a sender could not be told", "sender", party, "kind", kind, "err", err)
	}
}
