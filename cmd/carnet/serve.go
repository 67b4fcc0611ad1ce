package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/pprof"

	"carnet"
	"carnet/identity"
	"carnet/node"
)

// serving is what the commands that run a party have in common.
type serving struct {
	Config   string     `required:"" type:"path" placeholder:"FILE" help:"The party's configuration (carnet party init makes one)."`
	LogLevel slog.Level `default:"info" placeholder:"LEVEL" help:"What to log on standard error: debug, info, warn or error."`

	// CPUProfile is for make bench.
	CPUProfile string `name:"cpuprofile" hidden:"" type:"path" help:"Write a CPU profile there."`
	// WhileInput is for a demo, whose parties end with it, however it ends.
	WhileInput bool `hidden:"" help:"End when standard input does."`
}

type thingsCommand struct{ serving }
type worldCommand struct{ serving }
type depotCommand struct{ serving }

func (c thingsCommand) Run(ctx context.Context, s streams) error {
	return c.serve(ctx, s, identity.Things)
}

func (c worldCommand) Run(ctx context.Context, s streams) error {
	return c.serve(ctx, s, identity.World)
}

func (c depotCommand) Run(ctx context.Context, s streams) error {
	return c.serve(ctx, s, identity.Depot)
}

// serve runs a party until ctx ends, which is a good end.
func (c serving) serve(ctx context.Context, s streams, role identity.Role) error {
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	if config.Role != role {
		return carnet.Errorf(carnet.Malformed, "%s is the configuration of a party with the role %q, not %q", c.Config, config.Role, role).
			WithFix("run: carnet %s --config %s", config.Role, c.Config)
	}
	useProcessors()
	stop, err := c.profile()
	if err != nil {
		return err
	}
	ctx, end := c.lasting(ctx, s)
	defer end()
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: c.LogLevel}))
	err = errors.Join(runParty(ctx, config, log), stop())
	switch {
	case node.Durability(err):
		return exitCode{exitDurability, err}
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil
	}
	return err
}

// lasting is how long the party runs.
func (c serving) lasting(ctx context.Context, s streams) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	if c.WhileInput {
		go func() {
			_, _ = io.Copy(io.Discard, s.in) // an input that can't be read has ended
			stop()
		}()
	}
	return ctx, stop
}

// profile begins a CPU profile, if one is wanted; stop ends it.
func (c serving) profile() (stop func() error, err error) {
	if c.CPUProfile == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(c.CPUProfile)
	if err != nil {
		return nil, fmt.Errorf("create CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func runParty(ctx context.Context, config node.Config, log *slog.Logger) error {
	n, err := node.New(ctx, config, log)
	if err != nil {
		return err
	}
	log.Info("party runs", "party", config.Party, "role", config.Role, "http", config.Listen.HTTP)
	err = n.Run(ctx)
	log.Info("party ended", "party", config.Party)
	return err
}
