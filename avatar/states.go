package avatar

import (
	"context"
	"errors"
	"unique"

	"carnet"
	"carnet/ledger"
	"carnet/policy"
)

// pending is what has been folded since the states were saved. Owner:
// Agent.foldMu.
type pending struct {
	avatars  []*Avatar     // those whose states changed
	refusals []ledger.Item // of batches, not yet stated
	forgot   bool          // values were forgotten

	saved        uint64 // the last frame that the saved states hold
	savedVersion uint64 // of the document that says so
}

// foldDocument says which frames the saved states hold.
type foldDocument struct {
	Folded  uint64      `json:"folded"`            // the last one
	Refused [][2]uint64 `json:"refused,omitempty"` // batches of uncompacted ones: frame, place there
}

// stateDocument is an avatar's state.
type stateDocument struct {
	Latest  []savedValue  `json:"latest"`
	Streams []savedStream `json:"streams"`
}

type savedValue struct {
	Name string      `json:"n"`
	Unit string      `json:"u,omitempty"`
	Time int64       `json:"t"`
	Kind carnet.Kind `json:"k"`
	Num  float64     `json:"v,omitempty"`
	Str  []byte      `json:"s,omitempty"`
	// Class is its batch's; absent where nothing is known of it.
	Class *savedClass `json:"c,omitempty"`

	// What a state saved by an older program lacks: such a value is forgotten.
	Ends  int64          `json:"e,omitempty"`
	Epoch carnet.EpochID `json:"o,omitzero"`
	Slot  uint32         `json:"l,omitempty"`
	Place uint16         `json:"p,omitempty"`
}

// savedClass is a label and retention class.
type savedClass struct {
	Sensitivity carnet.Sensitivity `json:"s"`
	Purposes    carnet.Set         `json:"p,omitempty"`
	Residency   carnet.Set         `json:"r,omitempty"`
	Retention   carnet.Retention   `json:"k"`
}

func savedClassOf(c policy.Class) *savedClass {
	if c == mostSensitive {
		return nil
	}
	return &savedClass{c.Label.Sensitivity, c.Label.Purposes, c.Label.Residency, c.Retention}
}

func (s *savedClass) class() policy.Class {
	if s == nil {
		return mostSensitive
	}
	return policy.Class{Label: carnet.Label{Sensitivity: s.Sensitivity, Purposes: s.Purposes, Residency: s.Residency}, Retention: s.Retention}
}

type savedStream struct {
	Stream       carnet.StreamID `json:"stream"`
	NextBatch    uint64          `json:"next_batch"`
	NextFirst    uint64          `json:"next_first"`
	Measurements uint64          `json:"measurements"`
	Batches      uint64          `json:"batches"`
}

// foldID is the one fold document's.
const foldID = "frames"

func (a *Agent) loadStates(ctx context.Context) error {
	fold, version, err := loadOne[foldDocument](ctx, a, kindFold, foldID)
	if err != nil {
		return err
	}
	a.folded, a.pending.saved, a.pending.savedVersion = fold.Folded, fold.Folded, version
	for _, at := range fold.Refused {
		a.tail.refused[batchAt{at[0], uint32(at[1])}] = struct{}{}
	}
	return a.eachDocument(ctx, kindState, a.loadState)
}

func (a *Agent) loadState(d carnet.Document) error {
	var doc stateDocument
	if err := a.openDocument(d, &doc); err != nil {
		return err
	}
	id, err := carnet.ParseAvatarID(d.ID)
	if err != nil {
		return err
	}
	v := a.avatars[id]
	if v == nil {
		if v = a.departed[id]; v != nil {
			v.stateVersion = d.Version
			return nil
		}
		return carnet.Errorf(carnet.Tampered, "there is a state of the avatar %s, which isn't there", id)
	}
	v.stateVersion = d.Version
	v.latest = make([]latest, 0, len(doc.Latest))
	for _, m := range doc.Latest {
		if m.Epoch == (carnet.EpochID{}) {
			a.changed(v)
			a.pending.forgot = true
			continue
		}
		v.latest = append(v.latest, latest{
			property: unique.Make(property{m.Name, m.Unit}), time: m.Time, kind: m.Kind, num: m.Num, str: string(m.Str),
			class: a.classOf(m.Class.class()), ends: m.Ends, epoch: m.Epoch, slot: m.Slot, place: m.Place,
		})
	}
	for _, s := range doc.Streams {
		if st := a.streams[s.Stream]; st != nil {
			st.nextBatch, st.nextFirst, st.measurements, st.batches = s.NextBatch, s.NextFirst, s.Measurements, s.Batches
		}
	}
	return nil
}

// saveRest saves the states if refusals wait to be stated, or values were
// forgotten. The caller holds moveMu.
func (a *Agent) saveRest(ctx context.Context) error {
	a.foldMu.Lock()
	waits := len(a.pending.refusals) > 0 || a.pending.forgot
	a.foldMu.Unlock()
	if !waits {
		return nil
	}
	return a.saveStates(ctx)
}

// saveStates saves the states that changed, all as of the same frame, with the
// refusals since. The caller holds moveMu.
func (a *Agent) saveStates(ctx context.Context) error {
	taken, states, fold := a.takeStates()
	if fold.Folded == taken.saved && len(taken.refusals) == 0 && !taken.forgot {
		return nil
	}
	d, err := a.document(kindFold, foldID, taken.savedVersion+1, fold)
	documents := []carnet.Document{d}
	for i, v := range taken.avatars {
		d, failed := a.document(kindState, v.id.String(), v.stateVersion+1, states[i])
		documents, err = append(documents, d), errors.Join(err, failed)
	}
	if err == nil {
		err = a.store.Put(ctx, documents, taken.refusals)
	}
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	if err != nil { // they are still to be saved
		for _, v := range taken.avatars {
			a.changed(v)
		}
		a.pending.forgot = a.pending.forgot || taken.forgot
		return err
	}
	for _, v := range taken.avatars {
		v.stateVersion++
	}
	a.pending.refusals = a.pending.refusals[len(taken.refusals):]
	a.pending.saved, a.pending.savedVersion = fold.Folded, taken.savedVersion+1
	if len(taken.refusals) > 0 {
		a.recorded()
	}
	return nil
}

// changed notes that an avatar's state isn't the saved one. The caller holds
// foldMu.
func (a *Agent) changed(v *Avatar) {
	if !v.changed && !v.departed {
		v.changed = true
		a.pending.avatars = append(a.pending.avatars, v)
	}
}

// takeStates copies what is to be saved; nothing is folded meanwhile.
func (a *Agent) takeStates() (taken pending, states []stateDocument, fold foldDocument) {
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	a.mu.RLock()
	defer a.mu.RUnlock()
	taken, a.pending.avatars, a.pending.forgot = a.pending, nil, false
	for _, v := range taken.avatars {
		v.changed = false
		states = append(states, v.state(a.classes.all))
	}
	fold.Folded = a.folded
	for at := range a.tail.refused {
		fold.Refused = append(fold.Refused, [2]uint64{at.frame, uint64(at.leaf)})
	}
	return taken, states, fold
}
