package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/peering"
)

type peerCommands struct {
	Invite  peerInvite  `cmd:"" help:"Invite another party; the invitation is to be handed over."`
	Accept  peerAccept  `cmd:"" help:"Accept an invitation, bring a message that was carried by hand, or say the words that the other side read out."`
	List    peerList    `cmd:"" help:"The parties' peers."`
	Show    peerShow    `cmd:"" help:"One peer: terms, words to compare, messages, what is to be done."`
	Suspend peerSuspend `cmd:"" help:"Let nothing be done by a peering for now; its connections are closed."`
	Resume  peerResume  `cmd:"" help:"Take a suspension back."`
	Remove  peerRemove  `cmd:"" help:"End a peering for good, or give an exchange up."`
}

// ofParty is what commands about the peers of a party of any role have in common.
type ofParty struct{ reaching }

// client is the way to the party that is meant; of several, --party says which.
func (o ofParty) client() (*client.Client, access.Party, error) {
	f, err := o.file()
	if err != nil {
		return nil, access.Party{}, err
	}
	p, err := o.meant(f)
	if err != nil {
		return nil, p, err
	}
	c, err := o.dial(f, p, administrator)
	return c, p, err
}

// find finds the one party that has a peer of the name.
func (o ofParty) find(ctx context.Context, name carnet.PartyID) (hit[api.Peer], error) {
	return sought[api.Peer]{"peer " + string(name), "carnet peer list", atPeers, func(cl *client.Client) (api.Peer, error) { return cl.Peer(ctx, name) }}.only(o.reaching)
}

type peerInvite struct {
	ofParty
	Name        carnet.PartyID  `arg:"" help:"What this party is to call the other."`
	Scope       []peering.Scope `required:"" placeholder:"SCOPE" help:"What for: r1 (a things agent sends to a world), r2 (a depot keeps objects and statements), r5 (two worlds), r6 (a DPM computes for a world)."`
	Purpose     []string        `placeholder:"WORD" help:"What data may be used for."`
	Sensitivity string          `help:"What may be given at most: public, or personal, health, location joined by +."`
	Residency   []string        `placeholder:"WORD" help:"Where data may be kept. Default: anywhere."`
	For         time.Duration   `placeholder:"DURATION" help:"How long the terms hold: up to two years. Default: a year."`
	Open        time.Duration   `placeholder:"DURATION" help:"How long the invitation may be accepted: up to 168h. Default: 24h."`
	Out         string          `type:"path" placeholder:"FILE" help:"Where to write the invitation, readable by its owner only; left out, to standard output."`
}

func (c peerInvite) Run(ctx context.Context, s streams) error {
	cl, party, err := c.client()
	if err != nil {
		return err
	}
	n := api.NewPeer{Name: c.Name, Scope: c.Scope, Purposes: c.Purpose, Sensitivity: c.Sensitivity, Residency: c.Residency}
	now := time.Now().UTC().Truncate(time.Second)
	if c.For != 0 {
		at := now.Add(c.For)
		n.NotAfter = &at
	}
	if c.Open != 0 {
		at := now.Add(c.Open)
		n.Until = &at
	}
	out, err := openMessage(s, c.Out) // before anything is changed
	if err != nil {
		return err
	}
	p, err := cl.Invite(ctx, n)
	if err != nil {
		return errors.Join(err, out.drop())
	}
	if err := out.write(p.Invitation); err != nil {
		return err
	}
	fmt.Fprintf(s.err, "%s invites %s until %s. Hand the invitation over to its operator, who accepts it:\n  carnet peer accept %s INVITATION-FILE\n",
		party.Name, p.Name, clock(*p.Until), party.Name)
	return nil
}

// message is where a message is written: a file that only its owner reads, or
// standard output.
type message struct {
	file *os.File // nil: standard output
	out  io.Writer
}

