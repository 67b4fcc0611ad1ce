package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/item"
	"carnet/td"
	"carnet/wire/file"
)

// gameStory is H2: a player whose body temperature, head and gaze are sensed plays in
// arena, and moves with sword and skin to citadel, which has a DPM compute.
var gameStory = &script{
	name: "game",
	cast: []role{
		{name: "vault", role: "depot"},
		dpmRole("forge", "personal+health"),
		worldRole("arena", "fitness", "personal+health", true),
		worldRole("citadel", "fitness", "personal+health", true),
		{name: "hub", role: "things"},
	},
	worlds:   []carnet.PartyID{"arena", "citadel"},
	meets:    [][2]carnet.PartyID{{"arena", "citadel"}, {"citadel", "forge"}},
	kinds:    func() []*sensor { return []*sensor{headset(), band()} },
	sort:     headsetAndBand,
	generate: generateGame,
	needs:    []string{"head/x", "gaze/w", "body_temperature", "temperature"},
	prepare:  (*setup).secondOver,
	acts: []act{
		{"it plays", "the player plays in arena: headset and band are one avatar there", (*tale).plays},
		{"arena gives it things", "the owner has arena know it by a key of its keystore; arena issues a sword and a skin, and the avatar puts them on", (*tale).arenaIssues},
		{"citadel takes them", "citadel says that it takes arena's swords as blades, and arena's skins as coats", (*tale).citadelTakes},
		{"it moves", "the player moves to citadel: assessed, ordered by its owner, frozen, copied, checked, decided by the register", (*tale).moves},
		{"it plays on", "the devices go on, and hub sends it to citadel from where the history ends", (*tale).playsOn},
		{"a module is added", "citadel signs the module that it will have run, and puts it at the vault", (*tale).addModules},
		{"citadel has forge compute", "citadel has forge work out where the player looked, before the move and since, and how warm it was", (*tale).citadelAtForge},
		{"citadel repeats", "citadel computes both itself, and compares what comes out", (*tale).gameRepeats},
	},
	hold:    4,
	modules: map[carnet.PartyID][]string{"citadel": {"gazemap"}},
	checks:  slices.Concat(ofEvery, gameChecks, ofJobs),
	paste:   pasteGame,
}

func headset() *sensor {
	return &sensor{name: "headset", description: td.Headset(), views: map[carnet.PartyID]string{
		"arena": `{"properties": {"head": {"rate": "250ms"}, "gaze": {"rate": "100ms"}}, "purposes": ["fitness"]}`,
	}}
}

// band is on the player's arm, and so the same avatar.
func band() *sensor {
	return &sensor{name: "band", joins: "headset", description: td.Band(), views: map[carnet.PartyID]string{
		"arena": `{"properties": {"body_temperature": {"round": 0.1}, "temperature": {"round": 0.5, "rate": "5s"}}, "purposes": ["fitness"]}`,
	}}
}

// headsetAndBand says whose recordings are whose.
func headsetAndBand(recordings []*file.Recording) []*sensor {
	h, b := headset(), band()
	for _, r := range recordings {
		of := h
		if slices.ContainsFunc(r.Measurements, func(m carnet.Measurement) bool { return m.Name == "body_temperature" }) {
			of = b
		}
		of.recordings = append(of.recordings, r)
	}
	return []*sensor{h, b}
}

// generateGame makes what the given recordings lack: a headset's, and a band's, which
// lasts as long as what the headset tells.
func generateGame(given []*file.Recording, length time.Duration) (made []*file.Recording, err error) {
	seed, end := uint64(time.Now().UnixNano()), time.Now().Truncate(time.Second)
	worn := slices.ContainsFunc(given, func(r *file.Recording) bool {
		return slices.ContainsFunc(r.Measurements, func(m carnet.Measurement) bool { return m.Name == "body_temperature" })
	})
	if worn && len(given) == 1 || len(given) == 0 {
		made = append(made, file.GenerateHeadset(seed, length, end))
	}
	if worn {
		return made, nil
	}
	for _, r := range given {
		if n := len(r.Measurements); n > 0 && r.End > r.Start {
			length, end = max(time.Duration(r.End-r.Start), 2*time.Second), time.Unix(0, r.End)
		}
	}
	return append(made, file.GenerateBand(seed, length, end)), nil
}

