package client

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"carnet"
)

// Evidence fetches an avatar's evidence bundle into a new directory below dir,
// and returns that directory. It holds keys: only its owner may read it.
func (c *Client) Evidence(ctx context.Context, id carnet.AvatarID, dir string) (bundle string, err error) {
	answer, err := c.open(ctx, http.MethodGet, "/v1/avatars/"+id.String()+"/evidence", "application/x-tar", nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("write evidence: %w", err)
	}
	// What the tar names is a world's word: nothing outside dir is touched.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("write evidence: %w", err)
	}
	defer root.Close()
	for archive := tar.NewReader(answer.Body); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(dir, bundle), nil
		} else if err != nil {
			return "", carnet.Errorf(carnet.Unavailable, "the evidence did not arrive whole: %v", err).WithFix("ask again")
		}
		switch h.Typeflag {
		case tar.TypeDir:
			bundle = filepath.Clean(h.Name)
			if err := root.Mkdir(bundle, 0o700); err != nil {
				return "", fmt.Errorf("write evidence: %w", err)
			}
		case tar.TypeReg:
			if err := unpack(root, h.Name, archive); err != nil {
				return "", err
			}
		default:
			return "", carnet.Errorf(carnet.Malformed, "the evidence has %q, which is neither a file nor a directory", h.Name)
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
