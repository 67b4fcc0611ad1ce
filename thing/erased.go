package thing

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"time"

	"carnet"
	ident "carnet/identity"
	"carnet/ledger"
)

// hearErased takes a world's notice that an avatar is erased, to be looked at beside
// the link.
func (s *sender) hearErased(body []byte) {
	var e carnet.Erased
	if err := json.Unmarshal(body, &e); err != nil {
		s.agent.log.Warn("a world's notice can't be read", "world", s.peer.Party, "kind", carnet.NoticeErased, "err", err)
		return
	}
	m := s.agent.mappingByStream(e.Stream)
	if m == nil || m.World != s.peer.Party {
		s.agent.log.Warn("a world tells of the erasure of an avatar that nothing here is sent to", "world", s.peer.Party)
		return
	}
	t := tidings{mapping: m, erased: &e, size: len(body)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.toldBytes+t.size > maxTold {
		return
	}
	s.told, s.toldBytes = append(s.told, t), s.toldBytes+t.size
	s.agent.lookAtMoves()
}

// byErasure is who changes a mapping when its avatar is erased.
const byErasure = "erasure"

// takeErased ends the mapping to an avatar that is erased by its owner's order, and
// signs for it to the world; or says why not. Told again it answers again.
func (a *Agent) takeErased(ctx context.Context, s *sender, t tidings) {
	answer := carnet.Unmapped{Stream: t.mapping.Stream}
	order, err := s.proveErased(t.mapping, t.erased.Order)
	if err != nil {
		a.log.Error("a world tells of an erasure that is refused", "world", s.peer.Party, "mapping", t.mapping.ID, "thing", t.mapping.thing.id, "err", err)
		answer.Why = err.Error()
	} else if err = a.endErased(ctx, t.mapping, t.erased.Order); err == nil {
		answer.Deletion, err = s.deletionOf(order, t)
	}
	if err == nil || answer.Why != "" {
		s.awaitNew(ctx)
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		_, err = s.ask(ctx, carnet.CallErased, answer)
		if carnet.CodeOf(err) == carnet.NotFound { // it has heard
			err = nil
		}
	}
	if err != nil && ctx.Err() == nil {
		a.log.Warn("an erasure isn't dealt with yet; the world tells of it again", "world", s.peer.Party, "mapping", t.mapping.ID, "err", err)
	}
}

// proveErased holds an order to erase against what is known of the mapping.
func (s *sender) proveErased(m *Mapping, token string) (order ident.ErasureOrder, err error) {
	refused := func(format string, args ...any) *carnet.Error {
		return carnet.Errorf(carnet.Forbidden, format, args...)
	}
	key := s.agent.orderKey(m)
	if key == nil {
		return order, refused("no owner's key is known for the avatar").WithFix("carnet owner claim %s/%s", m.thing.id, m.World)
	}
	if order, err = ident.OpenErasure(token); err != nil {
		return order, err
	}
	switch {
	case order.Owner != ident.DID(key):
		return order, refused("the order to erase isn't by the avatar's owner")
	case order.World != ident.DID(s.peer.WorldKey):
		return order, refused("the order to erase is for another world")
	case !order.About(m.Avatar):
		return order, refused("the order to erase is about another avatar")
	}
	return order, nil
}

// endErased ends a mapping, if it hasn't ended.
func (a *Agent) endErased(ctx context.Context, m *Mapping, order string) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	doc := a.mappingDocument(m)
	if doc.Stopped {
		return nil
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.MappingErased, Time: a.now().UnixNano(), Peer: m.World, Thing: m.thing.id, Mapping: m.ID, Avatar: m.Avatar, Object: carnet.FingerprintOf([]byte(order)),
	})
	if err != nil {
		return err
	}
	doc.Stopped = true
	err = a.decideAnew(ctx, mappingChange{by: byErasure, mapping: m, doc: doc, kind: ledger.ViewSet, statements: []ledger.Item{item}})
	if err == nil {
		a.log.Info("an avatar is erased by its owner's order; nothing more is sent to it", "world", m.World, "thing", m.thing.id)
	}
	return err
}

// deletionOf signs that nothing more comes of a stream. Its keys were never stored, so
// no backup has them.
func (s *sender) deletionOf(order ident.ErasureOrder, t tidings) (string, error) {
	now := s.agent.now().UTC().Truncate(time.Second)
	return ident.SignDeletion(s.peer.Key, ident.Deletion{
		Erasure: order.Erasure, Order: carnet.FingerprintOf([]byte(t.erased.Order)), By: ident.DID(s.peer.Key.Public().(ed25519.PublicKey)),
		Role: ident.DeletedThings, Of: t.mapping.Stream.String(), Streams: 1, Unreadable: now, Unrecoverable: now,
	})
}
