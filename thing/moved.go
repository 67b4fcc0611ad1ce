package thing

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"carnet"
	ident "carnet/identity"
	"carnet/ledger"
)

// movedOn says where a mapping's avatar went.
type movedOn struct {
	Crossing carnet.CrossingID `json:"crossing"`
	Target   string            `json:"target"` // did:key
	// How much of the stream went with it: the numbers of the first batch and
	// measurement that didn't.
	NextBatch uint64 `json:"next_batch"`
	NextFirst uint64 `json:"next_measurement"`
}

// following says which mapping another one follows, and where it begins.
type following struct {
	Crossing carnet.CrossingID `json:"crossing"`
	Mapping  uint32            `json:"mapping"`
	Begin    beginning         `json:"begin"`
}

// tidings is what a world told of a move, as it came; or of an erasure.
type tidings struct {
	mapping *Mapping
	erased  *carnet.Erased
	moved   carnet.Moved
	hash    carnet.Fingerprint // of the notice
	size    int
}

// maxTold bounds what of one world waits to be looked at, in bytes: what is over it
// the world tells again at the next connection.
const maxTold = 16 << 20

// hear takes a world's notice that an avatar has moved, to be looked at beside the
// link.
func (s *sender) hear(body []byte) {
	t := tidings{hash: carnet.FingerprintOf(body), size: len(body)}
	if err := json.Unmarshal(body, &t.moved); err != nil {
		s.agent.log.Warn("a world's notice can't be read", "world", s.peer.Party, "kind", carnet.NoticeMoved, "err", err)
		return
	}
	t.mapping = s.agent.mappingByStream(t.moved.Stream)
	if t.mapping == nil || t.mapping.World != s.peer.Party {
		s.agent.log.Warn("a world tells of the move of an avatar that nothing here is sent to", "world", s.peer.Party)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.toldBytes+t.size > maxTold {
		return
	}
	s.told, s.toldBytes = append(s.told, t), s.toldBytes+t.size
	s.agent.lookAtMoves()
}

// nextTold takes what was told first.
func (s *sender) nextTold() (t tidings, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.told) == 0 {
		s.told = nil
		return t, false
	}
	t, s.told = s.told[0], s.told[1:]
	s.toldBytes -= t.size
	return t, true
}

// notAMove is why what a world told is refused for good.
type notAMove struct{ error }

// movement is a move that is proved: by the owner's order and the registrar's
// decision.
type movement struct {
	order ident.Order
	terms ident.MoveTerms
}

// prove holds what a world told against what is known of the mapping. Of all that
// was told only the two numbers are the world's own word.
func (s *sender) prove(m *Mapping, told carnet.Moved) (movement, error) {
	key := s.agent.orderKey(m)
	if key == nil {
		return movement{}, carnet.Errorf(carnet.Forbidden, "no owner's key is known for the avatar").WithFix("carnet owner claim %s/%s, before it moves", m.thing.id, m.World)
	}
	return proveMove(told, key, ident.DID(s.peer.WorldKey), m.Avatar)
}

// proveMove holds what was told of a move against who may order it, which world it is to
// leave, and which avatar.
func proveMove(told carnet.Moved, key ed25519.PublicKey, from string, avatar carnet.AvatarID) (v movement, err error) {
	refused := func(format string, args ...any) *carnet.Error {
		return carnet.Errorf(carnet.Forbidden, format, args...)
	}
	if v.order, err = ident.OpenWish(told.Order); err != nil {
		return v, err
	}
	switch o := v.order; {
	case o.Owner != ident.DID(key):
		return v, refused("the order isn't by the avatar's owner")
	case o.Source != from:
		return v, refused("the order is for another world to leave")
	}
	if v.terms, err = ident.ParseMoveTerms(told.Terms, v.order); err != nil {
		return v, err
	}
	if v.terms.Avatar != avatar {
		return v, refused("the order is for another avatar")
	}
	if v.terms.Alone {
		return v, refused("the order is for an item of the avatar, which stays")
	}
	if v.order.Recovers != nil && !slices.Contains(v.terms.Heads, ident.Head{Stream: told.Stream, NextBatch: told.NextBatch, NextFirst: told.NextFirst}) {
		return v, refused("the recovery doesn't say that the stream goes on there")
	}
	d, err := ident.OpenDecision(told.Decision)
	switch {
	case err != nil:
		return v, err
	case d.Registrar != v.order.Registrar:
		return v, refused("the decision is by another registrar than the order's")
	case d.Crossing != v.order.Crossing:
		return v, refused("the decision is about another crossing")
	case d.Of(carnet.FingerprintOf([]byte(told.Order))) != ident.Commit:
		return v, refused("the crossing wasn't decided as a commit of this order")
	case v.order.Recovers != nil && v.order.Recovers.Manifest != *d.Manifest:
		return v, refused("the decision is about another passport than the recovery")
	case d.Time.After(v.order.Until):
		return v, refused("the decision was made after the order's time was over")
	case !slices.EqualFunc(d.Homes, v.order.Homes, func(at ident.HomeAt, id carnet.HomeID) bool { return at.Home == id && at.World == v.order.Target }):
		return v, refused("the decision doesn't say that every home of the order is at its target")
	}
	return v, nil
}

