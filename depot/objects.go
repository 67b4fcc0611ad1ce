package depot

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"carnet"
	"carnet/ledger/tlog"
)

// bodies keeps object bodies as files: DIR/ab/abcd… by fingerprint, written
// first as DIR/tmp/RANDOM. A file under its fingerprint is whole and durable.
type bodies struct {
	dir string
	fs  fileSystem
}

const tmpDir = "tmp"

// open makes the directories that are missing and removes what unfinished puts
// left behind.
func (b *bodies) open() error {
	if err := b.fs.Mkdir(b.dir); err != nil {
		return err
	}
	if err := b.fs.Mkdir(filepath.Join(b.dir, tmpDir)); err != nil {
		return err
	}
	for shard := range 256 {
		if err := b.fs.Mkdir(b.shard(byte(shard))); err != nil {
			return err
		}
	}
	if err := errors.Join(b.fs.SyncDir(b.dir), b.fs.SyncDir(filepath.Dir(b.dir))); err != nil {
		return err
	}
	left, err := b.fs.ReadDir(filepath.Join(b.dir, tmpDir))
	for _, name := range left {
		err = errors.Join(err, b.fs.Remove(filepath.Join(b.dir, tmpDir, name)))
	}
	return err
}

func (b *bodies) shard(first byte) string {
	return filepath.Join(b.dir, hex.EncodeToString([]byte{first}))
}

func (b *bodies) path(f carnet.Fingerprint) string {
	return filepath.Join(b.shard(f[0]), f.String())
}

// stage writes body to a temporary file, durably, and checks its fingerprint.
// What was staged is either put in place or dropped.
func (b *bodies) stage(f carnet.Fingerprint, body io.Reader) (name string, size int64, err error) {
	name = filepath.Join(b.dir, tmpDir, rand.Text())
	out, err := b.fs.Create(name)
	if err != nil {
		return "", 0, tlog.DiskError("create object file", err)
	}
	size, err = fill(out, f, body)
	if cerr := out.Close(); err == nil && cerr != nil {
		err = tlog.DiskError("close object file", cerr)
	}
	if err != nil {
		// The next start removes what can't be removed now.
		_ = b.fs.Remove(name)
		return "", 0, err
	}
	return name, size, nil
}

// fill copies body to out and syncs it.
func fill(out file, f carnet.Fingerprint, body io.Reader) (size int64, err error) {
	in := &readError{r: body}
	hash := sha256.New()
	size, err = io.Copy(io.MultiWriter(out, hash), in)
	if in.err != nil {
		return 0, in.err
	}
	if err != nil {
		return 0, tlog.DiskError("write object", err)
	}
	if got := carnet.Fingerprint(hash.Sum(nil)); got != f {
		return 0, carnet.Errorf(carnet.Tampered, "the object's fingerprint is %s, not %s", got, f)
	}
	if err := out.Sync(); err != nil {
		return 0, tlog.DiskError("sync object", err)
	}
	return size, nil
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

// place gives a staged body its name, durably.
func (b *bodies) place(name string, f carnet.Fingerprint) error {
	if err := b.fs.Rename(name, b.path(f)); err != nil {
		_ = b.fs.Remove(name)
		return tlog.DiskError("name object", err)
	}
	if err := b.fs.SyncDir(b.shard(f[0])); err != nil {
		return tlog.DiskError("sync object directory", err)
	}
	return nil
}

// read returns a body for reading, fs.ErrNotExist without one.
func (b *bodies) read(f carnet.Fingerprint) (file, error) { return b.fs.Open(b.path(f)) }

// erase overwrites a body with zeros and removes it, durably. Overwriting only
// helps where the file system writes in place; what makes an object unreadable
// is the loss of its key, which the depot never had.
func (b *bodies) erase(f carnet.Fingerprint) error {
	err := b.zero(b.path(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// A full disk may refuse to overwrite; removing is what makes room.
	if err != nil && carnet.CodeOf(err) != carnet.NoSpace {
		return err
	}
	if err := b.fs.Remove(b.path(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return tlog.DiskError("remove object", err)
	}
	if err := b.fs.SyncDir(b.shard(f[0])); err != nil {
		return tlog.DiskError("sync object directory", err)
	}
	return nil
}

func (b *bodies) zero(name string) error {
	out, err := b.fs.OpenWrite(name)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		return tlog.DiskError("open object for erasing", err)
	}
	size, err := out.Size()
	if err == nil {
		_, err = io.Copy(onlyWriter{out}, io.LimitReader(zeros{}, size))
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return tlog.DiskError("overwrite object", err)
	}
	return nil
}

// onlyWriter keeps io.Copy from asking a file to read.
type onlyWriter struct{ io.Writer }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// list returns the fingerprints in one shard.
func (b *bodies) list(first byte) ([]carnet.Fingerprint, error) {
	names, err := b.fs.ReadDir(b.shard(first))
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
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
