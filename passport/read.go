package passport

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/seal"
)

// Passport is one that was opened: its head and manifest hold together. What they
// name is read, and checked by its hashes, piece by piece.
type Passport struct {
	Head     *Head
	Word     identity.Passport
	Manifest *avatar.Manifest
	Document []byte // the manifest

	dir string
}

// Open reads a passport's head and manifest.
func Open(dir string) (*Passport, error) {
	signed, err := readSmall(filepath.Join(dir, FileHead), maxHead)
	if errors.Is(err, os.ErrNotExist) {
		return nil, carnet.Errorf(carnet.NotFound, "%s has no passport", dir).WithFix("name the directory that carnet avatar export wrote")
	}
	if err != nil {
		return nil, err
	}
	p := &Passport{dir: dir}
	if p.Head, p.Word, err = openHead(signed); err != nil {
		return nil, err
	}
	if p.Document, err = readSmall(filepath.Join(dir, FileManifest), avatar.MaxManifest); err != nil {
		return nil, err
	}
	if carnet.FingerprintOf(p.Document) != p.Word.Manifest {
		return nil, damaged(FileManifest, "is not the one that the world signed")
	}
	if p.Manifest, err = avatar.ParseManifest(p.Document); err != nil {
		return nil, damaged(FileManifest, "can't be used: %v", err)
	}
	if p.Manifest.Crossing != p.Word.Passport || p.Manifest.Avatar != p.Word.Avatar {
		return nil, damaged(FileManifest, "is of another avatar or passport than the world says")
	}
	return p, nil
}

func damaged(file, format string, args ...any) error {
	return carnet.Errorf(carnet.Tampered, file+" "+format, args...).WithFix("use another copy of the passport; carnet verify says what is damaged")
}

// open opens one of a passport's files, which came from somebody else: to open what
// isn't a regular file, or to read it, could wait for ever.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read passport: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = damaged(filepath.Base(path), "is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readSmall reads a file of at most so many bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read passport: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, damaged(filepath.Base(path), "has more than %d bytes", limit)
	}
	return data, nil
}

// Pieces hands over each stretch with its proof, in the manifest's order. The bytes of
// the stretch have its fingerprint; the proof is for the reader to check.
func (p *Passport) Pieces(do func(m avatar.MovedStretch, body, proof []byte) error) error {
	stretches, err := open(filepath.Join(p.dir, FileStretches))
	if err != nil {
		return err
	}
	defer stretches.Close()
	proofs, err := open(filepath.Join(p.dir, FileProofs))
	if err != nil {
		return err
	}
	defer proofs.Close()
	for i := range p.Manifest.Stretches {
		m := p.Manifest.Stretches[i]
		body := make([]byte, m.Size)
		if _, err := io.ReadFull(stretches, body); err != nil {
			return damaged(FileStretches, "ends before stretch %d does: %v", i, err)
		}
		if carnet.FingerprintOf(body) != m.Fingerprint {
			return damaged(FileStretches, "has other bytes of stretch %s (batches %d to %d of stream %s) than its fingerprint says", m.Fingerprint, m.First, m.Last, m.Stream)
		}
		proof, err := readPiece(proofs, avatar.MaxProof)
		if err != nil {
			return damaged(FileProofs, "ends before the proof of stretch %d does: %v", i, err)
		}
		if err := do(m, body, proof); err != nil {
			return err
		}
	}
	return nil
}

// Bags reads the key bags.
func (p *Passport) Bags() (bags [][]byte, err error) {
	f, err := open(filepath.Join(p.dir, FileKeys))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for len(bags) < MaxBags {
		bag, err := readPiece(f, seal.MaxBag)
		if errors.Is(err, io.EOF) {
			return bags, nil
		}
		if err != nil {
			return nil, damaged(FileKeys, "ends in key bag %d: %v", len(bags), err)
		}
		bags = append(bags, bag)
	}
	return nil, damaged(FileKeys, "has more than %d key bags", MaxBags)
}

// Grants are those that were in force when the passport was made.
func (p *Passport) Grants() (all []Granted, err error) {
	if !slices.Contains(p.Head.files(), FileGrants) {
		return nil, nil
	}
	data, err := readSmall(filepath.Join(p.dir, FileGrants), maxBelongings)
	if err != nil {
		return nil, err
	}
	if carnet.FingerprintOf(data) != p.Head.file(FileGrants).Hash {
		return nil, damaged(FileGrants, "is not the one that the world signed")
	}
	return readGrants(data)
}

func readGrants(data []byte) (all []Granted, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return nil, damaged(FileGrants, "can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, damaged(FileGrants, "goes on after its list")
	}
	return all, nil
}

// readPiece reads bytes that have their length before them; io.EOF: there are none.
func readPiece(r io.Reader, limit int) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(n[:])
	if int64(length) > int64(limit) {
		return nil, fmt.Errorf("a piece of %d bytes", length)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("a piece of %d bytes: %w", length, io.ErrUnexpectedEOF)
	}
	return b, nil
}
