package keys

import (
	"context"
	"crypto/rand"
	"fmt"
)

// Unfinished reports whether a rotation was begun and not ended: Rotate again,
// to the same KEK.
func (t *Table) Unfinished() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.tableKeys) > 1
}

// Rotate puts the table under the KEK to, and every row under a fresh table
// key, so that the old KEK with an old copy of the table key opens no row
// written since. The same KEK as before replaces the table key only.
//
// Each step is one transaction. Until the last, the old KEK and the new one
// both open every row; after it, the new one only. After a crash open the table
// with either and rotate again. Keys can be read meanwhile; Put and Destroy
// wait.
func (t *Table) Rotate(ctx context.Context, to KEK) error {
	if _, err := newTable(Config{KEK: to, Store: t.store}); err != nil {
		return err
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	if err := t.wrapTableKeys(ctx, to); err != nil {
		return err
	}
	if err := t.rewrapRows(ctx); err != nil {
		return err
	}
	return t.dropTableKeys(ctx, to)
}

// wrapTableKeys makes a new generation, unless an unfinished rotation has, and
// stores every generation under both KEKs. It uses the new one only once that
// is durable.
func (t *Table) wrapTableKeys(ctx context.Context, to KEK) error {
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
	if err := t.store.Put(ctx, rows); err != nil {
		return fmt.Errorf("store table keys: %w", err)
	}
	return t.useTableKey(newest, secrets[newest])
}

// rewrapRows wraps every row of an older generation under the newest.
func (t *Table) rewrapRows(ctx context.Context) error {
	for after := (ID{}); ; {
		page, err := t.store.Page(ctx, after, listPage)
		if err != nil {
			return fmt.Errorf("read key table: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		var rows []Row
		for _, row := range page {
			if !above(row.ID, after) {
				return fmt.Errorf("read key table: the store answered %s after %s", row.ID, after)
			}
			after = row.ID
			if generation, _ := rowGeneration(row); row.ID.Kind == tableKind || generation == t.newest {
				continue
			}
			secret, err := t.unwrap(row)
			if err != nil {
				return err
			}
			rows = append(rows, t.wrap(row.ID, secret))
			clear(secret)
		}
		if len(rows) == 0 {
			continue
		}
		if err := t.store.Put(ctx, rows); err != nil {
			return fmt.Errorf("store keys: %w", err)
		}
	}
}

// dropTableKeys deletes every table key but the newest under the new KEK.
func (t *Table) dropTableKeys(ctx context.Context, to KEK) error {
	rows, err := t.tableRows(ctx)
	if err != nil {
		return err
	}
	var drop []ID
	for _, row := range rows {
		if row.generation != t.newest || row.kek != to.ID() {
			drop = append(drop, row.ID)
		}
	}
	if err := t.store.Delete(ctx, drop); err != nil {
		return fmt.Errorf("delete old table keys: %w", err)
	}
	t.kek = to
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
