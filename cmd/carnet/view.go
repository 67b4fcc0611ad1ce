package main

import (
	"context"
	"fmt"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/policy"
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
	id, err := findMapping(ctx, cl, c.Mapping, true)
	return cl, id, err
}

func readView(s streams, path string) (policy.View, error) {
	data, err := readDocument(s, path)
	if err != nil {
		return policy.View{}, fmt.Errorf("read the view: %w", err)
	}
	v, err := policy.ParseView(data)
	if err != nil {
		if path == "-" {
			path = "standard input"
		}
		return v, fmt.Errorf("%s: %w", path, err)
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
		past := []pastView{}
		for _, v := range views {
			past = append(past, pastView{v.Version, v.Time, v.By, v.Stopped, v.Denied, v.View})
		}
		return writeJSON(s.out, past)
	}
	m, err := cl.Mapping(ctx, id)
	if err != nil {
		return err
	}
	return writeJSON(s.out, m.OwnerView)
}

// pastView is what people want to know of a view that was in force. The interface
// has more, for auditors.
type pastView struct {
	Version uint64      `json:"policy_version"`
	Time    time.Time   `json:"time"`
	By      string      `json:"by"`
	Stopped bool        `json:"stopped,omitempty"`
	Denied  []string    `json:"denied,omitempty"` // properties withheld whatever the view says
	View    policy.View `json:"view"`
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