// openMessage makes the file, which must not be there; "" is standard output.
func openMessage(s streams, file string) (message, error) {
	if file == "" {
		return message{out: s.out}, nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return message{}, carnet.Errorf(carnet.Conflict, "%s is there already", file).WithFix("name another file with --out")
	}
	if err != nil {
		return message{}, fmt.Errorf("write the message: %w", err)
	}
	return message{f, f}, nil
}

func (m message) write(text string) error {
	_, err := fmt.Fprintln(m.out, text)
	if m.file != nil {
		err = errors.Join(err, m.file.Close())
	}
	return err
}

// drop takes the file away again.
func (m message) drop() error {
	if m.file == nil {
		return nil
	}
	return errors.Join(m.file.Close(), os.Remove(m.file.Name()))
}

// writeMessage writes what there is already.
func writeMessage(s streams, file, text string) error {
	m, err := openMessage(s, file)
	if err != nil {
		return err
	}
	return m.write(text)
}

type peerAccept struct {
	ofParty
	Name         carnet.PartyID `arg:"" help:"What this party calls the other, or is to call it."`
	Invitation   string         `arg:"" optional:"" placeholder:"FILE" help:"The invitation, as a file; - for standard input."`
	Acceptance   string         `placeholder:"FILE" help:"The other side's acceptance of this party's invitation."`
	Confirmation string         `placeholder:"FILE" help:"The other side's confirmation of this party's acceptance."`
	Words        string         `placeholder:"\"AAAA BBBB …\"" help:"The words that the other side's operator read out to you."`
	Out          string         `type:"path" placeholder:"FILE" help:"Where to write this side's answer, where it is carried by hand."`
	JSON         bool           `help:"As JSON."`
}

func (c peerAccept) Run(ctx context.Context, s streams) error {
	given := 0
	for _, v := range []string{c.Invitation, c.Acceptance, c.Confirmation, c.Words} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return carnet.Errorf(carnet.Malformed, "say what is accepted").WithFix("name an invitation's file, or one of --words, --acceptance and --confirmation")
	}
	cl, err := c.party(ctx)
	if err != nil {
		return err
	}
	out, err := openMessage(s, c.Out) // before anything is changed
	if err != nil {
		return err
	}
	var p api.Peer
	switch {
	case c.Words != "":
		p, err = cl.CompareWords(ctx, c.Name, c.Words)
	default:
		p, err = c.carry(ctx, s, cl)
	}
	if err != nil {
		return errors.Join(err, out.drop())
	}
	if c.Out != "" {
		if err := c.answer(out, p); err != nil {
			return err
		}
	}
	return showPeer(s, p, c.JSON)
}

// party is the way to the party that accepts; what goes on with an exchange names itself.
func (c peerAccept) party(ctx context.Context) (*client.Client, error) {
	if c.Invitation != "" || c.Party != "" {
		cl, _, err := c.client()
		return cl, err
	}
	h, err := c.find(ctx, c.Name)
	return h.cl, err
}

// answer writes what this side says.
func (c peerAccept) answer(out message, p api.Peer) error {
	text := p.Acceptance
	if p.Inviter {
		text = p.Confirmation
	}
	if text == "" {
		return errors.Join(carnet.Errorf(carnet.NotFound, "%s has nothing to say yet", c.Name).WithFix("compare the words first"), out.drop())
	}
	return out.write(text)
}

// carry brings the message in a file.
func (c peerAccept) carry(ctx context.Context, s streams, cl *client.Client) (api.Peer, error) {
	data, err := readDocument(s, c.Invitation+c.Acceptance+c.Confirmation)
	if err != nil {
		return api.Peer{}, fmt.Errorf("read the message: %w", err)
	}
	message := strings.TrimSpace(string(data))
	switch {
	case c.Acceptance != "":
		return cl.TakeAcceptance(ctx, c.Name, message)
	case c.Confirmation != "":
		return cl.TakeConfirmation(ctx, c.Name, message)
	}
	return cl.AcceptInvitation(ctx, c.Name, message)
}

type peerList struct {
	ofParty
	JSON bool `help:"As JSON."`
}

