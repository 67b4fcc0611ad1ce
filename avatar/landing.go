package avatar

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/ledger"
	"carnet/seal"
)

// Landing is what makes an arriving avatar one of this world's.
type Landing struct {
	From     carnet.PartyID // the world that it comes from, as this one calls it
	Manifest *Manifest
	Hash     carnet.Fingerprint // of the manifest, as it was signed
	Owner    ed25519.PublicKey  // its owner's key for this world; nil: none
	Policy   string             // its policy, which that owner signed for this world; empty: none
	Commit   []byte             // shows that the registrar has decided so
}

// Arrive makes an arriving avatar one of this world's, with everything that the
// manifest names: in one transaction with the statement of it. It is called when
// the crossing is decided, and may be called again until it returns nil.
func (a *Agent) Arrive(ctx context.Context, id carnet.AvatarID, l Landing) error {
	if _, err := a.avatar(id); err == nil {
		return nil
	}
	r, done, err := a.comes(id)
	if err != nil {
		return err
	}
	defer done()
	state, err := a.checkArrival(ctx, r, l.Manifest)
	if err != nil {
		return err
	}
	var bounds *bounding
	if l.Policy != "" {
		if bounds, err = a.readPolicy(id, l.Owner, l.Policy); err != nil {
			return err
		}
		bounds.version = 1
	}
	a.nameMu.Lock()
	defer a.nameMu.Unlock()
	if err := a.keepArrived(ctx, r); err != nil {
		return err
	}
	v := &Avatar{id: id, title: l.Manifest.Title, created: l.Manifest.Created.UnixNano(), key: r.key, version: 1, stateVersion: 1, latest: state}
	if len(l.Owner) == ed25519.PublicKeySize {
		v.owner = (*[ed25519.PublicKeySize]byte)(bytes.Clone(l.Owner))
	}
	doc := avatarDocument{Title: v.title, Created: l.Manifest.Created.UTC(), Key: r.key[:], Owner: l.Owner, Streams: []streamDocument{}}
	for i := range l.Manifest.Streams {
		m := &l.Manifest.Streams[i]
		s := r.stream(m.Stream)
		commit := m.Commit
		if len(commit) == 0 { // it leaves the world that received it
			commit = l.Commit
		}
		doc.Streams = append(doc.Streams, streamDocument{ID: s.ID, Ended: true, Former: &former{s.Name, s.Origin, m.Passage, m.Slots, m.Left, commit}})
		v.streams = append(v.streams, &stream{
			id: s.ID, avatar: v, place: uint16(i), ended: true, gives: givesNothing, nextBatch: m.NextBatch, nextFirst: m.NextFirst, measurements: m.Measurements, batches: m.Batches,
		})
	}
	if err := a.land(ctx, r, v, doc, l, bounds); err != nil {
		return err
	}
	a.mu.Lock()
	a.avatars[id] = v
	if bounds != nil {
		a.policies[id] = bounds
	}
	for i, s := range v.streams {
		a.streams[s.id] = s
		a.setFormer(id, s.id, doc.Streams[i].Former)
	}
	for i := range r.doc.Streams { // those that the manifest doesn't have
		if s := &r.doc.Streams[i]; a.streams[s.ID] == nil {
			a.setFormer(id, s.ID, nil)
		}
	}
	delete(a.arriving, id)
	a.mu.Unlock()
	a.recorded()
	return a.destroyArriving(ctx, id)
}

// keepArrived puts the keys of an arriving avatar where readers look for them.
func (a *Agent) keepArrived(ctx context.Context, r *arrival) error {
	var entries []keys.Entry
	for at := range r.coming {
		secret, err := a.keys.Get(ctx, arrivingKey(r.id, at))
		if carnet.CodeOf(err) == carnet.NotFound {
			continue
		} else if err != nil {
			return err
		}
		entries = append(entries, keys.Entry{ID: keyID(at), Secret: secret})
	}
	return a.keys.Put(ctx, entries...)
}

