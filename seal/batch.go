package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"math"
	"slices"

	"carnet"
)

// A batch is a COSE_Encrypt0 (RFC 9052 §5.2, tag 16) in deterministic CBOR:
//
//	16([ << {1: 3, 5: nonce, -65537: [suite, stream, epoch, slot, number,
//	         salt, commitment]} >>, {}, ciphertext ])
//
// Everything in the clear is in the protected header, and so is associated data
// of the cipher (Enc_structure, RFC 9052 §5.3). Suite 1 is the key tree by
// HKDF-SHA-256, AES-256-GCM (COSE alg 3) and the commitment.
const (
	batchOpen    = "\xd0\x83"                            // tag 16, array of 3
	headerOpen   = "\xa3\x01\x03\x05\x4c"                // map of 3; alg: A256GCM; IV: 12 bytes
	headerOwn    = ownLabel + "\x87\x01"                 // array of 7; suite 1
	encStructure = "\x83\x68Encrypt0"                    // array of 3; context; protected and aad follow
	maxHeader    = 5 + 12 + 7 + 17 + 9 + 5 + 9 + 17 + 34 // bytes of the protected header
	maxAAD       = len(encStructure) + 2 + maxHeader + 1

	nonceSize = 12
	tagSize   = 16
	padTo     = 64
)

// Header is what a batch says in the clear.
type Header struct {
	Stream     carnet.StreamID
	Epoch      carnet.EpochID
	Slot       uint32
	Number     uint64 // counts the batches of the stream
	Salt       [16]byte
	Commitment [32]byte
}

func (h *Header) append(dst, nonce []byte) []byte {
	dst = append(dst, headerOpen...)
	dst = append(dst, nonce...)
	dst = append(dst, headerOwn...)
	dst = appendBytes(dst, h.Stream[:])
	dst = appendBytes(dst, h.Epoch[:])
	dst = appendUint(dst, uint64(h.Slot))
	dst = appendUint(dst, h.Number)
	dst = appendBytes(dst, h.Salt[:])
	return appendBytes(dst, h.Commitment[:])
}

// Seal appends to dst the batch of the given number with the given body, which
// AppendBody has made. The batch's fingerprint is carnet.FingerprintOf what was
// appended.
func (s *Slot) Seal(dst []byte, number uint64, body []byte) ([]byte, error) {
	var random [16 + nonceSize]byte
	rand.Read(random[:])
	return s.seal(dst, number, body, &random)
}

func (s *Slot) seal(dst []byte, number uint64, body []byte, random *[16 + nonceSize]byte) ([]byte, error) {
	if len(body) == 0 || len(body)%padTo != 0 {
		return dst, malformed("a batch's body has %d bytes, want a multiple of %d", len(body), padTo)
	}
	if len(body) > MaxBatch-maxHeader-tagSize-16 {
		return dst, carnet.Errorf(carnet.TooLarge, "a batch's body has %d bytes, more than a batch holds", len(body))
	}
	p := &s.key.Path
	h := Header{Stream: p.Stream, Epoch: p.Epoch, Slot: p.Slot, Number: number}
	copy(h.Salt[:], random[:16])
	secret := batchSecret(&s.key.Secret, number, &h.Salt)
	var key [32]byte
	key, h.Commitment = contentKey(&secret)

	dst = slices.Grow(dst, maxHeader+len(body)+tagSize+16+maxAAD)
	dst = append(dst, batchOpen...)
	protected := len(dst)
	dst = appendHeaderString(dst, &h, random[16:])
	protectedEnd := len(dst)
	dst = append(dst, majorMap) // no unprotected header
	dst = appendHead(dst, majorBytes, uint64(len(body)+tagSize))
	end := len(dst) + len(body) + tagSize
	// The associated data is built behind the place of the ciphertext: it needs
	// memory for a moment, and dst has it.
	aad := appendAAD(dst[end:end], dst[protected:protectedEnd])
	aead, err := newAEAD(&key)
	if err != nil {
		return dst, err
	}
	return aead.Seal(dst, nonceOf(dst[protected:]), body, aad), nil
}

// appendHeaderString appends the header as a byte string. Its length is at
// least 24 and below 256, so its head has two bytes.
func appendHeaderString(dst []byte, h *Header, nonce []byte) []byte {
	at := len(dst) + 1
	dst = h.append(append(dst, majorBytes|24, 0), nonce)
	dst[at] = byte(len(dst) - at - 1)
	return dst
}

// nonceOf returns the nonce in a header's byte string.
func nonceOf(protected []byte) []byte {
	return protected[2+len(headerOpen):][:nonceSize]
}

