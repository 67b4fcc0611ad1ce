package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet/api"
	"carnet/td"
)

// TestAnInvitationThatCantBeWritten leaves nothing behind: neither the invitation
// at the party, nor a file that nothing came into.
func TestAnInvitationThatCantBeWritten(t *testing.T) {
	u := newUser(t)
	u.does("party", "init", "--role=depot", "--party=vault", "--dir=vault", "--listen-http="+address(t), "--listen-r2="+address(t))
	u.runs("depot", "vault")
	const at = "--access=vault/access.json"
	peers := func() []api.Peer { return reads[[]api.Peer](u, "peer", "list", at) }
	u.write("there", "something else\n")
	u.refuses("name another file with --out", "peer", "invite", "arena", "--scope=r2", "--out=there", at)
	if p := peers(); len(p) != 0 {
		t.Errorf("it invites %+v", p)
	}
	u.refuses("want r1, r2, r5 or r6", "peer", "invite", "arena", "--scope=r9", "--out=new", at)
	u.refuses("a signed token has three parts", "peer", "accept", "arena", "there", "--out=new", at)
	if _, err := os.Lstat(filepath.Join(u.dir, "new")); !os.IsNotExist(err) {
		t.Errorf("a file is left behind: %v", err)
	}
	u.does("peer", "invite", "arena", "--scope=r2", "--out=new", at)
	if p := peers(); len(p) != 1 || p[0].Name != "arena" {
		t.Errorf("it invites %+v", p)
	}
}

// TestAPeeringThatIsBeingMade is what is said until both operators have compared the words:
// of an invitation that was altered, and of a thing that is to be mapped already.
func TestAPeeringThatIsBeingMade(t *testing.T) {
	u := newUser(t)
	u.does("party", "init", "--role=things", "--party=hub", "--dir=hub", "--listen-http="+address(t), "--listen-mqtt="+address(t))
	u.does("party", "init", "--role=world", "--party=arena", "--dir=arena", "--listen-http="+address(t), "--listen-link="+address(t), "--purpose=care", "--sensitivity=health")
	u.runs("things", "hub")
	u.runs("world", "arena")
	const hub, arena = "--access=hub/access.json", "--access=arena/access.json"
	u.write("watch.td.json", string(td.Watch()))
	u.does("thing", "add", hub, "--id=watch", "--description=watch.td.json")
	u.does("peer", "invite", "watches", "--scope=r1", "--purpose=care", "--sensitivity=health", "--out=invitation", arena)

	header, rest, _ := strings.Cut(u.read("invitation"), ".")
	payload, signature, _ := strings.Cut(rest, ".")
	plain, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || !strings.Contains(string(plain), `"care"`) {
		t.Fatalf("the invitation says %s, %v", plain, err)
	}
	for was, is := range map[string]string{`"care"`: `"cure"`, `"purpos`: `"porpus`} {
		altered := strings.Replace(string(plain), was, is, 1)
		u.write("altered", header+"."+base64.RawURLEncoding.EncodeToString([]byte(altered))+"."+signature)
		u.refuses("changed on its way", "peer", "accept", "gym", "altered", hub)
		u.refuses("have it sent again", "peer", "accept", "gym", "altered", hub)
	}
	if p := reads[[]api.Peer](u, "peer", "list", hub); len(p) != 0 {
		t.Errorf("after altered invitations there are %+v", p)
	}

	u.sees([]string{"accepted", "compare the words"}, "peer", "accept", "gym", "invitation", hub)
	u.refuses("the peering with gym isn't made yet (accepted)", "thing", "map", "watch", "--world=gym", hub)
	u.refuses("compare the words with the other side's operator", "thing", "map", "watch", "--world=gym", hub)
	u.refuses(`"nobody" is not a world`, "thing", "map", "watch", "--world=nobody", hub)
}

