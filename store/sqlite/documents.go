package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"carnet"
)

// documents are the documents of one domain, in its table DOMAIN_document. It
// is embedded in the domain's store, whose methods it promotes.
type documents struct {
	db     *DB
	domain string
}

func (d documents) sql(query string) string {
	return strings.ReplaceAll(query, "{domain}", d.domain)
}

// put stores, replaces or deletes documents in order. A document that isn't
// there has version 0.
func (d documents) put(t *tx, docs []carnet.Document) error {
	for i := range docs {
		doc := &docs[i]
		if err := inRange(doc.Version); err != nil {
			return err
		}
		var have uint64
		t.row(d.sql(`SELECT version FROM {domain}_document WHERE kind = $1 AND id = $2`), []any{doc.Kind, doc.ID}, &have)
		if t.err == nil && have+1 != doc.Version {
			return carnet.Errorf(carnet.Conflict, "%s %q has version %d, so the next is not %d", doc.Kind, doc.ID, have, doc.Version)
		}
		if doc.Body == nil {
			t.exec(d.sql(`DELETE FROM {domain}_document WHERE kind = $1 AND id = $2`), doc.Kind, doc.ID)
			continue
		}
		t.exec(d.sql(`INSERT INTO {domain}_document (kind, id, version, body) VALUES ($1, $2, $3, $4)
			ON CONFLICT (kind, id) DO UPDATE SET version = $3, body = $4`), doc.Kind, doc.ID, doc.Version, doc.Body)
	}
	return nil
}

// Documents returns all documents of a kind, in the byte order of their ids.
func (d documents) Documents(ctx context.Context, kind string) ([]carnet.Document, error) {
	return d.list(ctx, ` WHERE kind = $1 ORDER BY id`, kind)
}

// DocumentPage returns documents of a kind with id > after, in the byte order of
// their ids, at most limit.
func (d documents) DocumentPage(ctx context.Context, kind, after string, limit int) ([]carnet.Document, error) {
	return d.list(ctx, ` WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3`, kind, after, max(limit, 0))
}

// Document returns one document; carnet.NotFound if there is none.
func (d documents) Document(ctx context.Context, kind, id string) (carnet.Document, error) {
	docs, err := d.list(ctx, ` WHERE kind = $1 AND id = $2`, kind, id)
	if err == nil && len(docs) == 0 {
		err = carnet.Errorf(carnet.NotFound, "there is no %s %q", kind, id)
	}
	if err != nil {
		return carnet.Document{}, err
	}
	return docs[0], nil
}

func (d documents) list(ctx context.Context, where string, args ...any) (docs []carnet.Document, err error) {
	err = d.db.read(ctx, d.sql(`SELECT kind, id, version, body FROM {domain}_document`)+where, args, func(rows *sql.Rows) error {
		var doc carnet.Document
		err := rows.Scan(&doc.Kind, &doc.ID, &doc.Version, &doc.Body)
		doc.Body = blob(doc.Body)
		docs = append(docs, doc)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read documents: %w", err)
	}
	return docs, nil
}
