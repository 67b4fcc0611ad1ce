package passport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/identity"
	"carnet/item"
	"carnet/ledger"
	"carnet/seal"
)

// Verify verifies the passport in dir offline. With trust, only its keys count; with
// nil, the passport's own. An error means that the verification itself failed; what is
// wrong with the passport is in the report.
func Verify(ctx context.Context, dir string, trust *evidence.Trust) (*evidence.Report, error) {
	v := &verification{dir: dir, report: &evidence.Report{Pinned: trust != nil, Findings: []evidence.Finding{}}}
	if whole, err := v.files(); err != nil || !whole {
		return v.report, err
	}
	p, err := Open(dir)
	if err != nil {
		if _, coded := errors.AsType[*carnet.Error](err); !coded {
			return nil, err
		}
		v.whole(v.blame(err), "%v", err)
		return v.report, nil
	}
	v.p = p
	if whole, err := v.listed(); err != nil || !whole {
		return v.report, err
	}
	if err := v.describe(trust); err != nil {
		return nil, err
	}
	if err := v.pieces(ctx); err != nil {
		return nil, err
	}
	v.numbers()
	if err := v.rest(); err != nil {
		return nil, err
	}
	return v.report, nil
}

type verification struct {
	dir    string
	p      *Passport
	report *evidence.Report

	ledgers []ledger.Key                 // that are known
	batches map[carnet.StreamID][]uint64 // numbers that are here
	frames  map[carnet.PartyID]map[uint64]struct{}
}

func (v *verification) whole(file, format string, args ...any) {
	v.report.Add(evidence.Finding{Verdict: evidence.False, File: file, Offset: -1, All: true, Text: fmt.Sprintf(format, args...)})
}

// blame says which file an error of Open is about.
func (v *verification) blame(err error) string {
	if strings.HasPrefix(err.Error(), FileManifest) {
		return FileManifest
	}
	return FileHead
}

// files reports whether the directory has the files of a passport, each with the
// length that the head says.
func (v *verification) files() (complete bool, err error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return false, carnet.Errorf(carnet.NotFound, "the passport can't be read: %v", err)
	}
	names := append([]string{FileHead}, dataFiles...)
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) && e.Name() != FileGrants {
			v.whole(e.Name(), "the file doesn't belong to the passport")
		}
	}
	complete = true
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(v.dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			v.whole(name, "the file is missing")
			complete = false
		case err != nil:
			return false, err
		case !info.Mode().IsRegular():
			v.whole(name, "is not a regular file")
			complete = false
		}
	}
	return complete, nil
}

// listed reports whether the grants are there if the head names them, and only then.
func (v *verification) listed() (right bool, err error) {
	info, err := os.Lstat(filepath.Join(v.dir, FileGrants))
	there := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	switch named := slices.Contains(v.p.Head.files(), FileGrants); {
	case named && !there:
		v.whole(FileGrants, "the file is missing")
	case there && !named:
		v.whole(FileGrants, "the file doesn't belong to the passport")
	case there && !info.Mode().IsRegular():
		v.whole(FileGrants, "is not a regular file")
	default:
		return true, nil
	}
	return false, nil
}

