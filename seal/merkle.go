package seal

import (
	"crypto/sha256"

	"carnet"
)

// Root returns the Merkle tree hash of RFC 9162 §2.1.1 over the leaves, each
// the fingerprint of a batch.
func Root(leaves []carnet.Fingerprint) carnet.Fingerprint {
	root, _ := rootWith(nil, leaves)
	return root
}

// rootWith computes Root in scratch, which it returns to be used again.
//
// It goes up level by level and carries an odd last node up unchanged. That is
// the tree of the RFC, which splits at the largest power of two below n: every
// left subtree is full, and only the right edge is ever odd.
func rootWith(scratch, leaves []carnet.Fingerprint) (root carnet.Fingerprint, _ []carnet.Fingerprint) {
	if len(leaves) == 0 {
		return sha256.Sum256(nil), scratch
	}
	nodes := scratch[:0]
	for i := range leaves {
		nodes = append(nodes, leafHash(&leaves[i]))
	}
	for level := nodes; len(level) > 1; {
		level = parents(level)
	}
	return nodes[0], nodes
}

// parents overwrites the front of level with the level above it.
func parents(level []carnet.Fingerprint) []carnet.Fingerprint {
	n := 0
	for i := 0; i < len(level); i += 2 {
		if i+1 < len(level) {
			level[n] = nodeHash(&level[i], &level[i+1])
		} else {
			level[n] = level[i]
		}
		n++
	}
	return level[:n]
}

// Proof returns the inclusion proof of leaf i (RFC 9162 §2.1.3.1), and nil when
// there is no leaf i.
func Proof(leaves []carnet.Fingerprint, i int) []carnet.Fingerprint {
	if i < 0 || i >= len(leaves) {
		return nil
	}
	level := make([]carnet.Fingerprint, len(leaves))
	for j := range leaves {
		level[j] = leafHash(&leaves[j])
	}
	proof := []carnet.Fingerprint{}
	for ; len(level) > 1; i /= 2 {
		if sibling := i ^ 1; sibling < len(level) {
			proof = append(proof, level[sibling])
		}
		level = parents(level)
	}
	return proof
}

// VerifyProof reports whether proof proves that leaf is number i of the n leaves
// under root (RFC 9162 §2.1.3.2).
func VerifyProof(leaf carnet.Fingerprint, i, n int, proof []carnet.Fingerprint, root carnet.Fingerprint) bool {
	if i < 0 || i >= n {
		return false
	}
	hash := leafHash(&leaf)
	for last := n - 1; last > 0; i, last = i/2, last/2 {
		if i == last && i%2 == 0 {
			continue // carried up: no sibling on this level
		}
		if len(proof) == 0 {
			return false
		}
		if i%2 == 0 {
			hash = nodeHash(&hash, &proof[0])
		} else {
			hash = nodeHash(&proof[0], &hash)
		}
		proof = proof[1:]
	}
	return len(proof) == 0 && hash == root
}

// Leaves and nodes are hashed with different first bytes, so neither passes for
// the other.
func leafHash(leaf *carnet.Fingerprint) carnet.Fingerprint {
	var b [1 + 32]byte
	copy(b[1:], leaf[:])
	return sha256.Sum256(b[:])
}

func nodeHash(left, right *carnet.Fingerprint) carnet.Fingerprint {
	var b [1 + 32 + 32]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}
