package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/identity"
	"carnet/node"
	"carnet/peering"
	"carnet/policy"
	"carnet/thing"

	"golang.org/x/sync/errgroup"
)

// party is one party: a process.
type party struct {
	name   carnet.PartyID
	role   identity.Role
	dir    string
	file   string // of the configuration, in dir
	config node.Config
	token  string
	client *client.Client
	trust  *tls.Config // of who connects to its listeners for people and devices
	cmd    *exec.Cmd
	ended  chan error
}

// system is the parties of a row.
type system struct {
	hub, vault *party
	worlds     []*party
	dpms       []*party // not all of them run
}

// purposes are the demo's worlds.
var purposes = map[carnet.PartyID]node.WorldConfig{
	"arena":   {Purpose: "fitness", Sensitivity: "personal+health"},
	"clinic":  {Purpose: "care", Sensitivity: "personal+health+location"},
	"citadel": {Purpose: "fitness", Sensitivity: "personal+health"},
}

func (s *system) all() []*party { return append([]*party{s.vault, s.hub}, s.worlds...) }

// cast says which parties play beside hub and vault, and how they are set up. Beside
// citadel the worlds are neighbours: they call each other.
type cast struct {
	worlds []carnet.PartyID
	dsn    string      // of a PostgreSQL that the worlds are on, if there is one
	limits node.Limits // of the worlds
	// dpms have so many workers each. They aren't started.
	dpms map[carnet.PartyID]int
}

// start makes, peers and starts hub, vault and the worlds named. name is the
// row's, for the directory and the profiles.
func (b *bench) start(ctx context.Context, name string, worlds ...carnet.PartyID) (*system, error) {
	return b.startCast(ctx, name, cast{worlds: worlds})
}

// startCast makes and peers a cast, and starts all but its DPMs.
func (b *bench) startCast(ctx context.Context, name string, c cast) (s *system, err error) {
	owners := node.Config{Limits: node.Limits{MappingsOfOwner: 1 << 14}} // all things are one owner's
	s = &system{hub: &party{name: "hub", role: identity.Things, config: owners}, vault: &party{name: "vault", role: identity.Depot}}
	neighbours := slices.Contains(c.worlds, "citadel")
	for _, w := range c.worlds {
		p := &party{name: w, role: identity.World, config: node.Config{World: purposes[w], Limits: c.limits}}
		p.config.World.UnsignedPrograms = len(c.dpms) > 0
		if c.dsn != "" {
			p.config.Store = node.Store{Kind: "postgres", DSN: c.dsn, Schema: "bench_" + string(w)}
		}
		if neighbours {
			if p.config.Listen.R5, err = node.FreeAddress(); err != nil {
				return nil, err
			}
		}
		s.worlds = append(s.worlds, p)
	}
	for dpm, workers := range c.dpms {
		s.dpms = append(s.dpms, &party{name: dpm, role: identity.DPM, config: node.Config{DPM: node.DPMConfig{Sensitivity: "personal+health", Workers: workers, UnsignedPrograms: true}}})
	}
	for _, p := range append(s.all(), s.dpms...) {
		p.dir = filepath.Join(b.dir, name, string(p.name))
		if err := p.make(ctx); err != nil {
			return nil, fmt.Errorf("make %s: %w", p.name, err)
		}
	}
	for _, w := range append(s.worlds, s.vault) {
		if err := peer(ctx, s.hub, w); err != nil {
			return nil, err
		}
	}
	for _, p := range s.dpms {
		for _, w := range s.worlds {
			if err := peer(ctx, w, p); err != nil {
				return nil, err
			}
		}
		if err := peer(ctx, p, s.vault); err != nil {
			return nil, err
		}
	}
	for i, w := range s.worlds {
		if err := peer(ctx, w, s.vault); err != nil {
			return nil, err
		}
		for _, other := range s.worlds[:i] {
			if neighbours {
				if err := peer(ctx, other, w); err != nil {
					return nil, err
				}
			}
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, p := range s.all() {
		if err := p.start(b, name); err != nil {
			return nil, err
		}
	}
	for _, p := range s.all() {
		if err := p.await(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// make creates the party's keys and configuration.
func (p *party) make(ctx context.Context) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	c := &p.config
	c.Party, c.Role, c.Data, c.KeyFile = p.name, p.role, "data", "kek"
	if c.Store.Kind == "" {
		c.Store.Kind = "sqlite"
	}
	own := map[identity.Role]*string{identity.Depot: &c.Listen.R2, identity.World: &c.Listen.Link, identity.Things: &c.Listen.MQTT, identity.DPM: &c.Listen.R6}[p.role]
	for _, a := range []*string{&c.Listen.HTTP, own} {
		var err error
		if *a, err = node.FreeAddress(); err != nil {
			return err
		}
	}
	var kept node.Token
	p.token, kept = node.NewToken("operator", "administrator")
	c.Tokens = []node.Token{kept}
	p.file = "carnet.toml"
	file := filepath.Join(p.dir, p.file)
	if err := node.Init(ctx, file, *c); err != nil {
		return err
	}
	var err error
	if p.config, err = node.ReadConfig(file); err != nil {
		return err
	}
	return p.connect(ctx)
}

// connect makes the operator's way to ask the party.
func (p *party) connect(ctx context.Context) error {
	ca := filepath.Join(p.dir, string(p.name)+".pem")
	if err := node.WriteCA(ctx, p.config, ca); err != nil {
		return err
	}
	var err error
	if p.trust, err = trust(ca); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(p.config.Listen.HTTP)
	if err != nil {
		return err
	}
	p.client = &client.Client{
		Base: "https://localhost:" + port, Token: p.token,
		HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: p.trust, MaxIdleConnsPerHost: 64}},
	}
	return nil
}

// trust reads a certificate that stands for localhost.
func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}, nil
}