// secondOver waits until the second has passed in which arena answered: it takes nothing
// that was signed before its start, in whole seconds.
func (s *setup) secondOver(ctx context.Context, _ Options, answered time.Time) error {
	return pause(ctx, time.Until(answered.Truncate(time.Second).Add(time.Second)))
}

func (t *tale) plays(ctx context.Context) error {
	return t.shows(ctx, "arena", t.home("arena"), "head/x", "gaze/w", "body_temperature", "temperature")
}

// The items of the story.
const (
	swordTitle, skinTitle = "Oathkeeper", "Ash cloak"
	powerMost             = 50.0 // that citadel takes of a sword's damage
)

func (t *tale) arenaIssues(ctx context.Context) error {
	keystore, err := t.options.Keystore(t.dir)
	if err != nil {
		return err
	}
	defer keystore.Close()
	for _, w := range t.sensors { // hub follows a move by the key that each mapping knows
		if err := keystore.Claim(ctx, t.party("hub").client, w.mappings["arena"]); err != nil {
			return fmt.Errorf("have arena know the owner of the %s: %w", w.name, err)
		}
	}
	arena := t.party("arena").client
	for _, n := range []struct {
		api.NewItem
		slot string
	}{
		{api.NewItem{Kind: "sword", Title: swordTitle, Attributes: identity.Attributes{"damage": 12.0, "rune": "ash"}}, "hand"},
		{api.NewItem{Kind: "skin", Title: skinTitle, Attributes: identity.Attributes{"pattern": "ash"}}, "body"},
	} {
		n.Avatar = t.home("arena")
		var i api.Item
		err := await(ctx, "arena issues the "+n.Kind, func() (bool, error) {
			i, err = arena.IssueItem(ctx, n.NewItem)
			return true, err
		})
		if err != nil {
			return err
		}
		if _, err := arena.EquipItem(ctx, i.ID, n.slot); err != nil {
			return fmt.Errorf("put the %s on: %w", n.Kind, err)
		}
		t.detail("arena issued the %s %q, number %d, and the avatar has it on its %s", n.Kind, n.Title, i.Serial, n.slot)
	}
	return nil
}

func (t *tale) citadelTakes(ctx context.Context) error {
	arena, err := t.party("arena").client.AcceptedItems(ctx)
	if err != nil {
		return err
	}
	most := powerMost
	for _, a := range []api.ItemAcceptance{
		{Issuer: arena.Issuer, Kind: "sword", As: "blade", Attributes: map[string]item.Attribute{"damage": {As: "power", Max: &most}}},
		{Issuer: arena.Issuer, Kind: "skin", As: "coat", Attributes: map[string]item.Attribute{"pattern": {As: "pattern"}}},
	} {
		if _, err := t.party("citadel").client.AcceptItems(ctx, a); err != nil {
			return fmt.Errorf("citadel takes arena's %ss: %w", a.Kind, err)
		}
	}
	return nil
}

func (t *tale) moves(ctx context.Context) error {
	x, err := t.orderMove(ctx)
	if err != nil {
		return err
	}
	arena, citadel := t.party("arena").client, t.party("citadel").client
	err = await(ctx, "wait until it is home in citadel, and gone from arena", func() (bool, error) {
		if x, err = citadel.Crossing(ctx, x.ID); err != nil {
			return false, err
		}
		if x.State == move.Dropped {
			return false, carnet.Errorf(carnet.Conflict, "the move was called off: %s", x.Why)
		}
		there, err := arena.Crossing(ctx, x.ID)
		if carnet.CodeOf(err) == carnet.NotFound {
			return false, nil // citadel hasn't offered the order yet
		}
		return x.State == move.Home && there.State == move.Gone, err
	})
	if err != nil {
		return err
	}
	t.lives("citadel", x.Ours, "arena")
	if x.Amount != nil {
		t.detail("it lives in citadel now: %s in %s of %s came along, and %s", number(int(x.Amount.Measurements), "measurement"),
			number(int(x.Amount.Batches), "batch"), number(x.Amount.Streams, "stream"), number(len(x.Items), "item"))
	}
	return nil
}

