// Package wasm runs WebAssembly modules over measurements. docs/design/modules.md
// has the interface between a module and this engine.
//
// A module is compiled, given a memory of its own and the measurements, and thrown
// away. It can call what the interface names and, since compilers put it there, the
// WASI functions of preview 1: there it finds no arguments, environment, files or
// directories, clocks that tell the same made-up times in each run, a source of
// randomness that gives the same bytes in each run, and outputs that go nowhere.
//
// The package must not know what modules compute, who publishes them, or what a
// job is.
package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"carnet"
	"carnet/engine"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// Name is the word by which orders name this engine.
const Name = "wasm"

// Interface is the version of the interface that modules are written for.
const Interface = 1

// Engine implements engine.Engine.
type Engine struct {
	cache wazero.CompilationCache
	kept  compiled
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine. dir is where compiled modules are kept, within bounds; empty: every
// run compiles.
func New(dir string) (*Engine, error) {
	if dir == "" {
		return &Engine{cache: wazero.NewCompilationCache()}, nil
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the cache of compiled modules: %w", err)
	}
	e := &Engine{cache, compiled{dir, mostCompiled}}
	return e, e.kept.tidy(time.Now())
}

// Close forgets what was compiled.
func (e *Engine) Close() error { return e.cache.Close(context.Background()) }

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// Version implements engine.Engine.
func (e *Engine) Version() string { return fmt.Sprintf("wazero 1.12, interface %d", Interface) }

const pageSize = 64 << 10

// runtime makes what runs a module whose memory may have so many bytes.
func (e *Engine) runtime(ctx context.Context, memory uint64) wazero.Runtime {
	// CloseOnContextDone has compiled code look at the context in each loop and call.
	return wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithMemoryLimitPages(uint32(memory/pageSize)).WithCloseOnContextDone(true).
		WithCompilationCache(e.cache).WithDebugInfoEnabled(false).WithCoreFeatures(api.CoreFeaturesV2))
}

// Check implements engine.Engine. It makes no machine code, which takes seconds for a
// large module: who asks waits for the answer.
func (e *Engine) Check(ctx context.Context, program []byte) (err error) {
	defer survive(&err)
	o, err := admit(program, engine.MostMemory)
	if err != nil {
		return err
	}
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().
		WithMemoryLimitPages(engine.MostMemory/pageSize).WithDebugInfoEnabled(false).WithCoreFeatures(api.CoreFeaturesV2))
	defer rt.Close(context.Background())
	_, err = compile(ctx, rt, &o)
	return err
}

// survive makes an error of a panic: a module that the runtime breaks on would end the
// process, and would again.
func survive(err *error) {
	if broken := recover(); broken != nil {
		*err = carnet.Errorf(carnet.Conflict, "the engine breaks on this module: %s", carnet.Shorten(line(fmt.Sprint(broken)), maxWords))
	}
}

// exports are the functions that a module must have, with their types.
var exports = map[string]struct{ in, out []api.ValueType }{
	"carnet_interface": {nil, []api.ValueType{api.ValueTypeI32}},
	"carnet_alloc":     {[]api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
	"carnet_open":      {[]api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
	"carnet_take":      {[]api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
	"carnet_close":     {nil, []api.ValueType{api.ValueTypeI32}},
}

// admit refuses what is no module, or one that takes more room than a limit of memory
// before anything of it runs.
func admit(program []byte, memory uint64) (o outline, err error) {
	if len(program) > engine.MostProgram {
		return o, carnet.Errorf(carnet.TooLarge, "the module has %d bytes, at most %d are taken", len(program), engine.MostProgram)
	}
	if !bytes.HasPrefix(program, []byte(header)) {
		return o, carnet.Errorf(carnet.Malformed, "this is no WebAssembly module of version 1")
	}
	if o, err = outlineOf(program); err != nil {
		return o, err
	}
	switch {
	case !o.memory:
		return o, carnet.Errorf(carnet.Malformed, "the module has no memory, in which it could be given anything").
			WithFix("docs/design/modules.md says what a module has")
	case o.tables+pageSize > memory:
		return o, carnet.Errorf(carnet.TooLarge, "the module's tables have up to %d bytes, and it may have %d with its memory", o.tables, memory)
	}
	return o, nil
}

// compile compiles a module and checks what it exports and imports.
func compile(ctx context.Context, rt wazero.Runtime, o *outline) (wazero.CompiledModule, error) {
	m, err := rt.CompileModule(ctx, o.bare)
	if err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "the module doesn't compile: %s", short(err))
	}
	have := m.ExportedFunctions()
	for name, want := range exports {
		f, ok := have[name]
		if !ok || !bytes.Equal(f.ParamTypes(), want.in) || !bytes.Equal(f.ResultTypes(), want.out) {
			return nil, carnet.Errorf(carnet.Malformed, "the module has no function %s of the right type", name).
				WithFix("docs/design/modules.md says what a module exports")
		}
	}
	for _, f := range m.ImportedFunctions() {
		from, name, _ := f.Import()
		if from == wasi_snapshot_preview1.ModuleName || from == "carnet" && (name == "part" || name == "fail") {
			continue
		}
		return nil, carnet.Errorf(carnet.Forbidden, "the module imports %q of %q, which no module is given", name, from)
	}
	return m, nil
}

// run is one run under way: what the module calls.
type run struct {
	out *engine.Output
	// failed is what the module said, or why a part wasn't taken: the first counts.
	failed error
}

// Run implements engine.Engine.
func (e *Engine) Run(ctx context.Context, r engine.Run) (err error) {
	defer survive(&err)
	if err := r.Limits.Check(); err != nil {
		return err
	}
	o, err := admit(r.Program, r.Limits.Memory)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, r.Limits.Time)
	defer cancel()
	rt := e.runtime(limited, r.Limits.Memory-o.tables)
	defer rt.Close(context.Background())
	state := &run{out: engine.NewOutput(&r)}
	err = state.all(limited, rt, &o, &r)
	_ = e.kept.tidy(time.Now()) // what can't be deleted now is at the next start, or the start says why
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // whoever ordered it doesn't want it any more
	case state.failed != nil:
		return state.failed
	case err != nil && limited.Err() != nil:
		return carnet.Errorf(carnet.TooLarge, "the module ran longer than its limit of %s", r.Limits.Time)
	}
	return err
}

