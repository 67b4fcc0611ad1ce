package bodies

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"carnet"
	"carnet/claim"

	"golang.org/x/sync/errgroup"
)

// Large is from how many bytes on a body is a file. A smaller one stays in its row:
// a file costs two fsyncs.
const Large = 128 << 10

// Body is a body with its fingerprint.
type Body struct {
	Fingerprint carnet.Fingerprint
	Bytes       []byte
}

// Rows are the rows beside which the bodies are. A row of a large body names its
// file by the fingerprint; one that says that a body has ended is durable together
// with the end of the row that named it.
type Rows interface {
	// Unnamed calls do with those of the fingerprints that no row names, while no row
	// can be added. What do returns fails it.
	Unnamed(ctx context.Context, of []carnet.Fingerprint, do func([]carnet.Fingerprint) error) error
	// Ended returns bodies that have ended, the oldest first, at most limit.
	Ended(ctx context.Context, limit int) ([]Ended, error)
	// Forget removes rows of bodies that have ended.
	Forget(ctx context.Context, ids []uint64) error
}

// Ended is a body whose row is gone. IDs are never given again.
type Ended struct {
	ID          uint64
	Fingerprint carnet.Fingerprint
}

// Beside keeps the large bodies of a database as files beside it, in the order
// that store.md states. Its methods may be called from many goroutines, and several
// processes may have the same directory and database.
type Beside struct {
	dir      Dir
	rows     Rows
	claim    *claim.Claim // shared while it is open
	clearing sync.Mutex   // held while what has ended is deleted
}

// OpenBeside opens the directory of the database with an id, or makes it, and, alone
// with it, deletes what a crash left. The directory of another database is
// carnet.Conflict.
func OpenBeside(ctx context.Context, dir Dir, id string, rows Rows) (b *Beside, err error) {
	b = &Beside{dir: dir, rows: rows}
	if err := dir.mkdir(tmpDir, goneDir); err != nil {
		return nil, err
	}
	if b.claim, err = claim.On(dir.Path); err != nil {
		return nil, fmt.Errorf("open directory of bodies: %w", err)
	}
	defer func() {
		if err != nil {
			err, b = errors.Join(err, b.claim.Release()), nil
		}
	}()
	alone := b.claim.Alone() == nil
	if !alone {
		err = b.share() // and wait for who sweeps
	}
	if err == nil {
		err = b.belongs(id)
	}
	if alone && err == nil {
		if err = b.sweep(ctx); err == nil {
			err = b.share()
		}
	}
	if err == nil {
		err = b.Clear(ctx)
	}
	return b, err
}

func (b *Beside) share() error {
	if err := b.claim.Share(); err != nil {
		return fmt.Errorf("lock directory of bodies: %w", err)
	}
	return nil
}

// Close gives the directory up.
func (b *Beside) Close() error { return b.claim.Release() }

const idFile = "id"

// belongs checks that the directory is of the database with an id; one without
// bodies becomes it.
func (b *Beside) belongs(id string) error {
	name := filepath.Join(b.dir.Path, idFile)
	had, err := os.ReadFile(name)
	switch {
	case err == nil && strings.TrimSpace(string(had)) == id:
		return nil
	case err == nil:
		return carnet.Errorf(carnet.Conflict, "the files in %s belong to another database than the one that is opened with them", b.dir.Path).
			WithFix("open the database that they belong to; or, if they are to go, move the directory away")
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read which database the bodies belong to: %w", err)
	}
	for shard := range 256 {
		if found, err := b.dir.List(byte(shard)); err != nil {
			return err
		} else if len(found) > 0 {
			return carnet.Errorf(carnet.Conflict, "the files in %s lack the file %q, which says which database they belong to", b.dir.Path, idFile).
				WithFix("copy the whole directory; or, if they are to go, move it away")
		}
	}
	staged, err := b.dir.stageBytes([]byte(id + "\n"))
	if err != nil {
		return err
	}
	if err := b.dir.Files.Rename(staged, name); err != nil {
		return failed("name the file of the database's id", err)
	}
	return failed("sync directory of bodies", b.dir.Files.SyncDir(b.dir.Path))
}

