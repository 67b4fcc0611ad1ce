package identity

import (
	"crypto/ed25519"

	"carnet"
)

// Onward is a things agent's word that it goes on at the target of a move with what
// it sent to the source: by the key that signed its frames there, which the target
// has from the manifest. Order and terms alone would let anybody in who saw them.
type Onward struct {
	Crossing carnet.CrossingID `json:"crossing"`
	Sender   string            `json:"sender"` // did:key of who signed the frames to the source
	Target   string            `json:"target"`
	Former   carnet.StreamID   `json:"former"` // at the source
	Stream   carnet.StreamID   `json:"stream"` // at the target
}

const onwardType = "carnet-onward+jwt"

// SignOnward signs an agent's word with the key that it names as its sender's.
func SignOnward(key ed25519.PrivateKey, o Onward) (string, error) {
	return signAs(key, onwardType, o.Sender, o, o.check())
}

// OpenOnward reads an agent's word, by the sender that it names.
func OpenOnward(token string) (Onward, error) {
	return openAs(token, onwardType, func(o *Onward) string { return o.Sender }, Onward.check)
}

func (o Onward) check() error { return dids(o.Sender, o.Target) }
