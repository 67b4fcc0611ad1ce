package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/evidence"
	"carnet/identity"
	"carnet/item"
	"carnet/ledger"
)

// belongings is what an operator says of an avatar's items when it moves.
type belongings struct {
	Items string `default:"all" placeholder:"all|none|ITEM,…" help:"Which of its items go along: all that the other world accepts (the default), none, or these."`
	Leave bool   `help:"Those that don't go along end for ever. Without this, the move is refused while there are any: give them to another avatar first."`
}

// sort says which of an avatar's items go along and which end, by what the target
// accepts, and tells of each.
func (b belongings) sort(ctx context.Context, s streams, target *client.Client, to carnet.PartyID, t api.Traveller) (along, end []carnet.ItemID, err error) {
	if len(t.Items) == 0 {
		return nil, nil, nil
	}
	var credentials []string
	for _, i := range t.Items {
		credentials = append(credentials, i.Credential)
	}
	fits, err := target.AssessItems(ctx, credentials)
	if err != nil || len(fits) != len(t.Items) {
		return nil, nil, fmt.Errorf("%s: ask what it accepts: %w", to, err)
	}
	named := make(map[string]bool)
	for _, id := range strings.Split(b.Items, ",") {
		named[id] = true
	}
	for n, f := range fits {
		id := t.Items[n].ID
		wanted := b.Items == "all" || named[id.String()]
		delete(named, id.String())
		switch {
		case wanted && f.As != nil && t.Items[n].Owner == t.Owner:
			along = append(along, id)
			fmt.Fprintf(s.err, "The item %s goes along, and counts as a %s there.\n", id, f.As.Kind)
			continue
		case f.As == nil:
			fmt.Fprintf(s.err, "The item %s can't go along: %s\n", id, plain(f.Why))
		case t.Items[n].Owner != t.Owner:
			fmt.Fprintf(s.err, "The item %s can't go along by the same order: it is registered for another key of its owner's. Move it on its own: carnet item move %s\n", id, id)
		default:
			fmt.Fprintf(s.err, "The item %s doesn't go along.\n", id)
		}
		if wanted && b.Items != "all" {
			return nil, nil, carnet.Errorf(carnet.Conflict, "the item %s was named, and can't go along", id).WithFix("leave it out of --items; or --items all --leave, and it stays behind")
		}
		end = append(end, id)
	}
	delete(named, "all")
	delete(named, "none")
	for id := range named {
		return nil, nil, carnet.Errorf(carnet.NotFound, "the avatar has no item %.40q", id).WithFix("list them: carnet item list --avatar %s", t.Avatar)
	}
	if len(end) > 0 && !b.Leave {
		return nil, nil, carnet.Errorf(carnet.Conflict, "%s would be left with an avatar that is no more", number(uint64(len(end)), "item", "items")).
			WithFix("give them to another avatar first (carnet item give), or have them end with --leave")
	}
	return along, end, nil
}

type itemMove struct {
	reaching
	ID      carnet.ItemID   `arg:"" help:"The item."`
	From    carnet.PartyID  `required:"" placeholder:"WORLD" help:"Where it is."`
	To      carnet.PartyID  `required:"" placeholder:"WORLD" help:"Where it is to go."`
	Avatar  carnet.AvatarID `required:"" help:"The avatar there that is to have it: of the same owner."`
	Text    string          `placeholder:"LINE" help:"What for, to its owner, on one line."`
	Request string          `placeholder:"FILE" help:"Write what the owner is to approve to this file. Default: CROSSING.json"`
	JSON    bool            `help:"As JSON."`
}

