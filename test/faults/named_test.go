package faults_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/node"
	"carnet/policy"
	"carnet/td"
	"carnet/test/wait"
)

// TestNamedRows kills parties at the rows of the tables of durable states that
// only a statement to the store, or a call on one file, tells apart: their stores
// are on PostgreSQL, and a gate holds a party there. One town goes through all of
// them, and is judged once at the end.
func TestNamedRows(t *testing.T) {
	t.Parallel()
	tool(t, "strace", "-f", "-qq", "-o", "/dev/null", "true")
	v := newTown(t, onPostgres, func(_ *testing.T, p *party) {
		switch p.name {
		case "arena":
			p.config.World.CompactEvery = node.Duration(200 * time.Millisecond)
		case "clinic": // stores nothing in between
			p.config.World.CompactEvery = node.Duration(time.Hour)
		}
	})
	n := &named{town: v, w: v.addPrompt("arena", "clinic"), ring: v.addPrompt("arena")}
	for _, row := range []struct {
		ids string
		do  func(*named)
	}{
		{"L7 L8: a Hello came, and is registered", (*named).registration},
		{"L1: Hello left, and no Welcome came", (*named).hello},
		{"L10 W1 L4: a frame came; L2: Welcome came; L3: the move", (*named).resume},
		{"L11 W2 L5: the frame's commit", (*named).frame},
		{"W18: a key is promised", (*named).promised},
		{"L9 W9: a bag's keys; W3: a frame acknowledged", (*named).fold},
		{"W10 W11: reception keys", (*named).receptions},
		{"T3a: a frame is built, its group isn't stored", (*named).uncommitted},
		{"T9: a stream to ask for", (*named).asked},
		{"W7 W8: a mapping", (*named).mapping},
		{"W4 W5 W6 W12 W13: compaction", (*named).compaction},
		{"W5a: half a compaction", (*named).half},
		{"W17: the key of a folded batch is lost", (*named).lostKey},
		{"W14 W15: retention; an object deleted", (*named).retention},
		{"B1 to B7: a large body", (*named).large},
		{"W19: a key is destroyed", (*named).keyEnds},
		{"W20: a value is forgotten", (*named).forgotten},
		{"ledger: claimed, sequencing, sequenced, published, indexed", (*named).ledger},
		{"object: staged, placed, owned", (*named).object},
		{"A1 A2 G1 G2: a grant; G3: an application; G5: a cursor; G4 G6: a revocation", (*named).grants},
	} {
		if !t.Run(row.ids, func(t *testing.T) { v.t = t; row.do(n) }) {
			break
		}
	}
	v.t = t
	n.w.send(4)
	c := v.judge(n.w)
	if want := measurements(n.w); c.logged != want {
		t.Errorf("hub's log has %d measurements, want %d", c.logged, want)
	}
}

// named is the town of TestNamedRows. What ring measures is arena's alone, and kept
// there for an hour.
type named struct {
	*town
	w, ring *watch
}

// prompt are views that let something of each message through, so that each is a
// frame.
var prompt = map[carnet.PartyID]string{
	"arena":  `{"properties": {"heart_rate": {"round": 5}, "speed": {}}, "purposes": ["fitness"]}`,
	"clinic": views["clinic"],
}

// addPrompt adds a watch whose measurements wait for nothing.
func (v *town) addPrompt(worlds ...carnet.PartyID) *watch {
	v.t.Helper()
	views := make(map[carnet.PartyID]string)
	for _, world := range worlds {
		views[world] = prompt[world]
		if len(worlds) == 1 {
			views[world] = `{"properties": {"speed": {}}, "retention": "hour", "purposes": ["fitness"]}`
		}
	}
	return v.addPromptFor(views)
}

// addPromptFor adds a watch whose measurements wait for nothing, of which each of
// these worlds gets such a view.
func (v *town) addPromptFor(views map[carnet.PartyID]string) *watch {
	v.t.Helper()
	w := v.addDescribed(strings.Replace(string(td.Watch()), `"title": "Watch",`, `"title": "Watch", "carnet:linger": "PT0S",`, 1), views)
	w.prompt = true
	return w
}

// killAt kills a party that is held, and lets pass what held it.
func (n *named) killAt(p *party, h *hold) {
	n.t.Helper()
	h.await(n.t)
	p.kill(n.t)
	h.pass()
}

// dieAt starts a party that is then held, and kills it there.
func (n *named) dieAt(p *party, h *hold) {
	n.t.Helper()
	p.start(n.t)
	n.killAt(p, h)
}

