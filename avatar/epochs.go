package avatar

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/seal"
)

// epochDocument says how long the key of an epoch is kept. The document's id is
// the key's name in the key table.
type epochDocument struct {
	Given    time.Time `json:"given"`
	NotAfter time.Time `json:"not_after"`        // the grant ends
	Until    time.Time `json:"until,omitzero"`   // nothing in stretches is kept longer
	Keep     bool      `json:"keep,omitempty"`   // something in stretches is kept for ever
	Ended    time.Time `json:"ended,omitzero"`   // the key was destroyed, since the grant was over
	Granter  string    `json:"granter,omitzero"` // whose grant it is
	// Ceiling is what everything under the key stays within; absent: unknown.
	Ceiling *savedLabel `json:"ceiling,omitempty"`
}

// savedLabel is a label.
type savedLabel struct {
	Sensitivity carnet.Sensitivity `json:"s"`
	Purposes    carnet.Set         `json:"p,omitempty"`
	Residency   carnet.Set         `json:"r,omitempty"`
}

// ceiling is the label that everything under the key stays within. What isn't
// known is the most sensitive.
func (d *epochDocument) ceiling() carnet.Label {
	if d.Ceiling == nil {
		return mostSensitive.Label
	}
	return carnet.Label(*d.Ceiling)
}

const (
	// epochsEvery is how often it is looked at which keys are over.
	epochsEvery = 15 * time.Minute
	// epochGrace is how long after a stream's next epoch was given batches of the
	// one before may still come.
	epochGrace = time.Hour
)

// noteGrant makes durable how long keys may be kept, before they are. A key that
// is in the table without a document was given to an older program, and what is
// kept under it isn't known: retention never ends it.
func (a *Agent) noteGrant(ctx context.Context, granter carnet.PartyID, bag *seal.Bag) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	var documents []carnet.Document
	var fresh []seal.Path
	for _, e := range bag.Entries {
		id := keyID(e.Key.Path)
		doc, version, err := loadOne[epochDocument](ctx, a, kindEpoch, id.Name)
		if err != nil {
			return err
		}
		ceiling := savedLabel(e.Ceiling)
		if version == 0 {
			doc.Ceiling = &ceiling
			if e.Key.Level == seal.EpochLevel {
				fresh = append(fresh, e.Key.Path)
			}
			doc.Given = a.now().UTC()
			if _, err := a.keys.Get(ctx, id); err == nil {
				doc.Keep = true
			} else if carnet.CodeOf(err) != carnet.NotFound {
				return err
			}
		} else if doc.NotAfter.Equal(bag.NotAfter) && doc.Ended.IsZero() {
			continue
		}
		if version > 0 && doc.Ceiling != nil {
			ceiling = savedLabel(e.Ceiling.Join(doc.ceiling()))
			doc.Ceiling = &ceiling
		}
		doc.NotAfter, doc.Ended, doc.Granter = bag.NotAfter.UTC(), time.Time{}, string(granter)
		d, err := a.document(kindEpoch, id.Name, version+1, doc)
		if err != nil {
			return err
		}
		documents = append(documents, d)
	}
	if len(documents) == 0 {
		return nil
	}
	if err := a.store.Put(ctx, documents, nil); err != nil {
		return err
	}
	for _, p := range fresh {
		a.stream(p.Stream).epoch = p.Epoch
	}
	return nil
}

