package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"carnet"
	"carnet/access"
)

type doctorCommand struct {
	reaching
	Of   carnet.PartyID `arg:"" optional:"" placeholder:"PARTY" help:"The party; the same as --party. Default: all."`
	JSON bool           `help:"As JSON."`
}

// Help says what the command's exit code means.
func (doctorCommand) Help() string {
	return "Each party looks at all that it has, and asks the register where its avatars and items are at home. " +
		"What is WRONG doesn't end by itself; what WAITS is under way, or waits for somebody. Exit code 0: nothing was found; 1: something was, or a party couldn't be asked."
}

// examined is what a party said.
type examined struct {
	Party carnet.PartyID `json:"party"`
	carnet.Examination
}

// Run has the parties examine themselves. One that can't be asked doesn't hide the
// others, but makes it fail.
func (c doctorCommand) Run(ctx context.Context, s streams) error {
	found, failed := askEach(s, c.reaching, c.Of, func(r reaching, f *access.File, p access.Party) (examined, error) {
		cl, err := r.dial(f, p, administrator, auditor)
		if err != nil {
			return examined{}, err
		}
		e, err := cl.Examine(ctx)
		return examined{p.Name, e}, err
	})
	if found == nil {
		return failed
	}
	for _, e := range found {
		if len(e.Findings) > 0 && failed == nil {
			failed = exitCode{code: exitError}
		}
	}
	if c.JSON {
		if err := writeJSON(s.out, found); err != nil {
			return err
		}
		return failed
	}
	for _, e := range found {
		if err := showExamination(s, e); err != nil {
			return err
		}
	}
	return failed
}

func showExamination(s streams, e examined) error {
	var looked []string
	for _, what := range slices.Sorted(maps.Keys(e.Examined)) {
		if n := e.Examined[what]; n > 0 {
			looked = append(looked, fmt.Sprintf("%s: %d", what, n))
		}
	}
	summary := "nothing is half done"
	if n := len(e.Findings); n == 1 {
		summary = "1 finding"
	} else if n > 1 {
		summary = fmt.Sprintf("%d findings", n)
	}
	if _, err := fmt.Fprintf(s.out, "%s: %s (%s)\n", e.Party, summary, strings.Join(looked, ", ")); err != nil {
		return err
	}
	for _, f := range e.Findings {
		sort := "WAITS"
		if f.Wrong {
			sort = "WRONG"
		}
		line := fmt.Sprintf("  %s  %s %s", sort, f.Kind, f.About)
		if !f.Since.IsZero() {
			line += ", since " + clock(f.Since)
		}
		line += ": " + f.Reason
		if f.Fix != "" {
			line += "; " + f.Fix
		}
		if _, err := fmt.Fprintln(s.out, plain(line)); err != nil {
			return err
		}
	}
	return nil
}
