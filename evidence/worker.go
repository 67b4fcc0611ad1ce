package evidence

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// window reads a file forwards, a large piece at a time.
type window struct {
	f    *os.File
	end  int64 // of the file, as the manifest has it
	size int
	buf  []byte // what is held
	at   int64  // where that begins
}

// get returns n bytes at an offset, good until the next call; nil: the file
// ends before, as the manifest has it.
func (w *window) get(off uint64, n int) ([]byte, error) {
	if end := uint64(w.end); n < 0 || off > end || uint64(n) > end-off {
		return nil, nil
	}
	at := int64(off)
	if from := at - w.at; from >= 0 && from+int64(n) <= int64(len(w.buf)) {
		return w.buf[from:][:n:n], nil
	}
	want := max(n, int(min(int64(w.size), w.end-at)))
	if cap(w.buf) < want {
		w.buf = make([]byte, want)
	}
	got, err := w.f.ReadAt(w.buf[:want], at)
	if err != nil && !errors.Is(err, io.EOF) {
		w.buf = w.buf[:0]
		return nil, err
	}
	if w.buf, w.at = w.buf[:got], at; got < n {
		return nil, nil
	}
	return w.buf[:n:n], nil
}

// result is what came of a unit.
type result struct {
	frames     []frameResult
	batches    []batchResult
	findings   []Finding
	counts     Counts
	checkpoint ledger.Checkpoint // the largest
}

// frameResult is a frame as the join looks at it.
type frameResult struct {
	record   frameRecord
	place    int64
	read     bool // the number is that of its signed header
	proved   bool // by its signature
	hash     carnet.Fingerprint
	previous carnet.Fingerprint
	shown    *shown // nil: it has no receipt that holds
	batches  int    // of result.batches, those of this frame follow one another
}

type batchResult struct {
	record      batchRecord
	place       uint64
	fingerprint carnet.Fingerprint
	read        bool // record is to be relied on
	loose       bool // how many measurements it holds is not known
}

// sealed is a batch on its way through a worker.
type sealed struct {
	place  uint64
	record batchRecord
	whole  bool // the record is not damaged
	bytes  []byte
	secret [hashSize]byte
	cut    bool // the file of keys ends before its key
	in     contents

	fingerprint carnet.Fingerprint
}

// worker verifies units, one after the other.
type worker struct {
	v                            *verification
	frameIndex, frames           window
	batchIndex, batches, secrets window

	opener opener
	header header
	proof  ledger.FrameProof
	joint  seal.Joint

	// Of the unit at work.
	result *result
	arena  []sealed // batches of the frame at work
	blank  []sealed // as many as a frame can have
	// Where the next frame and its batches must begin; held false: the record
	// before is damaged.
	nextOffset, nextFirst, nextBatch uint64
	held, heldBatch                  bool
}

func newWorker(v *verification) *worker {
	open := func(name string, size int) window {
		return window{f: v.files[name], end: v.manifest.file(name).Length, size: size}
	}
	return &worker{
		v: v, opener: newOpener(), blank: make([]sealed, min(seal.MaxFrameBatches, v.manifest.Counts.Batches)),
		frameIndex: open(FileFrameIndex, (unitFrames+1)*frameRecordSize), frames: open(FileFrames, 1<<17),
		batchIndex: open(FileBatchIndex, 1<<16), batches: open(FileBatches, 1<<17), secrets: open(FileKeys, 1<<15),
	}
}

func (w *worker) unit(u unit) (*result, error) {
	w.result = w.v.spare()
	if err := w.place(u.from); err != nil {
		return nil, err
	}
	for at := u.from; at < u.to; at++ {
		if err := w.frame(at); err != nil {
			return nil, err
		}
	}
	return w.result, nil
}

