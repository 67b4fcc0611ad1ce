package avatar

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/seal"
)

var (
	restKey      = keys.ID{Kind: "rest", Name: "world"}
	statementAAD = []byte("statement")
	saltAAD      = []byte("salt")
)

func documentAAD(kind, id string) []byte { return []byte("document " + kind + " " + id) }

// epochs finds the keys that key bags gave, in the key table.
type epochs struct {
	table *keys.Table

	mu   sync.Mutex
	held map[epochID]seal.Key // bounded: emptied when it is full
}

type epochID struct {
	stream carnet.StreamID
	epoch  carnet.EpochID
}

const maxEpochs = 1 << 16

func (e *epochs) init(table *keys.Table) { e.table, e.held = table, make(map[epochID]seal.Key) }

func (id epochID) key() keys.ID {
	return keys.ID{Kind: "epoch", Name: id.stream.String() + "/" + id.epoch.String()}
}

func (e *epochs) lookup(h seal.Header) (seal.Key, bool) {
	id := epochID{h.Stream, h.Epoch}
	e.mu.Lock()
	k, ok := e.held[id]
	e.mu.Unlock()
	if ok {
		return k, true
	}
	secret, err := e.table.Get(context.Background(), id.key())
	if err != nil || len(secret) != 32 {
		return seal.Key{}, false
	}
	k = seal.Key{Path: seal.Path{Level: seal.EpochLevel, Stream: id.stream, Epoch: id.epoch}, Secret: [32]byte(secret)}
	clear(secret)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.held) >= maxEpochs {
		clear(e.held)
	}
	e.held[id] = k
	return k, true
}

// takeBag opens a key bag and keeps its keys. Keys of streams that aren't the
// granter's, or that no avatar has, are refused.
func (a *Agent) takeBag(ctx context.Context, from Sender, sealed []byte) error {
	id, err := seal.BagReception(sealed)
	if err != nil {
		return err
	}
	a.receptionMu.Lock()
	key := a.receptions[id]
	a.receptionMu.Unlock()
	if key == nil {
		return carnet.Errorf(carnet.NotFound, "the key bag is sealed to a reception key that is not in use").
			WithFix("connect again for the present one")
	}
	bag, err := key.OpenBag(sealed, seal.Expected{Granter: from.Party, Signer: from.Key, Reader: from.Self, Now: a.now()})
	if err != nil {
		return err
	}
	var entries []keys.Entry
	for _, e := range bag.Entries {
		if e.Key.Level != seal.EpochLevel {
			return carnet.Errorf(carnet.Malformed, "an avatar's home takes keys of epochs, not of %s", e.Key.Path)
		}
		if s := a.stream(e.Key.Stream); s == nil || s.sender != from.Party {
			return carnet.Errorf(carnet.Forbidden, "%s has no stream %s here", from.Party, e.Key.Stream).WithFix("map it first")
		}
		if over := e.Ceiling.Exceeds(a.clearance); over != "" {
			return carnet.Errorf(carnet.Forbidden, "the key of %s is refused: %s", e.Key.Path, over)
		}
		secret := e.Key.Secret
		entries = append(entries, keys.Entry{ID: epochID{e.Key.Stream, e.Key.Epoch}.key(), Secret: secret[:]})
	}
	return a.keys.Put(ctx, entries...)
}

// Reception keys are used for a day; the one before stays for another hour, for
// bags under way, and is destroyed then.
const (
	receptionLife = 24 * time.Hour
	receptionOver = time.Hour
)

func receptionID(f carnet.Fingerprint) keys.ID { return keys.ID{Kind: "reception", Name: f.String()} }

// receptionDocument says which reception keys there are.
type receptionDocument struct {
	Keys []receptionEntry `json:"keys"` // the newest last
}

type receptionEntry struct {
	ID       carnet.Fingerprint `json:"id"`
	NotAfter time.Time          `json:"not_after"`
}

