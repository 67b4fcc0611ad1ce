package thing

import (
	"time"

	"carnet"
)

// Bounds are what one owner may have, so that one can't fill what all share. Zero
// takes the default.
type Bounds struct {
	Things       int // default 10,000
	Descriptions int // bytes of their descriptions; default 64 MiB

	// Mappings is how many of one owner's things' mappings to one world may be in
	// force, and how many may have ended within a day. Default 1,000.
	Mappings int
	// Views is how often within a day one owner may change the views of mappings:
	// each change leaves a statement, and mostly a record. Default 10,000.
	Views int
}

func (b *Bounds) complete() {
	if b.Things == 0 {
		b.Things = 10_000
	}
	if b.Descriptions == 0 {
		b.Descriptions = 64 << 20
	}
	if b.Mappings == 0 {
		b.Mappings = 1000
	}
	if b.Views == 0 {
		b.Views = 10_000
	}
}

// mayAdd refuses one more thing than an owner may have. The caller holds changeMu.
func (a *Agent) mayAdd(owner string, description int) error {
	n, bytes := 1, description
	for _, t := range a.allThings() {
		if t.owner == owner {
			n++
			bytes += t.described
		}
	}
	switch {
	case n > a.bounds.Things:
		return carnet.Errorf(carnet.TooLarge, "%s has %d things, which is all that one owner may have", owner, n-1).
			WithFix("ask the operator of %s to raise limits.things_of_owner", a.party)
	case bytes > a.bounds.Descriptions:
		return carnet.Errorf(carnet.TooLarge, "the descriptions of %s's things would have %d bytes, and one owner's may have %d", owner, bytes, a.bounds.Descriptions).
			WithFix("shorten this one, or ask the operator of %s to raise limits.descriptions_of_owner", a.party)
	}
	return nil
}

// mayMap refuses one more mapping than an owner may have. Those that ended a while
// ago count, too: each leaves an avatar at the world, and documents here.
func (a *Agent) mayMap(owner string, world carnet.PartyID) error {
	force, ended, since := 0, 0, a.now().Add(-24*time.Hour)
	a.policyMu.RLock()
	for _, m := range a.mappingsTo(world) {
		switch {
		case m.thing.owner != owner:
		case !m.stopped:
			force++
		case a.changedAt(m).After(since):
			ended++
		}
	}
	a.policyMu.RUnlock()
	switch {
	case force >= a.bounds.Mappings:
		return carnet.Errorf(carnet.TooLarge, "the things of %s have %d mappings to %s in force, which is all that one owner's may", owner, force, world).
			WithFix("end some: carnet thing unmap")
	case ended >= a.bounds.Mappings:
		return carnet.Errorf(carnet.TooLarge, "%d mappings of %s's things to %s have ended within a day, and one owner may map no more then", ended, owner, world).
			WithFix("wait until some of them ended a day ago")
	}
	return nil
}

// viewsSet is how often an owner has changed views since a time that is less than a day
// ago.
type viewsSet struct {
	since time.Time
	count int
}

// mayChange counts a change of a view, and refuses one more than an owner may make in
// a day. Ending a mapping isn't one. It is counted from the agent's start on. The
// caller holds changeMu.
func (a *Agent) mayChange(owner string) error {
	c, now := a.viewsSet[owner], a.now()
	if day := now.Sub(c.since); day >= 24*time.Hour || day < 0 {
		c = viewsSet{since: now}
	}
	if c.count >= a.bounds.Views {
		return carnet.Errorf(carnet.TooLarge, "%s has changed views %d times since %s, which is as often as one owner may within a day", owner, c.count, c.since.UTC().Format(time.RFC3339)).
			WithFix("go on a day after that, or ask the operator of %s to raise limits.views_of_owner; ending a mapping is always possible", a.party)
	}
	c.count++
	a.viewsSet[owner] = c
	return nil
}

// changedAt is when a mapping last changed; of one that has ended, when that was.
func (a *Agent) changedAt(m *Mapping) time.Time {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	views := a.registry.views[m.Number]
	if len(views) == 0 {
		return time.Time{}
	}
	return views[len(views)-1].Time
}
