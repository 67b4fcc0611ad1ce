package avatar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/ledger"
)

// How stretches go to the depot: each costs it several syncs, and a disk that is
// shared has others to serve, as this loop has other work.
const (
	storeAtOnce = 64              // stretches that are marked as stored in one commit
	storeFor    = time.Second     // how long one pass takes
	restFor     = 4               // how much longer than a pass the rest after it is,
	restUntil   = 5 * time.Minute // unless a stretch has waited this long
)

// storeSome puts stretches that the depot doesn't hold yet into it, those after
// one, and returns the last that it came to (0: there are no more) and how long to
// rest before the next pass. A damaged one is passed over: nothing else waits for
// it.
func (a *Agent) storeSome(ctx context.Context, after uint64) (last uint64, rest time.Duration, err error) {
	if a.half() {
		return 0, 0, nil
	}
	rows, err := a.store.Unstored(ctx, after, storeAtOnce)
	if err != nil {
		return 0, 0, err
	}
	var stored []uint64
	var items []ledger.Item
	begun, more := a.now(), len(rows) == storeAtOnce
	for i := range rows {
		row := &rows[i]
		var may bool
		if may, err = a.mayStore(ctx, row); err != nil {
			break
		} else if !may { // it stays at home, or goes there first
			last = row.ID
			continue
		}
		var item ledger.Item
		if item, err = a.storeStretch(ctx, row); carnet.CodeOf(err) == carnet.Tampered {
			a.log.Error("a stretch is damaged and the depot doesn't hold it", "stretch", row.ID, "stream", row.Stream, "err", err)
			err = nil
		} else if err != nil {
			break
		} else {
			stored, items = append(stored, row.ID), append(items, item)
		}
		last = row.ID
		if a.now().Sub(begun) >= storeFor && i < len(rows)-1 {
			more = true
			break
		}
	}
	if len(stored) > 0 {
		err = errors.Join(err, a.markStored(ctx, stored, items))
	}
	if err != nil || !more {
		return 0, 0, err // what is left comes in the next round
	}
	now := a.now()
	if now.Sub(time.Unix(0, rows[0].Received)) < restUntil {
		rest = restFor * now.Sub(begun)
	}
	return last, rest, nil
}

// storeStretch puts one stretch into the depot and makes the statement of it.
func (a *Agent) storeStretch(ctx context.Context, row *StretchRow) (item ledger.Item, err error) {
	a.depotMu.Lock()
	defer a.depotMu.Unlock()
	body, err := a.store.StretchBody(ctx, row.ID)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return item, err
	}
	if carnet.FingerprintOf(body) != row.Fingerprint {
		return item, carnet.Errorf(carnet.Tampered, "the bytes of stretch %d are lost or changed", row.ID)
	}
	if _, err := a.depot.PutObject(ctx, body, row.Class); err != nil {
		return item, err
	}
	return a.Statement(ledger.Statement{
		Kind: ledger.StoredObject, Time: a.now().UnixNano(), Peer: a.depot.Party(), Object: row.Fingerprint, Size: uint64(len(body)), Stream: row.Stream,
	})
}

func (a *Agent) markStored(ctx context.Context, ids []uint64, items []ledger.Item) error {
	if err := a.store.Put(ctx, nil, items); err != nil {
		return err
	}
	if err := a.store.Stored(ctx, ids); err != nil {
		return err
	}
	a.recorded()
	return nil
}

// lives says how long a retention class is kept after receipt.
var lives = map[carnet.Retention]time.Duration{
	carnet.Hour: time.Hour, carnet.Day: 24 * time.Hour, carnet.Month: 31 * 24 * time.Hour, carnet.Year: 366 * 24 * time.Hour,
}

// doomedDocument is an object that was dropped here and is to be deleted at the
// depot; its document's id is the fingerprint.
type doomedDocument struct {
	Class carnet.Retention `json:"class"`
	// Erasure is whose deletion the depot is to sign; zero: nobody's.
	Erasure carnet.ErasureID `json:"erasure,omitzero"`
}

// dropAtOnce is how many stretches are dropped in one commit.
const dropAtOnce = 256

// DropOver deletes stretches whose retention has ended, here and then at the
// depot, however long that is away.
func (a *Agent) DropOver(ctx context.Context) error {
	for class, life := range lives {
		for !a.half() {
			rows, err := a.store.Expired(ctx, class, a.now().Add(-life).UnixNano(), dropAtOnce)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			documents, err := a.overDocuments(ctx, rows)
			if err != nil {
				return err
			}
			if err := a.drop(ctx, rows, "", carnet.ErasureID{}, documents); err != nil {
				return err
			}
		}
	}
	return a.deleteDoomed(ctx)
}

