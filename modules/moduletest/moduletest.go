// Package moduletest builds modules for tests, as make modules does, and runs their
// programs without an engine. It owns the command line by which they are built, and must
// not know what they compute.
package moduletest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet/modules/guest"
)

var (
	mu    sync.Mutex
	built = make(map[string][]byte) // guarded by mu
)

// Build returns the WebAssembly of the module in carnet/modules with this name. The
// same source gives the same bytes: the build names no path, version or time.
func Build(t testing.TB, name string) []byte {
	t.Helper()
	return BuildPackage(t, "carnet/modules/"+name)
}

// BuildPackage builds a package that is a module.
func BuildPackage(t testing.TB, pkg string) []byte {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if m := built[pkg]; m != nil {
		return m
	}
	out := filepath.Join(t.TempDir(), "module.wasm")
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-buildmode=c-shared", "-o", out, pkg)
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if said, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the module %s: %v\n%s", pkg, err, said)
	}
	m, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	built[pkg] = m
	return m
}

// Said is what one avatar's things measured.
type Said struct {
	Avatar       string
	Measurements []guest.Measurement
}

// Run runs a program as the engine does, and returns what it puts out.
func Run(t testing.TB, p guest.Program, parameters string, all ...Said) (string, error) {
	t.Helper()
	var out strings.Builder
	before := guest.Part
	guest.Part = func(b []byte) error { out.Write(b); return nil }
	defer func() { guest.Part = before }()
	if parameters == "" {
		parameters = "{}"
	}
	err := p.Open([]byte(parameters))
	for _, s := range all {
		if err == nil {
			err = p.Take(s.Avatar, s.Measurements)
		}
	}
	if err == nil {
		err = p.Close()
	}
	return out.String(), err
}

// Number is a measurement of a number.
func Number(name string, at time.Duration, value float64, unit string) guest.Measurement {
	return guest.Measurement{Name: name, Unit: unit, Time: int64(at), Number: value, Kind: guest.Number}
}
