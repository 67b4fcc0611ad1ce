package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/crossing"
	"carnet/entity"
	"carnet/identity"
	"carnet/policy"
	"carnet/thing"
)

// Keystore is the keystore of the demo's owner, open: neither the demo nor a party
// has its keys.
type Keystore interface {
	// Claim has the world of a mapping pin the owner's key for it with the avatar.
	Claim(ctx context.Context, hub *client.Client, m thing.MappingInfo) error
	// Approve signs what a world asks for, for as long as a mandate may hold.
	Approve(identity.MandateRequest) (mandate string, err error)
	// Order signs what a move is asked for.
	Order(identity.MoveRequest) (identity.Ordered, error)
	Close() error
}

// shared is what arena gives citadel of the watch's avatar there: the heart rate as
// arena has it, so that its batches are copied, and the speed rounded, so that others
// are derived.
const shared = `{"properties": {"heart_rate": {}, "speed": {"round": 0.5}}, "purposes": ["fitness"]}`

// shareFor is how long the grant of it is given.
const shareFor = 30 * 24 * time.Hour

// share has citadel's avatar of the watch follow arena's, the way that the four whose
// word it takes would: the owner has arena pin the key of the keystore, citadel asks
// the owner for a mandate, the owner approves it, arena gives a grant, and citadel
// takes the share. answered is when arena had answered.
func (s *setup) share(ctx context.Context, o Options, answered time.Time) error {
	if o.Keystore == nil {
		return nil
	}
	arena, citadel, w := s.party("arena"), s.party("citadel"), s.sensor(watch())
	there, here := w.mappings["arena"], w.mappings["citadel"]
	if going, err := goesOn(ctx, citadel, here.Avatar); err != nil || going {
		return err
	}
	s.screen.say("the owner permits that citadel gets what arena gives it of the watch")
	keystore, err := o.Keystore(s.dir)
	if err != nil {
		return err
	}
	defer keystore.Close()
	request, err := s.mandate(ctx, keystore, there, here)
	if err != nil {
		return err
	}
	if err := grant(ctx, arena, there.Avatar, request); err != nil {
		return err
	}
	// Arena takes nothing that was signed before its start, in whole seconds.
	if err := pause(ctx, time.Until(answered.Truncate(time.Second).Add(time.Second))); err != nil {
		return err
	}
	return take(ctx, citadel, api.NewShare{World: arena.name, Avatar: there.Avatar, For: here.Avatar, Purpose: request.Purpose})
}

// goesOn reports whether an avatar has a share already, or had one that somebody
// ended: one that ran out is made again.
func goesOn(ctx context.Context, citadel *party, id carnet.AvatarID) (bool, error) {
	all, err := citadel.client.Shares(ctx)
	if err != nil {
		return false, fmt.Errorf("list the shares: %w", err)
	}
	all = slices.DeleteFunc(all, func(c api.CrossShare) bool { return c.Ours != id })
	if len(all) == 0 {
		return false, nil
	}
	return stands(all[len(all)-1].Until, time.Now()), nil
}

// stands reports whether a share that was given until then is left as it is: it goes
// on, or somebody has ended it.
func stands(until *time.Time, now time.Time) bool { return until == nil || now.Before(*until) }

// mandate has the owner approve what citadel asks for.
func (s *setup) mandate(ctx context.Context, keystore Keystore, there, here thing.MappingInfo) (r identity.MandateRequest, err error) {
	if err := keystore.Claim(ctx, s.party("hub").client, there); err != nil {
		return r, fmt.Errorf("have arena know the owner: %w", err)
	}
	citadel := s.party("citadel").client
	asked, err := citadel.AskMandate(ctx, here.Avatar, api.NewMandate{
		World: there.WorldName, Avatar: there.Avatar, Actions: []identity.Action{identity.ActionSubscribe}, Purpose: "fitness",
		Sensitivity: "personal+health", Text: "Citadel shows your heart rate and speed in arena to your team.",
	})
	if err != nil {
		return r, fmt.Errorf("ask the owner for a mandate: %w", err)
	}
	if r, err = identity.ParseMandateRequest(asked.Request); err != nil {
		return r, err
	}
	signed, err := keystore.Approve(r)
	if err != nil {
		return r, fmt.Errorf("approve what citadel asks for: %w", err)
	}
	if _, err = citadel.GiveMandate(ctx, signed); err != nil {
		err = fmt.Errorf("give citadel the mandate: %w", err)
	}
	return r, err
}

// grant has arena give citadel's avatar a grant, unless it has one.
func grant(ctx context.Context, arena *party, about carnet.AvatarID, r identity.MandateRequest) error {
	to := entity.To{Platform: "citadel", DID: identity.DID(r.Subject)}
	had, err := arena.client.Grants(ctx)
	if err != nil {
		return fmt.Errorf("list the grants: %w", err)
	}
	if slices.ContainsFunc(had, func(g entity.Grant) bool {
		return g.To == to && g.Avatar == about && g.Revoked == nil && time.Now().Before(g.Expires)
	}) {
		return nil
	}
	view, err := policy.ParseView([]byte(shared))
	if err != nil {
		return err
	}
	terms := entity.Terms{
		Avatar: about, To: to, Actions: []identity.Action{identity.ActionSubscribe}, View: view, Purpose: r.Purpose,
		Ceiling: &entity.Clearance{Sensitivity: carnet.Personal | carnet.Health}, Expires: time.Now().Add(shareFor).UTC().Truncate(time.Second),
	}
	report, err := arena.client.Assess(ctx, terms)
	for range 200 { // a world that has just started asks the register first what was erased
		if carnet.CodeOf(err) != carnet.Unavailable {
			break
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		report, err = arena.client.Assess(ctx, terms)
	}
	if err != nil {
		return fmt.Errorf("assess a grant: %w", err)
	}
	if _, err := arena.client.Give(ctx, api.NewGrant{Terms: terms, Assessment: report.Fingerprint}); err != nil {
		return fmt.Errorf("give a grant: %w", err)
	}
	return nil
}

// take has citadel ask for a share, and waits until arena has answered.
func take(ctx context.Context, citadel *party, n api.NewShare) error {
	c, err := citadel.client.TakeShare(ctx, n)
	for range 100 {
		if err != nil || c.State == crossing.Taking {
			break
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		c, err = citadel.client.Share(ctx, c.ID)
	}
	if err == nil && c.State != crossing.Taking {
		err = carnet.Errorf(carnet.Unavailable, "arena doesn't answer")
	}
	if err != nil {
		return fmt.Errorf("take what arena shares: %w", err)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
