package thing

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"sync"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/link"
	"carnet/seal"
)

// World is a world that the agent sends to.
type World struct {
	Party     carnet.PartyID
	Self      carnet.PartyID     // this agent, as the world knows it: another id for each world
	Key       ed25519.PrivateKey // signs frames and key bags for this world
	WorldKey  ed25519.PublicKey  // signs the world's reception keys
	Purpose   string             // the word under which the world uses what it gets
	Clearance carnet.Clearance   // as agreed at the peering
}

// Caller asks the world something over the link: a link.Sender.
type Caller interface {
	Call(ctx context.Context, kind string, body []byte) ([]byte, error)
	// Trace returns the position of the frame that the world has at a number,
	// and false if it doesn't keep it.
	Trace(ctx context.Context, number uint64) (link.Position, bool, error)
}

// sender is the agent's side of one link. It is the link's Source.
type sender struct {
	agent    *Agent
	peer     World
	position positionCipher
	call     Caller // set once, before the link runs

	mu        sync.Mutex // guards run's courses against readers, and what follows
	run       *run       // nil while the world is away
	demand    map[carnet.StreamID]bool
	reception *seal.Reception
	acked     uint64
}

// linkRecord is what the agent keeps of a link besides frames and snapshots.
type linkRecord struct {
	Incarnation uint64 `json:"incarnation"`
	Acked       uint64 `json:"acked"`
	Process     uint64 `json:"process"` // the last start that the world heard of
}

func (s *sender) sealPosition(p uint64) link.Covers { return s.position.seal(s.agent.process.ID, p) }

