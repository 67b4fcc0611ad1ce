package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/evidence"
	"carnet/identity"
	"carnet/owner"
	"carnet/passport"
	"carnet/policy"
)

type avatarExport struct {
	ofAvatar
	To       string   `required:"" type:"path" placeholder:"DIR" help:"Where the passport's directory is made."`
	For      []string `type:"existingfile" placeholder:"KEYFILE" help:"Seal the keys to this reception key: what 'carnet owner keystore reception' or 'carnet avatar announcement' wrote. May be given several times. Without it the passport has no keys, and opens nothing."`
	Farewell bool     `help:"The world closes for good: the avatar keeps still from now on, and its owner needn't wait to recover it elsewhere. There is no way back."`
	JSON     bool     `help:"As JSON."`
}

func (c avatarExport) Run(ctx context.Context, s streams) error {
	n := api.NewPassport{Farewell: c.Farewell}
	for _, path := range c.For {
		announcement, err := readDocument(s, path)
		if err != nil {
			return fmt.Errorf("read the reception key: %w", err)
		}
		n.For = append(n.For, announcement)
	}
	world, _, err := c.find(ctx)
	if err != nil {
		return err
	}
	dir, r, err := fetchPassport(ctx, world, c.ID, n, c.To)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, verified{dir, r})
	}
	keys := "It has no keys: it proves what it holds, and opens nothing. Name a reception key with --for to be able to recover the avatar by it."
	if len(n.For) > 0 {
		keys = fmt.Sprintf("It has keys, in %d bags. Keep it as you would keep the data.", r.Passport.Bags)
	}
	_, err = fmt.Fprintf(s.out, "%s\n%d measurements in %d batches. %s\nVerify: carnet verify %s\n", plain(dir), r.Counts.Measurements, r.Counts.Batches, keys, plain(dir))
	return err
}

// fetchPassport has a world make a passport, and sees that it holds together.
func fetchPassport(ctx context.Context, world *client.Client, id carnet.AvatarID, n api.NewPassport, to string) (dir string, r *evidence.Report, err error) {
	if dir, err = world.Passport(ctx, id, n, to); err != nil {
		return "", nil, err
	}
	if r, err = passport.Verify(ctx, dir, nil); err != nil {
		return "", nil, err
	}
	if r.Verdict == evidence.False {
		return "", nil, carnet.Errorf(carnet.Tampered, "the passport in %s doesn't hold together: %s", dir, r.Findings[0]).WithFix("carnet verify %s, and ask the world's operator", dir)
	}
	return dir, r, nil
}

type avatarAnnouncement struct {
	reaching
	Out string `required:"" type:"path" placeholder:"FILE" help:"Where to write it."`
}

func (c avatarAnnouncement) Run(ctx context.Context, s streams) error {
	world, err := c.world()
	if err != nil {
		return err
	}
	announcement, err := world.Reception(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Out, announcement, 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Wrote the world's reception key, which is good for a day, to %s.\n", plain(c.Out))
	return err
}

type avatarImport struct {
	reaching
	Passport string            `arg:"" type:"existingdir" help:"The passport's directory."`
	To       carnet.PartyID    `required:"" placeholder:"WORLD" help:"Where the avatar is to live."`
	Policy   string            `type:"existingfile" placeholder:"FILE" help:"The avatar's policy, newer than the passport's (carnet owner policy signed)."`
	View     string            `type:"existingfile" placeholder:"FILE" help:"A view document: what its things may send there. Default: what they sent before."`
	Request  string            `placeholder:"FILE" help:"Write what the owner is to approve to this file. Default: RECOVERY.json"`
	Resume   carnet.CrossingID `placeholder:"RECOVERY" help:"Go on with an import that was interrupted, or have the request written anew."`
	JSON     bool              `help:"As JSON."`
}

func (c avatarImport) Run(ctx context.Context, s streams) error {
	p, err := passport.Open(c.Passport)
	if err != nil {
		return err
	}
	target, err := c.at(c.To, administrator)
	if err != nil {
		return err
	}
	x, err := c.begin(ctx, s, target, p)
	if err != nil {
		return fmt.Errorf("%s: %w", c.To, err)
	}
	if err := handIn(ctx, s, target, x.ID, p); err != nil {
		return fmt.Errorf("%s has not everything yet (--resume %s goes on): %w", c.To, x.ID, err)
	}
	file := cmp.Or(c.Request, x.ID.String()+".json")
	if err := os.WriteFile(file, x.Request, 0o600); err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, x)
	}
	r, _, err := identity.ParseRecoveryRequest(x.Request)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "Recovery %s: %s has what the passport holds, as avatar %s.\n", x.ID, c.To, x.Ours)
	for _, line := range r.Report {
		fmt.Fprintf(s.out, "  %s\n", plain(line))
	}
	for _, i := range x.Items {
		fmt.Fprintf(s.out, "  The item %s %q comes along, as %s.\n", i.ID, plain(i.Title), i.As)
	}
	if err := grantLines(s.out, p); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Its owner orders it, within a day:\n  carnet owner approve %s --passport %s --keystore FILE --party %s\n", file, plain(c.Passport), c.To)
	return err
}

