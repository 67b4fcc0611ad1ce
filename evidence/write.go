package evidence

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"hash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// Frame is one frame that holds batches of an avatar. avatar.ProvenFrame has
// the same fields, so that one converts to the other.
type Frame struct {
	Sender    carnet.PartyID       // as the world knows it
	Sign1     []byte               // the signed header
	Leaves    []carnet.Fingerprint // of all batches of the frame
	Own       []int                // which of them are the avatar's, ascending
	Batches   [][]byte             // those, byte for byte
	Keys      []seal.Key           // theirs, of batch level; zero: not at hand any more
	Statement []byte               // the world's received root
	Salt      ledger.Salt
	Receipt   []byte // empty: pending
	// Path is the joint path of Own, where the other leaves aren't known: of a frame
	// that a former world received. Leaves is empty then.
	Path []carnet.Fingerprint
}

// Source has the frames of one avatar.
type Source interface {
	// Frames hands over every frame that holds batches of the avatar, in the
	// order received. What is handed over is used until do returns; an error of
	// do ends it and is returned.
	Frames(ctx context.Context, do func(*Frame) error) error
}

// Options say what a bundle is about. Every field without a stated default is
// required.
type Options struct {
	World  carnet.PartyID
	Avatar carnet.AvatarID
	Trust  Trust         // the keys of the world, its senders and its ledger
	Signer crypto.Signer // the world's, Ed25519, with the public key that Trust has
	Only   *Batch        // one batch alone; nil: all of the avatar
	// Over says of streams what retention has ended of them, and Passages, of those that
	// came with a move, what the world that received them has signed.
	Over     map[carnet.StreamID][]Over
	Passages map[carnet.StreamID][]byte
	// Commits are, of these, the identity.MoveProofs of the moves by which they left.
	Commits map[carnet.StreamID][]byte
	// Left says of streams what was left out of them by an owner's order: Redactions.
	Left map[carnet.StreamID][][]byte
	// Jobs are the jobs over what the avatar said that have ended; nil: there is nothing of
	// jobs in the bundle. Its DPMs may be more than had one.
	Jobs *Jobs
	// Receipts asks the depot for all receipts anew, so that few checkpoints
	// cover all and nothing is pending; nil: the receipts are those of the Source.
	Receipts ledger.Submitter
	Now      time.Time // default time.Now
}

