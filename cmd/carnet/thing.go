package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/owner"
	"carnet/policy"
	"carnet/senml"
	"carnet/thing"
)

type thingCommands struct {
	Add      thingAdd      `cmd:"" help:"Add a thing by its description; prints its password, once."`
	List     thingList     `cmd:"" help:"List the things."`
	Show     thingShow     `cmd:"" help:"Show one thing: properties, mappings, what was refused."`
	Map      thingMap      `cmd:"" help:"Give a thing an avatar in a world."`
	View     viewCommands  `cmd:"" help:"What a world gets of a thing."`
	Unmap    thingUnmap    `cmd:"" help:"End a mapping: the world gets nothing more."`
	Refusals thingRefusals `cmd:"" help:"Why a thing's messages were refused."`
	Password thingPassword `cmd:"" help:"Give a thing another password; prints it, once. Who has the one before is cut off."`
}

// maxDocument bounds a file that is sent: a description or a view.
const maxDocument = 1 << 20

// readDocument reads a file, or standard input for "-".
func readDocument(s streams, path string) ([]byte, error) {
	from := s.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxDocument+1))
	if err == nil && len(data) > maxDocument {
		err = carnet.Errorf(carnet.TooLarge, "%s has more than %d bytes", path, maxDocument)
	}
	return data, err
}

type thingAdd struct {
	reaching
	Description string         `required:"" placeholder:"FILE" help:"The thing's WoT Thing Description 1.1; - for standard input."`
	ID          carnet.ThingID `help:"What to call it; left out, an id is drawn."`
	Owner       string         `help:"Whose it is. Default: the owner, if the access file has one owner's token; else the name of the token."`
	JSON        bool           `help:"As JSON."`
}

// whereNot says where a text stops being JSON.
func whereNot(text []byte) string {
	var raw json.RawMessage
	wrong, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(text, &raw))
	if !ok {
		return ""
	}
	at := min(int(wrong.Offset), len(text))
	return fmt.Sprintf(": line %d: %v", 1+bytes.Count(text[:at], []byte{'\n'}), wrong)
}

func (c thingAdd) Run(ctx context.Context, s streams) error {
	description, err := readDocument(s, c.Description)
	if err != nil {
		return fmt.Errorf("read the description: %w", err)
	}
	if !json.Valid(description) {
		return carnet.Errorf(carnet.Malformed, "%s is not JSON%s", c.Description, whereNot(description)).WithFix("give a WoT Thing Description 1.1")
	}
	f, err := c.file()
	if err != nil {
		return err
	}
	party, err := c.meant(f, "things")
	if err != nil {
		return err
	}
	cl, err := c.dial(f, party, administrator)
	if err != nil {
		return err
	}
	if c.Owner == "" {
		if c.Owner, err = c.usualOwner(f, party.Name); err != nil {
			return err
		}
	}
	added, err := cl.AddThing(ctx, api.NewThing{ID: c.ID, Owner: c.Owner, Description: api.Description(bytes.TrimSpace(description))})
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, added)
	}
	defer unmeasured(s, added.Unmeasured)
	_, err = fmt.Fprintf(s.out, `Added %s of %s.
Password, shown once: %s
It publishes %s (or +cbor, +xml) over MQTT with TLS at %s,
user %s, topic %s, and hears why messages are refused on %s.
`, added.ID, plain(c.Owner), added.Password, senml.JSON.ContentType(), party.MQTT, added.ID, thing.MeasurementsTopic(added.ID), thing.RefusalsTopic(added.ID))
	return err
}

// unmeasured says which properties no measurement can be sent of.
func unmeasured(s streams, all []thing.UnmeasuredInfo) {
	for _, u := range all {
		fmt.Fprintf(s.out, "Not measured, and refused: %s: %s\n", plain(u.Name), plain(u.Why))
	}
}

// usualOwner is whose a thing is that somebody adds without saying so: whoever
// has one owner's token beside the operator's means to see it with that one.
func (c thingAdd) usualOwner(f *access.File, things carnet.PartyID) (string, error) {
	if owners := f.TokensOf(things, ownUser); len(owners) == 1 {
		return owners[0].Name, nil
	}
	token, err := f.Token(things, c.As, administrator)
	return token.Name, err
}

