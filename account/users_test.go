package account

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"carnet"
)

func TestUsersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.json")
	want := []User{{"alice", "owner", cheap(t, "right-password")}}
	if err := WriteUsers(path, want); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := ReadUsers(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v; wrote %+v", got, err, want)
	}
	if data, _ := os.ReadFile(path); strings.Contains(string(data), "right-password") {
		t.Error("a password stands in the file")
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadUsers(path); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := New(Config{Users: filepath.Join(t.TempDir(), "none.json")}); carnet.CodeOf(err) != carnet.NotFound || !strings.Contains(err.Error(), "carnet console user") {
		t.Errorf("without a file: %v", err)
	}
}

func TestWhatIsNoUsersFile(t *testing.T) {
	hash, err := cheap(t, "right-password").MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	good := `{"version":1,"users":[{"name":"alice","role":"owner","password":"` + string(hash) + `"}]}`
	if _, err := parseUsers([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":              ``,
		"half":               good[:40],
		"more":               good + `{}`,
		"another version":    strings.Replace(good, `"version":1`, `"version":2`, 1),
		"an unknown member":  strings.Replace(good, `"version"`, `"admin":true,"version"`, 1),
		"a user's, too":      strings.Replace(good, `"role"`, `"admin":true,"role"`, 1),
		"no role":            strings.Replace(good, `"role":"owner",`, ``, 1),
		"a role of capitals": strings.Replace(good, `owner`, `Owner`, 1),
		"no name":            strings.Replace(good, `alice`, ``, 1),
		"a name with a line": strings.Replace(good, `alice`, `al\nice`, 1),
		"a long name":        strings.Replace(good, `alice`, strings.Repeat("a", 65), 1),
		"no password":        strings.Replace(good, `,"password":"`+string(hash)+`"`, ``, 1),
		"a plain password":   strings.Replace(good, string(hash), `right-password`, 1),
		"two of one name":    strings.Replace(good, `[{"name":"alice","role":"owner","password":"`+string(hash)+`"}`, `[{"name":"alice","role":"owner","password":"`+string(hash)+`"},{"name":"alice","role":"operator","password":"`+string(hash)+`"}`, 1),
		"another algorithm":  strings.Replace(good, `argon2id`, `argon2i`, 1),
		"another argon2":     strings.Replace(good, `v=19`, `v=16`, 1),
		"a cheap hash":       strings.Replace(good, `m=8192`, `m=8`, 1),
		"an endless hash":    strings.Replace(good, `m=8192`, `m=1048576`, 1),
		"endless passes":     strings.Replace(good, `t=1`, `t=1000`, 1),
		"no passes":          strings.Replace(good, `t=1`, `t=0`, 1),
		"many lanes":         strings.Replace(good, `p=1$`, `p=200$`, 1),
		"a short hash":       strings.Replace(good, string(hash), string(hash[:len(hash)-4]), 1),
		"no salt":            strings.Replace(good, `$AQAAAAAAAAAAAAAAAAAAAA$`, `$$`, 1),
		"another spelling":   strings.Replace(good, `m=8192`, `m=+8192`, 1),
	} {
		if text == good {
			t.Errorf("%s: the case changes nothing", name)
		}
		if users, err := parseUsers([]byte(text)); err == nil {
			t.Errorf("%s is taken: %+v", name, users)
		}
	}
}

func TestPasswords(t *testing.T) {
	p, err := NewPassword("correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	if p.memory != usualMemory || p.passes != usualPasses || p.lanes != usualLanes {
		t.Errorf("new passwords get %d, %d, %d", p.memory, p.passes, p.lanes)
	}
	if !p.is("correct horse battery") || p.is("correct horse batterz") || p.is("") {
		t.Error("a password is taken for another")
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", mostLength+1), "not utf8 \xff\xff"} {
		if _, err := NewPassword(bad); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if a, b := Generate(), Generate(); a == b || len(a) < 24 {
		t.Errorf("drawn %q and %q", a, b)
	}
	if _, err := NewPassword(Generate()); err != nil {
		t.Error(err)
	}
}

func FuzzPassword(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=3,p=4$AQAAAAAAAAAAAAAAAAAAAA$AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=1,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, text string) {
		var p Password
		if p.UnmarshalText([]byte(text)) != nil {
			return
		}
		again, err := p.MarshalText()
		if err != nil || string(again) != text {
			t.Errorf("%q is written %q, %v", text, again, err)
		}
	})
}
