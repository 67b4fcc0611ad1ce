package dpm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"sync"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/keys"
	"carnet/seal"
)

// kindJob is the kind of jobs' keys in the key table, kindReception that of the
// reception keys.
const (
	kindJob       = "job"
	kindReception = "reception"
)

// Reception keys are announced for a day, and each is destroyed a day later: by then
// every job whose bags are sealed to it is over.
const (
	receptionLife = 24 * time.Hour
	receptionOver = capsule.Longest + time.Hour
)

// jobKeys is under which name a job's keys rest. Names are of one length, so that one
// job's never begin as another's.
func jobKeys(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return hex.EncodeToString(sum[:16]) + "/"
}

// putKeys keeps the keys of opened bags under a job's name.
func putKeys(ctx context.Context, table *keys.Table, ref string, bags []*seal.Bag) error {
	var entries []keys.Entry
	for _, b := range bags {
		for i := range b.Entries {
			k := &b.Entries[i].Key
			entries = append(entries, keys.Entry{ID: keys.ID{Kind: kindJob, Name: jobKeys(ref) + k.Path.String()}, Secret: k.Secret[:]})
		}
	}
	return table.Put(ctx, entries...)
}

// keysOf returns a job's keys.
func keysOf(ctx context.Context, table *keys.Table, ref string) (all []seal.Key, err error) {
	prefix := jobKeys(ref)
	ids, err := table.List(ctx, kindJob, prefix)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		at, err := seal.ParsePath(id.Name[len(prefix):])
		if err != nil {
			return nil, err
		}
		secret, err := table.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		if len(secret) != 32 {
			return nil, carnet.Errorf(carnet.Tampered, "the key of %s has %d bytes", at, len(secret))
		}
		all = append(all, seal.Key{Path: at, Secret: [32]byte(secret)})
		clear(secret)
	}
	return all, nil
}

// destroyKeys destroys a job's keys.
func destroyKeys(ctx context.Context, table *keys.Table, ref string) error {
	ids, err := table.List(ctx, kindJob, jobKeys(ref))
	if err != nil || len(ids) == 0 {
		return err
	}
	return table.Destroy(ctx, ids...)
}

// destroyStrayKeys destroys what a crash left of jobs that aren't there.
func destroyStrayKeys(ctx context.Context, table *keys.Table, needed map[string]bool) error {
	ids, err := table.List(ctx, kindJob, "")
	if err != nil {
		return err
	}
	var stray []keys.ID
	for _, id := range ids {
		if prefix := 2*16 + 1; len(id.Name) < prefix || !needed[id.Name[:prefix]] {
			stray = append(stray, id)
		}
	}
	if len(stray) == 0 {
		return nil
	}
	return table.Destroy(ctx, stray...)
}

// receptions are the keys to which worlds seal bags: a new one at each start and each
// day.
type receptions struct {
	table *keys.Table
	now   func() time.Time

	mu     sync.Mutex // guards what follows
	all    map[carnet.Fingerprint]reception
	newest carnet.Fingerprint
}

type reception struct {
	key      *seal.ReceptionKey
	notAfter time.Time // as it is announced
}

// openReceptions takes the keys that are in the table, and draws a new one.
func openReceptions(ctx context.Context, table *keys.Table, now func() time.Time) (*receptions, error) {
	r := &receptions{table: table, now: now, all: make(map[carnet.Fingerprint]reception)}
	ids, err := table.List(ctx, kindReception, "")
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		row, err := table.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		if len(row) < 8 {
			return nil, carnet.Errorf(carnet.Tampered, "the reception key %s is cut off", id.Name)
		}
		key, err := seal.ParseReceptionKey(row[8:])
		if err != nil {
			return nil, err
		}
		r.all[key.ID()] = reception{key, time.Unix(int64(binary.BigEndian.Uint64(row)), 0).UTC()}
	}
	if err := r.turn(ctx); err != nil {
		return nil, err
	}
	return r, r.destroyOver(ctx)
}

// turn draws a new key.
func (r *receptions) turn(ctx context.Context) error {
	key, err := seal.NewReceptionKey()
	if err != nil {
		return err
	}
	secret, err := key.Bytes()
	if err != nil {
		return err
	}
	defer clear(secret)
	notAfter := r.now().Add(receptionLife).UTC().Truncate(time.Second)
	row := append(binary.BigEndian.AppendUint64(nil, uint64(notAfter.Unix())), secret...)
	if err := r.table.Put(ctx, keys.Entry{ID: receptionID(key.ID()), Secret: row}); err != nil {
		return err
	}
	r.mu.Lock()
	r.all[key.ID()], r.newest = reception{key, notAfter}, key.ID()
	r.mu.Unlock()
	return nil
}

func receptionID(f carnet.Fingerprint) keys.ID { return keys.ID{Kind: kindReception, Name: f.String()} }

// destroyOver destroys the keys that no bag needs any more.
func (r *receptions) destroyOver(ctx context.Context) error {
	now := r.now()
	isOver := func(_ carnet.Fingerprint, k reception) bool { return !now.Before(k.notAfter.Add(receptionOver)) }
	r.mu.Lock()
	var over []keys.ID
	for id, k := range r.all {
		if isOver(id, k) {
			over = append(over, receptionID(id))
		}
	}
	r.mu.Unlock()
	if len(over) == 0 {
		return nil
	}
	if err := r.table.Destroy(ctx, over...); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.all, isOver)
	return nil
}

// due reports whether the newest is about to be over.
func (r *receptions) due() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.now().Before(r.all[r.newest].notAfter.Add(-time.Hour))
}

func (r *receptions) present() reception {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[r.newest]
}

// open opens a bag that is sealed to one of the keys.
func (r *receptions) open(sealed []byte, want seal.Expected) (*seal.Bag, error) {
	id, err := seal.BagReception(sealed)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	k, ok := r.all[id]
	r.mu.Unlock()
	if !ok {
		return nil, carnet.Errorf(carnet.NotFound, "the key bag is sealed to a reception key that this DPM doesn't have").
			WithFix("it is another DPM's, or over: ask for the present one, and order anew")
	}
	want.Now = r.now()
	return k.key.OpenBag(sealed, want)
}
