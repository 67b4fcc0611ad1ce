package crossing

import (
	"fmt"
	"testing"
)

// message is on its way between the two sides; each may be lost, come twice, or
// late.
type message uint8

const (
	mAsk     message = 1 << iota // taker → giver
	mYes                         // giver → taker
	mNo                          // giver → taker
	mStream                      // giver → taker, over the link
	mUnknown                     // taker → giver: the stream is refused for good
	mOver                        // giver → taker, over the link
	mHeard                       // taker → giver: the end was heard
	mStop                        // taker → giver
)

// side is what one side has stored.
type side struct {
	state State
	told  bool // at the giver: the taker has heard of the end
}

// scene is a state of the whole: comparable, so that each is visited once.
type scene struct {
	taker, giver         side
	oldTaker, oldGiver   side // copies that may be restored
	copied               bool // both were made
	permitted            bool // the giver's grant, mandate and peering hold
	net                  message
	faults               int8 // restores left
	takerEnded, giverEnd bool // somebody's word was given, and was not undone by a restore
}

// rules are the production rules, one of which a test replaces to see that the
// search finds the mistake.
type rules struct {
	next func(State, heard) (State, bool)
	// tells: a giver that has ended a share tells of it until it was heard.
	tells bool
	// refuses: a taker refuses streams of shares that it doesn't know, for good.
	refuses bool
	// ends: a giver ends a share of which the taker takes no stream.
	ends bool
	// asks: a taker asks again until it has an answer.
	asks bool
}

var production = rules{next: State.next, tells: true, refuses: true, ends: true, asks: true}

// steps lists what may happen next.
func (r rules) steps(s scene) (out []scene) {
	add := func(change func(*scene)) {
		n := s
		change(&n)
		out = append(out, n)
	}
	send := func(m message) { add(func(n *scene) { n.net |= m }) }
	// What each side does by itself.
	if s.taker.state == None && !s.takerEnded {
		add(func(n *scene) { n.taker.state = Asked })
	}
	if s.taker.state == Asked {
		send(mAsk)
	}
	if s.taker.state == Taking {
		send(mAsk) // a renewal
	}
	if s.giver.state == Giving {
		send(mStream)
	}
	if r.tells && s.giver.state == Ended && !s.giver.told {
		send(mOver)
	}
	// People's words, and what a share lives by.
	if next, ok := r.next(s.taker.state, over); ok && s.taker.state != Ended {
		add(func(n *scene) { n.taker.state, n.takerEnded, n.net = next, true, n.net|mStop })
	}
	if next, ok := r.next(s.giver.state, over); ok && s.giver.state != Ended {
		add(func(n *scene) { n.giver.state, n.giverEnd = next, true })
	}
	if s.permitted {
		add(func(n *scene) {
			n.permitted = false
			if next, ok := r.next(n.giver.state, over); ok {
				n.giver.state = next
			}
		})
	}
	// Copies of the stores, and their return.
	if !s.copied {
		add(func(n *scene) { n.copied, n.oldTaker, n.oldGiver = true, s.taker, s.giver })
	} else if s.faults > 0 {
		add(func(n *scene) { n.taker, n.faults, n.takerEnded = s.oldTaker, s.faults-1, false })
		add(func(n *scene) { n.giver, n.faults, n.giverEnd = s.oldGiver, s.faults-1, false })
	}
	// Messages come, once or twice, or are lost.
	for m := mAsk; m <= mStop && m > 0; m <<= 1 {
		if s.net&m == 0 {
			continue
		}
		add(func(n *scene) { n.net &^= m })
		for _, keep := range []bool{false, true} {
			add(func(n *scene) {
				if !keep {
					n.net &^= m
				}
				r.hear(n, m)
			})
		}
	}
	return out
}

// hear has a message come.
func (r rules) hear(s *scene, m message) {
	switch m {
	case mAsk:
		next, ok := r.next(s.giver.state, question)
		if ok && s.permitted {
			s.giver.state, s.net = next, s.net|mYes
		} else {
			s.net |= mNo
		}
	case mYes:
		if next, ok := r.next(s.taker.state, yes); ok {
			s.taker.state = next
		}
	case mNo:
		if next, ok := r.next(s.taker.state, no); ok {
			s.taker.state = next
		}
	case mStream:
		if _, ok := r.next(s.taker.state, stream); !ok && r.refuses {
			s.net |= mUnknown
		}
	case mUnknown, mStop:
		if m == mUnknown && !r.ends {
			return
		}
		if next, ok := r.next(s.giver.state, over); ok {
			s.giver.state = next
		}
	case mOver:
		if next, ok := r.next(s.taker.state, over); ok {
			s.taker.state = next
		}
		s.net |= mHeard
	case mHeard:
		if s.giver.state == Ended {
			s.giver.told = true
		}
	}
}

