package move

import (
	"fmt"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/register"
)

// The search of recoveries: an avatar of world 0, which may go and come back at any
// time; two recoveries of it, to the worlds 1 and 2; and a move of it to world 1. Of
// what the search of moves covers (histories, things, older copies) there is nothing
// here.
//
// Time is one event: the waiting time of a petition passes. It can't while the source
// is there, and could look: it looks far more often.

// waning is a recovery.
type waning struct {
	target   code
	asked    int8 // incarnation of the home, as its owner signs it
	accepted bool
	decided  uint8 // committed, aborted
}

// loss is a state of the whole.
type loss struct {
	up          bool // world 0 runs
	here        bool // the avatar is at it, as far as it knows
	incarnation int8 // what it has claimed since its start, or since it let go of a move; 0: nothing
	farewell    int8 // the incarnation under which it has said farewell; 0: it hasn't

	home, register int8 // in the register: the world, and the incarnation
	petition       int8 // of which recovery, from 1 on; 0: none
	ripe           bool // its waiting time is over

	recovery [2]waning

	source, target code // of the move
	released       int8 // its incarnation
	moved          uint8
}

// lossRules are the production rules, some of which a test replaces.
type lossRules struct {
	source, target *table
	decide         func(register.Known, register.Question, time.Time) (*identity.Decision, []register.Home, error)
	claims         bool // a source that starts acts only once it has claimed
	again          bool // one that let go of a move claims anew before it acts
	leaves         bool // a claim that is refused makes the avatar leave
	objects        bool // a source that is there ends a petition in time
	still          bool // after a farewell nothing is changed

	answers map[question]answer // of the registrar, which depends on nothing else
}

// question is all that a registrar's answer about a recovery depends on.
type question struct {
	recovery                           int8
	want                               register.Want
	farewell                           int8 // that is shown; 0: none
	asked, home, incarnation, petition int8
	ripe                               bool
}

// answer is what changes by it.
type answer struct {
	home, incarnation, petition int8
	ripe                        bool
	decided                     uint8
}

func production2() lossRules {
	return lossRules{
		source: tabled(Source), target: tabled(Target), decide: register.Decide, claims: true, again: true, leaves: true, objects: true, still: true,
		answers: make(map[question]answer),
	}
}

func (r *lossRules) frozen(s *loss) bool { return s.source == frozen }

// acts reports whether world 0 would let somebody change the avatar.
func (r *lossRules) acts(s *loss) bool {
	return s.up && s.here && (s.incarnation > 0 || !r.claims) && !r.frozen(s) && (s.farewell == 0 || !r.still)
}

func worldName(w int8) string { return string('a' + byte(w)) }

// ask puts a question about a recovery to the registrar.
func (r *lossRules) ask(n *loss, i int8, want register.Want, farewell bool) {
	v := &n.recovery[i]
	if v.decided != 0 {
		return
	}
	about := question{i, want, 0, v.asked, n.home, n.register, n.petition, n.ripe}
	if farewell {
		about.farewell = n.farewell
	}
	a, known := r.answers[about]
	if !known {
		after := *n
		r.answer(&after, i, want, farewell)
		a = answer{after.home, after.register, after.petition, after.ripe, after.recovery[i].decided}
		r.answers[about] = a
	}
	n.home, n.register, n.petition, n.ripe, v.decided = a.home, a.incarnation, a.petition, a.ripe, a.decided
}

