package link

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"

	"carnet"
)

// PinOf returns the pin of a certificate: the SHA-256 of its
// SubjectPublicKeyInfo (RFC 5280 §4.1). Names, issuers and dates in certificates
// mean nothing to a link: a peering says which key is whose and until when.
func PinOf(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// tlsConfig is TLS 1.3 with this party's certificate, and allowed as judge of
// the peer's pin. There are no session tickets, so both keys are proved on every
// connection. CurvePreferences stay Go's, which puts X25519MLKEM768 first.
func tlsConfig(cert tls.Certificate, allowed func(pin [32]byte) bool) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAnyClientCert,
		NextProtos:             []string{protocol},
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // VerifyConnection compares the pin instead
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != protocol {
				return carnet.Errorf(carnet.Malformed, "peer doesn't speak %s", protocol)
			}
			if len(state.PeerCertificates) == 0 || !allowed(PinOf(state.PeerCertificates[0])) {
				return carnet.Errorf(carnet.Unauthenticated, "the peer's TLS key is not the one this party is peered with").
					WithFix("see with 'carnet peer list' whether both sides still have the peering, and with which keys ('carnet peer show')")
			}
			return nil
		},
	}
}
