package avatar

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/seal"
)

// epochs finds the keys that key bags gave, in the key table.
type epochs struct{ table *keys.Table }

// An avatar's home is given the keys of epochs; a world that a stream is shared
// with, those of slots.
func epochOf(h seal.Header) seal.Path {
	return seal.Path{Level: seal.EpochLevel, Stream: h.Stream, Epoch: h.Epoch}
}

func slotOf(h seal.Header) seal.Path {
	return seal.Path{Level: seal.SlotLevel, Stream: h.Stream, Epoch: h.Epoch, Slot: h.Slot}
}

func keyID(p seal.Path) keys.ID { return keys.ID{Kind: "epoch", Name: p.String()} }

// key returns the key of the epoch or the slot that a batch is of;
// carnet.NotFound if neither was ever given, or they are destroyed.
func (e epochs) key(ctx context.Context, h seal.Header) (seal.Key, error) {
	k, err := e.get(ctx, epochOf(h))
	if carnet.CodeOf(err) == carnet.NotFound {
		k, err = e.get(ctx, slotOf(h))
	}
	return k, err
}

func (e epochs) get(ctx context.Context, at seal.Path) (seal.Key, error) {
	secret, err := e.table.Get(ctx, keyID(at))
	if err != nil {
		return seal.Key{}, err
	}
	defer clear(secret)
	if len(secret) != 32 {
		return seal.Key{}, carnet.Errorf(carnet.Tampered, "the key of %s has %d bytes", at, len(secret))
	}
	return seal.Key{Path: at, Secret: [32]byte(secret)}, nil
}

func (e epochs) lookup(h seal.Header) (seal.Key, bool) {
	k, err := e.key(context.Background(), h)
	return k, err == nil
}

// takeBag opens a key bag and keeps its keys. Keys of streams that aren't the
// granter's, or that no avatar has, are refused.
func (a *Agent) takeBag(ctx context.Context, from Sender, sealed []byte) error {
	bag, err := a.openBag(sealed, seal.Expected{Granter: cmp.Or(from.OwnName, from.Party), Signer: from.Key, Reader: from.Self})
	if err != nil {
		return err
	}
	var entries []keys.Entry
	bag.Entries = slices.DeleteFunc(bag.Entries, func(e seal.Entry) bool { return a.hasGone(e.Key.Stream, from.Party) })
	for _, e := range bag.Entries {
		s := a.stream(e.Key.Stream)
		if s == nil || s.sender != from.Party {
			return carnet.Errorf(carnet.Forbidden, "%s has no stream %s here", from.Party, e.Key.Stream).WithFix("map it first")
		}
		if _, shared := a.shareOf(e.Key.Stream); !shared && e.Key.Level != seal.EpochLevel {
			return carnet.Errorf(carnet.Malformed, "an avatar's home takes keys of epochs, not of %s", e.Key.Path)
		} else if shared && e.Key.Level != seal.SlotLevel {
			return carnet.Errorf(carnet.Malformed, "what is shared is opened by keys of slots, not of %s", e.Key.Path)
		}
		if over := e.Ceiling.Exceeds(a.clearance); over != "" {
			return carnet.Errorf(carnet.Forbidden, "the key of %s is refused: %s", e.Key.Path, over)
		}
		if from.Clearance != nil {
			if over := e.Ceiling.Exceeds(*from.Clearance); over != "" {
				return carnet.Errorf(carnet.Forbidden, "the key of %s is more than what was agreed with %s: %s", e.Key.Path, from.Party, over)
			}
		}
		secret := e.Key.Secret
		entries = append(entries, keys.Entry{ID: keyID(e.Key.Path), Secret: secret[:]})
	}
	if err := a.noteGrant(ctx, from.Party, bag); err != nil {
		return err
	}
	return a.keys.Put(ctx, entries...)
}

// Reception keys are announced for a day; each stays for another hour, for bags
// under way, and is destroyed then.
//
// A world that shares is told a day more: what it leaves at its depot while this
// world is away is sealed to the key that it heard of last. A key that such a world
// was told of is destroyed a day later.
const (
	receptionLife   = 24 * time.Hour
	receptionOver   = time.Hour
	receptionWorlds = 24 * time.Hour
)

const kindReceptionKey = "reception" // in the key table

func receptionID(f carnet.Fingerprint) keys.ID {
	return keys.ID{Kind: kindReceptionKey, Name: f.String()}
}

const receptionDocumentID = "keys"

// receptionDocument says which reception keys there are.
type receptionDocument struct {
	Keys []receptionEntry `json:"keys"` // the newest last
}

type receptionEntry struct {
	ID       carnet.Fingerprint `json:"id"`
	NotAfter time.Time          `json:"not_after"`
	Worlds   bool               `json:"worlds,omitempty"` // a world that shares was told of it
}

// until is when what is sealed to the key is read last.
func (e receptionEntry) until() time.Time {
	if e.Worlds {
		return e.NotAfter.Add(receptionWorlds)
	}
	return e.NotAfter
}

func (e receptionEntry) destroyAt() time.Time { return e.until().Add(receptionOver) }

