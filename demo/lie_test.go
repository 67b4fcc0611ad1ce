package demo

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/link"
	"carnet/node"
	"carnet/seal"
	"carnet/senml"
	"carnet/thing"
)

// A things agent that lies tells a world what no view of it shows, or what it told already,
// under its own keys.

// says is what a things agent tells a world of a stream.
type says struct {
	stream carnet.StreamID
	all    []carnet.Measurement
}

// lie has hub tell a world more.
func (x *spoiled) lie(world carnet.PartyID, all ...says) {
	x.t.Helper()
	var frame seal.FrameHeader
	var shown identity.Local
	x.inspect("hub", func(hub *node.Inspection) {
		var err error
		shown, err = hub.Shown(x.t.Context(), world)
		x.must(err)
	})
	x.inspect(world, func(i *node.Inspection) {
		ctx, cancel := context.WithCancel(x.t.Context())
		ended := make(chan error, 1)
		go func() { ended <- i.World.Run(ctx) }()
		defer func() {
			cancel()
			x.must(<-ended)
		}()
		var sender carnet.PartyID // as the world calls it
		for name, p := range i.Peers {
			if p.Key.Equal(shown.Key.Public()) {
				sender = name
			}
		}
		x.must(i.World.SetSender(avatar.Sender{Party: sender, OwnName: shown.Name, Key: shown.Key.Public().(ed25519.PublicKey), Self: i.Self.Name, Own: i.Self.Key}))
		at, err := i.World.Register(ctx, sender, link.Nonce([]byte(rand.Text()[:16])), 0)
		x.must(err)
		frame = seal.FrameHeader{
			Audience: i.Self.Name, Incarnation: at.Incarnation, Number: at.Last.Number + 1, Previous: at.Last.Hash, Time: time.Now().UnixNano(), Covers: at.Last.Covers,
		}
		heads := x.heads(ctx, i, sender)
		var batches [][]byte
		for _, s := range all {
			batches = append(batches, x.sealed(ctx, i, sender, shown, heads[s.stream], s.all))
		}
		var f seal.Frame
		x.must(f.Sign(shown.Key, frame, batches))
		a := &link.Arrival{Bytes: f.AppendWire(nil)}
		x.must(errors.Join(a.Frame.Parse(a.Bytes), a.Frame.Verify(shown.Key.Public().(ed25519.PublicKey), frame.Audience)))
		a.Hash = a.Frame.Hash()
		verdicts, err := i.World.Accept(ctx, sender, []*link.Arrival{a})
		if err != nil || !slices.Equal(verdicts, []link.Verdict{link.Next}) {
			x.t.Errorf("%s takes it as %v, %v", world, verdicts, err)
		}
		now := x.heads(ctx, i, sender) // once it has opened it
		for _, s := range all {
			if now[s.stream].NextBatch != heads[s.stream].NextBatch+1 {
				x.t.Errorf("%s didn't take what it was told of %s", world, s.stream)
			}
		}
	})
	x.receipts(world)
}

// heads says where a sender's streams stand.
func (x *spoiled) heads(ctx context.Context, i *node.Inspection, sender carnet.PartyID) map[carnet.StreamID]carnet.StreamHead {
	x.t.Helper()
	question, err := json.Marshal(carnet.HeadsRequest{})
	x.must(err)
	answer, err := i.World.Call(ctx, sender, carnet.CallHeads, question)
	x.must(err)
	var page carnet.HeadsPage
	x.must(json.Unmarshal(answer, &page))
	all := make(map[carnet.StreamID]carnet.StreamHead)
	for _, h := range page.Heads {
		all[h.Stream] = h
	}
	return all
}

// sealed makes a stream's next batch, under a key of its own that the world is given.
func (x *spoiled) sealed(ctx context.Context, i *node.Inspection, sender carnet.PartyID, shown identity.Local, head carnet.StreamHead, all []carnet.Measurement) []byte {
	x.t.Helper()
	announced, err := i.World.Announcement(ctx, sender)
	x.must(err)
	now := time.Now()
	to, err := seal.ParseReception(announced, i.Self.Key.Public().(ed25519.PublicKey), now)
	x.must(err)
	purpose := x.party(i.Self.Name).config.World.Purpose
	label, epoch := carnet.Label{Sensitivity: carnet.Personal}, seal.NewEpoch(head.Stream)
	bag, err := seal.Grant(shown.Key, to, seal.Terms{
		Granter: shown.Name, Purpose: purpose, Clearance: carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: carnet.NewSet(purpose)}, Time: now, NotAfter: now.AddDate(1, 0, 0),
	}, []seal.Entry{{Key: epoch, Ceiling: label}})
	x.must(err)
	_, err = i.World.Call(ctx, sender, carnet.CallBag, bag)
	x.must(err)
	slot, err := epoch.Slot(0)
	x.must(err)
	plain, err := seal.AppendBody(nil, seal.Body{Label: label, Retention: carnet.Keep, First: head.NextFirst, Count: uint32(len(all)), Content: senml.AppendColumns(nil, all)})
	x.must(err)
	batch, err := slot.Seal(nil, head.NextBatch, plain)
	x.must(err)
	return batch
}

