package faults_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"carnet"
	"carnet/store/sqlite"
)

// structure marks what SQLite itself writes into its pages beside the contents of
// columns: where a page's cells are, and how long rows and columns are. Stores with
// rows of the same lengths have runs of these in common, which say nothing of what
// is in them. Of the log's index, which has nothing but numbers of pages, it marks
// everything. (https://sqlite.org/fileformat2.html)
func structure(name string, b []byte) []bool {
	marked := make([]bool, len(b))
	var page, first, head int // a page's length, where the first is, and what is before each
	switch {
	case strings.HasSuffix(name, ".db-shm"):
		mark(marked, 0, len(b))
	case strings.HasSuffix(name, ".db") && len(b) >= 100:
		page = int(binary.BigEndian.Uint16(b[16:]))
	case strings.HasSuffix(name, ".db-wal") && len(b) >= 32:
		page, first, head = int(binary.BigEndian.Uint32(b[8:])), 32, 24
	}
	for at := first + head; page > 0 && at+page <= len(b); at += head + page {
		start := 0
		if at == 0 {
			start = 100 // the file's header
		}
		markPage(b[at:at+page], start, marked[at:at+page])
	}
	return marked
}

// The kinds of pages that have cells.
const (
	indexInterior = 2
	tableInterior = 5
	indexLeaf     = 10
	tableLeaf     = 13
)

// markPage marks the structure of one page whose header is at start.
func markPage(p []byte, start int, marked []bool) {
	kind, length := p[start], 8
	switch kind {
	case indexInterior, tableInterior:
		length = 12
	case indexLeaf, tableLeaf:
	default:
		return
	}
	cells := int(binary.BigEndian.Uint16(p[start+3:]))
	pointers := start + length
	mark(marked, start, pointers+2*cells)
	for i := pointers; i+2 <= min(pointers+2*cells, len(p)); i += 2 {
		cell := int(binary.BigEndian.Uint16(p[i:]))
		mark(marked, cell, cellHead(p, cell, kind))
	}
}

// cellHead returns where the head of a cell ends: the page below, the lengths of
// row and columns, the row's number.
func cellHead(p []byte, at int, kind byte) int {
	switch kind {
	case tableInterior:
		_, at = varint(p, at+4)
		return at
	case indexInterior:
		at += 4
	}
	_, at = varint(p, at) // the row's length
	if kind == tableLeaf {
		_, at = varint(p, at) // its number
	}
	n, _ := varint(p, at) // the length of the columns' lengths, itself included
	return at + int(min(n, uint64(len(p))))
}

// varint reads SQLite's number of 1 to 9 bytes, and returns where it ends.
func varint(p []byte, at int) (n uint64, end int) {
	for i := range 9 {
		if at+i >= len(p) {
			break
		}
		c := p[at+i]
		if i == 8 {
			return n<<8 | uint64(c), at + 9
		}
		if n = n<<7 | uint64(c&0x7f); c < 0x80 {
			return n, at + i + 1
		}
	}
	return n, len(p)
}

func mark(marked []bool, from, to int) {
	for i := from; i < min(to, len(marked)); i++ {
		marked[i] = true
	}
}

// TestSearch: what two databases share is found wherever a row has it, and what
// SQLite writes beside rows of the same lengths isn't taken for it.
func TestSearch(t *testing.T) {
	r := random(t)
	secret := make([]byte, window)
	for i := range secret {
		secret[i] = byte(1 + r.IntN(255))
	}
	// Rows of the same lengths in both, which fill pages of every kind.
	lengths := make([]int, 150)
	for i := range lengths {
		lengths[i] = 20 + r.IntN(1500)
	}
	database := func(planted int, closed bool) store {
		dir := t.TempDir()
		db, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		closes := sync.OnceFunc(func() { db.Close() })
		defer closes()
		rows, err := db.Worlds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range lengths {
			body := make([]byte, n)
			for i := range body {
				body[i] = byte(r.Uint32())
			}
			if i == planted {
				copy(body[r.IntN(n-window+1):], secret)
			}
			d := carnet.Document{Kind: "avatar", ID: fmt.Sprintf("%016x", r.Uint64()), Version: 1, Body: body}
			if err := rows.Put(t.Context(), []carnet.Document{d}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if closed {
			closes() // the log goes into the file
		}
		return readStore(t, dir)
	}
	nothing := database(-1, false).windows()
	for range 3 {
		planted := r.IntN(len(lengths))
		one, other := database(planted, false), database(r.IntN(len(lengths)), true)
		var found bool
		for _, run := range one.shared(other.windows(), nothing) {
			if !bytes.Contains(run.bytes, secret) {
				t.Errorf("% x is shared, in %s at %d", run.bytes, run.file, run.offset)
			}
			found = true
		}
		if !found {
			t.Errorf("what is planted in row %d isn't found", planted)
		}
	}
}