func (s *run) all(ctx context.Context, rt wazero.Runtime, o *outline, r *engine.Run) error {
	compiled, err := compile(ctx, rt, o)
	if err != nil {
		return err
	}
	defer compiled.Close(context.Background()) // else the cache has it as long as the process runs
	if err := s.provide(ctx, rt); err != nil {
		return err
	}
	// No arguments, environment, files; clocks and randomness as wazero makes them up
	// when nothing is said: the same in each run.
	m, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	if err != nil {
		return broke("doesn't begin", err)
	}
	g := guest{ctx: ctx, module: m}
	if v, err := g.call("carnet_interface"); err != nil {
		return err
	} else if v != Interface {
		return carnet.Errorf(carnet.Malformed, "the module is written for interface %d, and this engine has %d", v, Interface)
	}
	parameters := r.Parameters
	if parameters == nil {
		parameters = []byte("{}")
	}
	if err := g.give("carnet_open", parameters); err != nil {
		return err
	}
	var chunk encoder
	err = r.Each(func(avatar string, ms []carnet.Measurement) error {
		for len(ms) > 0 {
			n := min(len(ms), chunkRecords)
			if err := g.give("carnet_take", chunk.encode(avatar, ms[:n])); err != nil {
				return err
			}
			if s.failed != nil {
				return s.failed
			}
			ms = ms[n:]
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return g.done("carnet_close")
}

// provide gives modules the functions that they may call.
func (s *run) provide(ctx context.Context, rt wazero.Runtime) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return fmt.Errorf("provide WASI: %w", err)
	}
	_, err := rt.NewHostModuleBuilder("carnet").
		NewFunctionBuilder().WithFunc(s.part).Export("part").
		NewFunctionBuilder().WithFunc(s.fail).Export("fail").
		Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("provide the modules' interface: %w", err)
	}
	return nil
}

// part takes a piece of the output. A module whose part isn't taken is ended, whatever
// it would do next: nothing more is taken of it, and nothing of one that has failed.
func (s *run) part(ctx context.Context, m api.Module, at, size uint32) uint32 {
	data, ok := m.Memory().Read(at, size)
	switch {
	case s.failed != nil: // what is wrong first counts
	case !ok:
		s.failed = carnet.Errorf(carnet.Conflict, "the module puts out %d bytes at %d, which isn't in its memory", size, at)
	default:
		s.failed = s.out.Put(data)
	}
	if s.failed != nil {
		_ = m.CloseWithExitCode(ctx, 1) // what it was doing ends in its next loop or call
		return 1
	}
	return 0
}

// maxWords bounds what a module says of its failure.
const maxWords = 200

// fail takes why the module can't go on.
func (s *run) fail(_ context.Context, m api.Module, at, size uint32) {
	if s.failed != nil {
		return
	}
	words, ok := m.Memory().Read(at, min(size, maxWords))
	if !ok {
		words = nil
	}
	s.failed = carnet.Errorf(carnet.Conflict, "the module fails: %s", line(string(words)))
}

// line is text on one line, of what can be shown.
func line(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
}

// guest calls a module.
type guest struct {
	ctx    context.Context
	module api.Module
}

func (g guest) call(name string, args ...uint64) (uint32, error) {
	out, err := g.module.ExportedFunction(name).Call(g.ctx, args...)
	if err != nil {
		return 0, broke("ends in "+name, err)
	}
	return uint32(out[0]), nil
}

// done calls a function that answers 0 when all is well.
func (g guest) done(name string, args ...uint64) error {
	v, err := g.call(name, args...)
	if err == nil && v != 0 {
		err = carnet.Errorf(carnet.Conflict, "the module answers %d in %s, and doesn't say why", v, name)
	}
	return err
}

// give puts data into the module's memory and calls a function with it.
func (g guest) give(name string, data []byte) error {
	at, err := g.call("carnet_alloc", uint64(len(data)))
	if err != nil {
		return err
	}
	if !g.module.Memory().Write(at, data) {
		return carnet.Errorf(carnet.Conflict, "the module has no room for %d bytes at %d, which carnet_alloc gave", len(data), at)
	}
	return g.done(name, uint64(at), uint64(len(data)))
}

// broke is why a module ended by itself, as far as it can be told.
func broke(where string, err error) error {
	if _, ok := errors.AsType[runtime.Error](err); ok {
		return fmt.Errorf("the engine failed: %w", err)
	}
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		switch exit.ExitCode() {
		case sys.ExitCodeContextCanceled, sys.ExitCodeDeadlineExceeded:
			return err // Run says what that means
		}
		return carnet.Errorf(carnet.Conflict, "the module %s: it exits with %d, as one does that has no more memory or has panicked", where, exit.ExitCode())
	}
	return carnet.Errorf(carnet.Conflict, "the module %s: %s", where, short(err))
}

// short is the first line of an error, of a length that can be shown.
func short(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return carnet.Shorten(line(text), maxWords)
}
