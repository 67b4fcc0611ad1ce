package crossing

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/link"
	"carnet/shelf"
)

// A scene of what one world gives another, over a link and through storage. A frame
// has one item; items are numbered from 1, and the head says how many the taker has.

// mostItems is how many items there are.
const mostItems = 3

// parcel is a frame: its hash names it wholly.
type parcel struct {
	incarnation, number uint8
	item                uint8
	process             uint8 // that signed it
	parent              carnet.Fingerprint
}

func (p parcel) hash() carnet.Fingerprint {
	return carnet.FingerprintOf(append([]byte{p.incarnation, p.number, p.item, p.process}, p.parent[:]...))
}

func (p parcel) head() link.Head {
	return link.Head{Incarnation: uint64(p.incarnation), Number: uint64(p.number), Parent: p.parent, Hash: p.hash()}
}

// rack is a shelf: an index with its frames, or none.
type rack struct {
	serial, incarnation uint8
	n                   uint8
	frames              [mostItems + 1]parcel
}

func (r rack) all() []parcel { return r.frames[:r.n] }

func (r rack) index() *shelf.Index {
	if r.serial == 0 {
		return nil
	}
	sum := carnet.FingerprintOf(fmt.Append(nil, r.all()))
	return &shelf.Index{
		Incarnation: uint64(r.incarnation), Serial: uint64(r.serial), First: uint64(r.frames[0].number), Last: uint64(r.frames[r.n-1].number),
		List: sum, Until: 1 << 40,
	}
}

// durable is what a giver has stored of a taker.
type durable struct {
	known uint8 // incarnation
	doc   rack  // as it was put last, or is being put
	over  bool  // it is being withdrawn
}

// storing is a state of the whole: comparable.
type storing struct {
	made      uint8 // items that the giver has
	permitted bool
	signed    uint8 // the greatest item that was ever signed
	limit     uint8 // what it was when the share ended

	// The taker.
	state link.State
	has   uint8

	// The giver's process.
	process           uint8
	live, ready, ends bool // connected; a shelf may follow; nothing more is shelved
	shelving          bool
	incarnation       uint8
	number            uint8
	parent            carnet.Fingerprint
	given             uint8 // items in what was signed
	n                 uint8 // frames in flight
	flight            [2]parcel
	unput             uint8 // frames signed for the shelf and on no index
	made4             [mostItems + 1]parcel

	giver          durable
	depot, depots  rack // what the depot has, and an index that it had
	copied         bool
	oldGiver       durable
	oldState       link.State
	oldHas         uint8
	crashes, lies  int8
	restores, ways int8
	restored, lied bool // the giver; its depot
	lacks          bool // the taker was restored
}

// shelfRules are the production rules, one of which a test replaces.
type shelfRules struct {
	firstInFlight bool // what was in flight comes first
	knowsFlight   bool // a process shelves only what it, or a document, knows the beginning of
	compares      bool // a process holds the depot's index against its document's
	before        bool // the index is durable before it is put
	flows         bool // what a share lives by is looked at for every frame
	withdraws     bool // what may not be read any more is deleted
	judges        func(link.State, link.Head) (link.State, link.Verdict)
	uses          func(shelf.Index, shelf.Known) shelf.Use
}

func none(uint64) (carnet.Fingerprint, bool) { return carnet.Fingerprint{}, false }

var shelfProduction = shelfRules{
	firstInFlight: true, knowsFlight: true, compares: true, before: true, flows: true, withdraws: true,
	judges: func(s link.State, h link.Head) (link.State, link.Verdict) { return s.Judge(h, none) },
	uses:   func(i shelf.Index, k shelf.Known) shelf.Use { return i.Judge(k, time.Unix(0, 0)) },
}

// sign makes the giver's next frame.
func (s *storing) sign() parcel {
	p := parcel{s.incarnation, s.number + 1, s.given + 1, s.process, s.parent}
	s.number, s.parent, s.given, s.signed = p.number, p.hash(), p.item, max(s.signed, p.item)
	return p
}

