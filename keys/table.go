package keys

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"carnet"
)

// Config says what a Table needs.
type Config struct {
	KEK   KEK   // wraps the table key
	Store Store // keeps the rows
	Cache int   // keys kept unwrapped in memory; 0: 65,536
}

// Table is a party's key table. It may be used by many goroutines of the one
// process that owns it.
type Table struct {
	store Store
	limit int

	// writing is held by whoever changes rows, for one change.
	writing sync.Mutex
	kek     KEK // guarded by writing

	rotating sync.Mutex // held for a rotation; before writing

	// reading is held shared from reading a row until its key is in the cache,
	// so that whoever holds it alone knows that no key of a row that was there
	// before comes up again.
	reading sync.RWMutex

	mu        sync.Mutex
	tableKeys map[uint32]tableKey // by generation; changed under writing and mu
	newest    uint32              // generation that wraps new rows; likewise
	cache     map[ID][]byte       // guarded by mu
	doomed    *destruction        // waits for writing; guarded by mu
}

// destruction is what is destroyed at once: overwriting what rows left takes as long for
// one key as for a thousand.
type destruction struct {
	ids  []ID // guarded by Table.mu until it begins
	done bool // guarded by Table.writing
	err  error
}

// tableKey wraps rows. With random nonces it may wrap 2^32 of them (NIST SP
// 800-38D §8.3) before Rotate must replace it.
type tableKey struct {
	secret [32]byte
	aead   cipher.AEAD
}

// Entry is a key to be put in the table.
type Entry struct {
	ID     ID
	Secret []byte // 1 byte to 16 KiB
}

// Create makes a table in an empty store, with a fresh table key.
func Create(ctx context.Context, cfg Config) (*Table, error) {
	t, err := newTable(cfg)
	if err != nil {
		return nil, err
	}
	rows, err := cfg.Store.Page(ctx, ID{}, 1)
	if err != nil {
		return nil, fmt.Errorf("read key table: %w", err)
	}
	if len(rows) > 0 {
		return nil, carnet.Errorf(carnet.Conflict, "the store has a key table already").WithFix("open it")
	}
	var secret [32]byte
	rand.Read(secret[:])
	row, err := wrapTableKey(ctx, cfg.KEK, 1, secret)
	if err != nil {
		return nil, err
	}
	if err := cfg.Store.Put(ctx, fenceOf(0), []Row{row}); err != nil {
		return nil, fmt.Errorf("store table key: %w", err)
	}
	return t, t.useTableKey(1, secret)
}

// Open opens a table that Create made. It refuses a KEK that is not the
// table's.
func Open(ctx context.Context, cfg Config) (*Table, error) {
	t, err := newTable(cfg)
	if err != nil {
		return nil, err
	}
	if err := t.loadTableKeys(ctx); err != nil {
		return nil, err
	}
	if len(t.tableKeys) == 0 {
		return nil, carnet.Errorf(carnet.NotFound, "the store has no key table").WithFix("create one, if the store is new")
	}
	return t, nil
}

func newTable(cfg Config) (*Table, error) {
	if cfg.KEK == nil || cfg.Store == nil || cfg.Cache < 0 {
		return nil, fmt.Errorf("make key table: want a KEK, a store and a cache of 0 or more keys")
	}
	if id := cfg.KEK.ID(); id == "" || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		return nil, fmt.Errorf("make key table: %q can't be the id of a KEK", id)
	}
	if cfg.Cache == 0 {
		cfg.Cache = 1 << 16
	}
	return &Table{store: cfg.Store, limit: cfg.Cache, kek: cfg.KEK,
		tableKeys: make(map[uint32]tableKey), cache: make(map[ID][]byte)}, nil
}

// tableRow is a row that holds a table key: its name is the generation in eight
// hexadecimal digits, '/', and the id of the KEK.
type tableRow struct {
	Row
	generation uint32
	kek        string
}

func (t *Table) tableRows(ctx context.Context) ([]tableRow, error) {
	const most = 64 // a rotation needs four
	rows, err := t.store.Page(ctx, ID{Kind: tableKind}, most)
	if err != nil {
		return nil, fmt.Errorf("read table key: %w", err)
	}
	var list []tableRow
	for _, row := range rows {
		if row.ID.Kind != tableKind {
			break
		}
		generation, kek, ok := strings.Cut(row.ID.Name, "/")
		n, err := strconv.ParseUint(generation, 16, 32)
		if !ok || err != nil || tableKeyID(uint32(n), kek) != row.ID {
			return nil, carnet.Errorf(carnet.Malformed, "the key table has a table key named %q", row.ID.Name)
		}
		list = append(list, tableRow{row, uint32(n), kek})
	}
	if len(list) == most {
		return nil, carnet.Errorf(carnet.Malformed, "the key table has %d table keys or more", most)
	}
	return list, nil
}

func tableKeyID(generation uint32, kek string) ID {
	return ID{tableKind, fmt.Sprintf("%08x/%s", generation, kek)}
}

