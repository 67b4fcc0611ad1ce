package seal

import (
	"crypto"
	"crypto/ed25519"
	"encoding/binary"
	"math"
	"slices"

	"carnet"
)

// FrameHeader is what the signature of a frame binds, besides the batches.
type FrameHeader struct {
	Audience    carnet.PartyID
	Sender      carnet.Fingerprint // KeyID of the key that signs
	Incarnation uint64             // of the link
	Number      uint64             // counts the frames of the link
	Previous    carnet.Fingerprint // Hash of the frame before; zero for a link's first
	Count       uint32             // of batches
	Policy      uint64             // version of the policy that let the batches go
	Time        int64              // of signing, nanoseconds since the Unix epoch
	Covers      [16]byte           // position of the sender's log, sealed by and for the sender; zeros in a frame of shares
}

// Shares reports whether the frame is of what a world shares: it has no log whose
// position it could cover. A things agent's position is never sealed as zeros.
func (h *FrameHeader) Shares() bool { return h.Covers == [16]byte{} }

// Frame is what one sender sends one receiver at once. A Frame may be used for
// one frame after the other, by one goroutine at a time: Sign and Parse reuse
// its memory.
type Frame struct {
	Header  FrameHeader
	Root    carnet.Fingerprint   // Merkle root of the batches' fingerprints
	Sign1   []byte               // the signed header and root
	Batches [][]byte             // as given to Sign, or part of the data given to Parse
	Leaves  []carnet.Fingerprint // of Batches; after Parse only once Verify has run

	own     []byte // memory of Sign1 when Sign made it
	scratch []byte
	nodes   []carnet.Fingerprint
}

const (
	frameVersion = 1
	maxSign1     = 512                   // bytes of a frame's COSE_Sign1
	frameOwn     = ownLabel + "\x89\x01" // array of 9; version 1
)

// SignFrame signs a frame of the batches and returns its wire form.
func SignFrame(key crypto.Signer, h FrameHeader, batches [][]byte) ([]byte, error) {
	var f Frame
	if err := f.Sign(key, h, batches); err != nil {
		return nil, err
	}
	return f.AppendWire(nil), nil
}

// ParseFrame reads the wire form of a frame.
func ParseFrame(data []byte) (*Frame, error) {
	f := new(Frame)
	if err := f.Parse(data); err != nil {
		return nil, err
	}
	return f, nil
}

// Sign makes f the frame of the batches, signed by key. Sender and Count of the
// header are filled in. A frame may be empty: it moves Covers.
func (f *Frame) Sign(key crypto.Signer, h FrameHeader, batches [][]byte) (err error) {
	if len(batches) > MaxFrameBatches {
		return carnet.Errorf(carnet.TooLarge, "a frame of %d batches, more than %d", len(batches), MaxFrameBatches)
	}
	if _, err := carnet.ParsePartyID(string(h.Audience)); err != nil {
		return err
	}
	if h.Sender, err = signerID(key); err != nil {
		return err
	}
	h.Count = uint32(len(batches))
	f.Header, f.Batches = h, append(f.Batches[:0], batches...)
	size := 4 + maxSign1
	for _, b := range batches {
		if size += 4 + len(b); len(b) == 0 || len(b) > MaxBatch || size > MaxFrame {
			return carnet.Errorf(carnet.TooLarge, "a frame of %d bytes or more, or with an empty batch; want at most %d", size, MaxFrame)
		}
	}
	f.hashBatches()
	var buf [maxProtected]byte
	f.own, f.scratch, err = appendSign1(f.own[:0], f.scratch, key, f.Header.append(buf[:0]), f.Root[:])
	f.Sign1 = f.own
	return err
}

// hashBatches computes Leaves and Root.
func (f *Frame) hashBatches() {
	f.Leaves = f.Leaves[:0]
	for _, b := range f.Batches {
		f.Leaves = append(f.Leaves, carnet.FingerprintOf(b))
	}
	f.Root, f.nodes = rootWith(f.nodes, f.Leaves)
}

// Hash is what the next frame of the link names as Previous: the SHA-256 of
// the exact bytes of Sign1.
func (f *Frame) Hash() carnet.Fingerprint { return carnet.FingerprintOf(f.Sign1) }

// AppendWire appends the wire form of f: the COSE_Sign1, then the batches, each
// with its length before it in four bytes, big-endian.
func (f *Frame) AppendWire(dst []byte) []byte {
	size := 4 + len(f.Sign1)
	for _, b := range f.Batches {
		size += 4 + len(b)
	}
	dst = slices.Grow(dst, size)
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(f.Sign1))), f.Sign1...)
	for _, b := range f.Batches {
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
	}
	return dst
}

