package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"carnet"
	"carnet/identity"
	"carnet/ledger"

	"golang.org/x/sync/errgroup"
)

// VerifyOptions say how to verify. The zero value is good.
type VerifyOptions struct {
	Workers int // default GOMAXPROCS
	// Receipt is given each frame's receipt that holds, in any order, by several at once.
	// What it returns ends the verification. Nil: nobody wants them.
	Receipt func(FrameReceipt) error
}

// FrameReceipt proves a frame's statement to be in a ledger.
type FrameReceipt struct {
	Sender carnet.PartyID // as the world calls it
	Number uint64         // of the frame
	Entry  ledger.Entry   // of the statement about it
	ledger.Receipt
}

// Verify verifies the bundle in dir. With trust, only its keys count; with nil,
// the bundle's own are used, and the report proves no more than that the bundle
// holds together. An error means that the verification itself failed, say that
// a file can't be read or ctx ended; what is wrong with the bundle is in the
// report.
func Verify(ctx context.Context, dir string, trust *Trust, o VerifyOptions) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if trust != nil {
		if err := trust.Pins(); err != nil {
			return nil, err
		}
	}
	v := &verification{dir: dir, trust: trust, wants: o.Receipt, report: &Report{Pinned: trust != nil, Findings: []Finding{}}}
	defer v.close()
	if whole, err := v.openFiles(); err != nil || !whole {
		return v.report, err
	}
	if whole, err := v.openManifest(); err != nil || !whole {
		return v.report, err
	}
	if err := v.run(ctx, o.Workers); err != nil {
		return nil, fmt.Errorf("verify evidence: %w", err)
	}
	return v.report, nil
}

// verification is one run of Verify.
type verification struct {
	dir    string
	trust  *Trust
	wants  func(FrameReceipt) error // nil: nobody does
	report *Report
	files  map[string]*os.File

	manifest  manifest
	own       Trust              // the bundle's
	verifiers []*ledger.Verifier // of its ledgers
	histories []*history         // likewise; used by one goroutine
	senders   []sender
	passages  []*Passage      // of its streams; nil: received by the bundle's world
	left      [][]*Redaction  // of its streams
	homes     []carnet.HomeID // that every commit so far moved; nil: there was none
	keys      int64           // how many keys the file of keys has, where that was cut
	streams   map[carnet.StreamID]uint32
	results   sync.Pool // of *result that the join is done with
}

// sender is one of the bundle's, with where what it sent was received.
type sender struct {
	id            carnet.Fingerprint // of its key
	world, ledger int                // places in the trust section
	known         bool               // it has a stream
	chain         int                // place of the first that is the same sender: their frames are in one order
}

// spare returns an empty result.
func (v *verification) spare() *result {
	r, ok := v.results.Get().(*result)
	if !ok {
		return new(result)
	}
	*r = result{frames: r.frames[:0], batches: r.batches[:0], findings: r.findings[:0]}
	return r
}

func (v *verification) close() {
	for _, f := range v.files {
		f.Close()
	}
}

// whole adds a finding about a file as a whole, which affects all batches.
func (v *verification) whole(file, format string, args ...any) {
	v.report.add(Finding{Verdict: False, File: file, Offset: -1, All: true, Text: fmt.Sprintf(format, args...)})
}

// openFiles opens the bundle's files; false: they are not those of a bundle.
func (v *verification) openFiles() (bool, error) {
	if info, err := os.Stat(v.dir); err == nil && !info.IsDir() {
		v.whole(filepath.Base(v.dir), "is not a bundle's directory")
		return false, nil
	}
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return false, carnet.Errorf(carnet.NotFound, "the bundle can't be read: %v", err)
	}
	names := append([]string{FileManifest}, dataFiles[:]...)
	for _, e := range entries {
		if e.Name() == FileJobs {
			names = append(names, FileJobs)
		} else if !slices.Contains(names, e.Name()) {
			v.whole(e.Name(), "the file doesn't belong to the bundle")
		}
	}
	v.files = make(map[string]*os.File)
	complete := true
	for _, name := range names {
		path := filepath.Join(v.dir, name)
		info, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			v.whole(name, "the file is missing")
			complete = false
			continue
		} else if err != nil {
			return false, err
		}
		if !info.Mode().IsRegular() {
			v.whole(name, "is not a regular file")
			complete = false
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		v.files[name] = f
	}
	return complete, nil
}

