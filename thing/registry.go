package thing

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/policy"
	"carnet/senml"
	"carnet/td"
)

// Kinds of the agent's documents.
const (
	kindThing   = "thing"
	kindAsked   = "asked"
	kindMapping = "mapping"
	kindView    = "view"
	kindLink    = "link"
	kindAgent   = "agent"
	kindSeen    = "seen"
	kindOwner   = "owner"
	kindOnward  = "onward"
	kindRefused = "refused"
)

// Thing is a registered thing.
type Thing struct {
	id          carnet.ThingID
	number      uint32 // within this agent; what rests names it by this
	owner       string
	added       time.Time
	description *td.Description // without the text that rests in the document
	described   int             // bytes of that
	secret      atomic.Pointer[secret]

	lingers []time.Duration // the intervals its properties wait
	laneOf  []uint16        // by property: index into lingers

	// mappings is replaced as a whole by a change; read without a lock. It holds
	// active mappings only.
	mappings atomic.Pointer[map[carnet.PartyID][]*Mapping]

	mu    sync.Mutex
	seen  seen
	today struct {
		day uint32
		key *dayKey
	}
	outboxes []Outbox
	denied   *Denied // nil: nobody gave a wrong password
	// duplicates counts measurements since the start that were there already.
	duplicates uint64
}

// Outbox is the way to a device that is connected now.
type Outbox interface {
	Send(topic, contentType string, payload []byte) bool
	// Cut ends the connection. It doesn't wait.
	Cut(why string)
}

// secret is what a thing proves itself by: of its password the hash.
type secret struct{ salt, hash []byte }

// newSecret draws a password of 160 random bits.
func newSecret() (password string, s *secret) {
	password, s = randomWord(20), &secret{salt: make([]byte, 16)}
	rand.Read(s.salt)
	s.hash = passwordHash(s.salt, []byte(password))
	return password, s
}

// thingDocument is how a thing rests.
type thingDocument struct {
	Number      uint32    `json:"number"`
	Owner       string    `json:"owner"`
	Added       time.Time `json:"added"`
	Description []byte    `json:"description"`
	Salt        []byte    `json:"salt"`
	Hash        []byte    `json:"hash"`
}

// registry is what the agent knows by name. Owner: registryMu.
type registry struct {
	things   map[carnet.ThingID]*Thing
	byNumber map[uint32]*Thing
	mappings map[uint32]*Mapping
	byStream map[carnet.StreamID]*Mapping
	asked    map[string]carnet.StreamID // what worlds were last asked for
	asking   map[string]bool            // and are being asked for now
	links    map[carnet.PartyID]held[linkRecord]
	versions map[string]uint64 // of other documents, by kind and id
	views    map[uint32][]ViewRecord
	owners   map[uint32]ownerDocument // what worlds have pinned, by mapping
	onward   map[string]*onward       // mappings that are to go on elsewhere, by crossing and old mapping
	refused  map[uint32]refusedMoves  // by mapping
}

type held[T any] struct {
	version uint64
	value   T
}

func newRegistry() registry {
	return registry{
		things: make(map[carnet.ThingID]*Thing), byNumber: make(map[uint32]*Thing),
		mappings: make(map[uint32]*Mapping), byStream: make(map[carnet.StreamID]*Mapping),
		asked: make(map[string]carnet.StreamID), asking: make(map[string]bool),
		links: make(map[carnet.PartyID]held[linkRecord]), versions: make(map[string]uint64),
		views: make(map[uint32][]ViewRecord), owners: make(map[uint32]ownerDocument),
		onward: make(map[string]*onward), refused: make(map[uint32]refusedMoves),
	}
}

func (a *Agent) thingByNumber(n uint32) *Thing {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return a.registry.byNumber[n]
}

func (a *Agent) thing(id carnet.ThingID) (*Thing, error) {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	if t := a.registry.things[id]; t != nil {
		return t, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no thing %q", id).WithFix("list the things, or add it with a description")
}

// AddThing registers a thing by its description (a WoT Thing Description 1.1)
// and returns its password, 160 random bits, which nothing can show again. id may
// be empty: one is drawn.
func (a *Agent) AddThing(ctx context.Context, id carnet.ThingID, owner string, description []byte) (carnet.ThingID, string, error) {
	d, err := td.Parse(description)
	if err != nil {
		return "", "", err
	}
	if id == "" {
		id = carnet.ThingID("t-" + randomWord(10))
	}
	if _, err := carnet.ParseThingID(string(id)); err != nil {
		return "", "", err
	}
	for i := range d.Properties {
		// What is measured gets the description's name and unit, and the log and
		// batches take any measurement that this check does.
		p := &d.Properties[i]
		if err := senml.Check(&carnet.Measurement{Name: p.Name, Unit: p.Unit, Value: carnet.Float(0)}); err != nil || len(p.Name) > 128 || len(p.Unit) > 128 {
			return "", "", carnet.Errorf(carnet.Malformed, "property %.140q with unit %.140q has no form in SenML", p.Name, p.Unit).
				WithFix("give it a name and a unit of at most 128 characters without control characters")
		}
	}
	if owner == "" {
		return "", "", carnet.Errorf(carnet.Malformed, "a thing needs an owner").WithFix("name who owns it")
	}
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	if _, err := a.thing(id); err == nil {
		return "", "", carnet.Errorf(carnet.Conflict, "there is a thing %q already", id).WithFix("choose another id")
	}
	if err := a.mayAdd(owner, len(description)); err != nil {
		return "", "", err
	}
	password, secret := newSecret()
	doc := thingDocument{Number: a.nextThing(), Owner: owner, Added: a.now().UTC(), Description: description, Salt: secret.salt, Hash: secret.hash}
	sealed, err := a.document(kindThing, string(id), 1, doc)
	if err != nil {
		return "", "", err
	}
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.ThingAdded, Time: a.now().UnixNano(), Thing: id, Object: carnet.FingerprintOf(description),
	})
	if err != nil {
		return "", "", err
	}
	if err := a.change(ctx, []carnet.Document{sealed}, []ledger.Item{item}); err != nil {
		return "", "", err
	}
	a.enter(id, doc, d)
	return id, password, nil
}

