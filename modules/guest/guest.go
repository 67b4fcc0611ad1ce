// Package guest is what a module written in Go is made with: it owns the module's
// side of the interface to the engine (docs/design/modules.md), and hands a Program
// its parameters and measurements.
//
// A module is a package main that calls Serve in an init function, built with
// GOOS=wasip1 GOARCH=wasm and -buildmode=c-shared. Built for anything else, Serve
// only remembers the program, so that its tests run as any.
//
// The package must not know what programs compute. It uses the standard library
// only, and nothing of carnet: a module is somebody else's.
package guest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
)

// The kinds of values.
const (
	Number  = 1
	Boolean = 2
	Text    = 3
	Data    = 4
)

// Measurement is one measured value.
type Measurement struct {
	Name, Unit string
	Time       int64 // nanoseconds since 1970
	Number     float64
	Text       string // of a Text or Data
	Kind       byte
}

// Program is what a module computes. A method that returns an error ends the run, and
// the error's words are the reason.
type Program interface {
	// Open takes the parameters, a JSON object.
	Open(parameters []byte) error
	// Take takes measurements of one avatar. They come in the order in which they were
	// stored, so not always in that of their times.
	Take(avatar string, ms []Measurement) error
	// Close puts out what is left.
	Close() error
}

// program is the one that the module was made for.
var program Program

// Serve has the module run p.
func Serve(p Program) { program = p }

// Part puts out a piece of the output. It is a function so that tests can take it.
var Part = func([]byte) error { return errors.New("nobody takes the output") }

// Lines puts out values as JSON, each on a line of its own, many lines to a part: a run
// may have few parts. What is put last comes out with Flush.
type Lines struct{ buf []byte }

// partSize is about how long the parts of Lines are.
const partSize = 64 << 10

// Put puts out a value.
func (l *Lines) Put(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.buf = append(append(l.buf, b...), '\n')
	if len(l.buf) < partSize {
		return nil
	}
	return l.Flush()
}

// Flush puts out what is left.
func (l *Lines) Flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	err := Part(l.buf)
	l.buf = l.buf[:0]
	return err
}

var errChunk = errors.New("the engine gave a chunk that isn't one")

// parse reads a chunk into ms, which it returns.
func parse(b []byte, ms []Measurement) (avatar string, _ []Measurement, err error) {
	if len(b) < 8 {
		return "", nil, errChunk
	}
	records, n, at := int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint32(b[4:])), 8
	table := make([]string, n)
	for i := range table {
		if len(b)-at < 4 {
			return "", nil, errChunk
		}
		size := int(binary.LittleEndian.Uint32(b[at:]))
		if at += 4; size > len(b)-at {
			return "", nil, errChunk
		}
		table[i] = string(b[at : at+size])
		at += size
	}
	at = (at + 7) &^ 7
	if n < 1 || at > len(b) || len(b)-at != 24*records {
		return "", nil, errChunk
	}
	ms = ms[:0]
	for ; at < len(b); at += 24 {
		value, name, unit := binary.LittleEndian.Uint64(b[at+8:]), int(binary.LittleEndian.Uint16(b[at+16:])), int(binary.LittleEndian.Uint16(b[at+18:]))
		if name >= n || unit >= n {
			return "", nil, errChunk
		}
		m := Measurement{Name: table[name], Unit: table[unit], Time: int64(binary.LittleEndian.Uint64(b[at:])), Kind: b[at+20]}
		switch m.Kind {
		case Number, Boolean:
			m.Number = math.Float64frombits(value)
		case Text, Data:
			if value >= uint64(n) {
				return "", nil, errChunk
			}
			m.Text = table[value]
		default:
			return "", nil, errChunk
		}
		ms = append(ms, m)
	}
	return table[0], ms, nil
}
