package evidence

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"carnet"
)

// manifest is what the world signs of a bundle.
type manifest struct {
	Version int             `json:"version"` // the least that has what is in it: 5 with jobs
	World   carnet.PartyID  `json:"world"`
	Avatar  carnet.AvatarID `json:"avatar"`
	Made    time.Time       `json:"made"`
	Only    *Batch          `json:"only,omitempty"` // nil: all of the avatar
	Streams []streamEntry   `json:"streams"`
	Counts  Counts          `json:"counts"`
	Files   []fileEntry     `json:"files"`
}

// streamEntry is a stream of the bundle. Its batches are From to Next-1, and
// their measurements First to End-1.
type streamEntry struct {
	Stream carnet.StreamID `json:"stream"`
	Sender int             `json:"sender"` // place in the trust section
	From   uint64          `json:"from_batch"`
	Next   uint64          `json:"next_batch"`
	First  uint64          `json:"from_measurement"`
	End    uint64          `json:"next_measurement"`

	// Since version 2: what of it retention has ended, and, of a stream that came with
	// a move, the Passage of the world that received it.
	Over    []Over `json:"over,omitempty"`
	Passage []byte `json:"passage,omitempty"`
	// Since version 3: the Redactions of those that left something out. A stream of
	// which nothing is left is in the manifest, too.
	Left [][]byte `json:"left,omitempty"`
	// Since version 4: the identity.MoveProof of the move by which it left that world.
	Commit []byte `json:"commit,omitempty"`
}

type fileEntry struct {
	Name   string             `json:"name"`
	Length int64              `json:"length"`
	Hash   carnet.Fingerprint `json:"sha256"` // of batches.bin: of its batches' fingerprints in order
}

const manifestVersion = 5

// manifestType is what the manifest says it is in its header.
const manifestType = "application/vnd.carnet.evidence+cose"

// sign returns the signed manifest.
func (m *manifest) sign(key crypto.Signer) ([]byte, error) {
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return signEnvelope(manifestType, key, payload, maxManifest)
}

// signedManifest is a manifest taken apart, not verified.
type signedManifest struct {
	manifest
	envelope
}

func parseManifest(b []byte) (*signedManifest, error) {
	e, err := openEnvelope(manifestType, b, maxManifest)
	if err != nil {
		return nil, err
	}
	s := &signedManifest{envelope: *e}
	d := json.NewDecoder(bytes.NewReader(s.payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&s.manifest); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "the manifest can't be read")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, carnet.Errorf(carnet.Malformed, "the manifest goes on after its object")
	}
	return s, s.check()
}

// check holds the manifest's numbers together, so that what follows can use
// them.
func (m *manifest) check() error {
	bad := func(why string) error { return carnet.Errorf(carnet.Malformed, "the manifest %s", why) }
	if m.Version < 1 || m.Version > manifestVersion {
		return carnet.Errorf(carnet.Malformed, "the manifest has version %d, this program reads 1 to %d", m.Version, manifestVersion)
	}
	for i := range m.Streams {
		s := &m.Streams[i]
		if m.Version < 2 && (len(s.Over) > 0 || len(s.Passage) > 0) {
			return bad("says what a manifest of its version doesn't")
		}
		if m.Version < 3 && len(s.Left) > 0 {
			return bad("says what a manifest of its version doesn't")
		}
		if m.Version < 4 && len(s.Commit) > 0 {
			return bad("says what a manifest of its version doesn't")
		}
		if err := checkOver(s.Over); err != nil {
			return err
		}
	}
	if _, err := carnet.ParsePartyID(string(m.World)); err != nil {
		return bad("names no world")
	}
	names := dataFiles[:]
	if m.Version >= jobsManifest {
		names = append(slices.Clone(names), FileJobs)
	}
	if len(m.Files) != len(names) || len(m.Streams) > maxNames {
		return bad("doesn't name the files of a bundle")
	}
	for i, f := range m.Files {
		if f.Name != names[i] || f.Length < 0 {
			return bad("doesn't name the files of a bundle")
		}
	}
	const most = 1 << 40
	if m.Counts.Frames > most || m.Counts.Batches > most ||
		m.file(FileFrameIndex).Length != int64(m.Counts.Frames)*frameRecordSize ||
		m.file(FileBatchIndex).Length != int64(m.Counts.Batches)*batchRecordSize ||
		m.file(FileBatches).Length != int64(m.Counts.Bytes) ||
		m.file(FileKeys).Length != int64(m.Counts.Batches)*hashSize {
		return bad("has counts that its files don't")
	}
	return nil
}

func (m *manifest) file(name string) *fileEntry {
	for i := range m.Files {
		if m.Files[i].Name == name {
			return &m.Files[i]
		}
	}
	return new(fileEntry)
}
