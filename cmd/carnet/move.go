package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/owner"
	"carnet/policy"
)

type avatarMove struct {
	reaching
	Avatar carnet.AvatarID `arg:"" help:"The avatar that is to move."`
	From   carnet.PartyID  `required:"" placeholder:"WORLD" help:"Where it lives."`
	To     carnet.PartyID  `required:"" placeholder:"WORLD" help:"Where it is to live."`
	belongings
	Backup  string `type:"path" placeholder:"DIR" help:"Make a passport of the avatar in this directory first, for its owner to keep: by it the avatar comes back (carnet avatar import) if both worlds are lost before the move is decided. Needs --for."`
	For     string `type:"existingfile" placeholder:"KEYFILE" help:"With --backup: its owner's reception key, as 'carnet owner keystore reception' wrote it."`
	Redact  bool   `help:"Leave behind for good what its target may not have, if its owner consents. Without it such a move is refused."`
	View    string `type:"existingfile" placeholder:"FILE" help:"A view document: what its things may send there. Default: what they send now."`
	Text    string `placeholder:"LINE" help:"What for, to its owner, on one line."`
	Request string `placeholder:"FILE" help:"Write what the owner is to approve to this file. Default: CROSSING.json"`
	JSON    bool   `help:"As JSON."`
}

// at is the way to a party that isn't the one of --party.
func (r reaching) at(name carnet.PartyID, roles ...string) (*client.Client, error) {
	r.Party = name
	return r.one(identity.World, roles...)
}

func (c avatarMove) Run(ctx context.Context, s streams) error {
	source, err := c.at(c.From, administrator)
	if err != nil {
		return err
	}
	target, err := c.at(c.To, administrator)
	if err != nil {
		return err
	}
	if err := c.backUp(ctx, s, source); err != nil {
		return fmt.Errorf("the backup before the move: %w", err)
	}
	var traveller api.Traveller
	if c.Redact { // what would be left behind is counted, which takes a while
		traveller, err = source.EnrolFor(ctx, c.Avatar, c.To)
	} else {
		traveller, err = source.Enrol(ctx, c.Avatar)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	if len(traveller.Properties) == 0 {
		return carnet.Errorf(carnet.Conflict, "the avatar has shown nothing yet, so there is nothing to move").WithFix("wait until its things have sent something")
	}
	n := api.NewMove{World: c.From, Traveller: traveller, Redact: c.Redact, Text: c.Text}
	if c.View != "" {
		text, err := readDocument(s, c.View)
		if err != nil {
			return fmt.Errorf("read the view: %w", err)
		}
		v, err := policy.ParseView(text)
		if err != nil {
			return err
		}
		n.View = &v
	}
	if n.Items, n.Retire, err = c.sort(ctx, s, target, c.To, traveller); err != nil {
		return err
	}
	crossing, err := target.BeginCrossing(ctx, n)
	if err != nil {
		return fmt.Errorf("%s: %w", c.To, err)
	}
	asked, m, err := identity.ParseMoveRequest(crossing.Request)
	if err != nil {
		return err
	}
	if c.Redact { // what may flow is what that world may have
		if m.Clearance.Sensitivity, err = carnet.ParseSensitivity(traveller.ClearedFor.Sensitivity); err != nil {
			return err
		}
	}
	if err := letMove(ctx, source, c.To, traveller, m); err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	file := cmp.Or(c.Request, crossing.ID.String()+".json")
	if err := os.WriteFile(file, crossing.Request, 0o600); err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, crossing)
	}
	fmt.Fprintf(s.out, "Crossing %s: %s has room for it, as avatar %s.\n", crossing.ID, c.To, crossing.Ours)
	for _, line := range asked.Report {
		fmt.Fprintf(s.out, "  %s\n", plain(line))
	}
	return howToOrder(s, file, c.To, crossing)
}

// backUp makes the passport that is asked for, and sees that it holds together and has keys
// for its owner.
func (c avatarMove) backUp(ctx context.Context, s streams, source *client.Client) error {
	if (c.Backup == "") != (c.For == "") {
		return carnet.Errorf(carnet.Malformed, "a backup is for its owner, who alone opens it").WithFix("give both --backup DIR and --for KEYFILE; the key: carnet owner keystore reception")
	}
	if c.Backup == "" {
		return nil
	}
	announcement, err := readDocument(s, c.For)
	if err != nil {
		return fmt.Errorf("read the reception key: %w", err)
	}
	dir, r, err := fetchPassport(ctx, source, c.Avatar, api.NewPassport{For: [][]byte{announcement}}, c.Backup)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.err, "Backup: %d measurements in %s, for its owner to keep.\n", r.Counts.Measurements, plain(dir))
	return err
}

