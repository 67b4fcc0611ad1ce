package crossing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"sync"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/ledger"
	"carnet/link"
	"carnet/policy"
	"carnet/seal"

	"golang.org/x/sync/errgroup"
)

// Neighbour is a world that this one shares with.
type Neighbour struct {
	Party     carnet.PartyID     // as this world calls it
	OwnName   carnet.PartyID     // as it calls itself, and signs
	Self      carnet.PartyID     // this world, as it calls itself to it
	Key       ed25519.PrivateKey // signs frames and key bags for it
	WorldKey  ed25519.PublicKey  // signs its reception keys
	Clearance carnet.Clearance   // what it may hold
}

// Caller asks the taker something over the link: a link.Sender.
type Caller interface {
	Call(ctx context.Context, kind string, body []byte) ([]byte, error)
}

// What a giver asks a taker over the link, in JSON.
const (
	// CallStream says that a stream of a share will come: streamCall → nothing.
	CallStream = "share-stream"
	// CallEnd says that a share has ended: endCall → nothing.
	CallEnd = "share-end"
)

type streamCall struct {
	Share  carnet.ShareID  `json:"share"`
	Stream carnet.StreamID `json:"stream"`
	From   uint64          `json:"from_batch"` // the number of the first that comes
}

type endCall struct {
	Share carnet.ShareID `json:"share"`
	Why   string         `json:"why"`
}

// Limits of a frame, as a things agent has them.
const (
	maxFrameBatches = 512
	maxFrameBytes   = 1 << 20
	// gatherFor is the least time between two frames.
	gatherFor = 2 * time.Millisecond
	// markEvery is how often it is kept what rates and deadbands remember.
	markEvery = time.Second
)

// Source is this world's side of the link to one taker: a link.Source. Its frames
// are made of what the shares' avatars are given, when the link asks for them.
type Source struct {
	agent *Agent
	to    Neighbour
	link  Caller // set before the link runs
	shelf *keeping

	wake chan struct{}

	mu      sync.Mutex // guards what follows; held for moments only
	dirty   map[carnet.ShareID]bool
	demands map[carnet.StreamID]bool
	renewed *announced
	sent    []sentFrame // not acknowledged
	done    []sentFrame // acknowledged, not yet kept
	known   link.Known
	// begunAll: every share in force flows on this connection. filling: a frame is in
	// the making.
	begunAll, filling bool
	aside             map[carnet.ShareID]aside // what can't go on at the moment
	away              away

	keeping     sync.Mutex // held while the documents of the link and of marks change
	linkVersion uint64
	marks       map[carnet.ShareID]*marks
	keep        chan struct{} // something was acknowledged

	// Owner: the goroutine that calls Resume and Next.
	call        Caller // the link's, or what records for a shelf
	reception   *announced
	onShelf     bool                               // what is made is for the shelf
	copies      map[carnet.StreamID]carnet.ShareID // that the taker has entered on this connection
	incarnation uint64
	number      uint64
	parent      carnet.Fingerprint
	maxFrame    int
	heads       map[carnet.StreamID]carnet.StreamHead // after every frame that was signed
	shares      map[carnet.ShareID]*flowing
	begun       map[carnet.ShareID]bool // on this connection
	changes     uint64                  // of the agent's shares, as they were taken up
	givesAfter  time.Time               // not before
	gives       uint64                  // of what avatars are given, as the taker was told on this connection; 0: it is to be looked at
	last        time.Time
	frame       seal.Frame
}

// sentFrame is what is known of a frame that isn't acknowledged, and what is kept of
// it once it is.
type sentFrame struct {
	incarnation uint64
	number      uint64
	hash        carnet.Fingerprint
	statements  []ledger.Statement
	marks       []mark

	wire  []byte // of one that went over the link
	of    []carnet.ShareID
	heads []carnet.StreamHead // of the streams that it has batches of, after it
}

// mark is what the view of a share remembers when everything before a measurement of
// each source stream is decided.
type mark struct {
	share carnet.ShareID
	markOf
}

