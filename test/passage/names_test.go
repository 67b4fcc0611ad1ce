package passage_test

import (
	"slices"
	"testing"

	"carnet"
	"carnet/avatar"
)

// named is the passage of an avatar of which a world says that it has a stream, with no
// batches, by the name of one that is somewhere else.
func named(t *testing.T, from, to *world, name carnet.StreamID) *passage {
	t.Helper()
	var answer carnet.MapAnswer
	must(t, from.hub.call(carnet.CallMap, carnet.MapRequest{Stream: name, Title: "a watch"}, &answer))
	return comes(t, from, to, answer.Avatar)
}

// comes is the passage of an avatar that is to come beside others.
func comes(t *testing.T, from, to *world, id carnet.AvatarID) *passage {
	t.Helper()
	p := newPassage(t, from, to, id)
	info, err := to.agent.Expect(t.Context(), p.crossing, "a watch")
	must(t, err)
	p.target = info.ID
	return p
}

// take has the target note the streams that the source gives, of avatars that are the same.
func (p *passage) take(same ...carnet.AvatarID) error {
	p.t.Helper()
	streams, err := p.from.agent.MovedStreams(p.t.Context(), p.source)
	must(p.t, err)
	return p.to.agent.TakeStreams(p.t.Context(), p.target, streams, same)
}

// An avatar comes with no stream that has the name of another's here, whether that is
// received here, came itself, is to come, or leaves; and none is mapped with the name of
// one that came.
func TestNoStreamComesByAnothersName(t *testing.T) {
	arena, citadel, mole := newWorld(t, "arena"), newWorld(t, "citadel"), newWorld(t, "mole")
	ctx := t.Context()
	here, streams := life(citadel, 3)
	received := named(t, mole, citadel, streams[0].id)
	if err := received.take(); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the name of a stream that is received here: %v", err)
	}
	if err := received.take(here); err != nil {
		t.Errorf("the same avatar, as an older copy of the store has it: %v", err)
	}
	must(t, citadel.agent.Drop(ctx, received.target))
	received = comes(t, mole, citadel, received.source)

	id, came := life(arena, 3)
	p := comes(t, arena, citadel, id)
	must(t, p.copy())
	late := named(t, mole, citadel, came[0].id)
	if err := late.take(); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("the name of a stream that is to come: %v", err)
	}
	citadel.restart()
	if err := late.take(); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("the name of a stream that is to come, after a restart: %v", err)
	}
	must(t, p.freeze())
	must(t, p.prepare())
	must(t, p.arrive())
	if err := late.take(); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("the name of a stream that came: %v", err)
	}
	if err := citadel.hub.call(carnet.CallMap, carnet.MapRequest{Stream: came[0].id, Title: "a watch"}, nil); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a stream is mapped by the name of one that came: %v", err)
	}
	x := carnet.NewCrossingID()
	for _, id := range []carnet.AvatarID{here, p.target} {
		must(t, citadel.agent.Freeze(ctx, id, x))
		must(t, citadel.agent.Depart(ctx, id, x, "garden", carnet.Fingerprint{1}))
	}
	if err := late.take(); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("the name of a stream that came and leaves: %v", err)
	}
	if err := received.take(); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("the name of a stream that was received here and leaves: %v", err)
	}
	must(t, citadel.agent.Clear(ctx, p.target))
	must(t, citadel.agent.Clear(ctx, here))
	must(t, late.take())
	must(t, received.take())
}

// An avatar that has a stream by another's name, as in a store of before that was
// refused, isn't given that one's keys, and they aren't destroyed when it leaves.
func TestTheKeysOfOneNameStayTheirOwners(t *testing.T) {
	citadel, mole := newWorld(t, "citadel"), newWorld(t, "mole")
	ctx := t.Context()
	here, streams := life(citadel, 9)
	p := named(t, mole, citadel, streams[0].id)
	must(t, p.take(here)) // as if it were the same
	must(t, p.freeze())
	m := p.parsed()
	must(t, citadel.agent.Check(ctx, p.target, m))
	must(t, p.arrive())
	before := citadel.history(here)

	x := carnet.NewCrossingID()
	must(t, citadel.agent.Freeze(ctx, p.target, x))
	left, err := citadel.agent.Manifest(ctx, p.target, x, citadel.vouch)
	must(t, err)
	if len(left.Keys) > 0 {
		t.Errorf("it leaves with %d keys of another's", len(left.Keys))
	}
	own, err := citadel.agent.PassportManifest(ctx, here, carnet.NewCrossingID(), citadel.vouch)
	must(t, err)
	if !slices.ContainsFunc(own.Keys, func(k avatar.MovedKey) bool { return k.Stream == streams[0].id }) {
		t.Error("whose name it is leaves without keys")
	}
	must(t, citadel.agent.Depart(ctx, p.target, x, "mole", carnet.Fingerprint{1}))
	must(t, citadel.agent.Clear(ctx, p.target))
	if got := citadel.history(here); !slices.Equal(got, before) {
		t.Errorf("once it has left, the other's history has %d measurements of %d", len(got), len(before))
	}
	if all, err := citadel.table.List(ctx, "epoch", streams[0].id.String()+"/"); err != nil || len(all) == 0 {
		t.Errorf("no keys are left of the other's, %v", err)
	}
}
