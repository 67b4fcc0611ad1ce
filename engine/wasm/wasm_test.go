package wasm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/engine"
	"carnet/modules/moduletest"
)

// roomy are limits that nothing here comes near but what is meant to.
var roomy = engine.Limits{Memory: 64 << 20, Time: 20 * time.Second, Output: 1 << 20, Parts: 64}

func newEngine(t *testing.T) *Engine {
	t.Helper()
	e, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// beats are heart rates of two avatars, one of them late.
func beats(do func(string, []carnet.Measurement) error) error {
	at := func(s int64, rate float64) carnet.Measurement {
		return carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: s * 1e9, Value: carnet.Float(rate)}
	}
	if err := do("a1", []carnet.Measurement{at(0, 80), at(2, 110), {Name: "note", Value: carnet.String("x")}, at(1, 100)}); err != nil {
		return err
	}
	return do("a2", []carnet.Measurement{at(0, 199)})
}

// ran runs a module over beats, and returns what it puts out.
func ran(t *testing.T, e *Engine, module []byte, parameters string, l engine.Limits) (string, error) {
	t.Helper()
	var out strings.Builder
	r := engine.Run{Program: module, Limits: l, Each: beats, Part: func(p []byte) error { out.Write(p); return nil }}
	if parameters != "" {
		r.Parameters = []byte(parameters)
	}
	err := e.Run(t.Context(), r)
	return out.String(), err
}

