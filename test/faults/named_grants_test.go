package faults_test

import (
	"context"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/api"
	"carnet/api/client"
	"carnet/entity"
	"carnet/identity"
	"carnet/policy"
	"carnet/test/wait"
)

const (
	principals = `SELECT count(*) FROM world_document WHERE kind = 'principal'`
	grants     = `SELECT count(*) FROM world_document WHERE kind = 'grant'`
)

// coach is an application that arena gives a grant to.
type coach struct {
	*named
	client client.Client // as the application
	avatar carnet.AvatarID
	grant  string
	cursor string // of the last event that it kept
}

// grants kills arena at the rows of grants.md and of access.md.
func (n *named) grants() {
	n.w.send(1) // so that there is something to show
	n.quiet()
	c := &coach{named: n, avatar: n.w.mappings["arena"].Avatar}
	c.added()
	c.given()
	c.follows()
	c.revoked()
}

// dead wants what was asked of arena not to be answered, since it is killed at a hold.
func (c *coach) dead(h *hold, ask func() error) {
	c.t.Helper()
	answer := make(chan error, 1)
	go func() { answer <- ask() }()
	c.killAt(c.arena, h)
	if err := <-answer; err == nil {
		c.t.Error("arena answers, and is dead")
	}
}

// added is row G3.
func (c *coach) added() {
	ctx, arena := c.t.Context(), c.arena
	add := func() (api.AddedPrincipal, error) {
		return arena.client.AddPrincipal(ctx, entity.NewPrincipal{Kind: entity.KindApplication, Name: "Coach", Purpose: "fitness", Clearance: entity.Clearance{Sensitivity: mostAbroad}})
	}
	c.dead(arena.database.gate.after(document, "principal"), func() error { _, err := add(); return err })
	c.want(arena, principals, 1)
	c.restart(arena)
	all, err := arena.client.Principals(ctx)
	if err != nil || len(all) != 1 {
		c.t.Fatalf("arena has %+v, %v", all, err)
	}
	if _, err := arena.client.RemovePrincipal(ctx, all[0].ID); err != nil {
		c.t.Fatal(err)
	}
	app, err := add()
	if err != nil {
		c.t.Fatal(err)
	}
	c.client = *arena.client
	c.client.Token = app.Token
	c.grant = app.ID
}

