package capsule

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"time"
	"unicode"

	"carnet"
	"carnet/engine"
	"carnet/identity"
)

// ModuleInterface is the version of the interface between engines and modules.
const ModuleInterface = 1

// Bounds of a module's record.
const (
	MostReads      = 64
	MaxModuleWord  = 64  // bytes of a name, or of a version
	MaxRevokedWhy  = 200 // bytes of why a module is revoked
	maxReadsLength = 128 // bytes of one property's name
)

// Module is what its publisher signs of a version of a module: its record. The bytes
// are those of the program's fingerprint, wherever they come from.
type Module struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Engine    string    `json:"engine"`    // that runs it
	Interface int       `json:"interface"` // that it is written for
	Program   Content   `json:"program"`
	Reads     []string  `json:"reads,omitempty"` // properties, ascending; none: it takes what it is given
	By        string    `json:"by"`              // the did:key of its publisher
	Made      time.Time `json:"made"`
}

// ID is how people name a version: NAME@VERSION.
func (m Module) ID() string { return m.Name + "@" + m.Version }

// Check holds a record against itself.
func (m Module) Check() error {
	switch {
	case !identity.Words([]string{m.Name}) || len(m.Name) > MaxModuleWord:
		return bad("the module's name is %.80q: want one word of a-z, 0-9 and '-'", m.Name)
	case m.Version == "" || len(m.Version) > MaxModuleWord || strings.Trim(m.Version, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "":
		return bad("the module's version is %.80q: want a word of a-z, 0-9, '-' and '.'", m.Version).WithFix("such as 1.0.2")
	case !identity.Words([]string{m.Engine}):
		return bad("the module's engine is %.40q: want one word", m.Engine)
	case m.Interface != ModuleInterface:
		return bad("the module is written for interface %d, and there is %d", m.Interface, ModuleInterface)
	case m.Program.Size < 1 || m.Program.Size > engine.MostProgram:
		return bad("the module has %d bytes, want 1 to %d", m.Program.Size, engine.MostProgram)
	case len(m.Reads) > MostReads || !slices.Equal(slices.Compact(slices.Sorted(slices.Values(m.Reads))), m.Reads):
		return bad("what the module reads is at most %d properties, ascending, each once", MostReads)
	case !whole(m.Made):
		return bad("the module was made at %s: want whole seconds in UTC", m.Made)
	}
	for _, p := range m.Reads {
		if !line(p, maxReadsLength) {
			return bad("the module reads %.80q, which is no property's name", p)
		}
	}
	_, err := identity.ParseDID(m.By)
	return err
}

// line reports whether a text is one line of 1 to most bytes that can all be shown.
func line(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) })
}

// Sign makes the record's message. By must be the key's.
func (m Module) Sign(key ed25519.PrivateKey) (string, error) {
	if err := m.Check(); err != nil {
		return "", err
	}
	return identity.SignMessage(key, typModule, m)
}

// OpenModule reads a record by the publisher that it names: whom to believe, the
// reader knows.
func OpenModule(text string) (m Module, err error) {
	if err := identity.OpenMessage(text, typModule, &m, func() (ed25519.PublicKey, error) { return identity.ParseDID(m.By) }); err != nil {
		return Module{}, err
	}
	return m, m.Check()
}

// Fits refuses a program that isn't the one of the record.
func (m Module) Fits(engineName string, program Content) error {
	if m.Program != program || m.Engine != engineName {
		return carnet.Errorf(carnet.Tampered, "the program %s of %d bytes for %s isn't the one that is signed as %s", program.Fingerprint, program.Size, engineName, m.ID()).
			WithFix("have the module's publisher sign it as another version")
	}
	return nil
}

// Revocation is a word that a version of a module is to run no more: by its publisher
// for everybody, or by a world for its own jobs. It is for good.
type Revocation struct {
	Module carnet.Fingerprint `json:"module"` // of the record's message
	By     string             `json:"by"`     // the did:key of who revokes
	Why    string             `json:"why"`
	Made   time.Time          `json:"made"`
}

// Check holds a revocation against itself.
func (r Revocation) Check() error {
	switch {
	case r.Module == carnet.Fingerprint{}:
		return bad("the revocation names no module")
	case !line(r.Why, MaxRevokedWhy):
		return bad("why a module is revoked is said on one line of 1 to %d bytes", MaxRevokedWhy)
	case !whole(r.Made):
		return bad("the revocation was made at %s: want whole seconds in UTC", r.Made)
	}
	_, err := identity.ParseDID(r.By)
	return err
}

// Sign makes the revocation's message. By must be the key's.
func (r Revocation) Sign(key ed25519.PrivateKey) (string, error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	return identity.SignMessage(key, typRevocation, r)
}

// OpenRevocation reads a revocation by the key that it names: for whom it counts, the
// reader knows.
func OpenRevocation(text string) (r Revocation, err error) {
	if err := identity.OpenMessage(text, typRevocation, &r, func() (ed25519.PublicKey, error) { return identity.ParseDID(r.By) }); err != nil {
		return Revocation{}, err
	}
	return r, r.Check()
}
