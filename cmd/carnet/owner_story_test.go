package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/identity"
	"carnet/node"
	"carnet/owner"
	"carnet/td"
	"carnet/thing"
)

// TestAnOwnersKeys is the story of alice's keystore, over real processes: she
// makes it, has two worlds know her avatars as hers, reads what one of them wants
// at the other and signs it, and takes it back while that other world is down. A
// world that is killed right after it acknowledged knows at its next start.
func TestAnOwnersKeys(t *testing.T) {
	u := newUser(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience) // trying a passphrase is slow on purpose
	t.Cleanup(cancel)
	u.ctx = ctx
	p := startOwned(t, u)
	u.write("secret", "several words that alice knows\n")
	u.write("wrong", "several words that bob tries\n")
	alice, key, secret := "--access=alice.json", "--keystore=alice.keys", "--passphrase-file=secret"

	// The keystore, and what is refused about it.
	u.sees([]string{"Made the keystore"}, "owner", "keystore", "new", "alice.keys", secret)
	if info, err := os.Stat(filepath.Join(u.dir, "alice.keys")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	u.refuses("never overwritten", "owner", "keystore", "new", "alice.keys", secret)
	u.refuses("no terminal to ask", "owner", "keystore", "show", "alice.keys")
	if r := u.try("", "owner", "keystore", "show", "alice.keys", "--passphrase-file=wrong"); r.code != 1 || r.out != "" || r.err != "carnet: the passphrase is wrong\n" {
		t.Errorf("a wrong passphrase: %+v", r)
	}
	if err := os.Chmod(filepath.Join(u.dir, "wrong"), 0o644); err != nil {
		t.Fatal(err)
	}
	u.refuses("chmod 600", "owner", "keystore", "show", "alice.keys", "--passphrase-file=wrong")

	// One mapping is made with it, the other without; a key is added once.
	u.refuses("the passphrase is wrong", "thing", "map", alice, "watch-7", "--world=arena", key, "--passphrase-file=alice.keys")
	a := reads[thing.MappingInfo](u, "thing", "map", alice, "watch-7", "--world=arena", key, secret)
	c := reads[thing.MappingInfo](u, "thing", "map", alice, "watch-7", "--world=citadel")
	if len(a.OwnerKey) == 0 || len(c.OwnerKey) != 0 {
		t.Errorf("after mapping: %x and %x", a.OwnerKey, c.OwnerKey)
	}
	u.sees([]string{"citadel knows avatar " + c.Avatar.String() + " as yours"}, "owner", "claim", alice, "watch-7/citadel", key, secret)
	u.sees([]string{"arena knows avatar"}, "owner", "claim", alice, "watch-7/arena", key, secret)
	u.does("owner", "keystore", "new", "other.keys", secret)
	u.refuses("an owner's key already", "owner", "claim", alice, "watch-7/arena", "--keystore=other.keys", secret)
	known := reads[[]owner.Known](u, "owner", "keystore", "show", "alice.keys", secret)
	if len(known) != 2 || known[0].World != "arena" || known[0].Owner == known[1].Owner || known[0].Owner != identity.DID(a.OwnerKey) {
		t.Errorf("the keystore has %+v", known)
	}
	for world, m := range map[string]thing.MappingInfo{"arena": a, "citadel": c} {
		all := reads[[]ofWorld](u, "avatar", "list", alice, "--party="+world)
		if len(all) != 1 {
			t.Errorf("%s lists %+v", world, all)
		}
		for _, v := range all {
			if string(v.World) != world || v.ID != m.Avatar || len(v.OwnerKey) == 0 {
				t.Errorf("%s says %+v", world, v)
			}
		}
	}

	// citadel asks, alice reads, says no, says yes.
	request := u.does("avatar", "request", "--access=citadel/access.json", c.Avatar.String(), "--world=arena", "--about="+a.Avatar.String(),
		"--action=read", "--action=subscribe", "--purpose=care", "--sensitivity=health", "--text=Citadel shows your heart rate to your team.")
	u.write("request.json", request)
	listed := reads[[]api.MandateRequest](u, "owner", "requests", alice, "--party=citadel", c.Avatar.String())
	if len(listed) != 1 || listed[0].By != "operator" || listed[0].Expires != nil {
		t.Errorf("citadel lists %+v", listed)
	}
	if same := u.does("owner", "requests", alice, "--party=citadel", c.Avatar.String(), "--id="+listed[0].ID); same != request {
		t.Errorf("citadel gives another request: %s", same)
	}
	approve := []string{"owner", "approve", alice, "request.json", key, secret}
	r := u.try("no\n", approve...)
	if r.code != 1 || !strings.Contains(r.err, "nothing is signed") || !strings.Contains(r.err, "read its state and its history, and follow it live") ||
		!strings.Contains(r.err, `"Citadel shows your heart rate to your team."`) {
		t.Errorf("alice says no: %+v", r)
	}
	u.refuses("nothing is signed", approve...)
	u.refuses("no key of this keystore is pinned", "owner", "approve", alice, "request.json", "--keystore=other.keys", secret, "--yes")
	u.write("forged.json", strings.Replace(request, `"purpose":"care"`, `"purpose":"care","scope":"all"`, 1))
	u.refuses("not understood", "owner", "approve", alice, "forged.json", key, secret, "--yes")
	u.refuses("at most 24h", append(approve, "--yes", "--for=25h")...)
	u.refuses("add --yes", "owner", "approve", alice, "-", key, secret)
	if none := reads[[]signed](u, "owner", "mandates", key, secret, "--all"); len(none) != 0 {
		t.Errorf("signed without a yes: %+v", none)
	}
	if out := u.gives("yes\n", append(approve, "--party=citadel", "--for=1h")...); !strings.Contains(out, "citadel has it") {
		t.Errorf("alice says yes:\n%s", out)
	}
	mine := reads[[]signed](u, "owner", "mandates", key, secret)
	if len(mine) != 1 || mine[0].World != "arena" || mine[0].Avatar != a.Avatar || mine[0].Subject == "" {
		t.Fatalf("the keystore has %+v", mine)
	}
	if given := reads[[]api.MandateRequest](u, "owner", "requests", alice, "--party=citadel", c.Avatar.String()); given[0].Expires == nil || !given[0].Expires.Equal(mine[0].Expires) {
		t.Errorf("citadel has %+v, and signed was %+v", given, mine)
	}
	renewed := reads[signed](u, "owner", "approve", alice, "--renew="+mine[0].ID, key, secret, "--yes", "--party=citadel")
	if renewed.ID == mine[0].ID || !renewed.Expires.After(mine[0].Expires) || renewed.Text != mine[0].Text {
		t.Errorf("renewed: %+v", renewed)
	}

	// arena is dead while alice withdraws: she is told so, and it goes on until
	// arena knows (M3). Another program can't have the keystore meanwhile.
	p.arena.stop(syscall.SIGKILL)
	u.refuses("hasn't acknowledged it", "owner", "withdraw", alice, mine[0].ID, key, secret, "--wait=100ms")
	u.sees([]string{"arena doesn't know yet"}, "owner", "mandates", key, secret)
	w := u.starts("owner", "withdraw", alice, strings.TrimPrefix(renewed.ID, "urn:uuid:")[:8], key, secret)
	w.says(w.err, "trying on")
	u.refuses("another program", "owner", "mandates", key, secret)
	p.arena = u.runs("world", "arena")
	w.says(w.out, "lets nothing more be done by it")
	w.says(w.out, "lets nothing more be done by it")
	<-w.out.ended
	p.arena.stop(syscall.SIGKILL) // M4
	u.sees([]string{"knows already"}, "owner", "withdraw", alice, renewed.ID, key, secret)
	u.sees([]string{"Every withdrawal is acknowledged"}, "owner", "withdraw", alice, key, secret)
	u.refuses("was withdrawn", "owner", "approve", alice, "--renew="+renewed.ID, key, secret, "--yes")
	if left := reads[[]signed](u, "owner", "mandates", key, secret); len(left) != 0 {
		t.Errorf("in force: %+v", left)
	}
	u.knowsWithdrawn("arena", a.Avatar, mine[0].ID, renewed.ID)

	for _, party := range []*process{p.hub, p.citadel, p.vault} {
		if code := party.stop(syscall.SIGTERM); code != 0 {
			t.Errorf("carnet %s ended with %d", party.name, code)
		}
	}
	// A world has pinned the key that is its own, and no other: of arena's, citadel knows
	// what the mandate says. The keys to sign with are nobody's but the keystore's.
	for _, k := range known {
		u.hasPinned(string(k.World), k.Owner)
	}
	store, err := owner.Open(filepath.Join(u.dir, "alice.keys"), []byte("several words that alice knows"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, k := range store.Worlds() {
		of, err := identity.ParseDID(k.Key)
		if err != nil {
			t.Fatal(err)
		}
		key, err := store.Key(owner.World{Party: k.World, Key: of})
		if err != nil || identity.DID(key.Public().(ed25519.PublicKey)) != k.Owner {
			t.Fatalf("the keystore's key for %s: %v", k.World, err)
		}
		for _, party := range []string{"hub", "arena", "citadel", "vault"} {
			u.lacksSeed(party, key.Seed())
		}
	}
}

// refuses runs a command that must end with a reason.
func (u user) refuses(reason string, args ...string) {
	u.t.Helper()
	if r := u.try("", args...); r.code != 1 || !strings.Contains(r.err, reason) {
		u.t.Errorf("carnet %s: %+v, want %q", strings.Join(args, " "), r, reason)
	}
}

// inspects opens a party that doesn't run.
func (u user) inspects(party string) *node.Inspection {
	u.t.Helper()
	config, err := node.ReadConfig(filepath.Join(u.dir, party, configFile))
	if err != nil {
		u.t.Fatal(err)
	}
	i, err := node.Inspect(u.ctx, config, slog.New(slog.DiscardHandler))
	if err != nil {
		u.t.Fatal(err)
	}
	return i
}

// knowsWithdrawn looks into the store of a world that doesn't run.
func (u user) knowsWithdrawn(world string, avatar carnet.AvatarID, ids ...string) {
	u.t.Helper()
	i := u.inspects(world)
	defer i.Close()
	owner, err := i.World.Owner(avatar)
	if err != nil {
		u.t.Fatal(err)
	}
	for _, id := range ids {
		if carnet.CodeOf(i.Mandates.Stands(owner, id)) != carnet.Unauthenticated {
			u.t.Errorf("%s doesn't know at its next start that %s is withdrawn", world, id)
		}
	}
}

// hasPinned wants each avatar of a world that doesn't run to have this owner's key.
func (u user) hasPinned(world, did string) {
	u.t.Helper()
	i := u.inspects(world)
	defer i.Close()
	all := i.World.Avatars()
	for _, v := range all {
		if key, err := i.World.Owner(v.ID); err != nil || identity.DID(key) != did {
			u.t.Errorf("%s has pinned %x, %v with avatar %s, want %s", world, key, err, v.ID, did)
		}
	}
	if len(all) != 1 {
		u.t.Errorf("%s has the avatars %+v", world, all)
	}
}

// lacksSeed searches a party's files for a key to sign with.
func (u user) lacksSeed(party string, seed []byte) {
	u.t.Helper()
	forms := [][]byte{seed, []byte(hex.EncodeToString(seed)), []byte(base64.RawStdEncoding.EncodeToString(seed)), []byte(base64.RawURLEncoding.EncodeToString(seed))}
	searched := false
	err := filepath.WalkDir(filepath.Join(u.dir, party), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, form := range forms {
			if bytes.Contains(data, form) {
				u.t.Errorf("%s has a key of the owner's to sign with", path)
			}
		}
		searched = searched || bytes.HasPrefix(data, []byte("SQLite format 3"))
		return err
	})
	if err != nil || !searched {
		u.t.Fatalf("%s has a store: %t, %v", party, searched, err)
	}
}

// owned are the processes of the story.
type owned struct{ hub, arena, citadel, vault *process }

// startOwned makes and runs a things agent with alice's watch, two worlds and a
// depot, and an access file of alice's.
func startOwned(t *testing.T, u user) (p owned) {
	u.does("party", "init", "--role=things", "--party=hub", "--dir=hub", "--listen-http="+address(t), "--listen-mqtt="+address(t))
	for _, world := range []string{"arena", "citadel"} {
		u.does("party", "init", "--role=world", "--party="+world, "--dir="+world, "--listen-http="+address(t), "--listen-link="+address(t),
			"--purpose=care", "--sensitivity=personal+health")
	}
	u.does("party", "init", "--role=depot", "--party=vault", "--dir=vault", "--listen-http="+address(t), "--listen-r2="+address(t))
	mine := &access.File{Version: access.Version}
	for party, role := range map[string]string{"hub": "user", "arena": "service", "citadel": "service"} {
		f, err := access.Read(filepath.Join(u.dir, party, "access.json"))
		if err != nil {
			t.Fatal(err)
		}
		reached := f.Parties[0]
		reached.CAFile = party + "/" + reached.CAFile
		token := words(u.does("party", "token", "--config="+party+"/carnet.toml", "alice", "--role="+role))
		mine.Parties = append(mine.Parties, reached)
		mine.Tokens = append(mine.Tokens, access.Token{Party: carnet.PartyID(party), Name: "alice", Role: role, Token: token[len(token)-1]})
	}
	if err := mine.Write(filepath.Join(u.dir, "alice.json")); err != nil {
		t.Fatal(err)
	}
	p.vault, p.arena, p.citadel, p.hub = u.runs("depot", "vault"), u.runs("world", "arena"), u.runs("world", "citadel"), u.runs("things", "hub")
	u.peers("vault", "watches", "hub", "vault", "--scope=r2")
	for _, world := range []string{"arena", "citadel"} {
		u.peers("vault", world, world, "vault", "--scope=r2")
		u.peers(world, "watches", "hub", world, "--scope=r1", "--purpose=care", "--sensitivity=personal+health")
		p.hub.says(p.hub.err, "link registered")
	}
	u.write("watch.td.json", string(td.Watch()))
	u.does("thing", "add", "--access=hub/access.json", "--id=watch-7", "--owner=alice", "--description=watch.td.json")
	return p
}

// TestApprovingSurvivesAKill kills the program while it signs: M1 and M2. A
// mandate that was shown is in the keystore, whatever came then, and the keystore
// opens.
func TestApprovingSurvivesAKill(t *testing.T) {
	u := newUser(t)
	u.write("secret", "several words that alice knows\n")
	path, public := filepath.Join(u.dir, "alice.keys"), identityKey(7)
	k, err := owner.Create(path, []byte("several words that alice knows"), newKeystores)
	if err != nil {
		t.Fatal(err)
	}
	arena := owner.World{Party: "arena", Key: public}
	if _, err := k.Key(arena); err != nil {
		t.Fatal(err)
	}
	about := carnet.NewAvatarID()
	if err := k.Pinned(arena, about); err != nil {
		t.Fatal(err)
	}
	k.Close()
	request, err := identity.MandateRequest{Text: "For your team.", MandateTerms: identity.MandateTerms{
		Audience: "arena", Subject: public, Platform: public, Avatar: about, Actions: []identity.Action{identity.ActionRead}, Purpose: "care",
	}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	u.write("request.json", string(request))
	shown := 0
	for round := range 11 {
		c := u.command("owner", "approve", "request.json", "--keystore=alice.keys", "--passphrase-file=secret", "--yes")
		var out bytes.Buffer
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		// From before the passphrase is tried to after the end; what is checked
		// holds wherever it hits.
		if round == 10 { // which nobody kills
			if err := c.Wait(); err != nil {
				t.Fatal(err)
			}
		} else {
			timer := time.AfterFunc(time.Duration(round)*120*time.Millisecond, func() { c.Process.Kill() })
			c.Wait()
			timer.Stop()
		}
		k, err := owner.Open(path, []byte("several words that alice knows"))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		all, err := k.Mandates()
		if err != nil {
			t.Fatal(err)
		}
		if token := strings.TrimSpace(out.String()); token != "" {
			shown++
			if len(all) == 0 || all[len(all)-1].Token != token {
				t.Errorf("round %d: a mandate was shown that the keystore doesn't have", round)
			}
		}
		if len(k.Worlds()) != 1 || len(k.Worlds()[0].Avatars) != 1 {
			t.Errorf("round %d: the keystore has %+v", round, k.Worlds())
		}
		k.Close()
	}
	t.Logf("%d of 11 rounds showed a mandate", shown)
	if shown == 0 {
		t.Error("no round showed a mandate, not even the last")
	}
}

func identityKey(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }
