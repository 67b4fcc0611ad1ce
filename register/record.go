package register

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// record is what a change says; sealed, it is the change's body.
type record struct {
	Number uint64             `json:"number"`
	Before carnet.Fingerprint `json:"before"` // of the body of the change before
	Signed string             `json:"signed"` // an answer about a home, or a decision
	Homes  []Home             `json:"homes"`  // as they stand from now on
	// Crossing is what the decision is about; zero for an answer.
	Crossing  carnet.CrossingID `json:"crossing"`
	Statement []byte            `json:"statement"`
	Salt      []byte            `json:"salt"`
}

// kind is what a record's statement states.
func (rec *record) kind() ledger.Kind {
	switch {
	case rec.Crossing != carnet.CrossingID{}:
		return ledger.CrossingDecided
	case rec.Homes[0].Erased != "":
		return ledger.HomeErased
	case rec.Homes[0].Recovery != identity.Petitioned{}:
		return ledger.RecoveryAsked
	case rec.Homes[0].Incarnation == 1:
		return ledger.HomeEnrolled
	}
	return ledger.HomeClaimed
}

// home is how a home stands by the record.
func (rec *record) home(id carnet.HomeID) (Home, error) {
	for _, h := range rec.Homes {
		if h.ID == id {
			return h, nil
		}
	}
	return Home{}, fmt.Errorf("change %d of the register says nothing of the home %s", rec.Number, id)
}

func bodyAAD(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("carnet register change"), n)
}

// seal makes a record the change after last.
func (r *Registrar) seal(last Change, rec *record) (c Change, err error) {
	s := ledger.Statement{Kind: rec.kind(), Who: r.cfg.Party, Time: time.Now().UnixNano(), Object: carnet.FingerprintOf([]byte(rec.Signed))}
	if rec.Statement, err = s.Marshal(); err != nil {
		return c, err
	}
	salt := ledger.NewSalt()
	rec.Number, rec.Before, rec.Salt = last.Number+1, carnet.FingerprintOf(last.Body), salt[:]
	if rec.Crossing != (carnet.CrossingID{}) {
		for i := range rec.Homes {
			rec.Homes[i].Moved = rec.Number
		}
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return c, fmt.Errorf("write change: %w", err)
	}
	body, err := r.cfg.Sealer.Seal(nil, bodyAAD(rec.Number), text)
	if err != nil {
		return c, err
	}
	return r.rebuild(body, rec)
}

// rebuild makes the change whose body says what the record does.
func (r *Registrar) rebuild(body []byte, rec *record) (c Change, err error) {
	c = Change{Number: rec.Number, Body: body, Crossing: rec.Crossing}
	for _, h := range rec.Homes {
		c.Homes = append(c.Homes, h.ID)
	}
	c.Item, err = r.cfg.Item(rec.Statement, ledger.Salt(rec.Salt))
	return c, err
}

// open reads what a change says.
func (r *Registrar) open(c Change) (*record, error) {
	rec, err := r.read(c.Number, c.Body)
	if err != nil {
		return nil, fmt.Errorf("read change %d of the register: %w", c.Number, err)
	}
	return rec, nil
}

// read opens the body of change n.
func (r *Registrar) read(n uint64, body []byte) (*record, error) {
	text, err := r.cfg.Sealer.Open(nil, bodyAAD(n), body)
	if err != nil {
		return nil, err
	}
	rec := new(record)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(rec); err != nil {
		return nil, err
	}
	if rec.Number != n || len(rec.Salt) != len(ledger.Salt{}) || rec.Crossing == (carnet.CrossingID{}) && len(rec.Homes) != 1 {
		return nil, fmt.Errorf("it isn't a change of that number")
	}
	return rec, nil
}

// told reads a change that may be told, with its proof.
func (r *Registrar) told(ctx context.Context, n uint64) (*record, Proof, error) {
	changes, err := r.cfg.Store.Changes(ctx, n-1, 1)
	if err != nil {
		return nil, Proof{}, err
	}
	if len(changes) != 1 || changes[0].Number != n || len(changes[0].Item.Receipt) == 0 {
		return nil, Proof{}, fmt.Errorf("change %d of the register isn't there with its receipt", n)
	}
	rec, err := r.open(changes[0])
	if err != nil {
		return nil, Proof{}, err
	}
	return rec, Proof{Statement: rec.Statement, Salt: rec.Salt, Receipt: changes[0].Item.Receipt}, nil
}

// Proof shows that what a registrar signed is on its depot's ledger.
type Proof struct {
	Statement []byte `json:"statement"` // ledger.Statement
	Salt      []byte `json:"salt"`
	Receipt   []byte `json:"receipt"` // ledger.Receipt
}