// connect registers the giver and has it ask for the heads.
func (s *storing) connect(welcomed bool) {
	nonce := link.Nonce{byte(s.process), byte(s.state.Incarnation + 1)}
	s.state = s.state.Register(nonce, uint64(s.giver.known))
	if !welcomed {
		return
	}
	s.live, s.ready, s.ends, s.shelving, s.n, s.unput = true, true, false, false, 0, 0
	s.flight, s.made4 = [2]parcel{}, [mostItems + 1]parcel{}
	s.incarnation, s.number, s.parent, s.given = uint8(s.state.Incarnation), uint8(s.state.Last.Number), s.state.Last.Hash, s.has
	s.giver.known = s.incarnation
}

// crash ends the giver's process; another begins.
func (s *storing) crash() {
	s.process++
	s.live, s.ready, s.ends, s.shelving, s.n, s.unput = false, false, false, false, 0, 0
	s.flight, s.made4 = [2]parcel{}, [mostItems + 1]parcel{}
	s.incarnation, s.number, s.parent, s.given = 0, 0, carnet.Fingerprint{}, 0
}

// take has the taker judge a frame; wrong says what can't be.
func (r shelfRules) take(s *storing, p parcel) (link.Verdict, string) {
	next, verdict := r.judges(s.state, p.head())
	if verdict != link.Next {
		return verdict, ""
	}
	if p.item != s.has+1 {
		return verdict, fmt.Sprintf("the taker has %d items and takes the %dth", s.has, p.item)
	}
	if !s.permitted && p.item > s.limit {
		return verdict, "an item comes that was signed after the end"
	}
	s.state, s.has = next, p.item
	return verdict, ""
}

// read has the taker take the next frame of an index. It reports whether there was
// one.
func (r shelfRules) read(s *storing, from rack) (took bool, wrong string) {
	i := from.index()
	if i == nil || s.live || r.uses(*i, shelf.Known{Incarnation: s.state.Incarnation, Last: s.state.Last.Number}) != shelf.Read {
		return false, ""
	}
	for _, p := range from.all() {
		if uint64(p.number) < s.state.Last.Number {
			continue // its object isn't fetched
		}
		verdict, wrong := r.take(s, p)
		switch {
		case wrong != "":
			return false, wrong
		case verdict == link.Again:
		case verdict == link.Next:
			return true, ""
		case s.restored && s.lied, s.lacks && verdict == link.Jumped:
			return false, "" // nobody can tell, or mend it, before the giver is back
		default:
			return false, fmt.Sprintf("frame %d of an index that is to be read is judged %d", p.number, verdict)
		}
	}
	return false, ""
}

// over reports whether the giver's shelf may not be read any more.
func (s *storing) over() bool {
	return s.giver.over || s.live || s.giver.known != s.giver.doc.incarnation || !s.permitted
}

