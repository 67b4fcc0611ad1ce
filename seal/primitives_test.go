package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// shared reads a file of the shared test data, which lies beside the
// repository, or where CARNET_DATA says.
func shared(t *testing.T, into any, path ...string) {
	t.Helper()
	dir := os.Getenv("CARNET_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skip("shared data not present")
	}
	data, err := os.ReadFile(filepath.Join(append([]string{dir}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

type wycheproof struct {
	TestGroups []struct {
		KeySize, TagSize, IVSize int
		PublicKey                struct{ PK hexBytes }
		Tests                    []struct {
			TcID                                             int
			Key, Msg, Tag, IKM, Salt, Info, OKM, IV, AAD, CT hexBytes
			Sig                                              hexBytes
			Size                                             int
			Result                                           string
		}
	}
}

func TestHMACAgainstWycheproof(t *testing.T) {
	var v wycheproof
	shared(t, &v, "wycheproof", "testvectors_v1", "hmac_sha256_test.json")
	ran := 0
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			if len(c.Key) != 32 || len(c.Msg) > 97 {
				continue
			}
			ran++
			got := mac((*[32]byte)(c.Key), c.Msg)
			if ok := bytes.Equal(got[:g.TagSize/8], c.Tag); ok != (c.Result == "valid") {
				t.Errorf("test %d: tag fits: %v, want %s", c.TcID, ok, c.Result)
			}
		}
	}
	if ran < 100 {
		t.Errorf("only %d tests fit", ran)
	}
}

func TestHKDFAgainstWycheproof(t *testing.T) {
	var v wycheproof
	shared(t, &v, "wycheproof", "testvectors_v1", "hkdf_sha256_test.json")
	ran := 0
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			if len(c.Info) > 64 || c.Result != "valid" {
				continue
			}
			ran++
			prk, err := hkdf.Extract(sha256.New, c.IKM, c.Salt)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, (c.Size+31)/32*32)
			expand(got, (*[32]byte)(prk), c.Info)
			if !bytes.Equal(got[:c.Size], c.OKM) {
				t.Errorf("test %d: got %x, want %x", c.TcID, got[:c.Size], c.OKM)
			}
		}
	}
	if ran < 50 {
		t.Errorf("only %d tests fit", ran)
	}
}

func TestExpandIsThatOfTheStandardLibrary(t *testing.T) {
	for n := range 65 {
		var key [32]byte
		info := make([]byte, n)
		rand.Read(key[:])
		rand.Read(info)
		for _, size := range []int{32, 64, 96} {
			got := make([]byte, size)
			expand(got, &key, info)
			want, err := hkdf.Expand(sha256.New, key[:], string(info), size)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("info of %d bytes, output of %d: %x, want %x", n, size, got, want)
			}
		}
		h := hmac.New(sha256.New, key[:])
		h.Write(info)
		if got := mac(&key, info); !bytes.Equal(got[:], h.Sum(nil)) {
			t.Fatalf("message of %d bytes: HMAC differs", n)
		}
	}
}

func TestAESGCMAgainstWycheproof(t *testing.T) {
	var v wycheproof
	shared(t, &v, "wycheproof", "testvectors_v1", "aes_gcm_test.json")
	for _, g := range v.TestGroups {
		if g.KeySize != 256 || g.IVSize != nonceSize*8 {
			continue
		}
		for _, c := range g.Tests {
			aead, err := newAEAD((*[32]byte)(c.Key))
			if err != nil {
				t.Fatal(err)
			}
			got, err := aead.Open(nil, c.IV, append(bytes.Clone(c.CT), c.Tag...), c.AAD)
			if ok := err == nil && bytes.Equal(got, c.Msg); ok != (c.Result == "valid") {
				t.Errorf("test %d: opens: %v, want %s", c.TcID, ok, c.Result)
			}
		}
	}
}

func TestEd25519AgainstWycheproof(t *testing.T) {
	var v wycheproof
	shared(t, &v, "wycheproof", "testvectors_v1", "ed25519_test.json")
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			if ok := ed25519.Verify(ed25519.PublicKey(g.PublicKey.PK), c.Msg, c.Sig); ok != (c.Result == "valid") {
				t.Errorf("test %d: verifies: %v, want %s", c.TcID, ok, c.Result)
			}
		}
	}
}

// TestGHASHOfThisTest keeps the arithmetic of salamander_test honest.
func TestGHASHOfThisTest(t *testing.T) {
	x, y := block{1, 2, 3, 15: 9}, block{0x42, 7: 0xff}
	if one := (block{0x80}); x.mul(one) != x || x.mul(x.inverse()) != one || x.mul(y) != y.mul(x) {
		t.Error("the multiplication is not that of a field")
	}
	c, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(c)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, 12)
	out := gcm.Seal(nil, nonce, []byte("twenty bytes of text"), []byte("associated"))
	var h, mask block
	c.Encrypt(h[:], h[:])
	c.Encrypt(mask[:], append(bytes.Clone(nonce), 0, 0, 0, 1))
	sum, _ := ghash(h, []byte("associated"), out[:20])
	if tag := sum.add(mask); !bytes.Equal(tag[:], out[20:]) {
		t.Error("the tag is not that of crypto/cipher")
	}
}

type coseExample struct {
	Input struct {
		Sign0 struct {
			Key struct {
				Crv  string
				XHex hexBytes `json:"x_hex"`
			}
		}
	}
	Intermediates struct {
		ToBeSign hexBytes `json:"ToBeSign_hex"`
		AAD      hexBytes `json:"AAD_hex"`
		CEK      hexBytes `json:"CEK_hex"`
	}
	Output struct{ CBOR hexBytes }
}

