package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/identity"
)

// ErasureFile is the one file of a bundle that proves an erasure.
const ErasureFile = "erasure.json"

// ErasureBundle proves an erasure: the owner's order, what everybody signed who had something,
// and the home's word, by the key of its evidence, on who that is.
type ErasureBundle struct {
	Version   int      `json:"version"` // 1
	Order     string   `json:"order"`
	Deletions []string `json:"deletions"`
	Word      string   `json:"word"` // ErasureWord, signed
}

// ErasureWord is what the home says of an erasure.
type ErasureWord struct {
	World   carnet.PartyID     `json:"world"`
	By      string             `json:"by"` // did:key of its evidence
	Made    time.Time          `json:"made"`
	Order   carnet.Fingerprint `json:"order"`
	Parties []ErasureParty     `json:"parties"`
	// Waiting are those who haven't signed.
	Waiting []string `json:"waiting"`
}

// ErasureParty is somebody who had something of what was erased.
type ErasureParty struct {
	Party carnet.PartyID        `json:"party"` // as the home calls it
	Key   string                `json:"key"`   // did:key
	Role  identity.DeletionRole `json:"role"`
	Of    string                `json:"of,omitempty"`
	// Through says by way of whom it was told; empty: the home told it.
	Through carnet.PartyID `json:"through,omitempty"`
}

const erasureWordType = "carnet-erased+jwt"

// SignErasure makes the bundle, with the home's evidence key.
func SignErasure(key ed25519.PrivateKey, order string, deletions []string, w ErasureWord) (e ErasureBundle, err error) {
	w.By, w.Order = identity.DID(key.Public().(ed25519.PublicKey)), carnet.FingerprintOf([]byte(order))
	w.Made = w.Made.UTC().Truncate(time.Second)
	e = ErasureBundle{Version: 1, Order: order, Deletions: deletions}
	e.Word, err = identity.SignMessage(key, erasureWordType, w)
	return e, err
}

// Write writes the bundle's file.
func (e ErasureBundle) Write(path string) error {
	data, err := e.marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func (e ErasureBundle) marshal() ([]byte, error) {
	data, err := json.MarshalIndent(e, "", "  ")
	return append(data, '\n'), err
}

// maxErasure bounds the file of a bundle.
const maxErasure = 16 << 20

// VerifyErasure verifies a directory with a bundle that proves an erasure, offline: true if
// everybody has signed whom the home names, false if something doesn't hold or another file
// is beside it, and it can't be told while somebody waits.
func VerifyErasure(dir string, trust *Trust) (*Report, error) {
	r := &Report{Verdict: True, Pinned: trust != nil}
	data, err := r.erasureFile(dir)
	if err != nil || data == nil {
		return r, err
	}
	e, err := parseErasure(data)
	if err != nil {
		r.wrong("%v", err)
		return r, nil
	}
	order, err := identity.OpenErasure(e.Order)
	if err != nil {
		r.wrong("the owner's order doesn't hold: %v", err)
		return r, nil
	}
	w, err := openWord(e)
	if err != nil {
		r.wrong("%v", err)
		return r, nil
	}
	r.World, r.Made = w.World, w.Made
	if trust != nil {
		r.trustedHome(trust, order, w)
	}
	r.verifyDeletions(e, order, w)
	for _, who := range w.Waiting {
		r.add(Finding{Verdict: Unknown, File: ErasureFile, Offset: -1, Text: "hasn't signed: " + who})
	}
	return r, nil
}

// erasureFile reads the bundle's file; nil: it isn't one that can be read. Nothing that it
// says covers another file, so none is to be beside it.
func (r *Report) erasureFile(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, carnet.Errorf(carnet.NotFound, "the bundle can't be read: %v", err)
	}
	for _, e := range entries {
		if e.Name() != ErasureFile {
			r.add(Finding{Verdict: False, File: e.Name(), Offset: -1, Text: "the file doesn't belong to the bundle"})
		} else if !e.Type().IsRegular() {
			r.wrong("is not a regular file")
			return nil, nil
		}
	}
	data, err := readWithin(filepath.Join(dir, ErasureFile), maxErasure)
	if errors.Is(err, fs.ErrNotExist) {
		r.wrong("the file is missing")
		return nil, nil
	}
	if len(data) > maxErasure {
		r.wrong("the file has more than the %d bytes that are read", maxErasure)
		return nil, err
	}
	return data, err
}

// parseErasure reads what Write writes, or what a world answers with: the same in one line.
func parseErasure(data []byte) (*ErasureBundle, error) {
	var e ErasureBundle
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "the file can't be read as an erasure's: %v", err)
	}
	if e.Version != 1 {
		return nil, carnet.Errorf(carnet.Malformed, "the file has version %d, this program reads 1", e.Version)
	}
	written, err := e.marshal()
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(data, written) && !bytes.Equal(bytes.TrimSuffix(data, []byte("\n")), line) {
		return nil, carnet.Errorf(carnet.Malformed, "the file is not in the form in which it is written")
	}
	return &e, nil
}

