package evidence

import (
	"bytes"
	"crypto"
	"encoding/json"
	"time"

	"carnet"
)

// Passage is what a world says of a stream that it received and that leaves it with
// its avatar: from whom, and on which ledger it stated so. It signs that with the
// key that it signs bundles with, so that the next home can't say something else.
type Passage struct {
	Version int             `json:"version"` // 1 or 2
	World   World           `json:"world"`
	Ledger  Ledger          `json:"ledger"`
	Sender  Sender          `json:"sender"`
	Stream  carnet.StreamID `json:"stream"`
	Next    uint64          `json:"next_batch"`       // where the stream stood
	End     uint64          `json:"next_measurement"` // and its measurements
	Over    []Over          `json:"over,omitempty"`
	// Since version 2: the crossing that it leaves by, or the passport's, and when this was
	// signed. Whether that move took place, the registrar's commit says.
	Crossing carnet.CrossingID `json:"crossing,omitzero"`
	Made     time.Time         `json:"made,omitzero"`
}

// Over says that batches of a retention class were dropped when it ended: none but
// with numbers From to To.
type Over struct {
	Class carnet.Retention `json:"class"`
	From  uint64           `json:"from"`
	To    uint64           `json:"to"`
}

const (
	passageType    = "application/vnd.carnet.passage+cose"
	passageVersion = 2
	maxPassage     = 8 << 10
)

// Sign returns the signed passage.
func (p *Passage) Sign(key crypto.Signer) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return signEnvelope(passageType, key, payload, maxPassage)
}

// OpenPassage reads what Sign makes, in its one form, by the world's key that it
// names: whether that is the world's is for the reader to know.
func OpenPassage(signed []byte) (*Passage, error) {
	e, err := openEnvelope(passageType, signed, maxPassage)
	if err != nil {
		return nil, err
	}
	p := new(Passage)
	d := json.NewDecoder(bytes.NewReader(e.payload))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "what a world says of a stream can't be read: %v", err)
	}
	if again, err := json.Marshal(p); err != nil || !bytes.Equal(again, e.payload) {
		return nil, carnet.Errorf(carnet.Malformed, "what a world says of a stream is not in its one form")
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if e.kid != keyID(p.World.Key) || !e.verify(p.World.Key) {
		return nil, carnet.Errorf(carnet.Tampered, "what %s says of stream %s is not signed by its key", p.World.Party, p.Stream)
	}
	return p, nil
}

func (p *Passage) check() error {
	if p.Version < 1 || p.Version > passageVersion {
		return carnet.Errorf(carnet.Malformed, "what a world says of a stream has version %d, this program reads 1 to %d", p.Version, passageVersion)
	}
	if named := p.Crossing != (carnet.CrossingID{}); named != (p.Version > 1) || p.Made.IsZero() == named {
		return carnet.Errorf(carnet.Malformed, "what a world says of a stream names a crossing and its time since version 2, and not before")
	}
	t := Trust{Version: trustVersion, Worlds: []World{p.World}, Senders: []Sender{p.Sender}, Ledgers: []Ledger{p.Ledger}}
	if err := t.check(); err != nil {
		return err
	}
	if p.World.Register != "" || p.Sender.World != nil {
		return carnet.Errorf(carnet.Malformed, "what a world says of a stream says twice which world that is")
	}
	if p.Sender.Shares {
		return carnet.Errorf(carnet.Malformed, "a stream that came by a share is said to have moved")
	}
	return checkOver(p.Over)
}

func checkOver(all []Over) error {
	for i, o := range all {
		if o.Class < carnet.Hour || o.Class >= carnet.Keep || o.From > o.To || i > 0 && all[i-1].Class >= o.Class {
			return carnet.Errorf(carnet.Malformed, "retention is said to have ended what it can't have")
		}
	}
	return nil
}

// part is a part of a range of numbers.
type part struct {
	Range
	over bool // retention is said to have ended it
}

// parts takes a range apart by what retention is said to have ended.
func parts(r Range, all []Over) (out []part) {
	for at := r.From; ; {
		end, over := r.To, false // of the part that begins at at
		for _, o := range all {
			switch {
			case o.From <= at && at <= o.To:
				if !over || o.To > end {
					end = min(o.To, r.To)
				}
				over = true
			case !over && o.From > at && o.From-1 < end:
				end = o.From - 1
			}
		}
		out = append(out, part{Range{at, end}, over})
		if end >= r.To {
			return out
		}
		at = end + 1
	}
}
