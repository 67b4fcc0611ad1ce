package evidence

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/seal"
	"carnet/senml"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
)

var made = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

// agent is a things agent that sends frames to the world arena.
type agent struct {
	party  carnet.PartyID
	key    ed25519.PrivateKey
	number uint64
	last   carnet.Fingerprint
	shares bool // it is a world

	forger ed25519.PrivateKey // who makes its frames up, if it doesn't sign them itself
}

// course is a stream of an agent, about the avatar in question or another.
type course struct {
	agent *agent
	own   bool
	epoch seal.Key
	slot  *seal.Slot
	id    carnet.StreamID
	batch uint64
	first uint64
}

// stage is a world with its senders and a ledger, all of them made up.
type stage struct {
	t       testing.TB
	world   ed25519.PrivateKey
	depot   *ledger.Signer
	hub     *agent
	bike    *agent
	frames  []*Frame
	entries []carnet.Fingerprint
	courses []*course
	avatar  carnet.AvatarID
	name    carnet.PartyID // the world's
	size    int            // measurements of a batch
	noise   bool           // values and times of full width, as no sensor has them
}

func seed(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func newStage(t testing.TB) *stage {
	t.Helper()
	depot, err := ledger.NewSigner("vault.example/ledger", seed(3))
	if err != nil {
		t.Fatal(err)
	}
	return &stage{t: t, world: seed(1), depot: depot, avatar: carnet.NewAvatarID(), name: "arena", size: 5,
		hub: &agent{party: "hub", key: seed(10)}, bike: &agent{party: "bike", key: seed(11)}}
}

func (s *stage) course(a *agent, own bool) *course {
	id := carnet.NewStreamID()
	c := &course{agent: a, own: own, id: id, epoch: seal.NewEpoch(id)}
	var err error
	if c.slot, err = c.epoch.Slot(7); err != nil {
		s.t.Fatal(err)
	}
	s.courses = append(s.courses, c)
	return c
}

// batch seals the next batch of a course.
func (s *stage) batch(c *course) []byte {
	s.t.Helper()
	var ms []carnet.Measurement
	for i := range s.size {
		ms = append(ms, carnet.Measurement{Name: "heartrate", Unit: "beat/min", Time: made.Add(time.Duration(int(c.first)+i) * time.Second).UnixNano(),
			Value: carnet.Float(float64(60 + (int(c.first)+i*7)%90))})
	}
	for i := range ms {
		if s.noise {
			ms[i].Value, ms[i].Time = carnet.Float(rand.NormFloat64()), ms[i].Time+rand.Int64N(1e9)
		}
	}
	body, err := seal.AppendBody(nil, seal.Body{Retention: carnet.Keep, Hour: 1, First: c.first, Count: uint32(len(ms)), Content: senml.AppendColumns(nil, ms)})
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := c.slot.Seal(nil, c.batch, body)
	if err != nil {
		s.t.Fatal(err)
	}
	c.batch++
	c.first += uint64(len(ms))
	return b
}

// send makes a frame of a batch of each course, in order.
func (s *stage) send(courses ...*course) *Frame {
	s.t.Helper()
	var batches [][]byte
	for _, c := range courses {
		batches = append(batches, s.batch(c))
	}
	return s.sendBatches(courses[0].agent, courses, batches)
}

func (s *stage) sendBatches(a *agent, courses []*course, batches [][]byte) *Frame {
	s.t.Helper()
	a.number++
	header := seal.FrameHeader{Audience: s.name, Incarnation: 1, Number: a.number, Previous: a.last, Policy: 4, Time: made.UnixNano()}
	if !a.shares {
		header.Covers[15] = 1
	}
	var f seal.Frame
	key := a.key
	if a.forger != nil {
		key = a.forger
	}
	if err := f.Sign(key, header, batches); err != nil {
		s.t.Fatal(err)
	}
	if a.forger != nil { // it says that it is the agent's
		by, from := seal.KeyID(key.Public().(ed25519.PublicKey)), seal.KeyID(a.key.Public().(ed25519.PublicKey))
		f.Sign1 = bytes.Replace(f.Sign1, by[:], from[:], 1)
	}
	a.last = carnet.FingerprintOf(f.Sign1)
	out := &Frame{Sender: a.party, Sign1: bytes.Clone(f.Sign1), Leaves: append([]carnet.Fingerprint(nil), f.Leaves...)}
	for i, c := range courses {
		if c.own {
			h, _, err := seal.ParseHeader(batches[i])
			if err != nil {
				s.t.Fatal(err)
			}
			out.Own, out.Batches, out.Keys = append(out.Own, i), append(out.Batches, batches[i]), append(out.Keys, c.slot.BatchKey(h))
		}
	}
	s.state(out, ledger.Statement{Kind: ledger.ReceivedRoot, Who: s.name, Time: made.UnixNano(), Peer: a.party, Frame: a.number,
		Root: f.Root, Header: a.last, PolicyVersion: 4})
	s.frames = append(s.frames, out)
	return out
}

// state makes the frame's statement and puts it on the ledger.
func (s *stage) state(f *Frame, st ledger.Statement) {
	s.t.Helper()
	var err error
	if f.Statement, err = st.Marshal(); err != nil {
		s.t.Fatal(err)
	}
	f.Salt = ledger.NewSalt()
	s.entries = append(s.entries, ledger.EntryOf(f.Salt, f.Statement))
}

// receipts gives every frame a receipt of one checkpoint over all entries.
func (s *stage) receipts() {
	s.t.Helper()
	signed, sig := s.checkpoint(s.depot, seal.Root(s.entries))
	for _, f := range s.frames {
		entry := carnet.Fingerprint(ledger.EntryOf(f.Salt, f.Statement))
		for i := range s.entries {
			if s.entries[i] == entry {
				f.Receipt = s.receipt(i, signed, sig)
			}
		}
	}
}

func (s *stage) checkpoint(by *ledger.Signer, root carnet.Fingerprint) ([]byte, [64]byte) {
	s.t.Helper()
	text := log.Checkpoint{Origin: by.Name(), Size: uint64(len(s.entries)), Hash: root[:]}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, by)
	if err != nil {
		s.t.Fatal(err)
	}
	sig, err := by.SignRoot(root)
	if err != nil {
		s.t.Fatal(err)
	}
	return signed, sig
}

