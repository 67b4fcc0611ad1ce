package share_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/crossing"
	"carnet/identity"
	"carnet/link"
	"carnet/seal"
)

// strange answers some of a giver's calls in citadel's place.
type strange struct {
	crossing.Sink
	answer func(kind string) (answer []byte, err error, instead bool)
	heard  atomic.Int32
}

func (s *strange) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	if answer, err, instead := s.answer(kind); instead {
		s.heard.Add(1)
		return answer, err
	}
	return s.Sink.Call(ctx, party, kind, body)
}

// A taker that answers nonsense, too much or with an error gets nothing by it; once it
// answers as it should, it has everything once.
func TestShareWithAStrangeTaker(t *testing.T) {
	again, nonsense := carnet.Errorf(carnet.Unavailable, "not now"), []byte(`{"heads": [7]}`)
	backwards, _ := json.Marshal(carnet.HeadsPage{Heads: []carnet.StreamHead{{Stream: carnet.StreamID{9}}, {Stream: carnet.StreamID{3}}}})
	for name, c := range map[string]struct {
		kind   string
		answer []byte
		err    error
	}{
		"heads that can't be read":           {carnet.CallHeads, nonsense, nil},
		"heads that are no JSON":             {carnet.CallHeads, []byte(strings.Repeat("[", 900_000)), nil},
		"heads out of order":                 {carnet.CallHeads, backwards, nil},
		"no heads":                           {carnet.CallHeads, nil, again},
		"streams refused for the moment":     {crossing.CallStream, nil, again},
		"no space for streams":               {crossing.CallStream, nil, carnet.Errorf(carnet.NoSpace, "full")},
		"an error without a code":            {crossing.CallStream, nil, errors.New("oh")},
		"keys refused for the moment":        {carnet.CallBag, nil, again},
		"keys refused":                       {carnet.CallBag, nil, carnet.Errorf(carnet.Malformed, "what is that?")},
		"something else than nothing, and a": {crossing.CallStream, []byte(`{"share": 1}`), again},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, `{"properties": {"heart_rate": {}, "steps": {"round": 10}}}`)
			var well atomic.Bool
			var s *strange
			p.citadel.stop()
			p.instead = func(sink crossing.Sink) link.Sink {
				s = &strange{Sink: sink, answer: func(kind string) ([]byte, error, bool) { return c.answer, c.err, kind == c.kind && !well.Load() }}
				return s
			}
			p.start(p.citadel)
			h := p.hub.open(p.arena, &p.theirs)
			p.take()
			p.hub.send(h.seal(health, beat(1, 61)), h.seal(health, steps(1, 11)))
			p.eventually("citadel has answered twice", func() bool { return s.heard.Load() >= 2 })
			if got := p.here(p.citadel, p.ours); len(got) != 0 {
				t.Errorf("citadel has %v", got)
			}
			well.Store(true)
			p.hub.send(h.seal(health, beat(2, 62)))
			p.eventually("citadel has it", func() bool { return len(p.here(p.citadel, p.ours)["heart_rate"]) >= 2 })
			got := p.here(p.citadel, p.ours)
			if !slices.Equal(got["heart_rate"], []carnet.Measurement{beat(1, 61), beat(2, 62)}) || !slices.Equal(got["steps"], []carnet.Measurement{steps(1, 10)}) {
				t.Errorf("citadel has %v", got)
			}
			if given := p.arena.shares.Given(); len(given) != 1 || given[0].End != nil {
				t.Errorf("arena gives %+v", given)
			}
		})
	}
}

