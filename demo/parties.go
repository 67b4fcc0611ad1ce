package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api/client"
	"carnet/identity"
	"carnet/node"
	"carnet/peering"

	"golang.org/x/sync/errgroup"
)

// party is one of the demo's parties, as its operator sees it.
type party struct {
	name   carnet.PartyID
	role   identity.Role
	dir    string
	config node.Config
	token  string         // the operator's
	others []access.Token // of who else may ask it
	client *client.Client
	looks  *client.Client // as the demo itself, which looks all the time how it is
}

// itself is whom the demo is when it looks: in activity logs this is told from what an
// operator asks.
const itself = "demo"

// visitors are who may ask the parties beside their operators, and as what: the owner
// of the things may change what worlds get and read what they have, an auditor sees
// how everything is and reads no measurement.
var visitors = []struct {
	name string
	as   map[identity.Role]string
}{
	{owner, map[identity.Role]string{identity.Things: "user", identity.World: "service"}},
	{"auditor", map[identity.Role]string{identity.Things: "auditor", identity.World: "auditor", identity.Depot: "auditor", identity.DPM: "auditor"}},
}

func (p *party) file() string { return filepath.Join(p.dir, "carnet.toml") }

// plan lists the parties. What the worlds may hold and use it for is theirs to say.
func plan(dir string, script *script, o Options) (parties []*party, err error) {
	next := o.PortBase
	address := func() (string, error) {
		if o.PortBase != 0 {
			next++
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(next-1)), nil
		}
		return node.FreeAddress()
	}
	for _, r := range script.cast {
		p := &party{name: r.name, role: r.role, config: r.config, dir: filepath.Join(dir, string(r.name))}
		c := &p.config
		c.Party, c.Role, c.Data, c.KeyFile = p.name, p.role, "data", "kek"
		c.Store.Kind = "sqlite"
		if c.Listen.HTTP, err = address(); err != nil {
			return nil, err
		}
		own := map[identity.Role]*string{
			identity.Depot: &c.Listen.R2, identity.World: &c.Listen.Link, identity.Things: &c.Listen.MQTT, identity.DPM: &c.Listen.R6,
		}[p.role]
		if *own, err = address(); err != nil {
			return nil, err
		}
		if r.calls { // other worlds, which call it
			if c.Listen.R5, err = address(); err != nil {
				return nil, err
			}
		}
		parties = append(parties, p)
	}
	return parties, nil
}

// make creates a party's keys and configuration.
func (p *party) make(ctx context.Context) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", p.name, err)
	}
	var kept node.Token
	p.token, kept = node.NewToken("operator", "administrator")
	p.config.Tokens = append(p.config.Tokens, kept)
	for _, v := range visitors {
		if as, ok := v.as[p.role]; ok {
			token, kept := node.NewToken(v.name, as)
			p.config.Tokens = append(p.config.Tokens, kept)
			p.others = append(p.others, access.Token{Party: p.name, Name: v.name, Role: as, Token: token})
		}
	}
	token, own := node.NewToken(itself, "administrator")
	p.config.Tokens = append(p.config.Tokens, own)
	p.others = append(p.others, access.Token{Party: p.name, Name: itself, Role: "administrator", Token: token})
	if err := node.Init(ctx, p.file(), p.config); err != nil {
		return err
	}
	config, err := node.ReadConfig(p.file())
	if err != nil {
		return err
	}
	p.config = config
	return node.WriteCA(ctx, config, p.ca())
}

func (p *party) ca() string { return filepath.Join(p.dir, "ca.pem") }

// peer makes two parties peers, as their operators would: with the things agent, or
// with another world that it calls, a world agrees on what it may be given, and with a
// DPM on what that may have; of a depot nobody wants anything but that it keeps things.
// The things agent shows each another name.
func peer(ctx context.Context, inviter, accepter *party, log *slog.Logger) error {
	if known, err := inviter.reaches(ctx, accepter, log); err != nil || known {
		return err
	}
	o := peering.Offer{Scope: []peering.Scope{peering.R2}}
	var err error
	switch {
	case accepter.role == identity.DPM:
		o, err = inviter.config.Offers(peering.R6)
	case accepter.role == identity.World && inviter.role == identity.World:
		o, err = accepter.config.Offers(peering.R5)
	case accepter.role == identity.World:
		o, err = accepter.config.Offers(peering.R1)
	}
	if err != nil {
		return err
	}
	return node.Introduce(ctx, node.Introduction{Inviter: inviter.config, Accepter: accepter.config, Calls: accepter.name, Offer: o}, log)
}

