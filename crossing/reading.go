package crossing

import (
	"context"
	"crypto/ed25519"
	"time"

	"carnet"
	"carnet/link"
	"carnet/shelf"
)

// ShelfReader is a giver's depot, as the taker reaches it.
type ShelfReader interface {
	// Shelf returns what a giver has for this party; carnet.NotFound if nothing.
	Shelf(ctx context.Context, giver string) (shelf.Signed, error)
	// Shelved returns an object of it, with the fingerprint that was asked for.
	Shelved(ctx context.Context, giver string, f carnet.Fingerprint) ([]byte, error)
}

// Receiver is this world's end of links: a *link.Server.
type Receiver interface {
	Connected(carnet.PartyID) bool
	Replay(ctx context.Context, peer link.Peer, incarnation uint64, record []byte, calls ...string) (last uint64, err error)
}

// Storage is how a share goes on while the other world can't be reached: at the giver
// what is put on the shelf, at the taker what is read from it.
type Storage struct {
	Since time.Time `json:"since" doc:"Since when the other world can't be reached."`
	Depot string    `json:"depot,omitempty" doc:"The depot, as this world calls it."`
	Frame uint64    `json:"frame,omitempty" doc:"The last frame that was put there, or taken from there."`
	Until time.Time `json:"until,omitzero" doc:"When what is there is over."`
	Why   string    `json:"why,omitempty" doc:"Why nothing comes of it, or nothing more."`
}

// Reading is how a taker reads the shelves of one giver.
type Reading struct {
	Giver    link.Peer
	Self     ed25519.PublicKey // which this world shows its peers
	Receiver Receiver
	Sink     link.Sink // the receiver's
	// Depot finds the way to the depot that a giver names, with what this world calls
	// it; the error says what is in the way.
	Depot func(ctx context.Context, at ShelfAt) (ShelfReader, carnet.PartyID, error)
}

// reader reads one giver's shelf.
type reader struct {
	Reading
	agent  *Agent
	since  time.Time // when the giver was seen last
	serial uint64    // the greatest seen of an incarnation
	of     uint64
}

// Read takes what a giver has shelved for this world while it can't be reached, until
// ctx ends.
func (a *Agent) Read(ctx context.Context, r Reading) error {
	in := &reader{Reading: r, agent: a, since: a.Now()}
	defer a.reads(r.Giver.Party, nil)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.ReadEvery):
		}
		if err := in.look(ctx); err != nil && ctx.Err() == nil && carnet.CodeOf(err) == "" {
			return err
		}
	}
}

func (a *Agent) reads(giver carnet.PartyID, s *Storage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if had := a.readings[giver]; s != nil && s.Why != "" && (had == nil || had.Why != s.Why) {
		a.Log.Warn("what a giver shelved isn't read", "giver", giver, "why", s.Why)
	}
	if s == nil {
		delete(a.readings, giver)
	} else {
		a.readings[giver] = s
	}
}

// shelfOf is where the giver's answers say that its shelf is; ok is false if nothing
// is taken of it.
func (a *Agent) shelfOf(giver carnet.PartyID) (at *ShelfAt, ok bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var newest time.Time
	for _, t := range a.taken {
		if t.Giver != giver || t.State != Taking || t.Answer == nil {
			continue
		}
		if ok = true; at == nil || t.Answer.Until.After(newest) {
			at, newest = t.Answer.Shelf, t.Answer.Until
		}
	}
	return at, ok
}

func (r *reader) look(ctx context.Context) error {
	a, giver := r.agent, r.Giver.Party
	at, takes := a.shelfOf(giver)
	if r.Receiver.Connected(giver) || !takes {
		r.since = a.Now()
		a.reads(giver, nil)
		return nil
	}
	if a.Now().Sub(r.since) < a.ShelveAfter {
		return nil
	}
	said := Storage{Since: r.since.UTC()}
	err := r.read(ctx, at, &said)
	if err != nil {
		said.Why = err.Error()
	}
	a.reads(giver, &said)
	return err
}

