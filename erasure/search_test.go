package erasure

import (
	"fmt"
	"maps"
	"testing"
)

// The search visits all orders of events of one erasure at a home, at a taker of a share
// and at one to whom the taker passed it on, with the register: messages that are lost
// or come twice, crashes between each two durable steps, each party restored from an
// older copy once, and a share that begins while the erasure does. Each party's states
// change by Next alone.

// side is what one party has on disk.
type side struct {
	State   State
	Hidden  bool // the tombstone
	Data    bool // keys and bytes
	Shares  bool // it gave the next one something, and knows
	Told    bool // the next one is among those to be told
	Heard   bool // the next one has signed that nothing is left, or below
	Signed  bool // its own deletion
	Ordered bool // home: the owner's order came
}

// scene is everything: three sides, the register, and what is left of the bounds.
type scene struct {
	Home, Taker, Onward side
	Noted               bool    // the register knows
	Known               bool    // home: that the register knows
	Asked               bool    // home: it has asked the register since its start
	Copy, Restores      int     // whose copies are made, and how often one is put back
	Old                 [3]side // copies, as they were when they were made
	Copied              [3]bool
	Shared              bool // the share began
}

// rules are those of the protocol that a planted mistake leaves out.
type rules struct {
	listAfterHiding, askRegister, tellAgain, waitBelow, signAfterClearing, noShareOnceHidden bool
}

var honest = rules{true, true, true, true, true, true}

func step(s *side, e Event) bool {
	next, ok := Next(s.State, e)
	if ok {
		s.State = next
	}
	return ok
}

// next lists the scenes that may follow. Losses are events that don't happen, and
// crashes lie between each two: nothing is kept but what is on disk.
func (s scene) next(r rules) (all []scene) {
	add := func(do func(*scene) bool) {
		n := s
		if do(&n) {
			all = append(all, n)
		}
	}
	// A share begins, and is passed on.
	add(func(n *scene) bool {
		if n.Shared || !n.Home.Data || r.noShareOnceHidden && n.Home.Hidden {
			return false
		}
		n.Shared, n.Home.Shares, n.Taker.Data, n.Taker.Shares, n.Onward.Data = true, true, true, true, true
		return true
	})
	// The owner's order comes, once and again.
	add(func(n *scene) bool { n.Home.Ordered = true; return step(&n.Home, Order) })
	s.drive(r, add, func(n *scene) *side { return &n.Home }, func(n *scene) *side { return &n.Taker }, true)
	s.drive(r, add, func(n *scene) *side { return &n.Taker }, func(n *scene) *side { return &n.Onward }, false)
	s.drive(r, add, func(n *scene) *side { return &n.Onward }, nil, false)
	// The register is told, and asked at a start.
	add(func(n *scene) bool {
		if n.Home.State == None || n.Home.State == Ordered || n.Known {
			return false
		}
		n.Noted, n.Known = true, true
		return true
	})
	add(func(n *scene) bool {
		if n.Asked {
			return false
		}
		n.Asked = true
		if r.askRegister && n.Noted && (n.Home.State == None || n.Home.State == Ordered) {
			step(&n.Home, Order)
			n.Home.Ordered = true
			step(&n.Home, Hidden)
			n.Home.Hidden = true
		}
		return true
	})
	// A copy is made of each, and put back.
	for i, of := range []func(*scene) *side{func(n *scene) *side { return &n.Home }, func(n *scene) *side { return &n.Taker }, func(n *scene) *side { return &n.Onward }} {
		add(func(n *scene) bool {
			if n.Copied[i] || !n.Shared || n.Copy != i {
				return false
			}
			n.Copied[i], n.Old[i] = true, *of(n)
			return true
		})
		add(func(n *scene) bool {
			if !n.Copied[i] || n.Restores == 0 || *of(n) == n.Old[i] {
				return false
			}
			n.Restores--
			*of(n) = n.Old[i]
			if i == 0 {
				n.Known, n.Asked = false, false
			}
			return true
		})
	}
	return all
}

// drive is what one side does by itself, and with the next one.
func (s scene) drive(r rules, add func(func(*scene) bool), of, below func(*scene) *side, home bool) {
	add(func(n *scene) bool { // hide
		p := of(n)
		if p.State != Ordered {
			return false
		}
		p.Hidden = true
		if !r.listAfterHiding {
			p.Told = p.Shares
		}
		return step(p, Hidden)
	})
	if !r.listAfterHiding {
		add(func(n *scene) bool { // planted: who has something is listed when the order comes
			p := of(n)
			if p.State != Ordered || p.Told == p.Shares {
				return false
			}
			p.Told = p.Shares
			return true
		})
	}
	add(func(n *scene) bool { // list who got something
		p := of(n)
		if !r.listAfterHiding || p.State != Hiding && p.State != Erased || p.Told == p.Shares {
			return false
		}
		p.Told = p.Shares
		return step(p, Another)
	})
	add(func(n *scene) bool { // clear, and sign
		p := of(n)
		if p.State != Hiding || r.listAfterHiding && p.Told != p.Shares {
			return false
		}
		if r.signAfterClearing || p.Data {
			p.Data = !r.signAfterClearing
		}
		p.Signed = true
		return step(p, Cleared)
	})
	if !r.signAfterClearing {
		add(func(n *scene) bool { // planted: keys go after it was signed
			p := of(n)
			if !p.Signed || !p.Data {
				return false
			}
			p.Data = false
			return true
		})
	}
	if below != nil {
		add(func(n *scene) bool { // tell the next one
			p, q := of(n), below(n)
			if p.State != Hiding && p.State != Erased && !(p.State == Over && r.tellAgain) || !p.Told {
				return false
			}
			if p.Heard && !r.tellAgain {
				return false
			}
			before := *n
			if q.State == None {
				step(q, Order)
			}
			// It answers how it stands; the answer may be lost: then only that it was told stays.
			done := q.State == Over || !r.waitBelow && q.Signed
			if done != p.Heard {
				p.Heard = done
				if !done {
					step(p, Another)
				}
			}
			return *n != before
		})
		add(func(n *scene) bool { // told, and the answer is lost
			p, q := of(n), below(n)
			if p.State != Hiding && p.State != Erased || !p.Told || q.State != None {
				return false
			}
			return step(q, Order)
		})
	}
	add(func(n *scene) bool { // all have answered
		p := of(n)
		if p.State != Erased || p.Told && !p.Heard || home && !n.Known {
			return false
		}
		return step(p, All)
	})
}

