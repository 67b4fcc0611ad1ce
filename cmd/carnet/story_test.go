package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/node"
	"carnet/td"
	"carnet/thing"
	"carnet/wire/mqtt/client"
	"carnet/wire/mqtt/packet"
)

// TestAThingOfOnesOwn is the story of one person's watch, over processes that
// know each other by files alone: parties are made and peered, alice's watch is
// added and mapped, sends, is seen, its view is changed, one of its messages is
// refused with a reason, and at the end alice stops the world. The world runs on
// another address than the rest, and no party calls another as that one does.
func TestAThingOfOnesOwn(t *testing.T) {
	u := newUser(t)
	p := startParties(t, u)
	hub, arena := "--access=hub/access.json", "--access=arena/access.json"

	// As the operator: add the watch, map it into arena.
	u.write("watch.td.json", string(td.Watch()))
	watch := reads[api.AddedThing](u, "thing", "add", hub, "--id=watch-7", "--owner=alice", "--description=watch.td.json")
	if r := u.try("", "thing", "map", hub, "watch-7", "--world=clinic"); r.code != 1 || !strings.Contains(r.err, "clinic") {
		t.Errorf("mapped to a world that hub doesn't know: %+v", r)
	}
	u.write("view.json", `{"properties":{"heart_rate":{"round":5},"speed":{}},"purposes":["fitness"]}`)
	u.write("kept.json", `{"properties":{"speed":{}},"purposes":["fitness"],"store":["world","thing"]}`)
	if r := u.try("", "thing", "map", hub, "watch-7", "--world=gym", "--view=kept.json"); r.code != 1 || !strings.Contains(r.err, "without depot, and nothing enforces that yet; leave store out") {
		t.Errorf("mapped with a view that can't be enforced: %+v", r)
	}
	if made := reads[[]ofWorld](u, "avatar", "list", arena); len(made) > 0 {
		t.Errorf("mappings that were refused left avatars: %+v", made)
	}
	mapping := reads[thing.MappingInfo](u, "thing", "map", hub, "watch-7", "--world=gym", "--title=Runner 7", "--view=view.json")
	avatar := mapping.Avatar.String()
	u.sees([]string{"heart_rate: nearest 5 beat/min", "stress: withheld"}, "thing", "view", "explain", hub, "watch-7/gym")
	u.sees([]string{avatar, "Runner 7"}, "avatar", "list", arena)

	// The watch sends, and arena sees what the view lets it.
	live := u.starts("avatar", "watch", arena, avatar, "--after=", "--json")
	w := u.wears(p.hub, watch)
	w.send(`[{"n":"heart_rate","u":"beat/min","t":%d,"v":73},{"n":"stress","t":%[1]d,"v":40}]`)
	if e := event(t, live); e.Name != "heart_rate" || e.Value != 75 {
		t.Errorf("arena saw %+v, want heart_rate 75", e)
	}
	u.sees([]string{"heart_rate", "75", "beat/min"}, "avatar", "show", arena, avatar)
	u.sees([]string{`"n":"heart_rate"`, `"v":75`}, "avatar", "history", arena, avatar, "--format=json")
	if out := u.does("avatar", "history", arena, avatar, "--property=stress"); strings.Contains(out, "stress") {
		t.Errorf("arena has what was withheld:\n%s", out)
	}

	// The world restarts; who watches goes on with the cursor.
	if code := p.arena.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("arena ended with %d", code)
	}
	live.says(live.err, "arena: it can't be reached: nothing listens there (connection refused); connecting again in ")
	p.arena = u.runs("world", "arena")

	// Another view takes effect on what comes then; not one that can't be enforced.
	if r := u.try("", "thing", "view", "set", hub, "watch-7/gym", "--file=kept.json"); r.code != 1 || !strings.Contains(r.err, "leave store out") {
		t.Errorf("set a view that can't be enforced: %+v", r)
	}
	out := u.gives(`{"properties":{"heart_rate":{}},"purposes":["fitness"]}`, "thing", "view", "set", hub, "watch-7/gym", "--file=-")
	if !strings.Contains(out, "policy version 2") || !strings.Contains(out, "heart_rate: exact") {
		t.Errorf("the new view:\n%s", out)
	}
	w.send(`[{"n":"heart_rate","u":"beat/min","t":%d,"v":81},{"n":"speed","u":"m/s","t":%[1]d,"v":3}]`)
	if e := event(t, live); e.Name != "heart_rate" || e.Value != 81 {
		t.Errorf("under the new view arena saw %+v, want heart_rate 81", e)
	}

	// A message that can't be right is refused, and the reason is there to read.
	if reason := w.refused(`[{"n":"heart_rate","u":"m/s","t":%d,"v":80}]`); !strings.Contains(reason, "heart_rate") {
		t.Errorf("the device was told %q", reason)
	}
	u.sees([]string{"wrong_unit", "heart_rate"}, "thing", "refusals", hub, "watch-7")
	u.sees([]string{"wrong_unit: 1"}, "thing", "list", hub)

	// As alice: who got what, and stop it. What she maps anew goes on, as a
	// measure of when the old mapping would have sent.
	alice := "--access=alice.json"
	u.sees([]string{"watch-7 of alice", avatar, "stress is withheld: the view does not name it"}, "owner", "show", alice)
	sent := make(map[string]uint64)
	for _, got := range reads[[]api.OwnerReport](u, "owner", "show", alice)[0].Things[0].Worlds[0].Got {
		sent[got.Property] = got.Sent
	}
	if n, is := sent["stress"]; sent["heart_rate"] != 2 || !is || n != 0 {
		t.Errorf("alice reads of what was sent: %v", sent)
	}
	if r := u.try("", "status", alice); r.code != 1 || !strings.Contains(r.err, "no token of hub") {
		t.Errorf("alice asked for the status: %+v", r)
	}
	u.sees([]string{"gym gets nothing more of watch-7"}, "owner", "stop", alice, "watch-7/gym")
	if r := u.try("", "owner", "stop", alice, "watch-7/gym"); r.code != 1 || !strings.Contains(r.err, "the mapping of watch-7 to gym has ended; see: carnet thing show watch-7") {
		t.Errorf("stopped twice: %+v", r)
	}
	again := reads[thing.MappingInfo](u, "thing", "map", alice, "watch-7", "--world=gym", "--view=view.json")
	u.sees([]string{"heart_rate: nearest 5"}, "thing", "view", "explain", alice, "watch-7/gym")
	second := u.starts("avatar", "watch", arena, again.Avatar.String(), "--after=", "--json")
	w.send(`[{"n":"heart_rate","u":"beat/min","t":%d,"v":99}]`)
	if e := event(t, second); e.Value != 100 {
		t.Errorf("the second avatar got %+v", e)
	}
	if out := u.does("avatar", "history", arena, avatar); strings.Contains(out, "99") || strings.Count(out, "heart_rate") != 2 {
		t.Errorf("after the stop the first avatar has\n%s", out)
	}

	one := u.proves(arena, avatar)

	// Ctrl-C ends everything cleanly, and a watch says where to go on.
	if code := live.stop(syscall.SIGINT); code != 0 {
		t.Errorf("watch ended with %d", code)
	}
	live.says(live.err, "Go on with --after ")
	u.sees([]string{"messages accepted  3", "messages refused   1"}, "status", hub, "hub")
	for waiting := true; waiting; { // until every statement of arena has its receipt
		st := reads[[]api.Status](u, "status", arena)[0].World
		waiting = st.Receipts < st.Statements
	}
	for _, party := range []*process{p.hub, p.arena, p.vault} {
		if code := party.stop(syscall.SIGTERM); code != 0 {
			t.Errorf("carnet %s ended with %d", party.name, code)
		}
	}

	// What arena was told is proved, and no byte of it can change.
	u.bundle("arena", mapping.Avatar)
	u.sees([]string{"2 measurements", "things agent watches"}, "verify", "evidence", "--explain")
	u.lacks("gym", "evidence/first")
	u.opensOne(one, "evidence/first")
	u.receipts("evidence/first")
	spoil(t, filepath.Join(u.dir, "evidence/first", evidence.FileBatches))
	if r := u.try("", "verify", "evidence"); r.code != 1 || !strings.Contains(r.out, evidence.FileBatches) {
		t.Errorf("a spoilt bundle: %+v", r)
	}
	u.try("", "verify", "evidence/first", "--receipts=spoilt")
	if left, err := filepath.Glob(filepath.Join(u.dir, "*spoilt*")); err != nil || len(left) > 0 {
		t.Errorf("of a spoilt bundle there are receipts in %v, %v", left, err)
	}
	u.write("evidence/second", "")
	if r := u.try("", "verify", "evidence"); r.code != 1 || !strings.Contains(r.out, "second, all batches: is not a bundle's directory") || !strings.Contains(r.out, "2 bundles, 0 of them proved") {
		t.Errorf("a file in a bundle's place: %+v", r)
	}
}

