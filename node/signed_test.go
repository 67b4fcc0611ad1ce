package node

import (
	"slices"
	"testing"

	"carnet/engine/sql"
)

// WebAssembly must be signed unless the operator says otherwise; queries never.
func TestWhatMustBeSigned(t *testing.T) {
	var c Config
	if only := signed(c.World.UnsignedPrograms); !slices.Equal(only, []string{"wasm"}) {
		t.Errorf("without a setting the engines of signed modules are %q", only)
	}
	if only := signed(true); len(only) > 0 || slices.Contains(signed(false), sql.Engine{}.Name()) {
		t.Errorf("with unsigned_programs they are %q", only)
	}
}
