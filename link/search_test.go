package link

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"carnet"
)

// The state-space search. A world is one receiver, the processes of one sender
// and the connections between them; step lists everything that can happen next.
// Receivers decide with State.Admit, State.Register and State.Judge, the
// functions that the server and the sinks use; rules holds them, so that a test
// can plant a mistake in each and see the search find it.

type rules struct {
	admit    func(State, Hello) (Admission, uint64)
	register func(State, Nonce, uint64) State
	judge    func(State, Head, func(uint64) (carnet.Fingerprint, bool)) (State, Verdict)
	resume   func(w *world, st *senderStore, last Position)
	ackEarly bool // acknowledge before the commit: a crash takes the last frame away
	tornEnd  bool // frame and state in two transactions: a crash falls between
	blindGap bool // trimmed items are skipped without a recorded gap
}

func soundRules() rules {
	return rules{admit: State.Admit, register: State.Register, judge: State.Judge, resume: resume}
}

type entry struct {
	id, run, seq int
	trimmed      bool
}

func (e entry) covers() (c Covers) {
	binary.BigEndian.PutUint64(c[:], uint64(e.run))
	binary.BigEndian.PutUint64(c[8:], uint64(e.seq))
	return c
}

// senderStore is what is durable at a sender.
type senderStore struct {
	log     []entry
	known   Known
	cursor  int   // entries of log that are sent or skipped
	gaps    []int // ids of items recorded as gaps
	reached []int // by run: the greatest position at the receiver
	framed  []framed
}

type framed struct {
	number uint64
	id     int
}

type process struct {
	alive, stopped bool
	own            uint64
	connections    uint64
	conn           int // index of its open connection, -1: none
	store          senderStore
}

type stored struct {
	head    Head
	item    int
	process int
}

type letter struct {
	kind    kind
	greeted uint64 // greeting
	hello   Hello
	state   State // welcome
	frame   stored
	acked   uint64
	code    carnet.Code // refuse
}

type pipe struct {
	process  int
	open     bool // at the sender
	resumed  bool
	inc      uint64
	last     Position // of the last frame sent
	acked    uint64
	deaf     bool // the receiver's end is gone
	buggy    bool // the sender broke the rules: it counts nothing as delivered here
	up, down []letter
}

type receiver struct {
	state  State
	stored []stored
}

type world struct {
	receiver
	processes   []process // the last one is the newest
	pipes       []pipe
	ids         int // items ever logged
	receiverOld *receiver
	senderOld   *senderStore
	restored    string // which side was: "", "sender", "receiver"
	faults      int
	forked      []int              // processes that were refused for a fork
	registered  []int              // processes registered since the receiver's last restore, in order
	history     map[[2]uint64]Head // every frame ever accepted, by incarnation and number
	acked       map[int]bool       // ids of items ever acknowledged
	broken      string             // the property that failed
	trace       []string           // what happened
	rules       *rules
}

func (w *world) clone() *world {
	c := *w
	c.stored = slices.Clone(w.stored)
	c.processes = slices.Clone(w.processes)
	for i := range c.processes {
		c.processes[i].store = c.processes[i].store.clone()
	}
	c.pipes = slices.Clone(w.pipes)
	for i := range c.pipes {
		c.pipes[i].up, c.pipes[i].down = slices.Clone(c.pipes[i].up), slices.Clone(c.pipes[i].down)
	}
	c.forked = slices.Clone(w.forked)
	c.registered = slices.Clone(w.registered)
	c.history = map[[2]uint64]Head{}
	for k, v := range w.history {
		c.history[k] = v
	}
	c.acked = map[int]bool{}
	for k := range w.acked {
		c.acked[k] = true
	}
	c.trace = slices.Clone(w.trace)
	return &c
}

func (s senderStore) clone() senderStore {
	s.log, s.gaps, s.framed, s.reached = slices.Clone(s.log), slices.Clone(s.gaps), slices.Clone(s.framed), slices.Clone(s.reached)
	return s
}

// key tells worlds apart that can go on differently.
func (w *world) key() [32]byte {
	return sha256.Sum256(fmt.Append(nil, w.receiver, w.processes, w.pipes, w.ids, w.receiverOld, w.senderOld, w.restored, w.faults, w.registered, w.forked, len(w.history), w.acked))
}

