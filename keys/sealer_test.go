package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"carnet"
)

func TestSealer(t *testing.T) {
	ctx := t.Context()
	table := create(t, newKEK(t), newMemory())
	first, second, short := ID{"column", "1"}, ID{"column", "2"}, ID{"column", "short"}
	if _, err := table.Make(ctx, first, second); err != nil {
		t.Fatal(err)
	}
	if err := table.Put(ctx, Entry{short, []byte("16 bytes of key.")}); err != nil {
		t.Fatal(err)
	}
	old, err := table.Sealer(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	both, err := table.Sealer(ctx, second, first)
	if err != nil {
		t.Fatal(err)
	}
	place, plain := []byte("avatar/7/name"), []byte("a resting heart rate")
	sealed, err := old.Seal([]byte("before"), place, plain)
	if err != nil {
		t.Fatal(err)
	}
	sealed = sealed[len("before"):]
	if len(sealed) != len(plain)+Overhead || bytes.Contains(sealed, plain[:6]) {
		t.Errorf("sealed value of %d bytes is %x", len(sealed), sealed)
	}
	got, err := both.Open([]byte("x"), place, sealed)
	if err != nil || string(got) != "x"+string(plain) {
		t.Errorf("under the older key: %q, %v", got, err)
	}
	newer, err := both.Seal(nil, place, plain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Open(nil, place, newer); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("under a key that is not at hand: %v", err)
	}
	if _, err := old.Open(nil, []byte("avatar/8/name"), sealed); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("in another place: %v", err)
	}
	for bit := range len(sealed) * 8 {
		flipped := bytes.Clone(sealed)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := both.Open(nil, place, flipped); err == nil {
			t.Errorf("bit %d flipped: opened", bit)
		}
	}
	for n := range sealed {
		if _, err := both.Open(nil, place, sealed[:n]); err == nil {
			t.Errorf("first %d bytes: opened", n)
		}
	}
	for _, ids := range [][]ID{{first, first}, {short}, {{"column", "absent"}}} {
		if _, err := table.Sealer(ctx, ids[0], ids[1:]...); err == nil {
			t.Errorf("made a sealer of %v", ids)
		}
	}
	both.sealed.Store(sealerMost)
	if _, err := both.Seal(nil, place, plain); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("one value too many: %v", err)
	}
}

func TestSigner(t *testing.T) {
	ctx := t.Context()
	table := create(t, newKEK(t), newMemory())
	id := ID{"signer", "arena"}
	made, err := table.MakeSigner(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	got, err := table.Signer(ctx, id)
	if err != nil || !got.Equal(made) {
		t.Fatalf("another key: %v", err)
	}
	if !ed25519.Verify(made.Public().(ed25519.PublicKey), []byte("m"), ed25519.Sign(got, []byte("m"))) {
		t.Error("the key doesn't sign")
	}
	if _, err := table.MakeSigner(ctx, id); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("made over a signer: %v", err)
	}
	if err := table.Put(ctx, Entry{ID{"signer", "x"}, []byte("short")}); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Signer(ctx, ID{"signer", "x"}); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a short seed: %v", err)
	}
}

