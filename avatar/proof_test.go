package avatar

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"testing"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/seal"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

// A frame that its receiver made up isn't proved by the sender's next one, which names it
// since the receiver said that it had it.
func TestAFrameThatItsSuccessorNamesIsNotProvedByThat(t *testing.T) {
	hub, forger := newKey(1), newKey(2)
	depot, err := ledger.NewSigner("vault.example/ledger", newKey(3))
	if err != nil {
		t.Fatal(err)
	}
	v, err := newProver(Origin{World: "arena", Ledger: "vault", LedgerKey: depot.Key().String(), Sender: "hub", Audience: "arena", Key: hub.Public().(ed25519.PublicKey)})
	if err != nil {
		t.Fatal(err)
	}
	prove := func(signers ...ed25519.PrivateKey) error {
		id := carnet.NewStreamID()
		slot, err := seal.NewEpoch(id).Slot(1)
		if err != nil {
			t.Fatal(err)
		}
		var p stretchProof
		var proofs []ledger.FrameProof
		var entries, batches []carnet.Fingerprint
		var last carnet.Fingerprint
		for i, signer := range signers {
			b, err := slot.Seal(nil, uint64(i), make([]byte, 64))
			if err != nil {
				t.Fatal(err)
			}
			var f seal.Frame
			if err := f.Sign(signer, seal.FrameHeader{Audience: "arena", Incarnation: 1, Number: uint64(i + 1), Previous: last, Time: time.Now().UnixNano()}, [][]byte{b}); err != nil {
				t.Fatal(err)
			}
			by, is := seal.KeyID(signer.Public().(ed25519.PublicKey)), seal.KeyID(hub.Public().(ed25519.PublicKey))
			sign1 := bytes.Replace(f.Sign1, by[:], is[:], 1) // whoever made it, it says that it is hub's
			last = carnet.FingerprintOf(sign1)
			s := ledger.Statement{Kind: ledger.ReceivedRoot, Who: "arena", Peer: "hub", Frame: uint64(i + 1), Root: f.Root, Header: last, Time: time.Now().UnixNano()}
			one := ledger.FrameProof{Sign1: sign1, Salt: ledger.NewSalt()}
			if one.Statement, err = s.Marshal(); err != nil {
				t.Fatal(err)
			}
			proofs, batches = append(proofs, one), append(batches, carnet.FingerprintOf(b))
			entries = append(entries, carnet.Fingerprint(ledger.EntryOf(one.Salt, one.Statement)))
			p.batches = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(p.batches, uint32(i)), 0)
		}
		root := seal.Root(entries)
		signed, err := note.Sign(&note.Note{Text: string(log.Checkpoint{Origin: depot.Name(), Size: uint64(len(entries)), Hash: root[:]}.Marshal())}, depot)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := depot.SignRoot(root)
		if err != nil {
			t.Fatal(err)
		}
		for i := range proofs {
			r := ledger.Receipt{Index: uint64(i), Checkpoint: signed, Signature: sig}
			for _, h := range seal.Proof(entries, i) {
				r.Path = append(r.Path, h)
			}
			proofs[i].Receipt = r.Marshal()
			p.frames = append(p.frames, proofs[i].Append(nil))
		}
		_, err = v.verify(&p, batches)
		return err
	}
	if err := prove(hub, hub, hub); err != nil {
		t.Fatalf("what hub signed: %v", err)
	}
	if err := prove(hub, forger, hub); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("with a frame that was made up: %v", err)
	}
}

func newKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}
