package main

import (
	"context"
	"fmt"

	"carnet"
	"carnet/api/client"
	"carnet/policy"
	"carnet/thing"
)

type viewCommands struct {
	Set     viewSet     `cmd:"" help:"Change what a world gets, from what isn't sent yet on."`
	Show    viewShow    `cmd:"" help:"Show the view in force, or every one that was."`
	Explain viewExplain `cmd:"" help:"Say for people what a world gets."`
}

// ofMapping names a mapping.
type ofMapping struct {
	reaching
	Mapping string `arg:"" help:"The mapping, or THING/WORLD."`
}

func (c ofMapping) find(ctx context.Context) (*client.Client, carnet.MappingID, error) {
	cl, err := c.things()
	if err != nil {
		return nil, carnet.MappingID{}, err
	}
	id, err := findMapping(ctx, cl, c.Mapping)
	return cl, id, err
}

func readView(s streams, path string) (policy.View, error) {
	data, err := readDocument(s, path)
	if err != nil {
		return policy.View{}, fmt.Errorf("read the view: %w", err)
	}
	v, err := policy.ParseView(data)
	if err != nil {
		return v, fmt.Errorf("view %s: %w", path, err)
	}
	return v, nil
}

type viewSet struct {
	ofMapping
	File string `required:"" placeholder:"FILE" help:"The view document; - for standard input."`
	JSON bool   `help:"As JSON."`
}

func (c viewSet) Run(ctx context.Context, s streams) error {
	view, err := readView(s, c.File)
	if err != nil {
		return err
	}
	cl, id, err := c.find(ctx)
	if err != nil {
		return err
	}
	m, err := cl.SetView(ctx, id, view)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, m)
	}
	fmt.Fprintf(s.out, "From policy version %d on, %s gets of %s:\n", m.PolicyVersion, m.World, m.Thing)
	return explain(ctx, s, cl, id)
}

type viewShow struct {
	ofMapping
	History bool `help:"Every view that was in force, with its time, as JSON."`
}

// Run shows views as the JSON that they are: what is shown can be changed and
// set.
func (c viewShow) Run(ctx context.Context, s streams) error {
	cl, id, err := c.find(ctx)
	if err != nil {
		return err
	}
	if c.History {
		views, err := cl.Views(ctx, id)
		if err != nil {
			return err
		}
		if views == nil {
			views = []thing.ViewRecord{}
		}
		return writeJSON(s.out, views)
	}
	m, err := cl.Mapping(ctx, id)
	if err != nil {
		return err
	}
	return writeJSON(s.out, m.OwnerView)
}

type viewExplain struct{ ofMapping }

func (c viewExplain) Run(ctx context.Context, s streams) error {
	cl, id, err := c.find(ctx)
	if err != nil {
		return err
	}
	return explain(ctx, s, cl, id)
}

func explain(ctx context.Context, s streams, cl *client.Client, id carnet.MappingID) error {
	lines, err := cl.Explain(ctx, id)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(s.out, plain(line)); err != nil {
			return err
		}
	}
	return nil
}
