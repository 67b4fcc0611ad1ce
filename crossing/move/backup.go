package move

import (
	"context"
	"fmt"
	"time"

	"carnet"
	"carnet/avatar"
)

// Backup is a passport with keys for its owner that was given out of an avatar: by it the
// avatar can be had again where a move is cut off by the loss of both its worlds, as long as
// the registrar hasn't decided (docs/design/crossing.md).
type Backup struct {
	Passport     carnet.CrossingID `json:"passport"`
	Made         time.Time         `json:"made"`
	Measurements uint64            `json:"measurements"` // in it
}

// kindBackup are the documents of backups, by avatar: the newest of each.
const kindBackup = "move-backup"

// backup returns the newest passport with keys for its owner that was given out of an
// avatar; nil: there is none.
func (a *Agent) backup(ctx context.Context, id carnet.AvatarID) (*Backup, error) {
	b := new(Backup)
	_, err := a.World.OneKept(ctx, kindBackup, id.String(), b)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, nil
	}
	return b, err
}

// NoteBackup notes a passport of an avatar that is here, once it was given out whole.
func (a *Agent) NoteBackup(ctx context.Context, id carnet.AvatarID, b Backup) error {
	defer a.changing.of(id)()
	if _, err := a.World.Avatar(id); err != nil { // it is erased, or has moved, meanwhile
		return err
	}
	version, err := a.World.OneKept(ctx, kindBackup, id.String(), new(Backup))
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	return a.World.Keep(ctx, []avatar.Kept{{Kind: kindBackup, ID: id.String(), Version: version + 1, Body: b}}, nil)
}

// forgetBackup forgets what was noted of an avatar. The caller has its turn.
func (a *Agent) forgetBackup(ctx context.Context, id carnet.AvatarID) error {
	version, err := a.World.OneKept(ctx, kindBackup, id.String(), new(Backup))
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil
	} else if err != nil {
		return err
	}
	return a.World.Keep(ctx, []avatar.Kept{{Kind: kindBackup, ID: id.String(), Version: version + 1}}, nil)
}

// backedUp returns the backup with which an avatar leaves, and refuses one without a
// backup, or with too old a one, if this world wants one.
func (a *Agent) backedUp(ctx context.Context, id carnet.AvatarID) (*Backup, error) {
	b, err := a.backup(ctx, id)
	if err != nil || a.BackupWithin == 0 || b != nil && a.Now().Sub(b.Made) <= a.BackupWithin {
		return b, err
	}
	had := "none was given out"
	if b != nil {
		had = "the newest was made at " + b.Made.UTC().Format(time.RFC3339)
	}
	return nil, carnet.Errorf(carnet.Conflict, "before an avatar leaves %s, a passport of it with keys for its owner must have been given out within %v, and %s", a.Party, a.BackupWithin, had).
		WithFix("carnet avatar export %s --to DIR --for KEYFILE, with what 'carnet owner keystore reception' wrote; then begin the move anew", id)
}

// backupLine says to the owner what would bring an avatar back.
func backupLine(b *Backup) string {
	if b == nil {
		return "No passport of it with keys for its owner has been given out: if both worlds are lost before the move is decided, nothing brings it back."
	}
	return fmt.Sprintf("If both worlds are lost before the move is decided, it comes back by the passport of %s, says who asks for this move, with %d measurements and keys for its owner: see that you have it.", b.Made.UTC().Format(time.RFC3339), b.Measurements)
}
