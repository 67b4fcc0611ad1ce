package thing

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	ident "carnet/identity"
	"carnet/ledger"
	"carnet/policy"
)

// relocation is an avatar's move from arena to citadel, as its parties sign it.
type relocation struct {
	owner, registrar, next ed25519.PrivateKey // next: the owner's key for the target
	order                  ident.Order
	terms                  ident.MoveTerms
	decision               ident.Decision
	stream                 carnet.StreamID
	head                   carnet.StreamHead
}

func did(key ed25519.PrivateKey) string { return ident.DID(key.Public().(ed25519.PublicKey)) }

func newKey() ed25519.PrivateKey { _, key, _ := ed25519.GenerateKey(nil); return key }

// movable is a hub with a target for avatars and an owner's key with each mapping.
type movable struct {
	*hub
	owner ed25519.PrivateKey
}

func newMovable(tb testing.TB) *movable {
	h := newHub(tb)
	h.next = newWorldNamed(tb, "citadel", h.key.Public().(ed25519.PublicKey))
	h.restart()
	tb.Cleanup(func() { h.next.disconnect() })
	return &movable{h, newKey()}
}

func (h *movable) connectNext() {
	source, err := h.agent.Source("citadel")
	if err != nil {
		h.tb.Fatal(err)
	}
	h.next.connect(source)
}

// own has the owner's key kept with a mapping.
func (h *movable) own(m MappingInfo) {
	h.tb.Helper()
	token, err := ident.SignOwnership(h.owner, ident.Ownership{Audience: "arena", Avatar: m.Avatar, Issued: time.Now()})
	if err != nil {
		h.tb.Fatal(err)
	}
	if _, err := h.agent.Own(h.tb.Context(), m.ID, token); err != nil {
		h.tb.Fatal(err)
	}
}

// relocate is a move of the mapping's avatar, of which the source has what it has now.
func (h *movable) relocate(m MappingInfo) *relocation {
	v := &relocation{owner: h.owner, registrar: newKey(), next: newKey(), stream: m.Stream}
	v.order = ident.Order{
		Crossing: carnet.NewCrossingID(), Registrar: did(v.registrar), Owner: did(v.owner), Source: did(h.world.key), Target: did(h.next.key),
		Homes: []carnet.HomeID{carnet.NewHomeID()}, Made: time.Now().UTC().Truncate(time.Second),
	}
	v.order.Until = v.order.Made.Add(time.Hour)
	v.terms = ident.MoveTerms{Avatar: m.Avatar, Home: v.order.Homes[0], To: carnet.NewAvatarID(), Owner: did(v.next)}
	manifest := carnet.FingerprintOf([]byte("manifest"))
	v.decision = ident.Decision{
		Registrar: v.order.Registrar, Crossing: v.order.Crossing, Outcome: ident.Commit, Manifest: &manifest,
		Homes: []ident.HomeAt{{Home: v.order.Homes[0], Version: 2, World: v.order.Target}}, Time: v.order.Made,
	}
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	if head := h.world.heads[m.Stream]; head != nil {
		v.head = *head
	}
	h.next.avatar = &v.terms.To
	return v
}

// notice is what the source tells.
func (v *relocation) notice(tb testing.TB) []byte {
	tb.Helper()
	terms, err := v.terms.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	v.order.Terms = carnet.FingerprintOf(terms)
	order, err := ident.SignOrder(v.owner, v.order)
	if err != nil {
		tb.Fatal(err)
	}
	v.decision.Order = carnet.FingerprintOf([]byte(order))
	decision, err := ident.SignDecision(v.registrar, v.decision)
	if err != nil {
		tb.Fatal(err)
	}
	return told(tb, carnet.Moved{Stream: v.stream, Order: order, Terms: terms, Decision: decision, NextBatch: v.head.NextBatch, NextFirst: v.head.NextFirst})
}