// describe says what the passport is, and compares its keys with those that are
// trusted.
func (v *verification) describe(trust *evidence.Trust) error {
	r, p := v.report, v.p
	r.World, r.Avatar, r.Made = p.Head.World.Party, p.Manifest.Avatar, p.Word.Made
	r.Passport = &evidence.PassportOf{
		Passport: p.Word.Passport, Source: p.Word.Source, Home: p.Word.Home, Owner: p.Word.Owner, Readers: []carnet.PartyID{}, Farewell: p.Head.Farewell != "",
	}
	for _, reader := range p.Head.Readers {
		r.Passport.Readers = append(r.Passport.Readers, reader.Reader)
	}
	if p.Head.Policy != "" {
		said, err := identity.OpenAvatarPolicy(p.Head.Policy)
		if err != nil {
			return err
		}
		r.Passport.Policy = said.Version
	}
	own := evidence.Trust{Version: 1, Worlds: []evidence.World{p.Head.World}}
	for i := range p.Manifest.Streams {
		s := &p.Manifest.Streams[i]
		s.Crossing = p.Manifest.Crossing
		if err := Vouched(*s); err != nil {
			v.report.Add(evidence.Finding{Verdict: evidence.False, File: FileManifest, Offset: -1, Stream: s.Stream, Text: err.Error()})
			continue
		}
		passage, err := evidence.OpenPassage(s.Passage)
		if err != nil {
			return err
		}
		worlds := []evidence.World{passage.World}
		for i := range s.Left {
			word, err := evidence.OpenRedaction(s.Left[i].Word)
			if err != nil {
				return err
			}
			worlds = append(worlds, word.World)
		}
		for _, one := range worlds {
			if !slices.ContainsFunc(own.Worlds, func(w evidence.World) bool { return w.Party == one.Party && bytes.Equal(w.Key, one.Key) }) {
				own.Worlds = append(own.Worlds, one)
			}
		}
		sender := passage.Sender
		sender.World = passage.World.Key
		if !slices.ContainsFunc(own.Senders, func(o evidence.Sender) bool {
			return o.Party == sender.Party && o.Audience == sender.Audience && bytes.Equal(o.Key, sender.Key) && bytes.Equal(o.World, sender.World)
		}) {
			own.Senders = append(own.Senders, sender)
		}
		if !slices.Contains(own.Ledgers, passage.Ledger) {
			own.Ledgers = append(own.Ledgers, passage.Ledger)
		}
	}
	if len(p.Manifest.Items) > 0 {
		own.Registrars = []string{p.Word.Registrar}
	}
	r.Trust = own
	known := own.Ledgers
	if trust != nil {
		known = trust.Ledgers
	}
	for _, l := range known {
		if key, err := ledger.ParseKey(l.Key); err == nil {
			v.ledgers = append(v.ledgers, key)
		}
	}
	if trust == nil {
		return nil
	}
	if err := trust.Pins(); err != nil {
		return err
	}
	for _, f := range own.Against(trust) {
		f.File = FileHead
		r.Add(f)
	}
	return nil
}

// hashed reads a file, and hashes what is read.
type hashed struct {
	file *os.File
	hash hash.Hash
	at   int64
}

func (v *verification) open(name string) (*hashed, error) {
	f, err := os.Open(filepath.Join(v.dir, name))
	if err != nil {
		return nil, fmt.Errorf("verify passport: %w", err)
	}
	return &hashed{file: f, hash: sha256.New()}, nil
}

func (h *hashed) Read(b []byte) (int, error) {
	n, err := h.file.Read(b)
	h.hash.Write(b[:n])
	h.at += int64(n)
	return n, err
}

// end reads what is left of a file and compares it with what the head says.
func (v *verification) end(name string, h *hashed) error {
	defer h.file.Close()
	want := v.p.Head.file(name)
	if _, err := io.Copy(io.Discard, io.LimitReader(h, max(want.Length-h.at, 0)+1)); err != nil {
		return fmt.Errorf("verify passport: %w", err)
	}
	switch {
	case h.at != want.Length:
		v.whole(name, "the file has another length than the %d bytes that the head says", want.Length)
	case carnet.Fingerprint(h.hash.Sum(nil)) != want.Hash && !v.report.Named(name):
		v.whole(name, "the file is not the one that the world signed")
	}
	return nil
}

// pieces verifies each stretch by its proof.
func (v *verification) pieces(ctx context.Context) error {
	v.batches, v.frames = make(map[carnet.StreamID][]uint64), make(map[carnet.PartyID]map[uint64]struct{})
	origins := make(map[carnet.StreamID]*avatar.Origin)
	for i := range v.p.Manifest.Streams {
		origins[v.p.Manifest.Streams[i].Stream] = &v.p.Manifest.Streams[i].Origin
	}
	stretches, err := v.open(FileStretches)
	if err != nil {
		return err
	}
	proofs, err := v.open(FileProofs)
	if err != nil {
		return errors.Join(err, stretches.file.Close())
	}
	var verifier avatar.StretchVerifier
	for i := range v.p.Manifest.Stretches {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, stretches.file.Close(), proofs.file.Close())
		}
		m := &v.p.Manifest.Stretches[i]
		at, proofAt := stretches.at, proofs.at
		body := make([]byte, m.Size)
		if _, err := io.ReadFull(stretches, body); err != nil {
			v.about(m, FileStretches, at, "the file ends before the stretch does")
			break
		}
		proof, err := readPiece(proofs, avatar.MaxProof)
		if err != nil {
			v.about(m, FileProofs, proofAt, "the file ends before the stretch's proof does")
			break
		}
		if carnet.FingerprintOf(body) != m.Fingerprint {
			v.about(m, FileStretches, at, "the stretch has other bytes than its fingerprint says")
			continue
		}
		is, err := verifier.Verify(m, origins[m.Stream], body, proof)
		if err != nil {
			v.about(m, FileProofs, proofAt, "the stretch isn't proved: "+err.Error())
			continue
		}
		v.note(m, origins[m.Stream].Sender, &is)
	}
	return errors.Join(v.end(FileStretches, stretches), v.end(FileProofs, proofs))
}