// grantLife is how long the target may fetch the avatar: as long as an order holds,
// and until it was heard how it was decided.
const grantLife = identity.OrderLife + time.Hour

// letMove gives the avatar-to-be the grant by which the target may fetch the avatar.
func letMove(ctx context.Context, source *client.Client, to carnet.PartyID, t api.Traveller, m identity.MandateRequest) error {
	return source.GrantMove(ctx, to, t, m, time.Now().Add(grantLife))
}

type avatarStatus struct {
	reaching
	ID   string `arg:"" optional:"" help:"The crossing. Left out: all, of all worlds."`
	JSON bool   `help:"As JSON."`
}

// crossingOf is a crossing with the world that was asked.
type crossingOf struct {
	Party carnet.PartyID `json:"party"`
	api.Crossing
}

func (c avatarStatus) Run(ctx context.Context, s streams) error {
	all := []crossingOf{}
	err := c.each(s, atWorlds, func(w access.Party, cl *client.Client) error {
		list, err := cl.Crossings(ctx)
		for _, x := range list {
			if c.ID == "" || x.ID.String() == c.ID {
				all = append(all, crossingOf{w.Name, x})
			}
		}
		return err
	})
	if err == nil && c.ID != "" && len(all) == 0 {
		err = carnet.Errorf(carnet.NotFound, "no world here has a crossing %.40q", c.ID).WithFix("list them: carnet avatar status")
	}
	return answered(s, c.JSON, all, err, func() error {
		if c.ID != "" {
			for _, x := range all {
				if err := writeCrossing(s, x); err != nil {
					return err
				}
			}
			return nil
		}
		t := table{{"CROSSING", "PARTY", "STATE", "WORLD", "OURS", "SINCE", "UNTIL", ""}}
		for _, x := range all {
			t.add(x.ID.String(), string(x.Party), x.Direction+", "+string(x.State), string(x.World), x.Ours.String(), clock(x.Begun), moment(x.Until), x.Why)
		}
		return t.list(s, "There are no moves.")
	})
}

// meaning says in words what a state of a crossing means.
var meaning = map[move.State]string{
	move.Asked:    "its owner hasn't ordered it yet",
	move.Copying:  "it is being copied; the source stays as it is",
	move.Leaving:  "it was called off; the registrar is asked to decide abort",
	move.Prepared: "everything is there and checked; the registrar is asked to decide",
	move.Home:     "it lives here now",
	move.Dropped:  "it doesn't come; what came was deleted",
	move.Offered:  "the other world copies it; nothing has changed here",
	move.Frozen:   "what moves is fixed; it waits for the registrar's decision",
	move.Gone:     "it lives in the other world now",
	move.Kept:     "it stays",
}

func writeCrossing(s streams, x crossingOf) error {
	way := fmt.Sprintf("from %s, as avatar %s", x.World, x.Ours)
	if x.Theirs == nil {
		way = fmt.Sprintf("avatar %s to %s", x.Ours, x.World)
	}
	if x.Alone {
		way = strings.Replace(way, "avatar", "an item of avatar", 1)
	}
	fmt.Fprintf(s.out, "%s: %s\n  %s: %s.\n", x.Party, way, x.State, meaning[x.State])
	for _, i := range x.Items {
		becomes := "ends with the move"
		if i.As != "" {
			becomes = "goes along, as a " + i.As
		}
		fmt.Fprintf(s.out, "  item %s, %s, a %s: %s\n", i.ID, plain(i.Title), i.Kind, becomes)
	}
	if x.Why != "" {
		fmt.Fprintf(s.out, "  %s\n", plain(x.Why))
	}
	whereARecoveryIs(s, x)
	if p := x.Progress; p != nil && p.OfBytes > 0 {
		fmt.Fprintf(s.out, "  %d of %d stretches, %d of %d bytes%s\n", p.Stretches, p.Of, p.Bytes, p.OfBytes, pace(p))
	}
	if p := x.Progress; p != nil && p.Waits != "" {
		fmt.Fprintf(s.out, "  it waits, and is tried again: %s\n", plain(p.Waits))
	}
	if m := x.Amount; m != nil {
		fmt.Fprintf(s.out, "  %d measurements in %d stretches of %d streams, %d bytes as they are stored; keys of %d epochs\n", m.Measurements, m.Stretches, m.Streams, m.Bytes, m.Keys)
	}
	if m := x.Amount; m != nil && m.LeftBatches > 0 {
		fmt.Fprintf(s.out, "  left behind by its owner's order: %d measurements in %d batches%s\n", m.LeftMeasurements, m.LeftBatches, uncounted(m.LeftClosed))
	}
	if b := x.Backup; b != nil {
		fmt.Fprintf(s.out, "  backup: the passport of %s, with %d measurements and keys for its owner; by it the avatar comes back if both worlds are lost before the move is decided\n", clock(b.Made), b.Measurements)
	} else if x.Theirs == nil && !x.Alone {
		fmt.Fprintln(s.out, "  no backup: no passport with keys for its owner was given out before (carnet avatar move --backup)")
	}
	if x.Unfit > 0 {
		fmt.Fprintf(s.out, "  %d batches that came can't be used; the log of %s names them\n", x.Unfit, x.Party)
	}
	switch {
	case x.Departure != "":
		d, err := identity.OpenDeparture(x.Departure)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "  the source's receipt: unreadable there since %s, in no backup any more from %s on\n", clock(d.Unreadable), clock(d.Unrecoverable))
		if d.Left > 0 {
			fmt.Fprintf(s.out, "  %d measurements of it were left out of the move, and are nowhere any more\n", d.Left)
		}
	case x.Theirs != nil && x.State == move.Home && !x.Recovery:
		fmt.Fprintf(s.out, "  %s hasn't signed yet that it has deleted what moved; it is asked until it does\n", x.World)
	case x.Until != nil && !x.State.Over():
		fmt.Fprintf(s.out, "  if nothing is decided, the registrar decides abort at %s\n", clock(*x.Until))
	}
	return nil
}

