package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/identity"
	"carnet/item"
)

type itemCommands struct {
	Issue   itemIssue   `cmd:"" help:"Issue an item for an avatar."`
	List    itemList    `cmd:"" help:"List the items of the worlds."`
	Show    itemShow    `cmd:"" help:"Show an item: what it is, who has it, and what happened to it."`
	Equip   itemEquip   `cmd:"" help:"Have its avatar put an item on."`
	Unequip itemUnequip `cmd:"" help:"Have its avatar put an item off."`
	Give    itemGive    `cmd:"" help:"For its owner: give an item to another avatar of the same world."`
	Move    itemMove    `cmd:"" help:"Move an item to another world without its avatar, and ask its owner."`
	Retire  itemRetire  `cmd:"" help:"End an item that the world has issued, for ever."`
	Export  itemExport  `cmd:"" help:"Write all that proves an item, for carnet verify."`

	Accept   itemAccept   `cmd:"" help:"Take another issuer's items of a kind, as a kind of this world's."`
	Accepted itemAccepted `cmd:"" help:"List what is taken of other issuers, and as whom this world issues."`
	Refuse   itemRefuse   `cmd:"" help:"Take no more items of a kind of another issuer."`
}

type itemIssue struct {
	reaching
	Avatar    carnet.AvatarID `required:"" help:"Who is to have it."`
	Kind      string          `required:"" placeholder:"WORD" help:"What kind of thing it is."`
	Title     string          `required:"" placeholder:"LINE" help:"What it is called."`
	Attribute []string        `sep:"none" placeholder:"NAME=VALUE" help:"A number, true or false, or a text (in double quotes, if it would be one of the others). May be given several times."`
	JSON      bool            `help:"As JSON."`
}

func (c itemIssue) Run(ctx context.Context, s streams) error {
	attributes, err := parseAttributes(c.Attribute)
	if err != nil {
		return err
	}
	world, _, err := c.worldOf(ctx, c.Avatar, administrator, creator)
	if err != nil {
		return err
	}
	i, err := world.IssueItem(ctx, api.NewItem{Avatar: c.Avatar, Kind: c.Kind, Title: c.Title, Attributes: attributes})
	if err != nil || c.JSON {
		return orJSON(s, i, err)
	}
	return writeItem(s, i)
}

func parseAttributes(all []string) (identity.Attributes, error) {
	attributes := identity.Attributes{}
	for _, a := range all {
		name, text, ok := strings.Cut(a, "=")
		if _, twice := attributes[name]; !ok || twice {
			return nil, carnet.Errorf(carnet.Malformed, "the attribute %.60q isn't NAME=VALUE, or its name stands twice", a).WithFix("such as --attribute damage=12")
		}
		var v any = text
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			v = n
		} else if text == "true" || text == "false" {
			v = text == "true"
		} else if inner, err := strconv.Unquote(text); err == nil {
			v = inner
		}
		attributes[name] = v
	}
	return attributes, attributes.Check()
}

func writeItem(s streams, i api.Item) error {
	fmt.Fprintf(s.out, "Item %s: %s, a %s, number %d of %s\n  issued %s by %s\n", i.ID, plain(i.Title), i.Kind, i.Serial, i.World, clock(i.Issued), i.Issuer)
	writeAttributes(s, "  ", i.Attributes)
	switch i.State {
	case item.Gone:
		fmt.Fprintf(s.out, "  It has gone to %s, since %s.\n", i.To, clock(i.Since))
	case item.Retired:
		fmt.Fprintf(s.out, "  It is retired, since %s.\n", clock(i.Since))
	default:
		fmt.Fprintf(s.out, "  The avatar %s has it, since %s", i.Avatar, clock(i.Since))
		if i.Slot != "" {
			fmt.Fprintf(s.out, "; it is put on: %s", i.Slot)
		}
		fmt.Fprintln(s.out)
	}
	if i.As != nil {
		fmt.Fprintf(s.out, "  Here it counts as a %s.\n", i.As.Kind)
		writeAttributes(s, "    ", i.As.Attributes)
	}
	if i.Moving {
		fmt.Fprintln(s.out, "  It keeps still for a crossing: carnet avatar status")
	}
	return nil
}