func (o *Options) check() error {
	if err := o.Trust.bundled(1); err != nil {
		return err
	}
	if o.Signer == nil {
		return carnet.Errorf(carnet.Malformed, "a bundle needs the world's key to sign it")
	}
	pub, ok := o.Signer.Public().(ed25519.PublicKey)
	if w := o.Trust.Worlds[0]; !ok || w.Party != o.World || !pub.Equal(ed25519.PublicKey(w.Key)) {
		return carnet.Errorf(carnet.Malformed, "the trust section has another key or name of the world than the one that signs")
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	return nil
}

// Write makes the bundle in dir, which must be empty or not be there. It leaves
// no manifest, and so no bundle, when it fails. Frames without a receipt are
// written as pending: Verify then answers Unknown.
//
// The bundle holds batch keys in the clear: files have mode 0600, the directory
// 0700.
func Write(ctx context.Context, dir string, source Source, o Options) (Counts, error) {
	if err := o.check(); err != nil {
		return Counts{}, err
	}
	w, err := newWriter(dir, o)
	if err != nil {
		return Counts{}, fmt.Errorf("write evidence: %w", err)
	}
	defer w.close()
	if err := source.Frames(ctx, func(f *Frame) error { return w.take(ctx, f) }); err != nil {
		return Counts{}, fmt.Errorf("write evidence: %w", err)
	}
	if err := w.flush(ctx); err != nil {
		return Counts{}, fmt.Errorf("write evidence: %w", err)
	}
	if o.Only != nil && w.m.Counts.Batches == 0 {
		return Counts{}, carnet.Errorf(carnet.NotFound, "there is no batch %d of stream %s", o.Only.Number, o.Only.Stream)
	}
	if err := w.finish(); err != nil {
		return Counts{}, fmt.Errorf("write evidence: %w", err)
	}
	return w.m.Counts, nil
}

// output is a file being written, with its hash.
type output struct {
	f    *os.File
	b    *bufio.Writer
	n    int64
	hash hash.Hash
}

func (o *output) write(p []byte) error {
	o.n += int64(len(p))
	o.hash.Write(p)
	_, err := o.b.Write(p)
	return err
}

// writer makes a bundle frame by frame.
type writer struct {
	dir     string
	options Options
	out     map[string]*output
	m       manifest
	streams map[carnet.StreamID]int
	opener  opener
	header  header
	joint   seal.Joint
	record  []byte

	waiting []waiting // frames whose receipts are asked for

	trust  Trust                   // all that may be named
	former map[carnet.StreamID]int // the senders of streams that came with a move, by their place in trust
	named  []int                   // the places of those senders that signed frames: the bundle names no others
}

// waiting is what is left of a frame when its batches are written.
type waiting struct {
	record frameRecord
	proof  ledger.FrameProof
}

// askAtOnce is how many receipts are asked for at once.
const askAtOnce = 1024

func newWriter(dir string, o Options) (*writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err != nil {
		return nil, err
	} else if len(entries) > 0 {
		return nil, carnet.Errorf(carnet.Conflict, "the directory %s is not empty", dir).WithFix("give another one")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	w := &writer{dir: dir, options: o, out: make(map[string]*output), streams: make(map[carnet.StreamID]int), opener: newOpener()}
	w.m = manifest{Version: 2, World: o.World, Avatar: o.Avatar, Made: o.Now.UTC(), Only: o.Only, Streams: []streamEntry{}}
	for _, name := range dataFiles {
		if _, err := w.create(name); err != nil {
			w.close()
			return nil, err
		}
	}
	if err := w.passages(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// create begins a file of the bundle.
func (w *writer) create(name string) (*output, error) {
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w.out[name] = &output{f: f, b: bufio.NewWriterSize(f, 1<<18), hash: sha256.New()}
	return w.out[name], nil
}

// passages makes the trust section: the world's own, then what former worlds say.
func (w *writer) passages() error {
	type origin struct {
		world, ledger int
		party, to     carnet.PartyID
		key           string
	}
	t, o := w.options.Trust, w.options
	t.Worlds, t.Ledgers, t.Senders = slices.Clone(t.Worlds), slices.Clone(t.Ledgers), slices.Clone(t.Senders)
	places := make(map[origin]int)
	w.former = make(map[carnet.StreamID]int)
	byID := func(p, q carnet.StreamID) int { return bytes.Compare(p[:], q[:]) }
	for _, id := range slices.SortedFunc(maps.Keys(o.Passages), byID) {
		p, err := OpenPassage(o.Passages[id])
		if err != nil {
			return err
		}
		of := origin{party: p.Sender.Party, to: p.Sender.Audience, key: string(p.Sender.Key)}
		if of.world = slices.IndexFunc(t.Worlds, func(w World) bool { return w.Party == p.World.Party && bytes.Equal(w.Key, p.World.Key) }); of.world < 0 {
			of.world, t.Worlds = len(t.Worlds), append(t.Worlds, p.World)
		}
		if of.ledger = slices.Index(t.Ledgers, p.Ledger); of.ledger < 0 {
			of.ledger, t.Ledgers = len(t.Ledgers), append(t.Ledgers, p.Ledger)
		}
		place, known := places[of]
		if !known {
			place, t.Senders = len(t.Senders), append(t.Senders, p.Sender)
			places[of] = place
		}
		w.former[id] = place
	}
	for _, id := range slices.SortedFunc(maps.Keys(o.Left), byID) {
		left, err := checkLeft(id, o.Left[id])
		if err != nil {
			return err
		}
		for _, r := range left {
			w.m.Version = max(w.m.Version, 3)
			if !slices.ContainsFunc(t.Worlds, func(w World) bool { return w.Party == r.World.Party && bytes.Equal(w.Key, r.World.Key) }) {
				t.Worlds = append(t.Worlds, r.World)
			}
		}
	}
	if len(o.Commits) > 0 {
		w.m.Version = 4
	}
	w.trust = t
	return t.bundled(w.m.Version)
}

func (w *writer) close() {
	for _, o := range w.out {
		o.f.Close()
	}
}

// take writes the batches of a frame, and its proof when its receipt is at hand.
func (w *writer) take(ctx context.Context, f *Frame) error {
	if len(f.Own) != len(f.Batches) || len(f.Own) != len(f.Keys) {
		return carnet.Errorf(carnet.Malformed, "a frame has %d places, %d batches and %d keys", len(f.Own), len(f.Batches), len(f.Keys))
	}
	if err := w.header.parse(f.Sign1); err != nil {
		return err
	}
	h := w.header.frame.Header
	sender, err := w.sender(f)
	if err != nil {
		return err
	}
	r := frameRecord{number: h.Number, first: w.m.Counts.Batches}
	var own []int
	for i, batch := range f.Batches {
		bh, _, err := seal.ParseHeader(batch)
		if err != nil {
			return err
		}
		if only := w.options.Only; only != nil && (bh.Stream != only.Stream || bh.Number != only.Number) {
			continue
		}
		if f.Own[i] >= int(h.Count) {
			return carnet.Errorf(carnet.Malformed, "frame %d has %d batches and no number %d", h.Number, h.Count, f.Own[i])
		}
		if former, ok := w.former[bh.Stream]; ok && former != sender || !ok && f.Path != nil {
			return carnet.Errorf(carnet.Malformed, "frame %d has batches that two worlds received", h.Number)
		}
		place := w.name(sender)
		r.sender = uint16(place)
		if err := w.batch(place, uint32(f.Own[i]), bh, batch, f.Keys[i]); err != nil {
			return err
		}
		own = append(own, f.Own[i])
	}
	if len(own) == 0 {
		return nil
	}
	r.batches = uint16(len(own))
	path := f.Path
	if path == nil {
		path = w.joint.Prove(f.Leaves, own)
	} else if len(own) < len(f.Own) {
		return carnet.Errorf(carnet.Malformed, "frame %d proves its batches together alone", h.Number)
	}
	w.waiting = append(w.waiting, waiting{r, ledger.FrameProof{
		Sign1: append([]byte(nil), f.Sign1...), Statement: append([]byte(nil), f.Statement...), Salt: f.Salt,
		Receipt: append([]byte(nil), f.Receipt...), Path: append([]carnet.Fingerprint(nil), path...),
	}})
	if len(w.waiting) >= askAtOnce {
		return w.flush(ctx)
	}
	return nil
}

// sender finds the place of a frame's sender in the trust section: that of its
// stream, where a former world received it.
func (w *writer) sender(f *Frame) (int, error) {
	if len(f.Batches) > 0 {
		h, _, err := seal.ParseHeader(f.Batches[0])
		if err != nil {
			return 0, err
		}
		if place, ok := w.former[h.Stream]; ok {
			return place, nil
		}
	}
	for i, s := range w.options.Trust.Senders {
		if s.Party == f.Sender {
			return i, nil
		}
	}
	return 0, carnet.Errorf(carnet.NotFound, "the trust section has no key of the sender %s", f.Sender)
}

// name has the bundle name a sender, and returns its place there.
func (w *writer) name(sender int) int {
	place := slices.Index(w.named, sender)
	if place < 0 {
		place, w.named = len(w.named), append(w.named, sender)
	}
	return place
}

// emptied names the streams of which nothing is here, since what there was of them was
// left out by an owner's order.
func (w *writer) emptied() {
	byID := func(p, q carnet.StreamID) int { return bytes.Compare(p[:], q[:]) }
	for _, id := range slices.SortedFunc(maps.Keys(w.options.Left), byID) {
		sender, former := w.former[id]
		if _, named := w.streams[id]; !named && former && w.options.Only == nil {
			w.m.Streams = append(w.m.Streams, streamEntry{Stream: id, Sender: w.name(sender), Over: w.options.Over[id], Passage: w.options.Passages[id], Left: w.options.Left[id], Commit: w.options.Commits[id]})
		}
	}
}

// writeTrust writes the trust section.
func (w *writer) writeTrust() error {
	t := w.trust
	t.Senders = []Sender{}
	for _, place := range w.named {
		t.Senders = append(t.Senders, w.trust.Senders[place])
	}
	text, err := t.marshal()
	if err != nil {
		return err
	}
	return w.out[FileTrust].write(text)
}

func (w *writer) batch(sender int, leaf uint32, h seal.Header, batch []byte, key seal.Key) error {
	if (key != seal.Key{}) && (key.Level != seal.BatchLevel || !key.Covers(h)) {
		return carnet.Errorf(carnet.Forbidden, "evidence takes the keys of its batches alone, not the key of %s", key.Path)
	}
	c := &w.m.Counts
	r := batchRecord{number: h.Number, offset: c.Bytes, length: uint32(len(batch)), leaf: leaf}
	place, known := w.streams[h.Stream]
	if !known {
		if place = len(w.m.Streams); place >= maxNames {
			return carnet.Errorf(carnet.TooLarge, "the avatar has more than %d streams", maxNames)
		}
		w.streams[h.Stream] = place
		w.m.Streams = append(w.m.Streams, streamEntry{
			Stream: h.Stream, Sender: sender, From: h.Number, Next: h.Number, Over: w.options.Over[h.Stream], Passage: w.options.Passages[h.Stream],
			Left: w.options.Left[h.Stream], Commit: w.options.Commits[h.Stream],
		})
	}
	s := &w.m.Streams[place]
	// A batch that doesn't open stays in the bundle, with nothing in it: what to
	// think of it is for Verify to say.
	_, in, err := w.opener.open(&key.Secret, batch)
	if err != nil {
		in = contents{first: s.End}
	}
	if !known {
		s.First = in.first
	}
	r.stream, r.first, r.count, r.from, r.to = uint32(place), in.first, in.count, in.from, in.to
	s.Next, s.End = h.Number+1, in.first+uint64(in.count)
	c.Batches++
	c.Measurements += uint64(in.count)
	c.Bytes += uint64(len(batch))
	if key.Secret == [32]byte{} {
		c.Closed++
	}
	f := carnet.FingerprintOf(batch)
	w.out[FileBatches].hash.Write(f[:])
	w.out[FileBatches].n += int64(len(batch))
	if _, err := w.out[FileBatches].b.Write(batch); err != nil {
		return err
	}
	if err := w.out[FileKeys].write(key.Secret[:]); err != nil {
		return err
	}
	w.record = r.append(w.record[:0])
	return w.out[FileBatchIndex].write(w.record)
}

// flush writes the proofs of the frames that wait.
func (w *writer) flush(ctx context.Context) error {
	if err := w.ask(ctx); err != nil {
		return err
	}
	for i := range w.waiting {
		r, p := &w.waiting[i].record, &w.waiting[i].proof
		w.record = p.Append(w.record[:0])
		r.offset, r.length = uint64(w.out[FileFrames].n), uint32(len(w.record))
		if err := w.out[FileFrames].write(w.record); err != nil {
			return err
		}
		w.record = r.append(w.record[:0])
		if err := w.out[FileFrameIndex].write(w.record); err != nil {
			return err
		}
		w.m.Counts.Frames++
		if len(p.Receipt) == 0 {
			w.m.Counts.Pending++
		}
	}
	w.waiting = w.waiting[:0]
	return nil
}

// ask gets new receipts for the frames that wait, if a depot was given.
func (w *writer) ask(ctx context.Context) error {
	if w.options.Receipts == nil || len(w.waiting) == 0 {
		return nil
	}
	entries := make([]ledger.Entry, len(w.waiting))
	for i := range w.waiting {
		entries[i] = ledger.EntryOf(w.waiting[i].proof.Salt, w.waiting[i].proof.Statement)
	}
	receipts, err := w.options.Receipts.Submit(ctx, entries)
	if err != nil {
		return err
	}
	if len(receipts) != len(entries) {
		return carnet.Errorf(carnet.Tampered, "the depot gave %d receipts for %d entries", len(receipts), len(entries))
	}
	for i := range receipts {
		w.waiting[i].proof.Receipt = receipts[i].Marshal()
	}
	return nil
}

// finish makes everything durable, the manifest last.
func (w *writer) finish() error {
	w.emptied()
	if err := w.writeJobs(); err != nil {
		return err
	}
	if err := w.writeTrust(); err != nil {
		return err
	}
	for _, name := range append(slices.Clone(dataFiles[:]), FileJobs) {
		o := w.out[name]
		if o == nil { // there are no jobs
			continue
		}
		if err := o.b.Flush(); err != nil {
			return err
		}
		if err := o.f.Sync(); err != nil {
			return err
		}
		w.m.Files = append(w.m.Files, fileEntry{Name: name, Length: o.n, Hash: carnet.Fingerprint(o.hash.Sum(nil))})
	}
	signed, err := w.m.sign(w.options.Signer)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(w.dir, FileManifest), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(signed); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	d, err := os.Open(w.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
