package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"carnet"
	"carnet/keys"
)

// RotateKey puts the key table of a party that doesn't run under another key-encryption
// key: a copy of the file newKey, or, where that is empty, one that is made. The key of
// before is kept beside it, at the path that is returned.
//
// The new key is durable beside the key file before anything is wrapped under it, and
// takes the key file's place when nothing is under the old one any more. Done again after
// a crash it goes on.
func RotateKey(ctx context.Context, c Config, newKey string) (kept string, err error) {
	stores, err := openAlone(ctx, c)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stores.close()) }()
	path := c.path(c.KeyFile)
	old, err := keys.OpenFile(path)
	if err != nil {
		return "", err
	}
	next := nextKey(path)
	fresh, err := takeNextKey(next, newKey)
	if err != nil {
		return "", err
	}
	if fresh.ID() == old.ID() {
		return "", carnet.Errorf(carnet.Malformed, "%s has that key already", c.Party).WithFix("name another file, or none")
	}
	store, err := stores.keys(ctx)
	if err != nil {
		return "", err
	}
	table, err := keys.Open(ctx, keys.Config{KEK: old, Store: store})
	if carnet.CodeOf(err) == carnet.Forbidden { // the last step was done, and the files weren't
		table, err = keys.Open(ctx, keys.Config{KEK: fresh, Store: store})
	}
	if err == nil {
		err = table.Rotate(ctx, fresh)
	}
	if err != nil {
		return "", fmt.Errorf("rotate the key of %s: %w", c.Party, err)
	}
	kept = path + "." + old.ID()
	if err := os.Link(path, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("keep the key of before: %w", err)
	}
	if err := keys.SyncDir(filepath.Dir(path)); err != nil { // first, or a crash could leave neither name
		return "", err
	}
	if err := os.Rename(next, path); err != nil {
		return "", fmt.Errorf("put the key in its place: %w", err)
	}
	return kept, keys.SyncDir(filepath.Dir(path))
}

// nextKey is where a key lies that is to take the place of another.
func nextKey(path string) string { return path + ".new" }

// takeNextKey makes the key that is to be, or goes on with the one of a rotation that was
// cut off.
func takeNextKey(next, newKey string) (*keys.FileKEK, error) {
	was, err := keys.OpenFile(next)
	switch carnet.CodeOf(err) {
	case "":
		if err != nil {
			return nil, err
		}
		if newKey == "" {
			return was, nil
		}
		given, err := keys.OpenFile(newKey)
		if err == nil && given.ID() != was.ID() {
			err = carnet.Errorf(carnet.Conflict, "a rotation to another key than that of %s was cut off", newKey).WithFix("run it again without --new-key, to finish it; then rotate to this one")
		}
		return was, err
	case carnet.NotFound:
	case carnet.Malformed: // a crash cut it off: nothing was wrapped under it
		if err := os.Remove(next); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	if newKey == "" {
		return keys.CreateFile(next)
	}
	if _, err := keys.OpenFile(newKey); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(newKey)
	if err != nil {
		return nil, err
	}
	return keys.CopyFile(next, text)
}
