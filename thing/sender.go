package thing

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"sync"
	"time"

	"carnet"
	"carnet/link"
	"carnet/seal"
)

// World is a world that the agent sends to.
type World struct {
	Party     carnet.PartyID     // as this agent calls it
	OwnName   carnet.PartyID     // as the world calls itself, and signs; default: Party
	Self      carnet.PartyID     // this agent, as the world knows it: another id for each world
	Key       ed25519.PrivateKey // signs frames and key bags for this world
	WorldKey  ed25519.PublicKey  // signs the world's reception keys
	Purpose   string             // the word under which the world uses what it gets
	Clearance carnet.Clearance   // as agreed at the peering
	Ended     bool               // the peering was removed: there are no keys, and nothing is sent any more
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
	did      string // of the world's key, if there is one
	position positionCipher

	restMu sync.Mutex // held while the counts are read
	rest   rested

	mu         sync.Mutex // held for moments only, and no other lock is taken under it
	call       Caller
	run        *run // the last; it ends with its connection
	closed     bool
	demand     map[carnet.StreamID]bool
	demandsNew bool // since newDemand was asked
	reception  *seal.Reception
	acked      uint64
	unacked    []coverage // of frames that were built and not acknowledged
	decided    uint64     // what the acknowledged frames cover
	told       []tidings  // of moves, to be looked at
	toldBytes  int        // of told
	following  bool       // somebody looks at them
	telling    bool       // somebody tells the world what it is given
	gave       gave       // and was
}

// coverage says up to which position a frame says that everything is decided.
type coverage struct{ number, position uint64 }

// linkRecord is what the agent keeps of a link besides frames and snapshots, as
// of the last connection.
type linkRecord struct {
	Incarnation uint64 `json:"incarnation"`
	Acked       uint64 `json:"acked"`
	Decided     uint64 `json:"decided"` // the position up to which the world needs nothing of the log
	// Overtaken is the position up to which the world may have what an older copy of
	// this store lacks a record of; 0 if it never was one.
	Overtaken uint64 `json:"overtaken,omitempty"`
}

func (s *sender) sealPosition(p uint64) link.Covers { return s.position.seal(s.agent.process, p) }

// current is the run of the connection, or of the last one; nil before any.
func (s *sender) current() *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

func (s *sender) demanded(stream carnet.StreamID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.demand[stream]
}

// newDemand reports whether somebody has subscribed since it was asked last.
func (s *sender) newDemand() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.demandsNew
	s.demandsNew = false
	return was
}

// built notes what a frame covers.
func (s *sender) built(number, position uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unacked = append(s.unacked, coverage{number, position})
}

// decidedUpTo is the position before which the world needs nothing of the log.
func (s *sender) decidedUpTo() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decided
}

// Known implements link.Source.
func (s *sender) Known(context.Context) (link.Known, error) {
	record := s.agent.linkRecord(s.peer.Party)
	s.mu.Lock()
	defer s.mu.Unlock()
	return link.Known{Incarnation: record.Incarnation, Number: max(record.Acked, s.acked)}, nil
}

// Resume implements link.Source: it forgets what was built for the connection
// before, takes the link's state as of the last frame that the world has, and
// goes on from the log. What it starts ends when ctx does, which is when the
// connection ends.
func (s *sender) Resume(ctx context.Context, at link.Resume) error {
	if at.MaxFrame < minFrame {
		return carnet.Errorf(carnet.Unavailable, "%s takes frames of %d bytes, too few for what one message may come to", s.peer.Party, at.MaxFrame).
			WithFix("have the world take frames of at least %d bytes", minFrame)
	}
	if err := s.end(ctx); err != nil {
		return err
	}
	reception, err := seal.ParseReception(at.Announcement, s.peer.WorldKey, s.agent.now())
	if err != nil {
		return err
	}
	if reception.Reader != s.peer.OwnName {
		return carnet.Errorf(carnet.Tampered, "the reception key is %s's, not %s's", reception.Reader, s.peer.OwnName)
	}
	r, err := s.load(ctx, at)
	if err != nil {
		return err
	}
	return s.begin(ctx, r, at, reception)
}

