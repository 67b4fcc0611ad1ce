package avatar

import (
	"context"
	"slices"

	"carnet"
)

// former is what is known of a stream that another world received, before its
// avatar moved here. Such a stream has ended. In the store it has an id of this
// world's own, so that it can stand beside a share of the same stream, or another
// move of it.
type former struct {
	Name    carnet.StreamID `json:"name"` // as its batches have it
	Origin  Origin          `json:"origin"`
	Passage []byte          `json:"passage,omitempty"`
	// Slots and Left are as in a MovedStream: its keys here are those of slots.
	Slots bool      `json:"slots,omitempty"`
	Left  []LeftOut `json:"left,omitempty"`
	// Commit is that of the move by which it left that world.
	Commit []byte `json:"commit,omitempty"`
}

// formerOf returns what is known of a stream, by its id in the store, that came
// with a move; nil: it was received here.
func (a *Agent) formerOf(id carnet.StreamID) *former {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.former[id]
}

// nameOf is what a stream's batches call it, by its id in the store.
func (a *Agent) nameOf(id carnet.StreamID) carnet.StreamID {
	if f := a.formerOf(id); f != nil {
		return f.Name
	}
	return id
}

// formerly returns the streams here that came with moves and have a name.
func (a *Agent) formerly(name carnet.StreamID) (streams []*stream) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, id := range a.formerNames[name] {
		if s := a.streams[id]; s != nil {
			streams = append(streams, s)
		}
	}
	return streams
}

// isFormer reports whether a stream of a name came with a move, or is to.
func (a *Agent) isFormer(name carnet.StreamID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.formerNames[name]) > 0
}

// setFormer notes what is known of an avatar's stream that came with a move; nil: it is
// here no more. The caller holds Agent.mu.
func (a *Agent) setFormer(of carnet.AvatarID, id carnet.StreamID, f *former) {
	if f != nil {
		a.formerOwner[id] = of
		if a.former[id] == nil {
			a.formerNames[f.Name] = append(a.formerNames[f.Name], id)
		}
		a.former[id] = f
		return
	}
	had := a.former[id]
	if had == nil {
		return
	}
	delete(a.former, id)
	delete(a.formerOwner, id)
	if rest := slices.DeleteFunc(a.formerNames[had.Name], func(other carnet.StreamID) bool { return other == id }); len(rest) > 0 {
		a.formerNames[had.Name] = rest
	} else {
		delete(a.formerNames, had.Name)
	}
}

// nameFree refuses a name for a stream of an avatar that is to come, if that is the name
// of something else here, whose keys would be taken for that avatar's, and its for theirs:
// of a stream of an avatar's that isn't one of the same, which came here before. A share
// may have the name: its keys are those of slots. The caller holds changeMu.
func (a *Agent) nameFree(name carnet.StreamID, id carnet.AvatarID, same []carnet.AvatarID) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	other := func(of carnet.AvatarID) bool { return of != id && !slices.Contains(same, of) }
	if s := a.streams[name]; s != nil && other(s.avatar.id) {
		_, shared := a.shared[name]
		left := s.avatar.passing != nil && s.avatar.passing.gone != nil
		switch {
		case left && s.avatar.passing.gone.Cleared.IsZero():
			return carnet.Errorf(carnet.Unavailable, "another avatar is leaving that has a stream %s, of which not all is deleted yet", name)
		case !left && !shared:
			return carnet.Errorf(carnet.Conflict, "the stream %s is another avatar's here", name)
		}
	}
	for _, stream := range a.formerNames[name] {
		of := a.formerOwner[stream]
		switch {
		case !other(of):
		case a.avatars[of] != nil:
			return carnet.Errorf(carnet.Conflict, "the stream %s is another avatar's here", name)
		default: // it may not come, or is leaving
			return carnet.Errorf(carnet.Unavailable, "another avatar has a stream %s, which is to come here or leaves", name)
		}
	}
	return nil
}

// overDocument says which of a stream's batches retention has ended, by class: all
// that were dropped are between the two numbers. Its id is the stream's in the
// store.
type overDocument struct {
	Classes map[carnet.Retention][2]uint64 `json:"classes"`
}

func (d *overDocument) note(class carnet.Retention, first, last uint64) {
	if d.Classes == nil {
		d.Classes = make(map[carnet.Retention][2]uint64)
	}
	if had, ok := d.Classes[class]; ok {
		first, last = min(first, had[0]), max(last, had[1])
	}
	d.Classes[class] = [2]uint64{first, last}
}

func (d *overDocument) list() (all []Over) {
	for class := carnet.Hour; class < carnet.Keep; class++ {
		if r, ok := d.Classes[class]; ok {
			all = append(all, Over{class, r[0], r[1]})
		}
	}
	return all
}

// overDocuments makes the documents that name stretches which are dropped since
// their retention has ended.
func (a *Agent) overDocuments(ctx context.Context, rows []StretchRow) (documents []carnet.Document, err error) {
	type noted struct {
		doc     overDocument
		version uint64
	}
	of := make(map[carnet.StreamID]*noted)
	for i := range rows {
		row := &rows[i]
		if row.Stream == nobody {
			continue
		}
		n := of[row.Stream]
		if n == nil {
			n = new(noted)
			if n.doc, n.version, err = loadOne[overDocument](ctx, a, kindOver, row.Stream.String()); err != nil {
				return nil, err
			}
			of[row.Stream] = n
		}
		n.doc.note(row.Class, row.FirstBatch, row.LastBatch)
	}
	for id, n := range of {
		d, err := a.document(kindOver, id.String(), n.version+1, n.doc)
		if err != nil {
			return nil, err
		}
		documents = append(documents, d)
	}
	return documents, nil
}
