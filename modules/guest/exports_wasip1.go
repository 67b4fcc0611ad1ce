package guest

import "unsafe"

// in is where the engine puts what it gives.
var in []byte

var ms []Measurement

//go:wasmimport carnet part
func hostPart(at unsafe.Pointer, size uint32) uint32

//go:wasmimport carnet fail
func hostFail(at unsafe.Pointer, size uint32)

type refused struct{}

func (refused) Error() string { return "the engine takes no more output" }

func init() {
	Part = func(b []byte) error {
		if hostPart(unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))) != 0 {
			return refused{}
		}
		return nil
	}
}

// ended tells the engine why the program can't go on.
func ended(err error) uint32 {
	if err == nil {
		return 0
	}
	if _, said := err.(refused); !said {
		words := []byte(err.Error())
		hostFail(unsafe.Pointer(unsafe.SliceData(words)), uint32(len(words)))
	}
	return 1
}

//go:wasmexport carnet_interface
func exportInterface() uint32 { return 1 }

//go:wasmexport carnet_alloc
func exportAlloc(size uint32) unsafe.Pointer {
	if cap(in) < int(size) {
		in = make([]byte, size)
	}
	in = in[:size]
	return unsafe.Pointer(unsafe.SliceData(in))
}

//go:wasmexport carnet_open
func exportOpen(_ unsafe.Pointer, size uint32) uint32 { return ended(program.Open(in[:size])) }

//go:wasmexport carnet_take
func exportTake(_ unsafe.Pointer, size uint32) uint32 {
	avatar, all, err := parse(in[:size], ms)
	if err != nil {
		return ended(err)
	}
	ms = all
	return ended(program.Take(avatar, all))
}

//go:wasmexport carnet_close
func exportClose() uint32 { return ended(program.Close()) }
