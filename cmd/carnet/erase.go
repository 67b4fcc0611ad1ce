package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/erasure"
	"carnet/evidence"
	"carnet/identity"
	"carnet/owner"
)

type avatarErase struct {
	Begin  eraseBegin  `cmd:"" default:"withargs" help:"Ask an avatar's owner to have it erased everywhere."`
	Status eraseStatus `cmd:"" help:"Show how far erasures are, who has signed, and who couldn't be reached."`
}

type eraseBegin struct {
	ofAvatar
	Text    string        `placeholder:"LINE" help:"What for, to its owner, on one line."`
	Request string        `placeholder:"FILE" help:"Write what the owner is to approve to this file. Default: ERASURE.json"`
	Wait    bool          `help:"Wait until its owner has ordered it and everybody has signed."`
	For     time.Duration `default:"1h" help:"How long --wait waits."`
	JSON    bool          `help:"As JSON."`
}

// Run writes the request to erase an avatar.
func (c *eraseBegin) Run(ctx context.Context, s streams) error {
	h, err := avatarAt(ctx, c.ID, atWorlds).first(c.reaching)
	if err != nil {
		return err
	}
	world, name := h.cl, h.at.Name
	asked, err := world.BeginErasure(ctx, api.NewErasure{Avatar: c.ID, Text: c.Text})
	if err != nil {
		return err
	}
	r, err := identity.ParseErasureRequest(asked.Request)
	if err != nil {
		return err
	}
	file := cmp.Or(c.Request, asked.ID.String()+".json")
	if err := os.WriteFile(file, asked.Request, 0o600); err != nil {
		return err
	}
	if c.JSON && !c.Wait {
		return writeJSON(s.out, asked)
	}
	out := s.out
	if c.JSON {
		out = s.err
	}
	fmt.Fprintf(out, "Erasure %s of avatar %s. Nothing is deleted yet.\n", asked.ID, c.ID)
	for _, line := range r.Report {
		fmt.Fprintf(out, "  %s\n", plain(line))
	}
	fmt.Fprintf(out, "Its owner orders it, and then it goes on by itself:\n  carnet owner approve %s --keystore FILE --party %s\nFollow it:\n  carnet avatar erase status %s --party %s\n", file, name, asked.ID, name)
	if !c.Wait {
		return nil
	}
	return awaitErasure(ctx, s, world, name, asked.ID, c.For, c.JSON)
}