// given is rows A1 and A2, and G1 and G2.
func (c *coach) given() {
	ctx, arena, gate := c.t.Context(), c.arena, c.arena.database.gate
	view, err := policy.ParseView([]byte(`{"properties": {"heart_rate": {}}}`))
	if err != nil {
		c.t.Fatal(err)
	}
	terms := entity.Terms{
		Avatar: c.avatar, To: entity.To{Application: c.grant}, Actions: []identity.Action{identity.ActionRead, identity.ActionSubscribe},
		View: view, Purpose: "fitness", Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
	report, err := arena.client.Assess(ctx, terms)
	if err != nil {
		c.t.Fatal(err)
	}
	give := func() error {
		_, err := arena.client.Give(ctx, api.NewGrant{Terms: terms, Assessment: report.Fingerprint})
		return err
	}
	recorded := func() int {
		found, err := arena.client.Activity(ctx, activity.Query{Action: "give-grant"})
		if err != nil {
			c.t.Fatal(err)
		}
		return len(found.Records)
	}
	for i, row := range []struct {
		h             func(string, ...string) *hold
		at            []string
		records, have int
	}{
		{gate.before, []string{"INSERT INTO activity_row"}, 0, 0},
		{gate.before, []string{document, "grant"}, 1, 0},
		{gate.after, []string{document, "grant"}, 2, 1},
	} {
		c.dead(row.h(row.at[0], row.at[1:]...), give)
		c.want(arena, grants, int64(row.have))
		c.restart(arena)
		if got := recorded(); got != row.records {
			c.t.Errorf("asked %d times, the activity log has %d, want %d", i+1, got, row.records)
		}
	}
	list, err := arena.client.Grants(ctx)
	if err != nil || len(list) != 1 || list[0].Revoked != nil {
		c.t.Fatalf("arena has %+v, %v", list, err)
	}
	c.grant = list[0].ID
	c.reads(true)
}

// reads wants the application to be shown the avatar's state, or not to be.
func (c *coach) reads(may bool) {
	c.t.Helper()
	var ms []carnet.Measurement
	var err error
	wait.Until(c.t, "arena answers the application", func() bool {
		ms, err = c.client.State(c.t.Context(), c.avatar)
		return carnet.CodeOf(err) != carnet.Unavailable // some seconds after its start
	})
	if may && (err != nil || len(ms) != 1) || !may && err == nil {
		c.t.Errorf("the application is shown %v, %v", ms, err)
	}
}

// events follows the avatar after a cursor until there are n measurements, and returns
// them with the cursors beside them. came hears how many there are by now, also when
// there are none yet.
func (c *coach) events(after *string, n int, came func(have int)) (ms []carnet.Measurement, cursors []string, err error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for e, err := range c.client.Watch(ctx, c.avatar, after) {
		if err != nil {
			return ms, cursors, err
		}
		for _, m := range e.Measurements {
			ms, cursors = append(ms, m), append(cursors, e.Cursor)
		}
		if len(ms) >= n {
			break
		}
		came(len(ms))
	}
	return ms, cursors, nil
}

// follows is row G5: two events come, one after the other, and the cursor of the first
// is kept.
func (c *coach) follows() {
	c.quiet()
	sent := 0
	had, cursors, err := c.events(nil, 2, func(have int) {
		if have == sent {
			c.w.send(1)
			sent++
		}
	})
	if err != nil || len(had) != 2 {
		c.t.Fatalf("the application has %v, %v", had, err)
	}
	c.cursor = cursors[0]
	c.arena.kill(c.t)
	c.restart(c.arena)
	c.quiet()
	again, _, err := c.events(&c.cursor, 1, func(int) {})
	if err != nil || !slices.Equal(again, had[1:]) {
		c.t.Errorf("after the cursor comes %v, %v; want %v", again, err, had[1:])
	}
}

// revoked is rows G4 and G6.
func (c *coach) revoked() {
	ctx, arena := c.t.Context(), c.arena
	c.quiet()
	if code := arena.end(c.t); code != 0 {
		c.t.Errorf("arena ended with %d", code)
	}
	restore := c.copyData(arena)
	c.restart(arena)
	c.quiet()
	begun, ended := make(chan struct{}), make(chan error, 1)
	begin := sync.OnceFunc(func() { close(begun) })
	go func() {
		defer begin()
		_, _, err := c.events(nil, 1, func(int) { begin() })
		ended <- err
	}()
	<-begun
	c.dead(arena.database.gate.after(document, "grant"), func() error { _, err := arena.client.Revoke(ctx, c.grant); return err })
	if err := <-ended; err == nil {
		c.t.Error("the subscription has not ended")
	}
	c.restart(arena)
	c.refuses("revoked, and killed")
	arena.kill(c.t)
	restore()
	c.restart(arena)
	c.reads(true) // which the older copy says
	if _, err := arena.client.Revoke(ctx, c.grant); err != nil {
		c.t.Error(err)
	}
	c.refuses("revoked anew")
}

// refuses wants the application to be shown nothing any more.
func (c *coach) refuses(when string) {
	c.t.Helper()
	list, err := c.arena.client.Grants(c.t.Context())
	if err != nil || len(list) != 1 || list[0].Revoked == nil {
		c.t.Errorf("%s: arena has %+v, %v", when, list, err)
	}
	c.reads(false)
	if ms, _, err := c.events(&c.cursor, 1, func(int) {}); err == nil {
		c.t.Errorf("%s: the application follows, and is shown %v", when, ms)
	}
}