// place finds where the first frame of a unit must begin.
func (w *worker) place(at int64) error {
	w.nextOffset, w.nextFirst, w.nextBatch, w.held, w.heldBatch = 0, 0, 0, true, true
	if at == 0 {
		return nil
	}
	r, ok, err := w.frameRecord(at - 1)
	if err != nil {
		return err
	}
	w.held, w.heldBatch = ok, false
	w.nextOffset, w.nextFirst = r.offset+uint64(r.length), r.first+uint64(r.batches)
	if ok && w.nextFirst > 0 {
		b, whole, err := w.batchRecord(w.nextFirst - 1)
		if err != nil {
			return err
		}
		w.nextBatch, w.heldBatch = b.offset+uint64(b.length), whole
	}
	return nil
}

func (w *worker) frameRecord(at int64) (r frameRecord, ok bool, err error) {
	b, err := w.frameIndex.get(uint64(at)*frameRecordSize, frameRecordSize)
	return r, b != nil && r.parse(b), err
}

func (w *worker) batchRecord(at uint64) (r batchRecord, ok bool, err error) {
	b, err := w.batchIndex.get(at*batchRecordSize, batchRecordSize)
	return r, b != nil && r.parse(b), err
}

// frame verifies one frame with its batches.
func (w *worker) frame(at int64) error {
	r, ok, err := w.frameRecord(at)
	if err != nil {
		return err
	}
	if ok && w.held && (r.offset != w.nextOffset || r.first != w.nextFirst) {
		w.addTo(nil, r, Finding{File: FileFrameIndex, Offset: at * frameRecordSize, All: true, Text: "the record doesn't begin where the one before ends"})
	}
	damaged := !ok
	if damaged {
		if r, ok, err = w.guess(at); err != nil {
			return err
		}
	}
	w.nextOffset, w.nextFirst, w.held = r.offset+uint64(r.length), r.first+uint64(r.batches), ok
	batches, err := w.load(r)
	if err != nil {
		return err
	}
	if damaged {
		w.addTo(batches, frameRecord{}, Finding{File: FileFrameIndex, Offset: at * frameRecordSize, All: len(batches) == 0,
			Text: "the record of the frame was changed"})
	}
	w.result.frames = append(w.result.frames, frameResult{record: r, place: at, batches: len(batches)})
	w.result.counts.Frames++
	proved, err := w.prove(r, batches, damaged)
	if err != nil {
		return err
	}
	whole := true
	for i := range batches {
		whole = w.openBatch(r, &batches[i], proved) && whole
	}
	if !proved && whole && w.result.frames[len(w.result.frames)-1].read {
		w.addTo(batches, r, Finding{File: FileFrames, Offset: int64(r.offset), All: len(batches) == 0, Text: "the batches are not the ones that the sender signed"})
	}
	return nil
}

// guess works out a damaged record of a frame from its neighbours; false: they
// don't tell.
func (w *worker) guess(at int64) (r frameRecord, ok bool, err error) {
	end := frameRecord{offset: uint64(w.v.manifest.file(FileFrames).Length), first: w.v.manifest.Counts.Batches}
	if ok = true; at+1 < int64(w.v.manifest.Counts.Frames) {
		if end, ok, err = w.frameRecord(at + 1); err != nil {
			return r, false, err
		}
	}
	if !ok || !w.held || end.offset < w.nextOffset || end.first < w.nextFirst ||
		end.offset-w.nextOffset > ledger.MaxFrameProof || end.first-w.nextFirst > seal.MaxFrameBatches {
		return r, false, nil
	}
	r = frameRecord{offset: w.nextOffset, first: w.nextFirst, length: uint32(end.offset - w.nextOffset), batches: uint16(end.first - w.nextFirst)}
	b, err := w.frames.get(r.offset, int(r.length))
	if err != nil || b == nil || !w.proof.Parse(b) || w.header.parse(w.proof.Sign1) != nil {
		return r, false, err
	}
	r.number = w.header.frame.Header.Number
	for i := range w.v.senders {
		if w.v.senders[i].id == w.header.frame.Header.Sender {
			r.sender = uint16(i)
		}
	}
	return r, true, nil
}

