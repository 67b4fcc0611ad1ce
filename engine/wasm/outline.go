package wasm

import (
	"carnet"
)

// outline is what a module's binary says of the room that it takes. It is read before the
// runtime reads anything: that makes room for as many items as a module says it has, and
// finds out afterwards that they aren't there.
type outline struct {
	memory bool   // it has one of its own
	tables uint64 // bytes of its tables, each as large as it can become
	// bare is the module as it is compiled: without custom sections, which decide nothing of
	// what it does, and with a maximum for each table: one that names none doesn't grow.
	bare []byte
}

// Bounds of a module, beside its size.
const (
	mostItems  = 1 << 18 // types, parameters, imports, functions, globals, exports, elements, segments: in all
	mostLocals = 1 << 22 // of all functions
	mostOwn    = 50_000  // of one function, as browsers have it
)

// entryBytes is what an entry of a table takes.
const entryBytes = 8

// The sections of a module, by their ids (WebAssembly Core 2.0, 5.5.2).
const (
	sectionCustom = iota
	sectionType
	sectionImport
	sectionFunction
	sectionTable
	sectionMemory
	sectionGlobal
	sectionExport
	sectionStart
	sectionElement
	sectionCode
	sectionData
	sectionDataCount
	sections
)

const header = "\x00asm\x01\x00\x00\x00"

// outlineOf reads a module, and refuses one that says it has more than it has, or more
// than modules may have.
func outlineOf(program []byte) (outline, error) {
	r := &decoder{rest: program[len(header):]}
	o := outline{bare: append(make([]byte, 0, len(program)+64), header...)}
	for len(r.rest) > 0 {
		id := r.byte()
		body := r.bytes(r.number())
		if id == sectionCustom {
			continue
		}
		if id >= sections {
			return o, r.malformed("it has a section %d", id)
		}
		next := r.rest
		r.rest = body
		if id == sectionTable {
			body = r.tables(&o)
		} else {
			r.section(id, &o)
		}
		if r.err == nil && len(r.rest) > 0 {
			return o, r.malformed("its section %d has %d bytes too many", id, len(r.rest))
		}
		if r.err != nil {
			return o, r.err
		}
		r.rest = next
		o.bare = append(append(o.bare, id), unsignedLEB(uint32(len(body)))...)
		o.bare = append(o.bare, body...)
	}
	return o, r.err
}

// decoder reads a module's bytes. After an error there is nothing more to read.
type decoder struct {
	rest          []byte
	items, locals int
	err           error
}

func (r *decoder) malformed(format string, args ...any) error {
	return r.fail(carnet.Errorf(carnet.Malformed, "the module doesn't compile: "+format, args...))
}

func (r *decoder) fail(err error) error {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
	return r.err
}

