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

// evidenceTar writes an avatar's bundle to w, as a tar of one directory. It lies
// in the party's data directory meanwhile.
func (n *Node) evidenceTar(ctx context.Context, id carnet.AvatarID, w io.Writer) (err error) {
	if err := n.api.World.Settle(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(n.config.path(n.config.Data), "evidence-")
	if err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	name := BundleName(n.config.Party, id)
	if err := WriteEvidence(ctx, n.api.World, n.config.Party, n.peers, id, filepath.Join(dir, name)); err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	if err := archive.AddFS(os.DirFS(dir)); err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	return archive.Close()
}