func writeAttributes(s streams, indent string, a identity.Attributes) {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		fmt.Fprintf(s.out, "%s%s: %s\n", indent, name, plain(fmt.Sprint(a[name])))
	}
}

type itemList struct {
	reaching
	Avatar *carnet.AvatarID `help:"Only what this avatar has."`
	All    bool             `help:"Also what has gone, or is retired."`
	JSON   bool             `help:"As JSON."`
}

// itemOf is an item with the world that was asked.
type itemOf struct {
	Party carnet.PartyID `json:"party"`
	api.Item
}

func (c itemList) Run(ctx context.Context, s streams) error {
	all := []itemOf{}
	err := c.each(s, atItems, func(w access.Party, cl *client.Client) error {
		list, err := cl.Items(ctx)
		for _, i := range list {
			if (c.All || i.State == item.Here) && (c.Avatar == nil || i.Avatar == *c.Avatar) {
				all = append(all, itemOf{w.Name, i})
			}
		}
		return err
	})
	return answered(s, c.JSON, all, err, func() error {
		t := table{{"ITEM", "PARTY", "STATE", "KIND", "AS", "TITLE", "SERIAL", "ISSUER", "AVATAR", "SLOT"}}
		for _, i := range all {
			as := ""
			if i.As != nil {
				as = i.As.Kind
			}
			t.add(i.ID.String(), string(i.Party), string(i.State), i.Kind, as, i.Title, strconv.FormatUint(i.Serial, 10), string(i.World), i.Avatar.String(), i.Slot)
		}
		return t.list(s, "There are no items.")
	})
}

type ofItem struct {
	reaching
	ID   carnet.ItemID `arg:"" help:"The item."`
	JSON bool          `help:"As JSON."`
}

// find finds the item: where it is, and not where it was before.
func (c ofItem) find(ctx context.Context, roles ...string) (h hit[api.Item], err error) {
	found, err := itemAt(ctx, c.ID, roles...).at(c.reaching, true)
	if err != nil {
		return h, err
	}
	h = found[0]
	for _, one := range found {
		if h.is.State == item.Gone {
			h = one
		}
	}
	return h, nil
}

// itemAt looks for an item.
func itemAt(ctx context.Context, id carnet.ItemID, roles ...string) sought[api.Item] {
	return sought[api.Item]{"item " + id.String(), "carnet item list --all", way{identity.World: roles}, func(cl *client.Client) (api.Item, error) { return cl.Item(ctx, id) }}
}

// run does something with the item, and shows it.
func (c ofItem) run(ctx context.Context, s streams, do func(*client.Client) (api.Item, error), roles ...string) error {
	h, err := c.find(ctx, roles...)
	if err != nil {
		return err
	}
	i, err := do(h.cl)
	if err != nil || c.JSON {
		return orJSON(s, i, err)
	}
	return writeItem(s, i)
}

type itemShow struct{ ofItem }

func (c itemShow) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx, administrator, creator, service)
	if err != nil {
		return err
	}
	i, world := h.is, h.cl
	shown := struct {
		api.Item
		History []identity.ItemEntry `json:"history,omitempty"`
	}{Item: i}
	if i.State != item.Gone {
		p, err := world.ItemProof(ctx, c.ID)
		if err != nil {
			return err
		}
		h, err := item.Read(identity.ItemProof{Credential: p.Credential, Entries: p.Entries}, nil)
		if err != nil {
			return err
		}
		shown.History = h.Entries
	}
	if c.JSON {
		return writeJSON(s.out, shown)
	}
	if err := writeItem(s, i); err != nil {
		return err
	}
	return writeHistory(s, shown.History)
}

