package evidence

import (
	"bytes"
	"crypto"
	"encoding/json"
	"time"

	"carnet"
)

// Redaction is what a world says that it left out of a stream when that left it with
// its avatar, by the owner's order: what the next home may not have. It signs that with
// the key that it signs bundles with.
type Redaction struct {
	Version  int                `json:"version"` // 1
	World    World              `json:"world"`
	Stream   carnet.StreamID    `json:"stream"`
	Crossing carnet.CrossingID  `json:"crossing"`
	Order    carnet.Fingerprint `json:"order"` // of the order's exact bytes
	Ordered  time.Time          `json:"ordered"`
	Runs     []Run              `json:"runs"`
}

// Run is batches of one retention class and label that were left out: so many, none but
// with numbers From to To.
type Run struct {
	Class        carnet.Retention   `json:"class"`
	Sensitivity  carnet.Sensitivity `json:"sensitivity"`
	Purposes     carnet.Set         `json:"purposes,omitempty"`
	Residency    carnet.Set         `json:"residency,omitempty"`
	From         uint64             `json:"from"`
	To           uint64             `json:"to"`
	Batches      uint64             `json:"batches"`
	Measurements uint64             `json:"measurements"`
	// Closed are those of the batches that couldn't be opened any more, so that their
	// measurements aren't counted.
	Closed uint64 `json:"closed,omitempty"`
}

const (
	redactionType    = "application/vnd.carnet.redaction+cose"
	redactionVersion = 1
	maxRedaction     = 32 << 10
	maxRuns          = 64
	maxRedactions    = 256 // of a stream
)

// Sign returns the signed redaction.
func (r *Redaction) Sign(key crypto.Signer) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return signEnvelope(redactionType, key, payload, maxRedaction)
}

// OpenRedaction reads what Sign makes, in its one form, by the world's key that it
// names: whether that is the world's is for the reader to know.
func OpenRedaction(signed []byte) (*Redaction, error) {
	e, err := openEnvelope(redactionType, signed, maxRedaction)
	if err != nil {
		return nil, err
	}
	r := new(Redaction)
	d := json.NewDecoder(bytes.NewReader(e.payload))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "what a world left out of a stream can't be read: %v", err)
	}
	if again, err := json.Marshal(r); err != nil || !bytes.Equal(again, e.payload) {
		return nil, carnet.Errorf(carnet.Malformed, "what a world left out of a stream is not in its one form")
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if e.kid != keyID(r.World.Key) || !e.verify(r.World.Key) {
		return nil, carnet.Errorf(carnet.Tampered, "what %s left out of stream %s is not signed by its key", r.World.Party, r.Stream)
	}
	return r, nil
}

func (r *Redaction) check() error {
	if r.Version != redactionVersion {
		return carnet.Errorf(carnet.Malformed, "what a world left out of a stream has version %d, this program reads %d", r.Version, redactionVersion)
	}
	if err := checkParty(r.World.Party, r.World.Key); err != nil {
		return err
	}
	if len(r.Runs) == 0 || len(r.Runs) > maxRuns {
		return carnet.Errorf(carnet.Malformed, "%d runs of batches are said to be left out of a stream, want 1 to %d", len(r.Runs), maxRuns)
	}
	for _, run := range r.Runs {
		if run.Class < carnet.Hour || run.Class > carnet.Keep || run.From > run.To || run.Batches == 0 || run.Batches-1 > run.To-run.From || run.Closed > run.Batches {
			return carnet.Errorf(carnet.Malformed, "a run of batches that was left out can't be: %+v", run)
		}
	}
	return nil
}

// LeftOut is what a bundle's streams lack since a world left it out of a move by the
// owner's order, as that world has signed.
type LeftOut struct {
	Stream       carnet.StreamID    `json:"stream"`
	World        carnet.PartyID     `json:"world"`
	Order        carnet.Fingerprint `json:"order"`
	Ordered      time.Time          `json:"ordered"`
	Batches      uint64             `json:"batches"`
	Measurements uint64             `json:"measurements"`
	Closed       uint64             `json:"closed,omitempty"` // batches whose measurements aren't counted
}

// leftOut sums a redaction up.
func (r *Redaction) leftOut() LeftOut {
	l := LeftOut{Stream: r.Stream, World: r.World.Party, Order: r.Order, Ordered: r.Ordered}
	for _, run := range r.Runs {
		l.Batches, l.Measurements, l.Closed = l.Batches+run.Batches, l.Measurements+run.Measurements, l.Closed+run.Closed
	}
	return l
}
