package avatar

import (
	"context"
	"errors"

	"carnet"
	"carnet/ledger"
)

// What an avatar's policy lets no depot of this world keep stays at home: it isn't put
// there, and what is there is deleted there.

// staysHome reports whether a stream's stretches aren't for the depot: their avatar's
// policy forbids it, or nobody can tell, since the avatar is gone or isn't here yet.
func (a *Agent) staysHome(id carnet.StreamID) bool {
	a.mu.RLock()
	s, former := a.streams[id], a.former[id]
	gone := s != nil && s.gone
	a.mu.RUnlock()
	if s == nil || gone {
		return gone || former != nil
	}
	return a.Bounds(s.avatar.id).MayStore(a.depotKey()) != nil
}

// depotKey is what policies call the depot; nothing while it isn't known.
func (a *Agent) depotKey() string {
	if a.depotDID == nil {
		return ""
	}
	return a.depotDID()
}

// mayStore reports whether a stretch may be put into the depot now: what is still to be
// deleted there comes again afterwards.
func (a *Agent) mayStore(ctx context.Context, row *StretchRow) (bool, error) {
	if a.staysHome(row.Stream) {
		return false, nil
	}
	doomed, err := a.isDoomed(ctx, row.Fingerprint)
	return err == nil && !doomed, err
}

// bringHome has the depot delete what it may not keep of avatars. What is marked as
// stored there is looked at each time; once for a policy, and at each start, also what
// isn't: a crash may have left it there. While nobody can tell which depot that is,
// nothing is put there, and nothing is taken away.
func (a *Agent) bringHome(ctx context.Context) error {
	if a.depotKey() == "" {
		return nil
	}
	a.mu.RLock()
	var bound []*Avatar
	for id, b := range a.policies {
		if b.bounds.Store.Depots != nil {
			bound = append(bound, a.avatars[id])
		}
	}
	a.mu.RUnlock()
	var failed error
	for _, v := range bound {
		b := a.Bounds(v.id)
		if b.MayStore(a.depotKey()) == nil {
			continue
		}
		a.mu.RLock()
		streams := v.streams[:len(v.streams):len(v.streams)]
		a.mu.RUnlock()
		all := a.home[v.id] != b.Version
		var err error
		for _, s := range streams {
			err = errors.Join(err, a.bringStreamHome(ctx, s.id, all))
		}
		if err == nil {
			a.home[v.id] = b.Version
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// bringStreamHome does that for a stream. A stretch that can't be brought home holds up
// no other.
func (a *Agent) bringStreamHome(ctx context.Context, id carnet.StreamID, all bool) error {
	var failed error
	for from := uint64(0); ; {
		rows, err := a.store.StretchPage(ctx, id, from, dropAtOnce)
		if err != nil || len(rows) == 0 {
			return errors.Join(failed, err)
		}
		from = rows[len(rows)-1].FirstBatch + 1
		if err := a.unstore(ctx, rows, all); ctx.Err() != nil {
			return err
		} else if err != nil && failed == nil {
			failed = err
		}
	}
}

// unstore notes that the depot is to delete stretches, and that it doesn't hold them.
// What is lost here is fetched back first; one that the depot doesn't give stays as it
// is, and its error is returned when the others are done.
func (a *Agent) unstore(ctx context.Context, rows []StretchRow, all bool) (failed error) {
	var ids []uint64
	var documents []carnet.Document
	var items []ledger.Item
	for i := range rows {
		row := &rows[i]
		if !row.Stored && !all {
			continue
		}
		if row.Stored {
			if _, err := a.stretchBody(ctx, *row); errors.Is(err, errMoved) {
				continue
			} else if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		doomed, err := a.isDoomed(ctx, row.Fingerprint)
		last := !doomed
		if f := a.formerOf(row.Stream); f != nil && err == nil && last {
			var other bool
			other, err = a.isElsewhere(ctx, f.Name, row)
			last = !other
		}
		if err != nil {
			return err
		}
		if row.Stored {
			ids = append(ids, row.ID)
		}
		if !last {
			continue
		}
		d, err := a.document(kindDoomed, row.Fingerprint.String(), 1, doomedDocument{Class: row.Class})
		if err != nil {
			return err
		}
		documents = append(documents, d)
		if !row.Stored {
			continue
		}
		item, err := a.Statement(ledger.Statement{
			Kind: ledger.Deleted, Time: a.now().UnixNano(), Peer: a.depot.Party(), Object: row.Fingerprint, Reason: "by its owner's policy it isn't kept at the depot",
		})
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	if len(ids)+len(documents) == 0 {
		return failed
	}
	if err := a.store.Unstore(ctx, ids, documents, items); err != nil {
		return errors.Join(failed, err)
	}
	a.recorded()
	return failed
}
