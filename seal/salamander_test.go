package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"testing"

	"carnet"
)

// block is an element of GF(2^128) as GCM writes it (NIST SP 800-38D §6.3): bit
// 0 is the highest bit of the first byte.
type block [16]byte

func (x block) add(y block) block {
	for i := range x {
		x[i] ^= y[i]
	}
	return x
}

func (x block) mul(y block) (z block) {
	for i := range 128 {
		if x[i/8]>>(7-i%8)&1 == 1 {
			z = z.add(y)
		}
		carry := y[15] & 1
		for j := 15; j > 0; j-- {
			y[j] = y[j]>>1 | y[j-1]<<7
		}
		y[0] = y[0]>>1 ^ carry*0xe1
	}
	return z
}

// inverse is x to the power 2^128 - 2.
func (x block) inverse() block {
	z := block{0x80}
	for range 127 {
		x = x.mul(x)
		z = z.mul(x)
	}
	return z
}

// ghash is GHASH under h over aad and ciphertext (SP 800-38D §6.4), with the
// power of h that the ciphertext's first block is multiplied with.
func ghash(h block, aad, ciphertext []byte) (sum, firstPower block) {
	padded := func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, (16-len(b)%16)%16)...) }
	all := append(padded(aad), padded(ciphertext)...)
	all = binary.BigEndian.AppendUint64(all, uint64(len(aad))*8)
	all = binary.BigEndian.AppendUint64(all, uint64(len(ciphertext))*8)
	firstPower = block{0x80}
	for i := 0; i < len(all); i += 16 {
		sum = sum.add(block(all[i : i+16])).mul(h)
		if i >= len(padded(aad)) {
			firstPower = firstPower.mul(h)
		}
	}
	return sum, firstPower
}

// twoFaced makes a ciphertext with its tag that AES-GCM opens under both keys:
// the first block is chosen so that the tags meet (Dodis, Grubbs, Ristenpart,
// Woodage: Fast Message Franking, CRYPTO 2018, §3).
func twoFaced(t *testing.T, keys [2][32]byte, nonce, aad []byte, size int) []byte {
	ciphertext := make([]byte, size)
	var sums, powers, masks [2]block
	for i, key := range keys {
		c, err := aes.NewCipher(key[:])
		if err != nil {
			t.Fatal(err)
		}
		var h block
		c.Encrypt(h[:], h[:])
		c.Encrypt(masks[i][:], append(bytes.Clone(nonce), 0, 0, 0, 1))
		sums[i], powers[i] = ghash(h, aad, ciphertext)
	}
	difference := sums[0].add(masks[0]).add(sums[1]).add(masks[1])
	first := difference.mul(powers[0].add(powers[1]).inverse())
	copy(ciphertext, first[:])
	tag := sums[0].add(first.mul(powers[0])).add(masks[0])
	return append(ciphertext, tag[:]...)
}

// TestCiphertextForTwoKeysIsRefused builds a batch whose ciphertext AES-GCM
// opens under two content keys, and shows that the commitment lets one through.
func TestCiphertextForTwoKeysIsRefused(t *testing.T) {
	epoch, slot := newSlot(t, 1)
	honest := Key{Path: epoch.Path, Secret: epoch.Secret}
	other := Key{Path: epoch.Path, Secret: NewEpoch(epoch.Stream).Secret}
	otherSlot, _ := other.Slot(1)

	batch := sealed(t, slot, 1, make([]byte, 128))
	h, protected, ciphertext, err := parseBatch(batch)
	if err != nil {
		t.Fatal(err)
	}
	var keys [2][32]byte
	for i, s := range []*Slot{slot, otherSlot} {
		k := s.BatchKey(h)
		keys[i], _ = contentKey(&k.Secret)
	}
	nonce, aad := nonceOf(protected), appendAAD(nil, protected)
	copy(ciphertext, twoFaced(t, keys, nonce, aad, len(ciphertext)-tagSize))

	var faces [2][]byte
	for i, key := range keys {
		c, _ := aes.NewCipher(key[:])
		gcm, _ := cipher.NewGCM(c)
		if faces[i], err = gcm.Open(nil, nonce, ciphertext, aad); err != nil {
			t.Fatalf("AES-GCM refuses key %d: the construction is wrong", i)
		}
	}
	if bytes.Equal(faces[0], faces[1]) {
		t.Fatal("both keys show the same plaintext: the construction is wrong")
	}

	if got, err := OpenWith(honest, nil, batch); err != nil || !bytes.Equal(got, faces[0]) {
		t.Errorf("the key that the batch commits to: %v", err)
	}
	if _, err := OpenWith(other, nil, batch); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("the other key: %v, want it refused as tampered", err)
	}
}
