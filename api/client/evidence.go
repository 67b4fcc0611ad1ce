package client

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"carnet"
)

// EvidenceQuery asks for evidence of a part of an avatar. Zero: of all of it.
type EvidenceQuery struct {
	From, To time.Time // measured time: From included, To not; zero for no bound
	Property string    // empty: all
}

// Evidence fetches an avatar's evidence bundle into a new directory below dir,
// and returns that directory; with a query that isn't zero, a bundle for each
// batch that holds what is asked for. They hold keys: only their owner may read
// them.
func (c *Client) Evidence(ctx context.Context, id carnet.AvatarID, q EvidenceQuery, dir string) (bundles []string, err error) {
	path := avatarPath(id) + "/evidence"
	if v := part(q.From, q.To, q.Property); len(v) > 0 {
		path += "?" + v.Encode()
	}
	answer, err := c.open(ctx, http.MethodGet, path, typeTar, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return unpackAll(answer.Body, dir, "evidence")
}

const typeTar = "application/x-tar"

// unpackAll writes the directories of a tar below dir, and returns them. What the tar
// names is a world's word: nothing outside dir is touched.
func unpackAll(from io.Reader, dir, what string) (made []string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("write %s: %w", what, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", what, err)
	}
	defer root.Close()
	for archive := tar.NewReader(from); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return made, nil
		} else if err != nil {
			return nil, carnet.Errorf(carnet.Unavailable, "the %s did not arrive whole: %v", what, err).WithFix("ask again")
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err := root.Mkdir(filepath.Clean(h.Name), 0o700)
			if errors.Is(err, fs.ErrExist) {
				return nil, carnet.Errorf(carnet.Conflict, "%s is there already, and %s is never written over", filepath.Join(dir, h.Name), what).
					WithFix("name another directory, or remove that one")
			}
			if err != nil {
				return nil, fmt.Errorf("write %s: %w", what, err)
			}
			made = append(made, filepath.Join(dir, h.Name))
		case tar.TypeReg:
			if err := unpack(root, h.Name, archive); err != nil {
				return nil, err
			}
		default:
			return nil, carnet.Errorf(carnet.Malformed, "the %s has %q, which is neither a file nor a directory", what, h.Name)
		}
	}
}

func unpack(root *os.Root, name string, from io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