func told(tb testing.TB, m carnet.Moved) []byte {
	tb.Helper()
	body, err := json.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

func (h *movable) tell(notice []byte) {
	source, err := h.agent.Source("arena")
	if err != nil {
		h.tb.Fatal(err)
	}
	source.Notice(carnet.NoticeMoved, notice)
}

// untilEnded waits until the source hears that the stream has ended.
func (h *movable) untilEnded(stream carnet.StreamID) {
	h.tb.Helper()
	h.world.until("it hears that the stream has ended", func() bool { return slices.Contains(h.world.ended, stream) })
}

// then is the mapping that follows another one.
func (h *movable) then(m MappingInfo) (then MappingInfo) {
	h.tb.Helper()
	then, found := h.after(m)
	if !found {
		h.tb.Fatalf("nothing follows the mapping %s", m.ID)
	}
	return then
}

func (h *movable) after(m MappingInfo) (then MappingInfo, found bool) {
	h.tb.Helper()
	info, err := h.agent.Thing(h.tb.Context(), m.Thing)
	if err != nil {
		h.tb.Fatal(err)
	}
	for _, o := range slices.Concat(info.Mappings, info.Waiting) {
		if o.Follows != nil && *o.Follows == m.ID {
			return o, true
		}
	}
	return then, false
}

// below are a property's values at a world, up to a number of the stream.
func (w *world) below(stream carnet.StreamID, property string, below uint64) (values []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.got {
		if g.stream == stream && g.Name == property && g.number < below {
			values = append(values, fmt.Sprintf("%d %v", g.Time, g.Value.Num))
		}
	}
	return values
}

const forGood = ^uint64(0)

// TestWhatASourceHeldBeyondItsManifestGoesToTheTarget: rates and deadbands go on as
// they stood, and nothing is lost or doubled.
func TestWhatASourceHeldBeyondItsManifestGoesToTheTarget(t *testing.T) {
	h := newMovable(t)
	d := h.add(quick())
	m := h.mapTo(d, `{"properties":{"heart_rate":{"rate":"10s"},"steps":{"deadband":10}}}`)
	h.own(m)
	h.connect()
	start := time.Now().Add(-time.Hour).Truncate(20 * time.Second)
	send := func(i int) {
		at := start.Add(time.Duration(i) * 5 * time.Second)
		d.send(heart(at, float64(60+i)), steps(at, float64(4*i)))
	}
	send(0)
	h.world.untilHolds(2)
	v := h.relocate(m)
	for i := 1; i < 6; i++ { // heart rates 0, 2, 4; steps 0, 3
		send(i)
	}
	h.world.untilHolds(5)
	notice := v.notice(t)
	h.tell(notice)
	h.untilEnded(m.Stream)
	send(6)
	h.connectNext()
	h.next.untilHolds(5)
	then := h.then(m)
	if then.World != "citadel" || then.Avatar != v.terms.To || then.Waits != nil || !ed25519.PublicKey(then.OwnerKey).Equal(v.next.Public()) {
		t.Errorf("the mapping that follows is %+v", then)
	}
	for property, want := range map[string]string{"heart_rate": "60 62 64 66", "steps": "0 12 24"} {
		var values []string
		for _, of := range append(h.world.below(m.Stream, property, v.head.NextFirst), h.next.below(then.Stream, property, forGood)...) {
			_, value, _ := strings.Cut(of, " ")
			values = append(values, value)
		}
		if got := strings.Join(values, " "); got != want {
			t.Errorf("%s: both hold %s, want %s", property, got, want)
		}
	}
	was, err := h.agent.Mapping(m.ID)
	if err != nil || !was.Stopped || was.Moved == nil || was.Moved.World != "citadel" || was.Moved.Crossing != v.order.Crossing || was.Got[0].Why != movedText {
		t.Errorf("the mapping before is %+v, %v", was, err)
	}
	// Told again it is the same.
	h.tell(notice)
	h.world.until("it hears that again", func() bool { return len(h.world.ended) == 2 })
	if again := h.then(m); again.ID != then.ID {
		t.Errorf("told again it is another mapping, %s after %s", again.ID, then.ID)
	}
	request := h.next.maps[0]
	word, err := ident.OpenOnward(request.Onward)
	if err != nil || word.Former != m.Stream || word.Stream != then.Stream || word.Stream != request.Stream || word.Sender != did(h.key) || word.Target != did(h.next.key) {
		t.Errorf("the agent's word is %+v, %v", word, err)
	}
}

// TestForgedMoves: whatever is wrong changes nothing, is stated once, and is shown.
func TestForgedMoves(t *testing.T) {
	other := newKey()
	wrong := map[string]func(*testing.T, *movable, MappingInfo, *relocation) []byte{
		"no order": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			return changed(t, v, func(m *carnet.Moved) { m.Order = "" })
		},
		"an order by another key": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.owner, v.order.Owner = other, did(other)
			return v.notice(t)
		},
		"an order whose signature is another's": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			return changed(t, v, func(m *carnet.Moved) { m.Order = m.Order[:len(m.Order)-8] + "AAAAAAAA" })
		},
		"an order by the target's key of the owner": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.owner, v.order.Owner = v.next, did(v.next)
			return v.notice(t)
		},
		"an order from another world": func(t *testing.T, h *movable, _ MappingInfo, v *relocation) []byte {
			v.order.Source = did(other)
			return v.notice(t)
		},
		"an order to another world than decided": func(t *testing.T, h *movable, _ MappingInfo, v *relocation) []byte {
			v.order.Target = did(other)
			return v.notice(t)
		},
		"an order of another home": func(t *testing.T, h *movable, _ MappingInfo, v *relocation) []byte {
			v.order.Homes = []carnet.HomeID{carnet.NewHomeID()}
			v.decision.Homes[0].Home = v.order.Homes[0]
			return v.notice(t)
		},
		"other terms": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			return changed(t, v, func(m *carnet.Moved) {
				v.terms.To = carnet.NewAvatarID()
				m.Terms, _ = v.terms.Marshal()
			})
		},
		"terms in another form": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			return changed(t, v, func(m *carnet.Moved) {
				m.Terms = append(m.Terms, '\n')
				v.order.Terms = carnet.FingerprintOf(m.Terms)
				m.Order, _ = ident.SignOrder(v.owner, v.order)
				v.decision.Order = carnet.FingerprintOf([]byte(m.Order))
				m.Decision, _ = ident.SignDecision(v.registrar, v.decision)
			})
		},
		"terms of another avatar": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.terms.Avatar = carnet.NewAvatarID()
			return v.notice(t)
		},
		"terms of an item that moves alone": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.terms.Alone = true
			v.terms.Items = []ident.MovingItem{{Item: carnet.ItemID{1}, Home: v.order.Homes[0], Kind: "sword", Title: "a sword", As: "blade"}}
			return v.notice(t)
		},
		"no decision": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			return changed(t, v, func(m *carnet.Moved) { m.Decision = "" })
		},
		"a decision by another registrar": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.registrar, v.decision.Registrar = other, did(other)
			return v.notice(t)
		},
		"a decision that the source signed": func(t *testing.T, h *movable, _ MappingInfo, v *relocation) []byte {
			v.registrar, v.decision.Registrar = h.world.key, did(h.world.key)
			return v.notice(t)
		},
		"an abort": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.decision.Outcome, v.decision.Manifest, v.decision.Homes, v.decision.Why = ident.Abort, nil, []ident.HomeAt{}, "the source asked for it"
			return v.notice(t)
		},
		"a decision about another crossing": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.decision.Crossing = carnet.NewCrossingID()
			return v.notice(t)
		},
		"a decision of another order": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			return changed(t, v, func(m *carnet.Moved) {
				v.decision.Order = carnet.Fingerprint{1}
				m.Decision, _ = ident.SignDecision(v.registrar, v.decision)
			})
		},
		"a decision after the order's time": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.decision.Time = v.order.Until.Add(time.Second)
			return v.notice(t)
		},
		"a decision that leaves the home where it is": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.decision.Homes[0].World = v.order.Source
			return v.notice(t)
		},
		"a decision of another home": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.decision.Homes[0].Home = carnet.NewHomeID()
			return v.notice(t)
		},
		"a head inside a frame": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.head.NextFirst--
			return v.notice(t)
		},
		"a head beyond what was sent": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.head.NextBatch, v.head.NextFirst = v.head.NextBatch+1, v.head.NextFirst+1
			return v.notice(t)
		},
		"a head with another batch": func(t *testing.T, _ *movable, _ MappingInfo, v *relocation) []byte {
			v.head.NextBatch++
			return v.notice(t)
		},
	}
	h := newMovable(t)
	d := h.add(quick())
	h.connect()
	at, n := time.Now().Add(-time.Hour), 0
	send := func(n int) { d.send(heart(at.Add(time.Duration(n)*time.Second), 60)) }
	for name, forge := range wrong {
		t.Run(name, func(t *testing.T) {
			m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
			h.own(m)
			send(n)
			n++
			h.world.until("it is there", func() bool { return h.world.heads[m.Stream] != nil })
			notice := forge(t, h, m, h.relocate(m))
			before := len(h.stated(t, ledger.MoveRefused))
			for range 3 {
				h.tell(notice)
			}
			info := h.untilRefused(m)
			if info.Stopped || info.Moved != nil || info.Refused.Why == "" {
				t.Errorf("the mapping is %+v", info)
			}
			h.tell(notice)
			if _, err := h.agent.Unmap(t.Context(), "ann", m.ID); err != nil {
				t.Fatal(err)
			}
			if got := h.stated(t, ledger.MoveRefused)[before:]; len(got) != 1 || got[0].Mapping != m.ID || got[0].Object != carnet.FingerprintOf(notice) {
				t.Errorf("stated: %+v", got)
			}
		})
	}
	t.Run("without an owner's key", func(t *testing.T) {
		m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
		h.tell(h.relocate(m).notice(t))
		if info := h.untilRefused(m); !strings.Contains(info.Refused.Why, "owner claim") && !strings.Contains(info.Refused.Why, "no owner's key") {
			t.Errorf("refused since %s", info.Refused.Why)
		}
	})
	t.Run("by a world that doesn't have the stream", func(t *testing.T) {
		m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
		h.own(m)
		source, err := h.agent.Source("citadel")
		if err != nil {
			t.Fatal(err)
		}
		source.Notice(carnet.NoticeMoved, h.relocate(m).notice(t))
		source.Notice(carnet.NoticeMoved, []byte(`{"stream":`))
		if info, err := h.agent.Mapping(m.ID); err != nil || info.Stopped || len(h.agent.sender("citadel").told) != 0 {
			t.Errorf("the mapping is %+v, %v", info, err)
		}
	})
	t.Run("more than are stated", func(t *testing.T) {
		m := h.mapTo(d, `{"properties":{"heart_rate":{}}}`)
		h.own(m)
		before := len(h.stated(t, ledger.MoveRefused))
		for i := range 3 * maxRefused {
			v := h.relocate(m)
			v.head.NextFirst = uint64(1000 + i)
			h.tell(v.notice(t))
		}
		v := h.relocate(m) // and a true one is still taken
		h.tell(v.notice(t))
		h.untilEnded(m.Stream)
		if got := len(h.stated(t, ledger.MoveRefused)) - before; got != maxRefused {
			t.Errorf("%d were stated, want %d", got, maxRefused)
		}
	})
}

