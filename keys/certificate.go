package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"net"
	"time"

	"carnet"
)

// KeyType says what kind of key a certificate is for.
type KeyType uint8

// The key types: Ed25519 between parties, P-256 for clients that know no other
// (browsers, devices).
const (
	Ed25519 KeyType = iota + 1
	P256
)

// Certificate says what certificate to make.
type Certificate struct {
	Key       KeyType
	NotBefore time.Time
	NotAfter  time.Time
	// Hosts are names and internet addresses, for servers that are found by them;
	// peers are pinned and need none.
	Hosts []string
}

// MakeCertificate makes a key and a self-signed certificate for mutual TLS, and
// stores both. Serial number and common name are random, so that the
// certificates a party shows to different peers have nothing in common.
func (t *Table) MakeCertificate(ctx context.Context, id ID, c Certificate) (tls.Certificate, error) {
	key, err := newKey(c.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := selfSign(key, c)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	// Stored: length of the private key (4 bytes, big-endian), private key
	// (PKCS#8), certificate (DER).
	secret := append(binary.BigEndian.AppendUint32(nil, uint32(len(private))), private...)
	secret = append(secret, der...)
	if err := t.Put(ctx, Entry{id, secret}); err != nil {
		return tls.Certificate{}, err
	}
	return parseCertificate(id, secret)
}

// Certificate returns what MakeCertificate stored.
func (t *Table) Certificate(ctx context.Context, id ID) (tls.Certificate, error) {
	secret, err := t.Get(ctx, id)
	if err != nil {
		return tls.Certificate{}, err
	}
	return parseCertificate(id, secret)
}

func parseCertificate(id ID, secret []byte) (tls.Certificate, error) {
	bad := carnet.Errorf(carnet.Malformed, "key %s is no certificate with its key", id)
	if len(secret) < 4 || uint64(binary.BigEndian.Uint32(secret)) > uint64(len(secret)-4) {
		return tls.Certificate{}, bad
	}
	n := 4 + binary.BigEndian.Uint32(secret)
	key, err := x509.ParsePKCS8PrivateKey(secret[4:n])
	if err != nil {
		return tls.Certificate{}, bad
	}
	leaf, err := x509.ParseCertificate(secret[n:])
	if err != nil {
		return tls.Certificate{}, bad
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func newKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return nil, fmt.Errorf("make certificate: unknown key type %d", kind)
}

func selfSign(key crypto.Signer, c Certificate) ([]byte, error) {
	if !c.NotBefore.Before(c.NotAfter) {
		return nil, fmt.Errorf("it would be over at %s, before it begins", c.NotAfter)
	}
	var serial [16]byte
	rand.Read(serial[:])
	serial[0] = serial[0]&0x7f | 0x40 // positive and of fixed length (RFC 5280 §4.1.2.2)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:]),
		Subject:      pkix.Name{CommonName: rand.Text()},
		NotBefore:    c.NotBefore, NotAfter: c.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range c.Hosts { // RFC 5280 §4.2.1.6
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// Pin is the SHA-256 of the certificate's public key with its algorithm
// (SubjectPublicKeyInfo, RFC 5280 §4.1.2.7; pinned as in RFC 7469 §2.4): what
// peers know each other by.
func Pin(cert *x509.Certificate) carnet.Fingerprint {
	return carnet.FingerprintOf(cert.RawSubjectPublicKeyInfo)
}