// grantLines list the grants that were in force, for the owner to give again: they name
// principals of the world that is gone.
func grantLines(w io.Writer, p *passport.Passport) error {
	all, err := p.Grants()
	if err != nil || len(all) == 0 {
		return err
	}
	fmt.Fprintf(w, "These grants were in force and don't come along, for they name principals of %s; give again what is still wanted (carnet grant give):\n", p.Head.World.Party)
	for _, g := range all {
		fmt.Fprintf(w, "  %s may %s for %s until %s, with the view %s\n", plain(g.To), plain(actionWords(g.Actions)), plain(g.Purpose), moment(&g.Expires), plain(string(g.View)))
	}
	return nil
}

func actionWords(all []identity.Action) string {
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = string(a)
	}
	return strings.Join(words, ", ")
}

// begin makes room, or finds it.
func (c avatarImport) begin(ctx context.Context, s streams, target *client.Client, p *passport.Passport) (api.Crossing, error) {
	if c.Resume != (carnet.CrossingID{}) {
		if c.Policy != "" || c.View != "" {
			return api.Crossing{}, carnet.Errorf(carnet.Malformed, "an import that goes on is under the policy and the view with which it began").
				WithFix("begin another, without --resume; and cancel this one: carnet avatar cancel %s", c.Resume)
		}
		return target.RenewRecovery(ctx, c.Resume)
	}
	n := api.NewRecovery{Passport: p.Head.Word, Farewell: p.Head.Farewell, Policy: p.Head.Policy}
	if c.Policy != "" {
		text, err := readDocument(s, c.Policy)
		if err != nil {
			return api.Crossing{}, fmt.Errorf("read the policy: %w", err)
		}
		n.Policy = strings.TrimSpace(string(text))
		if err := newerThan(p.Head.Policy, n.Policy); err != nil {
			return api.Crossing{}, err
		}
	}
	if c.View != "" {
		text, err := readDocument(s, c.View)
		if err != nil {
			return api.Crossing{}, fmt.Errorf("read the view: %w", err)
		}
		v, err := policy.ParseView(text)
		if err != nil {
			return api.Crossing{}, err
		}
		n.View = &v
	}
	return target.BeginRecovery(ctx, n, p.Document)
}

// newerThan refuses a policy that isn't newer than the one that a passport has, nor the
// same.
func newerThan(had, signed string) error {
	said, err := identity.OpenAvatarPolicy(signed)
	if err != nil || had == "" {
		return err
	}
	before, err := identity.OpenAvatarPolicy(had)
	if err != nil {
		return err
	}
	if said.Version < before.Version || said.Version == before.Version && !bytes.Equal(said.Policy, before.Policy) {
		return carnet.Errorf(carnet.Conflict, "the policy has version %d, and the passport has another of version %d", said.Version, before.Version).
			WithFix("sign a newer one: carnet owner policy set %s FILE --version %d; write it out: carnet owner policy signed %s --out FILE", before.Avatar, before.Version+1, before.Avatar)
	}
	return nil
}

