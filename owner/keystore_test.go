package owner

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/identity"
)

var (
	secret  = []byte("correct horse battery")
	quick   = Params{Time: 1, MemoryKiB: minMemoryKiB, Lanes: 1}
	at      = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	runner  = carnet.AvatarID{1}
	patient = carnet.AvatarID{2}
)

func public(b byte) ed25519.PublicKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = b
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}

func arena() World  { return World{"arena", public(1)} }
func clinic() World { return World{"clinic", public(2)} }

func made(t *testing.T) (path string, k *Keystore) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keys.json")
	k, err := Create(path, secret, quick)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return path, k
}

// again closes a keystore and opens it anew.
func again(t *testing.T, path string, k *Keystore) *Keystore {
	t.Helper()
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k, err := Open(path, secret)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func key(t *testing.T, k *Keystore, w World) ed25519.PrivateKey {
	t.Helper()
	key, err := k.Key(w)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestEachWorldHasAKeyOfItsOwn(t *testing.T) {
	path, k := made(t)
	one := key(t, k, arena())
	two := key(t, k, clinic())
	namesake := key(t, k, World{"arena", public(3)})
	if one.Equal(two) || one.Equal(namesake) || two.Equal(namesake) {
		t.Error("two worlds have one key")
	}
	k = again(t, path, k)
	if !key(t, k, arena()).Equal(one) || !key(t, k, clinic()).Equal(two) || !key(t, k, World{"arena", public(3)}).Equal(namesake) {
		t.Error("a world has another key than before")
	}
	worlds := k.Worlds()
	if len(worlds) != 3 || worlds[0].World != "arena" || worlds[0].Owner != identity.DID(one.Public().(ed25519.PublicKey)) {
		t.Errorf("the worlds are %+v", worlds)
	}
	_, other := made(t)
	if key(t, other, arena()).Equal(one) {
		t.Error("two keystores have one key")
	}
}

func TestTheFileShowsNothing(t *testing.T) {
	path, k := made(t)
	private := key(t, k, arena())
	if err := k.Pinned(arena(), runner); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, what := range map[string][]byte{
		"the world": []byte("arena"), "the avatar": []byte(runner.String()), "the passphrase": secret, "the seed": private.Seed(),
		"the owner": []byte(identity.DID(private.Public().(ed25519.PublicKey))),
	} {
		text, _ := json.Marshal(what)
		if bytes.Contains(data, what) || bytes.Contains(data, bytes.Trim(text, `"`)) {
			t.Errorf("the file has %s in the clear", name)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	var clear map[string]json.RawMessage
	if err := json.Unmarshal(data, &clear); err != nil || len(clear) != 4 {
		t.Errorf("the file has the members %v, %v", clear, err)
	}
}

func TestAWrongPassphraseSaysSoAndNothingElse(t *testing.T) {
	path, k := made(t)
	key(t, k, arena())
	k.Close()
	for _, wrong := range []string{"", "correct horse batterz", "correct horse battery ", strings.Repeat("x", 1<<16)} {
		_, err := Open(path, []byte(wrong))
		if carnet.CodeOf(err) != carnet.Unauthenticated || err.Error() != "the passphrase is wrong" {
			t.Errorf("%.20q: %v", wrong, err)
		}
	}
	if k, err := Open(path, secret); err != nil {
		t.Errorf("the right one, afterwards: %v", err)
	} else {
		k.Close()
	}
}

func TestTwoProgramsDoNotHaveItOpenAtOnce(t *testing.T) {
	path, k := made(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, secret); carnet.CodeOf(err) != carnet.Conflict || !strings.Contains(err.Error(), "another program") {
		t.Errorf("opened a second time: %v", err)
	}
	if _, err := Create(path, secret, quick); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("made a second time: %v", err)
	}
	k.Close()
	if _, err := Create(path, secret, quick); carnet.CodeOf(err) != carnet.Conflict || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("made anew: %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, %v", err)
	}
}

func TestWeakPassphrasesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	if _, err := Create(path, []byte("short"), quick); carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), "12") {
		t.Errorf("a short one: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("something was made: %v", err)
	}
}

