package avatar

import (
	"sync"

	"carnet"
	"carnet/seal"
)

// StretchVerifier verifies stretches by their proofs. It needs no world: what it goes
// by is the stretch as it is listed, and the origin of its stream. The zero value is
// ready; many goroutines may use it.
type StretchVerifier struct {
	mu      sync.Mutex
	provers map[carnet.StreamID]*prover // guarded by mu
}

func (v *StretchVerifier) prover(stream carnet.StreamID, from *Origin) (*prover, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if by := v.provers[stream]; by != nil {
		return by, nil
	}
	by, err := newProver(*from)
	if err != nil {
		return nil, err
	}
	if v.provers == nil {
		v.provers = make(map[carnet.StreamID]*prover)
	}
	v.provers[stream] = by
	return by, nil
}

// VerifiedStretch is what a stretch holds that was verified.
type VerifiedStretch struct {
	Headers []seal.Header // of its batches, in order
	Frames  []uint64      // numbers of the frames that they came in, ascending

	origins origins
}

// Verify checks a stretch's bytes by its proof: by their fingerprint; that every batch
// is of the stream and in order, and as many as listed; that each is in a frame which
// the sender signed, and which the stream's world stated to have received, on its
// ledger, when the listing says. What is inside of the batches isn't looked at.
func (v *StretchVerifier) Verify(m *MovedStretch, from *Origin, body, proof []byte) (is VerifiedStretch, err error) {
	bad := func(format string, args ...any) (VerifiedStretch, error) {
		return VerifiedStretch{}, carnet.Errorf(carnet.Tampered, "stretch %s of stream %s "+format, append([]any{m.Fingerprint, m.Stream}, args...)...)
	}
	if len(body) != m.Size || carnet.FingerprintOf(body) != m.Fingerprint {
		return bad("has other bytes than its fingerprint says")
	}
	p, err := parseProof(proof)
	if err != nil {
		return is, err
	}
	is.origins = origins{first: m.FirstNumber, next: m.NextNumber}
	var prints []carnet.Fingerprint
	err = eachBatch(body, func(_, from, to int) error {
		h, _, err := seal.ParseHeader(body[from:to])
		if err != nil {
			return err
		}
		if n := len(is.Headers); h.Stream != m.Stream || n > 0 && h.Number <= is.Headers[n-1].Number {
			return carnet.Errorf(carnet.Tampered, "batch %d of stream %s is out of its place", h.Number, h.Stream)
		}
		is.Headers, prints = append(is.Headers, h), append(prints, carnet.FingerprintOf(body[from:to]))
		return nil
	})
	if err != nil {
		return VerifiedStretch{}, err
	}
	if n := len(is.Headers); n != int(m.Batches) || is.Headers[0].Number != m.First || is.Headers[n-1].Number != m.Last {
		return bad("has other batches than it is said to have")
	}
	by, err := v.prover(m.Stream, from)
	if err != nil {
		return VerifiedStretch{}, err
	}
	frames, err := by.verify(&p, prints)
	if err != nil {
		return VerifiedStretch{}, err
	}
	received := int64(0)
	for i := range frames {
		received, is.Frames = max(received, frames[i].received), append(is.Frames, frames[i].number)
	}
	if received != m.Received {
		return bad("was received at another time than it is said")
	}
	for i, h := range is.Headers {
		frame, leaf := p.at(i)
		is.origins.batches = append(is.origins.batches, origin{h.Number, uint64(frame), uint32(leaf)})
	}
	return is, nil
}
