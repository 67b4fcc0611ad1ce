package main

import (
	"net/http"
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
	Party  carnet.PartyID `placeholder:"NAME" help:"Which party to ask, where there are several."`
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

func (r reaching) meant(f *access.File, role identity.Role) (access.Party, error) {
	if r.Party == "" {
		return f.Only(role)
	}
	p, err := f.Party(r.Party)
	if err == nil && p.Role != role {
		return p, carnet.Errorf(carnet.Malformed, "%s has the role %q, and this is asked of the role %q", p.Name, p.Role, role).WithFix("name one of that role with --party: carnet status lists them")
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