// turnReceptions draws a new reception key if the newest one is nearly over, or
// at a start, and destroys those that are. A crash leaves keys in the table that
// the document doesn't name: they are destroyed the next time.
func (a *Agent) turnReceptions(ctx context.Context, start bool) (fresh bool, err error) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	doc, version, err := loadOne[receptionDocument](ctx, a, kindReception, receptionDocumentID)
	if err != nil {
		return false, err
	}
	now := a.now()
	n := len(doc.Keys)
	doc.Keys = slices.DeleteFunc(doc.Keys, func(e receptionEntry) bool { return !now.Before(e.destroyAt()) })
	changed := len(doc.Keys) < n
	var key *seal.ReceptionKey
	if n = len(doc.Keys); start || n == 0 || !now.Before(doc.Keys[n-1].NotAfter.Add(-receptionOver)) {
		if key, err = a.makeReception(ctx); err != nil {
			return false, err
		}
		doc.Keys, changed = append(doc.Keys, receptionEntry{ID: key.ID(), NotAfter: now.Add(receptionLife).Truncate(time.Second)}), true
	}
	if changed {
		if err := a.put(ctx, kindReception, receptionDocumentID, version+1, doc); err != nil {
			return false, err
		}
	}
	a.receptionMu.Lock()
	a.announced = doc.Keys
	maps.DeleteFunc(a.receptions, func(id carnet.Fingerprint, _ *seal.ReceptionKey) bool { return !doc.has(id) })
	if key != nil {
		a.receptions[key.ID()], a.reception = key, key
	}
	a.receptionMu.Unlock()
	return key != nil, a.destroyReceptions(ctx, doc)
}

func (d *receptionDocument) has(id carnet.Fingerprint) bool {
	return slices.ContainsFunc(d.Keys, func(e receptionEntry) bool { return e.ID == id })
}

func (a *Agent) makeReception(ctx context.Context) (*seal.ReceptionKey, error) {
	key, err := seal.NewReceptionKey()
	if err != nil {
		return nil, err
	}
	secret, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	return key, a.keys.Put(ctx, keys.Entry{ID: receptionID(key.ID()), Secret: secret})
}

// destroyReceptions destroys the reception keys that the document doesn't name.
func (a *Agent) destroyReceptions(ctx context.Context, doc receptionDocument) error {
	ids, err := a.keys.List(ctx, kindReceptionKey, "")
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id keys.ID) bool {
		var f carnet.Fingerprint
		return f.UnmarshalText([]byte(id.Name)) == nil && doc.has(f)
	})
	return a.keys.Destroy(ctx, ids...)
}

// loadReceptions takes the reception keys that are in the table. Each start
// draws a new one, so that a restored key table is never used for long.
func (a *Agent) loadReceptions(ctx context.Context) error {
	doc, _, err := loadOne[receptionDocument](ctx, a, kindReception, receptionDocumentID)
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
	_, err = a.turnReceptions(ctx, true)
	return err
}

// receptionLoop wakes when the newest reception key is to be replaced or the
// oldest to be destroyed.
func (a *Agent) receptionLoop(ctx context.Context) error {
	wait := a.untilTurn()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		fresh, err := a.turnReceptions(ctx, false)
		wait = max(a.untilTurn(), time.Second)
		if err != nil && ctx.Err() == nil {
			a.log.Error("reception keys could not be renewed; it is tried again", "err", err)
			wait = time.Minute
		}
		if !fresh {
			continue
		}
		for _, party := range a.senderNames() {
			announcement, err := a.Announcement(ctx, party)
			if err != nil { // it was dropped this moment
				continue
			}
			a.notify(party, carnet.NoticeReception, announcement)
		}
	}
}

func (a *Agent) untilTurn() time.Duration {
	a.receptionMu.Lock()
	defer a.receptionMu.Unlock()
	at := a.announced[len(a.announced)-1].NotAfter.Add(-receptionOver)
	for _, e := range a.announced {
		if over := e.destroyAt(); over.Before(at) {
			at = over
		}
	}
	return at.Sub(a.now())
}

// Announcement implements link.Sink.
func (a *Agent) Announcement(ctx context.Context, party carnet.PartyID) ([]byte, error) {
	s, ok := a.sender(party)
	if !ok {
		return nil, carnet.Errorf(carnet.NotFound, "%s is not a sender of this world", party)
	}
	if s.Shares {
		if err := a.keepForWorlds(ctx); err != nil {
			return nil, err
		}
	}
	a.receptionMu.Lock()
	defer a.receptionMu.Unlock()
	newest := a.announced[len(a.announced)-1]
	if s.Shares && newest.Worlds {
		return a.reception.Announce(s.Own, s.Self, newest.until())
	}
	return a.reception.Announce(s.Own, s.Self, newest.NotAfter)
}

// keepForWorlds has the newest reception key stay as long as worlds that share may
// seal to it. It is durable on return.
func (a *Agent) keepForWorlds(ctx context.Context) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	doc, version, err := loadOne[receptionDocument](ctx, a, kindReception, receptionDocumentID)
	if err != nil {
		return err
	}
	newest := &doc.Keys[len(doc.Keys)-1]
	if newest.Worlds {
		return nil
	}
	newest.Worlds = true
	if err := a.put(ctx, kindReception, receptionDocumentID, version+1, doc); err != nil {
		return err
	}
	a.receptionMu.Lock()
	defer a.receptionMu.Unlock()
	a.announced = doc.Keys
	return nil
}
