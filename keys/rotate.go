package keys

import (
	"context"
	"crypto/rand"
	"fmt"

	"carnet"
)

// Unfinished reports whether a rotation was begun and not ended: Rotate again,
// to the same KEK.
func (t *Table) Unfinished() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.tableKeys) > 1
}

// KEK is the id of the key-encryption key that the table is under.
func (t *Table) KEK() string {
	t.writing.Lock()
	defer t.writing.Unlock()
	return t.kek.ID()
}

// Before is the id of a key-encryption key, other than the table's, that an unfinished
// rotation has the table under, too; "" if there is none.
func (t *Table) Before(ctx context.Context) (string, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	rows, err := t.tableRows(ctx)
	if err != nil {
		return "", err
	}
	for _, row := range rows {
		if row.kek != t.kek.ID() {
			return row.kek, nil
		}
	}
	return "", nil
}

// Rotate puts the table under the KEK to, and every row under a fresh table
// key, so that the old KEK with an old copy of the table key opens no row
// written since. The same KEK as before replaces the table key only.
//
// Keys are read, put and destroyed meanwhile. Settled is called when both KEKs
// open every row, before the old one is given up: it makes durable that the
// table is opened with to from now on. Nil: nothing.
//
// Each step is one transaction. Until settled has returned, the old KEK and the
// new one both open every row; in the end the new one only. After a crash, or a
// failure, open the table with either that opens it and rotate again.
func (t *Table) Rotate(ctx context.Context, to KEK, settled func() error) error {
	if _, err := newTable(Config{KEK: to, Store: t.store}); err != nil {
		return err
	}
	if !t.rotating.TryLock() {
		return carnet.Errorf(carnet.Conflict, "the key table is being rotated already").WithFix("wait until that is over")
	}
	defer t.rotating.Unlock()
	if err := t.wrapTableKeys(ctx, to); err != nil {
		return err
	}
	for after, more := (ID{}), true; more; {
		var err error
		if after, more, err = t.rewrapPage(ctx, after); err != nil {
			return err
		}
	}
	if settled != nil {
		if err := settled(); err != nil {
			return err
		}
	}
	return t.dropTableKeys(ctx, to)
}

// wrapTableKeys makes a new generation, unless an unfinished rotation has, and
// stores every generation under both KEKs. It uses the new one only once that
// is durable.
func (t *Table) wrapTableKeys(ctx context.Context, to KEK) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	if err := t.loadTableKeys(ctx); err != nil {
		return err
	}
	secrets := make(map[uint32][32]byte)
	for generation, key := range t.tableKeys {
		secrets[generation] = key.secret
	}
	newest := t.newest
	if len(secrets) == 1 {
		newest++
		var secret [32]byte
		rand.Read(secret[:])
		secrets[newest] = secret
	}
	var rows []Row
	for generation, secret := range secrets {
		for _, kek := range []KEK{t.kek, to} {
			row, err := wrapTableKey(ctx, kek, generation, secret)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
	}
	if err := t.store.Put(ctx, t.fence(), rows); err != nil {
		return fmt.Errorf("store table keys: %w", err)
	}
	return t.useTableKey(newest, secrets[newest])
}

// rewrapPage wraps the rows of a page that are of an older generation under the
// newest. It says where the page ends, and whether it had any row.
func (t *Table) rewrapPage(ctx context.Context, after ID) (last ID, more bool, err error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	page, err := t.store.Page(ctx, after, listPage)
	if err != nil {
		return after, false, fmt.Errorf("read key table: %w", err)
	}
	var was, now []Row
	for _, row := range page {
		if !above(row.ID, after) {
			return after, false, fmt.Errorf("read key table: the store answered %s after %s", row.ID, after)
		}
		after = row.ID
		if generation, _ := rowGeneration(row); row.ID.Kind == tableKind || generation == t.newest {
			continue
		}
		secret, err := t.unwrap(row)
		if err != nil {
			return after, false, err
		}
		was, now = append(was, row), append(now, t.wrap(row.ID, secret))
		clear(secret)
	}
	if len(now) == 0 {
		return after, len(page) > 0, nil
	}
	if err := t.store.Replace(ctx, t.fence(), was, now); err != nil {
		return after, false, fmt.Errorf("store keys: %w", err)
	}
	return after, true, nil
}

// dropTableKeys deletes every table key but the newest under the new KEK: first what is
// under any other KEK, so that two generations are there, and the rotation isn't over,
// until that is overwritten.
func (t *Table) dropTableKeys(ctx context.Context, to KEK) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	rows, err := t.tableRows(ctx)
	if err != nil {
		return err
	}
	var others, older []ID
	for _, row := range rows {
		switch {
		case row.kek != to.ID():
			others = append(others, row.ID)
		case row.generation != t.newest:
			older = append(older, row.ID)
		}
	}
	t.kek = to // also if this fails: nothing is read with another any more
	for _, ids := range [][]ID{others, older} {
		if err := t.store.Delete(ctx, t.fence(), ids); err != nil {
			return fmt.Errorf("delete old table keys: %w", err)
		}
	}
	t.reading.Lock()
	defer t.reading.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	for generation := range t.tableKeys {
		if generation != t.newest {
			delete(t.tableKeys, generation)
		}
	}
	return nil
}
