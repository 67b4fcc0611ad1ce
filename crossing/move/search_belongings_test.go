package move

import (
	"fmt"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/register"
)

// The search of a recovery with an item: an avatar with one item in world 0, which may go
// and come back at any time; its passport, of the beginning; its recovery to world 1, or
// one of the item's home alone, with which world 1 plays along; the item alone moves to
// world 2; its owner gives the item to another avatar of world 0, or world 0 retires it.
// Either may fail, and a claim's answer be lost. In another search the item is in world 2
// at first, and comes to the avatar at any time. Homes are those of search_items_test.go:
// ofItem and ofWhole.

// belonging is a state of the whole, comparable.
type belonging struct {
	up       bool
	here     [2]bool // at world 0, as far as it knows
	claimed  [2]int8 // incarnations, since the start; 0: not yet
	given    bool    // the item, durably: its chain has two entries
	giving   bool    // the register was told that it will
	retired  bool    // the item, durably: its chain has two entries
	retiring bool    // the register was told that it will
	keeping  bool    // avatar and item keep still for a farewell that is to be said
	noted    int8    // the item's incarnation before they did
	comes    int8    // the item, to the avatar: waits, is accepted, committed, there; 0: it was there
	farewell [2]int8 // incarnations under which it was said; 0: it wasn't, or not of the item

	world, incarnation [2]int8 // in the register
	petition           [2]bool
	ripe               bool // the waiting time of the last is over
	chain              int8 // of the item, as the register says

	target   code // of the recovery
	asked    [2]int8
	with     bool // the item comes along
	only     bool // and nothing else
	bid      bool // a farewell comes with the passport
	accepted bool
	decided  uint8
	came     [2]bool // at world 1

	source, alone code // of the item's own move: its source, its target
	released      int8
	moved         uint8
	gone          bool // it is in world 2
}

// belongingRules are the production rules, some of which a test replaces.
type belongingRules struct {
	source, target *table
	decide         func(register.Known, register.Question, time.Time) (*identity.Decision, []register.Home, error)
	claims         bool // a source that starts changes nothing it hasn't claimed
	leaves         bool // an item whose claim is refused leaves
	says           bool // a gift is told to the register before
	compares       bool // a target takes no item whose chain is shorter than the register says
	still          bool // what a farewell was said to isn't changed
	lands          bool // the item comes with the avatar
	everywhere     bool // the petition is recorded with each home
	watches        bool // a world asks how its items' homes stand, too
	forgets        bool // a claim whose answer is lost ends what was claimed before
	unsays         bool // what wasn't changed after all is claimed anew
	keeps          bool // what a farewell is of keeps still before it is named
	expects        bool // no farewell is said while an item is on its way, and none comes after it
}

func production3() belongingRules {
	return belongingRules{tabled(Source), tabled(Target), register.Decide, true, true, true, true, true, true, true, true, true, true, true, true}
}

// The way of an item that comes to the avatar.
const (
	comesNot = iota
	comesAsked
	comesAccepted
	comesCommitted
	comesThere
)

// chainOf is how many entries the item's chain has in world 0.
func (s *belonging) chainOf() int8 {
	n := int8(1)
	if s.given || s.retired {
		n++
	}
	if s.comes == comesThere {
		n++
	}
	return n
}

// changes reports whether world 0 would change the avatar, or the item.
func (r *belongingRules) changes(s *belonging, h int) bool {
	frozen := s.farewell[h] > 0 && r.still || h == ofItem && s.source == frozen || s.keeping && r.keeps && (h == ofWhole || !s.given)
	return s.up && s.here[h] && (s.claimed[h] > 0 || !r.claims) && !frozen
}

func (r *belongingRules) homes(s *belonging) map[carnet.HomeID]register.Home {
	all := make(map[carnet.HomeID]register.Home)
	for h := range 2 {
		id := carnet.HomeID{byte(h + 1)}
		home := register.Home{ID: id, World: worldName(s.world[h]), Incarnation: uint64(s.incarnation[h])}
		if h == ofItem {
			home.Chain = uint64(s.chain)
		}
		if s.petition[h] {
			until := time.Unix(2000, 0)
			if s.ripe {
				until = time.Unix(1000, 0)
			}
			home.Recovery = identity.Petitioned{Crossing: carnet.CrossingID{1}, Target: worldName(1), Signed: time.Unix(500, 0), Asked: time.Unix(1000, 0), Until: until}
		}
		all[id] = home
	}
	return all
}

