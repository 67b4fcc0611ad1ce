package thing

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	ident "carnet/identity"
	"carnet/ledger"
	"carnet/test/wait"
)

// newUnmet is a hub whose avatars move to a world that isn't its peer yet.
func newUnmet(tb testing.TB) *movable {
	h := newMovable(tb)
	h.unmet = true
	h.restart()
	return h
}

// meet has the target become a peer.
func (h *movable) meet() {
	h.unmet = false
	if err := h.agent.SetWorld(h.tb.Context(), h.peer("citadel", h.next)); err != nil {
		h.tb.Fatal(err)
	}
	h.agent.Connect("citadel", h.next)
}

// untilThen waits until a mapping follows, and waits for nothing.
func (h *movable) untilThen(m MappingInfo) (then MappingInfo) {
	h.tb.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var found bool
		if then, found = h.after(m); found && then.Waits == nil {
			return then
		}
	}
	h.tb.Fatalf("the mapping waits: %+v", then.Waits)
	return then
}

// moved is a mapping of a watch that measured something, whose avatar has moved.
func (h *movable) moved(text string, v func(*relocation)) (*device, MappingInfo, *relocation) {
	h.tb.Helper()
	d := h.add(quick())
	m := h.mapTo(d, text)
	h.own(m)
	h.connect()
	d.send(heart(time.Now().Add(-time.Hour), 60))
	h.world.until("it has come", func() bool { return h.world.heads[m.Stream] != nil })
	r := h.relocate(m)
	if v != nil {
		v(r)
	}
	h.tell(r.notice(h.tb))
	h.untilEnded(m.Stream)
	return d, m, r
}

// TestAMappingWaitsForItsTarget: until it is a peer nothing is lost, and it is said
// what is waited for.
func TestAMappingWaitsForItsTarget(t *testing.T) {
	h := newUnmet(t)
	d, m, v := h.moved(`{"properties":{"heart_rate":{}}}`, nil)
	begin := h.then(m).From
	for i := range 3 {
		d.send(heart(time.Now().Add(time.Duration(i-30)*time.Minute), float64(70+i)))
	}
	then := h.then(m)
	if then.World != "" || then.Avatar != v.terms.To || then.Waits == nil || !strings.Contains(then.Waits.For, v.order.Target) || !strings.Contains(then.Waits.Fix, "carnet peer") || then.Waits.Messages != 3 {
		t.Errorf("it waits: %+v, %+v", then, then.Waits)
	}
	if at := h.agent.undecided(); at != begin {
		t.Errorf("the log may be trimmed up to %d, and the mapping needs %d", at, begin)
	}
	h.restart()
	h.connect()
	d = d.again()
	if again := h.then(m); again.ID != then.ID || again.Waits == nil || again.From != begin {
		t.Errorf("after a restart it is %+v", again)
	}
	if at := h.agent.undecided(); at != begin {
		t.Errorf("after a restart the log may be trimmed up to %d, and the mapping needs %d", at, begin)
	}
	if info, err := h.agent.SetView(t.Context(), "ann", then.ID, view(t, `{"properties":{"heart_rate":{"round":10}}}`)); err != nil || info.Waits == nil {
		t.Fatalf("its view is set: %+v, %v", info, err)
	}
	if lines, err := h.agent.Explain(then.ID); err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "waits: ") {
		t.Errorf("it explains %q, %v", lines, err)
	}
	h.next.mu.Lock()
	h.next.mute = true // the answer is lost
	h.next.mu.Unlock()
	h.meet()
	for asked := 0; asked == 0; time.Sleep(5 * time.Millisecond) {
		h.next.mu.Lock()
		asked = len(h.next.asked)
		h.next.mu.Unlock()
	}
	h.restart() // row T12
	h.connect()
	d = d.again()
	h.next.mu.Lock()
	h.next.mute = false
	h.next.mu.Unlock()
	began := h.untilThen(m)
	if at := h.agent.undecided(); at > begin {
		t.Errorf("before its first frame the log may be trimmed up to %d, and the mapping needs %d", at, begin)
	}
	h.restart() // row T13
	h.connect()
	d = d.again()
	if at := h.agent.undecided(); at > begin {
		t.Errorf("after a restart before its first frame the log may be trimmed up to %d, and the mapping needs %d", at, begin)
	}
	h.connectNext()
	d.send(heart(time.Now(), 90))
	h.next.untilHolds(4)
	var values []float64
	for _, x := range h.next.values(began.Stream, "heart_rate") {
		values = append(values, x.Value.Num)
	}
	if !slices.Equal(values, []float64{70, 70, 70, 90}) || began.ID != then.ID || !slices.Equal(slices.Compact(h.next.asked), []carnet.StreamID{began.Stream}) {
		t.Errorf("the target holds %v of %+v, asked for %v", values, began, h.next.asked)
	}
	if got := h.stated(t, ledger.MappingMoved); len(got) != 1 || got[0].Mapping != m.ID || got[0].Avatar != m.Avatar {
		t.Errorf("stated: %+v", got)
	}
}

