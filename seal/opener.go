package seal

import (
	"fmt"
	"sync"

	"carnet"
)

// Opener opens batches of any stream and keeps the slots that it derived, up to
// a number. It may be used by many goroutines.
type Opener struct {
	lookup func(Header) (Key, bool)
	limit  int

	mu    sync.Mutex
	slots map[Path]*Slot // guarded by mu
}

// NewOpener makes an Opener that keeps at most limit slots. lookup finds the
// key of an epoch, slot or batch that covers a header; it is asked when no slot
// is at hand, without a lock held.
func NewOpener(limit int, lookup func(Header) (Key, bool)) (*Opener, error) {
	if limit < 1 || lookup == nil {
		return nil, fmt.Errorf("make opener: want a lookup and a limit of at least one slot, have %d", limit)
	}
	return &Opener{lookup: lookup, limit: limit, slots: make(map[Path]*Slot)}, nil
}

// Open appends the body of the batch to dst and returns the batch's header.
func (o *Opener) Open(dst, batch []byte) (Header, []byte, error) {
	h, protected, ciphertext, err := parseBatch(batch)
	if err != nil {
		return h, dst, err
	}
	secret, err := o.batchSecret(&h)
	if err != nil {
		return h, dst, err
	}
	dst, err = open(dst, &secret, &h, protected, ciphertext)
	return h, dst, err
}

func (o *Opener) batchSecret(h *Header) (secret [32]byte, err error) {
	at := Path{Level: SlotLevel, Stream: h.Stream, Epoch: h.Epoch, Slot: h.Slot}
	o.mu.Lock()
	slot := o.slots[at]
	o.mu.Unlock()
	if slot == nil {
		k, ok := o.lookup(*h)
		if !ok {
			return secret, carnet.Errorf(carnet.NotFound, "no key opens batch %d of stream %s, epoch %s, slot %d", h.Number, h.Stream, h.Epoch, h.Slot)
		}
		if !k.Covers(*h) {
			return secret, notCovered(k.Path, *h)
		}
		if k.Level == BatchLevel {
			return k.Secret, nil
		}
		if slot, err = k.Slot(h.Slot); err != nil {
			return secret, err
		}
		o.keep(at, slot)
	}
	return batchSecret(&slot.key.Secret, h.Number, &h.Salt), nil
}

// keep makes room by dropping any slot: deriving it again costs a microsecond.
func (o *Opener) keep(at Path, slot *Slot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for old := range o.slots {
		if len(o.slots) < o.limit {
			break
		}
		delete(o.slots, old)
	}
	o.slots[at] = slot
}

// Forget drops every slot of the stream, after its keys were destroyed. An Open
// that runs meanwhile may still have found one: forget after the lookup no
// longer answers, and when those calls have returned.
func (o *Opener) Forget(stream carnet.StreamID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for at := range o.slots {
		if at.Stream == stream {
			delete(o.slots, at)
		}
	}
}