// load reads a frame's batches, with their records and keys.
func (w *worker) load(r frameRecord) ([]sealed, error) {
	total := w.v.manifest.Counts.Batches
	if r.batches == 0 || r.batches > seal.MaxFrameBatches || r.first > total || total-r.first < uint64(r.batches) {
		return nil, nil
	}
	w.arena = append(w.arena[:0], w.blank[:r.batches]...)
	batches := w.arena
	for i := range batches {
		if err := w.loadRecord(&batches[i], r.first+uint64(i)); err != nil {
			return nil, err
		}
	}
	first, last := &batches[0].record, &batches[len(batches)-1].record
	from, to := first.offset, last.offset+uint64(last.length)
	if to < from || to-from > seal.MaxFrame {
		to = from
	}
	body, err := w.batches.get(from, int(to-from))
	if err != nil {
		return nil, err
	}
	there := int(min(int64(len(batches)), max(0, w.v.keys-int64(r.first)))) // fewer: the file was cut
	keys, err := w.secrets.get(r.first*hashSize, there*hashSize)
	if err != nil {
		return nil, err
	}
	for i := range batches {
		b := &batches[i]
		at := b.record.offset - from
		if end := at + uint64(b.record.length); at <= end && end <= uint64(len(body)) {
			b.bytes = body[at:end:end]
		}
		b.fingerprint = carnet.FingerprintOf(b.bytes)
		if b.cut = i >= there; !b.cut && keys != nil {
			copy(b.secret[:], keys[i*hashSize:])
		}
	}
	return batches, nil
}

// loadRecord reads the record of a batch, or works it out from its neighbours.
func (w *worker) loadRecord(b *sealed, place uint64) (err error) {
	b.place = place
	if b.record, b.whole, err = w.batchRecord(place); err != nil {
		return err
	}
	tiled := b.whole
	if b.whole && w.heldBatch && b.record.offset != w.nextBatch {
		w.addTo([]sealed{*b}, frameRecord{}, Finding{File: FileBatchIndex, Offset: int64(place) * batchRecordSize,
			Text: "the record doesn't begin where the one before ends"})
	}
	if !b.whole {
		end := batchRecord{offset: uint64(w.v.manifest.file(FileBatches).Length)}
		ok := true
		if place+1 < w.v.manifest.Counts.Batches {
			if end, ok, err = w.batchRecord(place + 1); err != nil {
				return err
			}
		}
		b.record = batchRecord{}
		if tiled = ok && w.heldBatch && end.offset >= w.nextBatch && end.offset-w.nextBatch <= seal.MaxBatch; tiled {
			b.record.offset, b.record.length = w.nextBatch, uint32(end.offset-w.nextBatch)
		}
	}
	w.nextBatch, w.heldBatch = b.record.offset+uint64(b.record.length), tiled
	return nil
}

