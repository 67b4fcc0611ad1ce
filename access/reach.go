package access

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"carnet"
	"carnet/identity"
)

// Path resolves a path of the file.
func (f *File) Path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(f.dir, p)
}

// Party finds a party by its name.
func (f *File) Party(name carnet.PartyID) (Party, error) {
	for _, p := range f.Parties {
		if p.Name == name {
			return p, nil
		}
	}
	return Party{}, carnet.Errorf(carnet.NotFound, "the access file has no party %q", name).WithFix("name one of: %s", Names(f.Parties))
}

// Having lists the parties with one of the roles; without any, all.
func (f *File) Having(roles ...identity.Role) (found []Party) {
	for _, p := range f.Parties {
		if len(roles) == 0 || slices.Contains(roles, p.Role) {
			found = append(found, p)
		}
	}
	return found
}

// Only finds the one party with one of the roles; without any, the one that there is.
func (f *File) Only(roles ...identity.Role) (Party, error) {
	with := ""
	for i, r := range roles {
		with += fmt.Sprintf("%s%q", map[bool]string{true: " with the role ", false: " or "}[i == 0], r)
	}
	switch found := f.Having(roles...); len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Party{}, carnet.Errorf(carnet.NotFound, "the access file has no party%s", with).
			WithFix("use the access file of one: --access FILE")
	default:
		return Party{}, carnet.Errorf(carnet.Malformed, "the access file has several parties%s", with).
			WithFix("name one with --party: %s", Names(found))
	}
}

// Names lists parties by their names.
func Names(parties []Party) string {
	var list []string
	for _, p := range parties {
		list = append(list, string(p.Name))
	}
	if len(list) == 0 {
		return "(it has none)"
	}
	return strings.Join(list, ", ")
}

// Token finds a token of a party: one with the first of the roles that there is
// one of. Where a name is given it is one of that name, and one with another role if
// there is no better: who names a token means it, and the party says what it may.
func (f *File) Token(party carnet.PartyID, name string, roles ...string) (Token, error) {
	for _, role := range roles {
		i := slices.IndexFunc(f.Tokens, func(t Token) bool {
			return t.Party == party && t.Role == role && (name == "" || t.Name == name)
		})
		if i >= 0 {
			return f.Tokens[i], nil
		}
	}
	if i := slices.IndexFunc(f.Tokens, func(t Token) bool { return t.Party == party && t.Name == name }); i >= 0 && name != "" {
		return f.Tokens[i], nil
	}
	what := "no token of " + string(party) + " with the role " + strings.Join(roles, " or ")
	if name != "" {
		what += fmt.Sprintf(" and the name %q", name)
	}
	return Token{}, carnet.Errorf(carnet.NotFound, "the access file has %s", what).
		WithFix("add the token that the party's operator gave you")
}

// TokensOf lists a party's tokens with a role.
func (f *File) TokensOf(party carnet.PartyID, role string) (found []Token) {
	for _, t := range f.Tokens {
		if t.Party == party && t.Role == role {
			found = append(found, t)
		}
	}
	return found
}

// TLS is how to connect to a party's HTTP and MQTT listeners.
func (f *File) TLS(p Party) (*tls.Config, error) {
	if p.CAFile == "" {
		return &tls.Config{MinVersion: tls.VersionTLS12}, nil
	}
	data, err := os.ReadFile(f.Path(p.CAFile))
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", p.Name, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, carnet.Errorf(carnet.Malformed, "%s has no certificate in PEM", f.Path(p.CAFile)).
			WithFix("copy ca.pem from the directory of the party")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}