// A taker whose streams have no end is asked no more than so many.
func TestShareWithATakerOfEndlessStreams(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	p.citadel.stop()
	asked := 0
	p.instead = func(sink crossing.Sink) link.Sink {
		return &strange{Sink: sink, answer: func(kind string) ([]byte, error, bool) {
			page := carnet.HeadsPage{More: true}
			for i := range 1 << 12 {
				var id carnet.StreamID
				binary.BigEndian.PutUint64(id[:], uint64(asked<<12+i+1))
				page.Heads = append(page.Heads, carnet.StreamHead{Stream: id})
			}
			body, err := json.Marshal(page)
			if kind == carnet.CallHeads {
				asked++
			}
			return body, err, kind == carnet.CallHeads
		}}
	}
	p.start(p.citadel)
	p.hub.open(p.arena, &p.theirs)
	p.eventually("arena stops asking", func() bool {
		return strings.Contains(p.sender.Status().LastError, fmt.Sprintf("more than %d streams", carnet.MaxHeads))
	})
}

// hoarder is a taker that has had whatever is asked for, and much of it.
type hoarder struct {
	crossing.Sink
	of carnet.StreamID
}

func (h hoarder) Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error) {
	switch kind {
	case carnet.CallHeads:
		return json.Marshal(carnet.HeadsPage{Heads: []carnet.StreamHead{{Stream: h.of, NextFirst: 1 << 40}}})
	case crossing.CallHave:
		var asked struct{ From uint64 }
		if err := json.Unmarshal(body, &asked); err != nil {
			return nil, err
		}
		const page, most = 16384, 600_000
		have := make([]byte, page*16)
		for i := range page {
			binary.BigEndian.PutUint64(have[i*16:], asked.From+uint64(i))
		}
		if asked.From > most {
			return json.Marshal(map[string]any{"next": asked.From})
		}
		return json.Marshal(map[string]any{"next": asked.From + page, "have": have})
	}
	return nil, nil
}

