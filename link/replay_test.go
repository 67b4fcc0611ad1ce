package link

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/seal"
)

// tape is a record in the making.
type tape struct {
	t        *testing.T
	n        *testNet
	recorder *Recorder
	bytes    []byte
	at       Position
	frames   [][]byte
}

func (n *testNet) tape(t *testing.T) *tape {
	r, err := NewRecorder()
	if err != nil {
		t.Fatal(err)
	}
	return &tape{t: t, n: n, recorder: r}
}

func (p *tape) call(kind string) *tape {
	p.t.Helper()
	var err error
	if p.bytes, err = p.recorder.AppendCall(p.bytes, kind, []byte(kind)); err != nil {
		p.t.Fatal(err)
	}
	return p
}

// frame records the next frame, with one item.
func (p *tape) frame(change ...func(*seal.FrameHeader)) *tape {
	p.t.Helper()
	h := seal.FrameHeader{Audience: p.n.arena.id, Incarnation: 1, Number: p.at.Number + 1, Previous: p.at.Hash, Time: 1}
	for _, c := range change {
		c(&h)
	}
	var f seal.Frame
	if err := f.Sign(p.n.hub.key, h, [][]byte{binary.BigEndian.AppendUint64(nil, h.Number)}); err != nil {
		p.t.Fatal(err)
	}
	p.at = Position{Number: h.Number, Hash: f.Hash()}
	p.frames = append(p.frames, f.AppendWire(nil))
	p.bytes = p.recorder.AppendFrame(p.bytes, p.frames[len(p.frames)-1])
	return p
}

func (p *tape) play() (uint64, error) {
	return p.n.server.Replay(p.t.Context(), Peer{Party: p.n.hub.id, Key: p.n.hub.public()}, 1, p.bytes, "bag")
}

// registered is a receiver at which the sender was connected once.
func registered(t *testing.T) *testNet {
	n := newNet(t, nil)
	if _, err := n.sink.Register(t.Context(), n.hub.id, Nonce{1}, 0); err != nil {
		t.Fatal(err)
	}
	return n
}

// What was recorded comes as if it came late: each call before its frame, what is
// stored already again, nothing twice.
func TestReplay(t *testing.T) {
	n := registered(t)
	first := n.tape(t).frame().frame()
	if last, err := first.play(); last != 2 || err != nil {
		t.Fatal(last, err)
	}
	first.call("bag").frame().call("bag").call("bag").frame()
	for range 2 {
		if last, err := first.play(); last != 4 || err != nil {
			t.Fatal(last, err)
		}
	}
	want := []string{"frame", "frame", "call bag", "frame", "call bag", "call bag", "frame"}
	if !slices.Equal(n.sink.events, want) || !slices.Equal(n.sink.items, []uint64{1, 2, 3, 4}) {
		t.Errorf("%v, items %v; want %v", n.sink.events, n.sink.items, want)
	}
}

// Nothing of a record is used in which anything is wrong, and it is said what.
func TestReplayRefuses(t *testing.T) {
	other := func(h *seal.FrameHeader) { h.Incarnation = 2 }
	for name, c := range map[string]struct {
		record func(*tape)
		code   carnet.Code
		why    string
	}{
		"junk":               {func(p *tape) { p.bytes = bytes.Repeat([]byte{7}, 99) }, carnet.Malformed, "isn't one"},
		"nothing":            {func(*tape) {}, carnet.Malformed, "end with a frame"},
		"cut off":            {func(p *tape) { p.frame().frame(); p.bytes = p.bytes[:len(p.bytes)-1] }, carnet.Malformed, "breaks off"},
		"calls at the end":   {func(p *tape) { p.frame().call("bag") }, carnet.Malformed, "end with a frame"},
		"another call":       {func(p *tape) { p.call("unmap").frame() }, carnet.Malformed, "has no place"},
		"another message":    {func(p *tape) { p.frame().frame(); p.bytes[4] = byte(kindAck) }, "", ""},
		"a changed batch":    {func(p *tape) { p.frame().frame(); p.bytes[len(p.bytes)-1] ^= 1 }, carnet.Tampered, ""},
		"another audience":   {func(p *tape) { p.frame().frame(func(h *seal.FrameHeader) { h.Audience = "clinic" }) }, "", ""},
		"another connection": {func(p *tape) { p.frame().frame(other) }, carnet.Malformed, "incarnation"},
		"a number left out":  {func(p *tape) { p.frame().frame(func(h *seal.FrameHeader) { h.Number++ }) }, carnet.Forked, "follow"},
		"another parent":     {func(p *tape) { p.frame().frame(func(h *seal.FrameHeader) { h.Previous[0] ^= 1 }) }, carnet.Forked, "follow"},
		"frames in wrong turn": {func(p *tape) {
			p.frame().frame()
			p.bytes = p.recorder.AppendFrame(p.recorder.AppendFrame(nil, p.frames[1]), p.frames[0])
		}, carnet.Forked, "follow"},
	} {
		t.Run(name, func(t *testing.T) {
			n := registered(t)
			p := n.tape(t)
			c.record(p)
			if _, err := p.play(); err == nil || c.code != "" && carnet.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, want %s: %s", err, c.code, c.why)
			}
			if len(n.sink.events) != 0 {
				t.Errorf("of it was used: %v", n.sink.events)
			}
		})
	}
}

// A record of a connection that isn't the last, one that leaves something out, or
// follows something else than what is stored, changes nothing, and fences nobody.
func TestReplayOfWhatDoesNotFollow(t *testing.T) {
	n := registered(t)
	p := n.tape(t).frame()
	if _, err := p.play(); err != nil {
		t.Fatal(err)
	}
	forked := n.tape(t).frame(func(h *seal.FrameHeader) { h.Time = 2 }).call("bag").frame()
	if _, err := forked.play(); carnet.CodeOf(err) != carnet.Forked {
		t.Errorf("a fork: %v", err)
	}
	gap := n.tape(t)
	gap.at = Position{Number: 2}
	gap.frame()
	if _, err := gap.play(); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a frame left out: %v", err)
	}
	if _, err := n.sink.Register(t.Context(), n.hub.id, Nonce{2}, 0); err != nil {
		t.Fatal(err)
	}
	p.frame()
	if _, err := p.play(); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("of a connection that is over: %v", err)
	}
	if !slices.Equal(n.sink.items, []uint64{1}) || n.sink.state.Incarnation != 2 || n.sink.state.Nonce != (Nonce{2}) {
		t.Errorf("items %v, state %+v", n.sink.items, n.sink.state)
	}
}