// verify checks that the ledger has a statement of one of kinds about what was signed.
func (p Proof) verify(key ledger.Key, signed string, kinds ...ledger.Kind) error {
	s, err := ledger.ParseStatement(p.Statement)
	if err != nil {
		return err
	}
	right := false
	for _, k := range kinds {
		right = right || s.Kind == k
	}
	if !right || s.Object != carnet.FingerprintOf([]byte(signed)) {
		return carnet.Errorf(carnet.Tampered, "the statement with the registrar's answer is about something else")
	}
	if len(p.Salt) != len(ledger.Salt{}) {
		return carnet.Errorf(carnet.Malformed, "the salt with the registrar's answer has %d bytes", len(p.Salt))
	}
	receipt, err := ledger.ParseReceipt(p.Receipt)
	if err != nil {
		return err
	}
	return ledger.VerifyReceipt(key, ledger.EntryOf(ledger.Salt(p.Salt), p.Statement), receipt)
}

// DecisionReply is a registrar's decision, with the proof that it is on the ledger.
// Asked again, a registrar gives the same one.
type DecisionReply struct {
	Decision string `json:"decision"`
	Proof    Proof  `json:"proof"`
}

// Verify checks offline that the decision is the registrar's, and that it is on the
// ledger that key signs.
func (d DecisionReply) Verify(registrar string, key ledger.Key) (identity.Decision, error) {
	decision, err := identity.OpenDecision(d.Decision)
	if err == nil && decision.Registrar != registrar {
		err = carnet.Errorf(carnet.Unauthenticated, "the decision is another registrar's")
	}
	if err == nil {
		err = d.Proof.verify(key, d.Decision, ledger.CrossingDecided)
	}
	if err != nil {
		return identity.Decision{}, err
	}
	return decision, nil
}

// HomeReply is a registrar's answer about a home, to who asked just now, with the
// change by which it stands so: the answer at an enrolment or claim, or a decision.
type HomeReply struct {
	Home   string `json:"home"`
	Record string `json:"record"`
	Proof  Proof  `json:"proof"` // of the record
	// Moved is the decision that moved it to where it is, if that isn't the record: a world
	// that was away then learns from it that it is no home any more.
	Moved *DecisionReply `json:"moved,omitempty"`
}

// Commit returns the decision by which a home came to where it is, as it was signed;
// carnet.NotFound if the answer has none. Who asks has had it verified.
func (h HomeReply) Commit() (identity.Decision, string, error) {
	token := h.Record
	if h.Moved != nil {
		token = h.Moved.Decision
	}
	d, err := identity.OpenDecision(token)
	if err != nil || d.Outcome != identity.Commit {
		return identity.Decision{}, "", carnet.Errorf(carnet.NotFound, "the registrar's answer names no decision that moved the home")
	}
	return d, token, nil
}

// Verify checks offline that the answer is the registrar's, that its record says the
// same, and that the record is on the ledger that key signs. Who asked compares the
// nonce.
func (h HomeReply) Verify(registrar string, key ledger.Key) (identity.HomeAnswer, error) {
	answer, err := h.verify(registrar, key)
	if err != nil {
		return identity.HomeAnswer{}, err
	}
	return answer, nil
}

func (h HomeReply) verify(registrar string, key ledger.Key) (identity.HomeAnswer, error) {
	answer, err := identity.OpenHome(h.Home)
	if err != nil {
		return answer, err
	}
	if answer.Registrar != registrar {
		return answer, carnet.Errorf(carnet.Unauthenticated, "the answer is another registrar's")
	}
	at := identity.HomeAt{Home: answer.Home, Version: answer.Version, World: answer.World}
	if h.Moved != nil {
		if d, err := h.Moved.Verify(registrar, key); err != nil {
			return answer, err
		} else if !d.Moves(at) {
			return answer, carnet.Errorf(carnet.Tampered, "the registrar names a decision about something else as the one that moved the home")
		}
	}
	if record, err := identity.OpenHome(h.Record); err == nil {
		if record.Asked = answer.Asked; record != answer {
			return answer, carnet.Errorf(carnet.Tampered, "the registrar's answer and its record differ")
		}
		return answer, h.Proof.verify(key, h.Record, ledger.HomeEnrolled, ledger.HomeClaimed, ledger.RecoveryAsked, ledger.HomeErased)
	}
	decision, err := identity.OpenDecision(h.Record)
	if err != nil {
		return answer, err
	}
	if decision.Registrar != registrar || !decision.Moves(at) || answer.Erased != "" {
		return answer, carnet.Errorf(carnet.Tampered, "the registrar's answer and its record differ")
	}
	return answer, h.Proof.verify(key, h.Record, ledger.CrossingDecided)
}
