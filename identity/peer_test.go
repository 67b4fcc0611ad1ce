package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"carnet"
)

func examplePeers(t testing.TB) map[Role]Peer {
	key := testKey(t, didVectors[3].seed).Public().(ed25519.PublicKey)
	health := carnet.Personal | carnet.Health
	pin := carnet.FingerprintOf([]byte("certificate"))
	return map[Role]Peer{
		Things: {Party: "p-aaaa", Role: Things, Pin: pin, Key: key},
		World: {Party: "arena", Role: World, Pin: pin, Key: key, Link: "127.0.0.1:7001", Purpose: "play", Sensitivity: &health,
			Residency: []string{"eu", "no"}},
		Depot: {Party: "vault", Role: Depot, Pin: pin, Key: key, R2: "https://127.0.0.1:7002", Ledger: "vault+1234+key"},
	}
}

func TestPeerFilesComeBackAsWritten(t *testing.T) {
	for role, p := range examplePeers(t) {
		path := filepath.Join(t.TempDir(), "peer.json")
		for range 2 { // the second replaces the first
			if err := WritePeer(path, p); err != nil {
				t.Fatalf("%s: %v", role, err)
			}
		}
		got, err := ReadPeer(path)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: %+v, %v; want %+v", role, got, err, p)
		}
		if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the new file is left over", role)
		}
	}
}

func TestPeerFilesThatAreNotFilesArePassedOn(t *testing.T) {
	if _, err := ReadPeer(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "peer.json")
	if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPeer(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("an error should name the file: %v", err)
	}
}

func TestPeerFilesThatSayMoreOrLessAreRefused(t *testing.T) {
	for name, spoil := range map[string]struct {
		role Role
		do   func(*Peer)
	}{
		"no name":                {Things, func(p *Peer) { p.Party = "" }},
		"a name with a slash":    {Things, func(p *Peer) { p.Party = "a/b" }},
		"no role":                {Things, func(p *Peer) { p.Role = "" }},
		"another role":           {Things, func(p *Peer) { p.Role = "dpm" }},
		"no pin":                 {Things, func(p *Peer) { p.Pin = carnet.Fingerprint{} }},
		"no key":                 {Things, func(p *Peer) { p.Key = nil }},
		"a key cut short":        {Things, func(p *Peer) { p.Key = p.Key[:31] }},
		"a world without link":   {World, func(p *Peer) { p.Link = "" }},
		"a world without use":    {World, func(p *Peer) { p.Purpose = "" }},
		"a world without limits": {World, func(p *Peer) { p.Sensitivity = nil }},
		"a depot with R5":        {Depot, func(p *Peer) { p.R5 = "vault.example:6443" }},
		"a depot without R2":     {Depot, func(p *Peer) { p.R2 = "" }},
		"a depot without ledger": {Depot, func(p *Peer) { p.Ledger = "" }},
	} {
		p := examplePeers(t)[spoil.role]
		spoil.do(&p)
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePeer(data); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: read with %v", name, err)
		}
		path := filepath.Join(t.TempDir(), "peer.json")
		if err := WritePeer(path, p); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	good, err := json.Marshal(examplePeers(t)[World])
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":                         "",
		"null":                          "null",
		"a list":                        "[]",
		"two objects":                   string(good) + string(good),
		"more after it":                 string(good) + "x",
		"cut short":                     string(good[:len(good)-1]),
		"an unknown member":             strings.Replace(string(good), "{", `{"note":"x",`, 1),
		"a short pin":                   strings.Replace(string(good), `"tls_pin":"`, `"tls_pin":"00`, 1),
		"a sensitivity of another name": strings.Replace(string(good), "personal+health", "private", 1),
	} {
		if _, err := ParsePeer([]byte(text)); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParsePeer(bytes.Repeat([]byte(" "), maxPeerFile+1)); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("too large: %v", err)
	}
}

func TestClearanceOfAWorld(t *testing.T) {
	got := examplePeers(t)[World].Clearance()
	if want := (carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: "play", Residency: "eu,no"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Two people compare the words: they must stand for everything in the file.
func TestWordsStandForTheWholeFile(t *testing.T) {
	seen := make(map[string]string)
	for role, p := range examplePeers(t) {
		fields := reflect.ValueOf(&p).Elem()
		note := func(what string) {
			words, err := p.Words()
			if err != nil || !regexp.MustCompile(`^([A-Z2-7]{4} ){5}[A-Z2-7]{4}$`).MatchString(words) {
				t.Fatalf("%q, %v", words, err)
			}
			if other, ok := seen[words]; ok {
				t.Errorf("%s of %s has the words of %s", what, role, other)
			}
			seen[words] = string(role) + " " + what
		}
		note("unchanged")
		for i := range fields.NumField() {
			name, old := fields.Type().Field(i).Name, reflect.New(fields.Field(i).Type()).Elem()
			old.Set(fields.Field(i))
			if old.IsZero() {
				continue
			}
			fields.Field(i).SetZero()
			note("without " + name)
			fields.Field(i).Set(old)
		}
	}
}

func FuzzParsePeer(f *testing.F) {
	for _, p := range examplePeers(f) {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"party":"a","role":"world","sensitivity":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePeer(data)
		if err != nil {
			return
		}
		if p.Role == World {
			p.Clearance()
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParsePeer(again)
		if err != nil {
			t.Fatalf("%s is written and not read: %v", again, err)
		}
		before, _ := p.Words()
		if after, err := q.Words(); err != nil || before != after {
			t.Fatalf("%s has the words %q, then %q (%v)", again, before, after, err)
		}
	})
}
