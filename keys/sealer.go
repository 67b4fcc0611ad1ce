package keys

import (
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"sync/atomic"

	"carnet"
)

// Sealer seals values for storage (sealed columns, log groups) and opens them.
// It may be used by many goroutines.
//
// A sealed value: version (1 byte, 1), key id (8 bytes, the first of the
// SHA-256 of the key's ID), nonce (12), ciphertext, tag (16). The caller says
// in aad where the value belongs, so that values can't be exchanged between
// places.
type Sealer struct {
	newest keyTag
	keys   map[keyTag]cipher.AEAD
	sealed atomic.Uint64
}

const (
	sealerVersion = 1
	sealerHead    = 1 + 8
	sealerMost    = 1 << 32 // values under one key with random nonces (NIST SP 800-38D §8.3)

	// Overhead is how much longer a sealed value is.
	Overhead = sealerHead + 12 + 16
)

type keyTag [8]byte

func tagOf(id ID) keyTag {
	h := sha256.Sum256([]byte(id.Kind + "\x00" + id.Name))
	return keyTag(h[:8])
}

// Sealer seals under the key newest and opens what any of the keys sealed. The
// keys are 256-bit keys of the table. A Sealer goes on after a key of it is
// destroyed: drop it then.
func (t *Table) Sealer(ctx context.Context, newest ID, older ...ID) (*Sealer, error) {
	s := &Sealer{newest: tagOf(newest), keys: make(map[keyTag]cipher.AEAD)}
	for _, id := range append([]ID{newest}, older...) {
		secret, err := t.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		if len(secret) != 32 {
			return nil, carnet.Errorf(carnet.Malformed, "key %s has %d bytes, want 32", id, len(secret))
		}
		if s.keys[tagOf(id)] != nil {
			return nil, fmt.Errorf("make sealer: key %s is given twice", id)
		}
		if s.keys[tagOf(id)], err = newAEAD(secret); err != nil {
			return nil, err
		}
		clear(secret)
	}
	return s, nil
}

// Seal appends the sealed plaintext to dst.
func (s *Sealer) Seal(dst, aad, plaintext []byte) ([]byte, error) {
	if s.sealed.Add(1) > sealerMost {
		return dst, carnet.Errorf(carnet.Unavailable, "a key has sealed as many values as it safely can").WithFix("make a new key")
	}
	dst = append(append(dst, sealerVersion), s.newest[:]...)
	return s.keys[s.newest].Seal(dst, nil, plaintext, aad), nil
}

// Open appends the plaintext of a sealed value to dst.
func (s *Sealer) Open(dst, aad, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != sealerVersion {
		return dst, carnet.Errorf(carnet.Malformed, "a sealed value is not in the form of version 1")
	}
	aead := s.keys[keyTag(sealed[1:])]
	if aead == nil {
		return dst, carnet.Errorf(carnet.NotFound, "a value is sealed under a key that is not at hand")
	}
	plaintext, err := aead.Open(dst, nil, sealed[sealerHead:], aad)
	if err != nil {
		return dst, carnet.Errorf(carnet.Tampered, "a sealed value was changed or belongs elsewhere")
	}
	return plaintext, nil
}
