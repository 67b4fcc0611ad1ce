package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
)

func TestWholeBundleIsTrue(t *testing.T) {
	s := scene(t)
	dir := s.write(s.options())
	r := verify(t, dir, nil)
	want(t, r, True, "the bundle's own keys")
	if r.Counts != (Counts{Frames: 9, Batches: 12, Measurements: 60, Bytes: r.Counts.Bytes}) || r.Counts.Bytes == 0 || r.Ledger.Checkpoint != 12 {
		t.Errorf("counts %+v, ledger %+v", r.Counts, r.Ledger)
	}
	trust := s.trust()
	want(t, verify(t, dir, &trust), True, "Verified with the keys given with --trust")
	for _, name := range append(dataFiles[:], FileManifest, ".") {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if wanted := map[bool]os.FileMode{true: 0o700, false: 0o600}[info.IsDir()]; info.Mode().Perm() != wanted {
			t.Errorf("%s has mode %o, want %o", name, info.Mode().Perm(), wanted)
		}
	}
}

// place says what a byte of a file belongs to: every batch, or some of them.
type affected struct {
	all     bool
	batches []Batch
}

// layout works out, from the stage alone, which batches each byte of each file
// is about.
func layout(t *testing.T, s *stage, dir string) func(file string, at int) affected {
	var frames [][]Batch
	var batches []Batch
	var lengths []int
	proofs := []int{0}
	for _, f := range s.frames {
		if len(f.Own) == 0 {
			continue
		}
		var of []Batch
		for _, b := range f.Batches {
			h, _, err := seal.ParseHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			of = append(of, Batch{h.Stream, h.Number})
			lengths = append(lengths, len(b))
		}
		frames, batches = append(frames, of), append(batches, of...)
		path := f.Path
		if path == nil {
			path = new(seal.Joint).Prove(f.Leaves, f.Own)
		}
		proofs = append(proofs, proofs[len(proofs)-1]+2+len(f.Sign1)+2+len(f.Statement)+32+2+len(f.Receipt)+32*len(path))
	}
	return func(file string, at int) affected {
		switch file {
		case FileFrameIndex:
			return affected{batches: frames[at/frameRecordSize]}
		case FileFrames:
			for i := range frames {
				if at < proofs[i+1] {
					return affected{batches: frames[i]}
				}
			}
		case FileBatchIndex:
			return affected{batches: batches[at/batchRecordSize:][:1]}
		case FileKeys:
			return affected{batches: batches[at/hashSize:][:1]}
		case FileBatches:
			for i, n := range lengths {
				if at -= n; at < 0 {
					return affected{batches: batches[i:][:1]}
				}
			}
		}
		return affected{all: true}
	}
}

// One flipped bit at any offset of any file is found, and the report names the
// file, the batches and their measurements, and no batch that is whole. Of a
// larger bundle every 41st byte is tried.
func TestEveryBitCounts(t *testing.T) {
	flipAll(t, sceneOf(t, 1), 1)
	flipAll(t, sceneOf(t, 4), 41)
}

func flipAll(t *testing.T, s *stage, step int) {
	flipAllOf(t, s, s.write(s.options()), step)
}

func flipAllOf(t *testing.T, s *stage, dir string, step int) {
	flipFiles(t, s, dir, step, append(dataFiles[:], FileManifest))
}

func flipFiles(t *testing.T, s *stage, dir string, step int, files []string) {
	about := layout(t, s, dir)
	random := rand.New(rand.NewPCG(1, 2))
	for _, name := range files {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(data); at += step {
			bit := byte(1) << random.IntN(8)
			flip(t, path, at, data[at]^bit)
			if why := judgeFlip(verify(t, dir, nil), name, about(name, at)); why != "" {
				t.Errorf("%s, byte %d of %d, bit %#x: %s", name, at, len(data), bit, why)
				return
			}
			flip(t, path, at, data[at])
		}
	}
	want(t, verify(t, dir, nil), True)
}

