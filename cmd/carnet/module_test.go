package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carnet/api"
	"carnet/modules/moduletest"
)

// An operator has a module signed, looks at it, hands it on and ends it.
func TestAModuleOfOnesOwn(t *testing.T) {
	program := moduletest.Build(t, "heartzones")
	u := newUser(t)
	for name, flags := range map[string][]string{
		"arena": {"--role=world", "--listen-link=" + address(t), "--purpose=fitness", "--sensitivity=personal+health"},
		"vault": {"--role=depot", "--listen-r2=" + address(t)},
	} {
		u.does(append([]string{"party", "init", "--party=" + name, "--dir=" + name, "--listen-http=" + address(t)}, flags...)...)
	}
	u.runs("depot", "vault")
	u.runs("world", "arena")
	u.peers("vault", "arena", "arena", "vault", "--scope=r2")
	if err := os.WriteFile(filepath.Join(u.dir, "zones.wasm"), program, 0o600); err != nil {
		t.Fatal(err)
	}
	u.write("half.wasm", string(program[:len(program)/2]))
	module := func(args ...string) []string {
		return append(append([]string{"module"}, args...), "--access=arena/access.json")
	}
	refuses := func(says string, args ...string) {
		t.Helper()
		if r := u.try("", module(args...)...); r.code != 1 || !strings.Contains(r.err, says) {
			t.Errorf("carnet module %s: %+v, want %q", strings.Join(args, " "), r, says)
		}
	}

	refuses("no name, or no version", "add", "zones.wasm", "--name=zones")
	refuses("doesn't compile", "add", "half.wasm", "--name=zones", "--version=1.0.0")
	u.sees([]string{"zones@1.0.0", "heart_rate, speed", "did:key:", "may run"}, module("add", "zones.wasm", "--name=zones", "--version=1.0.0", "--reads=speed", "--reads=heart_rate")...)
	refuses("a version is signed once", "add", "zones.wasm", "--name=zones", "--version=1.0.0")
	u.sees([]string{"zones@1.0.0", "may run"}, module("list")...)
	refuses("there is no module", "show", "zones@2")
	refuses("isn't revoked", "show", "zones@1.0.0", "--revocation")
	shown := reads[api.Module](u, module("show", "zones@1.0.0")...)
	if shown.Program.Size != int64(len(program)) || u.does(module("show", "zones@1.0.0", "--record")...) != shown.Record+"\n" {
		t.Errorf("it is shown as %+v", shown)
	}

	u.write("zones.record", shown.Record+"\n")
	refuses("there already", "add", "zones.wasm", "--record=zones.record")
	u.write("forged.record", shown.Record[:len(shown.Record)-4]+"AAAA\n")
	refuses("isn't by who it says", "add", "zones.wasm", "--record=forged.record")
	refuses("carnet-revocation-module+jwt", "revoke", "zones@1.0.0", "--revocation=zones.record")

	u.sees([]string{"revoked by its publisher", "it counts twice"}, module("revoke", "zones@1.0.0", "--why=it counts twice")...)
	u.sees([]string{"revoked by its publisher"}, module("list")...)
	refuses("revoked already: it counts twice", "revoke", "zones@1.0.0", "--why=again")
	if r := reads[api.Module](u, module("show", "zones@1.0.0")...).Revoked; r == nil || u.does(module("show", "zones@1.0.0", "--revocation")...) != r.Revocations[0]+"\n" {
		t.Errorf("it is revoked as %+v", r)
	}
}