// take has the register's homes stand as they do since a change.
func (r *belongingRules) take(n *belonging, homes []register.Home) {
	for _, h := range homes {
		at := h.ID[0] - 1
		n.world[at], n.incarnation[at] = int8(h.World[0]-'a'), int8(h.Incarnation)
		if is := h.Recovery != (identity.Petitioned{}); is != n.petition[at] {
			n.petition[at] = is
			n.ripe = n.ripe && !is
		}
	}
}

// ask puts the recovery to the registrar.
func (r *belongingRules) ask(n *belonging, want register.Want) {
	if n.decided != 0 {
		return
	}
	manifest := carnet.Fingerprint{1}
	order := identity.Order{
		Crossing: carnet.CrossingID{1}, Source: worldName(0), Target: worldName(1), Homes: []carnet.HomeID{{ofWhole + 1}}, Made: time.Unix(500, 0), Until: time.Unix(5000, 0),
		Recovers: &identity.Recovers{Manifest: manifest, Incarnations: []uint64{uint64(n.asked[ofWhole])}, Chains: []uint64{0}},
	}
	chain := uint64(1) // of the passport
	if n.bid {
		chain = uint64(n.chainOf())
	}
	switch {
	case n.only:
		order.Homes, order.Recovers.Incarnations, order.Recovers.Chains = []carnet.HomeID{{ofItem + 1}}, []uint64{uint64(n.asked[ofItem])}, []uint64{chain}
	case n.with:
		order.Homes, order.Recovers.Incarnations, order.Recovers.Chains = []carnet.HomeID{{ofItem + 1}, {ofWhole + 1}}, []uint64{uint64(n.asked[ofItem]), uint64(n.asked[ofWhole])}, []uint64{chain, 0}
	}
	q := register.Question{By: order.Target, Crossing: order.Crossing, Want: want, Order: &order, Acceptance: &identity.Acceptance{Target: order.Target, Crossing: order.Crossing, Manifest: manifest}}
	if n.bid {
		q.Farewell = &identity.Farewell{Source: order.Source, Home: carnet.HomeID{ofWhole + 1}, Incarnation: uint64(n.farewell[ofWhole]), Manifest: manifest}
		if n.farewell[ofItem] > 0 {
			q.Farewell.Items = []identity.Incarnate{{Home: carnet.HomeID{ofItem + 1}, Incarnation: uint64(n.farewell[ofItem])}}
		}
	}
	known := register.Known{Wait: time.Hour, Homes: r.homes(n)}
	if !r.everywhere && n.with && !n.only && n.petition[ofItem] {
		h := known.Homes[carnet.HomeID{ofWhole + 1}]
		h.Recovery = known.Homes[carnet.HomeID{ofItem + 1}].Recovery
		known.Homes[h.ID] = h
	}
	d, homes, err := r.decide(known, q, time.Unix(1000, 0))
	if err != nil {
		return // a refusal decides nothing
	}
	r.take(n, homes)
	switch {
	case d == nil:
	case d.Outcome == identity.Commit:
		n.decided = committed
	default:
		n.decided = aborted
	}
}

// decideMove has the registrar decide the item's own move.
func (r *belongingRules) decideMove(n *belonging, commit bool) {
	if n.moved != 0 {
		return
	}
	a := decide(asking{n.world[ofItem], n.incarnation[ofItem], 0, 2, commit, n.released})
	if n.moved = aborted; a.commit {
		n.moved, n.world[ofItem], n.incarnation[ofItem], n.petition[ofItem] = committed, a.home, a.incarnation, false
	}
}

// show claims a home, or hears that it is elsewhere.
func (r *belongingRules) show(n *belonging, h int, chain int8) bool {
	known := register.Home{ID: carnet.HomeID{1}, World: worldName(n.world[h]), Incarnation: uint64(n.incarnation[h])}
	now, err := register.ClaimItem(&known, known.ID, worldName(0), uint64(chain))
	if err != nil {
		if h == ofWhole || r.leaves {
			n.here[h] = false
		}
		if h == ofWhole && n.decided == committed && n.with && !n.only && r.leaves { // by the same decision
			n.here[ofItem] = false
		}
		return false
	}
	n.incarnation[h], n.claimed[h], n.petition[h] = int8(now.Incarnation), int8(now.Incarnation), false
	if h == ofItem && now.Chain > 0 {
		n.chain = int8(now.Chain)
	}
	return true
}

