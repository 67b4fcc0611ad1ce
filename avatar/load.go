package avatar

import (
	"context"
	"crypto/ed25519"

	"carnet"
)

// load takes the agent's state from its store: links, avatars, reception keys,
// the states saved at the last compaction, and the frames since.
func (a *Agent) load(ctx context.Context) (err error) {
	if err := a.loadRest(ctx); err != nil {
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
	if err := a.loadPolicies(ctx); err != nil {
		return err
	}
	if err := a.loadArriving(ctx); err != nil {
		return err
	}
	if err := a.loadReceptions(ctx); err != nil {
		return err
	}
	if err := a.loadStates(ctx); err != nil {
		return err
	}
	if err := a.loadMoved(ctx); err != nil {
		return err
	}
	return a.loadTail(ctx)
}

// loadRest takes the key that seals documents and statements. It is made at the
// first start only: a store that has been used with another key table is refused.
func (a *Agent) loadRest(ctx context.Context) (err error) {
	if a.rest, err = a.keys.Sealer(ctx, restKey); carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	if _, err := a.store.Document(ctx, kindReception, receptionDocumentID); err == nil {
		return carnet.Errorf(carnet.Tampered, "the key table doesn't have the key that this world's store is sealed under").
			WithFix("give the key table that belongs to the store")
	} else if carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	if _, err = a.keys.Make(ctx, restKey); err != nil {
		return err
	}
	a.rest, err = a.keys.Sealer(ctx, restKey)
	return err
}

// sharing gives out one copy of each text, of the many that documents have.
type sharing[T ~string] map[T]T

func (s sharing[T]) of(text T) T {
	if one, ok := s[text]; ok {
		return one
	}
	s[text] = text
	return text
}

func (a *Agent) loadAvatars(ctx context.Context) error {
	shared := make(sharing[carnet.PartyID])
	return a.eachDocument(ctx, kindAvatar, func(d carnet.Document) (err error) {
		var doc avatarDocument
		if err := a.openDocument(d, &doc); err != nil {
			return err
		}
		if len(doc.Key) != ed25519.PublicKeySize {
			return carnet.Errorf(carnet.Tampered, "the key of avatar %s has %d bytes", d.ID, len(doc.Key))
		}
		v := &Avatar{title: doc.Title, created: doc.Created.UnixNano(), key: [ed25519.PublicKeySize]byte(doc.Key), version: d.Version}
		if len(doc.Owner) == ed25519.PublicKeySize {
			v.owner = (*[ed25519.PublicKeySize]byte)(doc.Owner)
		} else if len(doc.Owner) != 0 {
			return carnet.Errorf(carnet.Tampered, "the owner's key of avatar %s has %d bytes", d.ID, len(doc.Owner))
		}
		if v.id, err = carnet.ParseAvatarID(d.ID); err != nil {
			return err
		}
		if doc.Frozen != nil {
			v.passing = &passing{frozen: *doc.Frozen}
		}
		for i, s := range doc.Streams {
			st := &stream{id: s.ID, sender: shared.of(s.Sender), avatar: v, place: uint16(i), ended: s.Ended}
			if st.gives, err = a.givesOf(s.Sender, s.Gives); err != nil {
				return err
			} else if st.ended {
				st.gives = givesNothing
			}
			v.streams = append(v.streams, st)
			if doc.Gone != nil {
				continue
			}
			a.streams[s.ID] = st
			a.setFormer(v.id, s.ID, s.Former)
			if s.Share != nil {
				a.shared[s.ID] = *s.Share
			}
			if (s.Erased != carnet.ErasureID{}) {
				st.gone, st.nextBatch, st.nextFirst = true, s.NextBatch, s.NextFirst
				a.erased[s.ID] = s.Erased
			}
		}
		if doc.Gone != nil {
			a.loadDeparted(v, &doc)
			return nil
		}
		a.avatars[v.id] = v
		a.count(v, 1)
		return nil
	})
}

// loadTail opens the frames that are not compacted, in the order they came.
func (a *Agent) loadTail(ctx context.Context) error {
	o := newOpening()
	for at := uint64(0); ; {
		rows, err := a.store.Frames(ctx, at, compactBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		for i := range rows {
			row := &rows[i]
			if at = row.ID; a.moved.has(at) {
				continue
			}
			_, err := a.leavesOf(row)
			if err != nil {
				a.log.Error("a stored frame is damaged: what opens of it is used, and it stays where it is", "sender", row.Sender, "frame", row.Number, "err", err)
			}
			if err := a.foldFrame(ctx, &o, row, err == nil); err != nil {
				return err
			}
		}
	}
}
