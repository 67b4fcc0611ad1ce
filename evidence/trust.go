package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"carnet"
	"carnet/identity"
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
	// Register is the did:key by which registers know the world, and by which it signs
	// what it deletes. A file from outside says it; what a bundle says of a world doesn't.
	Register string `json:"register,omitempty"`
}

// Sender is a things agent, or a world that shares, which signs frames.
type Sender struct {
	Party    carnet.PartyID `json:"party"`    // as the world knows it
	Audience carnet.PartyID `json:"audience"` // the world, as the sender knows it
	Key      PublicKey      `json:"key"`
	Shares   bool           `json:"shares,omitempty"` // a world: its streams have holes where a share shows nothing
	// World is the key of the world that it sends to. A file of one world needn't say it,
	// and a bundle doesn't: its passages do.
	World PublicKey `json:"world,omitempty"`
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
	// Registrars are did:keys of who decides moves. A bundle's own are those of the commits
	// that are in it.
	Registrars []string `json:"registrars,omitempty"`
	// DPMs compute for worlds. A bundle's own are those of the jobs that are in it.
	DPMs []DPM `json:"dpms,omitempty"`
}

const trustVersion = 1

// ReadTrust reads a file of keys that one trusts.
func ReadTrust(path string) (*Trust, error) {
	data, err := readWithin(path, maxTrust)
	if err != nil {
		return nil, carnet.Errorf(carnet.NotFound, "the trust file %s can't be read: %v", path, err)
	}
	t, err := ParseTrust(data)
	if err != nil {
		return nil, carnet.Errorf(carnet.CodeOf(err), "%s: %v", path, err).WithFix("give a file that 'carnet party trust' wrote")
	}
	return t, nil
}

// readWithin reads a file to its end, or to the first byte beyond the most that one takes:
// whoever names it may not know what it is.
func readWithin(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}

// Join trusts what another file names, too. What each says of senders stays what it
// says of those of its own world.
func (t *Trust) Join(other *Trust) {
	t.Senders = append(t.tied(), other.tied()...)
	t.DPMs = append(t.tiedDPMs(), other.tiedDPMs()...)
	t.Worlds = append(t.Worlds, other.Worlds...)
	t.Ledgers = append(t.Ledgers, other.Ledgers...)
	t.Registrars = append(t.Registrars, other.Registrars...)
}

// tied are the senders, each with the world that it sends to: that of the file, if it
// has one.
func (t *Trust) tied() []Sender {
	all := slices.Clone(t.Senders)
	for i := range all {
		if all[i].World == nil && len(t.Worlds) == 1 {
			all[i].World = t.Worlds[0].Key
		}
	}
	return all
}

// tiedDPMs are the DPMs, each with the world that calls it so.
func (t *Trust) tiedDPMs() []DPM {
	all := slices.Clone(t.DPMs)
	for i := range all {
		if all[i].World == nil && len(t.Worlds) == 1 {
			all[i].World = t.Worlds[0].Key
		}
	}
	return all
}

