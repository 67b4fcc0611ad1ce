package move

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/register"
)

// One avatar, three worlds, two or three moves of it that may be under way at once.
// One thing speaks about it, through an agent that follows it.
//
// Wherever the avatar arrives it is another avatar: life 0 is the first, life 1+x
// the one that comes by move x.
type way struct {
	life           int8 // that leaves
	source, target int8 // worlds
}

const (
	worlds = 3
	moves  = 3
	lives  = 1 + moves
)

// cases are the moves that are searched together, and which worlds may be restored
// from an older copy, once.
var cases = map[string]struct {
	ways     []way
	restored []int8
}{
	"to two worlds":                {[]way{{0, 0, 1}, {0, 0, 2}}, []int8{0}},
	"and on":                       {[]way{{0, 0, 1}, {1, 1, 2}}, []int8{0, 1}},
	"there and back":               {[]way{{0, 0, 1}, {1, 1, 0}}, []int8{0, 1}},
	"there, back, and to another":  {[]way{{0, 0, 1}, {1, 1, 0}, {0, 0, 2}}, nil},
	"to two worlds, and on by one": {[]way{{0, 0, 1}, {0, 0, 2}, {1, 1, 2}}, nil},
}

// code is a State, small: there are many scenes.
type code uint8

var states = []State{None, Asked, Copying, Leaving, Prepared, Home, Dropped, Offered, Frozen, Gone, Kept}

func codeOf(s State) code { return code(slices.Index(states, s)) }

var (
	none, asked, home     = codeOf(None), codeOf(Asked), codeOf(Home)
	copying, frozen, gone = codeOf(Copying), codeOf(Frozen), codeOf(Gone)
)

// table is what a function of states and events answers, worked out once.
type table [16][8]struct {
	next code
	ok   bool
}

func tabled(next func(State, Event) (State, bool)) *table {
	var t table
	for i, s := range states {
		for e := Ask; e <= Aborted; e++ {
			n, ok := next(s, e)
			t[i][e].next, t[i][e].ok = codeOf(n), ok
		}
	}
	return &t
}

// release is one thing that a source ever signed. A source that was restored from
// an older copy may sign another for the same move.
type release struct {
	signed      bool
	accepted    bool // the target has signed the acceptance
	incarnation int8 // of the home at the register
	has         int8 // measurements in the manifest
	secret      int8 // of those, what a world with a lesser clearance may not have
}

// life is an avatar in a world.
type life struct {
	here        bool // as far as the world knows
	has         int8 // measurements
	secret      int8 // of those, what a world with a lesser clearance may not have
	incarnation int8 // what the world claimed last, since its start; 0: nothing yet
}

// world is what one world has stored.
type world struct {
	life   [lives]life
	source [moves]code
	target [moves]code
}

// scene is a state of the whole, comparable, so that each is visited once. What
// was ever said may be heard at any time, again, or never.
type scene struct {
	world [worlds]world
	old   world // a copy of one world's store
	ofOld int8  // whose; -1: none was made

	home, incarnation int8 // in the register
	decided           [moves]decided
	ordered           [moves]bool // the order is out
	releases          [moves][2]release

	// The agent: to which life it sends, and the next measurement that goes there.
	at, next int8
	made     int8 // measurements that the thing has made
	restores int8 // left
}

// decided is a decision of the registrar's.
type decided struct {
	outcome uint8 // 0: none yet
	by      int8  // which release was committed
}

const (
	committed = 1
	aborted   = 2
)

// rules are the production rules; a test replaces one to see that the search
// finds the mistake.
type rules struct {
	ways           []way
	restored       []int8 // worlds that may be
	source, target *table
	decide         func(asking) answered
	claims         bool // a world acts only under an incarnation that it claimed since its start
	names          bool // a commit wants the incarnation that the release names
	waits          bool // what is frozen isn't changed
	heads          bool // the agent goes on from the manifest's positions
	tells          bool // the agent is told

	redacted [moves]bool // moves by whose orders what is secret is left behind
	cuts     bool        // what a redacted move releases has nothing secret
	spares   bool        // the source keeps what it leaves out until it is gone
}

func production(ways []way, restored []int8) rules {
	known := make(map[asking]answered)
	decide := func(q asking) answered {
		a, ok := known[q]
		if !ok {
			a = decide(q)
			known[q] = a
		}
		return a
	}
	return rules{ways, restored, tabled(Source), tabled(Target), decide, true, true, true, true, true, [moves]bool{}, true, true}
}

