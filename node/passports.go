package node

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing/move"
	"carnet/crossing/r5"
	"carnet/evidence"
	"carnet/passport"
	"carnet/policy"
)

// passports makes passports of the world's avatars.
type passports struct{ node *Node }

// exportTries is how often a passport is begun anew since the retention of a stretch
// ended while it was written.
const exportTries = 3

// noteTime is how long it may take to note that a passport was given out.
const noteTime = 10 * time.Second

// Passport implements api.Passports. It lies in the party's data directory until it is
// written out.
func (p passports) Passport(ctx context.Context, id carnet.AvatarID, n api.NewPassport) (write func(io.Writer) error, err error) {
	world := p.node.api.World
	if _, err := world.Avatar(id); err != nil {
		return nil, err
	}
	signer, err := world.EvidenceSigner(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(p.node.config.path(p.node.config.Data), bundlesPrefix)
	if err != nil {
		return nil, fmt.Errorf("write passport: %w", err)
	}
	var backup *move.Backup
	for try := 1; ; try++ {
		into := filepath.Join(dir, PassportName(p.node.config.Party, id))
		backup, err = p.write(ctx, id, n, signer, into)
		if carnet.CodeOf(err) != carnet.NotFound || try == exportTries {
			break
		}
		if err := os.RemoveAll(into); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return func(w io.Writer) error {
		return giveOut(ctx, w, dir, func(ctx context.Context) error {
			if backup == nil {
				return nil
			}
			return p.node.api.Moves.NoteBackup(ctx, id, *backup)
		})
	}, nil
}

// giveOut writes a directory out as a tar, removes it, and has it noted: from then on it
// counts. Who takes it has had time for each piece, and may have taken longer than a call
// may: to note it has a time of its own.
func giveOut(ctx context.Context, w io.Writer, dir string, note func(context.Context) error) error {
	archive := tar.NewWriter(w)
	err := archive.AddFS(os.DirFS(dir))
	if err = errors.Join(err, archive.Close(), os.RemoveAll(dir)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	return note(ctx)
}

// write writes a passport, and says of what it is a backup.
func (p passports) write(ctx context.Context, id carnet.AvatarID, n api.NewPassport, signer ed25519.PrivateKey, dir string) (*move.Backup, error) {
	public := signer.Public().(ed25519.PublicKey)
	e, err := p.node.api.Moves.Export(ctx, move.Wish{Avatar: id, Signer: public, For: n.For, Farewell: n.Farewell})
	if err != nil {
		return nil, err
	}
	o := passport.Options{
		World: evidence.World{Party: p.node.config.Party, Key: evidence.PublicKey(public)}, Signer: signer,
		Word: e.Word, Manifest: e.Manifest, Bags: e.Bags, Farewell: e.Farewell, Policy: e.Policy,
	}
	if o.Grants, err = p.grants(id); err != nil {
		return nil, err
	}
	for _, to := range e.Readers {
		o.Readers = append(o.Readers, passport.Reader(to))
	}
	return e.Backup, passport.Write(ctx, dir, p.node.api.World, o)
}

// grants are those of an avatar that are in force.
func (p passports) grants(id carnet.AvatarID) (all []passport.Granted, err error) {
	now := time.Now()
	for _, g := range p.node.api.Entities.Grants(nil) {
		if g.Avatar != id || g.Revoked != nil || !now.Before(g.Expires) {
			continue
		}
		view, err := g.View.MarshalJSON()
		if err != nil {
			return nil, err
		}
		all = append(all, passport.Granted{To: g.To.String(), Actions: g.Actions, Purpose: g.Purpose, Onward: g.Onward, Expires: g.Expires.UTC(), View: view})
	}
	return all, nil
}

// Announce implements api.Passports.
func (p passports) Announce() ([]byte, error) { return p.node.api.Moves.Announce() }

// PassportName is what the passport of an avatar is called.
func PassportName(world carnet.PartyID, id carnet.AvatarID) string {
	return fmt.Sprintf("%s-%s-passport", world, id)
}

// recoveredPath is where a world that was away is told that an avatar of its has been
// recovered.
const recoveredPath = "/r5/recovered"

// hearRecovered serves a world where an avatar of this one lives since a recovery.
func (n *Node) hearRecovered(w http.ResponseWriter, r *http.Request, peer r5.Peer) {
	const action = "tell-recovered"
	var d move.Decided
	about := policy.Any
	err := strictBody(r, &d, maxMoveBody)
	if err == nil {
		var id carnet.AvatarID
		if id, err = n.api.Moves.ProvesRecovered(peer.Name, d); err == nil {
			about = id.String()
		}
	}
	var left move.Left
	if err = n.letPeer(r.Context(), peer.Name, action, about, err); err == nil {
		if left, err = n.api.Moves.HearRecovered(r.Context(), peer.Name, d); err != nil {
			n.turnedAway(r.Context(), peer.Name, action, about, err)
		}
	}
	if err != nil {
		refuseAbroad(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(left) // a failed write means that the caller went away
}

// Recovered implements move.Far.
func (f far) Recovered(ctx context.Context, source carnet.PartyID, d move.Decided) (left move.Left, err error) {
	ctx, cancel := context.WithTimeout(ctx, recoveredTime)
	defer cancel()
	body, err := json.Marshal(d)
	if err != nil {
		return left, err
	}
	answer, err := f.node.tellAbroad(ctx, source, http.MethodPost, recoveredPath, body, maxMoveBody)
	if err != nil {
		return left, err
	}
	if err := json.NewDecoder(bytes.NewReader(answer)).Decode(&left); err != nil {
		return left, carnet.Errorf(carnet.Unavailable, "%s answered with something else than was asked: %v", source, err)
	}
	return left, nil
}

// recoveredTime is how long a world that was away is given to delete what it has.
const recoveredTime = time.Minute