// TestARefusedPeerSeesThatItIs is what one side sees when the other suspends a peering,
// takes that back, or removes it: since when it is refused, in words that say what that
// may mean, and no more than a stranger is told.
func TestARefusedPeerSeesThatItIs(t *testing.T) {
	u := newUser(t)
	u.does("party", "init", "--role=things", "--party=hub", "--dir=hub", "--listen-http="+address(t), "--listen-mqtt="+address(t))
	u.does("party", "init", "--role=world", "--party=arena", "--dir=arena", "--listen-http="+address(t), "--listen-link="+address(t), "--purpose=care", "--sensitivity=health")
	u.does("party", "init", "--role=depot", "--party=vault", "--dir=vault", "--listen-http="+address(t), "--listen-r2="+address(t))
	u.runs("things", "hub")
	u.runs("world", "arena")
	u.runs("depot", "vault")
	u.peers("arena", "watches", "hub", "gym", "--scope=r1", "--purpose=care", "--sensitivity=health")
	u.peers("vault", "watches", "hub", "keeper", "--scope=r2")
	const hub = "--access=hub/access.json"
	shows := func(what string, want func(string) bool, args ...string) {
		t.Helper()
		out := u.does(args...)
		for ; !want(out) && u.ctx.Err() == nil; out = u.does(args...) {
			time.Sleep(50 * time.Millisecond)
		}
		if !want(out) {
			t.Fatalf("%s: %s", what, out)
		}
	}
	refused := func(by string) func(string) bool {
		return func(out string) bool {
			return strings.Contains(out, by+" refuses this party's connections since 20") && strings.Contains(out, "suspended or removed the peering") && strings.Contains(out, "active") && !strings.Contains(out, "tls:")
		}
	}
	fine := func(out string) bool {
		return !strings.Contains(out, "refuses") && !strings.Contains(out, "no connection to")
	}

	shows("before", fine, "peer", "show", "gym", hub)
	u.does("peer", "suspend", "watches", "--access=arena/access.json")
	shows("suspended", refused("gym"), "peer", "show", "gym", hub)
	shows("suspended", refused("gym"), "peer", "list", hub)
	u.sees([]string{"link to gym", "down", "gym refuses this party's connections since "}, "status", hub)
	found := func(what, at string) {
		t.Helper()
		if r := u.try("", "doctor", at); r.code != 1 || !strings.Contains(r.out, what) {
			t.Errorf("doctor finds %+v, want %q", r, what)
		}
	}
	found("gym refuses this party's connections since ", hub)
	found("it is suspended here", "--access=arena/access.json")
	u.does("peer", "resume", "watches", "--access=arena/access.json")
	shows("resumed", fine, "peer", "show", "gym", hub)
	shows("resumed", fine, "status", hub)
	u.does("peer", "suspend", "gym", hub) // by oneself: nobody else refuses then
	shows("suspended here", fine, "peer", "list", hub)
	u.does("peer", "resume", "gym", hub)

	u.does("peer", "remove", "watches", "--yes", "--access=vault/access.json")
	u.write("watch.td.json", `{"@context":["https://www.w3.org/2022/wot/td/v1.1"],"title":"Watch","securityDefinitions":{"p":{"scheme":"basic"}},"security":"p","properties":{"heart_rate":{"type":"number","forms":[{"href":"h"}]}}}`)
	u.does("thing", "add", hub, "--description=watch.td.json") // a statement, which the depot is to take
	shows("removed", refused("keeper"), "peer", "show", "keeper", hub)

	// A peering that was removed has no link any more: neither one that is up nor one that is down.
	// What stops with it is said, and without a yes nothing is done.
	u.does("thing", "add", hub, "--id=worn", "--description=watch.td.json")
	u.write("view.json", `{"properties":{"heart_rate":{}},"purposes":["care"]}`)
	u.does("thing", "map", hub, "worn", "--world=gym", "--view=view.json")
	for _, answer := range []string{"", "no\n"} {
		r := u.try(answer, "peer", "remove", "gym", hub)
		if r.code != 1 || !strings.Contains(r.err, "ends for good") || !strings.Contains(r.err, "gym gets nothing more of worn") || !strings.Contains(r.err, "the peering is not removed; type yes, or add --yes") {
			t.Errorf("answered %q: %+v", answer, r)
		}
	}
	u.sees([]string{"link to gym"}, "status", hub)
	if r := u.try("yes\n", "peer", "remove", "gym", hub); r.code != 0 || !strings.Contains(r.out, "removed") {
		t.Errorf("answered yes: %+v", r)
	}
	if out := u.does("status", hub); strings.Contains(out, "link to gym") || !strings.Contains(out, "messages accepted") {
		t.Errorf("after the removal the status is\n%s", out)
	}
}