// A taker that says it had much of many shares before fills no giver's memory: what it has
// of all is bounded, and what is beyond waits.
func TestShareWithATakerThatHadMuch(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.citadel.stop()
	p.instead = func(sink crossing.Sink) link.Sink { return hoarder{sink, s.id} }
	p.start(p.citadel)
	for range 2 {
		if _, err := p.ask().Ask(t.Context(), "arena", crossing.Question{ID: carnet.NewShareID(), Avatar: p.theirs, For: p.ours, Purpose: "fitness", Taking: true}); err != nil {
			t.Fatal(err)
		}
	}
	waits := func() (which []carnet.ShareID) {
		for _, g := range p.arena.shares.Given() {
			if g.End != nil && g.End.By != "operator" {
				t.Fatalf("a share has ended: %+v", g.End)
			}
			if strings.Contains(p.arena.shares.Aside(g.ID), "other shares") {
				which = append(which, g.ID)
			}
		}
		return which
	}
	p.eventually("one of them waits", func() bool { return len(waits()) == 1 })
	for _, g := range p.arena.shares.Given() {
		if g.ID != waits()[0] {
			if err := p.arena.shares.StopGiving(t.Context(), g.ID, "operator", "enough"); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	p.eventually("none waits", func() bool { return len(waits()) == 0 })
}

// A giver that says what it may not gets a refusal, and leaves nothing behind.
func TestShareWithAStrangeGiver(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	share := p.take()
	p.hub.send(s.seal(health, beat(1, 61)))
	p.eventually("citadel has the first", func() bool { return len(p.here(p.citadel, p.ours)) == 1 })
	p.arena.stop() // the test speaks in its place, with its keys
	w := p.citadel
	sink := crossing.Sink{Sink: w.agent, Shares: w.shares}
	stream := carnet.NewStreamID()
	body := func(v any) []byte {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	type call map[string]any
	for name, c := range map[string]struct {
		kind string
		body []byte
		want carnet.Code
	}{
		"a stream that can't be read":   {crossing.CallStream, []byte(`{"share": 7}`), carnet.Malformed},
		"a stream cut short":            {crossing.CallStream, body(call{"share": share.ID, "stream": stream})[:40], carnet.Malformed},
		"a stream of no share":          {crossing.CallStream, body(call{"share": carnet.NewShareID(), "stream": stream}), carnet.NotFound},
		"no stream":                     {crossing.CallStream, body(call{"share": share.ID, "stream": carnet.StreamID{}}), carnet.Malformed},
		"an end that can't be read":     {crossing.CallEnd, []byte(`[]`), carnet.Malformed},
		"an end of no share":            {crossing.CallEnd, body(call{"share": carnet.NewShareID()}), carnet.NotFound},
		"a question that can't be read": {crossing.CallHave, []byte(`"?"`), carnet.Malformed},
		"a question about no share":     {crossing.CallHave, body(call{"share": carnet.NewShareID(), "stream": s.id}), carnet.NotFound},
		"gifts that can't be read":      {crossing.CallGives, []byte(`{"shares": 1}`), carnet.Malformed},
		"gifts that are no names":       {crossing.CallGives, body(call{"shares": []call{{"share": share.ID, "properties": []string{"\n"}}}}), carnet.Malformed},
		"a wish for an avatar":          {carnet.CallMap, body(carnet.MapRequest{Stream: stream}), carnet.Forbidden},
		"a key bag that is none":        {carnet.CallBag, []byte("keys"), carnet.Malformed},
		"something that nobody knows":   {"share-all", nil, carnet.Malformed},
	} {
		if _, err := sink.Call(t.Context(), "arena", c.kind, c.body); carnet.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	// Another peer can't speak of it, nor ask what is there.
	for _, kind := range []string{crossing.CallStream, crossing.CallEnd, crossing.CallHave} {
		if _, err := sink.Call(t.Context(), "hub", kind, body(call{"share": share.ID, "stream": s.id})); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("hub says %s of a share that isn't its: %v", kind, err)
		}
	}
	// What isn't this share's isn't told.
	var had struct {
		Next uint64 `json:"next"`
		Have []byte `json:"have"`
	}
	for _, of := range []struct {
		stream carnet.StreamID
		want   int
	}{{stream, 0}, {s.id, 16}} {
		answer, err := sink.Call(t.Context(), "arena", crossing.CallHave, body(call{"share": share.ID, "stream": of.stream}))
		if err := errors.Join(err, json.Unmarshal(answer, &had)); err != nil || len(had.Have) != of.want {
			t.Errorf("asked what it has of a stream, citadel says %s, %v", answer, err)
		}
		had.Have = nil
	}
	// Frames: of a stream that isn't entered; cut short; again; with another hash.
	state, err := sink.Register(t.Context(), "arena", link.Nonce{77}, 99)
	if err != nil {
		t.Fatal(err)
	}
	key := seal.NewEpoch(stream)
	slot, err := key.Slot(0)
	if err != nil {
		t.Fatal(err)
	}
	whole := sealed(t, slot, 0, 0, health, []carnet.Measurement{beat(2, 62)})
	frame := func(number uint64, previous carnet.Fingerprint, batches ...[]byte) *link.Arrival {
		var f seal.Frame
		if err := f.Sign(p.arena.id.Key, seal.FrameHeader{
			Audience: "citadel", Incarnation: state.Incarnation, Number: number, Previous: previous, Time: time.Now().UnixNano(),
		}, batches); err != nil {
			t.Fatal(err)
		}
		a := &link.Arrival{Bytes: f.AppendWire(nil)}
		if err := errors.Join(a.Frame.Parse(a.Bytes), a.Frame.Verify(public(p.arena.id.Key), "citadel")); err != nil {
			t.Fatal(err)
		}
		a.Hash = a.Frame.Hash()
		return a
	}
	next := frame(state.Last.Number+1, state.Last.Hash, whole, whole[:len(whole)-9])
	other := frame(state.Last.Number+1, state.Last.Hash, whole)
	for _, step := range []struct {
		a    *link.Arrival
		want link.Verdict
	}{{next, link.Next}, {next, link.Again}, {other, link.Forked}, {frame(state.Last.Number+3, next.Hash, whole), link.Jumped}} {
		if verdicts, err := sink.Accept(t.Context(), "arena", []*link.Arrival{step.a}); err != nil || !slices.Equal(verdicts, []link.Verdict{step.want}) {
			t.Errorf("%v, %v, want %v", verdicts, err, step.want)
		}
	}
	p.eventually("both batches are refused", func() bool { return w.agent.Defects() == 2 })
	if got := p.here(w, p.ours); len(got["heart_rate"]) != 1 {
		t.Errorf("citadel has %v", got)
	}
	if heads, err := w.agent.Heads(p.ours); err != nil || len(heads) != 2 {
		t.Errorf("the avatar has the streams %v, %v", heads, err)
	}
	p.startArena(p.ask()) // so that the pair ends well
}

// A giver that never answers holds up nothing: the share can be ended, and a late
// answer begins nothing.
func TestShareWithASilentGiver(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	asked, answer := make(chan struct{}), make(chan struct{})
	ask := p.ask().(*asker)
	hang := func() { close(asked); <-answer }
	ask.hang.Store(&hang)
	took := make(chan crossing.Taken, 1)
	go func() {
		share, _ := p.citadel.shares.Take(t.Context(), "arena", p.theirs, p.ours, "fitness")
		took <- share
	}()
	<-asked
	ask.hang.Store(nil)
	share := p.citadel.shares.Taken()[0]
	if share.State != crossing.Asked {
		t.Errorf("the share is %s", share.State)
	}
	other, err := p.citadel.shares.Take(t.Context(), "arena", p.theirs, p.ours, "fitness")
	if err != nil || other.State != crossing.Taking {
		t.Errorf("another share is %s, %v", other.State, err)
	}
	if err := p.citadel.shares.StopTaking(t.Context(), share.ID, "operator", "enough"); err != nil {
		t.Fatal(err)
	}
	close(answer)
	if share := <-took; share.State != crossing.Ended {
		t.Errorf("after a late yes the share is %s", share.State)
	}

	// What comes byte by byte comes whole, once, and holds up nothing: another share is
	// ended meanwhile.
	s := p.hub.open(p.arena, &p.theirs)
	all := p.beats(s, 0, 2)
	p.has("before it is slow", all)
	p.proxy.slow.Store(true)
	third, err := p.citadel.shares.Take(t.Context(), "arena", p.theirs, p.avatarAt(p.citadel), "fitness")
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, p.beats(s, 2, 12)...)
	if err := p.citadel.shares.StopTaking(t.Context(), third.ID, "operator", "enough"); err != nil {
		t.Errorf("a share can't be ended while another comes slowly: %v", err)
	}
	p.has("byte by byte", all)
}

// Who shares with a world says nothing of whose the taker's avatar is, and hears nothing of
// what others send it.
func TestAGiverSaysAndHearsNothingOfItsTakersAvatar(t *testing.T) {
	p := newPair(t, `{"properties": {"heart_rate": {}}}`)
	s := p.hub.open(p.arena, &p.theirs)
	p.take()
	p.hub.send(s.seal(health, beat(1, 61)))
	p.eventually("citadel has the first", func() bool { return len(p.here(p.citadel, p.ours)) == 1 })
	word, err := identity.SignOwnership(owner, identity.Ownership{Audience: "citadel", Avatar: p.ours, Issued: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	call, err := json.Marshal(carnet.Own{Ownership: word})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.citadel.agent.Call(t.Context(), "arena", carnet.CallOwn, call); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("the giver pins an owner's key: %v", err)
	}
	if key, _ := p.citadel.agent.Owner(p.ours); key != nil {
		t.Errorf("the avatar's owner is %x", key)
	}
	answer, err := p.citadel.agent.Call(t.Context(), "arena", carnet.CallHeads, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	var page carnet.HeadsPage
	if err := json.Unmarshal(answer, &page); err != nil || len(page.Heads) == 0 {
		t.Fatalf("%v: %s", err, answer)
	}
	for _, h := range page.Heads {
		if len(h.Latest) > 0 {
			t.Errorf("the giver hears of %+v", h.Latest)
		}
	}
}