// sweep deletes what is being written, what is being deleted, and bodies that no
// row names. Nobody else has the directory.
func (b *Beside) sweep(ctx context.Context) error {
	var left []string
	for _, dir := range []string{tmpDir, goneDir} {
		names, err := b.dir.Files.ReadDir(filepath.Join(b.dir.Path, dir))
		if err != nil {
			return fmt.Errorf("list what a crash left: %w", err)
		}
		for _, name := range names {
			left = append(left, filepath.Join(b.dir.Path, dir, name))
		}
	}
	if err := b.burn(left); err != nil {
		return err
	}
	for shard := range 256 {
		found, err := b.dir.List(byte(shard))
		if err != nil {
			return err
		}
		if len(found) > 0 {
			if err := b.delete(ctx, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// atOnce is how many files are written or overwritten at once.
const atOnce = 4

// Place makes bodies durable under their fingerprints, before a row names them. On
// an error nothing of it stays.
func (b *Beside) Place(ctx context.Context, all []Body) error {
	names := make([]string, len(all))
	var work errgroup.Group
	work.SetLimit(atOnce)
	for i := range all {
		work.Go(func() (err error) {
			names[i], err = b.dir.stageBytes(all[i].Bytes)
			return err
		})
	}
	err := work.Wait()
	placed := 0
	for i := range all {
		if err == nil {
			if err = b.dir.rename(names[i], all[i].Fingerprint); err == nil {
				placed++
			}
		} else if names[i] != "" {
			_ = b.dir.Files.Remove(names[i]) // or the next start does
		}
	}
	if err == nil {
		err = b.syncShards(prints(all))
	}
	if err != nil {
		b.Discard(ctx, all[:placed])
	}
	return err
}

func prints(all []Body) []carnet.Fingerprint {
	of := make([]carnet.Fingerprint, len(all))
	for i := range all {
		of[i] = all[i].Fingerprint
	}
	return of
}

// syncShards makes the names of bodies durable, or that they are gone.
func (b *Beside) syncShards(of []carnet.Fingerprint) error {
	var work errgroup.Group
	work.SetLimit(atOnce)
	done := make(map[byte]bool)
	for _, f := range of {
		if !done[f[0]] {
			done[f[0]] = true
			work.Go(func() error { return failed("sync body's directory", b.dir.Files.SyncDir(b.dir.shard(f[0]))) })
		}
	}
	return work.Wait()
}

// Stay makes sure that bodies which were placed are still there. The caller is about
// to commit rows that name them, and nobody else can change rows: from then on they
// stay.
func (b *Beside) Stay(all []Body) error {
	for i := range all {
		f, err := b.dir.Open(all[i].Fingerprint)
		if err == nil {
			if err = f.Close(); err == nil {
				continue
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return failed("look for body", err)
		}
		// The same bytes were deleted meanwhile.
		name, err := b.dir.stageBytes(all[i].Bytes)
		if err == nil {
			err = b.dir.Place(name, all[i].Fingerprint)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Discard deletes bodies that were placed for rows that haven't come to be. What
// can't be deleted now is at the next start.
func (b *Beside) Discard(ctx context.Context, all []Body) {
	if len(all) > 0 {
		_ = b.delete(context.WithoutCancel(ctx), prints(all))
	}
}

// Read returns a body's bytes, as they are; carnet.NotFound if it is lost.
func (b *Beside) Read(f carnet.Fingerprint) ([]byte, error) {
	in, err := b.dir.Open(f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, carnet.Errorf(carnet.NotFound, "the file of %s is lost", f)
	}
	if err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	defer in.Close()
	size, err := in.Size()
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	body := make([]byte, size)
	n, err := io.ReadFull(in, body)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // it was cut meanwhile: other bytes than it should have
	}
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return body[:n], nil
}

// endedAtOnce is how many bodies that have ended are deleted at once.
const endedAtOnce = 64

// Clear deletes every body that has ended: on return nothing of it is in any file.
func (b *Beside) Clear(ctx context.Context) error {
	b.clearing.Lock()
	defer b.clearing.Unlock()
	for {
		ended, err := b.rows.Ended(ctx, endedAtOnce)
		if err != nil || len(ended) == 0 {
			return err
		}
		ids, of := make([]uint64, len(ended)), make([]carnet.Fingerprint, len(ended))
		for i := range ended {
			ids[i], of[i] = ended[i].ID, ended[i].Fingerprint
		}
		if err := b.delete(ctx, of); err != nil {
			return err
		}
		if err := b.rows.Forget(ctx, ids); err != nil {
			return err
		}
	}
}

// delete deletes those of the bodies that no row names. Their names go while no row
// can be added; the rest takes longer, and holds up nobody.
func (b *Beside) delete(ctx context.Context, of []carnet.Fingerprint) error {
	var gone []string
	var names []carnet.Fingerprint
	err := b.rows.Unnamed(ctx, of, func(unnamed []carnet.Fingerprint) error {
		for _, f := range unnamed {
			to := filepath.Join(b.dir.Path, goneDir, f.String()+"."+rand.Text())
			err := b.dir.Files.Rename(b.dir.File(f), to)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return failed("take body away", err)
			}
			gone, names = append(gone, to), append(names, f)
		}
		return nil
	})
	if err := b.burn(gone); err != nil { // whatever else failed: no row names them
		return err
	}
	return errors.Join(err, b.syncShards(names))
}

// burn overwrites files with zeros and removes them, durably.
func (b *Beside) burn(names []string) error {
	if len(names) == 0 {
		return nil
	}
	var work errgroup.Group
	work.SetLimit(atOnce)
	for _, name := range names {
		work.Go(func() error { return b.dir.remove(name) })
	}
	if err := work.Wait(); err != nil {
		return err
	}
	return failed("sync directory of bodies", errors.Join(b.dir.Files.SyncDir(filepath.Join(b.dir.Path, goneDir)), b.dir.Files.SyncDir(filepath.Join(b.dir.Path, tmpDir))))
}
