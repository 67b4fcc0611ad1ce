package avatar

import (
	"context"
	"encoding/binary"
	"slices"

	"carnet"
)

// stretchBody returns a stretch's bytes. A body that is lost or damaged here is
// fetched back from the depot by its fingerprint. errMoved: its retention has ended
// since it was listed.
func (a *Agent) stretchBody(ctx context.Context, row StretchRow) ([]byte, error) {
	body, err := a.store.StretchBody(ctx, row.ID)
	if err == nil && carnet.FingerprintOf(body) == row.Fingerprint {
		return body, nil
	}
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return nil, err
	}
	if there, err := a.hasStretch(ctx, row); err != nil {
		return nil, err
	} else if !there {
		return nil, errMoved
	}
	a.log.Warn("a stretch is lost or damaged here: fetching it from the depot", "stretch", row.ID, "fingerprint", row.Fingerprint)
	if body, err = a.depot.GetObject(ctx, row.Fingerprint); err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "a part of the history is lost here and the depot does not give it back: %v", err)
	}
	if carnet.FingerprintOf(body) != row.Fingerprint {
		return nil, carnet.Errorf(carnet.Tampered, "the depot gave other bytes than were stored there for %s", row.Fingerprint)
	}
	if err := a.store.RestoreStretch(ctx, row.ID, body); err != nil {
		a.log.Warn("a stretch that came back from the depot could not be put back", "stretch", row.ID, "err", err)
	}
	return body, nil
}

// hasStretch reports whether a stretch that was listed is still one of the store's.
func (a *Agent) hasStretch(ctx context.Context, row StretchRow) (bool, error) {
	rows, err := a.store.Stretches(ctx, row.Stream, row.FromMinute, row.ToMinute)
	return slices.ContainsFunc(rows, func(r StretchRow) bool { return r.ID == row.ID }), err
}

// origins says where a stretch's batches came from, and which measurements they
// hold. In bytes, unsigned LEB128:
//
//	first measurement, number after the last,
//	then per batch: number, frame id, leaf index
type origins struct {
	first, next uint64
	batches     []origin
}

type origin struct {
	number, frame uint64
	leaf          uint32
}

func (or *origins) append(b []byte) []byte {
	b = slices.Grow(b, 16*(1+len(or.batches)))
	b = binary.AppendUvarint(b, or.first)
	b = binary.AppendUvarint(b, or.next)
	for _, o := range or.batches {
		b = binary.AppendUvarint(b, o.number)
		b = binary.AppendUvarint(b, o.frame)
		b = binary.AppendUvarint(b, uint64(o.leaf))
	}
	return b
}

func parseOrigins(b []byte) (or origins, err error) {
	bad := false
	read := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	or.first, or.next = read(), read()
	for len(b) > 0 {
		or.batches = append(or.batches, origin{read(), read(), uint32(read())})
	}
	if bad {
		return or, carnet.Errorf(carnet.Tampered, "the origins of a stretch are damaged")
	}
	return or, nil
}
