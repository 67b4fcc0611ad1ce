package demo

import (
	"database/sql"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/item"
	"carnet/modules/moduletest"
)

// told tells a story as fast as it goes, and returns what was judged.
func told(t *testing.T, name string) (*setup, *seen, Options) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes some 20 seconds")
	}
	var s *setup
	var v *seen
	o := Options{
		Story: name, Times: "now", Speed: 0, For: 20 * time.Second, Data: filepath.Join(t.TempDir(), "d"), Encoding: "json", Keystore: openPocket,
		Modules: func(name string) ([]byte, error) { return moduletest.Build(t, name), nil }, Log: slog.New(slog.DiscardHandler), Progress: t.Output(),
		judged: func(of *setup, by *seen) { s, v = of, by },
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
	return s, v, o
}

// copied is what was seen, so that it can be spoiled.
func (v *seen) copied() *seen {
	c, r := *v, *v.report
	r.Jobs, r.Moves, r.Items = slices.Clone(r.Jobs), slices.Clone(r.Moves), slices.Clone(r.Items)
	for i := range r.Items {
		r.Items[i].States = maps.Clone(r.Items[i].States)
	}
	c.report = &r
	c.pending, c.mapped, c.former, c.current = maps.Clone(c.pending), maps.Clone(c.mapped), maps.Clone(c.former), maps.Clone(c.current)
	c.sensed, c.held, c.state, c.ids = cloned(c.sensed), cloned(c.held), cloned(c.state), cloned(c.ids)
	c.left, c.inputs = cloned(c.left), cloned(c.inputs)
	return &c
}

func cloned[K comparable, V any](m map[K][]V) map[K][]V {
	c := make(map[K][]V)
	for k, v := range m {
		c[k] = slices.Clone(v)
	}
	return c
}

// plant adds a measurement to what a world holds.
func (v *seen) plant(world carnet.PartyID, name string, value float64) {
	v.held[world] = append(v.held[world], avatar.Held{Measurement: carnet.Measurement{Name: name, Value: carnet.Float(value)}})
}

// without takes a property away from what a world holds.
func (v *seen) without(world carnet.PartyID, which func(avatar.Held) bool) {
	v.held[world] = slices.DeleteFunc(v.held[world], which)
}

type spoil map[string]func(*seen)

// ofEach are the causes that break the checks of each story.
var ofEach = spoil{
	"told-to-the-end": func(v *seen) { v.told = "act 2 of 7, arena has forge compute: it ended as failed" },
	"devices-acknowledged": func(v *seen) {
		v.report.Device.Refused, v.report.Device.Acknowledged = 1, v.report.Device.Acknowledged-1
	},
	"passed-on":         func(v *seen) { v.report.Settled = false },
	"nothing-lost":      func(v *seen) { v.report.Lost = 1 },
	"nothing-doubled":   func(v *seen) { v.report.Doubled = 1 },
	"nothing-extra":     func(v *seen) { v.report.Extra = 1 },
	"nothing-reordered": func(v *seen) { v.report.Reordered = 1 },
	"evidence-true":     func(v *seen) { v.report.Verified = false },
	"all-receipted":     func(v *seen) { v.pending["hub"] = 1 },
	"nothing-half-done": func(v *seen) { v.half = []string{"hub: peering vault: it can't be reached"} },
	"jobs-as-ordered":   func(v *seen) { v.report.Jobs[0].atDPM = "forge has another order" },
	"times-recorded":    func(v *seen) { v.report.Jobs[0].Began = v.report.Jobs[0].Made.Add(-time.Minute) },
	"content-recorded":  func(v *seen) { v.report.Jobs[0].content = "its result names another program" },
	"jobs-stated":       func(v *seen) { v.report.Jobs[0].stated = "forge has no receipted statement that it ended" },
	"modules-signed":    func(v *seen) { v.report.Jobs[0].unsigned = "nobody signed what ran" },
	"repeated-alike": func(v *seen) {
		for i := range v.report.Jobs {
			if v.report.Jobs[i].Repeats != nil {
				v.report.Jobs[i].Output[0] ^= 1
				return
			}
		}
	},
	"job-keys-destroyed":   func(v *seen) { v.left["forge"] = []string{"the key 00"} },
	"outputs-in-the-depot": func(v *seen) { v.report.Jobs[0].stored = false },
	"depot-reads-nothing":  func(v *seen) { v.depot = []string{"state.db has \"runner\""} },
	"dpm-knows-no-names":   func(v *seen) { v.dpms = []string{"state.db has \"runner\""} },
	"worlds-apart":         func(v *seen) { v.foreign = []string{"forge has the job 1 of arena, which doesn't"} },
}

