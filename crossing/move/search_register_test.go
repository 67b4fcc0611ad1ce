package move

import (
	"fmt"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/register"
)

// One avatar, one move of it from world 0 to world 1, and a registrar that keeps what it
// decides in a store, in a file beside the ledger, and as marks on the ledger. It crashes at
// any point, is put back from older copies of any of the three, and the order's time ends
// before or after anything.

// changes is how many changes a register has at most: enrolled, claims, and a decision.
const changes = 4

// change is what one change of the register says: how the home stands from then on, or
// what was decided, too. The zero change is none.
type change struct {
	home, incarnation int8
	outcome           uint8 // 0: none
}

// book is an ordered list of changes, as store or file has it.
type book struct {
	all [changes]change
	n   int8
}

func (b *book) add(c change) { b.all[b.n] = c; b.n++ }

func (b *book) cut(n int8) {
	for ; b.n > n; b.n-- {
		b.all[b.n-1] = change{}
	}
}

// stands is how the home stands by a book, and what it says was decided, by which change.
func (b *book) stands() (home, incarnation int8, outcome uint8, by int8) {
	for i := range b.n {
		c := b.all[i]
		home, incarnation = c.home, c.incarnation
		if c.outcome != 0 && outcome == 0 {
			outcome, by = c.outcome, i+1
		}
	}
	return home, incarnation, outcome, by
}

// What a registrar does: nothing since it crashed, answering, or nothing any more, since
// it knows that it is an older copy; or it is to be shown what others have, before.
const (
	down uint8 = iota
	answering
	older
	unshown
)

// kept is a state of the whole.
type kept struct {
	source, target code
	here           [2]bool // where the avatar is, as each world knows
	claimed        int8    // the incarnation that the source has claimed since its start
	claiming       int8    // by which change; 0: it doesn't
	released       int8    // the incarnation that the release names; 0: there is none
	accepted       bool
	ordered        bool
	late           bool // the order's time is over

	store, file book
	saved       book // a copy of the store
	hasSaved    bool
	marks       int8  // on the ledger
	marked      int8  // as the registrar's process knows
	state       uint8 // of the registrar
	proved      bool  // a checkpoint is kept that proves it an older copy
	seen        [2]int8
	told        [3]bool // which outcomes were ever told
	lateCommit  bool    // one was committed after its time

	starts, losses int8 // left: of the source; of copies
	damaged        bool // something was put back from an older copy since the last start
	lost           bool // store and file, or all, were put back from older copies
}

// keeping are the rules of a registrar; a test replaces one to see that the search finds
// the mistake.
type keeping struct {
	source, target *table
	decide         func(register.Known, register.Question, time.Time) (*identity.Decision, []register.Home, error)
	first          bool // the first decision stands
	files          bool // a change is marked once it is filed
	settles        bool // told is what is marked
	looks          bool // at the start it looks for marks of later changes
	compares       bool // at the start it holds store and file against each other
	putsBack       bool // at the start the store gets what the file has
	shown          bool // it heeds what it is shown
	remembers      bool // and also after a restart
	ends           bool // an order's time ends it at the registrar
}

func keeper() keeping {
	return keeping{tabled(Source), tabled(Target), register.Decide, true, true, true, true, true, true, true, true, true}
}

var (
	orderMade = time.Unix(1000, 0)
	orderEnds = orderMade.Add(time.Hour)
)

func placeName(world int8) string { return string('a' + byte(world)) }

