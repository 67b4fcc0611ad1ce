package crossing

import (
	"context"
	"crypto/ed25519"
	"errors"
	"maps"
	"slices"
	"time"

	"carnet"
	"carnet/link"
	"carnet/shelf"

	"golang.org/x/sync/errgroup"
)

// away is how a source stands while its taker is not connected, guarded by
// Source.mu.
type away struct {
	live  bool      // from Resume until Parted
	since time.Time // when the connection ended, or the process began
	ready bool      // it is known what was sent on the last connection, and what the taker has
	over  bool      // nothing more is shelved of it

	stop context.CancelFunc // of the shelving under way
	done chan struct{}
}

// keepShelf shelves what the taker would get while it is away, until ctx ends.
func (s *Source) keepShelf(ctx context.Context) error {
	pause := lookEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = lookEvery
		if s.agent.Depot == nil || !s.due() {
			continue
		}
		if err := s.tryShelf(ctx); err != nil && ctx.Err() == nil {
			if carnet.CodeOf(err) == "" {
				return err
			}
			s.agent.Log.Info("the shelf is tried again", "taker", s.to.Party, "err", err)
			pause = shelfPause
		}
	}
}

// due reports whether it is time to shelve.
func (s *Source) due() bool {
	doc := s.shelf.now()
	if doc != nil && s.agent.overNow(s.to.Party, doc) != "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away.live || s.away.over || s.agent.Now().Sub(s.away.since) < s.agent.ShelveAfter {
		return false
	}
	return s.away.ready || doc != nil // it isn't known what is in flight of a process that has ended
}

// tryShelf shelves for as long as it can. An error says that it is to be tried again.
func (s *Source) tryShelf(ctx context.Context) error {
	s.shelf.busy.Lock()
	defer s.shelf.busy.Unlock()
	if !s.due() {
		return nil // another shelf was withdrawn meanwhile
	}
	why, err := s.shelve(ctx)
	if why == "" || ctx.Err() != nil || err != nil && carnet.CodeOf(err) == "" {
		return err
	}
	s.mu.Lock()
	s.away.over = true
	s.mu.Unlock()
	s.agent.Log.Info("nothing more is put on the shelf until the next connection", "taker", s.to.Party, "why", why)
	doc := s.shelf.now()
	if doc != nil && err == nil { // what is there isn't to be read any more
		return s.agent.withdraw(ctx, s.to.Party, s.shelf, doc, why)
	}
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	s.shelf.closed = why
	return nil
}

// giver and taker are what the two are called on a shelf.
func (s *Source) giver() string { return shelf.Name(s.to.Key.Public().(ed25519.PublicKey)) }
func (s *Source) taker() string { return shelf.Name(s.to.WorldKey) }

// takeBack has a shelving under way end: the taker is back.
func (s *Source) takeBack() {
	s.mu.Lock()
	s.away.live, s.away.ready, s.away.over = true, false, false
	stop, done := s.away.stop, s.away.done
	s.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
	s.onShelf, s.call = false, s.link
}

// endShelf has a shelving under way end, and nothing more be shelved until the next
// connection.
func (s *Source) endShelf() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away.live {
		return
	}
	s.away.over = true
	if s.away.stop != nil {
		s.away.stop()
	}
}

// resumed notes whether a shelf may follow this connection.
func (s *Source) resumed(ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away.ready = ready
}

// Parted implements link.Parting.
func (s *Source) Parted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away.live, s.away.since = false, s.agent.Now()
}

// said is something that the taker would have heard: a call, or a frame.
type said struct {
	call  string
	body  []byte
	frame []byte
	sent  sentFrame // of a frame
}

// shelve makes what the taker would get and puts it on the shelf until the taker is
// back. why says why it ends otherwise: without an error nothing that is there may be
// read any more, with one it may.
func (s *Source) shelve(ctx context.Context) (why string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	s.mu.Lock()
	if s.away.live || s.away.over {
		s.mu.Unlock()
		return "", nil
	}
	s.away.stop, s.away.done = cancel, done
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.away.stop, s.away.done = nil, nil
		s.mu.Unlock()
	}()
	p, why, err := s.beginShelf(ctx)
	if why != "" || err != nil {
		return why, err
	}
	made := make(chan said)
	work, working := errgroup.WithContext(ctx)
	work.Go(func() error { return s.make(working, made) })
	work.Go(func() error { return p.run(working, made) })
	switch err = work.Wait(); {
	case ctx.Err() != nil:
		return "", nil
	case errors.Is(err, errAnew):
		return "a share on it has changed", nil
	default:
		return err.Error(), err
	}
}