// about adds a finding about a stretch.
func (v *verification) about(m *avatar.MovedStretch, file string, at int64, text string) {
	f := evidence.Finding{
		Verdict: evidence.False, File: file, Offset: at, Stream: m.Stream, Batches: &evidence.Range{From: m.First, To: m.Last}, Text: text,
	}
	if m.NextNumber > m.FirstNumber {
		f.Measurements = &evidence.Range{From: m.FirstNumber, To: m.NextNumber - 1}
		f.From, f.To = time.Unix(60*m.FromMinute, 0).UTC(), time.Unix(60*(m.ToMinute+1), 0).UTC()
	}
	v.report.Add(f)
}

// note counts what a stretch holds.
func (v *verification) note(m *avatar.MovedStretch, sender carnet.PartyID, is *avatar.VerifiedStretch) {
	c := &v.report.Counts
	c.Batches, c.Measurements, c.Bytes, c.Closed = c.Batches+uint64(m.Batches), c.Measurements+m.Measurements, c.Bytes+uint64(m.Size), c.Closed+uint64(m.Batches)
	for _, h := range is.Headers {
		v.batches[m.Stream] = append(v.batches[m.Stream], h.Number)
	}
	if v.frames[sender] == nil {
		v.frames[sender] = make(map[uint64]struct{})
	}
	for _, n := range is.Frames {
		if _, had := v.frames[sender][n]; !had {
			v.frames[sender][n] = struct{}{}
			c.Frames++
		}
	}
}

// numbers checks that each stream's batches follow one another up to where the stream
// stood, but for what retention is said to have ended.
func (v *verification) numbers() {
	if v.report.Verdict == evidence.False {
		return // of what is damaged it is said already which batches it was
	}
	for i := range v.p.Manifest.Streams {
		s := &v.p.Manifest.Streams[i]
		gaps, err := gapsOf(s)
		if err != nil {
			v.report.Add(evidence.Finding{Verdict: evidence.False, File: FileManifest, Offset: -1, Stream: s.Stream, Text: err.Error()})
			continue
		}
		say := func(verdict evidence.Verdict, r evidence.Range, text string) {
			v.report.Add(evidence.Finding{Verdict: verdict, File: FileManifest, Offset: -1, Stream: s.Stream, Batches: &r, Text: text})
		}
		next := uint64(0)
		follow := func(number uint64) {
			if number > next {
				for _, r := range gaps.Take(evidence.Range{From: next, To: number - 1}, -1) {
					say(evidence.False, r, "missing: the sender numbered these, and they are not in the passport")
				}
			} else if number < next {
				say(evidence.False, evidence.Range{From: number, To: number}, "the batch is there twice")
			}
			next = max(next, number+1)
		}
		numbers := v.batches[s.Stream]
		slices.Sort(numbers)
		for _, n := range numbers {
			follow(n)
		}
		if next < s.NextBatch {
			follow(s.NextBatch)
		}
		if n, in := gaps.Ended(); n > 0 {
			say(evidence.Unknown, in, fmt.Sprintf("the world says that the retention of %d of these has ended: what was in them can't be told", n))
		}
		if why := gaps.Wrong(); why != "" {
			v.report.Add(evidence.Finding{Verdict: evidence.False, File: FileManifest, Offset: -1, Stream: s.Stream, Text: why})
		} else {
			v.report.LeftOut = append(v.report.LeftOut, gaps.Left()...)
		}
	}
}