// renewReception draws a new reception key and destroys those that are over.
func (a *Agent) renewReception(ctx context.Context) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	doc, version, err := loadOne[receptionDocument](ctx, a, kindReception, "keys")
	if err != nil {
		return err
	}
	now := a.now()
	var over []keys.ID
	var keep []receptionEntry
	for _, e := range doc.Keys {
		if now.After(e.NotAfter.Add(receptionOver)) {
			over = append(over, receptionID(e.ID))
		} else {
			keep = append(keep, e)
		}
	}
	fresh, err := seal.NewReceptionKey()
	if err != nil {
		return err
	}
	secret, err := fresh.Bytes()
	if err != nil {
		return err
	}
	notAfter := now.Add(receptionLife).Truncate(time.Second)
	if err := a.keys.Put(ctx, keys.Entry{ID: receptionID(fresh.ID()), Secret: secret}); err != nil {
		return err
	}
	doc.Keys = append(keep, receptionEntry{fresh.ID(), notAfter})
	if err := a.put(ctx, kindReception, "keys", version+1, doc); err != nil {
		return err
	}
	if err := a.keys.Destroy(ctx, over...); err != nil {
		return err
	}
	a.receptionMu.Lock()
	defer a.receptionMu.Unlock()
	for id := range a.receptions {
		held := false
		for _, e := range doc.Keys {
			held = held || e.ID == id
		}
		if !held {
			delete(a.receptions, id)
		}
	}
	a.receptions[fresh.ID()], a.reception, a.notAfter = fresh, fresh, notAfter
	return nil
}

// loadReceptions takes the reception keys that are in the table. Each start
// draws a new one, so that a restored key table is never used for long.
func (a *Agent) loadReceptions(ctx context.Context) error {
	doc, _, err := loadOne[receptionDocument](ctx, a, kindReception, "keys")
	if err != nil {
		return err
	}
	for _, e := range doc.Keys {
		secret, err := a.keys.Get(ctx, receptionID(e.ID))
		if carnet.CodeOf(err) == carnet.NotFound {
			continue
		} else if err != nil {
			return err
		}
		key, err := seal.ParseReceptionKey(secret)
		if err != nil {
			return err
		}
		a.receptions[e.ID] = key
	}
	return a.renewReception(ctx)
}

func (a *Agent) receptionLoop(ctx context.Context) error {
	for {
		a.receptionMu.Lock()
		wait := a.notAfter.Add(-receptionOver).Sub(a.now())
		a.receptionMu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(wait, time.Minute)):
		}
		if err := a.renewReception(ctx); err != nil {
			a.log.Error("a new reception key could not be made; the one in use goes on until it is over", "err", err)
			continue
		}
		for party := range a.senders {
			announcement, err := a.Announcement(ctx, party)
			if err != nil {
				return err
			}
			a.notify(party, carnet.NoticeReception, announcement)
		}
	}
}

// Announcement implements link.Sink.
func (a *Agent) Announcement(_ context.Context, party carnet.PartyID) ([]byte, error) {
	s, ok := a.senders[party]
	if !ok {
		return nil, carnet.Errorf(carnet.NotFound, "%s is not a sender of this world", party)
	}
	a.receptionMu.Lock()
	defer a.receptionMu.Unlock()
	return a.reception.Announce(s.Own, s.Self, a.notAfter)
}

func (a *Agent) notify(party carnet.PartyID, kind string, body []byte) {
	a.mu.RLock()
	n := a.notifier
	a.mu.RUnlock()
	if n != nil {
		n.Notify(party, kind, body)
	}
}

// Kinds of the agent's documents.
const (
	kindAvatar    = "avatar"
	kindReception = "reception"
	kindState     = "state"
)

// loadOne opens one document; a zero one with version 0 if there is none.
func loadOne[T any](ctx context.Context, a *Agent, kind, id string) (v T, version uint64, err error) {
	documents, err := a.store.Documents(ctx, kind)
	if err != nil {
		return v, 0, err
	}
	for _, d := range documents {
		if d.ID == id {
			return v, d.Version, a.openDocument(d, &v)
		}
	}
	return v, 0, nil
}

func (a *Agent) openDocument(d carnet.Document, v any) error {
	plain, err := a.rest.Open(nil, documentAAD(d.Kind, d.ID), d.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, v)
}

func (a *Agent) document(kind, id string, version uint64, v any) (carnet.Document, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return carnet.Document{}, err
	}
	body, err := a.rest.Seal(nil, documentAAD(kind, id), plain)
	return carnet.Document{Kind: kind, ID: id, Version: version, Body: body}, err
}

func (a *Agent) put(ctx context.Context, kind, id string, version uint64, v any) error {
	d, err := a.document(kind, id, version, v)
	if err != nil {
		return err
	}
	return a.store.Put(ctx, []carnet.Document{d}, nil)
}
