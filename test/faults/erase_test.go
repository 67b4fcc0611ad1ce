package faults_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/erasure"
	"carnet/evidence"
	"carnet/identity"
	"carnet/keys"
	"carnet/node"
	"carnet/store/sqlite"
	"carnet/test/wait"
)

// share has the clinic take what arena's avatar gives: heart rate as it is, so that
// batches are copied, and speed rounded, so that others are derived.
func (n *neighbours) share() api.CrossShare {
	n.t.Helper()
	request := n.ask(identity.ActionSubscribe)
	n.approve(request)
	n.give(request, identity.ActionSubscribe, `{"properties": {"heart_rate": {}, "speed": {"round": 10}}}`)
	share, err := n.clinic.client.TakeShare(n.t.Context(), api.NewShare{World: "arena", Avatar: n.there, For: n.here, Purpose: "care"})
	if err != nil || share.State != crossing.Taking {
		n.t.Fatalf("%+v, %v", share, err)
	}
	return share
}

// orderErasure has the owner order that arena's avatar is erased.
func (n *neighbours) orderErasure() carnet.ErasureID {
	n.t.Helper()
	n.readable()
	ctx := n.t.Context()
	asked, err := n.arena.client.BeginErasure(ctx, api.NewErasure{Avatar: n.there, Text: "You asked for it."})
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := identity.ParseErasureRequest(asked.Request)
	if err != nil {
		n.t.Fatal(err)
	}
	e, err := n.store.OrderErasure(r, time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.arena.client.OrderErasure(ctx, asked.ID, e); err != nil {
		n.t.Fatal(err)
	}
	return asked.ID
}

// erased returns how the erasure stands at arena.
func (n *neighbours) erased(id carnet.ErasureID) (e api.Erasure, ok bool) {
	n.t.Helper()
	list, err := n.arena.client.Erasure(n.t.Context(), id)
	if err != nil || len(list) != 1 {
		return e, false
	}
	return list[0], true
}

// over waits until everybody has signed.
func (n *neighbours) over(id carnet.ErasureID) (e api.Erasure) {
	n.t.Helper()
	defer func() {
		if n.t.Failed() {
			e, _ := n.erased(id)
			n.t.Logf("the erasure: %s, waiting %+v, others %+v", e.State, e.Waiting, e.Others)
		}
	}()
	wait.Until(n.t, "the erasure is over", func() bool {
		var ok bool
		e, ok = n.erased(id)
		return ok && e.State == erasure.Over
	})
	return e
}

// shown asks arena for what its avatar has.
func (n *neighbours) shown() (state, history []carnet.Measurement, errs [2]error) {
	ctx := n.t.Context()
	state, errs[0] = n.arena.client.State(ctx, n.there)
	history, _, errs[1] = n.arena.client.History(ctx, n.there, client.HistoryQuery{})
	return state, history, errs
}

// readable checks that arena's avatar is shown, so that unreadable says something.
func (n *neighbours) readable() {
	n.t.Helper()
	wait.Until(n.t, "arena shows its avatar", func() bool {
		state, history, errs := n.shown()
		return errs == [2]error{} && len(state) > 0 && len(history) > 0
	})
}

// unreadable checks that nobody is shown anything of arena's avatar: it isn't there, or,
// as another code says, that can't be told yet.
func (n *neighbours) unreadable(when string, or ...carnet.Code) {
	n.t.Helper()
	if err := n.arena.client.Healthy(n.t.Context()); err != nil {
		n.t.Errorf("%s arena can't be asked: %v", when, err)
	}
	state, history, errs := n.shown()
	for _, err := range errs {
		if !slices.Contains(append(or, carnet.NotFound), carnet.CodeOf(err)) {
			n.t.Errorf("%s arena shows a state, %v, or a history, %v: %v", when, state, history, errs)
		}
	}
}

// shared are the heart rates and speeds that the clinic has by the share.
func (n *neighbours) shared() (all []carnet.Measurement) {
	n.t.Helper()
	for _, name := range []string{"heart_rate", "speed"} {
		ms, _, err := n.clinic.client.History(n.t.Context(), n.here, client.HistoryQuery{Property: name})
		if err != nil {
			n.t.Fatal(err)
		}
		all = append(all, ms...)
	}
	return all
}

// keyNames lists the names of the keys of epochs and slots that a party, which has
// ended, has in its key table.
func keyNames(t *testing.T, p *party) (names []string) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(p.data(), "keys.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store, err := db.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for after := (keys.ID{Kind: "a", Name: "a"}); ; {
		page, err := store.Page(t.Context(), after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range page {
			after = row.ID
			names = append(names, row.ID.Kind+" "+row.ID.Name)
		}
		if len(page) == 0 {
			return names
		}
	}
}

// copyTo copies a party's data directory, while the party doesn't run.
func copyTo(t *testing.T, p *party, dir string) {
	t.Helper()
	if err := copyTree(dir, p.data()); err != nil {
		t.Fatal(err)
	}
	private(t, dir)
}

// An avatar that was shared is erased by its owner's order, as processes: nobody reads
// anything of it from then on, no party has a byte or key of it any more, an old copy of
// the bytes can't be opened by anybody, and an old copy of everything isn't shown.
func TestErase(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, ownView)
	n.watch.walks()
	ctx := t.Context()
	share := n.share()
	for range 20 { // so many frames that they are compacted
		n.watch.send(1)
		time.Sleep(30 * time.Millisecond)
	}
	n.settle()
	wait.Until(t, "the clinic has it", func() bool { return len(n.shared()) >= 20 })
	for _, p := range n.worlds() {
		wait.Until(t, fmt.Sprintf("%s has compacted", p.name), func() bool {
			st, err := p.client.Status(ctx)
			return err == nil && st.World.Stretches > 0
		})
	}
	time.Sleep(2 * time.Second) // and again
	before := n.shared()
	n.settle()

	// What there was, as it was.
	old := make(map[carnet.PartyID]string)
	for _, p := range []*party{n.arena, n.clinic} {
		p.kill(t)
		old[p.name] = filepath.Join(t.TempDir(), "data")
		copyTo(t, p, old[p.name])
	}
	clinics := n.ownStreams()
	objects, stay := n.objectsAt(clinics)
	n.restart(n.arena)
	n.restart(n.clinic)

	n.watch.send(3) // so that some of it isn't compacted
	id := n.orderErasure()
	n.unreadable("once it is ordered")
	e := n.over(id)
	n.unreadable("at the end")
	if got := n.shared(); len(got) != 0 {
		t.Errorf("the clinic still has %d of %d measurements of it", len(got), len(before))
	}
	if ms, err := n.clinic.client.State(ctx, n.here); err != nil || slices.ContainsFunc(ms, func(m carnet.Measurement) bool { return m.Name != "steps" }) {
		t.Errorf("the clinic's state is %v, %v", ms, err)
	}
	n.signedByAll(e, share)
	n.proved(id)

	// What the watch says goes nowhere, and the mapping has ended.
	n.watch.send(3)
	n.settle()
	if m, err := n.hub.client.Mapping(ctx, n.watch.mappings["arena"].ID); err != nil || !m.Stopped {
		t.Errorf("the mapping to arena is %+v, %v", m, err)
	}
	n.unreadable("after the watch has gone on")

	for _, p := range n.parties() {
		p.kill(t)
	}
	n.nothingLeft(objects, stay, clinics)
	n.oldBytesStayClosed(old[n.arena.name])
	n.oldCopyIsErasedAgain(old[n.arena.name])
}