// Parse makes f the frame of a wire form, of which its slices are part. It
// checks the form only; Verify checks what the frame says.
func (f *Frame) Parse(data []byte) error {
	f.Batches, f.Leaves, f.Sign1 = f.Batches[:0], f.Leaves[:0], nil
	if len(data) > MaxFrame {
		return carnet.Errorf(carnet.TooLarge, "a frame has %d bytes, more than %d", len(data), MaxFrame)
	}
	sign1, rest, ok := cutPrefixed(data, maxSign1)
	if !ok {
		return malformed("a frame is cut off in its signed header")
	}
	var err error
	if f.Header, f.Root, _, err = parseFrameHeader(sign1); err != nil {
		return err
	}
	for range f.Header.Count {
		var batch []byte
		if batch, rest, ok = cutPrefixed(rest, MaxBatch); !ok || len(batch) == 0 {
			return malformed("frame %d is cut off in batch %d of %d", f.Header.Number, len(f.Batches)+1, f.Header.Count)
		}
		f.Batches = append(f.Batches, batch)
	}
	if len(rest) > 0 {
		return malformed("frame %d has %d bytes behind its %d batches", f.Header.Number, len(rest), f.Header.Count)
	}
	f.Sign1 = sign1
	return nil
}

func cutPrefixed(data []byte, most uint32) (part, rest []byte, ok bool) {
	if len(data) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(data)
	if n > most || uint64(n) > uint64(len(data)-4) {
		return nil, nil, false
	}
	return data[4 : 4+n : 4+n], data[4+n:], true
}

// Verify checks a parsed frame: that it is for audience, that the key pub
// signed it, and that the batches are those that were signed. It hashes all
// batches anew and fills Leaves.
func (f *Frame) Verify(pub ed25519.PublicKey, audience carnet.PartyID) error {
	if f.Header.Audience != audience {
		return carnet.Errorf(carnet.Forbidden, "frame %d is for %q, not for %q", f.Header.Number, f.Header.Audience, audience)
	}
	signedRoot := f.Root
	if f.hashBatches(); f.Root != signedRoot {
		f.Root = signedRoot
		return tampered("frame %d has other batches than its signature says", f.Header.Number)
	}
	s, ok := parseSign1(f.Sign1, len(f.Root))
	if !ok {
		return malformed("a frame's signed header is not in the form of version 1")
	}
	ok, f.scratch = f.Header.signedBy(s, f.scratch, pub)
	if !ok {
		return tampered("frame %d is not signed by the key it is expected from", f.Header.Number)
	}
	return nil
}

// ParseSign1 reads a frame's signed header that is kept apart from its batches,
// with the root. It verifies nothing.
func ParseSign1(sign1 []byte) (FrameHeader, carnet.Fingerprint, error) {
	if len(sign1) > maxSign1 {
		return FrameHeader{}, carnet.Fingerprint{}, carnet.Errorf(carnet.TooLarge, "a frame's signed header has %d bytes, more than %d", len(sign1), maxSign1)
	}
	h, root, _, err := parseFrameHeader(sign1)
	return h, root, err
}

// VerifySign1 checks a frame's signed header that is kept apart from its
// batches, and returns it with the root: with Proof, that proves a batch.
func VerifySign1(sign1 []byte, pub ed25519.PublicKey) (FrameHeader, carnet.Fingerprint, error) {
	h, root, s, err := parseFrameHeader(sign1)
	if err != nil {
		return FrameHeader{}, carnet.Fingerprint{}, err
	}
	if ok, _ := h.signedBy(s, nil, pub); !ok {
		return FrameHeader{}, carnet.Fingerprint{}, tampered("frame %d is not signed by the key it is expected from", h.Number)
	}
	return h, root, nil
}

func (h *FrameHeader) signedBy(s signed, scratch []byte, pub ed25519.PublicKey) (bool, []byte) {
	if KeyID(pub) != h.Sender {
		return false, scratch
	}
	return s.verify(scratch, pub)
}

func (h *FrameHeader) append(dst []byte) []byte {
	dst = appendProtected(dst, 4, h.Sender, typeFrame)
	dst = append(dst, frameOwn...)
	dst = appendText(dst, string(h.Audience))
	dst = appendUint(dst, h.Incarnation)
	dst = appendUint(dst, h.Number)
	dst = appendBytes(dst, h.Previous[:])
	dst = appendUint(dst, uint64(h.Count))
	dst = appendUint(dst, h.Policy)
	dst = appendInt(dst, h.Time)
	return appendBytes(dst, h.Covers[:])
}

func parseFrameHeader(sign1 []byte) (h FrameHeader, root carnet.Fingerprint, s signed, err error) {
	s, ok := parseSign1(sign1, len(root))
	r := reader{b: s.protected}
	h.Sender = r.protected(4, typeFrame)
	r.literal(frameOwn)
	audience, err := carnet.ParsePartyID(string(r.text(32)))
	h.Audience = audience
	h.Incarnation = r.uint(math.MaxUint64)
	h.Number = r.uint(math.MaxUint64)
	r.fixed(h.Previous[:])
	h.Count = uint32(r.uint(MaxFrameBatches))
	h.Policy = r.uint(math.MaxUint64)
	h.Time = r.int()
	r.fixed(h.Covers[:])
	if !ok || err != nil || !r.ended() || copy(root[:], s.payload) != len(root) {
		return FrameHeader{}, root, signed{}, malformed("a frame's signed header is not in the form of version 1")
	}
	return h, root, s, nil
}