// want compares a number of the party's database.
func (n *named) want(p *party, sql string, want int64) {
	n.t.Helper()
	if got := p.number(n.t, sql); got != want {
		n.t.Errorf("%s: %s is %d, want %d", p.name, sql, got, want)
	}
}

// becomes waits until a number of the party's database is as wanted.
func (n *named) becomes(p *party, sql string, want int64) {
	n.t.Helper()
	wait.Until(n.t, fmt.Sprintf("%s: %s is %d", p.name, sql, want), func() bool { return p.number(n.t, sql) == want })
}

const (
	incarnation = `SELECT incarnation FROM world_link`
	frameRows   = `SELECT frames FROM world_totals`
	bodies      = `SELECT bodies FROM world_totals`
	statements  = `SELECT statements FROM world_totals`
	others      = `SELECT statements - frames FROM world_totals`
	stretches   = `SELECT stretches FROM world_totals`
	unstored    = `SELECT count(*) FROM world_stretch WHERE NOT stored`
	avatars     = `SELECT count(*) FROM world_document WHERE kind = 'avatar'`
	doomed      = `SELECT count(*) FROM world_document WHERE kind = 'doomed'`
	folds       = `SELECT coalesce(max(version), 0) FROM world_document WHERE kind = 'fold'`
	receptions  = `SELECT count(*) FROM key_row WHERE kind = 'reception'`
	epochs      = `SELECT count(*) FROM key_row WHERE kind = 'epoch'`
	signers     = `SELECT count(*) FROM key_row WHERE kind = 'avatar'`
	objects     = `SELECT count(*) FROM depot_object WHERE owner = 'arena'`
	indexed     = `SELECT next FROM depot_indexed`
	unmoved     = `SELECT coalesce(max(version), 0) FROM thing_document WHERE kind = 'link' AND id = 'arena'`
	lastRecord  = `SELECT coalesce(max(number), 0) FROM thing_sent WHERE link = 'arena'`
)

func (n *named) registration() {
	n.quiet()
	arena := n.arena
	had := arena.number(n.t, incarnation)
	h := arena.database.gate.before("INSERT INTO world_link")
	n.hub.kill(n.t)
	n.hub.start(n.t)
	n.killAt(arena, h)
	n.want(arena, incarnation, had)
	n.dieAt(arena, arena.database.gate.after("INSERT INTO world_link"))
	n.want(arena, incarnation, had+1)
	n.restart(arena)
	n.await(n.hub)
	n.linked()
	n.w.send(2)
}

// hello lets arena register a sender that is dead by then.
func (n *named) hello() {
	n.quiet()
	had := n.arena.number(n.t, incarnation)
	n.hub.kill(n.t)
	n.dieAt(n.hub, n.arena.database.gate.before("INSERT INTO world_link"))
	n.becomes(n.arena, incarnation, had+1)
	n.restart(n.hub)
	n.linked()
	n.w.send(2)
}

func (n *named) resume() {
	n.quiet()
	arena, hub := n.arena, n.hub
	had := arena.number(n.t, frameRows)
	h := arena.database.gate.before("INSERT INTO world_frame ")
	n.w.send(1)
	n.killAt(arena, h)
	n.want(arena, frameRows, had)
	record, moves := hub.number(n.t, lastRecord), hub.number(n.t, unmoved)
	h = hub.database.gate.before("DELETE FROM thing_sent", "arena")
	n.restart(arena)
	n.killAt(hub, h) // Welcome came, nothing is moved
	n.want(hub, lastRecord, record)
	n.dieAt(hub, hub.database.gate.after("INSERT INTO thing_document", "link", "arena"))
	n.want(hub, lastRecord, record-1)
	n.want(hub, unmoved, moves+1)
	n.restart(hub)
	n.becomes(arena, frameRows, had+1)
}

func (n *named) frame() {
	for _, victim := range []*party{n.arena, n.hub} {
		n.quiet()
		had := n.arena.number(n.t, frameRows)
		h := n.arena.database.gate.after("INSERT INTO world_frame ")
		n.w.send(1)
		n.killAt(victim, h)
		n.want(n.arena, frameRows, had+1)
		n.restart(victim)
		n.quiet()
		n.want(n.arena, frameRows, had+1)
	}
}

