package seal

import (
	"crypto/sha256"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"carnet"
)

func leaves(n int) []carnet.Fingerprint {
	list := make([]carnet.Fingerprint, n)
	for i := range list {
		list[i] = carnet.FingerprintOf([]byte{byte(i), byte(i >> 8)})
	}
	return list
}

// naiveRoot is RFC 9162 §2.1.1 word for word.
func naiveRoot(list []carnet.Fingerprint) carnet.Fingerprint {
	switch len(list) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, list[0][:]...))
	}
	k := 1
	for k*2 < len(list) {
		k *= 2
	}
	left, right := naiveRoot(list[:k]), naiveRoot(list[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func TestRootAndProofsAreThoseOfTheRFC(t *testing.T) {
	for n := range 70 {
		list := leaves(n)
		root := Root(list)
		if want := naiveRoot(list); root != want {
			t.Fatalf("root of %d leaves is %s, want %s", n, root, want)
		}
		for i := range list {
			path := Proof(list, i)
			if !VerifyProof(list[i], i, n, path, root) {
				t.Fatalf("leaf %d of %d: own proof refused", i, n)
			}
			var other [][]byte
			for _, h := range path {
				other = append(other, h[:])
			}
			leaf := rfc6962.DefaultHasher.HashLeaf(list[i][:])
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(i), uint64(n), leaf, other, root[:]); err != nil {
				t.Fatalf("leaf %d of %d: transparency-dev/merkle refuses the proof: %v", i, n, err)
			}
		}
		if Proof(list, n) != nil || Proof(list, -1) != nil {
			t.Errorf("a proof for a leaf outside %d leaves", n)
		}
	}
}

func TestWrongProofsAreRefused(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 8, 13, 16} {
		list := leaves(n)
		root := Root(list)
		for i := range list {
			path := Proof(list, i)
			refused := func(what string, leaf carnet.Fingerprint, i, n int, path []carnet.Fingerprint, root carnet.Fingerprint) {
				t.Helper()
				if VerifyProof(leaf, i, n, path, root) {
					t.Errorf("leaf %d of %d: accepted with %s", i, n, what)
				}
			}
			refused("another leaf", carnet.Fingerprint{1}, i, n, path, root)
			refused("a longer path", list[i], i, n, append(path[:len(path):len(path)], root), root)
			refused("another root", list[i], i, n, path, carnet.Fingerprint{})
			refused("no such leaf", list[i], n, n, path, root)
			refused("a negative leaf", list[i], -1, n, path, root)
			if len(path) > 0 {
				refused("a shorter path", list[i], i, n, path[:len(path)-1], root)
				refused("another number", list[i], i^1, n, path, root)
				bad := append([]carnet.Fingerprint{}, path...)
				bad[len(bad)-1][31] ^= 1
				refused("a changed path", list[i], i, n, bad, root)
			}
		}
	}
}
