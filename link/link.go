package link

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"sync"

	"carnet"
	"carnet/seal"
)

// Peer is a party that this one agreed to exchange with.
type Peer struct {
	Party   carnet.PartyID    // as this party calls it
	OwnName carnet.PartyID    // as it calls itself, and signs; empty: Party
	Address string            // host:port to dial; empty at a receiver
	Pin     [32]byte          // SHA-256 of its TLS certificate's SubjectPublicKeyInfo
	Key     ed25519.PublicKey // at a receiver: the key that signs the sender's frames
}

func (p Peer) ownName() carnet.PartyID { return cmp.Or(p.OwnName, p.Party) }

// Resume is what a sender learns when it is registered.
type Resume struct {
	Incarnation  uint64   // to be signed into every frame of this connection
	Last         Position // the last frame the receiver has, or says that it has: its number is at most 2^62
	MaxFrame     int      // the greatest frame the receiver takes, in bytes
	Announcement []byte   // the receiver's signed reception key; link doesn't read it
}

// Frame is one signed frame ready to be sent.
type Frame struct {
	Number uint64
	Bytes  []byte // read until the next call of Next or Resume, not after
}

// Known is what a source's durable records say about a link.
type Known struct {
	Incarnation uint64 // the greatest that a recorded frame carries
	Number      uint64 // the greatest frame known to be acknowledged
}

// A Source makes the frames of one link. Known, Resume and Next are called by
// one goroutine, one at a time; Acked and Notice by another.
type Source interface {
	// Known is asked before each registration.
	Known(ctx context.Context) (Known, error)
	// Resume moves the source to what the receiver has and returns when the move
	// is durable: frames recorded beyond r.Last were never stored there and are
	// dropped, their content is framed anew under r.Incarnation with numbers from
	// r.Last.Number+1 and r.Last.Hash as the first parent. Where the receiver is
	// ahead (this sender was restored from a backup) the source moves forward; what
	// neither can send any more becomes a recorded gap. Resume may use Call and
	// Trace. Its ctx lasts as long as the connection: what it begins may go on with it.
	Resume(ctx context.Context, r Resume) error
	// Next blocks until a frame is ready. The source has recorded it durably.
	Next(ctx context.Context) (Frame, error)
	// Acked says that the receiver has stored every frame of this connection up
	// to number. It is called in order and must neither block nor use Call.
	Acked(number uint64)
	// Notice hands over what the receiver said with Notify, once Resume has returned. It
	// must neither block nor use Call.
	Notice(kind string, body []byte)
}

// Parting is a Source that is told when a connection has ended: none of its methods
// but Known is called from then on until the next Resume. Parted is called by the
// goroutine that calls Resume, and must not block.
type Parting interface{ Parted() }

// Arrival is a frame that arrived from a sender, parsed and verified: signature,
// sender's key, audience and the fingerprints of all batches hold. It belongs to
// the Sink that it is given to.
type Arrival struct {
	Frame seal.Frame // with Leaves; its slices are part of Bytes
	Hash  carnet.Fingerprint
	Bytes []byte // the whole frame as it came

	home *sync.Pool
}

// Head returns what State.Judge reads.
func (a *Arrival) Head() Head {
	h := &a.Frame.Header
	return Head{h.Incarnation, h.Number, h.Previous, a.Hash, h.Covers}
}

// Release gives a and its memory back for later frames: a and all slices of it
// must not be used afterwards. A Sink that keeps them doesn't call it.
func (a *Arrival) Release() {
	if home := a.home; home != nil {
		a.home = nil
		home.Put(a)
	}
}

// A Sink makes durable what senders send. For one party no two of Register,
// Accept and Call run at the same time; for different parties they do.
//
// A carnet.Error that Accept, Call or Register returns is told to the sender as
// it is; of any other error the sender hears only "unavailable".
type Sink interface {
	// State returns what is durable about a sender; zero for one never seen.
	State(ctx context.Context, party carnet.PartyID) (State, error)
	// Register applies State.Register to the stored state in one durable
	// transaction and returns the result.
	Register(ctx context.Context, party carnet.PartyID, n Nonce, above uint64) (State, error)
	// Accept applies State.Judge to each arrival in order, stops after the first
	// that is neither Next nor Again, and stores the Next ones with the new state
	// in one durable transaction. It returns one verdict for each arrival judged.
	// With an error nothing was stored.
	Accept(ctx context.Context, party carnet.PartyID, run []*Arrival) ([]Verdict, error)
	// Frame returns the position of the stored frame with a number, and false if
	// it isn't kept.
	Frame(ctx context.Context, party carnet.PartyID, number uint64) (Position, bool, error)
	// Call answers a sender's request. It runs before any frame sent after it is
	// accepted.
	Call(ctx context.Context, party carnet.PartyID, kind string, body []byte) ([]byte, error)
	// Announcement returns the signed reception key for a sender.
	Announcement(ctx context.Context, party carnet.PartyID) ([]byte, error)
	// Welcomed says that a sender is connected anew: from now on it can be told
	// something (Server.Notify), and it may have missed what it was told before.
	Welcomed(party carnet.PartyID)
}