func (r *decoder) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.rest)) {
		_ = r.malformed("it is cut off, or says that it has more than it has")
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *decoder) byte() byte {
	if b := r.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// number reads an unsigned number of 32 bits.
func (r *decoder) number() (n uint32) {
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		if shift == 28 && b > 0x0f {
			break
		}
		n |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	_ = r.malformed("a number has more than 32 bits")
	return 0
}

// skipNumber reads a number of at most 64 bits, whatever it is.
func (r *decoder) skipNumber() {
	for range 10 {
		if r.byte() < 0x80 {
			return
		}
	}
	_ = r.malformed("a number has more than 64 bits")
}

// count reads how many items follow, of which each has at least so many bytes.
func (r *decoder) count(least int) int {
	n := r.number()
	if uint64(n)*uint64(least) > uint64(len(r.rest)) {
		_ = r.malformed("it is cut off, or says that it has more than it has")
		return 0
	}
	if r.items += int(n); r.items > mostItems {
		_ = r.fail(carnet.Errorf(carnet.TooLarge, "the module has more than %d types, functions, elements and other items", mostItems))
		return 0
	}
	return int(n)
}

// section reads a section, as far as it says how much there is of something.
func (r *decoder) section(id byte, o *outline) {
	switch id {
	case sectionType:
		for range r.count(3) {
			if form := r.byte(); form != 0x60 && r.err == nil {
				_ = r.malformed("it has a type of the form %#x", form)
			}
			r.bytes(uint32(r.count(1))) // a value type is one byte
			r.bytes(uint32(r.count(1)))
		}
	case sectionImport:
		for range r.count(4) {
			r.bytes(r.number())
			name := r.bytes(r.number())
			if kind := r.byte(); kind != 0 && r.err == nil {
				_ = r.fail(carnet.Errorf(carnet.Forbidden, "the module imports %.40q, which is no function: it has memories, tables and globals of its own", name))
			}
			r.number()
		}
	case sectionFunction:
		for range r.count(1) {
			r.number()
		}
	case sectionMemory:
		n := r.count(2)
		o.memory = o.memory || n > 0
		for range n {
			r.limits()
		}
	case sectionExport:
		for range r.count(3) {
			r.bytes(r.number())
			r.byte()
			r.number()
		}
	case sectionGlobal:
		for range r.count(4) {
			r.bytes(2)
			r.expression()
		}
	case sectionElement:
		for range r.count(3) {
			r.element()
		}
	case sectionCode:
		for range r.count(3) {
			r.function()
		}
	case sectionData:
		for range r.count(2) {
			kind := r.number()
			if kind == 2 {
				r.number()
			}
			if kind != 1 {
				r.expression()
			}
			r.bytes(r.number())
		}
	default: // one number
		r.number()
	}
}

// limits reads how large something is at least and at most.
func (r *decoder) limits() (least, most uint32, bounded bool) {
	switch flag := r.byte(); flag {
	case 0:
		return r.number(), 0, false
	case 1:
		least = r.number()
		return least, r.number(), true
	default:
		_ = r.malformed("limits begin with %#x", flag)
		return 0, 0, false
	}
}

// tables reads the tables, and writes them with a maximum each.
func (r *decoder) tables(o *outline) []byte {
	n := r.count(3)
	body := unsignedLEB(uint32(n))
	for range n {
		kind := r.byte()
		least, most, bounded := r.limits()
		if !bounded {
			most = least
		}
		o.tables += uint64(max(least, most)) * entryBytes
		body = append(body, kind, 1)
		body = append(append(body, unsignedLEB(least)...), unsignedLEB(most)...)
	}
	return body
}

// element reads a segment of elements.
func (r *decoder) element() {
	kind := r.number()
	if kind > 7 {
		_ = r.malformed("it has elements of the kind %d", kind)
		return
	}
	passive, named, expressions := kind&1 != 0, kind&2 != 0, kind&4 != 0
	if !passive {
		if named {
			r.number()
		}
		r.expression()
	}
	if passive || named {
		r.byte() // what they are
	}
	for range r.count(1) {
		if expressions {
			r.expression()
		} else {
			r.number()
		}
	}
}

// expression reads a constant expression.
func (r *decoder) expression() {
	for r.err == nil {
		switch op := r.byte(); op {
		case 0x0b: // end
			return
		case 0x41, 0x42: // i32.const, i64.const
			r.skipNumber()
		case 0x43: // f32.const
			r.bytes(4)
		case 0x44: // f64.const
			r.bytes(8)
		case 0x23, 0xd2: // global.get, ref.func
			r.number()
		case 0xd0: // ref.null
			r.byte()
		case 0xfd: // v128.const
			r.number()
			r.bytes(16)
		default:
			_ = r.malformed("a constant is made by the instruction %#x", op)
		}
	}
}

// function reads how many locals a function has.
func (r *decoder) function() {
	code := r.bytes(r.number())
	next := r.rest
	r.rest = code
	own := uint64(0)
	for range r.number() {
		if own += uint64(r.number()); own > mostOwn {
			_ = r.fail(carnet.Errorf(carnet.TooLarge, "a function of the module has more than %d locals", mostOwn))
		}
		r.byte()
		if r.err != nil {
			return
		}
	}
	if r.locals += int(own); r.locals > mostLocals {
		_ = r.fail(carnet.Errorf(carnet.TooLarge, "the functions of the module have more than %d locals", mostLocals))
		return
	}
	if r.err == nil {
		r.rest = next
	}
}

// unsignedLEB writes a number as modules have it.
func unsignedLEB(n uint32) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
