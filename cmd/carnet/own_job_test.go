package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/job"
	"carnet/modules/moduletest"
	"carnet/td"
	"carnet/thing"
)

// An owner has a module that the operator signed, and a query, run over what their watch
// measured, at the things agent: what the world was shown, and the log as it is. The words
// and flags are those of a world's jobs.
func TestAJobOfOnesOwn(t *testing.T) {
	u := newUser(t)
	p := startParties(t, u)
	hub, alice := "--access=hub/access.json", "--access=alice.json"
	u.write("watch.td.json", string(td.Watch()))
	watch := reads[api.AddedThing](u, "thing", "add", hub, "--id=watch-7", "--owner=alice", "--description=watch.td.json")
	u.write("view.json", `{"properties":{"heart_rate":{"round":5}},"purposes":["fitness"]}`)
	mapping := reads[thing.MappingInfo](u, "thing", "map", hub, "watch-7", "--world=gym", "--view=view.json")
	live := u.starts("avatar", "watch", "--access=arena/access.json", mapping.Avatar.String(), "--after=", "--json")
	u.wears(p.hub, watch).send(`[{"n":"heart_rate","u":"beat/min","t":%d,"v":73},{"n":"stress","t":%[1]d,"v":40}]`)
	if e := event(t, live); e.Value != 75 {
		t.Errorf("the world saw %+v", e)
	}

	if err := os.WriteFile(filepath.Join(u.dir, "zones.wasm"), moduletest.Build(t, "heartzones"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.sees([]string{"zones@1.0.0", "may run"}, "module", "add", hub, "--party=hub", "zones.wasm", "--name=zones", "--version=1.0.0", "--reads=heart_rate")
	u.sees([]string{"zones@1.0.0", "may run"}, "module", "list", alice, "--party=hub")
	if r := u.try("", "module", "revoke", alice, "--party=hub", "zones@1.0.0", "--why=no"); r.code != 1 || !strings.Contains(r.err, "no token of hub") {
		t.Errorf("an owner revokes a module: %+v", r)
	}
	of := func(command string, args ...string) []string {
		return append([]string{"job", command, alice, "--party=hub"}, args...)
	}
	for end := time.Now().Add(20 * time.Second); u.try("", of("plan", "--module=zones@1.0.0", "--thing=watch-7", "--view-of=gym")...).code != 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) { // the world's acknowledgement is under way
			break
		}
	}
	u.sees([]string{"given 1 measurements: heart_rate (1)", "Nothing would leave", "hub", "things", "yes", "gym", "world", "no", "its operator orders there", "Best: hub"},
		of("plan", "--module=zones@1.0.0", "--thing=watch-7", "--view-of=gym")...)
	// Compiling a module may take longer than a command is waited for here.
	ordered := reads[api.Job](u, of("run", "--module=zones@1.0.0", "--thing=watch-7", "--view-of=gym", "--no-wait")...)
	for end := time.Now().Add(2 * time.Minute); ordered.State != job.Ended && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		ordered = reads[api.Job](u, of("show", ordered.ID.String())...)
	}
	zones := u.does(of("show", ordered.ID.String(), "--output")...)
	var said struct {
		Avatar string
		Mean   float64
	}
	if err := json.Unmarshal([]byte(zones), &said); err != nil || said.Avatar != "a1" || said.Mean != 75 {
		t.Errorf("the module says %s, %v", zones, err)
	}
	const query = "--query=SELECT property, value FROM measurements ORDER BY property"
	if out := u.does(of("run", query, "--thing=watch-7", "--mapping="+mapping.ID.String())...); !strings.Contains(out, `["heart_rate",75]`) || strings.Contains(out, "stress") {
		t.Errorf("under the mapping's view the query says %s", out)
	}
	if out := u.does(of("run", query, "--thing=watch-7", "--at=here")...); !strings.Contains(out, `["heart_rate",73]`) || !strings.Contains(out, `["stress",40]`) {
		t.Errorf("over the log the query says %s", out)
	}

	all := reads[[]api.Job](u, of("list")...)
	shown := make(map[carnet.PartyID]int)
	for _, j := range all { // those of one second in any order
		if shown[j.Logs[0].World]++; j.Owner != "alice" {
			t.Errorf("alice's jobs are %+v", all)
		}
	}
	if len(all) != 3 || shown["gym"] != 2 || shown[""] != 1 {
		t.Fatalf("alice's jobs are %+v", all)
	}
	id := ordered.ID.String()
	u.sees([]string{id, "at the things agent, for alice", "the log of watch-7 from 1 to 1, as gym was shown it", "zones@1.0.0", "ended: done"}, of("show", id)...)
	u.sees([]string{"the same output"}, of("repeat", id)...)
	for _, v := range [][]string{
		{"who alone reads what came out", "job", "show", hub, "--party=hub", "--as=operator", id, "--output"},
		{"there is no thing", "job", "run", hub, "--party=hub", query, "--thing=watch-7"},
		{"the job has ended", "job", "cancel", alice, "--party=hub", id},
		{"things are named", "job", "run", "--access=arena/access.json", query, "--thing=watch-7"},
		{"avatars are named", "job", "run", alice, "--party=hub", query, "--avatar=" + mapping.Avatar.String()},
		{"computed over at hub, and nowhere else", "job", "run", alice, "--party=hub", query, "--thing=watch-7", "--at=forge"},
		{"no mapping in force to clinic", "job", "plan", alice, "--party=hub", query, "--thing=watch-7", "--view-of=clinic"},
	} {
		if r := u.try("", v[1:]...); r.code != 1 || !strings.Contains(r.err, v[0]) {
			t.Errorf("carnet %s: %+v, want %q", strings.Join(v[1:], " "), r, v[0])
		}
	}
	u.sees([]string{"revoked"}, "module", "revoke", hub, "--party=hub", "zones@1.0.0", "--why=it counts twice")
	if r := u.try("", of("run", "--module=zones@1.0.0", "--thing=watch-7")...); r.code != 1 || !strings.Contains(r.err, "revoked: it counts twice") {
		t.Errorf("a revoked module: %+v", r)
	}
}