func flip(t *testing.T, path string, at int, to byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{to}, int64(at)); err != nil {
		t.Fatal(err)
	}
}

func judgeFlip(r *Report, file string, about affected) string {
	if r.Verdict != False || ExitCode(r, nil) != 1 {
		return "verdict " + r.Verdict.String()
	}
	named := make(map[Batch]bool)
	inFile, all := false, false
	for _, f := range r.Findings {
		inFile, all = inFile || f.File == file, all || f.All
		if f.Batches == nil {
			continue
		}
		if f.Measurements == nil || f.From.Before(made) || f.To.Before(f.From) || f.To.After(made.Add(time.Hour)) {
			return "the measurements are not named: " + f.String()
		}
		for n := f.Batches.From; n <= f.Batches.To; n++ {
			named[Batch{f.Stream, n}] = true
			if !about.all && !slices.Contains(about.batches, Batch{f.Stream, n}) {
				return "a batch is named that is whole: " + f.String()
			}
		}
	}
	if !inFile || all != about.all {
		return fmt.Sprintf("the file is named: %t, all batches are: %t\n%s", inFile, all, r.Summary())
	}
	for _, b := range about.batches {
		if !named[b] {
			return fmt.Sprintf("batch %d of stream %s is not named\n%s", b.Number, b.Stream, r.Summary())
		}
	}
	return ""
}

func TestFilesAreMissingOrExtra(t *testing.T) {
	s := scene(t)
	for _, name := range append(dataFiles[:], FileManifest) {
		dir := s.write(s.options())
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		want(t, verify(t, dir, nil), False, name, "missing", "all batches")
	}
	dir := s.write(s.options())
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, dir, nil), False, "notes.txt", "doesn't belong")
	for _, name := range dataFiles {
		for _, change := range []func([]byte) []byte{
			func(b []byte) []byte { return append(b, 0) },
			func(b []byte) []byte { return b[:len(b)-1] },
			func([]byte) []byte { return nil },
		} {
			dir := s.write(s.options())
			path := filepath.Join(dir, name)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
			want(t, verify(t, dir, nil), False, name)
		}
	}
	if _, err := Verify(context.Background(), filepath.Join(dir, "absent"), nil, VerifyOptions{}); carnet.CodeOf(err) != carnet.NotFound || ExitCode(nil, err) != 2 {
		t.Errorf("a bundle that isn't there: %v", err)
	}
}

