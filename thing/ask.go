package thing

import (
	"context"

	"carnet"
)

// askedDocument is the stream that a world was last asked to give a thing an
// avatar for. It is on disk before the world is asked: if the answer is lost,
// the command given again asks for the same stream, and the world gives the
// avatar that it made.
type askedDocument struct {
	Stream carnet.StreamID `json:"stream"`
}

func askedKey(thing carnet.ThingID, world carnet.PartyID, avatar *carnet.AvatarID) string {
	key := string(thing) + "/" + string(world)
	if avatar != nil {
		key += "/" + avatar.String()
	}
	return key
}

// streamFor is the stream to ask for: that of a question whose answer never
// made a mapping, or a new one. done must be called at the end; until then
// nobody else asks the same.
func (a *Agent) streamFor(ctx context.Context, key string) (stream carnet.StreamID, done func(), err error) {
	a.registryMu.Lock()
	if a.registry.asking[key] {
		a.registryMu.Unlock()
		return stream, nil, carnet.Errorf(carnet.Conflict, "the same mapping is being made at this moment").WithFix("wait for its outcome")
	}
	a.registry.asking[key] = true
	stream, asked := a.registry.asked[key]
	_, mapped := a.registry.byStream[stream]
	a.registryMu.Unlock()
	done = func() {
		a.registryMu.Lock()
		delete(a.registry.asking, key)
		a.registryMu.Unlock()
	}
	if asked && !mapped {
		return stream, done, nil
	}
	stream = carnet.NewStreamID()
	if err := a.noteAsked(ctx, key, stream); err != nil {
		done()
		return stream, nil, err
	}
	return stream, done, nil
}

func (a *Agent) noteAsked(ctx context.Context, key string, stream carnet.StreamID) error {
	d, err := a.document(kindAsked, key, a.nextVersion(kindAsked, key), askedDocument{stream})
	if err != nil {
		return err
	}
	if err := a.change(ctx, []carnet.Document{d}, nil); err != nil {
		return err
	}
	a.stored(d)
	a.registryMu.Lock()
	defer a.registryMu.Unlock()
	a.registry.asked[key] = stream
	return nil
}
