package move

import (
	"context"
	"crypto/ed25519"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
	"carnet/register"
)

// desk is a registrar as one world asks it.
type desk struct {
	*registrar
	by string
}

func (d desk) open() (func(), error) {
	d.mu.Lock()
	if d.asked++; d.away {
		d.mu.Unlock()
		return nil, carnet.Errorf(carnet.Unavailable, "the registrar doesn't answer")
	}
	return d.mu.Unlock, nil
}

func (d desk) Enrol(_ context.Context, id carnet.HomeID, owner string) (identity.HomeAnswer, register.HomeReply, error) {
	done, err := d.open()
	if err != nil {
		return identity.HomeAnswer{}, register.HomeReply{}, err
	}
	defer done()
	var known *register.Home
	if h, ok := d.homes[id]; ok {
		known = &h
	}
	h, _, err := register.Enrol(known, id, d.by, owner)
	if err != nil {
		return identity.HomeAnswer{}, register.HomeReply{}, err
	}
	d.homes[id] = h
	a := identity.HomeAnswer{Registrar: d.did(), Home: id, Version: h.Version, World: h.World, Owner: h.Owner, Incarnation: h.Incarnation, Asked: identity.NewNonce()}
	token, err := identity.SignHome(d.key, a)
	d.newest[id] = token
	return a, register.HomeReply{Home: token, Record: token, Proof: register.Proof(d.ledger.State(ledger.HomeEnrolled, token))}, err
}

func (d desk) Claim(ctx context.Context, id carnet.HomeID) (identity.HomeAnswer, register.HomeReply, error) {
	return d.ClaimItem(ctx, id, 0)
}

func (d desk) ClaimItem(_ context.Context, id carnet.HomeID, chain uint64) (identity.HomeAnswer, register.HomeReply, error) {
	d.mu.Lock()
	wait := d.waiting[id]
	d.mu.Unlock()
	if wait != nil {
		wait()
	}
	done, err := d.open()
	if err != nil {
		return identity.HomeAnswer{}, register.HomeReply{}, err
	}
	defer done()
	if err := d.refuses["claim"]; err != nil {
		return identity.HomeAnswer{}, register.HomeReply{}, err
	}
	var known *register.Home
	if h, ok := d.homes[id]; ok {
		known = &h
	}
	h, err := register.ClaimItem(known, id, d.by, chain)
	if err == nil {
		d.homes[id] = h
		err = d.record(h)
	}
	if err == nil && d.lost[id] > 0 {
		d.lost[id]--
		err = carnet.Errorf(carnet.Unavailable, "the answer is lost")
	}
	return identity.HomeAnswer{Home: id, Incarnation: h.Incarnation}, register.HomeReply{}, err
}

// record notes what is said at a change of a home that isn't a decision.
func (d desk) record(h register.Home) (err error) {
	d.newest[h.ID], err = identity.SignHome(d.key, identity.HomeAnswer{
		Registrar: d.did(), Home: h.ID, Version: h.Version, World: h.World, Owner: h.Owner, Incarnation: h.Incarnation, Asked: identity.NewNonce(), Chain: h.Chain, Recovery: h.Recovery,
	})
	return err
}

func (d desk) Home(_ context.Context, id carnet.HomeID) (identity.HomeAnswer, register.HomeReply, error) {
	done, err := d.open()
	if err != nil {
		return identity.HomeAnswer{}, register.HomeReply{}, err
	}
	defer done()
	h, enrolled := d.homes[id]
	if !enrolled {
		return identity.HomeAnswer{}, register.HomeReply{}, carnet.Errorf(carnet.NotFound, "no home %s is enrolled", id)
	}
	reply := register.HomeReply{Record: d.newest[id]}
	for _, decision := range d.decided { // the one that moved it there
		if decision.Moves(identity.HomeAt{Home: id, Version: h.Version, World: h.World}) {
			token, err := identity.SignDecision(d.key, *decision)
			if err != nil {
				return identity.HomeAnswer{}, reply, err
			}
			if token != reply.Record {
				reply.Moved = &register.DecisionReply{Decision: token}
			}
		}
	}
	return identity.HomeAnswer{Home: id, Version: h.Version, World: h.World, Owner: h.Owner, Incarnation: h.Incarnation, Chain: h.Chain, Recovery: h.Recovery, Erased: h.Erased}, reply, nil
}

func (d desk) NotAt(_ context.Context, world string, ids []carnet.HomeID) (not []carnet.HomeID, err error) {
	done, err := d.open()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := d.refuses["not-at"]; err != nil {
		return nil, err
	}
	for _, id := range ids {
		if h := d.homes[id]; h.World != world || h.Recovery != (identity.Petitioned{}) || h.Erased != "" {
			not = append(not, id)
		}
	}
	return not, nil
}

func (d desk) Decide(_ context.Context, x carnet.CrossingID, p register.Petition) (*register.Decided, error) {
	done, err := d.open()
	if err != nil {
		return nil, err
	}
	defer done()
	q := register.Question{By: d.by, Crossing: x, Want: p.Want, Hash: carnet.FingerprintOf([]byte(p.Order))}
	if p.Order != "" {
		o, err := identity.OpenWish(p.Order)
		if err != nil {
			return nil, err
		}
		q.Order = &o
	}
	if p.Release != "" {
		r, err := identity.OpenRelease(p.Release)
		if err != nil {
			return nil, err
		}
		q.Release = &r
	}
	if p.Acceptance != "" {
		a, err := identity.OpenAcceptance(p.Acceptance)
		if err != nil {
			return nil, err
		}
		q.Acceptance = &a
	}
	if p.Farewell != "" {
		f, err := identity.OpenFarewell(p.Farewell)
		if err != nil {
			return nil, err
		}
		q.Farewell = &f
	}
	now := d.now
	if now.IsZero() {
		now = time.Now()
	}
	var decision *identity.Decision
	var homes []register.Home
	for {
		decision, homes, err = register.Decide(register.Known{Registrar: d.did(), Decision: d.decided[x], Homes: d.homes, Wait: d.recoveryWait}, q, now)
		if err != nil {
			return nil, err
		}
		for _, h := range homes {
			d.homes[h.ID] = h
		}
		if decision != nil {
			break
		}
		for _, h := range homes {
			if err := d.record(h); err != nil {
				return nil, err
			}
		}
		if len(homes) == 0 {
			return nil, nil
		}
	}
	d.decided[x] = decision
	token, err := identity.SignDecision(d.key, *decision)
	for _, h := range homes {
		d.newest[h.ID] = token
	}
	return &register.Decided{Outcome: decision.Of(q.Hash), Decision: *decision, Reply: register.DecisionReply{
		Decision: token, Proof: register.Proof(d.ledger.State(ledger.CrossingDecided, token)),
	}}, err
}

func (r *registrar) did() string { return identity.DID(r.key.Public().(ed25519.PublicKey)) }
