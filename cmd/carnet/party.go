package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"carnet"
	"carnet/access"
	"carnet/identity"
	"carnet/node"
)

type partyCommands struct {
	Init  partyInit   `cmd:"" help:"Make a party: keys, configuration, an operator's token."`
	Token partyTokens `cmd:"" help:"Who may use the party's HTTP interface."`
	Trust partyTrust  `cmd:"" help:"Write the keys by which others verify the evidence of a world, or of a depot's ledger."`

	Rotate      partyRotate      `cmd:"" help:"Put a party's keys under another key-encryption key, while it runs or not."`
	Certificate partyCertificate `cmd:"" help:"Renew the certificate that people and devices trust, as after a change of the party's hosts."`
}

// The files of a party's directory.
const (
	configFile = "carnet.toml"
	accessFile = "access.json"
	caFile     = "ca.pem"
)

type partyInit struct {
	Role  identity.Role  `required:"" enum:"things,world,depot,dpm" placeholder:"ROLE" help:"things, world, depot or dpm."`
	Party carnet.PartyID `required:"" placeholder:"NAME" help:"The party's name."`
	Dir   string         `required:"" type:"path" help:"The directory to make it in."`

	Host       []string `placeholder:"NAME" help:"A name or address by which others reach this machine; the first is what files tell them. Without one the party is for this machine only."`
	ListenHTTP string   `name:"listen-http" placeholder:"HOST:PORT" help:"For people and programs. Default: port 8443 of every address with --host, else of localhost."`
	ListenMQTT string   `name:"listen-mqtt" placeholder:"HOST:PORT" help:"For devices, of a things agent. Default: likewise, port 8883."`
	ListenLink string   `name:"listen-link" placeholder:"HOST:PORT" help:"For things agents, of a world. Default: likewise, port 7443."`
	ListenR2   string   `name:"listen-r2" placeholder:"HOST:PORT" help:"For parties, of a depot. Default: likewise, port 9443."`
	ListenR5   string   `name:"listen-r5" placeholder:"HOST:PORT" help:"For other worlds, of a world. Without it the world has no such peers."`
	ListenR6   string   `name:"listen-r6" placeholder:"HOST:PORT" help:"For worlds, of a DPM. Default: likewise, port 9553."`

	Purpose     string   `help:"What a world uses data for, in one word."`
	Sensitivity string   `help:"What a world or a DPM may hold: public, or personal, health, location joined by +."`
	Residency   []string `help:"Where a world or a DPM keeps data, such as de."`
}

func (c partyInit) Run(ctx context.Context, s streams) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	token, kept := node.NewToken("operator", administrator)
	config.Tokens = []node.Token{kept}
	if err := c.make(ctx, config, token); err != nil {
		return err
	}
	fmt.Fprintf(s.out, `Made the %s party %s in %s.
Operator's token, shown once (it is in %s, too): %s
Next: carnet %s --config %s
then, with CARNET_ACCESS=%[4]s: %[8]s
`, c.Role, c.Party, c.Dir, filepath.Join(c.Dir, accessFile), token, c.Role, filepath.Join(c.Dir, configFile), firstPeer(c.Role))
	return nil
}

// firstPeer is how a new party gets its first peer.
func firstPeer(r identity.Role) string {
	switch r {
	case identity.Things:
		return "carnet peer accept NAME FILE, with the invitation of a world or a depot"
	case identity.World:
		return "carnet peer invite NAME --scope r1 (a things agent) or r5 (another world), or carnet peer accept NAME FILE with a depot's invitation"
	}
	if r == identity.DPM {
		return "carnet peer accept NAME FILE, with the invitation of a world (--scope r6) or a depot (r2)"
	}
	return "carnet peer invite NAME --scope r2"
}

func (c partyInit) make(ctx context.Context, config node.Config, token string) error {
	at := func(name string) string { return filepath.Join(c.Dir, name) }
	if _, err := os.Lstat(at(configFile)); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, carnet.Errorf(carnet.Conflict, "%s has a party already", c.Dir).WithFix("name another --dir"))
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make the party's directory: %w", err)
	}
	if err := node.Init(ctx, at(configFile), config); err != nil {
		return err
	}
	config, err := node.ReadConfig(at(configFile)) // now with its place
	if err != nil {
		return err
	}
	if err := node.WriteCA(ctx, config, at(caFile)); err != nil {
		return err
	}
	return reach(config, token).Write(at(accessFile))
}

// config is the party's configuration, of what the flags say.
func (c partyInit) config() (node.Config, error) {
	config := node.Config{
		Party: c.Party, Role: c.Role, Data: "data", KeyFile: "kek", Store: node.Store{Kind: "sqlite"},
		Advertise: node.Advertise{Hosts: c.Host},
		World:     node.WorldConfig{Purpose: c.Purpose, Sensitivity: c.Sensitivity, Residency: c.Residency},
	}
	if c.Role == identity.World && (c.Purpose == "" || c.Sensitivity == "") {
		return config, carnet.Errorf(carnet.Malformed, "a world says what it uses data for, and what it may hold").
			WithFix("add --purpose WORD --sensitivity health+location (or public)")
	}
	if c.Role == identity.DPM {
		if c.Sensitivity == "" || c.Purpose != "" {
			return config, carnet.Errorf(carnet.Malformed, "a DPM says what it may hold; what it uses data for is what its peerings say").
				WithFix("add --sensitivity health+location (or public), and leave --purpose out")
		}
		config.World, config.DPM = node.WorldConfig{}, node.DPMConfig{Sensitivity: c.Sensitivity, Residency: c.Residency}
	}
	if c.Role != identity.World && c.Role != identity.DPM && (c.Purpose != "" || c.Sensitivity != "" || len(c.Residency) > 0) {
		return config, carnet.Errorf(carnet.Malformed, "--purpose, --sensitivity and --residency are a world's, and the last two a DPM's").WithFix("leave them out: this party's role is %s", c.Role)
	}
	if _, err := carnet.ParseSensitivity(c.Sensitivity); err != nil {
		return config, err
	}
	if c.ListenR5 != "" {
		if c.Role != identity.World {
			return config, carnet.Errorf(carnet.Malformed, "--listen-r5 is for the role world, and this party's is %s", c.Role).WithFix("leave it out")
		}
		if err := c.checkListen("--listen-r5", c.ListenR5); err != nil {
			return config, err
		}
		config.Listen.R5 = c.ListenR5
	}
	return config, c.listen(&config.Listen)
}

