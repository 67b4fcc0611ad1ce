package thing

import (
	"cmp"
	"context"
	"maps"

	"carnet"
	ident "carnet/identity"
	"carnet/keys"
	"carnet/link"
)

// sender finds the agent's side of the link to a world; nil for one that it never
// had.
func (a *Agent) sender(world carnet.PartyID) *sender { return (*a.senders.Load())[world] }

// allSenders are those of all worlds that the agent ever had. Nobody changes the
// map.
func (a *Agent) allSenders() map[carnet.PartyID]*sender { return *a.senders.Load() }

// setSender puts a sender in its place. The caller holds changeMu, or is New.
func (a *Agent) setSender(s *sender) {
	all := maps.Clone(a.allSenders())
	if all == nil {
		all = make(map[carnet.PartyID]*sender)
	}
	all[s.peer.Party] = s
	a.senders.Store(&all)
}

// newSender makes the agent's side of a link, with the key that seals its
// positions, which is made at the first start.
func (a *Agent) newSender(ctx context.Context, w World) (*sender, error) {
	if w.Purpose == "" || !w.Ended && (w.Key == nil || w.WorldKey == nil || w.Self == "") {
		return nil, carnet.Errorf(carnet.Malformed, "world %q needs this agent's id and signing key for it, the world's key and a purpose", w.Party)
	}
	w.OwnName = cmp.Or(w.OwnName, w.Party)
	id := keys.ID{Kind: "link-position", Name: string(w.Party)}
	secret, err := a.keys.Get(ctx, id)
	if carnet.CodeOf(err) == carnet.NotFound {
		made, merr := a.keys.Make(ctx, id)
		if merr != nil {
			return nil, merr
		}
		secret, err = made[0][:], nil
	}
	if err != nil {
		return nil, err
	}
	s := &sender{agent: a, peer: w, call: unlinked{w.Party}, demand: make(map[carnet.StreamID]bool)}
	if w.WorldKey != nil {
		s.did = ident.DID(w.WorldKey)
	}
	s.position, err = newPositionCipher([32]byte(secret))
	return s, err
}

// SetWorld adds a world, or changes what was agreed with one, while no link to it
// runs. Mappings to it that are in force are decided anew under what is agreed now.
func (a *Agent) SetWorld(ctx context.Context, w World) error {
	was := a.sender(w.Party)
	if was != nil && was.agreed(w) {
		return nil
	}
	s, err := a.newSender(ctx, w)
	if err != nil {
		return err
	}
	a.changeMu.Lock()
	if was != nil {
		was.close()
		s.decided = was.decidedUpTo()
	}
	a.setSender(s)
	a.changeMu.Unlock()
	return a.eachMapping(ctx, w.Party, func(*mappingDocument) {})
}

// EndWorld ends every mapping to a world for good: its peering was removed. What
// the log keeps for others isn't kept for it any more. It may be called again.
func (a *Agent) EndWorld(ctx context.Context, world carnet.PartyID) error {
	was := a.sender(world)
	if was == nil {
		return nil
	}
	if !was.peer.Ended {
		w := was.peer
		w.Ended, w.Key = true, nil
		s, err := a.newSender(ctx, w)
		if err != nil {
			return err
		}
		a.changeMu.Lock()
		was.close()
		a.setSender(s)
		a.changeMu.Unlock()
	}
	return a.eachMapping(ctx, world, func(doc *mappingDocument) { doc.Stopped = true })
}

// eachMapping changes the mappings to a world that are in force.
func (a *Agent) eachMapping(ctx context.Context, world carnet.PartyID, change func(*mappingDocument)) error {
	for _, m := range a.mappingsTo(world) {
		a.policyMu.RLock()
		stopped := m.stopped
		a.policyMu.RUnlock()
		if stopped {
			continue
		}
		if _, err := a.changeMapping(ctx, byPeering, m.ID, func(doc *mappingDocument) error { change(doc); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// byPeering is who changes a mapping when its world's peering changes.
const byPeering = "peering"

// agreed reports whether a world is as the sender has it.
func (s *sender) agreed(w World) bool {
	p := s.peer
	return !p.Ended && p.Self == w.Self && p.OwnName == cmp.Or(w.OwnName, w.Party) && p.Key.Equal(w.Key) && p.WorldKey.Equal(w.WorldKey) &&
		p.Purpose == w.Purpose && p.Clearance == w.Clearance
}

// unlinked is the way to ask a world that no link runs to.
type unlinked struct{ world carnet.PartyID }

// Call implements Caller.
func (u unlinked) Call(context.Context, string, []byte) ([]byte, error) {
	return nil, carnet.Errorf(carnet.Unavailable, "no link runs to %s", u.world).WithFix("see 'carnet peer show %s'", u.world)
}

// Trace implements Caller.
func (u unlinked) Trace(ctx context.Context, _ uint64) (link.Position, bool, error) {
	_, err := u.Call(ctx, "", nil)
	return link.Position{}, false, err
}

func (s *sender) connect(call Caller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call = call
}

func (s *sender) caller() Caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.call
}