// ownView is what the clinic gets of the watch itself: what no share gives it.
const ownView = `{"properties": {"steps": {}}, "purposes": ["care"]}`

// ownStreams tells which stream the watch's own agent fills in the clinic. Arena and the
// clinic have ended, and keep keys of theirs and of what is shared: who searches for
// these later can find them.
func (n *neighbours) ownStreams() (clinic carnet.StreamID) {
	n.t.Helper()
	of := func(p *party, id carnet.AvatarID, property string) (own carnet.StreamID) {
		i := n.inspect(p)
		defer i.Close()
		err := i.World.EachHeld(n.t.Context(), id, func(h avatar.Held) error {
			if h.Measurement.Name == property {
				own = h.Stream
			}
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
		return own
	}
	arena, clinic := of(n.arena, n.there, "heart_rate"), of(n.clinic, n.here, "steps")
	for p, s := range map[*party]carnet.StreamID{n.arena: arena, n.clinic: clinic} {
		if own, _ := n.epochs(p, s); s == (carnet.StreamID{}) || own == 0 {
			n.t.Fatalf("%s has no key of its own stream %s", p.name, s)
		}
	}
	if _, others := n.epochs(n.clinic, clinic); len(others) == 0 {
		n.t.Fatal("the clinic has no key of what is shared")
	}
	return clinic
}

// epochs counts the keys of a stream that a party has, which has ended, and names those of
// other streams.
func (n *neighbours) epochs(p *party, stream carnet.StreamID) (own int, others []string) {
	n.t.Helper()
	for _, name := range keyNames(n.t, p) {
		if of, is := strings.CutPrefix(name, "epoch "); is && strings.HasPrefix(of, stream.String()+"/") {
			own++
		} else if is {
			others = append(others, name)
		}
	}
	return own, others
}

// objectsAt reads the depot's objects, and names those that stay: programs, and what has
// the clinic's own stream.
func (n *neighbours) objectsAt(clinics carnet.StreamID) (objects store, stay []string) {
	n.t.Helper()
	objects = readStore(n.t, filepath.Join(n.vault.data(), "objects"))
	for name, body := range objects {
		if bytes.HasPrefix(body, []byte("\x00asm")) || bytes.Contains(body, clinics[:]) {
			stay = append(stay, name)
		}
	}
	if len(objects) <= len(stay) {
		n.t.Fatalf("the depot has %d objects, of which %d stay", len(objects), len(stay))
	}
	return objects, stay
}

// signedByAll checks who has signed.
func (n *neighbours) signedByAll(e api.Erasure, share api.CrossShare) {
	n.t.Helper()
	roles := make(map[identity.DeletionRole]int)
	for _, token := range e.Deletions {
		d, err := identity.OpenDeletion(token)
		if err != nil {
			n.t.Fatal(err)
		}
		roles[d.Role]++
		if d.Erasure != e.ID || d.Unrecoverable.Before(d.Unreadable) || d.Unreadable.Before(e.Hidden.Truncate(time.Second)) {
			n.t.Errorf("signed %+v", d)
		}
		if keepsKeys := d.Role != identity.DeletedThings; keepsKeys && d.Unrecoverable.Sub(d.Unreadable) != 30*24*time.Hour {
			n.t.Errorf("as %s it is unrecoverable %v after it is unreadable", d.Role, d.Unrecoverable.Sub(d.Unreadable))
		}
		if d.Role == identity.DeletedShare && (d.Of != share.ID.String() || d.Streams < 2 || d.Batches == 0) {
			n.t.Errorf("the clinic signed %+v", d)
		}
	}
	want := map[identity.DeletionRole]int{identity.DeletedAtHome: 1, identity.DeletedShare: 1, identity.DeletedThings: 1, identity.DeletedAtDepot: 2}
	if fmt.Sprint(roles) != fmt.Sprint(want) {
		n.t.Errorf("signed were %v, want %v", roles, want)
	}
	if !slices.ContainsFunc(e.Others, func(o api.ErasedElsewhere) bool { return o.Role == string(erasure.Registers) && o.Heard != nil }) {
		n.t.Error("the register doesn't know it")
	}
}

// proved verifies the bundle offline, with and without the world's key from outside; and
// finds what was changed.
func (n *neighbours) proved(id carnet.ErasureID) {
	t := n.t
	t.Helper()
	bundle, err := n.arena.client.ErasureEvidence(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, evidence.ErasureFile)
	if err := bundle.Write(file); err != nil {
		t.Fatal(err)
	}
	trust := filepath.Join(t.TempDir(), "trust.json")
	run := func(args ...string) int {
		cmd := exec.CommandContext(t.Context(), *program, args...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		t.Logf("carnet %v:\n%s", args, out)
		return cmd.ProcessState.ExitCode()
	}
	if code := run("verify", dir); code != 0 {
		t.Errorf("the bundle isn't proved: %d", code)
	}
	n.arena.kill(t) // its files alone say whom it is
	if code := run("party", "trust", "--config", n.arena.file(), "--out", trust); code != 0 {
		t.Fatalf("no trust file: %d", code)
	}
	n.restart(n.arena)
	if code := run("verify", dir, "--trust", trust); code != 0 {
		t.Errorf("the bundle isn't proved with arena's key: %d", code)
	}
	if err := os.Remove(trust); err != nil {
		t.Fatal(err)
	}
	n.clinic.kill(t)
	if code := run("party", "trust", "--config", n.clinic.file(), "--out", trust); code != 0 {
		t.Fatalf("no trust file: %d", code)
	}
	n.restart(n.clinic)
	if code := run("verify", dir, "--trust", trust); code != 1 {
		t.Errorf("the bundle is proved with the clinic's key: %d", code)
	}
	left := bundle
	left.Deletions = left.Deletions[:len(left.Deletions)-1]
	if err := left.Write(file); err != nil {
		t.Fatal(err)
	}
	if code := run("verify", dir); code != 2 {
		t.Errorf("without a receipt: %d", code)
	}
	bent := bundle
	bent.Deletions = slices.Clone(bundle.Deletions)
	d := []byte(bent.Deletions[1])
	d[len(d)/2] ^= 1
	bent.Deletions[1] = string(d)
	if err := bent.Write(file); err != nil {
		t.Fatal(err)
	}
	if code := run("verify", dir); code != 1 {
		t.Errorf("with a changed receipt: %d", code)
	}
}

// nothingLeft searches every file of every party for what was sealed, and the key
// tables for keys of any stream but the clinic's own.
func (n *neighbours) nothingLeft(objects store, stay []string, clinics carnet.StreamID) {
	t := n.t
	t.Helper()
	const run = 64
	stores := make(map[carnet.PartyID]store)
	for _, p := range n.parties() {
		stores[p.name] = readStore(t, p.data())
	}
	searched := make(map[bool]int) // by whether they stay
	for name, body := range objects {
		stays := slices.Contains(stay, name)
		for at := 0; at+run <= len(body) && searched[stays] < 2000; at += run {
			// Of two frames of one sender the headers have much in common.
			if bytes.Contains(body[max(0, at-160):min(len(body), at+2*run)], []byte("application/vnd.carnet.")) {
				continue
			}
			searched[stays]++
			for party, s := range stores {
				if file := s.find(body[at : at+run]); file != "" && !stays {
					t.Errorf("%s has a part of an object of the erased avatar in %s (object %s at %d)", party, file, name, at)
					return
				} else if stays && party == "vault" && file == "" {
					t.Errorf("the object %s, which stays, isn't found: the search finds nothing", name)
					return
				}
			}
		}
	}
	if searched[false] == 0 || len(stay) > 0 && searched[true] == 0 {
		t.Errorf("%d runs of the erased avatar were searched for, and %d of what stays", searched[false], searched[true])
	}
	for _, p := range n.worlds() {
		own, others := n.epochs(p, clinics)
		if len(others) > 0 || (own > 0) != (p == n.clinic) {
			t.Errorf("%s has %d keys of the clinic's own stream, and of others %v", p.name, own, others)
		}
	}
}

// oldBytesStayClosed opens an old copy of arena's store with the key table of now:
// nothing of the avatar opens, though its bytes are there.
func (n *neighbours) oldBytesStayClosed(old string) {
	t := n.t
	t.Helper()
	dir := filepath.Join(t.TempDir(), "arena")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	config := n.arena.config
	copied := &party{name: "arena", dir: dir}
	copyTo(t, &party{dir: n.arena.dir}, copied.data())
	for _, name := range []string{"state.db", "state.db-wal", "state.db-shm"} {
		from, err := os.ReadFile(filepath.Join(old, name))
		to := filepath.Join(copied.data(), name)
		if err != nil {
			os.Remove(to)
			continue
		}
		if err := os.WriteFile(to, from, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opened := func(data string) int {
		config.Data, config.KeyFile = data, filepath.Join(n.arena.dir, "kek")
		i, err := node.Inspect(t.Context(), config, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		ms, _, err := i.World.History(t.Context(), n.there, avatar.Query{From: 0, To: 1 << 62, Limit: 1000})
		if err != nil && carnet.CodeOf(err) != carnet.NotFound && carnet.CodeOf(err) != carnet.TooOld {
			t.Fatal(err)
		}
		return len(ms)
	}
	if got := opened(old); got == 0 {
		t.Error("the old copy with the old keys opens nothing, so the test says nothing")
	}
	if got := opened(copied.data()); got != 0 {
		t.Errorf("%d measurements of an old copy of the bytes open with the keys of now", got)
	}
}

// oldCopyIsErasedAgain gives arena an old copy of everything: while the register can't be
// asked it shows nothing, and then it erases it again.
func (n *neighbours) oldCopyIsErasedAgain(old string) {
	t := n.t
	t.Helper()
	if err := os.RemoveAll(n.arena.data()); err != nil {
		t.Fatal(err)
	}
	copyTo(t, &party{dir: filepath.Dir(old)}, n.arena.data())
	n.restart(n.arena)
	if _, err := n.arena.client.Avatar(t.Context(), n.there); err != nil {
		t.Fatalf("the old copy doesn't have the avatar: %v", err)
	}
	n.unreadable("while an old copy can't ask the register", carnet.Unavailable)
	n.restart(n.vault)
	wait.Until(t, "it is found to be erased", func() bool {
		n.unreadable("while it is found out", carnet.Unavailable)
		_, err := n.arena.client.Avatar(t.Context(), n.there)
		return carnet.CodeOf(err) == carnet.NotFound
	})
	n.restart(n.clinic)
	n.restart(n.hub)
	list, err := n.arena.client.Erasures(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("arena lists the erasures %+v, %v", list, err)
	}
	n.over(list[0].ID)
}
