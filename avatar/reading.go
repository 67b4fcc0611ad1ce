package avatar

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"carnet"
	"carnet/seal"
)

// span is a range of measured minutes, both included.
type span struct{ from, to int64 }

var ever = span{everFrom, everTo}

// reading goes through a stream's batches in the order of their numbers, wherever
// each lies now: in a stretch, or in a frame that isn't compacted.
type reading struct {
	agent   *Agent
	opening opening
	minutes span // batches without any of these minutes are passed over; may shrink meanwhile

	stream *stream
	batch  uint64 // the least number to hand over next
	from   uint64 // measurements with lesser numbers are passed over

	lost  uint64 // the frame that wasn't where the index said
	ended error  // why the last batch that was passed over can't be opened
}

// start makes r a reading of a stream from a batch and a measurement on.
func (r *reading) start(s *stream, batch, from uint64) {
	r.stream, r.batch, r.from, r.lost = s, batch, from, 0
}

// errMoved says that a batch has moved from its frame into a stretch, or a
// stretch was dropped, since the parts were listed.
var errMoved = errors.New("a batch has moved meanwhile")

// errEnough ends a reading before its end.
var errEnough = errors.New("enough was read")

// readBatch is a batch as a reading hands it over: good until the next.
type readBatch struct {
	bytes        []byte  // as it was received
	at           batchAt // in which frame it was received
	header       seal.Header
	body         seal.Body
	first        uint64 // the number of the first of measurements
	measurements []carnet.Measurement
}

// end is the number of the measurement after the last.
func (b *readBatch) end() uint64 { return b.first + uint64(len(b.measurements)) }

// each hands over the batches with what is wanted of their measurements. What has
// moved is in a stretch, and not in the index any more: the next pass finds it.
func (r *reading) each(ctx context.Context, do func(readBatch) error) error {
	for {
		if err := r.pass(ctx, do); !errors.Is(err, errMoved) {
			return err
		}
	}
}

// part is a run of the stream's batches that lie together, with the next one's
// number.
type part interface {
	number() (uint64, bool)
	// at says where it was received.
	at() batchAt
	// next returns the next batch's bytes and goes on; nil: it isn't wanted.
	next(ctx context.Context, r *reading) ([]byte, error)
}

// pass lists the parts and merges them: the stretches of different retention
// classes interleave.
func (r *reading) pass(ctx context.Context, do func(readBatch) error) error {
	// The tail is taken first: what is compacted meanwhile is in both.
	a := r.agent
	a.mu.RLock()
	parts := []part{&tailPart{refs: slices.Clone(r.stream.waiting())}}
	a.mu.RUnlock()
	rows, err := a.store.Stretches(ctx, r.stream.id, r.minutes.from, r.minutes.to)
	if err != nil {
		return err
	}
	for {
		least := -1
		for i := 0; i < len(parts); {
			n, ok := parts[i].number()
			if !ok {
				parts = slices.Delete(parts, i, i+1)
				continue
			}
			if least < 0 || n < lesser(parts[least]) {
				least = i
			}
			i++
		}
		if len(rows) > 0 && (least < 0 || rows[0].FirstBatch <= lesser(parts[least])) {
			p, err := r.stretch(ctx, rows[0])
			if err != nil {
				return err
			}
			if rows = rows[1:]; p != nil {
				parts = append(parts, p)
			}
			continue
		}
		if least < 0 {
			return nil
		}
		n, at := lesser(parts[least]), parts[least].at()
		batch, err := parts[least].next(ctx, r)
		if err != nil {
			return err
		}
		if n < r.batch || batch == nil {
			continue
		}
		r.batch = n + 1
		if err := r.open(ctx, batch, at, do); err != nil {
			return err
		}
	}
}

func lesser(p part) uint64 {
	n, _ := p.number()
	return n
}