func changed(t *testing.T, v *relocation, change func(*carnet.Moved)) []byte {
	var m carnet.Moved
	if err := json.Unmarshal(v.notice(t), &m); err != nil {
		t.Fatal(err)
	}
	change(&m)
	return told(t, m)
}

// untilRefused waits until a move of the mapping's avatar was refused.
func (h *movable) untilRefused(m MappingInfo) (info MappingInfo) {
	h.tb.Helper()
	for range 2000 {
		var err error
		if info, err = h.agent.Mapping(m.ID); err != nil {
			h.tb.Fatal(err)
		}
		if info.Refused != nil || info.Stopped {
			return info
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.tb.Fatal("the move is neither taken nor refused")
	return info
}

// stated are the agent's statements of a kind.
func (h *movable) stated(t *testing.T, kind ledger.Kind) (all []ledger.Statement) {
	t.Helper()
	if err := h.agent.barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	items, err := h.store.Statements(t.Context(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		plain, err := h.agent.rest.Open(nil, statementAAD, item.Statement)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ledger.ParseStatement(plain)
		if err != nil {
			t.Fatal(err)
		}
		if s.Kind == kind {
			all = append(all, s)
		}
	}
	return all
}

// TestAMoveLosesAndDoublesNothing: for random messages, lingers, frames, breaks,
// restarts and heads, what moved and what the target gets is what one mapping would
// have sent.
func TestAMoveLosesAndDoublesNothing(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			movingStory(t, rand.New(rand.NewPCG(seed, 4)))
		})
	}
}