// fenceOf has the store refuse what is changed by who knows no newer generation than
// this, if there is one.
func fenceOf(generation uint32) ID { return tableKeyID(generation, "~") }

func (t *Table) fence() ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fenceOf(t.newest)
}

// change has the store change something. Where that is refused, since a rotation that this
// process doesn't know of has come between, it goes on with the newer table key, if its KEK
// opens that. The caller holds writing; do is given the fence.
func (t *Table) change(ctx context.Context, what string, do func(upTo ID) error) error {
	err := do(t.fence())
	if carnet.CodeOf(err) == carnet.Fenced {
		if t.loadTableKeys(ctx) == nil {
			err = do(t.fence())
		}
		if carnet.CodeOf(err) == carnet.Fenced {
			err = errRotated
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// It fails only for the moment: what couldn't be stored isn't acknowledged.
var errRotated = carnet.Errorf(carnet.Unavailable, "another process has put the key table under another table key").WithFix("start this process again")

// loadTableKeys unwraps the table keys that the store has and t has not. All of
// them must be under the KEK.
func (t *Table) loadTableKeys(ctx context.Context) error {
	rows, err := t.tableRows(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if _, known := t.tableKeys[row.generation]; known || row.kek != t.kek.ID() {
			continue
		}
		secret, err := t.kek.Unwrap(ctx, row.ID.context(row.generation), row.Wrapped)
		if err != nil {
			return fmt.Errorf("unwrap table key: %w", err)
		}
		if len(secret) != 32 {
			return carnet.Errorf(carnet.Malformed, "the table key has %d bytes, want 32", len(secret))
		}
		if err := t.useTableKey(row.generation, [32]byte(secret)); err != nil {
			return err
		}
	}
	for _, row := range rows {
		if _, known := t.tableKeys[row.generation]; !known {
			return carnet.Errorf(carnet.Forbidden, "the key table is under the key-encryption key %s, not %s", row.kek, t.kek.ID()).
				WithFix("give that key-encryption key")
		}
	}
	return nil
}

func wrapTableKey(ctx context.Context, kek KEK, generation uint32, secret [32]byte) (Row, error) {
	id := tableKeyID(generation, kek.ID())
	wrapped, err := kek.Wrap(ctx, id.context(generation), secret[:])
	if err != nil {
		return Row{}, fmt.Errorf("wrap table key: %w", err)
	}
	return Row{id, wrapped}, nil
}

func (t *Table) useTableKey(generation uint32, secret [32]byte) error {
	aead, err := newAEAD(secret[:])
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tableKeys[generation] = tableKey{secret, aead}
	t.newest = max(t.newest, generation)
	return nil
}

// listPage is how many rows are read at once where many are.
const listPage = 512

// A wrapped row: version (1 byte, 1), generation of the table key (4 bytes, big
// endian), nonce (12), ciphertext, tag (16). The id is associated data.
const (
	rowVersion = 1
	rowHead    = 1 + 4
)

// wrap wraps a secret under the newest table key.
func (t *Table) wrap(id ID, secret []byte) Row {
	t.mu.Lock()
	generation := t.newest
	aead := t.tableKeys[generation].aead
	t.mu.Unlock()
	head := binary.BigEndian.AppendUint32([]byte{rowVersion}, generation)
	return Row{id, aead.Seal(head, nil, secret, id.context(generation))}
}

func (t *Table) unwrap(row Row) ([]byte, error) {
	generation, ok := rowGeneration(row)
	t.mu.Lock()
	key, known := t.tableKeys[generation]
	newest := t.newest
	t.mu.Unlock()
	if ok && generation == newest+1 {
		return nil, fmt.Errorf("read key %s: %w", row.ID, errRotated)
	}
	if !ok || !known {
		return nil, carnet.Errorf(carnet.Tampered, "the stored key %s is not wrapped by this key table", row.ID)
	}
	secret, err := key.aead.Open(nil, nil, row.Wrapped[rowHead:], row.ID.context(generation))
	if err != nil {
		return nil, carnet.Errorf(carnet.Tampered, "the stored key %s was changed or belongs elsewhere", row.ID)
	}
	return secret, nil
}

func rowGeneration(row Row) (uint32, bool) {
	if len(row.Wrapped) < rowHead || row.Wrapped[0] != rowVersion {
		return 0, false
	}
	return binary.BigEndian.Uint32(row.Wrapped[1:]), true
}

// Make draws a random 256-bit key for each id, stores them and returns them.
func (t *Table) Make(ctx context.Context, ids ...ID) ([][32]byte, error) {
	made := make([][32]byte, len(ids))
	entries := make([]Entry, len(ids))
	for i, id := range ids {
		rand.Read(made[i][:])
		entries[i] = Entry{id, made[i][:]}
	}
	if err := t.Put(ctx, entries...); err != nil {
		return nil, err
	}
	return made, nil
}

// Put stores the keys; they are durable when it returns. A key that is there
// already is left alone, and refused with Conflict when it is another.
func (t *Table) Put(ctx context.Context, entries ...Entry) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	given := make(map[ID][]byte, len(entries))
	var fresh []Entry
	for _, e := range entries {
		if err := e.ID.check(); err != nil {
			return err
		}
		if len(e.Secret) == 0 || len(e.Secret) > maxSecret {
			return carnet.Errorf(carnet.TooLarge, "key %s has %d bytes, want 1 to %d", e.ID, len(e.Secret), maxSecret)
		}
		have, twice := given[e.ID]
		if !twice {
			var err error
			if have, err = t.Get(ctx, e.ID); err != nil && carnet.CodeOf(err) != carnet.NotFound {
				return err
			}
		}
		if have != nil && !bytes.Equal(have, e.Secret) {
			return carnet.Errorf(carnet.Conflict, "the key table has another key %s", e.ID).WithFix("destroy that first")
		}
		given[e.ID] = e.Secret
		if have == nil {
			fresh = append(fresh, e)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	err := t.change(ctx, "store keys", func(upTo ID) error {
		rows := make([]Row, len(fresh))
		for i, e := range fresh {
			rows[i] = t.wrap(e.ID, e.Secret)
		}
		return t.store.Put(ctx, upTo, rows)
	})
	if err != nil {
		return err
	}
	for id, secret := range given {
		t.keep(id, bytes.Clone(secret))
	}
	return nil
}

// Get returns a copy of the key, or an error of code NotFound.
func (t *Table) Get(ctx context.Context, id ID) ([]byte, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	secret := bytes.Clone(t.cache[id])
	t.mu.Unlock()
	if secret != nil {
		return secret, nil
	}
	t.reading.RLock()
	defer t.reading.RUnlock()
	row, err := t.store.Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", id, err)
	}
	// The id that was asked for is what the row must be bound to.
	if secret, err = t.unwrap(Row{id, row.Wrapped}); err != nil {
		return nil, err
	}
	t.keep(id, bytes.Clone(secret))
	return secret, nil
}

// List returns the ids of the kind whose names begin with prefix and are longer
// than it, in order: the keys of a stream, by its id and a slash.
func (t *Table) List(ctx context.Context, kind, prefix string) ([]ID, error) {
	if err := (ID{kind, prefix + "x"}).check(); err != nil {
		return nil, err
	}
	var ids []ID
	for after := (ID{kind, prefix}); ; {
		page, err := t.store.Page(ctx, after, listPage)
		if err != nil {
			return nil, fmt.Errorf("list keys: %w", err)
		}
		for _, row := range page {
			if !above(row.ID, after) {
				return nil, fmt.Errorf("list keys: the store answered %s after %s", row.ID, after)
			}
			if row.ID.Kind != kind || !strings.HasPrefix(row.ID.Name, prefix) {
				return ids, nil
			}
			ids, after = append(ids, row.ID), row.ID
		}
		if len(page) < listPage {
			return ids, nil
		}
	}
}

// keep makes room by dropping any keys: reading one again costs a row.
func (t *Table) keep(id ID, secret []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for old, key := range t.cache {
		if len(t.cache) < t.limit {
			break
		}
		clear(key)
		delete(t.cache, old)
	}
	t.cache[id] = secret
}

// Destroy deletes the keys: their rows are overwritten in the store when it
// returns, and this process's copies are wiped. What they encrypted can't be
// read again but with a backup of the key table from before. A key that is
// absent is destroyed already.
func (t *Table) Destroy(ctx context.Context, ids ...ID) error {
	for _, id := range ids {
		if err := id.check(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete keys: %w", err)
	}
	d := t.doom(ids)
	t.writing.Lock()
	defer t.writing.Unlock()
	if !d.done { // else somebody who waited, too, has done it
		t.mu.Lock()
		t.doomed = nil
		t.mu.Unlock()
		// It is for others, too, so it doesn't end when nobody waits for this one.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTime)
		d.err, d.done = t.destroy(within, d.ids), true
		cancel()
	}
	return d.err
}

// destroyTime is how long destroying keys may take: a store that hangs holds up whoever
// changes keys.
const destroyTime = 30 * time.Second

// doom adds keys to what is destroyed next.
func (t *Table) doom(ids []ID) *destruction {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.doomed == nil {
		t.doomed = new(destruction)
	}
	t.doomed.ids = append(t.doomed.ids, ids...)
	return t.doomed
}

// destroy is Destroy. The caller holds writing.
func (t *Table) destroy(ctx context.Context, ids []ID) error {
	failed := t.change(ctx, "delete keys", func(upTo ID) error { return t.store.Delete(ctx, upTo, ids) })
	// Also if it failed: the rows may be gone, and a copy would hide that from who puts
	// the keys again.
	t.reading.Lock()
	defer t.reading.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		clear(t.cache[id])
		delete(t.cache, id)
	}
	return failed
}