// held is what a world holds of a stream that goes on, as hub told it.
func (x *spoiled) held(world carnet.PartyID, thing string) (s says) {
	x.t.Helper()
	for _, h := range x.was.held[world] {
		if x.was.current[h.Stream] == thing && (s.all == nil || h.Stream == s.stream) {
			s.stream, s.all = h.Stream, append(s.all, h.Measurement)
		}
	}
	if len(s.all) < 2 {
		x.t.Fatalf("%s holds nothing of the %s", world, thing)
	}
	return s
}

// another is a measurement like the newest of a property, of another value or time.
func (s says) another(name string, change func(*carnet.Measurement)) says {
	of := s.all
	s.all = nil
	for _, m := range slices.Backward(of) {
		if m.Name == name {
			change(&m)
			s.all = append(s.all, m)
			break
		}
	}
	return s
}

// twisted has hub's log have the last two messages of a thing again, and the world told of
// them the other way round: what of them any view shows that has no rate.
func (x *spoiled) twisted(world carnet.PartyID, of string, properties ...string) {
	x.t.Helper()
	sensor := x.sensors[slices.IndexFunc(x.sensors, func(s *sensor) bool { return s.name == of })]
	var at [2]struct {
		position uint64
		time     int64
		sealed   []byte
	}
	x.inspect("hub", func(hub *node.Inspection) {
		x.must(hub.Things.EachMessage(x.t.Context(), 0, func(m thing.Message) error {
			if m.Thing == sensor.id {
				at[0] = at[1]
				at[1].position, at[1].time = m.Position, m.Measurements[0].Time
			}
			return nil
		}))
	})
	x.in("hub", "state.db", func(db *sql.DB) {
		x.t.Helper()
		var idx []byte
		for i := range at {
			var position uint64
			var body []byte
			x.must(db.QueryRowContext(x.t.Context(), "SELECT first, idx, body FROM thing_log WHERE first <= ? ORDER BY first DESC LIMIT 1", at[i].position).Scan(&position, &idx, &body))
			for ; ; position++ { // of each message its thing's number, its day, and how long it is
				end, n := 0, uint64(0)
				for range 3 {
					v, l := binary.Uvarint(body[end:])
					end, n = end+l, v
				}
				if end += int(n); position == at[i].position {
					at[i].sealed = body[:end]
					break
				}
				body = body[end:]
			}
		}
		x.change(db, "INSERT INTO thing_log (first, count, received, idx, body) SELECT log_next, 2, ?, ?, ? FROM thing_totals", time.Now().UnixNano(), idx, slices.Concat(at[0].sealed, at[1].sealed))
		x.change(db, "UPDATE thing_totals SET log_next = log_next + 2, log_rows = log_rows + 1")
	})
	again := x.held(world, of)
	told := again.all
	again.all = nil
	for _, name := range properties {
		for _, i := range []int{1, 0} {
			for _, m := range told {
				if m.Name == name && m.Time == at[i].time {
					again.all = append(again.all, m)
				}
			}
		}
	}
	x.lie(world, again)
}

// forgets has a world forget the newest frames of hub's, at most so many.
func (x *spoiled) forgets(world carnet.PartyID, most int) {
	x.t.Helper()
	x.in(world, "state.db", func(db *sql.DB) {
		x.t.Helper()
		for n := range most {
			var id, number int64
			var sender string
			var parent []byte
			row := db.QueryRowContext(x.t.Context(), "SELECT f.id, f.sender, f.number, f.parent FROM world_frame f JOIN world_frame_body b ON b.frame = f.id ORDER BY f.id DESC LIMIT 1")
			if err := row.Scan(&id, &sender, &number, &parent); errors.Is(err, sql.ErrNoRows) && n > 0 {
				break
			} else {
				x.must(err)
			}
			x.change(db, "DELETE FROM world_statement WHERE id = (SELECT statement FROM world_frame WHERE id = ?)", id)
			x.change(db, "DELETE FROM world_frame_body WHERE frame = ?", id)
			x.change(db, "DELETE FROM world_frame WHERE id = ?", id)
			x.change(db, "UPDATE world_link SET number = ?, hash = ? WHERE sender = ?", number-1, parent, sender)
		}
	})
}