func TestHeartZones(t *testing.T) {
	e, module := newEngine(t), moduletest.Build(t, "heartzones")
	if err := e.Check(t.Context(), module); err != nil {
		t.Fatal(err)
	}
	want := `{"avatar":"a1","measurements":3,"least":80,"mean":96.66666666666667,"greatest":110,"seconds":[1,11,0]}
{"avatar":"a2","measurements":1,"least":199,"mean":199,"greatest":199,"seconds":[0,0,10]}
`
	for range 2 { // the same in each run
		got, err := ran(t, e, module, `{"max":200,"zones":[0.5,0.9]}`, roomy)
		if err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := ran(t, e, module, `{"zones":[0.9,0.5]}`, roomy); carnet.CodeOf(err) != carnet.Conflict || !strings.Contains(err.Error(), "zones are 1 to 16") {
		t.Errorf("wrong parameters: %v", err)
	}
}

// Each module that comes with carnet is one, and puts out the same in each run.
func TestModules(t *testing.T) {
	e := newEngine(t)
	for _, name := range []string{"gazemap", "heartzones", "motion", "stepcadence"} {
		module := moduletest.Build(t, name)
		if err := e.Check(t.Context(), module); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		first, err := ran(t, e, module, "", roomy)
		if err != nil || !strings.Contains(first, `{"avatar":"a2",`) {
			t.Errorf("%s puts out %s, %v", name, first, err)
		}
		if again, err := ran(t, e, module, "", roomy); err != nil || again != first {
			t.Errorf("%s puts out %s after %s, %v", name, again, first, err)
		}
		if _, err := ran(t, e, module, "[]", roomy); carnet.CodeOf(err) != carnet.Conflict {
			t.Errorf("%s takes wrong parameters: %v", name, err)
		}
	}
}

// What a module does wrong ends it, with the reason, and harms no other.
func TestHostileModules(t *testing.T) {
	e := newEngine(t)
	print := slices.Concat(number(1), number(0), number(1), number(8), call(fnWrite), drop)
	part := slices.Concat(number(0), number(1000), call(fnPart), drop)
	grow := []byte{0x41, 1, 0x40, 0, 0x1a} // i32.const 1, memory.grow, drop
	short := func(l *engine.Limits) { l.Time = 200 * time.Millisecond }
	least := func(l *engine.Limits) { l.Memory = engine.LeastMemory }
	whole := assembled{}.module()
	for _, c := range []struct {
		name   string
		module []byte
		limits func(*engine.Limits)
		code   carnet.Code
		says   string
	}{
		{"loops", assembled{open: forever()}.module(), short, carnet.TooLarge, "longer"},
		{"loops in alloc", assembled{alloc: forever()}.module(), short, carnet.TooLarge, "longer"},
		{"prints without end", assembled{open: forever(print...)}.module(), short, carnet.TooLarge, "longer"},
		{"grows without end", assembled{open: forever(grow...)}.module(), short, carnet.TooLarge, "longer"},
		{"begins larger than its limit", assembled{}.module(), func(l *engine.Limits) { l.Memory = engine.LeastMemory }, "", ""},
		{"puts out without end", assembled{close: forever(part...)}.module(), func(l *engine.Limits) { l.Parts = engine.MostParts }, carnet.TooLarge, "more than its limit of 1048576 bytes"},
		{"puts out many parts", assembled{close: forever(part...)}.module(), func(l *engine.Limits) { l.Parts = 3 }, carnet.TooLarge, "3 parts"},
		{"a part as large as it likes", assembled{close: slices.Concat(number(0), number(600_000), call(fnPart))}.module(), nil, carnet.TooLarge, "a part of 600000 bytes"},
		{"a part that isn't in its memory", assembled{close: slices.Concat(number(-1), number(10), call(fnPart))}.module(), nil, carnet.Conflict, "isn't in its memory"},
		{"an alloc that isn't in its memory", assembled{alloc: number(-1)}.module(), nil, carnet.Conflict, "no room"},
		{"traps", assembled{take: unreachable}.module(), nil, carnet.Conflict, "carnet_take"},
		{"answers other than 0", assembled{take: number(7)}.module(), nil, carnet.Conflict, "answers 7"},
		{"fails", assembled{take: slices.Concat(number(0), number(300), call(fnFail), zero)}.module(), nil, carnet.Conflict, "the module fails"},
		{"fails, and goes on as though it hadn't", assembled{take: slices.Concat(number(0), number(300), call(fnFail), number(0), number(10), call(fnPart), drop, zero)}.module(), nil, carnet.Conflict, "the module fails"},
		{"recurses", assembled{take: slices.Concat(zero, zero, call(5+3))}.module(), nil, carnet.Conflict, "carnet_take"},
		{"is of another interface", assembled{version: 2}.module(), nil, carnet.Malformed, "interface 2"},
		{"lacks an export", assembled{lacks: "carnet_take"}.module(), nil, carnet.Malformed, "carnet_take"},
		{"imports what nobody gives", assembled{imports: "socket"}.module(), nil, carnet.Forbidden, "socket"},
		{"opens a directory", assembled{reaches: true, open: opens(3)}.module(), nil, carnet.Conflict, "answers 8 in carnet_open"}, // EBADF: it has none
		{"opens what its output is", assembled{reaches: true, open: opens(1)}.module(), nil, carnet.Conflict, "answers "},
		{"asks for a directory that it was given", assembled{reaches: true, open: prestat(3)}.module(), nil, carnet.Conflict, "answers 8 in carnet_open"},
		{"accepts a connection", assembled{reaches: true, open: accept(3)}.module(), nil, carnet.Conflict, "answers 8 in carnet_open"},
		{"accepts one from its input", assembled{reaches: true, open: accept(0)}.module(), nil, carnet.Conflict, "answers "},
		{"is cut off", whole[:len(whole)-3], nil, carnet.Malformed, "compile"},
		{"is none", []byte("#!/bin/sh\n"), nil, carnet.Malformed, "no WebAssembly"},
		{"is empty", nil, nil, carnet.Malformed, "no WebAssembly"},
		{"is too large", make([]byte, engine.MostProgram+1), nil, carnet.TooLarge, "at most"},
		{"has no memory", assembled{homeless: true}.module(), nil, carnet.Malformed, "has no memory"},
		{"has a table that grows without a maximum", assembled{tables: [][]byte{table(1, -1)}, open: slices.Concat(growTable(1<<30, -1), zero)}.module(), least, "", ""},
		{"has a table that grows beyond its memory", assembled{tables: [][]byte{table(1, 1<<30)}}.module(), least, carnet.TooLarge, "tables"},
		{"has a table that begins larger than its memory", assembled{tables: [][]byte{table(1<<27, -1)}}.module(), least, carnet.TooLarge, "tables"},
		{"has many tables", assembled{tables: slices.Repeat([][]byte{table(1<<16, 1<<16)}, 9)}.module(), least, carnet.TooLarge, "tables"},
		{"has tables within its memory", assembled{tables: [][]byte{table(1, 1<<16), table(2, -1)}, open: slices.Concat(growTable(1<<16-1, 1), zero)}.module(), least, "", ""},
		{"has 2^32-1 locals", assembled{locals: append(unsigned(1<<32-1), 0x7f)}.module(), nil, carnet.TooLarge, "locals"},
		{"has more locals than any", assembled{locals: append(unsigned(mostOwn+1), 0x7f)}.module(), nil, carnet.TooLarge, "a function of the module has more than 50000 locals"},
		{"has as many locals as any may", assembled{locals: append(unsigned(mostOwn), 0x7f)}.module(), nil, "", ""},
		{"has functions with locals without end", slices.Concat([]byte(header), section(10, slices.Repeat([][]byte{slices.Concat([]byte{6, 1}, unsigned(50_000), []byte{0x7f, 0x0b})}, 100)...)), nil, carnet.TooLarge, "locals"},
		{"says that it has 2^32-1 functions", slices.Concat([]byte(header), boasts(3, 1<<32-1)), nil, carnet.Malformed, "more than it has"},
		{"says that it has 2^32-1 imports", slices.Concat([]byte(header), boasts(2, 1<<32-1)), nil, carnet.Malformed, "more than it has"},
		{"says that it has 2^32-1 segments", assembled{after: boasts(11, 1<<32-1)}.module(), nil, carnet.Malformed, "more than it has"},
		{"says that a segment has 2^32-1 bytes", assembled{after: section(11, slices.Concat([]byte{1}, unsigned(1<<32-1)))}.module(), nil, carnet.Malformed, "more than it has"},
		{"says that an export's name has 2^32-1 bytes", slices.Concat([]byte(header), section(7, slices.Concat(unsigned(1<<32-1)))), nil, carnet.Malformed, "more than it has"},
		{"has more types than any", slices.Concat([]byte(header), section(1, slices.Repeat([][]byte{{0x60, 0, 0}}, mostItems+1)...)), nil, carnet.TooLarge, "items"},
		{"has a name for each function that it hasn't", slices.Concat(whole, []byte{0, 12}, name("name"), []byte{1, 5}, unsigned(1<<32-1)), nil, "", ""},
	} {
		l := roomy
		if c.limits != nil {
			c.limits(&l)
		}
		begun := time.Now()
		_, err := ran(t, e, c.module, "", l)
		if carnet.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("a module that %s: %v (code %q), want %q with %q", c.name, err, carnet.CodeOf(err), c.code, c.says)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("a module that %s took %s", c.name, took)
		}
		if _, err := ran(t, e, whole, "", roomy); err != nil {
			t.Fatalf("after a module that %s, the next fails: %v", c.name, err)
		}
	}
}

