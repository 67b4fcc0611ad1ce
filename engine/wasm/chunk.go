package wasm

import (
	"encoding/binary"
	"math"

	"carnet"
)

// chunkRecords is how many measurements a module is given at once, at most.
const chunkRecords = 4096

// recordSize is the length of a measurement in a chunk.
const recordSize = 24

// encoder writes chunks, and keeps its memory. A chunk is measurements of one avatar;
// docs/design/modules.md has the form.
type encoder struct {
	buf     []byte
	strings map[string]uint16
	order   []string
}

// index finds a string in the chunk's table, or puts it there.
func (e *encoder) index(s string) uint16 {
	i, ok := e.strings[s]
	if !ok {
		i = uint16(len(e.order))
		e.strings[s], e.order = i, append(e.order, s)
	}
	return i
}

// encode writes a chunk: at most chunkRecords measurements, which have at most three
// strings each, so that the table's indexes fit. It is good until the next call.
func (e *encoder) encode(avatar string, ms []carnet.Measurement) []byte {
	e.strings, e.order, e.buf = make(map[string]uint16), e.order[:0], e.buf[:0]
	e.index(avatar)
	for i := range ms {
		m := &ms[i]
		e.index(m.Name)
		e.index(m.Unit)
		if m.Value.Kind == carnet.Text || m.Value.Kind == carnet.Data {
			e.index(m.Value.Str)
		}
	}
	b := binary.LittleEndian.AppendUint32(e.buf, uint32(len(ms)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.order)))
	for _, s := range e.order {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	for i := range ms {
		m := &ms[i]
		value := math.Float64bits(m.Value.Num)
		if m.Value.Kind == carnet.Text || m.Value.Kind == carnet.Data {
			value = uint64(e.strings[m.Value.Str])
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(m.Time))
		b = binary.LittleEndian.AppendUint64(b, value)
		b = binary.LittleEndian.AppendUint16(b, e.strings[m.Name])
		b = binary.LittleEndian.AppendUint16(b, e.strings[m.Unit])
		b = append(b, byte(m.Value.Kind), 0, 0, 0)
	}
	e.buf = b
	return b
}
