// Package owner owns the keystore of somebody who has things: one file that only
// its owner's passphrase opens, with a key for each world and the mandates that
// were signed by them.
//
// Each world gets another key, drawn at random, so that two worlds which compare
// what they know find nothing in common. A key and a mandate are on disk before
// anybody sees anything of them; a withdrawal is kept until the world that is to
// heed it has acknowledged it. docs/design/mandate.md has the file's format, the
// durable states, and the recovery rule for a crash at each point.
//
// The package must not know worlds, agents or transports, and no process of a
// world or an agent may use it (a test holds that): what signs in the owner's name
// is in the owner's hands alone.
package owner

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"carnet"
	"carnet/claim"
	"carnet/identity"

	"golang.org/x/crypto/argon2"
)

// Params is how hard it is to try passphrases (RFC 9106).
type Params struct {
	Time      uint32 // passes, 1 to 20
	MemoryKiB uint32 // 19 MiB to 1 GiB
	Lanes     uint8  // 1 to 16
}

// Usual is RFC 9106's second recommended option: a third of a second on a
// laptop.
var Usual = Params{Time: 3, MemoryKiB: 64 << 10, Lanes: 4}

// Limits of the parameters: below, a passphrase is found too easily; above, a
// file from elsewhere would keep the machine busy.
const (
	minMemoryKiB = 19 << 10
	maxMemoryKiB = 1 << 20
	maxTime      = 20
	maxLanes     = 16
	saltSize     = 16
	maxFile      = 16 << 20
)

// MinPassphrase is how many bytes a new keystore's passphrase has at least.
const MinPassphrase = 12

// World is a world as its owner's keystore knows it.
type World struct {
	Party carnet.PartyID    // as it calls itself
	Key   ed25519.PublicKey // its signing key, as the owner's things agent has pinned it: two worlds may have one name
}

// Keystore is an open keystore. While it is open no other program opens it. It is
// used by one goroutine.
type Keystore struct {
	path   string
	alone  *claim.Claim
	head   head
	key    [32]byte // of the passphrase
	inside inside
}

// head is the part of the file that is clear.
type head struct {
	Version int    `json:"version"`
	KDF     kdf    `json:"kdf"`
	Nonce   []byte `json:"nonce"`
}

type kdf struct {
	Name      string `json:"name"`
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Lanes     uint8  `json:"lanes"`
	Salt      []byte `json:"salt"`
}

type file struct {
	head
	Sealed []byte `json:"sealed"`
}

// inside is what the passphrase opens.
type inside struct {
	Keys      []worldKey  `json:"keys"`
	Mandates  []held      `json:"mandates"`
	Withdrawn []withdrawn `json:"withdrawn"`
	Policies  []string    `json:"policies,omitempty"` // of avatars, as they are signed: the newest of each
}

type worldKey struct {
	World   worldName         `json:"world"`
	Seed    []byte            `json:"seed"`
	Avatars []carnet.AvatarID `json:"avatars"` // pinned with this key
	// Reception is the private part of the reception key to which that world seals keys
	// in passports; absent: none was drawn yet.
	Reception []byte `json:"reception,omitempty"`
}

type worldName struct {
	Party carnet.PartyID `json:"party"`
	Key   string         `json:"key"` // did:key
}

const (
	version = 1
	kdfName = "argon2id"
)