// proves fetches the evidence of an avatar's newest measurement alone, as somebody
// does who hands it on, and returns its bundle.
func (u user) proves(access, avatar string) string {
	u.t.Helper()
	if r := u.try("", "avatar", "evidence", access, avatar, "--to=2001-01-01T00:00:00Z"); r.code != 1 || !strings.Contains(r.err, "no such measurement") {
		u.t.Errorf("evidence of what wasn't measured: %+v", r)
	}
	if r := u.try("", "avatar", "evidence", access, avatar, "--property=stress"); r.code != 1 || !strings.Contains(r.err, "no such measurement") {
		u.t.Errorf("evidence of what was withheld: %+v", r)
	}
	if r := u.try("", "avatar", "evidence", access, avatar, "--from=2001-01-01T00:00:00Z", "--to=2000-01-01T00:00:00Z"); r.code != 1 || !strings.Contains(r.err, "to is not after from") {
		u.t.Errorf("evidence of no time: %+v", r)
	}
	var pack []struct{ T, Bt float64 }
	if err := json.Unmarshal([]byte(u.does("avatar", "history", access, avatar, "--property=heart_rate", "--format=json")), &pack); err != nil || len(pack) != 2 {
		u.t.Fatalf("the history is %v: %v", pack, err)
	}
	newest := pack[0].Bt + pack[1].T
	out := u.does("avatar", "evidence", access, avatar, fmt.Sprintf("--from=%.3f", newest), fmt.Sprintf("--to=%.3f", newest+0.001), "--property=heart_rate", "--out=one")
	bundle, _, _ := strings.Cut(out, "\n")
	if strings.Count(out, "Verify: carnet verify one/") != 1 {
		u.t.Errorf("the evidence of one measurement is\n%s", out)
	}
	u.sees([]string{"1 frame, 1 batch, 1 measurement.", "Verdict: true"}, "verify", bundle)
	return filepath.Join(u.dir, bundle)
}

