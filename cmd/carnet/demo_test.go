package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/td"
	"carnet/thing"
)

// TestInADemo is what somebody does beside a demo that runs, with nothing but
// its access file: nobody has to say as whom.
func TestInADemo(t *testing.T) {
	u := newUser(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience) // there is much to do
	t.Cleanup(cancel)
	u.ctx = ctx
	demo := u.starts("demo", "--data=d", "--speed=1", "--for=8m")
	demo.says(demo.err, "everything about this demo")
	file := "--access=d/demo.json"
	f, err := access.Read(filepath.Join(u.dir, "d/demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	watch := string(f.Things[0].ID)

	// A thing that is added is its owner's, who sees it and may stop it.
	u.write("mine.td.json", string(td.Watch()))
	u.write("view.json", `{"properties":{"heart_rate":{}},"purposes":["fitness"]}`)
	if out := u.does("thing", "add", file, "--id=mine", "--description=mine.td.json"); !strings.Contains(out, "mine of owner") {
		t.Errorf("added\n%s", out)
	}
	u.does("thing", "map", file, "mine", "--world=arena", "--view=view.json")
	r := u.try("", "owner", "show", file)
	if r.code != 0 || !strings.Contains(r.out, "mine of owner") || !strings.Contains(r.out, watch) || !strings.Contains(r.err, "--as operator") {
		t.Errorf("owner show: %+v", r)
	}
	u.sees([]string{"arena gets nothing more of mine"}, "owner", "stop", file, "mine/arena")
	u.sees([]string{"stopped: gets nothing more"}, "thing", "view", "explain", file, "mine/arena")
	u.sees([]string{"  stopped by owner at ", "; gets nothing more"}, "owner", "show", file)
	if r := u.try("", "thing", "view", "set", file, "mine/arena", "--file=view.json"); r.code != 1 || !strings.Contains(r.err, "map it again: carnet thing map mine --world arena --avatar ") {
		t.Errorf("view set on a mapping that is stopped: %+v", r)
	}

	// Somebody else's isn't the owner's to see, and the error says who sees it.
	reads[api.AddedThing](u, "thing", "add", file, "--id=bobs", "--owner=bob", "--description=mine.td.json")
	for _, args := range [][]string{{"owner", "show", file, "bob"}, {"owner", "stop", file, "bobs/arena"}} {
		if r := u.try("", args...); r.code != 1 || !strings.Contains(r.err, "as the owner owner") || !strings.Contains(r.err, "--as operator") {
			t.Errorf("carnet %s: %+v", strings.Join(args, " "), r)
		}
	}
	u.sees([]string{"bobs of bob"}, "owner", "show", file, "bob", "--as=operator")
	u.sees([]string{"bobs of bob", "mine of owner"}, "owner", "show", file, "--as=operator")

	// What the view doesn't give any more stays as the last value, and says so.
	arena := reads[thing.Info](u, "thing", "show", file, watch).Mappings[0]
	avatar := arena.Avatar.String()
	live := u.starts("avatar", "watch", file, avatar, "--after=")
	live.says(live.out, "speed")
	if out := u.does("avatar", "show", file, avatar); strings.Contains(out, "no longer given") {
		t.Errorf("under the view that gives it:\n%s", out)
	}
	u.gives(`{"properties":{"heart_rate":{"round":20}},"purposes":["fitness"]}`, "thing", "view", "set", watch+"/arena", "--file=-", file)
	shown := make(map[string]string)
	for _, line := range strings.Split(u.does("avatar", "show", file, avatar), "\n") {
		if cells := strings.Fields(line); len(cells) > 1 {
			shown[cells[1]] = line
		}
	}
	if !strings.HasSuffix(shown["speed"], "no longer given") || shown["heart_rate"] == "" || strings.Contains(shown["heart_rate"], "no longer") {
		t.Errorf("arena shows %v", shown)
	}
	state := reads[struct{ Withdrawn []string }](u, "avatar", "show", file, avatar)
	if len(state.Withdrawn) != 1 || state.Withdrawn[0] != "speed" {
		t.Errorf("withdrawn: %v", state.Withdrawn)
	}
	// The world is asked, and answers also who has no good token at the agent; it says
	// what it was told.
	for i := range f.Tokens {
		if f.Tokens[i].Party == "hub" {
			f.Tokens[i].Token = "stale"
		}
	}
	if err := f.Write(filepath.Join(u.dir, "d/stale.json")); err != nil {
		t.Fatal(err)
	}
	if out := u.does("avatar", "show", "--access=d/stale.json", avatar); strings.Count(out, "no longer given") != 1 || !strings.Contains(out, "speed") {
		t.Errorf("without a good token at the agent:\n%s", out)
	}
	u.marksWhatNobodyGives(f, watch)
	// Evidence is fetched, and not over what is there.
	u.does("avatar", "evidence", file, "--out=proof", avatar)
	if r := u.try("", "avatar", "evidence", file, "--out=proof", avatar); r.code != 1 || !strings.Contains(r.err, "is there already") || !strings.Contains(r.err, "name another directory") {
		t.Errorf("evidence in the same place: %+v", r)
	}
	// The keys come by another way than the bundle: from the world, or only half of
	// them from the depot.
	u.does("party", "trust", "--config=d/arena/carnet.toml", "--out=arena.trust")
	u.does("party", "trust", "--config=d/vault/carnet.toml", "--out=vault.trust")
	u.sees([]string{"Verified with the keys given with --trust.", "Verdict: true"}, "verify", "proof", "--trust=arena.trust", "--trust=vault.trust")
	if r := u.try("", "verify", "proof", "--trust=vault.trust"); r.code != 2 || !strings.Contains(r.out, "no key of the world arena") || strings.Contains(r.out, "Verified") || !strings.Contains(r.out, "Checked with the keys given with --trust, and not all of it is proved") {
		t.Errorf("with the depot's keys alone: %+v", r)
	}
	if r := u.try("", "verify", "proof", "--trust=view.json"); r.code != 2 || !strings.Contains(r.err, "view.json") || !strings.Contains(r.err, "carnet party trust") {
		t.Errorf("with what is no trust file: %+v", r)
	}
	u.sees([]string{"depot vault", "there", "no receipt yet"}, "status", file)
	u.sees([]string{"vault: nothing is half done (", "arena: nothing is half done (avatars: 2", "hub: nothing is half done ("}, "doctor", file)

	// A second avatar in one world is said to be one.
	u.does("thing", "map", file, "bobs", "--world=clinic", "--as=operator")
	if r := u.try("", "thing", "map", file, "bobs", "--world=clinic", "--as=operator"); r.code != 0 || !strings.Contains(r.err, "this is another one") || strings.Contains(r.out, "view set bobs/clinic") {
		t.Errorf("mapped twice: %+v", r)
	}
	u.write("no.json", "this is no JSON")
	if r := u.try("", "thing", "add", file, "--description=no.json"); r.code != 1 || r.err != "carnet: no.json is not JSON: line 1: invalid character 'h' in literal true (expecting 'r'); give a WoT Thing Description 1.1\n" {
		t.Errorf("a description that is no JSON: %+v", r)
	}
	if demo.stop(syscall.SIGINT); !strings.Contains(strings.Join(demo.out.all(), "\n"), "0 lost, 0 doubled, 0 too many") {
		t.Errorf("the demo ended with %v", demo.out.all())
	}
	if !strings.Contains(strings.Join(demo.err.all(), "\n"), "ending: what was sent is passed on, then what each world holds is checked; Ctrl-C again ends at once") {
		t.Errorf("nothing says that it is ending: %v", demo.err.all())
	}
}

// marksWhatNobodyGives looks at avatars that get something by a share, or got it by a
// mapping that is stopped, with an access file that doesn't name them.
func (u user) marksWhatNobodyGives(f *access.File, watch string) {
	u.t.Helper()
	bare, err := access.Read(filepath.Join(u.dir, "d/demo.json"))
	if err != nil {
		u.t.Fatal(err)
	}
	bare.Avatars = nil
	if err := bare.Write(filepath.Join(u.dir, "d/bare.json")); err != nil {
		u.t.Fatal(err)
	}
	const file = "--access=d/bare.json"
	of := make(map[carnet.PartyID]string)
	for _, a := range f.Avatars {
		of[a.World] = a.ID.String()
	}
	shown := func(world carnet.PartyID) (s struct {
		Properties, Withdrawn []string
	}) {
		return reads[struct{ Properties, Withdrawn []string }](u, "avatar", "show", file, of[world])
	}
	for shown("citadel").Properties == nil || !slices.Contains(shown("citadel").Properties, "speed") {
		if err := u.ctx.Err(); err != nil {
			u.t.Fatal("citadel is given no speed: ", err)
		}
	}
	// Arena's own view gives it no speed any more, so its share doesn't either.
	for !slices.Equal(shown("citadel").Withdrawn, []string{"speed"}) {
		if err := u.ctx.Err(); err != nil {
			u.t.Fatalf("arena gives citadel no speed any more, and of it these are marked: %v", shown("citadel").Withdrawn)
		}
	}
	share := reads[[]shareOf](u, "share", "list", file, "--party=citadel")[0]
	u.sees([]string{"Not given now, since the avatar that it is of doesn't get it or it is above what its taker may have: speed."}, "share", "show", file, "--party=citadel", share.ID.String())
	u.sees([]string{"nothing now, since arena isn't given it or citadel may not have it"}, "owner", "show", file)
	u.does("share", "stop", file, "--party=citadel", share.ID.String())
	if s := shown("citadel"); !slices.Contains(s.Withdrawn, "heart_rate") {
		u.t.Errorf("the share has ended, and of %v these are marked: %v", s.Properties, s.Withdrawn)
	}
	if s := shown("clinic"); len(s.Withdrawn) != 0 {
		u.t.Errorf("clinic is given all of it, and these are marked: %v", s.Withdrawn)
	}
	u.does("owner", "stop", file, watch+"/clinic")
	if s := shown("clinic"); len(s.Properties) == 0 || !slices.Equal(s.Properties, s.Withdrawn) {
		u.t.Errorf("clinic is given nothing more, and of %v these are marked: %v", s.Properties, s.Withdrawn)
	}
	// Without the operator's token the watch's mappings aren't all seen: the world says it.
	bare.Tokens = slices.DeleteFunc(bare.Tokens, func(t access.Token) bool { return t.Party == "hub" })
	if err := bare.Write(filepath.Join(u.dir, "d/bare.json")); err != nil {
		u.t.Fatal(err)
	}
	if s := shown("clinic"); !slices.Equal(s.Properties, s.Withdrawn) {
		u.t.Errorf("clinic knows that it is given nothing more, and of %v these are marked: %v", s.Properties, s.Withdrawn)
	}
}

// A terminal sends Ctrl-C to every process of a demo: its parties go on until the demo has
// looked at what they hold.
func TestCtrlCOfADemoOfProcesses(t *testing.T) {
	u := newUser(t)
	cmd := u.command("demo", "--processes", "--data=d", "--for=10m")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell does
	demo := u.started(cmd)
	demo.says(demo.err, "everything about this demo")
	for range 2 { // as timeout(1) does
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	demo.code()
	if all := strings.Join(demo.out.all(), "\n"); !strings.Contains(all, "0 lost, 0 doubled, 0 too many") {
		t.Errorf("the demo ended with %s", all)
	}
}

// A demo that is killed leaves no party behind.
func TestAKilledDemoOfProcesses(t *testing.T) {
	u := newUser(t)
	demo := u.starts("demo", "--processes", "--data=d", "--for=10m")
	demo.says(demo.err, "everything about this demo")
	// Parties have its standard error, which ends once they have.
	if code := demo.stop(syscall.SIGKILL); code != -1 {
		t.Errorf("it ended with %d", code)
	}
}

func TestRefusalsAreShownByReason(t *testing.T) {
	shown := byCode([]thing.Refusal{
		{Code: carnet.TooOld, Reason: "measured at 12:00"}, {Code: carnet.WrongUnit, Reason: "in miles"}, {Code: carnet.TooOld, Reason: "measured at 11:00"},
	})
	if len(shown) != 3 || shown[1][0] != "2" || shown[1][3] != "measured at 12:00" || shown[2][0] != "1" {
		t.Errorf("%v", shown)
	}
}

// Without a terminal a demo plays for a minute, what was recorded as well, unless it is
// played as fast as it goes.
func TestHowLongADemoPlays(t *testing.T) {
	long := 3 * time.Minute
	for _, row := range []struct {
		what     string
		command  demoCommand
		terminal bool
		want     time.Duration
	}{
		{"a demo", demoCommand{Speed: 1}, false, time.Minute},
		{"a demo on a terminal", demoCommand{Speed: 1}, true, 0},
		{"a recording", demoCommand{Speed: 1, Input: []string{"run.fit"}}, false, time.Minute},
		{"a recording, faster", demoCommand{Speed: 10, Input: []string{"run.fit"}}, false, time.Minute},
		{"a recording on a terminal", demoCommand{Speed: 1, Input: []string{"run.fit"}}, true, 0},
		{"a recording, as fast as it goes", demoCommand{Input: []string{"run.fit"}}, false, 0},
		{"what is generated, as fast as it goes", demoCommand{}, false, time.Minute},
		{"a recording, as long as is said", demoCommand{Speed: 1, Input: []string{"run.fit"}, For: &long}, false, long},
		{"a demo on a terminal, as long as is said", demoCommand{Speed: 1, For: &long}, true, long},
	} {
		if got := row.command.lasts(row.terminal); got != row.want {
			t.Errorf("%s plays for %s, want %s", row.what, got, row.want)
		}
	}
}
