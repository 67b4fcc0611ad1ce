package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"carnet/api/client"
	"carnet/demo"
	"carnet/identity"
	"carnet/owner"
	"carnet/thing"
)

// demoOwner is the keystore of a demo's owner, open.
type demoOwner struct{ *owner.Keystore }

// openDemoOwner opens the keystore in a demo's directory, as 'carnet owner' does with
// its two files, or makes it under a passphrase that it draws.
func openDemoOwner(dir string) (demo.Keystore, error) {
	dir = filepath.Join(dir, "owner")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the owner's directory: %w", err)
	}
	file, secret := filepath.Join(dir, "keystore"), filepath.Join(dir, "passphrase")
	if _, err := os.Lstat(secret); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(secret, []byte(rand.Text()+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("write the owner's passphrase: %w", err)
		}
	}
	phrase, err := passphrase{PassphraseFile: secret}.read(streams{})
	if err != nil {
		return nil, err
	}
	open := owner.Open
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		open = func(path string, passphrase []byte) (*owner.Keystore, error) {
			return owner.Create(path, passphrase, newKeystores)
		}
	}
	k, err := open(file, phrase)
	if err != nil {
		return nil, err
	}
	return demoOwner{k}, nil
}

// Claim implements demo.Keystore.
func (d demoOwner) Claim(ctx context.Context, hub *client.Client, m thing.MappingInfo) error {
	_, err := claim(ctx, d.Keystore, hub, m)
	return err
}

// Approve implements demo.Keystore.
func (d demoOwner) Approve(r identity.MandateRequest) (string, error) {
	m, err := d.Keystore.Approve(r, time.Now(), identity.MandateLife)
	return m.Token, err
}

// Order implements demo.Keystore.
func (d demoOwner) Order(r identity.MoveRequest) (identity.Ordered, error) {
	return d.Keystore.Order(r, time.Now(), time.Hour)
}