// opensOne holds a bundle of one batch to have no key, no batch and no stream but
// its own of those that the bundle of the whole avatar has.
func (u user) opensOne(one, whole string) {
	u.t.Helper()
	read := func(dir, name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			u.t.Fatal(err)
		}
		return data
	}
	key := read(one, evidence.FileKeys)
	keys := slices.Collect(slices.Chunk(read(filepath.Join(u.dir, whole), evidence.FileKeys), 32))
	if len(key) != 32 || len(keys) != 2 || !bytes.Equal(key, keys[1]) {
		u.t.Fatalf("the bundle of one batch has %d bytes of keys, that of all %d keys", len(key), len(keys))
	}
	files, err := os.ReadDir(one)
	if err != nil {
		u.t.Fatal(err)
	}
	for _, f := range files {
		data := read(one, f.Name())
		if bytes.Contains(data, keys[0]) || bytes.Contains(data, []byte(hex.EncodeToString(keys[0]))) {
			u.t.Errorf("%s has the key of another batch", f.Name())
		}
	}
	if all := read(filepath.Join(u.dir, whole), evidence.FileBatches); bytes.Contains(read(one, evidence.FileBatches), all[:100]) {
		u.t.Error("the bundle of one batch has another batch")
	}
}

// bundle writes the evidence of an avatar of a world that doesn't run.
func (u user) bundle(world carnet.PartyID, id carnet.AvatarID) {
	u.t.Helper()
	config, err := node.ReadConfig(filepath.Join(u.dir, string(world), configFile))
	if err != nil {
		u.t.Fatal(err)
	}
	i, err := node.Inspect(u.ctx, config, slog.New(slog.DiscardHandler))
	if err != nil {
		u.t.Fatal(err)
	}
	dir := filepath.Join(u.dir, "evidence")
	if err := os.Mkdir(dir, 0o700); err != nil {
		u.t.Fatal(err)
	}
	err = node.Prover{World: i.World, Party: world, Peers: i.Peers, UpTo: avatar.AllFolded}.Write(u.ctx, id, filepath.Join(dir, "first"))
	if err := errors.Join(err, i.Close()); err != nil {
		u.t.Fatal(err)
	}
}

