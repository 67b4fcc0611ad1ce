package register

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"carnet"
	"carnet/ledger/tlog"
)

// file is the second copy of the changes: a line that says what it is, then for each
// change, in order, the length of its body and the body. What isn't whole at its end
// was being written when the process died, and was never told to anybody.
type file struct {
	f       *os.File
	starts  []int64 // where each change begins
	end     int64   // of the last whole change
	damaged bool    // there is more behind it
}

const (
	fileName  = "changes"
	fileTitle = "carnet register changes 1\n"
	maxBody   = 1 << 20 // no change is nearly as large
)

// openFile opens the file of changes in dir, or makes it.
func openFile(dir string) (*file, error) {
	if err := tlog.MakeDir(dir); err != nil {
		return nil, tlog.DiskError("make the register's directory", err)
	}
	path := filepath.Join(dir, fileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, tlog.DiskError("open the file of changes", err)
	}
	c := &file{f: f}
	if err := c.scan(); err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// scan finds the changes that are whole.
func (c *file) scan() error {
	r := bufio.NewReaderSize(c.f, 1<<20)
	title := make([]byte, len(fileTitle))
	n, err := io.ReadFull(r, title)
	switch {
	case n == 0 && errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && string(title[:n]) == fileTitle[:n]:
		return c.begin()
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return tlog.DiskError("read the file of changes", err)
	case string(title) != fileTitle:
		return carnet.Errorf(carnet.Malformed, "%s is not a file of a register's changes", c.f.Name()).WithFix("put the right one back, or move this one away")
	}
	c.end = int64(len(title))
	for {
		var head [4]byte
		if n, err = io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		}
		size := binary.BigEndian.Uint32(head[:])
		if err == nil && size > 0 && size <= maxBody {
			n, err = r.Discard(int(size))
		} else if err == nil {
			err = io.ErrUnexpectedEOF
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			c.damaged = true
			return nil
		case err != nil:
			return tlog.DiskError("read the file of changes", err)
		}
		c.starts = append(c.starts, c.end)
		c.end += int64(len(head) + n)
	}
}

// begin makes a file without changes.
func (c *file) begin() error {
	err := c.f.Truncate(0)
	if err == nil {
		_, err = c.f.WriteAt([]byte(fileTitle), 0)
	}
	if err == nil {
		err = c.f.Sync()
	}
	if err == nil {
		err = syncDir(filepath.Dir(c.f.Name()))
	}
	if err != nil {
		return tlog.DiskError("make the file of changes", err)
	}
	c.end = int64(len(fileTitle))
	return nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// count is how many changes there are.
func (c *file) count() uint64 { return uint64(len(c.starts)) }

// body reads the body of change n, which is there.
func (c *file) body(n uint64) ([]byte, error) {
	start, end := c.starts[n-1]+4, c.end
	if n < c.count() {
		end = c.starts[n]
	}
	b := make([]byte, end-start)
	if _, err := c.f.ReadAt(b, start); err != nil {
		return nil, tlog.DiskError(fmt.Sprintf("read change %d from the file of changes", n), err)
	}
	return b, nil
}

// add appends changes; they are synced on return. What can't be added for the moment
// leaves nothing.
func (c *file) add(bodies [][]byte) error {
	if len(bodies) == 0 {
		return nil
	}
	var b []byte
	starts := c.starts
	for _, body := range bodies {
		starts = append(starts, c.end+int64(len(b)))
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
	}
	if _, err := c.f.WriteAt(b, c.end); err != nil {
		err = tlog.DiskError("write the file of changes", err)
		return errors.Join(err, c.f.Truncate(c.end))
	}
	if err := c.f.Sync(); err != nil {
		return tlog.DiskError("sync the file of changes", err)
	}
	c.starts, c.end = starts, c.end+int64(len(b))
	return nil
}

// cut leaves the first n changes and nothing behind them.
func (c *file) cut(n uint64) error {
	if n < c.count() {
		c.end, c.starts = c.starts[n], c.starts[:n]
	} else if !c.damaged {
		return nil
	}
	err := c.f.Truncate(c.end)
	if err == nil {
		err = c.f.Sync()
	}
	if err != nil {
		return tlog.DiskError("cut the file of changes", err)
	}
	c.damaged = false
	return nil
}

func (c *file) close() error { return c.f.Close() }