func (w *world) breaks(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

// resume is a Source that follows docs/design/link.md §4: of each run, what its
// log has up to the greatest position that the receiver has is there; all else
// isn't.
func resume(w *world, st *senderStore, last Position) {
	st.cursor, st.reached = 0, make([]int, len(w.processes)+1)
	for _, s := range w.stored {
		c := s.head.Covers
		run, seq := binary.BigEndian.Uint64(c[:]), binary.BigEndian.Uint64(c[8:])
		st.reached[run] = max(st.reached[run], int(seq))
	}
	st.framed = slices.DeleteFunc(st.framed, func(f framed) bool { return f.number > last.Number })
}

// skip moves over items that are there, and those that are gone: a recorded gap.
func (w *world) skip(st *senderStore) {
	for ; st.cursor < len(st.log); st.cursor++ {
		e := st.log[st.cursor]
		there := e.run < len(st.reached) && e.seq <= st.reached[e.run]
		if !there && !e.trimmed {
			return
		}
		if there || w.rules.blindGap {
			continue
		}
		if w.restored == "" {
			w.breaks("item %d became a gap and nobody was restored", e.id)
		}
		st.gaps = append(st.gaps, e.id)
	}
}

func (w *world) newest() *process { return &w.processes[len(w.processes)-1] }

func (w *world) connect(p int) {
	proc := &w.processes[p]
	proc.connections++
	proc.conn = len(w.pipes)
	w.pipes = append(w.pipes, pipe{process: p, open: true, down: []letter{{kind: kindGreeting, greeted: w.state.Incarnation}}})
}

func (w *world) cut(i int) {
	c := &w.pipes[i]
	if c.open {
		c.open = false
		c.down = nil
		w.processes[c.process].conn = -1
	}
}

// hear lets a sender handle the next message of a connection.
func (w *world) hear(i int) {
	c := &w.pipes[i]
	p := &w.processes[c.process]
	m := c.down[0]
	c.down = c.down[1:]
	switch m.kind {
	case kindGreeting:
		nonce := Process{byte(c.process + 1)}.nonce(p.connections)
		c.up = append(c.up, letter{kind: kindHello, hello: Hello{nonce, m.greeted, p.own, p.store.known.Incarnation, p.store.known.Number}})
	case kindWelcome:
		p.own, c.inc, c.last, c.acked, c.resumed = m.state.Incarnation, m.state.Incarnation, m.state.Last, m.state.Last.Number, true
		p.store.known = Known{m.state.Incarnation, m.state.Last.Number}
		w.rules.resume(w, &p.store, m.state.Last)
		w.skip(&p.store)
	case kindAck:
		c.acked = m.acked
		p.store.known.Number = max(p.store.known.Number, m.acked)
	case kindRefuse:
		p.stopped = m.code == carnet.Fenced || m.code == carnet.Forked
		w.cut(i)
	}
}

// frameHash differs for frames of different connections even if their content
// doesn't, as the hashes of real frames do.
func frameHash(h Head, item, connection int) carnet.Fingerprint {
	return sha256.Sum256(fmt.Append(nil, h.Incarnation, h.Number, h.Parent, item, connection))
}

// send has a sender frame its next item; bug 1 breaks the chain, bug 2 uses the
// number before again.
func (w *world) send(i, bug int) {
	c := &w.pipes[i]
	st := &w.processes[c.process].store
	e := st.log[st.cursor]
	h := Head{Incarnation: c.inc, Number: c.last.Number + 1, Parent: c.last.Hash, Covers: e.covers()}
	switch bug {
	case 1:
		h.Parent[0] ^= 1
	case 2:
		h.Number--
	case 3:
		h.Number++
	}
	h.Hash = frameHash(h, e.id, i)
	st.cursor++
	if c.buggy = c.buggy || bug != 0; !c.buggy {
		st.framed = append(st.framed, framed{h.Number, e.id})
	}
	w.skip(st)
	c.last = Position{h.Number, h.Hash, h.Covers}
	c.up = append(c.up, letter{kind: kindFrame, frame: stored{h, e.id, c.process}})
}

// take lets the receiver handle the next message of a connection.
func (w *world) take(i int, keep bool) {
	c := &w.pipes[i]
	m := c.up[0]
	if !keep {
		c.up = c.up[1:]
	}
	if m.kind == kindHello {
		w.takeHello(c, m.hello)
	} else {
		w.takeFrame(c, m.frame)
	}
}

func (w *world) takeHello(c *pipe, h Hello) {
	answer, above := w.rules.admit(w.state, h)
	switch answer {
	case Stale:
		c.say(letter{kind: kindRefuse, code: carnet.Conflict})
	case Dead:
		if n := len(w.registered); n > 0 && w.registered[n-1] == c.process && !slices.Contains(w.forked, c.process) {
			w.breaks("process %d is fenced and none registered after it", c.process)
		}
		c.say(letter{kind: kindRefuse, code: carnet.Fenced})
	case Admitted:
		w.state = w.rules.register(w.state, h.Nonce, above)
		w.checkRegistration(c.process)
		c.say(letter{kind: kindWelcome, state: w.state})
	}
}

func (c *pipe) say(m letter) {
	if c.open {
		c.down = append(c.down, m)
	}
}

// checkRegistration holds that a process that was ever welcomed doesn't come back
// after another one registered. One that never heard its Welcome sent nothing
// and is as good as new.
func (w *world) checkRegistration(p int) {
	i := slices.Index(w.registered, p)
	if i >= 0 && i != len(w.registered)-1 {
		if w.processes[p].own != 0 {
			w.breaks("process %d is registered again after process %d was", p, w.registered[len(w.registered)-1])
		}
		w.registered = slices.Delete(w.registered, i, i+1)
		i = -1
	}
	if i < 0 {
		w.registered = append(w.registered, p)
	}
	if newest := slices.Max(w.registered); !w.processes[p].alive && newest > p {
		w.breaks("dead process %d fenced process %d, which started later", p, newest)
	}
}

func (w *world) takeFrame(c *pipe, f stored) {
	known := func(number uint64) (carnet.Fingerprint, bool) {
		for _, s := range w.stored {
			if s.head.Number == number {
				return s.head.Hash, true
			}
		}
		return carnet.Fingerprint{}, false
	}
	before := w.state
	st, v := w.rules.judge(w.state, f.head, known)
	switch v {
	case Next:
		w.state = st
		w.checkAccepted(before, f)
		w.stored = append(w.stored, f)
		w.acked[f.item] = true
		c.say(letter{kind: kindAck, acked: f.head.Number})
	case Again:
		if hash, ok := known(f.head.Number); !ok || hash != f.head.Hash {
			w.breaks("frame %d is acknowledged and another one is stored", f.head.Number)
		}
		if c.acked < f.head.Number {
			c.say(letter{kind: kindAck, acked: f.head.Number})
		}
	case Forked:
		w.state = w.rules.register(w.state, Nonce{255}, 0)
		w.forked = append(w.forked, f.process)
		c.say(letter{kind: kindRefuse, code: carnet.Forked})
		c.deaf = true
	default:
		c.say(letter{kind: kindRefuse, code: carnet.Conflict})
		c.deaf = true
	}
}

func (w *world) checkAccepted(before State, f stored) {
	if f.head.Number != before.Last.Number+1 || f.head.Parent != before.Last.Hash {
		w.breaks("frame %d doesn't follow frame %d", f.head.Number, before.Last.Number)
	}
	id := [2]uint64{f.head.Incarnation, f.head.Number}
	if h, ok := w.history[id]; ok && h.Hash != f.head.Hash {
		w.breaks("two frames with incarnation %d and number %d were accepted", id[0], id[1])
	}
	w.history[id] = f.head
	if n := len(w.registered); n == 0 || w.registered[n-1] != f.process {
		w.breaks("a frame of process %d got in after %v registered", f.process, w.registered)
	}
	if slices.Contains(w.forked, f.process) {
		w.breaks("a frame of process %d got in after its fork", f.process)
	}
	for _, s := range w.stored {
		if s.head.Number == f.head.Number {
			w.breaks("two frames are stored with number %d", f.head.Number)
		}
		if s.item == f.item {
			w.breaks("item %d is stored twice", f.item)
		}
	}
}

// crash ends the receiver's process and with it every connection.
func (w *world) crash() {
	if n := len(w.stored); n > 0 && w.rules.ackEarly {
		w.stored = w.stored[:n-1]
		w.state.Last = Position{}
		if n > 1 {
			h := w.stored[n-2].head
			w.state.Last = Position{h.Number, h.Hash, h.Covers}
		}
	} else if n > 0 && w.rules.tornEnd {
		h := w.stored[n-1].head
		w.state.Last = Position{h.Number - 1, h.Parent, Covers{}}
		if n > 1 {
			w.state.Last.Covers = w.stored[n-2].head.Covers
		}
	}
	for i := range w.pipes {
		w.cut(i)
		w.pipes[i].deaf = true
	}
	for id := range w.acked {
		if w.restored != "receiver" && !w.holds(id) {
			w.breaks("item %d was acknowledged and a crash took it", id)
		}
	}
}

func (w *world) holds(id int) bool {
	return slices.ContainsFunc(w.stored, func(s stored) bool { return s.item == id })
}

func (w *world) start(st senderStore) {
	w.processes = append(w.processes, process{alive: true, conn: -1, store: st.clone()})
}

func (w *world) kill() {
	p := w.newest()
	p.alive = false
	if p.conn >= 0 {
		w.cut(p.conn)
	}
}

// bounds keep the search finite.
type bounds struct{ items, faults, pipes, processes int }

type step struct {
	name string
	do   func(*world)
}

// steps lists what can happen next: first what protocol and network do, then
// faults.
func (w *world) steps(b bounds) (steps []step) {
	add := func(name string, do func(*world)) { steps = append(steps, step{name, do}) }
	if w.ids < b.items && w.newest().alive {
		add("log an item", func(w *world) {
			st := &w.newest().store
			w.ids++
			st.log = append(st.log, entry{id: w.ids, run: len(w.processes), seq: len(st.log) + 1})
		})
	}
	for p := range w.processes {
		if proc := w.processes[p]; proc.alive && !proc.stopped && proc.conn < 0 && len(w.pipes) < b.pipes {
			add(fmt.Sprintf("process %d connects", p), func(w *world) { w.connect(p) })
		}
	}
	for i := range w.pipes {
		c := &w.pipes[i]
		if c.open && len(c.down) > 0 {
			add(fmt.Sprintf("sender hears %d on connection %d", c.down[0].kind, i), func(w *world) { w.hear(i) })
		}
		if !c.deaf && len(c.up) > 0 {
			add(fmt.Sprintf("receiver takes %d from connection %d", c.up[0].kind, i), func(w *world) { w.take(i, false) })
		}
		st := &w.processes[c.process].store
		canSend := c.open && c.resumed && st.cursor < len(st.log) && c.last.Number < c.acked+2
		if canSend {
			add(fmt.Sprintf("process %d sends on connection %d", c.process, i), func(w *world) { w.send(i, 0) })
		}
		if w.faults == b.faults {
			continue
		}
		if c.open {
			add(fmt.Sprintf("connection %d is cut", i), func(w *world) { w.faults++; w.cut(i) })
		}
		if !c.deaf && len(c.up) > 0 && c.up[0].kind == kindFrame {
			add(fmt.Sprintf("receiver takes a copy from connection %d", i), func(w *world) { w.faults++; w.take(i, true) })
		}
		for bug := 1; canSend && bug <= 3; bug++ {
			add(fmt.Sprintf("process %d sends with bug %d on connection %d", c.process, bug, i), func(w *world) { w.faults++; w.send(i, bug) })
		}
	}
	if st := &w.newest().store; slices.ContainsFunc(st.log, func(e entry) bool { return !e.trimmed && w.acked[e.id] && st.has(e.id) }) {
		add("sender trims its log", func(w *world) {
			st := &w.newest().store
			for i := range st.log {
				st.log[i].trimmed = st.log[i].trimmed || st.has(st.log[i].id)
			}
		})
	}
	if w.receiverOld == nil && w.restored == "" && len(w.pipes) > 0 {
		add("receiver is backed up", func(w *world) { w.receiverOld = &receiver{w.state, slices.Clone(w.stored)} })
	}
	if w.senderOld == nil && w.restored == "" {
		add("sender is backed up", func(w *world) { st := w.newest().store.clone(); w.senderOld = &st })
	}
	if w.faults < b.faults {
		steps = append(steps, w.accidents(b)...)
	}
	return steps
}

// has reports whether the sender knows the item to be acknowledged.
func (s *senderStore) has(id int) bool {
	return slices.ContainsFunc(s.framed, func(f framed) bool { return f.id == id && f.number <= s.known.Number })
}

func (w *world) accidents(b bounds) (steps []step) {
	add := func(name string, do func(*world)) {
		steps = append(steps, step{name, func(w *world) { w.faults++; do(w) }})
	}
	add("receiver crashes", func(w *world) { w.crash() })
	if w.receiverOld != nil && w.restored == "" {
		add("receiver is restored", func(w *world) {
			w.crash()
			w.receiver, w.restored, w.registered, w.forked = *w.receiverOld, "receiver", nil, nil
			w.stored = slices.Clone(w.stored)
		})
	}
	if len(w.processes) == b.processes {
		return steps
	}
	add("sender restarts", func(w *world) { w.kill(); w.start(w.newest().store) })
	add("a second sender starts beside the first", func(w *world) { w.start(w.newest().store) })
	if w.senderOld != nil && w.restored == "" {
		add("sender is restored", func(w *world) { w.kill(); w.start(*w.senderOld); w.restored = "sender" })
	}
	return steps
}

// settle lets everything go well from here, and checks what must then hold.
func (w *world) settle() {
	for i := range w.processes[:len(w.processes)-1] {
		p := &w.processes[i]
		p.alive = false
		if p.conn >= 0 {
			w.cut(p.conn)
		}
	}
	for range 100 {
		p := w.newest()
		switch {
		case w.broken != "":
			return
		case p.stopped || !p.alive:
			w.kill()
			w.start(p.store)
		case p.conn < 0:
			w.connect(len(w.processes) - 1)
		case len(w.pipes[p.conn].up) > 0 && !w.pipes[p.conn].deaf:
			w.take(p.conn, false)
		case len(w.pipes[p.conn].down) > 0:
			w.hear(p.conn)
		case w.pipes[p.conn].deaf || !w.pipes[p.conn].resumed:
			w.cut(p.conn)
		case p.store.cursor < len(p.store.log):
			w.send(p.conn, 0)
		default:
			w.checkSettled(&p.store)
			return
		}
	}
	w.breaks("the sender never ends")
}

func (w *world) checkSettled(st *senderStore) {
	held := func(id int) bool { return w.holds(id) || slices.Contains(st.gaps, id) }
	for _, e := range st.log {
		if !held(e.id) {
			w.breaks("item %d of the log is neither delivered nor a recorded gap", e.id)
		}
	}
	for id := range w.acked {
		if !held(id) {
			w.breaks("item %d was acknowledged and is lost", id)
		}
	}
}

func newWorld(r *rules) *world {
	w := &world{rules: r, history: map[[2]uint64]Head{}, acked: map[int]bool{}}
	w.start(senderStore{})
	return w
}

// after returns a copy of the world after a step, and what broke in it or in
// what follows when all goes well.
func (w *world) after(s step) (_ *world, broken string) {
	c := w.clone()
	s.take(c)
	if c.broken != "" {
		return c, c.broken
	}
	end := c.clone()
	end.settle()
	return c, end.broken
}

// exhaust visits every world within the bounds.
func exhaust(r *rules, b bounds, most int) (visited int, broken *world, why string) {
	seen := map[[32]byte]bool{}
	stack := []*world{newWorld(r)}
	for len(stack) > 0 && len(seen) < most {
		w := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, s := range w.steps(b) {
			next, why := w.after(s)
			if why != "" {
				return len(seen), next, why
			}
			if k := next.key(); !seen[k] {
				seen[k] = true
				stack = append(stack, next)
			}
		}
	}
	return len(seen), nil, ""
}

// walk takes random ways through larger bounds.
func walk(r *rules, b bounds, walks int) (broken *world, why string) {
	random := rand.New(rand.NewPCG(7, 11))
	for range walks {
		w := newWorld(r)
		for range 60 {
			steps := w.steps(b)
			if len(steps) == 0 {
				break
			}
			steps[random.IntN(len(steps))].take(w)
			if w.broken != "" {
				return w, w.broken
			}
		}
		w.settle()
		if w.broken != "" {
			return w, w.broken
		}
	}
	return nil, ""
}

func (s step) take(w *world) {
	w.trace = append(w.trace, s.name)
	s.do(w)
}

func TestSearchFindsNothingInTheRules(t *testing.T) {
	r := soundRules()
	n, w, why := exhaust(&r, bounds{items: 1, faults: 1, pipes: 3, processes: 2}, 1<<20)
	t.Logf("%d worlds visited", n)
	if w != nil {
		t.Fatalf("%s:\n%s", why, strings.Join(w.trace, "\n"))
	}
	if w, why := walk(&r, bounds{items: 4, faults: 6, pipes: 8, processes: 5}, 5000); w != nil {
		t.Fatalf("%s:\n%s", why, strings.Join(w.trace, "\n"))
	}
}

func TestSearchFindsEveryPlantedMistake(t *testing.T) {
	type known = func(uint64) (carnet.Fingerprint, bool)
	for name, plant := range map[string]func(*rules){
		"a late hello is admitted": func(r *rules) {
			r.admit = func(s State, h Hello) (Admission, uint64) { h.Seen = s.Incarnation; return s.Admit(h) }
		},
		"an older process is admitted": func(r *rules) {
			r.admit = func(s State, h Hello) (Admission, uint64) {
				a, above := s.Admit(h)
				if a == Dead {
					return Admitted, s.Incarnation
				}
				return a, above
			}
		},
		"a reconnecting process is fenced by itself": func(r *rules) {
			r.admit = func(s State, h Hello) (Admission, uint64) { h.Nonce[0] ^= 0x80; return s.Admit(h) }
		},
		"a registration keeps the incarnation": func(r *rules) {
			r.register = func(s State, n Nonce, _ uint64) State {
				s.Nonce, s.Incarnation = n, max(s.Incarnation, 1)
				return s
			}
		},
		"the new incarnation is not above what the sender knows": func(r *rules) {
			r.register = func(s State, n Nonce, _ uint64) State { return s.Register(n, 0) }
		},
		"a fork doesn't end the incarnation": func(r *rules) {
			r.register = func(s State, n Nonce, above uint64) State {
				if n == (Nonce{255}) {
					return s
				}
				return s.Register(n, above)
			}
		},
		"the incarnation of a frame isn't looked at": func(r *rules) {
			r.judge = func(s State, h Head, k known) (State, Verdict) { h.Incarnation = s.Incarnation; return s.Judge(h, k) }
		},
		"the parent of a frame isn't looked at": func(r *rules) {
			r.judge = func(s State, h Head, k known) (State, Verdict) { h.Parent = s.Last.Hash; return s.Judge(h, k) }
		},
		"a known number is acknowledged whatever its hash": func(r *rules) {
			r.judge = func(s State, h Head, k known) (State, Verdict) {
				st, v := s.Judge(h, k)
				if v == Forked && h.Number <= s.Last.Number {
					v = Again
				}
				return st, v
			}
		},
		"a number may be left out": func(r *rules) {
			r.judge = func(s State, h Head, k known) (State, Verdict) {
				if h.Incarnation == s.Incarnation && h.Number > s.Last.Number {
					s.Last = Position{h.Number, h.Hash, h.Covers}
					return s, Next
				}
				return s.Judge(h, k)
			}
		},
		"a known frame is stored again": func(r *rules) {
			r.judge = func(s State, h Head, k known) (State, Verdict) {
				st, v := s.Judge(h, k)
				if v == Again {
					v = Next
				}
				return st, v
			}
		},
		"the state doesn't move with the frame": func(r *rules) {
			r.judge = func(s State, h Head, k known) (State, Verdict) { _, v := s.Judge(h, k); return s, v }
		},
		"acknowledged before the commit":      func(r *rules) { r.ackEarly = true },
		"frame and state in two transactions": func(r *rules) { r.tornEnd = true },
		"trimmed items are skipped silently":  func(r *rules) { r.blindGap = true },
		"a source that goes on where it was":  func(r *rules) { r.resume = func(*world, *senderStore, Position) {} },
		"a source that begins anew": func(r *rules) {
			r.resume = func(_ *world, st *senderStore, _ Position) { st.cursor, st.reached = 0, nil }
		},
		"a source that looks at the last frame only": func(r *rules) { r.resume = resumeByLast },
		"a source that counts instead of asking":     func(r *rules) { r.resume = resumeByCount },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := soundRules()
			plant(&r)
			w, why := walk(&r, bounds{items: 4, faults: 6, pipes: 8, processes: 5}, 30000)
			if w == nil {
				t.Fatal("the search doesn't find it")
			}
			t.Logf("%s, after %d steps", why, len(w.trace))
		})
	}
}

// resumeByCount takes log positions for the same in every run of the sender: what
// goes wrong when Covers doesn't name the run.
func resumeByCount(_ *world, st *senderStore, last Position) {
	st.cursor, st.reached = min(int(binary.BigEndian.Uint64(last.Covers[8:])), len(st.log)), nil
}

// resumeByLast doesn't ask what the receiver has of runs other than the last.
func resumeByLast(w *world, st *senderStore, last Position) {
	resume(w, st, last)
	run := int(binary.BigEndian.Uint64(last.Covers[:]))
	for i := range st.reached {
		if i != run {
			st.reached[i] = 0
		}
	}
}