// takeMove follows an avatar that has moved: its mapping ends, and one to the target
// is pending, in one transaction. Told again of the same move it tells the world
// that the stream has ended, which it does after the first time, too.
func (a *Agent) takeMove(ctx context.Context, s *sender, t tidings) {
	err := a.followMove(ctx, s, t)
	if why, refused := errors.AsType[notAMove](err); refused {
		err = a.refuseMove(ctx, t, why)
	}
	if err == nil {
		err = a.tellEnded(ctx, s, t.mapping)
	}
	if err != nil && ctx.Err() == nil {
		a.log.Warn("a move isn't dealt with yet; the world tells of it again", "world", s.peer.Party, "mapping", t.mapping.ID, "err", err)
	}
}

// tellEnded tells a world that the stream of a mapping has ended, if it has.
func (a *Agent) tellEnded(ctx context.Context, s *sender, m *Mapping) error {
	if !a.hasEnded(m) {
		return nil
	}
	s.awaitNew(ctx)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := s.ask(ctx, carnet.CallUnmap, carnet.Unmap{Stream: m.Stream})
	if carnet.CodeOf(err) == carnet.NotFound { // it knows
		return nil
	}
	return err
}

// askTimeout is how long a world is given to answer.
const askTimeout = 20 * time.Second