// writeHistory says what happened to an item, by whose word.
func writeHistory(s streams, all []identity.ItemEntry) error {
	t := table{{"  WHEN", "WHAT", "AVATAR", "BY THE WORLD"}}
	for _, e := range all {
		t.add("  "+clock(e.Time), string(e.What), e.Avatar.String(), e.World)
	}
	return t.write(s.out)
}

type itemEquip struct {
	ofItem
	Slot string `required:"" placeholder:"WORD" help:"Where: hand, head."`
}

func (c itemEquip) Run(ctx context.Context, s streams) error {
	return c.run(ctx, s, func(w *client.Client) (api.Item, error) { return w.EquipItem(ctx, c.ID, c.Slot) }, administrator, creator)
}

type itemUnequip struct{ ofItem }

func (c itemUnequip) Run(ctx context.Context, s streams) error {
	return c.run(ctx, s, func(w *client.Client) (api.Item, error) { return w.UnequipItem(ctx, c.ID) }, administrator, creator)
}

type itemRetire struct{ ofItem }

func (c itemRetire) Run(ctx context.Context, s streams) error {
	return c.run(ctx, s, func(w *client.Client) (api.Item, error) { return w.RetireItem(ctx, c.ID) }, administrator, creator)
}

type itemGive struct {
	ofItem
	keystore
	To  carnet.AvatarID `required:"" placeholder:"AVATAR" help:"Who is to have it: an avatar of the same world and owner."`
	Yes bool            `help:"Don't ask."`
}

// giftLife is how long a gift that wasn't handed in can be.
const giftLife = 10 * time.Minute

func (c itemGive) Run(ctx context.Context, s streams) error {
	at, err := c.find(ctx, administrator, creator, service)
	if err != nil {
		return err
	}
	k, err := c.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	p, err := at.cl.ItemProof(ctx, c.ID)
	if err != nil {
		return err
	}
	h, err := item.Read(identity.ItemProof{Credential: p.Credential, Entries: p.Entries}, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.err, "The item %s (%s, a %s) goes from your avatar %s to the avatar %s.\n", c.ID, plain(h.Title), h.Kind, h.Avatar, c.To)
	if err := confirm(s, c.Yes, "Sign it"); err != nil {
		return err
	}
	gift, err := k.Give(identity.Gift{Item: h.ID, Owner: h.Owner, World: h.World, From: h.Avatar, To: c.To, After: h.Last}, time.Now(), giftLife)
	if err != nil {
		return err
	}
	i, err := at.cl.GiveItem(ctx, c.ID, gift)
	if err != nil || c.JSON {
		return orJSON(s, i, err)
	}
	return writeItem(s, i)
}

type itemExport struct {
	reaching
	ID  carnet.ItemID `arg:"" help:"The item."`
	Out string        `placeholder:"FILE" help:"Default: ITEM.json"`
}

