package thing

import (
	"context"

	"carnet"
	"carnet/ledger"
)

// What parts of a things agent beside this one keep rests in its store. It is stored in
// transactions of its own, beside the groups: nothing that devices wait for is in one with
// it.

// Keep stores documents, with statements by this agent about the change and with
// documents that aren't sealed, in one transaction. A document whose stored version
// isn't Version-1 fails the whole with carnet.Conflict.
func (a *Agent) Keep(ctx context.Context, kept []carnet.Kept, statements []ledger.Statement, plain ...carnet.Document) error {
	documents := plain
	for _, k := range kept {
		d := carnet.Document{Kind: k.Kind, ID: k.ID, Version: k.Version}
		if k.Body != nil {
			var err error
			if d, err = a.document(k.Kind, k.ID, k.Version, k.Body); err != nil {
				return err
			}
		}
		documents = append(documents, d)
	}
	items := make([]ledger.Item, 0, len(statements))
	for _, s := range statements {
		item, err := a.Statement(s)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	if err := a.store.Put(ctx, documents, items); err != nil {
		return err
	}
	if len(items) > 0 {
		a.recorded()
	}
	return nil
}

// EachKept hands over the documents of a kind, in order of their ids; open reads one.
func (a *Agent) EachKept(ctx context.Context, kind string, do func(id string, version uint64, open func(any) error) error) error {
	documents, err := a.store.Documents(ctx, kind)
	if err != nil {
		return err
	}
	for _, d := range documents {
		if err := do(d.ID, d.Version, func(v any) error { return a.openDocument(d, v) }); err != nil {
			return err
		}
	}
	return nil
}

// OneKept reads one document into body; carnet.NotFound if there is none.
func (a *Agent) OneKept(ctx context.Context, kind, id string, body any) (version uint64, err error) {
	d, err := a.store.Document(ctx, kind, id)
	if err != nil {
		return 0, err
	}
	return d.Version, a.openDocument(d, body)
}

// Plain returns a document that isn't sealed; carnet.NotFound if there is none.
func (a *Agent) Plain(ctx context.Context, kind, id string) (carnet.Document, error) {
	return a.store.Document(ctx, kind, id)
}