// steps are what may happen next.
func (r shelfRules) steps(s storing) (out []storing, wrong string) {
	add := func(change func(*storing)) {
		n := s
		change(&n)
		out = append(out, n)
	}
	flows := s.permitted || !r.flows
	if s.made < mostItems {
		add(func(n *storing) { n.made++ })
	}
	if s.permitted {
		add(func(n *storing) { n.permitted, n.limit = false, n.signed })
	}
	// The link.
	if !s.live && s.ways > 0 {
		add(func(n *storing) { n.ways--; n.connect(true) })
		add(func(n *storing) { n.ways--; n.connect(false) })
	}
	if s.live {
		if flows && s.given < s.made && int(s.n) < len(s.flight) {
			add(func(n *storing) { n.flight[n.n] = n.sign(); n.n++ })
		}
		for came := range s.n + 1 { // frames reach the taker; then the connection ends, or the first is acknowledged
			n := s
			for _, p := range n.flight[:came] {
				if _, w := r.take(&n, p); w != "" {
					return nil, w
				}
			}
			acked := n
			if came > 0 {
				copy(acked.flight[:], acked.flight[1:])
				acked.n--
				acked.flight[acked.n] = parcel{}
				out = append(out, acked)
			}
			n.live = false
			out = append(out, n)
		}
	}
	// The shelf: it begins, goes on with another process's, gets an index, is
	// withdrawn.
	own, atDepot := s.giver.doc.index(), s.depot.index()
	if !s.live && !s.shelving && !s.ends && (s.ready || !r.knowsFlight) && own == nil {
		add(func(n *storing) {
			if n.n > 0 && !flows {
				n.ends = true
				return
			}
			n.shelving = true
			if !n.ready { // a mistake: it goes on from what it knows to be acknowledged
				n.incarnation, n.number, n.parent, n.given = n.giver.known, uint8(n.oldState.Last.Number), n.oldState.Last.Hash, n.oldHas
			}
			if !r.firstInFlight && n.n > 0 {
				n.number, n.parent, n.given = n.flight[0].number-1, n.flight[0].parent, n.flight[0].item-1
				n.process++ // made anew, other bytes
				n.n = 0
			}
			for _, p := range n.flight[:n.n] {
				n.made4[n.unput] = p
				n.unput++
			}
		})
	}
	if !s.live && !s.shelving && !s.ends && own != nil && !(s.over() && r.withdraws) {
		add(func(n *storing) {
			standing := shelf.GoOn
			if r.compares {
				standing = own.Stands(atDepot)
			}
			if standing == shelf.Withdraw {
				n.giver.over, n.ends = true, true
				return
			}
			if standing == shelf.PutAgain {
				n.depot = n.giver.doc
			}
			last := n.giver.doc.frames[n.giver.doc.n-1]
			n.incarnation, n.number, n.parent, n.given, n.shelving = last.incarnation, last.number, last.hash(), last.item, true
		})
	}
	if s.shelving {
		if !flows {
			add(func(n *storing) {
				n.shelving, n.ends, n.unput, n.made4 = false, true, 0, [mostItems + 1]parcel{}
				n.giver.over = own != nil
			})
		}
		if flows && s.given < s.made && int(s.giver.doc.n+s.unput) < len(s.made4) {
			add(func(n *storing) { n.made4[n.unput] = n.sign(); n.unput++ })
		}
		if s.unput > 0 && flows {
			next := s.giver.doc
			next.serial++
			next.incarnation = s.incarnation
			for _, p := range s.made4[:s.unput] {
				next.frames[next.n] = p
				next.n++
			}
			put := func(n *storing) {
				if n.depot.index() == nil || next.index().Follows(n.depot.index()) == nil {
					n.depots, n.depot = n.depot, next
				}
			}
			if r.before {
				add(func(n *storing) { n.giver.doc, n.unput, n.made4 = next, 0, [mostItems + 1]parcel{} }) // H15 is here
			} else {
				add(put)
			}
		}
		if own != nil && (atDepot == nil || *atDepot != *own) && flows {
			add(func(n *storing) {
				if atDepot == nil || own.Follows(atDepot) == nil {
					n.depots, n.depot = n.depot, n.giver.doc
				}
			})
		}
	}
	if r.withdraws && own != nil && s.over() && !s.shelving {
		if atDepot != nil {
			add(func(n *storing) { n.giver.over, n.depots, n.depot = true, n.depot, rack{} })
		} else {
			add(func(n *storing) { n.giver.doc, n.giver.over = rack{}, false })
		}
	}
	// The taker reads, what there is or what a depot gives that lies.
	for _, lie := range []bool{false, true} {
		n, from := s, s.depot
		if lie {
			if s.lies == 0 {
				continue
			}
			n.lies--
			n.lied, from = true, s.depots
		}
		took, wrong := r.read(&n, from)
		if wrong != "" {
			return nil, wrong
		}
		if took {
			out = append(out, n)
		}
	}
	// Crashes, copies and their return.
	if s.crashes > 0 {
		add(func(n *storing) { n.crashes--; n.crash() })
	}
	if s.restores > 0 && !s.copied {
		add(func(n *storing) { n.copied, n.oldGiver, n.oldState, n.oldHas = true, n.giver, n.state, n.has })
	} else if s.restores > 0 {
		add(func(n *storing) { n.restores--; n.crash(); n.giver, n.restored = n.oldGiver, true })
		add(func(n *storing) {
			n.restores--
			n.live, n.state, n.has, n.lacks = false, n.oldState, n.oldHas, true
		})
	}
	return out, ""
}

