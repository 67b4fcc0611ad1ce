package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/access"
	"carnet/identity"
	"carnet/node"
)

func TestErrorsAreOneLineWithAFix(t *testing.T) {
	u := newUser(t)
	u.does("party", "init", "--role=world", "--party=arena", "--dir=arena", "--purpose=fitness", "--sensitivity=public")
	u.does("party", "init", "--role=depot", "--party=vault", "--dir=vault")
	u.does("party", "init", "--role=things", "--party=hub", "--dir=hub")
	if err := os.Mkdir(filepath.Join(u.dir, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"left", "among/one", "among/taken"} {
		if err := os.MkdirAll(filepath.Join(u.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	u.write("left/batches.bin", "")
	u.write("among/one/batches.bin", "")
	u.write("half.json", `{"version":1`)
	u.does("console", "user", "alice", "--role=administrator", "--users=users.json", "--generate")
	open := filepath.Join(u.dir, "open.json")
	u.write("open.json", `{"version":1}`)
	u.write("run.csv", "t,hr,mood\n1,60,3\n2,61,4\n")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	id := carnet.NewAvatarID().String()
	t.Chdir(u.dir)
	t.Setenv("CARNET_ACCESS", "")
	tests := []struct {
		name string
		args string
		code int
		want string
	}{
		{"help for what isn't there", "help nonsense", 2, "unexpected argument nonsense"},
		{"unknown command", "dance", 2, "dance"},
		{"unknown flag", "thing list --dance", 2, "see carnet thing list --help"},
		{"missing argument", "avatar show", 2, "see carnet avatar show --help"},
		{"missing flag", "thing map w", 2, "--world"},
		{"a value like a flag", "demo --speed -1", 2, "--speed wants a value, and -1 looks like a flag; if it is meant, write --speed=-1"},
		{"a value below what may be", "demo --speed=-1", 2, "want a number above 0, or max"},
		{"a unit of time that isn't", "demo --for 400d", 2, "write a time as 90s, 5m or 720h, in the units h, m, s and ms"},
		{"not an id", "avatar show 12", 2, "carnet: argument ID: avatar id has 2 characters, want 32 hexadecimal digits"},
		{"log level", "world --config arena/carnet.toml --log-level loud", 2, "loud"},
		{"format", "avatar history " + id + " --format=yaml", 2, "yaml"},

		{"a speed", "demo --speed fast", 2, "a number above 0, or max; see carnet demo --help"},
		{"a port base", "demo --port-base 70000", 2, "see carnet demo --help"},
		{"no time at all", "demo --for=0s", 2, "want a time above 0"},
		{"a time that isn't one", "demo --for=-3s", 2, "see carnet demo --help"},
		{"columns", "demo --columns x", 2, "see carnet demo --help"},

		{"configuration of another role", "things --config arena/carnet.toml", 1, "run: carnet world --config"},
		{"no configuration", "things --config nowhere.toml", 1, "nowhere.toml: no such file or directory; name one that is there"},
		{"a directory for a file", "owner hand-over empty --access=arena/access.json", 1, "is a directory; name a file"},
		{"a mandate that is none", "owner hand-over open.json --access=arena/access.json", 1, "open.json holds no mandate; give what 'carnet owner approve' wrote"},
		{"columns of what the demo's things don't have", "demo --input run.csv --columns t=time(s),hr=heart_rate[beat/min],mood=mood", 1, `the columns name "mood", which the demo's watch doesn't have; it has heart_rate, steps`},
		{"columns that no file has", "demo --input run.csv --columns t=time(s),hr=heart_rate[beat/min],mood=stress --columns when=time(s),hr=heart_rate", 1, `no CSV file is read by the columns "when=time(s),hr=heart_rate"; leave them out`},
		{"columns in units that the demo's things don't have", "demo --input run.csv --columns t=time(s),hr=heart_rate[Hz],mood=stress", 1, `heart_rate has the unit "Hz", want "beat/min"`},

		{"a second party in a directory", "party init --role=depot --party=x --dir=arena", 1, "has a party already"},
		{"a world that may hold anything", "party init --role=world --party=x --dir=x --purpose=y", 1, "--sensitivity"},
		{"a depot with a purpose", "party init --role=depot --party=x --dir=x --purpose=y", 1, "are a world's"},
		{"a depot for devices", "party init --role=depot --party=x --dir=x --listen-mqtt=localhost:1", 1, "role things"},
		{"a port that nobody knows", "party init --role=depot --party=x --dir=x --listen-r2=localhost:0", 1, "name a host and a port"},
		{"a party's name", "party init --role=depot --party=X --dir=x", 1, "party id"},
		{"every address, and none that others know", "party init --role=depot --party=x --dir=x --listen-r2=:9443", 1, "name it with --host"},
		{"a host with a port", "party init --role=depot --party=x --dir=x --host=vault.example.org:9443", 1, "without a port"},

		{"nothing that is accepted", "peer accept hub --access=arena/access.json", 1, "name an invitation's file"},
		{"an invitation that isn't there", "peer accept hub nowhere --access=arena/access.json", 1, "nowhere: no such file or directory; name one that is there"},
		{"peers of a party that doesn't run", "peer list --access=arena/access.json", 1, "does not answer"},

		{"joined over what is there", "access join arena/access.json --out=open.json", 1, "open.json is there already; name another file with --out"},
		{"joined with what others read", "access join arena/access.json open.json --out=mine.json", 1, "chmod 600"},

		{"no access file", "thing list", 1, "--access FILE or CARNET_ACCESS"},
		{"an access file that others read", "thing list --access=open.json", 1, "chmod 600"},
		{"half an access file", "thing list --access=half.json", 1, "half.json"},
		{"a party of another role", "thing list --access=arena/access.json", 1, `role "things"`},
		{"a party that isn't there", "thing list --access=arena/access.json --party=hub", 1, "name one of: arena"},
		{"a token that isn't there", "avatar list --access=arena/access.json --as=bob", 1, `the name "bob"`},
		{"a party that doesn't run", "avatar list --access=vault/access.json --party=vault", 1, `role "depot"`},
		{"a limit", "avatar history --limit=0 " + id, 1, "--limit is 0"},
		{"a time", "avatar history --from=yesterday " + id, 1, "2026-11-01T10:00:00Z"},

		{"a console that nobody may sign in at", "console --access=arena/access.json --users=nobody.json", 1, "carnet console user NAME"},
		{"a console with half a certificate", "console --access=arena/access.json --users=users.json --certificate=half.json", 1, "--key"},
		{"a console in the clear for everybody", "console --access=arena/access.json --users=users.json --listen=0.0.0.0:0", 1, "loopback"},
		{"a user without a role", "console user bob --users=users.json", 1, "--role"},
		{"a user without a password", "console user bob --users=users.json --role=user", 1, "8 to 256 bytes"},
		{"a user who isn't there", "console user bob --users=users.json --remove", 1, `no user "bob"`},

		{"verify nothing", "verify nowhere", 2, "nowhere"},
		{"verify an empty directory", "verify empty", 2, "empty holds no evidence bundle"},
		{"verify a party's directory", "verify arena", 2, "arena holds no evidence bundle"},
		{"verify a file that is no manifest", "verify open.json", 2, "open.json is no bundle's manifest"},
		{"verify what is left of a bundle", "verify left", 1, ""},
		{"verify what is left of a bundle, among others", "verify among", 1, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := inside(t, strings.Fields(test.args)...)
			if r.code != test.code || !strings.Contains(r.err, test.want) {
				t.Errorf("exit code %d, want %d; said %q, want %q", r.code, test.code, r.err, test.want)
			}
			if test.want != "" && (!strings.HasPrefix(r.err, "carnet: ") || strings.Count(r.err, "\n") != 1) {
				t.Errorf("not one line: %q", r.err)
			}
		})
	}
}

// inside runs a command in this process.
func inside(t *testing.T, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, streams{strings.NewReader(""), &out, &errs})
	return result{out.String(), errs.String(), code}
}

// A party's hosts are in its certificate: at first, and after a renewal when
// they have changed. A party whose certificate lacks one doesn't start.
func TestThePartysHostsAreInItsCertificate(t *testing.T) {
	u := newUser(t)
	u.does("party", "init", "--role=depot", "--party=vault", "--dir=vault", "--host=vault.example.org", "--host=127.0.0.2",
		"--listen-http="+address(t), "--listen-r2="+address(t))
	if text := u.read("vault/access.json"); !strings.Contains(text, `"https://vault.example.org:`) {
		t.Errorf("the access file names another host:\n%s", text)
	}
	u.does("party", "init", "--role=things", "--party=hub", "--dir=hub", "--host=hub.example.org")
	if text := u.read("hub/carnet.toml"); !strings.Contains(text, "http = ':8443'") || !strings.Contains(text, "mqtt = ':8883'") {
		t.Errorf("a party for others listens on\n%s", text)
	}
	reaches := func(host string) error {
		f, err := access.Read(filepath.Join(u.dir, "vault/access.json"))
		if err != nil {
			t.Fatal(err)
		}
		config, err := f.TLS(f.Parties[0])
		if err != nil {
			t.Fatal(err)
		}
		config.ServerName = host
		party, err := node.ReadConfig(filepath.Join(u.dir, "vault/carnet.toml"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.Dial("tcp", party.Listen.HTTP, config)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	vault := u.runs("depot", "vault")
	before := u.invites("vault", "one")
	if !strings.HasPrefix(before.R2, "https://vault.example.org:") {
		t.Errorf("peers are told of another host: %+v", before)
	}
	for _, host := range []string{"vault.example.org", "127.0.0.2", "localhost", "127.0.0.1"} {
		if err := reaches(host); err != nil {
			t.Errorf("as %s: %v", host, err)
		}
	}
	if reaches("vault.example.com") == nil {
		t.Error("the certificate is for a host that nobody named")
	}
	vault.stop(syscall.SIGTERM)

	u.write("vault/carnet.toml", strings.Replace(u.read("vault/carnet.toml"), "vault.example.org", "vault.example.com", 1))
	if r := u.try("", "depot", "--config=vault/carnet.toml"); r.code != 1 || !strings.Contains(r.err, "carnet party certificate --config") {
		t.Errorf("it started without a certificate for its host: %+v", r)
	}
	u.sees([]string{"ca.pem"}, "party", "certificate", "--config=vault/carnet.toml")
	u.runs("depot", "vault")
	if after := u.invites("vault", "other"); after.Pin != before.Pin || !after.Key.Equal(before.Key) {
		t.Errorf("peers see another certificate: %+v", after)
	}
	if err := reaches("vault.example.com"); err != nil {
		t.Error(err)
	}
}

// invites has a running depot invite a peer, and returns what it shows it.
func (u user) invites(party, name string) identity.Peer {
	u.t.Helper()
	f, err := access.Read(filepath.Join(u.dir, party, accessFile))
	if err != nil {
		u.t.Fatal(err)
	}
	config, err := node.ReadConfig(filepath.Join(u.dir, party, configFile))
	if err != nil {
		u.t.Fatal(err)
	}
	f.Parties[0].HTTP = "https://" + config.Listen.HTTP // whatever name others find it by
	if err := f.Write(filepath.Join(u.dir, party, "near.json")); err != nil {
		u.t.Fatal(err)
	}
	message := u.does("peer", "invite", name, "--scope=r2", "--access="+party+"/near.json")
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(message, ".")[1])
	if err != nil {
		u.t.Fatal(err)
	}
	var v struct {
		Terms struct{ Inviter identity.Peer }
	}
	if err := json.Unmarshal(payload, &v); err != nil {
		u.t.Fatal(err)
	}
	return v.Terms.Inviter
}

// One access file is made of several, and reaches their parties from where it lies.
func TestAccessFilesAreJoined(t *testing.T) {
	u := newUser(t)
	for _, name := range []string{"vault", "attic"} {
		u.does("party", "init", "--role=depot", "--party="+name, "--dir=parties/"+name, "--listen-http="+address(t), "--listen-r2="+address(t))
	}
	if err := os.Mkdir(filepath.Join(u.dir, "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.sees([]string{"mine/all.json reaches vault, attic"}, "access", "join", "parties/vault/access.json", "parties/attic/access.json", "--out=mine/all.json")
	if info, err := os.Stat(filepath.Join(u.dir, "mine/all.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info, err)
	}
	vault := u.starts("depot", "--config=parties/vault/carnet.toml")
	vault.says(vault.err, "party runs")
	u.sees([]string{"vault"}, "status", "--access=mine/all.json", "vault")
	r := u.try("", "status", "--access=mine/all.json")
	if r.code != 1 || !strings.Contains(r.out, "vault") || !strings.Contains(r.err, "carnet: attic: ") || !strings.Contains(r.err, "does not answer: nothing listens there (connection refused)") {
		t.Errorf("one that doesn't run hides nobody: %+v", r)
	}
	r = u.try("", "peer", "list", "--access=mine/all.json")
	if r.code != 1 || !strings.Contains(r.out, "There are no peers.") || strings.Count(r.err, "carnet: attic: ") != 1 {
		t.Errorf("nor in a list: %+v", r)
	}
}

func TestAnInterruptIsNoError(t *testing.T) {
	u := newUser(t)
	u.does("party", "init", "--role=world", "--party=arena", "--dir=arena", "--purpose=fitness", "--sensitivity=public", "--listen-http="+address(t))
	file := "--access=" + filepath.Join(u.dir, "arena", accessFile)
	if r := inside(t, "avatar", "list", file); r.code != 1 || !strings.Contains(r.err, "does not answer") {
		t.Errorf("a party that doesn't run: %+v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"avatar", "list", file}, streams{nil, &out, &errs}); code != exitInterrupted || errs.Len() > 0 {
		t.Errorf("interrupted: exit code %d, %q", code, errs.String())
	}
}

func TestAPartyIsMadeOfFilesForItsOwnerOnly(t *testing.T) {
	u := newUser(t)
	u.does("party", "init", "--role=world", "--party=arena", "--dir=arena", "--purpose=fitness", "--sensitivity=health+location", "--residency=de,fr")
	err := filepath.Walk(filepath.Join(u.dir, "arena"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 && info.Name() != caFile {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := node.ReadConfig(filepath.Join(u.dir, "arena", configFile))
	if err != nil {
		t.Fatal(err)
	}
	if w := config.World; w.Purpose != "fitness" || w.Sensitivity != "health+location" || strings.Join(w.Residency, " ") != "de fr" {
		t.Errorf("it is to show %+v", w)
	}
}

func (u user) read(name string) string {
	u.t.Helper()
	data, err := os.ReadFile(filepath.Join(u.dir, name))
	if err != nil {
		u.t.Fatal(err)
	}
	return string(data)
}

func TestATokenLeavesTheRestOfAConfiguration(t *testing.T) {
	u := newUser(t)
	u.does("party", "init", "--role=depot", "--party=vault", "--dir=vault")
	before := u.read("vault/carnet.toml")
	const name = "Zoë \"Z\" \\ \n[store]"
	out := u.does("party", "token", "--config=vault/carnet.toml", name, "--role=administrator")
	after := u.read("vault/carnet.toml")
	if !strings.HasPrefix(after, before) {
		t.Error("what was there has changed")
	}
	if token := words(out); strings.Contains(after, token[len(token)-1]) {
		t.Error("the token itself is in the configuration")
	}
	if r := u.try("", "party", "token", "--config=vault/carnet.toml", name, "--role=administrator"); r.code != 1 || !strings.Contains(r.err, "a token already") {
		t.Errorf("a second token of one name: %+v", r)
	}
	if r := u.try("", "party", "token", "--config=vault/carnet.toml", "bob", "--role=service"); r.code != 1 || !strings.Contains(r.err, "name one of: administrator, auditor") {
		t.Errorf("a token for what the party doesn't have: %+v", r)
	}

	// An access file for another one, who reaches the party with it alone.
	u.does("party", "token", "--config=vault/carnet.toml", "bob", "--role=administrator", "--out=bob.json")
	f, err := access.Read(filepath.Join(u.dir, "bob.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Tokens) != 1 || f.Tokens[0].Name != "bob" || f.Parties[0].Config != "" || u.read(f.Parties[0].CAFile) != u.read("vault/ca.pem") {
		t.Errorf("bob is given %+v", f)
	}
	if all := reads[[]shownToken](u, "party", "token", "list", "--config=vault/carnet.toml"); len(all) != 3 || all[2].Name != "bob" {
		t.Errorf("the tokens are %+v", all)
	}
	u.does("party", "token", "remove", "--config=vault/carnet.toml", "bob")
	if now := u.read("vault/carnet.toml"); strings.TrimSpace(now) != strings.TrimSpace(after) {
		t.Errorf("after it was removed:\n%s\nbefore:\n%s", now, after)
	}
	if r := u.try("", "party", "token", "remove", "--config=vault/carnet.toml", "bob"); r.code != 1 || !strings.Contains(r.err, "nobody called") {
		t.Errorf("a token that isn't there: %+v", r)
	}

	inline := strings.Replace(before, "[[tokens]]", "[later]", 1)
	u.write("inline.toml", inline)
	if r := u.try("", "party", "token", "--config=inline.toml", "bob", "--role=administrator"); r.code != 1 {
		t.Errorf("a configuration that can't be read: %+v", r)
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-01T10:00:00Z":      "2026-11-01T10:00:00Z",
		"2026-11-01T10:00:00+02:00": "2026-11-01T08:00:00Z",
		"1700000000":                "2023-11-14T22:13:20Z",
		"1700000000.25":             "2023-11-14T22:13:20.25Z",
		"1700000000.123456789":      "2023-11-14T22:13:20.123456789Z",
	} {
		if got, err := parseTime("--from", text); err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%s is %v (%v), want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"1.0000000001", "1.-5", "1e9", "now", "2026-11-01", ".5"} {
		if got, err := parseTime("--from", text); err == nil {
			t.Errorf("%s is %v", text, got)
		}
	}
}

func TestCellsDontSteerTheTerminal(t *testing.T) {
	var b strings.Builder
	rows := table{{"A", "B"}}
	rows.add("x\x1b[2Jy\nz\tw", "ü")
	if err := rows.write(&b); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.ContainsAny(got, "\x1b\t") || strings.Count(got, "\n") != 2 || !strings.Contains(got, "ü") {
		t.Errorf("%q", got)
	}
}

// A column is aligned over all rows, also where a cell of it, and all after it, is empty.
func TestColumnsAreAligned(t *testing.T) {
	var b strings.Builder
	if err := (table{{"A", "B", "C"}, {"one", "", "x"}, {"two"}, {"three", "wide cell", "y"}}).write(&b); err != nil {
		t.Fatal(err)
	}
	if want := "A      B          C\none               x\ntwo\nthree  wide cell  y\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
