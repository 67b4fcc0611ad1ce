package seal

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"fmt"
	"math"
	"time"

	"carnet"
)

// The HPKE suite of key bags (RFC 9180 §7): X-Wing (ML-KEM-768 and X25519,
// draft-ietf-hpke-pq, KEM id 0x647a), HKDF-SHA256, AES-256-GCM.
func kem() hpke.KEM { return hpke.MLKEM768X25519() }

const receptionPublicSize = 1216

// ReceptionKey is the private key that a reader opens key bags with. It is used
// for a day and then destroyed, and the bags sealed to it with it.
type ReceptionKey struct {
	private hpke.PrivateKey
	id      carnet.Fingerprint
}

// NewReceptionKey draws a key.
func NewReceptionKey() (*ReceptionKey, error) {
	private, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make reception key: %w", err)
	}
	return receptionKey(private), nil
}

// ParseReceptionKey reads what Bytes wrote.
func ParseReceptionKey(b []byte) (*ReceptionKey, error) {
	private, err := kem().NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("read reception key: %w", err)
	}
	return receptionKey(private), nil
}

func receptionKey(private hpke.PrivateKey) *ReceptionKey {
	return &ReceptionKey{private, carnet.FingerprintOf(private.PublicKey().Bytes())}
}

// Bytes returns the private key, to be kept under a key-encryption key.
func (k *ReceptionKey) Bytes() ([]byte, error) { return k.private.Bytes() }

// ID is the SHA-256 of the public key; a sealed bag names it in the clear.
func (k *ReceptionKey) ID() carnet.Fingerprint { return k.id }

// Public returns the public key, 1,216 bytes.
func (k *ReceptionKey) Public() []byte { return k.private.PublicKey().Bytes() }

// Reception is an announced reception key, as a granter uses it.
type Reception struct {
	Reader   carnet.PartyID
	Signer   carnet.Fingerprint // KeyID of the reader's signing key
	ID       carnet.Fingerprint // SHA-256 of the public key
	NotAfter time.Time

	public hpke.PublicKey
}

// Announce signs the public key as the reader's until notAfter: a COSE_Sign1
// with the payload [version 1, reader, public key, not after (ns)].
func (k *ReceptionKey) Announce(signer crypto.Signer, reader carnet.PartyID, notAfter time.Time) ([]byte, error) {
	if _, err := carnet.ParsePartyID(string(reader)); err != nil {
		return nil, err
	}
	if err := checkTime(notAfter); err != nil {
		return nil, err
	}
	kid, err := signerID(signer)
	if err != nil {
		return nil, err
	}
	payload := appendUint(appendArray(nil, 4), 1)
	payload = appendText(payload, string(reader))
	payload = appendBytes(payload, k.Public())
	payload = appendTime(payload, notAfter)
	out, _, err := appendSign1(nil, nil, signer, appendProtected(nil, 3, kid, typeReception), payload)
	return out, err
}

// ParseReception reads an announcement, which must be signed by the reader's
// key pub and not be over at now.
func ParseReception(data []byte, pub ed25519.PublicKey, now time.Time) (*Reception, error) {
	s, ok := parseSign1(data, 2*receptionPublicSize)
	header, r := reader{b: s.protected}, reader{b: s.payload}
	a := &Reception{Signer: header.protected(3, typeReception)}
	r.array(4)
	version := r.uint(math.MaxUint64)
	party, err := carnet.ParsePartyID(string(r.text(32)))
	public := r.bytes(receptionPublicSize)
	a.NotAfter = r.time()
	if !ok || err != nil || !header.ended() || !r.ended() || version != 1 {
		return nil, malformed("an announcement of a reception key is not in the form of version 1")
	}
	if ok, _ := s.verify(nil, pub); !ok || KeyID(pub) != a.Signer {
		return nil, tampered("the reception key of %s is not signed by its key", party)
	}
	if !now.Before(a.NotAfter) {
		return nil, carnet.Errorf(carnet.TooOld, "the reception key of %s was good until %s", party, a.NotAfter.UTC().Format(time.RFC3339)).
			WithFix("ask %s for the present one", party)
	}
	a.Reader, a.ID = party, carnet.FingerprintOf(public)
	if a.public, err = kem().NewPublicKey(public); err != nil {
		return nil, malformed("the reception key of %s is no X-Wing key: %v", party, err)
	}
	return a, nil
}
