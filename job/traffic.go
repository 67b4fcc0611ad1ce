package job

import (
	"cmp"
	"slices"

	"carnet"
)

// AtDPM is what goes between a world and a DPM that it ordered jobs from (R6).
type AtDPM struct {
	DPM      carnet.PartyID `json:"dpm"`
	Running  int            `json:"running" doc:"Jobs there that haven't ended."`
	Handed   uint64         `json:"handed" doc:"Capsules and contents that it took since the start."`
	Returned uint64         `json:"returned" doc:"Sealed parts of outputs that were fetched from it since the start."`
}

// Traffic lists the DPMs that may be given jobs now, have some, or had one since the start.
func (a *Agent) Traffic() []AtDPM {
	of := make(map[carnet.PartyID]AtDPM)
	if a.cfg.DPMs != nil {
		for _, at := range a.cfg.DPMs() {
			of[at] = AtDPM{DPM: at}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for at, l := range a.traffic {
		l.DPM = at
		of[at] = l
	}
	for _, h := range a.jobs {
		if at := h.job.At; at != "" && h.job.Stand.State != Ended {
			l := of[at]
			l.DPM = at
			l.Running++
			of[at] = l
		}
	}
	var all []AtDPM
	for _, l := range of {
		all = append(all, l)
	}
	slices.SortFunc(all, func(p, q AtDPM) int { return cmp.Compare(p.DPM, q.DPM) })
	return all
}

// went counts what a DPM took, and what was fetched from it.
func (a *Agent) went(at carnet.PartyID, handed, returned uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.traffic == nil {
		a.traffic = make(map[carnet.PartyID]AtDPM)
	}
	l := a.traffic[at]
	l.Handed += handed
	l.Returned += returned
	a.traffic[at] = l
}
