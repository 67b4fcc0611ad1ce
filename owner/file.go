package owner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"carnet"
	"carnet/claim"
)

// claimFile keeps other programs out of the keystore. What is claimed is a file of its
// own: the keystore's is replaced.
func claimFile(path string) (*claim.Claim, error) {
	c, err := claim.File(path + ".lock")
	if errors.Is(err, claim.ErrTaken) {
		return nil, carnet.Errorf(carnet.Conflict, "another program has the keystore %s open", path).WithFix("wait until it has ended")
	}
	if err != nil {
		return nil, fmt.Errorf("lock keystore: %w", err)
	}
	return c, nil
}

// readFile reads a keystore that nobody else can touch.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open keystore: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open keystore: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, carnet.Errorf(carnet.Malformed, "%s is no regular file", path)
	}
	if info.Mode().Perm()&0o177 != 0 {
		return nil, carnet.Errorf(carnet.Forbidden, "%s has mode %04o, so others can touch it", path, info.Mode().Perm()).
			WithFix("chmod 600 %s", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read keystore: %w", err)
	}
	if len(data) > maxFile {
		return nil, carnet.Errorf(carnet.TooLarge, "%s has more than %d bytes", path, maxFile)
	}
	return data, nil
}

// replaceFile puts data in the place of a file as a whole: at any crash the old
// or the new one is there. What a crash left of a new one is written over.
func replaceFile(path string, data []byte) error {
	draft := path + ".new"
	err := writeFile(draft, data)
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		os.Remove(draft) // what matters is told already
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return carnet.Errorf(carnet.NoSpace, "there is no room to write %s; it is as it was", path).WithFix("make room, and do it again")
		}
		return fmt.Errorf("write keystore, which is as it was: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync directory of keystore: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync directory of keystore: %w", err)
	}
	return nil
}

func writeFile(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// strictly reads one JSON object without members that aren't known.
func strictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("it goes on after its object")
	}
	return nil
}