// Known implements link.Source.
func (s *sender) Known(context.Context) (link.Known, error) {
	record, err := s.agent.linkRecord(s.peer.Party)
	if err != nil {
		return link.Known{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return link.Known{Incarnation: record.Incarnation, Number: max(record.Acked, s.acked)}, nil
}

// Resume implements link.Source: it forgets what was built for the connection
// before, takes the link's state as of the last frame that the world has, and
// goes on from the log.
func (s *sender) Resume(ctx context.Context, at link.Resume) error {
	if err := s.end(ctx); err != nil {
		return err
	}
	reception, err := seal.ParseReception(at.Announcement, s.peer.WorldKey, s.agent.now())
	if err != nil {
		return err
	}
	if reception.Reader != s.peer.Party {
		return carnet.Errorf(carnet.Tampered, "the reception key is %s's, not %s's", reception.Reader, s.peer.Party)
	}
	r, err := s.load(ctx, at)
	if err != nil {
		return err
	}
	// From here on the world has heard of this start: frames follow.
	if err := s.agent.setLinkRecord(ctx, s.peer.Party, linkRecord{at.Incarnation, at.Last.Number, s.agent.process.ID}); err != nil {
		return err
	}
	s.mu.Lock()
	s.run, s.reception, s.acked = r, reception, at.Last.Number
	s.mu.Unlock()
	r.start()
	return nil
}

// errAnew ends the run of a connection that is over.
var errAnew = carnet.Errorf(carnet.Unavailable, "the link begins anew")

// end stops the run of the connection before and waits until no frame of it is
// with the committer.
func (s *sender) end(ctx context.Context) error {
	s.mu.Lock()
	r := s.run
	s.run = nil
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	r.cancel(errAnew)
	<-r.done
	return s.agent.barrier(ctx)
}

// load makes a run from the link's snapshot and the records after it.
func (s *sender) load(ctx context.Context, at link.Resume) (*run, error) {
	a, r := s.agent, newRun(s, at)
	common, err := s.lastCommon(ctx, at.Last)
	if err != nil {
		return nil, err
	}
	reached, err := s.merge(ctx, r, common)
	if err != nil {
		return nil, err
	}
	if reached < common {
		return nil, carnet.Errorf(carnet.Tampered, "the records of frames %d to %d for %s are missing", reached+1, common, s.peer.Party)
	}
	if at.Last.Number > 0 {
		record, err := a.linkRecord(s.peer.Party)
		if err != nil {
			return nil, err
		}
		id, position, err := s.position.open(at.Last.Covers)
		if err != nil {
			return nil, err
		}
		r.position = a.here(id, position, record.Process)
	}
	if err := a.store.Rewind(ctx, s.peer.Party, common); err != nil {
		return nil, err
	}
	if common < at.Last.Number {
		return r, s.overtaken(ctx, r, common, at)
	}
	for _, c := range r.courses {
		if err := a.lowerViews(ctx, c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// merge gives a run the link's state as of a frame: the newest snapshot up to it,
// and what the records after that changed. It returns the last frame that there
// is a record of.
func (s *sender) merge(ctx context.Context, r *run, upTo uint64) (reached uint64, err error) {
	a := s.agent
	snapshot, err := a.store.Link(ctx, s.peer.Party, upTo)
	if err != nil {
		return 0, err
	}
	if len(snapshot.State) > 0 {
		plain, err := a.rest.Open(nil, snapshotAAD(s.peer.Party, snapshot.Number), snapshot.State)
		if err != nil {
			return 0, err
		}
		if err := mergeState(plain, r.course); err != nil {
			return 0, err
		}
	}
	reached = snapshot.Number
	for reached < upTo {
		rows, err := a.store.Sent(ctx, s.peer.Party, reached, int(min(1000, upTo-reached)))
		if err != nil || len(rows) == 0 {
			return reached, err
		}
		for _, row := range rows {
			plain, err := a.rest.Open(nil, stateAAD(row.Link, row.Number), row.State)
			if err != nil {
				return reached, err
			}
			if err := mergeState(plain, r.course); err != nil {
				return reached, err
			}
			reached = row.Number
		}
	}
	return reached, nil
}

// lastCommon finds the last frame up to the world's that this agent has a record
// of, being the same frame: all of them, unless the store was restored from an
// older copy.
func (s *sender) lastCommon(ctx context.Context, last link.Position) (uint64, error) {
	number, hash, known := last.Number, last.Hash, true
	for ; number > 0; number-- {
		rows, err := s.agent.store.Sent(ctx, s.peer.Party, number-1, 1)
		if err != nil {
			return 0, err
		}
		if len(rows) == 0 || rows[0].Number != number {
			// Not recorded here: go on with the last that is.
			below, err := s.lastRecorded(ctx, number)
			if err != nil || below == 0 {
				return 0, err
			}
			number, known = below+1, false
			continue
		}
		if number != last.Number || !known {
			at, kept, err := s.call.Trace(ctx, number)
			if err != nil {
				return 0, err
			}
			if !kept {
				continue
			}
			hash = at.Hash
		}
		if rows[0].Hash == hash {
			return number, nil
		}
	}
	return 0, nil
}

// lastRecorded is the greatest frame number below a number that is recorded for
// the link, 0 for none.
func (s *sender) lastRecorded(ctx context.Context, below uint64) (last uint64, err error) {
	for low, high := uint64(0), below-1; low < high; {
		middle := low + (high-low+1)/2
		rows, err := s.agent.store.Sent(ctx, s.peer.Party, middle-1, 1)
		if err != nil {
			return 0, err
		}
		if len(rows) > 0 && rows[0].Number < below {
			low, last = middle, rows[0].Number
		} else {
			high = middle - 1
		}
	}
	return last, nil
}

// saw takes back what the world has into the rates' state.
func (c *course) saw(latest []carnet.SeenMeasurement) {
	for _, m := range latest {
		if p, known := c.mapping.thing.description.Lookup(m.Name); known {
			c.rates.Saw(c.mapping.table, p.Index, &carnet.Measurement{Time: m.Time, Value: carnet.Float(m.Value)})
		}
	}
}

// overtaken goes on after the store was restored from an older copy: the world
// has frames that no record here tells of. Their numbers come from the world,
// the cursor moves past everything they may have covered, and a statement says
// which frames' records are at no party's sender any more.
func (s *sender) overtaken(ctx context.Context, r *run, reached uint64, at link.Resume) error {
	a := s.agent
	a.log.Warn("the world has frames that this agent's store doesn't know: it was restored from an older copy",
		"world", s.peer.Party, "known", reached, "world_has", at.Last.Number)
	answer, err := s.call.Call(ctx, carnet.CallHeads, nil)
	if err != nil {
		return err
	}
	var heads []carnet.StreamHead
	if err := json.Unmarshal(answer, &heads); err != nil {
		return carnet.Errorf(carnet.Malformed, "the world's stream heads can't be read: %v", err)
	}
	for _, h := range heads {
		if m := a.mappingByStream(h.Stream); m != nil && m.World == s.peer.Party {
			c := r.courses[m.Number]
			if c == nil {
				c = r.add(m)
			}
			c.nextBatch, c.nextFirst = max(c.nextBatch, h.NextBatch), max(c.nextFirst, h.NextFirst)
			c.saw(h.Latest)
		}
	}
	for _, c := range r.courses {
		for i := range c.lanes {
			c.lanes[i].cursor = r.position
			c.lanes[i].taken = c.lanes[i].cursor
		}
	}
	return s.stateGap(ctx, reached, at)
}

// Next implements link.Source. The frame is recorded; the keys of new epochs
// go to the world before it.
func (s *sender) Next(ctx context.Context) (link.Frame, error) {
	s.mu.Lock()
	r := s.run
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return link.Frame{}, ctx.Err()
	case <-r.done:
		return link.Frame{}, r.failure()
	case f := <-r.ready:
		if len(f.grants) > 0 {
			if err := s.grant(ctx, f.grants); err != nil {
				return link.Frame{}, err
			}
		}
		return link.Frame{Number: f.number, Bytes: f.wire}, nil
	}
}

// Acked implements link.Source.
func (s *sender) Acked(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = max(s.acked, number)
}

// Notice implements link.Source.
func (s *sender) Notice(kind string, body []byte) {
	switch kind {
	case carnet.NoticeDemand:
		var d carnet.Demand
		if err := json.Unmarshal(body, &d); err != nil {
			s.agent.log.Warn("a world's notice can't be read", "world", s.peer.Party, "kind", kind, "err", err)
			return
		}
		s.mu.Lock()
		if d.On {
			s.demand[d.Stream] = true
		} else {
			delete(s.demand, d.Stream)
		}
		s.mu.Unlock()
	case carnet.NoticeReception:
		reception, err := seal.ParseReception(body, s.peer.WorldKey, s.agent.now())
		if err != nil || reception.Reader != s.peer.Party {
			s.agent.log.Warn("a world's new reception key is refused", "world", s.peer.Party, "err", err)
			return
		}
		s.mu.Lock()
		s.reception = reception
		s.mu.Unlock()
	}
}

// grant gives the world the keys of epochs, in one bag.
func (s *sender) grant(ctx context.Context, epochs []*epoch) error {
	now := s.agent.now()
	var entries []seal.Entry
	s.mu.Lock()
	reception := s.reception
	for _, e := range epochs {
		if !e.granted {
			entries = append(entries, seal.Entry{Key: e.key, Ceiling: e.ceiling})
		}
	}
	s.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	bag, err := seal.Grant(s.peer.Key, reception, seal.Terms{
		Granter: s.peer.Self, Grant: grantID(), Purpose: s.peer.Purpose, Clearance: s.peer.Clearance,
		Time: now, NotAfter: now.Add(bagLife),
	}, entries)
	if err != nil {
		return err
	}
	if _, err := s.call.Call(ctx, carnet.CallBag, bag); err != nil {
		// Whatever the world has against it now, a new connection tries anew.
		return carnet.Errorf(carnet.Unavailable, "%s did not take a key bag: %v", s.peer.Party, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range epochs {
		e.granted = true
	}
	return nil
}

// grantID names a grant: random, so that it says nothing about mappings.
func grantID() (id [16]byte) { rand.Read(id[:]); return id }

// bagLife is how long the world may keep the keys that a bag gives: as long as
// the longest finite retention class.
const bagLife = 366 * 24 * time.Hour

// ask calls the world with a JSON body.
func (s *sender) ask(ctx context.Context, kind string, body any) ([]byte, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return s.call.Call(ctx, kind, encoded)
}

// stateGap states which frames are recorded nowhere at this agent.
func (s *sender) stateGap(ctx context.Context, reached uint64, at link.Resume) error {
	item, err := s.agent.state(ledger.Statement{
		Kind: ledger.Gap, Time: s.agent.now().UnixNano(), Peer: s.peer.Party, From: reached + 1, To: at.Last.Number,
		Reason: "the sender's store was restored from an older copy: the world has these frames, the sender has no record of them",
	})
	if err != nil {
		return err
	}
	return s.agent.change(ctx, nil, []ledger.Item{item})
}