// answer is what the registrar makes of a question.
func (r *lossRules) answer(n *loss, i int8, want register.Want, farewell bool) {
	v := &n.recovery[i]
	now, home := time.Unix(1000, 0), carnet.HomeID{1}
	manifest := carnet.Fingerprint{byte(1 + i)}
	order := identity.Order{
		Crossing: carnet.CrossingID{byte(1 + i)}, Source: worldName(0), Target: worldName(1 + i), Homes: []carnet.HomeID{home}, Made: time.Unix(int64(1+i), 0), Until: time.Unix(2000, 0),
		Recovers: &identity.Recovers{Manifest: manifest, Incarnations: []uint64{uint64(v.asked)}, Chains: []uint64{0}},
	}
	q := register.Question{By: order.Target, Crossing: order.Crossing, Want: want, Order: &order, Acceptance: &identity.Acceptance{Target: order.Target, Crossing: order.Crossing, Manifest: manifest}}
	if farewell {
		q.Farewell = &identity.Farewell{Source: order.Source, Home: home, Incarnation: uint64(n.farewell), Manifest: manifest}
	}
	h := register.Home{ID: home, World: worldName(n.home), Incarnation: uint64(n.register)}
	if n.petition > 0 {
		until := now.Add(time.Hour)
		if n.ripe {
			until = now
		}
		h.Recovery = identity.Petitioned{Crossing: carnet.CrossingID{byte(n.petition)}, Target: worldName(n.petition), Signed: time.Unix(int64(n.petition), 0), Asked: now, Until: until}
	}
	d, homes, err := r.decide(register.Known{Wait: time.Hour, Homes: map[carnet.HomeID]register.Home{home: h}}, q, now)
	if err != nil {
		return // a refusal decides nothing
	}
	r.take(n, homes)
	switch {
	case d == nil:
	case d.Outcome == identity.Commit:
		v.decided = committed
	default:
		v.decided = aborted
	}
}

// take has the register's homes stand as they do since a change.
func (r *lossRules) take(n *loss, homes []register.Home) {
	for _, h := range homes {
		n.home, n.register = int8(h.World[0]-'a'), int8(h.Incarnation)
		if is := int8(h.Recovery.Crossing[0]); is != n.petition {
			n.petition, n.ripe = is, false
		}
	}
}

// decideMove has the registrar decide the move.
func (r *lossRules) decideMove(n *loss, commit bool) {
	if n.moved != 0 {
		return
	}
	a := decide(asking{n.home, n.register, 0, 1, commit, n.released})
	if n.moved = aborted; a.commit {
		n.moved, n.home, n.register, n.petition, n.ripe = committed, a.home, a.incarnation, 0, false
	}
}

// claim: the source shows itself, or hears that it is home no more.
func (r *lossRules) claim(n *loss) {
	if !n.up || !n.here || n.incarnation > 0 || r.frozen(n) || n.farewell > 0 {
		return
	}
	r.show(n)
}

func (r *lossRules) show(n *loss) {
	h := register.Home{World: worldName(n.home), Incarnation: uint64(n.register)}
	now, err := register.Claim(&h, carnet.HomeID{}, worldName(0))
	switch {
	case err == nil:
		n.register, n.incarnation, n.petition, n.ripe = int8(now.Incarnation), int8(now.Incarnation), 0, false
	case r.leaves:
		n.here = false
	}
}

// look: the source asks how its home stands.
func (r *lossRules) look(n *loss) {
	switch {
	case !n.up || !n.here:
	case n.home != 0 && r.leaves:
		n.here = r.frozen(n) // one that is frozen waits for its move's decision
	case n.petition > 0 && !r.frozen(n) && n.farewell == 0:
		r.show(n)
	}
}

