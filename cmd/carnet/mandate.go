package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/identity"
	"carnet/owner"
	"carnet/policy"

	"golang.org/x/term"
)

// world is the way to the world that is meant, to hand in what proves itself.
func (r reaching) world() (*client.Client, error) {
	return r.one(identity.World, administrator, service, ownUser)
}

type ownerRequests struct {
	reaching
	ID      carnet.AvatarID `arg:"" help:"The avatar: of the world that asks, or the one that it is about."`
	Request string          `name:"id" placeholder:"ID" help:"Write this request alone, as carnet owner approve reads it."`
	JSON    bool            `help:"As JSON."`
}

// requestOf is a request with the world that asks, and what it asks for.
type requestOf struct {
	Party carnet.PartyID `json:"party"`
	api.MandateRequest
	asked identity.MandateRequest
}

func (c ownerRequests) Run(ctx context.Context, s streams) error {
	all, err := c.requests(ctx, s)
	if c.Request != "" {
		i := slices.IndexFunc(all, func(r requestOf) bool { return r.ID == c.Request })
		if i < 0 && err != nil {
			return err
		}
		if i < 0 {
			return carnet.Errorf(carnet.NotFound, "the avatar has no request %.40q", c.Request).WithFix("leave --id out to list them")
		}
		_, err := fmt.Fprintf(s.out, "%s\n", all[i].Request)
		return err
	}
	return answered(s, c.JSON, all, err, func() error { return listRequests(s, all) })
}

func listRequests(s streams, all []requestOf) error {
	t := table{{"REQUEST", "ASKED", "BY", "FOR", "WORLD", "ABOUT", "ACTIONS", "PURPOSE", "GIVEN UNTIL", "TEXT"}}
	for _, r := range all {
		t.add(r.ID, clock(r.Made), string(r.Party), r.Avatar.String(), string(r.asked.Audience), r.asked.Avatar.String(), actionsOf(r.asked.MandateTerms), r.asked.Purpose, moment(r.Expires), r.asked.Text)
	}
	return t.list(s, "Nobody has asked its owner for anything.")
}

// requests are those for the avatar, at the world that has it, and those about it, at the
// worlds whose avatars are to be permitted something.
func (c ownerRequests) requests(ctx context.Context, s streams) ([]requestOf, error) {
	all, has := []requestOf{}, []carnet.PartyID{}
	err := c.each(s, atSeenAvatars, func(w access.Party, cl *client.Client) error {
		own, err := c.at(ctx, cl, c.ID)
		switch carnet.CodeOf(err) {
		case carnet.NotFound:
		case "":
			if err != nil {
				return err
			}
			has = append(has, w.Name)
		default:
			return err
		}
		about, err := c.about(ctx, s, w.Name, cl)
		for _, r := range append(own, about...) {
			r.Party = w.Name
			all = append(all, r)
		}
		return err
	})
	if err == nil && len(has) == 0 && len(all) == 0 {
		err = carnet.Errorf(carnet.NotFound, "no world here has an avatar %s, or asks for anything about it", c.ID).WithFix("see: carnet avatar list")
	}
	return all, err
}

// at are the requests for one avatar of a world.
func (c ownerRequests) at(ctx context.Context, cl *client.Client, avatar carnet.AvatarID) (all []requestOf, err error) {
	list, err := cl.Mandates(ctx, avatar)
	for _, r := range list {
		asked, err := identity.ParseMandateRequest(r.Request)
		if err != nil {
			return nil, err
		}
		all = append(all, requestOf{MandateRequest: r, asked: asked})
	}
	return all, err
}

// mostLookedThrough is of how many avatars the requests of a world are looked through.
const mostLookedThrough = 1000

// about are a world's requests for its own avatars that are about this one elsewhere. Who
// may not list the world's avatars isn't told of any.
func (c ownerRequests) about(ctx context.Context, s streams, world carnet.PartyID, cl *client.Client) (about []requestOf, err error) {
	avatars, err := cl.Avatars(ctx)
	switch {
	case carnet.CodeOf(err) == carnet.Forbidden || carnet.CodeOf(err) == carnet.NotFound:
		return nil, nil
	case err != nil:
		return nil, err
	case len(avatars) > mostLookedThrough:
		fmt.Fprintf(s.err, "%s has %d avatars: name the one that asks, to see what it asks for.\n", world, len(avatars))
		return nil, nil
	}
	for _, v := range avatars {
		if v.ID == c.ID {
			continue
		}
		all, err := c.at(ctx, cl, v.ID)
		if err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return nil, err
		}
		for _, r := range all {
			if r.asked.Avatar == c.ID {
				about = append(about, r)
			}
		}
	}
	return about, nil
}

