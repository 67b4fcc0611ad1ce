package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/policy"

	"github.com/pelletier/go-toml/v2"
)

// Config is a party's configuration file, in TOML. Paths in it are relative to
// the file. A field that isn't known stops the start.
type Config struct {
	// Party is the organisation's name, as its operator writes it.
	Party carnet.PartyID `toml:"party"`
	// Role is things, world, depot or dpm.
	Role identity.Role `toml:"role"`
	// Data is the directory of the party's stores.
	Data string `toml:"data"`
	// KeyFile holds the key-encryption key. Keep it apart from Data's backups. To put the party's keys under another one: carnet party rotate; nothing else changes the file.
	KeyFile string `toml:"key_file"`

	Store     Store     `toml:"store"`
	Listen    Listen    `toml:"listen"`
	Advertise Advertise `toml:"advertise,omitempty"`
	Tokens    []Token   `toml:"tokens"`
	Limits    Limits    `toml:"limits,omitempty"`
	Roles     Roles     `toml:"roles,omitempty"`
	Activity  Activity  `toml:"activity,omitempty"`
	Backups   Backups   `toml:"backups,omitempty"`

	// Things is for the role things.
	Things ThingsConfig `toml:"things,omitempty"`
	// World is for the role world.
	World WorldConfig `toml:"world,omitempty"`
	// Depot is for the role depot.
	Depot DepotConfig `toml:"depot,omitempty"`
	// DPM is for the role dpm.
	DPM DPMConfig `toml:"dpm,omitempty"`

	dir, file string // where it was read from
}

// Store says where the party's state lies.
type Store struct {
	// Kind is sqlite (files in Data) or postgres.
	Kind string `toml:"kind"`
	// DSN and Schema say which PostgreSQL. The key table is in a schema of its
	// own, so that it can be backed up apart.
	DSN    string `toml:"dsn,omitempty"`
	Schema string `toml:"schema,omitempty"`
}

// Listen says where the party listens: host:port each, empty for not at all; none has a
// default here. 'carnet party init' writes the ports below, of every address of the machine
// with --host, else of localhost, unless its --listen flags say otherwise.
type Listen struct {
	HTTP string `toml:"http"`           // people and programs, over TLS; 8443
	MQTT string `toml:"mqtt,omitempty"` // devices, over TLS; role things, which needs it; 8883
	Link string `toml:"link,omitempty"` // senders (R1); role world, which needs it; 7443
	R2   string `toml:"r2,omitempty"`   // parties (R2); role depot, which needs it; 9443
	R5   string `toml:"r5,omitempty"`   // other worlds (R5); role world; written with --listen-r5 only
	R6   string `toml:"r6,omitempty"`   // worlds (R6); role dpm, which needs it; 9553
}

// Advertise says where others reach the party, if that isn't where it listens.
// Peer files and access files repeat it.
type Advertise struct {
	// Hosts are the names and addresses of the party's machine, as others reach
	// it; they are in the certificate that people and devices trust, beside
	// localhost. After a change of them: carnet party certificate.
	Hosts []string `toml:"hosts,omitempty"`
	// HTTP, MQTT, Link, R2, R5 and R6 are host:port each, where a router maps them;
	// default: the first of Hosts, and the port of the listener.
	HTTP string `toml:"http,omitempty"`
	MQTT string `toml:"mqtt,omitempty"`
	Link string `toml:"link,omitempty"`
	R2   string `toml:"r2,omitempty"`
	R5   string `toml:"r5,omitempty"`
	R6   string `toml:"r6,omitempty"`
}

// Token lets its bearer use the HTTP interface. The token itself is printed once,
// when it is made.
type Token struct {
	// Name says whose it is; of an owner it is the name that the owner's things have.
	Name string `toml:"name"`
	// Role is user (the things whose owner is called Name), creator (the same, and
	// adds things), administrator (everything), auditor (what there is and who did
	// what; no measurements) or service (avatars, read only).
	Role string `toml:"role"`
	Salt string `toml:"salt"` // hexadecimal
	Hash string `toml:"hash"` // SHA-256 of salt and token, hexadecimal
}

// Roles says who may do what, beside or in the place of the built-in
// policy/roles.cedar, which 'carnet policy show' prints.
type Roles struct {
	// Policies are Cedar files.
	Policies []string `toml:"policies,omitempty"`
	// Replace leaves out the built-in policies.
	Replace bool `toml:"replace,omitempty"`
}

// Backups says what is done with copies of the party's keys and, of a depot, of its
// objects.
type Backups struct {
	// Keep is how long a copy is kept at most: what is erased can't be recovered from
	// then on, and receipts say so. Default 720h, 30 days.
	Keep Duration `toml:"keep,omitempty"`
}

func (b Backups) keep() time.Duration {
	if b.Keep > 0 {
		return time.Duration(b.Keep)
	}
	return 30 * 24 * time.Hour
}

// Activity says what is remembered of who did what.
type Activity struct {
	// Keep is how long; default 8784h (366 days).
	Keep Duration `toml:"keep,omitempty"`
}