func (r *lossRules) next(s *loss, out []loss) []loss {
	add := func(change func(*loss)) {
		n := *s
		if change(&n); n != *s && n.register <= 5 { // so many claims
			out = append(out, n)
		}
	}
	add(func(n *loss) { n.up = false })
	add(func(n *loss) {
		if !n.up {
			n.up, n.incarnation = true, 0
		}
	})
	add(r.claim)
	add(r.look)
	add(func(n *loss) {
		if n.up && n.here && n.incarnation > 0 && !r.frozen(n) {
			n.farewell = n.incarnation
		}
	})
	add(func(n *loss) {
		there := n.up && n.here && !r.frozen(n) && n.farewell == 0
		n.ripe = n.petition > 0 && (n.ripe || !there || !r.objects)
	})
	for i := range int8(2) {
		v := &s.recovery[i]
		if s.home == 0 && v.target == none { // its owner is asked under the incarnation of then
			add(func(n *loss) { take(r.target, &n.recovery[i].target, Ask); n.recovery[i].asked = n.register })
		}
		if v.target == asked {
			add(func(n *loss) { take(r.target, &n.recovery[i].target, Order) })
		}
		if v.target == copying {
			add(func(n *loss) { take(r.target, &n.recovery[i].target, Checked); n.recovery[i].accepted = true })
		}
		add(func(n *loss) { take(r.target, &n.recovery[i].target, Cancel) })
		if v.accepted {
			add(func(n *loss) { r.ask(n, i, register.Commit, false) })
			if s.farewell > 0 {
				add(func(n *loss) { r.ask(n, i, register.Commit, true) })
			}
		}
		if v.target != none && v.target != asked {
			add(func(n *loss) { r.ask(n, i, register.Abort, false) })
		}
		add(func(n *loss) { r.tell(n, i) })
	}
	// The move.
	add(func(n *loss) {
		if n.up && n.here && n.farewell == 0 && take(r.source, &n.source, Offer) {
			take(r.target, &n.target, Ask)
			take(r.target, &n.target, Order)
		}
	})
	add(func(n *loss) {
		if n.up && n.here && n.incarnation > 0 && n.farewell == 0 && n.source != none && take(r.source, &n.source, Freeze) {
			n.released = n.incarnation
		}
	})
	if s.released > 0 {
		add(func(n *loss) { take(r.target, &n.target, Checked); r.decideMove(n, true) })
	}
	if s.source != none {
		add(func(n *loss) { r.decideMove(n, false) })
	}
	add(r.tellMove)
	return out
}

func (r *lossRules) tell(n *loss, i int8) {
	if v := &n.recovery[i]; v.decided != 0 {
		take(r.target, &v.target, decided{outcome: v.decided}.event())
	}
}

func (r *lossRules) tellMove(n *loss) {
	if n.moved == 0 {
		return
	}
	e := decided{outcome: n.moved}.event()
	take(r.target, &n.target, e)
	if n.up && take(r.source, &n.source, e) {
		if n.source == gone {
			n.here = false
		} else if r.again {
			n.incarnation = 0
		}
	}
}

// settle lets all go well. back: the source comes back, too.
func (r *lossRules) settle(s loss, back bool) loss {
	s.up = s.up && back || back
	if back {
		s.incarnation = 0 // it begins anew
	}
	before := loss{}
	for round := 0; before != s && round < 40; round++ { // a mistake may go on for ever
		before = s
		if s.source != none {
			r.decideMove(&s, s.released > 0)
		}
		r.tellMove(&s)
		r.claim(&s)
		r.look(&s)
		s.ripe = s.ripe || s.petition > 0 && !(s.up && s.here && !r.frozen(&s) && s.farewell == 0)
		for i := range int8(2) {
			v := &s.recovery[i]
			switch {
			case v.accepted:
				r.ask(&s, i, register.Commit, false)
			case v.target == asked:
				take(r.target, &v.target, Cancel)
			case v.target != none:
				r.ask(&s, i, register.Abort, false)
			}
			r.tell(&s, i)
		}
	}
	return s
}

// wrong says what may not be.
func (r *lossRules) wrong(s *loss) string {
	if r.acts(s) && s.home != 0 {
		return fmt.Sprintf("world 0 would change the avatar, and the register says that it is in world %d", s.home)
	}
	for _, back := range []bool{true, false} {
		end := r.settle(*s, back)
		var living []int8
		if end.up && end.here {
			living = append(living, 0)
		}
		if end.target == home {
			living = append(living, 1)
		}
		for i := range int8(2) {
			v := &end.recovery[i]
			if v.target == home {
				living = append(living, 1+i)
			}
			if st := states[v.target]; st != None && !st.Over() {
				return fmt.Sprintf("recovery %d doesn't end: its target is %q; back: %t", i, st, back)
			}
		}
		// A source that never comes back takes the avatar with it, if nobody recovered it.
		if lost := !back && end.home == 0; lost && len(living) > 0 || !lost && (len(living) != 1 || living[0] != end.home) {
			return fmt.Sprintf("in the end the avatar lives in %v, and the register says in world %d; back: %t", living, end.home, back)
		}
	}
	return ""
}