// listen fills in the listeners that the role has.
func (c partyInit) listen(l *node.Listen) error {
	for _, of := range []struct {
		role        identity.Role
		flag, given string
		port        string
		to          *string
	}{
		{c.Role, "--listen-http", c.ListenHTTP, "8443", &l.HTTP},
		{identity.Things, "--listen-mqtt", c.ListenMQTT, "8883", &l.MQTT},
		{identity.World, "--listen-link", c.ListenLink, "7443", &l.Link},
		{identity.Depot, "--listen-r2", c.ListenR2, "9443", &l.R2},
		{identity.DPM, "--listen-r6", c.ListenR6, "9553", &l.R6},
	} {
		switch {
		case of.role != c.Role && of.given != "":
			return carnet.Errorf(carnet.Malformed, "%s is for the role %s, and this party's is %s", of.flag, of.role, c.Role).WithFix("leave it out")
		case of.role != c.Role:
			continue
		case of.given != "":
			*of.to = of.given
		case len(c.Host) > 0:
			*of.to = ":" + of.port
		default:
			*of.to = "localhost:" + of.port
		}
		if err := c.checkListen(of.flag, *of.to); err != nil {
			return err
		}
	}
	return nil
}

// checkListen refuses what others couldn't connect to: peer files and access
// files repeat the port, and without --host also the host.
func (c partyInit) checkListen(flag, address string) error {
	host, port, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	switch {
	case err != nil || port == "" || port == "0":
		return carnet.Errorf(carnet.Malformed, "%s is %q, and others connect to it", flag, address).WithFix("name a host and a port: localhost:8443")
	case len(c.Host) == 0 && (host == "" || ip != nil && ip.IsUnspecified()):
		return carnet.Errorf(carnet.Malformed, "%s is %q, which is every address of this machine, and others need one to connect to", flag, address).
			WithFix("name it with --host: hub.example.org or 192.0.2.7")
	}
	return nil
}

// reach says how to reach a party that was just made.
func reach(config node.Config, token string) *access.File {
	l := config.Reached()
	p := access.Party{
		Name: config.Party, Role: config.Role, HTTP: "https://" + l.HTTP, MQTT: l.MQTT, Link: l.Link, CAFile: caFile, Config: configFile,
	}
	if l.R2 != "" {
		p.R2 = "https://" + l.R2
	}
	if l.R6 != "" {
		p.R6 = "https://" + l.R6
	}
	return &access.File{
		Version: access.Version, Parties: []access.Party{p},
		Tokens: []access.Token{{Party: config.Party, Name: "operator", Role: administrator, Token: token}},
	}
}

// beside resolves a path of a configuration file.
func beside(config, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(config), path)
}

type partyTrust struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The party's configuration."`
	Out    string `required:"" type:"path" placeholder:"FILE" help:"Where to write it."`
}

func (c partyTrust) Run(ctx context.Context, s streams) error {
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	trust, err := node.Trust(ctx, config)
	if err != nil {
		return err
	}
	if err := trust.Write(c.Out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Give %s to who verifies, by another way than the bundles: carnet verify BUNDLE --trust %s\n", c.Out, filepath.Base(c.Out))
	return err
}

type partyCertificate struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The party's configuration."`
}

func (c partyCertificate) Run(ctx context.Context, s streams) error {
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	if err := node.RenewCertificate(ctx, config); err != nil {
		return err
	}
	ca := beside(c.Config, caFile)
	if err := node.WriteCA(ctx, config, ca); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s shows it from its next start on. Give %s to people and devices; peers need nothing new.\n", config.Party, ca)
	return err
}

type partyRotate struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The party's configuration."`
	NewKey string `type:"existingfile" placeholder:"FILE" help:"A key file to take, as 'carnet party init' makes them. Default: one is made."`
}

func (c partyRotate) Run(ctx context.Context, s streams) error {
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	kept, err := node.RotateKey(ctx, config, c.NewKey)
	if err != nil {
		return err
	}
	if kept == "" {
		_, err = fmt.Fprintf(s.out, "A rotation that was cut off is over: every key of %s is under the key in its key file.\n", config.Party)
		return err
	}
	_, err = fmt.Fprintf(s.out, `Every key of %s is under the new key now, which lies where the old one did. Back it up now, apart from the party's data: copies of the key table from now on need it.
The old one is %s: only copies of the key table from before need it. Destroy it when they are gone; or now, and they can't be read any more.
`, config.Party, kept)
	return err
}

// replaceConfig puts a new text in a configuration's place, if it is one.
func replaceConfig(path string, text []byte) error {
	draft := path + ".new"
	if err := os.WriteFile(draft, text, 0o600); err != nil {
		return err
	}
	if _, err := node.ReadConfig(draft); err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return os.Rename(draft, path)
}
