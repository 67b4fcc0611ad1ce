package evidence

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"hash"

	"carnet"
	"carnet/seal"
)

// join takes the results of units in their order and checks what goes across
// frames: the chain of each sender's frames, the numbers of each stream's
// batches and measurements, and the hash of all fingerprints.
type join struct {
	v       *verification
	chains  []chain // by the first place of a sender
	heads   []head  // by stream
	batches hash.Hash
	counts  Counts
}

// chain is the last frame of a sender.
type chain struct {
	number uint64
	hash   carnet.Fingerprint
	held   bool // the frame is proved
}

// head is where a stream stands.
type head struct {
	batch, first uint64
	begun, loose bool // loose: the number of the next measurement isn't known

	gaps    *Gaps
	skipped uint64 // numbers of a share's batches that aren't here
}

func newJoin(v *verification) *join {
	j := &join{v: v, chains: make([]chain, len(v.senders)), heads: make([]head, len(v.manifest.Streams)), batches: sha256.New()}
	for i, s := range v.manifest.Streams {
		j.heads[i] = head{batch: s.From, first: s.First, gaps: NewGaps(s.Over, v.left[i])}
	}
	return j
}

func (j *join) take(r *result) {
	batches := r.batches
	for i := range r.frames {
		f := &r.frames[i]
		j.frame(f, batches[:f.batches])
		for k := range batches[:f.batches] {
			j.batch(f, &batches[k])
		}
		batches = batches[f.batches:]
	}
	j.counts.Frames += r.counts.Frames
	j.counts.Batches += r.counts.Batches
	j.counts.Measurements += r.counts.Measurements
	j.counts.Bytes += r.counts.Bytes
	j.counts.Pending += r.counts.Pending
	j.counts.Closed += r.counts.Closed
	if l := &j.v.report.Ledger; r.checkpoint.Size > l.Checkpoint {
		l.Checkpoint, l.Root = r.checkpoint.Size, carnet.Fingerprint(r.checkpoint.Root).String()
	}
	j.v.report.add(r.findings...)
}

// frame checks that a frame follows its sender's last. Frames between two that
// aren't in the bundle hold nothing of the avatar: the batches' numbers say so.
func (j *join) frame(f *frameResult, batches []batchResult) {
	if int(f.record.sender) >= len(j.chains) || !f.read {
		for i := range j.chains {
			j.chains[i].held = false
		}
		return
	}
	c := &j.chains[j.v.senders[f.record.sender].chain]
	text := ""
	switch {
	case c.number != 0 && f.record.number <= c.number:
		text = fmt.Sprintf("the frame comes after frame %d of the same sender", c.number)
	case c.held && f.proved && f.record.number == c.number+1 && f.previous != c.hash:
		text = "the frame names another one before it than the one that is here"
	}
	if text != "" {
		j.add(f, batches, Finding{Verdict: False, File: FileFrames, Offset: int64(f.record.offset), Text: text})
	}
	*c = chain{f.record.number, f.hash, f.proved}
	if f.shown == nil {
		return
	}
	if why := j.v.histories[f.shown.ledger].contradicts(*f.shown); why != "" {
		j.add(f, batches, Finding{Verdict: False, File: FileFrames, Offset: int64(f.record.offset), Text: why})
	}
}

// batch checks that a batch follows its stream's last.
func (j *join) batch(f *frameResult, b *batchResult) {
	j.batches.Write(b.fingerprint[:])
	if !b.read || int(b.record.stream) >= len(j.heads) {
		for i := range j.heads {
			j.heads[i].loose = true
		}
		return
	}
	h, r := &j.heads[b.record.stream], &b.record
	shares := j.v.shares(int(r.stream))
	missing := Finding{Verdict: False, File: FileBatchIndex, Offset: int64(b.place) * batchRecordSize}
	if shares && r.number > h.batch {
		h.skipped += r.number - h.batch
	}
	switch {
	case r.number > h.batch && !shares:
		missing.Stream = j.v.manifest.Streams[r.stream].Stream
		missing.Text = "missing: the sender numbered these, and they are not in the bundle"
		gap := Range{h.batch, r.number - 1}
		for _, p := range h.gaps.Take(gap, h.until(r.first)) {
			one := missing
			one.Batches = &p
			if !h.loose && r.first > h.first && p == gap {
				one.Measurements = &Range{h.first, r.first - 1}
			}
			j.v.report.add(one)
		}
	case r.number < h.batch:
		missing.Text = fmt.Sprintf("the batch comes after batch %d: it is doubled or out of order", h.batch-1)
		j.add(f, []batchResult{*b}, missing)
	case !h.loose && !b.loose && r.first != h.first && (!shares || r.first < h.first):
		missing.Text = fmt.Sprintf("the batch begins with measurement %d, and the one before ended before %d", r.first, h.first)
		j.add(f, []batchResult{*b}, missing)
	}
	h.batch, h.first, h.begun, h.loose = r.number+1, r.first+uint64(r.count), true, b.loose
}

// until is how many measurements there are before one; less than 0: it isn't known.
func (h *head) until(first uint64) int64 {
	if h.loose || first < h.first {
		return -1
	}
	return int64(first - h.first)
}