// asks puts a question to the registrar, by a world: what follows by the production rule
// is stored. Whoever asks shows the newest checkpoint that they have.
func (k *keeping) asks(s *kept, by int8, want register.Want) {
	if !k.answers(s, by) {
		return
	}
	home, incarnation, outcome, _ := s.store.stands()
	if outcome != 0 && k.first || s.store.n == changes {
		return
	}
	order := identity.Order{Source: placeName(0), Target: placeName(1), Homes: []carnet.HomeID{{1}}, Until: orderEnds}
	q := register.Question{By: placeName(by), Want: want, Order: &order}
	if s.released > 0 && s.accepted {
		q.Release = &identity.Release{Source: order.Source, Incarnations: []uint64{uint64(s.released)}}
		q.Acceptance = &identity.Acceptance{Target: order.Target}
	}
	now := orderMade
	if s.late && k.ends {
		now = orderEnds
	}
	known := register.Known{Homes: map[carnet.HomeID]register.Home{{1}: {World: placeName(home), Incarnation: uint64(incarnation)}}}
	d, homes, err := k.decide(known, q, now)
	if err != nil || d == nil {
		return
	}
	c := change{home, incarnation, aborted}
	if d.Outcome == identity.Commit {
		c = change{int8(homes[0].World[0] - 'a'), int8(homes[0].Incarnation), committed}
		s.lateCommit = s.lateCommit || s.late
	}
	s.store.add(c)
}

// answers reports whether the registrar answers somebody, who shows what they have seen.
func (k *keeping) answers(s *kept, by int8) bool {
	if s.state != answering {
		return false
	}
	if s.marks < s.seen[by] && k.shown {
		s.state, s.proved = older, true
		return false
	}
	return true
}

// tells has the registrar say what was decided.
func (k *keeping) tells(s *kept, to int8) {
	if !k.answers(s, to) {
		return
	}
	if _, _, outcome, by := s.store.stands(); outcome != 0 && (s.marked >= by || !k.settles) {
		s.told[outcome] = true
		s.seen[to] = max(s.seen[to], s.marked)
	}
}

// hears has a world hear something that was ever told, however late.
func (k *keeping) hears(s *kept, world int8, outcome uint8) {
	e := decided{outcome: outcome}.event()
	if world == 0 {
		if take(k.source, &s.source, e) && s.source == gone {
			s.here[0] = false
		}
		return
	}
	if take(k.target, &s.target, e) && s.target == home {
		s.here[1] = true
	}
}

// claim has the source claim, in the order in which that is stored, marked and heard.
func (k *keeping) claim(s *kept) {
	if s.claimed > 0 || s.source == frozen || !s.here[0] {
		return
	}
	if !k.answers(s, 0) {
		s.claiming = 0 // the question is asked again
		return
	}
	at, incarnation, outcome, _ := s.store.stands()
	if s.claiming > 0 {
		if s.marked >= s.claiming && s.store.n >= s.claiming {
			s.claimed, s.seen[0], s.claiming = s.store.all[s.claiming-1].incarnation, max(s.seen[0], s.marked), 0
		}
		return
	}
	if s.store.n >= changes-1 && outcome == 0 || s.store.n == changes { // room for a decision
		return
	}
	known := register.Home{World: placeName(at), Incarnation: uint64(incarnation), Version: 1}
	if h, err := register.Claim(&known, carnet.HomeID{1}, placeName(0)); err == nil {
		s.store.add(change{at, int8(h.Incarnation), 0})
		s.claiming = s.store.n
	}
}

// catchUp is a start of the registrar.
func (k *keeping) catchUp(s *kept) {
	if s.proved && k.remembers {
		s.state = older
		return
	}
	s.damaged = false
	both := min(s.store.n, s.file.n)
	if k.compares && both > 0 && s.store.all[both-1] != s.file.all[both-1] {
		s.state = older
		return
	}
	newest := max(s.store.n, s.file.n)
	if k.looks && s.marks > newest {
		s.state = older
		return
	}
	if s.file.n > s.store.n && k.putsBack {
		s.store = s.file
	} else if s.store.n > s.file.n {
		s.file = s.store
	}
	s.state, s.marked = answering, min(s.marks, s.store.n)
}

func (s *kept) crashes() { s.state, s.marked, s.claiming = down, 0, 0 }

// loses puts older copies back: of store, file, or all, ledger included.
func (s *kept) loses(store, file, marks int8) {
	s.losses--
	s.lost, s.damaged = s.lost || s.damaged, true
	s.crashes()
	s.store.cut(store)
	s.file.cut(file)
	s.marks = min(s.marks, marks)
}