// ThingsConfig is what only a things agent has.
type ThingsConfig struct {
	// MaxAge is how old a measurement may be when it comes: an older one is refused
	// as too_old. MaxAhead is how far ahead of the agent's clock: too_new. Default
	// 720h and 5m. What came in is kept a day longer than MaxAge.
	MaxAge   Duration `toml:"max_age,omitempty"`
	MaxAhead Duration `toml:"max_ahead,omitempty"`
	// Policies are Cedar files; none: the default policy.
	Policies []string `toml:"policies,omitempty"`
	// Publishers are the did:keys of those, beside this agent, whose modules may be added
	// for owners to run.
	Publishers []string `toml:"publishers,omitempty"`
	// UnsignedPrograms lets owners run WebAssembly here that is no signed module: nobody
	// can revoke it. Default false.
	UnsignedPrograms bool `toml:"unsigned_programs,omitempty"`
}

// WorldConfig is what only a world has. What it may hold is shown to peers.
type WorldConfig struct {
	// Purpose is what the world uses data for, in one word.
	Purpose     string   `toml:"purpose,omitempty"`
	Sensitivity string   `toml:"sensitivity,omitempty"` // such as health+location; or public
	Residency   []string `toml:"residency,omitempty"`   // where it keeps data, such as de; none: it doesn't say
	// View is a file with the view that the world itself wants or bears.
	View string `toml:"view,omitempty"`
	// CompactEvery is how often frames are compacted; default 30s.
	CompactEvery Duration `toml:"compact_every,omitempty"`
	// ShelveAfter is how long a world that this one shares with is away until what it
	// would get is kept at the depot for it, and until this one asks a giver's depot;
	// default 5s.
	ShelveAfter Duration `toml:"shelve_after,omitempty"`
	// HomeCheck is how often the register is asked about each home here, of avatars and items, so
	// that a recovery elsewhere is objected to; default 15m. Keep it far below the
	// depot's recovery_wait.
	HomeCheck Duration `toml:"home_check,omitempty"`
	// BackupBeforeMove is how old the newest passport of an avatar with keys for its owner may
	// be when another world asks for the avatar by a move; default 0: there needn't be one, and
	// the owner is told whether there is. With it a move without one is refused.
	BackupBeforeMove Duration `toml:"backup_before_move,omitempty"`
	// Publishers are the did:keys of those, beside this world, whose modules may be added.
	Publishers []string `toml:"publishers,omitempty"`
	// UnsignedPrograms lets WebAssembly that is no signed module be run for this world:
	// who orders may bring any program, and nobody can revoke it. Default false.
	UnsignedPrograms bool `toml:"unsigned_programs,omitempty"`
}

// DepotConfig is what only a depot has.
type DepotConfig struct {
	// RecoveryWait is how long a world is given to show itself before an avatar of its
	// is recovered elsewhere by its owner's word; default 168h (7 days). What was
	// asked for before a change keeps its time.
	RecoveryWait Duration `toml:"recovery_wait,omitempty"`
}

// DPMConfig is what only a DPM has. What it may hold is shown to peers.
type DPMConfig struct {
	Sensitivity string   `toml:"sensitivity,omitempty"` // such as health+location; or public
	Residency   []string `toml:"residency,omitempty"`   // where it computes, such as de; none: it doesn't say
	// Workers is how many processes 'carnet dpm' starts that run jobs, each one at a
	// time; 'carnet dpm --worker' adds one. Default 2; -1: none.
	Workers int `toml:"workers,omitempty"`
	// MaxMemory is how many MiB a job's program may have at most; default 256. MaxTime is
	// how long it may run; default 10m. A job that wants more is refused.
	MaxMemory int      `toml:"max_memory,omitempty"`
	MaxTime   Duration `toml:"max_time,omitempty"`
	// UnsignedPrograms lets worlds have WebAssembly run here that is no signed module.
	// Default false.
	UnsignedPrograms bool `toml:"unsigned_programs,omitempty"`
}

// Duration is written as in Go: 90s, 5m, 720h.
type Duration time.Duration

