package faults_test

import (
	"fmt"
	"maps"
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
	"carnet/node"
	"carnet/peering"
	"carnet/test/wait"
)

// established returns the connections of a party to a port, as the kernel has them,
// each by its inode. One that is being refused is established, too, for as long as
// its handshake takes: a party that is cut off tries again and again.
func (p *party) established(t *testing.T, address string) map[string]bool {
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
	connections := make(map[string]bool)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "01" && own[f[9]] && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", number)) {
			connections[f[9]] = true
		}
	}
	return connections
}

// refused wants a party to have no connection to a port that lasts, however often it
// tries.
func (p *party) refused(t *testing.T, address string) {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%s is refused at %s", p.name, address), func() bool { return len(p.established(t, address)) == 0 })
	since := make(map[string]time.Time)
	for began := time.Now(); time.Since(began) < 4*time.Second; time.Sleep(50 * time.Millisecond) {
		is := p.established(t, address)
		for c := range is {
			if since[c].IsZero() {
				since[c] = time.Now()
			}
			if lasts := time.Since(since[c]); lasts > 2*time.Second { // many times a handshake's
				t.Errorf("%s, who is refused at %s, has been connected there for %s", p.name, address, lasts)
				return
			}
		}
		maps.DeleteFunc(since, func(c string, _ time.Time) bool { return !is[c] })
	}
}

func disjoint(a, b map[string]bool) bool {
	for k := range a {
		if b[k] {
			return false
		}
	}
	return true
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
		wait.Until(t, c.what+": connected before", func() bool {
			w.send(1) // so that there are statements, too
			return len(c.from.established(t, c.to)) > 0
		})
		live, received := c.from.established(t, c.to), v.received(v.arena)
		begun := time.Now()
		if _, err := c.by.client.SuspendPeer(ctx, c.peer); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		// They are closed when the call returns, not a moment later.
		if still := c.from.established(t, c.to); !disjoint(live, still) {
			t.Errorf("%s: still connected: of %v there are %v", c.what, live, still)
		}
		t.Logf("%s: asked for, stored and closed after %s", c.what, time.Since(begun).Round(100*time.Microsecond))
		w.send(3)
		if c.linked {
			wait.Until(t, "the other world gets on", func() bool {
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
		c.from.refused(t, c.to)
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
	if p, err := v.arena.client.Peer(ctx, agent); err != nil || p.State != peering.Suspended || !strings.Contains(p.Trouble, "suspended here since") {
		t.Errorf("after a restart the peering is %s (%s), %v", p.State, p.Trouble, err)
	}
	v.hub.refused(t, v.arena.config.Listen.Link)
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
	wait.Until(t, "the mapping to clinic has ended", func() bool {
		m, err := v.hub.client.Mapping(ctx, w.mappings["clinic"].ID)
		return err == nil && m.Stopped
	})
	v.hub.refused(t, v.clinic.config.Listen.Link)
	had := v.received(v.clinic)
	w.send(3)
	wait.Until(t, "arena gets on", func() bool {
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

// A peering ends by its terms while its link is live: until the last second it works, then
// both ends cut it, whoever looks at the clock first, and everything else goes on. It stays
// over after a restart of either.
func TestAPeeringEndsByItsTerms(t *testing.T) {
	t.Parallel()
	v := makeTown(t, t.TempDir())
	gym := &party{name: "gym", role: identity.World, config: node.Config{World: node.WorldConfig{Purpose: "training", Sensitivity: "personal+health", CompactEvery: node.Duration(2 * time.Second)}}}
	gym.config.Store.Kind = "sqlite"
	v.make(gym)
	t.Cleanup(func() {
		if gym.running() {
			gym.kill(t)
		}
	})
	for _, p := range append(v.parties(), gym) {
		p.start(t)
	}
	for _, p := range append(v.parties(), gym) {
		v.await(p)
	}
	w := v.addWatch()
	w.send(3)
	v.quiet()

	// The terms are made last, and hold long enough to see the link work.
	for _, p := range []*party{v.hub, gym} {
		if code := p.end(t); code != 0 {
			t.Fatalf("%s ended with %d", p.name, code)
		}
	}
	offer, err := gym.config.Offers(peering.R1)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(25 * time.Second).Truncate(time.Second)
	offer.NotAfter = end
	if err := node.Introduce(t.Context(), node.Introduction{Inviter: v.hub.config, Accepter: gym.config, Calls: "gym", Offer: offer}, quietLog()); err != nil {
		t.Fatal(err)
	}
	v.restart(v.hub)
	v.restart(gym)
	m := w.mapTo(t.Context(), "gym", `{"properties": {"heart_rate": {}}, "purposes": ["training"]}`)
	w.mappings["gym"] = m
	w.send(3)
	link := gym.config.Listen.Link
	wait.Until(t, "gym gets frames", func() bool { return v.received(gym) > 0 })
	live := v.hub.established(t, link)
	if len(live) == 0 {
		t.Fatal("hub isn't connected to gym")
	}
	for time.Until(end) > 500*time.Millisecond {
		if now := v.hub.established(t, link); !maps.Equal(now, live) && time.Until(end) > 0 {
			t.Fatalf("%s before its end the link is another: %v, was %v", time.Until(end), now, live)
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(time.Until(end))
	wait.Until(t, "the link is cut", func() bool { return disjoint(live, v.hub.established(t, link)) })
	had := v.received(gym)
	w.send(5)
	wait.Until(t, "arena gets on", func() bool {
		for _, l := range v.things().Links {
			if l.World == "arena" {
				return l.Up && l.Lag == 0 && l.Waiting == 0
			}
		}
		return false
	})
	v.hub.refused(t, link)
	if now := v.received(gym); now != had {
		t.Errorf("gym got %d frames after the terms' end", now-had)
	}
	agent := v.peerWith(gym, identity.Things)
	over := func(what string) {
		t.Helper()
		for p, peer := range map[*party]carnet.PartyID{v.hub: "gym", gym: agent} {
			wait.Until(t, what+": the peering is over", func() bool {
				is, err := p.client.Peer(t.Context(), peer)
				return err == nil && is.State == peering.Over
			})
		}
	}
	over("at its end")
	for _, p := range []*party{v.hub, gym} {
		p.kill(t)
		v.restart(p)
	}
	over("after restarts")
	w.send(2)
	v.hub.refused(t, link)
	if now := v.received(gym); now != had {
		t.Errorf("gym got %d frames after the terms' end and restarts", now-had)
	}
	delete(w.mappings, "gym")
	wait.Until(t, "all but gym has everything", func() bool { // whose link stays down
		why := v.unsettled()
		return why == "" || strings.HasPrefix(why, "the link to gym")
	})
	for _, p := range append(v.parties(), gym) {
		if code := p.end(t); code != 0 {
			t.Errorf("%s ended with %d", p.name, code)
		}
	}
	v.judgeStores(w)
}
