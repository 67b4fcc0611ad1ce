// Package bodies keeps large bodies as files, each named by its fingerprint, for
// whoever has rows about them in a database.
//
// Dir owns a directory: a body is staged (a temporary file, synced), then placed
// (under its fingerprint, directory synced); erased means overwritten with zeros,
// removed, and the directory synced. Beside owns the order in which such files and
// a database's rows change: a body's states are absent → staged → placed → named
// by a row → ended → gone (docs/design/store.md).
//
// The package must not know what a body holds, nor how rows are kept. It doesn't
// class failures of the disk: DiskError has them for who does.
package bodies

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"

	"carnet"
)

// Dir keeps bodies as files: PATH/ab/abcd… by fingerprint, written first as
// PATH/tmp/RANDOM. A file under its fingerprint is whole. It holds nothing open, and
// its methods may be called from many goroutines; what happens to one fingerprint
// is ordered by the caller.
type Dir struct {
	Path  string
	Files Files
}

const (
	tmpDir  = "tmp"
	goneDir = "gone"
)

// DiskError is a failure of the disk, as the operating system says it.
type DiskError struct {
	What string
	Err  error
}

func (e *DiskError) Error() string { return e.What + ": " + e.Err.Error() }
func (e *DiskError) Unwrap() error { return e.Err }

// Full reports whether there was no room.
func (e *DiskError) Full() bool { return e.is(syscall.ENOSPC, syscall.EDQUOT) }

// Short reports whether there were too few files or too little memory: it passes.
func (e *DiskError) Short() bool { return e.is(syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM) }

func (e *DiskError) is(any ...syscall.Errno) bool {
	return slices.ContainsFunc(any, func(no syscall.Errno) bool { return errors.Is(e.Err, no) })
}

func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return &DiskError{what, err}
}

// Make makes the directories that are missing and removes what unfinished writing
// left behind.
func (d Dir) Make() error {
	names := []string{tmpDir}
	for shard := range 256 {
		names = append(names, shardName(byte(shard)))
	}
	if err := d.mkdir(names...); err != nil {
		return err
	}
	left, err := d.Files.ReadDir(filepath.Join(d.Path, tmpDir))
	for _, name := range left {
		err = errors.Join(err, d.Files.Remove(filepath.Join(d.Path, tmpDir, name)))
	}
	return failed("remove what was left of writing", err)
}

// mkdir makes the directory, and others in it.
func (d Dir) mkdir(others ...string) error {
	for _, name := range append([]string{""}, others...) {
		if err := d.Files.Mkdir(filepath.Join(d.Path, name)); err != nil {
			return failed("make directory of bodies", err)
		}
	}
	return failed("sync directory of bodies", errors.Join(d.Files.SyncDir(d.Path), d.Files.SyncDir(filepath.Dir(d.Path))))
}

func shardName(first byte) string { return hex.EncodeToString([]byte{first}) }

func (d Dir) shard(first byte) string { return filepath.Join(d.Path, shardName(first)) }

// File is where a body is.
func (d Dir) File(f carnet.Fingerprint) string {
	return filepath.Join(d.shard(f[0]), f.String())
}

// Stage writes body to a temporary file, durably, and checks its fingerprint.
// What was staged is either placed or dropped.
func (d Dir) Stage(f carnet.Fingerprint, body io.Reader) (name string, size int64, err error) {
	return d.stage(func(out File) (int64, error) {
		in, hash := &readError{r: body}, sha256.New()
		size, err := io.Copy(io.MultiWriter(out, hash), in)
		if in.err != nil {
			return 0, in.err
		}
		if err != nil {
			return 0, failed("write body", err)
		}
		if got := carnet.Fingerprint(hash.Sum(nil)); got != f {
			return 0, carnet.Errorf(carnet.Tampered, "the object's fingerprint is %s, not %s", got, f)
		}
		return size, nil
	})
}

