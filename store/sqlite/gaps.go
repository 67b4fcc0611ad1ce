package sqlite

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
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
		if at == 0 && n > 0 && (n < pageSize || binary.BigEndian.Uint16(several[16:]) != pageSize) {
			return nil, carnet.Errorf(carnet.Malformed, "the file has pages of another size than %d bytes: what was deleted can't be overwritten", pageSize)
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

// overwrite zeroes the gaps of pages as they are now.
func (db *DB) overwrite(ctx context.Context, numbers []int64) error {
	for some := range slices.Chunk(numbers, sweepPages) {
		err := db.change(ctx, "overwrite what rows left", func(t *tx) error {
			for _, number := range some {
				var page []byte
				t.row(`SELECT data FROM sqlite_dbpage WHERE pgno = $1`, []any{number}, &page)
				clear(gap(number, page))
				t.exec(`UPDATE sqlite_dbpage SET data = $1 WHERE pgno = $2`, page, number)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
