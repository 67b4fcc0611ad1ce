package avatar

import (
	"context"
	"errors"

	"carnet"
	"carnet/ledger"
)

// What an avatar's policy lets no depot of this world keep stays at home: it isn't put
// there, and what is there is deleted there.

// homeOnly refuses to put a stream's stretches into the depot.
func (a *Agent) homeOnly(id carnet.StreamID) error {
	s := a.stream(id)
	if s == nil {
		return nil
	}
	return a.Bounds(s.avatar.id).MayStore(a.depotKey())
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
	if a.homeOnly(row.Stream) != nil {
		return false, nil
	}
	doomed, err := a.isDoomed(ctx, row.Fingerprint)
	return err == nil && !doomed, err
}

// bringHome has the depot delete what it may not keep of avatars. What is marked as
// stored there is looked at each time; once for a policy, and at each start, also what
// isn't: a crash may have left it there.
func (a *Agent) bringHome(ctx context.Context) error {
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

func (a *Agent) bringStreamHome(ctx context.Context, id carnet.StreamID, all bool) error {
	for from := uint64(0); ; {
		rows, err := a.store.StretchPage(ctx, id, from, dropAtOnce)
		if err != nil || len(rows) == 0 {
			return err
		}
		from = rows[len(rows)-1].FirstBatch + 1
		if err := a.unstore(ctx, rows, all); err != nil {
			return err
		}
	}
}

// unstore notes that the depot is to delete stretches, and that it doesn't hold them.
// What is lost here is fetched back first.
func (a *Agent) unstore(ctx context.Context, rows []StretchRow, all bool) error {
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
				return err
			}
		}
		doomed, err := a.isDoomed(ctx, row.Fingerprint)
		last := !doomed
		if f := a.formerOf(row.Stream); f != nil && err == nil {
			last, err = a.lastOf(ctx, f.Name, row)
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
		return nil
	}
	if err := a.store.Unstore(ctx, ids, documents, items); err != nil {
		return err
	}
	a.recorded()
	return nil
}