type thingList struct {
	reaching
	JSON bool `help:"As JSON."`
}

func (c thingList) Run(ctx context.Context, s streams) error {
	cl, err := c.things()
	if err != nil {
		return err
	}
	things, err := cl.Things(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, things)
	}
	t := table{{"THING", "OWNER", "TITLE", "ADDED", "CONNECTED", "WORLDS", "REFUSED"}}
	for _, i := range things {
		var worlds []string
		for _, m := range i.Mappings {
			if !m.Stopped {
				worlds = append(worlds, string(m.World))
			}
		}
		t.add(string(i.ID), i.Owner, i.Title, clock(i.Added), strconv.Itoa(i.Connected), strings.Join(worlds, " "), counts(i.Refused))
	}
	return t.list(s, "There are no things.")
}

type thingShow struct {
	reaching
	ID   carnet.ThingID `arg:"" help:"The thing."`
	JSON bool           `help:"As JSON."`
}

func (c thingShow) Run(ctx context.Context, s streams) error {
	cl, err := c.things()
	if err != nil {
		return err
	}
	i, err := cl.Thing(ctx, c.ID)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, i)
	}
	fmt.Fprintf(s.out, "%s: %s of %s, added %s, connected now: %d\n", i.ID, plain(i.Title), plain(i.Owner), clock(i.Added), i.Connected)
	if len(i.Refused) > 0 {
		fmt.Fprintf(s.out, "refused: %s\n", counts(i.Refused))
	}
	denied(s, i.Denied)
	t := table{{"PROPERTY", "UNIT", "KIND", "SENSITIVITY", "LAST"}}
	for _, p := range i.Properties {
		t.add(p.Name, p.Unit, p.Kind, p.Sensitivity, moment(p.LastTime))
	}
	fmt.Fprintln(s.out)
	if err := t.write(s.out); err != nil {
		return err
	}
	unmeasured(s, i.Unmeasured)
	if len(i.Mappings) > 0 {
		fmt.Fprintln(s.out)
		if err := mappings(i.Mappings).write(s.out); err != nil {
			return err
		}
	}
	for _, m := range i.Mappings {
		refusedMove(s, "", string(m.World), m.Refused)
	}
	for _, m := range i.Waiting {
		waits(s, "", m.ID, m.Avatar, m.Waits)
	}
	return nil
}

// denied says who tried to be the thing with a wrong password.
func denied(s streams, d *thing.Denied) {
	if d == nil {
		return
	}
	from := ""
	if d.From != "" {
		from = ", from " + d.From
	}
	fmt.Fprintf(s.out, "Wrong password: %s since the agent's start, the first at %s, the last at %s%s\n", number(d.Count, "attempt", "attempts"), clock(d.Since), clock(d.Last), from)
}

// waits says what a mapping waits for that is to go on where an avatar has moved.
func waits(s streams, indent string, id carnet.MappingID, to carnet.AvatarID, w *thing.Waiting) {
	fmt.Fprintf(s.out, "\n%smapping %s, to avatar %s of %s, by the move %s: waits, and keeps what came since (%d messages)\n%s  %s\n",
		indent, id, to, w.Target, w.Crossing, w.Messages, indent, plain(w.For))
	if w.Fix != "" {
		fmt.Fprintf(s.out, "%s  %s\n", indent, plain(w.Fix))
	}
}

// refusedMove says what a world told of a move that isn't so.
func refusedMove(s streams, indent, world string, r *thing.RefusedMove) {
	if r != nil {
		fmt.Fprintf(s.out, "\n%s%s told at %s that the avatar has moved, which was refused: %s\n", indent, world, clock(r.At), plain(r.Why))
	}
}

// mappings shows where a thing's data goes.
func mappings(ms []thing.MappingInfo) table {
	t := table{{"MAPPING", "WORLD", "AVATAR", "POLICY", "SENT", ""}}
	for _, m := range ms {
		var sent uint64
		for _, p := range m.Got {
			sent += p.Sent
		}
		t.add(m.ID.String(), string(m.World), m.Avatar.String(), strconv.FormatUint(m.PolicyVersion, 10), counted(sent, m.Uncounted), ended(m.Stopped, m.Moved))
	}
	return t
}

// counted is how many there are of what is counted, or why that isn't known.
func counted(n uint64, uncounted string) string {
	if uncounted != "" {
		return uncounted
	}
	return strconv.FormatUint(n, 10)
}

