package capsule_test

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
)

func newKey(t *testing.T) (ed25519.PrivateKey, string) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key, identity.DID(public)
}

// A record comes back as it was signed; each one changed thing is refused.
func TestModuleRecords(t *testing.T) {
	key, did := newKey(t)
	_, other := newKey(t)
	made := time.Date(2026, 11, 29, 9, 0, 0, 0, time.UTC)
	record := func() capsule.Module {
		return capsule.Module{
			Name: "heartzones", Version: "1.0.2", Engine: "wasm", Interface: 1, Program: capsule.Content{Fingerprint: carnet.Fingerprint{1}, Size: 9},
			Reads: []string{"heart_rate", "steps"}, By: did, Made: made,
		}
	}
	text, err := record().Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	m, err := capsule.OpenModule(text)
	if err != nil || m.ID() != "heartzones@1.0.2" || m.By != did || m.Program != record().Program || len(m.Reads) != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := m.Fits("wasm", m.Program); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"other bytes":    m.Fits("wasm", capsule.Content{Fingerprint: carnet.Fingerprint{2}, Size: 9}),
		"another size":   m.Fits("wasm", capsule.Content{Fingerprint: carnet.Fingerprint{1}, Size: 10}),
		"another engine": m.Fits("sql", m.Program),
	} {
		if carnet.CodeOf(err) != carnet.Tampered {
			t.Errorf("%s under the record: %v", what, err)
		}
	}
	for what, change := range map[string]func(*capsule.Module){
		"a long name":         func(m *capsule.Module) { m.Name = strings.Repeat("a", 65) },
		"a long version":      func(m *capsule.Module) { m.Version = strings.Repeat("1", 65) },
		"no engine":           func(m *capsule.Module) { m.Engine = "" },
		"too many bytes":      func(m *capsule.Module) { m.Program.Size = 1 << 40 },
		"no name":             func(m *capsule.Module) { m.Name = "" },
		"a name with an @":    func(m *capsule.Module) { m.Name = "a@b" },
		"no version":          func(m *capsule.Module) { m.Version = "" },
		"a version of spaces": func(m *capsule.Module) { m.Version = "1 2" },
		"another interface":   func(m *capsule.Module) { m.Interface = 2 },
		"no bytes":            func(m *capsule.Module) { m.Program.Size = 0 },
		"unordered reads":     func(m *capsule.Module) { m.Reads = []string{"b", "a"} },
		"reads twice":         func(m *capsule.Module) { m.Reads = []string{"a", "a"} },
		"a line in reads":     func(m *capsule.Module) { m.Reads = []string{"a\nb"} },
		"half a second":       func(m *capsule.Module) { m.Made = made.Add(time.Second / 2) },
		"nobody":              func(m *capsule.Module) { m.By = "me" },
	} {
		bad := record()
		change(&bad)
		if _, err := bad.Sign(key); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("a record with %s: %v", what, err)
		}
		if text, err := identity.SignMessage(key, "carnet-module+jwt", bad); err != nil {
			t.Fatal(err)
		} else if _, err := capsule.OpenModule(text); err == nil {
			t.Errorf("a record with %s, which somebody signed, is read", what)
		}
	}
	foreign := record()
	foreign.By = other
	if text, err := foreign.Sign(key); err != nil {
		t.Error(err)
	} else if _, err := capsule.OpenModule(text); err == nil {
		t.Error("a record in another publisher's name is read")
	}
	parts := strings.Split(text, ".")
	changed := record()
	changed.Version = "1.0.3"
	second, err := changed.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := capsule.OpenModule(parts[0] + "." + strings.Split(second, ".")[1] + "." + parts[2]); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("another version under the signature: %v", err)
	}
}

// A revocation names the record, and is by the key that it names.
func TestRevocations(t *testing.T) {
	key, did := newKey(t)
	_, other := newKey(t)
	r := capsule.Revocation{Module: carnet.Fingerprint{1}, By: did, Why: "it counts twice", Made: time.Date(2026, 11, 29, 9, 0, 0, 0, time.UTC)}
	text, err := r.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := capsule.OpenRevocation(text); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := capsule.OpenModule(text); err == nil {
		t.Error("a revocation is read as a record")
	}
	for what, change := range map[string]func(*capsule.Revocation){
		"no module": func(r *capsule.Revocation) { r.Module = carnet.Fingerprint{} },
		"no reason": func(r *capsule.Revocation) { r.Why = "" },
		"two lines": func(r *capsule.Revocation) { r.Why = "a\nb" },
		"no second": func(r *capsule.Revocation) { r.Made = r.Made.Add(time.Second / 2) },
		"nobody":    func(r *capsule.Revocation) { r.By = "me" },
		"an essay":  func(r *capsule.Revocation) { r.Why = strings.Repeat("a", 201) },
	} {
		bad := r
		change(&bad)
		if _, err := bad.Sign(key); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("a revocation with %s: %v", what, err)
		}
		if text, err := identity.SignMessage(key, "carnet-revocation-module+jwt", bad); err != nil {
			t.Fatal(err)
		} else if _, err := capsule.OpenRevocation(text); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("a revocation with %s, which somebody signed: %v", what, err)
		}
	}
	r.By = other
	if text, err := r.Sign(key); err != nil {
		t.Error(err)
	} else if _, err := capsule.OpenRevocation(text); err == nil {
		t.Error("a revocation in another's name is read")
	}
}