// land makes durable that an avatar is here.
func (a *Agent) land(ctx context.Context, r *arrival, v *Avatar, doc avatarDocument, l Landing, bounds *bounding) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	d, err := a.document(kindAvatar, r.id.String(), 1, doc)
	if err != nil {
		return err
	}
	a.mu.RLock()
	state := v.state(a.classes.all)
	a.mu.RUnlock()
	s, err := a.document(kindState, r.id.String(), 1, state)
	if err != nil {
		return err
	}
	documents := []carnet.Document{d, s, {Kind: kindArriving, ID: r.id.String(), Version: r.version + 1}}
	ended := make(map[seal.Path]*MovedKey)
	for i := range l.Manifest.Keys {
		ended[l.Manifest.Keys[i].path()] = &l.Manifest.Keys[i]
	}
	for at, c := range r.coming {
		documents = append(documents, carnet.Document{Kind: kindComing, ID: comingID(r.id, at), Version: c.version + 1})
		if c.doc.NotAfter.IsZero() && ended[at] == nil {
			continue // nothing that the manifest names is under it
		}
		d, err := a.landedEpoch(ctx, at, c, ended[at], l.From)
		if err != nil {
			return err
		}
		documents = append(documents, d)
	}
	for i := range l.Manifest.Streams {
		m := &l.Manifest.Streams[i]
		id := r.stream(m.Stream).ID
		over, version, err := loadOne[overDocument](ctx, a, kindOver, id.String())
		if err != nil {
			return err
		}
		for _, o := range m.Over {
			over.note(o.Class, o.From, o.To)
		}
		now := a.now()
		for j := range l.Manifest.Stretches { // those that ended on their way
			if t := &l.Manifest.Stretches[j]; t.Stream == m.Stream && t.over(now) {
				over.note(t.Class, t.First, t.Last)
			}
		}
		if len(over.Classes) == 0 {
			continue
		}
		d, err := a.document(kindOver, id.String(), version+1, over)
		if err != nil {
			return err
		}
		documents = append(documents, d)
	}
	item, err := a.Statement(ledger.Statement{Kind: ledger.Arrived, Time: a.now().UnixNano(), Peer: l.From, Avatar: r.id, Object: l.Hash})
	if err != nil {
		return err
	}
	items := []ledger.Item{item}
	if bounds != nil {
		if d, item, err = a.policyKept(r.id, bounds); err != nil {
			return err
		}
		documents, items = append(documents, d), append(items, item)
	}
	return a.store.Put(ctx, documents, items)
}

// landedEpoch makes the document of an epoch that has come.
func (a *Agent) landedEpoch(ctx context.Context, at seal.Path, c *coming, k *MovedKey, from carnet.PartyID) (carnet.Document, error) {
	name := keyID(at).Name
	had, version, err := loadOne[epochDocument](ctx, a, kindEpoch, name)
	if err != nil {
		return carnet.Document{}, err
	}
	doc := epochDocument{Given: a.now().UTC(), NotAfter: c.doc.NotAfter, Until: c.doc.Until, Keep: c.doc.Keep, Granter: string(from), Ceiling: c.doc.Ceiling}
	if k != nil && (doc.NotAfter.IsZero() || k.NotAfter.Before(doc.NotAfter)) {
		doc.NotAfter = k.NotAfter
	}
	if k != nil {
		doc.Ended = k.Ended
	}
	if version > 0 {
		doc.join(&had)
	}
	return a.document(kindEpoch, name, version+1, doc)
}

// join has the key that came with a move be kept for what is here under it already, too:
// of a share, whose slots have the same keys.
func (d *epochDocument) join(had *epochDocument) {
	if had.NotAfter.After(d.NotAfter) {
		d.NotAfter, d.Granter = had.NotAfter, had.Granter
	}
	if had.Until.After(d.Until) {
		d.Until = had.Until
	}
	if had.Given.Before(d.Given) {
		d.Given = had.Given
	}
	d.Keep = d.Keep || had.Keep
	if had.Ended.IsZero() {
		d.Ended = time.Time{} // it is here, whatever came
	}
	ceiling := savedLabel(d.ceiling().Join(had.ceiling()))
	d.Ceiling = &ceiling
}

// destroyArriving destroys the keys of an arriving avatar where no reader looks.
func (a *Agent) destroyArriving(ctx context.Context, id carnet.AvatarID) error {
	ids, err := a.keys.List(ctx, kindArrivingKey, id.String()+"/")
	if err != nil || len(ids) == 0 {
		return err
	}
	return a.keys.Destroy(ctx, ids...)
}
