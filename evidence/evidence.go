// Package evidence owns the evidence bundle: a directory that proves what
// one avatar (or one batch of it) was told, to somebody who trusts nobody's
// store, without a network.
//
// Write makes a bundle from a Source, and Verify reads one: batch → frame root,
// signed by the sender → statement of the world → entry of the ledger →
// inclusion → signed checkpoint. Verify hashes every byte, opens every batch
// (its commitment first), and holds counts and numbers against what the sender
// sealed into it. A bundle has no state but its bytes: it is being written (no
// manifest yet), or whole, and never changed.
//
// The package must not know stores, agents, links or policy: a bundle is
// verified by what it says and by the keys one trusts, with the packages of formats
// alone. docs/design/evidence.md has the files byte by
// byte, and what the chain of signatures proves and what it doesn't.
package evidence

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"carnet"
)

// The files of a bundle. There are no others.
const (
	FileManifest     = "manifest.cose" // signed by the world; has length and hash of the others
	FileTrust        = "trust.json"    // the public keys of the parties
	FileFrameIndex   = "frames.idx"
	FileFrames       = "frames.bin"
	FileBatchIndex   = "batches.idx"
	FileBatches      = "batches.bin"
	FileKeys         = "keys.bin" // batch keys in the clear
	maxManifest      = 4 << 20
	maxTrust         = 1 << 20
	maxNames         = 1 << 12 // streams, and senders, of a bundle
	hashSize         = 32
	measurementLimit = 1 << 20 // of a batch, as worlds have taken it
)

// dataFiles are the files that the manifest has the hashes of, in its order. FileJobs is
// the last, where there are jobs.
var dataFiles = [...]string{FileTrust, FileFrameIndex, FileFrames, FileBatchIndex, FileBatches, FileKeys}

// IsFile reports whether a bundle has a file of that name.
func IsFile(name string) bool {
	return name == FileManifest || name == FileJobs || slices.Contains(dataFiles[:], name)
}

// Verdict is what a verification comes to. Its number is the exit code of a
// program that verifies.
type Verdict int

// The verdicts.
const (
	True    Verdict = 0 // everything in the bundle is proved
	False   Verdict = 1 // something is not what it should be
	Unknown Verdict = 2 // nothing is wrong, and something can't be told
)

func (v Verdict) String() string {
	switch v {
	case True:
		return "true"
	case False:
		return "false"
	}
	return "could not tell"
}

// MarshalText writes what String says.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// ExitCode is what a program ends with: 0 true, 1 false, 2 could not tell. A
// verification that failed itself, say since a disk can't be read, could not
// tell.
func ExitCode(r *Report, err error) int {
	if err != nil || r == nil {
		return int(Unknown)
	}
	return int(r.Verdict)
}

// Range is a range of numbers, both ends included.
type Range struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

func (r Range) String() string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d to %d", r.From, r.To)
}

// Finding is one thing that is wrong, or can't be told, and what it affects.
type Finding struct {
	Verdict Verdict `json:"verdict"` // False or Unknown
	File    string  `json:"file"`
	Offset  int64   `json:"offset"` // of the damaged part in File; -1: the file as a whole

	All          bool            `json:"all,omitempty"` // every batch of the bundle is affected
	Sender       carnet.PartyID  `json:"sender,omitempty"`
	Frame        uint64          `json:"frame,omitempty"` // number on the sender's link; 0: none
	Stream       carnet.StreamID `json:"stream"`
	Batches      *Range          `json:"batches,omitempty"`      // of Stream
	Measurements *Range          `json:"measurements,omitempty"` // of Stream; nil: none, or not known
	From         time.Time       `json:"from"`                   // measured times; zero with Measurements
	To           time.Time       `json:"to"`

	Text string `json:"text"` // a sentence for people
}