// fails spoils what was seen in each way, and wants the check of it to fail and to say
// why; each check must have such a way.
func fails(t *testing.T, v *seen, checks []check, ways ...spoil) {
	t.Helper()
	all := make(spoil)
	for _, w := range ways {
		maps.Copy(all, w)
	}
	for _, c := range checks {
		way := all[c.name]
		if way == nil {
			t.Errorf("nothing breaks %s", c.name)
			continue
		}
		spoiled := v.copied()
		way(spoiled)
		if got := spoiled.judged([]check{c})[0]; got.OK || !strings.Contains(got.Detail, "expected ") || strings.HasSuffix(got.Detail, "expected ") {
			t.Errorf("its cause is there, and %s says %v, %q", c.name, got.OK, got.Detail)
		}
		delete(all, c.name)
	}
	for name := range all {
		t.Errorf("there is no check %s", name)
	}
}

// on does something to a job that is asked for.
func on(world carnet.PartyID, program string, do func(*Job)) func(*seen) {
	return func(v *seen) { do(v.asked(world, program)) }
}

// The story of the watch is told, each of its checks fails by its cause, and those of
// what rests at the parties fail when the parties are spoiled.
func TestStoryWatch(t *testing.T) {
	t.Parallel()
	s, v, o := told(t, "watch")
	if t.Failed() {
		return
	}
	elsewhere := func(dpm carnet.PartyID, by ...carnet.PartyID) func(*seen) {
		return func(v *seen) {
			for i := range v.report.Jobs {
				if j := &v.report.Jobs[i]; j.At == dpm && (len(by) == 0 || j.World == by[0]) {
					j.Outcome = "failed"
				}
			}
		}
	}
	fails(t, v, watchStory.checks, ofEach, spoil{
		"several-sensors":          func(v *seen) { v.sensed["watch"] = []string{"heart_rate"} },
		"arena-sees-its-view":      func(v *seen) { v.plant("arena", "stress", 20) },
		"clinic-sees-its-view":     func(v *seen) { v.plant("clinic", "speed", 2) },
		"arena-heart-rate-rounded": func(v *seen) { v.plant("arena", "heart_rate", 71) },
		"clinic-heart-rate-exact":  func(v *seen) { v.plant("clinic", "heart_rate", 300) },
		"clinic-position-coarse": func(v *seen) {
			for _, m := range v.logged {
				if m.Name == "position/lat" {
					v.plant("clinic", m.Name, m.Value.Num)
				}
			}
		},
		"worlds-unlinked":      func(v *seen) { v.ids["arena"] = append(v.ids["arena"], v.ids["clinic"][1]) },
		"arena-jobs-done":      on("arena", "motion", func(j *Job) { j.Outcome = "failed" }),
		"clinic-jobs-done":     on("clinic", stressQuery, func(j *Job) { j.Outcome = "lied" }),
		"two-dpms":             elsewhere("lab"),
		"each-dpm-serves-both": elsewhere("forge", "clinic"),
		"heart-zones-right": func(v *seen) {
			id := v.asked("arena", "heartzones").ID
			v.inputs[id] = v.inputs[id][1:]
		},
		"labels-kept":      on("arena", "motion", func(j *Job) { j.label.Sensitivity |= carnet.Location }),
		"place-refused":    on("clinic", placesQuery, func(j *Job) { j.At = "forge" }),
		"withdrawn-signed": on("clinic", endlessQuery, func(j *Job) { j.Outcome = "done" }),
	})
	s.spoiled(t, v, o)
}

