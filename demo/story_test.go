package demo

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/capsule"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/item"
	"carnet/keys"
	"carnet/modules/moduletest"
	"carnet/node"
)

// told tells a story as fast as it goes, and returns what was judged.
func told(t *testing.T, name string) (*setup, *played, *seen, Options) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes some 20 seconds")
	}
	var s *setup
	var p *played
	var v *seen
	o := Options{
		Story: name, Times: "now", Speed: 0, For: 20 * time.Second, Data: filepath.Join(t.TempDir(), "d"), Encoding: "json", Keystore: openPocket,
		Modules: func(name string) ([]byte, error) { return moduletest.Build(t, name), nil }, Log: slog.New(slog.DiscardHandler), Progress: t.Output(),
		judged: func(of *setup, was *played, by *seen) { s, p, v = of, was, by },
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if !c.OK || c.Detail == "" {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	if !r.Good() || len(r.Checks) < 20 {
		t.Errorf("%d checks; %v", len(r.Checks), r.Findings)
	}
	admitted(t, r)
	return s, p, v, o
}

// cast is who of a story spoils what each story has.
type cast struct {
	world      carnet.PartyID // that hub tells something to the end
	thing      string         // that it is told of
	properties []string       // of the thing, without a rate
	dpm        carnet.PartyID // that did
	query      string         // for the world
	modules    carnet.PartyID // a world that had modules run
	lost       func(*spoiled) // what has the world lack something, and nothing else
	content    string         // what fails, too, when a job is said to be of other inputs
	astray     astray
}

// ofEach are the causes that break the checks of each story.
func (c cast) ofEach() []spoil {
	return []spoil{
		{"told-to-the-end devices-acknowledged passed-on nothing-half-done", "", func(x *spoiled) { x.again(c.astray) }},
		{"nothing-lost", "", c.lost},
		{"nothing-doubled", "", func(x *spoiled) {
			x.lie(c.world, x.held(c.world, c.thing).another(c.properties[0], func(*carnet.Measurement) {}))
		}},
		{"nothing-extra", "", func(x *spoiled) {
			x.lie(c.world, x.held(c.world, c.thing).another(c.properties[0], func(m *carnet.Measurement) { m.Value.Num++ }))
		}},
		{"nothing-reordered", "", func(x *spoiled) { x.twisted(c.world, c.thing, c.properties...) }},
		{"evidence-true", "", func(x *spoiled) {
			x.execute(c.world, "UPDATE world_statement SET receipt = (SELECT receipt FROM world_statement ORDER BY id LIMIT 1) WHERE id IN (SELECT statement FROM world_frame)")
		}},
		{"all-receipted", "", func(x *spoiled) {
			x.execute("hub", "UPDATE thing_statement SET receipt = NULL WHERE id = (SELECT min(id) FROM thing_statement)")
		}},
		{"jobs-as-ordered", "", func(x *spoiled) {
			var other any
			is := func(id string) bool { return strings.HasSuffix(id, x.was.asked(c.world, c.query).ID.String()) }
			x.rewrite(c.dpm, "job", func(id string, d document) bool {
				if !is(id) {
					other = d["result"]
				}
				return true
			})
			x.rewrite(c.dpm, "job", func(id string, d document) bool {
				d["result"] = other
				return is(id)
			})
		}},
		{"times-recorded", "", func(x *spoiled) {
			x.job(c.world, c.query, func(d document) {
				d["stand"].(document)["ended"] = x.was.asked(c.world, c.query).Made.Add(-time.Minute)
			})
		}},
		{"content-recorded", c.content, func(x *spoiled) {
			x.job(c.world, c.query, func(d document) {
				input := d["task"].(document)["inputs"].([]any)[0].(document)
				input["fingerprint"] = flip(input["fingerprint"])
			})
		}},
		{"modules-signed", "", func(x *spoiled) {
			x.execute(c.modules, "DELETE FROM world_document WHERE kind = 'module'")
		}},
		{"jobs-stated", "", func(x *spoiled) { x.mixUp(c.dpm) }},
		{"repeated-alike", "jobs-stated evidence-true", func(x *spoiled) { x.repeatsAnother(c.world) }},
		{"job-keys-destroyed", "", func(x *spoiled) {
			x.write("content", string(c.dpm), "data", "jobs", string(c.world)+".00", "content")
		}},
		{"outputs-in-the-depot", "", func(x *spoiled) {
			x.job(c.world, c.query, func(d document) {
				x.execute("vault", "DELETE FROM depot_object WHERE hex(fingerprint) = upper(?)", d["stored"])
			})
		}},
		{"depot-reads-nothing", "", func(x *spoiled) { x.write(`its thing is `+string(x.sensors[0].id), "vault", "data", "left") }},
		{"dpm-knows-no-names", "", func(x *spoiled) { x.write("about "+x.was.ids[c.world][0], string(c.dpm), "data", "left") }},
		{"worlds-apart", "", func(x *spoiled) {
			var of document
			x.rewrite(c.dpm, "job", func(_ string, d document) bool {
				of = d
				return true
			})
			x.insert(c.dpm, "job", string(c.world)+"."+carnet.NewJobID().String(), of)
		}},
	}
}

// repeatsAnother has a world sign, and compare, another output of what it repeated.
func (x *spoiled) repeatsAnother(world carnet.PartyID) {
	x.t.Helper()
	var key ed25519.PrivateKey
	x.inspect(world, func(i *node.Inspection) { key = i.Self.Key })
	x.rewrite(world, "job", func(_ string, d document) bool {
		if d["repeats"] == nil {
			return false
		}
		stand := d["stand"].(document)
		r, err := capsule.OpenResult(stand["result"].(string), key.Public().(ed25519.PublicKey))
		x.must(err)
		r.Output.Fingerprint[0] ^= 1
		stand["result"], err = r.Sign(key)
		x.must(err)
		return true
	})
}

// later has a world say that a job is of what was measured after the first that it is of.
func (x *spoiled) later(world carnet.PartyID, program string) {
	x.t.Helper()
	first := int64(math.MaxInt64)
	for _, m := range x.was.inputs[x.was.asked(world, program).ID] {
		first = min(first, m.Time)
	}
	x.job(world, program, func(d document) { d["task"].(document)["from"] = first + 1 })
}

// The story of the watch is told, and each of its checks fails by its cause.
func TestStoryWatch(t *testing.T) {
	t.Parallel()
	s, p, v, o := told(t, "watch")
	if t.Failed() {
		return
	}
	tells := func(world carnet.PartyID, name string, value float64) func(*spoiled) {
		return func(x *spoiled) {
			s := x.held(world, "watch")
			s.all = []carnet.Measurement{{Name: name, Time: s.all[0].Time, Value: carnet.Float(value)}}
			x.lie(world, s)
		}
	}
	s.causes(t, v, p, o, append(cast{
		world: "clinic", thing: "watch", properties: []string{"stress", "heart_rate", "position/lat", "position/lon"}, dpm: "lab", query: stressQuery, modules: "arena", content: "evidence-true",
		lost:   func(x *spoiled) { x.forgets("clinic", 1) },
		astray: astray{act: s.script.acts[3], dpm: "lab", late: "clinic", world: "arena"},
	}.ofEach(), []spoil{
		{"several-sensors", "nothing-extra clinic-heart-rate-exact", func(x *spoiled) { x.execute("hub", "DELETE FROM thing_log") }},
		{"arena-sees-its-view", "nothing-extra", tells("arena", "stress", 20)},
		{"clinic-sees-its-view", "nothing-extra", tells("clinic", "speed", 2)},
		{"arena-heart-rate-rounded", "nothing-extra", tells("arena", "heart_rate", 71)},
		{"clinic-heart-rate-exact", "nothing-extra", tells("clinic", "heart_rate", 250)},
		{"clinic-position-coarse", "nothing-extra", func(x *spoiled) {
			for _, m := range x.was.logged {
				if m.Name == "position/lat" {
					tells("clinic", m.Name, m.Value.Num)(x)
					return
				}
			}
		}},
		{"worlds-unlinked", "", func(x *spoiled) {
			x.keys("hub", func(ctx context.Context, t *keys.Table) {
				secret, err := t.Get(ctx, keys.ID{Kind: "sign", Name: "arena"})
				x.must(err)
				clinics := keys.ID{Kind: "sign", Name: "clinic"}
				x.must(t.Destroy(ctx, clinics))
				x.must(t.Put(ctx, keys.Entry{ID: clinics, Secret: secret}))
			})
		}},
		{"arena-jobs-done", "evidence-true", func(x *spoiled) { x.job("arena", "motion", end("failed")) }},
		{"clinic-jobs-done", "evidence-true", func(x *spoiled) { x.job("clinic", stressQuery, end("lied")) }},
		{"two-dpms", "each-dpm-serves-both arena-jobs-done clinic-jobs-done evidence-true", func(x *spoiled) {
			x.job("arena", "stepcadence", end("silent"))
			x.job("clinic", stressQuery, end("silent"))
			x.job("clinic", placesQuery, end("silent"))
		}},
		{"each-dpm-serves-both", "clinic-jobs-done evidence-true", func(x *spoiled) { x.job("clinic", "heartzones", end("refused")) }},
		{"heart-zones-right", "", func(x *spoiled) { x.later("arena", "heartzones") }},
		{"labels-kept", "outputs-in-the-depot", func(x *spoiled) {
			x.job("arena", "motion", func(d document) { d["label"].(document)["sensitivity"] = "personal+health+location" })
		}},
		{"place-refused", "", func(x *spoiled) {
			var found activity.Found
			x.inspect("clinic", func(i *node.Inspection) {
				var err error
				found, err = i.Parts().Activity.Page(x.t.Context(), activity.Query{Action: "run-job", Refused: true})
				x.must(err)
			})
			x.in("clinic", "activity.db", func(db *sql.DB) {
				for _, r := range found.Records {
					x.change(db, "DELETE FROM activity_row WHERE id = ?", r.ID)
				}
			})
		}},
		{"withdrawn-signed", "evidence-true", func(x *spoiled) { x.job("clinic", endlessQuery, end("expired")) }},
	}...)...)
}

// The story of the game is told, and each of its checks fails by its cause.
func TestStoryGame(t *testing.T) {
	t.Parallel()
	s, p, v, o := told(t, "game")
	if t.Failed() {
		return
	}
	foreign := func(as string, change func(looks document)) func(*spoiled) {
		return func(x *spoiled) {
			x.rewrite("citadel", "item", func(_ string, d document) bool {
				looks, _ := d["looks"].(document)
				if looks["kind"] != as {
					return false
				}
				change(looks)
				return true
			})
		}
	}
	s.causes(t, v, p, o, append(cast{
		world: "citadel", thing: "band", properties: []string{"body_temperature"}, dpm: "forge", query: warmth, modules: "citadel",
		lost: func(x *spoiled) { // what hub recorded that it was to have
			x.rewrite("hub", "view", func(_ string, d document) bool {
				of, found := d["view"].(document)["properties"].(document)["temperature"].(document)
				delete(of, "rate")
				return found
			})
		},
		astray: astray{act: s.script.acts[6], dpm: "forge", late: "arena", world: "citadel"},
	}.ofEach(), []spoil{
		{"several-senses", "nothing-extra", func(x *spoiled) { x.execute("hub", "DELETE FROM thing_log") }},
		{"one-avatar-of-two-things", "", func(x *spoiled) {
			x.rewrite("hub", "mapping", func(_ string, d document) bool {
				is := d["thing"] == string(x.sensors[1].id) && d["moved"] != nil
				if is {
					d["avatar"] = carnet.NewAvatarID()
				}
				return is
			})
		}},
		{"one-home", "", func(x *spoiled) { x.set("arena", "move-source", "state", move.Frozen) }},
		{"registered-once", "", func(x *spoiled) {
			x.rewrite("arena", "move-source", func(_ string, d document) bool {
				said, err := identity.OpenDecision(d["decision"].(string))
				x.must(err)
				var key ed25519.PrivateKey
				key, said.Registrar = stranger()
				d["decision"], err = identity.SignDecision(key, said)
				x.must(err)
				return true
			})
		}},
		{"ordered-by-the-owner", "", func(x *spoiled) {
			var order string
			x.rewrite("arena", "move-source", func(_ string, d document) bool {
				said, err := identity.OpenOrder(d["order"].(string))
				x.must(err)
				var key ed25519.PrivateKey
				key, said.Owner = stranger()
				order, err = identity.SignOrder(key, said)
				x.must(err)
				d["order"] = order
				return true
			})
			x.set("citadel", "move-target", "order", order)
		}},
		{"same-manifest", "", func(x *spoiled) {
			x.rewrite("citadel", "move-target", func(_ string, d document) bool {
				said, err := identity.OpenAcceptance(d["acceptance"].(string))
				x.must(err)
				var key ed25519.PrivateKey
				key, said.Target = stranger() // the check is of what is said
				said.Manifest[0] ^= 1
				d["acceptance"], err = identity.SignAcceptance(key, said)
				x.must(err)
				return true
			})
		}},
		{"history-came", "nothing-lost over-both-halves gaze-map-right", func(x *spoiled) {
			x.execute("citadel", "DELETE FROM world_stretch WHERE id = (SELECT id FROM world_stretch ORDER BY measurements DESC LIMIT 1)")
		}},
		{"state-came", "", func(x *spoiled) { x.forgetsState("citadel", "temperature") }},
		{"arena-emptied", "", func(x *spoiled) { x.set("arena", "move-source", "departure", "") }},
		{"frozen-shortly", "", func(x *spoiled) {
			x.rewrite("arena", "move-source", func(_ string, d document) bool {
				for _, step := range d["steps"].([]any) {
					if s := step.(document); s["state"] == string(move.Frozen) {
						at, err := time.Parse(time.RFC3339Nano, s["time"].(string))
						x.must(err)
						s["time"] = at.Add(-3 * time.Second)
					}
				}
				return true
			})
		}},
		{"plays-on", "nothing-lost over-both-halves gaze-map-right temperature-right", func(x *spoiled) { x.forgets("citadel", 1000) }},
		{"sword-carried", "", foreign("blade", func(looks document) { looks["attributes"].(document)["power"] = 80 })},
		{"skin-carried", "", foreign("coat", func(looks document) { looks["kind"] = "skin" })},
		{"items-once", "", func(x *spoiled) { x.set("arena", "item", "state", item.Here) }},
		{"items-proved", "", func(x *spoiled) {
			x.rewrite("citadel", "item-chain", func(_ string, d document) bool {
				entries := d["entries"].([]any)
				d["entries"] = entries[:len(entries)-1]
				return true
			})
		}},
		{"move-stated", "", func(x *spoiled) { x.mixUp("arena") }},
		{"dpm-used", "evidence-true", func(x *spoiled) { x.job("citadel", warmth, end("expired")) }},
		{"over-both-halves", "gaze-map-right evidence-true?", func(x *spoiled) {
			came := make(map[string]bool) // streams of before, as citadel calls them
			x.in("citadel", "state.db", func(db *sql.DB) {
				rows, err := db.QueryContext(x.t.Context(), "SELECT DISTINCT lower(hex(stream)) FROM world_stretch")
				x.must(err)
				defer rows.Close()
				for rows.Next() {
					var stream string
					x.must(rows.Scan(&stream))
					came[stream] = true
				}
			})
			x.job("citadel", "gazemap", func(d document) {
				d["pins"] = slices.DeleteFunc(d["pins"].([]any), func(p any) bool { return came[p.(document)["stream"].(string)] })
			})
		}},
		{"gaze-map-right", "", func(x *spoiled) { x.later("citadel", "gazemap") }},
		{"temperature-right", "", func(x *spoiled) { x.later("citadel", warmth) }},
	}...)...)
}

// stranger is a key that nobody knows, with its did:key.
func stranger() (ed25519.PrivateKey, string) {
	public, key, _ := ed25519.GenerateKey(nil)
	return key, identity.DID(public)
}

// forgetsState has a world forget the newest value of a property, and fold nothing anew.
func (x *spoiled) forgetsState(world carnet.PartyID, property string) {
	x.t.Helper()
	x.rewrite(world, "state", func(_ string, d document) bool {
		latest := d["latest"].([]any)
		d["latest"] = slices.DeleteFunc(latest, func(v any) bool { return v.(document)["n"] == property })
		return len(d["latest"].([]any)) < len(latest)
	})
	x.insert(world, "fold", "frames", document{"folded": int64(1) << 40})
}

// The page of the stories has every check of the program in its tables, and no other.
func TestChecks(t *testing.T) {
	text, err := os.ReadFile("../docs/design/stories.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tables, _ := strings.Cut(string(text), "\n## Checks\n")
	for _, s := range stories {
		_, own, found := strings.Cut(tables, fmt.Sprintf("\n### %s\n", s.name))
		if !found {
			t.Fatalf("the page has no checks of %s", s.name)
		}
		own, _, _ = strings.Cut(own, "\n### ")
		common, _, _ := strings.Cut(tables, "\n### ")
		said := make(map[string]bool)
		for _, row := range regexp.MustCompile("(?m)^\\| `.*").FindAllString(common+own, -1) {
			first, _, _ := strings.Cut(row[1:], "|")
			for _, name := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(first, -1) {
				said[name[1]] = true
			}
		}
		for _, c := range s.checks {
			if !said[c.name] {
				t.Errorf("%s: the page lacks %s", s.name, c.name)
			}
			delete(said, c.name)
		}
		for name := range said {
			t.Errorf("%s: there is no check %s", s.name, name)
		}
	}
}