// begin puts a run at work. No view changes meanwhile: one that did would not
// know from where on it decides.
func (s *sender) begin(ctx context.Context, r *run, at link.Resume, reception *seal.Reception) error {
	a := s.agent
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	r.notice()
	r.told = r.position
	for _, c := range r.courses {
		if err := a.lowerViews(ctx, c); err != nil {
			return err
		}
	}
	record := linkRecord{at.Incarnation, at.Last.Number, r.position, max(a.linkRecord(s.peer.Party).Overtaken, r.overtaken)}
	if err := a.setLinkRecord(ctx, s.peer.Party, record); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errAnew
	}
	s.run, s.reception = r, reception
	s.acked, s.unacked, s.decided = at.Last.Number, nil, r.position
	r.start()
	return nil
}

// awaitNew waits a moment for the link to begin anew, if its run was recalled.
func (s *sender) awaitNew(ctx context.Context) {
	recalled := s.current()
	if recalled == nil || context.Cause(recalled.ctx) != errAnew {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, awaitAnew)
	defer cancel()
	tick := time.NewTicker(awaitAnew / 100)
	defer tick.Stop()
	for s.current() == recalled {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

const awaitAnew = 2 * time.Second

// errAnew ends the run of a connection that is over.
var errAnew = link.ErrAnew

// end stops the run of the connection before and waits until no frame of it is
// with the committer.
func (s *sender) end(ctx context.Context) error {
	if r := s.current(); r != nil {
		r.cancel(errAnew)
		<-r.done
	}
	return s.agent.barrier(ctx)
}

// close ends the run for good.
func (s *sender) close() {
	s.mu.Lock()
	s.closed = true
	r := s.run
	s.mu.Unlock()
	if r != nil {
		r.cancel(errAnew)
		<-r.done
	}
}

// load makes a run from the link's snapshot and the records after it.
func (s *sender) load(ctx context.Context, at link.Resume) (*run, error) {
	r := newRun(ctx, s, at)
	if err := s.fill(ctx, r, at); err != nil {
		r.cancel(err)
		return nil, err
	}
	return r, nil
}

// fill gives a run the link's state as of the last frame that the world has.
func (s *sender) fill(ctx context.Context, r *run, at link.Resume) error {
	common, err := s.lastCommon(ctx, at.Last)
	if err != nil {
		return err
	}
	reached, err := s.merge(ctx, r, common)
	if err != nil {
		return err
	}
	if reached < common {
		return carnet.Errorf(carnet.Tampered, "the records of frames %d to %d for %s are missing", reached+1, common, s.peer.Party)
	}
	if at.Last.Number > 0 {
		if r.position, err = s.resumeAt(ctx, common, at.Last); err != nil {
			return err
		}
	}
	// What the world acknowledged it had, though it says now that it hasn't.
	s.mu.Lock()
	acked := max(s.agent.linkRecord(s.peer.Party).Acked, s.acked)
	s.mu.Unlock()
	if err := s.agent.store.Rewind(ctx, s.peer.Party, common, acked); err != nil {
		return err
	}
	if common < at.Last.Number {
		return s.overtaken(ctx, r, common, at)
	}
	return nil
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
		if err := mergeState(plain, true, r.course); err != nil {
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
			if row.Number > upTo { // a restore left a gap below
				return reached, nil
			}
			plain, err := a.rest.Open(nil, stateAAD(row.Link, row.Number), row.State)
			if err != nil {
				return reached, err
			}
			if err := mergeState(plain, false, r.course); err != nil {
				return reached, err
			}
			reached = row.Number
		}
	}
	return reached, nil
}

// Next implements link.Source. The frame is recorded; the keys of new epochs
// go to the world before it.
func (s *sender) Next(ctx context.Context) (link.Frame, error) {
	r := s.current()
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
		if !f.until.IsZero() && !s.agent.now().Before(f.until) {
			r.cancel(errAnew) // the time to send has passed while it waited
		}
		if r.ctx.Err() != nil { // recalled
			return link.Frame{}, r.failure()
		}
		r.taken(f)
		return link.Frame{Number: f.number, Bytes: f.wire}, nil
	}
}