// What a forger names must not look like a verdict on a terminal.
func TestNamesDontForgeTheReport(t *testing.T) {
	const verdict = "x\x1b[2J\nVerdict: true.\n\x1b[8m"
	s := scene(t)
	named := s.write(s.options())
	if err := os.WriteFile(filepath.Join(named, verdict), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	signed := s.write(s.options())
	forge(t, s, signed, "", nil, func(m *manifest) { m.World = verdict })
	for _, dir := range []string{named, signed} {
		r := verify(t, dir, nil)
		want(t, r, False)
		for _, text := range []string{r.Summary(), r.Explain()} {
			if strings.Contains(text, "\x1b") || strings.Contains(text, "\nVerdict: true.") {
				t.Errorf("the report says\n%q", text)
			}
		}
	}
}

// A world that signs what it writes, and leaves out, doubles, or changes what
// its senders signed, is found out by their numbers and signatures.
func TestDishonestWorld(t *testing.T) {
	own := func(s *stage) (fs []*Frame) {
		for _, f := range s.frames {
			if len(f.Own) > 0 {
				fs = append(fs, f)
			}
		}
		return fs
	}
	drop := func(f *Frame, i int) {
		f.Own, f.Batches, f.Keys = slices.Delete(f.Own, i, i+1), slices.Delete(f.Batches, i, i+1), slices.Delete(f.Keys, i, i+1)
	}
	for _, c := range []struct {
		name  string
		do    func(*stage)
		words []string
	}{
		{"leaves a frame out", func(s *stage) { s.frames = slices.DeleteFunc(s.frames, func(f *Frame) bool { return f == own(s)[3] }) },
			[]string{"missing", "batch 3", "measurements 15 to 19"}},
		{"leaves a batch out", func(s *stage) { drop(own(s)[2], 0) }, []string{"missing", "batch 1 of", "measurements 5 to 9"}},
		{"doubles a frame", func(s *stage) { s.frames = slices.Insert(s.frames, 1, s.frames[0]) }, []string{"doubled or out of order", "batch 0 of"}},
		{"swaps two frames", func(s *stage) { s.frames[0], s.frames[2] = s.frames[2], s.frames[0] }, []string{"comes after frame 2", "out of order"}},
		{"swaps two batches", func(s *stage) {
			f := own(s)[2]
			f.Batches[0], f.Batches[1] = f.Batches[1], f.Batches[0]
			f.Keys[0], f.Keys[1] = f.Keys[1], f.Keys[0]
		}, []string{"out of order", "not the ones that the sender signed", "in frame 2 of hub"}},
		{"takes in another avatar's batch", func(s *stage) {
			theirs := s.courses[1]
			theirs.own = true
			f := s.send(theirs)
			s.frames = s.frames[:len(s.frames)-1]
			own(s)[0].Batches[0], own(s)[0].Keys[0] = f.Batches[0], f.Keys[0]
		}, []string{"frame 1 of hub", "not the ones that the sender signed"}},
		{"keeps another batch's key", func(s *stage) { own(s)[3].Keys[0].Secret = own(s)[0].Keys[0].Secret }, []string{"keys.bin", "batch 3 of", "not sealed under this key"}},
		{"makes a batch up", func(s *stage) {
			c := s.courses[0]
			s.sendBatches(&agent{party: "hub", key: seed(99), number: 9, last: s.hub.last}, []*course{c}, [][]byte{s.batch(c)})
			s.receipts()
		}, []string{"frame 10 of hub", "not signed by the key of hub"}},
		{"takes a statement of another frame", func(s *stage) {
			own(s)[0].Statement, own(s)[0].Salt, own(s)[0].Receipt = own(s)[2].Statement, own(s)[2].Salt, own(s)[2].Receipt
		}, []string{"another frame", "frame 1 of hub", "batch 0 of"}},
		{"takes a receipt of another frame", func(s *stage) { own(s)[0].Receipt = own(s)[2].Receipt }, []string{"leads to another root", "frame 1 of hub"}},
		{"states something else", func(s *stage) {
			f := own(s)[0]
			st, _ := ledger.ParseStatement(f.Statement)
			st.Kind = ledger.SentRoot
			s.state(f, st)
			s.receipts()
		}, []string{"not one of the world about a received frame"}},
		{"lets a depot that nobody knows sign", func(s *stage) {
			forger, err := ledger.NewSigner(s.depot.Name(), seed(77))
			if err != nil {
				t.Fatal(err)
			}
			signed, sig := s.checkpoint(forger, seal.Root(s.entries))
			own(s)[0].Receipt = s.receipt(0, signed, sig)
		}, []string{"checkpoint", "not signed", "frame 1 of hub"}},
		{"forges the root of a checkpoint", func(s *stage) {
			signed, sig := s.checkpoint(s.depot, seal.Root(s.entries))
			_, other := s.checkpoint(s.depot, carnet.Fingerprint{1})
			at := bytes.IndexByte(signed, '\n') + 5
			forged := bytes.Clone(signed)
			forged[at+4] ^= 1
			own(s)[0].Receipt = s.receipt(0, forged, sig)
			own(s)[1].Receipt = s.receipt(1, signed, other)
		}, []string{"frame 1 of hub", "frame 1 of bike", "COSE signature"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := scene(t)
			c.do(s)
			want(t, verify(t, s.write(s.options()), nil), False, c.words...)
		})
	}
}

// A sender that drops, doubles or reorders before it signs is found out by its
// own numbers.
func TestDishonestSender(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(*stage, *course)
		words []string
	}{
		{"drops a batch", func(s *stage, c *course) { s.batch(c) }, []string{"missing", "batch 1 of", "measurements 5 to 9"}},
		{"drops measurements", func(_ *stage, c *course) { c.first += 3 }, []string{"begins with measurement 8, and the one before ended before 5"}},
		{"doubles measurements", func(_ *stage, c *course) { c.first -= 5 }, []string{"begins with measurement 0"}},
		{"doubles a batch", func(s *stage, c *course) {
			s.sendBatches(s.hub, []*course{c}, [][]byte{s.frames[0].Batches[0]})
		}, []string{"batch 0 of", "doubled or out of order"}},
		{"reorders", func(s *stage, c *course) {
			first, second := s.batch(c), s.batch(c)
			s.sendBatches(s.hub, []*course{c, c}, [][]byte{second, first})
		}, []string{"missing", "batch 1 of", "out of order"}},
		{"breaks its chain", func(s *stage, _ *course) { s.hub.last[0]++ }, []string{"names another one before it", "frame 2 of hub"}},
		{"seals what is no body", func(s *stage, c *course) {
			b, err := c.slot.Seal(nil, c.batch, make([]byte, 64))
			if err != nil {
				t.Fatal(err)
			}
			c.batch++
			s.sendBatches(s.hub, []*course{c}, [][]byte{b})
		}, []string{"batch 1 of", "not in the form"}},
		{"counts wrongly", func(s *stage, c *course) {
			body, err := seal.AppendBody(nil, seal.Body{Retention: carnet.Keep, First: c.first, Count: 3, Content: []byte{0x10}})
			if err != nil {
				t.Fatal(err)
			}
			b, err := c.slot.Seal(nil, c.batch, body)
			if err != nil {
				t.Fatal(err)
			}
			c.batch++
			s.sendBatches(s.hub, []*course{c}, [][]byte{b})
		}, []string{"batch 1 of"}},
		{"uses a stream of another sender", func(s *stage, c *course) {
			s.sendBatches(s.bike, []*course{c}, [][]byte{s.batch(c)})
		}, []string{"doesn't belong here", "frame 1 of bike"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			watch := s.course(s.hub, true)
			s.send(watch)
			c.do(s, watch)
			s.send(watch)
			s.receipts()
			want(t, verify(t, s.write(s.options()), nil), False, c.words...)
		})
	}
}

