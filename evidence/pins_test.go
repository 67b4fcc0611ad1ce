package evidence

import (
	"slices"
	"testing"

	"carnet/ledger"
)

// The home of an avatar that has moved can't state a former world's frames in its own
// name, to leave out the end of their stream: their sender sends to that world.
func TestAFormerSenderIsNotTheHomes(t *testing.T) {
	for what, kept := range map[string]int{"all frames": 6, "a stream without its end": 3} {
		t.Run(what, func(t *testing.T) {
			former := newStage(t)
			watch := former.course(former.hub, true)
			for range 6 {
				former.send(watch)
			}
			former.receipts()
			home := newStage(t)
			home.name, home.world, home.hub = "citadel", seed(2), &agent{party: "watchhub", key: seed(12)}
			var err error
			if home.depot, err = ledger.NewSigner("vault.citadel/ledger", seed(4)); err != nil {
				t.Fatal(err)
			}
			home.send(home.course(home.hub, true))
			for _, f := range former.frames[:kept] {
				st, err := ledger.ParseStatement(f.Statement)
				if err != nil {
					t.Fatal(err)
				}
				st.Who = "citadel"
				home.state(f, st)
				home.frames = append(home.frames, f)
			}
			home.receipts()
			o := home.options()
			o.Trust.Senders = []Sender{{Party: "watchhub", Audience: "citadel", Key: home.trust().Senders[0].Key}, former.trust().Senders[0]}
			pinned := Trust{Version: 1, Worlds: home.trust().Worlds, Senders: o.Trust.Senders[:1], Ledgers: home.trust().Ledgers}
			theirs := former.trust()
			pinned.Join(&theirs)
			want(t, verify(t, home.write(o), &pinned), False, "the sender hub is not the one in the trust file")
		})
	}
}

// Files of several worlds are joined without one's senders becoming the other's, and a
// file that doesn't say whose they are is refused.
func TestTrustFilesStayApart(t *testing.T) {
	arena := newStage(t)
	citadel := newStage(t)
	citadel.name, citadel.world = "citadel", seed(2)
	citadel.hub.key = seed(12) // another thing's agent, called the same there
	arena.send(arena.course(arena.hub, true))
	arena.receipts()
	dir := arena.write(arena.options())
	one, other := arena.trust(), citadel.trust()
	joined := Trust{Version: 1}
	joined.Join(&other)
	joined.Join(&one)
	want(t, verify(t, dir, &joined), True)
	text, err := joined.marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseTrust(text)
	if err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, dir, again), True)

	swapped := Trust{Version: 1}
	one.Senders, other.Senders = other.Senders, one.Senders
	swapped.Join(&one)
	swapped.Join(&other)
	want(t, verify(t, dir, &swapped), False, "the sender hub is not the one")

	for i := range joined.Senders {
		joined.Senders[i].World = nil
	}
	if _, err := Verify(t.Context(), dir, &joined, VerifyOptions{}); err == nil {
		t.Error("a file of two worlds is gone by, though it doesn't say which of them its senders send to")
	}
	stray := arena.trust()
	stray.Senders[0].World = slices.Clone(citadel.trust().Worlds[0].Key)
	if stray.check() == nil {
		t.Error("a sender sends to a world that the file doesn't name")
	}
	o := arena.options()
	o.Trust.Senders[0].World = o.Trust.Worlds[0].Key
	if o.Trust.bundled(manifestVersion) == nil {
		t.Error("a bundle's trust section says which world a sender sends to")
	}
}
