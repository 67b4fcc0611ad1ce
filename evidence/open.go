package evidence

import (
	"encoding/binary"

	"carnet"
	"carnet/seal"
	"carnet/senml"
)

// contents is what a batch holds.
type contents struct {
	first    uint64
	count    uint32
	from, to int64 // measured time; 0 without measurements
}

// opener opens batches, one after the other, and keeps the memory for it.
type opener struct {
	decoder *senml.Decoder
	body    []byte
}

func newOpener() opener {
	return opener{decoder: senml.NewDecoder(senml.Limits{Bytes: seal.MaxBatch, Records: measurementLimit})}
}

// open opens a batch with its own key, commitment first, and reads all that is
// in it.
func (o *opener) open(secret *[hashSize]byte, batch []byte) (h seal.Header, in contents, err error) {
	if h, o.body, err = seal.OpenBatch(secret, o.body[:0], batch); err != nil {
		return h, in, err
	}
	b, err := seal.ParseBody(o.body)
	if err != nil {
		return h, in, err
	}
	n, from, to, err := o.decoder.CheckColumns(b.Content)
	if err != nil {
		return h, in, err
	}
	if n != int(b.Count) {
		return h, in, carnet.Errorf(carnet.Tampered, "the batch holds %d measurements and says %d", n, b.Count)
	}
	if b.First+uint64(b.Count) < b.First {
		return h, in, carnet.Errorf(carnet.Malformed, "the batch's measurements are numbered beyond the end of numbers")
	}
	return h, contents{b.First, b.Count, from, to}, nil
}

// header reads signed headers of frames, one after the other, without their
// signatures. It uses the parser of whole frames, which is the only one that
// takes a header apart without verifying it.
type header struct {
	frame seal.Frame
	wire  []byte
}

// parse gives that parser the header alone, which tells how many batches it
// misses, and then as many of one byte.
func (h *header) parse(sign1 []byte) error {
	h.wire = binary.BigEndian.AppendUint32(h.wire[:0], uint32(len(sign1)))
	h.wire = append(h.wire, sign1...)
	h.frame.Header = seal.FrameHeader{}
	err := h.frame.Parse(h.wire)
	if err == nil || h.frame.Header.Count == 0 {
		return err
	}
	for range h.frame.Header.Count {
		h.wire = append(h.wire, 0, 0, 0, 1, 0)
	}
	return h.frame.Parse(h.wire)
}