// wrong says what doesn't hold in a scene; "" if all does.
func (s scene) wrong(r rules) string {
	for name, p := range map[string]side{"home": s.Home, "taker": s.Taker, "onward": s.Onward} {
		if p.Signed && p.Data {
			return name + " has signed that nothing is left, and has keys"
		}
		if p.Hidden && p.State.Readable() {
			return name + " may show what is hidden"
		}
	}
	// Over means that all have signed, as long as nobody was restored since.
	if s.Restores == restores && s.Home.State == Over && s.Shared && !(s.Taker.Signed && s.Onward.Signed) {
		return "the erasure is over at home, and somebody hasn't signed"
	}
	// Once the order is carried out, nothing is shown: an older copy is withheld until the
	// register was asked.
	if s.Noted && s.Asked && s.Home.Data && !s.Home.Hidden {
		return "home shows what the register knows to be erased"
	}
	return ""
}

// ends lets all go well from a scene, and says what doesn't hold then.
func (s scene) ends(r rules) string {
	for range 200 {
		moved := false
		for _, n := range s.next(r) {
			// Nothing new is wanted, copied or put back.
			if n.Shared != s.Shared || n.Copied != s.Copied || n.Restores != s.Restores || n == s || n.Home.Ordered != s.Home.Ordered && !n.Noted {
				continue
			}
			s, moved = n, true
			break
		}
		if !moved {
			break
		}
	}
	if !s.Home.Ordered {
		return ""
	}
	if !s.Noted && s.Home.State == None { // the order was lost with the copy, before anybody knew
		return ""
	}
	for name, p := range map[string]side{"home": s.Home, "taker": s.Taker, "onward": s.Onward} {
		if p.Data {
			return fmt.Sprintf("at the end %s has keys and bytes, as %q", name, p.State)
		}
	}
	if s.Home.State != Over {
		return fmt.Sprintf("at the end the erasure is %q at home", s.Home.State)
	}
	return ""
}

// restores is how often one party is given its older copy.
const restores = 2

func search(r rules) (scenes int, wrong string) {
	for copied := range 3 {
		n, wrong := searchFrom(r, scene{Home: side{Data: true}, Copy: copied, Restores: restores})
		if scenes += n; wrong != "" {
			return scenes, wrong
		}
	}
	return scenes, ""
}

func searchFrom(r rules, first scene) (scenes int, wrong string) {
	seen := map[scene]bool{first: true}
	for todo := []scene{first}; len(todo) > 0; {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if wrong := s.wrong(r); wrong != "" {
			return len(seen), fmt.Sprintf("%s: %+v", wrong, s)
		}
		if wrong := s.ends(r); wrong != "" {
			return len(seen), fmt.Sprintf("%s: %+v", wrong, s)
		}
		for _, n := range s.next(r) {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return len(seen), ""
}

func TestSearchFindsNothingInTheRules(t *testing.T) {
	n, wrong := search(honest)
	t.Logf("%d scenes", n)
	if wrong != "" {
		t.Error(wrong)
	}
	if n < 1000 {
		t.Errorf("%d scenes are too few to say anything", n)
	}
}

func TestSearchFindsPlantedMistakes(t *testing.T) {
	for name, plant := range map[string]func(*rules){
		"who has something is listed before it is hidden": func(r *rules) { r.listAfterHiding = false; r.noShareOnceHidden = false },
		"an older copy doesn't ask the register":          func(r *rules) { r.askRegister = false },
		"who has answered isn't told again":               func(r *rules) { r.tellAgain = false },
		"whom the taker told isn't waited for":            func(r *rules) { r.waitBelow = false },
		"it is signed before the keys are gone":           func(r *rules) { r.signAfterClearing = false },
	} {
		r := honest
		plant(&r)
		if _, wrong := search(r); wrong == "" {
			t.Errorf("%s, and nothing is found", name)
		}
	}
}

func TestStatesGoOneWay(t *testing.T) {
	rank := map[State]int{None: 0, Ordered: 1, Hiding: 2, Erased: 3, Over: 4, Elsewhere: 2}
	for s := range maps.Keys(rank) {
		for e := Order; e <= Wider; e++ {
			next, ok := Next(s, e)
			if !ok && next != s {
				t.Errorf("%q is refused %d and becomes %q", s, e, next)
			}
			if !s.Readable() && next.Readable() {
				t.Errorf("what is hidden can be read again: %q by %d is %q", s, e, next)
			}
			if again, ok2 := Next(next, e); ok && (!ok2 || again != next) {
				t.Errorf("%q by %d is %q, and again %q, %v", s, e, next, again, ok2)
			}
		}
	}
}
