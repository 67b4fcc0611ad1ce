package ledger

import (
	"encoding/binary"

	"carnet"
)

// FrameProof is what proves a received frame beside its batches: its signed
// header, what the receiver stated of it, the statement's salt and receipt, and
// the joint path from some of its batches to its root (seal.Joint). In bytes
//
//	u16 n, signed header; u16 n, statement; 32 bytes salt; u16 n, receipt;
//	hashes of 32 bytes to the end
//
// A receipt of no bytes is pending.
type FrameProof struct {
	Sign1, Statement []byte
	Salt             Salt
	Receipt          []byte
	Path             []carnet.Fingerprint
}

const proofHash = 32 // bytes

// MaxFrameProof bounds the bytes of a proof: three parts, and less hashes than
// leaves.
const MaxFrameProof = 3*(2+1<<16) + proofHash + proofHash*4096

// Append appends the proof's bytes.
func (p *FrameProof) Append(b []byte) []byte {
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(p.Sign1))), p.Sign1...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(p.Statement))), p.Statement...)
	b = append(b, p.Salt[:]...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(p.Receipt))), p.Receipt...)
	for i := range p.Path {
		b = append(b, p.Path[i][:]...)
	}
	return b
}

// Parse takes a proof apart; its slices are part of b but for the path, whose
// memory is used again.
func (p *FrameProof) Parse(b []byte) bool {
	var ok1, ok2, ok3 bool
	p.Sign1, b, ok1 = cutProof(b)
	p.Statement, b, ok2 = cutProof(b)
	if !ok1 || !ok2 || len(b) < proofHash {
		return false
	}
	p.Salt, b = Salt(b[:proofHash]), b[proofHash:]
	p.Receipt, b, ok3 = cutProof(b)
	if !ok3 || len(b)%proofHash != 0 {
		return false
	}
	p.Path = p.Path[:0]
	for ; len(b) > 0; b = b[proofHash:] {
		p.Path = append(p.Path, carnet.Fingerprint(b[:proofHash]))
	}
	return true
}

func cutProof(b []byte) (part, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n > len(b) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
