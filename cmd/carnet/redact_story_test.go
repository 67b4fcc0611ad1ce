package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/node"
	"carnet/peering"
	"carnet/td"
	"carnet/thing"
)

// TestARedactedMove is the story of an avatar that moves to a world which may have less,
// over real processes: without its owner's consent it stays; with it the owner reads in
// numbers what is left behind for good, both worlds are killed on the way, and in the
// end the target has the rest, evidence says what was left out, and what the watch sends
// goes on there, as far as it may.
func TestARedactedMove(t *testing.T) {
	u := newUser(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience) // worlds that were killed claim their homes first
	t.Cleanup(cancel)
	u.ctx = ctx
	u.does("party", "init", "--role=things", "--party=hub", "--dir=hub", "--listen-http="+address(t), "--listen-mqtt="+address(t))
	for world, holds := range map[string]string{"arena": "personal+health", "citadel": "personal"} {
		u.does("party", "init", "--role=world", "--party="+world, "--dir="+world, "--listen-http="+address(t), "--listen-link="+address(t),
			"--listen-r5="+address(t), "--purpose=care", "--sensitivity="+holds)
	}
	u.does("party", "init", "--role=depot", "--party=vault", "--dir=vault", "--listen-http="+address(t), "--listen-r2="+address(t))
	made := make(map[string]node.Config)
	for _, party := range []string{"vault", "arena", "citadel", "hub"} {
		var err error
		if made[party], err = node.ReadConfig(filepath.Join(u.dir, party, configFile)); err != nil {
			t.Fatal(err)
		}
	}
	introduce := func(inviter, accepter string, o peering.Offer) {
		t.Helper()
		i := node.Introduction{Inviter: made[inviter], Accepter: made[accepter], Calls: carnet.PartyID(accepter), Offer: o}
		if err := node.Introduce(u.ctx, i, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	for _, party := range []string{"hub", "arena", "citadel"} {
		introduce(party, "vault", peering.Offer{Scope: []peering.Scope{peering.R2}})
	}
	for _, world := range []string{"arena", "citadel"} {
		o, err := made[world].Offers(peering.R1)
		if err != nil {
			t.Fatal(err)
		}
		introduce("hub", world, o)
	}
	most := carnet.Personal
	introduce("arena", "citadel", peering.Offer{Scope: []peering.Scope{peering.R5}, Purposes: []string{"care"}, Sensitivity: &most})
	u.runs("depot", "vault")
	arena, citadel, hub := u.runs("world", "arena"), u.runs("world", "citadel"), u.runs("things", "hub")

	// Everybody's ways in, in one file.
	all := &access.File{Version: access.Version}
	for _, party := range []string{"hub", "arena", "citadel"} {
		f, err := access.Read(filepath.Join(u.dir, party, "access.json"))
		if err != nil {
			t.Fatal(err)
		}
		reached := f.Parties[0]
		reached.CAFile = party + "/" + reached.CAFile
		all.Parties, all.Tokens = append(all.Parties, reached), append(all.Tokens, f.Tokens...)
	}
	if err := all.Write(filepath.Join(u.dir, "all.json")); err != nil {
		t.Fatal(err)
	}
	at, keys, secret := "--access=all.json", "--keystore=alice.keys", "--passphrase-file=secret"
	u.write("secret", "several words that alice knows\n")
	u.write("watch.td.json", strings.Replace(string(td.Watch()), `"title": "Watch",`, `"title": "Watch", "carnet:linger": "PT0S",`, 1))
	added := reads[api.AddedThing](u, "thing", "add", at, "--id=watch-7", "--description=watch.td.json")
	u.write("view.json", `{"properties": {"heart_rate": {}, "speed": {}}, "purposes": ["care"]}`)
	u.does("owner", "keystore", "new", "alice.keys", secret)
	from := reads[thing.MappingInfo](u, "thing", "map", at, "watch-7", "--world=arena", "--view=view.json", keys, secret)
	watch := u.wears(hub, added)
	pack := `[{"bt":%d,"n":"heart_rate","u":"beat/min","v":61},{"n":"speed","u":"m/s","v":2.5}]`
	history := func(world, avatar, property string) result {
		return u.try("", "avatar", "history", at, "--party="+world, avatar, "--property="+property, "--format=json")
	}
	many := func(r result) int {
		t.Helper()
		var ms []json.RawMessage
		if err := json.Unmarshal([]byte(r.out), &ms); r.code != 0 || err != nil {
			t.Fatalf("a history is %+v, %v", r, err)
		}
		return len(ms)
	}
	count := func(world, avatar, property string) int {
		t.Helper()
		return many(history(world, avatar, property))
	}
	has := func(world, avatar, property string, n int) func() bool { // which may not be home there yet
		return func() bool { r := history(world, avatar, property); return r.code == 0 && many(r) == n }
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for !is() {
			if u.ctx.Err() != nil {
				t.Fatalf("it takes too long until %s", what)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	for n := range 4 { // each a batch of its own
		watch.send(pack)
		until("arena has it", has("arena", from.Avatar.String(), "heart_rate", n+1))
	}

	// Its owner's policy is a bound beside all that: first it forbids the move.
	set := []string{"owner", "policy", "set", at, from.Avatar.String(), "policy.json", keys, secret}
	u.write("policy.json", `{"cross":{"world":[]}}`)
	u.refuses(`avatar policy at "/cross/world": unknown member`, set...)
	u.write("policy.json", `{"cross":{"worlds":["atlantis"]}}`)
	u.refuses(`isn't the did:key of a party`, set...)
	u.write("policy.json", `{"cross":{"worlds":[]}}`)
	if r := u.try("no\n", set...); r.code != 1 || !strings.Contains(r.err, "It may not move to another world.") || !strings.Contains(r.err, "nothing is signed") {
		t.Errorf("the owner says no: %+v", r)
	}
	if out := u.gives("yes\n", set...); !strings.Contains(out, "Version 1 of the policy is in force at arena") {
		t.Errorf("the owner says yes:\n%s", out)
	}
	u.sees([]string{"policy, version 1", "It may not move to another world."}, "avatar", "show", at, "--party=arena", from.Avatar.String())
	u.refuses("cross.worlds", "avatar", "move", at, from.Avatar.String(), "--from=arena", "--to=citadel", "--redact", "--request=request.json")
	u.write("policy.json", `{"cross":{"worlds":["citadel"],"sensitivity":"personal"},"transmit":{"onward":false}}`)
	u.sees([]string{"Version 2"}, append(set, "--yes")...)
	u.refuses("has signed version 2", append(set, "--yes", "--version=2")...)
	u.sees([]string{"Version 2"}, "owner", "policy", "set", at, from.Avatar.String(), keys, secret) // again

	begin := []string{"avatar", "move", at, from.Avatar.String(), "--from=arena", "--to=citadel", "--request=request.json"}
	u.refuses("--redact", begin...)
	u.does("owner", "keystore", "reception", "alice.keys", "--world=arena", "--out=alice.reception", secret)
	u.refuses("give both --backup DIR and --for KEYFILE", append(begin, "--redact", "--backup=backup")...)
	u.sees([]string{"Left behind, and deleted for good: 4 measurements in 4 batches, labelled personal+health", "of: heart_rate", "it comes back by the passport of", "with 8 measurements"},
		append(begin, "--redact", "--backup=backup", "--for=alice.reception")...)
	u.sees([]string{"Verdict: true"}, "verify", "backup/arena-"+from.Avatar.String()+"-passport")
	watch.send(pack) // it is left behind, too
	r := u.try("yes\n", "owner", "approve", at, "request.json", keys, secret, "--party=citadel")
	if r.code != 0 || !strings.Contains(r.err, "4 measurements in 4 batches, labelled personal+health") || !strings.Contains(r.err, "nobody has it any more then") || !strings.Contains(r.err, "can't be undone") ||
		!strings.Contains(r.err, "Your policy of it, version 2, goes along, and binds citadel:") {
		t.Fatalf("the owner approves: %+v", r)
	}
	arena.stop(syscall.SIGKILL)
	citadel.stop(syscall.SIGKILL)
	u.runs("world", "arena")
	u.runs("world", "citadel")
	status := func(party string) (one api.Crossing) {
		t.Helper()
		for _, x := range reads[[]crossingOf](u, "avatar", "status", at) {
			if string(x.Party) == party {
				one = x.Crossing
			}
		}
		return one
	}
	until("it is home in citadel", func() bool { return status("citadel").State == move.Home })
	until("citadel has arena's word", func() bool { x := status("citadel"); return x.Departure != "" && x.Surveyed })
	x := status("citadel")
	d, err := identity.OpenDeparture(x.Departure)
	if err != nil || x.Unfit != 0 || !x.Redacted || x.Amount == nil || x.Amount.LeftMeasurements != 5 || d.Left != 5 {
		t.Errorf("citadel says %+v, of %+v; the departure %+v, %v", x, x.Amount, d, err)
	}
	u.sees([]string{"left behind by its owner's order: 5 measurements in 5 batches", "5 measurements of it were left out of the move, and are nowhere any more", "backup: the passport of"}, "avatar", "status", at, x.ID.String())
	here := x.Ours.String()
	if speed, heart := count("citadel", here, "speed"), count("citadel", here, "heart_rate"); speed != 5 || heart != 0 {
		t.Errorf("citadel has %d of speed and %d of heart rate", speed, heart)
	}
	if latest := u.does("avatar", "show", at, "--party=citadel", here); strings.Contains(latest, "heart_rate") || !strings.Contains(latest, "speed") {
		t.Errorf("its state is\n%s", latest)
	}
	u.sees([]string{"policy, version 2", "Nobody who reads it may pass it on."}, "avatar", "show", at, "--party=citadel", here)
	u.sees([]string{"policy, version 2", "That is what this keystore has signed last."}, "owner", "policy", "show", at, "--party=citadel", here, keys, secret)
	u.write("policy.json", `{}`)
	u.sees([]string{"Version 3 of the policy is in force at citadel"}, "owner", "policy", "set", at, "--party=citadel", here, "policy.json", keys, secret, "--yes")
	if r := history("arena", from.Avatar.String(), "heart_rate"); r.code != 1 || !strings.Contains(r.err, "there is no avatar") {
		t.Errorf("arena still shows a history: %+v", r)
	}

	// What is sent from then on is what citadel may have.
	watch.send(pack)
	watch.send(pack)
	until("what the watch sends goes on there", has("citadel", here, "speed", 7))
	if n := count("citadel", here, "heart_rate"); n != 0 {
		t.Errorf("citadel gets %d of heart rate", n)
	}

	// The evidence says what lacks, and isn't in doubt for it.
	u.sees([]string{"Verify: carnet verify"}, "avatar", "evidence", at, "--party=citadel", here, "--out=evidence")
	proof := u.try("", "verify", "evidence")
	for _, want := range []string{"7 measurements.", "5 measurements of stream", "in 5 batches were, left out when the avatar left arena, by its owner's order of", "Verdict: true"} {
		if !strings.Contains(proof.out, want) {
			t.Errorf("the evidence (%d) doesn't say %q:\n%s%s", proof.code, want, proof.out, proof.err)
		}
	}
}
