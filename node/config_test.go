package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carnet"
	"carnet/identity"
)

// good is a configuration of a role.
func good(role identity.Role) Config {
	c := Config{
		Party: "party", Role: role, Data: "data", KeyFile: "kek", Store: Store{Kind: "sqlite"},
		Listen: Listen{HTTP: "localhost:8443"},
	}
	switch role {
	case identity.Things:
		c.Listen.MQTT = "localhost:8883"
	case identity.World:
		c.Listen.Link, c.World = "localhost:7443", WorldConfig{Purpose: "fitness", Sensitivity: "personal", Residency: []string{"de"}}
	case identity.Depot:
		c.Listen.R2 = "localhost:9443"
	}
	return c
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		says   string // in the refusal
		role   identity.Role
		change func(*Config)
	}{
		{"", identity.Things, func(*Config) {}},
		{"", identity.World, func(*Config) {}},
		{"", identity.Depot, func(*Config) {}},
		{"", identity.Depot, func(c *Config) {
			c.Store = Store{Kind: "postgres", DSN: "postgres://localhost/carnet", Schema: "vault"}
		}},
		{"party", identity.Depot, func(c *Config) { c.Party = "" }},
		{"role", identity.Depot, func(c *Config) { c.Role = "bakery" }},
		{"listen.mqtt", identity.Things, func(c *Config) { c.Listen.MQTT = "" }},
		{"listen.link", identity.World, func(c *Config) { c.Listen.Link = "" }},
		{"world.purpose", identity.World, func(c *Config) { c.World.Purpose = "" }},
		{"world.purpose", identity.World, func(c *Config) { c.World.Purpose = "Fitness and more" }},
		{"world.residency", identity.World, func(c *Config) { c.World.Residency = []string{"de", ""} }},
		{"world.sensitivity", identity.World, func(c *Config) { c.World.Sensitivity = "secret" }},
		{"", identity.World, func(c *Config) {
			c.World.Publishers = []string{"did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"}
		}},
		{"world.publishers", identity.World, func(c *Config) { c.World.Publishers = []string{"arena"} }},
		{"listen.r2", identity.Depot, func(c *Config) { c.Listen.R2 = "" }},
		{"listen.http", identity.Depot, func(c *Config) { c.Listen.HTTP = "" }},
		{"data", identity.Depot, func(c *Config) { c.Data = "" }},
		{"key_file", identity.Depot, func(c *Config) { c.KeyFile = "" }},
		{"store.kind", identity.Depot, func(c *Config) { c.Store.Kind = "" }},
		{"store.kind", identity.Depot, func(c *Config) { c.Store.Kind = "memory" }},
		{"dsn and schema", identity.Depot, func(c *Config) { c.Store = Store{Kind: "postgres", Schema: "vault"} }},
		{"dsn and schema", identity.Depot, func(c *Config) { c.Store = Store{Kind: "postgres", DSN: "postgres://localhost/carnet"} }},
		{"limits.live is -1", identity.World, func(c *Config) { c.Limits.Live = -1 }},
		{"limits.live_of_token", identity.World, func(c *Config) { c.Limits.LiveOfToken = 1<<20 + 1 }},
		{"limits.http_connections", identity.Depot, func(c *Config) { c.Limits.HTTPConnections = -1 }},
		{"limits.mqtt_connections", identity.Things, func(c *Config) { c.Limits.MQTTConnections = -1 }},
		{"limits.mqtt_connecting", identity.Things, func(c *Config) { c.Limits.MQTTConnecting = -1 }},
		{"limits.mqtt_sessions", identity.Things, func(c *Config) { c.Limits.MQTTSessions = -1 }},
		{"limits.things_of_owner", identity.Things, func(c *Config) { c.Limits.ThingsOfOwner = -1 }},
		{"limits.descriptions_of_owner", identity.Things, func(c *Config) { c.Limits.DescriptionsOfOwner = -1 }},
		{"limits.mappings_of_owner", identity.Things, func(c *Config) { c.Limits.MappingsOfOwner = 1<<20 + 1 }},
		{"limits.views_of_owner", identity.Things, func(c *Config) { c.Limits.ViewsOfOwner = -1 }},
		{"limits.grants_of_giver", identity.World, func(c *Config) { c.Limits.GrantsOfGiver = 100_001 }},
		{"limits.shares_of_grant", identity.World, func(c *Config) { c.Limits.SharesOfGrant = -1 }},
		{"limits.avatars_of_sender", identity.World, func(c *Config) { c.Limits.AvatarsOfSender = -1 }},
		{"", identity.Things, func(c *Config) { c.Limits.DescriptionsOfOwner = 1 << 30 }},
		{"user, creator, administrator, auditor or service", identity.Depot, func(c *Config) { c.Tokens = []Token{{Name: "ann", Role: "admin"}} }},
		{"write administrator", identity.Depot, func(c *Config) { c.Tokens = []Token{{Name: "ann", Role: "operator"}} }},
		{"activity.keep", identity.Depot, func(c *Config) { c.Activity.Keep = -1 }},
	} {
		config := good(c.role)
		c.change(&config)
		switch err := config.check(); {
		case c.says == "" && err != nil:
			t.Errorf("a good configuration of the role %s: %v", c.role, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("want a refusal with %q, got %v", c.says, err)
		}
	}
}

func TestConfigFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "carnet.toml")
	if err := good(identity.World).Write(path); err != nil {
		t.Fatal(err)
	}
	if err := good(identity.World).Write(path); err == nil {
		t.Error("a configuration is replaced")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v, %v", info.Mode(), err)
	}
	c, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.path(c.Data); got != filepath.Join(dir, "data") {
		t.Errorf("data is %s, want it beside the file", got)
	}
	if got := c.path("/elsewhere"); got != "/elsewhere" {
		t.Errorf("an absolute path becomes %s", got)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]string{"an unknown field": "colour = 'red'\n", "a bad duration": "[things]\nmax_age = 'long'\n"} {
		if err := os.WriteFile(path, append([]byte(more), text...), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadConfig(path); carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What says who may do what here is only taken from a file that nobody else may change.
func TestWhatOthersMayChangeIsNotTaken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "carnet.toml")
	if err := good(identity.World).Write(path); err != nil {
		t.Fatal(err)
	}
	n := &Node{config: Config{dir: dir}}
	taken := func(want carnet.Code) {
		t.Helper()
		if _, err := ReadConfig(path); carnet.CodeOf(err) != want {
			t.Errorf("the configuration: %v", err)
		}
		if _, err := n.policyFiles([]string{"carnet.toml"}); carnet.CodeOf(err) != want {
			t.Errorf("a file of policies: %v", err)
		}
	}
	for mode, want := range map[os.FileMode]carnet.Code{0o644: "", 0o664: carnet.Forbidden, 0o602: carnet.Forbidden} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		taken(want)
	}
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	taken(carnet.Malformed)
}

// What can't be read in a configuration is named with its line, and what may be there.
func TestConfigNamesWhatItCantRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "carnet.toml")
	for text, says := range map[string][]string{
		"party = 'a'\npartei = 'b'\n":                     {"line 2: there is no partei; a configuration may have party, role, data, key_file, store, listen,"},
		"party = 'a'\n\n[listen]\nhttps = 'x:1'\n":        {"line 4: there is no listen.https; listen may have http, mqtt, link, r2, r5"},
		"party = 'a'\n[[tokens]]\nname='ann'\nrolle=''\n": {"line 4: there is no tokens.rolle; tokens may have name, role, salt, hash"},
		"[things]\nmax_age = 'long'\n":                    {"line 2", "max_age", "long"},
		"party = 'a'\nrole = \n":                          {"line 2"},
		"limits = 7\n":                                    {"line 1", "limits"},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadConfig(path)
		for _, want := range says {
			if carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
		}
	}
}

func TestTokens(t *testing.T) {
	token, ann := NewToken("ann", "user")
	other, ops := NewToken("ops", "administrator")
	if len(token) != 32 || token == other || ann.Salt == ops.Salt {
		t.Errorf("tokens %q and %q, salts %q and %q", token, other, ann.Salt, ops.Salt)
	}
	if ann.Hash == "" || strings.Contains(ann.Hash+ann.Salt, token) {
		t.Error("the token is kept")
	}
	if ann.hash(token) == ops.hash(token) {
		t.Error("the hash doesn't depend on the salt")
	}
	n := &Node{config: Config{Tokens: []Token{ann, ops, {Name: "nobody", Role: "administrator"}}}}
	for given, want := range map[string]string{token: "ann/user", other: "ops/administrator", "": "", token[:31]: "", strings.ToUpper(token): "", ann.Hash: ""} {
		p, ok := n.principal(given)
		if got := p.Name + "/" + string(p.Role); ok != (want != "") || ok && got != want {
			t.Errorf("token %q is %q, want %q", given, got, want)
		}
	}
}
