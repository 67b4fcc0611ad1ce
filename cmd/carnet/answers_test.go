package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet/access"
	"carnet/activity"
	"carnet/api"
	"carnet/td"
	"carnet/thing"
)

// TestAnswersSayWhatToDo is what commands say beside a demo where there is nothing,
// something ended, or something else was meant.
func TestAnswersSayWhatToDo(t *testing.T) {
	u := newUser(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience) // there is much to do
	t.Cleanup(cancel)
	u.ctx = ctx
	demo := u.starts("demo", "--data=d", "--speed=1", "--for=8m")
	demo.says(demo.err, "everything about this demo")
	const at = "--access=d/demo.json"
	f, err := access.Read(filepath.Join(u.dir, "d/demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[string]string)
	for _, a := range f.Avatars {
		of[string(a.World)] = a.ID.String()
	}
	says := func(out, err []string, args ...string) {
		t.Helper()
		r := u.try("", args...)
		for _, w := range out {
			if !strings.Contains(r.out, w) {
				t.Errorf("carnet %s: no %q in\n%s%s", strings.Join(args, " "), w, r.out, r.err)
			}
		}
		for _, w := range err {
			if !strings.Contains(r.err, w) {
				t.Errorf("carnet %s: no %q in\n%s%s", strings.Join(args, " "), w, r.out, r.err)
			}
		}
	}

	// Avatars: one that no world has is told of once.
	nobody := strings.Repeat("0", 31) + "1"
	r := u.try("", "avatar", "show", at, nobody)
	if r.code != 1 || strings.Count(r.err, nobody) != 1 || !strings.Contains(r.err, "in arena, citadel, clinic; see: carnet avatar list") {
		t.Errorf("an avatar of nobody's: %+v", r)
	}
	says([]string{"TIME"}, []string{"There is no such measurement"}, "avatar", "history", at, of["arena"], "--property=mood")
	says([]string{"did:key:z"}, nil, "avatar", "show", at, of["arena"])

	// All worlds are asked where none is named.
	says([]string{"REQUEST", "fitness"}, nil, "owner", "requests", at, of["citadel"])
	says([]string{"PARTY", "arena", "of citadel"}, nil, "grant", "list", at)

	// Policies: a list of what there is, as whom, about what.
	says([]string{"get-state", "Avatar:ID"}, nil, "policy", "actions")
	says([]string{"no: auditor (auditor) may not read the state (get-state) of avatar " + of["arena"] + ": nothing permits it", "No policy permits that to auditor (auditor), of whatever avatar",
		"Who has the role administrator or service may", "  carnet party token NAME --role service --config FILE"}, []string{"Asked about auditor (auditor), whose token it is"},
		"policy", "explain", "get-state", "Avatar:"+of["arena"], at)
	u.refuses("carnet policy actions", "policy", "explain", "get-stat", "Avatar:"+of["arena"], "--party=arena", at)
	u.refuses("write Avatar:ID", "policy", "explain", "get-state", "Thing:watch", "--party=arena", at)
	u.refuses("add --role: user, creator", "policy", "explain", "get-state", "Avatar:"+of["arena"], "--party=arena", "--principal=Person:owner", at)
	says([]string{`yes: owner (administrator) may read the state (get-state) of avatar ` + of["arena"] + `: the policy "administrator-everything" permits it`}, nil,
		"policy", "explain", "get-state", "Avatar:"+of["arena"], "--principal=Person:owner", "--role=administrator", at)
	says([]string{"no: demo (user) may not", `The policy "user-own" would, of what is its own`}, nil, "policy", "explain", "get-thing", "Thing:none", "--principal=Person:demo", "--role=user", at)
	u.refuses("several parties; name one with --party: ", "policy", "explain", "list-peers", "Peer:*", at)
	coach := reads[api.AddedPrincipal](u, "grant", "principal", "add", "Coach", "--party=clinic", "--purpose=coaching", "--sensitivity=personal+health", at).ID
	says([]string{"no: Coach (application " + coach + ") may not follow the events (watch-avatar) of avatar " + of["clinic"] + ": nothing permits it", `The policy "granted" would, under a grant that gives it`,
		"  carnet grant give " + of["clinic"] + " --application " + coach + " --actions subscribe --view FILE --purpose WORD --party clinic", "as though there were no such resource"}, nil,
		"policy", "explain", "watch-avatar", "Avatar:"+of["clinic"], "--principal=Application:"+coach, at)
	says([]string{"PRINCIPAL", "PARTY", coach, "clinic", "Coach"}, nil, "grant", "principal", "list", at)
	u.write("coach.json", `{"properties":{"heart_rate":{}},"purposes":["coaching"]}`)
	assess := []string{"grant", "assess", of["clinic"], "--application=" + coach, "--view=coach.json", "--purpose=coaching", at}
	says([]string{"may not receive heart_rate: the data may be used for care only, and by the view coaching: they have none in common"}, nil, assess...)
	r = u.try("", "grant", "principal", "add", "Friend", "--avatar="+of["clinic"], "--purpose=care", "--sensitivity=personal", at)
	if r.code != 0 || !strings.HasPrefix(r.out, "Friend, who acts as avatar "+of["clinic"]+", is principal ") {
		t.Errorf("who acts as an avatar: %+v", r)
	}
	friend := strings.Fields(r.out[strings.Index(r.out, "is principal "):])[2]
	says([]string{"Friend is removed"}, nil, "grant", "principal", "remove", friend, at)
	u.refuses("there is no principal "+friend+" in arena, citadel, clinic; see: carnet grant principal list", "grant", "principal", "remove", friend, at)

	// Lists ask all, and what has an id is looked for: nobody says which party is meant.
	says([]string{"PEER", "PARTY", "vault", "hub", "arena", "citadel", "clinic"}, nil, "peer", "list", at)
	if all := reads[[]peerOf](u, "peer", "list", at); len(all) < 10 || all[0].Of == "" {
		t.Errorf("the peers are %+v", all)
	}
	u.refuses("there is a peer vault in several parties; name one with --party: ", "peer", "show", "vault", at)
	u.refuses("there is no peer arean in ", "peer", "show", "arean", at)
	u.refuses("see: carnet peer list", "peer", "show", "arean", at)
	u.refuses("the access file has several parties; name one with --party: vault, arena, ", "peer", "invite", "new", "--scope=r2", at)
	says([]string{"There are no jobs."}, nil, "job", "list", at)
	says([]string{"There are no modules."}, nil, "module", "list", at)
	u.refuses("there is no module zones@1 in ", "module", "show", "zones@1", at)
	u.refuses(`several parties with the role "world"; name one with --party: arena, citadel, clinic`, "job", "run", "--query=SELECT 1", at)
	share := reads[[]shareOf](u, "share", "list", at)[0]
	says([]string{share.ID.String(), "As far as this view goes"}, []string{"it is at "}, "share", "show", share.ID.String(), at)
	says([]string{"PARTY", "hub", "arena"}, nil, "activity", "--limit=200", at)
	if found := reads[recorded](u, "activity", "--limit=4", at); len(found.Records) != 4 {
		t.Errorf("of all parties there are %+v", found)
	}
	says([]string{"arena"}, nil, "activity", "arena", "--limit=5", at)
	u.refuses("several parties; name one with --party: ", "activity", "--after=1", at)
	u.refuses("hub and arena are named", "status", "hub", "--party=arena", at)
	says([]string{"arena"}, nil, "status", "--party=arena", at)
	if r := u.try("", "thing", "map", string(f.Things[0].ID), "--world=arean", at); r.code != 1 || !strings.Contains(r.err, "carnet peer list") {
		t.Errorf("mapped to a world that isn't there: %+v", r)
	}

	// Grants: what is wanted for another world, and one that shows nothing.
	u.write("view.json", `{"properties":{"mood":{}},"purposes":["fitness"]}`)
	give := []string{"grant", "give", of["arena"], "--party=arena", "--platform=citadel", "--did=did:key:z6MktbxL1z351n6B4RXT254RbwuV8SJWJePHKLfAhUwGmAmh", "--view=view.json", "--purpose=fitness", at}
	u.refuses("add --sensitivity: public, or personal", append(give, "--yes")...)
	r = u.try("", append(give, "--sensitivity=personal")...)
	if r.code != 1 || !strings.Contains(r.err, "would be shown 0 properties") || !strings.Contains(r.err, "this grant shows nothing") || !strings.Contains(r.err, "the grant is not given") {
		t.Errorf("a grant of nothing: %+v", r)
	}

	// Shares: how they are, and without those of which nothing came.
	says([]string{"takes from  arena", "in force"}, nil, "share", "list", at, "--party=citadel")
	u.refuses("no mandate in force", "share", "take", of["arena"], "--party=citadel", "--from=arena", "--for="+of["citadel"], "--purpose=nonsense", at)
	says([]string{"takes from"}, []string{"1 share was refused, and left out here; see --all"}, "share", "list", at, "--party=citadel")
	if r := u.try("", "share", "list", at, "--party=citadel"); strings.Contains(r.out, "nonsense") {
		t.Errorf("what nothing came of is listed:\n%s", r.out)
	}
	says([]string{"nonsense", "refused: "}, nil, "share", "list", at, "--party=citadel", "--all")
	if all := reads[[]shareOf](u, "share", "list", at, "--party=citadel"); len(all) != 2 {
		t.Errorf("in JSON there are %+v", all)
	}

	// The owner is told who gets what of an avatar elsewhere, and what ends it; a world
	// that can't be asked doesn't hide the others.
	says([]string{"PROPERTY  ", "AS", "nearest 5 beat/min, at most one a second", "by arena's share: as arena has it", "by arena's share: nearest 0.5"}, nil, "owner", "show", at)
	says([]string{"shared on by arena to citadel, for fitness, since ", "    heart_rate: as arena has it\n", "    speed: nearest 0.5\n", "to stop it: carnet owner withdraw "}, nil, "owner", "show", at)
	owned := reads[[]ownerAnswer](u, "owner", "show", at)[0]
	if len(owned.Shared) != 1 || owned.Shared[0].Ours.String() != of["arena"] || owned.Shared[0].World != "citadel" || len(owned.Unasked) != 0 {
		t.Errorf("the owner is told of %+v, and not of %+v", owned.Shared, owned.Unasked)
	}

	// A share says when its peering is suspended, on either side, and when it isn't any more.
	shares := func(what string, ok func(out string) bool) {
		t.Helper()
		out := ""
		for range 200 {
			if out = u.does("share", "list", at); ok(out) {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatalf("not within 20 s: %s:\n%s", what, out)
	}
	for world, other := range map[string]string{"arena": "citadel", "citadel": "arena"} {
		u.does("peer", "suspend", other, "--party="+world, at)
		here := "held: the peering with " + other + " is suspended here"
		shares("both sides say it", func(out string) bool { return strings.Contains(out, here) && strings.Count(out, "held: ") == 2 })
		if world == "arena" {
			says([]string{"nothing comes across at the moment: the peering with citadel is suspended here"}, nil, "owner", "show", at)
		}
		u.does("peer", "resume", other, "--party="+world, at)
		shares("it is in force again", func(out string) bool { return strings.Count(out, "in force") == 2 && !strings.Contains(out, "held: ") })
	}

	// Mappings: one that is stopped says so, and when, and by whom it was.
	u.write("mine.td.json", string(td.Watch()))
	reads[api.AddedThing](u, "thing", "add", at, "--id=mine", "--description=mine.td.json")
	m := reads[thing.MappingInfo](u, "thing", "map", at, "mine", "--world=arena")
	says([]string{"arena gets nothing more of mine"}, nil, "owner", "stop", at, "mine/arena")
	says([]string{"arena was stopped already"}, nil, "owner", "stop", at, m.ID.String())
	says([]string{"  stopped by owner at ", "; gets nothing more"}, nil, "owner", "show", at)

	// One thing is shown alone.
	if out := u.does("owner", "show", at, "mine"); !strings.Contains(out, "mine of owner") || strings.Contains(out, string(f.Things[0].ID)+" of owner") {
		t.Errorf("of one thing it says\n%s", out)
	}

	// The log says who asked; the demo, which looks for itself, isn't its operator.
	var looked activity.Found
	for range 300 { // it looks now and then
		if looked = reads[activity.Found](u, "activity", at, "--party=hub", "--action=get-status"); len(looked.Records) > 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if len(looked.Records) == 0 || slices.ContainsFunc(looked.Records, func(r activity.Record) bool { return r.Who.Name != "demo" }) {
		t.Errorf("who looked how the agent is: %+v", looked.Records)
	}
	says([]string{"WHO", "demo (administrator)  http"}, nil, "activity", at, "--party=hub", "--action=get-status", "--limit=1")
}
