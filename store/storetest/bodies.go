package storetest

import (
	"bytes"
	"context"
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/bodies"

	"golang.org/x/sync/errgroup"
)

// large makes a stretch whose body is no small one; n tells it apart, and which of
// tells two of the same bytes.
func large(n int, which byte) avatar.StretchRow {
	row := stretch(which, n, carnet.Day)
	row.Body = bytes.Repeat(append(awkward(), byte(n), byte(n>>8)), bodies.Large/256)
	row.Fingerprint = carnet.FingerprintOf(row.Body)
	return row
}

func testLargeBodies(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	edge, under := large(2, 1), large(3, 1)
	edge.Body = edge.Body[:bodies.Large]
	under.Body = under.Body[:bodies.Large-1]
	for _, row := range []*avatar.StretchRow{&edge, &under} {
		row.Fingerprint = carnet.FingerprintOf(row.Body)
	}
	rows := []avatar.StretchRow{large(0, 1), stretch(1, 1, carnet.Day), edge, under, large(4, 1), large(4, 2)}
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: rows}))
	total := 0
	for _, row := range rows {
		total += len(row.Body)
	}
	have := get(s.Unstored(ctx, 0, 9))(t)
	same(t, "listed", have, bare(rows, have))
	read := func(what string, i int) {
		t.Helper()
		same(t, what, get(s.StretchBody(ctx, have[i].ID))(t), rows[i].Body)
	}
	reopen := func() {
		close()
		s, close = db(t)
	}
	for range 2 {
		same(t, "totals", get(s.Totals(ctx))(t), avatar.Totals{Stretches: uint64(len(rows)), StretchBytes: uint64(total)})
		for i := range rows {
			read("body", i)
		}
		reopen()
	}
	// What fails leaves what is there, also of the same bytes.
	note := carnet.Document{Kind: "k", ID: "a", Version: 2, Body: []byte("x")}
	wantCode(t, s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{large(0, 2), large(9, 2)}, Documents: []carnet.Document{note}}), carnet.Conflict)
	read("body, after a failed change with its bytes", 0)
	// Two rows of the same bytes end one after the other.
	must(t, s.DropStretches(ctx, []uint64{have[4].ID}, nil, nil))
	read("body whose bytes ended with another row", 5)
	reopen()
	read("body whose bytes ended with another row, after a start", 5)
	must(t, s.DropStretches(ctx, []uint64{have[0].ID, have[1].ID, have[5].ID}, nil, nil))
	for _, i := range []int{0, 1, 4, 5} {
		_, err := s.StretchBody(ctx, have[i].ID)
		wantCode(t, err, carnet.NotFound)
	}
	must(t, s.Compact(ctx, avatar.Compaction{Stretches: rows[4:5]})) // they come again
	reopen()
	last := get(s.Unstored(ctx, have[5].ID, 9))(t)
	same(t, "bytes that came again", get(s.StretchBody(ctx, last[0].ID))(t), rows[4].Body)
	wantCode(t, s.RestoreStretch(ctx, last[0].ID+1, rows[4].Body), carnet.NotFound)
	must(t, s.RestoreStretch(ctx, last[0].ID, rows[4].Body))
	same(t, "restored", get(s.StretchBody(ctx, last[0].ID))(t), rows[4].Body)
	must(t, s.Overwrite(ctx))
	read("body at the edge", 2)
	read("body under the edge", 3)
	close()
}

// testSameBytes has two processes add and drop rows of the same bytes: what one
// drops isn't lost to the other.
func testSameBytes(t *testing.T, fresh Fresh[avatar.Store]) {
	ctx := t.Context()
	db := fresh(t)
	a, b := open(t, db), open(t, db)
	var work errgroup.Group
	for i, s := range []avatar.Store{a, b} {
		work.Go(func() error {
			row := large(1, byte(i))
			for range 20 {
				if err := comesAndGoes(ctx, s, row); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, work.Wait())
}

func comesAndGoes(ctx context.Context, s avatar.Store, row avatar.StretchRow) error {
	if err := s.Compact(ctx, avatar.Compaction{Stretches: []avatar.StretchRow{row}}); err != nil {
		return err
	}
	rows, err := s.StretchPage(ctx, row.Stream, 0, 1)
	if err != nil {
		return err
	}
	body, err := s.StretchBody(ctx, rows[0].ID)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, row.Body) {
		return carnet.Errorf(carnet.Tampered, "the body has %d other bytes", len(body))
	}
	return s.DropStretches(ctx, []uint64{rows[0].ID}, nil, nil)
}
