package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/identity"
	"carnet/senml"
)

type avatarCommands struct {
	List    avatarList    `cmd:"" help:"List the avatars of the worlds."`
	Show    avatarShow    `cmd:"" help:"Show an avatar and its newest measurements."`
	History avatarHistory `cmd:"" help:"Show an avatar's measurements, oldest first."`
	Watch   avatarWatch   `cmd:"" help:"Follow an avatar live, a line an event."`
	Abroad  avatarAbroad  `cmd:"" help:"Read an avatar of another world, as an avatar of this one."`

	Evidence avatarEvidence `cmd:"" help:"Fetch an avatar's evidence bundle, for carnet verify."`
	Request  avatarRequest  `cmd:"" help:"Ask an avatar's owner for a mandate: what it is to be permitted at another world."`

	Move   avatarMove   `cmd:"" help:"Move an avatar to another world: make room there, and ask its owner."`
	Status avatarStatus `cmd:"" help:"Show how far moves are, and how they ended."`
	Cancel avatarCancel `cmd:"" help:"Call a move off, while that is possible."`
	Erase  avatarErase  `cmd:"" help:"Have an avatar erased here and at everybody who got something of it, by its owner's order."`

	Export       avatarExport       `cmd:"" help:"Make an avatar's passport: by it its owner gets it a new home when its world is gone for good."`
	Import       avatarImport       `cmd:"" help:"Bring an avatar by its passport to another world, and ask its owner."`
	Announcement avatarAnnouncement `cmd:"" help:"Write a world's reception key, for a passport's keys."`
}

type avatarEvidence struct {
	ofAvatar
	From     string `placeholder:"TIME" help:"Only batches with what was measured at this time or later, each in a bundle of its own: RFC 3339, or seconds since 1970."`
	To       string `placeholder:"TIME" help:"Only batches with what was measured before this time."`
	Property string `help:"Only batches with this property; an object's name stands for its fields."`
	Out      string `help:"Where the bundles' directories are made." default:"."`
}

// Run fetches the bundles and says what to do with them.
func (c *avatarEvidence) Run(ctx context.Context, s streams) error {
	q := client.EvidenceQuery{Property: c.Property}
	var err error
	if q.From, err = parseTime("--from", c.From); err != nil {
		return err
	}
	if q.To, err = parseTime("--to", c.To); err != nil {
		return err
	}
	world, _, err := c.find(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.err, "Waiting until the depot has given a receipt for every statement made so far.")
	bundles, err := world.Evidence(ctx, c.ID, q, c.Out)
	if err != nil {
		return err
	}
	for _, bundle := range bundles {
		fmt.Fprintln(s.out, plain(bundle)) // the world named it
	}
	what, verify := "It holds the keys of what it proves.", c.Out
	switch {
	case len(bundles) == 1:
		verify = bundles[0]
	default:
		what = "They hold the keys of what they prove."
	}
	_, err = fmt.Fprintf(s.out, "%s Verify: carnet verify %s\n", what, plain(verify))
	return err
}

// ofAvatar names an avatar.
type ofAvatar struct {
	reaching
	ID carnet.AvatarID `arg:"" help:"The avatar."`
}

// find is the way to the world that has the avatar: the one that is named, or
// that the access file names, or the one that answers for it.
func (c ofAvatar) find(ctx context.Context) (*client.Client, avatar.Info, error) {
	h, err := c.where(ctx)
	return h.cl, h.is, err
}

// where is find with the world.
func (c ofAvatar) where(ctx context.Context) (h hit[avatar.Info], err error) {
	r := c.reaching
	if r.Party == "" {
		f, err := c.file()
		if err != nil {
			return h, err
		}
		for _, a := range f.Avatars {
			if a.ID == c.ID {
				r.Party = a.World
			}
		}
	}
	return avatarAt(ctx, c.ID, atSeenAvatars).first(r)
}

type avatarList struct {
	reaching
	JSON bool `help:"As JSON."`
}

// ofWorld is an avatar with the world that has it.
type ofWorld struct {
	World carnet.PartyID `json:"world"`
	avatar.Info
}

func (c avatarList) Run(ctx context.Context, s streams) error {
	all := []ofWorld{}
	err := c.each(s, atAvatars, func(w access.Party, cl *client.Client) error {
		list, err := cl.Avatars(ctx)
		for _, i := range list {
			all = append(all, ofWorld{w.Name, i})
		}
		return err
	})
	return answered(s, c.JSON, all, err, func() error {
		t := table{{"AVATAR", "WORLD", "TITLE", "MEASUREMENTS", "BATCHES", "LATEST", "PROPERTIES"}}
		for _, a := range all {
			measurements, batches := strconv.FormatUint(a.Measurements, 10), strconv.FormatUint(a.Batches, 10)
			if a.Uncounted {
				measurements, batches = "-", "-"
			}
			t.add(a.ID.String(), string(a.World), a.Title, measurements, batches,
				moment(a.Latest), strings.Join(a.Properties, " "))
		}
		return t.list(s, "There are no avatars.")
	})
}

