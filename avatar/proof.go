package avatar

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// The proof of a stretch (docs/design/crossing.md):
//
//	"carnet/1 proof" 00
//	u32 batches, u32 frames
//	for each batch in the stretch's order: u32 place of its frame below, u16 its leaf there
//	for each frame in the order received: u32 length, ledger.FrameProof
const (
	proofOpen  = "carnet/1 proof\x00"
	proofHead  = len(proofOpen) + 4 + 4
	proofBatch = 4 + 2
)

// MaxProof bounds the proof of a stretch.
const MaxProof = 128 << 20

// stretchProof is a proof taken apart.
type stretchProof struct {
	batches []byte
	frames  [][]byte
}

func (p *stretchProof) at(batch int) (frame int, leaf int) {
	b := p.batches[batch*proofBatch:]
	return int(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint16(b[4:]))
}

func parseProof(b []byte) (p stretchProof, err error) {
	bad := func(why string) (stretchProof, error) {
		return stretchProof{}, carnet.Errorf(carnet.Malformed, "the proof of a stretch %s", why)
	}
	if len(b) < proofHead || len(b) > MaxProof || string(b[:len(proofOpen)]) != proofOpen {
		return bad("is not in the form of version 1")
	}
	batches, frames := binary.BigEndian.Uint32(b[len(proofOpen):]), binary.BigEndian.Uint32(b[len(proofOpen)+4:])
	b = b[proofHead:]
	if uint64(batches)*proofBatch > uint64(len(b)) || frames > batches {
		return bad("ends before its batches do")
	}
	p.batches, b = b[:int(batches)*proofBatch], b[int(batches)*proofBatch:]
	for range frames {
		if len(b) < 4 {
			return bad("ends before its frames do")
		}
		n := binary.BigEndian.Uint32(b)
		if b = b[4:]; n > ledger.MaxFrameProof || uint64(n) > uint64(len(b)) {
			return bad("ends before its frames do")
		}
		p.frames, b = append(p.frames, b[:n:n]), b[n:]
	}
	if len(b) > 0 {
		return bad("goes on after its frames")
	}
	for i := range int(batches) {
		if frame, _ := p.at(i); frame >= len(p.frames) {
			return bad("names a frame that it doesn't have")
		}
	}
	return p, nil
}

// provenFrame is a frame of a proof that holds.
type provenFrame struct {
	number   uint64
	hash     carnet.Fingerprint
	received int64 // as its receiver stated
}

// prover verifies proofs of one world's streams.
type prover struct {
	of       Origin
	verifier *ledger.Verifier
}

func newProver(of Origin) (*prover, error) {
	key, err := ledger.ParseKey(of.LedgerKey)
	if err != nil {
		return nil, err
	}
	return &prover{of, ledger.NewVerifier(key)}, nil
}

// verify checks that a proof proves batches with these fingerprints: that their
// sender signed frames with them, and the world that received these stated so on
// its ledger. It returns the frames.
func (v *prover) verify(p *stretchProof, batches []carnet.Fingerprint) ([]provenFrame, error) {
	if len(p.batches) != proofBatch*len(batches) {
		return nil, carnet.Errorf(carnet.Tampered, "the proof is of %d batches, and the stretch has %d", len(p.batches)/proofBatch, len(batches))
	}
	of := make([][]int, len(p.frames))
	for i := range batches {
		frame, _ := p.at(i)
		of[frame] = append(of[frame], i)
	}
	frames := make([]provenFrame, len(p.frames))
	var joint seal.Joint
	var proof ledger.FrameProof
	for i := range p.frames {
		if !proof.Parse(p.frames[i]) {
			return nil, carnet.Errorf(carnet.Malformed, "the proof of a frame can't be taken apart")
		}
		h, root, err := seal.ParseSign1(proof.Sign1)
		if err != nil {
			return nil, err
		}
		joint.Begin()
		for _, b := range of[i] {
			_, leaf := p.at(b)
			joint.Add(leaf, batches[b])
		}
		if is, ok := joint.Root(int(h.Count), proof.Path); !ok || is != root {
			return nil, carnet.Errorf(carnet.Tampered, "the batches aren't those of frame %d, which %s signed", h.Number, v.of.Sender)
		}
		if frames[i], err = v.frame(&h, root, &proof); err != nil {
			return nil, err
		}
		if i > 0 && frames[i-1].number >= h.Number {
			return nil, carnet.Errorf(carnet.Tampered, "frame %d of %s comes after frame %d", h.Number, v.of.Sender, frames[i-1].number)
		}
	}
	return frames, nil
}

// frame checks what was stated of a frame, and that it is on the ledger.
func (v *prover) frame(h *seal.FrameHeader, root carnet.Fingerprint, p *ledger.FrameProof) (f provenFrame, err error) {
	f = provenFrame{number: h.Number, hash: carnet.FingerprintOf(p.Sign1)}
	s, err := ledger.ParseStatement(p.Statement)
	if err != nil {
		return f, err
	}
	f.received = s.Time
	if _, _, err := seal.VerifySign1(p.Sign1, ed25519.PublicKey(v.of.Key)); err != nil {
		return f, err
	}
	switch {
	case h.Audience != v.of.Audience:
		return f, carnet.Errorf(carnet.Tampered, "frame %d of %s is for %s, not for %s", h.Number, v.of.Sender, h.Audience, v.of.Audience)
	case s.Kind != ledger.ReceivedRoot || s.Who != v.of.World || s.Peer != v.of.Sender || s.Frame != h.Number || s.Root != root || s.Header != f.hash || s.PolicyVersion != h.Policy:
		return f, carnet.Errorf(carnet.Tampered, "what is stated of frame %d of %s is not %s's word that it received it", h.Number, v.of.Sender, v.of.World)
	}
	receipt, err := ledger.ParseReceipt(p.Receipt)
	if err != nil {
		return f, err
	}
	_, err = v.verifier.Verify(ledger.EntryOf(p.Salt, p.Statement), receipt)
	return f, err
}

// keptProof returns the proof of a stretch that came with a move.
func (a *Agent) keptProof(ctx context.Context, f carnet.Fingerprint, stream carnet.StreamID) ([]byte, error) {
	d, err := a.store.Document(ctx, kindProof, proofID(stream, f))
	if err != nil {
		return nil, err
	}
	return a.rest.Open(nil, documentAAD(d.Kind, d.ID), d.Body)
}

// proofDocument makes the document that keeps the proof of a stretch.
func (a *Agent) proofDocument(stream carnet.StreamID, f carnet.Fingerprint, proof []byte) (carnet.Document, error) {
	d := carnet.Document{Kind: kindProof, ID: proofID(stream, f), Version: 1}
	var err error
	d.Body, err = a.rest.Seal(nil, documentAAD(d.Kind, d.ID), proof)
	return d, err
}

// proofID names the proof of a stretch, by its stream's id in the store.
func proofID(stream carnet.StreamID, f carnet.Fingerprint) string {
	return stream.String() + "/" + f.String()
}