// connect makes the operator's way to ask the party.
func (p *party) connect() error {
	pem, err := os.ReadFile(p.ca())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return carnet.Errorf(carnet.Malformed, "%s holds no certificate", p.ca())
	}
	_, port, err := net.SplitHostPort(p.config.Listen.HTTP)
	if err != nil {
		return err
	}
	p.client = &client.Client{
		Base: "https://localhost:" + port, Token: p.token,
		HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}},
	}
	p.looks = p.client // a demo that an older program made has no token for itself
	for _, t := range p.others {
		if t.Name == itself {
			p.looks = &client.Client{Base: p.client.Base, Token: t.Token, HTTP: p.client.HTTP}
		}
	}
	return nil
}

// run works as the party until ctx ends, in this process or in one of its own.
func (p *party) run(ctx context.Context, program string, log *slog.Logger) error {
	if program == "" {
		return p.runHere(ctx, log)
	}
	cmd := exec.CommandContext(ctx, program, string(p.role), "--config", p.file(), "--log-level", levelOf(log).String(), "--while-input")
	input, err := cmd.StdinPipe() // ends with this process
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer input.Close()
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is the demo's: its parties end once it has looked at them
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return fmt.Errorf("%s ended before the demo did", p.name)
	}
	return fmt.Errorf("%s ended: %w", p.name, err)
}

func (p *party) runHere(ctx context.Context, log *slog.Logger) error {
	n, err := node.New(ctx, p.config, log)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return n.Run(ctx) })
	for range p.config.DPM.Processes() {
		if p.role == identity.DPM {
			work.Go(func() error { return p.keepWorker(ctx, log) })
		}
	}
	return work.Wait()
}

// keepWorker runs a worker of a DPM that runs here, and another when it has ended. A
// program that can't be ended would end a worker's own process; here it fails the demo.
func (p *party) keepWorker(ctx context.Context, log *slog.Logger) error {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stuck := func() {
		cancel(carnet.Errorf(carnet.Unavailable, "a program at %s can't be ended", p.name).WithFix("run the demo with --processes"))
	}
	for {
		err := node.RunWorker(running, p.config, log, stuck)
		if cause := context.Cause(running); cause != nil && ctx.Err() == nil {
			return cause
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			log.Warn("a worker has ended; another is started", "party", p.name, "err", err)
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return nil
		}
	}
}

// levelOf is the level from which on a logger logs.
func levelOf(log *slog.Logger) slog.Level {
	level := slog.LevelDebug
	for level < slog.LevelError && !log.Enabled(context.Background(), level) {
		level += slog.LevelInfo - slog.LevelDebug
	}
	return level
}