func (r *belongingRules) claim(n *belonging, h int) {
	busy := h == ofItem && (n.giving || n.retiring || n.source == frozen)
	if n.up && n.here[h] && n.claimed[h] == 0 && n.farewell[h] == 0 && !busy {
		r.show(n, h, map[int]int8{ofItem: n.chainOf()}[h])
	}
}

// look: the source asks how the avatar's home stands.
func (r *belongingRules) look(n *belonging) {
	switch {
	case !n.up || !n.here[ofWhole]:
	case n.world[ofWhole] != 0:
		r.show(n, ofWhole, 0)
	case n.petition[ofWhole] && n.farewell[ofWhole] == 0 && !n.keeping:
		r.show(n, ofWhole, 0)
	}
}

// lookAtItem: the source asks how the item's home stands.
func (r *belongingRules) lookAtItem(n *belonging) {
	switch {
	case !r.watches || !n.up || !n.here[ofItem] || n.source == frozen || n.giving || n.retiring || n.keeping:
	case n.world[ofItem] != 0:
		n.here[ofItem] = n.here[ofItem] && !r.leaves
	case n.petition[ofItem] && n.farewell[ofItem] == 0:
		r.show(n, ofItem, n.chainOf())
	}
}

// told has the register told that the item's chain is to have another entry; lost: its
// answer doesn't come.
func (r *belongingRules) told(n *belonging, lost bool) bool {
	if !r.says {
		return !lost
	}
	had := n.claimed[ofItem]
	if !r.show(n, ofItem, n.chainOf()+1) {
		return false
	}
	if lost {
		if n.claimed[ofItem] = 0; !r.forgets {
			n.claimed[ofItem] = had
		}
	}
	return !lost
}

// fails: the item isn't changed after all.
func (r *belongingRules) fails(n *belonging) {
	if n.giving, n.retiring = false, false; r.unsays && r.says {
		n.claimed[ofItem] = 0
	}
}

// lives reports whether a living world objects in time to what is petitioned for.
func (r *belongingRules) lives(n *belonging) bool {
	if n.only {
		return n.up && n.here[ofItem] && n.farewell[ofItem] == 0 && r.watches
	}
	return n.up && n.here[ofWhole] && n.farewell[ofWhole] == 0
}