// read takes what is on the shelf and not here.
func (r *reader) read(ctx context.Context, at *ShelfAt, said *Storage) error {
	if at == nil {
		return carnet.Errorf(carnet.NotFound, "%s hasn't said which depot keeps what comes meanwhile", r.Giver.Party)
	}
	depot, name, err := r.Depot(ctx, *at)
	said.Depot = string(name)
	if err != nil {
		return err
	}
	giver := shelf.Name(r.Giver.Key)
	signed, err := depot.Shelf(ctx, giver)
	if carnet.CodeOf(err) == carnet.NotFound {
		return carnet.Errorf(carnet.NotFound, "%s has nothing of %s for this world", name, r.Giver.Party)
	}
	if err != nil {
		return err
	}
	index, err := signed.Open(giver, shelf.Name(r.Self))
	if err != nil {
		return err
	}
	state, err := r.Sink.State(ctx, r.Giver.Party)
	if err != nil {
		return err
	}
	said.Until, said.Frame = time.Unix(index.Until, 0).UTC(), min(state.Last.Number, index.Last)
	if err := r.judge(index, state); err != nil || index.Last <= state.Last.Number {
		return err
	}
	for _, o := range signed.Objects {
		if o.Last <= said.Frame {
			continue
		}
		body, err := depot.Shelved(ctx, giver, o.Fingerprint)
		if err != nil {
			return err
		}
		last, err := r.Receiver.Replay(ctx, r.Giver, index.Incarnation, body, shelved...)
		if said.Frame = max(said.Frame, last); err != nil {
			return err
		}
		if last != o.Last {
			return carnet.Errorf(carnet.Tampered, "an object of the shelf ends with frame %d, and its index says %d", last, o.Last)
		}
	}
	return nil
}

// judge refuses an index that isn't to be used.
func (r *reader) judge(i shelf.Index, state link.State) error {
	if r.of != i.Incarnation {
		if i.Incarnation < r.of {
			return carnet.Errorf(carnet.Tampered, "the depot gives an index of an older connection than before")
		}
		r.of, r.serial = i.Incarnation, 0
	}
	use := i.Judge(shelf.Known{Incarnation: state.Incarnation, Last: state.Last.Number, Serial: r.serial}, r.agent.Now())
	r.serial = max(r.serial, i.Serial)
	switch use {
	case shelf.Over:
		return carnet.Errorf(carnet.TooOld, "what is on the shelf is over")
	case shelf.Superseded:
		return carnet.Errorf(carnet.Conflict, "what is on the shelf is superseded: %s has connected since", r.Giver.Party)
	case shelf.Unheard:
		return carnet.Errorf(carnet.Conflict, "what is on the shelf follows a connection that this world doesn't know: its store was restored")
	case shelf.Older:
		return carnet.Errorf(carnet.Tampered, "the depot gives an older index than before: %d after %d", i.Serial, r.serial)
	}
	return nil
}

// Reach says whether the other world of a share can be reached, and how it goes on
// while it can't.
func (a *Agent) Reach(other carnet.PartyID, gives bool) (reachable bool, through *Storage) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if !gives {
		s := a.readings[other]
		return s == nil, s
	}
	s := a.sources[other]
	if s == nil {
		return false, nil
	}
	return s.reach()
}

// reach is what a giver says of a taker.
func (s *Source) reach() (live bool, through *Storage) {
	s.shelf.mu.Lock()
	doc, closed := s.shelf.doc, s.shelf.closed
	s.shelf.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away.live {
		return true, nil
	}
	through = &Storage{Since: s.away.since.UTC(), Why: closed}
	if doc != nil {
		through.Frame, through.Until = doc.Number, doc.Until.UTC()
		if doc.Over != "" {
			through.Why = "it is being withdrawn: " + doc.Over
		}
	}
	return false, through
}