// lacks searches a directory's files for a name that they can't know.
func (u user) lacks(name, dir string) {
	u.t.Helper()
	files, err := filepath.Glob(filepath.Join(u.dir, dir, "*"))
	if err != nil || len(files) == 0 {
		u.t.Fatalf("%s has no files (%v)", dir, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || bytes.Contains(data, []byte(name)) {
			u.t.Errorf("%s has the name %s, or can't be read (%v)", file, name, err)
		}
	}
}

// spoil flips a bit in the middle of a file.
func spoil(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// parties are the processes of the story.
type parties struct{ hub, arena, vault *process }

// startParties makes three parties, gives alice a token, runs them, and makes them
// peers. hub calls the world arena gym, and arena calls
// hub, which shows it a random name, watches.
func startParties(t *testing.T, u user) (p parties) {
	made := func(name, role string, flags ...string) {
		u.does(append([]string{"party", "init", "--role=" + role, "--party=" + name, "--dir=" + name}, flags...)...)
	}
	made("hub", "things", "--listen-http="+address(t), "--listen-mqtt="+address(t))
	made("arena", "world", "--host=127.0.0.2", "--listen-http="+elsewhere(t, "127.0.0.2", address(t)), "--listen-link="+elsewhere(t, "", address(t)),
		"--purpose=fitness", "--sensitivity=personal+health")
	made("vault", "depot", "--listen-http="+address(t), "--listen-r2="+address(t))
	token := words(u.does("party", "token", "--config=hub/carnet.toml", "alice", "--role=user"))
	f, err := access.Read(filepath.Join(u.dir, "hub/access.json"))
	if err != nil {
		t.Fatal(err)
	}
	f.Parties[0].CAFile = "hub/ca.pem"
	f.Tokens = []access.Token{{Party: "hub", Name: "alice", Role: "user", Token: token[len(token)-1]}}
	if err := f.Write(filepath.Join(u.dir, "alice.json")); err != nil {
		t.Fatal(err)
	}
	p.vault, p.arena, p.hub = u.runs("depot", "vault"), u.runs("world", "arena"), u.runs("things", "hub")
	u.peers("vault", "watches", "hub", "keeper", "--scope=r2") // a depot has any name, and gives any
	u.peers("vault", "arena", "arena", "vault", "--scope=r2")
	u.peers("arena", "watches", "hub", "gym", "--scope=r1", "--purpose=fitness", "--sensitivity=personal+health")
	p.hub.says(p.hub.err, "link registered")
	return p
}

// peers makes two running parties peers: one invites, who it is to call so, the
// other accepts, and both operators compare the words.
func (u user) peers(inviter, calls, accepter, called string, flags ...string) {
	u.t.Helper()
	at := func(party string) string { return "--access=" + party + "/access.json" }
	file := inviter + "-" + accepter + ".invitation"
	u.does(append([]string{"peer", "invite", calls, at(inviter), "--out=" + file}, flags...)...)
	u.sees([]string{"accepted", "compare the words"}, "peer", "accept", called, file, at(accepter))
	u.t.Logf("%s accepted what %s invited it to", accepter, inviter)
	words := func(party, peer string) string {
		var p api.Peer
		if err := json.Unmarshal([]byte(u.does("peer", "show", peer, "--json", at(party))), &p); err != nil {
			u.t.Fatal(err)
		}
		return p.Words
	}
	read := ""
	for read == "" { // until the acceptance has come
		read = words(inviter, calls)
	}
	if own := words(accepter, called); own != read {
		u.t.Fatalf("%s and %s have other words: %q and %q", inviter, accepter, read, own)
	}
	if r := u.try("", "peer", "accept", calls, "--words=AAAA "+read[5:], at(inviter)); r.code != 1 || !strings.Contains(r.err, "somebody is between you") {
		u.t.Errorf("wrong words: %+v", r)
	}
	u.sees([]string{"active"}, "peer", "accept", calls, "--words="+read, at(inviter))
	u.does("peer", "accept", called, "--words="+read, at(accepter))
	for !strings.Contains(u.does("peer", "show", called, at(accepter)), "active") {
		time.Sleep(10 * time.Millisecond) // it asks for the confirmation
	}
}

// runs runs a party until it serves.
func (u user) runs(role, name string) *process {
	u.t.Helper()
	p := u.starts(role, "--config="+name+"/carnet.toml")
	p.says(p.err, "party runs")
	return p
}

func (u user) write(name, text string) {
	u.t.Helper()
	if err := os.WriteFile(filepath.Join(u.dir, name), []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

func words(s string) []string { return strings.Fields(s) }

// device is the watch, connected.
type device struct {
	u     user
	c     *client.Client
	topic string
	acks  chan client.Ack
	last  time.Time
}

func (u user) wears(hub *process, added api.AddedThing) *device {
	u.t.Helper()
	f, err := access.Read(filepath.Join(u.dir, "hub/access.json"))
	if err != nil {
		u.t.Fatal(err)
	}
	trust, err := f.TLS(f.Parties[0])
	if err != nil {
		u.t.Fatal(err)
	}
	d := &device{u: u, topic: thing.MeasurementsTopic(added.ID), acks: make(chan client.Ack, 16)}
	d.c, err = client.Dial(u.ctx, client.Config{
		Address: f.Parties[0].MQTT, TLS: trust, Version: packet.V5, User: string(added.ID), Password: []byte(added.Password),
		Acknowledged: func(a client.Ack) { d.acks <- a },
	})
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { d.c.Close() })
	return d
}

// publish sends a pack whose time is filled in, and waits for what became of it.
func (d *device) publish(pack string) client.Ack {
	d.u.t.Helper()
	at := time.Now().Unix()
	if !d.last.IsZero() {
		at = max(at, d.last.Unix()+1)
	}
	d.last = time.Unix(at, 0)
	if err := d.c.Publish(client.Message{Topic: d.topic, Payload: fmt.Appendf(nil, pack, at), QoS: 1}); err != nil {
		d.u.t.Fatal(err)
	}
	if err := d.c.Drain(d.u.ctx); err != nil {
		d.u.t.Fatal(err)
	}
	return <-d.acks
}

func (d *device) send(pack string) {
	d.u.t.Helper()
	if a := d.publish(pack); a.Reason != packet.Success {
		d.u.t.Fatalf("not accepted: %+v", a)
	}
}

func (d *device) refused(pack string) (reason string) {
	d.u.t.Helper()
	a := d.publish(pack)
	if a.Reason == packet.Success {
		d.u.t.Errorf("accepted: %s", pack)
	}
	return a.Text
}

// seen is a measurement as a watch shows it.
type seen struct {
	Name  string  `json:"n"`
	Value float64 `json:"v"`
}

// event waits for the next event of a watch, which has one measurement.
func event(t *testing.T, live *process) seen {
	t.Helper()
	var e struct {
		Cursor string `json:"cursor"`
		Pack   []seen `json:"pack"`
	}
	line := live.says(live.out, "cursor")
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Cursor == "" || len(e.Pack) != 1 {
		t.Fatalf("watch showed %s (%v)", line, err)
	}
	return e.Pack[0]
}
