package node

import (
	"os"
	"path/filepath"
	"testing"
)

// A process that ended while it made evidence leaves keys in the clear: the next
// start removes them, and nothing else.
func TestBundlesAreRemovedAtTheStart(t *testing.T) {
	data := filepath.Join(t.TempDir(), "a[b]*") // no pattern
	left := filepath.Join(data, bundlesPrefix+"123", "arena-1")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(left, "keys.bin"), filepath.Join(data, "state.db"), filepath.Join(data, "evidence")} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeBundles(data); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(data)
	if err != nil || len(entries) != 2 || entries[0].Name() != "evidence" || entries[1].Name() != "state.db" {
		t.Errorf("left: %v, %v", entries, err)
	}
}