func (r *belongingRules) next(s *belonging, out []belonging) []belonging {
	add := func(change func(*belonging)) {
		n := *s
		if change(&n); n != *s && n.incarnation[0] <= 4 && n.incarnation[1] <= 4 {
			out = append(out, n)
		}
	}
	add(func(n *belonging) { n.up, n.giving, n.retiring, n.keeping, n.noted = false, false, false, false, 0 })
	add(func(n *belonging) {
		if !n.up {
			n.up, n.claimed = true, [2]int8{}
		}
	})
	for h := range 2 {
		add(func(n *belonging) { r.claim(n, h) })
	}
	add(r.look)
	add(r.lookAtItem)
	for _, lost := range []bool{false, true} {
		add(func(n *belonging) { // a gift: the register is told, then it is stored
			if r.changes(n, ofItem) && !n.given && !n.giving && !n.retiring {
				n.giving = r.told(n, lost)
			}
		})
		add(func(n *belonging) { // a retirement, likewise
			if r.changes(n, ofItem) && !n.given && !n.giving && !n.retiring {
				n.retiring = r.told(n, lost)
			}
		})
	}
	if s.giving || s.retiring {
		add(r.fails)
		add(func(n *belonging) {
			if !r.changes(n, ofItem) {
				r.fails(n)
				return
			}
			n.given, n.retired = n.giving, n.retiring
			n.here[ofItem] = !n.retired
			n.giving, n.retiring = false, false
		})
	}
	add(func(n *belonging) { // a farewell: what it is of keeps still, then it is said
		onItsWay := n.comes == comesAccepted || n.comes == comesCommitted
		if n.up && n.here[ofWhole] && n.claimed[ofWhole] > 0 && n.farewell[ofWhole] == 0 && n.source != frozen && !(onItsWay && r.expects) && !n.keeping {
			n.keeping, n.noted = true, n.claimed[ofItem]
		}
	})
	add(func(n *belonging) {
		its := n.here[ofItem] && !n.given && n.source != frozen
		if n.keeping && n.here[ofWhole] && n.claimed[ofWhole] > 0 && !n.giving && !n.retiring && (n.claimed[ofItem] > 0 || !its) {
			n.farewell[ofWhole], n.keeping = n.claimed[ofWhole], false
			if its && r.keeps {
				n.farewell[ofItem] = n.claimed[ofItem]
			} else if its {
				n.farewell[ofItem] = n.noted
			}
			n.noted = 0
		}
	})
	switch s.comes {
	case comesAsked:
		add(func(n *belonging) {
			if n.up && n.here[ofWhole] && (!n.keeping && n.farewell[ofWhole] == 0 || !r.expects) {
				n.comes = comesAccepted
			}
		})
	case comesAccepted:
		add(func(n *belonging) { r.send(n) })
	case comesCommitted:
		add(func(n *belonging) { r.land(n) })
	}
	add(func(n *belonging) {
		there := r.lives(n)
		all := n.petition[ofWhole] && (!n.with || n.petition[ofItem]) || n.only && n.petition[ofItem]
		if !r.everywhere && !n.only {
			there, all = there && n.petition[ofWhole], n.petition[ofWhole] || n.petition[ofItem]
		}
		n.ripe = n.ripe || all && !there
	})
	if s.target == none && s.world[ofWhole] == 0 { // its owner is asked as the register stands
		for _, bid := range []bool{false, true} {
			add(func(n *belonging) {
				if bid && n.farewell[ofWhole] == 0 {
					return
				}
				take(r.target, &n.target, Ask)
				n.asked, n.bid = n.incarnation, bid
				n.with = n.world[ofItem] == 0 && (bid || n.comes == comesNot) && (bid || n.chain <= 1 || !r.compares) && (!bid || n.farewell[ofItem] == n.incarnation[ofItem])
			})
		}
	}
	if s.target == none && s.world[ofItem] == 0 && s.comes == comesNot { // a target that plays along compares nothing
		add(func(n *belonging) {
			take(r.target, &n.target, Ask)
			n.asked, n.with, n.only = n.incarnation, true, true
		})
	}
	if s.target == asked {
		add(func(n *belonging) { take(r.target, &n.target, Order) })
	}
	if s.target == copying {
		add(func(n *belonging) { take(r.target, &n.target, Checked); n.accepted = true })
	}
	add(func(n *belonging) { take(r.target, &n.target, Cancel) })
	if s.accepted {
		add(func(n *belonging) { r.ask(n, register.Commit) })
	}
	if s.target != none && s.target != asked {
		add(func(n *belonging) { r.ask(n, register.Abort) })
	}
	add(r.tell)
	// The item's own move.
	add(func(n *belonging) {
		if r.changes(n, ofItem) && take(r.source, &n.source, Offer) {
			take(r.target, &n.alone, Ask)
			take(r.target, &n.alone, Order)
		}
	})
	add(func(n *belonging) {
		if r.changes(n, ofItem) && n.claimed[ofItem] > 0 && n.source != none && !n.giving && !n.retiring && take(r.source, &n.source, Freeze) {
			n.released = n.claimed[ofItem]
		}
	})
	if s.released > 0 {
		add(func(n *belonging) { take(r.target, &n.alone, Checked); r.decideMove(n, true) })
	}
	if s.source != none {
		add(func(n *belonging) { r.decideMove(n, false) })
	}
	add(r.tellMove)
	return out
}

func (r *belongingRules) tell(n *belonging) {
	if n.decided == 0 || !take(r.target, &n.target, decided{outcome: n.decided}.event()) || n.target != home {
		return
	}
	n.came[ofWhole] = !n.only
	n.came[ofItem] = n.with && r.lands
}

// send has the register have the item's home here, and land the item be here.
func (r *belongingRules) send(n *belonging) {
	n.comes, n.gone, n.world[ofItem], n.petition[ofItem] = comesCommitted, false, 0, false
	n.incarnation[ofItem]++
}

