package seal

import (
	"slices"

	"carnet"
)

// Joint makes and follows joint paths, and keeps their memory. A joint path proves
// several batches of a frame at once: the hashes that can't be computed from
// those batches, level by level from the leaves, from left to right. For one
// batch it is the inclusion proof of RFC 9162 §2.1.3.1. A Joint is for one
// goroutine.
type Joint struct {
	known []jointNode
	level []carnet.Fingerprint
}

type jointNode struct {
	at   int // place in its level
	hash carnet.Fingerprint
}

// Prove returns the joint path of the leaves own, which ascend.
func (j *Joint) Prove(leaves []carnet.Fingerprint, own []int) (path []carnet.Fingerprint) {
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

// Begin forgets the leaves that Add has taken.
func (j *Joint) Begin() { j.known = j.known[:0] }

// Add takes a leaf; leaves ascend.
func (j *Joint) Add(at int, leaf carnet.Fingerprint) {
	j.known = append(j.known, jointNode{at, leafHash(&leaf)})
}

// Root computes the root of the tree of width leaves that path leads to; false:
// path is not one.
func (j *Joint) Root(width int, path []carnet.Fingerprint) (root carnet.Fingerprint, ok bool) {
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
			known[n] = jointNode{k.at / 2, k.hash}
			n++
		}
		known = known[:n]
	}
	return known[0].hash, len(path) == 0
}

// JointPart is a joint path of some leaves of a tree.
type JointPart struct {
	Own  []int // ascending
	Path []carnet.Fingerprint
}

// JoinPaths makes of the paths of several sets of leaves of one tree the path of
// all of them; false: a path has another length than that of its leaves. No leaf
// is in two sets.
//
// What the path of all needs is the sibling of a node above some leaf, with none
// of the leaves below it: so it is in the path of the set that has that leaf.
func JoinPaths(width int, parts []JointPart) (own []int, path []carnet.Fingerprint, ok bool) {
	type node struct{ level, at int }
	beside := make(map[node]carnet.Fingerprint)
	for _, p := range parts {
		rest := p.Path
		if !climb(width, p.Own, func(level, at int) bool {
			if len(rest) == 0 {
				return false
			}
			beside[node{level, at}], rest = rest[0], rest[1:]
			return true
		}) || len(rest) > 0 {
			return nil, nil, false
		}
		own = append(own, p.Own...)
	}
	slices.Sort(own)
	path = []carnet.Fingerprint{}
	ok = climb(width, own, func(level, at int) bool {
		h, known := beside[node{level, at}]
		path = append(path, h)
		return known
	})
	return own, path, ok
}

// climb goes up from leaves and names, in the order of a joint path, the nodes
// beside the way; it ends where one isn't at hand, or the leaves can't be.
func climb(width int, own []int, sibling func(level, at int) bool) bool {
	known := append([]int(nil), own...)
	for i := range known {
		if known[i] >= width || i > 0 && known[i] <= known[i-1] {
			return false
		}
	}
	for level := 0; width > 1; level, width = level+1, (width+1)/2 {
		n := 0
		for i := 0; i < len(known); i++ {
			at := known[i]
			switch {
			case at^1 >= width: // carried up
			case i+1 < len(known) && known[i+1] == at^1:
				i++
			case !sibling(level, at^1):
				return false
			}
			known[n] = at / 2
			n++
		}
		known = known[:n]
	}
	return len(known) == 1
}

// ReducePath makes of the joint path of some leaves that of those of them to keep;
// false: path is not that of the leaves. Leaves are given in the order of own.
func ReducePath(width int, own []int, leaves, path []carnet.Fingerprint, keep []int) (reduced []carnet.Fingerprint, ok bool) {
	type node struct{ level, at int }
	hashes := make(map[node]carnet.Fingerprint)
	for i, at := range own {
		hashes[node{0, at}] = leafHash(&leaves[i])
	}
	if !climb(width, own, func(level, at int) bool {
		if len(path) == 0 {
			return false
		}
		hashes[node{level, at}], path = path[0], path[1:]
		return true
	}) || len(path) > 0 {
		return nil, false
	}
	for level, n := 0, width; n > 1; level, n = level+1, (n+1)/2 {
		for at := 0; at < n; at += 2 {
			left, ok := hashes[node{level, at}]
			if at+1 == n && ok {
				hashes[node{level + 1, at / 2}] = left // carried up
				continue
			}
			if right, both := hashes[node{level, at + 1}]; ok && both {
				hashes[node{level + 1, at / 2}] = nodeHash(&left, &right)
			}
		}
	}
	reduced = []carnet.Fingerprint{}
	ok = climb(width, keep, func(level, at int) bool {
		h, known := hashes[node{level, at}]
		reduced = append(reduced, h)
		return known
	})
	return reduced, ok
}