func (n *named) fold() {
	n.anew()
	arena := n.arena
	had, keys, fold := arena.number(n.t, frameRows), arena.number(n.t, epochs), arena.number(n.t, folds)
	h := arena.database.gate.after("INSERT INTO key_row", "epoch")
	n.w.send(1)
	n.killAt(arena, h)
	n.want(arena, epochs, keys+1)
	n.want(arena, frameRows, had)
	n.restart(arena)
	n.quiet()                     // the frame is acknowledged, and its fold is in memory only
	n.want(arena, epochs, keys+2) // a run's epoch is its own
	n.want(arena, frameRows, had+1)
	n.want(arena, folds, fold)
	held := n.measurements(arena)
	arena.kill(n.t)
	n.restart(arena)
	if got := n.measurements(arena); got != held {
		n.t.Errorf("arena folds %d measurements at its start, had %d", got, held)
	}
}

// measurements asks a world how many it has folded.
func (n *named) measurements(world *party) uint64 {
	n.t.Helper()
	st, err := world.client.Status(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return st.World.Measurements
}

func (n *named) receptions() {
	n.quiet()
	arena := n.arena
	had := arena.number(n.t, receptions)
	arena.kill(n.t)
	n.dieAt(arena, arena.database.gate.before("INSERT INTO world_document", "reception"))
	n.want(arena, receptions, had+1) // which no document names
	n.dieAt(arena, arena.database.gate.after("INSERT INTO world_document", "reception"))
	n.want(arena, receptions, had+2)
	n.restart(arena)
	n.want(arena, receptions, had+2) // another one, and one less
}

func (n *named) mapping() {
	n.quiet()
	arena := n.arena
	had, keys := arena.number(n.t, avatars), arena.number(n.t, signers)
	view, err := policy.ParseView([]byte(views["arena"]))
	if err != nil {
		n.t.Fatal(err)
	}
	ask := func() error {
		_, err := n.hub.client.Map(n.t.Context(), n.ring.id, api.NewMapping{World: "arena", Title: "other", View: view})
		return err
	}
	for i, h := range []func(string, ...string) *hold{arena.database.gate.before, arena.database.gate.after} {
		at := h("INSERT INTO world_document", "avatar")
		answer := make(chan error, 1)
		go func() { answer <- ask() }()
		n.killAt(arena, at)
		n.want(arena, signers, keys+1+int64(i))
		n.want(arena, avatars, had+int64(i))
		if err := <-answer; carnet.CodeOf(err) != carnet.Unavailable {
			n.t.Errorf("the operator hears %v", err)
		}
		n.restart(arena)
		n.linked()
	}
	if err := ask(); err != nil {
		n.t.Errorf("asked again: %v", err)
	}
	n.want(arena, avatars, had+1) // the one that was made
}

// feed has more frames come than a compaction waits for. Messages may share a frame, and
// many do that wait for the link.
func (n *named) feed() {
	n.t.Helper()
	n.linked()
	from := n.arena.number(n.t, frameRows)
	for i := 0; i < 18 || i < 60 && n.arena.number(n.t, frameRows) < from+17; i++ {
		n.w.send(1)
	}
}

// feedHeld feeds arena, everything that comes of it included, and holds it before its
// next compaction.
func (n *named) feedHeld() *hold {
	h := n.arena.database.gate.before("WHERE NOT stored")
	h.await(n.t)
	n.feed()
	n.quiet()
	return h
}

func (n *named) compaction() {
	arena, gate := n.arena, n.arena.database.gate
	n.feedHeld().pass()
	n.becomes(arena, bodies, 0)
	n.unreadable()
	fold, said, had := arena.number(n.t, folds), arena.number(n.t, others), arena.number(n.t, stretches)
	n.dieAt(arena, gate.before("INSERT INTO world_document", "fold"))
	n.want(arena, folds, fold) // folded and refused, and not saved
	n.want(arena, others, said)
	n.restart(arena)
	n.becomes(arena, others, said+1)
	fold = arena.number(n.t, folds)
	h := gate.before("DELETE FROM world_frame_body")
	n.ring.send(1)
	n.feed()
	n.killAt(arena, h)
	n.want(arena, folds, fold+1)
	n.want(arena, stretches, had)
	n.want(arena, others, said+1)
	n.dieAt(arena, gate.after("DELETE FROM world_frame_body"))
	made := arena.number(n.t, stretches)
	if made <= had {
		n.t.Errorf("%d stretches, were %d", made, had)
	}
	n.want(arena, unstored, made-had)
	put := n.vault.number(n.t, objects)
	h = n.vault.database.gate.after("INSERT INTO depot_object", "arena")
	n.dieAt(arena, h)
	n.want(arena, unstored, made-had)
	n.want(arena, others, said+1)
	n.want(n.vault, objects, put+1)
	n.dieAt(arena, gate.before("UPDATE world_stretch SET stored"))
	n.want(arena, unstored, made-had)
	n.want(n.vault, objects, made)
	n.want(arena, others, said+1+made-had)
	n.restart(arena)
	n.becomes(arena, unstored, 0)
	n.want(n.vault, objects, made)
	n.want(arena, others, said+1+2*(made-had)) // each stated twice
}

// unreadable leaves arena with a frame of ring's that isn't folded and whose key is
// lost, as from a key table restored from an older copy: its batch is refused.
func (n *named) unreadable() {
	n.anew()
	h := n.arena.database.gate.after("INSERT INTO world_frame ")
	n.ring.send(1)
	n.killAt(n.arena, h)
	lost := n.arena.number(n.t, `WITH lost AS (DELETE FROM key_row WHERE kind = 'epoch' AND name =
		(SELECT name FROM key_row WHERE kind = 'epoch' ORDER BY xmin::text::bigint DESC LIMIT 1) RETURNING name) SELECT count(*) FROM lost`)
	if lost != 1 {
		n.t.Fatalf("%d keys are lost, want 1", lost)
	}
}

// retention lets the hour end that arena keeps what ring measures.
func (n *named) retention() {
	n.quiet()
	arena, vault := n.arena, n.vault
	had, kept, said := arena.number(n.t, stretches), vault.number(n.t, objects), arena.number(n.t, statements)
	arena.kill(n.t)
	over := arena.number(n.t, `WITH aged AS (UPDATE world_stretch SET received = received - 7200000000000 WHERE class = 1 RETURNING id) SELECT count(*) FROM aged`)
	if over == 0 {
		n.t.Fatal("arena keeps nothing for an hour")
	}
	h := arena.database.gate.before("DELETE FROM world_stretch")
	n.dieAt(arena, h)
	n.want(arena, stretches, had)
	h = vault.database.gate.before("DELETE FROM depot_object")
	n.dieAt(arena, arena.database.gate.after("DELETE FROM world_stretch"))
	n.want(arena, stretches, had-over)
	n.want(arena, doomed, over)
	n.want(arena, statements, said+over)
	n.want(vault, objects, kept)
	arena.start(n.t)
	n.killAt(vault, h) // asked, and nothing done
	n.want(vault, objects, kept)
	h = vault.database.gate.after("DELETE FROM depot_object")
	vault.start(n.t)
	h.await(n.t)
	n.arena.freeze(n.t) // so that it doesn't ask again
	n.killAt(vault, h)
	n.want(vault, objects, kept-1)
	body := n.unowned(1)
	// The start erases it: overwritten, and not removed.
	vault.start(n.t, "strace", "-D", "-f", "-qq", "-o", os.DevNull, "-P", body, "-e", "trace=unlinkat", "-e", "inject=unlinkat:signal=KILL")
	if !vault.dies(20 * time.Second) {
		n.t.Fatal("vault removes no body without owner")
	}
	if b, err := os.ReadFile(body); err != nil || len(bytes.Trim(b, "\x00")) > 0 {
		n.t.Errorf("the body isn't overwritten: %v", err)
	}
	n.restart(vault)
	wait.Until(n.t, "the body is removed", func() bool { _, err := os.Stat(body); return os.IsNotExist(err) })
	n.arena.thaw(n.t)
	n.await(n.arena)
	n.becomes(arena, doomed, 0)
	n.want(vault, objects, kept-over)
	n.unowned(0)
}

// stored lists the depot's bodies.
func (n *named) stored() []string {
	n.t.Helper()
	bodies, err := filepath.Glob(filepath.Join(n.vault.data(), "objects", "??", "*"))
	if err != nil {
		n.t.Fatal(err)
	}
	return bodies
}

// unowned checks how many bodies have no row, and returns one of them.
func (n *named) unowned(want int) (body string) {
	n.t.Helper()
	found := 0
	for _, path := range n.stored() {
		if n.vault.number(n.t, `SELECT count(*) FROM depot_object WHERE encode(fingerprint, 'hex') = '`+filepath.Base(path)+`'`) == 0 {
			found, body = found+1, path
		}
	}
	if found != want {
		n.t.Errorf("%d bodies have no owner, want %d", found, want)
	}
	return body
}

// ledgerState is what a ledger has on disk: the tree, the checkpoint's size, and
// how far it is indexed.
type ledgerState struct {
	tree, size string
	indexed    int64
}

func (n *named) ledgerState() (s ledgerState) {
	n.t.Helper()
	dir := filepath.Join(n.vault.data(), "ledger")
	tree, err := os.ReadFile(filepath.Join(dir, ".state", "treeState"))
	if err != nil {
		n.t.Fatal(err)
	}
	checkpoint, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		n.t.Fatal(err)
	}
	return ledgerState{string(tree), strings.Split(string(checkpoint), "\n")[1], n.vault.number(n.t, indexed)}
}

