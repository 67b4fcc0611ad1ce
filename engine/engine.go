// Package engine says what an engine is: something that runs a program over
// measurements, under limits, and gives what the program puts out, part by part.
// It owns the terms that all engines share and nothing that runs: engine/wasm and
// engine/sql are engines, each a leaf.
//
// A run has no state but its own. The same program over the same measurements, in
// the same order and with the same parameters, puts out the same bytes, wherever it
// runs: an engine gives a program no clock, no randomness, no files and no network.
//
// An engine must not know where measurements come from, who ordered the run, or
// what becomes of the output.
package engine

import (
	"context"
	"time"

	"carnet"
)

// Limits bound a run. What goes over one ends it with carnet.TooLarge.
type Limits struct {
	Memory uint64        // bytes that the program may have at once
	Time   time.Duration // of the whole run
	Output uint64        // bytes of all parts
	Parts  int           // how many parts
}

// The bounds of limits, whoever sets them.
const (
	LeastMemory   = 4 << 20
	MostMemory    = 1 << 30
	MostTime      = 6 * time.Hour
	MostOutput    = 64 << 20
	MostParts     = 4096
	MostPart      = 512 << 10 // bytes of one part
	MostProgram   = 16 << 20  // bytes of a program
	MostParameter = 4 << 10   // bytes of a program's parameters
)

// Check refuses limits out of their bounds.
func (l Limits) Check() error {
	switch {
	case l.Memory < LeastMemory || l.Memory > MostMemory:
		return carnet.Errorf(carnet.OutOfRange, "a limit of %d bytes of memory", l.Memory).WithFix("take %d MiB to %d MiB", LeastMemory>>20, MostMemory>>20)
	case l.Time < time.Millisecond || l.Time > MostTime:
		return carnet.Errorf(carnet.OutOfRange, "a limit of %s", l.Time).WithFix("take 1ms to %s", MostTime)
	case l.Output < 1 || l.Output > MostOutput:
		return carnet.Errorf(carnet.OutOfRange, "a limit of %d bytes of output", l.Output).WithFix("take 1 to %d MiB", MostOutput>>20)
	case l.Parts < 1 || l.Parts > MostParts:
		return carnet.Errorf(carnet.OutOfRange, "a limit of %d parts", l.Parts).WithFix("take 1 to %d", MostParts)
	}
	return nil
}

// Run is one run of a program.
type Run struct {
	Program    []byte
	Parameters []byte // a JSON object; nil: none
	Limits     Limits
	// Each hands over the measurements: do is called with some of one avatar at a time,
	// which it must not keep. An error of do ends it and is returned.
	Each func(do func(avatar string, ms []carnet.Measurement) error) error
	// Part takes a piece of the output. It doesn't keep it.
	Part func([]byte) error
}

// Engine runs programs. It may be used by several goroutines.
//
// An error of code Malformed says that the program is none, TooLarge that it went
// over a limit, Forbidden that it wanted what no program may have, Conflict that it
// failed by itself: in all of these cases it would end so again. Others are of Each,
// Part or the context, as they are.
type Engine interface {
	// Name is the word by which orders name the engine, Version what it runs.
	Name() string
	Version() string
	// Check refuses what can't be a program, without running it.
	Check(ctx context.Context, program []byte) error
	Run(ctx context.Context, r Run) error
}

// Final reports whether an error of a run says that it would end so again.
func Final(err error) bool {
	switch carnet.CodeOf(err) {
	case carnet.Malformed, carnet.TooLarge, carnet.Forbidden, carnet.Conflict:
		return true
	}
	return false
}

// Output counts what a run puts out against its limits.
type Output struct {
	limits Limits
	part   func([]byte) error
	bytes  uint64
	parts  int
}

// NewOutput makes the output of a run.
func NewOutput(r *Run) *Output { return &Output{limits: r.Limits, part: r.Part} }

// Put hands on one part.
func (o *Output) Put(part []byte) error {
	if len(part) > MostPart {
		return carnet.Errorf(carnet.TooLarge, "the program puts out a part of %d bytes, and one has at most %d", len(part), MostPart)
	}
	o.bytes += uint64(len(part))
	o.parts++
	if o.bytes > o.limits.Output {
		return carnet.Errorf(carnet.TooLarge, "the program puts out more than its limit of %d bytes", o.limits.Output)
	}
	if o.parts > o.limits.Parts {
		return carnet.Errorf(carnet.TooLarge, "the program puts out more than its limit of %d parts", o.limits.Parts)
	}
	return o.part(part)
}
