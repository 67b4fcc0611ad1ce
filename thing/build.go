package thing

import (
	"crypto/ed25519"
	"time"

	"carnet/ledger"
	"carnet/seal"
)

// frame is a frame on its way: built, then recorded, then sent.
type frame struct {
	link   *run
	number uint64
	row    SentRow
	wire   []byte
	grants []*epoch // whose' keys must be at the world first
}

// builder turns due lanes into a frame. Its memory is used for one frame after
// the other.
type builder struct {
	now time.Time

	bytes  []byte // the batches, one after the other
	ends   []int  // their lengths
	grants []*epoch

	batches [][]byte
	columns []byte
	body    []byte
	sealed  seal.Frame
	state   []byte
	touched []*course
}

func (b *builder) reset(now time.Time) {
	*b = builder{
		now: now, bytes: b.bytes[:0], ends: b.ends[:0], batches: b.batches[:0],
		columns: b.columns, body: b.body, sealed: b.sealed, state: b.state[:0], touched: b.touched[:0],
	}
}

func (b *builder) full() bool {
	return len(b.ends) >= maxFrameBatches || len(b.bytes) >= maxFrameBytes
}

// sign makes the frame of what the builder holds.
func (b *builder) sign(key ed25519.PrivateKey, h seal.FrameHeader) (wire []byte, err error) {
	rest := b.bytes
	for _, n := range b.ends {
		b.batches = append(b.batches, rest[:n:n])
		rest = rest[n:]
	}
	if err := b.sealed.Sign(key, h, b.batches); err != nil {
		return nil, err
	}
	return b.sealed.AppendWire(nil), nil
}

// build makes the next frame of everything that is due. It runs in one critical
// section with the policy, so that the view in force at the signature decides.
func (r *run) build(now time.Time) (*frame, error) {
	a, b := r.sender.agent, &r.builder
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	r.sender.mu.Lock()
	defer r.sender.mu.Unlock()
	b.reset(now)
	for !b.full() {
		l := r.popDue(now)
		if l == nil {
			break
		}
		r.held -= len(l.pending)
		if l.course.mapping.stopped {
			l.drop()
			continue
		}
		if open, until := l.course.mapping.maySend(now); !open {
			l.park(until)
			continue
		}
		if err := b.decide(l); err != nil {
			return nil, err
		}
		b.touched = append(b.touched, l.course)
	}
	r.moved = r.moved || len(b.touched) > 0
	if len(b.ends) == 0 && !r.owesProgress(now) {
		return nil, nil
	}
	for _, c := range b.touched {
		if c.marked != r.number+1 {
			c.marked = r.number + 1
			b.state = c.appendChange(b.state)
		}
	}
	header := seal.FrameHeader{
		Audience: r.sender.peer.Party, Incarnation: r.incarnation, Number: r.number + 1, Previous: r.parent,
		Policy: a.policyVersion, Time: now.UnixNano(), Covers: r.sender.sealPosition(r.covered()),
	}
	wire, err := b.sign(r.sender.peer.Key, header)
	if err != nil {
		return nil, err
	}
	return r.record(wire, header, now)
}

// record makes the frame's durable record.
func (r *run) record(wire []byte, h seal.FrameHeader, now time.Time) (*frame, error) {
	a, b := r.sender.agent, &r.builder
	hash := b.sealed.Hash()
	state, err := a.rest.Seal(nil, stateAAD(r.sender.peer.Party, h.Number), b.state)
	if err != nil {
		return nil, err
	}
	leaves := make([]byte, 0, 32*len(b.sealed.Leaves))
	for _, l := range b.sealed.Leaves {
		leaves = append(leaves, l[:]...)
	}
	item, err := a.state(ledger.Statement{
		Kind: ledger.SentRoot, Time: now.UnixNano(), Peer: r.sender.peer.Party, Frame: h.Number,
		Root: b.sealed.Root, Header: hash, PolicyVersion: h.Policy,
	})
	if err != nil {
		return nil, err
	}
	r.number, r.parent = h.Number, hash
	r.progress = now
	return &frame{
		link: r, number: h.Number, wire: wire, grants: append([]*epoch(nil), b.grants...),
		row: SentRow{
			Link: r.sender.peer.Party, Number: h.Number, Hash: hash, Time: now.UnixNano(), Policy: h.Policy,
			Batches: uint32(len(b.ends)), Header: append([]byte(nil), b.sealed.Sign1...), Leaves: leaves,
			State: state, Statement: item,
		},
	}, nil
}
