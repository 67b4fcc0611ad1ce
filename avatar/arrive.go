package avatar

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"carnet"
	"carnet/keys"
	"carnet/seal"
)

// arrivingDocument is an avatar that is to come from another world.
type arrivingDocument struct {
	Crossing carnet.CrossingID `json:"crossing"`
	// Passport is the id of the one by which it comes: what its manifest names; zero of
	// a move.
	Passport carnet.CrossingID `json:"passport,omitzero"`
	Title    string            `json:"title,omitempty"`
	Created  time.Time         `json:"created"`
	Key      []byte            `json:"key"`
	Streams  []arrivingStream  `json:"streams,omitempty"`
}

// names is what the manifest names by which the avatar comes.
func (d *arrivingDocument) names() carnet.CrossingID {
	if d.Passport != (carnet.CrossingID{}) {
		return d.Passport
	}
	return d.Crossing
}

type arrivingStream struct {
	ID carnet.StreamID `json:"id"` // in the store
	former
}

// comingDocument is an epoch that batches of an arriving avatar are under. Its id is
// the avatar's and the path.
type comingDocument struct {
	// Of one of its batches, by which its key is known.
	Slot       uint32             `json:"slot"`
	Number     uint64             `json:"number"`
	Salt       []byte             `json:"salt"`
	Commitment carnet.Fingerprint `json:"commitment"`

	Until time.Time `json:"until,omitzero"` // as in an epochDocument
	Keep  bool      `json:"keep,omitempty"`

	NotAfter time.Time   `json:"not_after,omitzero"` // of its key, if it is here
	Granter  string      `json:"granter,omitempty"`
	Ceiling  *savedLabel `json:"ceiling,omitempty"`
}

// arrival is an avatar that is to come. Nobody is shown it.
type arrival struct {
	id  carnet.AvatarID
	key [ed25519.PublicKeySize]byte

	mu       sync.Mutex // held while something of it changes; guards what follows
	doc      arrivingDocument
	version  uint64
	dropped  bool // it is being deleted
	verifier StretchVerifier
	coming   map[seal.Path]*coming
}

type coming struct {
	doc     comingDocument
	version uint64
}

func (c *coming) header(at seal.Path) seal.Header {
	return seal.Header{Stream: at.Stream, Epoch: at.Epoch, Slot: c.doc.Slot, Number: c.doc.Number, Salt: [16]byte(c.doc.Salt), Commitment: c.doc.Commitment}
}

func (r *arrival) stream(name carnet.StreamID) *arrivingStream {
	for i := range r.doc.Streams {
		if r.doc.Streams[i].Name == name {
			return &r.doc.Streams[i]
		}
	}
	return nil
}

func comingID(id carnet.AvatarID, at seal.Path) string { return id.String() + "/" + at.String() }

// Keys of an arriving avatar's epochs: where no reader looks.
const kindArrivingKey = "arriving"

func arrivingKey(id carnet.AvatarID, at seal.Path) keys.ID {
	return keys.ID{Kind: kindArrivingKey, Name: comingID(id, at)}
}

// Expect makes an avatar, with a key of its own, that is to come from another
// world by a crossing. It is durable on return, and shown to nobody until Arrive;
// but it can ask other worlds (PublicKey, Holder). Each call makes another.
func (a *Agent) Expect(ctx context.Context, x carnet.CrossingID, title string) (Info, error) {
	return a.expect(ctx, arrivingDocument{Crossing: x, Title: title})
}

// ExpectBy is Expect for an avatar that comes by a passport, by a recovery.
func (a *Agent) ExpectBy(ctx context.Context, x, passport carnet.CrossingID, title string) (Info, error) {
	return a.expect(ctx, arrivingDocument{Crossing: x, Passport: passport, Title: title})
}

func (a *Agent) expect(ctx context.Context, doc arrivingDocument) (Info, error) {
	if len(doc.Title) > maxTitle {
		return Info{}, carnet.Errorf(carnet.TooLarge, "an avatar's title has %d bytes, at most %d are accepted", len(doc.Title), maxTitle)
	}
	id := carnet.NewAvatarID()
	key, err := a.keys.MakeSigner(ctx, keys.ID{Kind: "avatar", Name: id.String()})
	if err != nil {
		return Info{}, err
	}
	doc.Created, doc.Key = a.now().UTC(), key.Public().(ed25519.PublicKey)
	r := newArrival(id, doc)
	if err := a.saveArrival(ctx, r); err != nil {
		return Info{}, err
	}
	a.mu.Lock()
	a.arriving[id] = r
	a.mu.Unlock()
	return r.info(), nil
}

