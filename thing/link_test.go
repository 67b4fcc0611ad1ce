package thing

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/link"
	"carnet/td"
)

func TestAViewChangesInTheMiddle(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{"rate":"10s"}}}`)
	h.connect()
	start := time.Now().Add(-time.Hour).Truncate(20 * time.Second)
	send := func(i int) { d.send(heart(start.Add(time.Duration(i)*5*time.Second), float64(60+i))) }
	for i := range 5 { // admitted: 0, 2, 4
		send(i)
	}
	h.world.untilHolds(3)
	h.world.until("a frame says what is decided", func() bool {
		_, p, err := h.agent.sender("arena").position.open(h.world.state.Last.Covers)
		return err == nil && p == 6
	})
	if _, err := h.agent.SetView(t.Context(), "ann", m.ID, view(t, `{"properties":{"heart_rate":{"rate":"10s","round":10}}}`)); err != nil {
		t.Fatal(err)
	}
	for i := 5; i < 9; i++ { // 5 is in the interval of 4: the rate's state carries over
		send(i)
	}
	h.world.untilHolds(5)
	var values []float64
	for _, m := range h.world.values(m.Stream, "heart_rate") {
		values = append(values, m.Value.Num)
	}
	if !slices.Equal(values, []float64{60, 62, 64, 70, 70}) {
		t.Errorf("the world holds %v", values)
	}
	views, err := h.agent.Views(m.ID)
	if err != nil || len(views) != 2 || views[0].Since[0] != 1 || views[1].Since[0] != 6 {
		t.Errorf("the views are %+v, %v", views, err)
	}
}

// TestAViewSetWhileTheWorldIsAway decides everything that waits, and the history
// says so.
func TestAViewSetWhileTheWorldIsAway(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	start := time.Now().Add(-time.Hour)
	d.send(heart(start, 61))
	if _, err := h.agent.SetView(t.Context(), "ann", m.ID, view(t, `{"properties":{"heart_rate":{"round":10}}}`)); err != nil {
		t.Fatal(err)
	}
	d.send(heart(start.Add(time.Second), 68))
	h.connect()
	h.world.untilHolds(2)
	if got := h.world.values(m.Stream, "heart_rate"); got[0].Value.Num != 60 || got[1].Value.Num != 70 {
		t.Errorf("the world holds %+v", got)
	}
	if views, err := h.agent.Views(m.ID); err != nil || views[1].Since[0] != 1 {
		t.Errorf("the second view decides from %v, %v; want 1", views[1].Since, err)
	}
}

// TestAWorldsPolicyVersionsAreItsOwn: what an owner decides about other worlds
// must not show in what this one gets.
func TestAWorldsPolicyVersionsAreItsOwn(t *testing.T) {
	h := newHub(t)
	h.more = []carnet.PartyID{"clinic"}
	h.restart()
	d := h.add(quick())
	all := view(t, `{"properties":{"heart_rate":{}}}`)
	other, err := h.agent.Map(t.Context(), "ann", d.id, "clinic", nil, "", all)
	if err != nil {
		t.Fatal(err)
	}
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	start := time.Now().Add(-time.Hour)
	sent := 0
	send := func(want uint64) {
		t.Helper()
		d.send(heart(start.Add(time.Duration(sent)*time.Second), 60))
		sent++
		h.world.untilHolds(sent)
		h.world.mu.Lock()
		defer h.world.mu.Unlock()
		if got := h.world.frames[len(h.world.frames)-1].Header.Policy; got != want {
			t.Errorf("the frame with measurement %d is of policy version %d, want %d", sent, got, want)
		}
	}
	h.connect()
	send(1)
	if _, err := h.agent.SetView(t.Context(), "ann", other.ID, view(t, `{"properties":{}}`)); err != nil {
		t.Fatal(err)
	}
	send(1)
	h.restart()
	d = d.again()
	h.connect()
	send(1)
	if changed, err := h.agent.SetView(t.Context(), "ann", m.ID, all); err != nil || changed.PolicyVersion != 2 {
		t.Fatalf("the changed view has policy version %d, %v", changed.PolicyVersion, err)
	}
	send(2)
}

func TestAClosedSendWindowKeepsDataUntilTheViewOpens(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	closed := h.mapTo(d, `{"properties":{"heart_rate":{}},"send":{"UTC":[]}}`)
	open := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.connect()
	start := time.Now().Add(-time.Hour)
	for i := range 10 {
		d.send(heart(start.Add(time.Duration(i)*time.Second), 60))
	}
	h.world.untilHolds(10)
	if n := len(h.world.values(closed.Stream, "heart_rate")); n != 0 {
		t.Fatalf("%d measurements leave through a closed window", n)
	}
	h.restart() // what waits is still known to wait
	h.connect()
	d = d.again()
	d.send(heart(start.Add(time.Minute), 60))
	h.world.untilHolds(11)
	if got := h.agent.undecided(); got != 1 {
		t.Errorf("the log may be trimmed up to %d while a world waits for 1", got)
	}
	if _, err := h.agent.SetView(t.Context(), "ann", closed.ID, view(t, `{"properties":{"heart_rate":{}}}`)); err != nil {
		t.Fatal(err)
	}
	h.world.untilHolds(22)
	for _, m := range []MappingInfo{closed, open} {
		if n := len(h.world.values(m.Stream, "heart_rate")); n != 11 {
			t.Errorf("the world holds %d measurements of a stream, want 11", n)
		}
	}
}

func TestAnEndedMappingSendsNothing(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	ended := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	other := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	start := time.Now().Add(-time.Hour)
	d.send(heart(start, 60))
	if _, err := h.agent.Unmap(t.Context(), "ann", ended.ID); err != nil {
		t.Fatal(err)
	}
	h.connect()
	d.send(heart(start.Add(time.Second), 60))
	h.world.until("two of the other", func() bool { return len(h.world.got) >= 2 })
	if n := len(h.world.values(ended.Stream, "heart_rate")); n != 0 || len(h.world.values(other.Stream, "heart_rate")) != 2 {
		t.Errorf("the world holds %d measurements of a stream that has ended", n)
	}
	if h.world.calls[carnet.CallUnmap] != 1 {
		t.Error("the world doesn't hear that the stream has ended")
	}
	// Nothing shows it as if it gave, and no view makes it give again.
	lines, err := h.agent.Explain(ended.ID)
	if err != nil || !slices.Equal(lines, []string{"stopped: gets nothing more"}) {
		t.Errorf("it explains %q, %v", lines, err)
	}
	info, err := h.agent.Mapping(ended.ID)
	if err != nil || info.Got[0].Why != lines[0] {
		t.Errorf("the mapping is %+v, %v", info, err)
	}
	_, err = h.agent.SetView(t.Context(), "ann", ended.ID, view(t, `{"properties":{}}`))
	if carnet.CodeOf(err) != carnet.Conflict || !strings.Contains(err.Error(), "map it again: carnet thing map "+string(ended.Thing)+" --world arena --avatar "+ended.Avatar.String()) {
		t.Errorf("a view of it: %v", err)
	}
}

func TestTwoThingsSpeakForOneAvatar(t *testing.T) {
	h := newHub(t)
	avatar := carnet.NewAvatarID()
	h.world.avatar = &avatar
	a, b := h.add(quick()), h.add(quick())
	ma, mb := h.mapTo(a, `{"properties":{"heart_rate":{}}}`), h.mapTo(b, `{"properties":{"heart_rate":{}}}`)
	h.connect()
	at := time.Now().Add(-time.Minute)
	a.send(heart(at, 60))
	b.send(heart(at, 60)) // equal, but another thing's
	h.world.untilHolds(2)
	if ma.Avatar != mb.Avatar || len(h.world.values(ma.Stream, "heart_rate")) != 1 || len(h.world.values(mb.Stream, "heart_rate")) != 1 {
		t.Errorf("the streams hold %+v", h.world.got)
	}
}

// TestALargeBacklogIsDivided: no batch and no frame is over its limit, whatever
// waits.
func TestALargeBacklogIsDivided(t *testing.T) {
	h := newHub(t)
	h.world.maxFrame = minFrame
	note := strings.Replace(string(quick()), `"stress":{`, `"note":{"type":"string","carnet:sensitivity":["personal"],"carnet:linger":"PT0S","forms":[{"href":"x"}]},"stress":{`, 1)
	d := h.add([]byte(note))
	h.mapTo(d, `{"properties":{"note":{}}}`)
	at := time.Now().Add(-time.Hour)
	const messages, each = 40, 15
	for i := range messages {
		var ms []carnet.Measurement
		for k := range each {
			text := fmt.Sprintf("%d %d ", i, k) + strings.Repeat("x", 16_000)
			ms = append(ms, carnet.Measurement{Name: "note", Time: at.Add(time.Duration(i*each+k) * time.Second).UnixNano(), Value: carnet.String(text)})
		}
		d.send(ms...)
	}
	h.world.takes, h.world.loses = 3, true // and it resumes in the middle of the lane
	h.connect()
	h.world.untilHolds(messages * each)
	for i, g := range h.world.got {
		if want := fmt.Sprintf("%d %d ", i/each, i%each); !strings.HasPrefix(g.Value.Str, want) {
			t.Fatalf("measurement %d is %.10q, want %q", i, g.Value.Str, want)
		}
	}
	if n := len(h.world.frames); n < 10 {
		t.Errorf("10 MB come in %d frames", n)
	}
}

func TestDemandEndsLingering(t *testing.T) {
	h := newHub(t)
	d := h.add([]byte(strings.ReplaceAll(string(td.Watch()), "PT10S", "PT60S")))
	m := h.mapTo(d, `{"properties":{"steps":{}}}`)
	h.connect()
	d.send(steps(time.Now(), 1))
	source, err := h.agent.Source("arena")
	if err != nil {
		t.Fatal(err)
	}
	source.Notice(carnet.NoticeDemand, []byte(`{"stream":"`+m.Stream.String()+`","on":true}`))
	h.world.untilHolds(1)
}

func TestARunEndsWithItsConnection(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.connect()
	d.send(heart(time.Now(), 60))
	h.world.untilHolds(1)
	r := h.agent.sender("arena").current()
	h.world.disconnect()
	<-r.done
	status, err := h.agent.Status(t.Context())
	if err != nil || status.Links[0].Up {
		t.Errorf("the link is %+v, %v", status.Links[0], err)
	}
	d.send(heart(time.Now(), 61))
	if status, _ := h.agent.Status(t.Context()); status.Links[0].Lag != 1 {
		t.Errorf("the link lags by %d messages, want 1", status.Links[0].Lag)
	}
	if info, err := h.agent.Mapping(m.ID); err != nil || of(info.Got, "heart_rate").Sent != 1 {
		t.Errorf("the agent counts %+v", info.Got)
	}
}

// A world that has lost its store, or says so, takes nothing of what the agent can prove to
// have sent.
func TestWhatAWorldAcknowledgedStaysStated(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
	h.connect()
	for i := range 3 {
		d.send(heart(time.Now(), float64(60+i)))
		h.world.untilHolds(i + 1)
	}
	h.world.disconnect()
	sent, err := h.store.Sent(t.Context(), "arena", 0, 9)
	if err != nil || len(sent) == 0 {
		t.Fatalf("%d frames, %v", len(sent), err)
	}
	w := h.world
	w.mu.Lock()
	w.state, w.frames, w.at, w.got, w.heads = link.State{}, nil, nil, nil, map[carnet.StreamID]*carnet.StreamHead{}
	w.mu.Unlock()
	h.connect()
	w.untilHolds(3)
	w.disconnect()
	again, err := h.store.Sent(t.Context(), "arena", 0, 1)
	if err != nil || len(again) != 1 || again[0].Hash == sent[0].Hash {
		t.Fatalf("the first frame wasn't sent anew: %v", err)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for _, row := range sent {
		if !slices.ContainsFunc(h.store.items, func(i ledger.Item) bool { return i.ID == row.Statement.ID }) {
			t.Errorf("that frame %d was sent is stated no more", row.Number)
		}
	}
}

// TestStateIsTheSumOfItsChanges: at every frame, the records up to it make the
// state that the run had.
func TestStateIsTheSumOfItsChanges(t *testing.T) {
	h := newHub(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{"rate":"3s"},"steps":{"deadband":2}}}`)
	h.connect()
	start := time.Now().Add(-time.Hour)
	r := rand.New(rand.NewPCG(1, 2))
	s := h.agent.sender("arena")
	for i, compared := 0, 0; i < 150 || compared == 0 && i < 100_000; i++ {
		if i < 3000 {
			at := start.Add(time.Duration(i) * time.Second)
			d.send(heart(at, 60), steps(at, float64(r.IntN(10))))
		}
		if i%10 != 9 {
			continue
		}
		h.world.untilHolds(1)
		run := s.current()
		run.mu.Lock()
		number, state := run.number, map[uint32]string{}
		for n, c := range run.courses {
			if len(run.touched) > 0 {
				number = 0 // not all is recorded
			}
			state[n] = whole(t, c)
		}
		run.mu.Unlock()
		if number == 0 {
			continue
		}
		if err := h.agent.barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		merged := newRun(t.Context(), s, link.Resume{})
		if reached, err := s.merge(t.Context(), merged, number); err != nil {
			t.Fatal(err)
		} else if reached != number {
			continue // the frame is built and not recorded yet
		}
		compared++
		for n, c := range merged.courses {
			if got := whole(t, c); got != state[n] {
				t.Errorf("at frame %d the records make\n%x, the run has\n%x", number, got, state[n])
			}
		}
	}
	counted, err := h.agent.Counted(t.Context(), m.ID)
	if c := of(counted, "heart_rate"); err != nil || c.Sent == 0 || c.Withheld["rate"] < 2*c.Sent-4 {
		t.Errorf("counted %+v, %v", counted, err)
	}
}

