package faults_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/td"
	"carnet/test/wait"
)

const (
	epochDocuments = `SELECT count(*) FROM world_document WHERE kind = 'epoch'`
	halves         = `SELECT count(*) FROM world_document WHERE kind = 'moved'`
	saved          = `SELECT coalesce(sum(version), 0)::bigint FROM world_document WHERE kind = 'state'`
)

// promised kills arena when it has noted how long a key may be kept, and hasn't the
// key: that document opens nothing, and the sender begins another epoch.
func (n *named) promised() {
	n.anew()
	arena := n.arena
	had, keys, documents, held := arena.number(n.t, frameRows), arena.number(n.t, epochs), arena.number(n.t, epochDocuments), n.measurements(arena)
	h := arena.database.gate.before("INSERT INTO key_row", "epoch")
	n.w.send(1)
	n.killAt(arena, h)
	n.want(arena, epochDocuments, documents+1)
	n.want(arena, epochs, keys)
	n.want(arena, frameRows, had)
	n.restart(arena)
	n.quiet()
	n.want(arena, epochDocuments, documents+2)
	n.want(arena, epochs, keys+1)
	n.want(arena, frameRows, had+1)
	if got := n.measurements(arena); got != held+2 {
		n.t.Errorf("arena has %d measurements, want %d", got, held+2)
	}
}

// anew has the agent begin new epochs.
func (n *named) anew() {
	n.t.Helper()
	n.quiet()
	n.hub.kill(n.t)
	n.restart(n.hub)
	n.linked()
}

// half kills arena when of a compaction the first stretches are in and the last
// aren't, and in the midst of deleting them: texts are more than one transaction
// takes.
func (n *named) half() {
	n.quiet()
	arena, gate := n.arena, n.arena.database.gate
	notes := n.addNotes(`{"properties": {"note": {}}, "purposes": ["fitness"]}`)
	h := gate.before("WHERE NOT stored")
	h.await(n.t)
	had, put := arena.number(n.t, stretches), n.vault.number(n.t, objects)
	notes.sendTexts(texts)
	n.feed()
	n.quiet()
	frames := arena.number(n.t, bodies)
	at := gate.after(document, "moved")
	h.pass()
	n.killAt(arena, at)
	added := arena.number(n.t, stretches) - had
	if added == 0 {
		n.t.Error("no stretch was added")
	}
	n.want(arena, halves, 1)
	n.want(arena, bodies, frames)
	n.dieAt(arena, gate.before("DELETE FROM world_stretch"))
	n.want(arena, stretches, had+added)
	n.dieAt(arena, gate.after("DELETE FROM world_stretch"))
	n.want(arena, stretches, had)
	n.want(arena, halves, 1)
	n.want(arena, bodies, frames)
	n.want(n.vault, objects, put)
	n.restart(arena)
	n.becomes(arena, bodies, 0)
	n.becomes(arena, unstored, 0)
	n.want(arena, halves, 0)
	made := arena.number(n.t, stretches) - had
	if made <= added {
		n.t.Errorf("the compaction makes %d stretches, and had added %d before the last", made, added)
	}
	n.want(n.vault, objects, put+made) // that nothing is there twice, the judge sees
}

// texts are as many as make a stretch that is larger than what one transaction adds.
const texts = 64

// addNotes adds a thing that measures texts, for arena alone.
func (n *named) addNotes(view string) *watch {
	n.t.Helper()
	description := strings.Replace(string(td.Watch()), `"properties": {`, `"properties": {
		"note": {"type": "string", "carnet:sensitivity": "public", "carnet:linger": "PT0S", "forms": [{"href": "x"}]},`, 1)
	w := n.addDescribed(description, map[carnet.PartyID]string{"arena": view})
	n.quiet()
	return w
}

// sendTexts publishes texts that nothing makes much smaller.
func (w *watch) sendTexts(n int) {
	w.town.t.Helper()
	for range n {
		text := make([]byte, 12<<10)
		for i := range text {
			text[i] = byte('!' + rand.IntN(90))
		}
		at := base + int64(len(w.packs))*int64(time.Second)
		w.packs = append(w.packs, []carnet.Measurement{{Name: "note", Time: at, Value: carnet.String(string(text))}})
		w.acked = append(w.acked, false)
	}
	w.send(0)
}

// lostKey loses the key of a batch that is folded and not compacted, as from a key
// table restored from an older copy: nobody is blamed for it, it is compacted as it
// is, and passed over by who reads.
func (n *named) lostKey() {
	n.anew()
	arena := n.arena
	speeds := func() []carnet.Measurement { return n.history(n.ring, "speed") }
	before := speeds()
	n.ring.send(1)
	n.quiet()
	newest := arena.number(n.t, `SELECT max(xmin::text::bigint) FROM key_row WHERE kind = 'epoch'`)
	h := arena.database.gate.before("DELETE FROM world_frame_body")
	n.feed()
	n.killAt(arena, h) // folded, as the states say that are saved
	lost := arena.number(n.t, fmt.Sprintf(`WITH lost AS (DELETE FROM key_row WHERE kind = 'epoch' AND xmin::text::bigint = %d RETURNING name)
		SELECT count(*) FROM lost`, newest))
	if lost != 1 {
		n.t.Fatalf("%d keys are lost, want 1", lost)
	}
	had, said := arena.number(n.t, stretches), arena.number(n.t, others)
	n.restart(arena)
	n.becomes(arena, bodies, 0)
	n.becomes(arena, unstored, 0)
	n.quiet()
	n.want(arena, others, said+arena.number(n.t, stretches)-had) // that each was stored, and no refusal
	if got := speeds(); !slices.Equal(got, before) {
		n.t.Errorf("of ring's speed arena shows %v, want what it showed before, %v", got, before)
	}
	n.ring.send(1)
	n.quiet()
	wait.Until(n.t, "what comes under the next epoch is shown", func() bool { return len(speeds()) == len(before)+1 })
}

