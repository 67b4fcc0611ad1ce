package identity

import (
	"crypto/ed25519"
	"strings"

	"carnet"
)

// Peer is what one party shows another, its peer file: public, part of the terms
// that both accept, and pinned by who gets it.
type Peer struct {
	Party carnet.PartyID     `json:"party"`
	Role  Role               `json:"role"`
	Pin   carnet.Fingerprint `json:"tls_pin"` // SHA-256 of the certificate's SubjectPublicKeyInfo
	Key   ed25519.PublicKey  `json:"signing_key"`

	// Link is where a world takes links, R5 where it takes the calls of other worlds
	// (host:port each), R2 the URL of a depot, R6 that of a DPM, as others reach them.
	// Each is empty where the party has none.
	Link string `json:"link,omitempty"`
	R2   string `json:"r2,omitempty"`
	R5   string `json:"r5,omitempty"`
	R6   string `json:"r6,omitempty"`

	// Ledger is a depot's ledger, as a C2SP verifier key; Registrar the did:key of the
	// registrar that it is, empty if it keeps no register.
	Ledger    string `json:"ledger,omitempty"`
	Registrar string `json:"registrar,omitempty"`

	// Purpose is the word under which a world uses what it gets; Sensitivity and
	// Residency what a world or a DPM may hold and where it keeps it. What a DPM uses
	// data for is what the terms say.
	Purpose     string              `json:"purpose,omitempty"`
	Sensitivity *carnet.Sensitivity `json:"sensitivity,omitempty"`
	Residency   []string            `json:"residency,omitempty"`
}

// Check refuses a peer file that lacks what its role needs.
func (p Peer) Check() error {
	if _, err := carnet.ParsePartyID(string(p.Party)); err != nil {
		return err
	}
	missing := func(what string) error {
		return carnet.Errorf(carnet.Malformed, "the peer file of %s, a %s, has no %s", p.Party, p.Role, what)
	}
	switch {
	case p.Role != Things && p.Role != World && p.Role != Depot && p.Role != DPM:
		return carnet.Errorf(carnet.Malformed, "the peer file of %s has the role %q: want things, world, depot or dpm", p.Party, p.Role)
	case p.Pin == carnet.Fingerprint{}:
		return missing("tls_pin")
	case len(p.Key) != ed25519.PublicKeySize:
		return missing("signing_key of 32 bytes")
	case p.Role == World && p.Link == "":
		return missing("link")
	case p.Role == World && (p.Purpose == "" || p.Sensitivity == nil):
		return missing("purpose and sensitivity")
	case p.Role == World && !Words(append([]string{p.Purpose}, p.Residency...)):
		return carnet.Errorf(carnet.Malformed, "the peer file of %s has a purpose or a residency that is not a word of a-z, 0-9 and '-'", p.Party)
	case p.Role != World && p.R5 != "":
		return carnet.Errorf(carnet.Malformed, "the peer file of %s has r5, which only worlds have, and it is a %s", p.Party, p.Role)
	case p.Role == DPM && (p.R6 == "" || p.Sensitivity == nil):
		return missing("r6 and sensitivity")
	case p.Role == DPM && (p.Purpose != "" || !Words(p.Residency)):
		return carnet.Errorf(carnet.Malformed, "the peer file of %s, a DPM, has a purpose, or a residency that is not a word of a-z, 0-9 and '-'", p.Party)
	case p.Role != DPM && p.R6 != "":
		return carnet.Errorf(carnet.Malformed, "the peer file of %s has r6, which only DPMs have, and it is a %s", p.Party, p.Role)
	case p.Role == Depot && (p.R2 == "" || p.Ledger == ""):
		return missing("r2 and ledger")
	case p.Role != Depot && p.Registrar != "":
		return carnet.Errorf(carnet.Malformed, "the peer file of %s has a registrar, which only depots are, and it is a %s", p.Party, p.Role)
	}
	if p.Registrar == "" {
		return nil
	}
	_, err := ParseDID(p.Registrar)
	return err
}

// Words reports whether each is a word as labels have them: a-z, 0-9 and '-',
// beginning with a letter or digit.
func Words(all []string) bool {
	for _, w := range all {
		if w == "" || w[0] == '-' || strings.Trim(w, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// Clearance is what a world or a DPM may hold; of a DPM without purposes.
func (p Peer) Clearance() carnet.Clearance {
	c := carnet.Clearance{Sensitivity: *p.Sensitivity, Residency: carnet.NewSet(p.Residency...)}
	if p.Purpose != "" {
		c.Purposes = carnet.NewSet(p.Purpose)
	}
	return c
}
