package demo

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carnet/identity"
)

// A party that is a process of its own logs from the demo's level on; one that ends by
// itself ends the demo.
func TestProcessesLogAsTheDemoDoes(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$@\" > "+dir+"/said\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		p := &party{dir: dir, role: identity.World}
		if err := p.run(t.Context(), program, slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: level}))); err == nil || !strings.Contains(err.Error(), "ended before the demo did") {
			t.Fatalf("a party that ends: %v", err)
		}
		if said, err := os.ReadFile(filepath.Join(dir, "said")); err != nil || !strings.Contains(string(said), " --log-level "+level.String()+" ") {
			t.Errorf("at %s it is run with %s, %v", level, said, err)
		}
	}
}
