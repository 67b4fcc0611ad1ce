package avatar

import (
	"context"
	"crypto/ed25519"

	"carnet"
)

// load takes the agent's state from its store: links, avatars, reception keys,
// the states saved at the last compaction, and the frames since.
func (a *Agent) load(ctx context.Context) (err error) {
	if a.rest, err = a.keys.Sealer(ctx, restKey); carnet.CodeOf(err) == carnet.NotFound {
		if _, err = a.keys.Make(ctx, restKey); err == nil {
			a.rest, err = a.keys.Sealer(ctx, restKey)
		}
	}
	if err != nil {
		return err
	}
	links, err := a.store.Links(ctx)
	if err != nil {
		return err
	}
	for _, row := range links {
		a.links[row.Sender] = linkState(row)
	}
	if err := a.loadAvatars(ctx); err != nil {
		return err
	}
	if err := a.loadReceptions(ctx); err != nil {
		return err
	}
	if err := a.loadStates(ctx); err != nil {
		return err
	}
	return a.loadTail(ctx)
}

func (a *Agent) loadAvatars(ctx context.Context) error {
	documents, err := a.store.Documents(ctx, kindAvatar)
	if err != nil {
		return err
	}
	for _, d := range documents {
		var doc avatarDocument
		if err := a.openDocument(d, &doc); err != nil {
			return err
		}
		v := &Avatar{title: doc.Title, created: doc.Created, key: ed25519.PublicKey(doc.Key), version: d.Version}
		if v.id, err = carnet.ParseAvatarID(d.ID); err != nil {
			return err
		}
		v.init()
		for i, s := range doc.Streams {
			st := &stream{id: s.ID, sender: s.Sender, avatar: v, place: i, ended: s.Ended}
			v.streams = append(v.streams, st)
			a.streams[s.ID] = st
		}
		a.avatars[v.id] = v
	}
	return nil
}

// loadTail opens the frames that are not compacted, in the order they came.
func (a *Agent) loadTail(ctx context.Context) error {
	o := opening{decoder: newColumnsDecoder()}
	for at := uint64(0); ; {
		rows, err := a.store.Frames(ctx, at, compactBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		for i := range rows {
			a.foldFrame(ctx, &o, &rows[i])
			at = rows[i].ID
		}
	}
}

func (a *Agent) loadStates(ctx context.Context) error {
	documents, err := a.store.Documents(ctx, kindState)
	if err != nil {
		return err
	}
	for _, d := range documents {
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
			continue
		}
		v.stateVersion = d.Version
		a.folded = max(a.folded, doc.Folded)
		for _, m := range doc.Latest {
			v.latest[m.Name] = carnet.Measurement{
				Name: m.Name, Unit: m.Unit, Time: m.Time, Value: carnet.Value{Kind: m.Kind, Num: m.Num, Str: string(m.Str)},
			}
		}
		for _, s := range doc.Streams {
			if st := a.streams[s.Stream]; st != nil {
				st.nextBatch, st.nextFirst, st.measurements, st.batches = s.NextBatch, s.NextFirst, s.Measurements, s.Batches
			}
		}
	}
	return nil
}

// saveStates saves the avatars' states, all as of the same frame.
func (a *Agent) saveStates(ctx context.Context) error {
	a.foldMu.Lock() // nothing is folded while the states are taken
	var documents []carnet.Document
	var saved []*Avatar
	a.mu.RLock()
	folded := a.folded
	for id, v := range a.avatars {
		doc := stateDocument{Folded: folded}
		for _, m := range v.latest {
			doc.Latest = append(doc.Latest, savedValue{m.Name, m.Unit, m.Time, m.Value.Kind, m.Value.Num, []byte(m.Value.Str)})
		}
		for _, s := range v.streams {
			doc.Streams = append(doc.Streams, savedStream{s.id, s.nextBatch, s.nextFirst, s.measurements, s.batches})
		}
		d, err := a.document(kindState, id.String(), v.stateVersion+1, doc)
		if err != nil {
			a.mu.RUnlock()
			a.foldMu.Unlock()
			return err
		}
		documents, saved = append(documents, d), append(saved, v)
	}
	a.mu.RUnlock()
	a.foldMu.Unlock()
	if err := a.store.Put(ctx, documents, nil); err != nil {
		return err
	}
	for _, v := range saved {
		v.stateVersion++
	}
	return nil
}