func actionsOf(t identity.MandateTerms) string {
	var names []string
	for _, a := range t.Actions {
		names = append(names, string(a))
	}
	return strings.Join(names, " ")
}

type ownerApprove struct {
	reaching
	keystore
	Request string        `arg:"" optional:"" help:"The request's file; - for standard input."`
	Renew   string        `placeholder:"ID" help:"Instead of a request: sign the same again as this mandate said."`
	For     time.Duration `default:"24h" help:"How long it is to hold: at most 24h."`

	Passport string `type:"existingdir" placeholder:"DIR" help:"Of a recovery: the passport, whose keys are sealed anew to the world that asks."`

	Yes  bool `help:"Don't ask. For scripts that have read the request."`
	JSON bool `help:"As JSON."`
}

func (c ownerApprove) Run(ctx context.Context, s streams) error {
	switch {
	case (c.Request == "") == (c.Renew == ""):
		return carnet.Errorf(carnet.Malformed, "a request or --renew is wanted, and not both").WithFix("carnet owner approve FILE --keystore FILE")
	case c.For > identity.MandateLife || c.For < time.Second:
		return carnet.Errorf(carnet.Malformed, "a mandate of %v can't be signed", c.For).WithFix("name at least 1s and at most %v: --for 24h", identity.MandateLife)
	case c.Request == "-" && !c.Yes:
		return carnet.Errorf(carnet.Malformed, "the request comes from standard input, so nobody can answer there").WithFix("name its file, or add --yes once you have read it")
	}
	k, err := c.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	data, err := c.document(s)
	if err != nil {
		return err
	}
	if identity.IsRecoveryRequest(data) {
		return c.approveRecovery(ctx, s, k, data)
	}
	if identity.IsMoveRequest(data) {
		return c.approveMove(ctx, s, k, data)
	}
	if identity.IsErasureRequest(data) {
		return c.approveErasure(ctx, s, k, data)
	}
	r, err := c.request(k, data)
	if err != nil {
		return err
	}
	if err := k.Knows(r.MandateTerms); err != nil {
		return err
	}
	if err := c.ask(s, r); err != nil {
		return err
	}
	m, err := k.Approve(r, time.Now(), c.For)
	if err != nil {
		return err
	}
	return c.handOver(ctx, s, m)
}

// document reads the request's file, if there is one.
func (c ownerApprove) document(s streams) ([]byte, error) {
	if c.Request == "" {
		return nil, nil
	}
	data, err := readDocument(s, c.Request)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	return data, nil
}

// request is what is to be signed.
func (c ownerApprove) request(k *owner.Keystore, data []byte) (identity.MandateRequest, error) {
	if c.Renew != "" {
		m, err := k.Mandate(c.Renew)
		if err != nil {
			return identity.MandateRequest{}, err
		}
		if m.Withdrawn {
			return identity.MandateRequest{}, carnet.Errorf(carnet.Conflict, "the mandate %s was withdrawn", m.ID).WithFix("to permit it again, approve its request")
		}
		return identity.MandateRequest{MandateTerms: m.MandateTerms, Text: m.Text}, nil
	}
	return identity.ParseMandateRequest(data)
}

// ask shows what signing means, and wants a yes.
func (c ownerApprove) ask(s streams, r identity.MandateRequest) error {
	for _, line := range r.Explain() {
		fmt.Fprintln(s.err, plain(line))
	}
	fmt.Fprintf(s.err, "It holds for %v from now on, or until you withdraw it.\nThey write, and nobody has checked it: %q\n", c.For, r.Text)
	return confirm(s, c.Yes, "Sign it")
}

// unchecked shows an owner what whoever asks writes of it: in quotes, and before what
// signing means, so that it can't pass for that, or push it out of sight.
func unchecked(s streams, by string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(s.err, "%s writes, and nobody has checked it:\n", by)
	for _, line := range lines {
		fmt.Fprintf(s.err, "  %q\n", line)
	}
}

// checkView refuses a request with a view that the things agent wouldn't take: it is shown
// as it is.
func checkView(view json.RawMessage) error {
	if len(view) == 0 {
		return nil
	}
	if _, err := policy.ParseView(view); err != nil {
		return fmt.Errorf("the request has a view that can't be: %w", err)
	}
	return nil
}

// confirm asks whether to do it, unless that was said before.
func confirm(s streams, yes bool, what string) error {
	said, err := saysYes(s, yes, what)
	if err == nil && !said {
		err = carnet.Errorf(carnet.Forbidden, "nothing is signed").WithFix("type yes to sign, or add --yes")
	}
	return err
}