func of(counts []PropertyCount, property string) PropertyCount {
	return counts[slices.IndexFunc(counts, func(c PropertyCount) bool { return c.Property == property })]
}

func whole(t *testing.T, c *course) string {
	b, err := c.appendWhole(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWhateverHappens does random things to an agent and its link, restores
// included, and compares what the world accepted with what devices sent.
func TestWhateverHappens(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { story(t, rand.New(rand.NewPCG(seed, 3))) })
	}
}

func story(t *testing.T, r *rand.Rand) {
	h := newHub(t)
	devices := []*device{h.add(quick()), h.add(quick())}
	var mappings []MappingInfo
	for _, d := range devices {
		mappings = append(mappings, h.mapTo(d, `{"properties":{"heart_rate":{},"steps":{}}}`))
	}
	rounds := []bool{false, false}
	want := map[got]int{} // stream and measurement → once
	var copied *memory
	start, n, connected := time.Now().Add(-2*time.Hour), 0, false
	again := func() {
		for i := range devices {
			devices[i] = devices[i].again()
		}
	}
	message := func() {
		i := r.IntN(len(devices))
		at := start.Add(time.Duration(n) * time.Second)
		if r.IntN(10) == 0 {
			at = at.Add(-time.Hour)
		}
		n++
		ms := []carnet.Measurement{heart(at, float64(r.IntN(200)))}
		if r.IntN(3) == 0 {
			ms = append(ms, steps(at, float64(n)))
		}
		for range 1 + r.IntN(2) {
			devices[i].send(ms...)
		}
		for _, m := range ms {
			if m.Name == "heart_rate" && rounds[i] {
				m.Value.Num = math.Round(m.Value.Num/10) * 10
			}
			want[got{stream: mappings[i].Stream, Measurement: m}] = 1
		}
	}
	connect := func() {
		if !connected {
			h.connect()
			connected = true
		}
	}
	settle := func() {
		connect()
		h.world.until("all is there", func() bool { return len(h.world.got) >= len(want) })
		if err := h.agent.barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 60 {
		switch op := r.IntN(20); {
		case op < 10:
			message()
		case op < 12:
			connect()
		case op < 14:
			h.world.mu.Lock()
			h.world.takes, h.world.loses = r.IntN(3), r.IntN(2) == 0
			h.world.mu.Unlock()
		case op < 16:
			if copied != nil {
				message() // a start that a restore loses must have reached the world
				settle()
			}
			h.restart()
			connected = false
			again()
		case op == 16:
			settle() // or it isn't sure which view decides
			i := r.IntN(len(devices))
			rounds[i] = !rounds[i]
			text := map[bool]string{true: `{"properties":{"heart_rate":{"round":10},"steps":{}}}`, false: `{"properties":{"heart_rate":{},"steps":{}}}`}[rounds[i]]
			copied = nil // its views are other views
			if _, err := h.agent.SetView(t.Context(), "ann", mappings[i].ID, view(t, text)); err != nil {
				t.Fatal(err)
			}
		case op == 17:
			copied = h.store.copy()
		case copied != nil:
			settle() // what only the lost store had would be lost
			h.world.disconnect()
			h.stop()
			h.store = copied.copy()
			h.start()
			connected = false
			again()
		}
	}
	settle()
	message()
	settle()
	have := map[got]int{}
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	for _, g := range h.world.got {
		g.number = 0
		have[g]++
	}
	if !maps.Equal(have, want) {
		for g, n := range have {
			if want[g] != n {
				t.Errorf("the world has %d times %+v", n, g.Measurement)
			}
		}
		for g := range want {
			if have[g] == 0 {
				t.Errorf("the world lacks %+v", g.Measurement)
			}
		}
	}
}
