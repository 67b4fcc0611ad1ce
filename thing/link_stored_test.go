package thing

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/link"
)

// TestWhatWasNotStoredIsNotSent has a commit fail whose group a link has taken
// already, into a lane or into a frame: the world gets nothing of it, and what
// the device sends again once.
func TestWhatWasNotStoredIsNotSent(t *testing.T) {
	for linger, taken := range map[string]func(*run) bool{
		"PT0S": func(r *run) bool { return r.frames.Load() > 0 }, // built, and waits for the next commit
		"PT2S": func(r *run) bool { r.mu.Lock(); defer r.mu.Unlock(); return r.held > 0 },
	} {
		t.Run(linger, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			d := h.add([]byte(strings.ReplaceAll(string(quick()), "PT0.03S", linger)))
			m := h.mapTo(d, `{"properties":{"steps":{}}}`)
			h.connect()
			now := time.Now()
			d.send(steps(now.Add(-3*time.Second), 60))
			h.world.untilHolds(1)
			entered, proceed := make(chan struct{}), make(chan struct{})
			full := false
			h.store.failing(func(g *Group) error {
				if g.Log == nil || full {
					return nil
				}
				full = true
				close(entered)
				<-proceed
				return carnet.Errorf(carnet.NoSpace, "full")
			})
			r := h.agent.sender("arena").current()
			d.submit(steps(now.Add(-2*time.Second), 61))
			<-entered
			for !taken(r) {
				time.Sleep(time.Millisecond)
			}
			close(proceed)
			if o := d.outcome(); o.Retry == nil {
				t.Fatalf("outcome %+v without space", o)
			}
			for h.agent.noSpaceFor() != nil {
				time.Sleep(time.Millisecond)
			}
			if r.ctx.Err() == nil {
				t.Error("a run goes on with what was not stored")
			}
			h.world.disconnect()
			h.connect()
			d.send(steps(now.Add(-time.Second), 62))
			d.send(steps(now.Add(-2*time.Second), 61))
			h.world.untilHolds(3)
			var values []float64
			for _, m := range h.world.values(m.Stream, "steps") {
				values = append(values, m.Value.Num)
			}
			if want := []float64{60, 62, 61}; !slices.Equal(values, want) {
				t.Errorf("the world holds %v, want %v", values, want)
			}
			if n := len(h.logged(d.id)); n != 3 {
				t.Errorf("the log holds %d measurements, want 3", n)
			}
		})
	}
}

// TestAFrameIsRecordedWithItsMessages has a link take a message from the open group
// and build a frame of it: one commit makes both durable.
func TestAFrameIsRecordedWithItsMessages(t *testing.T) {
	h := newHub(t)
	d := h.add([]byte(strings.ReplaceAll(string(quick()), "PT0.03S", "PT0S")))
	m := h.mapTo(d, `{"properties":{"steps":{}}}`)
	h.connect()
	now := time.Now()
	d.send(steps(now.Add(-3*time.Second), 60))
	h.world.untilHolds(1)
	entered, proceed := make(chan struct{}), make(chan struct{})
	together := make(chan bool, 1)
	first := uint64(0)
	h.store.failing(func(g *Group) error {
		switch {
		case g.Log == nil:
		case first == 0:
			first = g.Log.First
			close(entered)
			<-proceed
		case g.Log.First == first+1:
			together <- len(g.Sent) > 0 && g.Sent[len(g.Sent)-1].Batches == 1
		}
		return nil
	})
	r := h.agent.sender("arena").current()
	d.submit(steps(now.Add(-2*time.Second), 61))
	<-entered
	d.submit(steps(now.Add(-time.Second), 62))
	next := func() uint64 { r.mu.Lock(); defer r.mu.Unlock(); return r.told } // what the last frame covers
	for next() < first+2 {
		r.rouse()
		time.Sleep(time.Millisecond)
	}
	for r.frames.Load() == 0 || !h.agent.urgent() { // its record is in the open group
		time.Sleep(time.Millisecond)
	}
	close(proceed)
	if !<-together {
		t.Error("the frame of a message that was not committed is not recorded with it")
	}
	h.world.untilHolds(3)
	if n := len(h.world.values(m.Stream, "steps")); n != 3 {
		t.Errorf("the world holds %d measurements, want 3", n)
	}
}