// What breaks in a run is the run's end, and no process's.
func TestAPanicEndsTheRun(t *testing.T) {
	err := newEngine(t).Run(t.Context(), engine.Run{
		Program: assembled{}.module(), Limits: roomy, Part: func([]byte) error { return nil },
		Each: func(func(string, []carnet.Measurement) error) error { panic("a hole") },
	})
	if !engine.Final(err) || !strings.Contains(err.Error(), "the engine breaks on this module: a hole") {
		t.Errorf("a panic in a run: %v", err)
	}
}

// What is kept of compiled modules has bounds, in memory and on disk; a run compiles what
// isn't kept any more.
func TestCompiledModulesAreBounded(t *testing.T) {
	e := newEngine(t)
	module := func(n int) []byte { return assembled{take: slices.Concat(number(n), drop, zero)}.module() }
	files := func() (names []string, size int64) {
		names, err := filepath.Glob(filepath.Join(e.kept.dir, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			size += info.Size()
		}
		return names, size
	}
	for n := range 20 {
		if _, err := ran(t, e, module(n), "", roomy); err != nil {
			t.Fatal(err)
		}
	}
	all, size := files()
	if len(all) < 20 {
		t.Fatalf("of 20 modules %d files are kept: there is nothing to be seen", len(all))
	}
	engines := reflect.ValueOf(e.cache).Elem().FieldByName("engs")
	for i := range engines.Len() {
		at := engines.Index(i)
		held, ok := reflect.NewAt(at.Type(), at.Addr().UnsafePointer()).Elem().Interface().(interface{ CompiledModuleCount() uint32 })
		if ok && held.CompiledModuleCount() > 2 {
			t.Errorf("after 20 runs the engine holds %d compiled modules", held.CompiledModuleCount())
		}
	}
	e.kept.most = size / 2
	if _, err := ran(t, e, module(20), "", roomy); err != nil {
		t.Fatal(err)
	}
	if now, left := files(); left > e.kept.most || len(now) == 0 {
		t.Errorf("of %d bytes in %d files %d are left in %d; the bound is %d", size, len(all), left, len(now), e.kept.most)
	}
	now, _ := files()
	for _, name := range now {
		long := time.Now().Add(-oldest - time.Hour)
		if err := os.Chtimes(name, long, long); err != nil {
			t.Fatal(err)
		}
	}
	again, err := New(e.kept.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if now, _ = files(); len(now) > 0 {
		t.Errorf("%d files are kept that are too old", len(now))
	}
	if out, err := ran(t, again, assembled{close: slices.Concat(number(0), number(1), call(fnPart))}.module(), "", roomy); err != nil || len(out) != 1 {
		t.Errorf("after that a module puts out %q, %v", out, err)
	}
}

// A module has as much memory as its limit, and no more.
func TestMemory(t *testing.T) {
	e := newEngine(t)
	// It grows by 1 until that fails (-1), then puts out the pages that it has: one byte
	// each.
	body := slices.Concat(
		[]byte{0x03, 0x40}, number(1), []byte{0x40, 0}, number(-1), []byte{0x47, 0x0d, 0, 0x0b}, // loop (br_if 0 (i32.ne (memory.grow 1) -1)) end
		number(0), []byte{0x3f, 0}, call(fnPart), // part(0, memory.size)
	)
	for _, mib := range []uint64{4, 8, 64} {
		l := roomy
		l.Memory = mib << 20
		out, err := ran(t, e, assembled{close: body}.module(), "", l)
		if pages := uint64(len(out)); err != nil || pages != mib<<20/pageSize {
			t.Errorf("with %d MiB a module has %d pages, %v", mib, pages, err)
		}
	}
}

// There is no clock and no randomness that differs from run to run.
func TestNothingDiffers(t *testing.T) {
	e := newEngine(t)
	module := assembled{close: slices.Concat(
		number(0), number(64), call(fnRandom), drop,
		number(0), []byte{0x42, 0}, number(64), call(fnClock), drop, // realtime
		number(1), []byte{0x42, 0}, number(72), call(fnClock), drop, // monotonic
		number(0), number(80), call(fnPart),
	)}.module()
	first, err := ran(t, e, module, "", roomy)
	if err != nil || len(first) != 80 || strings.Trim(first, "\x00") == "" {
		t.Fatalf("%q, %v", first, err)
	}
	time.Sleep(5 * time.Millisecond)
	if again, err := ran(t, newEngine(t), module, "", roomy); err != nil || again != first {
		t.Errorf("in another run a module sees %x, and before %x (%v)", again, first, err)
	}
}

// An end that isn't the module's doing isn't said to be.
func TestOthersEnds(t *testing.T) {
	e := newEngine(t)
	gone := errors.New("the disk is full")
	err := e.Run(t.Context(), engine.Run{Program: assembled{}.module(), Limits: roomy, Each: func(func(string, []carnet.Measurement) error) error { return gone }, Part: func([]byte) error { return nil }})
	if !errors.Is(err, gone) {
		t.Errorf("inputs that can't be read: %v", err)
	}
	err = e.Run(t.Context(), engine.Run{Program: assembled{close: slices.Concat(number(0), number(1), call(fnPart))}.module(), Limits: roomy, Each: beats, Part: func([]byte) error { return gone }})
	if !errors.Is(err, gone) {
		t.Errorf("a part that can't be stored: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	err = e.Run(ctx, engine.Run{Program: assembled{open: forever()}.module(), Limits: roomy, Each: beats, Part: func([]byte) error { return nil }})
	if !errors.Is(err, context.Canceled) || engine.Final(err) {
		t.Errorf("a run that was cancelled: %v", err)
	}
}

func TestLimitsAreChecked(t *testing.T) {
	e := newEngine(t)
	for name, change := range map[string]func(*engine.Limits){
		"memory": func(l *engine.Limits) { l.Memory = 1 }, "time": func(l *engine.Limits) { l.Time = 0 },
		"output": func(l *engine.Limits) { l.Output = engine.MostOutput + 1 }, "parts": func(l *engine.Limits) { l.Parts = 0 },
	} {
		l := roomy
		change(&l)
		if _, err := ran(t, e, assembled{}.module(), "", l); carnet.CodeOf(err) != carnet.OutOfRange {
			t.Errorf("limits with a wrong %s: %v", name, err)
		}
	}
}