// setUp makes the parties, or takes up those that the directory has.
func setUp(ctx context.Context, dir string, script *script, o Options) (*setup, error) {
	s := &setup{dir: dir, script: script, screen: newScreen(o)}
	var err error
	if s.earlier, err = earlier(dir); err != nil {
		return nil, err
	}
	if s.parties, err = plan(dir, script, o); err != nil {
		return nil, err
	}
	if err := s.goesOn(); err != nil {
		return nil, err
	}
	if s.earlier != nil {
		err = s.takeUp(ctx, o)
	} else {
		err = s.makeAll(ctx, o.Log)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range s.parties {
		if err := p.connect(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// makeAll makes the parties and has them accept each other.
func (s *setup) makeAll(ctx context.Context, log *slog.Logger) error {
	s.screen.say("making the parties' keys in %s", s.dir)
	for _, p := range s.parties {
		if err := p.make(ctx); err != nil {
			return err
		}
	}
	return s.peerAll(ctx, log)
}

// reaches reports whether the party has the other as its peer, where it listens now.
func (p *party) reaches(ctx context.Context, other *party, log *slog.Logger) (bool, error) {
	if p.role == identity.Depot {
		return false, nil
	}
	i, err := node.Inspect(ctx, p.config, log)
	if err != nil {
		return false, err
	}
	peer, ok := i.Peers[other.name]
	reached := other.config.Reached()
	there := ok && peer.Link == reached.Link && (reached.R2 == "" || peer.R2 == "https://"+reached.R2) && peer.R5 == reached.R5 &&
		(reached.R6 == "" || peer.R6 == "https://"+reached.R6)
	return there, i.Close()
}

func (s *setup) peerAll(ctx context.Context, log *slog.Logger) error {
	hub, vault := s.party("hub"), s.party("vault")
	pairs := [][2]*party{{hub, vault}}
	for _, p := range s.parties {
		if p.role == identity.World {
			pairs = append(pairs, [2]*party{hub, p})
		}
		if p.role == identity.World || p.role == identity.DPM {
			pairs = append(pairs, [2]*party{p, vault})
		}
	}
	for _, two := range s.script.meets {
		pairs = append(pairs, [2]*party{s.party(two[0]), s.party(two[1])})
	}
	for _, pair := range pairs {
		if err := peer(ctx, pair[0], pair[1], log); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) party(name carnet.PartyID) *party {
	for _, p := range s.parties {
		if p.name == name {
			return p
		}
	}
	return nil
}

// start starts the parties, waits until each answers, adds the
// sensors, maps them, and prepares what the script wants.
func (s *setup) start(ctx context.Context, group *errgroup.Group, o Options) error {
	for _, p := range s.parties {
		group.Go(func() error { return p.run(ctx, o.Processes, o.Log) })
	}
	for _, p := range s.parties {
		if err := p.await(ctx); err != nil {
			return err
		}
	}
	answered := time.Now()
	if err := s.addSensors(ctx); err != nil {
		return err
	}
	if err := s.canProve(o); err != nil {
		return err
	}
	if s.script.prepare != nil {
		if err := s.script.prepare(s, ctx, o, answered); err != nil {
			return err
		}
	}
	if err := s.writeAccess(o); err != nil {
		return err
	}
	group.Go(func() error { return s.console.run(ctx) })
	return nil
}

// addSensors adds the sensors that the agent doesn't have from an earlier run.
func (s *setup) addSensors(ctx context.Context) error {
	hub := s.party("hub")
	if err := s.adopt(ctx, hub); err != nil {
		return err
	}
	for _, w := range s.sensors {
		if w.id == "" {
			var joined *sensor
			if i := slices.IndexFunc(s.sensors, func(of *sensor) bool { return of.name == w.joins }); i >= 0 {
				joined = s.sensors[i]
			}
			if err := w.add(ctx, hub, joined); err != nil {
				return err
			}
		}
	}
	var err error
	s.refusedBefore, err = s.refused(ctx)
	return err
}

// await waits until the party answers.
func (p *party) await(ctx context.Context) error {
	var err error
	for range 300 {
		if err = p.client.Healthy(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not answer at %s: %w", p.name, p.client.Base, err)
}

// writeAccess writes demo.json: how to reach everything. What an earlier run or
// somebody else put there stays.
func (s *setup) writeAccess(o Options) error {
	f := &access.File{Version: access.Version}
	if s.earlier != nil {
		f = s.earlier
	}
	others := slices.DeleteFunc(f.Parties, func(p access.Party) bool { return s.party(p.Name) != nil })
	f.Parties = nil
	for _, p := range s.parties {
		reached := p.config.Reached()
		entry := access.Party{Name: p.name, Role: p.role, HTTP: p.client.Base, CAFile: p.ca(), Config: p.file(), Link: reached.Link, R5: reached.R5}
		switch p.role {
		case identity.Things:
			entry.MQTT = s.sensors[0].address
		case identity.Depot:
			entry.R2 = "https://" + reached.R2
		case identity.DPM:
			entry.R6 = "https://" + reached.R6
		}
		f.Parties = append(f.Parties, entry)
		if s.earlier != nil {
			continue
		}
		f.Tokens = append(f.Tokens, access.Token{Party: p.name, Name: "operator", Role: "administrator", Token: p.token})
		f.Tokens = append(f.Tokens, p.others...)
	}
	f.Parties = append(f.Parties, others...)
	for _, w := range s.sensors {
		if !w.adopted {
			w.writeAccess(f)
		}
	}
	if err := s.writeCurl(); err != nil {
		return err
	}
	if err := s.openConsole(f, o); err != nil {
		return err
	}
	return f.Write(filepath.Join(s.dir, "demo.json"))
}