// peer makes two parties peers: for what the second one is there for, or, if it is
// a world and the first one, too, for calls. What a DPM may have its world says.
func peer(ctx context.Context, a, b *party) (err error) {
	o := peering.Offer{Scope: []peering.Scope{peering.R2}}
	switch {
	case b.role == identity.DPM:
		o, err = a.config.Offers(peering.R6)
	case b.role == identity.World && a.role == identity.World:
		o, err = b.config.Offers(peering.R5)
	case b.role == identity.World:
		o, err = b.config.Offers(peering.R1)
	}
	if err != nil {
		return err
	}
	return node.Introduce(ctx, node.Introduction{Inviter: a.config, Accepter: b.config, Calls: b.name, Offer: o}, slog.New(slog.DiscardHandler))
}

// start starts the party's process.
func (p *party) start(b *bench, row string) error {
	log, err := os.Create(filepath.Join(p.dir, string(p.name)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(b.binary, string(p.role), "--config", filepath.Join(p.dir, p.file))
	if b.profile != "" {
		p.cmd.Args = append(p.cmd.Args, "--cpuprofile", filepath.Join(b.profile, row+"-"+string(p.name)+".pprof"))
	}
	p.cmd.Stderr = log
	// The parties end with this process, whatever ends it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.ended = make(chan error, 1)
	go func() { p.ended <- p.cmd.Wait() }()
	return nil
}

// await waits until the party answers.
func (p *party) await(ctx context.Context) error {
	for range 600 {
		if p.client.Healthy(ctx) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-p.ended:
			p.ended <- err
			return fmt.Errorf("%s ended: %v: %s", p.name, err, p.lastWords())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not answer", p.name)
}

// lastWords are the end of the party's log.
func (p *party) lastWords() string {
	log := content(filepath.Join(p.dir, string(p.name)+".log"))
	return log[max(0, len(log)-500):]
}

// stop ends the processes, the things agent first, and waits for them.
func (s *system) stop() (err error) {
	for _, p := range slices.Concat([]*party{s.hub}, s.worlds, s.dpms, []*party{s.vault}) {
		err = errors.Join(err, p.stop())
	}
	return err
}

// stop ends the party's process, if it runs, and waits for it.
func (p *party) stop() (err error) {
	if p.cmd == nil || p.cmd.Process == nil {
		return nil
	}
	p.cmd.Process.Signal(syscall.SIGTERM) // one that has ended already is reaped below
	select {
	case e := <-p.ended:
		if e != nil {
			err = fmt.Errorf("%s ended: %w: %s", p.name, e, p.lastWords())
		}
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		err = fmt.Errorf("%s did not end in 20 s: %s", p.name, p.lastWords())
		<-p.ended
	}
	p.cmd = nil
	return err
}

// device is a thing with what it needs to connect, and its mappings.
type device struct {
	id       carnet.ThingID
	password string
	mappings []thing.MappingInfo
}

// add adds n things of a description and maps each to every world with its view.
func (s *system) add(ctx context.Context, n int, description string, views map[carnet.PartyID]string) ([]device, error) {
	all := make([]device, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range all {
		group.Go(func() (err error) {
			all[i], err = s.addOne(ctx, description, views)
			return err
		})
	}
	return all, group.Wait()
}

func (s *system) addOne(ctx context.Context, description string, views map[carnet.PartyID]string) (d device, err error) {
	added, err := s.hub.client.AddThing(ctx, api.NewThing{Owner: "owner", Description: api.Description(description)})
	if err != nil {
		return d, fmt.Errorf("add a thing: %w", err)
	}
	d = device{id: added.ID, password: added.Password}
	for _, w := range s.worlds {
		view, err := policy.ParseView([]byte(views[w.name]))
		if err != nil {
			return d, err
		}
		m, err := s.mapTo(ctx, d.id, api.NewMapping{World: w.name, View: view})
		if err != nil {
			return d, fmt.Errorf("map a thing to %s: %w", w.name, err)
		}
		d.mappings = append(d.mappings, m)
	}
	return d, nil
}

// mapTo maps a thing, once the link is up.
func (s *system) mapTo(ctx context.Context, id carnet.ThingID, n api.NewMapping) (m thing.MappingInfo, err error) {
	for range 200 {
		m, err = s.hub.client.Map(ctx, id, n)
		if carnet.CodeOf(err) != carnet.Unavailable {
			return m, err
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return m, err
}

// settle waits until the worlds have acknowledged everything.
func (s *system) settle(ctx context.Context, limit time.Duration) error {
	var last []string
	for end := time.Now().Add(limit); time.Now().Before(end); {
		st, err := s.hub.client.Status(ctx)
		if err != nil {
			return err
		}
		last = last[:0]
		for _, l := range st.Things.Links {
			if l.Lag > 0 || l.Waiting > 0 || !l.Up {
				last = append(last, fmt.Sprintf("%s: lag %d, waiting %d, up %t", l.World, l.Lag, l.Waiting, l.Up))
			}
		}
		if len(last) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("not everything has reached the worlds after %s: %s", limit, strings.Join(last, "; "))
}

// used is the CPU time of each party.
func (s *system) used() map[carnet.PartyID]time.Duration {
	all := make(map[carnet.PartyID]time.Duration)
	for _, p := range s.all() {
		all[p.name] = cpuTime(p.cmd.Process.Pid)
	}
	return all
}