func movingStory(t *testing.T, r *rand.Rand) {
	h := newMovable(t)
	text := strings.ReplaceAll(string(quick()), `"carnet:linger":"PT0.03S"`, fmt.Sprintf(`"carnet:linger":"PT0.%03dS"`, 1+r.IntN(300)))
	d := h.add([]byte(text))
	other := h.add(quick())
	props := []string{`"heart_rate":{}`, `"heart_rate":{"rate":"3s"}`, `"heart_rate":{"rate":"7s","round":5}`, `"heart_rate":{"deadband":20}`}
	with := []string{`"steps":{}`, `"steps":{"rate":"4s"}`, `"steps":{"deadband":5}`}
	of := view(t, `{"properties":{`+props[r.IntN(len(props))]+`,`+with[r.IntN(len(with))]+`}}`)
	m, err := h.agent.Map(t.Context(), "ann", d.id, "arena", nil, "", of)
	if err != nil {
		t.Fatal(err)
	}
	h.own(m)
	h.mapTo(other, `{"properties":{"heart_rate":{},"steps":{}}}`)
	start, n := time.Now().Add(-2*time.Hour), 0
	up := map[*world]bool{}
	again := func() { d, other = d.again(), other.again() }
	message := func() {
		at := start.Add(time.Duration(n) * time.Second)
		if r.IntN(10) == 0 {
			at = at.Add(-time.Hour)
		}
		n++
		ms := []carnet.Measurement{heart(at, float64(r.IntN(200)))}
		if r.IntN(2) == 0 {
			ms = append(ms, steps(at, float64(n)))
		}
		d.send(ms...)
		if r.IntN(3) == 0 {
			other.send(ms...)
		}
	}
	connect := func(w *world) {
		if up[w] {
			return
		}
		up[w] = true
		if w == h.next {
			h.connectNext()
		} else {
			h.connect()
		}
	}
	random := func(steps int, worlds ...*world) {
		for range steps {
			w := worlds[r.IntN(len(worlds))]
			switch op := r.IntN(20); {
			case op < 13:
				message()
			case op < 16:
				connect(w)
			case op < 18:
				w.mu.Lock()
				w.takes, w.loses = r.IntN(3), r.IntN(2) == 0
				w.mu.Unlock()
			case op == 18:
				h.restart()
				up = map[*world]bool{}
				again()
			default:
				time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
			}
		}
	}
	random(30, h.world)
	v := h.relocate(m)
	random(20, h.world)
	notice := v.notice(t)
	for range 1 + r.IntN(3) {
		if r.IntN(2) == 0 {
			connect(h.world) // or it is told by a connection before
		}
		h.tell(notice)
		random(10, h.world, h.next)
	}
	connect(h.world)
	connect(h.next)
	for !slices.Contains(func() []carnet.StreamID {
		h.world.mu.Lock()
		defer h.world.mu.Unlock()
		return slices.Clone(h.world.ended)
	}(), m.Stream) {
		h.tell(notice) // as at each connection
		time.Sleep(20 * time.Millisecond)
	}
	random(10, h.next)
	connect(h.next)
	message()

	want := map[string][]string{}
	var memory policy.State
	table := h.agent.mappingByStream(m.Stream).table
	err = h.agent.EachMessage(t.Context(), 1, func(message Message) error {
		if message.Thing != d.id {
			return nil
		}
		for _, x := range message.Measurements {
			p, _ := h.agent.mappingByStream(m.Stream).thing.description.Lookup(x.Name)
			if table.Apply(&memory, p.Index, &x) == policy.Admitted {
				want[x.Name] = append(want[x.Name], fmt.Sprintf("%d %v", x.Time, x.Value.Num))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	then := h.then(m)
	for end := time.Now().Add(20 * time.Second); then.Waits != nil && time.Now().Before(end); then = h.then(m) {
		time.Sleep(20 * time.Millisecond)
	}
	have := func(property string) []string {
		return append(h.world.below(m.Stream, property, v.head.NextFirst), h.next.below(then.Stream, property, forGood)...)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && (len(have("heart_rate")) < len(want["heart_rate"]) || len(have("steps")) < len(want["steps"])); {
		time.Sleep(20 * time.Millisecond)
	}
	for _, property := range []string{"heart_rate", "steps"} {
		if got := have(property); !slices.Equal(got, want[property]) {
			t.Errorf("%s: moved and sent on are %d:\n%v\nwant %d:\n%v\nthe head is %d", property, len(got), got, len(want[property]), want[property], v.head.NextFirst)
		}
	}
}