func (n *named) ledger() {
	vault, gate := n.vault, n.vault.database.gate
	dir := filepath.Join(vault.data(), "ledger")
	held := func(h *hold) func() { return func() { n.killAt(vault, h) } }
	before := func(path string) func() {
		tr := vault.killBefore(n.t, renames, 1, path)
		return func() {
			if !vault.dies(20 * time.Second) {
				n.t.Fatalf("vault renames nothing to %s", path)
			}
			tr.detach()
		}
	}
	for _, row := range []struct {
		name                   string
		at                     func() func() // sets the point, and returns what kills there
		tree, published, index bool          // whether it is on disk then
	}{
		{"claimed", func() func() { return held(gate.before("FROM depot_leaf")) }, false, false, false},
		{"sequencing", func() func() { return before(filepath.Join(dir, ".state", "treeState")) }, false, false, false},
		{"sequenced", func() func() { return before(filepath.Join(dir, "checkpoint")) }, true, false, false},
		{"published", func() func() { return held(gate.before("INSERT INTO depot_leaf")) }, true, true, false},
		{"indexed", func() func() { return held(gate.after("INSERT INTO depot_leaf")) }, true, true, true},
	} {
		n.quiet()
		was := n.ledgerState()
		kill := row.at()
		n.w.send(1)
		kill()
		is := n.ledgerState()
		if row.tree != (is.tree != was.tree) || row.published != (is.size != was.size) || row.index != (is.indexed != was.indexed) {
			n.t.Errorf("%s: %+v, was %+v", row.name, is, was)
		}
		n.restart(vault)
	}
	n.quiet()
	if is := n.ledgerState(); is.size != fmt.Sprint(is.indexed) {
		n.t.Errorf("the ledger has %s entries, %d are indexed", is.size, is.indexed)
	}
}