// small reads a small file; nil: it is too large.
func (v *verification) small(name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(v.files[name], limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		v.whole(name, "the file has more than %d bytes", limit)
		return nil, nil
	}
	return data, nil
}

// openManifest verifies manifest and trust section; false: there is nothing to
// go by.
func (v *verification) openManifest() (bool, error) {
	signed, err := v.small(FileManifest, maxManifest)
	if err != nil || signed == nil {
		return false, err
	}
	text, err := v.small(FileTrust, maxTrust)
	if err != nil || text == nil {
		return false, err
	}
	m, err := parseManifest(signed)
	if err != nil {
		v.whole(FileManifest, "%v", err)
		return false, nil
	}
	v.manifest = m.manifest
	if here, named := v.files[FileJobs] != nil, m.file(FileJobs).Name != ""; here && !named {
		v.whole(FileJobs, "the file doesn't belong to the bundle")
		return false, nil
	} else if named && !here {
		v.whole(FileJobs, "the file is missing")
		return false, nil
	}
	r := v.report
	r.World, r.Avatar, r.Made, r.Only = m.World, m.Avatar, m.Made, m.Only
	sameTrust := carnet.FingerprintOf(text) == m.file(FileTrust).Hash
	if own, err := ParseTrust(text); err != nil {
		v.whole(FileTrust, "%v", err)
		return false, nil
	} else if err := own.bundled(m.Version); err != nil {
		v.whole(FileTrust, "%v", err)
		return false, nil
	} else {
		v.own, r.Trust = *own, *own
	}
	if !v.checkSignature(m, sameTrust) {
		return false, nil
	}
	whole := v.prepare()
	r.Trust.Senders = v.signers()
	if v.trust != nil {
		r.add(r.Trust.against(v.trust)...)
	}
	return whole, nil
}

// signers are the senders that streams of the bundle are of, with the world that each
// sends to: a bundle of an older program names others, too, which signed nothing in it.
func (v *verification) signers() (all []Sender) {
	for i, s := range v.own.Senders {
		if slices.ContainsFunc(v.manifest.Streams, func(e streamEntry) bool { return e.Sender == i }) {
			if i < len(v.senders) {
				s.World = v.own.Worlds[v.senders[i].world].Key
			}
			all = append(all, s)
		}
	}
	return all
}

// checkSignature verifies the manifest, and says which of the two files is at
// fault when it doesn't hold.
func (v *verification) checkSignature(m *signedManifest, sameTrust bool) bool {
	w := v.own.Worlds[0]
	switch holds := m.verify(w.Key); {
	case holds && !sameTrust:
		v.whole(FileTrust, "the file is not the one that the world signed")
	case holds && (m.kid != keyID(w.Key) || m.World != w.Party):
		v.whole(FileManifest, "the manifest names another world or key than the trust section")
	case holds:
		return true
	case !sameTrust && m.kid != keyID(w.Key):
		v.whole(FileTrust, "the trust section has another key of the world than the one that signed the manifest")
	default:
		v.whole(FileManifest, "the manifest is not signed by the world's key")
		if !sameTrust {
			v.whole(FileTrust, "the file is not the one that the manifest names")
		}
	}
	return false
}

