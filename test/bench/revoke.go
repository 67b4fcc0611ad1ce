package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/crossing"
	"carnet/entity"
	"carnet/identity"
	"carnet/node"

	"golang.org/x/sync/errgroup"
)

// revocations is row 12: what is open under a grant, until a revocation has ended
// the last of it.
func revocations(ctx context.Context, b *bench) (all []Figure, err error) {
	n := 10_000
	if b.short {
		n = 1000
	}
	for _, measure := range []func(context.Context, *bench, int) (Figure, error){revokeHere, revokeElsewhere, revokeShares} {
		f, err := measure(ctx, b, n)
		if err != nil {
			return all, err
		}
		f.Row, f.Unit, f.Goal, f.AtMost = 12, "ms", 250, true
		all = append(all, f)
	}
	return all, nil
}

// limitsFor is what a world is given so that it has n subscriptions of one token and
// one address.
func limitsFor(n int) node.Limits {
	return node.Limits{Live: n + 64, LiveOfToken: n, HTTPConnections: 4 * (n + 256)}
}

// subscribed opens n WebSockets of one application under a grant of arena's.
func subscribed(ctx context.Context, s *system, n int) (*subscribers, entity.Grant, error) {
	arena := s.worlds[0]
	devices, err := s.add(ctx, 1, plain.description(), plain.views())
	if err != nil {
		return nil, entity.Grant{}, err
	}
	id := devices[0].mappings[0].Avatar
	application, err := arena.client.AddPrincipal(ctx, entity.NewPrincipal{
		Kind: entity.KindApplication, Name: "Coach", Purpose: "fitness", Clearance: entity.Clearance{Sensitivity: carnet.Personal | carnet.Health},
	})
	if err != nil {
		return nil, entity.Grant{}, fmt.Errorf("add an application: %w", err)
	}
	grant, err := arena.give(ctx, id, entity.To{Application: application.ID}, `{"properties": {"a": {}}}`, identity.ActionSubscribe)
	if err != nil {
		return nil, grant, err
	}
	open, err := arena.subscribe(ctx, n, id, application.Token)
	return open, grant, err
}

// revoke revokes a grant at a party, and says when each subscription was closed,
// counted from the request.
func revoke(ctx context.Context, s *system, at *client.Client, id string, open *subscribers) (f Figure, err error) {
	before, own, begun := s.used(), ownCPU(), time.Now()
	if _, err := at.Revoke(ctx, id); err != nil {
		return f, fmt.Errorf("revoke: %w", err)
	}
	answered := time.Since(begun)
	if err := open.wait(ctx, time.Minute); err != nil {
		return f, err
	}
	used, load := s.used(), ownCPU()-own
	if open.broken > 0 {
		return f, fmt.Errorf("%d subscriptions ended without a word", open.broken)
	}
	f = spread(begun, open.closed)
	f.Raw["answered after, ms"] = float64(answered.Microseconds()) / 1000
	f.Raw["CPU of arena, s"], f.Raw["CPU of the subscribers, s"] = (used["arena"] - before["arena"]).Seconds(), load.Seconds()
	return f, nil
}

// spread is how long after a time others were. The figure is the last one's.
func spread(begun time.Time, times []time.Time) Figure {
	var took []time.Duration
	for _, t := range times {
		took = append(took, t.Sub(begun))
	}
	slices.Sort(took)
	ms := func(q float64) float64 { return float64(quantile(took, q).Microseconds()) / 1000 }
	return Figure{Value: ms(1), Raw: map[string]float64{"how many": float64(len(took)), "first ms": ms(0), "p50 ms": ms(0.5), "p99 ms": ms(0.99)}}
}

// revokeHere revokes in the process that has the subscriptions.
func revokeHere(ctx context.Context, b *bench, n int) (f Figure, err error) {
	s, err := b.startCast(ctx, "row12", cast{worlds: []carnet.PartyID{"arena"}, limits: limitsFor(n)})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	open, grant, err := subscribed(ctx, s, n)
	if err != nil {
		return f, err
	}
	defer open.end()
	if f, err = revoke(ctx, s, s.worlds[0].client, grant.ID, open); err != nil {
		return f, err
	}
	f.Name = fmt.Sprintf("revocation of %s WebSockets", number(float64(n)))
	f.Note = "From the request until the subscribers had the close frame of the last; their side of TLS is on the same cores."
	return f, nil
}

// revokeElsewhere revokes in another process of the same world: the process that has
// the subscriptions learns it by the polling of the revocation number alone.
func revokeElsewhere(ctx context.Context, b *bench, n int) (f Figure, err error) {
	dsn, stop, err := startPostgres(ctx)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	s, err := b.startCast(ctx, "row12-bus", cast{worlds: []carnet.PartyID{"arena"}, dsn: dsn, limits: limitsFor(n)})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	open, grant, err := subscribed(ctx, s, n)
	if err != nil {
		return f, err
	}
	defer open.end()
	twin, err := s.worlds[0].twin(ctx, b, "row12-bus")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, twin.stop()) }()
	if f, err = revoke(ctx, s, twin.client, grant.ID, open); err != nil {
		return f, err
	}
	f.Name = fmt.Sprintf("revocation of %s WebSockets, bus cut", number(float64(n)))
	f.Note = "Two processes of one world on one PostgreSQL, revoked in the one, subscribed in the other, which looks at the revocation number each 100 ms."
	return f, nil
}