// shares reports whether a stream of the manifest comes by a share: then its writer
// numbered batches that were not for this world.
func (v *verification) shares(stream int) bool {
	return v.own.Senders[v.manifest.Streams[stream].Sender].Shares
}

func (j *join) add(f *frameResult, batches []batchResult, finding Finding) {
	finding.Frame, finding.Sender = f.record.number, j.v.own.Senders[f.record.sender].Party
	if len(batches) == 0 {
		finding.All = true
	} else {
		finding = j.v.cover(finding, batches[0].record, batches[len(batches)-1].record)
	}
	j.v.report.add(finding)
}

// end checks what can be checked when all is read.
func (j *join) end(sums []carnet.Fingerprint) {
	v, m := j.v, &j.v.manifest
	v.report.Counts = j.counts
	for i, s := range m.Streams {
		h := j.heads[i]
		emptied := len(v.left[i]) > 0 && v.passages[i] != nil && s.From == s.Next
		if h.batch < s.Next || !h.loose && h.first != s.End || h.batch > s.Next || !h.begun && !emptied {
			f := Finding{Verdict: False, File: FileBatchIndex, Offset: -1, Stream: s.Stream, Text: "missing: the world's manifest names these, and they are not in the bundle"}
			if h.batch < s.Next {
				f.Batches = &Range{h.batch, s.Next - 1}
			} else {
				f.Batches, f.Text = &Range{s.From, max(s.Next, s.From+1) - 1}, "the stream ends elsewhere than the world's manifest says"
			}
			v.report.add(f)
		}
		if m.Only == nil {
			j.begins(i, &h)
			j.ended(i, &h)
		}
		if h.skipped > 0 {
			v.report.Skipped = append(v.report.Skipped, Skipped{s.Stream, h.skipped})
		}
	}
	if j.counts.Frames == 0 {
		v.report.add(Finding{Verdict: Unknown, File: FileManifest, Offset: -1, All: true,
			Text: "the bundle holds nothing: that the avatar was told nothing is the world's word alone"})
	}
	j.files(sums)
	if only := m.Only; only != nil && (len(m.Streams) != 1 || m.Counts.Batches != 1 || m.Streams[0].Stream != only.Stream || m.Streams[0].From != only.Number) {
		v.whole(FileManifest, "the bundle is said to be of one batch and holds another, or more")
	}
	if v.report.Verdict != False && j.counts != m.Counts {
		v.whole(FileManifest, "the manifest counts %+v, the bundle holds %+v", m.Counts, j.counts)
	}
}

// begins says what of a stream is missing before its first batch.
func (j *join) begins(i int, h *head) {
	v, s := j.v, &j.v.manifest.Streams[i]
	if s.From == 0 || v.shares(i) {
		return
	}
	lost := []Range{{0, s.From - 1}}
	if len(v.left[i]) > 0 {
		lost = h.gaps.Take(lost[0], int64(s.First))
	}
	for _, r := range lost {
		v.report.add(Finding{Verdict: Unknown, File: FileManifest, Offset: -1, Stream: s.Stream, Batches: &r,
			Text: "the world has these batches no more: what was in them can't be told"})
	}
}

// ended says what of a stream is missing at its end, by the word of the world that
// received it, and which of its batches retention is said to have ended, or were left
// out.
func (j *join) ended(i int, h *head) {
	v, s := j.v, &j.v.manifest.Streams[i]
	if p := v.passages[i]; p != nil && s.Next < p.Next {
		for _, r := range h.gaps.Take(Range{s.Next, p.Next - 1}, h.until(p.End)) {
			v.report.add(Finding{Verdict: False, File: FileManifest, Offset: -1, Stream: s.Stream, Batches: &r,
				Text: "missing: " + string(p.World.Party) + " says that it received these, and they are not in the bundle"})
		}
	}
	if n, in := h.gaps.Ended(); n > 0 {
		v.report.add(Finding{Verdict: Unknown, File: FileManifest, Offset: -1, Stream: s.Stream, Batches: &in,
			Text: fmt.Sprintf("%s of these is here no more, since the world says that its retention has ended: what was in it can't be told", number(n, "batch", "batches"))})
	}
	if why := h.gaps.Wrong(); why != "" {
		v.report.add(Finding{Verdict: False, File: FileManifest, Offset: -1, Stream: s.Stream, Text: why})
		return
	}
	v.report.LeftOut = append(v.report.LeftOut, h.gaps.Left()...)
}

// files compares the hashes of the files. A file that a finding names already
// needs no other.
func (j *join) files(sums []carnet.Fingerprint) {
	v := j.v
	for i, f := range v.manifest.Files {
		sum := sums[i]
		switch f.Name {
		case FileTrust, FileJobs:
			continue // compared by who reads them
		case FileBatches:
			sum = carnet.Fingerprint(j.batches.Sum(nil))
		}
		if sum != f.Hash && !v.report.named(f.Name) {
			v.whole(f.Name, "the file is not the one that the world signed")
		}
	}
}

func keyID(k PublicKey) carnet.Fingerprint { return seal.KeyID(ed25519.PublicKey(k)) }

func (v *verification) key(sender uint16) ed25519.PublicKey {
	return ed25519.PublicKey(v.own.Senders[sender].Key)
}