type markOf struct {
	Memory  []byte                       `json:"memory"` // policy.State; nil: nothing was kept yet
	Streams map[carnet.StreamID]markedAt `json:"streams"`
}

// markedAt is where a source stream was at a mark, and what was known of it.
type markedAt struct {
	Position uint64            `json:"position"`
	Known    []policy.Property `json:"known"`
}

type linkDocument struct {
	Incarnation uint64 `json:"incarnation"`
	Acked       uint64 `json:"acked"`
}

// marks is the last mark of a share, as it is kept.
type marks struct {
	markOf
	version uint64
}

// flowing is a share on a connection.
type flowing struct {
	share     *Given
	following *avatar.Following
	streams   map[carnet.StreamID]*flow
	memory    remembered
	mark      markOf // with which it began
	marked    time.Time
	again     *again // as it began
	had       had
	gives     *shareGives // as the taker was told on this connection, of the streams that it has; nil: it wasn't
}

// flow is one source stream of a share on a connection.
type flow struct {
	source    carnet.StreamID
	shown     shown
	since     uint64 // the measurement from which on it is shared
	began     uint64 // the taker has everything before this measurement decided
	from      uint64 // it is followed from this measurement on: where what the view remembers is of
	decided   uint64 // everything before this measurement is in the view's memory
	copied    uint64 // the taker takes copies from this measurement on,
	copies    uint64 // and this batch
	next      uint64 // of the derived stream: the batch
	derived   carnet.StreamID
	entered   map[carnet.StreamID]bool // streams that the taker was told of
	elsewhere bool                     // the taker has the source stream for something else
	epoch     seal.Key                 // of the derived stream, for a day
	day       uint32
	slots     map[slotClass]*seal.Slot
	granted   map[seal.Path]bool
}

type slotClass struct {
	label     carnet.Label
	retention carnet.Retention
	hour      uint32
}

