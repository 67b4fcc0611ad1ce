package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"carnet"
	"carnet/evidence"
	"carnet/ledger"
	"carnet/seal"
	"carnet/senml"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"
)

// verification is row 8: carnet verify over bundles of made-up senders: of values
// and times that need all their bits, for bytes; of a heart rate, 100 and 1 a
// batch, for measurements and batches.
func verification(ctx context.Context, b *bench) (all []Figure, err error) {
	size := int64(300 << 20)
	if b.short {
		size = 40 << 20
	}
	figure := func(name, unit string, goal float64, raw map[string]float64) {
		all = append(all, Figure{Row: 8, Name: "verify, " + name, Value: raw[unit], Unit: unit, Goal: goal, Raw: raw,
			Note: "the bundle as it was just written, so mostly in the page cache; the program's start is inside."})
	}
	for _, perBatch := range []int{100, 10, 1000, 5000} {
		wide, err := verified(ctx, b, perBatch, size, true)
		if err != nil {
			return nil, err
		}
		goal := 0.0
		if perBatch == 100 {
			goal = 700
		}
		figure(fmt.Sprintf("%d a batch, full width", perBatch), "MB/s", goal, wide)
	}
	full, err := verified(ctx, b, 100, size, false)
	if err != nil {
		return nil, err
	}
	ones, err := verified(ctx, b, 1, size, false)
	if err != nil {
		return nil, err
	}
	figure("100 a batch", "measurements/s", 2_000_000, full)
	figure("1 a batch", "batches/s", 300_000, ones)
	return all, nil
}

// verified writes a bundle of about size bytes and has it verified, twice.
func verified(ctx context.Context, b *bench, perBatch int, size int64, full bool) (map[string]float64, error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("row8-%d-%t", perBatch, full))
	defer os.RemoveAll(dir)
	w, err := newWriter(perBatch, size, full)
	if err != nil {
		return nil, err
	}
	if _, err := evidence.Write(ctx, dir, w, w.options()); err != nil {
		return nil, err
	}
	bare, err := w.bare()
	if err != nil {
		return nil, err
	}
	var seconds, cpu, read float64
	var counts evidence.Counts
	for range 2 { // the better one: nothing of ours is measured by it being disturbed
		cmd := exec.CommandContext(ctx, b.binary, "verify", "--json", dir)
		begun := time.Now()
		out, err := cmd.Output()
		took := time.Since(begun).Seconds()
		if err != nil {
			return nil, fmt.Errorf("carnet verify: %w: %.300s", err, out)
		}
		var reports []struct {
			Verdict string
			Counts  evidence.Counts
		}
		if err := json.Unmarshal(out, &reports); err != nil || len(reports) != 1 {
			return nil, fmt.Errorf("read what carnet verify says: %w: %.300s", err, out)
		}
		if counts = reports[0].Counts; counts.Batches != w.batches || reports[0].Verdict != evidence.True.String() {
			return nil, fmt.Errorf("carnet verify says %s, and %d batches of %d", reports[0].Verdict, counts.Batches, w.batches)
		}
		if seconds == 0 || took < seconds {
			seconds, cpu = took, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
			if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
				read = float64(u.Inblock) * 512 / 1e6
			}
		}
	}
	return map[string]float64{
		"MB": float64(counts.Bytes) / 1e6, "batches": float64(counts.Batches), "measurements": float64(counts.Measurements),
		"seconds": seconds, "CPU, s": cpu, "of it read from disk, MB": read, "bytes a batch": float64(counts.Bytes) / float64(counts.Batches),
		"MB/s": float64(counts.Bytes) / 1e6 / seconds, "batches/s": float64(counts.Batches) / seconds,
		"measurements/s": float64(counts.Measurements) / seconds, "bare loop, MB/s": bare,
	}, nil
}

// bare is how fast the bundle's batches, which lie in memory, are hashed and
// opened alone: SHA-256, keys by HKDF, AES-GCM, on every core. Nobody can verify
// faster.
func (w *writer) bare() (float64, error) {
	var group errgroup.Group
	var bytes int64
	var next atomic.Int64
	for _, f := range w.frames {
		for _, batch := range f.Batches {
			bytes += int64(len(batch))
		}
	}
	begun := time.Now()
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			var body []byte
			for {
				i := int(next.Add(1)) - 1
				if i >= len(w.frames) {
					return nil
				}
				f := w.frames[i]
				for k, batch := range f.Batches {
					sum := carnet.FingerprintOf(batch)
					if sum != f.Leaves[k] {
						return fmt.Errorf("batch %d of a frame was changed", k)
					}
					var err error
					if _, body, err = seal.OpenBatch(&f.Keys[k].Secret, body[:0], batch); err != nil {
						return err
					}
				}
			}
		})
	}
	err := group.Wait()
	return float64(bytes) / 1e6 / time.Since(begun).Seconds(), err
}

// writer makes the frames of one avatar, sent by one sender in one stream, and a
// ledger with their statements.
type writer struct {
	perBatch int
	full     bool // values and times have all their bits
	batches  uint64
	world    ed25519.PrivateKey
	sender   ed25519.PrivateKey
	ledger   *ledger.Signer
	avatar   carnet.AvatarID
	slot     *seal.Slot // of all batches
	frames   []*evidence.Frame
}

