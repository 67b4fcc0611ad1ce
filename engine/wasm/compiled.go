package wasm

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Bounds of what is kept of compiled modules: each can be made again.
const (
	mostCompiled = 512 << 20           // bytes of all files
	oldest       = 30 * 24 * time.Hour // since a module was compiled
)

// compiled is a directory of compiled modules, which several processes may share. Empty:
// there is none.
type compiled struct {
	dir  string
	most int64 // bytes
}

// tidy deletes what is too old, and the oldest of what is too much. A file that a run
// reads meanwhile it reads to its end.
func (c compiled) tidy(now time.Time) error {
	if c.dir == "" {
		return nil
	}
	type file struct {
		path string
		size int64
		made time.Time
	}
	var all []file
	sum := int64(0)
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another process has deleted it
		}
		if err != nil {
			return err
		}
		all, sum = append(all, file{path, info.Size(), info.ModTime()}), sum+info.Size()
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look through compiled modules: %w", err)
	}
	slices.SortFunc(all, func(a, b file) int { return cmp.Or(a.made.Compare(b.made), cmp.Compare(a.path, b.path)) })
	for _, f := range all {
		if sum <= c.most && now.Sub(f.made) < oldest {
			break
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete a compiled module: %w", err)
		}
		sum -= f.size
	}
	return nil
}