// saysYes asks whether to do something, unless that was said before.
func saysYes(s streams, yes bool, what string) (bool, error) {
	if yes {
		return true, nil
	}
	fmt.Fprintf(s.err, "%s? Type yes: ", what)
	answer, err := bufio.NewReader(io.LimitReader(s.in, 100)).ReadString('\n')
	if in, isFile := s.in.(*os.File); !isFile || !term.IsTerminal(int(in.Fd())) {
		fmt.Fprintln(s.err) // nobody's Return has ended the line
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	return strings.TrimSpace(answer) == "yes", nil
}

// signed is a mandate of a keystore's, for programs.
type signed struct {
	ID           string            `json:"id"`
	World        carnet.PartyID    `json:"world"`
	Avatar       carnet.AvatarID   `json:"avatar"`
	Subject      string            `json:"subject"`  // did:key of who may act
	Platform     string            `json:"platform"` // and of the world through which
	Actions      []identity.Action `json:"actions"`
	Purpose      string            `json:"purpose"`
	Issued       time.Time         `json:"issued"`
	Expires      time.Time         `json:"expires"`
	Text         string            `json:"text"`
	Withdrawn    bool              `json:"withdrawn"`
	Acknowledged bool              `json:"acknowledged"` // the world knows of the withdrawal
	Mandate      string            `json:"mandate"`      // the JWS
}

func shownMandate(m owner.Mandate) signed {
	return signed{
		m.ID, m.Audience, m.Avatar, identity.DID(m.Subject), identity.DID(m.Platform), m.Actions, m.Purpose, m.Issued, m.Expires, m.Text,
		m.Withdrawn, m.Acknowledged, m.Token,
	}
}

// handOver gives the mandate to the world that asked, if it is named; else it is
// shown, to be carried there.
func (c ownerApprove) handOver(ctx context.Context, s streams, m owner.Mandate) error {
	if c.Party != "" {
		cl, err := c.world()
		if err == nil {
			_, err = cl.GiveMandate(ctx, m.Token)
		}
		if err != nil {
			return fmt.Errorf("the mandate %s is signed, and %s doesn't have it yet (--renew signs it again): %w", m.ID, c.Party, err)
		}
	}
	switch {
	case c.JSON:
		return writeJSON(s.out, shownMandate(m))
	case c.Party == "":
		fmt.Fprintln(s.out, m.Token)
		_, err := fmt.Fprintf(s.err, "Signed the mandate %s, good until %s. Hand it over to the world that asked: carnet owner hand-over FILE --party WORLD\n", m.ID, clock(m.Expires))
		return err
	}
	_, err := fmt.Fprintf(s.out, "Signed the mandate %s, good until %s; %s has it.\n", m.ID, clock(m.Expires), c.Party)
	return err
}

type ownerHandOver struct {
	reaching
	Mandate string `arg:"" help:"The file with the mandate, as carnet owner approve wrote it; - for standard input."`
	JSON    bool   `help:"As JSON."`
}

// Run gives a signed mandate to the world that asked for it: its owner, or whom the
// owner gave it to. It needs no keystore.
func (c ownerHandOver) Run(ctx context.Context, s streams) error {
	data, err := readDocument(s, c.Mandate)
	if err != nil {
		return fmt.Errorf("read the mandate: %w", err)
	}
	mandate := strings.TrimSpace(string(data))
	if strings.Count(mandate, ".") != 2 || strings.ContainsAny(mandate, " \t\n{") {
		return carnet.Errorf(carnet.Malformed, "%s holds no mandate", c.Mandate).WithFix("give what 'carnet owner approve' wrote to standard output")
	}
	cl, err := c.world()
	if err != nil {
		return err
	}
	r, err := cl.GiveMandate(ctx, mandate)
	if err != nil || c.JSON {
		return orJSON(s, r, err)
	}
	_, err = fmt.Fprintf(s.out, "%s has the mandate for its request %s, good until %s.\n", cmp.Or(string(c.Party), "The world"), r.ID, moment(r.Expires))
	return err
}

type ownerMandates struct {
	keystore
	All  bool `help:"Also those that are over or withdrawn."`
	JSON bool `help:"As JSON."`
}

func (c ownerMandates) Run(s streams) error {
	k, err := c.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	all, err := k.Mandates()
	if err != nil {
		return err
	}
	now := time.Now()
	listed := []signed{}
	t := table{{"MANDATE", "WORLD", "AVATAR", "ACTIONS", "PURPOSE", "UNTIL", ""}}
	for _, m := range all {
		if !c.All && !m.Live(now) && (!m.Withdrawn || m.Acknowledged) {
			continue
		}
		listed = append(listed, shownMandate(m))
		t.add(strings.TrimPrefix(m.ID, "urn:uuid:"), string(m.Audience), m.Avatar.String(), actionsOf(m.MandateTerms), m.Purpose, clock(m.Expires), fate(m, now))
	}
	if c.JSON {
		return writeJSON(s.out, listed)
	}
	return t.list(s, "No mandate is in force, and no withdrawal is waited for.")
}

// fate says what became of a mandate, if it isn't in force.
func fate(m owner.Mandate, now time.Time) string {
	switch {
	case m.Withdrawn && m.Acknowledged:
		return "withdrawn"
	case m.Withdrawn:
		return fmt.Sprintf("withdrawn, and %s doesn't know yet: carnet owner withdraw", m.Audience)
	case !m.Live(now):
		return "over"
	}
	return ""
}

type ownerWithdraw struct {
	reaching
	keystore
	ID   string        `arg:"" optional:"" help:"The mandate, or the first digits of its id. Left out: hand over what was withdrawn and isn't acknowledged yet."`
	Wait time.Duration `help:"Give up after this time; what isn't acknowledged is handed over by the next carnet owner withdraw. Default: try until it is."`
}

func (c ownerWithdraw) Run(ctx context.Context, s streams) error {
	k, err := c.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	if c.ID != "" {
		w, err := k.Withdraw(c.ID, time.Now())
		if err != nil {
			return err
		}
		if w.Acknowledged {
			_, err := fmt.Fprintf(s.out, "%s knows already that %s is withdrawn.\n", w.World, w.Mandate)
			return err
		}
	}
	open := k.Unacknowledged(time.Now())
	if len(open) == 0 {
		_, err := fmt.Fprintln(s.out, "Every withdrawal is acknowledged.")
		return err
	}
	if c.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Wait)
		defer cancel()
	}
	for _, w := range open {
		if err := c.tell(ctx, s, k, w); err != nil {
			return fmt.Errorf("%s is withdrawn, and %s hasn't acknowledged it (carnet owner withdraw goes on): %w", w.Mandate, w.World, err)
		}
	}
	return nil
}