func (s *stage) receipt(i int, signed []byte, sig [64]byte) []byte {
	r := ledger.Receipt{Index: uint64(i), Checkpoint: signed, Signature: sig}
	for _, p := range seal.Proof(s.entries, i) {
		r.Path = append(r.Path, p)
	}
	return r.Marshal()
}

// Frames implements Source.
func (s *stage) Frames(_ context.Context, do func(*Frame) error) error {
	for _, f := range s.frames {
		if len(f.Own) > 0 {
			if err := do(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *stage) trust() Trust {
	pub := func(k ed25519.PrivateKey) PublicKey { return PublicKey(k.Public().(ed25519.PublicKey)) }
	return Trust{Version: 1,
		Worlds:  []World{{Party: s.name, Key: pub(s.world)}},
		Senders: []Sender{{Party: "hub", Audience: s.name, Key: pub(s.hub.key)}, {Party: "bike", Audience: s.name, Key: pub(s.bike.key)}},
		Ledgers: []Ledger{{"vault", s.depot.Key().String()}},
	}
}

func (s *stage) options() Options {
	return Options{World: s.name, Avatar: s.avatar, Trust: s.trust(), Signer: s.world, Now: made}
}

// write makes the bundle.
func (s *stage) write(o Options) string {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "bundle")
	if _, err := Write(context.Background(), dir, s, o); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// scene is the ordinary case: an avatar of two streams by two senders, another
// avatar's batches in the same frames.
func scene(t testing.TB) *stage { return sceneOf(t, 3) }

func sceneOf(t testing.TB, rounds int) *stage {
	s := newStage(t)
	watch, other, bike := s.course(s.hub, true), s.course(s.hub, false), s.course(s.bike, true)
	for range rounds {
		s.send(watch, other)
		s.send(bike)
		s.send(other, watch, other, watch)
		s.send(other)
	}
	s.receipts()
	return s
}

func verify(t testing.TB, dir string, trust *Trust) *Report {
	t.Helper()
	r, err := Verify(context.Background(), dir, trust, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// want checks a verdict, and that a finding says each of the words.
func want(t testing.TB, r *Report, v Verdict, words ...string) {
	t.Helper()
	all := r.Summary()
	if r.Verdict != v {
		t.Errorf("verdict %s, want %s\n%s", r.Verdict, v, all)
	}
	for _, w := range words {
		if !strings.Contains(all, w) {
			t.Errorf("the report doesn't say %q:\n%s", w, all)
		}
	}
}
