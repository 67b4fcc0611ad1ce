package seal

import (
	"slices"
	"testing"

	"carnet"
)

// The joint path of any leaves leads to the root that package seal computes, and
// no shorter or longer or other path does.
func FuzzJointPath(f *testing.F) {
	f.Add(uint16(7), []byte{0, 3, 4})
	f.Add(uint16(1), []byte{0})
	f.Add(uint16(100), []byte{99, 1, 2, 3, 64})
	f.Fuzz(func(t *testing.T, n uint16, picks []byte) {
		leaves := make([]carnet.Fingerprint, n%300)
		for i := range leaves {
			leaves[i] = carnet.FingerprintOf([]byte{byte(i), byte(i >> 8)})
		}
		var own []int
		for _, p := range picks {
			if int(p) < len(leaves) {
				own = append(own, int(p))
			}
		}
		slices.Sort(own)
		if own = slices.Compact(own); len(own) == 0 {
			return
		}
		var j Joint
		path := j.Prove(leaves, own)
		leads := func(path []carnet.Fingerprint) bool {
			j.Begin()
			for _, at := range own {
				j.Add(at, leaves[at])
			}
			root, ok := j.Root(len(leaves), path)
			return ok && root == Root(leaves)
		}
		if !leads(path) {
			t.Fatalf("the joint path of %v of %d leaves doesn't lead to the root", own, len(leaves))
		}
		if len(own) == 1 && !VerifyProof(leaves[own[0]], own[0], len(leaves), path, Root(leaves)) {
			t.Error("the path of one leaf is no inclusion proof")
		}
		if leads(append(slices.Clone(path), carnet.Fingerprint{})) || len(path) > 0 && leads(path[1:]) {
			t.Error("a path with a hash more or less leads to the root, too")
		}
		for i := range path {
			other := slices.Clone(path)
			if other[i][0]++; leads(other) {
				t.Error("another path leads to the root, too")
			}
		}
	})
}

// The paths of parts of some leaves join to the path of all of them.
func FuzzJoinPaths(f *testing.F) {
	f.Add(uint16(7), []byte{0, 3, 4}, byte(2))
	f.Add(uint16(100), []byte{99, 1, 2, 3, 64}, byte(3))
	f.Fuzz(func(t *testing.T, n uint16, picks []byte, many byte) {
		leaves := make([]carnet.Fingerprint, n%300)
		for i := range leaves {
			leaves[i] = carnet.FingerprintOf([]byte{byte(i), byte(i >> 8)})
		}
		parts := make([]JointPart, many%5+1)
		var own []int
		for i, p := range picks {
			if at := int(p); at < len(leaves) && !slices.Contains(own, at) {
				part := &parts[i%len(parts)]
				own, part.Own = append(own, at), append(part.Own, at)
			}
		}
		if parts = slices.DeleteFunc(parts, func(p JointPart) bool { return len(p.Own) == 0 }); len(parts) == 0 {
			return
		}
		slices.Sort(own)
		var j Joint
		for i := range parts {
			slices.Sort(parts[i].Own)
			parts[i].Path = j.Prove(leaves, parts[i].Own)
		}
		all, path, ok := JoinPaths(len(leaves), parts)
		if !ok || !slices.Equal(all, own) || !slices.Equal(path, j.Prove(leaves, own)) {
			t.Fatalf("the paths of %v in %d leaves join to %d hashes (%v), want those of %v", parts, len(leaves), len(path), ok, own)
		}
		var of []carnet.Fingerprint
		for _, at := range own {
			of = append(of, leaves[at])
		}
		for _, p := range parts {
			if reduced, ok := ReducePath(len(leaves), own, of, path, p.Own); !ok || !slices.Equal(reduced, p.Path) {
				t.Errorf("the path of %v reduces to another than that of %v", own, p.Own)
			}
		}
		last := &parts[len(parts)-1]
		last.Path = append(slices.Clone(last.Path), carnet.Fingerprint{})
		if _, _, ok := JoinPaths(len(leaves), parts); ok {
			t.Error("a path with a hash more joins")
		}
		for _, bad := range [][]int{{len(leaves)}, {0, 0}} {
			if _, _, ok := JoinPaths(len(leaves), []JointPart{{Own: bad}}); ok {
				t.Errorf("leaves %v of %d join", bad, len(leaves))
			}
		}
	})
}
