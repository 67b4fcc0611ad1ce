package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
)

// self names what a party shows everybody: worlds and depots have one name for
// all, and every party has one certificate for its people and devices.
const self carnet.PartyID = "self"

var (
	serverID = keys.ID{Kind: "tls", Name: "server"}
	ledgerID = keys.ID{Kind: "sign", Name: "ledger"}
	// A depot's as registrar: what signs, and what makes the marks of its changes.
	registerID = keys.ID{Kind: "sign", Name: "register"}
	marksID    = keys.ID{Kind: "mark", Name: "register"}
)

// Init makes a new party: its key-encryption key, its key table with the keys
// that it shows, and its configuration file at path. Nothing that exists is
// replaced.
func Init(ctx context.Context, path string, c Config) error {
	c.dir = filepath.Dir(path)
	if err := c.check(); err != nil {
		return err
	}
	stores, err := openStores(ctx, c)
	if err != nil {
		return err
	}
	kek, err := keys.CreateFile(c.path(c.KeyFile))
	if err != nil {
		return errors.Join(err, stores.close())
	}
	if err := errors.Join(makeKeys(ctx, c, stores, kek), stores.close()); err != nil {
		return err
	}
	return c.Write(path)
}

func makeKeys(ctx context.Context, c Config, s *stores, kek keys.KEK) error {
	store, err := s.keys(ctx)
	if err != nil {
		return err
	}
	table, err := keys.Create(ctx, keys.Config{KEK: kek, Store: store})
	if err != nil {
		return err
	}
	if err := makeCertificate(ctx, c, table); err != nil {
		return err
	}
	if c.Role != identity.Things {
		if _, err := identity.Make(ctx, table, self, c.Party, time.Now()); err != nil {
			return err
		}
	}
	if c.Role != identity.Depot {
		return nil
	}
	for _, id := range []keys.ID{ledgerID, registerID} {
		if _, err := table.MakeSigner(ctx, id); err != nil {
			return err
		}
	}
	_, err = table.Make(ctx, marksID)
	return err
}

// NewToken draws a token, 160 random bits, and what the configuration keeps of it.
func NewToken(name, role string) (token string, kept Token) {
	b := make([]byte, 20+16)
	rand.Read(b)
	token = strings.ToLower(base32.StdEncoding.EncodeToString(b[:20]))
	kept = Token{Name: name, Role: role, Salt: hex.EncodeToString(b[20:])}
	kept.Hash = kept.hash(token)
	return token, kept
}

func (t Token) hash(token string) string {
	h := sha256.Sum256([]byte(t.Salt + token))
	return hex.EncodeToString(h[:])
}

func ledgerSigner(ctx context.Context, c Config, table *keys.Table) (*ledger.Signer, error) {
	key, err := table.Signer(ctx, ledgerID)
	if err != nil {
		return nil, err
	}
	return ledger.NewSigner(string(c.Party)+".carnet.ledger", key)
}
