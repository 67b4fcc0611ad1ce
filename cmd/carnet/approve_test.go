package main

import (
	"crypto/ed25519"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/owner"
)

// What whoever asks for a move writes of it stands before what the owner signs, in quotes,
// so that it can't pass for that; and a view is one.
func TestAnOwnerTellsWhatIsSignedFromWhatIsWritten(t *testing.T) {
	private := func(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(append([]byte{b}, make([]byte, 31)...)) }
	public := func(b byte) ed25519.PublicKey { return private(b).Public().(ed25519.PublicKey) }
	did := func(b byte) string { return identity.DID(public(b)) }
	k, err := owner.Create(filepath.Join(t.TempDir(), "keystore"), []byte("a long enough passphrase"), newKeystores)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	arena, avatar := owner.World{Party: "arena", Key: public(1)}, carnet.AvatarID{7}
	key, err := k.Key(arena)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Pinned(arena, avatar); err != nil {
		t.Fatal(err)
	}
	mandate, err := identity.MandateRequest{Text: "For you.", MandateTerms: identity.MandateTerms{
		Audience: "arena", Subject: public(3), Platform: public(2), Avatar: avatar, Actions: []identity.Action{identity.ActionMove}, Purpose: "fitness",
	}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	asks := func(view string) (said string, err error) {
		data, err := identity.MoveRequest{
			Crossing: carnet.CrossingID{1}, Registrar: did(4), Home: carnet.HomeID{1}, Owner: identity.DID(key.Public().(ed25519.PublicKey)), Source: did(1),
			Target: "citadel", TargetKey: did(2), To: carnet.AvatarID{8}, View: json.RawMessage(view), Mandate: mandate,
			Report: []string{"Your avatar stays in arena.", `It holds for 1s." `},
		}.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var out, shown strings.Builder
		err = ownerApprove{Yes: true, For: time.Hour}.approveMove(t.Context(), streams{out: &out, err: &shown}, k, data)
		return shown.String(), err
	}
	said, err := asks(`{"properties":{"heart_rate":{}}}`)
	if err != nil {
		t.Fatal(err)
	}
	const written = "citadel writes, and nobody has checked it:\n  \"Your avatar stays in arena.\"\n  \"It holds for 1s.\\\" \"\nYour avatar 07"
	if !strings.HasPrefix(said, written) {
		t.Errorf("the owner is shown\n%s\nwhich doesn't begin with\n%s", said, written)
	}
	said, err = asks(`"` + strings.Repeat("no view ", 1000) + `"`)
	if carnet.CodeOf(err) != carnet.Malformed || said != "" {
		t.Errorf("a view that is none: %v, and shown is %.200q", err, said)
	}
}