// Pins checks that a file can be gone by: names of senders are those of one world each,
// so it must be told which.
func (t *Trust) Pins() error {
	if err := t.check(); err != nil {
		return err
	}
	for _, s := range t.tied() {
		if s.World == nil {
			return carnet.Errorf(carnet.Malformed, "the trust file names %d worlds, and doesn't say which of them %s sends to", len(t.Worlds), s.Party).
				WithFix("give the files that 'carnet party trust' wrote, each with a --trust of its own")
		}
	}
	for _, d := range t.tiedDPMs() {
		if d.World == nil {
			return carnet.Errorf(carnet.Malformed, "the trust file names %d worlds, and doesn't say which of them calls a DPM %s", len(t.Worlds), d.Party).
				WithFix("give the files that 'carnet party trust' wrote, each with a --trust of its own")
		}
	}
	return nil
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
		return nil, carnet.Errorf(carnet.TooLarge, "a trust file has more than %d bytes", maxTrust)
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
	if len(t.Worlds) > maxNames || len(t.Senders) > maxNames || len(t.Ledgers) > maxNames || len(t.Registrars) > maxNames || len(t.DPMs) > maxNames {
		return carnet.Errorf(carnet.TooLarge, "a trust file names more than %d parties of one kind", maxNames)
	}
	for _, w := range t.Worlds {
		if err := checkParty(w.Party, w.Key); err != nil {
			return err
		}
		if w.Register != "" {
			if _, err := identity.ParseDID(w.Register); err != nil {
				return carnet.Errorf(carnet.Malformed, "the key by which registers know %s: %v", w.Party, err)
			}
		}
	}
	for _, s := range t.Senders {
		if err := checkParty(s.Party, s.Key); err != nil {
			return err
		}
		if _, err := carnet.ParsePartyID(string(s.Audience)); err != nil {
			return err
		}
		if s.World != nil && !slices.ContainsFunc(t.Worlds, func(w World) bool { return bytes.Equal(w.Key, s.World) }) {
			return carnet.Errorf(carnet.Malformed, "the trust file doesn't name the world that %s sends to", s.Party)
		}
	}
	for _, d := range t.DPMs {
		if err := checkParty(d.Party, d.Key); err != nil {
			return err
		}
		if d.World != nil && !slices.ContainsFunc(t.Worlds, func(w World) bool { return bytes.Equal(w.Key, d.World) }) {
			return carnet.Errorf(carnet.Malformed, "the trust file doesn't name the world that calls a DPM %s", d.Party)
		}
	}
	for _, r := range t.Registrars {
		if _, err := identity.ParseDID(r); err != nil {
			return carnet.Errorf(carnet.Malformed, "a registrar's key: %v", err)
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
	if len(t.Registrars) > 0 {
		return carnet.Errorf(carnet.Malformed, "a bundle's trust section names registrars; its commits do that")
	}
	if slices.ContainsFunc(t.Worlds, func(w World) bool { return w.Register != "" }) {
		return carnet.Errorf(carnet.Malformed, "a bundle's trust section says how registers know a world; a trust file from outside says that")
	}
	if len(t.DPMs) > 0 && version < jobsManifest {
		return carnet.Errorf(carnet.Malformed, "a bundle's trust section names DPMs, and a bundle of its version has no jobs")
	}
	if slices.ContainsFunc(t.DPMs, func(d DPM) bool { return d.World != nil }) {
		return carnet.Errorf(carnet.Malformed, "a bundle's trust section says which world calls a DPM so; it has one that does")
	}
	for i, d := range t.DPMs {
		if dpm(t.DPMs[:i], d.Party) != nil {
			return carnet.Errorf(carnet.Malformed, "a bundle's trust section names the DPM %s twice", d.Party)
		}
	}
	if slices.ContainsFunc(t.Senders, func(s Sender) bool { return s.World != nil }) {
		return carnet.Errorf(carnet.Malformed, "a bundle's trust section says which world a sender sends to; its passages say that")
	}
	return nil
}

func (t *Trust) marshal() ([]byte, error) {
	b, err := json.MarshalIndent(t, "", "  ")
	return append(b, '\n'), err
}

// against compares a bundle's own keys, with the world that each sender sends to, with
// those that pin gives. A party whose key is another is a forgery, and so is a sender
// that sends to another world; one that pin doesn't name can't be told.
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
	senders := pin.tied()
	for _, s := range t.Senders {
		same, named := false, false
		for _, p := range senders {
			here := bytes.Equal(p.World, s.World) // names are each world's own
			same = same || here && p.Party == s.Party && p.Audience == s.Audience && bytes.Equal(p.Key, s.Key) && p.Shares == s.Shares
			// A things agent has another key for each world; a world that shares has one.
			named = named || here && p.Party == s.Party || !here && !p.Shares && bytes.Equal(p.Key, s.Key)
		}
		judge("sender", s.Party, same, named)
	}
	dpms := pin.tiedDPMs()
	for _, d := range t.DPMs {
		same, named := false, false
		for _, p := range dpms {
			here := bytes.Equal(p.World, t.Worlds[0].Key) && p.Party == d.Party
			same, named = same || here && bytes.Equal(p.Key, d.Key), named || here
		}
		judge("DPM", d.Party, same, named)
	}
	for i, l := range t.Ledgers {
		same, named := false, false
		for _, p := range pin.Ledgers {
			same, named = same || p.Party == l.Party && p.Key == l.Key, named || p.Party == l.Party && i == 0
		}
		judge("ledger of", l.Party, same, named)
	}
	for _, r := range t.Registrars {
		if !slices.Contains(pin.Registrars, r) {
			fs = append(fs, Finding{Verdict: Unknown, File: FileManifest, Offset: -1, All: true,
				Text: "the trust file given has no registrar " + r + ", who decided a move; have 'carnet party trust' of a world that its depot knows write it anew"})
		}
	}
	return fs
}

func (s Sender) id() carnet.Fingerprint { return seal.KeyID(ed25519.PublicKey(s.Key)) }