// Create makes an empty keystore at a path where nothing is, and opens it.
func Create(path string, passphrase []byte, p Params) (*Keystore, error) {
	if len(passphrase) < MinPassphrase {
		return nil, carnet.Errorf(carnet.Malformed, "the passphrase has %d bytes, and who copies the file can try many", len(passphrase)).
			WithFix("choose one of at least %d: several words", MinPassphrase)
	}
	h := head{Version: version, KDF: kdf{Name: kdfName, Time: p.Time, MemoryKiB: p.MemoryKiB, Lanes: p.Lanes, Salt: make([]byte, saltSize)}}
	rand.Read(h.KDF.Salt)
	alone, err := claimFile(path)
	if err != nil {
		return nil, err
	}
	k := &Keystore{path: path, alone: alone, head: h}
	if _, err := os.Lstat(path); err == nil {
		err := carnet.Errorf(carnet.Conflict, "%s exists, and a keystore is never overwritten", path).WithFix("use it, or choose another path")
		return nil, errors.Join(err, k.Close())
	}
	k.key = h.KDF.derive(passphrase)
	if err := k.save(inside{}); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Open opens a keystore. A passphrase that is wrong is carnet.Unauthenticated.
func Open(path string, passphrase []byte) (*Keystore, error) {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to // the file is replaced, not the way to it
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, carnet.Errorf(carnet.NotFound, "there is no keystore at %s", path).WithFix("make one: carnet owner keystore new %s", path)
	}
	alone, err := claimFile(path)
	if err != nil {
		return nil, err
	}
	k := &Keystore{path: path, alone: alone}
	if err := k.load(passphrase); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Close lets others open the keystore.
func (k *Keystore) Close() error {
	clear(k.key[:])
	return k.alone.Release()
}

func (k *Keystore) load(passphrase []byte) error {
	data, err := readFile(k.path)
	if err != nil {
		return err
	}
	f, err := parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.head, k.key = f.head, f.KDF.derive(passphrase)
	aead, err := newAEAD(k.key)
	if err != nil {
		return err
	}
	aad, err := json.Marshal(f.head)
	if err != nil {
		return err
	}
	plain, err := aead.Open(nil, f.Nonce, f.Sealed, aad)
	if err != nil {
		return carnet.Errorf(carnet.Unauthenticated, "the passphrase is wrong")
	}
	if err := strictly(plain, &k.inside); err != nil {
		return carnet.Errorf(carnet.Malformed, "%s was written by another version: %v", k.path, err).WithFix("use the version that wrote it, or a newer one")
	}
	return k.inside.check()
}

// parse reads a keystore file as far as it is clear.
func parse(data []byte) (f file, err error) {
	refuse := func(format string, args ...any) (file, error) {
		return file{}, carnet.Errorf(carnet.Malformed, "the keystore "+format, args...)
	}
	if err := strictly(data, &f); err != nil {
		return refuse("can't be read: %v", err)
	}
	switch d := f.KDF; {
	case f.Version != version:
		return refuse("has version %d, and this program reads %d", f.Version, version)
	case d.Name != kdfName:
		return refuse("derives its key with %.40q, and this program with %s", d.Name, kdfName)
	case d.Time < 1 || d.Time > maxTime || d.MemoryKiB < minMemoryKiB || d.MemoryKiB > maxMemoryKiB || d.Lanes < 1 || d.Lanes > maxLanes:
		return refuse("asks for %d passes over %d KiB in %d lanes: want 1 to %d passes, %d to %d KiB, 1 to %d lanes",
			d.Time, d.MemoryKiB, d.Lanes, maxTime, minMemoryKiB, maxMemoryKiB, maxLanes)
	case len(d.Salt) != saltSize || len(f.Nonce) != nonceSize || len(f.Sealed) < 16:
		return refuse("has a salt of %d bytes, a nonce of %d and %d sealed: want %d, %d and at least 16", len(d.Salt), len(f.Nonce), len(f.Sealed), saltSize, nonceSize)
	}
	return f, nil
}

func (d kdf) derive(passphrase []byte) [32]byte {
	return [32]byte(argon2.IDKey(passphrase, d.Salt, d.Time, d.MemoryKiB, d.Lanes, 32))
}

const nonceSize = 12

func newAEAD(key [32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (in inside) check() error {
	for _, w := range in.Keys {
		if _, err := identity.ParseDID(w.World.Key); err != nil || len(w.Seed) != ed25519.SeedSize {
			return carnet.Errorf(carnet.Malformed, "the keystore's key for %q is no key", w.World.Party)
		}
	}
	return nil
}

// save replaces the file by one with this content, and then takes it as the
// keystore's.
func (k *Keystore) save(in inside) error {
	// Never null: a reader of the file finds three lists.
	in.Keys, in.Mandates, in.Withdrawn = append([]worldKey{}, in.Keys...), append([]held{}, in.Mandates...), append([]withdrawn{}, in.Withdrawn...)
	plain, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("write keystore: %w", err)
	}
	f := file{head: k.head}
	f.Nonce = make([]byte, nonceSize)
	rand.Read(f.Nonce)
	aad, err := json.Marshal(f.head)
	if err != nil {
		return fmt.Errorf("write keystore: %w", err)
	}
	aead, err := newAEAD(k.key)
	if err != nil {
		return err
	}
	f.Sealed = aead.Seal(nil, f.Nonce, plain, aad)
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("write keystore: %w", err)
	}
	if len(data) > maxFile {
		return carnet.Errorf(carnet.TooLarge, "the keystore would have %d bytes, at most %d are read", len(data), maxFile)
	}
	if err := replaceFile(k.path, append(data, '\n')); err != nil {
		return err
	}
	k.head, k.inside = f.head, in
	return nil
}

// Key returns the owner's key for a world. The first time it draws one, which is
// on disk when Key returns.
func (k *Keystore) Key(w World) (ed25519.PrivateKey, error) {
	if i := k.indexOf(w); i >= 0 {
		return ed25519.NewKeyFromSeed(k.inside.Keys[i].Seed), nil
	}
	if _, err := carnet.ParsePartyID(string(w.Party)); err != nil {
		return nil, err
	}
	if len(w.Key) != ed25519.PublicKeySize {
		return nil, carnet.Errorf(carnet.Malformed, "%s has a key of %d bytes, want %d", w.Party, len(w.Key), ed25519.PublicKeySize)
	}
	made := worldKey{World: worldName{w.Party, identity.DID(w.Key)}, Seed: make([]byte, ed25519.SeedSize), Avatars: []carnet.AvatarID{}}
	rand.Read(made.Seed)
	in := k.inside
	in.Keys = append(slices.Clone(in.Keys), made)
	if err := k.save(in); err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(made.Seed), nil
}

func (k *Keystore) indexOf(w World) int {
	return slices.IndexFunc(k.inside.Keys, func(have worldKey) bool {
		return have.World == worldName{w.Party, identity.DID(w.Key)}
	})
}

// Pinned notes that the world has pinned its key with an avatar.
func (k *Keystore) Pinned(w World, avatar carnet.AvatarID) error {
	i := k.indexOf(w)
	if i < 0 {
		return carnet.Errorf(carnet.NotFound, "the keystore has no key for %s", w.Party)
	}
	if slices.Contains(k.inside.Keys[i].Avatars, avatar) {
		return nil
	}
	in := k.inside
	in.Keys = slices.Clone(in.Keys)
	in.Keys[i].Avatars = append(slices.Clone(in.Keys[i].Avatars), avatar)
	return k.save(in)
}

// Known is a world for which the keystore has a key.
type Known struct {
	World   carnet.PartyID    `json:"world"`
	Key     string            `json:"world_key"` // did:key
	Owner   string            `json:"owner"`     // did:key of the owner for this world
	Avatars []carnet.AvatarID `json:"avatars"`   // pinned with it
}

// Worlds lists the worlds for which there is a key, oldest first. It shows no
// secret.
func (k *Keystore) Worlds() []Known {
	all := []Known{}
	for _, w := range k.inside.Keys {
		all = append(all, Known{w.World.Party, w.World.Key, w.did(), slices.Clone(w.Avatars)})
	}
	return all
}

func (w worldKey) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(w.Seed) }
func (w worldKey) did() string                 { return identity.DID(w.private().Public().(ed25519.PublicKey)) }
