package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/identity"
	"carnet/node"
	"carnet/policy"

	"github.com/pelletier/go-toml/v2"
)

type partyTokens struct {
	Add    partyToken  `cmd:"" default:"withargs" help:"Give somebody a token: carnet party token NAME --role ROLE."`
	List   tokenList   `cmd:"" help:"List whom the party has given a token."`
	Remove tokenRemove `cmd:"" help:"Take somebody's token away."`
}

// ofConfig names a party by its configuration.
type ofConfig struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The party's configuration."`
}

type partyToken struct {
	ofConfig
	Name string `arg:"" help:"Who gets it; of an owner, the name that its things have."`
	Role string `required:"" enum:"user,creator,administrator,auditor,service" placeholder:"ROLE" help:"user (own things), creator (the same, and adds things), administrator (everything), auditor (what there is, and who did what) or service (reads avatars)."`
	Out  string `type:"path" placeholder:"FILE" help:"Write an access file for who gets it there, and the certificate to trust beside it."`
}

// served are the roles to which a party gives anything, by the built-in policies.
var served = map[identity.Role][]policy.Role{
	identity.Things: {policy.User, policy.Creator, policy.Administrator, policy.Auditor},
	identity.World:  {policy.Administrator, policy.Auditor, policy.Service},
	identity.Depot:  {policy.Administrator, policy.Auditor},
	identity.DPM:    {policy.Administrator, policy.Auditor},
}

// Run adds the token at the end of the configuration, where TOML takes another
// table, so that what people wrote there stays as it is.
func (c partyToken) Run(s streams) error {
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	if roles := served[config.Role]; len(config.Roles.Policies) == 0 && !slices.Contains(roles, policy.Role(c.Role)) {
		return carnet.Errorf(carnet.Malformed, "%s is a party with the role %s, and has nothing for the role %s", config.Party, config.Role, c.Role).
			WithFix("name one of: %s", listed(roles))
	}
	if slices.ContainsFunc(config.Tokens, func(t node.Token) bool { return t.Name == c.Name }) {
		return carnet.Errorf(carnet.Conflict, "%s has given %q a token already", config.Party, c.Name).
			WithFix("name somebody else, or remove that one first: carnet party token remove")
	}
	text, err := os.ReadFile(c.Config)
	if err != nil {
		return fmt.Errorf("add the token: %w", err)
	}
	token, kept := node.NewToken(c.Name, c.Role)
	text = fmt.Appendf(text, "\n[[tokens]]\nname = %s\nrole = '%s'\nsalt = '%s'\nhash = '%s'\n", tomlString(c.Name), kept.Role, kept.Salt, kept.Hash)
	if c.Out != "" {
		if err := c.writeAccess(config, token); err != nil {
			return err
		}
	}
	if err := replaceConfig(c.Config, text); err != nil {
		return fmt.Errorf("add the token: %w", err)
	}
	if c.Out != "" {
		_, err = fmt.Fprintf(s.out, "%s knows the token of %s from its next start on. Give them %s and the certificate beside it; nobody else may see the first.\n", config.Party, plain(c.Name), c.Out)
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s knows this token of %s from its next start on. It is shown once: %s\n", config.Party, plain(c.Name), token)
	return err
}

func listed(roles []policy.Role) string {
	var names []string
	for _, r := range roles {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// writeAccess writes what the bearer needs: an access file, and the certificate
// that it trusts.
func (c partyToken) writeAccess(config node.Config, token string) error {
	if _, err := os.Lstat(c.Out); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, carnet.Errorf(carnet.Conflict, "%s is there already", c.Out).WithFix("name another file with --out"))
	}
	ca, err := os.ReadFile(beside(c.Config, caFile))
	if err != nil {
		return fmt.Errorf("give the certificate: %w", err)
	}
	f := reach(config, token)
	f.Parties[0].CAFile, f.Parties[0].Config = string(config.Party)+".pem", ""
	f.Tokens = []access.Token{{Party: config.Party, Name: c.Name, Role: c.Role, Token: token}}
	to := filepath.Join(filepath.Dir(c.Out), f.Parties[0].CAFile)
	if there, err := os.ReadFile(to); err == nil && !bytes.Equal(there, ca) {
		return carnet.Errorf(carnet.Conflict, "%s is there already, and another certificate", to).WithFix("name a file in another directory with --out")
	}
	if err := os.WriteFile(to, ca, 0o644); err != nil {
		return fmt.Errorf("give the certificate: %w", err)
	}
	return f.Write(c.Out)
}

type tokenList struct {
	ofConfig
	JSON bool `help:"As JSON."`
}

// shownToken is what there is to know of a token.
type shownToken struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

func (c tokenList) Run(s streams) error {
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	all := []shownToken{}
	for _, t := range config.Tokens {
		all = append(all, shownToken{t.Name, t.Role})
	}
	if c.JSON {
		return writeJSON(s.out, all)
	}
	t := table{{"NAME", "ROLE"}}
	for _, one := range all {
		t.add(one.Name, one.Role)
	}
	return t.write(s.out)
}

type tokenRemove struct {
	ofConfig
	Name string `arg:"" help:"Whose."`
}

// Run cuts the token's table out of the configuration and leaves the rest as it
// is.
func (c tokenRemove) Run(s streams) error {
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(c.Config)
	if err != nil {
		return fmt.Errorf("remove the token: %w", err)
	}
	rest, removed := withoutToken(string(text), c.Name)
	had := 0
	for _, t := range config.Tokens {
		if t.Name == c.Name {
			had++
		}
	}
	switch {
	case had == 0:
		return carnet.Errorf(carnet.NotFound, "%s has given nobody called %q a token", config.Party, c.Name).WithFix("see: carnet party token list --config %s", c.Config)
	case removed != had:
		return carnet.Errorf(carnet.Conflict, "%s isn't written as 'carnet party token' writes it", c.Config).WithFix("remove the token of %q there by hand", c.Name)
	}
	if err := replaceConfig(c.Config, []byte(rest)); err != nil {
		return fmt.Errorf("remove the token: %w", err)
	}
	_, err = fmt.Fprintf(s.out, "%s no longer knows the token of %s from its next start on.\n", config.Party, plain(c.Name))
	return err
}

// withoutToken cuts the tables [[tokens]] with a name out of a configuration; a
// table ends where the next begins.
func withoutToken(text, name string) (rest string, removed int) {
	var kept, table strings.Builder
	inTable := false
	end := func() {
		var of struct{ Tokens []node.Token }
		if err := toml.Unmarshal([]byte(table.String()), &of); err == nil && len(of.Tokens) == 1 && of.Tokens[0].Name == name {
			removed++
		} else {
			kept.WriteString(table.String())
		}
		table.Reset()
	}
	for line := range strings.Lines(text) {
		if start := strings.TrimSpace(line); strings.HasPrefix(start, "[") {
			end()
			inTable = strings.HasPrefix(strings.ReplaceAll(start, " ", ""), "[[tokens]]")
		}
		if inTable {
			table.WriteString(line)
		} else {
			kept.WriteString(line)
		}
	}
	end()
	return kept.String(), removed
}

// tomlString writes a basic string of TOML 1.0, whose escapes \uXXXX are JSON's.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
