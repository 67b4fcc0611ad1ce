package keys

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"carnet"
)

// FileKEK is a key-encryption key in a file that only its owner can read. It
// protects a database that is copied without the file, and nothing against who
// reads both.
//
// The file is two lines: a title, and the key as 64 hexadecimal digits.
type FileKEK struct {
	id   string
	aead cipher.AEAD
}

const fileTitle = "carnet key-encryption key 1\n"

// CreateFile draws a key and writes it to a new file of mode 0600, durably. It
// refuses a path where something is already.
func CreateFile(path string) (*FileKEK, error) {
	var key [32]byte
	rand.Read(key[:])
	return CopyFile(path, []byte(fileTitle+hex.EncodeToString(key[:])+"\n"))
}

// CopyFile writes the text of a key file to a new file, as CreateFile does.
func CopyFile(path string, text []byte) (*FileKEK, error) {
	key, ok := parseFile(text)
	if !ok {
		return nil, carnet.Errorf(carnet.Malformed, "that is not a key-encryption key file of version 1")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, carnet.Errorf(carnet.Conflict, "%s exists, and a key is never overwritten", path).
			WithFix("open it, or choose another path")
	}
	if err != nil {
		return nil, fmt.Errorf("create key file: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		// What isn't known to be on disk is no key: asked again, another file is written.
		return nil, fmt.Errorf("write key file: %w", errors.Join(err, os.Remove(path)))
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return newFileKEK(key)
}

// SyncDir makes durable which files a directory of key files has.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open directory of key file: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory of key file: %w", err)
	}
	return nil
}

// OpenFile reads a key that CreateFile wrote. It refuses a file that others
// than its owner may touch.
func OpenFile(path string) (*FileKEK, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, carnet.Errorf(carnet.Malformed, "%s is no regular file", path) // to open a FIFO is to wait
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, carnet.Errorf(carnet.NotFound, "there is no key-encryption key at %s", path).
			WithFix("restore it, or create one for a new store")
	}
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, carnet.Errorf(carnet.Malformed, "%s is no regular file", path)
	}
	if info.Mode().Perm()&0o177 != 0 {
		return nil, carnet.Errorf(carnet.Forbidden, "%s has mode %04o, so others can touch the key", path, info.Mode().Perm()).
			WithFix("chmod 600 %s", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	key, ok := parseFile(text)
	if !ok {
		return nil, carnet.Errorf(carnet.Malformed, "%s is not a key-encryption key file of version 1", path)
	}
	return newFileKEK(key)
}

func parseFile(text []byte) (key [32]byte, ok bool) {
	digits, ok := strings.CutPrefix(string(text), fileTitle)
	raw, err := hex.DecodeString(strings.TrimSuffix(digits, "\n"))
	if !ok || err != nil || len(raw) != len(key) {
		return key, false
	}
	return [32]byte(raw), true
}

func newFileKEK(key [32]byte) (*FileKEK, error) {
	aead, err := newAEAD(key[:])
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(append([]byte("carnet/1 kek id\x00"), key[:]...))
	return &FileKEK{"file-" + hex.EncodeToString(id[:8]), aead}, nil
}

// ID is derived from the key.
func (k *FileKEK) ID() string { return k.id }

// Wrap encrypts with AES-256-GCM under a random nonce.
func (k *FileKEK) Wrap(_ context.Context, context, plaintext []byte) ([]byte, error) {
	return k.aead.Seal(nil, nil, plaintext, context), nil
}

// Unwrap opens what Wrap made.
func (k *FileKEK) Unwrap(_ context.Context, context, wrapped []byte) ([]byte, error) {
	plaintext, err := k.aead.Open(nil, nil, wrapped, context)
	if err != nil {
		return nil, carnet.Errorf(carnet.Tampered, "the key-encryption key %s does not open what is stored", k.id).
			WithFix("give the key-encryption key that the store was made with")
	}
	return plaintext, nil
}

// newAEAD returns AES-256-GCM that draws a random nonce and puts it in front.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("use key: %w", err)
	}
	return aead, nil
}
