package avatar

import (
	"bytes"
	"encoding/json"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/seal"
)

// Origin says which world received a stream first, from whom, and where that is
// proved.
type Origin struct {
	World     carnet.PartyID `json:"world"`      // as it calls itself in its statements
	Ledger    carnet.PartyID `json:"ledger"`     // the depot with the ledger that they are on
	LedgerKey string         `json:"ledger_key"` // its C2SP verifier key
	Sender    carnet.PartyID `json:"sender"`     // as that world calls it
	Audience  carnet.PartyID `json:"audience"`   // that world, as the sender calls it
	Key       []byte         `json:"key"`        // the sender's, Ed25519
}

func (o *Origin) same(p *Origin) bool {
	return o.World == p.World && o.Ledger == p.Ledger && o.LedgerKey == p.LedgerKey && o.Sender == p.Sender && o.Audience == p.Audience && bytes.Equal(o.Key, p.Key)
}

// MovedStream is a stream of an avatar on its way to another home.
type MovedStream struct {
	Stream       carnet.StreamID `json:"stream"`
	Origin       Origin          `json:"origin"`
	NextBatch    uint64          `json:"next_batch"` // numbers below it move, others don't
	NextFirst    uint64          `json:"next_measurement"`
	Measurements uint64          `json:"measurements"` // ever received
	Batches      uint64          `json:"batches"`
	Over         []Over          `json:"over,omitempty"`
	// Slots: a part of it was left out by its owner's order, now or in a move before, and
	// its keys are those of slots.
	Slots bool `json:"slots,omitempty"`
	// Left is what was, in the order of those moves.
	Left []LeftOut `json:"left,omitempty"`
	// Passage is what the world that received the stream signs of it
	// (evidence.Passage); empty in a listing.
	Passage []byte `json:"passage,omitempty"`
	// Commit shows, of a stream that came with a move, that this took place
	// (identity.MoveProof).
	Commit []byte `json:"commit,omitempty"`
	// Crossing is the manifest's.
	Crossing carnet.CrossingID `json:"-"`
	// Here: it was received by the avatar that leaves, and not by one that came.
	Here bool `json:"-"`
}

// Over says that batches of a retention class were dropped when it ended: none but
// with numbers From to To.
type Over struct {
	Class carnet.Retention `json:"class"`
	From  uint64           `json:"from"`
	To    uint64           `json:"to"`
}

// MovedStretch is a stretch of a stream, as it is listed to who takes it over.
type MovedStretch struct {
	Fingerprint  carnet.Fingerprint `json:"fingerprint"`
	Size         int                `json:"size"`
	Stream       carnet.StreamID    `json:"stream"`
	Class        carnet.Retention   `json:"class"`
	First        uint64             `json:"first_batch"`
	Last         uint64             `json:"last_batch"`
	Batches      uint32             `json:"batches"`
	FirstNumber  uint64             `json:"first_measurement"`
	NextNumber   uint64             `json:"next_measurement"`
	Measurements uint64             `json:"measurements"`
	FromMinute   int64              `json:"from_minute"`
	ToMinute     int64              `json:"to_minute"`
	Received     int64              `json:"received"` // of its newest batch, ns since 1970
}

// over reports whether the retention of a stretch has ended.
func (s *MovedStretch) over(now time.Time) bool {
	life, ends := lives[s.Class]
	return ends && !now.Before(time.Unix(0, s.Received).Add(life))
}

// Place is where a listing of stretches goes on: at a batch of a stream, whose end is
// followed by the next stream. The zero Place is before the first.
type Place struct {
	Stream carnet.StreamID
	Batch  uint64
}

// After is the place behind a stretch that was listed.
func (s *MovedStretch) After() Place { return Place{s.Stream, s.First + 1} }

// MovedKey is an epoch that moved batches are under, or a slot of one.
type MovedKey struct {
	Stream carnet.StreamID `json:"stream"`
	Epoch  carnet.EpochID  `json:"epoch"`
	Slot   *uint32         `json:"slot,omitempty"` // of a stream whose keys are those of slots
	// NotAfter is when its grant ends; the key is destroyed then.
	NotAfter time.Time `json:"not_after"`
	// Ended: it has been, so that no key comes.
	Ended time.Time `json:"ended,omitzero"`
}

func (k *MovedKey) path() seal.Path {
	if k.Slot != nil {
		return seal.Path{Level: seal.SlotLevel, Stream: k.Stream, Epoch: k.Epoch, Slot: *k.Slot}
	}
	return seal.Path{Level: seal.EpochLevel, Stream: k.Stream, Epoch: k.Epoch}
}

// MovedValue is the newest value of a property: the last of its name with the
// greatest time in a batch.
type MovedValue struct {
	Name   string          `json:"name"`
	Stream carnet.StreamID `json:"stream"`
	Batch  uint64          `json:"batch"`
	Time   int64           `json:"time"`
}

// Manifest says exactly what moves of an avatar: what it was at one moment,
// without what its senders have sent since.
type Manifest struct {
	Version   int               `json:"version"` // 1
	Crossing  carnet.CrossingID `json:"crossing"`
	Avatar    carnet.AvatarID   `json:"avatar"`
	Title     string            `json:"title,omitempty"`
	Created   time.Time         `json:"created"`
	Streams   []MovedStream     `json:"streams"`   // in the order in which they came
	Stretches []MovedStretch    `json:"stretches"` // by stream, then by first batch
	Keys      []MovedKey        `json:"keys"`      // by stream, then by epoch
	State     []MovedValue      `json:"state"`     // by name
	// Items go along, in the order of the terms; the package item reads them.
	Items []identity.ItemProof `json:"items,omitempty"`
}