// keyEnds kills arena when it has destroyed a key under which nothing came, and
// before it says so. The world gets that key, and its mapping ends before the frame.
func (n *named) keyEnds() {
	n.quiet()
	arena, gate := n.arena, n.arena.database.gate
	short := n.addPrompt("arena")
	n.quiet()
	keys, documents, frames := arena.number(n.t, epochs), arena.number(n.t, epochDocuments), arena.number(n.t, frameRows)
	h := gate.after("INSERT INTO key_row", "epoch")
	short.send(1)
	h.await(n.t)
	id := short.mappings["arena"].ID
	ended := make(chan error, 1)
	go func() {
		_, err := n.hub.client.Unmap(n.t.Context(), id)
		ended <- err
	}()
	wait.Until(n.t, "the mapping has ended", func() bool {
		m, err := n.hub.client.Mapping(n.t.Context(), id)
		return err == nil && m.Stopped
	})
	h.pass()
	if err := <-ended; err != nil {
		n.t.Fatal(err)
	}
	n.quiet()
	n.want(arena, epochs, keys+1)
	n.want(arena, frameRows, frames)
	arena.kill(n.t)
	n.dieAt(arena, gate.before("DELETE FROM key_row", "epoch"))
	said := arena.number(n.t, statements)
	n.want(arena, epochs, keys+1)
	n.dieAt(arena, gate.after("DELETE FROM key_row", "epoch"))
	n.want(arena, epochs, keys)
	n.want(arena, epochDocuments, documents+1)
	n.want(arena, statements, said)
	n.restart(arena)
	n.becomes(arena, epochDocuments, documents)
	n.want(arena, epochs, keys)
	n.want(arena, statements, said+1)
	arena.kill(n.t)
	n.restart(arena)
	n.quiet()
	n.want(arena, statements, said+1)
}

// forgotten kills arena when it has forgotten a value and the states aren't saved.
// The value's hour is nearly over when arena reads its frame: the rows of what isn't
// compacted are made an hour older while the world is down.
func (n *named) forgotten() {
	arena, gate := n.arena, n.arena.database.gate
	var ends time.Time
	for left := 8 * time.Second; !time.Now().Before(ends); left *= 2 { // longer where the machine is slow
		if left > time.Minute {
			n.t.Fatal("the value was over before it was seen")
		}
		ends = n.nearlyOver(left)
	}
	states := arena.number(n.t, saved)
	time.Sleep(time.Until(ends))
	if n.shows(n.ring, "speed") {
		n.t.Error("a value is shown that is over, and not forgotten yet")
	}
	arena.kill(n.t)
	n.dieAt(arena, gate.before(document, "fold"))
	n.want(arena, saved, states)
	h := gate.before(document, "fold")
	n.restart(arena)
	h.await(n.t)
	if n.shows(n.ring, "speed") { // which its saved state has
		n.t.Error("a value that is over is shown")
	}
	h.pass()
	n.becomes(arena, saved, states+1)
	if n.shows(n.ring, "speed") {
		n.t.Error("a forgotten value is shown")
	}
	n.becomes(arena, doomed, 0)
}

// nearlyOver has arena save the state with a value that is over in a while, and returns
// when that is.
func (n *named) nearlyOver(left time.Duration) (ends time.Time) {
	n.t.Helper()
	n.quiet()
	arena := n.arena
	h := arena.database.gate.after("INSERT INTO world_frame ")
	n.ring.send(1)
	n.killAt(arena, h)
	states := arena.number(n.t, saved)
	ends = time.Now().Add(left)
	aged := arena.number(n.t, fmt.Sprintf(`WITH aged AS (UPDATE world_frame SET received = %d WHERE id IN (SELECT frame FROM world_frame_body) RETURNING id)
		SELECT count(*) FROM aged`, ends.Add(-time.Hour).UnixNano()))
	if aged == 0 {
		n.t.Fatal("no frame is older")
	}
	n.restart(arena)
	wait.Until(n.t, "the state with the value is saved", func() bool {
		return arena.number(n.t, saved) > states && n.shows(n.ring, "speed") || time.Now().After(ends)
	})
	return ends
}

// history is what arena shows of a property.
func (n *named) history(w *watch, property string) (ms []carnet.Measurement) {
	n.t.Helper()
	wait.Until(n.t, "arena shows a history", func() bool {
		var err error
		ms, _, err = n.arena.client.History(n.t.Context(), w.mappings["arena"].Avatar, client.HistoryQuery{Property: property})
		if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
			n.t.Fatal(err)
		}
		return err == nil
	})
	return ms
}

// shows says whether arena shows a value of a watch's avatar.
func (n *named) shows(w *watch, property string) bool {
	n.t.Helper()
	ms, err := n.arena.client.State(n.t.Context(), w.mappings["arena"].Avatar)
	if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
		n.t.Fatal(err)
	}
	return slices.ContainsFunc(ms, func(m carnet.Measurement) bool { return m.Name == property })
}