// asking is a question to the registrar about a move that isn't decided, with what
// the register has of the home.
type asking struct {
	home, incarnation int8
	source, target    int8
	commit            bool // or abort
	released          int8 // the release's incarnation
}

// answered is what was decided, with the home since.
type answered struct {
	commit            bool
	home, incarnation int8
}

// decide asks the production rule.
func decide(q asking) answered {
	name := func(world int8) string { return string('a' + byte(world)) }
	order := identity.Order{Source: name(q.source), Target: name(q.target), Homes: []carnet.HomeID{{1}}, Until: time.Unix(1, 0)}
	question := register.Question{
		By: order.Target, Want: register.Abort, Order: &order,
		Release:    &identity.Release{Source: order.Source, Incarnations: []uint64{uint64(q.released)}},
		Acceptance: &identity.Acceptance{Target: order.Target},
	}
	if q.commit {
		question.Want = register.Commit
	}
	known := register.Known{Homes: map[carnet.HomeID]register.Home{{1}: {World: name(q.home), Incarnation: uint64(q.incarnation)}}}
	d, homes, err := register.Decide(known, question, time.Unix(0, 0))
	if err != nil || d == nil || len(homes) > 1 || (d.Outcome == identity.Commit) != (len(homes) == 1) {
		panic(fmt.Sprintf("%+v: %+v, %+v, %v", q, d, homes, err))
	}
	a := answered{d.Outcome == identity.Commit, q.home, q.incarnation}
	if a.commit {
		a.home, a.incarnation = int8(homes[0].World[0]-'a'), int8(homes[0].Incarnation)
	}
	return a
}

// lesser reports whether a world may not have what is secret.
func (r *rules) lesser(world int8) bool {
	for x, way := range r.ways {
		if r.redacted[x] && way.target == world {
			return true
		}
	}
	return false
}

// worldOf is where a life is lived.
func (r *rules) worldOf(l int8) int8 {
	if l == 0 {
		return 0
	}
	return r.ways[l-1].target
}

func (r *rules) lifeOf(s *scene, l int8) *life { return &s.world[r.worldOf(l)].life[l] }

// frozen reports whether a life is frozen for some move.
func (r *rules) frozen(s *scene, l int8) bool {
	for x, way := range r.ways {
		if way.life == l && s.world[way.source].source[x] == frozen {
			return true
		}
	}
	return false
}

// acts reports whether its world would let somebody change a life.
func (r *rules) acts(s *scene, l int8) bool {
	v := r.lifeOf(s, l)
	return v.here && (v.incarnation > 0 || !r.claims) && (!r.waits || !r.frozen(s, l))
}

// next lists what may happen next.
func (r *rules) next(s *scene, out []scene) []scene {
	add := func(change func(*scene)) {
		n := *s
		if change(&n); n != *s {
			out = append(out, n)
		}
	}
	for x := range r.ways {
		way := r.ways[x]
		add(func(n *scene) { r.hear(n, x, Ask) })
		if s.world[way.target].target[x] != none {
			add(func(n *scene) { n.ordered[x] = true; r.hear(n, x, Order) })
		}
		if s.ordered[x] {
			add(func(n *scene) { r.hear(n, x, Offer) })
			add(func(n *scene) { r.freeze(n, x) })
			add(func(n *scene) { r.decideAs(n, x, identity.Abort, 0) }) // its time is over, or somebody who may asks
		}
		add(func(n *scene) { r.callOff(n, x, &n.world[way.target].target[x], r.target) })
		add(func(n *scene) { r.callOff(n, x, &n.world[way.source].source[x], r.source) })
		for i := range s.releases[x] {
			if s.releases[x][i].signed {
				add(func(n *scene) { r.accept(n, x, int8(i)) })
			}
			if s.releases[x][i].accepted {
				add(func(n *scene) { r.decideAs(n, x, identity.Commit, int8(i)) })
			}
		}
		if s.decided[x].outcome != 0 {
			add(func(n *scene) { r.tellSource(n, x) })
			add(func(n *scene) { r.tellTarget(n, x) })
			add(func(n *scene) { r.tellAgent(n, x) })
		}
	}
	for l := range int8(1 + len(r.ways)) {
		add(func(n *scene) { r.claim(n, l) })
	}
	if s.restores > 0 && s.ofOld < 0 {
		for _, w := range r.restored {
			add(func(n *scene) { n.old, n.ofOld = n.world[w], w })
		}
	} else if s.restores > 0 {
		add(func(n *scene) { n.restores--; r.restore(n) })
	}
	if s.made < 1 {
		add(func(n *scene) { n.made++ })
	}
	add(r.send)
	return out
}