func certificate(kind KeyType) Certificate {
	return Certificate{Key: kind, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
}

// TestCertificatesMakeMutualTLS connects two peers that know each other by pin.
func TestCertificatesMakeMutualTLS(t *testing.T) {
	ctx := t.Context()
	table := create(t, newKEK(t), newMemory())
	for _, kind := range []KeyType{Ed25519, P256} {
		id := ID{"tls", "server"}
		server, err := table.MakeCertificate(ctx, id, certificate(kind))
		if err != nil {
			t.Fatal(err)
		}
		again, err := table.Certificate(ctx, id)
		if err != nil || !bytes.Equal(again.Certificate[0], server.Certificate[0]) {
			t.Fatalf("kept another certificate: %v", err)
		}
		client, err := table.MakeCertificate(ctx, ID{"tls", "client"}, certificate(kind))
		if err != nil {
			t.Fatal(err)
		}
		if server.Leaf.SerialNumber.Cmp(client.Leaf.SerialNumber) == 0 || server.Leaf.Subject.CommonName == client.Leaf.Subject.CommonName {
			t.Error("two certificates share serial number or name")
		}
		if err := handshake(again, client, Pin(server.Leaf), Pin(client.Leaf)); err != nil {
			t.Errorf("key type %d: %v", kind, err)
		}
		if err := handshake(again, client, Pin(server.Leaf), Pin(server.Leaf)); err == nil {
			t.Errorf("key type %d: the wrong client's pin was accepted", kind)
		}
		if err := table.Destroy(ctx, id, ID{"tls", "client"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []Certificate{{}, {Key: 9, NotAfter: time.Now()}, {Key: P256}} {
		if _, err := table.MakeCertificate(ctx, ID{"tls", "x"}, c); err == nil {
			t.Errorf("made a certificate of %+v", c)
		}
	}
	if err := table.Put(ctx, Entry{ID{"tls", "y"}, []byte{0, 0, 0, 9, 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Certificate(ctx, ID{"tls", "y"}); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a cut-off certificate: %v", err)
	}
}

func handshake(server, client tls.Certificate, serverPin, clientPin carnet.Fingerprint) error {
	pinned := func(own tls.Certificate, pin carnet.Fingerprint) *tls.Config {
		return &tls.Config{
			Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
			InsecureSkipVerify: true, // the pin is checked instead
			VerifyConnection: func(s tls.ConnectionState) error {
				if Pin(s.PeerCertificates[0]) != pin {
					return errors.New("another pin")
				}
				return nil
			},
		}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		err := tls.Server(a, pinned(server, clientPin)).Handshake()
		a.Close()
		done <- err
	}()
	err := tls.Client(b, pinned(client, serverPin)).Handshake()
	b.Close()
	return errors.Join(<-done, err)
}

func TestPinIsOfThePublicKey(t *testing.T) {
	table := create(t, newKEK(t), newMemory())
	c, err := table.MakeCertificate(t.Context(), ID{"tls", "x"}, certificate(Ed25519))
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(c.Leaf.PublicKey)
	if err != nil || Pin(c.Leaf) != carnet.FingerprintOf(spki) {
		t.Errorf("pin %s is not the hash of the public key: %v", Pin(c.Leaf), err)
	}
}

func TestKeyFile(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, "kek")
	kek, err := CreateFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	wrapped, err := kek.Wrap(ctx, []byte("context"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenFile(path)
	if err != nil || again.ID() != kek.ID() {
		t.Fatalf("opened as %v, %v", again, err)
	}
	if got, err := again.Unwrap(ctx, []byte("context"), wrapped); err != nil || string(got) != "secret" {
		t.Errorf("unwrapped %q, %v", got, err)
	}
	if _, err := again.Unwrap(ctx, []byte("other"), wrapped); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("in another context: %v", err)
	}
	if _, err := newKEK(t).Unwrap(ctx, []byte("context"), wrapped); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("by another key: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CreateFile(path); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("created over a key: %v", err)
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, text) {
		t.Error("the refused CreateFile changed the key")
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o660, 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(path); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := OpenFile(filepath.Join(dir, "absent")); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("absent: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "absent")); err == nil {
		t.Error("OpenFile made a file")
	}
	if _, err := OpenFile(dir); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a directory: %v", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(pipe); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a FIFO: %v", err)
	}
	for name, content := range map[string][]byte{
		"empty": nil, "title only": text[:len(fileTitle)], "cut off": text[:len(text)-3],
		"longer": append(bytes.Clone(text), "00"...), "other title": append([]byte("x"), text...),
	} {
		p := filepath.Join(dir, "bad")
		if err := os.WriteFile(p, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(p); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkSealer(b *testing.B) {
	store, kek := newMemory(), &FileKEK{id: "bench"}
	var err error
	if kek.aead, err = newAEAD(make([]byte, 32)); err != nil {
		b.Fatal(err)
	}
	table, err := Create(b.Context(), Config{KEK: kek, Store: store})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := table.Make(b.Context(), ID{"column", "1"}); err != nil {
		b.Fatal(err)
	}
	s, err := table.Sealer(b.Context(), ID{"column", "1"})
	if err != nil {
		b.Fatal(err)
	}
	plain, sealed, opened := make([]byte, 265), make([]byte, 0, 1024), make([]byte, 0, 1024)
	aad := []byte("avatar")
	b.ReportAllocs()
	for b.Loop() {
		out, err := s.Seal(sealed, aad, plain)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Open(opened, aad, out); err != nil {
			b.Fatal(err)
		}
	}
}
