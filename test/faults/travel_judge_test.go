package faults_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/demo"
	"carnet/evidence"
	"carnet/item"
	"carnet/node"
	"carnet/seal"
	"carnet/thing"
)

// judgeTravellers waits until every move is over and everything is passed on; then
// each avatar lives in one world, which the registrar names, what its watch had
// acknowledged is there once, whichever world received it, the evidence of all of it
// verifies, its items are where it is, no other world has anything of it, and no party
// finds anything that is half done.
func (n *neighbours) judgeTravellers(all ...*traveller) {
	n.t.Helper()
	for _, p := range n.parties() {
		n.await(p)
	}
	n.callOffAsked()
	settles(n.t, "every move is over", patience, n.nothingHalfDone)
	for _, v := range all {
		settles(n.t, "its thing's data goes where the avatar lives", time.Minute, func() error { return v.goesOn(n.t.Context()) })
	}
	n.settle()
	n.shownOnce(all)
	for _, v := range all {
		v.itemsAreHere()
	}
	settles(n.t, "no party finds anything half done", time.Minute, n.nothingFound)
	n.endAll()

	ctx := n.t.Context()
	hub, worlds := n.inspect(n.hub), make(map[*party]*node.Inspection)
	defer hub.Close()
	var trusted []*evidence.Trust
	for _, p := range n.worlds() {
		world := n.inspect(p)
		defer world.Close()
		if coming, defects := world.World.Arriving(), world.World.Defects(); len(coming) > 0 || defects > 0 {
			n.t.Errorf("%s waits for avatars that don't come, %v, or refused %d batches", p.name, coming, defects)
		}
		trust, err := pinned(ctx, world, p)
		if err != nil {
			n.t.Fatal(err)
		}
		worlds[p], trusted = world, append(trusted, trust)
	}
	held := 0
	for _, v := range all {
		n.judgeLog(ctx, hub.Things, v.watch)
		held += v.judgeHome(ctx, hub.Things, worlds[v.at], trusted)
	}
	n.leftNothing(ctx, all, worlds)
	n.t.Logf("judged: %d measurements of %d avatars", held, len(all))
}

// judgeHome holds what an avatar's home has against the log, and its evidence.
func (v *traveller) judgeHome(ctx context.Context, hub *thing.Agent, world *node.Inspection, trusted []*evidence.Trust) int {
	v.t.Helper()
	m := v.watch.mappings[v.at.name]
	result, err := demo.Audit(ctx, hub, world.World, m)
	if err != nil {
		v.t.Fatalf("audit %s: %v", v.watch.id, err)
	}
	if result.Faults() != 0 || result.Held == 0 {
		v.t.Errorf("the avatar of %s in %s, after %d moves: %+v", v.watch.id, v.at.name, len(v.trail), result)
	}
	dir := v.bundle(ctx, world)
	report, err := evidence.Verify(ctx, dir, join(trusted), evidence.VerifyOptions{})
	if err != nil || report.Verdict != evidence.True || int(report.Counts.Measurements) != result.Held {
		v.t.Errorf("the evidence of %s in %s, which holds %d: %v\n%s", v.watch.id, v.at.name, result.Held, err, report.Summary())
	}
	v.verifies(dir, trusted)
	return result.Held
}

// bundle writes the avatar's evidence as it is in its world.
func (v *traveller) bundle(ctx context.Context, world *node.Inspection) string {
	v.t.Helper()
	dir, err := os.MkdirTemp(v.dir, "evidence-") // which a row's test doesn't end with
	if err != nil {
		v.t.Fatal(err)
	}
	dir = filepath.Join(dir, node.BundleName(v.at.name, v.id))
	prover := node.Prover{World: world.World, Party: v.at.name, Peers: world.Peers, UpTo: avatar.AllFolded}
	if err := prover.Write(ctx, v.id, dir); err != nil {
		v.t.Fatalf("prove the avatar of %s: %v", v.watch.id, err)
	}
	return dir
}