func newArrival(id carnet.AvatarID, doc arrivingDocument) *arrival {
	return &arrival{id: id, key: [ed25519.PublicKeySize]byte(doc.Key), doc: doc, coming: make(map[seal.Path]*coming)}
}

func (r *arrival) info() Info {
	return Info{ID: r.id, Title: r.doc.Title, Created: r.doc.Created, Key: r.key[:], Properties: []string{}}
}

func (a *Agent) saveArrival(ctx context.Context, r *arrival) error {
	if err := a.put(ctx, kindArriving, r.id.String(), r.version+1, r.doc); err != nil {
		return err
	}
	r.version++
	return nil
}

// Arriving lists the avatars that are to come, with the crossings by which.
func (a *Agent) Arriving() map[carnet.AvatarID]carnet.CrossingID {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make(map[carnet.AvatarID]carnet.CrossingID, len(a.arriving))
	for id, r := range a.arriving {
		all[id] = r.doc.Crossing
	}
	return all
}

// Holder returns who has an avatar's key: an avatar that is here, one that is to
// come, or one that has moved away, which are shown nowhere else.
func (a *Agent) Holder(id carnet.AvatarID) (Info, error) {
	a.mu.RLock()
	r, gone := a.arriving[id], a.departed[id]
	a.mu.RUnlock()
	switch {
	case r != nil:
		return r.info(), nil
	case gone != nil:
		return a.info(gone), nil
	}
	return a.Avatar(id)
}

func (a *Agent) arrival(id carnet.AvatarID) (*arrival, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if r := a.arriving[id]; r != nil {
		return r, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "no avatar %s is to come", id)
}

// comes locks an avatar that is to come, for a change.
func (a *Agent) comes(id carnet.AvatarID) (r *arrival, done func(), err error) {
	if r, err = a.arrival(id); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	if r.dropped {
		r.mu.Unlock()
		return nil, nil, carnet.Errorf(carnet.NotFound, "the avatar %s comes no more", id)
	}
	return r, r.mu.Unlock, nil
}