// prepare sets up what the workers share, and compares lengths of files; false:
// the counts of the manifest aren't those of the indexes, so they can't be gone
// through.
func (v *verification) prepare() bool {
	for _, l := range v.own.Ledgers {
		key, err := ledger.ParseKey(l.Key)
		if err != nil {
			v.whole(FileTrust, "%v", err)
			return false
		}
		v.verifiers = append(v.verifiers, ledger.NewVerifier(key))
	}
	v.histories = histories(v.verifiers)
	for _, s := range v.own.Senders {
		v.senders = append(v.senders, sender{id: s.id()})
	}
	v.streams = make(map[carnet.StreamID]uint32)
	v.passages, v.left = make([]*Passage, len(v.manifest.Streams)), make([][]*Redaction, len(v.manifest.Streams))
	for i := range v.manifest.Streams {
		s := &v.manifest.Streams[i]
		if _, twice := v.streams[s.Stream]; twice || s.Sender < 0 || s.Sender >= len(v.senders) || s.Next < s.From || s.End < s.First {
			v.whole(FileManifest, "the manifest's entry of stream %s can't be", s.Stream)
			return false
		}
		v.streams[s.Stream] = uint32(i)
		why := v.passage(i)
		if why == "" {
			why = v.redacted(i)
		}
		if why != "" {
			v.whole(FileManifest, "the manifest's entry of stream %s: %s", s.Stream, why)
			return false
		}
	}
	v.chain()
	indexed := true
	v.keys = math.MaxInt64
	for _, f := range v.manifest.Files {
		if info, err := v.files[f.Name].Stat(); err != nil || info.Size() != f.Length {
			v.whole(f.Name, "the file has another length than the %d bytes that the manifest says", f.Length)
			if f.Name == FileKeys && err == nil {
				v.keys = info.Size() / hashSize
			}
			indexed = indexed && f.Name != FileFrameIndex && f.Name != FileBatchIndex
		}
	}
	return indexed
}

// chain finds senders that are listed more than once. One is so where an avatar came back to
// a world that it had left: the world's own list and the passage name it.
func (v *verification) chain() {
	for i, s := range v.senders {
		for k, o := range v.senders[:i+1] {
			if o.id == s.id && o.world == s.world && o.ledger == s.ledger && v.own.Senders[k].Audience == v.own.Senders[i].Audience {
				v.senders[i].chain = k
				break
			}
		}
	}
}

// passage finds out where a stream was received, and says what is wrong with that.
func (v *verification) passage(i int) string {
	s, from := &v.manifest.Streams[i], sender{id: v.senders[v.manifest.Streams[i].Sender].id, known: true}
	if len(s.Passage) > 0 {
		p, err := OpenPassage(s.Passage)
		if err != nil {
			return err.Error()
		}
		from.world = slices.IndexFunc(v.own.Worlds, func(w World) bool { return w.Party == p.World.Party && bytes.Equal(w.Key, p.World.Key) })
		from.ledger = slices.Index(v.own.Ledgers, p.Ledger)
		is := &v.own.Senders[s.Sender]
		switch {
		case from.world < 0 || from.ledger < 0 || is.Party != p.Sender.Party || is.Audience != p.Sender.Audience || is.Shares != p.Sender.Shares || !bytes.Equal(is.Key, p.Sender.Key):
			return "the trust section has other keys than " + string(p.World.Party) + " says, or calls its sender something else"
		case p.Stream != s.Stream || s.Next > p.Next:
			return "it is another stream than " + string(p.World.Party) + " says, or goes on further"
		}
		v.passages[i] = p
		if why := v.committed(s, p); why != "" {
			return why
		}
	}
	if had := v.senders[s.Sender]; had.known && had != from {
		return "its sender sends to two worlds"
	}
	v.senders[s.Sender] = from
	return ""
}

// committed holds a passage against the registrar's commit of the move by which the
// stream left: a world has signed passages of moves that were called off, too.
func (v *verification) committed(s *streamEntry, p *Passage) string {
	if len(s.Commit) == 0 {
		v.report.add(Finding{Verdict: Unknown, File: FileManifest, Offset: -1, Stream: s.Stream,
			Text: "no registrar's commit is beside what " + string(p.World.Party) + " says of the stream: whether it is of a move that took place, and where the stream stood then, can't be told"})
		return ""
	}
	c, err := identity.OpenMoveProof(s.Commit)
	if err != nil {
		return err.Error()
	}
	d, err := c.Of(p.Crossing, identity.Head{Stream: p.Stream, NextBatch: p.Next, NextFirst: p.End})
	if err != nil {
		return err.Error()
	}
	var homes []carnet.HomeID
	for _, h := range d.Homes {
		if v.homes == nil || slices.Contains(v.homes, h.Home) {
			homes = append(homes, h.Home)
		}
	}
	if v.homes = homes; len(homes) == 0 {
		return "the registrar's commits are of moves of several avatars"
	}
	if own := &v.report.Trust; !slices.Contains(own.Registrars, d.Registrar) {
		own.Registrars = append(own.Registrars, d.Registrar)
	}
	return ""
}

