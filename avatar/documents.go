package avatar

import (
	"context"
	"encoding/json"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
)

var (
	restKey      = keys.ID{Kind: "rest", Name: "world"}
	statementAAD = []byte("statement")
	saltAAD      = []byte("salt")
)

func documentAAD(kind, id string) []byte { return []byte("document " + kind + " " + id) }

// Kinds of the agent's documents.
const (
	kindAvatar    = "avatar"
	kindReception = "reception"
	kindState     = "state"
	kindFold      = "fold"
	kindMoved     = "moved"
	kindDoomed    = "doomed"
	kindEpoch     = "epoch"
	kindOver      = "over"     // which batches retention has ended
	kindProof     = "proof"    // of a stretch that came with a move; not JSON
	kindArriving  = "arriving" // an avatar that isn't here yet
	kindComing    = "coming"   // an epoch of one
	kindPolicy    = "avatar-policy"
)

// loadOne opens one document; a zero one with version 0 if there is none.
func loadOne[T any](ctx context.Context, a *Agent, kind, id string) (v T, version uint64, err error) {
	d, err := a.store.Document(ctx, kind, id)
	if carnet.CodeOf(err) == carnet.NotFound {
		return v, 0, nil
	} else if err != nil {
		return v, 0, err
	}
	return v, d.Version, a.openDocument(d, &v)
}

// documentPage is how many documents are read at once where there are many.
const documentPage = 512

// eachDocument hands over the documents of a kind, in order of their ids. They
// may be changed meanwhile.
func (a *Agent) eachDocument(ctx context.Context, kind string, do func(carnet.Document) error) error {
	for after := ""; ; {
		page, err := a.store.DocumentPage(ctx, kind, after, documentPage)
		if err != nil {
			return err
		}
		for _, d := range page {
			if err := do(d); err != nil {
				return err
			}
			after = d.ID
		}
		if len(page) < documentPage {
			return nil
		}
	}
}

func (a *Agent) openDocument(d carnet.Document, v any) error {
	plain, err := a.rest.Open(nil, documentAAD(d.Kind, d.ID), d.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, v)
}

func (a *Agent) document(kind, id string, version uint64, v any) (carnet.Document, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return carnet.Document{}, err
	}
	body, err := a.rest.Seal(nil, documentAAD(kind, id), plain)
	return carnet.Document{Kind: kind, ID: id, Version: version, Body: body}, err
}

func (a *Agent) put(ctx context.Context, kind, id string, version uint64, v any) error {
	d, err := a.document(kind, id, version, v)
	if err != nil {
		return err
	}
	return a.store.Put(ctx, []carnet.Document{d}, nil)
}

// Kept is a document of a part of the world beside this one.
type Kept = carnet.Kept

// Keep stores documents, with statements by this world about the change and with
// documents that aren't sealed, in one transaction. A document whose stored
// version isn't Version-1 fails the whole with carnet.Conflict.
func (a *Agent) Keep(ctx context.Context, kept []Kept, statements []ledger.Statement, plain ...carnet.Document) error {
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

// EachKept hands over the documents of a kind, in order of their ids; open reads
// one's body.
func (a *Agent) EachKept(ctx context.Context, kind string, do func(id string, version uint64, open func(any) error) error) error {
	return a.eachDocument(ctx, kind, func(d carnet.Document) error {
		return do(d.ID, d.Version, func(v any) error { return a.openDocument(d, v) })
	})
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
