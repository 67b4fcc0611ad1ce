package main

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api/client"
	"carnet/identity"
	"carnet/policy"
)

// reaching is what the commands that ask a running party have in common.
type reaching struct {
	Access string         `env:"CARNET_ACCESS" placeholder:"FILE" help:"How to reach the parties. Default: access.json, then demo.json, in this directory."`
	Party  carnet.PartyID `placeholder:"NAME" help:"Which party to ask. Default: the one that there is, or that has what is named by its id; of lists, all."`
	As     string         `placeholder:"NAME" help:"Use the token with this name."`
}

// The roles of tokens.
const (
	administrator = string(policy.Administrator)
	creator       = string(policy.Creator)
	ownUser       = string(policy.User)
	service       = string(policy.Service)
)

func (r reaching) file() (*access.File, error) {
	return access.Find(r.Access, "access.json", "demo.json")
}

// things is the way to the things agent.
func (r reaching) things() (*client.Client, error) {
	return r.one(identity.Things, administrator, creator, ownUser)
}

// one is the way to the one party that is meant, with a token of one of the
// roles.
func (r reaching) one(role identity.Role, tokens ...string) (*client.Client, error) {
	f, err := r.file()
	if err != nil {
		return nil, err
	}
	p, err := r.meant(f, role)
	if err != nil {
		return nil, err
	}
	return r.dial(f, p, tokens...)
}

// or is with a party that may also be named as an argument.
func (r reaching) or(party carnet.PartyID) (reaching, error) {
	if party != "" && r.Party != "" && party != r.Party {
		return r, carnet.Errorf(carnet.Malformed, "%s and %s are named", party, r.Party).WithFix("name one, or none for all")
	}
	r.Party = cmp.Or(r.Party, party)
	return r, nil
}

// roleOf is the role of the party that is named, or otherwise if none is.
func (r reaching) roleOf(otherwise identity.Role) (identity.Role, error) {
	if r.Party == "" {
		return otherwise, nil
	}
	f, err := r.file()
	if err != nil {
		return "", err
	}
	p, err := f.Party(r.Party)
	return p.Role, err
}

// meant is the one party that is named, or that there is, with one of the roles; of any
// without them.
func (r reaching) meant(f *access.File, roles ...identity.Role) (access.Party, error) {
	if r.Party == "" {
		return f.Only(roles...)
	}
	p, err := f.Party(r.Party)
	if err == nil && len(roles) > 0 && !slices.Contains(roles, p.Role) {
		return p, carnet.Errorf(carnet.Malformed, "%s has the role %q, and this is asked of the role %q", p.Name, p.Role, roles[0]).
			WithFix("name one of that role with --party: %s", access.Names(f.Having(roles[0])))
	}
	return p, err
}

func (r reaching) dial(f *access.File, p access.Party, tokens ...string) (*client.Client, error) {
	token, err := f.Token(p.Name, r.As, tokens...)
	if err != nil {
		return nil, err
	}
	config, err := f.TLS(p)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute}
	return &client.Client{Base: p.HTTP, Token: token.Token, HTTP: &http.Client{Transport: transport}}, nil
}