func (r *lossRules) search() (visited int, wrong string) {
	start := loss{up: true, here: true, register: 1}
	return visit(start, r.next, r.wrong)
}

// Wherever the source is, whenever it comes back, whoever recovers the avatar or moves
// it: at most one world would change it, which is the one that the register names, and
// everything ends.
func TestTheSearchOfRecoveriesFindsNothing(t *testing.T) {
	r := production2()
	visited, wrong := r.search()
	if wrong != "" {
		t.Error(wrong)
	}
	enough(t, visited)
}

func TestTheSearchOfRecoveriesFindsMistakes(t *testing.T) {
	instead := func(next func(State, Event) (State, bool), s State, e Event, then State, ok bool) *table {
		return tabled(func(is State, ev Event) (State, bool) {
			if is == s && ev == e {
				return then, ok
			}
			return next(is, ev)
		})
	}
	type decision = func(register.Known, register.Question, time.Time) (*identity.Decision, []register.Home, error)
	before := func(change func(*register.Known, *register.Question)) decision {
		return func(k register.Known, q register.Question, now time.Time) (*identity.Decision, []register.Home, error) {
			change(&k, &q)
			return register.Decide(k, q, now)
		}
	}
	for name, mistake := range map[string]func(*lossRules){
		"a source acts without a claim":               func(r *lossRules) { r.claims = false },
		"a source that let go of a move acts at once": func(r *lossRules) { r.again = false },
		"a source whose claim is refused stays":       func(r *lossRules) { r.leaves = false },
		"a source that is there doesn't object":       func(r *lossRules) { r.objects = false },
		"a source goes on after a farewell":           func(r *lossRules) { r.still = false },
		"a prepared target is called off":             func(r *lossRules) { r.target = instead(Target, Prepared, Cancel, Dropped, true) },
		"a target passes over an abort":               func(r *lossRules) { r.target = instead(Target, Prepared, Aborted, Prepared, true) },
		"a target passes over a commit":               func(r *lossRules) { r.target = instead(Target, Prepared, Committed, Prepared, false) },
		"the registrar doesn't wait": func(r *lossRules) {
			r.decide = before(func(k *register.Known, _ *register.Question) {
				for id, h := range k.Homes {
					h.Recovery.Until = time.Unix(0, 0)
					k.Homes[id] = h
				}
			})
		},
		"the registrar passes over claims": func(r *lossRules) {
			r.decide = before(func(k *register.Known, q *register.Question) {
				for _, h := range k.Homes {
					q.Order.Recovers.Incarnations = []uint64{h.Incarnation}
				}
			})
		},
		"the registrar recovers from any home": func(r *lossRules) {
			r.decide = before(func(k *register.Known, q *register.Question) {
				for id, h := range k.Homes {
					h.World, q.Order.Recovers.Incarnations = q.Order.Source, []uint64{h.Incarnation}
					k.Homes[id] = h
				}
			})
		},
		"a second recovery waits for ever": func(r *lossRules) {
			r.decide = func(k register.Known, q register.Question, now time.Time) (*identity.Decision, []register.Home, error) {
				for _, h := range k.Homes {
					if there := h.Recovery.Crossing; q.Want == register.Commit && there != (carnet.CrossingID{}) && there != q.Crossing {
						return nil, nil, carnet.Errorf(carnet.Conflict, "another recovery is under way")
					}
				}
				return register.Decide(k, q, now)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := production2()
			mistake(&r)
			if _, wrong := r.search(); wrong == "" {
				t.Error("the search finds nothing")
			} else {
				t.Logf("%.160s", wrong)
			}
		})
	}
}
