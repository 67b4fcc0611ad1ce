package demo

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"carnet/access"
	"carnet/account"
	"carnet/console"
	"carnet/node"
)

// Ports is how many ports in a row a demo takes from --port-base on.
const Ports = 13

// front is the demo's console. It asks the parties as its users would, with what the
// access file has.
type front struct {
	console  *console.Console
	users    []account.User
	password string // of all users, made for this run
}

// users are who may sign in, with their roles; at the parties they have the tokens
// under their names.
var users = []account.User{{Name: "operator", Role: "administrator"}, {Name: owner, Role: "user"}, {Name: "auditor", Role: "auditor"}}

// openConsole makes the console of this run, and notes in the access file how to
// reach it.
func (s *setup) openConsole(f *access.File, o Options) error {
	dir := filepath.Join(s.dir, "console")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	address, err := consoleAddress(f.Console, o.PortBase)
	if err != nil {
		return err
	}
	c := &front{password: account.Generate()}
	f.Users = nil
	for _, u := range users {
		if u.Password, err = account.NewPassword(c.password); err != nil {
			return err
		}
		c.users = append(c.users, u)
		f.Users = append(f.Users, access.User{Name: u.Name, Role: u.Role, Password: c.password})
	}
	file := filepath.Join(dir, "users.json")
	if err := account.WriteUsers(file, c.users); err != nil {
		return err
	}
	accounts, err := account.New(account.Config{Users: file, Log: o.Log})
	if err != nil {
		return err
	}
	if c.console, err = console.New(console.Config{Access: f, Accounts: accounts, Listen: address, Log: o.Log}); err != nil {
		return err
	}
	s.console, f.Console = c, c.url()
	return nil
}

// consoleAddress is where the console listens: at the last port of the base, where
// it listened before if that is free, or somewhere.
func consoleAddress(before string, base int) (string, error) {
	if base != 0 {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(base+Ports-1)), nil
	}
	if u, err := url.Parse(before); err == nil && u.Port() != "" {
		address := net.JoinHostPort("127.0.0.1", u.Port())
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return node.FreeAddress()
}

func (c *front) url() string { return c.console.URL() }

func (c *front) names() (all []string) {
	for _, u := range c.users {
		all = append(all, u.Name)
	}
	return all
}

func (c *front) run(ctx context.Context) error { return c.console.Run(ctx) }