// Acked implements link.Source.
func (s *sender) Acked(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = max(s.acked, number)
	for len(s.unacked) > 0 && s.unacked[0].number <= number {
		s.decided, s.unacked = s.unacked[0].position, s.unacked[1:]
	}
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
		if m := s.agent.mappingByStream(d.Stream); m == nil || m.World != s.peer.Party {
			s.agent.log.Warn("a world wants a stream that isn't sent to it", "world", s.peer.Party)
			return
		}
		s.mu.Lock()
		if d.On {
			s.demand[d.Stream], s.demandsNew = true, true
		} else {
			delete(s.demand, d.Stream)
		}
		r := s.run
		s.mu.Unlock()
		if d.On && r != nil {
			r.rouse()
		}
	case carnet.NoticeMoved:
		s.hear(body)
	case carnet.NoticeErased:
		s.hearErased(body)
	case carnet.NoticeReception:
		reception, err := seal.ParseReception(body, s.peer.WorldKey, s.agent.now())
		if err != nil || reception.Reader != s.peer.OwnName {
			s.agent.log.Warn("a world's new reception key is refused", "world", s.peer.Party, "err", err)
			return
		}
		s.mu.Lock()
		s.reception = reception
		s.mu.Unlock()
	}
}

// grant gives the world the keys of epochs: those of what it keeps for good in a
// bag of their own.
func (s *sender) grant(ctx context.Context, epochs []*epoch) error {
	var ending, lasting []*epoch
	for _, e := range epochs {
		switch {
		case e.granted.Load():
		case e.kept == carnet.Keep:
			lasting = append(lasting, e)
		default:
			ending = append(ending, e)
		}
	}
	if err := s.giveBag(ctx, ending, bagLife); err != nil {
		return err
	}
	return s.giveBag(ctx, lasting, bagForGood)
}

func (s *sender) giveBag(ctx context.Context, epochs []*epoch, life time.Duration) error {
	if len(epochs) == 0 {
		return nil
	}
	now := s.agent.now()
	var entries []seal.Entry
	s.mu.Lock()
	reception := s.reception
	s.mu.Unlock()
	for _, e := range epochs {
		entries = append(entries, seal.Entry{Key: e.key, Ceiling: e.ceiling})
	}
	bag, err := seal.Grant(s.peer.Key, reception, seal.Terms{
		Granter: s.peer.Self, Grant: grantID(), Purpose: s.peer.Purpose, Clearance: s.peer.Clearance,
		Time: now, NotAfter: now.Add(life),
	}, entries)
	if err != nil {
		return err
	}
	if _, err := s.caller().Call(ctx, carnet.CallBag, bag); err != nil {
		// Whatever the world has against it now, a new connection tries anew.
		return carnet.Errorf(carnet.Unavailable, "%s did not take a key bag: %v", s.peer.Party, err)
	}
	for _, e := range epochs {
		e.granted.Store(true)
	}
	return nil
}

// grantID names a grant: random, so that it says nothing about mappings.
func grantID() (id [16]byte) { rand.Read(id[:]); return id }

// How long the world may keep the keys that a bag gives: as long as the longest
// retention class that ends, counted from the epoch's end and with a day to
// spare; or a century.
const (
	bagLife    = (366 + 2) * 24 * time.Hour
	bagForGood = 36525 * 24 * time.Hour
)

// ask calls the world with a JSON body.
func (s *sender) ask(ctx context.Context, kind string, body any) ([]byte, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return s.caller().Call(ctx, kind, encoded)
}