// RenewPassword gives a thing another password and returns it; nothing can show it
// again. From the return on nobody is the thing by the one before: who is connected by it
// is cut off, and what comes on that way isn't taken.
func (a *Agent) RenewPassword(ctx context.Context, id carnet.ThingID) (string, error) {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	t, err := a.thing(id)
	if err != nil {
		return "", err
	}
	d, err := a.store.Document(ctx, kindThing, string(id))
	if err != nil {
		return "", err
	}
	var doc thingDocument
	if err := a.openDocument(d, &doc); err != nil {
		return "", err
	}
	password, secret := newSecret()
	doc.Salt, doc.Hash = secret.salt, secret.hash
	sealed, err := a.document(kindThing, string(id), d.Version+1, doc)
	if err != nil {
		return "", err
	}
	if err := a.change(ctx, []carnet.Document{sealed}, nil); err != nil {
		return "", err
	}
	t.secret.Store(secret)
	t.mu.Lock()
	outboxes := slices.Clone(t.outboxes)
	t.mu.Unlock()
	for _, o := range outboxes {
		o.Cut(renewed)
	}
	return password, nil
}

// renewed is why a connection ends that somebody has by a password of before.
const renewed = "the thing has another password"

// enter adds a thing to the registry.
func (a *Agent) enter(id carnet.ThingID, doc thingDocument, d *td.Description) *Thing {
	forgetText(d)
	t := &Thing{
		id: id, number: doc.Number, owner: doc.Owner, added: doc.Added, description: d, described: len(doc.Description), seen: newSeen(len(d.Properties), &a.held),
	}
	t.secret.Store(&secret{doc.Salt, doc.Hash})
	for i := range d.Properties {
		linger := d.Properties[i].Linger.Truncate(time.Millisecond) // as records name it
		at := slices.Index(t.lingers, linger)
		if at < 0 {
			at = len(t.lingers)
			t.lingers = append(t.lingers, linger)
		}
		t.laneOf = append(t.laneOf, uint16(at))
	}
	t.mappings.Store(new(map[carnet.PartyID][]*Mapping))
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	a.registry.things[id] = t
	a.registry.byNumber[t.number] = t
	return t
}

// forgetText takes out of a description what measurements don't need, which may be
// most of it: it rests in the thing's document.
func forgetText(d *td.Description) {
	d.Source, d.Description, d.Actions, d.Events = nil, "", nil, nil
	for i := range d.Properties {
		d.Properties[i].Title, d.Properties[i].Description = "", ""
	}
}

func (a *Agent) nextThing() uint32 {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	n := uint32(1)
	for number := range a.registry.byNumber {
		n = max(n, number+1)
	}
	return n
}

// Authenticate opens a session for a thing that proves itself with its
// password. It fails the same way for a wrong password and an unknown thing.
func (a *Agent) Authenticate(user string, password []byte) (*Session, error) {
	a.registryMu.RLock()
	t := a.registry.things[carnet.ThingID(user)]
	a.registryMu.RUnlock()
	by := &secret{make([]byte, 16), make([]byte, sha256.Size)}
	if t != nil {
		by = t.secret.Load()
	}
	if subtle.ConstantTimeCompare(passwordHash(by.salt, password), by.hash) != 1 || t == nil {
		return nil, carnet.Errorf(carnet.Unauthenticated, "the user name or password is wrong").
			WithFix("the user name is the thing's id; 'carnet thing add' printed the password")
	}
	return &Session{agent: a, thing: t, by: by}, nil
}

// passwordHash is cheap on purpose: passwords are 160 random bits.
func passwordHash(salt, password []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(password)
	return h.Sum(nil)
}

