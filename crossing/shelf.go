package crossing

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/shelf"
)

// Depot is the depot that keeps a giver's shelves, as the giver reaches it.
type Depot interface {
	PutObject(ctx context.Context, body []byte, class carnet.Retention) (carnet.Fingerprint, error)
	DeleteObject(ctx context.Context, f carnet.Fingerprint) error
	PutShelf(ctx context.Context, taker string, s shelf.Signed) error
	OwnShelf(ctx context.Context, taker string) (shelf.Signed, error)
	DeleteShelf(ctx context.Context, taker string) error
}

// ShelfAt says where a giver's shelf is.
type ShelfAt struct {
	DID string             `json:"did"` // of the key that the depot shows its peers
	URL string             `json:"url"`
	Pin carnet.Fingerprint `json:"pin"` // of its TLS key
}

// shelfDocument is what is durable of a shelf at its giver: where the frames on it
// end, so that another process goes on from there.
type shelfDocument struct {
	Taker        string              `json:"taker"` // did:key
	Since        time.Time           `json:"since"`
	Incarnation  uint64              `json:"incarnation"`
	Number       uint64              `json:"number"` // of the last frame on it
	Hash         carnet.Fingerprint  `json:"hash"`
	MaxFrame     int                 `json:"max_frame"`
	Announcement []byte              `json:"announcement"` // the taker's reception key
	Heads        []carnet.StreamHead `json:"heads"`
	Shares       []carnet.ShareID    `json:"shares"` // of which it has something
	First        uint64              `json:"first"`
	Serial       uint64              `json:"serial"`
	Until        time.Time           `json:"until"`
	Bytes        int64               `json:"bytes"`
	Signed       shelf.Signed        `json:"signed"` // as it was put last, or is being put
	// Staged is an object that may be at the depot, and isn't on the list.
	Staged *carnet.Fingerprint `json:"staged,omitempty"`
	// Over is why it is being withdrawn.
	Over string `json:"over,omitempty"`
	// Erasure is by which it is withdrawn: the depot signs that its objects are gone.
	Erasure carnet.ErasureID `json:"erasure,omitzero"`
}

// keeping is the shelf for a taker.
type keeping struct {
	busy sync.Mutex // held while something is put on it, or it is withdrawn

	mu      sync.Mutex     // guards what follows; held while it is stored
	doc     *shelfDocument // nil: there is none
	version uint64
	closed  string // why nothing is added any more

	notTill time.Time // owned by keepShelves: the depot isn't asked to delete it before
}

func (k *keeping) now() *shelfDocument {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.doc
}

// loadShelves reads what another process left.
func (a *Agent) loadShelves(ctx context.Context) error {
	return a.World.EachKept(ctx, kindShelf, func(id string, version uint64, open func(any) error) error {
		k := &keeping{doc: new(shelfDocument), version: version}
		a.shelves[carnet.PartyID(id)] = k
		return open(k.doc)
	})
}

// shelfFor is the shelf for a taker, which may be empty.
func (a *Agent) shelfFor(taker carnet.PartyID) *keeping {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shelves[taker] == nil {
		a.shelves[taker] = new(keeping)
	}
	return a.shelves[taker]
}

// keepShelf stores what there is on the shelf for a taker, with other documents; nil:
// nothing any more.
func (a *Agent) keepShelf(ctx context.Context, taker carnet.PartyID, k *keeping, doc *shelfDocument, plain ...carnet.Document) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := avatar.Kept{Kind: kindShelf, ID: string(taker), Version: k.version + 1}
	if doc != nil {
		kept.Body = doc
	}
	if err := a.World.Keep(ctx, []avatar.Kept{kept}, nil, plain...); err != nil {
		return err
	}
	k.version++
	if k.doc = doc; doc == nil {
		k.version, k.closed = 0, ""
	}
	return nil
}

// shelfPause is how long a depot that can't be reached is left alone.
const shelfPause = time.Second

