package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// PublicKey is an Ed25519 key, in JSON 64 hexadecimal digits.
type PublicKey ed25519.PublicKey

// MarshalText and UnmarshalText use lower-case hexadecimal digits.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(k)), nil }
func (k *PublicKey) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return carnet.Errorf(carnet.Malformed, "a public key has %d characters, want 64 hexadecimal digits", len(text))
	}
	*k = raw
	return nil
}

// World is a world that signs bundles.
type World struct {
	Party carnet.PartyID `json:"party"`
	Key   PublicKey      `json:"key"`
}

// Sender is a things agent, or a world that shares, which signs frames.
type Sender struct {
	Party    carnet.PartyID `json:"party"`    // as the world knows it
	Audience carnet.PartyID `json:"audience"` // the world, as the sender knows it
	Key      PublicKey      `json:"key"`
	Shares   bool           `json:"shares,omitempty"` // a world: its streams have holes where a share shows nothing
}

// Ledger is a ledger that receipts are of.
type Ledger struct {
	Party carnet.PartyID `json:"party"` // the depot that keeps it
	Key   string         `json:"key"`   // C2SP verifier key: origin+hash+key
}

// Trust names public keys and whose they are. A bundle's trust.json has its
// world, its ledger and the senders of its frames, and then the worlds and ledgers that
// the avatar was at before; a file given from outside
// may have as many as one trusts.
type Trust struct {
	Version int      `json:"version"` // 1
	Worlds  []World  `json:"worlds"`
	Senders []Sender `json:"senders"`
	Ledgers []Ledger `json:"ledgers"`
}

const trustVersion = 1

// ReadTrust reads a file of keys that one trusts.
func ReadTrust(path string) (*Trust, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, carnet.Errorf(carnet.NotFound, "the trust file %s can't be read: %v", path, err)
	}
	t, err := ParseTrust(data)
	if err != nil {
		return nil, carnet.Errorf(carnet.CodeOf(err), "%s: %v", path, err).WithFix("give a file that 'carnet party trust' wrote")
	}
	return t, nil
}

// Join trusts what another file names, too.
func (t *Trust) Join(other *Trust) {
	t.Worlds = append(t.Worlds, other.Worlds...)
	t.Senders = append(t.Senders, other.Senders...)
	t.Ledgers = append(t.Ledgers, other.Ledgers...)
}

// Write writes the trust to a new file.
func (t *Trust) Write(path string) error {
	if err := t.check(); err != nil {
		return err
	}
	data, err := t.marshal()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return carnet.Errorf(carnet.Conflict, "%s is there already", path).WithFix("name another file")
	}
	if err != nil {
		return fmt.Errorf("write trust file: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// ParseTrust reads the JSON form of Trust, and refuses fields it doesn't know.
func ParseTrust(data []byte) (*Trust, error) {
	if len(data) > maxTrust {
		return nil, carnet.Errorf(carnet.TooLarge, "a trust file has %d bytes, more than %d", len(data), maxTrust)
	}
	var t Trust
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "a trust file can't be read: %v", err)
	}
	if rest := bytes.TrimSpace(data[d.InputOffset():]); len(rest) > 0 {
		return nil, carnet.Errorf(carnet.Malformed, "a trust file has %d bytes behind its end", len(rest))
	}
	return &t, t.check()
}

func (t *Trust) check() error {
	if t.Version != trustVersion {
		return carnet.Errorf(carnet.Malformed, "a trust file has version %d, this program reads %d", t.Version, trustVersion)
	}
	if len(t.Worlds) > maxNames || len(t.Senders) > maxNames || len(t.Ledgers) > maxNames {
		return carnet.Errorf(carnet.TooLarge, "a trust file names more than %d parties of one kind", maxNames)
	}
	for _, w := range t.Worlds {
		if err := checkParty(w.Party, w.Key); err != nil {
			return err
		}
	}
	for _, s := range t.Senders {
		if err := checkParty(s.Party, s.Key); err != nil {
			return err
		}
		if _, err := carnet.ParsePartyID(string(s.Audience)); err != nil {
			return err
		}
	}
	for _, l := range t.Ledgers {
		if _, err := carnet.ParsePartyID(string(l.Party)); err != nil {
			return err
		}
		if _, err := ledger.ParseKey(l.Key); err != nil {
			return err
		}
	}
	return nil
}

func checkParty(p carnet.PartyID, k PublicKey) error {
	if _, err := carnet.ParsePartyID(string(p)); err != nil {
		return err
	}
	if len(k) != ed25519.PublicKeySize {
		return carnet.Errorf(carnet.Malformed, "the key of %s has %d bytes, want %d", p, len(k), ed25519.PublicKeySize)
	}
	return nil
}

// bundled checks that t is what a bundle has: one world and one ledger, and, since
// version 2, those of former worlds after them.
func (t *Trust) bundled(version int) error {
	if err := t.check(); err != nil {
		return err
	}
	if len(t.Worlds) == 0 || len(t.Ledgers) == 0 || version < 2 && (len(t.Worlds) > 1 || len(t.Ledgers) > 1) {
		return carnet.Errorf(carnet.Malformed, "a bundle's trust section names one world and one ledger, not %d and %d", len(t.Worlds), len(t.Ledgers))
	}
	return nil
}

func (t *Trust) marshal() ([]byte, error) {
	b, err := json.MarshalIndent(t, "", "  ")
	return append(b, '\n'), err
}

// against compares a bundle's own keys with those that pin gives. A party whose
// key is another is a forgery; one that pin doesn't name can't be told.
func (t *Trust) against(pin *Trust) (fs []Finding) {
	judge := func(role string, party carnet.PartyID, same, named bool) {
		f := Finding{Verdict: Unknown, File: FileTrust, Offset: -1, All: true,
			Text: "the trust file given has no key of the " + role + " " + string(party) + "; add it, or ask somebody you trust for it"}
		if named {
			f.Verdict = False
			f.Text = "the bundle's key of the " + role + " " + string(party) + " is not the one in the trust file given"
		}
		if !same {
			fs = append(fs, f)
		}
	}
	for _, w := range t.Worlds {
		same, named := false, false
		for _, p := range pin.Worlds {
			same, named = same || p.Party == w.Party && bytes.Equal(p.Key, w.Key), named || p.Party == w.Party
		}
		judge("world", w.Party, same, named)
	}
	moved := len(t.Worlds) > 1 // names are each world's own: a former one's aren't this one's
	for _, s := range t.Senders {
		same, named := false, false
		for _, p := range pin.Senders {
			same = same || p.Party == s.Party && p.Audience == s.Audience && bytes.Equal(p.Key, s.Key) && p.Shares == s.Shares
			named = named || p.Party == s.Party && (!moved || p.Audience == s.Audience)
		}
		judge("sender", s.Party, same, named)
	}
	for i, l := range t.Ledgers {
		same, named := false, false
		for _, p := range pin.Ledgers {
			same, named = same || p.Party == l.Party && p.Key == l.Key, named || p.Party == l.Party && i == 0
		}
		judge("ledger of", l.Party, same, named)
	}
	return fs
}

func (s Sender) id() carnet.Fingerprint { return seal.KeyID(ed25519.PublicKey(s.Key)) }
