package ledger

import (
	"fmt"

	"carnet"
)

// MaxEntries is how many entries are handed to a depot at once.
const MaxEntries = 4096

// MarshalEntries writes what a party sends its depot: a CBOR array of 32-byte
// strings.
func MarshalEntries(entries []Entry) []byte {
	b := appendHead(make([]byte, 0, 9+34*len(entries)), majorArray, uint64(len(entries)))
	for _, e := range entries {
		b = appendBytes(b, e[:])
	}
	return b
}

// ParseEntries reads what MarshalEntries writes, at most MaxEntries.
func ParseEntries(b []byte) ([]Entry, error) {
	r := reader{rest: b}
	n := r.head(majorArray)
	if r.err == nil && n > MaxEntries {
		return nil, carnet.Errorf(carnet.TooLarge, "%d entries at once, want at most %d", n, MaxEntries)
	}
	var entries []Entry
	for i := uint64(0); i < n && r.err == nil; i++ {
		var e Entry
		r.fixed(e[:])
		entries = append(entries, e)
	}
	if err := r.end(); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "the list of entries %v", err)
	}
	return entries, nil
}

// MarshalReceipts writes what a depot answers: a CBOR array of receipts.
func MarshalReceipts(receipts []Receipt) []byte {
	b := appendHead(make([]byte, 0, 9+1024*len(receipts)), majorArray, uint64(len(receipts)))
	for _, r := range receipts {
		b = r.append(b)
	}
	return b
}

// ParseReceipts reads what MarshalReceipts writes, at most MaxEntries. It
// verifies nothing.
func ParseReceipts(b []byte) ([]Receipt, error) {
	r := reader{rest: b}
	n := r.head(majorArray)
	if r.err == nil && n > MaxEntries {
		r.fail(fmt.Errorf("has %d receipts, want at most %d", n, MaxEntries))
	}
	var receipts []Receipt
	for i := uint64(0); i < n && r.err == nil; i++ {
		receipts = append(receipts, r.receipt())
	}
	if err := r.end(); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "the list of receipts %v", err)
	}
	return receipts, nil
}
