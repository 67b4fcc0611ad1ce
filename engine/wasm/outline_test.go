package wasm

import (
	"bytes"
	"slices"
	"testing"
)

// Whatever the bytes are, they are read to an end; what is compiled of a module is read as
// the module is.
func FuzzOutline(f *testing.F) {
	whole := assembled{tables: [][]byte{table(1, -1), table(2, 3)}, locals: []byte{7, 0x7e}}.module()
	f.Add(whole)
	f.Add(slices.Concat(whole, section(0, nil, nil), section(11, []byte{0, 0x41, 0, 0x0b, 3, 1, 2, 3})))
	f.Add(slices.Concat([]byte(header), section(9, []byte{0, 0x41, 0, 0x0b, 1, 0}, []byte{5, 0x70, 1, 0xd0, 0x70, 0x0b}, []byte{7, 0x70, 0})))
	f.Add(slices.Concat([]byte(header), section(6, []byte{0x7b, 1, 0xfd, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b})))
	f.Fuzz(func(t *testing.T, module []byte) {
		if !bytes.HasPrefix(module, []byte(header)) {
			return
		}
		o, err := outlineOf(module)
		if err != nil {
			return
		}
		again, err := outlineOf(o.bare)
		if err != nil || again.memory != o.memory || again.tables != o.tables || !bytes.Equal(again.bare, o.bare) {
			t.Errorf("what is compiled is read as %+v, %v; the module as %+v", again, err, o)
		}
	})
}
