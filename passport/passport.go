// Package passport owns the passport: a directory with everything that an avatar's
// move would take along, kept by its owner for when its home is gone for good
// (docs/design/passport.md).
//
// Write makes one, Open reads one, Verify verifies one offline. A passport is being
// written (no head yet), or whole, and never changed. Manifest, stretches, proofs and
// key bags are those of a move, byte for byte.
//
// The package must not know how an avatar is found in a world, nor how a recovery is
// decided (crossing/move, register); and it opens no batch: keys in a passport are
// sealed to their readers.
package passport

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/identity"
	"carnet/policy"
)

// The files of a passport. There are no others.
const (
	FileHead      = "passport.cose"
	FileManifest  = "manifest.json"
	FileStretches = "stretches.bin"
	FileProofs    = "proofs.bin"
	FileKeys      = "keys.bin"
	FileItems     = "items.json"
	FileGrants    = "grants.json" // only if there are any
)

// dataFiles are the files that the head has the hashes of, in its order. The grants follow
// them, if there are any.
var dataFiles = []string{FileManifest, FileStretches, FileProofs, FileKeys, FileItems}

// Granted is a grant that was in force when a passport was made, for the avatar's owner to
// read: nobody gives it anew by that, for it names principals of a world that is gone.
type Granted struct {
	To      string            `json:"to"` // as its world calls them
	Actions []identity.Action `json:"actions"`
	Purpose string            `json:"purpose"`
	Onward  bool              `json:"onward,omitempty"`
	Expires time.Time         `json:"expires"`
	View    json.RawMessage   `json:"view"`
}

// maxBelongings bounds what a passport has of items, and of grants.
const maxBelongings = 64 << 20

// IsFile reports whether only a passport has a file of that name.
func IsFile(name string) bool {
	return name == FileHead || name == FileStretches || name == FileProofs || name == FileItems || name == FileGrants
}

// File is a file of a passport.
type File struct {
	Name   string             `json:"name"`
	Length int64              `json:"length"`
	Hash   carnet.Fingerprint `json:"sha256"`
}

// Reader is to whom keys are sealed.
type Reader struct {
	Reader    carnet.PartyID     `json:"reader"`
	Reception carnet.Fingerprint `json:"reception"` // id of the reception key
}

// Head is what the world signs.
type Head struct {
	Version  int            `json:"version"` // 1
	World    evidence.World `json:"world"`
	Word     string         `json:"word"`               // identity.Passport, by the world's key in the register
	Readers  []Reader       `json:"readers"`            // none: there are no keys
	Farewell string         `json:"farewell,omitempty"` // identity.Farewell
	Policy   string         `json:"policy,omitempty"`   // the avatar's: identity.AvatarPolicy
	Files    []File         `json:"files"`
}

const (
	headType    = "application/vnd.carnet.passport+cose"
	headVersion = 1
	maxHead     = 128 << 10
	maxReaders  = 64
)

// MaxBags is how many key bags a passport has at most: some for each reader.
const MaxBags = 4096

// openHead reads a head in its one form, by the key that it names.
func openHead(signed []byte) (*Head, identity.Passport, error) {
	var none identity.Passport
	s, err := evidence.OpenAs(headType, signed, maxHead)
	if err != nil {
		return nil, none, err
	}
	h := new(Head)
	d := json.NewDecoder(bytes.NewReader(s.Payload()))
	d.DisallowUnknownFields()
	if err := d.Decode(h); err != nil {
		return nil, none, carnet.Errorf(carnet.Malformed, "the passport's head can't be read: %v", err)
	}
	if again, err := json.Marshal(h); err != nil || !bytes.Equal(again, s.Payload()) {
		return nil, none, carnet.Errorf(carnet.Malformed, "the passport's head is not in its one form")
	}
	if h.Version != headVersion {
		return nil, none, carnet.Errorf(carnet.Malformed, "the passport has version %d, and this program reads %d", h.Version, headVersion)
	}
	if !s.By(h.World.Key) {
		return nil, none, carnet.Errorf(carnet.Tampered, "the passport's head is not signed by the key of %s that it names", h.World.Party)
	}
	word, err := h.check()
	return h, word, err
}

