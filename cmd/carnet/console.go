package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/account"
	"carnet/console"

	"golang.org/x/term"
)

type consoleCommands struct {
	Serve consoleServe `cmd:"" default:"withargs" help:"Serve the console until it is interrupted; what 'carnet console' alone does."`
	User  consoleUser  `cmd:"" help:"Say who may sign in: add a user, give one another role or password, remove one."`
}

type consoleServe struct {
	Access      string     `required:"" env:"CARNET_ACCESS" type:"path" placeholder:"FILE" help:"How to reach the parties, and the users' tokens."`
	Users       string     `required:"" type:"path" placeholder:"FILE" help:"Who may sign in ('carnet console user' writes it)."`
	Listen      string     `default:"localhost:8640" placeholder:"HOST:PORT" help:"Where to listen; without a certificate a loopback address."`
	Host        []string   `placeholder:"NAME" help:"Another name, or name:port, by which people reach it; may be given several times."`
	Certificate string     `type:"existingfile" placeholder:"FILE" help:"A certificate in PEM: the console speaks TLS."`
	Key         string     `type:"existingfile" placeholder:"FILE" help:"The certificate's key in PEM."`
	LogLevel    slog.Level `default:"info" placeholder:"LEVEL" help:"What to log on standard error: debug, info, warn or error."`
}

// Run serves the console until ctx ends, which is a good end.
func (c consoleServe) Run(ctx context.Context, s streams) error {
	reach, err := access.Read(c.Access)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: c.LogLevel}))
	config := console.Config{Access: reach, Listen: c.Listen, Hosts: c.Host, Log: log}
	if (c.Certificate == "") != (c.Key == "") {
		return carnet.Errorf(carnet.Malformed, "a certificate and its key belong together").WithFix("give both --certificate and --key")
	}
	if c.Certificate != "" {
		certificate, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return fmt.Errorf("read the console's certificate: %w", err)
		}
		config.Certificate = &certificate
	}
	if config.Accounts, err = account.New(account.Config{Users: c.Users, Log: log}); err != nil {
		return err
	}
	front, err := console.New(config)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "The console is at %s\n", front.URL())
	if err := front.Run(ctx); ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

type consoleUser struct {
	Name     string `arg:"" help:"The user; at each party they have the tokens that the access file has under this name."`
	Users    string `required:"" type:"path" placeholder:"FILE" help:"The users file; made if there is none."`
	Role     string `placeholder:"ROLE" help:"Their role: it says which token counts where a party gave the name several."`
	Generate bool   `help:"Draw a password and print it, once."`
	Remove   bool   `help:"Take the user out of the file."`
}

// Run changes the users file. A console that runs takes it over within 100 ms, and
// signs out whom it concerns.
func (c consoleUser) Run(s streams) error {
	if c.Remove {
		if err := account.Remove(c.Users, c.Name); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.out, "%s may not sign in any more.\n", c.Name)
		return err
	}
	if c.Role == "" {
		return carnet.Errorf(carnet.Malformed, "a user has a role").WithFix("say --role ROLE, as the user's tokens have it: user, creator, administrator, auditor or service")
	}
	password, err := c.password(s)
	if err != nil {
		return err
	}
	u := account.User{Name: c.Name, Role: c.Role}
	if u.Password, err = account.NewPassword(password); err != nil {
		return err
	}
	if _, err := account.Put(c.Users, u); err != nil {
		return err
	}
	if c.Generate {
		_, err = fmt.Fprintf(s.out, "%s may sign in with the password %s\n", c.Name, password)
	} else {
		_, err = fmt.Fprintf(s.out, "%s may sign in.\n", c.Name)
	}
	return err
}

// password draws a password, asks for one on a terminal, or reads the first line of
// standard input: it never stands among the arguments, which everybody on the machine
// may see.
func (c consoleUser) password(s streams) (string, error) {
	if c.Generate {
		return account.Generate(), nil
	}
	in, isFile := s.in.(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(s.in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var typed [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(s.err, prompt)
		line, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(s.err)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(line)
	}
	if typed[0] != typed[1] {
		return "", carnet.Errorf(carnet.Malformed, "the two passwords differ").WithFix("type them again")
	}
	return typed[0], nil
}