func TestAMappingThatWaitsCanBeEnded(t *testing.T) {
	h := newUnmet(t)
	d, m, _ := h.moved(`{"properties":{"heart_rate":{}}}`, nil)
	then := h.then(m)
	if info, err := h.agent.Unmap(t.Context(), "ann", then.ID); err != nil || !info.Stopped {
		t.Fatalf("it ends as %+v, %v", info, err)
	}
	h.meet()
	h.restart()
	info, err := h.agent.Thing(t.Context(), d.id)
	if err != nil || len(info.Waiting) != 0 || len(info.Mappings) != 1 || len(h.next.asked) != 0 {
		t.Errorf("after its end there is %+v, %v", info, err)
	}
	if _, err := h.agent.SetView(t.Context(), "ann", then.ID, view(t, `{"properties":{}}`)); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("its view: %v", err)
	}
}

// TestTheTermsViewIsForAllThings takes of it what is of the thing, and waits for
// another where it can't be used.
func TestTheTermsViewIsForAllThings(t *testing.T) {
	h := newMovable(t)
	_, m, _ := h.moved(`{"properties":{"heart_rate":{}}}`, func(v *relocation) {
		v.terms.View = []byte(`{"properties":{"heart_rate":{"round":7},"pressure":{}}}`)
	})
	then := h.untilThen(m)
	if _, of := then.OwnerView.Properties["heart_rate"]; !of || len(then.OwnerView.Properties) != 1 {
		t.Errorf("the view is %+v", then.OwnerView)
	}
	h.world.disconnect()
	d, m, _ := h.moved(`{"properties":{"heart_rate":{}}}`, func(v *relocation) {
		v.terms.View = []byte(`{"properties":{"heart_rate":{}},"store":["world"]}`)
	})
	d.send(heart(time.Now(), 75))
	waits := h.then(m)
	if waits.Waits == nil || !strings.Contains(waits.Waits.For, "view") || len(waits.OwnerView.Properties) != 0 {
		t.Fatalf("with a view that can't be used it is %+v", waits)
	}
	if _, err := h.agent.SetView(t.Context(), "ann", waits.ID, view(t, `{"properties":{"heart_rate":{}},"store":["world"]}`)); err == nil {
		t.Error("that view is taken after all")
	}
	if _, err := h.agent.SetView(t.Context(), "ann", waits.ID, view(t, `{"properties":{"heart_rate":{"round":10}}}`)); err != nil {
		t.Fatal(err)
	}
	then = h.untilThen(m)
	h.connectNext()
	h.next.until("it has come", func() bool { return h.next.heads[then.Stream] != nil })
	if got := h.next.values(then.Stream, "heart_rate"); len(got) != 1 || got[0].Value.Num != 80 {
		t.Errorf("the target holds %+v", got)
	}
}

