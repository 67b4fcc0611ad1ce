package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"carnet/identity"
	"carnet/node"

	"golang.org/x/sync/errgroup"
)

type dpmCommand struct {
	serving
	Worker bool `help:"Run one more worker of a DPM that runs on this machine, and nothing else."`
}

// Run runs a DPM with the workers that its configuration says, each a process of its
// own, or one worker.
func (c dpmCommand) Run(ctx context.Context, s streams) error {
	if c.Worker {
		return c.work(ctx, s)
	}
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	workers := errgroup.Group{}
	if config.Role == identity.DPM {
		for range config.DPM.Processes() {
			workers.Go(func() error { return c.keepWorker(running, s) })
		}
	}
	err = c.serve(ctx, s, identity.DPM)
	stop()
	return errors.Join(err, workers.Wait())
}

// work runs one worker until the DPM's process ends. A program that can't be ended ends
// with this process.
func (c dpmCommand) work(ctx context.Context, s streams) error {
	config, err := node.ReadConfig(c.Config)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: c.LogLevel}))
	err = node.RunWorker(ctx, config, log, func() { os.Exit(exitError) })
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// workerAgain is how long after its end a worker is started again.
const workerAgain = 500 * time.Millisecond

// keepWorker starts a worker's process, and another when it has ended.
func (c dpmCommand) keepWorker(ctx context.Context, s streams) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start workers: %w", err)
	}
	for ctx.Err() == nil {
		select {
		case <-time.After(workerAgain):
		case <-ctx.Done():
			return nil
		}
		worker := exec.CommandContext(ctx, program, "dpm", "--worker", "--config", c.Config, "--log-level", c.LogLevel.String())
		worker.Stderr = s.err
		worker.Cancel = func() error { return worker.Process.Signal(os.Interrupt) }
		worker.WaitDelay = 3 * time.Second
		if err := worker.Run(); err != nil && ctx.Err() == nil {
			fmt.Fprintf(s.err, "carnet: a worker has ended: %v; another is started\n", err)
		}
	}
	return nil
}
