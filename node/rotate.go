package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"carnet"
	"carnet/keys"
)

// RotateKey puts the key table of a party under another key-encryption key: a copy of the
// file newKey, or, where that is empty, one that is made. Kept is where the key of before
// is; empty if a rotation that was cut off left none.
//
// The party's process does it where it runs. Rows K1 to K7 are those of
// docs/design/keys.md; done again after a crash it goes on.
func RotateKey(ctx context.Context, c Config, newKey string) (kept string, err error) {
	if newKey != "" {
		if newKey, err = filepath.Abs(newKey); err != nil {
			return "", err
		}
	}
	alone, err := claimData(c.path(c.Data))
	if carnet.CodeOf(err) == carnet.Conflict {
		return askToRotate(ctx, c, newKey)
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, alone.Release()) }()
	stores, err := openStores(ctx, c)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stores.close()) }()
	table, err := openTable(ctx, c, stores)
	if err != nil {
		return "", err
	}
	return rotation{c, table, stores.alone}.run(ctx, newKey)
}

// rotation is one of the key-encryption key of a party, by the process that has its key
// table open.
type rotation struct {
	config Config
	table  *keys.Table
	alone  func(context.Context) (release func(), err error)
}

func (r rotation) path() string { return r.config.path(r.config.KeyFile) }

// next is where a key lies that is to take the place of the party's.
func (r rotation) next() string { return r.path() + ".new" }

// kept is where the key of before is, for copies of the key table from before.
func (r rotation) kept(id string) string { return r.path() + "." + id }

// run begins a rotation, or ends one that was cut off.
func (r rotation) run(ctx context.Context, newKey string) (kept string, err error) {
	release, err := r.alone(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	// The file itself is replaced, where it is, and not a link to it.
	if real, err := filepath.EvalSymlinks(r.path()); err == nil {
		if r.config.KeyFile, err = filepath.Abs(real); err != nil {
			return "", err
		}
	}
	at, err := keys.OpenFile(r.path())
	if err != nil {
		return "", err
	}
	other, err := r.table.Before(ctx)
	if err != nil {
		return "", err
	}
	if at.ID() != r.table.KEK() && at.ID() != other {
		return "", carnet.Errorf(carnet.Conflict, "%s isn't the key-encryption key that %s runs under, which is %s", r.path(), r.config.Party, r.table.KEK()).
			WithFix("put that one back, and see that nothing but 'carnet party rotate' changes it")
	}
	if _, err := os.Lstat(r.next()); r.table.Unfinished() && errors.Is(err, fs.ErrNotExist) { // K5, K6
		// The key of before opens nothing after this, so first it is on disk that the other
		// has its place: who renamed it may have been killed before it was.
		if err := r.table.Rotate(ctx, at, func() error { return keys.SyncDir(filepath.Dir(r.path())) }); err != nil {
			return "", r.failed(err)
		}
		if _, err := os.Lstat(r.kept(other)); other != "" && err == nil {
			kept = r.kept(other)
		}
		if newKey == "" {
			return kept, nil
		}
		if given, err := keys.OpenFile(newKey); err != nil || given.ID() == at.ID() {
			return kept, err
		}
	}
	fresh, err := r.take(newKey, at, other)
	if err != nil {
		return "", err
	}
	if err := r.table.Rotate(ctx, fresh, func() error { return r.settle(at, fresh) }); err != nil {
		return "", r.failed(err)
	}
	return r.kept(at.ID()), nil
}

func (r rotation) failed(err error) error {
	return fmt.Errorf("rotate the key of %s, which goes on when it is asked for again: %w", r.config.Party, err)
}

// take makes the key that is to be, as a file beside the party's (K1), or goes on with the
// one of a rotation that was cut off. other is what the table runs under beside at.
func (r rotation) take(newKey string, at *keys.FileKEK, other string) (*keys.FileKEK, error) {
	var given *keys.FileKEK
	if newKey != "" {
		var err error
		if given, err = keys.OpenFile(newKey); err != nil {
			return nil, err
		}
		if given.ID() == at.ID() {
			return nil, carnet.Errorf(carnet.Malformed, "%s has that key already", r.config.Party).WithFix("name another file, or none")
		}
	}
	was, err := keys.OpenFile(r.next())
	switch code := carnet.CodeOf(err); {
	case err == nil && (was.ID() == other || was.ID() == r.table.KEK()) && was.ID() != at.ID():
		if given != nil && given.ID() != was.ID() {
			return nil, carnet.Errorf(carnet.Conflict, "a rotation to another key than that of %s was cut off", newKey).WithFix("run it again without --new-key, to finish it; then rotate to this one")
		}
		return was, nil
	case err == nil, code == carnet.Malformed: // a crash cut it off: nothing was wrapped under it, and it may not be on disk
		if err := os.Remove(r.next()); err != nil {
			return nil, fmt.Errorf("remove a key file that was cut off: %w", err)
		}
	case code != carnet.NotFound:
		return nil, err
	}
	if given == nil {
		return keys.CreateFile(r.next())
	}
	text, err := os.ReadFile(newKey)
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	return keys.CopyFile(r.next(), text)
}

// settle keeps the key of before beside the party's (K4), and puts the next one in its
// place (K5): both open the key table now.
func (r rotation) settle(at, fresh *keys.FileKEK) error {
	for path, want := range map[string]string{r.path(): at.ID(), r.next(): fresh.ID()} {
		if has, err := keys.OpenFile(path); err != nil || has.ID() != want {
			return errors.Join(carnet.Errorf(carnet.Conflict, "%s was changed while the key was rotated", path).WithFix("put the key %s back there, and rotate again", want), err)
		}
	}
	kept := r.kept(at.ID())
	if err := os.Link(r.path(), kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep the key of before: %w", err)
	}
	if has, err := keys.OpenFile(kept); err != nil || has.ID() != at.ID() {
		return errors.Join(carnet.Errorf(carnet.Conflict, "%s isn't the key that its name says", kept).WithFix("move it away, and rotate again"), err)
	}
	if err := keys.SyncDir(filepath.Dir(kept)); err != nil { // first, or a crash could leave neither name
		return err
	}
	if err := os.Rename(r.next(), r.path()); err != nil {
		return fmt.Errorf("put the key in its place: %w", err)
	}
	return keys.SyncDir(filepath.Dir(kept))
}

// endRotation ends a rotation that a crash, or a failure, cut off.
func (n *Node) endRotation(ctx context.Context) error {
	for n.table.Unfinished() {
		_, err := n.rotate(ctx, "")
		if err == nil {
			n.log.Info("a rotation of the key-encryption key that was cut off is over")
			return nil
		}
		if ctx.Err() != nil || Durability(err) {
			return err
		}
		n.log.Error("a rotation of the key-encryption key that was cut off could not be ended; it is tried again in a minute", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Minute):
		}
	}
	return nil
}

func (n *Node) rotate(ctx context.Context, newKey string) (kept string, err error) {
	if !n.rotating.TryLock() {
		return "", carnet.Errorf(carnet.Conflict, "the key of %s is being rotated already", n.config.Party).WithFix("wait until that is over")
	}
	defer n.rotating.Unlock()
	return rotation{n.config, n.table, n.stores.alone}.run(ctx, newKey)
}