// TestStructuresAgainstCOSEExamples builds what is signed and authenticated
// from the parts of the working group's examples.
func TestStructuresAgainstCOSEExamples(t *testing.T) {
	var sig coseExample
	shared(t, &sig, "cose", "eddsa-examples", "eddsa-sig-01.json")
	r := reader{b: sig.Output.CBOR}
	r.literal(sign1Open)
	s := signed{protected: r.bytes(64)}
	r.literal("\xa1\x04\x4211") // an unprotected key id, which our own parser refuses
	s.payload = r.bytes(64)
	r.literal(signatureLen)
	s.signature = r.take(64)
	if !r.ended() {
		t.Fatal("eddsa-sig-01 is not read")
	}
	ok, structure := s.verify(nil, ed25519.PublicKey(sig.Input.Sign0.Key.XHex))
	if !ok || !bytes.Equal(structure, sig.Intermediates.ToBeSign) {
		t.Errorf("eddsa-sig-01: verifies: %v; signed is %x, want %x", ok, structure, sig.Intermediates.ToBeSign)
	}
	if _, ok := parseSign1(sig.Output.CBOR, 64); ok {
		t.Error("an unprotected header is accepted")
	}

	var enc coseExample
	shared(t, &enc, "cose", "aes-gcm-examples", "aes-gcm-enc-03.json")
	r = reader{b: enc.Output.CBOR}
	r.literal(batchOpen)
	protected := r.b[:4]
	r.bytes(3)
	r.literal("\xa1\x05")
	nonce, ciphertext := r.bytes(12), r.bytes(64)
	aad := appendAAD(nil, protected)
	if !r.ended() {
		t.Fatal("aes-gcm-enc-03 is not read")
	}
	aead, err := newAEAD((*[32]byte)(enc.Intermediates.CEK))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(aad, enc.Intermediates.AAD) {
		t.Errorf("aes-gcm-enc-03: associated data is %x, want %x", aad, enc.Intermediates.AAD)
	}
	if _, err := aead.Open(nil, nonce, ciphertext, aad); err != nil {
		t.Errorf("aes-gcm-enc-03: %v", err)
	}
}

// TestReaderAgainstRFC8949 reads the integers and strings of appendix A, and
// refuses everything else there.
func TestReaderAgainstRFC8949(t *testing.T) {
	var examples []struct {
		Hex     hexBytes
		Decoded any
	}
	shared(t, &examples, "cbor", "appendix_a.json")
	for _, e := range examples {
		var own []byte
		r := reader{b: e.Hex}
		switch e.Hex[0] & 0xe0 {
		case majorUint:
			own = appendUint(nil, r.uint(1<<64-1))
		case majorNint:
			if e.Hex[0] == 0x3b { // -2^64: beyond int64
				if r.int(); !r.bad {
					t.Errorf("%x: accepted as an int64", []byte(e.Hex))
				}
				continue
			}
			own = appendInt(nil, r.int())
		case majorBytes:
			own = appendBytes(nil, r.bytes(100))
		case majorText:
			own = appendText(nil, string(r.text(100)))
		default:
			if r.uint(1<<64 - 1); !r.bad {
				t.Errorf("%x: accepted as an integer", []byte(e.Hex))
			}
			continue
		}
		indefinite := e.Hex[0]&0x1f == 0x1f
		if indefinite != r.bad || !indefinite && (!r.ended() || !bytes.Equal(own, e.Hex)) {
			t.Errorf("%x: bad is %v, written again %x", []byte(e.Hex), r.bad, own)
		}
	}
}

// TestHPKEAgainstRFC9180 checks the standard library's HPKE by the RFC's
// X25519 vectors: the accumulated exports.
func TestHPKEAgainstRFC9180(t *testing.T) {
	var vectors []struct {
		Mode                  int
		KEM                   uint16 `json:"kem_id"`
		KDF                   uint16 `json:"kdf_id"`
		AEAD                  uint16 `json:"aead_id"`
		Info, SkRm, PkRm, Enc hexBytes
		ExportsAccumulated    string `json:"exports_accumulated"`
	}
	shared(t, &vectors, "hpke", "rfc9180.json")
	ran := 0
	for _, v := range vectors {
		if v.Mode != 0 || v.KEM != 0x20 || v.AEAD != hpke.AES256GCM().ID() || v.KDF != hpke.HKDFSHA256().ID() {
			continue
		}
		ran++
		key, err := hpke.DHKEM(ecdh.X25519()).NewPrivateKey(v.SkRm)
		if err != nil || !bytes.Equal(key.PublicKey().Bytes(), v.PkRm) {
			t.Fatalf("private key: %v", err)
		}
		recipient, err := hpke.NewRecipient(v.Enc, key, hpke.HKDFSHA256(), hpke.AES256GCM(), v.Info)
		if err != nil {
			t.Fatal(err)
		}
		source, sink := sha3.NewSHAKE128(), sha3.NewSHAKE128()
		for l := range 1000 {
			var n [1]byte // the length of the context, then the context
			source.Read(n[:])
			context := make([]byte, n[0])
			source.Read(context)
			secret, err := recipient.Export(string(context), l)
			if err != nil {
				t.Fatal(err)
			}
			sink.Write(secret)
		}
		sum := make([]byte, 16)
		sink.Read(sum)
		if got := hex.EncodeToString(sum); got != v.ExportsAccumulated {
			t.Errorf("exports are %s, want %s", got, v.ExportsAccumulated)
		}
	}
	if ran == 0 {
		t.Error("no vector of the suite")
	}
}
