package access

import (
	"os"
	"path/filepath"
	"testing"

	"carnet"
)

// Files of several directories become one in another, whose paths lead to the same files.
func TestFilesAreJoined(t *testing.T) {
	root := t.TempDir()
	write := func(party, role, http string) *File {
		t.Helper()
		dir := filepath.Join(root, party)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f := full()
		f.Parties = f.Parties[:1]
		f.Parties[0].Name, f.Parties[0].HTTP, f.Parties[0].CAFile, f.Parties[0].Config = carnet.PartyID(party), http, "ca.pem", "carnet.toml"
		f.Tokens = []Token{{Party: carnet.PartyID(party), Name: "operator", Role: "administrator", Token: party}}
		f.Things, f.Avatars = nil, nil
		path := filepath.Join(dir, "access.json")
		if err := f.Write(path); err != nil {
			t.Fatal(err)
		}
		read, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		return read
	}
	hub, other := write("hub", "things", "https://localhost:1"), write("other", "things", "https://localhost:2")
	mine := filepath.Join(root, "mine")
	if err := os.MkdirAll(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	f := &File{Version: Version}
	for _, one := range []*File{hub, other, hub} { // one twice: it is there once
		if err := f.Join(one, mine); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(mine, "all.json")
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	joined, err := Read(path)
	if err != nil || len(joined.Parties) != 2 || len(joined.Tokens) != 2 {
		t.Fatalf("joined: %+v, %v", joined, err)
	}
	for _, p := range joined.Parties {
		if want := filepath.Join(root, string(p.Name), "ca.pem"); joined.Path(p.CAFile) != want || filepath.IsAbs(p.CAFile) {
			t.Errorf("the certificate of %s is %s", p.Name, p.CAFile)
		}
	}
	hub.Parties[0].HTTP = "https://localhost:3"
	if err := f.Join(hub, mine); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("another party of one name: %v", err)
	}
}
