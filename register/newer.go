package register

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/ledger/tlog"
)

// CheckpointHeader shows the newest checkpoint of the depot's ledger that a caller
// has, in base64: so a depot that was restored from an older copy finds out.
const CheckpointHeader = "Carnet-Checkpoint"

const (
	// newerName is the file that keeps a checkpoint which proved this copy older, so
	// that a restart doesn't forget it.
	newerName = "newer"
	// publishTime is how long the own view of the ledger may lag behind what it has
	// published.
	publishTime = 3 * time.Second
	publishPoll = 20 * time.Millisecond
)

// Shown takes a checkpoint that a caller shows. One that this ledger has signed and
// doesn't continue ends all answering.
func (r *Registrar) Shown(ctx context.Context, header string) error {
	signed, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		return carnet.Errorf(carnet.Malformed, "%s isn't base64", CheckpointHeader)
	}
	cp, err := ledger.ParseCheckpoint(r.cfg.Ledger.Key(), signed)
	if err != nil {
		return carnet.Errorf(carnet.Malformed, "%s isn't of this depot's ledger: %v", CheckpointHeader, err)
	}
	why, err := r.against(ctx, cp)
	if err != nil || why == nil {
		return err
	}
	if r.isOlder(why); !r.keeps(signed) {
		r.cfg.Logger.Error("the proof that the register is an older copy isn't kept over a restart")
	}
	return r.answering()
}

// against holds the ledger against a checkpoint that it has signed; why says how it
// proves it to be an older copy.
func (r *Registrar) against(ctx context.Context, shown ledger.Checkpoint) (why *carnet.Error, err error) {
	own, _ := r.cfg.Ledger.Checkpoint()
	for begun := time.Now(); own.Size < shown.Size; own, _ = r.cfg.Ledger.Checkpoint() {
		if time.Since(begun) > publishTime {
			return carnet.Errorf(carnet.Unavailable, "the ledger has %d entries and has signed that it has %d: the depot is an older copy", own.Size, shown.Size).
				WithFix("put back the newest copies of the depot's ledger and store, and start it again"), nil
		}
		select {
		case <-ctx.Done():
			return nil, carnet.Errorf(carnet.Unavailable, "the ledger has a smaller checkpoint than is shown").WithFix("try again")
		case <-time.After(publishPoll):
		}
	}
	if shown.Size == 0 {
		return nil, nil
	}
	path, err := r.cfg.Ledger.Consistency(ctx, shown.Size, own.Size)
	if err != nil {
		return nil, err
	}
	if err := ledger.VerifyConsistency(shown, own, path); err != nil {
		return carnet.Errorf(carnet.Unavailable, "the depot's ledger isn't the one that it has signed before: %v", err).
			WithFix("put back the newest copies of the depot's ledger and store, and start it again"), nil
	}
	return nil, nil
}

// keeps stores the proof that this is an older copy.
func (r *Registrar) keeps(signed []byte) bool {
	path := filepath.Join(r.cfg.Dir, newerName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.Write(signed)
		err = errors.Join(err, f.Sync(), f.Close(), syncDir(r.cfg.Dir))
	}
	return err == nil
}

// recallNewer holds the ledger against the checkpoint that proved an older copy in an
// earlier run, and forgets it if a newer one was put back.
func (r *Registrar) recallNewer(ctx context.Context) error {
	path := filepath.Join(r.cfg.Dir, newerName)
	signed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return tlog.DiskError("read what proved an older copy", err)
	}
	if cp, err := ledger.ParseCheckpoint(r.cfg.Ledger.Key(), signed); err == nil {
		why, err := r.against(ctx, cp)
		if err != nil {
			return err
		}
		if why != nil {
			return olderCopy{why}
		}
	}
	if err := errors.Join(os.Remove(path), syncDir(r.cfg.Dir)); err != nil {
		return tlog.DiskError("remove what proved an older copy", err)
	}
	return nil
}
