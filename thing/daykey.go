package thing

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"sync"

	"carnet"
	"carnet/keys"
)

// dayKey seals one thing's messages of one day.
type dayKey struct{ aead cipher.AEAD }

func newDayKey(secret []byte) (*dayKey, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &dayKey{aead}, err
}

func (k *dayKey) SealedLen(n int) int { return n + k.aead.Overhead() }

func (k *dayKey) Seal(dst, aad, plaintext []byte) []byte {
	return k.aead.Seal(dst, nil, plaintext, aad)
}

func (k *dayKey) Open(dst, aad, sealed []byte) ([]byte, error) {
	return k.aead.Open(dst, nil, sealed, aad)
}

// dayKeys makes and finds the things' keys of the day. Keys that are wanted while
// others are being stored are stored together after them: at midnight every
// thing wants one.
type dayKeys struct {
	table *keys.Table

	making sync.Mutex // held by the leader of the round that is being stored

	mu    sync.Mutex
	held  map[dayKeyID]*dayKey // bounded: emptied when it is full
	round *keyRound            // the one that still takes ids; nil: none
}

// keyRound is a number of keys that become durable together. Who begins it leads
// it.
type keyRound struct {
	ids  []dayKeyID
	made []*dayKey // as ids, once done is closed without an error
	err  error
	done chan struct{}
}

type dayKeyID struct{ thing, day uint32 }

// maxDayKeys bounds how many keys are held ready.
const maxDayKeys = 1 << 16

func (d *dayKeys) init(table *keys.Table) {
	d.table, d.held = table, make(map[dayKeyID]*dayKey)
}

func (id dayKeyID) key() keys.ID {
	return keys.ID{Kind: "thing-day", Name: fmt.Sprintf("%d/%d", id.thing, id.day)}
}

// get returns a key that was made; carnet.NotFound if it wasn't. Nobody waits while
// it is read.
func (d *dayKeys) get(ctx context.Context, id dayKeyID) (*dayKey, error) {
	d.mu.Lock()
	k := d.held[id]
	d.mu.Unlock()
	if k != nil {
		return k, nil
	}
	secret, err := d.table.Get(ctx, id.key())
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hold(id, secret)
}

// make returns the key, and draws and stores it where there is none. Nobody asks
// for the same key twice at once: the caller holds the thing's mutex.
func (d *dayKeys) make(ctx context.Context, id dayKeyID) (*dayKey, error) {
	k, err := d.get(ctx, id)
	if carnet.CodeOf(err) != carnet.NotFound {
		return k, err
	}
	d.mu.Lock()
	r, place := d.round, 0
	if leads := r == nil; leads {
		r = &keyRound{ids: []dayKeyID{id}, done: make(chan struct{})}
		d.round = r
		d.mu.Unlock()
		d.lead(ctx, r)
	} else {
		place = len(r.ids)
		r.ids = append(r.ids, id)
		d.mu.Unlock()
		<-r.done
	}
	if r.err != nil {
		return nil, r.err
	}
	return r.made[place], nil
}

// lead stores a round's keys, once the round before is stored.
func (d *dayKeys) lead(ctx context.Context, r *keyRound) {
	d.making.Lock()
	defer d.making.Unlock()
	defer close(r.done)
	d.mu.Lock()
	d.round = nil // whoever comes now is for the next
	d.mu.Unlock()
	ids := make([]keys.ID, len(r.ids))
	for i, id := range r.ids {
		ids[i] = id.key()
	}
	var secrets [][32]byte
	if secrets, r.err = d.table.Make(ctx, ids...); r.err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r.made = make([]*dayKey, len(r.ids))
	for i, id := range r.ids {
		if r.made[i], r.err = d.hold(id, secrets[i][:]); r.err != nil {
			return
		}
	}
}

// hold keeps a key ready. The caller holds mu.
func (d *dayKeys) hold(id dayKeyID, secret []byte) (*dayKey, error) {
	k, err := newDayKey(secret)
	clear(secret)
	if err != nil {
		return nil, err
	}
	if len(d.held) >= maxDayKeys {
		clear(d.held)
	}
	d.held[id] = k
	return k, nil
}

// dayKey returns the key that the thing's messages of a day are sealed under;
// the caller holds the thing's mutex.
func (a *Agent) dayKey(t *Thing, day uint32) (*dayKey, error) {
	if t.today.key == nil || t.today.day != day {
		k, err := a.days.make(context.Background(), dayKeyID{t.number, day})
		if err != nil {
			return nil, err
		}
		t.today.day, t.today.key = day, k
	}
	return t.today.key, nil
}

func (a *Agent) oldDayKey(ctx context.Context, t *Thing, day uint32) (*dayKey, error) {
	return a.days.get(ctx, dayKeyID{t.number, day})
}
