// Package identity owns how parties and avatars prove who they are, and what an
// owner permits: a party's keys towards each of its peers, the peer files that
// two parties exchange, an avatar's DID document and credential, and the owner's
// mandate and its withdrawal.
//
// A party shows each peer another TLS certificate, another signing key and, if
// it is a things agent, another name, so that two peers can't tell that they
// deal with the same one. What it shows a peer is in a peer file; what the peer
// showed it, it pins. Keys rest in the key table.
//
// The package must not know transports, stores, or what peers exchange.
package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/base32"
	"strings"
	"time"

	"carnet"
	"carnet/keys"
)

// Role is what a party does.
type Role string

// The roles.
const (
	Things Role = "things"
	World  Role = "world"
	Depot  Role = "depot"
	DPM    Role = "dpm"
)

// Local is what a party shows one peer, with the keys behind it.
type Local struct {
	Name        carnet.PartyID // the party, as the peer knows it
	Certificate tls.Certificate
	Key         ed25519.PrivateKey
}

// certificateLife is how long a certificate lasts. Peers pin the key, and a
// peering says until when it holds.
const certificateLife = 10 * 365 * 24 * time.Hour

func tlsID(peer carnet.PartyID) keys.ID  { return keys.ID{Kind: "tls", Name: string(peer)} }
func signID(peer carnet.PartyID) keys.ID { return keys.ID{Kind: "sign", Name: string(peer)} }
func nameID(peer carnet.PartyID) keys.ID { return keys.ID{Kind: "alias", Name: string(peer)} }

// Make draws the keys that a party shows a peer, and stores them. name is what
// the peer shall call the party; a things agent leaves it empty for a random one.
func Make(ctx context.Context, table *keys.Table, peer, name carnet.PartyID, now time.Time) (Local, error) {
	if name == "" {
		name = randomName()
	}
	if _, err := carnet.ParsePartyID(string(name)); err != nil {
		return Local{}, err
	}
	if err := table.Put(ctx, keys.Entry{ID: nameID(peer), Secret: []byte(name)}); err != nil {
		return Local{}, err
	}
	_, err := table.MakeCertificate(ctx, tlsID(peer), keys.Certificate{
		Key: keys.P256, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife), Hosts: []string{"localhost"},
	})
	if err != nil {
		return Local{}, err
	}
	if _, err := table.MakeSigner(ctx, signID(peer)); err != nil {
		return Local{}, err
	}
	return Load(ctx, table, peer)
}

// Load returns what Make stored for a peer; carnet.NotFound if it was never made.
func Load(ctx context.Context, table *keys.Table, peer carnet.PartyID) (l Local, err error) {
	name, err := table.Get(ctx, nameID(peer))
	if err != nil {
		return l, err
	}
	l.Name = carnet.PartyID(name)
	if l.Certificate, err = table.Certificate(ctx, tlsID(peer)); err != nil {
		return l, err
	}
	l.Key, err = table.Signer(ctx, signID(peer))
	return l, err
}

// Destroy destroys what Make stored for a peer, as much of it as there is.
func Destroy(ctx context.Context, table *keys.Table, peer carnet.PartyID) error {
	for _, id := range []keys.ID{nameID(peer), tlsID(peer), signID(peer)} {
		if err := table.Destroy(ctx, id); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
	}
	return nil
}

// Show makes the peer file that the peer is to pin.
func (l Local) Show(role Role) Peer {
	return Peer{
		Party: l.Name, Role: role, Pin: keys.Pin(l.Certificate.Leaf), Key: l.Key.Public().(ed25519.PublicKey),
	}
}

func randomName() carnet.PartyID {
	b := make([]byte, 15)
	rand.Read(b)
	return carnet.PartyID("p-" + strings.ToLower(base32.StdEncoding.EncodeToString(b)))
}