func (r *belongingRules) land(n *belonging) {
	if n.up && (n.here[ofWhole] || n.farewell[ofWhole] == 0) {
		n.comes, n.here[ofItem], n.claimed[ofItem] = comesThere, true, 0
	}
}

func (r *belongingRules) tellMove(n *belonging) {
	if n.moved == 0 {
		return
	}
	e := decided{outcome: n.moved}.event()
	if take(r.target, &n.alone, e) && n.alone == home {
		n.gone = true
	}
	if n.up && take(r.source, &n.source, e) && n.source == gone {
		n.here[ofItem] = false
	}
}

// settle lets all go well. back: the source comes back, too.
func (r *belongingRules) settle(s belonging, back bool) belonging {
	s.up, s.giving, s.retiring, s.keeping, s.noted = back, false, false, false, 0
	if back {
		s.claimed = [2]int8{}
	}
	before := belonging{}
	for round := 0; before != s && round < 40; round++ { // a mistake may go on for ever
		before = s
		if s.source != none {
			r.decideMove(&s, s.released > 0)
		}
		r.tellMove(&s)
		switch s.comes {
		case comesAccepted:
			r.send(&s)
		case comesCommitted:
			r.land(&s)
		}
		r.claim(&s, ofWhole)
		r.claim(&s, ofItem)
		r.look(&s)
		r.lookAtItem(&s)
		s.ripe = s.ripe || (s.petition[ofWhole] || s.petition[ofItem]) && !r.lives(&s)
		switch {
		case s.accepted:
			r.ask(&s, register.Commit)
		case s.target == asked:
			take(r.target, &s.target, Cancel)
		case s.target != none:
			r.ask(&s, register.Abort)
		}
		r.tell(&s)
	}
	return s
}

// wrong says what may not be.
func (r *belongingRules) wrong(s *belonging) string {
	for h, what := range []string{"item", "avatar"} {
		if r.changes(s, h) && s.world[h] != 0 && s.claimed[h] > 0 {
			return fmt.Sprintf("world 0 would change the %s, and the register says that it is in world %d", what, s.world[h])
		}
		if r.changes(s, h) && !r.claims && s.world[h] != 0 {
			return fmt.Sprintf("world 0 would change the %s without a claim, and it is in world %d", what, s.world[h])
		}
	}
	if s.came[ofItem] && (s.given || s.retired) {
		return "the item came by a passport from before it was given, or retired"
	}
	for h, what := range []string{"item", "avatar"} {
		if s.up && s.here[h] && s.claimed[h] > 0 && s.world[h] == 0 && s.claimed[h] != s.incarnation[h] {
			return fmt.Sprintf("world 0 would release the %s under an incarnation that isn't the register's", what)
		}
	}
	if s.up && s.here[ofItem] && s.claimed[ofItem] > 0 && s.world[ofItem] == 0 && !s.giving && !s.retiring && s.chain != s.chainOf() && r.says {
		return "the item comes by no passport, since the register was told of another chain"
	}
	if s.farewell[ofWhole] > 0 && s.here[ofWhole] && s.here[ofItem] && !s.given && s.world[ofItem] == 0 && s.source != frozen && s.farewell[ofItem] != s.incarnation[ofItem] {
		return "a farewell isn't of the avatar's item as it stands"
	}
	for _, back := range []bool{true, false} {
		end := r.settle(*s, back)
		if st := states[end.target]; st != None && !st.Over() {
			return fmt.Sprintf("the recovery doesn't end: its target is %q; back: %t", st, back)
		}
		for h, what := range []string{"item", "avatar"} {
			var living []int8
			if end.up && end.here[h] {
				living = append(living, 0)
			}
			if end.came[h] {
				living = append(living, 1)
			}
			if h == ofItem && end.gone {
				living = append(living, 2)
			}
			if h == ofItem && end.retired {
				if len(living) > 0 {
					return fmt.Sprintf("an item that is retired is in %v", living)
				}
				continue
			}
			if lost := !back && end.world[h] == 0; lost && len(living) > 0 || !lost && (len(living) != 1 || living[0] != end.world[h]) {
				return fmt.Sprintf("in the end the %s is in %v, and the register says in world %d; back: %t", what, living, end.world[h], back)
			}
		}
	}
	return ""
}