// Source makes the way to a neighbour. It is made once for each.
func (a *Agent) Source(ctx context.Context, to Neighbour) (*Source, error) {
	s := &Source{
		agent: a, to: to, wake: make(chan struct{}, 1), dirty: make(map[carnet.ShareID]bool), demands: make(map[carnet.StreamID]bool),
		shelf: a.shelfFor(to.Party), away: away{since: a.Now()},
		shares: make(map[carnet.ShareID]*flowing), marks: make(map[carnet.ShareID]*marks), keep: make(chan struct{}, 1),
		aside: make(map[carnet.ShareID]aside),
	}
	err := a.World.EachKept(ctx, kindLink, func(id string, version uint64, open func(any) error) error {
		if id != string(to.Party) {
			return nil
		}
		var d linkDocument
		s.linkVersion = version
		err := open(&d)
		s.known = link.Known{Incarnation: d.Incarnation, Number: d.Acked}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = a.World.EachKept(ctx, kindMark, func(id string, version uint64, open func(any) error) error {
		m := &marks{version: version}
		var share carnet.ShareID
		if err := share.UnmarshalText([]byte(id)); err != nil {
			return err
		}
		s.marks[share] = m
		return open(&m.markOf)
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sources[to.Party] = s
	return s, err
}

// Connect gives the source the way to ask the taker. It is called before the link
// runs.
func (s *Source) Connect(c Caller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call, s.link = c, c
}

// rouse has the source to a taker look at what has changed.
func (a *Agent) rouse(taker carnet.PartyID) {
	a.mu.RLock()
	s := a.sources[taker]
	a.mu.RUnlock()
	if s != nil {
		s.rouse()
	}
}

func (s *Source) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Known implements link.Source.
func (s *Source) Known(context.Context) (link.Known, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known, nil
}

// Resume implements link.Source. Nothing is carried over from the connection
// before: the taker says where everything stands.
func (s *Source) Resume(ctx context.Context, at link.Resume) error {
	reception, err := s.to.announced(at.Announcement, s.agent.Now())
	if err != nil {
		return err
	}
	s.takeBack()
	s.close()
	s.mu.Lock()
	done := append(s.done, stored(s.sent, at.Last)...)
	s.sent, s.done, s.demands, s.renewed = nil, nil, make(map[carnet.StreamID]bool), nil
	s.mu.Unlock()
	if err := s.keepLink(ctx, &linkDocument{at.Incarnation, at.Last.Number}, done); err != nil {
		return err
	}
	s.reception, s.incarnation, s.number, s.parent, s.maxFrame = reception, at.Incarnation, at.Last.Number, at.Last.Hash, at.MaxFrame
	s.copies = make(map[carnet.StreamID]carnet.ShareID)
	s.heads, err = s.ask(ctx)
	s.resumed(err == nil)
	if err == nil && s.agent.Connected != nil {
		s.agent.Connected(s.to.Party)
	}
	return err
}

// announced is a taker's reception key, and how it announced it.
type announced struct {
	*seal.Reception
	signed []byte
}

func (n *Neighbour) announced(signed []byte, now time.Time) (*announced, error) {
	reception, err := seal.ParseReception(signed, n.WorldKey, now)
	if err != nil {
		return nil, err
	}
	if reception.Reader != n.OwnName {
		return nil, carnet.Errorf(carnet.Tampered, "the reception key is %s's, not %s's", reception.Reader, n.OwnName)
	}
	return &announced{reception, bytes.Clone(signed)}, nil
}

// stored are those of the frames sent that the taker turns out to have: up to the
// last that it has, if that is one of them.
func stored(sent []sentFrame, last link.Position) []sentFrame {
	for n := range sent {
		if sent[n].number == last.Number && sent[n].hash == last.Hash {
			return sent[:n+1]
		}
	}
	return nil
}

// close ends what the last connection followed.
func (s *Source) close() {
	for _, f := range s.shares {
		if f.following != nil {
			f.following.Close()
		}
	}
	clear(s.shares)
	s.begun, s.changes = make(map[carnet.ShareID]bool), 0
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begunAll, s.filling = false, false
	clear(s.aside)
}

// keepLink stores what is known of the link, with what was acknowledged: begun is what a
// connection begins with, nil where one goes on. What can't be stored now is done yet.
func (s *Source) keepLink(ctx context.Context, begun *linkDocument, done []sentFrame) (err error) {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	defer func() {
		if err != nil && len(done) > 0 {
			s.mu.Lock()
			s.done = append(done, s.done...)
			s.mu.Unlock()
			s.Acked(0) // try again
		}
	}()
	d := begun
	if d == nil {
		d = s.goesOn(done)
	}
	kept := []avatar.Kept{{Kind: kindLink, ID: string(s.to.Party), Version: s.linkVersion + 1, Body: *d}}
	var statements []ledger.Statement
	changed := make(map[carnet.ShareID]bool)
	for i := range done {
		statements = append(statements, done[i].statements...)
		for _, m := range done[i].marks {
			if s.agent.forgotten(m.share) {
				continue
			}
			if s.marks[m.share] == nil {
				s.marks[m.share] = new(marks)
			}
			s.marks[m.share].markOf = m.markOf
			changed[m.share] = true
		}
	}
	for id := range changed {
		kept = append(kept, avatar.Kept{Kind: kindMark, ID: id.String(), Version: s.marks[id].version + 1, Body: s.marks[id].markOf})
	}
	if err := s.agent.World.Keep(ctx, kept, statements); err != nil {
		return err
	}
	s.linkVersion++
	for id := range changed {
		s.marks[id].version++
	}
	s.mu.Lock()
	s.known = link.Known{Incarnation: d.Incarnation, Number: d.Acked}
	s.mu.Unlock()
	return nil
}

// goesOn is the link's document once frames are done: those of a connection before don't
// say where the taker stands in this one.
func (s *Source) goesOn(done []sentFrame) *linkDocument {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &linkDocument{s.known.Incarnation, s.known.Number}
	for _, f := range done {
		if f.incarnation == d.Incarnation {
			d.Acked = max(d.Acked, f.number)
		}
	}
	return d
}

// Acked implements link.Source.
func (s *Source) Acked(number uint64) {
	s.mu.Lock()
	n := 0
	for n < len(s.sent) && s.sent[n].number <= number {
		n++
	}
	s.done, s.sent = append(s.done, s.sent[:n]...), s.sent[n:]
	s.mu.Unlock()
	select {
	case s.keep <- struct{}{}:
	default:
	}
}

// Notice implements link.Source.
func (s *Source) Notice(kind string, body []byte) {
	switch kind {
	case carnet.NoticeDemand:
		var d carnet.Demand
		if err := json.Unmarshal(body, &d); err != nil {
			s.agent.Log.Warn("a taker's notice can't be read", "taker", s.to.Party, "kind", kind, "err", err)
			return
		}
		s.mu.Lock()
		if len(s.demands) < maxDemands {
			s.demands[d.Stream] = d.On
		}
		s.mu.Unlock()
		s.rouse()
	case carnet.NoticeReception:
		reception, err := s.to.announced(body, s.agent.Now())
		if err != nil {
			s.agent.Log.Warn("a taker's new reception key is refused", "taker", s.to.Party, "err", err)
			return
		}
		s.mu.Lock()
		s.renewed = reception
		s.mu.Unlock()
	}
}

// maxDemands bounds what a taker can have remembered between two frames.
const maxDemands = 1 << 16

// Run keeps what is acknowledged, and what is shelved, until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return s.keepAcked(ctx) })
	work.Go(func() error { return s.keepShelf(ctx) })
	return work.Wait()
}

func (s *Source) keepAcked(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return s.keepDone(context.WithoutCancel(ctx))
		case <-s.keep:
		}
		if err := s.keepDone(ctx); err != nil && ctx.Err() == nil {
			if carnet.CodeOf(err) == "" {
				return err
			}
			s.agent.Log.Warn("what was sent could not be recorded; it is tried again", "taker", s.to.Party, "err", err)
		}
		select { // many frames in one transaction
		case <-ctx.Done():
		case <-time.After(keepEvery):
		}
	}
}

const keepEvery = 50 * time.Millisecond

func (s *Source) keepDone(ctx context.Context) error {
	s.mu.Lock()
	done := s.done
	s.done = nil
	s.mu.Unlock()
	if len(done) == 0 {
		return nil
	}
	return s.keepLink(ctx, nil, done)
}

// ask asks the taker where this world's streams stand there. What it answers wrongly
// ends the connection, not the link: it may know better the next time.
func (s *Source) ask(ctx context.Context) (map[carnet.StreamID]carnet.StreamHead, error) {
	heads := make(map[carnet.StreamID]carnet.StreamHead)
	var after carnet.StreamID
	for more := true; more; {
		question, err := json.Marshal(carnet.HeadsRequest{After: after})
		if err != nil {
			return nil, err
		}
		answer, err := s.call.Call(ctx, carnet.CallHeads, question)
		if err != nil {
			return nil, err
		}
		var page carnet.HeadsPage
		if err := json.Unmarshal(answer, &page); err != nil {
			return nil, carnet.Errorf(carnet.Unavailable, "the stream heads of %s can't be read: %v", s.to.Party, err)
		}
		for _, h := range page.Heads {
			if bytes.Compare(h.Stream[:], after[:]) <= 0 {
				return nil, carnet.Errorf(carnet.Unavailable, "the stream heads of %s are out of order", s.to.Party)
			}
			h.Latest = nil // nobody asks for it, and a page has a MiB of it
			heads[h.Stream], after = h, h.Stream
		}
		if len(heads) > carnet.MaxHeads {
			return nil, carnet.Errorf(carnet.Unavailable, "%s says that it has more than %d streams", s.to.Party, carnet.MaxHeads)
		}
		more = page.More && len(page.Heads) > 0
	}
	return heads, nil
}
