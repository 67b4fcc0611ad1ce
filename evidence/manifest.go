package evidence

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"time"

	"carnet"
	"carnet/seal"
)

// manifest is what the world signs of a bundle.
type manifest struct {
	Version int             `json:"version"` // 1
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
}

type fileEntry struct {
	Name   string             `json:"name"`
	Length int64              `json:"length"`
	Hash   carnet.Fingerprint `json:"sha256"` // of batches.bin: of its batches' fingerprints in order
}

const manifestVersion = 1

// The manifest is a COSE_Sign1 (RFC 9052 §4.2, tag 18) with EdDSA over Ed25519:
//
//	18([ << {1: -8, 4: key id, 16: type} >>, {}, JSON, signature ])
//
// All lengths but the payload's are fixed, and the payload's has four bytes, so
// there is one form only.
const (
	manifestType  = "application/vnd.carnet.evidence+cose"
	protectedOpen = "\xa3\x01\x27\x04\x58\x20"    // map of 3; alg: EdDSA; kid: 32 bytes
	protectedRest = "\x10\x78\x24" + manifestType // typ (RFC 9596): text of 36
	protectedSize = 6 + hashSize + 3 + 36         // 77
	sign1Open     = "\xd2\x84\x58\x4d"            // tag 18, array of 4, bytes of 77
	payloadOpen   = "\xa0\x5a"                    // no unprotected header; bytes, length in 4
	signatureOpen = "\x58\x40"                    // bytes of 64
	sigStructure  = "\x84\x6aSignature1\x58\x4d"  // RFC 9052 §4.4; bytes of 77
	sigPayload    = "\x40\x5a"                    // no external data; bytes, length in 4
	manifestLeast = 4 + protectedSize + 2 + 4 + 2 + ed25519.SignatureSize
)

// sign returns the signed manifest.
func (m *manifest) sign(key crypto.Signer) ([]byte, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, carnet.Errorf(carnet.Malformed, "the key that signs a bundle is %T, want Ed25519", key.Public())
	}
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	kid := seal.KeyID(pub)
	protected := append(append([]byte(protectedOpen), kid[:]...), protectedRest...)
	signature, err := key.Sign(nil, toBeSigned(protected, payload), crypto.Hash(0))
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the world's key did not sign the bundle: %v", err)
	}
	b := append([]byte(sign1Open), protected...)
	b = binary.BigEndian.AppendUint32(append(b, payloadOpen...), uint32(len(payload)))
	b = append(append(b, payload...), signatureOpen...)
	if b = append(b, signature...); len(b) > maxManifest {
		return nil, carnet.Errorf(carnet.TooLarge, "the bundle's manifest has %d bytes, more than %d", len(b), maxManifest)
	}
	return b, nil
}

func toBeSigned(protected, payload []byte) []byte {
	b := append([]byte(sigStructure), protected...)
	b = binary.BigEndian.AppendUint32(append(b, sigPayload...), uint32(len(payload)))
	return append(b, payload...)
}

// signedManifest is a manifest taken apart, not verified.
type signedManifest struct {
	manifest
	kid                           carnet.Fingerprint
	protected, payload, signature []byte
}

func (s *signedManifest) verify(key PublicKey) bool {
	return ed25519.Verify(ed25519.PublicKey(key), toBeSigned(s.protected, s.payload), s.signature)
}

func parseManifest(b []byte) (*signedManifest, error) {
	bad := func(why string) (*signedManifest, error) {
		return nil, carnet.Errorf(carnet.Malformed, "the manifest %s", why)
	}
	if len(b) > maxManifest || len(b) < manifestLeast {
		return bad("has a size that no manifest has")
	}
	s := new(signedManifest)
	ok := true
	take := func(n int) (part []byte) {
		part, b = b[:n:n], b[n:]
		return part
	}
	want := func(part, is string) { ok = ok && string(part) == is }
	want(string(take(len(sign1Open))), sign1Open)
	s.protected = take(protectedSize)
	want(string(s.protected[:len(protectedOpen)]), protectedOpen)
	s.kid = carnet.Fingerprint(s.protected[len(protectedOpen):][:hashSize])
	want(string(s.protected[len(protectedOpen)+hashSize:]), protectedRest)
	want(string(take(len(payloadOpen))), payloadOpen)
	n := uint64(binary.BigEndian.Uint32(take(4)))
	if !ok || n != uint64(len(b)-len(signatureOpen)-ed25519.SignatureSize) {
		return bad("is not a signature in the form of version 1")
	}
	s.payload = take(int(n))
	want(string(take(len(signatureOpen))), signatureOpen)
	s.signature = b
	d := json.NewDecoder(bytes.NewReader(s.payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&s.manifest); !ok || err != nil {
		return bad("can't be read")
	}
	return s, s.check()
}

// check holds the manifest's numbers together, so that what follows can use
// them.
func (m *manifest) check() error {
	bad := func(why string) error { return carnet.Errorf(carnet.Malformed, "the manifest %s", why) }
	if m.Version != manifestVersion {
		return carnet.Errorf(carnet.Malformed, "the manifest has version %d, this program reads %d", m.Version, manifestVersion)
	}
	if _, err := carnet.ParsePartyID(string(m.World)); err != nil {
		return bad("names no world")
	}
	if len(m.Files) != len(dataFiles) || len(m.Streams) > maxNames {
		return bad("doesn't name the files of a bundle")
	}
	for i, f := range m.Files {
		if f.Name != dataFiles[i] || f.Length < 0 {
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