func (k *keeping) next(s *kept, out []kept) []kept {
	add := func(do func(*kept)) {
		n := *s
		if do(&n); n != *s {
			out = append(out, n)
		}
	}
	add(func(n *kept) { n.ordered = true; take(k.target, &n.target, Order) })
	if s.ordered {
		add(func(n *kept) { take(k.source, &n.source, Offer) })
		add(func(n *kept) {
			if n.here[0] && n.claimed > 0 && n.source != frozen && take(k.source, &n.source, Freeze) {
				n.released = n.claimed
			}
		})
		add(func(n *kept) {
			if n.released > 0 && take(k.target, &n.target, Checked) {
				n.accepted = true
			}
		})
		for by := range int8(2) {
			for _, want := range []register.Want{register.Commit, register.Abort, register.Ask} {
				add(func(n *kept) { k.asks(n, by, want) })
			}
		}
		add(func(n *kept) { n.late = true })
	}
	add(func(n *kept) { take(k.source, &n.source, Cancel) }) // a person's, or since its time is over
	add(func(n *kept) { take(k.target, &n.target, Cancel) })
	for world := range int8(2) {
		add(func(n *kept) { k.tells(n, world) })
		for _, outcome := range []uint8{committed, aborted} {
			if s.told[outcome] {
				add(func(n *kept) { k.hears(n, world, outcome) })
			}
		}
	}
	add(k.claim)
	if s.starts > 0 {
		add(func(n *kept) { n.starts--; n.claimed, n.claiming = 0, 0 })
	}
	switch s.state {
	case answering:
		add(func(n *kept) { n.file = n.store })
		add(func(n *kept) {
			if n.marked, n.marks = n.file.n, max(n.marks, n.file.n); !k.files {
				n.marked, n.marks = n.store.n, max(n.marks, n.store.n)
			}
		})
		add((*kept).crashes)
	case older:
		add((*kept).crashes)
	case unshown: // who has seen most asks first
		add(func(n *kept) {
			n.state = down
			if by := int8(0); k.shown && n.marks < max(n.seen[by], n.seen[1]) {
				n.proved = true
			}
		})
	case down:
		add(k.catchUp)
		if !s.hasSaved && s.store.n > 1 {
			add(func(n *kept) { n.saved, n.hasSaved = n.store, true })
		}
		if s.losses == 0 {
			break
		}
		for to := int8(1); to < max(s.store.n, s.file.n); to++ {
			add(func(n *kept) { n.loses(to, changes, changes) })
			add(func(n *kept) { n.loses(changes, to, changes) })
			add(func(n *kept) { n.loses(to, to, changes); n.lost = true })
			add(func(n *kept) { n.loses(to, to, to); n.lost, n.state = true, unshown })
		}
		if s.hasSaved {
			add(func(n *kept) { n.losses--; n.store, n.lost = n.saved, true })
		}
	}
	return out
}

// settle lets all go well; without the target, if that is away for good.
func (k *keeping) settle(s kept, away bool) kept {
	s.late = s.late || away
	for before := (kept{}); before != s; {
		before = s
		if s.state == down {
			k.catchUp(&s)
		}
		if !away {
			k.asks(&s, 1, register.Commit)
			k.asks(&s, 1, register.Abort)
			k.tells(&s, 1)
		}
		k.asks(&s, 0, register.Ask)
		if s.state == answering {
			s.file = s.store
			s.marked, s.marks = s.store.n, max(s.marks, s.store.n)
		}
		k.tells(&s, 0)
		for _, outcome := range []uint8{committed, aborted} {
			if s.told[outcome] {
				k.hears(&s, 0, outcome)
				if !away {
					k.hears(&s, 1, outcome)
				}
			}
		}
		if !s.ordered {
			take(k.source, &s.source, Cancel)
			take(k.target, &s.target, Cancel)
		}
		k.claim(&s)
	}
	return s
}

