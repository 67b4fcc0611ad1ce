package thing

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"carnet"
	"carnet/keys"
)

// What rests in the agent's store is sealed: messages under their thing's key of
// the day, everything else under the agent's one key for its documents. The
// associated data says where a value belongs.

var (
	restKey      = keys.ID{Kind: "rest", Name: "things"}
	statementAAD = []byte("statement")
	saltAAD      = []byte("salt")
)

func documentAAD(kind, id string) []byte { return []byte("document " + kind + " " + id) }

func stateAAD(link carnet.PartyID, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("sent "+string(link)+" "), number)
}

func snapshotAAD(link carnet.PartyID, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("snapshot "+string(link)+" "), number)
}

func refusalAAD(thing carnet.ThingID) []byte { return []byte("refusal " + string(thing)) }

// restSealer opens the agent's sealer, and makes its key at the first start.
func restSealer(ctx context.Context, table *keys.Table) (*keys.Sealer, error) {
	s, err := table.Sealer(ctx, restKey)
	if carnet.CodeOf(err) != carnet.NotFound {
		return s, err
	}
	if _, err := table.Make(ctx, restKey); err != nil {
		return nil, err
	}
	return table.Sealer(ctx, restKey)
}

const nanosPerDay = int64(24 * time.Hour)

func dayOf(t int64) uint32  { return uint32(t / nanosPerDay) }
func hourOf(t int64) uint32 { return uint32(t / int64(time.Hour)) }

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

// dayKeys makes and finds the things' keys of the day.
type dayKeys struct {
	table *keys.Table

	mu   sync.Mutex
	held map[dayKeyID]*dayKey // bounded: emptied when it is full
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

func (d *dayKeys) get(ctx context.Context, id dayKeyID) (*dayKey, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.held[id]; k != nil {
		return k, nil
	}
	secret, err := d.table.Get(ctx, id.key())
	if err != nil {
		return nil, err
	}
	return d.hold(id, secret)
}

// make returns the key, and draws and stores it where there is none.
func (d *dayKeys) make(ctx context.Context, id dayKeyID) (*dayKey, error) {
	k, err := d.get(ctx, id)
	if carnet.CodeOf(err) != carnet.NotFound {
		return k, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.held[id]; k != nil {
		return k, nil
	}
	made, err := d.table.Make(ctx, id.key())
	if err != nil {
		return nil, err
	}
	return d.hold(id, made[0][:])
}

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
