package sqlite

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"

	"carnet"
)

// SQLite zeroes a row that is deleted (secure_delete). But when it spreads the rows
// of a page over the page's neighbours, it leaves copies of those that moved in the
// page's gap, between the list of its rows and the first of them; and when such a row
// is deleted later, its copy stays. So gaps are zeroed here: they are looked for in the
// file itself, which is quick, and overwritten through SQLite.

// Of SQLite's file format: the types of pages that hold rows.
const (
	innerIndex = 2
	innerTable = 5
	leafIndex  = 10
	leafTable  = 13
)

const (
	// mostPages is how many pages a file may have: the first byte of a page of another
	// kind belongs to a page's number, and can't be taken for a type.
	mostPages  = innerIndex << 24
	sweepPages = 256 // are overwritten in one change
)

// gap returns the part of a page that holds nothing; nil of a page without rows.
func gap(number int64, page []byte) []byte {
	start := 0
	if number == 1 {
		start = 100 // the file's header
	}
	if len(page) < 512 {
		return nil
	}
	head := page[start:]
	list := 8
	switch head[0] {
	case leafIndex, leafTable:
	case innerIndex, innerTable:
		list = 12
	default:
		return nil
	}
	rows, first := int(binary.BigEndian.Uint16(head[3:])), int(binary.BigEndian.Uint16(head[5:]))
	if first == 0 {
		first = 1 << 16
	}
	from := start + list + 2*rows
	if from > first || first > len(page) {
		return nil
	}
	for i := range rows {
		if at := int(binary.BigEndian.Uint16(head[list+2*i:])); at < first || at >= len(page) {
			return nil
		}
	}
	return page[from:first]
}

var nothing [pageSize]byte

func zeros(b []byte) bool { return bytes.Equal(b, nothing[:len(b)]) }

// stale finds the pages of the file with something in their gaps. The caller sees to it
// that nobody writes to the file.
func (db *DB) stale() (numbers []int64, err error) {
	several := make([]byte, 256*pageSize)
	for at := int64(0); ; {
		n, err := db.file.ReadAt(several, at)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("look for what rows left: %w", err)
		}
		if at == 0 && n > 0 && (n < pageSize || binary.BigEndian.Uint16(several[16:]) != pageSize || binary.BigEndian.Uint32(several[52:]) != 0) {
			return nil, carnet.Errorf(carnet.Malformed, "the file has pages of another size than %d bytes, or is vacuumed automatically: what was deleted can't be overwritten", pageSize)
		}
		for page := range slices.Chunk(several[:n], pageSize) {
			number := at/pageSize + 1
			if number >= mostPages {
				return nil, carnet.Errorf(carnet.TooLarge, "the file has more pages than can be overwritten")
			}
			if !zeros(gap(number, page)) {
				numbers = append(numbers, number)
			}
			at += int64(len(page))
		}
		if err == io.EOF {
			return numbers, nil
		}
	}
}

// overwrite zeroes the gaps of pages as they are now. Meanwhile SQLite may have given
// a page another number: then it is in the log, since the caller sees to it that the log
// isn't moved. So the last change goes over the log's pages, too.
func (db *DB) overwrite(ctx context.Context, numbers []int64) error {
	for len(numbers) > sweepPages {
		if err := db.clearGaps(ctx, func() ([]int64, error) { return numbers[:sweepPages], nil }); err != nil {
			return err
		}
		numbers = numbers[sweepPages:]
	}
	return db.clearGaps(ctx, func() ([]int64, error) {
		logged, err := db.logged()
		return append(logged, numbers...), err
	})
}

// clearGaps zeroes the gaps of pages in one change, in which it asks which they are.
func (db *DB) clearGaps(ctx context.Context, which func() ([]int64, error)) error {
	return db.change(ctx, "overwrite what rows left", func(t *tx) error {
		numbers, err := which()
		if err != nil {
			return err
		}
		for _, number := range numbers {
			var page []byte
			if !t.row(`SELECT data FROM sqlite_dbpage WHERE pgno = $1`, []any{number}, &page) {
				continue // the file has become shorter, or t has failed
			}
			if g := gap(number, page); !zeros(g) {
				clear(g)
				t.exec(`UPDATE sqlite_dbpage SET data = $1 WHERE pgno = $2`, page, number)
			}
		}
		return nil
	})
}

// Of the log's format.
const (
	logHead   = 32
	frameHead = 24 // begins with the page's number
)

// logged lists the pages in the log, each once. The caller sees to it that nobody writes.
func (db *DB) logged() (numbers []int64, err error) {
	log, err := os.Open(db.path + "-wal")
	if err != nil {
		return nil, fmt.Errorf("read write-ahead log: %w", err)
	}
	defer log.Close()
	seen, head := make(map[int64]bool), make([]byte, 4)
	for at := int64(logHead); ; at += frameHead + pageSize {
		if _, err := log.ReadAt(head, at); err == io.EOF {
			return numbers, nil
		} else if err != nil {
			return nil, fmt.Errorf("read write-ahead log: %w", err)
		}
		if n := int64(binary.BigEndian.Uint32(head)); !seen[n] && n < mostPages {
			seen[n], numbers = true, append(numbers, n)
		}
	}
}
