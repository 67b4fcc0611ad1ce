package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/identity"
	"carnet/owner"
	"carnet/policy"
)

type ownerPolicy struct {
	Set  ownerPolicySet  `cmd:"" help:"Sign what may be done with an avatar of yours, and hand it to its world."`
	Show ownerPolicyShow `cmd:"" help:"What you let be done with an avatar: as its world has it."`

	Signed ownerPolicySigned `cmd:"" help:"Write out what you signed last of an avatar: for a passport of a world that is gone (carnet avatar import --policy)."`
}

type ownerPolicySigned struct {
	ID carnet.AvatarID `arg:"" help:"The avatar, as its world calls it."`
	keystore
	Out string `required:"" type:"path" placeholder:"FILE" help:"Where to write it."`
}

func (c ownerPolicySigned) Run(s streams) error {
	k, err := c.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	p, err := k.Policy(c.ID)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Out, []byte(p.Signed+"\n"), 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Wrote version %d of the policy of %s to %s.\n", p.Said.Version, c.ID, plain(c.Out))
	return err
}

type ownerPolicySet struct {
	ofAvatar
	keystore
	File    string `arg:"" optional:"" help:"The document (docs/design/avatar-policy.md); - for standard input. Left out: hand in again what was signed last."`
	Version uint64 `placeholder:"N" help:"Sign this version. Default: the one after the last that the keystore has signed."`
	Yes     bool   `help:"Don't ask. For scripts that have read the document."`
	JSON    bool   `help:"As JSON."`
}

func (c ownerPolicySet) Run(ctx context.Context, s streams) error {
	if c.File == "-" && !c.Yes {
		return carnet.Errorf(carnet.Malformed, "the document comes from standard input, so nobody can answer there").WithFix("name its file, or add --yes once you have read it")
	}
	k, err := c.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	cl, known := c.way(ctx)
	p, err := c.signed(s, k, known)
	if err != nil {
		return err
	}
	if cl == nil { // its world needn't let its bearer see the avatar
		if c.Party == "" {
			c.Party = p.World
		}
		if cl, err = c.world(); err != nil {
			return notHandedIn(p, err)
		}
	}
	has, err := cl.SetAvatarPolicy(ctx, c.ID, p.Signed)
	if err != nil {
		return notHandedIn(p, err)
	}
	if c.JSON {
		return writeJSON(s.out, has)
	}
	_, err = fmt.Fprintf(s.out, "Version %d of the policy is in force at %s. What it forbids has ended there, or ends now.\n", has.Version, p.World)
	return err
}

func notHandedIn(p owner.Policy, err error) error {
	return fmt.Errorf("version %d of the policy is signed, and %s doesn't have it ('carnet owner policy set %s', without a file, hands it in again): %w", p.Said.Version, p.World, p.Said.Avatar, err)
}

// way is the way to the world that has the avatar, and the parties that it knows; nil
// where nobody here may ask.
func (c ownerPolicySet) way(ctx context.Context) (*client.Client, []api.KnownParty) {
	cl, _, err := c.find(ctx)
	if err != nil {
		return nil, nil
	}
	p, err := cl.AvatarPolicy(ctx, c.ID)
	if err != nil {
		return nil, nil
	}
	return cl, p.Known
}

// signed is what is to be handed in: what the owner says yes to, or what they signed
// last.
func (c ownerPolicySet) signed(s streams, k *owner.Keystore, known []api.KnownParty) (p owner.Policy, err error) {
	if c.File == "" {
		return k.Policy(c.ID)
	}
	data, err := readDocument(s, c.File)
	if err != nil {
		return p, fmt.Errorf("read the policy: %w", err)
	}
	bounds, err := policy.ReadBounds(data, func(name string) string {
		if i := slices.IndexFunc(known, func(k api.KnownParty) bool { return string(k.Name) == name }); i >= 0 {
			return known[i].Key
		}
		return ""
	})
	if err != nil {
		return p, err
	}
	document, err := bounds.Document()
	if err != nil {
		return p, err
	}
	fmt.Fprintf(s.err, "What may be done with your avatar %s, from now on:\n", c.ID)
	for _, line := range bounds.Explain(nameIn(known)) {
		fmt.Fprintf(s.err, "  %s\n", plain(line))
	}
	if err := confirm(s, c.Yes, "Sign it"); err != nil {
		return p, err
	}
	return k.SignPolicy(c.ID, document, c.Version, time.Now())
}

// nameIn says what a world calls a party.
func nameIn(known []api.KnownParty) func(string) string {
	return func(did string) string {
		if i := slices.IndexFunc(known, func(k api.KnownParty) bool { return k.Key == did }); i >= 0 {
			return string(known[i].Name)
		}
		return ""
	}
}

type ownerPolicyShow struct {
	ofAvatar
	Keystore string `type:"path" placeholder:"FILE" help:"Say, too, whether it is what this keystore has signed last."`
	passphrase
	JSON bool `help:"As JSON."`
}

func (c ownerPolicyShow) Run(ctx context.Context, s streams) error {
	cl, _, err := c.find(ctx)
	if err != nil {
		return err
	}
	p, err := cl.AvatarPolicy(ctx, c.ID)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, p)
	}
	writePolicy(s, p)
	for _, k := range p.Known {
		fmt.Fprintf(s.out, "  %s %s: %s\n", k.Role, k.Name, k.Key)
	}
	if c.Keystore == "" {
		return nil
	}
	return c.compare(s, p)
}

// writePolicy says what an owner lets be done.
func writePolicy(s streams, p api.AvatarPolicy) {
	if p.Version == 0 {
		fmt.Fprintln(s.out, "It has no policy: nothing is bounded by its owner.")
		return
	}
	fmt.Fprintf(s.out, "Its owner's policy, version %d, signed %s:\n", p.Version, moment(p.Made))
	for _, line := range p.Means {
		fmt.Fprintf(s.out, "  %s\n", plain(line))
	}
}

// compare says whether the world has what was signed last.
func (c ownerPolicyShow) compare(s streams, p api.AvatarPolicy) error {
	k, err := keystore{c.Keystore, c.passphrase}.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	last, err := k.Policy(c.ID)
	switch {
	case carnet.CodeOf(err) == carnet.NotFound && p.Version == 0:
		return nil
	case err != nil:
		return err
	case last.Said.Version > p.Version:
		return carnet.Errorf(carnet.Conflict, "you have signed version %d, and the world has version %d: it may have been restored from an older copy", last.Said.Version, p.Version).
			WithFix("hand it in: carnet owner policy set %s --keystore FILE", c.ID)
	case last.Signed != p.Signed:
		return carnet.Errorf(carnet.Conflict, "the world has version %d, which isn't what this keystore signed last (version %d)", p.Version, last.Said.Version).
			WithFix("if another copy of the keystore signed it, use that one")
	}
	_, err = fmt.Fprintln(s.out, "That is what this keystore has signed last.")
	return err
}

// policyLines say what a policy that goes along with a move means.
func policyLines(s streams, signed, to string) error {
	if signed == "" {
		return nil
	}
	said, err := identity.OpenAvatarPolicy(signed)
	if err != nil {
		return err
	}
	bounds, err := policy.ParseBounds(said.Policy)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.err, "Your policy of it, version %d, goes along, and binds %s:\n", said.Version, to)
	for _, line := range bounds.Explain(nil) {
		fmt.Fprintf(s.err, "  %s\n", plain(line))
	}
	return nil
}
