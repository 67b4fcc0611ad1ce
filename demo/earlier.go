package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"carnet"
	"carnet/access"
	"carnet/evidence"
	"carnet/identity"
	"carnet/node"
	"carnet/td"
)

// earlier is the access file of the demo that was played in a directory before,
// and nil for none. It is written last: with it everything is there.
func earlier(dir string) (*access.File, error) {
	f, err := access.Read(filepath.Join(dir, "demo.json"))
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "carnet.toml"))
	if err == nil && len(found) > 0 {
		err = carnet.Errorf(carnet.Conflict, "%s has parts of a demo that was never set up whole: it was ended too early", dir).
			WithFix("remove the directory, or name another with --data")
	}
	return nil, err
}

// goesOn refuses to go on with a demo that is another's, and with a story: it is told
// once.
func (s *setup) goesOn() error {
	if s.earlier == nil {
		return nil
	}
	fix := "name another directory with --data"
	if s.script.name != "" {
		return carnet.Errorf(carnet.Conflict, "there is a demo in %s, and the story %s is told once, from its beginning", s.dir, s.script.name).WithFix("%s", fix)
	}
	for _, p := range s.earlier.Parties {
		if p.Role == identity.DPM && p.Config == filepath.Join(s.dir, string(p.Name), "carnet.toml") {
			return carnet.Errorf(carnet.Conflict, "the demo in %s tells a story, which can't go on", s.dir).WithFix("%s", fix)
		}
	}
	return nil
}

// takeUp has the parties go on with the keys, tokens and addresses that they
// have; with --port-base they move to other ports.
func (s *setup) takeUp(ctx context.Context, o Options) error {
	s.screen.say("taking up the demo in %s", s.dir)
	for _, p := range s.parties {
		planned := p.config.Listen
		var err error
		p.config, err = node.ReadConfig(p.file())
		if errors.Is(err, fs.ErrNotExist) {
			return carnet.Errorf(carnet.Conflict, "the demo in %s has no %s: an older version made it", s.dir, p.name).
				WithFix("remove the directory, or name another with --data")
		}
		if err != nil {
			return fmt.Errorf("take up the demo in %s: %w", s.dir, err)
		}
		token, err := s.earlier.Token(p.name, "operator", "administrator")
		if err != nil {
			return fmt.Errorf("take up the demo in %s: %w", s.dir, err)
		}
		p.token = token.Token
		p.others = slices.DeleteFunc(slices.Clone(s.earlier.Tokens), func(t access.Token) bool { return t.Party != p.name || t.Name != itself })
		if o.PortBase != 0 {
			p.config.Listen = planned
		}
		if err := p.free(s.dir); err != nil {
			return err
		}
	}
	for _, p := range s.parties {
		if o.PortBase != 0 {
			if err := p.move(); err != nil {
				return err
			}
		}
	}
	return s.peerAll(ctx, o.Log) // terms repeat the addresses, and a move may have been cut off
}

// free refuses addresses that somebody listens on: most likely the same demo,
// which runs.
func (p *party) free(dir string) error {
	l := p.config.Listen
	for _, address := range []string{l.HTTP, l.MQTT, l.Link, l.R2, l.R5, l.R6} {
		if address == "" {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return carnet.Errorf(carnet.Conflict, "somebody listens where %s of the demo in %s does, at %s", p.name, dir, address).
				WithFix("end the demo if it runs, or name other ports with --port-base")
		}
		listener.Close()
	}
	return nil
}

// canProve refuses a directory that has evidence already, of whatever demo, before
// anything is played.
func (s *setup) canProve(o Options) error {
	if o.Evidence == "" {
		return nil
	}
	found, err := filepath.Glob(filepath.Join(o.Evidence, "*", evidence.FileManifest))
	if err == nil && len(found) > 0 {
		err = carnet.Errorf(carnet.Conflict, "%s has a bundle already: of an earlier run, or of another demo", filepath.Dir(found[0])).
			WithFix("name another directory with --evidence, or remove that one")
	}
	return err
}

// move writes the party's configuration anew.
func (p *party) move() error {
	draft := p.file() + ".new"
	if err := p.config.Write(draft); err != nil {
		return err
	}
	return os.Rename(draft, p.file())
}

// adopt finds the sensors that the agent has from an earlier run, by the titles
// of their descriptions. Those that nothing is played for stay in the demo: what
// the worlds hold of them is checked, too.
func (s *setup) adopt(ctx context.Context, hub *party) error {
	if s.earlier == nil {
		return nil
	}
	for _, kind := range s.script.kinds() {
		description, err := td.Parse(kind.description)
		if err != nil {
			return err
		}
		for _, t := range s.earlier.Things {
			info, err := hub.client.Thing(ctx, t.ID)
			if err != nil {
				return fmt.Errorf("take up the thing %s: %w", t.ID, err)
			}
			if info.Title == description.Title {
				if err := s.sensor(kind).takeUp(ctx, hub, s.earlier, t); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// sensor is the one of a kind that is played, or else a silent one.
func (s *setup) sensor(kind *sensor) *sensor {
	for _, w := range s.sensors {
		if w.name == kind.name {
			return w
		}
	}
	s.sensors = append(s.sensors, kind)
	return kind
}

// takeUp gives the sensor what it was given before.
func (w *sensor) takeUp(ctx context.Context, hub *party, f *access.File, t access.Thing) (err error) {
	if err := w.meet(hub); err != nil {
		return err
	}
	w.adopted, w.id, w.password = true, t.ID, t.Password
	for _, a := range f.Avatars {
		if a.Thing == t.ID && a.Mapping != nil {
			if w.mappings[a.World], err = hub.client.Mapping(ctx, *a.Mapping); err != nil {
				return fmt.Errorf("take up the mapping of %s to %s: %w", t.ID, a.World, err)
			}
		}
	}
	for _, world := range w.in() {
		if _, mapped := w.mappings[world]; !mapped {
			return carnet.Errorf(carnet.Conflict, "the access file names no mapping of %s to %s", t.ID, world).
				WithFix("name another directory with --data")
		}
	}
	return nil
}
