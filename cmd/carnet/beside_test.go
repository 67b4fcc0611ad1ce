package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet/access"
	"carnet/api"
	"carnet/identity"
	"carnet/td"
	"carnet/thing"
	mqtt "carnet/wire/mqtt/client"
	"carnet/wire/mqtt/packet"
)

// guest is somebody beside a demo that runs, with its owner's keystore and its access file.
type guest struct {
	user
	f  *access.File
	of map[string]string // the watch's avatars, by world
}

const (
	demoFile    = "--access=d/demo.json"
	demoKeys    = "--keystore=d/owner/keystore"
	demoSecret  = "--passphrase-file=d/owner/passphrase"
	demoFitness = `{"properties":{"heart_rate":{},"steps":{}},"purposes":["fitness"]}`
)

func newGuest(t *testing.T) guest {
	u := newUser(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience) // there is much to do
	t.Cleanup(cancel)
	u.ctx = ctx
	demo := u.starts("demo", "--data=d", "--speed=1", "--for=5m")
	demo.says(demo.err, "everything about this demo")
	f, err := access.Read(filepath.Join(u.dir, "d/demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	b := guest{u, f, make(map[string]string)}
	for _, a := range f.Avatars {
		b.of[string(a.World)] = a.ID.String()
	}
	return b
}

// maps adds a thing and maps it into worlds, with the owner's keys, and has it send once.
// The avatars are in the order of the worlds.
func (b guest) maps(id string, worlds ...string) (avatars []string) {
	b.t.Helper()
	b.write(id+".td.json", string(td.Watch()))
	b.write("fitness.json", demoFitness)
	added := reads[api.AddedThing](b.user, "thing", "add", demoFile, "--id="+id, "--description="+id+".td.json")
	for _, world := range worlds {
		m := reads[thing.MappingInfo](b.user, "thing", "map", demoFile, id, "--world="+world, "--title="+id, "--view=fitness.json", demoKeys, demoSecret)
		avatars = append(avatars, m.Avatar.String())
	}
	hub, err := b.f.Only(identity.Things)
	if err != nil {
		b.t.Fatal(err)
	}
	trust, err := b.f.TLS(hub)
	if err != nil {
		b.t.Fatal(err)
	}
	acks := make(chan mqtt.Ack, 1)
	c, err := mqtt.Dial(b.ctx, mqtt.Config{Address: hub.MQTT, TLS: trust, Version: packet.V5, User: string(added.ID), Password: []byte(added.Password),
		Acknowledged: func(a mqtt.Ack) { acks <- a }})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Publish(mqtt.Message{Topic: thing.MeasurementsTopic(added.ID), Payload: []byte(`[{"n":"heart_rate","v":72},{"n":"steps","v":4100}]`), QoS: 1}); err != nil {
		b.t.Fatal(err)
	}
	if a := <-acks; a.Reason != packet.Success {
		b.t.Fatalf("not accepted: %+v", a)
	}
	for _, avatar := range avatars {
		b.until("72", "avatar", "show", demoFile, avatar)
	}
	return avatars
}

// until runs a command until it shows something.
func (b guest) until(word string, args ...string) string {
	b.t.Helper()
	for {
		r := b.try("", args...)
		if strings.Contains(r.out, word) {
			return r.out
		}
		if b.ctx.Err() != nil {
			b.t.Fatalf("carnet %s doesn't show %q but\n%s%s", strings.Join(args, " "), word, r.out, r.err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestItemsBesideADemo has items made, worn, given, moved and ended, with nothing but
// their ids: nobody says which world is meant.
func TestItemsBesideADemo(t *testing.T) {
	b := newGuest(t)
	avatars := b.maps("second", "arena", "citadel")
	issued := reads[api.Item](b.user, "item", "issue", demoFile, "--avatar="+b.of["arena"], "--kind=sword", "--title=Dawn", "--attribute=damage=7")
	id := issued.ID.String()
	has := func(avatar string) string { return "The avatar " + avatar + " has it" }

	b.sees([]string{"Item " + id + ": Dawn, a sword, number 1 of arena", "damage: 7", has(b.of["arena"]), "WHEN", "issued"}, "item", "show", demoFile, id)
	b.sees([]string{"it is put on: hand"}, "item", "equip", demoFile, id, "--slot=hand")
	if out := b.sees([]string{has(b.of["arena"])}, "item", "unequip", demoFile, id); strings.Contains(out, "put on") {
		t.Errorf("put off it is\n%s", out)
	}
	r := b.try("no\n", "item", "give", demoFile, id, "--to="+avatars[0], demoKeys, demoSecret)
	if r.code != 1 || !strings.Contains(r.err, "goes from your avatar "+b.of["arena"]+" to the avatar "+avatars[0]) || !strings.Contains(r.err, "nothing is signed") {
		t.Errorf("its owner says no: %+v", r)
	}
	b.sees([]string{has(avatars[0])}, "item", "give", demoFile, id, "--to="+avatars[0], demoKeys, demoSecret, "--yes")
	b.sees([]string{id, "arena", "here", "Dawn", avatars[0]}, "item", "list", demoFile, "--avatar="+avatars[0])

	b.sees([]string{"sword.json: verify it, offline", "carnet verify sword.json"}, "item", "export", demoFile, id, "--out=sword.json")
	b.sees([]string{"proved from its issuer on: item " + id, "Dawn", "given"}, "verify", "sword.json")

	accept := []string{"item", "accept", demoFile, "--party=citadel", "--issuer=" + issued.Issuer, "--kind=sword", "--counts-as=blade", "--attribute=damage=power"}
	b.refuses("name one with --party: arena, citadel, clinic", append(accept[:3:3], accept[4:]...)...)
	b.sees([]string{"counts as a blade, damage as power"}, accept...)
	b.sees([]string{"No more sword of " + issued.Issuer + " is taken here"}, "item", "refuse", demoFile, "--party=citadel", "--issuer="+issued.Issuer, "--kind=sword")
	move := []string{"item", "move", demoFile, id, "--from=arena", "--to=citadel", "--avatar=" + avatars[1], "--request=move.json"}
	if r := b.try("", move...); r.code != 1 || r.out != "" {
		t.Errorf("it moves where it isn't taken: %+v", r)
	}
	b.does(accept...)

	// One move is called off at a world that nobody names, the other goes to its end.
	crossing := func(out string) string {
		t.Helper()
		_, rest, ok := strings.Cut(out, "Crossing ")
		if !ok || len(rest) < 32 {
			t.Fatalf("a move is begun as\n%s", out)
		}
		return rest[:32]
	}
	off := crossing(b.sees([]string{"citadel would take it", "carnet owner approve move.json"}, move...))
	b.sees([]string{"citadel: from arena", "it doesn't come"}, "avatar", "cancel", demoFile, off)
	b.sees([]string{off, "dropped"}, "avatar", "status", demoFile)
	b.refuses("there is no crossing "+strings.Repeat("0", 31)+"1 in arena, citadel, clinic; see: carnet avatar status", "avatar", "cancel", demoFile, strings.Repeat("0", 31)+"1")
	on := crossing(b.does(move...))
	b.does("owner", "approve", demoFile, "move.json", "--party=citadel", demoKeys, demoSecret, "--yes")
	b.until("it lives here now", "avatar", "status", demoFile, on)
	b.sees([]string{has(avatars[1]), "Here it counts as a blade"}, "item", "show", demoFile, id) // where it is, and not where it was

	// One that stays is ended by who issued it.
	lost := reads[api.Item](b.user, "item", "issue", demoFile, "--avatar="+b.of["arena"], "--kind=sword", "--title=Dusk").ID.String()
	b.sees([]string{"It is retired"}, "item", "retire", demoFile, lost)
	b.sees([]string{"There are no items."}, "item", "list", demoFile, "--avatar="+b.of["arena"])
	b.sees([]string{lost, "retired"}, "item", "list", demoFile, "--all")
	b.refuses("there is no item "+strings.Repeat("0", 31)+"1 in arena, citadel, clinic; see: carnet item list --all", "item", "show", demoFile, strings.Repeat("0", 31)+"1")
}

// TestReadingAbroadBesideADemo asks for a mandate to read, finds the request at either
// avatar, signs, grants, and reads the other world's avatar; then jobs over it.
func TestReadingAbroadBesideADemo(t *testing.T) {
	b := newGuest(t)
	arena, citadel := b.of["arena"], b.of["citadel"]
	b.until("heart_rate", "avatar", "show", demoFile, arena)
	b.refuses("", "avatar", "abroad", demoFile, citadel, "arena", arena) // its mandate is for following
	b.write("request.json", b.does("avatar", "request", demoFile, citadel, "--world=arena", "--about="+arena, "--action=read", "--purpose=fitness", "--sensitivity=personal+health", "--text=To look now and then."))
	for _, avatar := range []string{citadel, arena} {
		out := b.sees([]string{"BY", "citadel", "To look now and then.", "read", "fitness"}, "owner", "requests", demoFile, avatar)
		if strings.Count(out, citadel) != 2 || strings.Count(out, arena) != 2 { // the share's, too
			t.Errorf("the requests of %s are\n%s", avatar, out)
		}
	}
	b.sees([]string{"Nobody has asked its owner for anything."}, "owner", "requests", demoFile, b.of["clinic"])
	nobody := strings.Repeat("0", 31) + "1"
	b.refuses("no world here has an avatar "+nobody, "owner", "requests", demoFile, nobody)
	b.does("owner", "approve", demoFile, "request.json", "--party=citadel", demoKeys, demoSecret, "--yes")
	b.write("fitness.json", demoFitness)
	did := reads[struct{ DID string }](b.user, "avatar", "show", demoFile, citadel).DID
	b.does("grant", "give", demoFile, arena, "--platform=citadel", "--did="+did, "--view=fitness.json", "--purpose=fitness", "--sensitivity=personal+health", "--actions=read", "--yes")
	b.sees([]string{"TIME", "heart_rate", "beat/min"}, "avatar", "abroad", demoFile, citadel, "arena", arena)

	// A grant is shown by its id, and found wherever it is.
	for _, g := range reads[[]grantOf](b.user, "grant", "list", demoFile) {
		b.sees([]string{"GRANT", g.ID, "arena", "of citadel", "fitness"}, "grant", "show", demoFile, g.ID)
	}
	b.refuses("there is no grant "+nobody+" in arena, citadel, clinic; see: carnet grant list", "grant", "show", demoFile, nobody)

	// A job is followed and repeated, shown and listed, wherever it ran.
	j := reads[api.Job](b.user, "job", "run", demoFile, "--avatar="+arena, "--at=here", "--no-wait", "--query=SELECT count(*) FROM measurements")
	id := j.ID.String()
	b.sees([]string{"job", id, "in the world", "ended: done"}, "job", "watch", demoFile, id)
	b.sees([]string{"repeats", id, "the same output"}, "job", "repeat", demoFile, id)
	b.sees([]string{id, "engine", "sql"}, "job", "show", demoFile, id)
	if out := b.sees([]string{"PARTY", "arena", id}, "job", "list", demoFile); strings.Count(out, "ended: done") != 2 {
		t.Errorf("the jobs are\n%s", out)
	}
	b.refuses("there is no job "+nobody, "job", "show", demoFile, nobody)

	// So is a share that is ended.
	share := reads[[]shareOf](b.user, "share", "list", demoFile)[0].ID.String()
	b.sees([]string{share, "It ended at "}, "share", "stop", demoFile, share)
	b.refuses("there is no share "+nobody+" in arena, citadel, clinic; see: carnet share list", "share", "stop", demoFile, nobody)
}

// TestARecoveryIsToldBesideADemo brings an avatar home by its passport, and tells its
// things agent.
func TestARecoveryIsToldBesideADemo(t *testing.T) {
	b := newGuest(t)
	avatar := b.maps("second", "arena")[0]
	b.sees([]string{"reception key", "for a day", "citadel.key"}, "avatar", "announcement", demoFile, "--party=citadel", "--out=citadel.key")
	b.refuses("name one with --party: arena, citadel, clinic", "avatar", "announcement", demoFile, "--out=other.key")
	b.does("owner", "keystore", "reception", "d/owner/keystore", "--world=arena", "--out=mine.key", demoSecret)
	b.sees([]string{"It has keys, in 2 bags"}, "avatar", "export", demoFile, avatar, "--for=mine.key", "--for=citadel.key", "--farewell", "--to=passports")
	passport := "passports/arena-" + avatar + "-passport"
	out := b.sees([]string{"citadel has what the passport holds"}, "avatar", "import", demoFile, passport, "--to=citadel", "--request=back.json")
	_, rest, _ := strings.Cut(out, "Recovery ")
	recovery, _, _ := strings.Cut(rest, ":")
	b.refuses("citadel: ", "owner", "recovered", demoFile, recovery, "--at=citadel") // nothing is decided yet
	b.sees([]string{"carnet owner recovered " + recovery + " --at citadel"}, "owner", "approve", demoFile, "back.json", "--party=citadel", "--passport="+passport, demoKeys, demoSecret, "--yes")
	b.until("it lives here now", "avatar", "status", demoFile, recovery)
	b.sees([]string{"second: it "}, "owner", "recovered", demoFile, recovery, "--at=citadel")
	b.until("citadel", "thing", "show", demoFile, "second")
}