// handIn gives a world what it lacks of a passport.
func handIn(ctx context.Context, s streams, target *client.Client, x carnet.CrossingID, p *passport.Passport) error {
	for {
		lacking, err := target.Lacking(ctx, x)
		if err != nil || len(lacking) == 0 {
			return err
		}
		wanted := make(map[carnet.Fingerprint]bool, len(lacking))
		for _, f := range lacking {
			wanted[f] = true
		}
		handed := 0
		err = p.Pieces(func(m avatar.MovedStretch, body, proof []byte) error {
			if !wanted[m.Fingerprint] {
				return nil
			}
			handed++
			return target.PutStretch(ctx, x, m, body, proof)
		})
		if err == nil && handed == 0 {
			err = carnet.Errorf(carnet.Tampered, "it lacks stretches that the passport doesn't have").WithFix("bring a passport that is newer, or whole")
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(s.err, "%d stretches handed in\n", handed)
	}
}

// recoveryLife is how long a recovery is good that the command line signs: longer than
// registrars wait.
const recoveryLife = 30 * 24 * time.Hour

// approveRecovery signs a recovery, and hands it with the passport's keys to the target.
func (c ownerApprove) approveRecovery(ctx context.Context, s streams, k *owner.Keystore, data []byte) error {
	r, word, err := identity.ParseRecoveryRequest(data)
	if err != nil {
		return err
	}
	if c.Passport == "" {
		return carnet.Errorf(carnet.Malformed, "a recovery needs the passport, which has the keys").WithFix("name its directory: --passport DIR")
	}
	p, err := passport.Open(c.Passport)
	if err != nil {
		return err
	}
	if p.Head.Word != r.Passport {
		return carnet.Errorf(carnet.Forbidden, "the request is about another passport than the one in %s", c.Passport).WithFix("name the passport that was imported")
	}
	bags, err := p.Bags()
	if err != nil {
		return err
	}
	if err := checkView(r.View); err != nil {
		return err
	}
	unchecked(s, string(r.Target), r.Report)
	if err := grantLines(s.err, p); err != nil {
		return err
	}
	for _, line := range r.Explain(word) {
		fmt.Fprintln(s.err, plain(line))
	}
	newest, err := k.PolicyFor(r, p.Head.Policy)
	if err != nil {
		return err
	}
	if err := policyLines(s, newest, string(r.Target)); err != nil {
		return err
	}
	if err := confirm(s, c.Yes, "Sign it"); err != nil {
		return err
	}
	signed, err := k.Recover(r, owner.Passported{Bags: bags, Policy: p.Head.Policy}, time.Now(), recoveryLife)
	if err != nil {
		return err
	}
	if c.Party == "" {
		return writeJSON(s.out, signed)
	}
	world, err := c.world()
	if err != nil {
		return err
	}
	x, err := world.OrderRecovery(ctx, r.Recovery, signed)
	if err != nil {
		return fmt.Errorf("the recovery %s is signed, and %s doesn't take it: %w", r.Recovery, c.Party, err)
	}
	if c.JSON {
		return writeJSON(s.out, x)
	}
	_, err = fmt.Fprintf(s.out, "Ordered: %s has it, and goes on by itself once the former world's time is over. Follow it:\n  carnet avatar status %s\nThen tell your things agent:\n  carnet owner recovered %s --at %s\n", c.Party, x.ID, x.ID, c.Party)
	return err
}

type ownerRecovered struct {
	reaching
	Recovery carnet.CrossingID `arg:"" help:"The recovery."`
	At       carnet.PartyID    `required:"" placeholder:"WORLD" help:"The avatar's new home."`
	JSON     bool              `help:"As JSON."`
}

func (c ownerRecovered) Run(ctx context.Context, s streams) error {
	home, err := c.at(c.At, administrator, service, ownUser)
	if err != nil {
		return err
	}
	proof, err := home.CrossingProof(ctx, c.Recovery)
	if err != nil {
		return fmt.Errorf("%s: %w", c.At, err)
	}
	a, err := c.asOwner()
	if err != nil {
		return err
	}
	all, err := a.TellRecovered(ctx, proof)
	if err != nil || c.JSON {
		return orJSON(s, all, err)
	}
	for _, m := range all {
		if m.Waits != nil {
			fmt.Fprintf(s.out, "%s: it is to go on as mapping %s, and waits: %s\n", m.Thing, m.ID, plain(m.Waits.For))
			continue
		}
		fmt.Fprintf(s.out, "%s: it goes on at %s, as mapping %s\n", m.Thing, m.World, m.ID)
	}
	return nil
}

type keystoreReception struct {
	File  string         `arg:"" type:"path" help:"The keystore."`
	World carnet.PartyID `required:"" placeholder:"WORLD" help:"The world that is to make passports, as it calls itself."`
	Out   string         `required:"" type:"path" placeholder:"FILE" help:"Where to write the public part, for carnet avatar export --for."`
	passphrase
}

func (c keystoreReception) Run(s streams) error {
	k, err := keystore{c.File, c.passphrase}.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	announcement, err := k.Reception(c.World, time.Now())
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Out, announcement, 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Wrote the public part of your reception key for %s to %s. Passports that are made for it open with this keystore alone.\n", c.World, plain(c.Out))
	return err
}

// whereARecoveryIs says what a recovery waits for.
func whereARecoveryIs(s streams, x crossingOf) {
	if !x.Recovery {
		return
	}
	fmt.Fprintln(s.out, "  a recovery, by a passport: its former world is gone for good")
	if p := x.Progress; p != nil && x.State == move.Prepared && !p.SourceUntil.IsZero() {
		fmt.Fprintf(s.out, "  its former world has until %s to show itself\n", clock(p.SourceUntil))
	}
}