// keepEpochs makes durable until when stretches that are about to be stored need
// the keys of their batches. The caller holds moveMu.
func (a *Agent) keepEpochs(ctx context.Context, rows []StretchRow) error {
	need := make(map[seal.Path]int64)
	for i := range rows {
		row := &rows[i]
		if row.Stream == nobody {
			continue
		}
		until := keptUntil(row)
		of := epochOf
		if _, shared := a.shareOf(row.Stream); shared {
			of = slotOf
		}
		var last seal.Path
		if err := eachBatch(row.Body, func(_, from, to int) error {
			h, _, err := seal.ParseHeader(row.Body[from:to])
			if err != nil {
				return err
			}
			id := of(h)
			if id == last {
				return nil
			}
			last = id
			if until > max(a.needed[id], need[id]) {
				need[id] = until
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if len(need) == 0 {
		return nil
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	var documents []carnet.Document
	for id, until := range need {
		d, err := a.keepEpoch(ctx, id, until)
		if err != nil {
			return err
		}
		if d != nil {
			documents = append(documents, *d)
		}
	}
	if len(documents) > 0 {
		if err := a.store.Put(ctx, documents, nil); err != nil {
			return err
		}
	}
	if len(a.needed) > maxNeeded {
		clear(a.needed)
	}
	for id, until := range need {
		a.needed[id] = until
	}
	return nil
}

// maxNeeded is how many epochs' ends are remembered, so that their documents
// aren't read in each compaction.
const maxNeeded = 1 << 16

// keepEpoch makes the document that an epoch needs now; nil if it has that.
func (a *Agent) keepEpoch(ctx context.Context, id seal.Path, until int64) (*carnet.Document, error) {
	name := keyID(id).Name
	doc, version, err := loadOne[epochDocument](ctx, a, kindEpoch, name)
	if err != nil || version == 0 || doc.Keep || until != keptForEver && until <= doc.Until.UnixNano() {
		return nil, err
	}
	if doc.Keep = until == keptForEver; !doc.Keep {
		doc.Until = time.Unix(0, until).UTC()
	}
	d, err := a.document(kindEpoch, name, version+1, doc)
	return &d, err
}

const keptForEver = 1<<63 - 1

// keptUntil is when a stretch is dropped, or somewhat later: a document is to be
// written for an epoch once an hour or a day, not in each compaction.
func keptUntil(row *StretchRow) int64 {
	life, ends := lives[row.Class]
	if !ends {
		return keptForEver
	}
	step := time.Hour
	if life > 24*time.Hour {
		step = 24 * time.Hour
	}
	return time.Unix(0, row.Received).Add(life + step).Truncate(step).UnixNano()
}

// ending is a key to be destroyed, as one look at the epochs' documents found it.
type ending struct {
	id       seal.Path
	version  uint64           // of the document that was looked at
	document *carnet.Document // nil: it stays
	item     *ledger.Item     // nil: nothing to state
}

// endEpochs destroys the keys of epochs whose grant is over, or under which
// nothing is kept any more and nothing comes. A crash after that finds the
// documents as they were, and does it again. There may be millions: nobody waits
// while they are looked at, and what changed since then is left for the next time.
func (a *Agent) endEpochs(ctx context.Context) error {
	now := a.now()
	if !isDue(now, a.epochsDue, epochsEvery) {
		return nil
	}
	var found []ending
	var of carnet.StreamID // whose epochs are gathered
	var epochs []keyDocument
	end := func() error { return a.endOf(now, of, epochs, &found) }
	if err := a.eachDocument(ctx, kindEpoch, func(d carnet.Document) error {
		e := keyDocument{version: d.Version}
		var err error
		if e.id, err = seal.ParsePath(d.ID); err != nil {
			return err
		}
		if err := a.openDocument(d, &e.doc); err != nil {
			return err
		}
		if e.id.Stream != of {
			if err := end(); err != nil {
				return err
			}
			of, epochs = e.id.Stream, epochs[:0]
		}
		epochs = append(epochs, e)
		return nil
	}); err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	for some := range slices.Chunk(found, endAtOnce) {
		if err := a.destroyEpochs(ctx, some); err != nil {
			return err
		}
	}
	a.epochsDue = now.Add(epochsEvery)
	return nil
}

// endAtOnce is how many keys are destroyed while grants wait.
const endAtOnce = 256

// destroyEpochs destroys keys, but for those that something was noted of since
// they were looked at: they may be granted anew, or needed longer. What states
// have of what came under them goes, too.
func (a *Agent) destroyEpochs(ctx context.Context, found []ending) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	var ids []keys.ID
	var paths []seal.Path
	var documents []carnet.Document
	var items []ledger.Item
	for _, e := range found {
		id := keyID(e.id)
		d, err := a.store.Document(ctx, kindEpoch, id.Name)
		if err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
		if err != nil || d.Version != e.version {
			continue
		}
		ids, paths = append(ids, id), append(paths, e.id)
		if e.document != nil {
			documents = append(documents, *e.document)
		}
		if e.item != nil {
			items = append(items, *e.item)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if err := a.keys.Destroy(ctx, ids...); err != nil {
		return err
	}
	for _, p := range paths {
		a.opener.Forget(p.Stream)
	}
	a.forgetUnder(paths)
	if len(documents) == 0 {
		return nil
	}
	if err := a.store.Put(ctx, documents, items); err != nil {
		return err
	}
	a.recorded()
	return nil
}

// keyDocument is a key, of an epoch or a slot, with its document.
type keyDocument struct {
	id      seal.Path
	version uint64
	doc     epochDocument
}

// endOf finds which of a stream's keys are to be destroyed.
func (a *Agent) endOf(now time.Time, of carnet.StreamID, epochs []keyDocument, found *[]ending) error {
	slices.SortStableFunc(epochs, func(p, q keyDocument) int { return p.doc.Given.Compare(q.doc.Given) })
	ended, last := a.standing(of)
	for i := range epochs {
		e := &epochs[i]
		next := now // when a later epoch was given
		if j := slices.IndexFunc(epochs[i:], func(later keyDocument) bool { return later.doc.Given.After(e.doc.Given) }); j > 0 {
			next = epochs[i+j].doc.Given
		} else if ended {
			next = now.Add(-epochGrace) // none comes
		}
		grace := next.Add(epochGrace)
		inUse := !ended && e.id.Level == seal.EpochLevel && e.id.Epoch == last
		unused := !inUse && !e.doc.Keep && !now.Before(e.doc.Until) && !now.Before(grace) && !a.waits(of, e.id.Epoch)
		over := !now.Before(e.doc.NotAfter)
		switch first := e.doc.Ended.IsZero(); {
		case !unused && !over:
			continue
		case !unused && !first:
			// Destroyed again at the start: the key table may be an older copy.
			if a.epochsDue.IsZero() {
				*found = append(*found, ending{id: e.id, version: e.version})
			}
			continue
		default:
			if err := a.endOne(now, e, unused, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// standing reports whether nothing comes of a stream any more, and the epoch given
// last since the start.
func (a *Agent) standing(of carnet.StreamID) (ended bool, last carnet.EpochID) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if s := a.stream(of); s != nil {
		return s.ended, s.epoch
	}
	return true, last
}

// endOne notes that an epoch's key is to be destroyed, and says so.
func (a *Agent) endOne(now time.Time, e *keyDocument, unused bool, found *[]ending) error {
	d := carnet.Document{Kind: kindEpoch, ID: keyID(e.id).Name, Version: e.version + 1}
	reason := "nothing is kept under it any more"
	stated := !e.doc.Ended.IsZero()
	if !unused {
		reason = "its grant is over"
		e.doc.Ended = now.UTC()
		var err error
		if d, err = a.document(d.Kind, d.ID, d.Version, e.doc); err != nil {
			return err
		}
	}
	end := ending{id: e.id, version: e.version, document: &d}
	if !stated {
		item, err := a.Statement(ledger.Statement{
			Kind: ledger.Deleted, Time: now.UnixNano(), Peer: carnet.PartyID(e.doc.Granter), Stream: e.id.Stream,
			Reason: fmt.Sprintf("the key of epoch %s is destroyed: %s", e.id.Epoch, reason),
		})
		if err != nil {
			return err
		}
		end.item = &item
	}
	*found = append(*found, end)
	return nil
}

// waits reports whether a batch of an epoch isn't compacted.
func (a *Agent) waits(of carnet.StreamID, epoch carnet.EpochID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := a.streams[of]
	return s != nil && slices.ContainsFunc(s.waiting(), func(ref batchRef) bool { return ref.epoch == epoch })
}

// noKey says why a batch has no key: the grant was over (carnet.TooOld), or what
// is said else (carnet.NotFound).
func (a *Agent) noKey(ctx context.Context, h seal.Header, otherwise error) error {
	doc, version, err := loadOne[epochDocument](ctx, a, kindEpoch, keyID(epochOf(h)).Name)
	if err == nil && version == 0 {
		doc, version, err = loadOne[epochDocument](ctx, a, kindEpoch, keyID(slotOf(h)).Name)
	}
	if err != nil {
		a.log.Warn("why a key isn't there can't be read", "epoch", h.Epoch, "err", err)
	}
	if version == 0 || doc.Ended.IsZero() {
		return otherwise
	}
	return carnet.Errorf(carnet.TooOld, "the grant of %s was over at %s, and the key of epoch %s was destroyed",
		cmp.Or(doc.Granter, "its granter"), doc.NotAfter.Format(time.RFC3339), h.Epoch).WithFix("ask for a new grant")
}
