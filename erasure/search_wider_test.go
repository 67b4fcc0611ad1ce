package erasure

import (
	"fmt"
	"testing"
)

// The search of an erasure in parts: two who passed streams on by one share tell its
// taker, each of another stream, at any time and again; what the taker does in between is
// cut anywhere, and it is restored from an older copy once. Its state changes by Next.

// parted is the taker of the share, and what each teller has heard.
type parted struct {
	State    State
	Named    [2]bool // by the order that is stored
	Gone     [2]bool // keys and bytes
	Clearing [2]bool // what is being cleared, in memory
	At       bool    // something is being cleared
	Heard    [2]bool
	Old      oldPart
	Restores int
}

type oldPart struct {
	State       State
	Named, Gone [2]bool
	Made        bool
}

// partRules are those that a planted mistake leaves out.
type partRules struct{ widens, again, looks bool }

func (p parted) next(r partRules) (all []parted) {
	add := func(do func(*parted) bool) {
		if n := p; do(&n) && n != p {
			all = append(all, n)
		}
	}
	event := func(n *parted, e Event) bool {
		next, ok := Next(n.State, e)
		if ok {
			n.State = next
		}
		return ok
	}
	for i := range 2 {
		add(func(n *parted) bool { // teller i tells
			if n.State == None {
				n.Named[i] = true
				return event(n, Order)
			}
			if n.Named[i] || !r.widens {
				return false
			}
			n.Named[i] = true
			return !r.again || event(n, Wider)
		})
		add(func(n *parted) bool { // and hears that it is over
			if n.State != Over || r.widens && !n.Named[i] {
				return false
			}
			n.Heard[i] = true
			return true
		})
	}
	add(func(n *parted) bool { return event(n, Hidden) })
	add(func(n *parted) bool { // it begins to clear what is named now
		if n.State != Hiding || n.At {
			return false
		}
		n.At, n.Clearing = true, n.Named
		return true
	})
	add(func(n *parted) bool { // and has done so
		if !n.At {
			return false
		}
		for i, c := range n.Clearing {
			n.Gone[i] = n.Gone[i] || c
		}
		same := n.Clearing == n.Named || !r.looks
		n.At, n.Clearing = false, [2]bool{}
		return !same || event(n, Cleared)
	})
	add(func(n *parted) bool { n.At, n.Clearing = false, [2]bool{}; return true }) // a crash
	add(func(n *parted) bool { return event(n, All) })
	add(func(n *parted) bool {
		if n.Old.Made {
			return false
		}
		n.Old = oldPart{n.State, n.Named, n.Gone, true}
		return true
	})
	add(func(n *parted) bool {
		if !n.Old.Made || n.Restores == 0 {
			return false
		}
		n.State, n.Named, n.Gone, n.At, n.Clearing = n.Old.State, n.Old.Named, n.Old.Gone, false, [2]bool{}
		n.Restores, n.Heard = n.Restores-1, [2]bool{} // at the next connection they tell again
		return true
	})
	return all
}

func searchParts(r partRules) (scenes int, wrong string) {
	first := parted{Restores: 1}
	seen := map[parted]bool{first: true}
	for todo := []parted{first}; len(todo) > 0; {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for i := range 2 {
			if p.Heard[i] && !p.Gone[i] {
				return len(seen), fmt.Sprintf("teller %d has heard that it is over, and it is there: %+v", i, p)
			}
			if p.State == Over && p.Named[i] && !p.Gone[i] {
				return len(seen), fmt.Sprintf("it is over, and stream %d is there: %+v", i, p)
			}
		}
		for _, n := range p.next(r) {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return len(seen), ""
}

func TestSearchFindsNothingInParts(t *testing.T) {
	n, wrong := searchParts(partRules{true, true, true})
	t.Logf("%d scenes", n)
	if wrong != "" || n < 300 {
		t.Errorf("of %d scenes: %s", n, wrong)
	}
}

func TestSearchFindsMistakesInParts(t *testing.T) {
	for name, r := range map[string]partRules{
		"what is told later is left out":                 {false, true, true},
		"it stays over when more is told":                {true, false, true},
		"it is signed for more than what it has cleared": {true, true, false},
	} {
		if _, wrong := searchParts(r); wrong == "" {
			t.Errorf("%s, and nothing is found", name)
		}
	}
}