// orderMove has the avatar described, room made for it, and its owner order the move.
func (t *tale) orderMove(ctx context.Context) (x api.Crossing, err error) {
	arena, citadel := t.party("arena").client, t.party("citadel").client
	traveller, err := arena.Enrol(ctx, t.home("arena"))
	if err != nil {
		return x, fmt.Errorf("arena describes the avatar: %w", err)
	}
	want := api.NewMove{World: "arena", Traveller: traveller, Text: "Your player goes on in citadel."}
	for _, i := range traveller.Items {
		want.Items = append(want.Items, i.ID)
	}
	if x, err = citadel.BeginCrossing(ctx, want); err != nil {
		return x, fmt.Errorf("citadel makes room for it: %w", err)
	}
	asked, mandate, err := identity.ParseMoveRequest(x.Request)
	if err != nil {
		return x, err
	}
	for _, line := range asked.Report {
		t.detail("citadel says: %s", line)
	}
	if err := arena.GrantMove(ctx, "citadel", traveller, mandate, time.Now().Add(time.Hour)); err != nil {
		return x, fmt.Errorf("arena gives citadel the grant to fetch it: %w", err)
	}
	keystore, err := t.options.Keystore(t.dir)
	if err != nil {
		return x, err
	}
	defer keystore.Close()
	ordered, err := keystore.Order(asked)
	if err != nil {
		return x, fmt.Errorf("the owner orders the move: %w", err)
	}
	x, err = citadel.OrderCrossing(ctx, x.ID, ordered)
	return x, err
}

// playsOn waits until citadel has something new of both devices.
func (t *tale) playsOn(ctx context.Context) error {
	citadel := t.party("citadel").client
	before, err := citadel.Avatar(ctx, t.home("citadel"))
	if err != nil {
		return err
	}
	return await(ctx, "wait until hub sends both devices' measurements to citadel", func() (bool, error) {
		for _, w := range t.sensors {
			info, err := t.party("hub").client.Thing(ctx, w.id)
			if err != nil {
				return false, err
			}
			sent := uint64(0)
			for _, m := range info.Mappings {
				if m.World == "citadel" {
					for _, of := range m.Got {
						sent += of.Sent
					}
				}
			}
			if sent == 0 {
				return false, nil
			}
		}
		now, err := citadel.Avatar(ctx, t.home("citadel"))
		return now.Measurements > before.Measurements+20, err
	})
}

// warmth is what citadel asks about the body temperature.
const warmth = "SELECT count(*) AS n, min(value) AS least, avg(value) AS mean, max(value) AS most FROM measurements WHERE property = 'body_temperature'"

func (t *tale) citadelAtForge(ctx context.Context) error {
	j, err := t.runs(ctx, "citadel", "where the player looked", t.module("gazemap", "forge", "citadel", `{"columns": 12, "rows": 6}`, "gaze"))
	t.remember("gaze", j)
	if err != nil {
		return err
	}
	j, err = t.runs(ctx, "citadel", "how warm it was", t.query(warmth, "forge", "citadel", "body_temperature"))
	t.remember("warmth", j)
	return err
}

func (t *tale) gameRepeats(ctx context.Context) error {
	if err := t.repeats(ctx, "citadel", "where the player looked", t.recall("gaze")); err != nil {
		return err
	}
	return t.repeats(ctx, "citadel", "how warm it was", t.recall("warmth"))
}

// pasteGame is what may be tried in the story.
func pasteGame(s *setup) []string {
	program := program()
	return []string{
		"Where does the avatar live? (arena's, which moved away, says so)",
		fmt.Sprintf("  %s avatar list", program),
		"Follow the move, at both worlds:",
		fmt.Sprintf("  %s avatar status --party citadel; %s avatar status --party arena", program, program),
		"Where are sword and skin?",
		fmt.Sprintf("  %s item list --all", program),
		"See what citadel had computed:",
		fmt.Sprintf("  %s job list --party citadel", program),
		"Is anything half done?",
		fmt.Sprintf("  %s doctor", program),
	}
}