// drop deletes stretches with their proofs, states it, and notes in the same
// transaction, beside other documents, what the depot is to delete: also what
// isn't marked as stored may be there. Without a reason, their retention has ended.
func (a *Agent) drop(ctx context.Context, rows []StretchRow, reason string, by carnet.ErasureID, documents []carnet.Document) error {
	var ids []uint64
	var items []ledger.Item
	for i := range rows {
		row := &rows[i]
		item, err := a.Statement(ledger.Statement{
			Kind: ledger.Deleted, Time: a.now().UnixNano(), Object: row.Fingerprint, Reason: cmp.Or(reason, "retention "+row.Class.String()+" has ended"),
		})
		if err != nil {
			return err
		}
		ids, items = append(ids, row.ID), append(items, item)
		if f := a.formerOf(row.Stream); f != nil {
			documents = append(documents, carnet.Document{Kind: kindProof, ID: proofID(row.Stream, row.Fingerprint), Version: 2})
			if other, err := a.isElsewhere(ctx, f.Name, row); err != nil {
				return err
			} else if other {
				continue
			}
		}
		// It may be noted already, since it was to stay at home.
		if documents, err = a.doom(ctx, documents, row.Fingerprint, row.Class, by); err != nil {
			return err
		}
	}
	err := a.store.DropStretches(ctx, ids, documents, items)
	a.recorded() // also if it failed: they may be gone, and only the overwriting not done
	return err
}

// doom appends what notes an object that the depot is to delete: what is noted for
// nobody is an erasure's then, which has the depot sign for it, and what is noted for an
// erasure already stays so.
func (a *Agent) doom(ctx context.Context, documents []carnet.Document, f carnet.Fingerprint, class carnet.Retention, by carnet.ErasureID) ([]carnet.Document, error) {
	had, version, err := loadOne[doomedDocument](ctx, a, kindDoomed, f.String())
	if err != nil || version > 0 && (by == carnet.ErasureID{} || had.Erasure != carnet.ErasureID{}) {
		return documents, err
	}
	d, err := a.document(kindDoomed, f.String(), version+1, doomedDocument{class, by})
	return append(documents, d), err
}

// isElsewhere reports whether a stretch that came with a move is here once more, as one
// of another move.
func (a *Agent) isElsewhere(ctx context.Context, name carnet.StreamID, row *StretchRow) (bool, error) {
	a.mu.RLock()
	ids := slices.Clone(a.formerNames[name])
	a.mu.RUnlock()
	for _, id := range ids {
		if id == row.Stream {
			continue
		}
		others, err := a.store.StretchPage(ctx, id, row.FirstBatch, 1)
		if err != nil {
			return false, err
		}
		if len(others) > 0 && others[0].Fingerprint == row.Fingerprint {
			return true, nil
		}
	}
	return false, nil
}

// isDoomed reports whether an object is to be deleted at the depot already.
func (a *Agent) isDoomed(ctx context.Context, f carnet.Fingerprint) (bool, error) {
	_, err := a.store.Document(ctx, kindDoomed, f.String())
	if carnet.CodeOf(err) == carnet.NotFound {
		return false, nil
	}
	return err == nil, err
}

// DeleteDoomed has the depot delete what is noted for nobody's erasure. Without an error
// it has none of that any more.
func (a *Agent) DeleteDoomed(ctx context.Context) error { return a.deleteDoomed(ctx) }

// deleteDoomed deletes at the depot what is noted, and forgets an object when
// the depot has answered that it is gone. One that the depot doesn't delete now
// stays noted and holds up no other.
func (a *Agent) deleteDoomed(ctx context.Context) error {
	var failed error
	err := a.eachDocument(ctx, kindDoomed, func(d carnet.Document) error {
		var f carnet.Fingerprint
		if err := f.UnmarshalText([]byte(d.ID)); err != nil {
			return err
		}
		var doc doomedDocument
		if err := a.openDocument(d, &doc); err != nil {
			return err
		}
		if (doc.Erasure != carnet.ErasureID{}) {
			return nil // by DeleteErased
		}
		err := a.deleteObject(ctx, d, f)
		if carnet.CodeOf(err) == carnet.Unavailable || ctx.Err() != nil {
			return err
		}
		failed = errors.Join(failed, err)
		return nil
	})
	return errors.Join(failed, err)
}

// deleteObject deletes at the depot what a document notes, and forgets that, unless it
// has come again since the document was read.
func (a *Agent) deleteObject(ctx context.Context, d carnet.Document, f carnet.Fingerprint) error {
	a.depotMu.Lock()
	defer a.depotMu.Unlock()
	if is, err := a.store.Document(ctx, d.Kind, d.ID); carnet.CodeOf(err) == carnet.NotFound || err == nil && is.Version != d.Version {
		return nil
	} else if err != nil {
		return err
	}
	if err := a.depot.DeleteObject(ctx, f); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return fmt.Errorf("delete object %s at the depot: %w", f, err)
	}
	err := a.store.Put(ctx, []carnet.Document{{Kind: d.Kind, ID: d.ID, Version: d.Version + 1}}, nil)
	if carnet.CodeOf(err) == carnet.Conflict {
		return nil // it came again meanwhile: it is put there anew, after this
	}
	return err
}
