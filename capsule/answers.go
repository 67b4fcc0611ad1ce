package capsule

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"carnet"
	"carnet/identity"
)

// Acceptance is a DPM's word that it has an order and its keys.
type Acceptance struct {
	Job      carnet.JobID       `json:"job"`
	Order    carnet.Fingerprint `json:"order"`
	Accepted time.Time          `json:"accepted"`
}

// Sign makes the acceptance's message.
func (a Acceptance) Sign(key ed25519.PrivateKey) (string, error) {
	return identity.SignMessage(key, typAcceptance, a)
}

// OpenAcceptance reads a DPM's acceptance.
func OpenAcceptance(text string, key ed25519.PublicKey) (a Acceptance, err error) {
	err = identity.OpenMessage(text, typAcceptance, &a, keyed(key))
	return a, err
}

// Outcome is how a job ended.
type Outcome string

// The outcomes that a DPM signs.
const (
	Done      Outcome = "done"
	Failed    Outcome = "failed"    // by the program, a limit, or content that isn't what the order says
	Parked    Outcome = "parked"    // it ended workers, and isn't tried again
	Expired   Outcome = "expired"   // its time was over
	Withdrawn Outcome = "withdrawn" // by the world
	Refused   Outcome = "refused"   // the module was revoked after the order was accepted
)

// MaxReason bounds why a job ended.
const MaxReason = 300

// Result is a DPM's word of how a job ended.
type Result struct {
	Job     carnet.JobID       `json:"job"`
	Order   carnet.Fingerprint `json:"order"`
	Outcome Outcome            `json:"outcome"`
	Code    carnet.Code        `json:"code,omitempty"` // of a failure
	Why     string             `json:"why,omitempty"`
	Attempt int                `json:"attempt"`
	Began   time.Time          `json:"began,omitzero"` // of the last attempt
	Ended   time.Time          `json:"ended"`
	// Of a job that is done: what ran on what, and what came out.
	Output *Output `json:"output,omitempty"`
}

// Output is what came out of a run: the same for everybody who repeats it, but for
// the parts as they were sealed.
type Output struct {
	Program      carnet.Fingerprint `json:"program"`
	Inputs       carnet.Fingerprint `json:"inputs"` // root over their fingerprints
	Measurements uint64             `json:"measurements"`
	Fingerprint  carnet.Fingerprint `json:"fingerprint"` // of the parts' contents, one after the other
	Size         uint64             `json:"size"`
	Parts        int                `json:"parts"`
	Sealed       carnet.Fingerprint `json:"sealed"` // root over the sealed parts' fingerprints
	Bag          carnet.Fingerprint `json:"bag"`    // gives the world the parts' key
}

// Partial is a DPM's word of what an attempt that runs has put out so far. It says which
// sealed parts these are, and doesn't prove that the program put them out.
type Partial struct {
	Job     carnet.JobID       `json:"job"`
	Order   carnet.Fingerprint `json:"order"`
	Attempt int                `json:"attempt"`
	Bag     carnet.Fingerprint `json:"bag"`    // gives the world the parts' key
	Parts   int                `json:"parts"`  // 1 or more
	Sealed  carnet.Fingerprint `json:"sealed"` // root over the sealed parts' fingerprints
}

// Sign makes the message.
func (p Partial) Sign(key ed25519.PrivateKey) (string, error) {
	return identity.SignMessage(key, typPartial, p)
}

// OpenPartial reads one by a DPM.
func OpenPartial(text string, key ed25519.PublicKey) (p Partial, err error) {
	if err := identity.OpenMessage(text, typPartial, &p, keyed(key)); err != nil {
		return Partial{}, err
	}
	if p.Parts < 1 || p.Attempt < 1 {
		return Partial{}, bad("there are %d parts of attempt %d", p.Parts, p.Attempt)
	}
	return p, nil
}

// Check holds a result against itself.
func (r Result) Check() error {
	switch r.Outcome {
	case Done, Failed, Parked, Expired, Withdrawn, Refused:
	default:
		return bad("the result's outcome is %.40q", r.Outcome)
	}
	if (r.Outcome == Done) != (r.Output != nil) || r.Attempt < 0 || len(r.Why) > MaxReason {
		return bad("a result that is %s has an output, or lacks one, or says too much", r.Outcome)
	}
	if r.Output != nil && r.Output.Parts < 0 {
		return bad("the result has %d parts", r.Output.Parts)
	}
	return nil
}

