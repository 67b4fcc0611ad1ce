package faults_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/crossing"
	"carnet/evidence"
	"carnet/identity"
	"carnet/test/wait"
)

// TestShareRows kills giver and taker of a share at the rows of share.md: arena
// gives, the clinic takes. One town goes through all of them, three shares after one
// another; then through those of items.md and avatar-policy.md, of which the policy ends
// the last share. At the end the clinic has what was shared, once, and nothing else.
func TestShareRows(t *testing.T) {
	t.Parallel()
	v := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`, onPostgres)
	n := &sharing{named: &named{town: v.town, w: v.watch}, there: v.there, here: v.here}
	request := v.ask(identity.ActionSubscribe)
	v.approve(request)
	v.give(request, identity.ActionSubscribe, `{"properties": {"heart_rate": {}, "speed": {"round": 3, "rate": "1s"}}}`)
	for _, row := range []struct {
		ids string
		do  func(*sharing)
	}{
		{"H1: asked, not answered", (*sharing).asked},
		{"H4: a stream told of, not answered", (*sharing).told},
		{"H6: keys given, no frame; W18: a key is promised", (*sharing).keys},
		{"H7: a frame left", (*sharing).frame},
		{"H8: acknowledged, nothing stated", (*sharing).acknowledged},
		{"H9: ended at the giver, the taker not told", (*sharing).ended},
		{"H2: given, not answered", (*sharing).given},
		{"H5: a stream entered, not answered", (*sharing).entered},
		{"H10: ended at the taker, not answered", (*sharing).heard},
		{"H3: answered, not taken", (*sharing).answered},
		{"H11: the giver's store is an older copy", (*sharing).restored},
	} {
		if !t.Run(row.ids, func(t *testing.T) { n.t = t; row.do(n) }) {
			break
		}
	}
	o := &owning{n, v}
	for _, row := range []struct {
		ids string
		do  func(*owning)
	}{
		{"T1 to T4: an item", (*owning).items},
		{"P3 P4: an avatar's policy", (*owning).policy},
	} {
		if !t.Failed() {
			t.Run(row.ids, func(t *testing.T) { n.t = t; row.do(o) })
		}
	}
	n.t = t
	n.judgeShares()
}

// sharing is the town of TestShareRows.
type sharing struct {
	*named
	there, here carnet.AvatarID // in arena, in the clinic
	share       carnet.ShareID  // the last
	spans       []span          // what is shared of the watch's messages
}

// span is the messages of one share; to is -1 while it goes on.
type span struct{ from, to int }

const (
	sharesIn   = `SELECT count(*) FROM world_document WHERE kind = 'share-in'`
	sharesOut  = `SELECT count(*) FROM world_document WHERE kind = 'share-out'`
	inVersion  = `SELECT sum(version)::bigint FROM world_document WHERE kind = 'share-in'`
	outVersion = `SELECT sum(version)::bigint FROM world_document WHERE kind = 'share-out'`
	atLink     = `SELECT coalesce(max(version), 0) FROM world_document WHERE kind = 'share-link'`
	fromArena  = `SELECT number FROM world_link WHERE sender = 'arena'`
	document   = "INSERT INTO world_document"
)

// streams is how often a stream was entered for the clinic's avatar, or taken up
// again.
func (n *sharing) streams() int64 {
	return n.clinic.number(n.t, `SELECT version FROM world_document WHERE kind = 'avatar' AND id = '`+n.here.String()+`'`)
}

// take has the clinic ask for a share, and doesn't wait for the answer.
func (n *sharing) take() (answer chan error) {
	answer = make(chan error, 1)
	go func() {
		_, err := n.clinic.client.TakeShare(n.t.Context(), api.NewShare{World: "arena", Avatar: n.there, For: n.here, Purpose: "care"})
		answer <- err
	}()
	return answer
}

// stop has arena end the share.
func (n *sharing) stop() (answer chan error) {
	answer = make(chan error, 1)
	go func() {
		_, err := n.arena.client.StopShare(n.t.Context(), n.share)
		answer <- err
	}()
	n.over()
	return answer
}

// unanswered wants a call to have failed, since who was asked is dead.
func (n *sharing) unanswered(answer chan error) {
	n.t.Helper()
	if err := <-answer; err == nil {
		n.t.Error("a dead party answers")
	}
}

// becomesShared waits until both sides have the share that was asked for last.
func (n *sharing) becomesShared() {
	n.t.Helper()
	wait.Until(n.t, "the clinic takes the share", func() bool {
		all, err := n.clinic.client.Shares(n.t.Context())
		if err != nil || len(all) == 0 {
			return false
		}
		last := all[len(all)-1]
		if last.State == crossing.Ended {
			n.t.Fatalf("the share has ended: %+v", last.Ended)
		}
		n.share = last.ID
		return last.State == crossing.Taking
	})
	if c, err := n.arena.client.Share(n.t.Context(), n.share); err != nil || c.State != crossing.Giving {
		n.t.Errorf("arena has the share %+v, %v", c, err)
	}
	// From the beginning of a second on, so that the first speed is a whole number.
	if sent := len(n.w.packs); sent%4 != 0 {
		n.t.Fatalf("%d messages were sent", sent)
	}
	n.spans = append(n.spans, span{len(n.w.packs), -1})
}

func (n *sharing) over() { n.spans[len(n.spans)-1].to = len(n.w.packs) }

// fill sends messages until a second is full.
func (n *sharing) fill() { n.w.send(4 - len(n.w.packs)%4) }

// shared is what the clinic is to have.
func (n *sharing) shared() map[string][]carnet.Measurement {
	want := make(map[string][]carnet.Measurement)
	for _, r := range n.spans {
		to, last := r.to, int64(-1)
		if to < 0 {
			to = len(n.w.packs)
		}
		for _, pack := range n.w.packs[r.from:to] {
			for _, m := range pack {
				switch second := m.Time / int64(time.Second); {
				case m.Name == "heart_rate":
					want[m.Name] = append(want[m.Name], m)
				case m.Name == "speed" && second > last:
					last = second
					m.Value = carnet.Float(math.Round(m.Value.Num/3) * 3)
					want[m.Name] = append(want[m.Name], m)
				}
			}
		}
	}
	return want
}

// arrived waits until the clinic has what is shared, and wants nothing else there.
func (n *sharing) arrived() {
	n.t.Helper()
	for name, want := range n.shared() {
		var got []carnet.Measurement
		have := func() bool {
			var err error
			got, _, err = n.clinic.client.History(n.t.Context(), n.here, client.HistoryQuery{Property: name})
			return err == nil && len(got) >= len(want)
		}
		wait.Until(n.t, fmt.Sprintf("the clinic has %d of %s", len(want), name), have)
		if !slices.Equal(got, want) {
			n.t.Errorf("the clinic has %d of %s, want %d, or others: %v, want %v", len(got), name, len(want), got, want)
		}
	}
}

// flows sends a second more and waits for it.
func (n *sharing) flows() {
	n.t.Helper()
	n.fill()
	n.arrived()
}

func (n *sharing) asked() {
	h := n.clinic.database.gate.after(document, "share-in")
	answer := n.take()
	n.killAt(n.clinic, h)
	n.unanswered(answer)
	n.want(n.clinic, sharesIn, 1)
	n.want(n.arena, sharesOut, 0)
	n.restart(n.clinic)
	n.becomesShared()
	n.want(n.clinic, sharesIn, 1)
	n.want(n.arena, sharesOut, 1)
}

func (n *sharing) told() {
	had := n.streams()
	h := n.clinic.database.gate.before(document, "avatar")
	n.w.send(1)
	h.await(n.t)
	n.arena.kill(n.t)
	h.pass()
	wait.Until(n.t, "the clinic has entered the stream", func() bool { return n.streams() > had })
	n.restart(n.arena)
	n.fill()
	n.w.send(8)
	n.arrived()
	if got := n.streams(); got < had+2 {
		n.t.Errorf("the avatar has changed %d times, want the stream that is copied and the one that is derived", got-had)
	}
}

func (n *sharing) keys() {
	n.quiet()
	n.arena.kill(n.t)
	n.restart(n.arena) // the connection is new, and keys not given yet
	n.quiet()
	frames, had := n.clinic.number(n.t, fromArena), n.clinic.number(n.t, epochs)
	h := n.clinic.database.gate.after("INSERT INTO key_row", "epoch")
	n.w.send(1)
	n.killAt(n.arena, h)
	given := n.clinic.number(n.t, epochs) - had
	n.want(n.clinic, fromArena, frames)
	if given == 0 {
		n.t.Error("no key was given")
	}
	n.restart(n.arena)
	n.flows()
	n.promised()
}

// promised kills the clinic when it has noted how long keys may be kept, and hasn't
// the keys: it is given that of what is copied again.
func (n *sharing) promised() {
	n.hub.kill(n.t)
	n.restart(n.hub) // its epochs are new, and so is what arena gives keys of
	n.quiet()
	frames, had, documents := n.clinic.number(n.t, fromArena), n.clinic.number(n.t, epochs), n.clinic.number(n.t, epochDocuments)
	h := n.clinic.database.gate.before("INSERT INTO key_row", "epoch")
	n.w.send(1)
	n.killAt(n.clinic, h)
	noted := n.clinic.number(n.t, epochDocuments) - documents
	if noted == 0 {
		n.t.Error("nothing is noted of keys")
	}
	n.want(n.clinic, epochs, had)
	n.want(n.clinic, fromArena, frames)
	keyless := `SELECT count(*) FROM world_document d WHERE kind = 'epoch' AND NOT EXISTS (SELECT FROM clinic_keys.key_row WHERE kind = 'epoch' AND name = d.id)`
	n.want(n.clinic, keyless, noted)
	n.restart(n.clinic)
	n.flows()
	if left := n.clinic.number(n.t, keyless); left >= noted { // what is derived has an epoch for each connection
		n.t.Errorf("of %d keys none is given again", noted)
	}
}

func (n *sharing) frame() {
	n.quiet()
	had := n.clinic.number(n.t, fromArena)
	h := n.clinic.database.gate.after("INSERT INTO world_frame ", "arena")
	n.w.send(1)
	n.killAt(n.arena, h)
	n.want(n.clinic, fromArena, had+1)
	n.restart(n.arena)
	n.flows()
}

func (n *sharing) acknowledged() {
	n.quiet()
	had, link := n.clinic.number(n.t, fromArena), n.arena.number(n.t, atLink)
	h := n.arena.database.gate.before(document, "share-link")
	n.w.send(1) // the first of a second: its speed is shown, and the next three aren't
	n.killAt(n.arena, h)
	n.want(n.clinic, fromArena, had+1)
	n.want(n.arena, atLink, link)
	n.restart(n.arena)
	n.flows()
}

func (n *sharing) ended() {
	n.quiet()
	h := n.arena.database.gate.after(document, "share-out")
	answer := n.stop()
	n.killAt(n.arena, h)
	n.unanswered(answer)
	n.w.send(4)
	if c, err := n.clinic.client.Share(n.t.Context(), n.share); err != nil || c.State == crossing.Ended {
		n.t.Errorf("the taker has the share as %+v, %v", c, err)
	}
	n.restart(n.arena)
	n.overAtBoth()
}

// overAtBoth waits until both sides have ended the share, and arena has heard that
// the clinic did.
func (n *sharing) overAtBoth() {
	n.t.Helper()
	out, since := int64(-1), time.Now()
	for _, p := range n.worlds() {
		wait.Until(n.t, fmt.Sprintf("%s has ended the share", p.name), func() bool {
			c, err := p.client.Share(n.t.Context(), n.share)
			return err == nil && c.State == crossing.Ended
		})
	}
	wait.Until(n.t, "nobody has to be told", func() bool {
		if now := n.arena.number(n.t, outVersion); now != out {
			out, since = now, time.Now()
		}
		return time.Since(since) > time.Second // as it was for longer than telling takes
	})
	n.quiet()
	n.arrived()
}

func (n *sharing) given() {
	n.quiet()
	in, out := n.clinic.number(n.t, sharesIn), n.arena.number(n.t, sharesOut)
	h := n.arena.database.gate.after(document, "share-out")
	answer := n.take()
	n.killAt(n.arena, h)
	n.want(n.arena, sharesOut, out+1)
	n.want(n.clinic, sharesIn, in+1)
	n.restart(n.arena)
	<-answer // that there is none yet
	n.becomesShared()
	n.want(n.arena, sharesOut, out+1)
	n.want(n.clinic, sharesIn, in+1)
}

func (n *sharing) entered() {
	had := n.streams()
	h := n.clinic.database.gate.after(document, "avatar")
	n.w.send(1)
	n.killAt(n.clinic, h)
	if got := n.streams(); got != had+1 {
		n.t.Errorf("%d streams are entered", got-had)
	}
	n.restart(n.clinic)
	n.fill()
	n.w.send(8)
	n.arrived()
	if got := n.streams(); got < had+2 {
		n.t.Errorf("the avatar has changed %d times, want the stream that is copied and the one that is derived", got-had)
	}
}

func (n *sharing) heard() {
	n.quiet()
	in, out := n.clinic.number(n.t, inVersion), n.arena.number(n.t, outVersion)
	h := n.clinic.database.gate.after(document, "share-in")
	answer := n.stop()
	n.killAt(n.clinic, h)
	if err := <-answer; err != nil {
		n.t.Errorf("arena answers %v", err)
	}
	n.want(n.clinic, inVersion, in+1)
	n.want(n.arena, outVersion, out+1)
	n.w.send(4)
	n.restart(n.clinic)
	n.becomes(n.arena, outVersion, out+2) // the clinic was told, and has answered
	n.want(n.clinic, inVersion, in+1)
	n.overAtBoth()
}

func (n *sharing) answered() {
	n.quiet()
	in, out := n.clinic.number(n.t, inVersion), n.arena.number(n.t, sharesOut)
	at := n.arena.database.gate.after(document, "share-out")
	answer := n.take()
	at.await(n.t)
	h := n.clinic.database.gate.before(document, "share-in")
	at.pass()
	n.killAt(n.clinic, h)
	n.unanswered(answer)
	n.want(n.clinic, inVersion, in+1)
	n.want(n.arena, sharesOut, out+1)
	n.restart(n.clinic)
	n.becomesShared()
	n.want(n.arena, sharesOut, out+1)
	n.flows()
}

func (n *sharing) restored() {
	n.quiet()
	if code := n.arena.end(n.t); code != 0 {
		n.t.Errorf("arena ended with %d", code)
	}
	restore := n.copyData(n.arena)
	n.restart(n.arena)
	n.w.send(8)
	n.arrived()
	n.clinic.kill(n.t)
	n.w.send(3) // which the clinic doesn't get, and hub sends again together with what it has
	n.quietAt(n.arena)
	n.arena.kill(n.t)
	restore()
	n.restart(n.arena)
	n.restart(n.clinic)
	n.arrived()
	n.flows()
	n.w.send(8)
	n.arrived()
}

// quietAt waits until hub has nothing more for a world.
func (n *sharing) quietAt(world *party) {
	n.t.Helper()
	wait.Until(n.t, fmt.Sprintf("hub has nothing more for %s", world.name), func() bool {
		for _, l := range n.things().Links {
			if l.World == world.name {
				return l.Up && l.Lag == 0 && l.Waiting == 0
			}
		}
		return false
	})
}

// judgeShares ends the parties, and wants no batch to be refused, and both worlds'
// evidence to prove as many measurements as they hold.
func (n *sharing) judgeShares() {
	n.t.Helper()
	n.flows()
	want := 0
	for _, all := range n.shared() {
		want += len(all)
	}
	n.settle()
	n.endAll()
	ctx := context.WithoutCancel(n.t.Context())
	for p, held := range map[*party]int{n.arena: 2 * len(n.w.packs), n.clinic: want} {
		world := n.inspect(p)
		m := n.w.mappings[p.name]
		report, err := n.prove(ctx, world, p, m.Avatar)
		if err != nil {
			n.t.Fatalf("the evidence of %s: %v", p.name, err)
		}
		if report.Verdict != evidence.True || int(report.Counts.Measurements) != held {
			n.t.Errorf("the evidence of %s, which is to hold %d:\n%s", p.name, held, report.Summary())
		}
		if defects := world.World.Defects(); defects != 0 {
			n.t.Errorf("%s has refused %d batches", p.name, defects)
		}
		if err := world.Close(); err != nil {
			n.t.Error(err)
		}
	}
}
