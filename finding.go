package carnet

import (
	"cmp"
	"slices"
	"time"
)

// Finding is something of its own that a party found half done, or not as it should be.
type Finding struct {
	Kind  string    `json:"kind" doc:"What sort of thing it is: move, erasure, share, mapping, peering, statements, register, avatar, item, keys, bytes."`
	About string    `json:"about" doc:"Which one, as commands take it."`
	Since time.Time `json:"since,omitzero"`
	// Wrong: nothing that the party does by itself ends it. Otherwise it is under way, or
	// waits for somebody.
	Wrong  bool   `json:"wrong" doc:"Nothing that the party does by itself ends it; otherwise it is under way, or waits for somebody."`
	Reason string `json:"reason"`
	Fix    string `json:"fix,omitempty" doc:"What to do about it; empty: wait."`
}

// Examination is what a party looked at of its own, and what it found there. Its zero
// value is ready; it is filled by one goroutine.
type Examination struct {
	Examined map[string]int `json:"examined" doc:"How many of each sort were looked at."`
	Findings []Finding      `json:"findings"`
}

// Saw counts what was looked at.
func (e *Examination) Saw(what string, n int) {
	if e.Examined == nil {
		e.Examined = make(map[string]int)
	}
	e.Examined[what] += n
}

// Found notes a finding.
func (e *Examination) Found(f Finding) { e.Findings = append(e.Findings, f) }

// Lasting are the findings of e that a later examination has, too, those that are
// wrong first, and of each sort the oldest.
func (e *Examination) Lasting(later Examination) []Finding {
	lasting := []Finding{}
	for _, f := range later.Findings {
		if slices.ContainsFunc(e.Findings, func(was Finding) bool { return was.Kind == f.Kind && was.About == f.About && was.Wrong == f.Wrong }) {
			lasting = append(lasting, f)
		}
	}
	slices.SortStableFunc(lasting, func(f, g Finding) int {
		if f.Wrong != g.Wrong {
			if f.Wrong {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(f.Kind, g.Kind), f.Since.Compare(g.Since), cmp.Compare(f.About, g.About))
	})
	return lasting
}