// verifies has the program verify a bundle by the keys that are trusted.
func (n *neighbours) verifies(dir string, trusted []*evidence.Trust) {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "trust.json")
	if err := join(trusted).Write(file); err != nil {
		n.t.Fatal(err)
	}
	if out, errs, code := carnetCommand(n.t, "verify", dir, "--trust", file); code != 0 {
		n.t.Errorf("carnet verify %s ends with %d: %s%s", dir, code, out, errs)
	}
}

func join(trusted []*evidence.Trust) *evidence.Trust {
	all := &evidence.Trust{Version: 1}
	for _, t := range trusted {
		all.Join(t)
	}
	return all
}

// leftNothing searches every file and row of a world for ciphertext of avatars that live in
// the other, and its key table for keys of their streams.
func (n *neighbours) leftNothing(ctx context.Context, all []*traveller, worlds map[*party]*node.Inspection) {
	n.t.Helper()
	traces := map[*party]trace{n.arena: make(trace), n.clinic: make(trace)} // of who lives there
	streams := map[*party]map[carnet.StreamID]bool{n.arena: {}, n.clinic: {}}
	for _, v := range all {
		if err := traces[v.at].of(ctx, worlds[v.at].World, v, streams[v.at]); err != nil {
			n.t.Fatal(err)
		}
	}
	for _, w := range worlds {
		if err := w.Close(); err != nil { // its log goes into its file
			n.t.Fatal(err)
		}
	}
	for p, live := range traces {
		for _, other := range n.worlds() {
			found := live.in(n.t, other)
			switch {
			case other != p && len(found) > 0:
				n.t.Errorf("%s has %d traces of avatars that live in %s: %s", other.name, len(found), p.name, strings.Join(found[:min(3, len(found))], "; "))
			case other == p && len(live) > 0 && len(found) == 0:
				n.t.Errorf("nothing is found in %s of avatars that live there: the search finds nothing", p.name)
			}
			keys := n.keysOf(other, streams[p])
			switch {
			case other != p && len(keys) > 0:
				n.t.Errorf("%s has keys of avatars that live in %s: %v", other.name, p.name, keys)
			case other == p && len(streams[p]) > 0 && len(keys) == 0:
				n.t.Errorf("%s has no key of avatars that live there: the search finds nothing", p.name)
			}
		}
	}
}

// trace is runs of bytes by which one knows what is left of avatars, by their first
// eight.
type trace map[uint64][]sign

type sign struct {
	bytes []byte
	of    string
}

func (t trace) add(b []byte, of string) {
	first := binary.BigEndian.Uint64(b)
	t[first] = append(t[first], sign{b, of})
}

// keysOf names a party's keys of streams: of epochs, and of slots.
func (n *neighbours) keysOf(p *party, streams map[carnet.StreamID]bool) (found []string) {
	n.t.Helper()
	if p.database != nil {
		for s := range streams {
			if keys := p.number(n.t, `SELECT count(*) FROM key_row WHERE kind = 'epoch' AND name LIKE '`+s.String()+`/%'`); keys > 0 {
				found = append(found, fmt.Sprintf("%d of stream %s", keys, s))
			}
		}
		return found
	}
	for _, name := range keyNames(n.t, p) {
		of, is := strings.CutPrefix(name, "epoch ")
		stream, _, _ := strings.Cut(of, "/")
		if id, err := carnet.ParseStreamID(stream); is && err == nil && streams[id] {
			found = append(found, name)
		}
	}
	return found
}

// of takes the traces of an avatar, the end of each batch, and notes its streams.
func (t trace) of(ctx context.Context, world *avatar.Agent, v *traveller, streams map[carnet.StreamID]bool) error {
	const length = 24
	return world.Proven(ctx, v.id, avatar.AllFolded, func(p *avatar.ProvenFrame) error {
		for _, b := range p.Batches {
			h, _, err := seal.ParseHeader(b)
			if err != nil {
				return err
			}
			streams[h.Stream] = true
			t.add(slices.Clone(b[len(b)-length:]), fmt.Sprintf("a batch of %s", v.watch.id))
		}
		return nil
	})
}