// beginShelf brings the source to where the last connection ended, or the shelf of
// another process. why says why there can be none.
func (s *Source) beginShelf(ctx context.Context) (p *packer, why string, err error) {
	if why := s.agent.unshelvable(s.to.Party); why != "" {
		return nil, why, nil
	}
	if err := s.agent.shelvable(s.to.Party); err != nil {
		return nil, "", err
	}
	s.onShelf = true
	s.mu.Lock()
	if s.renewed != nil {
		s.reception, s.renewed = s.renewed, nil
	}
	var inFlight []carnet.ShareID
	for _, f := range s.sent {
		inFlight = append(inFlight, f.of...)
	}
	s.mu.Unlock()
	if !s.agent.flow(inFlight) {
		return nil, "a share has ended of which something was under way", nil
	}
	record, err := link.NewRecorder()
	if err != nil {
		return nil, "", err
	}
	p = &packer{source: s, record: record}
	doc := s.shelf.now()
	if doc != nil {
		if why, err := s.goOn(ctx, doc); why != "" || err != nil {
			return nil, why, err
		}
		p.doc = *doc
	} else {
		p.doc = shelfDocument{
			Taker: s.taker(), Since: s.agent.Now().UTC(), Incarnation: s.incarnation, MaxFrame: s.maxFrame, Announcement: s.reception.signed,
		}
	}
	p.heads, p.until = maps.Clone(s.heads), s.reception.NotAfter
	s.close()
	return p, "", nil
}

// goOn compares the shelf that another process made with the depot's, and takes up
// where its frames end.
func (s *Source) goOn(ctx context.Context, doc *shelfDocument) (why string, err error) {
	if doc.Serial == 0 {
		return "the process that began it has ended", nil // nothing of it can have been read
	}
	depot, err := s.agent.depot()
	if err != nil {
		return "", err
	}
	own, err := doc.Signed.Open(s.giver(), s.taker())
	if err != nil {
		return "", err
	}
	var theirs *shelf.Index
	signed, err := depot.OwnShelf(ctx, s.taker())
	switch carnet.CodeOf(err) {
	case carnet.NotFound:
	case "":
		if err != nil {
			return "", err
		}
		i, err := signed.Open(s.giver(), s.taker())
		if err != nil {
			return "the depot has something else than was put there", nil
		}
		theirs = &i
	default:
		return "", err
	}
	switch own.Stands(theirs) {
	case shelf.PutAgain:
		if err := depot.PutShelf(ctx, s.taker(), doc.Signed); err != nil {
			return "", err
		}
	case shelf.Withdraw:
		return "the depot has another index than this world: one of the two was restored from an older copy", nil
	}
	if doc.Staged != nil { // its frames are made anew, in another object
		if err := depot.DeleteObject(ctx, *doc.Staged); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return "", err
		}
	}
	reception, err := s.to.announced(doc.Announcement, s.agent.Now())
	if err != nil {
		return err.Error(), err
	}
	s.incarnation, s.number, s.parent, s.maxFrame = doc.Incarnation, doc.Number, doc.Hash, doc.MaxFrame
	s.reception, s.heads, s.copies = reception, make(map[carnet.StreamID]carnet.StreamHead), make(map[carnet.StreamID]carnet.ShareID)
	for _, h := range doc.Heads {
		s.heads[h.Stream] = h
	}
	return "", nil
}

// recording writes down what the taker would be asked. Each counts as answered with
// nothing; what must be answered can't be asked.
type recording struct{ made chan<- said }

