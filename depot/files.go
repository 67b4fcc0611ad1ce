package depot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"carnet/ledger/tlog"
)

// ErrFsync is in the chain of errors after which nothing that the process
// believes to be on disk can be believed: it must exit (code 74) and recover at
// the next start.
var ErrFsync = tlog.ErrFsync

// fileSystem is what the object files need of the operating system.
type fileSystem interface {
	Mkdir(name string) error               // an existing directory is no error
	Create(name string) (file, error)      // for writing; must not exist
	Open(name string) (file, error)        // for reading
	OpenWrite(name string) (file, error)   // an existing file, for overwriting
	Rename(from, to string) error          // replaces to
	Remove(name string) error              //
	SyncDir(name string) error             // makes names in it durable
	ReadDir(name string) ([]string, error) // names of the files in it
}

type file interface {
	io.ReadWriteCloser
	Size() (int64, error)
	Sync() error
}

// disk is the operating system's file system.
type disk struct{}

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (disk) Mkdir(name string) error {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (disk) Create(name string) (file, error) {
	return openFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
}
func (disk) Open(name string) (file, error)      { return openFile(name, os.O_RDONLY) }
func (disk) OpenWrite(name string) (file, error) { return openFile(name, os.O_WRONLY) }
func (disk) Rename(from, to string) error        { return os.Rename(from, to) }
func (disk) Remove(name string) error            { return os.Remove(name) }

func openFile(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (disk) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (disk) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}