func ended(stopped bool, moved *thing.MovedInfo) string {
	switch {
	case moved != nil:
		return "moved to " + cmp.Or(string(moved.World), moved.Target)
	case stopped:
		return "stopped"
	}
	return ""
}

type thingMap struct {
	reaching
	ID     carnet.ThingID   `arg:"" help:"The thing."`
	World  carnet.PartyID   `required:"" help:"The world, as its things agent calls it."`
	View   string           `placeholder:"FILE" help:"What the world is to get, as a view document; - for standard input. Left out, nothing yet."`
	Avatar *carnet.AvatarID `placeholder:"ID" help:"An avatar that the world has already of this agent; left out, a new one."`
	Title  string           `help:"What people in the world are to call the avatar."`
	JSON   bool             `help:"As JSON."`

	Keystore string `type:"path" placeholder:"FILE" help:"Your keystore: the world is to know the avatar as yours, by a key of it."`
	passphrase
}

func (c thingMap) Run(ctx context.Context, s streams) error {
	view := policy.View{Properties: map[string]policy.PropertyView{}}
	if c.View != "" {
		var err error
		if view, err = readView(s, c.View); err != nil {
			return err
		}
	}
	var k *owner.Keystore
	if c.Keystore != "" { // before there is an avatar
		var err error
		if k, err = (keystore{c.Keystore, c.passphrase}).open(s); err != nil {
			return err
		}
		defer k.Close()
	}
	cl, err := c.things()
	if err != nil {
		return err
	}
	before, err := cl.Thing(ctx, c.ID)
	if err != nil {
		return err
	}
	m, err := cl.Map(ctx, c.ID, api.NewMapping{World: c.World, Avatar: c.Avatar, Title: c.Title, View: view})
	if err != nil {
		return err
	}
	named := fmt.Sprintf("%s/%s", m.Thing, m.World)
	for _, other := range before.Mappings {
		if other.World == m.World && !other.Stopped && other.Avatar != m.Avatar {
			named = m.ID.String() // THING/WORLD is several now
			fmt.Fprintf(s.err, "%s is avatar %s in %s already; this is another one. To end one: carnet thing unmap MAPPING\n", m.Thing, other.Avatar, m.World)
		}
	}
	if k != nil {
		if m, err = claim(ctx, k, cl, m); err != nil {
			return fmt.Errorf("the mapping %s is made, and the world doesn't know yet whose avatar it is (carnet owner claim does that): %w", m.ID, err)
		}
	}
	if c.JSON {
		return writeJSON(s.out, m)
	}
	fmt.Fprintf(s.out, "Mapped %s to avatar %s in %s: mapping %s.\n", m.Thing, m.Avatar, m.World, m.ID)
	if k != nil {
		if err := claimed(s, m); err != nil {
			return err
		}
	}
	if c.View == "" {
		_, err := fmt.Fprintf(s.out, "No view was given, so everything is withheld. To give one: carnet thing view set %s --file FILE\n", named)
		return err
	}
	return explain(ctx, s, cl, m.ID)
}

type thingPassword struct {
	reaching
	ID   carnet.ThingID `arg:"" help:"The thing."`
	JSON bool           `help:"As JSON."`
}

func (c thingPassword) Run(ctx context.Context, s streams) error {
	cl, err := c.things()
	if err != nil {
		return err
	}
	r, err := cl.RenewPassword(ctx, c.ID)
	if err != nil || c.JSON {
		return orJSON(s, r, err)
	}
	_, err = fmt.Fprintf(s.out, "Password of %s, shown once: %s\nThe one before counts no more, and who was connected by it is cut off.\n", r.ID, r.Password)
	return err
}

type thingUnmap struct {
	reaching
	Mapping string `arg:"" help:"The mapping, or THING/WORLD."`
	JSON    bool   `help:"As JSON."`
}

func (c thingUnmap) Run(ctx context.Context, s streams) error {
	cl, err := c.things()
	if err != nil {
		return err
	}
	return stop(ctx, s, cl, c.Mapping, c.JSON)
}