// A world that shares sends what its share shows: gaps are no fault and are said,
// but doubles are.
func TestShares(t *testing.T) {
	s := newStage(t)
	s.hub.shares = true
	watch := s.course(s.hub, true)
	s.batch(watch)
	s.send(watch)
	s.batch(watch)
	watch.first += 3
	s.send(watch)
	s.receipts()
	options := s.options()
	want(t, verify(t, s.write(options), nil), False, "missing", "batch 2 of")
	pinned := options.Trust
	callSharing(&options)
	dir := s.write(options)
	r := verify(t, dir, nil)
	want(t, r, True)
	if said := r.Summary(); !strings.Contains(said, "comes by a share, and 1 batch of its numbers") {
		t.Errorf("of the gap the summary says nothing:\n%s", said)
	}
	want(t, verify(t, dir, &options.Trust), True)
	want(t, verify(t, dir, &pinned), False, "is not the one in the trust file given")
	watch.first -= 8
	s.send(watch)
	s.receipts()
	want(t, verify(t, s.write(options), nil), False, "ended before")
}

// callSharing has the trust section call every sender a world that shares.
func callSharing(o *Options) {
	o.Trust.Senders = slices.Clone(o.Trust.Senders)
	for i := range o.Trust.Senders {
		o.Trust.Senders[i].Shares = true
	}
}

// TestAThingsAgentIsNoWorldThatShares: a world that leaves batches out and calls
// their sender a world that shares is found out by what the sender signed.
func TestAThingsAgentIsNoWorldThatShares(t *testing.T) {
	s := newStage(t)
	watch := s.course(s.hub, true)
	for range 9 {
		s.send(watch)
	}
	s.receipts()
	s.frames = slices.Delete(s.frames, 2, 7)
	options := s.options()
	want(t, verify(t, s.write(options), nil), False, "missing", "batch 2 to 6 of")
	callSharing(&options)
	dir := s.write(options)
	want(t, verify(t, dir, nil), False, "the trust section calls it a world that shares")
	want(t, verify(t, dir, &options.Trust), False, "the trust section calls it a world that shares")
}

