package depot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// Erasing is what a party asks the depot to delete by an erasure, and to sign for
// (docs/design/erasure.md).
type Erasing struct {
	Erasure carnet.ErasureID     `json:"erasure"`
	Order   carnet.Fingerprint   `json:"order"` // hash of the owner's
	Objects []carnet.Fingerprint `json:"objects"`
}

// MaxErasing is how many objects are deleted by one request.
const MaxErasing = 16384

// ErasingAnswer has the depot's deletion, a compact JWS.
type ErasingAnswer struct {
	Deletion string `json:"deletion"`
}

// Erase deletes an owner's objects, and signs that none of them is stored for it any
// more. What isn't there is as good as deleted, so it may be asked again.
func (a *Agent) Erase(ctx context.Context, owner carnet.PartyID, q Erasing) (deletion string, err error) {
	if a.cfg.Key == nil {
		return "", carnet.Errorf(carnet.Unavailable, "this depot signs no deletions")
	}
	if len(q.Objects) > MaxErasing {
		return "", carnet.Errorf(carnet.TooLarge, "%d objects are to be erased at once, at most %d are", len(q.Objects), MaxErasing)
	}
	for _, f := range q.Objects {
		if err := a.Delete(ctx, owner, f); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return "", err
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	deletion, err = identity.SignDeletion(a.cfg.Key, identity.Deletion{
		Erasure: q.Erasure, Order: q.Order, By: identity.DID(a.cfg.Key.Public().(ed25519.PublicKey)), Role: identity.DeletedAtDepot,
		Objects: uint64(len(q.Objects)), Unreadable: now, Unrecoverable: now.Add(a.cfg.Backups),
	})
	if err != nil || a.cfg.State == nil {
		return deletion, err
	}
	return deletion, a.cfg.State(ctx, ledger.Statement{
		Kind: ledger.Erased, Time: time.Now().UnixNano(), Peer: owner, Object: carnet.FingerprintOf([]byte(deletion)),
	})
}

func (s *server) erase(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	const most = 128 + 70*MaxErasing
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return readFailure(err)
	}
	var q Erasing
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return carnet.Errorf(carnet.Malformed, "what is to be erased can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return carnet.Errorf(carnet.Malformed, "what is to be erased goes on after its object")
	}
	if q.Erasure == (carnet.ErasureID{}) || q.Objects == nil {
		return carnet.Errorf(carnet.Malformed, "no erasure or no list of objects is named")
	}
	deletion, err := s.agent.Erase(r.Context(), who, q)
	if err != nil {
		return err
	}
	return answerJSON(w, ErasingAnswer{deletion})
}

// Erase has the depot delete objects of this party, and returns its deletion,
// unverified.
func (c *Client) Erase(ctx context.Context, q Erasing) (deletion string, err error) {
	question, err := json.Marshal(q)
	if err != nil {
		return "", err
	}
	body, err := c.do(ctx, http.MethodPost, "deletions", typeJSON, "", question, maxShort)
	if err != nil {
		return "", fmt.Errorf("erase objects: %w", err)
	}
	var answer ErasingAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", carnet.Errorf(carnet.Malformed, "the depot's deletion can't be read: %v", err)
	}
	return answer.Deletion, nil
}