func (c itemMove) Run(ctx context.Context, s streams) error {
	source, err := c.at(c.From, administrator)
	if err != nil {
		return err
	}
	target, err := c.at(c.To, administrator)
	if err != nil {
		return err
	}
	i, err := source.Item(ctx, c.ID)
	if err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	if i.State != item.Here {
		return carnet.Errorf(carnet.Conflict, "the item %s is %s at %s", c.ID, i.State, c.From).WithFix("see where it is: carnet item list --all")
	}
	t := api.Traveller{
		Avatar: i.Avatar, Home: i.Home, Registrar: i.Registrar, Owner: i.Owner, Sensitivity: carnet.Public.String(), Properties: []string{},
		Items: []api.CarriedItem{{ID: i.ID, Credential: i.Credential, Owner: i.Owner}},
	}
	crossing, err := target.BeginCrossing(ctx, api.NewMove{World: c.From, Traveller: t, Items: []carnet.ItemID{i.ID}, Alone: true, To: &c.Avatar, Text: c.Text})
	if err != nil {
		return fmt.Errorf("%s: %w", c.To, err)
	}
	asked, m, err := identity.ParseMoveRequest(crossing.Request)
	if err != nil {
		return err
	}
	if err := letMove(ctx, source, c.To, t, m); err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	file := cmp.Or(c.Request, crossing.ID.String()+".json")
	if err := os.WriteFile(file, crossing.Request, 0o600); err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, crossing)
	}
	fmt.Fprintf(s.out, "Crossing %s: %s would take it.\n", crossing.ID, c.To)
	for _, line := range asked.Report {
		fmt.Fprintf(s.out, "  %s\n", plain(line))
	}
	return howToOrder(s, file, c.To, crossing)
}

// howToOrder says what the owner does next.
func howToOrder(s streams, file string, to carnet.PartyID, x api.Crossing) error {
	_, err := fmt.Fprintf(s.out, "Its owner orders it, and then it goes on by itself:\n  carnet owner approve %s --keystore FILE --party %s\nFollow it:\n  carnet avatar status %s --party %s\n", file, to, x.ID, to)
	return err
}

// verifyItem verifies an item's proof, from its issuer on.
func (c verifyCommand) verifyItem(s streams, p api.ItemProof) error {
	read := identity.ItemProof{Credential: p.Credential, Entries: p.Entries}
	h, err := item.Read(read, nil)
	if err == nil {
		err = c.onLedger(read)
	}
	if err != nil {
		fmt.Fprintf(s.out, "%s: false: %v\n", plain(c.Bundle), err)
		return exitCode{code: 1}
	}
	if c.JSON {
		return writeJSON(s.out, struct {
			Item    identity.Item        `json:"item"`
			History []identity.ItemEntry `json:"history"`
			World   string               `json:"world"`
			Avatar  carnet.AvatarID      `json:"avatar"`
			Owner   string               `json:"owner"`
			Retired bool                 `json:"retired"`
			Ledger  bool                 `json:"ledger"`
		}{h.Item, h.Entries, h.World, h.Avatar, h.Owner, h.Retired, len(c.Trust) > 0})
	}
	fmt.Fprintf(s.out, "%s: proved from its issuer on: item %s, %s, a %s, number %d of %s\n  issuer %s\n", plain(c.Bundle), h.ID, plain(h.Title), h.Kind, h.Serial, h.Item.World, h.Issuer)
	if err := writeHistory(s, h.Entries); err != nil {
		return err
	}
	if len(c.Trust) == 0 {
		fmt.Fprintln(s.out, "  The registrar's word is its own: without --trust of its depot no ledger was asked for it.")
	}
	_, err = fmt.Fprintln(s.out, "  Whether more has happened to it since, only the register knows.")
	return err
}

// itemProof reads a file that may be an item's proof.
func itemProof(path string) (p api.ItemProof, is bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxItemProof {
		return p, false
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return p, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return p, d.Decode(&p) == nil && p.Kind == item.ProofKind
}

const maxItemProof = 16 << 20

// ledgers are the ledgers that are trusted.
func (c verifyCommand) ledgers() (all []ledger.Key, err error) {
	for _, path := range c.Trust {
		t, err := evidence.ReadTrust(path)
		if err != nil {
			return nil, err
		}
		for _, l := range t.Ledgers {
			key, err := ledger.ParseKey(l.Key)
			if err != nil {
				return nil, err
			}
			all = append(all, key)
		}
	}
	return all, nil
}

// onLedger verifies the receipts by the ledgers that are trusted: one of them must have
// all of the registrar's words.
func (c verifyCommand) onLedger(p identity.ItemProof) error {
	keys, err := c.ledgers()
	if err != nil || len(keys) == 0 {
		return err
	}
	for _, key := range keys {
		if _, err = item.Read(p, &key); err == nil {
			return nil
		}
	}
	return err
}
