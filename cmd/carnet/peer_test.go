package main

import (
	"os"
	"path/filepath"
	"testing"

	"carnet/api"
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
	u.refuses("want r1, r2 or r5", "peer", "invite", "arena", "--scope=r9", "--out=new", at)
	u.refuses("", "peer", "accept", "arena", "there", "--out=new", at)
	if _, err := os.Lstat(filepath.Join(u.dir, "new")); !os.IsNotExist(err) {
		t.Errorf("a file is left behind: %v", err)
	}
	u.does("peer", "invite", "arena", "--scope=r2", "--out=new", at)
	if p := peers(); len(p) != 1 || p[0].Name != "arena" {
		t.Errorf("it invites %+v", p)
	}
}