// uncounted says of how many batches nobody knows what they held.
func uncounted(closed uint64) string {
	if closed == 0 {
		return ""
	}
	return fmt.Sprintf(", and those of %d that couldn't be opened any more", closed)
}

// pace says how fast copying goes, and how long it will take.
func pace(p *move.Progress) string {
	took := time.Since(p.Since).Seconds()
	if p.Fetched == 0 || took < 0.1 {
		return ""
	}
	rate := float64(p.Fetched) / took
	left := time.Duration(float64(p.OfBytes-p.Bytes) / rate * float64(time.Second))
	return fmt.Sprintf(", %.1f MB/s, %v left as far as is known", rate/1e6, left.Round(time.Second))
}

type avatarCancel struct {
	reaching
	ID   carnet.CrossingID `arg:"" help:"The crossing, at either of its worlds."`
	JSON bool              `help:"As JSON."`
}

func (c avatarCancel) Run(ctx context.Context, s streams) error {
	h, err := sought[api.Crossing]{"crossing " + c.ID.String(), "carnet avatar status", atWorlds, func(cl *client.Client) (api.Crossing, error) { return cl.Crossing(ctx, c.ID) }}.first(c.reaching)
	if err != nil {
		return err
	}
	x, err := h.cl.CancelCrossing(ctx, c.ID)
	if err != nil || c.JSON {
		return orJSON(s, x, err)
	}
	return writeCrossing(s, crossingOf{h.at.Name, x})
}

// approveMove signs a move's order and mandate, and hands them to the target.
func (c ownerApprove) approveMove(ctx context.Context, s streams, k *owner.Keystore, data []byte) error {
	r, m, err := identity.ParseMoveRequest(data)
	if err != nil {
		return err
	}
	if err := k.Knows(m.MandateTerms); err != nil {
		return err
	}
	if err := checkView(r.View); err != nil {
		return err
	}
	unchecked(s, string(r.Target), r.Report)
	for _, line := range r.Explain(m) {
		fmt.Fprintln(s.err, plain(line))
	}
	if err := policyLines(s, r.Policy, string(r.Target)); err != nil {
		return err
	}
	if err := c.ask(s, m); err != nil {
		return err
	}
	o, err := k.Order(r, time.Now(), c.For)
	if err != nil {
		return err
	}
	if c.Party == "" {
		return writeJSON(s.out, o)
	}
	world, err := c.world()
	if err != nil {
		return err
	}
	x, err := world.OrderCrossing(ctx, r.Crossing, o)
	if err != nil {
		return fmt.Errorf("the order of %s is signed, and %s doesn't have it: %w", r.Crossing, c.Party, err)
	}
	if c.JSON {
		return writeJSON(s.out, x)
	}
	_, err = fmt.Fprintf(s.out, "Ordered: %s has it, and goes on by itself. Follow it:\n  carnet avatar status %s\n", c.Party, x.ID)
	return err
}
