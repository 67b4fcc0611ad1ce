package evidence

import (
	"crypto"

	"carnet"
)

// What other bundles than a Source's have in common with it: what a world signs, the
// keys that one trusts, and a report.

// SignAs signs a payload of a type, whose name has 24 to 200 bytes, in the form that
// manifests have.
func SignAs(typ string, key crypto.Signer, payload []byte, limit int) ([]byte, error) {
	return signEnvelope(typ, key, payload, limit)
}

// Signed is something signed, taken apart. Who signed it is for By to say.
type Signed struct{ envelope *envelope }

// OpenAs takes something signed of a type apart.
func OpenAs(typ string, signed []byte, limit int) (Signed, error) {
	e, err := openEnvelope(typ, signed, limit)
	return Signed{e}, err
}

// Payload is what was signed.
func (s Signed) Payload() []byte { return s.envelope.payload }

// By reports whether a key signed it.
func (s Signed) By(key PublicKey) bool { return s.envelope.kid == keyID(key) && s.envelope.verify(key) }

// Add adds findings, which make the verdict.
func (r *Report) Add(findings ...Finding) { r.add(findings...) }

// Named reports whether a finding names a file.
func (r *Report) Named(file string) bool { return r.named(file) }

// Against lists what of a bundle's keys another file of keys lacks.
func (t *Trust) Against(other *Trust) []Finding { return t.against(other) }

// PassportOf says of a verified passport what it is beside evidence.
type PassportOf struct {
	Passport carnet.CrossingID `json:"passport"`
	Source   string            `json:"source"` // did:key of the home, as the register knows it
	Home     carnet.HomeID     `json:"home"`
	Owner    string            `json:"owner"`
	Readers  []carnet.PartyID  `json:"readers"` // for whom keys are in it
	Bags     int               `json:"bags"`
	Farewell bool              `json:"farewell"`
	// Items are those that the avatar had, Grants how many were in force, Policy the version
	// of its owner's policy; 0: there is none.
	Items  []PassportItem `json:"items,omitempty"`
	Grants int            `json:"grants,omitempty"`
	Policy uint64         `json:"policy,omitempty"`
}

// PassportItem is an item of a passport's avatar, whose chain was verified.
type PassportItem struct {
	Item    carnet.ItemID `json:"item"`
	Kind    string        `json:"kind"`
	Title   string        `json:"title"`
	Issuer  string        `json:"issuer"` // did:key
	Entries int           `json:"entries"`
	// Receipts: the registrar's words in the chain are on a ledger that is known, too;
	// otherwise its signature stands alone.
	Receipts bool `json:"receipts"`
}
