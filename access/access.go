// Package access owns the access file: what a person or a program needs to reach
// parties. It says where their listeners are, which certificates to trust, and
// holds the tokens and passwords that it was given. A demo leaves one, and so
// does the making of a party; commands read it.
//
// The file has no state but its bytes: it is absent, or whole. It holds secrets,
// so that only its owner may read it (mode 0600), which is enforced when it is
// written and when it is read. docs/access.schema.json describes it.
//
// The package must not know what is asked of the parties (api) or how a party
// keeps what it hands out (node).
package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"carnet"
	"carnet/identity"
)

// Version is the version of the file's form. Members may be added under it;
// readers ignore those that they don't know.
const Version = 1

// maxSize bounds a file.
const maxSize = 4 << 20

// File says how to reach parties. Paths in it are relative to the file.
type File struct {
	Version int      `json:"version"`
	Parties []Party  `json:"parties"`
	Tokens  []Token  `json:"tokens"`
	Things  []Thing  `json:"things,omitempty"`
	Avatars []Avatar `json:"avatars,omitempty"`
	// Evidence is the directory with evidence bundles.
	Evidence string `json:"evidence,omitempty"`
	// Console is the URL of the console, and Users are who may sign in there.
	Console string `json:"console,omitempty"`
	Users   []User `json:"users,omitempty"`

	dir string // of the file
}

// Party is a party and where it listens; what it doesn't have is left out.
type Party struct {
	Name carnet.PartyID `json:"name"`
	Role identity.Role  `json:"role"`
	HTTP string         `json:"http"`           // URL, for people and programs
	MQTT string         `json:"mqtt,omitempty"` // host:port, for devices, over TLS
	Link string         `json:"link,omitempty"` // host:port, for senders (R1)
	R2   string         `json:"r2,omitempty"`   // URL, for parties (R2)
	R5   string         `json:"r5,omitempty"`   // host:port, for other worlds (R5)
	R6   string         `json:"r6,omitempty"`   // URL, for worlds (R6)
	// CAFile is what to trust on HTTP and MQTT, in PEM. Without one it is what
	// the system trusts.
	CAFile string `json:"ca_file,omitempty"`
	// Config is the party's configuration file, where it is on this machine.
	Config string `json:"config,omitempty"`
}

// Token is a bearer token of a party's HTTP interface.
type Token struct {
	Party carnet.PartyID `json:"party"`
	Name  string         `json:"name"`
	Role  string         `json:"role"` // user, creator, administrator, auditor or service
	Token string         `json:"token"`
}

// Thing is a thing that a device may be.
type Thing struct {
	ID                carnet.ThingID `json:"id"` // the MQTT user name
	Password          string         `json:"password"`
	Party             carnet.PartyID `json:"party"` // its things agent
	Owner             string         `json:"owner,omitempty"`
	TopicMeasurements string         `json:"topic_measurements"` // to publish to
	TopicRefusals     string         `json:"topic_refusals"`     // to subscribe to
	Encodings         []string       `json:"encodings"`          // content types that are taken
}

// Avatar is what a thing is in a world.
type Avatar struct {
	ID      carnet.AvatarID   `json:"id"`
	World   carnet.PartyID    `json:"world"`
	Thing   carnet.ThingID    `json:"thing,omitempty"`
	Mapping *carnet.MappingID `json:"mapping,omitempty"`
}

// User is somebody who may sign in at the console.
type User struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Password string `json:"password"`
}

// Read reads and checks a file that nobody but its owner may read.
func Read(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read access file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read access file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, carnet.Errorf(carnet.Malformed, "the access file %s is not a file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, carnet.Errorf(carnet.Forbidden, "others may read the access file %s (mode %04o), which holds tokens", path, mode).
			WithFix("run: chmod 600 %s", path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read access file: %w", err)
	}
	f, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("access file %s: %w", path, err)
	}
	f.dir = filepath.Dir(path)
	return f, nil
}

// Parse reads the JSON form, and ignores members that it doesn't know.
func Parse(data []byte) (*File, error) {
	if len(data) > maxSize {
		return nil, carnet.Errorf(carnet.TooLarge, "it has more than %d bytes", maxSize)
	}
	f := new(File)
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(f); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "it can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, carnet.Errorf(carnet.Malformed, "it goes on after its object")
	}
	return f, f.check()
}

func (f *File) check() error {
	if f.Version != Version {
		return carnet.Errorf(carnet.Malformed, "it has version %d, and %d is known", f.Version, Version)
	}
	seen := make(map[carnet.PartyID]bool)
	for _, p := range f.Parties {
		if err := p.check(); err != nil {
			return err
		}
		if seen[p.Name] {
			return carnet.Errorf(carnet.Malformed, "it has two parties %q", p.Name)
		}
		seen[p.Name] = true
	}
	lost := func(what string, party carnet.PartyID) error {
		return carnet.Errorf(carnet.Malformed, "%s is of party %q, which it doesn't have", what, party)
	}
	for _, t := range f.Tokens {
		if !seen[t.Party] {
			return lost(fmt.Sprintf("token %q", t.Name), t.Party)
		}
	}
	for _, t := range f.Things {
		if !seen[t.Party] {
			return lost(fmt.Sprintf("thing %q", t.ID), t.Party)
		}
	}
	for _, a := range f.Avatars {
		if !seen[a.World] {
			return lost("avatar "+a.ID.String(), a.World)
		}
	}
	return nil
}

func (p Party) check() error {
	if _, err := carnet.ParsePartyID(string(p.Name)); err != nil {
		return err
	}
	if p.Role != identity.Things && p.Role != identity.World && p.Role != identity.Depot && p.Role != identity.DPM {
		return carnet.Errorf(carnet.Malformed, "party %q has the role %q: want things, world, depot or dpm", p.Name, p.Role)
	}
	// A token must not leave over a connection that others can read.
	if u, err := url.Parse(p.HTTP); err != nil || u.Scheme != "https" || u.Host == "" {
		return carnet.Errorf(carnet.Malformed, "party %q has the HTTP address %q: want https://HOST:PORT", p.Name, p.HTTP)
	}
	return nil
}

// Write checks the file and puts it at path, in place of one that is there.
// Whoever reads sees the old one or the new one, whole.
func (f *File) Write(path string) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("write access file: %w", err)
	}
	whole := *f
	if whole.Parties == nil { // a list is required, but may be empty
		whole.Parties = []Party{}
	}
	if whole.Tokens == nil {
		whole.Tokens = []Token{}
	}
	data, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		return fmt.Errorf("write access file: %w", err)
	}
	if err := replace(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write access file: %w", err)
	}
	return nil
}

// replace writes through a new file beside path. os.CreateTemp gives it mode
// 0600 from the first byte on.
func replace(path string, data []byte) (err error) {
	t, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(t.Name()))
		}
	}()
	_, err = t.Write(data)
	if err == nil {
		err = t.Sync()
	}
	if err := errors.Join(err, t.Close()); err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}

// Find reads the file at path, or without one the first of the places that has
// one.
func Find(path string, places ...string) (*File, error) {
	if path != "" {
		return Read(path)
	}
	for _, place := range places {
		f, err := Read(place)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no access file, which says how to reach the parties").
		WithFix("name it with --access FILE or CARNET_ACCESS: 'carnet demo --data DIR' leaves DIR/demo.json, 'carnet party init --dir DIR' leaves DIR/access.json")
}
