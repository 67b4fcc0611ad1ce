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
)

// loadOne opens one document; a zero one with version 0 if there is none.
func loadOne[T any](ctx context.Context, a *Agent, kind, id string) (v T, version uint64, err error) {
	documents, err := a.store.Documents(ctx, kind)
	if err != nil {
		return v, 0, err
	}
	for _, d := range documents {
		if d.ID == id {
			return v, d.Version, a.openDocument(d, &v)
		}
	}
	return v, 0, nil
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
