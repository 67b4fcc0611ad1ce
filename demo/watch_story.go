package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"carnet"
	"carnet/api"
	"carnet/dpm"
	"carnet/td"
	"carnet/wire/file"
)

// watchStory is H1: several sensors of one watch, two worlds that don't know each other,
// two DPMs that work for both, and a depot.
var watchStory = &script{
	name: "watch",
	cast: []role{
		{name: "vault", role: "depot"},
		dpmRole("forge", "personal+health"),
		dpmRole("lab", "personal+health+location"),
		worldRole("arena", "fitness", "personal+health", false),
		worldRole("clinic", "care", "personal+health+location", false),
		{name: "hub", role: "things"},
	},
	worlds: []carnet.PartyID{"arena", "clinic"},
	meets:  [][2]carnet.PartyID{{"arena", "forge"}, {"arena", "lab"}, {"clinic", "forge"}, {"clinic", "lab"}},
	kinds:  func() []*sensor { return []*sensor{storyWatch()} },
	sort: func(recordings []*file.Recording) []*sensor {
		w := storyWatch()
		w.recordings = recordings
		return []*sensor{w}
	},
	generate: generateRun,
	needs:    []string{"heart_rate", "speed", "cadence", "steps", "stress", "position/lat", "position/lon"},
	modules:  map[carnet.PartyID][]string{"arena": {"heartzones", "motion", "stepcadence"}, "clinic": {"heartzones"}},
	acts: []act{
		{"it measures", "the watch measures; arena and the clinic each get what its owner lets them have", (*tale).watchMeasures},
		{"modules are added", "arena and the clinic each sign the modules that they will have run, and put them at the vault", (*tale).addModules},
		{"arena has forge compute", "arena has forge work out the runner's heart zones, and what it was doing", (*tale).arenaAtForge},
		{"arena has lab compute", "arena has lab work out the step cadence", (*tale).arenaAtLab},
		{"the clinic has both compute", "the clinic has lab work out stress and places, and forge the patient's heart zones", (*tale).clinicAtBoth},
		{"forge may not have the place", "the clinic asks forge for the places, too, and may not: forge isn't cleared for location", (*tale).placeRefused},
		{"a job is withdrawn", "the clinic orders a query without end at lab, and withdraws it while it runs", (*tale).jobWithdrawn},
		{"each repeats", "each world computes one of its jobs itself, and compares what comes out", (*tale).watchRepeats},
	},
	hold:   7,
	checks: slices.Concat(ofEvery, watchChecks, ofJobs),
	paste:  pasteWatch,
}

// storyWatch is the watch with what its owner lets the story's worlds have.
func storyWatch() *sensor {
	return &sensor{name: "watch", description: td.Watch(), views: map[carnet.PartyID]string{
		"arena": `{
		  "properties": {
		    "heart_rate": {"round": 5, "rate": "1s"},
		    "speed":      {"rate": "1s"},
		    "cadence":    {"rate": "1s"},
		    "steps":      {"rate": "1s"}
		  },
		  "purposes": ["fitness"]
		}`,
		"clinic": `{
		  "properties": {
		    "heart_rate": {},
		    "stress":     {},
		    "position":   {"precision_m": 1000}
		  },
		  "purposes": ["care"]
		}`,
	}}
}

// The queries of the clinic.
const (
	stressQuery  = "SELECT count(*) AS n, avg(value) AS mean, max(value) AS most FROM measurements WHERE property = 'stress'"
	placesQuery  = "SELECT property, count(*) AS n, min(value) AS least, max(value) AS most FROM measurements GROUP BY property ORDER BY property"
	endlessQuery = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
)

// module is a job that has a module run over some properties of the story's avatar.
func (t *tale) module(name string, at, world carnet.PartyID, parameters string, properties ...string) api.NewJob {
	n := api.NewJob{At: at, Module: name + "@" + moduleVersion, Avatars: []carnet.AvatarID{t.home(world)}, Properties: properties}
	if parameters != "" {
		n.Parameters = json.RawMessage(parameters)
	}
	return n
}

// query is a job that has a query run.
func (t *tale) query(sql string, at, world carnet.PartyID, properties ...string) api.NewJob {
	return api.NewJob{At: at, Engine: "sql", Program: []byte(sql), Avatars: []carnet.AvatarID{t.home(world)}, Properties: properties}
}

// home is the story's avatar in a world.
func (t *tale) home(world carnet.PartyID) carnet.AvatarID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.homes[world]
}

