package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/ledger"
)

// FileJobs has the jobs over what an avatar said. A bundle has it since version 5, and
// where there are some.
const FileJobs = "jobs.json"

// Bounds of the file of jobs.
const (
	maxJobsFile  = 64 << 20
	maxJobs      = 1 << 14
	maxJobRuns   = 1 << 16 // of batches, of one input
	jobsVersion  = 1
	jobsManifest = 5 // the version of a manifest since which there are jobs
)

// jobsFile is FileJobs.
type jobsFile struct {
	Version int    `json:"version"` // 1
	By      string `json:"by"`      // did:key with which the world signs orders
	Jobs    []Job  `json:"jobs"`    // that have ended, by when they were made
}

// Job is a job that was run over what the avatar said, with what was signed and stated of
// it. What the world doesn't have is absent, and said to be missing.
type Job struct {
	// At is the DPM, as the world calls it; empty: it ran in the world.
	At         carnet.PartyID  `json:"at,omitempty"`
	Order      string          `json:"order"`
	Acceptance string          `json:"acceptance,omitempty"`
	Withdrawal string          `json:"withdrawal,omitempty"`
	Outcome    capsule.Outcome `json:"outcome"` // as the world has it
	Why        string          `json:"why,omitempty"`
	Result     string          `json:"result,omitempty"`
	// Ordered and Ended are the world's statements; Record has the DPM's.
	Ordered *identity.OnLedger `json:"ordered,omitempty"`
	Ended   *identity.OnLedger `json:"ended,omitempty"`
	Record  string             `json:"record,omitempty"` // a capsule.Record
	// Inputs are those of the order's that were made of this avatar's batches, as far as
	// they can be made again.
	Inputs []JobInput `json:"inputs,omitempty"`
}

// JobInput says of which batches an input was made.
type JobInput struct {
	Place   int             `json:"place"` // in the order
	Stream  carnet.StreamID `json:"stream"`
	Batches []Range         `json:"batches"`
}

// DPM is a party that computes for a world.
type DPM struct {
	Party carnet.PartyID `json:"party"` // as the world calls it
	Key   PublicKey      `json:"key"`
	// World is the key of the world that calls it so. A file of one world needn't say it,
	// and a bundle doesn't.
	World PublicKey `json:"world,omitempty"`
}

// Jobs are what a bundle is to say of jobs.
type Jobs struct {
	By   ed25519.PublicKey // with its private key the world signs orders
	DPMs []DPM
	Jobs []Job
}

// dpm finds a DPM.
func dpm(all []DPM, name carnet.PartyID) *DPM {
	if i := slices.IndexFunc(all, func(d DPM) bool { return d.Party == name }); i >= 0 {
		return &all[i]
	}
	return nil
}

// writeJobs writes the file of jobs, and has the trust section name their DPMs and these
// DPMs' ledgers.
func (w *writer) writeJobs() error {
	jobs := w.options.Jobs
	if jobs == nil || len(jobs.Jobs) == 0 || w.options.Only != nil {
		return nil
	}
	if len(jobs.Jobs) > maxJobs {
		return carnet.Errorf(carnet.TooLarge, "there are %d jobs over what the avatar said, and a bundle has at most %d", len(jobs.Jobs), maxJobs)
	}
	w.m.Version = max(w.m.Version, jobsManifest)
	for _, j := range jobs.Jobs {
		if j.At == "" {
			continue
		}
		d := dpm(jobs.DPMs, j.At)
		if d == nil {
			return carnet.Errorf(carnet.NotFound, "the key of the DPM %s, which had a job, isn't known", j.At)
		}
		if dpm(w.trust.DPMs, j.At) == nil {
			w.trust.DPMs = append(w.trust.DPMs, DPM{Party: d.Party, Key: d.Key})
		}
		if j.Record == "" {
			continue
		}
		r, err := capsule.OpenRecord(j.Record, ed25519.PublicKey(d.Key))
		if err != nil {
			return err
		}
		if l := (Ledger{r.Depot, r.Ledger}); !slices.Contains(w.trust.Ledgers, l) {
			w.trust.Ledgers = append(w.trust.Ledgers, l)
		}
	}
	if err := w.trust.bundled(w.m.Version); err != nil {
		return err
	}
	text, err := json.MarshalIndent(jobsFile{Version: jobsVersion, By: identity.DID(jobs.By), Jobs: jobs.Jobs}, "", " ")
	if err != nil {
		return err
	}
	if text = append(text, '\n'); len(text) > maxJobsFile {
		return carnet.Errorf(carnet.TooLarge, "what is to be said of jobs has %d bytes, and a bundle has at most %d", len(text), maxJobsFile)
	}
	o, err := w.create(FileJobs)
	if err != nil {
		return err
	}
	return o.write(text)
}

// parseJobs reads what writeJobs writes.
func parseJobs(text []byte) (*jobsFile, error) {
	var f jobsFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "what is said of jobs can't be read: %v", err)
	}
	if again, err := json.MarshalIndent(f, "", " "); err != nil || !bytes.Equal(append(again, '\n'), text) {
		return nil, carnet.Errorf(carnet.Malformed, "what is said of jobs is not in its one form")
	}
	if f.Version != jobsVersion || len(f.Jobs) == 0 || len(f.Jobs) > maxJobs {
		return nil, carnet.Errorf(carnet.Malformed, "what is said of jobs has version %d and %d jobs; this program reads version %d with 1 to %d", f.Version, len(f.Jobs), jobsVersion, maxJobs)
	}
	return &f, nil
}

// JobOf is what a bundle proves of a job.
type JobOf struct {
	Job     carnet.JobID    `json:"job"`
	At      carnet.PartyID  `json:"at,omitempty"` // the DPM; absent: the world
	Outcome capsule.Outcome `json:"outcome"`
	Why     string          `json:"why,omitempty"`
	Made    time.Time       `json:"made"`
	Ended   time.Time       `json:"ended,omitzero"`
	Engine  string          `json:"engine"`
	Program string          `json:"program"` // its fingerprint
	Inputs  int             `json:"inputs"`
	Own     int             `json:"own"` // of these, those that were found to be made of the bundle's batches
	Output  string          `json:"output,omitempty"`
}

// statedAs says what is wrong with the proof that a party has stated something. A statement
// whose receipt lacks is pending: nothing is shown of the ledger. Whom a DPM calls peer, and
// how it ended, isn't asked for where want doesn't say it.
func statedAs(v *ledger.Verifier, p *identity.OnLedger, want ledger.Statement) (*shown, error) {
	s, err := ledger.ParseStatement(p.Statement)
	if err != nil {
		return nil, err
	}
	if s.Kind != want.Kind || s.Who != want.Who || s.Object != want.Object || want.Peer != "" && s.Peer != want.Peer || want.Reason != "" && s.Reason != want.Reason {
		return nil, carnet.Errorf(carnet.Tampered, "it states %s by %s of %s, and not %s by %s of %s", s.Kind, s.Who, s.Object, want.Kind, want.Who, want.Object)
	}
	if len(p.Salt) != hashSize {
		return nil, carnet.Errorf(carnet.Malformed, "the statement's salt has %d bytes", len(p.Salt))
	}
	if len(p.Receipt) == 0 {
		return nil, nil
	}
	r, err := ledger.ParseReceipt(p.Receipt)
	if err != nil {
		return nil, err
	}
	entry := ledger.EntryOf(ledger.Salt(p.Salt), p.Statement)
	cp, err := v.Verify(entry, r)
	return &shown{index: r.Index, entry: entry, Checkpoint: cp}, err
}