// amount says how much there is of an avatar.
func amount(i avatar.Info) string {
	if i.Uncounted {
		return "seen through a grant, which doesn't tell how much there is"
	}
	return number(i.Measurements, "measurement", "measurements") + " in " + number(i.Batches, "batch", "batches") + " of " + number(uint64(i.Streams), "stream", "streams")
}

type avatarShow struct {
	ofAvatar
	JSON bool `help:"As JSON."`
}

func (c avatarShow) Run(ctx context.Context, s streams) error {
	cl, i, err := c.find(ctx)
	if err != nil {
		return err
	}
	state, err := cl.State(ctx, c.ID)
	if err != nil {
		return err
	}
	old, err := c.withdrawn(ctx, cl, i, state)
	if err != nil {
		return err
	}
	bounds := c.policy(ctx, cl)
	if c.JSON {
		pack, err := senml.Append(nil, senml.JSON, state)
		if err != nil {
			return err
		}
		return writeJSON(s.out, struct {
			avatar.Info
			DID       string          `json:"did,omitempty"`
			State     json.RawMessage `json:"state"`
			Withdrawn []string        `json:"withdrawn,omitempty"`

			Policy *api.AvatarPolicy `json:"policy,omitempty"`
		}{i, didOf(i), pack, old, bounds})
	}
	fmt.Fprintln(s.out, strings.TrimSpace(i.ID.String()+" "+plain(i.Title)))
	if did := didOf(i); did != "" {
		fmt.Fprintln(s.out, did)
	}
	fmt.Fprintf(s.out, "%s, since %s\n", amount(i), clock(i.Created))
	if bounds != nil {
		writePolicy(s, *bounds)
	}
	fmt.Fprintln(s.out)
	t := measurements(state)
	for i := range state {
		if slices.Contains(old, state[i].Name) {
			t[i+1] = append(t[i+1], "no longer given")
		}
	}
	return t.write(s.out)
}

// policy is the avatar's policy, if it has one and the caller may see it.
func (c avatarShow) policy(ctx context.Context, cl *client.Client) *api.AvatarPolicy {
	p, err := cl.AvatarPolicy(ctx, c.ID)
	if err != nil || p.Version == 0 { // who reads under a grant isn't told
		return nil
	}
	return &p
}

// didOf is what an avatar is called by its key, as a grant of another world names it.
func didOf(i avatar.Info) string {
	if len(i.Key) != ed25519.PublicKeySize {
		return ""
	}
	return identity.DID(i.Key)
}

type avatarAbroad struct {
	ofAvatar
	World carnet.PartyID  `arg:"" help:"The other world, as this one calls it."`
	About carnet.AvatarID `arg:"" help:"The avatar there."`
}

// Run shows the newest measurements of the other world's avatar.
func (c *avatarAbroad) Run(ctx context.Context, s streams) error {
	cl, _, err := c.find(ctx)
	if err != nil {
		return err
	}
	state, err := cl.Abroad(ctx, c.ID, c.World, c.About)
	if err != nil {
		return err
	}
	return measurements(state).write(s.out)
}

func measurements(ms []carnet.Measurement) table {
	t := table{{"TIME", "PROPERTY", "VALUE", "UNIT"}}
	for _, m := range ms {
		t.add(nanos(m.Time), m.Name, value(m.Value), m.Unit)
	}
	return t
}

type avatarHistory struct {
	ofAvatar
	From     string `placeholder:"TIME" help:"Measured at this time or later: RFC 3339, or seconds since 1970."`
	To       string `placeholder:"TIME" help:"Measured before this time."`
	Property string `help:"One property only; an object's name stands for its fields."`
	Limit    int    `default:"10000" help:"At most so many, the oldest; an instant is never split."`
	Format   string `enum:"table,json,cbor,xml" default:"table" help:"table, or a SenML pack as json, cbor or xml."`
}

// formats are the ways to write a pack.
var formats = map[string]senml.Format{"json": senml.JSON, "cbor": senml.CBOR, "xml": senml.XML}