func take(t *table, at *code, e Event) bool {
	to := t[*at][e]
	changed := to.ok && to.next != *at
	if to.ok {
		*at = to.next
	}
	return changed
}

// hear has a target or source hear something about a move.
func (r *rules) hear(n *scene, x int, e Event) {
	way := r.ways[x]
	switch {
	case e == Ask || e == Order:
		take(r.target, &n.world[way.target].target[x], e)
	case r.lifeOf(n, way.life).here:
		take(r.source, &n.world[way.source].source[x], e)
	}
}

func (r *rules) callOff(_ *scene, _ int, at *code, t *table) { take(t, at, Cancel) }

// claim: a home raises its incarnation, or hears that it isn't home any more.
func (r *rules) claim(n *scene, l int8) {
	v := r.lifeOf(n, l)
	switch {
	case !v.here || v.incarnation > 0 || r.frozen(n, l):
	case n.home != r.worldOf(l):
		v.here = false
	default:
		n.incarnation++
		v.incarnation = n.incarnation
	}
}

// freeze: the manifest is fixed and the release signed.
func (r *rules) freeze(n *scene, x int) {
	way := r.ways[x]
	at, v := &n.world[way.source].source[x], r.lifeOf(n, way.life)
	if to := r.source[*at][Freeze]; !to.ok || *at == to.next || !v.here || r.claims && v.incarnation == 0 {
		return
	}
	made := release{signed: true, incarnation: v.incarnation, has: v.has, secret: v.secret}
	if r.redacted[x] && r.cuts {
		made.secret = 0
	}
	for i := range n.releases[x] {
		if was := &n.releases[x][i]; !was.signed || was.incarnation == made.incarnation && was.has == made.has && was.secret == made.secret {
			*was = release{true, was.accepted, made.incarnation, made.has, made.secret}
			if take(r.source, at, Freeze); r.redacted[x] && !r.spares {
				v.secret = 0
			}
			return
		}
	}
}

// accept: the target has everything that a release names, and signs.
func (r *rules) accept(n *scene, x int, i int8) {
	if take(r.target, &n.world[r.ways[x].target].target[x], Checked) {
		n.releases[x][i].accepted = true
	}
}

// decideAs has the registrar asked for a commit with one release, or for an abort.
func (r *rules) decideAs(n *scene, x int, want identity.Outcome, i int8) {
	if n.decided[x].outcome != 0 {
		return
	}
	q := asking{n.home, n.incarnation, r.ways[x].source, r.ways[x].target, want == identity.Commit, n.releases[x][i].incarnation}
	if !r.names {
		q.released = n.incarnation
	}
	n.decided[x].outcome = aborted
	if a := r.decide(q); a.commit {
		n.decided[x] = decided{committed, i}
		n.home, n.incarnation = a.home, a.incarnation
	}
}

func (d decided) event() Event {
	if d.outcome == committed {
		return Committed
	}
	return Aborted
}

func (r *rules) tellSource(n *scene, x int) {
	way := r.ways[x]
	if at := &n.world[way.source].source[x]; take(r.source, at, n.decided[x].event()) && *at == gone {
		r.lifeOf(n, way.life).here = false
	}
}

func (r *rules) tellTarget(n *scene, x int) {
	at := &n.world[r.ways[x].target].target[x]
	if !take(r.target, at, n.decided[x].event()) || *at != home {
		return
	}
	l := int8(1 + x)
	v := r.lifeOf(n, l)
	by := n.releases[x][n.decided[x].by]
	*v = life{here: true, has: by.has, secret: by.secret}
	if n.at == l {
		n.next = v.has // the agent asks where its stream stands
	}
}

// tellAgent: the agent hears of a commit from the source, which knows of it.
func (r *rules) tellAgent(n *scene, x int) {
	way := r.ways[x]
	if n.decided[x].outcome != committed || n.at != way.life || n.world[way.source].source[x] != gone || !r.tells {
		return
	}
	n.at = int8(1 + x)
	if r.heads {
		n.next = n.releases[x][n.decided[x].by].has
	}
}