// The time between two attempts to reach a world.
const (
	firstPause = 250 * time.Millisecond
	longPause  = 10 * time.Second
)

// tell hands a withdrawal to its world, again and again while that can't be
// reached, until it is on disk there.
func (c ownerWithdraw) tell(ctx context.Context, s streams, k *owner.Keystore, w owner.Withdrawal) error {
	if c.Party == "" {
		c.Party = w.World
	}
	cl, err := c.world()
	if err != nil {
		return err
	}
	kept := false
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		var err error
		kept, err = cl.Withdraw(ctx, w.Avatar, w.Token)
		if err == nil {
			break
		}
		if code := carnet.CodeOf(err); code != carnet.Unavailable && code != carnet.NoSpace || ctx.Err() != nil {
			return err
		}
		if pause == firstPause {
			fmt.Fprintf(s.err, "%s: %s; trying on\n", w.World, plain(err.Error()))
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
	if err := k.Acknowledge(w.Mandate); err != nil {
		return err
	}
	if !kept {
		_, err = fmt.Fprintf(s.out, "%s is over by itself: %s keeps no withdrawal of it.\n", w.Mandate, w.World)
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s is withdrawn: %s lets nothing more be done by it.\n", w.Mandate, w.World)
	return err
}

type avatarRequest struct {
	reaching
	ID          carnet.AvatarID `arg:"" help:"The avatar of this world that is to act elsewhere."`
	World       carnet.PartyID  `required:"" help:"The world where it is to act, as that calls itself."`
	About       carnet.AvatarID `required:"" placeholder:"ID" help:"The avatar there."`
	Action      []string        `required:"" enum:"read,subscribe,move" help:"What it is to be permitted: read, subscribe, move. May be given several times."`
	Purpose     string          `required:"" placeholder:"WORD" help:"What for."`
	Sensitivity string          `required:"" help:"The most that may flow: public, or personal, health, location, joined by +."`
	Residency   []string        `placeholder:"WORD" help:"Where it may be kept."`
	Text        string          `required:"" help:"What it is for, for the owner: one line."`
	JSON        bool            `help:"As JSON."`
}

func (c avatarRequest) Run(ctx context.Context, s streams) error {
	cl, _, err := c.worldOf(ctx, c.ID, administrator)
	if err != nil {
		return err
	}
	n := api.NewMandate{
		World: c.World, Avatar: c.About, Purpose: c.Purpose, Sensitivity: c.Sensitivity, Residency: c.Residency, Text: c.Text,
	}
	for _, a := range c.Action {
		n.Actions = append(n.Actions, identity.Action(a))
	}
	r, err := cl.AskMandate(ctx, c.ID, n)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, r)
	}
	fmt.Fprintf(s.out, "%s\n", r.Request)
	_, err = fmt.Fprintf(s.err, "Request %s: give it to the avatar's owner, who reads it with carnet owner approve.\n", r.ID)
	return err
}
