package passport

import (
	"bufio"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"

	"carnet"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/identity"
)

// Source has the stretches of an avatar: an *avatar.Agent.
type Source interface {
	StretchBytes(context.Context, carnet.AvatarID, avatar.MovedStretch) ([]byte, error)
	ProofOf(context.Context, carnet.AvatarID, avatar.MovedStretch) ([]byte, error)
}

// Options say what a passport is about.
type Options struct {
	World    evidence.World
	Signer   crypto.Signer // with the public key of World
	Word     string        // identity.Passport, over the manifest
	Manifest []byte        // avatar.Manifest, in its one form
	Bags     [][]byte
	Readers  []Reader // of the bags
	Farewell string
	Policy   string    // the avatar's, as its owner signed it; empty: it has none
	Grants   []Granted // in force
}

// Write writes a passport to dir, which must be empty or not be there. Everything is
// synced before the head is written, which makes it one.
func Write(ctx context.Context, dir string, from Source, o Options) error {
	m, err := avatar.ParseManifest(o.Manifest)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write passport: %w", err)
	}
	head := Head{Version: headVersion, World: o.World, Word: o.Word, Readers: append([]Reader{}, o.Readers...), Farewell: o.Farewell, Policy: o.Policy}
	write := func(name string, fill func(*writer) error) error {
		f, err := writeFile(filepath.Join(dir, name), fill)
		head.Files = append(head.Files, File{name, f.length, f.sum()})
		return err
	}
	err = write(FileManifest, func(w *writer) error { return w.bytes(o.Manifest) })
	if err == nil {
		err = write(FileStretches, func(w *writer) error {
			for _, s := range m.Stretches {
				body, err := from.StretchBytes(ctx, m.Avatar, s)
				if err != nil {
					return err
				}
				if err := w.bytes(body); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err == nil {
		err = write(FileProofs, func(w *writer) error {
			for _, s := range m.Stretches {
				proof, err := from.ProofOf(ctx, m.Avatar, s)
				if err != nil {
					return err
				}
				if err := w.piece(proof); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err == nil {
		err = write(FileKeys, func(w *writer) error {
			for _, bag := range o.Bags {
				if err := w.piece(bag); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err == nil {
		err = writeJSON(write, FileItems, append([]identity.ItemProof{}, m.Items...))
	}
	if err == nil && len(o.Grants) > 0 {
		err = writeJSON(write, FileGrants, o.Grants)
	}
	if err != nil {
		return err
	}
	if _, err := head.check(); err != nil {
		return err
	}
	payload, err := json.Marshal(head)
	if err != nil {
		return err
	}
	signed, err := evidence.SignAs(headType, o.Signer, payload, maxHead)
	if err != nil {
		return err
	}
	if _, err := writeFile(filepath.Join(dir, FileHead), func(w *writer) error { return w.bytes(signed) }); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write passport: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeJSON writes a file of one JSON value.
func writeJSON(write func(string, func(*writer) error) error, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write passport: %w", err)
	}
	return write(name, func(w *writer) error { return w.bytes(text) })
}

// writer writes one file, and hashes it.
type writer struct {
	to     *bufio.Writer
	hash   hash.Hash
	length int64
}

func (w *writer) sum() carnet.Fingerprint { return carnet.Fingerprint(w.hash.Sum(nil)) }

func (w *writer) bytes(b []byte) error {
	w.hash.Write(b)
	w.length += int64(len(b))
	_, err := w.to.Write(b)
	return err
}

// piece writes bytes with their length before them.
func (w *writer) piece(b []byte) error {
	if err := w.bytes(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	return w.bytes(b)
}

// writeFile writes a new file that only its owner reads, and syncs it.
func writeFile(path string, fill func(*writer) error) (w *writer, err error) {
	w = &writer{hash: sha256.New()}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return w, carnet.Errorf(carnet.Conflict, "%s is there already, and a passport is never written over", path).WithFix("name another directory")
	}
	if err != nil {
		return w, fmt.Errorf("write passport: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w.to = bufio.NewWriterSize(f, 1<<18)
	if err := fill(w); err != nil {
		return w, err
	}
	if err := errors.Join(w.to.Flush(), f.Sync()); err != nil {
		return w, fmt.Errorf("write passport: %w", err)
	}
	return w, nil
}
