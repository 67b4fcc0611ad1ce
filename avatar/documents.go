package avatar

import (
	"context"
	"encoding/json"

	"carnet"
	"carnet/keys"
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
	kindDoomed    = "doomed"
	kindEpoch     = "epoch"
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