// A frame has as many batches as a sender under load puts into one, and no more
// than it holds.
const (
	batchesPerFrame = 512
	bytesPerFrame   = 4 << 20
)

func newWriter(perBatch int, size int64, full bool) (*writer, error) {
	w := &writer{perBatch: perBatch, full: full, avatar: carnet.NewAvatarID()}
	keys := make([]ed25519.PrivateKey, 3)
	for i := range keys {
		var err error
		if _, keys[i], err = ed25519.GenerateKey(nil); err != nil {
			return nil, err
		}
	}
	w.world, w.sender = keys[0], keys[1]
	var err error
	if w.ledger, err = ledger.NewSigner("vault.carnet.ledger", keys[2]); err != nil {
		return nil, err
	}
	return w, w.make(size)
}

// make makes frames until their batches have size bytes.
func (w *writer) make(size int64) error {
	stream := carnet.NewStreamID()
	epoch := seal.NewEpoch(stream)
	slot, err := epoch.Slot(1)
	if err != nil {
		return err
	}
	w.slot = slot
	var previous carnet.Fingerprint
	var entries []carnet.Fingerprint
	from := time.Now().Add(-30 * 24 * time.Hour).Unix()
	for made := int64(0); made < size; {
		f := &evidence.Frame{Sender: "hub", Salt: ledger.NewSalt()}
		begun := made
		for i := 0; i < batchesPerFrame && made-begun < bytesPerFrame; i++ {
			batch, err := w.batch(slot, from)
			if err != nil {
				return err
			}
			h, _, err := seal.ParseHeader(batch)
			if err != nil {
				return err
			}
			f.Own, f.Batches, f.Keys = append(f.Own, i), append(f.Batches, batch), append(f.Keys, slot.BatchKey(h))
			made += int64(len(batch))
		}
		number := uint64(len(w.frames) + 1)
		var signed seal.Frame
		header := seal.FrameHeader{Audience: "arena", Incarnation: 1, Number: number, Previous: previous, Policy: 1, Time: time.Now().UnixNano(), Covers: [16]byte{1}}
		if err := signed.Sign(w.sender, header, f.Batches); err != nil {
			return err
		}
		f.Sign1, f.Leaves, previous = append([]byte(nil), signed.Sign1...), append([]carnet.Fingerprint(nil), signed.Leaves...), signed.Hash()
		statement := ledger.Statement{Kind: ledger.ReceivedRoot, Who: "arena", Time: header.Time, Peer: "hub", Frame: number,
			Root: signed.Root, Header: previous, PolicyVersion: 1}
		if f.Statement, err = statement.Marshal(); err != nil {
			return err
		}
		entries = append(entries, ledger.EntryOf(f.Salt, f.Statement))
		w.frames = append(w.frames, f)
	}
	return w.receipts(entries)
}

// batch seals the stream's next batch: one property, a value a second.
func (w *writer) batch(slot *seal.Slot, from int64) ([]byte, error) {
	ms := make([]carnet.Measurement, w.perBatch)
	first := w.batches * uint64(w.perBatch)
	for i := range ms {
		n := first + uint64(i)
		ms[i] = carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: time.Unix(from+int64(n), 0).UnixNano(), Value: carnet.Float(float64(60 + n*7%90))}
		if w.full {
			ms[i].Value, ms[i].Time = carnet.Float(rand.NormFloat64()), ms[i].Time+rand.Int64N(1e9)
		}
	}
	body, err := seal.AppendBody(nil, seal.Body{Retention: carnet.Keep, Hour: 1, First: first, Count: uint32(len(ms)), Content: senml.AppendColumns(nil, ms)})
	if err != nil {
		return nil, err
	}
	batch, err := slot.Seal(nil, w.batches, body)
	w.batches++
	return batch, err
}

// receipts puts the statements on the ledger, under one checkpoint.
func (w *writer) receipts(entries []carnet.Fingerprint) error {
	root := seal.Root(entries)
	text := log.Checkpoint{Origin: w.ledger.Name(), Size: uint64(len(entries)), Hash: root[:]}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, w.ledger)
	if err != nil {
		return err
	}
	signature, err := w.ledger.SignRoot(root)
	if err != nil {
		return err
	}
	for i, f := range w.frames {
		r := ledger.Receipt{Index: uint64(i), Checkpoint: signed, Signature: signature}
		for _, p := range seal.Proof(entries, i) {
			r.Path = append(r.Path, p)
		}
		f.Receipt = r.Marshal()
	}
	return nil
}

// Frames implements evidence.Source.
func (w *writer) Frames(_ context.Context, do func(*evidence.Frame) error) error {
	for _, f := range w.frames {
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) options() evidence.Options {
	pub := func(k ed25519.PrivateKey) evidence.PublicKey {
		return evidence.PublicKey(k.Public().(ed25519.PublicKey))
	}
	return evidence.Options{
		World: "arena", Avatar: w.avatar, Signer: w.world,
		Trust: evidence.Trust{
			Version: 1,
			Worlds:  []evidence.World{{Party: "arena", Key: pub(w.world)}},
			Senders: []evidence.Sender{{Party: "hub", Audience: "arena", Key: pub(w.sender)}},
			Ledgers: []evidence.Ledger{{Party: "vault", Key: w.ledger.Key().String()}},
		},
	}
}
