// Command carnet is the whole of Carnet in one binary: it runs parties (things
// agents, worlds, depots, DPMs), makes and peers them, and asks them things.
//
// It owns the command line and nothing else: a command checks its arguments,
// makes one or two calls (package node for a party's own files, api/client for
// everything that a running party answers), and shows the answer. It has no
// state but the access file, which says how to reach parties.
//
// What a command shows goes to standard output, as a table or as JSON (--json);
// everything else goes to standard error. It ends with 0 for done, 1 for an
// error, which is one line with the reason and what to do, 2 for wrong usage, 74
// when a party must recover at its next start. docs/design/cli.md has the rest.
//
// The command must not decide anything: rules are the agents'.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"carnet"

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Demo     demoCommand     `cmd:"" help:"Run the whole system with a watch, and check it." group:"run"`
	Things   thingsCommand   `cmd:"" help:"Run a things agent." group:"run"`
	World    worldCommand    `cmd:"" help:"Run a world." group:"run"`
	Depot    depotCommand    `cmd:"" help:"Run a depot." group:"run"`
	DPM      dpmCommand      `cmd:"" name:"dpm" help:"Run a DPM, which computes for worlds, or one more worker of it." group:"run"`
	Console  consoleCommands `cmd:"" help:"Serve pages for people, and say who may sign in." group:"run"`
	Party    partyCommands   `cmd:"" help:"Make parties." group:"set"`
	Access   accessCommands  `cmd:"" help:"Access files: how a person or a program reaches parties." group:"set"`
	Peer     peerCommands    `cmd:"" help:"Peers: whom a party trusts, for what, until when." group:"set"`
	Thing    thingCommands   `cmd:"" help:"Things, and what worlds get of them." group:"ask"`
	Owner    ownerCommands   `cmd:"" help:"For owners: who got what, and stop it." group:"ask"`
	Avatar   avatarCommands  `cmd:"" help:"Avatars: state, history, live." group:"ask"`
	Item     itemCommands    `cmd:"" help:"Items of avatars: what worlds issue, take and give." group:"ask"`
	Share    shareCommands   `cmd:"" help:"Shares of avatars between worlds." group:"ask"`
	Module   moduleCommands  `cmd:"" help:"Modules: signed versions of programs that worlds have run, and their end." group:"ask"`
	Job      jobCommands     `cmd:"" help:"What worlds have computed over what avatars say: here, or at a DPM." group:"ask"`
	Grant    grantCommands   `cmd:"" help:"Who may read avatars, and how exactly." group:"ask"`
	Activity activityCommand `cmd:"" help:"Who asked a party for what, and what was decided." group:"ask"`
	Policy   policyCommands  `cmd:"" help:"Who may do what, and why." group:"ask"`
	Status   statusCommand   `cmd:"" help:"How the parties are." group:"ask"`
	Doctor   doctorCommand   `cmd:"" help:"What parties have that is half done, or not as it should be." group:"ask"`
	Verify   verifyCommand   `cmd:"" help:"Verify evidence, offline." group:"ask"`
	Version  versionCommand  `cmd:"" help:"Say which version this is; also --version."`
	Help     helpCommand     `cmd:"" help:"Say what a command does, and its flags; also --help."`
}

// grammar is the commands with a first word, or all commands if none has it or all are
// needed: to build all takes longer than most commands do.
func grammar(word string) any {
	for f := range reflect.TypeFor[commands]().Fields() {
		if name := cmp.Or(f.Tag.Get("name"), strings.ToLower(f.Name)); name == word && name != "help" {
			return reflect.New(reflect.StructOf([]reflect.StructField{f})).Interface()
		}
	}
	return new(commands)
}

