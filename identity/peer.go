package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"carnet"
)

// Peer is what one party shows another: public, exchanged as a file, and pinned
// by who gets it. Whoever exchanges files compares their fingerprints by another
// way.
type Peer struct {
	Party carnet.PartyID     `json:"party"`
	Role  Role               `json:"role"`
	Pin   carnet.Fingerprint `json:"tls_pin"` // SHA-256 of the certificate's SubjectPublicKeyInfo
	Key   ed25519.PublicKey  `json:"signing_key"`

	// Link is where a world takes links, R5 where it takes the calls of other worlds
	// (host:port each), R2 the URL of a depot, as others reach them. Each is empty
	// where the party has none.
	Link string `json:"link,omitempty"`
	R2   string `json:"r2,omitempty"`
	R5   string `json:"r5,omitempty"`

	// Ledger is a depot's ledger, as a C2SP verifier key.
	Ledger string `json:"ledger,omitempty"`

	// Purpose is the word under which a world uses what it gets; Sensitivity and
	// Residency what it may hold and where it keeps it.
	Purpose     string              `json:"purpose,omitempty"`
	Sensitivity *carnet.Sensitivity `json:"sensitivity,omitempty"`
	Residency   []string            `json:"residency,omitempty"`
}

// maxPeerFile bounds a peer file.
const maxPeerFile = 64 << 10

// ParsePeer reads a peer file strictly: unknown members refuse.
func ParsePeer(data []byte) (p Peer, err error) {
	if len(data) > maxPeerFile {
		return p, carnet.Errorf(carnet.TooLarge, "a peer file has %d bytes, at most %d are read", len(data), maxPeerFile)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, carnet.Errorf(carnet.Malformed, "the peer file can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return p, carnet.Errorf(carnet.Malformed, "the peer file goes on after its object")
	}
	return p, p.check()
}

func (p Peer) check() error {
	if _, err := carnet.ParsePartyID(string(p.Party)); err != nil {
		return err
	}
	missing := func(what string) error {
		return carnet.Errorf(carnet.Malformed, "the peer file of %s, a %s, has no %s", p.Party, p.Role, what)
	}
	switch {
	case p.Role != Things && p.Role != World && p.Role != Depot:
		return carnet.Errorf(carnet.Malformed, "the peer file of %s has the role %q: want things, world or depot", p.Party, p.Role)
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
	case p.Role == Depot && (p.R2 == "" || p.Ledger == ""):
		return missing("r2 and ledger")
	}
	return nil
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

// Clearance is what a world may hold.
func (p Peer) Clearance() carnet.Clearance {
	return carnet.Clearance{Sensitivity: *p.Sensitivity, Purposes: carnet.NewSet(p.Purpose), Residency: carnet.NewSet(p.Residency...)}
}

// Words is a short fingerprint of the file for two people to compare: 24 of A-Z
// and 2-7 in groups of four.
func (p Peer) Words() (string, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	text := base32.StdEncoding.EncodeToString(sum[:15])
	var groups []string
	for i := 0; i < len(text); i += 4 {
		groups = append(groups, text[i:i+4])
	}
	return strings.Join(groups, " "), nil
}

// ReadPeer reads a peer file.
func ReadPeer(path string) (Peer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Peer{}, fmt.Errorf("read peer file: %w", err)
	}
	p, err := ParsePeer(data)
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// WritePeer writes a peer file for others to read, replacing one that is there.
func WritePeer(path string, p Peer) error {
	if err := p.check(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write peer file: %w", err)
	}
	return os.Rename(path+".new", path)
}