// stop ends a mapping, for whoever may.
func stop(ctx context.Context, s streams, cl *client.Client, which string, asJSON bool) error {
	id, err := findMapping(ctx, cl, which, false)
	if err != nil {
		return err
	}
	before, err := cl.Mapping(ctx, id)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound { // one that waits is none yet
		return err
	}
	m, err := cl.Unmap(ctx, id)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(s.out, m)
	}
	if before.Stopped {
		_, err = fmt.Fprintf(s.out, "%s was stopped already from getting more of %s.\n", m.World, m.Thing)
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s gets nothing more of %s. What it has it keeps, as the view let it.\n", m.World, m.Thing)
	return err
}

// findMapping reads a mapping's id, or finds the one that runs from a thing to a
// world: THING/WORLD. With stopped, where none runs, it is the last one that did.
func findMapping(ctx context.Context, cl *client.Client, which string, stopped bool) (id carnet.MappingID, err error) {
	of, world, both := strings.Cut(which, "/")
	if !both {
		if err := id.UnmarshalText([]byte(which)); err != nil {
			return id, carnet.Errorf(carnet.Malformed, "%q names no mapping", which).WithFix("name it by its id of 32 hexadecimal digits, or as THING/WORLD: carnet thing show THING")
		}
		return id, nil
	}
	if _, err := carnet.ParseThingID(of); err != nil {
		return id, err
	}
	i, err := cl.Thing(ctx, carnet.ThingID(of))
	if err != nil {
		return id, err
	}
	var last *thing.MappingInfo
	found := 0
	for _, m := range slices.Concat(i.Mappings, i.Waiting) {
		switch {
		case string(m.World) != world:
		case m.Stopped:
			last = &m
		default:
			id, found = m.ID, found+1
		}
	}
	switch {
	case found == 1:
		return id, nil
	case found == 0 && stopped && last != nil:
		return last.ID, nil
	case found == 0 && last != nil:
		return id, carnet.Errorf(carnet.Conflict, "the mapping of %s to %s has ended", of, world).WithFix("see: carnet thing show %s", of)
	case found == 0:
		return id, carnet.Errorf(carnet.NotFound, "%s has no mapping to %s", of, world).WithFix("see: carnet thing show %s", of)
	}
	return id, carnet.Errorf(carnet.Malformed, "%s has %d mappings to %s", of, found, world).WithFix("name one by its id: carnet thing show %s", of)
}

type thingRefusals struct {
	reaching
	ID    carnet.ThingID `arg:"" help:"The thing."`
	Limit int            `default:"1000" help:"At most so many, the newest (1 to 1000)."`
	Each  bool           `help:"Each one, with what was sent, instead of one of each reason."`
	JSON  bool           `help:"As JSON, each one."`
}

func (c thingRefusals) Run(ctx context.Context, s streams) error {
	cl, err := c.things()
	if err != nil {
		return err
	}
	refusals, err := cl.Refusals(ctx, c.ID, c.Limit)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, refusals)
	}
	info, err := cl.Thing(ctx, c.ID)
	if err != nil {
		return err
	}
	denied(s, info.Denied)
	if len(refusals) == 0 {
		_, err := fmt.Fprintln(s.out, "Nothing was refused.")
		return err
	}
	if !c.Each {
		return byCode(refusals).write(s.out)
	}
	t := table{{"TIME", "CODE", "REASON AND FIX"}}
	for _, r := range refusals {
		t.add(clock(r.Time), string(r.Code), reason(r))
		if r.Sent != "" {
			t.add("", "", "sent: "+r.Sent)
		}
	}
	return t.write(s.out)
}

// reason is one cell, the last: what stands behind a long one would be far away.
func reason(r thing.Refusal) string { return (&carnet.Error{Reason: r.Reason, Fix: r.Fix}).Error() }

// byCode shows the newest refusal of each code, and how many there are: most
// differ only in the times and values that they name.
func byCode(newestFirst []thing.Refusal) table {
	number := make(map[carnet.Code]uint64)
	for _, r := range newestFirst {
		number[r.Code]++
	}
	t := table{{"MESSAGES", "CODE", "LAST", "REASON AND FIX"}}
	for _, r := range newestFirst {
		if n := number[r.Code]; n > 0 {
			t.add(strconv.FormatUint(n, 10), string(r.Code), clock(r.Time), reason(r))
			number[r.Code] = 0
		}
	}
	return t
}