// TestWhatCameBehindIsNotSent has a commit of nothing but documents fail while a
// link holds a message of the group behind it, which is refused with it.
func TestWhatCameBehindIsNotSent(t *testing.T) {
	h := newHub(t)
	d := h.add([]byte(strings.ReplaceAll(string(quick()), "PT0.03S", "PT2S")))
	m := h.mapTo(d, `{"properties":{"steps":{}}}`)
	h.connect()
	var r *run
	for r == nil {
		time.Sleep(time.Millisecond)
		r = h.agent.sender("arena").current()
	}
	now := time.Now()
	entered, proceed := make(chan struct{}), make(chan struct{})
	full := false
	h.store.failing(func(g *Group) error {
		if len(g.Documents) == 0 || full {
			return nil
		}
		full = true
		close(entered)
		<-proceed
		return carnet.Errorf(carnet.NoSpace, "full")
	})
	changed := make(chan error, 1)
	go func() {
		probe, err := h.agent.probe()
		if err == nil {
			err = h.agent.change(t.Context(), []carnet.Document{probe}, nil)
		}
		changed <- err
	}()
	<-entered
	d.submit(steps(now.Add(-2*time.Second), 61))
	held := func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.held }
	for held() == 0 {
		r.rouse()
		time.Sleep(time.Millisecond)
	}
	close(proceed)
	if err := <-changed; carnet.CodeOf(err) != carnet.NoSpace {
		t.Errorf("a change without space: %v", err)
	}
	if o := d.outcome(); o.Retry == nil {
		t.Fatalf("outcome %+v without space", o)
	}
	for h.agent.noSpaceFor() != nil {
		time.Sleep(time.Millisecond)
	}
	if r.ctx.Err() == nil {
		t.Error("a run goes on with what was not stored")
	}
	d.send(steps(now.Add(-time.Second), 62))
	h.world.untilHolds(1)
	if got := h.world.values(m.Stream, "steps"); len(got) != 1 || got[0].Value.Num != 62 {
		t.Errorf("the world holds %v, want 62 alone", got)
	}
	if n := len(h.logged(d.id)); n != 1 {
		t.Errorf("the log holds %d measurements, want 1", n)
	}
}

// noSpaceFor is why nothing is taken for the moment.
func (a *Agent) noSpaceFor() *carnet.Error {
	a.groupMu.Lock()
	defer a.groupMu.Unlock()
	return a.noSpace
}

// TestKeysAreGrantedAsLongAsTheDataIsKept maps a thing with a view that ends and
// one that keeps for good.
func TestKeysAreGrantedAsLongAsTheDataIsKept(t *testing.T) {
	h := newHub(t)
	d := h.add([]byte(strings.Replace(string(quick()), `"speed":{`, `"speed":{"carnet:retention":"keep",`, 1)))
	year := h.mapTo(d, `{"properties":{"speed":{}},"retention":"year"}`)
	keep := h.mapTo(d, `{"properties":{"speed":{}},"retention":"keep"}`)
	h.connect()
	now := time.Now()
	d.send(carnet.Measurement{Name: "speed", Unit: "m/s", Time: now.UnixNano(), Value: carnet.Float(3)})
	h.world.untilHolds(2)
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	if until := h.world.grants[year.Stream]; until.Before(now.AddDate(0, 0, 367)) || until.After(now.AddDate(0, 0, 370)) {
		t.Errorf("the keys of what is kept for a year are granted until %s", until)
	}
	if until := h.world.grants[keep.Stream]; until.Before(now.AddDate(99, 0, 0)) {
		t.Errorf("the keys of what is kept for good are granted until %s", until)
	}
}