// broken stands for a history with a hole or something twice.
const broken = -1

// send: the agent sends what it has to where it believes the avatar is. A world
// that doesn't hold it drops what comes.
func (r *rules) send(n *scene) {
	if n.next >= n.made {
		return
	}
	v := r.lifeOf(n, n.at)
	switch {
	case !v.here && n.at > 0 && n.world[r.worldOf(n.at)].target[n.at-1] != home:
		return // it waits until the avatar is there
	case v.here && v.has == n.next:
		if v.has++; !r.lesser(r.worldOf(n.at)) {
			v.secret++
		}
	case v.here:
		v.has = broken
	}
	n.next++
}

// restore puts a world's older copy back. The link then begins where the store
// stands (docs/design/link.md). Copies of targets from before the order came are
// left out: such a world needs the order again. So are copies from before an
// avatar arrived: what came with it is in the world's backup, or nowhere.
func (r *rules) restore(n *scene) {
	w := n.ofOld
	for x := range r.ways {
		if r.ways[x].target != w {
			continue
		}
		if was, is := n.old.target[x], n.world[w].target[x]; was != is && (was == none || was == asked) {
			return
		}
	}
	n.world[w] = n.old
	for l := range n.world[w].life {
		n.world[w].life[l].incarnation = 0
	}
	if v := r.lifeOf(n, n.at); r.worldOf(n.at) == w && v.here {
		n.next = v.has
	}
}

// settle lets all go well from a scene: everybody is there, and everything is
// heard.
func (r *rules) settle(s scene) scene {
	for before := (scene{}); before != s; {
		before = s
		for x, way := range r.ways {
			for i := range int8(2) {
				if s.releases[x][i].accepted {
					r.decideAs(&s, x, identity.Commit, i)
				}
			}
			if s.ordered[x] {
				r.decideAs(&s, x, identity.Abort, 0)
				r.tellSource(&s, x)
				r.tellTarget(&s, x)
				r.tellAgent(&s, x)
			} else {
				take(r.target, &s.world[way.target].target[x], Cancel)
			}
			take(r.source, &s.world[way.source].source[x], Cancel)
		}
		for l := range int8(1 + len(r.ways)) {
			r.claim(&s, l)
		}
		r.send(&s)
	}
	return s
}

// wrong says what may not be in a scene.
func (r *rules) wrong(s *scene) string {
	for l := range int8(1 + len(r.ways)) {
		if r.acts(s, l) && s.home != r.worldOf(l) {
			return fmt.Sprintf("world %d would change the avatar, and the register says that it is in world %d", r.worldOf(l), s.home)
		}
		v := r.lifeOf(s, l)
		switch {
		case v.here && v.has == broken:
			return fmt.Sprintf("the history in world %d has a hole, or something twice", r.worldOf(l))
		case v.here && v.secret > 0 && r.lesser(r.worldOf(l)):
			return fmt.Sprintf("world %d has what was to be left behind", r.worldOf(l))
		case v.here && l == 0 && v.secret != v.has:
			return "what a move was to leave behind is gone where the avatar still is"
		}
	}
	end := r.settle(*s)
	var living []int8
	for l := range int8(1 + len(r.ways)) {
		if r.lifeOf(&end, l).here {
			living = append(living, l)
		}
	}
	if len(living) != 1 || r.worldOf(living[0]) != end.home {
		return fmt.Sprintf("in the end the avatar lives as %v, and the register says that it is in world %d", living, end.home)
	}
	for x, way := range r.ways {
		src, tgt := states[end.world[way.source].source[x]], states[end.world[way.target].target[x]]
		if src != None && !src.Over() || tgt != None && !tgt.Over() {
			return fmt.Sprintf("move %d doesn't end: its source is %q, its target %q", x, src, tgt)
		}
	}
	if has := r.lifeOf(&end, living[0]).has; has != end.made || end.at != living[0] {
		return fmt.Sprintf("in the end the home has %d of %d measurements, and the agent sends to life %d", has, end.made, end.at)
	}
	return ""
}

// search visits every scene that can be reached, and returns what is wrong with
// one.
func (r *rules) search() (visited int, wrong string) {
	start := scene{ofOld: -1, restores: 1, incarnation: 1}
	start.world[0].life[0] = life{here: true}
	return visit(start, r.next, r.wrong)
}

