package depot

import (
	"context"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/ledger/tlog"
)

// Object is what the depot knows of a sealed object. The same bytes may be
// stored by several owners, who don't learn of each other.
type Object struct {
	Fingerprint carnet.Fingerprint
	Owner       carnet.PartyID
	Size        int64
	Time        time.Time // of the first put, to the microsecond
	Retention   carnet.Retention
}

// Totals counts objects and their bytes, once for each owner.
type Totals struct {
	Objects int64
	Bytes   int64
}

// Store keeps the depot's rows; bodies are files beside it. Every method is one
// transaction, durable on return, and may be called concurrently (the Agent
// orders calls about one fingerprint). Failures that pass have the code
// carnet.NoSpace or carnet.Unavailable.
type Store interface {
	// PutObject adds an object, known by fingerprint and owner. One that is there
	// keeps its time and gets the longer of the two retentions.
	PutObject(ctx context.Context, o Object) error
	// Object returns an owner's object; carnet.NotFound without one.
	Object(ctx context.Context, owner carnet.PartyID, f carnet.Fingerprint) (Object, error)
	// DeleteObject forgets an owner's object and says how many other owners have
	// the same bytes; carnet.NotFound without one.
	DeleteObject(ctx context.Context, owner carnet.PartyID, f carnet.Fingerprint) (others int, err error)
	// Objects lists an owner's objects by fingerprint (as bytes), those after
	// `after`, at most limit.
	Objects(ctx context.Context, owner carnet.PartyID, after carnet.Fingerprint, limit int) ([]Object, error)
	// Unowned returns those of fs that no owner has.
	Unowned(ctx context.Context, fs []carnet.Fingerprint) ([]carnet.Fingerprint, error)
	// Totals counts an owner's objects, and everybody's for owner "".
	Totals(ctx context.Context, owner carnet.PartyID) (Totals, error)

	// Document returns one document; carnet.NotFound if there is none. Put stores
	// documents of the next versions, or deletes those without a body; another version
	// is carnet.Conflict.
	Document(ctx context.Context, kind, id string) (carnet.Document, error)
	Put(ctx context.Context, docs []carnet.Document, items []ledger.Item) error

	// The ledger's entries, found again: entry → leaf index.
	tlog.Index
}
