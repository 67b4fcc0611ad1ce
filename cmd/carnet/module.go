package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/capsule"
	"carnet/identity"
)

type moduleCommands struct {
	Add    moduleAdd    `cmd:"" help:"Sign a version of a module, or take one that another publisher signed."`
	List   moduleList   `cmd:"" help:"List the modules of the worlds and the things agent."`
	Show   moduleShow   `cmd:"" help:"Show a version of a module, or write what was signed of it."`
	Revoke moduleRevoke `cmd:"" help:"End a version of a module: it runs nowhere any more."`
}

// ofModules is the way to the party whose modules are meant: a world, or a things agent.
type ofModules struct {
	reaching
	JSON bool `help:"As JSON."`
}

// operator is the way to the one party to which a module is added.
func (c ofModules) operator() (*client.Client, error) {
	role, err := c.roleOf(identity.World)
	if err != nil {
		return nil, err
	}
	if role != identity.Things {
		role = identity.World
	}
	return c.one(role, administrator)
}

// find finds a module at the one party that has it.
func (c ofModules) find(ctx context.Context, id string, w way) (hit[api.Module], error) {
	return sought[api.Module]{"module " + id, "carnet module list", w, func(cl *client.Client) (api.Module, error) { return cl.Module(ctx, id) }}.only(c.reaching)
}

type moduleAdd struct {
	ofModules
	File    string   `arg:"" type:"existingfile" help:"The module: a WebAssembly file."`
	Name    string   `xor:"name" placeholder:"WORD" help:"What it is called."`
	Version string   `placeholder:"WORD" help:"Such as 1.0.2. A version is signed once."`
	Reads   []string `placeholder:"PROPERTY" help:"What a job of it is given that names no properties. May be given several times. Default: all."`
	Record  string   `xor:"name" type:"existingfile" placeholder:"FILE" help:"What its publisher signed: module show --record writes it there. The world's configuration must name the publisher."`
}

func (c moduleAdd) Run(ctx context.Context, s streams) error {
	party, err := c.operator()
	if err != nil {
		return err
	}
	n := api.NewModule{Name: c.Name, Version: c.Version, Reads: c.Reads}
	if n.Program, err = os.ReadFile(c.File); err != nil {
		return fmt.Errorf("read the module: %w", err)
	}
	if c.Record != "" {
		if n.Record, err = readMessage(c.Record); err != nil {
			return err
		}
	} else if c.Name == "" || c.Version == "" {
		return carnet.Errorf(carnet.Malformed, "the module has no name, or no version").WithFix("give --name and --version, or the --record that its publisher signed")
	}
	m, err := party.AddModule(ctx, n)
	if err != nil {
		return err
	}
	return c.shown(s, m)
}

// readMessage reads a file with what somebody signed.
func readMessage(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read what was signed: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func (c ofModules) shown(s streams, m api.Module) error {
	if c.JSON {
		return writeJSON(s.out, m)
	}
	reads := "what it is given"
	if len(m.Reads) > 0 {
		reads = plain(strings.Join(m.Reads, ", "))
	}
	t := table{
		{"module", m.ID}, {"runs on", fmt.Sprintf("%s, interface %d", m.Engine, m.Interface)}, {"reads", reads},
		{"bytes", fmt.Sprintf("%s, %d", m.Program.Fingerprint, m.Program.Size)}, {"signed by", m.By}, {"signed", clock(m.Made)}, {"added", clock(m.Added)},
		{"record", m.Fingerprint.String()}, {"state", moduleState(m)},
	}
	return t.write(s.out)
}

// moduleState says on one line whether a module may run.
func moduleState(m api.Module) string {
	if m.Revoked == nil {
		return "may run"
	}
	by := "this party"
	if m.Revoked.By == m.By {
		by = "its publisher"
	}
	return fmt.Sprintf("revoked by %s at %s: %s", by, clock(m.Revoked.Made), plain(m.Revoked.Why))
}

type moduleList struct{ ofModules }

func (c moduleList) Run(ctx context.Context, s streams) error {
	all := []moduleOf{}
	err := c.each(s, atModules, func(p access.Party, cl *client.Client) error {
		list, err := cl.Modules(ctx)
		for _, m := range list {
			all = append(all, moduleOf{p.Name, m})
		}
		return err
	})
	return answered(s, c.JSON, all, err, func() error {
		t := table{{"MODULE", "PARTY", "ENGINE", "BYTES", "ADDED", "STATE"}}
		for _, m := range all {
			t.add(m.ID, string(m.Party), m.Engine, fmt.Sprint(m.Program.Size), clock(m.Added), moduleState(m.Module))
		}
		return t.list(s, "There are no modules.")
	})
}

// moduleOf is a module with the party that was asked.
type moduleOf struct {
	Party carnet.PartyID `json:"party"`
	api.Module
}

type moduleShow struct {
	ofModules
	Module     string `arg:"" placeholder:"NAME@VERSION" help:"The module."`
	Record     bool   `xor:"what" help:"What its publisher signed, for module add of another world."`
	Revocation bool   `xor:"what" help:"The revocation that was signed first, for module revoke of another world."`
}

func (c moduleShow) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx, c.Module, atModules)
	if err != nil {
		return err
	}
	m := h.is
	switch {
	case c.Record:
		_, err = fmt.Fprintln(s.out, m.Record)
		return err
	case c.Revocation && m.Revoked == nil:
		return carnet.Errorf(carnet.NotFound, "the module %s isn't revoked", m.ID).WithFix("see it: carnet module show %s", m.ID)
	case c.Revocation:
		_, err = fmt.Fprintln(s.out, publishers(m))
		return err
	}
	return c.shown(s, m)
}

// publishers is the word of a revoked module's publisher, which counts at every world;
// where there is none, the first.
func publishers(m api.Module) string {
	for _, word := range m.Revoked.Revocations {
		if r, err := capsule.OpenRevocation(word); err == nil && r.By == m.By {
			return word
		}
	}
	return m.Revoked.Revocations[0]
}

type moduleRevoke struct {
	ofModules
	Module     string `arg:"" placeholder:"NAME@VERSION" help:"The module."`
	Why        string `xor:"word" required:"" placeholder:"LINE" help:"Why, on one line: who has jobs of it reads it."`
	Revocation string `xor:"word" required:"" type:"existingfile" placeholder:"FILE" help:"What its publisher signed: module show --revocation writes it there."`
}

func (c moduleRevoke) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx, c.Module, way{identity.World: {administrator}, identity.Things: {administrator}})
	if err != nil {
		return err
	}
	n := api.NewRevocation{Why: c.Why}
	if c.Revocation != "" {
		if n.Revocation, err = readMessage(c.Revocation); err != nil {
			return err
		}
	}
	m, err := h.cl.RevokeModule(ctx, c.Module, n)
	if err != nil {
		return err
	}
	return c.shown(s, m)
}