// MaxManifest bounds a manifest, which has some 350 bytes for each stretch.
const MaxManifest = 64 << 20

// Marshal writes the manifest's one form, whose hash is signed.
func (m *Manifest) Marshal() ([]byte, error) {
	text, err := json.Marshal(m)
	if err == nil && len(text) > MaxManifest {
		return nil, carnet.Errorf(carnet.TooLarge, "the manifest has %d bytes, at most %d are taken", len(text), MaxManifest)
	}
	return text, err
}

// ParseManifest reads what Marshal writes, and nothing else.
func ParseManifest(data []byte) (*Manifest, error) {
	bad := func(why string) (*Manifest, error) {
		return nil, carnet.Errorf(carnet.Malformed, "the manifest of a move %s", why)
	}
	if len(data) > MaxManifest {
		return bad("is too large")
	}
	m := new(Manifest)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return bad("can't be read: " + err.Error())
	}
	if again, err := json.Marshal(m); err != nil || !bytes.Equal(again, data) {
		return bad("is not in the one form that manifests have")
	}
	if m.Version != 1 {
		return bad("has a version that this program doesn't read")
	}
	return m, m.check()
}

// check holds the manifest together, so that what follows can use it.
func (m *Manifest) check() error {
	bad := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Malformed, "the manifest of a move "+format, args...)
	}
	if len(m.Title) > maxTitle || len(m.Streams) > maxStreams || len(m.State) > maxProperties {
		return bad("has a title of %d bytes, %d streams and %d properties", len(m.Title), len(m.Streams), len(m.State))
	}
	place := make(map[carnet.StreamID]int)
	for i := range m.Streams {
		s := &m.Streams[i]
		if _, twice := place[s.Stream]; twice || s.Stream == nobody || s.NextBatch > maxNumber || s.NextFirst > maxNumber {
			return bad("has an entry of stream %s that can't be", s.Stream)
		}
		place[s.Stream] = i
		if err := s.Origin.check(); err != nil {
			return err
		}
		if err := s.checkLeft(); err != nil {
			return err
		}
		for _, o := range s.Over {
			if _, ends := lives[o.Class]; !ends || o.From > o.To || o.To >= s.NextBatch {
				return bad("says of stream %s what can't be over", s.Stream)
			}
		}
	}
	for i := range m.Stretches {
		s := &m.Stretches[i]
		at, known := place[s.Stream]
		if !known {
			return bad("has a stretch of stream %s, which it doesn't have", s.Stream)
		}
		if err := s.check(); err != nil {
			return err
		}
		if s.Last >= m.Streams[at].NextBatch || s.NextNumber > m.Streams[at].NextFirst {
			return bad("has a stretch of stream %s that goes beyond its end", s.Stream)
		}
		if i > 0 {
			if p := &m.Stretches[i-1]; place[p.Stream] > at || p.Stream == s.Stream && p.First >= s.First {
				return bad("has its stretches in another order than that of streams and batches")
			}
		}
	}
	for i := range m.Keys {
		if at, known := place[m.Keys[i].Stream]; !known || m.Streams[at].Slots != (m.Keys[i].Slot != nil) || i > 0 && m.Keys[i].path() == m.Keys[i-1].path() {
			return bad("has a key that no stretch needs")
		}
	}
	for i := range m.State {
		v := &m.State[i]
		if at, known := place[v.Stream]; !known || v.Batch >= m.Streams[at].NextBatch || i > 0 && m.State[i-1].Name >= v.Name {
			return bad("has a value of %.80q that can't be", v.Name)
		}
	}
	return nil
}

func (o *Origin) check() error {
	for _, p := range []carnet.PartyID{o.World, o.Ledger, o.Sender, o.Audience} {
		if _, err := carnet.ParsePartyID(string(p)); err != nil {
			return err
		}
	}
	if len(o.Key) != 32 || len(o.LedgerKey) > 512 {
		return carnet.Errorf(carnet.Malformed, "the sender %s of a stream has a key of %d bytes", o.Sender, len(o.Key))
	}
	return nil
}

// maxStretch is how many bytes a stretch has at most: it grows to stretchBytes, or
// is one batch.
const maxStretch = stretchBytes + partHead + seal.MaxBatch

func (s *MovedStretch) check() error {
	switch {
	case s.Size <= 0 || s.Size > maxStretch:
		return carnet.Errorf(carnet.TooLarge, "a stretch of stream %s has %d bytes, more than %d", s.Stream, s.Size, maxStretch)
	case s.Class < carnet.Hour || s.Class > carnet.Keep || s.Batches == 0 || s.First > s.Last || s.Last-s.First < uint64(s.Batches)-1 ||
		s.FirstNumber > s.NextNumber || s.FromMinute > s.ToMinute || s.Received <= 0 || s.Last >= maxNumber || s.NextNumber > maxNumber || s.Measurements > maxNumber:
		return carnet.Errorf(carnet.Malformed, "a stretch of stream %s says of itself what can't be", s.Stream)
	}
	return nil
}
