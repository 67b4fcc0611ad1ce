package main

import (
	"fmt"

	"github.com/alecthomas/kong"
)

// helpCommand does what --help does.
type helpCommand struct {
	Command []string `arg:"" optional:"" help:"The command. Default: the list of all."`
}

// Run shows the help of the command that is named.
func (c helpCommand) Run(parser *kong.Kong) error {
	named, err := kong.Trace(parser, c.Command)
	if err == nil {
		err = named.Error
	}
	if err != nil {
		return exitCode{exitUsage, fmt.Errorf("%w; see carnet help", err)}
	}
	return named.PrintUsage(false)
}

// meant is what a command line means that names no command: nothing is the list of
// commands, and --version the version.
func meant(args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"help"}
	case args[0] == "--version":
		return append([]string{"version"}, args[1:]...)
	}
	return args
}
