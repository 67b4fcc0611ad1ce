package demo

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/access"
	"carnet/evidence"
	"carnet/identity"
	"carnet/wire/file"
)

// plays plays recordings into a directory, and wants nothing wrong.
func plays(t *testing.T, dir string, o Options) *Report {
	t.Helper()
	o.Times, o.Data, o.Encoding, o.Keystore, o.Log = "keep", dir, "json", openPocket, slog.New(slog.DiscardHandler)
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Good() {
		t.Fatalf("%+v", r)
	}
	admitted(t, r)
	return r
}

func run(t *testing.T, seed uint64, from time.Time) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run.fit")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.WriteFIT(f, file.Generate(seed, time.Minute, from)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func held(r *Report) map[string]int {
	all := make(map[string]int)
	for _, w := range r.Worlds {
		all[fmt.Sprint(w.ID, " ", w.Avatar)] = w.Measurements
	}
	return all
}

// A directory is played into again: the same recording adds nothing, another one
// adds its own, and what the worlds hold is checked over all of them.
func TestADemoGoesOn(t *testing.T) {
	t.Parallel() // some properties linger for ten seconds
	dir := t.TempDir()
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	morning, noon := run(t, 1, begin), run(t, 2, begin.Add(10*time.Minute))

	first := plays(t, dir, Options{Inputs: []string{morning}})
	sharesWell(t, first)
	old, err := access.Read(filepath.Join(dir, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	// A party of somebody's own in the demo's access file.
	old.Parties = append(old.Parties, access.Party{Name: "mine", Role: identity.World, HTTP: "https://localhost:1"})
	old.Tokens = append(old.Tokens, access.Token{Party: "mine", Name: "operator", Role: "administrator", Token: "t"})
	if err := old.Write(filepath.Join(dir, "demo.json")); err != nil {
		t.Fatal(err)
	}
	again := plays(t, dir, Options{Inputs: []string{morning}})
	if !reflect.DeepEqual(held(again), held(first)) || !reflect.DeepEqual(again.Shares, first.Shares) || again.Device.Acknowledged != first.Device.Acknowledged {
		t.Errorf("the same recording again: %v, %+v; it was %v, %+v", held(again), again.Device, held(first), first.Device)
	}
	if first.Duplicates != 0 || again.Duplicates != uint64(again.Device.Measurements) {
		t.Errorf("of %d measurements %d were there already, the first time %d", again.Device.Measurements, again.Duplicates, first.Duplicates)
	}
	now, err := access.Read(filepath.Join(dir, "demo.json"))
	if err == nil && (len(now.Users) != len(old.Users) || now.Users[0].Password == old.Users[0].Password) {
		t.Errorf("the console's users are %+v and were %+v: want other passwords", now.Users, old.Users)
	}
	old.Users = now.Users
	if err != nil || !reflect.DeepEqual(now, old) {
		t.Errorf("demo.json is now\n%+v\nand was\n%+v (%v)", now, old, err)
	}

	// Another recording, on other ports, and a room joins. It stays though only the
	// watch is played then.
	rows := "date,temp,light\n"
	for i := range 20 {
		rows += fmt.Sprintf("%d,2%d.5,400\n", begin.Add(time.Duration(i)*time.Minute).Unix(), i%10)
	}
	csv := filepath.Join(t.TempDir(), "room.csv")
	if err := os.WriteFile(csv, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	other := plays(t, dir, Options{
		Inputs: []string{noon, csv}, Columns: []string{"date=time(s),temp=temperature[Cel],light=light[lx]"}, PortBase: portBase(t),
	})
	for world, n := range held(first) {
		if held(other)[world] <= n {
			t.Errorf("%s holds %d measurements after another recording, %d before", world, held(other)[world], n)
		}
	}
	if sharesWell(t, other); other.Shares[0].Taken <= first.Shares[0].Taken || other.Shares[0].ID != first.Shares[0].ID {
		t.Errorf("the share goes on as %+v, and was %+v", other.Shares, first.Shares)
	}
	last := plays(t, dir, Options{Inputs: []string{noon}})
	if len(last.Worlds) != 5 || !reflect.DeepEqual(held(last), held(other)) || !reflect.DeepEqual(last.Input, first.Input) || last.Device != first.Device {
		t.Errorf("after the room came: %+v; it was %+v", last, other)
	}
}

// portBase finds as many ports in a row that are free for now as a demo takes.
func portBase(t *testing.T) int {
	t.Helper()
search:
	for base := 20_000 + os.Getpid()%5_000; base < 32_000; base += Ports {
		for i := range Ports {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+i))
			if err != nil {
				continue search
			}
			l.Close()
		}
		return base
	}
	t.Fatal("not enough free ports in a row")
	return 0
}

func TestWhatCantGoOnIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := Options{Inputs: []string{run(t, 1, time.Now().Add(-time.Hour).Truncate(time.Second))}, Evidence: t.TempDir()}
	plays(t, dir, o)
	refused := func(name, dir, fix string, o Options) {
		t.Helper()
		o.Data, o.Times, o.Log = dir, "keep", slog.New(slog.DiscardHandler)
		if _, err := Run(t.Context(), o); carnet.CodeOf(err) != carnet.Conflict || !strings.Contains(err.Error(), fix) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("evidence of an earlier run", dir, "--evidence", o)
	o.Evidence = t.TempDir() // with a bundle of another demo
	if err := os.Mkdir(filepath.Join(o.Evidence, "arena-of-another"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Evidence, "arena-of-another", evidence.FileManifest), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("evidence of another demo", dir, "--evidence", o)
	o.Evidence = ""

	s, err := setUp(t.Context(), dir, plain, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", s.party("clinic").config.Listen.Link)
	if err != nil {
		t.Fatal(err)
	}
	refused("a demo that runs", dir, "--port-base", o)
	l.Close()

	if err := os.Remove(filepath.Join(dir, "demo.json")); err != nil {
		t.Fatal(err)
	}
	refused("a demo that was cut off", dir, "--data", o)
}

// Refusals are counted by reason, whatever times they name, and of this run only.
func TestRefusalsAreCountedByReason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := run(t, 1, time.Now().Add(-100*24*time.Hour).Truncate(time.Second))
	for range 2 {
		r := plays(t, dir, Options{Inputs: []string{old}})
		if len(r.Refusals) != 1 || r.Refusals[0].Code != carnet.TooOld || int64(r.Refusals[0].Messages) != r.Device.Refused || r.Device.Refused != 60 {
			t.Fatalf("%+v of %+v", r.Refusals, r.Device)
		}
		var text strings.Builder
		r.Write(&text)
		if !strings.Contains(text.String(), "refused of the watch: 60 × too_old, such as: ") || strings.Count(text.String(), "was measured at") != 1 {
			t.Error(text.String())
		}
		// Nothing was wrong, and nothing was tried: that is said, with the way out.
		if !r.NothingTaken() || r.RefusedOthers != 0 || !strings.Contains(text.String(), "every message was refused") || !strings.Contains(r.Refusals[0].Fix, "--times now") {
			t.Error(text.String())
		}
	}
}