// prove verifies what proves a frame, and reports whether its batches are those that
// were signed. That a later frame names a frame's hash proves nothing of it: its sender
// goes on from what the receiver says that it has.
func (w *worker) prove(r frameRecord, batches []sealed, damaged bool) (bool, error) {
	bad := func(format string, args ...any) {
		w.addTo(batches, r, Finding{File: FileFrames, Offset: int64(r.offset), All: len(batches) == 0, Text: fmt.Sprintf(format, args...)})
	}
	var raw []byte
	var err error
	if r.length <= ledger.MaxFrameProof {
		if raw, err = w.frames.get(r.offset, int(r.length)); err != nil {
			return false, err
		}
	}
	if raw == nil || !w.proof.Parse(raw) {
		if !damaged {
			bad("the proof of the frame can't be taken apart")
		}
		return false, nil
	}
	if err := w.header.parse(w.proof.Sign1); err != nil {
		bad("%v", err)
		return false, nil
	}
	h, f := &w.header.frame.Header, &w.result.frames[len(w.result.frames)-1]
	f.hash, f.previous = carnet.FingerprintOf(w.proof.Sign1), h.Previous
	if int(r.sender) >= len(w.v.senders) {
		bad("the frame is of a sender that the trust section doesn't have")
		return false, nil
	}
	from := &w.v.own.Senders[r.sender]
	switch {
	case h.Number != r.number:
		bad("the frame has the number %d, not %d", h.Number, r.number)
		return false, nil
	case h.Sender != w.v.senders[r.sender].id:
		bad("the frame is not signed by the key of %s", from.Party)
		return false, nil
	case h.Audience != from.Audience:
		bad("the frame is for %s, not for %s", h.Audience, from.Audience)
	case from.Shares && !h.Shares():
		bad("the frame is of a things agent's log, as %s signed, and the trust section calls it a world that shares", from.Party)
	case !from.Shares && h.Shares() && w.v.manifest.Version > 1: // of before there were shares, some cover nothing
		bad("the frame is of a share, as %s signed, and the trust section calls it a things agent", from.Party)
	}
	f.read = true
	if _, _, err := seal.VerifySign1(w.proof.Sign1, w.v.key(r.sender)); err != nil {
		bad("%v", err)
	} else {
		f.proved = true
	}
	at := &w.v.senders[r.sender]
	if why := w.statement(w.v.own.Worlds[at.world].Party, from.Party, h, f.hash); why != "" {
		bad("%s", why)
	} else if why, err := w.receipt(at.ledger, from.Party); err != nil {
		return false, err
	} else if why != "" {
		bad("%s", why)
	} else if len(w.proof.Receipt) == 0 {
		w.result.counts.Pending++
		w.addTo(batches, r, Finding{Verdict: Unknown, File: FileFrames, Offset: int64(r.offset), All: len(batches) == 0,
			Text: "the world has no receipt of the frame yet: that it is on the ledger can't be told"})
	}
	return w.root(batches), nil
}

// root reports whether the frame's signed root is that of its batches. Where a
// damaged record doesn't tell a batch's leaf, the other batches aren't blamed.
func (w *worker) root(batches []sealed) bool {
	w.joint.Begin()
	for i := range batches {
		b := &batches[i]
		if !b.whole {
			return true
		}
		w.joint.Add(int(b.record.leaf), b.fingerprint)
	}
	root, ok := w.joint.Root(int(w.header.frame.Header.Count), w.proof.Path)
	return ok && root == w.header.frame.Root
}

// statement says why the frame's statement isn't what it should be.
func (w *worker) statement(world, sender carnet.PartyID, h *seal.FrameHeader, hash carnet.Fingerprint) string {
	s, err := ledger.ParseStatement(w.proof.Statement)
	switch {
	case err != nil:
		return err.Error()
	case s.Kind != ledger.ReceivedRoot || s.Who != world:
		return "the statement is not one of the world about a received frame"
	case s.Peer != sender || s.Frame != h.Number || s.Root != w.header.frame.Root || s.Header != hash || s.PolicyVersion != h.Policy:
		return "the statement is about another frame"
	}
	return ""
}

// receipt says why the frame's receipt, if there is one, doesn't hold.
func (w *worker) receipt(at int, sender carnet.PartyID) (why string, err error) {
	if len(w.proof.Receipt) == 0 {
		return "", nil
	}
	r, err := ledger.ParseReceipt(w.proof.Receipt)
	if err != nil {
		return err.Error(), nil
	}
	entry := ledger.EntryOf(w.proof.Salt, w.proof.Statement)
	cp, err := w.v.verifiers[at].Verify(entry, r)
	if err != nil {
		return err.Error(), nil
	}
	if at == 0 && cp.Size > w.result.checkpoint.Size {
		w.result.checkpoint = cp
	}
	w.result.frames[len(w.result.frames)-1].shown = &shown{at, r.Index, entry, cp}
	if w.v.wants == nil {
		return "", nil
	}
	return "", w.v.wants(FrameReceipt{sender, w.header.frame.Header.Number, entry, r})
}