func (t *tale) watchMeasures(ctx context.Context) error {
	if err := t.shows(ctx, "arena", t.home("arena"), "heart_rate", "speed", "cadence", "steps"); err != nil {
		return err
	}
	return t.shows(ctx, "clinic", t.home("clinic"), "heart_rate", "stress", "position/lat", "position/lon")
}

func (t *tale) arenaAtForge(ctx context.Context) error {
	plan, err := t.party("arena").client.PlanJob(ctx, t.module("heartzones", "", "arena", "", "heart_rate"))
	if err != nil {
		return fmt.Errorf("arena plans the heart zones: %w", err)
	}
	t.detail("heart zones: %s; %s would leave, and %s beside them in the same batches", plan.Why, number(int(plan.Measurements), "measurement"), number(int(plan.Along), "other"))
	j, err := t.runs(ctx, "arena", "heart zones", t.module("heartzones", "forge", "arena", `{"max": 190}`, "heart_rate"))
	t.remember("arena", j)
	if err != nil {
		return err
	}
	_, err = t.runs(ctx, "arena", "what it was doing", t.module("motion", "forge", "arena", `{"window": 5}`, "heart_rate", "speed", "cadence", "steps"))
	return err
}

func (t *tale) arenaAtLab(ctx context.Context) error {
	_, err := t.runs(ctx, "arena", "the step cadence", t.module("stepcadence", "lab", "arena", "", "cadence"))
	return err
}

func (t *tale) clinicAtBoth(ctx context.Context) error {
	if _, err := t.runs(ctx, "clinic", "stress", t.query(stressQuery, "lab", "clinic", "stress")); err != nil {
		return err
	}
	j, err := t.runs(ctx, "clinic", "places", t.query(placesQuery, "lab", "clinic", "position"))
	t.remember("clinic", j)
	if err != nil {
		return err
	}
	_, err = t.runs(ctx, "clinic", "heart zones", t.module("heartzones", "forge", "clinic", `{"max": 180}`, "heart_rate"))
	return err
}

// placeRefused wants a refusal: anything else ends the story.
func (t *tale) placeRefused(ctx context.Context) error {
	_, err := t.party("clinic").client.RunJob(ctx, t.query(placesQuery, "forge", "clinic", "position"))
	if carnet.CodeOf(err) == carnet.Forbidden {
		t.detail("refused: %v", err)
		return nil
	}
	if err == nil {
		return carnet.Errorf(carnet.Conflict, "the clinic ordered the places at forge, which isn't cleared for location")
	}
	return err
}

func (t *tale) jobWithdrawn(ctx context.Context) error {
	c := t.party("clinic").client
	j, err := c.RunJob(ctx, t.query(endlessQuery, "lab", "clinic", "stress"))
	if err != nil {
		return err
	}
	err = await(ctx, "wait until lab runs the query", func() (bool, error) {
		j, err = c.Job(ctx, j.ID, false)
		return j.Progress != nil && j.Progress.State == string(dpm.Leased), err
	})
	if err != nil {
		return err
	}
	if _, err := c.CancelJob(ctx, j.ID); err != nil {
		return err
	}
	if j, err = ended(ctx, c, j); err != nil {
		return err
	}
	t.detail("lab has signed that it ended as %s, and has no key of it any more", j.Outcome)
	return nil
}

func (t *tale) watchRepeats(ctx context.Context) error {
	if err := t.repeats(ctx, "arena", "its heart zones", t.recall("arena")); err != nil {
		return err
	}
	return t.repeats(ctx, "clinic", "its places", t.recall("clinic"))
}

// pasteWatch is what may be tried in the story.
func pasteWatch(s *setup) []string {
	w, program := s.sensors[0], program()
	host, port, _ := strings.Cut(w.address, ":")
	return []string{
		"See the jobs of both worlds, and of one all that was signed of it:",
		fmt.Sprintf("  %s job list --party arena; %s job list --party clinic", program, program),
		"Watch live what the clinic gets:",
		fmt.Sprintf("  %s avatar watch %s", program, w.mappings["clinic"].Avatar),
		"Where could arena have its heart rates computed over, and what would leave for it?",
		fmt.Sprintf("  %s job plan --party arena --avatar %s --query 'SELECT avg(value) FROM measurements' --property heart_rate", program, w.mappings["arena"].Avatar),
		"Send a measurement of your own:",
		fmt.Sprintf("  mosquitto_pub -h %s -p %s --cafile hub/ca.pem -u %s -P %s -q 1 -V 5 -t things/%s/measurements -m '[{\"n\":\"heart_rate\",\"v\":142}]'", host, port, w.id, w.password, w.id),
		"Is anything half done?",
		fmt.Sprintf("  %s doctor", program),
	}
}
