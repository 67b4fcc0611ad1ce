package evidence

import (
	"crypto/sha256"
	"encoding/binary"
)

// The index files are tables of records of fixed size, big-endian, each with a
// check of its own: the first 8 bytes of the SHA-256 of what is before it. The
// check is no protection (the manifest's hash is); it says which record a
// flipped bit is in.
const (
	frameRecordSize = 40
	batchRecordSize = 64
	checkSize       = 8
)

// frameRecord is where a frame's proof lies, and its batches.
type frameRecord struct {
	number  uint64 // on the link
	offset  uint64 // in frames.bin
	first   uint64 // place of its first batch in batches.idx
	length  uint32
	sender  uint16 // place in the trust section's senders
	batches uint16
}

func (r *frameRecord) append(b []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint64(b, r.number)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	b = binary.BigEndian.AppendUint64(b, r.first)
	b = binary.BigEndian.AppendUint32(b, r.length)
	b = binary.BigEndian.AppendUint16(b, r.sender)
	b = binary.BigEndian.AppendUint16(b, r.batches)
	return appendCheck(b, at)
}

// parse reads a record; false: it is damaged.
func (r *frameRecord) parse(b []byte) bool {
	if !checked(b, frameRecordSize) {
		return false
	}
	r.number = binary.BigEndian.Uint64(b)
	r.offset = binary.BigEndian.Uint64(b[8:])
	r.first = binary.BigEndian.Uint64(b[16:])
	r.length = binary.BigEndian.Uint32(b[24:])
	r.sender = binary.BigEndian.Uint16(b[28:])
	r.batches = binary.BigEndian.Uint16(b[30:])
	return true
}

// batchRecord is where a batch lies, and what it holds.
type batchRecord struct {
	number   uint64 // in its stream
	offset   uint64 // in batches.bin
	first    uint64 // number of its first measurement
	from, to int64  // measured time, ns
	count    uint32 // of measurements
	length   uint32
	stream   uint32 // place among the manifest's streams
	leaf     uint32 // place in the frame
}

func (r *batchRecord) append(b []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint64(b, r.number)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	b = binary.BigEndian.AppendUint64(b, r.first)
	b = binary.BigEndian.AppendUint64(b, uint64(r.from))
	b = binary.BigEndian.AppendUint64(b, uint64(r.to))
	b = binary.BigEndian.AppendUint32(b, r.count)
	b = binary.BigEndian.AppendUint32(b, r.length)
	b = binary.BigEndian.AppendUint32(b, r.stream)
	b = binary.BigEndian.AppendUint32(b, r.leaf)
	return appendCheck(b, at)
}

// parse reads a record; false: it is damaged.
func (r *batchRecord) parse(b []byte) bool {
	if !checked(b, batchRecordSize) {
		return false
	}
	r.number = binary.BigEndian.Uint64(b)
	r.offset = binary.BigEndian.Uint64(b[8:])
	r.first = binary.BigEndian.Uint64(b[16:])
	r.from = int64(binary.BigEndian.Uint64(b[24:]))
	r.to = int64(binary.BigEndian.Uint64(b[32:]))
	r.count = binary.BigEndian.Uint32(b[40:])
	r.length = binary.BigEndian.Uint32(b[44:])
	r.stream = binary.BigEndian.Uint32(b[48:])
	r.leaf = binary.BigEndian.Uint32(b[52:])
	return true
}

func appendCheck(b []byte, from int) []byte {
	sum := sha256.Sum256(b[from:])
	return append(b, sum[:checkSize]...)
}

func checked(b []byte, size int) bool {
	if len(b) != size {
		return false
	}
	sum := sha256.Sum256(b[:size-checkSize])
	return [checkSize]byte(sum[:]) == [checkSize]byte(b[size-checkSize:])
}
