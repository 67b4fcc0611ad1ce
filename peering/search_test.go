package peering

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

// The state-space search. A pair is what is durable at an inviter and at an
// accepter, and the messages that were ever sent: each may come again, late, or
// never. All that a side does is a function of what is durable there, so that a
// restart at any point is to do nothing, or to do the last thing again: both are
// among the steps. step lists everything that can happen next; both sides decide
// with Peering.Next, the function of the registry, and rules holds it, so that a
// test can plant a mistake and see the search find it.

type rules func(Peering, Event) (Peering, error)

type pair struct {
	inviter, accepter Peering
	sent              []string // messages that are out: "acceptance", "forged", "confirmation", "other"
	clock             int      // 0, then past the invitation's end, then past the terms'
	compared          [2]bool  // whether the operator of a side ever saw the other's words to be its own
	removed           [2]bool
	trace             []string
}

var (
	searchStart = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	clocks      = []time.Time{searchStart, searchStart.Add(2 * time.Hour), searchStart.Add(400 * 24 * time.Hour)}
)

func (p *pair) now() time.Time { return clocks[p.clock] }

func searchPeer(name carnet.PartyID, role identity.Role, n byte) identity.Peer {
	none := carnet.Public
	p := identity.Peer{Party: name, Role: role, Pin: carnet.Fingerprint{n}, Key: make(ed25519.PublicKey, ed25519.PublicKeySize)}
	p.Key[0] = n
	if role == identity.World {
		p.Link, p.Purpose, p.Sensitivity = "localhost:1", "play", &none
	}
	return p
}

// searchTerms are those that both sides mean, and those of somebody who got hold
// of the invitation.
func searchTerms() (meant, forged, invited Terms) {
	public := carnet.Public
	invited = Terms{
		Invitation: InvitationID{1}, Inviter: searchPeer("arena", identity.World, 1), Scope: []Scope{R1}, Purposes: []string{"play"},
		Sensitivity: &public, NotAfter: searchStart.Add(365 * 24 * time.Hour),
	}
	honest, thief := searchPeer("p-hub", identity.Things, 2), searchPeer("p-thief", identity.Things, 3)
	meant, forged = invited, invited
	meant.Accepter, forged.Accepter = &honest, &thief
	return meant, forged, invited
}

func newPair() *pair {
	meant, _, invited := searchTerms()
	return &pair{
		inviter: Peering{Name: "watches", State: Invited, Inviter: true, Terms: invited, Until: searchStart.Add(time.Hour), Secret: "s"},
		accepter: Peering{Name: "gym", State: Accepted, Terms: meant, Until: searchStart.Add(time.Hour), Secret: "s",
			ReplyTo: &ReplyTo{URL: "https://arena:1"}, Acceptance: "acceptance"},
	}
}

func (p *pair) clone() *pair {
	c := *p
	c.sent, c.trace = slices.Clone(p.sent), slices.Clone(p.trace)
	return &c
}

