package evidence

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

// forge edits a bundle as one with the world's key can: it changes a file or the
// manifest, sets the hashes right and signs anew.
func forge(t *testing.T, s *stage, dir, file string, edit func([]byte) []byte, change func(*manifest)) {
	t.Helper()
	signed, err := os.ReadFile(filepath.Join(dir, FileManifest))
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseManifest(signed)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		data = edit(data)
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
		m.file(file).Length, m.file(file).Hash = int64(len(data)), sha256.Sum256(data)
	}
	if change != nil {
		change(&m.manifest)
	}
	if signed, err = m.sign(s.world); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileManifest), signed, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A receiver can have a frame that it made up itself be named by its sender's next one,
// which goes on from what the receiver says that it has. That proves nothing of it.
func TestAFrameIsProvedByItsOwnSignatureAlone(t *testing.T) {
	s := newStage(t)
	c := s.course(s.hub, true)
	for i := range 40 {
		s.hub.forger = nil
		if i == 20 {
			s.hub.forger = s.world
		}
		s.send(c)
	}
	s.receipts()
	dir := s.write(s.options())
	for _, workers := range []int{1, 8} {
		r, err := Verify(t.Context(), dir, new(s.trust()), VerifyOptions{Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != False || len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, "frame 21 is not signed by the key") {
			t.Errorf("with %d workers: %v, %+v", workers, r.Verdict, r.Findings)
		}
	}
}

func editBatch(i int, change func(*batchRecord)) func([]byte) []byte {
	return func(b []byte) []byte {
		var r batchRecord
		r.parse(b[i*batchRecordSize:][:batchRecordSize])
		change(&r)
		copy(b[i*batchRecordSize:], r.append(nil))
		return b
	}
}

func editFrame(i int, change func(*frameRecord)) func([]byte) []byte {
	return func(b []byte) []byte {
		var r frameRecord
		r.parse(b[i*frameRecordSize:][:frameRecordSize])
		change(&r)
		copy(b[i*frameRecordSize:], r.append(nil))
		return b
	}
}

// With the world's key one can sign any index and manifest, and none of them
// holds but the right one.
func TestForgedByTheWorld(t *testing.T) {
	for _, c := range []struct {
		name, file string
		edit       func([]byte) []byte
		change     func(*manifest)
		word       string
	}{
		{name: "nothing"},
		{"first measurement", FileBatchIndex, editBatch(0, func(r *batchRecord) { r.first++ }), nil, "other numbers or times"},
		{"count", FileBatchIndex, editBatch(0, func(r *batchRecord) { r.count-- }), nil, "other numbers or times"},
		{"times", FileBatchIndex, editBatch(0, func(r *batchRecord) { r.from-- }), nil, "other numbers or times"},
		{"number", FileBatchIndex, editBatch(0, func(r *batchRecord) { r.number++ }), nil, "doesn't belong here"},
		{"stream", FileBatchIndex, editBatch(0, func(r *batchRecord) { r.stream ^= 1 }), nil, "doesn't belong here"},
		{"no stream", FileBatchIndex, editBatch(0, func(r *batchRecord) { r.stream = 1 << 30 }), nil, "doesn't belong here"},
		{"leaf", FileBatchIndex, editBatch(0, func(r *batchRecord) { r.leaf++ }), nil, "not the ones that the sender signed"},
		{"place of a batch", FileBatchIndex, editBatch(2, func(r *batchRecord) { r.offset++; r.length-- }), nil, "doesn't begin where the one before ends"},
		{"length of a batch", FileBatchIndex, editBatch(2, func(r *batchRecord) { r.length = 1<<32 - 1 }), nil, "false"},
		{"far batch", FileBatchIndex, editBatch(2, func(r *batchRecord) { r.offset = 1<<64 - 1 }), nil, "false"},
		{"place of a frame", FileFrameIndex, editFrame(1, func(r *frameRecord) { r.offset = 0 }), nil, "doesn't begin where the one before ends"},
		{"batches of a frame", FileFrameIndex, editFrame(1, func(r *frameRecord) { r.batches++ }), nil, "false"},
		{"first batch of a frame", FileFrameIndex, editFrame(1, func(r *frameRecord) { r.first = 1<<64 - 1 }), nil, "false"},
		{"length of a frame", FileFrameIndex, editFrame(1, func(r *frameRecord) { r.length = 1<<32 - 1 }), nil, "can't be taken apart"},
		{"number of a frame", FileFrameIndex, editFrame(1, func(r *frameRecord) { r.number++ }), nil, "has the number"},
		{"sender of a frame", FileFrameIndex, editFrame(1, func(r *frameRecord) { r.sender ^= 1 }), nil, "not signed by the key"},
		{"no sender", FileFrameIndex, editFrame(1, func(r *frameRecord) { r.sender = 999 }), nil, "doesn't have"},
		{"another world", "", nil, func(m *manifest) { m.World = "clinic" }, "another world or key"},
		{"a longer stream", "", nil, func(m *manifest) { m.Streams[0].Next++ }, "missing"},
		{"a shorter stream", "", nil, func(m *manifest) { m.Streams[0].Next-- }, "ends elsewhere"},
		{"fewer measurements", "", nil, func(m *manifest) { m.Streams[0].End-- }, "ends elsewhere"},
		{"a stream more", "", nil, func(m *manifest) {
			m.Streams = append(m.Streams, streamEntry{Stream: carnet.NewStreamID()})
		}, "ends elsewhere"},
		{"a stream twice", "", nil, func(m *manifest) { m.Streams[1].Stream = m.Streams[0].Stream }, "can't be"},
		{"a stream of nobody", "", nil, func(m *manifest) { m.Streams[1].Sender = 7 }, "can't be"},
		{"another count", "", nil, func(m *manifest) { m.Counts.Measurements++ }, "the manifest counts"},
		{"another count of pending", "", nil, func(m *manifest) { m.Counts.Pending++ }, "the manifest counts"},
		{"of one batch", "", nil, func(m *manifest) { m.Only = &Batch{m.Streams[0].Stream, 0} }, "said to be of one batch"},
		{"a manifest of ages", "", nil, func(m *manifest) {
			m.Counts.Frames = 1 << 40
			m.file(FileFrameIndex).Length = 1 << 40 * frameRecordSize
		}, "another length"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := scene(t)
			dir := s.write(s.options())
			forge(t, s, dir, c.file, c.edit, c.change)
			if c.word == "" {
				want(t, verify(t, dir, nil), True)
				return
			}
			want(t, verify(t, dir, nil), False, c.word)
		})
	}
}

