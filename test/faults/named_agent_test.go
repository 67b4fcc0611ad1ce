package faults_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/policy"
	"carnet/td"
	"carnet/test/wait"

	"github.com/jackc/pgx/v5"
)

const (
	logged = `SELECT log_next FROM thing_totals`
	asked  = `SELECT coalesce(sum(version), 0)::bigint FROM thing_document WHERE kind = 'asked'`
)

// uncommitted holds the agent when its links have made frames of a group that it is
// about to store. It is killed there; then its server has no room for the group.
func (n *named) uncommitted() {
	n.quiet()
	hub, arena := n.hub, n.arena
	next, record, frames := hub.number(n.t, logged), hub.number(n.t, lastRecord), arena.number(n.t, frameRows)
	nothing := func(where string) {
		n.t.Helper()
		n.want(hub, logged, next)
		n.want(hub, lastRecord, record)
		n.want(arena, frameRows, frames)
		if got := len(n.w.unacknowledged()); got != 1 {
			n.t.Errorf("%s: %d messages aren't acknowledged, want 1", where, got)
		}
	}
	built := func() *hold {
		n.t.Helper()
		h := hub.database.gate.before("INSERT INTO thing_log")
		n.t.Cleanup(n.w.throw(1))
		h.await(n.t)
		wait.Until(n.t, "each link has made a frame of it", func() bool {
			links := n.things().Links
			for _, l := range links {
				if l.Waiting == 0 {
					return false
				}
			}
			return len(links) == 2
		})
		return h
	}
	n.killAt(hub, built())
	nothing("killed")
	n.restart(hub)
	n.linked()
	n.w.send(0)
	n.quiet()
	n.want(arena, frameRows, frames+1)

	next, record, frames = hub.number(n.t, logged), hub.number(n.t, lastRecord), arena.number(n.t, frameRows)
	hub.database.do(n.t, `CREATE FUNCTION hub.full() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION USING ERRCODE = ''53100''; END'`)
	hub.database.do(n.t, `CREATE TRIGGER full_disk BEFORE INSERT ON hub.thing_log FOR EACH STATEMENT EXECUTE FUNCTION hub.full()`)
	built().pass()
	wait.Until(n.t, "the group is given up", func() bool { return strings.Contains(hub.log.String(), "the store has no room") })
	n.linked()
	nothing("without room")
	hub.database.do(n.t, `DROP TRIGGER full_disk ON hub.thing_log`)
	wait.Until(n.t, "there is room again", func() bool { return n.w.try() == nil })
	n.quiet()
	n.want(hub, logged, next+1)
	n.want(hub, lastRecord, record+1)
	n.want(arena, frameRows, frames+1)
}

// try publishes what isn't acknowledged, once.
func (w *watch) try() error {
	c, err := w.dial(w.town.t.Context(), w.hear)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, i := range w.unacknowledged() {
		if err := w.publish(c, i); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(w.town.t.Context(), 5*time.Second)
	defer cancel()
	if err := c.Drain(ctx); err != nil {
		return err
	}
	if len(w.unacknowledged()) > 0 {
		return carnet.Errorf(carnet.NoSpace, "not everything is taken")
	}
	return nil
}

// asked kills the agent when it has stored which stream it asks a world for: before
// it asks, and when the world has answered. Asked again it is the same stream, so the
// world makes one avatar.
func (n *named) asked() {
	n.quiet()
	hub, arena := n.hub, n.arena
	added, err := hub.client.AddThing(n.t.Context(), api.NewThing{Owner: owner, Description: api.Description(td.Watch())})
	if err != nil {
		n.t.Fatal(err)
	}
	view, err := policy.ParseView([]byte(views["arena"]))
	if err != nil {
		n.t.Fatal(err)
	}
	ask := func() (err error) {
		for hub.running() {
			if _, err = hub.client.Map(n.t.Context(), added.ID, api.NewMapping{World: "arena", Title: "once", View: view}); carnet.CodeOf(err) != carnet.Unavailable {
				return err
			}
			time.Sleep(10 * time.Millisecond) // its links begin anew when its store was slow
		}
		return err
	}
	versions, have, there := hub.number(n.t, asked), hub.number(n.t, mappings), arena.number(n.t, avatars)
	for i, h := range []*hold{hub.database.gate.after(thingWrite, "asked"), nil} {
		if h == nil {
			h = hub.database.gate.before(thingWrite, "mapping")
		}
		answer := make(chan error, 1)
		go func() { answer <- ask() }()
		n.killAt(hub, h)
		if err := <-answer; err == nil {
			n.t.Error("a dead agent answers")
		}
		n.want(hub, asked, versions+1)
		n.want(hub, mappings, have)
		n.want(arena, avatars, there+int64(i))
		n.restart(hub)
		n.linked()
	}
	if err := ask(); err != nil {
		n.t.Errorf("asked again: %v", err)
	}
	n.want(hub, asked, versions+1)
	n.want(hub, mappings, have+1)
	n.want(arena, avatars, there+1)
	if err := ask(); err != nil { // another one, since that is a mapping by now
		n.t.Error(err)
	}
	n.want(hub, asked, versions+2)
	n.want(arena, avatars, there+2)
}

// do changes something in a party's database, past the gate.
func (d *database) do(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
