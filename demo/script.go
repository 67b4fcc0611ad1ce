package demo

import (
	"context"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/node"
	"carnet/wire/file"
)

// script is what a demo tells: who takes part, which things there are, and what happens
// while these are playing.
type script struct {
	name   string              // of the story; empty: the demo without one
	cast   []role              // in the order in which they start
	worlds []carnet.PartyID    // in the order in which they are shown
	meets  [][2]carnet.PartyID // who become peers, beside things agent, worlds and depot: the second calls itself what the first calls it
	kinds  func() []*sensor    // the things that there may be
	// sort says whose recordings are whose; a thing without any stays only if it is always
	// there.
	sort func([]*file.Recording) []*sensor
	// generate makes the recordings that are played beside the given ones.
	generate func(given []*file.Recording, length time.Duration) ([]*file.Recording, error)
	needs    []string                                                                 // what must be measured for what it tells of
	prepare  func(s *setup, ctx context.Context, o Options, answered time.Time) error // before anything is played; nil: nothing
	acts     []act
	// hold is before which act the devices wait in the middle of what they have to send.
	hold    int
	ways    map[carnet.PartyID]string   // whom a world has its data from, where that isn't hub
	modules map[carnet.PartyID][]string // that each world signs and adds
	paste   func(s *setup) []string     // lines to try; they begin with two spaces, those that explain them don't
	checks  []check                     // beside those of every demo
}

// role is a party that takes part.
type role struct {
	name   carnet.PartyID
	role   identity.Role
	config node.Config
	calls  bool // other worlds call it
}

// worldRole is a world and what it may hold.
func worldRole(name carnet.PartyID, purpose, sensitivity string, calls bool) role {
	return role{name, identity.World, node.Config{World: node.WorldConfig{Purpose: purpose, Sensitivity: sensitivity}}, calls}
}

// tried lets a world run programs that nobody signed, as who tries it out has written them.
func tried(r role) role {
	r.config.World.UnsignedPrograms = true
	return r
}

// dpmRole is a DPM and what it may hold.
func dpmRole(name carnet.PartyID, sensitivity string) role {
	return role{name, identity.DPM, node.Config{DPM: node.DPMConfig{Sensitivity: sensitivity, Workers: 1}}, false}
}

// plain is the demo without a story.
var plain = &script{
	cast: []role{
		{name: "vault", role: identity.Depot},
		tried(worldRole("arena", "fitness", "personal+health", true)),
		tried(worldRole("citadel", "fitness", "personal+health", true)),
		tried(worldRole("clinic", "care", "personal+health+location", false)),
		{name: "hub", role: identity.Things},
	},
	worlds:   []carnet.PartyID{"arena", "clinic", "citadel"},
	meets:    [][2]carnet.PartyID{{"arena", "citadel"}},
	kinds:    func() []*sensor { return []*sensor{watch(), room()} },
	sort:     sensors,
	generate: generateRun,
	prepare:  (*setup).share,
	ways:     map[carnet.PartyID]string{"citadel": "hub, arena"},
	paste:    (*setup).pastePlain,
}

// stories are the scripts that have a name.
var stories = []*script{watchStory, gameStory}

// Stories lists the names of the stories.
func Stories() (names []string) {
	for _, s := range stories {
		names = append(names, s.name)
	}
	return names
}

// script finds what is to be told.
func (o Options) script() (*script, error) {
	if o.Story == "" {
		return plain, nil
	}
	i := slices.IndexFunc(stories, func(s *script) bool { return s.name == o.Story })
	if i < 0 {
		return nil, carnet.Errorf(carnet.Malformed, "there is no story %.40q", o.Story).WithFix("tell one of: %s", strings.Join(Stories(), ", "))
	}
	if o.Keystore == nil || o.Modules == nil {
		return nil, carnet.Errorf(carnet.Malformed, "the story %s needs an owner's keystore and modules", o.Story)
	}
	return stories[i], nil
}

// generateRun makes a run where no recording is given.
func generateRun(given []*file.Recording, length time.Duration) ([]*file.Recording, error) {
	if len(given) > 0 {
		return nil, nil
	}
	r, err := generate(length)
	return []*file.Recording{r}, err
}