// Each field of a statement must be the frame's.
func TestStatementIsTheFrames(t *testing.T) {
	for name, change := range map[string]func(*ledger.Statement){
		"who":    func(s *ledger.Statement) { s.Who = "clinic" },
		"peer":   func(s *ledger.Statement) { s.Peer = "bike" },
		"frame":  func(s *ledger.Statement) { s.Frame++ },
		"root":   func(s *ledger.Statement) { s.Root[0]++ },
		"header": func(s *ledger.Statement) { s.Header[0]++ },
		"policy": func(s *ledger.Statement) { s.PolicyVersion++ },
	} {
		t.Run(name, func(t *testing.T) {
			s := scene(t)
			st, err := ledger.ParseStatement(s.frames[0].Statement)
			if err != nil {
				t.Fatal(err)
			}
			change(&st)
			s.state(s.frames[0], st)
			s.receipts()
			want(t, verify(t, s.write(s.options()), nil), False, "the statement is", "frame 1 of hub", "batch 0 of")
		})
	}
}

func TestFrameForAnotherWorld(t *testing.T) {
	s := scene(t)
	o := s.options()
	o.Trust.Senders[0].Audience = "clinic"
	want(t, verify(t, s.write(o), nil), False, "the frame is for arena, not for clinic")
}

// A world can't list a sender twice to put its frames in another order, and a frame in it
// twice.
func TestASenderThatIsListedTwice(t *testing.T) {
	s := newStage(t)
	one, two := s.course(s.hub, true), s.course(s.hub, true)
	for range 3 {
		s.send(one)
		s.send(two)
	}
	s.send(one, two)
	s.receipts()
	// listed lists every other frame, and the second stream, under the sender's second name.
	listed := func(frames ...*Frame) *Report {
		forged := *s
		forged.frames = frames
		dir := forged.write(s.options())
		forge(t, s, dir, FileTrust, func([]byte) []byte {
			trust := s.trust()
			trust.Senders[1] = trust.Senders[0]
			text, err := trust.marshal()
			if err != nil {
				t.Fatal(err)
			}
			return text
		}, func(m *manifest) { m.Streams[1].Sender = 1 })
		forge(t, s, dir, FileFrameIndex, func(b []byte) []byte {
			for i := 1; i < len(frames); i += 2 {
				b = editFrame(i, func(r *frameRecord) { r.sender = 1 })(b)
			}
			return b
		}, nil)
		return verify(t, dir, nil)
	}
	f := s.frames
	want(t, listed(f[0], f[1], f[2], f[3]), True) // as where an avatar came back to a world
	want(t, listed(f[1], f[0], f[3], f[2]), False, "comes after frame 2 of the same sender")
	half, rest := *f[6], *f[6]
	half.Own, half.Batches, half.Keys = half.Own[:1], half.Batches[:1], half.Keys[:1]
	rest.Own, rest.Batches, rest.Keys = rest.Own[1:], rest.Batches[1:], rest.Keys[1:]
	want(t, listed(f[0], f[1], f[2], f[3], f[4], f[5], &half, &rest), False, "comes after frame 7 of the same sender")
}

