package avatar

import (
	"encoding/json"

	"carnet"
)

// TellMoved tells the senders of an avatar that has moved where it went: now, and
// at each connection until they have ended their streams.
func (a *Agent) TellMoved(moved []carnet.Moved) {
	a.demandMu.Lock()
	defer a.demandMu.Unlock()
	for i := range moved {
		a.onwards[moved[i].Stream] = moved[i]
		if s := a.stream(moved[i].Stream); s != nil && a.hasGone(s.id, s.sender) {
			a.notifyMoved(s)
		}
	}
}

// notifyMoved tells a stream's sender where its avatar went, if that is to be told.
// The caller holds demandMu.
func (a *Agent) notifyMoved(s *stream) {
	moved, tell := a.onwards[s.id]
	if !tell {
		return
	}
	body, err := json.Marshal(moved)
	if err != nil {
		a.log.Error("encode where an avatar went", "err", err)
		return
	}
	a.notify(s.sender, carnet.NoticeMoved, body)
}

// heardMoved notes that a stream's sender knows that its avatar has moved.
func (a *Agent) heardMoved(id carnet.StreamID) {
	a.demandMu.Lock()
	defer a.demandMu.Unlock()
	delete(a.onwards, id)
}