func openWord(e *ErasureBundle) (w ErasureWord, err error) {
	err = identity.OpenMessage(e.Word, erasureWordType, &w, func() (ed25519.PublicKey, error) { return identity.ParseDID(w.By) })
	if err != nil {
		return w, fmt.Errorf("the home's word doesn't hold: %w", err)
	}
	if w.Order != carnet.FingerprintOf([]byte(e.Order)) {
		return w, fmt.Errorf("the home's word is about another order")
	}
	return w, nil
}

// trustedHome holds the home that the order names against the world whose word it is: that
// must be one that is trusted, and be known to registers by the key that the order names,
// by which the home's receipt is signed.
func (r *Report) trustedHome(trust *Trust, order identity.ErasureOrder, w ErasureWord) {
	i := slices.IndexFunc(trust.Worlds, func(t World) bool {
		return t.Party == w.World && identity.DID(ed25519.PublicKey(t.Key)) == w.By
	})
	switch {
	case i < 0:
		r.wrong("the home's word is signed by a key that isn't among those trusted of %s", w.World)
	case trust.Worlds[i].Register == "":
		r.add(Finding{Verdict: Unknown, File: ErasureFile, Offset: -1,
			Text: "the trust file given doesn't say by which key " + string(w.World) + " signs what it deletes; have 'carnet party trust' write it anew"})
	case trust.Worlds[i].Register != order.World:
		r.wrong("the order is for the home %s, and %s is %s", order.World, w.World, trust.Worlds[i].Register)
	}
}

func (r *Report) wrong(format string, args ...any) {
	r.add(Finding{Verdict: False, File: ErasureFile, Offset: -1, Text: fmt.Sprintf(format, args...)})
}

// verifyDeletions holds what was signed against whom the home names.
func (r *Report) verifyDeletions(e *ErasureBundle, order identity.ErasureOrder, w ErasureWord) {
	var own *identity.Deletion
	var signed []identity.Deletion
	for i, token := range e.Deletions {
		d, err := identity.OpenDeletion(token)
		switch {
		case err != nil:
			r.wrong("receipt %d doesn't hold: %v", i, err)
		case d.Erasure != order.Erasure || d.Order != carnet.FingerprintOf([]byte(e.Order)):
			r.wrong("receipt %d is of another erasure or order", i)
		case d.Role == identity.DeletedAtHome && d.By == order.World:
			own = &d
		case d.Role == identity.DeletedAtHome:
			r.wrong("receipt %d is of a home that the order doesn't name", i)
		case !slices.ContainsFunc(w.Parties, func(p ErasureParty) bool { return p.Key == d.By && p.Role == d.Role && p.Of == d.Of }):
			r.wrong("receipt %d is by %s as %s, whom the home doesn't name", i, d.By, d.Role)
		default:
			signed = append(signed, d)
		}
	}
	if own == nil {
		r.add(Finding{Verdict: Unknown, File: ErasureFile, Offset: -1, Text: "the home hasn't signed that it has deleted everything"})
	}
	for _, p := range w.Parties {
		if !slices.ContainsFunc(signed, func(d identity.Deletion) bool { return p.Key == d.By && p.Role == d.Role && p.Of == d.Of }) {
			r.add(Finding{Verdict: Unknown, File: ErasureFile, Offset: -1, Text: fmt.Sprintf("there is no receipt of %s as %s", p.Party, p.Role)})
		}
	}
	if own != nil {
		signed = append([]identity.Deletion{*own}, signed...)
	}
	r.Erased = &ErasedReport{Erasure: order.Erasure, Owner: order.Owner, Deletions: signed}
	for _, d := range signed {
		if d.Unreadable.After(r.Erased.Unreadable) {
			r.Erased.Unreadable = d.Unreadable
		}
		if d.Unrecoverable.After(r.Erased.Unrecoverable) {
			r.Erased.Unrecoverable = d.Unrecoverable
		}
	}
}

// ErasedReport is what a verification found of an erasure.
type ErasedReport struct {
	Erasure       carnet.ErasureID    `json:"erasure"`
	Owner         string              `json:"owner"`
	Deletions     []identity.Deletion `json:"deletions"`
	Unreadable    time.Time           `json:"unreadable"` // at the last
	Unrecoverable time.Time           `json:"unrecoverable"`
}

func (e *ErasedReport) summary(world carnet.PartyID) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Erasure %s at world %s, by the order of %s: %s.\n", e.Erasure, world, e.Owner, number(uint64(len(e.Deletions)), "receipt", "receipts"))
	for _, d := range e.Deletions {
		fmt.Fprintf(&b, "  %s by %s: unreadable since %s, unrecoverable from %s on (%s)\n",
			d.Role, d.By, d.Unreadable.Format(time.RFC3339), d.Unrecoverable.Format(time.RFC3339), d.Counts())
	}
	if len(e.Deletions) > 0 {
		fmt.Fprintf(&b, "Nobody of them can read anything of it since %s, and none has it in a backup from %s on.\n", e.Unreadable.Format(time.RFC3339), e.Unrecoverable.Format(time.RFC3339))
	}
	return b.String()
}