// open opens a batch and hands over what is wanted of it. One whose key is
// destroyed is passed over; ended says why, if that is known.
func (r *reading) open(ctx context.Context, batch []byte, at batchAt, do func(readBatch) error) error {
	h, b, err := r.agent.open(ctx, &r.opening, batch, 0)
	switch carnet.CodeOf(err) {
	case carnet.NotFound:
		return nil
	case carnet.TooOld:
		r.ended = err
		return nil
	}
	if f := r.agent.formerOf(r.stream.id); f != nil {
		if why := r.agent.unfit(h, b, len(r.opening.measurements), err); why != nil {
			r.agent.log.Debug("a batch that came with a move is passed over", "why", why)
			return nil
		}
	}
	if err != nil {
		return err
	}
	ms, first := r.opening.measurements, b.First
	if first < r.from {
		skip := min(r.from-first, uint64(len(ms)))
		ms, first = ms[skip:], first+skip
	}
	if len(ms) == 0 {
		return nil
	}
	return do(readBatch{batch, at, h, b, first, ms})
}

// tailPart is what of a stream isn't compacted.
type tailPart struct {
	refs []batchRef
	row  FrameRow // the last one read
}

func (p *tailPart) number() (uint64, bool) {
	if len(p.refs) == 0 {
		return 0, false
	}
	return p.refs[0].number, true
}

func (p *tailPart) at() batchAt { return p.refs[0].batchAt }

func (p *tailPart) next(ctx context.Context, r *reading) ([]byte, error) {
	ref := p.refs[0]
	p.refs = p.refs[1:]
	if ref.number < r.batch || ref.toMinute < r.minutes.from || ref.fromMinute > r.minutes.to ||
		ref.count > 0 && ref.first+uint64(ref.count) <= r.from {
		return nil, nil
	}
	if p.row.ID != ref.frame {
		rows, err := r.agent.store.Frames(ctx, ref.frame-1, 1)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 || rows[0].ID != ref.frame {
			if r.lost == ref.frame {
				return nil, carnet.Errorf(carnet.Tampered, "frame with id %d, of which batches are kept, is not in the store", ref.frame)
			}
			r.lost = ref.frame
			return nil, errMoved
		}
		p.row = rows[0]
	}
	if int(ref.to) > len(p.row.Body) {
		return nil, carnet.Errorf(carnet.Tampered, "frame %d of %s is shorter than it was", p.row.Number, p.row.Sender)
	}
	return p.row.Body[ref.from:ref.to], nil
}

// stretchPart is an opened stretch.
type stretchPart struct {
	batches []origin
	body    []byte
}

// stretch opens a stretch; nil: nothing of it is wanted.
func (r *reading) stretch(ctx context.Context, row StretchRow) (part, error) {
	if row.LastBatch < r.batch || row.FromMinute > r.minutes.to {
		return nil, nil
	}
	or, err := parseOrigins(row.Origins)
	if err != nil {
		return nil, err
	}
	if or.next <= r.from {
		return nil, nil
	}
	body, err := r.agent.stretchBody(ctx, row)
	if err != nil {
		return nil, err
	}
	return &stretchPart{or.batches, body}, nil
}

func (p *stretchPart) number() (uint64, bool) {
	if len(p.batches) == 0 {
		return 0, false
	}
	return p.batches[0].number, true
}

func (p *stretchPart) at() batchAt { return batchAt{p.batches[0].frame, p.batches[0].leaf} }

func (p *stretchPart) next(context.Context, *reading) ([]byte, error) {
	if len(p.body) < 4 || uint64(len(p.body)-4) < uint64(binary.BigEndian.Uint32(p.body)) {
		return nil, carnet.Errorf(carnet.Tampered, "a stretch has less batches than its origins say")
	}
	end := 4 + int(binary.BigEndian.Uint32(p.body))
	batch := p.body[4:end:end]
	p.batches, p.body = p.batches[1:], p.body[end:]
	return batch, nil
}