// spoiled spoils the parties' files, one after the other, and reads all of them anew.
func (s *setup) spoiled(t *testing.T, v *seen, o Options) {
	t.Helper()
	write := func(text string, path ...string) func() {
		return func() {
			file := filepath.Join(append([]string{s.dir}, path...)...)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	execute := func(party, statement string) func() {
		return func() {
			db, err := sql.Open("sqlite", filepath.Join(s.dir, party, "data", "state.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if r, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			} else if n, _ := r.RowsAffected(); n == 0 {
				t.Fatalf("%s changed nothing at %s", statement, party)
			}
		}
	}
	for _, spoil := range []struct {
		check string
		by    func()
	}{
		{"depot-reads-nothing", write(`its title is "runner"`, "vault", "data", "left")},
		{"dpm-knows-no-names", write("about "+v.ids["arena"][0], "lab", "data", "left")},
		{"job-keys-destroyed", write("content", "forge", "data", "jobs", "arena.00", "content")},
		{"all-receipted", execute("lab", "UPDATE dpm_statement SET receipt = NULL")},
		{"modules-signed", execute("clinic", "DELETE FROM world_document WHERE kind = 'module'")},
		{"jobs-stated", execute("clinic", "UPDATE world_statement SET receipt = NULL")},
		{"outputs-in-the-depot", func() { s.removeObjects(t) }},
		{"worlds-apart", execute("arena", "DELETE FROM world_document WHERE kind = 'job'")},
	} {
		spoil.by()
		r := *v.report
		if _, err := s.check(t.Context(), &r, o); err != nil {
			t.Fatalf("%s: %v", spoil.check, err)
		}
		i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == spoil.check })
		if r.Checks[i].OK {
			t.Errorf("the parties are spoiled, and %s says %q", spoil.check, r.Checks[i].Detail)
		}
	}
}

// removeObjects deletes the bodies of the vault's objects.
func (s *setup) removeObjects(t *testing.T) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(s.dir, "vault", "data", "objects"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
			return os.Remove(path)
		}
		return err
	})
	if err != nil || n == 0 {
		t.Fatalf("removed %d objects: %v", n, err)
	}
}

// The story of the game is told, and each of its checks fails by its cause.
func TestStoryGame(t *testing.T) {
	t.Parallel()
	s, v, o := told(t, "game")
	if t.Failed() {
		return
	}
	onMove := func(do func(*Move)) func(*seen) { return func(v *seen) { do(&v.report.Moves[0]) } }
	onItem := func(kind string, do func(*Item)) func(*seen) { return func(v *seen) { do(v.carried(kind)) } }
	fails(t, v, gameStory.checks, ofEach, spoil{
		"several-senses":           func(v *seen) { v.sensed["band"] = nil },
		"one-avatar-of-two-things": func(v *seen) { v.mapped["band in citadel"] = carnet.AvatarID{1} },
		"one-home":                 onMove(func(m *Move) { m.Leaving = "frozen" }),
		"registered-once":          onMove(func(m *Move) { m.Outcome = "" }),
		"ordered-by-the-owner":     onMove(func(m *Move) { m.mandated = "it is by another key than the registered one" }),
		"same-manifest":            onMove(func(m *Move) { m.manifests = false }),
		"history-came": func(v *seen) {
			i := slices.IndexFunc(v.held["citadel"], func(h avatar.Held) bool { return v.former[h.Stream] })
			v.held["citadel"] = slices.Delete(v.held["citadel"], i, i+1)
		},
		"state-came":       func(v *seen) { v.state["citadel"] = v.state["citadel"][:3] },
		"arena-emptied":    func(v *seen) { v.plant("arena", "head/x", 0) },
		"frozen-shortly":   onMove(func(m *Move) { m.Frozen = 2.5 }),
		"plays-on":         func(v *seen) { v.without("citadel", func(h avatar.Held) bool { return v.current[h.Stream] == "band" }) },
		"sword-carried":    onItem("sword", func(i *Item) { i.power = 80.0 }),
		"skin-carried":     onItem("skin", func(i *Item) { i.As = "skin" }),
		"items-once":       onItem("sword", func(i *Item) { i.States["arena"] = item.Here }),
		"items-proved":     onItem("skin", func(i *Item) { i.Entries = 1 }),
		"move-stated":      func(v *seen) { v.moved = []string{"arena", "citadel"} },
		"dpm-used":         on("citadel", warmth, func(j *Job) { j.Outcome = "expired" }),
		"over-both-halves": func(v *seen) { clear(v.former) },
		"gaze-map-right": func(v *seen) {
			id := v.asked("citadel", "gazemap").ID
			i := slices.IndexFunc(v.inputs[id], func(m carnet.Measurement) bool { return m.Name == "gaze/w" })
			v.inputs[id] = slices.Delete(v.inputs[id], i, i+1)
		},
		"temperature-right": func(v *seen) {
			id := v.asked("citadel", warmth).ID
			v.inputs[id][0].Value = carnet.Float(44)
		},
	})
	s.spoiledGame(t, v, o)
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
