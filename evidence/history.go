package evidence

import (
	"fmt"

	"carnet/ledger"
)

// shown is what a receipt that holds shows of its ledger.
type shown struct {
	ledger int // place in the trust section
	index  uint64
	entry  ledger.Entry
	ledger.Checkpoint
}

// history is what a bundle shows of one ledger: two receipts that each hold, and can't be of
// one ledger, prove that its depot has signed two.
type history struct {
	roots   map[uint64][32]byte // by size
	entries map[uint64]ledger.Entry
}

// histories are those of a trust section's ledgers, by place; one key has one history.
func histories(verifiers []*ledger.Verifier) (all []*history) {
	by := make(map[string]*history)
	for _, v := range verifiers {
		key := v.Key().String()
		if by[key] == nil {
			by[key] = &history{make(map[uint64][32]byte), make(map[uint64]ledger.Entry)}
		}
		all = append(all, by[key])
	}
	return all
}

// contradicts says how what is shown can't be beside what was shown before.
func (h *history) contradicts(s shown) string {
	if root, known := h.roots[s.Size]; !known {
		h.roots[s.Size] = s.Root
	} else if root != s.Root {
		return fmt.Sprintf("its receipt is of another ledger than others here: the depot has signed two of %d entries", s.Size)
	}
	if entry, known := h.entries[s.index]; !known {
		h.entries[s.index] = s.entry
	} else if entry != s.entry {
		return fmt.Sprintf("its receipt is of another ledger than others here: the depot has signed two that differ in entry %d", s.index)
	}
	return ""
}