// TestAnEmptyBatchHidesNothing: behind a batch without measurements others must be
// numbered as before.
func TestAnEmptyBatchHidesNothing(t *testing.T) {
	for name, jump := range map[string]func(*course){
		"dropped": func(c *course) { c.first += 1000 },
		"doubled": func(c *course) { c.first = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			watch := s.course(s.hub, true)
			s.send(watch)
			s.size = 0
			s.send(watch)
			s.size = 5
			jump(watch)
			s.send(watch)
			s.receipts()
			want(t, verify(t, s.write(s.options()), nil), False, "holds no measurement", "the one before ended before 5")
		})
	}
}

// TestNothingProvesNothing: a bundle without a frame is the world's word.
func TestNothingProvesNothing(t *testing.T) {
	s := newStage(t)
	want(t, verify(t, s.write(s.options()), nil), Unknown, "the bundle holds nothing")
}

// Who edits a bundle and signs the manifest anew needs the keys of the other
// parties; and without the world's key, the trust section and --trust tell.
func TestRewrittenManifest(t *testing.T) {
	s := scene(t)
	trust := s.trust()
	forger := scene(t)
	forger.world = seed(66)
	dir := forger.write(forger.options())
	want(t, verify(t, dir, nil), True) // it holds together: all keys are its own
	want(t, verify(t, dir, &trust), False, "the bundle's key of the world arena is not the one", "the trust file given")

	// The manifest of another bundle of the same world doesn't fit.
	one, two := s.write(s.options()), scene(t).write(s.options())
	data, err := os.ReadFile(filepath.Join(two, FileManifest))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one, FileManifest), data, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, one, nil), False)
}

// What is named as a file to read may have no end.
func TestFilesWithoutEnd(t *testing.T) {
	if _, err := ReadTrust("/dev/zero"); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("a trust file without end: %v", err)
	}
	dir := t.TempDir()
	if err := os.Symlink("/dev/zero", filepath.Join(dir, ErasureFile)); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyErasure(dir, nil); err != nil || r.Verdict != False {
		t.Errorf("a bundle without end: %+v, %v", r, err)
	}
}

func TestTrustFile(t *testing.T) {
	s := scene(t)
	dir := s.write(s.options())
	for _, c := range []struct {
		name    string
		change  func(*Trust)
		verdict Verdict
		words   []string
	}{
		{"names more", func(tr *Trust) {
			tr.Join(&Trust{Version: 1, Worlds: []World{{Party: "clinic", Key: tr.Senders[0].Key}}})
		}, True, nil},
		{"another world's key", func(tr *Trust) { tr.Worlds[0].Key = tr.Senders[0].Key }, False, []string{"key of the world arena"}},
		{"another sender's key", func(tr *Trust) { tr.Senders[1].Key = tr.Worlds[0].Key }, False, []string{"key of the sender bike"}},
		{"another ledger's key", func(tr *Trust) {
			l, err := ledger.NewSigner("vault.example/ledger", seed(4))
			if err != nil {
				t.Fatal(err)
			}
			tr.Ledgers[0].Key = l.Key().String()
		}, False, []string{"key of the ledger of vault"}},
		{"no sender", func(tr *Trust) { tr.Senders = tr.Senders[:1] }, Unknown, []string{"no key of the sender bike", "could not tell"}},
		{"nobody", func(tr *Trust) { *tr = Trust{Version: 1} }, Unknown, []string{"world arena", "sender hub", "ledger of vault"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			trust := s.trust()
			c.change(&trust)
			r := verify(t, dir, &trust)
			want(t, r, c.verdict, c.words...)
			if ExitCode(r, nil) != int(c.verdict) {
				t.Errorf("exit code %d", ExitCode(r, nil))
			}
		})
	}
	text, err := (&Trust{Version: 2}).marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{}", "null", string(text), `{"version":1,"extra":1}`, `{"version":1} x`, `{"version":1,"worlds":[{"party":"arena"}]}`} {
		if _, err := ParseTrust([]byte(bad)); err == nil {
			t.Errorf("trust file %q is accepted", bad)
		}
	}
}