// wrong says what may not be.
func (k *keeping) wrong(s *kept) string {
	at, incarnation, _, _ := s.store.stands()
	switch acts := s.here[0] && s.source != frozen && s.claimed > 0; {
	case s.told[committed] && s.told[aborted]:
		return "of one crossing two decisions are told"
	case s.here[0] && s.here[1] && acts && s.state == answering && s.marked == s.store.n && at != 0:
		return "the source would change what is at the target"
	case s.source == gone && !s.told[committed], s.target == home && !s.told[committed]:
		return "a world goes by a decision that nobody was told"
	case s.lateCommit:
		return "an order is carried out after its time"
	case acts && s.state == answering && s.marked == s.store.n && at == 0 && s.claimed > incarnation:
		return "the register has forgotten a claim that it has told"
	}
	end := k.settle(*s, false)
	if end.state != answering {
		if !s.lost {
			return "the registrar has all that it needs, and answers no more"
		}
		return ""
	}
	src, tgt := states[end.source], states[end.target]
	at, _, _, _ = end.store.stands()
	switch {
	case src != None && !src.Over() || tgt != None && tgt != Asked && !tgt.Over():
		return fmt.Sprintf("it doesn't end: the source is %q, the target %q", src, tgt)
	case end.here[0] == end.here[1]:
		return "in the end the avatar is in both worlds, or nowhere"
	case end.here[at] != true:
		return fmt.Sprintf("in the end the register says that it is in world %d, and it isn't", at)
	}
	if end = k.settle(*s, true); end.state == answering && states[end.source] != None && !states[end.source].Over() {
		return fmt.Sprintf("the target is gone for good, its order's time is over, and the source is %q", states[end.source])
	}
	return ""
}

// search visits what comes of so many starts of the source, and so many older copies.
func (k *keeping) search(starts, losses int8) (visited int, wrong string) {
	start := kept{target: asked, here: [2]bool{true, false}, state: answering, starts: starts, losses: losses}
	start.store.add(change{0, 1, 0})
	start.file, start.marks, start.marked = start.store, 1, 1
	return visit(start, k.next, k.wrong)
}

// Wherever the registrar crashes between a decision, its receipt and the answer, whichever
// older copies it is put back from, and whenever the order's time ends: one decision is
// told, no order is carried out after its time, and what has all that it needs ends, with
// the avatar in the world that the register names.
func TestSearchFindsNothingInTheRegister(t *testing.T) {
	for _, c := range []struct{ starts, losses int8 }{{1, 1}, {0, 2}} {
		if testing.Short() && c.losses > 1 {
			continue
		}
		k := keeper()
		visited, wrong := k.search(c.starts, c.losses)
		if wrong != "" {
			t.Errorf("%+v: %s", c, wrong)
		}
		enough(t, visited)
	}
}

func TestSearchFindsMistakesOfTheRegister(t *testing.T) {
	instead := func(next func(State, Event) (State, bool), s State, e Event, then State) *table {
		return tabled(func(is State, ev Event) (State, bool) {
			if is == s && ev == e {
				return then, true
			}
			return next(is, ev)
		})
	}
	for name, mistake := range map[string]func(*keeping){
		"it tells what isn't marked":                   func(k *keeping) { k.settles = false },
		"it marks what isn't filed":                    func(k *keeping) { k.files = false },
		"it decides again":                             func(k *keeping) { k.first = false },
		"it looks for no later marks":                  func(k *keeping) { k.looks = false },
		"it doesn't compare store and file":            func(k *keeping) { k.compares = false },
		"it puts nothing back":                         func(k *keeping) { k.putsBack = false },
		"it passes over what it is shown":              func(k *keeping) { k.shown = false },
		"a restart forgets what it was shown":          func(k *keeping) { k.remembers = false },
		"an order has no end at the registrar":         func(k *keeping) { k.ends = false },
		"a frozen source goes on when time is over":    func(k *keeping) { k.source = instead(Source, Frozen, Cancel, Kept) },
		"a prepared target drops it when time is over": func(k *keeping) { k.target = instead(Target, Prepared, Cancel, Dropped) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := keeper()
			mistake(&k)
			losses := int8(1)
			if !k.compares { // two lines of changes need two
				losses = 2
			}
			if _, wrong := k.search(0, losses); wrong == "" {
				t.Error("the search finds nothing")
			} else {
				t.Logf("%.120s", wrong)
			}
		})
	}
}