// Call implements Caller.
func (r recording) Call(ctx context.Context, kind string, body []byte) ([]byte, error) {
	if !slices.Contains(shelved, kind) {
		return nil, errUnasked
	}
	select {
	case r.made <- said{call: kind, body: body}:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// shelved are the calls that a shelf may have.
var shelved = []string{CallStream, carnet.CallBag}

// make hands over what was in flight, and then makes frames.
func (s *Source) make(ctx context.Context, made chan<- said) error {
	s.mu.Lock()
	inFlight := slices.Clone(s.sent)
	s.mu.Unlock()
	s.call = recording{made}
	for _, f := range inFlight {
		select {
		case made <- said{frame: f.wire, sent: f}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		f, err := s.Next(ctx)
		if err != nil {
			return err
		}
		s.mu.Lock()
		sent := s.sent[len(s.sent)-1]
		s.mu.Unlock()
		select {
		case made <- said{frame: f.Bytes, sent: sent}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// packer puts what is made into objects, and those on the shelf.
type packer struct {
	source *Source
	record *link.Recorder
	doc    shelfDocument
	heads  map[carnet.StreamID]carnet.StreamHead
	until  time.Time // the end of the taker's reception key

	bytes  []byte
	frames []sentFrame // that bytes has
	upTo   int         // bytes up to the last of them
}

// An object is put when it is so large, or when its first frame has waited so long:
// longer the more objects there are.
const objectBytes = 1 << 20

func (p *packer) wait() time.Duration {
	each := p.source.agent.ShelveEach
	switch n := len(p.doc.Signed.Objects); {
	case n < 64:
		return each
	case n < 1024:
		return 10 * each
	}
	return 60 * each
}

func (p *packer) run(ctx context.Context, made <-chan said) error {
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-made:
			if err := p.add(m); err != nil {
				return err
			}
			if due == nil && len(p.frames) > 0 {
				due = time.After(p.wait())
			}
			if len(p.frames) == 0 || p.upTo < objectBytes {
				continue
			}
		case <-due:
		}
		if err := p.put(ctx); err != nil {
			return err
		}
		due = nil
	}
}

func (p *packer) add(m said) (err error) {
	if m.frame == nil {
		p.bytes, err = p.record.AppendCall(p.bytes, m.call, m.body)
		return err
	}
	p.bytes = p.record.AppendFrame(p.bytes, m.frame)
	p.frames, p.upTo = append(p.frames, m.sent), len(p.bytes)
	return nil
}

// errFull is why nothing more goes onto a shelf.
var errFull = carnet.Errorf(carnet.TooLarge, "the shelf is full: it has %d objects or %d MiB", shelf.MaxObjects, shelf.MaxBytes>>20)

// put puts an object of what there is, and the index with it. Before each its
// document is durable.
func (p *packer) put(ctx context.Context) error {
	s, object := p.source, p.bytes[:p.upTo]
	next := p.doc
	if len(next.Signed.Objects) >= shelf.MaxObjects || next.Bytes+int64(len(object)) > shelf.MaxBytes {
		return errFull
	}
	f := carnet.FingerprintOf(object)
	next.Staged = &f
	if err := s.agent.keepShelf(ctx, s.to.Party, s.shelf, &next); err != nil {
		return err
	}
	if err := s.patiently(ctx, func(d Depot) error {
		_, err := d.PutObject(ctx, object, carnet.Day)
		return err
	}); err != nil {
		return err
	}
	if err := p.advance(&next, f, int64(len(object))); err != nil {
		return err
	}
	if err := s.agent.keepShelf(ctx, s.to.Party, s.shelf, &next); err != nil {
		return err
	}
	p.doc = next
	if !s.agent.flow(next.Shares) {
		return errAnew
	}
	if err := s.patiently(ctx, func(d Depot) error { return d.PutShelf(ctx, s.taker(), next.Signed) }); err != nil {
		return err
	}
	p.bytes, p.frames, p.upTo = append([]byte(nil), p.bytes[p.upTo:]...), nil, 0
	return nil
}

// advance signs the index with one object more.
func (p *packer) advance(d *shelfDocument, f carnet.Fingerprint, size int64) (err error) {
	s, last := p.source, p.frames[len(p.frames)-1]
	for _, frame := range p.frames {
		for _, h := range frame.heads {
			p.heads[h.Stream] = h
		}
		for _, id := range frame.of {
			if !slices.Contains(d.Shares, id) {
				d.Shares = append(slices.Clone(d.Shares), id)
			}
		}
	}
	d.Until = p.until
	s.agent.mu.RLock()
	for _, id := range d.Shares {
		if g := s.agent.given[id]; g != nil && g.Until.Before(d.Until) {
			d.Until = g.Until
		}
	}
	s.agent.mu.RUnlock()
	if d.First == 0 {
		d.First = p.frames[0].number
	}
	d.Number, d.Hash, d.Heads = last.number, last.hash, slices.Collect(maps.Values(p.heads))
	d.Serial++
	d.Bytes += size
	d.Staged = nil
	objects := append(slices.Clone(d.Signed.Objects), shelf.Object{Fingerprint: f, Last: last.number})
	d.Signed, err = shelf.Sign(s.to.Key, shelf.Index{
		Taker: s.taker(), Incarnation: d.Incarnation, Serial: d.Serial, First: d.First, Time: s.agent.Now().Unix(), Until: d.Until.Unix(),
	}, objects)
	return err
}

// patiently does something at the depot, again and again while it can't be reached.
func (s *Source) patiently(ctx context.Context, do func(Depot) error) error {
	for {
		depot, err := s.agent.depot()
		if err == nil {
			err = do(depot)
		}
		if code := carnet.CodeOf(err); code != carnet.Unavailable && code != carnet.NoSpace {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(shelfPause):
		}
	}
}