func (p *pair) key() string {
	text, err := json.Marshal([]any{p.inviter, p.accepter, p.clock, p.sent, p.compared, p.removed})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (p *pair) send(message string) {
	if !slices.Contains(p.sent, message) {
		p.sent = append(p.sent, message)
		slices.Sort(p.sent)
	}
}

// broken says which property doesn't hold.
func (p *pair) broken(next rules) string {
	meant, _, _ := searchTerms()
	for side, q := range []Peering{p.inviter, p.accepter} {
		name := []string{"inviter", "accepter"}[side]
		if !q.Allows(R1, p.now()) {
			continue
		}
		switch {
		case !p.compared[side]:
			return "the " + name + " is active and nobody compared the words there"
		case q.Terms.Fingerprint() != meant.Fingerprint():
			return "the " + name + " is active by other terms than those that were compared"
		case q.Acceptance != "acceptance" || q.Confirmation != "confirmation":
			return "the " + name + " is active without both signatures"
		case p.removed[side]:
			return "the " + name + " is active after its removal"
		case !p.now().Before(meant.NotAfter):
			return "the " + name + " is active after the end of the terms"
		}
	}
	if p.clock == 2 {
		for _, q := range []Peering{p.inviter, p.accepter} {
			if q, err := next(q, Event{Kind: Tick, Now: p.now()}); err == nil && (q.State == Active || q.State == Suspended) {
				return "time doesn't end " + string(q.Name)
			}
		}
	}
	return ""
}

// steps are all that can happen next.
func (p *pair) steps(next rules) (all []*pair) {
	meant, forged, _ := searchTerms()
	to := func(what string, inviter bool, e Event, after func(*pair, Peering)) {
		c := p.clone()
		side := &c.accepter
		if inviter {
			side = &c.inviter
		}
		e.Now = p.now()
		q, err := next(*side, e)
		if err != nil {
			return
		}
		*side = q
		if after != nil {
			after(c, q)
		}
		c.trace = append(c.trace, what)
		all = append(all, c)
	}
	if p.accepter.awaits() && !slices.Contains(p.sent, "acceptance") {
		c := p.clone()
		c.send("acceptance")
		c.trace = append(c.trace, "the acceptance leaves")
		all = append(all, c)
	}
	for message, what := range map[string]string{"forged": "a thief accepts, too", "other": "the inviter confirms other terms"} {
		if !slices.Contains(p.sent, message) {
			c := p.clone()
			c.send(message)
			c.trace = append(c.trace, what)
			all = append(all, c)
		}
	}
	confirms := func(c *pair, q Peering) { // whoever posts is answered with what is durable
		if q.Confirmation != "" {
			c.send(map[bool]string{true: q.Confirmation, false: "other"}[q.Terms.Fingerprint() == meant.Fingerprint()])
		}
	}
	for _, m := range p.sent {
		switch m {
		case "acceptance":
			to("the acceptance comes", true, Event{Kind: AcceptanceCame, Message: m, Terms: meant}, confirms)
		case "forged":
			to("the thief's acceptance comes", true, Event{Kind: AcceptanceCame, Message: m, Terms: forged}, confirms)
		case "confirmation":
			to("the confirmation comes", false, Event{Kind: ConfirmationCame, Message: m, Terms: meant}, nil)
		case "other":
			to("a confirmation of other terms comes", false, Event{Kind: ConfirmationCame, Message: m, Terms: forged}, nil)
		}
	}
	// Operators type the words that the other one reads out, which an honest side has.
	if p.inviter.Terms.Accepter != nil && p.inviter.Terms.Words() == p.accepter.Terms.Words() {
		to("the inviter's operator compares", true, Event{Kind: Compared, Confirmation: "confirmation"}, func(c *pair, _ Peering) { c.compared[0] = true })
		to("the accepter's operator compares", false, Event{Kind: Compared}, func(c *pair, _ Peering) { c.compared[1] = true })
	}
	for side := range 2 {
		name := []string{"inviter", "accepter"}[side]
		to(name+" suspends", side == 0, Event{Kind: Suspend}, nil)
		to(name+" resumes", side == 0, Event{Kind: Resume}, nil)
		to(name+" removes", side == 0, Event{Kind: Remove}, func(c *pair, _ Peering) { c.removed[side] = true })
		to(name+" looks at the clock", side == 0, Event{Kind: Tick}, nil)
	}
	if p.clock < len(clocks)-1 {
		c := p.clone()
		c.clock++
		c.trace = append(c.trace, fmt.Sprint("time goes on to ", c.clock))
		all = append(all, c)
	}
	return all
}

// settles lets all go well from here and says what doesn't come about that should.
func (p *pair) settles(next rules) string {
	meant, _, _ := searchTerms()
	hopeless := p.clock > 0 && p.inviter.State == Invited || p.clock == 2 || p.removed[0] || p.removed[1] ||
		p.inviter.State == Gone || p.accepter.State == Gone || p.inviter.Terms.Accepter != nil && p.inviter.Terms.Fingerprint() != meant.Fingerprint()
	if hopeless {
		return ""
	}
	a, b := p.inviter, p.accepter
	for _, e := range []struct {
		inviter bool
		event   Event
	}{
		{true, Event{Kind: AcceptanceCame, Message: "acceptance", Terms: meant}},
		{true, Event{Kind: Compared, Confirmation: "confirmation"}},
		{false, Event{Kind: Compared}},
		{false, Event{Kind: ConfirmationCame, Message: "confirmation", Terms: meant}},
		{true, Event{Kind: Resume}},
		{false, Event{Kind: Resume}},
	} {
		e.event.Now = p.now()
		side := &b
		if e.inviter {
			side = &a
		}
		if q, err := next(*side, e.event); err == nil {
			*side = q
		}
	}
	if a.State != Active || b.State != Active {
		return fmt.Sprintf("when all goes well the inviter is %s and the accepter %s", a.State, b.State)
	}
	return ""
}

// search visits every pair that can come about, and returns how many, and the
// first that is broken.
func search(next rules) (visited int, fault string) {
	begin := newPair()
	seen := map[string]bool{begin.key(): true}
	for queue := []*pair{begin}; len(queue) > 0; queue = queue[1:] {
		p := queue[0]
		why := p.broken(next)
		if why == "" {
			why = p.settles(next)
		}
		if why != "" {
			return len(seen), fmt.Sprintf("%s, after %q", why, p.trace)
		}
		for _, q := range p.steps(next) {
			if k := q.key(); !seen[k] {
				seen[k] = true
				queue = append(queue, q)
			}
		}
	}
	return len(seen), ""
}

func TestNoOrderOfEventsMakesAWrongPeer(t *testing.T) {
	visited, fault := search(Peering.Next)
	if fault != "" {
		t.Error(fault)
	}
	if visited < 1000 {
		t.Errorf("only %d states were visited", visited)
	}
	t.Logf("%d states", visited)
}

func TestPlantedMistakesAreFound(t *testing.T) {
	for name, wrong := range map[string]rules{
		"words need not be compared at the accepter": func(p Peering, e Event) (Peering, error) {
			if e.Kind == ConfirmationCame {
				p.Compared = true
			}
			return p.Next(e)
		},
		"a later acceptance takes the place of the first": func(p Peering, e Event) (Peering, error) {
			if e.Kind == AcceptanceCame && p.Inviter && p.State == Active {
				p.Terms, p.Acceptance = e.Terms, e.Message
				return p, nil
			}
			return p.Next(e)
		},
		"an acceptance makes active": func(p Peering, e Event) (Peering, error) {
			q, err := p.Next(e)
			if err == nil && e.Kind == AcceptanceCame && q.State == Answered {
				q.State = Active
			}
			return q, err
		},
		"a confirmation is of any terms": func(p Peering, e Event) (Peering, error) {
			if e.Kind == ConfirmationCame {
				e.Terms = p.Terms
			}
			return p.Next(e)
		},
		"a removal can be taken back": func(p Peering, e Event) (Peering, error) {
			if e.Kind == Resume && p.State == Removed {
				p.State = Active
				return p, nil
			}
			return p.Next(e)
		},
		"the end of the terms is passed over": func(p Peering, e Event) (Peering, error) {
			if e.Kind == Tick {
				return p, nil
			}
			return p.Next(e)
		},
		"an acceptance that comes again is refused for good": func(p Peering, e Event) (Peering, error) {
			if e.Kind == AcceptanceCame && p.State == Answered {
				p.State = Removed
				return p, nil
			}
			return p.Next(e)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if visited, fault := search(wrong); fault == "" {
				t.Errorf("not found in %d states", visited)
			} else {
				t.Log(fault)
			}
		})
	}
}