// TestAnAvatarMovesOnAgain: the next order is by the key that signed the first, which
// the register goes on with, and not by that which the new home has pinned.
func TestAnAvatarMovesOnAgain(t *testing.T) {
	h := newMovable(t)
	d, m, v := h.moved(`{"properties":{"heart_rate":{"rate":"10s"}}}`, nil)
	then := h.untilThen(m)
	h.connectNext()
	base := time.Now().Truncate(10 * time.Second).Add(-time.Minute)
	d.send(heart(base, 71))
	h.next.untilHolds(1)
	on := func(owner *relocation) *relocation {
		w := h.relocate(then)
		h.next.mu.Lock()
		w.head = *h.next.heads[then.Stream]
		h.next.mu.Unlock()
		w.owner = owner.owner
		w.order.Owner, w.order.Source, w.order.Target = did(w.owner), did(h.next.key), did(newKey())
		w.decision.Homes[0].World = w.order.Target
		return w
	}
	source, err := h.agent.Source("citadel")
	if err != nil {
		t.Fatal(err)
	}
	source.Notice(carnet.NoticeMoved, on(&relocation{owner: v.next}).notice(t))
	if info := h.untilRefused(then); info.Stopped {
		t.Fatal("an order by the key that the new home has pinned is taken")
	}
	w := on(v)
	source.Notice(carnet.NoticeMoved, w.notice(t))
	h.next.until("it hears that the stream has ended", func() bool { return slices.Contains(h.next.ended, then.Stream) })
	third := h.then(then)
	if third.Waits == nil || third.Waits.Target != w.order.Target || third.From <= then.From {
		t.Errorf("the third mapping is %+v", third)
	}
}

// TestTheRestoredGoOnAtTheTarget restores the agent to before it heard of a move: it
// is told again, and asks for the same stream. What the target has comes no more.
func TestTheRestoredGoOnAtTheTarget(t *testing.T) {
	for name, c := range map[string]struct{ copied, head int }{
		"the head is recorded":         {5, 3},
		"the head's record is lost":    {3, 5},
		"the head is that of the copy": {4, 4},
	} {
		t.Run(name, func(t *testing.T) {
			h := newMovable(t)
			d := h.add(quick())
			m := h.mapTo(d, `{"properties":{"heart_rate":{"rate":"10s"}}}`)
			h.own(m)
			h.connect()
			start := time.Now().Truncate(10 * time.Second).Add(-time.Hour)
			send := func(i int) { d.send(heart(start.Add(time.Duration(i)*10*time.Second), float64(60+i))) }
			var copied *memory
			var v *relocation
			for i := range 7 {
				send(i)
				h.world.untilHolds(i + 1)
				if i+1 == c.head {
					v = h.relocate(m)
				}
				if i+1 == c.copied {
					if err := h.agent.barrier(t.Context()); err != nil {
						t.Fatal(err)
					}
					copied = h.store.copy()
				}
			}
			notice := v.notice(t)
			h.tell(notice)
			h.untilEnded(m.Stream)
			h.connectNext()
			first := h.untilThen(m)
			send(7)
			h.next.untilHolds(8 - c.head)
			h.world.disconnect()
			h.next.disconnect()
			h.stop()
			h.store = copied
			h.start()
			d = d.again()
			h.connect()
			h.connectNext()
			for h.agent.sender("arena").current() == nil || h.agent.sender("citadel").current() == nil {
				time.Sleep(time.Millisecond)
			}
			h.tell(notice)
			then := h.untilThen(m)
			if then.Stream != first.Stream || then.ID == first.ID {
				t.Errorf("the mapping that goes on is %+v, and was %+v", then, first)
			}
			send(8)
			h.next.untilHolds(9 - c.head)
			var values []float64
			for _, x := range h.next.values(then.Stream, "heart_rate") {
				values = append(values, x.Value.Num)
			}
			var want []float64
			for i := c.head; i < 9; i++ {
				want = append(want, float64(60+i))
			}
			if !slices.Equal(values, want) {
				t.Errorf("the target holds %v, want %v", values, want)
			}
			gaps := slices.DeleteFunc(h.stated(t, ledger.Gap), func(s ledger.Statement) bool { return s.Stream != m.Stream })
			if lost := c.copied < c.head; lost != (len(gaps) == 1) || lost && gaps[0].From != uint64(c.head) {
				t.Errorf("gaps that are stated: %+v", gaps)
			}
		})
	}
}

