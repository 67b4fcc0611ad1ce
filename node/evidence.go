package node

import (
	"archive/tar"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/identity"
)

// BundleName is what the bundle of an avatar is called.
func BundleName(world carnet.PartyID, id carnet.AvatarID) string {
	return fmt.Sprintf("%s-%s", world, id)
}

// WriteEvidence writes an avatar's evidence bundle to dir, which must be empty or
// not be there.
func WriteEvidence(ctx context.Context, world *avatar.Agent, name carnet.PartyID, peers map[carnet.PartyID]identity.Peer, id carnet.AvatarID, dir string) error {
	signer, err := world.EvidenceSigner(ctx)
	if err != nil {
		return err
	}
	public := signer.Public().(ed25519.PublicKey)
	trust := evidence.Trust{Version: 1, Worlds: []evidence.World{{Party: name, Key: evidence.PublicKey(public)}}}
	for peer, p := range peers {
		switch p.Role {
		case identity.Things:
			trust.Senders = append(trust.Senders, evidence.Sender{Party: peer, Audience: name, Key: evidence.PublicKey(p.Key)})
		case identity.Depot:
			trust.Ledgers = append(trust.Ledgers, evidence.Ledger{Party: peer, Key: p.Ledger})
		}
	}
	_, err = evidence.Write(ctx, dir, proven{world, id}, evidence.Options{
		World: name, Avatar: id, Trust: trust, Signer: signer, Now: time.Now(),
	})
	return err
}

// proven turns what an avatar agent hands over into what a bundle takes.
type proven struct {
	world *avatar.Agent
	id    carnet.AvatarID
}

// Frames implements evidence.Source.
func (p proven) Frames(ctx context.Context, do func(*evidence.Frame) error) error {
	return p.world.Proven(ctx, p.id, func(f *avatar.ProvenFrame) error {
		frame := evidence.Frame(*f)
		return do(&frame)
	})
}

// proofs is what a world says about its avatars to who trusts nobody's store.
type proofs struct {
	node *Node
	key  ed25519.PrivateKey // issues credentials
}

// Evidence implements api.Proofs. The bundle lies in the party's data directory
// until it is written out.
func (p proofs) Evidence(ctx context.Context, id carnet.AvatarID) (write func(io.Writer) error, err error) {
	n := p.node
	if _, err := n.api.World.Avatar(id); err != nil {
		return nil, err
	}
	if err := n.api.World.Settle(ctx); err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "not every statement has its receipt yet: %v", err).WithFix("try again; see whether the depot is away")
	}
	dir, err := os.MkdirTemp(n.config.path(n.config.Data), "evidence-")
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	name := BundleName(n.config.Party, id)
	if err := WriteEvidence(ctx, n.api.World, n.config.Party, n.peers, id, filepath.Join(dir, name)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return func(w io.Writer) error {
		archive := tar.NewWriter(w)
		err := archive.AddFS(os.DirFS(dir))
		return errors.Join(err, archive.Close(), os.RemoveAll(dir))
	}, nil
}

// Document implements api.Proofs.
func (p proofs) Document(id carnet.AvatarID) (identity.Document, error) {
	info, err := p.node.api.World.Avatar(id)
	if err != nil {
		return identity.Document{}, err
	}
	return identity.DocumentFor(info.Key), nil
}

// credentialLife is how long a credential holds: whoever needs one asks for it.
const credentialLife = 24 * time.Hour

// Credential implements api.Proofs.
func (p proofs) Credential(_ context.Context, id carnet.AvatarID) (string, error) {
	info, err := p.node.api.World.Avatar(id)
	if err != nil {
		return "", err
	}
	now := time.Now().Truncate(time.Second)
	return identity.IssueCredential(p.key, identity.Credential{
		World: p.node.config.Party, Avatar: id, Subject: info.Key, Issued: now, NotBefore: now, Expires: now.Add(credentialLife),
	})
}