// redacted finds out what was left out of a stream, and says what is wrong with that.
func (v *verification) redacted(i int) string {
	s := &v.manifest.Streams[i]
	left, err := checkLeft(s.Stream, s.Left)
	if err != nil {
		return err.Error()
	}
	for _, r := range left {
		if !slices.ContainsFunc(v.own.Worlds, func(w World) bool { return w.Party == r.World.Party && bytes.Equal(w.Key, r.World.Key) }) {
			return "the trust section has another key of " + string(r.World.Party) + ", which left something out, or none"
		}
	}
	v.left[i] = left
	return ""
}

// A worker takes a run of frames at once: one signature in that many is verified,
// if their chain holds. So a unit has many frames, but not so many that one worker
// is at work when the others have ended.
const (
	unitFrames  = 64
	unitBatches = 1024
	unitBytes   = 1 << 20
	unitsEach   = 8 // for each worker, if there are frames enough
)

// unitSize is how many frames a unit has. The manifest's counts are a hint here:
// whether they are right is found out later.
func (m *manifest) unitSize(workers int) int64 {
	c := &m.Counts
	n := min(unitFrames, c.Frames/uint64(unitsEach*workers), unitBatches*c.Frames/max(1, c.Batches), unitBytes*c.Frames/max(1, c.Bytes))
	return int64(max(1, n))
}

// unit is a run of frames, and what came of them.
type unit struct {
	from, to int64 // places in frames.idx
	done     chan *result
}

// run verifies the frames in parallel and joins the results in their order.
func (v *verification) run(ctx context.Context, workers int) error {
	parent := ctx // that of the group ends with it
	g, ctx := errgroup.WithContext(ctx)
	units := make(chan unit)
	order := make(chan unit, 2*workers)
	g.Go(func() error {
		defer close(units)
		defer close(order)
		size := v.manifest.unitSize(workers)
		for at, end := int64(0), int64(v.manifest.Counts.Frames); at < end; at += size {
			u := unit{at, min(at+size, end), make(chan *result, 1)}
			for _, to := range []chan unit{order, units} {
				select {
				case to <- u:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			w := newWorker(v)
			for u := range units {
				r, err := w.unit(u)
				if err != nil {
					return err
				}
				u.done <- r
			}
			return nil
		})
	}
	sums := make([]carnet.Fingerprint, len(v.manifest.Files))
	g.Go(func() error { return v.hashFiles(ctx, sums) })
	j := newJoin(v)
	g.Go(func() error {
		for u := range order {
			select {
			case r := <-u.done:
				j.take(r)
				v.results.Put(r)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	j.end(sums)
	return v.jobsOf(parent)
}

// hashFiles hashes the files that are hashed as a whole, as far as the manifest
// says that they go: one that goes on is false already, however long it is.
func (v *verification) hashFiles(ctx context.Context, sums []carnet.Fingerprint) error {
	buf := make([]byte, 1<<18)
	for i, f := range v.manifest.Files {
		name := f.Name
		if name == FileBatches || name == FileTrust || name == FileJobs {
			continue
		}
		h := sha256.New()
		for at, end := int64(0), v.manifest.file(name).Length; at < end; {
			n, err := v.files[name].ReadAt(buf[:min(int64(len(buf)), end-at)], at)
			h.Write(buf[:n])
			if at += int64(n); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		sums[i] = carnet.Fingerprint(h.Sum(nil))
	}
	return nil
}