// TestACrashWhileAMoveIsStored is row T10: nothing of it is there, and it is told again.
func TestACrashWhileAMoveIsStored(t *testing.T) {
	h := newMovable(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.own(m)
	h.connect()
	d.send(heart(time.Now().Add(-time.Hour), 60))
	h.world.untilHolds(1)
	v := h.relocate(m)
	h.store.failing(func(g *Group) error {
		if slices.ContainsFunc(g.Documents, func(d carnet.Document) bool { return d.Kind == kindOnward }) {
			return errors.New("the disk is gone")
		}
		return nil
	})
	notice := v.notice(t)
	h.tell(notice)
	h.until(func() bool { return h.agent.failed() })
	h.world.disconnect()
	h.stop()
	h.store.failing(nil)
	h.start()
	if info, err := h.agent.Mapping(m.ID); err != nil || info.Stopped || info.Moved != nil {
		t.Errorf("after the crash the mapping is %+v, %v", info, err)
	}
	h.connect()
	h.tell(notice)
	h.untilEnded(m.Stream)
	if then := h.untilThen(m); then.World != "citadel" {
		t.Errorf("told again it is %+v", then)
	}
}

func (h *movable) until(ok func() bool) {
	h.tb.Helper()
	wait.Until(h.tb, "what is waited for", ok)
}

// failed reports whether the agent's store has failed.
func (a *Agent) failed() bool {
	a.groupMu.Lock()
	defer a.groupMu.Unlock()
	return a.stopped != nil
}

// TestWhatWasTrimmedIsAGap: an agent that hears of a move long after its head doesn't
// have all any more, and says so.
func TestWhatWasTrimmedIsAGap(t *testing.T) {
	h := newMovable(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.own(m)
	h.connect()
	at := time.Now().Add(-time.Hour)
	send := func(n int) {
		for i := range n {
			d.send(heart(at.Add(time.Duration(i)*time.Second), 60))
		}
		at = at.Add(time.Minute)
	}
	send(1)
	h.world.untilHolds(1)
	v := h.relocate(m)
	send(3)
	h.world.untilHolds(4)
	if err := h.agent.barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := h.store.LogIndex(context.Background(), 4, 1)
	if err != nil || len(rows) == 0 {
		t.Fatal(err)
	}
	if _, err := h.store.TrimLog(t.Context(), rows[0].Received); err != nil {
		t.Fatal(err)
	}
	h.tell(v.notice(t))
	h.untilEnded(m.Stream)
	then := h.untilThen(m)
	gaps := slices.DeleteFunc(h.stated(t, ledger.Gap), func(s ledger.Statement) bool { return s.Stream != then.Stream })
	if len(gaps) != 1 || gaps[0].From != 2 || gaps[0].To != rows[0].First-1 {
		t.Errorf("gaps that are stated: %+v, the log has %d on", gaps, rows[0].First)
	}
	h.connectNext()
	send(1)
	h.next.until("the last has come", func() bool {
		return slices.ContainsFunc(h.next.got, func(g got) bool { return g.Time == at.Add(-time.Minute).UnixNano() })
	})
}

// TestAnAvatarThatMovesOn: a target from which the avatar has left before its thing's
// agent came says where it went, and that is followed if it is proved; over restarts.
func TestAnAvatarThatMovesOn(t *testing.T) {
	h := newUnmet(t)
	d, m, first := h.moved(`{"properties":{"heart_rate":{}}}`, nil)
	was := h.then(m)
	d.send(heart(time.Now().Add(-30*time.Minute), 70))
	back := *first
	back.order.Crossing, back.order.Source, back.order.Target = carnet.NewCrossingID(), did(h.next.key), did(h.world.key)
	back.terms.Avatar, back.terms.To = first.terms.To, carnet.NewAvatarID()
	back.decision.Crossing, back.decision.Homes = back.order.Crossing, []ident.HomeAt{{Home: back.order.Homes[0], Version: 3, World: back.order.Target}}
	tells := func(v relocation) {
		var moved carnet.Moved
		if err := json.Unmarshal(v.notice(t), &moved); err != nil {
			t.Fatal(err)
		}
		moved.NextBatch, moved.NextFirst = 0, 0
		h.next.mu.Lock()
		defer h.next.mu.Unlock()
		h.next.moved = &moved
	}
	forged := back
	forged.owner = newKey()
	forged.order.Owner = did(forged.owner)
	tells(forged)
	h.world.mu.Lock()
	h.world.avatar = &back.terms.To
	h.world.mu.Unlock()
	h.meet()
	h.connectNext()
	h.next.until("it is asked", func() bool { return len(h.next.maps) > 0 })
	h.untilWaits(m, "isn't by the avatar's owner")
	tells(back)
	then := h.untilThen(m)
	if then.ID != was.ID || then.World != "arena" || then.Avatar != back.terms.To || then.Stream == m.Stream || then.From != was.From {
		t.Errorf("it goes on as %+v, was to as %+v", then, was)
	}
	h.world.until("what came since is there", func() bool { return h.world.heads[then.Stream] != nil })
	h.world.mu.Lock()
	asked := h.world.maps[len(h.world.maps)-1]
	h.world.mu.Unlock()
	word, err := ident.OpenOnward(asked.Onward)
	if err != nil || word.Crossing != back.order.Crossing || word.Former != m.Stream || word.Stream != then.Stream || word.Sender != did(h.key) || word.Target != did(h.world.key) {
		t.Errorf("the agent's word is %+v, %v", word, err)
	}
	h.restart()
	if again := h.then(m); again.ID != then.ID || again.Waits != nil {
		t.Errorf("after a restart it is %+v", again)
	}
	if got := h.stated(t, ledger.MappingMoved); len(got) != 2 || got[1].Peer != "citadel" || got[1].Avatar != first.terms.To {
		t.Errorf("stated: %+v", got)
	}
}

// untilWaits waits until what follows a mapping says why it waits.
func (h *movable) untilWaits(m MappingInfo, why string) {
	h.tb.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if then := h.then(m); then.Waits != nil && strings.Contains(then.Waits.For, why) {
			return
		}
	}
	h.tb.Fatalf("it waits: %+v", h.then(m).Waits)
}

// TestAMappingThatMovesBeforeItsFirstFrame: it begins at the next home where it was to
// begin, though frames of before it cover what came since.
func TestAMappingThatMovesBeforeItsFirstFrame(t *testing.T) {
	h := newUnmet(t)
	d, m, first := h.moved(`{"properties":{"heart_rate":{}}}`, nil)
	other := h.add(quick())
	h.mapTo(other, `{"properties":{"heart_rate":{}}}`)
	d.send(heart(time.Now().Add(-30*time.Minute), 70))
	other.send(heart(time.Now().Add(-29*time.Minute), 50))
	h.world.untilHolds(2)
	h.world.disconnect()
	back := h.onward(first, h.next, h.world)
	h.next.mu.Lock()
	h.next.moved = &back.moved
	h.next.mu.Unlock()
	h.world.mu.Lock()
	h.world.avatar = &back.terms.To
	h.world.mu.Unlock()
	h.meet()
	there := h.untilThen(m)
	if there.World != "arena" {
		t.Fatalf("it goes on as %+v", there)
	}
	again := h.onward(&back.relocation, h.world, h.next)
	h.next.mu.Lock()
	h.next.moved, h.next.avatar = nil, &again.terms.To
	h.next.mu.Unlock()
	again.moved.Stream = there.Stream
	h.tell(told(t, again.moved))
	then := h.untilThen(there)
	if then.World != "citadel" || then.From != there.From {
		t.Errorf("it goes on from %d as %+v, was to from %d", then.From, then, there.From)
	}
	h.connectNext()
	h.next.untilHolds(1)
	if got := h.next.values(then.Stream, "heart_rate"); len(got) != 1 || got[0].Value.Num != 70 {
		t.Errorf("citadel holds %v", got)
	}
}

// further is a move on from where another one went.
type further struct {
	relocation
	moved carnet.Moved // of a stream of which nothing moved
}

func (h *movable) onward(before *relocation, from, to *world) further {
	h.tb.Helper()
	f := further{relocation: *before}
	f.order.Crossing, f.order.Source, f.order.Target = carnet.NewCrossingID(), did(from.key), did(to.key)
	f.terms.Avatar, f.terms.To = before.terms.To, carnet.NewAvatarID()
	f.decision.Crossing, f.decision.Homes = f.order.Crossing, []ident.HomeAt{{Home: f.order.Homes[0], Version: before.decision.Homes[0].Version + 1, World: f.order.Target}}
	if err := json.Unmarshal(f.notice(h.tb), &f.moved); err != nil {
		h.tb.Fatal(err)
	}
	f.moved.NextBatch, f.moved.NextFirst = 0, 0
	return f
}