// settle lets all go well from a scene: nothing is lost any more, and nobody says
// anything new.
func (r rules) settle(s scene) scene {
	for range 8 {
		s.net = 0
		if r.asks && (s.taker.state == Asked || s.taker.state == Taking) {
			r.hear(&s, mAsk)
		}
		if s.giver.state == Giving {
			r.hear(&s, mStream)
		}
		if r.tells && s.giver.state == Ended && !s.giver.told {
			r.hear(&s, mOver)
		}
		for _, m := range []message{mYes, mNo, mUnknown, mHeard} {
			if s.net&m != 0 {
				r.hear(&s, m)
			}
		}
	}
	return s
}

// search visits every scene that can be reached, and returns what is wrong with
// one.
func (r rules) search(faults int8) (visited int, wrong string) {
	start := scene{permitted: true, faults: faults}
	seen := map[scene]bool{start: true}
	for queue := []scene{start}; len(queue) > 0; {
		s := queue[0]
		queue = queue[1:]
		for _, n := range r.steps(s) {
			if seen[n] {
				continue
			}
			if why := r.wrong(s, n); why != "" {
				return len(seen), fmt.Sprintf("%s: from %+v to %+v", why, s, n)
			}
			seen[n] = true
			queue = append(queue, n)
		}
	}
	return len(seen), ""
}

// wrong says what may not be after a step.
func (r rules) wrong(before, s scene) string {
	restored := s.faults < before.faults
	switch {
	case !restored && before.giver.state == Ended && s.giver.state != Ended:
		return "the giver gives again what has ended"
	case !restored && before.taker.state == Ended && s.taker.state != Ended:
		return "the taker takes again what has ended"
	case s.giver.state == Giving && !restored && before.giver.state != Giving && !before.permitted:
		return "the giver gives what isn't permitted"
	}
	end := r.settle(s)
	both := end.taker.state == Taking && end.giver.state == Giving
	neither := (end.taker.state == Ended || end.taker.state == None) && (end.giver.state == Ended || end.giver.state == None)
	switch {
	case !both && !neither:
		return fmt.Sprintf("the sides don't agree in the end: the taker is %q, the giver %q", end.taker.state, end.giver.state)
	case both && (s.takerEnded || s.giverEnd):
		return "a share goes on that somebody has ended"
	}
	return ""
}

// Whatever is lost, repeated or late, whoever ends a share and whichever side is
// restored from an older copy: nothing that has ended begins again, and in the end
// both sides say the same.
func TestSearchFindsNothingInTheRules(t *testing.T) {
	visited, wrong := production.search(2)
	if wrong != "" {
		t.Error(wrong)
	}
	if visited < 1000 {
		t.Errorf("only %d scenes were visited", visited)
	}
	t.Logf("%d scenes", visited)
}

// The search finds a mistake in each rule.
func TestSearchFindsMistakes(t *testing.T) {
	table := func(change func(State, heard) (State, bool, bool)) func(State, heard) (State, bool) {
		return func(s State, h heard) (State, bool) {
			if next, ok, changed := change(s, h); changed {
				return next, ok
			}
			return s.next(h)
		}
	}
	for name, mistake := range map[string]func(*rules){
		"an ended share is given again": func(r *rules) {
			r.next = table(func(s State, h heard) (State, bool, bool) { return Giving, true, s == Ended && h == question })
		},
		"a late yes revives a share": func(r *rules) {
			r.next = table(func(s State, h heard) (State, bool, bool) { return Taking, true, s == Ended && h == yes })
		},
		"a no is passed over by who takes": func(r *rules) {
			r.next = table(func(s State, h heard) (State, bool, bool) { return s, true, s == Taking && h == no })
		},
		"a stream of an ended share is taken": func(r *rules) {
			r.next = table(func(s State, h heard) (State, bool, bool) { return s, true, s == Ended && h == stream })
		},
		"an end isn't told":                      func(r *rules) { r.tells, r.asks = false, false },
		"streams of unknown shares are taken":    func(r *rules) { r.refuses = false },
		"a refused stream doesn't end the share": func(r *rules) { r.ends = false },
		"a question isn't put again":             func(r *rules) { r.asks = false },
	} {
		t.Run(name, func(t *testing.T) {
			r := production
			mistake(&r)
			if _, wrong := r.search(2); wrong == "" {
				t.Error("the search finds nothing")
			}
		})
	}
}
