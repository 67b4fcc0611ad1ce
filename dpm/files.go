package dpm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"carnet"
)

// files are what jobs need and put out: sealed bytes, in a directory for each job.
// A file is whole or isn't there. Content isn't synced: what a crash loses is asked
// for again (Check finds it). Parts are.
type files struct{ dir string }

// unfinished is how the name begins of a file that is being written.
const unfinished = ".new-"

func (f files) job(ref string) string { return filepath.Join(f.dir, ref) }

func (f files) content(ref string, name carnet.Fingerprint) string {
	return filepath.Join(f.job(ref), "content-"+name.String())
}

func (f files) part(ref string, attempt, n int) string {
	return filepath.Join(f.job(ref), "part-"+strconv.Itoa(attempt)+"-"+strconv.Itoa(n))
}

// make makes a job's directory.
func (f files) make(ref string) error { return os.MkdirAll(f.job(ref), 0o700) }

// has reports whether content is there, of the size that it must have.
func (f files) has(ref string, name carnet.Fingerprint, size int64) bool {
	info, err := os.Stat(f.content(ref, name))
	return err == nil && info.Size() == size
}

// put writes a file: its bytes are read from r, which must have size bytes with that
// fingerprint.
func (f files) put(path string, r io.Reader, size int64, name carnet.Fingerprint) error {
	return f.write(path, &content{from: io.LimitReader(r, size+1), size: size, name: name, hash: sha256.New()}, false)
}

// content reads what comes: it ends if that is what an order says, and else breaks off.
type content struct {
	from io.Reader
	size int64
	name carnet.Fingerprint
	came int64
	hash hash.Hash // of what came
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.hash.Write(p[:n])
	c.came += int64(n)
	switch {
	case err == nil:
	case err != io.EOF:
		err = carnet.Errorf(carnet.Unavailable, "the content broke off: %v", err)
	case c.came != c.size:
		err = carnet.Errorf(carnet.Malformed, "the content has not the %d bytes that its order says", c.size)
	case carnet.Fingerprint(c.hash.Sum(nil)) != c.name:
		err = carnet.Errorf(carnet.Tampered, "the content has another fingerprint than its order says")
	}
	return n, err
}

// write writes a file whole, of what r has, and durably if it is to be.
func (f files) write(path string, r io.Reader, durable bool) error {
	t, err := os.CreateTemp(filepath.Dir(path), unfinished)
	if err != nil {
		return unwritten(err)
	}
	_, err = io.Copy(t, r)
	if err == nil && durable {
		err = t.Sync()
	}
	err = errors.Join(err, t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err == nil && durable {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(unwritten(err), remove(t.Name()))
	}
	return nil
}

// unwritten says why a file can't be written: what was to be in it lacks, its job has
// ended, or the DPM can't.
func unwritten(err error) error {
	if carnet.CodeOf(err) != "" {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) { // its directory is gone
		return carnet.Errorf(carnet.Conflict, "the job has ended")
	}
	// Where that is, is nobody's business but the DPM's.
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err
	} else if at, ok := errors.AsType[*os.LinkError](err); ok {
		err = at.Err
	}
	return carnet.Errorf(carnet.NoSpace, "the DPM can't write: %v", err)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read reads a file; carnet.NotFound without one.
func (f files) read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, carnet.Errorf(carnet.NotFound, "there is no such part or content")
	}
	return data, err
}

// sweep deletes what was being written of a job when the process before ended.
func (f files) sweep(ref string) error {
	all, err := os.ReadDir(f.job(ref))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range all {
		if strings.HasPrefix(e.Name(), unfinished) {
			if err := remove(filepath.Join(f.job(ref), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// check deletes content of a job that isn't what its name says.
func (f files) check(ref string) error {
	all, err := os.ReadDir(f.job(ref))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), "content-") {
			continue
		}
		path := filepath.Join(f.job(ref), e.Name())
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the job has ended
		}
		if err != nil {
			return err
		}
		if e.Name() != "content-"+carnet.FingerprintOf(data).String() {
			if err := remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove deletes a file, which may be gone: a job's end and what looks after ends both
// clear it.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete what was kept for a job: %w", err)
	}
	return nil
}

// clear deletes what is kept for a job: all of it, or its content and the parts of
// other attempts than one.
func (f files) clear(ref string, butAttempt int) error {
	if butAttempt == 0 {
		if err := os.RemoveAll(f.job(ref)); err != nil {
			return fmt.Errorf("delete what was kept for a job: %w", err)
		}
		return nil
	}
	entries, err := os.ReadDir(f.job(ref))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ok, _ := filepath.Match("part-"+strconv.Itoa(butAttempt)+"-*", e.Name()); !ok {
			if err := remove(filepath.Join(f.job(ref), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// jobs lists the jobs of which something is kept.
func (f files) jobs() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var refs []string
	for _, e := range entries {
		refs = append(refs, e.Name())
	}
	return refs, err
}