// TakeStreams notes the streams of an arriving avatar, with where they were received:
// what is taken of them must be proved by that. One that is noted already with
// another origin is refused, and one that has the name of a stream of another avatar
// here, but for those that are or were the same one. It is durable on return.
func (a *Agent) TakeStreams(ctx context.Context, id carnet.AvatarID, streams []MovedStream, same []carnet.AvatarID) error {
	r, done, err := a.comes(id)
	if err != nil {
		return err
	}
	defer done()
	a.nameMu.Lock()
	defer a.nameMu.Unlock()
	a.changeMu.Lock() // until they are noted none of these names is mapped
	defer a.changeMu.Unlock()
	before := slices.Clone(r.doc.Streams)
	if err := a.noteStreams(r, streams, same); err != nil {
		r.doc.Streams = before
		return err
	}
	if len(r.doc.Streams) == len(before) {
		return nil
	}
	if err := a.saveArrival(ctx, r); err != nil {
		r.doc.Streams = before
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(before); i < len(r.doc.Streams); i++ {
		a.setFormer(id, r.doc.Streams[i].ID, &r.doc.Streams[i].former)
	}
	return nil
}

// noteStreams is TakeStreams in memory. The caller holds changeMu.
func (a *Agent) noteStreams(r *arrival, streams []MovedStream, same []carnet.AvatarID) error {
	for i := range streams {
		m := &streams[i]
		if err := a.nameFree(m.Stream, r.id, same); err != nil {
			return err
		}
		if had := r.stream(m.Stream); had != nil {
			if !had.Origin.same(&m.Origin) || had.Slots != m.Slots {
				return carnet.Errorf(carnet.Conflict, "stream %s is said to have another origin than before, or other keys", m.Stream)
			}
			continue
		}
		if err := m.Origin.check(); err != nil {
			return err
		}
		if _, err := newProver(m.Origin); err != nil {
			return err
		}
		if m.Stream == nobody || len(r.doc.Streams) >= maxStreams {
			return carnet.Errorf(carnet.TooLarge, "an avatar has more than %d streams, or one without a name", maxStreams)
		}
		r.doc.Streams = append(r.doc.Streams, arrivingStream{carnet.NewStreamID(), former{Name: m.Stream, Origin: m.Origin, Slots: m.Slots}})
	}
	return nil
}

// Missing returns those of the stretches that aren't here yet, and whose retention
// hasn't ended.
func (a *Agent) Missing(ctx context.Context, id carnet.AvatarID, listed []MovedStretch) (missing []MovedStretch, err error) {
	r, done, err := a.comes(id)
	if err != nil {
		return nil, err
	}
	defer done()
	now := a.now()
	for i := range listed {
		row, err := a.arrived(ctx, r, &listed[i])
		if err != nil {
			return nil, err
		}
		if row == nil && !listed[i].over(now) {
			missing = append(missing, listed[i])
		}
	}
	return missing, nil
}

// arrived finds a stretch among those that were taken; nil: it isn't here.
func (a *Agent) arrived(ctx context.Context, r *arrival, m *MovedStretch) (*StretchRow, error) {
	s := r.stream(m.Stream)
	if s == nil {
		return nil, carnet.Errorf(carnet.NotFound, "the arriving avatar has no stream %s", m.Stream)
	}
	rows, err := a.store.StretchPage(ctx, s.ID, m.First, 1)
	if err != nil || len(rows) == 0 || rows[0].FirstBatch != m.First {
		return nil, err
	}
	if is, err := movedStretch(&rows[0], m.Stream); err != nil || is != *m {
		return nil, err
	}
	return &rows[0], nil
}

// replace deletes a stretch that came before in the place of another: the source has
// packed its batches anew since.
func (a *Agent) replace(ctx context.Context, stream carnet.StreamID, m *MovedStretch) error {
	rows, err := a.store.StretchPage(ctx, stream, m.First, 1)
	if err != nil || len(rows) == 0 || rows[0].FirstBatch != m.First {
		return err
	}
	return a.drop(ctx, rows, "it was packed anew", carnet.ErasureID{}, nil)
}

// AnnounceTo signs the present reception key for a world that is to give keys.
func (a *Agent) AnnounceTo(signer crypto.Signer, self carnet.PartyID) ([]byte, error) {
	a.receptionMu.Lock()
	defer a.receptionMu.Unlock()
	return a.reception.Announce(signer, self, a.announced[len(a.announced)-1].NotAfter)
}

// TakeKeys opens a key bag for an arriving avatar and keeps its keys where no
// reader finds them. Each must open a batch that has come: one that doesn't fails
// the whole; one that no batch needs is thrown away. They are durable on return.
func (a *Agent) TakeKeys(ctx context.Context, id carnet.AvatarID, sealed []byte, want seal.Expected) error {
	r, done, err := a.comes(id)
	if err != nil {
		return err
	}
	defer done()
	bag, err := a.openBag(sealed, want)
	if err != nil {
		return err
	}
	var entries []keys.Entry
	var documents []carnet.Document
	changed := make(map[seal.Path]*coming)
	for i := range bag.Entries {
		e := &bag.Entries[i]
		s := r.stream(e.Key.Stream)
		if level := seal.EpochLevel; e.Key.Level != level && !(s != nil && s.Slots && e.Key.Level == seal.SlotLevel) || s != nil && s.Slots && e.Key.Level == level {
			return carnet.Errorf(carnet.Malformed, "an avatar's home takes keys of epochs, and of slots of a stream of which something was left out, not of %s", e.Key.Path)
		}
		had := r.coming[e.Key.Path]
		if had == nil {
			continue
		}
		if over := e.Ceiling.Exceeds(a.clearance); over != "" {
			return carnet.Errorf(carnet.Forbidden, "the key of %s is refused: %s", e.Key.Path, over)
		}
		if !e.Key.Commits(had.header(e.Key.Path)) {
			return carnet.Errorf(carnet.Tampered, "the key of %s doesn't open batch %d, which is under it", e.Key.Path, had.doc.Number)
		}
		entries = append(entries, keys.Entry{ID: arrivingKey(id, e.Key.Path), Secret: slices.Clone(e.Key.Secret[:])})
		c, ceiling := *had, savedLabel(e.Ceiling)
		c.doc.NotAfter, c.doc.Granter, c.doc.Ceiling = bag.NotAfter.UTC(), string(bag.Granter), &ceiling
		c.version++
		changed[e.Key.Path] = &c
		d, err := a.document(kindComing, comingID(id, e.Key.Path), c.version, c.doc)
		if err != nil {
			return err
		}
		documents = append(documents, d)
	}
	if len(entries) == 0 {
		return nil
	}
	if err := a.keys.Put(ctx, entries...); err != nil {
		return err
	}
	if err := a.store.Put(ctx, documents, nil); err != nil {
		return err
	}
	maps.Copy(r.coming, changed)
	return nil
}

// ComingCeiling is the label that all stays within whose keys came for an arriving avatar.
func (a *Agent) ComingCeiling(_ context.Context, id carnet.AvatarID) (label carnet.Label, err error) {
	r, done, err := a.comes(id)
	if err != nil {
		return label, err
	}
	defer done()
	for _, c := range r.coming {
		if c.doc.Ceiling != nil {
			label = label.Join(carnet.Label(*c.doc.Ceiling))
		}
	}
	return label, nil
}

// openBag opens a key bag that is sealed to one of this world's reception keys.
func (a *Agent) openBag(sealed []byte, want seal.Expected) (*seal.Bag, error) {
	id, err := seal.BagReception(sealed)
	if err != nil {
		return nil, err
	}
	a.receptionMu.Lock()
	key := a.receptions[id]
	a.receptionMu.Unlock()
	if key == nil {
		return nil, carnet.Errorf(carnet.NotFound, "the key bag is sealed to a reception key that is not in use").
			WithFix("connect again for the present one")
	}
	want.Now = a.now()
	bag, err := key.OpenBag(sealed, want)
	if err != nil {
		return nil, err
	}
	if !a.clearance.Purposes.Has(bag.Purpose) {
		return nil, carnet.Errorf(carnet.Forbidden, "the key bag is for the purpose %q, which this world doesn't have", bag.Purpose)
	}
	return bag, nil
}

// Drop deletes an arriving avatar that doesn't come, with everything that came of
// it. A crash leaves less; done again it goes on, and is done once.
func (a *Agent) Drop(ctx context.Context, id carnet.AvatarID) error {
	a.clearMu.Lock()
	defer a.clearMu.Unlock()
	r, err := a.arrival(id)
	if carnet.CodeOf(err) == carnet.NotFound {
		if _, here := a.avatar(id); here == nil {
			return carnet.Errorf(carnet.Conflict, "the avatar %s is here", id)
		}
		return nil
	} else if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped = true
	if err := a.destroyArriving(ctx, id); err != nil {
		return err
	}
	why := fmt.Sprintf("its avatar didn't come by crossing %s", r.doc.Crossing)
	for i := range r.doc.Streams {
		if err := a.deleteStretches(ctx, r.doc.Streams[i].ID, why, carnet.ErasureID{}); err != nil {
			return err
		}
	}
	documents := []carnet.Document{{Kind: kindArriving, ID: id.String(), Version: r.version + 1}}
	for at, c := range r.coming {
		documents = append(documents, carnet.Document{Kind: kindComing, ID: comingID(id, at), Version: c.version + 1})
	}
	if err := a.keys.Destroy(ctx, keys.ID{Kind: "avatar", Name: id.String()}); err != nil {
		return err
	}
	if err := a.store.Put(ctx, documents, nil); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range r.doc.Streams {
		a.setFormer(id, r.doc.Streams[i].ID, nil)
	}
	delete(a.arriving, id)
	return nil
}

// loadArriving takes the avatars that are to come, and destroys keys of those that
// have come or don't.
func (a *Agent) loadArriving(ctx context.Context) error {
	err := a.eachDocument(ctx, kindArriving, func(d carnet.Document) error {
		var doc arrivingDocument
		if err := a.openDocument(d, &doc); err != nil {
			return err
		}
		id, err := carnet.ParseAvatarID(d.ID)
		if err != nil {
			return err
		}
		if len(doc.Key) != ed25519.PublicKeySize {
			return carnet.Errorf(carnet.Tampered, "the key of avatar %s has %d bytes", d.ID, len(doc.Key))
		}
		r := newArrival(id, doc)
		r.version = d.Version
		for i := range doc.Streams {
			a.setFormer(id, doc.Streams[i].ID, &r.doc.Streams[i].former)
		}
		a.arriving[id] = r
		return nil
	})
	if err != nil {
		return err
	}
	err = a.eachDocument(ctx, kindComing, func(d carnet.Document) error {
		avatar, path, _ := strings.Cut(d.ID, "/")
		id, err := carnet.ParseAvatarID(avatar)
		if err != nil {
			return err
		}
		at, err := seal.ParsePath(path)
		if err != nil {
			return err
		}
		c := &coming{version: d.Version}
		if err := a.openDocument(d, &c.doc); err != nil {
			return err
		}
		if len(c.doc.Salt) != 16 {
			return carnet.Errorf(carnet.Tampered, "what is noted of %s is damaged", at)
		}
		if r := a.arriving[id]; r != nil {
			r.coming[at] = c
		}
		return nil
	})
	if err != nil {
		return err
	}
	ids, err := a.keys.List(ctx, kindArrivingKey, "")
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(key keys.ID) bool {
		avatar, _, _ := strings.Cut(key.Name, "/")
		id, err := carnet.ParseAvatarID(avatar)
		return err == nil && a.arriving[id] != nil
	})
	return a.keys.Destroy(ctx, ids...)
}