// gapsOf makes the account of what lacks of a stream.
func gapsOf(s *avatar.MovedStream) (*evidence.Gaps, error) {
	var over []evidence.Over
	for _, o := range s.Over {
		over = append(over, evidence.Over(o))
	}
	var left []*evidence.Redaction
	for i := range s.Left {
		word, err := evidence.OpenRedaction(s.Left[i].Word)
		if err != nil {
			return nil, err
		}
		left = append(left, word)
	}
	return evidence.NewGaps(over, left), nil
}

// rest checks the files that hold no stretch.
func (v *verification) rest() error {
	keys, err := v.open(FileKeys)
	if err != nil {
		return err
	}
	for range MaxBags {
		at := keys.at
		bag, err := readPiece(keys, seal.MaxBag)
		if errors.Is(err, io.EOF) {
			break
		}
		var to carnet.Fingerprint
		if err == nil {
			to, err = seal.BagReception(bag)
		}
		if err != nil || !slices.ContainsFunc(v.p.Head.Readers, func(r Reader) bool { return r.Reception == to }) {
			v.report.Add(evidence.Finding{Verdict: evidence.False, File: FileKeys, Offset: at, All: true, Text: "this is no key bag for one of the passport's readers"})
			break
		}
		v.report.Passport.Bags++
	}
	if err := v.end(FileKeys, keys); err != nil {
		return err
	}
	if err := v.items(); err != nil {
		return err
	}
	return v.grants()
}

// small reads a file that is small enough to be held; nil: it is damaged, which is said.
func (v *verification) small(name string) ([]byte, error) {
	f, err := v.open(name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxBelongings))
	if err != nil {
		return nil, errors.Join(err, f.file.Close())
	}
	if err := v.end(name, f); err != nil || v.report.Named(name) {
		return nil, err
	}
	return text, nil
}

// items verifies each item from its issuer on, as the avatar's at the world that made the
// passport.
func (v *verification) items() error {
	text, err := v.small(FileItems)
	if err != nil || text == nil {
		return err
	}
	want, err := json.Marshal(append([]identity.ItemProof{}, v.p.Manifest.Items...))
	if err != nil {
		return err
	}
	if !bytes.Equal(text, want) {
		v.whole(FileItems, "the file has other items than the manifest")
		return nil
	}
	for n, p := range v.p.Manifest.Items {
		is, err := v.item(p)
		if err != nil {
			v.whole(FileItems, "item %d: %v", n+1, err)
			continue
		}
		v.report.Passport.Items = append(v.report.Passport.Items, is)
		if v.report.Pinned && !is.Receipts {
			v.report.Add(evidence.Finding{
				Verdict: evidence.Unknown, File: FileItems, Offset: -1, Text: fmt.Sprintf("what the registrar says of the item %s is on no ledger that is trusted", is.Item),
			})
		}
	}
	return nil
}

func (v *verification) item(p identity.ItemProof) (is evidence.PassportItem, err error) {
	word := v.p.Word
	h, err := item.Read(p, nil)
	switch {
	case err != nil:
		return is, err
	case h.World != word.Source || h.Avatar != word.Avatar || h.Retired:
		return is, carnet.Errorf(carnet.Tampered, "its chain doesn't end with the avatar, at the world of the passport")
	case h.Owner != word.Owner || h.Registrar != word.Registrar:
		return is, carnet.Errorf(carnet.Tampered, "its home is of another owner, or registered elsewhere, than the avatar's")
	}
	is = evidence.PassportItem{Item: h.ID, Kind: h.Kind, Title: h.Title, Issuer: h.Issuer, Entries: len(h.Entries)}
	for _, key := range v.ledgers {
		if _, err := item.Read(p, &key); err == nil {
			is.Receipts = true
		}
	}
	return is, nil
}

// grants checks that what the passport says of grants can be read.
func (v *verification) grants() error {
	if !slices.Contains(v.p.Head.files(), FileGrants) {
		return nil
	}
	text, err := v.small(FileGrants)
	if err != nil || text == nil {
		return err
	}
	all, err := readGrants(text)
	if err != nil {
		v.whole(FileGrants, "%v", err)
	}
	v.report.Passport.Grants = len(all)
	return nil
}
