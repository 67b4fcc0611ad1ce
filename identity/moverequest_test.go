package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"carnet"
)

func newMoveRequest(t testing.TB, m moving) MoveRequest {
	mandate, err := MandateRequest{Text: "Your player comes to citadel.", MandateTerms: MandateTerms{
		Audience: "arena", Subject: publicOf(m.target), Platform: publicOf(m.target), Avatar: m.terms.Avatar, Actions: []Action{ActionMove},
		Purpose: "move", Clearance: carnet.Clearance{Purposes: carnet.NewSet("move")},
	}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return MoveRequest{
		Crossing: m.order.Crossing, Registrar: did(m.registrar), Home: m.terms.Home, Owner: did(m.owner), Source: did(m.source),
		Target: "citadel", TargetKey: did(m.target), To: m.terms.To, Report: []string{"Nothing is lost."}, Mandate: mandate,
	}
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func TestAnOrderIsWhatWasAskedFor(t *testing.T) {
	m := newMoving(t)
	asked := newMoveRequest(t, m)
	document, err := asked.Marshal()
	if err != nil || !IsMoveRequest(document) {
		t.Fatalf("%s, %v", document, err)
	}
	r, mandate, err := ParseMoveRequest(document)
	if err != nil || asJSON(t, r) != asJSON(t, asked) || IsMoveRequest(r.Mandate) {
		t.Fatalf("%s, %v", asJSON(t, r), err)
	}
	token, terms, err := r.Sign(m.owner, m.owner, m.order.Made.Add(time.Millisecond), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o, err := OpenOrder(token)
	want := m.order
	want.Homes, want.Terms = []carnet.HomeID{m.terms.Home}, carnet.FingerprintOf(terms)
	if err != nil || asJSON(t, o) != asJSON(t, want) {
		t.Errorf("ordered %s, %v; want %s", asJSON(t, o), err, asJSON(t, want))
	}
	if read, err := ParseMoveTerms(terms, o); err != nil || read.To != m.terms.To || read.Avatar != m.terms.Avatar || read.Owner != did(m.owner) {
		t.Errorf("terms %+v, %v", read, err)
	}
	if _, _, err := r.Sign(m.source, m.owner, m.order.Made, time.Hour); err == nil {
		t.Error("another key than the one that is registered signed")
	}
	said := strings.Join(r.Explain(mandate), "\n")
	for _, part := range []string{"arena", "citadel", m.terms.Avatar.String(), m.terms.To.String(), did(m.target), did(m.registrar)} {
		if !strings.Contains(said, part) {
			t.Errorf("the owner isn't told of %s:\n%s", part, said)
		}
	}
}

// What an owner consents to leave behind is in the terms that the order names, and in
// words; an item that moves alone, and a recovery, leave nothing behind.
func TestAnOwnerConsentsToARedaction(t *testing.T) {
	m := newMoving(t)
	r := newMoveRequest(t, m)
	r.Redact = &Redaction{Sensitivity: carnet.Personal, Purposes: carnet.NewSet("care", "fitness"), Residency: "eu"}
	document, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read, mandate, err := ParseMoveRequest(document)
	if err != nil || !read.Redact.Same(r.Redact) {
		t.Fatalf("read %+v, %v", read.Redact, err)
	}
	token, terms, err := read.Sign(m.owner, m.owner, m.order.Made, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o, err := OpenOrder(token)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := ParseMoveTerms(terms, o)
	if err != nil || !signed.Redact.Same(r.Redact) || signed.Redact.Same(nil) || signed.Redact.Same(&Redaction{Sensitivity: carnet.Personal}) {
		t.Errorf("signed %+v, %v", signed.Redact, err)
	}
	if said := strings.Join(read.Explain(mandate), "\n"); !strings.Contains(said, "labelled above: personal, for care and fitness, kept in eu. It can't be undone.") {
		t.Errorf("the owner is told:\n%s", said)
	}
	o.Recovers = &Recovers{}
	if _, err := ParseMoveTerms(terms, o); err == nil {
		t.Error("a recovery leaves something behind")
	}
	for name, bad := range map[string]Redaction{
		"words in no order": {Purposes: "fitness,care"}, "a word twice": {Residency: "eu,eu"}, "no word": {Purposes: "Care!"}, "no sensitivity": {Sensitivity: 1 << 6},
	} {
		r.Redact = &bad
		if _, err := r.Marshal(); err == nil {
			t.Errorf("a redaction with %s was asked for", name)
		}
		wrong := signed
		wrong.Redact = &bad
		if _, err := wrong.Marshal(); err == nil {
			t.Errorf("a redaction with %s was signed", name)
		}
	}
}

func TestMoveRequestsThatCannotBeAreRefused(t *testing.T) {
	other := func(r *MoveRequest, change func(*MandateRequest)) {
		m, err := ParseMandateRequest(r.Mandate)
		if err != nil {
			t.Fatal(err)
		}
		change(&m)
		if r.Mandate, err = m.Marshal(); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*MoveRequest){
		"for a mandate to read, too": func(r *MoveRequest) {
			other(r, func(m *MandateRequest) { m.Actions = []Action{ActionMove, ActionRead} })
		},
		"for a mandate for another world": func(r *MoveRequest) { r.TargetKey = r.Source },
		"without a mandate":               func(r *MoveRequest) { r.Mandate = json.RawMessage(`{}`) },
		"with a report that commands":     func(r *MoveRequest) { r.Report = []string{"\x1b[2J"} },
		"with a report without end":       func(r *MoveRequest) { r.Report = make([]string, maxReport+1) },
		"to a party without a name":       func(r *MoveRequest) { r.Target = "Citadel" },
		"for no registrar":                func(r *MoveRequest) { r.Registrar = "vault" },
	} {
		r := newMoveRequest(t, newMoving(t))
		change(&r)
		if _, err := r.Marshal(); err == nil {
			t.Errorf("a request %s was written", name)
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ParseMoveRequest(text); err == nil {
			t.Errorf("a request %s was read", name)
		}
	}
	text, err := newMoveRequest(t, newMoving(t)).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"more after it": string(text) + "{}", "an unknown member": strings.Replace(string(text), "{", `{"more":1,`, 1), "white space": strings.Replace(string(text), ",", ", ", 1),
	} {
		if _, _, err := ParseMoveRequest([]byte(text)); err == nil {
			t.Errorf("a request with %s was read", name)
		}
	}
}
