package evidence

import (
	"crypto/sha256"

	"carnet"
)

// The tree of a frame is that of RFC 9162 §2.1.1, as package seal makes it. A
// bundle proves all of an avatar's batches of a frame with one joint path: the
// hashes that can't be computed from those batches, level by level from the
// leaves, from left to right. For one batch that is the inclusion proof of
// RFC 9162 §2.1.3.1.

type node struct {
	at   int // place in its level
	hash carnet.Fingerprint
}

// joint makes and follows joint paths, and keeps their memory.
type joint struct {
	known []node
	level []carnet.Fingerprint
}

// prove returns the joint path of the leaves own, which ascend.
func (j *joint) prove(leaves []carnet.Fingerprint, own []int) (path []carnet.Fingerprint) {
	j.level = j.level[:0]
	for i := range leaves {
		j.level = append(j.level, leafHash(&leaves[i]))
	}
	known := append([]int(nil), own...)
	for level := j.level; len(level) > 1; {
		n := 0
		for i := 0; i < len(known); i++ {
			at := known[i]
			switch {
			case at^1 >= len(level): // carried up
			case i+1 < len(known) && known[i+1] == at^1:
				i++
			default:
				path = append(path, level[at^1])
			}
			known[n] = at / 2
			n++
		}
		known, level = known[:n], parents(level)
	}
	return path
}

func parents(level []carnet.Fingerprint) []carnet.Fingerprint {
	n := 0
	for i := 0; i < len(level); i += 2 {
		if level[n] = level[i]; i+1 < len(level) {
			level[n] = nodeHash(&level[i], &level[i+1])
		}
		n++
	}
	return level[:n]
}

// begin forgets the leaves that add has taken.
func (j *joint) begin() { j.known = j.known[:0] }

// add takes a leaf; leaves ascend.
func (j *joint) add(at int, leaf carnet.Fingerprint) {
	j.known = append(j.known, node{at, leafHash(&leaf)})
}

// root computes the root of the tree of width leaves that path leads to; false:
// path is not one.
func (j *joint) root(width int, path []carnet.Fingerprint) (root carnet.Fingerprint, ok bool) {
	known := j.known
	for i := range known {
		if known[i].at >= width || i > 0 && known[i].at <= known[i-1].at {
			return root, false
		}
	}
	if len(known) == 0 {
		return root, false
	}
	for ; width > 1; width = (width + 1) / 2 {
		n := 0
		for i := 0; i < len(known); i++ {
			k := known[i]
			switch {
			case k.at^1 >= width: // carried up
			case i+1 < len(known) && known[i+1].at == k.at^1:
				k.hash = nodeHash(&k.hash, &known[i+1].hash)
				i++
			case len(path) == 0:
				return root, false
			case k.at%2 == 0:
				k.hash, path = nodeHash(&k.hash, &path[0]), path[1:]
			default:
				k.hash, path = nodeHash(&path[0], &k.hash), path[1:]
			}
			known[n] = node{k.at / 2, k.hash}
			n++
		}
		known = known[:n]
	}
	return known[0].hash, len(path) == 0
}

func leafHash(leaf *carnet.Fingerprint) carnet.Fingerprint {
	var b [1 + hashSize]byte
	copy(b[1:], leaf[:])
	return sha256.Sum256(b[:])
}

func nodeHash(left, right *carnet.Fingerprint) carnet.Fingerprint {
	var b [1 + 2*hashSize]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+hashSize:], right[:])
	return sha256.Sum256(b[:])
}