// check holds a head together.
func (h *Head) check() (word identity.Passport, err error) {
	if _, err := carnet.ParsePartyID(string(h.World.Party)); err != nil {
		return word, err
	}
	names := h.files()
	if n := len(dataFiles); len(names) < n || !slices.Equal(names[:n], dataFiles) || len(names) > n && !slices.Equal(names[n:], []string{FileGrants}) || len(h.Readers) > maxReaders {
		return word, carnet.Errorf(carnet.Malformed, "the passport's head names the files %.200q and %d readers, which none does", names, len(h.Readers))
	}
	if word, err = identity.OpenPassport(h.Word); err != nil {
		return word, err
	}
	if word.World != h.World.Party || word.Signer != identity.DID(ed25519.PublicKey(h.World.Key)) || word.Manifest != h.file(FileManifest).Hash {
		return word, carnet.Errorf(carnet.Tampered, "what the home's key says is of another passport, or of another key that signs it")
	}
	if h.Policy != "" {
		p, err := identity.OpenAvatarPolicy(h.Policy)
		if err != nil {
			return word, err
		}
		if p.World != word.Source || p.Avatar != word.Avatar {
			return word, carnet.Errorf(carnet.Tampered, "the policy is of another avatar, or for another world")
		}
		if p.Owner != word.Pinned {
			return word, carnet.Errorf(carnet.Tampered, "the policy is signed by %s, and its world says that the avatar's owner is %s", p.Owner, word.Pinned)
		}
		if _, err := policy.ParseBounds(p.Policy); err != nil {
			return word, err
		}
	}
	if h.Farewell != "" {
		f, err := identity.OpenFarewell(h.Farewell)
		if err != nil {
			return word, err
		}
		if f.Source != word.Source || f.Home != word.Home || f.Registrar != word.Registrar || f.Manifest != word.Manifest {
			return word, carnet.Errorf(carnet.Tampered, "the farewell is of another passport")
		}
	}
	return word, nil
}

// files are those that the passport has beside its head.
func (h *Head) files() (names []string) {
	for _, f := range h.Files {
		names = append(names, f.Name)
	}
	return names
}

func (h *Head) file(name string) File {
	i := slices.IndexFunc(h.Files, func(f File) bool { return f.Name == name })
	return h.Files[max(i, 0)]
}

// Vouched refuses a stream of which the world that received it has signed something
// else than is said of it, or nothing, or one that left something out of it. What
// retention has ended since is the homes' to say.
func Vouched(s avatar.MovedStream) error {
	for i := range s.Left {
		l := &s.Left[i]
		word, err := evidence.OpenRedaction(l.Word)
		if err != nil {
			return err
		}
		want := RedactionOf(s.Stream, *l)
		want.World.Key = word.World.Key
		if !alike(word, want) {
			return carnet.Errorf(carnet.Tampered, "%s signed something else of what it left out of stream %s than what is said of it", word.World.Party, s.Stream)
		}
	}
	passage, err := evidence.OpenPassage(s.Passage)
	if err != nil {
		return err
	}
	want := PassageOf(s)
	want.World.Key, want.Over, want.Version, want.Crossing, want.Made = passage.World.Key, passage.Over, passage.Version, passage.Crossing, passage.Made
	if !alike(*passage, want) {
		return carnet.Errorf(carnet.Tampered, "%s signed something else of stream %s than what is said of it", passage.World.Party, s.Stream)
	}
	return committed(s, passage)
}

// committed refuses a stream that left the world which received it by another crossing
// than is said: by the manifest's, or an earlier one that the registrar has committed.
func committed(s avatar.MovedStream, p *evidence.Passage) error {
	switch {
	case len(s.Commit) > 0:
		c, err := identity.OpenMoveProof(s.Commit)
		if err != nil {
			return err
		}
		_, err = c.Of(p.Crossing, identity.Head{Stream: s.Stream, NextBatch: p.Next, NextFirst: p.End})
		return err
	case p.Version > 1 && p.Crossing != s.Crossing:
		return carnet.Errorf(carnet.Tampered, "what %s signed of stream %s is of another move, and no registrar's commit of that is beside it", p.World.Party, s.Stream)
	}
	return nil // of an older program
}

// alike reports whether two say the same.
func alike(p, q any) bool {
	is, err := json.Marshal(p)
	as, failed := json.Marshal(q)
	return err == nil && failed == nil && bytes.Equal(is, as)
}

// RedactionOf is what is said to be left out of a stream, without its world's key.
func RedactionOf(stream carnet.StreamID, l avatar.LeftOut) evidence.Redaction {
	r := evidence.Redaction{
		Version: 1, World: evidence.World{Party: l.World}, Stream: stream, Crossing: l.Crossing, Order: l.Order, Ordered: l.Ordered,
	}
	for _, run := range l.Runs {
		r.Runs = append(r.Runs, evidence.Run(run))
	}
	return r
}

// PassageOf is what is said of a stream, without its world's key.
func PassageOf(s avatar.MovedStream) evidence.Passage {
	p := evidence.Passage{
		Version: 2, World: evidence.World{Party: s.Origin.World}, Ledger: evidence.Ledger{Party: s.Origin.Ledger, Key: s.Origin.LedgerKey},
		Sender: evidence.Sender{Party: s.Origin.Sender, Audience: s.Origin.Audience, Key: s.Origin.Key},
		Stream: s.Stream, Next: s.NextBatch, End: s.NextFirst, Crossing: s.Crossing,
	}
	for _, o := range s.Over {
		p.Over = append(p.Over, evidence.Over(o))
	}
	return p
}