func (c avatarHistory) Run(ctx context.Context, s streams) error {
	q := client.HistoryQuery{Property: c.Property}
	var err error
	if q.From, err = parseTime("--from", c.From); err != nil {
		return err
	}
	if q.To, err = parseTime("--to", c.To); err != nil {
		return err
	}
	if c.Limit < 1 {
		return carnet.Errorf(carnet.Malformed, "--limit is %d: want 1 or more", c.Limit)
	}
	cl, _, err := c.find(ctx)
	if err != nil {
		return err
	}
	ms, next, err := c.pages(ctx, cl, q)
	if err != nil {
		return err
	}
	if err := c.show(s, ms); err != nil {
		return err
	}
	if next != nil {
		fmt.Fprintf(s.err, "There is more: go on with --from %s, or raise --limit.\n", next.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// mostOfPage is the API's limit of one page.
const mostOfPage = 50_000

// pages asks for one page after the other until the limit is reached.
func (c avatarHistory) pages(ctx context.Context, cl *client.Client, q client.HistoryQuery) (ms []carnet.Measurement, next *time.Time, err error) {
	for {
		q.Limit = min(c.Limit-len(ms), mostOfPage)
		page, more, err := cl.History(ctx, c.ID, q)
		if err != nil {
			return nil, nil, err
		}
		ms = append(ms, page...)
		if more == nil || len(ms) >= c.Limit {
			return ms, more, nil
		}
		q.From = *more
	}
}

func (c avatarHistory) show(s streams, ms []carnet.Measurement) error {
	if c.Format == "table" {
		if len(ms) == 0 {
			fmt.Fprintln(s.err, "There is no such measurement; see 'carnet avatar list' for properties, and when the newest came.")
		}
		return measurements(ms).write(s.out)
	}
	pack, err := senml.Append(nil, formats[c.Format], ms)
	if err != nil {
		return err
	}
	if c.Format != "cbor" {
		pack = append(pack, '\n')
	}
	_, err = s.out.Write(pack)
	return err
}

func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(fraction) > 9 {
		return time.Time{}, carnet.Errorf(carnet.Malformed, "%s is %q", flag, text).WithFix("write 2026-11-01T10:00:00Z, or seconds since 1970")
	}
	ns, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil {
		return time.Time{}, carnet.Errorf(carnet.Malformed, "%s is %q", flag, text).WithFix("write 2026-11-01T10:00:00Z, or seconds since 1970")
	}
	return time.Unix(seconds, int64(ns)), nil
}

type avatarWatch struct {
	ofAvatar
	After *string `placeholder:"CURSOR" help:"Go on after this cursor; empty for the beginning. Default: what comes from now on."`
	JSON  bool    `help:"As JSON, a line an event, with its cursor."`
}

// Run follows the avatar until it is interrupted, over lost connections.
func (c avatarWatch) Run(ctx context.Context, s streams) error {
	h, err := c.where(ctx)
	if err != nil {
		return err
	}
	after, wait := c.After, firstWait
	for {
		for e, err := range h.cl.Watch(ctx, c.ID, after) {
			switch {
			case ctx.Err() != nil:
				return c.end(s, after)
			case carnet.CodeOf(err) == carnet.Unavailable:
				fmt.Fprintf(s.err, "%s: %s; connecting again in %s, to go on where it was\n", h.at.Name, plain(reasonOf(err)), wait)
			case err != nil:
				return err
			default:
				if err := c.show(s, e); err != nil {
					return err
				}
				after, wait = &e.Cursor, firstWait
			}
		}
		select {
		case <-ctx.Done():
			return c.end(s, after)
		case <-time.After(wait):
			wait = min(2*wait, mostWait)
		}
	}
}

// reasonOf is what an error says without what to do.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*carnet.Error](err); ok {
		return e.Reason
	}
	return err.Error()
}

// How long to wait before connecting again.
const (
	firstWait = 250 * time.Millisecond
	mostWait  = 10 * time.Second
)

// end is a good end: it says where to go on.
func (c avatarWatch) end(s streams, after *string) error {
	if after != nil && *after != "" {
		if isTerminal(s.err) {
			fmt.Fprintln(s.err) // behind the ^C that a terminal shows
		}
		fmt.Fprintf(s.err, "Go on with --after %s\n", *after)
	}
	return nil
}

func (c avatarWatch) show(s streams, e client.Event) error {
	if c.JSON {
		pack, err := senml.Append(nil, senml.JSON, e.Measurements)
		if err != nil {
			return err
		}
		return json.NewEncoder(s.out).Encode(struct {
			Cursor string          `json:"cursor"`
			Pack   json.RawMessage `json:"pack"`
		}{e.Cursor, pack})
	}
	if len(e.Measurements) == 0 { // where it begins
		return nil
	}
	var parts []string
	last := int64(-1)
	for _, m := range e.Measurements {
		part := m.Name + " " + value(m.Value) + unit(m.Unit)
		if m.Time != last {
			part = nanos(m.Time) + " " + part
			last = m.Time
		}
		parts = append(parts, plain(part))
	}
	_, err := fmt.Fprintln(s.out, strings.Join(parts, ", "))
	return err
}
