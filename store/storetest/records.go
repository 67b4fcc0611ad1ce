package storetest

import (
	"context"
	"testing"

	"carnet"
	"carnet/ledger"
)

// Records is what every party's store keeps beside what its role does: documents,
// and statements about their change. Who ends somebody's access (revocation) and
// who peers (peering) declare what they need of it.
type Records interface {
	// Put is as avatar.Store has it, and may be called while others change.
	Put(ctx context.Context, documents []carnet.Document, statements []ledger.Item) error
	Document(ctx context.Context, kind, id string) (carnet.Document, error)
	Documents(ctx context.Context, kind string) ([]carnet.Document, error)
	Statements(ctx context.Context, after uint64, limit int) ([]ledger.Item, error)
	// LastReceipt returns the receipt of the newest statement that has one; nil
	// without one.
	LastReceipt(ctx context.Context) ([]byte, error)
	ledger.OutboxStore
}

// AnyRole is the suite for Records.
func AnyRole(t *testing.T, fresh Fresh[Records]) {
	common := func(t *testing.T) shared {
		s := open(t, fresh(t))
		return shared{s, s.Put, s.Documents, s.Statements}
	}
	t.Run("Documents", func(t *testing.T) { testDocuments(t, common) })
	t.Run("Versions", func(t *testing.T) { testVersions(t, common) })
	t.Run("Outbox", func(t *testing.T) { testOutbox(t, common) })
	t.Run("Contention", func(t *testing.T) { testContention(t, common) })
	t.Run("Document", func(t *testing.T) { testDocument(t, fresh) })
	t.Run("LastReceipt", func(t *testing.T) { testLastReceipt(t, fresh) })
}

func testLastReceipt(t *testing.T, fresh Fresh[Records]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	same(t, "last receipt of none", get(s.LastReceipt(ctx))(t), []byte(nil))
	must(t, s.Put(ctx, nil, []ledger.Item{statement(1), statement(2), statement(3)}))
	same(t, "last receipt while all are pending", get(s.LastReceipt(ctx))(t), []byte(nil))
	ids := get(s.Statements(ctx, 0, 9))(t)
	must(t, s.Receipted(ctx, []ledger.Item{{ID: ids[1].ID, Receipt: awkward()}}))
	must(t, s.Receipted(ctx, []ledger.Item{{ID: ids[0].ID, Receipt: []byte("older")}}))
	same(t, "last receipt", get(s.LastReceipt(ctx))(t), awkward())
}

// testDocument checks the reading of one, and that it is there after a restart.
func testDocument(t *testing.T, fresh Fresh[Records]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	doc := carnet.Document{Kind: "revocation", ID: "number", Version: 1, Body: []byte{}}
	_, err := s.Document(ctx, doc.Kind, doc.ID)
	wantCode(t, err, carnet.NotFound)
	must(t, s.Put(ctx, []carnet.Document{doc}, []ledger.Item{statement(1)}))
	doc.Version = 2
	must(t, s.Put(ctx, []carnet.Document{doc, {Kind: "peering", ID: "arena", Version: 1, Body: awkward()}}, nil))
	if s.Put(cancelled(), []carnet.Document{{Kind: "peering", ID: "clinic", Version: 1, Body: awkward()}}, nil) == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
	close()
	s = open(t, db)
	same(t, "document", get(s.Document(ctx, doc.Kind, doc.ID))(t), doc)
	same(t, "document", get(s.Document(ctx, "peering", "arena"))(t), carnet.Document{Kind: "peering", ID: "arena", Version: 1, Body: awkward()})
	_, err = s.Document(ctx, "peering", "Arena")
	wantCode(t, err, carnet.NotFound)
	if n := len(get(s.Statements(ctx, 0, 9))(t)); n != 1 {
		t.Fatalf("%d statements, want 1", n)
	}
}