func appendAAD(dst, protected []byte) []byte {
	dst = append(dst, encStructure...)
	dst = append(dst, protected...)
	return append(dst, majorBytes) // no external data
}

func newAEAD(key *[32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// ParseHeader reads the clear header of a batch and returns it with the
// ciphertext. It proves nothing: opening does.
func ParseHeader(batch []byte) (Header, []byte, error) {
	h, _, ciphertext, err := parseBatch(batch)
	return h, ciphertext, err
}

// parseBatch returns the header, the header's encoding as a byte string with
// its head, and the ciphertext.
func parseBatch(batch []byte) (h Header, protected, ciphertext []byte, err error) {
	if len(batch) > MaxBatch {
		return h, nil, nil, carnet.Errorf(carnet.TooLarge, "a batch has %d bytes, more than %d", len(batch), MaxBatch)
	}
	r := reader{b: batch}
	r.literal(batchOpen)
	start := r.b
	header := reader{b: r.bytes(maxHeader)}
	protected = start[:len(start)-len(r.b)]
	r.literal("\xa0")
	ciphertext = r.bytes(MaxBatch)
	header.literal(headerOpen)
	header.take(nonceSize)
	header.literal(headerOwn)
	header.fixed(h.Stream[:])
	header.fixed(h.Epoch[:])
	h.Slot = uint32(header.uint(math.MaxUint32))
	h.Number = header.uint(math.MaxUint64)
	header.fixed(h.Salt[:])
	header.fixed(h.Commitment[:])
	sealed := len(ciphertext) - tagSize
	if !r.ended() || !header.ended() || sealed < padTo || sealed%padTo != 0 {
		return Header{}, nil, nil, malformed("a batch is not in the form of suite 1")
	}
	return h, protected, ciphertext, nil
}

// Open appends the body of a batch of this slot to dst.
func (s *Slot) Open(dst, batch []byte) ([]byte, error) {
	h, protected, ciphertext, err := parseBatch(batch)
	if err != nil {
		return dst, err
	}
	if !s.key.Covers(h) {
		return dst, notCovered(s.key.Path, h)
	}
	secret := batchSecret(&s.key.Secret, h.Number, &h.Salt)
	return open(dst, &secret, &h, protected, ciphertext)
}

// OpenWith appends to dst the body of a batch, with a key of any level that
// covers it.
func OpenWith(k Key, dst, batch []byte) ([]byte, error) {
	h, protected, ciphertext, err := parseBatch(batch)
	if err != nil {
		return dst, err
	}
	if !k.Covers(h) {
		return dst, notCovered(k.Path, h)
	}
	if k.Level == EpochLevel {
		k = slotKey(k, h.Slot)
	}
	secret := k.Secret
	if k.Level == SlotLevel {
		secret = batchSecret(&k.Secret, h.Number, &h.Salt)
	}
	return open(dst, &secret, &h, protected, ciphertext)
}

// OpenBatch appends to dst the body of a batch, with the batch's own secret, and
// returns the batch's header: also when it doesn't open, if it can be read.
func OpenBatch(secret *[32]byte, dst, batch []byte) (Header, []byte, error) {
	h, protected, ciphertext, err := parseBatch(batch)
	if err != nil {
		return h, dst, err
	}
	dst, err = open(dst, secret, &h, protected, ciphertext)
	return h, dst, err
}

func notCovered(p Path, h Header) error {
	return carnet.Errorf(carnet.Forbidden, "the key of %s does not open batch %d of stream %s, epoch %s, slot %d",
		p, h.Number, h.Stream, h.Epoch, h.Slot)
}

// open compares the commitment before it opens: AES-GCM alone lets one
// ciphertext open under two keys.
func open(dst []byte, batchKey *[32]byte, h *Header, protected, ciphertext []byte) ([]byte, error) {
	key, commitment := contentKey(batchKey)
	if subtle.ConstantTimeCompare(commitment[:], h.Commitment[:]) != 1 {
		return dst, tampered("batch %d of stream %s is not sealed under this key", h.Number, h.Stream)
	}
	aead, err := newAEAD(&key)
	if err != nil {
		return dst, err
	}
	dst = slices.Grow(dst, len(ciphertext)+maxAAD)
	end := len(dst) + len(ciphertext)
	aad := appendAAD(dst[end:end], protected)
	body, err := aead.Open(dst, nonceOf(protected), ciphertext, aad)
	if err != nil {
		return dst, tampered("batch %d of stream %s was changed after it was sealed", h.Number, h.Stream)
	}
	return body, nil
}