func (c peerList) Run(ctx context.Context, s streams) error {
	peers := []peerOf{}
	err := c.each(s, atPeers, func(at access.Party, cl *client.Client) error {
		list, err := cl.Peers(ctx)
		for _, p := range list {
			peers = append(peers, peerOf{at.Name, p})
		}
		return err
	})
	return answered(s, c.JSON, peers, err, func() error {
		t := table{{"PEER", "PARTY", "ROLE", "STATE", "SINCE", "SCOPE", "PURPOSES", "SENSITIVITY", "UNTIL", "TROUBLE"}}
		for _, p := range peers {
			t.add(string(p.Name), string(p.Of), string(p.Role), string(p.State), clock(p.Since), strings.Join(p.Scope, " "), strings.Join(p.Purposes, " "), p.Sensitivity, clock(p.NotAfter), p.Trouble)
		}
		return t.list(s, "There are no peers.")
	})
}

// peerOf is a peer with the party that was asked, which has it.
type peerOf struct {
	Of carnet.PartyID `json:"of"`
	api.Peer
}

// named is what commands about one peer have in common.
type named struct {
	ofParty
	Name carnet.PartyID `arg:"" help:"What this party calls the peer."`
	JSON bool           `help:"As JSON."`
}

func (c named) do(ctx context.Context, s streams, do func(*client.Client) (api.Peer, error)) error {
	h, err := c.find(ctx, c.Name)
	if err != nil {
		return err
	}
	p, err := do(h.cl)
	if err != nil {
		return err
	}
	return showPeer(s, p, c.JSON)
}

type peerShow struct {
	named
	Message bool   `help:"Write this side's message alone, to be carried by hand."`
	Out     string `type:"path" placeholder:"FILE" help:"With --message: the file to write it to."`
}

func (c peerShow) Run(ctx context.Context, s streams) error {
	if !c.Message {
		return c.do(ctx, s, func(cl *client.Client) (api.Peer, error) { return cl.Peer(ctx, c.Name) })
	}
	h, err := c.find(ctx, c.Name)
	if err != nil {
		return err
	}
	p := h.is
	for _, message := range []string{p.Confirmation, p.Acceptance, p.Invitation} {
		if message != "" {
			return writeMessage(s, c.Out, message)
		}
	}
	return carnet.Errorf(carnet.NotFound, "this side has nothing to say to %s", c.Name).WithFix("see what is to be done: carnet peer show %s", c.Name)
}

type peerSuspend struct{ named }

func (c peerSuspend) Run(ctx context.Context, s streams) error {
	return c.do(ctx, s, func(cl *client.Client) (api.Peer, error) { return cl.SuspendPeer(ctx, c.Name) })
}

type peerResume struct{ named }

func (c peerResume) Run(ctx context.Context, s streams) error {
	return c.do(ctx, s, func(cl *client.Client) (api.Peer, error) { return cl.ResumePeer(ctx, c.Name) })
}

// showPeer shows a peering for people.
func showPeer(s streams, p api.Peer, asJSON bool) error {
	if asJSON {
		return writeJSON(s.out, p)
	}
	if p.State == peering.Gone {
		_, err := fmt.Fprintf(s.out, "There is no peering with %s any more.\n", plain(string(p.Name)))
		return err
	}
	fmt.Fprintf(s.out, "%s: %s since %s\n", plain(string(p.Name)), p.State, clock(p.Since))
	for _, line := range [][2]string{
		{"role", string(p.Role)}, {"calls itself", string(p.Party)}, {"scope", strings.Join(p.Scope, " ")}, {"purposes", strings.Join(p.Purposes, " ")},
		{"sensitivity", p.Sensitivity}, {"residency", strings.Join(p.Residency, " ")}, {"until", clock(p.NotAfter)}, {"words", p.Words},
		{"next", p.Next}, {"trouble", p.Trouble},
	} {
		if line[1] != "" {
			fmt.Fprintf(s.out, "  %-13s %s\n", line[0], plain(line[1]))
		}
	}
	return nil
}