// groups are the headings of the help.
var groups = []kong.Group{
	{Key: "run", Title: "Run a party:"},
	{Key: "set", Title: "Set up:"},
	{Key: "ask", Title: "Ask:"},
}

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// exit codes beside 0.
const (
	exitError       = 1
	exitUsage       = 2
	exitDurability  = 74  // EX_IOERR: recover at the next start
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

// exitCode is an error that has a code of its own, and has been told already
// where its err is nil.
type exitCode struct {
	code int
	err  error
}

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d: %v", e.code, e.err) }

// toldTwice is how long after a signal another is the same one: timeout(1) sends it to the
// program, and then to its group.
const toldTwice = time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		time.Sleep(toldTwice)
		stop() // a second signal ends at once
	})
	os.Exit(run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

func run(ctx context.Context, args []string, s streams) int {
	args = meant(args)
	parser, err := kong.New(grammar(args[0]),
		kong.Name("carnet"), kong.Description("The secure way between real devices and virtual worlds."),
		kong.Writers(s.out, s.err), kong.ExplicitGroups(groups), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(s),
	)
	if err != nil {
		return report(s, exitCode{exitUsage, err})
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(s.err, "carnet: %s; see %s --help\n", plainUsage(err, args), called(err))
		return exitUsage
	}
	err = command.Run(parser)
	if ctx.Err() != nil && interrupted(err) {
		return exitInterrupted
	}
	return report(s, err)
}

// plainUsage says what the parser of arguments means.
func plainUsage(err error, args []string) string {
	text := err.Error()
	if name, rest, ok := strings.Cut(text, ">: "); ok && strings.HasPrefix(name, "<") {
		text = "argument " + strings.ToUpper(name[1:]) + ": " + rest // the parser's <name> looks like something left out
	}
	if _, got, ok := strings.Cut(text, "value but got \""); ok && strings.Contains(text, " flag)") {
		value, _, _ := strings.Cut(got, "\"")
		for i, arg := range args {
			if i > 0 && arg == value && strings.HasPrefix(args[i-1], "--") {
				return fmt.Sprintf("%s wants a value, and %s looks like a flag; if it is meant, write %s=%s", args[i-1], value, args[i-1], value)
			}
		}
	}
	if strings.Contains(text, "in duration") {
		text += "; write a time as 90s, 5m or 720h, in the units h, m, s and ms"
	}
	return text
}

// interrupted reports whether err is what an interrupt makes of a command: a
// call that was broken off looks like a party that doesn't answer.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || carnet.CodeOf(err) == carnet.Unavailable
}

// called is the command that was meant, as far as it was understood.
func called(err error) string {
	if e, ok := errors.AsType[*kong.ParseError](err); ok {
		if command := e.Context.Command(); command != "" {
			words := strings.Fields(command)
			for i, w := range words {
				if strings.HasPrefix(w, "<") {
					words = words[:i]
					break
				}
			}
			return "carnet " + strings.Join(words, " ")
		}
	}
	return "carnet"
}

// report tells an error in one line and returns the exit code.
func report(s streams, err error) int {
	if err == nil {
		return 0
	}
	code := exitError
	if e, ok := errors.AsType[exitCode](err); ok {
		code, err = e.code, e.err
	}
	if err != nil {
		fmt.Fprintln(s.err, "carnet:", plain(strings.ReplaceAll(withFix(err), "\n", "; ")))
	}
	return code
}

// withFix is what an error says, with what to do where it is a file that can't be
// read or written: nobody below knows that it was named on the command line.
func withFix(err error) string {
	file, ok := errors.AsType[*fs.PathError](err)
	if !ok || carnet.CodeOf(err) != "" {
		return err.Error()
	}
	fix := ""
	switch {
	case errors.Is(file, fs.ErrNotExist):
		fix = "name one that is there"
	case errors.Is(file, fs.ErrPermission):
		fix = "this user may not: see its owner and mode (ls -l)"
	case errors.Is(file, fs.ErrExist):
		fix = "name another one, or move it away"
	case errors.Is(file, syscall.EISDIR):
		fix = "name a file"
	case errors.Is(file, syscall.ENOTDIR):
		fix = "a part of the path is a file, not a directory"
	default:
		return err.Error()
	}
	return err.Error() + "; " + fix
}
