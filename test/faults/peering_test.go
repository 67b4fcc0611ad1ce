package faults_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/identity"
	"carnet/peering"
)

// established counts the connections of a party to a port, as the kernel has them.
func (p *party) established(t *testing.T, address string) (n int) {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	own := make(map[string]bool)
	dir := "/proc/" + strconv.Itoa(p.process.cmd.Process.Pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); err == nil && ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	// proc(5): sl local rem st … inode; state 01 is ESTABLISHED.
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "01" && own[f[9]] && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", number)) {
			n++
		}
	}
	return n
}

// peerWith finds what a party calls its peer of a role.
func (v *town) peerWith(p *party, role identity.Role) carnet.PartyID {
	v.t.Helper()
	all, err := p.client.Peers(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	for _, peer := range all {
		if peer.Role == role {
			return peer.Name
		}
	}
	v.t.Fatalf("%s has no peer with the role %s: %+v", p.name, role, all)
	return ""
}

// A peering that ends while links and R2 connections are live, at either end: its
// connections are closed, nothing passes, everything else goes on, and a
// suspension that is taken back loses and doubles nothing.
func TestAPeeringThatEndsIsCut(t *testing.T) {
	t.Parallel()
	v := newTown(t)
	w := v.addWatch()
	w.send(5)
	v.quiet()
	ctx := t.Context()
	agent := v.peerWith(v.arena, identity.Things) // as arena calls hub
	for _, c := range []struct {
		what   string
		by     *party
		peer   carnet.PartyID
		from   *party // whose connections
		to     string // to where
		linked bool   // it is the link from hub to arena
	}{
		{"arena suspends hub: the link", v.arena, agent, v.hub, v.arena.config.Listen.Link, true},
		{"hub suspends arena: the link", v.hub, "arena", v.hub, v.arena.config.Listen.Link, true},
		{"vault suspends arena: R2", v.vault, "arena", v.arena, v.vault.config.Listen.R2, false},
		{"arena suspends vault: R2", v.arena, "vault", v.arena, v.vault.config.Listen.R2, false},
	} {
		eventually(t, c.what+": connected before", func() bool {
			w.send(1) // so that there are statements, too
			return c.from.established(t, c.to) > 0
		})
		received := v.received(v.arena)
		begun := time.Now()
		if _, err := c.by.client.SuspendPeer(ctx, c.peer); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		for c.from.established(t, c.to) > 0 {
			if time.Since(begun) > 30*time.Second {
				t.Fatalf("%s: still connected", c.what)
			}
			time.Sleep(time.Millisecond)
		}
		t.Logf("%s: asked for, stored and closed after %s", c.what, time.Since(begun).Round(100*time.Microsecond))
		w.send(3)
		if c.linked {
			eventually(t, "the other world gets on", func() bool {
				for _, l := range v.things().Links {
					if l.World == "clinic" {
						return l.Up && l.Lag == 0 && l.Waiting == 0
					}
				}
				return false
			})
			if now := v.received(v.arena); now > received+1 { // one may have been under way
				t.Errorf("%s: arena got %d frames more", c.what, now-received)
			}
		}
		if n := c.from.established(t, c.to); n > 0 {
			t.Errorf("%s: %d connections again", c.what, n)
		}
		if _, err := c.by.client.ResumePeer(ctx, c.peer); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		v.quiet()
	}

	// Row P7: the process is killed as soon as the end is stored.
	if _, err := v.arena.client.SuspendPeer(ctx, agent); err != nil {
		t.Fatal(err)
	}
	v.arena.kill(t)
	v.restart(v.arena)
	w.send(2)
	if p, err := v.arena.client.Peer(ctx, agent); err != nil || p.State != peering.Suspended {
		t.Errorf("after a restart the peering is %s, %v", p.State, err)
	}
	if n := v.hub.established(t, v.arena.config.Listen.Link); n > 0 {
		t.Errorf("after a restart hub has %d connections to who suspended it", n)
	}
	if _, err := v.arena.client.ResumePeer(ctx, agent); err != nil {
		t.Fatal(err)
	}
	v.judge(w)
}

// A removal, killed at a random moment around row P8: it is done whole or not at
// all, and done again it is done.
func TestARemovalIsWholeAfterACrash(t *testing.T) {
	t.Parallel()
	v := newTown(t)
	w := v.addWatch()
	w.send(3)
	v.quiet()
	ctx := t.Context()
	asked := make(chan error, 1)
	go func() {
		_, err := v.hub.client.RemovePeer(ctx, "clinic")
		asked <- err
	}()
	time.Sleep(time.Duration(time.Now().UnixNano()%30) * time.Millisecond)
	v.hub.kill(t)
	err := <-asked
	v.restart(v.hub)
	p, perr := v.hub.client.Peer(ctx, "clinic")
	if perr != nil || p.State != peering.Active && p.State != peering.Removed || err == nil && p.State != peering.Removed {
		t.Fatalf("answered %v, and after the restart it is %+v, %v", err, p, perr)
	}
	t.Logf("answered %v, and after the restart the peering is %s", err, p.State)
	if _, err := v.hub.client.RemovePeer(ctx, "clinic"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the mapping to clinic has ended", func() bool {
		m, err := v.hub.client.Mapping(ctx, w.mappings["clinic"].ID)
		return err == nil && m.Stopped
	})
	if n := v.hub.established(t, v.clinic.config.Listen.Link); n > 0 {
		t.Errorf("hub has %d connections to who was removed", n)
	}
	had := v.received(v.clinic)
	w.send(3)
	eventually(t, "arena gets on", func() bool {
		for _, l := range v.things().Links {
			if l.World == "arena" {
				return l.Up && l.Lag == 0 && l.Waiting == 0
			}
		}
		return false
	})
	if now := v.received(v.clinic); now != had {
		t.Errorf("clinic got %d frames after its removal", now-had)
	}
	if _, err := v.hub.client.Invite(ctx, api.NewPeer{Name: "clinic", Scope: []peering.Scope{peering.R1}, Purposes: []string{"care"}, Sensitivity: "public"}); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a name that was somebody's is given again: %v", err)
	}
}