// Whatever is lost, repeated or late, whoever calls a move off, whichever store is
// restored from an older copy: at most one world would change the avatar, and it
// is the one that the register names; in the end both worlds agree with the
// register, and the home has everything that the thing has said, once.
func TestSearchFindsNothingInTheRules(t *testing.T) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := production(c.ways, c.restored)
			if testing.Short() { // a tenth of the scenes
				r.restored = nil
			}
			visited, wrong := r.search()
			if wrong != "" {
				t.Error(wrong)
			}
			enough(t, visited)
		})
	}
}

// The same of a move that leaves behind what its target may not have: that has none of
// it, ever, and where the avatar still is all of it is there.
func TestSearchFindsNothingInARedactedMove(t *testing.T) {
	for _, name := range []string{"and on", "to two worlds"} {
		r := production(cases[name].ways, cases[name].restored)
		r.redacted[0] = true
		if visited, wrong := r.search(); wrong != "" {
			t.Errorf("%s: %s", name, wrong)
		} else {
			enough(t, visited)
		}
	}
}

// enough fails if a search has seen so few scenes that it says nothing.
func enough(t *testing.T, visited int) {
	t.Helper()
	t.Logf("%d scenes", visited)
	if visited < 1000 {
		t.Errorf("the search has seen %d scenes only", visited)
	}
}

// The search finds a mistake in each rule.
func TestSearchFindsMistakes(t *testing.T) {
	instead := func(next func(State, Event) (State, bool), s State, e Event, then State, ok bool) *table {
		return tabled(func(is State, ev Event) (State, bool) {
			if is == s && ev == e {
				return then, ok
			}
			return next(is, ev)
		})
	}
	for name, c := range map[string]struct {
		in      string // of cases
		mistake func(*rules)
	}{
		"a world acts without a claim":              {"and on", func(r *rules) { r.claims = false }},
		"a release of before a claim is committed":  {"and on", func(r *rules) { r.names = false }},
		"incarnations come again":                   {"there, back, and to another", func(r *rules) { r.decide = again(r.decide) }},
		"what is frozen is changed":                 {"and on", func(r *rules) { r.waits = false }},
		"the agent goes on from where it sent":      {"and on", func(r *rules) { r.heads = false }},
		"a redacted release has everything":         {"and on", func(r *rules) { r.redacted[0], r.cuts = true, false }},
		"a source drops what it leaves out":         {"and on", func(r *rules) { r.redacted[0], r.spares = true, false }},
		"the agent isn't told":                      {"and on", func(r *rules) { r.tells = false }},
		"the registrar commits from any home":       {"to two worlds", func(r *rules) { r.decide = always }},
		"a prepared target is called off":           {"and on", func(r *rules) { r.target = instead(Target, Prepared, Cancel, Dropped, true) }},
		"a copying target drops without a decision": {"and on", func(r *rules) { r.target = instead(Target, Copying, Cancel, Dropped, true) }},
		"a target that leaves heeds no commit":      {"and on", func(r *rules) { r.target = instead(Target, Leaving, Committed, Leaving, false) }},
		"a prepared target passes over an abort":    {"and on", func(r *rules) { r.target = instead(Target, Prepared, Aborted, Prepared, true) }},
		"a frozen source is called off":             {"and on", func(r *rules) { r.source = instead(Source, Frozen, Cancel, Kept, true) }},
		"a frozen source passes over an abort":      {"and on", func(r *rules) { r.source = instead(Source, Frozen, Aborted, Frozen, true) }},
		"a source that kept it heeds no commit":     {"and on", func(r *rules) { r.source = instead(Source, Kept, Committed, Kept, false) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := production(cases[c.in].ways, cases[c.in].restored)
			c.mistake(&r)
			if _, wrong := r.search(); wrong == "" {
				t.Error("the search finds nothing")
			} else {
				t.Logf("%.120s", wrong)
			}
		})
	}
}

// always is a registrar that looks neither at the home nor at the incarnation.
func always(q asking) answered { return answered{q.commit, q.target, q.incarnation + 1} }

// again is a registrar that begins to count anew at each commit.
func again(decide func(asking) answered) func(asking) answered {
	return func(q asking) answered {
		a := decide(q)
		if a.commit {
			a.incarnation = 1
		}
		return a
	}
}