// A file of keys that was cut is said to be: nobody says that the world has no keys.
func TestKeysThatWereCut(t *testing.T) {
	s := scene(t)
	dir := s.write(s.options())
	file := filepath.Join(dir, FileKeys)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	all := verify(t, dir, nil).Counts
	if err := os.Truncate(file, info.Size()/2/hashSize*hashSize); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, nil)
	want(t, r, False, "keys.bin", "the file was cut: it has no key of the batch")
	if strings.Contains(r.Summary(), "any more") || r.Counts.Closed != 0 || r.Counts.Measurements == 0 || r.Counts.Measurements >= all.Measurements {
		t.Errorf("of %+v it counts %+v:\n%s", all, r.Counts, r.Summary())
	}
}

// A bundle names those that signed something in it, and nobody's key else is asked
// for: not even where an older program named more.
func TestOnlyWhoSignedIsNamed(t *testing.T) {
	s := scene(t)
	o, trust := s.options(), s.trust()
	citadel := Sender{Party: "citadel", Audience: s.name, Key: o.Trust.Worlds[0].Key, Shares: true}
	o.Trust.Senders = append([]Sender{citadel}, o.Trust.Senders...)
	older := filepath.Join(t.TempDir(), "older")
	w, err := newWriter(older, o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.name(0)
	err = s.Frames(t.Context(), func(f *Frame) error { return w.take(t.Context(), f) })
	if err := errors.Join(err, w.flush(t.Context()), w.finish()); err != nil {
		t.Fatal(err)
	}
	for dir, named := range map[string]bool{s.write(o): false, older: true} {
		r := verify(t, dir, &trust)
		want(t, r, True)
		if told := r.Explain(); strings.Contains(told, "citadel") || !strings.Contains(told, "hub") || !strings.Contains(told, "bike") {
			t.Errorf("it explains\n%s", told)
		}
		text, err := os.ReadFile(filepath.Join(dir, FileTrust))
		if err != nil || bytes.Contains(text, []byte("citadel")) != named {
			t.Errorf("%s, %v", text, err)
		}
	}
}

func TestWhatCantBeTold(t *testing.T) {
	s := scene(t)
	s.frames[2].Receipt = nil
	r := verify(t, s.write(s.options()), nil)
	want(t, r, Unknown, "no receipt", "frame 2 of hub", "batch 1 to 2")
	if r.Counts.Pending != 1 || ExitCode(r, nil) != 2 {
		t.Errorf("counts %+v", r.Counts)
	}

	s = scene(t)
	s.frames[2].Keys[0] = seal.Key{}
	r = verify(t, s.write(s.options()), nil)
	want(t, r, Unknown, "no key of the batch", "batch 1 of")
	if r.Counts.Closed != 1 {
		t.Errorf("counts %+v", r.Counts)
	}

	s = scene(t)
	s.frames = s.frames[2:]
	want(t, verify(t, s.write(s.options()), nil), Unknown, "no more", "batch 0 of")

	// What is wrong counts more than what can't be told.
	s = scene(t)
	s.frames[2].Receipt = nil
	s.frames[0].Receipt = s.frames[1].Receipt
	want(t, verify(t, s.write(s.options()), nil), False)
}

func TestWriteRefuses(t *testing.T) {
	s := scene(t)
	ctx := context.Background()
	o := s.options()
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(ctx, full, s, o); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a directory with a file in it: %v", err)
	}
	o.Signer = seed(9)
	if _, err := Write(ctx, filepath.Join(full, "a"), s, o); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("another key than the trust section's: %v", err)
	}
	s.frames[0].Keys[0] = s.courses[0].epoch
	dir := filepath.Join(full, "b")
	if _, err := Write(ctx, dir, s, s.options()); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("the key of an epoch: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, FileManifest)); !os.IsNotExist(err) {
		t.Errorf("a bundle that failed has a manifest: %v", err)
	}
}

