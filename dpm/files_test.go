package dpm

import (
	"os"
	"path/filepath"
	"testing"

	"carnet"
)

// Content that is damaged is found in whatever directory the operator has chosen.
func TestDamagedContentInAnyDirectory(t *testing.T) {
	for _, dir := range []string{"jobs", "[jobs", "[a-z]*"} {
		f := files{filepath.Join(t.TempDir(), dir)}
		good, damaged := carnet.FingerprintOf([]byte("good")), carnet.FingerprintOf([]byte("damaged"))
		if err := f.make("arena.1"); err != nil {
			t.Fatal(err)
		}
		for _, name := range []carnet.Fingerprint{good, damaged} {
			if err := os.WriteFile(f.content("arena.1", name), []byte("good"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.check("arena.1"); err != nil || !f.has("arena.1", good, 4) || f.has("arena.1", damaged, 4) {
			t.Errorf("in %q there is the damaged content: %t, and the good: %t, %v", dir, f.has("arena.1", damaged, 4), f.has("arena.1", good, 4), err)
		}
	}
}