// String says the whole finding in one line: a file that isn't a bundle's has the
// name that its maker gave it, which is quoted if it isn't plain.
func (f Finding) String() string {
	var b strings.Builder
	file := f.File
	if quoted := strconv.Quote(file); quoted != `"`+file+`"` {
		file = quoted
	}
	fmt.Fprintf(&b, "%s: %s", f.Verdict, file)
	if f.Offset >= 0 {
		fmt.Fprintf(&b, " at byte %d", f.Offset)
	}
	switch {
	case f.All:
		b.WriteString(", all batches")
	case f.Batches != nil:
		fmt.Fprintf(&b, ", batch %s of stream %s", f.Batches, f.Stream)
	}
	if f.Frame != 0 {
		fmt.Fprintf(&b, " in frame %d of %s", f.Frame, f.Sender)
	}
	if f.Measurements != nil {
		fmt.Fprintf(&b, ", measurements %s measured %s to %s", f.Measurements, f.From.Format(time.RFC3339Nano), f.To.Format(time.RFC3339Nano))
	}
	return printable(b.String() + ": " + f.Text)
}

// printable replaces what isn't: what others wrote can't end a line or steer a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// Counts is what a bundle holds. Each is of what was found, not of what is
// announced.
type Counts struct {
	Frames       uint64 `json:"frames"`
	Batches      uint64 `json:"batches"`
	Measurements uint64 `json:"measurements"`
	Bytes        uint64 `json:"bytes"`   // of batches
	Pending      uint64 `json:"pending"` // frames without a receipt
	Closed       uint64 `json:"closed"`  // batches without a key
}

// Report is what a verification found.
type Report struct {
	Verdict  Verdict         `json:"verdict"`
	Pinned   bool            `json:"pinned"` // keys came from outside the bundle
	World    carnet.PartyID  `json:"world,omitempty"`
	Avatar   carnet.AvatarID `json:"avatar"`
	Made     time.Time       `json:"made"`
	Only     *Batch          `json:"only,omitempty"`     // the one batch that it is about; nil: all of the avatar
	Passport *PassportOf     `json:"passport,omitempty"` // it is one, whose keys are sealed (docs/design/passport.md)
	Trust    Trust           `json:"trust"`              // the bundle's own parties
	Ledger   Ledgered        `json:"ledger"`
	Counts   Counts          `json:"counts"`
	Skipped  []Skipped       `json:"skipped,omitempty"`  // of streams that come by a share
	LeftOut  []LeftOut       `json:"left_out,omitempty"` // of moves, by an owner's order
	Jobs     []JobOf         `json:"jobs,omitempty"`     // that were run over what the avatar said
	Findings []Finding       `json:"findings"`
	More     uint64          `json:"more,omitempty"` // findings beyond MaxFindings
	// Erased is of a bundle that proves an erasure: nothing else is said of it then.
	Erased *ErasedReport `json:"erased,omitempty"`
}

// Skipped says how many of a share's batches, by their numbers, aren't in the bundle
// though later ones are: who shares leaves out what isn't to be shown, and whether
// the world left out more can't be told.
type Skipped struct {
	Stream  carnet.StreamID `json:"stream"`
	Batches uint64          `json:"batches"`
}

// Ledgered is how far the bundle's receipts go.
type Ledgered struct {
	Checkpoint uint64 `json:"checkpoint"` // size of the largest checkpoint
	Root       string `json:"root,omitempty"`
}

// MaxFindings is how many findings a report lists.
const MaxFindings = 1000

// Batch names a batch.
type Batch struct {
	Stream carnet.StreamID `json:"stream"`
	Number uint64          `json:"number"`
}

func (r *Report) add(fs ...Finding) {
	for _, f := range fs {
		if r.Verdict != False {
			r.Verdict = f.Verdict
		}
		if len(r.Findings) < MaxFindings {
			r.Findings = append(r.Findings, f)
		} else {
			r.More++
		}
	}
}

// named reports whether a finding names the file.
func (r *Report) named(file string) bool {
	for i := range r.Findings {
		if r.Findings[i].File == file {
			return true
		}
	}
	return false
}