// heldBy says which columns of a party's database have bytes that were found in its
// file; none: they lie where SQLite keeps nothing.
func heldBy(t *testing.T, file string, b []byte) string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		return err.Error()
	}
	defer db.Close()
	rows, err := db.Query(`SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.type IN ('BLOB', 'TEXT')`)
	if err != nil {
		return err.Error()
	}
	var columns [][2]string
	for rows.Next() {
		var c [2]string
		if err := rows.Scan(&c[0], &c[1]); err != nil {
			return err.Error()
		}
		columns = append(columns, c)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err.Error()
	}
	held := "no row"
	for _, c := range columns {
		var n int
		if err := db.QueryRow(fmt.Sprintf(`SELECT count(*) FROM "%s" WHERE instr(CAST("%s" AS BLOB), ?) > 0`, c[0], c[1]), b).Scan(&n); err != nil {
			return err.Error()
		} else if n > 0 {
			held = fmt.Sprintf("%d rows of %s.%s", n, c[0], c[1])
		}
	}
	return held
}

// in looks for the traces in a store.
func (t trace) in(of *testing.T, p *party) (found []string) {
	of.Helper()
	all := readStore(of, p.data())
	if p.database != nil {
		maps.Copy(all, p.database.rows(of))
	}
	for name, b := range all {
		for i := 0; i+8 <= len(b); i++ {
			for _, m := range t[binary.BigEndian.Uint64(b[i:])] {
				if bytes.HasPrefix(b[i:], m.bytes) {
					at := fmt.Sprintf("%s in %s at %d", m.of, name, i)
					if strings.HasSuffix(name, ".db") && len(found) < 3 {
						at += ", in " + heldBy(of, filepath.Join(p.data(), name), m.bytes)
					}
					found = append(found, at)
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// settles waits until nothing is wrong any more, and says what was last.
func settles(t *testing.T, what string, within time.Duration, wrong func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		if err = wrong(); err == nil {
			return
		}
	}
	t.Fatalf("not within %s: %s: %v", within, what, err)
}

// callOffAsked calls off the moves that were begun, and whoever began them didn't hear
// so: nobody orders them.
func (n *neighbours) callOffAsked() {
	n.t.Helper()
	for _, p := range n.worlds() {
		all, err := p.client.Crossings(n.t.Context())
		if err != nil {
			n.t.Fatal(err)
		}
		for _, x := range all {
			if x.State == move.Asked {
				if _, err := p.client.CancelCrossing(n.t.Context(), x.ID); err != nil {
					n.t.Fatal(err)
				}
			}
		}
	}
}

// nothingHalfDone says what of moves isn't over at a world, and at hub.
func (n *neighbours) nothingHalfDone() error {
	ctx := n.t.Context()
	for _, p := range n.worlds() {
		all, err := p.client.Crossings(ctx)
		if err != nil {
			return err
		}
		for _, x := range all {
			switch {
			case x.State == move.Dropped || x.State == move.Kept:
			case x.State == move.Home && x.Departure != "" && x.Surveyed && x.Unfit == 0:
			case x.State == move.Gone && x.Departure != "":
			default:
				return fmt.Errorf("%s: crossing %s is %s, surveyed %t, with %d batches that can't be used: %s %+v", p.name, x.ID, x.State, x.Surveyed, x.Unfit, x.Why, x.Progress)
			}
		}
	}
	things, err := n.hub.client.Things(ctx)
	if err != nil {
		return err
	}
	for _, of := range things {
		if len(of.Waiting) > 0 {
			return fmt.Errorf("hub: a mapping of %s waits for %s", of.ID, of.Waiting[0].Waits.For)
		}
		for _, m := range of.Mappings {
			if m.Refused != nil {
				return fmt.Errorf("hub: %s told %s of a move that was refused: %s", m.World, of.ID, m.Refused.Why)
			}
		}
	}
	return nil
}

// shownOnce wants each avatar to be shown by the world where it lives, which the
// registrar names, and by no other, and no avatar that nobody knows.
func (n *neighbours) shownOnce(all []*traveller) {
	n.t.Helper()
	ctx := n.t.Context()
	want := map[*party][]carnet.AvatarID{n.arena: {}, n.clinic: {n.here}}
	for _, v := range all {
		want[v.at] = append(want[v.at], v.id)
		if len(v.trail) == 0 {
			continue
		}
		enrolled, err := v.at.client.Enrol(ctx, v.id)
		if err != nil {
			n.t.Fatal(err)
		}
		for p, asker := range n.askers {
			home, _, err := asker.client.Home(ctx, enrolled.Home)
			if err != nil || home.World != didOf(n.askers[v.at].self.Key) {
				n.t.Errorf("the registrar tells %s that the avatar of %s is at %+v, %v, and it lives in %s", p.name, v.watch.id, home, err, v.at.name)
			}
		}
		v.home = enrolled.Home
	}
	for p, ids := range want {
		listed, err := p.client.Avatars(ctx)
		if err != nil {
			n.t.Fatal(err)
		}
		shown := make(map[carnet.AvatarID]bool)
		for _, info := range listed {
			shown[info.ID] = true
			if !slices.Contains(ids, info.ID) {
				n.t.Errorf("%s shows %s, which doesn't live there", p.name, info.ID)
			}
		}
		for _, id := range ids {
			if !shown[id] {
				n.t.Errorf("%s doesn't show %s, which lives there", p.name, id)
			}
		}
	}
}

// itemsAreHere wants each of an avatar's items to be with it and in no other world, as the
// registrar says, too, with every move in its chain.
func (v *traveller) itemsAreHere() {
	v.t.Helper()
	ctx := v.t.Context()
	for _, sword := range v.swords {
		if i, err := v.at.client.Item(ctx, sword.ID); err != nil || i.State != item.Here || i.Avatar != v.id {
			v.t.Errorf("%s has the sword %s of its avatar %s as %+v, %v", v.at.name, sword.ID, v.id, i, err)
			continue
		}
		other := v.other()
		if i, err := other.client.Item(ctx, sword.ID); len(v.trail) > 0 && (err != nil || i.State != item.Gone) || len(v.trail) == 0 && carnet.CodeOf(err) != carnet.NotFound {
			v.t.Errorf("%s has the sword %s of %s's avatar, after %d moves, as %+v, %v", other.name, sword.ID, v.at.name, len(v.trail), i, err)
		}
		if h := v.read(v.at, sword.ID); len(h.Entries) != 1+len(v.trail) || h.Avatar != v.id || h.Issuer != sword.Issuer || h.Retired {
			v.t.Errorf("after %d moves the chain of the sword %s says %+v", len(v.trail), sword.ID, h)
		}
		home, _, err := v.askers[other].client.Home(ctx, sword.Home)
		if err != nil || home.World != didOf(v.askers[v.at].self.Key) {
			v.t.Errorf("the registrar tells %s that the sword %s is at %+v, %v, and it is in %s", other.name, sword.ID, home, err, v.at.name)
		}
	}
}

// nothingFound says what a party finds half done of its own, as 'carnet doctor' does.
func (n *neighbours) nothingFound() error {
	for _, p := range n.parties() {
		e, err := p.client.Examine(n.t.Context())
		if err != nil {
			return err
		}
		if len(e.Findings) > 0 {
			return fmt.Errorf("%s finds %+v", p.name, e.Findings)
		}
	}
	return nil
}

var errNone = errors.New("there is none")

// goesOn finds the mapping by which an avatar is sent to where it lives.
func (v *traveller) goesOn(ctx context.Context) error {
	info, err := v.hub.client.Thing(ctx, v.watch.id)
	if err != nil {
		return err
	}
	for _, m := range info.Mappings {
		if m.Avatar == v.id && m.World == v.at.name && !m.Stopped {
			v.watch.mappings[v.at.name] = m
			return nil
		}
	}
	var have []string
	for _, m := range info.Mappings {
		have = append(have, fmt.Sprintf("%s of %s, stopped %t", m.ID, m.World, m.Stopped))
	}
	return fmt.Errorf("no mapping of %s goes to %s in %s: %w; %s", v.watch.id, v.id, v.at.name, errNone, strings.Join(have, "; "))
}
