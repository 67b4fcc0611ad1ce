package wasm

import "slices"

// assembled is a module in the binary format (WebAssembly Core 2.0, chapter 5), made
// by hand: what a compiler wouldn't make.
type assembled struct {
	open, take, close []byte // bodies, each but its end; nil: answers 0
	alloc             []byte // nil: answers 1024
	lacks             string // an export that it lacks
	imports           string // of env; empty: none
	version           byte   // what carnet_interface answers; 0: 1
	homeless          bool   // it has no memory
	tables            [][]byte
	locals            []byte // of carnet_take: how many of which type; nil: none
	after             []byte // another section, at the end
	reaches           bool   // it imports what of WASI would reach out of it
}

// The functions that a module here may call, by their numbers.
const (
	fnPart = iota
	fnFail
	fnWrite
	fnRandom
	fnClock
	// With reaches.
	fnPathOpen
	fnPrestat
	fnAccept
)

// opens opens the directory that a module finds under a number, if there is one; prestat
// asks whether it was given it, accept takes a connection from it.
func opens(fd int) []byte {
	path := slices.Concat(number(0), number('.'), []byte{0x3a, 0, 0}) // i32.store8 0 "."
	rights := []byte{0x42, 0}
	return slices.Concat(path, number(fd), number(0), number(0), number(1), number(2), rights, rights, number(0), number(8), call(fnPathOpen))
}

func prestat(fd int) []byte { return slices.Concat(number(fd), number(8), call(fnPrestat)) }
func accept(fd int) []byte  { return slices.Concat(number(fd), number(0), number(8), call(fnAccept)) }

// Some instructions.
var (
	zero        = []byte{0x41, 0}
	unreachable = []byte{0x00}
)

// forever repeats a body.
func forever(body ...byte) []byte {
	return slices.Concat([]byte{0x03, 0x40}, body, []byte{0x0c, 0, 0x0b}, zero) // loop … br 0 end
}

// number pushes an i32; call calls a function; drop drops what it answers.
func number(n int) []byte { return append([]byte{0x41}, signed(n)...) }
func call(fn byte) []byte { return []byte{0x10, fn} }

var drop = []byte{0x1a}

func signed(n int) (b []byte) {
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func unsigned(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func section(id byte, items ...[]byte) []byte {
	body := unsigned(len(items))
	for _, i := range items {
		body = append(body, i...)
	}
	return slices.Concat([]byte{id}, unsigned(len(body)), body)
}

func name(s string) []byte { return append(unsigned(len(s)), s...) }

// module assembles it.
func (a assembled) module() []byte {
	i32, i64 := byte(0x7f), byte(0x7e)
	types := [][]byte{
		{0x60, 0, 1, i32}, {0x60, 1, i32, 1, i32}, {0x60, 2, i32, i32, 1, i32}, {0x60, 2, i32, i32, 0},
		{0x60, 4, i32, i32, i32, i32, 1, i32}, {0x60, 3, i32, i64, i32, 1, i32},
		{0x60, 9, i32, i32, i32, i32, i32, i64, i64, i32, i32, 1, i32}, {0x60, 3, i32, i32, i32, 1, i32},
	}
	imported := func(from, what string, typ byte) []byte { return slices.Concat(name(from), name(what), []byte{0, typ}) }
	wasi := "wasi_snapshot_preview1"
	imports := [][]byte{
		imported("carnet", "part", 2), imported("carnet", "fail", 3), imported(wasi, "fd_write", 4), imported(wasi, "random_get", 2), imported(wasi, "clock_time_get", 5),
	}
	if a.reaches {
		imports = append(imports, imported(wasi, "path_open", 6), imported(wasi, "fd_prestat_get", 2), imported(wasi, "sock_accept", 7))
	}
	if a.imports != "" {
		imports = append(imports, imported("env", a.imports, 0))
	}
	orZero := func(body []byte) []byte {
		if body == nil {
			return zero
		}
		return body
	}
	if a.alloc == nil {
		a.alloc = number(1024)
	}
	functions := []struct {
		name string
		typ  byte
		body []byte
	}{
		{"carnet_interface", 0, number(int(max(a.version, 1)))}, {"carnet_alloc", 1, a.alloc}, {"carnet_open", 2, orZero(a.open)},
		{"carnet_take", 2, orZero(a.take)}, {"carnet_close", 0, orZero(a.close)},
	}
	var kinds, exports, codes [][]byte
	for i, f := range functions {
		kinds = append(kinds, []byte{f.typ})
		if f.name != a.lacks {
			exports = append(exports, slices.Concat(name(f.name), []byte{0, byte(len(imports) + i)}))
		}
		locals := []byte{0}
		if f.name == "carnet_take" && a.locals != nil {
			locals = append([]byte{1}, a.locals...)
		}
		code := slices.Concat(locals, f.body, []byte{0x0b})
		codes = append(codes, append(unsigned(len(code)), code...))
	}
	var tables, memory []byte
	if a.tables != nil {
		tables = section(4, a.tables...)
	}
	if !a.homeless {
		exports = append(exports, slices.Concat(name("memory"), []byte{2, 0}))
		memory = section(5, []byte{0, 16})
	}
	return slices.Concat([]byte(header), section(1, types...), section(2, imports...), section(3, kinds...),
		tables, memory, section(7, exports...), section(10, codes...), a.after)
}

// table is a table with limits; most -1: it names none.
func table(least, most int) []byte {
	if most < 0 {
		return append([]byte{0x70, 0}, unsigned(least)...)
	}
	return slices.Concat([]byte{0x70, 1}, unsigned(least), unsigned(most))
}

// growTable grows the first table, and ends the module unless that gives what it should.
func growTable(by int, gives int) []byte {
	return slices.Concat([]byte{0xd0, 0x70}, number(by), []byte{0xfc, 0x0f, 0}, number(gives), []byte{0x47, 0x04, 0x40, 0x00, 0x0b}) // if (i32.ne (table.grow 0 (ref.null func) by) gives) unreachable end
}

// boasts is a section that says it has so many items, and has none.
func boasts(id byte, items uint32) []byte {
	n := unsigned(int(items))
	return slices.Concat([]byte{id}, unsigned(len(n)), n)
}