// openBatch opens a batch and holds its record against what is in it. proved
// says that its frame's root holds; when it doesn't, and no batch of the frame
// is seen to be at fault, all of them are.
func (w *worker) openBatch(r frameRecord, b *sealed, proved bool) (whole bool) {
	c, res := &w.result.counts, batchResult{record: b.record, place: b.place, fingerprint: b.fingerprint, read: b.whole}
	defer func() { w.result.batches = append(w.result.batches, res) }()
	c.Batches++
	c.Bytes += uint64(len(b.bytes))
	whole = true
	bad := func(file string, offset uint64, text string) {
		whole = false
		w.addTo([]sealed{*b}, r, Finding{File: file, Offset: int64(offset), Text: text})
	}
	var h seal.Header
	var err error
	closed := b.secret == [hashSize]byte{}
	if closed {
		h, _, err = seal.ParseHeader(b.bytes)
	} else {
		h, b.in, err = w.opener.open(&b.secret, b.bytes)
	}
	stream, known := w.v.streams[h.Stream]
	is := batchRecord{number: h.Number, offset: b.record.offset, first: b.in.first, from: b.in.from, to: b.in.to, count: b.in.count,
		length: b.record.length, stream: stream, leaf: b.record.leaf}
	if !b.whole && err == nil && known {
		b.record, res.record, res.read = is, is, true // for the finding, and for what follows
	}
	res.loose = b.record.count == 0 && (closed || err != nil)
	switch {
	case !b.whole:
		bad(FileBatchIndex, b.place*batchRecordSize, "the record of the batch was changed")
	case err != nil && proved:
		bad(FileKeys, b.place*hashSize, "the batch is the one that was signed, and doesn't open with the key here: "+err.Error())
	case err != nil:
		bad(FileBatches, b.record.offset, err.Error())
	case !known || stream != b.record.stream || h.Number != b.record.number || w.v.manifest.Streams[stream].Sender != int(r.sender):
		bad(FileBatches, b.record.offset, fmt.Sprintf("here is batch %d of stream %s, which doesn't belong here", h.Number, h.Stream))
	case b.cut:
		bad(FileKeys, b.place*hashSize, "the file was cut: it has no key of the batch")
	case closed:
		c.Closed++
		w.addTo([]sealed{*b}, r, Finding{Verdict: Unknown, File: FileKeys, Offset: int64(b.place * hashSize),
			Text: "the world has no key of the batch any more: what is in it can't be told"})
	case b.in.count == 0:
		bad(FileBatches, b.record.offset, "the batch holds no measurement: nobody who is honest makes one")
	case is != b.record:
		bad(FileBatchIndex, b.place*batchRecordSize, "the record says other numbers or times than the batch")
	default:
		c.Measurements += uint64(b.in.count)
	}
	return whole
}

// addTo adds a finding for each run of batches of one stream among batches.
func (w *worker) addTo(batches []sealed, r frameRecord, f Finding) {
	if f.Verdict == True {
		f.Verdict = False
	}
	if f.Frame = r.number; r.number != 0 && int(r.sender) < len(w.v.own.Senders) {
		f.Sender = w.v.own.Senders[r.sender].Party
	}
	if len(batches) == 0 {
		w.result.findings = append(w.result.findings, f)
	}
	for len(batches) > 0 {
		n := 1
		for n < len(batches) && batches[n].record.stream == batches[0].record.stream {
			n++
		}
		w.result.findings = append(w.result.findings, w.v.cover(f, batches[0].record, batches[n-1].record))
		batches = batches[n:]
	}
}

// cover says in f which batches and measurements it affects.
func (v *verification) cover(f Finding, first, last batchRecord) Finding {
	if int(first.stream) < len(v.manifest.Streams) {
		f.Stream = v.manifest.Streams[first.stream].Stream
	}
	f.Batches = &Range{first.number, last.number}
	if end := last.first + uint64(last.count); end > first.first {
		f.Measurements = &Range{first.first, end - 1}
		f.From, f.To = time.Unix(0, min(first.from, last.from)).UTC(), time.Unix(0, max(first.to, last.to)).UTC()
	}
	return f
}
