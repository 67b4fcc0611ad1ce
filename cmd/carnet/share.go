package main

import (
	"context"
	"fmt"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/crossing"
)

type shareCommands struct {
	Take shareTake `cmd:"" help:"Ask another world for what its avatar is given, for an avatar here."`
	List shareList `cmd:"" help:"List the shares with other worlds."`
	Show shareShow `cmd:"" help:"Show a share: what is given, under which view, why it ended."`
	Stop shareStop `cmd:"" help:"End a share, whichever side this is."`
}

type shareTake struct {
	reaching
	Avatar  carnet.AvatarID `arg:"" help:"The other world's avatar."`
	From    carnet.PartyID  `required:"" placeholder:"WORLD" help:"The other world, as this one calls it."`
	For     carnet.AvatarID `required:"" placeholder:"AVATAR" help:"The avatar here that gets it."`
	Purpose string          `required:"" placeholder:"WORD" help:"What for."`
	JSON    bool            `help:"As JSON."`
}

func (c shareTake) Run(ctx context.Context, s streams) error {
	world, _, err := c.worldOf(ctx, c.For, administrator)
	if err != nil {
		return err
	}
	share, err := world.TakeShare(ctx, api.NewShare{World: c.From, Avatar: c.Avatar, For: c.For, Purpose: c.Purpose})
	if err != nil || c.JSON {
		return orJSON(s, share, err)
	}
	return writeShare(s, share)
}

type shareList struct {
	reaching
	All  bool `help:"Also what was asked for and refused, so that nothing ever came of it."`
	JSON bool `help:"As JSON: all of them."`
}

// shareOf is a share with the world that was asked.
type shareOf struct {
	Party carnet.PartyID `json:"party"`
	api.CrossShare
}

func (c shareList) Run(ctx context.Context, s streams) error {
	all := []shareOf{}
	err := c.each(s, atWorlds, func(w access.Party, cl *client.Client) error {
		list, err := cl.Shares(ctx)
		for _, share := range list {
			all = append(all, shareOf{w.Name, share})
		}
		return err
	})
	return answered(s, c.JSON, all, err, func() error {
		t, refused := table{{"SHARE", "PARTY", "WAY", "WORLD", "OURS", "THEIRS", "PURPOSE", "SINCE", "OVER", "STATE"}}, uint64(0)
		for _, o := range all {
			if o.Ended != nil && o.View == nil && !c.All {
				refused++
				continue
			}
			way := "gives to"
			if o.Direction == api.Taking {
				way = "takes from"
			}
			t.add(o.ID.String(), string(o.Party), way, string(o.World), o.Ours.String(), o.Theirs.String(), o.Purpose, clock(o.Begun), reached(o.CrossShare), shareState(o.CrossShare))
		}
		if refused > 0 {
			fmt.Fprintf(s.err, "%s refused, and left out here; see --all\n", number(refused, "share was", "shares were"))
		}
		return t.list(s, "There are no shares.")
	})
}

// shareState says in a word or two how a share is.
func shareState(c api.CrossShare) string {
	switch {
	case c.Ended != nil && c.View == nil:
		return "refused: " + c.Ended.Why
	case c.Ended != nil:
		return "ended: " + c.Ended.Why
	case c.View == nil:
		return "asked, not answered yet"
	case c.Held != "":
		return "held: " + c.Held
	case c.Waits:
		return "waits"
	case c.Aside != "":
		return "waits: " + c.Aside
	case c.Storage != nil && c.Storage.Frame == 0:
		return fmt.Sprintf("held: %s can't be reached since %s", c.World, clock(c.Storage.Since))
	}
	return "in force"
}

type ofShare struct {
	reaching
	ID   carnet.ShareID `arg:"" help:"The share."`
	JSON bool           `help:"As JSON."`
}

// sought looks for the share, which has one id at both of its worlds.
func (c ofShare) sought(ctx context.Context) sought[api.CrossShare] {
	return sought[api.CrossShare]{"share " + c.ID.String(), "carnet share list", atWorlds, func(cl *client.Client) (api.CrossShare, error) { return cl.Share(ctx, c.ID) }}
}