func (c itemExport) Run(ctx context.Context, s streams) error {
	h, err := ofItem{reaching: c.reaching, ID: c.ID}.find(ctx, administrator, creator, service)
	if err != nil {
		return err
	}
	p, err := h.cl.ItemProof(ctx, c.ID)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if c.Out == "" {
		c.Out = c.ID.String() + ".json"
	}
	if err := os.WriteFile(c.Out, append(text, '\n'), 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s: verify it, offline:\n  carnet verify %s --trust FILE\n", c.Out, c.Out)
	return err
}

type itemAccept struct {
	reaching
	Issuer    string   `required:"" placeholder:"DID" help:"The other issuer: 'carnet item accepted' there shows it."`
	Kind      string   `required:"" placeholder:"WORD" help:"Its kind."`
	CountsAs  string   `required:"" placeholder:"WORD" help:"The kind of this world that it counts as."`
	Attribute []string `sep:"none" placeholder:"THEIRS=OURS[:LEAST..MOST]" help:"An attribute that carries over, what it is called here, and within which bounds a number is taken: damage=power:0..50. May be given several times."`
	JSON      bool     `help:"As JSON."`
}

func (c itemAccept) Run(ctx context.Context, s streams) error {
	a := api.ItemAcceptance{Issuer: c.Issuer, Kind: c.Kind, As: c.CountsAs}
	for _, text := range c.Attribute {
		theirs, is, err := parseCarried(text)
		if err != nil {
			return err
		}
		if a.Attributes == nil {
			a.Attributes = make(map[string]item.Attribute)
		}
		a.Attributes[theirs] = is
	}
	world, err := c.one(identity.World, administrator)
	if err != nil {
		return err
	}
	a, err = world.AcceptItems(ctx, a)
	if err != nil || c.JSON {
		return orJSON(s, a, err)
	}
	_, err = fmt.Fprintf(s.out, "From now on a %s of %s is taken here, and counts as a %s%s.\n", a.Kind, a.Issuer, a.As, carried(a))
	return err
}

func parseCarried(text string) (theirs string, is item.Attribute, err error) {
	theirs, rest, ok := strings.Cut(text, "=")
	is.As, rest, _ = strings.Cut(rest, ":")
	least, most, bounded := strings.Cut(rest, "..")
	bad := carnet.Errorf(carnet.Malformed, "the attribute %.80q isn't THEIRS=OURS or THEIRS=OURS:LEAST..MOST", text).WithFix("such as --attribute damage=power:0..50; either bound may be left out")
	if !ok || rest != "" && !bounded {
		return theirs, is, bad
	}
	for text, into := range map[string]**float64{least: &is.Min, most: &is.Max} {
		if text == "" {
			continue
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return theirs, is, bad
		}
		*into = &n
	}
	return theirs, is, nil
}

// carried says which attributes carry over.
func carried(a api.ItemAcceptance) string {
	text := ""
	for _, theirs := range slices.Sorted(maps.Keys(a.Attributes)) {
		is := a.Attributes[theirs]
		text += fmt.Sprintf(", %s as %s", theirs, is.As)
		if is.Min != nil {
			text += fmt.Sprintf(", at least %v", *is.Min)
		}
		if is.Max != nil {
			text += fmt.Sprintf(", at most %v", *is.Max)
		}
	}
	return text
}

type itemAccepted struct {
	reaching
	JSON bool `help:"As JSON."`
}

func (c itemAccepted) Run(ctx context.Context, s streams) error {
	type of struct {
		Party carnet.PartyID `json:"party"`
		api.AcceptedItems
	}
	all := []of{}
	err := c.each(s, atItems, func(w access.Party, cl *client.Client) error {
		a, err := cl.AcceptedItems(ctx)
		all = append(all, of{w.Name, a})
		return err
	})
	return answered(s, c.JSON, all, err, func() error {
		for _, w := range all {
			fmt.Fprintf(s.out, "%s issues as %s\n", w.Party, w.Issuer)
			if len(w.Accepted) == 0 {
				fmt.Fprintln(s.out, "  and takes no items of others.")
			}
			for _, a := range w.Accepted {
				fmt.Fprintf(s.out, "  takes a %s of %s as a %s%s\n", a.Kind, a.Issuer, a.As, carried(a))
			}
		}
		return nil
	})
}

type itemRefuse struct {
	reaching
	Issuer string `required:"" placeholder:"DID" help:"The other issuer."`
	Kind   string `required:"" placeholder:"WORD" help:"Its kind."`
	JSON   bool   `help:"As JSON."`
}

func (c itemRefuse) Run(ctx context.Context, s streams) error {
	world, err := c.one(identity.World, administrator)
	if err != nil {
		return err
	}
	a, err := world.RefuseItems(ctx, c.Issuer, c.Kind)
	if err != nil || c.JSON {
		return orJSON(s, a, err)
	}
	_, err = fmt.Fprintf(s.out, "No more %s of %s is taken here; those that are here stay.\n", a.Kind, a.Issuer)
	return err
}