// What a share shows is not a things agent's, also where no number is missing.
func TestAShareIsNoThingsAgents(t *testing.T) {
	s := newStage(t)
	s.hub.shares = true
	watch := s.course(s.hub, true)
	for range 3 {
		s.send(watch)
	}
	s.receipts()
	o := s.options()
	want(t, verify(t, s.write(o), nil), False, "of a share, as hub signed")
	callSharing(&o)
	want(t, verify(t, s.write(o), nil), True)
}

func TestLeafBeyondTheTree(t *testing.T) {
	leaf := carnet.Fingerprint{1}
	for _, at := range []int{1, 2, 5} {
		var j seal.Joint
		j.Begin()
		j.Add(at, leaf)
		if root, ok := j.Root(1, nil); ok {
			t.Errorf("leaf %d of a tree of one has the root %s", at, root)
		}
	}
	var j seal.Joint
	j.Begin()
	j.Add(0, leaf)
	if root, ok := j.Root(1, nil); !ok || root != seal.Root([]carnet.Fingerprint{leaf}) {
		t.Error("the only leaf of a tree doesn't lead to its root")
	}
}

// Whatever number stands in an index, with its check set right, the bundle is
// false: also one that no arithmetic holds.
func TestExtremeIndexes(t *testing.T) {
	s := scene(t)
	good := s.write(s.options())
	frames := []func(r *frameRecord, v uint64){
		func(r *frameRecord, v uint64) { r.number = v },
		func(r *frameRecord, v uint64) { r.offset = v },
		func(r *frameRecord, v uint64) { r.first = v },
		func(r *frameRecord, v uint64) { r.length = uint32(v) },
		func(r *frameRecord, v uint64) { r.sender = uint16(v) },
		func(r *frameRecord, v uint64) { r.batches = uint16(v) },
	}
	batches := []func(r *batchRecord, v uint64){
		func(r *batchRecord, v uint64) { r.number = v },
		func(r *batchRecord, v uint64) { r.offset = v },
		func(r *batchRecord, v uint64) { r.first = v },
		func(r *batchRecord, v uint64) { r.from = int64(v) },
		func(r *batchRecord, v uint64) { r.to = int64(v) },
		func(r *batchRecord, v uint64) { r.count = uint32(v) },
		func(r *batchRecord, v uint64) { r.length = uint32(v) },
		func(r *batchRecord, v uint64) { r.stream = uint32(v) },
		func(r *batchRecord, v uint64) { r.leaf = uint32(v) },
	}
	spoil := func(file string, i, of int, edit func([]byte) []byte) {
		t.Helper()
		path := filepath.Join(good, file)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := edit(bytes.Clone(whole))
		if bytes.Equal(changed, whole) {
			return
		}
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, good, nil); r.Verdict != False {
			t.Errorf("field %d of record %d of %s: %s", i, of, file, r.Verdict)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []uint64{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 57, 1 << 58, 1<<63 - 1 - 1<<20, 1<<63 - 1, 1 << 63, 1<<64 - 64, 1<<64 - 1} {
		for _, at := range []int{0, 1, 2} {
			for i, set := range frames {
				spoil(FileFrameIndex, i, at, editFrame(at, func(r *frameRecord) { set(r, v) }))
			}
			for i, set := range batches {
				spoil(FileBatchIndex, i, at, editBatch(at, func(r *batchRecord) { set(r, v) }))
			}
		}
	}
}

// A file that goes on for a terabyte behind its end is false, and not read to
// its end.
func TestGrownFiles(t *testing.T) {
	s := scene(t)
	for _, name := range append(dataFiles[:], FileManifest) {
		dir := s.write(s.options())
		if err := os.Truncate(filepath.Join(dir, name), 1<<40); err != nil {
			t.Fatal(err)
		}
		want(t, verify(t, dir, nil), False, name)
	}
}

// What isn't a regular file isn't opened: a pipe has no end.
func TestPipes(t *testing.T) {
	s := scene(t)
	dir := s.write(s.options())
	path := filepath.Join(dir, FileBatches)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, dir, nil), False, FileBatches, "not a regular file")
	want(t, verify(t, filepath.Join(dir, FileKeys), nil), False, "not a bundle's directory")
}

// What follows a manifest's object is signed with it, and refused.
func TestAManifestEndsWithItsObject(t *testing.T) {
	s := newStage(t)
	for _, more := range []string{"", "{}", "x"} {
		b, err := signEnvelope(manifestType, s.world, []byte(`{"version":1}`+more), maxManifest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = parseManifest(b); strings.Contains(fmt.Sprint(err), "goes on after") != (more != "") {
			t.Errorf("with %q behind it: %v", more, err)
		}
	}
}