// TestALostAnswerMakesNoSecondAvatar asks a world for an avatar, and the answer
// is lost: the agent asks for the same stream again, after a restart, too, and
// for another one once it has a mapping.
func TestALostAnswerMakesNoSecondAvatar(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	ask := func(mute bool) error {
		h.world.mute = mute
		_, err := h.agent.Map(t.Context(), "ann", d.id, "arena", nil, "", view(t, `{"properties":{"steps":{}}}`))
		return err
	}
	if err := ask(true); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("no answer: %v", err)
	}
	h.restart()
	for _, mute := range []bool{true, false, false} {
		if err := ask(mute); mute != (err != nil) {
			t.Errorf("asked again: %v", err)
		}
	}
	if a := h.world.asked; len(a) != 4 || a[0] != a[1] || a[1] != a[2] || a[2] == a[3] {
		t.Errorf("the world was asked for %v", a)
	}
}

// TestAChangeRecallsWhatHasNotLeft has frames built and waiting for a world that
// takes none, while its view changes or its stream ends: none of them leaves.
func TestAChangeRecallsWhatHasNotLeft(t *testing.T) {
	for name, change := range map[string]func(h *hub, id carnet.MappingID) error{
		"view": func(h *hub, id carnet.MappingID) error {
			_, err := h.agent.SetView(t.Context(), "ann", id, view(t, `{"properties":{}}`))
			return err
		},
		"unmap": func(h *hub, id carnet.MappingID) error {
			_, err := h.agent.changeMapping(t.Context(), "ann", id, func(doc *mappingDocument) error {
				doc.Stopped = true
				return nil
			})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			d := h.add(quick())
			m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
			h.connect()
			now := time.Now().Add(-time.Minute)
			d.send(heart(now, 60))
			h.world.untilHolds(1)
			r := h.agent.sender("arena").current()
			h.world.mu.Lock() // it takes nothing
			built := func() uint64 { r.mu.Lock(); defer r.mu.Unlock(); return r.number }
			for i := 1; r.frames.Load() < 5; i++ {
				before := built()
				d.send(heart(now.Add(time.Duration(i)*time.Second), 60))
				for built() == before {
					time.Sleep(time.Millisecond)
				}
			}
			if err := change(h, m.ID); err != nil {
				t.Error(err)
			}
			h.world.mu.Unlock()
			for h.agent.sender("arena").current() == r {
				time.Sleep(time.Millisecond)
			}
			other := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
			d.send(heart(now.Add(50*time.Second), 70))
			h.world.until("what comes after", func() bool {
				return slices.ContainsFunc(h.world.got, func(g got) bool { return g.stream == other.Stream })
			})
			// One that was built before may have been in the world's hand.
			if n := len(h.world.values(m.Stream, "heart_rate")); n > 2 {
				t.Errorf("%d measurements left under the view before", n-1)
			}
		})
	}
}

// A world can't ask for streams that aren't sent to it: what it wants is kept.
func TestDemandsForOthersStreamsAreNotKept(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	s := h.agent.sender("arena")
	demand := func(id carnet.StreamID, on bool) {
		body, err := json.Marshal(carnet.Demand{Stream: id, On: on})
		if err != nil {
			t.Fatal(err)
		}
		s.Notice(carnet.NoticeDemand, body)
	}
	demand(m.Stream, true)
	for range 100 {
		demand(carnet.NewStreamID(), true)
	}
	if len(s.demand) != 1 || !s.demanded(m.Stream) {
		t.Errorf("%d streams are wanted", len(s.demand))
	}
	demand(m.Stream, false)
	if len(s.demand) != 0 {
		t.Errorf("%d streams are wanted after all", len(s.demand))
	}
}

// A world that gives back another place in the log than it was told is refused;
// the agent goes on, and so does the link when the world does.
func TestAPlaceInTheLogThatIsNone(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	source, err := h.agent.Source("arena")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range byte(8) { // of 256 such places one may be taken for a right one
		last := link.Position{Number: 7, Covers: link.Covers{i}}
		err := source.Resume(t.Context(), link.Resume{Incarnation: 1, Last: last, MaxFrame: 4 << 20, Announcement: h.world.announced})
		if carnet.CodeOf(err) == carnet.Tampered {
			refused++
		}
	}
	if refused < 5 {
		t.Errorf("%d of 8 are refused", refused)
	}
	h.restart()
	d = d.again()
	h.connect()
	d.send(heart(time.Now(), 60))
	h.world.untilHolds(1)
	if n := len(h.world.values(m.Stream, "heart_rate")); n != 1 {
		t.Errorf("the world holds %d measurements", n)
	}
}