// stageBytes is Stage for bytes whose fingerprint the caller knows.
func (d Dir) stageBytes(body []byte) (name string, err error) {
	name, _, err = d.stage(func(out File) (int64, error) {
		n, err := out.Write(body)
		return int64(n), failed("write body", err)
	})
	return name, err
}

func (d Dir) stage(fill func(File) (int64, error)) (name string, size int64, err error) {
	name = filepath.Join(d.Path, tmpDir, rand.Text())
	out, err := d.Files.Create(name)
	if err != nil {
		return "", 0, failed("create body's file", err)
	}
	if size, err = fill(out); err == nil {
		err = failed("sync body", out.Sync())
	}
	if cerr := out.Close(); err == nil {
		err = failed("close body's file", cerr)
	}
	if err != nil {
		// The next start removes what can't be removed now.
		_ = d.Files.Remove(name)
		return "", 0, err
	}
	return name, size, nil
}

// readError tells a failure of the sender from one of the disk.
type readError struct {
	r   io.Reader
	err error
}

func (r *readError) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// Place gives a staged body its name, durably.
func (d Dir) Place(name string, f carnet.Fingerprint) error {
	if err := d.rename(name, f); err != nil {
		return err
	}
	return failed("sync body's directory", d.Files.SyncDir(d.shard(f[0])))
}

func (d Dir) rename(name string, f carnet.Fingerprint) error {
	err := d.Files.Rename(name, d.File(f))
	if errors.Is(err, fs.ErrNotExist) { // the first of its shard
		if err = d.Files.Mkdir(d.shard(f[0])); err == nil {
			err = d.Files.SyncDir(d.Path)
		}
		if err == nil {
			err = d.Files.Rename(name, d.File(f))
		}
	}
	if err != nil {
		_ = d.Files.Remove(name)
	}
	return failed("name body", err)
}

// Open opens a body for reading; fs.ErrNotExist without one.
func (d Dir) Open(f carnet.Fingerprint) (File, error) { return d.Files.Open(d.File(f)) }

// Erase overwrites a body with zeros and removes it, durably. Overwriting only
// helps where the file system writes in place; what makes a body unreadable
// is the loss of its key.
func (d Dir) Erase(f carnet.Fingerprint) error {
	if err := d.remove(d.File(f)); err != nil {
		return err
	}
	return failed("sync body's directory", d.Files.SyncDir(d.shard(f[0])))
}

// remove overwrites a file and removes it; one that isn't there is no error.
func (d Dir) remove(name string) error {
	err := d.zero(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// A full disk may refuse to overwrite; removing is what makes room.
	if d, ok := errors.AsType[*DiskError](err); err != nil && !(ok && d.Full()) {
		return err
	}
	if err := d.Files.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed("remove body", err)
	}
	return nil
}

func (d Dir) zero(name string) error {
	out, err := d.Files.OpenWrite(name)
	if err != nil {
		return failed("open body for erasing", err)
	}
	size, err := out.Size()
	if err == nil {
		_, err = io.CopyBuffer(onlyWriter{out}, onlyReader{io.LimitReader(zeros{}, size)}, make([]byte, min(max(size, 1), zerosAtOnce)))
	}
	if err == nil {
		err = out.Sync()
	}
	return failed("overwrite body", errors.Join(err, out.Close()))
}

const zerosAtOnce = 256 << 10

// onlyWriter and onlyReader keep io.Copy from asking a file to read, or zeros to write.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// List returns the fingerprints in one shard.
func (d Dir) List(first byte) ([]carnet.Fingerprint, error) {
	names, err := d.Files.ReadDir(d.shard(first))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list bodies: %w", err)
	}
	found := make([]carnet.Fingerprint, 0, len(names))
	for _, name := range names {
		var f carnet.Fingerprint
		if f.UnmarshalText([]byte(name)) == nil && f[0] == first {
			found = append(found, f)
		}
	}
	return found, nil
}
