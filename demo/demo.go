// Package demo runs the whole system: the things agent hub, the worlds arena,
// clinic and citadel and the depot vault, each made and configured like a party of its
// own, devices that send recordings to hub over MQTT, and their owner, who permits that
// citadel gets what arena gives it. At the end it counts, from the parties' stores, what
// every one of them has, has the oracle work out what each world should have, and proves
// what each world was sent.
//
// Or it tells a story: another cast, with DPMs, and acts that are done while the devices
// send. docs/design/stories.md has them, and the checks by which they are judged.
//
// A demo is set up (directories, keys, peer files, mappings), playing (the devices
// send), settling (everything sent is on its way to the worlds and the ledger),
// and judged (the parties have ended; their stores are read). The parties share
// nothing but addresses: they would run as separate processes from the same
// files, and do with Options.Processes.
//
// The package must not do anything for a party that its operator could not do.
package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/wire/file"

	"golang.org/x/sync/errgroup"
)

// Options are the demo's flags.
type Options struct {
	Inputs   []string      // recordings to play; none: one is generated
	Columns  []string      // how CSV headers map to properties, those of several kinds of files; empty: known headers
	Times    string        // now: shifted to end at the planned end; keep: as recorded
	Speed    float64       // recorded seconds per second; 0: as fast as possible
	For      time.Duration // how long to play; 0: the whole recording
	Stay     bool          // go on after the recording until ctx ends
	Data     string        // directory; empty: a temporary one
	Keep     bool          // leave a temporary directory there
	PortBase int           // first of the listeners' ports; 0: free ones
	Evidence string        // write bundles there; empty: only verify
	Encoding string        // what the watch sends: json or cbor
	// Keystore opens the owner's keystore in the demo's directory, and makes one where
	// there is none; nil: nothing is shared, since nobody can permit it.
	Keystore func(dir string) (Keystore, error)
	// Processes runs each party as a process of its own of this program; empty:
	// all in this process.
	Processes string
	// Story is which one is told; empty: none. A story needs Keystore, and Modules, which
	// gives the WebAssembly of a module in carnet/modules.
	Story   string
	Modules func(name string) ([]byte, error)

	judged func(*setup, *played, *seen) // tests look at what was judged

	Progress io.Writer    // for people; nil: none
	Terminal bool         // Progress is one
	Log      *slog.Logger // of the parties
}

// Run runs the demo.
func Run(ctx context.Context, o Options) (*Report, error) {
	begun := time.Now()
	script, err := o.script()
	if err != nil {
		return nil, err
	}
	recordings, err := o.recordings(script)
	if err != nil {
		return nil, err
	}
	modules, err := o.programs(script)
	if err != nil {
		return nil, err
	}
	dir, remove, err := o.directory()
	if err != nil {
		return nil, err
	}
	defer remove()
	s, err := setUp(ctx, dir, script, o)
	if err != nil {
		return nil, err
	}
	s.modules = modules
	// Whoever ends the demo ends the devices; the parties go on until what they
	// sent has been passed on. A party that fails ends everything.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	parties, running := errgroup.WithContext(running)
	playing, end := context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(running, end)()
	s.sensors = script.sort(recordings)
	played, err := s.run(running, playing, parties, o)
	failed := running.Err() != nil
	stop()
	if perr := parties.Wait(); failed && perr != nil {
		return nil, perr
	}
	if err != nil {
		return nil, err
	}
	report, err := s.judge(context.WithoutCancel(ctx), played, o)
	if err != nil {
		return nil, err
	}
	seen, err := s.check(context.WithoutCancel(ctx), report, o)
	if err != nil {
		return nil, err
	}
	if o.judged != nil {
		o.judged(s, played, seen)
	}
	report.Seconds = time.Since(begun).Seconds()
	return report, nil
}

// run starts the parties and has the sensors play.
func (s *setup) run(running, playing context.Context, parties *errgroup.Group, o Options) (*played, error) {
	if err := s.start(running, parties, o); err != nil {
		return nil, err
	}
	if len(s.script.acts) > 0 {
		s.tale = newTale(s, o)
	}
	return s.play(running, playing, o)
}

// temporary says that the demo's directory is removed at its end.
func (o Options) temporary() bool { return o.Data == "" && !o.Keep }

func (o Options) directory() (dir string, remove func(), err error) {
	if o.Data != "" {
		dir, err = filepath.Abs(o.Data)
		return dir, func() {}, err
	}
	dir, err = os.MkdirTemp("", "carnet-demo-")
	if err != nil {
		return "", nil, fmt.Errorf("make the demo's directory: %w", err)
	}
	if o.Keep {
		return dir, func() {}, nil
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}

// generatedFor is how long a recording the demo generates where nothing says so.
const generatedFor = 60 * time.Second

// recordings reads the inputs, and has what lacks generated.
func (o Options) recordings(script *script) ([]*file.Recording, error) {
	var columns []file.Columns
	for _, spec := range o.Columns {
		of, err := file.ParseColumns(spec)
		if err != nil {
			return nil, err
		}
		columns = append(columns, of)
	}
	var all []*file.Recording
	taken := make([]bool, len(columns)+1)
	for _, path := range o.Inputs {
		r, err := file.Open(path, columns...)
		if err != nil {
			return nil, err
		}
		taken[r.Given] = true
		all = append(all, r)
	}
	if i := slices.Index(taken[1:], false); i >= 0 {
		return nil, carnet.Errorf(carnet.Malformed, "no CSV file is read by the columns %.200q", o.Columns[i]).
			WithFix("leave them out, or give the file that they are of with --input")
	}
	if len(columns) > 0 {
		if err := described(script.sort(all)); err != nil {
			return nil, err
		}
	}
	made, err := script.generate(all, o.length())
	if err != nil {
		return nil, err
	}
	all = append(all, made...)
	return all, script.suits(all)
}

// suits refuses recordings that lack something of what the script tells.
func (s *script) suits(recordings []*file.Recording) error {
	measured := make(map[string]bool)
	for _, r := range recordings {
		for _, m := range r.Measurements {
			measured[m.Name] = true
		}
	}
	lacking := slices.DeleteFunc(slices.Clone(s.needs), func(name string) bool { return measured[name] })
	if len(lacking) == 0 {
		return nil
	}
	return carnet.Errorf(carnet.Malformed, "the story %s tells of %s, which no recording has", s.name, strings.Join(lacking, ", ")).
		WithFix("add one that has it with one more --input, or give none: it makes up its own")
}

// length is how long a recording is that is generated.
func (o Options) length() time.Duration {
	switch {
	case o.For > 0:
		return min(time.Duration(float64(o.For)*max(1, o.Speed)), file.MaxGenerated)
	case o.Stay:
		return 6 * time.Hour
	}
	return generatedFor
}

// programs reads the modules that a script needs.
func (o Options) programs(script *script) (map[string][]byte, error) {
	all := make(map[string][]byte)
	for _, names := range script.modules {
		for _, name := range names {
			if all[name] != nil {
				continue
			}
			var err error
			if all[name], err = o.Modules(name); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// setup is a demo that is set up.
type setup struct {
	dir     string
	script  *script
	modules map[string][]byte // WebAssembly, by their names
	earlier *access.File      // of the demo that the directory had; nil for none
	screen  *screen
	parties []*party
	sensors []*sensor
	devices []*device
	console *front
	tale    *tale    // nil: no story is told
	half    []string // what parties found half done at its end

	refusedBefore map[string]map[carnet.Code]uint64 // messages of each sensor, before this run
}