func (n *named) object() {
	n.quiet()
	arena, vault := n.arena, n.vault
	rows := vault.number(n.t, objects)
	had := len(n.stored())
	h := n.feedHeld() // no statement is on its way when the object comes
	n.clinic.freeze(n.t)
	defer n.clinic.thaw(n.t)
	shards, err := filepath.Glob(filepath.Join(vault.data(), "objects", "??"))
	if err != nil {
		n.t.Fatal(err)
	}
	traced := func(calls string, paths ...string) func() {
		tr := vault.killBefore(n.t, calls, 1, paths...)
		return func() {
			if !vault.dies(20 * time.Second) {
				n.t.Fatalf("vault makes no %s for an object", calls)
			}
			tr.detach()
		}
	}
	gate := vault.database.gate
	for i, row := range []struct {
		name        string
		at          func() func()
		tmp, bodies int  // files that are there then
		again       bool // arena may be putting it a second time by then
		rows        int64
	}{
		{"staging", func() func() { return traced(syncs) }, 1, 0, false, 0},
		{"staged", func() func() { return traced(renames) }, 1, 0, false, 0},
		{"placing", func() func() { return traced(syncs, shards...) }, 0, 1, false, 0},
		{"placed", func() func() { h := gate.before("INSERT INTO depot_object"); return func() { n.killAt(vault, h) } }, 0, 1, true, 0},
		{"owned", func() func() { h := gate.after("INSERT INTO depot_object"); return func() { n.killAt(vault, h) } }, 0, 1, true, 1},
	} {
		kill := row.at()
		if i == 0 {
			h.pass()
		} else {
			arena.thaw(n.t)
		}
		kill()
		arena.freeze(n.t) // so that it doesn't put it again until vault is ready to die
		tmp, err := filepath.Glob(filepath.Join(vault.data(), "objects", "tmp", "*"))
		if err != nil || len(tmp) < row.tmp || len(tmp) > row.tmp && !row.again || len(n.stored())-had != row.bodies {
			n.t.Errorf("%s: %d temporary files and %d bodies more, %v", row.name, len(tmp), len(n.stored())-had, err)
		}
		n.want(vault, objects, rows+row.rows)
		n.restart(vault)
	}
	arena.thaw(n.t)
	n.await(arena)
	n.becomes(arena, unstored, 0)
	n.want(vault, objects, rows+1)
	wait.Until(n.t, "what had no owner is erased", func() bool { return len(n.stored()) == had+1 })
}
