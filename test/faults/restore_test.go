package faults_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"carnet/avatar"
	"carnet/test/wait"
)

// copyData keeps a copy of a party's store, as a backup would, and returns what
// puts it back. The party has ended.
func (v *town) copyData(p *party) (restore func()) {
	v.t.Helper()
	if p.running() {
		v.t.Fatalf("%s runs", p.name)
	}
	kept := filepath.Join(v.t.TempDir(), "copy")
	if err := copyTree(kept, p.data()); err != nil {
		v.t.Fatal(err)
	}
	rows := func() {}
	if p.database != nil {
		rows = p.database.copied(v.t)
	}
	return func() {
		v.t.Helper()
		rows()
		if err := os.RemoveAll(p.data()); err != nil {
			v.t.Fatal(err)
		}
		if err := copyTree(p.data(), kept); err != nil {
			v.t.Fatal(err)
		}
		private(v.t, p.data())
	}
}

// private takes from others what a copy gave them: a store that others can read
// is refused.
func private(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// heard reads how often the clinic holds each heart rate: its view lets every
// one through.
func (v *town) heard(w *watch) map[int64]int {
	v.t.Helper()
	clinic := v.inspect(v.clinic)
	defer clinic.Close()
	times := make(map[int64]int)
	err := clinic.World.EachHeld(v.t.Context(), w.mappings["clinic"].Avatar, func(h avatar.Held) error {
		if h.Measurement.Name == "heart_rate" {
			times[h.Measurement.Time]++
		}
		return nil
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return times
}

// wantHeardOnce checks that the clinic holds every message's heart rate once.
func (v *town) wantHeardOnce(w *watch) {
	v.t.Helper()
	times := v.heard(w)
	lost, doubled := 0, 0
	for _, pack := range w.packs {
		switch n := times[pack[0].Time]; {
		case n == 0:
			lost++
		case n > 1:
			doubled++
		}
	}
	if lost > 0 || doubled > 0 || len(times) != len(w.packs) {
		v.t.Errorf("of %d messages the clinic lacks %d and has %d twice; it has %d", len(w.packs), lost, doubled, len(times))
	}
}

// endAll ends the parties in good order.
func (v *town) endAll() {
	v.t.Helper()
	for _, p := range v.parties() {
		if code := p.end(v.t); code != 0 {
			v.t.Errorf("%s ended with %d", p.name, code)
		}
	}
}

// TestAgentRestored gives the agent an older copy of its store (rows T7, L13).
// The worlds are ahead of it then, and its log gives out positions again.
func TestAgentRestored(t *testing.T) {
	t.Parallel()
	agentRestored(t, newTown(t))
}

func TestAgentRestoredOnPostgres(t *testing.T) {
	t.Parallel()
	agentRestored(t, newTown(t, onPostgres))
}

func agentRestored(t *testing.T, v *town) {
	w := v.addWatch()
	w.prompt = true
	w.send(40)
	v.settle()
	v.hub.end(t)
	restore := v.copyData(v.hub)
	v.restart(v.hub)
	w.send(40)
	v.settle()
	v.hub.kill(t)
	restore()
	v.restart(v.hub)
	w.send(40)
	v.settle()
	v.endAll()
	v.wantHeardOnce(w)
	v.wantProved(w)
}

// wantProved checks the worlds' evidence, where the agent's log can't say any
// more what they should hold.
func (v *town) wantProved(w *watch) {
	v.t.Helper()
	for _, p := range v.worlds() {
		world := v.inspect(p)
		report, err := v.prove(v.t.Context(), world, p, w.mappings[p.name].Avatar)
		if err != nil || report.Verdict != 0 {
			v.t.Errorf("the evidence of %s: %v\n%s", p.name, err, report.Summary())
		}
		if err := world.Close(); err != nil {
			v.t.Error(err)
		}
	}
}

// TestWorldRestored gives a world an older copy of its store (row L14). The
// agent alarms, and sends again what its log has.
func TestWorldRestored(t *testing.T) {
	t.Parallel()
	v := newTown(t)
	w := v.addWatch()
	w.prompt = true
	w.send(40)
	v.settle()
	v.clinic.end(t)
	restore := v.copyData(v.clinic)
	v.restart(v.clinic)
	w.send(40)
	v.settle()
	v.clinic.kill(t)
	restore()
	v.restart(v.clinic)
	w.send(40)
	v.judge(w)
	v.wantHeardOnce(w)
	if !strings.Contains(v.clinic.log.String(), "a link needs a person's look") {
		t.Error("the clinic raises no alarm")
	}
}

// TestTwoAgents runs a second process on a copy of the agent's store (row L15).
// The newer registration fences the older process, which stops for good; started
// again it is the newest.
func TestTwoAgents(t *testing.T) {
	t.Parallel()
	v := newTown(t)
	w := v.addWatch()
	w.prompt = true
	w.send(20)
	v.settle()
	v.hub.end(t)
	twin := v.twin(v.hub)
	v.restart(v.hub)
	v.linked()
	twin.start(t)
	v.await(twin)
	defer func() {
		if twin.running() {
			twin.kill(t)
		}
	}()
	w.send(20)
	const fenced = "nothing more is sent to a world until this agent is started again"
	wait.Until(t, "both links of the older process are fenced", func() bool { return strings.Count(v.hub.log.String(), fenced) >= 2 })
	w.send(20) // it goes on taking what its devices send
	twin.kill(t)
	v.hub.kill(t)
	v.restart(v.hub)
	v.judge(w)
	v.wantHeardOnce(w)
}

// twin copies a party that has ended, with addresses of its own.
func (v *town) twin(p *party) *party {
	v.t.Helper()
	twin := &party{name: p.name, role: p.role, dir: filepath.Join(v.t.TempDir(), "twin"), token: p.token}
	if err := copyTree(twin.dir, p.dir); err != nil {
		v.t.Fatal(err)
	}
	private(v.t, twin.dir)
	text, err := os.ReadFile(twin.file())
	if err != nil {
		v.t.Fatal(err)
	}
	for _, address := range []string{p.config.Listen.HTTP, p.config.Listen.MQTT} {
		text = []byte(strings.ReplaceAll(string(text), address, freeAddress(v.t)))
	}
	if err := os.WriteFile(twin.file(), text, 0o600); err != nil {
		v.t.Fatal(err)
	}
	v.know(twin)
	return twin
}

// copyTree copies a party's directory, but for the sockets of its process.
func copyTree(to, from string) error { return os.CopyFS(to, withoutSockets{os.DirFS(from)}) }

type withoutSockets struct{ fs.FS }

// ReadDir implements fs.ReadDirFS.
func (f withoutSockets) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(f.FS, name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool { return e.Type()&fs.ModeSocket != 0 }), err
}