// randomWord is n random bytes in lower-case base32.
func randomWord(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// document seals v as the JSON of a document.
func (a *Agent) document(kind, id string, version uint64, v any) (carnet.Document, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return carnet.Document{}, err
	}
	body, err := a.rest.Seal(nil, documentAAD(kind, id), plain)
	return carnet.Document{Kind: kind, ID: id, Version: version, Body: body}, err
}

func (a *Agent) openDocument(d carnet.Document, v any) error {
	plain, err := a.rest.Open(nil, documentAAD(d.Kind, d.ID), d.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, v)
}

// each opens every document of a kind.
func each[T any](ctx context.Context, a *Agent, kind string, do func(d carnet.Document, v T) error) error {
	documents, err := a.store.Documents(ctx, kind)
	if err != nil {
		return err
	}
	for _, d := range documents {
		var v T
		if err := a.openDocument(d, &v); err != nil {
			return err
		}
		if err := do(d, v); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) loadRegistry(ctx context.Context) error {
	err := each(ctx, a, kindThing, func(d carnet.Document, v thingDocument) error {
		description, err := td.Parse(v.Description)
		if err != nil {
			return err
		}
		a.enter(carnet.ThingID(d.ID), v, description)
		return nil
	})
	if err != nil {
		return err
	}
	err = each(ctx, a, kindAgent, func(d carnet.Document, v agentDocument) error {
		a.registry.versions[kindAgent+"/"+d.ID] = d.Version
		if d.ID == processesID {
			a.processes = v.Processes
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = each(ctx, a, kindLink, func(d carnet.Document, v linkRecord) error {
		a.registry.links[carnet.PartyID(d.ID)] = held[linkRecord]{d.Version, v}
		if s := a.sender(carnet.PartyID(d.ID)); s != nil {
			s.decided = v.Decided
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = each(ctx, a, kindAsked, func(d carnet.Document, v askedDocument) error {
		a.registry.versions[kindAsked+"/"+d.ID] = d.Version
		a.registry.asked[d.ID] = v.Stream
		return nil
	})
	if err != nil {
		return err
	}
	if err := each(ctx, a, kindOwner, a.enterOwner); err != nil {
		return err
	}
	err = each(ctx, a, kindView, func(d carnet.Document, v ViewRecord) error {
		v.document = d.Version
		a.registry.views[v.Mapping] = append(a.registry.views[v.Mapping], v)
		return nil
	})
	if err != nil {
		return err
	}
	for _, views := range a.registry.views {
		slices.SortFunc(views, func(p, q ViewRecord) int { return int(p.Version) - int(q.Version) })
	}
	err = each(ctx, a, kindMapping, func(d carnet.Document, v mappingDocument) error {
		return a.enterMapping(d, v)
	})
	if err != nil {
		return err
	}
	if err := each(ctx, a, kindRefused, a.enterRefused); err != nil {
		return err
	}
	return each(ctx, a, kindOnward, a.enterPending)
}

// agentDocument is the agent's own small state.
type agentDocument struct {
	Processes []process `json:"processes,omitempty"`
}

const probeID = "probe"

// probe is a document that is written to learn whether the store has room.
func (a *Agent) probe() (carnet.Document, error) {
	return a.document(kindAgent, probeID, a.nextVersion(kindAgent, probeID), agentDocument{})
}

// nextVersion is the version that the agent's next document of a kind and id
// gets; stored takes note that a document has been stored.
func (a *Agent) nextVersion(kind, id string) uint64 {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return a.registry.versions[kind+"/"+id] + 1
}

func (a *Agent) stored(documents ...carnet.Document) {
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	for _, d := range documents {
		a.registry.versions[d.Kind+"/"+d.ID] = d.Version
	}
}

func (a *Agent) linkRecord(world carnet.PartyID) linkRecord {
	a.registryMu.RLock()
	defer a.registryMu.RUnlock()
	return a.registry.links[world].value
}

func (a *Agent) setLinkRecord(ctx context.Context, world carnet.PartyID, r linkRecord) error {
	d, err := a.linkDocument(world, r)
	if err != nil {
		return err
	}
	if err := a.change(ctx, []carnet.Document{d}, nil); err != nil {
		return err
	}
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	a.registry.links[world] = held[linkRecord]{d.Version, r}
	return nil
}

func (a *Agent) linkDocument(world carnet.PartyID, r linkRecord) (carnet.Document, error) {
	a.registryMu.RLock()
	version := a.registry.links[world].version + 1
	a.registryMu.RUnlock()
	return a.document(kindLink, string(world), version, r)
}

// mappingsTo lists the thing's active mappings to one world.
func (t *Thing) mappingsTo(world carnet.PartyID) []*Mapping { return (*t.mappings.Load())[world] }

func (t *Thing) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.forget()
}

func (t *Thing) properties() (ps []policy.Property) {
	for i := range t.description.Properties {
		p := &t.description.Properties[i]
		retention := p.Retention
		if retention == 0 {
			retention = carnet.Month
		}
		ps = append(ps, policy.Property{Name: p.Name, Unit: p.Unit, Kind: p.Kind, Label: p.Label, Retention: retention})
	}
	return ps
}