// wrong says what may not be in a scene.
func (r shelfRules) wrong(s storing) string {
	if i := s.depot.index(); i != nil && !s.live && s.permitted && uint64(s.depot.incarnation) == s.state.Incarnation && !s.restored && !s.lacks {
		// All that is on it can be read.
		end := s
		for took := true; took; {
			var w string
			if took, w = r.read(&end, s.depot); w != "" {
				return w
			}
		}
		if want := s.depot.frames[s.depot.n-1].item; end.has < want {
			return fmt.Sprintf("the shelf goes up to item %d, and the taker gets %d", want, end.has)
		}
	}
	// When everybody is back, nothing is lost, and nothing is left.
	end := s
	if end.live {
		end.live = false
	}
	end.connect(true)
	for end.permitted && end.given < end.made {
		if _, w := r.take(&end, end.sign()); w != "" {
			return w
		}
	}
	if end.permitted && end.has != end.made {
		return fmt.Sprintf("the taker has %d items of %d when all are back", end.has, end.made)
	}
	if took, _ := r.read(&storing{state: end.state, has: end.has, permitted: true}, s.depot); took {
		return "a shelf is read once the giver has connected"
	}
	// A giver that is up alone withdraws what has ended.
	for range 4 {
		if own := end.giver.doc.index(); own == nil || !r.withdraws {
			break
		}
		end.depot, end.giver.doc = rack{}, rack{}
	}
	if end.depot.index() != nil && !s.restored {
		return "a shelf is left for good"
	}
	return ""
}

func (r shelfRules) search(start storing) (visited int, wrong string) {
	start.permitted, start.process = true, 1
	seen := map[storing]bool{start: true}
	for queue := []storing{start}; len(queue) > 0; {
		s := queue[0]
		queue = queue[1:]
		next, wrong := r.steps(s)
		if wrong != "" {
			return len(seen), fmt.Sprintf("%s: from %+v", wrong, s)
		}
		for _, n := range next {
			if seen[n] {
				continue
			}
			if why := r.wrong(n); why != "" {
				return len(seen), fmt.Sprintf("%s: from %+v to %+v", why, s, n)
			}
			seen[n] = true
			queue = append(queue, n)
		}
	}
	return len(seen), ""
}

// bounds are what the search visits: each with other faults.
var bounds = []storing{
	{ways: 2}, {ways: 1, crashes: 1, lies: 1}, {ways: 1, restores: 1},
}

// Whatever is lost, whenever the shelf is read, the giver comes back, its process ends
// or either side is restored: every item comes once, nothing that was signed after
// the end, no fork but where a giver was restored and its depot lies, and all comes in
// the end.
func TestSearchThroughStorageFindsNothing(t *testing.T) {
	all := 0
	for _, b := range bounds {
		visited, wrong := shelfProduction.search(b)
		if wrong != "" {
			t.Fatal(wrong)
		}
		t.Logf("%d ways, %d crashes, %d lies, %d restores: %d scenes", b.ways, b.crashes, b.lies, b.restores, visited)
		all += visited
	}
	if all < 10_000 {
		t.Errorf("only %d scenes were visited", all)
	}
	t.Logf("%d scenes", all)
}

// The search finds a mistake in each rule.
func TestSearchThroughStorageFindsMistakes(t *testing.T) {
	for name, mistake := range map[string]func(*shelfRules){
		"what was in flight is made anew":          func(r *shelfRules) { r.firstInFlight = false },
		"a new process shelves without a document": func(r *shelfRules) { r.knowsFlight = false },
		"the depot's index isn't compared":         func(r *shelfRules) { r.compares = false },
		"an index is put before it is durable":     func(r *shelfRules) { r.before = false },
		"frames are made after the end":            func(r *shelfRules) { r.flows = false },
		"nothing is withdrawn":                     func(r *shelfRules) { r.withdraws = false },
		"frames of another connection are taken": func(r *shelfRules) {
			r.judges = func(s link.State, h link.Head) (link.State, link.Verdict) {
				if h.Incarnation < s.Incarnation {
					h.Incarnation = s.Incarnation
				}
				return s.Judge(h, none)
			}
			r.uses = func(i shelf.Index, k shelf.Known) shelf.Use {
				i.Incarnation = k.Incarnation
				return i.Judge(k, time.Unix(0, 0))
			}
		},
		"a parent isn't looked at": func(r *shelfRules) {
			r.firstInFlight = false
			r.judges = func(s link.State, h link.Head) (link.State, link.Verdict) {
				if h.Number == s.Last.Number+1 {
					h.Parent = s.Last.Hash
				}
				return s.Judge(h, none)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := shelfProduction
			mistake(&r)
			if !slices.ContainsFunc(bounds, func(b storing) bool { _, wrong := r.search(b); return wrong != "" }) {
				t.Error("the search finds nothing")
			}
		})
	}
}
