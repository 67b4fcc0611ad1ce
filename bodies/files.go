package bodies

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Files is what bodies need of a file system.
type Files interface {
	Mkdir(name string) error               // an existing directory is no error
	Create(name string) (File, error)      // for writing; must not exist
	Open(name string) (File, error)        // for reading
	OpenWrite(name string) (File, error)   // an existing file, for overwriting
	Rename(from, to string) error          // replaces to
	Remove(name string) error              //
	SyncDir(name string) error             // makes names in it durable
	ReadDir(name string) ([]string, error) // names of the files in it
}

// File is an open file.
type File interface {
	io.ReadWriteCloser
	Size() (int64, error)
	Sync() error
}

// Disk is the operating system's file system.
type Disk struct{}

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Mkdir implements Files.
func (Disk) Mkdir(name string) error {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Create implements Files.
func (Disk) Create(name string) (File, error) {
	return openFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
}

// Open implements Files.
func (Disk) Open(name string) (File, error) { return openFile(name, os.O_RDONLY) }

// OpenWrite implements Files.
func (Disk) OpenWrite(name string) (File, error) { return openFile(name, os.O_WRONLY) }

// Rename implements Files.
func (Disk) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements Files.
func (Disk) Remove(name string) error { return os.Remove(name) }

func openFile(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

// SyncDir implements Files.
func (Disk) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadDir implements Files.
func (Disk) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}