// twin starts a second process of the party on the same store.
func (p *party) twin(ctx context.Context, b *bench, row string) (*party, error) {
	t := &party{name: p.name + "-twin", role: p.role, dir: p.dir, config: p.config, token: p.token}
	c := &t.config
	c.Data = "data-twin"
	for _, a := range []*string{&c.Listen.HTTP, &c.Listen.Link} {
		var err error
		if *a, err = node.FreeAddress(); err != nil {
			return nil, err
		}
	}
	t.file = "carnet-twin.toml"
	if err := c.Write(filepath.Join(t.dir, t.file)); err != nil {
		return nil, err
	}
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	if err := t.start(b, row); err != nil {
		return nil, err
	}
	return t, t.await(ctx)
}

// startPostgres starts a PostgreSQL of its own, on the disk that the parties are on.
func startPostgres(ctx context.Context) (dsn string, stop func() error, err error) {
	cmd := exec.CommandContext(ctx, "test/postgres.sh", "--", "sh", "-c", `echo "$CARNET_PG"; exec sleep 600`)
	cmd.Env = append(os.Environ(), "TMPDIR="+os.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		_ = cmd.Wait() // it was told to end, and ends with 143
		return nil
	}
	if dsn, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		return "", nil, errors.Join(fmt.Errorf("PostgreSQL doesn't say where it is: %w", err), stop())
	}
	return strings.TrimSpace(dsn), stop, nil
}

// revokeShares revokes the grant that shares of one avatar live by.
func revokeShares(ctx context.Context, b *bench, n int) (f Figure, err error) {
	s, err := b.startCast(ctx, "row12-shares", cast{worlds: []carnet.PartyID{"arena", "citadel"}, limits: node.Limits{SharesOfGrant: n}})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	views := plain.views()
	views["citadel"] = citadelView
	devices, err := s.add(ctx, 1, plain.description(), views)
	if err != nil {
		return f, err
	}
	nb, err := s.neighbours(ctx, b, "row12-shares")
	if err != nil {
		return f, err
	}
	did, err := nb.permit(ctx, devices[0])
	if err != nil {
		return f, err
	}
	grant, err := nb.arena.give(ctx, devices[0].mappings[0].Avatar, entity.To{Platform: "citadel", DID: did}, `{"properties": {"a": {}}}`, identity.ActionSubscribe)
	if err != nil {
		return f, err
	}
	group, taking := errgroup.WithContext(ctx)
	group.SetLimit(16)
	begun := time.Now()
	for range n {
		group.Go(func() error {
			_, err := nb.take(taking, devices[0])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return f, err
	}
	took := time.Since(begun)
	idle, idleFor := s.used(), time.Now()
	if err := sleep(ctx, 3*time.Second); err != nil {
		return f, err
	}
	rest := (s.used()["arena"] - idle["arena"]).Seconds() / time.Since(idleFor).Seconds()

	before, begun := s.used(), time.Now()
	if _, err := nb.arena.client.Revoke(ctx, grant.ID); err != nil {
		return f, fmt.Errorf("revoke: %w", err)
	}
	answered := time.Since(begun)
	giver, err := ends(ctx, nb.arena)
	if err != nil {
		return f, err
	}
	taker, err := ends(ctx, nb.citadel)
	if err != nil {
		return f, err
	}
	if len(giver) != n || len(taker) != n {
		return f, fmt.Errorf("%d shares have ended in arena and %d in citadel, of %d", len(giver), len(taker), n)
	}
	f = spread(begun, giver)
	f.Name = fmt.Sprintf("revocation of %s shares", number(float64(n)))
	f.Raw["answered after, ms"] = float64(answered.Microseconds()) / 1000
	f.Raw["last in citadel, ms"] = spread(begun, taker).Value
	f.Raw["shares begun a second"] = float64(n) / took.Seconds()
	f.Raw["CPU of arena before, of one core"] = rest
	f.Raw["CPU of arena, s"] = (s.used()["arena"] - before["arena"]).Seconds()
	f.Note = "From the request until the last share has ended at its giver, as both sides have noted it: from then on nothing of it is signed."
	return f, nil
}

// ends waits until every share of a world has ended, and says when each did.
func ends(ctx context.Context, p *party) (all []time.Time, err error) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		shares, err := p.client.Shares(ctx)
		if err != nil {
			return nil, err
		}
		all = all[:0]
		for _, share := range shares {
			if share.State == crossing.Ended {
				all = append(all, share.Ended.Time)
			}
		}
		if len(all) == len(shares) {
			return all, nil
		}
		if err := sleep(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%d shares of %s have ended, and others haven't", len(all), p.name)
}