// MarshalText writes the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// ReadConfig reads and checks a configuration file.
func ReadConfig(path string) (Config, error) {
	var c Config
	data, err := readOwn(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	d := toml.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, unreadable(path, err)
	}
	c.dir, c.file = filepath.Dir(path), path
	if err := c.check(); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// readOwn reads a file that says who may do what here. It refuses one that others may
// change.
func readOwn(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, carnet.Errorf(carnet.Malformed, "%s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, carnet.Errorf(carnet.Forbidden, "%s has mode %04o, so others can change who may do what", path, mode).WithFix("chmod go-w %s", path)
	}
	return os.ReadFile(path)
}

// unreadable says where in a configuration something is that can't be read, and what
// may be there.
func unreadable(path string, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		first := &strict.Errors[0]
		line, _ := first.Position()
		key := first.Key()
		within := "a configuration"
		if len(key) > 1 {
			within = strings.Join(key[:len(key)-1], ".")
		}
		return carnet.Errorf(carnet.Malformed, "configuration %s, line %d: there is no %s", path, line, strings.Join(key, ".")).
			WithFix("%s may have %s", within, strings.Join(mayHave(reflect.TypeFor[Config](), key), ", "))
	}
	if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := wrong.Position()
		at := ""
		if key := wrong.Key(); len(key) > 0 {
			at = ", " + strings.Join(key, ".")
		}
		return carnet.Errorf(carnet.Malformed, "configuration %s, line %d, column %d%s: %s", path, line, column, at, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return carnet.Errorf(carnet.Malformed, "configuration %s: %v", path, err)
}

// mayHave lists what may stand in the table of a configuration that a key is in.
func mayHave(table reflect.Type, key []string) (names []string) {
	for f := range table.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name == "" {
			continue
		}
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if len(key) > 1 && name == key[0] && inner.Kind() == reflect.Struct {
			return mayHave(inner, key[1:])
		}
		names = append(names, name)
	}
	return names
}

// Write writes the configuration to a new file that only its owner reads.
func (c Config) Write(path string) error {
	data, err := toml.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return f.Close()
}

func noDID(text string) bool {
	_, err := identity.ParseDID(text)
	return err != nil
}

func (c Config) check() error {
	if _, err := carnet.ParsePartyID(string(c.Party)); err != nil {
		return err
	}
	bad := func(format string, args ...any) error { return carnet.Errorf(carnet.Malformed, format, args...) }
	switch c.Role {
	case identity.Things:
		if c.Listen.MQTT == "" {
			return bad("a things agent needs listen.mqtt")
		}
	case identity.World:
		if c.Listen.Link == "" || c.World.Purpose == "" {
			return bad("a world needs listen.link and world.purpose")
		}
	case identity.DPM:
		if c.Listen.R6 == "" {
			return bad("a DPM needs listen.r6")
		}
	case identity.Depot:
		if c.Listen.R2 == "" {
			return bad("a depot needs listen.r2")
		}
	default:
		return bad("role is %q: want things, world, depot or dpm", c.Role)
	}
	switch {
	case c.Data == "" || c.KeyFile == "":
		return bad("data and key_file are required")
	case c.Store.Kind != "sqlite" && c.Store.Kind != "postgres":
		return bad("store.kind is %q: want sqlite or postgres", c.Store.Kind)
	case c.Store.Kind == "postgres" && (c.Store.DSN == "" || c.Store.Schema == ""):
		return bad("a store of kind postgres needs dsn and schema")
	case c.Role == identity.World && !identity.Words(append([]string{c.World.Purpose}, c.World.Residency...)):
		return bad("world.purpose and world.residency are words of a-z, 0-9 and '-'")
	case !identity.Words(c.DPM.Residency):
		return bad("dpm.residency is words of a-z, 0-9 and '-'")
	case c.DPM.Workers < -1 || c.DPM.Workers > 256 || c.DPM.MaxMemory < 0 || c.DPM.MaxMemory > 1024 || c.DPM.MaxTime < 0 || c.DPM.MaxTime > Duration(6*time.Hour):
		return bad("dpm.workers is at most 256, dpm.max_memory at most 1024 (MiB), dpm.max_time at most 6h")
	case c.Role != identity.DPM && c.Listen.R6 != "":
		return bad("listen.r6 is for DPMs, and this party is a %s", c.Role)
	case c.Role != identity.World && c.Listen.R5 != "":
		return bad("listen.r5 is for worlds, and this party is a %s", c.Role)
	case slices.ContainsFunc(c.World.Publishers, noDID):
		return bad("world.publishers are did:keys, as 'carnet module show' has them")
	case c.World.HomeCheck < 0 || c.World.BackupBeforeMove < 0 || c.Depot.RecoveryWait < 0:
		return bad("world.home_check, world.backup_before_move and depot.recovery_wait are times from 0 on")
	case c.Listen.HTTP == "":
		return bad("listen.http is required")
	}
	if c.World.ShelveAfter < 0 {
		return bad("world.shelve_after is less than nothing")
	}
	if c.Activity.Keep < 0 {
		return bad("activity.keep is less than nothing")
	}
	if err := c.Limits.check(); err != nil {
		return err
	}
	if _, err := carnet.ParseSensitivity(c.World.Sensitivity); err != nil {
		return fmt.Errorf("world.sensitivity: %w", err)
	}
	if _, err := carnet.ParseSensitivity(c.DPM.Sensitivity); err != nil {
		return fmt.Errorf("dpm.sensitivity: %w", err)
	}
	if err := c.checkAddresses(); err != nil {
		return err
	}
	for _, t := range c.Tokens {
		if _, err := policy.ParseRole(t.Role); err != nil {
			return fmt.Errorf("token %q: %w", t.Name, err)
		}
	}
	return nil
}

// path resolves a path of the configuration.
func (c Config) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}
