package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"carnet"
	"carnet/demo"
	"carnet/wire/file"

	"golang.org/x/term"
)

// demoCommand runs the whole system: a things agent, three worlds, a depot, a watch
// and its owner.
type demoCommand struct {
	Story     string         `help:"Tell a story: watch (one watch, two worlds, two DPMs) or game (a player moves with sword and skin to another world). Without it the demo of README." enum:",watch,game" default:""`
	Modules   string         `help:"Where a story's modules are, as make modules builds them. Default: modules, beside the program." type:"path" placeholder:"DIR"`
	Input     []string       `help:"Play this recording: Garmin FIT or CSV; may be given several times. Without it one is generated." type:"existingfile" sep:"none"`
	Columns   []string       `help:"How CSV headers map to properties, such as 't=time(s),hr=heart_rate[beat/min]'; may be given several times, and a CSV file takes the first whose headers it has. Known headers need none." sep:"none"`
	Times     string         `help:"now: shift a recording so that it ends at the planned end; keep: as recorded." enum:"now,keep" default:"now"`
	Speed     speed          `help:"Recorded seconds per second, or max: all of a recording, as fast as it goes." default:"1"`
	For       *time.Duration `help:"How long to play: of a recording its end. 60s without a terminal; with --speed max it bounds no recording."`
	Data      string         `help:"Where the parties' files go; a temporary directory without it." type:"path"`
	Keep      bool           `help:"Leave the temporary directory there."`
	PortBase  int            `help:"First port of the listeners; free ones without it."`
	Evidence  string         `help:"Write an evidence bundle per avatar there." type:"path"`
	Encoding  string         `help:"How the watch sends SenML: ${enum}." enum:"json,cbor" default:"json"`
	Processes bool           `help:"Run each party as a process of its own."`
	JSON      bool           `help:"End with one JSON object on standard output." name:"json"`
	LogLevel  slog.Level     `help:"Log from this level on: debug, info, warn or error." default:"error"`
}

// speed is recorded seconds per second; 0 is max.
type speed float64

// UnmarshalText reads the flag.
func (v *speed) UnmarshalText(text []byte) error {
	parsed, err := demo.ParseSpeed(string(text))
	*v = speed(parsed)
	return err
}

// Validate refuses what no demo can be run with; kong asks it.
func (c *demoCommand) Validate() error {
	switch {
	case c.PortBase < 0 || c.PortBase > 65_535-demo.Ports:
		return carnet.Errorf(carnet.Malformed, "--port-base is %d: want 1 to %d", c.PortBase, 65_535-demo.Ports)
	case c.For != nil && *c.For <= 0:
		return carnet.Errorf(carnet.Malformed, "--for is %s: want a time above 0", *c.For)
	}
	for _, spec := range c.Columns {
		if _, err := file.ParseColumns(spec); err != nil {
			return err
		}
	}
	return nil
}

// Run runs the demo and judges it.
func (c *demoCommand) Run(ctx context.Context, s streams) error {
	useProcessors()
	terminal := isTerminal(s.out) && !c.JSON
	o := demo.Options{
		Inputs: c.Input, Columns: c.Columns, Times: c.Times, Speed: float64(c.Speed), Stay: terminal && c.For == nil, For: c.lasts(terminal),
		Data: c.Data, Keep: c.Keep, PortBase: c.PortBase, Evidence: c.Evidence, Encoding: c.Encoding,
		Keystore: openDemoOwner, Story: c.Story, Modules: c.module, Progress: s.err, Log: slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: c.LogLevel})),
	}
	if terminal {
		o.Progress, o.Terminal = s.out, true
	}
	if c.Processes {
		var err error
		if o.Processes, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	report, err := demo.Run(ctx, o)
	if err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		if err := e.Encode(report); err != nil {
			return err
		}
	} else {
		report.Write(s.out)
	}
	return demoVerdict(report, c.JSON)
}

// lasts is how long the demo plays; 0: until its recordings end.
func (c *demoCommand) lasts(terminal bool) time.Duration {
	switch {
	case c.For != nil:
		return *c.For
	case terminal || c.Speed == 0 && len(c.Input) > 0: // a recording that is played as fast as it goes
		return 0
	}
	return time.Minute
}

// demoVerdict is what a demo ends with, once its report is written.
func demoVerdict(r *demo.Report, asJSON bool) error {
	if r.NothingTaken() {
		why := "see above why"
		if asJSON {
			why = "the JSON says why: refusals"
		}
		return carnet.Errorf(carnet.Malformed, "every message was refused, and so nothing was tried").WithFix("%s", why)
	}
	if r.Good() {
		return nil
	}
	if asJSON {
		return carnet.Errorf(carnet.Tampered, "the demo ended with something wrong").WithFix("the JSON says what: findings and checks")
	}
	return carnet.Errorf(carnet.Tampered, "the demo ended with something wrong: see above")
}

// module reads a module's WebAssembly.
func (c *demoCommand) module(name string) ([]byte, error) {
	dir := c.Modules
	if dir == "" {
		program, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program, beside which the modules are: %w", err)
		}
		dir = filepath.Join(filepath.Dir(program), "modules")
	}
	text, err := os.ReadFile(filepath.Join(dir, name+".wasm"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, carnet.Errorf(carnet.NotFound, "the story needs the module %s, which isn't in %s", name, dir).
			WithFix("build them with 'make modules', or say with --modules where they are")
	}
	return text, err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