func (r *belongingRules) search() (visited int, wrong string) {
	n, wrong := r.from(belonging{up: true, here: [2]bool{true, true}, incarnation: [2]int8{1, 1}, chain: 1})
	if wrong != "" {
		return n, wrong
	}
	late := belonging{up: true, here: [2]bool{ofItem: false, ofWhole: true}, incarnation: [2]int8{1, 1}, chain: 1, comes: comesAsked, gone: true}
	late.world[ofItem] = 2
	m, wrong := r.from(late)
	return n + m, wrong
}

// from visits all that may come of a scene.
func (r *belongingRules) from(start belonging) (visited int, wrong string) {
	return visit(start, r.next, r.wrong)
}

// Whenever the source goes and comes back, whoever recovers the avatar, moves the item or
// gives it: both are where the register says, in one world each, and no gift is undone.
func TestTheSearchOfRecoveriesWithItemsFindsNothing(t *testing.T) {
	r := production3()
	visited, wrong := r.search()
	if wrong != "" {
		t.Error(wrong)
	}
	t.Logf("%d scenes", visited)
}

func TestTheSearchOfRecoveriesWithItemsFindsMistakes(t *testing.T) {
	// onHome is a registrar that looks at the avatar's home alone, and moves so many.
	avatarOnly := func(all bool) func(register.Known, register.Question, time.Time) (*identity.Decision, []register.Home, error) {
		return func(k register.Known, q register.Question, now time.Time) (*identity.Decision, []register.Home, error) {
			o := *q.Order
			n := len(o.Homes)
			recovers := *o.Recovers
			recovers.Incarnations, recovers.Chains = recovers.Incarnations[n-1:], recovers.Chains[n-1:]
			whole := o.Homes
			o.Homes, o.Recovers = o.Homes[n-1:], &recovers
			q.Order = &o
			d, homes, err := register.Decide(k, q, now)
			if all && d != nil && d.Outcome == identity.Commit {
				for _, id := range whole[:n-1] {
					h := k.Homes[id]
					h.World, h.Incarnation, h.Recovery = o.Target, h.Incarnation+1, identity.Petitioned{}
					homes = append(homes, h)
				}
			}
			return d, homes, err
		}
	}
	for name, mistake := range map[string]func(*belongingRules){
		"a source acts without a claim":                           func(r *belongingRules) { r.claims = false },
		"an item whose claim is refused stays":                    func(r *belongingRules) { r.leaves = false },
		"a gift isn't told to the register":                       func(r *belongingRules) { r.says = false },
		"nobody compares chains":                                  func(r *belongingRules) { r.compares, r.decide = false, unchained },
		"the registrar doesn't compare chains":                    func(r *belongingRules) { r.decide = unchained },
		"a world doesn't watch its items' homes":                  func(r *belongingRules) { r.watches = false },
		"a lost answer leaves what was claimed before":            func(r *belongingRules) { r.forgets = false },
		"a gift that fails leaves what the register was told":     func(r *belongingRules) { r.unsays = false },
		"a farewell names what doesn't keep still yet":            func(r *belongingRules) { r.keeps = false },
		"an item comes after the farewell":                        func(r *belongingRules) { r.expects = false },
		"what a farewell was said to is changed":                  func(r *belongingRules) { r.still = false },
		"the avatar comes without its item":                       func(r *belongingRules) { r.lands = false },
		"the petition is recorded with the item's home alone":     func(r *belongingRules) { r.everywhere = false },
		"the registrar looks at the avatar's home, and moves all": func(r *belongingRules) { r.decide = avatarOnly(true) },
		"the registrar moves the avatar's home alone":             func(r *belongingRules) { r.decide = avatarOnly(false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := production3()
			mistake(&r)
			if n, wrong := r.search(); wrong == "" {
				t.Errorf("the search finds nothing in %d scenes", n)
			} else {
				t.Logf("%.160s", wrong)
			}
		})
	}
}

// unchained is a registrar that compares no chains.
func unchained(k register.Known, q register.Question, now time.Time) (*identity.Decision, []register.Home, error) {
	homes := make(map[carnet.HomeID]register.Home)
	for id, h := range k.Homes {
		homes[id] = h
	}
	for i, id := range q.Order.Homes {
		h := homes[id]
		h.Chain = q.Order.Recovers.Chains[i]
		homes[id] = h
	}
	k.Homes = homes
	return register.Decide(k, q, now)
}
