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
	grants []*epoch  // whose' keys must be at the world first
	until  time.Time // when it may not leave any more; zero: it always may
}

// builder turns due lanes into a frame. Its memory is used for one frame after
// the other.
type builder struct {
	now   time.Time
	limit int // bytes of batches from which on a frame is full

	bytes  []byte // the batches, one after the other
	ends   []int  // their lengths
	grants []*epoch
	stages []stage   // by class; empty between lanes
	until  time.Time // the first of the lanes' ends of the time to send
	staged int       // bytes in stages

	batches [][]byte
	columns []byte
	body    []byte
	sealed  seal.Frame
	state   []byte
}

func (b *builder) reset(now time.Time) {
	b.now, b.until = now, time.Time{}
	b.bytes, b.ends, b.grants, b.batches, b.state = b.bytes[:0], b.ends[:0], b.grants[:0], b.batches[:0], b.state[:0]
}

func (b *builder) full() bool {
	return len(b.ends) >= maxFrameBatches || len(b.bytes)+b.staged >= b.limit
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

// build makes the next frame of everything that is due, or none when nothing is
// to be said. It runs in one critical section with the policy, so that the view
// in force at the signature decides.
func (r *run) build(now time.Time) (*frame, error) {
	a, b := r.sender.agent, &r.builder
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notice()
	b.reset(now)
	prompt, err := r.decideDue(now)
	if err != nil {
		return nil, err
	}
	if len(b.ends) == 0 && !r.owesProgress(now) {
		return nil, nil
	}
	if prompt {
		r.prompt.Store(now.UnixNano())
	}
	for _, c := range r.touched {
		c.touched, c.recorded, c.frame = false, true, r.number+1
		b.state = c.appendChange(b.state)
	}
	r.touched = r.touched[:0]
	covered := r.covered()
	header := seal.FrameHeader{
		Audience: r.sender.peer.OwnName, Incarnation: r.incarnation, Number: r.number + 1, Previous: r.parent,
		Policy: a.policyVersions[r.sender.peer.Party], Time: now.UnixNano(), Covers: r.sender.sealPosition(covered),
	}
	wire, err := b.sign(r.sender.peer.Key, header)
	if err != nil {
		return nil, err
	}
	f, err := r.record(wire, header, now)
	if err == nil {
		r.told = covered
		r.sender.built(f.number, covered)
		r.frames.Add(1) // under the policy lock: a change of the policy finds it
		r.bytes.Add(int64(len(f.wire)))
	}
	return f, err
}

// decideDue takes what is due off its lanes until the frame is full, and reports
// whether any of it may not wait.
func (r *run) decideDue(now time.Time) (prompt bool, err error) {
	b := &r.builder
	for !b.full() {
		q := r.due(now)
		if q == nil {
			return prompt, nil
		}
		prompt = prompt || q == r.queues[0]
		l := q.lanes[0]
		m := l.course.mapping
		r.held -= l.weight
		if m.stopped {
			l.drop()
		} else if m.held > 0 {
			l.park(time.Time{})
			r.parked = append(r.parked, l)
		} else if open, until := m.maySend(now); !open {
			l.park(until)
			r.parked = append(r.parked, l)
		} else if err := b.decide(l); err != nil {
			return prompt, err
		} else {
			if b.until.IsZero() || !until.IsZero() && until.Before(b.until) {
				b.until = until
			}
			r.touch(l.course)
		}
		r.held += l.weight
		if len(l.pending) == 0 {
			q.pop()
		}
	}
	return prompt, nil
}

// touch has the course's state recorded with the next frame.
func (r *run) touch(c *course) {
	if !c.touched {
		c.touched = true
		r.touched = append(r.touched, c)
	}
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
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.SentRoot, Time: now.UnixNano(), Peer: r.sender.peer.Party, Frame: h.Number,
		Root: b.sealed.Root, Header: hash, PolicyVersion: h.Policy,
	})
	if err != nil {
		return nil, err
	}
	r.number, r.parent = h.Number, hash
	r.progress = now
	return &frame{
		link: r, number: h.Number, wire: wire, until: b.until, grants: append([]*epoch(nil), b.grants...),
		row: SentRow{
			Link: r.sender.peer.Party, Number: h.Number, Hash: hash, Time: now.UnixNano(), Policy: h.Policy,
			Batches: uint32(len(b.ends)), Header: append([]byte(nil), b.sealed.Sign1...), Leaves: leaves,
			State: state, Statement: item,
		},
	}, nil
}