// Unfounded says why a result can't be of an order, as far as the two show that; empty: it
// can. Whether a job was withdrawn is the world's to know, and what came out is compared
// with what was sent.
func (r Result) Unfounded(o *Order) string {
	switch {
	case r.Outcome == Expired && r.Ended.Before(o.Until):
		return fmt.Sprintf("its time was over at %s, before it was: at %s", r.Ended.Format(time.RFC3339), o.Until.Format(time.RFC3339))
	case r.Outcome == Refused && o.Module == carnet.Fingerprint{}:
		return "its module is revoked, and its order names none"
	}
	return ""
}

// Sign makes the result's message.
func (r Result) Sign(key ed25519.PrivateKey) (string, error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	return identity.SignMessage(key, typResult, r)
}

// OpenResult reads a result by a DPM.
func OpenResult(text string, key ed25519.PublicKey) (r Result, err error) {
	if err := identity.OpenMessage(text, typResult, &r, keyed(key)); err != nil {
		return Result{}, err
	}
	return r, r.Check()
}

// Withdrawal is a world's word that a job is to end, and no key of it to be kept.
type Withdrawal struct {
	Job   carnet.JobID       `json:"job"`
	Order carnet.Fingerprint `json:"order"`
	Why   string             `json:"why"`
	Made  time.Time          `json:"made"`
}

// Sign makes the withdrawal's message.
func (w Withdrawal) Sign(key ed25519.PrivateKey) (string, error) {
	return identity.SignMessage(key, typWithdrawal, w)
}

// OpenWithdrawal reads a withdrawal by the key of who ordered.
func OpenWithdrawal(text string, key ed25519.PublicKey) (w Withdrawal, err error) {
	err = identity.OpenMessage(text, typWithdrawal, &w, keyed(key))
	return w, err
}

// Taken is a world's word that it has a result, durably: what came out of the job may be
// deleted where it ran. The same result is said to be taken by the same message.
type Taken struct {
	Job    carnet.JobID       `json:"job"`
	Order  carnet.Fingerprint `json:"order"`
	Result carnet.Fingerprint `json:"result"`
}

// Sign makes the message.
func (t Taken) Sign(key ed25519.PrivateKey) (string, error) {
	return identity.SignMessage(key, typTaken, t)
}

// OpenTaken reads one by the key of who ordered.
func OpenTaken(text string, key ed25519.PublicKey) (t Taken, err error) {
	err = identity.OpenMessage(text, typTaken, &t, keyed(key))
	return t, err
}

// EngineOffer is an engine that a DPM has.
type EngineOffer struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Signed: it runs modules that a publisher signed, and no other programs.
	Signed bool `json:"signed,omitempty"`
}

// Offer is what a DPM says that it does.
type Offer struct {
	By      carnet.PartyID `json:"by"`
	Engines []EngineOffer  `json:"engines"`
	Most    Limits         `json:"most"`
	Workers int            `json:"workers"` // connected now
	Waiting int            `json:"waiting"` // jobs of who asks that wait for one: of others' it says nothing
	// Clearance is what it may be given by who asks; nil: by a program that doesn't say it.
	Clearance *Label    `json:"clearance,omitempty"`
	Made      time.Time `json:"made"`
	Process   string    `json:"process"` // drawn at its start
}

// Sign makes the offer's message.
func (o Offer) Sign(key ed25519.PrivateKey) (string, error) {
	return identity.SignMessage(key, typOffer, o)
}

// OpenOffer reads a DPM's offer.
func OpenOffer(text string, key ed25519.PublicKey) (o Offer, err error) {
	err = identity.OpenMessage(text, typOffer, &o, keyed(key))
	return o, err
}

// Record is a DPM's word of what it has stated of a job that has ended, on which ledger:
// with it others can show that too. Its proofs have receipts.
type Record struct {
	Job      carnet.JobID       `json:"job"`
	Order    carnet.Fingerprint `json:"order"`
	Depot    carnet.PartyID     `json:"depot"`  // whose ledger it is, as the DPM calls it
	Ledger   string             `json:"ledger"` // its C2SP verifier key
	Accepted identity.OnLedger  `json:"accepted"`
	Ended    identity.OnLedger  `json:"ended"`
}

// Sign makes the record's message.
func (r Record) Sign(key ed25519.PrivateKey) (string, error) {
	return identity.SignMessage(key, typRecord, r)
}

// OpenRecord reads a DPM's record. What is in its proofs is checked by who has the
// ledger's key.
func OpenRecord(text string, key ed25519.PublicKey) (r Record, err error) {
	err = identity.OpenMessage(text, typRecord, &r, keyed(key))
	return r, err
}