// keepShelves withdraws what may not be read any more, until ctx ends.
func (a *Agent) keepShelves(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		a.mu.RLock()
		all := maps.Clone(a.shelves)
		a.mu.RUnlock()
		for taker, k := range all {
			if err := a.lookAtShelf(ctx, taker, k); err != nil && ctx.Err() == nil {
				if carnet.CodeOf(err) == "" {
					return err
				}
				a.Log.Info("a shelf can't be withdrawn; it is tried again", "taker", taker, "err", err)
				k.notTill = time.Now().Add(shelfPause)
			}
		}
	}
}

// lookAtShelf withdraws a shelf that may not be read any more. What is being put on
// one looks itself.
func (a *Agent) lookAtShelf(ctx context.Context, taker carnet.PartyID, k *keeping) error {
	if k.now() == nil || time.Now().Before(k.notTill) || !k.busy.TryLock() {
		return nil
	}
	defer k.busy.Unlock()
	doc := k.now()
	if doc == nil {
		return nil
	}
	if why := a.overNow(taker, doc); why != "" {
		return a.withdraw(ctx, taker, k, doc, why)
	}
	return nil
}

// overNow says why a shelf may not be read any more; "": it may.
func (a *Agent) overNow(taker carnet.PartyID, doc *shelfDocument) string {
	a.mu.RLock()
	s := a.sources[taker]
	a.mu.RUnlock()
	switch {
	case doc.Over != "":
		return doc.Over
	case s != nil && s.hasLeft(doc.Incarnation):
		return "the taker is back"
	case doc.Serial > 0 && !a.Now().Before(doc.Until):
		return "its time is over"
	case !a.flow(doc.Shares):
		return "a share on it has ended, or may not be sent at the moment"
	}
	return a.unshelvable(taker)
}

// hasLeft reports whether a connection is over for good: the taker has another.
func (s *Source) hasLeft(incarnation uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away.live || s.known.Incarnation != incarnation
}

// flow reports whether something of all shares may be sent.
func (a *Agent) flow(ids []carnet.ShareID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return !slices.ContainsFunc(ids, func(id carnet.ShareID) bool { return !a.given[id].flows() })
}

// withdraw deletes a shelf. It is tried again until it is done; after a crash the
// document says what is left. The caller holds busy.
func (a *Agent) withdraw(ctx context.Context, taker carnet.PartyID, k *keeping, doc *shelfDocument, why string) error {
	if doc.Over == "" {
		over := *doc
		over.Over = why
		if err := a.keepShelf(ctx, taker, k, &over); err != nil {
			return err
		}
		doc = &over
	}
	depot, err := a.depot()
	if err != nil {
		return err
	}
	// A store that was restored from an older copy doesn't know all that is there.
	theirs, err := depot.OwnShelf(ctx, doc.Taker)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	if err := depot.DeleteShelf(ctx, doc.Taker); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	objects := doc.objects(theirs)
	if doc.Erasure != (carnet.ErasureID{}) {
		doomed, err := a.World.Dooming(ctx, objects, doc.Erasure)
		if err != nil {
			return err
		}
		if err := a.keepShelf(ctx, taker, k, doc, doomed...); err != nil {
			return err
		}
	}
	for _, f := range objects {
		if err := depot.DeleteObject(ctx, f); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	// A put that was given up may have come meanwhile: one that comes now is refused,
	// since its objects aren't there.
	if err := depot.DeleteShelf(ctx, doc.Taker); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	if err := a.keepShelf(ctx, taker, k, nil); err != nil {
		return err
	}
	a.Log.Info("a shelf is withdrawn", "taker", taker, "why", doc.Over, "objects", len(objects))
	return nil
}

// objects are all that may be at the depot of a shelf, of which that has a list of its
// own.
func (d *shelfDocument) objects(theirs shelf.Signed) (all []carnet.Fingerprint) {
	for _, o := range append(slices.Clone(d.Signed.Objects), theirs.Objects...) {
		if !slices.Contains(all, o.Fingerprint) {
			all = append(all, o.Fingerprint)
		}
	}
	if d.Staged != nil && !slices.Contains(all, *d.Staged) {
		all = append(all, *d.Staged)
	}
	return all
}

func (a *Agent) depot() (Depot, error) {
	if a.Depot == nil {
		return nil, carnet.Errorf(carnet.Unavailable, "there is no depot")
	}
	return a.Depot()
}