type shareShow struct{ ofShare }

func (c shareShow) Run(ctx context.Context, s streams) error {
	found, err := c.sought(ctx).at(c.reaching, true)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, found[0].is)
	}
	if len(found) > 1 {
		fmt.Fprintf(s.err, "As %s has it; it is at %s, too: --party %[2]s\n", found[0].at.Name, found[1].at.Name)
	}
	return writeShare(s, found[0].is)
}

type shareStop struct{ ofShare }

func (c shareStop) Run(ctx context.Context, s streams) error {
	h, err := c.sought(ctx).first(c.reaching)
	if err != nil {
		return err
	}
	share, err := h.cl.StopShare(ctx, c.ID)
	if err != nil || c.JSON {
		return orJSON(s, share, err)
	}
	return writeShare(s, share)
}

// writeStorage tells how a share goes on while the other world can't be reached.
func writeStorage(s streams, c api.CrossShare, t *crossing.Storage) {
	fmt.Fprintf(s.out, "%s can't be reached since %s.", c.World, clock(t.Since))
	switch {
	case t.Frame > 0 && c.Direction == api.Taking:
		fmt.Fprintf(s.out, " What it left at %s is here up to frame %d, good until %s.", t.Depot, t.Frame, moment(&t.Until))
	case t.Frame > 0:
		fmt.Fprintf(s.out, " What it would get is at the depot up to frame %d, until %s.", t.Frame, moment(&t.Until))
	}
	if t.Why != "" {
		fmt.Fprintf(s.out, " Through storage: %s.", plain(t.Why))
	}
	fmt.Fprintln(s.out)
}

// reached is a word for how a share comes across.
func reached(c api.CrossShare) string {
	switch {
	case c.Reachable:
		return "link"
	case c.Storage != nil && c.Storage.Frame > 0:
		return fmt.Sprintf("storage, to frame %d", c.Storage.Frame)
	case c.Storage != nil:
		return "away"
	}
	return "-"
}

// writeShare tells of a share in sentences.
func writeShare(s streams, c api.CrossShare) error {
	way := fmt.Sprintf("%s gets what avatar %s is given, for its avatar %s", c.World, c.Ours, c.Theirs)
	if c.Direction == api.Taking {
		way = fmt.Sprintf("Avatar %s gets what avatar %s of %s is given", c.Ours, c.Theirs, c.World)
	}
	fmt.Fprintf(s.out, "%s\n%s, for %s, since %s.\n", c.ID, way, plain(c.Purpose), clock(c.Begun))
	switch {
	case c.Ended != nil:
		fmt.Fprintf(s.out, "It ended at %s, by %s: %s\n", clock(c.Ended.Time), plain(c.Ended.By), plain(c.Ended.Why))
	case c.View == nil:
		fmt.Fprintf(s.out, "%s hasn't answered yet; it is asked again.\n", c.World)
	case c.Held != "":
		fmt.Fprintf(s.out, "Nothing comes across at the moment: %s.\n", plain(c.Held))
	case c.Waits:
		fmt.Fprintln(s.out, "Nothing is sent at the moment: it isn't known whether it still may be.")
	case c.Aside != "":
		fmt.Fprintf(s.out, "Nothing is sent at the moment; it is tried again: %s.\n", plain(c.Aside))
	}
	if t := c.Storage; t != nil {
		writeStorage(s, c, t)
	}
	if c.View == nil {
		return nil
	}
	if len(c.Withdrawn) > 0 {
		fmt.Fprintf(s.out, "Not given now, since the avatar that it is of doesn't get it or it is above what its taker may have: %s.\n", plain(strings.Join(c.Withdrawn, ", ")))
	}
	if c.Ended != nil {
		fmt.Fprintln(s.out, "It went as far as this view:")
	} else {
		fmt.Fprintf(s.out, "As far as this view goes, until %s:\n", moment(c.Until))
	}
	return writeJSON(s.out, c.View)
}
