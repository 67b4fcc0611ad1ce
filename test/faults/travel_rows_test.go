package faults_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing/move"
	"carnet/evidence"
	"carnet/identity"
	"carnet/test/wait"
)

// TestMoveRows kills source, target, registrar and things agent of a move at the rows
// of crossing.md. One avatar goes to and fro: its first move dies at one row after the
// other, and is gone on with from there. At each row its watch publishes; after each
// move one world has everything, and the other has nothing.
func TestMoveRows(t *testing.T) {
	t.Parallel()
	var lines network
	v := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`, onPostgres, lines.lay)
	v.watch.send(4)
	n := &crossed{
		traveller: &traveller{neighbours: v, watch: v.watch, at: v.arena, id: v.there},
		named:     &named{town: v.town, w: v.watch}, lines: &lines,
	}
	n.proveNow() // its receipts are to verify in the end, too
	for _, row := range []struct {
		ids string
		do  func(*crossed)
	}{
		{"X1: the target has a key, and nobody comes", (*crossed).room},
		{"X2: an order came", (*crossed).ordered},
		{"X4: an offer came", (*crossed).offered},
		{"X3: a piece came", (*crossed).piece},
		{"X5: the registrar answered the source", (*crossed).probed},
		{"X6: frozen, not answered", (*crossed).frozen},
		{"X7: the rest came", (*crossed).rest},
		{"X8: prepared, the registrar not asked", (*crossed).prepared},
		{"X9: decided, no receipt", (*crossed).decided},
		{"X11: the commit came to the target", (*crossed).landing},
		{"X12: the commit came to the source", (*crossed).told},
		{"X13: gone, not deleted", (*crossed).clearing},
		{"X14: deleted, the things agent not told", (*crossed).untold},
		{"X16: the things agent was told", (*crossed).follows},
		{"X10: the decision's answer is lost", (*crossed).unheard},
		{"X15: the abort came to the target", (*crossed).aborted},
		{"X17: the registrar's store is an older copy", (*crossed).olderRegistrar},
		{"X18: the target's store is an older copy", (*crossed).olderTarget},
		{"X18: the source's store is an older copy", (*crossed).olderSource},
	} {
		if !t.Run(row.ids, func(t *testing.T) { n.traveller.t = t; row.do(n) }) {
			break
		}
	}
	n.traveller.t = t
	if t.Failed() {
		return
	}
	n.judgeTravellers(n.traveller)
	for _, dir := range n.before {
		n.verifies(dir, n.trusted)
	}
}

// crossed is the avatar of TestMoveRows.
type crossed struct {
	*traveller
	named *named
	lines *network

	x       api.Crossing // the move under way
	signed  identity.Ordered
	before  []string // bundles that its worlds wrote before it left
	trusted []*evidence.Trust
	next    *hold // at which somebody is held next
	leaves  *hold // at which the source is, when the decision comes to it
}

const (
	moveIn      = "move-target"
	moveOut     = "move-source"
	manifest    = "move-manifest"
	ins         = `SELECT count(*) FROM world_document WHERE kind = 'move-target'`
	outs        = `SELECT count(*) FROM world_document WHERE kind = 'move-source'`
	outVersions = `SELECT max(version) FROM world_document WHERE kind = 'move-source'`
	manifests   = `SELECT count(*) FROM world_document WHERE kind = 'move-manifest'`
	rooms       = `SELECT count(*) FROM world_document WHERE kind = 'arriving'`
	arriving    = `SELECT count(*) FROM key_row WHERE kind = 'arriving'`
	pieces      = `SELECT count(*) FROM world_stretch`
	crossings   = `SELECT count(*) FROM register_crossing`
	registered  = `SELECT count(*) FROM register_change`
	receipted   = `SELECT receipts FROM depot_totals`
	follow      = `SELECT count(*) FROM thing_document WHERE kind = 'onward'`
	mappings    = `SELECT count(*) FROM thing_document WHERE kind = 'mapping'`
	copying     = `"world_stretch_body"` // COPY has the name so
	thingWrite  = "INSERT INTO thing_document"
)

// dies kills a party at a hold and publishes a message while it is dead; again starts
// it.
func (n *crossed) dies(p *party, h *hold, check func()) (again func()) {
	n.t.Helper()
	n.named.killAt(p, h)
	check()
	if p != n.hub {
		n.watch.send(1)
	}
	return func() {
		n.t.Helper()
		n.restart(p)
	}
}

func (n *crossed) source() *party { return n.at }
func (n *crossed) target() *party { return n.other() }

// starts begins a move and has its owner sign the order.
func (n *crossed) starts() {
	n.t.Helper()
	ctx := n.t.Context()
	var err error
	if n.x, err = insist(ctx, "begin a move", func() (api.Crossing, error) { return n.beginMove(ctx, n.source(), n.target(), n.id) }); err != nil {
		n.t.Fatal(err)
	}
	if n.signed, err = n.sign(n.x); err != nil {
		n.t.Fatal(err)
	}
}

// handIn hands the order in, and doesn't wait for the answer.
func (n *crossed) handIn() (answer chan error) {
	answer = make(chan error, 1)
	ctx, to, x, signed := n.t.Context(), n.target(), n.x.ID, n.signed
	go func() {
		_, err := to.client.OrderCrossing(ctx, x, signed)
		answer <- err
	}()
	return answer
}

// insistsOnOrder hands the order in until it is taken: a target that has just begun may
// not reach the register yet, which it asks whether the avatar has come already.
func (n *crossed) insistsOnOrder() error {
	n.t.Helper()
	_, err := insist(n.t.Context(), "hand the order in", func() (api.Crossing, error) {
		return n.target().client.OrderCrossing(n.t.Context(), n.x.ID, n.signed)
	})
	return err
}

// goes begins a move that is ordered.
func (n *crossed) goes() {
	n.t.Helper()
	n.starts()
	if err := n.insistsOnOrder(); err != nil {
		n.t.Fatal(err)
	}
}

// state is how the move stands at a world.
func (n *crossed) state(p *party) move.State {
	n.t.Helper()
	x, err := p.client.Crossing(n.t.Context(), n.x.ID)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		n.t.Fatal(err)
	}
	return x.State
}

// arrives waits until the avatar lives at the target, and has everything there.
func (n *crossed) arrives() {
	n.t.Helper()
	from, to := n.source(), n.target()
	settles(n.t, "it is home at the target", time.Minute, func() error {
		x, err := to.client.Crossing(n.t.Context(), n.x.ID)
		if err == nil && x.State != move.Home {
			err = fmt.Errorf("it is %s: %+v", x.State, x.Progress)
		}
		n.x = x
		return err
	})
	n.trail = append(n.trail, lodging{from, n.id})
	n.at, n.id = to, n.x.Ours
	n.whole()
}

// stays waits until the move has ended with the avatar where it was.
func (n *crossed) stays() {
	n.t.Helper()
	settles(n.t, "the move is dropped", time.Minute, func() error {
		if s := n.state(n.target()); s != move.Dropped {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
	n.whole()
}

// whole wants everything that the watch published at the avatar's home, once and in
// order, nothing of it in the other world or of that one's at the depot, and nothing
// half-done.
func (n *crossed) whole() {
	n.t.Helper()
	n.watch.send(1)
	n.callOffAsked()
	settles(n.t, "nothing is half-done", time.Minute, n.nothingHalfDone)
	var want, got []carnet.Measurement
	for _, pack := range n.watch.packs {
		want = append(want, pack[0])
	}
	settles(n.t, "everything is there", time.Minute, func() error {
		if got = beats(n.t, n.at, n.id); len(got) < len(want) {
			return fmt.Errorf("%s has %d of %d heart rates", n.at.name, len(got), len(want))
		}
		return nil
	})
	if !slices.Equal(got, want) {
		n.t.Errorf("%s has %d heart rates of %d, or others: %v, want %v", n.at.name, len(got), len(want), got, want)
	}
	other := n.other()
	for _, l := range n.trail {
		if l.world == n.at && l.avatar == n.id {
			continue
		}
		if _, err := l.world.client.Avatar(n.t.Context(), l.avatar); carnet.CodeOf(err) != carnet.NotFound {
			n.t.Errorf("%s shows the avatar that has left it: %v", l.world.name, err)
		}
	}
	n.named.becomes(other, pieces, 0)
	n.named.becomes(other, epochs, 0)
	n.named.becomes(n.vault, `SELECT count(*) FROM depot_object WHERE owner = '`+string(other.name)+`'`, 0)
	for _, p := range n.worlds() {
		n.named.want(p, rooms, 0)
		n.named.want(p, arriving, 0)
	}
}

// proveNow keeps the evidence of the avatar as it is, which its world writes.
func (n *crossed) proveNow() {
	n.t.Helper()
	n.settle()
	ctx := context.WithoutCancel(n.t.Context())
	for _, p := range n.worlds() {
		if code := p.end(n.t); code != 0 {
			n.t.Errorf("%s ended with %d", p.name, code)
		}
		world := n.inspect(p)
		trust, err := pinned(ctx, world, p)
		if err != nil {
			n.t.Fatal(err)
		}
		n.trusted = append(n.trusted, trust)
		if p == n.at {
			n.before = append(n.before, n.bundle(ctx, world))
		}
		if err := world.Close(); err != nil {
			n.t.Fatal(err)
		}
		n.restart(p)
	}
	n.linked()
}

func (n *crossed) room() {
	to, gate := n.target(), n.target().database.gate
	keys := to.number(n.t, signers)
	for i, kind := range []string{"arriving", moveIn} {
		h := gate.before(document, kind)
		ctx, cancel := context.WithCancel(n.t.Context())
		answer := make(chan error, 1)
		go func() {
			_, err := insist(ctx, "begin a move", func() (api.Crossing, error) { return n.beginMove(ctx, n.source(), to, n.id) })
			answer <- err
		}()
		again := n.dies(to, h, func() {
			n.named.want(to, ins, 0)
			n.named.want(to, rooms, int64(i))
			n.named.want(to, signers, keys+1+int64(i))
		})
		if cancel(); <-answer == nil {
			n.t.Error("a dead world makes room")
		}
		again()
		n.named.becomes(to, rooms, 0)
	}
	n.named.want(to, signers, keys+1) // of no avatar
}

func (n *crossed) ordered() {
	n.starts()
	to := n.target()
	h := to.database.gate.before(document, moveIn)
	answer := n.handIn()
	again := n.dies(to, h, func() {})
	if err := <-answer; err == nil {
		n.t.Error("a dead world takes an order")
	}
	again()
	if s := n.state(to); s != move.Asked {
		n.t.Errorf("the move is %s", s)
	}
}

// The rows up to X16 are of one move: each begins where the one before was killed.

func (n *crossed) offered() {
	from := n.source()
	h := from.database.gate.before(document, moveOut)
	if err := n.insistsOnOrder(); err != nil {
		n.t.Fatal(err)
	}
	again := n.dies(from, h, func() { n.named.want(from, outs, 0) })
	n.next = n.target().database.gate.before(copying)
	again()
}

func (n *crossed) piece() {
	to := n.target()
	again := n.dies(to, n.next, func() { n.named.want(to, pieces, 0) })
	n.next = n.source().database.gate.before(document, manifest)
	again()
}

func (n *crossed) probed() {
	from := n.source()
	again := n.dies(from, n.next, func() { n.named.want(from, manifests, 0) })
	n.next = from.database.gate.after(document, manifest)
	again()
}

func (n *crossed) frozen() {
	from, to := n.source(), n.target()
	again := n.dies(from, n.next, func() {
		n.named.want(from, manifests, 1)
		n.named.want(to, manifests, 0)
	})
	n.next = to.database.gate.before(document, manifest)
	again()
}

func (n *crossed) rest() {
	to := n.target()
	again := n.dies(to, n.next, func() { n.named.want(to, manifests, 0) })
	n.next = to.database.gate.after(document, manifest)
	again()
}

func (n *crossed) prepared() {
	to := n.target()
	again := n.dies(to, n.next, func() {
		n.named.want(to, manifests, 1)
		n.named.want(n.vault, crossings, 0)
	})
	// The source may hear of the decision before the target has done with it.
	n.leaves = n.source().database.gate.before(document, "avatar")
	n.next = n.vault.database.gate.after("INSERT INTO register_crossing")
	again()
}

func (n *crossed) decided() {
	to := n.target()
	again := n.dies(n.vault, n.next, func() { n.named.want(n.vault, crossings, 1) })
	n.next = to.database.gate.before(document, "avatar")
	again()
}

func (n *crossed) landing() {
	to := n.target()
	had := to.number(n.t, avatars)
	again := n.dies(to, n.next, func() {
		n.named.want(to, avatars, had)
		n.named.want(to, rooms, 1)
	})
	h := to.database.gate.after(document, "avatar")
	again()
	again = n.dies(to, h, func() {
		n.named.want(to, avatars, had+1)
		n.named.want(to, rooms, 0)
	})
	h = to.database.gate.before(document, moveIn) // it has landed, and isn't said to
	again()
	again = n.dies(to, h, func() { n.named.want(to, avatars, had+1) })
	again()
}

func (n *crossed) told() {
	from := n.source()
	again := n.dies(from, n.leaves, func() { n.named.want(from, outVersions, 2) })
	h := from.database.gate.before(document, moveOut) // nobody's, and not said to be gone
	again()
	again = n.dies(from, h, func() { n.named.want(from, outVersions, 2) })
	n.next = from.database.gate.after(document, moveOut)
	again()
}

func (n *crossed) clearing() {
	from := n.source()
	keys := from.number(n.t, signers)
	again := n.dies(from, n.next, func() {
		n.named.want(from, outVersions, 3)
		if from.number(n.t, pieces) == 0 {
			n.t.Error("it is deleted already")
		}
	})
	n.hub.kill(n.t) // nobody is told meanwhile
	for _, statement := range [][]string{{"DELETE FROM key_row", "epoch"}, {"DELETE FROM world_stretch "}} {
		h := from.database.gate.before(statement[0], statement[1:]...)
		again()
		n.again(n.target()) // it tells at once, instead of after a while
		n.named.killAt(from, h)
		again = func() { n.restart(from) }
	}
	h := from.database.gate.before(document, "avatar") // all is deleted, and it isn't said
	n.restart(from)
	n.again(n.target())
	n.named.killAt(from, h)
	n.named.want(from, pieces, 0)
	n.named.want(from, epochs, 0)
	h = from.database.gate.before("DELETE FROM key_row", "avatar") // that is signed, and its key isn't gone
	n.restart(from)
	n.again(n.target())
	n.named.killAt(from, h)
	n.named.want(from, signers, keys)
	n.restart(from)
	n.named.becomes(from, signers, keys-1)
	settles(n.t, "the source signs that nothing is left", time.Minute, func() error {
		x, err := from.client.Crossing(n.t.Context(), n.x.ID)
		if err == nil && x.Departure == "" {
			err = fmt.Errorf("it is %s", x.State)
		}
		return err
	})
}

// again starts a party anew, which waits for nothing then.
func (n *crossed) again(p *party) {
	n.t.Helper()
	p.kill(n.t)
	n.restart(p)
}

func (n *crossed) untold() {
	from := n.source()
	from.kill(n.t)
	n.named.want(n.hub, follow, 0)
	n.next = n.hub.database.gate.before(thingWrite, "onward")
	n.restart(from)
	n.restart(n.hub)
}

func (n *crossed) follows() {
	had := n.hub.number(n.t, mappings)
	again := n.dies(n.hub, n.next, func() { n.named.want(n.hub, follow, 0) })
	h := n.hub.database.gate.after(thingWrite, "onward")
	again()
	defer n.watch.throw(1)() // it is told when something comes; nobody acknowledges it there
	again = n.dies(n.hub, h, func() { n.named.want(n.hub, follow, 1) })
	h = n.hub.database.gate.before(thingWrite, "owner") // the target has given the avatar
	again()
	again = n.dies(n.hub, h, func() { n.named.want(n.hub, mappings, had) })
	h = n.hub.database.gate.after(thingWrite, "owner")
	again()
	n.dies(n.hub, h, func() {
		n.named.want(n.hub, mappings, had+1)
		n.named.want(n.hub, follow, 0)
	})()
	n.linked()
	n.watch.send(1)
	n.arrives()
}

// unheard loses the registrar's answer on its way, and then the registrar.
func (n *crossed) unheard() {
	n.proveNow()
	had, receipts := n.vault.number(n.t, crossings), int64(0)
	h := n.vault.database.gate.after("INSERT INTO register_crossing")
	n.goes()
	h.await(n.t)
	to := n.line("vault's ledger, objects and register")
	to.cut(true)
	receipts = n.vault.number(n.t, receipted)
	h.pass()
	wait.Until(n.t, "the decision has its receipt", func() bool { return n.vault.number(n.t, receipted) > receipts })
	n.vault.kill(n.t)
	n.named.want(n.vault, crossings, had+1)
	n.watch.send(1)
	to.mend()
	n.restart(n.vault)
	n.arrives()
}

// line finds how others reach a listener.
func (n *crossed) line(name string) *line {
	i := slices.IndexFunc(n.lines.lines, func(l *line) bool { return l.name == name })
	return n.lines.lines[i]
}

// aborted calls a move off when everything has come but the release.
func (n *crossed) aborted() {
	from, to := n.source(), n.target()
	h := from.database.gate.before(document, manifest)
	n.goes()
	h.await(n.t)
	if to.number(n.t, pieces) == 0 {
		n.t.Error("nothing has come yet")
	}
	calls := n.line(string(from.name) + "'s calls")
	calls.cut(true) // so that the release doesn't come
	h.pass()
	if _, err := to.client.CancelCrossing(n.t.Context(), n.x.ID); err != nil {
		n.t.Fatal(err)
	}
	for _, statement := range []string{"DELETE FROM world_stretch ", "DELETE FROM key_row"} {
		h = to.database.gate.before(statement)
		if statement == "DELETE FROM world_stretch " {
			n.again(to)
		} else {
			to.start(n.t) // it goes on at its start
		}
		n.named.killAt(to, h)
		n.named.want(to, rooms, 1)
		n.watch.send(1)
	}
	n.restart(to)
	calls.mend()
	n.stays()
}

// olderRegistrar gives the depot a store from before a decision that its file of changes
// has, and then that the worlds ask for again.
func (n *crossed) olderRegistrar() {
	n.quietVault()
	restore := n.vault.database.copied(n.t)
	n.restart(n.vault)
	to := n.target()
	h := to.database.gate.before(document, "avatar")
	n.goes()
	n.named.killAt(to, h)
	decided := n.vault.number(n.t, crossings)
	n.vault.kill(n.t)
	restore()
	n.named.want(n.vault, crossings, decided-1)
	n.watch.send(1)
	n.restart(n.vault)
	n.named.becomes(n.vault, crossings, decided)
	n.restart(to)
	n.arrives()
}

// quietVault ends the depot when nobody waits for it.
func (n *crossed) quietVault() {
	n.t.Helper()
	n.settle()
	if code := n.vault.end(n.t); code != 0 {
		n.t.Errorf("vault ended with %d", code)
	}
}

// copied ends a party and returns what puts back its store as it is now.
func (n *crossed) copied(p *party) (restore func()) {
	n.t.Helper()
	if p.running() {
		if code := p.end(n.t); code != 0 {
			n.t.Errorf("%s ended with %d", p.name, code)
		}
	}
	return n.copyData(p)
}

// olderSource gives the source a store from before the offer: once while nothing is
// decided, so that what it released is worth nothing, and once after the commit, so that
// it learns that the avatar lives elsewhere.
func (n *crossed) olderSource() {
	from, to := n.source(), n.target()
	restore := n.beforeTheOffer()
	h := to.database.gate.after(document, manifest)
	if err := n.insistsOnOrder(); err != nil {
		n.t.Fatal(err)
	}
	n.named.killAt(to, h) // prepared
	from.kill(n.t)
	restore()
	n.restart(from)
	n.claimed(from)
	n.watch.send(1)
	n.restart(to)
	n.stays()

	restore = n.beforeTheOffer()
	h = to.database.gate.before(document, "avatar")
	if err := n.insistsOnOrder(); err != nil {
		n.t.Fatal(err)
	}
	n.named.killAt(to, h) // the commit came
	from.kill(n.t)
	restore()
	n.restart(from)
	n.watch.send(1)
	n.restart(to)
	n.arrives()
}

// beforeTheOffer begins a move that isn't handed in yet, and copies the source's store.
func (n *crossed) beforeTheOffer() (restore func()) {
	n.t.Helper()
	from := n.source()
	n.starts()
	n.settle()
	restore = n.copied(from)
	n.restart(from)
	n.linked()
	return restore
}

// claimed waits until the source has claimed its avatars, so that what it signed before
// is void.
func (n *crossed) claimed(p *party) {
	n.t.Helper()
	had := n.vault.number(n.t, registered)
	wait.Until(n.t, "the avatar's home is claimed", func() bool { return n.vault.number(n.t, registered) > had })
}

// olderTarget gives the target a store from before it had everything, after the commit:
// it fetches again what it lacks, though nothing is granted to it any more; and one from
// before the order, which its owner hands in again.
func (n *crossed) olderTarget() {
	to := n.target()
	h := to.database.gate.before(copying)
	n.goes()
	n.named.killAt(to, h)
	restore := n.copied(to) // copying
	h = to.database.gate.before(document, "avatar")
	n.restart(to)
	n.named.killAt(to, h)
	restore()
	n.watch.send(1)
	n.ungrant(n.source())
	n.restart(to)
	n.arrives()

	n.starts()
	to = n.target()
	n.settle()
	restore = n.copied(to) // asked
	n.restart(to)
	n.linked()
	h = to.database.gate.before(document, "avatar")
	if err := n.insistsOnOrder(); err != nil {
		n.t.Fatal(err)
	}
	n.named.killAt(to, h)
	restore()
	n.restart(to)
	n.watch.send(1)
	if err := n.insistsOnOrder(); err != nil {
		n.t.Fatal(err)
	}
	n.arrives()
}

// ungrant ends all that a world grants.
func (n *crossed) ungrant(p *party) {
	n.t.Helper()
	grants, err := p.client.Grants(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	ended := 0
	for _, g := range grants {
		if g.Revoked != nil {
			continue
		}
		if _, err := p.client.Revoke(n.t.Context(), g.ID); err != nil {
			n.t.Fatal(err)
		}
		ended++
	}
	if ended == 0 {
		n.t.Error("nothing was granted")
	}
}
