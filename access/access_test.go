package access

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"carnet"
	"carnet/identity"
)

// full is a file with every member.
func full() *File {
	mapping := carnet.MappingID{1}
	return &File{
		Version: Version,
		Parties: []Party{
			{
				Name: "hub", Role: identity.Things, HTTP: "https://localhost:8443", MQTT: "localhost:8883",
				CAFile: "hub/ca.pem", Config: "hub/carnet.toml",
			},
			{Name: "arena", Role: identity.World, HTTP: "https://localhost:8444", Link: "localhost:7443"},
			{Name: "vault", Role: identity.Depot, HTTP: "https://localhost:8445", R2: "https://localhost:9443"},
		},
		Tokens: []Token{
			{Party: "hub", Name: "operator", Role: "administrator", Token: "t1"},
			{Party: "hub", Name: "alice", Role: "user", Token: "t2"},
			{Party: "hub", Name: "bob", Role: "user", Token: "t3"},
		},
		Things: []Thing{{
			ID: "watch-7", Password: "p", Party: "hub", Owner: "alice", TopicMeasurements: "things/watch-7/measurements",
			TopicRefusals: "things/watch-7/refusals", Encodings: []string{"application/senml+json"},
		}},
		Avatars:  []Avatar{{ID: carnet.AvatarID{7}, World: "arena", Thing: "watch-7", Mapping: &mapping}},
		Evidence: "evidence", Console: "https://localhost:8446",
		Users: []User{{Name: "alice", Role: "owner", Password: "p"}},
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.json")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := full()
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	want.dir = filepath.Dir(path)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read  %+v\nwrote %+v", got, want)
	}
	if left, _ := filepath.Glob(filepath.Join(want.dir, "*.new")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOthersMayNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.json")
	if err := full().Write(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o610, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		if carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestParse(t *testing.T) {
	const party = `{"name":"hub","role":"things","http":"https://h:1"}`
	tests := []struct{ name, text, want string }{
		{"unknown members are ignored", `{"version":1,"later":[1],"parties":[{"name":"hub","role":"things","http":"https://h:1","coap":"x"}],"tokens":[]}`, ""},
		{"another version", `{"version":2,"parties":[]}`, "version 2"},
		{"no version", `{"parties":[]}`, "version 0"},
		{"two objects", `{"version":1}{"version":1}`, "goes on"},
		{"half an object", `{"version":1`, "can't be read"},
		{"party without a name", `{"version":1,"parties":[{"role":"things","http":"https://h:1"}]}`, "party id"},
		{"role", `{"version":1,"parties":[{"name":"hub","role":"king","http":"https://h:1"}]}`, `role "king"`},
		{"a token in the clear", `{"version":1,"parties":[{"name":"hub","role":"things","http":"http://h:1"}]}`, "want https"},
		{"two of a name", `{"version":1,"parties":[` + party + `,` + party + `]}`, "two parties"},
		{"token of nobody", `{"version":1,"parties":[` + party + `],"tokens":[{"party":"hob","name":"x","role":"user","token":"t"}]}`, `"hob"`},
		{"thing of nobody", `{"version":1,"parties":[` + party + `],"things":[{"id":"w","party":"hob"}]}`, `"hob"`},
		{"avatar of nobody", `{"version":1,"parties":[` + party + `],"avatars":[{"id":"00112233445566778899aabbccddeeff","world":"hob"}]}`, `"hob"`},
		{"too large", `{"version":1,"console":"` + strings.Repeat("x", maxSize) + `"}`, "more than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse([]byte(test.text))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestAnInvalidFileIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.json")
	f := full()
	f.Tokens[0].Party = "nobody"
	if err := f.Write(path); err == nil {
		t.Error("written")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is there: %v", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "access.json"), filepath.Join(dir, "demo.json")
	if _, err := Find("", first, second); carnet.CodeOf(err) != carnet.NotFound || !strings.Contains(err.Error(), "--access") {
		t.Errorf("without any: %v", err)
	}
	demo := full()
	demo.Console = "demo"
	if err := errors.Join(demo.Write(second)); err != nil {
		t.Fatal(err)
	}
	if f, err := Find("", first, second); err != nil || f.Console != "demo" {
		t.Errorf("the second place: %+v, %v", f, err)
	}
	if err := full().Write(first); err != nil {
		t.Fatal(err)
	}
	if f, err := Find("", first, second); err != nil || f.Console == "demo" {
		t.Errorf("the first place: %+v, %v", f, err)
	}
	if f, err := Find(second, first); err != nil || f.Console != "demo" {
		t.Errorf("the one named: %+v, %v", f, err)
	}
	// A first place that can't be used is not passed over in silence.
	if err := os.Chmod(first, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Find("", first, second); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("an open first place: %v", err)
	}
}

func TestReaching(t *testing.T) {
	f := full()
	if p, err := f.Only(identity.World); err != nil || p.Name != "arena" {
		t.Errorf("the only world: %v, %v", p, err)
	}
	f.Parties = append(f.Parties, Party{Name: "clinic", Role: identity.World, HTTP: "https://localhost:1"})
	if _, err := f.Only(identity.World); err == nil || !strings.Contains(err.Error(), "arena, clinic") {
		t.Errorf("two worlds: %v", err)
	}
	if _, err := f.Party("nobody"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("no such party: %v", err)
	}
	for _, test := range []struct {
		name  string
		roles []string
		want  string
	}{
		{"", []string{"administrator", "user"}, "t1"},
		{"", []string{"user", "administrator"}, "t2"},
		{"bob", []string{"administrator", "user"}, "t3"},
		{"bob", []string{"administrator"}, "t3"}, // whom hub refuses then
		{"eve", []string{"administrator"}, ""},
		{"", []string{"service"}, ""},
	} {
		got, err := f.Token("hub", test.name, test.roles...)
		if got.Token != test.want || (err == nil) != (test.want != "") {
			t.Errorf("token %q of %v: %q, %v; want %q", test.name, test.roles, got.Token, err, test.want)
		}
	}
	if _, err := f.Token("arena", "", "administrator"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a token of another party was taken: %v", err)
	}
}

func TestNothingIsTrustedWithoutItsCertificate(t *testing.T) {
	dir := t.TempDir()
	f := full()
	f.dir = dir
	p := Party{Name: "hub", CAFile: "ca.pem"}
	if _, err := f.TLS(p); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that isn't there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.TLS(p); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a file without a certificate: %v", err)
	}
	if c, err := f.TLS(Party{Name: "hub"}); err != nil || c.RootCAs != nil || c.InsecureSkipVerify {
		t.Errorf("the system's: %+v, %v", c, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"parties":[{"name":"hub","role":"things","http":"https://h:1"}],"tokens":[{"party":"hub","name":"a","role":"user","token":"t"}]}`))
	f.Add([]byte(`{"version":1,"avatars":[{"id":"00","world":""}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "a.json")
		if err := file.Write(path); err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		if _, err := Read(path); err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
	})
}