// depot gives receipts of a later checkpoint.
type depot struct{ s *stage }

func (d depot) Submit(_ context.Context, entries []ledger.Entry) (out []ledger.Receipt, _ error) {
	signed, sig := d.s.checkpoint(d.s.depot, seal.Root(d.s.entries))
	for _, e := range entries {
		r, err := ledger.ParseReceipt(d.s.receipt(slices.Index(d.s.entries, carnet.Fingerprint(e)), signed, sig))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func TestReceiptsAreAskedAnew(t *testing.T) {
	s := scene(t)
	s.frames[0].Receipt = nil
	s.entries = append(s.entries, carnet.Fingerprint{9})
	o := s.options()
	o.Receipts = depot{s}
	r := verify(t, s.write(o), nil)
	want(t, r, True)
	if r.Ledger.Checkpoint != 13 || r.Counts.Pending != 0 {
		t.Errorf("ledger %+v, counts %+v", r.Ledger, r.Counts)
	}
}

// Many frames take many units: what is found doesn't depend on where they meet.
func TestUnitsMeet(t *testing.T) {
	s := newStage(t)
	watch, other := s.course(s.hub, true), s.course(s.hub, false)
	s.size = 1
	for i := range 3*unitFrames + 5 {
		if i%7 == 0 {
			s.send(other, other)
		}
		s.send(watch)
	}
	s.receipts()
	want(t, verify(t, s.write(s.options()), nil), True)
	s.frames = slices.DeleteFunc(s.frames, func(f *Frame) bool { return len(f.Own) == 0 })
	size := int((&manifest{Counts: Counts{Frames: uint64(len(s.frames))}}).unitSize(runtime.GOMAXPROCS(0)))
	if len(s.frames) < 3*size {
		t.Fatalf("%d frames, %d a unit: too few to meet", len(s.frames), size)
	}
	for _, gone := range []int{size - 1, size, 2 * size} {
		all := slices.Clone(s.frames)
		s.frames = slices.Delete(s.frames, gone, gone+1)
		want(t, verify(t, s.write(s.options()), nil), False, "missing", fmt.Sprintf("batch %d of", gone), fmt.Sprintf("measurements %d measured", gone))
		s.frames = all
	}
}

func TestExplain(t *testing.T) {
	s := scene(t)
	trust := s.trust()
	dir := s.write(s.options())
	for _, r := range []*Report{verify(t, dir, nil), verify(t, dir, &trust)} {
		text := r.Explain()
		for _, w := range []string{"that this is all of the avatar", "things agent hub", "things agent bike", "world arena", "depot vault", "Witnesses: none", "not proved", "no more than that view lets through: the bundle has no view"} {
			if !bytes.Contains([]byte(text), []byte(w)) {
				t.Errorf("explanation doesn't say %q:\n%s", w, text)
			}
		}
	}
}

// Another receipt of the same frame proves as much, and isn't what was signed.
func TestValidPartOfAnotherBundle(t *testing.T) {
	s := newStage(t)
	s.send(s.course(s.hub, true))
	s.entries = append(s.entries, make([]carnet.Fingerprint, 9)...)
	s.receipts()
	one := s.write(s.options())
	s.entries = append(s.entries, carnet.Fingerprint{1})
	s.receipts()
	two := s.write(s.options())
	data, err := os.ReadFile(filepath.Join(two, FileFrames))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one, FileFrames), data, 0o600); err != nil {
		t.Fatal(err)
	}
	r := verify(t, one, nil)
	want(t, r, False, "frames.bin", "not the one that the world signed")
	if len(r.Findings) != 1 {
		t.Errorf("more is found than the hash tells:\n%s", r.Summary())
	}
}
