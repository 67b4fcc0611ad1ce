package postgres

import (
	"context"
	"fmt"
	"strings"

	"carnet"

	"github.com/jackc/pgx/v5"
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

type documentID struct{ kind, id string }

// put checks documents in order and writes what is left of them at the end. A
// document that isn't there has version 0. The caller holds the domain's lock.
func (d documents) put(t *tx, docs []carnet.Document) error {
	if len(docs) == 0 {
		return nil
	}
	have, err := d.versions(t, docs)
	if err != nil {
		return err
	}
	last := make(map[documentID]*carnet.Document)
	for i := range docs {
		doc := &docs[i]
		key := documentID{doc.Kind, doc.ID}
		if have[key]+1 != doc.Version {
			return carnet.Errorf(carnet.Conflict, "%s %q has version %d, so the next is not %d", doc.Kind, doc.ID, have[key], doc.Version)
		}
		have[key] = doc.Version
		if doc.Body == nil {
			have[key] = 0
		}
		last[key] = doc
	}
	var goneKinds, goneIDs, kinds, ids []string
	var versions []uint64
	var bodies [][]byte
	for key, doc := range last {
		if doc.Body == nil {
			goneKinds, goneIDs = append(goneKinds, key.kind), append(goneIDs, key.id)
			continue
		}
		kinds, ids = append(kinds, key.kind), append(ids, key.id)
		versions, bodies = append(versions, doc.Version), append(bodies, doc.Body)
	}
	b := &pgx.Batch{}
	b.Queue(d.sql(`DELETE FROM {domain}_document WHERE (kind, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))`), goneKinds, goneIDs)
	b.Queue(d.sql(`INSERT INTO {domain}_document (kind, id, version, body)
		SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])
		ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, body = excluded.body`), kinds, ids, versions, bodies)
	t.send(b)
	return nil
}

func (d documents) versions(t *tx, docs []carnet.Document) (map[documentID]uint64, error) {
	have := make(map[documentID]uint64)
	var kinds, ids []string
	for i := range docs {
		if err := inRange(docs[i].Version); err != nil {
			return nil, err
		}
		kinds, ids = append(kinds, docs[i].Kind), append(ids, docs[i].ID)
	}
	t.each(d.sql(`SELECT kind, id, version FROM {domain}_document WHERE (kind, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))`),
		[]any{kinds, ids}, func(r pgx.Rows) error {
			var key documentID
			var version uint64
			err := r.Scan(&key.kind, &key.id, &version)
			have[key] = version
			return err
		})
	return have, t.err
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
	err = d.db.read(ctx, d.sql(`SELECT kind, id, version, body FROM {domain}_document`)+where, args, func(rows pgx.Rows) error {
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