func TestFilesOfWeirdFormAreRefused(t *testing.T) {
	path, k := made(t)
	k.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]struct{ from, to string }{
		"another version":    {`"version":1`, `"version":2`},
		"another derivation": {`argon2id`, `argon2i`},
		"no passes":          {`"time":1`, `"time":0`},
		"many passes":        {`"time":1`, `"time":21`},
		"little memory":      {`"memory_kib":19456`, `"memory_kib":19455`},
		"much memory":        {`"memory_kib":19456`, `"memory_kib":1048577`},
		"more than there is": {`"memory_kib":19456`, `"memory_kib":4294967295`},
		"below zero":         {`"memory_kib":19456`, `"memory_kib":-1`},
		"no lane":            {`"lanes":1`, `"lanes":0`},
		"many lanes":         {`"lanes":1`, `"lanes":17`},
		"lanes in text":      {`"lanes":1`, `"lanes":"1"`},
		"more lanes than 8":  {`"lanes":1`, `"lanes":257`},
		"no salt":            {`"salt":"`, `"salt":"","pepper":"`},
		"a short salt":       {`"salt":"`, `"salt":"AAAA","salt":"AA==","x":"`},
		"an empty nonce":     {`"nonce":"`, `"nonce":"","x":"`},
		"nothing sealed":     {`"sealed":"`, `"sealed":"","x":"`},
		"another member":     {`{"version"`, `{"hint":"my dog","version"`},
		"a second object":    {"}\n", "}{}"},
		"cut short":          {`"}`, ``},
		"no JSON":            {`{"version"`, `version`},
	} {
		bad := strings.Replace(string(good), change.from, change.to, 1)
		if bad == string(good) {
			t.Fatalf("%s: %q isn't there", name, change.from)
		}
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, secret); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte(" "), maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, secret); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("a large one: %v", err)
	}
}

func TestEveryBitCounts(t *testing.T) {
	path, k := made(t)
	key(t, k, arena())
	k.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parse(good)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string) {
		t.Helper()
		data, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, secret); carnet.CodeOf(err) != carnet.Unauthenticated {
			t.Errorf("%s: %v", what, err)
		}
	}
	f.KDF.Salt[0] ^= 1
	try("the salt")
	f.KDF.Salt[0] ^= 1
	f.Nonce[3] ^= 1
	try("the nonce")
	f.Nonce[3] ^= 1
	f.Sealed[10] ^= 1
	try("what is sealed")
	f.Sealed[10] ^= 1
	f.KDF.Lanes++
	try("the lanes")
	f.KDF.Lanes--
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err = Open(path, secret)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
}

func TestOthersMayNotTouchIt(t *testing.T) {
	path, k := made(t)
	k.Close()
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, secret); carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if _, err := Open(filepath.Join(filepath.Dir(path), "none.json"), secret); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(filepath.Dir(path), secret); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a directory: %v", err)
	}
}

func TestTheWayToTheFileStays(t *testing.T) {
	path, k := made(t)
	k.Close()
	way := filepath.Join(t.TempDir(), "way.json")
	if err := os.Symlink(path, way); err != nil {
		t.Fatal(err)
	}
	k, err := Open(way, secret)
	if err != nil {
		t.Fatal(err)
	}
	key(t, k, arena())
	k.Close()
	if to, err := os.Readlink(way); err != nil || to != path {
		t.Errorf("the way leads to %q, %v", to, err)
	}
	k, err = Open(path, secret)
	if err != nil || len(k.Worlds()) != 1 {
		t.Fatalf("%v", err)
	}
	k.Close()
}

// What a crash while writing leaves behind is the file as it was, and a draft.
func TestADraftThatACrashLeftIsWrittenOver(t *testing.T) {
	path, k := made(t)
	first := key(t, k, arena())
	k.Close()
	if err := os.WriteFile(path+".new", []byte(`{"version":1,`), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Open(path, secret)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if !key(t, k, arena()).Equal(first) {
		t.Error("the key is another")
	}
	key(t, k, clinic())
	if _, err := os.Lstat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("the draft is there: %v", err)
	}
}

func TestWhatCannotBeWrittenIsNotTaken(t *testing.T) {
	path, k := made(t)
	key(t, k, arena())
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".new", 0o700); err != nil { // nothing can be written there
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path+".new", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Key(clinic()); err == nil || !strings.Contains(err.Error(), "as it was") {
		t.Errorf("a key was shown that isn't on disk: %v", err)
	}
	if n := len(k.Worlds()); n != 1 {
		t.Errorf("the keystore has %d worlds", n)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, %v", err)
	}
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	key(t, k, clinic())
}

func FuzzParse(f *testing.F) {
	path := filepath.Join(f.TempDir(), "keys.json")
	k, err := Create(path, secret, quick)
	if err != nil {
		f.Fatal(err)
	}
	k.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"kdf":{"name":"argon2id","time":4294967295}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parse(data)
		if err == nil && (got.KDF.MemoryKiB > maxMemoryKiB || got.KDF.Time > maxTime || got.KDF.Lanes > maxLanes || len(got.Nonce) != nonceSize) {
			t.Fatalf("takes %+v", got.head)
		}
	})
}