// awaitErasure shows an erasure each time that it has changed, until it is over.
func awaitErasure(ctx context.Context, s streams, world *client.Client, name carnet.PartyID, id carnet.ErasureID, most time.Duration, asJSON bool) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	shown := ""
	for {
		list, err := world.Erasure(ctx, id)
		if err != nil && carnet.CodeOf(err) != carnet.NotFound && carnet.CodeOf(err) != carnet.Unavailable {
			return err
		}
		over := len(list) > 0
		now := ""
		for _, e := range list {
			over = over && e.State.Ended()
			now += fmt.Sprintf("%s %d %d;", e.State, len(e.Waiting), len(e.Deletions))
		}
		if now != shown && !asJSON {
			for _, e := range list {
				writeErasure(s, name, e)
			}
			shown = now
		}
		if over {
			if asJSON {
				return writeJSON(s.out, list)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return carnet.Errorf(carnet.Unavailable, "the erasure %s isn't over yet", id).WithFix("it goes on: carnet avatar erase status %s", id)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

type eraseStatus struct {
	reaching
	ID       string        `arg:"" optional:"" help:"The erasure. Left out: all, of all worlds."`
	Wait     bool          `help:"Wait until everybody has signed; with an erasure."`
	For      time.Duration `default:"1h" help:"How long --wait waits."`
	Evidence string        `placeholder:"DIR" help:"Write the order and the receipts into this directory, for carnet verify; with an erasure."`
	JSON     bool          `help:"As JSON."`
}

// erasureOf is an erasure with the world that was asked.
type erasureOf struct {
	Party carnet.PartyID `json:"party"`
	api.Erasure
}

// Run shows erasures.
func (c *eraseStatus) Run(ctx context.Context, s streams) error {
	if (c.Evidence != "" || c.Wait) && c.ID == "" {
		return carnet.Errorf(carnet.Malformed, "no erasure is named").WithFix("list them: carnet avatar erase status")
	}
	if c.Wait {
		var id carnet.ErasureID
		if err := id.UnmarshalText([]byte(c.ID)); err != nil {
			return err
		}
		h, err := c.home(ctx, id)
		if err != nil {
			return err
		}
		if err := awaitErasure(ctx, s, h.cl, h.at.Name, id, c.For, c.JSON); err != nil || c.Evidence == "" {
			return err
		}
	}
	all := []erasureOf{}
	err := c.each(s, atWorlds, func(w access.Party, cl *client.Client) error {
		list, err := cl.Erasures(ctx)
		for _, e := range list {
			if c.ID == "" || e.ID.String() == c.ID {
				all = append(all, erasureOf{w.Name, e})
			}
		}
		return err
	})
	if err == nil && c.ID != "" && len(all) == 0 {
		err = carnet.Errorf(carnet.NotFound, "no world here has an erasure %.40q", c.ID).WithFix("list them: carnet avatar erase status")
	}
	if err == nil && c.Evidence != "" {
		return c.writeBundle(ctx, s, c.Evidence, all)
	}
	return answered(s, c.JSON, all, err, func() error {
		if c.ID != "" {
			for _, e := range all {
				writeErasure(s, e.Party, e.Erasure)
			}
			return nil
		}
		t := table{{"ERASURE", "PARTY", "STATE", "AS", "AVATAR", "SINCE", "SIGNED", "WAITS FOR"}}
		for _, e := range all {
			waits := ""
			if len(e.Waiting) > 0 {
				waits = fmt.Sprintf("%s (%s)", e.Waiting[0].Party, e.Waiting[0].Why)
				if more := len(e.Waiting) - 1; more > 0 {
					waits += fmt.Sprintf(", and %d more", more)
				}
			}
			t.add(e.ID.String(), string(e.Party), string(e.State), e.Role, e.Avatar.String(), clock(e.Asked), fmt.Sprint(len(e.Deletions)), cmp.Or(waits, e.Why))
		}
		return t.list(s, "There are no erasures.")
	})
}

// home finds the world that was the home of what an erasure is about; where no home is
// among those that know of it, the first of them.
func (c *eraseStatus) home(ctx context.Context, id carnet.ErasureID) (h hit[[]api.Erasure], err error) {
	f, err := c.file()
	if err != nil {
		return h, err
	}
	if c.Party != "" || len(f.Having(identity.World)) < 2 { // which needn't know of it yet
		if h.at, err = c.meant(f, identity.World); err == nil {
			h.cl, err = c.dial(f, h.at, administrator)
		}
		return h, err
	}
	found, err := sought[[]api.Erasure]{"erasure " + id.String(), "carnet avatar erase status", atWorlds, func(cl *client.Client) ([]api.Erasure, error) { return cl.Erasure(ctx, id) }}.at(c.reaching, true)
	if err != nil {
		return h, err
	}
	isHome := func(e api.Erasure) bool { return e.Role == string(identity.DeletedAtHome) }
	if i := slices.IndexFunc(found, func(h hit[[]api.Erasure]) bool { return slices.ContainsFunc(h.is, isHome) }); i >= 0 {
		return found[i], nil
	}
	return found[0], nil
}

// erasureMeans says in words what a state of an erasure means.
var erasureMeans = map[erasure.State]string{
	erasure.Ordered:   "its owner has ordered it, and it hasn't begun",
	erasure.Hiding:    "nobody reads anything of it; it is being deleted",
	erasure.Erased:    "nothing is left here; some who had something haven't signed yet",
	erasure.Over:      "nothing is left here, or at anybody who is known to have had something",
	erasure.Elsewhere: "it isn't here",
}

func writeErasure(s streams, party carnet.PartyID, e api.Erasure) {
	as := "avatar " + e.Avatar.String()
	if e.Role != string(identity.DeletedAtHome) {
		as = fmt.Sprintf("as %s, by %s", e.Role, e.Of)
	}
	fmt.Fprintf(s.out, "%s: %s\n  %s: %s.\n", party, as, e.State, erasureMeans[e.State])
	if e.Why != "" {
		fmt.Fprintf(s.out, "  %s\n", plain(e.Why))
	}
	names := make(map[string]carnet.PartyID)
	for _, o := range e.Others {
		names[o.Key] = o.Party
		if o.Role == string(erasure.Registers) && o.Heard != nil {
			fmt.Fprintf(s.out, "  the register knows it: it never moves again\n")
		}
	}
	for _, token := range e.Deletions {
		d, err := identity.OpenDeletion(token)
		if err != nil {
			fmt.Fprintf(s.out, "  a receipt that can't be read: %s\n", plain(err.Error()))
			continue
		}
		who := string(names[d.By])
		if token == e.Deletion {
			who = string(party)
		}
		fmt.Fprintf(s.out, "  signed by %s as %s: unreadable there since %s, in no backup any more from %s on (%s)\n",
			cmp.Or(who, d.By), d.Role, clock(d.Unreadable), clock(d.Unrecoverable), d.Counts())
	}
	for _, w := range e.Waiting {
		since := ""
		if w.Since != nil {
			since = ", not reached since " + clock(*w.Since)
		}
		fmt.Fprintf(s.out, "  waits for %s (%s)%s: %s\n", plain(w.Party), plain(w.Role), since, plain(w.Why))
	}
}

// writeErasureBundle writes what proves an erasure.
func (c *eraseStatus) writeBundle(ctx context.Context, s streams, dir string, all []erasureOf) error {
	var home *erasureOf
	for i := range all {
		if all[i].Role == string(identity.DeletedAtHome) {
			home = &all[i]
		}
	}
	if home == nil {
		return carnet.Errorf(carnet.NotFound, "no world here is the home of what was erased").WithFix("ask the home: --party WORLD")
	}
	b, err := c.bundle(ctx, home)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != evidence.ErasureFile }) {
		return carnet.Errorf(carnet.Conflict, "%s holds something else", dir).WithFix("name another directory: carnet verify finds it false if anything is beside the bundle")
	}
	path := filepath.Join(dir, evidence.ErasureFile)
	if err := b.Write(path); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s: the order and %d receipts. Check it, anywhere:\n  carnet verify %s\n", path, len(b.Deletions), dir)
	return err
}

func (c *eraseStatus) bundle(ctx context.Context, home *erasureOf) (evidence.ErasureBundle, error) {
	r := c.reaching
	world, err := r.at(home.Party, administrator)
	if err != nil {
		return evidence.ErasureBundle{}, err
	}
	return world.ErasureEvidence(ctx, home.ID)
}

// approveErasure signs an order to erase, and hands it to the avatar's home.
func (c ownerApprove) approveErasure(ctx context.Context, s streams, k *owner.Keystore, data []byte) error {
	r, err := identity.ParseErasureRequest(data)
	if err != nil {
		return err
	}
	if err := k.KnowsErasure(r); err != nil {
		return err
	}
	said := slices.DeleteFunc(append([]string{r.Text}, r.Report...), func(line string) bool { return line == "" })
	unchecked(s, string(r.World), said)
	for _, line := range r.Explain() {
		fmt.Fprintln(s.err, plain(line))
	}
	if err := confirm(s, c.Yes, "Erase it"); err != nil {
		return err
	}
	e, err := k.OrderErasure(r, time.Now())
	if err != nil {
		return err
	}
	if c.Party == "" {
		return writeJSON(s.out, e)
	}
	world, err := c.world()
	if err != nil {
		return err
	}
	done, err := world.OrderErasure(ctx, r.Erasure, e)
	if err != nil {
		return fmt.Errorf("the order to erase is signed, and %s doesn't have it: %w", c.Party, err)
	}
	if c.JSON {
		return writeJSON(s.out, done)
	}
	_, err = fmt.Fprintf(s.out, "Ordered: %s has it, and goes on by itself. Follow it:\n  carnet avatar erase status %s\n", c.Party, done.ID)
	return err
}
