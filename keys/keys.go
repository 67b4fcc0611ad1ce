// Package keys owns the secrets that a party keeps: the key-encryption key's
// interface and its first implementation (a file), the key table with every
// other key under it, the sealing of database columns, signing keys and TLS
// certificates.
//
// Keys hang in three levels. The key-encryption key (KEK) may sit in a TPM, a
// PKCS#11 token or a KMS; it wraps nothing but the table key, so it is asked
// once at a start and a few times in a rotation. The table key wraps the rows:
// one for each epoch, slot, batch, column, reception key, signer, certificate.
//
//	KEK ──wraps──▶ table key (generation n) ──wraps──▶ row (kind, name)
//
// States of a row: absent → kept → destroyed (the row deleted and overwritten,
// its key wiped from this process's memory). States of a table: stable (one
// generation, one KEK) → rotating (two generations, each under the old KEK and
// the new; then under the new) → stable. A crash in any state loses nothing: see Table.Rotate and
// docs/design/keys.md.
//
// Nothing is created but by an explicit call. The package must not know what
// the keys are for, where rows are stored, or who may use them.
package keys

import (
	"context"
	"encoding/binary"
	"strings"

	"carnet"
)

// KEK is a key-encryption key. Methods may be called by several goroutines.
//
// Wrap binds what it wraps to the context: Unwrap refuses another context, and
// anything that this KEK has not wrapped, with an error of code Tampered; it
// answers Unavailable when it can't be reached. Plaintexts have at most 64
// bytes.
type KEK interface {
	// ID names the key, in at most 64 of a-z, 0-9, '.', '_' and '-'; it is not
	// secret. Two keys never share one.
	ID() string
	Wrap(ctx context.Context, context, plaintext []byte) ([]byte, error)
	Unwrap(ctx context.Context, context, wrapped []byte) ([]byte, error)
}

// ID names a key in the table: what it is for (1 to 32 of a-z, 0-9 and '-'),
// and which (1 to 200 printable ASCII characters).
type ID struct {
	Kind string
	Name string
}

func (id ID) String() string { return id.Kind + ":" + id.Name }

// Row is how a key is stored: its id in the clear, the key wrapped.
type Row struct {
	ID      ID
	Wrapped []byte
}

// Store keeps rows. Each method is one transaction, done whole or not at all,
// and may be called by several goroutines. A change is refused with an error of
// code carnet.Fenced if there is a row of upTo's kind whose name is above upTo's.
type Store interface {
	// Get returns the row, or an error of code carnet.NotFound.
	Get(ctx context.Context, id ID) (Row, error)
	// Page returns up to limit rows with an id above after, in the order of the
	// bytes of kind, then name. The zero ID is below all.
	Page(ctx context.Context, after ID, limit int) ([]Row, error)
	// Put inserts or replaces the rows. They are durable when it returns.
	Put(ctx context.Context, upTo ID, rows []Row) error
	// Replace puts each row of now in the place of the one of was with the same id, where
	// that is there, and as it was. It is durable when it returns.
	Replace(ctx context.Context, upTo ID, was, now []Row) error
	// Delete removes the rows that exist and overwrites their bytes, and those of rows that
	// were deleted before. It is durable when it returns.
	Delete(ctx context.Context, upTo ID, ids []ID) error
}

const (
	maxKind   = 32
	maxName   = 200
	maxSecret = 16 << 10
	tableKind = "table" // rows that hold the table key; reserved
)

func (id ID) check() error {
	if id.Kind == tableKind {
		return carnet.Errorf(carnet.Malformed, "keys of kind %q are the table's own", tableKind)
	}
	if id.Kind == "" || len(id.Kind) > maxKind || strings.Trim(id.Kind, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return carnet.Errorf(carnet.Malformed, "kind of key %q: want 1 to %d of a-z, 0-9 and '-'", id.Kind, maxKind)
	}
	if id.Name == "" || len(id.Name) > maxName {
		return carnet.Errorf(carnet.Malformed, "name of key %q: want 1 to %d characters", id.Name, maxName)
	}
	for _, c := range []byte(id.Name) {
		if c <= ' ' || c > '~' {
			return carnet.Errorf(carnet.Malformed, "name of key %q: want printable ASCII characters", id.Name)
		}
	}
	return nil
}

// context is what a wrapped key is bound to, so that rows can't be exchanged:
// the lengths make it unique.
func (id ID) context(generation uint32) []byte {
	b := append([]byte("carnet/1 row\x00"), byte(len(id.Kind)))
	b = append(append(b, id.Kind...), byte(len(id.Name)))
	return binary.BigEndian.AppendUint32(append(b, id.Name...), generation)
}

// above reports whether a comes after b in the order of Store.Page.
func above(a, b ID) bool {
	if a.Kind != b.Kind {
		return a.Kind > b.Kind
	}
	return a.Name > b.Name
}
