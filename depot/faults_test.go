package depot

import (
	"os"
	"path/filepath"
	"strings"
	"sync"

	"carnet/bodies"
)

// faultyDisk is the real disk, and fails where a test says.
type faultyDisk struct {
	bodies.Disk
	mu     sync.Mutex
	fail   map[string]error // by operation
	short  int              // a Write takes at most so many bytes and then fails, if above 0
	events []string         // what was done, by operation and last path element
}

func (d *faultyDisk) set(op string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = map[string]error{op: err}
}

func (d *faultyDisk) do(op, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := filepath.Base(name)
	if strings.HasPrefix(filepath.Base(filepath.Dir(name)), "tmp") {
		what = "tmp"
	}
	d.events = append(d.events, op+" "+what)
	return d.fail[op]
}

// since returns what was done after the first n events.
func (d *faultyDisk) since(n int) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.events[n:]
}

func (d *faultyDisk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.events)
}

func (d *faultyDisk) Create(name string) (bodies.File, error) {
	return d.wrap("create", name, d.Disk.Create)
}
func (d *faultyDisk) OpenWrite(name string) (bodies.File, error) {
	return d.wrap("overwrite", name, d.Disk.OpenWrite)
}

func (d *faultyDisk) wrap(op, name string, open func(string) (bodies.File, error)) (bodies.File, error) {
	if err := d.do(op, name); err != nil {
		return nil, &os.PathError{Op: op, Path: name, Err: err}
	}
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	return &faultyFile{f, d, name}, nil
}

func (d *faultyDisk) Rename(from, to string) error {
	if err := d.do("rename", to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return d.Disk.Rename(from, to)
}

func (d *faultyDisk) Remove(name string) error {
	if err := d.do("remove", name); err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return d.Disk.Remove(name)
}

func (d *faultyDisk) SyncDir(name string) error {
	if err := d.do("syncdir", name); err != nil {
		return &os.PathError{Op: "sync", Path: name, Err: err}
	}
	return d.Disk.SyncDir(name)
}

type faultyFile struct {
	bodies.File
	d    *faultyDisk
	name string
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.d.do("write", f.name); err != nil {
		n, _ := f.File.Write(p[:min(len(p), f.d.short)])
		return n, &os.PathError{Op: "write", Path: f.name, Err: err}
	}
	return f.File.Write(p)
}

func (f *faultyFile) Sync() error {
	if err := f.d.do("sync", f.name); err != nil {
		return &os.PathError{Op: "sync", Path: f.name, Err: err}
	}
	return f.File.Sync()
}

func (f *faultyFile) Close() error {
	err := f.File.Close()
	if fail := f.d.do("close", f.name); fail != nil {
		return &os.PathError{Op: "close", Path: f.name, Err: fail}
	}
	return err
}
