package identity

import (
	"bytes"
	"encoding/json"
	"slices"

	"carnet"
)

// MoveProof is what shows that a move took place: the registrar's decision, and of a
// recovery what it was of, since the passport's crossing isn't the recovery's.
type MoveProof struct {
	Decision string `json:"decision"`
	Recovery string `json:"recovery,omitempty"` // the owner's
	Terms    []byte `json:"terms,omitempty"`    // of the recovery
}

const maxCommit = 512 << 10

// Marshal writes a commit in its one form.
func (c MoveProof) Marshal() ([]byte, error) { return json.Marshal(c) }

// OpenMoveProof reads what Marshal writes.
func OpenMoveProof(data []byte) (c MoveProof, err error) {
	if len(data) > maxCommit {
		return c, carnet.Errorf(carnet.TooLarge, "a commit has %d bytes, more than %d", len(data), maxCommit)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, carnet.Errorf(carnet.Malformed, "a commit can't be read: %v", err)
	}
	if again, err := c.Marshal(); err != nil || !bytes.Equal(again, data) {
		return c, carnet.Errorf(carnet.Malformed, "a commit is not in its one form")
	}
	return c, nil
}

// Of gives the decision, if by it the crossing x took place, which a stream left by, or
// the recovery from the passport x, with the stream as it is said to stand.
func (c MoveProof) Of(x carnet.CrossingID, stands Head) (Decision, error) {
	d, err := OpenDecision(c.Decision)
	if err != nil {
		return d, err
	}
	if d.Outcome != Commit {
		return d, carnet.Errorf(carnet.Conflict, "the registrar didn't commit the crossing %s", d.Crossing)
	}
	if c.Recovery == "" {
		if d.Crossing != x {
			return d, carnet.Errorf(carnet.Conflict, "the registrar committed the crossing %s, and the stream left by %s", d.Crossing, x)
		}
		return d, nil
	}
	o, err := OpenRecovery(c.Recovery)
	if err != nil {
		return d, err
	}
	terms, err := ParseMoveTerms(c.Terms, o)
	if err != nil {
		return d, err
	}
	if d.Of(carnet.FingerprintOf([]byte(c.Recovery))) != Commit || d.Registrar != o.Registrar {
		return d, carnet.Errorf(carnet.Conflict, "the registrar's commit is of another recovery")
	}
	if !slices.Contains(terms.Heads, stands) {
		return d, carnet.Errorf(carnet.Conflict, "the recovery isn't of stream %s up to batch %d", stands.Stream, stands.NextBatch)
	}
	return d, nil
}