func (a *Agent) followMove(ctx context.Context, s *sender, t tidings) error {
	m := t.mapping
	v, err := s.prove(m, t.moved)
	if err != nil {
		return notAMove{err}
	}
	if ended, err := a.toEnd(m, v); ended || err != nil {
		return err
	}
	at, err := s.standing(ctx, m, t.moved.NextBatch, t.moved.NextFirst)
	if carnet.CodeOf(err) == carnet.NotFound {
		return notAMove{err}
	} else if err != nil {
		return err
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if ended, err := a.toEnd(m, v); ended || err != nil { // meanwhile
		return err
	}
	doc := a.mappingDocument(m)
	p, err := a.newPending(ctx, s, m, t.moved, v, at)
	if err != nil {
		return err
	}
	stored, err := a.document(kindOnward, p.key, p.version, p.doc)
	if err != nil {
		return err
	}
	statements, err := a.stateMove(ctx, m, t.moved, p, at)
	if err != nil {
		return err
	}
	doc.Stopped, doc.Moved = true, &movedOn{v.order.Crossing, v.order.Target, t.moved.NextBatch, t.moved.NextFirst}
	err = a.decideAnew(ctx, mappingChange{
		by: byMove, mapping: m, doc: doc, kind: ledger.ViewSet, since: at.begin.Lanes,
		documents: []carnet.Document{stored}, statements: statements,
		done: func() { a.keepPending(p) },
	})
	if err == nil {
		a.log.Info("an avatar has moved; its thing's data waits to go on", "world", m.World, "thing", m.thing.id, "target", v.order.Target)
	}
	return err
}

// toEnd reports whether a mapping has ended already: by this move, or since its owner
// wants nothing sent any more. By another move it can't have.
func (a *Agent) toEnd(m *Mapping, v movement) (ended bool, err error) {
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	if m.moved != nil && m.moved.Crossing != v.order.Crossing {
		return true, notAMove{carnet.Errorf(carnet.Conflict, "the avatar has moved already, by the crossing %s", m.moved.Crossing)}
	}
	return m.stopped, nil
}

// byMove is who changes a mapping when its avatar has moved.
const byMove = "move"

// stateMove makes the statements of a move: the mapping's end, and what is lost.
func (a *Agent) stateMove(ctx context.Context, m *Mapping, told carnet.Moved, p *onward, at standing) (items []ledger.Item, err error) {
	now := a.now().UnixNano()
	statements := []ledger.Statement{{
		Kind: ledger.MappingMoved, Time: now, Peer: m.World, Thing: m.thing.id, Mapping: m.ID, Avatar: m.Avatar,
		Object: carnet.FingerprintOf([]byte(told.Decision)),
	}}
	if at.lostTo > at.lostFrom {
		statements = append(statements, ledger.Statement{
			Kind: ledger.Gap, Time: now, Peer: m.World, Stream: m.Stream, From: at.lostFrom, To: at.lostTo - 1,
			Reason: "measurements of a stream that didn't move with its avatar, and whose records were lost with the sender's store",
		})
	}
	oldest, err := a.oldestLogged(ctx)
	if err != nil {
		return nil, err
	}
	if first := p.doc.Begin.first(); first < oldest {
		statements = append(statements, ledger.Statement{
			Kind: ledger.Gap, Time: now, Peer: m.World, Stream: p.doc.Stream, From: first, To: oldest - 1,
			Reason: "positions of the log that were trimmed before the sender heard that the avatar has moved",
		})
	}
	for _, s := range statements {
		if s.Kind == ledger.Gap {
			a.log.Error("not all that an avatar's thing sent is at its new home", "thing", m.thing.id, "from", s.From, "to", s.To, "why", s.Reason)
		}
		item, err := a.Statement(s)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// oldestLogged is the lowest position that the log has; where it is empty, the next.
func (a *Agent) oldestLogged(ctx context.Context) (uint64, error) {
	rows, err := a.store.LogIndex(ctx, 0, 1)
	if err != nil || len(rows) == 0 {
		return a.feed.end(), err
	}
	return rows[0].First, nil
}

func (a *Agent) hasMoved(m *Mapping) bool {
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	return m.moved != nil
}

func (a *Agent) hasEnded(m *Mapping) bool {
	a.policyMu.RLock()
	defer a.policyMu.RUnlock()
	return m.stopped
}

// refusedMoves is what a world told of a mapping's avatar that isn't so.
type refusedMoves struct {
	Seen []carnet.Fingerprint `json:"seen"` // the notices, oldest first
	At   time.Time            `json:"at"`   // of the last one
	Why  string               `json:"why"`
}

// maxRefused is how many different notices about a mapping are stated: a world can
// make them without end.
const maxRefused = 16

// refuseMove logs, states and keeps that a move was refused; once for each notice.
func (a *Agent) refuseMove(ctx context.Context, t tidings, why error) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	m := t.mapping
	a.registryMu.RLock()
	known := a.registry.refused[m.Number]
	a.registryMu.RUnlock()
	if slices.Contains(known.Seen, t.hash) || len(known.Seen) >= maxRefused {
		return nil
	}
	a.log.Error("a world tells of a move that is refused", "world", m.World, "mapping", m.ID, "thing", m.thing.id, "err", why)
	reason := why.Error()
	reason = carnet.Shorten(reason, ledger.MaxReason)
	known = refusedMoves{append(slices.Clone(known.Seen), t.hash), a.now().UTC(), reason}
	d, err := a.document(kindRefused, mappingKey(m.Number), a.nextVersion(kindRefused, mappingKey(m.Number)), known)
	if err != nil {
		return err
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.MoveRefused, Time: known.At.UnixNano(), Peer: m.World, Thing: m.thing.id, Mapping: m.ID, Object: t.hash, Reason: reason,
	})
	if err != nil {
		return err
	}
	if err := a.change(ctx, []carnet.Document{d}, []ledger.Item{item}); err != nil {
		return err
	}
	a.stored(d)
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	a.registry.refused[m.Number] = known
	return nil
}

func (a *Agent) enterRefused(d carnet.Document, v refusedMoves) error {
	number, err := parseMappingKey(d.ID)
	if err != nil {
		return err
	}
	a.registry.versions[kindRefused+"/"+d.ID] = d.Version
	a.registry.refused[number] = v
	return nil
}

// publicKey is a did:key's, which was read before.
func publicKey(did string) ed25519.PublicKey {
	key, err := ident.ParseDID(did)
	if err != nil {
		return nil
	}
	return key
}
