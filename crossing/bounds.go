package crossing

import "carnet"

// bounded refuses a share that has more than its avatar's policy lets others have. To
// whom, what for, and whether it may be passed on, the grant is held to.
func (a *Agent) bounded(g *Given) error {
	return a.World.Bounds(g.Avatar).MayTransmit(g.Most.Sensitivity)
}

// unshelvable says why nothing that a taker would get may be left at the depot; "": it
// may. A shelf is of all shares of a taker, so one is enough.
func (a *Agent) unshelvable(taker carnet.PartyID) string { return a.homeOnly()[taker] }

// homeOnly says of takers why nothing that they would get may be left at the depot; it
// lacks those of whom all may, and while the depot isn't known, all.
func (a *Agent) homeOnly() map[carnet.PartyID]string {
	var why map[carnet.PartyID]string // almost always nil
	did := a.depotDID()
	if did == "" {
		return nil
	}
	for _, g := range a.giving() {
		b := a.World.Bounds(g.Avatar)
		if b.Store.Depots == nil {
			continue
		}
		if err := b.MayStore(did); err != nil {
			if why == nil {
				why = make(map[carnet.PartyID]string)
			}
			why[g.Taker] = "something of it may not be kept at the depot: " + err.Error()
		}
	}
	return why
}

// shelvable refuses to leave something for a taker at a depot that isn't known, if a
// policy says which may have it: what is there stays there meanwhile.
func (a *Agent) shelvable(taker carnet.PartyID) error {
	if a.depotDID() != "" {
		return nil
	}
	for _, g := range a.giving() {
		if g.Taker == taker && a.World.Bounds(g.Avatar).Store.Depots != nil {
			return carnet.Errorf(carnet.Unavailable, "there is no depot at the moment, so nobody can tell whether it may have something of %s", g.Avatar)
		}
	}
	return nil
}

// depotDID is what a policy calls the depot of shelves; nothing where it isn't known.
func (a *Agent) depotDID() string {
	if a.ShelfAt != nil {
		if at := a.ShelfAt(); at != nil {
			return at.DID
		}
	}
	return ""
}

// rouseShelves has what is being shelved, and may not be any more, look.
func (a *Agent) rouseShelves() {
	for taker := range a.homeOnly() {
		a.mu.RLock()
		s := a.sources[taker]
		a.mu.RUnlock()
		if s != nil {
			s.rouse()
		}
	}
}
